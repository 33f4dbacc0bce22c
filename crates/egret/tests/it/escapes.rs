//! Every known way past an egress boundary, tried from inside. `docs/bypasses.md` has the list, with what closes each; a test
//! below holds list and tests together.

pub(crate) mod addresses;
mod descriptors;
pub(crate) mod names;
mod neighbours;
pub(crate) mod routing;
mod secrets;
mod spoken;
mod unix;

use crate::world::{User, World};

/// The tests that belong to a class: every test in this directory.
const SOURCES: [(&str, &str); 8] = [
    ("addresses", include_str!("escapes/addresses.rs")),
    ("descriptors", include_str!("escapes/descriptors.rs")),
    ("names", include_str!("escapes/names.rs")),
    ("neighbours", include_str!("escapes/neighbours.rs")),
    ("routing", include_str!("escapes/routing.rs")),
    ("secrets", include_str!("escapes/secrets.rs")),
    ("spoken", include_str!("escapes/spoken.rs")),
    ("unix", include_str!("escapes/unix.rs")),
];

#[test]
fn each_test_is_in_the_list_and_each_in_the_list_exists() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bypasses.md");
    let list = std::fs::read_to_string(path).unwrap();
    let tests_of = |module: &str, source: &str| -> Vec<String> {
        let after_attribute = source.split("#[test]\n").skip(1);
        let name = |rest: &str| {
            let name = rest.trim_start().trim_start_matches("fn ");
            format!("{module}::{}", name.split('(').next().unwrap())
        };
        after_attribute.map(name).collect()
    };
    let tests = SOURCES.iter();
    let tests = tests.flat_map(|(module, source)| tests_of(&format!("escapes::{module}"), source));
    let tests: Vec<_> = tests.collect();
    assert!(tests.len() > 30, "{tests:?}");
    // Of these, those that try a way out are in the list.
    let others = [
        tests_of("programs", include_str!("programs.rs")),
        tests_of("requests", include_str!("requests.rs")),
    ]
    .concat();
    let mut named: Vec<_> = list
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| {
            ["escapes::", "programs::", "requests::"]
                .iter()
                .any(|room| code.starts_with(room))
        })
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = tests.iter().filter(|test| !named.contains(test)).collect();
    named.retain(|name| !tests.contains(name) && !others.contains(name));
    assert!(
        missing.is_empty(),
        "docs/bypasses.md does not name these tests: {missing:#?}"
    );
    assert!(
        named.is_empty(),
        "docs/bypasses.md names tests that do not exist: {named:#?}"
    );
}

/// What scripts begin with that make attempts of their own: system calls that Python has no words for.
pub(crate) const CALLS: &str = "
import ctypes, os, socket, struct, sys, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    got = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return 'ok' if got >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(what):
    try:
        what()
        return 'ok'
    except OSError as error:
        return errno.errorcode[error.errno]
";

/// Runs a script that prints a line for each attempt, `WHAT RESULT`, and fails if any result is not an error.
#[track_caller]
fn all_fail(world: &World, user: User, args: &[&str], script: &str, count: usize) {
    let outcome = world
        .run_as(user)
        .args(args)
        .python(&format!("{CALLS}{script}"))
        .ok();
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), count, "{outcome:#?}");
    for line in lines {
        let result = line.rsplit(' ').next().unwrap();
        assert!(result.starts_with('E'), "{user:?}: {line}: {outcome:#?}");
    }
    outcome.silent();
}
