//! Address entries, looked up by prefix.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::matcher::Grant;
use crate::matcher::patterns::Found;

/// Which entry names an address and a port. The longest prefix decides.
///
/// One hash look-up for each prefix length that is in use: at most 33 for IPv4 and 129 for IPv6, however many entries.
#[derive(Debug, Default)]
pub(crate) struct NetTable {
    /// Port 0 stands for every port.
    by_net: HashMap<(IpNet, u16), u32>,
    first: HashMap<IpNet, u32>,
    /// In use, longest first.
    v4_lengths: Vec<u8>,
    v6_lengths: Vec<u8>,
}

impl NetTable {
    pub(crate) fn insert(&mut self, net: IpNet, ports: &[u16], entry: u32) {
        for &port in ports {
            self.by_net.entry((net, port)).or_insert(entry);
        }
        self.first.entry(net).or_insert(entry);
        let lengths = match net {
            IpNet::V4(_) => &mut self.v4_lengths,
            IpNet::V6(_) => &mut self.v6_lengths,
        };
        if let Err(at) = lengths.binary_search_by(|len| net.prefix_len().cmp(len)) {
            lengths.insert(at, net.prefix_len());
        }
    }

    /// The entry with the longest prefix that names the address on this port.
    pub(crate) fn find(&self, address: IpAddr, port: u16) -> Found {
        self.find_covering(&IpNet::from(address), port)
    }

    /// The entry with the longest prefix that names the whole network on this port.
    pub(crate) fn find_covering(&self, wanted: &IpNet, port: u16) -> Found {
        let address = wanted.addr();
        let lengths = match address {
            IpAddr::V4(_) => &self.v4_lengths,
            IpAddr::V6(_) => &self.v6_lengths,
        };
        let mut other_port = Found::Nothing;
        for &len in lengths.iter().filter(|&&len| len <= wanted.prefix_len()) {
            let Ok(net) = IpNet::new(address, len) else {
                continue;
            };
            let net = net.trunc();
            for port in [port, 0] {
                if let Some(&entry) = self.by_net.get(&(net, port)) {
                    return Found::Entry(Grant {
                        entry,
                        pattern: None,
                    });
                }
            }
            if let (Found::Nothing, Some(&entry)) = (&other_port, self.first.get(&net)) {
                other_port = Found::OtherPort(entry);
            }
        }
        other_port
    }
}
