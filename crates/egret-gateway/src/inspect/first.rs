//! What a client speaks, told from its first bytes.
//!
//! Telling is one-sided: what could still become TLS or an ordinary HTTP request is held back until it is
//! clear. What no HTTP client would begin with is let through and still watched to the end of its first line, so that
//! a chat protocol flows at once, and an HTTP request that was dressed up (an unknown method sent letter by letter,
//! blank lines or control characters in front) is still caught before its headers go out.
//!
//! However finely the bytes are cut, each is looked at a fixed number of times: whoever sends them one by one does not
//! keep the gateway from its other connections.
//!
//! The measure is not what HTTP says but what some server puts up with. What is left open: first lines longer than
//! [`LINE`] whose first word could be no method, and HTTP/0.9 with a target that is no path, which is what Redis is asked.

use memchr::{memchr, memchr_iter};

use super::hello::{self, Hello};

/// Watches the first bytes that a client sends.
#[derive(Debug, Default)]
pub(crate) struct Sniffer {
    /// Set once the bytes turned out to begin a TLS record.
    tls: Option<hello::Reader>,
    /// The first line, as far as it is here and nothing was left out.
    pub(super) line: Vec<u8>,
    /// How much was left out in front.
    pub(super) left_out: usize,
    /// How much of `line` has been looked at.
    seen: usize,
    /// Where, in what has been looked at, that ends which servers skip.
    begin: usize,
    /// Where, behind that, the first byte stands that no method has.
    word: Option<usize>,
    /// Whether a carriage return has been found behind it.
    returned: bool,
}

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum First {
    /// Cannot be told yet, and must not be passed on.
    Hold,
    /// Cannot be told yet; passing on what is there is harmless.
    Watch,
    /// A complete request to begin with TLS; what comes next is looked at anew.
    Prelude,
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
            // Some servers do not look at the version of the first record.
            [TLS_FIRST..=TLS_LAST, ..] => First::Bad("a TLS record of an unknown version"),
            _ if POSTGRES_PRELUDES
                .iter()
                .any(|prelude| self.line == *prelude) =>
            {
                First::Prelude
            }
            _ if POSTGRES_PRELUDES
                .iter()
                .any(|prelude| prelude.starts_with(&self.line)) =>
            {
                First::Hold
            }
            _ if POSTGRES_PRELUDES
                .iter()
                .any(|prelude| self.line.starts_with(prelude)) =>
            {
                First::Bad(
                    "something was sent behind a PostgreSQL request for encryption, before its answer",
                )
            }
            _ => match self.text() {
                First::Watch => self.go_on(),
                first => first,
            },
        }
    }

    /// What `line` is as text. Only what is new of it is looked at, but for a carriage return and for its end, which come
    /// once.
    fn text(&mut self) -> First {
        let bytes = self.line.as_slice();
        if PROXY_PREFACES
            .iter()
            .any(|preface| bytes.starts_with(preface))
        {
            return First::Bad(
                "a PROXY protocol header tells the server that somebody else is connecting",
            );
        }
        if PROXY_PREFACES
            .iter()
            .any(|preface| preface.starts_with(bytes))
        {
            return First::Hold;
        }
        if self.begin == self.seen {
            let new = bytes.get(self.seen..).unwrap_or_default();
            self.begin += new.iter().take_while(|byte| skipped(byte)).count();
        }
        let from = self.seen.max(self.begin);
        self.seen = bytes.len();
        let new = bytes.get(from..).unwrap_or_default();
        let (new, ended) = match memchr(b'\n', new) {
            Some(end) => (new.get(..end).unwrap_or_default(), true),
            None => (new, false),
        };
        let line = bytes.get(self.begin..from + new.len()).unwrap_or_default();
        match version(line, from - self.begin) {
            Some(Version::Two) => return First::Http2,
            Some(Version::One) => return First::Http,
            None => {}
        }
        let returns = !self.returned && memchr(b'\r', new).is_some();
        self.returned |= returns;
        if (returns || ended) && is_akin(line, ended) {
            return First::Bad(
                "the first line has the form of an HTTP request and is none of HTTP/1 (RTSP, SIP and the like are not carried without TLS)",
            );
        }
        if ended {
            // A request without a version is HTTP/0.9, to which some servers still listen.
            return if is_ancient(line) {
                First::Http
            } else {
                First::Opaque
            };
        }
        if self.word.is_none() {
            let end = new.iter().position(|&byte| !is_token(byte));
            self.word = end.map(|end| from + end);
        }
        let long = bytes.len() > LINE;
        if self.begin == 0 && self.could_be_method() {
            return if long { First::Http } else { First::Hold };
        }
        if !long {
            return First::Watch;
        }
        // Some servers read a line of any length, if its first word could be a method.
        match self.word.and_then(|end| bytes.get(end)) {
            Some(&end) if is_blank(end) => First::Bad("the first line is text and has no end"),
            Some(_) => First::Opaque,
            None => First::Watch,
        }
    }

    /// Whether a request line with one of [`METHODS`] may come of a line in front of which nothing is skipped.
    fn could_be_method(&self) -> bool {
        match self.word {
            Some(end) => METHODS
                .iter()
                .any(|&method| self.line.get(..end) == Some(method)),
            None => METHODS.iter().any(|method| method.starts_with(&self.line)),
        }
    }

    /// Watches on, without keeping all of what may be a method of any length, or stand in front of one.
    fn go_on(&mut self) -> First {
        if (self.line.len() <= LINE && self.left_out == 0) || self.word.is_some() {
            return First::Watch;
        }
        // The blank in front stands for what was left out. A version may have begun at the end.
        let from = self.line.len().saturating_sub(KEPT).max(self.begin);
        let kept = [b" ", self.line.get(from..).unwrap_or_default()].concat();
        self.left_out += self.line.len().saturating_sub(kept.len());
        self.line = kept;
        (self.seen, self.begin) = (self.line.len(), 1);
        match self.left_out > WORD {
            true => First::Opaque,
            false => First::Watch,
        }
    }
}

impl Sniffer {
    /// Whether the bytes so far are, or may become, the beginning of a ClientHello.
    pub(crate) fn could_be_tls(&self) -> bool {
        self.tls.is_some() || matches!(*self.line.as_slice(), [TLS_FIRST..=TLS_LAST])
    }
}

/// What some server skips in front of a request: blanks and control characters, also those of Latin-1.
pub(super) fn skipped(byte: &u8) -> bool {
    matches!(byte, 0..=b' ' | 0x7f..=0xa0)
}

/// The words of a line. Servers differ in what they take for a blank.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| is_blank(byte))
        .filter(|word| !word.is_empty())
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1f)
}

/// Whether a line has the form of a request line, with something else than HTTP's version behind the target. Some servers
/// take any word there, and Node.js those of RTSP and Icecast; they read what follows as if it were HTTP.
pub(super) fn is_akin(line: &[u8], ended: bool) -> bool {
    let line = match line.iter().position(|&byte| byte == b'\r') {
        Some(end) => line.get(..end).unwrap_or_default(),
        None if ended => line,
        None => return false,
    };
    let mut words = words(line);
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return false;
    };
    // Git's daemon is asked `git-upload-pack /path`, and then comes a NUL.
    if [method, target]
        .iter()
        .any(|word| word.iter().any(u8::is_ascii_control))
    {
        return false;
    }
    is_path_or_uri(target) || (words.next().is_none() && is_version(version))
}

/// Whether a word is a protocol's name, a slash, and a number with one point in it.
fn is_version(word: &[u8]) -> bool {
    let number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let mut parts = word.rsplitn(2, |&byte| byte == b'/');
    let (Some(version), Some(name)) = (parts.next(), parts.next()) else {
        return false;
    };
    let mut version = version.splitn(2, |&byte| byte == b'.');
    !name.is_empty() && version.next().is_some_and(number) && version.next().is_some_and(number)
}

/// What a method may be made of (RFC 9110 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a line is a request without a version: a method, and a path, a URI or `*`; of `CONNECT`, anything. (`GET key` is
/// what Redis is asked.) By HTTP/0.9 that is all of it, but Node.js takes any method for such a request, and reads fields
/// behind it like any other's.
pub(super) fn is_ancient(line: &[u8]) -> bool {
    let mut words = words(line);
    let (Some(method), target) = (words.next(), words.next()) else {
        return false;
    };
    match target {
        // STOMP begins with a line that is this word alone; with a blank behind it, it has an empty target.
        _ if method == b"CONNECT" => {
            target.is_some() || line.ends_with(b" ") || line.ends_with(b" \r")
        }
        Some(target) if METHODS.contains(&method) || FOREIGN_METHODS.contains(&method) => {
            is_path_or_uri(target) || target.starts_with(b"*")
        }
        Some(_) | None => false,
    }
}

fn is_path_or_uri(target: &[u8]) -> bool {
    target.starts_with(b"/") || target.windows(3).any(|window| window == b"://")
}

/// What PostgreSQL clients send before anything else: SSLRequest and GSSENCRequest (its protocol, "Message Formats").
const POSTGRES_PRELUDES: [&[u8]; 2] =
    [&[0, 0, 0, 8, 4, 210, 22, 47], &[0, 0, 0, 8, 4, 210, 22, 48]];

/// How the two versions of the PROXY protocol begin.
pub(super) const PROXY_PREFACES: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];

/// What Node.js takes for methods besides, and no client of HTTP begins with: those of Icecast and RTSP.
const FOREIGN_METHODS: [&[u8]; 12] = [
    b"SOURCE",
    b"DESCRIBE",
    b"ANNOUNCE",
    b"SETUP",
    b"PLAY",
    b"PAUSE",
    b"TEARDOWN",
    b"GET_PARAMETER",
    b"SET_PARAMETER",
    b"REDIRECT",
    b"RECORD",
    b"FLUSH",
];

enum Version {
    One,
    Two,
}

/// The HTTP version in a line, wherever it stands: servers differ in what they take for a blank in front of it. Its slash
/// is looked for behind `from`.
fn version(line: &[u8], from: usize) -> Option<Version> {
    let mut slashes = memchr_iter(b'/', line.get(from..)?).map(|at| line.split_at(from + at));
    let (_, behind) = slashes.find(|(before, _)| {
        let name = before.last_chunk::<4>();
        name.is_some_and(|name| name.eq_ignore_ascii_case(b"HTTP"))
    })?;
    match behind {
        [_, b'2'..=b'9', ..] => Some(Version::Two),
        // Nothing behind the slash yet is near enough.
        _ => Some(Version::One),
    }
}

/// Content types of TLS records: change_cipher_spec, alert, handshake, application_data, heartbeat. Only a
/// handshake may come first, but some servers skip the others, so none is taken for something else.
pub(crate) const TLS_FIRST: u8 = 20;
pub(crate) const TLS_LAST: u8 = 24;

/// The longest first line that is waited for.
pub(super) const LINE: usize = 16 << 10;

/// The longest first word that is watched, with what stands in front of it. Servers that bound only the head have 1 MiB.
pub(super) const WORD: usize = 16 << 20;

/// How much is kept of such a word.
const KEPT: usize = 64;

/// What clients begin a request with. Others are recognised as soon as their line has a version.
pub(super) const METHODS: [&[u8]; 39] = [
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
