//! Attempts by way of the gateway: what may not be asked of it, and what may not be said on what it allows.

use super::super::plan::{Granted, Outcome, Recorded};
use super::super::sinks::{CONTROL, GREETING};
use super::{PATIENCE, Told, hear, refused, shown};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A way to ask for a destination.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Connect,
    Forward,
    Socks,
}

/// The machine, by the name that is opened for the prober.
const MACHINE: &str = "host.docker.internal";

/// Asks the gateway for `authority`, which is `HOST:PORT` or meant to look like it.
pub(super) fn ask(told: &Told<'_>, class: u8, way: Ask, authority: &str) {
    let Some(proxy) = told.plan.proxy else { return };
    let token = told.plan.token(class);
    let what = match way {
        Ask::Connect => format!("CONNECT {authority}"),
        Ask::Forward => format!("GET http://{authority}/"),
        Ask::Socks => format!("SOCKS5 {authority}"),
    };
    told.attempt(class, printable(&what), || {
        let asked = match way {
            Ask::Connect => format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes(),
            Ask::Forward => format!("GET http://{authority}/{token} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n").into_bytes(),
            Ask::Socks => match socks_request(authority) {
                Some(request) => request,
                None => return (Outcome::Impossible("it has no form in SOCKS".into()), None),
            },
        };
        let heard = match say(proxy, &[&asked], is_whole) {
            Ok(heard) => heard,
            Err(error) => return (refused(&error), None),
        };
        judge(&heard, way)
    });
}

/// Whether what was heard of a proxy says all there is to know.
fn is_whole(heard: &[u8]) -> bool {
    let text = String::from_utf8_lossy(heard);
    text.contains(GREETING) || (heard.first() == Some(&5) && heard.len() >= 12)
}

/// What a gateway's answer means.
fn judge(heard: &[u8], way: Ask) -> (Outcome, Option<Recorded>) {
    let text = String::from_utf8_lossy(heard);
    if text.contains(GREETING) {
        return (Outcome::Through(shown(heard)), None);
    }
    if let Ask::Socks = way {
        return match heard {
            [5, 0, 5, 0, ..] => (Outcome::Through("the reply is success".into()), None),
            [5, 0, 5, reply, ..] => (Outcome::Refused(format!("reply {reply}")), None),
            _ => (Outcome::Refused("closed".into()), None),
        };
    }
    if text.starts_with("HTTP/1.1 2") {
        return (Outcome::Through(shown(heard)), None);
    }
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
    let body: Option<serde_json::Value> = body.and_then(|body| serde_json::from_str(body).ok());
    let word = |key: &str| Some(body.as_ref()?.get(key)?.as_str()?.to_owned());
    let how = match word("reason") {
        Some(reason) => reason,
        None if heard.is_empty() => "closed without a word".into(),
        None => shown(heard),
    };
    (Outcome::Refused(how), word("id").map(Recorded::Id))
}

/// A SOCKS5 greeting and request (RFC 1928) for `HOST:PORT`.
fn socks_request(authority: &str) -> Option<Vec<u8>> {
    let (host, port) = authority.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let mut request = vec![5, 1, 0, 5, 1, 0];
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(3);
            request.push(u8::try_from(host.len()).ok()?);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Some(request)
}

/// Says `parts` to the proxy, one after the other, and returns what comes back until it ends or is `enough`.
fn say(proxy: u16, parts: &[&[u8]], enough: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut stream = open(proxy)?;
    for part in parts {
        // Whoever has refused already has said why.
        if stream.write_all(part).is_err() {
            break;
        }
    }
    hear(&mut stream, enough)
}

fn open(proxy: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

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
pub(super) fn spoken(told: &Told<'_>) {
    let Some(proxy) = told.plan.proxy else { return };
    injection(told);
    let Some(granted) = &told.plan.granted else {
        told.attempt(CONTROL, "a server that is allowed", || {
            (
                Outcome::Impossible("the policy refuses the server that a prober is given".into()),
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
            let heard = say(proxy, &[request.as_bytes()], ends_a_response);
            match heard {
                Ok(heard) => judge(&heard, Ask::Connect),
                Err(error) => (refused(&error), None),
            }
        });
    }
}

/// Classes 15, 18 to 22: destinations that are no names.
pub(super) fn addresses(told: &Told<'_>) {
    ask(
        told,
        15,
        Ask::Connect,
        &format!("198.51.100.7:{}", told.port(15)),
    );
    let port = told.port(18);
    let v4: Vec<Ipv4Addr> = told
        .plan
        .hosts
        .iter()
        .filter_map(|host| match host {
            IpAddr::V4(host) => Some(*host),
            IpAddr::V6(_) => None,
        })
        .collect();
    for address in [Ipv4Addr::LOCALHOST].iter().chain(v4.first()) {
        let number = u32::from(*address);
        let [a, b, c, d] = address.octets();
        for host in [
            number.to_string(),
            format!("{number:#x}"),
            format!("0{number:o}"),
            format!("{a}.{}", number & 0xff_ffff),
            format!("{a:#x}.{b}.{c}.{d}"),
            format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
            format!("{a}.{b}.{c}.{d}."),
        ] {
            for way in [Ask::Connect, Ask::Socks] {
                ask(told, 18, way, &format!("{host}:{port}"));
            }
        }
    }
    let port = told.port(19);
    for address in [Ipv4Addr::LOCALHOST].iter().chain(v4.first()) {
        let [a, b, c, d] = address.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for host in [
            format!("::ffff:{address}"),
            format!("::{address}"),
            format!("::ffff:0:{address}"),
            format!("64:ff9b::{address}"),
            format!("64:ff9b:1::{address}"),
            format!("2002:{high:x}:{low:x}::1"),
            format!("2001:0:{high:x}:{low:x}::{:x}:{:x}", !high, !low),
            format!("fe80::5efe:{address}"),
            "fe80::1%lo".into(),
        ] {
            ask(told, 19, Ask::Connect, &format!("[{host}]:{port}"));
        }
    }
    let port = told.port(20);
    for host in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.8.8.8",
        "10.255.255.254",
        "172.31.255.254",
        "192.168.255.254",
        "100.64.0.1",
        "169.254.1.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.19.255.254",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[fc00::1]",
        "[fec0::1]",
        "[fe80::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[100::1]",
    ] {
        ask(told, 20, Ask::Connect, &format!("{host}:{port}"));
    }
    for host in [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
        "metadata.google.internal",
        "metadata",
        "instance-data",
    ] {
        for way in [Ask::Connect, Ask::Forward] {
            ask(told, 21, way, &format!("{host}:80"));
        }
    }
    let (port, name) = (told.port(22), MACHINE);
    let granted = told
        .plan
        .granted
        .as_ref()
        .map_or(port, |granted| granted.port);
    for odd in [
        format!("0{granted}"),
        format!("+{granted}"),
        format!("-{granted}"),
        (65_536 + u32::from(granted)).to_string(),
        format!("{granted}x"),
        format!(" {granted}"),
        String::new(),
        "0".into(),
    ] {
        ask(told, 22, Ask::Connect, &format!("{name}:{odd}"));
    }
    if !told.plan.host_is_open {
        ask(told, 22, Ask::Connect, &format!("{name}:{port}"));
    }
    if let Some(granted) = &told.plan.granted {
        ask(
            told,
            22,
            Ask::Connect,
            &format!("allowed.{}:{}", granted.zone, told.plan.udp),
        );
    }
}

/// Class 28.
pub(super) fn socks(told: &Told<'_>) {
    let Some(proxy) = told.plan.proxy else { return };
    let port = told.port(28).to_be_bytes();
    let Some(host) = told.plan.hosts.iter().find_map(|host| match host {
        IpAddr::V4(host) => Some(host.octets()),
        IpAddr::V6(_) => None,
    }) else {
        return;
    };
    let five = |rest: &[u8]| [&[5, 1, 0][..], rest].concat();
    let target = [&[1][..], &host, &port].concat();
    for (what, request) in [
        ("SOCKS4", [&[4, 1][..], &port, &host, b"user\0"].concat()),
        (
            "SOCKS4a",
            [
                &[4, 1][..],
                &port,
                &[0, 0, 0, 1],
                b"user\0host.docker.internal\0",
            ]
            .concat(),
        ),
        ("BIND", five(&[&[5, 2, 0][..], &target].concat())),
        ("UDP ASSOCIATE", five(&[&[5, 3, 0][..], &target].concat())),
        (
            "an unknown command",
            five(&[&[5, 9, 0][..], &target].concat()),
        ),
        (
            "an unknown kind of address",
            five(&[&[5, 1, 0, 7][..], &host, &port].concat()),
        ),
        (
            "an empty name",
            five(&[&[5, 1, 0, 3, 0][..], &port].concat()),
        ),
        (
            "a length that lies",
            five(&[&[5, 1, 0, 3, 255][..], b"host", &port].concat()),
        ),
    ] {
        told.attempt(28, what, || {
            let lies = what.contains("lies");
            let heard = (|| {
                let mut stream = open(proxy)?;
                stream.set_read_timeout(Some(Duration::from_millis(if lies {
                    300
                } else {
                    3000
                })))?;
                stream.write_all(&request)?;
                hear(&mut stream, is_whole)
            })();
            let outcome = match heard {
                Ok(heard) if heard.starts_with(&[0, 0x5a]) => {
                    Outcome::Through("the reply is success".into())
                }
                Ok(heard) => judge(&heard, Ask::Socks).0,
                // It waits for the rest of a name that never comes.
                Err(_) if lies => Outcome::Refused("it waits for the rest".into()),
                Err(error) => refused(&error),
            };
            (outcome, None)
        });
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}
