//! What is spoken at published ports: streams, web sockets, and what is not HTTP.

use super::*;

#[tokio::test]
async fn a_stream_of_events_may_be_silent_for_as_long_as_it_likes() {
    let server = server(|mut stream| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
        let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(begin.as_bytes()).await.unwrap();
        for _ in 0..2 {
            sleep(Duration::from_millis(700)).await;
            stream.write_all(b"9\r\ndata: 1\n\n\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let short = Duration::from_millis(100);
    for speaks in [Protocol::Http, Protocol::Unknown] {
        let with = With {
            limits: Limits {
                handshake_time: short,
                audit_wait: short,
                resolve_time: short,
                connect_time: short,
                ..Limits::default()
            },
            ..With::default()
        };
        let port = Port::with(server, speaks, with).await;
        let mut stream = port.connect().await;
        stream
            .write_all(b"GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let (mut said, mut at) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        while !said.ends_with(b"0\r\n\r\n") {
            assert_ne!(in_time(stream.read_buf(&mut said)).await.unwrap(), 0);
            at.push(begun.elapsed());
        }
        // What was there first was not held back for what came later.
        assert!(
            at[0] + Duration::from_millis(1200) < at[at.len() - 1],
            "{at:?}"
        );
        assert!(at.len() >= 3, "{at:?}");
        // And the connection is good for another request, after a while.
        sleep(Duration::from_millis(300)).await;
        stream
            .write_all(b"GET /sse HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(Answer::read(&mut stream, false).await.status, 403);
    }
}

#[tokio::test]
async fn a_server_hears_that_the_reader_of_its_stream_has_gone() {
    let (heard, mut hears) = tokio::sync::mpsc::channel(1);
    let server = server(move |mut stream| {
        let heard = heard.clone();
        async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            stream.write_all(begin.as_bytes()).await.unwrap();
            let _ = stream.read(&mut head).await;
            heard.send(()).await.unwrap();
        }
    })
    .await;
    for request in [
        "GET /sse HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /sse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let port = Port::http(server).await;
        let (head, rest) = request.split_at(request.len() - 1);
        let mut stream = port.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        stream.write_all(rest.as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut stream, true).await.status, 200);
        drop(stream);
        in_time(hears.recv()).await.unwrap();
        port.world.close().await;
    }
}

#[tokio::test]
async fn a_server_may_speak_first_and_what_is_not_http_passes_as_it_is() {
    let banner = server(|mut stream| async move {
        stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let port = Port::unknown(banner).await;
    let mut stream = port.connect().await;
    let begun = Instant::now();
    let mut said = [0; 11];
    in_time(stream.read_exact(&mut said)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(500));
    stream.write_all(b"SSH-2.0-y\r\nmore").await.unwrap();
    in_time(stream.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"SSH-2.0-y\r\n");
    drop(stream);
    let close = port.world.close().await;
    assert_eq!(close.host.as_deref(), Some("127.0.0.1"));

    let garbled = [&[22, 9, 9][..], &[255; 100]].concat();
    let hello = client_hello("evil.example");
    let two = [&hello[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    for sent in [
        &hello[..],
        &garbled,
        &two,
        b"*1\r\n$4\r\nPING\r\n",
        b"\0\x01\x02",
    ] {
        for step in [1, sent.len()] {
            let port = Port::unknown(echo().await).await;
            let mut stream = port.connect().await;
            for part in sent.chunks(step) {
                stream.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.shutdown().await.unwrap();
            assert_eq!(until_end(&mut stream).await, (sent.to_vec(), false));
        }
    }
}

#[tokio::test]
async fn http_is_found_however_it_is_begun() {
    let evil = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let (server, got) = sink().await;
    let with = With {
        limits: Limits {
            handshake_time: Duration::from_millis(300),
            ..Limits::default()
        },
        ..With::default()
    };
    let port = Port::with(server, Protocol::Unknown, with).await;
    let mut stream = port.connect().await;
    for byte in evil.as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(
        Answer::read(&mut stream, false).await.reason(),
        "denied.name_mismatch"
    );
    for prefix in ["", "\r\n", "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", "X"] {
        port.say(format!("{prefix}{evil}").as_bytes()).await;
    }
    for sent in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /\r\n"] {
        port.say(sent.as_bytes()).await;
    }
    for sent in ["OPTIONS / RTSP/1.0\r\n", "\x01{} / HTTP/1.1\r\n"] {
        port.say(format!("{sent}Host: evil.example\r\n\r\n").as_bytes())
            .await;
    }
    assert!(got.lock().unwrap().is_empty(), "{:?}", got.lock());
    // A page chooses the method of what it fetches.
    port.say(format!("{}{evil}", "A".repeat(40_000)).as_bytes())
        .await;
    assert!(got.lock().unwrap().iter().all(|&byte| byte == b'A'));
    // A page can have a browser send a request to any server, also to one that speaks first.
    let greeter = server_first().await;
    let port = Port::unknown(greeter.0).await;
    let mut stream = port.connect().await;
    let mut said = [0; 5];
    in_time(stream.read_exact(&mut said)).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nQUIT\r\n")
        .await
        .unwrap();
    assert!(until_end(&mut stream).await.1);
    port.world.decision("denied.protocol").await;
    assert!(greeter.1.lock().unwrap().is_empty());
}

/// A server that greets and keeps what it gets.
async fn server_first() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = got.clone();
    let port = server(move |mut stream| {
        let kept = kept.clone();
        async move {
            let _ = stream.write_all(b"220 \n").await;
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                kept.lock().unwrap().extend_from_slice(&chunk[..read]);
            }
        }
    })
    .await;
    (port, got)
}

#[tokio::test]
async fn a_port_for_http_carries_nothing_else() {
    let reached = Arc::new(Mutex::new(0));
    let count = reached.clone();
    let with = With {
        inside: Some(Inside::new(move |_| {
            *count.lock().unwrap() += 1;
            Err(io::ErrorKind::ConnectionRefused.into())
        })),
        limits: Limits {
            handshake_time: Duration::from_millis(300),
            ..Limits::default()
        },
        ..With::default()
    };
    let port = Port::with(80, Protocol::Http, with).await;
    #[rustfmt::skip]
    let table: [(&[u8], &str); 8] = [
        (&client_hello("localhost"),         "denied.protocol"),
        (b"SSH-2.0-x\r\n",                   "denied.protocol"),
        (b"*1\r\n$4\r\nPING\r\n",            "denied.protocol"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f",      "denied.protocol"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "denied.protocol"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "denied.protocol"),
        (b"\x16",                            "denied.protocol"),
        (b"GE",                              "denied.limit"),
    ];
    for (number, (sent, reason)) in table.into_iter().enumerate() {
        assert_eq!(port.say(sent).await, (Vec::new(), true), "{sent:?}");
        let decisions = port.decisions();
        assert_eq!(decisions.len(), number + 1, "{sent:?}");
        let record = &decisions[number];
        assert_eq!(record.reason.as_deref(), Some(reason), "{sent:?}");
        assert_eq!(record.port, Some(80));
    }
    // HTTP/0.9, and a request that does not end.
    for sent in [
        &b"GET /\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    ] {
        let said = String::from_utf8(port.say(sent).await.0).unwrap();
        assert!(said.starts_with("HTTP/1.1 4"), "{said}");
    }
    let before = port.decisions().len();
    // Browsers open connections in advance; nothing has happened on them.
    assert_eq!(port.say(b"").await, (Vec::new(), false));
    drop(port.connect().await);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(port.decisions().len(), before);
    assert_eq!(*reached.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_web_socket_passes_once_its_request_may() {
    let server = server(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut head).await.unwrap();
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.contains("upgrade: websocket"), "{head}");
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let port = Port::http(server).await;
    let ask = |origin: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
        )
    };
    let (answer, _) = port.ask(&ask("http://evil.example")).await;
    assert_eq!(answer.reason(), "denied.name_mismatch");
    let (answer, mut stream) = port.ask(&ask("http://localhost:3000")).await;
    assert_eq!(answer.status, 101);
    let frame = b"\x81\x05GET /";
    stream.write_all(frame).await.unwrap();
    let mut back = [0; 7];
    in_time(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, frame);
}
