//! Waiting for an engine's command as for a program of one's own: signals are passed on, and it ends as the other did.

use super::engine::Engine;
use crate::failure::Failure;
use egret_sandbox::{Arrived, Ended, Signals, die_by};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitCode};

/// Signals, to be passed on. To be asked for before any thread, so that every thread leaves them to this one.
pub(crate) fn signals() -> Result<Signals, Failure> {
    Signals::block().map_err(|error| Failure::because("cannot receive signals", &error))
}

/// Runs a command of the engine's with our own standard input, output and error, to its end.
pub(crate) fn foreground(
    engine: &Engine,
    arguments: Vec<String>,
    signals: &Signals,
) -> Result<Ended, Failure> {
    let failed = |error: io::Error| {
        Failure::because(format_args!("cannot run {}", engine.kind.program()), &error)
    };
    let mut command = engine.command(arguments);
    let mut child = signals.unblock_in(&mut command).spawn().map_err(failed)?;
    watch(&mut child, signals).map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Status(code),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Status(125),
    })
}

/// Passes signals on until the child has ended.
fn watch(child: &mut Child, signals: &Signals) -> io::Result<()> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::SRCH)?;
    let ends = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let mut ready = [
            PollFd::new(&ends, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [ended, _] = &ready;
        if !ended.revents().is_empty() {
            return Ok(());
        }
        while let Some(Arrived {
            number,
            from_kernel,
        }) = signals.next()?
        {
            // What the keyboard sends, the engine's command has had by itself: it is in the same process group.
            let passed_on = !from_kernel && number != Signal::CHILD.as_raw();
            if let Some(signal) = Signal::from_named_raw(number).filter(|_| passed_on) {
                match kill_process(pid, signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
    }
}

/// Ends as the program did.
pub(crate) fn exit_as(ended: Ended) -> ExitCode {
    match ended {
        Ended::Status(status) => ExitCode::from(status.to_le_bytes()[0]),
        // A caller can tell a signal from a status, so we end by one, too; the status is for a signal that does not end us.
        Ended::Signal(signal) => {
            let Err(_survived) = die_by(signal);
            ExitCode::from(128u8.saturating_add(signal.to_le_bytes()[0]))
        }
    }
}
