//! Characters that act on whatever shows a text, or that nobody sees, and how they are written so that they do neither.
//!
//! A terminal obeys control characters, those of C1 too (ECMA-48), and marks of direction show a text in another order
//! than it is read (UAX #9). Everything that Egret shows and did not write itself goes through here.

use std::borrow::Cow;

/// Whether a character may act on what shows it, or cannot be seen: controls (C0, DEL, C1), the ends of lines and
/// paragraphs, marks of direction, and what has no width.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The text with its hidden characters written out, such as `\u{202e}`, so that it is one line and harmless in it.
pub fn visible(text: &str) -> Cow<'_, str> {
    written_out(text, is_hidden)
}

/// The same for a text of several lines: their ends, and tabs, stay what they are.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    written_out(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'))
}

fn written_out(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match hidden(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_or_hides_is_written_out() {
        #[rustfmt::skip]
        let table = [
            ("/srv/é.yaml 'a' \"b\"", "/srv/é.yaml 'a' \"b\""),
            ("a\u{1b}[31mb",          r"a\u{1b}[31mb"),
            ("\u{9b}2J\u{85}\u{7f}",  r"\u{9b}2J\u{85}\u{7f}"),
            ("\u{202e}\u{2066}",      r"\u{202e}\u{2066}"),
            ("\u{200b}\u{feff}\u{ad}\u{e0041}", r"\u{200b}\u{feff}\u{ad}\u{e0041}"),
        ];
        for (text, expected) in table {
            assert_eq!(visible(text), expected);
            assert_eq!(visible_lines(text), expected);
        }
        assert_eq!(visible("a\nb\tc\r"), r"a\nb\tc\r");
        assert_eq!(visible_lines("a\nb\tc\r"), "a\nb\tc\\r");
    }
}
