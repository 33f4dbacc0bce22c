//! Published ports: connections from outside to a program in the sandbox.
//!
//! The other way round than all other doors: whoever connects is outside, and where it leads was said when the port was
//! published. What is looked at is who connects ([`Callers`]) and, where HTTP is spoken, by which name and from whose page
//! ([`InboundHosts`](crate::InboundHosts)), for every request of a connection. No stream is cut for being idle, and a new
//! policy changes nothing here: what may come in is fixed for a run.
//!
//! Not here: how HTTP is read ([`crate::inspect::http`]) and how a connection is relayed ([`crate::flow`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use egret_policy::{Class, Denial, Destination, HostAddresses, Reason, Target};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Client, Reply};
use crate::audit::{Door, Event, Record, Verdict};
use crate::flow::{self, Journey, Tunnel, reset};
use crate::grant::{Grant, Passing};
use crate::inspect::first::{First, Sniffer};
use crate::inspect::hello::Hello;
use crate::inspect::http::head::Request;
use crate::inspect::http::{self, Input, Line, NoRequest, described, origin_form};
use crate::limits::Limit;
use crate::refused::{Refused, in_words};
use crate::sessions::{Open, Slot};
use crate::{Gateway, note_refusal};

/// A port at which programs outside reach one inside.
#[derive(Debug)]
pub struct Published {
    /// Where they connect.
    pub listener: std::net::TcpListener,
    /// The port inside the sandbox, on its loopback.
    pub port: u16,
    /// Who may connect.
    pub from: Callers,
    /// What is spoken there.
    pub speaks: Protocol,
}

/// Who may connect to a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Whoever can reach it.
    Anyone,
    /// This host only: loopback, the address that was connected to, and what counts as the host by
    /// [`Config::hosts`](crate::Config::hosts). A container engine that forwards a port which is published on the host's
    /// loopback comes from there, while another container of the same network comes with an address of its own.
    ThisHost,
}

/// What is spoken at a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 without TLS, and nothing else.
    Http,
    /// Whatever it is. What turns out to be HTTP/1 is read as such; TLS, and everything else, passes unread.
    Unknown,
}

/// A published port, without its listener.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) port: u16,
    pub(crate) from: Callers,
    pub(crate) speaks: Protocol,
}

/// Somebody who may connect.
pub(super) struct Caller {
    port: Arc<Port>,
    peer: SocketAddr,
    /// The address that was connected to, and the port inside.
    addressed: Destination,
    slot: Slot,
}

/// Lets a caller in, or puts on record why not. Does not wait for the log: other callers are waiting.
pub(super) fn admit(
    gateway: &Gateway,
    port: &Arc<Port>,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Option<Caller> {
    let local = stream.local_addr().ok()?.ip();
    let addressed = Destination::new(Target::Address(local), port.port).ok()?;
    let hosts = gateway.hosts.load();
    let slot = match port.from {
        Callers::ThisHost if !is_this_host(&hosts, peer.ip(), local) => {
            let message = "the port is published for this host only, and somebody else connected";
            let refused = Denial::new(Reason::DeniedDefault, addressed.to_string(), message);
            Err(refused.into())
        }
        Callers::ThisHost | Callers::Anyone => gateway.published.slot(&addressed),
    };
    match slot {
        Ok(slot) => Some(Caller {
            port: port.clone(),
            peer,
            addressed,
            slot,
        }),
        Err(refused) => {
            note_refusal(gateway, Door::Published, &refused, |record| {
                by(peer, record.destination(&addressed))
            });
            None
        }
    }
}

fn is_this_host(hosts: &HostAddresses, peer: IpAddr, local: IpAddr) -> bool {
    let (peer, local) = (peer.to_canonical(), local.to_canonical());
    peer.is_loopback()
        || peer == local
        || hosts.class_of(peer) == Class::Host
        || hosts.gateway().contains(&peer)
}

fn by(peer: SocketAddr, mut record: Record) -> Record {
    record.peer = Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()));
    record
}

/// Carries one connection.
pub(super) async fn enter(gateway: Arc<Gateway>, stream: TcpStream, caller: Caller) {
    flow::follow(&gateway, Box::pin(set_out(&gateway, stream, caller))).await;
}

/// Everything up to the moment from which bytes may flow. Whoever gets no further has been told.
async fn set_out(
    gateway: &Gateway,
    stream: TcpStream,
    caller: Caller,
) -> Option<Box<Journey<Invited>>> {
    let id = gateway.log.id();
    let mut client = Client::new(stream, Input::default(), Door::Published, Reply::Nothing);
    let (peer, addressed) = (caller.peer, caller.addressed.clone());
    match arrive(gateway, caller, &mut client, &id).await {
        Ok(tunnel) => return Some(Journey::new(id, client, tunnel, Vec::new())),
        Err(NoRequest::End) => {}
        Err(NoRequest::Gone) => reset(&client.stream),
        Err(NoRequest::Refused(refused)) => {
            turn_down(gateway, client, &refused, (peer, &addressed), &id).await;
        }
    }
    None
}

/// Everything that has to happen before the first byte goes in.
async fn arrive(
    gateway: &Gateway,
    caller: Caller,
    client: &mut Client,
    id: &str,
) -> Result<Tunnel<Invited>, NoRequest> {
    let Caller {
        port,
        peer,
        addressed,
        slot,
    } = caller;
    let destination = match port.speaks {
        Protocol::Unknown => addressed,
        Protocol::Http => {
            begins_http(gateway, client).await?;
            client.reply = Reply::Http;
            let limits = &gateway.limits;
            let request = client.input.request(&client.stream, limits, true).await?;
            let request = client.request.insert(Box::new(request));
            let checked = gateway.inbound.check(request, port.port);
            checked.map_err(NoRequest::Refused)?.destination
        }
    };
    let invited = Invited {
        destination,
        peer,
        port: port.port,
    };
    let opened = open(gateway, invited, slot, id).await;
    opened.map_err(NoRequest::Refused)
}

/// Reads as much as it takes to see that HTTP/1 is spoken.
async fn begins_http(gateway: &Gateway, client: &mut Client) -> Result<(), NoRequest> {
    let Client { stream, input, .. } = client;
    let refuse = |why| Err(NoRequest::Refused(Refused::protocol("", why)));
    let look = async {
        let mut sniffer = Sniffer::default();
        loop {
            let seen = input.bytes().len();
            match input.fill(stream).await {
                Ok(0) if seen == 0 => return Err(NoRequest::End),
                Ok(0) | Err(_) => return Err(NoRequest::Gone),
                Ok(_) => {}
            }
            match sniffer.push(input.bytes().get(seen..).unwrap_or_default()) {
                First::Http => return Ok(()),
                First::Http2 => return refuse("HTTP/2 without TLS is not carried; use HTTP/1.1"),
                First::Bad(why) => return refuse(why),
                First::Hold if !sniffer.could_be_tls() => {}
                First::Hold | First::Tls(_) => {
                    return refuse("TLS was begun, and HTTP without TLS is spoken at this port");
                }
                First::Watch | First::Prelude | First::Opaque => {
                    return refuse("this is not HTTP, and nothing else is spoken at this port");
                }
            }
        }
    };
    match timeout(gateway.limits.handshake_time, look).await {
        Ok(looked) => looked,
        // Browsers open connections that they may come to need.
        Err(_) if client.input.bytes().is_empty() => Err(NoRequest::End),
        Err(_) => Err(NoRequest::Refused(Refused::limit(Limit::HandshakeTime, ""))),
    }
}

/// Connects inside, and puts it on record.
async fn open(
    gateway: &Gateway,
    invited: Invited,
    slot: Slot,
    id: &str,
) -> Result<Tunnel<Invited>, Refused> {
    let since = Instant::now();
    let reached = gateway.entrance.connect(invited.port).await;
    let reached = reached.and_then(|server| Ok((server.peer_addr()?, server)));
    let (to, server) = reached.map_err(|error| {
        let port = invited.port;
        let cause = in_words(&error);
        invited.unreachable(format!("port {port} inside the sandbox: {cause}"))
    })?;
    let session = slot.enter(
        id,
        Door::Published,
        invited.destination.clone(),
        Vec::new(),
        None,
    );
    let record = gateway.record(Event::Decision, id).door(Door::Published);
    let mut record = by(invited.peer, record.destination(&invited.destination));
    record.verdict = Some(Verdict::Allow);
    record.reason = Some(ALLOWED.into());
    record.dialled = Some(to);
    gateway
        .before_it_passes(record, &invited.destination)
        .await?;
    Ok(Tunnel {
        session,
        grant: invited,
        server,
        to,
        since,
    })
}

async fn turn_down(
    gateway: &Gateway,
    client: Client,
    refused: &Refused,
    (peer, addressed): (SocketAddr, &Destination),
    id: &str,
) {
    let destination = match refused {
        Refused::Unreachable { destination, .. } => destination,
        _ => addressed,
    };
    let destination = Some(destination);
    let request = client.request.as_deref();
    let add = |record| match request {
        Some(request) => described(request, origin_form(request.target()))(by(peer, record)),
        None => by(peer, record),
    };
    gateway
        .refused_with(id, client.door, destination, refused, add)
        .await;
    match (refused, client.reply) {
        (_, Reply::Http) => http::answer(&client.stream, refused, destination, id).await,
        // It may be HTTP, as far as anybody has looked.
        (Refused::Unreachable { .. } | Refused::Limit { .. }, _)
            if client.input.bytes().is_empty() =>
        {
            client.refuse(refused, id, destination).await;
        }
        _ => reset(&client.stream),
    }
}

/// Leave for a connection into the sandbox.
#[derive(Debug)]
pub(crate) struct Invited {
    /// By which name or address it was asked for, and the port inside.
    destination: Destination,
    peer: SocketAddr,
    port: u16,
}

impl Grant for Invited {
    const READS_TLS: bool = false;

    fn destination(&self) -> &Destination {
        &self.destination
    }

    fn requests_only(&self) -> bool {
        // Where it is so, the first request was read before there was this.
        false
    }

    fn tls(&self, _: &Gateway, _: &Open, _: &Hello) -> Result<(), Refused> {
        Ok(())
    }

    fn request<'a>(
        &'a self,
        gateway: &Gateway,
        _: &Open,
        request: &'a Request,
    ) -> Result<Passing<'a>, Refused> {
        let addressed = gateway.inbound.check(request, self.port)?;
        let line = Line {
            target: addressed.target,
            host: addressed.host,
            bound: true,
            last: false,
            tells_end: true,
        };
        Ok(Passing {
            framing: request.framing()?,
            line,
            permit: None,
        })
    }

    fn unreachable(&self, cause: String) -> Refused {
        Refused::Unreachable {
            code: ALLOWED,
            rule: None,
            destination: self.destination.clone(),
            addresses: Arc::default(),
            cause,
        }
    }

    fn asker(&self, _: &Open, record: Record) -> Record {
        by(self.peer, record)
    }
}

/// The code of the reason for which connections come in.
const ALLOWED: &str = "allowed.published";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_told_from_its_neighbours() {
        let hosts = HostAddresses::new(["172.18.0.1".parse().unwrap()]).with_gateway(vec![
            "169.254.1.2".parse().unwrap(),
            "10.0.2.2".parse().unwrap(),
        ]);
        #[rustfmt::skip]
        let table = [
            ("127.0.0.1",           true ),
            ("::1",                 true ),
            ("172.18.0.1",          true ),
            ("::ffff:172.18.0.1",   true ),
            ("172.17.0.1",          true ),
            ("172.18.0.3",          true ),
            ("169.254.1.2",         true ),
            ("10.0.2.2",            true ),
            ("172.18.0.4",          false),
            ("::ffff:172.18.0.4",   false),
            ("10.0.2.3",            false),
            ("169.254.169.254",     false),
            ("93.184.216.34",       false),
            ("fd00::2",             false),
        ];
        let local = "172.18.0.3".parse().unwrap();
        for (peer, expected) in table {
            let peer = peer.parse().unwrap();
            assert_eq!(is_this_host(&hosts, peer, local), expected, "{peer}");
        }
    }
}
