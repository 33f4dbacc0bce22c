//! The options of `egret run IMAGE`, and the run configuration that they make.

use super::config::{Isolation, PolicyText, RunConfig, Transport};
use super::engine::Kind;
use crate::cli::{Output, Run};
use crate::failure::Failure;
use crate::files;
use clap::Args;
use egret_policy::SandboxId;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What only a container has. The names are those of `docker run` and `thv run`, and so is what they mean.
#[derive(Debug, Args)]
pub(crate) struct ContainerOptions {
    /// Run in the background, and print the sandbox's name
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the sandbox when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Mount a path or a volume
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Mount, in the long form
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) mount: Vec<String>,
    /// Mount a file system in memory
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Publish a port, on loopback unless an address is given
    #[arg(short, long, value_name = "[[IP:]HOST-PORT:]PORT")]
    pub(crate) publish: Vec<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Label the container
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// The network that the gateway uses; without isolation, the container's
    #[arg(long, visible_alias = "net")]
    pub(crate) network: Option<String>,
    /// Run this in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// When to pull the image: missing, always or never
    #[arg(long, value_name = "WHEN")]
    pub(crate) pull: Option<String>,
    /// The platform of the image
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Restart when it ends: no, on-failure or on-failure:TIMES, always or unless-stopped
    #[arg(long, value_name = "WHEN")]
    pub(crate) restart: Option<String>,
    /// The most memory that it may use
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// The most processors that it may use
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// The size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    pub(crate) shm_size: Option<String>,
    /// Make the image's files read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Run an init that reaps processes
    #[arg(long)]
    pub(crate) init: bool,
    /// Its host name
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Add a line to its /etc/hosts
    #[arg(long, value_name = "NAME:ADDR")]
    pub(crate) add_host: Vec<String>,
    /// Add a capability that cannot touch the network
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<String>,
    /// How clients speak with an MCP server in it
    #[arg(long, value_name = "TRANSPORT")]
    pub(crate) transport: Option<Transport>,
    /// The port on which an MCP server in it listens, for the transports over HTTP
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) target_port: Option<u16>,
    /// Seal it, which is the default; `=false` runs the image as the engine would
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) isolate_network: Option<bool>,
    /// Take everything that is not said here from a file that `egret export` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) from_config: Option<PathBuf>,
    /// The engine to use: the first that answers, if none is named
    #[arg(long, value_name = "ENGINE", env = "EGRET_ENGINE")]
    pub(crate) engine: Option<Kind>,

    // What would open the seal: known, so that there is a sentence about each.
    #[arg(long, hide = true)]
    privileged: bool,
    #[arg(long, hide = true)]
    device: Vec<String>,
    #[arg(long, hide = true)]
    security_opt: Vec<String>,
    #[arg(long, hide = true)]
    volumes_from: Vec<String>,
    #[arg(long, hide = true)]
    pid: Option<String>,
    #[arg(long, hide = true)]
    ipc: Option<String>,
    #[arg(long, hide = true)]
    uts: Option<String>,
    #[arg(long, hide = true)]
    userns: Option<String>,
    #[arg(long, hide = true)]
    cgroupns: Option<String>,
}

impl ContainerOptions {
    /// The first option that was given and has no meaning for a command.
    pub(crate) fn first_given(&self) -> Option<&'static str> {
        let Self {
            detach,
            interactive,
            tty,
            rm,
            volume,
            mount,
            tmpfs,
            publish,
            user,
            label,
            network,
            entrypoint,
            pull,
            platform,
            restart,
            memory,
            cpus,
            shm_size,
            read_only,
            init,
            hostname,
            add_host,
            cap_add,
            cap_drop,
            transport,
            target_port,
            isolate_network,
            from_config,
            engine: _,
            privileged,
            device,
            security_opt,
            volumes_from,
            pid,
            ipc,
            uts,
            userns,
            cgroupns,
        } = self;
        let given = [
            (*detach, "--detach"),
            (*interactive, "--interactive"),
            (*tty, "--tty"),
            (*rm, "--rm"),
            (!volume.is_empty(), "--volume"),
            (!mount.is_empty(), "--mount"),
            (!tmpfs.is_empty(), "--tmpfs"),
            (!publish.is_empty(), "--publish"),
            (user.is_some(), "--user"),
            (!label.is_empty(), "--label"),
            (network.is_some(), "--network"),
            (entrypoint.is_some(), "--entrypoint"),
            (pull.is_some(), "--pull"),
            (platform.is_some(), "--platform"),
            (restart.is_some(), "--restart"),
            (memory.is_some(), "--memory"),
            (cpus.is_some(), "--cpus"),
            (shm_size.is_some(), "--shm-size"),
            (*read_only, "--read-only"),
            (*init, "--init"),
            (hostname.is_some(), "--hostname"),
            (!add_host.is_empty(), "--add-host"),
            (!cap_add.is_empty(), "--cap-add"),
            (!cap_drop.is_empty(), "--cap-drop"),
            (transport.is_some(), "--transport"),
            (target_port.is_some(), "--target-port"),
            (isolate_network.is_some(), "--isolate-network"),
            (from_config.is_some(), "--from-config"),
            (*privileged, "--privileged"),
            (!device.is_empty(), "--device"),
            (!security_opt.is_empty(), "--security-opt"),
            (!volumes_from.is_empty(), "--volumes-from"),
            (pid.is_some(), "--pid"),
            (ipc.is_some(), "--ipc"),
            (uts.is_some(), "--uts"),
            (userns.is_some(), "--userns"),
            (cgroupns.is_some(), "--cgroupns"),
        ];
        given
            .into_iter()
            .find_map(|(given, option)| given.then_some(option))
    }
}

/// The run configuration that a command line makes: what it says, on top of what a file says.
pub(crate) fn configuration(run: &Run) -> Result<RunConfig, Failure> {
    let Run {
        container: options,
        process,
        words,
        ..
    } = run;
    for (given, option) in [
        (!process.read.is_empty(), "--read"),
        (!process.write.is_empty(), "--write"),
        (!process.hide.is_empty(), "--hide"),
        (process.allow_user_namespaces, "--allow-user-namespaces"),
    ] {
        if given {
            return Err(Failure::new(format!(
                "{option} is about a command's sandbox; an image has its own files, and -v mounts others"
            )));
        }
    }
    if process.record_programs {
        return Err(Failure::new(
            "--record-programs is about a command's sandbox; programs in a container are not told apart",
        ));
    }
    if let Some(option) = process.observe.first_given() {
        return Err(Failure::new(format!(
            "{option} is about a command's sandbox; the records of a container are the output of its gateway, which the engine keeps, and \
             `egret observe` tells metrics and spans of containers"
        )));
    }
    if options.detach {
        for (given, option) in [
            (run.options.log_file.is_some(), "--log-file"),
            (run.summary, "--summary"),
            (run.output == Output::Json, "--output"),
        ] {
            if given {
                return Err(Failure::new(format!(
                    "{option} is about the end of a run, which --detach does not wait for; `egret logs --audit` has what is on record"
                )));
            }
        }
    }
    let mut words = words.iter().map(text).peekable();
    let named = words.next().transpose()?;
    // What comes before the arguments for users of thv.
    words.next_if(|word| word.as_ref().is_ok_and(|word| word == "--"));
    let mut config = match (&options.from_config, named) {
        (Some(file), named) => {
            let mut config = read(file)?;
            unsealed_by_file(&config, file, options)?;
            if let Some(image) = named {
                config.image = image;
            }
            config
        }
        (None, Some(image)) => RunConfig::new(image),
        (None, None) => {
            return Err(Failure::new(
                "there is nothing to run: give an image, or a command after `--`",
            ));
        }
    };
    let command = words.collect::<Result<Vec<_>, _>>()?;
    if !command.is_empty() {
        config.command = command;
    }
    if config.image.is_empty() || config.image.starts_with('-') {
        return Err(Failure::new(format!("{:?} is no image", config.image)));
    }

    // What can be given several times adds to what the file has; what cannot replaces it.
    config.allow.extend_from_slice(&run.options.allow);
    config.deny.extend_from_slice(&run.options.deny);
    config.env.extend_from_slice(&run.options.env);
    for file in &run.options.env_file {
        let file = std::path::absolute(file).map_err(|error| {
            Failure::because(format_args!("--env-file {}", file.display()), &error)
        })?;
        config.env_file.push(file);
    }
    config.resolver.extend_from_slice(&run.options.resolver);
    config.volume.extend_from_slice(&options.volume);
    config.mount.extend_from_slice(&options.mount);
    config.tmpfs.extend_from_slice(&options.tmpfs);
    config.publish.extend_from_slice(&options.publish);
    config.label.extend_from_slice(&options.label);
    config.add_host.extend_from_slice(&options.add_host);
    config.cap_add.extend_from_slice(&options.cap_add);
    config.cap_drop.extend_from_slice(&options.cap_drop);
    config.weakening.device.extend_from_slice(&options.device);
    config
        .weakening
        .security_opt
        .extend_from_slice(&options.security_opt);
    config
        .weakening
        .volumes_from
        .extend_from_slice(&options.volumes_from);
    let replace = |kept: &mut Option<String>, given: &Option<String>| {
        if given.is_some() {
            kept.clone_from(given);
        }
    };
    replace(&mut config.network, &options.network);
    replace(&mut config.hostname, &options.hostname);
    replace(&mut config.user, &options.user);
    replace(&mut config.entrypoint, &options.entrypoint);
    replace(&mut config.pull, &options.pull);
    replace(&mut config.platform, &options.platform);
    replace(&mut config.restart, &options.restart);
    replace(&mut config.memory, &options.memory);
    replace(&mut config.cpus, &options.cpus);
    replace(&mut config.shm_size, &options.shm_size);
    replace(&mut config.weakening.pid, &options.pid);
    replace(&mut config.weakening.ipc, &options.ipc);
    replace(&mut config.weakening.uts, &options.uts);
    replace(&mut config.weakening.userns, &options.userns);
    replace(&mut config.weakening.cgroupns, &options.cgroupns);
    if let Some(directory) = &run.options.workdir {
        config.workdir = Some(text(directory.as_os_str())?);
    }
    if let Some(policy) = &run.options.policy {
        config.policy = Some(PolicyText::Named(policy.clone()));
    }
    config.ask = run.ask.or(config.ask);
    if let Some(proxy) = &run.options.upstream_proxy {
        config.upstream_proxy = Some(proxy.clone());
    }
    if let Some(name) = &run.options.name {
        config.name = Some(sanitised(name)?);
    }
    if let Some(ports) = &run.options.allow_docker_gateway {
        config = config.with_docker_gateway(Some(ports.clone()));
    }
    if let Some(isolate) = options.isolate_network {
        config.isolate_network = Isolation::from(isolate);
    }
    if let Some(transport) = options.transport {
        config.transport = transport;
    }
    config.target_port = options.target_port.or(config.target_port);
    config.read_only |= options.read_only;
    config.init |= options.init;
    config.interactive |= options.interactive;
    config.tty |= options.tty;
    config.no_proxy_env |= run.options.no_proxy_env;
    config.weakening.privileged |= options.privileged;
    for variable in &config.env {
        check_variable("-e", variable)?;
    }
    for file in &config.env_file {
        let failed = |error: &dyn std::error::Error| {
            Failure::because(format_args!("--env-file {}", file.display()), error)
        };
        let bytes = files::read_at_most(file, MOST_OCTETS).map_err(|error| failed(&error))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| failed(&error))?;
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            check_variable(&format!("--env-file {}", file.display()), line)?;
        }
    }
    Ok(config)
}

/// What passes a variable on names it. To Podman, a `*` at its end means all that begin so: the whole environment, by itself.
pub(super) fn check_variable(option: &str, variable: &str) -> Result<(), Failure> {
    let good = match variable.split_once('=') {
        Some((name, _)) => !name.is_empty() && !name.contains(char::is_whitespace),
        None => {
            let first = variable
                .bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            first && variable.bytes().all(plain)
        }
    };
    match good {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "{option} {variable:?} names no variable; write NAME or NAME=VALUE"
        ))),
    }
}

/// What a file switches off is said; what it would weaken besides has to be asked for where it is seen.
fn unsealed_by_file(
    config: &RunConfig,
    file: &Path,
    options: &ContainerOptions,
) -> Result<(), Failure> {
    let file = file.display();
    if config.isolate_network != Isolation::Off || options.isolate_network.is_some() {
        return Ok(());
    }
    if !config.weakening.is_empty() {
        return Err(Failure::new(format!(
            "{file} asks for a container without isolation, and for options that weaken it (`weakening`); if that is meant, add --isolate-network=false"
        )));
    }
    say!("egret: warning: {file} switches network isolation off, and no policy is enforced");
    Ok(())
}

/// A name as engines and Egret both take it; where that is another than was given, it is said.
fn sanitised(name: &str) -> Result<SandboxId, Failure> {
    if name.len() < 2 {
        return Err(Failure::new(format!(
            "--name {name:?}: a container's name has at least two characters"
        )));
    }
    if let Ok(name) = name.parse() {
        return Ok(name);
    }
    let plain: String = name
        .to_ascii_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') {
                c
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    let plain = plain.trim_matches(['-', '_', '.']);
    let parsed = plain.parse().map_err(|_| {
        Failure::new(format!(
            "--name {name:?}: use letters, digits, `_`, `.` and `-`"
        ))
    })?;
    say!("egret: the sandbox is called {plain}");
    Ok(parsed)
}

fn read(file: &Path) -> Result<RunConfig, Failure> {
    let shown = file.display();
    let failed = |error: &dyn std::error::Error| {
        Failure::because(
            format_args!("cannot use the run configuration {shown}"),
            error,
        )
    };
    let bytes = match file.as_os_str() == "-" {
        true => {
            let mut bytes = Vec::new();
            let read = std::io::stdin()
                .take(MOST_OCTETS as u64 + 1)
                .read_to_end(&mut bytes);
            read.map(|_| bytes)
        }
        false => files::read_at_most(file, MOST_OCTETS),
    };
    let bytes = bytes.map_err(|error| failed(&error))?;
    if bytes.len() > MOST_OCTETS {
        return Err(Failure::new(format!(
            "the run configuration {shown} is too long: at most {MOST_OCTETS} octets"
        )));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| failed(&error))?;
    text.parse()
        .map_err(|error: super::config::BadConfig| failed(&error))
}

/// More than any policy that could be in one.
const MOST_OCTETS: usize = 64 << 20;

fn text(word: impl AsRef<std::ffi::OsStr>) -> Result<String, Failure> {
    let word: OsString = word.as_ref().to_owned();
    word.into_string().map_err(|word| {
        Failure::new(format!(
            "{word:?} is not UTF-8, and what an engine is told has to be"
        ))
    })
}
