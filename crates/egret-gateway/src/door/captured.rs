//! Connections that the sandbox made to wherever it liked, and that were redirected here.

use std::net::{IpAddr, SocketAddr};

use egret_policy::{Denial, Destination, Target};
use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};
use tokio::net::TcpStream;

use super::{Asked, Client, Reply};
use crate::audit::Door;
use crate::inspect::http::Input;
use crate::refused::Refused;

/// What a connection wants that was redirected to `at`.
pub(super) fn read(stream: TcpStream, at: SocketAddr) -> Asked {
    let wanted = wanted(&stream, at);
    Client::new(stream, Input::default(), Door::Captured, Reply::Nothing).asks(wanted)
}

fn wanted(stream: &TcpStream, at: SocketAddr) -> Result<Destination, Refused> {
    let at = match at.ip().is_unspecified() {
        // Only the connection itself knows.
        true => stream.local_addr().ok(),
        false => Some(at),
    };
    let redirected = at.and_then(|at| Some((originally_to(stream, at)?, at)));
    let Some((original, at)) = redirected else {
        return Err(Refused::malformed(
            "the connection was not redirected here; this port is for redirected connections only",
        ));
    };
    if same(original, at) {
        return Err(Refused::malformed(
            "the connection was made to this port itself, which is for redirected connections only",
        ));
    }
    Destination::new(Target::Address(original.ip()), original.port())
        .map_err(|malformed| Denial::from(malformed).into())
}

/// Where the client wanted to go (netfilter's `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST`).
pub(crate) fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    originally_to(stream, stream.local_addr().ok()?)
}

/// The same of a connection that ended up at `at`.
fn originally_to(stream: &TcpStream, at: SocketAddr) -> Option<SocketAddr> {
    match at.ip() {
        IpAddr::V4(_) => ip_original_dst(stream).ok().map(SocketAddr::V4),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            ip_original_dst(stream).ok().map(SocketAddr::V4)
        }
        IpAddr::V6(_) => ipv6_original_dst(stream).ok().map(SocketAddr::V6),
    }
}

fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}
