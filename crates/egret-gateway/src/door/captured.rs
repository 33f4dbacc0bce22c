//! Connections that the sandbox made to wherever it liked, and that were redirected here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use egret_policy::{Denial, Destination, Target};
use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};
use tokio::net::TcpStream;

use super::{Client, Reply};
use crate::audit::Door;
use crate::inspect::http::Input;
use crate::refused::Refused;
use crate::{Gateway, Handshake, flow};

pub(super) async fn enter(gateway: Arc<Gateway>, stream: TcpStream, handshake: Handshake) {
    let wanted = wanted(&stream);
    drop(handshake);
    let client = Client {
        stream,
        input: Input::default(),
        door: Door::Captured,
        reply: Reply::Nothing,
        request: None,
    };
    flow::carry(&gateway, client, wanted).await;
}

fn wanted(stream: &TcpStream) -> Result<Destination, Refused> {
    let (Some(original), Ok(local)) = (original_destination(stream), stream.local_addr()) else {
        return Err(Refused::malformed(
            "the connection was not redirected here; this port is for redirected connections only",
        ));
    };
    if same(original, local) {
        return Err(Refused::malformed(
            "the connection was made to this port itself, which is for redirected connections only",
        ));
    }
    Destination::new(Target::Address(original.ip()), original.port())
        .map_err(|malformed| Denial::from(malformed).into())
}

/// Where the client wanted to go (netfilter's `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST`).
pub(crate) fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    match stream.local_addr().ok()?.ip() {
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
