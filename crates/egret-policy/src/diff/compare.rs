//! Asking two matchers the same, and putting together what they answer differently.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use super::askers::{Request, RequestKinds};
use super::witness::{Denied, Kind, Witness};
use super::work::Work;
use super::{Change, Decided, with_one_host};
use crate::addr::{DOCKER_BRIDGE, HostAddresses};
use crate::denial::Denial;
use crate::destination::{Destination, Target};
use crate::matcher::Matcher;
use crate::names::HOST_GATEWAY;
use crate::permit::{Lookup, Permit};
use crate::program::Program;
use crate::reason::Reason;

/// The two policies, compiled.
pub(crate) struct Judges<'a> {
    pub(crate) old: Matcher,
    pub(crate) new: Matcher,
    pub(crate) hosts: &'a HostAddresses,
}

/// How two policies disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    gained: bool,
    old: Decided,
    new: Decided,
}

/// What is made of a program's requests.
struct Row {
    requests: Rc<RequestKinds>,
    /// For each kind of requests, or for each request; none if the two agree.
    cells: Vec<Option<Cell>>,
    /// Whether both allow some request.
    both_allow: bool,
}

impl Row {
    fn differs(&self) -> bool {
        self.cells.iter().any(Option::is_some)
    }

    fn is_uniform(&self) -> bool {
        let mut two = self.cells.iter().zip(self.cells.iter().skip(1));
        two.all(|(one, next)| direction(one) == direction(next))
    }

    fn shows_the_same_as(&self, other: &Self) -> bool {
        let mut both = self.cells.iter().zip(&other.cells);
        match Rc::ptr_eq(&self.requests, &other.requests) {
            true => both.all(|(one, other)| direction(one) == direction(other)),
            false => {
                let mut firsts = both.take(1);
                self.is_uniform()
                    && other.is_uniform()
                    && firsts.all(|(one, other)| direction(one) == direction(other))
            }
        }
    }
}

fn direction(cell: &Option<Cell>) -> Option<bool> {
    cell.as_ref().map(|cell| cell.gained)
}

/// A question, but for the request.
#[derive(Clone, Copy)]
struct Asked<'a> {
    to: &'a Destination,
    by: Option<&'a Program>,
    resolves_to: &'a [IpAddr],
}

impl Judges<'_> {
    /// What the two make of some requests.
    fn row<'r>(
        &self,
        asked: Asked<'_>,
        kinds: &Rc<RequestKinds>,
        requests: impl Iterator<Item = &'r Request>,
    ) -> Row {
        let old = open(&self.old, asked, self.hosts);
        let new = open(&self.new, asked, self.hosts);
        let mut both_allow = false;
        let cell = |request: &Request| {
            let (was, is) = (put(&old, request), put(&new, request));
            both_allow |= was.is_ok() && is.is_ok();
            (was.is_ok() != is.is_ok()).then(|| Cell {
                gained: is.is_ok(),
                old: decided(&old, was),
                new: decided(&new, is),
            })
        };
        let cells = match (&old, &new) {
            (Err(_), Err(_)) => requests.map(|_| None).collect(),
            _ => requests.map(cell).collect(),
        };
        Row {
            requests: Rc::clone(kinds),
            cells,
            both_allow,
        }
    }
}

/// Leave to connect, everything up to the request.
fn open(matcher: &Matcher, asked: Asked<'_>, hosts: &HostAddresses) -> Result<Permit, Denial> {
    let mut permit = matcher.decide(asked.to, asked.by, hosts)?;
    match permit.lookup() {
        Lookup::Literal(address) => permit.vet(&[address], hosts)?,
        Lookup::HostGateway(_) => permit.vet(&[DOCKER_BRIDGE], hosts)?,
        Lookup::Name(_) => permit.vet(asked.resolves_to, hosts)?,
    };
    Ok(permit)
}

/// What is made of a request. What is no request is refused where requests are decided on, as is one that cannot be read.
fn put(opened: &Result<Permit, Denial>, request: &Request) -> Result<(), Option<Denial>> {
    let (method, target) = match request {
        Some((method, target)) => (method.as_str(), target.as_str()),
        None => ("", ""),
    };
    match opened {
        Ok(permit) => permit.request(method, target).map_err(Some),
        Err(_) => Err(None),
    }
}

fn decided(opened: &Result<Permit, Denial>, put: Result<(), Option<Denial>>) -> Decided {
    let (reason, rule) = match (opened, &put) {
        (_, Err(Some(denial))) | (Err(denial), _) => (denial.reason(), denial.rule()),
        (Ok(permit), _) => (permit.reason(), permit.rule()),
    };
    let rule = rule.cloned();
    Decided { reason, rule }
}

/// Differences that look alike but for the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    order: usize,
    target: Target,
    gained: bool,
    by: Option<By>,
    requests: Vec<String>,
    resolves_to: Vec<IpAddr>,
    stands_for: Option<String>,
    old: Decided,
    new: Decided,
}

/// Who asks, where that makes a difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Program { program: Program, is_other: bool },
    Unknown,
}

/// The differences that were found.
pub(crate) struct Changes<'a> {
    judges: &'a Judges<'a>,
    work: &'a Work,
    groups: BTreeMap<Group, (BTreeSet<u16>, Option<u16>)>,
    /// The directions in which what no entry names is decided differently, by default: there is no need to repeat that for
    /// what is named and falls through to the same default.
    by_default: HashSet<(bool, bool)>,
    /// Which denied addresses make a difference, for the entries that mean who asks and the port. Whatever the name, they are
    /// refused, so one name that both policies allow is enough.
    denied: HashMap<Vec<usize>, Rc<Vec<IpAddr>>>,
    /// With how many names that was shown.
    shown: HashMap<(u16, Vec<usize>), usize>,
}

/// As many names as are shown with the networks that they may not resolve to.
const SHOWN: usize = 8;

/// A place to be asked about: a witness on a port.
struct Place<'a> {
    witness: &'a Witness,
    kind: &'a Kind,
    to: Destination,
    is_other_port: bool,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(judges: &'a Judges<'a>, work: &'a Work) -> Self {
        Self {
            judges,
            work,
            groups: BTreeMap::new(),
            by_default: HashSet::new(),
            denied: HashMap::new(),
            shown: HashMap::new(),
        }
    }

    /// Compares for everything that is of a kind.
    pub(crate) fn compare(&mut self, witness: &Witness, kind: &Kind, denied: &Denied) {
        for &(port, is_other_port) in &kind.ports {
            let Ok(to) = Destination::new(witness.target.clone(), port) else {
                continue;
            };
            let place = Place {
                witness,
                kind,
                to,
                is_other_port,
            };
            if let Some(any) = kind.addresses.any {
                let rows = self.compare_at(&place, &[any], false);
                self.compare_denied(&place, denied, &rows);
            }
            for &address in &kind.addresses.named {
                self.compare_at(&place, &[address], true);
            }
            if kind.most_addresses > 1 {
                self.compare_answers(&place);
            }
        }
    }

    /// Compares for the networks that deny entries name, if the destination may otherwise resolve to any address.
    fn compare_denied(&mut self, place: &Place<'_>, denied: &Denied, rows: &[Row]) {
        // A name of the host stands for the host.
        let resolves = match place.to.target() {
            Target::Name(name) => !HOST_GATEWAY.contains(&name.as_str()),
            Target::Address(_) => false,
        };
        if denied.addresses.is_empty() || !resolves {
            return;
        }
        let kinds = place.kind.askers.kinds.iter();
        let askers = kinds
            .map(|kind| Some(kind.meant_by.as_slice()))
            .chain([None]);
        let port = place.to.port();
        let mut meanings = BTreeSet::new();
        for (meant_by, _) in askers.zip(rows).filter(|(_, row)| row.both_allow) {
            let meaning = denied.meaning(port, meant_by);
            self.work.spend(meaning.len() + 1);
            meanings.insert(meaning);
        }
        meanings.remove(&Vec::new());
        if !meanings
            .iter()
            .all(|meaning| self.denied.contains_key(meaning))
        {
            // The first time, all of them are tried; later only those that make a difference.
            let mut differing = Vec::new();
            for &address in &denied.addresses {
                let rows = self.compare_at(place, &[address], true);
                if rows.iter().any(Row::differs) {
                    differing.push(address);
                }
            }
            let differing = Rc::new(differing);
            for meaning in meanings {
                self.shown.insert((port, meaning.clone()), 1);
                self.denied
                    .entry(meaning)
                    .or_insert_with(|| Rc::clone(&differing));
            }
            return;
        }
        let mut differing = BTreeSet::new();
        for meaning in meanings {
            let known = self.denied.get(&meaning).cloned().unwrap_or_default();
            let shown = self.shown.entry((port, meaning)).or_default();
            if *shown < SHOWN {
                differing.extend(known.iter().copied());
            }
            *shown += 1;
        }
        for address in differing {
            self.compare_at(place, &[address], true);
        }
    }

    /// Compares for answers of several addresses.
    fn compare_answers(&mut self, place: &Place<'_>) {
        let addresses = &place.kind.addresses;
        let one_each = addresses.any.iter().chain(&addresses.named).copied();
        let one_each: Vec<IpAddr> = one_each.collect();
        let mut answers: Vec<(Vec<IpAddr>, usize)> = vec![(Vec::new(), 0)];
        while let Some((answer, next)) = answers.pop() {
            if answer.len() > 1 {
                self.compare_at(place, &answer, true);
            }
            if !self.work.is_left() {
                return;
            }
            let more = one_each.iter().enumerate().skip(next);
            for (at, &address) in more.filter(|_| answer.len() < place.kind.most_addresses) {
                answers.push(([answer.as_slice(), &[address]].concat(), at + 1));
            }
        }
    }

    /// Compares for every program and request, and says so once where neither makes a difference.
    fn compare_at(&mut self, place: &Place<'_>, at: &[IpAddr], shown: bool) -> Vec<Row> {
        let askers = &place.kind.askers;
        let mut rows = Vec::with_capacity(place.kind.requests.len());
        let firsts = askers.kinds.iter().map(|kind| kind.members.first());
        // Without entries for some programs, one that cannot be told is like any other.
        let unknown = (askers.kinds.len() > 1 || askers.other.is_none()).then_some(None);
        let askers_first = firsts.chain(unknown);
        for (by, requests) in askers_first.zip(&place.kind.requests) {
            if !self.spend(place, requests.first.len()) {
                return rows;
            }
            let firsts = requests.first.iter();
            let firsts = firsts.filter_map(|&first| requests.all.get(first));
            let asked = place.asked(by, at);
            rows.push(self.judges.row(asked, requests, firsts));
        }
        if !rows.iter().any(Row::differs) {
            return rows;
        }
        let Some((first, others)) = rows.split_first() else {
            return rows;
        };
        if others.iter().all(|row| row.shows_the_same_as(first)) {
            let anyone = askers.kinds.first().and_then(|kind| kind.members.first());
            self.show(place, (at, shown), &first.requests, anyone, None);
            return rows;
        }
        let mut other = None;
        for (kind, row) in askers.kinds.iter().zip(&rows) {
            if kind.meant_by.is_empty() {
                other = Some(row);
            }
            for program in kind.members.iter().filter(|_| row.differs()) {
                let is_other = Some(&program.executable) == askers.other.as_ref();
                let by = By::Program {
                    program: program.clone(),
                    is_other,
                };
                self.show(place, (at, shown), &row.requests, Some(program), Some(by));
            }
        }
        // What cannot be told is most often decided as for a program that no entry names.
        if let Some(unknown) = rows.get(askers.kinds.len())
            && !other.is_some_and(|other| other.shows_the_same_as(unknown))
        {
            self.show(
                place,
                (at, shown),
                &unknown.requests,
                None,
                Some(By::Unknown),
            );
        }
        rows
    }

    /// Notes what one program's requests come to; for every program, if there is no `by`.
    fn show(
        &mut self,
        place: &Place<'_>,
        (at, at_matters): (&[IpAddr], bool),
        requests: &Rc<RequestKinds>,
        asker: Option<&Program>,
        by: Option<By>,
    ) {
        if !self.spend(place, requests.all.len()) {
            return;
        }
        let asked = place.asked(asker, at);
        let row = self.judges.row(asked, requests, requests.all.iter());
        let every = row.is_uniform();
        let shown = if every { 1 } else { row.cells.len() };
        let mut alike: Vec<(&Cell, Vec<String>)> = Vec::new();
        for (request, cell) in requests.all.iter().zip(&row.cells).take(shown) {
            let Some(cell) = cell else { continue };
            if self.is_said_by_default(cell, place) {
                continue;
            }
            let request = match request {
                _ if every => None,
                Some((method, target)) => Some(format!("{method} {target}")),
                None => Some("anything but HTTP".to_owned()),
            };
            match alike.iter_mut().find(|(other, _)| *other == cell) {
                Some((_, requests)) => requests.extend(request),
                None => alike.push((cell, request.into_iter().collect())),
            }
        }
        for (cell, requests) in alike {
            let group = Group {
                order: place.witness.order,
                target: place.to.target().clone(),
                gained: cell.gained,
                by: by.clone(),
                requests,
                resolves_to: if at_matters { at.to_vec() } else { Vec::new() },
                stands_for: place.witness.stands_for.clone(),
                old: cell.old.clone(),
                new: cell.new.clone(),
            };
            let (ports, other) = self.groups.entry(group).or_default();
            match place.is_other_port {
                true => *other = Some(place.to.port()),
                false => drop(ports.insert(place.to.port())),
            }
        }
    }

    /// Takes the work for so many requests; false if it is not there.
    fn spend(&self, place: &Place<'_>, requests: usize) -> bool {
        self.work
            .spend(place.kind.cost.saturating_mul(1 + requests))
    }

    /// Whether what no entry names is decided as differently by default, so that there is nothing more to say.
    fn is_said_by_default(&mut self, cell: &Cell, place: &Place<'_>) -> bool {
        let by_default = |decided: &Decided| decided.reason == Reason::AllowedDefaultPublic;
        if !by_default(&cell.old) && !by_default(&cell.new) {
            return false;
        }
        let direction = (cell.gained, matches!(place.to.target(), Target::Name(_)));
        match place.witness.unnamed {
            true => {
                self.by_default.insert(direction);
                false
            }
            false => self.by_default.contains(&direction),
        }
    }

    /// What was gained and what was lost, in the order of the entries.
    pub(crate) fn grouped(self) -> (Vec<Change>, Vec<Change>) {
        let (mut gained, mut lost): (Vec<Change>, Vec<Change>) = (Vec::new(), Vec::new());
        for (group, (ports, other)) in self.groups {
            let port = if ports.contains(&443) {
                Some(443)
            } else {
                ports.first().copied()
            };
            let port = port.or(other).unwrap_or(443);
            let destination = Destination::new(group.target, port).map(|to| to.to_string());
            let (by, other_programs, under) = match group.by {
                Some(By::Program { program, is_other }) => {
                    (Some(program.executable), is_other, program.ancestors)
                }
                Some(By::Unknown) => (Some(Change::UNKNOWN_PROGRAM.to_owned()), false, Vec::new()),
                None => (None, false, Vec::new()),
            };
            let change = Change {
                destination: destination.unwrap_or_default(),
                stands_for: group.stands_for,
                ports: ports.into_iter().collect(),
                other_ports: other.is_some(),
                by,
                other_programs,
                under,
                requests: group.requests,
                resolves_to: group.resolves_to,
                old: group.old,
                new: group.new,
            };
            let changes = match group.gained {
                true => &mut gained,
                false => &mut lost,
            };
            // One destination is enough for a pattern or network, if the others show nothing else.
            if !changes
                .last()
                .is_some_and(|last| last.shows_the_same_as(&change))
            {
                changes.push(change);
            }
        }
        (with_one_host(gained), with_one_host(lost))
    }
}

impl Place<'_> {
    fn asked<'q>(&'q self, by: Option<&'q Program>, resolves_to: &'q [IpAddr]) -> Asked<'q> {
        Asked {
            to: &self.to,
            by,
            resolves_to,
        }
    }
}
