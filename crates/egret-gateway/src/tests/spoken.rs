//! What is spoken on a connection: TLS, HTTP, and everything else.

use super::*;

/// A ClientHello as a real client sends it.
pub(crate) fn client_hello(server_name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(server_name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// The same bytes in records of at most `most` bytes.
fn in_records_of(hello: &[u8], most: usize) -> Vec<u8> {
    hello[5..]
        .chunks(most)
        .flat_map(|part| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat())
        .collect()
}

async fn until_got(got: &Arc<Mutex<Vec<u8>>>, length: usize) {
    for _ in 0..250 {
        if got.lock().unwrap().len() >= length {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("only {:?}", got.lock().unwrap());
}

#[tokio::test]
async fn tls_passes_if_it_names_what_was_decided_however_it_is_split() {
    let hello = client_hello(HOST);
    for sent in [
        hello.clone(),
        in_records_of(&hello, 1),
        in_records_of(&hello, 100),
    ] {
        for step in [1, sent.len()] {
            let (port, got) = sink().await;
            let world = World::open_to(port).await;
            let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
            for part in sent.chunks(step) {
                stream.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.write_all(b"later").await.unwrap();
            until_got(&got, sent.len() + 5).await;
            assert_eq!(*got.lock().unwrap(), [&sent[..], b"later"].concat());
        }
    }
}

#[tokio::test]
async fn tls_for_another_name_and_what_is_near_to_tls_are_reset_with_nothing_sent() {
    let mut cut = client_hello(HOST);
    cut[9] = 9;
    let huge = [&[22, 3, 1, 0x40, 0, 1, 2, 0, 0][..], &[0; 16380]].concat();
    let alert_first = [&[21, 3, 1, 0, 2, 1, 0][..], &client_hello(HOST)].concat();
    let two = [client_hello(HOST), client_hello("evil.example")].concat();
    let evil = client_hello("evil.example");
    #[rustfmt::skip]
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("another name",            evil.clone(),                    "denied.name_mismatch"),
        ("another, one-byte recs",  in_records_of(&evil, 1),         "denied.name_mismatch"),
        ("no name",                 client_hello("192.0.2.1"),       "denied.name_mismatch"),
        ("a broken hello",          cut,                             "denied.protocol"),
        ("a huge hello",            huge,                            "denied.protocol"),
        ("an alert first",          alert_first,                     "denied.protocol"),
        ("HTTP/2 in plain text",    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "denied.protocol"),
    ];
    for (what, sent, reason) in table {
        let (port, got) = sink().await;
        let world = World::open_to(port).await;
        let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
        stream.write_all(&sent).await.unwrap();
        assert_eq!(until_end(&mut stream).await, (Vec::new(), true), "{what}");
        let refused = world.decision(reason).await;
        let close = world.close().await;
        assert_eq!(
            (close.id, close.reason.as_deref(), close.bytes_up),
            (refused.id, Some(reason), Some(0)),
            "{what}"
        );
        assert!(got.lock().unwrap().is_empty(), "{what}");
    }
    // What follows a good hello is the handshake's own affair.
    let (port, got) = sink().await;
    let world = World::open_to(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    stream.write_all(&client_hello(HOST)).await.unwrap();
    until_got(&got, client_hello(HOST).len()).await;
    drop((stream, two));
}

#[tokio::test]
async fn a_hello_that_ends_early_is_not_passed_on() {
    let (port, got) = sink().await;
    let world = World::open_to(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    stream.write_all(&client_hello(HOST)[..50]).await.unwrap();
    stream.shutdown().await.unwrap();
    until_end(&mut stream).await;
    world.decision("denied.protocol").await;
    assert!(got.lock().unwrap().is_empty());
}

#[tokio::test]
async fn http_in_a_tunnel_is_checked_request_by_request() {
    let (port, seen) = mirror().await;
    let world = World::open_to(port).await;
    let there = format!("{HOST}:{port}");
    #[rustfmt::skip]
    let table = [
        (format!("GET /2 HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                             200, ""),
        (format!("GET http://{there}/2 HTTP/1.1\r\nHost: {there}\r\n\r\n"),                               200, ""),
        (format!("OPTIONS * HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                          200, ""),
        (format!("POST /2 HTTP/1.1\r\nHost: {there}\r\nContent-Length: 2\r\n\r\nab"),                     200, ""),
        ("GET /2 HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),                                      403, "denied.name_mismatch"),
        ("GET /2 HTTP/1.1\r\n\r\n".to_owned(),                                                            400, "denied.malformed"),
        (format!("GET http://evil.example/2 HTTP/1.1\r\nHost: {there}\r\n\r\n"),                          403, "denied.name_mismatch"),
        (format!("GET http://{there}/2 HTTP/1.1\r\nHost: evil.example\r\n\r\n"),                          403, "denied.name_mismatch"),
        (format!("GET https://{there}/2 HTTP/1.1\r\nHost: {there}\r\n\r\n"),                              403, "denied.protocol"),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n".to_owned(),                403, "denied.protocol"),
        (format!("TRACE / HTTP/1.1\r\nHost: {there}\r\n\r\n"),                                            403, "denied.protocol"),
        (format!("GET /2 HTTP/1.1\nHost: {there}\n\n"),                                                   400, "denied.malformed"),
        (format!("GET /2 HTTP/1.1\r\nHost: {there}\r\nHost: evil.example\r\n\r\n"),                       400, "denied.malformed"),
        (format!("POST /2 HTTP/1.1\r\nHost: {there}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "denied.malformed"),
        ("FOO /2 HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),                                        403, "denied.name_mismatch"),
    ];
    for (second, status, reason) in table {
        for first in [
            None,
            Some(format!("GET /1 HTTP/1.1\r\nHost: {there}\r\n\r\n")),
        ] {
            seen.lock().unwrap().clear();
            let mut stream = world.tunnel(&there).await;
            let before = first.is_some();
            if let Some(first) = first {
                stream.write_all(first.as_bytes()).await.unwrap();
                assert_eq!(Answer::read(&mut stream, false).await.status, 200);
            }
            stream.write_all(second.as_bytes()).await.unwrap();
            let answer = Answer::read(&mut stream, false).await;
            assert_eq!(
                answer.status, status,
                "{second:?} after {before}: {answer:?}"
            );
            if status != 200 {
                assert_eq!(answer.reason(), reason, "{second:?}");
                assert_eq!(
                    seen.lock().unwrap().len(),
                    usize::from(before),
                    "{second:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn pipelined_requests_in_a_tunnel_are_checked_too() {
    let (port, seen) = mirror().await;
    let world = World::open_to(port).await;
    let there = format!("{HOST}:{port}");
    let mut stream = world.tunnel(&there).await;
    let both = format!(
        "GET /1 HTTP/1.1\r\nHost: {there}\r\n\r\nGET /2 HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    );
    stream.write_all(both.as_bytes()).await.unwrap();
    let (bytes, _) = until_end(&mut stream).await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.contains("GET /1 ") && text.contains("denied.name_mismatch"),
        "{text}"
    );
    assert_eq!(seen.lock().unwrap().len(), 1);
    let close = world.close().await;
    assert_eq!(close.reason.as_deref(), Some("denied.name_mismatch"));
    assert!(close.bytes_up.unwrap() > 0 && close.bytes_down.unwrap() > 0);
}

#[tokio::test]
async fn http_sent_letter_by_letter_is_http_and_dressed_up_it_is_not_carried() {
    let (port, seen) = mirror().await;
    let world = World::open_to(port).await;
    let there = format!("{HOST}:{port}");
    #[rustfmt::skip]
    let table = [
        (format!("GET / HTTP/1.1\r\nHost: {there}\r\n\r\n"),            true ),
        (format!("FOO / HTTP/1.1\r\nHost: {there}\r\n\r\n"),            false),
        (format!("\r\nGET / HTTP/1.1\r\nHost: {there}\r\n\r\n"),        false),
        ("get / http/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),       false),
        ("GET\t/\tHTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),     false),
        (" GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),      false),
        ("\x01GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),   false),
        ("\0\0GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),   false),
        ("{} / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),        false),
        ("FOO /\x01 HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),   false),
        ("OPTIONS / RTSP/1.0\r\nHost: evil.example\r\n\r\n".to_owned(),   false),
        // Without a version, as Node.js takes them.
        ("DELETE /\r\nHost: evil.example\r\n\r\n".to_owned(),             false),
        ("OPTIONS *\r\nHost: evil.example\r\n\r\n".to_owned(),            false),
        ("PLAY /\r\nHost: evil.example\r\n\r\n".to_owned(),               false),
        ("CONNECT a:1\r\nHost: evil.example\r\n\r\n".to_owned(),          false),
    ];
    for (request, good) in table {
        seen.lock().unwrap().clear();
        let mut stream = world.tunnel(&there).await;
        for byte in request.bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if good {
            assert_eq!(Answer::read(&mut stream, false).await.status, 200);
        } else {
            let (bytes, _) = until_end(&mut stream).await;
            assert!(!bytes.starts_with(b"HTTP/1.1 2"), "{request:?}");
            assert!(seen.lock().unwrap().is_empty(), "{request:?}");
        }
    }
}

#[tokio::test]
async fn a_method_of_any_length_does_not_hide_a_request() {
    let rest = b" / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let sent = [&[b'A'; 40_000], &rest[..]].concat();
    for step in [1_000, 30_000, sent.len()] {
        let (port, got) = sink().await;
        let world = World::open_to(port).await;
        let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
        for part in sent.chunks(step) {
            if stream.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        until_end(&mut stream).await;
        world.decision("denied.protocol").await;
        assert!(got.lock().unwrap().iter().all(|&byte| byte == b'A'));
    }
}

#[tokio::test]
async fn everything_else_flows_at_once() {
    let port = echo().await;
    let world = World::open_to(port).await;
    #[rustfmt::skip]
    let table: [&[u8]; 12] = [
        b"\0\0\0\x1f\0\x12\0\x03", b"\x10\x1f\0\x04MQTT", b"{\"id\": 1}\0", b"003egit-upload-pack /x.git\0host=a\0",
        b"ping", b"PING", b"SSH-2.0-client\r\n", b"EHLO x\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f", b"*1\r\n$4\r\nPING\r\n",
        b"GET key\r\n", b"\n",
    ];
    for first in table {
        let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
        stream.write_all(first).await.unwrap();
        let mut back = vec![0; first.len()];
        in_time(stream.read_exact(&mut back))
            .await
            .unwrap_or_else(|error| panic!("{first:?}: {error}"));
        assert_eq!(back, first);
    }
}

#[tokio::test]
async fn half_a_hello_is_not_waited_for_endlessly() {
    let (port, got) = sink().await;
    let limits = Limits {
        handshake_time: Duration::from_millis(200),
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
    for begun in [&client_hello(HOST)[..1], &client_hello(HOST)[..60]] {
        let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
        stream.write_all(begun).await.unwrap();
        assert!(until_end(&mut stream).await.1);
    }
    assert_eq!(
        world.decision("denied.limit").await.limit.as_deref(),
        Some("handshake_time")
    );
    assert!(got.lock().unwrap().is_empty());
}

#[tokio::test]
async fn half_a_request_line_is_passed_on_in_the_end_but_never_the_rest_of_a_request() {
    let (port, got) = sink().await;
    let world = World::open_to(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    for (step, so_far) in [("P", "P"), ("O", "PO"), ("ST /", "POST /")] {
        stream.write_all(step.as_bytes()).await.unwrap();
        until_got(&got, so_far.len()).await;
    }
    stream
        .write_all(b" HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        .await
        .unwrap();
    assert!(until_end(&mut stream).await.1);
    world.decision("denied.protocol").await;
    assert_eq!(*got.lock().unwrap(), b"POST /");
}

#[tokio::test]
async fn postgresql_asks_for_tls_first_and_the_name_counts_all_the_same() {
    let request = [0, 0, 0, 8, 4, 210, 22, 47];
    for (name, passes) in [(HOST, true), ("other.example", false)] {
        let (port, got) = sink().await;
        let world = World::open_to(port).await;
        let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
        stream.write_all(&request).await.unwrap();
        until_got(&got, request.len()).await; // as soon as it is sent, since an answer is waited for
        let hello = client_hello(name);
        stream.write_all(&hello).await.unwrap();
        if passes {
            until_got(&got, request.len() + hello.len()).await;
        } else {
            let (_, reset) = until_end(&mut stream).await;
            assert!(reset);
            assert_eq!(
                got.lock().unwrap().len(),
                request.len(),
                "nothing of the hello went on"
            );
            let record = world
                .record(|record| record.reason.as_deref() == Some("denied.name_mismatch"))
                .await;
            assert_eq!(record.event, Event::Decision);
        }
    }
}

#[tokio::test]
async fn a_record_of_an_unknown_version_is_not_something_else_than_tls() {
    let (port, got) = sink().await;
    let world = World::open_to(port).await;
    for version in [[2, 3], [0, 1], [4, 3]] {
        let mut hello = client_hello("other.example");
        hello[1..3].copy_from_slice(&version);
        let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
        stream.write_all(&hello).await.unwrap();
        let (_, reset) = until_end(&mut stream).await;
        assert!(reset, "{version:?}");
    }
    assert!(got.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_slow_request_for_encryption_does_not_let_a_hello_through_in_pieces() {
    let request = [0, 0, 0, 8, 4, 210, 22, 47];
    let (port, got) = sink().await;
    let world = World::open_to(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    stream.write_all(&request[..4]).await.unwrap();
    until_got(&got, 4).await; // held back for a moment, then taken for something else that waits for an answer
    stream.write_all(&request[4..]).await.unwrap();
    until_got(&got, request.len()).await;
    for byte in client_hello("other.example") {
        if stream.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let (_, reset) = until_end(&mut stream).await;
    assert!(reset);
    assert_eq!(
        *got.lock().unwrap(),
        request,
        "nothing of the hello went on"
    );
}
