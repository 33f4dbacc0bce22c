//! Reading `tests:`.

use std::sync::Arc;

use crate::cases::{Case, Expected};
use crate::destination::Destination;
use crate::program::{Program, ProgramPattern};
use crate::request::parse_asked;
use crate::rule::RuleId;
use crate::text::entry::BadEntry;
use crate::text::native::{Reader, TEST_KEYS};
use crate::text::yaml::{Node, Value};

impl Reader<'_, '_> {
    pub(super) fn tests(&mut self, value: &Node<'_>) {
        for item in self.report.list(value, "`tests`") {
            let rule = RuleId::new(Arc::clone(self.report.file()), item.span.line);
            let case = self.case(item, rule);
            if case.is_some() {
                self.spans.tests.push(item.span);
            }
            self.policy.tests.extend(case);
        }
    }

    fn case(&mut self, item: &Node<'_>, rule: RuleId) -> Option<Case> {
        let before = self.report.count();
        let fields = match &item.value {
            Value::Map(pairs) => self.report.fields(pairs, TEST_KEYS, "a test"),
            _ => Vec::new(),
        };
        // A mistyped key is told of once.
        if fields.is_empty() && self.report.count() > before {
            return None;
        }
        let asked = |(key, _): &&(&str, &Node<'_>)| matches!(*key, "allow" | "deny");
        let (1, Some((expected, destination))) = (
            fields.iter().filter(asked).count(),
            fields.iter().find(asked),
        ) else {
            let help = "write `- allow: HOST[:PORT]` or `- deny: HOST[:PORT]`".to_owned();
            let message = "a test has one `allow` or one `deny`";
            self.report.error(item.span, message, "", Some(help));
            return None;
        };
        let expected = match *expected {
            "allow" => Expected::Allow,
            _ => Expected::Deny,
        };
        let text = self.report.text(destination, "a destination")?;
        // Also for `deny`: what nobody can ask for is denied in vain.
        let to = match Destination::from_user(text) {
            Ok(to) => to,
            Err(malformed) => {
                let (span, flaw) = (destination.span, malformed.flaw().to_string());
                let help = "a test asks about one host and one port: write `HOST[:PORT]`";
                let message = "this is not a destination";
                self.report
                    .error(span, message, flaw, Some(help.to_owned()));
                return None;
            }
        };
        if let Some(path) = Destination::path_of_url(text) {
            let help = format!("write it as `request: GET {path}`, or leave it out");
            let message = "the path of this URL is not looked at";
            self.report.warning(
                destination.span,
                message,
                "a destination has none",
                Some(help),
            );
        }
        let mut case = Case::new(rule, expected, text, to);
        for (key, value) in fields {
            match key {
                "by" => {
                    case.by = self.report.parsed(value, "`by`", |text| {
                        ProgramPattern::plain(text, false).ok_or_else(|| {
                            let help = "write its path, such as `/usr/bin/curl`";
                            BadEntry::new(0..text.len(), "this names no executable", "", help)
                        })?;
                        Ok(Program {
                            executable: text.to_owned(),
                            ancestors: Vec::new(),
                        })
                    });
                }
                "request" => {
                    case.request = self.report.parsed(value, "`request`", parse_asked);
                }
                "resolves_to" => {
                    case.resolves_to = self.all_parsed(value, "`resolves_to`", |text| {
                        text.parse().map_err(|_| {
                            let message = "this is not an IP address";
                            BadEntry::new(0..text.len(), message, "", "")
                        })
                    });
                }
                _ => {}
            }
        }
        Some(case)
    }
}
