//! The proxy port: HTTP `CONNECT`, and the way to the two others that are spoken on the same port.

use std::sync::Arc;

use egret_policy::Destination;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Asked, Client, Reply, forward, socks};
use crate::audit::Door;
use crate::flow::reset;
use crate::inspect::http::head::{BadHead, Framing, Request};
use crate::inspect::http::{Input, NoRequest, destination};
use crate::limits::Limit;
use crate::refused::Refused;
use crate::{Gateway, Handshake, note_refusal};

/// Tells from the first byte what a client of the proxy port speaks, and reads what it asks for; nothing if it has been
/// dealt with.
pub(crate) async fn read(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    handshake: Handshake,
) -> Option<Asked> {
    let mut input = Input::default();
    match timeout(gateway.limits.handshake_time, input.fill(&stream)).await {
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) => return None,
        Err(_) => {
            reset(&stream);
            let refused = Refused::limit(Limit::HandshakeTime, "");
            note_refusal(gateway, Door::Connect, &refused, |record| record);
            return None;
        }
    }
    match input.bytes().first() {
        Some(4 | 5) => Box::pin(socks::read(gateway, stream, input, handshake)).await,
        Some(20..=24) => {
            reset(&stream);
            let refused = Refused::protocol(
                "",
                "TLS was begun with the proxy itself; it is spoken to in plain HTTP or SOCKS5",
            );
            gateway
                .refused(&gateway.log.id(), Door::Connect, None, &refused)
                .await;
            None
        }
        _ => http(gateway, stream, input, handshake).await,
    }
}

async fn http(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    mut input: Input,
    handshake: Handshake,
) -> Option<Asked> {
    let request = input.request(&stream, &gateway.limits, true).await;
    drop(handshake);
    let wanted = match request {
        Ok(request) if request.method() == "CONNECT" => wanted(&request),
        Ok(request) => {
            return Box::pin(forward::serve(gateway, stream, input, request)).await;
        }
        Err(NoRequest::End | NoRequest::Gone) => return None,
        Err(NoRequest::Refused(refused)) => Err(refused),
    };
    Some(Client::new(stream, input, Door::Connect, Reply::Http).asks(wanted))
}

/// The destination of a `CONNECT` request (RFC 9110 9.3.6): host and port, both of them.
pub(crate) fn wanted(request: &Request) -> Result<Destination, Refused> {
    request.host()?;
    if request.framing()? != Framing::Length(0) {
        return Err(BadHead::Malformed("a CONNECT request has no body").into());
    }
    destination(request.target(), None)
}
