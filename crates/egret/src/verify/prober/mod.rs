//! The prober: `egret probe PLAN`, in a sandbox. It tries what a hostile program would, and tells how each attempt went.
//!
//! It decides nothing: what is a leak is told by whoever started it, who sees the sinks and the log as well. It writes
//! what is around it, a line of JSON for each attempt, and an empty line at its end.

mod gateway;
mod local;
mod names;
mod network;
mod spoken;

use super::plan::{Attempt, Outcome, Plan, Recorded};
use super::sinks::GREETING;
use super::{LIMIT, OPEN};
use crate::failure::Failure;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `egret probe PLAN`
pub(crate) fn probe(arguments: &[String]) -> Result<ExitCode, Failure> {
    match arguments {
        [word] if word == "kernel" => local::kernel(),
        [word] if word == "foreign" => local::foreign(),
        [plan] => {
            let plan: Plan = serde_json::from_str(plan)
                .map_err(|error| Failure::because("`egret probe` cannot read its plan", &error))?;
            // In a sandbox that runs there may be somebody who would rather have it say something else.
            set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .map_err(|error| Failure::because("the prober cannot protect itself", &error))?;
            run(&plan);
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(Failure::new(
            "`egret probe` is how egret starts itself in a sandbox; use `egret verify`",
        )),
    }
}

fn run(plan: &Plan) {
    let told = Told {
        plan,
        turn: Mutex::new(()),
    };
    line(&serde_json::to_string(&plan.around).unwrap_or_default());
    // Nobody has to end it: it may be the first process of a container, which no signal ends that it does not expect.
    std::thread::spawn(|| {
        std::thread::sleep(LIMIT);
        std::process::exit(1);
    });
    // The first thing that is done in here: nothing is waited for.
    network::first(&told);
    std::thread::scope(|scope| {
        for group in [
            network::direct as fn(&Told<'_>),
            network::machine,
            network::datagrams,
            local::all,
            names::questions,
            names::rebinding,
            names::spellings,
            spoken::all,
            gateway::addresses,
            gateway::socks,
        ] {
            let told = &told;
            scope.spawn(move || group(told));
        }
    });
    line("");
}

/// What the attempts are made of, and where it is told how they went.
struct Told<'a> {
    plan: &'a Plan,
    turn: Mutex<()>,
}

impl Told<'_> {
    /// Makes an attempt and tells of it.
    fn attempt(
        &self,
        class: u8,
        what: impl Into<String>,
        attempt: impl FnOnce() -> (Outcome, Option<Recorded>),
    ) {
        let since = Instant::now();
        let (outcome, record) = match self.plan.host_is_open && AT_THE_MACHINE.contains(&class) {
            true => (Outcome::NotMeant(OPEN.into()), None),
            false => attempt(),
        };
        let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let told = Attempt {
            class,
            what: what.into(),
            outcome,
            ms,
            record,
        };
        if let Ok(text) = serde_json::to_string(&told) {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            line(&text);
        }
    }

    /// The port of a class's sink.
    fn port(&self, class: u8) -> u16 {
        self.plan.ports.get(&class).copied().unwrap_or_default()
    }
}

/// Classes whose sinks are found at the machine's addresses and names.
const AT_THE_MACHINE: [u8; 9] = [1, 2, 3, 4, 11, 18, 19, 23, 29];

/// One that nobody reads any more is missed by whoever reads the rest.
fn line(text: &str) {
    let mut out = io::stdout().lock();
    let (Ok(()) | Err(_)) = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connects, says the token, and sees what comes back.
fn reach(plan: &Plan, class: u8, address: SocketAddr) -> Outcome {
    let connected = TcpStream::connect_timeout(&address, PATIENCE);
    match connected.and_then(|stream| talk(stream, plan.token(class).as_bytes())) {
        Ok(heard) if heard.is_empty() => Outcome::Refused("closed without a word".into()),
        Ok(heard) => Outcome::Through(shown(&heard)),
        Err(error) => refused(&error),
    }
}

/// Sends `bytes`, and returns what comes back until it ends, or a sink has greeted.
fn talk(mut stream: TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(bytes)?;
    hear(&mut stream, |heard| {
        heard.ends_with(b"\n") && heard.starts_with(GREETING.as_bytes())
    })
}

/// What comes back until it ends, or is enough.
fn hear(stream: &mut impl Read, enough: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(heard),
            Ok(length) => heard.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // An end in anger, after something was said.
            Err(_) if !heard.is_empty() => return Ok(heard),
            Err(error) => return Err(error),
        }
        if enough(&heard) || heard.len() > MOST {
            return Ok(heard);
        }
    }
}

/// More than any answer that means anything here.
const MOST: usize = 64 << 10;

/// A refusal in the kernel's words; one that nobody gave is none. That this process has come to a limit of its own is not
/// a refusal either: a program that runs beside it may have set that, and what it would have reached is not known.
fn refused(error: &io::Error) -> Outcome {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
            Outcome::Impossible(in_words(error))
        }
        Some(Errno::AGAIN | Errno::TIMEDOUT) => {
            Outcome::Refused("nothing within three seconds".into())
        }
        _ => match error.kind() {
            io::ErrorKind::TimedOut => Outcome::Refused("nothing within three seconds".into()),
            SHUT => Outcome::Impossible(in_words(error)),
            _ => Outcome::Refused(in_words(error)),
        },
    }
}

/// What [`gateway::open`] says of a gateway that cannot be asked: it has refused nothing.
const SHUT: io::ErrorKind = io::ErrorKind::NotConnected;

/// An error without its number.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// The beginning of what was heard, fit to print.
fn shown(heard: &[u8]) -> String {
    let text = String::from_utf8_lossy(heard);
    let first = text.lines().next().unwrap_or_default();
    first
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}
