//! Address entries, looked up by prefix.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::matcher::found::Table;
use crate::matcher::{Found, Ports};

/// Which entry names an address and a port. The longest prefix decides.
///
/// One hash look-up for each prefix length that is in use: at most 33 for IPv4 and 129 for IPv6, however many entries.
#[derive(Debug, Default)]
pub(crate) struct NetTable {
    ports: Ports<IpNet>,
    first: Table<IpNet, u32>,
    /// In use, longest first.
    v4_lengths: Vec<u8>,
    v6_lengths: Vec<u8>,
}

impl NetTable {
    /// Adds an entry, as [`NameTable::insert`](crate::matcher::patterns::NameTable::insert) does.
    pub(crate) fn insert(
        &mut self,
        net: IpNet,
        ports: &[u16],
        entry: u32,
        same: impl Fn(u32, u32) -> bool,
    ) {
        self.ports.insert(net, ports, entry, &same);
        self.first.entry(net).or_insert(entry);
        let lengths = match net {
            IpNet::V4(_) => &mut self.v4_lengths,
            IpNet::V6(_) => &mut self.v6_lengths,
        };
        if let Err(at) = lengths.binary_search_by(|len| net.prefix_len().cmp(len)) {
            lengths.insert(at, net.prefix_len());
        }
    }

    /// The entries with the longest prefix that name the address on this port, of those that are `meant`.
    pub(crate) fn find(&self, address: IpAddr, port: u16, meant: impl Fn(u32) -> bool) -> Found {
        self.find_covering(&IpNet::from(address), port, meant)
    }

    /// The entries with the longest prefix that name the whole network on this port, of those that are `meant`.
    pub(crate) fn find_covering(
        &self,
        wanted: &IpNet,
        port: u16,
        meant: impl Fn(u32) -> bool,
    ) -> Found {
        let mut found = Found::Nothing;
        for (net, first) in self.each_match(wanted) {
            found.improve(self.ports.find(net, port, first, &meant));
            if found.is_entry() {
                break;
            }
        }
        found
    }

    /// All entries that name the address on this port, of those that are `meant`.
    pub(crate) fn find_all(
        &self,
        address: IpAddr,
        port: u16,
        meant: impl Fn(u32) -> bool,
        into: &mut Vec<u32>,
    ) {
        for (net, _) in self.each_match(&IpNet::from(address)) {
            into.extend(self.ports.entries(net, port).filter(|&entry| meant(entry)));
        }
    }

    /// The networks of the policy that contain one, the smallest first, each with its first entry.
    fn each_match(&self, wanted: &IpNet) -> impl Iterator<Item = (IpNet, u32)> {
        let lengths = match wanted {
            IpNet::V4(_) => &self.v4_lengths,
            IpNet::V6(_) => &self.v6_lengths,
        };
        let wide = lengths.iter().filter(|&&len| len <= wanted.prefix_len());
        wide.filter_map(|&len| {
            let net = IpNet::new(wanted.addr(), len).ok()?.trunc();
            self.first.get(&net).map(|&first| (net, first))
        })
    }
}
