//! The agent of a container sandbox, in a network namespace of its own, as an engine would make it.
//!
//! A *machine* here is a user and a network namespace that stay while a shell of theirs does; `examples/inside.rs` runs in
//! it. Making them takes no privilege where user namespaces are allowed.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, and what helps it, fails by panicking"
)]

use egret_sandbox::agent::Link;
use egret_sandbox::{Doors, Error, Strays};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

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
        let mut stream = accept(door);
        stream.write_all(b"answer").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "question", "{to}");
        drop(stream);
        assert_eq!(output(client), Ok("answer\n".into()), "{to}");
    }
}

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
        let mut child = command.args(arguments).spawn().unwrap();
        let input = child.stdin.take();
        Inside { child, input }
    }

    fn agent(&self, peer: u32) -> Inside {
        let socket = self.socket();
        self.start(&["agent", socket.to_str().unwrap(), &peer.to_string()])
    }

    fn link(&self) -> Result<(Doors, Option<Strays>, Link), Error> {
        Link::connect(&self.socket(), Duration::from_secs(5))
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
    let mut texts = [String::new(), String::new()];
    let (mut out, mut err) = (program.child.stdout.take(), program.child.stderr.take());
    out.as_mut().unwrap().read_to_string(&mut texts[0]).unwrap();
    err.as_mut().unwrap().read_to_string(&mut texts[1]).unwrap();
    let [out, err] = texts;
    match program.child.wait().unwrap().success() {
        true => Ok(out),
        false => Err(err),
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(false).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream
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
