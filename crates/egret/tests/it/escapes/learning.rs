//! Class 34: a run that is to be learnt from, and knows it. What is written opens neither the machine nor what is not public,
//! marks what a person should look at, and has nothing in it that the program said in its own words.

use crate::world::servers::Service;
use crate::world::{World, at};

everywhere!(what_a_hostile_run_teaches_opens_nothing_of_the_machine);

/// Asks for names that are public, private, made up and no names, and floods.
const HOSTILE: &str = "
import os, socket
PROXY = ('127.0.0.1', int(os.environ['HTTP_PROXY'].rsplit(':', 1)[1]))
def connect(host, port):
    try:
        with socket.create_connection(PROXY, 10) as s:
            s.sendall(b'CONNECT %s:%s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' % (host, port))
            head = s.recv(4000)
            if b' 200 ' in head:
                s.sendall(b'hello\\n')
                s.recv(10)
    except OSError:
        pass
for host in [b'host.docker.internal', b'host.containers.internal', b'HOST.docker.internal.', b'172.17.0.1', b'192.168.7.2', b'10.20.0.7',
             b'inside.example.com', b'rebound.example.com', b'169.254.169.254', b'metadata.google.internal', b'localhost', b'127.1', b'[::1]',
             b'[::ffff:169.254.169.254]', b'[64:ff9b::a9fe:a9fe]', b'0x0a140007', b'198.18.0.1',
             b'a\\x1b[2J.example.com', b'a.example.com#x', b\"'- x: [\", b'\\xe2\\x80\\xae.example.com', b'*.example.com', b'**']:
    for port in (b'80', b'443', b'8080', b'007', b'22,\\n- evil'):
        connect(host, port)
connect(b'93.184.216.34', b'7000')
connect(b'once.example.com', b'7000')
for n in range(60):
    connect(b'x%d-0123456789abcdef0123.flood.example.com' % n, b'7000')
for n in range(2):
    connect(b'used.example.com', b'443')
";

fn what_a_hostile_run_teaches_opens_nothing_of_the_machine(world: &World) {
    for name in ["once.example.com", "used.example.com"] {
        world.dns.answer(name, &[at::PUBLIC]);
    }
    world.dns.answer("inside.example.com", &[at::PRIVATE]);
    world
        .dns
        .answer("rebound.example.com", &[at::PUBLIC, "127.0.0.1"]);
    for n in 0..60 {
        world.dns.answer(
            &format!("x{n}-0123456789abcdef0123.flood.example.com"),
            &[at::PUBLIC],
        );
    }
    world.serve(&format!("{}:7000", at::PUBLIC), Service::Echo);
    world.serve(&format!("{}:443", at::PUBLIC), Service::Echo);
    let machine = world.serve_on_machine(8080, Service::Http);
    for port in [80, 443, 8080] {
        world.serve(&format!("{}:{port}", at::PRIVATE), Service::Echo);
        world.serve(&format!("{}:{port}", at::METADATA), Service::Echo);
    }
    for place in world.places() {
        let user = place.user();
        let path = format!("{}/learnt.yaml", user.home());
        let run = world.run_in(place).args(&["--learn", &path]);
        let outcome = run
            .within(std::time::Duration::from_secs(100))
            .python(HOSTILE)
            .ok();
        for address in [at::PRIVATE, at::METADATA, "192.168.7.2", "172.17.0.1"] {
            assert!(
                [22, 80, 443, 8080]
                    .iter()
                    .all(|port| !outcome.reached(address, *port)),
                "{address}: {outcome:#?}"
            );
        }
        assert_eq!(world.server(machine, |server| server.connections()), 0);

        let policy = world.machine.read(&path);
        world.egret(user, &["policy", "test", &path]).ok();
        assert!(
            !policy.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'),
            "{policy}"
        );
        let (_, allow) = policy.split_once("allow:\n").unwrap();
        let lines: Vec<&str> = allow
            .lines()
            .map_while(|line| (!line.is_empty()).then(|| line.trim()))
            .collect();
        let entries: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("- ")?.split(' ').next())
            .collect();
        assert_eq!(
            entries,
            [
                "once.example.com:7000",
                "used.example.com:443",
                "93.184.216.34:7000"
            ],
            "{policy}"
        );
        // What a person should look at is marked, and what is not has no mark.
        let marks = |entry: &str| {
            let at = lines
                .iter()
                .position(|line| line.starts_with(&format!("- {entry}")))
                .unwrap();
            let above = lines[..at].iter().rposition(|line| !line.starts_with('#'));
            lines[above.map_or(0, |above| above + 1)..at].join(" ")
        };
        assert!(
            marks("once.example.com").contains("only one connection"),
            "{policy}"
        );
        assert!(
            marks("once.example.com").contains("7000 is an unusual port"),
            "{policy}"
        );
        assert!(
            marks("93.184.216.34").contains("a literal address"),
            "{policy}"
        );
        assert_eq!(marks("used.example.com"), "", "{policy}");
        let told = policy.replace("\n#  ", "");
        for part in [
            "60 names under flood.example.com were reached",
            "host.docker.internal:8080 was refused",
            "10.20.0.7:80 was refused",
            "169.254.169.254:80 was refused",
        ] {
            assert!(told.contains(part), "{part}: {policy}");
        }
        for to in [
            "host.docker.internal:8080",
            "172.17.0.1:8080",
            "192.168.7.2:80",
            "10.20.0.7:80",
            "169.254.169.254:80",
            "stranger.example.com:443",
        ] {
            let explained = world.egret(user, &["policy", "explain", &path, to]);
            assert_eq!(explained.code(), 1, "{to}: {explained:#?}");
        }
    }
}
