//! A learnt policy as a file of its own.

use super::Learnt;
use crate::addr::HostAddresses;
use crate::destination::Destination;
use crate::policy::Policy;
use crate::text::amend::{AmendError, amend};
use crate::text::emit;
use crate::text::format::format_policy;
use crate::text::write;

/// How messages name it.
const LEARNT: &str = "<learnt>";

/// See [`Learnt::policy`].
pub(super) fn policy(
    learnt: &Learnt,
    name: Option<&str>,
    header: &[String],
) -> Result<String, AmendError> {
    let mut text = commented(header);
    text.push_str("\nversion: 1\n");
    text.extend(name.map(|name| format!("name: {}\n", write::text(name, false))));
    let mut text = amend(LEARNT, text.as_bytes(), &learnt.additions)?;
    let matcher = Policy::parse(LEARNT, text.as_bytes())?.policy.compile();
    // A wildcard opens what stands for all else of a domain.
    let holds = |(opened, to): &&(bool, String)| {
        let to = Destination::from_user(to);
        *opened || to.is_ok_and(|to| matcher.decide(&to, None, &HostAddresses::new([])).is_err())
    };
    text.push_str("\ntests:\n");
    for (opened, to) in learnt.proof.iter().filter(holds) {
        let expected = if *opened { "allow" } else { "deny" };
        text.push_str(&format!("  - {expected}: {}\n", write::text(to, false)));
    }
    for (title, lines) in [
        (
            "Allowed while learning, and not opened here:",
            &learnt.not_opened,
        ),
        (
            "Refused while learning, and not opened here:",
            &learnt.refused,
        ),
    ] {
        if !lines.is_empty() {
            let items = lines.iter().map(|line| format!("- {line}"));
            let section: Vec<String> = std::iter::once(title.to_owned()).chain(items).collect();
            text.push('\n');
            text.push_str(&commented(&section));
        }
    }
    let text = format_policy(LEARNT, text.as_bytes())?;
    let tests = Policy::parse(LEARNT, text.as_bytes())?.policy.run_tests();
    match tests.iter().all(|test| test.passed) {
        true => Ok(text),
        false => Err(AmendError::Changed(LEARNT.to_owned())),
    }
}

/// Sentences as comments in lines of their own.
fn commented(sentences: &[String]) -> String {
    let comments = emit::comments(sentences);
    let lines = comments.iter().map(|comment| format!("{}\n", comment.text));
    lines.collect()
}
