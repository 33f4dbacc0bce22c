//! Reading values out of a tree: what every reader of policies reports in the same words.

use crate::report::{Report, Span};
use crate::text::advice;
use crate::text::entry::{self, BadEntry};
use crate::text::yaml::{Kind, Node, Value};
use crate::visible::is_hidden;

/// The pairs of a mapping.
pub(crate) type Pairs<'s> = [(Node<'s>, Node<'s>)];

impl Report<'_> {
    /// The values of known keys. Reports the unknown and the repeated ones, of which the first stands.
    pub(crate) fn fields<'n, 's>(
        &mut self,
        pairs: &'n Pairs<'s>,
        known: &[&'static str],
        what: &str,
    ) -> Vec<(&'static str, &'n Node<'s>)> {
        let mut fields: Vec<(&'static str, &Node<'_>)> = Vec::new();
        let mut places: Vec<(&'static str, Span)> = Vec::new();
        for (key, value) in pairs {
            let Some(word) = text_of(key) else {
                let label = format!("this is {}", key.value.describe());
                self.error(key.span, "a key is a text", label, None);
                continue;
            };
            let Some(&name) = known.iter().find(|name| **name == word) else {
                let listed = || format!("{what} can have {}", list_of(known));
                let help = || advice::key(word, known).unwrap_or_else(listed);
                let help = (!self.is_full()).then(help);
                let message = format!("{what} has no key `{}`", shown(word));
                self.error(key.span, message, "unknown key", help);
                continue;
            };
            if let Some((_, first)) = places.iter().find(|(seen, _)| *seen == name) {
                let message = format!("`{name}` stands here twice");
                let label = format!("it is in {} already", self.place(*first, key.span));
                self.error(key.span, message, label, None);
                continue;
            }
            places.push((name, key.span));
            fields.push((name, value));
        }
        fields
    }

    /// The items of a list, which may not be empty.
    pub(crate) fn list<'n, 's>(&mut self, value: &'n Node<'s>, what: &str) -> &'n [Node<'s>] {
        match &value.value {
            Value::List(items) if !items.is_empty() => items,
            Value::List(_) | Value::Scalar(_, Kind::Null) => {
                let help = "leave the key out if nothing is meant".to_owned();
                self.error(value.span, format!("{what} is empty"), "", Some(help));
                &[]
            }
            _ => self.not_a_list(value, what),
        }
    }

    /// The items of a list, which may be empty or missing.
    pub(crate) fn items<'n, 's>(&mut self, value: &'n Node<'s>, what: &str) -> &'n [Node<'s>] {
        match &value.value {
            Value::List(items) => items,
            Value::Scalar(_, Kind::Null) => &[],
            _ => self.not_a_list(value, what),
        }
    }

    fn not_a_list<'n, 's>(&mut self, value: &Node<'_>, what: &str) -> &'n [Node<'s>] {
        let label = format!("this is {}", value.value.describe());
        let written = self.source().get(value.span.range()).unwrap_or_default();
        let dash = written.strip_prefix('-');
        let help = match (&value.value, dash) {
            (Value::Map(pairs), _) if !written.starts_with('{') => as_item(pairs),
            (Value::Scalar(..), Some(item)) if !item.starts_with(['-', ' ']) => {
                "write a blank after each `-`".to_owned()
            }
            _ => format!("put it in brackets: `{}`", advice::bracketed(written)),
        };
        self.error(
            value.span,
            format!("{what} has to be a list"),
            label,
            Some(help),
        );
        &[]
    }

    /// The pairs of a mapping; none if it is nothing, or something else.
    pub(crate) fn pairs<'n, 's>(
        &mut self,
        value: &'n Node<'s>,
        what: &str,
    ) -> Option<&'n Pairs<'s>> {
        match &value.value {
            Value::Map(pairs) => Some(pairs),
            Value::Scalar(_, Kind::Null) => None,
            other => {
                let label = format!("this is {}", other.describe());
                let message = format!("{what} has to be a mapping");
                self.error(value.span, message, label, None);
                None
            }
        }
    }

    pub(crate) fn text<'n>(&mut self, value: &'n Node<'_>, what: &str) -> Option<&'n str> {
        match &value.value {
            Value::Scalar(text, Kind::String) => Some(text),
            other => {
                let label = format!("this is {}", other.describe());
                let help = match other {
                    Value::Scalar(_, Kind::Bool | Kind::Number) => Some("put it in quotes"),
                    Value::List(_) => one_each(what),
                    _ => None,
                };
                let help = help.map(str::to_owned);
                self.error(value.span, format!("{what} has to be a text"), label, help);
                None
            }
        }
    }

    /// A text for people, of one line or several. It is shown where decisions are, so nothing in it may be hidden.
    pub(crate) fn words<'n>(&mut self, value: &'n Node<'_>, what: &str) -> Option<&'n str> {
        let text = self.text(value, what)?;
        let hidden = |c: &char| is_hidden(*c) && !matches!(c, '\n' | '\t');
        if let Some(c) = text.chars().find(hidden) {
            let label = format!("U+{:04X} is in it", u32::from(c));
            let message = format!("{what} has a character that cannot be seen");
            let help = "leave such characters out".to_owned();
            self.error(value.span, message, label, Some(help));
            return None;
        }
        Some(text)
    }

    /// A text that may be missing or empty, which is the same.
    pub(crate) fn optional_text<'n>(&mut self, value: &'n Node<'_>, what: &str) -> Option<&'n str> {
        match &value.value {
            Value::Scalar(_, Kind::Null) => None,
            _ => self.text(value, what).filter(|text| !text.is_empty()),
        }
    }

    /// A truth value; one that is missing, or is none and reported, is false.
    pub(crate) fn flag(&mut self, value: &Node<'_>, what: &str) -> bool {
        match &value.value {
            Value::Scalar(word, Kind::Bool) => word.eq_ignore_ascii_case("true"),
            Value::Scalar(_, Kind::Null) => false,
            other => {
                let label = format!("this is {}", other.describe());
                let message = format!("{what} has to be `true` or `false`");
                self.error(value.span, message, label, None);
                false
            }
        }
    }

    /// A port, which is a number.
    pub(crate) fn port(&mut self, item: &Node<'_>) -> Option<u16> {
        self.port_or(item, "")
    }

    /// A port, where `every` says how every port is written.
    pub(crate) fn port_or(&mut self, item: &Node<'_>, every: &str) -> Option<u16> {
        let text = match &item.value {
            Value::Scalar(text, Kind::Number) => text,
            Value::Scalar(text, Kind::String) => {
                let number = text
                    .parse::<u16>()
                    .ok()
                    .map(|port| format!("write {port} without quotes"));
                let help = number.or_else(|| advice::port(text, every));
                self.error(item.span, "a port is a number", "this is a text", help);
                return None;
            }
            other => {
                let label = format!("this is {}", other.describe());
                let help = match other {
                    Value::Scalar(word, Kind::Bool) => advice::port(word, every),
                    _ => None,
                };
                self.error(item.span, "a port is a number", label, help);
                return None;
            }
        };
        let port = crate::destination::parse_port(text).ok();
        if port.is_none() {
            self.bad(item, text, entry::bad_port(0..text.len(), text, every));
        }
        port
    }

    pub(crate) fn parsed<T>(
        &mut self,
        value: &Node<'_>,
        what: &str,
        parse: impl Fn(&str) -> Result<T, BadEntry>,
    ) -> Option<T> {
        let text = self.text(value, what)?;
        parse(text).map_err(|bad| self.bad(value, text, bad)).ok()
    }

    /// Reports what is wrong with a text, underlining the part if the text stands in the source as it is.
    pub(crate) fn bad(&mut self, node: &Node<'_>, text: &str, bad: BadEntry) {
        let written = self.source().get(node.span.range()).unwrap_or_default();
        let help = advice::written(written).or(bad.help);
        let span = match written.find(text) {
            Some(at) if at <= 1 && !text.is_empty() => {
                let empty = bad.part.is_empty();
                node.span
                    .part(bad.part.start + at..bad.part.end + at + usize::from(empty))
            }
            _ => node.span,
        };
        self.error(span, bad.message, bad.label, help);
    }
}

/// How a mapping is written as the one item of a list.
fn as_item(pairs: &Pairs<'_>) -> String {
    let keys: Vec<_> = pairs.iter().filter_map(|(key, _)| text_of(key)).collect();
    let lines: Vec<_> = keys
        .iter()
        .take(4)
        .map(|key| format!("{}: …", shown(key)))
        .collect();
    let help = match lines.len() {
        1 => "begin each item with `- `",
        _ => "begin the item with `- `, and line its keys up",
    };
    format!("{help}:\n- {}", lines.join("\n  "))
}

/// What to do where several stand in place of one text.
fn one_each(what: &str) -> Option<&'static str> {
    match what {
        "`host`" | "`address`" => Some("write an entry for each"),
        "a destination" => Some("write a test for each destination"),
        "`by`" => Some("write a test for each program"),
        "`request`" => Some("write a test for each request"),
        _ => None,
    }
}

pub(crate) fn text_of<'n>(node: &'n Node<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Scalar(text, Kind::String) => Some(text),
        _ => None,
    }
}

/// The value of a key, wherever it stands.
pub(crate) fn get<'n, 's>(pairs: &'n Pairs<'s>, name: &str) -> Option<&'n Node<'s>> {
    let named = |(key, _): &&(Node<'_>, Node<'_>)| text_of(key) == Some(name);
    pairs.iter().find(named).map(|(_, value)| value)
}

pub(crate) fn list_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, front)) => format!("{} and {last}", front.join(", ")),
        None => String::new(),
    }
}

/// A word of the file for a message, without what a terminal would act on and not at any length.
pub(crate) fn shown(word: &str) -> String {
    let short: String = word.chars().take(60).collect();
    short.escape_debug().to_string()
}

/// Whether a policy can be called this: it has to fit into a listing.
pub(crate) fn can_be_a_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_POLICY_NAME && !name.chars().any(is_hidden)
}

/// The most octets in a policy's name.
pub(crate) const MAX_POLICY_NAME: usize = 128;
