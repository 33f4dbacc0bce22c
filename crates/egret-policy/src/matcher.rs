//! A policy compiled for deciding.
//!
//! [`Matcher::decide`] is the program: the steps of a decision in their order. It is the only maker of a [`Permit`].
//! Silence denies.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::addr::{Class, HostAddresses};
use crate::denial::{Cause, Denial};
use crate::destination::{Destination, Target, parse_target};
use crate::host::Host;
use crate::matcher::nets::NetTable;
use crate::matcher::patterns::{Found, NameTable};
use crate::names::{Special, special};
use crate::permit::Permit;
use crate::policy::{Default, HostGatewayPorts};
use crate::reason::Reason;
use crate::rule::RuleId;

pub(crate) mod nets;
pub(crate) mod patterns;

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
    HostGateway,
    Allow,
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

#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) default: Default,
    pub(crate) host_gateway: Option<HostGatewayPorts>,
    pub(crate) entries: Vec<CompiledEntry>,
    pub(crate) allow_names: NameTable,
    pub(crate) deny_names: NameTable,
    pub(crate) allow_nets: NetTable,
    pub(crate) deny_nets: NetTable,
}

#[derive(Debug)]
pub(crate) struct CompiledEntry {
    pub(crate) rule: RuleId,
    pub(crate) note: Option<Arc<str>>,
    pub(crate) addresses: Box<[IpNet]>,
}

/// What granted a permit: an entry, and the place in the table of names where entries were put together, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) entry: u32,
    pub(crate) pattern: Option<u32>,
}

impl Matcher {
    pub(crate) fn new(compiled: Compiled) -> Self {
        Self {
            compiled: Arc::new(compiled),
        }
    }

    /// Decides whether a destination may be reached, as far as that can be told before it is resolved.
    ///
    /// # Errors
    /// A [`Denial`] with the reason, and the entry that decided if one did.
    pub fn decide(&self, to: &Destination, hosts: &HostAddresses) -> Result<Permit, Denial> {
        self.decide_seen(to, hosts, &mut |_, _, _| {})
    }

    /// As [`Self::decide`], showing each step that was taken, how it came out, and the entry that spoke.
    pub(crate) fn decide_seen(
        &self,
        to: &Destination,
        hosts: &HostAddresses,
        see: &mut impl FnMut(Step, Outcome, Option<&RuleId>),
    ) -> Result<Permit, Denial> {
        match to.target() {
            Target::Name(name) => self.decide_name(name, to, see),
            Target::Address(address) => self.decide_address(*address, to, hosts, see),
        }
    }

    fn decide_name(
        &self,
        name: &Host,
        to: &Destination,
        see: &mut impl FnMut(Step, Outcome, Option<&RuleId>),
    ) -> Result<Permit, Denial> {
        let special = special(name);
        let never = match special {
            Some(Special::Metadata) => Some(Reason::DeniedAddressMetadata),
            Some(Special::Loopback) => Some(Reason::DeniedAddressLoopback),
            Some(Special::HostGateway) | None => None,
        };
        if let Some(reason) = never {
            see(Step::SpecialName, Outcome::Deny, None);
            return Err(self.refuse(reason, to));
        }
        see(Step::SpecialName, Outcome::Pass, None);
        if let Found::Entry(deny) = self.compiled.deny_names.find(name.as_str(), to.port()) {
            see(Step::Deny, Outcome::Deny, Some(self.compiled.rule(deny)));
            let otherwise = self.grant_name(name, to, special, &mut |_, _, _| {});
            return Err(self.refuse_by_deny(deny, to, otherwise.err()));
        }
        see(Step::Deny, Outcome::Pass, None);
        self.grant_name(name, to, special, see)
    }

    fn grant_name(
        &self,
        name: &Host,
        to: &Destination,
        special: Option<Special>,
        see: &mut impl FnMut(Step, Outcome, Option<&RuleId>),
    ) -> Result<Permit, Denial> {
        let compiled = &*self.compiled;
        if special == Some(Special::HostGateway) {
            if compiled.opens_host_gateway(to.port()) {
                see(Step::HostGateway, Outcome::Allow, None);
                return Ok(self.permit(Reason::AllowedHostGateway, to, None));
            }
            // Only an entry that writes the name out opens it: no pattern means the host.
            return match compiled.allow_names.find_exact(name.as_str(), to.port()) {
                Found::Entry(grant) => {
                    see(
                        Step::HostGateway,
                        Outcome::Allow,
                        Some(compiled.rule(grant)),
                    );
                    Ok(self.permit(Reason::AllowedHostGateway, to, Some(grant)))
                }
                Found::OtherPort(_) | Found::Nothing => {
                    see(Step::HostGateway, Outcome::Deny, None);
                    Err(self.refuse(Reason::DeniedHostGateway, to))
                }
            };
        }
        see(Step::HostGateway, Outcome::Pass, None);
        let found = compiled.allow_names.find(name.as_str(), to.port());
        if let Found::Entry(grant) = found {
            see(Step::Allow, Outcome::Allow, Some(compiled.rule(grant)));
            return Ok(self.permit(Reason::AllowedRule, to, Some(grant)));
        }
        see(
            Step::Allow,
            Outcome::Pass,
            compiled.rule_of_other_port(found),
        );
        match (compiled.default, found) {
            (Default::AllowPublic, _) => {
                see(Step::Default, Outcome::Allow, None);
                Ok(self.permit(Reason::AllowedDefaultPublic, to, None))
            }
            (Default::Deny, found) => {
                see(Step::Default, Outcome::Deny, None);
                Err(self.refuse_unnamed(found, Reason::DeniedDefault, to))
            }
        }
    }

    fn decide_address(
        &self,
        address: IpAddr,
        to: &Destination,
        hosts: &HostAddresses,
        see: &mut impl FnMut(Step, Outcome, Option<&RuleId>),
    ) -> Result<Permit, Denial> {
        let class = hosts.class_of(address);
        if !class.can_be_granted() && class != Class::Host {
            see(Step::AddressClass, Outcome::Deny, None);
            return Err(self.refuse(class.denied(), to));
        }
        see(Step::AddressClass, Outcome::Pass, None);
        if let Some(deny) = self.compiled.deny_address(address, to.port()) {
            see(Step::Deny, Outcome::Deny, Some(self.compiled.rule(deny)));
            let otherwise = self.grant_address(address, class, to, &mut |_, _, _| {});
            return Err(self.refuse_by_deny(deny, to, otherwise.err()));
        }
        see(Step::Deny, Outcome::Pass, None);
        self.grant_address(address, class, to, see)
    }

    fn grant_address(
        &self,
        address: IpAddr,
        class: Class,
        to: &Destination,
        see: &mut impl FnMut(Step, Outcome, Option<&RuleId>),
    ) -> Result<Permit, Denial> {
        let compiled = &*self.compiled;
        if class == Class::Host {
            let open = compiled.opens_host_gateway(to.port());
            see(
                Step::HostGateway,
                if open { Outcome::Allow } else { Outcome::Deny },
                None,
            );
            return match open {
                true => Ok(self.permit(Reason::AllowedHostGateway, to, None)),
                false => Err(self.refuse(Reason::DeniedHostGateway, to)),
            };
        }
        see(Step::HostGateway, Outcome::Pass, None);
        let found = compiled.allow_nets.find(address, to.port());
        if let Found::Entry(grant) = found {
            see(Step::Allow, Outcome::Allow, Some(compiled.rule(grant)));
            return Ok(self.permit(Reason::AllowedRule, to, Some(grant)));
        }
        see(
            Step::Allow,
            Outcome::Pass,
            compiled.rule_of_other_port(found),
        );
        match compiled.default {
            Default::AllowPublic if class == Class::Public => {
                see(Step::Default, Outcome::Allow, None);
                Ok(self.permit(Reason::AllowedDefaultPublic, to, None))
            }
            Default::AllowPublic | Default::Deny => {
                see(Step::Default, Outcome::Deny, None);
                Err(self.refuse_unnamed(found, class.denied(), to))
            }
        }
    }

    /// Whether a name could be reached on any port at all, which is what a DNS question asks.
    ///
    /// # Errors
    /// The [`Denial`] that every port would have in common.
    pub fn knows(&self, name: &Host) -> Result<(), Denial> {
        let compiled = &*self.compiled;
        let refuse = |reason| Err(Denial::of_name(reason, name, None));
        let special = special(name);
        match special {
            Some(Special::Metadata) => return refuse(Reason::DeniedAddressMetadata),
            Some(Special::Loopback) => return refuse(Reason::DeniedAddressLoopback),
            Some(Special::HostGateway) | None => {}
        }
        // Port 0 is what stands for every port; no destination has it.
        if let Found::Entry(deny) = compiled.deny_names.find(name.as_str(), 0) {
            let rule = Some(compiled.rule(deny).clone());
            return Err(Denial::of_name(Reason::DeniedRule, name, rule));
        }
        match special {
            Some(_) => match compiled.host_gateway.is_some()
                || compiled.allow_names.find_exact(name.as_str(), 0) != Found::Nothing
            {
                true => Ok(()),
                false => refuse(Reason::DeniedHostGateway),
            },
            None => match compiled.default == Default::AllowPublic
                || compiled.allow_names.knows(name.as_str())
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
                    Ok(Target::Name(name)) => {
                        match self.compiled.deny_names.find(name.as_str(), decided.port()) {
                            Found::Entry(deny) => {
                                let rule = Some(self.compiled.rule(deny).clone());
                                Err(Denial::of(
                                    Reason::DeniedRule,
                                    decided,
                                    rule,
                                    Cause::Decision,
                                ))
                            }
                            Found::OtherPort(_) | Found::Nothing => Ok(()),
                        }
                    }
                    _ => Err(mismatch()),
                }
            }
        }
    }

    fn permit(&self, reason: Reason, to: &Destination, grant: Option<Grant>) -> Permit {
        Permit::new(to.clone(), reason, grant, Arc::clone(&self.compiled))
    }

    fn refuse(&self, reason: Reason, to: &Destination) -> Denial {
        Denial::of(reason, to, None, Cause::Decision)
    }

    fn refuse_by_deny(&self, deny: Grant, to: &Destination, otherwise: Option<Denial>) -> Denial {
        let rule = Some(self.compiled.rule(deny).clone());
        Denial::of(
            Reason::DeniedRule,
            to,
            rule,
            Cause::Deny {
                otherwise: otherwise.map(Box::new),
            },
        )
    }

    /// No entry allows it: because of the port, if one names it otherwise.
    fn refuse_unnamed(&self, found: Found, reason: Reason, to: &Destination) -> Denial {
        match self.compiled.rule_of_other_port(found) {
            Some(rule) => Denial::of(Reason::DeniedPort, to, Some(rule.clone()), Cause::Decision),
            None => self.refuse(reason, to),
        }
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

impl Compiled {
    fn rule_of(&self, entry: u32) -> &RuleId {
        &self.entry(entry).rule
    }

    fn rule_of_other_port(&self, found: Found) -> Option<&RuleId> {
        match found {
            Found::OtherPort(entry) => Some(self.rule_of(entry)),
            Found::Entry(_) | Found::Nothing => None,
        }
    }

    pub(crate) fn rule(&self, grant: Grant) -> &RuleId {
        self.rule_of(grant.entry)
    }

    pub(crate) fn note(&self, grant: Grant) -> Option<&str> {
        self.entry(grant.entry).note.as_deref()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an index of an entry is only ever made by compiling the entries"
    )]
    fn entry(&self, entry: u32) -> &CompiledEntry {
        &self.entries[entry as usize]
    }

    fn opens_host_gateway(&self, port: u16) -> bool {
        self.host_gateway
            .as_ref()
            .is_some_and(|ports| ports.contain(port))
    }

    /// The deny entry that names an address, or an IPv4 address inside it.
    pub(crate) fn deny_address(&self, address: IpAddr, port: u16) -> Option<Grant> {
        crate::addr::readings(address).find_map(|reading| {
            match self.deny_nets.find(reading, port) {
                Found::Entry(grant) => Some(grant),
                _ => None,
            }
        })
    }

    /// Whether what granted a permit also grants an address that is not public.
    pub(crate) fn grants_address(&self, grant: Grant, to: &Destination, address: IpAddr) -> bool {
        match (to.target(), grant.pattern) {
            // The literal itself is what the entry allows.
            (Target::Address(_), _) => true,
            (Target::Name(_), pattern) => {
                let more =
                    pattern.map(|pattern| self.allow_names.more_addresses(pattern, to.port()));
                let own = self.entry(grant.entry).addresses.iter();
                own.chain(more.into_iter().flatten())
                    .any(|net| net.contains(&address))
            }
        }
    }
}

#[cfg(test)]
mod tests;
