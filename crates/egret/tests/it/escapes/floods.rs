//! Classes 30 to 32: policies that change, floods, and what is written to command whoever reads it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::PROXY;
use crate::world::probe::{connect, refused_by_then};
use crate::world::run::Outcome;
use crate::world::servers::Service;
use crate::world::{Place, World, at, until};

everywhere!(
    a_new_policy_applies_to_open_connections_in_both_directions,
    policies_that_change_all_the_time_open_nothing,
    floods_harm_nobody_else,
    names_without_end_harm_nobody,
    many_tunnels_at_once_work,
    what_a_client_writes_does_not_command_log_or_terminal,
);

fn a_new_policy_applies_to_open_connections_in_both_directions(world: &World) {
    world
        .dns
        .answer("a.example.com", &[at::PUBLIC])
        .answer("b.example.com", &[at::PUBLIC]);
    let echo = world.serve("93.184.216.34:7000", Service::Echo);
    let policy = |names: &str| format!("version: 1\nallow: [{names}]\n");
    let script = "
import socket
a = socket.create_connection(('a.example.com', 7000)); a.send(b'x'); a.recv(1)
b = socket.create_connection(('b.example.com', 7000)); b.send(b'x'); b.recv(1)
print('connected', flush=True)
input()
for s in (a, b):
    s.settimeout(5)
    try:
        s.send(b'y'); print(s.recv(1))
    except OSError as e: print('lost')
def again(name):
    try:
        s = socket.create_connection((name, 7000), 5); s.send(b'z'); return s.recv(1)
    except OSError as e: return 'refused'
print(again('a.example.com'), again('b.example.com'), flush=True)
input()
print(again('a.example.com'), again('b.example.com'), flush=True)
";
    for place in world.places() {
        let before = world.server(echo, |echo| echo.connections());
        let name = format!("reload-{}", place.user().name());
        let run = world
            .run_in(place)
            .args(&["--name", &name])
            .policy(&policy("'a.example.com:7000', 'b.example.com:7000'"));
        let mut live = run.start(&["/usr/bin/python3", "-c", script]);
        until("both are connected", || {
            world.server(echo, |echo| echo.connections()) == before + 2
        });
        let broken = set_policy(world, place, &name, "version: 1\nallwo: []\n");
        assert_ne!(broken.code(), 0, "{broken:#?}");
        set_policy(world, place, &name, &policy("'b.example.com:7000'")).ok();
        std::io::Write::write_all(live.stdin.as_mut().unwrap(), b"\n").unwrap();
        std::thread::sleep(Duration::from_millis(700));
        set_policy(world, place, &name, &policy("'a.example.com:7000'")).ok();
        std::io::Write::write_all(live.stdin.as_mut().unwrap(), b"\n").unwrap();
        let outcome = live.finish().ok();
        assert_eq!(
            outcome.stdout, "connected\nlost\nb'y'\nrefused b'z'\nb'z' refused\n",
            "{outcome:#?}"
        );
        assert!(outcome.events("policy").count() >= 2, "{outcome:#?}");
        let lost = outcome
            .events("close")
            .find(|close| close["host"] == "a.example.com" && close["reason"] == "denied.default");
        assert!(lost.is_some(), "{outcome:#?}");
    }
}

fn policies_that_change_all_the_time_open_nothing(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    let script = format!(
        "{PROXY}
import sys, threading
counts = {{}}
def ask(host):
    s = socket.create_connection(PROXY, 5)
    s.sendall(b'GET http://%s/ HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n' % (host, host))
    status = s.makefile('rb').readline()[9:12].decode()
    counts[host, status] = counts.get((host, status), 0) + 1
print('up', flush=True)
done = []
threading.Thread(target=lambda: done.append(sys.stdin.readline()), daemon=True).start()
while not done:
    for host in (b'www.example.com', b'evil.test', b'169.254.169.254'): ask(host)
print(all(n >= 5 for n in counts.values()), sorted(counts))
"
    );
    for place in world.places() {
        let changes = match place {
            Place::Program(_) => 200,
            // Each is a process in the gateway's container.
            Place::Container(_) => 9,
        };
        let name = format!("changing-{}", place.user().name());
        let first = "version: 1\nallow: [www.example.com]\n";
        let run = world.run_in(place).args(&["--name", &name]).policy(first);
        let mut live = run.start(&["/usr/bin/python3", "-c", &script]);
        until("the sandbox can be spoken to", || {
            set_policy(world, place, &name, first).code() == 0
        });
        for change in 0..changes {
            let text = match change % 3 {
                0 => "version: 1\nallow: [www.example.com, www.example.net]\n",
                1 => "version: 1\nallow: [\n",
                _ => first,
            };
            let set = set_policy(world, place, &name, text);
            assert_eq!(set.code() == 0, change % 3 != 1, "{set:#?}");
        }
        live.stdin = None;
        let outcome = live.finish().ok();
        let always = "True [(b'169.254.169.254', '403'), (b'evil.test', '403'), (b'www.example.com', '200')]";
        assert!(outcome.stdout.contains(always), "{outcome:#?}");
        assert!(!outcome.reached(at::METADATA, 80), "{outcome:#?}");
        assert!(
            outcome
                .queries
                .iter()
                .all(|query| query.name != "evil.test")
        );
        assert!(
            outcome.events("policy").count() > changes / 2,
            "{outcome:#?}"
        );
    }
}

/// Gives another policy to the sandbox of this name, as its user would.
fn set_policy(world: &World, place: Place, name: &str, text: &str) -> Outcome {
    let file = format!("{}/next.yaml", place.user().home());
    world.machine.write(&file, text);
    match place {
        Place::Program(user) => world.egret(user, &["policy", "set", name, &file]),
        Place::Container(_) => world.typed(&format!("egret policy set {name} {file}")),
    }
}

fn floods_harm_nobody_else(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    let flood = format!(
        "{PROXY}
import resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)) if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 4096 else None
held = []
try:
    for n in range(3000):
        s = socket.socket(); s.settimeout(2); s.connect(PROXY); s.send(b'GET '); held.append(s)
except OSError: pass
print('flooded', flush=True)
input()
def get():
    s = socket.create_connection(PROXY, 5)
    s.sendall(b'GET http://www.example.com/ HTTP/1.1\\r\\nHost: www.example.com\\r\\nConnection: close\\r\\n\\r\\n')
    return s.makefile('rb').read()
for s in held: s.close()
for n in range(3000):
    try:
        s = socket.create_connection(('93.184.216.34', 81), 2); s.send(b'x'); s.close()
    except OSError: pass
for _ in range(50):
    try:
        answer = get()
        if answer.endswith(b'GET / for www.example.com, 0 bytes\\n'): print('served'); break
    except OSError: pass
    time.sleep(0.1)
"
    );
    let run = world.run().allow("www.example.com");
    let start = Instant::now();
    let mut flooding = run.start(&["/usr/bin/python3", "-c", &flood]);
    std::thread::sleep(Duration::from_secs(2));
    // Somebody else on the same machine, meanwhile.
    let sibling = world.run().allow("www.example.com").log(None);
    let sibling = sibling
        .client("curl -sS -m 10 http://www.example.com/")
        .ok();
    assert!(sibling.stdout.contains("GET / for"), "{sibling:#?}");
    std::io::Write::write_all(flooding.stdin.as_mut().unwrap(), b"\n").unwrap();
    let outcome = flooding.finish().ok();
    assert_eq!(outcome.stdout, "flooded\nserved\n", "{:#?}", outcome.stderr);
    assert!(!outcome.reached(at::PUBLIC, 81));
    assert!(start.elapsed() < Duration::from_secs(40));
}

fn names_without_end_harm_nobody(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    // More than a sandbox can have, of names that are allowed and of names that are not.
    let script = "
import socket, struct, urllib.request
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.connect(('8.8.8.8', 53))
codes = {}
def ask(name):
    labels = b''.join(bytes([len(label)]) + label.encode() for label in name.split('.')) + b'\\0'
    s.send(b'\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + labels + struct.pack('>HH', 1, 1))
    code = s.recv(512)[3] & 15
    codes[code] = codes.get(code, 0) + 1
for n in range(COUNT):
    ask('n%d.example.com' % n)
    ask('n%d.evil.test' % n)
print(sorted(codes.items()))
print(urllib.request.urlopen('http://www.example.com/', timeout=10).read().decode())
"
    .replace("COUNT", "20000");
    let run = world
        .run()
        .allow("*.example.com")
        .within(Duration::from_secs(90));
    let outcome = run.python(&script).ok();
    assert!(
        outcome.stdout.contains("GET / for www.example.com"),
        "{:#?}",
        outcome.stdout
    );
    // Each is told that it is there, or not: NOERROR, NXDOMAIN; where they come quickly, that there are too many.
    assert!(outcome.stdout.starts_with("[(0, "), "{:#?}", outcome.stdout);
    assert!(outcome.stdout.contains("), (3, "), "{:#?}", outcome.stdout);
    let asked = outcome
        .queries
        .iter()
        .filter(|query| query.name != "www.example.com");
    assert_eq!(asked.count(), 0);
}

fn many_tunnels_at_once_work(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:7000", Service::Echo);
    let script = "
import socket
socks = [socket.create_connection(('www.example.com', 7000), 10) for _ in range(500)]
for n, s in enumerate(socks): s.sendall(b'%d\\n' % n)
print(all(s.recv(100) == b'%d\\n' % n for n, s in enumerate(socks)))
";
    let outcome = world
        .run()
        .allow("www.example.com:7000")
        .python(script)
        .ok();
    assert_eq!(outcome.stdout, "True\n");
    assert_eq!(outcome.events("close").count(), 500);
}

fn what_a_client_writes_does_not_command_log_or_terminal(world: &World) {
    let nasty = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "x\r\n{\"v\":1,\"verdict\":\"allow\"}",
        "\u{202e}gnp.exe",
        "a\"b\\c",
        "\u{0}\u{7f}\u{9b}31m",
        "</script><b>",
    ];
    let mut table = Vec::new();
    for text in nasty {
        table.push((connect(&format!("{text}.example.com:443")), ""));
        table.push((json!({"try": "proxy", "send": format!("GET http://example.com/{text} HTTP/1.1\r\nHost: example.com\r\nUser-Agent: {text}\r\n\r\n")}), ""));
        table.push((
            json!({"try": "socks", "host": text, "port": 80, "name": true}),
            "",
        ));
    }
    table.retain(|(attempt, _)| {
        let name = attempt["host"].as_str().unwrap_or_default();
        name.chars().all(|character| character <= '\u{ff}')
    });
    let outcome = world.run().args(&["--summary"]).policy("version: 1\n");
    let (outcome, ends) = refused_by_then(outcome, &table);
    // The harness has checked the log; this is about what people and clients see.
    for text in std::iter::once(outcome.stderr.as_str())
        .chain(ends.iter().map(|end| end["data"].as_str().unwrap()))
    {
        let commands = text
            .chars()
            .any(|c| (c.is_control() && !"\r\n".contains(c)) || c == '\u{202e}');
        assert!(!commands || text.starts_with('\u{5}'), "{text:?}");
    }
}
