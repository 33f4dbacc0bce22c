//! A machine made of namespaces.
//!
//! A [`Machine`] has its own network, its own processes and its own view of the file system, so a test can give it
//! addresses, users and files, and can afterwards ask what was left behind on it. It has no name anywhere: its
//! namespaces are held by a thread and by its first process, both of which die with the test, however the test ends.
//!
//! Only the machine and its files are made here. What it is connected to is the business of [`super::World`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Network, process and mount namespaces, and a thread that lives in them.
pub(crate) struct Machine {
    keeper: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    init: Option<Child>,
    id: u32,
    net: File,
}

type Job = Box<dyn FnOnce() + Send>;

impl Machine {
    /// Makes the namespaces, with empty `/home`, `/root`, `/run`, `/tmp`, `/var/tmp`, `/dev/shm` and `/srv`, and `lo` up. The directories named
    /// in `tools` appear below `/srv`.
    pub(crate) fn new(tools: &[(&str, PathBuf)]) -> Machine {
        let tools: Vec<_> = tools
            .iter()
            .map(|(name, path)| (format!("/srv/{name}"), path.clone()))
            .collect();
        let (keeper, jobs) = channel::<Job>();
        let (born, init) = channel();
        let thread = std::thread::Builder::new()
            .name("machine".into())
            .spawn(move || {
                born.send(become_machine(&tools)).unwrap();
                for job in jobs {
                    job();
                }
            })
            .unwrap();
        let (init, net) = init.recv().unwrap().unwrap_or_else(|e| {
            panic!("cannot make a machine of namespaces: {e}\nthese tests need root: run them with ./x test")
        });
        let id = init.id();
        let machine = Machine {
            keeper: Some(keeper),
            thread: Some(thread),
            init: Some(init),
            id,
            net,
        };
        machine.sh("ip link set lo up");
        machine
    }

    /// Runs `job` on the machine's own thread: in its network and mount namespaces, and what it starts is born in its
    /// process namespace. It must not start threads.
    pub(crate) fn on<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let job = Box::new(move || {
            let _ = done.send(job());
        });
        self.keeper
            .as_ref()
            .unwrap()
            .send(job)
            .expect("the machine's thread is gone");
        result.recv().expect("a job on the machine panicked")
    }

    /// Starts a process on the machine.
    pub(crate) fn spawn(&self, mut command: Command) -> io::Result<Child> {
        self.on(move || command.spawn())
    }

    /// Runs a process on the machine to its end.
    pub(crate) fn output(&self, mut command: Command) -> Output {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let shown = format!("{command:?}");
        self.spawn(command)
            .and_then(Child::wait_with_output)
            .unwrap_or_else(|e| panic!("{shown}: {e}"))
    }

    /// Runs a script on the machine as root; it has to succeed. Returns what it printed.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let mut command = Command::new("/bin/sh");
        command.args(["-euc", script]).env("PATH", SYSTEM_PATH);
        let output = self.output(command);
        assert!(
            output.status.success(),
            "`{script}` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Feeds `ip -batch`.
    #[track_caller]
    pub(crate) fn ip(&self, batch: &str) {
        // Not on the machine's thread: `ip` finds other machines by process ids as they are out here.
        let feed = batch.to_owned();
        let output = self.in_network(move || {
            let mut command = Command::new("ip");
            command
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            let mut child = command
                .spawn()
                .expect("iproute2 is missing: run the tests with ./x test");
            child
                .stdin
                .take()
                .unwrap()
                .write_all(feed.as_bytes())
                .unwrap();
            child.wait_with_output().unwrap()
        });
        assert!(
            output.status.success(),
            "ip: {}\n{batch}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Where a path of the machine is seen from the test process.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let inside = path
            .as_ref()
            .strip_prefix("/")
            .expect("a path of the machine is absolute");
        PathBuf::from(format!("/proc/{}/root", self.id)).join(inside)
    }

    /// Writes a file, readable for everyone.
    #[track_caller]
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(path), content).unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// Reads a file.
    #[track_caller]
    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// A file that stands for the machine's network namespace.
    pub(crate) fn net(&self) -> File {
        self.net.try_clone().unwrap()
    }

    /// The id of the machine's first process, as `ip link set … netns` wants it.
    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    /// Runs `job` on a fresh thread that is in the machine's network, and in nothing else of it.
    pub(crate) fn in_network<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let net = self.net();
        std::thread::spawn(move || {
            setns(net, CloneFlags::CLONE_NEWNET).unwrap();
            job()
        })
        .join()
        .unwrap()
    }

    /// A listening socket on the machine.
    #[track_caller]
    pub(crate) fn listen(&self, address: SocketAddr) -> TcpListener {
        self.in_network(move || TcpListener::bind(address))
            .unwrap_or_else(|e| panic!("listen on {address}: {e}"))
    }

    /// A bound UDP socket on the machine.
    #[track_caller]
    pub(crate) fn bind_udp(&self, address: SocketAddr) -> UdpSocket {
        self.in_network(move || UdpSocket::bind(address))
            .unwrap_or_else(|e| panic!("bind {address}: {e}"))
    }

    /// The command lines of the processes that live on the machine, without its first one. A process that was ended
    /// but not yet waited for does not count.
    pub(crate) fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.path("/proc")).unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let read =
                |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let stat = read("stat");
            let state = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.chars().next());
            let ours = pid == 1 || read("cmdline").contains(FOREVER);
            if ours || matches!(state, None | Some('Z' | 'X')) {
                continue;
            }
            found.push(format!("{pid}: {}", read("cmdline").replace('\0', " ")));
        }
        found
    }

    /// The mounts of the machine, one a line.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", self.id)).unwrap();
        let mut mounts: Vec<_> = table
            .lines()
            .map(|line| line.split(' ').skip(2).collect::<Vec<_>>().join(" "))
            .collect();
        mounts.sort();
        mounts
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its first process takes all others along. It is not waited for here, as it ends only after somebody has waited
        // for each of those, and a test may still hold some.
        let mut init = self.init.take().unwrap();
        let _ = init.kill();
        std::thread::spawn(move || init.wait());
        self.keeper = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for `child` at most `limit`; if it takes longer, it is killed and the answer is `None`.
pub(crate) fn wait_at_most(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Collects a stream on a thread of its own.
pub(crate) fn drain(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        all
    })
}

/// Where root finds the tools of the machine.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long the first process sleeps at a time, in seconds: also how its sleeper is told from others.
const FOREVER: &str = "1000000007";

/// Turns the calling thread into the keeper of a new machine and starts its first process.
fn become_machine(tools: &[(String, PathBuf)]) -> io::Result<(Child, File)> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let net = File::open("/proc/thread-self/ns/net")?;

    // The first process reaps orphans until it is killed. It asks to be killed when this thread ends, before it does
    // anything else, and it mounts /proc since only a process inside can mount that of the new namespace.
    let mut init = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "/bin/sh", "-c", INIT])
        .env_clear()
        .env("PATH", SYSTEM_PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = String::new();
    BufReader::new(init.stdout.take().unwrap()).read_line(&mut ready)?;
    if ready != "ready\n" {
        return Err(io::Error::other(
            "the first process of the machine did not start",
        ));
    }
    let fresh = |directory: &str, mode: &str| {
        mount(
            Some("machine"),
            directory,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(format!("mode={mode}").as_str()),
        )
        .map_err(|e| io::Error::other(format!("mount {directory}: {e}")))
    };
    fresh("/srv", "755")?;
    for (inside, outside) in tools {
        std::fs::create_dir_all(inside)?;
        mount(
            Some(outside),
            inside.as_str(),
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )?;
    }
    for (directory, mode) in [
        ("/home", "755"),
        ("/root", "700"),
        ("/run", "755"),
        ("/tmp", "1777"),
        // Else what a server of one test keeps in there would be what another test left behind.
        ("/var/tmp", "1777"),
        ("/dev/shm", "1777"),
    ] {
        fresh(directory, mode)?;
    }
    Ok((init, net))
}

const INIT: &str = "mount -t proc proc /proc && echo ready && exec >/dev/null && while :; do sleep 1000000007 & wait; done";
