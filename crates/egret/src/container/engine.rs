//! The container engine, spoken to through its own command line: contexts, credential helpers, pull progress, terminals
//! and remote daemons are then as its users know them.

use super::socket::Socket;
use crate::failure::Failure;
use crate::settings;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Docker Engine, and whatever else answers to its command.
    Docker,
    /// Podman.
    Podman,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    /// The engine's command.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// The name that the host has in this engine's containers.
    pub(crate) const fn host_name(self) -> &'static str {
        match self {
            Self::Docker => "host.docker.internal",
            Self::Podman => "host.containers.internal",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        })
    }
}

/// An engine that answers.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) kind: Kind,
    program: PathBuf,
    /// Where some questions are answered sooner than by the program.
    socket: Option<Socket>,
}

/// Why a command of the engine's failed.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// What it said, in one line.
    pub(crate) said: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for Complaint {}

impl Engine {
    /// The engine that was named, or the first that answers: Docker, then Podman. Where there is no choice nobody is asked:
    /// whether it answers is seen soon enough.
    pub(crate) fn find(named: Option<Kind>) -> Result<Self, Failure> {
        const ADVICE: &str =
            "start Docker or install Podman, or run a program without either: egret run -- COMMAND";
        let installed = Self::installed(named);
        match installed.as_slice() {
            [] => {
                let missing = named.map_or_else(
                    || "docker or podman".to_owned(),
                    |kind| kind.program().to_owned(),
                );
                Err(Failure::new(format!(
                    "there is no {missing} in PATH; {ADVICE}"
                )))
            }
            [only] => Ok(only.clone()),
            several => {
                let mut complaints = Vec::new();
                for engine in several {
                    match engine.answers() {
                        Ok(()) => return Ok(engine.clone()),
                        Err(complaint) => complaints.push(format!("{}: {complaint}", engine.kind)),
                    }
                }
                Err(Failure::new(format!(
                    "no container engine answers ({}); {ADVICE}",
                    complaints.join("; ")
                )))
            }
        }
    }

    /// The engines whose command is there, whether or not they answer.
    pub(crate) fn installed(named: Option<Kind>) -> Vec<Self> {
        let wanted: Vec<Kind> = named.map_or(Kind::ALL.to_vec(), |kind| vec![kind]);
        wanted
            .into_iter()
            .filter_map(|kind| {
                let program = in_path(kind.program())?;
                let socket = match kind {
                    Kind::Podman => None,
                    Kind::Docker => match chosen(kind) {
                        None if has_context() => None,
                        host => Socket::of(&program, host.as_deref()),
                    },
                };
                Some(Self {
                    kind,
                    program,
                    socket,
                })
            })
            .collect()
    }

    /// Those that may have containers. Only to ask it, Podman would make itself a home, and leave a process in it.
    pub(crate) fn in_use(named: Option<Kind>) -> Vec<Self> {
        let mut engines = Self::installed(named);
        engines.retain(|engine| named.is_some() || engine.kind == Kind::Docker || podman_is_used());
        engines
    }

    #[cfg(test)]
    pub(crate) fn for_tests(kind: Kind) -> Self {
        Self {
            kind,
            program: kind.program().into(),
            socket: None,
        }
    }

    /// Asks for its version, which its daemon has to tell where it has one.
    fn answers(&self) -> Result<(), Complaint> {
        let format = match self.kind {
            Kind::Docker => "{{.Server.Version}}",
            Kind::Podman => "{{.Client.Version}}",
        };
        self.output(["version", "--format", format]).map(|_| ())
    }

    /// A command of the engine's.
    pub(crate) fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command
    }

    /// Runs a command of the engine's to its end, and returns what it printed.
    pub(crate) fn output<A: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, Complaint> {
        printed(self.outcome(arguments))
    }

    /// Runs a command of the engine's to its end.
    pub(crate) fn outcome<A: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Output> {
        let arguments: Vec<A> = arguments.into_iter().collect();
        let words: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let answer = self
            .socket
            .as_ref()
            .and_then(|socket| socket.output(&words));
        match answer {
            Some(output) => Ok(output),
            None => self.command(words).stdin(Stdio::null()).output(),
        }
    }

    /// Where it keeps its containers, images and volumes.
    pub(crate) fn storage(&self) -> Result<Vec<PathBuf>, Failure> {
        let format = match self.kind {
            Kind::Docker => "{{.DockerRootDir}}",
            Kind::Podman => "{{.Store.GraphRoot}}\n{{.Store.RunRoot}}\n{{.Store.VolumePath}}",
        };
        let places = self
            .output(["info", "--format", format])
            .map_err(|complaint| {
                Failure::because(
                    format_args!("cannot ask {} where it keeps its containers", self.kind),
                    &complaint,
                )
            })?;
        let places = places
            .lines()
            .map(str::trim)
            .filter(|place| place.starts_with('/'));
        let real = places.map(|place| {
            Path::new(place)
                .canonicalize()
                .unwrap_or_else(|_| place.into())
        });
        Ok(real.collect())
    }

    /// The name of the machine that the daemon runs on, where that is another one than this: its addresses are the host's
    /// then, as far as its name has them.
    pub(crate) fn remote(&self) -> Option<String> {
        let address = match chosen(self.kind) {
            Some(address) => address,
            None if self.kind == Kind::Podman || !has_context() => return None,
            None => self
                .output([
                    "context",
                    "inspect",
                    "--format",
                    "{{.Endpoints.docker.Host}}",
                ])
                .ok()?,
        };
        host_of(address.trim())
    }
}

/// The address of a daemon that was chosen by a variable.
fn chosen(kind: Kind) -> Option<String> {
    let variable = match kind {
        Kind::Podman => "CONTAINER_HOST",
        Kind::Docker => "DOCKER_HOST",
    };
    std::env::var(variable)
        .ok()
        .filter(|address| !address.is_empty())
}

/// Whether Docker's command uses a context that somebody chose: asking it which takes longer than to look whether there is
/// any.
fn has_context() -> bool {
    let directory = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(settings::home()?.join(".docker")));
    let settings =
        directory.and_then(|directory| std::fs::read_to_string(directory.join("config.json")).ok());
    std::env::var_os("DOCKER_CONTEXT").is_some()
        || settings.is_some_and(|settings| settings.contains("\"currentContext\""))
}

/// Whether Podman has been used by this user, as far as that can be told without it: there is its storage, or it is told
/// where else to look (containers-storage.conf(5)).
fn podman_is_used() -> bool {
    let elsewhere = ["CONTAINER_HOST", "CONTAINERS_STORAGE_CONF"];
    if elsewhere
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return true;
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = settings::home();
    let own = data.or_else(|| Some(home.as_ref()?.join(".local/share")));
    let configured = home.map(|home| home.join(".config/containers/storage.conf"));
    [
        own.map(|data| data.join("containers/storage")),
        configured,
        Some("/etc/containers/storage.conf".into()),
        rustix::process::geteuid()
            .is_root()
            .then(|| "/var/lib/containers/storage".into()),
    ]
    .into_iter()
    .flatten()
    .any(|path| path.exists())
}

/// The machine in the address of a daemon: none for a socket of this one.
fn host_of(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    if matches!(scheme, "unix" | "npipe" | "fd") {
        return None;
    }
    let authority = rest.split('/').next()?;
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next()?,
        None => host.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

/// What a command printed, or what it complained of.
pub(crate) fn printed(output: io::Result<Output>) -> Result<String, Complaint> {
    let output = output.map_err(|error| Complaint {
        said: error.to_string(),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Complaint {
        said: said(&String::from_utf8_lossy(&output.stderr)),
    })
}

/// What an engine's command says went wrong, without its preambles and advice.
pub(crate) fn said(stderr: &str) -> String {
    let lines = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("See '") && !line.starts_with("Run '"))
        .filter(|line| !line.contains("level=warning") && !line.starts_with("WARNING"));
    let text = lines.collect::<Vec<_>>().join(" ");
    let text = text
        .strip_prefix("docker: ")
        .or_else(|| text.strip_prefix("Error: "))
        .unwrap_or(&text);
    let text = text
        .strip_prefix("Error response from daemon: ")
        .unwrap_or(text)
        .trim_end_matches('.');
    match text.is_empty() {
        true => "it failed and did not say why".into(),
        false => text.to_owned(),
    }
}

/// Where a program is, as a shell would find it.
pub(super) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_elsewhere_is_a_machine_of_its_own() {
        #[rustfmt::skip]
        let table = [
            ("unix:///var/run/docker.sock",   None),
            ("npipe:////./pipe/x",            None),
            ("ssh://me@build.example:22",     Some("build.example")),
            ("ssh://build.example/run/x.sock",Some("build.example")),
            ("tcp://192.0.2.7:2376",          Some("192.0.2.7")),
            ("tcp://[2001:db8::7]:2376",      Some("2001:db8::7")),
            ("",                              None),
        ];
        for (address, host) in table {
            assert_eq!(host_of(address).as_deref(), host, "{address}");
        }
    }

    #[test]
    fn what_an_engine_says_is_told_in_one_line() {
        #[rustfmt::skip]
        let table = [
            ("docker: Error response from daemon: Conflict. The name is in use.\nSee 'docker run --help'.\n", "Conflict. The name is in use"),
            ("Error: no such container x\n", "no such container x"),
            ("WARNING: x\n", "it failed and did not say why"),
            ("time=\"…\" level=warning msg=\"x\"\nError: y", "y"),
        ];
        for (stderr, expected) in table {
            assert_eq!(said(stderr), expected);
        }
    }
}
