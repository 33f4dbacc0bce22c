//! What users keep in Egret's own directory: policies that have names, and settings.

use serde_json::Value;

use crate::files::put;
use crate::world::servers::Service;
use crate::world::terminal::Terminal;
use crate::world::{User, World, at};

const AGENT: &str = "version: 1\nname: the-agent\nallow: [www.example.com]\n";

#[test]
fn a_policy_has_a_name_wherever_one_is_asked_for() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve_everywhere(80, Service::Http);
    for user in User::ALL {
        let home = user.home();
        let empty = world.egret(user, &["policy", "list"]).ok();
        assert!(
            empty.stdout.contains(&format!(
                "There are no policies in {home}/.config/egret/policies"
            )),
            "{empty:#?}"
        );
        let file = format!("{home}/.config/egret/policies/agent.yaml");
        put(&world, user, &file, AGENT);
        put(
            &world,
            user,
            &format!("{home}/.config/egret/policies/broken.yaml"),
            "version: 2\n",
        );
        put(
            &world,
            user,
            &format!("{home}/.config/egret/policies/not a name.yaml"),
            AGENT,
        );
        // What lies where programs write never takes its place.
        for decoy in ["agent", "agent.yaml", "ci"] {
            put(
                &world,
                user,
                &format!("{home}/project/{decoy}"),
                "version: 1\ndefault: allow-public\n",
            );
        }

        let listed = world.egret(user, &["policy", "list"]).ok();
        let rows: Vec<Vec<&str>> = listed
            .stdout
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 3, "{listed:#?}");
        assert_eq!(rows[0], ["NAME", "ENTRIES", "AGE"]);
        assert_eq!(
            (rows[1][0], rows[1][1], rows[1][3]),
            ("agent", "1", "the-agent")
        );
        assert!(
            rows[2]
                .join(" ")
                .ends_with("cannot be used: egret policy check broken"),
            "{listed:#?}"
        );
        let json = world
            .egret(user, &["policy", "list", "--output", "json"])
            .ok();
        let json: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(json["policies"][0]["file"], file);
        assert_eq!(json["policies"][1]["valid"], false);

        for (words, code) in [
            (&["policy", "check", "agent"][..], 0),
            (&["policy", "check", "broken"], 2),
            (&["policy", "explain", "agent", "www.example.com:443"], 0),
            (&["policy", "explain", "agent", "other.example:443"], 1),
            (&["policy", "test", "agent"], 0),
            (&["policy", "diff", "agent", "none"], 1),
            (&["policy", "convert", "agent"], 0),
            (&["policy", "fmt", "--check", "agent"], 0),
        ] {
            let outcome = world.egret(user, words);
            assert_eq!(outcome.code(), code, "{words:?}: {outcome:#?}");
        }
        for words in [
            &["policy", "check", "ci"][..],
            &["policy", "fmt", "ci"],
            &["policy", "set", "x", "ci"],
            &["run", "--policy", "ci", "--", "true"],
        ] {
            let missing = world.egret(user, words);
            let says = format!(
                "there is no policy called `ci` in {home}/.config/egret/policies: there are agent, broken; a file is written with a slash, as in ./ci"
            );
            assert!(
                missing.code() != 0 && missing.stderr.contains(&says),
                "{words:?}: {missing:#?}"
            );
        }

        let allowed = world
            .run_as(user)
            .args(&["--policy", "agent", "--summary"])
            .client("curl -sS http://www.example.com/ >/dev/null; curl -s http://other.example/");
        assert_eq!(
            allowed.reasons(),
            ["allowed.rule", "denied.default"],
            "{allowed:#?}"
        );
        let loaded = allowed.events("policy").next().unwrap();
        assert_eq!(loaded["message"], "agent", "{loaded}");
    }
}

#[test]
fn a_program_that_may_write_everywhere_at_home_cannot_write_settings() {
    let world = World::new();
    let script = "
        for place in ~/.config/egret $XDG_CONFIG_HOME/egret; do
            (mkdir -p $place/policies) 2>/dev/null
            for file in settings.yaml policies/agent.yaml policies/new.yaml; do
                (echo 'version: 1' > $place/$file) 2>/dev/null && echo WROTE $file
            done
            mv $place $place.old 2>/dev/null && echo MOVED $place
            rm -rf $place 2>/dev/null && echo REMOVED $place
        done
        mv ~/.config ~/.config.old 2>/dev/null && echo MOVED config
        cat ~/.config/egret/policies/* 2>/dev/null
        echo yes > ~/written && echo done";
    for user in User::ALL {
        let home = user.home();
        let config = world.machine.path(format!("{home}/.config"));
        for (there, xdg) in [
            (false, None),
            (true, None),
            (true, Some(format!("{home}/elsewhere"))),
        ] {
            if there {
                put(
                    &world,
                    user,
                    &format!("{home}/.config/egret/policies/agent.yaml"),
                    AGENT,
                );
            } else {
                assert!(!config.exists());
            }
            if let Some(xdg) = &xdg {
                world
                    .machine
                    .sh(&format!("install -d -o {} {xdg}", user.id()));
            }
            let run = world.run_as(user).args(&["--write", home]);
            let run = match &xdg {
                Some(xdg) => run.env("XDG_CONFIG_HOME", xdg),
                None => run.env("XDG_CONFIG_HOME", &format!("{home}/.config")),
            };
            let outcome = run.client(script).ok();
            assert_eq!(
                outcome.stdout, "done\n",
                "{user:?} {there} {xdg:?}: {outcome:#?}"
            );
            for place in [".config", "elsewhere"] {
                let found = world.machine.sh(&format!(
                    "cd {home}; find {place} -path '*egret*' -type f -exec grep -L the-agent {{}} + 2>/dev/null || true"
                ));
                assert_eq!(found, "", "{user:?} {there} {xdg:?}");
            }
        }
        // Nor may somebody open them by mistake, or keep them behind a link that could be another.
        let policies = format!("{home}/.config/egret/policies");
        let refused = world
            .run_as(user)
            .args(&["--write", &policies])
            .client("true");
        assert!(
            refused.stderr.contains("no program may change these"),
            "{refused:#?}"
        );
        let (id, dotfiles) = (user.id(), format!("{home}/project/dotfiles"));
        world.machine.sh(&format!(
            "cd {home} && mkdir {dotfiles} && mv .config/egret {dotfiles}/ && ln -s {dotfiles}/egret .config/egret && chown -R {id}:{id} {dotfiles}"
        ));
        let outcome = world
            .run_as(user)
            .client("echo x > dotfiles/egret/policies/agent.yaml; mv dotfiles d; mv dotfiles/egret d; ls dotfiles/egret; ls ~/.config/egret");
        assert_eq!(outcome.stdout, "", "{outcome:#?}");
        assert_eq!(
            world
                .machine
                .read(&format!("{dotfiles}/egret/policies/agent.yaml")),
            AGENT
        );
        let refused = world.run_as(user).args(&["--write", home]).client("true");
        assert!(
            refused.stderr.contains("by way of the link"),
            "{refused:#?}"
        );
    }
}

#[test]
fn a_setting_is_an_option_that_is_always_given() {
    let world = World::new();
    for name in ["www.example.com", "other.example"] {
        world.dns.answer(name, &[at::PUBLIC]);
    }
    world.serve_everywhere(80, Service::Http);
    let script = "for host in www.example.com other.example; do curl -s -o /dev/null -w '%{http_code} ' http://$host/; done; echo $MINE $(cat ~/shown/it)";
    for user in User::ALL {
        let home = user.home();
        let file = format!("{home}/.config/egret/settings.yaml");
        let policies = format!("{home}/.config/egret/policies");
        put(&world, user, &format!("{policies}/agent.yaml"), AGENT);
        put(
            &world,
            user,
            &format!("{policies}/other.yaml"),
            "version: 1\nallow: [other.example]\n",
        );
        put(&world, user, &format!("{home}/shown/it"), "seen");
        world.machine.sh(&format!(
            "ln -sf /bin/sh {home}/project/mysh; ln -sf /bin/sh /usr/local/bin/mysh"
        ));
        put(
            &world,
            user,
            &file,
            &format!(
                "version: 1\npolicy: agent\nenv: [MINE=a]\nhide: [{home}/shown]\nprograms:\n  mysh: {{policy: other, env: [MINE=b]}}\n"
            ),
        );
        let run = || world.run_as(user).args(&["--summary"]);
        let outcome = run().client(script);
        assert_eq!(outcome.stdout, "200 403 a\n", "{outcome:#?}");
        // Which policy it was is said wherever one looks.
        assert_eq!(
            outcome.events("policy").next().unwrap()["message"],
            "agent",
            "{outcome:#?}"
        );
        assert!(
            outcome.stderr.contains("decided by the policy agent\n"),
            "{outcome:#?}"
        );
        let outcome = run().program(&["mysh", "-c", script]);
        assert_eq!(outcome.stdout, "403 200 b\n", "{outcome:#?}");
        let outcome = run().program(&["./mysh", "-c", script]);
        assert_eq!(outcome.stdout, "200 403 a\n", "{outcome:#?}");
        let outcome = run()
            .args(&["--policy", "other", "-e", "MINE=c"])
            .client(script);
        assert_eq!(outcome.stdout, "403 200 c\n", "{outcome:#?}");
        let outcome = run().args(&["--no-settings"]).client(script);
        assert_eq!(outcome.stdout, "403 403 seen\n", "{outcome:#?}");

        let shown = world.egret(user, &["settings", "mysh"]).ok();
        for line in [
            format!("other  ({file}:6)"),
            format!("{home}/shown  ({file}:4)"),
            "MINE=a".into(),
            "MINE=b".into(),
        ] {
            assert!(shown.stdout.contains(&line), "{line}: {shown:#?}");
        }
        assert!(!shown.stdout.contains("agent"), "{shown:#?}");
        let json = world.egret(user, &["settings", "--output", "json"]).ok();
        let json: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(
            json["settings"][0],
            serde_json::json!({ "key": "policy", "values": ["agent"], "line": 2 })
        );

        for (text, says) in [
            ("version: 1\npolcy: agent\n", "did you mean `policy`?"),
            (
                "version: 1\nallow: [evil.example]\n",
                "a settings file has no key `allow`",
            ),
            (
                "version: 1\npolicy: policy.yaml\n",
                "depends on where one stands",
            ),
            (
                "version: 1\npolicy: nowhere\n",
                "there is no policy called `nowhere`",
            ),
            (
                "version: 1\nresolver: [nowhere]\n",
                "this is the setting `resolver`",
            ),
            (
                "version: 1\nlog_max_size: huge\n",
                "this is the setting `log_max_size`",
            ),
        ] {
            put(&world, user, &file, text);
            let refused = world
                .run_as(user)
                .resolver("10.20.0.53:53")
                .log(None)
                .client("echo ran");
            let refused = match text.contains("resolver") {
                // The option that all tests have would win.
                true => {
                    let words = ["/srv/bin/egret", "run", "--", "echo", "ran"].map(str::to_owned);
                    world.to_its_end(
                        world.command_as(user, home, &[], &words),
                        std::time::Duration::from_secs(20),
                    )
                }
                false => refused,
            };
            assert!(
                refused.code() == 125 && refused.stderr.contains(says),
                "{text}: {refused:#?}"
            );
        }
        put(&world, user, &file, "version: 1\npolicy: agent\n");
        for mode in ["666", "620"] {
            world.machine.sh(&format!("chmod {mode} {file}"));
            let refused = world.run_as(user).client("echo ran");
            assert!(
                refused.code() == 125 && refused.stderr.contains("somebody else can write to"),
                "{mode}: {refused:#?}"
            );
        }
        world
            .machine
            .sh(&format!("chmod 600 {file}; chmod 777 $(dirname {file})"));
        let refused = world.run_as(user).client("echo ran");
        assert!(
            refused.code() == 125 && refused.stderr.contains("somebody else can write to"),
            "{refused:#?}"
        );
        world.machine.sh(&format!("rm -rf {home}/.config"));
    }
}

#[test]
fn a_first_policy_is_three_answers() {
    let world = World::new();
    let words =
        |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
    for user in User::ALL {
        let home = user.home();
        let policies = format!("{home}/.config/egret/policies");
        let project = format!("{home}/project");
        let command = world.command_as(user, &project, &[], &words(&["/srv/bin/egret", "init"]));
        let mut terminal = Terminal::start(&world, user, &command);
        terminal.expect("What will run?");
        terminal.expect("claude-code");
        terminal.expect("Program: ");
        terminal.send("claud\r");
        terminal.expect("\"claud\" is neither one of these nor a host");
        terminal.expect("Program: ");
        terminal.send("claude-code\r");
        terminal.expect("What may it reach besides?");
        terminal.expect("Besides: ");
        terminal.send("npm, github db.example.com:5432 host.docker.internal:11434\r");
        terminal.expect("to be called? [claude-code]: ");
        terminal.send("my agent\r");
        terminal.expect("cannot be the name of a policy");
        terminal.send("agent\r");
        terminal.expect("egret run --policy agent -- claude");
        assert_eq!(terminal.end(), Some(0));

        let file = format!("{policies}/agent.yaml");
        let text = world.machine.read(&file);
        assert_eq!(
            world
                .machine
                .sh(&format!("stat -c '%a %u' {file} {policies}")),
            format!("600 {0}\n700 {0}\n", user.id())
        );
        for kept in [
            "# Claude Code: the model, and signing in.",
            "# signing in with a subscription",
            "- gist.github.com",
            "- db.example.com:5432",
        ] {
            assert!(text.contains(kept), "{kept}\n{text}");
        }
        for (words, code) in [
            (&["policy", "check", "agent"][..], 0),
            (&["policy", "test", "agent"], 0),
            (&["policy", "fmt", "--check", "agent"], 0),
            (&["policy", "explain", "agent", "registry.npmjs.org"], 0),
            (&["policy", "explain", "agent", "db.example.com:5432"], 0),
            (
                &["policy", "explain", "agent", "host.docker.internal:11434"],
                0,
            ),
            (
                &["policy", "explain", "agent", "host.docker.internal:22"],
                1,
            ),
            (&["policy", "explain", "agent", "pypi.org"], 1),
        ] {
            let outcome = world.egret(user, words);
            assert_eq!(outcome.code(), code, "{words:?}: {outcome:#?}");
            assert!(
                !outcome.stdout.contains("warning") && !outcome.stderr.contains("warning"),
                "{words:?}: {outcome:#?}"
            );
        }
        // The same by options, and never over one that is there.
        let line = [
            "--for",
            "claude-code",
            "--for",
            "npm",
            "--for",
            "github",
            "--allow",
            "db.example.com:5432",
            "--allow",
            "host.docker.internal:11434",
        ];
        let init = |more: &[&str]| world.egret(user, &[&["init"], more].concat());
        let refused = init(&[&["agent"], &line[..]].concat());
        assert!(
            refused.code() == 125 && refused.stderr.contains("is there already"),
            "{refused:#?}"
        );
        assert_eq!(world.machine.read(&file), text);
        let done = init(&[&["again", "--yes"], &line[..]].concat()).ok();
        assert_eq!(done.stdout, "egret run --policy again -- claude\n");
        assert_eq!(
            world.machine.read(&format!("{policies}/again.yaml")),
            text.replace("agent", "again")
        );
        let elsewhere = format!("{home}/elsewhere.yaml");
        init(&["--for", "pypi", "-o", &elsewhere]).ok();
        assert!(
            world
                .machine
                .read(&elsewhere)
                .contains("files.pythonhosted.org")
        );
        world
            .machine
            .sh(&format!("ln -sf {home}/nowhere {home}/link.yaml"));
        for (words, says) in [
            (&[][..], "egret init NAME --for READY"),
            (&["--yes"], "egret init NAME --for READY"),
            (
                &["--allow", "db.example.com"],
                "what is the policy to be called?",
            ),
            (&["x", "--for", "claud"], "nothing is ready for \"claud\""),
            (&["x", "--allow", "*"], "--allow *"),
            (&["none", "--for", "npm"], "`none` is built in"),
            (&["../x", "--for", "npm"], "cannot be the name of a policy"),
            (
                &["--for", "npm", "-o", &format!("{home}/link.yaml")],
                "is there already",
            ),
        ] {
            let refused = init(words);
            assert!(
                refused.code() == 125 && refused.stderr.contains(says),
                "{words:?}: {refused:#?}"
            );
        }
        assert!(!world.machine.path(format!("{home}/nowhere")).exists());
        let listed = init(&["--list"]).ok();
        assert!(
            listed.stdout.contains("github        Git at GitHub"),
            "{listed:#?}"
        );
        world
            .machine
            .sh(&format!("rm -rf {home}/.config {elsewhere}"));
    }
}
