//! What an isolated container may not be given, since it would open the seal, or give it the engine: a sentence each.

use super::config::RunConfig;
use super::mounts::Mount;
use super::spec::{KEPT_CAPABILITIES, same_capability};
use crate::secrets::sockets;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// Capabilities that may be added: they end at the container's own files, processes and memory.
const ADDABLE: [&str; 5] = ["IPC_LOCK", "SETFCAP", "SETPCAP", "SYS_NICE", "SYS_RESOURCE"];

/// Directories of the host that hold its sockets, devices, other processes, or the engine's own files. Neither they nor
/// what has them inside is mounted. Of those that are marked, nothing beneath is either.
const HOSTS_OWN: [(&str, bool); 8] = [
    ("/run", true),
    ("/proc", true),
    ("/sys", true),
    ("/dev", true),
    ("/var/lib/docker", true),
    ("/var/lib/containerd", true),
    ("/var/lib/containers", true),
    ("/var/lib/kubelet", true),
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
///
/// `mounts` are all that would be mounted, each with the option that asks for it.
pub(crate) fn openings(config: &RunConfig, mounts: &[(Mount, String)]) -> Vec<String> {
    let weak = &config.weakening;
    let mut found = Vec::new();
    let mut refuse = |option: String, why: &str| found.push(format!("{option}: {why}"));
    if weak.privileged {
        refuse(
            "--privileged".to_owned(),
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
        ("--uts", &weak.uts, "a host name"),
        ("--userns", &weak.userns, "users"),
        ("--cgroupns", &weak.cgroupns, "control groups"),
    ] {
        match value.as_deref() {
            None | Some("private" | "") => {}
            Some(value) => refuse(
                format!("{option} {value}"),
                &format!("the container has to have {what} of its own"),
            ),
        }
    }
    for (mount, option) in mounts {
        if let Some(source) = mount.path() {
            refuse_source(option, source, &mut refuse);
        }
    }
    found
}

fn refuse_source(option: &str, source: &Path, refuse: &mut impl FnMut(String, &str)) {
    let mut refuse = |why: &str| refuse(option.to_owned(), why);
    let named = source
        .file_name()
        .is_some_and(|name| ENGINE_SOCKETS.iter().any(|socket| name == *socket));
    if named {
        return refuse("who has the engine's socket has the host");
    }
    let is_file = source.is_file();
    for (own, beneath) in HOSTS_OWN {
        // What is in there besides sockets is what services have left in files.
        let beneath = beneath && !(is_file && own == "/run");
        // That directory may itself be a link, as /var/run is.
        let names = [Some(PathBuf::from(own)), Path::new(own).canonicalize().ok()];
        let shown = names
            .into_iter()
            .flatten()
            .any(|own| own.starts_with(source) || (beneath && source.starts_with(&own)));
        if shown {
            return refuse(
                "it shows the host's sockets, devices or processes, or the engine's own files; mount what is needed of it by itself",
            );
        }
    }
    match std::fs::metadata(source) {
        Ok(found) if found.file_type().is_socket() => {
            refuse("a unix socket of the host is a way round the gateway");
        }
        Ok(found) if found.file_type().is_block_device() || found.file_type().is_char_device() => {
            refuse("a device of the host is a way round the gateway");
        }
        _ => {
            if let Some(socket) = socket_in(source) {
                refuse(&format!(
                    "it has a unix socket in it, {}, which is a way round the gateway; mount what is needed by itself",
                    socket.display()
                ));
            }
        }
    }
}

/// A unix socket below `directory`. A program of a container can connect to one through any mount, read-only ones included.
///
/// The kernel's table has those that are bound here and now, at whatever depth; of those that another network namespace has
/// bound there is only the file, which is looked for near the top.
fn socket_in(directory: &Path) -> Option<PathBuf> {
    let bound = sockets(directory)
        .unwrap_or_default()
        .into_iter()
        .map(|socket| socket.canonicalize().unwrap_or(socket))
        .find(|socket| socket.starts_with(directory));
    bound.or_else(|| socket_file(directory, LEVELS, &mut { MOST_ENTRIES }))
}

const LEVELS: u32 = 3;
const MOST_ENTRIES: u32 = 4096;

fn socket_file(directory: &Path, levels: u32, left: &mut u32) -> Option<PathBuf> {
    let mut below = Vec::new();
    // What cannot be read here has nothing to show, or is read as another user.
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        *left = left.checked_sub(1)?;
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => return Some(entry.path()),
            Ok(kind) if kind.is_dir() && levels > 1 => below.push(entry.path()),
            _ => {}
        }
    }
    below
        .iter()
        .find_map(|directory| socket_file(directory, levels - 1, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut RunConfig)) -> Vec<String> {
        let mut config = RunConfig::new("x");
        change(&mut config);
        openings(&config, &[])
    }

    fn mounted(volume: &str) -> Vec<String> {
        let mount = Mount::of_volume(volume).unwrap();
        openings(&RunConfig::new("x"), &[(mount, format!("-v {volume}"))])
    }

    #[test]
    fn an_ordinary_container_has_none() {
        let none: Vec<String> = Vec::new();
        assert_eq!(asked(|_| {}), none);
        assert_eq!(
            asked(|config| {
                config.cap_add = vec!["CAP_CHOWN".into(), "sys_nice".into()];
                config.weakening.ipc = Some("private".into());
            }),
            none
        );
        for volume in ["data:/data", "/usr/share:/s:ro", "/anonymous", "/etc:/e"] {
            assert_eq!(mounted(volume), none, "{volume}");
        }
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
            "/proc/sys:/p",
            "/dev/sda:/d",
            "/sys/fs/cgroup:/c",
            "/var/lib/docker/volumes:/v",
            "/var:/v",
        ] {
            let said = mounted(volume);
            assert!(
                said.len() == 1 && said[0].starts_with(&format!("-v {volume}: ")),
                "{volume}: {said:?}"
            );
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
