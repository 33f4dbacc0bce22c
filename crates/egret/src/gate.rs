//! The gateway at work: its thread, what it shares with the one that waits for the program, and its end.

use crate::control::{self, Answer, Claim, Request, Status};
use crate::failure::Failure;
use crate::observe::{Observing, Prepared};
use crate::source::{Flags, Loaded, Origin, PolicySource};
use crate::summary::Ending;
use crate::verify::{self, Opened, Plan};
use egret_gateway::{
    Config, Doors, Gateway, HostGateway, Identify, InboundHosts, Limits, ResolverConfig,
    UpstreamProxy, audit,
};
use egret_policy::{HostAddresses, Matcher, Program, SandboxId};
use egret_sandbox::{
    AddressChanges, Killer, Maker, Makers, Notice, PROXY_PORT, Prober, Running, Stray, addresses,
};
use rustix::pipe::PipeFlags;
use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::net::unix::pipe;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

/// What the gateway is made of.
pub(crate) struct GatePlan {
    pub(crate) policy: PolicySource,
    pub(crate) matcher: Matcher,
    pub(crate) basis: audit::Basis,
    pub(crate) opened: Opened,
    pub(crate) log: audit::Log,
    pub(crate) log_path: PathBuf,
    pub(crate) observe: Option<Prepared>,
    pub(crate) resolver: ResolverConfig,
    pub(crate) upstream_proxy: Option<UpstreamProxy>,
    pub(crate) program: String,
    /// Whether it is to be on record of every connection which program made it.
    pub(crate) record_programs: bool,
    /// How long what is refused waits for somebody who is asked, if anybody is.
    pub(crate) ask: Option<Duration>,
}

/// The gateway at work, in a thread of its own.
pub(crate) struct Gate {
    shared: Arc<Shared>,
    log_path: PathBuf,
    observing: Option<Observing>,
    close: tokio::sync::oneshot::Sender<()>,
    /// Ends with the name, which is not given up yet then.
    thread: JoinHandle<Claim>,
}

/// What the gateway's thread and the one that waits for the program both use.
pub(crate) struct Shared {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) name: SandboxId,
    pub(crate) log: audit::Log,
    pub(crate) policy: PolicySource,
    /// Held by whoever replaces the policy.
    pub(crate) replacing: Mutex<()>,
    /// The last thing to use on a sandbox, once it runs.
    pub(crate) killer: Mutex<Option<Killer>>,
    /// What the policy opens, for a prober.
    pub(crate) opened: Mutex<Opened>,
    /// What has it probed from inside, once it runs.
    pub(crate) prober: Mutex<Option<Prober>>,
}

impl Gate {
    pub(crate) fn open(
        name: SandboxId,
        claim: Claim,
        plan: GatePlan,
        doors: egret_sandbox::Doors,
        makers: Makers,
    ) -> Result<Self, Failure> {
        let GatePlan {
            policy,
            matcher,
            basis,
            opened,
            log,
            log_path,
            observe,
            resolver,
            upstream_proxy,
            program,
            record_programs,
            ask,
        } = plan;
        // First, so that no change is missed.
        let changes = AddressChanges::listen()
            .map_err(|error| Failure::because("cannot watch this machine's addresses", &error))?;
        let gateway = Gateway::new(Config {
            sandbox: name.clone(),
            matcher: Arc::new(matcher),
            hosts: hosts().map_err(|error| {
                Failure::because("cannot list this machine's addresses", &error)
            })?,
            // Whoever is asked wants to know who wants it.
            identify: Some(match record_programs || ask.is_some() {
                true => identify(makers).everybody(),
                false => identify(makers),
            }),
            resolver,
            host_gateway: HostGateway::Known,
            inside: None,
            inbound: InboundHosts::new(&name, Vec::new()),
            upstream_proxy,
            ask,
            limits: limits(),
            audit: log.clone(),
        })
        .map_err(|error| Failure::because("cannot start the gateway", &error))?;
        let observing = observe
            .map(|observe| observe.start(name.as_str(), &log, gateway.clone()))
            .transpose()
            .map_err(|error| Failure::because("cannot start telling metrics", &error))?;
        log.lifecycle(&name, "started", &program).map_err(|error| {
            Failure::because(
                format_args!("cannot write the audit log {}", log_path.display()),
                &error,
            )
        })?;
        gateway.record_policy(&policy.described(), basis);

        let status = Status {
            name: name.as_str().to_owned(),
            pid: getpid().as_raw_nonzero().get(),
            started: jiff::Timestamp::now().to_string(),
            program,
            policy: None,
            origin: None,
            allow: Vec::new(),
            deny: Vec::new(),
            learning: policy.learning,
            log: log_path.display().to_string(),
        };
        let shared = Arc::new(Shared {
            gateway,
            name,
            log,
            policy,
            replacing: Mutex::default(),
            killer: Mutex::new(None),
            opened: Mutex::new(opened),
            prober: Mutex::new(None),
        });
        if let Some(ask) = ask {
            say_who_is_asked(&shared.name, ask.as_secs());
        }
        let (close, closed) = tokio::sync::oneshot::channel();
        let runtime =
            runtime().map_err(|error| Failure::because("cannot start the gateway", &error))?;
        egret_sandbox::share_one_heap();
        let thread = std::thread::Builder::new()
            .name("gateway".into())
            .spawn({
                let shared = shared.clone();
                move || {
                    runtime.block_on(serve(&shared, &claim, status, doors, changes, closed));
                    claim
                }
            })
            .map_err(|error| Failure::because("cannot start the gateway", &error))?;
        Ok(Self {
            shared,
            log_path,
            observing,
            close,
            thread,
        })
    }

    /// What can be done with a sandbox once its program runs.
    pub(crate) fn runs(&self, running: &Running) {
        let Shared { killer, prober, .. } = &*self.shared;
        *killer.lock().unwrap_or_else(PoisonError::into_inner) = running.killer().ok();
        *prober.lock().unwrap_or_else(PoisonError::into_inner) = running.prober().ok();
    }

    pub(crate) fn notice(&self, notice: Notice) {
        match notice {
            Notice::Reload => self.reload_from_file(),
            Notice::Refused(stray) => self.shared.refused(stray),
        }
    }

    /// Loads the policy's file again, as SIGHUP asks. A file that is broken changes nothing.
    fn reload_from_file(&self) {
        let Some(origin) = self.shared.policy.origin() else {
            return;
        };
        let name = self.shared.name.as_str();
        let reload = |policy: &PolicySource| policy.reload(name);
        if let Err(failure) = self.shared.replace_policy(reload, &origin.to_string()) {
            say!("egret: {failure}\negret: the policy stays as it was");
        }
    }

    /// Closes the gateway once everything is on record.
    pub(crate) fn close(self) -> Ending {
        // If the thread is gone it needs no telling.
        let (Ok(()) | Err(())) = self.close.send(());
        // Who follows the log takes a name that is gone for the end of it.
        let name = self.thread.join();
        // The program has ended whether or not this can still be written.
        let (Ok(()) | Err(_)) = self.shared.log.lifecycle(&self.shared.name, "ended", "");
        drop(name);
        if let Some(observing) = self.observing {
            observing.finish();
        }
        Ending {
            refusals: self.shared.gateway.refusals(),
            failures: self.shared.gateway.failures(),
            log: self.log_path.display().to_string(),
            policy: self.shared.policy.origin().map(|origin| origin.to_string()),
        }
    }
}

impl Shared {
    /// Puts a packet on record that the sandbox's kernel refused.
    pub(crate) fn refused(&self, stray: Stray) {
        let Stray {
            protocol,
            address,
            port,
        } = stray;
        self.gateway.refused_packet(protocol, address, port);
    }

    /// Goes by what `load` makes of the policy from now on; `source` says on record what that is.
    fn replace_policy(
        &self,
        load: impl FnOnce(&PolicySource) -> Result<Loaded, Failure>,
        source: &str,
    ) -> Result<(), Failure> {
        // One after the other, so that none puts back what another has replaced.
        let _turn = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match load(&self.policy) {
            Ok(Loaded { policy, basis }) => {
                let matcher = Arc::new(policy.compile());
                let source = format!("{source}{}", self.policy.flags());
                self.gateway.set_policy(matcher, &source, basis);
                *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Opened::by(&policy);
                Ok(())
            }
            Err(failure) => {
                self.log
                    .rejected(&self.name, &failure.to_string())
                    .map_err(|error| Failure::because("cannot write the audit log", &error))?;
                Err(failure)
            }
        }
    }

    /// Goes by these entries, too.
    fn amend(&self, allow: &[String], deny: &[String]) -> Result<(), Failure> {
        let load = |policy: &PolicySource| policy.amend(allow, deny);
        self.replace_policy(load, &self.policy.described())
    }

    /// Has a prober run beside the program, and returns what it tells.
    async fn probe(&self, plan: &Plan) -> io::Result<String> {
        let arguments = plan.arguments(
            PROXY_PORT,
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner),
        );
        let (told, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The prober prints as programs do, and waits where it has to.
        rustix::io::ioctl_fionbio(&tell, false)?;
        match &*self.prober.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(prober) => prober.probe(arguments, &tell)?,
            None => return Err(io::Error::other("the program has not started yet")),
        }
        drop(tell);
        let mut text = String::new();
        let mut told = pipe::Receiver::from_owned_fd(told)?.take(verify::MOST);
        timeout(control::PROBING, told.read_to_string(&mut text)).await??;
        Ok(text)
    }

    /// Answers what takes its time as well.
    async fn answer_in_time(&self, request: Request, status: &Status) -> Answer {
        match request {
            Request::Probe(plan) => match self.probe(&plan).await {
                Ok(told) => Answer::Probed(told),
                Err(error) => Answer::Refused(error.to_string()),
            },
            request => self.answer(request, status),
        }
    }

    pub(crate) fn answer(&self, request: Request, status: &Status) -> Answer {
        match request {
            Request::Status => {
                let origin = self.policy.origin();
                let Flags { allow, deny } = self.policy.flags();
                Answer::Status(Status {
                    policy: origin.as_ref().map(Origin::to_string),
                    origin,
                    allow,
                    deny,
                    ..status.clone()
                })
            }
            Request::SetPolicy { origin, text } => {
                let load = |policy: &PolicySource| policy.with_text(&origin, text.as_bytes());
                match self.replace_policy(load, &origin.to_string()) {
                    Ok(()) => Answer::Done,
                    Err(failure) => Answer::Refused(failure.to_string()),
                }
            }
            Request::Activity => Answer::Activity(self.gateway.activity()),
            Request::Amend { allow, deny } => match self.amend(&allow, &deny) {
                Ok(()) => Answer::Done,
                Err(failure) => Answer::Refused(failure.to_string()),
            },
            Request::Reply { question, reply } => match self.gateway.reply(&question, reply) {
                true => Answer::Done,
                false => Answer::Refused("the question is not open any more".into()),
            },
            Request::SetHosts { .. } => {
                Answer::Refused("this machine's addresses are seen from here".into())
            }
            Request::Probe(_) => Answer::Refused("a prober is a container of its own there".into()),
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

/// Says at the start where questions are answered: they are not put to the program's own terminal.
pub(crate) fn say_who_is_asked(name: &SandboxId, seconds: u64) {
    say!(
        "egret: what is refused, and you could allow, waits {seconds} s for your answer: `egret watch {name}`, or `egret answer {name}`, in another terminal"
    );
}

/// What the gateway's thread runs on.
fn runtime() -> std::io::Result<Runtime> {
    // It would panic if it came to have no descriptor for what it needs to hear of signals, so these are tried first.
    let spare = [(); 5].map(|()| rustix::io::dup(rustix::stdio::stderr()));
    spare.into_iter().collect::<Result<Vec<_>, _>>()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// The gateway's thread: the gateway, the control socket, and an eye on the machine's addresses.
async fn serve(
    shared: &Shared,
    claim: &Claim,
    status: Status,
    doors: egret_sandbox::Doors,
    changes: AddressChanges,
    closed: tokio::sync::oneshot::Receiver<()>,
) {
    let mut gateway = pin!(shared.gateway.clone().serve(handed_over(doors)));
    let failed = tokio::select! {
        // Ends before it is told to only if its sockets cannot be used. They are closed then.
        Err(error) = &mut gateway => {
            say!("egret: the gateway has failed, and the sandbox is refused everything: {error}");
            return shared.gateway.shutdown().await;
        }
        ended = claim.serve(async |request| shared.answer_in_time(request, &status).await) => ended.err(),
        error = watch_addresses(&shared.gateway, changes) => {
            say!("egret: this machine's addresses cannot be watched, and with that the gateway ends: {error}");
            None
        }
        never = give_memory_back(&shared.gateway) => match never {},
        _ = closed => None,
    };
    if let Some(error) = failed {
        say!("egret: the control socket has failed, and with it the gateway: {error}");
    }
    // Shut while it is still served, so that what is open gets to its end and on record.
    let (Ok(()) | Err(_), ()) = tokio::join!(gateway, shared.gateway.shutdown());
}

/// The doors as the gateway takes them.
pub(crate) fn handed_over(doors: egret_sandbox::Doors) -> Doors {
    let egret_sandbox::Doors {
        captured,
        proxy,
        dns_tcp,
        dns_udp,
    } = doors;
    Doors {
        captured,
        proxy,
        dns_tcp,
        dns_udp,
        ..Doors::default()
    }
}

const AGAIN: Duration = Duration::from_secs(1);

/// An address that this machine gets while a sandbox runs is as much the host as those it had. Does not end, unless they
/// cannot be watched.
async fn watch_addresses(gateway: &Gateway, changes: AddressChanges) -> io::Error {
    let follow = async {
        // It is a netlink socket. What is made of it here only waits for it, and that is the same for every socket.
        let waits = UnixDatagram::from_std(changes.as_fd().try_clone_to_owned()?.into())?;
        loop {
            waits.readable().await?;
            let drained = waits.try_io(Interest::READABLE, || {
                changes.drain();
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
            // Nothing is left, and the runtime has been told so.
            drained.unwrap_or_default();
            // What cannot be listed now is tried again; what was known stays until then.
            while hosts().map(|now| gateway.set_hosts(now)).is_err() {
                sleep(AGAIN).await;
            }
        }
    };
    let ended: io::Result<Infallible> = follow.await;
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// What a great many connections took is the system's again once they have ended.
pub(crate) async fn give_memory_back(gateway: &Gateway) -> Infallible {
    loop {
        gateway.many_ended().await;
        // Others are about to end.
        sleep(AGAIN).await;
        egret_sandbox::give_memory_back();
    }
}

/// A program of a policy is the maker of a connection in the sandbox.
fn identify(makers: Makers) -> Identify {
    Identify::new(move |client, peer| {
        let Maker {
            executable,
            ancestors,
        } = makers.maker(client, peer)?;
        Some(Program {
            executable,
            ancestors,
        })
    })
}

fn hosts() -> io::Result<HostAddresses> {
    addresses().map(host_addresses)
}

/// The host of a process sandbox is this machine. Its gateway names, where granted, mean this machine's loopback.
fn host_addresses(own: Vec<IpAddr>) -> HostAddresses {
    HostAddresses::new(own)
        .with_gateway(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

/// As many connections as there are descriptors for. The program has the limit that it came with: it was forked before.
pub(crate) fn limits() -> Limits {
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
    let published = defaults.published.min(affordable / 4);
    Limits {
        connections: defaults.connections.min(affordable - published),
        published,
        ..defaults
    }
}
