//! Who reads the log while it is written, and compares it with what the servers see.
//!
//! It is the servers themselves: when the first byte of a connection arrives, they look whether the file has a decision for
//! it by then. Connections are told apart by their names, of which there are a great many; of one name there may be as many
//! connections as there are decisions, at any time.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use serde::Deserialize;

use super::tally::{Account, Wrong};

/// A reader of the log.
pub(crate) struct Witness {
    path: PathBuf,
    log: Option<File>,
    /// A line that is not complete.
    rest: Vec<u8>,
    pub(crate) account: Account,
    pub(crate) wrong: Wrong,
    /// Decisions that allowed a connection, and connections over which something came, by name.
    allowed: HashMap<String, (u64, u64)>,
    /// Names whose being asked about is on record.
    asked: HashSet<String>,
    /// The port of each connection that has no end yet, by id.
    open: HashMap<String, u16>,
}

#[derive(Deserialize)]
struct Line<'a> {
    id: &'a str,
    event: &'a str,
    verdict: Option<&'a str>,
    action: Option<&'a str>,
    reason: Option<&'a str>,
    #[serde(default)]
    host: std::borrow::Cow<'a, str>,
    #[serde(default)]
    port: u16,
    dialled: Option<&'a str>,
    #[serde(default)]
    bytes_up: u64,
    #[serde(default)]
    bytes_down: u64,
}

impl Witness {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            log: None,
            rest: Vec::new(),
            account: Account::default(),
            wrong: Wrong::default(),
            allowed: HashMap::new(),
            asked: HashSet::new(),
            open: HashMap::new(),
        }
    }

    /// Something came for `host`.
    pub(crate) fn came(&mut self, host: &str) {
        self.read();
        let (allowed, came) = self.allowed.entry(host.to_owned()).or_default();
        *came += 1;
        if came > allowed {
            let sentence = format!("bytes for {host} came before a decision was on record");
            self.wrong.add(sentence);
        }
    }

    /// A question came for the addresses of `host`.
    pub(crate) fn asked(&mut self, host: &str) {
        if !self.asked.contains(host) {
            self.read();
            if !self.asked.contains(host) {
                self.wrong.add(format!(
                    "{host} was asked about, and that was not on record"
                ));
            }
        }
    }

    /// Reads what is new.
    pub(crate) fn read(&mut self) {
        if self.log.is_none() {
            self.log = File::open(&self.path).ok();
        }
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.read_to_end(&mut self.rest) {
            self.wrong.add(format!("the log cannot be read: {error}"));
        }
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            return;
        };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        for line in lines.split(|&byte| byte == b'\n') {
            if !line.is_empty() {
                self.line(line);
            }
        }
        self.account.open = self.open.len() as u64;
    }

    /// The gateway is gone, and whatever was open with it.
    pub(crate) fn forget(&mut self) {
        self.read();
        if !self.rest.is_empty() {
            let text = String::from_utf8_lossy(&self.rest).into_owned();
            self.wrong
                .add(format!("the log ends within a line: {text}"));
        }
        self.rest.clear();
        self.open.clear();
        self.allowed.clear();
        self.asked.clear();
    }

    fn line(&mut self, bytes: &[u8]) {
        self.account.lines += 1;
        let line: Line<'_> = match serde_json::from_slice(bytes) {
            Ok(line) => line,
            Err(error) => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                return self.wrong.add(format!("{error} in this line: {text}"));
            }
        };
        let Line { id, port, .. } = line;
        match (line.event, line.verdict) {
            ("decision", Some("allow")) if line.dialled.is_some() => {
                *self.account.dialled.entry(port).or_default() += 1;
                self.allowed.entry(line.host.into()).or_default().0 += 1;
                if self.open.insert(id.to_owned(), port).is_some() {
                    self.wrong.add(format!("{id} has two decisions"));
                }
            }
            ("decision", _) => self.account.refused += 1,
            ("dns", Some("allow")) => drop(self.asked.insert(line.host.into())),
            ("close", _) => {
                if self.open.remove(id) != Some(port) {
                    self.wrong.add(format!("{id} ends, and had not begun"));
                }
                let flow = self.account.closed.entry(port).or_default();
                flow.connections += 1;
                flow.up += line.bytes_up;
                flow.down += line.bytes_down;
                self.account.cut += u64::from(line.reason.is_some());
            }
            ("policy", _) => self.account.policies += 1,
            ("finding", _) => self.wrong.add(format!(
                "the log has a finding: {}",
                line.action.unwrap_or_default()
            )),
            _ => {}
        }
    }
}
