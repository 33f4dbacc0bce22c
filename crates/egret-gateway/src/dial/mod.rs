//! Opening connections to the outside.
//!
//! Everything that leaves a sandbox leaves through [`Dialler::dial`]; no other module opens an outbound
//! socket, and clippy holds us to it. It takes a [`Permit`] by value, so each connection was decided on.
//!
//! A name is resolved here, once. Every address of the answer is put to the permit, and only what comes
//! out of that ([`Vetted`]) is connected to, never the name: a name that means one server while it is
//! checked and the host's own database a moment later gains nothing.
//!
//! Not here: what is allowed ([`egret_policy`]), and what travels on the connection ([`crate::relay`]).

mod proxy;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use egret_policy::guard::stands;
use egret_policy::{Denial, Destination, HostAddresses, Lookup, Permit, Reason, Vetted};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::HostGateway;
use crate::refused::{Refused, in_words};
use crate::resolve::Resolver;

pub use proxy::{UpstreamProxy, UpstreamProxyError};

/// Dials what a permit allows.
pub(crate) struct Dialler {
    resolver: Resolver,
    host_gateway: HostGateway,
    via: Option<UpstreamProxy>,
    within: Duration,
}

/// A connection to where a permit leads.
pub(crate) struct Dialled {
    pub(crate) stream: TcpStream,
    pub(crate) permit: Permit,
    /// All addresses that were vetted.
    pub(crate) addresses: Vec<IpAddr>,
    /// The one that was connected to, or that an upstream proxy was asked to connect to.
    pub(crate) to: SocketAddr,
    /// What the server's side has sent already, behind an upstream proxy's answer.
    pub(crate) early: Vec<u8>,
}

impl Dialler {
    pub(crate) fn new(
        resolver: Resolver,
        host_gateway: HostGateway,
        via: Option<UpstreamProxy>,
        within: Duration,
    ) -> Self {
        Self {
            resolver,
            host_gateway,
            via,
            within,
        }
    }

    /// Whether somebody outside has to be asked before `permit` can be used.
    pub(crate) fn asks(&self, permit: &Permit) -> bool {
        match (permit.lookup(), &self.host_gateway) {
            (Lookup::Name(name), _) => !self.resolver.knows(name),
            (Lookup::HostGateway(_), HostGateway::Resolved(name)) => !self.resolver.lists(name),
            (Lookup::HostGateway(_), HostGateway::Known) | (Lookup::Literal(_), _) => false,
        }
    }

    /// Asks about a name, whatever any policy says.
    #[cfg(feature = "unguarded")]
    pub(crate) async fn look_up(&self, name: &egret_policy::Host) {
        let (Ok(_) | Err(_)) = self.resolver.addresses(name).await;
    }

    /// Resolves, vets and connects.
    pub(crate) async fn dial(
        &self,
        mut permit: Permit,
        hosts: &HostAddresses,
    ) -> Result<Dialled, Refused> {
        let vetted = self.vet(&mut permit, hosts).await?;
        let targets: Vec<SocketAddr> = vetted.iter().collect();
        let addresses: Vec<IpAddr> = targets.iter().map(SocketAddr::ip).collect();
        // An address of this host is another machine's, or the proxy's own, where the proxy stands.
        let is_host = permit.reason() == Reason::AllowedHostGateway;
        let via = self.via.as_ref().filter(|_| !is_host);
        let reached = match via {
            None => timeout(self.within, race(happy_order(&targets)))
                .await
                .unwrap_or_else(|_| Err(late(self.within))),
            Some(proxy) => timeout(self.within, Box::pin(self.through(proxy, &targets)))
                .await
                .unwrap_or_else(|_| Err(late(self.within))),
        };
        let reached = match reached {
            Ok(reached) => reached,
            Err(error) => {
                return Err(Refused::unreachable(&permit, addresses, in_words(&error)));
            }
        };
        if stands("this-machine")
            && via.is_none()
            && !is_host
            && reaches_this_machine(&reached.stream, reached.to)
        {
            let denial = this_machine(permit.destination(), reached.to);
            return Err(Refused::Address {
                denial,
                addresses: addresses.into(),
            });
        }
        Ok(Dialled {
            stream: reached.stream,
            permit,
            addresses,
            to: reached.to,
            early: reached.early,
        })
    }

    /// Resolves, and puts every address of the answer to the permit.
    pub(crate) async fn vet(
        &self,
        permit: &mut Permit,
        hosts: &HostAddresses,
    ) -> Result<Vetted, Refused> {
        let found = match (permit.lookup(), &self.host_gateway) {
            (Lookup::Literal(address), _) => return Ok(permit.vet(&[address], hosts)?),
            (Lookup::HostGateway(_), HostGateway::Known) => {
                return Ok(permit.vet(hosts.gateway(), hosts)?);
            }
            (Lookup::HostGateway(_), HostGateway::Resolved(alias)) => {
                self.resolver.addresses_now(alias).await
            }
            (Lookup::Name(name), _) => self.resolver.addresses(name).await,
        };
        let addresses = found.map_err(|why| {
            let destination = permit.destination().to_string();
            Denial::new(Reason::DeniedResolution, destination, why.to_string())
        })?;
        permit
            .vet(&addresses, hosts)
            .map_err(|denial| Refused::Address { denial, addresses })
    }

    async fn through(&self, proxy: &UpstreamProxy, targets: &[SocketAddr]) -> io::Result<Reached> {
        let proxies = proxy
            .addresses(&self.resolver)
            .await
            .map_err(behind_proxy)?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for &target in targets {
            let Reached { stream, .. } = race(happy_order(&proxies)).await.map_err(behind_proxy)?;
            match proxy.connect(stream, target).await {
                Ok((stream, early)) => {
                    return Ok(Reached {
                        stream,
                        to: target,
                        early,
                    });
                }
                Err(error) => last = behind_proxy(error),
            }
        }
        Err(last)
    }
}

struct Reached {
    stream: TcpStream,
    to: SocketAddr,
    early: Vec<u8>,
}

/// Connects to the first of `targets` that answers, giving each a head start over the next (RFC 8305).
async fn race(targets: Vec<SocketAddr>) -> io::Result<Reached> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut left = targets.into_iter();
    if left.len() == 1
        && let Some(only) = left.next()
    {
        return connect(only).await;
    }
    let mut attempts = JoinSet::new();
    loop {
        match left.next() {
            Some(next) => {
                attempts.spawn(connect(next));
            }
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        let stagger = async {
            match left.len() {
                0 => std::future::pending().await,
                _ => sleep(STAGGER).await,
            }
        };
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(reached))) => return Ok(reached),
                // A failure starts the next attempt at once: no route costs no time.
                Some(Ok(Err(error))) => last = error,
                Some(Err(_)) | None => {}
            },
            () = stagger => {}
        }
    }
}

/// The only outbound socket.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that connects; its callers hold vetted addresses"
)]
async fn connect(to: SocketAddr) -> io::Result<Reached> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    let stream = socket.connect(to).await?;
    Ok(Reached {
        stream,
        to,
        early: Vec::new(),
    })
}

/// Families take turns, beginning with the first address's.
fn happy_order(targets: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = targets.first() else {
        return Vec::new();
    };
    let (mut one, mut other): (Vec<_>, Vec<_>) = targets
        .iter()
        .copied()
        .partition(|target: &SocketAddr| target.is_ipv4() == first.is_ipv4());
    one.reverse();
    other.reverse();
    let mut order = Vec::with_capacity(targets.len());
    loop {
        match (one.pop(), other.pop()) {
            (None, None) => return order,
            (a, b) => order.extend(a.into_iter().chain(b)),
        }
    }
}

/// A connection whose two ends have one address never left this machine, whatever address that is.
fn reaches_this_machine(stream: &TcpStream, to: SocketAddr) -> bool {
    // An address that cannot be asked for is taken for the worst.
    stream.local_addr().map_or(true, |local| {
        local.ip().to_canonical() == to.ip().to_canonical()
    })
}

fn this_machine(destination: &Destination, to: SocketAddr) -> Denial {
    let message = format!(
        "its address {} turned out to be this very machine's",
        to.ip()
    );
    Denial::new(Reason::DeniedAddressHost, destination.to_string(), message)
}

/// Says that it was on the way to, or at, the upstream proxy that a connection failed.
fn behind_proxy(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the upstream proxy: {error}"))
}

fn late(within: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer within {} s", within.as_secs_f32()),
    )
}

/// RFC 8305's Connection Attempt Delay.
const STAGGER: Duration = Duration::from_millis(250);
