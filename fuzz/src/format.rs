//! Formatting a policy changes its layout and nothing else, and does so once.

use egret_policy::{Language, Policy, format_policy};

use crate::policy::decide_the_same;

/// A text as a policy to be formatted.
pub fn format(data: &[u8]) {
    let Ok(before) = Policy::parse("policy.yaml", data) else {
        assert!(
            format_policy("policy.yaml", data).is_err(),
            "what cannot be used was formatted"
        );
        return;
    };
    let formatted = match format_policy("policy.yaml", data) {
        Ok(formatted) => formatted,
        Err(errors) => {
            let shown = errors.to_string();
            assert_ne!(before.language, Language::Native, "{shown}");
            return;
        }
    };
    let again = format_policy("policy.yaml", formatted.as_bytes());
    assert_eq!(
        again.as_ref(),
        Ok(&formatted),
        "formatting what is formatted"
    );
    let after = Policy::parse("policy.yaml", formatted.as_bytes()).expect("still a policy");
    let text = String::from_utf8_lossy(data);
    decide_the_same(&before.policy, &after.policy, &text);
    assert_eq!(before.policy.name(), after.policy.name());
    assert_eq!(before.policy.filesystem(), after.policy.filesystem());
    assert_eq!(before.policy.entries(), after.policy.entries());
    assert_eq!(
        before.policy.run_tests().len(),
        after.policy.run_tests().len()
    );
}
