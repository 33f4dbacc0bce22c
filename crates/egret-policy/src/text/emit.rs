//! A policy as text in Egret's own language, whatever it was read from.
//!
//! What is written is read again, and has to be the same policy: converting one neither grants nor refuses anything.

use std::borrow::Cow;

use ipnet::IpNet;

use crate::cases::{Case, Expected};
use crate::filesystem::Share;
use crate::inbound::InboundHost;
use crate::policy::{Default, Entry, Policy, Ports, What};
use crate::program::{ProgramPattern, Programs};
use crate::report::{PolicyErrors, Report, Span};
use crate::text::entry::Side;
use crate::text::reader::shown;
use crate::text::write::{self, Collection, Comment, Item, Value};

impl Policy {
    /// The policy in Egret's own language, as YAML, under these comments: a sentence each, without `#`; one that begins with
    /// `- ` is an item of a list.
    ///
    /// Entries that say no more than a host and its ports have the short form. The comments of the text that the policy
    /// was read from are not part of a policy.
    ///
    /// # Errors
    /// What of the policy the language has no form for, with the lines of the text that it would have been.
    pub fn to_yaml(&self, comments: &[String]) -> Result<String, PolicyErrors> {
        let files = &self.filesystem;
        let mut shares = files.read.iter().chain(&files.write);
        if let Some(share) = shares.find(|share| share.host.contains(':')) {
            let message = format!("`{}` has a colon in its name", shown(&share.host));
            let help = "in Egret's own language, what is behind a colon is where a path is inside"
                .to_owned();
            return refused("", message, help);
        }
        let text = write::yaml(&self::comments(comments), &root(self));
        let again = Self::parse(CONVERTED, text.as_bytes())?.policy;
        if says_the_same(self, &again) {
            return Ok(text);
        }
        let message = "this would not be the same policy, which is a bug of Egret's".to_owned();
        let help = "write the policy by hand, and report this with the one it was to be made from"
            .to_owned();
        refused(&text, message, help)
    }
}

fn refused(text: &str, message: String, help: String) -> Result<String, PolicyErrors> {
    let mut report = Report::new(CONVERTED.into(), text);
    report.error(Span::START, message, "", Some(help));
    report.finish().map(|_| String::new())
}

/// How messages name the text that a policy was converted to.
const CONVERTED: &str = "<converted>";

type Map<'a> = Collection<'a, (Cow<'a, str>, Item<'a>)>;

/// The lines of comments; those of an item, which begins with `- `, hang.
pub(crate) fn comments(sentences: &[String]) -> Vec<Comment<'static>> {
    let lines = sentences.iter().flat_map(|comment| {
        let hang = if comment.starts_with("- ") { 2 } else { 0 };
        let words: Vec<&str> = comment.split_whitespace().collect();
        let lines = write::folded(&words.join(" "), COMMENT_WIDTH - hang);
        let lines = lines.into_iter().enumerate();
        lines.map(move |(index, line)| {
            let indent = if index > 0 { hang } else { 0 };
            format!("# {:indent$}{line}", "")
        })
    });
    let comment = |line: String| Comment {
        text: line.into(),
        blank: false,
        column: 0,
    };
    lines.map(comment).collect()
}

const COMMENT_WIDTH: usize = 98;

fn root(policy: &Policy) -> Map<'_> {
    let mut root = vec![pair("version", plain(1))];
    if let Some(name) = &policy.name {
        root.push(pair("name", text(name)));
    }
    if let Default::AllowPublic(ports) = &policy.default {
        let default = match ports {
            Ports::Any => "allow-public".to_owned(),
            ports => format!("allow-public:{}", ports_text(ports)),
        };
        root.push(pair("default", Value::Text(default.into())));
    }
    for (key, entries, side) in [
        ("allow", &policy.allow, Side::Allow),
        ("deny", &policy.deny, Side::Deny),
    ] {
        if !entries.is_empty() {
            let entries = entries.iter().map(|entry| self::entry(entry, side));
            root.push(pair(key, lines(entries)));
        }
    }
    match policy.host_gateway.as_ref().map(|ports| ports.ports()) {
        None => {}
        Some(None) => root.push(pair("host_gateway", text("allow"))),
        Some(Some(ports)) => root.push(pair("host_gateway", line(ports.iter().map(plain)))),
    }
    if !policy.inbound.is_empty() {
        let hosts = policy.inbound.iter();
        let hosts = hosts.map(|host| Value::Text(host.to_string().into()));
        root.push(pair("inbound", line(hosts)));
    }
    let files = &policy.filesystem;
    let shares = |shares: &[Share]| {
        let paths = shares.iter();
        line(paths.map(|share| Value::Text(share.to_string().into())))
    };
    let files = [
        ("read", shares(&files.read), files.read.is_empty()),
        ("write", shares(&files.write), files.write.is_empty()),
        (
            "hide",
            line(files.hide.iter().map(|path| text(path))),
            files.hide.is_empty(),
        ),
    ];
    let files = files.into_iter().filter(|(_, _, is_empty)| !is_empty);
    let files: Vec<_> = files.map(|(key, paths, _)| pair(key, paths)).collect();
    if !files.is_empty() {
        root.push(pair("filesystem", map(files)));
    }
    if !policy.tests.is_empty() {
        root.push(pair("tests", lines(policy.tests.iter().map(case))));
    }
    Collection {
        items: root,
        inline: false,
        foot: Vec::new(),
    }
}

fn entry(entry: &Entry, side: Side) -> Value<'_> {
    let Entry {
        what,
        ports,
        addresses,
        only_addresses,
        programs,
        requests,
        note,
        rule: _,
    } = entry;
    // An allow entry has no text for every port.
    let any = side == Side::Allow && *ports == Ports::Any;
    if !any && addresses.is_empty() && programs.are_all() && requests.are_all() && note.is_none() {
        return Value::Text(short(what, ports, side).into());
    }
    let mut pairs = match what {
        What::Name(pattern) => vec![pair("host", text(pattern.as_str()))],
        What::Net(net) => vec![pair("address", Value::Text(net_text(net).into()))],
    };
    if any {
        pairs.push(pair("ports", text("any")));
    } else if *ports != Ports::default_of(side) {
        pairs.push(pair("ports", line(ports.as_slice().iter().map(plain))));
    }
    if !addresses.is_empty() {
        let addresses = addresses
            .iter()
            .map(|net| Value::Text(net_text(net).into()));
        let key = match only_addresses {
            true => "only_addresses",
            false => "addresses",
        };
        pairs.push(pair(key, line(addresses)));
    }
    if let Some(note) = note {
        pairs.push(pair("reason", text(note)));
    }
    for (key, descendants) in [("by", false), ("under", true)] {
        let of_key = programs
            .iter()
            .filter(|program| program.descendants == descendants);
        let paths: Vec<_> = of_key.map(|program| text(program.path.as_str())).collect();
        if !paths.is_empty() {
            pairs.push(pair(key, line(paths)));
        }
    }
    if !requests.are_all() {
        let rules = requests
            .iter()
            .map(|rule| Value::Text(rule.to_string().into()));
        pairs.push(pair("http", lines(rules)));
    }
    map(pairs)
}

/// `HOST[:PORT[,PORT…]]`
pub(crate) fn short(what: &What, ports: &Ports, side: Side) -> String {
    let host = match what {
        What::Name(pattern) => pattern.as_str().to_owned(),
        What::Net(net) => net_text(net),
    };
    if *ports == Ports::default_of(side) {
        return host;
    }
    let ports = ports_text(ports);
    match host.contains(':') {
        true => format!("[{host}]:{ports}"),
        false => format!("{host}:{ports}"),
    }
}

/// Ports with commas between.
fn ports_text(ports: &Ports) -> String {
    let ports: Vec<_> = ports.as_slice().iter().map(u16::to_string).collect();
    ports.join(",")
}

/// One address without a prefix length, as people write it.
fn net_text(net: &IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

fn case(case: &Case) -> Value<'_> {
    let expected = match case.expected {
        Expected::Allow => "allow",
        Expected::Deny => "deny",
    };
    let mut pairs = vec![pair(expected, text(&case.text))];
    if let Some(program) = &case.by {
        pairs.push(pair("by", text(&program.executable)));
    }
    if let Some((method, target)) = &case.request {
        pairs.push(pair(
            "request",
            Value::Text(format!("{method} {target}").into()),
        ));
    }
    if let Some(addresses) = &case.resolves_to {
        let addresses = addresses
            .iter()
            .map(|address| Value::Text(address.to_string().into()));
        pairs.push(pair("resolves_to", line(addresses)));
    }
    map(pairs)
}

fn pair<'a>(key: &'static str, value: Value<'a>) -> (Cow<'a, str>, Item<'a>) {
    (key.into(), value.into())
}

fn plain<'a>(number: impl ToString) -> Value<'a> {
    Value::Plain(number.to_string().into())
}

fn text(text: &str) -> Value<'_> {
    Value::Text(text.into())
}

/// A list in one line, if it fits.
fn line<'a>(values: impl IntoIterator<Item = Value<'a>>) -> Value<'a> {
    Value::List(Collection {
        items: values.into_iter().map(Item::from).collect(),
        inline: true,
        foot: Vec::new(),
    })
}

/// A list with a line for each item.
fn lines<'a>(values: impl IntoIterator<Item = Value<'a>>) -> Value<'a> {
    Value::List(Collection {
        items: values.into_iter().map(Item::from).collect(),
        inline: false,
        foot: Vec::new(),
    })
}

fn map<'a>(items: Vec<(Cow<'a, str>, Item<'a>)>) -> Value<'a> {
    Value::Map(Collection {
        items,
        inline: false,
        foot: Vec::new(),
    })
}

/// Whether two policies are the same but for where their entries stand, and for privileges, for which there is no form: who
/// is not privileged can do less.
fn says_the_same(one: &Policy, other: &Policy) -> bool {
    let entries = |one: &[Entry], other: &[Entry]| {
        one.len() == other.len()
            && one
                .iter()
                .zip(other)
                .all(|(one, other)| same_entry(one, other))
    };
    let same_case = |one: &Case, other: &Case| {
        let other = Case {
            rule: one.rule.clone(),
            ..other.clone()
        };
        *one == other
    };
    one.name == other.name
        && same_default(&one.default, &other.default)
        && one.host_gateway == other.host_gateway
        && same_inbound(&one.inbound, &other.inbound)
        && one.filesystem == other.filesystem
        && entries(&one.allow, &other.allow)
        && entries(&one.deny, &other.deny)
        && one.tests.len() == other.tests.len()
        && one
            .tests
            .iter()
            .zip(&other.tests)
            .all(|(one, other)| same_case(one, other))
}

fn same_default(one: &Default, other: &Default) -> bool {
    match (one, other) {
        (Default::AllowPublic(one), Default::AllowPublic(other)) => {
            one.as_slice() == other.as_slice()
        }
        _ => one == other,
    }
}

fn same_inbound(one: &[InboundHost], other: &[InboundHost]) -> bool {
    let named = |hosts: &[InboundHost]| -> Vec<_> {
        hosts.iter().map(|host| host.named().clone()).collect()
    };
    named(one) == named(other)
}

fn same_entry(one: &Entry, other: &Entry) -> bool {
    one.what == other.what
        && one.ports.as_slice() == other.ports.as_slice()
        && one.addresses == other.addresses
        && one.only_addresses == other.only_addresses
        && same_programs(&one.programs, &other.programs)
        && one.requests == other.requests
        && one.note == other.note
}

/// In any order: those of `by` are written before those of `under`.
fn same_programs(one: &Programs, other: &Programs) -> bool {
    let all_in = |some: &Programs, of: &Programs| {
        let is_in = |program: &ProgramPattern| of.iter().any(|other| other == program);
        some.iter().all(is_in)
    };
    all_in(one, other) && all_in(other, one)
}

#[cfg(test)]
pub(crate) mod tests;
