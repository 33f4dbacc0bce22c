//! `egret run IMAGE`: from a configuration to an exit status. [`run`] is the whole story.
//!
//! Agent and gateway start side by side; the gateway says a word once it has the agent's doors and has seen that what
//! leaves the sandbox arrives at them. Only then is the workload started. A start that fails, or is broken off, is undone.

use super::engine::{Engine, Kind};
use super::hear::{Heard, calm, dismiss, settled};
use super::inside::Settings;
use super::minder::Minder;
use super::options::configuration;
use super::plan::{Plan, Surroundings, apply_unsealed, warn_of_what_does_nothing};
use super::publish::Publish;
use super::sandbox;
use super::sandbox::{Container, Role, Sandbox};
use super::spec::{Spec, agent_name, gateway_name};
use super::{INSTANCE_LENGTH, ending, hosts, image, inside, joined, wait};
use crate::cli;
use crate::failure::Failure;
use crate::gate::say_who_is_asked;
use crate::learn::Learner;
use crate::project;
use crate::verify::{self, Around};
use crate::{control, settings};
use egret_policy::SandboxId;
use egret_sandbox::{Ended, Ports, Signals, seccomp_profile};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

/// Runs an image with one way out, and ends as it ends.
pub(crate) fn run(
    arguments: &cli::Run,
    learner: Option<Learner>,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let mut config = configuration(arguments)?;
    let surroundings = Surroundings::of(&config)?;
    if learner.is_some() && surroundings != Surroundings::Sealed {
        return Err(Failure::new(
            "without isolation nothing is on record, and nothing can be learnt",
        ));
    }
    let plan = match surroundings {
        Surroundings::Open => None,
        Surroundings::Sealed | Surroundings::NoNetwork => Some(Plan::resolve(
            &config,
            arguments.container.from_config.as_deref(),
            project::find_here(arguments.options.no_settings)?,
        )?),
    };
    if surroundings != Surroundings::Sealed {
        warn_of_what_does_nothing(&config);
    }
    match &plan {
        Some(plan) => plan.settle(&mut config),
        None => apply_unsealed(&mut config)?,
    }
    let instance = instance()?;
    // A name that is made up is nobody else's.
    let named = config.name.is_some();
    let name = match config.name.take() {
        Some(name) => name,
        None => made_up_name(&config.image, &instance)?,
    };
    config.name = Some(name.clone());
    if let (Some(plan), Some(file)) = (&plan, learner.as_ref().and_then(Learner::path)) {
        plan.keeps_off(file)?;
    }
    let engine = Engine::find(arguments.container.engine)?;
    if engine.kind == Kind::Podman
        && surroundings == Surroundings::Sealed
        && !config.add_host.is_empty()
    {
        return Err(Failure::new(
            "--add-host: Podman takes no lines for the hosts file of a container that shares another one's network",
        ));
    }
    let calls = seccomp_file()
        .map_err(|error| Failure::because("cannot prepare the workload's system calls", &error))?;
    let mut spec = Spec {
        kind: engine.kind,
        name,
        ports: doors(&instance, plan.as_ref().map_or(&[], |plan| &plan.published)),
        published: plan
            .as_ref()
            .map_or_else(Vec::new, |plan| plan.published.clone()),
        opens_host: plan
            .as_ref()
            .is_some_and(|plan| plan.policy.opens_host_gateway()),
        instance,
        own_image: String::new(),
        config,
        // The engine's command is a child of ours, and has open what we have. It has to say "self": a rootless Podman is
        // in a user namespace, and may not look at us.
        seccomp: format!("/proc/self/fd/{}", calls.as_raw_fd()),
        last_capability: last_capability()
            .map_err(|error| Failure::because("cannot tell what capabilities there are", &error))?,
        detach: arguments.container.detach,
        remove: arguments.container.rm || arguments.probe.is_some(),
        learning: arguments.learning,
        beside: false,
    };
    if let (Surroundings::NoNetwork, Some(plan)) = (surroundings, &plan) {
        plan.outside_storage(&engine)?;
    }
    let Some(plan) = plan.filter(|_| surroundings == Surroundings::Sealed) else {
        if let Some(prober) = &arguments.probe {
            spec.run_own(
                image::own_image(&engine)?,
                prober.without_gateway(match surroundings {
                    Surroundings::NoNetwork => Around::NoNetwork,
                    Surroundings::Sealed | Surroundings::Open => Around::Nothing,
                }),
            )?;
        }
        let words = match surroundings {
            Surroundings::Open => spec.unsealed(),
            _ => spec.without_network(),
        };
        return match spec.detach {
            true => in_background(&engine, &spec, words),
            false => wait::foreground(&engine, words, signals).map(wait::exit_as),
        };
    };

    let mut standing = Standing::raise(&engine, spec, named, &plan, signals)?;
    if let Some(seconds) = standing.spec.config.ask {
        say_who_is_asked(&standing.spec.name, seconds);
    }
    if let Some(prober) = &arguments.probe {
        let words = prober.arguments_under(&plan.policy, standing.spec.ports.proxy);
        let own_image = standing.spec.own_image.clone();
        standing.spec.run_own(own_image, words)?;
    }
    match arguments.container.detach {
        true => standing.detach(),
        false => standing
            .workload(signals, arguments, learner)
            .map(wait::exit_as),
    }
}

/// The command that runs a prober beside a sandbox's workload, and a descriptor that it needs.
pub(crate) fn prober(sandbox: &Sandbox, plan: &verify::Plan) -> Result<(Command, File), Failure> {
    let gone = || Failure::new(format!("the sandbox {} does not run", sandbox.name));
    let engine = &sandbox.engine;
    let config = sandbox
        .containers
        .iter()
        .find_map(Container::configuration)
        .ok_or_else(gone)?;
    if !sandbox.is_sealed() {
        return Err(Failure::new(format!(
            "{} runs without a gateway: there is nothing to verify but that, which `egret verify` of a new one with the same options shows",
            sandbox.name
        )));
    }
    let agent = sandbox.container(Role::Agent).ok_or_else(gone)?;
    let arguments = engine
        .output([
            "container",
            "inspect",
            "--format",
            "{{json .Args}}",
            &agent.id,
        ])
        .map_err(|complaint| Failure::because("cannot look at the agent", &complaint))?;
    let arguments: Vec<String> = serde_json::from_str(&arguments)
        .map_err(|error| Failure::because("cannot look at the agent", &error))?;
    let ports = arguments
        .iter()
        .rev()
        .find_map(|word| inside::ports(word))
        .ok_or_else(gone)?;
    let policy = Plan::resolve(&config, None, Vec::new())?.policy;
    let failed = |error: io::Error| Failure::because("cannot prepare the prober", &error);
    let calls = seccomp_file().map_err(failed)?;
    let spec = Spec {
        kind: engine.kind,
        name: sandbox
            .name
            .parse()
            .map_err(|error| Failure::because("the sandbox", &error))?,
        ports,
        published: Vec::new(),
        opens_host: false,
        instance: String::new(),
        own_image: String::new(),
        config,
        seccomp: format!("/proc/self/fd/{}", calls.as_raw_fd()),
        last_capability: last_capability().map_err(failed)?,
        detach: false,
        remove: true,
        learning: false,
        beside: true,
    };
    let words = plan.arguments_under(&policy, ports.proxy);
    let words = spec.prober(image::own_image(engine)?, words)?;
    Ok((engine.command(words), calls))
}

/// Nothing else has the name, here or in the engine.
fn is_free(engine: &Engine, name: &SandboxId) -> Result<(), Failure> {
    if let Some(why) = sandbox::clash(engine, name.as_str())? {
        return Err(Failure::new(why));
    }
    match control::ask(name.as_str(), &control::Request::Status)? {
        Some(_) => Err(Failure::new(format!(
            "a sandbox {name} is running, not in a container; choose another --name"
        ))),
        None => Ok(()),
    }
}

/// Agent and gateway, with nothing in the sandbox yet. Dropped, they are gone, and whatever was started in there.
struct Standing<'a> {
    engine: &'a Engine,
    spec: Spec,
    stays: bool,
}

impl<'a> Standing<'a> {
    /// Starts both, and waits until the sandbox is known to be sealed.
    fn raise(
        engine: &'a Engine,
        spec: Spec,
        named: bool,
        plan: &Plan,
        signals: &Signals,
    ) -> Result<Self, Failure> {
        let name = spec.name.clone();
        let failed = |error: &dyn std::error::Error| {
            Failure::because(format_args!("cannot start the sandbox {name}"), error)
        };
        let _turn = named.then(|| control::turn(&name)).transpose()?;
        std::thread::scope(|scope| {
            // What takes the engine's command some time is asked for all at once; who the host is may come last.
            let hosts = scope.spawn(|| hosts::of_engine(engine));
            let free = named.then(|| scope.spawn(|| is_free(engine, &name)));
            let volume = spec.volume();
            let volume = volume.map(|volume| scope.spawn(|| engine.output(volume)));
            let storage = scope.spawn(|| plan.outside_storage(engine));
            let image = image::own_image(engine);
            let free = free.map_or(Ok(()), |free| joined(free).flatten());
            let volume = volume.map(joined).transpose();
            let storage = joined(storage).flatten();
            // From here on everything is undone by dropping this. (A volume is told from others by the start it is of.)
            let mut standing = Self {
                engine,
                spec,
                stays: false,
            };
            free?;
            storage?;
            volume?
                .transpose()
                .map_err(|complaint| failed(&complaint))?;
            standing.spec.own_image = image?;
            let spec = &standing.spec;

            // In process groups of their own: what the keyboard sends is for us, and the engine's commands would pass it on.
            let mut agent = engine
                .command(spec.agent())
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|error| failed(&error))?;
            let gateway = engine
                .command(spec.gateway())
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut gateway = match gateway {
                Ok(gateway) => gateway,
                Err(error) => {
                    dismiss(&mut agent);
                    return Err(failed(&error));
                }
            };
            let heard = Heard::default();
            heard.complaints("agent", &mut agent);
            heard.complaints("gateway", &mut gateway);
            heard.ready(&mut gateway);
            let outcome = joined(hosts)
                .flatten()
                .and_then(|(hosts, unknown)| {
                    if let Some(failure) = unknown {
                        say!("egret: warning: {failure}; the host is told by its own addresses and 172.17.0.1");
                    }
                    tell(&mut gateway, &plan.settings(spec, hosts))
                })
                .and_then(|()| heard.until_ready(signals))
                .and_then(|()| settled(engine, spec.name.as_str()));
            if outcome.is_err() {
                let name = spec.name.as_str();
                calm(
                    engine,
                    [
                        (&mut agent, &agent_name(name)),
                        (&mut gateway, &gateway_name(name)),
                    ],
                );
            }
            // The containers are the engine's. These two only watched them.
            dismiss(&mut agent);
            dismiss(&mut gateway);
            outcome.map(|()| standing)
        })
    }

    /// Starts the workload, and lets it be.
    fn detach(mut self) -> Result<ExitCode, Failure> {
        let minder = self
            .spec
            .remove
            .then(|| Minder::leave(self.engine, &self.spec))
            .transpose()?;
        let started = in_background(self.engine, &self.spec, self.spec.workload())?;
        self.stays = started == ExitCode::SUCCESS;
        if let Some(minder) = minder {
            minder.end(!self.stays);
        }
        if self.stays {
            ending::say_where(self.engine, &self.spec);
        }
        Ok(started)
    }

    /// Starts the workload and waits for its end. One that could not be started leaves nothing behind; otherwise there is
    /// something to finish.
    fn workload(
        mut self,
        signals: &Signals,
        arguments: &cli::Run,
        learner: Option<Learner>,
    ) -> Result<Ended, Failure> {
        ending::say_where(self.engine, &self.spec);
        let minder = self
            .spec
            .remove
            .then(|| Minder::leave(self.engine, &self.spec))
            .transpose()?;
        let (engine, name) = (self.engine.clone(), self.spec.name.to_string());
        // It ends with this process.
        std::thread::spawn(move || hosts::watch(&engine, &name));
        let ended = wait::foreground(self.engine, self.spec.workload(), signals)?;
        // Whoever broke it off may have been quicker than the engine.
        self.stays = ended == Ended::Status(0) || ending::has_run(self.engine, &self.spec);
        match self.stays {
            true => ending::finish(self.engine, &self.spec, arguments, learner)?,
            false => advise(&self.spec.config.image),
        }
        self.stays &= !self.workload_is_left(ended);
        drop(self);
        if let Some(minder) = minder {
            minder.end(true);
        }
        Ok(ended)
    }

    /// Whether a workload that was to be removed is there after all: the engine removes one that has ended, and not one that
    /// its command was making when it was broken off.
    fn workload_is_left(&self, ended: Ended) -> bool {
        let may_be = self.spec.remove && ended != Ended::Status(0);
        let left = || sandbox::of_start(self.engine, &self.spec.instance, sandbox::Role::Workload);
        may_be && !left().is_ok_and(|ids| ids.trim().is_empty())
    }
}

/// Runs a command of the engine's that leaves a container behind, and prints the sandbox's name.
fn in_background(engine: &Engine, spec: &Spec, words: Vec<String>) -> Result<ExitCode, Failure> {
    let output = engine
        .command(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::because("cannot start the workload", &error))?;
    if !output.status.success() {
        let code = output.status.code().unwrap_or(125);
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)));
    }
    writeln!(io::stdout(), "{}", spec.name)
        .map_err(|error| Failure::because("cannot print", &error))?;
    Ok(ExitCode::SUCCESS)
}

/// Advice for an image that could not be run, where a program of that name could.
fn advise(image: &str) {
    let plain = !image.contains(['/', ':', '@']);
    if plain && super::engine::in_path(image).is_some() {
        say!("egret: to run the program {image}, write: egret run -- {image}");
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        if let Err(complaint) = sandbox::undo(self.engine, &self.spec.instance) {
            let name = &self.spec.name;
            say!(
                "egret: could not undo the start of {name}: {complaint}; `egret rm -f {name}` removes what is left"
            );
        }
    }
}

/// Tells a gateway that starts what it is to do.
fn tell(gateway: &mut Child, settings: &Settings) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(settings)
        .map_err(|error| Failure::because("cannot tell the gateway what to do", &error))?;
    line.push(b'\n');
    // If it does not listen, it has ended and said why.
    let (Ok(()) | Err(_)) = gateway
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(&line));
    Ok(())
}

/// Something that no other start has: [`INSTANCE_LENGTH`] hexadecimal digits.
fn instance() -> Result<String, Failure> {
    settings::random_word::<{ INSTANCE_LENGTH / 2 }>()
}

fn made_up_name(image: &str, instance: &str) -> Result<SandboxId, Failure> {
    let base = image.rsplit('/').next().unwrap_or_default();
    let base = base.split(['@', ':']).next().unwrap_or_default();
    settings::named_after(Path::new(base), instance.get(..6).unwrap_or(instance))
}

/// Where the doors are in the sandbox: in a range that nothing is given a port from by chance, in a place of it that no
/// image can count on, and not where the workload is known to listen.
fn doors(instance: &str, published: &[Publish]) -> Ports {
    const FIRST: u16 = 61000;
    const LAST: u16 = u16::MAX;
    let start = u16::from_str_radix(instance.get(..4).unwrap_or_default(), 16).unwrap_or_default();
    let start = FIRST + start % (LAST - FIRST);
    let mut free = (start..=LAST)
        .chain(FIRST..start)
        .filter(|port| published.iter().all(|publish| publish.port != *port));
    let mut next = |otherwise| free.next().unwrap_or(otherwise);
    let Ports {
        capture,
        proxy,
        dns,
    } = Ports::default();
    Ports {
        capture: next(capture),
        proxy: next(proxy),
        dns: next(dns),
    }
}

/// A file, without a name, that has the system calls that a workload does not get; commands that are started inherit it.
fn seccomp_file() -> io::Result<std::fs::File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let mut file: std::fs::File = memfd_create("seccomp", MemfdFlags::empty())?.into();
    file.write_all(seccomp_profile(false).as_bytes())?;
    Ok(file)
}

/// The number of the last capability that this kernel knows: capabilities(7).
fn last_capability() -> io::Result<usize> {
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?;
    text.trim().parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_keep_out_of_the_way() {
        let publish = |port| Publish {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            host_port: None,
            port,
            http: false,
        };
        let first = doors("000000000000", &[]);
        assert_eq!(
            (first.capture, first.proxy, first.dns),
            (61000, 61001, 61002)
        );
        let moved = doors("000000000000", &[publish(61000), publish(61002)]);
        assert_eq!(
            (moved.capture, moved.proxy, moved.dns),
            (61001, 61003, 61004)
        );
        // 4535 ports, of which the last is the first's neighbour.
        let last = doors("11b600000000", &[]);
        assert_eq!((last.capture, last.proxy, last.dns), (65534, 65535, 61000));
    }

    #[test]
    fn a_sandbox_is_named_after_its_image() {
        for (image, name) in [
            (
                "ghcr.io/github/github-mcp-server:v1",
                "github-mcp-server-012345",
            ),
            ("localhost:5000/x@sha256:00", "x-012345"),
            ("Ubuntu", "ubuntu-012345"),
        ] {
            assert_eq!(made_up_name(image, "0123456789ab").unwrap().as_str(), name);
        }
    }
}
