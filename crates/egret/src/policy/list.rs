//! `egret policy list`: the policies that have names.

use super::{Bad, FINE, Loaded, Page, cannot_print, load, print_json, refuse_input};
use crate::cli::Output;
use crate::sandboxes::age;
use crate::source::named;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use std::path::Path;

/// Arguments of `egret policy list`.
#[derive(Debug, Args)]
#[command(after_help = "\
A policy has a name if its file is NAME.yaml in the directory policies of
~/.config/egret ($XDG_CONFIG_HOME/egret). Wherever a policy is asked for, a word
without slash and dot is such a name: egret run --policy NAME -- COMMAND.")]
pub(crate) struct List {
    /// How to print the list
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// One of them.
struct Listed {
    name: String,
    loaded: Result<Loaded, Bad>,
    changed: Option<Timestamp>,
}

pub(super) fn list(args: &List) -> u8 {
    let found = named::directory().and_then(|directory| Ok((directory, named::names()?)));
    let (directory, names) = match found {
        Ok(found) => found,
        Err(failure) => return refuse_input(&Bad::File(failure.to_string()), args.output),
    };
    let listed: Vec<_> = names.into_iter().map(Listed::find).collect();
    let printed = match args.output {
        Output::Json => {
            let policies: Vec<_> = listed.iter().map(Listed::in_json).collect();
            print_json(
                &json!({ "directory": directory.display().to_string(), "policies": policies }),
            )
        }
        Output::Text => in_text(&directory, &listed).print(),
    };
    printed.map_or_else(|error| cannot_print(&error), |()| FINE)
}

impl Listed {
    fn find(name: String) -> Self {
        let changed =
            |path: &Path| Timestamp::try_from(path.metadata().ok()?.modified().ok()?).ok();
        Self {
            loaded: load(&name),
            changed: named::path(&name).ok().and_then(|path| changed(&path)),
            name,
        }
    }

    fn in_json(&self) -> serde_json::Value {
        let loaded = self.loaded.as_ref().ok();
        json!({
            "name": self.name,
            "file": named::path(&self.name).ok().map(|path| path.display().to_string()),
            "valid": loaded.is_some(),
            "title": loaded.and_then(|loaded| loaded.policy.name()),
            "entries": loaded.map(|loaded| loaded.policy.entries()),
            "changed": self.changed.map(|changed| changed.to_string()),
        })
    }
}

fn in_text(directory: &Path, listed: &[Listed]) -> Page {
    let mut page = Page::for_stdout();
    if listed.is_empty() {
        writeln!(
            page,
            "There are no policies in {}: a file NAME.yaml there is the policy NAME.",
            directory.display()
        );
        return page;
    }
    let width = listed.iter().map(|one| one.name.len()).max();
    let width = width.unwrap_or_default().max("NAME".len());
    writeln!(page, "{:width$}  ENTRIES  AGE", "NAME");
    for Listed {
        name,
        loaded,
        changed,
    } in listed
    {
        let age = changed.map_or_else(|| "?".to_owned(), |changed| age(&changed.to_string()));
        match loaded {
            Ok(loaded) => {
                let title = loaded.policy.name().filter(|title| title != name);
                let entries = loaded.policy.entries();
                match title {
                    Some(title) => writeln!(page, "{name:width$}  {entries:7}  {age:<4}  {title}"),
                    None => writeln!(page, "{name:width$}  {entries:7}  {age}"),
                }
            }
            Err(_) => writeln!(
                page,
                "{name:width$}  {:>7}  {age:<4}  cannot be used: egret policy check {name}",
                "-"
            ),
        }
    }
    page
}
