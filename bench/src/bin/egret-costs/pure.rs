//! What needs no connection: deciding, compiling, writing a record.

use std::fmt::Write as _;
use std::hint::black_box;

use egret_gateway::audit;
use egret_policy::{Destination, HostAddresses, Policy};

use crate::Error;

/// The scenarios, and how often each is done.
pub(crate) const TIMES: &[(&str, u64)] = &[
    ("decide-10", 1000),
    ("decide-100000", 1000),
    ("compile-1000", 4),
    ("record", 1000),
];

/// Plays one of them.
pub(crate) fn play(scenario: &str) -> Result<(), Error> {
    let times = TIMES.iter().find(|(name, _)| *name == scenario);
    let &(name, times) = times.ok_or_else(|| format!("there is no scenario `{scenario}`"))?;
    match name.split_once('-') {
        Some(("decide", entries)) => {
            let matcher = policy(entries.parse()?)?.compile();
            let hosts = HostAddresses::new([]);
            // Allowed by name, and below a wildcard; denied by an entry, and by none.
            let asked = [
                "host-0.zone-0.example",
                "any.host-7.zone-7.example",
                "a.host-9.zone-9.example",
                "elsewhere.example.com",
            ];
            let asked = asked.map(|host| Destination::parse(host, "443"));
            let asked = asked.into_iter().collect::<Result<Vec<_>, _>>()?;
            let mut turn = asked.iter().cycle();
            measured(times, || {
                turn.next()
                    .is_some_and(|to| matcher.decide(to, None, &hosts).is_ok())
            });
        }
        Some(("compile", entries)) => {
            let policy = policy(entries.parse()?)?;
            measured(times, || policy.compile());
        }
        _ => {
            let log = audit::Log::to_file("/dev/null")?;
            let sandbox = "costs".parse()?;
            measured(times, || {
                log.lifecycle(&sandbox, "started", "/usr/bin/true")
            });
        }
    }
    Ok(())
}

/// All that callgrind counts: it knows this function by its name.
#[inline(never)]
fn measured<T>(times: u64, mut what: impl FnMut() -> T) {
    for _ in 0..times {
        black_box(what());
    }
}

/// One entry in ten is a wildcard, one in ten is a deny entry.
fn policy(entries: usize) -> Result<Policy, Error> {
    let (mut allow, mut deny) = (String::new(), String::new());
    for n in 0..entries {
        let zone = n % 1000;
        match n % 10 {
            9 => writeln!(deny, "  - a.host-{n}.zone-{zone}.example")?,
            7 => writeln!(allow, "  - '*.host-{n}.zone-{zone}.example'")?,
            _ => writeln!(allow, "  - host-{n}.zone-{zone}.example")?,
        }
    }
    let text = format!("version: 1\nallow:\n{allow}deny:\n{deny}");
    Ok(Policy::parse("policy.yaml", text.as_bytes())?.policy)
}
