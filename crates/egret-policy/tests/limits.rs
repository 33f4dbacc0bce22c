//! Texts that are made to hurt: each is refused with a sentence, or read and usable, and nothing else happens.
//!
//! What is asserted is the outcome. A text that took unbounded time or memory would not get as far as that.

use egret_policy::{Destination, HostAddresses, Policy};

/// A million entries, and a text as long as a policy may be, less a little; a tenth of it but where there is time, which
/// is with EGRET_TEST_FULL set, and in an optimised build.
struct Size {
    entries: usize,
    octets: usize,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test reads the environment, not what it tests"
)]
fn size() -> Size {
    let full = !cfg!(debug_assertions) || std::env::var_os("EGRET_TEST_FULL").is_some();
    let part = if full { 1 } else { 10 };
    Size {
        entries: 1_000_000 / part,
        octets: (60 << 20) / part,
    }
}

/// No list of errors has to be longer to be of use.
const LONGEST_SHOWN: usize = 100_000;

/// Holds that a text is refused, and that its first error says this.
#[track_caller]
fn refused(text: &[u8], first: &str) {
    let Err(errors) = Policy::parse("policy.yaml", text) else {
        panic!("it was taken");
    };
    let shown = errors.to_string();
    assert!(
        shown.len() < LONGEST_SHOWN,
        "{} octets of errors",
        shown.len()
    );
    let message = errors.errors().first().map_or("", |error| error.message());
    assert!(message.starts_with(first), "{message}");
}

/// Holds that a text is a policy of so many entries, and that it allows what its last one names.
#[track_caller]
fn taken(text: &str, entries: usize, last: &str) {
    let parsed = match Policy::parse("policy.yaml", text.as_bytes()) {
        Ok(parsed) => parsed,
        Err(errors) => panic!("{errors}"),
    };
    assert_eq!(parsed.policy.entries(), entries);
    assert!(parsed.warnings.len() <= 101, "{}", parsed.warnings.len());
    let Ok(to) = Destination::from_user(last) else {
        panic!("{last}");
    };
    let decision = parsed
        .policy
        .compile()
        .decide(&to, None, &HostAddresses::new([]));
    assert!(decision.is_ok(), "{last}");
}

/// A policy whose `allow` begins with what `open` has and goes on with each of these.
fn allow(items: impl Iterator<Item = String>) -> String {
    let mut text = "version: 1\nallow:\n".to_owned();
    items.for_each(|item| text.extend(["- ", &item, "\n"]));
    text
}

#[test]
fn a_million_entries_are_a_policy() {
    let entries = size().entries;
    let names = (0..entries).map(|n| format!("h{n}.z{}.example", n % 1000));
    let last = format!("h{}.z999.example", entries - 1);
    taken(&allow(names), entries, &last);
}

#[test]
fn a_million_times_the_same_is_a_policy_with_few_warnings() {
    let entries = size().entries;
    let names = (0..entries).map(|_| "a.example".to_owned());
    taken(&allow(names), entries, "a.example");
}

#[test]
fn as_many_tests_as_entries_are_run() {
    let count = size().entries / 10;
    let mut text = allow((0..count).map(|n| format!("h{n}.example:80")));
    text.push_str("tests:\n");
    (0..count).for_each(|n| text.push_str(&format!("- deny: h{n}.example\n")));
    let Ok(parsed) = Policy::parse("policy.yaml", text.as_bytes()) else {
        panic!("it was refused");
    };
    // A port that each of them has left out is open; a hundred are shown and the rest counted.
    assert_eq!(parsed.warnings.len(), 101);
    let tested = parsed.policy.run_tests();
    assert_eq!(tested.len(), count);
    assert!(tested.iter().all(|test| test.passed));
}

#[test]
fn tests_that_leave_out_ports_do_not_ask_for_every_program_on_each() {
    let entry = |n| {
        let port = 81 + n % 64;
        format!("{{host: a.example, ports: [{port}], by: [/bin/x{n}], http: [GET /x{n}]}}")
    };
    let mut text = allow((0..600).map(entry));
    text.push_str("tests:\n");
    (0..300).for_each(|_| text.push_str("- {deny: a.example, request: DELETE /y}\n"));
    let Ok(parsed) = Policy::parse("policy.yaml", text.as_bytes()) else {
        panic!("it was refused");
    };
    assert!(parsed.warnings.is_empty());
}

#[test]
fn more_values_than_a_policy_may_have_are_refused() {
    let first = "a policy has at most 8000000 values";
    let items = "-\n".repeat(10_000_000);
    refused(format!("version: 1\nallow:\n{items}").as_bytes(), first);
    if size().entries == 1_000_000 {
        let long_form = (0..1_000_000).map(|n| format!("{{host: h{n}.example, ports: [443]}}"));
        refused(allow(long_form).as_bytes(), first);
        let items = "'',".repeat(10_000_000);
        refused(format!("version: 1\nallow: [{items}]").as_bytes(), first);
    }
}

#[test]
fn yaml_that_grows_when_it_is_read_does_not_grow() {
    let mut bomb = "version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..20 {
        let items = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{items}]\n"));
    }
    let first = "YAML anchors and aliases cannot be used in a policy";
    refused(bomb.as_bytes(), first);
    let merges = format!(
        "version: 1\nallow: &a [b.example]\n{}",
        "<<: *a\n".repeat(100_000)
    );
    refused(merges.as_bytes(), first);
    let aliases = format!(
        "version: 1\nallow: [&a b.example{}]",
        ", *a".repeat(size().entries)
    );
    refused(aliases.as_bytes(), first);
    let anchors = (0..size().entries).map(|n| format!("&a{n} h{n}.example"));
    refused(allow(anchors).as_bytes(), first);
}

#[test]
fn nesting_has_an_end() {
    let first = "this is not YAML: recursion limit exceeded";
    for nested in ["[", "{a: ", "- ", "? ", "[{a: "] {
        refused(nested.repeat(100_000).as_bytes(), first);
    }
    let indented: String = (0..5_000)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    refused(indented.as_bytes(), first);
}

#[test]
fn a_long_text_is_refused_and_not_repeated() {
    let long = "a".repeat(size().octets);
    refused(
        format!("version: 1\nname: {long}").as_bytes(),
        "this cannot name a policy",
    );
    refused(
        format!("version: 1\nname: \"{long}\"").as_bytes(),
        "this cannot name a policy",
    );
    refused(
        format!("version: 1\nname: \"{long}").as_bytes(),
        "this is not YAML: unclosed quote",
    );
    refused(
        format!("version: 1\n{long}: 1").as_bytes(),
        "this is not YAML: ",
    );
    refused(format!("version: 1\ndefault: {long}").as_bytes(), "`aaa");
    refused(format!("version: 1\nallow: [{long}]").as_bytes(), "`aaa");
    refused(
        format!("version: 1\nallow: ['{}b']", "a.".repeat(size().octets / 2)).as_bytes(),
        "`a.a.",
    );
    refused(
        format!(
            "version: 1\nallow: ['{}b']",
            "a.b,".repeat(size().octets / 4)
        )
        .as_bytes(),
        "`a.b,",
    );
    refused(
        format!("version: 1\ntests: [allow: {long}]").as_bytes(),
        "this is not a destination",
    );
    let program = format!("version: 1\nallow: [{{host: a.example, by: ['/{long}']}}]");
    refused(program.as_bytes(), "`/aaa");
    let request = format!("version: 1\nallow: [{{host: a.example, http: ['GET /{long}']}}]");
    refused(request.as_bytes(), "`/aaa");
}

#[test]
fn a_long_line_says_nothing() {
    taken(
        &format!(
            "version: 1 #{}\nallow: [a.example]",
            "x".repeat(size().octets)
        ),
        1,
        "a.example",
    );
    taken(
        &format!(
            "version: 1{}\nallow: [a.example]",
            " ".repeat(size().octets)
        ),
        1,
        "a.example",
    );
    taken(
        &format!(
            "version: 1\nallow: [a.example]{}",
            "\n".repeat(size().octets)
        ),
        1,
        "a.example",
    );
    let ports = "443,".repeat(size().octets / 4);
    taken(
        &format!("version: 1\nallow: ['a.example:{ports}443']"),
        1,
        "a.example",
    );
}

#[test]
fn many_errors_are_counted_and_the_first_are_shown() {
    let keys: String = (0..size().entries).map(|n| format!("k{n}: 1\n")).collect();
    refused(
        format!("version: 1\n{keys}").as_bytes(),
        "a policy has no key `k0`",
    );
    let same = "name: a\n".repeat(size().entries);
    refused(
        format!("version: 1\n{same}").as_bytes(),
        "`name` stands here twice",
    );
    refused(
        format!("version: 1\nallow:\n{}", "- {}\n".repeat(size().entries)).as_bytes(),
        "the entry has neither",
    );
}

#[test]
fn what_is_no_text_is_refused() {
    refused(&vec![0xff; size().octets], "this is not UTF-8");
    let mut bad_end = format!("version: 1\n#{}", "x".repeat(size().octets)).into_bytes();
    bad_end.push(0xff);
    refused(&bad_end, "this is not UTF-8");
    refused(&vec![0; size().octets], "this is not YAML");
    refused(
        &vec![b'a'; 65 << 20],
        "a policy has at most 64 MiB, and this has 68157440 octets",
    );
    for sign in [
        "*", "&", "!", "%\n", "`", "@", "\"", "'", ":", ": ", "|", ">", "#", "---\n",
    ] {
        let text = sign.repeat(size().octets / 10 / sign.len());
        assert!(
            Policy::parse("policy.yaml", text.as_bytes()).is_err(),
            "{sign}"
        );
    }
}

/// Where each of many is to hold for each of many others, a short text would be a large policy.
#[test]
fn policies_of_other_systems_do_not_grow_either() {
    let list = |item: &dyn Fn(usize) -> String| (0..2_000).map(item).collect::<Vec<_>>().join(", ");
    let hosts = list(&|n| format!("h{n}.example"));
    let ports = list(&|n| (n + 1).to_string());
    let profile =
        format!("network: {{outbound: {{allow_host: [{hosts}], allow_port: [{ports}]}}}}");
    refused(
        profile.as_bytes(),
        "a profile can open at most 1000000 ports",
    );
    let binaries = list(&|n| format!("{{path: /b{n}}}"));
    let endpoints = list(&|n| format!("{{host: h{n}.example, port: 443}}"));
    let policies =
        format!("network_policies: {{a: {{binaries: [{binaries}], endpoints: [{endpoints}]}}}}");
    let first = "a network policy can open at most 100000 endpoints";
    refused(format!("version: 1\n{policies}").as_bytes(), first);
    let size = size().entries / 5;
    let allowed: String = (0..size)
        .map(|n| format!("  - a{n}.b{n}.example\n"))
        .collect();
    let denied: String = (0..size)
        .map(|n| format!("  - '*.b{n}.example'\n"))
        .collect();
    let default = "default:\n  name: d\n  project: p\n  action: open\n  allowed_domains:\n";
    let acl = format!("version: v1\nservices: []\nglobal_deny_list:\n{denied}{default}{allowed}");
    let entries = Policy::parse("acl.yaml", acl.as_bytes()).map(|parsed| parsed.policy.entries());
    assert_eq!(entries.ok(), Some(2 * size));
}
