//! What a sandboxed program costs to start, from the command until nothing of it is left, and what stays in memory meanwhile.
//!
//! The program is `true`: by itself; in namespaces of its own ([`unshare`](https://man7.org/linux/man-pages/man1/unshare.1.html));
//! in a bubblewrap, which has as many namespaces and the files of the machine; and in Egret, with a gateway, a log and
//! the proof of the seal. Egret's `--version` shows how much of that is the executable alone.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::process::{private, resident};
use crate::report::{Figure, Goal, Report};
use crate::stats::Spread;
use crate::{Error, Run};

/// The figures here.
pub(crate) const NAMES: [&str; 3] = ["process-start", "process-start-user", "process-rest"];

const BARE: &str = "true";
const BUBBLEWRAP: &str = "bubblewrap";
const EGRET: &str = "Egret";

/// Each way to start a program; `EGRET` stands for the executable.
const WAYS: [(&str, &str); 5] = [
    (BARE, "true"),
    ("unshare", "unshare -Urn true"),
    (BUBBLEWRAP, "bwrap --unshare-all --ro-bind / / true"),
    (EGRET, "EGRET run -- true"),
    ("Egret's --version", "EGRET --version"),
];

/// Measures as whoever calls this, and, if that is root, as an ordinary user as well.
pub(crate) fn measure(run: &Run) -> Result<Report, Error> {
    let mut report = Report::default();
    let root = rustix::process::geteuid().is_root();
    if run.wants("process-start") {
        let place = Place::make(run, None)?;
        start(run, &place, "process-start", "", &mut report)?;
    }
    if run.wants("process-start-user") && root {
        let place = Place::make(run, Some(NOBODY))?;
        let whose = ", as an ordinary user";
        start(run, &place, "process-start-user", whose, &mut report)?;
    }
    if run.wants("process-rest") {
        report.figures.push(rest(&Place::make(run, None)?)?);
    }
    Ok(report)
}

/// Starts programs in turn for as long as a round lasts; what a round gives is the median of its starts.
fn start(
    run: &Run,
    place: &Place,
    name: &str,
    whose: &str,
    report: &mut Report,
) -> Result<(), Error> {
    let title = format!("`true`, until nothing of it is left{whose}");
    let mut elapsed = Figure::new(name, &title, "ms", BUBBLEWRAP).goal(Goal {
        plus: 5.0,
        ..Goal::ratio(EGRET, false, 1.5, BUBBLEWRAP)
    });
    let title = format!("the same: time of processors, all processes together{whose}");
    let mut used = Figure::new(&format!("{name}-cpu"), &title, "ms", BUBBLEWRAP);
    let mut ways = Vec::new();
    for (way, command) in WAYS
        .iter()
        .filter(|(way, _)| *way == BARE || run.measures(way))
    {
        match place.started(command) {
            Ok(_) => ways.push((way, command)),
            Err(error) => report.missing.push(format!("{name} of {way}: {error}")),
        }
    }
    let round = Duration::from_secs_f64(run.seconds * ways.len() as f64);
    for number in 1..=run.rounds {
        eprintln!("bench: round {number} of {} of {name}", run.rounds);
        let mut starts = vec![(Vec::new(), Vec::new()); ways.len()];
        let since = Instant::now();
        while since.elapsed() < round {
            for ((_, command), (elapsed, used)) in ways.iter().zip(&mut starts) {
                let (real, processors) = place.started(command)?;
                elapsed.push(milliseconds(real));
                used.push(milliseconds(processors));
            }
        }
        for ((way, _), starts) in ways.iter().zip(&starts) {
            elapsed.add(way, Spread::of(&starts.0).median);
            used.add(way, Spread::of(&starts.1).median);
        }
    }
    report.figures.extend([elapsed, used]);
    Ok(())
}

/// A sandbox whose program waits, a second after its start.
fn rest(place: &Place) -> Result<Figure, Error> {
    let mut figure = Figure::new(
        "process-rest",
        "`egret run` at rest: resident, and what of that is shared with nobody",
        "MiB",
        EGRET,
    )
    .goal(Goal::at_most(EGRET, 8.0));
    let mut egret = place
        .command("EGRET run -- sh -c")
        .arg("echo started; exec sleep 1000")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = egret.stdout.take().ok_or("no output")?;
    BufReader::new(output).read_line(&mut String::new())?;
    std::thread::sleep(Duration::from_secs(1));
    let children = format!("/proc/{0}/task/{0}/children", egret.id());
    let first = fs::read_to_string(children)?.trim().parse()?;
    for (name, id) in [(EGRET, egret.id()), ("sandbox's first process", first)] {
        figure.add(name, resident(id)? as f64 / 1024.0);
        figure.add(&format!("{name}, private"), private(id)? as f64 / 1024.0);
    }
    egret.kill()?;
    egret.wait()?;
    Ok(figure)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// An ordinary user that every machine has.
const NOBODY: u32 = 65534;

/// A directory for the programs to start in, and for Egret's logs; gone at the end. The executable has a copy in it that
/// everybody may execute.
struct Place {
    directory: PathBuf,
    user: Option<u32>,
}

impl Place {
    fn make(run: &Run, user: Option<u32>) -> Result<Self, Error> {
        let name = format!("egret-bench-{}", std::process::id());
        let place = Self {
            directory: std::env::temp_dir().join(name),
            user,
        };
        for name in ["project", "home", "state"] {
            let directory = place.directory.join(name);
            fs::create_dir_all(&directory)?;
            std::os::unix::fs::chown(&directory, user, user)?;
        }
        fs::copy(&run.egret, place.directory.join("egret"))?;
        Ok(place)
    }

    fn command(&self, command: &str) -> Command {
        let mut words = command.split(' ');
        let mut made = match words.next() {
            Some("EGRET") => Command::new(self.directory.join("egret")),
            program => Command::new(program.unwrap_or_default()),
        };
        made.args(words)
            .current_dir(self.directory.join("project"))
            .env("XDG_STATE_HOME", self.directory.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(user) = self.user {
            made.uid(user).gid(user);
            made.env("HOME", self.directory.join("home"));
        }
        made
    }

    /// Runs a command, which has to succeed: how long that took, and for how long processors worked for it.
    fn started(&self, command: &str) -> Result<(Duration, Duration), Error> {
        let mut made = self.command(command);
        let before = used_by_children()?;
        let since = Instant::now();
        let status = made
            .status()
            .map_err(|error| format!("{command}: {error}"))?;
        let elapsed = since.elapsed();
        match status.success() {
            true => Ok((elapsed, used_by_children()? - before)),
            false => Err(format!("{command}: {status}").into()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// What all processes used that this one has waited for, and those that they have waited for.
fn used_by_children() -> Result<Duration, Error> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = [usage.user_time(), usage.system_time()]
        .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
        .iter()
        .sum::<i64>();
    Ok(Duration::from_micros(u64::try_from(microseconds)?))
}
