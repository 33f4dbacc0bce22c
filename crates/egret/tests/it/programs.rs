//! Entries that are about programs: who made a connection is found out, and who cannot be told apart gets nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::probe::{connect, forward, refused, socks, tcp};
use crate::world::run::{Outcome, Run};
use crate::world::servers::Service;
use crate::world::{User, World, at};

/// A web server at a name, by HTTP and HTTPS.
fn web() -> World {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    world.serve("93.184.216.34:443", Service::Https(&["www.example.com"]));
    world.serve("[2606:2800:220:1:248:1893:25c8:1946]:80", Service::Http);
    world
}

/// A policy that opens the web servers to these programs: `by: […]` or `under: […]`.
fn only(programs: &str) -> String {
    format!(
        "version: 1
allow:
  - host: www.example.com
    {programs}
  - address: {}
    {programs}
",
        at::PUBLIC6
    )
}

/// A run under a policy that opens the web servers to these programs.
fn run<'w>(world: &'w World, user: User, programs: &str) -> Run<'w> {
    world.run_as(user).policy(&only(programs))
}

/// The one decision of a run.
#[track_caller]
fn decision(outcome: &Outcome) -> &Value {
    let decisions: Vec<_> = outcome.events("decision").collect();
    assert_eq!(decisions.len(), 1, "{outcome:#?}");
    decisions[0]
}

/// All was refused because nobody could tell who asked, or because of who it was: `executable`, if that is known.
#[track_caller]
fn refused_as(outcome: &Outcome, executable: Option<&str>) {
    assert!(!outcome.reasons().is_empty(), "{outcome:#?}");
    for record in outcome.events("decision") {
        assert_eq!(record["reason"], "denied.executable", "{outcome:#?}");
        assert_eq!(record["executable"].as_str(), executable, "{outcome:#?}");
    }
    outcome.silent();
}

/// What a path leads to.
fn real(path: &str) -> String {
    let end = Path::new(path).canonicalize().unwrap();
    end.to_str().unwrap().to_owned()
}

#[test]
fn a_named_program_gets_through_by_every_door_and_is_on_record() {
    let world = web();
    #[rustfmt::skip]
    let table = [
        ("forward",  "curl -sS http://www.example.com/x"),
        ("connect",  "curl -sS https://www.example.com/x"),
        ("connect",  "curl -sS -p http://www.example.com/x"),
        ("socks",    "curl -sS --socks5-hostname 127.0.0.1:61081 https://www.example.com/x"),
        ("captured", "curl -sS --noproxy '*' http://www.example.com/x"),
        ("captured", "curl -sS --noproxy '*' https://www.example.com/x"),
        ("captured", "curl -sS --noproxy '*' http://[2606:2800:220:1:248:1893:25c8:1946]/x"),
    ];
    for user in User::ALL {
        for (door, client) in table {
            // Something after it, so that the shell does not become curl.
            let script = format!("{client}; exit $?");
            let outcome = run(&world, user, "by: [/usr/bin/curl]")
                .client(&script)
                .ok();
            assert!(
                outcome.stdout.starts_with("GET /x for "),
                "{client}: {outcome:#?}"
            );
            let decision = decision(&outcome);
            assert_eq!(decision["door"], door, "{client}: {decision}");
            assert_eq!(decision["reason"], "allowed.rule", "{decision}");
            assert_eq!(decision["executable"], real("/usr/bin/curl"), "{decision}");
            assert_eq!(
                decision["ancestors"],
                Value::from(vec![real("/bin/sh")]),
                "{decision}"
            );
        }
    }
}

#[test]
fn every_program_is_on_record_where_that_is_asked_for() {
    let world = web();
    let script =
        "curl -sS https://www.example.com/x; curl -sS --noproxy '*' http://www.example.com/x;
        curl -sS https://other.example.com/x; exit 0";
    for user in User::ALL {
        let run = || world.run_as(user).allow("www.example.com");
        let told = run().args(&["--record-programs"]).client(script).ok();
        let by = |outcome: &Outcome, executable: Option<&str>| {
            let decisions = outcome.events("decision");
            let by =
                decisions.map(|record| (record["reason"].clone(), record["executable"].clone()));
            let expected = ["allowed.rule", "allowed.rule", "denied.default"];
            let expected = expected.map(|reason| (reason.into(), executable.into()));
            assert_eq!(by.collect::<Vec<_>>(), expected, "{outcome:#?}");
        };
        by(&told, Some(&real("/usr/bin/curl")));
        by(&run().client(script).ok(), None);
    }
}

#[test]
fn other_programs_are_refused_at_once_by_every_door() {
    let world = web();
    for user in User::ALL {
        let outcome = refused(
            run(&world, user, "by: [/usr/bin/curl]"),
            &[
                (tcp("www.example.com", 80), "denied.executable"),
                (tcp(at::PUBLIC6, 80), "denied.executable"),
                (connect("www.example.com:443"), "denied.executable"),
                (socks("www.example.com", 443), "denied.executable"),
                (forward("http://www.example.com/"), "denied.executable"),
            ],
        );
        refused_as(&outcome, Some(&real("/usr/bin/python3")));
    }
}

#[test]
fn a_program_is_known_by_what_a_link_to_it_leads_to() {
    let world = web();
    let script = "import urllib.request as r; print(r.urlopen('http://www.example.com/x').read().decode(), end='')";
    for user in User::ALL {
        assert_ne!(
            real("/usr/bin/python3"),
            "/usr/bin/python3",
            "this wants a link"
        );
        let outcome = run(&world, user, "by: [/usr/bin/python3]")
            .python(script)
            .ok();
        assert_eq!(decision(&outcome)["executable"], real("/usr/bin/python3"));
        // And what is called by a link of the sandbox's own is what that leads to.
        let linked = "ln -s /usr/bin/curl wget; ./wget -sS http://www.example.com/x; rm wget";
        let outcome = run(&world, user, "by: [/usr/bin/curl]").client(linked).ok();
        assert_eq!(decision(&outcome)["executable"], real("/usr/bin/curl"));
    }
}

#[test]
fn a_socket_of_ipv6_that_speaks_ipv4_has_a_maker_too() {
    let world = web();
    let script = "
import socket
def speak(host, port, request):
    s = socket.socket(socket.AF_INET6)
    s.connect(('::ffff:' + socket.gethostbyname(host), port))
    s.sendall(request)
    print(s.recv(12).decode())
speak('www.example.com', 80, b'GET / HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n')
speak('localhost', 61081, b'CONNECT www.example.com:80 HTTP/1.1\\r\\nHost: www.example.com:80\\r\\n\\r\\n')
";
    for user in User::ALL {
        let outcome = run(&world, user, "by: [/usr/bin/python3]")
            .python(script)
            .ok();
        assert_eq!(
            outcome.stdout, "HTTP/1.1 200\nHTTP/1.1 200\n",
            "{outcome:#?}"
        );
        assert_eq!(outcome.reasons(), ["allowed.rule"; 2], "{outcome:#?}");
    }
}

#[test]
fn a_program_that_may_not_be_dumped_is_known_all_the_same() {
    let world = web();
    let script = "
import ctypes, urllib.request as r
PR_SET_DUMPABLE = 4
assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
print(r.urlopen('http://www.example.com/x').read().decode(), end='')";
    for user in User::ALL {
        let outcome = run(&world, user, "by: [/usr/bin/python3]")
            .python(script)
            .ok();
        assert_eq!(decision(&outcome)["executable"], real("/usr/bin/python3"));
    }
}

/// What the scripts below begin with.
const SPEAK: &str = "
import os, socket, subprocess, sys, time
def direct(s):
    try:
        s.connect((socket.gethostbyname('www.example.com'), 80))
        s.sendall(b'GET / HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n')
        said = s.recv(4000).decode()
    except OSError as error:
        said = error.strerror
    return said.split('\\r\\n')[0]
def proxy():
    return socket.create_connection(('127.0.0.1', 61081))
def ask(s):
    s.sendall(b'CONNECT www.example.com:443 HTTP/1.1\\r\\nHost: www.example.com:443\\r\\n\\r\\n')
    return s.recv(4000).decode().split('\\r\\n')[0]
";

#[test]
fn a_socket_that_two_processes_hold_is_nobodys() {
    let world = web();
    let script = format!(
        "{SPEAK}
s = socket.socket()
asking = proxy()
child = os.fork()
if child == 0:
    time.sleep(30)
print(direct(s))
print(ask(asking))
os.kill(child, 9)
os.waitpid(child, 0)
print(ask(proxy()))
"
    );
    for user in User::ALL {
        let outcome = run(&world, user, "by: [/usr/bin/python3]")
            .python(&script)
            .ok();
        let lines: Vec<_> = outcome.stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{outcome:#?}");
        assert_ne!(lines[0], "HTTP/1.1 200 OK", "{outcome:#?}");
        assert!(lines[1].starts_with("HTTP/1.1 403"), "{outcome:#?}");
        assert!(
            lines[2].starts_with("HTTP/1.1 200"),
            "one that is not shared: {outcome:#?}"
        );
        let reasons = ["denied.executable", "denied.executable", "allowed.rule"];
        assert_eq!(outcome.reasons(), reasons, "{outcome:#?}");
    }
}

#[test]
fn who_asks_is_who_holds_the_socket_now() {
    let world = web();
    // One that is named makes the connection and gives it to one that is not.
    let taker = format!(
        "{SPEAK}
_, (passed,), _, _ = socket.recv_fds(socket.socket(fileno=int(sys.argv[1])), 1, 1)
print(ask(socket.socket(fileno=passed)))
"
    );
    let script = format!(
        "{SPEAK}
import shutil
shutil.copy('/usr/bin/python3', 'other')
for keep in False, True:
    s, (ours, theirs) = proxy(), socket.socketpair()
    taker = subprocess.Popen(['./other', '-I', '-c', {taker:?}, str(theirs.fileno())],
                             pass_fds=[theirs.fileno()], env={{'PYTHONHOME': '/usr'}})
    socket.send_fds(ours, [b'x'], [s.fileno()])
    if not keep:
        s.close()
    taker.wait()
os.unlink('other')
"
    );
    for user in User::ALL {
        // The environment says where a copy finds its libraries.
        let policy = run(&world, user, "by: [/usr/bin/python3]").env("PYTHONHOME", "/usr");
        let outcome = policy.python(&script).ok();
        assert_eq!(
            outcome.stdout,
            "HTTP/1.1 403 Forbidden\n".repeat(2),
            "{outcome:#?}"
        );
        assert_eq!(outcome.reasons(), ["denied.executable"; 2], "{outcome:#?}");
        let makers: Vec<_> = outcome
            .events("decision")
            .map(|record| record["executable"].as_str())
            .collect();
        let other = format!("{}/project/other", user.home());
        assert_eq!(makers, [Some(other.as_str()), None], "{outcome:#?}");
        outcome.silent();
    }
}

#[test]
fn a_client_that_has_gone_is_nobody() {
    let world = web();
    let script = format!(
        "{SPEAK}
child = os.fork()
if child == 0:
    s = proxy()
    open('ready', 'w')
    while not os.path.exists('go'):
        time.sleep(0.01)
    s.sendall(b'CONNECT www.example.com:443 HTTP/1.1\\r\\nHost: www.example.com:443\\r\\n\\r\\n')
    os._exit(0)
os.waitpid(child, 0)
open('gone', 'w')
time.sleep(0.5)
"
    );
    for user in User::ALL {
        let project = format!("{}/project", user.home());
        let there = |name: &str| world.machine.path(format!("{project}/{name}"));
        let wait_for = |name: &str| {
            let end = Instant::now() + Duration::from_secs(20);
            while !there(name).exists() {
                assert!(Instant::now() < end, "there is no {name}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let run = run(&world, user, "by: [/usr/bin/python3]");
        let live = run.start(&["/usr/bin/python3", "-c", &script]);
        let egret = Pid::from_raw(live.child.id().try_into().unwrap());
        wait_for("ready");
        // While the gateway sleeps, its client says what it wants and ends.
        kill(egret, Signal::SIGSTOP).unwrap();
        world.machine.write(&format!("{project}/go"), "");
        wait_for("gone");
        kill(egret, Signal::SIGCONT).unwrap();
        let outcome = live.finish().ok();
        refused_as(&outcome, None);
    }
}

#[test]
fn a_copy_is_another_program_and_one_without_a_path_is_none() {
    let world = web();
    for user in User::ALL {
        let copy = "cp /usr/bin/curl .; ./curl -sS http://www.example.com/x; rm curl";
        let outcome = run(&world, user, "by: [/usr/bin/curl]").client(copy);
        refused_as(&outcome, Some(&format!("{}/project/curl", user.home())));

        let in_memory = format!(
            "{SPEAK}
f = os.memfd_create('curl')
os.write(f, open('/usr/bin/curl', 'rb').read())
subprocess.run([f'/proc/self/fd/{{f}}', '-sS', 'http://www.example.com/x'], pass_fds=[f])
"
        );
        let outcome = run(&world, user, "by: ['/**']").python(&in_memory);
        refused_as(&outcome, None);

        // It runs, waits for what to fetch, and is deleted, and another one put in its place.
        let replaced = "
cp /usr/bin/curl tool; mkfifo list
./tool -sS -K list & exec 3>list; sleep 0.2; rm tool; cp /usr/bin/curl tool
echo 'url = http://www.example.com/x' >&3; exec 3>&-; wait; rm tool list";
        let outcome = run(&world, user, "by: ['/**']").client(replaced);
        refused_as(&outcome, None);
    }
}

#[test]
fn a_loader_is_not_the_program_that_it_loads() {
    let world = web();
    for user in User::ALL {
        let script = "$(ls /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.* 2>/dev/null | head -1) /usr/bin/curl -sS http://www.example.com/x";
        let outcome = run(&world, user, "by: [/usr/bin/curl]").client(script);
        assert_eq!(outcome.reasons(), ["denied.executable"], "{outcome:#?}");
        let executable = decision(&outcome)["executable"].as_str().unwrap();
        assert!(executable.contains("/ld-linux-"), "{outcome:#?}");
    }
}

#[test]
fn a_user_namespace_is_no_way_to_pass_for_another_program() {
    let world = web();
    // Its mounts could show another file at the path; and a process with all capabilities in a namespace of its own could
    // tell the kernel that it runs another file. Asking how much there is to tell needs no capability.
    let script = "
import ctypes, os, shutil, urllib.request
libc = ctypes.CDLL(None, use_errno=True)
NEW_USER_AND_MOUNTS, MS_BIND, PR_SET_MM, PR_SET_MM_MAP_SIZE = 0x10020000, 0x1000, 35, 15
shutil.copy('/usr/bin/python3', 'evil')
size = ctypes.c_uint()
def say(what, result):
    print(what, os.strerror(ctypes.get_errno()) if result else 'done')
say('unshare', libc.unshare(NEW_USER_AND_MOUNTS))
say('mount', libc.mount(b'evil', b'/usr/bin/curl', None, MS_BIND, None))
say('prctl', libc.prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, ctypes.byref(size), 0, 0))
os.unlink('evil')
try:
    urllib.request.urlopen('http://www.example.com/x')
except OSError as error:
    print(error.code)
";
    for user in User::ALL {
        let run = run(&world, user, "by: [/usr/bin/curl]").args(&["--allow-user-namespaces"]);
        let outcome = run.python(script).ok();
        let said =
            "unshare done\nmount Operation not permitted\nprctl Operation not permitted\n403\n";
        assert_eq!(outcome.stdout, said, "{outcome:#?}");
        refused_as(&outcome, Some(&real("/usr/bin/python3")));
    }
}

#[test]
fn what_a_program_starts_is_under_it() {
    let world = web();
    let curl = "curl -sS http://www.example.com/x";
    let started = format!("import os; os.system('{curl}; exit $?')");
    for user in User::ALL {
        let outcome = run(&world, user, "under: [/usr/bin/python3]")
            .python(&started)
            .ok();
        assert_eq!(
            outcome.stdout, "GET /x for www.example.com, 0 bytes\n",
            "{outcome:#?}"
        );
        let decision = decision(&outcome);
        assert_eq!(decision["executable"], real("/usr/bin/curl"));
        let ancestors = [real("/bin/sh"), real("/usr/bin/python3")];
        assert_eq!(decision["ancestors"], Value::from(ancestors.to_vec()));

        let outcome = run(&world, user, "under: [/usr/bin/python3]").client(curl);
        refused_as(&outcome, Some(&real("/usr/bin/curl")));
        let outcome = run(&world, user, "by: [/usr/bin/python3]").python(&started);
        refused_as(&outcome, Some(&real("/usr/bin/curl")));
    }
}

#[test]
fn an_entry_that_denies_is_about_its_programs_and_those_that_nobody_knows() {
    let world = web();
    let policy = "version: 1
allow: [www.example.com]
deny:
  - host: www.example.com
    by: [/usr/bin/curl]
";
    let shared = format!(
        "{SPEAK}
s = proxy()
print(ask(proxy()))
if os.fork() == 0:
    time.sleep(1)
    os._exit(0)
print(ask(s))
"
    );
    for user in User::ALL {
        let outcome = world
            .run_as(user)
            .policy(policy)
            .client("curl -sS http://www.example.com/x");
        assert_eq!(outcome.reasons(), ["denied.rule"], "{outcome:#?}");
        let outcome = world.run_as(user).policy(policy).python(&shared).ok();
        assert_eq!(
            outcome.reasons(),
            ["allowed.rule", "denied.rule"],
            "{outcome:#?}"
        );
    }
}

#[test]
fn nobody_is_looked_at_where_no_entry_is_about_programs() {
    let world = web();
    let run = world.run_as(User::Root).allow("www.example.com");
    let outcome = run.client("curl -sS http://www.example.com/x").ok();
    assert_eq!(decision(&outcome)["executable"], Value::Null);
}
