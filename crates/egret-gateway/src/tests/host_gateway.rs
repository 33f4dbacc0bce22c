//! Host-gateway names whose addresses are looked up when a connection is made.
//!
//! The alias stands for loopback addresses here: 127.0.0.1 and 127.0.0.2 are the host, 127.0.0.3 is not.

use std::path::Path;

use super::captured::captured;
use super::*;

const ALIAS: &str = "host.containers.internal";

/// A gateway that opens the host gateway on `port`, and finds its addresses in `hosts_file` or asks `servers`.
async fn world(port: u16, hosts_file: &Path, servers: Vec<SocketAddr>) -> World {
    let with = With {
        hosts: HostAddresses::new([]).with_gateway(vec![
            Ipv4Addr::LOCALHOST.into(),
            Ipv4Addr::new(127, 0, 0, 2).into(),
        ]),
        host_gateway: HostGateway::Resolved(ALIAS.parse().unwrap()),
        hosts_file: Some(hosts_file.to_owned()),
        servers,
        ..With::default()
    };
    World::with(&format!("host_gateway: [{port}]"), with).await
}

/// A port on which each of 127.0.0.1, 127.0.0.2 and 127.0.0.3 says which it is.
async fn three() -> u16 {
    'port: loop {
        let mut listeners = vec![TcpListener::bind(LOCAL).await.unwrap()];
        let port = listeners[0].local_addr().unwrap().port();
        for last in [2, 3] {
            match TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).await {
                Ok(listener) => listeners.push(listener),
                Err(_) => continue 'port,
            }
        }
        for listener in listeners {
            tokio::spawn(async move {
                let body = listener.local_addr().unwrap().ip().to_string();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut head = [0; 1024];
                    let _ = stream.read(&mut head).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
        return port;
    }
}

/// What a request to `name` is answered by each door in turn: the address of the server, or the reason of the refusal. The
/// ways in have to agree.
async fn ask(world: &World, name: &str, port: u16) -> String {
    let there = format!("{name}:{port}");
    let request = format!("GET / HTTP/1.1\r\nHost: {there}\r\nConnection: close\r\n\r\n");
    let told = |answer: Answer| match answer.field("x-egret-reason") {
        Some(reason) => reason,
        None => String::from_utf8(answer.body).unwrap(),
    };
    let connect = {
        let (answer, mut stream) = world
            .ask(&format!("CONNECT {there} HTTP/1.1\r\n\r\n"))
            .await;
        match answer.status {
            200 => {
                stream.write_all(request.as_bytes()).await.unwrap();
                told(Answer::read(&mut stream, false).await)
            }
            _ => told(answer),
        }
    };
    let absolute = request.replace("GET /", &format!("GET http://{there}/"));
    let forward = told(world.ask(&absolute).await.0);
    let mut stream = captured(world, &there).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let redirected = told(Answer::read(&mut stream, false).await);
    assert_eq!((&connect, &connect), (&forward, &redirected));

    let mut stream = TcpStream::connect(world.proxy).await.unwrap();
    let mut socks = vec![5, 1, 0, 5, 1, 0, 3, name.len() as u8];
    socks.extend_from_slice(name.as_bytes());
    socks.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&socks).await.unwrap();
    let mut reply = [0; 12];
    in_time(stream.read_exact(&mut reply)).await.unwrap();
    match reply[3] {
        0 => {
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(told(Answer::read(&mut stream, false).await), connect);
        }
        2 => assert!(connect.starts_with("denied."), "{connect}"),
        4 => assert_eq!(connect, "denied.resolution"),
        other => panic!("SOCKS reply {other}, and otherwise {connect}"),
    }
    connect
}

#[tokio::test]
async fn the_alias_is_looked_up_for_each_connection_and_has_to_be_the_host() {
    let port = three().await;
    let dns = StubDns::new().await;
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    #[rustfmt::skip]
    let table = [
        ("127.0.0.1",                "127.0.0.1"),
        ("127.0.0.2",                "127.0.0.2"),
        ("127.0.0.1",                "127.0.0.1"),
        ("::ffff:127.0.0.2",         "127.0.0.2"),
        ("127.0.0.3",                "denied.host_gateway.address_mismatch"),
        ("10.0.0.1",                 "denied.host_gateway.address_mismatch"),
        ("93.184.216.34",            "denied.host_gateway.address_mismatch"),
        ("169.254.1.2",              "denied.host_gateway.address_mismatch"),
        ("0.0.0.0",                  "denied.host_gateway.address_mismatch"),
        ("::1",                      "denied.host_gateway.address_mismatch"),
        ("169.254.169.254",          "denied.host_gateway.address_mismatch"),
        ("127.0.0.1 127.0.0.3",      "denied.host_gateway.address_mismatch"),
        ("",                         "denied.resolution"),
        ("127.0.0.2",                "127.0.0.2"),
    ];
    std::fs::write(&hosts, "").unwrap();
    let world = world(port, &hosts, vec![dns.address]).await;
    for (addresses, expected) in table {
        let lines = addresses
            .split_whitespace()
            .map(|address| format!("{address} {ALIAS}\n"));
        std::fs::write(&hosts, lines.collect::<String>()).unwrap();
        for name in [
            ALIAS,
            HOST,
            "gateway.docker.internal",
            "host.egret.internal",
        ] {
            assert_eq!(
                ask(&world, name, port).await,
                expected,
                "{addresses} {name}"
            );
        }
    }
    // What was dialled is on record, and so is each question that went out.
    for record in world.records() {
        match (record.event, record.verdict, record.dialled) {
            (Event::Decision, Some(Verdict::Allow), Some(to)) => {
                assert!(["127.0.0.1", "127.0.0.2"].contains(&to.ip().to_string().as_str()));
            }
            (Event::Decision, Some(Verdict::Allow), None) => panic!("nothing failed"),
            (_, _, dialled) => assert_eq!(dialled, None),
        }
    }
}

#[tokio::test]
async fn where_the_hosts_file_has_no_alias_the_servers_are_asked_each_time_and_it_is_on_record_before()
 {
    let port = three().await;
    let dns = StubDns::new().await;
    let dir = tempfile::tempdir().unwrap();
    let world = world(port, &dir.path().join("none"), vec![dns.address]).await;
    for (address, expected) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("10.0.0.1", "denied.host_gateway.address_mismatch"),
    ] {
        dns.set(ALIAS, 3600, &[address]);
        assert_eq!(ask(&world, HOST, port).await, expected);
    }
    let asked = dns.asked.lock().unwrap().clone();
    assert!(
        asked
            .iter()
            .all(|asked| asked.starts_with(&format!("{ALIAS}. "))),
        "{asked:?}"
    );
    let lookups = world
        .records()
        .into_iter()
        .filter(|record| record.event == Event::Dns);
    assert_eq!(lookups.count(), 3 * 4);
}

#[tokio::test]
async fn what_stands_for_the_host_in_user_mode_networks_is_the_host_where_it_is_known_to_be() {
    for address in ["169.254.1.2", "10.0.2.2", "192.168.65.254", "172.17.0.1"] {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        std::fs::write(&hosts, format!("{address} {ALIAS}\n")).unwrap();
        let world = world(80, &hosts, Vec::new()).await;
        let vet = async |known: HostAddresses| {
            let destination = format!("{HOST}:80");
            let destination =
                egret_policy::Destination::from_authority(&destination, None).unwrap();
            let matcher = world.gateway.matcher.load_full();
            let mut permit = matcher.decide(&destination, None, &known).unwrap();
            let vetted = world.gateway.dialler.vet(&mut permit, &known).await;
            vetted.map(|vetted| vetted.iter().next().unwrap().ip())
        };
        let known = HostAddresses::new([]).with_gateway(vec![address.parse().unwrap()]);
        assert_eq!(
            vet(known).await.unwrap(),
            address.parse::<IpAddr>().unwrap()
        );
        if address != "172.17.0.1" {
            let refused = vet(HostAddresses::new([])).await.unwrap_err();
            assert_eq!(refused.code(), "denied.host_gateway.address_mismatch");
        }
    }
}
