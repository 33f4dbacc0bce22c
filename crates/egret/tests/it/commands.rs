//! The commands beside `run`, and what Egret says to people.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::run::Live;
use crate::world::servers::Service;
use crate::world::{User, World, at};

/// Starts a program that waits for its input to end, under a name, and waits until it is listed.
fn running<'w>(world: &'w World, user: User, name: &str, args: &[&str]) -> Live<'w> {
    let live = world
        .run_as(user)
        .args(&["--name", name])
        .args(args)
        .start(&["/bin/cat"]);
    let end = Instant::now() + Duration::from_secs(10);
    while !world.egret(user, &["ps"]).stdout.contains(name) {
        assert!(Instant::now() < end, "{name} is never listed");
        std::thread::sleep(Duration::from_millis(20));
    }
    live
}

#[test]
fn ps_lists_what_runs_and_stop_stops_it() {
    let world = World::new();
    for user in User::ALL {
        assert_eq!(world.egret(user, &["ps"]).ok().stdout.lines().count(), 1);
        let live = running(&world, user, "one", &["--allow", "www.example.com"]);
        let table = || world.egret(user, &["ps"]).ok().stdout;
        assert!(
            table().trim_end().ends_with("  --allow www.example.com"),
            "{}",
            table()
        );
        world.egret(user, &["policy", "set", "one", "none"]).ok();
        assert!(
            table()
                .trim_end()
                .ends_with("  none --allow www.example.com"),
            "{}",
            table()
        );
        let log = world.egret(user, &["logs", "one"]).ok().stdout;
        assert!(
            log.contains("replaced none --allow www.example.com ["),
            "{log}"
        );
        let inspected = world.egret(user, &["inspect", "one"]);
        assert!(
            inspected.stderr.contains("the sandbox of a program"),
            "{inspected:#?}"
        );
        let listed: Value =
            serde_json::from_str(&world.egret(user, &["ps", "--output", "json"]).ok().stdout)
                .unwrap();
        assert_eq!(listed[0]["name"], "one");
        assert_eq!(listed[0]["allow"][0], "www.example.com");
        assert_eq!(listed[0]["program"], "/bin/cat");
        let again = world
            .run_as(user)
            .args(&["--name", "one"])
            .client("echo RAN");
        assert_eq!(
            (again.code(), again.stdout.as_str()),
            (125, ""),
            "{again:#?}"
        );
        assert!(again.stderr.contains("one"), "{again:#?}");
        let stopped = world.egret(user, &["stop", "one"]).ok();
        assert_eq!(stopped.stdout, "one\n");
        assert_eq!(live.finish().code(), 128 + 15);
        assert_eq!(world.egret(user, &["ps"]).ok().stdout.lines().count(), 1);
        let outcome = world.egret(user, &["stop", "one"]);
        assert_ne!(outcome.code(), 0);
        assert!(outcome.stderr.contains("one"), "{outcome:#?}");
    }
}

#[test]
fn stop_ends_a_program_that_will_not() {
    let world = World::new();
    let live = world
        .run_as(User::Alice)
        .args(&["--name", "stubborn"])
        .start(&[
            "/bin/bash",
            "-c",
            "trap '' TERM; while :; do sleep 0.1; done",
        ]);
    std::thread::sleep(Duration::from_millis(700));
    let start = Instant::now();
    world
        .egret(User::Alice, &["stop", "--time", "1", "stubborn"])
        .ok();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(live.finish().code(), 128 + 9);
}

#[test]
fn a_program_that_stops_itself_can_be_listed_and_stopped() {
    let world = World::new();
    for user in User::ALL {
        for ended_by in ["stop", "a signal"] {
            // Without a terminal, so that nobody is there to continue what has stopped.
            let live = world
                .run_as(user)
                .through(&["setsid", "--wait"])
                .args(&["--name", "stopped"])
                .start(&[
                    "/bin/sh",
                    "-c",
                    "(while :; do sleep 0.1; done) & kill -STOP $$; wait",
                ]);
            std::thread::sleep(Duration::from_millis(900));
            let start = Instant::now();
            let said = world.egret(user, &["ps", "--output", "json"]).ok().stdout;
            let listed: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(listed[0]["name"], "stopped", "{user:?}: {said}");
            match ended_by {
                "stop" => {
                    world.egret(user, &["stop", "--time", "2", "stopped"]).ok();
                }
                _ => {
                    let pid = &listed[0]["pid"];
                    world.machine.sh(&format!("kill -TERM {pid}"));
                }
            }
            let outcome = live.finish();
            assert!(
                start.elapsed() < Duration::from_secs(6),
                "{user:?} {ended_by}: {:?}",
                start.elapsed()
            );
            // setsid(1) gives the number of a signal as its status.
            assert!(
                [15, 9].contains(&outcome.code()),
                "{user:?} {ended_by}: {outcome:#?}"
            );
            assert_eq!(world.machine.processes(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_name_that_another_user_holds_keeps_nobody_waiting() {
    let world = World::new();
    for user in User::ALL {
        // Names like those of the user's sandboxes, behind which nobody answers: one whose backlog is full, one that is silent.
        let squatter = format!(
            "
import socket, time
held = []
for name, backlog in ((b'\\0egret/{0}/full', 0), (b'\\0egret/{0}/silent', 100)):
    s = socket.socket(socket.AF_UNIX); s.bind(name); s.listen(backlog); held.append(s)
    while backlog == 0:
        c = socket.socket(socket.AF_UNIX); c.setblocking(False); held.append(c)
        try: c.connect(name)
        except BlockingIOError: break
print('ready', flush=True)
time.sleep(1000)
",
            user.id()
        );
        let mut command = std::process::Command::new("setpriv");
        command
            .args(["--reuid", "23456", "--regid", "23456", "--clear-groups"])
            .args(["/usr/bin/python3", "-c", &squatter])
            .stdout(std::process::Stdio::piped());
        let mut squatter = world.machine.spawn(command).unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(squatter.stdout.as_mut().unwrap(), &mut ready).unwrap();

        let live = running(&world, user, "mine", &[]);
        let start = Instant::now();
        for args in [
            &["ps"][..],
            &["logs", "full"],
            &["logs", "mine"],
            &["stop", "full"],
            &["stop", "silent"],
            &["policy", "set", "full", "/srv/passwd"],
        ] {
            let outcome = world.egret(user, args);
            let mine = matches!(args, ["ps"] | [_, "mine"]);
            assert_eq!(outcome.code() == 0, mine, "{user:?} {args:?}: {outcome:#?}");
            if args == ["ps"] {
                assert!(
                    outcome.stdout.contains("mine") && outcome.stdout.lines().count() == 2,
                    "{outcome:#?}"
                );
            }
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        world.egret(user, &["stop", "mine"]).ok();
        assert_eq!(live.finish().code(), 128 + 15);
        squatter.kill().unwrap();
        squatter.wait().unwrap();
    }
}

#[test]
fn other_users_sandboxes_are_not_listed_nor_stopped() {
    let world = World::new();
    let live = running(&world, User::Root, "roots", &[]);
    assert!(
        !world
            .egret(User::Alice, &["ps"])
            .ok()
            .stdout
            .contains("roots")
    );
    for args in [
        &["stop", "roots"][..],
        &["policy", "set", "roots", "/srv/passwd"],
    ] {
        assert_ne!(world.egret(User::Alice, args).code(), 0);
    }
    live.finish().ok();
}

#[test]
fn logs_shows_records_for_people_and_machines() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    for user in User::ALL {
        let run = world
            .run_as(user)
            .log(None)
            .args(&["--name", "talker"])
            .allow("www.example.com");
        run.client("curl -s http://www.example.com/; curl -s http://evil.test/")
            .ok();
        let all = world.egret(user, &["logs", "talker"]).ok().stdout;
        assert!(
            all.contains("www.example.com")
                && all.contains("evil.test")
                && all.contains("denied.default"),
            "{all}"
        );
        let denied = world.egret(user, &["logs", "--denied"]).ok().stdout;
        assert!(
            !denied.contains("www.example.com") && denied.contains("evil.test"),
            "{denied}"
        );
        let json = world
            .egret(user, &["logs", "talker", "--output", "json"])
            .ok()
            .stdout;
        let records: Vec<Value> = json
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(
            records
                .iter()
                .any(|record| record["event"] == "decision" && record["host"] == "evil.test"),
            "{json}"
        );
        for (options, wanted) in [
            (&["--reason", "denied"][..], "evil.test"),
            (&["--host", "evil.*"], "evil.test"),
            (
                &["--verdict", "allow", "--host", "*.example.com"],
                "www.example.com",
            ),
            (
                &[
                    "--since",
                    "1h",
                    "--until",
                    "2100-01-01",
                    "--host",
                    "93.184.216.34",
                ],
                "www.example.com",
            ),
        ] {
            let words: Vec<_> = ["logs", "talker"].iter().chain(options).copied().collect();
            let shown = world.egret(user, &words).ok().stdout;
            let hosts = ["evil.test", "www.example.com"].map(|host| shown.contains(host));
            assert_eq!(
                hosts,
                ["evil.test", "www.example.com"].map(|host| host == wanted),
                "{options:?}: {shown}"
            );
        }
        let none = world
            .egret(user, &["logs", "talker", "--until", "2000-01-01"])
            .ok();
        assert!(
            none.stdout.is_empty() && none.stderr.contains("there is no such record"),
            "{none:#?}"
        );
        // A sandbox that nobody named is found by its program, and all of them at once.
        world
            .run_as(user)
            .log(None)
            .client("curl -s http://other.test/")
            .ok();
        let by_program = world.egret(user, &["logs", "sh", "--denied"]).ok().stdout;
        assert!(
            by_program.contains("other.test") && !by_program.contains("evil.test"),
            "{by_program}"
        );
        let all = world
            .egret(user, &["logs", "--all", "--denied"])
            .ok()
            .stdout;
        let lines: Vec<_> = all.lines().collect();
        assert!(
            matches!(lines[..], [.., first, last] if first.starts_with("talker ") && first.contains("evil.test")
                && last.starts_with("sh-") && last.contains("other.test")),
            "{all}"
        );
        let asked = world.egret(user, &["explain", "other.test"]);
        assert!(
            asked.stdout.contains("other.test:80 is denied") && asked.stdout.contains("Lately"),
            "{asked:#?}"
        );
        // What did not come to its start is no newest log.
        let bad = world
            .run_as(user)
            .log(None)
            .args(&["--write", "/nowhere"])
            .client("true");
        assert_eq!(bad.code(), 125, "{bad:#?}");
        assert_eq!(
            world.egret(user, &["logs", "--denied"]).ok().stdout,
            by_program
        );
        let bad = world.egret(user, &["logs", "--since", "yesterday"]);
        assert!(bad.stderr.contains("how long ago, as 10m"), "{bad:#?}");
        assert_ne!(world.egret(user, &["logs", "nobody"]).code(), 0);
    }
}

#[test]
fn logs_can_be_followed_until_the_end() {
    let world = World::new();
    let live = running(&world, User::Alice, "followed", &[]);
    // The log of a run whose file was named is found by name, too.
    let by_name = ["/srv/bin/egret", "logs", "-f", "followed"].map(str::to_owned);
    let mut command = world.command_as(User::Alice, "/home/alice", &[], &by_name);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut follower = world.machine.spawn(command).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(follower.try_wait().unwrap().is_none(), "it does not follow");
    live.finish().ok();
    let status = crate::world::machine::wait_at_most(&mut follower, Duration::from_secs(10));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[test]
fn sighup_reads_the_policy_again() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    for user in User::ALL {
        let script = "get() { curl -s -o /dev/null -w '%{http_code}\\n' http://www.example.com/; }; get; read x; get; read x; get; read x; get";
        let mut live = world
            .run_as(user)
            .policy("version: 1\n")
            .start(&["/bin/sh", "-c", script]);
        std::thread::sleep(Duration::from_millis(900));
        let policy = format!("{}/policy.yaml", user.home());
        for text in [
            "version: 1\nallow: [www.example.com]\n",
            "version: 1\nallow: {broken\n",
            "version: 1\n",
        ] {
            // As editors do it: a new file in place of the old one.
            world.machine.write(&format!("{policy}.new"), text);
            world.machine.sh(&format!("mv {policy}.new {policy}"));
            kill(
                Pid::from_raw(i32::try_from(live.child.id()).unwrap()),
                Signal::SIGHUP,
            )
            .unwrap();
            std::thread::sleep(Duration::from_millis(400));
            std::io::Write::write_all(live.stdin.as_mut().unwrap(), b"\n").unwrap();
            std::thread::sleep(Duration::from_millis(400));
        }
        let outcome = live.finish().ok();
        // Refused, allowed, still allowed after the broken file, refused again.
        assert_eq!(
            outcome.stdout, "403\n200\n200\n403\n",
            "{user:?}: {outcome:#?}"
        );
    }
}

#[test]
fn the_summary_groups_what_was_refused() {
    let world = World::new();
    let client = "for i in 1 2 3; do curl -s https://evil.test/; done; curl -s http://10.20.0.7/ >/dev/null; true";
    let outcome = world
        .run_as(User::Alice)
        .args(&["--summary"])
        .client(client)
        .ok();
    assert!(
        outcome.stderr.contains("evil.test:443")
            && outcome.stderr.contains('3')
            && outcome.stderr.contains("--allow evil.test"),
        "{outcome:#?}"
    );
    assert!(
        !outcome.stderr.contains('\u{1b}'),
        "colour without a terminal: {outcome:#?}"
    );
    let outcome = world
        .run_as(User::Alice)
        .args(&["--output", "json"])
        .client(client)
        .ok();
    let line = outcome.stderr.lines().last().unwrap_or_default();
    let parsed: Result<Value, _> =
        serde_json::from_str(line).or_else(|_| serde_json::from_str(&outcome.stderr));
    assert!(parsed.is_ok(), "{outcome:#?}");
    // Without a terminal, and without being asked, nothing is said.
    assert_eq!(
        world
            .run_as(User::Alice)
            .client("curl -s https://evil.test/; true")
            .ok()
            .stderr,
        ""
    );
}

#[test]
fn bad_input_gives_one_clear_sentence_and_125() {
    let world = World::new();
    world
        .machine
        .write("/srv/broken.yaml", "version: 1\nallwo: [a.example.com]\n");
    world
        .machine
        .write("/srv/old.yaml", "allow: [a.example.com]\n");
    #[rustfmt::skip]
    let table: [(&[&str], &str); 14] = [
        (&["--allow", "*"],                         "*"),
        (&["--allow", "*.com"],                     "*.com"),
        (&["--allow", "www.example.com:0"],         "www.example.com:0"),
        (&["--allow", "www.example.com:http"],      "www.example.com:http"),
        (&["--allow", ""],                          "--allow"),
        (&["--deny", "bad host"],                   "bad host"),
        (&["--policy", "/nowhere.yaml"],            "/nowhere.yaml"),
        (&["--policy", "/srv/broken.yaml"],         "allwo"),
        (&["--policy", "/srv/old.yaml"],            "version"),
        (&["--allow-docker-gateway=x"],             "x"),
        (&["--name", "No Good"],                    "No Good"),
        (&["--env-file", "/nowhere.env"],           "/nowhere.env"),
        (&["--resolver", "not-an-address"],         "not-an-address"),
        (&["--workdir", "/nowhere"],                "/nowhere"),
    ];
    for user in User::ALL {
        for (args, named) in table {
            let outcome = world.run_as(user).args(args).client("echo RAN");
            assert_eq!(
                (outcome.code(), outcome.stdout.as_str()),
                (125, ""),
                "{args:?}: {outcome:#?}"
            );
            assert!(outcome.stderr.contains(named), "{args:?}: {outcome:#?}");
            assert!(
                !outcome.stderr.contains("panicked") && outcome.stderr.lines().count() <= 12,
                "{args:?}: {outcome:#?}"
            );
            assert_eq!(outcome.records.len(), 0, "{outcome:#?}");
        }
        assert_eq!(world.egret(user, &["run"]).code(), 125);
        assert_eq!(world.egret(user, &["no-such-command"]).code(), 125);
        assert_eq!(
            world
                .egret(user, &["run", "--no-such-flag", "--", "true"])
                .code(),
            125
        );
        assert_eq!(world.egret(user, &["--help"]).code(), 0);
        assert_eq!(world.egret(user, &["run", "--help"]).code(), 0);
        assert_eq!(world.egret(user, &["--version"]).code(), 0);
    }
}

#[test]
fn policies_are_checked_and_explained_without_the_network() {
    let world = World::new();
    world.machine.write(
        "/srv/good.yaml",
        "version: 1\nallow:\n  - api.github.com\ndeny: [gist.github.com]\n",
    );
    world
        .machine
        .write("/srv/broken.yaml", "version: 1\nallow:\n  - '*.com'\n");
    let user = User::Alice;
    assert_eq!(
        world
            .egret(user, &["policy", "check", "/srv/good.yaml"])
            .code(),
        0
    );
    let broken = world.egret(
        user,
        &["policy", "check", "/srv/good.yaml", "/srv/broken.yaml"],
    );
    assert_eq!(broken.code(), 2, "{broken:#?}");
    let said = format!("{}{}", broken.stdout, broken.stderr);
    assert!(
        said.contains("broken.yaml:3") && said.contains('^'),
        "{said}"
    );
    for (destination, code, reason) in [
        ("api.github.com:443", 0, "allowed.rule"),
        ("https://api.github.com/x", 0, "allowed.rule"),
        ("gist.github.com", 1, "denied.rule"),
        ("169.254.169.254:80", 1, "denied.address.metadata"),
        ("api.github.com:22", 1, "denied.port"),
        ("http://0x7f.1/", 1, "denied.address.loopback"),
    ] {
        let outcome = world.egret(
            user,
            &[
                "policy",
                "explain",
                "--output",
                "json",
                "/srv/good.yaml",
                destination,
            ],
        );
        assert_eq!(outcome.code(), code, "{destination}: {outcome:#?}");
        let explained: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(explained["reason"], reason, "{destination}: {outcome:#?}");
    }
    assert_eq!(
        world
            .egret(
                user,
                &["policy", "explain", "/nowhere.yaml", "a.example.com"]
            )
            .code(),
        2
    );
    world.assert_silent();
}

#[test]
fn where_user_namespaces_are_switched_off_one_sentence_says_what_to_do() {
    let world = World::new();
    let off = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    for user in User::ALL {
        let outcome = world
            .run_as(user)
            .log(None)
            .through(&[
                "unshare",
                "--user",
                "--map-root-user",
                "sh",
                "-c",
                off,
                "sh",
            ])
            .client("echo started");
        assert_eq!(outcome.code(), 125, "{outcome:#?}");
        assert_eq!(outcome.stdout, "");
        assert!(
            outcome
                .stderr
                .contains("sudo sysctl user.max_user_namespaces"),
            "{outcome:#?}"
        );
        assert_eq!(outcome.stderr.trim().lines().count(), 1, "{outcome:#?}");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let world = World::new();
    world
        .machine
        .sh("/srv/bin/egret completion bash >/srv/completion");
    for (words, wanted) in [
        ("egret ver", "verify"),
        ("egret logs --si", "--since"),
        ("egret policy ex", "explain"),
        ("egret run --allow-d", "--allow-docker-gateway"),
    ] {
        let line = format!(
            "bash -c '. /srv/completion; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _egret egret \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo ${{COMPREPLY[@]}}'"
        );
        assert_eq!(world.machine.sh(&line).trim(), wanted, "{words}");
    }
    for shell in ["zsh", "fish"] {
        let script = world.egret(User::Alice, &["completion", shell]).ok().stdout;
        assert!(
            script.contains("verify") && script.contains("since"),
            "{shell}"
        );
    }
}
