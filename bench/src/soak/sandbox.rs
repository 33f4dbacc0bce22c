//! A sandbox with the generator of load in it.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::load::Shape;
use super::tally::Tally;
use crate::{Error, process};

pub(crate) struct Sandbox {
    pub(crate) process: Child,
    /// The process in which the gateway is.
    pub(crate) id: u32,
    input: Option<ChildStdin>,
    said: Receiver<String>,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    /// In KiB.
    pub(crate) resident: u64,
    pub(crate) written: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Sandbox {
    /// Starts one, of this name, by the policy in `directory`. Those that share a directory share a log.
    pub(crate) fn start(egret: &Path, directory: &Path, name: &str) -> Result<Self, Error> {
        let itself = std::env::current_exe()?;
        let mut process = Command::new(egret)
            .args(["run", "--name", name, "--policy"])
            .arg(directory.join("policy.yaml"))
            .arg("--log-file")
            .arg(directory.join("audit.jsonl"))
            .arg("--read")
            .arg(&itself)
            .arg("--")
            .arg(&itself)
            .arg("soak-load")
            .arg(tag(directory, name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", egret.display()))?;
        let out = BufReader::new(process.stdout.take().ok_or("no output")?);
        let (say, said) = channel();
        std::thread::spawn(move || {
            // Until it ends, or nobody listens.
            for line in out.lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    break;
                }
            }
        });
        let mut sandbox = Self {
            id: process.id(),
            input: process.stdin.take(),
            process,
            said,
        };
        sandbox.expect("ready")?;
        Ok(sandbox)
    }

    /// Has the load do something.
    pub(crate) fn begin(&mut self, shape: &Shape) -> Result<(), Error> {
        let input = self.input.as_mut().ok_or("no input")?;
        Ok(writeln!(input, "{}", serde_json::to_string(shape)?)?)
    }

    /// Waits for what comes of it, and does something each second until then.
    pub(crate) fn end(
        &mut self,
        mut meanwhile: impl FnMut() -> Result<(), Error>,
    ) -> Result<Tally, Error> {
        loop {
            match self.said.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => return Ok(serde_json::from_str(&line)?),
                Err(RecvTimeoutError::Timeout) => meanwhile()?,
                Err(RecvTimeoutError::Disconnected) => return Err("the load is gone".into()),
            }
        }
    }

    /// Waits for a line.
    pub(crate) fn expect(&mut self, line: &str) -> Result<(), Error> {
        match self.said.recv_timeout(Duration::from_secs(120)) {
            Ok(said) if said == line => Ok(()),
            other => Err(format!("the load was to say `{line}`, and it was: {other:?}").into()),
        }
    }

    /// Waits until nobody is there who could say something more.
    pub(crate) fn silent(&mut self) -> Result<(), Error> {
        match self.said.recv_timeout(Duration::from_secs(5)) {
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            other => Err(format!("the load goes on: {other:?}").into()),
        }
    }

    /// What the gateway's process holds now.
    pub(crate) fn rest(&self) -> Result<Rest, Error> {
        Rest::of(self.id)
    }

    /// The time of the processor that the gateway's process has used.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        process::cpu_time(self.id)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The load ends with its input, and Egret with the load.
        self.input = None;
        self.process.wait().ok();
    }
}

impl Rest {
    pub(crate) fn of(id: u32) -> Result<Self, Error> {
        Ok(Self {
            resident: process::resident(id)?,
            written: process::written(id)?,
            descriptors: process::descriptors(id)?,
            threads: std::fs::read_dir(format!("/proc/{id}/task"))?.count(),
        })
    }

    /// The most of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            written: self.written.max(other.written),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
        }
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resident,
            written,
            descriptors,
            threads,
        } = self;
        write!(
            f,
            "{resident} KiB resident, {written} KiB of it written, {descriptors} descriptors, {threads} threads"
        )
    }
}

/// A word by which the load of one sandbox is found among all processes.
pub(crate) fn tag(directory: &Path, name: &str) -> String {
    let directory = directory.file_name().unwrap_or_default();
    format!("{}-{name}", directory.to_string_lossy())
}
