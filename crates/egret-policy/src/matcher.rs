//! A policy compiled for deciding.
//!
//! [`Matcher::decide`] is the program: the steps of a decision in their order. It is the only maker of a [`Permit`].
//! Silence denies.

use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::{Class, HostAddresses};
use crate::askable::Askable;
use crate::denial::{Cause, Denial};
use crate::destination::{Destination, Target, parse_target};
use crate::guard::stands;
use crate::host::Host;
use crate::names::{Special, special};
use crate::permit::Permit;
use crate::policy::Default;
use crate::program::{Asker, Program};
use crate::reason::Reason;
use crate::rule::RuleId;

mod compiled;
mod found;
pub(crate) mod nets;
pub(crate) mod patterns;

use compiled::LeftOut;
pub(crate) use compiled::{Compiled, MOST_PROGRAMS};
use found::Ports;
pub(crate) use found::{Found, Grant};

/// A policy, compiled. Immutable; a clone shares what it was compiled to.
///
/// Deciding costs a few hash look-ups for each label of the name, whatever the size of the policy.
#[derive(Clone, Debug)]
pub struct Matcher {
    compiled: Arc<Compiled>,
}

/// What was said on a connection about whom it is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken<'a> {
    /// The server name of a TLS ClientHello, if it had one (RFC 6066).
    Sni(Option<&'a str>),
    /// The `Host` header or `:authority` of an HTTP request, if it had one.
    Host(Option<&'a str>),
}

/// A step of the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    SpecialName,
    AddressClass,
    Deny,
    /// What projects' files leave out.
    Project,
    HostGateway,
    Allow,
    /// The same, where only the port is not the entry's.
    AllowOnOtherPort,
    /// The same, where only the program is not the entry's.
    AllowByOther,
    Default,
}

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It had nothing to say.
    Pass,
    Allow,
    Deny,
}

impl Matcher {
    pub(crate) fn new(compiled: Compiled) -> Self {
        Self {
            compiled: Arc::new(compiled),
        }
    }

    /// Decides whether a program may reach a destination, as far as that can be told before it is resolved.
    ///
    /// `by` is the program that asks; none if nobody could tell, and then what only some programs may reach is refused.
    /// It makes a difference only where the policy [asks for programs](Self::asks_for_programs).
    ///
    /// # Errors
    /// A [`Denial`] with the reason, and the entry that decided if one did.
    pub fn decide(
        &self,
        to: &Destination,
        by: Option<&Program>,
        hosts: &HostAddresses,
    ) -> Result<Permit, Denial> {
        self.decide_seen(to, by.into(), hosts, &mut |_, _, _| {})
    }

    /// As [`Self::decide`], where a person was asked about a destination and let it pass: what they could still be asked
    /// about is allowed then, if it is that.
    ///
    /// # Errors
    /// As [`Self::decide`].
    pub fn decide_with(
        &self,
        to: &Destination,
        by: Option<&Program>,
        hosts: &HostAddresses,
        allowed: Option<&Askable>,
    ) -> Result<Permit, Denial> {
        let decided = self.decide(to, by, hosts);
        match (decided, allowed) {
            (Err(denial), Some(allowed)) if denial.askable().as_ref() == Some(allowed) => {
                Ok(self.permit(to, by.into(), Reason::AllowedOnce, None))
            }
            (decided, _) => decided,
        }
    }

    /// See [`Compiled::programs_about`].
    pub(crate) fn programs_about(&self, to: &Destination, resolves_to: &[IpAddr]) -> Vec<Program> {
        self.compiled.programs_about(to, resolves_to)
    }

    /// Whether some entry is about certain programs only, so that it matters who asks.
    pub fn asks_for_programs(&self) -> bool {
        self.compiled.asks_for_programs
    }

    /// As [`Self::decide`], showing each step that was taken, how it came out, and the entry that spoke.
    pub(crate) fn decide_seen(
        &self,
        to: &Destination,
        by: Asker<'_>,
        hosts: &HostAddresses,
        see: &mut impl FnMut(Step, Outcome, Option<&RuleId>),
    ) -> Result<Permit, Denial> {
        let (class, special, never) = match to.target() {
            Target::Name(name) => {
                let special = special(name);
                (None, special, special.and_then(never_reached))
            }
            Target::Address(address) => {
                let class = hosts.class_of(*address);
                let never = !class.can_be_granted() && class != Class::Host;
                (Some(class), None, never.then(|| class.denied()))
            }
        };
        let first = match class {
            Some(_) => Step::AddressClass,
            None => Step::SpecialName,
        };
        if let Some(reason) = never {
            see(first, Outcome::Deny, None);
            return Err(self.refuse(reason, to));
        }
        see(first, Outcome::Pass, None);
        let kind = match (class, special) {
            (Some(Class::Host), _) => Kind::Host,
            (_, Some(Special::HostGateway)) => Kind::HostName,
            (Some(class), _) => Kind::Address(class),
            (None, _) => Kind::Name,
        };
        if let Some(deny) = self.compiled.denies(to, by) {
            see(Step::Deny, Outcome::Deny, Some(self.compiled.rule_of(deny)));
            let otherwise = self.grant(kind, to, by, &mut |_, _, _| {});
            return Err(self.refuse_by_deny(deny, to, otherwise.err()));
        }
        see(Step::Deny, Outcome::Pass, None);
        if let Some(left_out) = self.compiled.left_out(to, kind) {
            let (LeftOut::Only(rule) | LeftOut::Host(rule)) = left_out;
            see(Step::Project, Outcome::Deny, Some(rule));
            let otherwise = self.grant(kind, to, by, &mut |_, _, _| {}).err();
            let cause = Cause::LeftOut {
                as_host: matches!(left_out, LeftOut::Host(_)),
                otherwise: otherwise.map(Box::new),
            };
            let rule = Some(rule.clone());
            return Err(Denial::of(Reason::DeniedProject, to, rule, cause));
        }
        if self.compiled.is_narrowed() {
            see(Step::Project, Outcome::Pass, None);
        }
        self.grant(kind, to, by, see)
    }

    /// What follows when no deny entry speaks: host gateway, allow entries, default.
    fn grant(
        &self,
        kind: Kind,
        to: &Destination,
        by: Asker<'_>,
        see: &mut impl FnMut(Step, Outcome, Option<&RuleId>),
    ) -> Result<Permit, Denial> {
        let compiled = &*self.compiled;
        let permit = |reason, grant| self.permit(to, by, reason, grant);
        // No pattern means the host, and no address: only an entry that writes its name out.
        let found = match kind {
            Kind::Host => Found::Nothing,
            _ => compiled.allows(to, by, kind == Kind::HostName),
        };
        if let Kind::Host | Kind::HostName = kind {
            return match found {
                Found::Entry(grant) => {
                    let rule = compiled.rule_of(grant.entry);
                    see(Step::HostGateway, Outcome::Allow, Some(rule));
                    Ok(permit(Reason::AllowedHostGateway, Some(grant)))
                }
                _ if compiled.opens_host_gateway(to.port()) || !stands("host-ports") => {
                    see(Step::HostGateway, Outcome::Allow, None);
                    Ok(permit(Reason::AllowedHostGateway, None))
                }
                Found::OtherProgram(_) => {
                    see(Step::HostGateway, Outcome::Deny, compiled.near(&found));
                    Err(self.refuse_unnamed(&found, Reason::DeniedHostGateway, to, by))
                }
                _ => {
                    see(Step::HostGateway, Outcome::Deny, None);
                    Err(self.refuse(Reason::DeniedHostGateway, to))
                }
            };
        }
        see(Step::HostGateway, Outcome::Pass, None);
        if let Found::Entry(grant) = found {
            let rule = compiled.rule_of(grant.entry);
            see(Step::Allow, Outcome::Allow, Some(rule));
            return Ok(permit(Reason::AllowedRule, Some(grant)));
        }
        let allow = match found {
            Found::OtherPort(_) => Step::AllowOnOtherPort,
            Found::OtherProgram(_) => Step::AllowByOther,
            Found::Entry(_) | Found::Nothing => Step::Allow,
        };
        see(allow, Outcome::Pass, compiled.near(&found));
        let public = !matches!(kind, Kind::Address(class) if class != Class::Public);
        let by_default = match &compiled.default {
            Default::AllowPublic(ports) => ports.contain(to.port()),
            Default::Deny => false,
        };
        if (by_default && public) || !stands("default-deny") {
            see(Step::Default, Outcome::Allow, None);
            return Ok(permit(Reason::AllowedDefaultPublic, None));
        }
        see(Step::Default, Outcome::Deny, None);
        let reason = match kind {
            Kind::Address(class) => class.denied(),
            _ => Reason::DeniedDefault,
        };
        Err(self.refuse_unnamed(&found, reason, to, by))
    }

    fn permit(
        &self,
        to: &Destination,
        by: Asker<'_>,
        reason: Reason,
        grant: Option<Grant>,
    ) -> Permit {
        let refused = self.compiled.refused_requests(to, by);
        let compiled = Arc::clone(&self.compiled);
        Permit::new(to.clone(), by, reason, grant, refused, compiled)
    }

    /// Whether a name could be reached on any port at all, which is what a DNS question asks.
    ///
    /// # Errors
    /// The [`Denial`] that every port would have in common.
    pub fn knows(&self, name: &Host) -> Result<(), Denial> {
        let compiled = &*self.compiled;
        let refuse = |reason| Err(Denial::of_name(reason, name, None));
        let special = special(name);
        if let Some(reason) = special.and_then(never_reached) {
            return refuse(reason);
        }
        // Port 0 is what stands for every port; no destination has it. A question has no program that could be told.
        let denies = |deny| Asker::Anyone.is_denied_by(compiled.entry(deny));
        if let Found::Entry(deny) = compiled.deny.names.find(name.as_str(), 0, denies) {
            let rule = Some(compiled.rule_of(deny.entry).clone());
            return Err(Denial::of_name(Reason::DeniedRule, name, rule));
        }
        if let Some(rule) = compiled.leaves_out(name, special.is_some()) {
            let rule = Some(rule.clone());
            return Err(Denial::of_name(Reason::DeniedProject, name, rule));
        }
        match special {
            Some(_) => match compiled.host_gateway.is_some()
                || compiled.allow.names.find_exact(name.as_str(), 0, |_| true) != Found::Nothing
            {
                true => Ok(()),
                false => refuse(Reason::DeniedHostGateway),
            },
            None => match compiled.default != Default::Deny
                || compiled.allow.names.knows(name.as_str())
            {
                true => Ok(()),
                false => refuse(Reason::DeniedDefault),
            },
        }
    }

    /// Checks what is said on a connection against the decision it was opened by.
    ///
    /// For a name, it has to be that name: a server that stands for many would otherwise answer for another. A `Host`
    /// may carry the port, which then has to be the decided one. For a literal address, nothing, the same address, or
    /// any name that no deny entry refuses.
    ///
    /// # Errors
    /// [`Reason::DeniedNameMismatch`], or [`Reason::DeniedRule`] for a name that a deny entry refuses.
    pub fn confirm(&self, permit: &Permit, spoken: Spoken<'_>) -> Result<(), Denial> {
        let guard = match spoken {
            Spoken::Sni(_) => "server-name",
            Spoken::Host(_) => "host-field",
        };
        if !stands(guard) {
            return Ok(());
        }
        let decided = permit.destination();
        let mismatch = || {
            Denial::of(
                Reason::DeniedNameMismatch,
                decided,
                permit.rule().cloned(),
                Cause::Decision,
            )
        };
        let said = match spoken {
            Spoken::Sni(said) => said,
            Spoken::Host(Some(said)) => Some(host_of(said, decided.port()).ok_or_else(mismatch)?),
            Spoken::Host(None) => None,
        };
        match (decided.target(), said) {
            (Target::Name(name), Some(said)) if is_spelling_of(said, name) => Ok(()),
            (Target::Name(_), _) => Err(mismatch()),
            (Target::Address(_), None) => Ok(()),
            (Target::Address(address), Some(said)) => {
                match parse_target(said.trim_start_matches('[').trim_end_matches(']')) {
                    Ok(Target::Address(said)) if said == *address => Ok(()),
                    Ok(Target::Name(name)) => self.confirm_named(permit, &name),
                    _ => Err(mismatch()),
                }
            }
        }
    }

    /// Whether a connection to an address may be meant for this name: not if the name is denied, or may receive certain
    /// requests only and nothing but the default, or a person who was asked, lets the address be reached.
    fn confirm_named(&self, permit: &Permit, name: &Host) -> Result<(), Denial> {
        let (decided, compiled) = (permit.destination(), &*self.compiled);
        let port = decided.port();
        // Whoever speaks: a deny entry for some programs only was asked about the address.
        let denies = [&compiled.deny.names, &compiled.deny_requests];
        let denies = denies.map(|names| names.find(name.as_str(), port, |_| true));
        let deny = denies.into_iter().find(Found::is_entry);
        if let Some(Found::Entry(deny)) = deny {
            let rule = Some(compiled.rule_of(deny.entry).clone());
            return Err(Denial::of(
                Reason::DeniedRule,
                decided,
                rule,
                Cause::Decision,
            ));
        }
        let Target::Address(address) = *decided.target() else {
            return Ok(());
        };
        if !matches!(
            permit.reason(),
            Reason::AllowedDefaultPublic | Reason::AllowedOnce
        ) {
            return Ok(());
        }
        // By the name, from the same program, at this address: would its requests be looked at?
        let by_name = Destination::new(Target::Name(name.clone()), port).ok();
        let hosts = HostAddresses::new([]);
        let by_name = by_name.and_then(|to| {
            let decided = self.decide_seen(&to, permit.asker(), &hosts, &mut |_, _, _| {});
            let mut by_name = decided.ok()?;
            by_name.vet(&[address], &hosts).ok()?;
            Some(by_name)
        });
        match by_name {
            Some(by_name) if by_name.inspects() => {
                let why = "the name that is spoken may receive certain requests only; connect to it by that name";
                let (rule, cause) = (by_name.rule().cloned(), Cause::Told(why.into()));
                Err(Denial::of(Reason::DeniedRequest, decided, rule, cause))
            }
            _ => Ok(()),
        }
    }

    fn refuse(&self, reason: Reason, to: &Destination) -> Denial {
        Denial::of(reason, to, None, Cause::Decision)
    }

    fn refuse_by_deny(&self, deny: u32, to: &Destination, otherwise: Option<Denial>) -> Denial {
        let rule = Some(self.compiled.rule_of(deny).clone());
        Denial::of(
            Reason::DeniedRule,
            to,
            rule,
            Cause::Deny {
                otherwise: otherwise.map(Box::new),
            },
        )
    }

    /// No entry allows it: because of the program or the port, if one names it otherwise.
    fn refuse_unnamed(
        &self,
        found: &Found,
        reason: Reason,
        to: &Destination,
        by: Asker<'_>,
    ) -> Denial {
        let rule = self.compiled.near(found).cloned();
        match found {
            Found::OtherProgram(_) => {
                let executable = match by {
                    Asker::Program(program) => Some(program.executable.as_str().into()),
                    Asker::Unknown | Asker::Anyone => None,
                };
                let cause = Cause::Program { executable };
                Denial::of(Reason::DeniedExecutable, to, rule, cause)
            }
            Found::OtherPort(_) => Denial::of(Reason::DeniedPort, to, rule, Cause::Decision),
            Found::Entry(_) | Found::Nothing => self.refuse(reason, to),
        }
    }
}

/// What a destination is, once it is clear that it could be reached at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    /// A name of the host.
    HostName,
    /// An address of the host.
    Host,
    /// Another address, of a class that can be granted.
    Address(Class),
}

fn never_reached(special: Special) -> Option<Reason> {
    match special {
        Special::Metadata => Some(Reason::DeniedAddressMetadata),
        Special::Loopback => Some(Reason::DeniedAddressLoopback),
        Special::HostGateway => None,
    }
}

/// The host of a `Host` header; none if it carries another port than the decided one.
fn host_of(said: &str, port: u16) -> Option<&str> {
    let (host, said_port) = match said.rsplit_once(':') {
        // The colons of an IPv6 address stand inside brackets.
        Some((host, after)) if !after.contains(']') => (host, Some(after)),
        _ => (said, None),
    };
    match said_port {
        Some(said_port) => (crate::destination::parse_port(said_port) == Ok(port)).then_some(host),
        None => Some(host),
    }
}

/// Case and one trailing dot say nothing; everything else does.
fn is_spelling_of(said: &str, name: &Host) -> bool {
    said.strip_suffix('.')
        .unwrap_or(said)
        .eq_ignore_ascii_case(name.as_str())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
