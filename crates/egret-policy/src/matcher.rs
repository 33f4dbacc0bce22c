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
        match to.target() {
            Target::Name(name) => self.decide_name(name, to),
            Target::Address(address) => self.decide_address(*address, to, hosts),
        }
    }

    fn decide_name(&self, name: &Host, to: &Destination) -> Result<Permit, Denial> {
        let compiled = &*self.compiled;
        let special = special(name);
        match special {
            Some(Special::Metadata) => return Err(self.refuse(Reason::DeniedAddressMetadata, to)),
            Some(Special::Loopback) => return Err(self.refuse(Reason::DeniedAddressLoopback, to)),
            Some(Special::HostGateway) | None => {}
        }
        let granted = self.grant_name(name, to, special);
        if let Some(entry) = compiled.deny_names.denies(name.as_str(), to.port()) {
            let allowed_otherwise = granted.is_ok();
            let rule = Some(compiled.rule_of(entry).clone());
            return Err(Denial::of(
                Reason::DeniedRule,
                to,
                rule,
                Cause::Deny { allowed_otherwise },
            ));
        }
        granted
    }

    fn grant_name(
        &self,
        name: &Host,
        to: &Destination,
        special: Option<Special>,
    ) -> Result<Permit, Denial> {
        let compiled = &*self.compiled;
        if special == Some(Special::HostGateway) {
            if compiled.opens_host_gateway(to.port()) {
                return Ok(self.permit(Reason::AllowedHostGateway, to, None));
            }
            return match compiled.allow_names.exact(name.as_str(), to.port()) {
                Found::Entry(grant) => Ok(self.permit(Reason::AllowedHostGateway, to, Some(grant))),
                Found::OtherPort(_) | Found::Nothing => {
                    Err(self.refuse(Reason::DeniedHostGateway, to))
                }
            };
        }
        match (
            compiled.allow_names.allows(name.as_str(), to.port()),
            compiled.default,
        ) {
            (Found::Entry(grant), _) => Ok(self.permit(Reason::AllowedRule, to, Some(grant))),
            (_, Default::AllowPublic) => Ok(self.permit(Reason::AllowedDefaultPublic, to, None)),
            (Found::OtherPort(entry), Default::Deny) => {
                Err(self.refuse_by(Reason::DeniedPort, entry, to))
            }
            (Found::Nothing, Default::Deny) => Err(self.refuse(Reason::DeniedDefault, to)),
        }
    }

    fn decide_address(
        &self,
        address: IpAddr,
        to: &Destination,
        hosts: &HostAddresses,
    ) -> Result<Permit, Denial> {
        let class = hosts.class_of(address);
        if !class.can_be_granted() && class != Class::Host {
            return Err(self.refuse(class.denied(), to));
        }
        let granted = self.grant_address(address, class, to);
        if let Some(grant) = self.compiled.deny_address(address, to.port()) {
            let allowed_otherwise = granted.is_ok();
            let rule = Some(self.compiled.rule(grant).clone());
            return Err(Denial::of(
                Reason::DeniedRule,
                to,
                rule,
                Cause::Deny { allowed_otherwise },
            ));
        }
        granted
    }

    fn grant_address(
        &self,
        address: IpAddr,
        class: Class,
        to: &Destination,
    ) -> Result<Permit, Denial> {
        let compiled = &*self.compiled;
        if class == Class::Host {
            return match compiled.opens_host_gateway(to.port()) {
                true => Ok(self.permit(Reason::AllowedHostGateway, to, None)),
                false => Err(self.refuse(Reason::DeniedHostGateway, to)),
            };
        }
        match (
            compiled.allow_nets.find(address, to.port()),
            compiled.default,
        ) {
            (Found::Entry(grant), _) => Ok(self.permit(Reason::AllowedRule, to, Some(grant))),
            (_, Default::AllowPublic) if class == Class::Public => {
                Ok(self.permit(Reason::AllowedDefaultPublic, to, None))
            }
            (Found::OtherPort(entry), _) => Err(self.refuse_by(Reason::DeniedPort, entry, to)),
            (Found::Nothing, _) => Err(self.refuse(class.denied(), to)),
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
        if let Some(entry) = compiled.deny_names.denies_every_port(name.as_str()) {
            let rule = Some(compiled.rule_of(entry).clone());
            return Err(Denial::of_name(Reason::DeniedRule, name, rule));
        }
        match special {
            Some(_) => match compiled.host_gateway.is_some()
                || compiled.allow_names.knows_exact(name.as_str())
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
                    Ok(Target::Name(name)) => match self
                        .compiled
                        .deny_names
                        .denies(name.as_str(), decided.port())
                    {
                        None => Ok(()),
                        Some(entry) => Err(self.refuse_by(Reason::DeniedRule, entry, decided)),
                    },
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

    fn refuse_by(&self, reason: Reason, entry: u32, to: &Destination) -> Denial {
        let rule = self.compiled.rule_of(entry).clone();
        Denial::of(reason, to, Some(rule), Cause::Decision)
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
                    pattern.and_then(|pattern| self.allow_names.more_addresses(pattern, to.port()));
                let own = self.entry(grant.entry).addresses.iter();
                own.chain(more.into_iter().flatten())
                    .any(|net| net.contains(&address))
            }
        }
    }
}
