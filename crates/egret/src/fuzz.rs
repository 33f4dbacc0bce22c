//! An entrance to the readers of the program, for the fuzz targets in `fuzz/`. It is there only under `--cfg fuzzing`, which
//! no build of Egret is made with. What stands here calls the readers and says what they say; it reads nothing by itself.

use crate::cli::{Cli, Command};
use crate::container::config::{HostAccess, Isolation, RunConfig};
use crate::container::mounts::Mount;
use crate::container::openings::openings;
use crate::container::publish::Publish;
use crate::container::{inside, socket};
use crate::control::{Answer, Request};
use crate::environment::{Wishes, environment};
use crate::logs::show;
use clap::Parser as _;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;

/// A run configuration that was taken.
#[derive(Debug)]
pub struct Config {
    /// As it is written.
    pub written: String,
    /// As it is kept, without secrets.
    pub kept: String,
    /// Whether anything of the host is open.
    pub opens_host: bool,
    /// Whether it is sealed.
    pub is_sealed: bool,
    /// What it asks for that would open the seal.
    pub openings: Vec<String>,
}

/// Reads a run configuration.
///
/// # Errors
/// It is refused.
pub fn run_config(text: &str) -> Result<Config, String> {
    let config: RunConfig = text.parse().map_err(told)?;
    Ok(Config {
        written: config.to_json(),
        opens_host: config.allow_docker_gateway != HostAccess::Off,
        is_sealed: config.isolate_network != Isolation::Off,
        openings: openings(&config, &[]),
        kept: config.without_secrets().to_json(),
    })
}

/// A mount that was taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Mounted {
    /// As an engine is told.
    pub written: String,
    /// The path of the host, if it is one.
    pub path: Option<String>,
    /// Whether it may be written to.
    pub is_writable: bool,
}

/// Reads what `-v` says or, if it is in the long form, `--mount`.
///
/// # Errors
/// It is refused.
pub fn mount(text: &str, in_long_form: bool) -> Result<Mounted, String> {
    let (mount, written) = match in_long_form {
        true => Mount::of_mount(text).map(|mount| (mount.to_mount(), mount)),
        false => Mount::of_volume(text).map(|mount| (mount.to_volume(), mount)),
    }
    .map(|(written, mount)| (mount, written))?;
    Ok(Mounted {
        written,
        path: mount.path().map(|path| path.display().to_string()),
        is_writable: mount.is_writable(),
    })
}

/// Reads what `-p` says: each address of the host, its port there, and the one inside; and how an engine is told.
///
/// # Errors
/// It is refused.
pub fn publish(text: &str) -> Result<Vec<(IpAddr, Option<u16>, u16, String)>, String> {
    let published = Publish::parse(text).map_err(told)?;
    let one = |one: Publish| (one.address, one.host_port, one.port, one.to_gateway(1));
    Ok(published.into_iter().map(one).collect())
}

/// What `egret logs` prints of a line of a log, with these options; nothing if they are none.
pub fn log_line(line: &str, options: &[String]) -> Option<Vec<u8>> {
    let words = ["egret", "logs"].into_iter().map(str::to_owned);
    let cli = Cli::try_parse_from(words.chain(options.iter().cloned())).ok()?;
    let Command::Logs(arguments) = cli.command else {
        return None;
    };
    let mut out = Vec::new();
    let (Ok(_) | Err(_)) = show(&mut out, line, &arguments, false);
    Some(out)
}

/// What `egret watch` paints of a line of a log, in a small window and in a large one, as a list and as a detail.
pub fn watched(line: &str) -> Vec<String> {
    crate::watch::pictures_of(line)
}

/// A message to a running sandbox, or from one, read and written again.
///
/// # Errors
/// It is none.
pub fn control(line: &str) -> Result<String, String> {
    match serde_json::from_str::<Request>(line) {
        Ok(request) => serde_json::to_string(&request).map_err(told),
        Err(_) => {
            let answer: Answer = serde_json::from_str(line).map_err(told)?;
            serde_json::to_string(&answer).map_err(told)
        }
    }
}

/// The environment of a program, of what there is outside and what was asked for.
///
/// # Errors
/// What was asked for makes no sense.
pub fn inherited(
    outside: &BTreeMap<OsString, OsString>,
    set: &[String],
) -> Result<Vec<(OsString, OsString)>, String> {
    let wishes = Wishes {
        set,
        files: &[],
        proxy: true,
    };
    environment(outside, &wishes).map_err(|failure| failure.to_string())
}

/// The body of an engine's answer, and what a container printed by it.
pub fn engine(answer: &[u8]) -> (Option<Vec<u8>>, Option<(Vec<u8>, Vec<u8>)>) {
    (socket::body(answer), socket::streams(answer))
}

/// The addresses of a name in a hosts file, as a gateway's container reads its own.
pub fn hosts(name: &str, text: &str) -> Vec<IpAddr> {
    inside::addresses_of(name, text)
}

fn told(why: impl std::fmt::Display) -> String {
    why.to_string()
}
