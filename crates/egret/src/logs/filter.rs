//! Which records of an audit log are wanted.

use clap::{Args, ValueEnum};
use egret_gateway::audit::{Record, Verdict};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use std::str::FromStr;

/// What a record has to be like, all of it.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only what was refused
    #[arg(long)]
    pub(crate) denied: bool,
    /// Only what was decided like this
    #[arg(long, value_name = "VERDICT", conflicts_with = "denied")]
    verdict: Option<Wanted>,
    /// Only records from then on: a date and time, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only records before then
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Only what is about this name or address, in which `*` stands for anything
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Only what was decided for this reason, or for one that begins with it: denied.address
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
}

/// A verdict, to be named on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wanted {
    /// What was allowed.
    Allow,
    /// What was refused.
    Deny,
}

/// A moment in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Timestamp);

impl FromStr for Moment {
    type Err = String;

    /// Reads RFC 3339, a date with or without a time as of here, or how long ago.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(moment) = text.parse() {
            return Ok(Self(moment));
        }
        let here = |moment: DateTime| Some(moment.to_zoned(TimeZone::system()).ok()?.timestamp());
        let ago = |span: Span| Some(Zoned::now().checked_sub(span.abs()).ok()?.timestamp());
        let date = text.parse().ok().and_then(here);
        date.or_else(|| text.parse().ok().and_then(ago))
            .map(Self)
            .ok_or_else(|| {
                "write a time, as 2026-11-22T09:30:00Z or 2026-11-22 09:30, or how long ago, as 10m, 2h or 3d"
                    .into()
            })
    }
}

impl Filter {
    /// Whether anything is left out.
    pub(crate) fn is_any(&self) -> bool {
        let Self {
            denied,
            verdict,
            since,
            until,
            host,
            reason,
        } = self;
        *denied
            || verdict.is_some()
            || since.is_some()
            || until.is_some()
            || !host.is_empty()
            || !reason.is_empty()
    }

    /// Whether a record is wanted.
    pub(crate) fn wants(&self, record: &Record) -> bool {
        let verdict = match self.verdict {
            Some(Wanted::Allow) => Some(Verdict::Allow),
            Some(Wanted::Deny) => Some(Verdict::Deny),
            None => self.denied.then_some(Verdict::Deny),
        };
        if verdict.is_some_and(|verdict| record.verdict != Some(verdict)) {
            return false;
        }
        // What has no time that can be read could be of any.
        if let Ok(time) = record.time.parse().map(Moment)
            && (self.since.is_some_and(|since| time < since)
                || self.until.is_some_and(|until| time >= until))
        {
            return false;
        }
        let is_about = |host: &String| {
            let names = record.host.iter().cloned();
            let dialled = record
                .dialled
                .iter()
                .map(|address| address.ip().to_string());
            let addresses = record.addresses.iter().map(ToString::to_string);
            let mut all = names.chain(dialled).chain(addresses);
            all.any(|name| matches(host, &name))
        };
        let is_for = |wanted: &String| {
            let reason = record.reason.as_deref().unwrap_or_default();
            let rest = reason.strip_prefix(wanted.trim_end_matches('.'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        (self.host.is_empty() || self.host.iter().any(is_about))
            && (self.reason.is_empty() || self.reason.iter().any(is_for))
    }
}

/// Whether a name is like a pattern, in which `*` stands for anything. Case, and a dot at the end, mean nothing.
fn matches(pattern: &str, name: &str) -> bool {
    let same = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
    let (pattern, name) = (same(pattern), same(name));
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn record(more: &str) -> Record {
        let text = format!(
            r#"{{"v": 1, "time": "2026-11-22T09:00:00.5Z", "id": "x", "sandbox": "s", "event": "decision"{more}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_record_is_wanted_if_it_is_all_that_was_said() {
        let denied = r#", "verdict": "deny", "reason": "denied.address.host", "host": "Api.Example.com.", "addresses": ["192.168.7.2"]"#;
        let allowed = r#", "verdict": "allow", "reason": "allowed.rule", "host": "b.test", "dialled": "93.184.216.34:443""#;
        #[rustfmt::skip]
        let table = [
            ("",                                     true,  true,  true),
            ("--denied",                             true,  false, false),
            ("--verdict deny",                       true,  false, false),
            ("--verdict allow",                      false, true,  false),
            ("--host api.example.com",               true,  false, false),
            ("--host *.example.com",                 true,  false, false),
            ("--host *.example.com --host b.*",      true,  true,  false),
            ("--host example.com",                   false, false, false),
            ("--host 192.168.*",                     true,  false, false),
            ("--host 93.184.216.34",                 false, true,  false),
            ("--reason denied.address.host",         true,  false, false),
            ("--reason denied",                      true,  false, false),
            ("--reason denied.addr",                 false, false, false),
            ("--reason allowed. --host *",           false, true,  false),
            ("--denied --host b.test",               false, false, false),
            ("--since 2026-11-22T09:00:00Z",         true,  true,  true),
            ("--since 2026-11-22T09:00:01Z",         false, false, false),
            ("--until 2026-11-22T09:00:00Z",         false, false, false),
            ("--until 2026-11-22T09:00:01Z",         true,  true,  true),
            ("--since 2026-11-22T10:00:00+02:00",    true,  true,  true),
        ];
        for (line, of_denied, of_allowed, of_neither) in table {
            let words = std::iter::once("x").chain(line.split_whitespace());
            let filter = Line::parse_from(words).filter;
            assert_eq!(filter.is_any(), !line.is_empty());
            for (more, wanted) in [(denied, of_denied), (allowed, of_allowed), ("", of_neither)] {
                assert_eq!(filter.wants(&record(more)), wanted, "{line}: {more}");
            }
        }
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let now = Timestamp::now().as_second();
        for (text, seconds) in [
            ("10m", 600),
            ("2h", 7200),
            ("1h30m", 5400),
            ("3d", 259_200),
            ("90s", 90),
        ] {
            let Moment(moment) = text.parse().unwrap();
            // An hour more or less where clocks were changed in between.
            let off = (now - moment.as_second() - seconds).abs();
            assert!(off < 3 || (off - 3600).abs() < 3, "{text}");
        }
        for text in [
            "2026-11-22",
            "2026-11-22 09:30",
            "2026-11-22T09:30:00",
            "2026-11-22T09:30:00.25Z",
        ] {
            assert!(text.parse::<Moment>().is_ok(), "{text}");
        }
        for text in ["", "yesterday", "10", "2026-13-01", "m"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
