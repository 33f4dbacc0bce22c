//! What goes through a gateway: connections, bytes, requests, refusals; and what it takes to stay open.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::client::Scenario;
use crate::report::{Figure, Goal, Report};
use crate::servers::{ECHO, HTTP, SINK, SOURCE};
use crate::subjects::Subject;
use crate::world::World;
use crate::{Error, Run};

/// The figures here.
pub(crate) const NAMES: [&str; 11] = [
    "tunnels",
    "latency-p50",
    "latency-p99",
    "download",
    "upload",
    "requests",
    "refusals",
    "idle",
    "rest",
    "policy",
    "names",
];

const COPYING: &str = "floor, copy";
const SPLICING: &str = "floor, splice";
const SQUID: &str = "Squid";
const EGRET: &str = "Egret";
const CAPTURED: &str = "Egret, captured";

/// Measures in the namespaces of the subjects, and prints the report as JSON.
pub(crate) fn measure(run: &Run) -> Result<(), Error> {
    let directory = Directory::new()?;
    let _world = World::set_up(&directory.0, &["servers".as_ref()])?;
    let mut report = Report::default();
    let mut subjects = subjects(run, &directory.0, &mut report)?;
    report.machine = subjects
        .iter()
        .filter(|subject| !subject.version.is_empty())
        .map(|subject| (subject.name.clone(), subject.version.clone()))
        .collect();
    let mut figures = Figures::new();
    for subject in &subjects {
        if subject.name != "direct" {
            figures
                .rest
                .add(&subject.name, subject.resident()? as f64 / 1024.0);
        }
    }
    for round in 1..=run.rounds {
        eprintln!("bench: round {round} of {}", run.rounds);
        for subject in &mut subjects {
            figures.round(run, subject)?;
            if subject.name == EGRET {
                subject.captured(true);
                subject.name = CAPTURED.into();
                figures.round(run, subject)?;
                subject.captured(false);
                subject.name = EGRET.into();
            }
        }
        if run.wants("refusals") {
            figures.refusals(run, &mut subjects, &directory.0)?;
        }
    }
    if run.wants("idle") {
        figures.idle(&mut subjects)?;
    }
    drop(subjects);
    if run.wants("policy") {
        figures.policies(run, &directory.0)?;
    }
    if run.wants("names") {
        figures.names(run, &directory.0)?;
    }
    report.figures = figures.into_wanted(run);
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Starts everything that is to be measured. Peers that are not installed are missing in the report.
fn subjects(run: &Run, directory: &Path, report: &mut Report) -> Result<Vec<Subject>, Error> {
    let mut subjects = vec![
        Subject::direct()?,
        Subject::floor("copy", 8001)?,
        Subject::floor("splice", 8002)?,
    ];
    type Start = fn(&Path) -> Result<Subject, Error>;
    let peers: [(&str, Start); 3] = [
        ("HAProxy", Subject::haproxy),
        ("Squid", Subject::squid),
        ("tinyproxy", Subject::tinyproxy),
    ];
    for (name, start) in peers {
        match start(directory) {
            _ if !run.measures(name) => {}
            Ok(subject) => subjects.push(subject),
            Err(error) => report.missing.push(format!("{name}: {error}")),
        }
    }
    if run.measures(EGRET) {
        subjects.push(Subject::gateway(directory)?);
        subjects.push(Subject::egret(&run.egret, directory, 10)?);
    }
    Ok(subjects)
}

struct Figures {
    tunnels: Figure,
    p50: Figure,
    p99: Figure,
    download: Figure,
    upload: Figure,
    requests: Figure,
    refusals: Figure,
    idle: Figure,
    rest: Figure,
    policy: Vec<Figure>,
    names: Figure,
}

impl Figures {
    fn new() -> Self {
        let rate = "per CPU-second";
        let gigabits = "Gbit per CPU-second";
        // Pipes are not worth their making for a few bytes.
        Self {
            tunnels: Figure::new(
                "tunnels",
                "New tunnels, 64 at once: CONNECT, 64 bytes there and back, close",
                rate,
                COPYING,
            )
            .goal(Goal::ratio(EGRET, true, 0.9, COPYING))
            .goal(Goal::ratio(CAPTURED, true, 0.85, EGRET)),
            p50: Figure::new(
                "latency-p50",
                "The same one at a time, until the bytes are back: median",
                "us",
                COPYING,
            )
            .goal(Goal::ratio(EGRET, false, 1.1, COPYING)),
            p99: Figure::new("latency-p99", "The same, 99th percentile", "us", COPYING)
                .goal(Goal::ratio(EGRET, false, 1.1, COPYING)),
            download: Figure::new("download", "Bytes down, 4 tunnels", gigabits, SPLICING)
                .goal(Goal::ratio(EGRET, true, 0.95, SPLICING))
                .goal(Goal::ratio(CAPTURED, true, 0.85, EGRET)),
            upload: Figure::new("upload", "Bytes up, 4 tunnels", gigabits, SPLICING)
                .goal(Goal::ratio(EGRET, true, 0.95, SPLICING))
                .goal(Goal::ratio(CAPTURED, true, 0.85, EGRET)),
            requests: Figure::new(
                "requests",
                "Forwarded HTTP requests, 16 connections",
                rate,
                SQUID,
            )
            .goal(Goal::ratio(EGRET, true, 2.9, SQUID)),
            refusals: Figure::new(
                "refusals",
                "Refused CONNECT, 64 at once, each on a new connection",
                rate,
                SQUID,
            )
            .goal(Goal::ratio(EGRET, true, 2.3, SQUID)),
            idle: Figure::new("idle", "An idle tunnel", "KiB", SPLICING)
                .goal(Goal::at_most(EGRET, 4.0)),
            rest: Figure::new("rest", "The process at rest, resident", "MiB", SPLICING)
                .goal(Goal::at_most(EGRET, 8.0)),
            policy: Vec::new(),
            names: Figure::new(
                "names",
                "Resident after tunnels to so many names",
                "MiB",
                "8192 names",
            )
            .goal(Goal::ratio("32768 names", false, 1.05, "16384 names")),
        }
    }

    fn into_wanted(self, run: &Run) -> Vec<Figure> {
        let Self {
            tunnels,
            p50,
            p99,
            download,
            upload,
            requests,
            refusals,
            idle,
            rest,
            policy,
            names,
        } = self;
        let mut all = vec![
            tunnels, p50, p99, download, upload, requests, refusals, idle, rest,
        ];
        all.extend(policy);
        all.push(names);
        all.retain(|figure| run.wants(&figure.name));
        all
    }

    /// All that a subject can do, once.
    fn round(&mut self, run: &Run, subject: &mut Subject) -> Result<(), Error> {
        let name = subject.name.clone();
        let seconds = run.seconds;
        let is_proxy = name != "direct";
        if run.wants("tunnels") && is_proxy {
            let (via, targets) = subject.reach(ECHO);
            let measured = subject.play(&Scenario::Tunnels {
                via,
                targets,
                at_once: 64,
                seconds,
            })?;
            self.tunnels.add(&name, measured.per_cpu_second());
        }
        if run.wants("latency-p50") || run.wants("latency-p99") {
            let (via, targets) = subject.reach(ECHO);
            let measured = subject.play(&Scenario::Tunnels {
                via,
                targets,
                at_once: 1,
                seconds,
            })?;
            self.p50.add(&name, measured.outcome.p50);
            self.p99.add(&name, measured.outcome.p99);
        }
        for (figure, port, up) in [
            (&mut self.download, SOURCE, false),
            (&mut self.upload, SINK, true),
        ] {
            let (via, targets) = subject.reach(port);
            if let (true, true, Some(target)) = (
                run.wants(&figure.name),
                is_proxy,
                targets.into_iter().next(),
            ) {
                let measured = subject.play(&Scenario::Stream {
                    via,
                    target,
                    tunnels: 4,
                    up,
                    seconds,
                })?;
                figure.add(&name, measured.per_cpu_second() * 8.0 / 1e9);
            }
        }
        if let (true, Some(proxy)) = (run.wants("requests"), subject.http()) {
            let host = format!("n0.example.com:{HTTP}");
            let host = host.strip_suffix(":80").unwrap_or(&host).to_owned();
            let measured = subject.play(&Scenario::Requests {
                proxy,
                host,
                at_once: 16,
                seconds,
            })?;
            self.requests.add(&name, measured.per_cpu_second());
        }
        Ok(())
    }

    /// What is refused. Egret puts only so many refusals on record one by one, so here each round has a fresh one, and what
    /// is counted is in its log as a whole.
    fn refusals(
        &mut self,
        run: &Run,
        subjects: &mut [Subject],
        directory: &Path,
    ) -> Result<(), Error> {
        let scenario = |subject: &Subject| {
            let (via, _) = subject.reach(ECHO);
            Scenario::Refusals {
                via,
                target: format!("refused.example.org:{ECHO}"),
                at_once: 64,
                seconds: 0.1,
            }
        };
        for subject in subjects
            .iter_mut()
            .filter(|subject| subject.decides() && subject.name != EGRET)
        {
            let measured = subject.play(&scenario(subject))?;
            self.refusals.add(&subject.name, measured.per_cpu_second());
        }
        if run.measures(EGRET) {
            let mut egret = Subject::egret(&run.egret, directory, 11)?;
            let measured = egret.play(&scenario(&egret))?;
            drop(egret);
            let log = directory.join("egret-11.log");
            if fs::read_to_string(&log)?.contains("refusal_flood") {
                return Err("Egret was asked for more refusals than it records one by one".into());
            }
            fs::remove_file(log)?;
            self.refusals.add(EGRET, measured.per_cpu_second());
        }
        Ok(())
    }

    /// What a tunnel takes that was used once and says nothing.
    fn idle(&mut self, subjects: &mut [Subject]) -> Result<(), Error> {
        for subject in subjects
            .iter_mut()
            .filter(|subject| subject.name != "direct")
        {
            let (via, targets) = subject.reach(ECHO);
            let target = targets.into_iter().next().unwrap_or_default();
            let keep = |subject: &mut Subject, tunnels| {
                subject
                    .play(&Scenario::Keep {
                        via,
                        target: target.clone(),
                        tunnels,
                    })
                    .map(|_| ())
            };
            keep(subject, 100)?;
            let before = subject.resident()?;
            keep(subject, IDLE)?;
            let after = subject.resident()?;
            subject.play(&Scenario::LetGo)?;
            self.idle.add(
                &subject.name,
                after.saturating_sub(before) as f64 / IDLE as f64,
            );
        }
        Ok(())
    }

    /// What the size of a policy changes.
    fn policies(&mut self, run: &Run, directory: &Path) -> Result<(), Error> {
        let few = "10 entries";
        let many = "100000 entries";
        let mut tunnels = Figure::new(
            "policy-tunnels",
            "New tunnels, by the policy's size",
            "per CPU-second",
            few,
        )
        .goal(Goal::ratio(many, true, 0.97, few));
        let mut latency = Figure::new(
            "policy-latency",
            "One new tunnel, by the policy's size: median",
            "us",
            few,
        )
        .goal(Goal::ratio(many, false, 1.03, few));
        let mut ready = Figure::new(
            "policy-ready",
            "From exec to the program's first line, by the policy's size",
            "ms",
            few,
        )
        .goal(Goal::at_most(many, 300.0));
        let mut rest = Figure::new("policy-rest", "Resident, by the policy's size", "MiB", few)
            .goal(Goal::at_most(many, 64.0));
        let sizes = [10, 1_000, 100_000];
        let mut subjects = Vec::new();
        for _ in 0..run.rounds {
            subjects.clear();
            for entries in sizes {
                let subject = Subject::egret(&run.egret, directory, entries)?;
                ready.add(
                    &format!("{entries} entries"),
                    subject.ready.as_secs_f64() * 1e3,
                );
                subjects.push((format!("{entries} entries"), subject));
            }
        }
        for (name, subject) in &subjects {
            rest.add(name, subject.resident()? as f64 / 1024.0);
        }
        for _ in 0..run.rounds {
            for (name, subject) in &mut subjects {
                let (via, targets) = subject.reach(ECHO);
                let seconds = run.seconds;
                let measured = subject.play(&Scenario::Tunnels {
                    via,
                    targets: targets.clone(),
                    at_once: 64,
                    seconds,
                })?;
                tunnels.add(name, measured.per_cpu_second());
                let measured = subject.play(&Scenario::Tunnels {
                    via,
                    targets,
                    at_once: 1,
                    seconds,
                })?;
                latency.add(name, measured.outcome.p50);
            }
        }
        self.policy = vec![tunnels, latency, ready, rest];
        Ok(())
    }

    /// Whether memory stops growing with the names that are asked for.
    fn names(&mut self, run: &Run, directory: &Path) -> Result<(), Error> {
        let mut egret = Subject::egret(&run.egret, directory, 12)?;
        let (via, _) = egret.reach(ECHO);
        let mut from = 0;
        for to in [1_024, 8_192, 16_384, 32_768] {
            let ending = "many.example.com".into();
            egret.play(&Scenario::Names {
                via,
                ending,
                port: ECHO,
                from,
                to,
            })?;
            from = to;
            self.names
                .add(&format!("{to} names"), egret.resident()? as f64 / 1024.0);
        }
        Ok(())
    }
}

/// Where everything writes; gone at the end.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Result<Self, Error> {
        let path = env::current_dir()?
            .join("target")
            .join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Tunnels that are kept open at once. What a process may open bounds them: each takes two descriptors of a subject, and six of the floor that splices.
const IDLE: usize = 3_000;
