//! Endpoints that mean the same destination.
//!
//! - **Requests:** OpenShell adds up the rules of all of them, and one that does not look at requests adds nothing to
//!   those that do. In Egret the most specific pattern applies, and an entry that does not look at requests takes all of
//!   them. Where that would open more, the plain endpoint gives way.
//! - **Addresses:** OpenShell takes no policy in which they differ in `allowed_ips` (`openshell-policy`, `ambiguity`);
//!   where it does not check, one of the lists holds for all of them. In Egret they would add up.
//! - **Ports of control planes:** refused to every program for which the host is written out or listed, even where a
//!   wildcard opens them.

use super::endpoint::Endpoint;
use crate::pattern::{Lead, Pattern};
use crate::policy::What;
use crate::text::foreign::Draft;

/// Leaves out what endpoints would open past the rules, addresses and shut ports of others, and notes what is narrower.
pub(super) fn settle(endpoints: &mut [Endpoint], draft: &mut Draft<'_, '_>) {
    refuse_different_addresses(endpoints, draft);
    keep_shut(endpoints);
    give_way(endpoints, draft);
}

fn refuse_different_addresses(endpoints: &[Endpoint], draft: &mut Draft<'_, '_>) {
    for (at, one) in endpoints.iter().enumerate() {
        if draft.report.is_full() {
            return;
        }
        let mut before = endpoints.iter().take(at);
        let differs = before.find(|other| {
            other.listed != one.listed
                && one.all_ports().any(|port| other.names_port(port))
                && may_share_a_destination(one, other)
        });
        if let Some(other) = differs {
            let place = draft.report.place(other.span, one.span);
            let message = format!(
                "this endpoint and the one in {place} are for the same host and port, and differ in `allowed_ips`"
            );
            let label = "OpenShell refuses such a policy, too";
            let help = "give both the same list, or different ports".to_owned();
            draft.report.error(one.span, message, label, Some(help));
        }
    }
}

/// Denies shut ports of names that the pattern of another endpoint opens.
fn keep_shut(endpoints: &mut [Endpoint]) {
    for at in 0..endpoints.len() {
        let Some(one) = endpoints.get(at) else {
            continue;
        };
        let opened = |port: &&u16| {
            let mut others = endpoints.iter();
            others.any(|other| {
                other.ports.binary_search(port).is_ok() && closer(one, other).is_some()
            })
        };
        let denied = one.shut.iter().filter(opened).copied().collect();
        if let Some(one) = endpoints.get_mut(at) {
            one.denied = denied;
        }
    }
}

impl Endpoint {
    fn all_ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().chain(&self.shut).copied()
    }

    fn names_port(&self, port: u16) -> bool {
        self.ports.binary_search(&port).is_ok() || self.shut.binary_search(&port).is_ok()
    }
}

/// As OpenShell sees it, to which an endpoint without a host is for all of them.
fn may_share_a_destination(one: &Endpoint, other: &Endpoint) -> bool {
    one.of_any_host || other.of_any_host || closer(one, other).is_some()
}

fn give_way(endpoints: &mut [Endpoint], draft: &mut Draft<'_, '_>) {
    let ruled: Vec<_> = endpoints
        .iter()
        .enumerate()
        .filter(|(_, one)| one.requests.is_some())
        .map(|(at, _)| at)
        .collect();
    for at in 0..endpoints.len() {
        for &other in &ruled {
            let (Some(one), Some(ruling)) = (endpoints.get(at), endpoints.get(other)) else {
                continue;
            };
            let shared = |port: &u16| ruling.ports.binary_search(port).is_ok();
            if at == other || !one.ports.iter().any(shared) {
                continue;
            }
            let Some(closer) = closer(one, ruling) else {
                continue;
            };
            // What has rules and no `protocol` is plain to OpenShell.
            if one.requests.is_some() && (one.is_inspected || !ruling.is_inspected) {
                if closer != Closer::Neither {
                    draft.note(
                        "where host patterns overlap, the rules of the most specific one apply alone; OpenShell adds them up",
                    );
                }
                continue;
            }
            if closer == Closer::Second {
                continue;
            }
            let (line, ruling_line) = (one.span.line, ruling.span.line);
            draft.note(format!(
                "the endpoint in line {line} opens nothing where the one in line {ruling_line}, which has rules, applies as well; \
                 in OpenShell it does for programs that only the former names. With `protocol` and rules of its own, it adds up"
            ));
            let left: Vec<u16> = one
                .ports
                .iter()
                .copied()
                .filter(|port| !shared(port))
                .collect();
            if let Some(one) = endpoints.get_mut(at) {
                one.ports = left;
            }
        }
    }
}

/// Which of two that overlap applies in Egret, because it is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closer {
    First,
    Second,
    Neither,
}

/// Nothing if no destination is meant by both.
fn closer(one: &Endpoint, other: &Endpoint) -> Option<Closer> {
    let pairs = one
        .whats
        .iter()
        .flat_map(|one| other.whats.iter().map(move |other| (one, other)));
    let found = pairs.filter_map(|(one, other)| match (one, other) {
        (What::Name(one), What::Name(other)) if may_share_a_name(one, other) => {
            let (first, second) = (one.shape().specificity(), other.shape().specificity());
            Some(match () {
                () if first < second => Closer::First,
                () if first > second => Closer::Second,
                () => Closer::Neither,
            })
        }
        (What::Net(one), What::Net(other)) if one.contains(other) || other.contains(one) => {
            Some(match one.prefix_len().cmp(&other.prefix_len()) {
                std::cmp::Ordering::Greater => Closer::First,
                std::cmp::Ordering::Less => Closer::Second,
                std::cmp::Ordering::Equal => Closer::Neither,
            })
        }
        _ => None,
    });
    // For several networks: whichever leaves the least open.
    found.min_by_key(|closer| *closer == Closer::Second)
}

/// Whether there may be a name that both match. Never says no where there is one.
fn may_share_a_name(one: &Pattern, other: &Pattern) -> bool {
    let (one, other) = (Form::of(one), Form::of(other));
    let mut pairs = one.labels.iter().rev().zip(other.labels.iter().rev());
    let alike = pairs.all(|(one, other)| labels_may_be_the_same(one, other));
    let fits = |fixed: &Form<'_>, open: &Form<'_>| fixed.labels.len() >= open.least;
    alike
        && match (one.open, other.open) {
            (false, false) => one.labels.len() == other.labels.len(),
            (true, false) => fits(&other, &one),
            (false, true) => fits(&one, &other),
            (true, true) => true,
        }
}

/// The labels of a pattern, and whether there may be more in front.
struct Form<'p> {
    labels: Vec<&'p str>,
    open: bool,
    /// The fewest labels of a name that matches.
    least: usize,
}

impl<'p> Form<'p> {
    fn of(pattern: &'p Pattern) -> Self {
        let (text, more) = match pattern.shape().lead {
            Lead::Label | Lead::Within { .. } | Lead::One => (pattern.as_str(), None),
            Lead::Below => (pattern.rest(), Some(1)),
            Lead::ApexAndBelow => (pattern.rest(), Some(0)),
        };
        let labels: Vec<_> = text.split('.').collect();
        Self {
            least: labels.len() + more.unwrap_or(0),
            open: more.is_some(),
            labels,
        }
    }
}

fn labels_may_be_the_same(one: &str, other: &str) -> bool {
    match (one.contains('*'), other.contains('*')) {
        (false, false) => one == other,
        (true, true) => true,
        (true, false) => glob_matches(one, other),
        (false, true) => glob_matches(other, one),
    }
}

fn glob_matches(glob: &str, label: &str) -> bool {
    let (front, back) = glob.split_once('*').unwrap_or((glob, ""));
    label.len() >= front.len() + back.len() && label.starts_with(front) && label.ends_with(back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_where_a_name_matches_both() {
        #[rustfmt::skip]
        let table = [
            ("a.example.com",      "a.example.com",      true ),
            ("a.example.com",      "b.example.com",      false),
            ("a.example.com",      "*.example.com",      true ),
            ("a.b.example.com",    "*.example.com",      false),
            ("a.b.example.com",    "**.example.com",     true ),
            ("example.com",        "**.example.com",     false),
            ("**.a.example.com",   "**.example.com",     true ),
            ("**.a.example.com",   "**.b.example.com",   false),
            ("api-*.example.com",  "api-x.example.com",  true ),
            ("api-*.example.com",  "web-x.example.com",  false),
            ("api-*.example.com",  "*.example.com",      true ),
            ("*.s3.*.example.com", "b.s3.eu.example.com", true ),
            ("*.s3.*.example.com", "b.s4.eu.example.com", false),
            ("*.s3.*.example.com", "**.eu.example.com",  true ),
        ];
        for (one, other, expected) in table {
            let (one, other) = (Pattern::parse(one).unwrap(), Pattern::parse(other).unwrap());
            assert_eq!(may_share_a_name(&one, &other), expected, "{one} {other}");
            assert_eq!(may_share_a_name(&other, &one), expected, "{other} {one}");
        }
    }
}
