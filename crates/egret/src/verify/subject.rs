//! What is verified, how a prober gets into it, and what it tells there.

use super::LIMIT;
use super::plan::{Around, Attempt, Plan};
use crate::cli;
use crate::container::{self, Container, Role, Sandbox};
use crate::control::{self, Answer, Request};
use crate::failure::Failure;
use crate::source::Origin;
use egret_policy::SandboxId;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// What is verified.
#[derive(Debug)]
pub(super) enum Subject {
    /// A new sandbox, by the arguments of `egret run`, and whether it is one of containers.
    New {
        before: Vec<OsString>,
        image: Vec<OsString>,
        of_containers: bool,
    },
    /// One that runs.
    Running(String),
    /// One of containers that runs.
    Containers(Box<Sandbox>),
    /// No sandbox at all: what an unconfined program reaches.
    Unconfined,
}

/// How long a sandbox may take to be made, on an engine that has much to do.
const START: Duration = Duration::from_secs(60);

impl Subject {
    /// What the arguments mean, which are there once more as they were given.
    pub(super) fn of(arguments: &cli::Verify, given: &[OsString]) -> Result<Self, Failure> {
        let words = arguments.words.len();
        let end = given.len().saturating_sub(words);
        let mut before: Vec<OsString> = without_output(given.get(2..end).unwrap_or_default());
        let is_command = before.last().is_some_and(|word| word == "--");
        if is_command {
            before.pop();
        }
        if let ([name], false) = (arguments.words.as_slice(), is_command)
            && let Some(running) = Self::named(name, arguments)?
        {
            return match before.is_empty() {
                true => Ok(running),
                false => Err(Failure::new(format!(
                    "{} is a sandbox that runs, with options of its own; leave them out, or verify a new one",
                    name.to_string_lossy()
                ))),
            };
        }
        let image = match is_command {
            true => Vec::new(),
            false => arguments.words.clone(),
        };
        let of_containers = !image.is_empty() || arguments.container.from_config.is_some();
        if !of_containers && arguments.container.isolate_network == Some(false) {
            return Ok(Self::Unconfined);
        }
        Ok(Self::New {
            before,
            image,
            of_containers,
        })
    }

    /// The sandbox of this name, if it runs.
    fn named(name: &OsStr, arguments: &cli::Verify) -> Result<Option<Self>, Failure> {
        let Some(name) = name
            .to_str()
            .filter(|name| name.parse::<SandboxId>().is_ok())
        else {
            return Ok(None);
        };
        if control::ask(name, &Request::Status)?.is_some() {
            return Ok(Some(Self::Running(name.to_owned())));
        }
        let found = container::find(name, arguments.container.engine)?;
        Ok(found
            .filter(|sandbox| {
                sandbox
                    .container(Role::Workload)
                    .is_some_and(Container::runs)
            })
            .map(|sandbox| Self::Containers(Box::new(sandbox))))
    }

    /// Where its audit log is, and its policy: these, if it is made now.
    pub(super) fn files(
        &self,
        log: PathBuf,
        policy: Option<&str>,
    ) -> Result<(Records, Option<PathBuf>), Failure> {
        let file = |policy: &str| Some(Origin::named(policy).ok()?.file()?.to_owned());
        Ok(match self {
            Self::New { .. } | Self::Unconfined => (Records::File(log), policy.and_then(file)),
            Self::Running(name) => match control::ask(name, &Request::Status)? {
                Some(Answer::Status(status)) => (
                    Records::File(status.log.into()),
                    status.policy.as_deref().and_then(file),
                ),
                _ => return Err(Failure::new(format!("the sandbox {name} has ended"))),
            },
            Self::Containers(sandbox) => (Records::Engine(sandbox.clone()), None),
        })
    }

    /// Whether it is made for the prober, and opened for it.
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::New { .. })
    }

    /// The address at which the gateway reaches the name server: it may be in a network of its own.
    pub(super) fn resolver(&self, machine: &[IpAddr]) -> IpAddr {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        match self {
            Self::New {
                of_containers: true,
                ..
            } => {
                let elsewhere = machine
                    .iter()
                    .find(|address| address.is_ipv4() && !address.is_loopback());
                elsewhere.copied().unwrap_or(loopback)
            }
            _ => loopback,
        }
    }

    /// Has the prober run, and returns what it tells and whether that is all.
    pub(super) fn probe(&self, plan: &Plan, log: &Path, child: &Child) -> Result<Told, Failure> {
        let failed =
            |error: &dyn std::error::Error| Failure::because("cannot start the prober", error);
        let text = serde_json::to_string(plan).map_err(|error| failed(&error))?;
        let mut command = Command::new("/proc/self/exe");
        // A descriptor that is open and would be inherited, as those of careless parents are.
        let inherited = File::open("/dev/null")
            .and_then(|file| Ok(fcntl_setfd(&file, FdFlags::empty()).map(|()| file)?))
            .map_err(|error| failed(&error))?;
        match self {
            Self::New {
                before,
                image,
                of_containers,
            } => {
                command.args(["run", "--probe", &text]).args(before);
                if !before.iter().any(|word| is_option(word, "--log-file")) {
                    command.arg("--log-file").arg(log);
                }
                match of_containers {
                    true => command.args(image),
                    false => command.args(["--", "probe"]),
                }
            }
            Self::Running(name) => {
                return match control::ask(name, &Request::Probe(Box::new(plan.clone())))? {
                    Some(Answer::Probed(told)) => Told::read(told.lines().map(str::to_owned)),
                    Some(Answer::Refused(why)) => {
                        Err(Failure::new(format!("{name} cannot be probed: {why}")))
                    }
                    _ => Err(Failure::new(format!("the sandbox {name} has ended"))),
                };
            }
            Self::Containers(sandbox) => {
                let (prober, _calls) = container::prober(sandbox, plan)?;
                return run(prober, child);
            }
            Self::Unconfined => command.args(plan.without_gateway(Around::Nothing)),
        };
        let told = run(command, child);
        drop(inherited);
        told
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::New {
                image,
                of_containers,
                ..
            } => match (image.first(), of_containers) {
                (Some(image), _) => {
                    write!(f, "a new sandbox for the image {}", image.to_string_lossy())
                }
                (None, true) => f.write_str("a new sandbox for the configuration's image"),
                (None, false) => f.write_str("a new sandbox for a command"),
            },
            Self::Running(name) => write!(f, "the sandbox {name}"),
            Self::Containers(sandbox) => write!(f, "the sandbox {}", sandbox.name),
            Self::Unconfined => f.write_str("no sandbox"),
        }
    }
}

fn is_option(word: &OsStr, option: &str) -> bool {
    word.to_str()
        .is_some_and(|word| word == option || word.starts_with(&format!("{option}=")))
}

/// Arguments without the one that says how to report.
fn without_output(words: &[OsString]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--output" {
            words.next();
        } else if !is_option(word, "--output") {
            kept.push(word.clone());
        }
    }
    kept
}

/// More than any prober has to tell, in bytes.
pub(crate) const MOST: u64 = 4 << 20;

/// The process that runs a prober, if one runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Child(Arc<AtomicI32>);

impl Child {
    fn is(&self, pid: u32) {
        let pid = i32::try_from(pid).unwrap_or_default();
        self.0.store(pid, Ordering::Relaxed);
    }

    /// Asks it to end, which undoes what it has made.
    pub(super) fn end(&self) {
        let pid = Pid::from_raw(self.0.load(Ordering::Relaxed));
        // It may have ended by itself.
        let (Ok(()) | Err(_)) = pid.map_or(Ok(()), |pid| kill_process(pid, Signal::TERM));
    }
}

/// Runs a prober's process to its end, or to the limit.
fn run(mut command: Command, running: &Child) -> Result<Told, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::because("cannot start the prober", error);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    running.is(child.id());
    let (tell, told) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout.take(MOST))
                .lines()
                .map_while(Result::ok)
            {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
    }
    let complaints = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut text = String::new();
            // Whatever could be read of it is said.
            let (Ok(_) | Err(_)) = stderr.read_to_string(&mut text);
            text
        })
    });
    let mut until = Instant::now() + START;
    let mut lines = Vec::new();
    loop {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if lines.is_empty() {
                    until = Instant::now() + LIMIT;
                } else if line.is_empty() {
                    // Its end. What follows is that of the sandbox.
                    until = Instant::now() + START;
                }
                lines.push(line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // It undoes what it has made.
                running.end();
                break;
            }
        }
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    let said = complaints
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    if lines.is_empty() {
        let said = said.trim();
        return Err(match said.is_empty() {
            true => Failure::new(format!("the prober ended at once: {status}")),
            false => Failure::new(said.trim_start_matches("egret: ").to_owned()),
        });
    }
    Told::read(lines)
}

impl Told {
    /// What a prober has printed: what is around it, its attempts, and an empty line.
    pub(super) fn read(lines: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        let around = serde_json::from_str(&first)
            .map_err(|_| Failure::new(format!("the prober says what it should not: {first:?}")))?;
        let (mut attempts, mut complete, mut garbled) = (Vec::new(), false, false);
        for line in lines {
            match serde_json::from_str(&line) {
                Ok(attempt) => attempts.push(attempt),
                Err(_) if line.is_empty() => complete = true,
                // What it was to say is not known.
                Err(_) => garbled = true,
            }
        }
        complete &= !garbled;
        Ok(Self {
            around,
            attempts,
            complete,
        })
    }
}

/// Where the audit log of a sandbox is.
pub(super) enum Records {
    File(PathBuf),
    Engine(Box<Sandbox>),
}

impl Records {
    /// The file, where it is one.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Engine(_) => Path::new(""),
        }
    }

    /// How many bytes there are by now.
    pub(super) fn length(&self) -> Result<usize, Failure> {
        match self {
            Self::File(path) if !path.exists() => Ok(0),
            _ => Ok(self.read(0)?.len()),
        }
    }

    /// What came after so many bytes.
    pub(super) fn read(&self, start: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = match self {
            Self::File(path) => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
            Self::Engine(sandbox) => match container::audit(sandbox, false)? {
                Some(mut stream) => stream.read_to_end(&mut bytes),
                None => Ok(0),
            },
        };
        read.map_err(|error| {
            Failure::because(
                format_args!("cannot read the audit log {}", self.path().display()),
                &error,
            )
        })?;
        bytes.drain(..start.min(bytes.len()));
        Ok(bytes)
    }
}

/// What a prober has told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) around: Around,
    pub(super) attempts: Vec<Attempt>,
    /// Whether it came to its end.
    pub(super) complete: bool,
}
