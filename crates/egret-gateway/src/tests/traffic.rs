//! Moving bytes: much, many, and in one direction only.

use super::*;

/// Bytes that are not the same anywhere, and that can be made again.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let port = server(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream
            .write_all(format!("got {}", all.len()).as_bytes())
            .await
            .unwrap();
    })
    .await;
    let world = World::open_to(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    stream.write_all(&[b'x'; 1000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(until_end(&mut stream).await, (b"got 1000".to_vec(), false));

    let (done, mut finished) = tokio::sync::mpsc::channel(1);
    let port = server(move |mut stream| {
        let done = done.clone();
        async move {
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            done.send(all).await.unwrap();
        }
    })
    .await;
    let world = World::open_to(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    assert_eq!(until_end(&mut stream).await, (b"bye".to_vec(), false));
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(in_time(finished.recv()).await.unwrap(), b"still here");
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    let port = server(|mut stream| async move {
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let world = World::open_to(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    stream.write_all(b"x").await.unwrap();
    assert!(until_end(&mut stream).await.1);
}

#[tokio::test]
async fn a_great_deal_arrives_unchanged_both_ways() {
    const SIZE: u64 = 100 << 20;
    let port = echo().await;
    let world = World::open_to(port).await;
    let stream = world.tunnel(&format!("{HOST}:{port}")).await;
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        let mut at = 0;
        while at < SIZE {
            let end = (at + 65_536 + at % 977).min(SIZE);
            let part: Vec<u8> = (at..end).map(pattern).collect();
            write.write_all(&part).await.unwrap();
            at = end;
        }
        write.shutdown().await.unwrap();
    });
    let (mut at, mut buffer) = (0, vec![0; 1 << 18]);
    loop {
        let length = timeout(Duration::from_secs(60), read.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        if length == 0 {
            break;
        }
        for &byte in &buffer[..length] {
            assert_eq!(byte, pattern(at), "at {at}");
            at += 1;
        }
    }
    sending.await.unwrap();
    assert_eq!(at, SIZE);
    let close = world.close().await;
    assert_eq!((close.bytes_up, close.bytes_down), (Some(SIZE), Some(SIZE)));
}

#[tokio::test]
async fn a_thousand_tunnels_at_once() {
    let port = echo().await;
    let world = World::open_to(port).await;
    let mut tunnels = tokio::task::JoinSet::new();
    for number in 0..1000_u32 {
        let proxy = world.proxy;
        tunnels.spawn(async move {
            let mut stream = TcpStream::connect(proxy).await.unwrap();
            stream
                .write_all(format!("CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n").as_bytes())
                .await
                .unwrap();
            assert_eq!(Answer::read(&mut stream, false).await.status, 200);
            for round in 0..3 {
                let text = format!("{number} {round}\n");
                stream.write_all(text.as_bytes()).await.unwrap();
                let mut back = vec![0; text.len()];
                stream.read_exact(&mut back).await.unwrap();
                assert_eq!(back, text.as_bytes());
            }
            stream
        });
    }
    let streams = timeout(Duration::from_secs(60), tunnels.join_all())
        .await
        .unwrap();
    assert_eq!(streams.len(), 1000);
    drop(streams);
    for _ in 0..250 {
        if world
            .records()
            .iter()
            .filter(|record| record.event == Event::Close)
            .count()
            == 1000
        {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("not all were closed");
}

#[tokio::test]
async fn what_a_connection_keeps_in_memory_is_small() {
    let world = World::new("default: deny").await;
    let stream = TcpStream::connect(world.captured).await.unwrap();
    let client = crate::door::Client {
        stream,
        input: Default::default(),
        door: crate::audit::Door::Connect,
        reply: crate::door::Reply::Http,
        request: None,
    };
    let wanted = Err(crate::refused::Refused::malformed(""));
    let carried = crate::flow::carry(&world.gateway, crate::door::Asked { client, wanted });
    assert!(
        size_of_val(&carried) <= 1024,
        "{} bytes",
        size_of_val(&carried)
    );
}
