//! Captured connections. What redirection does to a socket needs a network namespace of its own, and is tested with
//! the sandbox; here a connection enters behind that point.

use std::time::Instant;

use super::*;
use crate::audit::Door;
use crate::door::{Asked, Client, Reply};
use crate::flow;
use crate::inspect::http::Input;
use crate::names::Meaning;

/// A client whose connection was captured on its way to `destination`.
pub(super) async fn captured(world: &World, destination: &str) -> TcpStream {
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let gateway = world.gateway.clone();
    let wanted = egret_policy::Destination::from_authority(destination, None).unwrap();
    tokio::spawn(async move {
        let client = Client {
            stream,
            input: Input::default(),
            door: Door::Captured,
            reply: Reply::Nothing,
            request: None,
        };
        let wanted = Ok(wanted);
        flow::carry(&gateway, Asked { client, wanted }).await;
    });
    client
}

#[tokio::test]
async fn a_granted_connection_is_carried_and_the_server_may_speak_first() {
    let port = server(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).await.unwrap();
        stream.write_all(&line).await.unwrap();
    })
    .await;
    let world = World::open_to(port).await;
    let mut stream = captured(&world, &format!("{HOST}:{port}")).await;
    let mut banner = [0; 11];
    in_time(stream.read_exact(&mut banner)).await.unwrap();
    stream.write_all(b"EHLO\r\n").await.unwrap();
    assert_eq!(until_end(&mut stream).await, (b"EHLO\r\n".to_vec(), false));
}

#[tokio::test]
async fn a_refusal_is_fast_and_speaks_http_only_to_those_who_do() {
    let world = World::new("default: deny").await;
    #[rustfmt::skip]
    let table: [(&[u8], bool); 5] = [
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", true ),
        (b"\x16\x03\x01\x00\x05\x01",                     false),
        (b"SSH-2.0-x\r\n",                                false),
        (b"\0\0\0\x08\x04\xd2\x16\x2f",                   false),
        (b"",                                             false),
    ];
    for (first, http) in table {
        let begun = Instant::now();
        let mut stream = captured(&world, "evil.example:443").await;
        stream.write_all(first).await.unwrap();
        if http {
            let answer = Answer::read(&mut stream, false).await;
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (403, "denied.default")
            );
        } else {
            assert_eq!(
                until_end(&mut stream).await,
                (Vec::new(), true),
                "{first:?}"
            );
        }
        // 50 ms is the goal; twice that leaves room for a busy machine.
        assert!(
            begun.elapsed() < Duration::from_millis(100),
            "{first:?}: {:?}",
            begun.elapsed()
        );
    }
    assert_eq!(
        world.decision("denied.default").await.door,
        Some(Door::Captured)
    );
}

#[tokio::test]
async fn a_connection_to_the_listener_itself_is_reset() {
    let world = World::new("default: deny").await;
    let mut stream = TcpStream::connect(world.captured).await.unwrap();
    assert_eq!(until_end(&mut stream).await, (Vec::new(), true));
    assert_eq!(
        world.decision("denied.malformed").await.door,
        Some(Door::Captured)
    );
}

#[tokio::test]
async fn synthetic_addresses_stand_for_their_names_and_for_nothing_else() {
    let world = World::new("default: deny").await;
    let names = &world.gateway.names;
    let host: egret_policy::Host = "api.example.com".parse().unwrap();
    let given = names.address_of(&host).unwrap_or_else(|_| panic!());
    assert_eq!(names.meaning(given.into()), Some(Meaning::Name(host)));
    assert!(names.meaning(given.to_ipv6_mapped().into()).is_some());
    for (address, meaning) in [
        ("198.18.0.0", Some(Meaning::Nothing)),
        ("198.19.255.255", Some(Meaning::Nothing)),
        ("198.20.0.1", None),
        ("::1", None),
    ] {
        assert_eq!(
            names.meaning(address.parse().unwrap()),
            meaning,
            "{address}"
        );
    }
}
