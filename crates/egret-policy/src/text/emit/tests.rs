//! What a policy looks like when it is written, and that nothing is lost.

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Policy {
    Policy::parse("p.yaml", text.as_bytes())
        .unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
        .policy
}

#[test]
fn everything_that_a_policy_says_is_written() {
    let text = "\
version: 1
name: \"10\"
default: allow-public

allow:
  - api.github.com
  - \"*.pkg.example:443\"
  - a.example:80,8080
  - \"[2001:db8::/32]:443\"
  - 203.0.113.7
  - host: db.corp.example
    ports: [5432]
    addresses: [10.20.0.0/16, 10.30.0.1]
    reason: \"what: it is for\"
  - host: every.example
    ports: any
  - host: api.example.com
    by: [/usr/bin/curl, /opt/agent/**]
    under: [/usr/local/bin/claude]
    http:
      - GET,HEAD /v1/**
      - \"* /v1/items\"
  - address: 203.0.113.0/24
    reason: |
      two
      lines

deny:
  - gist.github.com
  - \"**.ngrok.io:22\"
  - host: api.example.com
    http:
      - DELETE /**

host_gateway: [5432, 11434]
inbound: [app.example, .corp.example, 192.168.1.7, 2001:db8::7]

filesystem:
  read: [~/.gitconfig]
  write: [./out, \"a b #c\", /srv/data:/data]

tests:
  - allow: api.github.com:443
  - deny: https://api.example.com/
    by: /usr/bin/wget
    request: GET /v1/x
    resolves_to: [203.0.113.9, \"2001:db8::1\"]
";
    let written = parsed(text).to_yaml(&[]).unwrap();
    assert_eq!(
        written,
        text.replace("\"2001:db8::1\"]", "2001:db8::1]"),
        "{written}"
    );
    let formatted = crate::format_policy("p.yaml", written.as_bytes()).unwrap();
    assert_eq!(formatted, written);
}

#[test]
fn what_says_more_than_it_has_to_is_written_shortly() {
    #[rustfmt::skip]
    let table = [
        ("default: deny",                                     ""),
        ("host_gateway: deny",                                ""),
        ("host_gateway: allow",                               "host_gateway: allow\n"),
        ("allow: [{host: A.Example.}]",                       "\nallow:\n  - a.example\n"),
        ("allow: [{host: a.example, ports: [443, 80, 80]}]",  "\nallow:\n  - a.example:80,443\n"),
        ("allow: [{address: '2001:db8::1', ports: [1]}]",     "\nallow:\n  - \"[2001:db8::1]:1\"\n"),
        ("allow: [bücher.example]",                           "\nallow:\n  - xn--bcher-kva.example\n"),
        ("deny: [{host: a.example, ports: any}]",             "\ndeny:\n  - a.example\n"),
        ("allow: [{host: a.example, http: [read-only]}]",     "\nallow:\n  - host: a.example\n    http:\n      - GET,HEAD,OPTIONS /**\n"),
    ];
    for (text, expected) in table {
        let written = parsed(&format!("version: 1\n{text}")).to_yaml(&[]).unwrap();
        assert_eq!(written, format!("version: 1\n{expected}"), "{text}");
    }
}

#[test]
fn comments_stand_above_the_policy() {
    let long = format!("- {}", ["word"; 30].join(" "));
    let written = parsed("version: 1")
        .to_yaml(&["One.\n".to_owned(), long])
        .unwrap();
    let lines: Vec<_> = written.lines().collect();
    assert_eq!((lines[0], lines[3], lines[4]), ("# One.", "", "version: 1"));
    assert!(
        lines[1].len() <= 100 && lines[2].starts_with("#   word"),
        "{written}"
    );
}

#[test]
fn flags_are_written_like_entries() {
    let mut policy = Policy::deny_all();
    policy.add_allow_flag("a.example:8443").unwrap();
    policy.add_deny_flag("*.b.example").unwrap();
    let written = policy.to_yaml(&[]).unwrap();
    assert_eq!(
        written,
        "version: 1\n\nallow:\n  - a.example:8443\n\ndeny:\n  - \"*.b.example\"\n"
    );
}

#[test]
fn what_the_language_has_no_form_for_is_an_error() {
    let text = b"version: 1\nfilesystem_policy: {read_write: ['/srv/a:/b']}";
    let errors = Policy::parse("p", text).unwrap().policy.to_yaml(&[]);
    let errors = errors.unwrap_err();
    let said = errors.errors()[0].message();
    assert_eq!(said, "`/srv/a:/b` has a colon in its name");

    let mut policy = Policy::deny_all();
    policy.name = Some("a\u{7}".to_owned());
    let errors = policy.to_yaml(&[]).unwrap_err();
    assert_eq!(errors.errors()[0].message(), "this cannot name a policy");
    assert!(!says_the_same(
        &parsed("version: 1"),
        &parsed("version: 1\nallow: [a.example]")
    ));
}

/// Parts of entries and of policies, in every combination.
pub(crate) fn policy() -> impl Strategy<Value = String> {
    let some = |texts: &'static [&'static str]| prop_oneof![Just(""), prop::sample::select(texts)];
    let what = prop::sample::select(
        &[
            "host: a.example",
            "host: '*.b.example'",
            "host: '**.c.example'",
            "host: .d.example",
            "host: 'x-*.e.example'",
            "host: host.docker.internal",
            "host: '*.s3.*.f.example'",
            "address: 203.0.113.7",
            "address: 10.0.0.0/8",
            "address: '2001:db8::/32'",
            "address: '2001:db8::1'",
        ][..],
    );
    let ports = some(&[
        ", ports: [1]",
        ", ports: [443, 80]",
        ", ports: any",
        ", ports: [65535, 1, 2]",
    ]);
    let by = some(&[
        ", by: [/usr/bin/a]",
        ", by: [/b/**, /c], under: [/d*]",
        ", under: [/e, \"/f g\"]",
    ]);
    let http = some(&[
        ", http: [read-only]",
        ", http: [full, 'GET,PUT /a/*/b']",
        ", http: ['* /**']",
    ]);
    let note = "[ -~áß\n]{0,20}".prop_map(|text| serde_json::to_string(&text).unwrap());
    let note = prop_oneof![
        Just(String::new()),
        note.prop_map(|note| format!(", reason: {note}"))
    ];
    let addresses = some(&[
        ", addresses: [10.0.0.0/8]",
        ", addresses: ['fd00::/8', 172.20.0.1]",
        ", only_addresses: [8.8.8.8]",
    ]);
    let entry = (what, ports, by, http, note, addresses).prop_map(
        |(what, ports, by, http, note, addresses)| {
            let for_name = what.starts_with("host: ") && !what.contains("docker");
            let addresses = if for_name { addresses } else { "" };
            (
                format!("{{{what}{ports}{by}{http}{note}"),
                addresses,
                for_name,
            )
        },
    );
    let entries = prop::collection::vec((entry, any::<bool>()), 0..5).prop_map(|entries| {
        let (mut allow, mut deny) = (String::new(), String::new());
        for ((entry, addresses, for_name), allowed) in entries {
            match allowed {
                true => allow += &format!("  - {entry}{addresses}}}\n"),
                false if for_name || !entry.contains("http:") => {
                    deny += &format!("  - {entry}}}\n")
                }
                false => {}
            }
        }
        let list = |key: &str, entries: String| match entries.is_empty() {
            true => entries,
            false => format!("{key}:\n{entries}"),
        };
        list("allow", allow) + &list("deny", deny)
    });
    let rest = [
        some(&["name: x\n", "name: 'a: b'\n", "name: \"no\"\n"]),
        some(&[
            "default: allow-public\n",
            "default: deny\n",
            "default: allow-public:8443,1\n",
        ]),
        some(&[
            "host_gateway: allow\n",
            "host_gateway: deny\n",
            "host_gateway: [2, 1, 2]\n",
        ]),
        some(&[
            "inbound: [A.Example, '*.b.example', .c.example, 10.0.0.1, '2001:DB8::1']\n",
            "inbound: ['[::1]', 'x-*.e.example', a.example, a.example]\n",
        ]),
        some(&[
            "filesystem: {read: ['~', '#x'], hide: [\"a\\tb\"]}\n",
            "filesystem: {write: ['-', '~/x:/y z', './a:/b//c/', '/d:/d']}\n",
        ]),
        some(&[
            "tests: [{allow: a.example}, {deny: '10.0.0.1:1', by: /x, request: 'GET /?a', resolves_to: [::1]}]\n",
        ]),
    ];
    (entries, rest).prop_map(|(entries, rest)| format!("version: 1\n{entries}{}", rest.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_written_is_the_same_policy_and_formatted(text in policy()) {
        let policy = parsed(&text);
        // That it is the same is checked in there.
        let written = policy.to_yaml(&[]).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let formatted = crate::format_policy("p", written.as_bytes()).unwrap();
        prop_assert_eq!(&formatted, &written, "{}", text);
        prop_assert_eq!(&parsed(&written).to_yaml(&[]).unwrap(), &written);
    }
}
