//! SOCKS.

use super::*;

/// Sends `parts`, one after the other, and returns everything that comes back.
async fn say(world: &World, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(world.proxy).await.unwrap();
    for part in parts {
        let _ = stream.write_all(part).await;
        sleep(Duration::from_millis(10)).await;
    }
    let _ = stream.shutdown().await;
    until_end(&mut stream).await.0
}

fn named(command: u8, name: &[u8], port: u16) -> Vec<u8> {
    let mut request = vec![5, command, 0, 3, name.len() as u8];
    request.extend_from_slice(name);
    request.extend_from_slice(&port.to_be_bytes());
    request
}

#[tokio::test]
async fn a_granted_name_is_connected_to_even_byte_by_byte() {
    let port = echo().await;
    let world = World::open_to(port).await;
    let mut stream = TcpStream::connect(world.proxy).await.unwrap();
    for byte in [&[5, 2, 0, 2][..], &named(1, HOST.as_bytes(), port), b"hi"].concat() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut back = [0; 14];
    in_time(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00hi");
    assert_eq!(
        world.decision("allowed.host_gateway").await.door,
        Some(crate::audit::Door::Socks)
    );
}

#[tokio::test]
async fn requests_that_may_not_pass_get_the_reply_that_fits() {
    let closed = {
        std::net::TcpListener::bind(LOCAL)
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    };
    let world = World::new(&format!("allow: ['{HOST}:{closed}', unresolvable.example]")).await;
    let v4 = [&[5, 1, 0, 1, 169, 254, 169, 254][..], &80_u16.to_be_bytes()].concat();
    let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1], &80_u16.to_be_bytes()].concat();
    let mapped = [
        &[5, 1, 0, 4][..],
        &[0; 10],
        &[255, 255, 127, 0, 0, 1],
        &80_u16.to_be_bytes(),
    ]
    .concat();
    #[rustfmt::skip]
    let table: Vec<(&str, Vec<u8>, u8, &str)> = vec![
        ("a name",            named(1, b"evil.example", 443),          2, "denied.default"),
        ("IPv4",              v4,                                      2, "denied.address.metadata"),
        ("IPv6",              v6,                                      2, "denied.address.loopback"),
        ("v4 in v6",          mapped,                                  2, "denied.address.loopback"),
        ("BIND",              named(2, b"evil.example", 443),          7, "denied.protocol"),
        ("UDP ASSOCIATE",     named(3, b"evil.example", 443),          7, "denied.protocol"),
        ("address type 2",    vec![5, 1, 0, 2, 1, 2, 3, 4, 0, 80],     8, "denied.malformed"),
        ("NUL in a name",     named(1, b"evil\0.example", 443),        1, "denied.malformed"),
        ("not text",          named(1, b"\xff\xfe", 443),              1, "denied.malformed"),
        ("no name",           named(1, b"", 443),                      1, "denied.malformed"),
        ("port 0",            named(1, b"evil.example", 0),            1, "denied.malformed"),
        ("version 4 inside",  vec![4, 1, 0, 1, 1, 2, 3, 4, 0, 80],     1, "denied.malformed"),
        ("reserved byte",     vec![5, 1, 9, 1, 1, 2, 3, 4, 0, 80],     1, "denied.malformed"),
        ("inet_aton",         named(1, b"0x7f.1", 80),                 2, "denied.address.loopback"),
        ("nobody there",      named(1, HOST.as_bytes(), closed),       4, "allowed.host_gateway"),
        ("no such name",      named(1, b"unresolvable.example", 443),  4, "denied.resolution"),
    ];
    for (what, request, reply, reason) in table {
        let back = say(&world, &[&[5, 1, 0], &request]).await;
        assert_eq!(
            back.get(..4),
            Some(&[5, 0, 5, reply][..]),
            "{what}: {back:?}"
        );
        world.decision(reason).await;
    }
}

#[tokio::test]
async fn other_versions_methods_and_lying_lengths_come_to_nothing() {
    let world = World::new("default: deny").await;
    assert_eq!(
        say(&world, &[&[4, 1, 0, 80, 1, 2, 3, 4, 0]]).await,
        [0, 0x5b, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(say(&world, &[&[5, 1, 2]]).await, [5, 0xff]);
    assert_eq!(say(&world, &[&[5, 0]]).await, [5, 0xff]);
    // Fewer bytes than were announced, then the end.
    assert!(say(&world, &[&[5, 9, 0]]).await.is_empty());
    assert_eq!(
        say(&world, &[&[5, 1, 0], &[5, 1, 0, 3, 200, b'a']]).await,
        [5, 0]
    );
    assert_eq!(say(&world, &[&[5, 1, 0], &[5, 1, 0, 1, 1]]).await, [5, 0]);
    // More than were announced: what follows is not a port, and says so.
    assert_eq!(
        say(
            &world,
            &[&[5, 1, 0], &[5, 1, 0, 3, 1, b'a', b'b', b'c', b'd']]
        )
        .await
        .get(2..4),
        Some(&[5, 2][..])
    );
}
