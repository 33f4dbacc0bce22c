//! Writing a policy: YAML as people write it, or JSON, from values with the comments that belong to them.
//!
//! One writer for what is formatted and for what is converted. It writes any value, knows no key, and what it writes
//! reads as the value that it was given. Quotes stand only where YAML needs them.
//!
//! Not here: in which order keys stand, and to what a comment belongs; whoever makes the values says that.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::text::yaml::{Kind, kind_of};

/// A value to be written.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    /// What is no text to YAML, such as a number: written as it is.
    Plain(Cow<'a, str>),
    /// A text, on one line if it is one, otherwise in lines of its own.
    Text(Cow<'a, str>),
    /// A text that was folded, and is again if that can be.
    Folded(Cow<'a, str>),
    List(Collection<'a, Item<'a>>),
    Map(Collection<'a, (Cow<'a, str>, Item<'a>)>),
}

/// A list or a mapping.
#[derive(Debug)]
pub(crate) struct Collection<'a, T> {
    pub(crate) items: Vec<T>,
    /// Whether it stands in one line, between brackets, if there is room and nobody has a comment.
    pub(crate) inline: bool,
    /// Comments after the last item.
    pub(crate) foot: Vec<Comment<'a>>,
}

/// An item of a list, or the value of a key, and what is said about it.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// Comments in lines before it.
    pub(crate) lead: Vec<Comment<'a>>,
    /// Whether a blank line stands before it, and after its comments.
    pub(crate) blank: bool,
    pub(crate) value: Value<'a>,
    /// The comment in its first line.
    pub(crate) behind: Option<Comment<'a>>,
}

impl<'a> From<Value<'a>> for Item<'a> {
    fn from(value: Value<'a>) -> Self {
        Self {
            lead: Vec::new(),
            blank: false,
            value,
            behind: None,
        }
    }
}

/// A comment.
#[derive(Clone, Debug)]
pub(crate) struct Comment<'a> {
    /// With its `#`, without a line break.
    pub(crate) text: Cow<'a, str>,
    /// Whether a blank line stands before it.
    pub(crate) blank: bool,
    /// Where it begins if it stands behind a value and there is room: characters from the beginning of the line.
    pub(crate) column: usize,
}

/// A longer line is broken where it is a list or a mapping.
const WIDTH: usize = 100;
/// Folded texts are broken here.
const FOLDED_WIDTH: usize = 80;
pub(crate) const STEP: usize = 2;
/// What stands at least between a value and the comment behind it.
pub(crate) const GAP: usize = 2;

/// Writes a mapping as a YAML document, under the comments that are about all of it.
///
/// A blank line stands around every key of the outermost mapping whose value takes several lines.
pub(crate) fn yaml<'a>(
    header: &[Comment<'_>],
    root: &Collection<'a, (Cow<'a, str>, Item<'a>)>,
) -> String {
    let mut writer = Writer { out: String::new() };
    writer.comments(header, 0, true);
    if !header.is_empty() {
        writer.out.push('\n');
    }
    let mut after_section = false;
    for (index, (key, item)) in root.items.iter().enumerate() {
        let first = index == 0;
        let section = takes_lines(&item.value, key.chars().count() + 2);
        let apart = !first && (section || after_section);
        let starts_blank = item
            .lead
            .first()
            .map_or(item.blank, |comment| comment.blank);
        if apart && !starts_blank {
            writer.out.push('\n');
        }
        writer.lead(item, 0, first);
        writer.pair(key, item, 0);
        after_section = section;
    }
    writer.comments(&root.foot, 0, root.items.is_empty());
    writer.out
}

/// Writes a mapping as JSON, which has no comments.
pub(crate) fn json<'a>(root: &Collection<'a, (Cow<'a, str>, Item<'a>)>) -> String {
    let mut out = String::new();
    json_map(root, 0, &mut out);
    out.push('\n');
    out
}

struct Writer {
    out: String,
}

impl Writer {
    /// Comments in lines of their own; the first thing in a collection has no blank line before it.
    fn comments(&mut self, comments: &[Comment<'_>], indent: usize, first: bool) {
        for (index, comment) in comments.iter().enumerate() {
            if comment.blank && !(first && index == 0) {
                self.out.push('\n');
            }
            self.indent(indent);
            self.out.push_str(&comment.text);
            self.out.push('\n');
        }
    }

    /// What stands before an item.
    fn lead(&mut self, item: &Item<'_>, indent: usize, first: bool) {
        self.comments(&item.lead, indent, first);
        if item.blank && !(first && item.lead.is_empty()) {
            self.out.push('\n');
        }
    }

    /// A key and its value; the caller has indented it.
    fn pair(&mut self, key: &str, item: &Item<'_>, indent: usize) {
        self.out.push_str(&text(key, true));
        self.out.push(':');
        match in_line(&item.value, self.column() + 1) {
            Some(value) => {
                self.out.push(' ');
                self.out.push_str(&value);
                self.behind(item);
            }
            None => self.lines(item, indent + STEP),
        }
    }

    /// What does not stand in one line, and the end of the line that it belongs to.
    fn lines(&mut self, item: &Item<'_>, indent: usize) {
        match &item.value {
            Value::List(list) => {
                self.behind(item);
                self.list(list, indent);
            }
            Value::Map(map) => {
                self.behind(item);
                self.map(map, indent, false);
            }
            Value::Folded(text) if can_be_folded(text) => {
                let (head, text) = match text.strip_suffix('\n') {
                    Some(text) => (" >", text),
                    None => (" >-", text.as_ref()),
                };
                self.out.push_str(head);
                self.behind(item);
                for line in folded(text, FOLDED_WIDTH.saturating_sub(indent)) {
                    self.indent(indent);
                    self.out.push_str(&line);
                    self.out.push('\n');
                }
            }
            Value::Text(text) | Value::Folded(text) | Value::Plain(text) => {
                let head = if text.ends_with('\n') { " |" } else { " |-" };
                self.out.push_str(head);
                self.behind(item);
                for line in text.lines() {
                    // A line without anything has no indentation either.
                    if !line.is_empty() {
                        self.indent(indent);
                    }
                    self.out.push_str(line);
                    self.out.push('\n');
                }
            }
        }
    }

    fn list(&mut self, list: &Collection<'_, Item<'_>>, indent: usize) {
        for (index, item) in list.items.iter().enumerate() {
            self.lead(item, indent, index == 0);
            if let Some(value) = in_line(&item.value, indent + STEP) {
                self.indent(indent);
                self.out.push_str("- ");
                self.out.push_str(&value);
                self.behind(item);
            } else if let Value::Map(map) = &item.value {
                // The first key shares the line of the dash, so its comments and those of the whole stand before it.
                let first = map.items.first().map(|(_, first)| first.lead.as_slice());
                for comment in item.behind.iter().chain(first.unwrap_or_default()) {
                    self.indent(indent);
                    self.out.push_str(&comment.text);
                    self.out.push('\n');
                }
                self.indent(indent);
                self.out.push_str("- ");
                self.map(map, indent + STEP, true);
            } else {
                self.indent(indent);
                self.out.push('-');
                self.lines(item, indent + STEP);
            }
        }
        self.comments(&list.foot, indent, list.items.is_empty());
    }

    /// `begun` is whether the line of the first key is begun already, after its comments.
    fn map(
        &mut self,
        map: &Collection<'_, (Cow<'_, str>, Item<'_>)>,
        indent: usize,
        mut begun: bool,
    ) {
        for (index, (key, item)) in map.items.iter().enumerate() {
            if !std::mem::take(&mut begun) {
                self.lead(item, indent, index == 0);
                self.indent(indent);
            }
            self.pair(key, item, indent);
        }
        self.comments(&map.foot, indent, map.items.is_empty());
    }

    /// Ends a line, with the comment that belongs there.
    fn behind(&mut self, item: &Item<'_>) {
        if let Some(comment) = &item.behind {
            let column = self.column();
            let gap = comment.column.saturating_sub(column).max(GAP);
            self.indent(gap);
            self.out.push_str(&comment.text);
        }
        self.out.push('\n');
    }

    fn indent(&mut self, by: usize) {
        self.out.extend(std::iter::repeat_n(' ', by));
    }

    fn column(&self) -> usize {
        let line = self.out.rsplit('\n').next().unwrap_or_default();
        line.chars().count()
    }
}

/// Whether a value at a column takes more than a line.
fn takes_lines(value: &Value<'_>, column: usize) -> bool {
    in_line(value, column).is_none()
}

/// A value in one line, if it is to stand in one and there is room from this column on.
fn in_line(value: &Value<'_>, column: usize) -> Option<String> {
    match value {
        Value::Folded(text) if can_be_folded(text) => None,
        Value::Text(text) | Value::Folded(text) if has_lines(text) => None,
        Value::Plain(word) => Some(word.to_string()),
        Value::Text(word) | Value::Folded(word) => Some(text(word, false).into_owned()),
        Value::List(_) | Value::Map(_) => {
            let mut out = String::new();
            let whole = bracketed(value, Form::Yaml, &mut out);
            (whole && column + out.chars().count() <= WIDTH).then_some(out)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Yaml,
    Json,
}

/// Writes a value between brackets; says whether it may stand there.
fn bracketed(value: &Value<'_>, form: Form, out: &mut String) -> bool {
    let bare = |item: &Item<'_>| item.lead.is_empty() && item.behind.is_none();
    let scalar = |word: &str| match form {
        Form::Yaml => text(word, true).into_owned(),
        Form::Json => quoted(word),
    };
    match value {
        Value::Plain(word) => out.push_str(word),
        Value::Text(word) | Value::Folded(word) => out.push_str(&scalar(word)),
        Value::List(list) => {
            if !list.inline || !list.foot.is_empty() {
                return false;
            }
            out.push('[');
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                if !(bare(item) && bracketed(&item.value, form, out)) {
                    return false;
                }
            }
            out.push(']');
        }
        Value::Map(map) => {
            if !map.inline || !map.foot.is_empty() {
                return false;
            }
            out.push('{');
            for (index, (key, item)) in map.items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                out.push_str(&scalar(key));
                out.push_str(": ");
                if !(bare(item) && bracketed(&item.value, form, out)) {
                    return false;
                }
            }
            out.push('}');
        }
    }
    true
}

fn json_value(value: &Value<'_>, indent: usize, out: &mut String) {
    let column = out
        .rsplit('\n')
        .next()
        .map_or(0, |line| line.chars().count());
    let mut line = String::new();
    // One more for the comma.
    if bracketed(value, Form::Json, &mut line) && column + line.chars().count() < WIDTH {
        out.push_str(&line);
        return;
    }
    match value {
        Value::Map(map) => json_map(map, indent, out),
        Value::List(list) => {
            let mut before = "[\n";
            for item in &list.items {
                out.push_str(before);
                out.extend(std::iter::repeat_n(' ', indent + STEP));
                json_value(&item.value, indent + STEP, out);
                before = ",\n";
            }
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            out.push(']');
        }
        // A scalar that is too long for a line has no other form.
        Value::Plain(_) | Value::Text(_) | Value::Folded(_) => out.push_str(&line),
    }
}

fn json_map(map: &Collection<'_, (Cow<'_, str>, Item<'_>)>, indent: usize, out: &mut String) {
    let mut before = "{\n";
    for (key, item) in &map.items {
        out.push_str(before);
        out.extend(std::iter::repeat_n(' ', indent + STEP));
        out.push_str(&quoted(key));
        out.push_str(": ");
        json_value(&item.value, indent + STEP, out);
        before = ",\n";
    }
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
    out.push('}');
}

/// A text in one line, with quotes where it needs them; between brackets it needs them more often.
pub(crate) fn text(text: &str, between_brackets: bool) -> Cow<'_, str> {
    if can_be_plain(text, between_brackets) {
        return Cow::Borrowed(text);
    }
    let escapes = text.chars().any(needs_escape);
    match !escapes && text.contains(['"', '\\']) {
        true => Cow::Owned(format!("'{}'", text.replace('\'', "''"))),
        false => Cow::Owned(quoted(text)),
    }
}

/// Whether YAML 1.2 reads a text without quotes as that text (YAML 1.2.2, section 7.3.3), and so do readers of YAML 1.1,
/// to which `no` is a truth value.
fn can_be_plain(text: &str, between_brackets: bool) -> bool {
    const TRUTH_OF_YAML_1_1: [&str; 6] = ["y", "n", "yes", "no", "on", "off"];
    let brackets = |c: char| between_brackets && matches!(c, ',' | '[' | ']' | '{' | '}');
    let mut chars = text.chars();
    let begins = match (chars.next(), chars.next()) {
        (Some('-' | '?' | ':'), second) => second.is_some_and(|c| c != ' ' && !brackets(c)),
        (Some(first), _) => !matches!(
            first,
            ',' | '['
                | ']'
                | '{'
                | '}'
                | '#'
                | '&'
                | '*'
                | '!'
                | '|'
                | '>'
                | '\''
                | '"'
                | '%'
                | '@'
                | '`'
        ),
        (None, _) => false,
    };
    begins
        && kind_of(text) == Kind::String
        && !TRUTH_OF_YAML_1_1
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
        && !text.starts_with("---")
        && !text.starts_with("...")
        && text.trim() == text
        && !text.ends_with(':')
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.chars().any(|c| needs_escape(c) || brackets(c))
}

/// A text in double quotes, as both YAML and JSON read it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All of these have four digits. Writing to a String cannot fail.
            c if needs_escape(c) => {
                let (Ok(()) | Err(_)) = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Control characters, what else YAML takes for no character, and marks that change the direction of text.
pub(crate) fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a text is written in lines of its own: it has several, and YAML keeps them as they are.
fn has_lines(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let begins = body
        .chars()
        .next()
        .is_some_and(|c| !c.is_whitespace() && c != '#');
    let clean =
        |line: &str| !line.chars().any(needs_escape) && !line.ends_with(char::is_whitespace);
    text.contains('\n') && begins && !body.ends_with('\n') && body.split('\n').all(clean)
}

/// Whether a text can be broken into lines at its blanks, so that it is the same when they are put together again.
fn can_be_folded(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    !body.is_empty() && body.trim() == body && !body.chars().any(needs_escape)
}

/// A text in lines of about this length, broken at single blanks between words.
pub(crate) fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    // Where there are several blanks, the empty words between them stay in their line.
    let words: Vec<&str> = text.split(' ').collect();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| words.get(index));
        let can_break = !word.is_empty() && before.is_some_and(|before| !before.is_empty());
        let more = word.chars().count();
        if can_break && length + 1 + more > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        } else if index > 0 {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += more;
    }
    lines.push(line);
    lines
}
