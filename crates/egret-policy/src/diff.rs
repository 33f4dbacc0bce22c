//! What one policy allows and another does not.
//!
//! Two policies are compared by what they decide, not by their text. Everything that could be decided differently is
//! decided by both, once for each kind: a name for each set of patterns that match it, a port, a program, a request and
//! an address for each that entries tell apart. So a difference always comes with a destination that shows it, and a
//! change of the text that changes no decision is none.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::addr::{DOCKER_BRIDGE, HostAddresses};
use crate::destination::{Destination, Target};
use crate::matcher::Matcher;
use crate::names::HOST_GATEWAY;
use crate::permit::Lookup;
use crate::policy::Policy;
use crate::program::Program;
use crate::reason::Reason;
use crate::rule::RuleId;
use crate::text::entry::Side;
use witness::{Asked, Kind, Witnesses};

#[cfg(test)]
mod tests;
mod witness;

/// How two policies differ. Its serialised form is part of Egret's public interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What the new policy allows and the old one does not.
    pub gained: Vec<Change>,
    /// What the old policy allows and the new one does not.
    pub lost: Vec<Change>,
    /// Paths that stand in one policy's `filesystem:` only.
    pub filesystem: Vec<FileChange>,
    /// Whether everything was compared that could differ. It is not where wildcards inside names are so many that their
    /// combinations cannot all be tried.
    pub complete: bool,
}

/// Destinations that are decided differently, in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// A destination that shows it, as `host:port`.
    pub destination: String,
    /// What it stands for: a pattern, a network, or a description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<String>,
    /// The ports on which it holds, as far as entries name them.
    pub ports: Vec<u16>,
    /// Whether it holds on every port that no entry names, too.
    pub other_ports: bool,
    /// The executable for which it holds, `/any/other/program` for all that no entry names; none where it makes no
    /// difference who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The program that has to have started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
    /// Requests for which it holds, and `anything but HTTP`; none where it holds for everything that is sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<String>,
    /// The address that the name would have to resolve to, where it is not any public one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolves_to: Option<IpAddr>,
    /// What the old policy decides.
    pub old: Decided,
    /// What the new policy decides.
    pub new: Decided,
}

/// A decision in short.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Decided {
    /// Why.
    pub reason: Reason,
    /// The entry that decided, if one did.
    pub rule: Option<RuleId>,
}

/// A path that one policy's `filesystem:` has and the other's has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// `added` or `removed`.
    pub change: &'static str,
    /// The list: `read`, `write` or `hide`.
    pub list: &'static str,
    /// The path, as it was written.
    pub path: String,
}

impl Difference {
    /// Whether the two policies decide alike.
    pub fn is_none(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty() && self.filesystem.is_empty()
    }
}

impl Change {
    fn shows_the_same_as(&self, other: &Self) -> bool {
        self.stands_for.is_some()
            && *self
                == Self {
                    destination: self.destination.clone(),
                    ..other.clone()
                }
    }
}

impl Policy {
    /// Says how `new` differs from this policy, by what the two decide.
    pub fn diff(&self, new: &Policy) -> Difference {
        let witnesses = Witnesses::new(self, new);
        let judges = Judges {
            old: self.compile(),
            new: new.compile(),
            hosts: HostAddresses::new([]).with_gateway(vec![DOCKER_BRIDGE]),
        };
        let mut changes = Changes::default();
        for kind in witnesses.kinds() {
            changes.compare(&judges, &kind);
        }
        let (gained, lost) = changes.grouped();
        Difference {
            gained,
            lost,
            filesystem: files(self, new),
            complete: witnesses.is_complete(),
        }
    }
}

struct Judges {
    old: Matcher,
    new: Matcher,
    hosts: HostAddresses,
}

impl Judges {
    /// What each of the two makes of a question, everything up to the request; none if they agree.
    fn disagree(&self, asked: &Asked<'_>) -> Option<Cell> {
        let (was, old) = judge(&self.old, asked, &self.hosts);
        let (is, new) = judge(&self.new, asked, &self.hosts);
        (was != is).then_some(Cell {
            gained: is,
            old,
            new,
        })
    }
}

/// How two policies disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    gained: bool,
    old: Decided,
    new: Decided,
}

fn judge(matcher: &Matcher, asked: &Asked<'_>, hosts: &HostAddresses) -> (bool, Decided) {
    let decided = matcher.decide(&asked.to, Some(asked.by), hosts);
    let decided = decided.and_then(|mut permit| {
        let answer = match permit.lookup() {
            Lookup::Literal(address) => address,
            Lookup::HostGateway(_) => DOCKER_BRIDGE,
            Lookup::Name(_) => asked.resolves_to,
        };
        permit.vet(&[answer], hosts)?;
        // What is no request is refused where requests are decided on, as is one that cannot be read.
        let (method, target) = asked.request.unwrap_or_default();
        permit.request(method, target)?;
        Ok(permit)
    });
    match decided {
        Ok(permit) => {
            let (reason, rule) = (permit.reason(), permit.rule().cloned());
            (true, Decided { reason, rule })
        }
        Err(denial) => {
            let (reason, rule) = (denial.reason(), denial.rule().cloned());
            (false, Decided { reason, rule })
        }
    }
}

/// Differences that look alike but for the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    order: usize,
    target: Target,
    gained: bool,
    by: Option<Program>,
    requests: Vec<String>,
    resolves_to: Option<IpAddr>,
    stands_for: Option<String>,
    old: Decided,
    new: Decided,
}

#[derive(Default)]
struct Changes {
    groups: BTreeMap<Group, (BTreeSet<u16>, Option<u16>)>,
    /// The directions in which what no entry names is decided differently, by default: there is no need to repeat that for
    /// what is named and falls through to the same default.
    by_default: HashSet<(bool, bool)>,
    /// How many names were tried with all denied networks, for each port. Both policies allow them.
    tried: HashMap<u16, usize>,
}

/// As many names as are tried with all denied networks: whatever the name, the network refuses it.
const TRIED: usize = 8;

impl Changes {
    fn compare(&mut self, judges: &Judges, kind: &Kind<'_>) {
        for &(port, other_port) in &kind.ports {
            let Ok(to) = Destination::new(kind.target.clone(), port) else {
                continue;
            };
            for (place, &address) in kind.addresses.iter().enumerate() {
                let resolves_to = (place > 0).then_some(address);
                let programs = &kind.programs;
                self.compare_all(judges, kind, programs, &to, other_port, resolves_to);
            }
            self.compare_denied(judges, kind, &to, other_port);
        }
    }

    /// Compares for the networks that deny entries name, if the destination may otherwise resolve to any address.
    fn compare_denied(
        &mut self,
        judges: &Judges,
        kind: &Kind<'_>,
        to: &Destination,
        other_port: bool,
    ) {
        let Target::Name(_) = to.target() else {
            return;
        };
        let tried = self.tried.entry(to.port()).or_default();
        let programs = kind.programs.iter().chain(&kind.denied.programs);
        let mut programs: Vec<_> = programs.cloned().collect();
        let mut questions = programs.iter().flat_map(|by| {
            let asked = |request| kind.asked(to, by, request, None);
            kind.requests.iter().map(asked)
        });
        let allowed = |asked: Asked<'_>| {
            judge(&judges.old, &asked, &judges.hosts).0
                && judge(&judges.new, &asked, &judges.hosts).0
        };
        if *tried >= TRIED || kind.denied.addresses.is_empty() || !questions.any(allowed) {
            return;
        }
        drop(questions);
        *tried += 1;
        programs.sort();
        programs.dedup();
        for &address in &kind.denied.addresses {
            let resolves_to = Some(address);
            self.compare_all(judges, kind, &programs, to, other_port, resolves_to);
        }
    }

    /// Compares for every program and request, and says so once where neither makes a difference.
    fn compare_all(
        &mut self,
        judges: &Judges,
        kind: &Kind<'_>,
        programs: &[Program],
        to: &Destination,
        other_port: bool,
        resolves_to: Option<IpAddr>,
    ) {
        let row = |by: &Program| -> Vec<Option<Cell>> {
            let ask = |request| judges.disagree(&kind.asked(to, by, request, resolves_to));
            kind.requests.iter().map(ask).collect()
        };
        let rows: Vec<_> = programs.iter().map(row).collect();
        let direction = |cell: &Option<Cell>| cell.as_ref().map(|cell| cell.gained);
        let same = |a: &[Option<Cell>], b: &[Option<Cell>]| {
            a.iter().map(direction).eq(b.iter().map(direction))
        };
        let Some(first) = rows.first() else {
            return;
        };
        let by_matters = !rows.iter().all(|row| same(row, first));
        let shown = if by_matters { rows.len() } else { 1 };
        for (program, row) in programs.iter().zip(&rows).take(shown) {
            let every = row
                .windows(2)
                .all(|two| matches!(two, [a, b] if direction(a) == direction(b)));
            let shown = if every { 1 } else { row.len() };
            let mut alike: Vec<(&Cell, Vec<String>)> = Vec::new();
            for (request, cell) in kind.requests.iter().zip(row).take(shown) {
                let Some(cell) = cell else { continue };
                if self.is_said_by_default(cell, kind, to) {
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
                    order: kind.order,
                    target: to.target().clone(),
                    gained: cell.gained,
                    by: by_matters.then(|| program.clone()),
                    requests,
                    resolves_to,
                    stands_for: kind.stands_for.clone(),
                    old: cell.old.clone(),
                    new: cell.new.clone(),
                };
                let (ports, other) = self.groups.entry(group).or_default();
                match other_port {
                    true => *other = Some(to.port()),
                    false => drop(ports.insert(to.port())),
                }
            }
        }
    }

    /// Whether what no entry names is decided as differently by default, so that there is nothing more to say.
    fn is_said_by_default(&mut self, cell: &Cell, kind: &Kind<'_>, to: &Destination) -> bool {
        let by_default = |decided: &Decided| decided.reason == Reason::AllowedDefaultPublic;
        if !by_default(&cell.old) && !by_default(&cell.new) {
            return false;
        }
        let direction = (cell.gained, matches!(to.target(), Target::Name(_)));
        match kind.unnamed {
            true => {
                self.by_default.insert(direction);
                false
            }
            false => self.by_default.contains(&direction),
        }
    }

    fn grouped(self) -> (Vec<Change>, Vec<Change>) {
        let (mut gained, mut lost): (Vec<Change>, Vec<Change>) = (Vec::new(), Vec::new());
        for (group, (ports, other)) in self.groups {
            let port = if ports.contains(&443) {
                Some(443)
            } else {
                ports.first().copied()
            };
            let port = port.or(other).unwrap_or(443);
            let destination = Destination::new(group.target, port).map(|to| to.to_string());
            let (by, under) = match group.by {
                Some(Program {
                    executable,
                    ancestors,
                }) => (Some(executable), ancestors.into_iter().next()),
                None => (None, None),
            };
            let change = Change {
                destination: destination.unwrap_or_default(),
                stands_for: group.stands_for,
                ports: ports.into_iter().collect(),
                other_ports: other.is_some(),
                by,
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

/// What holds for this machine by each of its names and its address is said once.
fn with_one_host(mut changes: Vec<Change>) -> Vec<Change> {
    let is_host = |change: &Change| {
        let host = change.destination.rsplit_once(':').map(|(host, _)| host);
        host.is_some_and(|host| HOST_GATEWAY.contains(&host) || host == DOCKER_BRIDGE.to_string())
    };
    let alike = |one: &Change, other: &Change| {
        let plain = |change: &Change| Change {
            destination: String::new(),
            stands_for: None,
            ..change.clone()
        };
        is_host(one) && is_host(other) && plain(one) == plain(other)
    };
    let mut at = 0;
    while let Some(change) = changes.get(at).cloned() {
        let same = changes.iter().filter(|other| alike(&change, other)).count();
        if same == HOST_GATEWAY.len() + 1 {
            changes.retain(|other| !alike(&change, other) || *other == change);
            if let Some(first) = changes.get_mut(at) {
                first.stands_for = Some("this machine".to_owned());
                if let (Some(name), Some((_, port))) =
                    (HOST_GATEWAY.first(), first.destination.rsplit_once(':'))
                {
                    first.destination = format!("{name}:{port}");
                }
            }
        }
        at += 1;
    }
    changes
}

fn files(old: &Policy, new: &Policy) -> Vec<FileChange> {
    let lists = |policy: &Policy| {
        let files = policy.filesystem().clone();
        [
            ("read", files.read),
            ("write", files.write),
            ("hide", files.hide),
        ]
    };
    let mut changes = Vec::new();
    for ((list, old), (_, new)) in lists(old).into_iter().zip(lists(new)) {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) =
            (old.into_iter().collect(), new.into_iter().collect());
        let change = |change, path: &String| FileChange {
            change,
            list,
            path: path.clone(),
        };
        changes.extend(new.difference(&old).map(|path| change("added", path)));
        changes.extend(old.difference(&new).map(|path| change("removed", path)));
    }
    changes
}
