//! Files and environment: what a program sees, what it can change, and that the usual tools work.

use std::os::unix::fs::chown;

use crate::world::{User, World};

/// A file of a user's, with directories as needed.
pub(crate) fn put(world: &World, user: User, path: &str, text: &str) {
    let full = world.machine.path(path);
    let mut made = full.parent().unwrap().to_path_buf();
    std::fs::create_dir_all(&made).unwrap();
    std::fs::write(&full, text).unwrap();
    chown(&full, Some(user.id()), Some(user.id())).unwrap();
    while made.starts_with(world.machine.path(user.home())) {
        chown(&made, Some(user.id()), Some(user.id())).unwrap();
        made.pop();
    }
}

#[test]
fn secrets_are_not_there() {
    let world = World::new();
    let secrets = [
        ".ssh/id_ed25519",
        ".aws/credentials",
        ".config/gcloud/credentials.db",
        ".kube/config",
        ".docker/config.json",
        ".gnupg/secring.gpg",
        ".netrc",
        ".mozilla/firefox/x/logins.json",
        ".config/google-chrome/Default/Cookies",
        ".git-credentials",
        ".azure/accessTokens.json",
        ".config/gh/hosts.yml",
        ".password-store/x.gpg",
        ".pgpass",
        ".bash_history",
        ".cargo/credentials.toml",
    ];
    for user in User::ALL {
        let home = user.home();
        for secret in secrets {
            put(&world, user, &format!("{home}/{secret}"), "the-secret");
        }
        put(&world, user, &format!("{home}/.profile"), "ordinary");
        for secret in secrets {
            let path = format!("{home}/{secret}");
            let script = format!(
                "cat {path}; stat {path} >/dev/null && echo STAT; python3 -c \"open('{path}')\"; ls -a $(dirname {path})"
            );
            let outcome = world.run_as(user).client(&script);
            assert!(
                !outcome.stdout.contains("the-secret"),
                "{path}: {outcome:#?}"
            );
            let hidden_at_least =
                !outcome.stdout.contains("STAT") || outcome.stderr.contains("Permission denied");
            assert!(hidden_at_least, "{path}: {outcome:#?}");
        }
        let outcome = world
            .run_as(user)
            .client("grep -rs the-secret $HOME /proc/self/root$HOME /etc/shadow; true");
        assert_eq!(outcome.stdout, "", "{outcome:#?}");
        assert_eq!(
            world.run_as(user).client("cat ~/.profile").ok().stdout,
            "ordinary"
        );
        // Nor can they be put there, for the next program outside to find.
        let outcome = world
            .run_as(user)
            .client("mkdir -p ~/.ssh && echo key > ~/.ssh/authorized_keys");
        assert_ne!(outcome.code(), 0, "{outcome:#?}");
        assert!(
            !world
                .machine
                .path(format!("{home}/.ssh/authorized_keys"))
                .exists()
        );
    }
}

#[test]
fn only_the_working_directory_and_a_private_tmp_can_be_written() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        put(&world, user, &format!("{home}/other/file"), "old");
        put(&world, user, "/tmp/outside", "old");
        let script = "
            echo new > here && mkdir d && mv here d/there && rm -r d && echo cwd
            echo new > /tmp/inside && echo tmp
            ls /tmp
            for path in ~/new ~/other/file /new /etc/new /usr/new /var/new /srv/new /home/new /run/new /dev/new /proc/new /sys/new /opt/new; do
                (echo new > $path) 2>/dev/null && echo WROTE $path
                (mkdir $path.d) 2>/dev/null && echo MADE $path
            done
            rm ~/other/file 2>/dev/null && echo REMOVED
            chmod 777 ~/other 2>/dev/null && echo CHANGED
            ln ~/other/file linked 2>/dev/null && echo new > linked && echo LINKED
            true";
        let outcome = world.run_as(user).client(script).ok();
        let mut lines: Vec<_> = outcome.stdout.lines().collect();
        // The sandbox's own /run and /dev may be writable; what is written there is gone afterwards.
        lines.retain(|line| !line.ends_with("/run/new") && !line.ends_with("/dev/new"));
        assert_eq!(lines, ["cwd", "tmp", "inside"], "{user:?}: {outcome:#?}");
        assert!(!world.machine.path("/tmp/inside").exists());
        assert!(
            !world.machine.path("/run/new").exists() && !world.machine.path("/dev/new").exists()
        );
        assert_eq!(world.machine.read(&format!("{home}/other/file")), "old");
        std::fs::remove_file(world.machine.path("/tmp/outside")).unwrap();
        // What is written belongs to the user.
        world.run_as(user).client("touch mine").ok();
        let owner = std::os::unix::fs::MetadataExt::uid(
            &std::fs::metadata(world.machine.path(format!("{home}/project/mine"))).unwrap(),
        );
        assert_eq!(owner, user.id());
    }
}

#[test]
fn flags_and_the_policy_change_what_is_seen() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        put(&world, user, &format!("{home}/.aws/config"), "a region");
        put(&world, user, &format!("{home}/other/file"), "old");
        put(&world, user, &format!("{home}/private/file"), "private");
        let aws = format!("{home}/.aws/config");
        assert_eq!(
            world
                .run_as(user)
                .args(&["--read", &aws])
                .client("cat ~/.aws/config")
                .ok()
                .stdout,
            "a region"
        );
        let outcome = world
            .run_as(user)
            .args(&["--read", &aws])
            .client("echo x > ~/.aws/config");
        assert_ne!(outcome.code(), 0);
        world
            .run_as(user)
            .args(&["--write", "~/other"])
            .client("echo new > ~/other/file")
            .ok();
        assert_eq!(world.machine.read(&format!("{home}/other/file")), "new\n");
        let outcome = world
            .run_as(user)
            .args(&["--hide", &format!("{home}/private")])
            .client("cat ~/private/file; ls ~/private");
        assert!(!outcome.stdout.contains("private"), "{outcome:#?}");
        let policy = "version: 1\nfilesystem:\n  read: ['~/.aws/config']\n  write: ['~/other']\n  hide: ['~/private']\n";
        let script = "cat ~/.aws/config; echo policy > ~/other/file; cat ~/private/file; true";
        let outcome = world.run_as(user).policy(policy).client(script).ok();
        assert_eq!(outcome.stdout, "a region", "{outcome:#?}");
        assert_eq!(
            world.machine.read(&format!("{home}/other/file")),
            "policy\n"
        );
        let outcome = world
            .run_as(user)
            .args(&["--read", "/nowhere"])
            .client("echo RAN");
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (125, ""));
        assert!(outcome.stderr.contains("/nowhere"), "{outcome:#?}");
    }
}

#[test]
fn paths_need_not_be_text() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        world.machine.sh(&format!(
            "cd {home}; odd=$(printf 'caf\\351 \\377'); mkdir \"$odd\" \"$odd/hidden\" \"other $odd\"; chown -R {0}:{0} .",
            user.id()
        ));
        let shell = "cd; odd=$(printf 'caf\\351 \\377'); cd \"$odd\"; egret=$1 run=$2; shift 2
            exec \"$egret\" \"$run\" --hide hidden --write \"../other $odd\" --log-file \"../other $odd/audit\" \"$@\"";
        let run = world
            .run_as(user)
            .log(None)
            .through(&["/bin/sh", "-c", shell, "sh"]);
        let outcome = run
            .client("touch made && ls -d hidden; cd ../other* && touch made && ls")
            .ok();
        assert_eq!(
            outcome.stdout.lines().last(),
            Some("made"),
            "{user:?}: {outcome:#?}"
        );
        let found = world.machine.sh(&format!(
            "cd {home}; ls caf*/made other*/made other*/audit | wc -l"
        ));
        assert_eq!(found, "3\n", "{user:?}");
    }
}

#[test]
fn the_usual_tools_work_in_a_project() {
    let world = World::new();
    for user in User::ALL {
        let project = format!("{}/project", user.home());
        put(
            &world,
            user,
            &format!("{project}/Cargo.toml"),
            "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
        );
        put(
            &world,
            user,
            &format!("{project}/src/main.rs"),
            "fn main() { println!(\"built inside\"); }\n",
        );
        #[rustfmt::skip]
        let table = [
            ("git --version && git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm first && git log --oneline | wc -l", "1"),
            ("ssh -V 2>&1", "OpenSSH"),
            ("node -e 'console.log(6 * 7)'", "42"),
            ("python3 -c 'import ssl, tempfile; print(len(tempfile.NamedTemporaryFile().name) > 0)'", "True"),
            ("/usr/bin/pip3 --version 2>&1 || /usr/bin/python3 -m pip --version", "pip"),
            ("cargo --version", "cargo"),
            ("cargo build -q --offline && ./target/debug/tiny", "built inside"),
            ("id -un", user.name()),
            ("echo $HOME", user.home()),
            ("pwd", project.as_str()),
            ("ps ax | wc -l", ""),
            ("cat /proc/self/status | grep NoNewPrivs", "1"),
            ("ls /dev/null /dev/urandom /dev/shm /dev/fd /dev/ptmx", "/dev/ptmx"),
            ("script -qc 'echo in a pty' /dev/null", "in a pty"),
            ("mktemp", "/tmp/"),
            ("hostname", ""),
        ];
        for (script, expected) in table {
            let outcome = world
                .run_as(user)
                .within(std::time::Duration::from_secs(90))
                .client(script)
                .ok();
            assert!(
                outcome.stdout.contains(expected),
                "{user:?}: {script}: {outcome:#?}"
            );
        }
    }
}

#[test]
fn the_environment_is_passed_on_without_what_leads_outside() {
    let world = World::new();
    let outside = [
        ("SSH_AUTH_SOCK", "/tmp/agent"),
        ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/0/bus"),
        ("DOCKER_HOST", "unix:///run/docker.sock"),
        ("WAYLAND_DISPLAY", "wayland-0"),
        ("DISPLAY", ":0"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("GITHUB_TOKEN", "x"),
        ("KUBECONFIG", "/x"),
        ("https_proxy", "http://10.20.0.7:3128"),
        ("NO_PROXY", "*"),
    ];
    for user in User::ALL {
        let mut run = world
            .run_as(user)
            .env("ORDINARY", "stays")
            .env("ANTHROPIC_API_KEY", "stays");
        for (name, value) in outside {
            run = run.env(name, value);
        }
        let outcome = run.program(&["/usr/bin/env"]).ok();
        for (name, value) in outside {
            assert!(
                !outcome.stdout.contains(&format!("{name}={value}\n")),
                "{name}: {outcome:#?}"
            );
        }
        for there in [
            "ORDINARY=stays",
            "ANTHROPIC_API_KEY=stays",
            "HTTP_PROXY=http://127.0.0.1:61081",
            "https_proxy=http://127.0.0.1:61081",
            "TERM=xterm",
        ] {
            assert!(
                outcome.stdout.lines().any(|line| line == there),
                "{there}: {outcome:#?}"
            );
        }
        let proxies = outcome
            .stdout
            .lines()
            .find(|line| line.starts_with("NO_PROXY="))
            .unwrap();
        assert!(
            proxies.contains("127.0.0.1") && !proxies.contains('*'),
            "{proxies}"
        );
    }
}

#[test]
fn e_and_env_file_set_variables() {
    let world = World::new();
    for user in User::ALL {
        let file = format!("{}/env", user.home());
        world.machine.write(
            &file,
            "# a comment\nFROM_FILE=one two\nBOTH=file\n\nOUTER\n",
        );
        let run = world
            .run_as(user)
            .env("OUTER", "outer")
            .env("GITHUB_TOKEN", "token")
            .env("GONE", "x");
        let args = [
            "--env-file",
            &file,
            "-e",
            "BOTH=flag",
            "-e",
            "EMPTY=",
            "--env",
            "GITHUB_TOKEN",
            "-e",
            "MISSING",
        ];
        let script = "echo \"$FROM_FILE|$BOTH|$EMPTY|$OUTER|$GITHUB_TOKEN|${MISSING-unset}\"";
        assert_eq!(
            run.args(&args).client(script).ok().stdout,
            "one two|flag||outer|token|unset\n"
        );
    }
}
