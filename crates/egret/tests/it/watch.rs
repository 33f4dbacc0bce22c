//! `egret watch`, as somebody at a terminal sees it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::containers::furnished;
use crate::world::engine::Kind;
use crate::world::run::Live;
use crate::world::servers::Service;
use crate::world::terminal::{Screen, Terminal};
use crate::world::{User, World, at, until};

const POLICY: &str = "\
# Looked at every Monday.
version: 1
allow:
  - files.example   # releases
deny:
  - ads.example
";

/// Where the policies of these tests are.
const FILE: &str = "/home/alice/agent.yaml";

/// A world where the names below lead to web servers.
fn web(world: World) -> World {
    for name in ["www.example.com", "api.example.com", "files.example"] {
        world.dns.answer(name, &[at::PUBLIC]);
    }
    world.dns.answer("intranet.example", &[at::PRIVATE]);
    world.serve("93.184.216.34:80", Service::Http);
    world
}

/// Starts a sandbox `agent` that asks for these again and again.
#[track_caller]
fn agent<'w>(world: &'w World, args: &[&str], urls: &str) -> Live<'w> {
    world.machine.write(FILE, POLICY);
    world.machine.sh(&format!("chown 12345:12345 {FILE}"));
    let script = format!(
        "while :; do for url in {urls}; do curl -sS -m 2 -o /dev/null -w '%{{http_code}} %{{url}}\\n' $url; done; sleep 0.3; done"
    );
    world
        .run_as(User::Alice)
        .args(&["--name", "agent"])
        .args(args)
        .start(&["/bin/sh", "-c", &script])
}

fn has<'a>(words: &'a [&'a str]) -> impl Fn(&str) -> bool + 'a {
    move |text| {
        text.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    }
}

#[test]
fn a_refusal_is_seen_and_allowed_by_a_key() {
    let world = web(World::new());
    let urls = "http://www.example.com/ http://api.example.com/ http://intranet.example/";
    let mut live = agent(&world, &["--policy", FILE], urls);
    let screen = Screen::start(
        &world,
        User::Alice,
        "egret watch agent; echo ended $?; sleep 60",
    );
    // The last that is asked for, so that all are there.
    screen.until("refusals", has(&["refused", "intranet.example:80"]));
    // In the order of their names, so that the cursor can be put on one.
    screen.press(&["s", "s", "s"]);
    let text = screen.until("the order", has(&["s name"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 24, "{text}");
    assert!(
        lines[0].starts_with("egret watch  1 sandbox  0 open"),
        "{text}"
    );
    assert!(lines[1].starts_with("agent (process "), "{text}");
    assert_eq!(
        lines[2],
        "  STATE   DESTINATION                              COUNT   RATE    UP  DOWN LAST"
    );
    assert!(
        lines[3].starts_with("> refused api.example.com:80 "),
        "{text}"
    );
    assert!(
        lines[4].starts_with("  refused intranet.example:80 "),
        "{text}"
    );
    assert!(
        lines[5].starts_with("  refused www.example.com:80 "),
        "{text}"
    );
    assert!(
        text.contains("to allow it: --allow api.example.com:80"),
        "{text}"
    );
    assert!(
        lines[20].contains("agent: policy loaded: /home/alice/agent.yaml"),
        "{text}"
    );

    // For the rest of the run: the next try passes, and the file is as it was.
    screen.press(&["a"]);
    screen.until(
        "what would be done",
        has(&["Allow api.example.com:80 in agent?"]),
    );
    screen.press(&["r"]);
    screen.until("the next try", has(&["allowed", "api.example.com:80"]));
    assert_eq!(world.machine.read(FILE), POLICY);

    // In the policy's file, after it was shown.
    screen.press(&["G", "a"]);
    screen.until(
        "what would be done",
        has(&["Allow www.example.com:80 in agent?"]),
    );
    screen.press(&["a"]);
    screen.until("the change", has(&["+  - www.example.com:80"]));
    let shown = screen.text();
    assert!(has(&["  - files.example   # releases"])(&shown), "{shown}");
    assert_eq!(world.machine.read(FILE), POLICY, "it has only been shown");
    screen.press(&["y"]);
    screen.until("the next try", has(&["allowed", "www.example.com:80"]));
    let added = POLICY.replace("releases\n", "releases\n  - www.example.com:80\n");
    assert_eq!(world.machine.read(FILE), added);

    // What a mere entry does not open is not opened.
    screen.press(&["g", "j"]);
    screen.until("the cursor", has(&["> refused", "intranet.example:80"]));
    screen.press(&["a", "r"]);
    screen.until(
        "another reason",
        has(&["intranet.example:80", "denied.address.private"]),
    );
    screen.press(&["a"]);
    screen.until("the refusal", |text| {
        !text.contains("in agent?")
            && (text.contains("no entry of a policy") || text.contains("not from here"))
    });

    // And back: denied, in the file as well.
    screen.press(&["g", "d", "a"]);
    screen.until("the change", has(&["+  - api.example.com:80"]));
    screen.press(&["y"]);
    screen.until("the next try", has(&["refused", "api.example.com:80"]));
    assert_eq!(
        world.machine.read(FILE),
        added.replace("ads.example\n", "ads.example\n  - api.example.com:80\n")
    );
    screen.press(&["Enter"]);
    let text = screen.until("the explanation", has(&["denied", "agent.yaml:8"]));
    assert!(text.contains("denied.rule"), "{text}");

    // It ends, and is still there to be looked at.
    screen.press(&["Enter"]);
    live.child.kill().unwrap();
    screen.until("the end", has(&["agent (ended)"]));
    screen.press(&["q"]);
    screen.until("the shell", has(&["ended 0"]));
}

#[test]
fn a_file_that_is_not_what_was_loaded_is_left_alone() {
    let world = web(World::new());
    let _live = agent(&world, &["--policy", FILE], "http://www.example.com/");
    let screen = Screen::start(&world, User::Alice, "egret watch");
    screen.until("a refusal", has(&["refused", "www.example.com:80"]));
    let other = POLICY.replace("files.example ", "everything.example ");
    world.machine.write(FILE, &other);
    screen.press(&["a", "a"]);
    screen.until("why not", has(&["is not what was loaded"]));
    assert_eq!(world.machine.read(FILE), other);
    // Nor one that was changed between looking and saying yes.
    world.machine.write(FILE, POLICY);
    screen.press(&["a", "a"]);
    screen.until("the change", has(&["+  - www.example.com:80"]));
    world.machine.write(FILE, &other);
    screen.press(&["y"]);
    screen.until("why not", has(&["changed by somebody else"]));
    assert_eq!(world.machine.read(FILE), other);
    screen.until(
        "that nothing passes",
        has(&["refused", "www.example.com:80"]),
    );
}

#[test]
fn without_a_policy_file_there_is_the_rest_of_the_run() {
    let world = web(World::new());
    let _live = agent(&world, &[], "http://www.example.com/");
    let screen = Screen::start(&world, User::Alice, "egret watch");
    screen.until("a refusal", has(&["refused", "www.example.com:80"]));
    screen.press(&["a"]);
    screen.until("that there is none", has(&["It has no policy file."]));
    screen.press(&["a"]);
    screen.until("why not", has(&["no policy file; r is for this run"]));
    screen.press(&["a", "r"]);
    screen.until("the next try", has(&["allowed", "www.example.com:80"]));
}

#[test]
fn what_is_open_is_shown_while_it_moves() {
    let world = web(World::new());
    let run = world.run_as(User::Alice).allow("files.example");
    let _live = run.args(&["--name", "agent"]).start(&[
        "/bin/sh",
        "-c",
        "curl -s --limit-rate 5M -o /dev/null http://files.example/bytes/900000000",
    ]);
    let screen = Screen::start(&world, User::Alice, "egret watch");
    let text = screen.until("a rate", |text| {
        has(&["open", "files.example:80", "M/s"])(text) && text.contains("1 open")
    });
    let line = text
        .lines()
        .find(|line| line.contains("files.example"))
        .unwrap();
    assert!(line.contains('k') || line.contains('M'), "{text}");
    screen.press(&["f", "f", "f"]);
    screen.until("only what is open", has(&["f open"]));
    assert!(has(&["open", "files.example:80"])(&screen.text()));
}

#[test]
fn a_container_is_watched_like_a_process() {
    for kind in [Kind::Docker, Kind::RootlessPodman] {
        let world = web(furnished(kind));
        let user = kind.user();
        let file = format!("{}/agent.yaml", user.home());
        world.machine.write(&file, POLICY);
        world
            .machine
            .sh(&format!("chown {0}:{0} {file}", user.id()));
        world
            .typed(&format!(
                "egret run -d --name box --resolver 10.20.0.53 --policy {file} busybox \
                 sh -c 'while :; do wget -q -O - http://www.example.com/; sleep 0.3; done'"
            ))
            .ok();
        let watch = format!(
            "EGRET_ENGINE={} egret watch; echo ended $?; sleep 60",
            kind.program()
        );
        let screen = Screen::start(&world, user, &watch);
        screen.until("a refusal", has(&["refused", "www.example.com:80"]));
        assert!(
            has(&["box", kind.program()])(&screen.text()),
            "{}",
            screen.text()
        );
        screen.press(&["a", "a"]);
        screen.until("the change", has(&["+  - www.example.com:80"]));
        screen.press(&["y"]);
        screen.until("the next try", has(&["allowed", "www.example.com:80"]));
        let added = POLICY.replace("releases\n", "releases\n  - www.example.com:80\n");
        assert_eq!(world.machine.read(&file), added);
        // What is open in it is seen, too.
        world
            .typed("egret exec -d box sh -c 'wget -q -O - http://www.example.com/bytes/300000000 | while read -r line; do sleep 1; done'")
            .ok();
        screen.until("what is open", |text| text.contains("  1 open"));
        screen.press(&["q"]);
        screen.until("the shell", has(&["ended 0"]));
        // The engine's commands that were read from have ended with it.
        until("nothing is left", || {
            let left = world.machine.processes();
            !left.iter().any(|process| {
                process.contains("logs --follow") || process.contains("exec --interactive")
            })
        });
        world.typed("egret rm -f box").ok();
    }
}

#[test]
fn it_stops_and_goes_on_as_shells_expect() {
    let world = web(World::new());
    let _live = agent(&world, &[], "http://www.example.com/");
    let screen = Screen::start(&world, User::Alice, "bash --norc --noprofile");
    let row = has(&["refused", "www.example.com:80"]);
    screen.press(&["PS1='$ '; egret watch", "Enter"]);
    screen.until("a refusal", &row);
    screen.press(&["C-z"]);
    screen.until("the shell", |text| text.contains("Stopped") && !row(text));
    screen.press(&["echo typed $((6*7))", "Enter"]);
    screen.until("what the shell prints", has(&["typed 42"]));
    screen.press(&["fg", "Enter"]);
    screen.until("the screen again", |text| {
        row(text) && !text.contains("typed 42")
    });
    screen.press(&["q"]);
    screen.until("the shell, as it was", |text| {
        text.contains("typed 42") && !row(text)
    });
    // Stopped by somebody else, of which it is not told before.
    screen.press(&[
        "(sleep 2; kill -STOP $(cat /tmp/id)) & sh -c 'echo $$ >/tmp/id; exec egret watch'",
        "Enter",
    ]);
    screen.until("a refusal", &row);
    screen.until("the shell", |text| text.contains("Stopped"));
    screen.press(&["fg", "Enter"]);
    screen.until("the screen again", |text| {
        row(text) && !text.contains("Stopped")
    });
    screen.press(&["q"]);
    screen.until("the shell, as it was", |text| {
        text.contains("typed 42") && !row(text)
    });
}

#[test]
fn a_sandbox_that_is_stopped_has_not_ended() {
    let world = web(World::new());
    let live = agent(&world, &[], "http://www.example.com/");
    let screen = Screen::start(&world, User::Alice, "egret watch");
    screen.until("a refusal", has(&["refused", "www.example.com:80"]));
    let id = Pid::from_raw(live.child.id().cast_signed()).unwrap();
    kill_process(id, Signal::STOP).unwrap();
    // Longer than anybody waits for its answer.
    std::thread::sleep(Duration::from_secs(8));
    let text = screen.text();
    assert!(has(&["agent (process"])(&text), "{text}");
    kill_process(id, Signal::CONT).unwrap();
    let count = |text: &str| {
        let row = text
            .lines()
            .find(|line| line.contains("www.example.com:80"));
        row.and_then(|row| row.split_whitespace().nth(3)?.parse::<u64>().ok())
    };
    let before = count(&text).unwrap();
    screen.until("that it goes on", |text| {
        count(text).is_some_and(|now| now > before + 2)
    });
}

#[test]
fn it_fits_into_whatever_the_window_becomes() {
    let world = web(World::new());
    let _live = agent(&world, &[], "http://www.example.com/");
    let screen = Screen::start(&world, User::Alice, "egret watch");
    let row = has(&["refused", "www.example.com:80"]);
    screen.until("a refusal", &row);
    for (columns, rows) in [(40, 10), (120, 40), (12, 4), (80, 24)] {
        screen.resize(columns, rows);
        screen.until("the new size", |text| {
            let fits = text.lines().count() <= usize::from(rows)
                && text
                    .lines()
                    .all(|line| line.chars().count() <= usize::from(columns));
            fits && (row(text) || (columns < 20 && text.contains("too small")))
        });
        if columns == 120 {
            screen.until("more columns", has(&["COUNT", "LAST"]));
        }
    }
}

/// What takes the terminal, and gives it back.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    let world = web(World::new());
    let _live = agent(&world, &[], "http://www.example.com/");
    for (how, code) in [
        ("q", 0),
        ("\u{3}", 0),
        ("TERM", 143),
        ("HUP", 129),
        ("INT", 130),
    ] {
        let mut terminal = terminal(&world, &[]);
        terminal.expect(ENTER);
        terminal.expect("www.example.com");
        if how.len() > 1 {
            let id = terminal.child.id().cast_signed();
            let signal = match how {
                "TERM" => Signal::TERM,
                "HUP" => Signal::HUP,
                _ => Signal::INT,
            };
            kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
        } else {
            terminal.send(how);
        }
        terminal.expect(LEAVE);
        assert_eq!(terminal.end(), Some(code), "{how}");
        assert!(terminal.is_cooked(), "{how}");
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let world = web(World::new());
    let _live = agent(&world, &[], "http://www.example.com/");
    const RED: &str = "\u{1b}[31m";
    for (env, red) in [
        (&[][..], true),
        (&[("NO_COLOR", "1")], false),
        (&[("TERM", "linux")], true),
    ] {
        let mut terminal = terminal(&world, env);
        let drawn = terminal.expect("--allow");
        assert_eq!(drawn.contains(RED), red, "{env:?} {drawn:?}");
        // Nothing but ASCII where nobody has said that there is more.
        assert!(env.is_empty() || drawn.contains('─'));
        terminal.send("q");
        terminal.expect(LEAVE);
    }
    let mut terminal = terminal(&world, &[("LANG", "C"), ("LC_ALL", "C")]);
    let drawn = terminal.expect("--allow");
    assert!(drawn.is_ascii(), "{drawn:?}");
}

/// `egret watch` on a pseudo-terminal.
fn terminal(world: &World, env: &[(&str, &str)]) -> Terminal {
    let words = ["/srv/bin/egret", "watch"].map(str::to_owned);
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let command: Command = world.command_as(User::Alice, "/", &env, &words);
    Terminal::start(world, User::Alice, &command)
}

#[test]
fn without_a_terminal_there_are_lines() {
    let world = web(World::new());
    world.machine.write(FILE, POLICY);
    let run = world
        .run_as(User::Alice)
        .args(&["--name", "agent", "--policy", FILE]);
    let script = "sleep 2; curl -s http://www.example.com/; curl -s http://files.example/; sleep 1";
    let live = run.start(&["/bin/sh", "-c", script]);
    // Of those that are named, it ends with the last.
    let words = [
        "/bin/sh",
        "-c",
        "egret watch agent >/tmp/text & egret watch --output json agent >/tmp/json & wait",
    ];
    let command = world.command_as(User::Alice, "/", &[], &words.map(str::to_owned));
    let mut dumb = terminal(&world, &[("TERM", "dumb")]);
    world.to_its_end(command, Duration::from_secs(30)).ok();
    live.finish().ok();
    let text = world.machine.read("/tmp/text");
    assert!(
        text.lines().all(|line| line.starts_with("agent 20")),
        "{text}"
    );
    for words in [
        &["sandbox started"][..],
        &["policy  loaded", FILE],
        &["refused www.example.com:80", "denied.default"],
        &["allowed files.example:80", "allowed.rule"],
        &["sandbox ended"],
    ] {
        assert!(has(words)(&text), "{words:?} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    let json = world.machine.read("/tmp/json");
    let records: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), text.lines().count());
    assert!(
        records
            .iter()
            .any(|record| record["reason"] == "denied.default")
    );
    let printed = dumb.expect("sandbox ended");
    assert!(
        printed.contains("refused") && !printed.contains("\u{1b}[?"),
        "{printed:?}"
    );
}

#[test]
fn it_works_over_ssh() {
    let world = web(World::new());
    world.machine.write(
        "/srv/sshd",
        "ListenAddress 127.0.0.1:2222\nHostKey /srv/host\nAuthorizedKeysFile /srv/user.pub\n\
         StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n",
    );
    world.machine.sh(
        "mkdir -p /run/sshd; cd /srv; for key in host user; do ssh-keygen -q -t ed25519 -N '' -f $key; done; \
         echo \"[127.0.0.1]:2222 $(cat host.pub)\" >known",
    );
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f", "/srv/sshd"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut sshd = world.machine.spawn(sshd).unwrap();
    world.machine.write("/root/agent.yaml", POLICY);
    let run = world
        .run_as(User::Root)
        .args(&["--name", "agent", "--policy", "/root/agent.yaml"]);
    let script = "while :; do curl -s http://www.example.com/; sleep 0.3; done";
    let _live = run.start(&["/bin/sh", "-c", script]);
    let ssh = "ssh -p 2222 -i /srv/user -o UserKnownHostsFile=/srv/known -tt root@127.0.0.1 \
               'LANG=C.UTF-8 /srv/bin/egret watch'; echo ended $?; sleep 60";
    let screen = Screen::start(&world, User::Root, ssh);
    screen.until("a refusal", has(&["refused", "www.example.com:80"]));
    screen.resize(100, 30);
    screen.until("the new size", |text| {
        text.lines().any(|line| line.chars().count() == 100)
    });
    screen.press(&["a", "r"]);
    screen.until("the next try", has(&["allowed", "www.example.com:80"]));
    screen.press(&["q"]);
    screen.until("the shell", has(&["ended 0"]));
    sshd.kill().unwrap();
    sshd.wait().unwrap();
}

#[test]
fn who_watches_costs_next_to_nothing() {
    let world = web(World::new());
    let _live = world
        .run_as(User::Alice)
        .args(&["--name", "agent"])
        .start(&["/bin/sleep", "1000"]);
    let mut terminal = terminal(&world, &[]);
    terminal.expect("agent");
    std::thread::sleep(Duration::from_secs(1));
    let ticks = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let id = terminal.child.id();
    let (before, start) = (ticks(id), Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    // Hundredths of a second, in an unoptimised build.
    let used = ticks(id) - before;
    assert!(used <= 25, "{used} ticks in {:?}", start.elapsed());
    terminal.send("q");
    terminal.expect(LEAVE);
}

#[test]
fn a_question_is_answered_by_a_key() {
    let world = web(World::new());
    world.machine.write(FILE, POLICY);
    world.machine.sh(&format!("chown 12345:12345 {FILE}"));
    // Each line that is read is asked for, and what came of it is printed.
    let script = "while read -r name; do curl -sS -m 30 -o /dev/null -w \"%{http_code} $name\\n\" http://$name.example.com/; done";
    let run = world
        .run_as(User::Alice)
        .args(&["--name", "agent", "--ask=60", "--policy", FILE]);
    for name in ["one", "two", "three", "four", "five"] {
        world
            .dns
            .answer(&format!("{name}.example.com"), &[at::PUBLIC]);
    }
    let mut live = run.start(&["/bin/sh", "-c", script]);
    let mut stdin = live.stdin.take().unwrap();
    let mut ask = |name: &str| stdin.write_all(format!("{name}\n").as_bytes()).unwrap();
    let screen = Screen::start(&world, User::Alice, "egret watch");
    screen.until("the sandbox", has(&["agent (process"]));

    // Typed before the question was there, or while nobody could have read it.
    screen.press(&["/", "n", "o", "n"]);
    ask("one");
    let asks = "agent: may this be connected to?";
    screen.until("a question", |text| {
        has(&[asks])(text) && has(&["  one.example.com:80"])(text)
    });
    screen.press(&["n", "o", "n"]);
    std::thread::sleep(Duration::from_millis(300));
    screen.press(&["n"]);
    let text = screen.text();
    assert!(has(&[asks])(&text), "{text}");
    assert!(has(&["asked by /usr/bin/curl"])(&text), "{text}");
    std::thread::sleep(Duration::from_millis(700));
    screen.press(&["o"]);
    screen.until("that it is answered", |text| !has(&[asks])(text));
    screen.press(&["Escape"]);
    screen.until("that it passes", has(&["allowed", "one.example.com:80"]));

    // Once is once.
    ask("one");
    screen.until("a question", has(&["  one.example.com:80"]));
    std::thread::sleep(Duration::from_millis(700));
    screen.press(&["n"]);
    screen.until(
        "that it is refused",
        has(&["refused", "one.example.com:80"]),
    );

    // For this run, and for ever.
    ask("two");
    screen.until("a question", has(&["  two.example.com:80"]));
    std::thread::sleep(Duration::from_millis(700));
    screen.press(&["r"]);
    screen.until("that it passes", has(&["allowed", "two.example.com:80"]));
    assert_eq!(world.machine.read(FILE), POLICY);
    ask("three");
    screen.until("a question", has(&["  three.example.com:80"]));
    std::thread::sleep(Duration::from_millis(700));
    screen.press(&["a"]);
    screen.until("the change", has(&["+  - three.example.com:80"]));
    assert_eq!(world.machine.read(FILE), POLICY);
    screen.press(&["y"]);
    screen.until("that it passes", has(&["allowed", "three.example.com:80"]));
    let added = POLICY.replace("releases\n", "releases\n  - three.example.com:80\n");
    assert_eq!(world.machine.read(FILE), added);

    // Whoever does not want the file changed after all still has the question.
    ask("four");
    screen.until("a question", has(&["  four.example.com:80"]));
    std::thread::sleep(Duration::from_millis(700));
    screen.press(&["a"]);
    screen.until("the change", has(&["+  - four.example.com:80"]));
    screen.press(&["Escape"]);
    screen.until("the question", has(&["  four.example.com:80"]));
    std::thread::sleep(Duration::from_millis(700));
    screen.press(&["n"]);
    screen.until(
        "that it is refused",
        has(&["refused", "four.example.com:80"]),
    );
    assert_eq!(world.machine.read(FILE), added);

    screen.press(&["q"]);
    drop(stdin);
    let outcome = live.finish();
    assert_eq!(
        outcome.stdout, "200 one\n403 one\n200 two\n200 three\n403 four\n",
        "{outcome:#?}"
    );
}
