//! The way of one connection: decide, resolve, vet, dial, record, look, relay, record.
//!
//! The doors end here with what they have read, and everything that follows is the same for all of them.
//! [`carry`] is the page to read; no stage below it answers the client or the log behind its back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egret_policy::{Denial, Destination, Permit};
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;

use crate::Gateway;
use crate::audit::{Door, Event, Record};
use crate::dial::Dialled;
use crate::door::Client;
use crate::grant::Grant;
use crate::identify::Asker;
use crate::inspect::begin::{Speaks, begin};
use crate::inspect::http;
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
pub(crate) struct Tunnel<G = Permit> {
    pub(crate) session: Session,
    pub(crate) grant: G,
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
            grant: permit,
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
    /// The same, and the client has been told, and it is on record. The code of the reason.
    Answered(&'static str),
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

/// Carries what is said on an open connection to its end.
pub(crate) async fn travel<G: Grant>(
    gateway: &Gateway,
    mut client: Client,
    tunnel: Tunnel<G>,
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
        Err(Ending::Answered(code)) => Some(code),
        Err(Ending::Lost(Lost::Denied(denial))) => Some(denial.reason().code()),
        Err(Ending::Refused(refused)) => {
            let destination = Some(tunnel.grant.destination());
            let add = |record: Record| tunnel.grant.asker(&tunnel.session.open, record);
            Box::pin(gateway.refused_with(id, client.door, destination, &refused, add)).await;
            Some(refused.code())
        }
    };
    Box::pin(close(gateway, id, tunnel, client, traffic, why)).await;
}

/// Finds out what the client speaks and lets it pass accordingly.
async fn converse<G: Grant>(
    gateway: &Gateway,
    client: &mut Client,
    tunnel: &Tunnel<G>,
    (up, down): (&mut Half, &mut Half),
    by_request: &mut Traffic,
    id: &str,
) -> Result<(), Ending> {
    let Client {
        stream,
        input,
        door,
        request,
        ..
    } = client;
    // One that has been read already says what is spoken.
    if request.is_none()
        && let Speaks::Opaque = begin(gateway, stream, input, tunnel, (up, down)).await?
    {
        return Ok(relay::both(stream, &tunnel.server, up, down, &gateway.pool).await?);
    }
    tunnel.session.open.reads_requests();
    let first = request.take();
    let input = std::mem::take(input);
    let carried = http::tunnel(
        gateway,
        *door,
        stream,
        (input, first),
        tunnel,
        by_request,
        id,
    );
    Box::pin(carried).await
}

/// Ends a connection, then puts its end on record.
pub(crate) async fn close<G: Grant>(
    gateway: &Gateway,
    id: &str,
    tunnel: Tunnel<G>,
    client: Client,
    traffic: Traffic,
    why: Option<&'static str>,
) {
    let door = client.door;
    drop(client);
    let Tunnel {
        session,
        grant,
        server,
        since,
        ..
    } = tunnel;
    drop(server);
    record_close(gateway, id, door, grant.destination(), since, traffic, why).await;
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
    why: Option<&'static str>,
) {
    let mut record = gateway
        .record(Event::Close, id)
        .door(door)
        .destination(destination);
    record.reason = why.map(Into::into);
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
