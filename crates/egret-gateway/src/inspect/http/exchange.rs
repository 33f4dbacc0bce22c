//! One request and its response.
//!
//! Heads are written anew from what was read, never passed on as they came, and without the fields that
//! are about one connection only (RFC 9110 7.6.1). The request's body and the response move at the same
//! time, so a server may answer, or say `100 Continue`, whenever it likes.

use std::sync::atomic::{AtomicBool, Ordering};

use memchr::memchr_iter;
use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;

use super::body::{Body, Cut};
use super::head::{BadHead, Field, Framing, Request, Response, tokens};
use super::input::Input;
use crate::activity::{Count, Moving};
use crate::door::send;
use crate::limits::Limits;
use crate::relay::Pool;

/// Both ends of an exchange.
pub(crate) struct Ends<'a> {
    pub(crate) client: &'a TcpStream,
    pub(crate) input: &'a mut Input,
    pub(crate) server: &'a TcpStream,
    pub(crate) server_input: &'a mut Input,
}

/// What is sent in place of the client's request line and `Host`.
pub(crate) struct Line<'a> {
    /// In origin form, or `*`.
    pub(crate) target: &'a str,
    pub(crate) host: &'a str,
    /// Whether the client's connection ends when the server's does.
    pub(crate) bound: bool,
    /// Whether the server's connection carries no further request: so it has to be where requests are decided on and this
    /// one has a body, for a server that leaves the body unread would take it for the next request.
    pub(crate) last: bool,
    /// Whether the server is told when the client ends its direction, also while the answer is on its way: whoever sends
    /// a stream of events would never hear of it otherwise.
    pub(crate) tells_end: bool,
}

/// What the two connections are good for after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Next {
        client: bool,
        server: bool,
    },
    /// Both sides now speak WebSocket frames.
    Upgraded,
}

/// An exchange that did not come to its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The client went away, or the server did in the middle of its answer: nothing more can be said.
    Off,
    /// The server went away before its answer; `untouched` if not a byte of it had come.
    Server { untouched: bool, why: &'static str },
    /// The request's body is malformed and nothing was answered yet.
    Request(&'static str),
}

/// Sends `request` to the server and the answer to the client.
pub(crate) async fn exchange(
    ends: Ends<'_>,
    request: &Request,
    line: &Line<'_>,
    framing: Framing,
    limits: &Limits,
    pool: &Pool,
    moving: &Moving,
) -> Result<After, Broken> {
    let Ends {
        client,
        input,
        server,
        server_input,
    } = ends;
    let mut body = Body::from(framing);
    let mut first = request_head(request, line);
    // The head and what is here of the body go out in one write.
    if !body.is_complete() {
        let taken = body.take(input.bytes()).map_err(early)?;
        first.extend_from_slice(input.bytes().get(..taken).unwrap_or_default());
        input.consume(taken);
    }
    send(server, &first).await.map_err(|_| Broken::Server {
        untouched: true,
        why: CLOSED,
    })?;
    moving.up.add(first.len());
    drop(first);

    // Shared by the two halves below, which run on one task.
    let answered = AtomicBool::new(false);
    let sent = AtomicBool::new(body.is_complete());
    let response = respond(
        client,
        server,
        server_input,
        request,
        line,
        limits,
        pool,
        &moving.down,
        (&sent, &answered),
    );
    tokio::pin!(response);
    let mut after = None;
    if !sent.load(Ordering::Relaxed) {
        let rest = async {
            let passed = body.pass(client, input, server, pool, &moving.up).await;
            match passed {
                // A server that has heard enough answers and closes: its answer is what counts.
                Ok(()) | Err(Cut::To) => Ok(()),
                Err(cut) => Err(cut),
            }
        };
        tokio::select! {
            early = &mut response => after = Some(early?),
            passed = rest => match passed {
                Ok(()) => sent.store(true, Ordering::Relaxed),
                // Half an answer cannot be taken back: then the connection ends instead.
                Err(Cut::Bad(why)) if !answered.load(Ordering::Relaxed) => return Err(Broken::Request(why)),
                Err(_) => return Err(Broken::Off),
            }
        }
    }
    let after = match after {
        Some(after) => after,
        None if line.tells_end && input.bytes().is_empty() => {
            let told = async {
                ended(client).await;
                // A server that cannot be told any more has closed already.
                let _ = shutdown(server, Shutdown::Write);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                after = &mut response => after?,
                () = told => return Err(Broken::Off),
            }
        }
        None => response.await?,
    };
    Ok(match after {
        // The rest of the body would be taken for a request.
        After::Next { .. } if !sent.load(Ordering::Relaxed) => After::Next {
            client: false,
            server: false,
        },
        after => after,
    })
}

/// Waits until a client has ended its direction, with nothing in front of that unread: for ever, if it sends more.
async fn ended(client: &TcpStream) {
    let mut next = [0; 1];
    if !matches!(client.peek(&mut next).await, Ok(0) | Err(_)) {
        std::future::pending().await
    }
}

fn early(cut: Cut) -> Broken {
    match cut {
        Cut::Bad(why) => Broken::Request(why),
        Cut::From | Cut::To => Broken::Off,
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one half of `exchange`, split off only to run beside the other"
)]
async fn respond(
    client: &TcpStream,
    server: &TcpStream,
    input: &mut Input,
    request: &Request,
    line: &Line<'_>,
    limits: &Limits,
    pool: &Pool,
    moved: &Count,
    (sent, answered): (&AtomicBool, &AtomicBool),
) -> Result<After, Broken> {
    let mut interim = 0;
    let response = loop {
        let response = head(server, input, limits).await?;
        match response.status {
            101 => break response,
            100..200 if interim < INTERIM => {
                interim += 1;
                if request.minor == 1 {
                    let head = response_head(&response, true, false);
                    send(client, &head).await.map_err(|_| Broken::Off)?;
                    moved.add(head.len());
                    answered.store(true, Ordering::Relaxed);
                }
            }
            100..200 => {
                return Err(Broken::Server {
                    untouched: false,
                    why: "the server sends interim responses without end",
                });
            }
            _ => break response,
        }
    };
    if response.status == 101 {
        if !request.asks_for_websocket() {
            return Err(Broken::Server {
                untouched: false,
                why: "the server switched protocols without having been asked to",
            });
        }
        let head = response_head(&response, true, true);
        send(client, &head).await.map_err(|_| Broken::Off)?;
        moved.add(head.len());
        return Ok(After::Upgraded);
    }
    let framing = response.framing(request.method()).map_err(bad_answer)?;
    let until_close = framing == Framing::UntilClose;
    let bound = line.bound;
    let server_stays = request.minor == 1 && response.keeps_alive() && !until_close && !line.last;
    // The rest of a body that is still on its way would be taken for a request: the client has to be told.
    let client_stays = request.minor == 1
        && request.keeps_alive()
        && !until_close
        && (server_stays || !bound)
        && sent.load(Ordering::Relaxed);
    let mut first = response_head(&response, client_stays, false);
    let mut body = Body::from(framing);
    if !body.is_complete() {
        let taken = body.take(input.bytes()).map_err(|_| Broken::Server {
            untouched: false,
            why: GARBLED,
        })?;
        first.extend_from_slice(input.bytes().get(..taken).unwrap_or_default());
        input.consume(taken);
    }
    send(client, &first).await.map_err(|_| Broken::Off)?;
    moved.add(first.len());
    answered.store(true, Ordering::Relaxed);
    drop(first);
    body.pass(server, input, client, pool, moved)
        .await
        .map_err(|_| Broken::Off)?;
    // Something behind the response belongs to no request of ours.
    let server_stays = server_stays && input.bytes().is_empty();
    Ok(After::Next {
        client: client_stays && (server_stays || !bound),
        server: server_stays,
    })
}

/// Reads the head of an answer. It is parsed as soon as something has come, when it has doubled since, and when it may be at
/// its end: parsed with each piece, one that comes byte by byte would be read all over for every one.
async fn head(server: &TcpStream, input: &mut Input, limits: &Limits) -> Result<Response, Broken> {
    let mut untouched = true;
    let (mut seen, mut enough) = (0, 1);
    loop {
        untouched &= input.bytes().is_empty();
        // Those say nothing, and would each look like an end.
        input.consume(empty_lines(input.bytes()));
        let bytes = input.bytes();
        if bytes.len() >= enough || has_empty_line(bytes.get(seen..).unwrap_or_default()) {
            if let Some((response, length)) = Response::parse(bytes, limits).map_err(bad_answer)? {
                input.consume(length);
                return Ok(response);
            }
            enough = (2 * bytes.len()).min(limits.head_bytes);
        }
        // The end of a line, which an empty one may follow.
        seen = bytes.len().saturating_sub(2);
        if !matches!(input.fill(server).await, Ok(1..)) {
            return Err(Broken::Server {
                untouched,
                why: CLOSED,
            });
        }
    }
}

/// How many bytes in front are empty lines.
fn empty_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(after) = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")) {
        rest = after;
    }
    bytes.len() - rest.len()
}

fn has_empty_line(bytes: &[u8]) -> bool {
    memchr_iter(b'\n', bytes).any(|at| {
        let after = bytes.get(at + 1..).unwrap_or_default();
        after.starts_with(b"\n") || after.starts_with(b"\r\n")
    })
}

fn bad_answer(bad: BadHead) -> Broken {
    let why = match bad {
        BadHead::Malformed(why) => why,
        BadHead::Limit(_) => "the head of the server's answer is too large",
    };
    Broken::Server {
        untouched: false,
        why,
    }
}

fn request_head(request: &Request, line: &Line<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(request.method().as_bytes());
    head.push(b' ');
    head.extend_from_slice(line.target.as_bytes());
    head.extend_from_slice(match request.minor {
        0 => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    field(&mut head, (b"host", line.host.as_bytes()));
    fields(&mut head, request.fields(), &REQUEST_ONLY_HERE);
    if request.asks_for_websocket() {
        head.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    } else if line.last {
        head.extend_from_slice(b"connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn response_head(response: &Response, keep: bool, upgrade: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(response.status.to_string().as_bytes());
    head.push(b' ');
    head.extend_from_slice(response.phrase().as_bytes());
    head.extend_from_slice(b"\r\n");
    fields(&mut head, response.fields(), &RESPONSE_ONLY_HERE);
    if upgrade {
        head.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    } else if !keep {
        head.extend_from_slice(b"connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Writes the fields that are meant for the other side: not those that are `only_here`, nor what a `Connection` field
/// declares to be about this connection. Framing is never dropped that way.
fn fields<'a>(
    head: &mut Vec<u8>,
    all: impl Iterator<Item = Field<'a>> + Clone,
    only_here: &[&[u8]],
) {
    let is_one_of = |name: &[u8], names: &[&[u8]]| {
        let mut names = names.iter();
        names.any(|other| name.eq_ignore_ascii_case(other))
    };
    let connection = all
        .clone()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
    let declared: Vec<_> = connection.flat_map(|(_, value)| tokens(value)).collect();
    for (name, value) in all {
        let is_declared = is_one_of(name, &declared) && !is_one_of(name, &FRAMING);
        if !is_declared && !is_one_of(name, only_here) {
            field(head, (name, value));
        }
    }
}

fn field(head: &mut Vec<u8>, (name, value): Field<'_>) {
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
/// Fields about the client's connection; `host` is written from what was decided on.
const REQUEST_ONLY_HERE: [&[u8]; 9] = [
    b"host",
    b"connection",
    b"proxy-connection",
    b"keep-alive",
    b"proxy-authorization",
    b"proxy-authenticate",
    b"te",
    b"upgrade",
    b"http2-settings",
];
const RESPONSE_ONLY_HERE: [&[u8]; 5] = [
    b"connection",
    b"proxy-connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"upgrade",
];

/// Interim responses to one request.
const INTERIM: u32 = 16;
const CLOSED: &str = "the server closed the connection instead of answering";
const GARBLED: &str = "the body of the server's answer is malformed";
