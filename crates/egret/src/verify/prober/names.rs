//! Attempts with names: questions that carry something out, names that lead elsewhere, and other ways to write them.

use super::super::plan::{NOBODYS, Outcome, Recorded};
use super::super::sinks::REBOUND;
use super::gateway::{Ask, ask};
use super::{PATIENCE, Told, refused};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

/// Class 13, and what of class 16 is a question.
pub(super) fn questions(told: &Told<'_>) {
    let token = told.plan.token(13);
    let host = told
        .plan
        .hosts
        .iter()
        .find(|host| host.is_ipv4() && !host.is_loopback());
    let servers = [
        Ipv4Addr::new(127, 0, 0, 11),
        Ipv4Addr::new(127, 0, 0, 53),
        Ipv4Addr::new(192, 0, 2, 53),
    ];
    let servers: Vec<IpAddr> = servers
        .into_iter()
        .map(IpAddr::V4)
        .chain(host.copied())
        .collect();
    let resolver = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 11), 53));
    let everywhere = servers.into_iter().flat_map(|server| {
        let server = SocketAddr::new(server, 53);
        [
            (server, RecordType::A, false),
            (server, RecordType::TXT, true),
        ]
    });
    let kinds = [
        RecordType::AAAA,
        RecordType::NULL,
        RecordType::CNAME,
        RecordType::SRV,
        RecordType::HTTPS,
        RecordType::MX,
        RecordType::ANY,
    ];
    let questions = everywhere.chain(kinds.map(|kind| (resolver, kind, false)));
    let alone = told.plan.token(16);
    // At once: without a sandbox each may wait for an answer that never comes.
    std::thread::scope(|scope| {
        for (at, (server, kind, over_tcp)) in questions.enumerate() {
            let name = format!("{token}-{at}-{kind}.{NOBODYS}").to_ascii_lowercase();
            let how = if over_tcp { "TCP" } else { "UDP" };
            scope.spawn(move || {
                let what = format!("{kind} question to {server} over {how}");
                ask_about(told, 13, what, &name, || {
                    question(server, &name, kind, over_tcp)
                });
            });
        }
        for name in [
            alone.clone(),
            format!("{alone}.local"),
            format!("{alone}.internal"),
        ] {
            let what = format!("a question about {}", name.replace(&alone, "NAME"));
            scope.spawn(move || {
                let ask = || question(resolver, &name, RecordType::A, false);
                ask_about(told, 16, what, &name, ask);
            });
        }
    });
    for (at, way) in [Ask::Connect, Ask::Forward, Ask::Socks]
        .into_iter()
        .enumerate()
    {
        // Where every name is allowed, connecting to one asks about it.
        if !told.plan.names_are_open {
            ask(told, 13, way, &format!("{token}-{at}.{NOBODYS}:443"));
        }
    }
    if let Some(granted) = &told.plan.granted {
        // It is answered, with an address that stands for it, and nobody outside is asked.
        let name = format!("{token}.{}", granted.zone);
        told.attempt(13, "a name below an allowed wildcard", || {
            (
                answered(question(resolver, &name, RecordType::A, false)),
                None,
            )
        });
    }
    for &host in host.into_iter().filter(|_| !told.plan.host_is_open) {
        for (port, what) in [(853, "DNS over TLS"), (5355, "LLMNR")] {
            let to = SocketAddr::new(host, port);
            told.attempt(13, format!("{what} at {to}"), || {
                let outcome = match TcpStream::connect_timeout(&to, PATIENCE) {
                    Ok(mut stream) => match super::network::rest(&mut stream) {
                        Ok(heard) if heard.is_empty() => {
                            Outcome::Refused("closed without a word".into())
                        }
                        Ok(heard) => Outcome::Through(super::shown(&heard)),
                        Err(error) => refused(&error),
                    },
                    Err(error) => refused(&error),
                };
                (outcome, Some(Recorded::Port(port)))
            });
        }
    }
}

/// Tells of a question about a name that no policy allows, but one that allows all.
fn ask_about(told: &Told<'_>, class: u8, what: String, name: &str, ask: impl FnOnce() -> Outcome) {
    told.attempt(class, what, || match told.plan.names_are_open {
        true => (answered(ask()), None),
        false => (ask(), Some(Recorded::Name(name.to_owned()))),
    });
}

/// Of a question that may be answered in here: whether it got out is for the name server to say.
fn answered(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Through(_) => Outcome::Sent,
        other => other,
    }
}

/// Asks a name server, or what pretends to be one.
fn question(server: SocketAddr, name: &str, kind: RecordType, over_tcp: bool) -> Outcome {
    let Ok(name) = Name::from_ascii(name) else {
        return Outcome::Impossible(format!("{name} is no name"));
    };
    let mut message = Message::new(0x4567, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    let asked = || -> io::Result<Message> {
        let bytes = message.to_vec().map_err(io::Error::other)?;
        let answer = match over_tcp {
            true => {
                let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
                stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())?;
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut answer)?;
                answer
            }
            false => {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.send_to(&bytes, server)?;
                let mut answer = vec![0; 4096];
                let (length, _) = socket.recv_from(&mut answer)?;
                answer.truncate(length);
                answer
            }
        };
        Message::from_vec(&answer).map_err(io::Error::other)
    };
    match asked() {
        Ok(answer) if answer.metadata.response_code == ResponseCode::NoError => {
            Outcome::Through(format!("an answer with {} records", answer.answers.len()))
        }
        Ok(answer) => Outcome::Refused(answer.metadata.response_code.to_string()),
        Err(error) => refused(&error),
    }
}

/// Class 14: names that are allowed, and lead where nothing is.
pub(super) fn rebinding(told: &Told<'_>) {
    let Some(granted) = &told.plan.granted else {
        return;
    };
    let port = told.port(14);
    for label in REBOUND {
        for way in [Ask::Connect, Ask::Forward] {
            ask(told, 14, way, &format!("{label}.{}:{port}", granted.zone));
        }
    }
}

/// Classes 16, 17 and 23: names that are this machine, or nearly an allowed one.
pub(super) fn spellings(told: &Told<'_>) {
    let port = told.port(16);
    for name in [
        "localhost",
        "x.localhost",
        "LOCALHOST.",
        "host",
        "gateway",
        "router",
    ] {
        ask(told, 16, Ask::Connect, &format!("{name}:{port}"));
    }
    let port = told.port(17);
    let allowed = told
        .plan
        .granted
        .as_ref()
        .map_or("example.com", |granted| &granted.zone);
    // Of these the name server hears nothing.
    let label = told.plan.token(17);
    for name in [
        format!("x{allowed}"),
        format!("{allowed}.evil.example"),
        format!("{label}..{allowed}"),
        format!(".{label}.{allowed}"),
        format!("{}.{allowed}", "a".repeat(64)),
        format!("[{label}.{allowed}]"),
        format!("{label}.{allowed}\t"),
        format!("user@{label}.{allowed}"),
        format!("{label}.{allowed}\\@evil.example"),
        format!("{label}.{allowed}#evil.example"),
        format!("{label}.{allowed}?evil.example"),
        format!("{label}%2e{allowed}"),
        format!("127.0.0.1%00.{allowed}"),
        format!("{label}\u{ad}.{allowed}"),
        format!("\u{ff54}{}.{allowed}", label.trim_start_matches('t')),
        "a\u{3002}evil\u{ff0e}example".into(),
        "a\u{ad}.evil.example".into(),
        "xn--a.evil.example".into(),
        format!("127.0.0.1\u{2024}{allowed}"),
    ] {
        ask(told, 17, Ask::Connect, &format!("{name}:{port}"));
    }
    for name in [
        "host.docker.internal",
        "HOST.Docker.Internal",
        "host.docker.internal.",
        "host.docker.internal..",
        "host%2edocker.internal",
        "gateway.docker.internal",
        "host.containers.internal",
        "x.host.docker.internal",
        "kubernetes.docker.internal",
        "host.lima.internal",
        "host\u{ff0e}docker\u{ff0e}internal",
        "\u{ff48}ost.docker.internal",
    ] {
        for way in [Ask::Connect, Ask::Socks] {
            ask(told, 23, way, &format!("{name}:{}", told.port(23)));
        }
    }
}
