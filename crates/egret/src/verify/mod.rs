//! `egret verify`: a prober in a sandbox, sinks outside it, and what comes of both. [`verify`] is the whole story.
//!
//! - [`sinks`] are servers outside that nothing in a sandbox may reach: a leak is seen there, not concluded.
//! - [`prober`] runs inside, and tries what a hostile program would.
//! - [`subject`] is the sandbox that is verified, or the way to make one.
//! - [`judge`] puts together what was tried, seen and recorded; [`report`] prints it.
//!
//! A sandbox that is made for the prober is made by `egret run` itself, with the options that were given, and is opened for
//! two things more: a port of this machine, behind which is a sink, and names that a name server of ours resolves. So
//! what is said on an allowed connection, and what allowed names lead to, can be tried as well.

mod classes;
mod judge;
mod plan;
mod prober;
mod report;
mod sinks;
mod subject;
#[cfg(test)]
mod tests;

pub(crate) use plan::{Around, Opened, Plan};
pub(crate) use prober::probe;
pub(crate) use subject::MOST;

use crate::cli;
use crate::failure::Failure;
use crate::settings;
use judge::Evidence;
use report::Report;
use rustix::process::geteuid;
use sinks::Sinks;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use subject::{Child, Subject, Told};

/// Verifies a sandbox, and prints what came out.
pub(crate) fn verify(arguments: &cli::Verify, given: &[OsString]) -> Result<ExitCode, Failure> {
    let since = Instant::now();
    for (is_given, option) in [
        (arguments.container.detach, "--detach"),
        (arguments.container.tty, "--tty"),
        (arguments.container.interactive, "--interactive"),
    ] {
        if is_given {
            return Err(Failure::new(format!(
                "{option} is about an image's own program, and the prober is run in its place; leave it out"
            )));
        }
    }
    let subject = Subject::of(arguments, given)?;
    let place = Place::make()?;
    let nonce = settings::random_word::<NONCE_LENGTH>()?;
    let machine = machine()?;
    let zone = format!("{nonce}.verify.egret.test");
    let own_name = format!("egret-verify/{nonce}");
    // No sandbox has such a name, so nobody who looks for sandboxes speaks to it.
    let control_name = format!("egret/{}/verify {nonce}", geteuid().as_raw());
    let socket = place.0.join("socket");
    let resolver = subject.resolver(&machine);
    let sinks = Sinks::open(
        &nonce,
        &zone,
        &machine,
        [&own_name, &control_name],
        &socket,
        resolver,
    )
    .map_err(|error| {
        Failure::because("cannot open the servers that are to see what leaks", &error)
    })?;
    let child = Child::default();
    sinks.when_broken_off({
        let (child, place) = (child.clone(), place.0.clone());
        move |signal| {
            child.end();
            // A directory for temporary files is emptied some time.
            let (Ok(()) | Err(_)) = std::fs::remove_dir_all(&place);
            std::process::exit(128 + signal)
        }
    });
    let log = arguments.options.log_file.clone();
    let (log, policy) = subject.files(
        log.unwrap_or_else(|| place.0.join("audit.jsonl")),
        arguments.options.policy.as_deref(),
    )?;
    let plan = Plan {
        hosts: machine,
        ports: sinks.ports.clone(),
        udp: sinks.udp,
        abstract_socket: own_name,
        control_socket: control_name,
        paths: vec![socket],
        own: own_files([Some(log.path().to_owned()), policy], &nonce),
        processes: vec![std::process::id()],
        granted: subject.is_new().then(|| sinks::granted(&sinks, &zone)),
        proxy: None,
        around: Around::Nothing,
        names_are_open: false,
        host_is_open: false,
        nonce,
    };
    let before = log.length()?;
    let told = subject.probe(&plan, log.path(), &child)?;
    let log = match told.around {
        // Nothing was sealed, and nothing is on record.
        Around::Nothing | Around::NoNetwork => None,
        Around::Sealed => Some(log.read(before)?),
    };
    let evidence = Evidence {
        told,
        sightings: sinks.close(),
        log,
    };
    let findings = judge::judge(&plan, &evidence);
    let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    let report = Report::new(subject.to_string(), findings, ms);
    report
        .print(arguments.output)
        .map_err(|error| Failure::because("cannot print", &error))?;
    Ok(ExitCode::from(u8::from(!report.holds)))
}

/// How long the word is that tells what a prober sent, in octets.
const NONCE_LENGTH: usize = 6;
/// How long a prober may take for all it does.
const LIMIT: Duration = Duration::from_secs(9);
/// What the policy of the sandbox under test lets through on purpose.
const OPEN: &str = "the policy opens every port of this machine";
/// A directory of ours, removed with what is in it.
#[derive(Debug)]
struct Place(PathBuf);

impl Place {
    fn make() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!(
            "egret-verify-{}",
            settings::random_word::<NONCE_LENGTH>()?
        ));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                Failure::because(format_args!("cannot make {}", path.display()), &error)
            })?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left in a directory for temporary files is removed with the rest of it some time.
        let (Ok(()) | Err(_)) = std::fs::remove_dir_all(&self.0);
    }
}

/// Some of this machine's addresses, those that others can reach first.
fn machine() -> Result<Vec<IpAddr>, Failure> {
    let mut all = egret_sandbox::addresses()
        .map_err(|error| Failure::because("cannot list this machine's addresses", &error))?;
    // Link-local ones mean something only with an interface.
    all.retain(
        |address| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()),
    );
    all.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    const MOST_OF_A_FAMILY: usize = 3;
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = all.into_iter().partition(IpAddr::is_ipv4);
    let chosen = [v4, v6].map(|family| family.into_iter().take(MOST_OF_A_FAMILY));
    let mut chosen: Vec<IpAddr> = chosen.into_iter().flatten().collect();
    chosen.sort_by_key(IpAddr::is_loopback);
    Ok(chosen)
}

/// Files that are not to be changed: these, this program, and one that is to be made where audit logs are.
fn own_files(files: [Option<PathBuf>; 2], nonce: &str) -> Vec<PathBuf> {
    let executable = std::env::current_exe().ok();
    let logs = settings::log_directory()
        .ok()
        .map(|directory| directory.join(nonce));
    files
        .into_iter()
        .chain([executable, logs])
        .flatten()
        // The prober has a working directory of its own.
        .filter_map(|path| std::path::absolute(path).ok())
        .collect()
}
