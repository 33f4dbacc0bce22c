//! From records to spans: a connection is one, from its decision to its end; a refusal is one without length.

use super::wire::{Attribute, Span, SpanEvent, Status, nanoseconds};
use egret_gateway::audit::{Event, Record, Verdict};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Spans that are being made, and those that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Spans {
    open: HashMap<String, Span>,
    done: Vec<Span>,
}

/// Whether a record has to do with a span.
pub(super) fn is_wanted(record: &Record) -> bool {
    let is_lookup = record.event == Event::Dns && record.verdict == Some(Verdict::Allow);
    matches!(record.event, Event::Decision | Event::Close | Event::Dns) && !is_lookup
}

impl Spans {
    /// Takes a record in, and says how many there was no room for.
    pub(super) fn see(&mut self, record: &Record) -> u64 {
        let is_open = record.verdict == Some(Verdict::Allow) && record.dialled.is_some();
        match (record.event, self.open.get_mut(&record.id)) {
            (Event::Close, Some(_)) => {
                let Some(mut span) = self.open.remove(&record.id) else {
                    return 0;
                };
                span.end(record);
                self.put(span)
            }
            (Event::Close, None) => 1,
            // One more request on a connection, or what was spoken on it and may not be.
            (_, Some(span)) => {
                span.happened(record);
                0
            }
            (_, None) if is_open => {
                let has_room = self.open.len() < MOST_OPEN;
                if has_room {
                    self.open.insert(record.id.clone(), Span::begun(record));
                }
                u64::from(!has_room)
            }
            (_, None) => self.put(Span::begun(record)),
        }
    }

    fn put(&mut self, span: Span) -> u64 {
        let has_room = self.done.len() < MOST_DONE;
        if has_room {
            self.done.push(span);
        }
        u64::from(!has_room)
    }

    /// Those that are sent next.
    pub(super) fn batch(&self) -> &[Span] {
        self.done
            .get(..self.done.len().min(AT_ONCE))
            .unwrap_or_default()
    }

    pub(super) fn forget_batch(&mut self) {
        self.done.drain(..self.done.len().min(AT_ONCE));
    }

    /// Ends what has not ended.
    pub(super) fn end_all(&mut self) {
        self.done
            .extend(std::mem::take(&mut self.open).into_values());
    }

    /// Whether there are as many as go into one message.
    pub(super) fn are_many(&self) -> bool {
        self.done.len() >= AT_ONCE
    }

    pub(super) fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.done.len() as u64
    }
}

impl Span {
    fn begun(record: &Record) -> Self {
        let time = nanoseconds(&record.time);
        let (trace_id, span_id) = ids(record);
        let mut span = Self {
            trace_id,
            span_id,
            name: match record.event {
                Event::Dns => "egret lookup",
                _ => "egret connection",
            },
            // That of a client.
            kind: 3,
            start_time_unix_nano: time.clone(),
            end_time_unix_nano: time,
            attributes: Vec::new(),
            events: Vec::new(),
            status: None,
        };
        let attributes = &mut span.attributes;
        let texts = [
            ("egret.id", Some(record.id.clone())),
            ("egret.sandbox", Some(record.sandbox.clone())),
            (
                "egret.verdict",
                record.verdict.map(|verdict| verdict.word().to_owned()),
            ),
            (
                "egret.reason",
                record.reason.as_ref().map(ToString::to_string),
            ),
            ("egret.rule", record.rule.clone()),
            ("egret.door", record.door.map(|door| door.word().to_owned())),
            (
                "egret.limit",
                record.limit.as_ref().map(ToString::to_string),
            ),
            ("server.address", record.host.clone()),
            (
                "network.peer.address",
                record.dialled.map(|address| address.ip().to_string()),
            ),
            (
                "client.address",
                record.peer.map(|address| address.ip().to_string()),
            ),
            ("process.executable.path", record.executable.clone()),
            ("http.request.method", record.method.clone()),
            ("url.path", record.path.clone()),
            (
                "dns.question.name",
                record.host.clone().filter(|_| record.event == Event::Dns),
            ),
        ];
        for (key, value) in texts {
            attributes.extend(value.map(|value| Attribute::text(key, value)));
        }
        let numbers = [
            ("server.port", record.port),
            (
                "network.peer.port",
                record.dialled.map(|address| address.port()),
            ),
            ("client.port", record.peer.map(|address| address.port())),
        ];
        for (key, value) in numbers {
            attributes.extend(value.map(|value| Attribute::number(key, value.into())));
        }
        if record.event == Event::Decision
            && record.door.is_some_and(|door| door.word() != "packet")
        {
            attributes.push(Attribute::text("network.transport", "tcp".into()));
        }
        span.failed(record);
        span
    }

    /// Something that was decided about a connection that is open.
    fn happened(&mut self, record: &Record) {
        if self.events.len() < MOST_EVENTS {
            let texts = [
                (
                    "egret.verdict",
                    record.verdict.map(|verdict| verdict.word().to_owned()),
                ),
                (
                    "egret.reason",
                    record.reason.as_ref().map(ToString::to_string),
                ),
                ("http.request.method", record.method.clone()),
                ("url.path", record.path.clone()),
            ];
            let texts = texts.into_iter();
            self.events.push(SpanEvent {
                time_unix_nano: nanoseconds(&record.time),
                name: match record.method {
                    Some(_) => "request",
                    None => "decision",
                },
                attributes: texts
                    .filter_map(|(key, value)| Some(Attribute::text(key, value?)))
                    .collect(),
            });
        }
        self.failed(record);
    }

    fn end(&mut self, record: &Record) {
        self.end_time_unix_nano = nanoseconds(&record.time);
        let bytes = [
            ("egret.bytes_up", record.bytes_up),
            ("egret.bytes_down", record.bytes_down),
        ];
        for (key, value) in bytes {
            self.attributes
                .extend(value.map(|value| Attribute::number(key, value)));
        }
        if let Some(reason) = &record.reason {
            self.fail(reason, "the connection was cut off");
        }
    }

    fn failed(&mut self, record: &Record) {
        let message = record.message.as_deref().unwrap_or_default();
        match (record.verdict, record.dialled) {
            (Some(Verdict::Deny), _) => {
                self.fail(record.reason.as_deref().unwrap_or("denied"), message);
            }
            (Some(Verdict::Allow), None) if record.event == Event::Decision => {
                self.fail("unreachable", message);
            }
            _ => {}
        }
    }

    fn fail(&mut self, kind: &str, message: &str) {
        if self.status.is_none() {
            self.attributes
                .push(Attribute::text("error.type", kind.to_owned()));
            self.status = Some(Status {
                message: message.to_owned(),
                code: 2,
            });
        }
    }
}

/// The ids of a record's trace and span: those of the connection, for whoever has the log as well.
fn ids(record: &Record) -> (String, String) {
    let digest = Sha256::digest(format!("{} {} {}", record.sandbox, record.id, record.time));
    let hexadecimal = digest.iter().fold(String::new(), |mut text, octet| {
        // Writing to a String cannot fail.
        let (Ok(()) | Err(_)) = write!(text, "{octet:02x}");
        text
    });
    let part =
        |range: std::ops::Range<usize>| hexadecimal.get(range).unwrap_or_default().to_owned();
    (part(0..32), part(32..48))
}

/// Connections that are open.
const MOST_OPEN: usize = 16_384;
/// Spans that wait.
const MOST_DONE: usize = 8_192;
/// Spans in one message.
const AT_ONCE: usize = 512;
/// What is told of one connection.
const MOST_EVENTS: usize = 32;
