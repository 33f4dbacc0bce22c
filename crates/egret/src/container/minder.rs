//! A process that sees to the end of a sandbox with `--rm`: the engine removes the workload, and knows nothing of the rest.
//!
//! It is left behind before the workload starts. As long as the egret that started it lives, it only waits on a pipe; what
//! it does after that is what nobody else does, whether the sandbox was to run in the background or that egret was killed.

use super::ending::Records;
use super::engine::{Engine, Kind};
use super::sandbox::{self, Role};
use super::spec::{Spec, gateway_name};
use crate::failure::Failure;
use clap::ValueEnum as _;
use egret_sandbox::Signals;
use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// The process, as long as it only waits.
pub(crate) struct Minder(Child);

impl Minder {
    /// Starts it.
    pub(crate) fn leave(engine: &Engine, spec: &Spec) -> Result<Self, Failure> {
        Command::new("/proc/self/exe")
            .args([
                "mind",
                engine.kind.program(),
                spec.name.as_str(),
                &spec.instance,
            ])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|error| {
                Failure::because(
                    "cannot leave a process behind that removes the sandbox",
                    &error,
                )
            })
    }

    /// Lets it go: with nothing to do, or to do its work.
    pub(crate) fn end(mut self, nothing_to_do: bool) {
        let stdin = self.0.stdin.take();
        if let Some(mut stdin) = stdin.filter(|_| nothing_to_do) {
            // If it is gone, it needs no telling.
            let (Ok(()) | Err(_)) = stdin.write_all(DONE);
            drop(stdin);
            let (Ok(_) | Err(_)) = self.0.wait();
        }
    }
}

/// What it is told when nothing is left to do.
const DONE: &[u8] = b"done";

/// `egret mind ENGINE SANDBOX INSTANCE`
pub(crate) fn mind(arguments: &[String]) -> Result<ExitCode, Failure> {
    let mistaken = || Failure::new("`egret mind` is how egret leaves a process behind");
    let [kind, name, instance] = arguments else {
        return Err(mistaken());
    };
    let kind = Kind::from_str(kind, false).map_err(|_| mistaken())?;
    // It outlives the terminal that it was started from, and what the keyboard sends there.
    rustix::process::setsid()
        .map_err(|errno| Failure::because("cannot leave the terminal", &io::Error::from(errno)))?;
    let _signals =
        Signals::block().map_err(|error| Failure::because("cannot put signals off", &error))?;
    let mut told = Vec::new();
    io::stdin()
        .read_to_end(&mut told)
        .map_err(|error| Failure::because("cannot wait", &error))?;
    if told == DONE {
        return Ok(ExitCode::SUCCESS);
    }

    let engine = Engine::find(Some(kind))?;
    let mut looks_without = 0;
    loop {
        let ids = sandbox::of_start(&engine, instance, Role::Workload);
        match ids.as_deref().map(str::trim) {
            // Whoever was killed may have been about to start it.
            Ok("") if looks_without == 4 => break,
            Ok("") => looks_without += 1,
            // Returns when it has ended, and when the engine itself ends.
            Ok(id) => {
                let (Ok(_) | Err(_)) = engine.output(["wait", id]);
            }
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Records::take_last(&engine, &gateway_name(name), name)?;
    sandbox::undo(&engine, instance)
        .map_err(|complaint| Failure::because(format_args!("cannot remove {name}"), &complaint))?;
    Ok(ExitCode::SUCCESS)
}
