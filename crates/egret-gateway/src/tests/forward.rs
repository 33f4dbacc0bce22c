//! Forward HTTP.

use super::*;
use crate::audit::{Door, Verdict};

fn get(port: u16, path: &str) -> String {
    format!("GET http://{HOST}:{port}{path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n")
}

#[tokio::test]
async fn each_request_is_decided_and_recorded_and_connections_are_kept() {
    let (port, seen) = mirror().await;
    let world = World::open_to(port).await;
    let head = format!(
        "GET http://{HOST}:{port}/a?secret=1 HTTP/1.1\r\nHost: {HOST}:{port}\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic eHg=\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nTE: trailers\r\nX-End: 2\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n"
    );
    let (answer, mut stream) = world.ask(&head).await;
    assert_eq!(answer.status, 200);
    let passed = seen.lock().unwrap()[0].to_lowercase();
    assert_eq!(
        passed,
        format!("get /a?secret=1 http/1.1\r\nhost: {HOST}:{port}\r\nx-end: 2\r\n\r\n")
    );
    for path in ["/b", "/c"] {
        stream.write_all(get(port, path).as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut stream, false).await.status, 200);
    }
    // Refused on the way, and the connection goes on.
    stream
        .write_all(b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        Answer::read(&mut stream, false).await.reason(),
        "denied.default"
    );
    stream.write_all(get(port, "/d").as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream, false).await.status, 200);

    let records = world.records();
    let allowed: Vec<_> = records
        .iter()
        .filter(|record| record.verdict == Some(Verdict::Allow))
        .collect();
    assert_eq!(
        allowed
            .iter()
            .map(|record| record.path.as_deref().unwrap())
            .collect::<Vec<_>>(),
        ["/a", "/b", "/c", "/d"]
    );
    assert!(
        allowed
            .iter()
            .all(|record| record.door == Some(Door::Forward) && record.dialled.is_some())
    );
    for record in allowed {
        assert_eq!(
            records
                .iter()
                .filter(|other| other.event == Event::Close && other.id == record.id)
                .count(),
            1
        );
    }
    assert!(
        !std::fs::read_to_string(&world.log)
            .unwrap()
            .contains("secret")
    );
}

#[tokio::test]
async fn requests_that_may_not_pass_are_refused_each_for_its_reason() {
    let (port, seen) = mirror().await;
    let world = World::open_to(port).await;
    let there = format!("{HOST}:{port}");
    #[rustfmt::skip]
    let table = [
        ("GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),                              403, "denied.default"),
        (format!("GET http://{there}/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"),                                   403, "denied.name_mismatch"),
        (format!("GET http://{there}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),                                         403, "denied.name_mismatch"),
        (format!("GET http://{there}/ HTTP/1.1\r\n\r\n"),                                                         400, "denied.malformed"),
        (format!("GET https://{there}/ HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                       403, "denied.protocol"),
        (format!("GET ftp://{there}/ HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                         403, "denied.protocol"),
        (format!("TRACE http://{there}/ HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                      403, "denied.protocol"),
        (format!("GET http://u@{there}/ HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                      400, "denied.malformed"),
        (format!("GET http://{there}?x HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                       400, "denied.malformed"),
        (format!("GET http:///x HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                              400, "denied.malformed"),
        (format!("GET /x HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                                     400, "denied.malformed"),
        (format!("OPTIONS * HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                                  400, "denied.malformed"),
        (format!("POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),               400, "denied.malformed"),
        (format!("POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "denied.malformed"),
        (format!("POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), 400, "denied.malformed"),
        (format!("POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),   400, "denied.malformed"),
        (format!("POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400, "denied.malformed"),
        (format!("POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "denied.malformed"),
        (format!("POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nContent-Length: +1\r\n\r\nx"),                400, "denied.malformed"),
        (format!("POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nContent-Length: 1, 1\r\n\r\nx"),              400, "denied.malformed"),
        (format!("POST http://{there}/ HTTP/1.0\r\nHost: {there}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "denied.malformed"),
    ];
    for (request, status, reason) in table {
        let (answer, _) = world.ask(&request).await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (status, reason),
            "{request:?}"
        );
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bodies_pass_whole_in_both_framings_and_malformed_chunks_do_not() {
    let got = sink().await;
    let world = World::open_to(got.0).await;
    let there = format!("{HOST}:{}", got.0);
    for chunks in [
        "5\r\nhello\r\n0\r\n\r\n",
        "5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(world.proxy).await.unwrap();
        let head = format!(
            "POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        for byte in format!("{head}{chunks}").bytes() {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            if got.1.lock().unwrap().ends_with(chunks.as_bytes()) {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        assert!(String::from_utf8_lossy(&got.1.lock().unwrap()).ends_with(chunks));
    }
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n",
        "5\r\nhello!\r\n",
        "-1\r\n",
        "ffffffffffffffff\r\n",
    ] {
        let head = format!(
            "POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let mut stream = TcpStream::connect(world.proxy).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(30)).await;
        stream.write_all(chunks.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream, false).await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (400, "denied.malformed"),
            "{chunks:?}"
        );
    }
}

#[tokio::test]
async fn a_large_body_and_a_head_request_go_through() {
    let (port, _) = mirror().await;
    let world = World::open_to(port).await;
    let there = format!("{HOST}:{port}");
    let body = "0123456789abcdef".repeat(60_000);
    let head = format!(
        "POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (answer, mut stream) = world.ask(&format!("{head}{body}")).await;
    assert!(String::from_utf8(answer.body).unwrap().ends_with(&body));
    stream
        .write_all(format!("HEAD http://{there}/ HTTP/1.1\r\nHost: {there}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let answer = Answer::read(&mut stream, true).await;
    assert_ne!(answer.field("content-length").unwrap(), "0");
    stream
        .write_all(get(port, "/after").as_bytes())
        .await
        .unwrap();
    assert_eq!(Answer::read(&mut stream, false).await.status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (port, _) = mirror().await;
    let world = World::open_to(port).await;
    let all = [
        get(port, "/1"),
        "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(),
        get(port, "/3"),
    ]
    .concat();
    let mut stream = TcpStream::connect(world.proxy).await.unwrap();
    stream.write_all(all.as_bytes()).await.unwrap();
    // One read may hold several answers: read them all, then look.
    stream.shutdown().await.unwrap();
    let (bytes, reset) = until_end(&mut stream).await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(!reset);
    let places: Vec<_> = ["GET /1 ", "denied.default", "GET /3 "]
        .iter()
        .map(|part| text.find(part).expect(part))
        .collect();
    assert!(places.is_sorted(), "{text}");
}

#[tokio::test]
async fn answers_of_every_framing_are_passed_on() {
    #[rustfmt::skip]
    let table: [(&str, &str, bool); 7] = [
        // the server's answer                                                          what has to be in ours    whether it is an answer at all
        ("HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",                                     "204 No Content",         true ),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end",                                          "until the end",          true ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",    "3\r\nabc\r\n0\r\n\r\n",  true ),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",   "100 Continue",           true ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",    "allowed.host_gateway",           false),
        ("\n\r\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok",                                 "200 OK\r\nContent-Length: 2\r\n", true),
        ("SSH-2.0-OpenSSH\r\n",                                                           "allowed.host_gateway",           false),
    ];
    let each = |row| [1, 7, usize::MAX].map(|piece| (row, piece));
    for ((response, expected, good), piece) in table.into_iter().flat_map(each) {
        let port = server(move |mut stream| async move {
            let mut chunk = [0; 4096];
            let _ = stream.read(&mut chunk).await;
            for piece in response.as_bytes().chunks(piece) {
                let _ = stream.write_all(piece).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let world = World::open_to(port).await;
        let mut stream = TcpStream::connect(world.proxy).await.unwrap();
        let request = get(port, "/").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let (bytes, _) = until_end(&mut stream).await;
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(expected), "{response:?} became {text:?}");
        assert_eq!(text.starts_with("HTTP/1.1 502"), !good, "{text}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced() {
    let port = server(|mut stream| async move {
        let mut chunk = [0; 4096];
        let _ = stream.read(&mut chunk).await;
        // Says that it stays, and goes.
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let world = World::open_to(port).await;
    let (answer, mut stream) = world.ask(&get(port, "/1")).await;
    assert_eq!(answer.status, 200);
    for _ in 0..3 {
        stream.write_all(get(port, "/2").as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut stream, false).await.status, 200);
    }
}

#[tokio::test]
async fn websockets_are_upgraded_and_other_upgrades_are_not() {
    let port = server(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        if head.contains("upgrade: websocket") && head.contains("connection: upgrade") {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst").await.unwrap();
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        } else {
            assert!(!head.contains("upgrade"), "{head}");
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let world = World::open_to(port).await;
    let there = format!("{HOST}:{port}");
    let ask = |protocol: &str| {
        format!(
            "GET http://{there}/ws HTTP/1.1\r\nHost: {there}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        )
    };
    let (answer, mut stream) = world.ask(&ask("websocket")).await;
    assert_eq!(answer.status, 101);
    stream.write_all(b"frame").await.unwrap();
    let mut back = answer.body;
    while back.len() < 10 {
        assert_ne!(in_time(stream.read_buf(&mut back)).await.unwrap(), 0);
    }
    assert_eq!(back, b"firstframe");
    let (answer, _) = world.ask(&ask("h2c")).await;
    assert_eq!(answer.status, 502);
}

#[tokio::test]
async fn a_connect_may_follow_a_plain_request() {
    let (port, _) = mirror().await;
    let world = World::open_to(port).await;
    let (answer, mut stream) = world.ask(&get(port, "/")).await;
    assert_eq!(answer.status, 200);
    stream
        .write_all(b"CONNECT evil.example:443 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        Answer::read(&mut stream, false).await.reason(),
        "denied.default"
    );
}

#[tokio::test]
async fn a_body_that_goes_wrong_after_the_answer_began_ends_the_connection() {
    let port = server(|mut stream| async move {
        let mut chunk = [0; 4096];
        let _ = stream.read(&mut chunk).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart")
            .await;
        let _ = stream.read(&mut chunk).await;
    })
    .await;
    let world = World::open_to(port).await;
    let there = format!("{HOST}:{port}");
    let mut stream = TcpStream::connect(world.proxy).await.unwrap();
    let head = format!(
        "POST http://{there}/ HTTP/1.1\r\nHost: {there}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut begun = vec![0; 4];
    while !begun.ends_with(b"part") {
        assert_ne!(in_time(stream.read_buf(&mut begun)).await.unwrap(), 0);
    }
    stream.write_all(b"nonsense\r\n").await.unwrap();
    assert_eq!(until_end(&mut stream).await, (Vec::new(), true));
}
