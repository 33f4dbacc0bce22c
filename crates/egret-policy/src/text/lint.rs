//! Warnings: what is valid in a policy and probably not meant.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::matcher::nets::NetTable;
use crate::matcher::patterns::NameTable;
use crate::matcher::{Found, Grant};
use crate::pattern::Lead;
use crate::policy::{Default, Entry, Policy, What};
use crate::report::{Report, Span};
use crate::suffix::{Suffix, public_suffix};
use crate::text::native::Spans;

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
        open_suffix(entry, span, report);
    }
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
    duplicates(&policy.allow, &spans.allow, report);
    duplicates(&policy.deny, &spans.deny, report);
    shadowed(policy, spans, report);
}

/// Warns of tests that say that something cannot be reached, and look at the wrong port.
fn tests_of_one_port(policy: &Policy, spans: &Spans, report: &mut Report<'_>) {
    if policy.tests.is_empty() {
        return;
    }
    let matcher = policy.compile();
    for (case, &span) in policy.tests.iter().zip(&spans.tests) {
        if let Some(port) = policy.reached_elsewhere(case, &matcher) {
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

fn open_suffix(entry: &Entry, span: Span, report: &mut Report<'_>) {
    let What::Name(pattern) = &entry.what else {
        return;
    };
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

/// Warns of entries that say what earlier ones of the same list said.
fn duplicates(entries: &[Entry], spans: &[Span], report: &mut Report<'_>) {
    #[derive(PartialEq, Eq, Hash)]
    enum Key<'a> {
        Name(&'a str),
        Net(IpNet),
    }
    let mut seen: HashMap<(Key<'_>, u16), usize> = HashMap::with_capacity(entries.len());
    for (index, (entry, &span)) in entries.iter().zip(spans).enumerate() {
        let mut first = None;
        let mut all = true;
        for &port in entry.ports.as_slice() {
            let key = match &entry.what {
                What::Name(pattern) => Key::Name(pattern.as_str()),
                What::Net(net) => Key::Net(*net),
            };
            let earlier = *seen.entry((key, port)).or_insert(index);
            let same = entries
                .get(earlier)
                .is_some_and(|earlier| earlier.grants_the_same_as(entry));
            match earlier != index && same {
                true => first = first.or(Some(earlier)),
                false => all = false,
            }
        }
        if let (true, Some(earlier)) = (all, first.and_then(|first| spans.get(first))) {
            let label = format!("line {} says this already", earlier.line);
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
    let mut names = NameTable::default();
    let mut nets = NetTable::default();
    // A deny entry for some programs or requests leaves the others.
    let whole = |(_, entry): &(u32, &Entry)| entry.programs.are_all() && entry.requests.are_all();
    for (index, entry) in (0..).zip(&policy.deny).filter(whole) {
        let ports = entry.ports.as_slice();
        match &entry.what {
            What::Name(pattern) => names.insert(pattern, ports, index, |_, _| true),
            What::Net(net) => nets.insert(*net, ports, index, |_, _| true),
        }
    }
    let covering = |what: &What, port: u16| match what {
        What::Name(pattern) => names.covering(pattern, port),
        What::Net(net) => match nets.find_covering(net, port, |_| true) {
            Found::Entry(Grant { entry, .. }) => Some(entry),
            _ => None,
        },
    };
    for (entry, &span) in policy.allow.iter().zip(&spans.allow) {
        let mut by = None;
        let all = entry.ports.as_slice().iter().all(|&port| {
            by = by.or(covering(&entry.what, port));
            covering(&entry.what, port).is_some()
        });
        let deny = by.and_then(|by| policy.deny.get(by as usize));
        if let (true, Some(deny)) = (all, deny) {
            let label = format!("denied by line {}", deny.rule.line());
            let help = "a deny always wins: remove one of the two".to_owned();
            report.warning(span, "this entry allows nothing", label, Some(help));
        }
    }
}
