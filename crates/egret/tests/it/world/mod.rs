//! A closed world to test in.
//!
//! A [`World`] is a [`Machine`] on which Egret runs, and another one, `outside`, which owns every address that is not
//! the machine's: public ones, private ones, those of metadata services. Two cables join them, an uplink and a LAN, and
//! nothing joins either to the real network. Making one takes a fraction of a second, so each test has its own.
//!
//! ```text
//!  machine                                          outside
//!    wan0  45.33.32.10/24, 2a01:4f8:1:2::2/64  ───    every other address there is
//!    lan0  192.168.7.2/24, fd12:1::2/64        ───    (the name server is 10.20.0.53)
//!    docker0  172.17.0.1/16
//! ```
//!
//! With [`World::with_engine`] the machine has Docker or Podman as well, of its own; see [`engine`] and [`images`].
//!
//! What Egret is started with and what came of it is in [`run`]; [`probe`] is a client that makes attempts from inside.

pub(crate) mod dns;
pub(crate) mod engine;
mod engine_groups;
pub(crate) mod images;
pub(crate) mod machine;
pub(crate) mod probe;
pub(crate) mod real;
pub(crate) mod run;
pub(crate) mod servers;
pub(crate) mod terminal;
pub(crate) mod wire;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use dns::Dns;
use engine::{Engine, Kind};
use machine::Machine;
use run::Run;
use servers::{AUTHORITY, Server, Service};
use wire::{Packet, UDP, Wire};

/// Two machines, the cables between them, a name server, and what passed over the cables.
pub(crate) struct World {
    pub(crate) dns: Dns,
    pub(crate) wire: Wire,
    servers: RefCell<Vec<Server>>,
    daemons: RefCell<Vec<Child>>,
    pub(crate) machine: Machine,
    pub(crate) outside: Machine,
    /// After the machine: what it leaves is removed when nothing runs there any more.
    engine: Option<Engine>,
}

/// Who runs Egret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    Alice,
}

impl User {
    /// Everybody that Egret has to work for.
    pub(crate) const ALL: [User; 2] = [User::Root, User::Alice];

    pub(crate) const fn id(self) -> u32 {
        match self {
            User::Root => 0,
            User::Alice => 12345,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            User::Root => "root",
            User::Alice => "alice",
        }
    }

    pub(crate) const fn home(self) -> &'static str {
        match self {
            User::Root => "/root",
            User::Alice => "/home/alice",
        }
    }
}

/// Where attempts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the sandbox of a program that this user started.
    Program(User),
    /// In a container of the world's engine, as its root.
    Container(Kind),
}

impl Place {
    /// Who runs Egret.
    pub(crate) const fn user(self) -> User {
        match self {
            Place::Program(user) => user,
            Place::Container(kind) => kind.user(),
        }
    }
}

/// Public, private and other addresses that tests use, all of them `outside`.
pub(crate) mod at {
    pub(crate) const PUBLIC: &str = "93.184.216.34";
    pub(crate) const PUBLIC2: &str = "151.101.0.81";
    pub(crate) const PUBLIC6: &str = "2606:2800:220:1:248:1893:25c8:1946";
    pub(crate) const PRIVATE: &str = "10.20.0.7";
    pub(crate) const METADATA: &str = "169.254.169.254";
    pub(crate) const NAME_SERVER: &str = "10.20.0.53:53";
}

/// Waits for something to come true.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while !is_so() {
        assert!(std::time::Instant::now() < end, "not within 15 s: {what}");
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
}

/// The addresses of the machine itself.
pub(crate) const HOST_ADDRESSES: [&str; 5] = [
    "45.33.32.10",
    "2a01:4f8:1:2::2",
    "192.168.7.2",
    "fd12:1::2",
    "172.17.0.1",
];

impl World {
    pub(crate) fn new() -> World {
        World::build(None, None)
    }

    /// A world that has the schemas of others at `/srv/schemas`, for Python.
    pub(crate) fn with_schemas() -> World {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/schemas");
        assert!(
            path.join("python/opentelemetry").exists(),
            "the schemas that tests compare with are not in {}: run the tests with ./x test, which fetches them",
            path.display()
        );
        World::build(None, Some(("schemas", path)))
    }

    fn build(engine: Option<Kind>, more: Option<(&str, PathBuf)>) -> World {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make namespaces, which needs root: run them with ./x test"
        );
        require_clients();
        let toolchain = toolchain();
        let mut tools = vec![("toolchain", toolchain), ("servers", images::servers())];
        tools.extend(more);
        let machine = Machine::new(&tools);
        let outside = Machine::new(&[]);
        connect(&machine, &outside);
        match engine {
            Some(_) => Engine::make_room(&machine),
            None => Engine::hide(&machine),
        }
        furnish(&machine);
        let engine = engine.map(|kind| Engine::start(kind, &machine));
        let dns = Dns::start(&outside, at::NAME_SERVER.parse().unwrap());
        let wire = Wire::tap(&machine);
        World {
            dns,
            wire,
            servers: RefCell::default(),
            daemons: RefCell::default(),
            machine,
            outside,
            engine,
        }
    }

    /// Starts a server somewhere in the world: on the machine if the address is the machine's, else outside. It runs as
    /// long as the world; the index is for [`World::server`].
    #[track_caller]
    pub(crate) fn serve(&self, address: &str, service: Service) -> usize {
        let address: SocketAddr = address.parse().unwrap();
        let on_machine = HOST_ADDRESSES
            .iter()
            .any(|host| host.parse::<IpAddr>().unwrap() == address.ip());
        let place = if on_machine || address.ip().is_loopback() {
            &self.machine
        } else {
            &self.outside
        };
        self.keep(Server::start(place, address, service))
    }

    /// Starts a server that answers at every address of the machine.
    #[track_caller]
    pub(crate) fn serve_on_machine(&self, port: u16, service: Service) -> usize {
        self.keep(Server::start(
            &self.machine,
            SocketAddr::from(([0_u16; 8], port)),
            service,
        ))
    }

    /// Starts a server that answers at every address outside.
    #[track_caller]
    pub(crate) fn serve_everywhere(&self, port: u16, service: Service) -> usize {
        self.keep(Server::start(
            &self.outside,
            SocketAddr::from(([0_u16; 8], port)),
            service,
        ))
    }

    /// What a server saw.
    pub(crate) fn server<T>(&self, index: usize, look: impl FnOnce(&Server) -> T) -> T {
        look(&self.servers.borrow()[index])
    }

    /// Where attempts can be made in this world.
    pub(crate) fn places(&self) -> Vec<Place> {
        match &self.engine {
            Some(engine) => vec![Place::Container(engine.kind)],
            None => User::ALL.map(Place::Program).to_vec(),
        }
    }

    /// Prepares a run of Egret in a place.
    pub(crate) fn run_in(&self, place: Place) -> Run<'_> {
        match place {
            Place::Program(user) => self.run_as(user),
            Place::Container(_) => self.run_container().args(&["--user", "0:0"]),
        }
    }

    /// Prepares a run of Egret where one place is as good as another.
    pub(crate) fn run(&self) -> Run<'_> {
        let place = self.places().pop();
        self.run_in(place.expect("there is a place in every world"))
    }

    /// Prepares a run of Egret.
    pub(crate) fn run_as(&self, user: User) -> Run<'_> {
        Run::new(self, user)
    }

    /// Every packet that left a process of the machine for anywhere, but questions to the name server and its answers.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        let dns = self.dns.address;
        let about_names = |packet: &Packet| {
            (packet.destination == dns.ip() && packet.port == dns.port())
                || (packet.source == dns.ip() && packet.protocol == UDP)
                || (packet.source == dns.ip() && packet.protocol == wire::TCP)
        };
        self.wire
            .packets()
            .into_iter()
            .filter(|packet| !about_names(packet))
            .collect()
    }

    /// Fails if anything was sent, or any name asked about.
    #[track_caller]
    pub(crate) fn assert_silent(&self) {
        let packets = self.packets();
        assert!(packets.is_empty(), "these packets got out: {packets:#?}");
        let queries = self.dns.queries();
        assert!(queries.is_empty(), "these questions got out: {queries:?}");
    }

    /// What somebody could find on the machine: processes, mounts, and files in the places that Egret might use.
    pub(crate) fn belongings(&self) -> Vec<String> {
        let mut found = self.machine.processes();
        found.extend(self.machine.mounts());
        for place in [
            "/run", "/tmp", "/home", "/root", "/dev/shm", "/var/tmp", "/var/lib", "/var/run",
        ] {
            list(
                &self.machine.path("/"),
                &self.machine.path(place),
                4,
                &mut found,
            );
        }
        found.push(
            self.machine
                .sh("ip -br address; ip route; ip -6 route; ls /sys/class/net"),
        );
        found.retain(|thing| !thing.contains("/var/lib/") || thing.contains("egret"));
        found
    }

    fn keep(&self, server: Server) -> usize {
        let mut servers = self.servers.borrow_mut();
        servers.push(server);
        servers.len() - 1
    }
}

/// Lists files below `directory`, not deeper than `depth`.
fn list(root: &Path, directory: &Path, depth: u32, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let shown = entry
            .path()
            .strip_prefix(root)
            .map(Path::to_path_buf)
            .unwrap_or_default();
        found.push(format!("/{} {kind:?}", shown.display()));
        if kind.is_dir() && depth > 0 {
            list(root, &entry.path(), depth - 1, found);
        }
    }
}

/// Lays the cables.
fn connect(machine: &Machine, outside: &Machine) {
    let outside_id = outside.id();
    machine.ip(&format!(
        "link add wan0 type veth peer name wan0 netns {outside_id}
link add lan0 type veth peer name lan0 netns {outside_id}
link add docker0 type bridge
address add 45.33.32.10/24 dev wan0
address add 2a01:4f8:1:2::2/64 dev wan0 nodad
address add 192.168.7.2/24 dev lan0
address add fd12:1::2/64 dev lan0 nodad
address add 172.17.0.1/16 dev docker0
link set wan0 up
link set lan0 up
link set docker0 up
"
    ));
    outside.sh("echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind; echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind");
    // Outside, every address is local that is not on a cable.
    outside.ip("address add 45.33.32.1/24 dev wan0
address add 2a01:4f8:1:2::1/64 dev wan0 nodad
address add 192.168.7.1/24 dev lan0
address add fd12:1::1/64 dev lan0 nodad
link set wan0 up
link set lan0 up
route add local 0.0.0.0/0 dev lo table main
route add local ::/0 dev lo table main
");
    machine.ip("route add default via 45.33.32.1
route add 10.20.0.0/16 via 192.168.7.1
route add default via 2a01:4f8:1:2::1
");
}

/// Puts users, the binary and some things worth stealing on the machine.
fn furnish(machine: &Machine) {
    machine.write("/srv/passwd", PASSWD);
    machine.write(
        "/srv/group",
        "root:x:0:\nalice:x:12345:\nsshd:x:990:\nnogroup:x:65534:\n",
    );
    machine.write("/srv/resolv.conf", "nameserver 10.20.0.53\n");
    machine.write(
        "/srv/hosts",
        "127.0.0.1 localhost\n::1 localhost\n45.33.32.10 machine\n",
    );
    machine.sh(
        "for file in passwd group resolv.conf hosts; do mount --bind /srv/$file /etc/$file; done
         hostname >/dev/null
         mkdir -p /srv/bin /srv/lib /run/user/0 /run/user/12345 /run/lock
         chmod 700 /run/user/*; chown 12345:12345 /run/user/12345",
    );
    machine.write("/srv/ca.pem", AUTHORITY.pem());
    machine.write("/srv/lib/probe.py", probe::SOURCE);
    // By another process: a child that some other test forks meanwhile would hold the file open for writing, and a file
    // that somebody may write to cannot be executed.
    let binary = machine.path("/srv/bin/egret");
    let copied = Command::new("install")
        .args(["-m", "755", EGRET])
        .arg(binary)
        .status()
        .unwrap();
    assert!(copied.success(), "cannot copy {EGRET}");
    for user in User::ALL {
        for directory in ["", "/project"] {
            let directory = machine.path(format!("{}{directory}", user.home()));
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).unwrap();
            chown(&directory, Some(user.id()), Some(user.id())).unwrap();
        }
    }
}

/// Fails, and says what to do, if a program is missing that the tests use as a client or server.
fn require_clients() {
    for program in [
        "ip", "setpriv", "setsid", "unshare", "prlimit", "curl", "python3", "node", "git", "ssh",
        "tmux",
    ] {
        let found = machine::SYSTEM_PATH
            .split(':')
            .any(|directory| Path::new(directory).join(program).exists());
        assert!(
            found,
            "`{program}` is missing: run the tests with ./x test, which installs what they need"
        );
    }
}

/// The directory of the Rust toolchain that runs this test.
fn toolchain() -> PathBuf {
    let output = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()))
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc does not run");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// The binary under test.
pub(crate) const EGRET: &str = env!("CARGO_BIN_EXE_egret");

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
alice:x:12345:12345:Alice:/home/alice:/bin/sh
sshd:x:990:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
";
