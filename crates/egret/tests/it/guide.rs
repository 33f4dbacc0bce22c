//! The guide: what it shows as a command is typed here, page by page, by an ordinary user in the closed world.
//!
//! A fenced block marked `sh` is a script; the blocks of a page are run in order, each in a shell of its own, on a terminal, in one
//! home and working directory. A `text` block that follows under the same heading is what that prints: `…` stands for anything,
//! and a time, a duration or an id for any other. A command has to succeed, unless the comment at its end begins with
//! `refused` or `fails`: then it has to fail.
//!
//! In front of a block may stand a comment: `<!-- file: NAME -->`, and it is a file that is there from the beginning; or
//! `<!-- not run: REASON -->`, and [`NOT_RUN`] lists it; or `<!-- not a policy: WHAT -->`, as other YAML that says `version: 1` is taken for
//! one and read.
//!
//! [`town`] is what there is to talk to. [`page`] reads pages.

mod links;
mod page;
mod town;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use page::Page;

use crate::world::EGRET;

/// A test for each page that has commands, and whether they need a container engine.
macro_rules! pages {
    ($($name:ident $path:literal $engine:expr;)*) => {
        const PAGES: &[&str] = &[$($path),*];
        $(#[test]
        fn $name() {
            town::type_in(&Page::read($path), $engine);
        })*
    };
}

const PROGRAMS: bool = false;
const IMAGES: bool = true;

pages! {
    the_readme "README.md" IMAGES;
    a_coding_agent "docs/guide/coding-agent.md" PROGRAMS;
    ci "docs/guide/ci.md" PROGRAMS;
    asking "docs/guide/asking.md" PROGRAMS;
    containers "docs/guide/containers.md" IMAGES;
    five_minutes "docs/guide/five-minutes.md" PROGRAMS;
    observing "docs/guide/observing.md" PROGRAMS;
    learning "docs/guide/learn.md" PROGRAMS;
    services_of_this_machine "docs/guide/host-access.md" IMAGES;
    mcp_servers "docs/guide/mcp.md" IMAGES;
    a_first_policy "docs/guide/first-policy.md" PROGRAMS;
    settings "docs/guide/settings.md" PROGRAMS;
    troubleshooting "docs/guide/troubleshooting.md" PROGRAMS;
    verification "docs/verify.md" IMAGES;
    watching "docs/guide/watch.md" PROGRAMS;
}

/// The blocks that are not run, by page and reason.
#[rustfmt::skip]
const NOT_RUN: &[(&str, &str)] = &[
    ("README.md", BUILDS),
    ("SECURITY.md", BUILDS),
    ("docs/fuzzing.md", BUILDS),
    ("docs/fuzzing.md", BUILDS),
    ("docs/guide/five-minutes.md", "the packages have a test of their own, which installs them"),
    ("docs/guide/mcp.md", "takes Claude Code, and an account"),
    ("docs/guide/mcp.md", "takes uv, and PyPI"),
];
const BUILDS: &str = "builds Egret, which is what runs this";

#[test]
fn every_command_of_every_page_is_run_or_says_why_not() {
    let pages = Page::all();
    let with_commands: BTreeSet<_> = pages
        .iter()
        .filter(|page| !page.blocks.is_empty())
        .map(|page| page.path.as_str())
        .collect();
    assert_eq!(
        with_commands,
        PAGES.iter().copied().collect(),
        "the pages with `sh` blocks, and those that `pages!` in {} has",
        file!()
    );
    let mut not_run: Vec<_> = pages
        .iter()
        .flat_map(|page| {
            page.not_run
                .iter()
                .map(|reason| (page.path.as_str(), reason.as_str()))
        })
        .collect();
    let mut listed = NOT_RUN.to_vec();
    not_run.sort_unstable();
    listed.sort_unstable();
    assert_eq!(
        not_run, listed,
        "the blocks that are not run, and those that `NOT_RUN` has"
    );
}

/// Whatever looks like a policy is one, and what looks like JSON.
#[test]
fn every_example_can_be_read() {
    let mut policies = 0;
    for page in Page::all() {
        for (line, language, text) in &page.examples {
            let place = format!("{}:{line}", page.path);
            if language == "json" {
                for value in
                    serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>()
                {
                    value.unwrap_or_else(|e| panic!("{place}: {e}"));
                }
            } else if language == "yaml" && text.starts_with("version: 1\n") {
                policies += 1;
                policy_is_read(&place, text);
            }
        }
    }
    assert!(policies > 4, "only {policies} policies were found");
}

#[track_caller]
fn policy_is_read(place: &str, text: &str) {
    let mut check = Command::new(EGRET)
        .args(["policy", "check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = check.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{place}: {output:?}");
}

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}
