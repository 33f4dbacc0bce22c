//! What an isolated container may not be given, since it would open the seal, or give it the engine: a sentence each.

use super::config::RunConfig;
use super::spec::{KEPT_CAPABILITIES, same_capability};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

/// Capabilities that may be added: they end at the container's own files, processes and memory.
const ADDABLE: [&str; 5] = ["IPC_LOCK", "SETFCAP", "SETPCAP", "SYS_NICE", "SYS_RESOURCE"];

/// Directories of the host that hold its sockets, devices, other processes, or the engine's own files. Neither they nor
/// what has them inside is mounted. Of those that are marked, nothing beneath is either.
const HOSTS_OWN: [(&str, bool); 10] = [
    ("/run", false),
    ("/var/run", false),
    ("/proc", true),
    ("/sys", true),
    ("/dev", true),
    ("/var/lib/docker", true),
    ("/var/lib/containerd", true),
    ("/var/lib/containers", true),
    ("/run/docker", true),
    ("/run/containerd", true),
];

/// Sockets that are the engine, or as good as it.
const ENGINE_SOCKETS: [&str; 8] = [
    "docker.sock",
    "podman.sock",
    "containerd.sock",
    "containerd.sock.ttrpc",
    "crio.sock",
    "dockershim.sock",
    "buildkitd.sock",
    "docker.pid",
];

/// Every sentence about what this configuration asks for and an isolated container may not have.
pub(crate) fn openings(config: &RunConfig, shares: &[String]) -> Vec<String> {
    let weak = &config.weakening;
    let mut found = Vec::new();
    let mut refuse = |option: String, why: &str| found.push(format!("{option}: {why}"));
    if weak.privileged {
        refuse(
            "--privileged".into(),
            "a privileged container can undo its own isolation",
        );
    }
    for capability in &config.cap_add {
        let known = KEPT_CAPABILITIES.iter().chain(&ADDABLE);
        if !known
            .into_iter()
            .any(|known| same_capability(known, capability))
        {
            refuse(
                format!("--cap-add {capability}"),
                "with that capability a program could change its network, or reach around it",
            );
        }
    }
    for device in &weak.device {
        refuse(
            format!("--device {device}"),
            "a device of the host is a way round the gateway",
        );
    }
    for option in &weak.security_opt {
        refuse(
            format!("--security-opt {option}"),
            "Egret sets what confines the container, and this would weaken it",
        );
    }
    for container in &weak.volumes_from {
        refuse(
            format!("--volumes-from {container}"),
            "what the other container has mounted is not known; name each with -v",
        );
    }
    for (option, value, what) in [
        ("--pid", &weak.pid, "processes"),
        ("--ipc", &weak.ipc, "shared memory"),
        ("--uts", &weak.uts, "host name"),
        ("--userns", &weak.userns, "users"),
        ("--cgroupns", &weak.cgroupns, "control groups"),
    ] {
        match value.as_deref() {
            None | Some("private" | "") => {}
            Some(value) => refuse(
                format!("{option} {value}"),
                &format!("the container's {what} have to be its own"),
            ),
        }
    }
    for mount in &config.mount {
        match mounted(mount) {
            Mounted::Path(source) => {
                refuse_source(format!("--mount {mount}"), &source, &mut refuse)
            }
            Mounted::Nothing => {}
            Mounted::Unknown(why) => refuse(format!("--mount {mount}"), why),
        }
    }
    for volume in config.volume.iter().chain(shares) {
        let Some((source, _)) = volume.split_once(':') else {
            continue;
        };
        match is_path(source) {
            true => refuse_source(format!("-v {volume}"), Path::new(source), &mut refuse),
            false if is_control_volume(source) => refuse(
                format!("-v {volume}"),
                "that volume is for Egret's own containers",
            ),
            false => {}
        }
    }
    found
}

/// What a `--mount` shows of the host.
enum Mounted {
    Path(PathBuf),
    Nothing,
    Unknown(&'static str),
}

fn mounted(mount: &str) -> Mounted {
    let value = |wanted: &[&str]| {
        mount
            .split(',')
            .filter_map(|part| part.split_once('='))
            .find(|(key, _)| wanted.contains(&key.trim()))
            .map(|(_, value)| value.trim())
    };
    let kind = value(&["type"]).unwrap_or("volume");
    if mount.contains('"') {
        return Mounted::Unknown("write it without quotation marks");
    }
    match (kind, value(&["source", "src"])) {
        ("bind", Some(source)) => Mounted::Path(source.into()),
        ("bind", None) => Mounted::Unknown("a bind mount has a source"),
        ("tmpfs", _) => Mounted::Nothing,
        ("volume", Some(source)) if is_control_volume(source) => {
            Mounted::Unknown("that volume is for Egret's own containers")
        }
        // A volume's driver can be told to mount anything of the host.
        ("volume", _) if mount.contains("volume-opt") => Mounted::Unknown(
            "what a volume's driver is told to mount is not looked through; make the volume beforehand",
        ),
        ("volume", _) => Mounted::Nothing,
        _ => Mounted::Unknown("only bind, volume and tmpfs are mounted in an isolated container"),
    }
}

fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

/// Whether a volume is one of those that agent and gateway share.
fn is_control_volume(name: &str) -> bool {
    let instance = name.rsplit_once("-egret-").map(|(_, instance)| instance);
    instance.is_some_and(|instance| {
        instance.len() == super::INSTANCE_LENGTH && instance.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn refuse_source(option: String, source: &Path, refuse: &mut impl FnMut(String, &str)) {
    // As it is, and as it is whatever links lead to. (Of a remote engine's files nothing is known here but their names.)
    let plain = plain(source);
    let real = source.canonicalize().unwrap_or_else(|_| plain.clone());
    for path in [&plain, &real] {
        let named = path
            .file_name()
            .is_some_and(|name| ENGINE_SOCKETS.iter().any(|socket| name == *socket));
        if named {
            return refuse(option, "who has the engine's socket has the host");
        }
        for (own, beneath) in HOSTS_OWN {
            let own = Path::new(own);
            if own.starts_with(path) || (beneath && path.starts_with(own)) {
                return refuse(
                    option,
                    "it shows the host's sockets, devices or processes, or the engine's own files; mount what is needed of it by itself",
                );
            }
        }
    }
    match std::fs::metadata(&real) {
        Ok(found) if found.file_type().is_socket() => {
            refuse(
                option,
                "a unix socket of the host is a way round the gateway",
            );
        }
        Ok(found) if found.file_type().is_block_device() || found.file_type().is_char_device() => {
            refuse(option, "a device of the host is a way round the gateway");
        }
        _ => {
            if let Some(socket) = socket_in(&real) {
                refuse(
                    option,
                    &format!("it has the engine's socket in it ({})", socket.display()),
                );
            }
        }
    }
}

/// An engine's socket that is known to be below `directory`: where Docker and Podman are told, by the environment, to look,
/// and where they keep them for a user.
fn socket_in(directory: &Path) -> Option<PathBuf> {
    let of_variable = ["DOCKER_HOST", "CONTAINER_HOST"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .filter_map(|host| host.strip_prefix("unix://").map(PathBuf::from));
    let of_user = crate::settings::home().into_iter().flat_map(|home| {
        [
            ".docker/run/docker.sock",
            ".docker/desktop/docker.sock",
            ".colima/default/docker.sock",
            ".rd/docker.sock",
        ]
        .map(|path| home.join(path))
    });
    let of_session = std::env::var_os("XDG_RUNTIME_DIR")
        .into_iter()
        .flat_map(|run| {
            ["docker.sock", "podman/podman.sock"].map(|path| Path::new(&run).join(path))
        });
    of_variable
        .chain(of_user)
        .chain(of_session)
        .find(|socket| socket.starts_with(directory) && socket.exists())
}

/// A path without `.` and `..`, absolute from the working directory.
fn plain(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            component => plain.push(component),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut RunConfig)) -> Vec<String> {
        let mut config = RunConfig::new("x");
        change(&mut config);
        openings(&config, &[])
    }

    #[test]
    fn an_ordinary_container_has_none() {
        let none: Vec<String> = Vec::new();
        assert_eq!(asked(|_| {}), none);
        assert_eq!(
            asked(|config| {
                config.cap_add = vec!["CAP_CHOWN".into(), "sys_nice".into()];
                config.volume = vec![
                    "data:/data".into(),
                    "/home:/home:ro".into(),
                    "/anonymous".into(),
                ];
                config.mount = vec![
                    "type=volume,source=data,target=/x".into(),
                    "type=tmpfs,target=/y".into(),
                    "type=bind,src=/etc,dst=/e".into(),
                ];
                config.weakening.ipc = Some("private".into());
            }),
            none
        );
    }

    #[test]
    fn whatever_would_open_the_seal_has_a_sentence() {
        for capability in [
            "NET_ADMIN",
            "NET_RAW",
            "SYS_ADMIN",
            "SYS_PTRACE",
            "ALL",
            "cap_bpf",
            "SYS_MODULE",
            "MKNOD",
            "DAC_READ_SEARCH",
        ] {
            let said = asked(|config| config.cap_add = vec![capability.into()]);
            assert!(
                said.len() == 1 && said[0].starts_with(&format!("--cap-add {capability}: ")),
                "{said:?}"
            );
        }
        for volume in [
            "/var/run/docker.sock:/var/run/docker.sock",
            "/run/podman/podman.sock:/s:ro",
            "/run:/run",
            "/var/run/:/x",
            "/:/host",
            "/home/../run:/x",
            "/proc:/p",
            "/proc/1/root:/p",
            "/dev/sda:/d",
            "/sys/fs/cgroup:/c",
            "/var/lib/docker/volumes:/v",
            "/var:/v",
            "agent-egret-0123456789ab:/egret",
        ] {
            let said = asked(|config| config.volume = vec![volume.into()]);
            assert!(
                said.len() == 1 && said[0].starts_with(&format!("-v {volume}: ")),
                "{volume}: {said:?}"
            );
        }
        for mount in [
            "type=bind,source=/run/docker.sock,target=/x",
            "type=bind,target=/x",
            "type=npipe,source=x,target=/y",
            "type=volume,source=x-egret-0123456789ab,target=/y",
            "type=volume,dst=/y,volume-opt=type=none,volume-opt=device=/,volume-opt=o=bind",
            "\"type=bind\",source=/run,target=/x",
        ] {
            let said = asked(|config| config.mount = vec![mount.into()]);
            assert_eq!(said.len(), 1, "{mount}: {said:?}");
        }
        let said = asked(|config| {
            config.weakening.privileged = true;
            config.weakening.device = vec!["/dev/net/tun".into()];
            config.weakening.security_opt = vec!["seccomp=unconfined".into()];
            config.weakening.volumes_from = vec!["other".into()];
            config.weakening.pid = Some("host".into());
            config.weakening.ipc = Some("host".into());
            config.weakening.uts = Some("host".into());
            config.weakening.userns = Some("host".into());
            config.weakening.cgroupns = Some("host".into());
        });
        assert_eq!(said.len(), 9, "{said:#?}");
    }
}
