//! The end of a run in which something was refused: what, why, and the flag that would allow it.

use crate::cli::Output;
use anstyle::{AnsiColor, Style};
use egret_gateway::Refusal;
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

/// Prints the summary to standard error. Nothing refused, nothing printed, unless machines read it.
pub(crate) fn print(refusals: &[Refusal], output: Output, log: &str) -> io::Result<()> {
    let stderr = io::stderr();
    let text = match output {
        Output::Json => format!("{}\n", json(refusals, log)),
        Output::Text if refusals.is_empty() => return Ok(()),
        Output::Text => text(
            refusals,
            log,
            stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        ),
    };
    stderr.lock().write_all(text.as_bytes())
}

fn json(refusals: &[Refusal], log: &str) -> serde_json::Value {
    let refused: Vec<_> = refusals
        .iter()
        .map(|refusal| {
            json!({
                "destination": refusal.destination,
                "reason": refusal.reason,
                "count": refusal.count,
                "flag": refusal.hint,
            })
        })
        .collect();
    json!({ "refused": refused, "log": log })
}

fn text(refusals: &[Refusal], log: &str, colour: bool) -> String {
    let paint = |style: Style| if colour { style } else { Style::new() };
    let bold = paint(Style::new().bold());
    let red = paint(AnsiColor::Red.on_default());
    let dim = paint(Style::new().dimmed());
    let total: u64 = refusals.iter().map(|refusal| refusal.count).sum();
    let width = refusals
        .iter()
        .map(|refusal| refusal.destination.chars().count())
        .max()
        .unwrap_or(0)
        .min(50);
    let mut text = format!(
        "\n{bold}egret refused {total} {}:{bold:#}\n",
        if total == 1 { "attempt" } else { "attempts" }
    );
    for refusal in refusals {
        let Refusal {
            destination,
            reason,
            count,
            hint,
        } = refusal;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "  {red}{destination:<width$}{red:#}  {count:>4}×  {reason}"
        );
        if let Some(hint) = hint {
            let _ = write!(text, "  {dim}allow with{dim:#} {hint}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{dim}every decision is in {log}{dim:#}");
    text
}
