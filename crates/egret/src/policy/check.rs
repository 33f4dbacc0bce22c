//! `egret policy check`: whether policies can be used, and what is wrong or probably not meant.

use super::{
    BAD_INPUT, Bad, FINE, Loaded, Page, cannot_print, counted, load, one_standard_input,
    print_json, refuse_input, shown, tell_all,
};
use crate::cli::Output;
use clap::Args;
use serde_json::json;
use std::io;

/// Arguments of `egret policy check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  egret policy check agent.yaml
  egret policy check acl.yaml#web           # a service of a Smokescreen file
  egret policy check - --output json < agent.yaml

Exit status: 0 fine, with or without warnings; 2 if a policy cannot be used.")]
pub(crate) struct Check {
    /// The policies; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn check(args: &Check) -> u8 {
    if let Err(bad) = one_standard_input(&args.files) {
        return refuse_input(&bad, args.output);
    }
    let checked: Vec<_> = args.files.iter().map(|file| (file, load(file))).collect();
    let status = match checked.iter().all(|(_, result)| result.is_ok()) {
        true => FINE,
        false => BAD_INPUT,
    };
    let printed = match args.output {
        Output::Json => {
            let files = checked.iter().map(|(file, result)| in_json(file, result));
            print_json(&json!({ "files": files.collect::<Vec<_>>() }))
        }
        Output::Text => checked
            .iter()
            .try_for_each(|(file, result)| in_text(file, result)),
    };
    printed.map_or_else(|error| cannot_print(&error), |()| status)
}

fn in_json(file: &str, result: &Result<Loaded, Bad>) -> serde_json::Value {
    match result {
        Ok(Loaded { policy, warnings }) => {
            json!({ "file": file, "valid": true, "entries": policy.entries(), "errors": [], "warnings": warnings })
        }
        Err(bad) => bad.in_json(file),
    }
}

fn in_text(file: &str, result: &Result<Loaded, Bad>) -> io::Result<()> {
    match result {
        Ok(Loaded { policy, warnings }) => {
            tell_all(warnings)?;
            let entries = match policy.entries() {
                1 => "1 entry".to_owned(),
                count => format!("{count} entries"),
            };
            let warnings = match warnings.len() {
                0 => String::new(),
                count => format!(", {}", counted(count)),
            };
            let mut page = Page::for_stdout();
            writeln!(page, "{}: valid, {entries}{warnings}", shown(file));
            page.print()
        }
        Err(bad) => bad.tell(),
    }
}
