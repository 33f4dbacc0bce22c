//! `egret init`: a first policy, from what is ready and what its user names.
//!
//! Three questions on a terminal, or their answers as options. What is written is a policy like any other, in the user's
//! own directory or in a new file, and never over one that is there.

mod ready;

use crate::failure::Failure;
use crate::files;
use crate::settings;
use crate::source::named;
use clap::Args;
use egret_policy::{Addition, List, Policy, amend};
use ready::{ALL, Kind, Ready};
use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `egret init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  egret init                                          # asks
  egret init --list                                   # what is ready
  egret init agent --for claude-code --for npm --for github --allow docs.example.com
  egret init --for pypi -o ./pypi.yaml

A policy that is there is never overwritten: `egret learn --merge NAME` and an
editor change it.")]
pub(crate) struct Init {
    /// What the policy is called; as the first that it is for, if nothing is said
    name: Option<String>,
    /// Begin with what is ready for this program, model, registry or forge (see --list)
    #[arg(long = "for", value_name = "READY")]
    parts: Vec<String>,
    /// Allow this destination as well, on ports 80 and 443 unless it says which
    #[arg(long, value_name = "HOST[:PORT,…]")]
    allow: Vec<String>,
    /// Write it to this file instead of among your policies
    #[arg(short, long, value_name = "FILE", conflicts_with = "name")]
    output: Option<PathBuf>,
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
    /// List what is ready, and write nothing
    #[arg(long)]
    list: bool,
}

/// `egret init`
pub(crate) fn init(arguments: Init) -> Result<ExitCode, Failure> {
    if arguments.list {
        return list();
    }
    let wanted = Wanted::of(&arguments)?;
    let (name, file) = match (&arguments.output, &wanted.name) {
        (Some(file), _) => (None, file.clone()),
        (None, Some(name)) => (Some(name.as_str()), named::path(name)?),
        (None, None) => return Err(nothing_said()),
    };
    if let Some(name) = name.filter(|name| Policy::built_in(name).is_some()) {
        return Err(Failure::new(format!(
            "`{name}` is built in; choose another name"
        )));
    }
    if let (Some(_), Some(directory)) = (name, file.parent()) {
        settings::make_private(directory)?;
    }
    let title = name
        .map(str::to_owned)
        .or_else(|| Some(file.file_stem()?.to_str()?.to_owned()));
    let title = title.filter(|title| named::is_name(title));
    let text = wanted.policy(title.as_deref().unwrap_or("first"))?;
    write(&file, &text)?;
    let shown = match name {
        Some(name) => name.to_owned(),
        None => file.display().to_string(),
    };
    say!("egret: {} is written; this runs with it:", file.display());
    print(&format!("{}\n", wanted.command(&as_policy(&shown))))?;
    Ok(ExitCode::SUCCESS)
}

/// How a file is named to `--policy`: with a slash, or it would be a name.
fn as_policy(shown: &str) -> String {
    match named::is_name(shown) || shown.contains(['/', '.']) {
        true => shown.to_owned(),
        false => format!("./{shown}"),
    }
}

/// What goes into the policy, and how it is called.
struct Wanted {
    parts: Vec<&'static Ready>,
    allow: Vec<String>,
    name: Option<String>,
}

impl Wanted {
    /// What the options say, and what else is answered.
    fn of(arguments: &Init) -> Result<Self, Failure> {
        let mut wanted = Self {
            parts: Vec::new(),
            allow: Vec::new(),
            name: arguments.name.clone(),
        };
        for name in &arguments.parts {
            wanted.part(name)?;
        }
        for entry in &arguments.allow {
            wanted.entry(entry)?;
        }
        let said = !(wanted.parts.is_empty() && wanted.allow.is_empty());
        let asks = !arguments.yes && io::stdin().is_terminal() && io::stderr().is_terminal();
        if !said && !asks {
            return Err(nothing_said());
        }
        if !said {
            wanted.ask_for_program()?;
            wanted.ask_for_more()?;
        }
        let first = wanted.parts.first().map(|ready| ready.name.to_owned());
        if arguments.output.is_none() && wanted.name.is_none() {
            wanted.name = match asks {
                true => Some(ask_for_name(first.as_deref().unwrap_or("first"))?),
                false => first,
            };
        }
        match wanted.name {
            None if arguments.output.is_none() => Err(Failure::new(
                "what is the policy to be called? Give a NAME, or a file with -o",
            )),
            _ => Ok(wanted),
        }
    }

    fn part(&mut self, name: &str) -> Result<(), Failure> {
        let ready = ready::named(name).ok_or_else(|| {
            Failure::new(format!(
                "nothing is ready for {name:?}; `egret init --list` says for what there is"
            ))
        })?;
        if !self.parts.contains(&ready) {
            self.parts.push(ready);
        }
        Ok(())
    }

    fn entry(&mut self, entry: &str) -> Result<(), Failure> {
        Policy::deny_all()
            .add_allow_flag(entry)
            .map_err(|error| Failure::new(error.to_string()))?;
        self.allow.push(entry.to_owned());
        Ok(())
    }

    /// A word of an answer: something that is ready, or else a destination.
    fn word(&mut self, word: &str) -> Result<(), Failure> {
        match ready::named(word) {
            Some(_) => self.part(word),
            None if word.contains(['.', ':']) => self.entry(word),
            None => {
                let failure = Failure::new(format!(
                    "{word:?} is neither one of these nor a host, as in db.example.com:5432"
                ));
                Err(
                    match ready::ALL.iter().find(|ready| ready.name.starts_with(word)) {
                        Some(ready) => failure.and(format_args!("there is {}", ready.name)),
                        None => failure,
                    },
                )
            }
        }
    }

    fn ask_for_program(&mut self) -> Result<(), Failure> {
        say!("What will run? One of these, or nothing if it is something else:\n");
        show(&[Kind::Agent]);
        self.answers("Program")
    }

    fn ask_for_more(&mut self) -> Result<(), Failure> {
        say!(
            "\nWhat may it reach besides? Some of these, hosts (db.example.com:5432), and services of this\n\
             machine (host.docker.internal:5432), with blanks between:\n"
        );
        show(&[Kind::Model, Kind::Registry, Kind::Forge]);
        self.answers("Besides")
    }

    /// Takes the words of an answer, and asks again if one of them cannot be taken.
    fn answers(&mut self, question: &str) -> Result<(), Failure> {
        loop {
            let answer = ask(question, "")?;
            let words = answer
                .split([' ', ',', '\t'])
                .filter(|word| !word.is_empty());
            let mut wanted = Self {
                parts: self.parts.clone(),
                allow: self.allow.clone(),
                name: self.name.clone(),
            };
            match words
                .map(|word| wanted.word(word))
                .collect::<Result<Vec<_>, _>>()
            {
                Ok(_) => {
                    *self = wanted;
                    return Ok(());
                }
                Err(failure) => say!("egret: {failure}"),
            }
        }
    }

    /// The policy's text.
    fn policy(&self, title: &str) -> Result<String, Failure> {
        let text = ready::composed(title, &self.parts)?;
        let addition = |entry: &String| Addition {
            list: List::Allow,
            entry: entry.clone(),
            comment: None,
        };
        let additions: Vec<_> = self.allow.iter().map(addition).collect();
        amend(title, text.as_bytes(), &additions)
            .map_err(|error| Failure::because("cannot make the policy", &error))
    }

    /// How the program is run with it.
    fn command(&self, policy: &str) -> String {
        let program = self.parts.iter().find(|ready| ready.kind == Kind::Agent);
        let home = settings::home();
        let there = |path: &&&str| {
            files::at_home(Path::new(path), home.as_deref()).is_ok_and(|path| path.exists())
        };
        let writes = program.map(|ready| ready.writes).unwrap_or_default().iter();
        let writes: String = writes
            .filter(there)
            .map(|path| format!(" --write {path}"))
            .collect();
        let program = program.map_or("COMMAND", |ready| ready.command);
        format!("egret run --policy {policy}{writes} -- {program}")
    }
}

fn ask_for_name(usual: &str) -> Result<String, Failure> {
    loop {
        let answer = ask("\nWhat is the policy to be called?", usual)?;
        match named::path(&answer) {
            Ok(path) if path.exists() => {
                say!("egret: there is a policy called `{answer}`; choose another name")
            }
            Ok(_) => return Ok(answer),
            Err(failure) => say!("egret: {failure}"),
        }
    }
}

/// Asks, and returns the answer, or what is usual if there is none.
fn ask(question: &str, usual: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::because("cannot ask", &error);
    let offer = match usual {
        "" => String::new(),
        usual => format!(" [{usual}]"),
    };
    let mut stderr = io::stderr();
    write!(stderr, "{question}{offer}: ")
        .and_then(|()| stderr.flush())
        .map_err(failed)?;
    let mut answer = String::new();
    if io::stdin().read_line(&mut answer).map_err(failed)? == 0 {
        return Err(Failure::new("nothing was answered, and nothing is written"));
    }
    let answer = answer.trim();
    Ok(if answer.is_empty() { usual } else { answer }.to_owned())
}

fn nothing_said() -> Failure {
    Failure::new(
        "nothing says what the policy is for, and there is no terminal to ask on: egret init NAME --for READY --allow HOST[:PORT], each as \
         often as needed (`egret init --list` has what is ready)",
    )
}

/// Writes a file that is not there yet, for this user alone.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(format!(
            "{} is there already, and stays as it is; choose another name",
            path.display()
        )),
        _ => Failure::because(format_args!("cannot write {}", path.display()), &error),
    })
}

/// Shows what is ready of some kinds, on standard error.
fn show(kinds: &[Kind]) {
    for ready in ALL.iter().filter(|ready| kinds.contains(&ready.kind)) {
        say!("  {:13} {}", ready.name, ready.title());
    }
}

fn list() -> Result<ExitCode, Failure> {
    let lines = ALL
        .iter()
        .map(|ready| format!("{:13} {}\n", ready.name, ready.title()));
    print(&lines.collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::because("cannot print", &error))
}
