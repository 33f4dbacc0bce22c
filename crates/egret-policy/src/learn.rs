//! What a run reached, and the smallest policy that would have allowed it.
//!
//! A [`Lesson`] is told what became of each connection and counts. [`Lesson::learnt`] makes entries of it: names in the
//! form that people would write, with the ports that were used, under a comment that says how often and by which programs, and
//! what about them deserves a second look ([`marks`]).
//!
//! Whatever it is told is taken for an attacker's: the sandbox chooses names and programs, and may make up as many as it
//! likes. What is not public is never opened, however it was reached; what is kept, written and named is bounded; and nothing
//! of it reaches a comment with characters that hide or act.
//!
//! Not here: the log that the lesson is read from, and the clock.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use crate::addr::{Class, class_of};
use crate::destination::{Destination, Target};
use crate::host::Host;
use crate::matcher::Matcher;
use crate::names::special;
use crate::program::Program;
use crate::reason::Reason;
use crate::text::amend::{Addition, AmendError};

mod entries;
mod marks;
mod page;

/// What a run did, as far as it has been told.
#[derive(Clone, Debug, Default)]
pub struct Lesson {
    destinations: BTreeMap<Destination, Met>,
    refused: BTreeMap<String, Refusals>,
    /// How often what was asked for was no destination.
    malformed: u64,
    /// No wildcard is to mean one of these.
    refused_names: HashSet<Host>,
    /// Events about destinations beyond those that are kept.
    beyond: u64,
}

/// Who was asked for, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The name or address, as it stands in the audit log.
    pub host: &'a str,
    /// The port; none for a name that was only looked up.
    pub port: Option<u16>,
    /// The program, if it is known.
    pub by: Option<&'a Program>,
}

/// What is made of a [`Lesson`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// The entries, in order, each with its comment.
    pub additions: Vec<Addition>,
    /// How many of them deserve a second look.
    pub marked: usize,
    /// How many connections they stand for.
    pub connections: u64,
    /// What was allowed and is not opened by the entries, and why: a sentence each.
    pub not_opened: Vec<String>,
    /// What was refused, why, and how it would be opened: a sentence each.
    pub refused: Vec<String>,
    /// Destinations that the entries open, and some that they do not.
    proof: Vec<(bool, String)>,
}

/// What became of the connections to one destination.
#[derive(Clone, Debug, Default)]
struct Met {
    /// Connections that were made.
    reached: u64,
    /// Those of them that were cut off for what was said on them.
    cut: u64,
    /// Connections that could not be made.
    failed: u64,
    /// What went wrong with the last of these.
    failure: String,
    /// What opened it, if it is not something that everybody may have.
    opened_by: Option<String>,
    /// Octets that were sent there.
    sent: u64,
    programs: Programs,
}

/// Refusals of one destination.
#[derive(Clone, Debug)]
struct Refusals {
    count: u64,
    why: String,
    hint: Option<String>,
    programs: Programs,
}

/// The first few programs that asked for something.
#[derive(Clone, Debug, Default)]
struct Programs {
    kept: Vec<Program>,
    /// Whether there were others, or such that nobody knew.
    others: bool,
    unknown: bool,
}

/// As many destinations are kept apart, and as many refused ones.
const MOST_DESTINATIONS: usize = 20_000;
/// As many programs are kept for each.
const MOST_PROGRAMS: usize = 8;
/// Longer texts from outside are cut.
const LONGEST: usize = 200;

impl Lesson {
    /// A connection was allowed and made. `reason` is the code of the decision, `rule` the entry that decided, and `addresses`
    /// what the name resolved to.
    pub fn reached(
        &mut self,
        asked: Asked<'_>,
        reason: &str,
        rule: Option<&str>,
        addresses: &[IpAddr],
    ) {
        let public = |address: &IpAddr| class_of(*address) == Class::Public;
        let is_public = addresses.iter().all(public)
            && destination(asked).is_some_and(|to| match to.target() {
                Target::Name(name) => special(name).is_none(),
                Target::Address(address) => public(address),
            });
        let Some(met) = self.met(asked) else {
            return;
        };
        met.reached += 1;
        if !is_public || reason == Reason::AllowedHostGateway.code() {
            let rule = rule.filter(|rule| !rule.is_empty());
            met.opened_by = Some(shortened(rule.unwrap_or("`host_gateway` or its flag")));
        }
    }

    /// A connection was allowed, and could not be made.
    pub fn failed(&mut self, asked: Asked<'_>, why: &str) {
        if let Some(met) = self.met(asked) {
            met.failed += 1;
            met.failure = shortened(why);
        }
    }

    /// A connection that had been made was cut off for what was said on it.
    pub fn cut(&mut self, asked: Asked<'_>) {
        if let Some(met) = self.met(asked) {
            met.cut += 1;
        }
    }

    /// A connection that had been made has ended, and sent so many octets. What was sent counts, though it was cut off later.
    pub fn ended(&mut self, asked: Asked<'_>, sent: u64, was_cut: bool) {
        // It has been counted already.
        let destination = destination(asked);
        if let Some(met) = destination.and_then(|to| self.destinations.get_mut(&to)) {
            met.sent = met.sent.saturating_add(sent);
            met.cut = met.cut.saturating_sub(u64::from(was_cut && sent > 0));
        }
    }

    /// So many events are not on record one by one.
    pub fn missed(&mut self, events: u64) {
        self.beyond = self.beyond.saturating_add(events);
    }

    /// Something was refused. `reason` is the code of the decision, `hint` the smallest change that would allow it.
    pub fn refused(&mut self, asked: Asked<'_>, reason: &str, hint: Option<&str>) {
        // Nobody has anything against it.
        if reason == Reason::DeniedResolution.code() && asked.port.is_some() {
            return self.failed(asked, &meaning(reason));
        }
        if reason == Reason::DeniedMalformed.code() {
            self.malformed += 1;
            return;
        }
        let to = destination(asked);
        let name = match (to.as_ref().map(Destination::target), asked.port) {
            (Some(Target::Name(name)), _) => Some(name.clone()),
            (None, None) => asked.host.parse().ok(),
            _ => None,
        };
        if self.refused_names.len() < MOST_DESTINATIONS {
            self.refused_names.extend(name);
        }
        let text = to.map_or_else(|| shortened(asked.host), |to| to.to_string());
        if self.refused.len() >= MOST_DESTINATIONS && !self.refused.contains_key(&text) {
            self.beyond += 1;
            return;
        }
        let refusals = self.refused.entry(text).or_insert_with(|| Refusals {
            count: 0,
            why: meaning(reason),
            hint: hint.map(shortened),
            programs: Programs::default(),
        });
        refusals.count += 1;
        refusals.programs.add(asked.by);
    }

    /// The smallest set of entries that allows what was reached and is public. With `generalize`, a wildcard stands for three
    /// or more names that differ in their first label. What a policy allows `already` needs no entry.
    pub fn learnt(&self, already: Option<&Matcher>, generalize: bool) -> Learnt {
        entries::learnt(self, already, generalize)
    }

    fn met(&mut self, asked: Asked<'_>) -> Option<&mut Met> {
        let to = destination(asked);
        let known = to
            .as_ref()
            .is_some_and(|to| self.destinations.contains_key(to));
        let Some(to) = to.filter(|_| known || self.destinations.len() < MOST_DESTINATIONS) else {
            self.beyond += 1;
            return None;
        };
        let met = self.destinations.entry(to).or_default();
        met.programs.add(asked.by);
        Some(met)
    }
}

impl Learnt {
    /// A policy of its own, under these comments: a sentence each.
    ///
    /// # Errors
    /// [`AmendError`], if it is none, which must not happen.
    pub fn policy(&self, name: Option<&str>, header: &[String]) -> Result<String, AmendError> {
        page::policy(self, name, header)
    }
}

impl Met {
    /// Whether it is to be opened: something public was reached, and not only to be cut off.
    fn is_to_be_opened(&self) -> bool {
        self.reached > self.cut && self.opened_by.is_none()
    }
}

impl Programs {
    fn add(&mut self, program: Option<&Program>) {
        match program {
            None => self.unknown = true,
            Some(program) if self.kept.iter().any(|kept| kept == program) => {}
            Some(program) if self.kept.len() < MOST_PROGRAMS => self.kept.push(program.clone()),
            Some(_) => self.others = true,
        }
    }

    /// Each by itself, and nobody where there were such as nobody knew.
    fn each(&self) -> impl Iterator<Item = Option<&Program>> {
        let nobody = (self.unknown || self.others || self.kept.is_empty()).then_some(None);
        self.kept.iter().map(Some).chain(nobody)
    }
}

fn destination(asked: Asked<'_>) -> Option<Destination> {
    Destination::parse(asked.host, &asked.port?.to_string()).ok()
}

/// What a reason means, as the end of a sentence.
fn meaning(code: &str) -> String {
    match code.parse::<Reason>() {
        Ok(reason) => {
            let meaning = reason.meaning().trim_end_matches('.');
            let mut chars = meaning.chars();
            let first = chars.next().map(|first| first.to_lowercase().to_string());
            format!("{}{}", first.unwrap_or_default(), chars.as_str())
        }
        Err(_) => "for a reason that this version does not know".to_owned(),
    }
}

/// A text from outside as far as it goes into a line.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    crate::visible(&short).into_owned()
}

#[cfg(test)]
mod tests;
