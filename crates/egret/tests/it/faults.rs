//! System calls of the gateway that fail, one after the other, while it is at work; and gateways of containers that are
//! killed while they are.
//!
//! Whatever fails, nothing passes undecided or unrecorded, nothing is on record that did not happen, and work goes on once
//! it does not fail any more. `./x soak` kills the gateways of processes.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::servers::Service;
use crate::world::{User, World, at};

/// Connects and asks for ever, by two doors, until its input ends. Each connection carries a line of its own. Once there is
/// a file `go`, much is carried, too, and once there is one `hold`, connections are kept.
pub(crate) const WORK: &str = "
import itertools, os, select, socket, sys
proxy = os.environ['HTTP_PROXY'].strip('htp:/').split(':')
def resolved():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
    s.sendto(b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3www\\7example\\3com\\0\\0\\1\\0\\1', ('127.0.0.1', 53))
    return socket.inet_ntoa(s.recv(512)[-4:])
address = resolved()
def captured(port): return socket.create_connection((address, port), 3)
def asked(port):
    s = socket.create_connection((proxy[0], int(proxy[1])), 3)
    s.sendall(b'CONNECT www.example.com:%d HTTP/1.1\\r\\n\\r\\n' % port)
    head = b''
    while not head.endswith(b'\\r\\n\\r\\n'):
        more = s.recv(1)
        if not more: raise OSError('no answer')
        head += more
    if b' 200 ' not in head.split(b'\\r\\n')[0]: raise OSError('refused')
    return s
out = open('out', 'w', buffering=1)
def attempt(door, port, line):
    try:
        s = door(port); s.settimeout(3); s.sendall(line)
        got = s.recv(100) == line
        s.close()
        out.write('%s %s\\n' % (door.__name__, 'works' if got else 'was cut'))
        return got
    except OSError as e:
        out.write('%s fails: %s\\n' % (door.__name__, e))
        # A gateway that was started again has forgotten which address stands for which name.
        try: globals()['address'] = resolved()
        except OSError: pass
def much():
    try:
        s = captured(7002); s.settimeout(3); piece = b'much' * 8000
        for _ in range(20):
            s.sendall(piece); left = len(piece)
            while left > 0:
                got = len(s.recv(left))
                if not got: raise OSError('ended')
                left -= got
        s.close()
    except OSError as e: out.write('much fails: %s\\n' % e)
held = []
for n in itertools.count():
    if select.select([sys.stdin], [], [], 0)[0]: break
    for door in (captured, asked):
        attempt(door, 7000, b'%d %s\\n' % (n, door.__name__.encode()))
    if n % 8 == 0:
        if attempt(asked, 7001, b'not allowed\\n'): print('REACHED')
        if os.path.exists('go'): much()
    try:
        if os.path.exists('hold'): held.append(captured(7002))
    except OSError: pass
print('done')
";

/// Where [`World::run_as`] has the log of the first run.
const LOG: &str = "/home/alice/audit-0.jsonl";

/// A system call of the gateway, how it fails, and which of them do.
type Fault = (&'static str, &'static str, &'static str);

/// Everything that `costs/system-calls.txt` has, but for `close`, which does its work even where it fails.
#[rustfmt::skip]
const FAULTS: &[Fault] = &[
    // First, as pipes are kept.
    ("pipe2",       "EMFILE",        "1+"),
    ("accept4",     "EMFILE",        "1+"),
    ("accept4",     "ENFILE",        "1+3"),
    ("accept4",     "ENOMEM",        "1+2"),
    ("accept4",     "ENOBUFS",       "1+"),
    ("accept4",     "ECONNABORTED",  "1+2"),
    ("accept4",     "EPERM",         "1+2"),
    ("bind",        "EADDRINUSE",    "1+"),
    ("connect",     "ENETUNREACH",   "1+"),
    ("connect",     "EADDRNOTAVAIL", "1+2"),
    ("connect",     "ENOMEM",        "1+"),
    ("connect",     "EPERM",         "1+2"),
    ("epoll_ctl",   "ENOMEM",        "1+"),
    ("epoll_ctl",   "ENOSPC",        "1+3"),
    // Only so many: strace, taken out in the middle of one, leaves another error, which says that there is no such call.
    ("?epoll_wait,?epoll_pwait", "EINTR", "1..40+2"),
    ("getsockname", "ENOBUFS",       "1+"),
    ("getsockopt",  "ENOBUFS",       "1+"),
    ("getsockopt",  "ENOENT",        "1+2"),
    ("recvfrom",    "ENOMEM",        "1+"),
    ("recvfrom",    "ECONNRESET",    "1+3"),
    ("sendto",      "ENOBUFS",       "1+"),
    ("sendto",      "EPIPE",         "1+3"),
    ("sendto",      "EINTR",         "1+2"),
    ("setsockopt",  "ENOMEM",        "1+"),
    ("shutdown",    "ENOTCONN",      "1+"),
    ("socket",      "EMFILE",        "1+"),
    ("socket",      "ENFILE",        "1+2"),
    ("socket",      "ENOMEM",        "1+"),
    ("splice",      "EINVAL",        "1+"),
    ("splice",      "ENOMEM",        "1+"),
    ("write",       "ENOSPC",        "1+"),
    ("write",       "EIO",           "1+3"),
    ("write",       "EDQUOT",        "1+2"),
];

#[test]
fn whatever_call_fails_nothing_passes_undecided_and_work_goes_on() {
    let world = world();
    let mut live = world
        .run_as(User::Alice)
        .allow("www.example.com:7000,7002")
        .within(Duration::from_secs(20))
        .start(&["/usr/bin/python3", "-c", WORK]);
    let gateway = live.child.id();
    works(&world, "the beginning");
    for (call, error, which) in FAULTS {
        let what = format!("{call} {error} {which}");
        let injected = Injected::into(gateway, call, error, which);
        world.machine.write("/home/alice/project/go", "much");
        std::thread::sleep(Duration::from_millis(400));
        injected.taken_out(&what);
        let goes_on = std::panic::catch_unwind(AssertUnwindSafe(|| works(&world, &what)));
        if goes_on.is_err() {
            let running = live.child.try_wait();
            let _ = kill(
                Pid::from_raw(live.child.id().cast_signed()),
                Signal::SIGKILL,
            );
            panic!("{what}: {running:?}: {:#?}", live.finish().stderr);
        }
    }
    let outcome = live.finish().ok();
    assert_eq!(outcome.stdout, "done\n", "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    on_record(&world, &outcome.records, true);
}

#[test]
fn without_memory_the_gateway_ends_and_its_sandbox_with_it() {
    for user in User::ALL {
        let world = world();
        let live = world
            .run_as(user)
            .allow("www.example.com:7000,7002")
            .start(&["/usr/bin/python3", "-c", WORK]);
        works_for(&world, user, "the beginning");
        // No page more than there are.
        let status = std::fs::read_to_string(format!("/proc/{}/status", live.child.id())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let size: u64 = size
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        prlimit(user, live.child.id(), &format!("--as={}:", size * 1024));
        world
            .machine
            .write(&format!("{}/project/hold", user.home()), "");
        let end = Instant::now() + Duration::from_secs(20);
        while world
            .machine
            .processes()
            .iter()
            .any(|process| process.contains("python3"))
        {
            assert!(
                Instant::now() < end,
                "the gateway does not run out of memory"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let outcome = live.finish();
        assert_eq!(outcome.code(), 128 + 6, "{outcome:#?}");
        assert!(
            outcome.stderr.contains("memory allocation"),
            "{}",
            outcome.stderr
        );
        assert!(!outcome.stdout.contains("REACHED"), "{}", outcome.stdout);
        on_record(&world, &outcome.records, false);
    }
}

#[test]
fn a_gateway_that_runs_out_of_descriptors_refuses_and_recovers() {
    for user in User::ALL {
        let world = world();
        let live = world
            .run_as(user)
            .allow("www.example.com:7000,7002")
            .start(&["/usr/bin/python3", "-c", WORK]);
        works_for(&world, user, "the beginning");
        let gateway = live.child.id();
        let open = std::fs::read_dir(format!("/proc/{gateway}/fd"))
            .unwrap()
            .count();
        for more in 0..3 {
            prlimit(user, gateway, &format!("--nofile={}:", open + more));
            std::thread::sleep(Duration::from_millis(400));
            prlimit(user, gateway, "--nofile=1024:");
            works_for(&world, user, &format!("{more} descriptors"));
        }
        let outcome = live.finish().ok();
        assert_eq!(outcome.stdout, "done\n", "{}", outcome.stderr);
        on_record(&world, &outcome.records, true);
    }
}

#[test]
fn the_kernel_forgets_connections_soon() {
    let world = World::new();
    for user in User::ALL {
        // Some kernels show these to nobody but root of the machine; then there is nothing to set.
        let script = "cd /proc/sys/net/netfilter && cat nf_conntrack_tcp_timeout_time_wait nf_conntrack_udp_timeout; true";
        let outcome = world.run_as(user).client(script).ok();
        let shown = outcome.stderr.is_empty();
        assert_eq!(
            outcome.stdout,
            if shown { "5\n5\n" } else { "" },
            "{outcome:#?}"
        );
    }
}

fn world() -> World {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:7000", Service::Echo);
    world.serve("93.184.216.34:7001", Service::Echo);
    world.serve("93.184.216.34:7002", Service::Echo);
    world
}

/// Waits until both doors work again.
#[track_caller]
fn works(world: &World, after: &str) {
    works_for(world, User::Alice, after);
}

#[track_caller]
fn works_for(world: &World, user: User, after: &str) {
    let path = world.machine.path(format!("{}/project/out", user.home()));
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    let before = read().len();
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        let text = read();
        let new = &text[before.min(text.len())..];
        if new.contains("captured works") && new.contains("asked works") {
            return;
        }
        assert!(
            Instant::now() < end,
            "nothing works any more after {after}: {new}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every line that a server got has a decision, every end a beginning, and, unless the gateway was killed, every beginning
/// an end.
#[track_caller]
pub(crate) fn on_record(world: &World, records: &[Value], to_the_end: bool) {
    let about = |event: &'static str| {
        let lines = records.iter().filter(|record| record["port"] == 7000);
        lines.filter(move |record| record["event"] == event)
    };
    let dialled: HashSet<_> = about("decision")
        .filter(|record| !record["dialled"].is_null())
        .map(|record| record["id"].as_str().unwrap())
        .collect();
    let closed: Vec<_> = about("close")
        .map(|record| record["id"].as_str().unwrap())
        .collect();
    let ended: HashSet<_> = closed.iter().copied().collect();
    assert_eq!(closed.len(), ended.len(), "a connection has ended twice");
    assert!(
        ended.is_subset(&dialled),
        "{:?} ended and had not begun",
        ended.difference(&dialled)
    );
    let lost: u64 = records
        .iter()
        .filter(|record| record["action"] == "records_lost")
        .map(|record| record["count"].as_u64().unwrap())
        .sum();
    if to_the_end {
        let missing = dialled.difference(&ended).count() as u64;
        assert!(
            missing <= lost,
            "{missing} connections have no end on record, and {lost} are told to be lost"
        );
    }
    let got = world.server(0, |server| server.bytes());
    let lines: HashSet<_> = got.split_inclusive(|&byte| byte == b'\n').collect();
    assert!(!lines.is_empty());
    assert!(
        lines.len() <= dialled.len(),
        "{} lines, {} decisions",
        lines.len(),
        dialled.len()
    );
    assert!(world.server(0, |server| server.connections()) >= dialled.len());
    assert_eq!(world.server(1, |server| server.connections()), 0);
}

/// Sets a soft limit of a process of this user.
#[track_caller]
fn prlimit(user: User, process: u32, limit: &str) {
    let id = user.id().to_string();
    let status = Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "prlimit"])
        .args(["--pid", &process.to_string(), limit])
        .status();
    assert!(status.unwrap().success(), "prlimit {limit}");
}

/// Faults that a process has.
struct Injected {
    strace: Child,
    /// What strace says of calls.
    output: PathBuf,
}

impl Injected {
    #[track_caller]
    fn into(process: u32, call: &str, error: &str, which: &str) -> Self {
        let output = std::env::temp_dir().join(format!("egret-fault-{process}"));
        let mut strace = Command::new("strace")
            .args(["-f", "-e", &format!("trace={call}"), "-o"])
            .arg(&output)
            .args(["-e", &format!("inject={call}:error={error}:when={which}")])
            .args(["-p", &process.to_string()])
            // The runtime writes to wake itself, which cannot fail; the log can.
            .args(
                ["write"]
                    .iter()
                    .filter(|writes| **writes == call)
                    .flat_map(|_| ["-P", LOG]),
            )
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is missing: run the tests with ./x test");
        let mut said = BufReader::new(strace.stderr.take().unwrap()).lines();
        let line = said.next().expect("strace has ended").unwrap();
        assert!(line.contains("attached"), "strace says: {line}");
        std::thread::spawn(move || said.for_each(drop));
        Self { strace, output }
    }

    /// Takes them out again, once there was one.
    #[track_caller]
    fn taken_out(mut self, what: &str) {
        let end = Instant::now() + Duration::from_secs(15);
        while !std::fs::read_to_string(&self.output)
            .unwrap()
            .contains("INJECTED")
        {
            let ended = self.strace.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: the gateway has ended");
            assert!(Instant::now() < end, "{what}: no such call is made");
            std::thread::sleep(Duration::from_millis(20));
        }
        kill(
            Pid::from_raw(self.strace.id().cast_signed()),
            Signal::SIGINT,
        )
        .unwrap();
        self.strace.wait().unwrap();
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
        let _ = std::fs::remove_file(&self.output);
    }
}
