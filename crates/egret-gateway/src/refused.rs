//! Why a request was not carried, and how that is put into words.
//!
//! A [`Refused`] is what any stage may answer with instead of going on. The doors render it in their
//! protocol; this module has the one body that all HTTP refusals share.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use egret_policy::{Denial, Destination, Permit, Reason, Target};
use serde::Serialize;

use crate::audit::inert_json;
use crate::limits::Limit;

/// Why a request goes no further.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The policy says no, or says nothing; or what was said is not what was decided.
    Denied(Denial),
    /// The policy says no to an address that the name resolved to.
    Address {
        denial: Denial,
        /// All that the name resolved to.
        addresses: Arc<[IpAddr]>,
    },
    /// A bound of the gateway's was reached.
    Limit { limit: Limit, denial: Denial },
    /// Somebody outside wants something of a published port that may not be had.
    Inbound {
        denial: Denial,
        /// The host that would have to be allowed inbound for it.
        host: Option<Box<Target>>,
    },
    /// It was allowed, and the network did not bring it about.
    Unreachable {
        /// The code of the reason for which it was allowed.
        code: &'static str,
        rule: Option<String>,
        destination: Destination,
        addresses: Arc<[IpAddr]>,
        /// What went wrong, as the end of a sentence.
        cause: String,
    },
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl Refused {
    /// A bound was reached while `destination` (as text; may be empty) was asked for.
    pub(crate) fn limit(limit: Limit, destination: impl Into<String>) -> Self {
        Self::Limit {
            limit,
            denial: Denial::new(Reason::DeniedLimit, destination, limit.message()),
        }
    }

    /// The request cannot be read, or can be read in more than one way.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::Denied(Denial::new(Reason::DeniedMalformed, "", message))
    }

    /// Something was spoken that may not be.
    pub(crate) fn protocol(destination: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Denied(Denial::new(Reason::DeniedProtocol, destination, message))
    }

    /// No connection to any of the vetted `addresses` came about.
    pub(crate) fn unreachable(permit: &Permit, addresses: Vec<IpAddr>, cause: String) -> Self {
        Self::Unreachable {
            code: permit.reason().code(),
            rule: permit.rule().map(ToString::to_string),
            destination: permit.destination().clone(),
            addresses: addresses.into(),
            cause,
        }
    }

    /// That a connection was allowed and could not be made, as a sentence.
    pub(crate) fn failure(destination: &Destination, cause: &str) -> String {
        format!("`{destination}` is allowed, but connecting to it failed: {cause}")
    }

    /// The code of its reason; that of an allowed one where the network failed.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Denied(denial)
            | Self::Address { denial, .. }
            | Self::Limit { denial, .. }
            | Self::Inbound { denial, .. } => denial.reason().code(),
            Self::Unreachable { code, .. } => code,
        }
    }

    /// What was decided; absent where nothing was said against it.
    pub(crate) fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Denied(denial)
            | Self::Address { denial, .. }
            | Self::Limit { denial, .. }
            | Self::Inbound { denial, .. } => Some(denial),
            Self::Unreachable { .. } => None,
        }
    }

    /// Where it was to go, if `known` was asked for: what a published port was addressed by is told by the refusal.
    pub(crate) fn about<'a>(&self, known: Option<&'a Destination>) -> Option<&'a Destination> {
        known.filter(|_| !matches!(self, Self::Inbound { .. }))
    }

    /// The smallest change that would allow it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Inbound { host, .. } => {
                let host = host.as_ref()?;
                Some(format!("if that is yours, list {host} under `inbound`"))
            }
            _ => self.denial()?.hint().map(|hint| hint.to_string()),
        }
    }

    /// The HTTP status that tells a client whether asking again could help.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Limit { limit, .. } => limit.status(),
            Self::Unreachable { .. } => 502,
            Self::Denied(denial) | Self::Address { denial, .. } | Self::Inbound { denial, .. } => {
                match denial.reason() {
                    Reason::DeniedResolution => 502,
                    Reason::DeniedMalformed => 400,
                    Reason::DeniedLimit => 503,
                    _ => 403,
                }
            }
        }
    }

    /// A complete HTTP/1.1 response. `keep` is whether the connection goes on after it.
    pub(crate) fn http_response(
        &self,
        id: &str,
        destination: Option<&Destination>,
        keep: bool,
    ) -> Vec<u8> {
        let body = self.body(id, destination);
        let status = self.status();
        let phrase = phrase(status);
        let reason = self.code();
        let connection = if keep { "" } else { "connection: close\r\n" };
        let mut response = format!(
            "HTTP/1.1 {status} {phrase}\r\nx-egret-reason: {reason}\r\ncontent-type: application/json\r\n\
             cache-control: no-store\r\n{connection}content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        response.extend_from_slice(&body);
        response
    }

    fn body(&self, id: &str, destination: Option<&Destination>) -> Vec<u8> {
        let (error, told, rule) = match self {
            Self::Denied(denial)
            | Self::Address { denial, .. }
            | Self::Limit { denial, .. }
            | Self::Inbound { denial, .. } => (
                sentence(denial),
                Some(denial.destination()).filter(|text| !text.is_empty()),
                denial.rule().map(ToString::to_string),
            ),
            Self::Unreachable {
                rule,
                destination,
                cause,
                ..
            } => (
                Self::failure(destination, cause),
                Some(destination.to_string()),
                rule.clone(),
            ),
        };
        let body = Body {
            error,
            reason: self.code(),
            destination: self.about(destination).map(ToString::to_string).or(told),
            rule,
            hint: self.hint(),
            id,
        };
        let mut body = inert_json(&body);
        body.push(b'\n');
        body
    }
}

/// What went wrong, as the end of a sentence: without the number that the standard library adds.
pub(crate) fn in_words(error: &io::Error) -> String {
    let cause = error.to_string();
    let cause = cause.split(" (os error").next().unwrap_or_default();
    cause.to_owned()
}

/// One sentence that says what is refused and why.
pub(crate) fn sentence(denial: &Denial) -> String {
    let text = denial.to_string();
    // Where nothing was named, or nothing that could be read, there is nothing to put into the quotes.
    match text.strip_prefix("`` is refused") {
        Some(rest) => format!("the request is refused{rest}"),
        None => text,
    }
}

/// The body of every HTTP refusal. Part of the public interface.
#[derive(Serialize)]
struct Body<'a> {
    error: String,
    reason: &'static str,
    destination: Option<String>,
    rule: Option<String>,
    hint: Option<String>,
    id: &'a str,
}

fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        _ => "Service Unavailable",
    }
}
