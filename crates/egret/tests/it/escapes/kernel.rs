//! Classes 6 to 8: sockets of other kinds, root's tools, and the kernel's rarely used parts. In a container the attempts are
//! root's, with the capabilities that its image has.

use serde_json::{Value, json};

use super::all_fail;
use crate::world::probe::{Table, attempt, refused, udp};
use crate::world::servers::Service;
use crate::world::{World, at};

everywhere!(
    datagrams_go_nowhere,
    other_kinds_of_socket_cannot_be_made_or_reach_nobody,
    tcp_in_other_forms_is_captured_like_any,
    the_network_of_the_sandbox_cannot_be_changed,
    netfilter_cannot_be_spoken_to,
    no_other_namespace_can_be_made_or_entered,
    nothing_can_be_mounted,
    dangerous_parts_of_the_kernel_are_shut,
    no_setting_of_the_kernel_and_no_device_can_be_opened_for_writing,
    system_calls_by_another_convention_are_shut,
);

fn datagrams_go_nowhere(world: &World) {
    for place in world.places() {
        let run = world.run_in(place);
        let outcome = refused(
            run.policy("version: 1\ndefault: allow-public\n"),
            &datagrams(),
        );
        outcome.decided("denied.protocol", at::PUBLIC, 443);
        outcome.decided("denied.protocol", at::PUBLIC6, 123);
        outcome.decided("denied.protocol", "172.17.0.1", 443);
    }
}

/// Whatever is allowed.
fn datagrams() -> Table {
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

fn other_kinds_of_socket_cannot_be_made_or_reach_nobody(world: &World) {
    let attempts = sockets();
    for place in world.places() {
        let run = world.run_in(place).args(&["--allow-docker-gateway"]);
        let (outcome, ends) = attempt(run, &attempts);
        for (attempt, end) in attempts.iter().zip(&ends) {
            let (word, took) = (end["end"].as_str().unwrap(), end["ms"].as_f64().unwrap());
            assert!(
                word.starts_with('E') && took < 500.0,
                "{place:?}: {attempt}: {end}"
            );
        }
        outcome.silent();
    }
}

/// Sockets of other kinds than TCP and UDP, each with something that it could reach.
#[rustfmt::skip]
fn sockets() -> Vec<Value> {
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
        json!({"try": "socket", "socket": [16, 3, 2]}),                                  // netlink: datagram sockets of others
        json!({"try": "socket", "socket": [16, 3, 4]}),                                  // netlink: who is connected to whom
        json!({"try": "socket", "socket": [16, 3, 9]}),                                  // netlink: audit
        json!({"try": "socket", "socket": [16, 3, 10]}),                                 // netlink: routes
        json!({"try": "socket", "socket": [16, 3, 11]}),                                 // netlink: connector
        json!({"try": "socket", "socket": [16, 3, 12]}),                                 // netlink: netfilter
        json!({"try": "socket", "socket": [16, 2, 15]}),                                 // netlink: devices that come
        json!({"try": "socket", "socket": [16, 3, 16]}),                                 // netlink: generic
    ]
}

fn tcp_in_other_forms_is_captured_like_any(world: &World) {
    let sink = world.serve_everywhere(80, Service::Sink);
    // Several paths at once, what is said with the first packet, an address of one's own choice, a source route.
    let script = "
def end(s):
    s.settimeout(5)
    try: return 'ok' if s.recv(9) else 'EOF'
    except OSError as e: return errno.errorcode[e.errno]
def multipath():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    s.connect(('93.184.216.34', 80)); s.send(b'hello'); return end(s)
def at_once():
    s = socket.socket()
    s.sendto(b'hello', 0x20000000, ('93.184.216.34', 80)); return end(s)
def other_address():
    s = socket.socket()
    s.setsockopt(socket.SOL_IP, 15, 1)
    s.bind(('45.33.32.10', 0)); s.connect(('93.184.216.34', 80)); s.send(b'hello'); return end(s)
def by_device():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
    s.connect(('93.184.216.34', 80)); s.send(b'hello'); return end(s)
def routed():
    s = socket.socket()
    s.setsockopt(socket.SOL_IP, socket.IP_OPTIONS, bytes([1, 131, 7, 4, 10, 20, 0, 7]))
    s.connect(('93.184.216.34', 80)); s.send(b'hello'); return end(s)
for what in [multipath, at_once, other_address, by_device, routed]:
    try: print(what.__name__, what())
    except OSError as error: print(what.__name__, errno.errorcode[error.errno])
for name, level, option in [('transparent', 0, 19), ('mark', 1, 36), ('repair', 6, 19), ('force', 1, 32)]:
    print(name, attempt(lambda: socket.socket().setsockopt(level, option, 1)))
";
    for place in world.places() {
        all_fail(world, place, script, 5 + 4);
    }
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

fn the_network_of_the_sandbox_cannot_be_changed(world: &World) {
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
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet",
    ];
    let script: String = commands
        .iter()
        .map(|command| format!("({command}) 2>/dev/null && echo 'CHANGED: {command}'\n"))
        .collect();
    world.serve_everywhere(80, Service::Http);
    for place in world.places() {
        let outcome = world
            .run_in(place)
            .client(&format!(
                "PATH=$PATH:/usr/sbin:/sbin
                 {script} ip -brief link
                 curl -s -m 5 --noproxy '*' http://93.184.216.34/; true"
            ))
            .ok();
        let shown = format!("{place:?}: {outcome:#?}");
        assert!(!outcome.stdout.contains("CHANGED"), "{shown}");
        let interfaces = outcome.stdout.lines().filter(|line| line.contains("UP"));
        assert_eq!(interfaces.count(), 1, "{shown}");
        // Refused in words, or reset before there was a request.
        assert!(!outcome.stdout.contains("GET /"), "{shown}");
        outcome
            .silent()
            .decided("denied.literal_address", at::PUBLIC, 80);
    }
}

fn netfilter_cannot_be_spoken_to(world: &World) {
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
    for place in world.places() {
        all_fail(world, place, script, 1);
    }
}

fn no_other_namespace_can_be_made_or_entered(world: &World) {
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
    for place in world.places() {
        all_fail(world, place, script, 8 * 2 + 4 + 1 + 1);
    }
}

fn nothing_can_be_mounted(world: &World) {
    let script = "
for kind in [b'tmpfs', b'proc', b'sysfs', b'overlay', b'bpf', b'cgroup2', b'devpts', b'mqueue', b'binfmt_misc']:
    print('mount', kind, call(165, b'none', b'/tmp', kind, 0, 0))
print('bind', call(165, b'/', b'/tmp', 0, 4096, 0))
print('remount', call(165, b'none', b'/', 0, 32, 0))
print('umount', call(166, b'/proc', 2))
print('pivot', call(155, b'/tmp', b'/tmp'))
print('open_tree', call(428, -100, b'/', 1))
print('fsopen', call(430, b'tmpfs', 0))
print('move_mount', call(429, -100, b'/tmp', -100, b'/', 0))
print('mount_setattr', call(442, -100, b'/', 0, b'\\0' * 32, 32))
";
    for place in world.places() {
        all_fail(world, place, script, 9 + 8);
    }
}

fn dangerous_parts_of_the_kernel_are_shut(world: &World) {
    let script = "
print('uid', 'E' if os.getuid() in (0, 12345) else 'somebody')
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
print('mknod', call(133, b'/tmp/sda', 0o60600, 0x800))
for path in ['/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/net/ipv4/ip_forward', '/proc/sys/net/ipv4/conf/all/route_localnet', '/sys/kernel/uevent_helper', '/dev/mem', '/dev/kmsg', '/dev/net/tun', '/dev/vsock', '/dev/vhost-vsock', '/dev/vhost-net', '/dev/kvm', '/dev/fuse', '/dev/userfaultfd']:
    print(path, attempt(lambda: os.open(path, os.O_WRONLY)))
";
    for place in world.places() {
        all_fail(world, place, script, 19 + 14);
    }
}

fn no_setting_of_the_kernel_and_no_device_can_be_opened_for_writing(world: &World) {
    // All there are: what each namespace has of its own, what control groups are steered by, and whatever comes next.
    let script = "
import stat
def opens(path):
    try: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError: return False
    return True
tried, open_ones = 0, []
for root in ['/proc/sys', '/sys', '/proc/irq', '/proc/bus', '/proc/fs', '/proc/acpi', '/proc/scsi']:
    for where, _, files in os.walk(root):
        for name in files:
            tried += 1
            path = os.path.join(where, name)
            if opens(path): open_ones.append(path)
for name in ['sysrq-trigger', 'kcore', 'kmsg', 'mtrr']:
    tried += 1
    if opens('/proc/' + name): open_ones.append('/proc/' + name)
print('settings', tried, open_ones, 'E' if tried > 100 and not open_ones else 'ok')
plain = ['null', 'zero', 'full', 'random', 'urandom', 'tty', 'ptmx']
devices = []
for where, _, files in os.walk('/dev'):
    for name in files:
        path = os.path.join(where, name)
        kind = os.stat(path).st_mode if os.path.exists(path) else 0
        if stat.S_ISBLK(kind) or stat.S_ISCHR(kind) and name not in plain and not where.startswith('/dev/pts'):
            if opens(path): devices.append(path)
print('devices', devices, 'ok' if devices else 'E')
";
    for place in world.places() {
        all_fail(world, place, script, 2);
    }
}

fn system_calls_by_another_convention_are_shut(world: &World) {
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
    for place in world.places() {
        all_fail(world, place, script, 5);
    }
}
