//! What the tables of a matcher have in common: entries by port, and what a look-up comes to.

use std::collections::HashMap;
use std::hash::Hash;

/// A table of a policy. What is looked up comes from programs that nobody trusts, but only the policy puts anything in: a
/// fast hash will do.
pub(crate) type Table<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a table knows about a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Entries match, port, program and all.
    Entry(Grant),
    /// An entry matches, but for the program.
    OtherProgram(u32),
    /// An entry matches, but for the port.
    OtherPort(u32),
    /// No entry matches.
    Nothing,
}

impl Found {
    pub(crate) fn is_entry(&self) -> bool {
        matches!(self, Self::Entry(_))
    }

    /// Takes what was found next, if it comes closer.
    pub(crate) fn improve(&mut self, next: Self) {
        let rank = |found: &Self| match found {
            Self::Entry(_) => 3,
            Self::OtherProgram(_) => 2,
            Self::OtherPort(_) => 1,
            Self::Nothing => 0,
        };
        if rank(&next) > rank(self) {
            *self = next;
        }
    }
}

/// The entries that granted something: those that name it the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The first of them, which is the one that is named.
    pub(crate) entry: u32,
    pub(crate) more: Box<[u32]>,
}

impl Grant {
    pub(crate) fn entries(&self) -> impl Iterator<Item = u32> + Clone {
        std::iter::once(self.entry).chain(self.more.iter().copied())
    }
}

/// The entries of each pattern or network by their port. Port 0 stands for every port.
#[derive(Debug)]
pub(crate) struct Ports<K> {
    first: Table<(K, u16), u32>,
    /// Further entries that say something else than the first one.
    more: Table<(K, u16), Vec<u32>>,
}

impl<K> Default for Ports<K> {
    fn default() -> Self {
        Self {
            first: Table::default(),
            more: Table::default(),
        }
    }
}

impl<K: Copy + Eq + Hash> Ports<K> {
    pub(crate) fn with_capacity(ports: usize) -> Self {
        Self {
            first: Table::with_capacity_and_hasher(ports, Default::default()),
            more: Table::default(),
        }
    }

    pub(crate) fn insert(
        &mut self,
        key: K,
        ports: &[u16],
        entry: u32,
        same: &impl Fn(u32, u32) -> bool,
    ) {
        for &port in ports {
            let first = *self.first.entry((key, port)).or_insert(entry);
            if first != entry && !same(first, entry) {
                self.more.entry((key, port)).or_default().push(entry);
            }
        }
    }

    /// What one pattern or network, which has this `first` entry, comes to on a port.
    pub(crate) fn find(
        &self,
        key: K,
        port: u16,
        first: u32,
        meant: &impl Fn(u32) -> bool,
    ) -> Found {
        let mut entries = self.entries(key, port).filter(|&entry| meant(entry));
        match (entries.next(), self.entries(key, port).next()) {
            (Some(entry), _) => Found::Entry(Grant {
                entry,
                more: entries.collect(),
            }),
            (None, Some(other)) => Found::OtherProgram(other),
            (None, None) => Found::OtherPort(first),
        }
    }

    pub(crate) fn entries(&self, key: K, port: u16) -> impl Iterator<Item = u32> {
        [port, 0].into_iter().flat_map(move |port| {
            let first = self.first.get(&(key, port));
            // Most patterns have one entry for a port: then there is nothing more to look for.
            let more = first.and_then(|_| match self.more.is_empty() {
                true => None,
                false => self.more.get(&(key, port)),
            });
            first.into_iter().chain(more.into_iter().flatten()).copied()
        })
    }
}
