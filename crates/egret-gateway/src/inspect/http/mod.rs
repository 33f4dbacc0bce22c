//! HTTP/1 requests, one by one.
//!
//! On a connection on which HTTP is spoken no byte is passed on unread: each request is parsed
//! ([`head`]), checked, and written anew ([`mod@exchange`]), so a second request cannot go where the first
//! one could not. [`tunnel`] does that for a connection that was opened for one destination; the forward
//! door does it for requests that each name their own.

pub(crate) mod body;
mod exchange;
pub(crate) mod head;
mod input;

use egret_policy::{Denial, Destination, Permit, Reason, Spoken};
use memchr::memchr2;
use tokio::net::TcpStream;

use crate::Gateway;
use crate::audit::{Door, Event, Record};
use crate::door::{part, send};
use crate::flow::{Ending, Tunnel};
use crate::grant::{Grant, Passing};
use crate::refused::Refused;
use crate::relay::{self, Half};
use crate::sessions::Open;
use head::{BadHead, Framing, Request};

pub(crate) use exchange::{After, Broken, Ends, Line, exchange};
pub(crate) use input::{Input, NoRequest};

/// Carries the requests on a connection that was opened for `tunnel`'s destination: what is in the input, behind the first
/// one if that has been read already.
pub(crate) async fn tunnel<G: Grant>(
    gateway: &Gateway,
    door: Door,
    client: &TcpStream,
    (mut input, mut read): (Input, Option<Box<Request>>),
    tunnel: &Tunnel<G>,
    id: &str,
) -> Result<(), Ending> {
    let mut server_input = Input::default();
    let mut first = true;
    loop {
        let next = match read.take() {
            Some(request) => Ok(*request),
            None => input.request(client, &gateway.limits, first).await,
        };
        let request = match next {
            Ok(request) => request,
            Err(NoRequest::End) => return Ok(()),
            Err(NoRequest::Gone) => return Err(Ending::Broken),
            Err(NoRequest::Refused(refused)) => {
                return refuse(gateway, door, client, tunnel, id, None, refused).await;
            }
        };
        first = false;
        let open = &tunnel.session.open;
        open.asks(request.method(), origin_form(request.target()));
        let passing = match tunnel.grant.request(gateway, open, &request) {
            Ok(passing) => passing,
            Err(refused) => {
                return refuse(gateway, door, client, tunnel, id, Some(&request), refused).await;
            }
        };
        let Passing {
            framing,
            line,
            permit,
        } = passing;
        if let Some(permit) = permit {
            let record = gateway
                .record(Event::Decision, id)
                .door(door)
                .permit(&permit);
            let mut record = described(&request, line.target)(tunnel.grant.asker(open, record));
            record.dialled = Some(tunnel.to);
            if let Err(refused) = gateway.before_it_passes(record, permit.destination()).await {
                return refuse(gateway, door, client, tunnel, id, Some(&request), refused).await;
            }
        }
        let ends = Ends {
            client,
            input: &mut input,
            server: &tunnel.server,
            server_input: &mut server_input,
        };
        match exchange(
            ends,
            &request,
            &line,
            framing,
            &gateway.limits,
            &gateway.pool,
            &open.moving,
        )
        .await
        {
            Ok(After::Next {
                client: true,
                server: true,
            }) => open.is_answered(),
            Ok(After::Next { .. }) => {
                part(client, !input.bytes().is_empty()).await;
                return Ok(());
            }
            Ok(After::Upgraded) => {
                let mut up = Half::starting_with(input.into_bytes());
                let mut down = Half::starting_with(server_input.into_bytes());
                let (server, pool) = (&tunnel.server, &gateway.pool);
                let relayed = relay::both(client, server, &mut up, &mut down, pool, &open.moving);
                return Ok(relayed.await?);
            }
            Err(Broken::Off) => return Err(Ending::Broken),
            Err(Broken::Server { why, .. }) => {
                let refused = tunnel.grant.unreachable(why.to_owned());
                answer(client, &refused, Some(tunnel.grant.destination()), id).await;
                return Ok(());
            }
            Err(Broken::Request(why)) => {
                return refuse(
                    gateway,
                    door,
                    client,
                    tunnel,
                    id,
                    Some(&request),
                    Refused::malformed(why),
                )
                .await;
            }
        }
    }
}

/// Whether `request` may go where this connection leads, and how it is written there.
pub(crate) fn check<'a>(
    gateway: &Gateway,
    permit: &'a Permit,
    open: &Open,
    request: &'a Request,
) -> Result<Passing<'a>, Refused> {
    let destination = permit.destination();
    method_allowed(request, destination)?;
    let host = required_host(request)?;
    let framing = request.framing()?;
    let matcher = gateway.matcher.load();
    // The policy may have been replaced since the connection was opened.
    let program = open.program();
    let hosts = gateway.hosts.load();
    let allowed = open.allowed();
    let mut permit = matcher.decide_with(destination, program.as_deref(), &hosts, allowed)?;
    // With what it resolved to: of several entries, only those that let it lead there count.
    permit.vet(open.addresses(), &hosts)?;
    matcher.confirm(&permit, Spoken::Host(host))?;
    let target = match request.target() {
        target if target.starts_with('/') => target,
        "*" if request.method() == "OPTIONS" => "*",
        target => {
            let absolute = Absolute::parse(target)?;
            matcher.confirm(&permit, Spoken::Host(Some(absolute.authority)))?;
            agree(&absolute.destination()?, host)?;
            absolute.path
        }
    };
    permitted(&permit, request, target, framing)?;
    let line = Line {
        target,
        host: host.unwrap_or_default(),
        bound: true,
        last: permit.inspects() && framing != Framing::Length(0),
        tells_end: false,
    };
    Ok(Passing {
        framing,
        line,
        // Where requests are decided on one by one, each is on record before it goes out.
        permit: Some(permit).filter(Permit::inspects),
    })
}

/// Puts a request to the permit of its destination. `target` is in origin form.
pub(crate) fn permitted(
    permit: &Permit,
    request: &Request,
    target: &str,
    framing: Framing,
) -> Result<(), Denial> {
    permit.request(request.method(), target)?;
    if !permit.tells_requests_apart() {
        return Ok(());
    }
    let refuse = |message: String| {
        let destination = permit.destination().to_string();
        Err(Denial::new(Reason::DeniedRequest, destination, message))
    };
    if let Some((field, _)) = request.fields().find(|(name, _)| overrides(name)) {
        return refuse(format!(
            "the field {} can ask for another request than the policy was asked about",
            String::from_utf8_lossy(field)
        ));
    }
    match request.asks_for_websocket() && framing != Framing::Length(0) {
        true => refuse("a request for a WebSocket has no body".to_owned()),
        false => Ok(()),
    }
}

/// Whether a field can ask a server, or what stands before its application, for another method or path than is in the
/// request line. Underscores are what many make of hyphens.
fn overrides(name: &[u8]) -> bool {
    let hyphened = |byte| if byte == b'_' { b'-' } else { byte };
    OVERRIDES.iter().any(|other| {
        let pairs = || name.iter().zip(other.bytes());
        other.len() == name.len()
            && pairs().all(|(&one, other)| hyphened(one).eq_ignore_ascii_case(&other))
    })
}

const OVERRIDES: [&str; 19] = [
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Original-Method",
    "X-Forwarded-Method",
    "X-Original-URL",
    "X-Original-URI",
    "X-Rewrite-URL",
    "X-Override-URL",
    "X-Forwarded-Uri",
    "X-Forwarded-Prefix",
    "X-Script-Name",
    "Script-Name",
    "X-Forwarded-Path",
    // Where WebDAV's MOVE and COPY lead (RFC 4918, section 10.3), and where object stores copy from.
    "Destination",
    "X-Amz-Copy-Source",
    "X-Ms-Copy-Source",
    "X-Goog-Copy-Source",
    "X-Copy-From",
];

/// A request target in absolute form (RFC 9112 3.2.2) with the scheme `http`.
pub(crate) struct Absolute<'a> {
    pub(crate) authority: &'a str,
    /// Path and query, in origin form.
    pub(crate) path: &'a str,
}

impl<'a> Absolute<'a> {
    pub(crate) fn parse(target: &'a str) -> Result<Self, Refused> {
        let bad = |why| Refused::from(BadHead::Malformed(why));
        let (scheme, rest) = match target.split_at_checked("http://".len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => ("http", rest),
            _ => target
                .split_once("://")
                .ok_or_else(|| bad("the request target is not a URI"))?,
        };
        if !scheme.eq_ignore_ascii_case("http") {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            let message =
                "only `http:` URIs are forwarded; for `https:` make a tunnel with CONNECT";
            return Err(Refused::protocol(host, message));
        }
        if memchr2(b'#', b'\\', rest.as_bytes()).is_some() {
            return Err(bad(
                "the request target has a character that URIs do not have",
            ));
        }
        let end = memchr2(b'/', b'?', rest.as_bytes()).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        match path {
            "" => Ok(Self {
                authority,
                path: "/",
            }),
            path if path.starts_with('/') => Ok(Self { authority, path }),
            _ => Err(bad("the request target has a query and no path")),
        }
    }

    pub(crate) fn destination(&self) -> Result<Destination, Refused> {
        destination(self.authority, Some(80))
    }
}

/// The destination that an authority names. One with user information is not repeated, for it may hold a password.
pub(crate) fn destination(authority: &str, port: Option<u16>) -> Result<Destination, Refused> {
    if authority.contains('@') {
        return Err(BadHead::Malformed("a destination has no user information").into());
    }
    Destination::from_authority(authority, port).map_err(|malformed| Denial::from(malformed).into())
}

/// The `Host` field has to name what the request's URI names (RFC 9112 3.2.2 would ignore it; a server that
/// does not is how requests end up elsewhere).
pub(crate) fn agree(destination: &Destination, host: Option<&str>) -> Result<(), Refused> {
    let Some(host) = host else { return Ok(()) };
    if Destination::from_authority(host, Some(80)).is_ok_and(|named| named == *destination) {
        return Ok(());
    }
    let message = "the Host field names another destination than the request's URI";
    Err(Denial::new(Reason::DeniedNameMismatch, destination.to_string(), message).into())
}

/// HTTP/1.1 wants a Host field in every request.
pub(crate) fn required_host(request: &Request) -> Result<Option<&str>, Refused> {
    match request.host()? {
        None if request.minor == 1 => {
            Err(BadHead::Malformed("the request has no Host field").into())
        }
        host => Ok(host),
    }
}

/// CONNECT would make a tunnel in the tunnel, and TRACE sends back what the client may not see.
pub(crate) fn method_allowed(request: &Request, destination: &Destination) -> Result<(), Refused> {
    match request.method() {
        method @ ("CONNECT" | "TRACE") => Err(Refused::protocol(
            destination.to_string(),
            format!("the method {method} is not carried here"),
        )),
        _ => Ok(()),
    }
}

/// The path and query of a request target, and nothing of its authority.
pub(crate) fn origin_form(target: &str) -> &str {
    match target {
        "*" => target,
        path if path.starts_with('/') => path,
        uri => Absolute::parse(uri).map_or("", |absolute| absolute.path),
    }
}

/// Puts the request's method and path, without the query, on record.
pub(crate) fn described(request: &Request, path: &str) -> impl FnOnce(Record) -> Record {
    let short = |text: &str| match text.len() {
        0..=DESCRIBED => text.to_owned(),
        _ => text.chars().take(DESCRIBED).collect(),
    };
    let method = short(request.method());
    let path = short(path.split('?').next().unwrap_or_default());
    move |mut record| {
        record.method = Some(method);
        record.path = Some(path);
        record
    }
}

/// Answers with a refusal, which ends the connection, and puts it on record.
async fn refuse<G: Grant>(
    gateway: &Gateway,
    door: Door,
    client: &TcpStream,
    tunnel: &Tunnel<G>,
    id: &str,
    request: Option<&Request>,
    refused: Refused,
) -> Result<(), Ending> {
    let destination = Some(tunnel.grant.destination());
    let add = |record| {
        let record = tunnel.grant.asker(&tunnel.session.open, record);
        match request {
            Some(request) => described(request, origin_form(request.target()))(record),
            None => record,
        }
    };
    gateway
        .refused_with(id, door, destination, &refused, add)
        .await;
    answer(client, &refused, destination, id).await;
    Err(Ending::Answered(refused.code()))
}

/// Says no, and ends the connection.
pub(crate) async fn answer(
    client: &TcpStream,
    refused: &Refused,
    destination: Option<&Destination>,
    id: &str,
) {
    if send(client, &refused.http_response(id, destination, false))
        .await
        .is_ok()
    {
        part(client, true).await;
    }
}

/// Characters of a method or path that are put on record.
const DESCRIBED: usize = 1_024;
