//! Questions that show how two policies differ, if they do: one of each kind that their entries can tell apart.
//!
//! A kind of names is told by the patterns that match it, a kind of addresses by the networks that contain it, and so on
//! for ports, programs, requests. For each kind there is one member here.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

use super::Side;
use super::addresses::{PUBLIC, candidates};
use super::askers::{Askers, RequestKinds, askers, requests};
use super::work::Work;
use crate::addr::{Class, HostAddresses, readings};
use crate::destination::Target;
use crate::host::Host;
use crate::matcher::nets::NetTable;
use crate::matcher::patterns::NameTable;
use crate::names::HOST_GATEWAY;
use crate::pattern::Pattern;
use crate::policy::{Default, Entry, Policy, Ports, What};
use crate::program::Programs;
use crate::request::Requests;

mod literals;
mod names;

/// A destination that stands for all of its kind.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) target: Target,
    pub(crate) stands_for: Option<String>,
    /// Where it stands among the results.
    pub(crate) order: usize,
    /// Whether no entry names it.
    pub(crate) unnamed: bool,
}

/// Everything that entries about a destination tell apart.
pub(crate) struct Kind {
    /// Each with whether it stands for all that no entry names.
    pub(crate) ports: Vec<(u16, bool)>,
    pub(crate) askers: Rc<Askers>,
    /// For each kind of program, and then for one that cannot be told.
    pub(crate) requests: Vec<Rc<RequestKinds>>,
    pub(crate) addresses: Rc<Addresses>,
    /// What a question costs, about.
    pub(crate) cost: usize,
    /// How many addresses an answer may take to show a difference.
    pub(crate) most_addresses: usize,
}

/// What a name may resolve to.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// One that stands for all public ones that no entry names, if there are such.
    pub(crate) any: Option<IpAddr>,
    /// Those that entries for the name tell apart.
    pub(crate) named: Vec<IpAddr>,
}

/// What deny entries tell apart that name networks, which a name that may resolve to any address would come upon.
#[derive(Debug, Default)]
pub(crate) struct Denied {
    /// Public ones.
    pub(crate) addresses: Vec<IpAddr>,
    /// The entries' ports, and the numbers of the programs that they mean; none for all.
    groups: Vec<(Ports, Option<u32>)>,
    ports: BTreeSet<u16>,
    nets: Vec<IpNet>,
}

impl Denied {
    /// Which of its entries mean a program on a port, in short. A program that cannot be told is meant by all.
    pub(crate) fn meaning(&self, port: u16, meant_by: Option<&[u32]>) -> Vec<usize> {
        let means = |(ports, programs): &(Ports, Option<u32>)| {
            ports.contain(port)
                && match (programs, meant_by) {
                    (Some(programs), Some(meant_by)) => meant_by.binary_search(programs).is_ok(),
                    _ => true,
                }
        };
        let groups = self.groups.iter().enumerate();
        groups
            .filter(|(_, group)| means(group))
            .map(|(at, _)| at)
            .collect()
    }
}

/// An entry, with the numbers of what other entries may have as well. None stands for all, and for no addresses.
struct Numbered<'p> {
    entry: &'p Entry,
    side: Side,
    is_new: bool,
    programs: Option<u32>,
    requests: Option<u32>,
    addresses: Option<u32>,
}

/// What entries have, each once.
struct Numbers<'p, T: ?Sized> {
    all: Vec<&'p T>,
    places: HashMap<&'p T, u32>,
}

impl<'p, T: Hash + Eq + ?Sized> Numbers<'p, T> {
    fn new() -> Self {
        Self {
            all: Vec::new(),
            places: HashMap::new(),
        }
    }

    fn number(&mut self, one: &'p T) -> u32 {
        let next = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let number = *self.places.entry(one).or_insert(next);
        if number == next {
            self.all.push(one);
        }
        number
    }

    fn get(&self, numbers: &[u32]) -> Vec<(u32, &'p T)> {
        let all = numbers.iter();
        all.filter_map(|&number| Some((number, *self.all.get(number as usize)?)))
            .collect()
    }
}

/// The kinds that the entries of two policies tell apart.
pub(crate) struct Witnesses<'p> {
    work: &'p Work,
    hosts: &'p HostAddresses,
    entries: Vec<Numbered<'p>>,
    /// All entries, on every port.
    names: NameTable,
    nets: NetTable,
    programs: Numbers<'p, Programs>,
    requests: Numbers<'p, Requests>,
    addresses: Numbers<'p, [IpNet]>,
    gateway_ports: BTreeSet<u16>,
    /// The ports on which a policy allows what no entry names.
    default_ports: BTreeSet<u16>,
    other_port: Option<u16>,
    denied: Denied,
    known_askers: HashMap<Vec<u32>, Rc<Askers>>,
    known_requests: HashMap<Vec<(u32, bool)>, Rc<RequestKinds>>,
    known_addresses: HashMap<Vec<u32>, Rc<Addresses>>,
}

impl<'p> Witnesses<'p> {
    pub(crate) fn new(
        old: &'p Policy,
        new: &'p Policy,
        hosts: &'p HostAddresses,
        work: &'p Work,
    ) -> Self {
        let sides = [
            (&new.allow, Side::Allow, true),
            (&new.deny, Side::Deny, true),
            (&old.allow, Side::Allow, false),
            (&old.deny, Side::Deny, false),
        ];
        let (mut programs, mut requests, mut addresses) =
            (Numbers::new(), Numbers::new(), Numbers::new());
        let mut entries = Vec::with_capacity(old.entries() + new.entries());
        let all = sides.into_iter().flat_map(|(entries, side, is_new)| {
            entries.iter().map(move |entry| (entry, side, is_new))
        });
        for (entry, side, is_new) in all {
            let some_addresses = !entry.addresses.is_empty();
            entries.push(Numbered {
                entry,
                side,
                is_new,
                programs: (!entry.programs.are_all()).then(|| programs.number(&entry.programs)),
                requests: (!entry.requests.are_all()).then(|| requests.number(&entry.requests)),
                addresses: some_addresses.then(|| addresses.number(&*entry.addresses)),
            });
        }
        let mut names = NameTable::with_capacity(entries.len());
        let mut nets = NetTable::default();
        for (index, Numbered { entry, .. }) in (0..).zip(&entries) {
            match &entry.what {
                What::Name(pattern) => names.insert(pattern, &[0], index, |_, _| false),
                What::Net(net) => nets.insert(*net, &[0], index, |_, _| false),
            }
        }
        let gateways = [old, new]
            .into_iter()
            .filter_map(|policy| policy.host_gateway.as_ref());
        let gateway_ports: BTreeSet<u16> = gateways
            .flat_map(|ports| ports.listed_ports())
            .copied()
            .collect();
        let defaults = [old, new]
            .into_iter()
            .filter_map(|policy| match &policy.default {
                Default::AllowPublic(ports) => Some(listed(ports)),
                Default::Deny => None,
            });
        let default_ports: BTreeSet<u16> = defaults.flatten().collect();
        let taken = entries.iter().flat_map(|one| listed(&one.entry.ports));
        let taken: HashSet<u16> = taken
            .chain(gateway_ports.iter().copied())
            .chain(default_ports.iter().copied())
            .collect();
        let other_port = (OTHER_PORT..=u16::MAX)
            .chain(1..OTHER_PORT)
            .find(|port| !taken.contains(port));
        let mut witnesses = Self {
            work,
            hosts,
            entries,
            names,
            nets,
            programs,
            requests,
            addresses,
            gateway_ports,
            default_ports,
            other_port,
            denied: Denied::default(),
            known_askers: HashMap::new(),
            known_requests: HashMap::new(),
            known_addresses: HashMap::new(),
        };
        witnesses.denied = witnesses.denied();
        witnesses
    }

    pub(crate) fn denied_networks(&self) -> &Denied {
        &self.denied
    }

    fn denied(&self) -> Denied {
        let denies = |one: &&Numbered<'_>| one.side == Side::Deny && net_of(one.entry).is_some();
        let mut denied = Denied::default();
        let mut groups = HashSet::new();
        for one in self.entries.iter().filter(denies) {
            denied.nets.extend(net_of(one.entry));
            denied.ports.extend(listed(&one.entry.ports));
            if groups.insert((one.entry.ports.as_slice(), one.programs)) {
                denied.groups.push((one.entry.ports.clone(), one.programs));
            }
        }
        let mut seen = HashSet::new();
        for address in candidates(&denied.nets, self.work) {
            let by = self.denied_by(address);
            if self.hosts.class_of(address) == Class::Public && !by.is_empty() && seen.insert(by) {
                denied.addresses.push(address);
            }
        }
        denied
    }

    /// The deny entries that name an address.
    fn denied_by(&self, address: IpAddr) -> Vec<u32> {
        let mut found = Vec::new();
        let denies = |entry: u32| {
            let one = self.entries.get(entry as usize);
            one.is_some_and(|one| one.side == Side::Deny)
        };
        for reading in readings(address) {
            self.nets.find_all(reading, 1, denies, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A member of each kind, those that no entry names first.
    pub(crate) fn all(&self) -> Vec<Witness> {
        let mut all = self.names();
        all.extend(self.literals());
        // What those that are not named show is not said again.
        all.sort_by_key(|witness| (!witness.unnamed, witness.order));
        all
    }

    /// The entries that name a target, whatever the port.
    fn about(&self, target: &Target) -> Vec<usize> {
        match target {
            Target::Name(name) => self.about_name(name),
            Target::Address(address) => self.about_address(*address),
        }
    }

    fn about_name(&self, name: &Host) -> Vec<usize> {
        let mut found = Vec::new();
        self.names.find_all(name.as_str(), 1, |_| true, &mut found);
        found.into_iter().map(|entry| entry as usize).collect()
    }

    fn about_address(&self, address: IpAddr) -> Vec<usize> {
        let mut found = Vec::new();
        for reading in readings(address) {
            self.nets.find_all(reading, 1, |_| true, &mut found);
        }
        found.into_iter().map(|entry| entry as usize).collect()
    }

    /// What the entries about a witness tell apart.
    pub(crate) fn kind(&mut self, witness: &Witness) -> Kind {
        let about = self.about(&witness.target);
        let about: Vec<usize> = about.into_iter().collect();
        let entries = || about.iter().filter_map(|&at| self.entries.get(at));
        let (is_host, is_name) = match &witness.target {
            Target::Name(name) => (HOST_GATEWAY.contains(&name.as_str()), true),
            Target::Address(address) => (self.hosts.class_of(*address) == Class::Host, false),
        };
        let mut ports: BTreeSet<u16> = [80, 443].into_iter().collect();
        ports.extend(entries().flat_map(|one| listed(&one.entry.ports)));
        ports.extend(&self.default_ports);
        // Where every port is allowed, those of denied networks matter.
        if is_host || witness.unnamed || entries().any(|one| one.entry.ports == Ports::Any) {
            ports.extend(&self.denied.ports);
        }
        if is_host {
            ports.extend(&self.gateway_ports);
        }
        let denied = self
            .denied
            .groups
            .iter()
            .filter_map(|(_, programs)| *programs);
        let mut programs: Vec<u32> = entries().filter_map(|one| one.programs).collect();
        programs.extend(denied.filter(|_| is_name));
        let mut addresses: Vec<u32> = entries().filter_map(|one| one.addresses).collect();
        let patterns = entries()
            .map(|one| one.entry.programs.iter().count() + one.entry.requests.iter().count());
        // What is written out is compared fast.
        let cost = 4 + about.len() / 4 + patterns.sum::<usize>() / 16;
        // Entries for one pattern grant an answer together, or one of them alone, if some are about certain requests. It is
        // not granted where each of them leaves one of its addresses out.
        let mut together: HashMap<(bool, &str), usize> = HashMap::new();
        for one in entries().filter(|one| one.side == Side::Allow) {
            if let Some(pattern) = pattern_of(one.entry) {
                *together.entry((one.is_new, pattern.as_str())).or_default() += 1;
            }
        }
        let requests_matter =
            entries().any(|one| one.side == Side::Allow && one.requests.is_some());
        let most_addresses = match addresses.is_empty() || !requests_matter {
            true => 1,
            false => together.into_values().max().unwrap_or(1),
        };
        sort(&mut programs);
        sort(&mut addresses);
        let askers = self.askers(programs);
        let with_requests = |at: &usize| {
            let one = self.entries.get(*at);
            one.is_some_and(|one| one.requests.is_some())
        };
        let some: Vec<usize> = about.iter().copied().filter(with_requests).collect();
        let mut requests = Vec::with_capacity(askers.kinds.len() + 1);
        for kind in &askers.kinds {
            requests.push(self.requests(&some, Some(&kind.meant_by)));
        }
        requests.push(self.requests(&some, None));
        let ports = ports.into_iter().map(|port| (port, false));
        Kind {
            ports: ports
                .chain(self.other_port.map(|port| (port, true)))
                .collect(),
            askers,
            requests,
            addresses: match witness.target {
                Target::Name(_) => self.addresses(addresses),
                Target::Address(address) => Rc::new(Addresses {
                    any: Some(address),
                    named: Vec::new(),
                }),
            },
            cost,
            most_addresses,
        }
    }

    fn askers(&mut self, programs: Vec<u32>) -> Rc<Askers> {
        let known = &mut self.known_askers;
        let known = known.entry(programs).or_insert_with_key(|programs| {
            Rc::new(askers(&self.programs.get(programs), self.work))
        });
        Rc::clone(known)
    }

    /// What the entries about certain requests tell apart that mean a program, given by what else means it, or one that
    /// cannot be told.
    fn requests(&mut self, about: &[usize], meant_by: Option<&[u32]>) -> Rc<RequestKinds> {
        let means = |one: &&Numbered<'_>| match (one.programs, meant_by) {
            (None, _) => true,
            (Some(programs), Some(meant_by)) => meant_by.binary_search(&programs).is_ok(),
            (Some(_), None) => one.side == Side::Deny,
        };
        if about.is_empty() || !self.work.spend(1 + about.len() / 16) {
            return Rc::new(RequestKinds::none());
        }
        let entries = about.iter().filter_map(|&at| self.entries.get(at));
        let requests_of = entries
            .filter(means)
            .filter_map(|one| Some((one.requests?, one.side == Side::Deny)));
        let mut numbers: Vec<(u32, bool)> = requests_of.collect();
        sort(&mut numbers);
        let known = &mut self.known_requests;
        let known = known.entry(numbers).or_insert_with_key(|numbers| {
            let all = numbers.iter().filter_map(|&(number, is_deny)| {
                let requests = self.requests.all.get(number as usize)?;
                Some((number, is_deny, *requests))
            });
            Rc::new(requests(&all.collect::<Vec<_>>(), self.work))
        });
        Rc::clone(known)
    }

    fn addresses(&mut self, lists: Vec<u32>) -> Rc<Addresses> {
        if let Some(known) = self.known_addresses.get(&lists) {
            return Rc::clone(known);
        }
        let mut granted = NetTable::default();
        let mut nets = self.denied.nets.clone();
        for (list, addresses) in self.addresses.get(&lists) {
            for net in addresses {
                granted.insert(*net, &[0], list, |_, _| false);
                nets.push(*net);
            }
        }
        let grants = |address| {
            let mut found = Vec::new();
            granted.find_all(address, 1, |_| true, &mut found);
            sort(&mut found);
            found
        };
        let candidates = candidates(&nets, self.work);
        let mut all = PUBLIC.iter().chain(&candidates).copied();
        let any = all.find(|&address| {
            self.hosts.class_of(address) == Class::Public
                && grants(address).is_empty()
                && self.denied_by(address).is_empty()
        });
        let mut named = Vec::new();
        let mut seen = HashSet::new();
        for address in candidates.into_iter().filter(|_| !lists.is_empty()) {
            let (class, lists) = (self.hosts.class_of(address), grants(address));
            if !self.work.spend(lists.len() + 1) {
                break;
            }
            if class.can_be_granted() && !lists.is_empty() {
                let denied_by = self.denied_by(address);
                if seen.insert((class, lists, denied_by)) {
                    named.push(address);
                }
            }
        }
        if any.is_none() {
            named.extend(&self.denied.addresses);
        }
        let addresses = Rc::new(Addresses { any, named });
        self.known_addresses.insert(lists, Rc::clone(&addresses));
        addresses
    }
}

fn sort<T: Ord>(numbers: &mut Vec<T>) {
    numbers.sort_unstable();
    numbers.dedup();
}

/// The ports that are listed; none where it is every port.
fn listed(ports: &Ports) -> impl Iterator<Item = u16> {
    ports.as_slice().iter().copied().filter(|&port| port != 0)
}

fn pattern_of(entry: &Entry) -> Option<&Pattern> {
    match &entry.what {
        What::Name(pattern) => Some(pattern),
        What::Net(_) => None,
    }
}

fn net_of(entry: &Entry) -> Option<IpNet> {
    match &entry.what {
        What::Net(net) => Some(*net),
        What::Name(_) => None,
    }
}

/// Where ports begin that nobody is likely to name.
pub(crate) const OTHER_PORT: u16 = 49151;
