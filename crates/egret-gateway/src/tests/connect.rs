//! CONNECT.

use super::*;
use crate::audit::{Door, Verdict};

#[tokio::test]
async fn a_granted_tunnel_carries_bytes_and_is_on_record_from_beginning_to_end() {
    let port = echo().await;
    let world = World::open_to(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    let decision = world.records().pop().unwrap();
    assert_eq!(
        (decision.event, decision.verdict),
        (Event::Decision, Some(Verdict::Allow))
    );
    assert_eq!(decision.door, Some(Door::Connect));
    assert_eq!(
        decision.dialled,
        Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
    );
    assert_eq!(decision.addresses, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);

    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    in_time(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"ping");
    drop(stream);
    let close = world.close().await;
    assert_eq!(
        (close.bytes_up, close.bytes_down, close.reason.clone()),
        (Some(4), Some(4), None)
    );
    assert_eq!(close.id, decision.id);
}

#[tokio::test]
async fn bytes_right_behind_the_head_belong_to_the_tunnel() {
    let port = echo().await;
    let world = World::open_to(port).await;
    let (answer, mut stream) = world
        .ask(&format!("CONNECT {HOST}:{port} HTTP/1.1\r\n\r\nhello"))
        .await;
    assert_eq!(answer.status, 200);
    stream.shutdown().await.unwrap();
    let (rest, reset) = until_end(&mut stream).await;
    assert_eq!(
        ([answer.body, rest].concat(), reset),
        (b"hello".to_vec(), false)
    );
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_with_its_reason() {
    let world = World::new(
        "allow: [api.example.com, '10.9.8.7:80']
deny: [bad.example.com]",
    )
    .await;
    #[rustfmt::skip]
    let table = [
        ("other.example.com:443",       403, "denied.default"),
        ("bad.example.com:443",         403, "denied.rule"),
        ("api.example.com:22",          403, "denied.port"),
        ("host.docker.internal:80",     403, "denied.host_gateway"),
        ("172.17.0.1:80",               403, "denied.host_gateway"),
        ("metadata.google.internal:80", 403, "denied.address.metadata"),
        ("169.254.169.254:80",          403, "denied.address.metadata"),
        ("2852039166:80",               403, "denied.address.metadata"),
        ("127.1:80",                    403, "denied.address.loopback"),
        ("localhost:80",                403, "denied.address.loopback"),
        ("[::ffff:127.0.0.1]:80",       403, "denied.address.loopback"),
        ("93.184.216.34:443",           403, "denied.literal_address"),
        ("203.0.113.7:443",             403, "denied.address.reserved"),
        ("api.example.com",             400, "denied.malformed"),
        ("api.example.com:0",           400, "denied.malformed"),
        ("api.example.com:0443",        400, "denied.malformed"),
        ("user@api.example.com:443",    400, "denied.malformed"),
        ("api..example.com:443",        400, "denied.malformed"),
        ("api%2eexample.com:443",       400, "denied.malformed"),
    ];
    for (destination, status, reason) in table {
        let (answer, mut stream) = world
            .ask(&format!(
                "CONNECT {destination} HTTP/1.1\r\nHost: x\r\n\r\n"
            ))
            .await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (status, reason),
            "{destination}"
        );
        assert!(!until_end(&mut stream).await.1);
        let body = answer.json();
        let record = world
            .record(|record| record.id == body["id"].as_str().unwrap())
            .await;
        assert_eq!(record.reason.as_deref(), Some(reason), "{destination}");
        assert_eq!(record.hint.as_deref(), body["hint"].as_str());
        assert_eq!(record.rule.as_deref(), body["rule"].as_str());
    }
    let refusals = world.gateway.refusals();
    assert_eq!(
        refusals.iter().map(|refusal| refusal.count).sum::<u64>(),
        table.len() as u64
    );
    assert!(
        refusals
            .iter()
            .any(|refusal| refusal.hint.as_deref() == Some("--allow other.example.com:443")),
        "{refusals:?}"
    );
}

#[tokio::test]
async fn heads_that_two_parsers_could_read_differently_are_malformed() {
    let world = World::new("default: deny").await;
    let huge = format!(
        "CONNECT a.example:443 HTTP/1.1\r\nx: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    let many = format!(
        "CONNECT a.example:443 HTTP/1.1\r\n{}\r\n",
        "x: y\r\n".repeat(200)
    );
    #[rustfmt::skip]
    let table = [
        ("CONNECT a.example:443 HTTP/1.1\n\n",                                         400, "denied.malformed"),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a\n\r\n",                            400, "denied.malformed"),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a\rb\r\n\r\n",                       400, "denied.malformed"),
        ("CONNECT a.example:443 HTTP/1.1\r\nx: a\r\n b\r\n\r\n",                       400, "denied.malformed"),
        ("CONNECT a.example:443 HTTP/1.1\r\nx: a\0b\r\n\r\n",                          400, "denied.malformed"),
        ("CONNECT a.example:443 HTTP/1.1\r\nx : a\r\n\r\n",                            400, "denied.malformed"),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",               400, "denied.malformed"),
        ("CONNECT a.example:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\n",                400, "denied.malformed"),
        ("CONNECT a.example:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",       400, "denied.malformed"),
        ("CONNECT  a.example:443 HTTP/1.1\r\n\r\n",                                    400, "denied.malformed"),
        ("CONNECT a.example:443 HTTP/3\r\n\r\n",                                       400, "denied.malformed"),
        ("CONNECT a.example:443\r\n\r\n",                                              400, "denied.malformed"),
        ("\r\nCONNECT a.example:443 HTTP/1.1\r\n\r\n",                                 400, "denied.malformed"),
        ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",                                  400, "denied.malformed"),
        (&huge,                                                                        431, "denied.limit"),
        (&many,                                                                        431, "denied.limit"),
    ];
    for (head, status, reason) in table {
        let (answer, _) = world.ask(head).await;
        assert!(
            answer.json()["error"]
                .as_str()
                .unwrap()
                .starts_with("the request is refused"),
            "{answer:?}"
        );
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (status, reason),
            "{:?}",
            &head[..head.len().min(80)]
        );
    }
    assert_eq!(
        world.decision("denied.limit").await.limit.as_deref(),
        Some("head_bytes")
    );
}

#[tokio::test]
async fn a_slow_head_runs_out_of_time_and_a_flood_of_silent_clients_does_not_keep_others_out_for_long()
 {
    let port = echo().await;
    let limits = Limits {
        handshake_time: Duration::from_millis(200),
        handshakes: 4,
        ..Limits::default()
    };
    let world = World::with(
        &format!("allow: ['{HOST}:{port}']"),
        With {
            limits,
            ..With::default()
        },
    )
    .await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        // Those beyond the limit may be reset before they know that they are connected.
        let Ok(mut stream) = TcpStream::connect(world.proxy).await else {
            continue;
        };
        let _ = stream.write_all(b"CONN").await;
        silent.push(stream);
    }
    let refused = world
        .record(|record| record.limit.as_deref() == Some("handshakes"))
        .await;
    assert_eq!(refused.reason.as_deref(), Some("denied.limit"));
    world
        .record(|record| record.limit.as_deref() == Some("handshake_time"))
        .await;
    sleep(Duration::from_millis(300)).await;
    world.tunnel(&format!("{HOST}:{port}")).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_bad_gateway_and_not_a_denial() {
    let port = {
        std::net::TcpListener::bind(LOCAL)
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    };
    let world = World::open_to(port).await;
    let (answer, _) = world
        .ask(&format!("CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n"))
        .await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (502, "allowed.host_gateway")
    );
    let record = world.decision("allowed.host_gateway").await;
    assert_eq!(
        (record.verdict, record.dialled),
        (Some(Verdict::Allow), None)
    );
    assert!(record.message.unwrap().contains("refused"));
    assert!(world.gateway.refusals().is_empty());
}

#[tokio::test]
async fn one_connection_too_many_is_refused_and_the_others_go_on() {
    let port = echo().await;
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let world = World::with(
        &format!("allow: ['{HOST}:{port}']"),
        With {
            limits,
            ..With::default()
        },
    )
    .await;
    let there = format!("{HOST}:{port}");
    let (mut one, two) = (world.tunnel(&there).await, world.tunnel(&there).await);
    let (answer, _) = world
        .ask(&format!("CONNECT {there} HTTP/1.1\r\n\r\n"))
        .await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "denied.limit")
    );
    assert_eq!(
        world.decision("denied.limit").await.limit.as_deref(),
        Some("connections")
    );
    drop(two);
    world.close().await;
    world.tunnel(&there).await;
    one.write_all(b"x").await.unwrap();
    assert_eq!(in_time(one.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn an_upstream_proxy_is_asked_for_the_vetted_address_and_nothing_else() {
    let asked = Arc::new(Mutex::new(String::new()));
    let kept = asked.clone();
    let proxy = server(move |mut stream| {
        let kept = kept.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            *kept.lock().unwrap() = String::from_utf8(head).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 fine\r\n\r\nearly ")
                .await
                .unwrap();
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await;
    let upstream_proxy = Some(
        format!("http://me:p%40ss@127.0.0.1:{proxy}")
            .parse()
            .unwrap(),
    );
    let world = World::with(
        "allow: ['203.0.113.9:99']\n",
        With {
            upstream_proxy,
            ..With::default()
        },
    )
    .await;
    // Documentation addresses are reserved; an address entry opens them.
    let (answer, _) = world.ask("CONNECT 203.0.113.9:98 HTTP/1.1\r\n\r\n").await;
    assert_eq!(answer.status, 403);
    assert_eq!(*asked.lock().unwrap(), "");
    let (answer, mut stream) = world.ask("CONNECT 203.0.113.9:99 HTTP/1.1\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    stream.write_all(b"late").await.unwrap();
    let mut back = answer.body;
    while back.len() < 10 {
        assert_ne!(in_time(stream.read_buf(&mut back)).await.unwrap(), 0);
    }
    assert_eq!(back, b"early late");
    let asked = asked.lock().unwrap().clone();
    assert!(
        asked.starts_with("CONNECT 203.0.113.9:99 HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("Proxy-Authorization: Basic bWU6cEBzcw==\r\n"),
        "{asked}"
    );
    assert!(
        !std::fs::read_to_string(&world.log)
            .unwrap()
            .contains("bWU6")
    );
}

#[tokio::test]
async fn an_upstream_proxy_is_not_asked_for_the_host() {
    let (proxy, got) = sink().await;
    let port = echo().await;
    let with = With {
        upstream_proxy: Some(format!("http://127.0.0.1:{proxy}").parse().unwrap()),
        ..With::default()
    };
    let world = World::with(&format!("host_gateway: [{port}]"), with).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(in_time(stream.read_u8()).await.unwrap(), b'x');
    assert!(got.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let port = echo().await;
    let world = World::open_to(port).await;
    // Nothing listens on ::1, and 127.0.0.2 refuses.
    let hosts = ["::1", "127.0.0.2", "127.0.0.1"].map(|address| address.parse().unwrap());
    world
        .gateway
        .set_hosts(HostAddresses::new([]).with_gateway(hosts.to_vec()));
    world.tunnel(&format!("{HOST}:{port}")).await;
    let decision = world.decision("allowed.host_gateway").await;
    assert_eq!(decision.addresses.len(), 3);
    assert_eq!(
        decision.dialled,
        Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
    );
}

#[test]
fn an_upstream_proxy_is_written_in_one_way() {
    for good in [
        "http://proxy",
        "http://proxy.corp.example:3128/",
        "HTTP://u:p@10.0.0.1:8080",
        "http://[2001:db8::1]:3128",
        "http://u%3A@proxy",
    ] {
        let proxy: UpstreamProxy = good
            .parse()
            .unwrap_or_else(|error| panic!("{good}: {error}"));
        assert!(!format!("{proxy:?}").contains("Basic"));
    }
    for bad in [
        "proxy:3128",
        "https://proxy",
        "http://",
        "http://proxy:0",
        "http://proxy:x",
        "http://proxy/path",
        // Others would ask `first`.
        "http://first/@proxy",
        "http://first?@proxy",
        "http://first#@proxy",
        "http://first\\@proxy",
        "http://u%4@proxy",
        "http://a b",
    ] {
        assert!(bad.parse::<UpstreamProxy>().is_err(), "{bad}");
    }
}
