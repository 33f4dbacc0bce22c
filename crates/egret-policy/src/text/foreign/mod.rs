//! Policies of other systems, read with the meaning that their own system gives them.
//!
//! Each system has a module that turns a tree into entries of a [`Policy`], every one named by its line. What this
//! version of Egret does not have is an error that names it, and so is what Egret never opens and a policy names; what
//! is merely narrower here is a note. Nothing of a policy is left out without one of the two, or a warning.
//!
//! Not here: what the entries mean once they are there, which is the same for all languages.

use std::sync::Arc;

use crate::destination::{Target, parse_target};
use crate::inbound::{InboundHost, Named};
use crate::policy::{Default, Entry, Language, MAX_SHAPES, Policy, Ports, What};
use crate::report::{Report, Span};
use crate::rule::RuleId;
use crate::text::entry::{self, BadEntry, Side};
use crate::text::native::Spans;
use crate::text::native::meant::settings_of_claude;
use crate::text::reader::{MAX_POLICY_NAME, can_be_a_name, get};
use crate::text::yaml::{Kind, Node, Value};

mod openshell;
mod smokescreen;
mod toolhive;

/// Which language a policy is in: Egret's own, unless there are keys that it does not have and another one does.
pub(crate) fn recognise(root: &Node<'_>) -> Language {
    let Value::Map(pairs) = &root.value else {
        return Language::Native;
    };
    let has = |name| get(pairs, name).is_some();
    let version = get(pairs, "version").and_then(scalar);
    let own = [
        "allow",
        "deny",
        "default",
        "host_gateway",
        "inbound",
        "filesystem",
    ];
    let native = own
        .into_iter()
        .any(|key| has(key) && !(key == "default" && has("services")));
    // Whose reader says what they are.
    if native || settings_of_claude(pairs).is_some() {
        return Language::Native;
    }
    if version.is_none()
        && ["network", "privileged", "read", "write"]
            .into_iter()
            .any(has)
    {
        return Language::ToolHive;
    }
    let openshell = [
        "network_policies",
        "filesystem_policy",
        "landlock",
        "process",
        "network_middlewares",
    ];
    if openshell.into_iter().any(has) {
        return Language::OpenShell;
    }
    match version == Some("v1") || has("services") {
        true => Language::Smokescreen,
        false => Language::Native,
    }
}

/// Reads a policy of another system; what is wrong stands in the report afterwards, and then the policy is good for
/// nothing. `service` chooses among those of a Smokescreen policy. Returns with it where its entries stand, and what is
/// narrower than where it is from.
pub(crate) fn read(
    language: Language,
    root: &Node<'_>,
    service: Option<&str>,
    report: &mut Report<'_>,
) -> (Policy, Spans, Vec<String>) {
    let mut draft = Draft {
        report,
        policy: Policy::deny_all(),
        spans: Spans::default(),
        notes: Vec::new(),
    };
    if let Value::Map(pairs) = &root.value {
        match language {
            Language::ToolHive => toolhive::read(pairs, &mut draft),
            Language::OpenShell => openshell::read(root, pairs, &mut draft),
            Language::Smokescreen => smokescreen::read(root, pairs, service, &mut draft),
            // Read elsewhere.
            Language::Native => {}
        }
    }
    (draft.policy, draft.spans, draft.notes)
}

/// ToolHive's profile of this name that comes without a file.
pub(crate) fn built_in(name: &str) -> Option<Policy> {
    let default = match name {
        "none" => Default::Deny,
        "network" => Default::AllowPublic(Ports::Any),
        _ => return None,
    };
    Some(Policy {
        name: Some(name.to_owned()),
        default,
        ..Policy::deny_all()
    })
}

/// What a reader writes to.
struct Draft<'r, 's> {
    report: &'r mut Report<'s>,
    policy: Policy,
    spans: Spans,
    notes: Vec<String>,
}

impl Draft<'_, '_> {
    /// An entry that is called by the line of `at`.
    fn entry(&self, what: What, ports: Ports, at: Span) -> Entry {
        Entry::new(
            what,
            ports,
            RuleId::new(Arc::clone(self.report.file()), at.line),
        )
    }

    fn add(&mut self, side: Side, entry: Entry, at: Span) {
        let Self { policy, spans, .. } = self;
        policy.count_shape(&entry.what);
        if policy.shapes.len() > MAX_SHAPES {
            policy.shapes.clear();
            let message =
                format!("more than {MAX_SHAPES} different forms of wildcards inside patterns");
            let help = "use `*.` or `**.` in front, which are not limited".to_owned();
            self.report.error(at, message, "one more here", Some(help));
        }
        let (entries, places) = match side {
            Side::Allow => (&mut policy.allow, &mut spans.allow),
            Side::Deny => (&mut policy.deny, &mut spans.deny),
        };
        entries.push(entry);
        places.push(at);
    }

    /// Lets published ports be addressed by a host.
    fn inbound(&mut self, named: Named, at: Span) {
        let rule = RuleId::new(Arc::clone(self.report.file()), at.line);
        self.policy.inbound.push(InboundHost::new(named, rule));
        self.spans.inbound.push(at);
    }

    /// Allows what is public, on some ports.
    fn allow_public(&mut self, ports: Ports, at: Span) {
        self.policy.default = Default::AllowPublic(ports);
        self.spans.default = Some(at);
    }

    /// Says once what is narrower than in the system that the policy is from.
    fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        match self.notes.len() {
            MOST_NOTES => {}
            _ if self.notes.contains(&note) => {}
            len if len + 1 == MOST_NOTES => self
                .notes
                .push("further differences are not listed".to_owned()),
            _ => self.notes.push(note),
        }
    }

    fn name(&mut self, value: &Node<'_>) {
        let Some(name) = self.report.optional_text(value, "`name`") else {
            return;
        };
        match can_be_a_name(name) {
            true => self.policy.name = Some(name.to_owned()),
            false => {
                let label = format!("1 to {MAX_POLICY_NAME} octets that can be shown");
                let message = "this cannot name a policy";
                self.report.error(value.span, message, label, None);
            }
        }
    }

    /// Refuses what is there and would have to be done.
    fn not_yet(&mut self, value: &Node<'_>, what: &str, instead: &str) {
        let help = Some(instead.to_owned()).filter(|help| !help.is_empty());
        self.report.error(
            value.span,
            format!("{what} is not implemented yet"),
            "",
            help,
        );
    }
}

/// Room for those that somebody will read.
const MOST_NOTES: usize = 100;

/// Whether there is a key and nothing behind it.
fn is_nothing(value: &Node<'_>) -> bool {
    matches!(value.value, Value::Scalar(_, Kind::Null))
}

/// Whether somebody said something here: not nothing, `false`, `0`, an empty text, list or mapping.
fn is_said(value: &Node<'_>) -> bool {
    match &value.value {
        Value::Scalar(_, Kind::Null) => false,
        Value::Scalar(word, Kind::Bool) => word.eq_ignore_ascii_case("true"),
        Value::Scalar(text, Kind::Number) => text != "0",
        Value::Scalar(text, Kind::String) => !text.is_empty(),
        Value::List(items) => !items.is_empty(),
        Value::Map(pairs) => !pairs.is_empty(),
    }
}

/// A name or an address, as Egret writes it.
fn host(text: &str, side: Side) -> Result<What, BadEntry> {
    if let Some(at) = text.find('/') {
        let message = "a host stands here, without a path, and not a network";
        let help = "write `example.com`, or one address";
        return Err(BadEntry::new(at..text.len(), message, "", help));
    }
    match parse_target(text) {
        Ok(Target::Address(_)) => entry::parse_address(text, side),
        _ => entry::parse_host(text, side),
    }
}

/// The host and the port behind it, where there is one and only hosts are meant.
fn port_in_host(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    (digits && !host.contains(':')).then_some((host, port))
}

fn scalar<'n>(value: &'n Node<'_>) -> Option<&'n str> {
    match &value.value {
        Value::Scalar(_, Kind::Null) | Value::List(_) | Value::Map(_) => None,
        Value::Scalar(text, _) => Some(text),
    }
}

#[cfg(test)]
mod tests;
