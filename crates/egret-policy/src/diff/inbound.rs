//! By which hosts published ports may be addressed in one policy and not in the other.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::InboundChange;
use crate::inbound::{InboundHost, Named};
use crate::matcher::patterns::NameTable;
use crate::pattern::{Lead, Pattern};

/// What is new, then what is gone. A host that is part of a pattern of the other policy's is neither.
pub(super) fn changes(old: &[InboundHost], new: &[InboundHost]) -> Vec<InboundChange> {
    let missing = |hosts: &[InboundHost], from: &[InboundHost], change| {
        let known = Known::new(from);
        let missing = hosts.iter().filter(|host| !known.covers(host.named()));
        let missing: BTreeSet<_> = missing.map(ToString::to_string).collect();
        missing
            .into_iter()
            .map(move |host| InboundChange { change, host })
    };
    let (added, removed) = (missing(new, old, "added"), missing(old, new, "removed"));
    added.chain(removed).collect()
}

/// The hosts of a policy, to be asked whether they mean all that another one means.
struct Known {
    names: NameTable,
    addresses: BTreeSet<IpAddr>,
}

/// A host holds for every port.
const ANY_PORT: u16 = 0;

impl Known {
    fn new(hosts: &[InboundHost]) -> Self {
        let mut known = Self {
            names: NameTable::default(),
            addresses: BTreeSet::new(),
        };
        for host in hosts {
            match host.named() {
                Named::Name(pattern) => {
                    known.names.insert(pattern, &[ANY_PORT], 0, |_, _| true);
                }
                Named::Address(address) => drop(known.addresses.insert(*address)),
            }
        }
        known
    }

    fn covers(&self, named: &Named) -> bool {
        match named {
            Named::Address(address) => self.addresses.contains(address),
            Named::Name(pattern) => self.covers_pattern(pattern),
        }
    }

    fn covers_pattern(&self, pattern: &Pattern) -> bool {
        if self.names.covering(pattern, ANY_PORT).is_some() {
            return true;
        }
        // A name with all below it may stand there in two parts.
        let rest = pattern.rest();
        let parts = [rest.to_owned(), format!("**.{rest}")];
        pattern.shape().lead == Lead::ApexAndBelow
            && parts.iter().all(|part| {
                Pattern::parse(part)
                    .is_ok_and(|part| self.names.covering(&part, ANY_PORT).is_some())
            })
    }
}
