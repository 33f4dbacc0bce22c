//! From the octets of a file to what a reader makes of them.

use crate::report::{Diagnostic, PolicyErrors, Report, Span};
use crate::text::yaml::{self, Node};

/// Reads a text of at most so many octets, which is `what`: YAML in UTF-8, with something in it. Returns what `read` makes
/// of it, and the warnings.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub(crate) fn read<T>(
    source_name: &str,
    text: &[u8],
    what: &str,
    most: usize,
    read: impl FnOnce(&Node<'_>, &mut Report<'_>) -> T,
) -> Result<(T, Vec<Diagnostic>), PolicyErrors> {
    let valid = valid_utf8(text);
    let source = valid.strip_prefix('\u{feff}').unwrap_or(valid);
    let mut report = Report::new(source_name.into(), source);
    let octets = text.len();
    if octets > most {
        let limit = match most >> 20 {
            0 => format!("{} KiB", most >> 10),
            mebibytes => format!("{mebibytes} MiB"),
        };
        let message = format!("a {what} has at most {limit}, and this has {octets} octets");
        report.error(Span::START, message, "", None);
    } else if valid.len() < octets {
        let at = u32::try_from(source.len()).unwrap_or(u32::MAX);
        let lines = source.bytes().filter(|&b| b == b'\n').count();
        let line = u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1);
        let help = "save the file as UTF-8".to_owned();
        let span = Span {
            start: at,
            end: at,
            line,
        };
        report.error(
            span,
            "this is not UTF-8",
            "the octets after this are not",
            Some(help),
        );
    }
    if report.has_errors() {
        return Err(report.into_errors());
    }
    let Some(root) = yaml::parse(&mut report) else {
        if !report.has_errors() {
            let help = "begin with `version: 1`".to_owned();
            report.error(Span::START, format!("the {what} is empty"), "", Some(help));
        }
        return Err(report.into_errors());
    };
    let made = read(&root, &mut report);
    Ok((made, report.finish()?))
}

/// The text up to the first octet that is not UTF-8.
fn valid_utf8(text: &[u8]) -> &str {
    match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let valid = text.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(valid).unwrap_or_default()
        }
    }
}
