//! What a policy is compiled to: its entries, and tables that find them by name, address, port and program.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::addr::Class;
use crate::destination::{Destination, Target};
use crate::host::Host;
use crate::matcher::nets::NetTable;
use crate::matcher::patterns::NameTable;
use crate::matcher::{Found, Grant, Kind};
use crate::narrowing::{Narrowed, some_host_name};
use crate::policy::{Default, Entry, HostGatewayPorts, What};
use crate::program::{Asker, OTHER_PROGRAM, Program, ProgramPattern, Programs};
use crate::request::Requests;
use crate::rule::RuleId;
use crate::text::entry::Side;

/// A policy in the form in which it is asked. Entries are known by their number, those of `allow` first.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(super) default: Default,
    pub(super) host_gateway: Option<HostGatewayPorts>,
    entries: Vec<CompiledEntry>,
    pub(super) allow: Tables,
    pub(super) deny: Tables,
    /// The deny entries that are about some requests only; they name no addresses.
    pub(super) deny_requests: NameTable,
    pub(super) asks_for_programs: bool,
    /// Where the host gateway is shut for good.
    no_host: Option<RuleId>,
    /// Each of these has to have what is allowed.
    only: Vec<(RuleId, Tables)>,
}

/// Entries by what they name.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) names: NameTable,
    nets: NetTable,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct CompiledEntry {
    rule: RuleId,
    note: Option<Arc<str>>,
    addresses: Box<[IpNet]>,
    only_addresses: bool,
    programs: Programs,
    pub(super) requests: Requests,
}

impl Tables {
    fn with_capacity(entries: usize) -> Self {
        Self {
            names: NameTable::with_capacity(entries),
            nets: NetTable::default(),
        }
    }

    /// Whether some entry names a destination. As in `allow`, only an entry that writes its name out means the host.
    fn have(&self, to: &Destination, kind: Kind) -> bool {
        let (names, port) = (&self.names, to.port());
        let exact = |name: &str| names.find_exact(name, port, |_| true).is_entry();
        match (kind, to.target()) {
            (Kind::Host, _) => some_host_name(exact),
            (Kind::HostName, Target::Name(name)) => exact(name.as_str()),
            (_, Target::Name(name)) => names.find(name.as_str(), port, |_| true).is_entry(),
            (_, Target::Address(address)) => self.nets.find(*address, port, |_| true).is_entry(),
        }
    }

    fn insert(&mut self, entry: &Entry, index: u32, same: impl Fn(u32, u32) -> bool) {
        let ports = entry.ports.as_slice();
        match &entry.what {
            What::Name(pattern) => self.names.insert(pattern, ports, index, same),
            What::Net(net) => self.nets.insert(*net, ports, index, same),
        }
    }
}

impl Compiled {
    /// Compiles entries, those of `allow` first.
    pub(crate) fn new(
        default: Default,
        host_gateway: Option<HostGatewayPorts>,
        allow: &[Entry],
        deny: &[Entry],
    ) -> Self {
        let mut compiled = Self {
            default,
            host_gateway,
            entries: Vec::with_capacity(allow.len() + deny.len()),
            allow: Tables::with_capacity(allow.len()),
            deny: Tables::with_capacity(deny.len()),
            deny_requests: NameTable::default(),
            asks_for_programs: false,
            no_host: None,
            only: Vec::new(),
        };
        let allow = allow.iter().map(|entry| (entry, Side::Allow));
        let deny = deny.iter().map(|entry| (entry, Side::Deny));
        for (entry, side) in allow.chain(deny) {
            let index = u32::try_from(compiled.entries.len()).unwrap_or(u32::MAX);
            compiled.entries.push(CompiledEntry {
                rule: entry.rule.clone(),
                note: entry.note.clone(),
                addresses: entry.addresses.clone(),
                only_addresses: entry.only_addresses,
                programs: entry.programs.clone(),
                requests: match side {
                    Side::Allow => entry.requests.clone(),
                    Side::Deny => entry.requests.folded(),
                },
            });
            compiled.asks_for_programs |= !entry.programs.are_all();
            let entries = &compiled.entries;
            let same = |one: u32, other: u32| match (
                entries.get(one as usize),
                entries.get(other as usize),
            ) {
                (Some(one), Some(other)) => one.says_the_same_as(other),
                _ => false,
            };
            match (side, &entry.what) {
                (Side::Allow, _) => compiled.allow.insert(entry, index, same),
                (Side::Deny, What::Name(pattern)) if !entry.requests.are_all() => {
                    let ports = entry.ports.as_slice();
                    compiled.deny_requests.insert(pattern, ports, index, same);
                }
                (Side::Deny, _) => compiled.deny.insert(entry, index, same),
            }
        }
        compiled
    }
}

impl CompiledEntry {
    /// Whether the two grant the same, where they name the same.
    fn says_the_same_as(&self, other: &Self) -> bool {
        self.addresses == other.addresses
            && self.only_addresses == other.only_addresses
            && self.programs == other.programs
            && self.requests == other.requests
    }
}

impl Compiled {
    /// With what is left of it by projects' files.
    pub(crate) fn narrowed(mut self, by: &Narrowed) -> Self {
        self.no_host.clone_from(&by.no_host);
        for only in &by.only {
            let mut tables = Tables::with_capacity(only.entries.len());
            // Which of them has a destination makes no difference.
            for entry in &only.entries {
                tables.insert(entry, 0, |_, _| true);
            }
            self.only.push((only.rule.clone(), tables));
        }
        self
    }

    /// Whether anything is taken away that no entry says.
    pub(super) fn is_narrowed(&self) -> bool {
        self.no_host.is_some() || !self.only.is_empty()
    }

    /// Where a destination is left out, if it is.
    pub(super) fn left_out(&self, to: &Destination, kind: Kind) -> Option<LeftOut<'_>> {
        let is_host = matches!(kind, Kind::Host | Kind::HostName);
        if let Some(rule) = self.no_host.as_ref().filter(|_| is_host) {
            return Some(LeftOut::Host(rule));
        }
        let missing = self.only.iter().find(|(_, only)| !only.have(to, kind));
        missing.map(|(rule, _)| LeftOut::Only(rule))
    }

    /// The same for a name, on whatever port.
    pub(super) fn leaves_out(&self, name: &Host, is_host: bool) -> Option<&RuleId> {
        let no_host = self.no_host.as_ref().filter(|_| is_host);
        let missing = |(_, only): &&(RuleId, Tables)| match is_host {
            true => only.names.find_exact(name.as_str(), 0, |_| true) == Found::Nothing,
            false => !only.names.knows(name.as_str()),
        };
        let missing = || self.only.iter().find(missing).map(|(rule, _)| rule);
        no_host.or_else(missing)
    }
}

/// Why a destination is left out.
pub(super) enum LeftOut<'c> {
    /// By a list that it is not in.
    Only(&'c RuleId),
    /// As the host.
    Host(&'c RuleId),
}

/// Programs that are asked about where nobody says which one it is.
pub(crate) const MOST_PROGRAMS: usize = 100;

impl Compiled {
    pub(crate) fn rule_of(&self, entry: u32) -> &RuleId {
        &self.entry(entry).rule
    }

    pub(crate) fn note_of(&self, entry: u32) -> Option<&str> {
        self.entry(entry).note.as_deref()
    }

    pub(crate) fn requests_of(&self, entry: u32) -> &Requests {
        &self.entry(entry).requests
    }

    pub(crate) fn addresses_of(&self, entry: u32) -> &[IpNet] {
        &self.entry(entry).addresses
    }

    pub(crate) fn programs_of(&self, entry: u32) -> &Programs {
        &self.entry(entry).programs
    }

    /// The entry that would allow it, but for the port or the program.
    pub(super) fn near(&self, found: &Found) -> Option<&RuleId> {
        match found {
            Found::OtherPort(entry) | Found::OtherProgram(entry) => Some(self.rule_of(*entry)),
            Found::Entry(_) | Found::Nothing => None,
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an index of an entry is only ever made by compiling the entries"
    )]
    pub(super) fn entry(&self, entry: u32) -> &CompiledEntry {
        &self.entries[entry as usize]
    }

    pub(super) fn opens_host_gateway(&self, port: u16) -> bool {
        self.host_gateway
            .as_ref()
            .is_some_and(|ports| ports.contain(port))
    }

    /// Programs that entries about a destination tell apart, at most so many as are worth asking about.
    pub(crate) fn programs_about(&self, to: &Destination, resolves_to: &[IpAddr]) -> Vec<Program> {
        let (mut entries, port) = (Vec::new(), to.port());
        let tables = [&self.allow, &self.deny];
        match to.target() {
            Target::Name(name) => {
                let names = tables.map(|tables| &tables.names);
                for names in names.into_iter().chain([&self.deny_requests]) {
                    names.find_all(name.as_str(), port, |_| true, &mut entries);
                }
            }
            Target::Address(address) => {
                for reading in crate::addr::readings(*address) {
                    for tables in tables {
                        tables.nets.find_all(reading, port, |_| true, &mut entries);
                    }
                }
            }
        }
        let addresses = resolves_to.iter().copied().flat_map(crate::addr::readings);
        for address in addresses {
            let nets = &self.deny.nets;
            nets.find_all(address, port, |_| true, &mut entries);
        }
        let patterns = entries
            .into_iter()
            .flat_map(|entry| self.entry(entry).programs.iter());
        let mut programs = BTreeSet::from([Program {
            executable: OTHER_PROGRAM.to_owned(),
            ancestors: Vec::new(),
        }]);
        for program in patterns.flat_map(ProgramPattern::examples) {
            programs.insert(program);
            if programs.len() == MOST_PROGRAMS {
                break;
            }
        }
        programs.into_iter().collect()
    }

    pub(super) fn allows(&self, to: &Destination, by: Asker<'_>, only_exact: bool) -> Found {
        let meant = |entry| by.is_allowed_by(self.entry(entry));
        match to.target() {
            Target::Name(name) if only_exact => {
                self.allow.names.find_exact(name.as_str(), to.port(), meant)
            }
            Target::Name(name) => self.allow.names.find(name.as_str(), to.port(), meant),
            Target::Address(address) => self.allow.nets.find(*address, to.port(), meant),
        }
    }

    /// The deny entry that refuses a destination.
    pub(super) fn denies(&self, to: &Destination, by: Asker<'_>) -> Option<u32> {
        let meant = |entry| by.is_denied_by(self.entry(entry));
        match to.target() {
            Target::Name(name) => match self.deny.names.find(name.as_str(), to.port(), meant) {
                Found::Entry(grant) => Some(grant.entry),
                _ => None,
            },
            Target::Address(address) => self.deny_address(*address, to.port(), by),
        }
    }

    /// The deny entry that names an address, or an IPv4 address inside it.
    pub(crate) fn deny_address(&self, address: IpAddr, port: u16, by: Asker<'_>) -> Option<u32> {
        let meant = |entry| by.is_denied_by(self.entry(entry));
        crate::addr::readings(address).find_map(|reading| {
            match self.deny.nets.find(reading, port, meant) {
                Found::Entry(grant) => Some(grant.entry),
                _ => None,
            }
        })
    }

    /// Whether a deny entry names a whole network on a port.
    pub(crate) fn denies_whole(&self, net: &IpNet, port: u16, by: Asker<'_>) -> bool {
        let meant = |entry| by.is_denied_by(self.entry(entry));
        self.deny.nets.find_covering(net, port, meant).is_entry()
    }

    /// The deny entries that refuse some requests to a destination.
    pub(super) fn refused_requests(&self, to: &Destination, by: Asker<'_>) -> Box<[u32]> {
        let mut entries = Vec::new();
        if let (Target::Name(name), false) = (to.target(), self.deny_requests.is_empty()) {
            let meant = |entry| by.is_denied_by(self.entry(entry));
            let names = &self.deny_requests;
            names.find_all(name.as_str(), to.port(), meant, &mut entries);
        }
        entries.into()
    }

    /// Whether what granted a permit lets a name resolve to any public address.
    pub(crate) fn grants_public(&self, grant: &Grant) -> bool {
        let any = |entry| !self.entry(entry).only_addresses;
        grant.entries().any(any)
    }

    /// Whether an entry lets a name resolve to this address, which is of a class that can be granted.
    pub(crate) fn entry_grants(&self, entry: u32, class: Class, address: IpAddr) -> bool {
        let entry = self.entry(entry);
        let any_public = class == Class::Public && !entry.only_addresses;
        any_public || entry.addresses.iter().any(|net| net.contains(&address))
    }
}

impl Asker<'_> {
    fn is_allowed_by(self, entry: &CompiledEntry) -> bool {
        entry.programs.mean(self, Side::Allow)
    }

    pub(super) fn is_denied_by(self, entry: &CompiledEntry) -> bool {
        entry.programs.mean(self, Side::Deny)
    }
}
