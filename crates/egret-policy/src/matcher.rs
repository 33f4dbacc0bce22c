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
use crate::matcher::patterns::NameTable;
use crate::names::{Special, special};
use crate::permit::Permit;
use crate::policy::{Default, Entry, HostGatewayPorts, What};
use crate::program::{Asker, Program, ProgramPattern, Programs};
use crate::reason::Reason;
use crate::request::Requests;
use crate::rule::RuleId;
use crate::text::entry::Side;

mod found;
pub(crate) mod nets;
pub(crate) mod patterns;

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

#[derive(Debug)]
pub(crate) struct Compiled {
    default: Default,
    host_gateway: Option<HostGatewayPorts>,
    entries: Vec<CompiledEntry>,
    allow: Tables,
    deny: Tables,
    /// The deny entries that are about some requests only; they name no addresses.
    deny_requests: NameTable,
    asks_for_programs: bool,
}

/// Entries by what they name.
#[derive(Debug, Default)]
struct Tables {
    names: NameTable,
    nets: NetTable,
}

#[derive(Debug, PartialEq, Eq)]
struct CompiledEntry {
    rule: RuleId,
    note: Option<Arc<str>>,
    addresses: Box<[IpNet]>,
    only_addresses: bool,
    programs: Programs,
    requests: Requests,
}

impl Tables {
    fn with_capacity(entries: usize) -> Self {
        Self {
            names: NameTable::with_capacity(entries),
            nets: NetTable::default(),
        }
    }

    fn insert(&mut self, entry: &Entry, index: u32, same: impl Fn(u32, u32) -> bool) {
        let ports = entry.ports.as_slice();
        match &entry.what {
            What::Name(pattern) => self.names.insert(pattern, ports, index, same),
            What::Net(net) => self.nets.insert(*net, ports, index, same),
        }
    }
}

impl Compiled {
    /// Compiles entries, those of `allow` first.
    pub(crate) fn new(
        default: Default,
        host_gateway: Option<HostGatewayPorts>,
        allow: &[Entry],
        deny: &[Entry],
    ) -> Self {
        let mut compiled = Self {
            default,
            host_gateway,
            entries: Vec::with_capacity(allow.len() + deny.len()),
            allow: Tables::with_capacity(allow.len()),
            deny: Tables::with_capacity(deny.len()),
            deny_requests: NameTable::default(),
            asks_for_programs: false,
        };
        let allow = allow.iter().map(|entry| (entry, Side::Allow));
        let deny = deny.iter().map(|entry| (entry, Side::Deny));
        for (entry, side) in allow.chain(deny) {
            let index = u32::try_from(compiled.entries.len()).unwrap_or(u32::MAX);
            compiled.entries.push(CompiledEntry {
                rule: entry.rule.clone(),
                note: entry.note.clone(),
                addresses: entry.addresses.clone(),
                only_addresses: entry.only_addresses,
                programs: entry.programs.clone(),
                requests: match side {
                    Side::Allow => entry.requests.clone(),
                    Side::Deny => entry.requests.folded(),
                },
            });
            compiled.asks_for_programs |= !entry.programs.are_all();
            let entries = &compiled.entries;
            let same = |one: u32, other: u32| match (
                entries.get(one as usize),
                entries.get(other as usize),
            ) {
                (Some(one), Some(other)) => one.says_the_same_as(other),
                _ => false,
            };
            match (side, &entry.what) {
                (Side::Allow, _) => compiled.allow.insert(entry, index, same),
                (Side::Deny, What::Name(pattern)) if !entry.requests.are_all() => {
                    let ports = entry.ports.as_slice();
                    compiled.deny_requests.insert(pattern, ports, index, same);
                }
                (Side::Deny, _) => compiled.deny.insert(entry, index, same),
            }
        }
        compiled
    }
}

impl CompiledEntry {
    /// Whether the two grant the same, where they name the same.
    fn says_the_same_as(&self, other: &Self) -> bool {
        self.addresses == other.addresses
            && self.only_addresses == other.only_addresses
            && self.programs == other.programs
            && self.requests == other.requests
    }
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

    /// See [`Compiled::programs_about`].
    pub(crate) fn programs_about(&self, to: &Destination) -> Vec<Program> {
        self.compiled.programs_about(to)
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
        let permit = |reason, grant| {
            let refused = compiled.refused_requests(to, by);
            let compiled = Arc::clone(&self.compiled);
            Permit::new(to.clone(), by, reason, grant, refused, compiled)
        };
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
                _ if compiled.opens_host_gateway(to.port()) => {
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
        if by_default && public {
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
    /// requests only and nothing but the default lets the address be reached.
    fn confirm_named(&self, permit: &Permit, name: &Host) -> Result<(), Denial> {
        let (decided, compiled) = (permit.destination(), &*self.compiled);
        let (name, port) = (name.as_str(), decided.port());
        // Whoever speaks: a deny entry for some programs only was asked about the address.
        let denies = [&compiled.deny.names, &compiled.deny_requests];
        let denies = denies.map(|names| names.find(name, port, |_| true));
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
        if permit.reason() != Reason::AllowedDefaultPublic {
            return Ok(());
        }
        let every = |entry| compiled.entry(entry).requests.are_all();
        match compiled.allow.names.find(name, port, |_| true) {
            Found::Entry(grant) if !grant.entries().any(every) => {
                let rule = Some(compiled.rule_of(grant.entry).clone());
                let why = "the name that is spoken may receive certain requests only; connect to it by that name";
                let cause = Cause::Told(why.into());
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

impl Asker<'_> {
    fn is_allowed_by(self, entry: &CompiledEntry) -> bool {
        entry.programs.mean(self, Side::Allow)
    }

    fn is_denied_by(self, entry: &CompiledEntry) -> bool {
        entry.programs.mean(self, Side::Deny)
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

/// Programs that are asked about where nobody says which one it is.
const MOST_PROGRAMS: usize = 1_000;

impl Compiled {
    pub(crate) fn rule_of(&self, entry: u32) -> &RuleId {
        &self.entry(entry).rule
    }

    pub(crate) fn note_of(&self, entry: u32) -> Option<&str> {
        self.entry(entry).note.as_deref()
    }

    pub(crate) fn requests_of(&self, entry: u32) -> &Requests {
        &self.entry(entry).requests
    }

    pub(crate) fn addresses_of(&self, entry: u32) -> &[IpNet] {
        &self.entry(entry).addresses
    }

    pub(crate) fn programs_of(&self, entry: u32) -> &Programs {
        &self.entry(entry).programs
    }

    /// The entry that would allow it, but for the port or the program.
    fn near(&self, found: &Found) -> Option<&RuleId> {
        match found {
            Found::OtherPort(entry) | Found::OtherProgram(entry) => Some(self.rule_of(*entry)),
            Found::Entry(_) | Found::Nothing => None,
        }
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

    /// Programs that entries about a destination tell apart, at most so many as are worth asking about.
    pub(crate) fn programs_about(&self, to: &Destination) -> Vec<Program> {
        let (mut entries, port) = (Vec::new(), to.port());
        let tables = [&self.allow, &self.deny];
        match to.target() {
            Target::Name(name) => {
                let names = tables.map(|tables| &tables.names);
                for names in names.into_iter().chain([&self.deny_requests]) {
                    names.find_all(name.as_str(), port, |_| true, &mut entries);
                }
            }
            Target::Address(address) => {
                for tables in tables {
                    tables.nets.find_all(*address, port, |_| true, &mut entries);
                }
            }
        }
        let patterns = entries
            .into_iter()
            .flat_map(|entry| self.entry(entry).programs.iter());
        let examples = patterns.flat_map(ProgramPattern::examples);
        let mut programs: Vec<_> = examples.take(MOST_PROGRAMS).collect();
        programs.sort();
        programs.dedup();
        programs
    }

    fn allows(&self, to: &Destination, by: Asker<'_>, only_exact: bool) -> Found {
        let meant = |entry| by.is_allowed_by(self.entry(entry));
        match to.target() {
            Target::Name(name) if only_exact => {
                self.allow.names.find_exact(name.as_str(), to.port(), meant)
            }
            Target::Name(name) => self.allow.names.find(name.as_str(), to.port(), meant),
            Target::Address(address) => self.allow.nets.find(*address, to.port(), meant),
        }
    }

    /// The deny entry that refuses a destination.
    fn denies(&self, to: &Destination, by: Asker<'_>) -> Option<u32> {
        let meant = |entry| by.is_denied_by(self.entry(entry));
        match to.target() {
            Target::Name(name) => match self.deny.names.find(name.as_str(), to.port(), meant) {
                Found::Entry(grant) => Some(grant.entry),
                _ => None,
            },
            Target::Address(address) => self.deny_address(*address, to.port(), by),
        }
    }

    /// The deny entry that names an address, or an IPv4 address inside it.
    pub(crate) fn deny_address(&self, address: IpAddr, port: u16, by: Asker<'_>) -> Option<u32> {
        let meant = |entry| by.is_denied_by(self.entry(entry));
        crate::addr::readings(address).find_map(|reading| {
            match self.deny.nets.find(reading, port, meant) {
                Found::Entry(grant) => Some(grant.entry),
                _ => None,
            }
        })
    }

    /// The deny entries that refuse some requests to a destination.
    fn refused_requests(&self, to: &Destination, by: Asker<'_>) -> Box<[u32]> {
        let mut entries = Vec::new();
        if let (Target::Name(name), false) = (to.target(), self.deny_requests.is_empty()) {
            let meant = |entry| by.is_denied_by(self.entry(entry));
            let names = &self.deny_requests;
            names.find_all(name.as_str(), to.port(), meant, &mut entries);
        }
        entries.into()
    }

    /// Whether what granted a permit lets a name resolve to any public address.
    pub(crate) fn grants_public(&self, grant: &Grant) -> bool {
        let any = |entry| !self.entry(entry).only_addresses;
        grant.entries().any(any)
    }

    /// Whether an entry lets a name resolve to this address, which is of a class that can be granted.
    pub(crate) fn entry_grants(&self, entry: u32, class: Class, address: IpAddr) -> bool {
        let entry = self.entry(entry);
        let any_public = class == Class::Public && !entry.only_addresses;
        any_public || entry.addresses.iter().any(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
