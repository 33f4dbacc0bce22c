//! A new policy while connections are open, and the end.

use super::*;

#[tokio::test]
async fn a_new_policy_closes_what_it_would_not_allow_and_leaves_the_rest() {
    let (kept_port, lost_port) = (echo().await, echo().await);
    let (mirrored, _) = mirror().await;
    let world = World::new(&format!(
        "host_gateway: [{kept_port}, {lost_port}, {mirrored}]"
    ))
    .await;
    let mut kept = world.tunnel(&format!("{HOST}:{kept_port}")).await;
    let mut lost = world.tunnel(&format!("{HOST}:{lost_port}")).await;
    let mut idle = world.tunnel(&format!("{HOST}:{lost_port}")).await;
    let (_, mut forward) = world
        .ask(&format!(
            "GET http://{HOST}:{mirrored}/ HTTP/1.1\r\nHost: {HOST}:{mirrored}\r\n\r\n"
        ))
        .await;
    for stream in [&mut kept, &mut lost] {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(in_time(stream.read_u8()).await.unwrap(), b'x');
    }
    world.gateway.set_policy(
        matcher(&format!("host_gateway: [{kept_port}]")),
        "policy.yaml",
        Basis::default(),
    );
    assert!(until_end(&mut lost).await.1);
    assert!(until_end(&mut idle).await.1);
    kept.write_all(b"y").await.unwrap();
    assert_eq!(in_time(kept.read_u8()).await.unwrap(), b'y');
    let close = world
        .record(|record| {
            record.event == Event::Close && record.reason.as_deref() == Some("denied.host_gateway")
        })
        .await;
    assert_eq!(close.port, Some(lost_port));
    let policy = world.record(|record| record.event == Event::Policy).await;
    assert_eq!(policy.action.as_deref(), Some("replaced"));
    // The kept forward connection has lost its server, and its next request its grant.
    forward
        .write_all(
            format!("GET http://{HOST}:{mirrored}/ HTTP/1.1\r\nHost: {HOST}:{mirrored}\r\n\r\n")
                .as_bytes(),
        )
        .await
        .unwrap();
    assert_eq!(
        Answer::read(&mut forward, false).await.reason(),
        "denied.host_gateway"
    );
    // And the other way round.
    world.gateway.set_policy(
        matcher(&format!("host_gateway: [{lost_port}]")),
        "policy.yaml",
        Basis::default(),
    );
    world.tunnel(&format!("{HOST}:{lost_port}")).await;
    assert!(until_end(&mut kept).await.1);
}

#[tokio::test]
async fn a_tls_connection_stays_open_while_its_name_is_allowed() {
    let (port, _) = sink().await;
    let world = World::open_to(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    stream.write_all(&client_hello(HOST)).await.unwrap();
    for _ in 0..100 {
        world.gateway.set_policy(
            matcher(&format!("allow: ['{HOST}:{port}']")),
            "policy.yaml",
            Basis::default(),
        );
        tokio::task::yield_now().await;
    }
    assert!(
        timeout(Duration::from_millis(100), stream.read_u8())
            .await
            .is_err()
    );
    world
        .gateway
        .set_policy(matcher("default: deny"), "policy.yaml", Basis::default());
    assert!(until_end(&mut stream).await.1);
}

#[tokio::test]
async fn shutting_down_closes_everything_and_puts_it_on_record() {
    let port = echo().await;
    let world = World::open_to(port).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(world.tunnel(&format!("{HOST}:{port}")).await);
    }
    let silent = TcpStream::connect(world.proxy).await.unwrap();
    in_time(world.gateway.shutdown()).await;
    assert_eq!(
        world
            .records()
            .iter()
            .filter(|record| record.event == Event::Close)
            .count(),
        10
    );
    for mut stream in streams {
        until_end(&mut stream).await;
    }
    sleep(Duration::from_millis(50)).await;
    assert!(world._serving.is_finished());
    assert!(TcpStream::connect(world.proxy).await.is_err());
    drop(silent);
}
