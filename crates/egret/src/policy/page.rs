//! What the commands print: text in which nothing but our own colours acts on a terminal.
//!
//! File names, arguments, and the words of a policy go into a [`Page`] as they are, and come out with hidden characters
//! written out. What is printed for machines stays valid, and what is data stays as it is where nobody looks at it.

use anstyle::Style;
use egret_policy::{Diagnostic, PolicyErrors, is_hidden, visible_lines};
use serde::Serialize;
use std::fmt::{self, Display, Write as _};
use std::io::{self, IsTerminal, Write as _};

/// Text for a person, written with `write!`.
pub(crate) struct Page {
    text: String,
    colour: bool,
}

impl Page {
    pub(crate) fn for_stdout() -> Self {
        Self::new(colour_for(&io::stdout()))
    }

    pub(crate) fn for_stderr() -> Self {
        Self::new(colour_for(&io::stderr()))
    }

    pub(crate) fn new(colour: bool) -> Self {
        let text = String::new();
        Self { text, colour }
    }

    /// Whether there are colours.
    pub(crate) fn has_colour(&self) -> bool {
        self.colour
    }

    /// What `write!` calls. Ends of lines in what is written are ends of lines.
    pub(crate) fn write_fmt(&mut self, what: fmt::Arguments<'_>) {
        self.text.push_str(&visible_lines(&what.to_string()));
    }

    /// Writes something in a style, where there is colour.
    pub(crate) fn paint(&mut self, style: Style, what: impl Display) {
        let style = match self.colour {
            true => style,
            false => Style::new(),
        };
        let what = what.to_string();
        // Writing to a String cannot fail.
        let (Ok(()) | Err(_)) = write!(self.text, "{style}{}{style:#}", visible_lines(&what));
    }

    pub(super) fn diagnostic(&mut self, diagnostic: &Diagnostic) {
        self.text.push_str(&diagnostic.render(self.colour));
    }

    pub(super) fn errors(&mut self, errors: &PolicyErrors) {
        self.text.push_str(&errors.render(self.colour));
    }

    pub(crate) fn print(&self) -> io::Result<()> {
        print(&self.text)
    }

    /// Prints it on standard error.
    pub(super) fn tell(&self) -> io::Result<()> {
        io::stderr().lock().write_all(self.text.as_bytes())
    }

    /// What there is so far.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

/// Prints a value for machines, indented. What is hidden in its texts is escaped: JSON means the same by it.
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    print(&json(value)?)
}

fn json(value: &impl Serialize) -> io::Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    if text.contains(acts) {
        // Outside of its texts there is none of these in JSON.
        let mut inert = String::with_capacity(text.len() + 64);
        for c in text.chars() {
            match acts(c) {
                true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    // Writing to a String cannot fail.
                    let (Ok(()) | Err(_)) = write!(inert, "\\u{unit:04x}");
                }),
                false => inert.push(c),
            }
        }
        text = inert;
    }
    text.push('\n');
    Ok(text)
}

fn acts(c: char) -> bool {
    c != '\n' && is_hidden(c)
}

/// Prints a text that is to be what it is, a policy: as it is into a file or a pipe, harmless on a terminal.
pub(super) fn print_data(text: &str) -> io::Result<()> {
    match io::stdout().is_terminal() {
        true => print(&visible_lines(text)),
        false => print(text),
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Colour on a terminal only, and not where <https://no-color.org> says no.
fn colour_for(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anstyle::AnsiColor;
    use serde_json::{Value, json};

    #[test]
    fn colours_are_our_own_and_nothing_else_acts() {
        let mut page = Page::new(true);
        page.paint(AnsiColor::Red.on_default(), "a\u{1b}[32m\u{9b}2J");
        writeln!(page, " b\u{202e}");
        assert_eq!(
            page.as_str(),
            "\u{1b}[31ma\\u{1b}[32m\\u{9b}2J\u{1b}[0m b\\u{202e}\n"
        );
        let mut page = Page::new(false);
        page.paint(AnsiColor::Red.on_default(), "a\u{1b}");
        assert_eq!(page.as_str(), "a\\u{1b}");
    }

    #[test]
    fn json_is_inert_and_means_the_same() {
        let text = "\u{1b}[2J \u{9b} \u{85} \u{202e}\u{feff}\u{e0041} \n\"\\ é 🐦";
        let value = json!({ "k\u{9b}": [text] });
        let printed = json(&value).unwrap();
        assert!(!printed.contains(acts), "{printed:?}");
        assert!(printed.contains("é 🐦") && printed.contains(r"\udb40\udc41"));
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), value);
    }
}
