//! The way of one connection: decide, resolve, vet, dial, record, look, relay, record.
//!
//! The doors end here with what they have read, and everything that follows is the same for all of them.
//! [`carry`] is the page to read; no stage below it answers the client or the log behind its back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egret_policy::guard::stands;
use egret_policy::{Askable, Denial, Destination, HostAddresses, Matcher, Permit};
use rustix::net::sockopt::set_socket_linger;
use tokio::net::TcpStream;

use crate::Gateway;
use crate::activity::Traffic;
use crate::audit::{Door, Event, Record};
use crate::dial::Dialled;
use crate::door::{Asked, Client};
use crate::grant::Grant;
use crate::identify::Asker;
use crate::inspect::begin::{Speaks, begin};
use crate::inspect::http;
use crate::refused::Refused;
use crate::relay::{self, Half};
use crate::sessions::{Lost, Session};

/// Carries one connection from the door it came through to its end.
pub(crate) fn carry(gateway: &Arc<Gateway>, asked: Asked) -> impl Future<Output = ()> + Send {
    follow(gateway, Box::pin(set_out(gateway, asked)))
}

/// Carries what is said on the connection that comes of `set_out`, to its end.
///
/// Boxed is what is over once bytes flow, and by reference goes what is there as long as they do (an argument of an
/// `async fn` that is a value is kept twice): an idle tunnel holds little more than its two sockets.
pub(crate) async fn follow<G: Grant>(
    gateway: &Gateway,
    set_out: Pin<Box<impl Future<Output = Option<Box<Journey<G>>>>>>,
) {
    if let Some(mut journey) = set_out.await {
        let why = travel(gateway, &mut journey).await;
        Box::pin(close(gateway, journey, why)).await;
    }
}

/// Everything up to the moment from which bytes may flow. Whoever gets no further has been told.
async fn set_out(gateway: &Gateway, asked: Asked) -> Option<Box<Journey>> {
    let Asked { mut client, wanted } = asked;
    let id = gateway.log.id();
    let (destination, wanted) = match wanted.and_then(|wanted| gateway.meant(wanted)) {
        Ok(destination) => (Some(destination.clone()), Ok(destination)),
        Err(refused) => (None, Err(refused)),
    };
    let mut asker = Asker::new(&client.stream, client.door);
    let any = |_: &Permit| Ok(());
    let opened = open(gateway, &mut asker, wanted, &id, any, |record| record).await;
    let program = asker.into_program();
    let (tunnel, early) = match opened {
        Ok(Opened { tunnel, early, .. }) => (tunnel, early),
        Err(refused) => {
            let add = |record: Record| record.program(program.as_deref());
            Box::pin(turn_down(gateway, client, refused, &id, destination, add)).await;
            return None;
        }
    };
    let accepted = client.accept().await;
    let journey = Journey::new(id, client, tunnel, early);
    match accepted {
        Ok(()) => Some(journey),
        Err(_) => {
            Box::pin(close(gateway, journey, None)).await;
            None
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
    let mut allowed = None;
    let (by, dialled) = loop {
        // First, so that none comes unnoticed.
        let mut replaced = pin!(gateway.sessions.decided_again());
        let refused = tokio::select! {
            biased;
            // Nobody is asked or dialled any more by what a policy before this one allowed.
            () = &mut replaced => continue,
            reached = reach(gateway, asker, &destination, id, allowed.as_ref(), &check) => match reached {
                Ok(reached) => break reached,
                Err(refused) => refused,
            },
        };
        let Some(asking) = gateway.asking.as_ref().filter(|_| allowed.is_none()) else {
            return Err(refused);
        };
        tokio::select! {
            biased;
            () = replaced => {}
            answered = Box::pin(asking.hold(gateway, asker, id, refused)) => allowed = answered?,
        }
    };
    let (matcher, hosts) = by;
    let Dialled {
        stream: server,
        permit,
        addresses,
        to,
        early,
    } = dialled;
    // Of several entries only those count by now that let it lead there.
    check(&permit)?;
    let session = slot.enter(id, asker.door, destination, addresses.clone(), allowed);
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
    gateway.before_it_passes(add(record), destination).await?;
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

/// What a connection was decided by.
type By = (Arc<Matcher>, Arc<HostAddresses>);

/// Decides, resolves, vets and dials, by the policy that there is now.
async fn reach(
    gateway: &Gateway,
    asker: &mut Asker<'_>,
    destination: &Destination,
    id: &str,
    allowed: Option<&Askable>,
    check: impl Fn(&Permit) -> Result<(), Denial>,
) -> Result<(By, Dialled), Refused> {
    let matcher = gateway.matcher.load_full();
    let hosts = gateway.hosts.load_full();
    asker.identify(&gateway.identifier, &matcher).await;
    let permit = matcher.decide_with(destination, asker.program(), &hosts, allowed)?;
    check(&permit)?;
    if gateway.dialler.asks(&permit) {
        // The question is the first thing that leaves.
        let record = gateway.record(Event::Dns, id).door(asker.door);
        let record = record.permit(&permit);
        gateway.before_it_passes(record, destination).await?;
    }
    let dialled = gateway.dialler.dial(permit, &hosts).await?;
    Ok(((matcher, hosts), dialled))
}

/// How a connection ended, when it did not simply end.
pub(crate) enum Ending {
    /// One side failed or went away; the other is told the same way.
    Broken,
    /// Something was spoken that may not pass.
    Refused(Box<Refused>),
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
        Self::Refused(Box::new(refused))
    }
}

/// A connection over which bytes flow.
pub(crate) struct Journey<G = Permit> {
    id: String,
    client: Client,
    tunnel: Tunnel<G>,
    up: Half,
    down: Half,
}

impl<G> Journey<G> {
    /// Nothing has gone over `tunnel` yet; `early` is what the server's side has sent.
    pub(crate) fn new(id: String, client: Client, tunnel: Tunnel<G>, early: Vec<u8>) -> Box<Self> {
        Box::new(Self {
            id,
            client,
            tunnel,
            up: Half::default(),
            down: Half::starting_with(early),
        })
    }
}

/// Carries what is said to the end of it, and tells the code of the reason if it was not to go on.
async fn travel<G: Grant>(gateway: &Gateway, journey: &mut Journey<G>) -> Option<&'static str> {
    let open = journey.tunnel.session.open.clone();
    let ended = tokio::select! {
        biased;
        lost = open.until_lost() => Err(Ending::Lost(lost)),
        ended = converse(gateway, journey) => ended,
    };
    let Journey {
        id, client, tunnel, ..
    } = journey;
    if ended.is_err() {
        if !matches!(ended, Err(Ending::Answered(_))) {
            reset(&client.stream);
        }
        reset(&tunnel.server);
    }
    match ended {
        Ok(()) | Err(Ending::Broken | Ending::Lost(Lost::Shutdown)) => None,
        Err(Ending::Answered(code)) => Some(code),
        Err(Ending::Lost(Lost::Denied(denial))) => Some(denial.reason().code()),
        Err(Ending::Refused(refused)) => {
            let code = refused.code();
            Box::pin(note_refused(gateway, id, client.door, tunnel, *refused)).await;
            Some(code)
        }
    }
}

async fn note_refused<G: Grant>(
    gateway: &Gateway,
    id: &str,
    door: Door,
    tunnel: &Tunnel<G>,
    refused: Refused,
) {
    let destination = Some(tunnel.grant.destination());
    let add = |record: Record| tunnel.grant.asker(&tunnel.session.open, record);
    gateway
        .refused_with(id, door, destination, &refused, add)
        .await;
}

/// Finds out what the client speaks and lets it pass accordingly.
async fn converse<G: Grant>(gateway: &Gateway, journey: &mut Journey<G>) -> Result<(), Ending> {
    let Journey {
        id,
        client,
        tunnel,
        up,
        down,
    } = journey;
    let Client {
        stream,
        input,
        door,
        request,
        ..
    } = client;
    // One that has been read already says what is spoken.
    let speaks = match request {
        Some(_) => Speaks::Http,
        None => Box::pin(begin(gateway, stream, input, tunnel, (up, down))).await?,
    };
    if !stands("every-request") && matches!(speaks, Speaks::Http) && request.is_none() {
        *up = Half::starting_with(std::mem::take(input).into_bytes());
        let (server, moving) = (&tunnel.server, &tunnel.session.open.moving);
        return Ok(relay::both(stream, server, up, down, &gateway.pool, moving).await?);
    }
    if let Speaks::Opaque = speaks {
        let (server, moving) = (&tunnel.server, &tunnel.session.open.moving);
        return Ok(relay::both(stream, server, up, down, &gateway.pool, moving).await?);
    }
    tunnel.session.open.reads_requests();
    let first = request.take();
    let input = std::mem::take(input);
    let carried = http::tunnel(gateway, *door, stream, (input, first), tunnel, id);
    Box::pin(carried).await
}

/// Ends a connection, then puts its end on record.
async fn close<G: Grant>(gateway: &Gateway, journey: Box<Journey<G>>, why: Option<&'static str>) {
    let Journey {
        id, client, tunnel, ..
    } = *journey;
    let traffic = tunnel.session.open.moving.so_far();
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
    record_close(gateway, &id, door, grant.destination(), since, traffic, why).await;
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
    let _ = gateway.log.write(record, gateway.limits.audit_wait).await;
}

/// Makes closing `stream` a reset: the peer learns at once, and that it was not an orderly end.
pub(crate) fn reset(stream: &TcpStream) {
    // A socket that cannot be told has gone already.
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
}
