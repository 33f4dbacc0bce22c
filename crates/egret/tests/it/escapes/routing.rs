//! Classes 1 to 12: routing, sockets, the kernel, and Egret's own surface.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CALLS, all_fail};
use crate::world::probe::{Table, attempt, connect, dns, forward, refused, socks, tcp, udp};
use crate::world::servers::Service;
use crate::world::{HOST_ADDRESSES, User, World, at};

#[test]
fn proxy_variables_do_not_matter() {
    let world = World::new();
    world.serve_everywhere(80, Service::Http);
    for user in User::ALL {
        for client in [
            "curl -sS --noproxy '*' http://93.184.216.34/",
            "NO_PROXY='*' no_proxy='*' curl -sS http://93.184.216.34/",
            "http_proxy=http://93.184.216.34:80 curl -sS http://www.example.com/",
            "env -i /usr/bin/curl -sS http://93.184.216.34/",
            "curl -sS --proxy socks5://93.184.216.34:80 http://www.example.com/",
        ] {
            let outcome = world.run_as(user).client(client);
            assert!(
                outcome.code() != 0 || outcome.stdout.contains("denied."),
                "{client}: {outcome:#?}"
            );
            outcome.silent();
            assert!(
                outcome.reasons().contains(&"denied.literal_address"),
                "{client}: {outcome:#?}"
            );
        }
    }
}

#[test]
fn another_address_for_an_allowed_name_is_another_destination() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    let elsewhere = world.serve("151.101.0.81:80", Service::Http);
    for user in User::ALL {
        for client in [
            "curl -sS --noproxy '*' --resolve www.example.com:80:151.101.0.81 http://www.example.com/",
            "curl -sS --noproxy '*' --connect-to www.example.com:80:151.101.0.81:80 http://www.example.com/",
            "curl -sS -p --connect-to www.example.com:80:151.101.0.81:80 http://www.example.com/",
        ] {
            let outcome = world.run_as(user).allow("www.example.com").client(client);
            outcome
                .silent()
                .decided("denied.literal_address", at::PUBLIC2, 80);
        }
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

#[test]
fn a_relay_inside_gains_nothing() {
    let world = World::new();
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
    let outcome = world.run_as(User::Alice).python(script).ok();
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

#[test]
fn egrets_own_ports_are_no_way_out() {
    let world = World::new();
    for user in User::ALL {
        refused(
            world.run_as(user).args(&["--allow-docker-gateway=80"]),
            &own_ports(),
        );
    }
}

/// Where the host may be reached at port 80.
pub(crate) fn own_ports() -> Table {
    // Straight to the listener that redirected connections arrive at: it must neither loop nor answer.
    vec![
        (tcp("127.0.0.1", 61080), "denied.malformed"),
        (tcp("::1", 61080), "denied.malformed"),
        (connect("127.0.0.1:61080"), "denied.address.loopback"),
        (connect("127.0.0.1:61081"), "denied.address.loopback"),
        (connect("localhost:61081"), "denied.address.loopback"),
        (socks("::1", 61081), "denied.address.loopback"),
        (
            forward("http://127.0.0.1:61053/"),
            "denied.address.loopback",
        ),
    ]
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
fn datagrams_go_nowhere() {
    let world = World::new();
    for user in User::ALL {
        let outcome = refused(
            world
                .run_as(user)
                .policy("version: 1\ndefault: allow-public\n"),
            &datagrams(),
        );
        outcome.decided("denied.protocol", at::PUBLIC, 443);
        outcome.decided("denied.protocol", at::PUBLIC6, 123);
        outcome.decided("denied.protocol", "172.17.0.1", 443);
    }
}

/// Whatever is allowed.
pub(crate) fn datagrams() -> Table {
    let destinations = [
        at::PUBLIC,
        at::PRIVATE,
        at::METADATA,
        "192.168.7.2",
        "172.17.0.1",
        at::PUBLIC6,
        "127.0.0.1",
        "224.0.0.251",
    ];
    let mut table: Vec<_> = destinations.iter().map(|to| (udp(to, 443), "")).collect();
    table.extend(destinations.iter().take(6).map(|to| (udp(to, 123), "")));
    table
}

#[test]
fn other_kinds_of_socket_cannot_be_made_or_reach_nobody() {
    let world = World::new();
    let attempts = sockets();
    for user in User::ALL {
        let (outcome, ends) = attempt(
            world.run_as(user).args(&["--allow-docker-gateway"]),
            &attempts,
        );
        for (attempt, end) in attempts.iter().zip(&ends) {
            assert!(
                end["end"].as_str().unwrap().starts_with('E'),
                "{user:?}: {attempt}: {end}"
            );
            assert!(
                end["ms"].as_f64().unwrap() < 500.0,
                "{user:?}: {attempt}: {end}"
            );
        }
        outcome.silent();
    }
}

/// Sockets of other kinds than TCP and UDP, each with something that it could reach.
#[rustfmt::skip]
pub(crate) fn sockets() -> Vec<Value> {
    vec![
        // family, kind, protocol
        json!({"try": "socket", "socket": [2, 3, 1], "host": at::PUBLIC}),               // raw ICMP
        json!({"try": "socket", "socket": [2, 3, 255], "host": at::PUBLIC}),             // raw IP
        json!({"try": "socket", "socket": [10, 3, 58], "host": at::PUBLIC6}),            // raw ICMPv6
        json!({"try": "socket", "socket": [2, 2, 1], "host": at::PUBLIC}),               // ping
        json!({"try": "socket", "socket": [17, 3, 768]}),                                // packets
        json!({"try": "socket", "socket": [17, 2, 768]}),
        json!({"try": "socket", "socket": [40, 1, 0], "cid": 2, "port": 80}),            // vsock, to the hypervisor's host
        json!({"try": "socket", "socket": [2, 1, 132], "host": at::PUBLIC, "port": 80}), // SCTP
        json!({"try": "socket", "socket": [2, 5, 132], "host": at::PUBLIC, "port": 80}),
        json!({"try": "socket", "socket": [2, 6, 33], "host": at::PUBLIC, "port": 80}),  // DCCP
        json!({"try": "socket", "socket": [2, 2, 136], "host": at::PUBLIC, "port": 80}), // UDP-Lite
        json!({"try": "socket", "socket": [44, 3, 0]}),                                  // XDP
        json!({"try": "socket", "socket": [38, 5, 0]}),                                  // the kernel's cryptography
        json!({"try": "socket", "socket": [31, 3, 1]}),                                  // Bluetooth
        json!({"try": "socket", "socket": [29, 3, 1]}),                                  // CAN
        json!({"try": "socket", "socket": [30, 2, 0]}),                                  // TIPC
    ]
}

#[test]
fn the_network_of_the_sandbox_cannot_be_changed() {
    let world = World::new();
    for user in User::ALL {
        for command in [
            "ip address add 10.9.9.9/24 dev lo",
            "ip link add x type veth peer name y",
            "ip link add x type bridge",
            "ip route del local default dev lo",
            "ip route flush table all",
            "ip -6 route flush table all",
            "ip link set lo down",
            "ip rule add from all lookup 77",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "ip netns add x",
        ] {
            let check = "/usr/bin/python3 -c \"import socket; s = socket.create_connection(('93.184.216.34', 80)); s.send(b'x'); \
                         print(s.recv(9))\" 2>&1 | tail -1";
            let outcome = world
                .run_as(user)
                .client(&format!("{command} && echo CHANGED; {check}"))
                .ok();
            assert!(
                !outcome.stdout.contains("CHANGED"),
                "{user:?}: {command}: {outcome:#?}"
            );
            assert!(
                outcome.stdout.contains("reset"),
                "{user:?}: {command}: {outcome:#?}"
            );
            outcome.silent();
        }
    }
}

#[test]
fn netfilter_cannot_be_spoken_to() {
    let world = World::new();
    // NFNL_MSG_BATCH_BEGIN, then a message that deletes every table.
    let script = "
def flush():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    s.settimeout(2)
    head = lambda kind, flags, seq, body: struct.pack('=IHHII', 16 + len(body), kind, flags, seq, 0) + body
    batch = head(0x10, 1, 1, struct.pack('>BBH', 0, 0, 10)) + head(0xa02, 5, 2, struct.pack('>BBH', 0, 0, 0)) + head(0x11, 1, 3, struct.pack('>BBH', 0, 0, 10))
    s.send(batch)
    answer = s.recv(4096)
    code = struct.unpack('=i', answer[16:20])[0]
    if code: raise OSError(-code, 'no')
print('flush', attempt(flush))
";
    for user in User::ALL {
        all_fail(&world, user, &[], script, 1);
    }
}

#[test]
fn no_other_namespace_can_be_made_or_entered() {
    let world = World::new();
    let script = "
for name, flag in [('user', 0x10000000), ('net', 0x40000000), ('mount', 0x20000), ('pid', 0x20000000), ('uts', 0x4000000), ('ipc', 0x8000000), ('cgroup', 0x2000000), ('user and net', 0x50000000)]:
    print('unshare', name, call(272, flag))
    print('clone', name, call(56, flag | 17, 0, 0, 0, 0))
for kind in ['net', 'mnt', 'pid', 'user']:
    fd = os.open('/proc/self/ns/' + kind, os.O_RDONLY)
    print('setns', kind, call(308, fd, 0))
print('setns pidfd', call(308, libc.syscall(434, 1, 0), 0x40000000))
buffer = ctypes.create_string_buffer(struct.pack('=QQQQQQQQQQQ', 0x50000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))
print('clone3', call(435, buffer, 88))
";
    for user in User::ALL {
        all_fail(&world, user, &[], script, 8 * 2 + 4 + 1 + 1);
    }
}

#[test]
fn nothing_can_be_mounted() {
    let world = World::new();
    let script = "
for kind in [b'tmpfs', b'proc', b'sysfs', b'overlay', b'bpf', b'cgroup2', b'devpts']:
    print('mount', kind, call(165, b'none', b'/tmp', kind, 0, 0))
print('bind', call(165, b'/', b'/tmp', 0, 4096, 0))
print('remount', call(165, b'none', b'/', 0, 32, 0))
print('umount', call(166, b'/proc', 2))
print('pivot', call(155, b'/tmp', b'/tmp'))
print('chroot', call(161, b'/tmp'))
print('open_tree', call(428, -100, b'/', 1))
print('fsopen', call(430, b'tmpfs', 0))
print('move_mount', call(429, -100, b'/tmp', -100, b'/', 0))
print('mount_setattr', call(442, -100, b'/', 0, b'\\0' * 32, 32))
";
    for user in User::ALL {
        all_fail(&world, user, &[], script, 16);
    }
}

#[test]
fn dangerous_parts_of_the_kernel_are_shut() {
    let world = World::new();
    let script = "
print('io_uring_setup', call(425, 8, ctypes.create_string_buffer(120)))
print('io_uring_enter', call(426, 0, 1, 0, 0, 0, 0))
print('io_uring_register', call(427, 0, 0, 0, 0))
print('bpf', call(321, 0, ctypes.create_string_buffer(128), 128))
print('perf_event_open', call(298, ctypes.create_string_buffer(struct.pack('=II', 1, 128) + bytes(120)), 0, -1, -1, 0))
print('userfaultfd', call(323, 0))
print('add_key', call(248, b'user', b'x', b'y', 1, -2))
print('keyctl', call(250, 0, -3, 1))
print('kexec_load', call(246, 0, 0, 0, 0))
print('init_module', call(175, 0, 0, b''))
print('finit_module', call(313, 0, b'', 0))
print('swapon', call(167, b'/tmp', 0))
print('reboot', call(169, 0xfee1dead, 672274793, 0, 0))
print('open_by_handle_at', call(304, 3, ctypes.create_string_buffer(16), 0))
print('sethostname', call(170, b'x', 1))
print('settimeofday', call(164, ctypes.create_string_buffer(16), 0))
print('iopl', call(172, 3))
";
    for user in User::ALL {
        all_fail(&world, user, &[], script, 17);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn system_calls_by_another_convention_are_shut() {
    let world = World::new();
    // socket(AF_PACKET) and io_uring_setup by int 0x80, and by the x32 numbers. Whoever tries is killed, or gets an error.
    let script = "
import mmap
def i386(number, b=0, c=0, d=0):
    code = b'\\x53\\xb8' + struct.pack('<I', number) + b'\\xbb' + struct.pack('<I', b) + b'\\xb9' + struct.pack('<I', c) + b'\\xba' + struct.pack('<I', d) + b'\\xcd\\x80\\x5b\\xc3'
    memory = mmap.mmap(-1, 4096, prot=7)
    memory.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
for name, what in [('i386 socket', lambda: i386(359, 17, 3, 768)), ('i386 io_uring', lambda: i386(425, 8, 0)), ('i386 unshare', lambda: i386(310, 0x10000000)),
                   ('x32 socket', lambda: libc.syscall(ctypes.c_long(0x40000000 + 41), 17, 3, 768)), ('x32 getpid', lambda: libc.syscall(ctypes.c_long(0x40000000 + 39)))]:
    child = os.fork()
    if child == 0:
        os._exit(0 if what() >= 0 else 9)
    _, status = os.waitpid(child, 0)
    print(name, 'ok' if status == 0 else 'E%d' % status)
";
    for user in User::ALL {
        all_fail(&world, user, &[], script, 5);
    }
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
        all_fail(&world, user, &[], script, 12);
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

#[test]
fn the_first_instruction_finds_the_seal_closed() {
    let world = World::new();
    world.serve_everywhere(80, Service::Sink);
    for user in User::ALL {
        for _ in 0..5 {
            refused(
                world.run_as(user),
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
