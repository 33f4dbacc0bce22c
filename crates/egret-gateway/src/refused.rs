//! Why a request was not carried, and how that is put into words.
//!
//! A [`Refused`] is what any stage may answer with instead of going on. The doors render it in their
//! protocol; this module has the one body that all HTTP refusals share.

use std::net::IpAddr;
use std::sync::Arc;

use egret_policy::{Denial, Destination, Permit, Reason};
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
    /// The policy allowed it, and the network did not.
    Unreachable {
        reason: Reason,
        rule: Option<String>,
        destination: Destination,
        addresses: Vec<IpAddr>,
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
            reason: permit.reason(),
            rule: permit.rule().map(ToString::to_string),
            destination: permit.destination().clone(),
            addresses,
            cause,
        }
    }

    /// That a connection was allowed and could not be made, as a sentence.
    pub(crate) fn failure(destination: &Destination, cause: &str) -> String {
        format!("`{destination}` is allowed, but connecting to it failed: {cause}")
    }

    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Denied(denial) | Self::Address { denial, .. } | Self::Limit { denial, .. } => {
                denial.reason()
            }
            Self::Unreachable { reason, .. } => *reason,
        }
    }

    /// The policy's part of it; absent where the policy had nothing against it.
    pub(crate) fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Denied(denial) | Self::Address { denial, .. } | Self::Limit { denial, .. } => {
                Some(denial)
            }
            Self::Unreachable { .. } => None,
        }
    }

    /// The HTTP status that tells a client whether asking again could help.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Limit { limit, .. } => limit.status(),
            Self::Unreachable { .. } => 502,
            Self::Denied(denial) | Self::Address { denial, .. } => match denial.reason() {
                Reason::DeniedResolution => 502,
                Reason::DeniedMalformed => 400,
                Reason::DeniedLimit => 503,
                _ => 403,
            },
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
        let reason = self.reason().code();
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
        let body = match self {
            Self::Denied(denial) | Self::Address { denial, .. } | Self::Limit { denial, .. } => {
                Body {
                    error: sentence(denial),
                    reason: denial.reason().code(),
                    destination: destination.map_or_else(
                        || Some(denial.destination()).filter(|text| !text.is_empty()),
                        |known| Some(known.to_string()),
                    ),
                    rule: denial.rule().map(ToString::to_string),
                    hint: denial.hint().map(|hint| hint.to_string()),
                    id,
                }
            }
            Self::Unreachable {
                reason,
                rule,
                destination,
                cause,
                ..
            } => Body {
                error: Self::failure(destination, cause),
                reason: reason.code(),
                destination: Some(destination.to_string()),
                rule: rule.clone(),
                hint: None,
                id,
            },
        };
        let mut body = inert_json(&body);
        body.push(b'\n');
        body
    }
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
