//! The schema against the reader: what can be used is valid, and slips that a schema can find are found.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value as Json};

use super::*;
use crate::Policy;
use crate::report::Report;
use crate::text::tests::examples_of_the_guide;
use crate::text::yaml::{self, Kind, Node, Value};

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(POLICY_SCHEMA).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
});

/// What the schema has against a policy.
fn errors(text: &str) -> Vec<String> {
    let mut report = Report::new("p".into(), text);
    let tree = yaml::parse(&mut report).unwrap();
    let policy = json(&tree);
    let errors = SCHEMA.iter_errors(&policy);
    errors.map(|error| error.to_string()).collect()
}

fn json(node: &Node<'_>) -> Json {
    match &node.value {
        Value::Scalar(text, Kind::String) => Json::String(text.to_string()),
        Value::Scalar(_, Kind::Null) => Json::Null,
        Value::Scalar(text, Kind::Bool) => Json::Bool(text.eq_ignore_ascii_case("true")),
        Value::Scalar(text, Kind::Number) => serde_json::from_str(text).unwrap(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| {
                let Value::Scalar(key, _) = &key.value else {
                    panic!("a key that is no text");
                };
                (key.to_string(), json(value))
            });
            Json::Object(pairs.collect::<Map<_, _>>())
        }
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test, which looks for the examples"
)]
fn examples_are_valid() {
    for example in examples_of_the_guide() {
        assert_eq!(errors(example), [""; 0], "{example}");
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
        assert_eq!(errors(&text), [""; 0], "{}", path.display());
    }
}

#[test]
fn what_can_be_used_is_valid() {
    #[rustfmt::skip]
    let table = [
        "", "name: x", "default: deny", "host_gateway: allow", "host_gateway: [1, 65535]", "filesystem: {}",
        "inbound: [a.example, '*.b.example', .c.example, 192.168.1.7, '2001:db8::1', '[2001:db8::1]', localhost, bücher.example]",
        "filesystem: {read: [~/x], write: ['.'], hide: [a b]}", "filesystem: {read: ['~/x:/y'], write: ['a b:/c d/']}",
        "allow: [a.example]", "allow: [A.example.]", "allow: ['*.a.example:1']", "allow: ['**.a.example:80,443']", "allow: [.a.example]",
        "allow: ['a-*.b.example']", "allow: ['*-a.b.example']", "allow: ['*.s3.*.c.example']", "allow: [bücher.example]", "allow: [host.docker.internal]",
        "allow: ['*.corp']", "allow: [single]", "allow: [under_score.example]",
        "allow: [203.0.113.7]", "allow: ['203.0.113.7:1']", "allow: ['10.0.0.0/8:22']", "allow: ['[2001:db8::1]:443']", "allow: ['[2001:db8::/32]:1,2']",
        "allow: ['2001:db8::/32', '2001:db8::1', '[2001:db8::1]', '::/0', '0.0.0.0/0', '::ffff:8.8.8.8']",
        "allow: [{host: a.example, ports: any}]", "allow: [{host: a.example, ports: [1], addresses: [10.0.0.0/8, 'fd00::/8'], reason: ''}]",
        "allow: [{host: a.example, only_addresses: [8.8.8.8, 10.0.0.0/8]}]",
        "default: allow-public:443",
        "default: allow-public:1,65535",
        "allow: [{address: 203.0.113.0/24, http: [read-only]}]", "deny: [{address: '::1'}]", "deny: [{address: 127.0.0.0/8, by: [/x]}]",
        "allow: [{host: a.example, by: [/usr/bin/curl, '/**', '/opt/*/bin/**', /a b], under: [/u]}]",
        "allow: [{host: a.example, http: [full, read-only, 'GET /', 'GET,HEAD  /a/*/b/**', '* /**', 'M-SEARCH /x/', 'GET /...']}]",
        "deny: [{host: a.example, ports: [1], reason: x, http: ['DELETE /**']}]",
        "tests: [{allow: a.example}, {deny: 'https://a.example/x?y', by: /usr/bin/x, request: 'GET /a?b', resolves_to: [1.1.1.1, '::1']}]",
        "tests: [{deny: '[::1]:1'}, {deny: '127.1'}, {allow: 'HTTP://a.example/@x/*'}]",
    ];
    for text in table {
        let text = format!("version: 1\n{text}");
        if let Err(errors) = Policy::parse("p", text.as_bytes()) {
            panic!("{errors}\n{text}");
        }
        assert_eq!(errors(&text), [""; 0], "{text}");
    }
}

#[test]
fn slips_are_found() {
    #[rustfmt::skip]
    let table = [
        "name: x", "version: 2", "version: '1'", "version: 1\nalow: [a.b]", "version: 1\nname: 7", "version: 1\nname: ''",
        "version: 1\ndefault: off", "version: 1\ndefault: false", "version: 1\ndefault: 'allow-public:'", "version: 1\ndefault: 'allow-public:0'", "version: 1\ndefault: deny:443",
        "version: 1\nallow: [{host: a.b, addresses: [1.1.1.1], only_addresses: [1.1.1.1]}]", "version: 1\ndeny: [{host: a.b, only_addresses: [1.1.1.1]}]",
        "version: 1\nhost_gateway: 80", "version: 1\nhost_gateway: []", "version: 1\nhost_gateway: [0]",
        "version: 1\nallow: a.b", "version: 1\nallow: []", "version: 1\nallow: {host: a.b}", "version: 1\nallow: [7]", "version: 1\nallow: ['']",
        "version: 1\nallow: ['*']", "version: 1\nallow: ['**:443']", "version: 1\nallow: [a..b]", "version: 1\nallow: ['a.b:0']", "version: 1\nallow: ['a.b:70000']",
        "version: 1\nallow: ['a.b:http']", "version: 1\nallow: ['a.b:']", "version: 1\nallow: ['a.b:1,']", "version: 1\nallow: ['a.b:01']",
        "version: 1\nallow: ['https://a.b']", "version: 1\nallow: [a.b/c]", "version: 1\nallow: ['u@a.b']", "version: 1\nallow: ['a.**.b']", "version: 1\nallow: ['a.b-*.c']",
        "version: 1\nallow: ['**a.b']", "version: 1\nallow: [a b]", "version: 1\nallow: ['a.b,c.d']", "version: 1\nallow: ['10.0.0.0/33']", "version: 1\nallow: ['[::1']",
        "version: 1\nallow: [{ports: [1]}]", "version: 1\nallow: [{host: a.b, address: 1.1.1.1}]", "version: 1\nallow: [{host: 'a.b:443'}]",
        "version: 1\nallow: [{host: a.b, port: 443}]", "version: 1\nallow: [{host: a.b, ports: 443}]", "version: 1\nallow: [{host: a.b, ports: ['443']}]",
        "version: 1\nallow: [{host: a.b, ports: []}]", "version: 1\nallow: [{host: a.b, ports: all}]", "version: 1\nallow: [{host: a.b, addresses: [a.b]}]",
        "version: 1\nallow: [{address: a.b}]", "version: 1\nallow: [{address: 1.1.1.1, addresses: [1.1.1.1]}]", "version: 1\ndeny: [{host: a.b, addresses: [10.0.0.0/8]}]",
        "version: 1\ndeny: [{address: 1.1.1.1, http: [full]}]",
        "version: 1\nallow: [{host: a.b, by: curl}]", "version: 1\nallow: [{host: a.b, by: [curl]}]", "version: 1\nallow: [{host: a.b, by: [/usr/bin/]}]",
        "version: 1\nallow: [{host: a.b, by: [/usr//bin]}]", "version: 1\nallow: [{host: a.b, by: [/usr/../bin]}]", "version: 1\nallow: [{host: a.b, under: ['/a**']}]",
        "version: 1\nallow: [{host: a.b, http: {GET: /x}}]", "version: 1\nallow: [{host: a.b, http: [GET]}]", "version: 1\nallow: [{host: a.b, http: [/x]}]",
        "version: 1\nallow: [{host: a.b, http: [get /x]}]", "version: 1\nallow: [{host: a.b, http: [GET x]}]", "version: 1\nallow: [{host: a.b, http: ['GET /x?y']}]",
        "version: 1\nallow: [{host: a.b, http: ['GET,* /x']}]", "version: 1\nallow: [{host: a.b, http: ['GET /a/../b']}]", "version: 1\nallow: [{host: a.b, http: ['GET,CONNECT /x']}]",
        "version: 1\nallow: [{host: a.b, http: ['GET /{id}']}]", "version: 1\nallow: [{host: a.b, http: ['GET /a/***']}]", "version: 1\nallow: [{host: a.b, http: [readonly]}]",
        "version: 1\ninbound: a.b", "version: 1\ninbound: []", "version: 1\ninbound: ['*']", "version: 1\ninbound: ['a.b:80']", "version: 1\ninbound: ['https://a.b']",
        "version: 1\ninbound: [10.0.0.0/8]", "version: 1\ninbound: ['[::1]:80']", "version: 1\ninbound: [{host: a.b}]", "version: 1\ninbound: [7]",
        "version: 1\nfilesystem: {rite: [a]}", "version: 1\nfilesystem: {read: []}", "version: 1\nfilesystem: {read: ['']}", "version: 1\nfilesystem: {read: a}",
        "version: 1\nfilesystem: {read: ['/a:b']}", "version: 1\nfilesystem: {read: ['/a:/b:ro']}", "version: 1\nfilesystem: {read: ['/a:/']}", "version: 1\nfilesystem: {hide: ['/a:/b']}",
        "version: 1\ntests: []", "version: 1\ntests: [{}]", "version: 1\ntests: [{allow: a.b, deny: a.b}]", "version: 1\ntests: [a.b]", "version: 1\ntests: [{allow: '*.a.b'}]",
        "version: 1\ntests: [{allow: a.b, by: x}]", "version: 1\ntests: [{allow: a.b, by: '/usr/*'}]", "version: 1\ntests: [{allow: a.b, request: GET}]",
        "version: 1\ntests: [{allow: a.b, resolves_to: 1.1.1.1}]", "version: 1\ntests: [{allow: a.b, resolves_to: [c.d]}]",
    ];
    for text in table {
        assert!(Policy::parse("p", text.as_bytes()).is_err(), "{text}");
        assert_ne!(errors(text), [""; 0], "{text}");
    }
}

/// JSON readers take the last of them, and say nothing.
#[test]
fn no_key_of_the_schema_stands_twice() {
    fn look(node: &Node<'_>) {
        match &node.value {
            Value::Scalar(..) => {}
            Value::List(items) => items.iter().for_each(look),
            Value::Map(pairs) => {
                let Json::Object(object) = json(node) else {
                    panic!("a mapping is an object");
                };
                assert_eq!(object.len(), pairs.len(), "{:?}", object.keys());
                pairs.iter().for_each(|(_, value)| look(value));
            }
        }
    }
    let mut report = Report::new("schema".into(), POLICY_SCHEMA);
    look(&yaml::parse(&mut report).unwrap());
}

/// An editor shows what a key is for when somebody hesitates over it.
#[test]
fn every_key_has_a_title_and_a_description() {
    fn look(schema: &Json, root: &Json, path: &str) {
        let described = |key: &str, property: &Json| {
            property.get(key).is_some()
                || property["$ref"].as_str().is_some_and(|at| {
                    let at = at.strip_prefix('#').unwrap();
                    root.pointer(at).unwrap().get(key).is_some()
                })
        };
        match schema {
            Json::Object(object) => {
                let properties = object.get("properties").and_then(Json::as_object);
                for (name, property) in properties.into_iter().flatten() {
                    for key in ["title", "description"] {
                        assert!(described(key, property), "{path}/{name} has no {key}");
                    }
                }
                for (name, below) in object {
                    look(below, root, &format!("{path}/{name}"));
                }
            }
            Json::Array(items) => items.iter().for_each(|item| look(item, root, path)),
            _ => {}
        }
    }
    let schema: Json = serde_json::from_str(POLICY_SCHEMA).unwrap();
    look(&schema, &schema, "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_policy_that_can_be_used_is_valid(text in crate::text::emit::tests::policy()) {
        prop_assert_eq!(errors(&text), [""; 0], "{}", text);
    }
}

#[test]
fn the_schema_of_project_files_is_as_they_are_read() {
    let schema: Json =
        serde_json::from_str(include_str!("../../../../../docs/project.schema.json")).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let mut keys: Vec<_> = schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut known = crate::text::native::NARROWING_KEYS.to_vec();
    keys.sort_unstable();
    known.sort_unstable();
    assert_eq!(keys, known);
    let validator = jsonschema::validator_for(&schema).unwrap();
    let guide = include_str!("../../../../../docs/guide/settings.md");
    let (_, section) = guide.split_once("## What a project takes away").unwrap();
    let example = section
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let refused = |text: &str| {
        let mut report = Report::new("egret.yaml".into(), text);
        let tree = yaml::parse(&mut report).unwrap();
        validator.iter_errors(&json(&tree)).next().is_some()
    };
    assert!(crate::Narrowing::parse("egret.yaml", example.as_bytes()).is_ok());
    assert!(!refused(example));
    for bad in [
        "allow: [a.example]",
        "default: allow-public",
        "host_gateway: [22]",
        "filesystem: {read: [x]}",
        "filesystem: {hide: [/x]}",
        "only: []",
    ] {
        let text = format!("version: 1\n{bad}");
        assert!(refused(&text), "{text}");
        assert!(
            crate::Narrowing::parse("egret.yaml", text.as_bytes()).is_err(),
            "{text}"
        );
    }
}
