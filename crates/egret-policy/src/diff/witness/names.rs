//! Names of every kind that patterns tell apart.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::{Witness, Witnesses, pattern_of};
use crate::destination::Target;
use crate::diff::sequences::{Part, Pattern as Sequence, kinds};
use crate::diff::words::{ANY, LABELS, Reading};
use crate::host::Host;
use crate::names::HOST_GATEWAY;
use crate::pattern::{Lead, Pattern};

impl Witnesses<'_> {
    /// A name of each kind, and all that stand for the host.
    pub(super) fn names(&self) -> Vec<Witness> {
        let gateways = HOST_GATEWAY.iter().filter_map(|name| name.parse().ok());
        let gateways = gateways.map(|name| Witness {
            target: Target::Name(name),
            stands_for: None,
            order: 0,
            unnamed: false,
        });
        let mut witnesses: Vec<Witness> = gateways.collect();
        let mut known: HashSet<&str> = HashSet::new();
        let mut patterns: Vec<(&Pattern, usize)> = Vec::new();
        for (order, one) in (1..).zip(&self.entries) {
            if let Some(pattern) = pattern_of(one.entry)
                && known.insert(pattern.as_str())
            {
                patterns.push((pattern, order));
            }
        }
        let sequences = patterns.iter().map(|(pattern, _)| Sequence {
            parts: parts(pattern),
            reading: Reading::default(),
        });
        let sequences: Vec<_> = sequences.collect();
        let kinds = self
            .work
            .part(MOST_WORK, |work| kinds(&sequences, &LABELS, work));
        for kind in kinds {
            if !self.work.spend(1) {
                break;
            }
            let matched = kind.matched.iter();
            let matched = matched.filter_map(|&at| patterns.get(at as usize).copied());
            let matched: Vec<_> = matched.collect();
            let Some(name) = self.name_of(kind.words, matched.is_empty()) else {
                self.work.leave_out();
                continue;
            };
            let (stands_for, order) = match matched.is_empty() {
                true => (Some("every name that no entry names".to_owned()), 0),
                false => in_words(matched),
            };
            if !HOST_GATEWAY.contains(&name.as_str()) {
                witnesses.push(Witness {
                    target: Target::Name(name),
                    stands_for,
                    unnamed: order == 0,
                    order,
                });
            }
        }
        witnesses
    }

    /// The name with these labels, the last of them first; a shorter one of its kind if it is too long for a name.
    fn name_of(&self, mut labels: Vec<String>, unnamed: bool) -> Option<Host> {
        let usual = format!("{ANY}.example").parse().ok();
        if let (true, Some(usual)) = (unnamed, usual)
            && self.about_name(&usual).is_empty()
        {
            return Some(usual);
        }
        labels.reverse();
        labels.join(".").parse().ok().or_else(|| {
            labels
                .iter_mut()
                .filter(|label| *label == ANY)
                .for_each(|label| *label = "a".to_owned());
            labels.join(".").parse().ok()
        })
    }
}

/// What the names that these patterns match are called, and where the most specific of them stands.
fn in_words(mut patterns: Vec<(&Pattern, usize)>) -> (Option<String>, usize) {
    patterns.sort_by_cached_key(|(pattern, _)| Reverse(pattern.shape().specificity()));
    let Some((one, order)) = patterns.pop() else {
        return (None, 0);
    };
    if one.is_exact() {
        return (None, order);
    }
    let crosses = |other: &&(&Pattern, usize)| {
        let other = other.0;
        let by_form = |pattern: &Pattern| pattern.shape().is_looked_up_by_form();
        let below = other.rest().is_empty() || one.rest().ends_with(other.rest());
        (by_form(one) || by_form(other)) && (by_form(other) || !below)
    };
    let words = match patterns.iter().rev().find(crosses) {
        Some((other, _)) => format!("names that {one} and {other} match"),
        None => one.to_string(),
    };
    (Some(words), order)
}

/// The labels of the names that a pattern matches, the last first.
fn parts(pattern: &Pattern) -> Vec<Part<'_>> {
    let mut parts: Vec<_> = pattern.rest().rsplit('.').map(Part::Word).collect();
    match pattern.shape().lead {
        Lead::Label => {}
        Lead::Within { .. } => parts.extend(pattern.as_str().split('.').next().map(Part::Word)),
        Lead::One => parts.push(Part::Word("*")),
        Lead::Below => parts.extend([Part::Word("*"), Part::AnyNumber]),
        Lead::ApexAndBelow => parts.push(Part::AnyNumber),
    }
    parts
}

/// The most work for telling names apart.
const MOST_WORK: usize = 100_000_000;
