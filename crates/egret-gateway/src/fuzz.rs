//! An entrance to the readers of this crate, for the fuzz targets in `fuzz/`. It is there only under `--cfg fuzzing`, which
//! no build of Egret is made with.
//!
//! What stands here calls the readers and translates what they say into plain data; it reads nothing by itself, and has
//! no opinion. Sockets are pairs that the system joins, so nothing leaves the process.

use std::collections::HashMap;
use std::fs::File;
use std::future::ready;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egret_policy::{Destination, Host, HostAddresses, Policy};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::audit::{Door, Log, Record};
use crate::door::{Client, Reply, connect, dns, forward, socks};
use crate::flow::{Journey, Tunnel, follow};
use crate::inspect::first::{self, Sniffer};
use crate::inspect::hello;
use crate::inspect::http::body::Body;
use crate::inspect::http::head::{self, Request, Response};
use crate::inspect::http::{Input, NoRequest};
use crate::{
    Config, Gateway, HostGateway, InboundHosts, Limits, ResolverConfig, Servers, UpstreamProxy,
};

/// How much body follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Exactly so many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Everything until the end.
    UntilClose,
}

/// The head of a request, as every door reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its method.
    pub method: String,
    /// Its target, as it came.
    pub target: String,
    /// 0 or 1.
    pub minor: u8,
    /// Its fields.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its one host, if there is any.
    pub host: Result<Option<String>, String>,
    /// Where its body ends.
    pub framing: Result<Framing, String>,
    /// How long the head is.
    pub length: usize,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// 0 or 1.
    pub minor: u8,
    /// Where its body ends, in answer to the method that was told.
    pub framing: Result<Framing, String>,
    /// How long the head is.
    pub length: usize,
}

/// What the first bytes of a client are taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// Nothing is passed on yet.
    Hold,
    /// It is passed on, and watched.
    Watch,
    /// A request to begin with TLS.
    Prelude,
    /// A ClientHello, with the name in it.
    Tls(Option<String>),
    /// HTTP/1.
    Http,
    /// HTTP/2.
    Http2,
    /// Something else.
    Opaque,
    /// Not to be passed on.
    Bad,
}

/// What a door makes of a request head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is to go.
    pub destination: Destination,
    /// What is asked for there, where that is told apart.
    pub target: Option<String>,
}

/// Reads the head of a request whose bytes come in these pieces: `None` if it has no end.
///
/// # Errors
/// It is refused.
pub fn request(pieces: &[&[u8]]) -> Result<Option<Head>, String> {
    let Some(request) = taken(pieces)? else {
        return Ok(None);
    };
    Ok(Some(Head {
        method: request.method().to_owned(),
        target: request.target().to_owned(),
        minor: request.minor,
        fields: owned(request.fields()),
        host: request
            .host()
            .map(|host| host.map(str::to_owned))
            .map_err(told),
        framing: request.framing().map(framing).map_err(told),
        length: length_of(pieces),
    }))
}

/// How much of what was given a head takes up.
fn length_of(pieces: &[&[u8]]) -> usize {
    let (whole, mut scanned) = (pieces.concat(), 0);
    let end = head::end(&whole, &mut scanned, &Limits::default());
    end.ok().flatten().unwrap_or_default()
}

fn taken(pieces: &[&[u8]]) -> Result<Option<Request>, String> {
    let (mut input, limits) = (Input::default(), Limits::default());
    for piece in pieces {
        input.push(piece);
        match input.take_request(&limits) {
            Ok(None) => {}
            Ok(Some(request)) => return Ok(Some(request)),
            Err(NoRequest::Refused(refused)) => return Err(told(refused)),
            Err(NoRequest::End | NoRequest::Gone) => return Ok(None),
        }
    }
    Ok(None)
}

/// Reads the head of an answer to `method`: `None` if it has no end.
///
/// # Errors
/// It is no answer.
pub fn response(bytes: &[u8], method: &str) -> Result<Option<Answer>, String> {
    let parsed = Response::parse(bytes, &Limits::default()).map_err(told)?;
    Ok(parsed.map(|(response, length)| Answer {
        status: response.status,
        minor: response.minor,
        framing: response.framing(method).map(framing).map_err(told),
        length,
    }))
}

/// How many of the bytes, which come in these pieces, belong to a body, and whether it is complete then.
///
/// # Errors
/// It does not follow its framing.
pub fn body(framing: Framing, pieces: &[&[u8]]) -> Result<(usize, bool), String> {
    let mut body = Body::from(match framing {
        Framing::Length(length) => head::Framing::Length(length),
        Framing::Chunked => head::Framing::Chunked,
        Framing::UntilClose => head::Framing::UntilClose,
    });
    let mut taken = 0;
    for piece in pieces {
        if body.is_complete() {
            break;
        }
        let more = body.take(piece).map_err(told)?;
        taken += more;
        if more < piece.len() {
            break;
        }
    }
    Ok((taken, body.is_complete()))
}

/// What a client speaks that sends these pieces; the first answer that is one.
pub fn first(pieces: &[&[u8]]) -> First {
    let mut sniffer = Sniffer::default();
    let mut found = First::Hold;
    for piece in pieces {
        found = match sniffer.push(piece) {
            first::First::Hold => First::Hold,
            first::First::Watch => First::Watch,
            first::First::Prelude => First::Prelude,
            first::First::Tls(hello) => First::Tls(hello.server_name),
            first::First::Http => First::Http,
            first::First::Http2 => First::Http2,
            first::First::Opaque => First::Opaque,
            first::First::Bad(_) => First::Bad,
        };
        if !matches!(found, First::Hold | First::Watch) {
            break;
        }
    }
    found
}

/// The server name of a ClientHello that comes in these pieces: `None` if it is not complete.
///
/// # Errors
/// It is none that may pass.
pub fn client_hello(pieces: &[&[u8]]) -> Result<Option<Option<String>>, String> {
    let mut reader = hello::Reader::default();
    for piece in pieces {
        if let Some(hello) = reader.push(piece).map_err(told)? {
            return Ok(Some(hello.server_name));
        }
    }
    Ok(None)
}

/// What the proxy port reads in a `CONNECT`, or in a request with an absolute URI.
///
/// # Errors
/// It is refused.
pub fn proxy(head: &[u8]) -> Result<Option<Wanted>, String> {
    let Some(request) = taken(&[head])? else {
        return Ok(None);
    };
    if request.method() == "CONNECT" {
        let destination = connect::wanted(&request).map_err(told)?;
        return Ok(Some(Wanted {
            destination,
            target: None,
        }));
    }
    let (destination, target, _) = forward::read(&request).map_err(told)?;
    Ok(Some(Wanted {
        destination,
        target: Some(target.to_owned()),
    }))
}

/// What a published port reads, at which only `localhost` and the like may be asked for.
///
/// # Errors
/// It is refused.
pub fn published(head: &[u8], port: u16) -> Result<Option<Wanted>, String> {
    let Some(request) = taken(&[head])? else {
        return Ok(None);
    };
    let addressed = inbound().check(&request, port).map_err(told)?;
    Ok(Some(Wanted {
        destination: addressed.destination,
        target: Some(addressed.target.to_owned()),
    }))
}

/// What a SOCKS client gets to hear that sends these bytes and then no more, and what it is taken to want, with how many of
/// the bytes are not its request's.
pub fn socks(bytes: &[u8]) -> (Vec<u8>, Option<(Destination, usize)>) {
    block_on(async {
        let (mut client, server) = pair();
        client.write_all(bytes).await.expect("a socket takes it");
        shutdown(&client, Shutdown::Write).expect("it can be ended");
        let mut input = Input::default();
        let wanted = socks::negotiate(&server, &mut input).await;
        let mut rest = input.into_bytes().len();
        let mut server = server;
        if wanted.is_ok() {
            let mut unread = Vec::new();
            server.read_to_end(&mut unread).await.expect("the rest");
            rest += unread.len();
        }
        let answer = match &wanted {
            Err(socks::Unread::Answered(answer, _)) => answer.clone(),
            _ => Vec::new(),
        };
        drop(server);
        let mut told = Vec::new();
        // What it was told before it was let go; that not all was read makes the end a failure.
        let (Ok(_) | Err(_)) = client.read_to_end(&mut told).await;
        told.extend(answer);
        (told, wanted.ok().map(|destination| (destination, rest)))
    })
}

/// What is made of an upstream proxy's answer: how many of the bytes are the tunnel's already.
///
/// # Errors
/// It does not make the tunnel.
pub fn upstream(proxy: &UpstreamProxy, answer: &[u8]) -> Result<usize, String> {
    block_on(async {
        let (ours, mut theirs) = pair();
        theirs.write_all(answer).await.expect("a socket takes it");
        shutdown(&theirs, Shutdown::Write).expect("it can be ended");
        let target = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 443));
        let (mut stream, mut early) = proxy.connect(ours, target).await.map_err(told)?;
        stream.read_to_end(&mut early).await.map_err(told)?;
        Ok(early.len())
    })
}

/// The names in a hosts file.
pub fn hosts_file(text: &[u8]) -> HashMap<Host, Arc<[IpAddr]>> {
    crate::resolve::parse_hosts(text)
}

/// The line that a record becomes in the log.
pub fn line(record: &Record) -> Vec<u8> {
    let mut line = Vec::new();
    record.line(&mut line);
    line
}

/// A gateway without doors.
pub struct Harness {
    gateway: Arc<Gateway>,
    hosts: HostAddresses,
}

/// What went over a connection.
#[derive(Debug, Default)]
pub struct Carried {
    /// What the server got.
    pub up: Vec<u8>,
    /// What the client got.
    pub down: Vec<u8>,
}

impl Harness {
    /// One with a policy, that writes its records into a file.
    pub fn new(policy: &str, audit: File) -> Self {
        let hosts = HostAddresses::new([]);
        let parsed = Policy::parse("policy.yaml", policy.as_bytes()).expect("a policy");
        let gateway = block_on(async {
            Gateway::new(Config {
                sandbox: "fuzz".parse().expect("a name"),
                matcher: Arc::new(parsed.policy.compile()),
                hosts: hosts.clone(),
                identify: None,
                resolver: ResolverConfig {
                    servers: Servers::These(Vec::new()),
                    hosts_file: None,
                },
                host_gateway: HostGateway::Known,
                inside: None,
                inbound: inbound(),
                upstream_proxy: None,
                ask: None,
                limits: Limits {
                    dns_per_second: u32::MAX,
                    ..Limits::default()
                },
                audit: Log::from_file(audit).expect("a log"),
            })
        });
        Self {
            gateway: gateway.expect("a gateway"),
            hosts,
        }
    }

    /// The resolver's answer.
    pub fn dns(&self, question: &[u8]) -> Option<Vec<u8>> {
        dns::answer(&self.gateway, question)
    }

    /// Carries a connection to a destination that the policy allows, on which the client sends these pieces, and then no
    /// more. The server says what `server` makes of all that it has got, whenever more has come; `None` and it ends its
    /// direction. Nothing at all if that does not come to an end.
    pub fn carry(
        &self,
        to: &Destination,
        pieces: &[&[u8]],
        mut server: impl FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> Option<Carried> {
        block_on(async {
            let (mut client, ours) = pair();
            let (theirs, mut far) = pair();
            let matcher = self.gateway.matcher.load_full();
            let mut grant = matcher.decide(to, None, &self.hosts).expect("a permit");
            let address = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
            grant.vet(&[address], &self.hosts).expect("it is vetted");
            let slot = self.gateway.sessions.slot(to).expect("room");
            let journey = Journey::new(
                self.gateway.log.id(),
                Client {
                    stream: ours,
                    input: Input::default(),
                    door: Door::Captured,
                    reply: Reply::Nothing,
                    request: None,
                },
                Tunnel {
                    session: slot.enter("", Door::Captured, to.clone(), vec![address], None),
                    grant,
                    server: theirs,
                    to: SocketAddr::new(address, to.port()),
                    since: Instant::now(),
                },
                Vec::new(),
            );
            let carried = follow(&self.gateway, Box::pin(ready(Some(journey))));
            let mut down = Vec::new();
            let asking = async {
                for piece in pieces {
                    if client.write_all(piece).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                // Whoever was let go cannot end it any more, nor needs to.
                let (Ok(()) | Err(_)) = shutdown(&client, Shutdown::Write);
                let (Ok(_) | Err(_)) = client.read_to_end(&mut down).await;
            };
            let mut up = Vec::new();
            let serving = async {
                let mut open = true;
                while matches!(far.read_buf(&mut up).await, Ok(1..)) {
                    match server(&up) {
                        Some(answer) if open => {
                            let (Ok(()) | Err(_)) = far.write_all(&answer).await;
                        }
                        Some(_) => {}
                        None => {
                            open = false;
                            let (Ok(()) | Err(_)) = shutdown(&far, Shutdown::Write);
                        }
                    }
                }
                drop(far);
            };
            let all = async { tokio::join!(carried, asking, serving) };
            timeout(PATIENCE, all).await.ok()?;
            Some(Carried { up, down })
        })
    }
}

fn inbound() -> InboundHosts {
    InboundHosts::new(&"fuzz".parse().expect("a name"), Vec::new())
}

fn owned<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

fn framing(framing: head::Framing) -> Framing {
    match framing {
        head::Framing::Length(length) => Framing::Length(length),
        head::Framing::Chunked => Framing::Chunked,
        head::Framing::UntilClose => Framing::UntilClose,
    }
}

fn told(why: impl std::fmt::Debug) -> String {
    format!("{why:?}")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// Two sockets that are joined. What works on connections over TCP works on them, but for what only TCP has.
fn pair() -> (TcpStream, TcpStream) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("two sockets");
    let stream = |end: std::os::fd::OwnedFd| TcpStream::from_std(end.into()).expect("a stream");
    (stream(one), stream(other))
}

/// Longer than any conversation takes in which nobody waits for what does not come.
const PATIENCE: Duration = Duration::from_secs(5);
