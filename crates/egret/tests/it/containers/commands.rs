//! The commands around a sandbox of containers, as somebody at a shell meets them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ROWS, furnished, transcript, until};
use crate::world::engine::Kind;
use crate::world::images::BUSYBOX;
use crate::world::servers::Service;
use crate::world::{World, at};

/// A world with a web server, whose name is known, on which nothing else runs.
#[track_caller]
fn web(kind: Kind) -> World {
    let world = furnished(kind);
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    world
}

/// What `egret … --output json` and `egret inspect` print.
#[track_caller]
fn json(world: &World, line: &str) -> Value {
    let said = world.typed(line).ok().stdout;
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{line}: {e}: {said}"))
}

#[test]
fn a_sandbox_in_the_background_from_its_start_to_its_end() {
    for kind in ROWS {
        let world = web(kind);
        let before = world.engine_holds();
        world.machine.write(
            "/srv/other.yaml",
            "version: 1\nallow: [www.example.com, www.example.org]\n",
        );
        world
            .machine
            .write("/srv/bad.yaml", "version: 1\nalow: []\n");
        world.dns.answer("www.example.org", &[at::PUBLIC]);
        let engine = kind.program();
        let images = || {
            let all = world.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
            all.lines().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let had = images();
        #[rustfmt::skip]
        let steps: &[_] = &[
            ("egret ps", 0, "NAME…PORTS", ""),
            ("egret run -d --name box --resolver 10.20.0.53 --allow www.example.com -p 8080:80 busybox \
              sh -c 'echo one; echo two; trap \"exit 4\" TERM; while :; do sleep 0.1; done'", 0, "box", ""),
            ("egret ps | tail -n +2", 0, &format!("box …{engine} …busybox…isolated…127.0.0.1:8080->80"), ""),
            ("sleep 0.3; egret logs box", 0, "one\ntwo", ""),
            ("egret logs -n 1 box", 0, "two", ""),
            ("egret logs --tail 0 box", 0, "", ""),
            // Another program in there has the same way out.
            ("egret exec box wget -q -O - http://www.example.com/", 0, "GET / for www.example.com…", ""),
            ("egret exec -e http_proxy= box wget -q -O - http://www.example.com/", 0, "GET / for www.example.com…", ""),
            ("egret exec box wget -q -O - http://www.example.org/", 1, "", "wget: …403…"),
            ("egret exec box sh -c 'exit 9'", 9, "", ""),
            ("echo hello | egret exec -i -u 1000:1000 -w /tmp -e A=b box sh -c 'id -u; pwd; echo $A; cat'", 0, "1000\n/tmp\nb\nhello", ""),
            ("egret logs --audit box", 0, "…allowed www.example.com:80 …allowed.rule…refused www.example.org:80 …denied.default…", ""),
            ("egret logs --denied box", 0, "…refused www.example.org:80 GET / denied.default…", ""),
            ("egret logs --denied box | grep -c allowed", 1, "0", ""),
            // A policy while it runs.
            ("egret policy set box /srv/bad.yaml", 2, "", "…stays as it was…`alow`…"),
            ("egret exec box wget -q -O - http://www.example.org/", 1, "", "wget: …403…"),
            ("egret policy set box /srv/other.yaml", 0, "", ""),
            ("egret exec box wget -q -O - http://www.example.org/", 0, "GET / for www.example.org…", ""),
            // What runs is not removed by the way.
            ("egret rm box", 125, "", "egret: still running: box; stop them first, or add --force"),
            ("egret rm --all", 125, "", "egret: still running: box; stop them first, or add --force"),
            ("egret start box", 0, "box", ""),
            ("egret restart -t 5 box", 0, "box", ""),
            ("egret exec box wget -q -O - http://www.example.org/", 0, "GET / for www.example.org…", ""),
            ("egret stop -t 5 box", 0, "box", ""),
            ("egret ps", 0, "NAME…PORTS", ""),
            ("egret ps -a | tail -n +2", 0, "box…exited (4)…busybox…", ""),
            ("egret stop box", 125, "", "egret: no sandbox named box is running; `egret ps` lists those that are"),
            ("egret exec box true", 125, "", "egret: box is not running; `egret start box` starts it"),
            ("egret logs box", 0, "one\ntwo\none\ntwo", ""),
            ("egret start box", 0, "box", ""),
            ("egret exec box wget -q -O - http://www.example.org/", 0, "GET / for www.example.org…", ""),
            ("egret exec box wget -q -O - http://www.example.net/", 1, "", "wget: …403…"),
            ("egret rm -f box", 0, "box", ""),
            ("egret rm box", 125, "", "egret: there is no container sandbox named box …`egret ps --all` lists them"),
            ("egret ps -a", 0, "NAME…PORTS", ""),
            // The log stays, also what was asked before the restarts.
            ("egret logs --denied box", 0, "…refused www.example.org:80 GET / denied.default…refused www.example.net:80 GET / denied.default…", ""),
        ];
        transcript(&world, steps);
        assert_eq!(world.engine_holds(), before, "{kind:?}");
        assert_eq!(images(), had, "{kind:?}");
    }
}

#[test]
fn what_machines_read_is_json() {
    for kind in ROWS {
        let world = web(kind);
        world
            .typed(
                "egret run -d --name box --resolver 10.20.0.53 --allow www.example.com --transport sse --target-port 80 \
                 -l team=birds busybox sleep 1000",
            )
            .ok();
        let row = &json(&world, "egret ps --output json")[0];
        for (field, wanted) in [
            ("name", Value::from("box")),
            ("engine", kind.program().into()),
            ("isolated", true.into()),
            ("state", "running".into()),
        ] {
            assert_eq!(row[field], wanted, "{kind:?}: {field}: {row:#}");
        }
        for (field, part) in [
            ("image", "busybox"),
            ("started", "T"),
            ("ports", "127.0.0.1:"),
        ] {
            let text = row[field].as_str().unwrap_or_default();
            assert!(text.contains(part), "{kind:?}: {field}: {row:#}");
        }
        world
            .typed("egret exec box wget -q -O - http://www.example.com/")
            .ok();
        world.typed("egret exec box wget -q -O - http://www.example.net/");
        let records = world.typed("egret logs --output json box > box.jsonl").ok();
        assert_eq!(records.stderr, "");
        let log = format!("{}/project/box.jsonl", kind.user().home());
        let records = world.records(&log);
        let reasons: BTreeSet<_> = records
            .iter()
            .filter_map(|record| record["reason"].as_str())
            .collect();
        for reason in ["allowed.rule", "denied.default"] {
            assert!(reasons.contains(reason), "{kind:?}: {records:#?}");
        }
        assert!(
            records.iter().all(|record| record["sandbox"] == "box"),
            "{kind:?}: {records:#?}"
        );
        let refused = records
            .iter()
            .find(|record| record["reason"] == "denied.default");
        let id = refused.unwrap()["id"].as_str().unwrap();
        for line in [
            format!("egret explain --output json --id {id}"),
            "egret explain --output json --sandbox box www.example.net:80".to_owned(),
        ] {
            let told = world.typed(&line);
            assert_eq!(told.code(), 1, "{kind:?}: {told:#?}");
            let told: Value = serde_json::from_str(&told.stdout).unwrap();
            assert_eq!(told["reason"], "denied.default", "{kind:?}: {told:#}");
            assert_eq!(told["records"][0]["id"], id, "{kind:?}: {told:#}");
            assert_eq!(
                told["policy"]["policy"]["allow"][0], "www.example.com",
                "{kind:?}: {told:#}"
            );
        }
        let inspected = json(&world, "egret inspect box");
        let box_ = &inspected[0];
        let roles: Vec<_> = box_["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|container| &container["role"])
            .collect();
        assert_eq!(
            roles,
            ["workload", "gateway", "agent"],
            "{kind:?}: {inspected:#}"
        );
        assert_eq!(
            box_["configuration"]["label"][0], "team=birds",
            "{kind:?}: {inspected:#}"
        );
        assert_eq!(box_["state"], "running", "{kind:?}: {inspected:#}");
        assert_eq!(
            world.docker(&["inspect", "--format", "{{.Config.Labels.team}}", "box"]),
            "birds\n"
        );

        // What is exported makes the same sandbox again, and is what that one exports.
        world
            .typed("egret export box > box.json; egret rm -f box")
            .ok();
        world
            .typed("egret run -d --from-config box.json; egret export box | diff box.json -")
            .ok();
        let again = json(&world, "egret inspect box");
        for field in ["configuration", "isolated", "engine", "policy"] {
            assert_eq!(again[0][field], box_[field], "{kind:?}: {field}");
        }
        transcript(
            &world,
            &[
                (
                    "egret exec box wget -q -O - http://www.example.com/",
                    0,
                    "GET / for www.example.com…",
                    "",
                ),
                (
                    "egret exec box wget -q -O - http://www.example.net/",
                    1,
                    "",
                    "wget: …403…",
                ),
                ("egret rm -f box", 0, "box", ""),
            ],
        );
    }
}

#[test]
fn a_run_in_the_foreground_ends_as_its_program_and_says_what_was_refused() {
    for kind in ROWS {
        let world = web(kind);
        let before = world.engine_holds();
        let logs = "~/.local/state/egret/logs";
        let get = "busybox sh -c 'wget -q -O - http://www.example.net:8080/; echo $?'";
        #[rustfmt::skip]
        let steps: &[_] = &[
            ("egret run --rm busybox sh -c 'echo out; echo err >&2; exit 3'", 3, "out", "err"),
            ("egret run --rm --name 'My Server!' busybox true", 0, "", "egret: the sandbox is called my-server"),
            ("egret run --rm --name '!!' busybox true", 125, "", "egret: --name \"!!\": use letters, digits, `_`, `.` and `-`"),
            (&format!("egret run --rm {get}"), 0, "1", "wget: …403…"),
            (&format!("egret run --rm --summary --name s1 {get}"), 0, "1",
             "wget: …403…\negret refused 1 attempt:\n  www.example.net:8080     1×  denied.default  allow with --allow www.example.net:8080\n\
              every decision is in /…/.local/state/egret/logs/s1-…Z.jsonl"),
            (&format!("egret run --rm --output json --name s2 {get}"), 0, "1",
             "wget: …\n{\"failed\":[],\"log\":\"/…/s2-…jsonl\",\"policy\":null,\"refused\":[{\"cause\":…,\"count\":1,\"destination\":\"www.example.net:8080\",\"flag\":\"--allow www.example.net:8080\",…}]}"),
            (&format!("egret run --rm --log-file mine.jsonl {get}"), 0, "1", "wget: …403…"),
            ("egret logs --denied --file mine.jsonl", 0, "…refused www.example.net:8080 GET / denied.default…", ""),
            (&format!("egret run --name kept --summary {get}"), 0, "1", "wget: …\nevery decision is in egret logs --audit kept"),
            ("egret logs --denied kept", 0, "…refused www.example.net:8080 GET / denied.default…", ""),
            ("egret start -a kept", 0, "1\n1", "…"),
        ];
        let (again, rest) = steps.split_last().unwrap();
        transcript(&world, rest);
        // Attached to anew it shows what it prints now; Docker's command repeats nothing either.
        let attached = world.typed(again.0);
        assert_eq!(
            (attached.code(), attached.stdout.as_str()),
            (0, "1\n"),
            "{kind:?}: {attached:#?}"
        );
        transcript(
            &world,
            &[
                ("egret ps", 0, "NAME…PORTS", ""),
                ("egret rm kept", 0, "kept", ""),
                (
                    &format!("find {logs} mine.jsonl -type f ! -perm 600"),
                    0,
                    "",
                    "",
                ),
                (&format!("ls {logs} | grep -c kept"), 0, "1", ""),
            ],
        );
        assert_eq!(world.engine_holds(), before, "{kind:?}");

        // By the signal of somebody else.
        let killed = world.typed(
            "egret run --rm --name killed busybox sleep 1000 & egret=$!
             until $EGRET_ENGINE exec killed true 2>/dev/null; do sleep 0.1; done
             $EGRET_ENGINE kill killed; wait $egret",
        );
        assert_eq!(killed.code(), 137, "{kind:?}: {killed:#?}");
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn a_name_that_is_taken_is_explained_and_nothing_is_touched() {
    for kind in ROWS {
        let world = furnished(kind);
        world.docker(&[
            "run", "--detach", "--name", "mine", "busybox", "sleep", "1000",
        ]);
        world.docker(&[
            "run",
            "--detach",
            "--name",
            "xx-egret-agent",
            "busybox",
            "sleep",
            "1000",
        ]);
        world
            .typed("egret run -d --name box busybox sleep 1000")
            .ok();
        let before = world.engine_holds();
        #[rustfmt::skip]
        let steps: &[_] = &[
            ("egret run --name box busybox true", 125, "",
             "egret: a sandbox box is running; choose another --name, or remove that one with `egret rm -f box`"),
            ("egret run -d --rm --name mine busybox true", 125, "",
             "egret: a container mine is there that is not Egret's; choose another --name"),
            ("egret run --rm --name xx busybox true", 125, "",
             "egret: a container xx-egret-agent is there that is not Egret's; choose another --name"),
            ("egret rm -f mine", 125, "", "egret: there is no container sandbox named mine…"),
            ("egret stop mine", 125, "", "egret: no sandbox named mine is running…"),
            ("egret exec mine true", 125, "", "egret: there is no container sandbox named mine…"),
            ("egret exec box true", 0, "", ""),
            ("egret stop -t 1 box", 0, "box", ""),
            ("egret run --name box busybox true", 125, "",
             "egret: there is a sandbox box already; `egret start box` starts it again, `egret rm box` removes it"),
        ];
        transcript(&world, steps);
        assert_eq!(world.engine_holds(), before, "{kind:?}");
        let running = world.docker(&["ps", "--format", "{{.Names}}"]);
        let running: BTreeSet<_> = running.lines().collect();
        assert_eq!(
            running,
            BTreeSet::from(["mine", "xx-egret-agent"]),
            "{kind:?}"
        );
        let program = world
            .run_as(kind.user())
            .args(&["--name", "program"])
            .start(&["/bin/cat"]);
        until("it is listed", || {
            world.typed("egret ps").stdout.contains("program")
        });
        transcript(
            &world,
            &[(
                "egret run --name program busybox true",
                125,
                "",
                "egret: a sandbox program is running, not in a container; choose another --name",
            )],
        );
        assert_eq!(program.finish().code(), 0);
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn rm_all_leaves_the_image_that_it_names_and_what_is_not_egrets() {
    for kind in ROWS {
        let world = World::with_engine(kind);
        world.import(&BUSYBOX);
        let images = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
        let clean = world.engine_holds();
        let images_before = world.docker(&images);
        world.docker(&[
            "run",
            "--detach",
            "--name",
            "mine",
            "-v",
            "data:/data",
            "busybox",
            "sleep",
            "1000",
        ]);
        let before = world.engine_holds();
        assert_ne!(clean, before);
        let program = kind.program();
        #[rustfmt::skip]
        let steps: &[_] = &[
            ("egret run -d --name aa busybox sleep 1000", 0, "aa", ""),
            ("egret run --name bb busybox true", 0, "", ""),
            ("egret run -d --name cc --isolate-network=false busybox sleep 1000", 0, "cc", ""),
            ("egret ps -a | cut -d' ' -f1", 0, "NAME\naa\nbb\ncc", ""),
            ("egret rm --all --force", 0, "aa\nbb\ncc",
             &format!("egret: kept the image localhost/egret:… in …; `{program} rmi localhost/egret:…` removes it")),
            ("egret rm --all", 0, "", "egret: kept the image …"),
        ];
        transcript(&world, steps);
        assert_eq!(world.engine_holds(), before, "{kind:?}");
        let said = world.typed("egret rm --all").ok().stderr;
        let remove = said.split('`').nth(1).unwrap();
        world.typed(remove).ok();
        assert_eq!(world.docker(&images), images_before, "{kind:?}");
        assert_eq!(
            world.docker(&["exec", "mine", "ls", "/data"]),
            "",
            "{kind:?}"
        );
    }
}

#[test]
fn what_removes_itself_does() {
    for kind in ROWS {
        let world = furnished(kind);
        let before = world.engine_holds();
        let steps: &[_] = &[
            (
                "egret run -d --rm --name short busybox sleep 0.5",
                0,
                "short",
                "",
            ),
            (
                "egret run -d --rm --name stopped busybox sleep 1000",
                0,
                "stopped",
                "",
            ),
            (
                "egret run -d --rm --name gone busybox sleep 1000",
                0,
                "gone",
                "",
            ),
            ("egret stop -t 0 stopped", 0, "stopped", ""),
            ("egret rm -f gone", 0, "gone", ""),
        ];
        transcript(&world, steps);
        until("all are removed", || world.engine_holds() == before);
        until("nobody is left who waits", || {
            let left = world.machine.processes();
            !left
                .iter()
                .any(|process| process.contains("mind") || process.contains(" wait "))
        });
        // Of each there is a log, and only one.
        let logs = world
            .typed("ls ~/.local/state/egret/logs | cut -d- -f1")
            .ok()
            .stdout;
        for name in ["short", "stopped", "gone"] {
            assert_eq!(
                logs.lines().filter(|line| *line == name).count(),
                1,
                "{kind:?}: {name}: {logs}"
            );
        }
    }
}

#[test]
fn what_is_run_in_a_sandbox_later_is_confined_like_it() {
    let same = "for field in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp; do
            a=$(grep ^$field: /proc/1/status); b=$(grep ^$field: /proc/self/status)
            [ \"$a\" = \"$b\" ] || echo $a, but $b
        done
        ls /sys/class/net; ping -c 1 -W 1 127.0.0.1 2>&1 | grep -c 'bytes from'";
    for kind in ROWS {
        let world = furnished(kind);
        world
            .typed("egret run -d --name box busybox sleep 1000")
            .ok();
        world.machine.write("/srv/same", same);
        let steps: &[_] = &[
            ("egret exec -i box sh < /srv/same", 1, "lo\n0", ""),
            // Docker gives somebody who is not root nothing; nobody gets more than root.
            (
                "egret exec -i -u 1000 box sh -c 'grep -c CapEff:.0000000000000000 /proc/self/status; grep NoNewPrivs /proc/self/status'",
                0,
                "1\nNoNewPrivs:\t1",
                "",
            ),
            ("egret exec --privileged box true", 125, "", "…"),
            ("egret rm -f box", 0, "box", ""),
        ];
        world.wire.forget();
        world.dns.forget();
        transcript(&world, steps);
        world.assert_silent();
    }
}

#[test]
fn a_policy_is_on_record_whole_however_long_it_is() {
    for kind in ROWS {
        let world = web(kind);
        // Longer than what a pipe holds, and than what an engine keeps in one piece.
        let policy = |name: &str| {
            let comments = format!("# {}\n", "x".repeat(98)).repeat(1500);
            format!("version: 1\n{comments}allow: [{name}]\n")
        };
        let policies = [policy("www.example.com"), policy("www.example.org")];
        for (number, text) in policies.iter().enumerate() {
            world.machine.write(&format!("/srv/{number}.yaml"), text);
        }
        world
            .typed("egret run -d --name box --resolver 10.20.0.53 --policy /srv/0.yaml busybox sleep 1000")
            .ok();
        world.typed("egret policy set box /srv/1.yaml").ok();
        let refused = world.typed("egret exec box wget -q -O - http://www.example.com/");
        assert_ne!(refused.code(), 0);
        world.typed("egret logs --output json box > box.jsonl").ok();
        let log = format!("{}/project/box.jsonl", kind.user().home());
        let records = world.records(&log);
        let texts: Vec<_> = records
            .iter()
            .filter_map(|record| record["policy"]["text"].as_str())
            .collect();
        assert!(
            texts == policies,
            "{kind:?}: {:?}",
            texts.iter().map(|text| text.len()).collect::<Vec<_>>()
        );
        let last = records.last().unwrap();
        let line = format!("egret explain --id {}", last["id"].as_str().unwrap());
        let told = world.typed(&line);
        assert!(told.stdout.contains("/srv/1.yaml"), "{kind:?}: {told:#?}");
        world.typed("egret rm -f box").ok();
    }
}

#[test]
fn logs_can_be_followed_to_the_end() {
    for kind in ROWS {
        let world = web(kind);
        let user = kind.user();
        world
            .typed(
                "egret run -d --name box --resolver 10.20.0.53 --allow www.example.com busybox \
                 sh -c 'for i in 1 2 3; do echo line $i; wget -q -O /dev/null http://www.example.net/; sleep 0.5; done'",
            )
            .ok();
        // The output ends with the workload, the records with the gateway.
        let follow = "egret logs -f --denied box > denied & egret logs -f box 2>/dev/null; egret stop -t 1 box >/dev/null 2>&1 || true
            docker=$EGRET_ENGINE; $docker stop -t 1 box-egret-gateway >/dev/null 2>&1; wait; grep -c www.example.net denied";
        let outcome = world.typed(follow);
        assert_eq!(
            outcome.stdout, "line 1\nline 2\nline 3\n3\n",
            "{kind:?} {user:?}: {outcome:#?}"
        );
    }
}

#[test]
fn stop_sends_the_signal_that_the_image_wants() {
    let script = "trap \"echo bye; exit 5\" USR1; trap \"echo no\" TERM; echo up; while :; do sleep 0.1; done";
    for kind in ROWS {
        let world = furnished(kind);
        // Not all engines set it when they import an image.
        let build = ["build", "--tag", "usr1", "-"];
        world.docker_reading("FROM busybox\nSTOPSIGNAL SIGUSR1\n", &build);
        world
            .typed(&format!("egret run -d --name box usr1 sh -c '{script}'"))
            .ok();
        world.typed("egret run -d --name stubborn busybox sh -c \"trap '' TERM; echo up; while :; do sleep 0.1; done\"").ok();
        until("both are up", || {
            ["box", "stubborn"]
                .iter()
                .all(|name| world.typed(&format!("egret logs {name}")).stdout == "up\n")
        });
        let start = std::time::Instant::now();
        transcript(
            &world,
            &[
                ("egret stop box", 0, "box", ""),
                ("egret logs box", 0, "up\nbye", ""),
                ("egret stop -t 1 stubborn", 0, "stubborn", ""),
                (
                    "egret ps -a | grep -c 'exited (5)\\|exited (137)'",
                    0,
                    "2",
                    "",
                ),
                ("egret rm box stubborn", 0, "box\nstubborn", ""),
            ],
        );
        assert!(
            start.elapsed() < std::time::Duration::from_secs(8),
            "{kind:?}: {:?}",
            start.elapsed()
        );
    }
}
