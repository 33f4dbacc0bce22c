//! The commands' pages of the guide, and their manual pages. Both are made from the help that egret prints, so that they say
//! what it says; the test that holds them to it also writes them.

use super::Cli;
use clap::{Command, CommandFactory as _};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What says that the pages are to be written.
const ACCEPT: &str = "EGRET_ACCEPT";
const PAGES: &str = "guide/commands";
const MANUAL: &str = "man";
const CONTENTS: &str = "SUMMARY.md";

#[test]
fn the_guide_and_the_manual_say_what_the_help_says() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let wanted = wanted(&docs);
    let mut there: Vec<PathBuf> = [PAGES, MANUAL]
        .iter()
        .filter_map(|directory| fs::read_dir(docs.join(directory)).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    there.retain(|path| !wanted.contains_key(path));
    let stale = wanted
        .iter()
        .filter(|(path, text)| fs::read(path).ok().as_ref() != Some(*text))
        .map(|(path, _)| path)
        .chain(&there);
    if std::env::var_os(ACCEPT).is_none() {
        let stale: Vec<_> = stale
            .filter_map(|path| path.strip_prefix(&docs).ok())
            .collect();
        assert!(
            stale.is_empty(),
            "the help has changed, and these pages below docs say something else: {stale:?}\n\
             Run `./x guide --accept`, look at the difference, and commit it."
        );
        return;
    }
    for path in there {
        fs::remove_file(path).unwrap();
    }
    for (path, text) in wanted {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// What each page has to say, by its path.
fn wanted(docs: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut egret = without_surroundings(Cli::command().term_width(100));
    egret.build();
    let mut pages = BTreeMap::new();
    let mut index = format!(
        "# Commands\n\n{MADE}\n\n{}\n\n| | |\n|---|---|\n",
        screen(&egret)
    );
    let mut entries = String::new();
    for command in shown(&egret) {
        let name = command.get_name();
        let about = command.get_about().unwrap();
        writeln!(index, "| [`egret {name}`]({name}.md) | {about} |").unwrap();
        writeln!(entries, "  - [egret {name}]({PAGES}/{name}.md)").unwrap();
        let mut page = format!("# egret {name}\n\n{MADE}\n");
        describe(command, &mut page);
        pages.insert(docs.join(format!("{PAGES}/{name}.md")), page.into());
    }
    pages.insert(docs.join(PAGES).join("index.md"), index.into());
    pages.insert(docs.join(CONTENTS), contents(docs, &entries).into());
    manual(&egret, &docs.join(MANUAL), &mut pages);
    pages
}

/// The help of a command, and of those beneath it.
fn describe(command: &Command, page: &mut String) {
    writeln!(page, "\n{}", screen(command)).unwrap();
    for beneath in shown(command) {
        let name = beneath.get_bin_name().unwrap();
        writeln!(page, "\n## {name}").unwrap();
        describe(beneath, page);
    }
}

/// What `--help` prints.
fn screen(command: &Command) -> String {
    let help = command.clone().render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    format!("```text\n{}\n```", lines.join("\n").trim_end())
}

/// The table of contents, with a line for each command where it has such lines.
fn contents(docs: &Path, entries: &str) -> String {
    let old = fs::read_to_string(docs.join(CONTENTS)).unwrap();
    let is_entry = |line: &&str| line.starts_with("  - [egret ");
    let lines: Vec<_> = old.split_inclusive('\n').collect();
    let first = lines.iter().position(is_entry);
    let first = first.unwrap_or_else(|| panic!("{CONTENTS} has no line `  - [egret …`"));
    let (before, after) = lines.split_at(first);
    let after = after.iter().filter(|line| !is_entry(line));
    before
        .iter()
        .copied()
        .chain([entries])
        .chain(after.copied())
        .collect()
}

/// Manual pages of a command and of those beneath it.
fn manual(command: &Command, to: &Path, pages: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .manual("Egret")
        .source(concat!("egret ", env!("CARGO_PKG_VERSION")))
        .render(&mut text)
        .unwrap();
    pages.insert(to.join(format!("{name}.1")), text);
    for beneath in shown(command) {
        manual(beneath, to, pages);
    }
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
}

/// Without what variables of whoever runs the test hold, which clap's help would show.
fn without_surroundings(command: Command) -> Command {
    command
        .mut_args(|argument| argument.hide_env_values(true))
        .mut_subcommands(without_surroundings)
}

const MADE: &str =
    "<!-- Made from the help of egret: change that, and run `./x guide --accept`. -->";
