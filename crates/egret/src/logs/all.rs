//! `egret logs --all`: what every sandbox that left a log tried to reach, and those that containers keep.

use super::{newest_first, parts::Parts, show};
use crate::cli::Logs;
use crate::container;
use crate::failure::Failure;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::process::ExitCode;

/// Prints the records that are wanted, sandbox by sandbox, the one that was written to last at the end.
pub(super) fn logs(arguments: &Logs) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut stop = Ok(());
    let mut shown = false;
    let mut see = |line: &str| {
        if stop.is_ok() {
            stop = show(&mut out, line, arguments, colour).map(|one| shown |= one);
        }
    };
    for log in newest_first(|_| true)?.iter().rev() {
        let read = Parts::open(log).and_then(|parts| parts.each(&mut see));
        if let Err(error) = read {
            // The others have their say.
            say!(
                "egret: cannot read the audit log {}: {error}",
                log.display()
            );
        }
    }
    for sandbox in container::listed(None)? {
        let Some(stream) = container::audit(&sandbox, false)? else {
            continue;
        };
        for line in BufReader::new(stream).lines() {
            let line =
                line.map_err(|error| Failure::because("cannot read the audit log", &error))?;
            see(&format!("{line}\n"));
        }
    }
    if !shown && stop.is_ok() {
        say!("egret: there is no such record in any log");
    }
    match stop.and_then(|()| out.flush()) {
        // Whoever reads us has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::because("cannot print", &error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
