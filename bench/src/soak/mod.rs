//! Egret under load, long, and with everything around it that goes wrong; and killed, over and over.
//!
//! What must hold is told by comparing three accounts of the same connections: what the clients in the sandbox saw
//! ([`load`]), what the servers saw ([`servers`]), and what the log says ([`witness`]), which the servers read while it is
//! written. In [`checks`] is what has to be equal. Beside that, memory and descriptors have to be where they were once
//! nothing is open any more.

mod chance;
mod checks;
mod kills;
pub(crate) mod load;
mod sandbox;
pub(crate) mod servers;
mod tally;
mod witness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Error;
use crate::figures::network::Directory;
use crate::world::{self, World};
use load::{Shape, Work};
use sandbox::{Rest, Sandbox};
use tally::{Report, Tally, Wrong};

/// What is done, and for how long.
#[derive(clap::Args, Clone)]
pub(crate) struct Soak {
    /// How long the mixed load lasts
    #[arg(default_value_t = 60.0)]
    minutes: f64,
    /// Only these parts; all of them without one
    parts: Vec<Part>,
    /// New connections a second of the mixed load
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Tunnels that are open at once
    #[arg(long, default_value_t = 10_000)]
    tunnels: usize,
    /// New connections a second, by themselves
    #[arg(long, default_value_t = 1_000.0)]
    pace: f64,
    /// How long these come, in minutes, by each door
    #[arg(long, default_value_t = 3.0)]
    pace_minutes: f64,
    /// How often the gateway is killed
    #[arg(long, default_value_t = 1_000)]
    kills: u32,
    /// The executable that is measured
    #[arg(long, default_value = "target/egret")]
    egret: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// A great many tunnels at once
    Tunnels,
    /// A great many connections a second
    Pace,
    /// Being killed
    Kills,
    /// Everything that programs, servers and name servers do
    Mixed,
}

/// Does all this, each part in namespaces of its own.
pub(crate) fn apart(soak: &Soak) -> Result<(), Error> {
    let all = [Part::Tunnels, Part::Pace, Part::Kills, Part::Mixed];
    let mut failed = Vec::new();
    for part in all {
        if !soak.parts.is_empty() && !soak.parts.contains(&part) {
            continue;
        }
        let mut command = world::inside("soaking")?;
        command
            .arg(soak.minutes.to_string())
            .arg(part.name())
            .arg(format!("--rate={}", soak.rate))
            .arg(format!("--tunnels={}", soak.tunnels))
            .arg(format!("--pace={}", soak.pace))
            .arg(format!("--pace-minutes={}", soak.pace_minutes))
            .arg(format!("--kills={}", soak.kills))
            .arg("--egret")
            .arg(&soak.egret);
        if !command.status()?.success() {
            failed.push(part.name());
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("not as it has to be: {}", failed.join(", ")).into()),
    }
}

/// Does one part in these namespaces, which are new.
pub(crate) fn run(soak: &Soak) -> Result<(), Error> {
    let &[part] = soak.parts.as_slice() else {
        return Err("one part at a time".into());
    };
    let mut scene = Scene::new(&soak.egret)?;
    let wrong = match part {
        Part::Tunnels => tunnels(soak, &mut scene)?,
        Part::Pace => pace(soak, &mut scene)?,
        Part::Kills => kills::kills(soak, &mut scene)?,
        Part::Mixed => mixed(soak, &mut scene)?,
    };
    for sentence in &wrong.first {
        println!("WRONG: {sentence}");
    }
    if wrong.count == 0 {
        println!("{}: log, servers and clients agree", part.name());
        return Ok(());
    }
    let kept = Path::new("target/soak-audit.jsonl");
    fs::rename(scene.directory.0.join("audit.jsonl"), kept)?;
    let (count, kept) = (wrong.count, kept.display());
    Err(format!("{count} things were wrong; the log is kept in {kept}").into())
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Tunnels => "tunnels",
            Self::Pace => "pace",
            Self::Kills => "kills",
            Self::Mixed => "mixed",
        }
    }
}

/// A world, a log, and policies.
struct Scene {
    world: World,
    egret: PathBuf,
    directory: Directory,
}

impl Scene {
    fn new(egret: &Path) -> Result<Self, Error> {
        let directory = Directory::new()?;
        for (name, text) in [("policy", ALL), ("without", WITHOUT), ("broken", BROKEN)] {
            fs::write(directory.0.join(name).with_extension("yaml"), text)?;
        }
        let log = directory.0.join("audit.jsonl");
        let world = World::set_up(&directory.0, &["soak-servers".as_ref(), log.as_ref()])?;
        Ok(Self {
            world,
            egret: egret.canonicalize()?,
            directory,
        })
    }

    fn sandbox(&self, name: &str) -> Result<Sandbox, Error> {
        Sandbox::start(&self.egret, &self.directory.0, name)
    }

    fn report(&mut self) -> Result<Report, Error> {
        Ok(serde_json::from_str(&self.world.ask("report")?)?)
    }

    /// The same once nothing is open any more, and whatever is put off until then has been done.
    fn at_rest(&mut self) -> Result<Report, Error> {
        let since = Instant::now();
        loop {
            let report = self.report()?;
            if report.open == 0 && report.log.open == 0 {
                std::thread::sleep(Duration::from_secs(3));
                return Ok(report);
            }
            if since.elapsed() > Duration::from_secs(20) {
                return Err(format!(
                    "{} connections are open at the servers, and {} by the log, though the clients have closed theirs",
                    report.open, report.log.open
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Puts a policy in the place of the one that a sandbox has, and says whether it was taken.
    fn set_policy(&self, sandbox: &str, policy: &str) -> Result<bool, Error> {
        let file = self.directory.0.join(policy).with_extension("yaml");
        let mut command = Command::new(&self.egret);
        command.args(["policy", "set", sandbox]).arg(file);
        Ok(command.output()?.status.success())
    }
}

/// Everything, at random, for an hour; and policies that come and go.
fn mixed(soak: &Soak, scene: &mut Scene) -> Result<Wrong, Error> {
    let name = "soak";
    let mut sandbox = scene.sandbox(name)?;
    let fresh = sandbox.rest()?;
    let shape = |seconds| Shape {
        run: "all".into(),
        work: Work::Mixed,
        seconds,
        rate: soak.rate,
        held: 200,
    };
    sandbox.begin(&shape(soak.minutes.min(1.5) * 60.0))?;
    let mut tally = sandbox.end(|| Ok(()))?;
    scene.at_rest()?;
    let warm = sandbox.rest()?;

    let seconds = soak.minutes * 60.0;
    let (since, cpu) = (Instant::now(), sandbox.cpu()?);
    sandbox.begin(&shape(seconds))?;
    let mut wrong = Wrong::default();
    let mut turn: u64 = 0;
    let mut samples = Vec::new();
    let id = sandbox.id;
    let more = sandbox.end(|| {
        turn += 1;
        if turn.is_multiple_of(RELOAD) {
            let (policy, taken) = match turn / RELOAD % 6 {
                0 => ("broken", false),
                2 | 4 => ("policy", true),
                _ => ("without", true),
            };
            if scene.set_policy(name, policy)? != taken {
                wrong.add(format!("the policy `{policy}` was to be taken: {taken}"));
            }
        }
        if turn.is_multiple_of(SAMPLE) {
            let (rest, report) = (Rest::of(id)?, scene.report()?);
            samples.push(rest);
            println!(
                "mixed: {:4.0} s: {rest}; {} records, {} connections open, {} questions about names",
                since.elapsed().as_secs_f64(), report.log.lines, report.log.open, report.questions
            );
        }
        Ok(())
    })?;
    let cpu = sandbox.cpu()? - cpu;
    let lasted = since.elapsed().as_secs_f64();
    tally.append(more);
    let report = scene.at_rest()?;
    let after = sandbox.rest()?;
    println!("mixed: at rest, fresh: {fresh}");
    println!("mixed: at rest, after 90 s: {warm}");
    println!("mixed: at rest, after {lasted:.0} s more: {after}");
    println!(
        "mixed: {} connections, {} refused, {} broken off, {} look-ups, {} policies; {} records, {} questions about names",
        tally.connections(),
        tally.refused,
        tally.broken,
        tally.lookups,
        report.log.policies,
        report.log.lines,
        report.questions
    );
    println!(
        "mixed: short ones: p50 {:.0} us, p99 {:.0} us, longest {:.0} us; {:.1} s of the processor in {lasted:.0} s",
        tally.p50,
        tally.p99,
        tally.most,
        cpu.as_secs_f64()
    );
    wrong.append(checks::equal(&tally, &report));
    wrong.append(checks::returned(&fresh, &warm, &after));
    Ok(wrong)
}

/// Tunnels held at once, all of them in use.
fn tunnels(soak: &Soak, scene: &mut Scene) -> Result<Wrong, Error> {
    // As many as one gateway takes on with the descriptors that it may have (`egret::gate`).
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?.1;
    let affordable = usize::try_from(limit.saturating_sub(64) / 3)?;
    let most = (affordable - 1_024.min(affordable / 4)).min(16_384);
    let gateways = soak.tunnels.div_ceil(most);
    let each = soak.tunnels.div_ceil(gateways);
    println!(
        "tunnels: {each} at each of {gateways} gateways, of which each may open {limit} files"
    );
    let mut sandboxes = Vec::new();
    for number in 0..gateways {
        sandboxes.push(scene.sandbox(&format!("tunnels-{number}"))?);
    }
    let shape = |number, held, seconds| Shape {
        run: format!("t{number}"),
        work: Work::Hold,
        seconds,
        rate: 1_000.0,
        held,
    };
    let mut sum = Tally::default();
    let mut rests: Vec<Vec<Rest>> = Vec::new();
    let seconds = soak.minutes.min(1.0) * 60.0;
    for (round, (held, seconds)) in [(100, 1.0), (each, seconds), (each, seconds)]
        .into_iter()
        .enumerate()
    {
        let since = Instant::now();
        for (number, sandbox) in sandboxes.iter_mut().enumerate() {
            sandbox.begin(&shape(number, held, seconds))?;
        }
        for sandbox in &mut sandboxes {
            sandbox.expect(load::HELD)?;
        }
        let opened = since.elapsed();
        let open = scene.report()?.log.open;
        let mut full = Vec::new();
        for sandbox in &sandboxes {
            full.push(sandbox.rest()?);
        }
        for sandbox in &mut sandboxes {
            sum.append(sandbox.end(|| Ok(()))?);
        }
        scene.at_rest()?;
        let mut after = Vec::new();
        for sandbox in &sandboxes {
            after.push(sandbox.rest()?);
        }
        if round > 0 {
            println!(
                "tunnels: {open} open after {:.1} s, used one after the other for {seconds} s",
                opened.as_secs_f64()
            );
            for (full, before) in full.iter().zip(rests.last().into_iter().flatten()) {
                let more: u64 = full.written.saturating_sub(before.written);
                println!(
                    "tunnels: with all open: {full}; {:.2} KiB for each",
                    more as f64 / each as f64
                );
            }
        }
        for rest in &after {
            println!("tunnels: at rest, after {held} at once: {rest}");
        }
        rests.push(after);
    }
    let report = scene.at_rest()?;
    let mut wrong = checks::equal(&sum, &report);
    for (before, after) in rests.iter().flatten().zip(rests.iter().skip(1).flatten()) {
        wrong.append(checks::returned(before, before, after));
    }
    println!(
        "tunnels: {} connections, {} failed",
        sum.connections(),
        sum.failed.count
    );
    Ok(wrong)
}

/// Connections at a pace of their own, whatever becomes of those before.
fn pace(soak: &Soak, scene: &mut Scene) -> Result<Wrong, Error> {
    let mut sandbox = scene.sandbox("pace")?;
    let shape = |run: &str, work, seconds| Shape {
        run: run.into(),
        work,
        seconds,
        rate: soak.pace,
        held: 0,
    };
    let fresh = sandbox.rest()?;
    println!("pace: at rest, fresh: {fresh}");
    let mut sum = Tally::default();
    let mut wrong = Wrong::default();
    for (run, work) in [("asked", Work::Asked), ("captured", Work::Captured)] {
        let seconds = soak.pace_minutes * 60.0;
        sandbox.begin(&shape(&format!("w{run}"), work, seconds.min(10.0)))?;
        sum.append(sandbox.end(|| Ok(()))?);
        scene.at_rest()?;
        let (warm, cpu, since) = (sandbox.rest()?, sandbox.cpu()?, Instant::now());
        sandbox.begin(&shape(run, work, seconds))?;
        let mut most = warm;
        let id = sandbox.id;
        let tally = sandbox.end(|| {
            most = most.max(Rest::of(id)?);
            Ok(())
        })?;
        let cpu = sandbox.cpu()? - cpu;
        scene.at_rest()?;
        let after = sandbox.rest()?;
        println!(
            "pace, {run}: {} connections in {:.0} s, {} failed; p50 {:.0} us, p99 {:.0} us, longest {:.0} us; {:.1} s of the processor; {} connections noted by the kernel",
            tally.connections(),
            since.elapsed().as_secs_f64(),
            tally.failed.count,
            tally.p50,
            tally.p99,
            tally.most,
            cpu.as_secs_f64(),
            tally.tracked
        );
        println!("pace, {run}: at rest before: {warm}");
        println!("pace, {run}: most: {most}");
        println!("pace, {run}: at rest after: {after}");
        wrong.append(checks::returned(&fresh, &warm, &after));
        sum.append(tally);
    }
    let report = scene.at_rest()?;
    wrong.append(checks::equal(&sum, &report));
    Ok(wrong)
}

/// What is allowed: `*.refused.example.com` never.
const ALL: &str = "version: 1
allow:
  - \"*.many.example.com:7,9,19,21,80,101,102,104\"
  - \"*.revoked.example.com:103\"
";
const WITHOUT: &str = "version: 1
allow:
  - \"*.many.example.com:7,9,19,21,80,101,102,104\"
";
const BROKEN: &str = "version: 1
allow:
  - *.many.example.com
";

/// In turns, which are a second each: how often there is another policy, and how often it is looked how things are.
const RELOAD: u64 = 7;
const SAMPLE: u64 = 30;
