//! The end of a run: what was refused, why, and the flag that would allow it; and what was allowed and not reached.

use crate::cli::Output;
use anstyle::{AnsiColor, Style};
use egret_gateway::{Failure, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

/// What there is to say about a run that has ended.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Ending {
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) failures: Vec<Failure>,
    /// Where all of it can be read.
    pub(crate) log: String,
    /// What it was decided by at the end, if that was more than options.
    pub(crate) policy: Option<String>,
}

/// Prints the summary to standard error. Nothing amiss, nothing printed, unless machines read it.
pub(crate) fn print(ending: &Ending, output: Output) -> io::Result<()> {
    let stderr = io::stderr();
    let text = match output {
        Output::Json => format!("{}\n", json(ending)),
        Output::Text if ending.refusals.is_empty() && ending.failures.is_empty() => return Ok(()),
        Output::Text => text(
            ending,
            stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        ),
    };
    stderr.lock().write_all(text.as_bytes())
}

fn json(ending: &Ending) -> serde_json::Value {
    let refused: Vec<_> = ending
        .refusals
        .iter()
        .map(|Refusal { destination, reason, count, hint, cause }| {
            json!({ "destination": destination, "reason": reason, "count": count, "flag": hint, "cause": cause })
        })
        .collect();
    let failed: Vec<_> = ending
        .failures
        .iter()
        .map(
            |Failure {
                 destination,
                 cause,
                 count,
             }| json!({ "destination": destination, "cause": cause, "count": count }),
        )
        .collect();
    json!({ "refused": refused, "failed": failed, "log": ending.log, "policy": ending.policy })
}

fn text(ending: &Ending, colour: bool) -> String {
    let paint = |style: Style| if colour { style } else { Style::new() };
    let bold = paint(Style::new().bold());
    let red = paint(AnsiColor::Red.on_default());
    let dim = paint(Style::new().dimmed());
    let destinations = ending.refusals.iter().map(|refusal| &refusal.destination);
    let destinations =
        destinations.chain(ending.failures.iter().map(|failure| &failure.destination));
    let width = destinations
        .map(|destination| destination.chars().count())
        .max()
        .unwrap_or(0)
        .min(50);
    let attempts = |count: u64| if count == 1 { "attempt" } else { "attempts" };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let refused: u64 = ending.refusals.iter().map(|refusal| refusal.count).sum();
    if refused > 0 {
        let _ = writeln!(
            text,
            "\n{bold}egret refused {refused} {}:{bold:#}",
            attempts(refused)
        );
    }
    for Refusal {
        destination,
        reason,
        count,
        hint,
        cause,
    } in &ending.refusals
    {
        let _ = write!(
            text,
            "  {red}{destination:<width$}{red:#}  {count:>4}×  {reason}"
        );
        match hint {
            Some(flag) if flag.starts_with("--") => {
                let _ = write!(text, "  {dim}allow with{dim:#} {flag}");
            }
            Some(change) => {
                let _ = write!(text, "  {dim}to allow it,{dim:#} {change}");
            }
            None => {
                let _ = write!(
                    text,
                    "  {dim}{}{dim:#}",
                    cause.as_deref().unwrap_or_default()
                );
            }
        }
        text.push('\n');
    }
    let failed: u64 = ending.failures.iter().map(|failure| failure.count).sum();
    if failed > 0 {
        let _ = writeln!(
            text,
            "\n{bold}{failed} allowed {} failed:{bold:#}",
            attempts(failed)
        );
    }
    for Failure {
        destination,
        cause,
        count,
    } in &ending.failures
    {
        let _ = writeln!(text, "  {destination:<width$}  {count:>4}×  {cause}");
    }
    if let Some(policy) = &ending.policy {
        let _ = writeln!(text, "{dim}decided by the policy {policy}{dim:#}");
    }
    let _ = writeln!(text, "{dim}every decision is in {}{dim:#}", ending.log);
    text
}
