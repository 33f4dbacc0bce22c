//! A program does not notice Egret: exit status, signals, pipes, terminal, job control, long and large streams.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::servers::{Service, pattern_digest};
use crate::world::terminal::{Screen, Terminal};
use crate::world::{User, World, at};

fn web() -> World {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    world
}

#[test]
fn the_exit_status_is_the_programs() {
    let world = World::new();
    #[rustfmt::skip]
    let table: [(&[&str], i32); 9] = [
        (&["/bin/true"],                            0),
        (&["/bin/false"],                           1),
        (&["/bin/sh", "-c", "exit 42"],             42),
        (&["/bin/sh", "-c", "exit 255"],            255),
        (&["/bin/sh", "-c", "kill -TERM $$"],       128 + 15),
        (&["/bin/sh", "-c", "kill -KILL $$"],       128 + 9),
        (&["/bin/sh", "-c", "ulimit -c 0; kill -SEGV $$"], 128 + 11),
        (&["/nowhere/program"],                     127),
        (&["/etc/passwd"],                          126),
    ];
    for user in User::ALL {
        for (program, code) in table {
            let outcome = world.run_as(user).program(program);
            assert_eq!(outcome.code(), code, "{user:?} {program:?}: {outcome:#?}");
        }
        let outcome = world.run_as(user).program(&["no-such-program-anywhere"]);
        assert_eq!(outcome.code(), 127, "{outcome:#?}");
        assert!(
            outcome.stderr.contains("no-such-program-anywhere"),
            "{outcome:#?}"
        );
    }
}

#[test]
fn a_signal_to_egret_reaches_the_program() {
    let world = World::new();
    for user in User::ALL {
        for (signal, name) in [
            (Signal::SIGTERM, "TERM"),
            (Signal::SIGINT, "INT"),
            (Signal::SIGUSR1, "USR1"),
            (Signal::SIGQUIT, "QUIT"),
        ] {
            let script = format!(
                "trap 'echo got {name}; exit 7' {name}; echo up; while :; do sleep 0.05; done"
            );
            let live = world.run_as(user).start(&["/bin/bash", "-c", &script]);
            std::thread::sleep(Duration::from_millis(500));
            kill(
                Pid::from_raw(i32::try_from(live.child.id()).unwrap()),
                signal,
            )
            .unwrap();
            let outcome = live.finish();
            assert_eq!(
                (outcome.code(), outcome.stdout.as_str()),
                (7, format!("up\ngot {name}\n").as_str()),
                "{outcome:#?}"
            );
        }
        // A program that does not care dies of it, and so does Egret.
        let live = world.run_as(user).start(&["/bin/sleep", "100"]);
        std::thread::sleep(Duration::from_millis(500));
        kill(
            Pid::from_raw(i32::try_from(live.child.id()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        assert_eq!(live.finish().code(), 128 + 15);
    }
}

#[test]
fn pipes_carry_everything_and_end_where_they_end() {
    let world = World::new();
    for user in User::ALL {
        let input: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let outcome = world
            .run_as(user)
            .input(input.clone())
            .client("sha256sum; echo done >&2")
            .ok();
        let expected = {
            use sha2::Digest;
            sha2::Sha256::digest(&input)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        assert_eq!(outcome.stdout, format!("{expected}  -\n"));
        assert_eq!(outcome.stderr, "done\n");
        // Input at its end, and a reader that closes early.
        assert_eq!(
            world.run_as(user).client("cat; echo end").ok().stdout,
            "end\n"
        );
        let words = [
            "/bin/bash",
            "-c",
            "/srv/bin/egret run --log-file ../p.jsonl -- yes | head -1; echo ${PIPESTATUS[0]}",
        ]
        .map(str::to_owned);
        let output = world.machine.output(world.command_as(
            user,
            &format!("{}/project", user.home()),
            &[],
            &words,
        ));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "y\n141\n");
        // No terminal is made up.
        assert_eq!(
            world
                .run_as(user)
                .client("test -t 0 || test -t 1 || test -t 2 || echo none")
                .ok()
                .stdout,
            "none\n"
        );
    }
}

#[test]
fn a_conversation_over_stdio_is_not_buffered() {
    let world = World::new();
    let mut live = world.run_as(User::Alice).start(&["/usr/bin/python3", "-uc", "import sys\nfor line in sys.stdin: open('seen', 'a').write(line); print('re:' + line, end='')"]);
    for turn in 0..3 {
        writeln!(live.stdin.as_mut().unwrap(), "{turn}").unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(world.machine.path("/home/alice/project/seen"))
            .unwrap_or_default()
            .lines()
            .count()
            <= turn
        {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(live.finish().ok().stdout, "re:0\nre:1\nre:2\n");
}

#[test]
fn a_terminal_is_a_terminal() {
    let world = World::new();
    for user in User::ALL {
        let script = "test -t 0 && test -t 1 && test -t 2 && echo tty; stty size; tty; trap 'echo resized $(stty size)' WINCH; \
                      echo up; while ! read -t 0.05 line; do :; done; echo got $line; exit 5";
        let command = world
            .run_as(user)
            .log(None)
            .command(&["/bin/bash", "-c", script]);
        let mut terminal = Terminal::start(&world, user, &command);
        terminal.expect("tty\r\n24 80\r\n");
        let shown = terminal.expect("up\r\n");
        assert!(shown.starts_with("/dev/"), "{shown:?}");
        terminal.resize(40, 132);
        terminal.expect("resized 40 132");
        terminal.send("hello\n");
        terminal.expect("got hello");
        assert_eq!(terminal.end(), Some(5));
    }
}

#[test]
fn control_c_ends_the_program_and_egret_with_it() {
    let world = World::new();
    for user in User::ALL {
        // No shell: one that is about to exec catches a signal and forgets it.
        let script = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nprint('up', flush=True)\ntime.sleep(100)";
        let command = world
            .run_as(user)
            .log(None)
            .command(&["/usr/bin/python3", "-c", script]);
        let mut terminal = Terminal::start(&world, user, &command);
        terminal.expect("up\r\n");
        terminal.send("\x03");
        assert_eq!(terminal.end(), None, "died of a signal");
        let command = world.run_as(user).log(None).command(&[
            "/bin/bash",
            "-c",
            "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.05; done",
        ]);
        let mut terminal = Terminal::start(&world, user, &command);
        terminal.expect("up\r\n");
        terminal.send("\x03");
        terminal.expect("caught");
        assert_eq!(terminal.end(), Some(3));
    }
}

#[test]
fn an_interactive_shell_has_job_control() {
    let world = World::new();
    for user in User::ALL {
        let command = world
            .run_as(user)
            .log(None)
            .env("PS1", "ready> ")
            .command(&["/bin/bash", "--norc", "--noprofile", "-i"]);
        let mut terminal = Terminal::start(&world, user, &command);
        terminal.expect("ready> ");
        terminal.send("sleep 77\n");
        std::thread::sleep(Duration::from_millis(400));
        terminal.send("\x1a");
        let stopped = terminal.expect("ready> ");
        assert!(stopped.contains("Stopped"), "{stopped:?}");
        terminal.send("bg\n");
        terminal.expect("sleep 77 &");
        terminal.expect("ready> ");
        terminal.send("fg\n");
        terminal.expect("sleep 77");
        std::thread::sleep(Duration::from_millis(300));
        terminal.send("\x03");
        terminal.expect("ready> ");
        terminal.send("echo $?; no-job-control-complaints; exit 6\n");
        terminal.expect("130");
        assert_eq!(terminal.end(), Some(6));
    }
}

#[test]
fn egret_can_be_suspended_by_the_shell_that_started_it() {
    let world = World::new();
    for user in User::ALL {
        let screen = Screen::start(&world, user, "PS1='outer> ' bash --norc --noprofile -i");
        screen.until("a prompt", |text| text.contains("outer>"));
        screen.press(&[
            "cd; /srv/bin/egret run -w project -- /bin/sh -c 'echo up; read line; echo got $line'",
            "Enter",
        ]);
        screen.until("the program", |text| text.lines().any(|line| line == "up"));
        screen.press(&["C-z"]);
        screen.until("that it stopped", |text| text.contains("Stopped"));
        screen.press(&["fg", "Enter"]);
        std::thread::sleep(Duration::from_millis(400));
        screen.press(&["hello", "Enter"]);
        screen.until("the answer", |text| {
            text.lines().any(|line| line == "got hello")
        });
        screen.press(&["echo code $?", "Enter"]);
        screen.until("the status", |text| text.contains("code 0"));
    }
}

#[test]
fn programs_that_paint_the_screen_work() {
    let world = World::new();
    world.machine.write(
        "/home/alice/project/text",
        (0..200).map(|n| format!("line {n}\n")).collect::<String>(),
    );
    world.machine.sh("chown 12345 /home/alice/project/text");
    let screen = Screen::start(
        &world,
        User::Alice,
        "PS1='outer> ' bash --norc --noprofile -i",
    );
    screen.until("a prompt", |text| text.contains("outer>"));
    screen.press(&[
        "cd /home/alice/project; /srv/bin/egret run -- vim.tiny -u NONE text",
        "Enter",
    ]);
    screen.until("the file", |text| {
        text.starts_with("line 0\n") && text.contains("line 20")
    });
    screen.resize(100, 40);
    screen.until("more of the file", |text| text.contains("line 36"));
    screen.press(&["G"]);
    screen.until("its end", |text| text.contains("line 199"));
    screen.press(&["o"]);
    screen.press(&["written inside", "Escape"]);
    screen.press(&[":wq", "Enter"]);
    screen.until("a prompt", |text| text.trim_end().ends_with("outer>"));
    assert!(
        world
            .machine
            .read("/home/alice/project/text")
            .ends_with("line 199\nwritten inside\n")
    );
    screen.press(&["/srv/bin/egret run -- less text", "Enter"]);
    screen.until("the file", |text| text.contains("line 30"));
    screen.press(&["q"]);
    screen.press(&["stty -a | grep -o ' echo '; clear; echo sane", "Enter"]);
    screen.until("a sane terminal", |text| text.contains("sane"));
}

#[test]
fn much_data_arrives_whole() {
    let world = web();
    let full = std::env::var_os("EGRET_TEST_FULL").is_some();
    let length: u64 = if full { 10 << 30 } else { 2 << 30 };
    let expected = std::thread::spawn(move || pattern_digest(length));
    let client = format!("curl -sS -p http://www.example.com/bytes/{length} | sha256sum");
    let outcome = world
        .run_as(User::Alice)
        .allow("www.example.com")
        .within(Duration::from_secs(600))
        .client(&client)
        .ok();
    assert_eq!(
        outcome.stdout,
        format!("{}  -\n", expected.join().unwrap()),
        "{:#?}",
        outcome.stderr
    );
    let down = outcome.events("close").next().unwrap()["bytes_down"]
        .as_u64()
        .unwrap();
    assert!(down >= length && down < length + 1000, "{down}");
}

#[test]
fn uploads_and_captured_downloads_arrive_whole() {
    let world = web();
    for flag in ["", "-p", "--noproxy '*'"] {
        let client = format!(
            "head -c 50000000 /dev/zero > big; curl -sS {flag} -T big http://www.example.com/up; \
             head -c 50000000 /dev/zero | curl -sS {flag} -T - http://www.example.com/up; \
             curl -sS {flag} http://www.example.com/bytes/50000000 | sha256sum; rm big"
        );
        let outcome = world
            .run_as(User::Alice)
            .allow("www.example.com")
            .client(&client)
            .ok();
        let put = "PUT /up for www.example.com, 50000000 bytes\n";
        assert_eq!(
            outcome.stdout,
            format!("{put}{put}{}  -\n", pattern_digest(50_000_000)),
            "{flag}: {outcome:#?}"
        );
    }
}

#[test]
fn a_stream_may_be_silent_for_long() {
    let world = web();
    for flag in ["", "--noproxy '*'"] {
        let client = format!("curl -sSN {flag} http://www.example.com/events/5/300");
        let outcome = world
            .run_as(User::Alice)
            .allow("www.example.com")
            .client(&client)
            .ok();
        assert_eq!(
            outcome.stdout.matches("data: event").count(),
            5,
            "{outcome:#?}"
        );
    }
    // Longer than the minute after which many proxies lose patience; at full length, much longer.
    let seconds = if std::env::var_os("EGRET_TEST_FULL").is_some() {
        150
    } else {
        65
    };
    let each = format!("curl -sSN $flag http://www.example.com/events/2/{seconds}000 &");
    let client = format!("set -f; for flag in -q -p '--noproxy *'; do {each} done; wait");
    let run = world
        .run_as(User::Alice)
        .allow("www.example.com")
        .within(Duration::from_secs(seconds + 35));
    let outcome = run.client(&client).ok();
    assert_eq!(
        outcome.stdout.matches("data: event 1").count(),
        3,
        "{outcome:#?}"
    );
}

#[test]
fn websockets_are_full_duplex() {
    let world = web();
    // Writes a great deal before it reads anything, then both at once: a relay that waits for the other side hangs.
    let script = "
import socket, threading, os, sys
def open_(captured):
    s = socket.create_connection(('www.example.com', 80) if captured else ('127.0.0.1', 61081), 10)
    target = '/socket' if captured else 'http://www.example.com/socket'
    s.sendall(('GET %s HTTP/1.1\\r\\nHost: www.example.com\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n'
               'Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n' % target).encode())
    head = b''
    while not head.endswith(b'\\r\\n\\r\\n'): head += s.recv(1)
    assert b' 101 ' in head and b's3pPLMBiTxaQ9kYGzzhZRbK+xOo=' in head, head
    return s
for captured in (False, True):
    s = open_(captured)
    data = os.urandom(4 << 20)
    writer = threading.Thread(target=s.sendall, args=(data,))
    writer.start()
    got = b''
    while len(got) < len(data):
        piece = s.recv(65536)
        if not piece: break
        got += piece
    writer.join()
    print(got == data)
";
    let outcome = world
        .run_as(User::Alice)
        .allow("www.example.com")
        .python(script)
        .ok();
    assert_eq!(outcome.stdout, "True\nTrue\n", "{outcome:#?}");
}

#[test]
fn half_closed_connections_work() {
    let world = World::new();
    world.dns.answer("echo.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:7000", Service::Echo);
    let script = "
import socket
s = socket.create_connection(('echo.example.com', 7000))
s.sendall(b'x' * 100000)
s.shutdown(socket.SHUT_WR)
n = 0
while True:
    piece = s.recv(65536)
    if not piece: break
    n += len(piece)
print(n)
";
    let outcome = world
        .run_as(User::Alice)
        .allow("echo.example.com:7000")
        .python(script)
        .ok();
    assert_eq!(outcome.stdout, "100000\n", "{outcome:#?}");
}
