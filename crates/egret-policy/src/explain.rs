//! Why a decision comes out as it does, step by step.
//!
//! An explanation is made by the very functions that decide, which show their steps on the way: it cannot say
//! anything else than the gateway would.

use std::net::IpAddr;

use serde::Serialize;

use crate::addr::{Class, HostAddresses};
use crate::denial::{Denial, Hint};
use crate::destination::{Destination, Malformed, Target};
use crate::matcher::{MOST_PROGRAMS, Matcher, Outcome, Step};
use crate::permit::{Lookup, Permit};
use crate::program::{Asker, OTHER_PROGRAM, Program};
use crate::reason::Reason;
use crate::rule::RuleId;

/// The whole chain of a decision. Its serialised form is part of Egret's public interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What comes out.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The entry that decided, if one did.
    pub rule: Option<RuleId>,
    /// That entry's `reason:`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What was looked at, in order, up to the step that decided.
    pub steps: Vec<ExplainedStep>,
    /// The smallest change that would allow it.
    pub hint: Option<Hint>,
    /// What was decided on, as it was understood.
    pub destination: ExplainedDestination,
}

/// What comes out of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may be connected to, if what the steps call unknown holds.
    Allow,
    /// The same, and then every request is decided on.
    Inspect,
    /// It is refused.
    Deny,
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedStep {
    /// Which step: `destination`, `special_name`, `address_class`, `deny`, `project`, `host_gateway`, `allow`, `default`,
    /// `executable`, `resolve`, `spoken` or `request`.
    pub step: &'static str,
    /// `pass` (it had nothing to say), `allow`, `deny`, or `unknown` (it can only be told when connecting).
    pub outcome: &'static str,
    /// The same in words.
    pub detail: String,
    /// The entry that spoke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    /// The addresses that were judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<JudgedAddress>,
}

/// An address and what kind of place it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct JudgedAddress {
    /// The address.
    pub address: IpAddr,
    /// Its class.
    pub class: Class,
}

/// A destination as it was understood: a host or an address, and a port; nothing of it where it is malformed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedDestination {
    /// The name, in its canonical spelling.
    pub host: Option<String>,
    /// The address, as `connect` would understand it.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: Option<u16>,
}

impl Explanation {
    /// The explanation for what is no destination.
    pub fn of_malformed(malformed: &Malformed) -> Self {
        Self {
            verdict: Verdict::Deny,
            reason: Reason::DeniedMalformed,
            rule: None,
            note: None,
            steps: vec![step("destination", "deny", malformed.to_string(), None)],
            hint: None,
            destination: ExplainedDestination {
                host: None,
                address: None,
                port: None,
            },
        }
    }
}

/// What is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The destination.
    pub to: &'a Destination,
    /// The program that asks; without one, the decision is that for whichever program is allowed most.
    pub by: Option<&'a Program>,
    /// A request, as its method and its target; without one, a destination where it matters is to be inspected.
    pub request: Option<(&'a str, &'a str)>,
    /// What the name is taken to resolve to. Without it, the decision goes as far as it can and the rest is `unknown`; an
    /// address needs no resolving, and a host-gateway name stands for [`HostAddresses::gateway`] if that is known.
    pub resolves_to: Option<&'a [IpAddr]>,
    /// What counts as the host.
    pub hosts: &'a HostAddresses,
}

impl Matcher {
    /// Explains a decision. Where nobody says which program asks, some program has to be allowed for it to be allowed.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        if let Some(program) = question.by {
            return self.explain_for(question, Asker::Program(program));
        }
        let explained = self.explain_for(question, Asker::Anyone);
        if !self.asks_for_programs() {
            return explained;
        }
        // What entries say of different programs does not add up: it has to be one of them.
        let programs = self.programs_about(question.to, question.resolves_to.unwrap_or_default());
        let ask = |program: &Program| self.explain_for(question, Asker::Program(program));
        let unnamed = self.explain_for(question, Asker::Unknown);
        let mut all = programs.iter().map(ask).chain([unnamed]);
        let allowed = all.find(|one| one.verdict != Verdict::Deny);
        match (allowed, explained.verdict) {
            (Some(one), Verdict::Deny) => one,
            // If there are more than were asked about, one of those may be allowed.
            (None, Verdict::Allow | Verdict::Inspect) if programs.len() < MOST_PROGRAMS => {
                let mut named = programs
                    .iter()
                    .filter(|one| one.executable != OTHER_PROGRAM);
                let first = named.next().map_or(Asker::Unknown, Asker::Program);
                self.explain_for(question, first)
            }
            _ => explained,
        }
    }

    fn explain_for(&self, question: &Question<'_>, asker: Asker<'_>) -> Explanation {
        let Question {
            to, request, hosts, ..
        } = *question;
        let mut steps = vec![step("destination", "pass", understood(to), None)];
        let decision = self.decide_seen(to, asker, hosts, &mut |seen, outcome, rule| {
            let detail = describe(seen, outcome, rule.is_some(), to, hosts);
            steps.push(step(name_of(seen), word(outcome), detail, rule));
        });
        let decision = match decision {
            Ok(mut permit) => {
                steps.extend(permitted_programs(&permit, asker));
                finish(&mut permit, question, &mut steps).map(|()| permit)
            }
            Err(denial) => {
                if denial.reason() == Reason::DeniedExecutable {
                    let detail = "the entry is about other programs".to_owned();
                    steps.push(step("executable", "deny", detail, denial.rule()));
                }
                Err(denial)
            }
        };
        let destination = ExplainedDestination {
            host: match to.target() {
                Target::Name(name) => Some(name.to_string()),
                Target::Address(_) => None,
            },
            address: match to.target() {
                Target::Name(_) => None,
                Target::Address(address) => Some(*address),
            },
            port: Some(to.port()),
        };
        match decision {
            Ok(permit) => Explanation {
                verdict: match permit.inspects() && request.is_none() {
                    true => Verdict::Inspect,
                    false => Verdict::Allow,
                },
                reason: permit.reason(),
                rule: permit.rule().cloned(),
                note: permit.note().map(str::to_owned),
                steps,
                hint: None,
                destination,
            },
            Err(denial) => Explanation {
                verdict: Verdict::Deny,
                reason: denial.reason(),
                rule: denial.rule().cloned(),
                note: None,
                steps,
                hint: denial.hint(),
                destination,
            },
        }
    }
}

/// The steps that follow a permit.
fn finish(
    permit: &mut Permit,
    question: &Question<'_>,
    steps: &mut Vec<ExplainedStep>,
) -> Result<(), Denial> {
    let (vetted, result) = vet(permit, question.hosts, question.resolves_to);
    steps.push(vetted);
    result?;
    steps.push(step("spoken", "unknown", spoken(permit), None));
    match (question.request, permit.inspects()) {
        (None, true) => {
            if let Err(denial) = permit.allows_some_request() {
                let detail = "no request is allowed".to_owned();
                steps.push(step("request", "deny", detail, denial.rule()));
                return Err(denial);
            }
            let detail = format!(
                "every request is decided on: {}",
                permit.requests_in_words()
            );
            steps.push(step("request", "unknown", detail, permit.rule()));
            Ok(())
        }
        (None, false) => Ok(()),
        (Some(_), false) => {
            let detail = "requests are not distinguished".to_owned();
            steps.push(step("request", "pass", detail, None));
            Ok(())
        }
        (Some((method, target)), true) => {
            let result = permit.request(method, target);
            let (outcome, detail, rule) = match &result {
                Ok(()) => ("allow", "the request is allowed".to_owned(), permit.rule()),
                Err(denial) => ("deny", denial.cause(), denial.rule()),
            };
            steps.push(step("request", outcome, detail, rule));
            result
        }
    }
}

/// What there is to say about the program, where the entry that allows is about some programs only.
fn permitted_programs(permit: &Permit, by: Asker<'_>) -> Option<ExplainedStep> {
    let programs = permit.programs_in_words()?;
    let (outcome, detail) = match by {
        Asker::Program(program) => (
            "allow",
            format!("{} is one of {programs}", program.executable),
        ),
        Asker::Anyone | Asker::Unknown => (
            "unknown",
            format!("the program has to be one of {programs}"),
        ),
    };
    Some(step("executable", outcome, detail, permit.rule()))
}

fn vet(
    permit: &mut Permit,
    hosts: &HostAddresses,
    resolves_to: Option<&[IpAddr]>,
) -> (ExplainedStep, Result<(), Denial>) {
    let literal;
    let answer = match (permit.lookup(), resolves_to) {
        (Lookup::Literal(address), _) => {
            literal = [address];
            Some(literal.as_slice())
        }
        (_, Some(answer)) => Some(answer),
        (Lookup::HostGateway(_), None) => {
            Some(hosts.gateway()).filter(|gateway| !gateway.is_empty())
        }
        (Lookup::Name(_), None) => None,
    };
    let Some(answer) = answer else {
        let target = permit.destination().target();
        let detail = match permit.lookup() {
            Lookup::HostGateway(name) => format!("every address of {name} has to be the host's"),
            _ if let Err(denial) = permit.leads_somewhere(hosts) => {
                let detail = format!("there is no address that {target} may resolve to");
                return (step("resolve", "deny", detail, denial.rule()), Err(denial));
            }
            _ => format!(
                "every address that {target} resolves to {}",
                permit.addresses_in_words()
            ),
        };
        return (step("resolve", "unknown", detail, None), Ok(()));
    };
    let judged = answer.iter().map(|&address| JudgedAddress {
        address,
        class: hosts.class_of(address),
    });
    let judged: Vec<_> = judged.collect();
    let (outcome, detail, result) = match permit.vet(answer, hosts) {
        Ok(_) => ("allow", "every address may be dialled".to_owned(), Ok(())),
        Err(denial) => {
            let detail = match denial.address() {
                Some(address) => format!(
                    "{address} may not be dialled, so none is: {}",
                    denial.reason().meaning()
                ),
                None => denial.reason().meaning().to_owned(),
            };
            ("deny", detail, Err(denial))
        }
    };
    let rule = result.as_ref().err().and_then(Denial::rule).cloned();
    let vetted = ExplainedStep {
        step: "resolve",
        outcome,
        detail,
        rule,
        addresses: judged,
    };
    (vetted, result)
}

fn step(
    step: &'static str,
    outcome: &'static str,
    detail: String,
    rule: Option<&RuleId>,
) -> ExplainedStep {
    ExplainedStep {
        step,
        outcome,
        detail,
        rule: rule.cloned(),
        addresses: Vec::new(),
    }
}

fn name_of(step: Step) -> &'static str {
    match step {
        Step::SpecialName => "special_name",
        Step::AddressClass => "address_class",
        Step::Deny => "deny",
        Step::Project => "project",
        Step::HostGateway => "host_gateway",
        Step::Allow | Step::AllowOnOtherPort | Step::AllowByOther => "allow",
        Step::Default => "default",
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Allow => "allow",
        Outcome::Deny => "deny",
    }
}

fn understood(to: &Destination) -> String {
    match to.target() {
        Target::Name(name) => format!("the name {name} on port {}", to.port()),
        Target::Address(address) => format!("the address {address} on port {}", to.port()),
    }
}

fn describe(
    step: Step,
    outcome: Outcome,
    spoke: bool,
    to: &Destination,
    hosts: &HostAddresses,
) -> String {
    let class = match to.target() {
        Target::Address(address) => hosts.class_of(*address).word(),
        Target::Name(_) => "",
    };
    let detail = match (step, outcome, spoke) {
        (Step::SpecialName, Outcome::Deny, _) => {
            "the name is the sandbox itself or a metadata service, which nothing opens"
        }
        (Step::SpecialName, _, _) => {
            "the name is neither the sandbox itself nor a metadata service"
        }
        (Step::AddressClass, Outcome::Deny, _) => {
            return format!("the address is {class}, which nothing opens");
        }
        (Step::AddressClass, _, _) => return format!("the address is {class}"),
        (Step::Deny, Outcome::Deny, _) => "a deny entry matches, and a deny always wins",
        (Step::Deny, _, _) => "no deny entry matches",
        (Step::Project, Outcome::Deny, _) => "the project's file leaves it out",
        (Step::Project, _, _) => "the project's file does not leave it out",
        (Step::HostGateway, Outcome::Allow, true) => "an entry names the host on this port",
        (Step::HostGateway, Outcome::Allow, false) => "the host gateway is open on this port",
        (Step::HostGateway, Outcome::Deny, _) => {
            "this is the host, and nothing opens it on this port"
        }
        (Step::HostGateway, Outcome::Pass, _) => "this is not the host",
        (Step::Allow, Outcome::Allow, _) => "an allow entry matches",
        (Step::AllowOnOtherPort, _, _) => "an allow entry matches, but not on this port",
        (Step::AllowByOther, _, _) => "an allow entry matches, but not for this program",
        (Step::Allow, _, _) => "no allow entry matches",
        (Step::Default, Outcome::Allow, _) => "public destinations are allowed by default",
        (Step::Default, _, _) => "what nothing allows is denied",
    };
    detail.to_owned()
}

fn spoken(permit: &Permit) -> String {
    match permit.destination().target() {
        Target::Name(name) => format!("a TLS server name or an HTTP Host has to be {name}"),
        Target::Address(_) => {
            "a TLS server name or an HTTP Host must not be one that a deny entry names".to_owned()
        }
    }
}
