//! What is done with container sandboxes once they are there.

use super::config::RunConfig;
use super::ending::Records;
use super::engine::{Engine, Kind};
use super::hear::{Heard, dismiss, settled};
use super::options::check_variable;
use super::plan::check_mounts;
use super::sandbox::{self, Container, Role, Sandbox};
use super::spec::label;
use super::{hosts, image, wait};
use crate::cli::{Exec, Inspect, Remove, Start, Stop};
use crate::control::{self, Answer, Request};
use crate::failure::Failure;
use egret_sandbox::Signals;
use serde_json::{Value, json};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};

/// The container sandboxes of all engines that answer. One that does not, and was named, is an error.
pub(crate) fn listed(named: Option<Kind>) -> Result<Vec<Sandbox>, Failure> {
    let mut found = Vec::new();
    for engine in Engine::in_use(named) {
        match sandbox::all(&engine) {
            Ok(sandboxes) => found.extend(sandboxes),
            Err(failure) if named.is_some() => return Err(failure),
            // An engine that does not run has no sandbox that does.
            Err(_) => {}
        }
    }
    Ok(found)
}

/// The container sandbox of this name, if any engine that answers has one.
pub(crate) fn find(name: &str, named: Option<Kind>) -> Result<Option<Sandbox>, Failure> {
    for engine in Engine::in_use(named) {
        match sandbox::named(&engine, name) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(failure) if named.is_some() => return Err(failure),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// The id of a part that has to be there.
fn id_of(sandbox: &Sandbox, role: Role) -> Result<&str, Failure> {
    let name = &sandbox.name;
    let container = sandbox.container(role).ok_or_else(|| {
        let what = role.name();
        Failure::new(format!(
            "the {what} of {name} is gone; remove what is left with `egret rm -f {name}` and run it anew"
        ))
    })?;
    Ok(&container.id)
}

fn must_find(name: &str, named: Option<Kind>) -> Result<Sandbox, Failure> {
    find(name, named)?.ok_or_else(|| {
        if matches!(control::ask(name, &Request::Status), Ok(Some(_))) {
            return Failure::new(format!(
                "{name} is the sandbox of a program, and no container; `egret ps --output json` shows what it is"
            ));
        }
        let engines: Vec<_> = Engine::in_use(named)
            .iter()
            .map(|engine| engine.kind.to_string())
            .collect();
        let asked = match engines.as_slice() {
            [] => "there is no container engine".to_owned(),
            engines => format!("asked: {}", engines.join(", ")),
        };
        Failure::new(format!(
            "there is no container sandbox named {name} ({asked}); `egret ps --all` lists them"
        ))
    })
}

/// `egret stop`, of a container: the workload first, with the time that it was given, then the rest.
pub(crate) fn stop(sandbox: &Sandbox, time: u64) -> Result<(), Failure> {
    for (role, time) in [(Role::Workload, time), (Role::Gateway, 5), (Role::Agent, 1)] {
        let Some(container) = sandbox.container(role).filter(|container| container.runs()) else {
            continue;
        };
        sandbox
            .engine
            .output(["stop", "--time", &time.to_string(), &container.id])
            .map_err(|complaint| {
                Failure::because(format_args!("cannot stop {}", container.name), &complaint)
            })?;
    }
    Ok(())
}

/// `egret start`
pub(crate) fn start(arguments: &Start) -> Result<ExitCode, Failure> {
    let signals = wait::signals()?;
    if arguments.attach || arguments.interactive {
        let [name] = arguments.names.as_slice() else {
            return Err(Failure::new("only one sandbox can be attached to"));
        };
        let sandbox = must_find(name.as_str(), arguments.engine)?;
        raise_again(&sandbox, &signals)?;
        let mut words = vec!["start".to_owned(), "--attach".into()];
        if arguments.interactive {
            words.push("--interactive".into());
        }
        words.push(id_of(&sandbox, Role::Workload)?.to_owned());
        let ended = wait::foreground(&sandbox.engine, words, &signals)?;
        stop(&must_find(name.as_str(), arguments.engine)?, 1)?;
        return Ok(wait::exit_as(ended));
    }
    for name in &arguments.names {
        let sandbox = must_find(name.as_str(), arguments.engine)?;
        start_in_background(&sandbox, &signals)?;
        printed(name.as_str())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `egret restart`
pub(crate) fn restart(arguments: &Stop) -> Result<ExitCode, Failure> {
    let signals = wait::signals()?;
    for name in &arguments.names {
        stop(&must_find(name.as_str(), arguments.engine)?, arguments.time)?;
        start_in_background(&must_find(name.as_str(), arguments.engine)?, &signals)?;
        printed(name.as_str())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn start_in_background(sandbox: &Sandbox, signals: &Signals) -> Result<(), Failure> {
    raise_again(sandbox, signals)?;
    let started = sandbox
        .engine
        .output(["start", id_of(sandbox, Role::Workload)?]);
    started.map(|_| ()).map_err(|complaint| {
        Failure::because(format_args!("cannot start {}", sandbox.name), &complaint)
    })
}

/// Sees to it that agent and gateway run, before the workload does.
///
/// A network namespace ends with its agent's container. A workload that is still in an old one has lost its network, and is
/// stopped, so that it can be started in the new one.
fn raise_again(sandbox: &Sandbox, signals: &Signals) -> Result<(), Failure> {
    let workload = id_of(sandbox, Role::Workload)?;
    if let Some(config) = sandbox
        .container(Role::Workload)
        .and_then(Container::configuration)
    {
        check_mounts(&config)?;
    }
    if !sandbox.is_sealed() {
        return Ok(());
    }
    let Sandbox { engine, name, .. } = sandbox;
    let (agent, gateway) = (id_of(sandbox, Role::Agent)?, id_of(sandbox, Role::Gateway)?);
    let runs = |role| sandbox.container(role).is_some_and(Container::runs);
    let failed = |complaint: &dyn std::error::Error| {
        Failure::because(format_args!("cannot start {name}"), complaint)
    };
    let heard = Heard::default();
    let attached = |container: &str| -> Result<Child, Failure> {
        engine
            .command(["start", "--attach", container])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&error))
    };
    let stop = |container: &str| {
        let stopped = engine.output(["stop", "--time", "5", container]);
        stopped.map(|_| ()).map_err(|complaint| failed(&complaint))
    };
    let mut watched = Vec::new();
    if runs(Role::Workload) && is_stranded(sandbox) {
        stop(workload)?;
    }
    if !runs(Role::Agent) {
        if runs(Role::Gateway) {
            stop(gateway)?;
        }
        let mut agent = attached(agent)?;
        heard.complaints("agent", &mut agent);
        watched.push(agent);
    } else if runs(Role::Gateway) {
        return hosts::tell(engine, gateway, name);
    }
    let outcome = attached(gateway).and_then(|mut gateway| {
        heard.complaints("gateway", &mut gateway);
        heard.ready(&mut gateway);
        watched.push(gateway);
        heard.until_ready(signals)?;
        settled(engine, name)
    });
    // What it was told at its first start may not be so any more.
    let outcome = outcome.and_then(|()| hosts::tell(engine, gateway, name));
    watched.iter_mut().for_each(dismiss);
    outcome
}

/// Whether the workload is in a network namespace that its agent no longer holds: the agent does not run, or was started
/// later than the workload.
fn is_stranded(sandbox: &Sandbox) -> bool {
    let started = |role| {
        let container = sandbox
            .container(role)
            .filter(|container| container.runs())?;
        container.started.parse::<jiff::Timestamp>().ok()
    };
    match (started(Role::Agent), started(Role::Workload)) {
        (Some(agent), Some(workload)) => workload < agent,
        _ => true,
    }
}

/// `egret rm`
pub(crate) fn remove(arguments: &Remove) -> Result<ExitCode, Failure> {
    let mut sandboxes = Vec::new();
    let mut gone = Vec::new();
    if arguments.all {
        sandboxes = listed(arguments.engine)?;
    }
    for name in &arguments.names {
        match find(name.as_str(), arguments.engine)? {
            Some(sandbox) => sandboxes.push(sandbox),
            None => gone.push(name.as_str()),
        }
    }
    let running: Vec<&str> = sandboxes
        .iter()
        .filter(|sandbox| {
            sandbox
                .container(Role::Workload)
                .is_some_and(Container::runs)
        })
        .map(|sandbox| sandbox.name.as_str())
        .collect();
    if !running.is_empty() && !arguments.force {
        return Err(Failure::new(format!(
            "still running: {}; stop them first, or add --force",
            running.join(", ")
        )));
    }
    for sandbox in &sandboxes {
        let Sandbox { engine, name, .. } = sandbox;
        // What runs goes at once, but for the gateway, which has its last words to say.
        if let Some(workload) = sandbox
            .container(Role::Workload)
            .filter(|workload| workload.runs())
        {
            let (Ok(_) | Err(_)) = engine.output(["kill", &workload.id]);
        }
        if let Some(gateway) = sandbox.container(Role::Gateway) {
            Records::take_last(engine, &gateway.id, name)?;
        }
        sandbox::remove(sandbox).map_err(|complaint| {
            Failure::because(format_args!("cannot remove {name}"), &complaint)
        })?;
        printed(name)?;
    }
    for name in gone {
        if remove_orphans(Some(name), arguments.engine).is_empty() {
            must_find(name, arguments.engine)?;
        }
        printed(name)?;
    }
    if arguments.all {
        remove_orphans(None, arguments.engine);
        remove_old_images(arguments.engine)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes what is left of sandboxes that have no container any more.
fn remove_orphans(name: Option<&str>, named: Option<Kind>) -> Vec<String> {
    let engines = Engine::in_use(named);
    // An engine that does not answer has been complained of where it was to.
    let removed = engines
        .iter()
        .filter_map(|engine| sandbox::remove_orphans(engine, name).ok());
    removed.flatten().collect()
}

/// Removes the images of other versions of egret, and says which one stays.
fn remove_old_images(named: Option<Kind>) -> Result<(), Failure> {
    let own = image::own_image_name()
        .map_err(|error| Failure::because("cannot read egret's own program", &error))?;
    for engine in Engine::in_use(named) {
        let filter = format!("label={}", label::IMAGE);
        let Ok(images) = engine.output([
            "images",
            "--filter",
            &filter,
            "--format",
            "{{.Repository}}:{{.Tag}}",
        ]) else {
            continue;
        };
        // A label is inherited by whatever is made from an image; the name is ours alone.
        let ours = images
            .split_whitespace()
            .filter(|found| found.starts_with(&format!("{}:", image::REPOSITORY)));
        for found in ours {
            if found == own {
                say!(
                    "egret: kept the image {own} in {}; `{} rmi {own}` removes it",
                    engine.kind,
                    engine.kind.program()
                );
            } else if let Err(complaint) = engine.output(["rmi", found]) {
                say!("egret: could not remove the image {found}: {complaint}");
            }
        }
    }
    Ok(())
}

/// `egret inspect`
pub(crate) fn inspect(arguments: &Inspect) -> Result<ExitCode, Failure> {
    let mut found = Vec::new();
    for name in &arguments.names {
        let sandbox = must_find(name.as_str(), arguments.engine)?;
        let configuration = configuration_of(&sandbox)?;
        let containers: Vec<Value> = sandbox
            .containers
            .iter()
            .map(|container| {
                json!({
                    "role": container.role.name(), "id": container.id, "name": container.name,
                    "state": container.state, "exit_code": container.exit_code, "started": container.started,
                    "image": container.image,
                })
            })
            .collect();
        let policy = match id_of(&sandbox, Role::Gateway)
            .and_then(|gateway| ask(&sandbox.engine, gateway, &sandbox.name, &Request::Status))
        {
            Ok(Answer::Status(status)) => status.policy,
            _ => None,
        };
        let learning = sandbox.is_learning();
        found.push(json!({
            "name": sandbox.name, "engine": sandbox.engine.kind.program(), "isolated": sandbox.is_sealed(),
            "state": sandbox.container(Role::Workload).map(|container| &container.state),
            "policy": policy, "learning": learning, "ports": sandbox.ports(), "containers": containers, "configuration": configuration,
        }));
    }
    let text = serde_json::to_string_pretty(&found)
        .map_err(|error| Failure::because("cannot print", &error))?;
    printed(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `egret export`
pub(crate) fn export(arguments: &Inspect) -> Result<ExitCode, Failure> {
    for name in &arguments.names {
        let configuration = configuration_of(&must_find(name.as_str(), arguments.engine)?)?;
        for variable in configuration
            .env
            .iter()
            .filter(|variable| !variable.contains('='))
        {
            say!("egret: {variable} will be taken from the environment of whoever runs this");
        }
        printed(configuration.to_json().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The run configuration that a sandbox was made from.
fn configuration_of(sandbox: &Sandbox) -> Result<RunConfig, Failure> {
    let name = &sandbox.name;
    sandbox
        .containers
        .iter()
        .find_map(Container::configuration)
        .ok_or_else(|| Failure::new(format!("nothing that is left of {name} has its run configuration; `egret rm -f {name}` removes it")))
}

/// `egret exec`
pub(crate) fn exec(arguments: &Exec) -> Result<ExitCode, Failure> {
    let signals = wait::signals()?;
    for variable in &arguments.env {
        check_variable("-e", variable)?;
    }
    let sandbox = must_find(arguments.name.as_str(), arguments.engine)?;
    let Some(workload) = sandbox
        .container(Role::Workload)
        .filter(|container| container.runs())
    else {
        return Err(Failure::new(format!(
            "{0} is not running; `egret start {0}` starts it",
            sandbox.name
        )));
    };
    let mut words = vec!["exec".to_owned()];
    for (given, option) in [
        (arguments.interactive, "--interactive"),
        (arguments.tty, "--tty"),
        (arguments.detach, "--detach"),
    ] {
        if given {
            words.push(option.into());
        }
    }
    let values = [
        ("--user", arguments.user.as_ref()),
        ("--workdir", arguments.workdir.as_ref()),
    ];
    let variables = arguments.env.iter().map(|variable| ("--env", variable));
    let given = values
        .into_iter()
        .filter_map(|(option, value)| Some((option, value?)));
    for (option, value) in given.chain(variables) {
        words.extend([option.to_owned(), value.clone()]);
    }
    words.push(workload.id.clone());
    words.extend(arguments.command.iter().cloned());
    wait::foreground(&sandbox.engine, words, &signals).map(wait::exit_as)
}

/// `egret logs` of a container: the workload's output.
pub(crate) fn logs(
    sandbox: &Sandbox,
    follow: bool,
    tail: Option<&str>,
) -> Result<ExitCode, Failure> {
    let signals = wait::signals()?;
    let mut words = vec!["logs".to_owned()];
    if follow {
        words.push("--follow".into());
    }
    if let Some(tail) = tail {
        words.extend(["--tail".into(), tail.to_owned()]);
    }
    words.push(id_of(sandbox, Role::Workload)?.to_owned());
    wait::foreground(&sandbox.engine, words, &signals).map(wait::exit_as)
}

/// The audit records of a sandbox, as they come; `None` if it has no gateway. Ended when dropped.
pub(crate) fn audit(sandbox: &Sandbox, follow: bool) -> Result<Option<AuditStream>, Failure> {
    let Some(gateway) = sandbox.container(Role::Gateway) else {
        return Ok(None);
    };
    let words: &[&str] = match follow {
        true => &["logs", "--follow", &gateway.id],
        false => &["logs", &gateway.id],
    };
    let child = sandbox
        .engine
        .command(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    child
        .map(|child| Some(AuditStream(child)))
        .map_err(|error| Failure::because("cannot read the audit log", &error))
}

/// What an engine prints of a gateway's records.
#[derive(Debug)]
pub(crate) struct AuditStream(Child);

impl AuditStream {
    /// What is read from it, for a thread of its own; it goes on for as long as the stream itself is kept.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }
}

impl io::Read for AuditStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .stdout
            .as_mut()
            .map_or(Ok(0), |output| output.read(buffer))
    }
}

impl Drop for AuditStream {
    fn drop(&mut self) {
        dismiss(&mut self.0);
    }
}

/// Asks the gateway of a container sandbox, as [`control::ask`] asks a process.
pub(crate) fn ask_gateway(sandbox: &Sandbox, request: &Request) -> Result<Answer, Failure> {
    if !sandbox.is_sealed() {
        return Err(Failure::new(format!(
            "{} runs without isolation: no policy is enforced",
            sandbox.name
        )));
    }
    ask(
        &sandbox.engine,
        id_of(sandbox, Role::Gateway)?,
        &sandbox.name,
        request,
    )
}

/// Asks a gateway, by way of a process that the engine starts beside it.
pub(super) fn ask(
    engine: &Engine,
    gateway: &str,
    name: &str,
    request: &Request,
) -> Result<Answer, Failure> {
    let failed = |error: &dyn std::error::Error| cannot_ask(name, error);
    let mut child = beside(engine, gateway, name)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(&error))?;
    line.push(b'\n');
    let told = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(&line));
    let answer =
        super::engine::printed(child.wait_with_output()).map_err(|complaint| failed(&complaint))?;
    told.map_err(|error| failed(&error))?;
    serde_json::from_str(&answer).map_err(|error| failed(&error))
}

/// A conversation with a gateway, for whoever asks often: starting a process takes longer than any answer. The process ends
/// with it.
#[derive(Debug)]
pub(crate) struct Conversation {
    name: String,
    child: Child,
    says: Option<ChildStdin>,
    hears: Option<BufReader<ChildStdout>>,
}

impl Conversation {
    /// Begins one with the gateway of a sandbox.
    pub(crate) fn begin(sandbox: &Sandbox) -> Result<Self, Failure> {
        let gateway = id_of(sandbox, Role::Gateway)?;
        let mut child = beside(&sandbox.engine, gateway, &sandbox.name)?;
        // Nobody reads what it complains of: that there is no answer says enough.
        drop(child.stderr.take());
        Ok(Self {
            name: sandbox.name.clone(),
            says: child.stdin.take(),
            hears: child.stdout.take().map(BufReader::new),
            child,
        })
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Answer, Failure> {
        let mut converse = || -> io::Result<Answer> {
            let (Some(says), Some(hears)) = (&mut self.says, &mut self.hears) else {
                return Err(io::ErrorKind::BrokenPipe.into());
            };
            let mut line = serde_json::to_vec(request)?;
            line.push(b'\n');
            says.write_all(&line)?;
            let mut answer = String::new();
            hears.read_line(&mut answer)?;
            Ok(serde_json::from_str(&answer)?)
        };
        converse().map_err(|error| cannot_ask(&self.name, &error))
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        dismiss(&mut self.child);
    }
}

/// Starts `egret ask` beside a gateway.
fn beside(engine: &Engine, gateway: &str, name: &str) -> Result<Child, Failure> {
    engine
        .command([
            "exec",
            "--interactive",
            gateway,
            image::PROGRAM,
            "ask",
            name,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_ask(name, &error))
}

fn cannot_ask(name: &str, error: &dyn std::error::Error) -> Failure {
    Failure::because(format_args!("cannot ask the gateway of {name}"), error)
}

fn printed(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}").map_err(|error| Failure::because("cannot print", &error))
}
