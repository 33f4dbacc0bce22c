//! The first bytes of a connection: what a server could take for TLS or for HTTP is not taken for something else.

use egret_gateway::fuzz::{self, First};
use rustls::server::Acceptor;

use crate::llhttp::{self, Kind};
use crate::{cut, holds};

/// How finely they are cut, and what a client sends first.
pub fn first_bytes(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else {
        return;
    };
    let found = fuzz::first(&cut(bytes, step));
    // A head that is not complete yet may be anything.
    let is_http = llhttp::read(bytes, Kind::LenientRequest).is_some();
    holds(told_apart(&found, is_http, server_name(bytes)));
}

fn told_apart(found: &First, is_http: bool, hello: Option<Option<String>>) -> Result<(), String> {
    if is_http
        && matches!(
            found,
            First::Opaque | First::Watch | First::Prelude | First::Tls(_)
        )
    {
        return Err(format!("llhttp reads a request, and this is {found:?}"));
    }
    match (found, hello) {
        (First::Hold | First::Bad, _) | (_, None) => Ok(()),
        (First::Tls(ours), Some(theirs)) => same_name(ours.as_deref(), theirs.as_deref()),
        (found, Some(_)) => Err(format!("rustls reads a ClientHello, and this is {found:?}")),
    }
}

/// How finely it is cut, and a ClientHello.
pub fn client_hello(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else {
        return;
    };
    let whole = fuzz::client_hello(&[bytes]);
    let in_pieces = fuzz::client_hello(&cut(bytes, step));
    match (&whole, &in_pieces) {
        // Of several mistakes the first counts, and which that is depends on how much is here.
        (Err(_), Err(_) | Ok(None)) | (Err(_), Ok(Some(_))) => {}
        _ => assert_eq!(whole, in_pieces, "in pieces"),
    }
    if let (Ok(Some(ours)), Some(theirs)) = (whole, server_name(bytes)) {
        holds(same_name(ours.as_deref(), theirs.as_deref()));
    }
}

fn same_name(ours: Option<&str>, theirs: Option<&str>) -> Result<(), String> {
    let canonical = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    match ours.map(canonical) == theirs.map(canonical) {
        true => Ok(()),
        false => Err(format!("the name is {ours:?}, and {theirs:?} by rustls")),
    }
}

/// The server name as rustls reads it, once there is a whole ClientHello.
pub fn server_name(mut bytes: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    loop {
        let read = acceptor.read_tls(&mut bytes).ok()?;
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Some(hello.server_name().map(str::to_owned));
            }
            Ok(None) if read > 0 => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_taken_for_another_is_noticed() {
        let name = |name: &str| Some(Some(name.to_owned()));
        let tls = |name: Option<&str>| First::Tls(name.map(str::to_owned));
        assert!(told_apart(&First::Http, true, None).is_ok());
        assert!(told_apart(&First::Opaque, false, None).is_ok());
        assert!(told_apart(&First::Opaque, true, None).is_err());
        assert!(told_apart(&First::Watch, true, None).is_err());
        assert!(told_apart(&First::Opaque, false, Some(None)).is_err());
        assert!(told_apart(&tls(Some("a.example")), false, name("A.example")).is_ok());
        assert!(told_apart(&tls(Some("a.example")), false, name("b.example")).is_err());
        assert!(told_apart(&tls(None), false, name("b.example")).is_err());
        assert!(told_apart(&tls(Some("a.example")), false, Some(None)).is_err());
    }

    #[test]
    fn rustls_reads_a_seed() {
        let seed = include_bytes!("../seeds/client_hello/rustls");
        assert_eq!(server_name(&seed[1..]), Some(Some("a.example".into())));
        let found = fuzz::first(&[&seed[1..]]);
        assert_eq!(found, First::Tls(Some("a.example".into())));
    }
}
