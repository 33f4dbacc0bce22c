//! What the watched sandboxes did, put together for a screen: a row for each destination of each of them.
//!
//! Pure: records and snapshots go in, rows come out; the time is an argument. What a sandbox can make grow has a bound here,
//! and every text that stems from one has been made harmless before it is kept.

mod meter;
mod row;

pub(crate) use row::{Decided, Row, Seen, State};

use egret_gateway::Connection;
use egret_gateway::audit::{Basis, Event, Record, Verdict};
use egret_policy::visible;
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Rows of one sandbox; of more, those that were last heard of longest ago are left out.
pub(crate) const MOST_ROWS: usize = 1_000;
/// Sandboxes that have ended and are still shown.
const MOST_ENDED: usize = 20;
/// Octets of a record that is kept as a whole.
const LONGEST_RECORD: usize = 4_096;
/// Connections that have ended and are remembered for it.
const MOST_CLOSED: usize = 256;
/// Characters of a text that stems from a sandbox.
const LONGEST_TEXT: usize = 300;

/// Everything that is known of the watched sandboxes.
#[derive(Debug, Default)]
pub(crate) struct Model {
    sandboxes: Vec<Sandbox>,
    /// Raised with each record: what is newest, even where clocks are not fine enough.
    heard: u64,
}

/// What a sandbox is, for a screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    /// Its name.
    pub(crate) name: String,
    /// `process 4711`, or the engine that has its containers.
    pub(crate) runs_in: String,
    /// The program, or the image.
    pub(crate) program: String,
    /// Where its policy is from, as far as its owner has said.
    pub(crate) policy: Option<String>,
}

/// One sandbox and what it did.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) about: About,
    pub(crate) ended: bool,
    /// Rows that were left out because there were too many.
    pub(crate) left_out: u64,
    /// The record of the policy that it goes by.
    policy: Option<Rc<Record>>,
    /// The last that was said of the sandbox itself: a policy that was replaced, a flood.
    pub(crate) note: Option<String>,
    /// Whether events were only counted, because there were too many.
    pub(crate) uncounted: u64,
    rows: HashMap<String, Row>,
    /// The connections that ended last.
    closed: VecDeque<String>,
}

/// Names a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) sandbox: String,
    pub(crate) destination: String,
}

impl Model {
    /// A sandbox is there. One of the same name that was there before is forgotten.
    pub(crate) fn began(&mut self, about: About) {
        self.sandboxes
            .retain(|known| known.about.name != about.name);
        let ended = self.sandboxes.iter().filter(|known| known.ended).count();
        if ended > MOST_ENDED
            && let Some(oldest) = self.sandboxes.iter().position(|known| known.ended)
        {
            self.sandboxes.remove(oldest);
        }
        self.sandboxes.push(Sandbox {
            about,
            ended: false,
            left_out: 0,
            policy: None,
            note: None,
            uncounted: 0,
            rows: HashMap::new(),
            closed: VecDeque::new(),
        });
    }

    /// A sandbox is gone. What it did stays.
    pub(crate) fn ended(&mut self, name: &str) {
        if let Some(sandbox) = self.sandbox_mut(name) {
            sandbox.ended = true;
            sandbox.rows.values_mut().for_each(Row::all_closed);
        }
    }

    /// A line of a sandbox's audit log.
    pub(crate) fn line(&mut self, name: &str, line: &str, now: Timestamp) {
        self.heard += 1;
        let heard = self.heard;
        let Some(sandbox) = self.sandbox_mut(name) else {
            return;
        };
        match serde_json::from_str::<Record>(line) {
            Ok(record) => sandbox.record(record, line.len(), heard, now),
            Err(_) => sandbox.note = Some("its log has a line that is no record".into()),
        }
    }

    /// The connections that are open in a sandbox right now. Says whether any is, or was.
    pub(crate) fn activity(&mut self, name: &str, open: &[Connection], now: Timestamp) -> bool {
        self.heard += 1;
        let heard = self.heard;
        let Some(sandbox) = self.sandbox_mut(name) else {
            return false;
        };
        let was_open = sandbox.rows.values().any(|row| row.open() > 0);
        sandbox.rows.values_mut().for_each(Row::look);
        for connection in open {
            // The picture may be older than the record.
            if sandbox.closed.contains(&connection.id) {
                continue;
            }
            let destination = row::destination_of(connection);
            sandbox.row(destination).connection(connection, heard, now);
        }
        sandbox.forget_the_oldest();
        was_open || !open.is_empty()
    }

    /// A second has gone by.
    pub(crate) fn tick(&mut self) {
        for sandbox in &mut self.sandboxes {
            sandbox.rows.values_mut().for_each(Row::tick);
        }
    }

    /// All sandboxes, those that were there first coming first.
    pub(crate) fn sandboxes(&self) -> &[Sandbox] {
        &self.sandboxes
    }

    /// The sandbox of this name.
    pub(crate) fn sandbox(&self, name: &str) -> Option<&Sandbox> {
        self.sandboxes
            .iter()
            .find(|sandbox| sandbox.about.name == name)
    }

    /// All rows, with what each belongs to.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Sandbox, &Row)> {
        self.sandboxes
            .iter()
            .flat_map(|sandbox| sandbox.rows.values().map(move |row| (sandbox, row)))
    }

    fn sandbox_mut(&mut self, name: &str) -> Option<&mut Sandbox> {
        self.sandboxes
            .iter_mut()
            .find(|sandbox| sandbox.about.name == name)
    }
}

impl Sandbox {
    fn record(&mut self, record: Record, length: usize, heard: u64, now: Timestamp) {
        match record.event {
            Event::Policy => {
                let action = record.action.as_deref().unwrap_or_default();
                let message = record.message.as_deref().unwrap_or_default();
                let first = message.lines().next().unwrap_or_default();
                self.note = Some(short(&format!("policy {action}: {first}")));
                if action != "rejected" {
                    self.policy = Some(Rc::new(record));
                }
            }
            Event::Finding => {
                self.note = record.message.as_deref().map(short);
                self.uncounted = self
                    .uncounted
                    .saturating_add(record.count.unwrap_or_default());
            }
            // What is being asked is seen by who watches, and what was answered by the decision that follows.
            Event::Lifecycle | Event::Question => {}
            // That a name is about to be looked up is said again by the decision that follows.
            Event::Dns if record.verdict != Some(Verdict::Deny) => {}
            Event::Decision | Event::Dns | Event::Close => {
                let policy = self.policy.clone();
                let row = self.row(row::destination(&record));
                row.record(&record, heard, now);
                if record.event == Event::Close {
                    self.closed.push_front(record.id);
                    self.closed.truncate(MOST_CLOSED);
                } else {
                    let decided = Decided { record, policy };
                    row.decided = (length < LONGEST_RECORD).then(|| Rc::new(decided));
                }
                self.forget_the_oldest();
            }
        }
    }

    /// The file or profile that its policy is from, if it has one.
    pub(crate) fn policy(&self) -> Option<&str> {
        match self.basis() {
            Some(basis) => basis.file.as_deref(),
            None => self.about.policy.as_deref(),
        }
    }

    /// What it goes by, as its log tells it.
    pub(crate) fn basis(&self) -> Option<&Basis> {
        self.policy.as_ref()?.policy.as_deref()
    }

    fn row(&mut self, destination: String) -> &mut Row {
        self.rows
            .entry(destination)
            .or_insert_with_key(|destination| Row::new(destination.clone()))
    }

    /// Holds the bound, in batches so that a flood of names does not cost a search each.
    fn forget_the_oldest(&mut self) {
        if self.rows.len() <= MOST_ROWS + MOST_ROWS / 4 {
            return;
        }
        let mut ages: Vec<u64> = self.rows.values().map(Row::age_rank).collect();
        ages.sort_unstable_by(|a, b| b.cmp(a));
        let Some(&oldest_kept) = ages.get(MOST_ROWS - 1) else {
            return;
        };
        let before = self.rows.len();
        self.rows
            .retain(|_, row| row.age_rank() >= oldest_kept || row.open() > 0);
        let forgotten = before - self.rows.len();
        self.left_out = self
            .left_out
            .saturating_add(u64::try_from(forgotten).unwrap_or(u64::MAX));
    }
}

/// A text of a sandbox's as it is kept: harmless on a terminal, and not at any length.
pub(crate) fn short(text: &str) -> String {
    let cut: String = text.chars().take(LONGEST_TEXT).collect();
    let rest = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{rest}", visible(&cut))
}

#[cfg(test)]
mod tests;
