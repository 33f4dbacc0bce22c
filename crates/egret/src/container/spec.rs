//! From what a sandbox is to the commands that make it, purely: the same [`Spec`] gives the same arguments for ever.
//!
//! Three containers. The *agent* has a network namespace with nothing in it, and the one capability that sealing takes.
//! The *gateway* has a network with a way out and no capability. The *workload* is the user's image in the agent's network
//! namespace. The control volume is in the first two alone.

use super::config::RunConfig;
use super::engine::Kind;
use super::image::PROGRAM;
use super::mounts::Mount;
use super::publish::Publish;
use crate::failure::Failure;
use egret_policy::SandboxId;
use egret_policy::guard::stands;
use egret_sandbox::Ports;
use std::path::Path;

/// Who the gateway is in its container. Nobody else may connect to the agent.
pub(crate) const GATEWAY_ID: u32 = 65532;
/// Where the control volume is in agent and gateway.
pub(crate) const CONTROL: &str = "/egret";
/// Port of the gateway's container on which the first published port arrives; the next ones follow.
pub(crate) const FIRST_INBOUND: u16 = 20000;

/// Labels of everything that is Egret's.
pub(crate) mod label {
    /// The sandbox's name.
    pub(crate) const SANDBOX: &str = "dev.egret.sandbox";
    /// What a container of it is: `agent`, `gateway` or `workload`.
    pub(crate) const ROLE: &str = "dev.egret.role";
    /// Which start made it: things of a start that fails are told by this.
    pub(crate) const INSTANCE: &str = "dev.egret.instance";
    /// The run configuration, on the workload and the gateway.
    pub(crate) const RUN: &str = "dev.egret.run";
    /// On agent and gateway, that everything public is open to the workload, to learn from what it reaches.
    pub(crate) const LEARNING: &str = "dev.egret.learning";
    /// The images that Egret makes of itself.
    pub(crate) const IMAGE: &str = "dev.egret.image";
}

/// Capabilities that a workload keeps: what images need that start as root, prepare their files and become somebody else.
/// All of them end at the container's own files and processes.
pub(crate) const KEPT_CAPABILITIES: [&str; 9] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
];

/// All capabilities, by their numbers: <linux/capability.h>.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Everything that the commands for one sandbox are made of.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) kind: Kind,
    pub(crate) name: SandboxId,
    /// Tells this start from any other.
    pub(crate) instance: String,
    /// The image of Egret's own.
    pub(crate) own_image: String,
    pub(crate) config: RunConfig,
    pub(crate) ports: Ports,
    pub(crate) published: Vec<Publish>,
    /// Whether the policy opens anything of the host.
    pub(crate) opens_host: bool,
    /// The file with the system calls that a workload does not get.
    pub(crate) seccomp: String,
    /// The number of the last capability that the kernel knows: Podman drops none that it does not.
    pub(crate) last_capability: usize,
    pub(crate) detach: bool,
    pub(crate) remove: bool,
    /// Whether everything public is open to it, to learn from what it reaches.
    pub(crate) learning: bool,
    /// Whether what is run is beside a workload that runs, and no part of the sandbox.
    pub(crate) beside: bool,
}

/// The name of a sandbox's agent.
pub(crate) fn agent_name(sandbox: &str) -> String {
    format!("{sandbox}-egret-agent")
}

/// The name of a sandbox's gateway.
pub(crate) fn gateway_name(sandbox: &str) -> String {
    format!("{sandbox}-egret-gateway")
}

impl Spec {
    /// The control volume's name.
    pub(crate) fn volume_name(&self) -> String {
        format!("{}-egret-{}", self.name, self.instance)
    }

    /// `volume create …`, where an engine does not make a volume with labels by mounting it.
    pub(crate) fn volume(&self) -> Option<Vec<String>> {
        let mut words = Words::of("volume create");
        words.pairs("--label", &self.volume_labels());
        words.word(self.volume_name());
        (self.kind == Kind::Podman).then_some(words.0)
    }

    fn volume_labels(&self) -> [String; 2] {
        [
            format!("{}={}", label::SANDBOX, self.name),
            format!("{}={}", label::INSTANCE, self.instance),
        ]
    }

    /// `run …` of the agent.
    pub(crate) fn agent(&self) -> Vec<String> {
        let mut words = self.own("agent", &agent_name(self.name.as_str()));
        words.pair("--network", "none");
        words.pair("--cap-add", "NET_ADMIN");
        words.pair("--user", "0:0");
        // Docker makes such namespaces without IPv6, and the agent's view of /proc/sys is read-only.
        words.pair("--sysctl", "net.ipv6.conf.all.disable_ipv6=0");
        words.pair("--hostname", self.hostname());
        if self.kind == Kind::Docker {
            // Whatever it is, questions to it end at the gateway. A documentation address, and no search list of the host's.
            words.pair("--dns", "192.0.2.53");
            words.pair("--dns-search", ".");
        }
        match self.kind {
            Kind::Docker => words.pairs("--add-host", &self.config.add_host),
            Kind::Podman => words.word("--no-hosts"),
        }
        words.word(&self.own_image);
        words.word("agent");
        let Ports {
            capture,
            proxy,
            dns,
        } = self.ports;
        words.word(format!("{capture},{proxy},{dns}"));
        words.0
    }

    /// `run …` of the gateway. Its configuration goes to its standard input.
    pub(crate) fn gateway(&self) -> Vec<String> {
        let mut words = self.own("gateway", &gateway_name(self.name.as_str()));
        words.word("--interactive");
        // What is on record has to stay there: neither thrown away, nor overwritten, nor dropped in a hurry.
        let (driver, options): (_, &[&str]) = match self.kind {
            Kind::Docker => ("json-file", &["max-size=1000000g", "mode=blocking"]),
            Kind::Podman => ("k8s-file", &["max-size=1000000g"]),
        };
        words.pair("--log-driver", driver);
        for option in options {
            words.pair("--log-opt", *option);
        }
        words.pair("--user", format!("{GATEWAY_ID}:{GATEWAY_ID}"));
        if let Some(network) = &self.config.network {
            words.pair("--network", network);
        }
        match (self.kind, self.opens_host) {
            (Kind::Docker, true) => words.pair("--add-host", "host.docker.internal:host-gateway"),
            // Podman puts its name for the host into every container's hosts file.
            (Kind::Podman, false) => words.word("--no-hosts"),
            _ => {}
        }
        for (publish, inner) in self.published.iter().zip(FIRST_INBOUND..) {
            words.pair("--publish", publish.to_gateway(inner));
        }
        words.pair("--label", self.run_label());
        words.word(&self.own_image);
        words.word("gateway");
        words.0
    }

    /// `run …` of the workload in the agent's network.
    pub(crate) fn workload(&self) -> Vec<String> {
        let sealed = format!("container:{}", agent_name(self.name.as_str()));
        let mut words = self.confined(match stands("container-network") {
            true => &sealed,
            false => "bridge",
        });
        if self.kind == Kind::Podman {
            // It would have the host's address in it, and those of the host's own file. Without it names are asked for.
            words.word("--no-hosts");
        }
        if !self.config.no_proxy_env {
            let proxy = format!("http://127.0.0.1:{}", self.ports.proxy);
            for name in crate::environment::PROXY_VARIABLES {
                words.pair("--env", format!("{name}={proxy}"));
            }
            for name in crate::environment::NO_PROXY_VARIABLES {
                words.pair("--env", format!("{name}={}", crate::environment::NO_PROXY));
            }
        }
        self.image(&mut words);
        words.0
    }

    /// Runs Egret itself in the workload's place, with these arguments, and all else as it would be.
    ///
    /// What is mounted over the executable would be run in its place, and say what it likes.
    pub(crate) fn run_own(
        &mut self,
        own_image: String,
        arguments: Vec<String>,
    ) -> Result<(), Failure> {
        let volumes = self.config.volume.iter();
        let volumes = volumes.map(|text| (text, Mount::of_volume(text)));
        let long = self.config.mount.iter();
        let mut mounts = volumes.chain(long.map(|text| (text, Mount::of_mount(text))));
        let covers = |(_, mount): &(&String, Result<Mount, String>)| {
            let mount = mount.as_ref();
            mount.is_ok_and(|mount| mount.covers(Path::new(PROGRAM)))
        };
        if let Some((text, _)) = mounts.find(covers) {
            return Err(Failure::new(format!(
                "the prober is at {PROGRAM} in a container, and {text} is mounted over it; verify a sandbox without that"
            )));
        }
        self.config = RunConfig {
            image: own_image,
            command: arguments,
            entrypoint: None,
            // In the image there is nothing but the executable, and nobody it could belong to by name.
            workdir: None,
            pull: Some("never".into()),
            platform: None,
            // It is run once, and nobody speaks to it.
            restart: None,
            interactive: false,
            tty: false,
            init: false,
            ..self.config.clone()
        };
        Ok(())
    }

    /// `run …` of Egret itself beside a workload that runs: in its network, confined like it, with its mounts; a container
    /// of its own, which is none of the sandbox's and removed at its end. It is not among the workload's processes: these
    /// could stop it, or have it say what they like.
    pub(crate) fn prober(
        mut self,
        own_image: String,
        arguments: Vec<String>,
    ) -> Result<Vec<String>, Failure> {
        self.run_own(own_image, arguments)?;
        (self.detach, self.remove, self.beside) = (false, true, true);
        Ok(self.workload())
    }

    /// `run …` of a workload that has no network, and so no gateway.
    pub(crate) fn without_network(&self) -> Vec<String> {
        let mut words = self.confined("none");
        if self.kind == Kind::Docker {
            words.pair("--hostname", self.hostname());
        }
        words.pairs("--add-host", &self.config.add_host);
        self.image(&mut words);
        words.0
    }

    /// `run …` of the image as the engine runs it, with nothing of Egret's around it.
    pub(crate) fn unsealed(&self) -> Vec<String> {
        let RunConfig {
            network,
            hostname,
            add_host,
            publish,
            cap_add,
            cap_drop,
            weakening,
            ..
        } = &self.config;
        let mut words = Words::of("run");
        self.common(&mut words);
        words.maybe("--network", network.as_ref());
        words.maybe("--hostname", hostname.as_ref());
        words.pairs("--add-host", add_host);
        words.pairs("--publish", publish);
        words.pairs("--cap-add", cap_add);
        words.pairs("--cap-drop", cap_drop);
        if weakening.privileged {
            words.word("--privileged");
        }
        words.pairs("--device", &weakening.device);
        words.pairs("--security-opt", &weakening.security_opt);
        words.pairs("--volumes-from", &weakening.volumes_from);
        words.maybe("--pid", weakening.pid.as_ref());
        words.maybe("--ipc", weakening.ipc.as_ref());
        words.maybe("--uts", weakening.uts.as_ref());
        words.maybe("--userns", weakening.userns.as_ref());
        words.maybe("--cgroupns", weakening.cgroupns.as_ref());
        self.image(&mut words);
        words.0
    }

    /// The name that the sandbox has for itself.
    fn hostname(&self) -> String {
        let given = self.config.hostname.clone();
        given.unwrap_or_else(|| self.name.to_string())
    }

    /// What a workload has that is confined, in whatever network.
    fn confined(&self, network: &str) -> Words {
        let mut words = Words::of("run");
        self.common(&mut words);
        words.pair("--network", network);
        if self.kind == Kind::Podman {
            // A host name is not shared with the network.
            words.pair("--hostname", self.hostname());
        }
        words.pair("--security-opt", "no-new-privileges");
        let calls = match stands("container-system-calls") {
            true => self.seccomp.as_str(),
            false => "unconfined",
        };
        words.pair("--security-opt", format!("seccomp={calls}"));
        let mut added = self.config.cap_add.clone();
        if !stands("container-capabilities") {
            added.push("NET_ADMIN".into());
        }
        let is_among = |names: &[String], name: &str| {
            names
                .iter()
                .any(|other| same_capability(other, name) || same_capability(other, "ALL"))
        };
        let kept = |name: &&str| {
            KEPT_CAPABILITIES.contains(name) && !is_among(&self.config.cap_drop, name)
        };
        match self.kind {
            Kind::Docker => {
                words.pair("--cap-drop", "ALL");
                for name in KEPT_CAPABILITIES.iter().filter(|name| kept(name)) {
                    words.pair("--cap-add", *name);
                }
            }
            // Podman gives what is added to users who are not root as well, so that what is kept is what is not dropped.
            Kind::Podman => {
                let known = CAPABILITIES
                    .iter()
                    .take(self.last_capability.saturating_add(1));
                for name in known.filter(|name| !kept(name) && !is_among(&added, name)) {
                    words.pair("--cap-drop", *name);
                }
            }
        }
        words.pairs("--cap-add", &added);
        words
    }

    /// What agent and gateway have in common.
    fn own(&self, role: &str, name: &str) -> Words {
        let mut words = Words::of("run");
        words.pair("--name", name);
        words.pair("--label", format!("{}={}", label::SANDBOX, self.name));
        words.pair("--label", format!("{}={role}", label::ROLE));
        words.pair("--label", format!("{}={}", label::INSTANCE, self.instance));
        if self.learning {
            words.pair("--label", format!("{}=true", label::LEARNING));
        }
        words.pair("--pull", "never");
        words.pair("--cap-drop", "ALL");
        words.pair("--security-opt", "no-new-privileges");
        words.word("--read-only");
        let volume = self.volume_name();
        match self.kind {
            Kind::Docker => {
                let labels = self
                    .volume_labels()
                    .map(|label| format!(",volume-label={label}"))
                    .concat();
                words.pair(
                    "--mount",
                    format!("type=volume,source={volume},target={CONTROL}{labels}"),
                );
            }
            Kind::Podman => words.pair("--volume", format!("{volume}:{CONTROL}")),
        }
        if self.kind == Kind::Podman {
            words.word("--http-proxy=false");
        }
        words.maybe("--restart", self.config.restart.as_ref());
        #[cfg(feature = "unguarded")]
        words.pair("--env", "EGRET_WITHOUT");
        words
    }

    /// What a workload has whether or not it is sealed.
    fn common(&self, words: &mut Words) {
        let config = &self.config;
        if !self.beside {
            words.pair("--name", self.name.as_str());
            // Of two of one name the last one counts.
            words.pairs("--label", &config.label);
            words.pair("--label", format!("{}={}", label::SANDBOX, self.name));
            words.pair("--label", format!("{}=workload", label::ROLE));
            words.pair("--label", format!("{}={}", label::INSTANCE, self.instance));
            words.pair("--label", self.run_label());
        }
        for (wanted, option) in [
            (self.detach, "--detach"),
            (self.remove, "--rm"),
            (config.interactive, "--interactive"),
            (config.tty, "--tty"),
            (config.read_only, "--read-only"),
            (config.init, "--init"),
        ] {
            if wanted {
                words.word(option);
            }
        }
        words.maybe("--pull", config.pull.as_ref());
        words.maybe("--platform", config.platform.as_ref());
        words.maybe("--restart", config.restart.as_ref());
        words.maybe("--memory", config.memory.as_ref());
        words.maybe("--cpus", config.cpus.as_ref());
        words.maybe("--shm-size", config.shm_size.as_ref());
        words.maybe("--user", config.user.as_ref());
        words.maybe("--workdir", config.workdir.as_ref());
        words.maybe("--entrypoint", config.entrypoint.as_ref());
        words.pairs("--volume", &config.volume);
        words.pairs("--mount", &config.mount);
        words.pairs("--tmpfs", &config.tmpfs);
        if self.kind == Kind::Podman {
            words.word("--http-proxy=false");
        }
    }

    /// What comes last: the user's variables, over those of ours, the image and its arguments.
    fn image(&self, words: &mut Words) {
        for file in &self.config.env_file {
            words.pair("--env-file", file.display().to_string());
        }
        words.pairs("--env", &self.config.env);
        words.word(&self.config.image);
        for argument in &self.config.command {
            words.word(argument);
        }
    }

    fn run_label(&self) -> String {
        // Without line breaks: some ways to list labels are by lines.
        let kept = self.config.clone().without_secrets();
        let json = serde_json::to_string(&kept).unwrap_or_else(|error| unreachable!("{error}"));
        format!("{}={json}", label::RUN)
    }
}

/// Whether two ways to write a capability mean the same one.
pub(crate) fn same_capability(one: &str, other: &str) -> bool {
    let bare = |name: &str| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_")
            .map_or(name.clone(), str::to_owned)
    };
    bare(one) == bare(other)
}

/// A command line in the making.
struct Words(Vec<String>);

impl Words {
    fn of(command: &str) -> Self {
        Self(command.split(' ').map(str::to_owned).collect())
    }

    fn word(&mut self, word: impl Into<String>) {
        self.0.push(word.into());
    }

    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.word(option);
        self.word(value);
    }

    fn pairs(&mut self, option: &str, values: &[String]) {
        for value in values {
            self.pair(option, value);
        }
    }

    fn maybe(&mut self, option: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.pair(option, value);
        }
    }
}
