//! What was verified, as a table for people, as JSON, and as JUnit XML for what reads test results.

use super::judge::{Finding, Verification};
use crate::cli::Report as Form;
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

/// The findings about one sandbox.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What was looked at.
    pub(crate) sandbox: String,
    /// Whether nothing leaked, and nothing was skipped.
    pub(crate) holds: bool,
    pub(crate) duration_ms: u64,
    pub(crate) classes: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(sandbox: String, classes: Vec<Finding>, duration_ms: u64) -> Self {
        let fine = |finding: &Finding| {
            matches!(finding.result, Verification::Held | Verification::NotTried)
        };
        Self {
            sandbox,
            holds: classes.iter().all(fine),
            duration_ms,
            classes,
        }
    }

    pub(crate) fn print(&self, form: Form) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let text = match form {
            Form::Text => self.text(out.is_terminal() && std::env::var_os("NO_COLOR").is_none()),
            Form::Json => serde_json::to_string_pretty(self)? + "\n",
            Form::Junit => self.junit(),
        };
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn text(&self, colour: bool) -> String {
        let mut text = format!("{}\n", self.sandbox);
        for finding in &self.classes {
            let (word, style) = word(finding.result);
            let style = if colour { style } else { Style::new() };
            let Finding {
                class,
                title,
                tried,
                ..
            } = finding;
            // Writing to a string does not fail.
            let _ = write!(text, "{class:>3}  {title:<40}  {style}{word:<9}{style:#}");
            let _ = match finding.result {
                Verification::Held => {
                    let record = finding.records.first();
                    let record = record.map_or_else(String::new, |id| format!(" [{id}]"));
                    let how = summary(&finding.evidence);
                    writeln!(text, "  {tried:>3} tried: {how}{record}")
                }
                _ => writeln!(text, "  {}", finding.evidence.join("; ")),
            };
        }
        let count = |result| {
            self.classes
                .iter()
                .filter(|finding| finding.result == result)
                .count()
        };
        let tried: usize = self.classes.iter().map(|finding| finding.tried).sum();
        let seconds = std::time::Duration::from_millis(self.duration_ms).as_secs_f64();
        let _ = writeln!(
            text,
            "{tried} attempts in {seconds:.1} s: {} classes held, {} leaked, {} imperfect, {} skipped, {} not for a prober to try",
            count(Verification::Held),
            count(Verification::Leaked),
            count(Verification::Imperfect),
            count(Verification::Skipped),
            count(Verification::NotTried),
        );
        text
    }

    /// The format that JUnit's Ant task made usual: a test case for each class.
    fn junit(&self) -> String {
        let is = |result: &[Verification]| {
            self.classes
                .iter()
                .filter(|finding| result.contains(&finding.result))
                .count()
        };
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"egret verify {}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\">\n",
            escaped(&self.sandbox),
            self.classes.len(),
            is(&[Verification::Leaked, Verification::Imperfect]),
            is(&[Verification::Skipped]),
            is(&[Verification::NotTried]),
            std::time::Duration::from_millis(self.duration_ms).as_secs_f64(),
        );
        for finding in &self.classes {
            let evidence = escaped(&finding.evidence.join("; "));
            let inner = match finding.result {
                Verification::Held => format!("<system-out>{evidence}</system-out>"),
                Verification::Leaked | Verification::Imperfect => {
                    format!(
                        "<failure message=\"{}\">{evidence}</failure>",
                        word(finding.result).0
                    )
                }
                Verification::Skipped => format!("<error message=\"{evidence}\"/>"),
                Verification::NotTried => format!("<skipped message=\"{evidence}\"/>"),
            };
            let _ = writeln!(
                text,
                "  <testcase classname=\"egret.verify\" name=\"{} {}\" time=\"{:.3}\">{inner}</testcase>",
                finding.class,
                escaped(finding.title),
                std::time::Duration::from_millis(finding.slowest_ms).as_secs_f64(),
            );
        }
        text + "</testsuite>\n"
    }
}

/// A few ways in which attempts were refused.
fn summary(evidence: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = evidence.iter().take(SHOWN).map(String::as_str);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if evidence.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

fn word(result: Verification) -> (&'static str, Style) {
    match result {
        Verification::Held => ("held", AnsiColor::Green.on_default()),
        Verification::Leaked => ("LEAKED", AnsiColor::Red.on_default().bold()),
        Verification::Imperfect => ("imperfect", AnsiColor::Yellow.on_default()),
        Verification::Skipped => ("skipped", AnsiColor::Yellow.on_default()),
        Verification::NotTried => ("not tried", Style::new().dimmed()),
    }
}

/// Text as XML 1.0 takes it, in content and in attributes.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.extend(c.escape_default()),
            c => escaped.push(c),
        }
    }
    escaped
}
