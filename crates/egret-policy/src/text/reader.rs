//! Reading values out of a tree: what every reader of policies reports in the same words.

use crate::report::{Report, did_you_mean};
use crate::text::entry::{self, BadEntry};
use crate::text::yaml::{Kind, Node, Value};

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
        let mut lines: Vec<(&'static str, u32)> = Vec::new();
        for (key, value) in pairs {
            let Some(word) = text_of(key) else {
                let label = format!("this is {}", key.value.describe());
                self.error(key.span, "a key is a text", label, None);
                continue;
            };
            let Some(&name) = known.iter().find(|name| **name == word) else {
                let listed = || format!("{what} can have {}", list_of(known));
                let help = || did_you_mean(word, known).unwrap_or_else(listed);
                let help = (!self.is_full()).then(help);
                let message = format!("{what} has no key `{}`", shown(word));
                self.error(key.span, message, "unknown key", help);
                continue;
            };
            if let Some((_, line)) = lines.iter().find(|(seen, _)| *seen == name) {
                let message = format!("`{name}` stands here twice");
                let label = format!("it is in line {line} already");
                self.error(key.span, message, label, None);
                continue;
            }
            lines.push((name, key.span.line));
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
        let source = self.source().get(value.span.range());
        let block = matches!(value.value, Value::Map(_))
            && !source.is_some_and(|source| source.starts_with('{'));
        let help = match block {
            true => "begin each item with `- `",
            false => "put it in brackets: `[...]`",
        };
        let help = Some(help.to_owned());
        self.error(value.span, format!("{what} has to be a list"), label, help);
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
                let help = matches!(other, Value::Scalar(_, Kind::Bool | Kind::Number))
                    .then(|| "put it in quotes".to_owned());
                self.error(value.span, format!("{what} has to be a text"), label, help);
                None
            }
        }
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
        let text = match &item.value {
            Value::Scalar(text, Kind::Number) => text,
            Value::Scalar(text, Kind::String) => {
                let number = text
                    .parse::<u16>()
                    .ok()
                    .map(|port| format!("write {port} without quotes"));
                self.error(item.span, "a port is a number", "this is a text", number);
                return None;
            }
            other => {
                let label = format!("this is {}", other.describe());
                self.error(item.span, "a port is a number", label, None);
                return None;
            }
        };
        let port = crate::destination::parse_port(text).ok();
        if port.is_none() {
            self.bad(item, text, entry::bad_port(0..text.len(), text));
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
        let span = match written.find(text) {
            Some(at) if at <= 1 && !text.is_empty() => {
                let empty = bad.part.is_empty();
                node.span
                    .part(bad.part.start + at..bad.part.end + at + usize::from(empty))
            }
            _ => node.span,
        };
        self.error(span, bad.message, bad.label, bad.help);
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

/// Control characters and marks that change the direction of text.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
