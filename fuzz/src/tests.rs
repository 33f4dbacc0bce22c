//! The seeds, and whatever the fuzzer once found, run as an ordinary test.

use std::fs;
use std::path::Path;

/// A target and its name.
type Named = (&'static str, fn(&[u8]));

const TARGETS: &[Named] = &[
    ("address", crate::address),
    ("client_hello", crate::client_hello),
    ("control", crate::control),
    ("conversation", crate::conversation),
    ("dns", crate::dns),
    ("environment", crate::environment),
    ("first_bytes", crate::first_bytes),
    ("http_answer", crate::http_answer),
    ("http_request", crate::http_request),
    ("log_line", crate::log_line),
    ("mount", crate::mount),
    ("proxy_answer", crate::proxy_answer),
    ("proxy_request", crate::proxy_request),
    ("proxy_url", crate::proxy_url),
    ("published_request", crate::published_request),
    ("record", crate::record),
    ("run_config", crate::run_config),
    ("socks", crate::socks),
    ("convert", crate::convert),
    ("diff", crate::diff),
    ("format", crate::format),
    ("host", crate::host),
    ("own_files", crate::own_files),
    ("policy_native", crate::policy),
    ("policy_openshell", crate::foreign),
    ("policy_smokescreen", crate::services),
    ("policy_toolhive", crate::foreign),
    ("request", crate::request),
];

#[test]
fn the_seeds_hold() {
    for (name, target) in TARGETS {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("seeds")
            .join(name);
        let mut count = 0;
        for seed in fs::read_dir(&seeds).unwrap() {
            let seed = seed.unwrap().path();
            println!("{}", seed.display());
            target(&fs::read(&seed).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
