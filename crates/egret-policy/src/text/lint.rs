//! Warnings: what is valid in a policy and probably not meant.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::matcher::Grant;
use crate::matcher::nets::NetTable;
use crate::matcher::patterns::{Found, NameTable};
use crate::pattern::Lead;
use crate::policy::{Default, Entry, Policy, What};
use crate::report::{Report, Span};
use crate::suffix::{Suffix, public_suffix};
use crate::text::native::Spans;

/// Looks at a policy without errors.
pub(crate) fn lint(policy: &Policy, spans: &Spans, report: &mut Report<'_>) {
    if let (Default::AllowPublic, Some(span)) = (policy.default, spans.default) {
        let help = "with `deny`, only what `allow` names can be reached".to_owned();
        let message =
            "every public destination can be reached, and data can be sent to any of them";
        report.warning(span, message, "allows what no entry speaks of", Some(help));
    }
    if let Some(span) = spans.tests {
        report.warning(
            span,
            "this version checks the form of `tests` and does not run them",
            "",
            None,
        );
    }
    for (entry, &span) in policy.deny.iter().zip(&spans.deny) {
        deny_entry(entry, span, report);
    }
    for (entry, &span) in policy.allow.iter().zip(&spans.allow) {
        open_suffix(entry, span, report);
    }
    duplicates(&policy.allow, &spans.allow, report);
    duplicates(&policy.deny, &spans.deny, report);
    shadowed(policy, spans, report);
}

fn deny_entry(entry: &Entry, span: Span, report: &mut Report<'_>) {
    let What::Name(pattern) = &entry.what else {
        return;
    };
    if pattern.shape().lead == Lead::One {
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
                .is_some_and(|earlier| earlier.addresses == entry.addresses);
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
    for (index, entry) in (0..).zip(&policy.deny) {
        match &entry.what {
            What::Name(pattern) => names.insert(pattern, entry.ports.as_slice(), &[], index),
            What::Net(net) => nets.insert(*net, entry.ports.as_slice(), index),
        }
    }
    let covering = |what: &What, port: u16| match what {
        What::Name(pattern) => names.covering(pattern, port),
        What::Net(net) => match nets.find_covering(net, port) {
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
