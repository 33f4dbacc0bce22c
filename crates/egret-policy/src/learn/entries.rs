//! From what was counted to entries.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Learnt, Lesson, MOST_DESTINATIONS, Met, Programs, Refusals, marks, shortened};
use crate::addr::HostAddresses;
use crate::destination::Target;
use crate::host::Host;
use crate::matcher::Matcher;
use crate::suffix::{public_suffix, registered};
use crate::text::amend::{Addition, List};
use crate::text::write;

/// So many names that differ in their first label are worth a wildcard.
const SIBLINGS: usize = 3;
/// More names under one name, or of one domain, are not listed: whoever makes them up has more.
const MOST_SIBLINGS: usize = 50;
/// More entries nobody would look through.
const MOST_ENTRIES: usize = 500;
/// As many are told one by one of what is not opened.
const MOST_TOLD: usize = 40;
/// As many destinations are told one by one that were refused for the same reason.
const MOST_OF_A_REASON: usize = 12;
/// As many programs are named for an entry.
const MOST_NAMED: usize = 3;
/// Longer comments are broken into lines.
const COMMENT_WIDTH: usize = 94;
/// As many destinations go into the tests of a policy, of each kind.
const MOST_PROOF: usize = 5;

pub(super) fn learnt(lesson: &Lesson, already: Option<&Matcher>, generalize: bool) -> Learnt {
    let mut learnt = Learnt::default();
    let (mut names, addresses) = needed(lesson, already);
    let mut entries = match generalize {
        true => wildcards(lesson, &mut names),
        false => Vec::new(),
    };
    leave_out_floods(&mut names, &mut learnt.not_opened);
    entries.extend(names.iter().map(|(name, met)| Entry::of_name(name, met)));
    entries.extend(
        addresses
            .iter()
            .map(|(address, met)| Entry::of_address(*address, met)),
    );
    leave_out_most(&mut entries, &mut learnt.not_opened);
    entries.sort_by(|one, other| one.place.cmp(&other.place));

    learnt.marked = entries
        .iter()
        .filter(|entry| !entry.marks.is_empty())
        .count();
    learnt.connections = entries.iter().map(|entry| entry.connections).sum();
    learnt.proof = proof(&entries);
    learnt.additions = entries.iter().map(Entry::addition).collect();
    learnt.not_opened.extend(not_opened(lesson));
    learnt.refused = refused(lesson);
    learnt
}

/// What was met at each port.
type Ports<'a> = BTreeMap<u16, &'a Met>;
type Names<'a> = BTreeMap<&'a Host, Ports<'a>>;
type Addresses<'a> = BTreeMap<IpAddr, Ports<'a>>;

/// What is to be opened and is not open yet.
fn needed<'a>(lesson: &'a Lesson, already: Option<&Matcher>) -> (Names<'a>, Addresses<'a>) {
    let (mut names, mut addresses) = (Names::new(), Addresses::new());
    let unknown = HostAddresses::new([]);
    for (to, met) in &lesson.destinations {
        let open = |matcher: &Matcher| {
            let mut programs = met.programs.each();
            programs.all(|program| matcher.decide(to, program, &unknown).is_ok())
        };
        if !met.is_to_be_opened() || already.is_some_and(open) {
            continue;
        }
        match to.target() {
            Target::Name(name) => {
                let ports = names.entry(name).or_default();
                ports.insert(to.port(), met);
            }
            Target::Address(address) => {
                let ports = addresses.entry(*address).or_default();
                ports.insert(to.port(), met);
            }
        }
    }
    (names, addresses)
}

/// Entries for names that differ in their first label only, by the ports that enough of them have. What they open is taken
/// out of `names`.
fn wildcards(lesson: &Lesson, names: &mut Names<'_>) -> Vec<Entry> {
    let mut siblings: BTreeMap<(&str, u16), Vec<&Host>> = BTreeMap::new();
    for (&name, ports) in &*names {
        let Some((_, parent)) = name.as_str().split_once('.') else {
            continue;
        };
        for &port in ports.keys() {
            siblings.entry((parent, port)).or_default().push(name);
        }
    }
    siblings.retain(|(parent, _), names| names.len() >= SIBLINGS && may_be_open(parent, lesson));
    let mut of_parent: BTreeMap<&str, Vec<(u16, Vec<&Host>)>> = BTreeMap::new();
    for ((parent, port), names) in siblings {
        of_parent.entry(parent).or_default().push((port, names));
    }
    let mut entries = Vec::new();
    for (parent, of_ports) in of_parent {
        let ports: Vec<u16> = of_ports.iter().map(|(port, _)| *port).collect();
        let mut all = BTreeSet::new();
        let mut met = Vec::new();
        for (port, of_port) in &of_ports {
            for name in of_port {
                all.insert(name.as_str());
                met.extend(names.get_mut(name).and_then(|ports| ports.remove(port)));
            }
        }
        let all: Vec<&str> = all.into_iter().collect();
        entries.push(Entry::of_siblings(parent, &all, &ports, &met));
    }
    names.retain(|_, ports| !ports.is_empty());
    entries
}

/// Whether a wildcard may stand in front of a name: nobody can register under it, and nothing was refused there.
fn may_be_open(parent: &str, lesson: &Lesson) -> bool {
    let is_child = |name: &Host| {
        name.as_str()
            .split_once('.')
            .is_some_and(|(_, its)| its == parent)
    };
    parent.contains('.')
        && public_suffix(parent).is_none()
        // Of more than are kept, nobody knows whether one is there.
        && lesson.refused_names.len() < MOST_DESTINATIONS
        && !lesson.refused_names.iter().any(is_child)
}

/// Leaves out names of which there are too many: under one name, or in one domain.
fn leave_out_floods(names: &mut Names<'_>, not_opened: &mut Vec<String>) {
    let parent = |name: &Host| {
        name.as_str()
            .split_once('.')
            .map_or(String::new(), |(_, parent)| parent.to_owned())
    };
    leave_out_flood(names, not_opened, parent);
    leave_out_flood(names, not_opened, |name| {
        registered(name.as_str()).to_owned()
    });
}

fn leave_out_flood(
    names: &mut Names<'_>,
    not_opened: &mut Vec<String>,
    under: impl Fn(&Host) -> String,
) {
    let mut floods: BTreeMap<String, usize> = BTreeMap::new();
    for name in names.keys() {
        *floods.entry(under(name)).or_default() += 1;
    }
    floods.retain(|_, count| *count > MOST_SIBLINGS);
    names.retain(|name, _| !floods.contains_key(&under(name)));
    let told = floods.iter().take(MOST_TOLD).map(|(under, count)| {
        format!(
            "{count} names under {under} were reached, more than the {MOST_SIBLINGS} that are listed, and none of them is opened: \
             add those that are meant, or try --generalize"
        )
    });
    not_opened.extend(told);
    if let more @ 1.. = floods.len().saturating_sub(MOST_TOLD) {
        not_opened.push(format!(
            "the same is so with {more} others that have many names under them"
        ));
    }
}

/// Leaves out the entries that were used least, if there are too many.
fn leave_out_most(entries: &mut Vec<Entry>, not_opened: &mut Vec<String>) {
    if entries.len() <= MOST_ENTRIES {
        return;
    }
    entries.sort_by(|one, other| {
        other
            .connections
            .cmp(&one.connections)
            .then_with(|| one.place.cmp(&other.place))
    });
    let left_out = entries.split_off(MOST_ENTRIES);
    not_opened.push(format!(
        "{} destinations more were reached, fewer times than the {MOST_ENTRIES} that are opened: a policy that anyone looks \
         through has no room for them",
        left_out.len()
    ));
}

/// An entry in the making.
struct Entry {
    /// As `--allow` takes it.
    text: String,
    place: Place,
    /// What is said beside it, and above it.
    beside: String,
    marks: Vec<String>,
    connections: u64,
    /// A destination that it opens, if it does not open many.
    opens: Option<String>,
}

/// Where an entry stands among the others: names by their domain and then by their labels from the right, then addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Name { domain: String, labels: Vec<String> },
    Address(IpAddr),
}

impl Place {
    /// The place of a name, or of a wildcard.
    fn of(name: &str) -> Self {
        Self::Name {
            domain: registered(name.trim_start_matches("*.")).to_owned(),
            labels: name.rsplit('.').map(str::to_owned).collect(),
        }
    }
}

impl Entry {
    fn of_name(name: &Host, ports: &Ports<'_>) -> Self {
        let (numbers, met) = apart(ports);
        let marks = marks::of_name(name.as_str(), &numbers, &met);
        let mut entry = Self::new(name.as_str(), Place::of(name.as_str()), &numbers, &met, "");
        let port = if numbers.contains(&443) {
            Some(&443)
        } else {
            numbers.first()
        };
        entry.opens = port.map(|port| format!("{name}:{port}"));
        entry.marks = marks;
        entry
    }

    fn of_address(address: IpAddr, ports: &Ports<'_>) -> Self {
        let (numbers, met) = apart(ports);
        let host = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let mut entry = Self::new(&host, Place::Address(address), &numbers, &met, "");
        entry.opens = numbers.first().map(|port| format!("{host}:{port}"));
        entry.marks = marks::of_address(&numbers, &met);
        entry
    }

    fn of_siblings(parent: &str, names: &[&str], ports: &[u16], met: &[&Met]) -> Self {
        let text = format!("*.{parent}");
        let mut entry = Self::new(
            &text,
            Place::of(&text),
            ports,
            met,
            &format!(" to {} names", names.len()),
        );
        entry.marks = marks::of_wildcard(parent, names, ports, met);
        entry
    }

    fn new(host: &str, place: Place, ports: &[u16], met: &[&Met], to: &str) -> Self {
        let listed: Vec<_> = ports.iter().map(u16::to_string).collect();
        let text = match ports {
            [80, 443] => host.to_owned(),
            _ => format!("{host}:{}", listed.join(",")),
        };
        let connections = met.iter().map(|met| met.reached).sum();
        let noun = if connections == 1 {
            "connection"
        } else {
            "connections"
        };
        let by = by(met.iter().map(|met| &met.programs));
        Self {
            text,
            place,
            beside: format!("{connections} {noun}{to}{by}"),
            marks: Vec::new(),
            connections,
            opens: None,
        }
    }

    fn addition(&self) -> Addition {
        let marks = format!("LOOK: {}", self.marks.join("; "));
        let mut lines = match self.marks.is_empty() {
            true => Vec::new(),
            false => write::folded(&marks, COMMENT_WIDTH),
        };
        lines.push(self.beside.clone());
        Addition {
            list: List::Allow,
            entry: self.text.clone(),
            comment: Some(lines.join("\n")),
        }
    }
}

fn apart<'a>(ports: &Ports<'a>) -> (Vec<u16>, Vec<&'a Met>) {
    ports.iter().map(|(port, met)| (*port, *met)).unzip()
}

/// Which programs asked, as the end of a sentence.
fn by<'a>(programs: impl Iterator<Item = &'a Programs>) -> String {
    let programs: Vec<&Programs> = programs.collect();
    let kept = programs.iter().flat_map(|programs| &programs.kept);
    let named: BTreeSet<&str> = kept.map(|program| program.executable.as_str()).collect();
    let mut words: Vec<String> = named
        .iter()
        .take(MOST_NAMED)
        .map(|path| shortened(path))
        .collect();
    let others = programs
        .iter()
        .any(|programs| programs.others || programs.unknown);
    match words.is_empty() {
        true => String::new(),
        false => {
            if named.len() > MOST_NAMED || others {
                words.push("others".to_owned());
            }
            format!(" by {}", words.join(", "))
        }
    }
}

/// What was allowed and is not opened by any entry.
fn not_opened(lesson: &Lesson) -> Vec<String> {
    let mut lines = Vec::new();
    let mut more = 0;
    for (to, met) in lesson
        .destinations
        .iter()
        .filter(|(_, met)| !met.is_to_be_opened())
    {
        let times = times(met.reached + met.failed);
        let by = by(std::iter::once(&met.programs));
        let why = match &met.opened_by {
            Some(rule) => {
                format!("it is not public; {rule} opened it, which has to be given again")
            }
            None if met.reached > 0 => {
                "each time what was said there was not what may be".to_owned()
            }
            None => met.failure.clone(),
        };
        match lines.len() < MOST_TOLD {
            true => lines.push(format!(
                "{to} was allowed {times}{by}, and is not opened: {why}"
            )),
            false => more += 1,
        }
    }
    if more > 0 {
        lines.push(format!(
            "{more} more destinations were allowed, and are not opened"
        ));
    }
    if lesson.beyond > 0 {
        lines.push(format!(
            "{} attempts more are not told apart: there were too many",
            lesson.beyond
        ));
    }
    lines
}

/// What was refused, reason by reason, those with the most attempts first. However much is refused for one reason, it hides
/// nothing that was refused for another.
fn refused(lesson: &Lesson) -> Vec<String> {
    let mut reasons: BTreeMap<&str, Vec<(&String, &Refusals)>> = BTreeMap::new();
    for (to, refusals) in &lesson.refused {
        reasons
            .entry(&refusals.why)
            .or_default()
            .push((to, refusals));
    }
    let mut lines = Vec::new();
    for (why, mut all) in reasons {
        all.sort_by_key(|(to, refusals)| (Reverse(refusals.count), *to));
        let told = all.iter().take(MOST_OF_A_REASON);
        lines.extend(told.map(|(to, refusals)| one_refused(to, refusals)));
        if let more @ 1.. = all.len().saturating_sub(MOST_OF_A_REASON) {
            lines.push(format!(
                "{more} more destinations were refused likewise: {why}"
            ));
        }
    }
    if lesson.malformed > 0 {
        let times = times(lesson.malformed);
        lines.push(format!(
            "what was asked for {times} was no destination, or could be read in more than one way"
        ));
    }
    lines
}

fn one_refused(to: &str, refusals: &Refusals) -> String {
    let by = by(std::iter::once(&refusals.programs));
    let how = match &refusals.hint {
        Some(flag) if flag.starts_with("--") && !flag.contains(", ") => format!("{flag} opens it"),
        Some(change) => format!("to open it, {change}"),
        None => "nothing opens it".to_owned(),
    };
    format!(
        "{to} was refused {}{by}: {}; {how}",
        times(refusals.count),
        refusals.why
    )
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// Some of what the entries open, and something that they do not.
fn proof(entries: &[Entry]) -> Vec<(bool, String)> {
    let opened = entries.iter().filter_map(|entry| entry.opens.clone());
    let mut proof: Vec<_> = opened.take(MOST_PROOF).map(|to| (true, to)).collect();
    let domains = entries.iter().filter_map(|entry| match &entry.place {
        Place::Name { domain, .. } => Some(domain),
        Place::Address(_) => None,
    });
    let domain = domains.into_iter().find(|domain| domain.contains('.'));
    proof.extend(domain.map(|domain| (false, format!("something-else.{domain}"))));
    for shut in ["host.docker.internal", "169.254.169.254:80", "10.0.0.1"] {
        proof.push((false, shut.to_owned()));
    }
    proof
}
