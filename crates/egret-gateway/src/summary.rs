//! What was refused, grouped for the end of a run.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use egret_policy::{Denial, Reason};
use serde::{Deserialize, Serialize};

use crate::activity::Count;

/// All refusals of one destination for one reason, which the same change would allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What was wrong, in words, where no change would allow it.
    pub cause: Option<String>,
}

/// All attempts at one destination that was allowed and could not be reached, for one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// All of them, whatever they are.
    refusals: Count,
    failures: Count,
}

/// How often, for each destination and reason, and what there is to say of it: the hint, or else the cause.
type Groups = HashMap<(String, Reason, Say), u64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Say {
    Hint(String),
    Cause(String),
    Nothing,
}

impl Summary {
    pub(crate) fn count(&self, destination: String, denial: &Denial) {
        self.refusals.add(1);
        let groups = &mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let say = match denial.hint() {
            Some(hint) => Say::Hint(hint.to_string()),
            None => Say::Cause(denial.cause()),
        };
        let key = (destination, denial.reason(), say);
        if let Some(count) = groups.get_mut(&key) {
            *count += 1;
        } else if groups.len() < GROUPS {
            groups.insert(key, 1);
        } else {
            *groups
                .entry((String::new(), denial.reason(), Say::Nothing))
                .or_insert(0) += 1;
        }
    }

    pub(crate) fn count_failure(&self, destination: String, cause: &str) {
        self.failures.add(1);
        let failed = &mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (destination, cause.to_owned());
        if failed.len() < GROUPS || failed.contains_key(&key) {
            *failed.entry(key).or_insert(0) += 1;
        }
    }

    /// How many refusals there were.
    pub(crate) fn refused(&self) -> u64 {
        self.refusals.get()
    }

    /// How many failures there were.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.get()
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
            .map(|((destination, reason, say), &count)| Refusal {
                destination: destination.clone(),
                reason: *reason,
                count,
                hint: match say {
                    Say::Hint(hint) => Some(hint.clone()),
                    Say::Cause(_) | Say::Nothing => None,
                },
                cause: match say {
                    Say::Cause(cause) => Some(cause.clone()),
                    Say::Hint(_) | Say::Nothing => None,
                },
            })
            .collect();
        refusals.sort_by(|a, b| {
            b.count
                .cmp(&a.count)
                .then_with(|| a.destination.cmp(&b.destination))
                .then_with(|| a.hint.cmp(&b.hint))
        });
        refusals
    }
}

/// Different destinations that are counted apart.
const GROUPS: usize = 1_024;
