//! The system calls of a process, as strace tells them.
//!
//! A [`Trace`] is attached to threads that run already, and gives every [`Call`] with the moment at which it was made. What
//! a call is named by ([`Call::name`]) is as fine as a reason for it: which socket option is set, what is done to an epoll
//! set, whether there was nothing to read.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A strace at work.
pub(super) struct Trace {
    strace: Child,
    output: PathBuf,
}

/// One system call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// When it was made, in microseconds of the wall clock.
    pub(super) at: u128,
    pub(super) name: String,
    /// The line that strace wrote about it.
    pub(super) line: String,
}

impl Trace {
    /// Follows all threads of these processes from now on.
    pub(super) fn attach(processes: &[u32]) -> Trace {
        let output = std::env::temp_dir().join(format!(
            "egret-trace-{}-{}",
            std::process::id(),
            processes[0]
        ));
        let mut command = Command::new("strace");
        command.args(["-f", "-ttt", "-s", "24", "-o"]).arg(&output);
        for process in processes {
            command.args(["-p", &process.to_string()]);
        }
        let mut strace = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is missing: run the tests with ./x test");
        let mut said = BufReader::new(strace.stderr.take().unwrap()).lines();
        for process in processes {
            let attached = format!("Process {process} attached");
            let line = said.by_ref().map(Result::unwrap);
            let line = line.take(64).find(|line| line.contains("ttach"));
            let line = line.expect("strace has ended");
            assert!(line.contains(&attached), "strace says: {line}");
        }
        // Whatever it says later is read by nobody, but has somewhere to go.
        std::thread::spawn(move || said.for_each(drop));
        Trace { strace, output }
    }

    /// Stops following, and gives what was seen.
    pub(super) fn detach(mut self) -> Vec<Call> {
        let pid = Pid::from_raw(i32::try_from(self.strace.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        self.strace.wait().unwrap();
        calls(&std::fs::read_to_string(&self.output).unwrap())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
        let _ = std::fs::remove_file(&self.output);
    }
}

/// What `strace -f -ttt` wrote.
pub(super) fn calls(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    // Where the call is whose end comes in a line of its own, by thread.
    let mut open = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(at)) = (words.next(), words.next()) else {
            continue;
        };
        let Some(said) = line.split_once(at).map(|(_, said)| said.trim()) else {
            continue;
        };
        // The ends of threads, signals, and what only debug builds of Rust's library ask about descriptors.
        if ["+++", "---", "fcntl("]
            .iter()
            .any(|word| said.starts_with(word))
            && !said.contains("F_SET")
        {
            continue;
        }
        if said.starts_with("<...") {
            if let Some(call) = open.remove(thread).and_then(|at: usize| calls.get_mut(at)) {
                call.line.push_str(said);
                call.name = name(&call.line);
            }
            continue;
        }
        if said.ends_with("<unfinished ...>") {
            open.insert(thread, calls.len());
        }
        calls.push(Call {
            at: at.replace('.', "").parse().unwrap(),
            name: name(said),
            line: said.to_owned(),
        });
    }
    calls
}

/// What a call is counted as: its name, what it does if it can do several things, and how it failed.
fn name(line: &str) -> String {
    let (call, rest) = line.split_once('(').unwrap_or((line, ""));
    // What processors without the older call use in its place.
    let call = call.replace("epoll_pwait", "epoll_wait");
    let argument = |at: usize| {
        let argument = rest.split([',', ')']).nth(at).unwrap_or_default().trim();
        // An option that strace has no name for.
        let argument = argument.replace("0x50 /* IP_??? */", "SO_ORIGINAL_DST");
        let prefixes = ["EPOLL_CTL_", "SHUT_", "F_"];
        let short = prefixes
            .iter()
            .find_map(|prefix| argument.strip_prefix(prefix));
        format!(" {}", short.unwrap_or(&argument))
    };
    let what = match call.as_str() {
        "setsockopt" | "getsockopt" => argument(2),
        "epoll_ctl" | "fcntl" | "ioctl" | "shutdown" => argument(1),
        "socket" => argument(0),
        // To an eventfd: the runtime's own, which makes its next wait return.
        "write" if line.contains(r#", "\1\0\0\0\0\0\0\0", 8)"#) => " eventfd".into(),
        _ => String::new(),
    };
    let failed = line
        .rsplit_once("= -1 ")
        .and_then(|(_, error)| error.split(' ').next())
        // A connection that does not wait for its peer is told so; and a wait is begun anew where a tracer came by.
        .filter(|error| !["EINPROGRESS", "EINTR"].contains(error));
    format!(
        "{call}{what}{}",
        failed.map(|error| format!(" {error}")).unwrap_or_default()
    )
}

/// Now, as [`Call::at`] has it.
pub(super) fn now() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_micros()
}

/// Waits until a thread waits for something to happen and nothing does any more.
pub(super) fn settle(thread: u32) {
    let limit = Instant::now() + Duration::from_secs(20);
    let mut calm = 0;
    let mut before = String::new();
    while calm < CALM {
        assert!(
            Instant::now() < limit,
            "thread {thread} does not come to rest"
        );
        std::thread::sleep(Duration::from_micros(300));
        // Which call it is in, and how often it has given up a processor.
        let look = |file: &str| {
            std::fs::read_to_string(format!("/proc/{thread}/{file}")).unwrap_or_default()
        };
        let status = look("status");
        let sleeps = status.lines().any(|line| line.starts_with("State:\tS"));
        let switches: String = status
            .lines()
            .filter(|line| line.contains("switches"))
            .collect();
        calm = if sleeps && switches == before {
            calm + 1
        } else {
            0
        };
        before = switches;
    }
}

/// How many looks in a row have to find a thread asleep.
const CALM: u32 = 4;
