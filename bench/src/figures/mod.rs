//! The figures.

pub(crate) mod network;
pub(crate) mod start_container;
pub(crate) mod start_process;

use std::fs;
use std::process::{Command, Stdio};

use crate::report::Report;
use crate::{Error, Run, world};

/// Measures all that is wanted, and prints it.
pub(crate) fn all(run: &Run) -> Result<(), Error> {
    let mut report = Report {
        machine: machine(),
        ..Report::default()
    };
    if network::NAMES.iter().any(|name| run.wants(name)) {
        report.merge(apart(run, world::inside("network")?)?);
    }
    if start_container::NAMES.iter().any(|name| run.wants(name)) {
        match start_container::inside("containers").and_then(|command| apart(run, command)) {
            Ok(measured) => report.merge(measured),
            Err(error) => report.missing.push(format!("containers: {error}")),
        }
    }
    if start_process::NAMES.iter().any(|name| run.wants(name)) {
        report.merge(start_process::measure(run)?);
    }
    match run.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", report.table()),
    }
    Ok(())
}

/// What a command of this executable reports from namespaces of its own.
fn apart(run: &Run, mut command: Command) -> Result<Report, Error> {
    command
        .arg(format!("--rounds={}", run.rounds))
        .arg(format!("--seconds={}", run.seconds))
        .arg("--egret")
        .arg(&run.egret)
        .args(&run.figures)
        .stdout(Stdio::piped());
    if !run.subjects.is_empty() {
        command.arg(format!("--subjects={}", run.subjects.join(",")));
    }
    let out = command.output_with_errors()?;
    Ok(serde_json::from_slice(&out)?)
}

trait OutputWithErrors {
    /// What a command printed; its errors go where ours go.
    fn output_with_errors(&mut self) -> Result<Vec<u8>, Error>;
}

impl OutputWithErrors for Command {
    fn output_with_errors(&mut self) -> Result<Vec<u8>, Error> {
        let out = self
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("{self:?}: {error}"))?;
        match out.status.success() {
            true => Ok(out.stdout),
            false => Err(format!("{self:?} failed").into()),
        }
    }
}

fn machine() -> Vec<(String, String)> {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        line.rsplit_once(':')
            .map_or(line, |(_, value)| value)
            .trim()
            .to_owned()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        (
            "processor".into(),
            format!("{processors} x {}", first("/proc/cpuinfo", "model name")),
        ),
        ("memory".into(), first("/proc/meminfo", "MemTotal")),
        ("Linux".into(), first("/proc/sys/kernel/osrelease", "")),
        ("load before".into(), first("/proc/loadavg", "")),
    ]
}
