//! What a decision grants, and the addresses that may be dialled for it.
//!
//! A [`Permit`] comes out of [`crate::Matcher::decide`] only and a [`Vetted`] out of [`Permit::vet`] only, so whoever
//! holds one knows that the steps before it were taken. A permit carries what it allows: a policy that is replaced
//! between deciding and dialling does not change it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::addr::{Class, HostAddresses};
use crate::denial::{Cause, Denial};
use crate::destination::{Destination, Target};
use crate::host::Host;
use crate::matcher::{Compiled, Grant};
use crate::reason::Reason;
use crate::rule::RuleId;

/// Leave to connect to one destination, once what it resolves to has been vetted.
///
/// It cannot be forged, nor used for two connections:
///
/// ```compile_fail,E0451
/// let forged = egret_policy::Permit { destination: todo!(), reason: todo!(), grant: None, compiled: todo!() };
/// ```
///
/// ```compile_fail,E0599
/// fn twice(permit: &egret_policy::Permit) -> egret_policy::Permit {
///     egret_policy::Permit::clone(permit)
/// }
/// ```
pub struct Permit {
    destination: Destination,
    reason: Reason,
    grant: Option<Grant>,
    compiled: Arc<Compiled>,
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
        reason: Reason,
        grant: Option<Grant>,
        compiled: Arc<Compiled>,
    ) -> Self {
        Self {
            destination,
            reason,
            grant,
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
        self.grant.map(|grant| self.compiled.rule(grant))
    }

    /// The free text of that entry's `reason:`.
    pub fn note(&self) -> Option<&str> {
        self.grant.and_then(|grant| self.compiled.note(grant))
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
    pub fn vet(&self, answer: &[IpAddr], hosts: &HostAddresses) -> Result<Vetted, Denial> {
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
        Ok(Vetted { addresses })
    }

    fn admits(&self, address: IpAddr, hosts: &HostAddresses) -> Result<(), Reason> {
        if self
            .compiled
            .deny_address(address, self.destination.port())
            .is_some()
        {
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
                false if class == Class::Metadata => Err(Reason::DeniedAddressMetadata),
                false => Err(Reason::DeniedHostGatewayAddressMismatch),
            },
            Lookup::Literal(_) | Lookup::Name(_) => match class {
                Class::Public => Ok(()),
                Class::Private | Class::Reserved if self.grants_address(address) => Ok(()),
                class => Err(class.denied()),
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
                let deny = self.compiled.deny_address(address, self.destination.port());
                deny.map(|deny| self.compiled.rule(deny).clone())
            }
            _ => self.rule().cloned(),
        };
        let needed = answer.iter().map(IpAddr::to_canonical);
        let needed = needed.filter(|&address| {
            hosts.class_of(address) != Class::Public && !self.grants_address(address)
        });
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

    fn grants_address(&self, address: IpAddr) -> bool {
        self.grant.is_some_and(|grant| {
            self.compiled
                .grants_address(grant, &self.destination, address)
        })
    }
}

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
