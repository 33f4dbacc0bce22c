//! A client of an MCP server over its standard input and output: one JSON object a line, each way.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;
use crate::world::machine::{drain, wait_at_most};
use crate::world::run::Run;

/// A server that was started and said hello.
pub(super) struct Session {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    asked: u64,
}

impl Session {
    /// Starts what the run says, with the arguments for it, and shakes hands.
    #[track_caller]
    pub(super) fn start(world: &World, run: &Run<'_>, arguments: &[&str]) -> Session {
        let mut command = run.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = world.machine.spawn(command).unwrap();
        let stdin = child.stdin.take().unwrap();
        let stderr = Some(drain(child.stderr.take().unwrap()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        let mut session = Session {
            child,
            stdin,
            lines,
            stderr,
            asked: 0,
        };
        let answer = session.ask("initialize", &hello());
        assert!(answer["serverInfo"]["name"].is_string(), "{answer:#}");
        session.tell(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        session
    }

    /// Calls a tool. Returns the text it gave, and whether that is an error.
    #[track_caller]
    pub(super) fn call(&mut self, tool: &str, arguments: &Value) -> (String, bool) {
        let answer = self.ask("tools/call", &json!({"name": tool, "arguments": arguments}));
        let text = answer["content"][0]["text"].as_str();
        let text = text.unwrap_or_else(|| panic!("no text: {answer:#}"));
        (text.to_owned(), answer["isError"] == true)
    }

    /// Hangs up. Returns how it ended, and what it wrote to its standard error.
    #[track_caller]
    pub(super) fn end(mut self) -> (ExitStatus, String) {
        drop(self.stdin);
        let status = wait_at_most(&mut self.child, Duration::from_secs(30));
        let complaints =
            String::from_utf8_lossy(&self.stderr.unwrap().join().unwrap()).into_owned();
        (
            status.unwrap_or_else(|| panic!("it does not end: {complaints}")),
            complaints,
        )
    }

    #[track_caller]
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        self.tell(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(30));
            let Ok(line) = line else {
                let _ = self.child.kill();
                let complaints = self.stderr.take().unwrap().join().unwrap();
                let complaints = String::from_utf8_lossy(&complaints);
                panic!("{method} is not answered: {line:?}: {complaints}");
            };
            // Nothing but the protocol may be on its standard output.
            let message: Value =
                serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            if message["id"] == id && message["method"].is_null() {
                assert!(message["error"].is_null(), "{method}: {message:#}");
                return message["result"].clone();
            }
        }
    }

    fn tell(&mut self, message: &Value) {
        // If nobody listens, the next answer does not come.
        let _ = writeln!(self.stdin, "{message}");
    }
}

/// What a client says first.
pub(super) fn hello() -> Value {
    json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
    })
}
