//! `egret verify`: a prober in a sandbox, sinks outside it, and what comes of both. [`verify`] is the whole story.
//!
//! - [`sinks`] are servers outside that nothing in a sandbox may reach: a leak is seen there, not concluded.
//! - [`prober`] runs inside, and tries what a hostile program would.
//! - [`judge`] puts together what was tried, seen and recorded; [`report`] prints it.
//!
//! A sandbox that is made for the prober is made by `egret run` itself, with the options that were given, and is opened for
//! two things more: a port of this machine, behind which is a sink, and names that a name server of ours resolves. So
//! what is said on an allowed connection, and what allowed names lead to, can be tried as well.

mod classes;
mod judge;
mod plan;
mod prober;
mod report;
mod sinks;

pub(crate) use plan::{Around, Plan};
pub(crate) use prober::probe;

use crate::cli;
use crate::container::{self, Container, Role, Sandbox};
use crate::control::{self, Answer, Request};
use crate::failure::Failure;
use crate::settings;
use egret_policy::{Destination, HostAddresses, HostGatewayPorts, Policy, SandboxId};
use judge::Evidence;
use plan::{Attempt, Granted};
use report::Report;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use sinks::Sinks;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Verifies a sandbox, and prints what came out.
pub(crate) fn verify(arguments: &cli::Verify, given: &[OsString]) -> Result<ExitCode, Failure> {
    let since = Instant::now();
    for (is_given, option) in [
        (arguments.container.detach, "--detach"),
        (arguments.container.tty, "--tty"),
        (arguments.container.interactive, "--interactive"),
    ] {
        if is_given {
            return Err(Failure::new(format!(
                "{option} is about an image's own program, and the prober is run in its place; leave it out"
            )));
        }
    }
    let subject = Subject::of(arguments, given)?;
    let place = Place::make()?;
    let nonce = nonce()?;
    let machine = machine()?;
    let zone = format!("{nonce}.verify.egret.test");
    let own_name = format!("egret-verify/{nonce}");
    let control_name = format!("egret/{}/verify-{nonce}", geteuid().as_raw());
    let socket = place.0.join("socket");
    let resolver = subject.resolver(&machine);
    let sinks = Sinks::open(
        &nonce,
        &zone,
        &machine,
        [&own_name, &control_name],
        &socket,
        resolver,
    )
    .map_err(|error| {
        Failure::because("cannot open the servers that are to see what leaks", &error)
    })?;
    let log = arguments
        .options
        .log_file
        .clone()
        .unwrap_or_else(|| place.0.join("audit.jsonl"));
    let plan = Plan {
        hosts: machine,
        ports: sinks.ports.clone(),
        udp: sinks.udp,
        abstract_socket: own_name,
        control_socket: control_name,
        paths: vec![socket],
        own: own_files(arguments, &log),
        processes: vec![std::process::id()],
        granted: subject.is_new().then(|| sinks::granted(&sinks, &zone)),
        proxy: None,
        around: Around::Nothing,
        names_are_open: false,
        host_is_open: false,
        nonce,
    };
    let log = subject.log(log)?;
    let before = log.length()?;
    let told = subject.probe(&plan, log.path())?;
    let log = match told.around {
        // Nothing was sealed, and nothing is on record.
        Around::Nothing | Around::NoNetwork => None,
        Around::Sealed => Some(log.read(before)?),
    };
    let evidence = Evidence {
        told,
        sightings: sinks.close(),
        log,
    };
    let findings = judge::judge(&plan, &evidence);
    let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    let report = Report::new(subject.to_string(), findings, ms);
    report
        .print(arguments.output)
        .map_err(|error| Failure::because("cannot print", &error))?;
    Ok(ExitCode::from(u8::from(!report.holds)))
}

/// What is verified.
#[derive(Debug)]
enum Subject {
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

/// How long a prober may take for all it does.
const LIMIT: Duration = Duration::from_secs(9);
/// What the policy of the sandbox under test lets through on purpose.
const OPEN: &str = "the policy opens every port of this machine";
/// How long a sandbox may take to be made, on an engine that has much to do.
const START: Duration = Duration::from_secs(60);

impl Subject {
    fn of(arguments: &cli::Verify, given: &[OsString]) -> Result<Self, Failure> {
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

    /// Where its audit log is, which is at `path` if it is made now.
    fn log(&self, path: PathBuf) -> Result<Records, Failure> {
        Ok(match self {
            Self::New { .. } | Self::Unconfined => Records::File(path),
            Self::Running(name) => match control::ask(name, &Request::Status)? {
                Some(Answer::Status(status)) => Records::File(status.log.into()),
                _ => return Err(Failure::new(format!("the sandbox {name} has ended"))),
            },
            Self::Containers(sandbox) => Records::Engine(sandbox.clone()),
        })
    }

    /// Whether it is made for the prober, and opened for it.
    fn is_new(&self) -> bool {
        matches!(self, Self::New { .. })
    }

    /// The address at which the gateway reaches the name server: it may be in a network of its own.
    fn resolver(&self, machine: &[IpAddr]) -> IpAddr {
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
    fn probe(&self, plan: &Plan, log: &Path) -> Result<Told, Failure> {
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
                return run(prober);
            }
            Self::Unconfined => command.args(plan.without_gateway(Around::Nothing)),
        };
        let told = run(command);
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

/// Runs a prober's process to its end, or to the limit.
fn run(mut command: Command) -> Result<Told, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::because("cannot start the prober", error);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let (tell, told) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
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
                let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                let (Ok(()) | Err(_)) = pid.map_or(Ok(()), |pid| kill_process(pid, Signal::TERM));
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
    fn read(lines: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut lines = lines.into_iter();
        let first = lines.next().unwrap_or_default();
        let around = serde_json::from_str(&first)
            .map_err(|_| Failure::new(format!("the prober says what it should not: {first:?}")))?;
        let (mut attempts, mut complete) = (Vec::new(), false);
        for line in lines {
            match serde_json::from_str(&line) {
                Ok(attempt) => attempts.push(attempt),
                Err(_) => complete = line.is_empty(),
            }
        }
        Ok(Self {
            around,
            attempts,
            complete,
        })
    }
}

/// Where the audit log of a sandbox is.
enum Records {
    File(PathBuf),
    Engine(Box<Sandbox>),
}

impl Records {
    /// The file, where it is one.
    fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Engine(_) => Path::new(""),
        }
    }

    /// How many bytes there are by now.
    fn length(&self) -> Result<usize, Failure> {
        match self {
            Self::File(path) if !path.exists() => Ok(0),
            _ => Ok(self.read(0)?.len()),
        }
    }

    /// What came after so many bytes.
    fn read(&self, start: usize) -> Result<Vec<u8>, Failure> {
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
struct Told {
    around: Around,
    attempts: Vec<Attempt>,
    /// Whether it came to its end.
    complete: bool,
}

/// A directory of ours, removed with what is in it.
#[derive(Debug)]
struct Place(PathBuf);

impl Place {
    fn make() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("egret-verify-{}", nonce()?));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                Failure::because(format_args!("cannot make {}", path.display()), &error)
            })?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left in a directory for temporary files is removed with the rest of it some time.
        let (Ok(()) | Err(_)) = std::fs::remove_dir_all(&self.0);
    }
}

/// Twelve hexadecimal digits that nobody can know.
fn nonce() -> Result<String, Failure> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|error| Failure::because("cannot read /dev/urandom", &error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Some of this machine's addresses, those that others can reach first.
fn machine() -> Result<Vec<IpAddr>, Failure> {
    let mut all = egret_sandbox::addresses()
        .map_err(|error| Failure::because("cannot list this machine's addresses", &error))?;
    // Link-local ones mean something only with an interface.
    all.retain(
        |address| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()),
    );
    all.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    const MOST_OF_A_FAMILY: usize = 3;
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = all.into_iter().partition(IpAddr::is_ipv4);
    let chosen = [v4, v6].map(|family| family.into_iter().take(MOST_OF_A_FAMILY));
    let mut chosen: Vec<IpAddr> = chosen.into_iter().flatten().collect();
    chosen.sort_by_key(IpAddr::is_loopback);
    Ok(chosen)
}

fn own_files(arguments: &cli::Verify, log: &Path) -> Vec<PathBuf> {
    let policy = arguments.options.policy.as_deref().map(PathBuf::from);
    let executable = std::env::current_exe().ok();
    let logs = settings::log_directory()
        .ok()
        .map(|directory| directory.join("x"));
    [Some(log.to_owned()), policy, executable, logs]
        .into_iter()
        .flatten()
        .collect()
}

// ---- the prober's side of `egret run` ----

impl Plan {
    /// As an argument.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|_| "this is for `egret verify` to write".into())
    }

    /// Opens to the prober what it needs to be opened.
    pub(crate) fn open(&self, options: &mut cli::Options) {
        let Some(Granted {
            port,
            zone,
            resolver,
        }) = &self.granted
        else {
            return;
        };
        let ports: Vec<String> = self.ports.values().map(u16::to_string).collect();
        options.allow.push(format!("*.{zone}:{}", ports.join(",")));
        options.resolver = vec![resolver.to_string()];
        let given = options.allow_docker_gateway.take();
        options.allow_docker_gateway = match given.as_ref().map(HostGatewayPorts::ports) {
            Some(None) => given,
            Some(Some(ports)) => HostGatewayPorts::new([ports, &[*port]].concat()).ok(),
            None => HostGatewayPorts::new(vec![*port]).ok(),
        };
    }

    /// The prober's arguments where there is no gateway, and nothing that it could be granted.
    pub(crate) fn without_gateway(&self, around: Around) -> Vec<String> {
        let plan = Self {
            granted: None,
            around,
            ..self.clone()
        };
        plan.words()
    }

    fn words(&self) -> Vec<String> {
        let text = serde_json::to_string(self).unwrap_or_else(|error| unreachable!("{error}"));
        vec!["probe".into(), text]
    }

    /// The prober's arguments, in a sandbox where the gateway has this port.
    pub(crate) fn arguments(&self, proxy: u16, opened: Opened) -> Vec<String> {
        let mut plan = self.clone();
        plan.proxy = Some(proxy);
        plan.around = Around::Sealed;
        plan.names_are_open = opened.names;
        plan.host_is_open = opened.machine;
        plan.words()
    }

    /// The same, in a new sandbox under this policy, which may refuse what is meant for the prober.
    pub(crate) fn arguments_under(&self, policy: &Policy, proxy: u16) -> Vec<String> {
        let matcher = policy.compile();
        let hosts = HostAddresses::new([]).with_gateway(vec![Ipv4Addr::LOCALHOST.into()]);
        let is_allowed = |granted: &Granted| {
            Destination::parse("host.docker.internal", &granted.port.to_string())
                .is_ok_and(|machine| matcher.decide(&machine, None, &hosts).is_ok())
        };
        let plan = Self {
            granted: self.granted.clone().filter(is_allowed),
            ..self.clone()
        };
        plan.arguments(proxy, Opened::by(policy))
    }
}

/// What a policy opens on purpose, so that a prober does not take it for a leak. This is what it says, not what is made of
/// it: how it decides is under test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// Every public name.
    names: bool,
    /// Every port of the machine.
    machine: bool,
}

impl Opened {
    pub(crate) fn by(policy: &Policy) -> Self {
        Self {
            names: policy.opens_by_default(),
            machine: policy.opens_every_host_port(),
        }
    }
}
