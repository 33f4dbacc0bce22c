//! `egret policy explain`: what a policy decides about a destination, step by step.

use super::{
    Bad, FINE, Loaded, Page, REFUSED, cannot_print, counted, load_as_run, print_json, refuse_input,
};
use crate::cli::Output;
use crate::project;
use crate::source;
use anstyle::{AnsiColor, Style};
use clap::Args;
use egret_policy::{
    Destination, Explanation, HostAddresses, HostGatewayPorts, Program, Question, Reason, Verdict,
    visible,
};
use std::io;
use std::net::IpAddr;

/// Arguments of `egret policy explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  egret policy explain agent.yaml api.example.com
  egret policy explain agent.yaml db.example.com:5432 --resolves-to 10.20.0.1
  egret policy explain agent.yaml http://api.example.com GET /v1/items
  egret policy explain agent.yaml api.example.com --by /usr/bin/curl
  egret policy explain network 10.0.0.1       # one of ToolHive's profiles

Exit status: 0 allowed, as far as can be told; 1 denied; 2 if the policy cannot be
used.")]
pub(crate) struct Explain {
    /// The policy; `-` is standard input
    file: String,
    /// `HOST[:PORT]`, `ADDRESS[:PORT]`, `[IPV6]:PORT` or a URL; the port is 443 where none is given
    #[arg(value_name = "DEST")]
    destination: String,
    /// The method of a request, for a host with `http` rules
    method: Option<String>,
    /// The path of the request, with or without a query; that of the URL, if DEST is one that has a path
    #[arg(value_parser = path)]
    path: Option<String>,
    /// What the name resolves to; nothing is resolved here
    #[arg(long, value_name = "IP", num_args = 1.., value_delimiter = ',')]
    resolves_to: Option<Vec<IpAddr>>,
    /// The executable that connects, and after it those that it was started by, nearest first; links are followed
    #[arg(long, value_name = "EXE", num_args = 1.., value_delimiter = ',', value_parser = path)]
    by: Vec<String>,
    /// Explain as if the host gateway were open, on any port or on these
    #[arg(long, value_name = "PORTS", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    allow_docker_gateway: Option<HostGatewayPorts>,
    /// An address of the host, in addition to 172.17.0.1
    #[arg(long, value_name = "IP", num_args = 1.., value_delimiter = ',')]
    host_address: Vec<IpAddr>,
    /// Leave aside what the egret.yaml of the working directory takes away
    #[arg(long)]
    no_settings: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

fn path(text: &str) -> Result<String, &'static str> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("a path begins with `/`"),
    }
}

/// The method and target of the request that is asked about.
pub(crate) fn request_of<'a>(
    destination: &'a str,
    method: Option<&'a str>,
    path: Option<&'a str>,
) -> Result<Option<(&'a str, &'a str)>, String> {
    let of_url = Destination::path_of_url(destination);
    match (method, path, of_url) {
        (None, ..) => Ok(None),
        (Some(method), Some(path), None) => Ok(Some((method, path))),
        (Some(method), None, Some(path)) => Ok(Some((method, path))),
        (Some(method), Some(path), Some(other)) if path == other => Ok(Some((method, path))),
        (Some(_), Some(path), Some(other)) => Err(format!(
            "the URL's path is {other}, and the request's {path}; write one of them"
        )),
        (Some(method), None, None) => Err(format!(
            "which path? write it behind the method: {method} /PATH"
        )),
    }
}

pub(super) fn explain(args: &Explain) -> u8 {
    let (method, path) = (args.method.as_deref(), args.path.as_deref());
    let request = match request_of(&args.destination, method, path) {
        Ok(request) => request,
        Err(why) => return refuse_input(&Bad::File(why), args.output),
    };
    let Loaded {
        mut policy,
        warnings,
    } = match load_as_run(&args.file) {
        Ok(loaded) => loaded,
        Err(bad) => return refuse_input(&bad, args.output),
    };
    // One line: the warnings themselves are not what was asked for.
    if args.output == Output::Text
        && !warnings.is_empty()
        && let Err(error) = tell_count(warnings.len(), &args.file)
    {
        return cannot_print(&error);
    }
    if let Some(ports) = &args.allow_docker_gateway {
        policy.grant_host_gateway(ports.clone());
    }
    // As a run here would.
    let narrowed = project::find_here(args.no_settings).and_then(|projects| {
        projects
            .iter()
            .try_for_each(|project| project.narrow(&mut policy))
    });
    if let Err(failure) = narrowed {
        return refuse_input(&Bad::File(failure.to_string()), args.output);
    }
    let hosts = HostAddresses::new(args.host_address.iter().copied());
    let by = args
        .by
        .split_first()
        .map(|(executable, ancestors)| Program {
            executable: as_it_runs(executable),
            ancestors: ancestors.iter().map(|path| as_it_runs(path)).collect(),
        });
    let explanation = match Destination::from_user(&args.destination) {
        Ok(to) => policy.compile().explain(&Question {
            to: &to,
            by: by.as_ref(),
            request,
            resolves_to: args.resolves_to.as_deref(),
            hosts: &hosts,
        }),
        Err(malformed) => Explanation::of_malformed(&malformed),
    };
    let printed = match args.output {
        Output::Json => print_json(&explanation),
        Output::Text => {
            let mut page = Page::for_stdout();
            explained(&explanation, &args.destination, &mut page);
            page.print()
        }
    };
    match (printed, explanation.verdict) {
        (Err(error), _) => cannot_print(&error),
        (Ok(()), Verdict::Allow | Verdict::Inspect) => FINE,
        (Ok(()), Verdict::Deny) => REFUSED,
    }
}

/// A process is known by what is at the end of a link.
fn as_it_runs(executable: &str) -> String {
    source::end_of_link(executable).unwrap_or_else(|| executable.to_owned())
}

fn tell_count(warnings: usize, file: &str) -> io::Result<()> {
    let mut page = Page::for_stderr();
    let warnings = counted(warnings);
    writeln!(page, "{warnings}: egret policy check {}", visible(file));
    page.tell()
}

/// The explanation for a person: the verdict first, then how it came about, then what would change it.
pub(crate) fn explained(explanation: &Explanation, asked: &str, page: &mut Page) {
    let bold = Style::new().bold();
    let dim = Style::new().dimmed();
    let (word, verdict) = match explanation.verdict {
        Verdict::Inspect => (
            "allowed, if its requests are",
            AnsiColor::Green.on_default().bold(),
        ),
        Verdict::Allow => ("allowed", AnsiColor::Green.on_default().bold()),
        Verdict::Deny => ("denied", AnsiColor::Red.on_default().bold()),
    };
    page.paint(bold, asked.escape_debug());
    write!(page, " is ");
    page.paint(verdict, word);
    write!(page, " ({})", explanation.reason);
    if let Some(rule) = &explanation.rule {
        write!(page, " by {rule}");
    }
    writeln!(page, "\n{}", explanation.reason.meaning());
    if let Some(note) = &explanation.note {
        writeln!(page, "reason given: {}", note.escape_debug());
    }
    writeln!(page);
    for step in &explanation.steps {
        write!(page, "  {:<13} {:<8} ", step.step, step.outcome);
        page.paint(dim, visible(&step.detail));
        if let Some(rule) = &step.rule {
            write!(page, " ");
            page.paint(dim, format_args!("({rule})"));
        }
        writeln!(page);
        for judged in &step.addresses {
            write!(page, "  {:<22} ", "");
            page.paint(dim, format_args!("{} is {}", judged.address, judged.class));
            writeln!(page);
        }
    }
    let unknown = |name: Option<&str>| {
        let mut steps = explanation.steps.iter();
        steps.any(|step| step.outcome == "unknown" && name.is_none_or(|name| step.step == name))
    };
    if unknown(None) {
        let ways = [
            ("resolve", "--resolves-to checks addresses"),
            ("executable", "--by checks a program"),
            ("request", "METHOD PATH checks a request"),
        ];
        let ways: Vec<_> = ways
            .into_iter()
            .filter(|(step, _)| unknown(Some(step)))
            .map(|(_, way)| way)
            .collect();
        let now = match ways.as_slice() {
            [] => String::new(),
            ways => format!("; {} now", ways.join(", ")),
        };
        writeln!(page, "\nWhat is unknown is checked when connecting{now}.");
    }
    if let Some(hint) = &explanation.hint {
        let to = match explanation.reason {
            Reason::DeniedAddressLoopback => "To reach a service of this machine:",
            _ => "To allow it:",
        };
        writeln!(page);
        page.paint(bold, to);
        writeln!(page, " {}", visible(hint.change()));
        if let Some(flag) = hint.flag() {
            writeln!(page, "  or run with {}", visible(flag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_policy::Policy;

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
            let explanation = matcher.explain(&Question {
                to: &asked,
                by: None,
                request: None,
                resolves_to: None,
                hosts: &HostAddresses::new([]),
            });
            let mut page = Page::new(false);
            explained(&explanation, to, &mut page);
            assert!(page.as_str().ends_with(end), "{}", page.as_str());
        }
    }
}
