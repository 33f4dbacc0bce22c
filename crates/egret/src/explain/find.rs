//! Which records are meant, and the policy that was in force: looked for in logs, in all their parts, and in what engines keep.

use super::again::asked;
use super::decides;
use crate::container;
use crate::control::{self, Answer, Request};
use crate::failure::Failure;
use crate::logs::{self, parts::Parts};
use egret_gateway::audit::{Event, Record, Verdict};
use egret_policy::{Destination, Target, visible};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a log says about a request.
#[derive(Debug)]
pub(crate) struct Found {
    /// Which log, in words.
    pub(crate) log: String,
    /// The policy that was in force.
    pub(crate) policy: Option<Rc<Record>>,
    /// All records of it, in their order.
    pub(crate) records: Vec<Record>,
    /// The one that says what was decided in the end: a refusal, where there is one.
    pub(crate) decisive: Record,
}

/// What a log says about a destination.
#[derive(Debug)]
pub(super) struct About {
    /// Which log, in words.
    pub(super) log: String,
    /// The policy that was in force last.
    pub(super) policy: Option<Rc<Record>>,
    /// The last decisions about it; on whatever port, if none was named.
    pub(super) records: Vec<Record>,
}

impl About {
    /// The destination that is meant: where no port is named, the one that was asked for last.
    pub(super) fn meant<'d>(&self, destination: &'d str) -> Cow<'d, str> {
        let mut newest_first = self.records.iter().rev();
        match newest_first.find(|record| record.port.is_some()) {
            Some(record) if !names_port(destination) => asked(record).into(),
            _ => destination.into(),
        }
    }
}

/// The records with an id: in a file, or else wherever Egret knows of a log.
pub(crate) fn by_id(id: &str, file: Option<&Path>) -> Result<Found, Failure> {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    if !id
        .split_once('-')
        .is_some_and(|(run, one)| is_part(run) && is_part(one))
    {
        return Err(Failure::bad_input(format!(
            "{id:?} is no id; those of refusals and of the lines of `egret logs` look like k3x9qf-2"
        )));
    }
    let nowhere = |place: &str| {
        Err(Failure::bad_input(format!(
            "nothing in {place} has the id {id}"
        )))
    };
    if let Some(file) = file {
        let found = in_file(file, id)?;
        return found.map_or_else(|| nowhere(&file.display().to_string()), Ok);
    }
    let mut places = running()?;
    for log in logs::newest_first(|_| true)? {
        if !places.contains(&log) {
            places.push(log);
        }
    }
    for log in places {
        match in_file(&log, id) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            // One that cannot be read, or has gone in between, need not be the one that is looked for.
            Err(failure) => say!("egret: {failure}"),
        }
    }
    for sandbox in container::listed(None)? {
        let Some(stream) = container::audit(&sandbox, false)? else {
            continue;
        };
        let mut search = Search::new(id);
        read(BufReader::new(stream), |line| search.see(line))?;
        if let Some(found) = search.found(of_container(&sandbox.name)) {
            return Ok(found);
        }
    }
    nowhere("any log that egret knows of")
}

/// The logs of the sandboxes that run, wherever they are.
fn running() -> Result<Vec<PathBuf>, Failure> {
    let names =
        control::names().map_err(|error| Failure::because("cannot list sandboxes", &error))?;
    let log = |name: &String| match control::ask(name, &Request::Status) {
        Ok(Some(Answer::Status(status))) => Some(status.log.into()),
        // One that ended in between, or does not answer, has left its log elsewhere.
        _ => None,
    };
    Ok(names.iter().filter_map(log).collect())
}

fn in_file(path: &Path, id: &str) -> Result<Option<Found>, Failure> {
    let mut search = Search::new(id);
    each_line(path, |line| search.see(line))?;
    Ok(search.found(path.display().to_string()))
}

fn each_line(path: &Path, see: impl FnMut(&str)) -> Result<(), Failure> {
    Parts::open(path)
        .and_then(|parts| parts.each(see))
        .map_err(|error| cannot_read(path.display(), &error))
}

fn cannot_read(what: impl std::fmt::Display, error: &io::Error) -> Failure {
    Failure::because(format_args!("cannot read the audit log {what}"), error)
}

fn read(lines: impl io::BufRead, mut see: impl FnMut(&str)) -> Result<(), Failure> {
    for line in lines.lines() {
        see(&line.map_err(|error| cannot_read("of a container", &error))?);
    }
    Ok(())
}

fn of_container(name: &str) -> String {
    format!("what its engine keeps of {}", visible(name))
}

/// Looks for the records with an id, and for the policy that was in force at each of them.
struct Search<'a> {
    id: &'a str,
    /// What the ids of the same run begin with.
    run: &'a str,
    policy: Option<Rc<Record>>,
    found: Vec<(Record, Option<Rc<Record>>)>,
}

impl<'a> Search<'a> {
    fn new(id: &'a str) -> Self {
        Self {
            id,
            run: id.split('-').next().unwrap_or(id),
            policy: None,
            found: Vec::new(),
        }
    }

    fn see(&mut self, line: &str) {
        let is_of_run = |id: &str| id.split('-').next() == Some(self.run);
        // Most lines are of neither kind, and need not be read.
        let may_be_policy = line.contains("\"policy\"") && line.contains(self.run);
        if !may_be_policy && !line.contains(self.id) {
            return;
        }
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            return;
        };
        if record.id == self.id {
            self.found.push((record.clone(), self.policy.clone()));
        }
        if record.policy.is_some() && is_of_run(&record.id) {
            self.policy = Some(Rc::new(record));
        }
    }

    fn found(self, log: String) -> Option<Found> {
        let is_denied = |record: &Record| record.verdict == Some(Verdict::Deny);
        let last = |wanted: &dyn Fn(&Record) -> bool| {
            let mut newest_first = self.found.iter().rev();
            newest_first.find(|(record, _)| wanted(record)).cloned()
        };
        let (decisive, policy) = last(&|record| decides(record) && is_denied(record))
            .or_else(|| last(&|record| record.event == Event::Decision))
            .or_else(|| last(&|_| true))?;
        Some(Found {
            log,
            policy,
            records: self.found.into_iter().map(|(record, _)| record).collect(),
            decisive,
        })
    }
}

/// The policy in force of a sandbox, and its last decisions about a destination.
pub(super) fn about(
    sandbox: Option<&str>,
    file: Option<&Path>,
    destination: &str,
) -> Result<About, Failure> {
    let mut look = Look {
        sandbox,
        wanted: Destination::from_user(destination).ok(),
        any_port: !names_port(destination),
        policy: None,
        records: VecDeque::new(),
    };
    let running = match sandbox {
        Some(name) => control::ask(name, &Request::Status)?,
        None => None,
    };
    let path = match (file, running, sandbox) {
        (Some(file), ..) => Some(file.to_owned()),
        (None, Some(Answer::Status(status)), _) => Some(status.log.into()),
        (None, _, Some(name)) => match container::find(name, None)? {
            Some(sandbox) => {
                if let Some(stream) = container::audit(&sandbox, false)? {
                    read(BufReader::new(stream), |line| look.see(line))?;
                }
                return Ok(look.about(of_container(&sandbox.name)));
            }
            None => logs::newest_of(name)?,
        },
        (None, ..) => logs::newest_first(|_| true)?.into_iter().next(),
    };
    let path = path.ok_or_else(|| {
        Failure::bad_input(match sandbox {
            Some(name) => {
                format!("no sandbox named {name} is running, and none has left a log")
            }
            None => "there is no audit log yet".to_owned(),
        })
    })?;
    each_line(&path, |line| look.see(line))?;
    Ok(look.about(path.display().to_string()))
}

struct Look<'a> {
    sandbox: Option<&'a str>,
    wanted: Option<Destination>,
    any_port: bool,
    policy: Option<Rc<Record>>,
    records: VecDeque<Record>,
}

impl Look<'_> {
    fn see(&mut self, line: &str) {
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            return;
        };
        if self
            .sandbox
            .is_some_and(|name| !logs::is_of(name, &record.sandbox))
        {
            return;
        }
        if record.policy.is_some() {
            self.policy = Some(Rc::new(record));
        } else if decides(&record) && self.is_wanted(&record) {
            self.records.push_back(record);
            if self.records.len() > SHOWN {
                self.records.pop_front();
            }
        }
    }

    fn is_wanted(&self, record: &Record) -> bool {
        let Some(wanted) = &self.wanted else {
            return false;
        };
        let same_host = match (wanted.target(), record.host.as_deref()) {
            (Target::Name(name), Some(host)) => host
                .trim_end_matches('.')
                .eq_ignore_ascii_case(name.as_str()),
            (Target::Address(address), Some(host)) => host.parse() == Ok(*address),
            (_, None) => false,
        };
        let same_port = |port: u16| self.any_port || port == wanted.port();
        same_host && record.port.is_none_or(same_port)
    }

    fn about(self, log: String) -> About {
        About {
            log,
            policy: self.policy,
            records: self.records.into(),
        }
    }
}

/// Whether a destination, as a person writes it, says which port is meant.
fn names_port(destination: &str) -> bool {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    destination.contains("://")
        || destination.parse::<Ipv6Addr>().is_err()
            && destination
                .rsplit_once(':')
                .is_some_and(|(_, port)| is_port(port))
}

/// How many of the last decisions are shown.
const SHOWN: usize = 5;
