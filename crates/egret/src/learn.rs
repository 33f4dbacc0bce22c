//! `egret learn`: a run that may reach everything public, and then the smallest policy that would have allowed it.
//!
//! A run that learns is `egret run` with a policy whose default is `allow-public`, and no other. What it did is read from its
//! audit log afterwards, as it is from logs of past runs: what is learnt is what is on record. What entries are made of that is
//! [`egret_policy::Lesson`]'s; here are the command line, the records and the file that is written.

mod place;
mod records;

use crate::cli;
use crate::failure::Failure;
use crate::logs::parts::Parts;
use crate::source::{self, Origin, named};
use clap::Args;
use egret_policy::{AmendError, Learnt, Policy, SandboxId, amend};
use place::Place;
use records::Reader;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) const USAGE: &str = "\
egret learn [OPTIONS] -- COMMAND [ARG]...
       egret learn [OPTIONS] IMAGE [ARG]...
       egret learn [-o FILE | --merge FILE|NAME] [--generalize] --from-log FILE...";

pub(crate) const HELP: &str = "\
Runs what `egret run` would run, with its options, while every public destination
is open and on record. This machine, private networks and cloud metadata stay
shut. When it ends, however that is, the smallest policy that would have allowed
it is written, with counts and programs beside each entry, and LOOK above those
that deserve one. What was refused stands at its end.

Examples:
  egret learn -- npm install                     # then: egret run --policy npm -- npm install
  egret learn -o agent.yaml --generalize -- ./agent
  egret learn --merge agent.yaml -- ./agent      # its denials stay in force
  egret learn ghcr.io/github/github-mcp-server
  egret learn --from-log ~/.local/state/egret/logs/*.jsonl

Do this with programs that you would run without a policy, too: what it may reach
while it learns, it may send things to.";

#[derive(Debug, Args)]
#[command(mut_arg("learn", |learn| learn.hide(true)))]
pub(crate) struct Learn {
    #[command(flatten, next_help_heading = "Options for learning")]
    wishes: Wishes,
    #[command(flatten, next_help_heading = "Options")]
    run: cli::Run,
}

/// What is to be learnt, and where it goes.
#[derive(Debug, Default, Args)]
pub(crate) struct Wishes {
    /// Write the policy to this file; otherwise it is one of yours, called like the program or --name
    #[arg(short = 'o', long, value_name = "FILE", conflicts_with = "merge")]
    to: Option<PathBuf>,
    /// Add to this policy, which is in force meanwhile; its comments and its order stay
    #[arg(long, value_name = "FILE|NAME", conflicts_with = "policy")]
    merge: Option<String>,
    /// Write a wildcard for three or more names that differ in their first label only
    #[arg(long)]
    generalize: bool,
    /// Run nothing, and learn from audit logs of past runs; `-` is standard input
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "policy")]
    from_log: Vec<PathBuf>,
}

/// What `egret learn` comes to.
#[derive(Debug)]
pub(crate) enum Next {
    /// Something to run, which has a [`Learner`].
    Run(Box<cli::Run>),
    /// It was about logs, and is done.
    Done(ExitCode),
}

/// `egret learn`, up to what there is to run.
pub(crate) fn learn(arguments: Learn, given: &[OsString]) -> Result<Next, Failure> {
    let Learn { wishes, mut run } = arguments;
    if run.learn.is_some() {
        return Err(Failure::new(
            "--learn FILE is of `egret run`; `egret learn` has -o FILE",
        ));
    }
    if wishes.from_log.is_empty() {
        run.learner = Some(Learner::new(&wishes, &mut run, given)?);
        return Ok(Next::Run(Box::new(run)));
    }
    match run.words.is_empty() && run.container.from_config.is_none() {
        true => from_logs(&wishes).map(Next::Done),
        false => Err(Failure::new(
            "--from-log is about runs that are over; leave out what is to be run, or --from-log",
        )),
    }
}

/// `egret run --learn FILE`
pub(crate) fn to_file(run: &mut cli::Run, given: &[OsString]) -> Result<(), Failure> {
    if let Some(file) = run.learn.take() {
        let wishes = Wishes {
            to: Some(file),
            ..Wishes::default()
        };
        run.learner = Some(Learner::new(&wishes, run, given)?);
    }
    Ok(())
}

/// What a run that learns has besides.
#[derive(Debug)]
pub(crate) struct Learner {
    target: Target,
    generalize: bool,
    /// What is run, for the header.
    subject: String,
    /// The words of a run with what was learnt, but for its policy.
    again: Vec<String>,
    reader: Reader,
    /// The log, from the first record of the run on, and whose records they are.
    log: Option<(Parts, SandboxId)>,
}

/// Where what is learnt goes.
#[derive(Debug)]
enum Target {
    /// One of the user's own policies, which is new.
    Named(String, Place),
    /// A file, whatever is in it.
    File(Place),
    /// A policy that was there, with this text.
    Merged(Origin, Place, Vec<u8>),
    Printed,
}

impl Learner {
    /// Finds out what has to be known before anything runs, and tells the run that it learns.
    fn new(wishes: &Wishes, run: &mut cli::Run, given: &[OsString]) -> Result<Self, Failure> {
        if run.container.detach {
            return Err(Failure::new(
                "what is learnt is written when the run ends, which --detach does not wait for; leave it out, or learn from the log: \
                 `egret logs --audit --output json NAME | egret learn --from-log -`",
            ));
        }
        if run
            .container
            .restart
            .as_ref()
            .is_some_and(|when| when != "no")
        {
            return Err(Failure::new(
                "--restart: a sandbox that learns is removed when it ends, for everything public is open to it",
            ));
        }
        if run.process.observe.log_keep.is_some() {
            return Err(Failure::new(
                "--log-keep: what is learnt is read from the log, of which nothing may go missing",
            ));
        }
        let config = run.container.from_config.as_ref();
        let first = run.words.first().map(OsString::as_os_str);
        let subject = match first.or(config.map(|file| file.as_os_str())) {
            Some(word) => subject_of(word),
            None => {
                return Err(Failure::new(
                    "there is nothing to run: give an image, or a command after `--`",
                ));
            }
        };
        let target = Target::new(
            wishes,
            Some(run.options.name.as_deref().unwrap_or(&subject)),
        )?;
        if let Target::Merged(..) = target {
            run.options.policy.clone_from(&wishes.merge);
        }
        run.learning = true;
        // Nobody is to start it again, with everything public open to it.
        run.container.rm |= !run.is_command(given);
        run.process.record_programs |= run.is_command(given);
        Ok(Self {
            target,
            generalize: wishes.generalize,
            subject,
            // As it was typed: settings have their place in the next run by themselves.
            again: words_of(&std::env::args_os().collect::<Vec<_>>(), run.words.len()),
            reader: Reader::default(),
            log: None,
        })
    }

    /// The path by which the file is known that will be written.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.target.place().map(Place::named)
    }

    /// Notes where the records of a sandbox will be, before the first of them is written.
    pub(crate) fn follow(&mut self, log: &Path, sandbox: &SandboxId) -> Result<(), Failure> {
        let there = log.metadata().map_err(|error| unreadable(log, &error))?;
        if !there.is_file() {
            return Err(Failure::new(format!(
                "{} is no file that could be read again, and what is learnt is read from the audit log",
                log.display()
            )));
        }
        let parts = Parts::open_behind(log).map_err(|error| unreadable(log, &error))?;
        self.log = Some((parts, sandbox.clone()));
        Ok(())
    }

    /// Learns from records that are at hand, which are in a log that is called so.
    pub(crate) fn read(&mut self, records: &[u8]) -> Result<(), Failure> {
        self.reader
            .read(records)
            .map_err(|error| Failure::because("cannot read the audit log", &error))
    }

    /// Writes what was learnt, and says where it is and what is to be done with it. `log` is where all of it is on record.
    pub(crate) fn finish(mut self, log: &str) -> Result<(), Failure> {
        if let Some((parts, sandbox)) = self.log.take() {
            let name = Some(sandbox.as_str());
            parts
                .each(|line| self.reader.line(line.as_bytes(), name))
                .map_err(|error| unreadable(Path::new(log), &error))?;
        }
        let what = format!(
            "What `{}` reached while everything public was open to it",
            self.subject
        );
        let written = self.target.write(&self.reader, self.generalize, &what);
        let learnt = written.map_err(|failure| {
            failure.and(format_args!(
                "nothing is lost: `egret learn --from-log {log}` learns the same"
            ))
        })?;
        told(&learnt, &self.target);
        if let Some(place) = self.target.place() {
            let policy = self.target.policy();
            say!(
                "egret: look through {}, and then run it by what was learnt:\n  {}",
                place.named().display(),
                command(&self.again, &policy)
            );
        }
        Ok(())
    }
}

/// `egret learn --from-log FILE…`
fn from_logs(wishes: &Wishes) -> Result<ExitCode, Failure> {
    let target = Target::new(wishes, None)?;
    let mut reader = Reader::default();
    for path in &wishes.from_log {
        let read = match path.as_os_str() == "-" {
            true => reader.read(io::stdin().lock()),
            false => Parts::open(path)
                .and_then(|parts| parts.each(|line| reader.line(line.as_bytes(), None))),
        };
        read.map_err(|error| unreadable(path, &error))?;
    }
    if reader.unknown > 0 {
        say!(
            "egret: {} lines are no records of an audit log, and were passed over",
            reader.unknown
        );
    }
    let what = match wishes.from_log.len() {
        1 => "What an audit log has on record".to_owned(),
        logs => format!("What {logs} audit logs have on record"),
    };
    let learnt = target.write(&reader, wishes.generalize, &what)?;
    told(&learnt, &target);
    Ok(ExitCode::SUCCESS)
}

impl Target {
    /// By what was asked for; without that a policy called `name`, or, without a name, standard output.
    fn new(wishes: &Wishes, name: Option<&str>) -> Result<Self, Failure> {
        match (&wishes.to, &wishes.merge, name) {
            (Some(file), _, _) if file.as_os_str() == "-" => Ok(Self::Printed),
            (Some(file), _, _) => Ok(Self::File(Place::new(file)?)),
            (None, Some(policy), _) => Self::merged(policy),
            (None, None, Some(name)) => Self::named(name),
            (None, None, None) => Ok(Self::Printed),
        }
    }

    fn merged(policy: &str) -> Result<Self, Failure> {
        let origin = Origin::named(policy)?;
        let Origin::File {
            path,
            service: None,
            ..
        } = &origin
        else {
            return Err(Failure::new(format!(
                "--merge {policy}: only a policy in a file of its own can be added to"
            )));
        };
        let text = origin.read()?;
        let place = Place::new(path)?;
        // That nothing can be added to it is better known before the run.
        amend(policy, &text, &[]).map_err(|error| not_amended(policy, &error))?;
        Ok(Self::Merged(origin, place, text))
    }

    fn named(name: &str) -> Result<Self, Failure> {
        let name = name_for(name).ok_or_else(|| {
            Failure::new(format!(
                "`{name}` is no name for a policy; say where it goes with -o FILE, or --name NAME"
            ))
        })?;
        let path = named::path(&name)?;
        crate::settings::make_private(&named::directory()?)?;
        let place = Place::new(&path)?;
        match place.is_taken() {
            true => Err(Failure::new(format!(
                "there is a policy called `{name}` already: add to it with --merge {name}, or write another one with -o FILE or --name NAME"
            ))),
            false => Ok(Self::Named(name, place)),
        }
    }

    fn place(&self) -> Option<&Place> {
        match self {
            Self::Named(_, place) | Self::File(place) | Self::Merged(_, place, _) => Some(place),
            Self::Printed => None,
        }
    }

    /// As `--policy` takes it.
    fn policy(&self) -> String {
        match self {
            Self::Named(name, _) => name.clone(),
            Self::Merged(origin, ..) => origin.to_string(),
            Self::File(place) => {
                let path = place.named().to_string_lossy();
                match path.contains(['/', '.']) {
                    true => path.into_owned(),
                    false => format!("./{path}"),
                }
            }
            Self::Printed => "-".to_owned(),
        }
    }

    /// Writes what was read; `what` begins the header of a new policy.
    fn write(&self, reader: &Reader, generalize: bool, what: &str) -> Result<Learnt, Failure> {
        let lesson = &reader.lesson;
        if let Self::Merged(origin, place, text) = self {
            if origin.read()? != *text {
                return Err(Failure::new(format!(
                    "{origin} was changed meanwhile, and stays as it is now"
                )));
            }
            let mut policy = origin.parse(text)?;
            source::follow_links(&mut policy);
            let learnt = lesson.learnt(Some(&policy.compile()), generalize);
            let name = origin.to_string();
            let amended = amend(&name, text, &learnt.additions)
                .map_err(|error| not_amended(&name, &error))?;
            place.write(&amended)?;
            return Ok(learnt);
        }
        let learnt = lesson.learnt(None, generalize);
        let name = match self {
            Self::Named(name, _) => Some(name.as_str()),
            _ => None,
        };
        let text = learnt
            .policy(name, &header(what, &learnt))
            .map_err(|error| Failure::because("cannot write down what was learnt", &error))?;
        match self {
            Self::Named(_, place) => place.create(&text)?,
            Self::File(place) | Self::Merged(_, place, _) => place.write(&text)?,
            Self::Printed => io::stdout()
                .write_all(text.as_bytes())
                .and_then(|()| io::stdout().flush())
                .map_err(|error| Failure::because("cannot print", &error))?,
        }
        Ok(learnt)
    }
}

/// What stands above a new policy.
fn header(what: &str, learnt: &Learnt) -> Vec<String> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    let entries = learnt.additions.len();
    let mut header = vec![format!(
        "{what}: {}, for which {} enough. Learnt by egret {} on {now}.",
        counted(learnt.connections, "connection"),
        if entries == 1 {
            "1 entry is".to_owned()
        } else {
            format!("{entries} entries are")
        },
        env!("CARGO_PKG_VERSION"),
    )];
    if learnt.marked > 0 {
        header.push("Look through it before it is used, first at what is marked LOOK; take out what is not needed.".to_owned());
    }
    header
}

/// Says what was learnt. What has no place in a policy that is added to is told here.
fn told(learnt: &Learnt, target: &Target) {
    let entries = match learnt.additions.len() {
        0 => "nothing that is not allowed already".to_owned(),
        1 => "1 entry".to_owned(),
        many => format!("{many} entries"),
    };
    let entries = match (target, learnt.additions.len()) {
        (Target::Merged(..), _) | (_, 1..) => entries,
        _ => "nothing: nothing public was reached, and the policy allows nothing".to_owned(),
    };
    let marked = match learnt.marked {
        0 => "",
        1 => ", of which one is marked LOOK",
        _ => ", of which some are marked LOOK",
    };
    say!("egret: learnt {entries}{marked}");
    let beside = learnt.not_opened.iter().chain(&learnt.refused);
    match target {
        Target::Merged(..) => beside.for_each(|line| say!("egret: {line}")),
        _ => match beside.count() {
            0 => {}
            more => say!(
                "egret: {} asked for that it does not open: its end says which, and why",
                counted(u64::try_from(more).unwrap_or(u64::MAX), "destination")
            ),
        },
    }
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

fn not_amended(policy: &str, error: &AmendError) -> Failure {
    match error {
        AmendError::Policy(errors) => {
            Failure::new(format!("the policy {policy} cannot be added to\n{errors}"))
        }
        error => Failure::new(error.to_string()),
    }
}

fn unreadable(log: &Path, error: &io::Error) -> Failure {
    Failure::because(
        format_args!("cannot read the audit log {}", log.display()),
        error,
    )
}

/// What is run, in a word: the file name of a program, the repository of an image.
fn subject_of(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let last = word
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    let end = last.find([':', '@']).unwrap_or(last.len());
    egret_policy::visible(last.get(..end).unwrap_or(last)).into_owned()
}

/// The name of a policy that is called after something.
fn name_for(subject: &str) -> Option<String> {
    let stem = subject.trim_end_matches(".json");
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    let name: String = stem.chars().map(plain).collect();
    let name = name.trim_matches(['-', '_']).to_owned();
    (named::is_name(&name) && Policy::built_in(&name).is_none()).then_some(name)
}

/// The words of a command line but for egret itself, what learning needs, and the policy.
fn words_of(given: &[OsString], of_program: usize) -> Vec<String> {
    const WITH_VALUE: [&str; 6] = [
        "-o",
        "--to",
        "--merge",
        "--learn",
        "--policy",
        "--permission-profile",
    ];
    let options = given.len().saturating_sub(of_program);
    let mut words = Vec::new();
    let mut given = given
        .iter()
        .map(|word| word.to_string_lossy())
        .enumerate()
        .skip(2);
    while let Some((index, word)) = given.next() {
        let option = word.split('=').next().unwrap_or_default();
        if index >= options {
            words.push(word.into_owned());
        } else if WITH_VALUE.contains(&&*word) {
            given.next();
        } else if !(word == "--generalize"
            || WITH_VALUE.contains(&option)
            || word.starts_with("-o"))
        {
            words.push(word.into_owned());
        }
    }
    words
}

/// A command line for a shell.
fn command(words: &[String], policy: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let quoted = |word: &str| match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words = words.iter().map(|word| quoted(word));
    let words: Vec<_> = std::iter::once(quoted(policy)).chain(words).collect();
    format!("egret run --policy {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_called_after_what_is_run() {
        #[rustfmt::skip]
        let table = [
            ("npm", "npm", Some("npm")),
            ("./my agent.py", "my agent.py", Some("my-agent-py")),
            ("/opt/x/run.sh", "run.sh", Some("run-sh")),
            ("ghcr.io/github/github-mcp-server:v1@sha256:0", "github-mcp-server", Some("github-mcp-server")),
            ("localhost:5000/x", "x", Some("x")),
            ("run.json", "run.json", Some("run")),
            ("network", "network", None),
            ("..", "..", None),
            ("", "", None),
        ];
        for (word, subject, name) in table {
            assert_eq!(subject_of(OsStr::new(word)), subject);
            assert_eq!(name_for(subject).as_deref(), name, "{word}");
        }
    }

    #[test]
    fn the_next_command_is_the_same_without_what_learning_needs() {
        #[rustfmt::skip]
        let table = [
            ("egret learn -- npm install", 2, "egret run --policy p -- npm install"),
            ("egret learn -o p --generalize --write x -- npm -o y", 3, "egret run --policy p --write x -- npm -o y"),
            ("egret learn -op --merge=q --deny a.b -- x", 1, "egret run --policy p --deny a.b -- x"),
            ("egret run --learn p --policy q --log-file l -- x", 1, "egret run --policy p --log-file l -- x"),
            ("egret learn -e A=b -v x:/y image $c", 2, "egret run --policy p -e A=b -v x:/y image '$c'"),
        ];
        for (given, of_program, expected) in table {
            let given: Vec<OsString> = given.split(' ').map(OsString::from).collect();
            assert_eq!(command(&words_of(&given, of_program), "p"), expected);
        }
        assert_eq!(
            command(&["it's".to_owned(), String::new()], "./p q"),
            "egret run --policy './p q' 'it'\\''s' ''"
        );
    }
}
