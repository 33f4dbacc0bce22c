//! What a watcher is told.

use super::*;
use crate::Connection;

#[tokio::test]
async fn open_connections_are_told_with_what_has_gone_over_them() {
    let port = echo().await;
    let world = World::open_to(port).await;
    let to = format!("{HOST}:{port}");
    assert_eq!(world.gateway.activity(), crate::Activity::default());
    let mut first = world.tunnel(&to).await;
    let mut second = world.tunnel(&to).await;
    for (stream, bytes) in [(&mut first, 3), (&mut second, 1000)] {
        stream.write_all(&vec![b'x'; bytes]).await.unwrap();
        in_time(stream.read_exact(&mut vec![0; bytes]))
            .await
            .unwrap();
    }
    let now = world.gateway.activity();
    let sums = |connection: &Connection| (connection.bytes_up, connection.bytes_down);
    let told: Vec<_> = now.connections.iter().map(sums).collect();
    assert_eq!(told, [(1000, 1000), (3, 3)]);
    assert_eq!((now.counts.open, now.counts.allowed), (2, 2));
    assert_eq!((now.counts.bytes_up, now.counts.bytes_down), (1003, 1003));
    let decisions = world.records();
    let decided = decisions
        .iter()
        .filter(|record| record.event == Event::Decision);
    let mut ids: Vec<_> = decided.map(|record| record.id.clone()).collect();
    ids.reverse();
    let told = |connection: &Connection| {
        assert_eq!((connection.host.as_str(), connection.port), (HOST, port));
        assert_eq!(connection.door, Door::Connect);
        connection.since.parse::<jiff::Timestamp>().unwrap();
        connection.id.clone()
    };
    assert_eq!(now.connections.iter().map(told).collect::<Vec<_>>(), ids);
    drop(first);
    world.close().await;
    let later = world.gateway.activity();
    assert_eq!(later.connections.len(), 1);
    assert_eq!((later.counts.open, later.counts.allowed), (1, 2));
    assert_eq!(
        (later.counts.bytes_up, later.counts.bytes_down),
        (1003, 1003)
    );
}

#[tokio::test]
async fn what_is_refused_or_fails_is_counted_and_requests_add_up_on_the_connection_they_share() {
    let (port, _) = mirror().await;
    let free = listener().local_addr().unwrap().port();
    let world = World::new(&format!("allow: ['{HOST}:{port},{free}']")).await;
    for _ in 0..3 {
        let (answer, _) = world
            .ask("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
            .await;
        assert_eq!(answer.status, 403);
    }
    let (answer, _) = world
        .ask(&format!(
            "CONNECT {HOST}:{free} HTTP/1.1\r\nHost: {HOST}:{free}\r\n\r\n"
        ))
        .await;
    assert_eq!(answer.status, 502);
    let request = format!("GET http://{HOST}:{port}/ HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n");
    let (answer, mut stream) = world.ask(&request).await;
    assert_eq!(answer.status, 200);
    let once = world.gateway.activity();
    let first = world.close().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream, false).await.status, 200);
    let twice = world.gateway.activity();
    let second = world
        .record(|record| record.event == Event::Close && record.id != first.id)
        .await;
    assert_eq!(
        (
            twice.counts.refused,
            twice.counts.failed,
            twice.counts.allowed
        ),
        (3, 1, 1)
    );
    let [now] = twice.connections.as_slice() else {
        panic!("{twice:?}")
    };
    assert_eq!(Some(once.connections[0].bytes_up), first.bytes_up);
    assert_eq!(first.bytes_up, second.bytes_up);
    assert_eq!(Some(now.bytes_up), first.bytes_up.map(|bytes| bytes * 2));
    assert_eq!(
        Some(now.bytes_down),
        first.bytes_down.map(|bytes| bytes * 2)
    );
}

#[tokio::test]
async fn of_very_many_connections_the_newest_are_told() {
    let destination = egret_policy::Destination::from_authority("a.test:443", None).unwrap();
    let sessions = crate::sessions::Sessions::new(5_000);
    let open = |number: usize| {
        let slot = sessions.slot(&destination).unwrap();
        slot.enter(
            &number.to_string(),
            Door::Captured,
            destination.clone(),
            Vec::new(),
            None,
        )
    };
    let all: Vec<_> = (0..3_000).map(open).collect();
    let (mut counts, mut told) = (crate::Counts::default(), Vec::new());
    sessions.tell(&mut counts, &mut told);
    assert_eq!(counts.open, 3_000);
    let ids = told
        .iter()
        .map(|(_, connection)| connection.id.parse::<usize>().unwrap());
    let newest: Vec<_> = (2_000..3_000).rev().collect();
    assert_eq!(ids.collect::<Vec<_>>(), newest);
    drop(all);
}
