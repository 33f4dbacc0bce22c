//! Bounds on everything that a sandbox can make grow.
//!
//! Each bound has a name of its own ([`Limit`]), which is what a refusal and its audit record call
//! it. What a bound protects is the gateway: a sandbox that runs into one loses the connection that
//! was one too many, and its other connections go on.

use std::time::{Duration, Instant};

/// How much one gateway takes on. [`Limits::default`] suits one sandbox on one machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once, in tunnels. Each takes two descriptors, or up to six while it moves
    /// a great deal, so the caller keeps this below a third of its descriptor limit.
    pub connections: usize,
    /// Connections open at once that came in by published ports, those included whose request has not been read yet. They
    /// are counted apart, so that callers outside cannot take the sandbox's. Each takes as many descriptors as the others.
    pub published: usize,
    /// Connections accepted whose request has not been read yet.
    pub handshakes: usize,
    /// How long a client may take to send a complete request head, or the rest of what it has begun.
    pub handshake_time: Duration,
    /// Bytes of one HTTP head, request line included.
    pub head_bytes: usize,
    /// Header fields of one HTTP head.
    pub head_fields: usize,
    /// Names that are given a synthetic address, over the life of the gateway.
    pub names: usize,
    /// DNS questions answered per second.
    pub dns_per_second: u32,
    /// Records of refusals per second, once `refusal_burst` is used up.
    pub refusals_per_second: u32,
    /// Records of refusals that may be written at any speed. More than an honest program comes to in a day, since what is
    /// counted only tells nobody where it was going; and little enough that a log does not fill a disk, nor push what it
    /// had before out of a log that is rotated.
    pub refusal_burst: u32,
    /// How long a connection waits for an audit log that cannot be written.
    pub audit_wait: Duration,
    /// How long resolving a name may take, all retries included.
    pub resolve_time: Duration,
    /// How long connecting may take, all addresses included.
    pub connect_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            published: 1_024,
            handshakes: 1_024,
            handshake_time: Duration::from_secs(10),
            head_bytes: 64 << 10,
            head_fields: 128,
            names: 65_536,
            dns_per_second: 10_000,
            refusals_per_second: 50,
            refusal_burst: 20_000,
            audit_wait: Duration::from_secs(5),
            resolve_time: Duration::from_secs(5),
            connect_time: Duration::from_secs(10),
        }
    }
}

/// Which bound was reached. Its [`name`](Limit::name) is in the audit record's `limit` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Connections,
    Handshakes,
    HandshakeTime,
    HeadBytes,
    HeadFields,
    Names,
    DnsRate,
    AuditLog,
}

impl Limit {
    /// The word for this bound in the audit log. Part of the log's format.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Handshakes => "handshakes",
            Self::HandshakeTime => "handshake_time",
            Self::HeadBytes => "head_bytes",
            Self::HeadFields => "head_fields",
            Self::Names => "names",
            Self::DnsRate => "dns_rate",
            Self::AuditLog => "audit_log",
        }
    }

    /// The HTTP status that fits a request refused for this bound.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::HeadBytes | Self::HeadFields => 431,
            Self::HandshakeTime => 408,
            Self::DnsRate => 429,
            Self::Connections | Self::Handshakes | Self::Names | Self::AuditLog => 503,
        }
    }

    /// One sentence for the person who meets it.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Connections => {
                "the sandbox has as many connections open as it may have; close some and try again"
            }
            Self::Handshakes => "too many connections were opened without a request on them",
            Self::HandshakeTime => "the request was not complete in time",
            Self::HeadBytes => "the request's head is too large",
            Self::HeadFields => "the request has too many header fields",
            Self::Names => "the sandbox has looked up as many names as it may",
            Self::DnsRate => "the sandbox asks more DNS questions per second than it may",
            Self::AuditLog => {
                "the audit log cannot be written, and nothing may pass unrecorded; make room for it and try again"
            }
        }
    }
}

/// A rate with a burst: holds up to `burst` tokens and gains `per_second` of them.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    burst: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: impl Into<f64>, burst: u32) -> Self {
        Self {
            tokens: f64::from(burst),
            burst: f64::from(burst),
            per_second: per_second.into(),
            at: Instant::now(),
        }
    }

    /// Takes one token, or says that there is none.
    pub(crate) fn take(&mut self) -> bool {
        if self.tokens < 1.0 {
            let now = Instant::now();
            let gained = now.duration_since(self.at).as_secs_f64() * self.per_second;
            self.tokens = (self.tokens + gained).min(self.burst);
            self.at = now;
        }
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}
