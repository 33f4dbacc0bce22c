//! The `inbound:` section: by which host names a published port may be addressed.
//!
//! A web page can point a name of its own at this machine, and then talk to whatever listens here as if that were its own
//! server (DNS rebinding). What gives it away is the name, in the `Host` and `Origin` of its requests, so that a port is
//! answered under known names only.
//!
//! Not here: reading requests, and the names that need no entry, which are those of this machine's loopback and of the
//! sandbox itself.

use std::fmt;
use std::net::IpAddr;

use crate::destination::{Target, parse_target};
use crate::pattern::Pattern;
use crate::rule::RuleId;
use crate::text::advice;
use crate::text::entry::{BadEntry, a_url, parse_net, parse_pattern, split_ports};

/// A host name, pattern or address by which a published port may be addressed.
///
/// Displays in its canonical form, wildcards included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundHost {
    named: Named,
    rule: RuleId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Name(Pattern),
    Address(IpAddr),
}

impl InboundHost {
    pub(crate) fn new(named: Named, rule: RuleId) -> Self {
        Self { named, rule }
    }

    /// Whether it means the host of a request's `Host` field or of its origin (RFC 9110, section 7.2; RFC 6454, section 7):
    /// a name or an address without a port, an IPv6 address with brackets or without.
    ///
    /// Case and one dot at the end say nothing. What could be read as two hosts is none.
    pub fn matches(&self, host: &str) -> bool {
        let inside = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let target = match inside {
            Some(inside) if !inside.contains(':') => return false,
            inside => parse_target(inside.unwrap_or(host)),
        };
        match (&self.named, target) {
            (Named::Name(pattern), Ok(Target::Name(name))) => pattern.matches(name.as_str()),
            (Named::Address(address), Ok(Target::Address(asked))) => *address == asked,
            _ => false,
        }
    }

    /// Where it stands.
    pub fn rule(&self) -> &RuleId {
        &self.rule
    }

    pub(crate) fn named(&self) -> &Named {
        &self.named
    }
}

impl fmt::Display for InboundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.named {
            Named::Name(pattern) => pattern.fmt(f),
            Named::Address(address) => address.fmt(f),
        }
    }
}

/// The most items of `inbound:`. Each request is compared with all of them.
pub(crate) const MAX_INBOUND: usize = 1024;

/// Reads an item of `inbound:`.
pub(crate) fn parse_inbound(text: &str) -> Result<Named, BadEntry> {
    let whole = 0..text.len();
    if let Some((scheme, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = split_ports(authority).map(|(host, _)| host.text());
        let help = match host {
            Ok(host) if parse_inbound(host).is_ok() => format!("write `{host}`"),
            _ => "write the host alone, such as `app.example`".to_owned(),
        };
        return Err(a_url(scheme, help));
    }
    let (host, ports) = split_ports(text)?;
    let (bracketed, host) = (host.is_bracketed(), host.text());
    if ports.is_some() {
        let at = host.len() + if bracketed { 2 } else { 0 };
        let help = format!("write `{host}`: it holds for every port that is published");
        return Err(BadEntry::new(
            at..text.len(),
            "`inbound` takes hosts without ports",
            "not here",
            help,
        ));
    }
    if host.contains('/') {
        let message = match parse_net(host) {
            Ok(_) => "a network cannot be addressed, only a host",
            Err(_) => "a host stands here, without a path",
        };
        let help = "write a name, or one address";
        return Err(BadEntry::new(whole, message, "", help));
    }
    match parse_target(host) {
        Ok(Target::Address(_)) => {
            let net = parse_net(host)?;
            Ok(Named::Address(net.addr()))
        }
        _ if bracketed => {
            let message = "brackets belong around an IPv6 address";
            Err(BadEntry::new(whole, message, "", "leave them out"))
        }
        _ => parse_pattern(host, NAME_THEM, NAME_THEM)
            .map(Named::Name)
            .map_err(|bad| match advice::network(host) {
                Some(_) => BadEntry {
                    help: Some("write each address out".to_owned()),
                    ..bad
                },
                None => bad,
            }),
    }
}

/// What to do in place of meaning everybody.
const NAME_THEM: &str = "name the hosts: under any other name, a port is not answered, so that no web page can pass itself off as its user";

#[cfg(test)]
mod tests;
