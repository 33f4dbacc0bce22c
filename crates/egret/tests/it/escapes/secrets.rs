//! Classes 12 and 33: files that a program must not read, or not change, by other ways than their own names.

use std::io::Write;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::CALLS;
use crate::files::put;
use crate::world::servers::Service;
use crate::world::{User, World, at};

/// Runs a script that prints a line for each attempt, `WHAT RESULT`; all have to fail.
#[track_caller]
fn fails(run: crate::world::run::Run<'_>, script: &str) {
    let outcome = run.python(&format!("{CALLS}{script}")).ok();
    assert!(outcome.stdout.contains(' '), "{outcome:#?}");
    for line in outcome.stdout.lines() {
        let result = line.rsplit(' ').next().unwrap();
        assert!(result.starts_with('E'), "{line}: {outcome:#?}");
    }
}

#[test]
fn a_policy_in_the_project_cannot_be_changed_nor_replaced() {
    let world = World::new();
    for user in User::ALL {
        let project = format!("{}/project", user.home());
        put(
            &world,
            user,
            &format!("{project}/a/b/policy.yaml"),
            "version: 1\n",
        );
        let script = "
os.mkdir('c'); open('c/policy.yaml', 'w').write('version: 1')
print('write', attempt(lambda: open('a/b/policy.yaml', 'a')))
print('truncate', attempt(lambda: os.truncate('a/b/policy.yaml', 0)))
print('remove', attempt(lambda: os.remove('a/b/policy.yaml')))
print('rename', attempt(lambda: os.rename('a/b/policy.yaml', 'a/b/other')))
print('put another in its place', attempt(lambda: os.rename('c/policy.yaml', 'a/b/policy.yaml')))
print('link', attempt(lambda: os.link('a/b/policy.yaml', 'linked')))
print('chmod', attempt(lambda: os.chmod('a/b/policy.yaml', 0o777)))
print('rename its directory', attempt(lambda: os.rename('a/b', 'a/other')))
print('rename the one above', attempt(lambda: os.rename('a', 'other')))
print('exchange its directory', call(316, -100, b'c', -100, b'a/b', 2))
";
        let run = world.run_as(user).args(&["--policy", "a/b/policy.yaml"]);
        fails(run, script);
        let text = world.machine.read(&format!("{project}/a/b/policy.yaml"));
        assert_eq!(text, "version: 1\n");
        // Its neighbours are the program's.
        let run = world.run_as(user).args(&["--policy", "a/b/policy.yaml"]);
        run.client("echo x > a/b/new && rm a/b/new && rm -r c").ok();
    }
}

#[test]
fn a_policy_where_the_program_can_write_is_not_read_again() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    let script = "
        get() { curl -s -o /dev/null -w '%{http_code}\\n' http://www.example.com/; }
        get; read x
        printf 'version: 1\\nallow: [www.example.com]\\n' > policy.yaml && echo written
        read x; get
        read x; get";
    for user in User::ALL {
        let policy = format!("{}/project/policy.yaml", user.home());
        put(&world, user, &policy, "version: 1\n");
        let mut live = world
            .run_as(user)
            .args(&["--policy", "policy.yaml", "--name", "exposed"])
            .start(&["/bin/sh", "-c", script]);
        let turn = |live: &mut crate::world::run::Live<'_>| {
            std::thread::sleep(Duration::from_millis(700));
            live.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            std::thread::sleep(Duration::from_millis(400));
        };
        std::thread::sleep(Duration::from_millis(500));
        // Somebody edits it outside, which takes away what protected it.
        put(
            &world,
            user,
            &format!("{policy}.new"),
            "version: 1\n# edited\n",
        );
        world.machine.sh(&format!("mv {policy}.new {policy}"));
        turn(&mut live);
        let pid = Pid::from_raw(i32::try_from(live.child.id()).unwrap());
        kill(pid, Signal::SIGHUP).unwrap();
        turn(&mut live);
        // A policy from elsewhere can be put in its place.
        let elsewhere = format!("{}/wider.yaml", user.home());
        put(
            &world,
            user,
            &elsewhere,
            "version: 1\nallow: [www.example.com]\n",
        );
        world
            .egret(user, &["policy", "set", "exposed", &elsewhere])
            .ok();
        turn(&mut live);
        let outcome = live.finish().ok();
        assert_eq!(
            outcome.stdout, "403\nwritten\n403\n200\n",
            "{user:?}: {outcome:#?}"
        );
        assert!(
            outcome.stderr.contains("where the program can write")
                && outcome.stderr.contains("egret policy set exposed"),
            "{outcome:#?}"
        );
        assert!(
            outcome
                .events("policy")
                .any(|record| record["action"] == "rejected"),
            "{outcome:#?}"
        );
    }
}

#[test]
fn a_policy_is_not_taken_by_a_link_that_the_program_could_replace() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        let owner = user.id();
        put(
            &world,
            user,
            &format!("{home}/policies/real.yaml"),
            "version: 1\n",
        );
        world.machine.sh(&format!(
            "cd {home}/project; mkdir -p deep; ln -s ../policies/real.yaml policy.yaml; ln -s ../../policies/real.yaml deep/policy.yaml
             ln -s ../policies linked; ln -s {home}/project/policy.yaml {home}/outside.yaml; chown -hR {owner}:{owner} {home}"
        ));
        for link in [
            "policy.yaml",
            "deep/policy.yaml",
            "./deep/../policy.yaml",
            "linked/real.yaml",
            "../outside.yaml",
        ] {
            let outcome = world
                .run_as(user)
                .args(&["--policy", link])
                .client("echo RAN");
            assert_eq!(
                (outcome.code(), outcome.stdout.as_str()),
                (125, ""),
                "{link}: {outcome:#?}"
            );
            assert!(
                outcome.stderr.contains("by way of the link") && outcome.stderr.contains("project"),
                "{link}: {outcome:#?}"
            );
        }
        // The file that it leads to can be named, and so can a link that the program cannot replace.
        let real = format!("{home}/policies/real.yaml");
        world
            .machine
            .sh(&format!("ln -sfn {real} {home}/outside.yaml"));
        for good in [real, format!("{home}/outside.yaml")] {
            world
                .run_as(user)
                .args(&["--policy", &good])
                .client("true")
                .ok();
        }
    }
}

#[test]
fn an_egret_in_the_project_cannot_be_replaced() {
    let world = World::new();
    for user in User::ALL {
        let project = format!("{}/project", user.home());
        world.machine.sh(&format!(
            "mkdir {project}/bin; cp /srv/bin/egret {project}/bin/; chown -R {0}:{0} {project}",
            user.id()
        ));
        let script = "
open('other', 'w').write('x')
print('write', attempt(lambda: open('bin/egret', 'a')))
print('remove', attempt(lambda: os.remove('bin/egret')))
print('rename', attempt(lambda: os.rename('bin/egret', 'x')))
print('put another in its place', attempt(lambda: os.rename('other', 'bin/egret')))
print('rename its directory', attempt(lambda: os.rename('bin', 'x')))
";
        let shell = "shift; exec bin/egret \"$@\"";
        let run = world.run_as(user).through(&["/bin/sh", "-c", shell, "sh"]);
        fails(run, script);
    }
}

#[test]
fn a_home_directory_is_not_writable_for_being_the_working_directory() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        put(&world, user, &format!("{home}/.bashrc"), "as it was");
        let script = "
print('a new file', attempt(lambda: open('new', 'w')))
print('a file of the shell', attempt(lambda: open('.bashrc', 'a')))
print('another one', attempt(lambda: open('.profile', 'w')))
print('a directory for keys', attempt(lambda: os.mkdir('.ssh')))
print('a directory', attempt(lambda: os.mkdir('directory')))
print('a link', attempt(lambda: os.symlink('/etc', '.config')))
";
        fails(world.run_as(user).directory(home), script);
        let found = world.machine.sh(&format!("ls -A {home}"));
        assert!(
            !found.contains(".ssh") && !found.contains("new"),
            "{user:?}: {found}"
        );
        assert_eq!(world.machine.read(&format!("{home}/.bashrc")), "as it was");
    }
}

#[test]
fn secrets_stay_covered_in_a_home_directory_that_can_be_written() {
    let world = World::new();
    let secrets = [
        ".netrc",
        ".ssh/id_ed25519",
        ".config/gcloud/creds",
        ".local/share/keyrings/login.keyring",
    ];
    for user in User::ALL {
        let home = user.home();
        for secret in secrets {
            put(&world, user, &format!("{home}/{secret}"), "the-secret");
        }
        let script = format!(
            "
for path in {secrets:?}:
    print('read', path, attempt(lambda: open(path).read(1) or os.stat('/nowhere')))
    print('write', path, attempt(lambda: open(path, 'w')))
for directory in ['.ssh', '.config', '.config/gcloud', '.local', '.local/share', '.local/share/keyrings', '.netrc']:
    print('rename', directory, attempt(lambda: os.rename(directory, directory + '-moved')))
print('exchange', attempt(lambda: os.mkdir('other')) == 'ok' and call(316, -100, b'other', -100, b'.config', 2))
"
        );
        for (directory, args) in [
            (home.to_owned(), vec!["--write", home]),
            (home.to_owned(), vec!["--write", "."]),
        ] {
            fails(
                world.run_as(user).directory(&directory).args(&args),
                &script,
            );
            let run = world.run_as(user).directory(&directory).args(&args);
            let outcome =
                run.client("grep -rs the-secret . ; echo mine > mine && rm -r mine other");
            assert_eq!(outcome.stdout, "", "{user:?}: {outcome:#?}");
        }
        for secret in secrets {
            let path = format!("{home}/{secret}");
            assert_eq!(world.machine.read(&path), "the-secret", "{path}");
        }
    }
}

#[test]
fn secrets_are_hidden_whatever_home_says() {
    let world = World::new();
    let passwd = world.machine.read("/srv/passwd");
    world.machine.write(
        "/srv/passwd",
        format!("{passwd}builder:x:2000:2000::/srv/builder:/bin/sh\n"),
    );
    world
        .machine
        .sh("mkdir -p /srv/elsewhere /srv/builder/.aws; echo the-secret > /srv/builder/.aws/credentials");
    for user in User::ALL {
        let home = user.home();
        let mut secrets = vec![format!("{home}/.netrc"), format!("{home}/.ssh/id_ed25519")];
        for secret in &secrets {
            put(&world, user, secret, "the-secret");
        }
        if user == User::Root {
            // Root could read everybody's.
            secrets.push("/srv/builder/.aws/credentials".into());
            put(&world, User::Alice, "/home/alice/.pgpass", "the-secret");
            secrets.push("/home/alice/.pgpass".into());
        }
        let script = format!("cat {}; true", secrets.join(" "));
        let ways: [&[&str]; 5] = [
            &[],
            &["env", "-u", "HOME"],
            &["env", "HOME="],
            &["env", "HOME=/srv/elsewhere"],
            &["env", "HOME=/nonexistent"],
        ];
        for way in ways {
            let outcome = world.run_as(user).through(way).client(&script).ok();
            assert_eq!(outcome.stdout, "", "{user:?} {way:?}: {outcome:#?}");
            let failures = outcome.stderr.matches("cat: ").count();
            assert_eq!(failures, secrets.len(), "{user:?} {way:?}: {outcome:#?}");
        }
    }
}

#[test]
fn logs_of_other_runs_are_not_there() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        let states = [
            None,
            Some(format!("{home}/state")),
            Some(format!("{home}/project/state")),
        ];
        for state in states {
            let directory = state.clone().unwrap_or(format!("{home}/.local/state"));
            let run = |log| {
                let run = world.run_as(user);
                let run = if log { run } else { run.log(None) };
                match &state {
                    Some(state) => run.env("XDG_STATE_HOME", state),
                    None => run,
                }
            };
            run(false).args(&["--name", "earlier"]).client("true").ok();
            let logs = format!("{directory}/egret/logs");
            let before = world.machine.sh(&format!("ls {logs}"));
            assert!(before.contains("earlier"), "{before}");
            // Whether this run's log is among them or elsewhere.
            for log in [false, true] {
                let script = format!(
                    "find {directory} -name '*.jsonl'; cat {logs}/*; rm -f {logs}/*; mv {directory}/egret x; echo x > {logs}/forged; true"
                );
                let outcome = run(log).client(&script).ok();
                assert_eq!(outcome.stdout, "", "{user:?}: {outcome:#?}");
            }
            let after = world.machine.sh(&format!("ls {logs}"));
            assert!(
                after.starts_with(&before.trim_end()[..10]) && !after.contains("forged"),
                "{before} {after}"
            );
            for log in before.lines() {
                assert!(after.contains(log), "{before} {after}");
            }
        }
    }
}

#[test]
fn secrets_are_hidden_at_every_mount_of_their_file_system() {
    let world = World::new();
    for user in User::ALL {
        let (home, id) = (user.home(), user.id());
        for secret in [".netrc", ".aws/config", "dotfiles/pgpass"] {
            put(&world, user, &format!("{home}/{secret}"), "the-secret");
        }
        put(&world, user, &format!("{home}/.vimrc"), "ordinary");
        world.machine.sh(&format!(
            "cd {home}; ln -s dotfiles/pgpass .pgpass; ln -s ../dotfiles/pgpass .aws/credentials
             mkdir -p '/srv/mirror {id}' /srv/part-{id} project/home; touch /srv/file-{id}
             mount --bind {home}/.netrc /srv/file-{id}; mount --bind {home} '/srv/mirror {id}'; mount --bind {home}/.aws /srv/part-{id}; mount --bind {home} project/home"
        ));
        let places = [
            home.to_owned(),
            format!("'/srv/mirror {id}'"),
            format!("/srv/part-{id}"),
            format!("/srv/file-{id}"),
            format!("{home}/project/home"),
        ];
        for place in places {
            let script = format!("grep -rs the-secret {place}; true");
            let outcome = world.run_as(user).client(&script).ok();
            assert_eq!(outcome.stdout, "", "{user:?} {place}: {outcome:#?}");
        }
        let script = format!("cat ~/.vimrc '/srv/mirror {id}/.vimrc' ~/project/home/.vimrc");
        let outcome = world.run_as(user).client(&script).ok();
        assert_eq!(outcome.stdout, "ordinary".repeat(3), "{outcome:#?}");
    }
}

#[test]
fn what_a_hidden_directory_links_to_is_hidden() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        #[rustfmt::skip]
        let links = [
            (".aws/credentials", "../dotfiles/aws/credentials", "dotfiles/aws/credentials"),
            (".ssh/id_rsa",      "/srv/keys/rsa",               "/srv/keys/rsa"),
            (".config/gcloud",   "../dotfiles/gcloud",          "dotfiles/gcloud/creds"),
            (".netrc",           "dotfiles/netrc",              "dotfiles/netrc"),
        ];
        let mut script = String::new();
        for (link, to, real) in links {
            let real = std::path::Path::new(home).join(real);
            put(&world, user, real.to_str().unwrap(), "the-secret");
            world.machine.sh(&format!(
                "cd {home}; mkdir -p $(dirname {link}); ln -s {to} {link}"
            ));
            script += &format!("cat ~/{link} {}; ", real.display());
        }
        world
            .machine
            .sh(&format!("chown -hR {0}:{0} {home}", user.id()));
        put(&world, user, &format!("{home}/dotfiles/vimrc"), "ordinary");
        script += "cat ~/dotfiles/vimrc";
        let outcome = world.run_as(user).client(&script).ok();
        assert_eq!(outcome.stdout, "ordinary", "{user:?}: {outcome:#?}");
        world.machine.sh("rm -r /srv/keys");
    }
}
