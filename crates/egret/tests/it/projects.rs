//! The project's own file: it takes away, and whatever a program writes into it or in its place, it never adds.

use std::io::Write as _;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::files::put;
use crate::world::engine::Kind;
use crate::world::images::TOOLS;
use crate::world::run::{Live, Outcome};
use crate::world::servers::Service;
use crate::world::{User, World, at};

/// Statuses of what a policy allows, and of what it does not.
const TRY: &str = "
    for host in www.example.com other.example.com evil.example; do
        curl -s -o /dev/null -w '%{http_code} ' http://$host/
    done; cat secret 2>/dev/null; true";
const POLICY: &str = "version: 1\nallow: ['**.example.com']\n";

fn world() -> World {
    let world = World::new();
    for name in ["www.example.com", "other.example.com", "evil.example"] {
        world.dns.answer(name, &[at::PUBLIC]);
    }
    world.serve("93.184.216.34:80", Service::Http);
    world
}

/// What is tried under the policy, and what is said about it.
fn tried(world: &World, user: User, directory: &str) -> Outcome {
    world
        .run_as(user)
        .policy(POLICY)
        .args(&["--summary"])
        .directory(directory)
        .client(TRY)
}

#[test]
fn whatever_a_program_writes_as_the_project_s_file_allows_nothing() {
    let world = world();
    let hostile = [
        (
            "version: 1\nallow: [evil.example]",
            "`allow` allows, and a project file can only take away",
        ),
        (
            "version: 1\ndefault: allow-public",
            "`default` can only be `deny`",
        ),
        (
            "version: 1\nhost_gateway: allow",
            "`host_gateway` can only be `deny`",
        ),
        (
            "version: 1\nfilesystem: {read: [~/.ssh], write: [/]}",
            "shows what is not shown without it",
        ),
        (
            "version: 1\nfilesystem: {hide: [/usr]}",
            "`/usr` is not in the project",
        ),
        (
            "version: 1\npolicy: network",
            "a project file has no key `policy`",
        ),
        (
            "network: {outbound: {insecure_allow_all: true}}",
            "a project file has no key `network`",
        ),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
            "egret.yaml cannot be used",
        ),
        ("", "the project file is empty"),
    ];
    for user in User::ALL {
        let project = format!("{}/project", user.home());
        let file = format!("{project}/egret.yaml");
        assert_eq!(tried(&world, user, &project).stdout, "200 200 403 ");
        // The program writes it, and the next run goes by it.
        let write = |script: &str| {
            world
                .run_as(user)
                .client(&format!("rm -rf egret.yaml; {script}"))
                .ok();
        };
        for (text, says) in hostile {
            write(&format!(
                "printf '{}' > egret.yaml",
                text.replace('\n', "\\n")
            ));
            assert_eq!(world.machine.read(&file), text);
            let refused = tried(&world, user, &project);
            assert_eq!(
                (refused.code(), refused.stdout.as_str()),
                (125, ""),
                "{text}: {refused:#?}"
            );
            assert!(
                refused.stderr.contains(says) && refused.stderr.contains("--no-settings"),
                "{text}: {refused:#?}"
            );
            // What cannot be used cannot be written either by the run that it stops.
            std::fs::remove_file(world.machine.path(&file)).unwrap();
        }
        for (script, says) in [
            ("mkfifo egret.yaml", "it is no file"),
            ("mkdir egret.yaml", "it is no file"),
            ("ln -s ~/policy.yaml egret.yaml", "it is a symbolic link"),
            ("ln -s /dev/zero egret.yaml", "it is a symbolic link"),
            (
                "head -c 1000000 /dev/zero > egret.yaml",
                "a project file has at most 64 KiB",
            ),
            (
                "printf 'version: 1\\nfilesystem: {hide: [up]}' > egret.yaml; ln -sfn /usr up",
                "leads out of the project",
            ),
        ] {
            write(script);
            let refused = tried(&world, user, &project);
            assert_eq!(
                (refused.code(), refused.stdout.as_str()),
                (125, ""),
                "{script}: {refused:#?}"
            );
            assert!(refused.stderr.contains(says), "{script}: {refused:#?}");
            // Whoever runs it can leave it aside; a program cannot.
            let aside = world
                .run_as(user)
                .policy(POLICY)
                .args(&["--no-settings"])
                .client(TRY)
                .ok();
            assert_eq!(aside.stdout, "200 200 403 ", "{script}: {aside:#?}");
            world.machine.sh(&format!("rm -rf {file}"));
        }
        // A file further down does not take the place of one above, and nothing ends the search.
        write("printf 'version: 1\\ndeny: [other.example.com]\\n' > egret.yaml");
        let below = "mkdir -p sub/.git && printf 'version: 1\\ndeny: [x.example]\\n' > sub/egret.yaml && touch sub/secret; chmod 1777 . sub";
        world.run_as(user).client(below).ok();
        let outcome = tried(&world, user, &format!("{project}/sub"));
        assert_eq!(outcome.stdout, "200 403 403 ", "{outcome:#?}");
        world.machine.sh(&format!("rm -rf {file} {project}/sub"));
    }
}

#[test]
fn a_project_s_file_takes_away_and_is_named_by_what_it_refuses() {
    let world = world();
    for user in User::ALL {
        let (home, id) = (user.home(), user.id());
        let project = format!("{home}/project");
        put(&world, user, &format!("{project}/secret"), "the-secret");
        let file = format!("{project}/egret.yaml");
        put(
            &world,
            user,
            &file,
            "version: 1\nonly:\n- '*.example.com:80'\ndeny:\n- other.example.com\nfilesystem:\n  hide: [secret]\n",
        );
        world.machine.write(
            &format!("{home}/other.yaml"),
            "version: 1\nallow: [evil.example, '**.example.com']\n",
        );
        let outcome = tried(&world, user, &project).ok();
        assert_eq!(outcome.stdout, "200 403 403 ", "{outcome:#?}");
        assert_eq!(
            outcome.reasons(),
            ["allowed.rule", "denied.rule", "denied.project"],
            "{outcome:#?}"
        );
        let rules: Vec<_> = outcome
            .events("decision")
            .map(|record| record["rule"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            rules[1..],
            [format!("{file}:5"), format!("{file}:3")],
            "{outcome:#?}"
        );
        assert!(
            outcome
                .stderr
                .contains(&format!("to the project's `only` ({file}:3)")),
            "{outcome:#?}"
        );
        let loaded = outcome.events("policy").next().unwrap();
        assert_eq!(
            loaded["policy"]["projects"][0]["file"],
            file.as_str(),
            "{loaded}"
        );

        let refused = outcome.events("decision").last().unwrap();
        let log = format!("{home}/explained.jsonl");
        let lines = outcome.records.iter().map(|record| format!("{record}\n"));
        world.machine.write(&log, lines.collect::<String>());
        let again = world.egret(
            user,
            &["explain", "--file", &log, refused["id"].as_str().unwrap()],
        );
        assert!(
            again
                .stdout
                .contains(&format!("the project's file leaves it out ({file}:3)")),
            "{again:#?}"
        );

        // It tells whoever asks in the project, and elsewhere it is not there.
        let explained = world.egret(user, &["policy", "explain", "network", "evil.example"]);
        assert_eq!(explained.code(), 1, "{explained:#?}");
        assert!(
            explained
                .stdout
                .contains(&format!("the project's file leaves it out ({file}:3)")),
            "{explained:#?}"
        );
        let aside = world.egret(
            user,
            &[
                "policy",
                "explain",
                "network",
                "evil.example",
                "--no-settings",
            ],
        );
        assert_eq!(aside.code(), 0, "{aside:#?}");
        assert_eq!(tried(&world, user, home).stdout, "200 200 403 ");

        // It stays, whatever the program does to it.
        let outcome = world.run_as(user).client(
            "echo x > egret.yaml; rm -f egret.yaml; mv egret.yaml e; mv secret s; touch e && mv e egret.yaml; chmod 0 egret.yaml; \
             python3 -c \"import os; os.replace('secret', 'egret.yaml')\"; ls",
        );
        assert!(outcome.stdout.contains("egret.yaml"), "{outcome:#?}");
        assert!(world.machine.read(&file).starts_with("version: 1\nonly:"));
        assert_eq!(
            world.machine.sh(&format!("stat -c '%a %u' {file}")),
            format!("644 {id}\n")
        );

        // Neither another policy nor an option is more than it leaves.
        let mut live = world
            .run_as(user)
            .policy(POLICY)
            .args(&["--allow", "evil.example", "--name", "narrow"])
            .start(&[
                "/bin/sh",
                "-c",
                &format!("{TRY}; read x; {TRY}; read x; {TRY}"),
            ]);
        let turn = |live: &mut Live<'_>| {
            std::thread::sleep(Duration::from_millis(400));
            live.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        };
        std::thread::sleep(Duration::from_millis(700));
        let pid = Pid::from_raw(i32::try_from(live.child.id()).unwrap());
        kill(pid, Signal::SIGHUP).unwrap();
        turn(&mut live);
        std::thread::sleep(Duration::from_millis(700));
        world
            .egret(
                user,
                &["policy", "set", "narrow", &format!("{home}/other.yaml")],
            )
            .ok();
        turn(&mut live);
        let outcome = live.finish().ok();
        assert_eq!(outcome.stdout, "200 403 403 ".repeat(3), "{outcome:#?}");
        let replaced = outcome
            .events("policy")
            .filter(|record| record["action"] == "replaced")
            .count();
        assert_eq!(replaced, 2, "{outcome:#?}");
        world.machine.sh(&format!("rm {file}"));
    }
}

#[test]
fn an_image_is_run_within_what_the_project_leaves() {
    let world = World::with_engine(Kind::Docker);
    world.import(&TOOLS);
    for name in ["www.example.com", "other.example.com", "evil.example"] {
        world.dns.answer(name, &[at::PUBLIC]);
    }
    world.serve("93.184.216.34:80", Service::Http);
    let user = Kind::Docker.user();
    let project = format!("{}/project", user.home());
    put(&world, user, &format!("{project}/secret"), "the-secret");
    let file = format!("{project}/egret.yaml");
    put(
        &world,
        user,
        &file,
        "version: 1\ndeny: [other.example.com]\nfilesystem: {hide: [secret]}\n",
    );
    let run = || world.run_container().allow("**.example.com");
    let outcome = run().log(None).client(TRY).ok();
    assert_eq!(outcome.stdout, "200 403 403 ", "{outcome:#?}");
    let outcome = run().args(&["--no-settings"]).log(None).client(TRY).ok();
    assert_eq!(outcome.stdout, "200 200 403 ", "{outcome:#?}");
    let mount = format!("{project}:/work");
    let refused = run().args(&["-v", &mount]).log(None).client(TRY);
    assert_eq!(refused.code(), 125, "{refused:#?}");
    assert!(
        refused.stderr.contains("secret, which the project's file"),
        "{refused:#?}"
    );
    put(&world, user, &file, "version: 1\nallow: [evil.example]\n");
    let refused = run().log(None).client(TRY);
    assert_eq!(refused.code(), 125, "{refused:#?}");
    assert!(
        refused.stderr.contains("can only take away"),
        "{refused:#?}"
    );
}
