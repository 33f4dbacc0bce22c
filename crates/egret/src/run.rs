//! `egret run`: from arguments to an exit status. [`run`] is the whole story.

use crate::cli;
use crate::control::{self, Answer, Claim, Request, Status};
use crate::environment::{self, environment};
use crate::failure::Failure;
use crate::files::{self, files};
use crate::summary::{self, Ending};
use crate::{logs, settings};
use egret_gateway::{Config, Doors, Gateway, Limits, ResolverConfig, UpstreamProxy, audit};
use egret_policy::{HostAddresses, HostGatewayPorts, Matcher, Policy, SandboxId};
use egret_sandbox::{Ended, Killer, Notice, Signals, Spec, Stray, addresses, die_by, prepare};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit};
use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Runs a program with one way out, and ends as it ends.
pub(crate) fn run(arguments: Box<cli::Run>) -> Result<ExitCode, Failure> {
    // Before any thread, so that every thread leaves signals to this one.
    let signals =
        Signals::block().map_err(|error| Failure::because("cannot receive signals", &error))?;
    let Plan {
        name,
        claim,
        spec,
        gate,
        summary,
        output,
    } = Plan::resolve(*arguments)?;

    let wanted = spec.directory.join(&spec.program);
    let (doors, sealed) = prepare(spec, &signals)?.split();
    let gate = Gate::open(name, claim, gate, doors)?;
    let ended = sealed.release().and_then(|running| {
        gate.set_killer(running.killer().ok());
        running.wait(&signals, |notice| gate.notice(notice))
    });
    let ending = gate.close();

    if summary {
        // The program has ended; that its summary cannot be printed does not change how.
        let (Ok(()) | Err(_)) = summary::print(&ending, output);
    }
    Ok(exit_as(ended.map_err(|error| explained(error, &wanted))?))
}

/// A program that is not found is worth a word more: it may be there outside.
fn explained(error: egret_sandbox::Error, program: &Path) -> Failure {
    let not_found = matches!(error, egret_sandbox::Error::Program { errno, .. } if errno == Errno::NOENT.raw_os_error());
    let failure = Failure::from(error);
    if !not_found {
        return failure;
    }
    match program.canonicalize() {
        Ok(outside) if !outside.is_dir() => failure.and(format_args!(
            "it is there outside, but it, or what it is run by, is not in the sandbox; add --read {}",
            outside.display()
        )),
        _ => failure.and("no directory in PATH has it, as the sandbox sees them"),
    }
}

fn exit_as(ended: Ended) -> ExitCode {
    match ended {
        Ended::Status(status) => ExitCode::from(status.to_le_bytes()[0]),
        // A caller can tell a signal from a status, so we end by one, too; the status is for a signal that does not end us.
        Ended::Signal(signal) => {
            let Err(_survived) = die_by(signal);
            ExitCode::from(128u8.saturating_add(signal.to_le_bytes()[0]))
        }
    }
}

/// Everything that a run needs, found and checked. Of its parts only the log file and the name exist already.
struct Plan {
    name: SandboxId,
    claim: Claim,
    spec: Spec,
    gate: GatePlan,
    summary: bool,
    output: cli::Output,
}

/// What the gateway is made of.
struct GatePlan {
    policy: PolicySource,
    matcher: Matcher,
    log: audit::Log,
    log_path: PathBuf,
    resolver: ResolverConfig,
    upstream_proxy: Option<UpstreamProxy>,
    program: String,
    /// Whether the policy's file lies where the program can write.
    policy_is_exposed: bool,
}

impl Plan {
    fn resolve(arguments: cli::Run) -> Result<Self, Failure> {
        let mut command = arguments.command.into_iter();
        let program = command
            .next()
            .ok_or_else(|| Failure::new("there is no command to run"))?;
        let home = settings::home();
        let directory = directory(arguments.workdir.as_deref())?;

        let source = PolicySource {
            file: arguments.policy.as_deref().map(existing_file).transpose()?,
            allow: arguments.allow,
            deny: arguments.deny,
            host_gateway: arguments.allow_docker_gateway,
        };
        let policy = source.load()?;
        let resolver = settings::resolver(&arguments.resolver)?;
        let upstream_proxy = settings::upstream_proxy(arguments.upstream_proxy.as_deref())?;
        let outside = std::env::vars_os().collect();
        let wishes = environment::Wishes {
            set: &arguments.env,
            files: &arguments.env_file,
            proxy: !arguments.no_proxy_env,
        };
        let environment = environment(&outside, &wishes)?;
        for name in wishes
            .set
            .iter()
            .filter(|wish| !wish.contains('=') && std::env::var_os(wish).is_none())
        {
            eprintln!("egret: {name} is not set, so there is nothing to pass on");
        }

        let name = match arguments.name {
            Some(name) => name,
            None => settings::made_up_name(Path::new(&program))?,
        };
        let claim = control::claim(&name)?;
        let log_path = match arguments.log_file {
            Some(path) => path,
            None => settings::log_directory()?
                .join(logs::file_name(name.as_str(), jiff::Timestamp::now())),
        };
        let (log, log_path) = open_log(&log_path)?;
        let files = files(&files::Wishes {
            directory: &directory,
            home: home.as_deref(),
            policy: policy.filesystem(),
            read: &arguments.read,
            write: &arguments.write,
            hide: &arguments.hide,
            policy_file: source.file.as_deref(),
            policy_named: arguments.policy.as_deref(),
            log_file: &log_path,
        })?;
        if !files::may_write(&directory, &files.marks) && std::io::stderr().is_terminal() {
            let shown = directory.display();
            eprintln!(
                "egret: {shown} is read-only in the sandbox; start in a project's directory, or add --write for what is to change"
            );
        }
        let policy_is_exposed = source
            .file
            .as_deref()
            .is_some_and(|file| files::is_writable(file, &files.marks));
        Ok(Self {
            name,
            claim,
            gate: GatePlan {
                matcher: policy.compile(),
                policy: source,
                log,
                log_path,
                resolver,
                upstream_proxy,
                program: program.to_string_lossy().into_owned(),
                policy_is_exposed,
            },
            spec: Spec {
                program,
                arguments: command.collect(),
                environment,
                directory,
                files,
                allow_user_namespaces: arguments.allow_user_namespaces,
            },
            summary: arguments.summary
                || arguments.output == cli::Output::Json
                || std::io::stderr().is_terminal(),
            output: arguments.output,
        })
    }
}

/// The directory that the program starts in.
fn directory(chosen: Option<&Path>) -> Result<PathBuf, Failure> {
    let resolved = match chosen {
        Some(chosen) => chosen.canonicalize(),
        None => std::env::current_dir().and_then(|current| current.canonicalize()),
    };
    let shown = chosen.unwrap_or(Path::new(".")).display();
    let directory = resolved
        .map_err(|error| Failure::because(format_args!("working directory {shown}"), &error))?;
    if !directory.is_dir() {
        return Err(Failure::new(format!(
            "working directory {shown}: not a directory"
        )));
    }
    Ok(directory)
}

fn existing_file(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| {
        Failure::because(
            format_args!("cannot read the policy {}", path.display()),
            &error,
        )
    })
}

/// Opens the audit log, readable for this user only.
fn open_log(path: &Path) -> Result<(audit::Log, PathBuf), Failure> {
    let open = || {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        Ok((audit::Log::from_file(file)?, path.canonicalize()?))
    };
    open().map_err(|error: std::io::Error| {
        Failure::because(
            format_args!("cannot open the audit log {}", path.display()),
            &error,
        )
    })
}

/// Where a policy comes from: a file, if there is one, and flags, which go on top of whatever file is loaded.
#[derive(Debug)]
struct PolicySource {
    file: Option<PathBuf>,
    allow: Vec<String>,
    deny: Vec<String>,
    host_gateway: Option<HostGatewayPorts>,
}

impl PolicySource {
    /// Reads the policy from its file.
    fn load(&self) -> Result<Policy, Failure> {
        match &self.file {
            Some(file) => {
                let text = std::fs::read(file).map_err(|error| {
                    Failure::because(
                        format_args!("cannot read the policy {}", file.display()),
                        &error,
                    )
                })?;
                self.with_file(&file.display().to_string(), &text)
            }
            None => self.with_flags(Policy::deny_all()),
        }
    }

    /// The policy that `text` and the flags make together.
    fn with_file(&self, name: &str, text: &[u8]) -> Result<Policy, Failure> {
        match Policy::parse(name, text) {
            Ok(parsed) => self.with_flags(parsed.policy),
            Err(errors) => Err(Failure::new(format!(
                "the policy {name} cannot be used\n{errors}"
            ))),
        }
    }

    fn with_flags(&self, mut policy: Policy) -> Result<Policy, Failure> {
        for text in &self.allow {
            policy
                .add_allow_flag(text)
                .map_err(|error| Failure::new(error.to_string()))?;
        }
        for text in &self.deny {
            policy
                .add_deny_flag(text)
                .map_err(|error| Failure::new(error.to_string()))?;
        }
        if let Some(ports) = self.host_gateway.clone() {
            policy.grant_host_gateway(ports);
        }
        Ok(policy)
    }
}

/// The gateway at work, in a thread of its own.
struct Gate {
    shared: Arc<Shared>,
    log_path: PathBuf,
    policy_is_exposed: bool,
    close: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What the gateway's thread and the one that waits for the program both use.
struct Shared {
    gateway: Arc<Gateway>,
    name: SandboxId,
    log: audit::Log,
    policy: PolicySource,
    /// The last thing to use on a sandbox, once it runs.
    killer: Mutex<Option<Killer>>,
}

impl Gate {
    fn open(
        name: SandboxId,
        claim: Claim,
        plan: GatePlan,
        doors: egret_sandbox::Doors,
    ) -> Result<Self, Failure> {
        let GatePlan {
            policy,
            matcher,
            log,
            log_path,
            resolver,
            upstream_proxy,
            program,
            policy_is_exposed,
        } = plan;
        let gateway = Gateway::new(Config {
            sandbox: name.clone(),
            matcher: Arc::new(matcher),
            hosts: hosts().map_err(|error| {
                Failure::because("cannot list this machine's addresses", &error)
            })?,
            resolver,
            upstream_proxy,
            limits: limits(),
            audit: log.clone(),
        })
        .map_err(|error| Failure::because("cannot start the gateway", &error))?;
        let recorded =
            log.lifecycle(&name, "started", &program)
                .and_then(|()| match &policy.file {
                    Some(file) => log.policy(&name, "loaded", &file.display().to_string()),
                    None => Ok(()),
                });
        recorded.map_err(|error| {
            Failure::because(
                format_args!("cannot write the audit log {}", log_path.display()),
                &error,
            )
        })?;

        let status = Status {
            name: name.as_str().to_owned(),
            pid: getpid().as_raw_nonzero().get(),
            started: jiff::Timestamp::now().to_string(),
            program,
            policy: policy.file.as_ref().map(|file| file.display().to_string()),
            log: log_path.display().to_string(),
        };
        let shared = Arc::new(Shared {
            gateway,
            name,
            log,
            policy,
            killer: Mutex::new(None),
        });
        let (close, closed) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::because("cannot start the gateway", &error))?;
        let thread = std::thread::Builder::new()
            .name("gateway".into())
            .spawn({
                let shared = shared.clone();
                move || runtime.block_on(serve(&shared, claim, status, doors, closed))
            })
            .map_err(|error| Failure::because("cannot start the gateway", &error))?;
        Ok(Self {
            shared,
            log_path,
            policy_is_exposed,
            close,
            thread,
        })
    }

    fn set_killer(&self, killer: Option<Killer>) {
        *self
            .shared
            .killer
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = killer;
    }

    fn notice(&self, notice: Notice) {
        match notice {
            Notice::Reload => self.reload_from_file(),
            Notice::Refused(Stray {
                protocol,
                address,
                port,
            }) => {
                self.shared.gateway.refused_packet(protocol, address, port);
            }
        }
    }

    /// Loads the policy's file again, as SIGHUP asks. A file that is broken changes nothing.
    ///
    /// A file that lies where the program can write is not read again: what protects it is a mount, and one that ends
    /// when somebody outside puts a new file in its place.
    fn reload_from_file(&self) {
        let Some(file) = &self.shared.policy.file else {
            return;
        };
        let loaded = if self.policy_is_exposed {
            Err(Failure::new(format!(
                "{} lies where the program can write, and is not read again; use `egret policy set {} FILE`",
                file.display(),
                self.shared.name
            )))
        } else {
            self.shared.policy.load()
        };
        if let Err(failure) = self
            .shared
            .replace_policy(loaded, &file.display().to_string())
        {
            eprintln!("egret: {failure}\negret: the policy stays as it was");
        }
    }

    /// Closes the gateway once everything is on record.
    fn close(self) -> Ending {
        // If the thread is gone it needs no telling.
        let (Ok(()) | Err(())) = self.close.send(());
        let (Ok(()) | Err(_)) = self.thread.join();
        // The program has ended whether or not this can still be written.
        let (Ok(()) | Err(_)) = self.shared.log.lifecycle(&self.shared.name, "ended", "");
        Ending {
            refusals: self.shared.gateway.refusals(),
            failures: self.shared.gateway.failures(),
            log: self.log_path.display().to_string(),
        }
    }
}

impl Shared {
    fn replace_policy(&self, loaded: Result<Policy, Failure>, source: &str) -> Result<(), Failure> {
        match loaded {
            Ok(policy) => {
                self.gateway.set_policy(Arc::new(policy.compile()), source);
                Ok(())
            }
            Err(failure) => {
                self.log
                    .policy(&self.name, "rejected", &failure.to_string())
                    .map_err(|error| Failure::because("cannot write the audit log", &error))?;
                Err(failure)
            }
        }
    }

    fn answer(&self, request: Request, status: &Status) -> Answer {
        match request {
            Request::Status => Answer::Status(status.clone()),
            Request::SetPolicy { file, text } => {
                let loaded = self.policy.with_file(&file, text.as_bytes());
                match self.replace_policy(loaded, &file) {
                    Ok(()) => Answer::Done,
                    Err(failure) => Answer::Refused(failure.to_string()),
                }
            }
            Request::End => match &*self.killer.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(killer) => match killer.kill() {
                    Ok(()) => Answer::Done,
                    Err(error) => Answer::Refused(error.to_string()),
                },
                None => Answer::Refused("the program has not started yet".into()),
            },
        }
    }
}

/// The gateway's thread: the gateway, the control socket, and a look at the machine's addresses now and then.
async fn serve(
    shared: &Shared,
    claim: Claim,
    status: Status,
    doors: egret_sandbox::Doors,
    closed: tokio::sync::oneshot::Receiver<()>,
) {
    let egret_sandbox::Doors {
        captured,
        proxy,
        dns_tcp,
        dns_udp,
    } = doors;
    let doors = Doors {
        captured,
        proxy,
        dns_tcp,
        dns_udp,
    };
    let mut gateway = pin!(shared.gateway.clone().serve(doors));
    let failed = tokio::select! {
        // Ends before it is told to only if its sockets cannot be used. They are closed then.
        Err(error) = &mut gateway => {
            eprintln!("egret: the gateway has failed, and the sandbox is refused everything: {error}");
            return shared.gateway.shutdown().await;
        }
        ended = claim.serve(async |request| shared.answer(request, &status)) => ended.err(),
        () = watch_addresses(&shared.gateway) => None,
        _ = closed => None,
    };
    if let Some(error) = failed {
        eprintln!("egret: the control socket has failed, and with it the gateway: {error}");
    }
    // Shut while it is still served, so that what is open gets to its end and on record.
    let (Ok(()) | Err(_), ()) = tokio::join!(gateway, shared.gateway.shutdown());
}

const ADDRESSES_CHANGE_SELDOM: Duration = Duration::from_secs(2);

/// An address that this machine gets while a sandbox runs is as much the host as those it had.
async fn watch_addresses(gateway: &Gateway) {
    let mut known = addresses().unwrap_or_default();
    loop {
        tokio::time::sleep(ADDRESSES_CHANGE_SELDOM).await;
        // If they cannot be listed now, those that were known stay.
        if let Ok(now) = addresses()
            && now != known
        {
            gateway.set_hosts(host_addresses(now.clone()));
            known = now;
        }
    }
}

fn hosts() -> std::io::Result<HostAddresses> {
    addresses().map(host_addresses)
}

/// The host of a process sandbox is this machine. Its gateway names, where granted, mean this machine's loopback.
fn host_addresses(own: Vec<IpAddr>) -> HostAddresses {
    HostAddresses::new(own)
        .with_gateway(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

/// As many connections as there are descriptors for. The program has the limit that it came with: it was forked before.
fn limits() -> Limits {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If it cannot be raised, what there is has to do.
    let (Ok(()) | Err(_)) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    let defaults = Limits::default();
    // Two sockets for each, and for some of them pipes to splice through.
    let affordable = usize::try_from(descriptors.saturating_sub(64) / 3).unwrap_or(usize::MAX);
    Limits {
        connections: defaults.connections.min(affordable),
        ..defaults
    }
}
