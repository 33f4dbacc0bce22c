//! The audit log: whatever is in a record, its line is one line of JSON that obeys nobody, and reads back the same; and
//! whatever is in a log, what is printed of it does no harm either.

use egret_gateway::audit::Record;
use egret_gateway::fuzz;
use egret_policy::is_hidden;
use serde_json::{Map, Value};

use crate::holds;

/// The texts of a record's fields, one behind the other.
pub fn record(data: &[u8]) {
    let record = of_texts(data);
    holds(inert(&fuzz::line(&record), &record));
}

fn of_texts(data: &[u8]) -> Record {
    let mut fields = Map::new();
    fields.insert("v".into(), 1.into());
    fields.insert("event".into(), "decision".into());
    let texts = data
        .split(|&byte| byte == BETWEEN)
        .map(String::from_utf8_lossy);
    for (name, text) in FIELDS.iter().zip(texts) {
        fields.insert((*name).into(), text.into_owned().into());
    }
    for name in REQUIRED {
        fields.entry(name).or_insert_with(|| "".into());
    }
    fields.insert("ancestors".into(), vec![fields["id"].clone(); 2].into());
    serde_json::from_value(Value::Object(fields)).expect("a record of texts")
}

fn inert(line: &[u8], record: &Record) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    let text = text.strip_suffix('\n').ok_or("it has no end")?;
    if let Some(found) = text.chars().find(|&c| c.is_control() || is_hidden(c)) {
        return Err(format!("{found:?} is in it"));
    }
    let read: Record = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match read == *record {
        true => Ok(()),
        false => Err(format!("it reads back as {read:?}")),
    }
}

/// A line of a log that anybody may have written, and how it is to be shown.
pub fn log_line(data: &[u8]) {
    let Some((&how, line)) = data.split_first() else {
        return;
    };
    let line = String::from_utf8_lossy(line);
    let Some(line) = line.lines().next() else {
        return;
    };
    let line = format!("{line}\n");
    let (denied, as_json) = (how & 1 == 1, how & 2 == 2);
    let mut options = Vec::new();
    options.extend(denied.then(|| "--denied".to_owned()));
    options.extend(as_json.then(|| "--output=json".to_owned()));
    let shown = egret_inside::fuzz::log_line(&line, &options).expect("known options");
    holds(shows_well(&shown, &line, denied, as_json));
    for picture in egret_inside::fuzz::watched(&line) {
        assert!(
            !picture.contains(egret_policy::is_hidden),
            "a picture has something hidden in it: {picture:?}"
        );
    }
    // The same, of what a filter lets through that is in the line as well.
    let word = line
        .split(['"', ','])
        .nth(usize::from(how >> 3))
        .unwrap_or_default();
    let name = ["host", "reason", "since", "until"][usize::from(how >> 2) % 4];
    options.push(format!("--{name}={word}"));
    if let Some(filtered) = egret_inside::fuzz::log_line(&line, &options) {
        assert!(
            filtered.is_empty() || filtered == shown,
            "a filter only leaves out"
        );
    }
}

fn shows_well(shown: &[u8], line: &str, denied: bool, as_json: bool) -> Result<(), String> {
    let shown = std::str::from_utf8(shown).map_err(|error| error.to_string())?;
    let read = serde_json::from_str::<Value>(line).ok();
    if shown.is_empty() {
        // What is not shown is a record, and not of a refusal.
        let verdict = read.as_ref().map(|record| &record["verdict"]);
        return match (denied, verdict) {
            (true, Some(verdict)) if verdict != "deny" => Ok(()),
            _ => Err("nothing is shown".into()),
        };
    }
    let text = shown.strip_suffix('\n').ok_or("it has no end")?;
    let is_record = serde_json::from_str::<Record>(line).is_ok();
    if as_json && is_record {
        // As it stands in the file; whoever reads JSON does not obey what is in it.
        return match shown == line {
            true => Ok(()),
            false => Err("another line".into()),
        };
    }
    match text.chars().find(|&c| c.is_control() || is_hidden(c)) {
        Some(found) => Err(format!("{found:?} is in what is shown")),
        None => Ok(()),
    }
}

const BETWEEN: u8 = 0xff;
const REQUIRED: [&str; 3] = ["time", "id", "sandbox"];
const FIELDS: [&str; 15] = [
    "id",
    "sandbox",
    "time",
    "reason",
    "rule",
    "note",
    "host",
    "executable",
    "method",
    "path",
    "query",
    "limit",
    "action",
    "message",
    "hint",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_could_do_something_is_noticed() {
        let record = of_texts(b"id\xffs\n\xff\x1b[2J\xff\xe2\x80\xae");
        let line = fuzz::line(&record);
        assert_eq!(inert(&line, &record), Ok(()));
        let plain = serde_json::to_string(&record).unwrap();
        assert!(
            inert(format!("{plain}\n").as_bytes(), &record).is_err(),
            "bidirectional"
        );
        assert!(inert(line.trim_ascii_end(), &record).is_err(), "no end");
        assert!(inert(&line, &of_texts(b"other")).is_err(), "another record");
        assert!(
            inert(&[line.as_slice(), b"\n"].concat(), &record).is_err(),
            "two lines"
        );
    }

    #[test]
    fn what_is_shown_badly_is_noticed() {
        let record = String::from_utf8(fuzz::line(&of_texts(b"id"))).unwrap();
        assert!(shows_well(b"a line\n", &record, false, false).is_ok());
        assert!(shows_well(b"a \x1b[2Jline\n", &record, false, false).is_err());
        assert!(shows_well("a \u{202e}line\n".as_bytes(), &record, false, false).is_err());
        assert!(shows_well(b"two\nlines\n", &record, false, false).is_err());
        assert!(shows_well(b"", &record, false, false).is_err());
        assert!(shows_well(b"", &record, true, false).is_ok());
        assert!(shows_well(b"", "no record\n", true, false).is_err());
        let refused = record.replace("\"decision\"", "\"decision\",\"verdict\":\"deny\"");
        assert!(shows_well(b"", &refused, true, false).is_err());
    }
}
