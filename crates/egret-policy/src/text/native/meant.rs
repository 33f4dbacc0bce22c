//! What was meant by a mapping that is not what it should be: an entry, a text, a policy.

use crate::report::Span;
use crate::request::RequestRule;
use crate::text::advice;
use crate::text::entry::{Side, parse_entry, parse_host};
use crate::text::native::HOST_KEYS;
use crate::text::reader::{Pairs, get, text_of};
use crate::text::yaml::{Kind, Node, Value};

/// What to do about an entry that has neither `host` nor `address`.
pub(super) fn entry(pairs: &Pairs<'_>, side: Side) -> Option<String> {
    let keys = || pairs.iter().filter_map(|(key, _)| text_of(key));
    if keys().next().is_some() && keys().all(|key| HOST_KEYS.contains(&key)) {
        let help =
            "if they belong to the entry above, leave the `-` out and line them up with its keys";
        return Some(help.to_owned());
    }
    keys()
        .find_map(|key| advice::key(key, &["host", "address"]))
        .or_else(|| space_after_colon(pairs, side))
        .or_else(|| Some("write `host: HOST` or `address: ADDRESS`".to_owned()))
}

/// What to do about `- HOST: PORT`, which YAML takes for a mapping.
fn space_after_colon(pairs: &Pairs<'_>, side: Side) -> Option<String> {
    let [(key, value)] = pairs else {
        return None;
    };
    let host = text_of(key).filter(|host| parse_host(host, side).is_ok())?;
    let ports = match &value.value {
        Value::Scalar(_, Kind::Null) => {
            return Some(format!("an entry has no colon at its end: `{host}`"));
        }
        Value::Scalar(ports, Kind::Number | Kind::String) => ports.to_string(),
        Value::Scalar(_, Kind::Bool) => return None,
        Value::List(items) => {
            let port = |item: &Node<'_>| match &item.value {
                Value::Scalar(port, Kind::Number) => Some(port.to_string()),
                _ => None,
            };
            items
                .iter()
                .map(port)
                .collect::<Option<Vec<_>>>()?
                .join(",")
        }
        Value::Map(_) => {
            let help = format!("write `host: {host}`, and the keys below it lined up with `host`");
            return Some(help);
        }
    };
    let meant = format!("{host}:{ports}");
    parse_entry(&meant, side)
        .ok()
        .map(|_| format!("an entry has no space after the colon: `{meant}`"))
}

/// The text that somebody wrote as a mapping: a request, or a path.
pub(super) fn text(pairs: &Pairs<'_>, what: &str) -> Option<String> {
    let text = |name| get(pairs, name).and_then(text_of);
    if what != "`http`" {
        return text("path").map(str::to_owned);
    }
    let (method, path) = match pairs {
        [(method, path)] if text_of(method) != Some("path") => (text_of(method)?, text_of(path)?),
        _ => (text("method").unwrap_or("*"), text("path")?),
    };
    let request = format!("{method} {path}");
    RequestRule::parse(&request).ok().map(|_| request)
}

/// Where a file shows itself as settings of Claude's sandbox.
pub(crate) fn settings_of_claude(pairs: &Pairs<'_>) -> Option<Span> {
    if get(pairs, "version").is_some() {
        return None;
    }
    let is = |key: &str, value: &Node<'_>| match &value.value {
        Value::Map(_) if matches!(key, "permissions" | "sandbox") => true,
        Value::Map(inside) if key == "network" => ["allowedDomains", "deniedDomains"]
            .iter()
            .any(|key| get(inside, key).is_some()),
        Value::Map(inside) if key == "filesystem" => ["allowWrite", "denyWrite", "denyRead"]
            .iter()
            .any(|key| get(inside, key).is_some()),
        _ => false,
    };
    let found = pairs
        .iter()
        .find(|(key, value)| text_of(key).is_some_and(|key| is(key, value)));
    found.map(|(key, _)| key.span)
}
