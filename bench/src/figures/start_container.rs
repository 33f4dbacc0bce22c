//! What a container costs to start, from the command until nothing of it is left, and what stays in memory meanwhile.
//!
//! Three ways: the engine's own, without a network; Egret's, with a gateway; and an internal network with three sidecars (DNS,
//! the way out, the way in) put together by hand, as tools do it that rely on such a network. The sidecars only sleep here,
//! so that way is what the engine alone takes for it.
//!
//! The engine is a Docker daemon of its own, in namespaces that end with it, which takes root. Its images, containers and
//! networks are in memory and nowhere else.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{private, resident};
use crate::report::{Figure, Goal, Report};
use crate::{Error, Run};

/// The figures here.
pub(crate) const NAMES: [&str; 2] = ["container-start", "container-rest"];

const PLAIN: &str = "docker, no network";
const EGRET: &str = "Egret";
const SIDECARS: &str = "three sidecars";

/// What runs a command of this executable in namespaces in which a daemon can be started.
pub(crate) fn inside(command: &str) -> Result<Command, Error> {
    if !rustix::process::geteuid().is_root() {
        return Err("a Docker daemon of its own takes root".into());
    }
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--net", "--mount", "--pid", "--mount-proc", "--fork"])
        .args(["--kill-child", "--"])
        .arg(std::env::current_exe()?)
        .arg(command);
    Ok(unshare)
}

/// Measures with a daemon, in namespaces that are new, and prints the report as JSON.
pub(crate) fn measure(run: &Run) -> Result<(), Error> {
    let docker = Docker::start(run)?;
    let mut report = Report::default();
    report.machine.push((
        "Docker".into(),
        docker.printed("docker version --format {{.Server.Version}}")?,
    ));
    if run.wants("container-start") {
        report.figures.push(start(run, &docker)?);
    }
    if run.wants("container-rest") {
        report.figures.push(rest(&docker)?);
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn start(run: &Run, docker: &Docker) -> Result<Figure, Error> {
    let mut figure = Figure::new(
        "container-start",
        "`true` in a container, until nothing of it is left",
        "ms",
        PLAIN,
    )
    .goal(Goal::ratio(EGRET, false, 1.6, PLAIN))
    .goal(Goal::ratio(EGRET, false, 0.5, SIDECARS));
    let ways = [
        (PLAIN, "docker run --rm --network none busybox true"),
        (EGRET, "\"$EGRET\" run --rm busybox true"),
        (SIDECARS, BY_HAND),
    ];
    let ways = ways.map(|(name, script)| (name, script, name == PLAIN || run.measures(name)));
    // Before the first round once more than is measured: Egret makes its image then.
    for round in 0..=run.rounds {
        if round > 0 {
            eprintln!("bench: round {round} of {} with containers", run.rounds);
        }
        for (name, script, _) in ways.iter().filter(|(.., measured)| *measured) {
            let since = Instant::now();
            docker.printed(script)?;
            if round > 0 {
                figure.add(name, since.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(figure)
}

fn rest(docker: &Docker) -> Result<Figure, Error> {
    let mut figure = Figure::new(
        "container-rest",
        "Egret's containers at rest: resident, and what of that they share with nobody",
        "MiB",
        "gateway",
    )
    .goal(Goal::at_most("agent", 1.5))
    .goal(Goal::at_most("gateway", 8.0));
    docker.printed("\"$EGRET\" run -d --name rest busybox sleep 1000")?;
    for role in ["agent", "gateway"] {
        let id = docker
            .printed(&format!(
                "docker inspect --format {{{{.State.Pid}}}} rest-egret-{role}"
            ))?
            .parse()?;
        figure.add(role, resident(id)? as f64 / 1024.0);
        figure.add(&format!("{role}, private"), private(id)? as f64 / 1024.0);
    }
    docker.printed("\"$EGRET\" rm -f rest")?;
    Ok(figure)
}

/// A daemon with one image.
struct Docker {
    daemon: Child,
    egret: PathBuf,
}

impl Docker {
    /// Starts it; called in namespaces that are new.
    fn start(run: &Run) -> Result<Self, Error> {
        let egret = run.egret.canonicalize()?;
        let script = format!(
            "for directory in /run /var/lib/docker; do mkdir -p $directory; mount -t tmpfs -o mode=755 bench $directory; done
             mkdir -p {HOME}; echo '{{}}' > {HOME}/daemon.json; ip link set lo up"
        );
        sh(Command::new("sh").args(["-euc", &script]))?;
        let daemon = Command::new("dockerd")
            .args([
                "--host",
                "unix:///run/docker.sock",
                "--pidfile",
                "/run/docker.pid",
            ])
            .args([
                "--data-root",
                "/var/lib/docker",
                "--exec-root",
                "/run/docker",
            ])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--cgroup-parent", GROUP])
            .arg(format!("--config-file={HOME}/daemon.json"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(Path::new(HOME).join("log"))?)
            .spawn()
            .map_err(|error| format!("dockerd: {error}"))?;
        let mut docker = Self { daemon, egret };
        let until = Instant::now() + Duration::from_secs(30);
        while docker.printed("docker version 2>&1").is_err() {
            if docker.daemon.try_wait()?.is_some() || Instant::now() > until {
                let log = fs::read_to_string(Path::new(HOME).join("log"))?;
                let last = log.lines().last().unwrap_or_default();
                return Err(format!("dockerd does not start: {last}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        docker.printed(
            "busybox=$(command -v busybox) || { echo busybox is not installed >&2; exit 1; }
             mkdir -p ~/image/bin; cp $busybox ~/image/bin/busybox
             for name in true sleep; do ln -s busybox ~/image/bin/$name; done
             tar -C ~/image -c . | docker import - busybox",
        )?;
        Ok(docker)
    }

    /// What a script prints, which has to succeed.
    fn printed(&self, script: &str) -> Result<String, Error> {
        let out = sh(Command::new("sh")
            .args(["-euc", script])
            .env("HOME", HOME)
            .env("EGRET", &self.egret)
            .env("EGRET_ENGINE", "docker")
            .env_remove("XDG_STATE_HOME")
            .env_remove("DOCKER_CONFIG")
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_HOST"))?;
        Ok(out.trim().to_owned())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Its processes end with the namespaces. Control groups do not, and can be removed when these are gone.
        let script = format!(
            "kill $(cat /run/docker.pid) && while kill -0 $(cat /run/docker.pid); do sleep 0.05; done 2>/dev/null
             find /sys/fs/cgroup -depth -type d -path '*{GROUP}*' -exec rmdir {{}} +"
        );
        sh(Command::new("sh").args(["-c", &script])).ok();
        self.daemon.wait().ok();
    }
}

fn sh(command: &mut Command) -> Result<String, Error> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => {
            let errors = String::from_utf8_lossy(&out.stderr);
            Err(format!("{command:?} failed: {}", errors.trim()).into())
        }
    }
}

/// Where everything is written.
const HOME: &str = "/run/bench";
/// The control group of all containers.
const GROUP: &str = "/egret-bench";

/// Sidecars in the foreground of nothing: they sleep. The network of the one in the middle leads nowhere else.
const BY_HAND: &str = "docker network create --internal inside; docker network create outside
    docker run -d --name dns --network inside busybox sleep 1000
    docker run -d --name egress --network outside busybox sleep 1000; docker network connect inside egress
    docker run -d --name ingress --network outside -p 127.0.0.1:8123:80 busybox sleep 1000; docker network connect inside ingress
    docker run --rm --network inside busybox true
    docker rm -f dns egress ingress; docker network rm inside outside";
