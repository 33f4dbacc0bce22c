//! What a client speaks, told from its first bytes.
//!
//! Telling is one-sided: what could still become TLS or an ordinary HTTP request is held back until it is
//! clear. What looks like text that no HTTP client would begin with is let through and still watched to the
//! end of its first line, so that a chat protocol flows at once, and an HTTP request that was dressed up
//! (an unknown method sent letter by letter, blank lines in front) is still caught before its headers go out.

use super::hello::{self, Hello};

/// Watches the first bytes that a client sends.
#[derive(Debug, Default)]
pub(crate) struct Sniffer {
    /// Set once the bytes turned out to begin a TLS record.
    tls: Option<hello::Reader>,
    /// The first line, as far as it is here.
    line: Vec<u8>,
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum First {
    /// Cannot be told yet, and must not be passed on.
    Hold,
    /// Cannot be told yet; passing on what is there is harmless.
    Watch,
    /// A complete ClientHello.
    Tls(Hello),
    /// The beginning of an HTTP/1 request, or of something close enough to be taken for one.
    Http,
    /// The beginning of HTTP/2 without TLS (RFC 9113 3.4).
    Http2,
    /// None of these.
    Opaque,
    /// What it is may not be said here.
    Bad(&'static str),
}

impl Sniffer {
    /// Takes the next bytes and says what all bytes so far are.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> First {
        if let Some(reader) = &mut self.tls {
            return match reader.push(bytes) {
                Ok(Some(hello)) => First::Tls(hello),
                Ok(None) => First::Hold,
                Err(hello::Bad(why)) => First::Bad(why),
            };
        }
        self.line.extend_from_slice(bytes);
        match *self.line.as_slice() {
            [] | [TLS_FIRST..=TLS_LAST] => First::Hold,
            [TLS_FIRST..=TLS_LAST, 3, ..] => {
                let begun = std::mem::take(&mut self.line);
                self.tls = Some(hello::Reader::default());
                self.push(&begun)
            }
            _ => text(&self.line),
        }
    }
}

impl Sniffer {
    /// Whether the bytes so far are, or may become, the beginning of a ClientHello.
    pub(crate) fn could_be_tls(&self) -> bool {
        self.tls.is_some() || matches!(*self.line.as_slice(), [TLS_FIRST..=TLS_LAST])
    }
}

fn text(bytes: &[u8]) -> First {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c);
    let begin = bytes
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(bytes.len());
    let bytes = bytes.get(begin..).unwrap_or_default();
    let (line, ended) = match bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) => (bytes.get(..end).unwrap_or_default(), true),
        None => (bytes, false),
    };
    match version(line) {
        Some(Version::Two) => return First::Http2,
        Some(Version::One) => return First::Http,
        None if ended => return First::Opaque,
        None => {}
    }
    if begin == 0 && METHODS.iter().any(|method| could_be(method, line)) {
        return if line.len() > LINE {
            First::Http
        } else {
            First::Hold
        };
    }
    if line.len() > LINE || line.iter().any(|&byte| byte < 0x20 && !blank(&byte)) {
        return First::Opaque;
    }
    First::Watch
}

/// Whether a request line with this method may come of `line`.
fn could_be(method: &[u8], line: &[u8]) -> bool {
    match line.strip_prefix(method) {
        Some([b' ', ..]) | Some([]) => true,
        Some(_) => false,
        None => method.starts_with(line),
    }
}

enum Version {
    One,
    Two,
}

/// The HTTP version that stands in a line after a blank, as every server that reads requests at all demands.
fn version(line: &[u8]) -> Option<Version> {
    let at = line.windows(6).position(
        |window| matches!(window, [b' ' | b'\t', name @ ..] if name.eq_ignore_ascii_case(b"HTTP/")),
    )?;
    match line.get(at + 6..)? {
        [b'2'..=b'9', ..] => Some(Version::Two),
        // Nothing behind the slash yet is near enough.
        _ => Some(Version::One),
    }
}

/// Content types of TLS records: change_cipher_spec, alert, handshake, application_data, heartbeat. Only a
/// handshake may come first, but some servers skip the others, so none is taken for something else.
const TLS_FIRST: u8 = 20;
const TLS_LAST: u8 = 24;

/// The longest first line that is waited for.
const LINE: usize = 16 << 10;

/// What clients begin a request with. Others are recognised as soon as their line has a version.
const METHODS: [&[u8]; 39] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"QUERY",
    b"PRI",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"MKCALENDAR",
    b"MKACTIVITY",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
    b"SEARCH",
    b"REPORT",
    b"CHECKOUT",
    b"CHECKIN",
    b"UNCHECKOUT",
    b"MERGE",
    b"BIND",
    b"UNBIND",
    b"REBIND",
    b"LINK",
    b"UNLINK",
    b"ACL",
    b"PURGE",
    b"NOTIFY",
    b"SUBSCRIBE",
    b"UNSUBSCRIBE",
    b"M-SEARCH",
    b"VERSION-CONTROL",
    b"LABEL",
];
