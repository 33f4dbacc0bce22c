//! Ways out that only containers have, or that are to be tried in another way there: what comes in with the start, files
//! that name hosts, neighbours and what is published.

use serde_json::json;

use super::world;
use crate::escapes::CALLS;
use crate::escapes::addresses::ALLOW_PUBLIC;
use crate::world::engine::Kind;
use crate::world::images::{TOOLS, TOOLS_MOUNTS};
use crate::world::probe::{attempt, connect, tcp};
use crate::world::servers::Service;
use crate::world::terminal::Terminal;
use crate::world::{World, at};

#[test]
fn files_that_name_hosts_do_not_matter() {
    for kind in Kind::ALL {
        let world = world(kind);
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        let server = world.serve_everywhere(80, Service::Http);
        let clients = [
            "echo '151.101.0.81 www.example.com' >> /etc/hosts; curl -sS -m 5 --noproxy '*' http://www.example.com/",
            "echo 'nameserver 10.20.0.53' > /etc/resolv.conf; curl -sS -m 5 --noproxy '*' http://www.example.net/",
            "echo 'hosts: dns files' > /etc/nsswitch.conf; curl -sS -m 5 --noproxy '*' http://www.example.net/",
        ];
        let script: String = clients
            .map(|client| format!("({client}) 2>/dev/null; echo; echo \"== $?\"\n"))
            .concat();
        let outcome = world
            .run_container()
            .args(&["--user", "0:0"])
            .allow("www.example.com")
            .client(&script);
        let shown = format!("{kind:?}: {outcome:#?}");
        assert!(!outcome.stdout.contains("GET / for"), "{shown}");
        assert_eq!(
            outcome.stdout.matches("== ").count(),
            clients.len(),
            "{shown}"
        );
        outcome.silent();
        assert_eq!(world.server(server, |server| server.connections()), 0);
    }
}

#[test]
fn nothing_that_egret_has_open_comes_in() {
    for kind in Kind::ALL {
        let world = world(kind);
        world.machine.write("/srv/secret", "secret");
        let shell = "exec 7</srv/secret 9<>/dev/null 11</; exec \"$@\"";
        let run = world
            .run_container()
            .through(&["/bin/bash", "-c", shell, "bash"]);
        let outcome = run
            .client("cd /proc/self/fd; for fd in *; do echo $fd $(readlink $fd); done")
            .ok();
        let shown = format!("{kind:?}: {outcome:#?}");
        let numbers: Vec<_> = outcome
            .stdout
            .lines()
            .map(|line| line.split(' ').next())
            .collect();
        assert!(numbers.contains(&Some("2")), "{shown}");
        assert!(
            !outcome.stdout.contains("secret") && !outcome.stdout.contains("socket:"),
            "{shown}"
        );
        for number in ["7", "9", "11"] {
            assert!(!numbers.contains(&Some(number)), "{shown}");
        }
    }
}

#[test]
fn the_terminal_cannot_be_typed_into() {
    let script = format!(
        "{CALLS}
for name, request in [('TIOCSTI', 0x5412), ('TIOCLINUX', 0x541c), ('TIOCSTI with high bits', 0x100005412)]:
    print(name, call(16, 0, request, b'x'))
"
    );
    for kind in Kind::ALL {
        let world = world(kind);
        let run = world.run_container().args(&["--tty"]).log(None);
        let command = run.command(&["/usr/bin/python3", "-c", &script]);
        let mut terminal = Terminal::start(&world, kind.user(), &command);
        for name in ["TIOCSTI ", "TIOCLINUX ", "TIOCSTI with high bits "] {
            terminal.expect(name);
            terminal.expect("E");
        }
        assert_eq!(terminal.end(), Some(0), "{kind:?}");
    }
}

#[test]
fn a_neighbour_its_gateway_and_published_ports_are_out_of_reach() {
    for kind in Kind::ALL {
        let world = world(kind);
        // On loopback, and on an address of the machine that others can reach as well.
        serves(
            &world,
            "neighbour",
            &["-p", "8931:9000", "-p", "192.168.7.2:8932:9000"],
        );
        let own = ["-p", "8941:9000", "-p", "192.168.7.2:8942:9000"];
        let gateway = world.docker(&[
            "inspect",
            "--format",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
            "neighbour-egret-gateway",
        ]);
        let mut attempts = vec![tcp("127.0.0.1", 9000), tcp("neighbour", 9000)];
        let places = [
            "127.0.0.1",
            "172.17.0.1",
            "192.168.7.2",
            "45.33.32.10",
            "10.88.0.1",
            "10.0.2.2",
        ];
        for port in [8931, 8932, 8941, 8942] {
            for address in places.into_iter().chain(gateway.split_whitespace()) {
                attempts.push(tcp(address, port));
                attempts.push(connect(&format!("{address}:{port}")));
            }
            attempts.push(connect(&format!("host.docker.internal:{port}")));
        }
        attempts.extend(gateway.split_whitespace().map(|address| tcp(address, 9000)));
        attempts.push(json!({"try": "unix", "path": "@meeting"}));
        let (outcome, ends) = attempt(
            world.run_container().args(&own).policy(ALLOW_PUBLIC),
            &attempts,
        );
        for (attempt, end) in attempts.iter().zip(&ends) {
            let data = end["data"].as_str().unwrap();
            assert!(
                !data.contains("neighbour here"),
                "{kind:?}: {attempt}: {end}"
            );
            assert_ne!(end["end"], "timeout", "{kind:?}: {attempt}: {end}");
        }
        assert!(outcome.packets.is_empty(), "{kind:?}: {outcome:#?}");
        // It was there.
        let said = world
            .machine
            .sh("curl -sS -m 5 telnet://192.168.7.2:8932 </dev/null");
        assert!(said.contains("neighbour here"), "{kind:?}: {said}");
        world
            .egret(kind.user(), &["rm", "--force", "neighbour"])
            .ok();
    }
}

#[test]
fn what_is_started_in_it_later_is_confined_like_the_first() {
    for kind in Kind::ALL {
        let world = world(kind);
        let program = kind.program();
        let show = "grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups)' /proc/self/status; ls -l /proc/self/ns | sed 's/.* //'";
        let mut args = vec!["run", "--engine", program, "--detach", "--name", "box"];
        args.extend(TOOLS_MOUNTS);
        let first = format!("{{ {show}; }} > /tmp/first; sleep 1000");
        args.extend([TOOLS.name, "/bin/sh", "-c", &first]);
        world.egret(kind.user(), &args).ok();
        let run = |with: &[&str]| {
            let later = format!(
                "until [ -s /tmp/first ]; do sleep 0.1; done; sleep 0.2; cat /tmp/first; echo ==; {show}"
            );
            let words = [
                &["exec", "--engine", program],
                with,
                &["box", "/bin/sh", "-c", &later],
            ]
            .concat();
            world.egret(kind.user(), &words)
        };
        let outcome = run(&[]).ok();
        let (first, later) = outcome.stdout.split_once("==\n").unwrap();
        assert!(
            first.contains("NoNewPrivs:\t1") && first.contains("Seccomp:\t2"),
            "{kind:?}: {first}"
        );
        assert_eq!(first, later, "{kind:?}");
        // Nor does the engine's option for more come through.
        let more = run(&["--privileged"]);
        assert_eq!(
            (more.code(), &*more.stdout),
            (125, ""),
            "{kind:?}: {more:#?}"
        );
        world.egret(kind.user(), &["rm", "--force", "box"]).ok();
    }
}

#[test]
fn what_one_program_may_no_program_of_a_container_may() {
    for kind in Kind::ALL {
        let world = world(kind);
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        let server = world.serve_everywhere(80, Service::Http);
        let entry = "- {host: www.example.com, by: [/usr/bin/curl]}";
        for (policy, reason) in [
            (
                format!("version: 1\nallow:\n{entry}\n"),
                "denied.executable",
            ),
            (
                format!("version: 1\nallow: [www.example.com]\ndeny:\n{entry}\n"),
                "denied.rule",
            ),
        ] {
            let outcome = world
                .run_container()
                .policy(&policy)
                .client("curl -sS -m 5 http://www.example.com/; true");
            assert!(!outcome.stdout.contains("GET /"), "{kind:?}: {outcome:#?}");
            assert!(
                outcome.reasons().contains(&reason),
                "{kind:?}: {outcome:#?}"
            );
            outcome.silent();
        }
        assert_eq!(world.server(server, |server| server.connections()), 0);
    }
}

/// A sandbox in the background that says who it is to whoever connects to its port 9000.
#[track_caller]
fn serves(world: &World, name: &str, options: &[&str]) {
    let kind = world.engine();
    let server = "
import socket
abstract = socket.socket(socket.AF_UNIX); abstract.bind('\\0meeting'); abstract.listen()
listener = socket.create_server(('', 9000))
while True:
    client, _ = listener.accept()
    client.sendall(b'neighbour here\\n'); client.close()
";
    let mut args = vec![
        "run",
        "--engine",
        kind.program(),
        "--detach",
        "--name",
        name,
    ];
    args.extend(options);
    args.extend(TOOLS_MOUNTS);
    args.extend([TOOLS.name, "/usr/bin/python3", "-c", server]);
    world.egret(kind.user(), &args).ok();
}
