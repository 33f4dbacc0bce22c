//! What is said when a sandbox has started, and what is kept when it ends: the audit log outlives the containers.

use super::engine::{Engine, Kind};
use super::sandbox;
use super::spec::{FIRST_INBOUND, Spec, agent_name, gateway_name, label};
use crate::cli;
use crate::failure::Failure;
use crate::summary::{self, Ending};
use crate::{logs, settings};
use clap::ValueEnum as _;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

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
pub(crate) fn finish(engine: &Engine, spec: &Spec, arguments: &cli::Run) -> Result<(), Failure> {
    let name = spec.name.as_str();
    let (agent, gateway) = (agent_name(name), gateway_name(name));
    // Each may have been stopped or removed from elsewhere meanwhile, which is as well.
    let records = std::thread::scope(|scope| {
        let agent = scope.spawn(|| match spec.remove {
            true => engine.output(["rm", "--force", &agent]),
            false => engine.output(["stop", "--time", "1", &agent]),
        });
        let (Ok(_) | Err(_)) = engine.output(["stop", "--time", "5", &gateway]);
        let records = Records::of(engine, name);
        let (Ok(_) | Err(_)) = agent.join();
        records
    });
    let log = match (&arguments.log_file, spec.remove) {
        (None, false) => format!("egret logs --audit {name}"),
        (file, _) => records.keep(name, file.as_deref())?.display().to_string(),
    };
    if spec.remove {
        // What is left is two things, unless something went wrong before; whatever it is, it is looked for then.
        let removed = engine
            .output(["rm", "--force", &gateway])
            .and_then(|_| engine.output(["volume", "rm", &spec.volume_name()]));
        if removed.is_err() {
            remove(engine, name)?;
        }
    }
    let wanted = arguments.summary
        || arguments.output == cli::Output::Json
        || std::io::stderr().is_terminal();
    if let Some(ending) = records.ending.filter(|_| wanted) {
        // The program has ended; that its summary cannot be printed does not change how.
        let (Ok(()) | Err(_)) = summary::print(&Ending { log, ..ending }, arguments.output);
    }
    Ok(())
}

/// Leaves a process behind that removes a sandbox in the background when its workload has ended: the engine removes that,
/// and knows nothing of the rest.
pub(crate) fn leave_minder(engine: &Engine, spec: &Spec) -> Result<(), Failure> {
    let nowhere = std::process::Stdio::null;
    let minder = std::process::Command::new("/proc/self/exe")
        .args([
            "mind",
            engine.kind.program(),
            spec.name.as_str(),
            &spec.instance,
        ])
        .current_dir("/")
        .stdin(nowhere())
        .stdout(nowhere())
        .stderr(nowhere())
        .spawn();
    minder.map(|_| ()).map_err(|error| {
        Failure::because(
            "cannot leave a process behind that removes the sandbox",
            &error,
        )
    })
}

/// `egret mind ENGINE SANDBOX INSTANCE`
pub(crate) fn mind(arguments: &[String]) -> Result<ExitCode, Failure> {
    let mistaken = || Failure::new("`egret mind` is how egret leaves a process behind");
    let [kind, name, instance] = arguments else {
        return Err(mistaken());
    };
    let kind = Kind::from_str(kind, false).map_err(|_| mistaken())?;
    // It outlives the terminal that it was started from.
    rustix::process::setsid().map_err(|errno| {
        Failure::because("cannot leave the terminal", &std::io::Error::from(errno))
    })?;
    let engine = Engine::find(Some(kind))?;
    let wanted = format!("label={}={instance}", label::INSTANCE);
    let workload = format!("label={}=workload", label::ROLE);
    loop {
        // Returns when it has ended, at once if it is not there, and when the engine itself ends.
        let (Ok(_) | Err(_)) = engine.output(["wait", name]);
        let left = engine.output([
            "ps", "--all", "--quiet", "--filter", &wanted, "--filter", &workload,
        ]);
        if left.is_ok_and(|left| left.trim().is_empty()) {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let (Ok(_) | Err(_)) = engine.output(["stop", "--time", "5", &gateway_name(name)]);
    let records = Records::of(&engine, name);
    if records.are_any() {
        records.keep(name, None)?;
    }
    sandbox::remove_labelled(&engine, &format!("{}={instance}", label::INSTANCE))
        .map_err(|complaint| Failure::because(format_args!("cannot remove {name}"), &complaint))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes all of a sandbox.
pub(crate) fn remove(engine: &Engine, name: &str) -> Result<(), Failure> {
    sandbox::remove_labelled(engine, &format!("{}={name}", label::SANDBOX))
        .map_err(|complaint| Failure::because(format_args!("cannot remove {name}"), &complaint))
}

/// What a gateway has written.
pub(crate) struct Records {
    audit: Vec<u8>,
    ending: Option<Ending>,
}

impl Records {
    /// Asks the engine, which keeps them as the container's output; none if there is no gateway.
    pub(crate) fn of(engine: &Engine, name: &str) -> Self {
        let output = engine
            .command(["logs", &gateway_name(name)])
            .stdin(std::process::Stdio::null())
            .output();
        let Ok(output) = output else {
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
    pub(crate) fn keep(&self, name: &str, file: Option<&Path>) -> Result<PathBuf, Failure> {
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

    pub(crate) fn are_any(&self) -> bool {
        !self.audit.is_empty()
    }
}
