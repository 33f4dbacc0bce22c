//! Questions that show how two policies differ, if they do: one of each kind that their entries can tell apart.
//!
//! A kind of names is told by the patterns that match it, a kind of addresses by the networks that contain it, and so on
//! for ports, programs, requests. For each kind there is one member here. Patterns without wildcards inside nest, so
//! their own members are enough; for the others the members of every intersection of two are added.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Side;
use crate::destination::{Destination, Target};
use crate::glob::PathGlob;
use crate::matcher::nets::NetTable;
use crate::matcher::patterns::NameTable;
use crate::names::HOST_GATEWAY;
use crate::pattern::{Lead, Pattern};
use crate::policy::{Default, Entry, Policy, Ports, What};
use crate::program::Program;
use crate::request::Methods;

/// Stands for every program that no entry names.
pub(crate) const OTHER_PROGRAM: &str = "/any/other/program";
/// Stands for every path that no entry names.
const OTHER_PATH: &str = "/any/other/path";
/// Stands for every method that no entry names.
const OTHER_METHOD: &str = "OTHER";
/// Resolving to it is resolving to any public address, unless an entry names it.
const ANY_PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));

/// A destination to be asked about, with everything that entries about it tell apart.
pub(crate) struct Kind<'p> {
    pub(crate) target: Target,
    pub(crate) stands_for: Option<String>,
    /// Where it stands among the results.
    pub(crate) order: usize,
    /// Whether no entry names it.
    pub(crate) unnamed: bool,
    /// Each with whether it stands for all that no entry names.
    pub(crate) ports: Vec<(u16, bool)>,
    pub(crate) programs: Vec<Program>,
    /// Methods and targets; none stands for everything that is no HTTP request.
    pub(crate) requests: Vec<Option<(String, String)>>,
    /// What a name may resolve to, the first of which is any public address.
    pub(crate) addresses: Vec<IpAddr>,
    /// What deny entries say of addresses, which a name that may resolve to any address would come upon.
    pub(crate) denied: &'p Denied,
}

impl Kind<'_> {
    /// A question about it; without an address, it resolves to any public one.
    pub(crate) fn asked<'k>(
        &self,
        to: &Destination,
        by: &'k Program,
        request: &'k Option<(String, String)>,
        resolves_to: Option<IpAddr>,
    ) -> Asked<'k> {
        let request = request.as_ref();
        let any = self.addresses.first().copied().unwrap_or(ANY_PUBLIC);
        Asked {
            to: to.clone(),
            by,
            request: request.map(|(method, target)| (method.as_str(), target.as_str())),
            resolves_to: resolves_to.unwrap_or(any),
        }
    }
}

/// What deny entries tell apart that name networks.
#[derive(Default)]
pub(crate) struct Denied {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) programs: Vec<Program>,
    ports: BTreeSet<u16>,
}

/// The kinds that the entries of two policies tell apart.
pub(crate) struct Witnesses<'p> {
    entries: Vec<&'p Entry>,
    /// All entries, on every port.
    names: NameTable,
    nets: NetTable,
    gateway_ports: BTreeSet<u16>,
    /// The ports on which a policy allows what no entry names.
    default_ports: BTreeSet<u16>,
    other_port: u16,
    any: String,
    denied: Denied,
    /// Names that two patterns match which do not nest; none if they are too many to be tried.
    intersections: Option<Vec<Intersection>>,
}

/// A name that two patterns match: its place among the results, the name, and in words.
type Intersection = (usize, String, String);

impl<'p> Witnesses<'p> {
    pub(crate) fn new(old: &'p Policy, new: &'p Policy) -> Self {
        let sides = [
            (new, Side::Allow),
            (new, Side::Deny),
            (old, Side::Allow),
            (old, Side::Deny),
        ];
        let of = |(policy, side): (&'p Policy, Side)| match side {
            Side::Allow => &policy.allow,
            Side::Deny => &policy.deny,
        };
        let entries: Vec<&Entry> = sides.into_iter().flat_map(of).collect();
        let mut names = NameTable::with_capacity(entries.len());
        let mut nets = NetTable::default();
        for (index, entry) in (0..).zip(&entries) {
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
        let default_ports: BTreeSet<u16> = [old, new]
            .into_iter()
            .filter_map(|policy| match &policy.default {
                Default::AllowPublic(ports) => Some(ports.as_slice()),
                Default::Deny => None,
            })
            .flatten()
            .copied()
            .filter(|&port| port != 0)
            .collect();
        let ports = entries.iter().flat_map(|entry| entry.ports.as_slice());
        let taken: HashSet<u16> = ports
            .copied()
            .chain(gateway_ports.iter().copied())
            .chain(default_ports.iter().copied())
            .collect();
        let other_port = (OTHER_PORT..=u16::MAX)
            .chain(1..OTHER_PORT)
            .find(|port| !taken.contains(port));
        let denied = [old, new].into_iter().flat_map(|policy| &policy.deny);
        let denied: Vec<&Entry> = denied.filter(|entry| net_of(entry).is_some()).collect();
        let denied = Denied {
            addresses: edges(denied.iter().filter_map(|entry| net_of(entry)))
                .into_iter()
                .collect(),
            programs: programs(&denied),
            ports: ports_of(&denied),
        };
        let patterns = entries.iter().filter_map(|entry| pattern_of(entry));
        let any = fresh_label(patterns);
        let numbered: Vec<_> = numbered_patterns(&entries)
            .filter(|(_, pattern)| !pattern.is_exact())
            .collect();
        Self {
            intersections: intersections(&numbered, &any),
            any,
            names,
            nets,
            gateway_ports,
            default_ports,
            other_port: other_port.unwrap_or(OTHER_PORT),
            denied,
            entries,
        }
    }

    /// Whether every kind there is has a member.
    pub(crate) fn is_complete(&self) -> bool {
        self.intersections.is_some()
    }

    /// All kinds, those that no entry names first.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind<'_>> {
        let mut targets: Vec<(Target, Option<String>, usize, bool)> = Vec::new();
        let mut seen = HashSet::new();
        let unnamed_name = format!("{}.example", self.any);
        let mut name = |text: &str, stands_for, order, unnamed| {
            if let Ok(host) = text.parse()
                && seen.insert(text.to_owned())
            {
                targets.push((Target::Name(host), stands_for, order, unnamed));
            }
        };
        name(
            &unnamed_name,
            Some("every name that no entry names".to_owned()),
            0,
            true,
        );
        for gateway in HOST_GATEWAY {
            name(gateway, None, 0, false);
        }
        for (order, pattern) in numbered_patterns(&self.entries) {
            for text in self.members(pattern) {
                let stands_for = (!pattern.is_exact()).then(|| pattern.to_string());
                name(&text, stands_for, order, false);
            }
        }
        for (order, text, stands_for) in self.intersections.iter().flatten() {
            name(text, Some(stands_for.clone()), *order, false);
        }
        let nets = self.entries.iter().filter_map(|entry| net_of(entry));
        let mut addresses: BTreeSet<IpAddr> = edges(nets);
        let host = crate::addr::DOCKER_BRIDGE;
        let outside = UNNAMED
            .into_iter()
            .filter(|address| self.entries_about(&Target::Address(*address)).is_empty());
        let outside: Vec<_> = outside.collect();
        addresses.remove(&host);
        targets.push((Target::Address(host), Some("the host".to_owned()), 0, false));
        for address in outside {
            let stands_for = match address {
                IpAddr::V4(_) => "every public IPv4 address that no entry names",
                IpAddr::V6(_) => "every public IPv6 address that no entry names",
            };
            addresses.remove(&address);
            targets.push((
                Target::Address(address),
                Some(stands_for.to_owned()),
                0,
                true,
            ));
        }
        targets.extend(addresses.into_iter().map(|address| {
            let about = self.entries_about(&Target::Address(address));
            let order = about.first().copied().unwrap_or(usize::MAX);
            let stands_for = self.entries.get(order).and_then(|entry| match &entry.what {
                What::Net(net) if net.prefix_len() < net.max_prefix_len() => Some(net.to_string()),
                _ => None,
            });
            (
                Target::Address(address),
                stands_for,
                order.saturating_add(1),
                about.is_empty(),
            )
        }));
        // Those that are not named come first, so that what they show is not said again.
        targets.sort_by_key(|(_, _, order, unnamed)| (!unnamed, *order));
        targets
            .into_iter()
            .map(|(target, stands_for, order, unnamed)| {
                self.kind(target, stands_for, order, unnamed)
            })
    }

    /// The entries that name a target, whatever the port.
    fn entries_about(&self, target: &Target) -> Vec<usize> {
        let mut found = Vec::new();
        match target {
            Target::Name(name) => self.names.find_all(name.as_str(), 1, |_| true, &mut found),
            Target::Address(address) => {
                for reading in crate::addr::readings(*address) {
                    self.nets.find_all(reading, 1, |_| true, &mut found);
                }
            }
        }
        found.into_iter().map(|entry| entry as usize).collect()
    }

    fn kind(
        &self,
        target: Target,
        stands_for: Option<String>,
        order: usize,
        unnamed: bool,
    ) -> Kind<'_> {
        let about = self.entries_about(&target);
        let entries: Vec<&Entry> = about
            .iter()
            .filter_map(|&at| self.entries.get(at).copied())
            .collect();
        let is_host = match &target {
            Target::Name(name) => HOST_GATEWAY.contains(&name.as_str()),
            Target::Address(address) => *address == crate::addr::DOCKER_BRIDGE,
        };
        let mut ports = ports_of(&entries);
        // Where every port is allowed, those of denied networks matter.
        if unnamed || entries.iter().any(|entry| entry.ports == Ports::Any) {
            ports.extend(&self.denied.ports);
        }
        ports.extend([80, 443]);
        ports.extend(&self.default_ports);
        if is_host {
            ports.extend(&self.gateway_ports);
        }
        let ports = ports.into_iter().map(|port| (port, false));
        let granted: Vec<IpNet> = entries
            .iter()
            .flat_map(|entry| entry.addresses.iter().copied())
            .collect();
        let any_public = UNNAMED
            .into_iter()
            .chain(MORE_PUBLIC.map(IpAddr::V4))
            .find(|address| {
                let named = granted.iter().any(|net| net.contains(address));
                !named && self.entries_about(&Target::Address(*address)).is_empty()
            });
        let mut addresses = vec![any_public.unwrap_or(ANY_PUBLIC)];
        if let Target::Name(_) = target {
            let mut nets = granted.clone();
            let inside = |address: &&IpAddr| granted.iter().any(|net| net.contains(*address));
            nets.extend(
                self.denied
                    .addresses
                    .iter()
                    .filter(inside)
                    .map(|&address| IpNet::from(address)),
            );
            addresses.extend(edges(nets.into_iter()));
        }
        Kind {
            ports: ports.chain([(self.other_port, true)]).collect(),
            programs: programs(&entries),
            requests: requests(&entries),
            addresses,
            denied: &self.denied,
            target,
            stands_for,
            order,
            unnamed,
        }
    }

    /// Names that a pattern matches, with as many labels as make a difference to others that nest in it.
    fn members(&self, pattern: &Pattern) -> Vec<String> {
        let labels = templates(pattern, 3);
        labels
            .into_iter()
            .map(|labels| name_of(&labels, &self.any))
            .collect()
    }
}

fn numbered_patterns<'p>(entries: &[&'p Entry]) -> impl Iterator<Item = (usize, &'p Pattern)> {
    let entries = entries.iter().enumerate();
    entries.filter_map(|(index, entry)| pattern_of(entry).map(|pattern| (index + 1, pattern)))
}

fn name_of(labels: &[String], any: &str) -> String {
    labels.join(".").replace('*', any)
}

/// Names that two patterns match of which one has wildcards inside: those do not nest. None if there are too many.
fn intersections(patterns: &[(usize, &Pattern)], any: &str) -> Option<Vec<Intersection>> {
    let inside = |(_, pattern): &&(usize, &Pattern)| pattern.shape().is_looked_up_by_form();
    let inside: Vec<_> = patterns.iter().filter(inside).collect();
    if inside.len().saturating_mul(patterns.len()) > MOST_PAIRS {
        return None;
    }
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let lengths = patterns
        .iter()
        .map(|(_, pattern)| pattern.rest().split('.').count());
    let longest = 1 + lengths.max().unwrap_or_default();
    let by_length = |pattern: &Pattern| -> HashMap<usize, Vec<String>> {
        let all = templates(pattern, longest);
        all.into_iter()
            .map(|labels| (labels.len(), labels))
            .collect()
    };
    let all: Vec<_> = patterns
        .iter()
        .map(|(_, pattern)| by_length(pattern))
        .collect();
    let mut names = Vec::new();
    for (order, one) in inside {
        let ones = by_length(one);
        for (others, (_, other)) in all.iter().zip(patterns) {
            for (length, labels) in &ones {
                let both = others.get(length).and_then(|other| unify(labels, other));
                if let Some(both) = both {
                    let stands_for = format!("names that {one} and {other} match");
                    names.push((*order, name_of(&both, any), stands_for));
                }
            }
        }
    }
    Some(names)
}

/// Where ports begin that nobody is likely to name.
pub(crate) const OTHER_PORT: u16 = 49151;
/// Public addresses, of which one is likely not to be named.
const UNNAMED: [IpAddr; 2] = [
    ANY_PUBLIC,
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111)),
];
const MORE_PUBLIC: [Ipv4Addr; 4] = [
    Ipv4Addr::new(9, 9, 9, 9),
    Ipv4Addr::new(31, 13, 24, 1),
    Ipv4Addr::new(93, 184, 215, 14),
    Ipv4Addr::new(185, 199, 108, 1),
];
/// Pairs of patterns that are tried, and pairs of globs.
const MOST_PAIRS: usize = 2_000_000;
const MOST_GLOB_PAIRS: usize = 10_000;
/// Requests that are tried for one destination.
const MOST_REQUESTS: usize = 4_096;

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

fn ports_of(entries: &[&Entry]) -> BTreeSet<u16> {
    let ports = entries.iter().flat_map(|entry| entry.ports.as_slice());
    ports.copied().filter(|&port| port != 0).collect()
}

/// The addresses at which something begins or ends: of each run of addresses that the same networks contain, the first.
fn edges(nets: impl Iterator<Item = IpNet>) -> BTreeSet<IpAddr> {
    let mut edges = BTreeSet::new();
    for net in nets {
        edges.insert(net.network());
        edges.extend(match net.broadcast() {
            IpAddr::V4(last) => last
                .to_bits()
                .checked_add(1)
                .map(|next| IpAddr::V4(next.into())),
            IpAddr::V6(last) => last
                .to_bits()
                .checked_add(1)
                .map(|next| IpAddr::V6(next.into())),
        });
    }
    edges
}

/// A label that no pattern names.
fn fresh_label<'a>(patterns: impl Iterator<Item = &'a Pattern>) -> String {
    let mut labels = HashSet::new();
    let mut globs = HashSet::new();
    for label in patterns.flat_map(|pattern| pattern.as_str().split('.')) {
        match label {
            "" | "*" | "**" => {}
            glob if glob.contains('*') => drop(globs.insert(glob)),
            label => drop(labels.insert(label)),
        }
    }
    let is_fresh = |label: &String| {
        !labels.contains(label.as_str()) && !globs.iter().any(|glob| glob_matches(glob, label))
    };
    let numbered = (1..1000).map(|number| format!("any{number}"));
    let others = (1..1000).map(|number| format!("q{number}z"));
    let mut candidates = std::iter::once("any".to_owned())
        .chain(numbered)
        .chain(others);
    candidates
        .find(is_fresh)
        .unwrap_or_else(|| "any".to_owned())
}

/// The labels of names that a pattern matches, with up to `more` labels for what may be many; a `*` is anything.
fn templates(pattern: &Pattern, more: usize) -> Vec<Vec<String>> {
    let rest: Vec<String> = pattern.rest().split('.').map(str::to_owned).collect();
    let behind = |front: usize| [vec!["*".to_owned(); front], rest.clone()].concat();
    match pattern.shape().lead {
        Lead::Label => vec![rest],
        Lead::Within { .. } => {
            let first = pattern.as_str().split('.').next().unwrap_or_default();
            vec![[vec![first.to_owned()], rest].concat()]
        }
        Lead::One => vec![behind(1)],
        Lead::Below => (1..=more).map(behind).collect(),
        Lead::ApexAndBelow => (0..=more).map(behind).collect(),
    }
}

/// The segments of paths that a glob matches, with up to `more` segments for each `**`.
fn path_templates(glob: &PathGlob, more: usize) -> Vec<Vec<String>> {
    let mut paths: Vec<Vec<String>> = vec![Vec::new()];
    for segment in glob.as_str().split('/').skip(1) {
        paths = match segment {
            "**" => {
                let longer = |path: &Vec<String>| {
                    let path = path.clone();
                    (0..=more).map(move |many| [path.clone(), vec!["*".to_owned(); many]].concat())
                };
                paths.iter().flat_map(longer).take(64).collect()
            }
            segment => {
                paths
                    .iter_mut()
                    .for_each(|path| path.push(segment.to_owned()));
                paths
            }
        };
    }
    paths
}

/// What two lists of pieces have in common, if they have anything.
fn unify(one: &[String], other: &[String]) -> Option<Vec<String>> {
    if one.len() != other.len() {
        return None;
    }
    one.iter()
        .zip(other)
        .map(|(one, other)| unify_pieces(one, other))
        .collect()
}

fn unify_pieces(one: &str, other: &str) -> Option<String> {
    let (Some((front, back)), Some((other_front, other_back))) = (ends(one), ends(other)) else {
        return match (one.contains('*'), other.contains('*')) {
            (_, false) if glob_matches(one, other) => Some(other.to_owned()),
            (false, _) if glob_matches(other, one) => Some(one.to_owned()),
            _ => None,
        };
    };
    let longer = |a: &'_ str, b: &'_ str, fits: bool, other_fits: bool| match (fits, other_fits) {
        (true, _) => Some(a.to_owned()),
        (_, true) => Some(b.to_owned()),
        _ => None,
    };
    let front = longer(
        front,
        other_front,
        front.starts_with(other_front),
        other_front.starts_with(front),
    )?;
    let back = longer(
        back,
        other_back,
        back.ends_with(other_back),
        other_back.ends_with(back),
    )?;
    let middle = |text: &str| -> String {
        let parts: Vec<_> = text.split('*').collect();
        let inner = parts
            .get(1..parts.len().saturating_sub(1))
            .unwrap_or_default();
        inner.iter().map(|part| format!("{part}*")).collect()
    };
    Some(format!("{front}*{}{}{back}", middle(one), middle(other)))
}

/// What stands before the first and after the last `*`.
fn ends(glob: &str) -> Option<(&str, &str)> {
    let (front, _) = glob.split_once('*')?;
    let (_, back) = glob.rsplit_once('*')?;
    Some((front, back))
}

fn glob_matches(glob: &str, text: &str) -> bool {
    let parsed = PathGlob::parse(&format!("/{glob}"), |_| None);
    parsed.is_ok_and(|parsed| parsed.matches(&[text]))
}

/// Paths that globs tell apart.
fn paths(globs: &[&PathGlob]) -> BTreeSet<String> {
    let longest = globs
        .iter()
        .map(|glob| glob.as_str().split('/').count())
        .max();
    let longest = longest.unwrap_or_default().clamp(2, 12);
    let text = |path: &[String]| format!("/{}", path.join("/")).replace('*', "any");
    let all: Vec<_> = globs
        .iter()
        .map(|glob| path_templates(glob, longest))
        .collect();
    let mut paths: BTreeSet<String> = BTreeSet::new();
    for templates in &all {
        paths.extend(templates.iter().take(4).map(|path| text(path)));
    }
    if all.len() * all.len() <= MOST_GLOB_PAIRS {
        for (at, ones) in all.iter().enumerate() {
            for others in all.iter().skip(at + 1) {
                let both = ones
                    .iter()
                    .flat_map(|one| others.iter().filter_map(|other| unify(one, other)));
                paths.extend(both.take(8).map(|path| text(&path)));
            }
        }
    }
    paths
}

fn programs(entries: &[&Entry]) -> Vec<Program> {
    let patterns: Vec<_> = entries
        .iter()
        .flat_map(|entry| entry.programs.iter())
        .collect();
    let other = |ancestors| Program {
        executable: OTHER_PROGRAM.to_owned(),
        ancestors,
    };
    let mut programs = vec![other(Vec::new())];
    let globs: Vec<_> = patterns.iter().map(|pattern| &pattern.path).collect();
    for path in paths(&globs) {
        programs.push(Program {
            executable: path.clone(),
            ancestors: Vec::new(),
        });
        if patterns.iter().any(|pattern| pattern.descendants) {
            programs.push(other(vec![path]));
        }
    }
    programs
}

fn requests(entries: &[&Entry]) -> Vec<Option<(String, String)>> {
    let rules: Vec<_> = entries
        .iter()
        .flat_map(|entry| entry.requests.iter())
        .collect();
    let mut requests = vec![None];
    if rules.is_empty() {
        return requests;
    }
    let listed = rules.iter().filter_map(|rule| match &rule.methods {
        Methods::Any => None,
        Methods::Listed(methods) => Some(methods),
    });
    let mut methods: BTreeSet<&str> = listed.flatten().map(|method| &**method).collect();
    methods.extend(["GET", OTHER_METHOD]);
    let globs: Vec<_> = rules.iter().map(|rule| &rule.path).collect();
    let mut targets = paths(&globs);
    targets.insert(OTHER_PATH.to_owned());
    let pairs = targets.iter().flat_map(|target| {
        let request = |method: &&str| Some(((*method).to_owned(), target.clone()));
        methods.iter().map(request)
    });
    requests.extend(pairs.take(MOST_REQUESTS));
    requests
}

/// A question about a kind.
pub(crate) struct Asked<'k> {
    pub(crate) to: Destination,
    pub(crate) by: &'k Program,
    pub(crate) request: Option<(&'k str, &'k str)>,
    pub(crate) resolves_to: IpAddr,
}
