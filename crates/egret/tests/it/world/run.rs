//! Running Egret in the world, and what came of it.
//!
//! A [`Run`] is a command line in the making; [`Run::client`] ends it and gives an [`Outcome`]. Whatever audit record a
//! run leaves is held against the published schema before the test sees it.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::dns::Query;
use super::images::{TOOLS, TOOLS_MOUNTS};
use super::machine::{drain, wait_at_most};
use super::wire::Packet;
use super::{User, World, at};

/// An `egret run` that is being put together.
pub(crate) struct Run<'w> {
    world: &'w World,
    user: User,
    verb: &'static str,
    args: Vec<String>,
    env: Vec<(String, String)>,
    before: Vec<String>,
    log: Option<String>,
    directory: String,
    input: Vec<u8>,
    limit: Duration,
    /// What a container is made from; a process is run where this is not said.
    image: Option<String>,
}

/// A run under way.
pub(crate) struct Live<'w> {
    world: &'w World,
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    log: Option<String>,
    limit: Duration,
}

/// What a run did, as seen from all sides.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The audit log.
    pub(crate) records: Vec<Value>,
    /// What the name server was asked.
    pub(crate) queries: Vec<Query>,
    /// What went over the machine's interfaces, without the questions to the name server.
    pub(crate) packets: Vec<Packet>,
}

impl<'w> Run<'w> {
    pub(super) fn new(world: &'w World, user: User) -> Run<'w> {
        thread_local!(static COUNT: Cell<u32> = const { Cell::new(0) });
        let count = COUNT.replace(COUNT.get() + 1);
        let home = user.home();
        Run {
            world,
            user,
            verb: "run",
            args: vec!["--resolver".into(), at::NAME_SERVER.into()],
            env: Vec::new(),
            before: Vec::new(),
            log: Some(format!("{home}/audit-{count}.jsonl")),
            directory: format!("{home}/project"),
            input: Vec::new(),
            limit: Duration::from_secs(40),
            image: None,
        }
    }

    /// A container of this image instead of a process.
    pub(crate) fn image(mut self, name: &str) -> Self {
        self.image = Some(name.to_owned());
        self
    }

    /// `egret learn`
    pub(crate) fn learning(mut self) -> Self {
        self.verb = "learn";
        self
    }

    /// `--allow DESTINATION`
    pub(crate) fn allow(self, destination: &str) -> Self {
        self.args(&["--allow", destination])
    }

    /// Options for `egret run`.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// `--policy`, with a file of this text. The file lies next to the project, not in it.
    pub(crate) fn policy(self, text: &str) -> Self {
        let path = format!("{}/policy.yaml", self.user.home());
        self.world.machine.write(&path, text);
        self.args(&["--policy", &path])
    }

    /// A variable of Egret's own environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// What Egret is started through, such as `prlimit --nofile=64`.
    pub(crate) fn through(mut self, command: &[&str]) -> Self {
        self.before
            .extend(command.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Another name server than the world's.
    pub(crate) fn resolver(mut self, address: &str) -> Self {
        self.args = self
            .args
            .iter()
            .map(|arg| arg.replace(at::NAME_SERVER, address))
            .collect();
        self
    }

    /// Another audit log than the usual one.
    pub(crate) fn log(mut self, path: Option<&str>) -> Self {
        self.log = path.map(str::to_owned);
        self
    }

    /// Another directory to start in than the project.
    pub(crate) fn directory(mut self, path: &str) -> Self {
        self.directory = path.to_owned();
        self
    }

    /// What the program reads; nothing unless this is said.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// How long it may take.
    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs a shell script under Egret, to its end.
    #[track_caller]
    pub(crate) fn client(self, script: &str) -> Outcome {
        self.program(&["/bin/sh", "-c", script])
    }

    /// Runs a Python script under Egret, to its end.
    #[track_caller]
    pub(crate) fn python(self, script: &str) -> Outcome {
        self.program(&["/usr/bin/python3", "-c", script])
    }

    /// Runs a program under Egret, to its end.
    #[track_caller]
    pub(crate) fn program(self, program: &[&str]) -> Outcome {
        self.start(program).finish()
    }

    /// Starts a program under Egret. Its standard input stays open.
    #[track_caller]
    pub(crate) fn start(self, program: &[&str]) -> Live<'w> {
        self.world.dns.forget();
        self.world.wire.forget();
        let mut command = self.command(program);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.world.machine.spawn(command).unwrap();
        let mut stdin = child.stdin.take();
        if !self.input.is_empty() {
            let _ = stdin.as_mut().unwrap().write_all(&self.input);
        }
        let (stdout, stderr) = (
            drain(child.stdout.take().unwrap()),
            drain(child.stderr.take().unwrap()),
        );
        Live {
            world: self.world,
            child,
            stdin,
            stdout,
            stderr,
            log: self.log,
            limit: self.limit,
        }
    }

    /// The whole command line, for a test that starts it in a way of its own.
    pub(crate) fn command(&self, program: &[&str]) -> Command {
        let mut words = self.before.clone();
        words.extend(["/srv/bin/egret", self.verb].map(str::to_owned));
        words.extend(self.args.iter().cloned());
        if let Some(log) = &self.log {
            words.extend(["--log-file".to_owned(), log.clone()]);
        }
        words.push(self.image.clone().unwrap_or_else(|| "--".to_owned()));
        words.extend(program.iter().map(|word| (*word).to_owned()));
        self.world
            .command_as(self.user, &self.directory, &self.env, &words)
    }
}

impl World {
    /// Prepares a run of Egret that starts a container on the world's engine, as the user that it is for. Unless
    /// another image is named it is [`TOOLS`], which has been imported, so that scripts and probes do there what they
    /// do in a process.
    pub(crate) fn run_container(&self) -> Run<'_> {
        let kind = self.engine();
        Run::new(self, kind.user())
            .args(&["--engine", kind.program(), "--rm", "--interactive"])
            .args(&TOOLS_MOUNTS)
            .image(TOOLS.name)
    }

    /// A command of a user on the machine, Egret not involved unless it is named.
    pub(crate) fn command_as(
        &self,
        user: User,
        directory: &str,
        env: &[(String, String)],
        words: &[String],
    ) -> Command {
        let id = user.id().to_string();
        let mut command = Command::new("setpriv");
        // As a shell does it for each of its jobs.
        command.process_group(0);
        command.args([
            "--reuid",
            &id,
            "--regid",
            &id,
            "--clear-groups",
            "--",
            "env",
            "-C",
            directory,
        ]);
        command.args(words).env_clear().envs([
            ("HOME", user.home()),
            ("USER", user.name()),
            ("LOGNAME", user.name()),
            ("SHELL", "/bin/sh"),
            ("TERM", "xterm"),
            ("LANG", "C.UTF-8"),
            (
                "PATH",
                "/srv/bin:/srv/toolchain/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            ),
            ("CURL_CA_BUNDLE", "/srv/ca.pem"),
            ("GIT_SSL_CAINFO", "/srv/ca.pem"),
            ("SSL_CERT_FILE", "/srv/ca.pem"),
            ("NODE_EXTRA_CA_CERTS", "/srv/ca.pem"),
        ]);
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", user.id()));
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs any `egret` command, such as `ps`, to its end.
    #[track_caller]
    pub(crate) fn egret(&self, user: User, args: &[&str]) -> Outcome {
        let words: Vec<_> = std::iter::once("/srv/bin/egret")
            .chain(args.iter().copied())
            .map(str::to_owned)
            .collect();
        let directory = format!("{}/project", user.home());
        let command = self.command_as(user, &directory, &[], &words);
        self.to_its_end(command, Duration::from_secs(20))
    }

    /// Runs a line as the user of the world's engine would type it into a shell, to its end.
    #[track_caller]
    pub(crate) fn typed(&self, line: &str) -> Outcome {
        let kind = self.engine();
        let env = [("EGRET_ENGINE".to_owned(), kind.program().to_owned())];
        let words = ["/bin/sh", "-c", line].map(str::to_owned);
        let directory = format!("{}/project", kind.user().home());
        let command = self.command_as(kind.user(), &directory, &env, &words);
        self.to_its_end(command, Duration::from_secs(40))
    }

    #[track_caller]
    pub(crate) fn to_its_end(&self, mut command: Command, limit: Duration) -> Outcome {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.machine.spawn(command).unwrap();
        let (stdout, stderr) = (
            drain(child.stdout.take().unwrap()),
            drain(child.stderr.take().unwrap()),
        );
        Live {
            world: self,
            child,
            stdin: None,
            stdout,
            stderr,
            log: None,
            limit,
        }
        .finish()
    }

    /// The records of an audit log, each held against the schema. A log that is not there has none.
    #[track_caller]
    pub(crate) fn records(&self, log: &str) -> Vec<Value> {
        let Ok(text) = std::fs::read_to_string(self.machine.path(log)) else {
            return Vec::new();
        };
        let records = text.lines().map(|line| {
            let record: Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{log}: {e} in `{line}`"));
            let errors = SCHEMA
                .iter_errors(&record)
                .fold(String::new(), |mut all, error| {
                    let _ = writeln!(all, "{}: {error}", error.instance_path());
                    all
                });
            assert!(
                errors.is_empty(),
                "this record is not as docs/audit.schema.json says: {record}\n{errors}"
            );
            assert!(
                !line.chars().any(char::is_control),
                "raw control characters in the log: {line:?}"
            );
            record
        });
        records.collect()
    }
}

impl Live<'_> {
    /// Waits for the end and collects everything.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Outcome {
        drop(self.stdin.take());
        let status = wait_at_most(&mut self.child, self.limit);
        let stdout = String::from_utf8_lossy(&self.stdout.join().unwrap()).into_owned();
        let stderr = String::from_utf8_lossy(&self.stderr.join().unwrap()).into_owned();
        let records = self
            .log
            .map_or_else(Vec::new, |log| self.world.records(&log));
        let Some(status) = status else {
            panic!(
                "not done after {:?}\nstdout: {stdout}\nstderr: {stderr}\nrecords: {records:#?}",
                self.limit
            );
        };
        let (queries, packets) = (self.world.dns.queries(), self.world.packets());
        Outcome {
            status,
            stdout,
            stderr,
            records,
            queries,
            packets,
        }
    }
}

impl Outcome {
    /// As a shell would say it: the exit code, or 128 and the number of the signal.
    pub(crate) fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap())
    }

    /// The run succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code(), 0, "{self:#?}");
        self
    }

    /// The records of one kind of event.
    pub(crate) fn events<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Value> {
        self.records
            .iter()
            .filter(move |record| record["event"] == event)
    }

    /// The reasons of all decisions, in order.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.events("decision")
            .filter_map(|record| record["reason"].as_str())
            .collect()
    }

    /// The log has a decision with this reason about this host and port. An empty host stands for any.
    #[track_caller]
    pub(crate) fn decided(&self, reason: &str, host: &str, port: u16) -> &Self {
        let found = self
            .events("decision")
            .chain(self.events("dns"))
            .any(|record| {
                record["reason"] == reason
                    && (host.is_empty() || record["host"] == host || record["addresses"][0] == host)
                    && (port == 0 || record["port"] == port)
            });
        assert!(
            found,
            "no record says {reason} about {host}:{port}: {self:#?}"
        );
        self
    }

    /// Neither a packet nor a question got out.
    #[track_caller]
    pub(crate) fn silent(&self) -> &Self {
        assert!(self.packets.is_empty(), "packets got out: {self:#?}");
        assert!(self.queries.is_empty(), "questions got out: {self:#?}");
        self
    }

    /// A packet went to this address and port.
    pub(crate) fn reached(&self, address: &str, port: u16) -> bool {
        let address: std::net::IpAddr = address.parse().unwrap();
        self.packets
            .iter()
            .any(|packet| packet.destination == address && packet.port == port)
    }
}

/// What an audit record has to look like.
static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/audit.schema.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap())
        .expect("docs/audit.schema.json is no schema")
});
