//! `egret explain`: what became of a request, and why, from the audit log alone.
//!
//! A log has the policies that its decisions were taken by, so a decision is taken once more, by the functions that took it
//! then. What comes out is shown as `egret policy explain` shows it, and where it is not what is on record, that is said: the
//! log is what happened.

mod again;
mod find;

pub(crate) use again::{Told, retell};
pub(crate) use find::{Found, by_id};

use crate::cli::Output;
use crate::failure::Failure;
use crate::policy::{Page, explained, print_json, request_of};
use crate::{logs, source};
use clap::Args;
use egret_gateway::audit::{Event, Record, Verdict};
use egret_policy::{Explanation, Program, SandboxId, visible};
use serde_json::json;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

/// Arguments of `egret explain`.
#[derive(Debug, Args)]
#[command(
    override_usage = "egret explain --id ID [--file FILE]\n       egret explain DEST [METHOD PATH] [--sandbox NAME | --file FILE]",
    after_help = "\
Examples:
  egret explain --id k3x9qf-2                        # the id of a refusal, or of a line of `egret logs`
  egret explain api.example.com:443 --sandbox agent  # what its policy in force says, and what it said lately

Nothing is looked up or connected to. For a policy that no sandbox has, there is
`egret policy explain`.

Exit status: 0 allowed, as far as can be told; 1 denied; 2 if there is no such
record, or no policy with it."
)]
pub(crate) struct Explain {
    /// The request with this id
    #[arg(long, conflicts_with_all = ["destination", "sandbox"], required_unless_present = "destination")]
    id: Option<String>,
    /// The sandbox that is asked about; without it, that of the newest log
    #[arg(long, value_name = "NAME")]
    sandbox: Option<SandboxId>,
    /// Read this audit log
    #[arg(long, value_name = "FILE", conflicts_with = "sandbox")]
    file: Option<PathBuf>,
    /// `HOST[:PORT]`, `ADDRESS[:PORT]`, `[IPV6]:PORT` or a URL; where no port is given, the one that was asked for last, or 443
    #[arg(value_name = "DEST")]
    destination: Option<String>,
    /// The method of a request, for a host with `http` rules
    method: Option<String>,
    /// The path of the request
    path: Option<String>,
    /// What the name resolves to; nothing is resolved here
    #[arg(long, value_name = "IP", num_args = 1.., value_delimiter = ',', conflicts_with = "id")]
    resolves_to: Option<Vec<IpAddr>>,
    /// The executable that connects, and after it those that it was started by, nearest first
    #[arg(long, value_name = "EXE", num_args = 1.., value_delimiter = ',', conflicts_with = "id")]
    by: Vec<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// `egret explain`
pub(crate) fn explain(arguments: &Explain) -> Result<ExitCode, Failure> {
    match (&arguments.id, &arguments.destination) {
        (Some(id), _) => of_id(id, arguments),
        (None, Some(destination)) => of_destination(destination, arguments),
        (None, None) => Err(Failure::bad_input("which request? name its --id")),
    }
}

fn of_id(id: &str, arguments: &Explain) -> Result<ExitCode, Failure> {
    let found = by_id(id, arguments.file.as_deref())?;
    let told = retell(&found);
    match arguments.output {
        Output::Text => {
            let mut page = Page::for_stdout();
            tell(&found, &told, &mut page);
            page.print()
        }
        Output::Json => print_json(&described(&found, &told)),
    }
    .map_err(|error| Failure::because("cannot print", &error))?;
    let refused = found.decisive.verdict == Some(Verdict::Deny);
    Ok(ExitCode::from(u8::from(refused)))
}

/// What is on record about a request, and the decision taken once more, for a person.
pub(crate) fn tell(found: &Found, told: &Told, page: &mut Page) {
    let record = &found.decisive;
    writeln!(
        page,
        "{} of the sandbox {}, in {}",
        visible(&record.id),
        visible(&record.sandbox),
        found.log
    );
    for record in &found.records {
        writeln!(page, "  {}", logs::text(record, page.has_colour()));
    }
    if let Some(program) = program_of(record) {
        write!(page, "  asked by {}", visible(&program.executable));
        if let Some(starter) = program.ancestors.first() {
            write!(page, ", which {} started", visible(starter));
        }
        writeln!(page);
    }
    if let Some(message) = &record.message {
        writeln!(page, "  {}", visible(message));
    }
    writeln!(page);
    match &told.explanation {
        Ok(explanation) => {
            in_force(found.policy.as_ref(), page);
            explained(explanation, &told.asked, page);
        }
        Err(why) => writeln!(page, "{why}"),
    }
    if let Some(difference) = &told.difference {
        writeln!(page, "\n{difference}");
    }
}

fn in_force(policy: Option<&Rc<Record>>, page: &mut Page) {
    if let Some(policy) = policy {
        let from = policy.message.as_deref().unwrap_or_default();
        let since = visible(&policy.time);
        writeln!(page, "By the policy of {since}, {}:", visible(from));
    }
}

fn described(found: &Found, told: &Told) -> serde_json::Value {
    let mut value = match &told.explanation {
        Ok(explanation) => json!(explanation),
        Err(why) => json!({ "error": why }),
    };
    add(&mut value, "policy", json!(found.policy.as_deref()));
    add(&mut value, "records", json!(found.records));
    add(&mut value, "difference", json!(told.difference));
    value
}

fn add(value: &mut serde_json::Value, name: &str, added: serde_json::Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(name.to_owned(), added);
    }
}

fn of_destination(destination: &str, arguments: &Explain) -> Result<ExitCode, Failure> {
    let sandbox = arguments.sandbox.as_ref().map(SandboxId::as_str);
    let file = arguments.file.as_deref();
    let found = find::about(sandbox, file, destination)?;
    let destination = &*found.meant(destination);
    let request = request_of(
        destination,
        arguments.method.as_deref(),
        arguments.path.as_deref(),
    )
    .map_err(Failure::bad_input)?;
    let as_it_runs = |path: &String| source::end_of_link(path).unwrap_or_else(|| path.clone());
    let mut by = arguments.by.iter().map(as_it_runs);
    let by = by.next().map(|executable| Program {
        executable,
        ancestors: by.collect(),
    });
    let asked = again::Asked {
        destination,
        by: by.as_ref(),
        request,
        resolves_to: arguments.resolves_to.as_deref(),
    };
    let explanation = again::decide(found.policy.as_deref(), &asked).map_err(Failure::bad_input)?;
    match arguments.output {
        Output::Text => {
            let mut page = Page::for_stdout();
            in_force(found.policy.as_ref(), &mut page);
            explained(&explanation, destination, &mut page);
            lately(&found, &mut page);
            if found.records.is_empty() && by_id(destination, file).is_ok() {
                writeln!(
                    page,
                    "There is a record with this id: egret explain --id {destination}"
                );
            }
            page.print()
        }
        Output::Json => {
            let mut value = json!(explanation);
            add(&mut value, "policy", json!(found.policy.as_deref()));
            add(&mut value, "records", json!(found.records));
            print_json(&value)
        }
    }
    .map_err(|error: io::Error| Failure::because("cannot print", &error))?;
    Ok(ExitCode::from(u8::from(is_denied(&explanation))))
}

fn lately(found: &find::About, page: &mut Page) {
    if found.records.is_empty() {
        writeln!(page, "\nIt was not asked for, by {}.", found.log);
        return;
    }
    writeln!(page, "\nLately, by {}:", found.log);
    for record in &found.records {
        writeln!(page, "  {}", logs::text(record, page.has_colour()));
    }
}

fn is_denied(explanation: &Explanation) -> bool {
    matches!(explanation.verdict, egret_policy::Verdict::Deny)
}

/// The program that a record says has asked.
fn program_of(record: &Record) -> Option<Program> {
    let executable = record.executable.clone()?;
    let ancestors = record.ancestors.clone();
    Some(Program {
        executable,
        ancestors,
    })
}

/// Whether a record is one of a decision.
fn decides(record: &Record) -> bool {
    matches!(record.event, Event::Decision | Event::Dns) && record.verdict.is_some()
}

#[cfg(test)]
mod tests;
