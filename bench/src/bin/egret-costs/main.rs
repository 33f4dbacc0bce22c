//! Counts the instructions that Egret executes for what it does all the time: `./x costs`.
//!
//! A count does not depend on what else a machine does, so that a few in a hundred more are seen on any. Valgrind's callgrind
//! counts, in user space only (what is asked of the kernel is counted by the end-to-end tests, `costs`). Each scenario is a
//! process of its own, and this same executable: either the gateway ([`gate`]), which [`drive`] leads from outside one step
//! at a time, for so many connections and for twice as many, so that the difference is theirs alone; or a function
//! ([`pure`]) of which callgrind counts nothing else.
//!
//! What is allowed is in `instructions.txt`, for x86-64 and the compiler named there.

mod drive;
mod gate;
mod pure;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// What went wrong, for people.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => costs(false),
        ["--accept"] => costs(true),
        ["gate", port, names] => gate::serve(port, names),
        ["pure", scenario] => pure::play(scenario),
        _ => Err("egret-costs takes `--accept` or nothing".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("costs: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts everything, prints it, and holds it against the table, or writes it there.
fn costs(accept: bool) -> Result<(), Error> {
    if !cfg!(target_arch = "x86_64") {
        eprintln!(
            "costs: INSTRUCTIONS WERE NOT COUNTED: the table is about x86-64, and this is another processor."
        );
        return Ok(());
    }
    let table =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/bin/egret-costs/instructions.txt");
    let text = std::fs::read_to_string(&table)?;
    let mut rows: Vec<Row> = text.lines().filter_map(Row::read).collect();
    // Callgrind's files are left there.
    let rooms = std::env::current_exe()?.with_extension("counts");
    std::fs::create_dir_all(&rooms)?;
    let mut wrong = String::new();
    for row in &mut rows {
        let counted = count(&row.scenario, &rooms)?;
        println!(
            "{:>12} {:<16} {:+6.1} %",
            grouped(counted),
            row.scenario,
            row.change(counted)
        );
        match row.change(counted) {
            more if more > MORE => writeln!(
                wrong,
                "{}: {more:.1} % more than the table allows",
                row.scenario
            )?,
            less if less < LESS => writeln!(
                wrong,
                "{}: {:.1} % fewer: lower the number",
                row.scenario, -less
            )?,
            _ => {}
        }
        row.counted = counted;
    }
    let of = |scenario: &str| {
        let row = rows.iter().find(|row| row.scenario == scenario);
        row.map(|row| row.counted)
            .ok_or_else(|| format!("{} has no `{scenario}`", table.display()))
    };
    let (few, many) = (of("decide-10")?, of("decide-100000")?);
    if many * 100 > few * 103 {
        writeln!(
            wrong,
            "decide-100000: {many}, which is more than 3 % above decide-10"
        )?;
    }
    println!(
        "where: callgrind_annotate --inclusive=yes {}/SCENARIO-200.callgrind",
        rooms.display()
    );
    if accept {
        std::fs::write(&table, written(&text, &rows))?;
        println!("written down in {}", table.display());
    } else if !wrong.is_empty() {
        return Err(format!(
            "{wrong}If that is meant: ./x costs --accept, and say why in the commit."
        )
        .into());
    }
    Ok(())
}

/// A line of the table: how many instructions, for which scenario, and what that is.
struct Row {
    counted: u64,
    scenario: String,
}

impl Row {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let counted = words.next()?.replace(',', "").parse().ok()?;
        Some(Self {
            counted,
            scenario: words.next()?.to_owned(),
        })
    }

    /// By how many in a hundred `counted` is more than the table has.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a percentage is shown with one digit"
    )]
    fn change(&self, counted: u64) -> f64 {
        (counted as f64 / self.counted.max(1) as f64 - 1.0) * 100.0
    }
}

/// The table with what was counted, where that is something else.
fn written(text: &str, rows: &[Row]) -> String {
    let lines = text.lines().map(|line| {
        let old = Row::read(line);
        let new = old.and_then(|old| {
            let mut rows = rows.iter().filter(|row| row.scenario == old.scenario);
            rows.find(|row| old.change(row.counted).abs() > SAME)
        });
        let words = line.trim_start().split_once(' ');
        match (new, words) {
            (Some(row), Some((_, rest))) => format!("{:>12} {rest}\n", grouped(row.counted)),
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The instructions of one time of `scenario`.
fn count(scenario: &str, rooms: &Path) -> Result<u64, Error> {
    if pure::TIMES.iter().any(|(name, _)| *name == scenario) {
        let file = rooms.join(format!("{scenario}.callgrind"));
        let mut command = callgrind(&file)?;
        // Counts from where the function begins to where it ends.
        command.arg("--toggle-collect=*::measured*");
        let ended = command
            .arg(std::env::current_exe()?)
            .args(["pure", scenario])
            .output()?;
        let times = pure::TIMES
            .iter()
            .find(|(name, _)| *name == scenario)
            .map_or(1, |(_, times)| *times);
        return Ok(total(&file, &ended.stderr)? / times);
    }
    let run = |times: u64| -> Result<u64, Error> {
        let file = rooms.join(format!("{scenario}-{times}.callgrind"));
        let mut command = callgrind(&file)?;
        let said = drive::drive(scenario, command.arg(std::env::current_exe()?), times)?;
        total(&file, &said)
    };
    // Now and then memory is in pieces that do not fit, and looking for others takes more.
    let least = |times| {
        let counts = (0..RUNS).map(|_| run(times));
        counts.reduce(|one, other| Ok(one?.min(other?)))
    };
    let (once, twice) = std::thread::scope(|scope| {
        let twice = scope.spawn(|| least(2 * TIMES));
        (least(TIMES), twice.join())
    });
    let (Some(once), Ok(Some(twice))) = (once, twice) else {
        return Err("nothing was counted".into());
    };
    Ok((twice? - once?) / TIMES)
}

fn callgrind(file: &Path) -> Result<Command, Error> {
    let mut command = Command::new("valgrind");
    // Of one instruction that fills or copies memory, callgrind counts each octet: use others.
    let tunables = ["x86_rep_stosb_threshold", "x86_rep_movsb_threshold"];
    let tunables = tunables.map(|name| format!("glibc.cpu.{name}=0x7fffffff"));
    command.env("GLIBC_TUNABLES", tunables.join(":"));
    command
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// What callgrind counted in all.
fn total(file: &Path, said: &[u8]) -> Result<u64, Error> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        format!(
            "callgrind left no {}: {error}\n{}",
            file.display(),
            String::from_utf8_lossy(said)
        )
    })?;
    let total = text.lines().find_map(|line| {
        line.strip_prefix("totals: ")
            .or(line.strip_prefix("summary: "))
    });
    Ok(total
        .ok_or("callgrind's file has no total")?
        .trim()
        .parse()?)
}

/// How many connections, and then twice as many.
const TIMES: u64 = 100;
/// Of how many counts of the same thing the least is taken.
const RUNS: u32 = 3;
/// By how many in a hundred a count may exceed what is written down, and fall short of it.
const MORE: f64 = 3.0;
const LESS: f64 = -5.0;
/// By how many in a hundred two counts of the same thing may differ: the order in hash tables is not the same each time.
const SAME: f64 = 2.0;
