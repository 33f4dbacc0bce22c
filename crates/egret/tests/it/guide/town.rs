//! The world as the guide's examples take it: the hosts that they name, the images, and what is on the machine.

use std::os::unix::fs::chown;
use std::time::{Duration, Instant};

use regex::{Captures, Regex};

use super::page::{Block, Page};
use crate::containers::is_like;
use crate::world::engine::Kind;
use crate::world::images::{BUSYBOX, Image};
use crate::world::servers::Service;
use crate::world::terminal::Terminal;
use crate::world::{User, World, at, real};

/// Types what a page shows, and holds what is printed to what it says.
#[track_caller]
pub(super) fn type_in(page: &Page, engine: bool) {
    let world = build(engine, page);
    for (name, text) in &page.files {
        let path = match name.strip_prefix("~/") {
            Some(rest) => format!("{HOME}/{rest}"),
            None => format!("{HOME}/project/{name}"),
        };
        world.machine.sh(&format!("mkdir -p $(dirname {path})"));
        world.machine.write(&path, text);
        world
            .machine
            .sh(&format!("cd {HOME}; chown alice: {path} $(dirname {path})"));
    }
    assert!(!page.blocks.is_empty());
    let mut wrong = Vec::new();
    for block in &page.blocks {
        if let Err(complaint) = run(&world, block) {
            wrong.push(format!("{}:{}: {complaint}", page.path, block.line));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Runs a block, and says what is wrong with what comes of it.
fn run(world: &World, block: &Block) -> Result<(), String> {
    let commands = commands(&block.script);
    // How each command ended is told in a file, since a command may end the shell.
    let mut script = "stty cols 120; cd ~/project\n".to_owned();
    for command in &commands {
        script += command;
        script += "\necho $? >> /tmp/statuses\n";
        if said(command).0.trim_end().ends_with('&') {
            script += "sleep 1\n";
        }
    }
    world.machine.write("/tmp/block", &script);
    world.machine.write("/tmp/statuses", "");
    chown(world.machine.path("/tmp/statuses"), Some(YOU.id()), None).unwrap();
    let mut env = vec![
        ("NO_COLOR", "1"),
        ("SHELL", "/bin/bash"),
        ("npm_config_cafile", "/srv/ca.pem"),
        ("npm_config_fetch_retries", "0"),
        ("GITHUB_TOKEN", "a-token"),
        ("GITHUB_PERSONAL_ACCESS_TOKEN", "another-token"),
    ];
    if world.places() != User::ALL.map(crate::world::Place::Program) {
        env.push(("EGRET_ENGINE", world.engine().program()));
    }
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let words = ["bash", "/tmp/block"].map(str::to_owned);
    let command = world.command_as(YOU, HOME, &env, &words);
    let mut terminal = Terminal::start(world, YOU, &command);
    let end = Instant::now() + Duration::from_secs(120);
    // Whoever reads meets somebody who has nothing to say.
    while terminal.child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            return Err(format!(
                "this does not end:\n{}",
                plain(&terminal.printed())
            ));
        }
        terminal.send("\x04");
        std::thread::sleep(Duration::from_millis(300));
    }
    let printed = plain(&terminal.printed());
    let statuses = world.machine.read("/tmp/statuses");
    let statuses: Vec<_> = statuses.lines().collect();
    for (index, command) in commands.iter().enumerate() {
        let says = said(command).1;
        let wanted = !says.starts_with("refused") && !says.starts_with("fails");
        let status = statuses
            .get(index)
            .copied()
            .unwrap_or("no status: the shell was gone");
        if (status == "0") != wanted {
            return Err(format!("`{command}` ended with {status}\n{printed}"));
        }
    }
    let Some(prints) = &block.prints else {
        return Ok(());
    };
    let wanted = plain(prints);
    if is_like(&printed, &wanted) {
        return Ok(());
    }
    Err(format!(
        "the page says that this is printed:\n{wanted}\nand it is:\n{printed}"
    ))
}

#[test]
fn what_is_not_as_the_page_says_is_noticed() {
    let world = World::new();
    #[rustfmt::skip]
    let table = [
        ("echo one",                     Some("one"),        true),
        ("echo one",                     Some("two"),        false),
        ("echo one; echo two",           Some("one"),        false),
        ("echo one 12:30:01 of 2 s",     Some("one 01:02:03 of 31 ms"), true),
        ("echo one\necho two",           Some("…\ntwo"),     true),
        ("false",                        None,               false),
        ("true\nfalse # refused: so",    None,               true),
        ("true # refused: so",           None,               false),
        ("exit 0\necho one",             None,               false),
        ("cat <<'END' | wc -l\na\nEND",   Some("1"),          true),
        ("echo 'a\nb' # two lines",      Some("a\nb"),       true),
        ("tty && test ! -w /etc/passwd", None,               true),
    ];
    for (script, prints, fine) in table {
        let block = Block {
            line: 1,
            script: script.to_owned(),
            prints: prints.map(str::to_owned),
        };
        let outcome = run(&world, &block);
        assert_eq!(outcome.is_ok(), fine, "{script}: {outcome:?}");
    }
}

/// The commands of a script, each with the lines that it goes on in.
fn commands(script: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let (mut command, mut ends_with) = (String::new(), None);
    for line in script.lines() {
        command += line;
        let document = line
            .split_once("<<")
            .map(|(_, rest)| rest.split(' ').next());
        if let Some(Some(end)) = document.filter(|_| ends_with.is_none()) {
            ends_with = Some(end.trim_matches(['-', '\'', '"']).to_owned());
        } else if ends_with.as_deref() == Some(line) {
            ends_with = None;
        }
        let so_far = said(&command).0;
        let goes_on = ["\\", "|", "&&"].iter().any(|end| line.ends_with(end))
            || so_far.matches('\'').count() % 2 == 1;
        if goes_on || ends_with.is_some() {
            command.push('\n');
            continue;
        }
        let whole = std::mem::take(&mut command);
        if !whole.is_empty() && !whole.starts_with('#') {
            commands.push(whole);
        }
    }
    assert!(command.is_empty(), "this command has no end: {command}");
    commands
}

/// A command, and what the comment behind it says.
fn said(command: &str) -> (&str, &str) {
    command.rsplit_once(" # ").unwrap_or((command, ""))
}

/// A text as it is compared: without what is another each time, and without how a terminal shows it.
fn plain(text: &str) -> String {
    let mut text = text.replace('\r', "").replace(HOME, "/home/you");
    for (pattern, word) in [
        ("\x1b\\[[0-9;?]*[A-Za-z]", ""),
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?Z?", "TIME"),
        (r"\b\d{8}T\d{6}Z", "TIME"),
        (r"\b\d\d:\d\d:\d\d(\.\d+)?\b", "TIME"),
        (r"\b\d+(\.\d+)? ?(ns|µs|ms|s|min|h)\b", "DURATION"),
        (r"-\d+-TIME", "-ID-TIME"),
        (r"\[[a-z0-9]{6}-[a-z0-9]+\]", "[ID]"),
        ("\\^D|\x08", ""),
        (" +", " "),
        (" ?\n", "\n"),
    ] {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, word)
            .into_owned();
    }
    let ids = Regex::new(r"\b[0-9a-f]{6,}\b").unwrap();
    let text = ids.replace_all(&text, |found: &Captures<'_>| {
        let mixed = found[0].contains(|c: char| c.is_ascii_digit())
            && found[0].contains(|c: char| c.is_ascii_alphabetic());
        if mixed {
            "ID".to_owned()
        } else {
            found[0].to_owned()
        }
    });
    text.trim().to_owned()
}

fn build(engine: bool, page: &Page) -> World {
    let world = if engine {
        World::with_engine(Kind::Docker)
    } else {
        World::new()
    };
    for name in NAMES {
        world.dns.answer(name, &[at::PUBLIC]);
    }
    world.serve("93.184.216.34:80", Service::Http);
    world.serve("93.184.216.34:443", Service::Https(NAMES));
    if page.mentions("registry.npmjs.org") || page.mentions("git clone") {
        real::forge_and_registry(&world, "github.com", "registry.npmjs.org");
        for name in ["github.com", "registry.npmjs.org"] {
            world.dns.answer(name, &[real::GIT]);
        }
    }
    // Services of the machine: a model's, and a database's as far as anybody here talks to it.
    world.serve("127.0.0.1:11434", Service::Http);
    world.serve("172.17.0.1:11434", Service::Http);
    let script = |path: &str, text: &str| {
        world.machine.write(path, text);
        world.machine.sh(&format!("chmod 755 {path}"));
    };
    script("/home/alice/project/agent", AGENT);
    script(
        "/srv/bin/claude",
        &AGENT.replace("api.example.com", "api.anthropic.com"),
    );
    world
        .machine
        .sh("cd /home/alice; mkdir .cache notes; chown alice: .cache notes");
    if page.mentions("psql") {
        real::postgres(&world);
        world.dns.answer("db.example.com", &[real::DATABASE]);
        world.outside.sh(&format!(
            "cd /; psql='psql -q -h {} -U postgres'; until $psql -c 'select 1' >/dev/null 2>&1; do sleep 0.1; done
             for role in alice reader; do $psql -c \"create role $role login\"; done
             for database in alice reports; do $psql -c \"create database $database\"; done",
            real::DATABASE
        ));
        // The machine's own is the same one.
        let relay = format!(
            "busybox nc -ll -p 5432 -e busybox nc {} 5432 >/dev/null 2>&1 &",
            real::DATABASE
        );
        world.machine.sh(&relay);
    }
    if engine {
        for image in IMAGES {
            world.import(image);
        }
        world.docker(&["network", "create", "backend"]);
        let database = "nc -ll -p 5432 -e echo rows";
        world.docker(&[
            "run",
            "-d",
            "--network",
            "backend",
            "--name",
            "db",
            "busybox",
            "sh",
            "-c",
            database,
        ]);
    }
    world
}

const YOU: User = User::Alice;
const HOME: &str = User::Alice.home();

/// Public names, all of them of one server that answers at ports 80 and 443.
const NAMES: &[&str] = &[
    "example.com",
    "www.example.com",
    "api.example.com",
    "api.github.com",
    "api.anthropic.com",
    "gist.github.com",
    "registry.example",
    "files.example",
    "api.weather.example",
];

const AGENT: &str = "#!/bin/sh
curl -sS https://api.example.com/
";

/// Images that answer as those that the guide has in mind would, by Busybox.
const IMAGES: &[&Image<'_>] = &[
    &Image {
        name: "docker.io/library/busybox",
        ..BUSYBOX
    },
    &Image {
        name: "ghcr.io/github/github-mcp-server",
        changes: &[MCP],
        ..BUSYBOX
    },
    &Image {
        name: "registry.example/notes-mcp",
        changes: &["ENTRYPOINT [\"/bin/ls\"]"],
        ..BUSYBOX
    },
    &Image {
        name: "registry.example/postgres-mcp",
        changes: &["CMD nc host.docker.internal 5432 </dev/null"],
        ..BUSYBOX
    },
    &Image {
        name: "registry.example/maps-mcp",
        changes: &[
            "CMD mkdir -p /www && echo tools > /www/mcp && exec busybox httpd -f -p 8000 -h /www",
        ],
        ..BUSYBOX
    },
    &Image {
        name: "registry.example/report",
        changes: &["CMD nc db 5432 | grep rows"],
        ..BUSYBOX
    },
    &Image {
        name: "registry.example/agent",
        changes: &[
            "CMD [\"/bin/sh\", \"-c\", \"wget -qO- ${OLLAMA_HOST:-http://api.example.com}/\"]",
        ],
        ..BUSYBOX
    },
];

/// A server that speaks over standard input and output, and knows one answer.
const MCP: &str = r#"ENTRYPOINT ["/bin/sh", "-c", "while read -r line; do echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}'; done"]"#;
