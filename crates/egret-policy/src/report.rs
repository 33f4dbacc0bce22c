//! What is wrong with a policy, shown the way `rustc` does: file, line and column, the line itself, an underline, help.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};
use serde::Serialize;
use thiserror::Error;

use crate::visible::{visible, visible_lines};

/// One error or warning about a policy, with the place it is about.
///
/// Displays as several lines, without colour and without a line break at the end. Shown, it has nothing of the file in it
/// that a terminal would act on ([`visible`]); serialised, it is as it is. Serialises with `level`, `message`,
/// `file`, `line` and `column` (both from 1, the column in characters), and, where there is something to say, `label`
/// (about the part that is underlined) and `help`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    level: Severity,
    message: String,
    file: Arc<str>,
    line: u32,
    column: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// The line and the part of it that is meant; none where it is too long to be shown.
    #[serde(skip)]
    excerpt: Option<(String, Range<usize>)>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy cannot be used.
    Error,
    /// The policy can be used, and is probably not what was meant.
    Warning,
}

impl Diagnostic {
    /// Whether it is an error or a warning.
    pub fn severity(&self) -> Severity {
        self.level
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The line, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The column in characters, from 1.
    pub fn column(&self) -> u32 {
        self.column
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The whole report, coloured for a terminal if so wished.
    pub fn render(&self, colour: bool) -> String {
        let renderer = match colour {
            true => Renderer::styled(),
            false => Renderer::plain(),
        };
        let level = match self.level {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let (file, message) = (visible(&self.file), visible_lines(&self.message));
        let label = visible_lines(&self.label);
        let excerpt = self
            .excerpt
            .as_ref()
            .map(|(line, part)| visible_part(line, part));
        let place: Element<'_> = match &excerpt {
            Some((line, part)) => {
                let annotation = AnnotationKind::Primary.span(part.clone()).label(&*label);
                let snippet = Snippet::source(line.as_str()).line_start(self.line as usize);
                snippet.path(&*file).annotation(annotation).into()
            }
            None => {
                let origin = Origin::path(&*file).line(self.line as usize);
                origin.char_column(self.column as usize).into()
            }
        };
        let help = self.help.as_deref().map(visible_lines);
        let mut group = level.primary_title(&*message).element(place);
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(&**help));
        }
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Everything that is wrong with a policy.
///
/// Displays as all of them, with a blank line between two.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct PolicyErrors {
    file: Arc<str>,
    errors: Vec<Diagnostic>,
    left_out: usize,
}

impl PolicyErrors {
    /// The errors in the order of the file, at most a hundred of them.
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// How many there are in all.
    pub fn count(&self) -> usize {
        self.errors.len() + self.left_out
    }

    /// All of them as one text, coloured for a terminal if so wished.
    pub fn render(&self, colour: bool) -> String {
        let mut parts: Vec<_> = self
            .errors
            .iter()
            .map(|error| error.render(colour))
            .collect();
        if self.left_out > 0 {
            parts.push(format!(
                "error: {}: {} more errors are not shown",
                visible(&self.file),
                self.left_out
            ));
        }
        parts.join("\n\n")
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// A part of a source text, by octets, and the line it begins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) line: u32,
}

impl Span {
    /// The beginning of a text.
    pub(crate) const START: Self = Self {
        start: 0,
        end: 0,
        line: 1,
    };

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// A part of what is meant, by octets from its beginning. Only for a part of the same line.
    pub(crate) fn part(self, part: Range<usize>) -> Self {
        let at = |offset: usize| {
            self.start
                .saturating_add(u32::try_from(offset).unwrap_or(u32::MAX))
                .min(self.end)
        };
        Self {
            start: at(part.start),
            end: at(part.end),
            line: self.line,
        }
    }
}

/// Collects what is wrong with one source text.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    file: Arc<str>,
    source: &'a str,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    errors_left_out: usize,
    warnings_left_out: usize,
}

/// Room for those that somebody will read.
const MOST_SHOWN: usize = 100;
/// A longer line is not shown, and a longer sentence not in whole.
const LONGEST_LINE: usize = 2000;

impl<'a> Report<'a> {
    pub(crate) fn new(file: Arc<str>, source: &'a str) -> Self {
        Self {
            file,
            source,
            errors: Vec::new(),
            warnings: Vec::new(),
            errors_left_out: 0,
            warnings_left_out: 0,
        }
    }

    pub(crate) fn file(&self) -> &Arc<str> {
        &self.file
    }

    pub(crate) fn source(&self) -> &'a str {
        self.source
    }

    /// Reports an error: a title, a label for the underlined part, and what to do.
    pub(crate) fn error(
        &mut self,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        if self.is_full() {
            self.errors_left_out += 1;
            return;
        }
        let error = self.diagnostic(Severity::Error, span, message.into(), label.into(), help);
        self.errors.push(error);
    }

    /// Reports a warning likewise.
    pub(crate) fn warning(
        &mut self,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        if self.warnings.len() == MOST_SHOWN {
            self.warnings_left_out += 1;
            return;
        }
        let warning = self.diagnostic(Severity::Warning, span, message.into(), label.into(), help);
        self.warnings.push(warning);
    }

    /// Where something stands, told to somebody who looks at another place.
    pub(crate) fn place(&self, of: Span, seen_from: Span) -> String {
        // What nobody will read is not worth counting characters, of which a line may have many.
        let full = self.is_full() || self.warnings.len() == MOST_SHOWN;
        if full || of.line != seen_from.line {
            return format!("line {}", of.line);
        }
        let start = self.source.floor_char_boundary(of.start as usize);
        let before = self.source.get(..start).unwrap_or_default();
        let in_line = before.rsplit('\n').next().unwrap_or_default();
        format!("column {}", in_line.chars().count() + 1)
    }

    /// Whether further errors are only counted, so that nothing has to be found out about them.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() == MOST_SHOWN
    }

    /// How many errors there are so far.
    pub(crate) fn count(&self) -> usize {
        self.errors.len() + self.errors_left_out
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The errors, if there are any; otherwise the warnings.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, PolicyErrors> {
        self.warnings
            .sort_by_key(|warning| (warning.line, warning.column));
        if self.warnings_left_out > 0 {
            let message = format!("{} more warnings are not shown", self.warnings_left_out);
            let last =
                self.diagnostic(Severity::Warning, Span::START, message, String::new(), None);
            self.warnings.push(Diagnostic {
                excerpt: None,
                ..last
            });
        }
        match self.errors.is_empty() {
            true => Ok(self.warnings),
            false => Err(self.into_errors()),
        }
    }

    /// The errors, of which there are some.
    pub(crate) fn into_errors(mut self) -> PolicyErrors {
        self.errors.sort_by_key(|error| (error.line, error.column));
        PolicyErrors {
            file: self.file,
            errors: self.errors,
            left_out: self.errors_left_out,
        }
    }

    fn diagnostic(
        &self,
        level: Severity,
        span: Span,
        message: String,
        label: String,
        help: Option<String>,
    ) -> Diagnostic {
        let Range { start, end } = span.range();
        let start = self.source.floor_char_boundary(start);
        let before = self.source.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = self.source.get(line_start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line_end = line_start + line.len();
        let end = self
            .source
            .ceil_char_boundary(end.clamp(start, line_end.max(start)));
        let first = (start - line_start).min(line.len());
        let part = first..(end - line_start).clamp(first, line.len());
        Diagnostic {
            level,
            message: shortened(message),
            file: Arc::clone(&self.file),
            line: span.line,
            column: u32::try_from(column).unwrap_or(u32::MAX),
            help: help.map(shortened),
            label: shortened(label),
            excerpt: (line.len() <= LONGEST_LINE).then(|| (line.to_owned(), part)),
        }
    }
}

/// A line and a part of it as they are shown. A tab is left to the renderer, which makes blanks of it.
fn visible_part(line: &str, part: &Range<usize>) -> (String, Range<usize>) {
    let shown = |range: Range<usize>| visible_lines(line.get(range).unwrap_or_default());
    let mut text = shown(0..part.start).into_owned();
    let start = text.len();
    text.push_str(&shown(part.clone()));
    let end = text.len();
    text.push_str(&shown(part.end..line.len()));
    (text, start..end)
}

/// A sentence in which a word of the file stands may be as long as the file: then its middle is left out.
fn shortened(text: String) -> String {
    if text.len() <= LONGEST_LINE {
        return text;
    }
    let kept = LONGEST_LINE / 4;
    let front = text.floor_char_boundary(kept);
    let back = text.ceil_char_boundary(text.len() - kept);
    let (front, back) = (text.get(..front), text.get(back..));
    format!(
        "{} … {}",
        front.unwrap_or_default(),
        back.unwrap_or_default()
    )
}

/// What somebody who wrote `unknown` may have meant.
pub(crate) fn did_you_mean(unknown: &str, known: &[&str]) -> Option<String> {
    if unknown.len() > 64 {
        return None;
    }
    let lower = unknown.to_lowercase().replace('-', "_");
    let distance = |word: &&&str| strsim::damerau_levenshtein(&lower, &word.replace('-', "_"));
    let nearest = known.iter().min_by_key(distance)?;
    let far = distance(&nearest) > 1 + nearest.len() / 4;
    (!far).then(|| format!("did you mean `{nearest}`?"))
}

#[cfg(test)]
mod tests {
    use crate::Policy;
    use crate::visible::is_hidden;

    #[test]
    fn what_is_shown_has_nothing_that_a_terminal_obeys() {
        #[rustfmt::skip]
        let table = [
            ("version: 1 # \u{9b}2J",                                   r"# \u{9b}2J"),
            ("version: 1\nallow: [\u{85}]",                             r"[\u{85}]"),
            ("version: 1\nalow\u{202e}: [] # \u{2066}",                 r"alow\u{202e}: [] # \u{2066}"),
            ("version: 1\nallow: [{host: a.test, by: [\"/\u{feff}\"]}]", r#"["/\u{feff}"]"#),
            ("version: 1\nallow:\n- {host: \u{200b}a.test, reason: \"x\u{202e}\"}", r#""x\u{202e}""#),
        ];
        for (source, expected) in table {
            let errors = Policy::parse("p\u{1b}[2J\n.yaml", source.as_bytes()).unwrap_err();
            let shown = errors.to_string();
            assert!(!shown.contains(|c| c != '\n' && is_hidden(c)), "{shown:?}");
            assert!(shown.contains(expected), "{shown}");
            assert!(shown.contains(r"--> p\u{1b}[2J\n.yaml:"), "{shown}");
            let coloured = errors.render(true);
            let other = |c| !matches!(c, '\n' | '\u{1b}') && is_hidden(c);
            assert!(!coloured.contains(other), "{coloured:?}");
            assert!(!coloured.contains("\u{1b}[2J"), "{coloured:?}");
        }
    }

    #[test]
    fn the_underline_is_where_it_was_meant() {
        let source = "version: 1\nallow:\n- {host: a.test, reason: \"\u{202e}\u{200b}\"} # \u{9b}";
        let errors = Policy::parse(
            "p.yaml",
            "version: 1\nallow: [a.test] # \u{2066}é\nalow: [\u{202e}]".as_bytes(),
        );
        let shown = errors.unwrap_err().to_string();
        let errors = Policy::parse("p.yaml", source.replace(" # \u{9b}", "").as_bytes());
        let shown = format!("{shown}\n{}", errors.unwrap_err());
        let lines: Vec<_> = shown.lines().collect();
        let under = |part: &str| {
            let at = lines.iter().position(|line| line.contains(part)).unwrap();
            (
                lines[at].find(part),
                lines[at + 1].find('^'),
                lines[at + 1].matches('^').count(),
            )
        };
        assert_eq!(under("alow:").0, under("alow:").1, "{shown}");
        let (text, marks, length) = under(r#""\u{202e}\u{200b}""#);
        assert_eq!((text, length), (marks, 18), "{shown}");
    }
}
