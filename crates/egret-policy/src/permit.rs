//! What a decision grants, and the addresses that may be dialled for it.
//!
//! A [`Permit`] comes out of [`crate::Matcher::decide`] only and a [`Vetted`] out of [`Permit::vet`] only, so whoever
//! holds one knows that the steps before it were taken. A permit carries what it allows: a policy that is replaced
//! between deciding and dialling does not change it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::addr::{Class, HostAddresses};
use crate::denial::{Cause, Denial};
use crate::destination::{Destination, Target};
use crate::guard::stands;
use crate::host::Host;
use crate::matcher::{Compiled, Grant};
use crate::program::{Asker, Program, Programs};
use crate::reason::Reason;
use crate::request::Asked;
use crate::rule::RuleId;

/// Leave to connect to one destination, once what it resolves to has been vetted.
///
/// It cannot be forged, nor used for two connections:
///
/// ```compile_fail,E0451
/// let forged = egret_policy::Permit {
///     destination: todo!(), by: todo!(), reason: todo!(), grant: None, refused_requests: todo!(), compiled: todo!(),
/// };
/// ```
///
/// ```compile_fail,E0599
/// fn twice(permit: &egret_policy::Permit) -> egret_policy::Permit {
///     egret_policy::Permit::clone(permit)
/// }
/// ```
pub struct Permit {
    destination: Destination,
    by: By,
    reason: Reason,
    grant: Option<Grant>,
    /// The deny entries that refuse some of the requests.
    refused_requests: Box<[u32]>,
    compiled: Arc<Compiled>,
}

/// Who asked, kept.
enum By {
    Program(Box<Program>),
    Unknown,
    Anyone,
}

/// What has to be known before a permit's destination can be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Resolve this name, once, and vet every address of the answer.
    Name(&'a Host),
    /// Nothing to resolve: vet this address alone.
    Literal(IpAddr),
    /// The host: vet the addresses that this name stands for in this runtime ([`HostAddresses::gateway`], or what the
    /// engine's own resolver says).
    HostGateway(&'a Host),
}

impl Permit {
    pub(crate) fn new(
        destination: Destination,
        by: Asker<'_>,
        reason: Reason,
        grant: Option<Grant>,
        refused_requests: Box<[u32]>,
        compiled: Arc<Compiled>,
    ) -> Self {
        let by = match by {
            Asker::Program(program) => By::Program(Box::new(program.clone())),
            Asker::Unknown => By::Unknown,
            Asker::Anyone => By::Anyone,
        };
        Self {
            destination,
            by,
            reason,
            grant,
            refused_requests,
            compiled,
        }
    }

    /// Where it leads.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Why it was granted; always one of the allowed reasons.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The entry that granted it; none where a default or a flag did.
    pub fn rule(&self) -> Option<&RuleId> {
        let grant = self.grant.as_ref()?;
        Some(self.compiled.rule_of(grant.entry))
    }

    /// The free text of that entry's `reason:`.
    pub fn note(&self) -> Option<&str> {
        self.compiled.note_of(self.grant.as_ref()?.entry)
    }

    /// Whether it is for certain requests only: then each has to be put to [`Self::request`], and nothing that is not
    /// HTTP may be carried.
    pub fn inspects(&self) -> bool {
        !self.refused_requests.is_empty() || !self.grants_every_request()
    }

    /// Whether it depends on the request: else each is allowed that is one.
    pub fn tells_requests_apart(&self) -> bool {
        let grant = self.grant.as_ref().filter(|_| !self.grants_every_request());
        let everything = |entry| self.compiled.requests_of(entry).list_everything();
        !self.refused_requests.is_empty()
            || grant.is_some_and(|grant| !grant.entries().any(everything))
    }

    fn grants_every_request(&self) -> bool {
        self.grant.as_ref().is_none_or(|grant| {
            let mut entries = grant.entries();
            entries.any(|entry| self.compiled.requests_of(entry).are_all())
        })
    }

    /// Decides on one HTTP request: its method, and its target in origin form (RFC 9112, section 3.2.1). The query is left
    /// aside. A path that servers read in different ways is refused unless it is allowed in all of them.
    ///
    /// # Errors
    /// [`Reason::DeniedRequest`], with the entry that refuses it or that lists others.
    pub fn request(&self, method: &str, target: &str) -> Result<(), Denial> {
        // What is no request at all, and has no method, is none of them.
        if !self.inspects() || (!method.is_empty() && !self.tells_requests_apart()) {
            return Ok(());
        }
        let refuse = |rule: Option<&RuleId>, cause| {
            let rule = rule.cloned();
            Err(Denial::of(
                Reason::DeniedRequest,
                &self.destination,
                rule,
                cause,
            ))
        };
        let asked = match Asked::read(method, target) {
            Ok(asked) => asked,
            Err(why) => return refuse(self.rule(), Cause::Told(why.into())),
        };
        let requests = |entry: &u32| self.compiled.requests_of(*entry);
        let mut refused = self.refused_requests.iter();
        let refused_by = refused.find(|entry| asked.may_be_meant(requests(entry)));
        let allowed = self.grants_every_request()
            || self.grant.as_ref().is_some_and(|grant| {
                asked.is_always_meant(
                    grant
                        .entries()
                        .map(|entry| self.compiled.requests_of(entry)),
                )
            });
        let rule = match (refused_by, allowed) {
            (Some(deny), _) => Some(self.compiled.rule_of(*deny)),
            (None, false) => self.rule(),
            (None, true) => return Ok(()),
        };
        let cause = Cause::Request {
            method: method.into(),
            path: target.split('?').next().unwrap_or_default().into(),
            by_deny: refused_by.is_some(),
        };
        refuse(rule, cause)
    }

    /// What has to be resolved before dialling.
    pub fn lookup(&self) -> Lookup<'_> {
        match (self.destination.target(), self.reason) {
            (Target::Address(address), _) => Lookup::Literal(*address),
            (Target::Name(name), Reason::AllowedHostGateway) => Lookup::HostGateway(name),
            (Target::Name(name), _) => Lookup::Name(name),
        }
    }

    /// Judges what the destination resolved to. One forbidden address refuses the whole answer.
    ///
    /// # Errors
    /// [`Reason::DeniedResolution`] for an empty answer, [`Reason::DeniedRule`] for an address that a deny entry names,
    /// [`Reason::DeniedHostGatewayAddressMismatch`] for a host-gateway name that stands for something else, and
    /// otherwise the reason of the address's [`Class`].
    ///
    /// Of several entries that grant the permit, those remain that let the name resolve to the whole answer: what they say
    /// of requests is what counts from here on.
    pub fn vet(&mut self, answer: &[IpAddr], hosts: &HostAddresses) -> Result<Vetted, Denial> {
        if answer.is_empty() {
            return Err(Denial::of(
                Reason::DeniedResolution,
                &self.destination,
                self.rule().cloned(),
                Cause::Decision,
            ));
        }
        let mut addresses = Vec::with_capacity(answer.len());
        for &address in answer {
            let address = address.to_canonical();
            if let Err(reason) = self.admits(address, hosts) {
                return Err(self.refuse(reason, address, answer, hosts));
            }
            let address = SocketAddr::new(address, self.destination.port());
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if let (Lookup::Name(_), Some(grant)) = (self.lookup(), &self.grant)
            && !grant.more.is_empty()
        {
            self.grant = Some(self.narrowed(grant, answer, hosts)?);
        }
        Ok(Vetted { addresses })
    }

    /// The entries that let a name resolve to the whole answer. If each lets it resolve to a part, together they do so only
    /// where none of them is about certain requests: those would be asked elsewhere than it says.
    fn narrowed(
        &self,
        grant: &Grant,
        answer: &[IpAddr],
        hosts: &HostAddresses,
    ) -> Result<Grant, Denial> {
        let outside = |entry: u32| {
            let mut answer = answer.iter().map(IpAddr::to_canonical);
            answer.find(|&address| {
                let class = hosts.class_of(address);
                !self.compiled.entry_grants(entry, class, address)
            })
        };
        let whole: Vec<u32> = grant
            .entries()
            .filter(|&entry| outside(entry).is_none())
            .collect();
        if let [entry, more @ ..] = whole.as_slice() {
            let (entry, more) = (*entry, more.into());
            return Ok(Grant { entry, more });
        }
        let every = |entry| self.compiled.requests_of(entry).are_all();
        match outside(grant.entry) {
            Some(address) if !grant.entries().all(every) => {
                let reason = not_listed(hosts.class_of(address));
                Err(self.refuse(reason, address, answer, hosts))
            }
            _ => Ok(grant.clone()),
        }
    }

    /// Whether a request may be allowed: not if a deny entry lists all of them.
    pub(crate) fn allows_some_request(&self) -> Result<(), Denial> {
        let mut refused = self.refused_requests.iter();
        match refused.find(|entry| self.compiled.requests_of(**entry).list_everything()) {
            Some(_) => self.request("GET", "/"),
            None => Ok(()),
        }
    }

    /// Whether there may be an address that its name resolves to: not if deny entries name all of them.
    pub(crate) fn leads_somewhere(&self, hosts: &HostAddresses) -> Result<(), Denial> {
        let everything = ["0.0.0.0/0", "::/0"].map(|net| net.parse::<IpNet>().ok());
        let public = match &self.grant {
            Some(grant) => self.compiled.grants_public(grant),
            None => true,
        };
        let public = everything.into_iter().flatten().filter(|_| public);
        let nets = self.grant.iter().flat_map(Grant::entries);
        let nets = nets.flat_map(|entry| self.compiled.addresses_of(entry).iter().copied());
        let mut nets: Vec<_> = public.chain(nets).collect();
        let (port, by) = (self.destination.port(), self.asker());
        let refused = nets.first().copied();
        nets.retain(|net| !self.compiled.denies_whole(net, port, by));
        match (nets.is_empty(), refused) {
            (true, Some(net)) => {
                let address = net.network();
                Err(self.refuse(Reason::DeniedRule, address, &[address], hosts))
            }
            _ => Ok(()),
        }
    }

    /// What an address has to be, as the end of a sentence.
    pub(crate) fn addresses_in_words(&self) -> &'static str {
        let grant = self.grant.as_ref();
        match grant.is_some_and(|grant| !self.compiled.grants_public(grant)) {
            true => "has to be in `only_addresses` of the entry",
            false => "has to be public, or in `addresses` of the entry",
        }
    }

    /// Which requests, for an explanation.
    pub(crate) fn requests_in_words(&self) -> String {
        let all = |entries: &mut dyn Iterator<Item = u32>| {
            let requests = entries.flat_map(|entry| self.compiled.requests_of(entry).iter());
            in_words(requests.map(ToString::to_string))
        };
        let allowed = match (&self.grant, self.grants_every_request()) {
            (Some(grant), false) => format!("only {}", all(&mut grant.entries())),
            _ => "every one".to_owned(),
        };
        match self.refused_requests.is_empty() {
            true => allowed,
            false => {
                let refused = all(&mut self.refused_requests.iter().copied());
                format!("{allowed}, but not {refused}")
            }
        }
    }

    /// Which programs, for an explanation; none if it is for every program.
    pub(crate) fn programs_in_words(&self) -> Option<String> {
        let grant = self.grant.as_ref()?;
        let programs = || {
            grant
                .entries()
                .map(|entry| self.compiled.programs_of(entry))
        };
        if programs().any(Programs::are_all) {
            return None;
        }
        let patterns = programs().flat_map(Programs::iter).map(|pattern| {
            let started = if pattern.descendants {
                " and what it starts"
            } else {
                ""
            };
            format!("{}{started}", pattern.path.as_str())
        });
        Some(in_words(patterns))
    }

    /// Who asked.
    pub(crate) fn asker(&self) -> Asker<'_> {
        match &self.by {
            By::Program(program) => Asker::Program(program),
            By::Unknown => Asker::Unknown,
            By::Anyone => Asker::Anyone,
        }
    }

    fn denied_by(&self, address: IpAddr) -> Option<u32> {
        let port = self.destination.port();
        self.compiled.deny_address(address, port, self.asker())
    }

    fn admits(&self, address: IpAddr, hosts: &HostAddresses) -> Result<(), Reason> {
        if !stands("vetting") {
            return Ok(());
        }
        if self.denied_by(address).is_some() {
            return Err(Reason::DeniedRule);
        }
        let class = hosts.class_of(address);
        match self.lookup() {
            // A literal is dialled as it was decided on, or not at all.
            Lookup::Literal(literal) if literal != address => Err(class.denied()),
            Lookup::Literal(_) if self.reason == Reason::AllowedHostGateway => match class {
                Class::Host => Ok(()),
                _ => Err(Reason::DeniedHostGatewayAddressMismatch),
            },
            Lookup::HostGateway(_) => match hosts.is_gateway(address) {
                true => Ok(()),
                false => Err(Reason::DeniedHostGatewayAddressMismatch),
            },
            // The literal itself is what the entry allows, or the default.
            Lookup::Literal(_) => match (class, &self.grant) {
                (Class::Public, _) | (Class::Private | Class::Reserved, Some(_)) => Ok(()),
                _ => Err(class.denied()),
            },
            Lookup::Name(_) => match class.can_be_granted() && self.grants(class, address) {
                true => Ok(()),
                false => Err(not_listed(class)),
            },
        }
    }

    fn refuse(
        &self,
        reason: Reason,
        address: IpAddr,
        answer: &[IpAddr],
        hosts: &HostAddresses,
    ) -> Denial {
        let rule = match reason {
            Reason::DeniedRule => {
                let deny = self.denied_by(address);
                deny.map(|deny| self.compiled.rule_of(deny).clone())
            }
            _ => self.rule().cloned(),
        };
        let needed = answer.iter().map(IpAddr::to_canonical);
        let needed = needed.filter(|&address| !self.grants(hosts.class_of(address), address));
        let needed: Vec<_> = needed.collect();
        let all_can_be = needed
            .iter()
            .all(|&address| hosts.class_of(address).can_be_granted());
        let to_grant = all_can_be.then(|| needed.into());
        Denial::of(
            reason,
            &self.destination,
            rule,
            Cause::Address { address, to_grant },
        )
    }

    /// Whether a name may resolve to this address.
    fn grants(&self, class: Class, address: IpAddr) -> bool {
        match &self.grant {
            Some(grant) => {
                let mut entries = grant.entries();
                entries.any(|entry| self.compiled.entry_grants(entry, class, address))
            }
            None => class == Class::Public,
        }
    }
}

/// The reason for an address that no entry lists: for a public one, that there are others that are.
fn not_listed(class: Class) -> Reason {
    match class {
        Class::Public => Reason::DeniedDefault,
        class => class.denied(),
    }
}

/// A list for a sentence, at no great length.
fn in_words(items: impl Iterator<Item = String>) -> String {
    let mut items = items.peekable();
    let shown: Vec<_> = items.by_ref().take(MOST_SHOWN).collect();
    let rest = if items.peek().is_some() { ", …" } else { "" };
    format!("{}{rest}", shown.join(", "))
}

const MOST_SHOWN: usize = 12;

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("destination", &self.destination)
            .field("reason", &self.reason)
            .field("rule", &self.rule())
            .finish_non_exhaustive()
    }
}

/// The addresses that may be dialled for one permit: at least one, each of them vetted, without repetitions, in the
/// order of the answer.
///
/// ```compile_fail,E0451
/// let forged = egret_policy::Vetted { addresses: vec!["127.0.0.1:80".parse().unwrap()] };
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Vetted {
    addresses: Vec<SocketAddr>,
}

impl Vetted {
    /// The addresses, as they are to be dialled.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SocketAddr> + '_ {
        self.addresses.iter().copied()
    }
}
