//! `egret policy diff`: what becomes reachable with another policy, and what no longer is.

use super::{
    BAD_INPUT, FINE, Page, REFUSED, cannot_print, load, one_standard_input, print_json, refuse_all,
    refuse_input,
};
use crate::cli::Output;
use anstyle::{AnsiColor, Style};
use clap::Args;
use egret_policy::{Change, Difference};

/// Arguments of `egret policy diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
The two are compared by what they decide, not by their text: a destination is
shown for each difference. Exit status: 0 if they decide alike, 1 if they do not,
2 if one of them cannot be read, or none was found and not all could be compared.")]
pub(crate) struct Diff {
    /// The policy as it was; `-` is standard input
    old: String,
    /// The policy as it is to be; `-` is standard input
    new: String,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn diff(args: &Diff) -> u8 {
    if let Err(bad) = one_standard_input([&args.old, &args.new]) {
        return refuse_input(&bad, args.output);
    }
    let (old, new) = match (load(&args.old), load(&args.new)) {
        (Ok(old), Ok(new)) => (old.policy, new.policy),
        (Err(bad), Ok(_)) | (Ok(_), Err(bad)) => return refuse_input(&bad, args.output),
        (Err(bad), Err(second)) => return refuse_all(&[bad, second], args.output),
    };
    let difference = old.diff(&new);
    let printed = match args.output {
        Output::Json => print_json(&difference),
        Output::Text => in_words(&difference, Page::for_stdout()).print(),
    };
    match (printed, difference.is_none()) {
        (Err(error), _) => cannot_print(&error),
        (Ok(()), true) if difference.complete => FINE,
        // What could not be compared is not called alike.
        (Ok(()), true) => BAD_INPUT,
        (Ok(()), false) => REFUSED,
    }
}

fn in_words(difference: &Difference, mut page: Page) -> Page {
    let mut list = |title: &str, sign: char, style: Style, changes: &[Change]| {
        if changes.is_empty() {
            return;
        }
        writeln!(page, "{title}:");
        for change in changes {
            page.paint(style, format_args!("  {sign} {}", what(change)));
            writeln!(page);
            let old = decided(&change.old.reason.to_string(), change.old.rule.as_ref());
            let new = decided(&change.new.reason.to_string(), change.new.rule.as_ref());
            writeln!(page, "      was {old}; is {new}");
        }
    };
    let green = AnsiColor::Green.on_default();
    let red = AnsiColor::Red.on_default();
    list("Becomes reachable", '+', green, &difference.gained);
    list("No longer reachable", '-', red, &difference.lost);
    if !difference.filesystem.is_empty() {
        writeln!(page, "Files:");
        for change in &difference.filesystem {
            let (list, path) = (change.list, change.path.escape_debug());
            let sign = if change.change == "added" { '+' } else { '-' };
            writeln!(page, "  {sign} {list}: {path}");
        }
    }
    if !difference.inbound.is_empty() {
        writeln!(page, "Hosts by which published ports may be addressed:");
        for change in &difference.inbound {
            let sign = if change.change == "added" { '+' } else { '-' };
            writeln!(page, "  {sign} {}", change.host);
        }
    }
    match difference.privileged {
        Some("added") => writeln!(page, "The new policy asks for a privileged program."),
        Some(_) => writeln!(
            page,
            "The new policy no longer asks for a privileged program."
        ),
        None => {}
    }
    if !difference.complete {
        writeln!(
            page,
            "The wildcards inside names are too many for all their combinations to be tried: there may be more."
        );
    } else if difference.is_none() {
        writeln!(page, "The two decide alike.");
    }
    page
}

/// What is decided differently, in words.
fn what(change: &Change) -> String {
    let (host, port) = change
        .destination
        .rsplit_once(':')
        .unwrap_or((&change.destination, ""));
    let mut text = match &change.stands_for {
        Some(all) => format!("{all}, such as {host}"),
        None => host.to_owned(),
    };
    let ports: Vec<_> = change.ports.iter().map(u16::to_string).collect();
    match (ports.as_slice(), change.other_ports) {
        ([], _) => text.push_str(&format!(", on other ports, such as {port}")),
        ([port], false) => text.push_str(&format!(", port {port}")),
        (ports, false) => text.push_str(&format!(", ports {}", ports.join(", "))),
        (_, true) => text.push_str(", every port"),
    }
    match &change.by {
        Some(_) if change.other_programs && change.under.is_empty() => {
            text.push_str(", by other programs");
        }
        Some(_) if change.other_programs => text.push_str(", by what"),
        Some(by) => text.push_str(&format!(", by {by}")),
        None => {}
    }
    if !change.under.is_empty() {
        let under = change.under.join(" and ");
        text.push_str(&match change.other_programs {
            true => format!(" {under} starts"),
            false => format!(" that {under} starts"),
        });
    }
    let shown: Vec<_> = change.requests.iter().take(REQUESTS).cloned().collect();
    let more = change.requests.len() - shown.len();
    match (shown.as_slice(), more) {
        ([], _) => {}
        (shown, 0) => text.push_str(&format!(", for {}", shown.join(", "))),
        (shown, more) => text.push_str(&format!(", for {} and {more} more", shown.join(", "))),
    }
    if !change.resolves_to.is_empty() {
        let addresses: Vec<_> = change.resolves_to.iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            ", where it resolves to {}",
            addresses.join(" and ")
        ));
    }
    text
}

/// As many requests as are shown.
const REQUESTS: usize = 4;

fn decided(reason: &str, rule: Option<&egret_policy::RuleId>) -> String {
    match rule {
        Some(rule) => format!("{reason} ({rule})"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_policy::Policy;

    #[test]
    fn a_difference_is_told_in_words() {
        let policy = |text: &str| Policy::parse("p.yaml", text.as_bytes()).unwrap().policy;
        let old = policy("version: 1\nallow: ['*.a.test:443', 'b.test:80']");
        let new = policy(
            "version: 1\nallow: ['**.a.test:443', {host: c.test, by: [/bin/x], ports: [1]}]\nfilesystem: {write: [x]}\n\
             inbound: [.d.test]",
        );
        let page = in_words(&old.diff(&new), Page::new(false));
        let expected = "\
Becomes reachable:
  + **.a.test, such as any.any.a.test, port 443
      was denied.default; is allowed.rule (p.yaml:2)
  + c.test, port 1, by /bin/x
      was denied.default; is allowed.rule (p.yaml:2)
No longer reachable:
  - b.test, port 80
      was allowed.rule (p.yaml:2); is denied.default
Files:
  + write: x
Hosts by which published ports may be addressed:
  + .d.test
";
        assert_eq!(page.as_str(), expected);
        let page = in_words(&old.diff(&old), Page::new(false));
        assert_eq!(page.as_str(), "The two decide alike.\n");
    }
}
