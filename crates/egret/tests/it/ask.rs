//! `egret run --ask`: what is refused waits while somebody is asked at another terminal.

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::chown;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::engine::Kind;
use crate::world::run::{Live, Outcome, Run};
use crate::world::servers::Service;
use crate::world::terminal::Terminal;
use crate::world::{User, World, at, until};

/// Web servers, one that speaks first, and one with a repository.
fn world() -> World {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.dns.answer("api.example.com", &[at::PUBLIC2]);
    world.dns.answer("inside.example.com", &[at::PRIVATE]);
    world.serve("93.184.216.34:80", Service::Http);
    world.serve("93.184.216.34:443", Service::Https(&["www.example.com"]));
    world.serve("151.101.0.81:443", Service::Https(&["api.example.com"]));
    world
}

/// Says something to a process sandbox at its control socket, as `egret` does it.
fn tell(world: &World, user: User, request: Value) -> Value {
    let name = format!("egret/{}/box", user.id());
    let answer = world.machine.on(move || -> std::io::Result<String> {
        let address = SocketAddr::from_abstract_name(name)?;
        let mut stream = UnixStream::connect_addr(&address)?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    answer.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

fn activity(world: &World, user: User) -> Value {
    tell(world, user, json!("activity"))["activity"].clone()
}

/// What is asked, once there are so many questions.
#[track_caller]
fn questions(world: &World, user: User, many: usize) -> Vec<Value> {
    let mut found = Vec::new();
    until(&format!("{many} questions"), || {
        let now = activity(world, user);
        found = now["questions"].as_array().cloned().unwrap_or_default();
        found.len() == many
    });
    found
}

#[track_caller]
fn reply(world: &World, user: User, question: &Value, reply: &str) {
    let request = json!({"reply": {"question": question["id"], "reply": reply}});
    assert_eq!(tell(world, user, request), json!("done"));
}

fn asking<'w>(world: &'w World, user: User) -> Run<'w> {
    world.run_as(user).args(&["--name", "box", "--ask=30"])
}

fn start<'w>(run: Run<'w>, script: &str) -> Live<'w> {
    run.start(&["/bin/sh", "-c", script])
}

/// What became of the questions, in order.
fn told(outcome: &Outcome) -> Vec<String> {
    let records = outcome.events("question");
    let told = records.map(|record| {
        format!(
            "{} {}",
            record["host"].as_str().unwrap(),
            record["action"].as_str().unwrap()
        )
    });
    told.collect()
}

#[test]
fn real_clients_wait_and_get_through_by_every_door() {
    let world = world();
    #[rustfmt::skip]
    let table = [
        ("captured", "curl -sS --noproxy '*' https://www.example.com/x"),
        ("connect",  "curl -sS https://www.example.com/x"),
        ("socks",    "curl -sS --socks5-hostname 127.0.0.1:61081 https://www.example.com/x"),
        ("forward",  "curl -sS http://www.example.com/x"),
        ("captured", "node -e \"fetch('https://www.example.com/x').then(r => r.text()).then(t => process.stdout.write(t))\""),
        ("captured", "python3 -c \"import urllib.request as r; r.install_opener(r.build_opener(r.ProxyHandler({}))); print(r.urlopen('https://www.example.com/x').read().decode(), end='')\""),
    ];
    for user in User::ALL {
        for (door, client) in table {
            let live = start(asking(&world, user), client);
            let question = questions(&world, user, 1).remove(0);
            assert_eq!(question["host"], "www.example.com");
            let program = question["program"].as_str().unwrap();
            assert!(program.starts_with("/usr/bin/"), "{question}");
            std::thread::sleep(Duration::from_millis(300));
            // Nothing has left, not even a question about the name.
            world.assert_silent();
            reply(&world, user, &question, "once");
            let outcome = live.finish().ok();
            assert!(
                outcome.stdout.starts_with("GET /x for www.example.com"),
                "{client}: {outcome:#?}"
            );
            let decision = outcome.events("decision").next().unwrap();
            assert_eq!(
                (&decision["reason"], &decision["door"]),
                (&json!("allowed.once"), &json!(door)),
                "{decision}"
            );
            assert_eq!(
                told(&outcome),
                ["www.example.com asked", "www.example.com once"]
            );
            assert!(outcome.stderr.contains("`egret watch box`"), "{outcome:#?}");
        }
    }
}

#[test]
fn clients_of_servers_that_speak_first_wait_as_well() {
    let world = world();
    world.serve("93.184.216.34:22", Service::Greeting(b"SSH-2.0-x\r\n"));
    let script = "
import socket
for host in ('www.example.com', '93.184.216.34'):
    print(socket.create_connection((host, 22)).recv(9).decode(), flush=True)
";
    for user in User::ALL {
        let live = asking(&world, user).start(&["/usr/bin/python3", "-c", script]);
        for destination in ["www.example.com:22", "93.184.216.34:22"] {
            until(destination, || {
                let now = activity(&world, user);
                now["questions"][0]["destination"] == destination
            });
            reply(&world, user, &questions(&world, user, 1)[0], "once");
        }
        let outcome = live.finish().ok();
        assert_eq!(outcome.stdout, "SSH-2.0-x\nSSH-2.0-x\n", "{outcome:#?}");
        assert_eq!(outcome.reasons(), ["allowed.once"; 2]);
    }
}

#[test]
fn nobody_answers_and_it_is_refused_in_time() {
    let world = world();
    let script = "for i in 1 2 3; do curl -sS https://www.example.com/; echo $?; done";
    let start = Instant::now();
    let run = world.run().args(&["--name", "box", "--ask=2"]);
    let outcome = run.client(script).ok();
    let took = start.elapsed();
    assert_eq!(outcome.stdout, "56\n56\n56\n");
    // Once, and not three times.
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    assert_eq!(
        told(&outcome),
        ["www.example.com asked", "www.example.com unanswered"]
    );
    assert_eq!(outcome.reasons(), ["denied.default"; 3]);
    outcome.silent();
}

#[test]
fn what_nobody_is_asked_about_is_refused_at_once() {
    let world = world();
    world.dns.answer("api.example.com", &[at::PUBLIC2]);
    let policy = "version: 1\ndeny: [api.example.com]";
    for user in User::ALL {
        let script = "for to in host.docker.internal:22 127.0.0.2:22 169.254.169.254:80 10.20.0.7:80 45.33.32.10:22 \
                      192.168.7.2:22 172.17.0.1:80 api.example.com:443 metadata.google.internal:80; do
                          curl -sS -m 5 -o /dev/null -x http://127.0.0.1:61081 -p http://$to/ || echo $?
                      done";
        let start = Instant::now();
        let outcome = asking(&world, user).policy(policy).client(script).ok();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(outcome.stdout, "56\n".repeat(9), "{outcome:#?}");
        assert_eq!(outcome.events("question").count(), 0, "{outcome:#?}");
        assert_eq!(outcome.reasons().len(), 9);
        assert!(
            !outcome.reasons().contains(&"denied.default"),
            "{outcome:#?}"
        );
        outcome.silent();
    }
}

#[test]
fn a_yes_opens_nothing_that_the_name_turns_out_to_be() {
    let world = world();
    let user = User::Alice;
    let live = start(
        asking(&world, user),
        "curl -sS http://inside.example.com/; echo $?",
    );
    let question = questions(&world, user, 1).remove(0);
    reply(&world, user, &question, "once");
    let outcome = live.finish().ok();
    assert_eq!(
        outcome.reasons(),
        ["denied.address.private"],
        "{outcome:#?}"
    );
    assert!(outcome.packets.is_empty());
}

#[test]
fn for_this_run_and_no_hold_for_the_rest_of_it() {
    let world = world();
    for user in User::ALL {
        let script = "for i in 1 2; do curl -sS https://www.example.com/ -o /dev/null; echo $?; done
                      for i in 1 2; do curl -sS https://api.example.com/ -o /dev/null; echo $?; done";
        let live = start(asking(&world, user), script);
        let question = questions(&world, user, 1).remove(0);
        let entry = question["destination"].clone();
        let amend = json!({"amend": {"allow": [entry], "deny": []}});
        assert_eq!(tell(&world, user, amend), json!("done"));
        until("the next question", || {
            questions(&world, user, 1)[0]["host"] == "api.example.com"
        });
        let other = questions(&world, user, 1).remove(0);
        // There is nothing to answer twice, nor what was answered by somebody else.
        let again = json!({"reply": {"question": question["id"], "reply": "no"}});
        assert_eq!(
            tell(&world, user, again)["refused"],
            "the question is not open any more"
        );
        reply(&world, user, &other, "no");
        let outcome = live.finish().ok();
        assert_eq!(outcome.stdout, "0\n0\n56\n56\n", "{outcome:#?}");
        assert_eq!(
            told(&outcome),
            [
                "www.example.com asked",
                "www.example.com replaced",
                "api.example.com asked",
                "api.example.com no"
            ]
        );
        assert_eq!(
            outcome.reasons(),
            [
                "allowed.rule",
                "allowed.rule",
                "denied.default",
                "denied.default"
            ]
        );
        let policy = outcome.events("policy").last().unwrap();
        assert_eq!(
            policy["policy"]["allow"],
            json!(["www.example.com:443"]),
            "{policy}"
        );
    }
}

#[test]
fn an_entry_is_written_into_the_policys_file_at_another_terminal() {
    let world = world();
    let user = User::Alice;
    let text = "version: 1\n# What it may.\nallow:\n  - api.example.com  # the interface\n";
    let run = asking(&world, user).policy(text);
    let policy = format!("{}/policy.yaml", user.home());
    chown(
        world.machine.path(&policy),
        Some(user.id()),
        Some(user.id()),
    )
    .unwrap();
    let live = start(
        run,
        "curl -sS https://www.example.com/x; curl -sS https://www.example.com/y",
    );
    questions(&world, user, 1);
    let words = ["/srv/bin/egret", "answer", "box"].map(str::to_owned);
    let mut terminal = Terminal::start(&world, user, &world.command_as(user, "/", &[], &words));
    // Typed before there was a question.
    terminal.send("n\n");
    terminal.expect("www.example.com:443");
    terminal.expect("asked by /usr/bin/curl");
    terminal.expect("> ");
    std::thread::sleep(Duration::from_millis(700));
    terminal.send("a\n");
    terminal.expect("+  - www.example.com:443");
    terminal.expect("y writes it");
    terminal.send("y\n");
    terminal.expect("www.example.com:443 is allowed in /home/alice/policy.yaml");
    let outcome = live.finish().ok();
    assert_eq!(outcome.stdout.matches("GET /").count(), 2, "{outcome:#?}");
    assert_eq!(outcome.reasons(), ["allowed.rule"; 2]);
    let expected = format!("{text}  - www.example.com:443\n");
    assert_eq!(world.machine.read(&policy), expected);
    // It was for the questions of one sandbox.
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn containers_ask_and_what_is_for_the_run_outlives_their_gateway() {
    for kind in [Kind::Docker, Kind::RootlessPodman] {
        let world = World::with_tools(kind);
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        world.dns.answer("api.example.com", &[at::PUBLIC2]);
        world.serve("93.184.216.34:80", Service::Http);
        world.serve("151.101.0.81:80", Service::Http);
        let script = "for host in www api; do curl -sS http://$host.example.com/1; done; echo; read line
                      for host in www host.docker.internal api; do curl -sS http://${host%.internal}.example.com/2; done";
        let run = world.run_container().args(&["--name", "box", "--ask=60"]);
        let mut live = run.start(&["/bin/sh", "-c", script]);
        let words = ["/srv/bin/egret", "answer", "box"].map(str::to_owned);
        let env = [("EGRET_ENGINE".to_owned(), kind.program().to_owned())];
        let command = world.command_as(kind.user(), "/", &env, &words);
        let start = || Terminal::start(&world, kind.user(), &command);
        let answer = |terminal: &mut Terminal, host: &str, key: &str, said: &str| {
            terminal.expect(&format!("    {host}:80"));
            terminal.expect("asked by a program");
            terminal.expect("> ");
            std::thread::sleep(Duration::from_millis(700));
            terminal.send(key);
            terminal.expect(said);
        };
        let mut terminal = start();
        answer(
            &mut terminal,
            "www.example.com",
            "r\n",
            "www.example.com:80 is allowed for the rest of this run",
        );
        answer(
            &mut terminal,
            "api.example.com",
            "o\n",
            "api.example.com:80 is allowed once",
        );
        world.docker(&["restart", "-t", "0", "box-egret-gateway"]);
        until("the gateway serves again", || {
            let log = world.docker(&["logs", "box-egret-gateway"]);
            log.matches("\"lifecycle\"").count() >= 2
        });
        std::thread::sleep(Duration::from_millis(500));
        // With the gateway the questions have ended.
        assert_eq!(terminal.end(), Some(0));
        let _ = live.stdin.as_mut().unwrap().write_all(b"go on\n");
        terminal = start();
        answer(
            &mut terminal,
            "host.docker.example.com",
            "n\n",
            "stays refused",
        );
        answer(&mut terminal, "api.example.com", "n\n", "stays refused");
        let outcome = live.finish();
        let passed: Vec<_> = outcome.stdout.split("GET /").skip(1).collect();
        assert_eq!(passed.len(), 3, "{kind:?}: {outcome:#?}");
        assert!(
            passed[2].starts_with("2 for www.example.com"),
            "{kind:?}: {outcome:#?}"
        );
        assert!(
            outcome.stderr.contains("`egret watch box`"),
            "{kind:?}: {outcome:#?}"
        );
    }
}

#[test]
fn a_line_answers_once_it_can_have_been_read() {
    let world = world();
    let user = User::Root;
    let live = start(
        asking(&world, user),
        "curl -sS https://www.example.com/x; echo $?",
    );
    let words = ["/srv/bin/egret", "answer"].map(str::to_owned);
    let mut terminal = Terminal::start(&world, user, &world.command_as(user, "/", &[], &words));
    terminal.expect("> ");
    terminal.send("o\n");
    terminal.expect("That was quick");
    assert_eq!(questions(&world, user, 1).len(), 1);
    std::thread::sleep(Duration::from_millis(700));
    terminal.send("what?\n");
    terminal.expect("> ");
    terminal.send("a\n");
    terminal.expect("no policy file");
    terminal.send("n\n");
    terminal.expect("stays refused");
    let outcome = live.finish().ok();
    assert_eq!(outcome.stdout, "56\n", "{outcome:#?}");
    // From a pipe nobody answers.
    let outcome = world.egret(user, &["answer"]);
    assert_eq!(outcome.code(), 125);
    assert!(
        outcome
            .stderr
            .contains("answers come from somebody at a terminal"),
        "{outcome:#?}"
    );
}

#[test]
fn the_program_can_neither_answer_nor_make_more_questions_than_a_few() {
    let world = world();
    let user = User::Alice;
    // Its own control socket is in a network that it does not have, and its terminal is asked nothing.
    let script = "
import socket, threading, time
try:
    socket.socket(socket.AF_UNIX).connect('\\0egret/12345/box')
    print('reached')
except OSError as error:
    print(error.strerror)
def ask(n):
    with socket.create_connection(('127.0.0.1', 61081)) as s:
        s.sendall(b'CONNECT n%d.example.net:443 HTTP/1.1\\r\\n\\r\\n' % n)
        return s.recv(100)
threads = [threading.Thread(target=ask, args=[n]) for n in range(200)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('refused')
";
    let run = world.run_as(user).args(&["--name", "box", "--ask=3"]);
    let live = run.start(&["/usr/bin/python3", "-c", script]);
    let open = questions(&world, user, 8);
    assert!(
        open.iter().all(|question| question["waiting"] == 1),
        "{open:?}"
    );
    let outcome = live.finish().ok();
    assert_eq!(
        outcome.stdout, "Connection refused\nrefused\n",
        "{outcome:#?}"
    );
    assert_eq!(outcome.reasons().len(), 200);
    assert_eq!(outcome.events("question").count(), 16);
    let flood = outcome
        .events("finding")
        .find(|record| record["action"] == "question_flood");
    assert_eq!(flood.unwrap()["count"], 192, "{outcome:#?}");
    outcome.silent();
}

#[test]
fn a_sandbox_that_ends_takes_its_questions_along() {
    let world = world();
    let user = User::Alice;
    let script = "curl -sS https://www.example.com/ & sleep 0.5; exit 3";
    let start_of_run = Instant::now();
    let live = start(asking(&world, user), script);
    questions(&world, user, 1);
    let outcome = live.finish();
    assert_eq!(outcome.code(), 3);
    assert!(start_of_run.elapsed() < Duration::from_secs(10));
    assert_eq!(
        told(&outcome),
        ["www.example.com asked", "www.example.com ended"]
    );
    outcome.silent();
}
