//! SOCKS5 (RFC 1928): CONNECT without authentication. SOCKS4 is answered, and refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use egret_policy::{Denial, Destination, Reason, Target};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Asked, Client, Reply, part, send};
use crate::audit::Door;
use crate::inspect::http::Input;
use crate::limits::Limit;
use crate::refused::Refused;
use crate::{Gateway, Handshake};

/// Reads what a client asks for; nothing if it has been dealt with.
pub(super) async fn read(
    gateway: &Gateway,
    stream: TcpStream,
    mut input: Input,
    handshake: Handshake,
) -> Option<Asked> {
    let version_4 = input.bytes().first() == Some(&4);
    let read = timeout(
        gateway.limits.handshake_time,
        negotiate(&stream, &mut input),
    )
    .await;
    drop(handshake);
    let reply = if version_4 {
        Reply::Socks4
    } else {
        Reply::Socks5
    };
    let (wanted, reply) = match read {
        Ok(Ok(wanted)) => (Ok(wanted), reply),
        Ok(Err(Unread::Gone)) => return None,
        Ok(Err(Unread::Answered(answer, refused))) => {
            gateway
                .refused(&gateway.log.id(), Door::Socks, None, &refused)
                .await;
            if send(&stream, &answer).await.is_ok() {
                part(&stream, !input.bytes().is_empty()).await;
            }
            return None;
        }
        Ok(Err(Unread::Refused(refused))) => (Err(*refused), reply),
        Err(_) => (Err(Refused::limit(Limit::HandshakeTime, "")), reply),
    };
    Some(Client::new(stream, input, Door::Socks, reply).asks(wanted))
}

/// Why there is no destination.
pub(crate) enum Unread {
    /// The client went away.
    Gone,
    /// It is to be refused with the general reply.
    Refused(Box<Refused>),
    /// It is to be refused with these very bytes.
    Answered(Vec<u8>, Box<Refused>),
}

pub(crate) async fn negotiate(
    stream: &TcpStream,
    input: &mut Input,
) -> Result<Destination, Unread> {
    // Version, number of methods, methods.
    let version = byte(stream, input).await?;
    if version == 4 {
        let refused = Refused::protocol("", "SOCKS4 is not spoken; use SOCKS5 (`socks5h://`)");
        return Err(Unread::Refused(Box::new(refused)));
    }
    let count = byte(stream, input).await?;
    let methods = take(stream, input, usize::from(count)).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        let refused = Refused::protocol(
            "",
            "the SOCKS5 client insists on authenticating; offer the method `no authentication`",
        );
        return Err(Unread::Answered(vec![5, NO_METHOD], Box::new(refused)));
    }
    send(stream, &[5, NO_AUTHENTICATION])
        .await
        .map_err(|_| Unread::Gone)?;
    // Version, command, reserved, address type, address, port.
    let head = take(stream, input, 4).await?;
    let &[version, command, reserved, kind] = head.as_slice() else {
        return Err(Unread::Gone);
    };
    if version != 5 || reserved != 0 {
        return Err(malformed("the SOCKS5 request does not follow RFC 1928"));
    }
    let host = match kind {
        1 => Host::Target(Target::Address(
            Ipv4Addr::from(array::<4>(&take(stream, input, 4).await?)?).into(),
        )),
        4 => Host::Target(Target::Address(
            Ipv6Addr::from(array::<16>(&take(stream, input, 16).await?)?).into(),
        )),
        3 => {
            let length = byte(stream, input).await?;
            Host::Text(take(stream, input, usize::from(length)).await?)
        }
        _ => {
            let refused = Refused::malformed("the SOCKS5 request has an unknown type of address");
            return Err(Unread::Answered(
                reply(ADDRESS_TYPE).to_vec(),
                Box::new(refused),
            ));
        }
    };
    let port = u16::from_be_bytes(array::<2>(&take(stream, input, 2).await?)?);
    let destination = match host {
        Host::Target(target) => Destination::new(target, port),
        Host::Text(bytes) => match std::str::from_utf8(&bytes) {
            Ok(text) => Destination::parse(text, &port.to_string()),
            Err(_) => return Err(malformed("the SOCKS5 request's host name is not text")),
        },
    };
    let destination =
        destination.map_err(|error| Unread::Refused(Box::new(Denial::from(error).into())))?;
    if command != CONNECT {
        let refused = Refused::protocol(
            destination.to_string(),
            "of SOCKS5's commands only CONNECT is carried; UDP is not",
        );
        return Err(Unread::Answered(reply(COMMAND).to_vec(), Box::new(refused)));
    }
    Ok(destination)
}

enum Host {
    Target(Target),
    Text(Vec<u8>),
}

fn malformed(why: &str) -> Unread {
    Unread::Refused(Box::new(Refused::malformed(why)))
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Unread> {
    bytes.try_into().map_err(|_| Unread::Gone)
}

async fn byte(stream: &TcpStream, input: &mut Input) -> Result<u8, Unread> {
    take(stream, input, 1)
        .await?
        .first()
        .copied()
        .ok_or(Unread::Gone)
}

async fn take(stream: &TcpStream, input: &mut Input, count: usize) -> Result<Vec<u8>, Unread> {
    while input.bytes().len() < count {
        if !matches!(input.fill(stream).await, Ok(1..)) {
            return Err(Unread::Gone);
        }
    }
    let taken = input.bytes().get(..count).unwrap_or_default().to_vec();
    input.consume(count);
    Ok(taken)
}

/// The connection is there. We do not say from which address it was made: it is no business of a sandbox's.
pub(super) fn granted() -> [u8; 10] {
    reply(0)
}

/// The reply that comes nearest to why there is no connection.
pub(super) fn refusal(refused: &Refused) -> [u8; 10] {
    reply(match refused {
        Refused::Unreachable { .. } => HOST_UNREACHABLE,
        Refused::Denied(denial) if denial.reason() == Reason::DeniedResolution => HOST_UNREACHABLE,
        Refused::Denied(denial) if denial.reason() == Reason::DeniedMalformed => GENERAL_FAILURE,
        Refused::Limit { .. } => GENERAL_FAILURE,
        Refused::Denied(_) | Refused::Address { .. } | Refused::Inbound { .. } => NOT_ALLOWED,
    })
}

/// SOCKS4's only refusal.
pub(super) fn refusal_4() -> [u8; 8] {
    [0, 0x5b, 0, 0, 0, 0, 0, 0]
}

fn reply(code: u8) -> [u8; 10] {
    [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const GENERAL_FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const COMMAND: u8 = 7;
const ADDRESS_TYPE: u8 = 8;
