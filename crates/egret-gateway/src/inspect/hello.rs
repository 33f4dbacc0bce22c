//! The TLS ClientHello, read strictly (RFC 8446 4.1.2, RFC 6066 3).
//!
//! Bytes go in as they come, one at a time if need be, and are looked at once. The message may be spread
//! over several records. What does not follow the grammar is refused, not guessed at: a hello that we and
//! the server could read differently would name two hosts at once.

/// Reads one ClientHello.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The header of the record that is being read, as far as it is here.
    header: Vec<u8>,
    /// Bytes of that record still to come.
    left: usize,
    /// The handshake message so far.
    message: Vec<u8>,
}

/// What a complete ClientHello says about where it wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The host name of the server_name extension, as it was sent.
    pub(crate) server_name: Option<String>,
}

/// Why it is not a ClientHello that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad(pub(crate) &'static str);

impl Reader {
    /// Takes the next bytes. `None` until the hello is complete; nothing may be pushed after that.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<Option<Hello>, Bad> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let (header, rest) = bytes.split_at((HEADER - self.header.len()).min(bytes.len()));
                self.header.extend_from_slice(header);
                bytes = rest;
                self.left = match *self.header.as_slice() {
                    [HANDSHAKE, 3, 0..=4, high, low] => match u16::from_be_bytes([high, low]) {
                        length @ 1..=RECORD => usize::from(length),
                        _ => return Err(Bad("a TLS record has an impossible length")),
                    },
                    []
                    | [HANDSHAKE]
                    | [HANDSHAKE, 3]
                    | [HANDSHAKE, 3, 0..=4]
                    | [HANDSHAKE, 3, 0..=4, _] => 0,
                    _ => return Err(Bad("a TLS connection has to begin with a ClientHello")),
                };
                continue;
            }
            self.header.clear();
            let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= payload.len();
            self.message.extend_from_slice(payload);
            bytes = rest;
            if let Some(hello) = self.complete()? {
                return Ok(Some(hello));
            }
        }
        Ok(None)
    }

    fn complete(&self) -> Result<Option<Hello>, Bad> {
        let (length, body) = match *self.message.as_slice() {
            [CLIENT_HELLO, a, b, c, ref body @ ..] => {
                (u32::from_be_bytes([0, a, b, c]) as usize, body)
            }
            [CLIENT_HELLO, ..] | [] => return Ok(None),
            _ => return Err(Bad("a TLS connection has to begin with a ClientHello")),
        };
        if length > LARGEST {
            return Err(Bad("the ClientHello is too large"));
        }
        match body.len() {
            here if here < length => Ok(None),
            here if here > length => Err(Bad("something follows the ClientHello in its record")),
            _ if self.left > 0 => Err(Bad("something follows the ClientHello in its record")),
            _ => hello(body).map(Some),
        }
    }
}

fn hello(body: &[u8]) -> Result<Hello, Bad> {
    let mut body = Cursor(body);
    if body.take(2)?.first() != Some(&3) {
        return Err(Bad("the ClientHello is of an unknown version of TLS"));
    }
    body.take(32)?; // random
    body.vector(1)?; // legacy_session_id
    body.vector(2)?; // cipher_suites
    body.vector(1)?; // legacy_compression_methods
    let mut server_name = None;
    if body.0.is_empty() {
        return Ok(Hello { server_name });
    }
    let mut extensions = body.vector(2)?;
    body.end()?;
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.vector(2)?;
        if kind == SERVER_NAME {
            if server_name.is_some() {
                return Err(Bad("the ClientHello names its server twice"));
            }
            server_name = Some(host_name(content)?);
        } else if seen.len() < EXTENSIONS {
            seen.push(kind);
        } else {
            return Err(Bad("the ClientHello has too many extensions"));
        }
    }
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(Bad("the ClientHello has an extension twice"));
    }
    Ok(Hello { server_name })
}

/// Exactly one name, of type host_name.
fn host_name(mut extension: Cursor<'_>) -> Result<String, Bad> {
    let mut list = extension.vector(2)?;
    extension.end()?;
    if list.number(1)? != 0 {
        return Err(Bad("the ClientHello's server name is of an unknown type"));
    }
    let name = list.vector(2)?.0;
    list.end()?;
    let plain = name
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte));
    match std::str::from_utf8(name) {
        Ok(name) if plain && (1..=254).contains(&name.len()) => Ok(name.to_owned()),
        _ => Err(Bad("the ClientHello's server name is not a host name")),
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(Bad("the ClientHello is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, Bad> {
        Ok(self
            .take(bytes)?
            .iter()
            .fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    /// A vector whose length stands in front of it in `bytes` bytes.
    fn vector(&mut self, bytes: usize) -> Result<Self, Bad> {
        let length = self.number(bytes)?;
        Ok(Self(self.take(length)?))
    }

    fn end(&self) -> Result<(), Bad> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Bad("the ClientHello has something left over"))
        }
    }
}

const HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: usize = 0;
/// RFC 8446 5.1: at most 2^14 bytes.
const RECORD: u16 = 1 << 14;
/// The largest ClientHello that is read.
const LARGEST: usize = 64 << 10;
/// Far more than any client sends.
const EXTENSIONS: usize = 256;
