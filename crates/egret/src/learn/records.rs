//! From records of the audit log to a lesson.

use crate::logs::parts::{LONGEST_LINE, too_long};
use egret_gateway::audit::{Door, Event, Record, Verdict};
use egret_policy::{Asked, Lesson, Program};
use std::collections::HashMap;
use std::io::{self, BufRead, Read as _};

/// Reads records, and remembers of each connection that is open what has become of it.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) lesson: Lesson,
    /// Lines that are no records.
    pub(crate) unknown: u64,
    /// By id, whether something was refused on it after it had been allowed.
    open: HashMap<String, bool>,
}

/// As many connections are remembered at once. One that is not counts as one on which nothing was refused.
const MOST_OPEN: usize = 100_000;

impl Reader {
    /// Reads to the end.
    pub(crate) fn read(&mut self, mut log: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        while (&mut log)
            .take(LONGEST_LINE as u64)
            .read_until(b'\n', &mut line)?
            > 0
        {
            if line.len() >= LONGEST_LINE && !line.ends_with(b"\n") {
                return Err(too_long());
            }
            self.line(&line, None);
            line.clear();
        }
        Ok(())
    }

    /// Reads a line, which counts only if it is about this sandbox, where one is named.
    pub(crate) fn line(&mut self, line: &[u8], sandbox: Option<&str>) {
        match serde_json::from_slice::<Record>(line) {
            Ok(record) if sandbox.is_none_or(|name| record.sandbox == name) => self.take(&record),
            Ok(_) => {}
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(_) => self.unknown += 1,
        }
    }

    fn take(&mut self, record: &Record) {
        // What comes in from outside by a published port is the other way round.
        if record.door == Some(Door::Published) {
            return;
        }
        if record.event == Event::Finding {
            return self.lesson.missed(record.count.unwrap_or_default());
        }
        let Some(host) = record.host.as_deref() else {
            return;
        };
        let program = record.executable.as_ref().map(|executable| Program {
            executable: executable.clone(),
            ancestors: record.ancestors.clone(),
        });
        let asked = Asked {
            host,
            port: record.port,
            by: program.as_ref(),
        };
        let reason = record.reason.as_deref().unwrap_or_default();
        match (record.event, record.verdict) {
            (Event::Decision, Some(Verdict::Allow)) if record.dialled.is_some() => {
                let rule = record.rule.as_deref();
                self.lesson.reached(asked, reason, rule, &record.addresses);
                if self.open.len() < MOST_OPEN {
                    self.open.insert(record.id.clone(), false);
                }
            }
            (Event::Decision, Some(Verdict::Allow)) => {
                let message = record.message.as_deref().unwrap_or_default();
                let why = message
                    .split_once(" failed: ")
                    .map_or(message, |(_, why)| why);
                self.lesson.failed(asked, why);
            }
            (Event::Decision | Event::Dns, Some(Verdict::Deny)) => {
                if let Some(was_cut @ false) = self.open.get_mut(&record.id) {
                    *was_cut = true;
                    self.lesson.cut(asked);
                }
                self.lesson.refused(asked, reason, record.hint.as_deref());
            }
            (Event::Close, _) => {
                let was_cut = self.open.remove(&record.id).unwrap_or_default();
                self.lesson
                    .ended(asked, record.bytes_up.unwrap_or_default(), was_cut);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(records: &[&str]) -> egret_policy::Learnt {
        let mut reader = Reader::default();
        let lines = records.iter().map(|record| {
            let (event, rest) = record.split_once(' ').unwrap();
            format!(r#"{{"v": 1, "time": "t", "sandbox": "s", "event": "{event}", {rest}}}"#)
        });
        let log: String = lines.map(|line| line.replace('\n', " ") + "\n").collect();
        reader.read(log.as_bytes()).unwrap();
        assert_eq!(reader.unknown, 0, "{log}");
        reader.lesson.learnt(None, false)
    }

    const ALLOWED: &str = r#"decision "id": "a", "verdict": "allow", "reason": "allowed.default_public", "door": "captured",
        "host": "a.example", "port": 443, "addresses": ["93.184.216.34"], "dialled": "93.184.216.34:443""#;
    const CUT: &str = r#"decision "id": "a", "verdict": "deny", "reason": "denied.name_mismatch", "door": "captured",
        "host": "a.example", "port": 443"#;
    const CLOSED: &str =
        r#"close "id": "a", "host": "a.example", "port": 443, "bytes_up": 0, "bytes_down": 5"#;

    #[test]
    fn a_connection_counts_if_something_passed_on_it() {
        let opened = |records: &[&str]| learnt(records).additions.len();
        assert_eq!(opened(&[ALLOWED]), 1);
        assert_eq!(opened(&[ALLOWED, CLOSED]), 1);
        assert_eq!(opened(&[ALLOWED, CUT, CLOSED]), 0);
        assert_eq!(
            opened(&[ALLOWED, CUT, CUT, &CLOSED.replace("up\": 0", "up\": 9")]),
            1
        );
        assert_eq!(
            opened(&[CUT, ALLOWED, CLOSED]),
            1,
            "a refusal of something else"
        );
        assert_eq!(opened(&[&ALLOWED.replace("captured", "published")]), 0);
        let failed = ALLOWED.replace(
            r#", "dialled": "93.184.216.34:443""#,
            r#", "message": "`x` is allowed, but connecting to it failed: no way""#,
        );
        let learnt = learnt(&[&failed]);
        assert_eq!(learnt.additions, []);
        assert_eq!(
            learnt.not_opened,
            ["a.example:443 was allowed once, and is not opened: no way"]
        );
    }

    #[test]
    fn others_and_what_is_no_record_are_passed_over() {
        let mut reader = Reader::default();
        let line = format!(
            r#"{{"v": 1, "time": "t", "sandbox": "s", "event": {}"#,
            ALLOWED
                .replacen("decision", "\"decision\",", 1)
                .replace('\n', " ")
        );
        let log = format!("{line}}}\nnonsense\n\n{{\"v\": 1}}\n{line}}}");
        log.lines()
            .for_each(|line| reader.line(line.as_bytes(), Some("other")));
        assert_eq!(
            (
                reader.unknown,
                reader.lesson.learnt(None, false).connections
            ),
            (2, 0)
        );
        reader.read(log.as_bytes()).unwrap();
        assert_eq!(
            (
                reader.unknown,
                reader.lesson.learnt(None, false).connections
            ),
            (4, 2)
        );
    }
}
