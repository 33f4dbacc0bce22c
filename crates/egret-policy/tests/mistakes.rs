//! What is said to somebody who made a mistake: each policy in `mistakes/` and, beside it, all that is said of it.

#![expect(
    clippy::disallowed_methods,
    reason = "the test reads files, not what it tests"
)]

use std::path::Path;

use egret_policy::Policy;

#[test]
fn every_mistake_is_told_of_as_it_was_agreed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes");
    let mut seen = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read(&path).unwrap();
        let said = match Policy::parse(name, &text) {
            Ok(parsed) => {
                let warnings = parsed.warnings.iter().map(ToString::to_string);
                warnings.collect::<Vec<_>>().join("\n\n")
            }
            Err(errors) => errors.to_string(),
        };
        let said = format!("{said}\n");
        let agreed = path.with_extension("txt");
        if said != std::fs::read_to_string(&agreed).unwrap_or_default() {
            let now = Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join(name)
                .with_extension("txt");
            std::fs::write(&now, &said).unwrap();
            let (now, agreed) = (now.display(), agreed.display());
            panic!(
                "other words than agreed for {name}; if they are better: cp {now} {agreed}\n{said}"
            );
        }
    }
    assert!(seen > 4, "only {seen} policies with mistakes");
}
