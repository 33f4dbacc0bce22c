//! `egret learn`: what is written allows the run again, and opens nothing else.

mod programs;

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::probe::{connect, refused, tcp};
use crate::world::run::{Outcome, Run};
use crate::world::servers::Service;
use crate::world::{User, World, at, until};

/// Egret gave up before anything ran, and said why.
#[track_caller]
fn did_not_run(outcome: &Outcome, why: &str) {
    assert_eq!(
        (outcome.code(), outcome.stdout.as_str()),
        (125, ""),
        "{outcome:#?}"
    );
    assert!(outcome.stderr.contains(why), "{outcome:#?}");
}

/// Public web servers at some names, a private one, and one on the machine.
fn web() -> World {
    let world = World::new();
    let public = ["www.example.com", "api.example.com", "other.example.org"];
    for name in public {
        world.dns.answer(name, &[at::PUBLIC]);
    }
    world.dns.answer("inside.example.com", &[at::PRIVATE]);
    world.serve("93.184.216.34:80", Service::Http);
    world.serve(
        "93.184.216.34:443",
        Service::Https(&["www.example.com", "api.example.com", "other.example.org"]),
    );
    world.serve(&format!("{}:80", at::PUBLIC2), Service::Http);
    world.serve(&format!("{}:80", at::PRIVATE), Service::Http);
    world.serve(&format!("{}:80", at::METADATA), Service::Http);
    world.serve_on_machine(8080, Service::Http);
    world
}

/// What a policy must not let out: another server of the internet, by name and by address, another name of a domain that
/// was learnt, the machine, its network, and metadata.
pub(crate) fn opens_nothing_else(run: Run<'_>) {
    let outcome = refused(
        run,
        &[
            (tcp("other.example.org", 443), "denied.default"),
            (connect("other.example.org:443"), "denied.default"),
            (tcp("not-learnt.example.com", 443), "denied.default"),
            (tcp("9.9.9.9", 443), "denied.literal_address"),
            (tcp("host.docker.internal", 8080), "denied.host_gateway"),
            (tcp("172.17.0.1", 8080), "denied.host_gateway"),
            (tcp(at::PRIVATE, 80), "denied.address.private"),
            (tcp(at::METADATA, 80), "denied.address.metadata"),
        ],
    );
    outcome.silent();
}

/// The policy that a run has left, which passes its own tests.
#[track_caller]
pub(crate) fn learnt(world: &World, user: User, path: &str) -> String {
    world.egret(user, &["policy", "check", path]).ok();
    world.egret(user, &["policy", "test", path]).ok();
    let formatted = world.egret(user, &["policy", "fmt", "--check", path]);
    assert_eq!(formatted.code(), 0, "{formatted:#?}");
    world.machine.read(path)
}

/// Everything in a run was allowed.
#[track_caller]
pub(super) fn all_allowed(outcome: &Outcome) {
    assert!(!outcome.reasons().is_empty(), "{outcome:#?}");
    for record in outcome.events("decision").chain(outcome.events("dns")) {
        assert_eq!(record["reason"], "allowed.rule", "{record}\n{outcome:#?}");
    }
}

const GET: &str = "curl -sS https://www.example.com/ && curl -sS http://api.example.com/x";

#[test]
fn what_a_run_reached_is_what_the_next_may_reach() {
    let world = web();
    for user in User::ALL {
        let path = format!("{}/learnt.yaml", user.home());
        let script = format!(
            "{GET}; {GET}; curl -sS https://www.example.com/; curl -sS http://{}/
             for url in http://typo.example.com/ http://inside.example.com/ http://host.docker.internal:8080/ http://{}/ http://{}/; do
                 curl -sS -m 5 -o /dev/null $url
             done 2>/dev/null; true",
            at::PUBLIC2, at::PRIVATE, at::METADATA
        );
        let outcome = world
            .run_as(user)
            .args(&["--learn", &path])
            .client(&script)
            .ok();
        assert!(
            outcome.stdout.starts_with("GET / for www.example.com"),
            "{outcome:#?}"
        );
        assert!(
            !outcome.reached(at::PRIVATE, 80) && !outcome.reached(at::METADATA, 80),
            "{outcome:#?}"
        );
        assert!(outcome.stderr.contains("learnt 3 entries"), "{outcome:#?}");
        let basis = outcome.events("policy").next().unwrap();
        assert_eq!(basis["policy"]["learning"], true, "{basis}");
        let policy = learnt(&world, user, &path);
        let allow = policy
            .split("allow:\n")
            .nth(1)
            .unwrap()
            .split("\n\n")
            .next()
            .unwrap();
        let expected = "  # LOOK: what goes to port 80 can be read and changed on the way
  - api.example.com:80   # 2 connections by /usr/bin/curl
  - www.example.com:443  # 3 connections by /usr/bin/curl
  # LOOK: a literal address, of which nobody knows whose it will be; allow a name if there is one;
  # only one connection was made; what goes to port 80 can be read and changed on the way
  - 151.101.0.81:80      # 1 connection by /usr/bin/curl";
        assert_eq!(allow, expected, "{policy}");
        let end: String = policy.split("not opened here:").skip(1).collect();
        let end = end.replace("\n#  ", "").replace("`", "");
        for told in [
            "typo.example.com:80 was allowed once by /usr/bin/curl, and is not opened: the name has no address",
            "host.docker.internal:8080 was refused once",
            "--allow-docker-gateway=8080 opens it",
            "10.20.0.7:80 was refused once by /usr/bin/curl: the address belongs to a private network; --allow 10.20.0.7:80 opens it",
            "inside.example.com:80 was refused once",
            "169.254.169.254:80 was refused once by /usr/bin/curl: the destination is a cloud metadata service; nothing opens it",
        ] {
            assert!(end.contains(told), "{told}\n{policy}");
        }

        let by_it = || world.run_as(user).args(&["--policy", &path]);
        let again = by_it().client(GET).ok();
        all_allowed(&again);
        opens_nothing_else(by_it());
        let port = by_it().client("curl -sS -m 5 http://www.example.com/ 2>/dev/null; true");
        port.decided("denied.port", "www.example.com", 80);
    }
}

#[test]
fn a_policy_gets_the_programs_name_and_the_next_command_is_told() {
    let world = web();
    for user in User::ALL {
        let learn = || world.run_as(user).learning();
        let outcome = learn()
            .program(&["/usr/bin/curl", "-sS", "https://www.example.com/"])
            .ok();
        let file = format!("{}/.config/egret/policies/curl.yaml", user.home());
        let policy = learnt(&world, user, &file);
        assert!(
            policy.contains("\nname: curl\n") && policy.contains("  - www.example.com:443"),
            "{policy}"
        );
        let next = outcome.stderr.lines().last().unwrap().trim();
        assert!(
            next.starts_with("egret run --policy curl --resolver "),
            "{outcome:#?}"
        );
        assert!(
            next.ends_with(" -- /usr/bin/curl -sS https://www.example.com/"),
            "{outcome:#?}"
        );
        let words: Vec<_> = next
            .replacen("egret", "/srv/bin/egret", 1)
            .split(' ')
            .map(str::to_owned)
            .collect();
        let command = world.command_as(user, &format!("{}/project", user.home()), &[], &words);
        let again = world.to_its_end(command, Duration::from_secs(20)).ok();
        assert!(
            again.stdout.starts_with("GET / for www.example.com"),
            "{again:#?}"
        );

        // A policy that is there is not written over, and nothing runs before that is known.
        let taken = learn().program(&["/usr/bin/curl", "-sS", "https://api.example.com/"]);
        assert_eq!(
            (taken.code(), taken.stdout.as_str()),
            (125, ""),
            "{taken:#?}"
        );
        assert!(
            taken.stderr.contains("--merge curl") && taken.stderr.contains("-o FILE"),
            "{taken:#?}"
        );
        taken.silent();
        assert_eq!(world.machine.read(&file), policy);
        let merged = learn()
            .args(&["--merge", "curl"])
            .program(&["/usr/bin/curl", "-sS", "https://api.example.com/"])
            .ok();
        assert!(
            merged.stderr.contains("egret run --policy curl "),
            "{merged:#?}"
        );
        let now = learnt(&world, user, &file);
        assert!(
            policy.lines().all(|line| now.contains(line))
                && now.contains("  - api.example.com:443"),
            "{now}"
        );
    }
}

#[test]
fn a_policy_that_is_merged_into_keeps_its_words_and_its_denials() {
    let world = web();
    let policy = "# mine
version: 1
allow:
- www.example.com:443 # the site
# what is below is old
- a.example.net
deny: [other.example.org]
host_gateway: [8080]
";
    for user in User::ALL {
        let path = format!("{}/mine.yaml", user.home());
        world.machine.write(&path, policy);
        let script = format!(
            "{GET}; curl -sS http://host.docker.internal:8080/; curl -sS -m 5 https://other.example.org/; true"
        );
        let outcome = world
            .run_as(user)
            .learning()
            .args(&["--merge", &path])
            .client(&script)
            .ok();
        outcome.decided("denied.rule", "other.example.org", 0);
        assert!(
            outcome
                .stdout
                .contains("GET / for host.docker.internal:8080"),
            "{outcome:#?}"
        );
        let now = world.machine.read(&path);
        let expected = policy.replace(
            "# the site\n",
            "# the site\n# LOOK: only one connection was made; what goes to port 80 can be read and changed on the way\n- api.example.com:80  # 1 connection by /usr/bin/curl\n",
        );
        assert_eq!(now, expected);
        assert!(
            outcome.stderr.contains("other.example.org")
                && outcome.stderr.contains("is not opened"),
            "{outcome:#?}"
        );

        // What was changed in between is left as it is.
        let live = world
            .run_as(user)
            .learning()
            .args(&["--merge", &path])
            .start(&["/bin/sh", "-c", "curl -sS https://api.example.com/; read x"]);
        let changed = format!("{now}# changed\n");
        std::thread::sleep(Duration::from_millis(700));
        world.machine.write(&path, &changed);
        let outcome = live.finish();
        assert_eq!(outcome.code(), 125, "{outcome:#?}");
        assert!(
            outcome.stderr.contains("was changed meanwhile")
                && outcome.stderr.contains("egret learn --from-log"),
            "{outcome:#?}"
        );
        assert_eq!(world.machine.read(&path), changed);
    }
    let foreign = r#"{"network": {"outbound": {"allow_host": ["a.example"]}}}"#;
    world.machine.write("/root/foreign.json", foreign);
    for (policy, expected) in [
        ("/root/foreign.json", "egret policy convert"),
        ("none", "in a file of its own"),
        ("nothing", "no policy called"),
    ] {
        let outcome = world
            .run_as(User::Root)
            .learning()
            .args(&["--merge", policy])
            .client("echo RAN");
        did_not_run(&outcome, expected);
    }
}

#[test]
fn a_run_that_is_broken_off_is_learnt_from() {
    let world = web();
    for user in User::ALL {
        let path = format!("{}/learnt.yaml", user.home());
        let out = format!("{}/project/out", user.home());
        for (end, code) in [
            ("exit 3", 3),
            ("kill -9 $$", 128 + 9),
            ("touch out; exec sleep 100", 128 + 2),
        ] {
            let live = world.run_as(user).args(&["--learn", &path]);
            let live = live.start(&[
                "/bin/sh",
                "-c",
                &format!("curl -sS https://www.example.com/; {end}"),
            ]);
            if code == 130 {
                until("it waits", || world.machine.path(&out).exists());
                let egret = Pid::from_raw(live.child.id().try_into().unwrap());
                // As the keyboard does it.
                kill(Pid::from_raw(-egret.as_raw()), Signal::SIGINT).unwrap();
            }
            let outcome = live.finish();
            assert_eq!(outcome.code(), code, "{outcome:#?}");
            assert!(
                learnt(&world, user, &path).contains("  - www.example.com:443"),
                "{outcome:#?}"
            );
            world.machine.sh(&format!("rm -f {path} {out}"));
        }
        // What never ran has nothing to learn from.
        let outcome = world
            .run_as(user)
            .args(&["--learn", &path])
            .program(&["no-such-program"]);
        assert_eq!(outcome.code(), 127, "{outcome:#?}");
        assert!(!world.machine.path(&path).exists());
        let outcome = world
            .run_as(user)
            .args(&["--learn", &path])
            .client("true")
            .ok();
        assert!(
            outcome.stderr.contains("nothing public was reached"),
            "{outcome:#?}"
        );
        let policy = learnt(&world, user, &path);
        assert!(!policy.contains("allow:\n"), "{policy}");
    }
}

#[test]
fn the_program_cannot_lead_what_is_written_elsewhere() {
    let world = web();
    for user in User::ALL {
        let home = user.home();
        world.machine.sh(&format!(
            "echo precious > {home}/precious; chown {0}:{0} {home}/precious",
            user.id()
        ));
        let precious = format!("{home}/precious");
        let learn = |file: &str, script: &str| {
            world
                .run_as(user)
                .learning()
                .args(&["-o", file])
                .client(script)
        };
        let get = "curl -sS https://www.example.com/ >/dev/null";
        learn("p.yaml", &format!("{get}; ln -s ../precious p.yaml")).ok();
        let path = format!("{home}/project/p.yaml");
        assert!(learnt(&world, user, &path).contains("www.example.com"));
        assert!(!world.machine.path(&path).is_symlink());
        assert_eq!(world.machine.read(&precious), "precious\n");
        // A link that was there before, from an earlier run.
        world.machine.sh(&format!(
            "cd {home}/project && rm p.yaml && ln -s ../precious p.yaml"
        ));
        let outcome = learn("p.yaml", "echo RAN");
        assert_eq!(
            (outcome.code(), outcome.stdout.as_str()),
            (125, ""),
            "{outcome:#?}"
        );
        assert!(outcome.stderr.contains("project/p.yaml"), "{outcome:#?}");
        assert_eq!(world.machine.read(&precious), "precious\n");
        // A directory in the way: the program's status is lost, and nothing else.
        world.machine.sh(&format!("rm {path}"));
        let outcome = learn("p.yaml", &format!("{get}; mkdir p.yaml"));
        assert_eq!(outcome.code(), 125, "{outcome:#?}");
        assert!(
            outcome.stderr.contains("egret learn --from-log"),
            "{outcome:#?}"
        );
        world.machine.sh(&format!("rmdir {path}"));
    }
}

#[test]
fn logs_of_past_runs_teach_the_same() {
    let world = web();
    for user in User::ALL {
        let log = format!("{}/kept.jsonl", user.home());
        let path = format!("{}/learnt.yaml", user.home());
        let run = world.run_as(user).log(Some(&log)).args(&["--learn", &path]);
        run.client(&format!(
            "{GET}; curl -sS -m 5 http://host.docker.internal:8080/; true"
        ))
        .ok();
        let entries = |policy: &str| {
            policy
                .split("version: 1")
                .nth(1)
                .unwrap()
                .replace("\nname: x", "")
                .to_owned()
        };
        let learnt_then = world.machine.read(&path);
        let printed = world.egret(user, &["learn", "--from-log", &log]).ok();
        assert_eq!(entries(&printed.stdout), entries(&learnt_then));
        // By a pipe, and with what is no record in it.
        let typed =
            format!("(echo nonsense; cat {log}) | /srv/bin/egret learn --from-log - -o {path}");
        let words = ["/bin/sh", "-c", &typed].map(str::to_owned);
        let piped = world
            .to_its_end(
                world.command_as(user, user.home(), &[], &words),
                Duration::from_secs(20),
            )
            .ok();
        assert!(
            piped.stderr.contains("1 lines are no records"),
            "{piped:#?}"
        );
        assert_eq!(entries(&world.machine.read(&path)), entries(&learnt_then));
        // A log of two runs counts both; a run that shares a log learns from its own records only.
        let shared = format!("{}/second.yaml", user.home());
        world
            .run_as(user)
            .log(Some(&log))
            .args(&["--learn", &shared])
            .client("curl -sS https://other.example.org/")
            .ok();
        let second = world.machine.read(&shared);
        assert!(
            second.contains("other.example.org:443") && !second.contains("www.example.com"),
            "{second}"
        );
        let both = world
            .egret(user, &["learn", "--from-log", &log])
            .ok()
            .stdout;
        assert!(
            both.contains("other.example.org:443") && both.contains("www.example.com:443"),
            "{both}"
        );
        let bad = world.egret(user, &["learn", "--from-log", &log, "--", "true"]);
        assert_ne!(bad.code(), 0, "{bad:#?}");
        let none = world.egret(user, &["learn", "--from-log", "/nowhere"]);
        assert!(
            none.code() == 125 && none.stderr.contains("/nowhere"),
            "{none:#?}"
        );
    }
}

#[test]
fn who_looks_sees_that_a_sandbox_learns() {
    let world = web();
    let user = User::Alice;
    let path = format!("{}/learnt.yaml", user.home());
    let mut live = world
        .run_as(user)
        .args(&["--learn", &path, "--name", "pupil"])
        .start(&["/bin/sh", "-c", "read line"]);
    until("it is listed", || {
        world.egret(user, &["ps"]).stdout.contains("pupil")
    });
    let listed = world.egret(user, &["ps"]).ok();
    let line = listed
        .stdout
        .lines()
        .find(|line| line.starts_with("pupil"))
        .unwrap();
    assert!(line.ends_with("  learning"), "{listed:#?}");
    let json = world.egret(user, &["ps", "--output", "json"]).ok();
    let rows: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(rows[0]["learning"], true, "{rows}");
    // Another policy changes what is denied, and not that it learns.
    let strict = format!("{}/strict.yaml", user.home());
    world
        .machine
        .write(&strict, "version: 1\ndeny: [www.example.com]\n");
    world.egret(user, &["policy", "set", "pupil", &strict]).ok();
    drop(live.stdin.take());
    live.finish();
}

#[test]
fn what_cannot_be_learnt_from_is_not_run() {
    let world = web();
    #[rustfmt::skip]
    let table: [(&[&str], &str); 5] = [
        (&["-o", "/nowhere/p.yaml"], "/nowhere/p.yaml"),
        (&["-o", "/srv"], "/srv is no file"),
        (&["-o", "p.yaml", "--merge", "x"], "cannot be used with"),
        (&["--learn", "p.yaml"], "egret learn` has -o FILE"),
        (&["-o", "p.yaml", "--log-max-size", "1M", "--log-keep", "1"], "--log-keep"),
    ];
    for (args, expected) in table {
        let outcome = world
            .run_as(User::Root)
            .learning()
            .args(args)
            .client("echo RAN");
        did_not_run(&outcome, expected);
    }
    let outcome = world
        .run_as(User::Root)
        .learning()
        .args(&["-o", "p.yaml"])
        .log(Some("/dev/null"))
        .client("echo RAN");
    assert_eq!(
        (outcome.code(), outcome.stdout.as_str()),
        (125, ""),
        "{outcome:#?}"
    );
    assert!(outcome.stderr.contains("/dev/null"), "{outcome:#?}");
}
