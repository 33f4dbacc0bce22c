//! `egret policy check` and `egret policy explain`: what a policy says, without running anything.
//!
//! Both read files and print; what is in a policy and what comes out of it is told by [`egret_policy`]. Neither touches
//! the network. Exit status: 0 fine, 1 the policy says no, 2 the input is bad.

use crate::cli::Output;
use crate::failure::Failure;
use anstyle::{AnsiColor, Style};
use clap::{Args, Subcommand};
use egret_policy::{
    Destination, Diagnostic, Explanation, HostAddresses, HostGatewayPorts, Policy, PolicyErrors,
    Reason, Verdict,
};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read as _, Write as _};
use std::net::IpAddr;

/// What can be asked about a policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check policies and say what is wrong with them
    Check(Check),
    /// Say what a policy decides about a destination, step by step
    Explain(Explain),
}

/// Arguments of `egret policy check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The policies; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Arguments of `egret policy explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The policy; `-` is standard input
    file: String,
    /// `HOST[:PORT]`, `ADDRESS[:PORT]`, `[IPV6]:PORT` or a URL; the port is 443 where none is given
    #[arg(value_name = "DEST")]
    destination: String,
    /// The method of a request; no policy of this version distinguishes them
    #[arg(requires = "path")]
    method: Option<String>,
    /// The path of a request
    path: Option<String>,
    /// What the name resolves to; nothing is resolved here
    #[arg(long, value_name = "IP", num_args = 1.., value_delimiter = ',')]
    resolves_to: Option<Vec<IpAddr>>,
    /// The program that connects; no policy of this version distinguishes them
    #[arg(long, value_name = "EXE")]
    by: Option<String>,
    /// Explain as if the host gateway were open, on any port or on these
    #[arg(long, value_name = "PORTS", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    allow_docker_gateway: Option<HostGatewayPorts>,
    /// An address of the host, in addition to 172.17.0.1
    #[arg(long, value_name = "IP", num_args = 1.., value_delimiter = ',')]
    host_address: Vec<IpAddr>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

const FINE: u8 = 0;
const REFUSED: u8 = 1;
const BAD_INPUT: u8 = 2;

/// Does what was asked; returns the exit status.
pub(crate) fn run(command: PolicyCommand) -> u8 {
    match command {
        PolicyCommand::Check(args) => check(&args),
        PolicyCommand::Explain(args) => explain(&args),
    }
}

fn check(args: &Check) -> u8 {
    let checked: Vec<_> = args.files.iter().map(|file| (file, load(file))).collect();
    let status = match checked.iter().all(|(_, result)| result.is_ok()) {
        true => FINE,
        false => BAD_INPUT,
    };
    let printed = match args.output {
        Output::Json => print(&format!(
            "{:#}\n",
            json!({ "files": checked.iter().map(|(file, result)| in_json(file, result)).collect::<Vec<_>>() })
        )),
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
        Err(Bad::Policy(errors)) => {
            json!({ "file": file, "valid": false, "errors": errors.errors(), "warnings": [] })
        }
        Err(Bad::File(message)) => {
            let error = json!({ "level": "error", "message": message, "file": file, "line": null, "column": null });
            json!({ "file": file, "valid": false, "errors": [error], "warnings": [] })
        }
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
            print(&format!("{}: valid, {entries}{warnings}\n", shown(file)))
        }
        Err(bad) => tell(&format!("{}\n\n", bad.text(colour_for(&io::stderr())))),
    }
}

fn counted(warnings: usize) -> String {
    match warnings {
        1 => "1 warning".to_owned(),
        count => format!("{count} warnings"),
    }
}

/// How a file is called in a sentence.
fn shown(file: &str) -> &str {
    match file {
        "-" => "standard input",
        path => path,
    }
}

fn explain(args: &Explain) -> u8 {
    let Loaded {
        mut policy,
        warnings,
    } = match load(&args.file) {
        Ok(loaded) => loaded,
        Err(bad) => return refuse_input(&bad, args.output),
    };
    // One line: the warnings themselves are not what was asked for.
    if args.output == Output::Text
        && !warnings.is_empty()
        && let Err(error) = tell(&format!(
            "{}: egret policy check {}\n",
            counted(warnings.len()),
            args.file
        ))
    {
        return cannot_print(&error);
    }
    if let Some(ports) = &args.allow_docker_gateway {
        policy.grant_host_gateway(ports.clone());
    }
    let hosts = HostAddresses::new(args.host_address.iter().copied());
    let explanation = match Destination::from_user(&args.destination) {
        Ok(to) => policy
            .compile()
            .explain(&to, &hosts, args.resolves_to.as_deref()),
        Err(malformed) => Explanation::of_malformed(&malformed),
    };
    let text = match args.output {
        Output::Json => match serde_json::to_string_pretty(&explanation) {
            Ok(text) => format!("{text}\n"),
            Err(error) => return cannot_print(&error.into()),
        },
        Output::Text => explained(&explanation, &args.destination, colour_for(&io::stdout())),
    };
    match (print(&text), explanation.verdict) {
        (Err(error), _) => cannot_print(&error),
        (Ok(()), Verdict::Allow) => FINE,
        (Ok(()), Verdict::Deny) => REFUSED,
    }
}

/// The explanation for a person: the verdict first, then how it came about, then what would change it.
fn explained(explanation: &Explanation, asked: &str, colour: bool) -> String {
    let paint = |style: Style| if colour { style } else { Style::new() };
    let bold = paint(Style::new().bold());
    let dim = paint(Style::new().dimmed());
    let (word, verdict) = match explanation.verdict {
        Verdict::Allow => ("allowed", paint(AnsiColor::Green.on_default().bold())),
        Verdict::Deny => ("denied", paint(AnsiColor::Red.on_default().bold())),
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{bold}{}{bold:#} is {verdict}{word}{verdict:#} ({})",
        asked.escape_debug(),
        explanation.reason
    );
    if let Some(rule) = &explanation.rule {
        let _ = write!(text, " by {rule}");
    }
    let _ = writeln!(text, "\n{}", explanation.reason.meaning());
    if let Some(note) = &explanation.note {
        let _ = writeln!(text, "reason given: {}", note.escape_debug());
    }
    text.push('\n');
    for step in &explanation.steps {
        let _ = write!(
            text,
            "  {:<13} {:<8} {dim}{}{dim:#}",
            step.step, step.outcome, step.detail
        );
        if let Some(rule) = &step.rule {
            let _ = write!(text, " {dim}({rule}){dim:#}");
        }
        text.push('\n');
        for judged in &step.addresses {
            let _ = writeln!(
                text,
                "  {:<22} {dim}{} is {}{dim:#}",
                "", judged.address, judged.class
            );
        }
    }
    let unknown = |name: Option<&str>| {
        let mut steps = explanation.steps.iter();
        steps.any(|step| step.outcome == "unknown" && name.is_none_or(|name| step.step == name))
    };
    if unknown(None) {
        let now = match unknown(Some("resolve")) {
            true => "; --resolves-to checks addresses now",
            false => "",
        };
        let _ = writeln!(text, "\nWhat is unknown is checked when connecting{now}.");
    }
    if let Some(hint) = &explanation.hint {
        let to = match explanation.reason {
            Reason::DeniedAddressLoopback => "To reach a service of this machine:",
            _ => "To allow it:",
        };
        let _ = writeln!(text, "\n{bold}{to}{bold:#} {}", hint.change());
        if let Some(flag) = hint.flag() {
            let _ = writeln!(text, "  or run with {flag}");
        }
    }
    text
}

struct Loaded {
    policy: Policy,
    warnings: Vec<Diagnostic>,
}

/// Why there is no policy.
enum Bad {
    File(String),
    Policy(PolicyErrors),
}

impl Bad {
    fn text(&self, colour: bool) -> String {
        match self {
            Self::File(message) => format!("error: {message}"),
            Self::Policy(errors) => errors.render(colour),
        }
    }
}

fn load(file: &str) -> Result<Loaded, Bad> {
    let mut text = Vec::new();
    // One octet more than a policy may have, so that a larger one is refused and not cut.
    let most = Policy::MAX_OCTETS as u64 + 1;
    let read = match file {
        "-" => io::stdin().lock().take(most).read_to_end(&mut text),
        path => std::fs::File::open(path).and_then(|open| open.take(most).read_to_end(&mut text)),
    };
    read.map_err(|error| {
        let what = format!("cannot read {}", shown(file));
        Bad::File(Failure::because(&what, &error).to_string())
    })?;
    let name = if file == "-" { "<stdin>" } else { file };
    let parsed = Policy::parse(name, &text).map_err(Bad::Policy)?;
    Ok(Loaded {
        policy: parsed.policy,
        warnings: parsed.warnings,
    })
}

fn refuse_input(bad: &Bad, output: Output) -> u8 {
    let told = match (output, bad) {
        (Output::Text, bad) => tell(&format!("{}\n", bad.text(colour_for(&io::stderr())))),
        (Output::Json, Bad::Policy(errors)) => {
            print(&format!("{:#}\n", json!({ "errors": errors.errors() })))
        }
        (Output::Json, Bad::File(message)) => print(&format!(
            "{:#}\n",
            json!({ "errors": [{ "message": message }] })
        )),
    };
    told.map_or_else(|error| cannot_print(&error), |()| BAD_INPUT)
}

fn tell_all(diagnostics: &[Diagnostic]) -> io::Result<()> {
    let colour = colour_for(&io::stderr());
    diagnostics
        .iter()
        .try_for_each(|one| tell(&format!("{}\n\n", one.render(colour))))
}

fn tell(text: &str) -> io::Result<()> {
    io::stderr().lock().write_all(text.as_bytes())
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The result could not be told, so that it must not look fine.
fn cannot_print(error: &io::Error) -> u8 {
    // Standard error may be gone as well; the exit status says it then.
    let _ = writeln!(
        io::stderr(),
        "egret: {}",
        Failure::because("cannot print", error)
    );
    BAD_INPUT
}

/// Colour on a terminal only, and not where <https://no-color.org> says no.
fn colour_for(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_ends_with_what_can_be_done_now() {
        let text = b"version: 1\nallow: [a.example, 203.0.113.7]";
        let matcher = Policy::parse("p.yaml", text).unwrap().policy.compile();
        #[rustfmt::skip]
        let table = [
            ("a.example",        "What is unknown is checked when connecting; --resolves-to checks addresses now.\n"),
            ("203.0.113.7",      "What is unknown is checked when connecting.\n"),
            ("b.example",        "To allow it: add `b.example:443` to `allow`\n  or run with --allow b.example:443\n"),
            ("localhost:3000",   "To reach a service of this machine: --allow-docker-gateway=3000, and connect to host.docker.internal:3000 in its place\n"),
            ("169.254.169.254",  "the address is metadata, which nothing opens\n"),
        ];
        for (to, end) in table {
            let asked = Destination::from_user(to).unwrap();
            let explanation = matcher.explain(&asked, &HostAddresses::new([]), None);
            let text = explained(&explanation, to, false);
            assert!(text.ends_with(end), "{text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_in_words() {
        let Err(bad) = load("/nowhere/policy.yaml") else {
            panic!("there is such a file");
        };
        assert_eq!(
            bad.text(false),
            "error: cannot read /nowhere/policy.yaml: No such file or directory"
        );
        assert_eq!((shown("-"), shown("p.yaml")), ("standard input", "p.yaml"));
        assert_eq!(
            (counted(1), counted(2)),
            ("1 warning".to_owned(), "2 warnings".to_owned())
        );
    }
}
