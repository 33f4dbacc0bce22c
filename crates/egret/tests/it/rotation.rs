//! A log that is split by its size: nothing of it is lost, and whoever reads it reads all of it.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use crate::world::machine::wait_at_most;
use crate::world::servers::Service;
use crate::world::{User, World, at};

const REQUESTS: &str = "for i in $(seq 60); do curl -s -o /dev/null http://www.example.com/; curl -s -o /dev/null http://x$i.test/; done; true";

fn web() -> World {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    world
}

#[test]
fn all_parts_are_one_log_to_whoever_reads_it() {
    let world = web();
    for user in User::ALL {
        let args = [
            "--name",
            "talker",
            "--log-max-size",
            "4K",
            "--allow",
            "www.example.com",
        ];
        let live = world.run_as(user).log(None).args(&args).start(&[
            "/bin/sh",
            "-c",
            &format!("sleep 1; {REQUESTS}"),
        ]);
        std::thread::sleep(Duration::from_millis(500));
        let follow = ["/srv/bin/egret", "logs", "-f", "talker", "--output", "json"];
        let mut follower = world.command_as(user, "/", &[], &follow.map(str::to_owned));
        follower.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut follower = world.machine.spawn(follower).unwrap();
        let followed = crate::world::machine::drain(follower.stdout.take().unwrap());
        live.finish().ok();
        let status = wait_at_most(&mut follower, Duration::from_secs(10));
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        let followed = String::from_utf8(followed.join().unwrap()).unwrap();
        let all = world
            .egret(user, &["logs", "talker", "--output", "json"])
            .ok()
            .stdout;
        assert_eq!(followed, all);
        let lines: HashSet<_> = all.lines().collect();
        assert_eq!(lines.len(), all.lines().count());
        // Allowed ones have a decision and a close, refused ones a decision.
        let about = |name: &str| all.lines().filter(|line| line.contains(name)).count();
        assert_eq!(about("\"event\":\"close\""), 60, "{all}");
        assert!((1..=60).all(|i| about(&format!("\"host\":\"x{i}.test\"")) == 1));
        let logs = format!("{}/.local/state/egret/logs", user.home());
        let files = world
            .machine
            .sh(&format!("ls {logs}/talker-*.jsonl.* | wc -l"));
        assert!(files.trim().parse::<u32>().unwrap() > 3, "{files}");
        // The first record of all explains the last one.
        let last = all
            .lines()
            .rev()
            .find(|line| line.contains("x60.test"))
            .unwrap();
        let record: serde_json::Value = serde_json::from_str(last).unwrap();
        let id = record["id"].as_str().unwrap();
        let told = world.egret(user, &["explain", "--id", id]);
        assert!(told.stdout.contains("(denied.default)"), "{told:#?}");
    }
}

#[test]
fn the_program_sees_no_part_of_its_log() {
    let world = web();
    for user in User::ALL {
        let home = user.home();
        let split = |log: &str| {
            let run = world.run_as(user).log(Some(log));
            run.args(&["--log-max-size", "2K", "--allow", "www.example.com"])
        };
        for log in [
            format!("{home}/project/audit.jsonl"),
            "/srv/audit.jsonl".to_owned(),
        ] {
            world.machine.sh("chmod 777 /srv");
            let outcome = split(&log).client("echo RAN");
            assert_eq!(
                (outcome.code(), outcome.stdout.as_str()),
                (125, ""),
                "{outcome:#?}"
            );
            assert!(outcome.stderr.contains("--hide"), "{outcome:#?}");
            world.machine.sh(&format!("rm {log}"));
        }
        let directory = format!("{home}/project/logs");
        world.machine.sh(&format!(
            "mkdir {directory}; chown {0}:{0} {directory}",
            user.id()
        ));
        for (log, hide) in [
            (format!("{directory}/audit.jsonl"), true),
            (format!("/tmp/egret-{}.jsonl", user.id()), false),
        ] {
            let run = split(&log).args(if hide { &["--hide", "logs"] } else { &[] });
            let find = format!(
                "{REQUESTS}; find /home /root /tmp /srv -name '*audit*' -o -name 'egret-*.jsonl*' 2>/dev/null; true"
            );
            let outcome = run.client(&find);
            assert_eq!(outcome.stdout, "", "{outcome:#?}");
            let parts = world.machine.sh(&format!("ls {log}.*; rm {log}*"));
            assert!(parts.lines().count() > 3, "{parts}");
        }
        world.machine.sh(&format!("rmdir {directory}"));
    }
}

#[test]
fn what_the_program_puts_beside_its_log_is_no_part_of_it() {
    let world = web();
    for user in User::ALL {
        let log = format!("{}/project/audit.jsonl", user.home());
        let forged = r#"{"v":1,"time":"2026-11-22T00:00:00Z","id":"aaaaaa-1","sandbox":"s","event":"decision","verdict":"allow","reason":"allowed.rule","door":"captured","host":"forged.example.com","port":443,"addresses":["93.184.216.34"],"dialled":"93.184.216.34:443"}"#;
        let client = format!("echo '{forged}' > audit.jsonl.1; mkfifo audit.jsonl.2; echo RAN");
        let outcome = world.run_as(user).log(Some(&log)).client(&client);
        assert_eq!(outcome.stdout, "RAN\n", "{outcome:#?}");
        assert!(world.machine.sh(&format!("cat {log}.1")).contains("forged"));
        let told = world.egret(user, &["logs", "--file", &log]).ok().stdout;
        assert!(
            told.contains("started") && !told.contains("forged"),
            "{told}"
        );
        let learnt = world
            .egret(user, &["learn", "--from-log", &log])
            .ok()
            .stdout;
        assert!(!learnt.contains("forged"), "{learnt}");
        let explained = world.egret(user, &["explain", "--id", "aaaaaa-1", "--file", &log]);
        assert_eq!(explained.code(), 2, "{explained:#?}");

        // Where a log has parts, they are not shown either, be it that this run adds none.
        let hidden = [
            "--log-max-size",
            "2K",
            "--hide",
            "logs",
            "--allow",
            "www.example.com",
        ];
        let directory = format!("{}/project/logs", user.home());
        world.machine.sh(&format!(
            "mkdir {directory}; chown {0}:{0} {directory}",
            user.id()
        ));
        let split = format!("{directory}/audit.jsonl");
        world
            .run_as(user)
            .log(Some(&split))
            .args(&hidden)
            .client(REQUESTS)
            .ok();
        assert!(world.machine.sh(&format!("ls {directory}")).lines().count() > 3);
        let outcome = world.run_as(user).log(Some(&split)).client("echo RAN");
        assert_eq!(
            (outcome.code(), outcome.stdout.as_str()),
            (125, ""),
            "{outcome:#?}"
        );
        assert!(outcome.stderr.contains("--hide"), "{outcome:#?}");
        world.machine.sh(&format!("rm -r {directory} {log}*"));
    }
}
