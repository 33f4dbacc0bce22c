//! What the difference of two policies says is so, and nothing that it leaves out is otherwise.

use egret_policy::{Change, Destination, HostAddresses, Matcher, Policy};

use crate::policy::{askers, destinations, words};

/// What stands between the old policy and the new one.
const BETWEEN: &str = "\n===\n";

/// Two policies.
pub fn diff(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some((old_text, new_text)) = text.split_once(BETWEEN) else {
        return;
    };
    let read = |text: &str| Policy::parse("policy.yaml", text.as_bytes());
    let (Ok(old), Ok(new)) = (read(old_text), read(new_text)) else {
        return;
    };
    let (old, new) = (old.policy, new.policy);
    assert!(old.diff(&old).is_none(), "a policy differs from itself");
    let (there, back) = (old.diff(&new), new.diff(&old));
    assert_eq!(there.gained.is_empty(), back.lost.is_empty());
    assert_eq!(there.lost.is_empty(), back.gained.is_empty());
    let hosts = HostAddresses::new([]);
    let (old_matcher, new_matcher) = (old.compile(), new.compile());
    for change in &there.gained {
        shows(change, &old_matcher, &new_matcher, &hosts);
    }
    for change in &there.lost {
        shows(change, &new_matcher, &old_matcher, &hosts);
    }
    if !there.complete || !there.gained.is_empty() || !there.lost.is_empty() {
        return;
    }
    for to in &destinations(&words(text)) {
        for by in askers(&old).chain(askers(&new)) {
            let before = old_matcher.decide(to, by.as_ref(), &hosts).is_ok();
            let after = new_matcher.decide(to, by.as_ref(), &hosts).is_ok();
            assert_eq!(before, after, "{to} by {by:?} differs, and nobody said so");
        }
    }
}

/// A change that holds for whoever asks for whatever shows in the decisions themselves.
fn shows(change: &Change, without: &Matcher, with: &Matcher, hosts: &HostAddresses) {
    let to = Destination::from_user(&change.destination).expect("a destination");
    let plain = change.by.is_none() && change.requests.is_empty() && change.resolves_to.is_empty();
    if plain {
        assert!(
            with.decide(&to, None, hosts).is_ok(),
            "{change:?} is not allowed"
        );
        assert!(
            without.decide(&to, None, hosts).is_err(),
            "{change:?} was allowed"
        );
    }
}
