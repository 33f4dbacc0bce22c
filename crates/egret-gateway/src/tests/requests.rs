//! Hosts that may be asked for certain requests only.

use super::*;
use crate::audit::{Door, Verdict};

/// A gateway to a server of which some requests may be asked.
async fn world(port: u16) -> World {
    World::new(&format!(
        "allow: [{{host: {HOST}, ports: [{port}], http: [GET /v1/**, POST /v1/items]}}]
deny: [{{host: {HOST}, ports: [{port}], http: [GET /v1/secret/**]}}]"
    ))
    .await
}

#[rustfmt::skip]
const TABLE: [(&str, &str, &str, &str); 20] = [
    ("GET",    "/v1/x?q=/../",        "",                              "ok"),
    ("POST",   "/v1/items",           "",                              "ok"),
    ("GET",    "/v1/%78",             "",                              "ok"),
    ("POST",   "/v1/other",           "",                              "denied.request"),
    ("DELETE", "/v1/x",               "",                              "denied.request"),
    ("GET",    "/v2",                 "",                              "denied.request"),
    ("GET",    "/v1/../v2",           "",                              "denied.request"),
    ("GET",    "/v1/%2e%2e/v2",       "",                              "denied.request"),
    ("GET",    "/v1/secret/x",        "",                              "denied.request"),
    ("GET",    "/v1/secret%2fx",      "",                              "denied.request"),
    ("GET",    "/v1/x",               "X-HTTP-Method-Override: PUT",   "denied.request"),
    ("GET",    "/v1/x",               "x-original-url: /v2",           "denied.request"),
    ("GET",    "/v1/x",               "X_HTTP_METHOD_OVERRIDE: PUT",   "denied.request"),
    ("GET",    "/v1/x",               "Destination: /v2",              "denied.request"),
    ("POST",   "/v1/items?_method=PUT", "",                            "denied.request"),
    ("POST",   "/v1/items?a&%5FMethod=PUT", "",                        "denied.request"),
    ("GET",    "/v1/Secret/x",        "",                              "denied.request"),
    ("GET",    "/v1/secret;a=1/x",    "",                              "denied.request"),
    ("GET",    "/v1/secret./x",       "",                              "denied.request"),
    ("GET",    "/v1/x%3F/../../v2",   "",                              "denied.request"),
];

fn head(method: &str, target: &str, port: u16, field: &str) -> String {
    let field = match field {
        "" => String::new(),
        field => format!("{field}\r\n"),
    };
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{field}\r\n")
}

#[tokio::test]
async fn every_request_through_the_forward_door_is_decided_on() {
    let (port, seen) = mirror().await;
    let world = world(port).await;
    let mut kept = TcpStream::connect(world.proxy).await.unwrap();
    let mut passed = 0;
    for (method, path, field, expected) in TABLE {
        let head = head(method, &format!("http://{HOST}:{port}{path}"), port, field);
        let (alone, _) = world.ask(&head).await;
        // And as one of many on a connection.
        kept.write_all(head.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut kept, false).await;
        for answer in [alone, answer] {
            let reason = match answer.status {
                200 => "ok".to_owned(),
                _ => answer.reason(),
            };
            assert_eq!(reason, expected, "{method} {path} {field}");
        }
        passed += 2 * usize::from(expected == "ok");
        assert_eq!(
            seen.lock().unwrap().len(),
            passed,
            "{method} {path} {field}"
        );
    }
    let refused = world.decision("denied.request").await;
    assert_eq!(refused.path.as_deref(), Some("/v1/other"));
    assert_eq!(refused.rule.as_deref(), Some("policy.yaml:2"));
    assert_eq!(
        refused.hint.as_deref(),
        Some("add `POST /v1/other` to the `http` of the entry at policy.yaml:2")
    );
    let by_deny = world
        .record(|record| record.path.as_deref() == Some("/v1/secret/x"))
        .await;
    assert_eq!(by_deny.rule.as_deref(), Some("policy.yaml:3"));
}

#[tokio::test]
async fn every_request_in_a_tunnel_is_decided_on_and_recorded() {
    let (port, seen) = mirror().await;
    let world = world(port).await;
    let mut passed = 0;
    for (method, path, field, expected) in TABLE {
        let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
        // The first request is fine; it is the second one that matters.
        for (head, expected) in [
            (head("GET", "/v1/first", port, ""), "ok"),
            (head(method, path, port, field), expected),
        ] {
            stream.write_all(head.as_bytes()).await.unwrap();
            let answer = Answer::read(&mut stream, false).await;
            let reason = match answer.status {
                200 => "ok".to_owned(),
                _ => answer.reason(),
            };
            assert_eq!(reason, expected, "{method} {path} {field}");
            passed += usize::from(expected == "ok");
        }
        assert_eq!(
            seen.lock().unwrap().len(),
            passed,
            "{method} {path} {field}"
        );
    }
    let allowed = world
        .record(|record| record.path.as_deref() == Some("/v1/items"))
        .await;
    assert_eq!(allowed.verdict, Some(Verdict::Allow));
    assert_eq!(allowed.door, Some(Door::Connect));
    assert_eq!(allowed.method.as_deref(), Some("POST"));
    assert!(allowed.dialled.is_some());
}

/// A server that leaves bodies unread and takes them for requests, and keeps the targets that it was asked for.
async fn careless() -> (u16, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let port = server(move |mut stream| {
        let kept = kept.clone();
        async move {
            let mut bytes = Vec::new();
            loop {
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                    match stream.read_buf(&mut bytes).await {
                        Ok(1..) => continue,
                        _ => return,
                    }
                };
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                bytes.drain(..end + 4);
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                kept.lock().unwrap().push(target);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                if stream.write_all(answer).await.is_err() || head.contains("connection: close") {
                    return;
                }
            }
        }
    })
    .await;
    (port, seen)
}

#[tokio::test]
async fn a_body_that_the_server_leaves_unread_is_no_request() {
    let (port, seen) = careless().await;
    let world = world(port).await;
    for inner in [
        format!("GET /v2/whole HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n"),
        format!("GET /v2/part HTTP/1.1\r\nHost: {HOST}:{port}\r\nX-Rest: "),
    ] {
        for (method, path) in [("GET", "/v1/a"), ("POST", "/v1/items")] {
            let length = format!("Content-Length: {}", inner.len());
            let chunked = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
            for (field, body) in [
                (length.as_str(), &inner),
                ("Transfer-Encoding: chunked", &chunked),
            ] {
                let absolute = format!("http://{HOST}:{port}{path}");
                let mut forward = TcpStream::connect(world.proxy).await.unwrap();
                let first = head(method, &absolute, port, field) + body;
                forward.write_all(first.as_bytes()).await.unwrap();
                Answer::read(&mut forward, false).await;
                // What comes next on the client's connection goes to the server by a new one.
                let next = head(
                    "GET",
                    &absolute.replace("items", "a"),
                    port,
                    "Connection: close",
                );
                if forward.write_all(next.as_bytes()).await.is_ok() {
                    until_end(&mut forward).await;
                }
                let mut tunnel = world.tunnel(&format!("{HOST}:{port}")).await;
                let first =
                    head(method, path, port, field) + body + &head("GET", "/v1/a", port, "");
                tunnel.write_all(first.as_bytes()).await.unwrap();
                until_end(&mut tunnel).await;
            }
        }
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 16, "{seen:?}");
    assert!(
        seen.iter().all(|target| target.starts_with("/v1/")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn what_is_no_request_does_not_pass_where_requests_are_decided_on() {
    let (port, got) = sink().await;
    let world = world(port).await;
    #[rustfmt::skip]
    let table: [&[u8]; 6] = [
        &client_hello(HOST), b"\x00\x01\x02\x03", b"SSH-2.0-x\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"EHLO x\r\nMAIL FROM:<a@b>\r\n", &[0, 0, 0, 8, 4, 210, 22, 47],
    ];
    for said in table {
        let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
        stream.write_all(said).await.unwrap();
        assert!(until_end(&mut stream).await.1, "{said:?}");
    }
    // A client that stops in the middle of what could have become a request.
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    stream.write_all(b"GE").await.unwrap();
    stream.shutdown().await.unwrap();
    until_end(&mut stream).await;
    assert_eq!(*got.lock().unwrap(), b"");
    let refused = world.decision("denied.protocol").await;
    assert_eq!(refused.verdict, Some(Verdict::Deny));
}

#[tokio::test]
async fn a_slow_request_waits_and_is_not_passed_on() {
    let (port, seen) = mirror().await;
    let world = world(port).await;
    let mut stream = world.tunnel(&format!("{HOST}:{port}")).await;
    stream.write_all(b"DEL").await.unwrap();
    sleep(Duration::from_millis(1300)).await;
    let rest = head("ETE", "/v1/x", port, "");
    stream.write_all(rest.as_bytes()).await.unwrap();
    assert_eq!(
        Answer::read(&mut stream, false).await.reason(),
        "denied.request"
    );
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_request_that_takes_its_time_is_put_to_a_new_policy() {
    let (port, got) = sink().await;
    let world = World::new(&format!("allow: ['{HOST}:{port}']")).await;
    let absolute = format!("http://{HOST}:{port}/v1/items");
    let mut forward = TcpStream::connect(world.proxy).await.unwrap();
    let mut tunnel = world.tunnel(&format!("{HOST}:{port}")).await;
    let chunked = "Transfer-Encoding: chunked";
    for (stream, target) in [
        (&mut forward, absolute.as_str()),
        (&mut tunnel, "/v1/items"),
    ] {
        let head = head("POST", target, port, chunked) + "1\r\nx\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
    }
    for _ in 0..250 {
        if got
            .lock()
            .unwrap()
            .windows(4)
            .filter(|four| four == b"\nx\r\n")
            .count()
            == 2
        {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    world.gateway.set_policy(
        matcher(&format!(
            "allow: [{{host: {HOST}, ports: [{port}], http: [GET /v1/**]}}]"
        )),
        "policy.yaml",
        Basis::default(),
    );
    assert!(until_end(&mut forward).await.1);
    assert!(until_end(&mut tunnel).await.1);
}

#[tokio::test]
async fn where_every_request_is_listed_none_is_refused() {
    let (port, _) = mirror().await;
    let world = World::new(&format!(
        "allow: [{{host: {HOST}, ports: [{port}], http: [full]}}]"
    ))
    .await;
    for (method, path, field) in [
        ("GET", "/web/http://x.example//y", ""),
        ("MOVE", "/a%3F", "Destination: /b"),
        ("POST", "/x?_method=PUT", "X-HTTP-Method: PUT"),
        ("OPTIONS", "*", ""),
    ] {
        let mut tunnel = world.tunnel(&format!("{HOST}:{port}")).await;
        let head = head(method, path, port, field);
        tunnel.write_all(head.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut tunnel, false).await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    }
    // And still nothing but requests.
    let mut tunnel = world.tunnel(&format!("{HOST}:{port}")).await;
    tunnel.write_all(&client_hello(HOST)).await.unwrap();
    assert!(until_end(&mut tunnel).await.1);
}

#[tokio::test]
async fn a_policy_that_begins_to_decide_on_requests_applies_to_what_is_open() {
    let (port, seen) = mirror().await;
    let echoing = echo().await;
    let world = World::new(&format!("allow: ['{HOST}:{port},{echoing}']")).await;
    let mut opaque = world.tunnel(&format!("{HOST}:{echoing}")).await;
    opaque.write_all(b"\x00").await.unwrap();
    assert_eq!(in_time(opaque.read_u8()).await.unwrap(), 0);
    let mut http = world.tunnel(&format!("{HOST}:{port}")).await;
    let request = head("PUT", "/v1/x", port, "");
    http.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut http, false).await.status, 200);
    world.gateway.set_policy(
        matcher(&format!(
            "allow: [{{host: {HOST}, ports: [{port}, {echoing}], http: [GET /v1/**]}}]"
        )),
        "policy.yaml",
        Basis::default(),
    );
    assert!(until_end(&mut opaque).await.1);
    let get = head("GET", "/v1/x", port, "");
    http.write_all(get.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut http, false).await.status, 200);
    http.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(
        Answer::read(&mut http, false).await.reason(),
        "denied.request"
    );
    assert_eq!(seen.lock().unwrap().len(), 2);
    let close = world
        .record(|record| record.event == Event::Close && record.port == Some(echoing))
        .await;
    assert_eq!(close.reason.as_deref(), Some("denied.request"));
}
