//! Host names, canonical by construction, and the names of sandboxes.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::destination::{Flaw, Malformed, inet_aton};
use crate::guard::stands;

/// The most octets that a name may have as text, without the trailing dot (RFC 1035, section 3.1, less its framing).
pub(crate) const MAX_NAME: usize = 253;
/// The most octets that a label may have (RFC 1035, section 2.3.4).
pub(crate) const MAX_LABEL: usize = 63;

/// A DNS name in its one canonical spelling: ASCII, lower case, IDNA done, no trailing dot.
///
/// Two spellings of a name are the same `Host`, and what is not a name (an IP address in any spelling, text that two
/// parsers could read differently) is none. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Arc<str>);

impl Host {
    /// The canonical spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a name that is known not to be an IPv6 address.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        canonical_name(text).map(|name| Self(name.into()))
    }

    /// Reads a [plain name](plain_name).
    pub(crate) fn plain(text: &str) -> Option<Self> {
        plain_name(text).map(|name| Self(name.into()))
    }
}

/// The canonical spelling of a name that is as nearly all are: ASCII, with nothing that IDNA would have to decode, and with
/// a last label that does not begin with a digit, so that nothing takes it for an address. None for what has to be looked at
/// more closely, be it good or bad.
fn plain_name(text: &str) -> Option<Cow<'_, str>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let (mut length, mut before) = (0, b'.');
    let (mut is_number, mut is_lower) = (false, true);
    for byte in text.bytes() {
        match byte {
            b'.' if length == 0 => return None,
            b'.' => length = 0,
            // Two hyphens may be those of `xn--`.
            b'-' if before == b'-' => return None,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' if length < MAX_LABEL => {
                if length == 0 {
                    is_number = byte.is_ascii_digit();
                }
                is_lower &= !byte.is_ascii_uppercase();
                length += 1;
            }
            _ => return None,
        }
        before = byte;
    }
    match is_lower {
        _ if length == 0 || is_number || text.len() > MAX_NAME => None,
        true => Some(Cow::Borrowed(text)),
        false => Some(Cow::Owned(text.to_ascii_lowercase())),
    }
}

/// The canonical spelling of a name.
///
/// A name outside ASCII has to be in the form that UTS 46 maps it to, but for case: soft hyphens, joiners, full-width
/// letters and dots, and decomposed accents are all mapped away there, so that two programs may see two names.
pub(crate) fn canonical_name(text: &str) -> Result<Cow<'_, str>, Flaw> {
    match plain_name(text) {
        Some(name) => Ok(name),
        None => mapped_name(text).map(Cow::Owned),
    }
}

fn mapped_name(text: &str) -> Result<String, Flaw> {
    if text.is_empty() {
        return Err(Flaw::Empty);
    }
    if !stands("plain-names") {
        return Ok(text.to_ascii_lowercase());
    }
    // Before the mapping, which costs time that grows with the text.
    if text.len() > 4 * MAX_NAME {
        return Err(Flaw::LongName);
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    if let Some(bad) = text.chars().find(|&c| !allowed_in_name(c)) {
        return Err(Flaw::Character(bad));
    }
    if text.split('.').any(str::is_empty) {
        return Err(Flaw::EmptyLabel);
    }
    let name = to_ascii(text)?;
    if name.len() > MAX_NAME {
        return Err(Flaw::LongName);
    }
    if name.split('.').any(|label| label.len() > MAX_LABEL) {
        return Err(Flaw::LongLabel);
    }
    match ends_in_number(&name) {
        true => Err(Flaw::NumericName),
        false => Ok(name),
    }
}

/// The canonical spelling of one label.
pub(crate) fn canonical_label(text: &str) -> Result<String, Flaw> {
    if text.len() > 4 * MAX_LABEL {
        return Err(Flaw::LongLabel);
    }
    if let Some(bad) = text.chars().find(|&c| c == '.' || !allowed_in_name(c)) {
        return Err(Flaw::Character(bad));
    }
    let label = to_ascii(text)?;
    match label.len() {
        0 => Err(Flaw::EmptyLabel),
        _ if label.contains('.') => Err(Flaw::Idna),
        1..=MAX_LABEL => Ok(label),
        _ => Err(Flaw::LongLabel),
    }
}

/// Whether a last label makes common parsers take the whole host for an IPv4 address.
pub(crate) fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hex = |hex: &str| hex.bytes().all(|b| b.is_ascii_hexdigit());
    last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hex)
}

fn to_ascii(text: &str) -> Result<String, Flaw> {
    if text.is_ascii() && !may_have_punycode(text) {
        return Ok(text.to_ascii_lowercase());
    }
    let idna = Uts46::new();
    let ascii = idna
        .to_ascii(
            text.as_bytes(),
            AsciiDenyList::URL,
            Hyphens::Allow,
            DnsLength::Ignore,
        )
        .map_err(|_| Flaw::Idna)?
        .into_owned();
    if !text.is_ascii() {
        let (unicode, valid) =
            idna.to_unicode(ascii.as_bytes(), AsciiDenyList::URL, Hyphens::Allow);
        if valid.is_err() || unicode != text.to_lowercase() {
            return Err(Flaw::Idna);
        }
    }
    // What was checked before the mapping has to hold after it too.
    match ascii
        .chars()
        .find(|&c| !c.is_ascii() || !allowed_in_name(c))
    {
        Some(bad) => Err(Flaw::Character(bad)),
        None if ascii.split('.').any(str::is_empty) => Err(Flaw::EmptyLabel),
        None => Ok(ascii),
    }
}

/// Whether a label could begin with `xn--`, and so has to decode to what IDNA allows.
fn may_have_punycode(text: &str) -> bool {
    text.as_bytes()
        .windows(4)
        .any(|four| four.eq_ignore_ascii_case(b"xn--"))
}

/// Letters, digits, hyphen and the underscore of service names; of what lies beyond ASCII, IDNA judges.
fn allowed_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || !c.is_ascii()
}

impl FromStr for Host {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if let Some(host) = Self::plain(text) {
            return Ok(host);
        }
        let flaw = match text {
            _ if inet_aton(text).is_some() || text.parse::<std::net::IpAddr>().is_ok() => {
                Flaw::Address
            }
            _ => match Self::parse(text) {
                Ok(host) => return Ok(host),
                Err(flaw) => flaw,
            },
        };
        Err(Malformed::new(text, flaw))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Host {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of a sandbox: a lower-case letter or digit, then up to 62 of those, `_`, `.` and `-`.
///
/// Safe as a file name, in a log and in a label, and never `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SandboxId(Arc<str>);

impl SandboxId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that cannot name a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{}` cannot name a sandbox: use 1 to 63 of a-z, 0-9, `_`, `.` and `-`, the first a letter or digit",
    .0.escape_debug()
)]
pub struct BadSandboxId(String);

impl FromStr for SandboxId {
    type Err = BadSandboxId;

    fn from_str(text: &str) -> Result<Self, BadSandboxId> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = text.len() <= 63
            && text.bytes().next().is_some_and(plain)
            && text
                .bytes()
                .all(|b| plain(b) || matches!(b, b'_' | b'.' | b'-'));
        match good {
            true => Ok(Self(text.into())),
            false => Err(BadSandboxId(text.to_owned())),
        }
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SandboxId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
