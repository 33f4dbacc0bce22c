//! One line of the audit log.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, SocketAddr};

use egret_policy::guard::stands;
use egret_policy::{Denial, Destination, Permit, Program, Target, is_hidden};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Basis;
use crate::refused::{Refused, sentence};

/// The version of the format that this crate writes, in every record's `v`.
const VERSION: u32 = 1;

/// One event. Fields that say nothing about an event are absent from its line.
///
/// `docs/audit-log.md` has the meaning of each field for each event, and the promise about how the
/// format may change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format: 1.
    pub v: u32,
    /// When, in UTC, RFC 3339 with microseconds.
    pub time: String,
    /// Which connection, request or question this is about; the same in a refusal and in all records about one connection.
    pub id: String,
    /// The sandbox's name.
    pub sandbox: String,
    /// What kind of event.
    pub event: Event,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The decision's reason code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// The policy entry that decided, as `file:line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The entry's own `reason:` text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The name, or the literal address, that was asked for; for a published port, by which it was addressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port that was asked for; for a published port, the one inside the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// All addresses that the name resolved to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The address that was connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled: Option<SocketAddr>,
    /// How the request came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<Door>,
    /// Who connected to a published port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// The program that asked, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// The programs that started it, the nearest first, as far as they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
    /// The HTTP method, where Egret reads requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The HTTP path without its query, where Egret reads requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The record type of a DNS question, such as `A`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Bytes sent to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<u64>,
    /// Bytes received from the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<u64>,
    /// How long it lasted, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Which bound was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Cow<'static, str>>,
    /// What happened, in one word, for `lifecycle`, `policy` and `finding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Cow<'static, str>>,
    /// The policy that was loaded, for `policy`. Boxed: it is large, and the records of connections, which are moved about a
    /// great deal, have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Box<Basis>>,
    /// How many events a `finding` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'static, str>>,
    /// The smallest change that would allow what was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A connection or request was allowed or refused.
    Decision,
    /// An allowed connection or request ended.
    Close,
    /// A name was refused to the sandbox's resolver.
    Dns,
    /// The policy was loaded or replaced.
    Policy,
    /// A sandbox or its gateway started or stopped.
    Lifecycle,
    /// Something that deserves a look, such as a flood of refusals.
    Finding,
    /// A person was asked about a destination that was refused, or it was answered.
    Question,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
}

/// The ways into the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    /// An HTTP `CONNECT` request.
    Connect,
    /// A plain HTTP request with an absolute URI.
    Forward,
    /// SOCKS version 5 (or 4, which is always refused).
    Socks,
    /// A connection that the sandbox made directly and that was redirected.
    Captured,
    /// A DNS question.
    Dns,
    /// A published port, from outside into the sandbox.
    Published,
    /// None: a packet of a protocol that is not carried, which the sandbox's kernel refused.
    Packet,
}

impl Verdict {
    /// The word that stands for it in a record.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl Door {
    /// The word that stands for it in a record.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Forward => "forward",
            Self::Socks => "socks",
            Self::Captured => "captured",
            Self::Dns => "dns",
            Self::Published => "published",
            Self::Packet => "packet",
        }
    }
}

impl Record {
    /// A record of `event` now, with nothing else in it yet.
    pub(crate) fn new(event: Event, id: String, sandbox: &str) -> Self {
        Self {
            v: VERSION,
            time: format!("{:.6}", Timestamp::now()),
            id,
            sandbox: sandbox.to_owned(),
            event,
            verdict: None,
            reason: None,
            rule: None,
            note: None,
            host: None,
            port: None,
            addresses: Vec::new(),
            dialled: None,
            door: None,
            peer: None,
            executable: None,
            ancestors: Vec::new(),
            method: None,
            path: None,
            query: None,
            bytes_up: None,
            bytes_down: None,
            duration_ms: None,
            limit: None,
            action: None,
            policy: None,
            count: None,
            message: None,
            hint: None,
        }
    }

    pub(crate) fn door(mut self, door: Door) -> Self {
        self.door = Some(door);
        self
    }

    pub(crate) fn destination(mut self, destination: &Destination) -> Self {
        self.host = Some(match destination.target() {
            Target::Name(name) => name.as_str().to_owned(),
            Target::Address(address) => address.to_string(),
        });
        self.port = Some(destination.port());
        self
    }

    /// The program that asks, if it is known.
    pub(crate) fn program(mut self, program: Option<&Program>) -> Self {
        if let Some(program) = program {
            self.executable = Some(program.executable.clone());
            self.ancestors.clone_from(&program.ancestors);
        }
        self
    }

    pub(crate) fn permit(mut self, permit: &Permit) -> Self {
        self.verdict = Some(Verdict::Allow);
        self.reason = Some(permit.reason().code().into());
        self.rule = permit.rule().map(ToString::to_string);
        self.note = permit.note().map(str::to_owned);
        self.destination(permit.destination())
    }

    pub(crate) fn denial(mut self, denial: &Denial) -> Self {
        self.verdict = Some(Verdict::Deny);
        self.reason = Some(denial.reason().code().into());
        self.rule = denial.rule().map(ToString::to_string);
        self.message = Some(sentence(denial).into());
        self.hint = denial.hint().map(|hint| hint.to_string());
        self
    }

    pub(crate) fn refused(mut self, refused: &Refused) -> Self {
        match refused {
            Refused::Denied(denial) => self.denial(denial),
            Refused::Inbound { denial, .. } => {
                let mut record = self.denial(denial);
                record.hint = refused.hint();
                record
            }
            Refused::Address { denial, addresses } => {
                self.addresses = addresses.to_vec();
                self.denial(denial)
            }
            Refused::Limit { limit, denial } => {
                self.limit = Some(limit.name().into());
                self.denial(denial)
            }
            Refused::Unreachable {
                code,
                rule,
                destination,
                cause,
                addresses,
                ..
            } => {
                self.verdict = Some(Verdict::Allow);
                self.reason = Some((*code).into());
                self.rule = rule.clone();
                self.addresses = addresses.to_vec();
                self.message = Some(Refused::failure(destination, cause).into());
                self
            }
        }
    }

    pub(crate) fn action(mut self, action: &'static str) -> Self {
        self.action = Some(action.into());
        self
    }

    pub(crate) fn message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Appends the record's line, newline included: the same as [`serde_json`] would with [`Inert`], in a third of its time.
    /// There are two of these for every connection.
    pub(crate) fn line(&self, line: &mut Vec<u8>) {
        let Self {
            v,
            time,
            id,
            sandbox,
            event,
            verdict,
            reason,
            rule,
            note,
            host,
            port,
            addresses,
            dialled,
            door,
            peer,
            executable,
            ancestors,
            method,
            path,
            query,
            bytes_up,
            bytes_down,
            duration_ms,
            limit,
            action,
            policy,
            count,
            message,
            hint,
        } = self;
        line.extend_from_slice(b"{\"v\":");
        value(line, v);
        text(line, "time", Some(time));
        text(line, "id", Some(id));
        text(line, "sandbox", Some(sandbox));
        field(line, "event", Some(event));
        field(line, "verdict", verdict.as_ref());
        text(line, "reason", reason.as_ref());
        text(line, "rule", rule.as_ref());
        text(line, "note", note.as_ref());
        text(line, "host", host.as_ref());
        field(line, "port", port.as_ref());
        field(
            line,
            "addresses",
            Some(addresses).filter(|list| !list.is_empty()),
        );
        field(line, "dialled", dialled.as_ref());
        field(line, "door", door.as_ref());
        field(line, "peer", peer.as_ref());
        text(line, "executable", executable.as_ref());
        field(
            line,
            "ancestors",
            Some(ancestors).filter(|list| !list.is_empty()),
        );
        text(line, "method", method.as_ref());
        text(line, "path", path.as_ref());
        text(line, "query", query.as_ref());
        field(line, "bytes_up", bytes_up.as_ref());
        field(line, "bytes_down", bytes_down.as_ref());
        field(line, "duration_ms", duration_ms.as_ref());
        text(line, "limit", limit.as_ref());
        text(line, "action", action.as_ref());
        field(line, "policy", policy.as_ref());
        field(line, "count", count.as_ref());
        text(line, "message", message.as_ref());
        text(line, "hint", hint.as_ref());
        line.extend_from_slice(b"}\n");
    }
}

/// Appends a field that is text, if it is there.
fn text(line: &mut Vec<u8>, name: &'static str, text: Option<&impl AsRef<str>>) {
    let Some(text) = text.map(AsRef::as_ref) else {
        return;
    };
    // Without a way out of the loop it is done in a few steps.
    let is_plain = |byte: u8| (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\');
    if text
        .bytes()
        .fold(true, |plain, byte| plain & is_plain(byte))
    {
        key(line, name);
        line.push(b'"');
        line.extend_from_slice(text.as_bytes());
        line.push(b'"');
    } else {
        field(line, name, Some(text));
    }
}

/// Appends a field, if it is there.
fn field(line: &mut Vec<u8>, name: &'static str, field: Option<&(impl Serialize + ?Sized)>) {
    if let Some(field) = field {
        key(line, name);
        value(line, field);
    }
}

fn key(line: &mut Vec<u8>, name: &'static str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

fn value(line: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let before = line.len();
    let mut json = serde_json::Serializer::with_formatter(&mut *line, Inert);
    // Writing to memory does not fail, and our values have no keys; what cannot be is said to be nothing.
    if value.serialize(&mut json).is_err() {
        line.truncate(before);
        line.extend_from_slice(b"null");
    }
}

/// Serialises like [`serde_json`]'s compact form, with every character that a terminal or an editor
/// might obey written as an escape.
pub fn inert_json(json: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    value(&mut text, json);
    text
}

struct Inert;

impl serde_json::ser::Formatter for Inert {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let plain = fragment.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if plain || !stands("inert-records") {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if is_hidden(character) {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            } else {
                let mut utf8 = [0; 4];
                writer.write_all(character.encode_utf8(&mut utf8).as_bytes())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
