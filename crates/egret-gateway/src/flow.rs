//! The way of one connection: decide, resolve, vet, dial, record, look, relay, record.
//!
//! The doors end here with what they have read, and everything that follows is the same for all of them.
//! [`carry`] is the page to read; no stage below it answers the client or the log behind its back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egret_policy::{Denial, Destination, Permit, Reason, Spoken};
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::Gateway;
use crate::audit::{Door, Event, Record};
use crate::dial::Dialled;
use crate::door::Client;
use crate::identify::Asker;
use crate::inspect::first::{First, Sniffer};
use crate::inspect::http::{self, Input};
use crate::limits::Limit;
use crate::refused::Refused;
use crate::relay::{self, Half};
use crate::sessions::{Lost, Session};

/// Carries one connection from the door it came through to its end.
pub(crate) async fn carry(
    gateway: &Arc<Gateway>,
    mut client: Client,
    wanted: Result<Destination, Refused>,
) {
    let id = gateway.log.id();
    let (destination, wanted) = match wanted.and_then(|wanted| gateway.meant(wanted)) {
        Ok(destination) => (Some(destination.clone()), Ok(destination)),
        Err(refused) => (None, Err(refused)),
    };
    // Boxed are the stages that are over once bytes flow: an idle tunnel does not keep room for them.
    let mut asker = Asker::new(&client.stream, client.door);
    let any = |_: &Permit| Ok(());
    let opened = Box::pin(open(gateway, &mut asker, wanted, &id, any, |record| record)).await;
    let program = asker.into_program();
    match opened {
        Ok(Opened { tunnel, early, .. }) => match client.accept().await {
            Ok(()) => travel(gateway, client, tunnel, early, &id).await,
            Err(_) => {
                Box::pin(close(
                    gateway,
                    &id,
                    tunnel,
                    client,
                    Traffic::default(),
                    None,
                ))
                .await;
            }
        },
        Err(refused) => {
            let add = |record: Record| record.program(program.as_deref());
            Box::pin(turn_down(gateway, client, refused, &id, destination, add)).await;
        }
    }
}

async fn turn_down(
    gateway: &Gateway,
    client: Client,
    refused: Refused,
    id: &str,
    destination: Option<Destination>,
    add: impl FnOnce(Record) -> Record,
) {
    let destination = destination.as_ref();
    gateway
        .refused_with(id, client.door, destination, &refused, add)
        .await;
    client.refuse(&refused, id, destination).await;
}

/// A connection that was allowed, dialled and recorded, and over which nothing has gone yet.
pub(crate) struct Tunnel {
    pub(crate) session: Session,
    pub(crate) permit: Permit,
    pub(crate) server: TcpStream,
    /// Where it was dialled to, which is not where it leads if that is a proxy's.
    pub(crate) to: SocketAddr,
    pub(crate) since: Instant,
}

/// A tunnel, and what was learnt on the way to it.
pub(crate) struct Opened {
    pub(crate) tunnel: Tunnel,
    /// What the server's side has sent already.
    pub(crate) early: Vec<u8>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// What went over a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

/// Everything that has to happen before the first byte may pass. `check` puts to the permit what it is wanted for,
/// `add` completes the record.
pub(crate) async fn open(
    gateway: &Gateway,
    asker: &mut Asker<'_>,
    wanted: Result<Destination, Refused>,
    id: &str,
    check: impl Fn(&Permit) -> Result<(), Denial>,
    add: impl FnOnce(Record) -> Record,
) -> Result<Opened, Refused> {
    let destination = wanted?;
    let since = Instant::now();
    let slot = gateway.sessions.slot(&destination)?;
    let matcher = gateway.matcher.load_full();
    let hosts = gateway.hosts.load_full();
    asker.identify(&gateway.identifier, &matcher).await;
    let permit = matcher.decide(&destination, asker.program(), &hosts)?;
    check(&permit)?;
    if gateway.dialler.asks(&permit) {
        // The question is the first thing that leaves.
        let record = gateway.record(Event::Dns, id).door(asker.door);
        let record = record.permit(&permit);
        gateway.before_it_passes(&record, &destination).await?;
    }
    let Dialled {
        stream: server,
        permit,
        addresses,
        to,
        early,
    } = gateway.dialler.dial(permit, &hosts).await?;
    // Of several entries only those count by now that let it lead there.
    check(&permit)?;
    let session = slot.enter(destination, addresses.clone());
    session.open.asked_by(asker.shared_program());
    let now = gateway.matcher.load_full();
    if !Arc::ptr_eq(&now, &matcher) {
        // The policy was replaced while we dialled, before the connection was there to be decided again.
        session.open.decide_again(&now, &hosts);
        if let Some(Lost::Denied(denial)) = session.open.lost() {
            return Err(denial.clone().into());
        }
    }
    let mut record = gateway
        .record(Event::Decision, id)
        .door(asker.door)
        .program(asker.program())
        .permit(&permit);
    record.addresses.clone_from(&addresses);
    record.dialled = Some(to);
    let destination = permit.destination();
    gateway.before_it_passes(&add(record), destination).await?;
    Ok(Opened {
        tunnel: Tunnel {
            session,
            permit,
            server,
            to,
            since,
        },
        early,
        addresses,
    })
}

/// How a connection ended, when it did not simply end.
pub(crate) enum Ending {
    /// One side failed or went away; the other is told the same way.
    Broken,
    /// Something was spoken that may not pass.
    Refused(Refused),
    /// The same, and the client has been told, and it is on record.
    Answered(Reason),
    /// It may not go on.
    Lost(Lost),
}

impl From<io::Error> for Ending {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl From<Refused> for Ending {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

async fn travel(
    gateway: &Arc<Gateway>,
    mut client: Client,
    tunnel: Tunnel,
    early: Vec<u8>,
    id: &str,
) {
    let mut up = Half::default();
    let mut down = Half::starting_with(early);
    let mut by_request = Traffic::default();
    let ended = tokio::select! {
        biased;
        lost = tunnel.session.open.until_lost() => Err(Ending::Lost(lost)),
        ended = converse(gateway, &mut client, &tunnel, (&mut up, &mut down), &mut by_request, id) => ended,
    };
    let traffic = Traffic {
        up: up.moved() + by_request.up,
        down: down.moved() + by_request.down,
    };
    if ended.is_err() {
        if !matches!(ended, Err(Ending::Answered(_))) {
            reset(&client.stream);
        }
        reset(&tunnel.server);
    }
    let why = match ended {
        Ok(()) | Err(Ending::Broken | Ending::Lost(Lost::Shutdown)) => None,
        Err(Ending::Answered(reason)) => Some(reason),
        Err(Ending::Lost(Lost::Denied(denial))) => Some(denial.reason()),
        Err(Ending::Refused(refused)) => {
            let destination = Some(tunnel.permit.destination());
            let program = tunnel.session.open.program();
            let add = |record: Record| record.program(program.as_deref());
            Box::pin(gateway.refused_with(id, client.door, destination, &refused, add)).await;
            Some(refused.reason())
        }
    };
    Box::pin(close(gateway, id, tunnel, client, traffic, why)).await;
}

/// Finds out what the client speaks and lets it pass accordingly. What the server sends flows at once,
/// since many servers speak first.
async fn converse(
    gateway: &Arc<Gateway>,
    client: &mut Client,
    tunnel: &Tunnel,
    (up, down): (&mut Half, &mut Half),
    by_request: &mut Traffic,
    id: &str,
) -> Result<(), Ending> {
    let Client {
        stream,
        input,
        door,
        ..
    } = client;
    let speaks = {
        let mut answering = true;
        let answers = down.run(&tunnel.server, stream, &gateway.pool);
        let mut sniffed = Box::pin(sniff(gateway, stream, input, tunnel, up));
        tokio::pin!(answers);
        loop {
            tokio::select! {
                speaks = &mut sniffed => break speaks?,
                ended = &mut answers, if answering => {
                    ended?;
                    answering = false;
                }
            }
        }
    };
    match speaks {
        Speaks::Opaque => Ok(relay::both(stream, &tunnel.server, up, down, &gateway.pool).await?),
        Speaks::Http if down.moved() > 0 || down.holds_some() => Err(Refused::protocol(
            tunnel.permit.destination().to_string(),
            "HTTP was begun on a connection on which the server spoke first",
        )
        .into()),
        Speaks::Http => {
            tunnel.session.open.reads_requests();
            Box::pin(http::tunnel(
                gateway,
                *door,
                stream,
                std::mem::take(input),
                tunnel,
                by_request,
                id,
            ))
            .await
        }
    }
}

/// What a client speaks on a connection that was opened for it.
enum Speaks {
    Opaque,
    Http,
}

/// Reads the client's first bytes until it is clear what they are. Bytes that may pass are put into `up`;
/// HTTP stays in `input`.
async fn sniff(
    gateway: &Gateway,
    client: &TcpStream,
    input: &mut Input,
    tunnel: &Tunnel,
    up: &mut Half,
) -> Result<Speaks, Ending> {
    let destination = || tunnel.permit.destination().to_string();
    let mut sniffer = Sniffer::default();
    let mut seen = 0;
    let mut watched = false;
    let mut deadline = None;
    // Where requests are decided on, nothing that is not a request may pass.
    let requests_only = tunnel.permit.inspects();
    let no_request = |what| {
        Refused::protocol(
            destination(),
            format!("{what}, and the policy allows certain HTTP requests only"),
        )
    };
    loop {
        let first = match input.bytes().get(seen..) {
            None | Some([]) => None,
            Some(new) => Some(sniffer.push(new)),
        };
        seen = input.bytes().len();
        match first {
            None => {}
            Some(First::Hold) if requests_only => {
                let patience = gateway.limits.handshake_time;
                deadline = deadline.or_else(|| Some(Instant::now() + patience));
            }
            Some(First::Tls(_)) if requests_only => {
                return Err(no_request("requests inside TLS cannot be read").into());
            }
            Some(First::Watch | First::Prelude | First::Opaque) if requests_only => {
                return Err(no_request("this is not HTTP").into());
            }
            Some(First::Hold) if !watched => {
                let patience = if sniffer.could_be_tls() {
                    gateway.limits.handshake_time
                } else {
                    PATIENCE
                };
                deadline = deadline.or_else(|| Some(Instant::now() + patience));
            }
            Some(First::Hold | First::Watch) => {
                pass_on(input, up, &tunnel.server).await?;
                (seen, watched, deadline) = (0, true, None);
            }
            Some(First::Prelude) => {
                pass_on(input, up, &tunnel.server).await?;
                // What comes next is held back like the first bytes, even if the prelude itself was slow.
                sniffer = Sniffer::default();
                (seen, watched, deadline) = (0, false, None);
            }
            Some(First::Tls(hello)) => {
                if let Some(name) = &hello.server_name {
                    tunnel.session.open.speaks(name);
                }
                let matcher = gateway.matcher.load();
                matcher
                    .confirm(&tunnel.permit, Spoken::Sni(hello.server_name.as_deref()))
                    .map_err(Refused::from)?;
                break;
            }
            Some(First::Http) if watched => {
                return Err(Refused::protocol(
                    destination(),
                    "an HTTP request was begun in an unusual way",
                )
                .into());
            }
            Some(First::Http) => return Ok(Speaks::Http),
            Some(First::Http2) => {
                return Err(Refused::protocol(
                    destination(),
                    "HTTP/2 without TLS is not carried; use HTTP/1.1 or TLS",
                )
                .into());
            }
            Some(First::Opaque) => break,
            Some(First::Bad(why)) => return Err(Refused::protocol(destination(), why).into()),
        }
        let read = match deadline {
            None => input.fill(client).await?,
            Some(until) => match timeout_at(until.into(), input.fill(client)).await {
                Ok(read) => read?,
                Err(_) if sniffer.could_be_tls() || requests_only => {
                    return Err(Refused::limit(Limit::HandshakeTime, destination()).into());
                }
                Err(_) => {
                    // No HTTP client stops within its request line: this is something else that waits for an
                    // answer. Should it turn out to be HTTP after all, it goes no further than that line.
                    pass_on(input, up, &tunnel.server).await?;
                    (seen, watched, deadline) = (0, true, None);
                    continue;
                }
            },
        };
        if read == 0 {
            if requests_only && !input.bytes().is_empty() {
                return Err(no_request("the connection ended within the first request").into());
            }
            if sniffer.could_be_tls() {
                return Err(Refused::protocol(
                    destination(),
                    "the connection ended within the ClientHello",
                )
                .into());
            }
            break;
        }
    }
    up.push(&std::mem::take(input).into_bytes());
    Ok(Speaks::Opaque)
}

/// Sends on what the client has sent so far.
async fn pass_on(input: &mut Input, up: &mut Half, server: &TcpStream) -> io::Result<()> {
    up.push(&std::mem::take(input).into_bytes());
    up.flush(server).await?;
    Ok(())
}

/// Ends a connection, then puts its end on record.
pub(crate) async fn close(
    gateway: &Gateway,
    id: &str,
    tunnel: Tunnel,
    client: Client,
    traffic: Traffic,
    why: Option<Reason>,
) {
    let door = client.door;
    drop(client);
    let Tunnel {
        session,
        permit,
        server,
        since,
        ..
    } = tunnel;
    drop(server);
    record_close(gateway, id, door, permit.destination(), since, traffic, why).await;
    drop(session);
}

/// Puts the end of an allowed connection or request on record.
pub(crate) async fn record_close(
    gateway: &Gateway,
    id: &str,
    door: Door,
    destination: &Destination,
    since: Instant,
    traffic: Traffic,
    why: Option<Reason>,
) {
    let mut record = gateway
        .record(Event::Close, id)
        .door(door)
        .destination(destination);
    record.reason = why.map(|reason| reason.code().into());
    record.bytes_up = Some(traffic.up);
    record.bytes_down = Some(traffic.down);
    record.duration_ms = Some(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
    // Nothing can pass any more; what the log could not take is counted there.
    let _ = gateway.log.write(&record, gateway.limits.audit_wait).await;
}

/// Makes closing `stream` a reset: the peer learns at once, and that it was not an orderly end.
pub(crate) fn reset(stream: &TcpStream) {
    // A socket that cannot be told has gone already.
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
}

/// How long bytes that could become an HTTP request line are held back.
const PATIENCE: Duration = Duration::from_secs(1);
