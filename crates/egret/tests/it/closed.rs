//! Fails closed: when a part of Egret dies or runs out of something, nothing passes, and nothing is left behind.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::dns::Reply;
use crate::world::servers::Service;
use crate::world::{User, World, at};

/// A world with an allowed web server, and what belongs to it before anything was run.
fn web() -> (World, Vec<String>) {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    world.serve("93.184.216.34:7000", Service::Echo);
    let before = world.belongings();
    (world, before)
}

/// Fails if the machine has anything it had not before, but for the logs.
#[track_caller]
fn nothing_left(world: &World, before: &[String]) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let mut new = world.belongings();
        // Logs, and the directories they are in, are there to stay.
        new.retain(|thing| {
            !before.contains(thing)
                && !thing.contains("audit")
                && !thing.contains(".local")
                && !thing.contains("/out")
        });
        if new.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind: {new:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program that holds a connection open, and after a line of input uses it and tries a new one.
const HOLD: &str = "
import socket, sys, time
s = socket.create_connection(('www.example.com', 7000)); s.send(b'a'); s.recv(1)
open('out', 'w').write('connected\\n')
time.sleep(1.5)
log = open('out', 'a')
for what in (lambda: s.send(b'late') and s.recv(1), lambda: socket.create_connection(('www.example.com', 7000), 2).send(b'late')):
    try: log.write('%s\\n' % what())
    except OSError as e: log.write('failed\\n')
    log.flush()
time.sleep(100)
";

fn wait_for(world: &World, path: &str, text: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(world.machine.path(path))
        .unwrap_or_default()
        .contains(text)
    {
        assert!(Instant::now() < end, "{path} never says {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_ordinary_run_leaves_nothing_but_its_log() {
    let (world, before) = web();
    for user in User::ALL {
        for client in [
            "true",
            "curl -s http://www.example.com/ >/dev/null",
            "exit 3",
            "kill -9 $$",
            "sleep 100 & setsid sleep 100 & true",
        ] {
            world.run_as(user).allow("www.example.com").client(client);
            nothing_left(&world, &before);
        }
    }
}

#[test]
fn when_egret_is_killed_the_sandbox_is_gone() {
    let (world, before) = web();
    for user in User::ALL {
        let live = world.run_as(user).allow("www.example.com:7000").start(&[
            "/usr/bin/python3",
            "-c",
            HOLD,
        ]);
        wait_for(&world, &format!("{}/project/out", user.home()), "connected");
        let killed = Instant::now();
        kill(
            Pid::from_raw(i32::try_from(live.child.id()).unwrap()),
            Signal::SIGKILL,
        )
        .unwrap();
        let outcome = live.finish();
        assert_eq!(outcome.code(), 128 + 9);
        nothing_left(&world, &before);
        assert!(killed.elapsed() < Duration::from_secs(2));
        world.machine.sh(&format!("rm {}/project/out", user.home()));
    }
}

#[test]
fn while_egret_is_stopped_nothing_passes() {
    let (world, _) = web();
    for user in User::ALL {
        let live = world.run_as(user).allow("www.example.com:7000").start(&[
            "/usr/bin/python3",
            "-c",
            HOLD,
        ]);
        let out = format!("{}/project/out", user.home());
        wait_for(&world, &out, "connected");
        let pid = Pid::from_raw(i32::try_from(live.child.id()).unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        world.wire.forget();
        std::thread::sleep(Duration::from_millis(2500));
        let packets = world.packets();
        assert!(
            packets.iter().all(|packet| packet.payload.is_empty()),
            "{packets:#?}"
        );
        kill(pid, Signal::SIGKILL).unwrap();
        live.finish();
        world.machine.sh(&format!("rm {out}"));
    }
}

#[test]
fn what_cannot_be_recorded_does_not_pass() {
    let (world, _) = web();
    // Also where the log is to be continued in a new file, for which there is no room.
    let split = ["--hide", "/srv/full", "--log-max-size", "2K"];
    for (user, args) in User::ALL
        .into_iter()
        .flat_map(|user| [(user, &[][..]), (user, &split[..])])
    {
        let full = format!(
            "mkdir -p /srv/full; mount -t tmpfs -o size=8k,mode=777 none /srv/full; exec setpriv --reuid {0} --regid {0} --clear-groups \"$@\"",
            user.id()
        );
        let script = "get() { curl -s -m 20 -o /dev/null -w '%{http_code} ' http://www.example.com/; }; \
                      for i in $(seq 60); do got=$(get); printf '%s' \"$got\"; [ \"$got\" = '200 ' ] || break; done; get; true";
        // The shell that mounts has to be root, in a mount namespace of its own.
        let run = world
            .run_as(user)
            .allow("www.example.com")
            .args(args)
            .log(Some("/srv/full/audit.jsonl"))
            .within(Duration::from_secs(100));
        let inner = run.command(&["/bin/sh", "-c", script]);
        let mut words = vec![
            "unshare".to_owned(),
            "-m".into(),
            "/bin/sh".into(),
            "-euc".into(),
            full,
            "sh".into(),
        ];
        words.extend(
            inner
                .get_args()
                .skip_while(|word| *word != "/srv/bin/egret")
                .map(|word| word.to_string_lossy().into_owned()),
        );
        let mut command = world.command_as(
            User::Root,
            &format!("{}/project", user.home()),
            &[("HOME".into(), user.home().into())],
            &words,
        );
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        world.wire.forget();
        let output = world
            .machine
            .spawn(command)
            .unwrap()
            .wait_with_output()
            .unwrap();
        let (said, errors) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        let served = said.matches("200").count();
        assert!(served < 60 && served > 0, "{user:?}: {said} {errors}");
        // As many requests went out as two pages of log have room for decisions.
        let asked = world
            .packets()
            .iter()
            .filter(|packet| packet.payload.starts_with(b"GET /"))
            .count();
        assert!(
            asked <= 8192 / 150,
            "{user:?}: {asked} requests passed; {said} {errors}"
        );
        assert!(
            !said.trim_end().ends_with("200"),
            "{user:?}: {said} {errors}"
        );
    }
}

#[test]
fn a_log_that_cannot_be_opened_stops_the_start() {
    let (world, before) = web();
    for user in User::ALL {
        for log in ["/nowhere/audit.jsonl", "/proc/audit.jsonl", "/srv"] {
            let outcome = world
                .run_as(user)
                .log(None)
                .args(&["--log-file", log])
                .client("echo RAN");
            assert_eq!(
                (outcome.code(), outcome.stdout.as_str()),
                (125, ""),
                "{outcome:#?}"
            );
            assert!(outcome.stderr.contains(log), "{outcome:#?}");
            nothing_left(&world, &before);
        }
    }
}

#[test]
fn without_descriptors_nothing_fails_open() {
    let (world, before) = web();
    for user in User::ALL {
        for limit in [3, 5, 8, 12, 16, 20, 24, 32, 64] {
            let nofile = format!("--nofile={limit}");
            let run = world.run_as(user).through(&["prlimit", &nofile]);
            let outcome = run
                .allow("www.example.com")
                .client("echo RAN; curl -s -m 5 http://93.184.216.34:7000/ | head -c 20; true");
            assert!(!outcome.reached(at::PUBLIC, 7000), "{limit}: {outcome:#?}");
            if outcome.code() == 125 {
                assert_eq!(outcome.stdout, "", "{outcome:#?}");
                assert!(
                    !outcome.stderr.is_empty() && !outcome.stderr.contains("panicked"),
                    "{limit}: {outcome:#?}"
                );
            } else {
                assert!(outcome.stdout.starts_with("RAN"), "{limit}: {outcome:#?}");
            }
        }
        let script = "
import socket
held = []
for n in range(200):
    try:
        s = socket.create_connection(('www.example.com', 7000), 3); s.send(b'x'); s.settimeout(3); s.recv(1); held.append(s)
    except OSError: pass
print(0 < len(held) < 200)
for s in held: s.close()
import time; time.sleep(1)
s = socket.create_connection(('www.example.com', 7000), 3); s.send(b'again'); print(s.recv(5))
";
        let run = world
            .run_as(user)
            .through(&["prlimit", "--nofile=100:100"])
            .allow("www.example.com:7000")
            .within(Duration::from_secs(90));
        let outcome = run.python(&format!("import resource\n{script}"));
        assert!(outcome.stdout.ends_with("b'again'\n"), "{outcome:#?}");
        nothing_left(&world, &before);
    }
}

#[test]
fn a_resolver_that_fails_lets_nothing_through() {
    let (world, _) = web();
    world.dns.script("silent.example.com", vec![Reply::Silence]);
    world
        .dns
        .script("failing.example.com", vec![Reply::ServFail]);
    world
        .dns
        .script("garbage.example.com", vec![Reply::Garbage]);
    world.dns.script(
        "late.example.com",
        vec![Reply::After(
            Duration::from_millis(300),
            Box::new(Reply::records(&[at::PUBLIC])),
        )],
    );
    world.dns.script(
        "long.example.com",
        vec![Reply::Truncated(vec![crate::world::dns::Data::Address(
            at::PUBLIC.parse().unwrap(),
        )])],
    );
    for (name, code) in [
        ("silent", "502"),
        ("failing", "502"),
        ("garbage", "502"),
        ("late", "200"),
        ("long", "200"),
    ] {
        let client =
            format!("curl -s -o /dev/null -w '%{{http_code}}' -m 20 http://{name}.example.com/");
        let outcome = world
            .run_as(User::Alice)
            .allow("*.example.com")
            .client(&client);
        assert!(
            outcome.stdout == code || (code == "502" && outcome.stdout == "504"),
            "{name}: {outcome:#?}"
        );
        if code != "200" {
            assert_eq!(outcome.packets, [], "{outcome:#?}");
            outcome.decided("denied.resolution", &format!("{name}.example.com"), 80);
        }
    }
    // No resolver at all.
    let run = world
        .run_as(User::Alice)
        .args(&["--resolver", "10.20.0.99"])
        .allow("*.example.com");
    let outcome =
        run.client("curl -s -o /dev/null -w '%{http_code}' -m 20 http://www.example.com/");
    assert!(
        ["200", "502", "504"].contains(&outcome.stdout.as_str()),
        "{outcome:#?}"
    );
}

#[test]
fn without_user_namespaces_nothing_is_started() {
    let (world, before) = web();
    world.machine.sh("true");
    let run = world.run_as(User::Alice).through(&[
        "unshare",
        "-U",
        "--map-current-user",
        "/bin/sh",
        "-c",
        "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$@\"",
        "sh",
    ]);
    let outcome = run.client("echo RAN");
    assert!(!outcome.stdout.contains("RAN"), "{outcome:#?}");
    assert_ne!(outcome.code(), 0);
    nothing_left(&world, &before);
}

#[test]
fn a_process_group_from_outside_its_process_namespace_is_no_trouble() {
    // As `unshare --pid --fork` and `docker exec` start things: the group of the process has no number inside.
    let (world, _) = web();
    let run = world.run_as(User::Root).through(&[
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ]);
    let outcome = run.client("echo RAN").ok();
    assert_eq!(outcome.stdout, "RAN\n", "{outcome:#?}");
}

#[test]
fn a_reader_that_goes_away_does_not_hang_egret() {
    let (world, before) = web();
    let mut live = world
        .run_as(User::Alice)
        .start(&["/bin/sh", "-c", "read line; echo got $line"]);
    live.stdin.as_mut().unwrap().write_all(b"it\n").unwrap();
    assert_eq!(live.finish().ok().stdout, "got it\n");
    nothing_left(&world, &before);
}
