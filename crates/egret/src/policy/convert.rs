//! `egret policy convert`: policies of other systems in Egret's own language.
//!
//! What is narrower here than there stands above the policy, so that whoever reads it knows, and is said to the user.

use super::{
    FINE, Page, cannot_print, parse, print_data, print_json, refuse_input, shown, tell_all,
};
use crate::cli::Output;
use anstyle::AnsiColor;
use clap::Args;
use egret_policy::{Language, Parsed};
use serde_json::json;
use std::io;

/// Arguments of `egret policy convert`.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// The policy, with the service that is meant if it has several; `-` is standard input
    #[arg(value_name = "FILE[#SERVICE]")]
    file: String,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn convert(args: &Convert) -> u8 {
    let parsed = match parse(&args.file) {
        Ok(parsed) => parsed,
        Err(bad) => return refuse_input(&bad, args.output),
    };
    let text = match parsed.policy.to_yaml(&comments(&parsed, &args.file)) {
        Ok(text) => text,
        Err(errors) => return refuse_input(&errors.into(), args.output),
    };
    let Parsed {
        language,
        notes,
        warnings,
        ..
    } = parsed;
    let printed = match args.output {
        Output::Json => {
            let converted = json!({ "policy": text, "language": language, "notes": notes, "warnings": warnings });
            print_json(&converted)
        }
        Output::Text => tell_all(&warnings)
            .and_then(|()| tell_notes(language, &notes))
            .and_then(|()| print_data(&text)),
    };
    printed.map_or_else(|error| cannot_print(&error), |()| FINE)
}

/// What stands above the policy.
fn comments(parsed: &Parsed, file: &str) -> Vec<String> {
    if parsed.language == Language::Native {
        return Vec::new();
    }
    let from = parsed.language.name();
    let from = match file {
        "-" => format!("Converted from a policy for {from}."),
        path => format!("Converted from {}, a policy for {from}.", shown(path)),
    };
    let differs = (!parsed.notes.is_empty()).then(|| "What differs from there:".to_owned());
    let notes = parsed.notes.iter().map(|note| format!("- {note}"));
    std::iter::once(from).chain(differs).chain(notes).collect()
}

fn tell_notes(language: Language, notes: &[String]) -> io::Result<()> {
    let mut page = Page::for_stderr();
    let own =
        "this is in Egret's own language already; `egret policy fmt` keeps its comments".to_owned();
    let notes = match language {
        Language::Native => std::slice::from_ref(&own),
        _ => notes,
    };
    for note in notes {
        page.paint(AnsiColor::Cyan.on_default().bold(), "note");
        writeln!(page, ": {note}");
    }
    page.tell()
}
