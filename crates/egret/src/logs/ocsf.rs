//! Audit records as events of OCSF, the Open Cybersecurity Schema Framework, version 1.8.0: one event for each record.
//!
//! Connections are Network Activity, requests that were read HTTP Activity, names DNS Activity, findings and questions Detection Findings, and what
//! happens to a sandbox and its policy is Application Lifecycle. What OCSF has no place for is `unmapped`, under the record's own
//! names; nothing of a record is left out but what a policy says.

use egret_gateway::audit::{Door, Event, Record, Verdict};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// A record as an event, of which the text is one line.
pub(super) fn event(record: &Record) -> Value {
    let kind = Kind::of(record);
    let (class_name, activity_name) = (kind.class_name(), kind.activity_name);
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| {
        if !is_empty(&value) {
            event.insert(name.to_owned(), value);
        }
    };
    put("category_uid", json!(kind.class / 1000));
    put("class_uid", json!(kind.class));
    put("class_name", json!(class_name));
    put("activity_id", json!(kind.activity));
    put("activity_name", json!(activity_name));
    put("type_uid", json!(kind.class * 100 + kind.activity));
    put("type_name", json!(format!("{class_name}: {activity_name}")));
    let time = milliseconds(record);
    put("time", json!(time));
    let (severity_id, severity) = severity(record);
    put("severity_id", json!(severity_id));
    put("severity", json!(severity));
    put("message", json!(record.message));
    put("metadata", metadata(record));
    put("count", json!(record.count));
    put("duration", json!(record.duration_ms));
    if let Some(duration) = record.duration_ms {
        put("start_time", json!(time.saturating_sub_unsigned(duration)));
        put("end_time", json!(time));
    }
    let failed = record.verdict == Some(Verdict::Allow) && is_unreachable(record);
    if kind.class != FINDING {
        let is_failure = failed
            || record.verdict == Some(Verdict::Deny)
            || record.action.as_deref() == Some("rejected");
        let status = if is_failure {
            (2, "Failure")
        } else {
            (1, "Success")
        };
        put("status_id", json!(status.0));
        put("status", json!(status.1));
        put("status_code", json!(record.reason));
    }
    if let Some(verdict) = record.verdict {
        let (id, action, disposition) = match verdict {
            Verdict::Allow => (1, "Allowed", "Allowed"),
            Verdict::Deny => (2, "Denied", "Blocked"),
        };
        put("action_id", json!(id));
        put("action", json!(action));
        put("disposition_id", json!(id));
        put("disposition", json!(disposition));
    }
    put(
        "firewall_rule",
        json!(
            record
                .rule
                .as_ref()
                .map(|rule| without_empty(json!({ "name": rule, "desc": record.note })))
        ),
    );
    put("policy", policy(record));
    put(
        "actor",
        json!(
            record
                .executable
                .as_ref()
                .map(|program| json!({ "app_name": program }))
        ),
    );
    match kind.class {
        NETWORK | HTTP | DNS => {
            let (inside, outside) = (json!({ "name": record.sandbox }), outside(record));
            let is_inbound = record.door == Some(Door::Published);
            let (from, to) = match is_inbound {
                true => (
                    outside,
                    without_empty(
                        json!({ "name": record.sandbox, "hostname": host_name(record), "port": record.port }),
                    ),
                ),
                false => (inside, outside),
            };
            put("src_endpoint", from);
            put("dst_endpoint", to);
            if kind.class != DNS {
                put("connection_info", connection(record, is_inbound));
                put("traffic", traffic(record, is_inbound));
            }
        }
        LIFECYCLE => put(
            "app",
            json!({ "name": "Egret", "vendor_name": "Egret", "version": env!("CARGO_PKG_VERSION") }),
        ),
        _ => put(
            "finding_info",
            json!({ "uid": record.id, "title": record.action, "desc": record.message, "created_time": time }),
        ),
    }
    if kind.class == HTTP {
        let method = record.method.as_ref().filter(|_| kind.activity != OTHER);
        let url = without_empty(
            json!({ "scheme": "http", "hostname": record.host, "port": record.port, "path": record.path }),
        );
        put(
            "http_request",
            without_empty(json!({ "http_method": method, "url": url })),
        );
    }
    if kind.class == DNS {
        put(
            "query",
            without_empty(
                json!({ "hostname": record.host.as_deref().unwrap_or_default(), "type": record.query }),
            ),
        );
        if record.verdict == Some(Verdict::Deny) {
            let (id, code) = if record.limit.is_some() {
                (5, "Refused")
            } else {
                (3, "NXDomain")
            };
            put("rcode_id", json!(id));
            put("rcode", json!(code));
        }
    }
    put("unmapped", unmapped(record, &kind));
    Value::Object(event)
}

const NETWORK: u32 = 4001;
const HTTP: u32 = 4002;
const DNS: u32 = 4003;
const FINDING: u32 = 2004;
const LIFECYCLE: u32 = 6002;
/// What none of an enumeration's other numbers is.
const OTHER: u32 = 99;

/// Which event a record is.
struct Kind {
    class: u32,
    activity: u32,
    activity_name: &'static str,
}

impl Kind {
    fn of(record: &Record) -> Self {
        let (class, (activity, activity_name)) = match record.event {
            Event::Decision if record.method.is_some() => (HTTP, method(record)),
            Event::Decision => (
                NETWORK,
                match record.verdict {
                    Some(Verdict::Deny) => (5, "Refuse"),
                    _ if is_unreachable(record) => (4, "Fail"),
                    _ => (1, "Open"),
                },
            ),
            Event::Close => (
                NETWORK,
                match record.reason {
                    Some(_) => (3, "Reset"),
                    None => (2, "Close"),
                },
            ),
            Event::Dns => (DNS, (1, "Query")),
            Event::Finding => (FINDING, (1, "Create")),
            Event::Question if record.action.as_deref() == Some("asked") => {
                (FINDING, (1, "Create"))
            }
            Event::Question => (FINDING, (3, "Close")),
            Event::Policy | Event::Lifecycle => (
                LIFECYCLE,
                match record.action.as_deref() {
                    Some("started" | "resumed") => (3, "Start"),
                    Some("ended" | "agent_gone") => (4, "Stop"),
                    Some("loaded") => (6, "Enable"),
                    Some("replaced" | "rejected") => (8, "Update"),
                    _ => (OTHER, "Other"),
                },
            ),
        };
        Self {
            class,
            activity,
            activity_name,
        }
    }

    fn class_name(&self) -> &'static str {
        match self.class {
            NETWORK => "Network Activity",
            HTTP => "HTTP Activity",
            DNS => "DNS Activity",
            FINDING => "Detection Finding",
            _ => "Application Lifecycle",
        }
    }
}

fn method(record: &Record) -> (u32, &'static str) {
    match record.method.as_deref() {
        Some("CONNECT") => (1, "Connect"),
        Some("DELETE") => (2, "Delete"),
        Some("GET") => (3, "Get"),
        Some("HEAD") => (4, "Head"),
        Some("OPTIONS") => (5, "Options"),
        Some("POST") => (6, "Post"),
        Some("PUT") => (7, "Put"),
        Some("TRACE") => (8, "Trace"),
        Some("PATCH") => (9, "Patch"),
        _ => (OTHER, "Other"),
    }
}

/// Whether it was allowed and did not come about.
fn is_unreachable(record: &Record) -> bool {
    record.event == Event::Decision && record.dialled.is_none()
}

fn severity(record: &Record) -> (u32, &'static str) {
    match (record.event, record.verdict) {
        (Event::Finding | Event::Question, _) => (3, "Medium"),
        (_, Some(Verdict::Deny)) => (2, "Low"),
        _ => (1, "Informational"),
    }
}

/// When, in milliseconds since 1970; 0 where that cannot be read.
fn milliseconds(record: &Record) -> i64 {
    let time = record.time.parse::<Timestamp>();
    time.map_or(0, Timestamp::as_millisecond)
}

fn metadata(record: &Record) -> Value {
    json!({
        "version": "1.8.0",
        "product": { "name": "Egret", "vendor_name": "Egret", "version": env!("CARGO_PKG_VERSION") },
        "profiles": ["security_control", "host"],
        "log_name": "audit",
        "log_version": record.v.to_string(),
        "event_code": json!(record.event),
        "correlation_uid": record.id,
        "original_time": record.time,
        // A sandbox is to Egret what an organisation is to a service: names mean nothing across them.
        "tenant_uid": record.sandbox,
    })
}

fn policy(record: &Record) -> Value {
    let Some(basis) = &record.policy else {
        return Value::Null;
    };
    let from = basis.file.as_deref().unwrap_or("options");
    json!({ "name": from, "is_applied": true })
}

/// The side that is not the sandbox's.
fn outside(record: &Record) -> Value {
    let (ip, port) = match (record.peer, record.dialled) {
        (Some(peer), _) => (Some(peer.ip()), Some(peer.port())),
        (None, Some(dialled)) => (Some(dialled.ip()), record.port),
        (None, None) => (literal(record), record.port),
    };
    let name = host_name(record).filter(|_| record.peer.is_none());
    let endpoint = without_empty(json!({ "hostname": name, "ip": ip, "port": port }));
    match endpoint.get("hostname").or(endpoint.get("ip")) {
        Some(_) => endpoint,
        // What named nothing went nowhere.
        None => without_empty(json!({ "name": "unknown", "port": port })),
    }
}

fn literal(record: &Record) -> Option<IpAddr> {
    record.host.as_deref()?.parse().ok()
}

/// The host, where it is a name.
fn host_name(record: &Record) -> Option<&str> {
    record.host.as_deref().filter(|_| literal(record).is_none())
}

fn connection(record: &Record, is_inbound: bool) -> Value {
    let (direction_id, direction) = if is_inbound {
        (1, "Inbound")
    } else {
        (2, "Outbound")
    };
    // Of a packet that is not carried, the record says which protocol it was of in its sentence alone.
    let is_tcp = record.door != Some(Door::Packet);
    without_empty(json!({
        "direction_id": direction_id, "direction": direction, "uid": record.id,
        "protocol_name": is_tcp.then_some("tcp"), "protocol_num": is_tcp.then_some(6),
    }))
}

/// Octets as the sandbox's other side sees them: out of it, and into it.
fn traffic(record: &Record, is_inbound: bool) -> Value {
    let (Some(up), Some(down)) = (record.bytes_up, record.bytes_down) else {
        return Value::Null;
    };
    let (out, into) = if is_inbound { (down, up) } else { (up, down) };
    json!({ "bytes": up.saturating_add(down), "bytes_out": out, "bytes_in": into })
}

/// What has no place elsewhere.
fn unmapped(record: &Record, kind: &Kind) -> Value {
    let is_mapped_program = record.executable.is_some();
    let other_method = record.method.as_ref().filter(|_| kind.activity == OTHER);
    without_empty(json!({
        "sandbox": record.sandbox,
        "door": record.door.map(Door::word),
        "addresses": record.addresses,
        "dialled": record.dialled.filter(|_| kind.class == HTTP || record.peer.is_some()),
        "ancestors": record.ancestors.iter().filter(|_| is_mapped_program).collect::<Vec<_>>(),
        "method": other_method,
        "limit": record.limit,
        "action": record.action,
        "reason": record.reason.as_ref().filter(|_| kind.class == FINDING),
        "hint": record.hint,
        "host": record.host.as_ref().filter(|_| kind.class == FINDING),
        "port": record.port.filter(|_| kind.class == FINDING),
        "allow": record.policy.as_ref().map(|policy| &policy.allow),
        "deny": record.policy.as_ref().map(|policy| &policy.deny),
        "host_gateway": record.policy.as_ref().and_then(|policy| policy.host_gateway.as_ref()),
    }))
}

fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, field)| !is_empty(field))
            .collect(),
        value => value,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
