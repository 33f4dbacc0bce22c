//! Why a text is not YAML, and what was probably meant.
//!
//! The library says where it could not go on, which is often behind the mistake. This looks at the lines around.

use granit_parser::ErrorKind;

use crate::report::{Report, Span};
use crate::text::advice;
use crate::text::native::is_key;
use crate::text::reader::shown;

/// Reports why the text is not YAML. `flow` is the bracket that was open last, if one was.
pub(super) fn not_yaml(report: &mut Report<'_>, at: Span, kind: &ErrorKind, flow: Option<Span>) {
    let source = report.source();
    let rest = source.get(at.start as usize..).unwrap_or_default();
    if rest.starts_with(INDICATORS) {
        return needs_quotes(report, at);
    }
    let why = kind.to_string();
    let found = strange_blank(source, at)
        .or_else(|| why.contains("tab").then(|| tabs(source, at)))
        .or_else(|| not_closed(source, at, kind, flow))
        .or_else(|| line_mistake(source, at, kind));
    let Found {
        span,
        message,
        help,
    } = found.unwrap_or_else(|| Found {
        span: at,
        message: format!("this is not YAML: {why}"),
        help: None,
    });
    report.error(span, message, "", help);
}

struct Found {
    span: Span,
    message: String,
    help: Option<String>,
}

impl Found {
    fn new(span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: Some(help.into()).filter(|help: &String| !help.is_empty()),
        }
    }
}

fn tabs(source: &str, at: Span) -> Found {
    let span = tab_near(source, at).unwrap_or(at);
    Found::new(span, "YAML is not indented with tabs", "indent with spaces")
}

/// A blank that YAML does not take for one, in the line of the error.
fn strange_blank(source: &str, at: Span) -> Option<Found> {
    let line = Line::at(source, at)?;
    let (offset, c) = line
        .text
        .char_indices()
        .find(|(_, c)| advice::is_strange(*c))?;
    let span = line.part(offset, offset + c.len_utf8());
    Some(Found::new(span, "this is not YAML", advice::strange(c)))
}

/// The bracket or the quote without which the lines after it would have been read otherwise.
fn not_closed(source: &str, at: Span, kind: &ErrorKind, flow: Option<Span>) -> Option<Found> {
    let span = match kind {
        ErrorKind::UnclosedQuotedScalar | ErrorKind::UnclosedFlowCollection { .. } => at,
        ErrorKind::InvalidQuotedScalarIndent | ErrorKind::DocumentIndicatorInQuotedScalar => {
            let before = source.get(..at.start as usize)?;
            let quote = before.rfind('"').or_else(|| before.rfind('\''))?;
            let lines_after = before.get(quote..)?.matches('\n').count();
            let start = u32::try_from(quote).ok()?;
            let line = at.line.saturating_sub(u32::try_from(lines_after).ok()?);
            Span {
                start,
                end: start,
                line,
            }
        }
        ErrorKind::RecursionLimitExceeded => return None,
        _ => flow.filter(|flow| flow.line < at.line)?,
    };
    let (what, close) = match source.get(span.start as usize..)?.chars().next()? {
        '[' => ("bracket", "`]`"),
        '{' => ("brace", "`}`"),
        '"' => ("quote", "another one"),
        '\'' => ("quote", "another one"),
        _ => return None,
    };
    let span = Span {
        end: span.start.saturating_add(1),
        ..span
    };
    let message = format!("this is not YAML: unclosed {what}");
    Some(Found::new(
        span,
        message,
        format!("put {close} where it ends"),
    ))
}

/// Blanks that are missing, or too many or too few, in the line of the error or before it.
fn line_mistake(source: &str, at: Span, kind: &ErrorKind) -> Option<Found> {
    if !ABOUT_LINES.contains(kind) {
        return None;
    }
    let line = Line::at(source, at)?;
    let offset = (at.start as usize).saturating_sub(line.start);
    let (before, rest) = line.text.split_at_checked(offset)?;
    if before.ends_with(']') && rest.starts_with(':') {
        let bracket = before.rfind('[')?;
        let ports = rest.find([' ', ',', ']', '}']).unwrap_or(rest.len());
        let entry = line.text.get(bracket..offset + ports)?;
        let span = line.part(bracket, offset + ports);
        let help = format!("write `\"{}\"`", shown(entry));
        return Some(Found::new(
            span,
            "an entry that begins with a bracket needs quotes",
            help,
        ));
    }
    if rest.starts_with(":[") || rest.starts_with(":{") {
        let span = line.part(offset, offset + 1);
        return Some(Found::new(
            span,
            "a blank is missing after the colon",
            "write `: ` here",
        ));
    }
    if matches!(rest.trim_end(), "," | ";") {
        let span = line.part(offset, offset + 1);
        let message = "this is not YAML: something stands behind a value";
        return Some(Found::new(
            span,
            message,
            "leave it out: a line ends the value",
        ));
    }
    let mut above = line.above(source).filter(|line| !line.is_blank());
    let previous = above.next();
    if let Some(found) = line.lacks_blank() {
        return Some(found);
    }
    if let Some(found) = previous.as_ref().and_then(Line::lacks_blank) {
        return Some(found);
    }
    if *kind == ErrorKind::ExpectedFlowMappingSeparator {
        let span = line.part(offset, offset + 1);
        return rest
            .starts_with(": ")
            .then(|| Found::new(span, COLON_IN_TEXT, "put the text in quotes"));
    }
    if *kind == ErrorKind::MappingValueNotAllowed
        && let Some((key, _)) = before.split_once(": ")
    {
        let value = key.len() + 2;
        let text = line.text.get(value..)?.trim();
        let help = match text.contains(['"', '\\']) || text.len() > 60 {
            true => "put the text in quotes".to_owned(),
            false => format!("put the text in quotes: `\"{}\"`", shown(text)),
        };
        let span = line.part(value, line.text.len());
        return Some(Found::new(span, COLON_IN_TEXT, help));
    }
    let wanted = previous
        .into_iter()
        .chain(above)
        .take(FAR)
        .find_map(|above| Some((above.number, above.column(line.is_item())?)));
    let indent = line.text.len() - line.text.trim_start().len();
    if let Some((number, column)) = wanted
        && column != indent + 1
    {
        let message = "this line does not line up with those above it";
        let help = format!("begin it in column {column}, as line {number}");
        return Some(Found::new(line.whole(), message, help));
    }
    let no_key = *kind == ErrorKind::SimpleKeyExpected && !line.text.contains(':');
    let message = "this is not YAML: there is no colon in this line";
    no_key.then(|| Found::new(line.whole(), message, "write `KEY: VALUE`"))
}

const COLON_IN_TEXT: &str = "a text with a colon and a blank in it needs quotes";

/// What the library says where blanks are missing, or too many or too few.
const ABOUT_LINES: &[ErrorKind] = &[
    ErrorKind::BlockSequenceEntryNotAllowed,
    ErrorKind::ExpectedBlockMappingKey,
    ErrorKind::ExpectedBlockSequenceEntry,
    ErrorKind::ExpectedDocumentStart,
    ErrorKind::ExpectedFlowMappingSeparator,
    ErrorKind::FlowMappingValueAdjacentCollection,
    ErrorKind::InvalidColonPlacement,
    ErrorKind::InvalidIndentation,
    ErrorKind::InvalidMappingValueWhitespace,
    ErrorKind::InvalidTrailingDoubleQuotedScalar,
    ErrorKind::InvalidTrailingSingleQuotedScalar,
    ErrorKind::MappingKeyNotAllowed,
    ErrorKind::MappingValueNotAllowed,
    ErrorKind::SimpleKeyExpected,
];

/// How many lines are looked at for one to line up with.
const FAR: usize = 200;

/// A line of the source.
struct Line<'a> {
    number: u32,
    /// Where it begins.
    start: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn at(source: &'a str, at: Span) -> Option<Self> {
        let before = source.get(..at.start as usize)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some(Self {
            number: at.line,
            start,
            text: source.get(start..)?.lines().next().unwrap_or_default(),
        })
    }

    /// The lines before it, the last one first.
    fn above(&self, source: &'a str) -> impl Iterator<Item = Self> {
        let (mut number, mut end) = (self.number, self.start);
        std::iter::from_fn(move || {
            let before = source.get(..end.checked_sub(1)?)?;
            let start = before.rfind('\n').map_or(0, |newline| newline + 1);
            (number, end) = (number.checked_sub(1)?, start);
            let text = before.get(start..)?;
            Some(Self {
                number,
                start,
                text,
            })
        })
    }

    fn is_blank(&self) -> bool {
        let text = self.text.trim_start();
        text.is_empty() || text.starts_with('#')
    }

    fn is_item(&self) -> bool {
        let text = self.text.trim_start();
        text == "-" || text.starts_with("- ")
    }

    /// What stands behind the dashes.
    fn item(&self) -> &'a str {
        let mut text = self.text.trim();
        while let Some(item) = text.strip_prefix("- ") {
            text = item.trim_start();
        }
        text
    }

    /// The key or the sign of a comment behind which a blank, or which a `#`, should stand.
    fn lacks_blank(&self) -> Option<Found> {
        let item = self.item();
        if item.starts_with("//") || item.starts_with("/*") {
            return Some(Found::new(
                self.whole(),
                "this is no comment",
                advice::COMMENTS,
            ));
        }
        let (key, value) = item.split_once(':')?;
        let lacks = is_key(key) && !value.is_empty() && !value.starts_with([' ', '\t', '\r']);
        let message = "a blank is missing after the colon";
        lacks.then(|| Found::new(self.whole(), message, advice::blank_after_colon(item)))
    }

    /// The column, from 1, in which it has a dash, or in which it has a key.
    fn column(&self, dash: bool) -> Option<usize> {
        let text = self.text.trim_end();
        if dash {
            return self
                .is_item()
                .then(|| text.len() - text.trim_start().len() + 1);
        }
        let item = self.item();
        let key = item.ends_with(':') || item.contains(": ");
        key.then(|| text.len() - item.len() + 1)
    }

    fn part(&self, from: usize, to: usize) -> Span {
        let at = |offset: usize| u32::try_from(self.start + offset).unwrap_or(u32::MAX);
        Span {
            start: at(from),
            end: at(to),
            line: self.number,
        }
    }

    /// Without the blanks around it.
    fn whole(&self) -> Span {
        let from = self.text.len() - self.text.trim_start().len();
        self.part(from, self.text.trim_end().len().max(from))
    }
}

/// What a text may not begin with unless it is quoted, and what patterns and paths do begin with.
pub(super) const INDICATORS: [char; 6] = ['*', '&', '!', '@', '`', '%'];

/// The anchor or tag that ends at a place, as far as a host name is long: what was meant with it is a text.
pub(super) fn in_front(source: &str, span: Span) -> Option<Span> {
    let end = span.start as usize;
    let from = source.floor_char_boundary(end.saturating_sub(256));
    let indicator = from + source.get(from..end)?.rfind(INDICATORS)?;
    let written = source.get(indicator..end)?;
    let whole = !written.contains(char::is_whitespace);
    whole.then_some(Span {
        start: u32::try_from(indicator).ok()?,
        end: span.start,
        line: span.line,
    })
}

pub(super) fn needs_quotes(report: &mut Report<'_>, span: Span) {
    let rest = report
        .source()
        .get(span.start as usize..)
        .unwrap_or_default();
    let ends = [' ', '\t', '\r', '\n', ',', ']', '}'];
    let text = rest.split(ends).next().unwrap_or_default();
    let text = text.trim_end_matches(':');
    let indicator = text.chars().next().unwrap_or_default();
    // The method of a request.
    let text = match rest.strip_prefix("* /") {
        Some(path) => rest
            .get(..3 + path.find(ends).unwrap_or(path.len()))
            .unwrap_or(text),
        None => text,
    };
    let span = Span {
        end: span
            .start
            .saturating_add(u32::try_from(text.len()).unwrap_or(u32::MAX)),
        ..span
    };
    let message = match indicator {
        '`' => "a text that begins with a backtick needs quotes".to_owned(),
        _ => format!("a text that begins with `{indicator}` needs quotes"),
    };
    // Not at any length, and not with what would need escapes.
    let plain = text.len() <= 100
        && text
            .chars()
            .all(|c| (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\' | '`'));
    // A line may be long, and have many of these: only once a text ends the reading, as this one does.
    let ports = || {
        Line::at(report.source(), span)?
            .item()
            .strip_prefix("ports:")
    };
    let help = match plain {
        true if text == "*" && ports().is_some() => "every port is `ports: any`".to_owned(),
        true if text == "*" && rest.starts_with("* ") => {
            "an item of a list begins with `- `".to_owned()
        }
        true if text == "*" => "every public destination is `default: allow-public`".to_owned(),
        true => format!("write `\"{text}\"`"),
        false => "put it in quotes".to_owned(),
    };
    report.error(span, message, "", Some(help));
}

/// The first tab in an indentation, in the line of the error or the next one that is not blank: the error may be that
/// a value which began before it cannot go on there.
fn tab_near(source: &str, span: Span) -> Option<Span> {
    let before = source.get(..span.start as usize)?;
    let mut start = before.rfind('\n').map_or(0, |newline| newline + 1);
    for (line, text) in (span.line..).zip(source.get(start..)?.split_inclusive('\n')) {
        let indent = text.len() - text.trim_start().len();
        if let Some(tab) = text.get(..indent)?.find('\t') {
            let start = u32::try_from(start + tab).ok()?;
            return Some(Span {
                start,
                end: start + 1,
                line,
            });
        }
        if line > span.line && indent < text.len() {
            return None;
        }
        start += text.len();
    }
    None
}
