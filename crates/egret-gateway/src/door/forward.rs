//! Plain HTTP requests with an absolute URI: a forward proxy.
//!
//! Every request is a decision of its own, with its own records. Connections to servers are kept for the
//! next request of the same client to the same destination; they are never shared between clients.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use egret_policy::{Destination, Permit};
use tokio::net::TcpStream;

use super::{Asked, Client, Reply, part, send};
use crate::Gateway;
use crate::audit::{Door, Event};
use crate::flow::{self, Tunnel, record_close, reset};
use crate::grant::Grant as _;
use crate::identify::Asker;
use crate::inspect::http::head::{BadHead, Framing, Request};
use crate::inspect::http::{
    Absolute, After, Broken, Ends, Input, Line, NoRequest, agree, described, exchange,
    method_allowed, origin_form, permitted, required_host,
};
use crate::limits::Limit;
use crate::refused::Refused;
use crate::relay::{self, Half};
use crate::sessions::Lost;

/// A connection to a server, between requests.
struct Upstream {
    tunnel: Tunnel,
    input: Input,
    addresses: Vec<IpAddr>,
}

impl From<flow::Opened> for Upstream {
    fn from(opened: flow::Opened) -> Self {
        Self {
            tunnel: opened.tunnel,
            input: Input::starting_with(opened.early),
            addresses: opened.addresses,
        }
    }
}

/// What becomes of the client's connection after a request.
enum Next {
    Request,
    /// It has its answer and is closed; `unread` if it may have sent more.
    Close {
        unread: bool,
    },
    Reset,
}

/// Carries the requests of a connection, until one asks for something else.
pub(super) async fn serve(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    mut input: Input,
    first: Request,
) -> Option<Asked> {
    let mut upstreams = Vec::new();
    let mut request = first;
    loop {
        if request.method() == "CONNECT" {
            // A client that was refused something, or that has finished with plain requests, may go on to this.
            let wanted = super::connect::wanted(&request);
            return Some(Client::new(stream, input, Door::Connect, Reply::Http).asks(wanted));
        }
        match carry(gateway, &stream, &mut input, &mut upstreams, &request).await {
            Next::Request => {}
            Next::Close { unread } => {
                part(&stream, unread || !input.bytes().is_empty()).await;
                return None;
            }
            Next::Reset => {
                reset(&stream);
                return None;
            }
        }
        request = match next_request(gateway, &stream, &mut input, &mut upstreams).await {
            Ok(request) => request,
            Err(NoRequest::End) => return None,
            Err(NoRequest::Gone) => {
                reset(&stream);
                return None;
            }
            Err(NoRequest::Refused(refused)) => {
                let client = Client::new(stream, input, Door::Forward, Reply::Http);
                return Some(client.asks(Err(refused)));
            }
        };
    }
}

/// Waits for another request, and lets go of connections that a new policy takes away meanwhile.
async fn next_request(
    gateway: &Arc<Gateway>,
    stream: &TcpStream,
    input: &mut Input,
    upstreams: &mut Vec<Upstream>,
) -> Result<Request, NoRequest> {
    loop {
        // Without a server's connection nothing else counts this one.
        let handshake = if upstreams.is_empty() {
            match gateway.handshake() {
                Some(handshake) => Some(handshake),
                None => return Err(NoRequest::Refused(Refused::limit(Limit::Handshakes, ""))),
            }
        } else {
            None
        };
        tokio::select! {
            request = input.request(stream, &gateway.limits, upstreams.is_empty()) => {
                return match request {
                    // It was merely idle.
                    Err(NoRequest::Refused(Refused::Limit { limit: Limit::HandshakeTime, .. })) if handshake.is_some() => Err(NoRequest::End),
                    request => request,
                };
            }
            () = gateway.sessions.decided_again() => upstreams.retain(|upstream| upstream.tunnel.session.open.lost().is_none()),
        }
    }
}

/// Carries one request.
async fn carry(
    gateway: &Arc<Gateway>,
    client: &TcpStream,
    input: &mut Input,
    upstreams: &mut Vec<Upstream>,
    request: &Request,
) -> Next {
    let id = gateway.log.id();
    // Who holds the connection may be another one with each request.
    let mut asker = Asker::new(client, Door::Forward);
    let (destination, target, framing) = match read(request) {
        Ok(read) => read,
        Err(refused) => return refuse(gateway, &asker, &id, None, request, &refused, true).await,
    };
    let with_body = framing != Framing::Length(0);
    loop {
        let since = Instant::now();
        let found = match reuse(
            gateway,
            upstreams,
            &mut asker,
            &destination,
            (request, framing),
            &id,
        )
        .await
        {
            Ok(Some(upstream)) => Ok((upstream, true)),
            Ok(None) => {
                let add = described(request, target);
                let wanted = Ok(destination.clone());
                let check = |permit: &Permit| permitted(permit, request, target, framing);
                let opened = flow::open(gateway, &mut asker, wanted, &id, check, add).await;
                opened.map(|opened| (Upstream::from(opened), false))
            }
            Err(refused) => Err(refused),
        };
        let (mut upstream, again) = match found {
            Ok(found) => found,
            Err(refused) => {
                return refuse(
                    gateway,
                    &asker,
                    &id,
                    Some(&destination),
                    request,
                    &refused,
                    with_body,
                )
                .await;
            }
        };
        let open = &upstream.tunnel.session.open;
        open.asks(request.method(), target);
        open.reads_requests();
        let host = host_field(&destination);
        let line = Line {
            target,
            host: &host,
            bound: false,
            last: upstream.tunnel.grant.inspects() && with_body,
            tells_end: false,
        };
        let before = open.moving.so_far();
        let ends = Ends {
            client,
            input: &mut *input,
            server: &upstream.tunnel.server,
            server_input: &mut upstream.input,
        };
        let ended = tokio::select! {
            biased;
            lost = upstream.tunnel.session.open.until_lost() => Err(Stopped::Lost(lost)),
            ended = exchange(ends, request, &line, framing, &gateway.limits, &gateway.pool, &open.moving) => ended.map_err(Stopped::Broken),
        };
        if let (
            true,
            false,
            Err(Stopped::Broken(Broken::Server {
                untouched: true, ..
            })),
        ) = (again, with_body, &ended)
        {
            // The server closed a kept connection just as we used it: nothing has happened yet.
            record_close(
                gateway,
                &id,
                Door::Forward,
                &destination,
                since,
                open.moving.so_far() - before,
                None,
            )
            .await;
            continue;
        }
        if let Ok(After::Upgraded) = ended {
            upgraded(gateway, client, input, &mut upstream).await;
        }
        let traffic = upstream.tunnel.session.open.moving.so_far() - before;
        let why = match &ended {
            Err(Stopped::Lost(Lost::Denied(denial))) => Some(denial.reason().code()),
            _ => None,
        };
        if ended.is_err() {
            reset(&upstream.tunnel.server);
        }
        record_close(
            gateway,
            &id,
            Door::Forward,
            &destination,
            since,
            traffic,
            why,
        )
        .await;
        return match ended {
            Ok(After::Next { client, server }) => {
                upstream.tunnel.session.open.is_answered();
                if server && upstreams.len() < KEPT {
                    upstreams.push(upstream);
                }
                if client {
                    Next::Request
                } else {
                    Next::Close { unread: with_body }
                }
            }
            Ok(After::Upgraded) => Next::Close { unread: false },
            Err(Stopped::Lost(_) | Stopped::Broken(Broken::Off)) => Next::Reset,
            Err(Stopped::Broken(Broken::Server { why, .. })) => {
                let refused = upstream.tunnel.grant.unreachable(why.to_owned());
                say(client, &refused, &id, Some(&destination)).await
            }
            Err(Stopped::Broken(Broken::Request(why))) => {
                refuse(
                    gateway,
                    &asker,
                    &id,
                    Some(&destination),
                    request,
                    &Refused::malformed(why),
                    true,
                )
                .await
            }
        };
    }
}

enum Stopped {
    Lost(Lost),
    Broken(Broken),
}

/// What a request wants: its destination, the target in origin form, and its framing.
pub(crate) fn read(request: &Request) -> Result<(Destination, &str, Framing), Refused> {
    if request.target().starts_with('/') || request.target() == "*" {
        return Err(BadHead::Malformed(
            "this is an HTTP proxy: requests to it name the whole URI, as clients do that have it in `http_proxy`, or use CONNECT",
        )
        .into());
    }
    let absolute = Absolute::parse(request.target())?;
    let destination = absolute.destination()?;
    method_allowed(request, &destination)?;
    let framing = request.framing()?;
    agree(&destination, required_host(request)?)?;
    Ok((destination, absolute.path, framing))
}

/// A kept connection to `destination`, decided on again and recorded for this request.
async fn reuse(
    gateway: &Gateway,
    upstreams: &mut Vec<Upstream>,
    asker: &mut Asker<'_>,
    destination: &Destination,
    (request, framing): (&Request, Framing),
    id: &str,
) -> Result<Option<Upstream>, Refused> {
    while let Some(at) = upstreams
        .iter()
        .position(|upstream| upstream.tunnel.grant.destination() == destination)
    {
        let mut upstream = upstreams.swap_remove(at);
        asker
            .identify(&gateway.identifier, &gateway.matcher.load_full())
            .await;
        if !upstream.is_quiet() {
            continue;
        }
        // First, so that it is this program's, and this request's, if a new policy comes.
        let path = origin_form(request.target());
        upstream.tunnel.session.open.asks(request.method(), path);
        upstream
            .tunnel
            .session
            .open
            .asked_by(asker.shared_program());
        let hosts = gateway.hosts.load_full();
        let matcher = gateway.matcher.load_full();
        let allowed = upstream.tunnel.session.open.allowed();
        let mut permit = matcher.decide_with(destination, asker.program(), &hosts, allowed)?;
        permit.vet(&upstream.addresses, &hosts)?;
        permitted(&permit, request, path, framing)?;
        let mut record = gateway
            .record(Event::Decision, id)
            .door(Door::Forward)
            .program(asker.program())
            .permit(&permit);
        record.addresses.clone_from(&upstream.addresses);
        record.dialled = Some(upstream.tunnel.to);
        upstream.tunnel.grant = permit;
        let record = described(request, path)(record);
        gateway.before_it_passes(record, destination).await?;
        return Ok(Some(upstream));
    }
    Ok(None)
}

impl Upstream {
    /// Whether it is still open and the server has said nothing unasked.
    fn is_quiet(&self) -> bool {
        let would_block = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        self.tunnel.session.open.lost().is_none()
            && self.input.bytes().is_empty()
            && self
                .tunnel
                .server
                .try_read(&mut [0])
                .as_ref()
                .is_err_and(would_block)
    }
}

/// Carries WebSocket frames until the end.
async fn upgraded(
    gateway: &Gateway,
    client: &TcpStream,
    input: &mut Input,
    upstream: &mut Upstream,
) {
    let mut up = Half::starting_with(std::mem::take(input).into_bytes());
    let mut down = Half::starting_with(std::mem::take(&mut upstream.input).into_bytes());
    let server = &upstream.tunnel.server;
    let open = &upstream.tunnel.session.open;
    let relayed = relay::both(
        client,
        server,
        &mut up,
        &mut down,
        &gateway.pool,
        &open.moving,
    );
    let whole = tokio::select! {
        biased;
        _ = open.until_lost() => false,
        ended = relayed => ended.is_ok(),
    };
    if !whole {
        reset(client);
        reset(server);
    }
}

/// The `Host` field that goes with `destination`: without the port that `http:` has anyway.
fn host_field(destination: &Destination) -> String {
    let text = destination.to_string();
    match text.strip_suffix(":80") {
        Some(host) if destination.port() == 80 => host.to_owned(),
        _ => text,
    }
}

/// Puts a refusal on record and answers with it. The connection goes on unless a body is in the way.
async fn refuse(
    gateway: &Gateway,
    asker: &Asker<'_>,
    id: &str,
    destination: Option<&Destination>,
    request: &Request,
    refused: &Refused,
    with_body: bool,
) -> Next {
    let described = described(request, origin_form(request.target()));
    let add = |record| described(record).program(asker.program());
    gateway
        .refused_with(id, asker.door, destination, refused, add)
        .await;
    let client = asker.client;
    if with_body || !request.keeps_alive() {
        return say(client, refused, id, destination).await;
    }
    match send(client, &refused.http_response(id, destination, true)).await {
        Ok(()) => Next::Request,
        Err(_) => Next::Reset,
    }
}

/// Answers, and ends the connection.
async fn say(
    client: &TcpStream,
    refused: &Refused,
    id: &str,
    destination: Option<&Destination>,
) -> Next {
    match send(client, &refused.http_response(id, destination, false)).await {
        Ok(()) => Next::Close { unread: true },
        Err(_) => Next::Reset,
    }
}

/// Connections to servers that one client's connection keeps.
const KEPT: usize = 8;
