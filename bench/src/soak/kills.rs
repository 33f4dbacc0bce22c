//! The gateway is killed at random while it is under load.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::load::{Shape, Work};
use super::sandbox::{Sandbox, tag};
use super::servers::HTTP;
use super::tally::{Flows, Report, Wrong};
use super::{Scene, Soak, checks};
use crate::Error;

/// Kills the process in which the gateway is, again and again. Each time the sandbox has to be gone with it, whatever
/// reached a server has to be on record, and whatever is on record has to have happened.
pub(crate) fn kills(soak: &Soak, scene: &mut Scene) -> Result<Wrong, Error> {
    let chance = Chance::new("kills");
    let mut wrong = Wrong::default();
    let mut open = 0;
    let mut slowest = Duration::ZERO;
    let mut last = Report::default();
    let since = Instant::now();
    for number in 0..soak.kills {
        let name = format!("kill-{number}");
        let mut sandbox = scene.sandbox(&name)?;
        sandbox.begin(&Shape {
            run: format!("k{number}"),
            work: Work::Mixed,
            seconds: 60.0,
            rate: 400.0,
            held: 20,
        })?;
        std::thread::sleep(Duration::from_millis(20 + chance.below(380) as u64));
        let killed = Instant::now();
        sandbox.process.kill()?;
        sandbox.process.wait()?;
        gone(&mut sandbox, &tag(&scene.directory.0, &name), killed)?;
        slowest = slowest.max(killed.elapsed());
        let before = scene.report()?.log.open;
        open += before;
        last = forgotten(scene)?;
        let found = checks::undisturbed(&last);
        if found.count > 0 {
            wrong.add(format!("after kill {number}: {}", found.first.join("; ")));
            break;
        }
        if (number + 1) % 100 == 0 {
            println!(
                "kills: {} after {:.0} s",
                number + 1,
                since.elapsed().as_secs_f64()
            );
        }
    }
    // Requests share connections.
    let sum = |counts: &BTreeMap<u16, u64>| -> u64 {
        let counts = counts.iter().filter(|&(&port, _)| port != HTTP);
        counts.map(|(_, count)| count).sum()
    };
    let connections = |flows: &Flows| -> u64 {
        let flows = flows.iter().filter(|&(&port, _)| port != HTTP);
        flows.map(|(_, flow)| flow.connections).sum()
    };
    println!(
        "kills: {} times in {:.0} s, {open} connections and requests were under way when the gateway was killed",
        soak.kills,
        since.elapsed().as_secs_f64()
    );
    println!(
        "kills: connections: {} that servers got something over, {} by the log, {} that servers accepted",
        connections(&last.used),
        sum(&last.log.dialled),
        sum(&last.accepted)
    );
    println!(
        "kills: {} records, the last of each time complete; {} ends of connections, {} refusals",
        last.log.lines,
        connections(&last.log.closed),
        last.log.refused
    );
    println!(
        "kills: the sandbox was gone at most {} ms after its gateway",
        slowest.as_millis()
    );
    Ok(wrong)
}

/// Waits until nothing runs that was in the sandbox.
fn gone(sandbox: &mut Sandbox, tag: &str, killed: Instant) -> Result<(), Error> {
    sandbox.silent()?;
    while let Some(process) = running(tag)? {
        if killed.elapsed() > Duration::from_secs(5) {
            return Err(format!("process {process} has outlived its gateway by 5 s").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A process that has `tag` among its arguments.
fn running(tag: &str) -> Result<Option<String>, Error> {
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Some end while they are looked at.
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        if arguments
            .split(|&byte| byte == 0)
            .any(|argument| argument == tag.as_bytes())
        {
            let name = path.file_name().map(Path::new).unwrap_or(&path);
            return Ok(Some(name.display().to_string()));
        }
    }
    Ok(None)
}

/// The report once the servers have seen all connections end, after which the log begins anew.
fn forgotten(scene: &mut Scene) -> Result<Report, Error> {
    let since = Instant::now();
    loop {
        let report = scene.report()?;
        if report.open == 0 {
            return Ok(serde_json::from_str(&scene.world.ask("forget")?)?);
        }
        if since.elapsed() > Duration::from_secs(5) {
            return Err(format!(
                "{} connections are open at the servers after 5 s",
                report.open
            )
            .into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
