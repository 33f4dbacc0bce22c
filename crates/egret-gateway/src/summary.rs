//! What was refused, grouped for the end of a run.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use egret_policy::{Denial, Reason};

/// All refusals of one destination for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `host:port`, or a name alone for a DNS question; empty for requests that name no destination, and for
    /// those that came when too many different ones had been counted already.
    pub destination: String,
    /// Why.
    pub reason: Reason,
    /// How often.
    pub count: u64,
    /// The smallest change that would allow it, as text.
    pub hint: Option<String>,
}

/// All attempts at one destination that was allowed and could not be reached, for one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `host:port`.
    pub destination: String,
    /// What went wrong, in words.
    pub cause: String,
    /// How often.
    pub count: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Summary {
    refused: Mutex<Groups>,
    failed: Mutex<HashMap<(String, String), u64>>,
}

/// How often, and the hint, for each destination and reason.
type Groups = HashMap<(String, Reason), (u64, Option<String>)>;

impl Summary {
    pub(crate) fn count(&self, destination: String, denial: &Denial) {
        let groups = &mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (destination, denial.reason());
        if let Some((count, _)) = groups.get_mut(&key) {
            *count += 1;
            return;
        }
        let mut hint = denial.hint().map(|hint| hint.to_string());
        if groups.len() >= GROUPS {
            key.0.clear();
            hint = None;
        }
        groups.entry(key).or_insert((0, hint)).0 += 1;
    }

    pub(crate) fn count_failure(&self, destination: String, cause: &str) {
        let failed = &mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (destination, cause.to_owned());
        if failed.len() < GROUPS || failed.contains_key(&key) {
            *failed.entry(key).or_insert(0) += 1;
        }
    }

    pub(crate) fn failures(&self) -> Vec<Failure> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failures: Vec<_> = failed
            .iter()
            .map(|((destination, cause), &count)| Failure {
                destination: destination.clone(),
                cause: cause.clone(),
                count,
            })
            .collect();
        failures.sort_by(|a, b| {
            b.count
                .cmp(&a.count)
                .then_with(|| a.destination.cmp(&b.destination))
        });
        failures
    }

    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        let groups = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refusals: Vec<_> = groups
            .iter()
            .map(|((destination, reason), (count, hint))| Refusal {
                destination: destination.clone(),
                reason: *reason,
                count: *count,
                hint: hint.clone(),
            })
            .collect();
        refusals.sort_by(|a, b| {
            b.count
                .cmp(&a.count)
                .then_with(|| a.destination.cmp(&b.destination))
        });
        refusals
    }
}

/// Different destinations that are counted apart.
const GROUPS: usize = 1_024;
