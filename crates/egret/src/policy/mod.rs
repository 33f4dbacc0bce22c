//! The commands about policies that run nothing: what a policy says, and what is wrong with it.
//!
//! They read files and print; what is in a policy and what comes out of it is told by [`egret_policy`]. None touches
//! the network. A command is a module; here is what they share. Exit status: 0 fine, 1 the policy says no, 2 the input
//! is bad.

mod check;
mod convert;
mod diff;
mod explain;
mod fmt;
mod list;
mod page;
mod schema;
mod test;

use crate::cli::Output;
use crate::failure::Failure;
use crate::source::{self, Origin};
use check::{Check, check};
use clap::Subcommand;
use convert::{Convert, convert};
use diff::{Diff, diff};
use egret_policy::{Diagnostic, Language, Parsed, Policy, PolicyErrors, visible};
use explain::{Explain, explain};
pub(crate) use explain::{explained, request_of};
use fmt::{Fmt, fmt};
use list::{List, list};
use page::print_data;
pub(crate) use page::{Page, print_json};
use schema::{Schema, schema};
use serde_json::json;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Write as _};
use test::{Test, test};

/// What can be asked about a policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check policies and say what is wrong with them
    Check(Check),
    /// Say what a policy decides about a destination, step by step
    Explain(Explain),
    /// Run the tests that policies carry
    Test(Test),
    /// Say what becomes reachable with another policy, and what no longer is
    Diff(Diff),
    /// Print a policy of another system in Egret's own language
    Convert(Convert),
    /// Bring policies into the layout of the documentation
    Fmt(Fmt),
    /// List the policies that have names
    List(List),
    /// Print the JSON Schema of the policy language, for editors
    Schema(Schema),
}

const FINE: u8 = 0;
const REFUSED: u8 = 1;
const BAD_INPUT: u8 = 2;

/// Does what was asked; returns the exit status.
pub(crate) fn run(command: PolicyCommand) -> u8 {
    match command {
        PolicyCommand::Check(args) => check(&args),
        PolicyCommand::Explain(args) => explain(&args),
        PolicyCommand::Test(args) => test(&args),
        PolicyCommand::Diff(args) => diff(&args),
        PolicyCommand::Convert(args) => convert(&args),
        PolicyCommand::Fmt(args) => fmt(&args),
        PolicyCommand::List(args) => list(&args),
        PolicyCommand::Schema(args) => schema(&args),
    }
}

fn counted(warnings: usize) -> String {
    match warnings {
        1 => "1 warning".to_owned(),
        count => format!("{count} warnings"),
    }
}

/// How a file is called in a sentence: on one line, whatever its name is.
fn shown(file: &str) -> Cow<'_, str> {
    match file {
        "-" => "standard input".into(),
        path => visible(path),
    }
}

struct Loaded {
    policy: Policy,
    warnings: Vec<Diagnostic>,
}

/// Why there is no policy.
enum Bad {
    File(String),
    Policy(PolicyErrors),
}

impl From<PolicyErrors> for Bad {
    fn from(errors: PolicyErrors) -> Self {
        Self::Policy(errors)
    }
}

impl Bad {
    fn tell(&self) -> io::Result<()> {
        let mut page = Page::for_stderr();
        self.write(&mut page);
        writeln!(page, "\n");
        page.tell()
    }

    fn write(&self, page: &mut Page) {
        match self {
            Self::File(message) => write!(page, "error: {message}"),
            Self::Policy(errors) => page.errors(errors),
        }
    }

    /// As an item of a list of files.
    fn in_json(&self, file: &str) -> serde_json::Value {
        let errors = match self {
            Self::Policy(errors) => json!(errors.errors()),
            Self::File(message) => json!([
                { "level": "error", "message": message, "file": file, "line": null, "column": null }
            ]),
        };
        json!({ "file": file, "valid": false, "errors": errors, "warnings": [] })
    }
}

/// Standard input can be read once.
fn one_standard_input<'a>(files: impl IntoIterator<Item = &'a String>) -> Result<(), Bad> {
    match files.into_iter().filter(|file| *file == "-").count() {
        0 | 1 => Ok(()),
        _ => Err(Bad::File(
            "`-` stands for standard input, which can be read once".into(),
        )),
    }
}

fn load(named: &str) -> Result<Loaded, Bad> {
    let Parsed {
        policy, warnings, ..
    } = parse(named)?;
    Ok(Loaded { policy, warnings })
}

/// The policy as `egret run` would have it on this machine: what links lead to is meant too, in tests as well.
fn load_as_run(named: &str) -> Result<Loaded, Bad> {
    let mut loaded = load(named)?;
    source::follow_links(&mut loaded.policy);
    loaded.policy.follow_tested(source::end_of_link);
    Ok(loaded)
}

/// Reads a policy: `FILE`, `FILE#SERVICE`, or a built-in profile.
fn parse(named: &str) -> Result<Parsed, Bad> {
    let origin = match named {
        "-" => Ok(Origin::at(named)),
        _ => Origin::named(named),
    };
    let (path, service, name) = match origin.map_err(|failure| Bad::File(failure.to_string()))? {
        Origin::File {
            path,
            service,
            name,
        } => (path, service, name),
        Origin::BuiltIn(name) => {
            let policy = Policy::built_in(&name);
            let parsed = policy.map(|policy| Parsed {
                policy,
                warnings: Vec::new(),
                language: Language::ToolHive,
                notes: Vec::new(),
            });
            return parsed.ok_or_else(|| Bad::File(format!("there is no profile {name}")));
        }
    };
    let file = path.to_str().unwrap_or(named);
    let text = match file {
        "-" => read_limited(file, io::stdin().lock())?,
        path => match (File::open(path), name) {
            (Ok(open), _) => read_limited(path, open)?,
            (Err(error), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Bad::File(source::named::unknown(&name).to_string()));
            }
            (Err(error), _) => return Err(cannot_read(path, &error)),
        },
    };
    Ok(Policy::parse_service(
        source_name(file),
        &text,
        service.as_deref(),
    )?)
}

/// Reads as much as a policy may have and one octet more, so that a larger one is refused and not cut.
fn read_limited(file: &str, from: impl Read) -> Result<Vec<u8>, Bad> {
    let mut text = Vec::new();
    let most = Policy::MAX_OCTETS as u64 + 1;
    match from.take(most).read_to_end(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(cannot_read(file, &error)),
    }
}

fn cannot_read(file: &str, error: &io::Error) -> Bad {
    let what = format!("cannot read {}", shown(file));
    Bad::File(Failure::because(what, error).to_string())
}

/// How messages and rules name a file.
fn source_name(file: &str) -> &str {
    match file {
        "-" => "<stdin>",
        path => path,
    }
}

fn refuse_input(bad: &Bad, output: Output) -> u8 {
    refuse_all(std::slice::from_ref(bad), output)
}

fn refuse_all(bad: &[Bad], output: Output) -> u8 {
    let told = match output {
        Output::Text => {
            let mut page = Page::for_stderr();
            for bad in bad {
                bad.write(&mut page);
                writeln!(page);
            }
            page.tell()
        }
        Output::Json => {
            let errors = bad.iter().flat_map(|bad| match bad {
                Bad::Policy(errors) => errors.errors().iter().map(|error| json!(error)).collect(),
                Bad::File(message) => vec![json!({ "message": message })],
            });
            print_json(&json!({ "errors": errors.collect::<Vec<_>>() }))
        }
    };
    told.map_or_else(|error| cannot_print(&error), |()| BAD_INPUT)
}

fn tell_all(diagnostics: &[Diagnostic]) -> io::Result<()> {
    let mut page = Page::for_stderr();
    for one in diagnostics {
        page.diagnostic(one);
        writeln!(page, "\n");
    }
    page.tell()
}

/// The result could not be told, so that it must not look fine.
fn cannot_print(error: &io::Error) -> u8 {
    // Standard error may be gone as well; the exit status says it then.
    let _ = writeln!(
        io::stderr(),
        "egret: {}",
        Failure::because("cannot print", error)
    );
    BAD_INPUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_told_in_words() {
        let Err(bad) = load("/nowhere/policy.yaml") else {
            panic!("there is such a file");
        };
        let mut page = Page::new(false);
        bad.write(&mut page);
        assert_eq!(
            page.as_str(),
            "error: cannot read /nowhere/policy.yaml: No such file or directory"
        );
        assert_eq!(shown("-"), "standard input");
        assert_eq!(shown("p\n\u{1b}[2J.yaml"), r"p\n\u{1b}[2J.yaml");
        assert_eq!(
            (counted(1), counted(2)),
            ("1 warning".to_owned(), "2 warnings".to_owned())
        );
    }

    #[test]
    fn a_link_stands_for_what_it_leads_to_as_when_run() {
        let directory = std::env::temp_dir().canonicalize().unwrap();
        let directory = directory.join(format!("egret-links-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        std::fs::write(path("python3.11"), "").unwrap();
        std::os::unix::fs::symlink("python3.11", path("python3")).unwrap();
        let (link, end) = (path("python3"), path("python3.11"));
        let file = path("p.yaml");
        let text = format!(
            "version: 1\nallow:\n\
             - {{host: a.example, by: [{link}]}}\n\
             - {{host: b.example, by: [{end}]}}\n\
             tests:\n\
             - {{allow: a.example, by: {end}}}\n\
             - {{allow: b.example, by: {link}}}\n\
             - {{deny: 'a.example:443', by: /nowhere/python3}}\n"
        );
        std::fs::write(&file, text).unwrap();
        let tested = |loaded: Result<Loaded, Bad>| {
            let Ok(loaded) = loaded else {
                panic!("this is a policy");
            };
            let tested = loaded.policy.run_tests();
            tested.iter().map(|test| test.passed).collect::<Vec<_>>()
        };
        assert_eq!(tested(load_as_run(&file)), [true, true, true]);
        assert_eq!(tested(load(&file)), [false, false, true]);
        assert_eq!(source::end_of_link(&link), Some(end.clone()));
        assert_eq!(source::end_of_link(&end), None);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
