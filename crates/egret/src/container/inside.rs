//! What Egret's two containers run: `egret agent` and `egret gateway`, and `egret ask`, by which the engine's `exec` reaches
//! the gateway.

use super::config::HostAccess;
use super::hosts::routers;
use super::spec::{CONTROL, FIRST_INBOUND, GATEWAY_ID};
use crate::control::{self, Answer, Request, Status};
use crate::failure::Failure;
use crate::gate::{Shared, give_memory_back, handed_over, limits};
use crate::project::Project;
use crate::settings;
use crate::source::{Flags, Loaded, Origin, PolicySource};
use crate::summary::Ending;
use crate::verify::Opened;
use egret_gateway::audit::Basis;
use egret_gateway::{
    Callers, Config, Gateway, HostGateway, InboundHosts, Inside, Protocol, Published, audit,
};
use egret_policy::{Host, HostAddresses, SandboxId};
use egret_sandbox::agent::{self, Link, Orders};
use egret_sandbox::{Ports, Strays};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// `egret agent CAPTURE,PROXY,DNS`
pub(crate) fn agent(arguments: &[String]) -> Result<ExitCode, Failure> {
    let [ports] = arguments else {
        return Err(not_for_people("agent"));
    };
    let ports = self::ports(ports).ok_or_else(|| not_for_people("agent"))?;
    agent::run(&Orders {
        control: socket(),
        peer: GATEWAY_ID,
        ports,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads `CAPTURE,PROXY,DNS`.
pub(crate) fn ports(text: &str) -> Option<Ports> {
    let ports: Vec<u16> = text
        .split(',')
        .filter_map(|port| port.parse().ok())
        .collect();
    match ports.as_slice() {
        &[capture, proxy, dns] => Some(Ports {
            capture,
            proxy,
            dns,
        }),
        _ => None,
    }
}

fn not_for_people(command: &str) -> Failure {
    Failure::new(format!(
        "`egret {command}` is how egret starts itself in a container of its own"
    ))
}

fn socket() -> PathBuf {
    Path::new(CONTROL).join("agent.sock")
}

/// Where the gateway takes requests: in the volume, and not by a name in its network, which other containers may be let into.
fn control_socket() -> PathBuf {
    Path::new(CONTROL).join("control.sock")
}

/// What a gateway in a container is told, on its standard input, as one line.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) sandbox: SandboxId,
    /// The workload's image, for the record.
    pub(crate) image: String,
    /// Where the policy is from, and its text.
    pub(crate) policy: Option<(Origin, String)>,
    /// What takes away from whatever policy there is.
    #[serde(default)]
    pub(crate) projects: Vec<Project>,
    pub(crate) allow: Vec<String>,
    pub(crate) deny: Vec<String>,
    #[serde(default)]
    pub(crate) allow_docker_gateway: HostAccess,
    /// All addresses that are the host, as far as they were known when the sandbox was made.
    pub(crate) hosts: Vec<IpAddr>,
    /// The name that the engine gave the host in this container, if it was to give it one.
    pub(crate) host_name: Option<String>,
    pub(crate) resolver: Vec<String>,
    pub(crate) upstream_proxy: Option<String>,
    /// Whether everything public is open, to learn from what is reached.
    #[serde(default)]
    pub(crate) learning: bool,
    /// For how many seconds what is refused waits for somebody who is asked.
    pub(crate) ask: Option<u64>,
    /// The sandbox's ports that arrive at [`FIRST_INBOUND`] and after.
    pub(crate) published: Vec<Inbound>,
}

/// A published port, as the gateway has to know it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inbound {
    /// The sandbox's port.
    pub(crate) port: u16,
    /// Whether only the host may come in.
    pub(crate) from_host: bool,
    /// Whether nothing but HTTP is spoken.
    pub(crate) http: bool,
}

/// `egret gateway`
pub(crate) fn gateway() -> Result<ExitCode, Failure> {
    let kept = Path::new(CONTROL).join("gateway.json");
    let settings = Settings::load(&kept)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let outcome = runtime.block_on(serve(settings, kept));
    // A thread that waits for the agent, or asks it, is not waited for.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

impl Settings {
    /// What was kept from an earlier start of this container; at the first one, what comes in.
    fn load(kept: &Path) -> Result<Self, Failure> {
        let unusable = |error: &dyn std::error::Error| {
            Failure::because("the gateway's configuration cannot be used", error)
        };
        let text = match std::fs::read_to_string(kept) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut line = String::new();
                io::stdin()
                    .lock()
                    .read_line(&mut line)
                    .map_err(|error| unusable(&error))?;
                if line.is_empty() {
                    return Err(not_for_people("gateway"));
                }
                line
            }
            Err(error) => return Err(unusable(&error)),
        };
        let settings: Self = serde_json::from_str(&text).map_err(|error| unusable(&error))?;
        settings.keep(kept).map_err(|error| unusable(&error))?;
        Ok(settings)
    }

    /// Keeps it for the next start, whole or not at all.
    fn keep(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(new, path)
    }

    fn policy_source(&self) -> PolicySource {
        let mut source = PolicySource::new(
            self.policy.as_ref().map(|(origin, _)| origin.clone()),
            self.allow.clone(),
            self.deny.clone(),
            match &self.allow_docker_gateway {
                HostAccess::Off => None,
                HostAccess::On(ports) => Some(ports.clone()),
            },
        );
        source.projects.clone_from(&self.projects);
        source.learning = self.learning;
        source
    }
}

async fn serve(settings: Settings, kept: PathBuf) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
    let log = audit::Log::from_file(stdout().map_err(|error| failed(&error))?)
        .map_err(|error| failed(&error))?;
    let source = settings.policy_source();
    let text = settings.policy.as_ref().map(|(_, text)| text.as_bytes());
    let Loaded { policy, basis } = source.load_from(text)?;
    let mut basis = Some(basis);

    // The host's own name for itself is the engine's doing, in a file that nobody in the sandbox can reach.
    let host_name: Option<Host> = settings
        .host_name
        .as_deref()
        .and_then(|name| name.parse().ok());
    let gateways = match &settings.host_name {
        Some(name) => {
            hosts_file(name).map_err(|error| Failure::because("cannot read /etc/hosts", &error))?
        }
        None => Vec::new(),
    };
    let routers = routers().map_err(|error| Failure::because("cannot read the routes", &error))?;
    let host_addresses = |hosts: &[IpAddr]| {
        let all = hosts.iter().chain(&routers).copied();
        HostAddresses::new(all).with_gateway(gateways.clone())
    };
    let link: Arc<Mutex<Option<Arc<Link>>>> = Arc::default();
    let gateway = Gateway::new(Config {
        sandbox: settings.sandbox.clone(),
        matcher: Arc::new(policy.compile()),
        hosts: host_addresses(&settings.hosts),
        host_gateway: host_name.map_or(HostGateway::Known, HostGateway::Resolved),
        identify: None,
        resolver: settings::resolver(&settings.resolver)?,
        inside: Some(Inside::new({
            let link = link.clone();
            move |port| {
                let link = link.lock().unwrap_or_else(PoisonError::into_inner).clone();
                link.ok_or(io::ErrorKind::NotConnected)?.reach(port)
            }
        })),
        inbound: InboundHosts::new(&settings.sandbox, policy.inbound().to_vec()),
        upstream_proxy: settings::upstream_proxy(settings.upstream_proxy.as_deref())?,
        ask: settings.ask.map(Duration::from_secs),
        limits: limits(),
        audit: log.clone(),
    })
    .map_err(|error| failed(&error))?;
    let published = listeners(&settings.published)
        .map_err(|error| Failure::because("cannot listen for published ports", &error))?;
    let claim = control::claim_at(&control_socket())
        .map_err(|error| Failure::because("cannot take requests", &error))?;
    let status = Status {
        name: settings.sandbox.to_string(),
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        started: jiff::Timestamp::now().to_string(),
        program: settings.image.clone(),
        policy: None,
        origin: None,
        allow: Vec::new(),
        deny: Vec::new(),
        learning: settings.learning,
        log: String::new(),
    };
    let shared = Shared {
        gateway: gateway.clone(),
        name: settings.sandbox.clone(),
        log,
        policy: source,
        replacing: Mutex::default(),
        killer: Mutex::new(None),
        opened: Mutex::new(Opened::by(&policy)),
        prober: Mutex::new(None),
    };
    let settings = Mutex::new(settings);
    let answer = async |request: Request| {
        let mut settings = settings.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |settings: &Settings| match settings.keep(&kept) {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Refused(format!(
                "it is in force, but could not be kept for a restart: {error}"
            )),
        };
        match request {
            Request::SetHosts { hosts } => {
                settings.hosts = hosts;
                gateway.set_hosts(host_addresses(&settings.hosts));
                kept(&settings)
            }
            Request::SetPolicy { origin, text } => {
                let new = (origin.clone(), text.clone());
                match shared.answer(Request::SetPolicy { origin, text }, &status) {
                    Answer::Done => {
                        settings.policy = Some(new);
                        kept(&settings)
                    }
                    refused => refused,
                }
            }
            Request::Amend { allow, deny } => {
                let request = Request::Amend { allow, deny };
                match shared.answer(request, &status) {
                    Answer::Done => {
                        let Flags { allow, deny } = shared.policy.flags();
                        (settings.allow, settings.deny) = (allow, deny);
                        kept(&settings)
                    }
                    refused => refused,
                }
            }
            request => shared.answer(request, &status),
        }
    };
    let ended = tokio::select! {
        failure = carry(&shared, &mut basis, &link, &published) => Err(failure),
        never = give_memory_back(&gateway) => match never {},
        ended = claim.serve(answer) => ended.map_err(|error| Failure::because("the control socket has failed", &error)),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    gateway.shutdown().await;
    // Whoever reads the record can do without this one.
    let (Ok(()) | Err(_)) = shared.log.lifecycle(&shared.name, "ended", "");
    let ending = Ending {
        refusals: gateway.refusals(),
        failures: gateway.failures(),
        log: String::new(),
        policy: shared.policy.origin().map(|origin| origin.to_string()),
    };
    // For whoever started this, who looks for the last line that reads so.
    say!("{}", serde_json::to_string(&ending).unwrap_or_default());
    ended
}

/// Serves the sandbox for as long as its agent is there, and again with the next one. Ends only by failing.
async fn carry(
    shared: &Shared,
    basis: &mut Option<Basis>,
    link: &Mutex<Option<Arc<Link>>>,
    published: &[(TcpListener, Inbound)],
) -> Failure {
    let mut action = "started";
    loop {
        let found = tokio::task::spawn_blocking(|| Link::connect(&socket(), PATIENCE)).await;
        let (doors, strays, found) = match found {
            Ok(Ok(found)) => found,
            // At the start somebody waits for word; later there may be an agent again at any time.
            Ok(Err(error)) if action == "started" => return error.into(),
            Ok(Err(_)) => {
                tokio::time::sleep(BREATH).await;
                continue;
            }
            Err(error) => return failed(&error),
        };
        let found = Arc::new(found);
        *link.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        let mut doors = handed_over(doors);
        match published.iter().map(again).collect() {
            Ok(published) => doors.published = published,
            Err(error) => return failed(&error),
        }
        if let Err(error) = shared.log.lifecycle(&shared.name, action, "") {
            return failed(&error);
        }
        // The first record is the one that somebody waits for.
        if let Some(basis) = basis.take() {
            shared
                .gateway
                .record_policy(&shared.policy.described(), basis);
        }
        action = "resumed";
        let gone = async {
            let ends = UnixStream::from(found.as_fd().try_clone_to_owned()?);
            ends.set_nonblocking(true)?;
            // It becomes readable at its end, and never before.
            tokio::net::UnixStream::from_std(ends)?.readable().await
        };
        let outcome = tokio::select! {
            served = shared.gateway.clone().serve(doors) => served,
            gone = gone => gone,
            error = watch(shared, strays) => Err(error),
        };
        *link.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(error) = outcome {
            return failed(&error);
        }
        // The doors are shut, and so is the sandbox, until there is an agent again. It is worth a record unless all of it is
        // being stopped, which takes this process along in a moment.
        tokio::time::sleep(BREATH).await;
        if let Err(error) = shared.log.lifecycle(&shared.name, "agent_gone", "") {
            return failed(&error);
        }
    }
}

/// Listens where the engine lets published ports arrive, each with what is known of it.
fn listeners(published: &[Inbound]) -> io::Result<Vec<(TcpListener, Inbound)>> {
    let listen = |(inbound, port): (&Inbound, u16)| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
        listener.set_nonblocking(true)?;
        Ok((listener, inbound.clone()))
    };
    published.iter().zip(FIRST_INBOUND..).map(listen).collect()
}

/// A published port for one more agent: the listener is the same for all of them.
fn again((listener, inbound): &(TcpListener, Inbound)) -> io::Result<Published> {
    Ok(Published {
        listener: listener.try_clone()?,
        port: inbound.port,
        from: if inbound.from_host {
            Callers::ThisHost
        } else {
            Callers::Anyone
        },
        speaks: if inbound.http {
            Protocol::Http
        } else {
            Protocol::Unknown
        },
    })
}

/// How long the gateway waits, at its start, for an agent.
const PATIENCE: Duration = Duration::from_secs(20);
const BREATH: Duration = Duration::from_millis(100);

/// Puts refused packets on record. Ends only by failing.
async fn watch(shared: &Shared, strays: Option<Strays>) -> io::Error {
    let Some(strays) = strays else {
        return std::future::pending().await;
    };
    let follow = async {
        // It is a netlink socket. What is made of it here only waits for it, and that is the same for every socket.
        let waits =
            tokio::net::UnixDatagram::from_std(strays.as_fd().try_clone_to_owned()?.into())?;
        loop {
            waits.readable().await?;
            let drained = waits.try_io(tokio::io::Interest::READABLE, || match strays.drain() {
                none if none.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
                some => Ok(some),
            });
            for stray in drained.unwrap_or_default() {
                shared.refused(stray);
            }
            tokio::task::yield_now().await;
        }
    };
    let ended: io::Result<std::convert::Infallible> = follow.await;
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Standard output, for the audit log alone.
fn stdout() -> io::Result<std::fs::File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// The addresses that the hosts file has for a name.
fn hosts_file(name: &str) -> io::Result<Vec<IpAddr>> {
    let text = std::fs::read_to_string("/etc/hosts")?;
    Ok(addresses_of(name, &text))
}

pub(crate) fn addresses_of(name: &str, hosts: &str) -> Vec<IpAddr> {
    hosts
        .lines()
        .map(|line| {
            line.split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
        })
        .filter_map(|mut words| Some((words.next()?.parse().ok()?, words)))
        .filter(|(_, names)| names.clone().any(|other| other.eq_ignore_ascii_case(name)))
        .map(|(address, _)| address)
        .collect()
}

/// `egret ask NAME`: passes requests on standard input, a line each, to the sandbox's gateway, and prints its answers.
pub(crate) fn ask(arguments: &[String]) -> Result<ExitCode, Failure> {
    let [name] = arguments else {
        return Err(not_for_people("ask"));
    };
    let broken =
        |error: &dyn std::error::Error| Failure::because("cannot pass the request on", error);
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| broken(&error))?;
        let request: Request = serde_json::from_str(&line).map_err(|error| broken(&error))?;
        let answer = control::ask_at(&control_socket(), name, &request)?
            .ok_or_else(|| Failure::new(format!("the gateway of {name} does not run")))?;
        let text = serde_json::to_string(&answer).map_err(|error| broken(&error))?;
        writeln!(io::stdout(), "{text}").map_err(|error| broken(&error))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::because("the gateway cannot work", error)
}
