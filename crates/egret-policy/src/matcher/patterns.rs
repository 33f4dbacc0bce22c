//! Host patterns, looked up by suffix.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::matcher::Grant;

/// What a table knows about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An entry matches, port and all.
    Entry(Grant),
    /// An entry matches, but for the port.
    OtherPort(u32),
    /// No entry matches.
    Nothing,
}

/// Which entry names a host and a port.
#[derive(Debug, Default)]
pub(crate) struct NameTable {
    by_suffix: HashMap<Box<str>, u32>,
    /// Port 0 stands for every port.
    ports: HashMap<(u32, u16), u32>,
    /// The first entry of each pattern.
    first: Vec<u32>,
    more_addresses: HashMap<(u32, u16), Vec<IpNet>>,
}

impl NameTable {
    pub(crate) fn insert_exact(&mut self, name: &str, ports: &[u16], entry: u32) {
        let next = u32::try_from(self.first.len()).unwrap_or(u32::MAX);
        let id = *self.by_suffix.entry(name.into()).or_insert(next);
        if id == next {
            self.first.push(entry);
        }
        for &port in ports {
            self.ports.entry((id, port)).or_insert(entry);
        }
    }

    pub(crate) fn exact(&self, name: &str, port: u16) -> Found {
        let Some(&id) = self.by_suffix.get(name) else {
            return Found::Nothing;
        };
        for port in [port, 0] {
            if let Some(&entry) = self.ports.get(&(id, port)) {
                return Found::Entry(Grant {
                    entry,
                    pattern: Some(id),
                });
            }
        }
        self.first
            .get(id as usize)
            .map_or(Found::Nothing, |&entry| Found::OtherPort(entry))
    }

    pub(crate) fn allows(&self, name: &str, port: u16) -> Found {
        self.exact(name, port)
    }

    pub(crate) fn denies(&self, name: &str, port: u16) -> Option<u32> {
        match self.exact(name, port) {
            Found::Entry(grant) => Some(grant.entry),
            _ => None,
        }
    }

    pub(crate) fn denies_every_port(&self, name: &str) -> Option<u32> {
        self.denies(name, 0)
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.knows_exact(name)
    }

    pub(crate) fn knows_exact(&self, name: &str) -> bool {
        self.by_suffix.contains_key(name)
    }

    pub(crate) fn more_addresses(&self, pattern: u32, port: u16) -> Option<&Vec<IpNet>> {
        self.more_addresses.get(&(pattern, port))
    }
}
