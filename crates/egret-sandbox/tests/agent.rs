//! The agent of a container sandbox, in a network namespace of its own, as an engine would make it.
//!
//! A *machine* here is a user and a network namespace that stay while a shell of theirs does; `examples/inside.rs` runs in
//! it. Making them takes no privilege where user namespaces are allowed.

#![expect(
    clippy::unwrap_used,
    reason = "a test, and what helps it, fails by panicking"
)]

#[path = "agent/handover.rs"]
mod handover;

use egret_sandbox::agent::Link;
use egret_sandbox::{CAPTURE_PORT, DNS_PORT, Doors, Error, PROXY_PORT, Strays};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn what_leaves_arrives_at_the_doors_and_tells_where_it_wanted_to_go() {
    let machine = Machine::new();
    let _agent = machine.agent(0);
    let (doors, strays, _link) = machine.link().unwrap();
    assert!(strays.is_some());
    for (to, door) in [
        ("192.0.2.77:443", &doors.captured[0]),
        ("[2001:db8::77]:443", &doors.captured[1]),
        ("127.0.0.1:61081", &doors.proxy[0]),
        ("198.51.100.1:53", &doors.dns_tcp[0]),
    ] {
        let client = machine.start(&["connect", to, "question"]);
        assert_eq!(answer(door), "question", "{to}");
        assert_eq!(output(client), Ok("answer\n".into()), "{to}");
    }
}

#[test]
fn when_the_gateway_is_gone_so_are_the_doors_and_the_next_one_gets_others() {
    let machine = Machine::new();
    let _agent = machine.agent(0);
    for round in 0..3 {
        let (doors, strays, link) = machine.link().unwrap();

        let client = machine.start(&["connect", "192.0.2.77:443", "question"]);
        assert_eq!(answer(&doors.captured[0]), "question", "round {round}");
        assert_eq!(output(client), Ok("answer\n".into()), "round {round}");

        assert_eq!(
            machine.run(&["send", "203.0.113.9:1234", "lost"]),
            Ok(String::new())
        );
        let stray = strays.as_ref().unwrap().drain().pop().unwrap();
        assert_eq!(
            (stray.address, stray.port),
            ([203, 0, 113, 9].into(), Some(1234))
        );

        machine.hang_up((doors, strays, link));
        for to in [
            "192.0.2.77:443",
            "[2001:db8::77]:443",
            "127.0.0.1:61080",
            "127.0.0.1:61081",
        ] {
            let complaint = machine.run(&["connect", to, "question"]).unwrap_err();
            assert!(
                complaint.contains("Connection refused"),
                "{to}: {complaint}"
            );
        }
    }
}

#[test]
fn one_gateway_is_served_at_a_time() {
    let machine = Machine::new();
    let _agent = machine.agent(0);
    let first = machine.link().unwrap();
    for _ in 0..3 {
        let second = machine.link_within(Duration::from_millis(50));
        assert!(matches!(second, Err(Error::Busy)), "{second:?}");
    }
    assert!(
        machine.reaches_refused(&first.2, 1),
        "the first is served as before"
    );

    // One that waits gets its turn.
    let socket = machine.socket();
    let waiting = std::thread::spawn(move || Link::connect(&socket, PATIENCE).map(drop));
    std::thread::sleep(Duration::from_millis(50));
    machine.hang_up(first);
    waiting.join().unwrap().unwrap();
}

#[test]
fn only_the_user_that_it_was_told_of_is_served() {
    let machine = Machine::new();
    let mut agent = machine.agent(65532);
    let refused = machine.link().unwrap_err();
    assert!(matches!(refused, Error::Agent { .. }), "{refused:?}");
    assert!(agent.runs());
}

#[test]
fn a_peer_that_talks_nonsense_is_let_go_and_the_next_one_served() {
    let machine = Machine::new();
    let mut agent = machine.agent(0);
    machine.hang_up(machine.link().unwrap());
    let long = [&1000u32.to_ne_bytes()[..], &[b' '; 1000]].concat();
    let many = [&14u32.to_ne_bytes()[..], b"{\"Reach\":9999}"]
        .concat()
        .repeat(20_000);
    for nonsense in [
        &[0xff; 64][..],
        &[0; 64],
        &[3, 0, 0, 0, b'{', b'}', b'}'],
        &[&17u32.to_ne_bytes()[..], b"{\"Reach\":\"9999\"}"].concat(),
        &[&15u32.to_ne_bytes()[..], b"{\"Reach\":99999}"].concat(),
        &long,
        &many,                // and nobody takes the answers
        &[64, 0, 0, 0, b'{'], // stays in the middle of a message
    ] {
        let mut peer = UnixStream::connect(machine.socket()).unwrap();
        let mut first = [0; 4];
        peer.read_exact(&mut first).unwrap();
        peer.set_write_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        // It may be cut off at any point.
        let _ = peer.write_all(nonsense);
        machine.hang_up(machine.link().unwrap());
        assert!(agent.runs());
    }
}

#[test]
fn ports_inside_are_reached_from_outside() {
    let machine = Machine::new();
    let _agent = machine.agent(0);
    let (_doors, _strays, link) = machine.link().unwrap();
    for at in ["127.0.0.1:8001", "0.0.0.0:8002", "[::1]:8003", "[::]:8004"] {
        let mut server = machine.start(&["listen", at]);
        server.line();
        let port = at.rsplit(':').next().unwrap().parse().unwrap();
        let mut stream = link.reach(port).unwrap();
        assert!(stream.peer_addr().unwrap().ip().is_loopback());
        let mut byte = [0];
        if let Err(error) = stream.read(&mut byte) {
            assert_eq!(
                error.kind(),
                ErrorKind::WouldBlock,
                "it is to be non-blocking"
            );
        }
        stream.set_nonblocking(false).unwrap();
        assert_eq!(server.line(), "accepted");
        drop(server);
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!("hello".ends_with(&said) && said.len() >= 4, "{at}: {said}");
    }
    for port in [0, 1, 8001, 53, CAPTURE_PORT, PROXY_PORT, DNS_PORT] {
        assert!(machine.reaches_refused(&link, port), "{port}");
    }
}

#[test]
fn a_server_that_does_not_accept_costs_a_second_and_nothing_else() {
    let machine = Machine::new();
    let _agent = machine.agent(0);
    let (_doors, _strays, link) = machine.link().unwrap();
    let mut deaf = machine.start(&["ignore", "127.0.0.1:8001"]);
    deaf.line();
    let mut server = machine.start(&["listen", "127.0.0.1:8002"]);
    server.line();

    let started = Instant::now();
    let error = link.reach(8001).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));

    // Several threads at once: each gets what it asked for.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let link = &link;
            scope.spawn(move || {
                for _ in 0..50 {
                    match thread % 2 {
                        0 => {
                            assert_eq!(link.reach(8002).unwrap().peer_addr().unwrap().port(), 8002)
                        }
                        _ => assert_eq!(
                            link.reach(1).unwrap_err().kind(),
                            ErrorKind::ConnectionRefused
                        ),
                    }
                }
            });
        }
    });
}

#[test]
fn signals_end_the_first_process_of_a_container_and_the_gateway_notices() {
    for signal in ["TERM", "INT"] {
        let machine = Machine::new();
        let agent = machine.first_process_agent();
        let (doors, _strays, link) = machine.link().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| link.wait_until_gone());
            assert!(machine.reaches_refused(&link, 1));
            assert!(!waiting.is_finished(), "an answer is not an end");
            let pid = agent.child_of_child();
            let killed = Command::new("kill")
                .args([&format!("-{signal}"), &pid])
                .status();
            assert!(killed.unwrap().success());
            waiting.join().unwrap().unwrap();
        });
        assert_eq!(output(agent), Ok(String::new()), "{signal}");
        assert_eq!(link.reach(1).unwrap_err().kind(), ErrorKind::BrokenPipe);
        // The doors are the gateway's, and lead where they led.
        let client = machine.start(&["connect", "192.0.2.77:443", "question"]);
        assert_eq!(answer(&doors.captured[0]), "question");
        assert_eq!(output(client), Ok("answer\n".into()));
    }
}

#[test]
fn another_agent_takes_over_the_socket_of_one_that_was_killed() {
    let machine = Machine::new();
    let agent = machine.agent(0);
    machine.hang_up(machine.link().unwrap());
    drop(agent);
    assert!(machine.socket().exists());
    let nobody = machine.link_within(Duration::from_millis(20));
    assert!(matches!(nobody, Err(Error::Agent { .. })), "{nobody:?}");
    // In a network namespace of its own: that of the first is sealed.
    let second = Machine::new();
    let socket = machine.socket();
    let _agent = second.start(&["agent", socket.to_str().unwrap(), "0"]);
    machine.hang_up(machine.link().unwrap());
}

#[test]
fn a_program_that_holds_a_door_s_port_keeps_the_doors_shut_until_it_lets_go() {
    let machine = Machine::new();
    let mut agent = machine.agent(0);
    machine.hang_up(machine.link().unwrap());
    for at in [
        "127.0.0.1:61080",
        "0.0.0.0:61081",
        "[::1]:61053",
        "[::]:61080",
    ] {
        let mut squatter = machine.start(&["listen", at]);
        assert_eq!(squatter.line(), format!("at {at}"));
        let error = machine.link_within(Duration::from_millis(300)).unwrap_err();
        let Error::Jail {
            errno: Some(errno), ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(*errno, rustix::io::Errno::ADDRINUSE.raw_os_error());
        let port = at.rsplit(':').next().unwrap();
        assert!(error.to_string().contains(port), "{error}");
        assert!(agent.runs());
        // Nothing was left open: what the program does not hold is refused.
        for port in ["61080", "61081", "61053"]
            .iter()
            .filter(|other| **other != port)
        {
            let complaint = machine
                .run(&["connect", &format!("127.0.0.1:{port}"), ""])
                .unwrap_err();
            assert!(complaint.contains("Connection refused"), "{complaint}");
        }
        // One that waits gets doors as soon as they can be had.
        let socket = machine.socket();
        let waiting = std::thread::spawn(move || Link::connect(&socket, PATIENCE).map(drop));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(squatter);
        waiting.join().unwrap().unwrap();
        machine.hang_up(machine.link().unwrap());
    }
}

#[test]
fn programs_that_connect_all_the_time_do_not_keep_a_gateway_from_its_proof() {
    let machine = Machine::new();
    let _agent = machine.agent(0);
    machine.hang_up(machine.link().unwrap());
    let _noise: Vec<_> = ["192.0.2.77:443", "[2001:db8::77]:443", "127.0.0.1:61080"]
        .iter()
        .map(|to| machine.start(&["insist", to]))
        .collect();
    for _ in 0..20 {
        machine.hang_up(machine.link().unwrap());
    }
}

#[test]
fn a_namespace_with_another_interface_is_not_sealed() {
    let machine = Machine::new();
    machine.ip("link add other type veth peer name peer");
    machine.ip("link set other up");
    let complaint = output(machine.agent(0)).unwrap_err();
    assert!(complaint.contains("should have only lo"), "{complaint}");
    assert!(!machine.socket().exists());

    // One that is down leads nowhere; and when it comes up later, there are no doors any more.
    machine.ip("link set other down");
    let _agent = machine.agent(0);
    machine.hang_up(machine.link().unwrap());
    machine.ip("link set other up");
    let error = machine.link().unwrap_err();
    assert!(error.to_string().contains("should have only lo"), "{error}");
    machine.ip("link set other down");
    machine.hang_up(machine.link().unwrap());
}

#[test]
fn an_agent_without_privileges_over_the_network_says_so() {
    let machine = Machine::new();
    let mut command = machine.command(Path::new("setpriv"));
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
    command
        .arg(inside())
        .arg("agent")
        .arg(machine.socket())
        .arg("0");
    let complaint = output(Inside::new(command)).unwrap_err();
    assert!(complaint.contains("--cap-add NET_ADMIN"), "{complaint}");
    assert!(!machine.socket().exists());
}

#[test]
fn an_agent_has_no_privileges_one_thread_and_little_memory() {
    let machine = Machine::new();
    let agent = machine.first_process_agent();
    let (_doors, _strays, link) = machine.link().unwrap();
    for _ in 0..100 {
        assert!(machine.reaches_refused(&link, 1));
    }
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", agent.child_of_child())).unwrap();
    let field = |name: &str| -> &str {
        let line = status
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")));
        line.unwrap().split_once(':').unwrap().1.trim()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    // What could be had by executing a program, were it not for NoNewPrivs; to change this takes a capability.
    assert_eq!(field("CapBnd"), "0000000000001000");
    assert_eq!((field("NoNewPrivs"), field("Threads")), ("1", "1"));
    let kilobytes: u32 = field("RssAnon").trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes <= 1536, "{kilobytes} KiB");
}

/// What a gateway has.
type Linked = (Doors, Option<Strays>, Link);

/// For whatever is about to happen.
const PATIENCE: Duration = Duration::from_secs(5);

/// A user and a network namespace, and a directory for the agent's socket.
struct Machine {
    shell: Child,
    directory: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let mut shell = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--"])
            .args(["sh", "-c", "echo ready; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut out = BufReader::new(shell.stdout.as_mut().unwrap());
        out.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "no user and network namespace");
        let name = format!("egret-agent-{}-{}", std::process::id(), shell.id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        Self { shell, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.shell.id()))
            .args(["--user", "--net", "--preserve-credentials", "--"])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the program of `examples/inside.rs`.
    fn start(&self, arguments: &[&str]) -> Inside {
        let mut command = self.command(&inside());
        command.args(arguments);
        Inside::new(command)
    }

    /// Runs it to its end.
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        output(self.start(arguments))
    }

    fn ip(&self, arguments: &str) {
        let mut command = self.command(Path::new("ip"));
        command.args(arguments.split(' '));
        assert_eq!(
            output(Inside::new(command)),
            Ok(String::new()),
            "{arguments}"
        );
    }

    fn agent(&self, peer: u32) -> Inside {
        let socket = self.socket();
        self.start(&["agent", socket.to_str().unwrap(), &peer.to_string()])
    }

    /// An agent that is the first process of a process namespace and may have one capability, as in a container.
    fn first_process_agent(&self) -> Inside {
        let mut command = self.command(Path::new("unshare"));
        command.args(["--pid", "--fork", "--kill-child", "--"]);
        command
            .args(["setpriv", "--bounding-set=-all,+net_admin"])
            .arg(inside())
            .arg("agent")
            .arg(self.socket())
            .arg("0");
        Inside::new(command)
    }

    fn link(&self) -> Result<Linked, Error> {
        self.link_within(PATIENCE)
    }

    fn link_within(&self, patience: Duration) -> Result<Linked, Error> {
        Link::connect(&self.socket(), patience)
    }

    /// Closes all that a gateway has, and waits until it is closed: a process that another test is just starting has copies
    /// for a moment.
    fn hang_up(&self, linked: Linked) {
        drop(linked);
        let until = Instant::now() + PATIENCE;
        while self.has_doors() {
            assert!(Instant::now() < until, "there are doors still");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether anything listens at a port of the doors, or receives there (`proc_pid_net(5)`).
    fn has_doors(&self) -> bool {
        let ports = [CAPTURE_PORT, PROXY_PORT, DNS_PORT].map(|port| format!(":{port:04X}"));
        let is_door = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (listening, unconnected) = ("0A", "07");
            matches!(fields[..], [_, local, _, state, ..]
                if [listening, unconnected].contains(&state)
                    && ports.iter().any(|port| local.ends_with(port)))
        };
        ["tcp", "tcp6", "udp", "udp6"].iter().any(|table| {
            let path = format!("/proc/{}/net/{table}", self.shell.id());
            std::fs::read_to_string(path).unwrap().lines().any(is_door)
        })
    }

    fn reaches_refused(&self, link: &Link, port: u16) -> bool {
        matches!(link.reach(port), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A program that runs in a machine; killed when dropped.
struct Inside {
    child: Child,
    input: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
}

impl Inside {
    fn new(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (input, out) = (child.stdin.take(), child.stdout.take());
        Self {
            child,
            input,
            out: BufReader::new(out.unwrap()),
        }
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The id of its only child.
    fn child_of_child(&self) -> String {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.unwrap().trim().to_owned()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program prints in the end, or what it complains of.
fn output(mut program: Inside) -> Result<String, String> {
    drop(program.input.take());
    let (mut out, mut err) = (String::new(), String::new());
    program.out.read_to_string(&mut out).unwrap();
    let mut stderr = program.child.stderr.take().unwrap();
    stderr.read_to_string(&mut err).unwrap();
    match program.child.wait().unwrap().success() {
        true => Ok(out),
        false => Err(err),
    }
}

/// Accepts a connection, answers, and returns what was said.
fn answer(listener: &TcpListener) -> String {
    listener.set_nonblocking(false).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"answer").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// Cargo builds examples along with tests, next to the directory that this test is in.
fn inside() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().with_file_name("examples/inside");
    assert!(
        path.exists(),
        "{} is not built: cargo test builds it",
        path.display()
    );
    path
}
