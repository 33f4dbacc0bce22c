//! The world that is measured in: namespaces without a way out, one for the subjects and one for the servers.
//!
//! The subjects stand where a machine stands, with an address of their own and the servers beyond a link (a veth pair), at
//! an address that counts as public. Nothing of it is seen outside, and everything is an ordinary user's: the user
//! namespace around it takes the privileges away that root has, among them that of unlimited pipes.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::Error;

/// Where the servers are.
pub(crate) const SERVER: [u8; 4] = [93, 184, 216, 34];
/// Where the subjects are.
pub(crate) const SUBJECTS: [u8; 4] = [93, 184, 216, 1];

/// The servers, in their namespace.
pub(crate) struct World {
    servers: Child,
    said: BufReader<ChildStdout>,
}

/// What runs a command of this executable in the namespaces of the subjects.
pub(crate) fn inside(command: &str) -> Result<Command, Error> {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--user", "--map-root-user", "--net", "--mount", "--"])
        .arg(std::env::current_exe()?)
        .arg(command);
    Ok(unshare)
}

impl World {
    /// Sets the world up; called in the namespaces of the subjects, which are new. `servers` is the command of this
    /// executable that is the servers.
    pub(crate) fn set_up(directory: &Path, servers: &[&OsStr]) -> Result<Self, Error> {
        // For one minute the client's side of every connection remembers its port, and there will be many.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
        fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")?;
        ip("link set lo up")?;
        let mut servers = Command::new("unshare")
            .args(["--net", "--"])
            .arg(std::env::current_exe()?)
            .args(servers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let id = servers.id();
        let said = BufReader::new(servers.stdout.take().ok_or("no output")?);
        let mut world = Self { servers, said };
        if world.line()? != "ready\n" {
            return Err("the servers did not start".into());
        }
        let server = Ipv4Addr::from(SERVER);
        ip("link add near type veth peer name far")?;
        ip(&format!("link set far netns {id}"))?;
        let subjects = Ipv4Addr::from(SUBJECTS);
        ip(&format!("address add {subjects}/24 dev near"))?;
        ip("link set near up")?;
        let there = |arguments: &str| {
            run(Command::new("nsenter")
                .arg(format!("--net=/proc/{id}/ns/net"))
                .arg("ip")
                .args(arguments.split(' ')))
        };
        there(&format!("address add {server}/24 dev far"))?;
        there("link set far up")?;
        there("link set lo up")?;
        let resolv = directory.join("resolv.conf");
        fs::write(&resolv, format!("nameserver {server}\n"))?;
        run(Command::new("mount")
            .arg("--bind")
            .args([&resolv, Path::new("/etc/resolv.conf")]))?;
        let hosts = directory.join("hosts");
        fs::write(&hosts, "127.0.0.1 localhost\n")?;
        run(Command::new("mount")
            .arg("--bind")
            .args([&hosts, Path::new("/etc/hosts")]))?;
        Ok(world)
    }

    /// Tells the servers something, and gives what they say to it.
    pub(crate) fn ask(&mut self, question: &str) -> Result<String, Error> {
        let input = self.servers.stdin.as_mut().ok_or("no input")?;
        writeln!(input, "{question}")?;
        self.line()
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Its namespace, and the link, go with it.
        if self.servers.kill().is_ok() {
            self.servers.wait().ok();
        }
    }
}

fn ip(arguments: &str) -> Result<(), Error> {
    run(Command::new("ip").args(arguments.split(' ')))
}

fn run(command: &mut Command) -> Result<(), Error> {
    let status = command
        .status()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{command:?} failed").into()),
    }
}
