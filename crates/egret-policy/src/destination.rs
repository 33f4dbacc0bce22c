//! Where a program wants to go, read the way the operating system would read it.
//!
//! Whatever `inet_aton` takes for an address is that address, and whatever two parsers could read differently is
//! [`Malformed`]: a check that reads `0x7f.1` as a name is no check, for `connect` reads it as `127.0.0.1`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::guard::stands;
use crate::host::Host;

/// A destination without its port: a name, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A name, which the gateway resolves when it dials.
    Name(Host),
    /// An address that was given as such. An IPv4-mapped IPv6 address stands as the IPv4 address that it is.
    Address(IpAddr),
}

/// Where a program wants to go: a [`Target`] and a port from 1 to 65535, canonical by construction.
///
/// Displays as `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    target: Target,
    port: u16,
}

impl Destination {
    /// Reads a host and a port as a client wrote them. An IPv6 address stands without brackets here.
    ///
    /// # Errors
    /// [`Malformed`] for everything that has not exactly one reading; see [`Malformed`].
    pub fn parse(host: &str, port: &str) -> Result<Self, Malformed> {
        let bad = |flaw| Malformed::new(&join(host, port), flaw);
        let target = parse_target(host).map_err(bad)?;
        let port = parse_port(port).map_err(bad)?;
        Ok(Self { target, port })
    }

    /// Reads `HOST:PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`; the port may be missing if there is a default.
    ///
    /// # Errors
    /// [`Malformed`] as for [`Destination::parse`], and for an IPv6 address without brackets.
    pub fn from_authority(authority: &str, default_port: Option<u16>) -> Result<Self, Malformed> {
        let bad = |flaw| Malformed::new(authority, flaw);
        let (target, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (inside, after) = rest.split_once(']').ok_or_else(|| bad(Flaw::Brackets))?;
                let port = match after {
                    "" => None,
                    _ => Some(after.strip_prefix(':').ok_or_else(|| bad(Flaw::Brackets))?),
                };
                (Target::Address(parse_ipv6(inside).map_err(bad)?), port)
            }
            None => {
                let (host, port) = match authority.split_once(':') {
                    Some((_, port)) if port.contains(':') => return Err(bad(Flaw::Brackets)),
                    Some((host, port)) => (host, Some(port)),
                    None => (authority, None),
                };
                (parse_target(host).map_err(bad)?, port)
            }
        };
        let port = match (port, default_port) {
            (Some(port), _) => parse_port(port).map_err(bad)?,
            (None, Some(port)) if port != 0 => port,
            (None, _) => return Err(bad(Flaw::NoPort)),
        };
        Ok(Self { target, port })
    }

    /// Reads a destination as a person writes it: `HOST[:PORT]`, `ADDRESS[:PORT]`, `[IPV6]:PORT`, an IPv6 address without
    /// brackets and port, or an `http` or `https` URL, of which the path is left aside. Without a port: 443, but 80 for
    /// an `http` URL.
    ///
    /// # Errors
    /// [`Malformed`] as for [`Destination::parse`], and for a URL of another scheme.
    pub fn from_user(text: &str) -> Result<Self, Malformed> {
        let (authority, default_port) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let port = match scheme {
                    _ if scheme.eq_ignore_ascii_case("https") => 443,
                    _ if scheme.eq_ignore_ascii_case("http") => 80,
                    _ => return Err(Malformed::new(text, Flaw::Scheme)),
                };
                (rest.split(['/', '?', '#']).next().unwrap_or(rest), port)
            }
            None if text.parse::<Ipv6Addr>().is_ok() => return Self::parse(text, "443"),
            None => (text, 443),
        };
        Self::from_authority(authority, Some(default_port))
            .map_err(|bad| Malformed::new(text, bad.flaw))
    }

    /// The path and query of a URL as [`Self::from_user`] takes it; none where there is nothing behind the authority but a
    /// slash.
    pub fn path_of_url(text: &str) -> Option<&str> {
        let (_, rest) = text.split_once("://")?;
        let path = rest.get(rest.find(['/', '?', '#'])?..)?;
        (path != "/").then_some(path)
    }

    /// Puts a target and a port together.
    ///
    /// # Errors
    /// [`Malformed`] if the port is 0.
    pub fn new(target: Target, port: u16) -> Result<Self, Malformed> {
        let target = match target {
            Target::Address(address) => Target::Address(address.to_canonical()),
            name @ Target::Name(_) => name,
        };
        let destination = Self { target, port };
        match port {
            0 => Err(Malformed::new(&destination.to_string(), Flaw::Port)),
            _ => Ok(destination),
        }
    }

    /// The name or address.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The port, from 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            Target::Address(address) => write!(f, "{address}:{}", self.port),
            Target::Name(name) => {
                f.write_str(name.as_str())?;
                write!(f, ":{}", self.port)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(host) => host.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Text that is not a destination, or that two parsers could read as two.
///
/// Its message has the text with control characters escaped and is safe to show. Its reason code is
/// [`crate::Reason::DeniedMalformed`], and it converts into a [`crate::Denial`] of that kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{}` is not a destination: {flaw}", shorten(.text))]
pub struct Malformed {
    text: String,
    flaw: Flaw,
}

impl Malformed {
    pub(crate) fn new(text: &str, flaw: Flaw) -> Self {
        let text = text.chars().take(MAX_SHOWN).collect();
        Self { text, flaw }
    }

    /// What was to be read, cut to a few hundred characters, as it came: escape it before showing it.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn flaw(&self) -> &Flaw {
        &self.flaw
    }
}

const MAX_SHOWN: usize = 300;

fn shorten(text: &str) -> impl fmt::Display {
    text.escape_debug()
}

/// What is wrong with a destination.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Flaw {
    #[error("the host is empty")]
    Empty,
    #[error("a label is empty (two dots in a row, or a dot in front)")]
    EmptyLabel,
    #[error("a label has more than 63 octets")]
    LongLabel,
    #[error("the name has more than 253 octets")]
    LongName,
    #[error("`{}` cannot stand in a host", .0.escape_debug())]
    Character(char),
    #[error("the name is not valid IDNA in its normal form")]
    Idna,
    #[error("a name cannot end in a number, and it is no IPv4 address either")]
    NumericName,
    #[error("it is an address, not a name")]
    Address,
    #[error("it is not a valid IPv6 address")]
    Ipv6,
    #[error("an address with a zone (`%`) means nothing outside the machine that wrote it")]
    Zone,
    #[error(
        "brackets belong around an IPv6 address, as in `[2001:db8::1]:443`, and around nothing else"
    )]
    Brackets,
    #[error("only `http` and `https` URLs are understood")]
    Scheme,
    #[error("the port is missing")]
    NoPort,
    #[error("the port has to be 1 to 65535 in plain digits without leading zeros")]
    Port,
}

fn join(host: &str, port: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

pub(crate) fn parse_target(host: &str) -> Result<Target, Flaw> {
    if let Some(name) = Host::plain(host) {
        return Ok(Target::Name(name));
    }
    if let Some(address) = inet_aton(host) {
        return Ok(Target::Address(IpAddr::V4(address)));
    }
    if host.contains(['[', ']']) {
        return Err(Flaw::Brackets);
    }
    if host.contains(':') {
        return parse_ipv6(host).map(Target::Address);
    }
    Host::parse(host).map(Target::Name)
}

fn parse_ipv6(text: &str) -> Result<IpAddr, Flaw> {
    if text.contains('%') {
        return Err(Flaw::Zone);
    }
    let address: Ipv6Addr = text.parse().map_err(|_| Flaw::Ipv6)?;
    Ok(IpAddr::V6(address).to_canonical())
}

pub(crate) fn parse_port(text: &str) -> Result<u16, Flaw> {
    let plain =
        !text.starts_with('0') && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if plain || !stands("plain-ports") => Ok(port),
        _ => Err(Flaw::Port),
    }
}

/// Reads an IPv4 address as `inet_aton(3)` does: one to four parts in decimal, octal (`0`) or hexadecimal (`0x`), the
/// last part filling what is left of the 32 bits.
pub(crate) fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let mut parts = [0_u32; 4];
    let mut count = 0;
    for part in text.split('.') {
        *parts.get_mut(count)? = aton_part(part)?;
        count += 1;
    }
    let (last, front) = parts.get(..count)?.split_last()?;
    let mut value = 0_u32;
    for &part in front {
        value = value << 8 | u32::from(u8::try_from(part).ok()?);
    }
    let free_bits = 32 - 8 * u32::try_from(front.len()).ok()?;
    if free_bits == 32 {
        return Some(Ipv4Addr::from(*last));
    }
    (*last < 1 << free_bits).then(|| Ipv4Addr::from(value << free_bits | last))
}

fn aton_part(part: &str) -> Option<u32> {
    let (digits, radix) = match part.as_bytes() {
        [b'0', b'x' | b'X', ..] => (part.get(2..)?, 16),
        [b'0', _, ..] => (part.get(1..)?, 8),
        _ => (part, 10),
    };
    // `from_str_radix` would take a sign.
    match digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        true => u32::from_str_radix(digits, radix).ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests;
