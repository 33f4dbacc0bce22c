//! Root in a container: classes 6 to 10 of `docs/bypasses.md`. What its capabilities reach ends at its own files and
//! processes.

use serde_json::json;

use super::world;
use crate::escapes::CALLS;
use crate::escapes::addresses::ALLOW_PUBLIC;
use crate::escapes::routing::sockets;
use crate::world::World;
use crate::world::at;
use crate::world::engine::Kind;
use crate::world::images::{TOOLS, TOOLS_MOUNTS};
use crate::world::probe::attempt;

/// Runs a script as root, which prints a line for each attempt, `WHAT RESULT`; each result has to be an error.
#[track_caller]
fn all_fail(world: &World, script: &str) {
    let run = world.run_container().args(&["--user", "0:0"]);
    let outcome = run
        .policy(ALLOW_PUBLIC)
        .python(&format!("{CALLS}{script}"))
        .ok();
    assert!(!outcome.stdout.is_empty(), "{outcome:#?}");
    for line in outcome.stdout.lines() {
        let result = line.rsplit(' ').next().unwrap();
        assert!(
            result.starts_with('E'),
            "{:?}: {line}: {outcome:#?}",
            world.engine()
        );
    }
    outcome.silent();
}

#[test]
fn what_the_kernel_offers_root_is_shut() {
    for kind in Kind::ALL {
        let world = world(kind);
        all_fail(
            &world,
            "
print('uid', 'E' if os.getuid() == 0 else 'not root')
for name, flag in [('user', 0x10000000), ('net', 0x40000000), ('mount', 0x20000), ('pid', 0x20000000), ('uts', 0x4000000), ('ipc', 0x8000000), ('cgroup', 0x2000000), ('user and net', 0x50000000)]:
    print('unshare', name, call(272, flag))
    print('clone', name, call(56, flag | 17, 0, 0, 0, 0))
for kind in ['net', 'mnt', 'pid', 'user']:
    fd = os.open('/proc/self/ns/' + kind, os.O_RDONLY)
    print('setns', kind, call(308, fd, 0))
buffer = ctypes.create_string_buffer(struct.pack('=QQQQQQQQQQQ', 0x50000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))
print('clone3', call(435, buffer, 88))
for kind in [b'tmpfs', b'proc', b'sysfs', b'overlay', b'bpf', b'cgroup2', b'devpts', b'mqueue', b'binfmt_misc']:
    print('mount', kind, call(165, b'none', b'/tmp', kind, 0, 0))
print('bind', call(165, b'/', b'/tmp', 0, 4096, 0))
print('remount', call(165, b'none', b'/', 0, 32, 0))
print('umount', call(166, b'/proc', 2))
print('pivot', call(155, b'/tmp', b'/tmp'))
print('open_tree', call(428, -100, b'/', 1))
print('fsopen', call(430, b'tmpfs', 0))
print('io_uring_setup', call(425, 8, ctypes.create_string_buffer(120)))
print('bpf', call(321, 0, ctypes.create_string_buffer(128), 128))
print('perf_event_open', call(298, ctypes.create_string_buffer(struct.pack('=II', 1, 128) + bytes(120)), 0, -1, -1, 0))
print('add_key', call(248, b'user', b'x', b'y', 1, -2))
print('keyctl', call(250, 0, -3, 1))
print('kexec_load', call(246, 0, 0, 0, 0))
print('init_module', call(175, 0, 0, b''))
print('reboot', call(169, 0xfee1dead, 672274793, 0, 0))
print('open_by_handle_at', call(304, 3, ctypes.create_string_buffer(16), 0))
print('settimeofday', call(164, ctypes.create_string_buffer(16), 0))
print('mknod', call(133, b'/tmp/sda', 0o60600, 0x800))
for path in ['/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/net/ipv4/ip_forward', '/proc/sys/net/ipv4/conf/all/route_localnet', '/sys/kernel/uevent_helper', '/dev/mem', '/dev/kmsg', '/dev/net/tun']:
    print(path, attempt(lambda: os.open(path, os.O_WRONLY)))
",
        );
    }
}

#[test]
fn the_network_cannot_be_changed() {
    for kind in Kind::ALL {
        let world = world(kind);
        let commands = [
            "ip address add 10.9.9.9/24 dev lo",
            "ip link add x type veth peer name y",
            "ip link add x type bridge",
            "ip link add x type dummy",
            "ip tuntap add dev x mode tun",
            "ip route del local default dev lo",
            "ip route flush table all",
            "ip -6 route flush table all",
            "ip link set lo down",
            "ip rule add from all lookup 77",
            "ip netns add x",
            "nft flush ruleset",
            "iptables -t nat -F",
            "sysctl -w net.ipv4.ip_forward=1",
        ];
        let script: String = commands
            .iter()
            .map(|command| format!("{command} 2>/dev/null && echo CHANGED: {command}\n"))
            .collect();
        let outcome = world
            .run_container()
            .args(&["--user", "0:0"])
            .client(&format!(
                "{script} ip -brief link; curl -s -m 5 --noproxy '*' http://93.184.216.34/; echo $?"
            ))
            .ok();
        assert!(
            !outcome.stdout.contains("CHANGED"),
            "{kind:?}: {outcome:#?}"
        );
        let interfaces: Vec<_> = outcome
            .stdout
            .lines()
            .filter(|line| line.contains("LOOPBACK") || line.contains("UP"))
            .collect();
        assert_eq!(interfaces.len(), 1, "{kind:?}: {outcome:#?}");
        outcome
            .silent()
            .decided("denied.literal_address", at::PUBLIC, 80);
        // NFNL_MSG_BATCH_BEGIN, then a message that deletes every table.
        all_fail(
            &world,
            "
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
",
        );
    }
}

#[test]
fn other_kinds_of_socket_cannot_be_made_or_reach_nobody() {
    for kind in Kind::ALL {
        let world = world(kind);
        let attempts = sockets();
        let run = world.run_container().args(&["--allow-docker-gateway"]);
        let (outcome, ends) = attempt(run, &attempts);
        for (attempt, end) in attempts.iter().zip(&ends) {
            let (word, took) = (end["end"].as_str().unwrap(), end["ms"].as_f64().unwrap());
            assert!(
                word.starts_with('E') && took < 500.0,
                "{kind:?}: {attempt}: {end}"
            );
        }
        outcome.silent();
    }
}

#[test]
fn nobody_else_is_there() {
    for kind in Kind::ALL {
        let world = world(kind);
        let mut neighbour = world
            .run_container()
            .log(None)
            .args(&["--name", "neighbour"])
            .start(&[
                "/usr/bin/python3",
                "-c",
                "
import socket, sys
sock = socket.create_server(('', 9000))
abstract = socket.socket(socket.AF_UNIX)
abstract.bind('\\0meeting')
abstract.listen()
print('up', flush=True)
sys.stdin.read()
",
            ]);
        std::thread::sleep(std::time::Duration::from_secs(2));
        let attempts: Vec<_> = [
            "@meeting",
            "@egret/0/neighbour",
            "@egret/12345/neighbour",
            "@egret/65532/neighbour",
            "/egret/agent.sock",
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/docker/containerd/containerd.sock",
            "/run/podman/podman.sock",
            "/run/user/12345/podman/podman.sock",
            "/run/dbus/system_bus_socket",
        ]
        .map(|path| json!({"try": "unix", "path": path}))
        .to_vec();
        let script = "
for pid in os.listdir('/proc'):
    if pid.isdigit() and int(pid) != os.getpid():
        line = open('/proc/%s/cmdline' % pid).read()
        if 'egret' in line or 'sleep' in line or 'podman' in line: print('seen', repr(line))
for path in ['/egret', '/bin/egret', '/srv/bin']:
    print(path, attempt(lambda: os.listdir(path)))
print('environ', 'ok' if any('EGRET' in name for name in os.environ) else 'E')
";
        let (outcome, ends) = attempt(world.run_container(), &attempts);
        for (attempt, end) in attempts.iter().zip(&ends) {
            let gone = ["ENOENT", "ECONNREFUSED", "EACCES"].contains(&end["end"].as_str().unwrap());
            assert!(gone, "{kind:?}: {attempt}: {end}");
        }
        outcome.silent();
        all_fail(&world, script);
        assert!(
            neighbour.child.try_wait().unwrap().is_none(),
            "the neighbour was not there"
        );
        neighbour.stdin = None;
        assert!(neighbour.finish().ok().stdout.contains("up"));
    }
}

#[test]
fn what_is_secret_is_in_the_workload_alone() {
    for kind in Kind::ALL {
        let world = world(kind);
        let program = kind.program();
        let mut args = vec!["run", "--engine", program, "--detach", "--name", "keeper"];
        args.extend([
            "-e",
            "API_TOKEN=hunter2",
            "-e",
            "PASSWORD",
            "--allow",
            "www.example.com",
        ]);
        args.extend(TOOLS_MOUNTS);
        args.extend([TOOLS.name, "/bin/sleep", "1000"]);
        world.egret(kind.user(), &args).ok();
        for container in ["keeper-egret-agent", "keeper-egret-gateway"] {
            let shown = world.docker(&["inspect", container]);
            assert!(!shown.contains("hunter2"), "{kind:?}: {container}: {shown}");
            let said = world.try_docker(&["logs", container]);
            assert!(
                !String::from_utf8_lossy(&said.stdout).contains("hunter2"),
                "{kind:?}: {said:?}"
            );
        }
        let labels = world.docker(&["inspect", "--format", "{{json .Config.Labels}}", "keeper"]);
        assert!(
            labels.contains("API_TOKEN") && !labels.contains("hunter2"),
            "{kind:?}: {labels}"
        );
        let exported = world.egret(kind.user(), &["export", "keeper"]).ok();
        assert!(
            !exported.stdout.contains("hunter2"),
            "{kind:?}: {exported:#?}"
        );
        world.egret(kind.user(), &["rm", "--force", "keeper"]).ok();
    }
}
