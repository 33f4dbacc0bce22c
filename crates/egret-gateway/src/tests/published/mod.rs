//! Published ports: connections from outside to a server in the sandbox, which is one on loopback here.

mod spoken;

use std::io;
use std::time::Instant;

use super::*;
use crate::audit::Door;
use crate::{Callers, Protocol};

/// A gateway with a published port that leads to `port`.
pub(super) struct Port {
    pub(super) world: World,
    address: SocketAddr,
    port: u16,
}

impl Port {
    async fn http(port: u16) -> Self {
        Self::with(port, Protocol::Http, With::default()).await
    }

    async fn unknown(port: u16) -> Self {
        Self::with(port, Protocol::Unknown, With::default()).await
    }

    async fn with(port: u16, speaks: Protocol, with: With) -> Self {
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let with = With {
            inside: with.inside.or_else(|| Some(inside())),
            published: vec![Published {
                listener,
                port,
                from: Callers::ThisHost,
                speaks,
            }],
            ..with
        };
        Self {
            world: World::with("default: deny", with).await,
            address,
            port,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, request: &str) -> (Answer, TcpStream) {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream, false).await;
        (answer, stream)
    }

    /// What comes back for `sent`, to the end, and whether that was a reset.
    async fn say(&self, sent: &[u8]) -> (Vec<u8>, bool) {
        let mut stream = self.connect().await;
        stream.write_all(sent).await.unwrap();
        until_end(&mut stream).await
    }

    fn decisions(&self) -> Vec<Record> {
        let records = self.world.records().into_iter();
        records
            .filter(|record| record.event == Event::Decision)
            .collect()
    }
}

pub(super) fn inside() -> Inside {
    Inside::new(|port| std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
}

fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind(LOCAL).unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_request_goes_in_as_it_was_meant_and_is_on_record() {
    for speaks in [Protocol::Http, Protocol::Unknown] {
        let (server, seen) = mirror().await;
        let port = Port::with(server, speaks, With::default()).await;
        let mut stream = port.connect().await;
        for (host, origin) in [
            ("localhost:8080", ""),
            ("127.0.0.1:8080", "Origin: http://localhost:3000\r\n"),
            ("[::1]:8080", "Origin: https://127.0.0.1\r\n"),
            ("test", "origin: http://a.localhost\r\n"),
        ] {
            let request = format!(
                "POST http://{host}/mcp?q HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Length: 2\r\nX: y\r\n\r\n{{}}"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = Answer::read(&mut stream, false).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let seen = seen.lock().unwrap().pop().unwrap();
            assert!(
                seen.starts_with(&format!("POST /mcp?q HTTP/1.1\r\nhost: {host}\r\n")),
                "{seen}"
            );
            assert!(seen.contains("X: y") && seen.ends_with("{}"), "{seen}");
        }
        let peer = stream.local_addr().unwrap();
        drop(stream);
        let close = port.world.close().await;
        let decision = port.decisions().remove(0);
        assert_eq!(decision.verdict, Some(Verdict::Allow));
        assert_eq!(decision.reason.as_deref(), Some("allowed.published"));
        assert_eq!(decision.peer, Some(peer));
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server);
        assert_eq!(decision.dialled, Some(to));
        let host = match speaks {
            Protocol::Http => "localhost",
            Protocol::Unknown => "127.0.0.1",
        };
        for record in [&decision, &close] {
            assert_eq!(record.door, Some(Door::Published));
            assert_eq!(record.host.as_deref(), Some(host));
            assert_eq!(record.port, Some(server));
        }
        assert_eq!(close.id, decision.id);
        assert_eq!(close.reason, None);
        assert!(close.bytes_up > Some(200) && close.bytes_down > Some(200));
        assert_eq!(port.decisions().len(), 1);
    }
}

#[tokio::test]
async fn requests_of_a_page_that_is_not_this_machines_do_not_go_in() {
    let evil = "evil.example";
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, u16, &str, &str)] = &[
        // request line                          fields                                                    reason                  status  host           in the message
        ("GET / HTTP/1.1",                       "Host: evil.example",                                     "denied.name_mismatch", 403, evil,          "Host"),
        ("GET / HTTP/1.1",                       "Host: evil.example:8080\r\nOrigin: http://evil.example", "denied.name_mismatch", 403, evil,          "Host"),
        ("GET / HTTP/1.1",                       "Host: localhost.evil.example",                           "denied.name_mismatch", 403, "localhost.evil.example", "Host"),
        ("GET / HTTP/1.1",                       "Host: 0.0.0.0:8080",                                     "denied.name_mismatch", 403, "0.0.0.0",     "Host"),
        ("GET / HTTP/1.1",                       "Host: 192.168.1.7",                                      "denied.name_mismatch", 403, "192.168.1.7", "Host"),
        ("POST / HTTP/1.1",                      "Host: localhost\r\nOrigin: http://evil.example",         "denied.name_mismatch", 403, "localhost",   "evil.example"),
        ("POST / HTTP/1.1",                      "Host: localhost\r\nOrigin: https://evil.example:8080",   "denied.name_mismatch", 403, "localhost",   "evil.example"),
        ("POST / HTTP/1.1",                      "Host: localhost\r\nOrigin: null",                        "denied.name_mismatch", 403, "localhost",   "Origin"),
        ("POST / HTTP/1.1",                      "Host: localhost\r\nOrigin: file://localhost",            "denied.name_mismatch", 403, "localhost",   "Origin"),
        ("POST / HTTP/1.1",                      "Host: localhost\r\nOrigin:",                             "denied.name_mismatch", 403, "localhost",   "Origin"),
        ("POST / HTTP/1.1",                      "Host: localhost\r\nOrigin: http://localhost/..@evil",    "denied.name_mismatch", 403, "localhost",   "Origin"),
        ("POST / HTTP/1.1",                      "Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.example", "denied.name_mismatch", 403, "localhost", "two Origin"),
        ("GET http://evil.example/ HTTP/1.1",    "Host: localhost",                                        "denied.name_mismatch", 403, "127.0.0.1",   "URI"),
        ("GET http://localhost:81/ HTTP/1.1",    "Host: localhost",                                        "denied.name_mismatch", 403, "127.0.0.1",   "URI"),
        ("GET https://localhost/ HTTP/1.1",      "Host: localhost",                                        "denied.protocol",      403, "127.0.0.1",   "http:"),
        ("CONNECT localhost:80 HTTP/1.1",        "Host: localhost",                                        "denied.protocol",      403, "127.0.0.1",   "CONNECT"),
        ("TRACE / HTTP/1.1",                     "Host: localhost",                                        "denied.protocol",      403, "127.0.0.1",   "TRACE"),
        ("GET / HTTP/1.0",                       "X: y",                                                   "denied.malformed",     400, "127.0.0.1",   "Host"),
        ("GET / HTTP/1.1",                       "X: y",                                                   "denied.malformed",     400, "127.0.0.1",   "Host"),
        ("GET / HTTP/1.1",                       "Host:",                                                  "denied.malformed",     400, "127.0.0.1",   ""),
        ("GET / HTTP/1.1",                       "Host: localhost\r\nHost: localhost",                     "denied.malformed",     400, "127.0.0.1",   "two Host"),
        ("GET / HTTP/1.1",                       "Host: localhost@evil.example",                           "denied.malformed",     400, "127.0.0.1",   "user"),
        ("GET / HTTP/1.1",                       "Host: localhost evil.example",                           "denied.malformed",     400, "127.0.0.1",   ""),
        ("GET * HTTP/1.1",                       "Host: localhost",                                        "denied.malformed",     400, "127.0.0.1",   "URI"),
    ];
    for speaks in [Protocol::Http, Protocol::Unknown] {
        let (server, got) = sink().await;
        let port = Port::with(server, speaks, With::default()).await;
        for (line, fields, reason, status, host, part) in table {
            let what = format!("{speaks:?} {line} {fields}");
            let request = format!("{line}\r\n{fields}\r\nContent-Length: 5\r\n\r\nhello");
            let (answer, mut stream) = port.ask(&request).await;
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (*status, *reason),
                "{what}"
            );
            assert!(
                answer.json()["error"].as_str().unwrap().contains(part),
                "{what}: {:?}",
                answer.json()
            );
            assert_eq!(until_end(&mut stream).await.0, b"", "{what}");
            let id = answer.json()["id"].as_str().unwrap().to_owned();
            let record = port
                .world
                .record(|record| record.id == id && record.verdict == Some(Verdict::Deny))
                .await;
            assert_eq!(record.reason.as_deref(), Some(*reason), "{what}");
            assert_eq!(record.host.as_deref(), Some(*host), "{what}");
            assert_eq!(record.port, Some(server), "{what}");
            assert!(record.peer.is_some(), "{what}");
            assert_eq!(record.method.as_deref(), line.split(' ').next(), "{what}");
            let hint = record.hint.unwrap_or_default();
            let wanted =
                *reason == "denied.name_mismatch" && (*part == "Host" || *part == "evil.example");
            assert_eq!(hint.contains("`inbound`"), wanted, "{what}: {hint}");
        }
        assert!(got.lock().unwrap().is_empty(), "{speaks:?}");
        let allowed = |record: &Record| record.verdict == Some(Verdict::Allow);
        let expected = match speaks {
            Protocol::Http => 0,
            Protocol::Unknown => table.len(),
        };
        assert_eq!(
            port.decisions()
                .iter()
                .filter(|record| allowed(record))
                .count(),
            expected
        );
        let counted = port.world.gateway.refusals();
        assert!(
            counted
                .iter()
                .all(|refusal| refusal.destination.ends_with("(published port)")),
            "{counted:?}"
        );
    }
}

#[tokio::test]
async fn a_page_of_another_site_may_lead_here_and_do_nothing_else() {
    let policy = egret_policy::Policy::parse("p.yaml", b"version: 1\ninbound: [app.example.com]");
    let with = With {
        inbound: InboundHosts::new(
            &"test".parse().unwrap(),
            policy.unwrap().policy.inbound().to_vec(),
        ),
        ..With::default()
    };
    let (server, seen) = mirror().await;
    let port = Port::with(server, Protocol::Unknown, with).await;
    let visit = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    let frame = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n";
    let image = "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n";
    let ours = "Origin: http://127.0.0.1:3000\r\nSec-Fetch-Mode: cors\r\n";
    let ahead = format!("{visit}Sec-Purpose: prefetch\r\n");
    let double = format!("{visit}Sec-Fetch-Dest: iframe\r\n");
    #[rustfmt::skip]
    let table = [
        ("GET",  "localhost",       "none",                         visit,   200),
        ("GET",  "localhost",       "same-origin",                  image,   200),
        ("POST", "localhost",       "same-origin",                  "",      200),
        ("GET",  "localhost:8080",  "same-site",                    image,   200),
        ("GET",  "127.0.0.1",       "same-site",                    image,   200),
        ("GET",  "app.example.com", "same-site",                    image,   403),
        ("GET",  "app.example.com", "same-site",                    visit,   200),
        ("POST", "localhost",       "cross-site",                   ours,    200),
        ("GET",  "localhost",       "cross-site",                   visit,   200),
        ("HEAD", "localhost",       "cross-site",                   visit,   403),
        ("POST", "localhost",       "cross-site",                   visit,   403),
        ("GET",  "localhost",       "cross-site",                   frame,   403),
        ("GET",  "localhost",       "cross-site",                   image,   403),
        ("GET",  "localhost",       "cross-site",                   &ahead,  403),
        ("GET",  "localhost",       "cross-site",                   &double, 403),
        ("GET",  "localhost",       "cross-site",                   "",      403),
        ("GET",  "localhost",       "none\r\nSec-Fetch-Site: cross-site", image, 403),
        ("GET",  "localhost",       "Same-Origin",                  image,   403),
        ("GET",  "localhost",       "",                             image,   403),
    ];
    for (method, host, site, more, status) in table {
        let what = format!("{method} {host} {site} {more}");
        seen.lock().unwrap().clear();
        let request =
            format!("{method} / HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: {site}\r\n{more}\r\n");
        let mut stream = port.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream, method == "HEAD" && status == 200).await;
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(seen.lock().unwrap().is_empty(), status != 200, "{what}");
        if status != 200 {
            assert_eq!(answer.reason(), "denied.name_mismatch", "{what}");
        }
    }
}

#[tokio::test]
async fn what_is_allowed_inbound_can_be_said() {
    let (server, _) = mirror().await;
    let text = "version: 1\ninbound: [app.example.com, .site.example]";
    let policy = Policy::parse("policy.yaml", text.as_bytes())
        .unwrap()
        .policy;
    let with = With {
        inbound: InboundHosts::new(&"test".parse().unwrap(), policy.inbound().to_vec()),
        ..With::default()
    };
    let port = Port::with(server, Protocol::Http, with).await;
    for (host, origin, status) in [
        ("app.example.com", "https://a.site.example", 200),
        ("site.example:8080", "http://app.example.com", 200),
        ("localhost", "https://app.example.com", 200),
        ("app.example.com", "http://localhost", 200),
        ("b.app.example.com", "http://localhost", 403),
        ("localhost", "http://b.app.example.com", 403),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n");
        assert_eq!(port.ask(&request).await.0.status, status, "{host} {origin}");
    }
}

#[tokio::test]
async fn every_request_on_a_connection_is_checked() {
    let good = "GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for bad in [
        "GET /2 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET /2 HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n",
    ] {
        for speaks in [Protocol::Http, Protocol::Unknown] {
            for at_once in [true, false] {
                let (server, seen) = mirror().await;
                let port = Port::with(server, speaks, With::default()).await;
                let mut stream = port.connect().await;
                if at_once {
                    let both = format!("{good}{bad}");
                    stream.write_all(both.as_bytes()).await.unwrap();
                } else {
                    stream.write_all(good.as_bytes()).await.unwrap();
                    assert_eq!(Answer::read(&mut stream, false).await.status, 200);
                    stream.write_all(bad.as_bytes()).await.unwrap();
                }
                let said = String::from_utf8(until_end(&mut stream).await.0).unwrap();
                assert!(
                    said.contains("x-egret-reason: denied.name_mismatch"),
                    "{said}"
                );
                drop(stream);
                assert_eq!(seen.lock().unwrap().len(), 1);
                // One connection, one id: allowed, refused, closed for that reason.
                let close = port.world.close().await;
                assert_eq!(close.reason.as_deref(), Some("denied.name_mismatch"));
                let decisions = port.decisions();
                assert_eq!(decisions.len(), 2);
                assert!(decisions.iter().all(|record| record.id == close.id));
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_smuggled_in() {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let length = hidden.len();
    let table = [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{hidden}"),
        format!("Content-Length: +{length}\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("X: y\nHost: evil.example\r\n\r\n{hidden}"),
        format!("X: y\r\n folded: z\r\n\r\n{hidden}"),
        format!("X: y\0\r\n\r\n{hidden}"),
    ];
    for speaks in [Protocol::Http, Protocol::Unknown] {
        for rest in &table {
            let (server, got) = sink().await;
            let port = Port::with(server, speaks, With::default()).await;
            let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{rest}");
            let (answer, _) = port.ask(&request).await;
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (400, "denied.malformed"),
                "{rest}"
            );
            assert!(got.lock().unwrap().is_empty(), "{rest}");
        }
        // Well-framed, and then garbled: what is behind it is no request.
        let (server, seen) = mirror().await;
        let port = Port::with(server, speaks, With::default()).await;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n{hidden}"
        );
        let said = String::from_utf8(port.say(request.as_bytes()).await.0).unwrap();
        assert!(!said.contains("hidden"), "{said}");
        assert!(
            seen.lock()
                .unwrap()
                .iter()
                .all(|seen| !seen.contains("hidden"))
        );
    }
}

#[tokio::test]
async fn where_nothing_answers_inside_http_is_told_and_everything_else_reset() {
    let closed = closed_port();
    let slow = Inside::new(|_| {
        std::thread::sleep(Duration::from_millis(900));
        Err(io::ErrorKind::ConnectionRefused.into())
    });
    let broken = Inside::new(|_| panic!("a bug"));
    for (what, inside) in [("closed", inside()), ("slow", slow), ("broken", broken)] {
        for speaks in [Protocol::Http, Protocol::Unknown] {
            let with = With {
                inside: Some(inside.clone()),
                limits: Limits {
                    connect_time: Duration::from_millis(200),
                    ..Limits::default()
                },
                ..With::default()
            };
            let port = Port::with(closed, speaks, with).await;
            let begun = Instant::now();
            let (answer, _) = port
                .ask("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
                .await;
            assert!(begun.elapsed() < Duration::from_millis(800), "{what}");
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (502, "allowed.published"),
                "{what}"
            );
            let record = port.world.decision("allowed.published").await;
            assert_eq!((record.dialled, record.port), (None, Some(closed)));
            assert!(record.peer.is_some());
            let message = record.message.unwrap();
            assert!(
                message.contains(&format!("port {closed} inside the sandbox")),
                "{message}"
            );
            if speaks == Protocol::Unknown {
                for sent in [&b"SSH-2.0-x\r\n"[..], b"", &client_hello("localhost")] {
                    assert_eq!(port.say(sent).await, (Vec::new(), true));
                }
            }
            assert!(
                port.world
                    .records()
                    .iter()
                    .all(|record| record.event != Event::Close)
            );
        }
    }
    // A gateway that nobody gave a way in.
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let with = With {
        published: vec![Published {
            listener,
            port: 80,
            from: Callers::Anyone,
            speaks: Protocol::Unknown,
        }],
        ..With::default()
    };
    let _world = World::with("default: deny", with).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(until_end(&mut stream).await, (Vec::new(), true));
}

#[tokio::test]
async fn a_server_that_ends_instead_of_answering_is_told_of() {
    let server = server(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let port = Port::http(server).await;
    let (answer, _) = port.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (502, "allowed.published")
    );
    port.world.close().await;
}

#[tokio::test]
async fn what_is_published_for_this_host_is_not_for_its_neighbours() {
    // Asks nobody and sends nothing: the kernel says which address it would use.
    let own = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let routed = own.connect("192.0.2.1:9").and_then(|()| own.local_addr());
    let Some(neighbour) = routed
        .ok()
        .map(|own| own.ip())
        .filter(|own| !own.is_loopback())
    else {
        return;
    };
    for (hosts, from, passes) in [
        (vec![], Callers::ThisHost, false),
        (vec![], Callers::Anyone, true),
        (vec![neighbour], Callers::ThisHost, true),
    ] {
        let (server, got) = sink().await;
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let with = With {
            hosts: HostAddresses::new(hosts),
            inside: Some(inside()),
            published: vec![Published {
                listener,
                port: server,
                from,
                speaks: Protocol::Unknown,
            }],
            ..With::default()
        };
        let world = World::with("default: deny", with).await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(neighbour, 0)).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let _ = stream.write_all(b"\0\0").await;
        let _ = stream.shutdown().await;
        assert_eq!(until_end(&mut stream).await, (Vec::new(), !passes));
        assert_eq!(got.lock().unwrap().len(), if passes { 2 } else { 0 });
        let reason = if passes {
            "allowed.published"
        } else {
            "denied.default"
        };
        let record = world.decision(reason).await;
        assert_eq!(record.peer.unwrap().ip(), neighbour);
        assert_eq!(record.port, Some(server));
    }
}

#[tokio::test]
async fn callers_run_into_a_bound_of_their_own() {
    let (server, _) = sink().await;
    let with = With {
        limits: Limits {
            published: 2,
            handshakes: 0,
            connections: 0,
            ..Limits::default()
        },
        ..With::default()
    };
    let port = Port::with(server, Protocol::Unknown, with).await;
    let held = [port.connect().await, port.connect().await];
    port.world
        .record(|record| record.verdict == Some(Verdict::Allow))
        .await;
    assert_eq!(port.say(b"\0").await, (Vec::new(), true));
    let record = port.world.decision("denied.limit").await;
    assert_eq!(record.limit.as_deref(), Some("connections"));
    assert_eq!(record.door, Some(Door::Published));
    drop(held);
    port.world.close().await;
    sleep(Duration::from_millis(50)).await;
    let mut again = port.connect().await;
    again.write_all(b"\0").await.unwrap();
    assert!(
        timeout(Duration::from_millis(100), again.read_u8())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_new_policy_leaves_them_alone() {
    let port = Port::unknown(echo().await).await;
    let mut stream = port.connect().await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(in_time(stream.read_u8()).await.unwrap(), b'x');
    for policy in [
        "default: allow-public",
        "default: deny",
        "deny: ['127.0.0.1']",
    ] {
        port.world
            .gateway
            .set_policy(matcher(policy), "policy.yaml", Basis::default());
        stream.write_all(b"\x01").await.unwrap();
        assert_eq!(in_time(stream.read_u8()).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn without_a_log_nothing_goes_in() {
    for speaks in [Protocol::Http, Protocol::Unknown] {
        let (server, got) = sink().await;
        let with = With {
            limits: Limits {
                audit_wait: Duration::from_millis(100),
                ..Limits::default()
            },
            log: Some("/dev/full".into()),
            ..With::default()
        };
        let port = Port::with(server, speaks, with).await;
        let (answer, _) = port.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (503, "denied.limit")
        );
        assert!(got.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_port_inside_is_what_is_asked_for() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (server, _) = mirror().await;
    let kept = asked.clone();
    let with = With {
        inside: Some(Inside::new(move |port| {
            kept.lock().unwrap().push(port);
            std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server))
        })),
        ..With::default()
    };
    let port = Port::with(8931, Protocol::Http, with).await;
    let (answer, _) = port.ask("GET / HTTP/1.1\r\nHost: test:1\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        (port.port, asked.lock().unwrap().as_slice()),
        (8931, &[8931][..])
    );
}
