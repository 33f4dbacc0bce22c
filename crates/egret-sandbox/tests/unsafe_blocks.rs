//! `docs/unsafe.md`: every unsafe block of the project with the argument for it, in one place. It is written from the sources
//! by this test, which fails while it says something else:
//!
//! ```sh
//! EGRET_UNSAFE=accept cargo test -p egret-sandbox --test unsafe_blocks
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, and what helps it, fails by panicking"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const ROOM: &str = "crates/egret-sandbox/src/sys";
const LIST: &str = "docs/unsafe.md";
const HEAD: &str = "# Unsafe code

Every block of Egret that the compiler cannot vouch for, and why it is sound. All are in one module,
`egret_sandbox::sys`; the other crates forbid unsafe code, and the rest of this one denies it. What dependencies do is in
[dependencies.md](dependencies.md).

This list is written from the sources. A test compares them (`cargo test -p egret-sandbox --test unsafe_blocks`), and writes the
list anew with `EGRET_UNSAFE=accept` in its environment: what is to be reviewed then shows as a difference of this file.

Two facts carry most of the arguments, and `egret_sandbox::jail` upholds both: the jail is a process that was started
afresh and never had a second thread, and nothing in it shares memory with anyone.
";

#[test]
fn the_list_of_unsafe_blocks_is_that_of_the_sources() {
    let mut list = HEAD.to_owned();
    for file in sources(&Path::new(ROOT).join(ROOM)) {
        let blocks = blocks(&fs::read_to_string(&file).unwrap());
        if blocks.is_empty() {
            continue;
        }
        let name = file.file_name().unwrap().display();
        write!(list, "\n## [{name}](../{ROOM}/{name})\n").unwrap();
        for block in blocks {
            let Block { of, argument, code } = block;
            write!(list, "\n`{of}`: {argument}\n\n```rust\n{code}\n```\n").unwrap();
        }
    }
    let path = Path::new(ROOT).join(LIST);
    if std::env::var_os("EGRET_UNSAFE").is_some_and(|value| value == "accept") {
        fs::write(&path, &list).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written == list,
        "{LIST} is not about the unsafe blocks that there are: EGRET_UNSAFE=accept writes it anew; look at what changes"
    );
}

#[test]
fn no_other_source_has_an_unsafe_block() {
    let crates = Path::new(ROOT).join("crates");
    let rooms = fs::read_dir(crates).unwrap();
    let rooms: Vec<_> = rooms.map(|room| room.unwrap().path().join("src")).collect();
    assert_eq!(rooms.len(), 4, "{rooms:?}");
    let others: Vec<_> = rooms.iter().flat_map(|room| sources(room)).collect();
    assert!(others.len() > 50, "{others:?}");
    for file in others {
        if !file.starts_with(Path::new(ROOT).join(ROOM)) {
            let found = blocks(&fs::read_to_string(&file).unwrap()).len();
            assert_eq!(found, 0, "{}", file.display());
        }
    }
}

#[test]
fn a_block_is_found_with_its_argument_and_its_function() {
    let source = "
fn outer() {
    // SAFETY: because.
    // And so.
    let x = unsafe { one() };
    // Not about it.
    unsafe {
        two();
    }
}
unsafe impl Send for X {}
";
    let found = blocks(source);
    let found: Vec<_> = found
        .iter()
        .map(|block| (&*block.of, &*block.argument, &*block.code))
        .collect();
    assert_eq!(
        found,
        [
            ("outer", "because. And so.", "let x = unsafe { one() };"),
            ("outer", NONE, "unsafe {\n    two();\n}"),
            ("outer", NONE, "unsafe impl Send for X {}"),
        ]
    );
    assert!(
        blocks(
            "// unsafe { }\n#![forbid(unsafe_code)]\nunshare_unsafe(it)\nreason = \"unsafe code\""
        )
        .is_empty()
    );
}

/// What stands where an argument is missing; clippy's `undocumented_unsafe_blocks` keeps it from being so.
const NONE: &str = "NO ARGUMENT";

/// How what the compiler cannot vouch for begins, as rustfmt writes it.
const UNSAFE: [&str; 5] = [
    "unsafe {",
    "unsafe impl ",
    "unsafe fn ",
    "unsafe extern ",
    "#[unsafe(",
];

struct Block {
    of: String,
    argument: String,
    code: String,
}

/// The statements of `source` that have an unsafe block in them, each with the comment above it.
fn blocks(source: &str) -> Vec<Block> {
    let lines: Vec<_> = source.lines().collect();
    let (mut found, mut of) = (Vec::new(), String::new());
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        if let Some((_, rest)) = code.split_once("fn ") {
            let end = rest.find(['(', '<']).unwrap_or(rest.len());
            of = rest[..end].to_owned();
        }
        if !UNSAFE.iter().any(|start| code.contains(start)) {
            continue;
        }
        let above = lines[..at].iter().rev().map(|line| line.trim_start());
        let mut comment: Vec<_> = above.map_while(|line| line.strip_prefix("// ")).collect();
        comment.reverse();
        let comment = comment.join(" ");
        found.push(Block {
            of: of.clone(),
            argument: comment
                .strip_prefix("SAFETY: ")
                .map_or(NONE.to_owned(), str::to_owned),
            code: statement(&lines[at..]),
        });
    }
    found
}

/// The first lines, as many as it takes until each brace is closed, without the indentation that all have.
fn statement(lines: &[&str]) -> String {
    let indent = lines[0].len() - lines[0].trim_start().len();
    let mut depth = 0;
    let mut taken = Vec::new();
    for line in lines {
        taken.push(line.get(indent..).unwrap_or_default());
        let count = |wanted| line.chars().filter(|c| *c == wanted).count();
        depth = depth + count('{') - count('}').min(depth + count('{'));
        if depth == 0 {
            break;
        }
    }
    taken.join("\n")
}

/// The Rust files beneath a directory, in order.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
