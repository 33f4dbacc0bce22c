//! Lines, where there is no terminal to paint on: the records of all sandboxes as they come.

use super::source::{News, Source, Wanted};
use super::terminal;
use crate::cli::Output;
use crate::failure::Failure;
use crate::logs;
use egret_policy::SandboxId;
use std::io;
use std::sync::mpsc::sync_channel;

/// Prints records until the named sandboxes have ended; without names, for ever.
pub(crate) fn follow(names: Vec<SandboxId>, output: Output) -> Result<(), Failure> {
    let (send, receive) = sync_channel::<News>(1024);
    let mut left = names.len();
    let for_ever = names.is_empty();
    let source = Source::start(
        Wanted {
            names,
            activity: false,
        },
        send,
    );
    let mut out = io::stdout().lock();
    let colour = terminal::is_there() && std::env::var_os("NO_COLOR").is_none();
    for news in receive {
        let printed = match news {
            News::Line(name, line) => print(&mut out, &name, &line, output, colour),
            News::Ended(_) if for_ever => Ok(()),
            News::Ended(_) => {
                left = left.saturating_sub(1);
                if left == 0 {
                    break;
                }
                Ok(())
            }
            News::Began(..) | News::Activity(..) => Ok(()),
        };
        match printed {
            Ok(()) => {}
            // Whoever reads us has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(Failure::because("cannot print", &error)),
        }
    }
    drop(source);
    Ok(())
}

fn print(
    out: &mut impl io::Write,
    name: &str,
    line: &str,
    output: Output,
    colour: bool,
) -> io::Result<()> {
    match output {
        Output::Json => writeln!(out, "{line}")?,
        Output::Text => writeln!(out, "{name} {}", logs::line_for_people(line, colour))?,
    }
    out.flush()
}
