//! Class 11 of `docs/bypasses.md`: what dies, is stopped, is restarted, or never starts. Whatever it is, nothing gets out
//! that the policy does not let out, and a start that failed leaves nothing behind.

use std::time::{Duration, Instant};

use super::world;
use crate::world::engine::Kind;
use crate::world::images::{TOOLS, TOOLS_MOUNTS};
use crate::world::servers::Service;
use crate::world::{User, World, at};

/// Starts a sandbox called `sleeper` in the background that may reach `www.example.com`.
#[track_caller]
fn sleeper(world: &World, options: &[&str]) {
    sleeper_with(world, options, &TOOLS_MOUNTS);
}

fn sleeper_with(world: &World, options: &[&str], mounts: &[&str]) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    let kind = world.engine();
    let mut args = vec![
        "run",
        "--engine",
        kind.program(),
        "--detach",
        "--name",
        "sleeper",
    ];
    args.extend(["--resolver", at::NAME_SERVER, "--allow", "www.example.com"]);
    args.extend(options);
    args.extend(mounts);
    args.extend([TOOLS.name, "/bin/sleep", "1000"]);
    world.egret(kind.user(), &args).ok();
}

/// What a client in there gets: the status of an allowed request, or curl's exit code.
#[track_caller]
fn inside(world: &World, options: &str, url: &str) -> String {
    let script = format!("curl -s -m 3 -o /dev/null -w '%{{http_code}} ' {options} {url}; echo $?");
    let args = [
        "exec",
        "--engine",
        world.engine().program(),
        "sleeper",
        "/bin/sh",
        "-c",
        &script,
    ];
    let outcome = world.egret(world.engine().user(), &args);
    outcome.stdout.trim().to_owned()
}

/// Waits until an allowed request works.
#[track_caller]
fn works_again(world: &World) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = inside(world, "--noproxy '*'", "http://www.example.com/");
        if answer == "200 0" {
            return;
        }
        assert!(Instant::now() < end, "{:?}: {answer}", world.engine());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Nothing works in there, neither what is allowed nor what is not, and no packet gets out.
#[track_caller]
fn is_shut(world: &World, what: &str) {
    world.wire.forget();
    world.dns.forget();
    for (options, url) in [
        ("--noproxy '*'", "http://www.example.com/"),
        ("", "http://www.example.com/"),
        ("--noproxy '*'", "http://93.184.216.34/"),
        ("--noproxy '*'", "http://198.18.0.1/"),
        ("--noproxy '*'", "http://172.17.0.1:22/"),
    ] {
        let answer = inside(world, options, url);
        assert!(
            answer.starts_with("000 "),
            "{:?}: {what}: {url}: {answer}",
            world.engine()
        );
    }
    world.assert_silent();
}

#[test]
fn without_its_gateway_a_sandbox_has_no_network() {
    for kind in Kind::ALL {
        let world = world(kind);
        sleeper(&world, &[]);
        works_again(&world);
        let gateway = "sleeper-egret-gateway";
        world.docker(&["kill", gateway]);
        is_shut(&world, "gateway killed");
        world.docker(&["start", gateway]);
        works_again(&world);
        world.docker(&["restart", "--time", "1", gateway]);
        works_again(&world);
        if kind != Kind::RootlessPodman {
            world.docker(&["pause", gateway]);
            is_shut(&world, "gateway stopped");
            world.docker(&["unpause", gateway]);
            works_again(&world);
        }
        world.docker(&["kill", "sleeper-egret-agent"]);
        is_shut(&world, "agent killed");
        world.egret(kind.user(), &["rm", "--force", "sleeper"]).ok();
    }
}

#[test]
fn the_engines_commands_do_not_open_it() {
    for kind in Kind::ALL {
        let world = world(kind);
        sleeper(&world, &[]);
        works_again(&world);
        world.docker(&["network", "create", "other"]);
        // A network more, or another program beside them, for each of the three.
        world.try_docker(&["network", "connect", "other", "sleeper-egret-gateway"]);
        for container in ["sleeper-egret-agent", "sleeper-egret-gateway"] {
            let beside = world.try_docker(&["exec", container, "/bin/egret", "run", "--", "true"]);
            assert!(
                !beside.status.success(),
                "{kind:?}: {container}: {beside:?}"
            );
        }
        for container in ["sleeper", "sleeper-egret-agent"] {
            // The engine refuses, or it makes no difference.
            let connected = world.try_docker(&["network", "connect", "other", container]);
            let shown = world.docker(&["exec", "sleeper", "/usr/sbin/ip", "-brief", "link"]);
            assert_eq!(
                shown.lines().count(),
                1,
                "{kind:?}: {container}: {connected:?}: {shown}"
            );
        }
        works_again(&world);
        world.wire.forget();
        world.dns.forget();
        for address in ["93.184.216.34", "172.17.0.1", "10.20.0.7"] {
            let script = format!("curl -s -m 3 --noproxy '*' http://{address}/; echo $?");
            let answer = world.docker(&["exec", "sleeper", "/bin/sh", "-c", &script]);
            assert_ne!(answer, "0\n", "{kind:?}: {address}");
        }
        world.assert_silent();
        // All of it anew, as somebody would who does not know of the three.
        world.docker(&["restart", "--time", "1", "sleeper"]);
        works_again(&world);
        world
            .egret(kind.user(), &["restart", "-t", "0", "sleeper"])
            .ok();
        works_again(&world);
        // The agent alone: the namespace that the workload is in has nobody who could open it then.
        world.docker(&["restart", "--time", "1", "sleeper-egret-agent"]);
        let answer = inside(&world, "--noproxy '*'", "http://93.184.216.34/");
        assert!(!answer.starts_with("200"), "{kind:?}: {answer}");
        world
            .egret(kind.user(), &["restart", "-t", "0", "sleeper"])
            .ok();
        works_again(&world);
        world.egret(kind.user(), &["rm", "--force", "sleeper"]).ok();
    }
}

#[test]
fn a_daemon_that_restarts_brings_back_a_sealed_sandbox_or_none() {
    let world = world(Kind::Docker);
    // What an engine starts by itself has nothing of this machine mounted but what is the system's.
    sleeper_with(&world, &["--restart", "always"], &["-v", "/usr:/usr:ro"]);
    works_again(&world);
    for _ in 0..2 {
        world.restart_docker();
        // Whatever is back and whatever is not: this is never answered.
        for _ in 0..10 {
            let answer = inside(&world, "--noproxy '*'", "http://93.184.216.34/");
            assert!(!answer.starts_with("200"), "{answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
        // Docker tries to start the workload once, be its agent there by then or not.
        world.egret(User::Alice, &["start", "sleeper"]).ok();
        works_again(&world);
        let answer = inside(&world, "--noproxy '*'", "http://93.184.216.34/");
        assert!(!answer.starts_with("200"), "{answer}");
    }
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    for kind in Kind::ALL {
        let world = world(kind);
        // So that Egret's own image is there.
        world.run_container().client("true").ok();
        let before = world.engine_holds();
        let run = |args: &[&str], image: &str, command: &[&str]| {
            let outcome = world
                .run_container()
                .log(None)
                .args(args)
                .image(image)
                .program(command);
            let left = world.engine_holds();
            assert_eq!(
                left, before,
                "{kind:?}: {args:?} {image} {command:?}: {outcome:#?}"
            );
            outcome
        };
        assert_eq!(run(&[], "tools", &["/nowhere"]).code(), 127);
        assert_eq!(run(&[], "tools", &["/etc/passwd"]).code(), 126);
        assert_eq!(run(&["--pull", "never"], "there-is-none", &[]).code(), 125);
        assert_eq!(
            run(&["--network", "there-is-none"], "tools", &["/bin/true"]).code(),
            125
        );
        assert_eq!(
            run(&["-v", "relative:path:to:nowhere"], "tools", &["/bin/true"]).code(),
            125
        );
        assert_eq!(
            run(&["-p", "45.33.32.99:80:80"], "tools", &["/bin/true"]).code(),
            125
        );
        assert_eq!(run(&["--allow", "*"], "tools", &["/bin/true"]).code(), 125);
        assert_eq!(run(&["--privileged"], "tools", &["/bin/true"]).code(), 125);
        assert_eq!(
            run(&["--cap-add", "NET_ADMIN"], "tools", &["/bin/true"]).code(),
            125
        );
        assert_eq!(
            run(
                &["--network", "host", "--isolate-network"],
                "tools",
                &["/bin/true"]
            )
            .code(),
            125
        );
        assert_eq!(run(&[], "tools", &["/bin/sh", "-c", "exit 7"]).code(), 7);
        assert_eq!(
            run(
                &[],
                "tools",
                &["/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?"]
            )
            .code(),
            137
        );
    }
}
