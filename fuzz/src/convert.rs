//! A policy that is written out in Egret's own language is the same policy, whatever it was read from.

use egret_policy::Policy;

use crate::policy::decide_the_same;

/// A text as a policy to be converted.
pub fn convert(data: &[u8]) {
    convert_of(data, None);
}

/// The same of one service of a policy.
pub fn convert_of(data: &[u8], service: Option<&str>) {
    let Ok(before) = Policy::parse_service("policy.yaml", data, service) else {
        return;
    };
    let notes = [
        before.notes,
        vec!["A comment: *of* #two\nlines.".to_owned()],
    ]
    .concat();
    let converted = match before.policy.to_yaml(&notes) {
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
