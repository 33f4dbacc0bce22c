//! HTTP/1 heads, read strictly (RFC 9112).
//!
//! `httparse` takes a head apart; this module first refuses every shape that two servers are known to
//! read differently: line feeds without a carriage return and the reverse, NUL, folded lines, and
//! [`framing`](Request::framing) that is stated twice or in two ways.

use std::mem::MaybeUninit;
use std::ops::Range;

use egret_policy::guard::stands;
use memchr::memchr3;

use crate::limits::{Limit, Limits};

/// One request head.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    /// Method and target, one behind the other.
    line: String,
    /// Where the target begins.
    target: usize,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub(crate) minor: u8,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

/// One response head.
#[derive(Debug)]
pub(crate) struct Response {
    bytes: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) minor: u8,
    phrase: Range<usize>,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

/// The name of a field, which is ASCII, and its value, which may be anything.
pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

/// Why a head is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHead {
    Malformed(&'static str),
    Limit(Limit),
}

/// How much body follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Exactly so many bytes.
    Length(u64),
    /// Chunks, up to the last one.
    Chunked,
    /// Everything until the connection ends; responses only.
    UntilClose,
}

/// Where the head in `bytes` ends, once it does. `scanned` is how far earlier calls have looked.
pub(crate) fn end(
    bytes: &[u8],
    scanned: &mut usize,
    limits: &Limits,
) -> Result<Option<usize>, BadHead> {
    if !stands("strict-heads") {
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        return Ok(end.map(|at| at + 4));
    }
    let bad = |why| Err(BadHead::Malformed(why));
    let mut from = *scanned;
    let next = |from| memchr3(b'\n', b'\r', 0, bytes.get(from..)?).map(|at| from + at);
    while let Some(at) = next(from) {
        let (before, here) = bytes.split_at_checked(at).unwrap_or_default();
        match here {
            [b'\r', b'\n', ..] if before.is_empty() => {
                return bad("a request does not begin with an empty line");
            }
            [b'\r', b'\n', ..] if before.ends_with(b"\r\n") => {
                if at + 1 >= limits.head_bytes {
                    return Err(BadHead::Limit(Limit::HeadBytes));
                }
                *scanned = 0;
                return Ok(Some(at + 2));
            }
            [b'\r', b'\n', b' ' | b'\t', ..] => return bad("a header line begins with a blank"),
            [b'\r', b'\n', ..] => from = at + 2,
            [b'\r'] => from = at + 1,
            [b'\r', ..] => return bad("a carriage return stands without a line feed"),
            [b'\n', ..] => return bad("a line ends in a line feed without a carriage return"),
            _ => return bad("a NUL byte stands in the head"),
        }
    }
    // The end of a line at the very end is looked at again together with what follows it.
    let again = match bytes {
        [.., b'\r', b'\n'] => 2,
        [.., b'\r'] => 1,
        _ => 0,
    };
    *scanned = bytes.len().saturating_sub(again);
    if bytes.len() >= limits.head_bytes {
        Err(BadHead::Limit(Limit::HeadBytes))
    } else {
        Ok(None)
    }
}

impl Request {
    /// Parses a complete head, as delimited by [`end`].
    pub(crate) fn parse(bytes: Vec<u8>, limits: &Limits) -> Result<Self, BadHead> {
        let mut room = Vec::with_capacity(limits.head_fields);
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(&bytes, spare(&mut room, limits)) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(BadHead::Limit(Limit::HeadFields)),
            _ => {
                return Err(BadHead::Malformed(
                    "the request head does not follow HTTP/1.1's grammar",
                ));
            }
        }
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(BadHead::Malformed("the request line is incomplete"));
        };
        let (line, target) = ([method, target].concat(), method.len());
        let fields = spans(&bytes, request.headers);
        Ok(Self {
            bytes,
            line,
            target,
            minor,
            fields,
        })
    }

    pub(crate) fn method(&self) -> &str {
        self.line.get(..self.target).unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &str {
        self.line.get(self.target..).unwrap_or_default()
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        fields(&self.bytes, &self.fields)
    }

    pub(crate) fn field(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        named(&self.bytes, &self.fields, name)
    }

    /// The `Host` field: at most one, and text.
    pub(crate) fn host(&self) -> Result<Option<&str>, BadHead> {
        let mut hosts = self.field("host");
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(BadHead::Malformed("the request has two Host fields"));
        }
        let host = host.map(std::str::from_utf8).transpose();
        host.map_err(|_| BadHead::Malformed("the Host field is not text"))
    }

    /// How much body follows. Stating it twice, or in two ways, is how requests are smuggled (RFC 9112 11.2).
    pub(crate) fn framing(&self) -> Result<Framing, BadHead> {
        let mut encodings = self.field("transfer-encoding");
        let mut lengths = self.field("content-length");
        if !stands("strict-heads") {
            let length = lengths.next().and_then(number).unwrap_or_default();
            return Ok(Framing::Length(length));
        }
        match (encodings.next(), lengths.next()) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(_), Some(_)) => Err(BadHead::Malformed(
                "the request has both Content-Length and Transfer-Encoding",
            )),
            (Some(encoding), None) => {
                if encodings.next().is_some() || !encoding.eq_ignore_ascii_case(b"chunked") {
                    Err(BadHead::Malformed(
                        "the request's Transfer-Encoding is not exactly `chunked`",
                    ))
                } else if self.minor == 0 {
                    Err(BadHead::Malformed("HTTP/1.0 has no Transfer-Encoding"))
                } else {
                    Ok(Framing::Chunked)
                }
            }
            (None, Some(length)) => {
                if lengths.next().is_some() {
                    return Err(BadHead::Malformed(
                        "the request has two Content-Length fields",
                    ));
                }
                number(length)
                    .map(Framing::Length)
                    .ok_or(BadHead::Malformed("the Content-Length is not a number"))
            }
        }
    }

    /// Whether the client wants to go on after this request.
    pub(crate) fn keeps_alive(&self) -> bool {
        keeps_alive(self.minor, || {
            self.field("connection")
                .chain(self.field("proxy-connection"))
        })
    }

    /// Whether the client asks to go on in WebSocket frames (RFC 6455 4.1).
    pub(crate) fn asks_for_websocket(&self) -> bool {
        self.minor == 1
            && self
                .field("connection")
                .any(|value| has_token(value, b"upgrade"))
            && self.field("upgrade").count() == 1
            && self
                .field("upgrade")
                .all(|value| value.eq_ignore_ascii_case(b"websocket"))
    }
}

impl Response {
    /// Parses the response head at the beginning of `bytes` and says how long it is. `None`: not all there yet.
    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<(Self, usize)>, BadHead> {
        let mut room = Vec::with_capacity(limits.head_fields);
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let room = spare(&mut room, limits);
        let length = match parser.parse_response_with_uninit_headers(&mut response, bytes, room) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < limits.head_bytes => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(BadHead::Limit(Limit::HeadBytes)),
            Err(httparse::Error::TooManyHeaders) => return Err(BadHead::Limit(Limit::HeadFields)),
            Err(_) => {
                return Err(BadHead::Malformed(
                    "the server's answer does not follow HTTP/1.1's grammar",
                ));
            }
        };
        let (Some(status), Some(minor)) = (response.code, response.version) else {
            return Err(BadHead::Malformed("the server's status line is incomplete"));
        };
        let phrase = response
            .reason
            .map_or(0..0, |phrase| within(bytes, phrase.as_bytes()));
        let fields = spans(bytes, response.headers);
        let bytes = bytes.get(..length).unwrap_or_default().to_vec();
        Ok(Some((
            Self {
                bytes,
                status,
                minor,
                phrase,
                fields,
            },
            length,
        )))
    }

    pub(crate) fn phrase(&self) -> &str {
        text(&self.bytes, &self.phrase)
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        fields(&self.bytes, &self.fields)
    }

    fn field(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        named(&self.bytes, &self.fields, name)
    }

    /// How much body follows in answer to a request with `method` (RFC 9112 6.3).
    pub(crate) fn framing(&self, method: &str) -> Result<Framing, BadHead> {
        if method == "HEAD" || matches!(self.status, 100..200 | 204 | 304) {
            return Ok(Framing::Length(0));
        }
        let mut encodings = self.field("transfer-encoding");
        let mut lengths = self.field("content-length");
        match (encodings.next(), lengths.next()) {
            (None, None) => Ok(Framing::UntilClose),
            (Some(_), Some(_)) => Err(BadHead::Malformed(
                "the server's answer has both Content-Length and Transfer-Encoding",
            )),
            (Some(encoding), None) => {
                if encodings.next().is_none() && encoding.eq_ignore_ascii_case(b"chunked") {
                    Ok(Framing::Chunked)
                } else {
                    Err(BadHead::Malformed(
                        "the server's answer has a Transfer-Encoding other than `chunked`",
                    ))
                }
            }
            (None, Some(length)) => match number(length) {
                Some(length) if lengths.all(|other| number(other) == Some(length)) => {
                    Ok(Framing::Length(length))
                }
                _ => Err(BadHead::Malformed(
                    "the server's answer has no single Content-Length",
                )),
            },
        }
    }

    pub(crate) fn keeps_alive(&self) -> bool {
        keeps_alive(self.minor, || self.field("connection"))
    }
}

fn keeps_alive<'a, I: Iterator<Item = &'a [u8]>>(minor: u8, connection: impl Fn() -> I) -> bool {
    if connection().any(|value| has_token(value, b"close")) {
        return false;
    }
    minor == 1 || connection().any(|value| has_token(value, b"keep-alive"))
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    tokens(list).any(|item| item.eq_ignore_ascii_case(token))
}

/// What stands between the commas of a list.
pub(crate) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// Plain digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| {
        digits
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    })
}

/// Room for as many fields as a head may have.
fn spare<'a, 'b>(
    room: &'a mut Vec<httparse::Header<'b>>,
    limits: &Limits,
) -> &'a mut [MaybeUninit<httparse::Header<'b>>] {
    let room = room.spare_capacity_mut();
    room.get_mut(..limits.head_fields).unwrap_or_default()
}

fn spans(bytes: &[u8], fields: &[httparse::Header<'_>]) -> Vec<(Range<usize>, Range<usize>)> {
    fields
        .iter()
        .map(|field| {
            (
                within(bytes, field.name.as_bytes()),
                within(bytes, field.value),
            )
        })
        .collect()
}

/// Where `part`, a slice of `whole`, lies in it.
fn within(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + part.len()
}

fn text<'a>(bytes: &'a [u8], span: &Range<usize>) -> &'a str {
    bytes
        .get(span.clone())
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .unwrap_or_default()
}

fn fields<'a>(
    bytes: &'a [u8],
    spans: &'a [(Range<usize>, Range<usize>)],
) -> impl Iterator<Item = Field<'a>> + Clone {
    let part = |span: &Range<usize>| bytes.get(span.clone()).unwrap_or_default();
    spans
        .iter()
        .map(move |(name, value)| (part(name), part(value)))
}

/// The values of the fields with one name. Most others are told by its length.
fn named<'a>(
    bytes: &'a [u8],
    spans: &'a [(Range<usize>, Range<usize>)],
    wanted: &str,
) -> impl Iterator<Item = &'a [u8]> {
    let part = |span: &Range<usize>| bytes.get(span.clone()).unwrap_or_default();
    spans
        .iter()
        .filter(move |(name, _)| {
            name.len() == wanted.len() && part(name).eq_ignore_ascii_case(wanted.as_bytes())
        })
        .map(move |(_, value)| part(value))
}
