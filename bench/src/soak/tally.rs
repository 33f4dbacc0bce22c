//! What is counted, by the generator of load, by the servers, and in the log: the same words for all three.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Connections and their bytes, by the server's port.
pub(crate) type Flows = BTreeMap<u16, Flow>;

/// Connections, and what went over them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) connections: u64,
    pub(crate) up: u64,
    pub(crate) down: u64,
}

/// What the generator of load has seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Connections over which something went.
    pub(crate) flows: Flows,
    /// What was refused, and should be.
    pub(crate) refused: u64,
    /// What was given up by the client, or cut off, and may be.
    pub(crate) broken: u64,
    /// Names that were looked up.
    pub(crate) lookups: u64,
    /// What did not go as it should.
    pub(crate) failed: Wrong,
    /// Until the first octets were back, in microseconds, of those that asked for no more.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) most: f64,
    /// Connections that the kernel has noted in the sandbox.
    pub(crate) tracked: u64,
}

/// What the servers have seen, and the log says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Connections that the servers accepted.
    pub(crate) accepted: BTreeMap<u16, u64>,
    /// Those over which something came; requests, where it is HTTP.
    pub(crate) used: Flows,
    /// How many of them are open.
    pub(crate) open: u64,
    /// Questions about names.
    pub(crate) questions: u64,
    pub(crate) log: Account,
    /// What must not be.
    pub(crate) wrong: Wrong,
}

/// What the log says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) lines: u64,
    /// Connections that were allowed, and came about.
    pub(crate) dialled: BTreeMap<u16, u64>,
    pub(crate) closed: Flows,
    /// All other decisions.
    pub(crate) refused: u64,
    /// Connections that were closed for a reason.
    pub(crate) cut: u64,
    /// Connections that are open by the log.
    pub(crate) open: u64,
    /// Policies that were put in the place of others, and those that were turned down.
    pub(crate) policies: u64,
}

/// Sentences, and how many there would be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Wrong {
    pub(crate) count: u64,
    pub(crate) first: Vec<String>,
}

impl Wrong {
    pub(crate) fn add(&mut self, sentence: String) {
        self.count += 1;
        if self.first.len() < 20 {
            self.first.push(sentence);
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        let untold = other.count - other.first.len() as u64;
        other
            .first
            .into_iter()
            .for_each(|sentence| self.add(sentence));
        self.count += untold;
    }
}

impl Tally {
    /// Counts what another has seen, too. Times are those of the other.
    pub(crate) fn append(&mut self, other: Self) {
        for (port, flow) in other.flows {
            let sum = self.flows.entry(port).or_default();
            sum.connections += flow.connections;
            sum.up += flow.up;
            sum.down += flow.down;
        }
        self.refused += other.refused;
        self.broken += other.broken;
        self.lookups += other.lookups;
        self.failed.append(other.failed);
        (self.p50, self.p99, self.most) = (other.p50, other.p99, other.most);
        self.tracked = other.tracked;
    }

    pub(crate) fn connections(&self) -> u64 {
        self.flows.values().map(|flow| flow.connections).sum()
    }
}
