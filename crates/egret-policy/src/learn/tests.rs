//! What is learnt, lesson by lesson, and from any: nothing is opened that is not public, and what was reached is.

use proptest::prelude::*;

use super::*;
use crate::{HostAddresses, Policy};

const PUBLIC: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(93, 184, 216, 34));

fn program(path: &str) -> Program {
    Program {
        executable: path.to_owned(),
        ancestors: Vec::new(),
    }
}

impl Lesson {
    fn with(mut self, host: &str, port: u16, times: u64, by: &str) -> Self {
        let program = program(by);
        let asked = Asked {
            host,
            port: Some(port),
            by: Some(&program).filter(|_| !by.is_empty()),
        };
        for _ in 0..times {
            self.reached(asked, "allowed.default_public", None, &[PUBLIC]);
        }
        self
    }
}

fn asked(host: &str, port: u16) -> Asked<'_> {
    Asked {
        host,
        port: Some(port),
        by: None,
    }
}

/// The entries with their comments, as they stand in a file.
fn entries(lesson: &Lesson, generalize: bool) -> String {
    let text = lesson.learnt(None, generalize).policy(None, &[]).unwrap();
    let (_, allow) = text.split_once("allow:\n").unwrap();
    allow.split("\n\n").next().unwrap().to_owned()
}

#[test]
fn entries_have_the_ports_that_were_used_and_say_what_for() {
    let lesson = Lesson::default()
        .with("registry.npmjs.org", 443, 57, "/usr/bin/node")
        .with("codeload.github.com", 443, 2, "/usr/bin/git")
        .with("codeload.github.com", 443, 1, "/usr/bin/curl")
        .with("github.com", 443, 3, "")
        .with("github.com", 80, 3, "/usr/bin/git")
        .with("db.example.com", 5432, 2, "/usr/bin/psql")
        .with("1.1.1.1", 443, 9, "/a/b\u{1b}[2J\nc")
        .with("2606:4700::1111", 853, 9, "");
    let expected = [
        "  - db.example.com:5432      # 2 connections by /usr/bin/psql",
        "  # LOOK: what goes to port 80 can be read and changed on the way",
        "  - github.com               # 6 connections by /usr/bin/git, others",
        "  - codeload.github.com:443  # 3 connections by /usr/bin/curl, /usr/bin/git",
        "  - registry.npmjs.org:443   # 57 connections by /usr/bin/node",
        "  # LOOK: a literal address, of which nobody knows whose it will be; allow a name if there is one",
        "  - 1.1.1.1:443              # 9 connections by /a/b\\u{1b}[2J\\nc",
        "  # LOOK: a literal address, of which nobody knows whose it will be; allow a name if there is one",
        "  - \"[2606:4700::1111]:853\"  # 9 connections",
    ];
    let expected = expected.join("\n");
    assert_eq!(entries(&lesson, true), expected);
}

#[test]
fn what_deserves_a_look_is_marked_and_why() {
    #[rustfmt::skip]
    let table = [
        ("a.example.com",            443,  1, "only one connection was made"),
        ("a.example.com",            6667, 2, "6667 is an unusual port"),
        ("evil.vercel.app",          443,  2, "anyone can get a name under vercel.app"),
        ("x.me.github.io",           443,  2, "anyone can get a name under github.io"),
        ("xn--bcher-kva.example.com", 443, 2, "it has letters beyond ASCII, which may look like others"),
        ("mzxw6ytboi2dg4tfmfza.example.com", 443, 2, "`mzxw6ytboi2dg4tfmfza` looks made up, and a name can carry data"),
        ("a.example.com",            443,  2, ""),
        ("a.example.com",            5432, 2, ""),
    ];
    for (host, port, times, expected) in table {
        let learnt = Lesson::default()
            .with(host, port, times, "")
            .learnt(None, false);
        let comment = learnt.additions[0].comment.clone().unwrap();
        let (marks, beside) = comment.rsplit_once('\n').unwrap_or(("", &comment));
        assert!(beside.ends_with("connection") || beside.ends_with("connections"));
        let marks = marks.replace('\n', " ");
        assert_eq!(marks.trim_start_matches("LOOK: "), expected, "{host}");
        assert_eq!(learnt.marked, usize::from(!expected.is_empty()));
    }
    let mut lesson = Lesson::default().with("a.example.com", 443, 2, "");
    lesson.ended(asked("a.example.com", 443), 3 << 20, false);
    assert!(entries(&lesson, false).contains("LOOK: 3 MiB were sent there"));
}

#[test]
fn a_wildcard_stands_for_three_siblings_under_a_name_of_somebodys() {
    let shards = |parent: &str| {
        let names = ["a", "b", "c"].map(|first| format!("{first}.{parent}"));
        names.iter().fold(Lesson::default(), |lesson, name| {
            lesson.with(name, 443, 2, "")
        })
    };
    let opened = |lesson: &Lesson| {
        let learnt = lesson.learnt(None, true);
        let entries = learnt.additions.into_iter().map(|addition| addition.entry);
        entries.collect::<Vec<_>>()
    };
    let cdn = shards("cdn.example.com");
    assert_eq!(opened(&cdn), ["*.cdn.example.com:443"]);
    assert_eq!(cdn.learnt(None, false).additions.len(), 3);
    assert!(
        entries(&cdn, true).starts_with(
            "  # LOOK: every name under cdn.example.com; seen were a.cdn.example.com, "
        )
    );
    // By the ports that enough have; another one stays where it was used.
    let more = shards("cdn.example.com")
        .with("a.cdn.example.com", 80, 1, "")
        .with("cdn.example.com", 443, 2, "");
    assert_eq!(
        opened(&more),
        [
            "cdn.example.com:443",
            "*.cdn.example.com:443",
            "a.cdn.example.com:80"
        ]
    );
    // Not where anyone can register, and not over what was refused.
    for parent in ["com", "co.uk", "github.io", "s3.amazonaws.com", "corp"] {
        assert_eq!(opened(&shards(parent)).len(), 3, "{parent}");
    }
    let mut refused = shards("cdn.example.com");
    refused.refused(
        asked("d.cdn.example.com", 443),
        "denied.address.private",
        None,
    );
    assert_eq!(opened(&refused).len(), 3);
    // Whoever makes up refused names until no more are kept gains nothing by it.
    let mut flood = shards("cdn.example.com");
    for n in 0..MOST_DESTINATIONS {
        flood.refused(
            asked(&format!("x{n}.evil.example"), 443),
            "denied.rule",
            None,
        );
    }
    flood.refused(asked("d.cdn.example.com", 443), "denied.rule", None);
    assert_eq!(opened(&flood).len(), 3);
}

#[test]
fn what_is_not_public_or_was_not_reached_is_told_and_not_opened() {
    let mut lesson = Lesson::default();
    for _ in 0..2 {
        let address = "10.0.0.5".parse().unwrap();
        lesson.reached(
            asked("10.0.0.5", 5432),
            "allowed.rule",
            Some("--allow"),
            &[address],
        );
    }
    let private: IpAddr = "10.0.0.7".parse().unwrap();
    lesson.reached(
        asked("db.corp.example", 5432),
        "allowed.rule",
        Some("base.yaml:7"),
        &[private, PUBLIC],
    );
    lesson.reached(
        asked("host.docker.internal", 5432),
        "allowed.host_gateway",
        None,
        &[],
    );
    lesson.failed(
        asked("telemetry.example.com", 443),
        "it has no address\n- x",
    );
    lesson.reached(
        asked("front.example.com", 443),
        "allowed.default_public",
        None,
        &[PUBLIC],
    );
    lesson.cut(asked("front.example.com", 443));
    let hint = Some("--allow-docker-gateway=22");
    for _ in 0..3 {
        lesson.refused(
            asked("host.docker.internal", 22),
            "denied.host_gateway",
            hint,
        );
    }
    lesson.refused(
        asked("169.254.169.254", 80),
        "denied.address.metadata",
        None,
    );
    lesson.refused(
        asked("a\nb: [c]", 80),
        "denied.malformed",
        Some("give it\n an entry"),
    );
    let learnt = lesson.learnt(None, true);
    assert_eq!(learnt.additions, []);
    let policy = learnt
        .policy(Some("x"), &["What it is.".to_owned()])
        .unwrap();
    let expected = "\
# What it is.

version: 1
name: x

tests:
  - deny: host.docker.internal
  - deny: 169.254.169.254:80
  - deny: 10.0.0.1

# Allowed while learning, and not opened here:
# - db.corp.example:5432 was allowed once, and is not opened: it is not public; base.yaml:7 opened
#   it, which has to be given again
# - front.example.com:443 was allowed once, and is not opened: each time what was said there was
#   not what may be
# - host.docker.internal:5432 was allowed once, and is not opened: it is not public;
#   `host_gateway` or its flag opened it, which has to be given again
# - telemetry.example.com:443 was allowed once, and is not opened: it has no address\\n- x
# - 10.0.0.5:5432 was allowed 2 times, and is not opened: it is not public; --allow opened it,
#   which has to be given again

# Refused while learning, and not opened here:
# - 169.254.169.254:80 was refused once: the destination is a cloud metadata service; nothing
#   opens it
# - host.docker.internal:22 was refused 3 times: the destination is the host that runs the
#   sandbox, which stays shut unless it is opened explicitly; --allow-docker-gateway=22 opens it
# - what was asked for once was no destination, or could be read in more than one way
";
    assert_eq!(policy, expected);
}

#[test]
fn a_flood_of_names_is_told_in_a_sentence() {
    let flood = (0..60).map(|n| format!("x{n}.evil.example.com"));
    let lesson = flood.fold(Lesson::default(), |lesson, name| {
        lesson.with(&name, 443, 1, "")
    });
    let lesson = lesson.with("a.example.org", 443, 2, "");
    let learnt = lesson.learnt(None, false);
    assert_eq!(learnt.additions.len(), 1);
    assert!(
        learnt.not_opened[0]
            .starts_with("60 names under evil.example.com were reached, more than the 50"),
        "{:?}",
        learnt.not_opened
    );
    let many = (0..600).map(|n| format!("a.d{n}.example"));
    let lesson = many.fold(lesson, |lesson, name| lesson.with(&name, 443, 1, ""));
    let learnt = lesson.learnt(None, false);
    assert_eq!(learnt.additions.len(), 500);
    assert!(
        learnt
            .additions
            .iter()
            .any(|addition| addition.entry == "a.example.org:443")
    );
    assert!(
        learnt.not_opened[1].starts_with("101 destinations more were reached"),
        "{:?}",
        learnt.not_opened
    );
    let mut lesson = Lesson::default();
    for n in 0..MOST_DESTINATIONS + 7 {
        lesson.failed(asked(&format!("x{n}.example.com"), 443), "x");
        lesson.refused(
            asked(&format!("x{n}.example.com"), 443),
            "denied.default",
            None,
        );
    }
    assert_eq!(
        (
            lesson.destinations.len(),
            lesson.refused.len(),
            lesson.beyond
        ),
        (MOST_DESTINATIONS, MOST_DESTINATIONS, 14)
    );
    let learnt = lesson.learnt(None, true);
    assert!(learnt.not_opened.len() < 50 && learnt.refused.len() < 50);
    assert!(learnt.policy(None, &[]).unwrap().len() < 20_000);
}

#[test]
fn what_a_policy_allows_already_is_not_added_to_it() {
    let policy = "version: 1\nallow:\n  - '*.example.com:443'\n  - host: a.example.org\n    by: [/usr/bin/curl]\n";
    let matcher = Policy::parse("p", policy.as_bytes())
        .unwrap()
        .policy
        .compile();
    let lesson = Lesson::default()
        .with("a.example.com", 443, 2, "/x")
        .with("a.example.com", 80, 2, "/x")
        .with("a.example.org", 443, 2, "/usr/bin/curl")
        .with("a.example.org", 80, 2, "/usr/bin/wget");
    let learnt = lesson.learnt(Some(&matcher), false);
    let added: Vec<_> = learnt
        .additions
        .iter()
        .map(|addition| addition.entry.as_str())
        .collect();
    assert_eq!(added, ["a.example.com:80", "a.example.org:80"]);
}

/// An event of a log that may say anything.
#[derive(Clone, Debug)]
struct Event {
    kind: u8,
    host: String,
    port: u16,
    text: String,
    address: IpAddr,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let host = prop_oneof![
        6 => "[a-d]\\.[a-c]\\.(example\\.com|github\\.io|com|co\\.uk|corp)",
        2 => "[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}",
        1 => prop::sample::select(vec!["host.docker.internal", "localhost", "metadata.google.internal", "169.254.169.254", "10.1.2.3", "::1", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "172.17.0.1", "fe80::1"]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
        1 => "[\\x00-\\x20\"':#\\-*\\[\\]{}a-b.\u{202e}\u{2028}\u{85}\u{feff}]{0,20}",
    ];
    let address =
        prop_oneof![4 => Just(PUBLIC), 1 => any::<u32>().prop_map(|bits| IpAddr::V4(bits.into()))];
    let text = "[\\x00-\\x7f\u{202e}\u{2028}\u{85}\u{fffe}]{0,16}";
    let event = (
        0..8u8,
        host,
        prop_oneof![Just(443), Just(80), any::<u16>()],
        text,
        address,
    );
    let event = event.prop_map(|(kind, host, port, text, address)| Event {
        kind,
        host,
        port,
        text,
        address,
    });
    prop::collection::vec(event, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nothing_is_opened_but_what_is_public_and_was_reached(events in events(), generalize: bool) {
        let mut lesson = Lesson::default();
        let mut reached = Vec::new();
        for Event { kind, host, port, text, address } in &events {
            let program = program(text);
            let asked = Asked { host, port: Some(*port), by: Some(&program).filter(|_| kind % 2 == 0) };
            match kind {
                0..=4 => {
                    lesson.reached(asked, "allowed.default_public", Some(text), &[*address]);
                    reached.push((Destination::parse(host, &port.to_string()), *address));
                }
                5 => lesson.failed(asked, text),
                6 => lesson.refused(asked, text, Some(text)),
                _ => lesson.refused(asked, "denied.rule", None),
            }
        }
        let text = lesson.learnt(None, generalize).policy(Some("x"), &[]).unwrap();
        prop_assert!(!text.contains(|c| c != '\n' && crate::is_hidden(c)), "{text:?}");
        let policy = Policy::parse("p", text.as_bytes()).unwrap().policy;
        prop_assert!(!policy.opens_by_default() && !policy.opens_host_gateway(), "{text}");
        let (matcher, hosts) = (policy.compile(), HostAddresses::new([]));
        let public = |address: &IpAddr| class_of(*address) == Class::Public;
        for (to, _) in &reached {
            let Ok(to) = to else { continue };
            let Ok(permit) = matcher.decide(to, None, &hosts) else {
                // What was reached is opened, if everything it led to was public.
                let all_public = reached.iter().filter(|(other, _)| other.as_ref() == Ok(to)).all(|(_, address)| public(address));
                let known = match to.target() {
                    Target::Address(address) => public(address),
                    Target::Name(name) => crate::names::special_str(name.as_str()).is_none(),
                };
                prop_assert!(!(all_public && known), "{to} is not opened\n{text}");
                continue;
            };
            // And never leads elsewhere.
            for address in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "172.17.0.1", "::1", "fd12::1"] {
                let mut permit = matcher.decide(to, None, &hosts).unwrap();
                prop_assert!(permit.vet(&[address.parse().unwrap()], &hosts).is_err(), "{to}\n{text}");
            }
            prop_assert!(permit.rule().is_some());
        }
        // A stranger is not let in.
        for other in ["stranger.example.net:443", "x.github.io:443", "y.com:443", "z.co.uk:443", "q.corp:443", "93.184.216.35:443"] {
            let to = Destination::from_authority(other, None).unwrap();
            let was_reached = reached.iter().any(|(reached, _)| reached.as_ref() == Ok(&to));
            prop_assert!(was_reached || matcher.decide(&to, None, &hosts).is_err(), "{other}\n{text}");
        }
    }
}
