//! What goes on in a gateway right now, for whoever watches it.
//!
//! These are plain values, made anew for each look: nothing here keeps anything, and nothing decides.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::audit::Door;

/// What goes on right now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Connections that are open, the newest first; of very many the newest only, so that [`Counts::open`] may be more.
    pub connections: Vec<Connection>,
    /// How many there were, of everything.
    pub counts: Counts,
    /// What a person is asked at the moment, the oldest first.
    pub questions: Vec<Question>,
}

/// One open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The same as in the records about it. On a connection that carries requests of which each has its own decision, that of
    /// the first.
    pub id: String,
    /// The name, or the literal address, that was asked for; for a published port, by which it was addressed.
    pub host: String,
    /// The port that was asked for; for a published port, the one inside the sandbox.
    pub port: u16,
    /// How it came in.
    pub door: Door,
    /// The program that asked, where it is known.
    pub program: Option<String>,
    /// Since when, RFC 3339.
    pub since: String,
    /// Bytes sent to the server so far.
    pub bytes_up: u64,
    /// Bytes received from the server so far.
    pub bytes_down: u64,
}

/// How many there were since the gateway was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections that are open.
    pub open: u64,
    /// Connections that were allowed and came about, those that are open included.
    pub allowed: u64,
    /// Refusals, of connections, requests, packets and DNS questions.
    pub refused: u64,
    /// Connections that were allowed and did not come about.
    pub failed: u64,
    /// Bytes sent to servers, over all of them.
    pub bytes_up: u64,
    /// Bytes received from servers, over all of them.
    pub bytes_down: u64,
}

/// A destination about which a person is asked, while connections to it wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// By which it is answered.
    pub id: String,
    /// What would allow it, as `--allow` and a policy's list take it. It has no hidden characters.
    pub destination: String,
    /// The name or the address, as it was decided on.
    pub host: String,
    /// The port, as it was decided on.
    pub port: u16,
    /// The program that asked first, where it is known.
    pub program: Option<String>,
    /// The code of the reason for which it is refused unless somebody allows it.
    pub reason: String,
    /// One sentence for a person.
    pub message: String,
    /// How many connections wait for the answer.
    pub waiting: u64,
    /// How long it still waits for an answer, in milliseconds.
    pub left_ms: u64,
}

/// An answer to a question that leaves the policy as it is. One that changes it is a new policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The connections that wait may be made, and no others.
    Once,
    /// They are refused, and so are others there for as long as the gateway lives, without another question.
    No,
}

/// Bytes that went over a connection so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

/// The same while it is open: whoever moves bytes counts them here.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    pub(crate) up: Count,
    pub(crate) down: Count,
}

impl Moving {
    pub(crate) fn so_far(&self) -> Traffic {
        Traffic {
            up: self.up.get(),
            down: self.down.get(),
        }
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            up: self.up.saturating_sub(before.up),
            down: self.down.saturating_sub(before.down),
        }
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.up = self.up.saturating_add(more.up);
        self.down = self.down.saturating_add(more.down);
    }
}

/// A number that one task raises and others look at.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Open connections that are told one by one.
pub(crate) const MOST_TOLD: usize = 1_000;
