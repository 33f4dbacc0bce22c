//! A client inside the sandbox that makes attempts and says how each ended.
//!
//! Attempts are JSON objects, as `probe.py` documents them; the functions here make the common ones. [`refused`] is the
//! test that most tests are: these attempts are refused, at once, for these reasons, and nothing got out.

use serde_json::{Value, json};

use super::run::{Outcome, Run};

/// The client, which lies at `/srv/lib/probe.py` on the machine.
pub(crate) const SOURCE: &str = include_str!("probe.py");

/// How long a refusal may take, in milliseconds, measured inside the sandbox around the whole attempt. The best of
/// five tries counts, since the processors are shared with other tests.
const AT_ONCE: f64 = 50.0;

/// Attempts, each with the reason for which it is refused; none if the audit log need not name one.
pub(crate) type Table = Vec<(Value, &'static str)>;

/// A connection to `host:port`, without a proxy; sends something, so that nobody waits for the client.
pub(crate) fn tcp(host: &str, port: u16) -> Value {
    json!({"try": "tcp", "host": host, "port": port, "send": "hello\n"})
}

/// `CONNECT authority`.
pub(crate) fn connect(authority: &str) -> Value {
    json!({"try": "connect", "authority": authority})
}

/// `GET url` by way of the proxy.
pub(crate) fn forward(url: &str) -> Value {
    json!({"try": "forward", "url": url})
}

/// A SOCKS5 request.
pub(crate) fn socks(host: &str, port: u16) -> Value {
    json!({"try": "socks", "host": host, "port": port, "send": "hello\n"})
}

/// A SOCKS5 request whose destination is given as a name, even if it is an address.
pub(crate) fn socks_name(host: &str, port: u16) -> Value {
    json!({"try": "socks", "host": host, "port": port, "name": true, "send": "hello\n"})
}

/// A question to some name server on the internet.
pub(crate) fn dns(name: &str, kind: u16) -> Value {
    json!({"try": "dns", "name": name, "type": kind})
}

/// A datagram.
pub(crate) fn udp(host: &str, port: u16) -> Value {
    json!({"try": "udp", "host": host, "port": port})
}

/// Makes the attempts inside one run.
#[track_caller]
pub(crate) fn attempt(run: Run<'_>, attempts: &[Value]) -> (Outcome, Vec<Value>) {
    let outcome = run.input(asked(attempts)).program(&PROGRAM).ok();
    let ends = answered(&outcome.stdout);
    (outcome, ends)
}

/// The client's command line, wherever it runs.
pub(crate) const PROGRAM: [&str; 4] = ["/usr/bin/python3", "-I", "-S", "/srv/lib/probe.py"];

/// What the client reads.
pub(crate) fn asked(attempts: &[Value]) -> String {
    format!("{}\n", Value::from(attempts.to_vec()))
}

/// What the client printed: how each attempt ended.
#[track_caller]
pub(crate) fn answered(stdout: &str) -> Vec<Value> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Makes each attempt, and fails unless all were refused at once, with the reason in the audit log where one is named,
/// and without a packet or a question getting out.
#[track_caller]
pub(crate) fn refused(run: Run<'_>, table: &[(Value, &str)]) -> Outcome {
    let (outcome, ends) = refused_by_then(run, table);
    outcome.silent();
    drop(ends);
    outcome
}

/// As [`refused`], for refusals that come after the name was resolved, so that questions got out.
#[track_caller]
pub(crate) fn refused_by_then(run: Run<'_>, table: &[(Value, &str)]) -> (Outcome, Vec<Value>) {
    let attempts: Vec<_> = table
        .iter()
        .map(|(attempt, _)| {
            let mut attempt = attempt.clone();
            attempt["fast"] = AT_ONCE.into();
            attempt
        })
        .collect();
    let (outcome, ends) = attempt(run, &attempts);
    assert_eq!(ends.len(), table.len(), "{outcome:#?}");
    let mut wrong = Vec::new();
    for ((attempt, reason), end) in table.iter().zip(&ends) {
        if !is_refusal(attempt, end) {
            wrong.push(format!("not refused: {attempt} ended so: {end}"));
        }
        if end["ms"].as_f64().unwrap() > AT_ONCE {
            wrong.push(format!("not refused at once: {attempt} ended so: {end}"));
        }
        let data = end["data"].as_str().unwrap();
        if data.starts_with("HTTP/1.1") && !reason.is_empty() && !says(data, reason) {
            wrong.push(format!(
                "does not tell the client `{reason}`: {attempt} ended so: {end}"
            ));
        }
        if !reason.is_empty() && !is_on_record(&outcome, attempt, reason) {
            wrong.push(format!(
                "no record says `{reason}` about {attempt}, which ended so: {end}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}\n{outcome:#?}", wrong.join("\n"));
    assert!(outcome.packets.is_empty(), "packets got out: {outcome:#?}");
    (outcome, ends)
}

/// A refusal in the words of the protocol that was spoken.
fn is_refusal(attempt: &Value, end: &Value) -> bool {
    let (kind, end, data) = (
        attempt["try"].as_str(),
        end["end"].as_str().unwrap(),
        end["data"].as_str().unwrap(),
    );
    let http = ["403", "400", "502"]
        .iter()
        .any(|code| data.starts_with(&format!("HTTP/1.1 {code}")));
    match kind.unwrap() {
        "tcp" => {
            http || (data.is_empty()
                && matches!(
                    end,
                    "reset" | "closed" | "unresolved" | "ECONNREFUSED" | "EINVAL" | "ENETUNREACH"
                ))
        }
        "connect" | "forward" | "proxy" => {
            http || data.is_empty() && matches!(end, "reset" | "closed")
        }
        "socks" => {
            end.starts_with("reply ") || (data.is_empty() && matches!(end, "reset" | "closed"))
        }
        "dns" => {
            [
                "rcode 3 answers 0",
                "rcode 5 answers 0",
                "rcode 0 answers 0",
            ]
            .contains(&end)
                || end == "ECONNREFUSED"
        }
        "udp" => matches!(
            end,
            "ECONNREFUSED" | "ENETUNREACH" | "EHOSTUNREACH" | "EACCES" | "EPERM" | "EINVAL"
        ),
        _ => end.starts_with('E'),
    }
}

/// The refusal as HTTP carries it: in the header and in the body.
fn says(data: &str, reason: &str) -> bool {
    let head = data
        .split("\r\n\r\n")
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    head.contains(&format!("x-egret-reason: {reason}"))
        && data.contains(&format!("\"reason\":\"{reason}\""))
}

/// Whether the log has this reason about what was attempted, as far as the attempt names a host and a port.
fn is_on_record(outcome: &Outcome, attempt: &Value, reason: &str) -> bool {
    let text = |key: &str| attempt[key].as_str().unwrap_or_default().to_owned();
    let wanted = format!(
        "{}{}{}{}",
        text("host"),
        text("authority"),
        text("url"),
        text("name")
    )
    .to_ascii_lowercase();
    outcome.records.iter().any(|record| {
        if record["reason"] != reason {
            return false;
        }
        let host = record["host"].as_str().unwrap_or_default().to_owned();
        // What was written need not be what it means (`0x7f.1`, `EXAMPLE.com.`), so only plain ones are compared.
        let plain = |name: &str| {
            name.chars()
                .all(|c| c.is_ascii_lowercase() || ".-".contains(c))
                && !name.ends_with('.')
        };
        host.is_empty() || !plain(&host) || !plain(&text("host")) || wanted.contains(&host)
    })
}
