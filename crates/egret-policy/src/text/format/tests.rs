//! What the layout is, row by row, and for any policy: formatting twice is formatting once, and nothing is lost.

use proptest::prelude::*;

use super::*;
use crate::text::tests::examples_of_the_guide;

/// Formats a text that is a policy, and formats it again.
#[track_caller]
fn formatted(text: &str) -> String {
    let once = format_policy("p.yaml", text.as_bytes())
        .unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"));
    let twice = format_policy("p.yaml", once.as_bytes()).unwrap();
    assert_eq!(once, twice, "formatted twice:\n{text}");
    once
}

#[test]
fn values_have_one_layout() {
    #[rustfmt::skip]
    let table = [
        // The order of keys, at the top and inside.
        ("allow: [a.b]\nversion: 1",                             "version: 1\nallow: [a.b]\n"),
        ("version: 1\nallow: [{reason: x, ports: [1], host: a.b}]", "version: 1\nallow: [{host: a.b, ports: [1], reason: x}]\n"),
        ("filesystem: {hide: [a], read: [b]}\nversion: 1",        "version: 1\nfilesystem: {read: [b], hide: [a]}\n"),
        ("filesystem: {hide: [a]}\ninbound: ['.a.example', \"b.example\"]\nhost_gateway: allow\nversion: 1",
            "version: 1\nhost_gateway: allow\ninbound: [.a.example, b.example]\nfilesystem: {hide: [a]}\n"),
        // Indentation, and blank lines around what takes several.
        ("version: 1\nallow:\n- a.b\n-   host: c.d\n    ports:\n        - 1\n", "version: 1\n\nallow:\n  - a.b\n  - host: c.d\n    ports:\n      - 1\n"),
        ("version: 1\n\n\n\nname: x\n\nallow:\n\n  - a.b\n\n\n  - c.d\nhost_gateway: allow\n", "version: 1\n\nname: x\n\nallow:\n  - a.b\n\n  - c.d\n\nhost_gateway: allow\n"),
        ("version:   1\r\nname:\r\n  x\r\nallow: [ a.b,c.d, ]\r\n", "version: 1\nname: x\nallow: [a.b, c.d]\n"),
        ("\u{feff}--- {version: 1, allow: [a.b]}\n...\n",         "version: 1\nallow: [a.b]\n"),
        // A list that was broken into lines is one with dashes.
        ("version: 1\nallow: [\n  a.b,\n  c.d,\n]\n",             "version: 1\n\nallow:\n  - a.b\n  - c.d\n"),
        // Quotes where they are needed.
        ("version: 1\nname: 'x'\nallow: ['*.a.b', \"c.d:80,443\", 'e.f']\n", "version: 1\nname: x\nallow: [\"*.a.b\", \"c.d:80,443\", e.f]\n"),
        ("version: 1\nname: '10'\nallow:\n  - \"c.d:80,443\"\n  - '[2001:db8::1]:443'\n", "version: 1\nname: \"10\"\n\nallow:\n  - c.d:80,443\n  - \"[2001:db8::1]:443\"\n"),
        ("version: 1\nname: no\n",                                "version: 1\nname: \"no\"\n"),
        ("version: 1\nname: \"a: b\"\n",                          "version: 1\nname: \"a: b\"\n"),
        ("version: 1\nname: \"\\\"b\\\" \\\\ it's\"\n",        "version: 1\nname: '\"b\" \\ it''s'\n"),
        ("version: 1\nfilesystem: {read: ['~/x', '~', '-', '- a', '#b', 'c#d', 'e #f', \"g\\tá\"]}\n",
            "version: 1\nfilesystem: {read: [~/x, \"~\", \"-\", \"- a\", \"#b\", c#d, \"e #f\", \"g\\tá\"]}\n"),
        // Texts of several lines.
        ("version: 1\nallow:\n- host: a.b\n  reason: |\n         one\n           two\n\n         three\n", "version: 1\n\nallow:\n  - host: a.b\n    reason: |\n      one\n        two\n\n      three\n"),
        ("version: 1\nallow: [{host: a.b, reason: \"x\\n\"}]",      "version: 1\nallow: [{host: a.b, reason: \"x\\n\"}]\n"),
        ("version: 1\nallow:\n- host: a.b\n  reason: one\n    two\n", "version: 1\n\nallow:\n  - host: a.b\n    reason: one two\n"),
    ];
    for (text, expected) in table {
        assert_eq!(formatted(text), expected, "{text}");
    }
}

#[test]
fn long_lists_are_broken_and_long_texts_folded() {
    let items: Vec<String> = (0..20).map(|n| format!("host{n}.example")).collect();
    let list = formatted(&format!("version: 1\nallow: [{}]", items.join(", ")));
    assert_eq!(
        list,
        format!("version: 1\n\nallow:\n  - {}\n", items.join("\n  - "))
    );
    let words = ["word"; 40].join(" ");
    let text = formatted(&format!(
        "version: 1\nallow:\n- host: a.b\n  reason: >-\n    {words}\n"
    ));
    let line = ["word"; 15].join(" ");
    let folded = format!(
        "      {line}\n      {line}\n      {}\n",
        ["word"; 10].join(" ")
    );
    assert_eq!(
        text,
        format!("version: 1\n\nallow:\n  - host: a.b\n    reason: >-\n{folded}")
    );
}

#[test]
fn comments_stay_with_what_they_are_about() {
    let text = "\
# All of it.

# What may be reached.
allow: # behind the key
- a.b      # behind a
# before c
-   c.d
# - e.f

# before the mapping
- # behind the dash
    # before the key
    host: g.h # behind the host
    ports: [1, # the first
      2
      # the end of the ports
    ]
    # the end of the mapping
# before deny
deny: [i.j] # behind deny

# before the version
version: 1    # behind the version
filesystem:
    read: [a]
    # write: [b]
# before the name

name: x
# the end
";
    let expected = "\
# All of it.

# before the version
version: 1    # behind the version
# before the name

name: x

# What may be reached.
allow:  # behind the key
  - a.b    # behind a
  # before c
  - c.d
  # - e.f

  # before the mapping
  # behind the dash
  # before the key
  - host: g.h  # behind the host
    ports:
      - 1  # the first
      - 2
      # the end of the ports
    # the end of the mapping

# before deny
deny: [i.j]  # behind deny

filesystem:
  read: [a]
  # write: [b]
# the end
";
    let formatted = formatted(text);
    assert_eq!(formatted, expected, "{formatted}");
}

#[test]
fn json_stays_json() {
    let text = "{\"allow\":[\"a.b\",{\"ports\":[443,80],\"host\":\"*.c.d\"}],\n\t\"version\":1, \"name\":\"\\u001f\\u00e9\\u2028\\\"\"}";
    let text = text.replace("\\u001f", "").replace("\\u2028", "");
    let expected = "{\n  \"version\": 1,\n  \"name\": \"é\\\"\",\n  \"allow\": [\"a.b\", {\"host\": \"*.c.d\", \"ports\": [443, 80]}]\n}\n";
    assert_eq!(formatted(&text), expected);
    let long = format!(
        "{{\"version\": 1, \"allow\": [\"{}\", \"b.c\"]}}",
        ["x"; 60].join(".")
    );
    let expected = format!(
        "{{\n  \"version\": 1,\n  \"allow\": [\n    \"{}\",\n    \"b.c\"\n  ]\n}}\n",
        ["x"; 60].join(".")
    );
    assert_eq!(formatted(&long), expected);
    assert!(serde_json::from_str::<serde_json::Value>(&formatted(&long)).is_ok());
    // What has comments or words without quotes is YAML.
    assert_eq!(
        formatted("{\"version\": 1, \"allow\": [a.b]}"),
        "version: 1\nallow: [a.b]\n"
    );
    assert_eq!(formatted("{\"version\": 1} # x"), "version: 1\n# x\n");
}

#[test]
fn what_is_no_policy_of_egrets_is_not_formatted() {
    let broken = format_policy("p.yaml", b"version: 1\nalow: [a.b]").unwrap_err();
    assert_eq!(broken.errors()[0].message(), "a policy has no key `alow`");
    let foreign = format_policy(
        "p.json",
        b"{\"network\": {\"outbound\": {\"allow_host\": [\"a.b\"]}}}",
    )
    .unwrap_err();
    assert!(
        foreign.errors()[0].message().contains("ToolHive"),
        "{foreign}"
    );
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test, which looks for the examples"
)]
fn documentation_and_examples_are_as_they_would_be_formatted() {
    for example in examples_of_the_guide() {
        assert_eq!(formatted(example), example);
    }
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/policies");
    let ready = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/policies/ready");
    let files = [examples, ready].map(|directory| std::fs::read_dir(directory).unwrap());
    for file in files.into_iter().flatten() {
        let path = file.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(formatted(&text), text, "{}", path.display());
    }
}

/// Parts of policies, with comments and blank lines wherever they may stand.
pub(crate) fn policy() -> impl Strategy<Value = String> {
    let noise = || {
        prop_oneof![
            4 => Just(String::new()),
            1 => Just("\n".to_owned()),
            1 => Just("\n\n".to_owned()),
            1 => "# [a-z]{0,3}".prop_map(|text| format!("{text}\n")),
            1 => " {1,6}# [a-z\"'\\[:]{0,3}".prop_map(|text| format!("{text}\n")),
            1 => Just("\n    # x\n\n  # y\n".to_owned()),
        ]
    };
    let end = || prop_oneof![3 => Just("\n".to_owned()), 1 => " {1,9}# [a-z]{0,3}".prop_map(|text| format!("{text}\n"))];
    let item = (
        noise(),
        prop_oneof![
            Just("a.b".to_owned()),
            Just("\"*.c.example:80,443\"".to_owned()),
            Just("'**.d.example'".to_owned()),
            Just("{host: e.f, ports: [1, 2], reason: 'it''s'}".to_owned()),
            Just("{ports: [1,\n   2], # z\n   host: g.h}".to_owned()),
            Just("reason: |2\n        x\n\n       y\n     host: i.j".to_owned()),
            Just("ports:\n     # p\n     - 1\n     - 2 # q\n      # r\n     host: k.l".to_owned()),
            Just(
                "# dash\n     reason: >\n       some words\n       more\n     host: m.n".to_owned()
            ),
            "[ -~á\u{2028}\t]{0,12}"
                .prop_map(|text| format!("{{host: o.p, reason: '{}'}}", text.replace('\'', "''"))),
            "[ -~\n]{0,12}".prop_map(|text| format!(
                "{{host: q.r, reason: {}}}",
                serde_json::to_string(&text).unwrap()
            )),
        ],
        end(),
    );
    let item = item.prop_map(|(noise, item, end)| format!("{noise}   - {item}{end}"));
    let items = move || prop::collection::vec(item.clone(), 1..4).prop_map(|items| items.concat());
    let section = prop_oneof![
        (items(), end()).prop_map(|(items, end)| ("allow", format!("allow:{end}{items}"))),
        (items(), end()).prop_map(|(items, end)| ("deny", format!("deny:{end}{items}"))),
        Just(("allow", "allow: [a.b, c.d]\n".to_owned())),
        Just((
            "deny",
            "deny: [\n a.b, # x\n # y\n c.d\n # z\n]\n".to_owned()
        )),
        end().prop_map(|end| ("name", format!("name: x{end}"))),
        end().prop_map(|end| ("host_gateway", format!("host_gateway:{end}  [1, 2]\n"))),
        end().prop_map(|end| (
            "filesystem",
            format!("filesystem:\n      write: ['a']{end}      read:\n      - b\n      # f\n")
        )),
        end().prop_map(|end| ("tests", format!("tests: [{{deny: a.b}}]{end}"))),
    ];
    let sections = prop::collection::vec((noise(), section), 0..6);
    (sections, noise(), noise(), end(), 0..6usize).prop_map(|(sections, first, last, end, at)| {
        let mut seen = Vec::new();
        let mut parts = Vec::new();
        for (noise, (key, section)) in sections {
            if !seen.contains(&key) {
                seen.push(key);
                parts.push(format!("{noise}{section}"));
            }
        }
        parts.insert(at.min(parts.len()), format!("{first}version: 1{end}"));
        parts.concat() + &last
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn formatting_twice_is_formatting_once_and_loses_nothing(text in policy()) {
        // What is not a policy has its errors; that there are enough that are is the next test's business.
        if Policy::parse("p", text.as_bytes()).is_ok() {
            // That values and comments are the same is checked in there.
            let once = format_policy("p", text.as_bytes()).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
            let twice = format_policy("p", once.as_bytes()).unwrap();
            prop_assert_eq!(&once, &twice, "{}", text);
            prop_assert!(!once.contains("\n\n\n") && once.lines().all(|line| line.trim_end() == line), "{}", once);
        }
    }
}

#[test]
fn the_policies_that_are_tried_are_policies() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let valid = (0..300).filter(|_| {
        let text = policy().new_tree(&mut runner).unwrap().current();
        Policy::parse("p", text.as_bytes()).is_ok()
    });
    assert!(valid.count() > 200);
}
