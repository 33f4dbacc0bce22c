//! `egret learn` of an image: the same as of a program, with the gateway in a container of its own.

use std::process::Stdio;
use std::time::Duration;

use crate::learn::{learnt, opens_nothing_else};
use crate::world::engine::Kind;
use crate::world::images::TOOLS_MOUNTS;
use crate::world::{World, real, until};

/// A repository of one package at `deb.example.com`, by HTTP.
fn repository(world: &World) {
    world.outside.sh(
        "mkdir -p /srv/web/deb.example.com /srv/tiny/DEBIAN /srv/tiny/usr/share/tiny; cd /srv
         printf 'Package: tiny\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: a <a@example.com>\\nDescription: tiny\\n' > tiny/DEBIAN/control
         echo 42 > tiny/usr/share/tiny/answer
         dpkg-deb --root-owner-group --build tiny web/deb.example.com/tiny_1.0_all.deb >/dev/null
         cd web/deb.example.com
         { cat /srv/tiny/DEBIAN/control; echo 'Filename: ./tiny_1.0_all.deb'; stat -c 'Size: %s' tiny_1.0_all.deb
           echo SHA256: $(sha256sum tiny_1.0_all.deb | cut -d' ' -f1); } > Packages",
    );
    real::web(world, &["deb.example.com"]);
}

/// Installs the package by `apt-get`, in directories of its own, and prints what is in it.
const APT: &str = "mkdir -p /tmp/state/lists/partial /tmp/cache/archives/partial /tmp/etc && cd /tmp &&
    echo 'deb [trusted=yes] http://deb.example.com/ ./' > etc/sources.list &&
    apt='apt-get -qq -o Dir::State=/tmp/state -o Dir::State::status=/tmp/state/status -o Dir::Cache=/tmp/cache -o Dir::Etc=/tmp/etc -o APT::Sandbox::User=root' &&
    touch state/status && $apt update && $apt download tiny && dpkg-deb -x tiny_1.0_all.deb out && cat out/usr/share/tiny/answer";

#[test]
fn apt_in_a_container_runs_again_under_what_was_learnt() {
    for kind in Kind::ALL {
        let world = World::with_tools(kind);
        repository(&world);
        let before = world.engine_holds();
        let user = kind.user();
        let path = format!("{}/learnt.yaml", user.home());
        let run = || {
            world
                .run_container()
                .args(&["--user", "0:0"])
                .within(Duration::from_secs(100))
        };
        let first = run().args(&["--learn", &path]).client(APT);
        assert_eq!(
            (first.code(), first.stdout.as_str()),
            (0, "42\n"),
            "{kind:?}: {}",
            first.stderr
        );
        let policy = learnt(&world, user, &path);
        assert!(
            policy.contains("\n  - deb.example.com:80  # ") && policy.matches("\n  - ").count() < 8,
            "{kind:?}: {policy}"
        );
        let by_it = || run().args(&["--policy", &path]);
        let again = by_it().client(APT);
        assert_eq!(
            (again.code(), again.stdout.as_str()),
            (0, "42\n"),
            "{kind:?}: {}",
            again.stderr
        );
        opens_nothing_else(by_it());
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn an_image_gives_its_name_and_is_gone_when_it_has_been_learnt_from() {
    for kind in Kind::ALL {
        let world = World::with_tools(kind);
        repository(&world);
        let before = world.engine_holds();
        let user = kind.user();
        let mut words: Vec<String> = [
            "/srv/bin/egret",
            "learn",
            "--engine",
            kind.program(),
            "--resolver",
            crate::world::at::NAME_SERVER,
        ]
        .map(str::to_owned)
        .to_vec();
        words.extend(TOOLS_MOUNTS.map(str::to_owned));
        words.extend(
            [
                "--interactive",
                "--name",
                "pupil",
                "tools",
                "/bin/sh",
                "-c",
                "curl -sS http://deb.example.com/Packages | head -1; read x",
            ]
            .map(str::to_owned),
        );
        let mut command = world.command_as(user, &format!("{}/project", user.home()), &[], &words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = world.machine.spawn(command).unwrap();
        until("it is listed as one that learns", || {
            let listed = world.egret(user, &["ps", "--engine", kind.program()]);
            listed
                .stdout
                .lines()
                .any(|line| line.starts_with("pupil") && line.contains("isolated, learning"))
        });
        let inspected = world
            .egret(user, &["inspect", "--engine", kind.program(), "pupil"])
            .ok();
        let inspected: serde_json::Value = serde_json::from_str(&inspected.stdout).unwrap();
        assert_eq!(inspected[0]["learning"], true, "{kind:?}: {inspected}");
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(
            String::from_utf8_lossy(&ended.stdout),
            "Package: tiny\n",
            "{kind:?}: {said}"
        );
        let next = said.lines().last().unwrap();
        assert!(
            next.contains("egret run --policy pupil --engine ")
                && next.contains(" tools /bin/sh -c "),
            "{kind:?}: {said}"
        );
        // Without --rm it is gone all the same: nobody starts it again, open as it was.
        assert_eq!(world.engine_holds(), before, "{kind:?}");
        let policy = learnt(
            &world,
            user,
            &format!("{}/.config/egret/policies/pupil.yaml", user.home()),
        );
        assert!(
            policy.contains("  - deb.example.com:80"),
            "{kind:?}: {policy}"
        );
    }
}

#[test]
fn what_cannot_be_learnt_from_is_not_started() {
    let kind = Kind::Docker;
    let world = World::with_tools(kind);
    let before = world.engine_holds();
    let project = format!("{}/project", kind.user().home());
    let mount = format!("{project}:/work");
    #[rustfmt::skip]
    let table: [(&[&str], &str); 4] = [
        (&["--detach"], "egret learn --from-log -"),
        (&["--restart", "always"], "--restart"),
        (&["--isolate-network=false"], "without isolation"),
        (&["-v", &mount], "where what is learnt is written"),
    ];
    for (args, expected) in table {
        let run = world
            .run_container()
            .learning()
            .args(&["-o", "p.yaml"])
            .args(args);
        let outcome = run.log(None).client("echo RAN");
        assert_eq!(
            (outcome.code(), outcome.stdout.as_str()),
            (125, ""),
            "{outcome:#?}"
        );
        assert!(outcome.stderr.contains(expected), "{outcome:#?}");
    }
    assert_eq!(world.engine_holds(), before);
}
