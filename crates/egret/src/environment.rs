//! The environment that a sandboxed program gets.
//!
//! It is the caller's, without what opens something outside: addresses of agents and buses, which are not there anyway,
//! and credentials whose files are hidden, too. `-e NAME` passes one of those on all the same. The keys of language model
//! services stay: they are what an agent is run with.

use crate::failure::Failure;
use egret_sandbox::PROXY_PORT;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

type Variables = BTreeMap<OsString, OsString>;

/// What `run` was told about the environment.
#[derive(Debug)]
pub(crate) struct Wishes<'a> {
    /// `-e`, in order.
    pub(crate) set: &'a [String],
    /// `--env-file`, in order; `-e` wins over them.
    pub(crate) files: &'a [PathBuf],
    /// Whether HTTP_PROXY and its kin are set.
    pub(crate) proxy: bool,
}

/// The environment for a program, given this process's own.
pub(crate) fn environment(
    outside: &Variables,
    wishes: &Wishes<'_>,
) -> Result<Vec<(OsString, OsString)>, Failure> {
    let mut inside: Variables = outside
        .iter()
        .filter(|(name, value)| !held_back(name) && !misleading(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if outside.contains_key(OsStr::new("XDG_RUNTIME_DIR")) {
        let own = format!("/run/user/{}", rustix::process::getuid().as_raw());
        inside.insert("XDG_RUNTIME_DIR".into(), own.into());
    }
    if wishes.proxy {
        let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
        for name in PROXY_VARIABLES {
            inside.insert(name.into(), proxy.clone().into());
        }
        for name in ["NO_PROXY", "no_proxy"] {
            inside.insert(name.into(), "localhost,127.0.0.1,::1".into());
        }
    }
    for file in wishes.files {
        for line in read_env_file(file)? {
            apply(&mut inside, outside, &line);
        }
    }
    for wish in wishes.set {
        if wish.is_empty() || wish.starts_with('=') {
            return Err(Failure::new(format!(
                "-e {wish:?} names no variable; write -e NAME or -e NAME=VALUE"
            )));
        }
        apply(&mut inside, outside, wish);
    }
    Ok(inside.into_iter().collect())
}

const PROXY_VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// `NAME=VALUE` sets; `NAME` passes on what there is, or removes.
fn apply(inside: &mut Variables, outside: &Variables, wish: &str) {
    match wish.split_once('=') {
        Some((name, value)) => {
            inside.insert(name.into(), value.into());
        }
        None => match outside.get(OsStr::new(wish)) {
            Some(value) => {
                inside.insert(wish.into(), value.clone());
            }
            None => {
                inside.remove(OsStr::new(wish));
            }
        },
    }
}

/// Lines as `docker --env-file` takes them: `#` begins a comment line, nothing is unquoted.
fn read_env_file(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::because(
            format_args!("cannot read the environment file {}", path.display()),
            &error,
        )
    })?;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Failure::new(format!(
                "{}:{}: {name:?} is no name for a variable; write NAME=VALUE",
                path.display(),
                number + 1
            )));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

/// Whether a variable leads to, or opens, something outside.
fn held_back(name: &OsStr) -> bool {
    let Ok(name) = std::str::from_utf8(name.as_bytes()) else {
        return false;
    };
    HELD_BACK_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || HELD_BACK.contains(&name)
        || PROXY_VARIABLES.contains(&name)
        || matches!(name, "NO_PROXY" | "no_proxy" | "FTP_PROXY" | "ftp_proxy")
}

/// Whether a variable names a directory for temporary files that is not there in the sandbox.
fn misleading(name: &OsStr, value: &OsStr) -> bool {
    ["TMPDIR", "TMP", "TEMP", "TEMPDIR"]
        .iter()
        .any(|variable| name == *variable)
        && ["/tmp", "/var/tmp"]
            .iter()
            .all(|shared| Path::new(value) != Path::new(shared))
}

const HELD_BACK_PREFIXES: [&str; 4] = ["DBUS_", "SSH_AGENT_", "LISTEN_", "SYSTEMD_"];

const HELD_BACK: [&str; 60] = [
    // Agents, buses and displays.
    "SSH_AUTH_SOCK",
    "SSH_ASKPASS",
    "GIT_ASKPASS",
    "VSCODE_GIT_IPC_HANDLE",
    "VSCODE_IPC_HOOK_CLI",
    "GPG_AGENT_INFO",
    "GNOME_KEYRING_CONTROL",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "SESSION_MANAGER",
    "PULSE_SERVER",
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
    "TMUX",
    "KRB5CCNAME",
    // Container engines and clusters.
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CERT_PATH",
    "DOCKER_AUTH_CONFIG",
    "CONTAINER_HOST",
    "CONTAINERD_ADDRESS",
    "BUILDKIT_HOST",
    "REGISTRY_AUTH_FILE",
    "KUBECONFIG",
    // Clouds.
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_PASSWORD",
    "ARM_CLIENT_SECRET",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CREDENTIALS",
    "CLOUDSDK_AUTH_ACCESS_TOKEN",
    "DIGITALOCEAN_ACCESS_TOKEN",
    "HCLOUD_TOKEN",
    "CLOUDFLARE_API_TOKEN",
    "CLOUDFLARE_API_KEY",
    "VAULT_TOKEN",
    "CONSUL_HTTP_TOKEN",
    "NOMAD_TOKEN",
    "TF_TOKEN_app_terraform_io",
    "PULUMI_ACCESS_TOKEN",
    "OP_SESSION",
    "OP_SERVICE_ACCOUNT_TOKEN",
    // Forges and registries.
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "GITLAB_TOKEN",
    "CI_JOB_TOKEN",
    "ACTIONS_RUNTIME_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "NPM_TOKEN",
    "NODE_AUTH_TOKEN",
    "CARGO_REGISTRY_TOKEN",
    "TWINE_PASSWORD",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_outside_is_held_back_unless_it_is_asked_for() {
        #[rustfmt::skip]
        let table: [(&str, &[&str], Option<&str>); 12] = [
            // variable              -e                       inside
            ("HOME",                 &[],                     Some("outside")),
            ("ANTHROPIC_API_KEY",    &[],                     Some("outside")),
            ("SSH_AUTH_SOCK",        &[],                     None),
            ("DBUS_SESSION_BUS_ADDRESS", &[],                 None),
            ("DOCKER_HOST",          &[],                     None),
            ("GITHUB_TOKEN",         &[],                     None),
            ("GITHUB_TOKEN",         &["GITHUB_TOKEN"],       Some("outside")),
            ("GITHUB_TOKEN",         &["GITHUB_TOKEN=other"], Some("other")),
            ("HOME",                 &["HOME="],              Some("")),
            ("NOT_SET",              &["NOT_SET"],            None),
            ("TMPDIR",               &[],                     None), // a directory that is not there
            ("HTTP_PROXY",           &[],                     Some("http://127.0.0.1:61081")),
        ];
        for (name, set, expected) in table {
            let mut outside = Variables::new();
            if name != "NOT_SET" {
                outside.insert(name.into(), "outside".into());
            }
            let set: Vec<String> = set.iter().map(|&wish| wish.to_owned()).collect();
            let inside = environment(
                &outside,
                &Wishes {
                    set: &set,
                    files: &[],
                    proxy: true,
                },
            )
            .unwrap();
            let found = inside
                .iter()
                .find(|(found, _)| found == name)
                .map(|(_, value)| value.to_str().unwrap());
            assert_eq!(found, expected, "{name} with -e {set:?}");
        }
    }

    #[test]
    fn without_proxy_variables_those_of_the_outside_are_gone_too() {
        let outside = Variables::from([("https_proxy".into(), "http://10.0.0.1:3128".into())]);
        let inside = environment(
            &outside,
            &Wishes {
                set: &[],
                files: &[],
                proxy: false,
            },
        )
        .unwrap();
        assert_eq!(inside, []);
    }
}
