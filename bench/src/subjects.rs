//! What is measured: Egret, its peers, and the floor, each started the way its users start it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;
use crate::client::{BEGIN, Outcome, Scenario, Via};
use crate::process::{cpu_time, resident};
use crate::servers::{ECHO, HTTP, SINK, SOURCE};
use crate::world::SERVER;

/// A program under load, with the generator that gives it that.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The process that is measured.
    pub(crate) id: u32,
    /// How long it took until it took connections.
    pub(crate) ready: Duration,
    /// Where a tunnel to a port of the servers is to be had. A relay has one of these for each port.
    way: Way,
    client: Client,
    /// What is killed at the end.
    children: Vec<Child>,
}

#[derive(Clone, Copy)]
enum Way {
    Direct,
    /// Relays `1000 + port` to `port`.
    Relay,
    Proxy {
        at: SocketAddr,
        names: bool,
    },
    /// Egret, from inside its sandbox, without a proxy being asked.
    Captured,
}

/// A measurement: what the client counted, and the time of the processor that the subject took for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// In seconds.
    pub(crate) cpu: f64,
}

impl Measured {
    /// What was done for each second of the processor.
    pub(crate) fn per_cpu_second(&self) -> f64 {
        self.outcome.done as f64 / self.cpu
    }
}

/// The names that are allowed, beside `*.many.example.com`.
pub(crate) fn names() -> impl Iterator<Item = String> {
    (0..10).map(|number| format!("n{number}.example.com"))
}

impl Subject {
    /// No subject at all: the client talks to the servers.
    pub(crate) fn direct() -> Result<Self, Error> {
        let client = Client::start(&mut itself()?)?;
        let id = std::process::id();
        Ok(Self {
            name: "direct".into(),
            version: String::new(),
            id,
            ready: Duration::ZERO,
            way: Way::Direct,
            client,
            children: Vec::new(),
        })
    }

    pub(crate) fn floor(how: &str, port: u16) -> Result<Self, Error> {
        let mut command = itself()?;
        command.args(["floor", how, &port.to_string()]);
        Self::outside(
            format!("floor, {how}"),
            String::new(),
            &mut command,
            proxy(port, false),
            port,
        )
    }

    /// HAProxy as a plain relay of TCP, which splices and reads no request.
    pub(crate) fn haproxy(directory: &Path) -> Result<Self, Error> {
        let server = Ipv4Addr::from(SERVER);
        let mut config = String::from(
            "global\n  maxconn 7000\n  nbthread 1\ndefaults\n  mode tcp\n  option splice-auto\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n",
        );
        for port in [ECHO, SINK, SOURCE] {
            let at = RELAYED + port;
            config +=
                &format!("listen p{port}\n  bind 127.0.0.1:{at}\n  server s {server}:{port}\n");
        }
        let file = write(directory, "haproxy.cfg", &config)?;
        let version = first_line("haproxy", &["-v"])?;
        Self::outside(
            "HAProxy, TCP only".into(),
            version,
            Command::new("haproxy").arg("-db").arg("-f").arg(file),
            Way::Relay,
            RELAYED + ECHO,
        )
    }

    pub(crate) fn squid(directory: &Path) -> Result<Self, Error> {
        let port = 3128;
        let config = format!(
            "http_port 127.0.0.1:{port}\nacl allowed dstdomain {} .many.example.com\nacl CONNECT method CONNECT\nhttp_access allow allowed\nhttp_access deny all\n\
             access_log stdio:{d}/squid-access.log\ncache_log {d}/squid-cache.log\ncache deny all\ncache_mem 0 MB\ncoredump_dir {d}\npid_filename {d}/squid.pid\n\
             netdb_filename none\npinger_enable off\nmax_filedescriptors 20000\nshutdown_lifetime 0 seconds\nserver_persistent_connections on\nvisible_hostname bench\n",
            names().collect::<Vec<_>>().join(" "),
            d = directory.display(),
        );
        let file = write(directory, "squid.conf", &config)?;
        let version = first_line("squid", &["-v"])?;
        // It does not run as root, so here root is somebody else.
        let mut command = Command::new("unshare");
        command
            .args([
                "--user",
                "--map-user=1",
                "--map-group=1",
                "--",
                "squid",
                "-N",
                "-f",
            ])
            .arg(file);
        Self::outside(
            "Squid".into(),
            version,
            &mut command,
            proxy(port, true),
            port,
        )
    }

    pub(crate) fn tinyproxy(directory: &Path) -> Result<Self, Error> {
        let port = 8888;
        let allowed: String = names()
            .map(|name| format!("^{}$\n", name.replace('.', "\\.")))
            .collect();
        let filter = write(
            directory,
            "tinyproxy.filter",
            &(allowed + "\\.many\\.example\\.com$\n"),
        )?;
        let config = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 3600\nMaxClients 10000\nLogFile \"{d}/tinyproxy.log\"\nLogLevel Connect\nFilter \"{}\"\nFilterDefaultDeny Yes\nFilterExtended On\n\
             ConnectPort {ECHO}\nConnectPort {SINK}\nConnectPort {SOURCE}\nConnectPort {HTTP}\n",
            filter.display(),
            d = directory.display(),
        );
        let file = write(directory, "tinyproxy.conf", &config)?;
        let version = first_line("tinyproxy", &["-v"])?;
        Self::outside(
            "tinyproxy".into(),
            version,
            Command::new("tinyproxy").arg("-d").arg("-c").arg(file),
            proxy(port, true),
            port,
        )
    }

    /// Egret with a sandbox of processes, in which the generator of load is the program. What is measured is the process
    /// that `egret run` is, and in which the gateway lives.
    pub(crate) fn egret(egret: &Path, directory: &Path, entries: usize) -> Result<Self, Error> {
        let policy = write(
            directory,
            &format!("policy-{entries}.yaml"),
            &policy(entries),
        )?;
        let log = directory.join(format!("egret-{entries}.log"));
        let mut command = Command::new(egret);
        command
            .arg("run")
            .arg("--policy")
            .arg(&policy)
            .arg("--log-file")
            .arg(&log)
            .arg("--read")
            .arg(std::env::current_exe()?)
            .arg("--")
            .arg(std::env::current_exe()?);
        let since = Instant::now();
        let client = Client::start(&mut command)?;
        let ready = since.elapsed();
        let id = client.process.id();
        let at = client
            .proxy
            .ok_or("Egret has told the program of no proxy")?;
        let version = first_line(egret, &["--version"])?;
        Ok(Self {
            name: "Egret".into(),
            version,
            id,
            ready,
            way: Way::Proxy { at, names: true },
            client,
            children: Vec::new(),
        })
    }

    /// Egret's gateway alone, where the other proxies are.
    pub(crate) fn gateway(directory: &Path) -> Result<Self, Error> {
        let port = 8003;
        let policy = write(directory, "policy.yaml", &policy(10))?;
        let log = directory.join("gateway.log");
        let mut command = itself()?;
        command
            .args(["gateway", &port.to_string()])
            .arg(policy)
            .arg(log);
        let name = "Egret, gateway only".into();
        Self::outside(name, String::new(), &mut command, proxy(port, true), port)
    }

    /// The same from now on, with connections being captured instead of a proxy being asked; and back.
    pub(crate) fn captured(&mut self, captured: bool) {
        self.way = match (captured, self.client.proxy) {
            (false, Some(at)) => Way::Proxy { at, names: true },
            _ => Way::Captured,
        };
    }

    fn outside(
        name: String,
        version: String,
        command: &mut Command,
        way: Way,
        port: u16,
    ) -> Result<Self, Error> {
        let errors =
            std::env::temp_dir().join(format!("egret-bench-{}-{port}", std::process::id()));
        let since = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&errors)?)
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let id = child.id();
        let mut children = vec![child];
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = children
                .iter_mut()
                .any(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || since.elapsed() > Duration::from_secs(20) {
                let said = fs::read_to_string(&errors)?;
                return Err(format!("{name} did not start: {said}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let ready = since.elapsed();
        fs::remove_file(errors)?;
        let client = Client::start(&mut itself()?)?;
        Ok(Self {
            name,
            version,
            id,
            ready,
            way,
            client,
            children,
        })
    }

    /// Whether it can be asked for something by name, and refuses what is not allowed.
    pub(crate) fn decides(&self) -> bool {
        matches!(self.way, Way::Captured | Way::Proxy { names: true, .. })
    }

    /// Whether it is spoken to in HTTP.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        match self.way {
            Way::Proxy { at, names: true } => Some(at),
            _ => None,
        }
    }

    /// How a port of the servers is reached through it, under all the names that it has there.
    pub(crate) fn reach(&self, port: u16) -> (Via, Vec<String>) {
        let server = Ipv4Addr::from(SERVER);
        let address = || vec![format!("{server}:{port}")];
        let by_name = || names().map(|name| format!("{name}:{port}")).collect();
        match self.way {
            Way::Direct => (Via::Nothing, address()),
            Way::Relay => (
                Via::Relay((Ipv4Addr::LOCALHOST, RELAYED + port).into()),
                address(),
            ),
            Way::Proxy { at, names: false } => (Via::Proxy(at), address()),
            Way::Proxy { at, names: true } => (Via::Proxy(at), by_name()),
            Way::Captured => (Via::Nothing, by_name()),
        }
    }

    /// Has the client play `scenario`.
    pub(crate) fn play(&mut self, scenario: &Scenario) -> Result<Measured, Error> {
        let counts = !matches!(
            scenario,
            Scenario::Keep { .. } | Scenario::LetGo | Scenario::Names { .. }
        );
        let what = |error: Error| format!("{}: {error}", self.name);
        let id = self.id;
        let mut before = cpu_time(id)?;
        self.client.send(scenario).map_err(what)?;
        if counts {
            let line = self.client.line().map_err(what)?;
            before = cpu_time(id)?;
            if line != BEGIN {
                return Err(format!("{}: the client said {line}", self.name).into());
            }
        }
        let line = self.client.line().map_err(what)?;
        let cpu = cpu_time(id)?.saturating_sub(before).as_secs_f64();
        let outcome: Outcome = serde_json::from_str(&line)?;
        // A subject that drops what it is given is not fast.
        if outcome.failed * 1000 > outcome.done {
            return Err(format!(
                "{}: {} of {} failed ({scenario:?})",
                self.name, outcome.failed, outcome.done
            )
            .into());
        }
        Ok(Measured { outcome, cpu })
    }

    /// What it has in memory, in KiB.
    pub(crate) fn resident(&self) -> Result<u64, Error> {
        resident(self.id)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        for child in &mut self.children {
            if child.kill().is_ok() {
                child.wait().ok();
            }
        }
    }
}

/// The generator of load, or what it runs in.
struct Client {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What it says is the proxy there, if it is in a sandbox.
    proxy: Option<SocketAddr>,
}

impl Client {
    /// Starts it by `command`, which lacks nothing but its name.
    fn start(command: &mut Command) -> Result<Self, Error> {
        let mut process = command
            .arg("client")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut client = Self {
            process,
            input,
            output,
            proxy: None,
        };
        let hello = client.line()?;
        client.proxy = hello
            .rsplit_once("http://")
            .and_then(|(_, proxy)| proxy.trim_end_matches('/').parse().ok());
        Ok(client)
    }

    fn send(&mut self, scenario: &Scenario) -> Result<(), Error> {
        let input = self.input.as_mut().ok_or("no input")?;
        writeln!(input, "{}", serde_json::to_string(scenario)?)?;
        Ok(input.flush()?)
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the generator of load is gone".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends with its input, and what it runs in ends with it.
        self.input = None;
        self.process.wait().ok();
    }
}

/// A policy of so many entries, ten of which are asked for.
fn policy(entries: usize) -> String {
    let mut text = String::from("version: 1\nallow:\n");
    for name in names() {
        text += &format!("  - \"{name}:{ECHO},{SINK},{SOURCE},{HTTP}\"\n");
    }
    text += &format!("  - \"*.many.example.com:{ECHO}\"\n");
    for number in 0..entries.saturating_sub(11) {
        text += &match number % 3 {
            0 => format!("  - \"host-{number}.example.org\"\n"),
            1 => format!("  - \"*.zone-{number}.example.net\"\n"),
            _ => format!("  - \"45.{}.{}.7:443\"\n", number / 256 % 256, number % 256),
        };
    }
    text
}

fn proxy(port: u16, names: bool) -> Way {
    Way::Proxy {
        at: (Ipv4Addr::LOCALHOST, port).into(),
        names,
    }
}

fn itself() -> Result<Command, Error> {
    Ok(Command::new(std::env::current_exe()?))
}

fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf, Error> {
    let path = directory.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

fn first_line(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<String, Error> {
    let out = Command::new(&program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{:?}: {error}", program.as_ref()))?;
    Ok(String::from_utf8_lossy(&out.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// What is added to a port of the servers to have the one where it is relayed from.
const RELAYED: u16 = 1000;
