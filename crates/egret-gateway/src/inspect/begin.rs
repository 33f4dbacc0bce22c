//! How a connection begins: finding out what the client speaks, while what the server says flows already, since many
//! servers speak first.
//!
//! Not here: what the bytes are ([`super::first`]), and what may be said ([`Grant`]).

use std::io;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::first::{First, Sniffer, TLS_FIRST, TLS_LAST};
use super::http::Input;
use crate::Gateway;
use crate::flow::{Ending, Tunnel};
use crate::grant::Grant;
use crate::limits::Limit;
use crate::refused::Refused;
use crate::relay::{Half, pass_end};

/// What a client speaks on a connection that was opened for it.
pub(crate) enum Speaks {
    /// Something that is passed on unread. What has been read of it is in the direction's [`Half`].
    Opaque,
    /// HTTP/1, of which nothing has been passed on.
    Http,
}

/// Reads the client's first bytes until it is clear what they are. Meanwhile bytes flow `down`.
pub(crate) async fn begin<G: Grant>(
    gateway: &Gateway,
    client: &TcpStream,
    input: &mut Input,
    tunnel: &Tunnel<G>,
    (up, down): (&mut Half, &mut Half),
) -> Result<Speaks, Ending> {
    let moved = &tunnel.session.open.moving.down;
    let speaks = {
        let mut answering = true;
        let answers = down.run(&tunnel.server, client, &gateway.pool, moved);
        let sniffed = sniff(gateway, client, input, tunnel, up);
        tokio::pin!(answers, sniffed);
        loop {
            tokio::select! {
                speaks = &mut sniffed => break speaks?,
                ended = &mut answers, if answering => {
                    ended?;
                    pass_end(client);
                    answering = false;
                }
            }
        }
    };
    match speaks {
        Speaks::Http if moved.get() > 0 || down.holds_some() => Err(Refused::protocol(
            tunnel.grant.destination().to_string(),
            "HTTP was begun on a connection on which the server spoke first",
        )
        .into()),
        speaks => Ok(speaks),
    }
}

/// Bytes that may pass are put into `up`; HTTP stays in `input`.
async fn sniff<G: Grant>(
    gateway: &Gateway,
    client: &TcpStream,
    input: &mut Input,
    tunnel: &Tunnel<G>,
    up: &mut Half,
) -> Result<Speaks, Ending> {
    let destination = || tunnel.grant.destination().to_string();
    let mut sniffer = Sniffer::default();
    let mut seen = 0;
    let mut watched = false;
    let mut deadline = None;
    // Where requests are decided on, nothing that is not a request may pass.
    let requests_only = tunnel.grant.requests_only();
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
            Some(_) if !G::READS_TLS && !watched && begins_tls(input) => break,
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
                pass_on(input, up, tunnel).await?;
                (seen, watched, deadline) = (0, true, None);
            }
            Some(First::Prelude) => {
                pass_on(input, up, tunnel).await?;
                // What comes next is held back like the first bytes, even if the prelude itself was slow.
                sniffer = Sniffer::default();
                (seen, watched, deadline) = (0, false, None);
            }
            Some(First::Tls(hello)) => {
                tunnel.grant.tls(gateway, &tunnel.session.open, &hello)?;
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
                    pass_on(input, up, tunnel).await?;
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
            up.end();
            break;
        }
    }
    up.push(&std::mem::take(input).into_bytes());
    Ok(Speaks::Opaque)
}

/// Sends on what the client has sent so far.
async fn pass_on<G>(input: &mut Input, up: &mut Half, tunnel: &Tunnel<G>) -> io::Result<()> {
    up.push(&std::mem::take(input).into_bytes());
    up.flush(&tunnel.server, &tunnel.session.open.moving.up)
        .await
}

fn begins_tls(input: &Input) -> bool {
    matches!(input.bytes().first(), Some(TLS_FIRST..=TLS_LAST))
}

/// How long bytes that could become an HTTP request line are held back.
const PATIENCE: Duration = Duration::from_secs(1);
