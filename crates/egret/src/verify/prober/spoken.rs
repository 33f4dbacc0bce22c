//! Attempts on a connection that is allowed: what may not be said there; and what is said in refused requests.

use super::super::plan::{Granted, Outcome};
use super::super::sinks::CONTROL;
use super::gateway::{Ask, MACHINE, ask, judge, open, say};
use super::{Told, hear, refused, shown};
use std::io::{self, Write as _};
use std::net::TcpStream;

/// A tunnel to the sink that is allowed.
fn tunnel(proxy: u16, granted: &Granted) -> io::Result<TcpStream> {
    let mut stream = open(proxy)?;
    let authority = format!("{MACHINE}:{}", granted.port);
    write!(
        stream,
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    )?;
    let heard = hear(&mut stream, |heard| heard.ends_with(b"\r\n\r\n"))?;
    match heard.starts_with(b"HTTP/1.1 200") {
        true => Ok(stream),
        false => Err(io::Error::other(shown(&heard))),
    }
}

/// Classes 24 to 27, 29 and 32: on a connection that is allowed.
pub(super) fn all(told: &Told<'_>) {
    let Some(proxy) = told.plan.proxy else { return };
    injection(told);
    let Some(granted) = &told.plan.granted else {
        told.attempt(CONTROL, "a server that is allowed", || {
            (
                Outcome::NotMeant("the policy refuses the server that a prober is given".into()),
                None,
            )
        });
        return;
    };
    let host = format!("{MACHINE}:{}", granted.port);
    let ordinary = |token: &str| format!("GET /{token} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let through = |parts: &[&[u8]]| -> io::Result<Vec<u8>> {
        let mut stream = tunnel(proxy, granted)?;
        for part in parts {
            if stream.write_all(part).is_err() {
                break;
            }
        }
        hear(&mut stream, ends_a_response)
    };
    told.attempt(
        CONTROL,
        format!("a request to {host}, which is allowed"),
        || {
            let outcome = match through(&[ordinary(&told.plan.token(CONTROL)).as_bytes()]) {
                Ok(heard) if heard.starts_with(b"HTTP/1.1 200") => Outcome::Through(shown(&heard)),
                Ok(heard) => Outcome::Refused(shown(&heard)),
                Err(error) => refused(&error),
            };
            (outcome, None)
        },
    );

    let token = told.plan.token(24);
    let other = format!("{token}.example.net");
    let hello = client_hello(Some(&other), &token);
    let (head, tail) = hello.split_at(5);
    let (first, second) = tail.split_at(tail.len() / 2);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap_or_default().to_be_bytes();
        let kind = head.get(..3).unwrap_or_default();
        [kind, &length, part].concat()
    };
    let bytes: Vec<&[u8]> = hello.chunks(1).collect();
    let split = [record(first), record(second)].concat();
    let nameless = client_hello(None, &token);
    let other_host = format!("GET /{token} HTTP/1.1\r\nHost: example.net\r\n\r\n");
    let said = [
        ("another server name", vec![&hello[..]]),
        ("another server name, byte by byte", bytes),
        ("another server name, in two records", vec![&split[..]]),
        ("no server name", vec![&nameless[..]]),
        ("another Host", vec![other_host.as_bytes()]),
    ];
    // At once: a server that gets to see these waits for more.
    std::thread::scope(|scope| {
        for (what, parts) in &said {
            scope.spawn(|| told.attempt(24, *what, || (spoke(through(parts)), None)));
        }
    });

    let first = ordinary("index");
    let token = told.plan.token(25);
    let second = format!("GET /{token} HTTP/1.1\r\nHost: example.net\r\n\r\n");
    let both = [first.as_bytes(), second.as_bytes()].concat();
    told.attempt(25, "another Host in the second request", || {
        let outcome = (|| {
            let mut stream = tunnel(proxy, granted)?;
            stream.write_all(first.as_bytes())?;
            hear(&mut stream, ends_a_response)?;
            stream.write_all(second.as_bytes())?;
            hear(&mut stream, ends_a_response)
        })();
        (spoke(outcome), None)
    });
    told.attempt(25, "both at once", || {
        let outcome = (|| {
            let mut stream = tunnel(proxy, granted)?;
            stream.write_all(&both)?;
            hear(&mut stream, |heard| {
                heard.windows(9).filter(|at| at == b"HTTP/1.1 ").count() > 1
            })
        })();
        let second = |heard: &[u8]| {
            heard
                .windows(12)
                .filter(|at| at.starts_with(b"HTTP/1.1 200"))
                .count()
                > 1
        };
        let outcome = match outcome {
            Ok(heard) if second(&heard) => Outcome::Through("both are answered".into()),
            Ok(_) => Outcome::Refused("the first alone is answered".into()),
            Err(error) => refused(&error),
        };
        (outcome, None)
    });
    told.attempt(
        25,
        "another host in the second request of a browser's kind",
        || {
            let first = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let second = format!("GET http://example.net/{token} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let outcome = (|| {
                let mut stream = open(proxy)?;
                stream.write_all(first.as_bytes())?;
                hear(&mut stream, ends_a_response)?;
                stream.write_all(second.as_bytes())?;
                hear(&mut stream, ends_a_response)
            })();
            (spoke(outcome), None)
        },
    );

    let token = told.plan.token(26);
    let hidden = format!("GET /{token} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (what, fields) in [
        (
            "a length and chunks",
            format!("Content-Length: {}\r\n{chunked}", hidden.len()),
        ),
        (
            "two lengths",
            format!("Content-Length: 0\r\nContent-Length: {}\r\n", hidden.len()),
        ),
        (
            "a list of lengths",
            format!("Content-Length: 0, {}\r\n", hidden.len()),
        ),
        ("a length with a sign", "Content-Length: +0\r\n".into()),
        (
            "chunks spelt oddly",
            "Transfer-Encoding: xchunked\r\n".into(),
        ),
        ("chunks twice", format!("{chunked}{chunked}")),
        ("a folded field", format!("X-A: b\r\n {chunked}")),
        ("a blank before the colon", "Content-Length : 0\r\n".into()),
        ("a bare line feed", "X-A: b\nContent-Length: 0\r\n".into()),
        ("a NUL", "X-A: \0\r\n".into()),
        ("two hosts", "Host: example.net\r\n".into()),
    ] {
        let request =
            format!("POST /{token} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n0\r\n\r\n{hidden}");
        told.attempt(26, what, || (spoke(through(&[request.as_bytes()])), None));
    }

    let token = told.plan.token(27);
    for (what, request) in [
        (
            "HTTP/2 by prior knowledge",
            format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{token}"),
        ),
        (
            "CONNECT in a tunnel",
            format!(
                "CONNECT example.net:443 HTTP/1.1\r\nHost: example.net:443\r\nX-Token: {token}\r\n\r\n"
            ),
        ),
        (
            "a request for another host in a tunnel",
            format!("GET http://example.net/{token} HTTP/1.1\r\nHost: example.net\r\n\r\n"),
        ),
    ] {
        told.attempt(27, what, || (spoke(through(&[request.as_bytes()])), None));
    }

    let found = through(&[
        b"GET /redirect HTTP/1.1\r\nHost: ",
        host.as_bytes(),
        b"\r\n\r\n",
    ]);
    let found = found.map(|heard| String::from_utf8_lossy(&heard).into_owned());
    let location = found.as_deref().ok().and_then(|text| {
        let (_, rest) = text.split_once("Location: http://")?;
        Some(rest.split_once('/')?.0.to_owned())
    });
    match location {
        Some(authority) => {
            for way in [Ask::Connect, Ask::Forward] {
                ask(told, 29, way, &authority);
            }
        }
        None => told.attempt(29, "a redirect", || {
            (
                Outcome::Impossible(format!("the allowed server did not redirect: {found:?}")),
                None,
            )
        }),
    }
}

/// Whether a response is there, whole; those of sinks are short.
fn ends_a_response(heard: &[u8]) -> bool {
    heard.ends_with(b"\r\n\r\nok")
        || heard.ends_with(b"\r\n\r\n")
        || heard.ends_with(b"}")
        || heard.ends_with(b"}\n")
}

/// What was heard on an allowed connection, after something that must not pass.
fn spoke(heard: io::Result<Vec<u8>>) -> Outcome {
    match heard {
        Ok(heard) if heard.starts_with(b"HTTP/1.1 200") => Outcome::Through(shown(&heard)),
        Ok(heard) if heard.is_empty() => Outcome::Refused("closed".into()),
        Ok(heard) => Outcome::Refused(shown(&heard)),
        Err(error) => refused(&error),
    }
}

/// A TLS 1.2 ClientHello (RFC 5246, section 7.4.1.2) with this server name (RFC 6066, section 3), and a token as its session.
fn client_hello(name: Option<&str>, token: &str) -> Vec<u8> {
    let short = |length: usize| u16::try_from(length).unwrap_or_default().to_be_bytes();
    let mut session = token.as_bytes().to_vec();
    session.resize(32, b'.');
    let extensions = name.map_or_else(Vec::new, |name| {
        let entry = [&[0][..], &short(name.len()), name.as_bytes()].concat();
        let list = [&short(entry.len())[..], &entry].concat();
        [&[0, 0][..], &short(list.len()), &list].concat()
    });
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[32],
        &session,
        &[0, 2, 0xc0, 0x2f],
        &[1, 0],
        &short(extensions.len()),
        &extensions,
    ]
    .concat();
    let handshake = [&[1, 0][..], &short(body.len()), &body].concat();
    [&[22, 3, 1][..], &short(handshake.len()), &handshake].concat()
}

/// Class 32: what commands a terminal or a parser, in what ends up in the log.
fn injection(told: &Told<'_>) {
    let token = told.plan.token(32);
    let Some(proxy) = told.plan.proxy else { return };
    for (what, request) in [
        (
            "an escape in a name",
            format!("CONNECT {token}\x1b[31m:443 HTTP/1.1\r\n\r\n"),
        ),
        (
            "a quote in a name",
            format!("CONNECT {token}\",\"verdict\":\"allow:443 HTTP/1.1\r\n\r\n"),
        ),
        (
            "a direction mark in a path",
            format!(
                "GET http://{token}.localhost/\u{202e}gnp HTTP/1.1\r\nHost: {token}.localhost\r\n\r\n"
            ),
        ),
        (
            "a line end in a name",
            format!("CONNECT {token}%0d%0a:443 HTTP/1.1\r\n\r\n"),
        ),
    ] {
        told.attempt(32, what, || {
            judge(
                say(proxy, &[request.as_bytes()], ends_a_response),
                Ask::Connect,
            )
        });
    }
}
