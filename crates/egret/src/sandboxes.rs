//! `egret ps`, `egret stop` and `egret policy set`: what is done to sandboxes that run.

use crate::cli::{Output, Ps, SetPolicy, Stop};
use crate::container::{self, Container, Role, Sandbox};
use crate::control::{self, Answer, Request, Status};
use crate::failure::Failure;
use crate::source::{Flags, Origin};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `egret ps`
pub(crate) fn ps(arguments: &Ps) -> Result<ExitCode, Failure> {
    let mut running = Vec::new();
    for name in
        control::names().map_err(|error| Failure::because("cannot list sandboxes", &error))?
    {
        match control::ask(&name, &Request::Status) {
            Ok(Some(Answer::Status(status))) => running.push(status),
            // It ended between being listed and being asked.
            Ok(_) => {}
            Err(failure) => say!("egret: {failure}"),
        }
    }
    let mut containers = container::listed(arguments.engine)?;
    containers.retain(|sandbox| arguments.all || runs(sandbox));
    let text = match arguments.output {
        Output::Json => {
            let rows = running.iter().map(listed);
            let rows = rows.chain(containers.iter().map(described));
            format!("{:#}\n", Value::Array(rows.collect()))
        }
        Output::Text => table(&running, &containers),
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::because("cannot print", &error))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether its workload runs: that is what there is a sandbox for.
fn runs(sandbox: &Sandbox) -> bool {
    sandbox
        .container(Role::Workload)
        .is_some_and(Container::runs)
}

/// How long a container has been running, or how it ended.
fn status(container: &Container) -> String {
    match container.state.as_str() {
        "running" => age(&container.started),
        "exited" => format!("exited ({})", container.exit_code),
        state => state.to_owned(),
    }
}

/// A process sandbox, for machines.
fn listed(status: &Status) -> Value {
    let Status {
        name,
        pid,
        started,
        program,
        policy,
        // What the control socket says of the same, for Egret itself.
        origin: _,
        allow,
        deny,
        learning,
        log,
    } = status;
    json!({
        "name": name, "pid": pid, "started": started, "program": program, "policy": policy, "allow": allow, "deny": deny,
        "learning": learning, "log": log,
    })
}

/// A container sandbox, for machines.
fn described(sandbox: &Sandbox) -> Value {
    let workload = sandbox.container(Role::Workload);
    json!({
        "name": sandbox.name, "engine": sandbox.engine.kind.program(), "isolated": sandbox.is_sealed(), "learning": sandbox.is_learning(),
        "image": workload.map(|container| &container.image), "state": workload.map(|container| &container.state),
        "started": workload.map(|container| &container.started), "ports": sandbox.ports(),
    })
}

fn table(running: &[Status], containers: &[Sandbox]) -> String {
    let mut rows = vec![["NAME", "RUNS IN", "UP", "PROGRAM", "POLICY", "PORTS"].map(str::to_owned)];
    rows.extend(running.iter().map(|status| {
        [
            status.name.clone(),
            format!("process {}", status.pid),
            age(&status.started),
            status.program.clone(),
            in_force(status),
            String::new(),
        ]
    }));
    rows.extend(containers.iter().map(|sandbox| {
        let workload = sandbox.container(Role::Workload);
        [
            sandbox.name.clone(),
            sandbox.engine.kind.program().to_owned(),
            workload.map_or_else(|| "gone".into(), status),
            workload
                .map_or("-", |container| &container.image)
                .to_owned(),
            match (sandbox.is_sealed(), sandbox.is_learning()) {
                (true, true) => "isolated, learning",
                (true, false) => "isolated",
                (false, _) => "none",
            }
            .to_owned(),
            sandbox.ports(),
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// The policy, with what flags add to it and take from it.
fn in_force(status: &Status) -> String {
    let flags = Flags {
        allow: status.allow.clone(),
        deny: status.deny.clone(),
    };
    let policy = format!("{}{flags}", status.policy.as_deref().unwrap_or_default());
    match (policy.trim(), status.learning) {
        ("", false) => "-".to_owned(),
        ("", true) => "learning".to_owned(),
        (policy, true) => format!("{policy}, learning"),
        (policy, false) => policy.to_owned(),
    }
}

/// How long ago, in the largest unit that says something.
pub(crate) fn age(started: &str) -> String {
    let Ok(started) = started.parse::<Timestamp>() else {
        return "?".into();
    };
    let seconds = Timestamp::now()
        .as_second()
        .saturating_sub(started.as_second());
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// `egret stop`
pub(crate) fn stop(arguments: &Stop) -> Result<ExitCode, Failure> {
    for name in &arguments.names {
        let Some(Answer::Status(status)) = control::ask(name.as_str(), &Request::Status)? else {
            let Some(sandbox) = container::find(name.as_str(), arguments.engine)?
                .filter(|sandbox| sandbox.containers.iter().any(Container::runs))
            else {
                return Err(not_running(name.as_str()));
            };
            container::stop(&sandbox, arguments.time)?;
            writeln!(io::stdout(), "{name}")
                .map_err(|error| Failure::because("cannot print", &error))?;
            continue;
        };
        let pid = Pid::from_raw(status.pid).ok_or_else(|| not_running(name.as_str()))?;
        kill_process(pid, Signal::TERM)
            // A stopped program takes the one only with the other.
            .and_then(|()| kill_process(pid, Signal::CONT))
            .map_err(|errno| {
                Failure::because(format_args!("cannot stop {name}"), &io::Error::from(errno))
            })?;
        if !ends_within(name.as_str(), Duration::from_secs(arguments.time))? {
            control::ask(name.as_str(), &Request::End)?;
            if !ends_within(name.as_str(), Duration::from_secs(5))? {
                return Err(Failure::new(format!(
                    "{name} does not end; its process is {}",
                    status.pid
                )));
            }
        }
        writeln!(io::stdout(), "{name}")
            .map_err(|error| Failure::because("cannot print", &error))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ends_within(name: &str, time: Duration) -> Result<bool, Failure> {
    let until = Instant::now() + time;
    loop {
        let names =
            control::names().map_err(|error| Failure::because("cannot list sandboxes", &error))?;
        if !names.iter().any(|running| running == name) {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `egret policy set`
pub(crate) fn set_policy(arguments: &SetPolicy) -> Result<ExitCode, Failure> {
    let bad_input = |failure: Failure| Failure::bad_input(failure.to_string());
    let origin = Origin::named(&arguments.policy).and_then(Origin::resolved);
    let origin = origin.map_err(bad_input)?;
    let text = String::from_utf8(origin.read().map_err(bad_input)?)
        .map_err(|_| Failure::bad_input(format!("the policy {origin} is not UTF-8")))?;
    let request = Request::SetPolicy { origin, text };
    let name = arguments.name.as_str();
    let answer = match control::ask(name, &request)? {
        None => match container::find(name, None)? {
            Some(sandbox) => Some(container::ask_gateway(&sandbox, &request)?),
            None => None,
        },
        answer => answer,
    };
    match answer {
        Some(Answer::Refused(why)) => Err(Failure::bad_input(format!(
            "the policy stays as it was:\n{why}"
        ))),
        Some(_) => Ok(ExitCode::SUCCESS),
        None => Err(not_running(arguments.name.as_str())),
    }
}

fn not_running(name: &str) -> Failure {
    Failure::new(format!(
        "no sandbox named {name} is running; `egret ps` lists those that are"
    ))
}
