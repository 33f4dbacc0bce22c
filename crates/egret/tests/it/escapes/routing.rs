//! Classes 1 to 5 and 9 to 12: routing, what a process has from outside, and Egret's own surface. [`super::kernel`] has the
//! rest of them, and `containers` what is otherwise there.

use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use super::{CALLS, all_fail};
use crate::world::probe::{attempt, connect, dns, forward, refused, tcp};
use crate::world::servers::Service;
use crate::world::{HOST_ADDRESSES, Place, User, World, at};

everywhere!(
    proxy_variables_do_not_matter,
    no_port_of_any_address_is_open,
    another_address_for_an_allowed_name_is_another_destination,
    a_relay_inside_gains_nothing,
    egrets_own_ports_are_no_way_out,
    the_first_instruction_finds_the_seal_closed,
);

fn proxy_variables_do_not_matter(world: &World) {
    world.serve_everywhere(80, Service::Http);
    let clients = [
        "curl -sS --noproxy '*' http://93.184.216.34/1",
        "NO_PROXY='*' no_proxy='*' curl -sS http://93.184.216.34/2",
        "http_proxy=http://93.184.216.34:80 curl -sS http://www.example.com/3",
        "env -i /usr/bin/curl -sS http://93.184.216.34/4",
        "curl -sS --proxy socks5://93.184.216.34:80 http://www.example.com/5",
    ];
    let script = clients.map(|client| format!("{client}; echo\n")).concat();
    for place in world.places() {
        let outcome = world.run_in(place).client(&script);
        assert!(!outcome.stdout.contains("GET /"), "{outcome:#?}");
        outcome.silent();
        let refused = outcome.reasons();
        let refused = refused
            .iter()
            .filter(|reason| **reason == "denied.literal_address");
        assert_eq!(refused.count(), clients.len(), "{place:?}: {outcome:#?}");
    }
}

fn no_port_of_any_address_is_open(world: &World) {
    let sinks = [22, 25, 443, 8080].map(|port| world.serve_everywhere(port, Service::Sink));
    let mut table = Vec::new();
    for port in [1, 22, 25, 443, 8080, 61079, 65535] {
        table.push((tcp(at::PUBLIC, port), "denied.literal_address"));
        table.push((tcp(at::PUBLIC6, port), "denied.literal_address"));
        table.push((tcp(at::PRIVATE, port), "denied.address.private"));
    }
    for place in world.places() {
        refused(world.run_in(place), &table);
    }
    for sink in sinks {
        assert_eq!(world.server(sink, |sink| sink.connections()), 0);
    }
}

fn another_address_for_an_allowed_name_is_another_destination(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    let elsewhere = world.serve("151.101.0.81:80", Service::Http);
    let clients = [
        "curl -sS --noproxy '*' --resolve www.example.com:80:151.101.0.81 http://www.example.com/",
        "curl -sS --noproxy '*' --connect-to www.example.com:80:151.101.0.81:80 http://www.example.com/",
        "curl -sS -p --connect-to www.example.com:80:151.101.0.81:80 http://www.example.com/",
    ];
    for place in world.places() {
        let run = world.run_in(place).allow("www.example.com");
        let outcome = run.client(&clients.join("; "));
        let refused = outcome.silent().events("decision").filter(|record| {
            record["reason"] == "denied.literal_address" && record["host"] == at::PUBLIC2
        });
        assert_eq!(refused.count(), clients.len(), "{place:?}: {outcome:#?}");
    }
    assert_eq!(world.server(elsewhere, |server| server.connections()), 0);
}

#[test]
fn an_address_that_the_machine_gets_meanwhile_is_the_host_at_once() {
    let world = World::new();
    for user in User::ALL {
        let live = world.run_as(user).allow("151.101.0.99:80").start(&[
            "sh",
            "-c",
            "read line; curl -sS -m 5 http://151.101.0.99/",
        ]);
        // Until it runs; what was there before would be no news.
        sleep(Duration::from_secs(1));
        world.machine.ip("address add 151.101.0.99/32 dev lo");
        let listener = world.machine.listen("151.101.0.99:80".parse().unwrap());
        listener.set_nonblocking(true).unwrap();
        let outcome = live.finish();
        world.machine.ip("address del 151.101.0.99/32 dev lo");
        outcome.decided("denied.host_gateway", "151.101.0.99", 80);
        assert!(listener.accept().is_err(), "{user:?}: it was dialled");
    }
}

fn a_relay_inside_gains_nothing(world: &World) {
    let script = "
import socket, threading
def relay(listener):
    client, _ = listener.accept()
    out = socket.create_connection(('93.184.216.34', 80))
    out.sendall(client.recv(100))
    try: client.sendall(out.recv(100))
    except OSError: pass
    client.close()
listener = socket.create_server(('127.0.0.1', 9000))
threading.Thread(target=relay, args=(listener,)).start()
s = socket.create_connection(('127.0.0.1', 9000))
s.sendall(b'hello')
print(s.recv(100))
";
    let outcome = world.run().python(script).ok();
    assert_eq!(outcome.stdout, "b''\n");
    outcome
        .silent()
        .decided("denied.literal_address", at::PUBLIC, 80);
}

#[test]
fn the_host_is_out_of_reach_at_all_its_addresses_and_ports() {
    let world = World::new();
    let sinks =
        [22, 80, 2375, 61080, 61081, 61053].map(|port| world.serve_on_machine(port, Service::Sink));
    world
        .machine
        .sh("ip link set docker0 type bridge stp_state 0");
    let mut table = Vec::new();
    for address in HOST_ADDRESSES {
        for port in [22, 80, 2375, 61080, 61081, 61053] {
            table.push((tcp(address, port), "denied.host_gateway"));
        }
    }
    for user in User::ALL {
        refused(
            world
                .run_as(user)
                .policy("version: 1\ndefault: allow-public\n"),
            &table,
        );
        let linklocal = world
            .machine
            .sh("ip -o -6 address show dev wan0 scope link | sed 's,.*inet6 \\([^/]*\\).*,\\1,'");
        let outcome = refused(
            world
                .run_as(user)
                .policy("version: 1\ndefault: allow-public\n"),
            &[
                (connect(&format!("[{}]:22", linklocal.trim())), ""),
                (
                    connect(&format!("[{}%25lo]:22", linklocal.trim())),
                    "denied.malformed",
                ),
            ],
        );
        assert!(
            outcome
                .reasons()
                .iter()
                .all(|reason| reason.starts_with("denied.")),
            "{outcome:#?}"
        );
    }
    for sink in sinks {
        assert_eq!(world.server(sink, |sink| sink.connections()), 0);
    }
}

fn egrets_own_ports_are_no_way_out(world: &World) {
    // Straight to the listener that redirected connections arrive at: it must neither loop nor answer.
    let straight =
        |host: &str| json!({"try": "tcp", "host": host, "port": "{capture}", "send": "hello\n"});
    let table = [
        (straight("127.0.0.1"), "denied.malformed"),
        (straight("::1"), "denied.malformed"),
        (connect("127.0.0.1:{capture}"), "denied.address.loopback"),
        (connect("127.0.0.1:{proxy}"), "denied.address.loopback"),
        (connect("localhost:{proxy}"), "denied.address.loopback"),
        (
            json!({"try": "socks", "host": "::1", "port": "{proxy}", "send": "hello\n"}),
            "denied.address.loopback",
        ),
        (
            forward("http://127.0.0.1:{dns}/"),
            "denied.address.loopback",
        ),
    ];
    for place in world.places() {
        let run = world.run_in(place).args(&["--allow-docker-gateway=80"]);
        refused(run, &table);
    }
}

#[test]
fn a_neighbour_is_out_of_reach() {
    let world = World::new();
    let mut neighbour = world
        .run_as(User::Alice)
        .log(Some("/home/alice/neighbour.jsonl"))
        .args(&["--name", "neighbour"])
        .start(&[
            "/usr/bin/python3",
            "-c",
            "
import socket
sock = socket.create_server(('', 9000))
abstract = socket.socket(socket.AF_UNIX)
abstract.bind('\\0meeting')
abstract.listen()
print('up', flush=True)
input()
",
        ]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    let attempts = [
        tcp("127.0.0.1", 9000),
        tcp("198.18.0.1", 9000),
        json!({"try": "unix", "path": "@meeting"}),
        json!({"try": "unix", "path": "@egret/12345/neighbour"}),
        json!({"try": "unix", "path": "@egret/0/neighbour"}),
    ];
    let (outcome, ends) = attempt(world.run_as(User::Alice), &attempts);
    for (attempt, end) in attempts.iter().zip(&ends) {
        assert!(
            ["ECONNREFUSED", "reset", "closed"].contains(&end["end"].as_str().unwrap()),
            "{attempt}: {end}"
        );
        assert_eq!(end["data"], "");
    }
    assert_eq!(outcome.packets, []);
    assert!(
        neighbour.child.try_wait().unwrap().is_none(),
        "the neighbour was not there"
    );
    neighbour.stdin = None;
    assert!(neighbour.finish().stdout.contains("up"));
}

#[test]
fn no_descriptor_is_inherited() {
    let world = World::new();
    world.machine.write("/srv/secret", "secret");
    for user in User::ALL {
        let shell = "exec 7</srv/secret 9<>/dev/null; exec \"$@\"";
        let outcome = world
            .run_as(user)
            .through(&["/bin/bash", "-c", shell, "bash"]);
        let outcome = outcome.client("ls -l /proc/self/fd | grep -v -e ' 0 -> ' -e ' 1 -> ' -e ' 2 -> '; ls /proc/self/fd | wc -l").ok();
        assert!(!outcome.stdout.contains("secret"), "{outcome:#?}");
        assert!(outcome.stdout.trim().ends_with('4'), "{outcome:#?}");
        assert!(!outcome.stdout.contains("socket:"), "{outcome:#?}");
    }
}

#[test]
fn processes_outside_do_not_exist() {
    let world = World::new();
    for user in User::ALL {
        let words = ["/bin/sleep", "4242"].map(str::to_owned);
        let mut outsider = world
            .machine
            .spawn(world.command_as(user, "/", &[], &words))
            .unwrap();
        let script = "
pids = sorted(int(p) for p in os.listdir('/proc') if p.isdigit())
print('pids', len(pids), 'E' if len(pids) <= 3 else 'ok')
names = [open('/proc/%d/cmdline' % p).read() for p in pids]
print('outsider', 'ok' if any(n.startswith('/bin/sleep') for n in names) else 'E')
print('egret fds', attempt(lambda: os.readlink('/proc/1/fd/0')))
print('egret environ', attempt(lambda: open('/proc/1/environ').read()))
print('egret mem', attempt(lambda: open('/proc/1/mem')))
print('egret root', attempt(lambda: os.listdir('/proc/1/root')))
print('egret cwd', attempt(lambda: os.listdir('/proc/1/cwd/')))
print('ptrace', call(101, 16, 1, 0, 0))
print('seize', call(101, 0x4206, 1, 0, 0))
local = ctypes.create_string_buffer(8)
vector = ctypes.create_string_buffer(struct.pack('=QQ', ctypes.addressof(local), 8))
print('process_vm_readv', call(310, 1, vector, 1, vector, 1, 0))
print('pidfd_getfd', call(438, libc.syscall(434, 1, 0), 0, 0))
attempt(lambda: os.kill(1, 9))
print('alive', 'E')
";
        all_fail(&world, Place::Program(user), script, 12);
        assert!(outsider.try_wait().unwrap().is_none());
        outsider.kill().unwrap();
        outsider.wait().unwrap();
    }
}

#[test]
fn the_terminal_cannot_be_typed_into() {
    let world = World::new();
    let script = format!("{CALLS}
import fcntl
for name, request in [('TIOCSTI', 0x5412), ('TIOCLINUX', 0x541c), ('TIOCSTI with high bits', 0x100005412)]:
    print(name, call(16, 0, request, b'x'))
");
    for user in User::ALL {
        let run = world.run_as(user).log(None);
        let command = run.command(&["/usr/bin/python3", "-c", &script]);
        let mut terminal = crate::world::terminal::Terminal::start(&world, user, &command);
        for name in ["TIOCSTI ", "TIOCLINUX ", "TIOCSTI with high bits "] {
            terminal.expect(name);
            terminal.expect("E");
        }
        assert_eq!(terminal.end(), Some(0));
    }
}

#[test]
fn unix_sockets_of_the_host_are_not_there() {
    let world = World::new();
    let paths = [
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
        "/run/dbus/system_bus_socket",
        "/run/user/12345/bus",
        "/run/user/0/bus",
        "/run/systemd/private",
        "/run/nscd/socket",
        "/tmp/.X11-unix/X0",
        "/run/user/12345/gnupg/S.gpg-agent",
        "/run/systemd/resolve/io.systemd.Resolve",
        "/tmp/ssh-x/agent.1",
    ];
    // The listener is the machine's; whoever connects is heard.
    let script = format!(
        "import socket, os, time\nsocks = []\nfor path in {paths:?} + ['\\0abstract']:\n    if path[0] == '/': os.makedirs(os.path.dirname(path), exist_ok=True)\n    \
         s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(); socks.append(s)\n    if path[0] == '/': os.chmod(path, 0o777)\n\
         open('/srv/ready', 'w')\ntime.sleep(1000)"
    );
    let words = ["/usr/bin/python3".to_owned(), "-c".to_owned(), script];
    let mut server = world
        .machine
        .spawn(world.command_as(User::Root, "/", &[], &words))
        .unwrap();
    while !world.machine.path("/srv/ready").exists() {
        assert!(server.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    world.machine.sh("ln -s /run/docker.sock /home/alice/project/docker.sock; ln -s /run/docker.sock /root/project/docker.sock");
    let mut attempts: Vec<_> = paths
        .iter()
        .map(|path| json!({"try": "unix", "path": path}))
        .collect();
    attempts.extend(
        [
            "@abstract",
            "docker.sock",
            "/var/run/docker.sock",
            "@/tmp/.X11-unix/X0",
        ]
        .map(|path| json!({"try": "unix", "path": path})),
    );
    for user in User::ALL {
        let (_, ends) = attempt(world.run_as(user), &attempts);
        for (attempt, end) in attempts.iter().zip(&ends) {
            assert!(
                ["ENOENT", "ECONNREFUSED", "EACCES"].contains(&end["end"].as_str().unwrap()),
                "{user:?}: {attempt}: {end}"
            );
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

fn the_first_instruction_finds_the_seal_closed(world: &World) {
    world.serve_everywhere(80, Service::Sink);
    for place in world.places() {
        for _ in 0..3 {
            refused(
                world.run_in(place),
                &[
                    (tcp(at::PUBLIC, 80), "denied.literal_address"),
                    (dns("a.example.com", 1), "denied.default"),
                ],
            );
        }
    }
}

#[test]
fn egrets_own_things_are_out_of_reach() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        let log = format!("{home}/project/audit.jsonl");
        world.machine.write(
            &format!("{home}/project/policy.yaml"),
            "version: 1\nallow: [www.example.com]\n",
        );
        world.machine.sh(&format!(
            "chown {0}:{0} {home}/project/policy.yaml",
            user.id()
        ));
        let script = "
print('write policy', attempt(lambda: open('policy.yaml', 'a')))
print('replace policy', attempt(lambda: os.rename('policy.yaml', 'other')))
print('remove policy', attempt(lambda: os.remove('policy.yaml')))
print('chmod policy', attempt(lambda: os.chmod('policy.yaml', 0o777)))
print('truncate log', attempt(lambda: open('audit.jsonl', 'w')))
print('replace log', attempt(lambda: os.rename('audit.jsonl', 'x')))
print('remove log', attempt(lambda: os.remove('audit.jsonl')))
print('write egret', attempt(lambda: open('/srv/bin/egret', 'a')))
for directory in ['/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/sys/kernel/uevent_helper']:
    print(directory, attempt(lambda: open(directory, 'w')))
";
        let run = world
            .run_as(user)
            .args(&["--policy", "policy.yaml"])
            .log(Some(&log));
        let outcome = run.python(&format!("{CALLS}{script}")).ok();
        assert_eq!(outcome.stdout.lines().count(), 11, "{outcome:#?}");
        for line in outcome.stdout.lines() {
            assert!(
                line.rsplit(' ').next().unwrap().starts_with('E'),
                "{user:?}: {line}: {outcome:#?}"
            );
        }
        assert!(!outcome.records.is_empty());
    }
}
