//! Classes 24 to 29: what is spoken on a connection.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::PROXY;
use crate::world::probe::{attempt, refused, tcp};
use crate::world::servers::Service;
use crate::world::{World, at};

everywhere!(
    a_server_name_unlike_the_decided_one_is_refused,
    another_name_is_not_overlooked_behind_unusual_first_bytes,
    the_decided_server_name_passes_however_it_is_cut,
    a_hello_larger_than_any_buffer_is_refused,
    tls_on_port_80_and_plain_text_on_443_are_checked_the_same,
    a_host_header_unlike_the_decided_name_is_refused,
    each_request_of_a_connection_is_decided,
    requests_that_two_parsers_read_differently_are_refused,
    heads_that_never_end_are_bounded,
    a_head_that_comes_too_slowly_is_given_up,
    upgrades_do_not_open_anything,
    socks_offers_connections_and_nothing_else,
    a_redirect_is_a_new_decision,
    another_place_for_the_same_name_is_a_new_decision,
    opaque_octets_to_a_web_port_are_refused_or_carried_but_never_misread,
);

/// `www.example.com` (and others at the same address), whose server takes everything.
fn with_sink(world: &World, port: u16) -> usize {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve(&format!("93.184.216.34:{port}"), Service::Sink)
}

/// A ClientHello of Python's, for a server name or for none.
const HELLO: &str = "
import os, socket, ssl, sys, time
PROXY = ('127.0.0.1', int(os.environ['HTTP_PROXY'].rsplit(':', 1)[1]))
def hello(name):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    try: tls.do_handshake()
    except ssl.SSLWantReadError: pass
    return out.read()
def records(data, size):
    body = data[5:]
    return b''.join(b'\\x16\\x03\\x01' + len(piece).to_bytes(2, 'big') + piece for piece in (body[at:at + size] for at in range(0, len(body), size)))
# Says that the real name is elsewhere, encrypted (ECH): another extension at the end.
def with_ech(data):
    extra = bytes([254, 13]) + (32).to_bytes(2, 'big') + bytes(32)
    at = 5 + 4 + 2 + 32
    at += 1 + data[at]
    at += 2 + int.from_bytes(data[at:at + 2], 'big')
    at += 1 + data[at]
    grown = lambda start, size: (int.from_bytes(data[start:start + size], 'big') + len(extra)).to_bytes(size, 'big')
    return data[:3] + grown(3, 2) + data[5:6] + grown(6, 3) + data[9:at] + grown(at, 2) + data[at + 2:] + extra
def captured():
    return socket.create_connection(('www.example.com', 443), 5)
def tunnel():
    s = socket.create_connection(PROXY, 5)
    s.sendall(b'CONNECT www.example.com:443 HTTP/1.1\\r\\nHost: www.example.com:443\\r\\n\\r\\n')
    assert s.recv(100).startswith(b'HTTP/1.1 200')
    return s
def end(s):
    s.settimeout(3)
    try: return 'closed' if s.recv(100) == b'' else 'data'
    except ConnectionResetError: return 'closed'
    except TimeoutError: return 'open'
def say(s, data, piece=10**6, pause=0):
    try:
        for at in range(0, len(data), piece):
            s.sendall(data[at:at + piece])
            time.sleep(pause)
    except (ConnectionResetError, BrokenPipeError): pass
    return end(s)
";

fn a_server_name_unlike_the_decided_one_is_refused(world: &World) {
    let sink = with_sink(world, 443);
    let script = format!("{HELLO}
for way in [captured, tunnel]:
    for name in ['evil.test', 'www.example.com.evil.test', 'a.www.example.com', 'example.com', None]:
        print(say(way(), hello(name)))
        print(say(way(), hello(name), 1))
        print(say(way(), records(hello(name), 7)))
        print(say(way(), with_ech(hello(name))))
    # As long as what they replace.
    for name in [b'e\\x1b[2J.tt\\n', b'evil\\0test', b'\"}}\\r\\n{{\"v\":']:
        print(say(way(), hello('evil.test').replace(b'evil.test', name)))
");
    for place in world.places() {
        let outcome = world
            .run_in(place)
            .allow("www.example.com")
            .python(&script)
            .ok();
        assert_eq!(outcome.stdout, "closed\n".repeat(46), "{outcome:#?}");
        // Some are no names at all; the harness has looked at what of them is in the log.
        let count = |wanted: &str| {
            let reasons = outcome.reasons();
            reasons.iter().filter(|reason| **reason == wanted).count()
        };
        let refused = (count("denied.name_mismatch"), count("denied.protocol"));
        assert_eq!(refused, (40, 6), "{outcome:#?}");
    }
    assert_eq!(world.server(sink, |sink| sink.bytes()), b"");
}

fn another_name_is_not_overlooked_behind_unusual_first_bytes(world: &World) {
    let sink = with_sink(world, 443);
    let script = format!("{HELLO}
evil = hello('evil.test')
head = b' HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n'
pg = b'\\x00\\x00\\x00\\x08\\x04\\xd2\\x16\\x2f'
table = [
    # Blanks that some servers take for blanks, and a line that is longer than most buffers.
    (b'GET\\x0b/\\x0bHTTP/1.1' + head[9:], 10**6, 0), (b'GET\\x0c/\\x0cHTTP/1.1' + head[9:], 10**6, 0), (b'GET\\xa0/\\xa0HTTP/1.1' + head[9:], 10**6, 0),
    (b'FOO /' + b'a' * 20000 + head, 17000, 0.2), (b'\\r\\nGET /' + b'a' * 20000 + head, 17000, 0.2),
    (b'PROXY TCP4 1.1.1.1 2.2.2.2 1 2\\r\\nGET /' + head, 10**6, 0),
    # TLS whose records have other versions.
    (b'\\x16\\x02\\x03' + evil[3:], 10**6, 0), (b'\\x16\\x00\\x01' + evil[3:], 10**6, 0), (b'\\x16\\x04\\x03' + evil[3:], 10**6, 0),
    # PostgreSQL's request for TLS in front.
    (pg + evil, 10**6, 0), (pg + evil, 8, 0.02),
]
for way in [captured, tunnel]:
    for data, piece, pause in table:
        print(say(way(), data, piece, pause), data[:12])
");
    for place in world.places() {
        let outcome = world
            .run_in(place)
            .allow("www.example.com")
            .within(Duration::from_secs(100))
            .python(&script)
            .ok();
        assert_eq!(outcome.stdout.lines().count(), 22, "{outcome:#?}");
        for line in outcome.stdout.lines() {
            // Where it looks like HTTP, the refusal says so in words.
            assert!(!line.starts_with("open"), "{place:?}: {line}: {outcome:#?}");
        }
        let refused = outcome
            .reasons()
            .iter()
            .filter(|reason| reason.starts_with("denied."))
            .count();
        assert_eq!(refused, 22, "{outcome:#?}");
    }
    let arrived = world.server(sink, |sink| sink.bytes());
    let text = String::from_utf8_lossy(&arrived);
    assert!(!text.contains("evil.test"), "{text}");
}

fn the_decided_server_name_passes_however_it_is_cut(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    let echo = world.serve("93.184.216.34:443", Service::Echo);
    let script = format!("{HELLO}
whole = hello('www.example.com')
for way in [captured, tunnel]:
    for data, piece, pause in [(whole, 10**6, 0), (whole, 1, 0.0005), (records(whole, 5), 10**6, 0), (records(whole, 1), 3, 0), (with_ech(whole), 10**6, 0)]:
        s = way()
        print(say(s, data, piece, pause))
");
    let outcome = world.run().allow("www.example.com").python(&script).ok();
    assert_eq!(outcome.stdout, "data\n".repeat(10), "{outcome:#?}");
    assert_eq!(world.server(echo, |echo| echo.connections()), 10);
}

fn a_hello_larger_than_any_buffer_is_refused(world: &World) {
    let sink = with_sink(world, 443);
    let script = format!("{HELLO}
def big(count):
    body = b'\\x01' + (count).to_bytes(3, 'big') + b'\\x03\\x03' + bytes(count - 2)
    return b''.join(b'\\x16\\x03\\x01' + len(p).to_bytes(2, 'big') + p for p in (body[a:a + 16000] for a in range(0, len(body), 16000)))
for way in [captured, tunnel]:
    print(say(way(), big(200000)))
    print(say(way(), big(2**24 - 1)))
");
    let outcome = world.run().allow("www.example.com").python(&script).ok();
    assert_eq!(outcome.stdout, "closed\n".repeat(4), "{outcome:#?}");
    assert_eq!(world.server(sink, |sink| sink.bytes()), b"");
}

fn tls_on_port_80_and_plain_text_on_443_are_checked_the_same(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    let tls = world.serve("93.184.216.34:80", Service::Sink);
    let plain = world.serve("93.184.216.34:443", Service::Http);
    let script = format!(
        "{HELLO}
print(say(socket.create_connection(('www.example.com', 80)), hello('evil.test')))
s = captured(); print(say(s, b'GET / HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n'))
s = tunnel(); print(say(s, b'GET / HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n'))
"
    );
    let outcome = world.run().allow("www.example.com").python(&script).ok();
    // A plain request is answered (403), the others are closed.
    assert!(!outcome.stdout.contains("open"), "{outcome:#?}");
    assert_eq!(
        outcome
            .reasons()
            .iter()
            .filter(|reason| **reason == "denied.name_mismatch")
            .count(),
        3,
        "{outcome:#?}"
    );
    assert_eq!(world.server(tls, |sink| sink.bytes()), b"");
    assert_eq!(world.server(plain, |server| server.requests().len()), 0);
}

fn a_host_header_unlike_the_decided_name_is_refused(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    let server = world.serve("93.184.216.34:80", Service::Http);
    let request = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
    let heads = [
        "Host: evil.test",
        "Host: www.example.com.evil.test",
        "Host: www.example.com:81",
        "Host: user@www.example.com",
        "Host: www.example.com, evil.test",
        "Host: www.example.com\r\nHost: evil.test",
        "Host: 10.20.0.7",
        "Host: 0x7f.1",
        "Host: 2130706433",
        "Host: [::ffff:127.0.0.1]",
        "Host: www.example.com\nHost: evil.test",
        "X: y",
        "Host:",
        "Host: evil.test\r\nX-Forwarded-Host: www.example.com",
        "Host : evil.test",
        " Host: evil.test",
        "X: y\r\n Host: evil.test\r\nHost: www.example.com",
    ];
    let mut table: Vec<(Value, &str)> = Vec::new();
    for head in heads {
        table.push((
            json!({"try": "tcp", "host": "www.example.com", "port": 80, "send": request(head)}),
            "",
        ));
        table.push((json!({"try": "proxy", "send": "CONNECT www.example.com:80 HTTP/1.1\r\nHost: www.example.com:80\r\n\r\n", "then": request(head)}), ""));
    }
    for place in world.places() {
        let attempts: Vec<_> = table.iter().map(|(attempt, _)| attempt.clone()).collect();
        let (outcome, ends) = attempt(world.run_in(place).allow("www.example.com"), &attempts);
        for (attempt, end) in attempts.iter().zip(&ends) {
            let data = end["data"]
                .as_str()
                .unwrap()
                .replace("HTTP/1.1 200 Connection established\r\n", "");
            assert!(
                !data.contains("HTTP/1.1 200"),
                "{attempt}: {end}\n{outcome:#?}"
            );
            assert_ne!(end["end"], "timeout", "{attempt}: {end}");
        }
    }
    assert_eq!(world.server(server, |server| server.requests().len()), 0);
}

fn each_request_of_a_connection_is_decided(world: &World) {
    world
        .dns
        .answer("www.example.com", &[at::PUBLIC])
        .answer("other.example.com", &[at::PUBLIC2]);
    let server = world.serve("93.184.216.34:80", Service::Http);
    let other = world.serve("151.101.0.81:80", Service::Http);
    let first = "GET http://www.example.com/1 HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
    let (outcome, ends) = attempt(
        world.run().allow("www.example.com"),
        &[
            // keep-alive, through the proxy
            json!({"try": "proxy", "send": first, "then": "GET http://other.example.com/2 HTTP/1.1\r\nHost: other.example.com\r\n\r\n"}),
            // pipelined
            json!({"try": "proxy", "send": format!("{first}GET http://other.example.com/2 HTTP/1.1\r\nHost: other.example.com\r\n\r\n")}),
            // absolute form after origin form, in a tunnel
            json!({"try": "proxy", "send": "CONNECT www.example.com:80 HTTP/1.1\r\nHost: www.example.com:80\r\n\r\n",
                   "then": "GET /1 HTTP/1.1\r\nHost: www.example.com\r\n\r\nGET http://other.example.com/2 HTTP/1.1\r\nHost: other.example.com\r\n\r\n"}),
            // captured: the second request names another host
            json!({"try": "tcp", "host": "www.example.com", "port": 80,
                   "send": "GET /1 HTTP/1.1\r\nHost: www.example.com\r\n\r\nGET /2 HTTP/1.1\r\nHost: other.example.com\r\n\r\n"}),
            // absolute form against the Host
            json!({"try": "proxy", "send": "GET http://www.example.com/3 HTTP/1.1\r\nHost: other.example.com\r\n\r\n"}),
        ],
    );
    for end in &ends[..4] {
        assert!(
            end["data"]
                .as_str()
                .unwrap()
                .contains("GET /1 for www.example.com"),
            "{end} {outcome:#?}"
        );
    }
    assert_eq!(world.server(other, |other| other.connections()), 0);
    let seen = world.server(server, |server| server.requests());
    assert_eq!(
        seen.iter()
            .filter(|request| request.target.contains("/2"))
            .count(),
        0,
        "{seen:#?}"
    );
    assert!(
        seen.iter()
            .all(|request| request.header("host") == Some("www.example.com")),
        "{seen:#?}"
    );
}

fn requests_that_two_parsers_read_differently_are_refused(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    let server = world.serve("93.184.216.34:80", Service::Sink);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    let length = smuggled.len();
    let heads = [
        format!(
            "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{smuggled}"),
        format!("Content-Length: 0, {length}\r\n\r\n{smuggled}"),
        format!("Content-Length: +{length}\r\n\r\n{smuggled}"),
        format!("Content-Length: 0x10\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked,\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        "X: a\r\n b\r\n\r\n".to_owned(),
        "X: a\0b\r\n\r\n".to_owned(),
        "X: a\rb\r\n\r\n".to_owned(),
        format!("X: a\n\n{smuggled}"),
        format!("Content-Length: 0\nTransfer-Encoding: chunked\r\n\r\n{smuggled}"),
        format!("Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n{smuggled}"),
        "X\x01: a\r\n\r\n".to_owned(),
        "Bad Name: a\r\n\r\n".to_owned(),
    ];
    let mut attempts = Vec::new();
    for head in &heads {
        let absolute =
            format!("POST http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n{head}");
        attempts.push(json!({"try": "proxy", "send": absolute}));
    }
    for line in [
        "GET  http://www.example.com/ HTTP/1.1",
        "GET http://www.example.com/ HTTP/1.1 x",
        "GET http://www.example.com/\tx HTTP/1.1",
        "GET http://www.example.com/ HTTP/2.0",
        "GET http://www.example.com/",
        "GET /origin HTTP/1.1",
        "GET * HTTP/1.1",
        "G(T http://www.example.com/ HTTP/1.1",
        "GET https://www.example.com/ HTTP/1.1",
        "GET ftp://www.example.com/ HTTP/1.1",
        "GET www.example.com:80 HTTP/1.1",
        "\0GET http://www.example.com/ HTTP/1.1",
    ] {
        attempts.push(
            json!({"try": "proxy", "send": format!("{line}\r\nHost: www.example.com\r\n\r\n")}),
        );
    }
    let (outcome, ends) = attempt(world.run().allow("www.example.com"), &attempts);
    for (attempt, end) in attempts.iter().zip(&ends) {
        let data = end["data"].as_str().unwrap();
        assert!(
            data.is_empty() || data.starts_with("HTTP/1.1 4"),
            "{attempt}: {end}"
        );
        assert_ne!(end["end"], "timeout", "{attempt}: {end}");
    }
    let bytes = world.server(server, |server| server.bytes());
    assert!(
        bytes.is_empty(),
        "{} {outcome:#?}",
        String::from_utf8_lossy(&bytes)
    );
}

fn heads_that_never_end_are_bounded(world: &World) {
    let sink = with_sink(world, 80);
    let huge = format!(
        "GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\nX: {}\r\n\r\n",
        "a".repeat(200_000)
    );
    let many = format!(
        "GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n{}\r\n",
        "X: y\r\n".repeat(5000)
    );
    let line = format!(
        "GET http://www.example.com/{} HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        "a".repeat(200_000)
    );
    let attempts = [huge, many, line].map(|head| json!({"try": "proxy", "send": head}));
    let (outcome, ends) = attempt(world.run().allow("www.example.com"), &attempts);
    for end in &ends {
        let data = end["data"].as_str().unwrap();
        assert!(data.is_empty() || data.starts_with("HTTP/1.1 4"), "{end}");
    }
    assert_eq!(
        outcome
            .reasons()
            .iter()
            .filter(|reason| **reason == "denied.limit")
            .count(),
        3,
        "{outcome:#?}"
    );
    assert_eq!(world.server(sink, |sink| sink.bytes()), b"");
}

fn a_head_that_comes_too_slowly_is_given_up(world: &World) {
    let sink = with_sink(world, 80);
    let script = format!(
        "{PROXY}
import time
s = socket.create_connection(PROXY)
start = time.time()
try:
    for byte in b'GET http://www.example.com/ HTTP/1.1\\r\\nHost: www.example.com\\r\\nX: ' + b'y' * 1000:
        s.send(bytes([byte]))
        s.settimeout(0.3)
        try:
            if s.recv(1000): break
            break
        except TimeoutError: pass
except OSError: pass
print(time.time() - start < 20)
"
    );
    let outcome = world.run().allow("www.example.com").python(&script).ok();
    assert_eq!(outcome.stdout, "True\n", "{outcome:#?}");
    outcome.decided("denied.limit", "", 0);
    assert_eq!(world.server(sink, |sink| sink.bytes()), b"");
}

fn upgrades_do_not_open_anything(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    let server = world.serve("93.184.216.34:80", Service::Http);
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let tunnel = "CONNECT www.example.com:80 HTTP/1.1\r\nHost: www.example.com:80\r\n\r\n";
    let attempts = [
        json!({"try": "proxy", "send": preface}),
        json!({"try": "proxy", "send": tunnel, "then": "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n"}),
        json!({"try": "proxy", "send": tunnel, "then": "CONNECT www.example.com:80 HTTP/1.1\r\nHost: www.example.com:80\r\n\r\n"}),
        json!({"try": "proxy", "send": tunnel, "then": preface}),
        json!({"try": "tcp", "host": "www.example.com", "port": 80, "send": preface}),
        json!({"try": "proxy", "send": "PROPFIND http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"}),
        json!({"try": "proxy", "send": tunnel, "then": "FOO http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"}),
        json!({"try": "proxy", "send": tunnel, "then": "OPTIONS * HTTP/1.1\r\nHost: evil.test\r\n\r\n"}),
        json!({"try": "proxy", "send": "TRACE http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n"}),
        json!({"try": "proxy", "send": "CONNECT www.example.com:80 HTTP/1.1\r\nHost: www.example.com:80\r\nContent-Length: 5\r\n\r\nhello"}),
    ];
    let (outcome, ends) = attempt(world.run().allow("www.example.com"), &attempts);
    for end in &ends {
        let data = end["data"]
            .as_str()
            .unwrap()
            .replace("HTTP/1.1 200 Connection established\r\n", "");
        assert!(!data.contains("HTTP/1.1 200"), "{end} {outcome:#?}");
    }
    let seen = world.server(server, |server| server.requests());
    assert!(seen.is_empty(), "{seen:#?}");
    // Asked for politely, HTTP/2 is not offered any further.
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let head = "HTTP/1.1\r\nHost: www.example.com\r\n";
    let attempts = [
        json!({"try": "proxy", "send": format!("GET http://www.example.com/ {head}{upgrade}")}),
        json!({"try": "tcp", "host": "www.example.com", "port": 80, "send": format!("GET / {head}{upgrade}")}),
    ];
    let (outcome, ends) = attempt(world.run().allow("www.example.com"), &attempts);
    let answered = |end: &Value| end["data"].as_str().unwrap().starts_with("HTTP/1.1 200");
    assert!(ends.iter().all(answered), "{ends:#?} {outcome:#?}");
    for request in world.server(server, |server| server.requests()) {
        let offered = request
            .header("upgrade")
            .or(request.header("http2-settings"));
        assert!(offered.is_none(), "{request:#?}");
    }
}

fn socks_offers_connections_and_nothing_else(world: &World) {
    let sink = with_sink(world, 80);
    let raw = |bytes: &[u8]| json!({"try": "proxy", "send": bytes.iter().map(|byte| char::from(*byte)).collect::<String>()});
    let name = b"\x03\x0fwww.example.com\x00\x50";
    let request = |head: &[u8]| raw(&[&b"\x05\x01\x00"[..], head, name].concat());
    let attempts = [
        raw(b"\x04\x01\x00\x50\x5d\xb8\xd8\x22user\0"), // SOCKS4
        raw(b"\x04\x01\x00\x50\x00\x00\x00\x01user\0www.example.com\0"), // SOCKS4a
        request(b"\x05\x02\x00"),                       // BIND
        request(b"\x05\x03\x00"),                       // UDP ASSOCIATE
        request(b"\x05\x09\x00"),                       // no command
        request(b"\x04\x01\x00"),                       // another version
        raw(b"\x05\x01\x02"),                           // a password, please
        raw(b"\x05\x00"),                               // no method
        raw(b"\x05\x01\x00\x05\x01\x00\x07abcdef"),     // no such address type
        raw(b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50"), // an empty name
        raw(b"\x05\x01\x00\x05\x01\x00\x03\x03www.example.com\x00\x50"), // a shorter one than there is
        raw(b"\x05\x01\x00\x05\x01\x00\x03\x10www.example.com\x00\x50\x00"), // a longer one
        raw(b"\x05\x01\x00\x05\x01\x00\x03\x0fwww.example.net\x00\x50"), // another name
        raw(b"\x05\x01\x00\x05\x01\x00\x01\x5d\xb8\xd8\x22\x00\x50"),    // an address
    ];
    let attempts = attempts.map(|mut attempt| {
        attempt["wait"] = 2.into();
        attempt
    });
    for place in world.places() {
        let (outcome, ends) = attempt(world.run_in(place).allow("www.example.com"), &attempts);
        for (attempt, end) in attempts.iter().zip(&ends) {
            let data: Vec<u8> = end["data"]
                .as_str()
                .unwrap()
                .chars()
                .map(|c| c as u8)
                .collect();
            let granted = data.len() >= 4 && data[2] == 5 && data[3] == 0;
            assert!(!granted && !data.starts_with(b"\0\x5a"), "{attempt}: {end}");
            assert_ne!(end["end"], "timeout", "{attempt}: {end}");
        }
        outcome.silent();
    }
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

fn a_redirect_is_a_new_decision(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    let table = [
        ("http://evil.test/", "denied.default"),
        ("http://169.254.169.254/latest", "denied.address.metadata"),
        ("http://host.docker.internal/", "denied.host_gateway"),
        ("http://10.20.0.7/", "denied.address.private"),
        ("http://www.example.com:22/", "denied.port"),
    ];
    let follow = |(target, _): (&str, &str)| {
        format!("curl -sSL -o /dev/null -w '%{{http_code}} ' http://www.example.com/to/{target}; ")
    };
    let run = world.run().allow("www.example.com");
    let outcome = run.client(&table.map(follow).concat());
    assert_eq!(outcome.stdout, "403 ".repeat(table.len()), "{outcome:#?}");
    for (target, reason) in table {
        assert!(
            outcome.reasons().contains(&reason),
            "{target}: {outcome:#?}"
        );
    }
    let public: IpAddr = at::PUBLIC.parse().unwrap();
    for packet in &outcome.packets {
        let allowed = packet.source == public || packet.destination == public && packet.port == 80;
        assert!(allowed, "{packet:?}: {outcome:#?}");
    }
}

fn another_place_for_the_same_name_is_a_new_decision(world: &World) {
    world
        .dns
        .answer("www.example.com", &[at::PUBLIC])
        .answer("evil.test", &[at::PUBLIC2]);
    world.serve("93.184.216.34:443", Service::Https(&["www.example.com"]));
    let elsewhere = world.serve("151.101.0.81:443", Service::Https(&["www.example.com"]));
    // What an Alt-Svc field has told an earlier client.
    let script = "
        echo 'h1 www.example.com 443 h1 evil.test 443 \"20991231 10:00:00\" 0 0' > /tmp/alt-svc
        echo 'h1 www.example.com 443 h1 151.101.0.81 443 \"20991231 10:00:00\" 0 0' > /tmp/alt-svc-2
        for cache in /tmp/alt-svc /tmp/alt-svc-2; do
            curl -sS -m 5 --noproxy '*' --alt-svc $cache https://www.example.com/; echo
        done";
    let outcome = world.run().allow("www.example.com").client(script);
    let reasons = outcome.reasons();
    assert!(reasons.contains(&"denied.literal_address"), "{outcome:#?}");
    assert!(!outcome.reached(at::PUBLIC2, 443), "{outcome:#?}");
    assert!(
        outcome
            .queries
            .iter()
            .all(|query| query.name != "evil.test")
    );
    assert_eq!(world.server(elsewhere, |server| server.connections()), 0);
}

fn opaque_octets_to_a_web_port_are_refused_or_carried_but_never_misread(world: &World) {
    let sink = with_sink(world, 443);
    // Not TLS, not HTTP: the destination was decided by name, so it passes, and it is on record.
    let (outcome, _) = attempt(
        world.run().allow("www.example.com"),
        &[tcp("www.example.com", 443)],
    );
    let passed = world.server(sink, |sink| sink.bytes()) == b"hello\n";
    assert_eq!(
        passed,
        outcome.reasons().contains(&"allowed.rule")
            && !outcome.reasons().contains(&"denied.protocol"),
        "{outcome:#?}"
    );
    refused(
        world.run().policy("version: 1\n"),
        &[(tcp(at::PUBLIC, 443), "denied.literal_address")],
    );
}
