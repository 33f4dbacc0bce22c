//! A container engine of a machine's own.
//!
//! Each [`World`] that asks for one gets a Docker daemon, or a Podman, that nobody else uses. It lives in the machine's
//! namespaces: its images, containers and networks are in file systems in memory and in the machine's network, so they
//! end with the test, and the real machine's engine, if there is one, is not involved. Control groups are the one thing
//! of which there is only one tree; [`Groups`] keeps what an engine makes there below a directory that is removed.
//!
//! The images that it runs are in [`super::images`].

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::engine_groups::Groups;
use super::machine::{Machine, SYSTEM_PATH};
use super::{User, World};

/// An engine, and how it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A daemon of root's. Alice may use it.
    Docker,
    /// Podman as root.
    Podman,
    /// Podman as Alice, who has no privilege but a range of user ids.
    RootlessPodman,
}

/// An engine that is ready, for as long as its machine.
pub(crate) struct Engine {
    pub(crate) kind: Kind,
    /// Docker's daemon.
    daemon: Option<Child>,
    groups: Groups,
}

impl Kind {
    /// All that Egret has to work with.
    pub(crate) const ALL: [Kind; 3] = [Kind::Docker, Kind::Podman, Kind::RootlessPodman];

    /// Who uses it.
    pub(crate) const fn user(self) -> User {
        match self {
            Kind::Docker | Kind::RootlessPodman => User::Alice,
            Kind::Podman => User::Root,
        }
    }

    /// Its client.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Kind::Docker => "docker",
            Kind::Podman | Kind::RootlessPodman => "podman",
        }
    }
}

impl Engine {
    /// Gives the machine what engines write to: its own versions of `/etc`, `/opt` and `/var/lib`.
    pub(super) fn make_room(machine: &Machine) {
        machine.sh("for directory in etc opt var/lib; do
                 mkdir -p /srv/engine/$directory/new /srv/engine/$directory/work
                 mount -t overlay overlay /$directory \
                     -o lowerdir=/$directory,upperdir=/srv/engine/$directory/new,workdir=/srv/engine/$directory/work
             done");
    }

    /// Takes the engines' commands away: those of the real machine would write to its files.
    pub(super) fn hide(machine: &Machine) {
        machine.sh(&format!(
            "touch /srv/hidden; IFS=:; for directory in {SYSTEM_PATH}; do for name in docker podman; do
                 if [ -x $directory/$name ]; then mount --bind /srv/hidden $directory/$name; fi
             done; done"
        ));
    }

    /// Starts it on a machine that has its users.
    pub(super) fn start(kind: Kind, machine: &Machine) -> Engine {
        require(kind);
        configure(kind, machine);
        let groups = Groups::new();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-euc", &groups.enter()])
            .env_clear()
            .env("PATH", SYSTEM_PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(machine.path(LOG)).unwrap());
        if kind == Kind::Docker {
            command.arg("sh").args(DAEMON);
        } else {
            command.args(["sh", "sleep", "1000000"]);
        }
        let mut child = machine.spawn(command).unwrap();
        let mut ready = String::new();
        let _ = BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready);
        let complain = |what: &str| panic!("{kind:?} {what}:\n{}", machine.read(LOG));
        if ready != "ready\n" {
            complain("cannot have control groups of its own");
        }
        // From now on, whatever is started on the machine sees the same control groups.
        let namespace = std::fs::File::open(format!("/proc/{}/ns/cgroup", child.id())).unwrap();
        machine
            .on(move || setns(namespace, CloneFlags::CLONE_NEWCGROUP))
            .unwrap();
        let mut daemon = Some(child);
        if kind == Kind::Docker {
            let end = Instant::now() + Duration::from_secs(30);
            while UnixStream::connect(machine.path(SOCKET)).is_err() {
                let ended = daemon.as_mut().unwrap().try_wait().unwrap();
                if ended.is_some() || Instant::now() > end {
                    complain("does not start");
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        } else {
            let mut child = daemon.take().unwrap();
            let _ = child.kill();
            let _ = child.wait();
        }
        Engine {
            kind,
            daemon,
            groups,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl World {
    /// The world with a container engine on the machine.
    pub(crate) fn with_engine(kind: Kind) -> World {
        World::build(Some(kind), None)
    }

    /// The kind of its engine.
    pub(crate) fn engine(&self) -> Kind {
        let engine = self.engine.as_ref();
        engine.expect("this world has no engine").kind
    }

    /// Runs `docker` or `podman` as the engine's user. It has to succeed; this is what it printed.
    #[track_caller]
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        let output = self.try_docker(args);
        assert!(
            output.status.success(),
            "{:?} {args:?}: {}",
            self.engine(),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `docker` or `podman` with something to read, as [`World::docker`].
    #[track_caller]
    pub(crate) fn docker_reading(&self, input: &str, args: &[&str]) -> String {
        let mut command = self.docker_command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.machine.spawn(command).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let _ = writing.join();
        assert!(
            output.status.success(),
            "{:?} {args:?}: {output:?}",
            self.engine()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `docker` or `podman` as the engine's user, to whatever end.
    pub(crate) fn try_docker(&self, args: &[&str]) -> Output {
        self.machine.output(self.docker_command(args))
    }

    /// A command of the engine's client.
    pub(crate) fn docker_command(&self, args: &[&str]) -> Command {
        let kind = self.engine();
        let words: Vec<_> = std::iter::once(kind.program())
            .chain(args.iter().copied())
            .map(str::to_owned)
            .collect();
        self.command_as(kind.user(), kind.user().home(), &[], &words)
    }

    /// What the engine has: containers in any state, volumes and networks, one a line. Images are not among them.
    #[track_caller]
    pub(crate) fn engine_holds(&self) -> Vec<String> {
        [
            ["ps", "--all", "--format", "container {{.Names}}"].as_slice(),
            &["volume", "ls", "--format", "volume {{.Name}}"],
            &["network", "ls", "--format", "network {{.Name}}"],
        ]
        .iter()
        .flat_map(|args| {
            self.docker(args)
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
    }

    /// Ends Docker's daemon, as a new version of it would, and starts it again.
    #[track_caller]
    pub(crate) fn restart_docker(&self) {
        assert_eq!(self.engine(), Kind::Docker);
        self.machine.sh("pid=$(cat /run/docker.pid); kill $pid
             while kill -0 $pid 2>/dev/null && ! grep -q 'State:.Z' /proc/$pid/status; do sleep 0.02; done
             rm -f /run/docker.pid");
        let mut command = Command::new(DAEMON[0]);
        let log = std::fs::File::create(self.machine.path(LOG)).unwrap();
        command
            .args(&DAEMON[1..])
            .env_clear()
            .env("PATH", SYSTEM_PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let daemon = self.machine.spawn(command).unwrap();
        self.daemons.borrow_mut().push(daemon);
        let end = Instant::now() + Duration::from_secs(30);
        while !self.try_docker(&["version"]).status.success() {
            assert!(Instant::now() < end, "{}", self.machine.read(LOG));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The directories that are the roots of its control groups.
    pub(crate) fn control_groups(&self) -> Vec<PathBuf> {
        self.engine.as_ref().unwrap().groups.directories()
    }
}

/// Fails, and says what to do, if what an engine needs is missing.
fn require(kind: Kind) {
    let programs: &[&str] = match kind {
        Kind::Docker => &["dockerd", "docker", "containerd", "runc", "iptables"],
        Kind::Podman => &["podman", "conmon", "iptables"],
        Kind::RootlessPodman => &["podman", "conmon", "newuidmap", "slirp4netns"],
    };
    for program in programs.iter().chain(&["busybox"]) {
        let found = SYSTEM_PATH
            .split(':')
            .any(|directory| std::path::Path::new(directory).join(program).exists());
        assert!(
            found,
            "`{program}` is missing: run the tests with ./x test, which installs what they need"
        );
    }
}

/// Writes the engine's configuration: where its things are, and that nobody manages control groups for it.
fn configure(kind: Kind, machine: &Machine) {
    if kind == Kind::Docker {
        machine.write("/srv/engine/daemon.json", "{}");
        return;
    }
    machine.sh("rm -rf /etc/containers /etc/cni; mkdir -p /etc/containers");
    for (name, text) in PODMAN {
        machine.write(&format!("/etc/containers/{name}"), text);
    }
    if kind == Kind::RootlessPodman {
        machine.write("/srv/engine/subids", "alice:1000000:65536\n");
        machine.sh(
            "for file in subuid subgid; do touch /etc/$file; mount --bind /srv/engine/subids /etc/$file; done
             mknod -m 666 /srv/engine/tun c 10 200; mount --bind /srv/engine/tun /dev/net/tun",
        );
    }
}

const SOCKET: &str = "/run/docker.sock";
const LOG: &str = "/srv/engine/log";

/// The daemon, with nothing that it would take from the real machine. Its socket belongs to Alice's group.
const DAEMON: [&str; 17] = [
    "dockerd",
    "--config-file",
    "/srv/engine/daemon.json",
    "--host",
    "unix:///run/docker.sock",
    "--data-root",
    "/srv/engine/docker",
    "--exec-root",
    "/run/docker",
    "--pidfile",
    "/run/docker.pid",
    "--exec-opt",
    "native.cgroupdriver=cgroupfs",
    "--group",
    "12345",
    "--storage-driver",
    "overlay2",
];

const PODMAN: [(&str, &str); 4] = [
    (
        "containers.conf",
        "[containers]\nlog_driver = \"k8s-file\"\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
         [network]\nnetwork_backend = \"netavark\"\n",
    ),
    (
        "policy.json",
        r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
    ),
    ("registries.conf", "unqualified-search-registries = []\n"),
    (
        "storage.conf",
        "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/srv/engine/containers\"\n",
    ),
];
