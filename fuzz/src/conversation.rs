//! Whole connections, through the code that carries them: whatever a client sends to a name that was decided on, what its
//! server gets names no other host, and where requests are decided on it is nothing but those.

use std::cell::OnceCell;
use std::fs::File;

use egret_gateway::fuzz::{self, Harness};
use egret_policy::Destination;

use crate::first::server_name;
use crate::llhttp::{self, Kind};
use crate::{cut, holds};

const NAME: &str = "a.example";

/// What the policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// The name.
    Name,
    /// Requests for one path of it.
    Requests,
}

/// How finely it is cut, what is allowed, and all that a client sends.
pub fn conversation(data: &[u8]) {
    let [step, allowed, bytes @ ..] = data else {
        return;
    };
    let allowed = match allowed % 2 {
        0 => Allowed::Name,
        _ => Allowed::Requests,
    };
    let to = Destination::from_user("http://a.example").expect("a destination");
    let mut answered = 0;
    let carried = harness(allowed, |harness| {
        harness.carry(&to, &cut(bytes, *step), |got| {
            let mut answers = Vec::new();
            while let Some(length) = complete(&got[answered..]) {
                answered += length;
                answers.extend_from_slice(ANSWER);
            }
            Some(answers)
        })
    });
    let carried = carried.expect("a conversation ends");
    holds(harmless(allowed, &carried.up));
}

/// Whether a server may get this.
fn harmless(allowed: Allowed, up: &[u8]) -> Result<(), String> {
    let is_name = |name: &str| name.trim_end_matches('.').eq_ignore_ascii_case(NAME);
    if let Some(name) = server_name(up)
        && (allowed == Allowed::Requests || !name.as_deref().is_some_and(is_name))
    {
        return Err(format!("a ClientHello for {name:?}"));
    }
    let mut rest = up;
    while let Some(request) = llhttp::read(rest, Kind::LenientRequest) {
        let hosts = request
            .fields
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"host"));
        let hosts: Vec<_> = hosts
            .map(|(_, host)| String::from_utf8_lossy(host))
            .collect();
        let is_ours = |host: &str| {
            Destination::from_authority(host, Some(80))
                .is_ok_and(|to| to.to_string() == "a.example:80")
        };
        match hosts.as_slice() {
            [host] if is_ours(host) => {}
            // HTTP/1.0 knows no hosts: a server that has several takes one of its own choice.
            [host] if request.minor == 0 && host.is_empty() => {}
            hosts => return Err(format!("a request for {hosts:?}")),
        }
        if !request.target.starts_with(b"/") && request.target != b"*" {
            return Err(format!(
                "a target {:?}",
                String::from_utf8_lossy(&request.target)
            ));
        }
        if matches!(request.method.as_str(), "CONNECT" | "TRACE") {
            return Err(format!("the method {}", request.method));
        }
        let path = request.target.split(|&byte| byte == b'?').next();
        if allowed == Allowed::Requests && (request.method != "GET" || path != Some(b"/ok")) {
            return Err(format!("a request that is not allowed: {request:?}"));
        }
        if !request.is_complete {
            return Ok(());
        }
        rest = &rest[request.length..];
    }
    match allowed {
        Allowed::Requests if !rest.is_empty() => Err(format!("what is no request: {rest:?}")),
        _ => Ok(()),
    }
}

/// How long the request is at the beginning, if it is complete.
fn complete(bytes: &[u8]) -> Option<usize> {
    let head = fuzz::request(&[bytes]).ok()??;
    match fuzz::body(head.framing.ok()?, &[&bytes[head.length..]]) {
        Ok((length, true)) => Some(head.length + length),
        _ => None,
    }
}

fn harness<T>(allowed: Allowed, work: impl FnOnce(&Harness) -> T) -> T {
    thread_local! {
        static NAMES: OnceCell<Harness> = const { OnceCell::new() };
        static REQUESTS: OnceCell<Harness> = const { OnceCell::new() };
    }
    let (kept, entry) = match allowed {
        Allowed::Name => (&NAMES, "a.example"),
        Allowed::Requests => (&REQUESTS, "{host: a.example, http: [GET /ok]}"),
    };
    let policy = format!("version: 1\nallow:\n  - {entry}\n");
    kept.with(|kept| {
        work(kept.get_or_init(|| {
            let nowhere = File::create("/dev/null").expect("a log");
            Harness::new(&policy, nowhere)
        }))
    })
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_may_not_get_is_noticed() {
        use Allowed::{Name, Requests};
        let good = "GET /ok HTTP/1.1\r\nhost: a.example\r\n\r\n";
        let other = good.replace("/ok", "/other");
        let elsewhere = good.replace("a.example", "b.example");
        let two = good.replace("host:", "host: b.example\r\nhost:");
        let hello = &include_bytes!("../seeds/client_hello/rustls")[1..];
        #[rustfmt::skip]
        let table: [(Allowed, &[u8], bool); 12] = [
            (Name,     good.as_bytes(),                   true ),
            (Name,     b"hello\n",                        true ),
            (Name,     hello,                             true ),
            (Name,     other.as_bytes(),                  true ),
            (Name,     elsewhere.as_bytes(),              false),
            (Name,     two.as_bytes(),                    false),
            (Requests, good.as_bytes(),                   true ),
            (Requests, &good.repeat(2).into_bytes(),      true ),
            (Requests, other.as_bytes(),                  false),
            (Requests, &[good, &other].concat().into_bytes(), false),
            (Requests, b"hello\n",                        false),
            (Requests, hello,                             false),
        ];
        for (allowed, up, is_harmless) in table {
            let shown = String::from_utf8_lossy(up);
            assert_eq!(
                harmless(allowed, up).is_ok(),
                is_harmless,
                "{allowed:?} {shown}"
            );
        }
    }

    #[test]
    fn a_conversation_reaches_its_server() {
        let to = Destination::from_user("http://a.example").unwrap();
        let ask: &[u8] = b"GET /ok HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let carried = harness(Allowed::Requests, |harness| {
            harness.carry(&to, &[ask, ask], |got| {
                complete(got).map(|_| ANSWER.to_vec()).or(Some(Vec::new()))
            })
        });
        let carried = carried.unwrap();
        assert!(
            carried
                .up
                .starts_with(b"GET /ok HTTP/1.1\r\nhost: a.example\r\n")
        );
        assert!(carried.down.ends_with(b"ok"));
    }
}
