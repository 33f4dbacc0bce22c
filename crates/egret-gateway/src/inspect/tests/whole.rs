//! The sniffer, and the search for the end of a head, as their rules read: with each piece that comes they look at all of it
//! anew, byte by byte, which is simple, and slow.

use super::super::first::{self, First, LINE, METHODS, PROXY_PREFACES, WORD};
use super::super::http::head::BadHead;
use crate::limits::{Limit, Limits};

/// Watches the first bytes that a client sends, but for TLS and PostgreSQL, which are told apart by the first one.
#[derive(Default)]
pub(super) struct Sniffer {
    line: Vec<u8>,
    left_out: usize,
}

impl Sniffer {
    pub(super) fn push(&mut self, bytes: &[u8]) -> First {
        self.line.extend_from_slice(bytes);
        match text(&self.line) {
            First::Watch => self.go_on(),
            first => first,
        }
    }

    /// What is kept of the line, and how much was left out.
    pub(super) fn kept(&self) -> (&[u8], usize) {
        (&self.line, self.left_out)
    }

    fn go_on(&mut self) -> First {
        if self.line.len() <= LINE && self.left_out == 0 {
            return First::Watch;
        }
        let begin = self.line.iter().position(|byte| !first::skipped(byte));
        let kept = match begin.map(|begin| &self.line[begin..]) {
            None => vec![b' '],
            Some(word) if word.iter().all(|&byte| first::is_token(byte)) => {
                [b" ", &word[word.len().saturating_sub(64)..]].concat()
            }
            Some(_) => return First::Watch,
        };
        self.left_out += self.line.len() - kept.len();
        self.line = kept;
        match self.left_out > WORD {
            true => First::Opaque,
            false => First::Watch,
        }
    }
}

fn text(bytes: &[u8]) -> First {
    let mut prefaces = PROXY_PREFACES.iter();
    if prefaces.clone().any(|preface| bytes.starts_with(preface)) {
        return First::Bad("");
    }
    if prefaces.any(|preface| preface.starts_with(bytes)) {
        return First::Hold;
    }
    let skipped = |byte: &&u8| first::skipped(byte);
    let begin = bytes.iter().take_while(skipped).count();
    let mut lines = bytes[begin..].splitn(2, |&byte| byte == b'\n');
    let (line, ended) = (lines.next().unwrap(), lines.next().is_some());
    let is_name = |window: &[u8]| window.eq_ignore_ascii_case(b"HTTP/");
    if let Some(at) = line.windows(5).position(is_name) {
        return match line[at + 5..] {
            [b'2'..=b'9', ..] => First::Http2,
            _ => First::Http,
        };
    }
    if first::is_akin(line, ended) {
        return First::Bad("");
    }
    if ended {
        return match first::is_ancient(line) {
            true => First::Http,
            false => First::Opaque,
        };
    }
    let could_be = |method: &[u8]| match line.strip_prefix(method) {
        Some([]) => true,
        Some([next, ..]) => !first::is_token(*next),
        None => method.starts_with(line),
    };
    let long = bytes.len() > LINE;
    if begin == 0 && METHODS.iter().any(|method| could_be(method)) {
        return if long { First::Http } else { First::Hold };
    }
    if !long {
        return First::Watch;
    }
    match first::words(line).next() {
        Some(word) if !word.iter().all(|&byte| first::is_token(byte)) => First::Opaque,
        Some(word) if word.len() < line.len() => First::Bad(""),
        Some(_) | None => First::Watch,
    }
}

/// Where the head in `bytes` ends, once it does.
pub(super) fn end(bytes: &[u8], limits: &Limits) -> Result<Option<usize>, BadHead> {
    for (at, &byte) in bytes.iter().enumerate() {
        let before = &bytes[..at];
        let next = bytes.get(at + 1);
        let why = match byte {
            b'\n' if !before.ends_with(b"\r") => {
                "a line ends in a line feed without a carriage return"
            }
            b'\n' if at == 1 => "a request does not begin with an empty line",
            b'\n' if before.ends_with(b"\r\n\r") && at >= limits.head_bytes => {
                return Err(BadHead::Limit(Limit::HeadBytes));
            }
            b'\n' if before.ends_with(b"\r\n\r") => return Ok(Some(at + 1)),
            b'\r' if next.is_some_and(|&next| next != b'\n') => {
                "a carriage return stands without a line feed"
            }
            0 => "a NUL byte stands in the head",
            b' ' | b'\t' if before.ends_with(b"\n") => "a header line begins with a blank",
            _ => continue,
        };
        return Err(BadHead::Malformed(why));
    }
    match bytes.len() >= limits.head_bytes {
        true => Err(BadHead::Limit(Limit::HeadBytes)),
        false => Ok(None),
    }
}
