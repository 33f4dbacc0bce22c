//! `egret logs`: audit records, as they stand in the file or as lines for people.

mod all;
mod filter;
mod ocsf;
pub(crate) mod parts;

pub(crate) use filter::Filter;

use crate::cli::Logs;
use crate::container::{self, Sandbox};
use crate::control::{self, Answer, Request};
use crate::failure::Failure;
use crate::settings::log_directory;
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use egret_gateway::audit::{Event, Record, Verdict, inert_json};
use egret_policy::visible;
use parts::Parts;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// `egret logs`
pub(crate) fn logs(arguments: &Logs) -> Result<ExitCode, Failure> {
    if arguments.all {
        return all::logs(arguments);
    }
    if let Some(name) = &arguments.name
        && control::ask(name.as_str(), &Request::Status)?.is_none()
        && let Some(sandbox) = container::find(name.as_str(), None)?
    {
        return of_container(&sandbox, arguments);
    }
    if arguments.tail.is_some() {
        return Err(Failure::new("--tail is about what a container printed"));
    }
    let path = match (&arguments.file, &arguments.name) {
        (Some(file), _) => file.clone(),
        (None, Some(name)) => of_sandbox(name.as_str())?,
        (None, None) => {
            newest(|_| true)?.ok_or_else(|| Failure::new("there is no audit log yet"))?
        }
    };
    match print(&path, arguments) {
        // Whoever reads us has read enough.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(Stop::Output(error)) => Err(Failure::because("cannot print", &error)),
        Err(Stop::Input(error)) => Err(Failure::because(
            format_args!("cannot read the audit log {}", path.display()),
            &error,
        )),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// What a container printed, or, where that is wanted, what it tried to reach.
fn of_container(sandbox: &Sandbox, arguments: &Logs) -> Result<ExitCode, Failure> {
    let audit = arguments.audit || arguments.filter.is_any() || arguments.output != Form::Text;
    if !audit {
        return container::logs(sandbox, arguments.follow, arguments.tail.as_deref());
    }
    let Some(stream) = container::audit(sandbox, arguments.follow)? else {
        return Err(Failure::new(format!(
            "{} runs without isolation, so that nothing is on record",
            sandbox.name
        )));
    };
    let mut out = io::stdout().lock();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for line in BufReader::new(stream).lines() {
        let line =
            line.map_err(|error| Failure::because("cannot read the audit log", &error))? + "\n";
        match show(&mut out, &line, arguments, colour).and_then(|_| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(Failure::because("cannot print", &error)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The log of a sandbox that runs, or else the newest of that name.
fn of_sandbox(name: &str) -> Result<PathBuf, Failure> {
    if let Some(Answer::Status(status)) = control::ask(name, &Request::Status)? {
        return Ok(status.log.into());
    }
    newest_of(name)?.ok_or_else(|| {
        Failure::new(format!(
            "no sandbox named {name} is running, and none has left a log"
        ))
    })
}

/// The name of a new log: the sandbox's, and the time to the second.
pub(crate) fn file_name(sandbox: &str, now: jiff::Timestamp) -> String {
    format!("{sandbox}-{}.jsonl", now.strftime("%Y%m%dT%H%M%SZ"))
}

/// The sandbox in a name that [`file_name`] made.
fn sandbox_of(file_name: &str) -> Option<&str> {
    const TIME: usize = "-20261121T213000Z".len();
    let stem = file_name.strip_suffix(".jsonl")?;
    stem.get(..stem.len().checked_sub(TIME)?)
}

/// The logs in Egret's own directory of which the name of the sandbox is wanted, the one that was written to last first.
pub(crate) fn newest_first(wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, Failure> {
    let directory = log_directory()?;
    let failed = |error: io::Error| {
        Failure::because(format_args!("cannot list {}", directory.display()), &error)
    };
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let file_name = entry.file_name();
        if !file_name.to_str().and_then(sandbox_of).is_some_and(&wanted) {
            continue;
        }
        let metadata = entry.metadata().map_err(failed)?;
        // Of a run that did not come to its start.
        if metadata.len() == 0 {
            continue;
        }
        found.push((metadata.modified().map_err(failed)?, entry.path()));
    }
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// The newest log of the sandbox of this name, or, if none had it, of the program: `agent-4711` is what a sandbox of `agent` is
/// called if nobody names it.
pub(crate) fn newest_of(name: &str) -> Result<Option<PathBuf>, Failure> {
    let exact = newest(|logged| logged == name)?;
    exact.map_or_else(
        || newest(|logged| is_of(name, logged)),
        |path| Ok(Some(path)),
    )
}

/// Whether a sandbox has this name, or was named after a program of this name.
pub(crate) fn is_of(name: &str, sandbox: &str) -> bool {
    let number = sandbox
        .strip_prefix(name)
        .map(|rest| rest.strip_prefix('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    sandbox == name || number.flatten().is_some_and(is_number)
}

fn newest(wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>, Failure> {
    Ok(newest_first(wanted)?.into_iter().next())
}

/// How records are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// As they stand in the log.
    Json,
    /// As events of OCSF 1.8.0, one a line.
    Ocsf,
}

/// What ended the printing.
enum Stop {
    Input(io::Error),
    Output(io::Error),
}

fn print(path: &Path, arguments: &Logs) -> Result<(), Stop> {
    let mut file = Parts::open(path).map_err(Stop::Input)?;
    let mut out = io::stdout().lock();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut line = String::new();
    let mut last_look = false;
    let mut shown = 0;
    loop {
        let read = file.read_line(&mut line).map_err(Stop::Input)?;
        if read > 0 && line.ends_with('\n') {
            shown += usize::from(show(&mut out, &line, arguments, colour).map_err(Stop::Output)?);
            line.clear();
            continue;
        }
        // At the end, or in the middle of a record that is being written.
        if !arguments.follow || last_look {
            if shown == 0 && arguments.filter.is_any() {
                let what = match arguments.filter.denied {
                    true => "nothing was refused",
                    false => "there is no such record",
                };
                say!("egret: {what}, by {}", path.display());
            }
            return out.flush().map_err(Stop::Output);
        }
        out.flush().map_err(Stop::Output)?;
        last_look = !is_written_to(path);
        if !last_look {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Whether a running sandbox writes to this log.
fn is_written_to(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else {
        return false;
    };
    control::names().unwrap_or_default().iter().any(|name| {
        matches!(control::ask(name, &Request::Status), Ok(Some(Answer::Status(status))) if Path::new(&status.log) == path)
    })
}

/// Prints a record if it is wanted, and says whether it was.
pub(crate) fn show(
    out: &mut impl io::Write,
    line: &str,
    arguments: &Logs,
    colour: bool,
) -> io::Result<bool> {
    let record: Record = match serde_json::from_str(line) {
        Ok(record) => record,
        // Of a newer version, perhaps. It is shown, in quotes, rather than dropped.
        Err(_) => return writeln!(out, "not a record: {line:?}").map(|()| true),
    };
    if !arguments.filter.wants(&record) {
        return Ok(false);
    }
    match arguments.output {
        Form::Json => out.write_all(line.as_bytes())?,
        Form::Ocsf => {
            out.write_all(&inert_json(&ocsf::event(&record)))?;
            out.write_all(b"\n")?;
        }
        Form::Text if arguments.all => {
            let sandbox = plain(&record.sandbox);
            writeln!(out, "{sandbox} {}", text(&record, colour))?;
        }
        Form::Text => writeln!(out, "{}", text(&record, colour))?,
    }
    Ok(true)
}

/// A line of a log as one for people, whatever it is.
pub(crate) fn line_for_people(line: &str, colour: bool) -> String {
    match serde_json::from_str(line) {
        Ok(record) => text(&record, colour),
        Err(_) => format!("not a record: {line:?}"),
    }
}

/// A record as a line. Everything in a record that came from a sandbox has been made harmless when it was written, and is
/// quoted here all the same where it could hold anything.
pub(crate) fn text(record: &Record, colour: bool) -> String {
    let style = match record.verdict {
        _ if !colour => Style::new(),
        Some(Verdict::Deny) => AnsiColor::Red.on_default(),
        Some(Verdict::Allow) => AnsiColor::Green.on_default(),
        None => Style::new().dimmed(),
    };
    let word = match (record.event, record.verdict) {
        (Event::Close, _) => "closed",
        (Event::Policy, _) => "policy",
        (Event::Lifecycle, _) => "sandbox",
        (Event::Finding, _) => "finding",
        (Event::Question, _) => "asking",
        (Event::Dns, Some(Verdict::Allow)) => "lookup",
        (_, Some(Verdict::Allow)) if record.dialled.is_none() => "failed",
        (_, Some(Verdict::Allow)) => "allowed",
        (_, _) => "refused",
    };
    let mut parts = vec![plain(&record.time), format!("{style}{word:<7}{style:#}")];
    if let Some(host) = &record.host {
        let host = plain(host);
        parts.push(match record.port {
            Some(port) if host.contains(':') => format!("[{host}]:{port}"),
            Some(port) => format!("{host}:{port}"),
            None => host,
        });
    }
    let request = record.method.as_deref().zip(record.path.as_deref());
    parts.extend(request.map(|(method, path)| plain(&format!("{method} {path}"))));
    let program = record.executable.as_deref();
    parts.extend(program.map(|program| format!("by {}", plain(program))));
    parts.extend(record.action.as_deref().map(plain));
    parts.extend(record.reason.as_deref().map(plain));
    parts.extend(
        record
            .rule
            .as_deref()
            .map(|rule| format!("({})", plain(rule))),
    );
    parts.extend(record.dialled.map(|address| format!("-> {address}")));
    if let (Some(up), Some(down)) = (record.bytes_up, record.bytes_down) {
        parts.push(format!("{up} B up, {down} B down"));
    }
    parts.extend(record.duration_ms.map(|duration| format!("{duration} ms")));
    if record.host.is_none() || word == "failed" {
        // Of a rejected policy the first mistake; the record has all.
        let message = record.message.as_deref().unwrap_or_default();
        parts.extend(
            message
                .lines()
                .filter(|line| !line.is_empty())
                .take(2)
                .map(plain),
        );
    }
    parts.push(format!("[{}]", plain(&record.id)));
    parts.join(" ")
}

fn plain(text: &str) -> String {
    visible(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_asked_for_what() {
        let record = r#"{"v": 1, "time": "2026-11-22T00:00:00Z", "id": "x1", "sandbox": "s", "event": "decision", "verdict": "deny",
            "reason": "denied.request", "rule": "p.yaml:3", "host": "a.example", "port": 80, "door": "forward", "method": "PUT", "path": "/x",
            "executable": "/usr/bin/curl", "ancestors": ["/bin/sh"]}"#;
        let record: Record = serde_json::from_str(record).unwrap();
        assert_eq!(
            text(&record, false),
            "2026-11-22T00:00:00Z refused a.example:80 PUT /x by /usr/bin/curl denied.request (p.yaml:3) [x1]"
        );
    }

    #[test]
    fn nothing_in_a_record_acts_on_what_shows_it() {
        let acts = r"\u001b[2J\u202e\n";
        let texts = [
            "time",
            "id",
            "sandbox",
            "reason",
            "rule",
            "note",
            "host",
            "executable",
        ];
        let more = [
            "method", "path", "query", "limit", "action", "message", "hint",
        ];
        let fields = texts.iter().chain(&more);
        let fields: Vec<_> = fields
            .map(|name| format!(r#""{name}": "{acts}""#))
            .collect();
        for event in ["decision", "finding", "close"] {
            let record = format!(r#"{{"v": 1, "event": "{event}", {}}}"#, fields.join(", "));
            let record: Record = serde_json::from_str(&record).unwrap();
            let shown = text(&record, false);
            assert!(!shown.contains(egret_policy::is_hidden), "{shown:?}");
            assert!(shown.contains(r"\u{202e}"), "{shown}");
        }
    }

    #[test]
    fn a_log_is_found_by_the_whole_name_of_its_sandbox() {
        let now = jiff::Timestamp::from_second(1_795_000_000).unwrap();
        for name in ["agent", "agent-2", "a.b", "x-20261121t213000z"] {
            assert_eq!(sandbox_of(&file_name(name, now)), Some(name));
        }
        assert!(is_of("agent", "agent") && is_of("agent", "agent-4711"));
        for other in [
            "agent-",
            "agent-b",
            "agent4711",
            "my-agent-4711",
            "agent-4711-x",
        ] {
            assert!(!is_of("agent", other), "{other}");
        }
        assert_eq!(sandbox_of("notes.txt"), None);
        assert_eq!(sandbox_of(".jsonl"), None);
    }
}
