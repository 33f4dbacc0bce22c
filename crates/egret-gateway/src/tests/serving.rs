//! Doors that are shut and opened again, as when the sandbox's agent restarts.

use super::published::inside;
use super::*;
use crate::{Callers, Protocol};

/// Doors, and where the proxy and the published port are.
fn doors(inside: u16) -> (Doors, SocketAddr, SocketAddr, SocketAddr) {
    let (proxy, published) = (listener(), listener());
    let dns = std::net::UdpSocket::bind(LOCAL).unwrap();
    dns.set_nonblocking(true).unwrap();
    let at = proxy.local_addr().unwrap();
    let in_at = published.local_addr().unwrap();
    let dns_at = dns.local_addr().unwrap();
    let doors = Doors {
        proxy: vec![proxy],
        dns_udp: vec![dns],
        published: vec![Published {
            listener: published,
            port: inside,
            from: Callers::ThisHost,
            speaks: Protocol::Unknown,
        }],
        ..Doors::default()
    };
    (doors, at, in_at, dns_at)
}

async fn tunnel(proxy: SocketAddr, port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let request = format!("CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream, false).await.status, 200);
    stream
}

#[tokio::test]
async fn doors_are_shut_with_the_future_and_others_can_be_opened_after_it() {
    let port = echo().await;
    let with = With {
        inside: Some(inside()),
        ..With::default()
    };
    let world = World::with(&format!("allow: ['{HOST}:{port}']"), with).await;
    let gateway = world.gateway.clone();
    world._serving.abort();
    sleep(Duration::from_millis(20)).await;
    for round in 1..=3 {
        let (doors, proxy, published, dns) = doors(port);
        let mut serving = Box::pin(gateway.clone().serve(doors));
        let (mut out, mut into, mut plain, silent) = tokio::select! {
            _ = &mut serving => panic!("ended"),
            opened = async {
                let mut out = tunnel(proxy, port).await;
                let mut into = TcpStream::connect(published).await.unwrap();
                for stream in [&mut out, &mut into] {
                    stream.write_all(b"x").await.unwrap();
                    assert_eq!(in_time(stream.read_u8()).await.unwrap(), b'x');
                }
                let mut plain = TcpStream::connect(proxy).await.unwrap();
                plain.write_all(b"GET /half").await.unwrap();
                (out, into, plain, TcpStream::connect(published).await.unwrap())
            } => opened,
        };
        drop(serving);
        // Before anything else runs: nobody listens any more.
        for address in [proxy, published] {
            assert!(std::net::TcpStream::connect(address).is_err(), "{round}");
        }
        assert!(std::net::UdpSocket::bind(dns).is_ok());
        for stream in [&mut out, &mut into] {
            assert_eq!(until_end(stream).await, (Vec::new(), true), "{round}");
        }
        until_end(&mut plain).await;
        drop(silent);
        let closed = || {
            let records = world.records();
            let count = |event| {
                records
                    .iter()
                    .filter(|record| record.event == event)
                    .count()
            };
            let allowed = records
                .iter()
                .filter(|record| record.dialled.is_some())
                .count();
            (count(Event::Close), allowed)
        };
        for _ in 0..100 {
            if closed().0 == closed().1 {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(closed().0, closed().1, "{:?}", world.records());
        assert!(closed().0 >= 2 * round);
    }
}

#[tokio::test]
async fn sockets_may_come_as_they_are() {
    let port = echo().await;
    let world = World::open_to(port).await;
    let (doors, proxy, ..) = doors(port);
    for listener in doors
        .proxy
        .iter()
        .chain(doors.published.iter().map(|port| &port.listener))
    {
        listener.set_nonblocking(false).unwrap();
    }
    doors.dns_udp[0].set_nonblocking(false).unwrap();
    let serving = tokio::spawn(world.gateway.clone().serve(doors));
    tunnel(proxy, port).await;
    in_time(world.gateway.shutdown()).await;
    in_time(serving).await.unwrap().unwrap();
}
