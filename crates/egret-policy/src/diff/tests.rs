use proptest::prelude::*;

use super::*;
use crate::explain::Question;
use crate::{Destination, Program, Verdict};

fn policy(text: &str) -> Policy {
    let text = format!("version: 1\n{text}");
    Policy::parse("p.yaml", text.as_bytes())
        .unwrap_or_else(|errors| panic!("{errors}"))
        .policy
}

/// A difference in words: `+` for what is gained, `-` for what is lost.
fn said(old: &str, new: &str) -> Vec<String> {
    let difference = policy(old).diff(&policy(new));
    assert!(difference.complete);
    let say = |sign: &str, change: &Change| {
        let mut text = format!("{sign} {}", change.destination);
        let mut add = |part: String| text = format!("{text} {part}");
        if change.ports.len() > 1 || change.other_ports {
            let other = if change.other_ports { "+other" } else { "" };
            let ports: Vec<_> = change.ports.iter().map(u16::to_string).collect();
            add(format!("({}{other})", ports.join(",")));
        }
        change.by.iter().for_each(|by| add(format!("by {by}")));
        let under = change.under.iter();
        under.for_each(|by| add(format!("under {by}")));
        change
            .requests
            .iter()
            .for_each(|request| add(format!("[{request}]")));
        change
            .resolves_to
            .iter()
            .for_each(|address| add(format!("at {address}")));
        text
    };
    let gained = difference.gained.iter().map(|change| say("+", change));
    let lost = difference.lost.iter().map(|change| say("-", change));
    let files = difference.filesystem.iter();
    let files = files.map(|file| format!("{} {}: {}", file.change, file.list, file.path));
    gained.chain(lost).chain(files).collect()
}

#[test]
fn a_difference_is_one_of_meaning() {
    #[rustfmt::skip]
    let table: &[(&str, &str, &[&str])] = &[
        ("", "", &[]),
        ("name: x\nallow: [a.test, b.test]", "allow: [{host: B.test., reason: y}, 'a.test:443,80']\ntests: [{allow: a.test}]", &[]),
        ("allow: ['.a.test']", "allow: [a.test, '**.a.test']", &[]),
        ("allow: [x.a.test, '*.a.test']", "allow: ['*.a.test']", &[]),
        ("allow: [a.test]\ndeny: [a.test]", "", &[]),
        ("allow: [10.0.0.0/9, 10.128.0.0/9]", "allow: [10.0.0.0/8]", &[]),
        ("host_gateway: deny", "", &[]),
        ("", "allow: [a.test]", &["+ a.test:443 (80,443)"]),
        ("allow: [a.test]", "", &["- a.test:443 (80,443)"]),
        ("allow: [a.test]", "allow: ['a.test:443']", &["- a.test:80"]),
        ("allow: ['a.test:443']", "allow: ['a.test:443,8443']", &["+ a.test:8443"]),
        ("allow: ['*.a.test:443']", "allow: ['**.a.test:443']", &["+ any.any.a.test:443"]),
        ("allow: ['**.a.test:443']", "allow: ['.a.test:443']", &["+ a.test:443"]),
        ("allow: ['.a.test:443']", "allow: ['.a.test:443']\ndeny: [x.a.test]", &["- x.a.test:443"]),
        ("allow: ['.a.test:443']", "allow: ['.a.test:443']\ndeny: ['api-*.a.test']", &["- api-any.a.test:443"]),
        ("", "default: allow-public", &["+ any.example:443 (80,443+other)", "+ 1.1.1.1:443 (80,443+other)", "+ [2606:4700::1111]:443 (80,443+other)"]),
        ("allow: ['a.test:443']", "default: allow-public\nallow: ['a.test:443']", &["+ any.example:443 (80,443+other)", "+ 1.1.1.1:443 (80,443+other)", "+ [2606:4700::1111]:443 (80,443+other)"]),
        ("default: allow-public", "default: allow-public\ndeny: [x.test]", &["- x.test:443 (80,443+other)"]),
        ("", "host_gateway: [5432]", &["+ host.docker.internal:5432"]),
        ("", "allow: ['host.docker.internal:81']", &["+ host.docker.internal:81"]),
        ("allow: ['a.test:443']", "allow: [{host: a.test, ports: [443], addresses: [10.0.0.0/8]}]", &["+ a.test:443 at 10.0.0.0"]),
        ("allow: ['a.test:443']", "allow: ['a.test:443']\ndeny: ['9.0.0.0/8']", &["- a.test:443 at 9.0.0.0"]),
        ("allow: ['a.test:443']", "allow: [{host: a.test, ports: [443], by: [/x]}]", &["- a.test:443 by /any/other/program"]),
        ("", "allow: [{host: a.test, ports: [443], by: [/x]}]", &["+ a.test:443 by /x"]),
        ("allow: [{host: a.test, ports: [443], by: [/x]}]", "allow: [{host: a.test, ports: [443], under: [/x]}]", &["+ a.test:443 by /any/other/program under /x"]),
        ("allow: ['a.test:80']", "allow: [{host: a.test, ports: [80], http: [GET /a]}]", &["- a.test:80 [anything but HTTP] [OTHER /a] [GET /any/other/path] [OTHER /any/other/path]"]),
        ("allow: [{host: a.test, ports: [80], http: [GET /a/**]}]", "allow: [{host: a.test, ports: [80], http: [GET /a/**]}]\ndeny: [{host: a.test, http: ['* /**/z']}]", &["- a.test:80 [GET /a/z]"]),
        ("allow: [10.0.0.0/8]\ndeny: [10.1.0.0/16]", "allow: [10.0.0.0/8]", &["+ 10.1.0.0:443 (80,443)"]),
        ("filesystem: {write: [a, b]}", "filesystem: {write: [b], read: [c]}", &["added read: c", "removed write: a"]),
    ];
    for (old, new, expected) in table {
        assert_eq!(said(old, new), *expected, "{old:?} to {new:?}");
    }
}

#[test]
fn what_patterns_with_wildcards_inside_share_is_tried() {
    #[rustfmt::skip]
    let table: &[(&str, &str, &[&str])] = &[
        ("allow: ['a*.t.test:1']\ndeny: ['*z.t.test']", "allow: ['a*.t.test:1']", &["+ anyz.t.test:1"]),
        ("allow: ['*.s3.*.t.test:1']\ndeny: ['**.eu.t.test']", "allow: ['*.s3.*.t.test:1']", &["+ any.s3.eu.t.test:1"]),
    ];
    for (old, new, expected) in table {
        assert_eq!(said(old, new), *expected, "{old:?} to {new:?}");
    }
}

/// Differences that are easily overlooked.
#[test]
fn every_kind_is_asked_about() {
    #[rustfmt::skip]
    let table: &[(&str, &str, &[&str])] = &[
        // Networks that begin with what is never opened.
        ("", "allow: [{address: 0.0.0.0/0, ports: [1]}]", &["+ 1.0.0.0:1", "+ 10.0.0.0:1", "+ 192.0.0.0:1"]),
        ("", "allow: [{address: 0.0.0.0/1, ports: [1]}]", &["+ 1.0.0.0:1", "+ 10.0.0.0:1"]),
        ("", "allow: [{address: '::/0', ports: [1]}]", &["+ [::100:0]:1", "+ [::a00:0]:1", "+ [64:ff9b::100:0]:1"]),
        ("", "allow: [{address: '64:ff9b::/96', ports: [1]}]", &["+ [64:ff9b::100:0]:1", "+ [64:ff9b::a00:0]:1", "+ [64:ff9b::c000:0]:1"]),
        ("default: allow-public", "default: allow-public\ndeny: ['0.0.0.0/0']", &["- any.example:443 (80,443+other) at 1.0.0.0", "- 1.0.0.0:443 (80,443+other)"]),
        ("HOST", "HOST, addresses: [0.0.0.0/0]", &["+ a.test:80 at 10.0.0.0", "+ a.test:80 at 192.0.0.0"]),
        ("HOST", "HOST, addresses: ['::/0']", &["+ a.test:80 at ::100:0", "+ a.test:80 at ::a00:0"]),
        ("HOST", "HOST, addresses: ['64:ff9b::/96']", &["+ a.test:80 at 64:ff9b::a00:0", "+ a.test:80 at 64:ff9b::c000:0"]),
        ("HOST, only_addresses: [9.0.0.0/8]", "HOST, only_addresses: [9.0.0.0/8, 168.0.0.0/6]", &["+ a.test:80 at 168.0.0.0"]),
        // Requests.
        ("HOST, http: [GET /p0, GET /p1]", "HOST, http: [GET /p0, GET /p1, GET /zzz, POST /zzz/**]", &["+ a.test:80 [GET /zzz] [POST /zzz] [POST /zzz/]"]),
        ("HOST, http: [GET /, GET /*, GET /*/*, GET /*/*/*]", "HOST, http: [GET /**]", &["+ a.test:80 [GET /any/]"]),
        ("HOST, http: [GET /a, GET /a/**/*]", "HOST, http: [GET /a/**]", &["+ a.test:80 [GET /a/]"]),
        ("HOST, http: [GET /any]", "HOST, http: [GET /*]", &["+ a.test:80 [GET /any1]"]),
        ("HOST, http: [GET /aany]", "HOST, http: [GET /a*]", &["+ a.test:80 [GET /any]"]),
        ("HOST, http: ['GET,OTHER /x']", "HOST, http: ['* /x']", &["+ a.test:80 [OTHER1 /x]"]),
        ("HOST, http: [GET /any/other/path]", "HOST, http: [GET /**]", &["+ a.test:80 [GET /]"]),
        // Programs.
        ("HOST, by: [/usr/bin/any]", "HOST, by: ['/usr/bin/*']", &["+ a.test:80 by /usr/bin/any1"]),
        ("HOST, by: [/any/other/program]", "HOST", &["+ a.test:80 by /any"]),
        ("HOST, by: ['/**']", "HOST", &["+ a.test:80 by a program that cannot be told"]),
        ("HOST2, by: ['/u/**']}]\ndeny: [{address: 9.0.0.0/8, ports: [8080], by: ['/**/a']}]", "HOST2, by: ['/u/**']}]\ndeny: [{address: 9.0.0.0/8, ports: any, by: ['/**/a']}]", &["- any.ex.com:443 (80,443+other) by /u/a at 9.0.0.0"]),
        ("HOST2, under: [/u/a]}]\ndeny: [{host: '*.ex.com', http: ['GET /x'], under: [/u/b]}]", "HOST2, under: [/u/a]}]\ndeny: [{host: '**.ex.com', http: ['GET /x'], under: [/u/b]}]", &["- any.any.ex.com:443 (80,443+other) by /u/a under /u/b [GET /x]", "- any.any.ex.com:443 (80,443+other) by /u/a under /u/b [anything but HTTP]"]),
        ("NAMES", "NAMES\ndeny: [{address: 9.0.0.0/8, by: [/q]}]", &["- z.test:80 by /q at 9.0.0.0", "- z.test:80 by a program that cannot be told at 9.0.0.0"]),
    ];
    let names: Vec<_> = (0..8)
        .map(|n| format!("{{host: h{n}.test, by: [/p]}}"))
        .collect();
    let names = format!("allow: [{}, 'z.test:80']", names.join(", "));
    let whole = |text: &str| {
        if let Some(rest) = text.strip_prefix("HOST2") {
            return format!("allow: [{{host: '**.ex.com', ports: any{rest}");
        }
        if let Some(rest) = text.strip_prefix("HOST") {
            return format!("allow: [{{host: a.test, ports: [80]{rest}}}]");
        }
        text.replace("NAMES", &names)
    };
    for (old, new, expected) in table {
        let (old, new) = (whole(old), whole(new));
        assert_eq!(said(&old, &new), *expected, "{old:?} to {new:?}");
        assert_eq!(said(&new, &old).len(), expected.len(), "{new:?} to {old:?}");
    }
}

fn entry() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        "[ab]\\.t\\.test",
        "\\*\\.[ab]\\.test",
        "\\*\\*\\.[ab]\\.test",
        "\\.[ab]\\.t\\.test",
        "[ab]\\*\\.t\\.test",
        "\\*[ab]\\.t\\.test",
        "\\*\\.[ab]\\.\\*\\.test",
        Just("host.docker.internal".to_owned()),
    ];
    let host = host.prop_map(|host| format!("host: '{host}'"));
    let net = prop_oneof![Just("9.0.0.0/8"), Just("9.9.0.0/16"), Just("10.0.0.0/8")];
    let what = prop_oneof![6 => host, 1 => net.prop_map(|net| format!("address: {net}"))];
    let ports = prop_oneof![Just("[1]"), Just("[2]"), Just("[1, 2]")];
    let narrow = prop_oneof![
        5 => Just(""), 1 => Just(", by: [/x]"), 1 => Just(", under: ['/y/**']"), 1 => Just(", by: ['/y/*']"),
    ];
    (what, ports, narrow)
        .prop_map(|(what, ports, narrow)| format!("{{{what}, ports: {ports}{narrow}}}"))
}

fn a_policy() -> impl Strategy<Value = String> {
    let http = prop_oneof![6 => Just(""), 1 => Just(", http: ['GET /a/**']"), 1 => Just(", http: ['* /**/b']")];
    let allow = prop::collection::vec((entry(), http.clone()), 0..4);
    let deny = prop::collection::vec((entry(), http), 0..3);
    let default = prop_oneof![3 => Just("deny"), 1 => Just("allow-public")];
    (default, allow, deny).prop_map(|(default, allow, deny)| {
        let with = |(entry, http): &(String, &str)| match entry.contains("address") {
            true => entry.clone(),
            false => entry.replace('}', &format!("{http}}}")),
        };
        let list = |key: &str, entries: &[(String, &str)]| match entries {
            [] => String::new(),
            entries => format!(
                "\n{key}: [{}]",
                entries.iter().map(with).collect::<Vec<_>>().join(", ")
            ),
        };
        format!(
            "default: {default}{}{}",
            list("allow", &allow),
            list("deny", &deny)
        )
    })
}

/// What a policy says to a question, by the explanation, which is another way through the crate.
fn verdict(policy: &Policy, to: &str, by: &Program, request: (&str, &str), at: &str) -> bool {
    let explanation = policy.compile().explain(&Question {
        to: &Destination::from_user(to).unwrap(),
        by: Some(by),
        request: Some(request),
        resolves_to: Some(&[at.parse().unwrap()]),
        hosts: &HostAddresses::new([]),
    });
    explanation.verdict != Verdict::Deny
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn policies_without_a_difference_decide_alike(old in a_policy(), new in a_policy()) {
        let (old, new) = (policy(&old), policy(&new));
        prop_assert!(old.diff(&old.clone()).is_none());
        let there = old.diff(&new);
        let back = new.diff(&old);
        prop_assert_eq!(there.gained.is_empty(), back.lost.is_empty());
        prop_assert_eq!(there.lost.is_empty(), back.gained.is_empty());
        if !there.is_none() {
            return Ok(());
        }
        let program = |executable: &str, ancestors: &[&str]| Program {
            executable: executable.to_owned(),
            ancestors: ancestors.iter().map(|path| (*path).to_owned()).collect(),
        };
        let programs = [program("/x", &[]), program("/y/b", &[]), program("/z", &["/y/c/d"]), program("/z", &[])];
        let names = ["a.t.test", "b.t.test", "ab.t.test", "ba.t.test", "x.a.t.test", "x.a.test", "x.y.b.test", "x.b.c.test", "q.test", "host.docker.internal", "9.1.1.1", "9.9.1.1", "10.1.1.1", "8.8.8.8"];
        for name in names {
            for port in [1, 2, 3] {
                for by in &programs {
                    for request in [("GET", "/a/x"), ("PUT", "/a/b"), ("GET", "/c")] {
                        for at in ["8.8.8.8", "9.9.9.9", "10.0.0.1"] {
                            let at = if name.starts_with("host") { "172.17.0.1" } else { at };
                            let to = format!("{name}:{port}");
                            prop_assert_eq!(verdict(&old, &to, by, request, at), verdict(&new, &to, by, request, at), "{} {:?} {:?} {}", to, by, request, at);
                        }
                    }
                }
            }
        }
    }
}
