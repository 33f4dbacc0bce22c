//! Reading a project's file: the keys of a policy that take away, and `only`.

use std::sync::Arc;

use crate::narrowing::{Narrowing, Only};
use crate::policy::{Entry, Policy};
use crate::report::{Report, Span};
use crate::rule::RuleId;
use crate::text::entry::Side;
use crate::text::native::{self, FILESYSTEM_KEYS, Reader, Spans};
use crate::text::reader::{shown, text_of};
use crate::text::yaml::{Kind, Node, Value};

pub(crate) const KEYS: &[&str] = &[
    "version",
    "only",
    "deny",
    "default",
    "host_gateway",
    "filesystem",
];

/// Reads a project's file; what is wrong stands in the report afterwards, and then the result is good for nothing.
pub(crate) fn read_narrowing(root: &Node<'_>, report: &mut Report<'_>) -> Narrowing {
    let mut reader = Reader {
        report,
        policy: Policy::deny_all(),
        spans: Spans::default(),
    };
    reader.narrowing(root)
}

impl Reader<'_, '_> {
    fn narrowing(&mut self, root: &Node<'_>) -> Narrowing {
        let mut narrowing = Narrowing::default();
        let Value::Map(pairs) = &root.value else {
            let help = "begin with `version: 1`".to_owned();
            let label = format!("this is {}", root.value.describe());
            let message = "a project file is a mapping";
            self.report.error(root.span, message, label, Some(help));
            return narrowing;
        };
        let mut version = false;
        // What else a policy can have is told why it is not taken.
        let (takes_away, others): (Vec<_>, Vec<_>) = pairs.iter().cloned().partition(|(key, _)| {
            text_of(key).is_none_or(|key| KEYS.contains(&key) || !native::KEYS.contains(&key))
        });
        for (key, value) in self.report.fields(&others, native::KEYS, "a project file") {
            match key {
                "name" | "tests" => {
                    let message = format!("a project file has no `{key}`");
                    let help = "write it into a policy".to_owned();
                    self.report.error(value.span, message, "", Some(help));
                }
                _ => self.widens(value.span, key, "allows"),
            }
        }
        for (key, value) in self.report.fields(&takes_away, KEYS, "a project file") {
            let rule = RuleId::new(Arc::clone(self.report.file()), value.span.line);
            match key {
                "version" => {
                    version = true;
                    self.version(value);
                }
                "only" => {
                    let mut entries = self.read_entries(value, Side::Allow, "`only`");
                    entries.retain(|(entry, span)| self.says_where_alone(entry, *span));
                    narrowing.only = Some(Only {
                        rule,
                        entries: entries.into_iter().map(|(entry, _)| entry).collect(),
                    });
                }
                "deny" => {
                    let entries = self.read_entries(value, Side::Deny, "`deny`");
                    narrowing.deny = entries.into_iter().map(|(entry, _)| entry).collect();
                }
                "default" | "host_gateway" => {
                    match &value.value {
                        Value::Scalar(word, Kind::String) if word == "deny" => {}
                        _ => self.widens(value.span, key, "can only be `deny`"),
                    }
                    match key {
                        "default" => narrowing.no_default = true,
                        _ => narrowing.no_host = Some(rule),
                    }
                }
                _ => {
                    let pairs = self.report.pairs(value, "`filesystem`").unwrap_or_default();
                    for (key, value) in self.report.fields(pairs, FILESYSTEM_KEYS, "`filesystem`") {
                        match key {
                            "hide" => {
                                narrowing.hide = self.hidden(value);
                                self.stays_in_the_project(value.span, &narrowing.hide);
                            }
                            _ => self.widens(value.span, key, "shows what is not shown without it"),
                        }
                    }
                }
            }
        }
        if !version {
            let help = "add `version: 1`".to_owned();
            let message = "the project file has no `version`";
            self.report.error(root.span, message, "", Some(help));
        }
        narrowing
    }

    fn widens(&mut self, at: Span, key: &str, why: &str) {
        let message = format!("`{key}` {why}, and a project file can only take away");
        let label = "the program in the sandbox may have written this";
        let help = "write it into a policy of yours, outside of the project, or give it to `egret run` as an option";
        self.report.error(at, message, label, Some(help.to_owned()));
    }

    fn stays_in_the_project(&mut self, at: Span, hidden: &[String]) {
        let leaves = |path: &&String| {
            path.starts_with(['/', '~']) || path.split('/').any(|part| part == "..")
        };
        if let Some(path) = hidden.iter().find(leaves) {
            let message = format!("`{}` is not in the project", shown(path));
            let help =
                "a project file hides what lies beside it, or below; `--hide` hides anything";
            self.report.error(at, message, "", Some(help.to_owned()));
        }
    }

    /// An item of `only` is no grant, so there is nothing to say of how it is used.
    fn says_where_alone(&mut self, entry: &Entry, at: Span) -> bool {
        let plain = Entry::new(entry.what.clone(), entry.ports.clone(), entry.rule.clone());
        let alone = plain.grants_the_same_as(entry);
        if !alone {
            let message = "an item of `only` says where to, on which ports, and nothing more";
            let help = "take away the rest with entries of `deny`".to_owned();
            self.report.error(at, message, "", Some(help));
        }
        alone
    }
}
