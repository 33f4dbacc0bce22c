//! The table of what is allowed, each row with its reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

/// How many of each call a scenario makes.
pub(super) type Counts = BTreeMap<String, u64>;

/// A row: so many of these, and why.
struct Row {
    count: u64,
    /// Fewer are fine, too, as the kernel decides how much it hands over at once.
    at_most: bool,
    call: String,
    why: String,
}

impl Row {
    /// Whether this is a bound of what is not the same each time, and not far above it.
    fn bounds(&self, found: u64) -> bool {
        found <= self.count && (found * 3 > self.count || self.call == REST)
    }
}

/// Holds what was counted in a scenario against the table. Says what differs, and how it is accepted.
///
/// With `EGRET_COSTS=accept` the table is changed instead.
pub(super) fn check(scenario: &str, counted: &Counts) -> Result<(), String> {
    // Tests run side by side.
    static WRITING: Mutex<()> = Mutex::new(());
    let _alone = WRITING.lock().unwrap();
    let path = path();
    let text = std::fs::read_to_string(&path).unwrap();
    let rows = section(&text, scenario)
        .ok_or(format!("{} has no section `{scenario}`", path.display()))?;
    let counted = &folded(&rows, counted);
    if std::env::var("EGRET_COSTS").is_ok_and(|what| what == "accept") {
        let accepted = with_section(&text, scenario, &accepted(rows, counted));
        std::fs::write(&path, accepted).unwrap();
        return Ok(());
    }
    let mut wrong = String::new();
    for row in &rows {
        let Row {
            count, call, why, ..
        } = row;
        let found = counted.get(call).copied().unwrap_or_default();
        let complaint = match found {
            found if found > *count => "more than allowed",
            _ if why == UNKNOWN => "allowed, but nobody has written down why",
            found if row.at_most && row.bounds(found) => continue,
            found if found < *count => "fewer than allowed: lower the number",
            _ => continue,
        };
        let _ = writeln!(wrong, "{found:8} {call:24} {complaint} ({count}: {why})");
    }
    for (call, found) in counted {
        if !rows.iter().any(|row| row.call == *call) {
            let _ = writeln!(wrong, "{found:8} {call:24} not in the table");
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the system calls of `{scenario}` are not those of {}:\n{wrong}If that is meant: ./x costs --accept, then give \
         every new row its reason.",
        path.display()
    ))
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/costs/system-calls.txt")
}

/// The rows below `scenario:`.
fn section(text: &str, scenario: &str) -> Option<Vec<Row>> {
    let mut lines = text.lines();
    lines.find(|line| is_head(line, scenario))?;
    let rows = lines.take_while(|line| !line.trim().is_empty());
    Some(rows.filter(|line| line.starts_with(' ')).map(row).collect())
}

fn is_head(line: &str, scenario: &str) -> bool {
    line.strip_prefix(scenario)
        .is_some_and(|rest| rest.starts_with(':'))
}

fn row(line: &str) -> Row {
    let malformed = || panic!("{}: no row of three columns: {line}", path().display());
    let (count, rest) = line.trim().split_once(' ').unwrap_or_else(malformed);
    let (call, why) = rest.trim().split_once("  ").unwrap_or_else(malformed);
    Row {
        count: count.trim_start_matches("<=").parse().unwrap(),
        at_most: count.starts_with("<="),
        call: call.to_owned(),
        why: why.trim().to_owned(),
    }
}

/// Where the rows have one for the rest, what has no row of its own is counted there.
fn folded(rows: &[Row], counted: &Counts) -> Counts {
    if !rows.iter().any(|row| row.call == REST) {
        return counted.clone();
    }
    let mut folded = Counts::from([(REST.to_owned(), 0)]);
    for (call, count) in counted {
        let own = rows.iter().any(|row| row.call == *call);
        let row = if own { call.as_str() } else { REST };
        *folded.entry(row.to_owned()).or_default() += count;
    }
    folded
}

/// The rows as they were counted, with the reasons that they had.
fn accepted(mut rows: Vec<Row>, counted: &Counts) -> String {
    rows.retain(|row| counted.contains_key(&row.call));
    let at_most = rows.iter().any(|row| row.at_most);
    for (call, &count) in counted {
        if !rows.iter().any(|row| row.call == *call) {
            rows.push(Row {
                count,
                at_most,
                call: call.clone(),
                why: UNKNOWN.into(),
            });
        }
    }
    let lines = rows.iter().map(|row| {
        let count = match counted[&row.call] {
            found if !row.at_most => found.to_string(),
            found if row.bounds(found) => format!("<={}", row.count),
            // With room for a kernel that hands over less at a time.
            found => format!("<={}", found + found.div_ceil(4)),
        };
        format!("{count:>8}  {:<26}  {}\n", row.call, row.why)
    });
    lines.collect()
}

fn with_section(text: &str, scenario: &str, rows: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        if !is_head(line, scenario) {
            continue;
        }
        while let Some(line) = lines.next_if(|line| !line.trim().is_empty()) {
            if !line.starts_with(' ') {
                out.push_str(line);
                out.push('\n');
            }
        }
        out.push_str(rows);
    }
    out
}

/// What stands for all that has no row of its own.
const REST: &str = "any other";
/// In the place of a reason.
const UNKNOWN: &str = "WHY?";
