//! Where Egret keeps things, and how its words are read that are not policy.

pub(crate) mod user;

use crate::environment::looks_secret;
use crate::failure::Failure;
use egret_gateway::{ResolverConfig, UpstreamProxy};
use egret_policy::SandboxId;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The user's home directory, with links followed.
pub(crate) fn home() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    home.is_absolute()
        .then(|| home.canonicalize().unwrap_or(home))
}

/// Where users keep what Egret is to go by: settings, and policies that have names. No sandbox sees it.
pub(crate) fn config_directory() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    Some(
        config
            .or_else(|| Some(home()?.join(".config")))?
            .join("egret"),
    )
}

/// Where Egret keeps what it has to remember.
pub(crate) fn state_directory() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    Some(
        state
            .or_else(|| Some(home()?.join(".local/state")))?
            .join("egret"),
    )
}

/// The directory of audit logs.
pub(crate) fn log_directory() -> Result<PathBuf, Failure> {
    let state = state_directory().ok_or_else(|| {
        Failure::new("there is no place for the audit log: set HOME, or name one with --log-file")
    })?;
    Ok(state.join("logs"))
}

/// Makes the directory of audit logs, for this user only.
pub(crate) fn make_log_directory() -> Result<PathBuf, Failure> {
    let directory = log_directory()?;
    make_private(&directory)?;
    Ok(directory)
}

/// Makes a directory, with those above it, for this user only.
pub(crate) fn make_private(directory: &Path) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| {
            Failure::because(format_args!("cannot make {}", directory.display()), &error)
        })
}

/// A name for a sandbox that was not given one: the program's, and something that tells it from its siblings.
pub(crate) fn made_up_name(program: &Path) -> Result<SandboxId, Failure> {
    named_after(program, &std::process::id().to_string())
}

/// A name made of that of a program or an image, and of what tells it from its siblings.
pub(crate) fn named_after(program: &Path, sibling: &str) -> Result<SandboxId, Failure> {
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let plain: String = program
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(40)
        .collect();
    let plain = plain.trim_matches('-');
    let word = if plain.is_empty() { "sandbox" } else { plain };
    format!("{word}-{sibling}")
        .parse()
        .map_err(|error| Failure::because("cannot name the sandbox; use --name", &error))
}

/// So many random octets, as hexadecimal digits: something that nobody else has, and nobody can know.
pub(crate) fn random_word<const OCTETS: usize>() -> Result<String, Failure> {
    let mut octets = [0; OCTETS];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut octets))
        .map_err(|error| Failure::because("cannot read /dev/urandom", &error))?;
    Ok(octets.iter().map(|octet| format!("{octet:02x}")).collect())
}

/// `--resolver ADDR[:PORT]`, any number of times; without any, the system's.
pub(crate) fn resolver(servers: &[String]) -> Result<ResolverConfig, Failure> {
    if servers.is_empty() {
        return Ok(ResolverConfig::system());
    }
    let parsed = servers.iter().map(|text| {
        text.parse::<SocketAddr>()
            .or_else(|_| text.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| SocketAddr::new(address, 53)))
            .map_err(|_| {
                Failure::new(format!("--resolver {text:?} is no address; write 1.1.1.1, 1.1.1.1:53 or [2606:4700::1]:53"))
            })
    });
    Ok(ResolverConfig::servers(parsed.collect::<Result<_, _>>()?))
}

/// `NAME=VALUE` as it may be kept and shown: without a value that looks like a secret.
pub(crate) fn without_secret(variable: &str) -> String {
    let name = variable.split_once('=').map(|(name, _)| name);
    name.filter(|name| looks_secret(name))
        .unwrap_or(variable)
        .to_owned()
}

/// A URL as it may be kept and shown.
pub(crate) fn without_credentials(url: &str) -> String {
    match url
        .split_once("://")
        .map(|(scheme, rest)| (scheme, rest.rsplit_once('@')))
    {
        Some((scheme, Some((_credentials, host)))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// `--upstream-proxy http://[USER:PASSWORD@]HOST:PORT`.
pub(crate) fn upstream_proxy(url: Option<&str>) -> Result<Option<UpstreamProxy>, Failure> {
    url.map(|url| {
        url.parse()
            .map_err(|error| Failure::because("--upstream-proxy", &error))
    })
    .transpose()
}
