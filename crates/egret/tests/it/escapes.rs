//! Every known way past an egress boundary, tried from inside. `docs/bypasses.md` has the list, with what closes each; a test
//! below holds list and tests together.

mod addresses;
mod names;
mod routing;
mod spoken;

/// The tests that belong to a class: every test in this directory.
const SOURCES: [(&str, &str); 4] = [
    ("addresses", include_str!("escapes/addresses.rs")),
    ("names", include_str!("escapes/names.rs")),
    ("routing", include_str!("escapes/routing.rs")),
    ("spoken", include_str!("escapes/spoken.rs")),
];

#[test]
fn each_test_is_in_the_list_and_each_in_the_list_exists() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bypasses.md");
    let list = std::fs::read_to_string(path).unwrap();
    let mut tests: Vec<String> = Vec::new();
    for (module, source) in SOURCES {
        let after_attribute = source.split("#[test]\n").skip(1);
        tests.extend(after_attribute.map(|rest| {
            let name = rest
                .trim_start()
                .trim_start_matches("fn ")
                .split('(')
                .next()
                .unwrap();
            format!("escapes::{module}::{name}")
        }));
    }
    assert!(tests.len() > 30, "{tests:?}");
    let mut named: Vec<_> = list
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.starts_with("escapes::"))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = tests.iter().filter(|test| !named.contains(test)).collect();
    named.retain(|name| !tests.contains(name));
    assert!(
        missing.is_empty(),
        "docs/bypasses.md does not name these tests: {missing:#?}"
    );
    assert!(
        named.is_empty(),
        "docs/bypasses.md names tests that do not exist: {named:#?}"
    );
}
