//! Sandboxes among each other and over time: many at once, a start that is broken off, what is stopped or paused behind
//! Egret's back. What is not there afterwards, and what works again.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ROWS, furnished, is_like, shell, transcript, until};
use crate::world::engine::Kind;
use crate::world::images::BUSYBOX;
use crate::world::servers::Service;
use crate::world::{World, at};

#[test]
fn many_start_at_once() {
    for (kind, count) in [(Kind::Docker, 20), (Kind::RootlessPodman, 6)] {
        let world = World::with_engine(kind);
        world.import(&BUSYBOX);
        let before = world.engine_holds();
        let start = "egret run --rm busybox sh -c 'sleep 1; echo done; hostname' &";
        let outcome = world.typed(&format!("for i in $(seq {count}); do {start} done; wait"));
        let done = outcome
            .stdout
            .lines()
            .filter(|line| *line == "done")
            .count();
        assert_eq!(
            done, count,
            "{kind:?}: {} {}",
            outcome.stdout, outcome.stderr
        );
        assert_eq!(outcome.stderr, "", "{kind:?}");
        until("all are removed", || world.engine_holds() == before);
        let images = world.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let own = images
            .lines()
            .filter(|image| image.starts_with("localhost/egret:"))
            .count();
        assert_eq!(own, 1, "{kind:?}: {images}");
        // None without a name either, of which several that made it at once would have left all but the last.
        assert_eq!(images.lines().count(), 2, "{kind:?}: {images}");
    }
}

#[test]
fn of_two_that_want_a_name_one_has_it() {
    for kind in ROWS {
        let world = furnished(kind);
        let before = world.engine_holds();
        for pause in ["0", "0", "0.1", "0.4"] {
            let one = "{ egret run -d --name box busybox sleep 1000; echo $?; }";
            let outcome = world.typed(&format!("{one} & sleep {pause}; {one}; wait"));
            let mut lines: Vec<_> = outcome.stdout.lines().collect();
            lines.sort_unstable();
            let complaints: Vec<_> = outcome.stderr.lines().collect();
            assert!(
                complaints
                    .iter()
                    .all(|line| line.starts_with("egret: ") && line.contains("box")),
                "{kind:?} {pause}: {complaints:?}"
            );
            assert_eq!(
                lines,
                ["0", "125", "box"],
                "{kind:?} {pause}: {complaints:?}"
            );
            assert_eq!(complaints.len(), 1, "{kind:?} {pause}: {complaints:?}");
            // All of the one that has it is there, and nothing of the other one.
            transcript(
                &world,
                &[
                    (
                        "egret exec box wget -q -O - http://www.example.net/",
                        1,
                        "",
                        "wget: …403…",
                    ),
                    ("egret ps | wc -l", 0, "2", ""),
                ],
            );
            assert_eq!(
                world.engine_holds().len(),
                before.len() + 4,
                "{kind:?} {pause}"
            );
            transcript(&world, &[("egret rm -f box", 0, "box", "")]);
            assert_eq!(world.engine_holds(), before, "{kind:?} {pause}");
        }
    }
}

#[test]
fn a_start_that_is_broken_off_leaves_nothing() {
    for (kind, moments) in [
        (Kind::Docker, &[1, 60, 130, 250, 400, 700][..]),
        (Kind::RootlessPodman, &[100, 400, 900]),
    ] {
        let world = furnished(kind);
        let before = world.engine_holds();
        let settled = world.machine.processes().len();
        for &moment in moments {
            for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
                let what = format!("{kind:?}: {signal} after {moment} ms");
                let killed = signal == Signal::SIGKILL;
                let run = shell(&world, &["--name", "box"]);
                let mut live = run.start(&[
                    "sh",
                    "-c",
                    "trap 'exit 3' INT TERM; while :; do sleep 0.1; done",
                ]);
                std::thread::sleep(Duration::from_millis(moment));
                let end = Instant::now() + Duration::from_secs(40);
                // Until it has ended: a shell that has only just started does not know yet what to do with the signal. Not
                // at once: Docker's command takes three in a row for impatience, and leaves.
                let mut again = Instant::now();
                while live.child.try_wait().unwrap().is_none() {
                    let now = Instant::now();
                    assert!(now < end, "{what}: it does not end");
                    if now >= again {
                        let _ = kill(Pid::from_raw(live.child.id().cast_signed()), signal);
                        again = now + Duration::from_millis(1500);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                if killed {
                    // What it had started goes on for a moment.
                    std::thread::sleep(Duration::from_millis(1000));
                }
                let end = Instant::now() + Duration::from_secs(20);
                loop {
                    if killed {
                        let removed = world.typed("egret rm -f box");
                        let there_was_none = is_like(
                            removed.stderr.trim_end(),
                            "egret: there is no container sandbox named box…",
                        );
                        assert!(
                            removed.code() == 0 || there_was_none,
                            "{what}: {}",
                            removed.stderr
                        );
                    }
                    let holds = world.engine_holds();
                    if holds == before {
                        break;
                    }
                    assert!(Instant::now() < end, "{what}: {holds:?}");
                    std::thread::sleep(Duration::from_millis(100));
                }
                let outcome = live.finish();
                // (Podman says 127, or even 0, of a workload that it has removed before it asked how it ended, and 1 of one
                // that it was about to start.)
                let usual = killed || [3, 125, 128 + signal as i32].contains(&outcome.code());
                let lost = kind != Kind::Docker && [0, 1, 127].contains(&outcome.code());
                assert!(
                    usual || lost,
                    "{what}: {} {}",
                    outcome.code(),
                    outcome.stderr
                );
            }
        }
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let left = world.machine.processes();
            // Of Podman a process stays that holds its namespace.
            if left.len() <= settled + usize::from(kind == Kind::RootlessPodman) {
                break;
            }
            assert!(Instant::now() < end, "{kind:?}: {left:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn who_removes_a_sandbox_does_not_mind_others_who_do() {
    for kind in ROWS {
        let world = furnished(kind);
        let before = world.engine_holds();
        for _ in 0..3 {
            let live = shell(&world, &["--name", "box"]).start(&["sleep", "300"]);
            until("it runs", || world.typed("egret exec box true").code() == 0);
            // And the one that runs it in the foreground removes it, too, once it has ended.
            let both = world.typed("egret rm -f box & egret rm -f box; wait");
            assert!(!both.stderr.contains("cannot"), "{kind:?}: {}", both.stderr);
            live.finish();
            assert_eq!(world.engine_holds(), before, "{kind:?}");
        }
    }
}

#[test]
fn what_was_to_be_removed_is_even_if_egret_is_killed() {
    for kind in ROWS {
        let world = furnished(kind);
        let before = world.engine_holds();
        world.typed(
            "egret run --rm --name box busybox sh -c 'wget -q -O - http://www.example.net/; touch /tmp/up; sleep 2' >/dev/null 2>&1 &
             until $EGRET_ENGINE exec box ls /tmp/up >/dev/null 2>&1; do sleep 0.1; done; kill -9 $!",
        );
        let holds = world.engine_holds();
        assert!(
            holds.contains(&"container box".to_owned()),
            "{kind:?}: {holds:?}"
        );
        until("it has ended and is removed", || {
            world.engine_holds() == before
        });
        until("its log is kept", || {
            let log = world.typed("egret logs --denied box").stdout;
            log.contains("refused www.example.net:80")
        });
    }
}

#[test]
fn what_is_done_behind_egrets_back_can_be_mended() {
    const GET: &str = "egret exec box timeout 3 wget -q -O - http://www.example.com/";
    // What is done to which container; whether an allowed request works then, where there is a program to make it; what
    // mends it.
    #[rustfmt::skip]
    let table = [
        ("stop --time 1",    "box",               None,        "egret start box"),
        ("kill",             "box",               None,        "egret start box"),
        ("pause",            "box",               None,        "$EGRET_ENGINE unpause box"),
        ("pause",            "box",               None,        "egret restart -t 1 box"),
        ("kill",             "box-egret-gateway", Some(false), "egret start box"),
        ("stop --time 5",    "box-egret-gateway", Some(false), "egret start box"),
        ("pause",            "box-egret-gateway", Some(false), "egret restart -t 1 box"),
        ("kill",             "box-egret-agent",   Some(false), "egret start box"),
        ("stop --time 1",    "box-egret-agent",   Some(false), "egret restart -t 1 box"),
        ("restart --time 1", "box-egret-agent",   Some(false), "egret start box"),
        // The gateway has its listeners; only what is published needs the agent.
        ("pause",            "box-egret-agent",   Some(true),  "$EGRET_ENGINE unpause box-egret-agent"),
    ];
    for kind in ROWS {
        let world = furnished(kind);
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        world.serve("93.184.216.34:80", Service::Http);
        let before = world.engine_holds();
        let start = "egret run -d --name box --resolver 10.20.0.53 --allow www.example.com busybox sleep 1000";
        transcript(
            &world,
            &[
                (start, 0, "box", ""),
                (GET, 0, "GET / for www.example.com…", ""),
            ],
        );
        for (done, container, works, mended) in table {
            // Rootless Podman has no control groups to pause with here.
            if kind == Kind::RootlessPodman && done == "pause" {
                continue;
            }
            let what = format!("{kind:?}: {done} {container}");
            world
                .typed(&format!("$EGRET_ENGINE {done} {container}"))
                .ok();
            if let Some(works) = works {
                let begun = Instant::now();
                let outcome = world.typed(GET);
                assert_eq!(
                    outcome.code() == 0,
                    works,
                    "{what}: {} {}",
                    outcome.stdout,
                    outcome.stderr
                );
                // Refused at once, but by what is only stopped.
                assert!(
                    done == "pause" || begun.elapsed() < Duration::from_secs(2),
                    "{what}: {:?}",
                    begun.elapsed()
                );
            }
            let outcome = world.typed(mended);
            assert_eq!(outcome.code(), 0, "{what}: {mended}: {}", outcome.stderr);
            let outcome = world.typed(GET);
            assert_eq!(
                outcome.code(),
                0,
                "{what}: then {mended}: {}",
                outcome.stderr
            );
            let outcome = world.typed("egret exec box wget -q -O - http://www.example.net/");
            assert_eq!(
                outcome.code(),
                1,
                "{what}: then {mended}: {}",
                outcome.stdout
            );
        }
        transcript(&world, &[("egret rm -f box", 0, "box", "")]);
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn after_a_restart_of_the_daemon_egret_start_brings_sandboxes_back() {
    let world = furnished(Kind::Docker);
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    let before = world.engine_holds();
    let run = "egret run -d --resolver 10.20.0.53 --allow www.example.com";
    world.typed(&format!("{run} --name one busybox sleep 1000; {run} --name two busybox sleep 1000; {run} --rm --name three busybox sleep 1000")).ok();
    world.restart_docker();
    // What was to be removed at its end has ended.
    until("the third one is removed", || {
        !world
            .engine_holds()
            .iter()
            .any(|held| held.contains("three"))
    });
    #[rustfmt::skip]
    let steps: &[_] = &[
        ("egret ps", 0, "NAME…PORTS", ""),
        ("egret ps -a | cut -d' ' -f1", 0, "NAME\none\ntwo", ""),
        ("egret start one two", 0, "one\ntwo", ""),
        ("egret exec one wget -q -O - http://www.example.com/", 0, "GET / for www.example.com…", ""),
        ("egret exec two wget -q -O - http://www.example.com/", 0, "GET / for www.example.com…", ""),
        ("egret exec two wget -q -O - http://www.example.net/", 1, "", "wget: …403…"),
        ("egret rm -f one two", 0, "one\ntwo", ""),
    ];
    transcript(&world, steps);
    assert_eq!(world.engine_holds(), before);
}

/// Some of Docker's commands are not run but asked for at the daemon's socket. Where a script stands for Docker's command, all
/// of them are run, and what comes of it is the same.
#[test]
fn what_dockers_command_does_is_the_same_without_it() {
    let world = furnished(Kind::Docker);
    let before = world.engine_holds();
    let script = r#"printf '#!/bin/sh\necho "$*" >> %s\nexec %s "$@"\n' ~/asked "$(command -v docker)" > bin/docker"#;
    world
        .typed(&format!("mkdir bin; {script}; chmod +x bin/docker"))
        .ok();
    let said = "wget: …403…";
    let record = "…refused www.example.net:80 GET / denied.default…";
    for (variable, name, run) in [
        ("X=", "one", "0"),
        ("DOCKER_HOST=unix:///run/docker.sock", "two", "0"),
        ("PATH=~/project/bin:$PATH", "three", "11"),
    ] {
        let get = |options: &str| {
            format!(
                "{variable} egret run --name {name} {options} busybox wget -q -O - http://www.example.net/"
            )
        };
        let all = "for what in 'image inspect' 'network ls' 'network inspect' 'container inspect' 'ps .*--quiet' \
                'ps .*Names' stop logs 'volume ls' 'volume rm' 'rm --force'; do
                grep -s \"^$what\" ~/asked | head -n 1; done | wc -l";
        transcript(
            &world,
            &[
                (&get("--rm --log-file new.jsonl"), 1, "", said),
                ("egret logs --file new.jsonl", 0, record, ""),
                (
                    "grep -o -e '\"started\"' -e '\"ended\"' new.jsonl; rm new.jsonl",
                    0,
                    "\"started\"\n\"ended\"",
                    "",
                ),
            ],
        );
        assert_eq!(world.engine_holds(), before, "{variable}");
        transcript(
            &world,
            &[
                (&get(""), 1, "", said),
                (&get(""), 125, "", "egret: there is a sandbox …"),
                (&format!("{variable} egret rm {name}"), 0, name, ""),
                (all, 0, run, ""),
            ],
        );
        assert_eq!(world.engine_holds(), before, "{variable}");
    }
}

/// Docker's command can be broken off when it has made the workload and not started it. The engine removes what has ended,
/// and not that.
#[test]
fn a_workload_that_was_only_made_is_removed() {
    let world = furnished(Kind::Docker);
    let before = world.engine_holds();
    let script = r#"printf '#!/bin/sh
        case $* in
            run*role=workload*) shift; %s create "$@" >/dev/null; exit 130 ;;
            *) exec %s "$@" ;;
        esac' "$(command -v docker)" "$(command -v docker)" > bin/docker"#;
    world
        .typed(&format!("mkdir bin; {script}; chmod +x bin/docker"))
        .ok();
    transcript(
        &world,
        &[(
            "PATH=~/project/bin:$PATH egret run --rm --name box busybox true",
            130,
            "",
            "",
        )],
    );
    assert_eq!(world.engine_holds(), before);
}
