//! Warnings: what is valid in a policy and probably not meant.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use ipnet::IpNet;

use crate::cases::Elsewhere;
use crate::inbound;
use crate::matcher::nets::NetTable;
use crate::matcher::patterns::NameTable;
use crate::matcher::{Found, Grant};
use crate::names::HOST_GATEWAY;
use crate::pattern::{Lead, Pattern};
use crate::policy::{Default, Entry, Policy, What};
use crate::program::Programs;
use crate::report::{Report, Span, did_you_mean};
use crate::request::{Methods, RequestRule};
use crate::suffix::{Suffix, public_suffix};
use crate::text::advice;
use crate::text::entry::Side;
use crate::text::native::Spans;
use crate::text::reader::shown;

/// Looks at a policy without errors.
pub(crate) fn lint(policy: &Policy, spans: &Spans, report: &mut Report<'_>) {
    if let (Default::AllowPublic(_), Some(span)) = (&policy.default, spans.default) {
        let help = "with `deny`, only what `allow` names can be reached".to_owned();
        let message =
            "every public destination can be reached, and data can be sent to any of them";
        report.warning(span, message, "allows what no entry speaks of", Some(help));
    }
    for (entry, &span) in policy.deny.iter().zip(&spans.deny) {
        deny_entry(entry, span, report);
    }
    for (entry, &span) in policy.allow.iter().zip(&spans.allow) {
        if let What::Name(pattern) = &entry.what {
            open_suffix(pattern, span, report);
            no_host(pattern, span, report);
        }
    }
    inbound(policy, spans, report);
    let allow = policy.allow.iter().zip(&spans.allow);
    for (entry, &span) in allow.chain(policy.deny.iter().zip(&spans.deny)) {
        if entry.needs_tls_inspection() {
            let message =
                "`http` on port 443 is not enforced yet, so `egret run` does not take this policy";
            let help =
                "with `ports: [80]` it is; without `http`, every request is allowed".to_owned();
            report.warning(
                span,
                message,
                "requests inside TLS cannot be read yet",
                Some(help),
            );
        }
    }
    tests_of_one_port(policy, spans, report);
    for (entry, &span) in policy.allow.iter().zip(&spans.allow) {
        odd(entry, span, Side::Allow, report);
    }
    for (entry, &span) in policy.deny.iter().zip(&spans.deny) {
        odd(entry, span, Side::Deny, report);
    }
    duplicates(&policy.allow, &spans.allow, report);
    duplicates(&policy.deny, &spans.deny, report);
    shadowed(policy, spans, report);
    widened(policy, spans, report);
}

/// Warns of tests that say that something cannot be reached, and look at the wrong port.
fn tests_of_one_port(policy: &Policy, spans: &Spans, report: &mut Report<'_>) {
    if policy.tests.is_empty() {
        return;
    }
    let matcher = policy.compile();
    let elsewhere = Elsewhere::new(policy, &matcher);
    for (case, &span) in policy.tests.iter().zip(&spans.tests) {
        if let Some(port) = elsewhere.reached(case) {
            let message = format!("this test is about port 443, and port {port} is open");
            let help = format!("write `{}:{port}` to test that", case.text);
            report.warning(span, message, "", Some(help));
        }
    }
}

fn deny_entry(entry: &Entry, span: Span, report: &mut Report<'_>) {
    let What::Name(pattern) = &entry.what else {
        return;
    };
    // Where it refuses some requests, it goes with an allow entry for the same names.
    if pattern.shape().lead == Lead::One && entry.requests.are_all() {
        let help = format!("write `**.{}` for names at any depth", pattern.rest());
        report.warning(
            span,
            "this denies names with exactly one label in front",
            "",
            Some(help),
        );
    }
}

fn open_suffix(pattern: &Pattern, span: Span, report: &mut Report<'_>) {
    if pattern.is_exact() {
        return;
    }
    let base = pattern.base();
    match public_suffix(base) {
        Some(Suffix::Private) => {
            let message = format!("anyone can get a name under `{base}`");
            let help = "name the hosts that are meant".to_owned();
            report.warning(span, message, "allows names of strangers", Some(help));
        }
        None if !base.contains('.') => {
            let message = format!("this allows every name under `{base}`");
            report.warning(span, message, "fine if that is a network of your own", None);
        }
        Some(Suffix::Icann) | None => {}
    }
}

/// Warns of a pattern that would mean the host if patterns could.
fn no_host(pattern: &Pattern, span: Span, report: &mut Report<'_>) {
    let parent = |name: &str| {
        name.split_once('.')
            .map(|(_, parent)| parent == pattern.base())
    };
    if !pattern.is_exact() && HOST_GATEWAY.iter().any(|name| parent(name) == Some(true)) {
        let message = "no pattern opens the host that runs the sandbox";
        let help = "write its name out, such as `host.docker.internal:5432`, or use `host_gateway`";
        report.warning(span, message, "", Some(help.to_owned()));
    }
}

/// Warns of hosts of published ports that are there twice, and of patterns that strangers can get a name under.
fn inbound(policy: &Policy, spans: &Spans, report: &mut Report<'_>) {
    let mut seen: HashMap<String, Span> = HashMap::new();
    for (host, &span) in policy.inbound.iter().zip(&spans.inbound) {
        if let inbound::Named::Name(pattern) = host.named() {
            open_suffix(pattern, span, report);
        }
        match seen.entry(host.to_string()) {
            Slot::Vacant(slot) => drop(slot.insert(span)),
            Slot::Occupied(slot) => {
                let label = format!("{} says this already", report.place(*slot.get(), span));
                let help = "remove one of the two".to_owned();
                report.warning(span, "a duplicate host", label, Some(help));
            }
        }
    }
}

/// Warns of texts that mean themselves here, where they usually stand for something else.
fn odd(entry: &Entry, span: Span, side: Side, report: &mut Report<'_>) {
    let written = report.source().get(span.range()).unwrap_or_default();
    let written = written.trim_matches(['"', '\'']);
    match &entry.what {
        What::Name(pattern) if pattern.is_exact() && !pattern.as_str().contains('.') => {
            let name = pattern.as_str();
            if let Some(help) = advice::hosts(name, side == Side::Allow) {
                let message = format!("this is a host that is called `{name}`");
                report.warning(span, message, "", Some(help));
            }
        }
        What::Net(_) => {
            if let Some(help) = advice::port_in_brackets(written) {
                let message = format!("`{written}` is one address, without a port");
                report.warning(span, message, "", Some(help));
            }
        }
        What::Name(_) => {}
    }
    for program in entry.programs.iter() {
        let path = program.path.as_str();
        if let Some((front, _)) = path.split_once(' ') {
            let message = format!("`{}` is one path, with a blank in it", shown(path));
            let help = format!(
                "arguments are not looked at: for the program alone write `{}`",
                shown(front)
            );
            report.warning(span, message, "", Some(help));
        }
    }
    for rule in entry.requests.iter() {
        odd_request(rule, span, report);
    }
}

fn odd_request(rule: &RequestRule, span: Span, report: &mut Report<'_>) {
    if let Methods::Listed(methods) = &rule.methods {
        for method in methods
            .iter()
            .filter(|method| !METHODS.contains(&&***method))
        {
            let help = match &**method {
                "ANY" | "ALL" => Some("`*` stands for every method".to_owned()),
                method => did_you_mean(method, METHODS),
            };
            let message = format!("`{method}` is not a method that is known");
            report.warning(span, message, "", help);
        }
    }
    let variable = |segment: &&str| {
        segment.starts_with([':', '$']) && segment.len() > 1
            || segment.starts_with('<') && segment.ends_with('>')
    };
    if let Some(segment) = rule.path.as_str().split('/').find(variable) {
        let message = format!(
            "`{}` in a path means exactly these characters",
            shown(segment)
        );
        let help = "for a part that varies write `*`".to_owned();
        report.warning(span, message, "", Some(help));
    }
}

/// The methods of IANA's registry, and two that caches and key stores have.
const METHODS: &[&str] = &[
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LIST",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// What an entry names, and one of its ports.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a>(Named<'a>, u16);

#[derive(PartialEq, Eq, Hash)]
enum Named<'a> {
    Name(&'a str),
    Net(IpNet),
}

impl<'a> Key<'a> {
    fn new(entry: &'a Entry, port: u16) -> Self {
        let named = match &entry.what {
            What::Name(pattern) => Named::Name(pattern.as_str()),
            What::Net(net) => Named::Net(*net),
        };
        Self(named, port)
    }
}

/// Warns of entries that say what earlier ones of the same list said.
fn duplicates(entries: &[Entry], spans: &[Span], report: &mut Report<'_>) {
    let mut seen: HashMap<Key<'_>, usize> = HashMap::with_capacity(entries.len());
    for (index, (entry, &span)) in entries.iter().zip(spans).enumerate() {
        let mut first = None;
        let mut all = true;
        for &port in entry.ports.as_slice() {
            let earlier = *seen.entry(Key::new(entry, port)).or_insert(index);
            let same = entries
                .get(earlier)
                .is_some_and(|earlier| earlier.grants_the_same_as(entry));
            match earlier != index && same {
                true => first = first.or(Some(earlier)),
                false => all = false,
            }
        }
        if let (true, Some(&earlier)) = (all, first.and_then(|first| spans.get(first))) {
            let label = format!("{} says this already", report.place(earlier, span));
            report.warning(
                span,
                "a duplicate entry",
                label,
                Some("remove one of the two".to_owned()),
            );
        }
    }
}

/// Warns of allow entries that a deny entry leaves nothing of.
fn shadowed(policy: &Policy, spans: &Spans, report: &mut Report<'_>) {
    if policy.deny.is_empty() {
        return;
    }
    // A deny entry for some programs or requests leaves the others.
    let denied = Covers::new(&policy.deny);
    for (entry, &span) in policy.allow.iter().zip(&spans.allow) {
        let mut by = None;
        let all = entry.ports.as_slice().iter().all(|&port| {
            let found = denied.covering(&entry.what, port);
            by = by.or(found);
            found.is_some()
        });
        let deny = by.and_then(|by| spans.deny.get(by));
        if let (true, Some(&deny)) = (all, deny) {
            let label = format!("denied by {}", report.place(deny, span));
            let help = "a deny always wins: remove one of the two".to_owned();
            report.warning(span, "this entry allows nothing", label, Some(help));
        }
    }
}

/// Warns of allow entries for some programs or requests, where another one lets the others through.
fn widened(policy: &Policy, spans: &Spans, report: &mut Report<'_>) {
    let narrow = |entry: &&Entry| !(entry.programs.are_all() && entry.requests.are_all());
    if !policy.allow.iter().any(|entry| narrow(&entry)) {
        return;
    }
    let open = Covers::new(&policy.allow);
    // The entries without `http`, by what they name and for which programs.
    let mut every_request: HashMap<(Key<'_>, &Programs), usize> = HashMap::new();
    for (index, entry) in policy.allow.iter().enumerate() {
        for &port in entry
            .ports
            .as_slice()
            .iter()
            .filter(|_| entry.requests.are_all())
        {
            let key = (Key::new(entry, port), &entry.programs);
            every_request.entry(key).or_insert(index);
        }
    }
    let entries = policy.allow.iter().zip(&spans.allow);
    for (entry, &span) in entries.filter(|(entry, _)| narrow(entry)) {
        let ports = entry.ports.as_slice();
        let covering = ports
            .iter()
            .find_map(|&port| open.covering(&entry.what, port));
        let same = ports.iter().flat_map(|&port| [port, 0]).find_map(|port| {
            every_request
                .get(&(Key::new(entry, port), &entry.programs))
                .copied()
        });
        let by = match entry.programs.iter().all(|program| program.descendants) {
            true => "`under`",
            false => "`by`",
        };
        let at = |index: usize| policy.allow.get(index).zip(spans.allow.get(index));
        let (message, place) = match (covering.and_then(at), same.and_then(at)) {
            (Some((other, &place)), _) if other.what == entry.what => {
                let what = match (entry.programs.are_all(), entry.requests.are_all()) {
                    (true, _) => "the `http` of this entry restricts nothing".to_owned(),
                    (_, true) => format!("the {by} of this entry restricts nothing"),
                    _ => format!("the {by} and `http` of this entry restrict nothing"),
                };
                (what, place)
            }
            (_, Some((_, &place))) if !entry.requests.are_all() => (
                "the `http` of this entry restricts nothing".to_owned(),
                place,
            ),
            (Some((_, &place)), _)
                if !entry.programs.are_all() && !entry.what.is_host_gateway() =>
            {
                (
                    format!("the {by} of this entry keeps no other program out"),
                    place,
                )
            }
            _ => continue,
        };
        let label = format!("because of {}", report.place(place, span));
        let help = "entries add up: remove or narrow the other one".to_owned();
        report.warning(span, message, label, Some(help));
    }
}

/// The entries for every program and every request, to be asked which of them names all that another one names.
struct Covers {
    names: NameTable,
    nets: NetTable,
}

impl Covers {
    fn new(entries: &[Entry]) -> Self {
        let mut covers = Self {
            names: NameTable::default(),
            nets: NetTable::default(),
        };
        let whole =
            |(_, entry): &(u32, &Entry)| entry.programs.are_all() && entry.requests.are_all();
        for (index, entry) in (0..).zip(entries).filter(whole) {
            let ports = entry.ports.as_slice();
            match &entry.what {
                What::Name(pattern) => covers.names.insert(pattern, ports, index, |_, _| true),
                What::Net(net) => covers.nets.insert(*net, ports, index, |_, _| true),
            }
        }
        covers
    }

    fn covering(&self, what: &What, port: u16) -> Option<usize> {
        let found = match what {
            What::Name(pattern) => self.names.covering(pattern, port),
            What::Net(net) => match self.nets.find_covering(net, port, |_| true) {
                Found::Entry(Grant { entry, .. }) => Some(entry),
                _ => None,
            },
        };
        found.and_then(|entry| usize::try_from(entry).ok())
    }
}
