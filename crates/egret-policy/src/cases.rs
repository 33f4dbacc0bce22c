//! The tests that a policy carries: what it is to allow and to deny, run by the functions that decide.

use std::net::IpAddr;

use serde::Serialize;

use crate::addr::HostAddresses;
use crate::destination::Destination;
use crate::explain::{Explanation, Question, Verdict};
use crate::policy::Policy;
use crate::program::Program;
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
}

impl Policy {
    /// Runs the tests that the policy carries, in the order of the file.
    ///
    /// What a test leaves open is taken as it would have to be for the destination to be reached: some program, some
    /// request, public addresses. So `allow` means that it can be reached, `deny` that it cannot.
    pub fn run_tests(&self) -> Vec<Tested> {
        let matcher = self.compile();
        let hosts = HostAddresses::new([]);
        let run = |case: &Case| {
            let request = case.request.as_ref();
            let explanation = matcher.explain(&Question {
                to: &case.to,
                by: case.by.as_ref(),
                request: request.map(|(method, target)| (&**method, &**target)),
                resolves_to: case.resolves_to.as_deref(),
                hosts: &hosts,
            });
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
