//! What is said when a sandbox has started, and what is kept when it ends: the audit log outlives the containers.

use super::engine::Engine;
use super::sandbox;
use super::spec::{FIRST_INBOUND, Spec, agent_name, gateway_name};
use crate::cli;
use crate::failure::Failure;
use crate::learn::Learner;
use crate::summary::{self, Ending};
use crate::{logs, settings};
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Says where published ports of HTTP servers are, to whoever sees it.
pub(crate) fn say_where(engine: &Engine, spec: &Spec) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let gateway = gateway_name(spec.name.as_str());
    for (publish, inner) in spec.published.iter().zip(FIRST_INBOUND..) {
        let address = match publish.host_port {
            Some(port) => Ok(std::net::SocketAddr::new(publish.address, port).to_string()),
            None => engine.output(["port", &gateway, &format!("{inner}/tcp")]),
        };
        // That it cannot be told is no reason not to run.
        if let Some(address) = address.ok().as_deref().and_then(|text| text.lines().next()) {
            let scheme = if publish.http { "http://" } else { "" };
            say!(
                "egret: port {} of the sandbox is {scheme}{address}",
                publish.port
            );
        }
    }
}

/// Whether the workload was started at all.
pub(crate) fn has_run(engine: &Engine, spec: &Spec) -> bool {
    // An engine removes one with `--rm` either way; nothing is to be kept of that, then.
    let started = engine.output([
        "container",
        "inspect",
        "--format",
        "{{.State.StartedAt}}",
        spec.name.as_str(),
    ]);
    started.is_ok_and(|started| !started.starts_with("0001-")) || spec.remove
}

/// Ends a sandbox whose workload has ended, in the foreground: stopped, or removed where that was asked for.
pub(crate) fn finish(
    engine: &Engine,
    spec: &Spec,
    arguments: &cli::Run,
    learner: Option<Learner>,
) -> Result<(), Failure> {
    let name = spec.name.as_str();
    let (agent, gateway) = (agent_name(name), gateway_name(name));
    // Each may have been stopped or removed from elsewhere meanwhile, which is as well.
    let records = std::thread::scope(|scope| {
        let agent = scope.spawn(|| match spec.remove {
            true => sandbox::remove_containers(engine, &agent).map(|()| String::new()),
            false => engine.output(["stop", "--time", "1", &agent]),
        });
        let (Ok(_) | Err(_)) = engine.output(["stop", "--time", "5", &gateway]);
        let records = Records::of(engine, &gateway);
        let (Ok(_) | Err(_)) = agent.join();
        records
    });
    let log = match (&arguments.options.log_file, spec.remove) {
        (None, false) => format!("egret logs --audit {name}"),
        (file, _) => records.keep(name, file.as_deref())?.display().to_string(),
    };
    if spec.remove {
        // What is left is two things, unless something went wrong before; whatever it is, it is looked for then.
        sandbox::remove_containers(engine, &gateway)
            .and_then(|()| engine.output(["volume", "rm", &spec.volume_name()]))
            .map(|_| ())
            .or_else(|_| sandbox::undo(engine, &spec.instance))
            .map_err(|complaint| {
                Failure::because(format_args!("cannot remove {name}"), &complaint)
            })?;
    }
    let wanted = arguments.summary
        || arguments.output == cli::Output::Json
        || std::io::stderr().is_terminal();
    if let Some(ending) = records.ending.filter(|_| wanted) {
        // The program has ended; that its summary cannot be printed does not change how.
        let log = log.clone();
        let (Ok(()) | Err(_)) = summary::print(&Ending { log, ..ending }, arguments.output);
    }
    match learner {
        Some(mut learner) => {
            learner.read(&records.audit)?;
            learner.finish(&log)
        }
        None => Ok(()),
    }
}

/// What a gateway has written.
pub(crate) struct Records {
    audit: Vec<u8>,
    ending: Option<Ending>,
}

impl Records {
    /// Asks the engine, which keeps them as the container's output; none if there is no gateway.
    fn of(engine: &Engine, gateway: &str) -> Self {
        let Ok(output) = engine.outcome(["logs", gateway]) else {
            return Self {
                audit: Vec::new(),
                ending: None,
            };
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let ending = said
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str(line).ok());
        Self {
            audit: if output.status.success() {
                output.stdout
            } else {
                Vec::new()
            },
            ending,
        }
    }

    /// Writes them to a file, readable for this user only: the one that is named, or one among the logs.
    fn keep(&self, name: &str, file: Option<&Path>) -> Result<PathBuf, Failure> {
        let path = match file {
            Some(file) => file.to_owned(),
            None => {
                settings::make_log_directory()?.join(logs::file_name(name, jiff::Timestamp::now()))
            }
        };
        let written = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(&self.audit));
        written.map_err(|error| {
            Failure::because(
                format_args!("cannot write the audit log {}", path.display()),
                &error,
            )
        })?;
        Ok(path)
    }

    /// Lets a gateway say its last words, and keeps all that it has written, if it has.
    pub(crate) fn take_last(engine: &Engine, gateway: &str, name: &str) -> Result<(), Failure> {
        // It may have ended, or be gone, already.
        let (Ok(_) | Err(_)) = engine.output(["stop", "--time", "5", gateway]);
        let records = Self::of(engine, gateway);
        if records.audit.is_empty() {
            return Ok(());
        }
        records.keep(name, None).map(|_| ())
    }
}
