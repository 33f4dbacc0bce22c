//! How a running sandbox is found and spoken to.
//!
//! Each listens on an abstract unix socket, `@egret/UID/NAME`. Such a socket has no file, so nothing is left behind however
//! a run ends; and it belongs to a network namespace, so that no sandbox can reach one. Both ends check that the other runs
//! as the same user, or as root. A request and its answer are a line of JSON each.

use crate::failure::Failure;
use crate::secrets::{UNIX_SOCKETS, bound_names};
use crate::source::Origin;
use crate::verify::Plan;
use egret_gateway::{Activity, Reply};
use egret_policy::SandboxId;
use egret_sandbox::peer_user;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

/// What can be asked of a running sandbox.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// What it is.
    Status,
    /// Decide by this policy from now on, in place of the one from a file; flags stay.
    SetPolicy {
        /// What it is from.
        origin: Origin,
        /// What is in the file, if it is from one.
        text: String,
    },
    /// What goes on right now.
    Activity,
    /// Go by these entries, too, as by flags, whatever policy is loaded from now on.
    Amend {
        /// As `--allow` takes them.
        allow: Vec<String>,
        /// As `--deny` takes them.
        deny: Vec<String>,
    },
    /// Answer a question that it asks.
    Reply {
        /// The question's id.
        question: String,
        /// The answer.
        reply: Reply,
    },
    /// These addresses are the host from now on: of a gateway in a container, which cannot see them.
    SetHosts {
        /// All of them.
        hosts: Vec<IpAddr>,
    },
    /// Have this tried from inside.
    Probe(Box<Plan>),
    /// End now, whatever the program says.
    End,
}

/// What a running sandbox answers.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Activity`].
    Activity(Activity),
    /// To [`Request::Probe`]: what the prober told.
    Probed(String),
    /// It is done.
    Done,
    /// It was not done, because.
    Refused(String),
}

/// A running sandbox, for listings.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Status {
    /// Its name.
    pub(crate) name: String,
    /// The process that it runs in.
    pub(crate) pid: i32,
    /// When it was started, RFC 3339.
    pub(crate) started: String,
    /// The program, without its arguments.
    pub(crate) program: String,
    /// The policy's file, if it has one.
    pub(crate) policy: Option<String>,
    /// The same, for whoever wants to change it; absent from an egret that cannot say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
    /// What `--allow` adds to the policy, also while it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow: Vec<String>,
    /// What `--deny` takes from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deny: Vec<String>,
    /// Whether everything public is open to it, to learn from what it reaches.
    #[serde(default)]
    pub(crate) learning: bool,
    /// Its audit log.
    pub(crate) log: String,
}

/// A name that is ours for as long as this lives.
#[derive(Debug)]
pub(crate) struct Claim(UnixListener);

/// Takes `name` for this process.
pub(crate) fn claim(name: &SandboxId) -> Result<Claim, Failure> {
    let bound = address(name.as_str()).and_then(|address| UnixListener::bind_addr(&address));
    match bound {
        Ok(listener) => Ok(Claim(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Failure::new(format!(
            "the name {name} is taken; choose another --name, or stop the sandbox that has it with `egret stop {name}`"
        ))),
        Err(error) => Err(Failure::because(
            format_args!("cannot take the name {name}"),
            &error,
        )),
    }
}

/// Takes requests at a path instead, which only those can make who have its file system, and are the same user. (A name
/// belongs to the network namespace, and so to whoever joins that.) What an earlier process has left there is removed.
pub(crate) fn claim_at(path: &Path) -> io::Result<Claim> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Claim(listener))
}

/// The start of a container sandbox, which nobody else starts under its name for as long as this lives.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "being bound is all it does")] UnixListener);

/// Takes the start of a container sandbox called `name`, which has no process to hold the name later.
///
/// Several containers are made at a start, each with a name of its own: of two starts at once each could get some of them.
pub(crate) fn turn(name: &SandboxId) -> Result<Turn, Failure> {
    // Not among the names of sandboxes that answer.
    let full_name = format!("egret-start/{}/{name}", geteuid().as_raw());
    let bound = SocketAddr::from_abstract_name(full_name)
        .and_then(|address| UnixListener::bind_addr(&address));
    match bound {
        Ok(listener) => Ok(Turn(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Failure::new(format!(
            "a sandbox {name} is being started; choose another --name"
        ))),
        Err(error) => Err(Failure::because(
            format_args!("cannot take the name {name}"),
            &error,
        )),
    }
}

impl Claim {
    /// Answers requests by `answer` for as long as it is polled.
    pub(crate) async fn serve(&self, answer: impl AsyncFn(Request) -> Answer) -> io::Result<()> {
        self.0.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(self.0.try_clone()?)?;
        loop {
            match listener.accept().await {
                // One at a time: whoever asks is a person, or a script of theirs, and has a second.
                Ok((stream, _)) => {
                    match tokio::time::timeout(PATIENCE + PROBING, converse(stream, &answer)).await
                    {
                        // A client that breaks off, or dawdles, is not our trouble.
                        Ok(Ok(()) | Err(_)) | Err(_) => {}
                    }
                }
                // Out of descriptors, most likely; the next one may have more luck.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
/// How long a prober may take.
pub(crate) const PROBING: Duration = Duration::from_secs(10);
/// More than any policy that could be loaded.
const LONGEST_REQUEST: u64 = 256 << 20;

async fn converse(
    stream: tokio::net::UnixStream,
    answer: &impl AsyncFn(Request) -> Answer,
) -> io::Result<()> {
    if !is_trusted(&stream)? {
        return Ok(());
    }
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = tokio::io::BufReader::new(read.take(LONGEST_REQUEST));
    tokio::time::timeout(PATIENCE, read.read_until(b'\n', &mut line)).await??;
    let answer = answer(serde_json::from_slice(&line)?).await;
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Asks the sandbox `name`; `None` if there is none of that name.
pub(crate) fn ask(name: &str, request: &Request) -> Result<Option<Answer>, Failure> {
    let address = SocketAddrUnix::new_abstract_name(full_name(name).as_bytes());
    exchange(address.and_then(|address| connect(&address)), name, request)
}

/// Asks whoever takes requests at a path, which is that of the sandbox `name`; `None` if nobody does.
pub(crate) fn ask_at(
    path: &Path,
    name: &str,
    request: &Request,
) -> Result<Option<Answer>, Failure> {
    let address = SocketAddrUnix::new(path);
    exchange(address.and_then(|address| connect(&address)), name, request)
}

fn exchange(
    connected: rustix::io::Result<UnixStream>,
    name: &str,
    request: &Request,
) -> Result<Option<Answer>, Failure> {
    let failed = |error: io::Error| {
        Failure::because(format_args!("cannot speak to the sandbox {name}"), &error)
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(Errno::CONNREFUSED | Errno::NOENT) => return Ok(None),
        // Whoever holds the name does not accept. Ours always do.
        Err(Errno::AGAIN) => return Err(unanswered(name)),
        Err(errno) => return Err(failed(errno.into())),
    };
    if !is_trusted(&stream).map_err(failed)? {
        return Ok(None);
    }
    let mut converse = || -> io::Result<Answer> {
        let patience = match request {
            Request::Probe(_) => PATIENCE + PROBING,
            _ => PATIENCE,
        };
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    };
    match converse() {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(unanswered(name)),
        Err(error) => Err(failed(error)),
    }
}

/// Connects without waiting, which connect(2) does for as long as a unix socket's backlog is full.
fn connect(address: &SocketAddrUnix) -> rustix::io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, address)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket.into())
}

fn unanswered(name: &str) -> Failure {
    Failure::new(format!(
        "the sandbox {name} does not answer; its egret process may be stopped"
    ))
}

/// The names of all sandboxes that run as this user.
pub(crate) fn names() -> io::Result<Vec<String>> {
    let prefix = format!("@{}", full_name(""));
    let table = std::fs::read(UNIX_SOCKETS)?;
    let mut names: Vec<String> = bound_names(&table)
        .filter_map(|name| name.strip_prefix(prefix.as_bytes()))
        // What no sandbox can be called was not named by one.
        .filter_map(|name| {
            Some(
                std::str::from_utf8(name)
                    .ok()?
                    .parse::<SandboxId>()
                    .ok()?
                    .to_string(),
            )
        })
        .collect();
    names.sort();
    names.dedup(); // a connection shows the name of the socket that it was made to
    Ok(names)
}

fn full_name(name: &str) -> String {
    format!("egret/{}/{name}", geteuid().as_raw())
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(full_name(name))
}

/// Anybody can take or address an abstract name; only the user's own processes, and root's, are spoken to.
fn is_trusted(stream: &impl AsFd) -> io::Result<bool> {
    let peer = peer_user(stream)?;
    Ok(peer == geteuid().as_raw() || peer == 0)
}
