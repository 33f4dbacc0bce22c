//! `docs/bypasses.md`, held against the tests that there are: which class is tried in which runtime, and by what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The columns of the table, in their order, and what the tests of [`everywhere`] are called for each.
///
/// [`everywhere`]: super::everywhere
const RUNTIMES: [&str; 4] = ["process", "docker", "podman", "rootless_podman"];

/// The tests below these are attempts, and stand in the document.
const ATTEMPTS: [&str; 5] = [
    "escapes::",
    "containers::attacks::",
    "containers::escapes::",
    "containers::failures::",
    "containers::root::",
];

#[test]
fn the_document_says_what_is_tried_where() {
    let document = read("docs/bypasses.md");
    let tests = tests();
    let (mut said, mut tried) = (BTreeMap::new(), BTreeMap::new());
    let mut named = BTreeSet::new();
    for line in document.lines() {
        let cells: Vec<_> = line
            .split(" | ")
            .map(|cell| cell.trim_matches(['|', ' ']))
            .collect();
        let Ok(class) = cells[0].parse::<u32>() else {
            continue;
        };
        match cells[..] {
            [_, _, ref places @ .., run] if places.len() == RUNTIMES.len() => {
                let places: Vec<_> = places.iter().map(|place| (*place).to_owned()).collect();
                assert!(
                    said.insert(class, (places, run.to_owned())).is_none(),
                    "{class} twice"
                );
            }
            [_, _, _, by] => {
                let by = in_code(by, &tests);
                named.extend(by.iter().cloned());
                let places: BTreeSet<_> = by.iter().flat_map(|test| tests[test].clone()).collect();
                assert!(tried.insert(class, places).is_none(), "{class} twice");
            }
            _ => panic!("neither a class nor where it is tried: {line}"),
        }
    }
    assert!(
        said.len() > 40 && said.keys().eq(tried.keys()),
        "{said:#?} {tried:#?}"
    );
    assert!(
        said.keys()
            .copied()
            .eq(1..=u32::try_from(said.len()).unwrap()),
        "{said:#?}"
    );
    let mut wrong = Vec::new();
    for (class, (places, run)) in &said {
        for (place, says) in RUNTIMES.iter().zip(places) {
            let is_tried = tried[class].contains(place);
            let why = says.strip_prefix("n/a: ").is_some_and(|why| why.len() > 12);
            if is_tried != (says == "held") || is_tried == why {
                wrong.push(format!(
                    "{class}, {place}: it says `{says}`; tried: {is_tried}"
                ));
            }
        }
        let command = match tried[class].is_empty() {
            true => "–".to_owned(),
            false => format!("`./x escapes {class}`"),
        };
        if *run != command {
            wrong.push(format!("{class}: it is run by {command}, not {run}"));
        }
    }
    let attempts = tests
        .keys()
        .filter(|name| ATTEMPTS.iter().any(|room| name.starts_with(room)));
    let unnamed =
        attempts.filter(|name| !named.contains(*name) && !name.starts_with("escapes::list::"));
    wrong.extend(unnamed.map(|name| format!("{name} is of no class")));
    assert!(wrong.is_empty(), "docs/bypasses.md: {wrong:#?}");
}

/// The tests of these that a cell names. A name has to be a test's, a path a file's.
fn in_code(cell: &str, tests: &BTreeMap<String, BTreeSet<&'static str>>) -> Vec<String> {
    let mut found = Vec::new();
    for code in cell.split('`').skip(1).step_by(2) {
        if code.starts_with("crates/") {
            assert!(root().join(code).exists(), "{code} is not there");
        } else {
            assert!(tests.contains_key(code), "there is no test {code}");
            found.push(code.to_owned());
        }
    }
    found
}

/// Every test of this program, without its runtime, and the runtimes that it is for.
fn tests() -> BTreeMap<String, BTreeSet<&'static str>> {
    let program = std::env::current_exe().unwrap();
    let listed = Command::new(program).arg("--list").output().unwrap();
    let mut tests = BTreeMap::<_, BTreeSet<_>>::new();
    for name in String::from_utf8(listed.stdout).unwrap().lines() {
        let Some(name) = name.strip_suffix(": test") else {
            continue;
        };
        let (room, test) = name.rsplit_once("::").unwrap();
        let (outer, last) = room.rsplit_once("::").unwrap_or((room, ""));
        let runtime = RUNTIMES.iter().find(|runtime| **runtime == last);
        let (name, runtimes) = match runtime {
            Some(runtime) => (format!("{outer}::{test}"), vec![*runtime]),
            // What an engine does by itself holds nothing.
            None if room == "containers::plain" => (name.to_owned(), Vec::new()),
            None if room.starts_with("containers") => (name.to_owned(), engines(room, test)),
            None => (name.to_owned(), vec!["process"]),
        };
        tests.entry(name).or_default().extend(runtimes);
    }
    assert!(tests.len() > 200, "{tests:#?}");
    tests
}

/// The engines that a test of containers is for: those that its text names.
fn engines(room: &str, test: &str) -> Vec<&'static str> {
    let source = read(&format!(
        "crates/egret/tests/it/{}.rs",
        room.replace("::", "/")
    ));
    let (_, text) = source.split_once(&format!("\nfn {test}()")).unwrap();
    let text = text.split("\n}\n").next().unwrap();
    let names = [
        (&["docker"][..], "Kind::Docker"),
        (&["podman"], "Kind::Podman"),
        (&["rootless_podman"], "Kind::RootlessPodman"),
        (&["docker", "rootless_podman"], " ROWS "),
        (&RUNTIMES[1..], "Kind::ALL"),
    ];
    let named = names.iter().filter(|(_, name)| text.contains(name));
    named.flat_map(|(engines, _)| engines.to_vec()).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
