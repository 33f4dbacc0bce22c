//! The policies in `examples/policies` say what they are meant to say, and nothing is wrong with them.
#![expect(
    clippy::disallowed_methods,
    reason = "the test reads files, not what it tests"
)]

use std::fs;
use std::path::Path;

use egret_policy::{Policy, format_policy};

/// What `egret policy check` warns of, by file.
const WARNINGS: &[(&str, &str)] = &[(
    "public-with-denies.yaml",
    "every public destination can be reached, and data can be sent to any of them",
)];

#[test]
fn every_example_is_formatted_checks_clean_and_passes_its_tests() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policies");
    let mut checked = 0;
    let directories = [directory.clone(), directory.join("ready")];
    let files = directories.map(|directory| fs::read_dir(directory).unwrap());
    for file in files.into_iter().flatten() {
        let file = file.unwrap();
        if file.path().is_dir() {
            continue;
        }
        let (name, text) = (
            file.file_name().into_string().unwrap(),
            fs::read(file.path()).unwrap(),
        );
        let parsed = Policy::parse(&name, &text).unwrap_or_else(|errors| panic!("{errors}"));
        let warnings: Vec<_> = parsed
            .warnings
            .iter()
            .map(|warning| warning.message())
            .collect();
        let meant = WARNINGS.iter().filter(|(of, _)| *of == name);
        let meant: Vec<_> = meant.map(|(_, warning)| *warning).collect();
        assert_eq!(warnings, meant, "{name}");
        let tests = parsed.policy.run_tests();
        assert!(!tests.is_empty(), "{name} has no tests");
        for test in tests {
            let (rule, expected) = (&test.rule, test.expected());
            assert!(
                test.passed,
                "{rule}: {} is not {expected}: {:?}",
                test.destination, test.explanation
            );
        }
        let formatted = format_policy(&name, &text).unwrap();
        assert_eq!(
            formatted,
            String::from_utf8(text).unwrap(),
            "{name} is not formatted"
        );
        checked += 1;
    }
    assert!(checked >= 30, "{checked} examples");
}
