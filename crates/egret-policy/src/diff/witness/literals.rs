//! Addresses of every kind that entries tell apart which name networks.

use std::collections::HashSet;

use ipnet::IpNet;

use super::{Witness, Witnesses, net_of};
use crate::addr::{Class, DOCKER_BRIDGE};
use crate::destination::Target;
use crate::diff::addresses::{PUBLIC, candidates};

impl Witnesses<'_> {
    /// An address of each kind, and that of the host.
    pub(super) fn literals(&self) -> Vec<Witness> {
        let nets: Vec<IpNet> = self
            .entries
            .iter()
            .filter_map(|one| net_of(one.entry))
            .collect();
        let mut witnesses = vec![Witness {
            target: Target::Address(DOCKER_BRIDGE),
            stands_for: Some("the host".to_owned()),
            order: 0,
            unnamed: false,
        }];
        let candidates = candidates(&nets, self.work);
        for (is_v4, stands_for) in [
            (true, "every public IPv4 address that no entry names"),
            (false, "every public IPv6 address that no entry names"),
        ] {
            let mut all = PUBLIC.iter().chain(&candidates).filter(|address| {
                address.is_ipv4() == is_v4 && self.hosts.class_of(**address) == Class::Public
            });
            let unnamed = all.find(|address| self.about_address(**address).is_empty());
            witnesses.extend(unnamed.map(|&address| Witness {
                target: Target::Address(address),
                stands_for: Some(stands_for.to_owned()),
                order: 0,
                unnamed: true,
            }));
        }
        let mut seen = HashSet::new();
        for address in candidates {
            let class = self.hosts.class_of(address);
            let about = self.about_address(address);
            let mut named = Vec::new();
            self.nets.find_all(address, 1, |_| true, &mut named);
            if !self.work.spend(about.len() + 1) {
                break;
            }
            let Some(&first) = about.first() else {
                continue;
            };
            let is_open = class.can_be_granted() || class == Class::Host;
            if address == DOCKER_BRIDGE || !is_open || !seen.insert((class, about, named)) {
                continue;
            }
            let net = self.entries.get(first).and_then(|one| net_of(one.entry));
            let net = net.filter(|net| net.prefix_len() < net.max_prefix_len());
            witnesses.push(Witness {
                target: Target::Address(address),
                stands_for: net.map(|net| net.to_string()),
                order: first.saturating_add(1),
                unnamed: false,
            });
        }
        witnesses
    }
}
