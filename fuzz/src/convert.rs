//! A policy that is written out in Egret's own language is the same policy, whatever it was read from.

use egret_policy::Policy;

use crate::policy::decide_the_same;

/// A text as a policy to be converted.
pub fn convert(data: &[u8]) {
    let Ok(before) = Policy::parse("policy.yaml", data) else {
        return;
    };
    let converted = match before
        .policy
        .to_yaml(&["A comment: *of* #two\nlines.".to_owned()])
    {
        Ok(converted) => converted,
        Err(errors) => {
            let shown = errors.to_string();
            assert!(!shown.contains("bug of Egret's"), "{shown}");
            return;
        }
    };
    let after = Policy::parse("policy.yaml", converted.as_bytes()).expect("still a policy");
    decide_the_same(
        &before.policy,
        &after.policy,
        &String::from_utf8_lossy(data),
    );
    assert_eq!(before.policy.filesystem(), after.policy.filesystem());
}
