//! The tests that a policy carries: what it is to allow and to deny, run by the functions that decide.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use crate::addr::HostAddresses;
use crate::destination::Destination;
use crate::explain::{Explanation, Question, Verdict};
use crate::matcher::Matcher;
use crate::policy::{HostGatewayPorts, Policy};
use crate::program::{Asker, Program};
use crate::rule::RuleId;

/// An item of `tests:`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) rule: RuleId,
    pub(crate) expected: Expected,
    /// The destination as it was written.
    pub(crate) text: Box<str>,
    pub(crate) to: Destination,
    pub(crate) by: Option<Program>,
    /// A method and a target.
    pub(crate) request: Option<(Box<str>, Box<str>)>,
    pub(crate) resolves_to: Option<Vec<IpAddr>>,
}

/// What a test expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expected {
    Allow,
    Deny,
}

/// A test that was run. Its serialised form is part of Egret's public interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tested {
    /// Where the test stands.
    pub rule: RuleId,
    /// The destination, as it was written.
    pub destination: String,
    expected: Expected,
    /// Whether the policy decides as expected.
    pub passed: bool,
    /// How it decides.
    pub explanation: Explanation,
}

impl Tested {
    /// What the test expects: `allow` or `deny`.
    pub fn expected(&self) -> &'static str {
        match self.expected {
            Expected::Allow => "allow",
            Expected::Deny => "deny",
        }
    }
}

impl Case {
    pub(crate) fn new(rule: RuleId, expected: Expected, text: &str, to: Destination) -> Self {
        Self {
            rule,
            expected,
            text: text.into(),
            to,
            by: None,
            request: None,
            resolves_to: None,
        }
    }

    /// What comes out for `to`, which is the test's destination or that on another port.
    fn run(&self, matcher: &Matcher, to: &Destination, hosts: &HostAddresses) -> Explanation {
        let request = self.request.as_ref();
        matcher.explain(&Question {
            to,
            by: self.by.as_ref(),
            request: request.map(|(method, target)| (&**method, &**target)),
            resolves_to: self.resolves_to.as_deref(),
            hosts,
        })
    }
}

/// Ports on which a destination may be reachable where a test says that it is not.
pub(crate) struct Elsewhere<'a> {
    matcher: &'a Matcher,
    ports: Vec<u16>,
    hosts: HostAddresses,
}

/// Ports that are tried for a test without one.
const MOST_PORTS: usize = 64;

impl<'a> Elsewhere<'a> {
    /// The lowest ports that `policy`, which `matcher` is compiled from, opens.
    pub(crate) fn new(policy: &Policy, matcher: &'a Matcher) -> Self {
        let listed = policy.allow.iter().flat_map(|entry| entry.ports.as_slice());
        let gateway = policy
            .host_gateway
            .iter()
            .flat_map(HostGatewayPorts::listed_ports);
        let ports: BTreeSet<u16> = listed.chain(gateway).copied().collect();
        Self {
            matcher,
            ports: ports
                .into_iter()
                .filter(|&port| port != 0)
                .take(MOST_PORTS)
                .collect(),
            hosts: HostAddresses::new([]),
        }
    }

    /// A port on which a destination can be reached, where a test says that it cannot and names no port: 443 is what is
    /// tested then, which is less than a reader may think.
    pub(crate) fn reached(&self, case: &Case) -> Option<u16> {
        let port = Destination::from_authority(&case.text, None);
        if case.expected == Expected::Allow || port.is_ok() || case.text.contains("://") {
            return None;
        }
        self.ports.iter().copied().find(|&port| {
            let to = Destination::new(case.to.target().clone(), port);
            to.is_ok_and(|to| {
                self.may_be_reached(case, &to)
                    && case.run(self.matcher, &to, &self.hosts).verdict != Verdict::Deny
            })
        })
    }

    /// Whether there is any use in asking in earnest, which takes time for each program that the policy names.
    fn may_be_reached(&self, case: &Case, to: &Destination) -> bool {
        let asker = case.by.as_ref().map_or(Asker::Anyone, Asker::Program);
        let decision = self
            .matcher
            .decide_seen(to, asker, &self.hosts, &mut |_, _, _| {});
        decision.is_ok_and(|permit| {
            let mut request = case.request.iter();
            request.all(|(method, target)| permit.request(method, target).is_ok())
        })
    }
}

impl Policy {
    /// Says what the programs of tests are known by: what `end` has for the path of a link.
    pub fn follow_tested(&mut self, end: impl Fn(&str) -> Option<String>) {
        for program in self.tests.iter_mut().filter_map(|case| case.by.as_mut()) {
            let paths = std::iter::once(&mut program.executable).chain(&mut program.ancestors);
            for path in paths {
                if let Some(end) = end(path) {
                    *path = end;
                }
            }
        }
    }

    /// Runs the tests that the policy carries, in the order of the file.
    ///
    /// What a test leaves open is taken as it would have to be for the destination to be reached: some program, some
    /// request, public addresses. So `allow` means that it can be reached, `deny` that it cannot.
    pub fn run_tests(&self) -> Vec<Tested> {
        let matcher = self.compile();
        let hosts = HostAddresses::new([]);
        let run = |case: &Case| {
            let explanation = case.run(&matcher, &case.to, &hosts);
            let passed = match case.expected {
                Expected::Allow => explanation.verdict != Verdict::Deny,
                Expected::Deny => explanation.verdict == Verdict::Deny,
            };
            Tested {
                rule: case.rule.clone(),
                destination: case.text.to_string(),
                expected: case.expected,
                passed,
                explanation,
            }
        };
        self.tests.iter().map(run).collect()
    }
}
