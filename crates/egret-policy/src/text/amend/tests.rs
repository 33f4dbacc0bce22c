//! Where entries go, row by row, and for any policy: it decides as before about everything but them.

use proptest::prelude::*;

use super::*;
use crate::text::format::tests::policy;
use crate::{Destination, HostAddresses};

fn allow(entry: &str) -> Addition {
    Addition {
        list: List::Allow,
        entry: entry.to_owned(),
        comment: None,
    }
}

fn deny(entry: &str) -> Addition {
    Addition {
        list: List::Deny,
        ..allow(entry)
    }
}

fn said(entry: &str, comment: &str) -> Addition {
    Addition {
        comment: Some(comment.to_owned()),
        ..allow(entry)
    }
}

#[track_caller]
fn amended(text: &str, additions: &[Addition]) -> String {
    let once = amend("p.yaml", text.as_bytes(), additions)
        .unwrap_or_else(|error| panic!("{error}\nin\n{text}"));
    let twice = amend("p.yaml", once.as_bytes(), additions).unwrap();
    assert_eq!(once, twice, "added twice:\n{text}");
    once
}

#[test]
fn entries_go_where_they_belong() {
    let two = || vec![allow("api.github.com"), allow("x.example:443")];
    #[rustfmt::skip]
    let table = [
        // Behind those of the same domain, else at the end; nothing else changes.
        ("version: 1\nallow:\n-   git.github.com # one\n  # more\n\n# next\n-   b.example\n\n# last\ndeny: [a.b]\n", two(),
         "version: 1\nallow:\n-   git.github.com # one\n  # more\n- api.github.com\n\n# next\n-   b.example\n- x.example:443\n\n# last\ndeny: [a.b]\n"),
        ("version: 1\nallow:\n  - host: a.github.com\n    ports: [\n     1 ]  # x\n  - b.example\n  # - c.example\n# end", two(),
         "version: 1\nallow:\n  - host: a.github.com\n    ports: [\n     1 ]  # x\n  - api.github.com\n  - b.example\n  # - c.example\n  - x.example:443\n# end"),
        ("version: 1\nallow:\n  - b.c", vec![allow("x.example"), allow("a.test"), allow("y.x.example"), allow("b.test")],
         "version: 1\nallow:\n  - b.c\n  - x.example\n  - y.x.example\n  - a.test\n  - b.test\n"),
        ("version: 1\r\nallow:\r\n  - b.c\r\n", vec![allow("d.e")], "version: 1\r\nallow:\r\n  - b.c\r\n  - d.e\r\n"),
        ("\u{feff}version: 1\nallow:\n  - b.c\n", vec![allow("d.e")], "\u{feff}version: 1\nallow:\n  - b.c\n  - d.e\n"),
        ("  version: 1\n  allow:\n  - host: b.c\n    reason: |\n      # x\n\n  name: x\n", vec![allow("d.e")],
         "  version: 1\n  allow:\n  - host: b.c\n    reason: |\n      # x\n  - d.e\n\n  name: x\n"),
        // A section that is not there.
        ("version: 1  # one\n", two(), "version: 1  # one\n\nallow:\n  - api.github.com\n  - x.example:443\n"),
        ("version: 1", vec![deny("a.b"), allow("c.d")], "version: 1\n\nallow:\n  - c.d\n\ndeny:\n  - a.b\n"),
        ("version: 1\n\n# why\nhost_gateway: [1]\n", vec![deny("a.b"), allow("c.d")],
         "version: 1\n\nallow:\n  - c.d\n\ndeny:\n  - a.b\n\n# why\nhost_gateway: [1]\n"),
        ("version: 1\nallow:\n  - a.b\nhost_gateway: [1]\n", vec![deny("c.d")],
         "version: 1\nallow:\n  - a.b\n\ndeny:\n  - c.d\n\nhost_gateway: [1]\n"),
        // In brackets, and JSON.
        ("version: 1\nallow: [a.b]   # x\n", vec![allow("c.d")], "version: 1\nallow: [a.b, c.d]  # x\n"),
        ("version: 1\nallow: [a.b]\n", vec![said("c.d", "why")], "version: 1\n\nallow:\n  - a.b\n  - c.d  # why\n"),
        ("{version: 1}", vec![allow("c.d")], "version: 1\n\nallow:\n  - c.d\n"),
        ("{\"version\": 1, \"host_gateway\": \"allow\"}", vec![said("c.d", "why"), deny("e.f")],
         "{\n  \"version\": 1,\n  \"allow\": [\"c.d\"],\n  \"deny\": [\"e.f\"],\n  \"host_gateway\": \"allow\"\n}\n"),
        // What is there already is not added, and of the ports those that are missing.
        ("version: 1\nallow:\n  - a.b:443\n  - host: c.d\n    by: [/x]\n  - host: e.f\n    addresses: [10.0.0.0/8]\ndeny:\n  - g.h\n",
         vec![allow("A.b."), allow("c.d"), allow("e.f:80"), deny("g.h:1")],
         "version: 1\nallow:\n  - a.b:443\n  - a.b:80\n  - host: c.d\n    by: [/x]\n  - c.d\n  - host: e.f\n    addresses: [10.0.0.0/8]\ndeny:\n  - g.h\n"),
        // Addresses, quotes, comments.
        ("version: 1\n", vec![allow("[2606:4700::1]:443,80"), allow("1.1.1.0/24:53"), allow("*.a.example"), allow("no.:1")],
         "version: 1\n\nallow:\n  - 2606:4700::1\n  - 1.1.1.0/24:53\n  - \"*.a.example\"\n  - no:1\n"),
        ("version: 1\nallow:\n  - a.b            # x\n", vec![said("c.a.b:1", "look\n\nwhy"), said("long.a.b:1,2,3,4,5", "why"), said("d.e", "x\n")],
         "version: 1\nallow:\n  - a.b            # x\n  # look\n  #\n  - c.a.b:1        # why\n  - long.a.b:1,2,3,4,5  # why\n  - d.e            # x\n"),
        ("version: 1\n", vec![said("c.d", "a\u{1b}[2J\u{202e}\u{feff}\rb # - e: *f"), said("c.example.com:1", "x")],
         "version: 1\n\nallow:\n  - c.d              # a\\u{1b}[2J\\u{202e}\\u{feff}\\rb # - e: *f\n  - c.example.com:1  # x\n"),
    ];
    for (text, additions, expected) in table {
        assert_eq!(amended(text, &additions), expected, "{text}");
    }
}

#[test]
fn what_cannot_be_added_to_stays_as_it_is() {
    #[rustfmt::skip]
    let table = [
        ("version: 1\nalow: [a.b]", allow("c.d"), "a policy has no key `alow`"),
        ("{\"network\": {\"outbound\": {\"allow_host\": [\"a.b\"]}}}", allow("c.d"), "`p.yaml` is written for ToolHive"),
        ("version: 1", allow("c.d\n  - e.f"), "allow c.d\\n  - e.f: "),
        ("version: 1", allow("127.0.0.1"), "allow 127.0.0.1: `127.0.0.1` can never be allowed"),
        ("version: 1", deny("*"), "deny *: `*` would match every name"),
    ];
    for (text, addition, expected) in table {
        let error = amend("p.yaml", text.as_bytes(), &[allow("x.example"), addition]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// What may be added: names that the policies have, and others.
fn additions() -> impl Strategy<Value = Vec<Addition>> {
    let list = prop_oneof![Just(List::Allow), Just(List::Deny)];
    let host = prop_oneof![
        "[a-r]\\.[a-r]",
        "[a-z]{1,3}\\.[a-r]\\.example",
        Just("*.c.example".to_owned()),
        "1\\.1\\.1\\.[1-9]"
    ];
    let ports = prop_oneof![Just(""), Just(":443"), Just(":80,443"), Just(":1")];
    let comment =
        prop::option::of("[ -~\u{85}\u{2028}\u{202e}\u{fffe}\u{ffff}\u{feff}\t\r\né]{0,12}");
    let addition = (list, host, ports, comment).prop_map(|(list, host, ports, comment)| Addition {
        list,
        entry: format!("{host}{ports}"),
        comment,
    });
    prop::collection::vec(addition, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_policy_decides_as_before_but_for_what_was_added(text in policy(), additions in additions(), carriage in 0..8) {
        let text = if carriage == 0 { text.replace('\n', "\r\n") } else { text };
        let Ok(before) = Policy::parse("p", text.as_bytes()) else {
            return Ok(());
        };
        let amended = amend("p", text.as_bytes(), &additions).unwrap_or_else(|error| panic!("{error}\n{text}\n{additions:?}"));
        // Added by flags, they mean the same.
        let (mut expected, after) = (before.policy, Policy::parse("p", amended.as_bytes()).unwrap().policy);
        for Addition { list, entry, .. } in &additions {
            match list {
                List::Allow => expected.add_allow_flag(entry).unwrap(),
                List::Deny => expected.add_deny_flag(entry).unwrap(),
            }
        }
        let (expected, after) = (expected.compile(), after.compile());
        let hosts = HostAddresses::new([]);
        let names = ["a.b", "c.d", "x.c.example", "d.example", "y.d.example", "e.f", "g.h", "i.j", "k.l", "m.n", "1.1.1.1", "10.0.0.1", "host.docker.internal"];
        let entries = additions.iter().map(|addition| addition.entry.split(':').next().unwrap_or_default());
        for host in names.into_iter().chain(entries.filter(|entry| !entry.contains('*'))) {
            for port in [1, 2, 80, 443] {
                let to = Destination::from_authority(host, Some(port)).unwrap();
                let one = expected.decide(&to, None, &hosts).map(|permit| permit.reason()).map_err(|denial| denial.reason());
                let other = after.decide(&to, None, &hosts).map(|permit| permit.reason()).map_err(|denial| denial.reason());
                prop_assert_eq!(one, other, "{}\n{}\n{}", to, text, amended);
            }
        }
        // Where lists have a line for each item, the lines that were there still are, in order.
        if !text.contains("allow: [") && !text.contains("deny: [") {
            let mut lines = amended.lines();
            prop_assert!(text.lines().all(|old| lines.any(|line| line == old)), "{}\n{}", text, amended);
        }
        let again = amend("p", amended.as_bytes(), &additions).unwrap();
        prop_assert_eq!(again, amended);
    }
}
