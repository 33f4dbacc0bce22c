//! Rules for requests: what is written in two ways is decided in one, and what servers read in two ways in the stricter.

use egret_policy::{Destination, HostAddresses, Permit, Policy};

/// The most octets of a target whose spellings are tried.
const MAX_TARGET: usize = 64;

/// Three lines: an item of `http`, a method, and a target.
pub fn request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let (Some(rule), Some(method), Some(target)) = (lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    let allowed = permit("allow", rule);
    let refused = permit("deny", rule);
    assert_eq!(
        allowed.is_some(),
        refused.is_some(),
        "a rule on one side only"
    );
    let (Some(allowed), Some(refused)) = (allowed, refused) else {
        return;
    };
    assert!(allowed.inspects() && refused.inspects());
    let is_allowed = allowed.request(method, target).is_ok();
    if is_allowed {
        assert!(
            refused.request(method, target).is_err(),
            "allowed by a rule, not refused by it"
        );
        // Where every request is listed it does not matter which one a server takes it for.
        assert!(
            is_plain(target) || !allowed.tells_requests_apart(),
            "a path that servers read in different ways: {target:?}"
        );
        // Whatever a server takes an encoded slash for, it finds what the rule allows.
        let decoded = target.replace("%2f", "/").replace("%2F", "/");
        assert!(allowed.request(method, &decoded).is_ok(), "{decoded:?}");
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let without_query = allowed.request(method, path).is_ok();
    assert!(without_query || !is_allowed, "a query opens nothing");
    // One that may stand for another method is refused, in any spelling that some framework knows.
    if is_allowed != without_query {
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"=&-/".contains(&octet);
        let lower = query.to_ascii_lowercase();
        assert!(
            lower.contains("method") || !lower.bytes().all(plain),
            "a query says nothing"
        );
        return;
    }
    for (at, octet) in path.bytes().enumerate().take(MAX_TARGET) {
        if octet.is_ascii_alphabetic() && !follows_percent(path, at) {
            let encoded = format!("{}%{octet:02x}{}", &path[..at], &path[at + 1..]);
            assert_eq!(
                allowed.request(method, &encoded).is_ok(),
                is_allowed,
                "{encoded:?}"
            );
        }
    }
}

/// A permit for a host of which `rule` allows, or refuses, requests.
fn permit(side: &str, rule: &str) -> Option<Permit> {
    let entry = serde_json::json!([{ "host": "a.example", "http": [rule] }]);
    let policy = match side {
        "allow" => serde_json::json!({ "version": 1, "allow": entry }),
        _ => serde_json::json!({ "version": 1, "allow": ["a.example"], "deny": entry }),
    };
    let parsed = Policy::parse("policy.yaml", policy.to_string().as_bytes()).ok()?;
    let to = Destination::from_user("a.example").expect("a destination");
    let decision = parsed
        .policy
        .compile()
        .decide(&to, None, &HostAddresses::new([]));
    Some(decision.expect("the host is allowed, some requests are not"))
}

/// Whether a path has one reading, but for what an encoded slash is.
fn is_plain(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let decoded = path
        .replace("%2e", ".")
        .replace("%2E", ".")
        .replace("%2f", "/")
        .replace("%2F", "/");
    let segments: Vec<_> = decoded
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .collect();
    let no_dots = segments
        .iter()
        .all(|segment| !matches!(*segment, "." | ".."));
    path.starts_with('/')
        && no_dots
        && !decoded.contains("//")
        && !path.contains(['\\', '#', '\0', '\r', '\n'])
}

fn follows_percent(path: &str, at: usize) -> bool {
    let before = &path.as_bytes()[at.saturating_sub(2)..at];
    before.contains(&b'%')
}
