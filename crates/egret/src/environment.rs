//! The environment that a sandboxed program gets.
//!
//! It is the caller's, without what opens something outside: addresses of agents and buses, which are not there anyway,
//! secrets, and the names of files that are hidden for having some. `-e NAME` passes one of those on all the same. The keys of language model
//! services stay: they are what an agent is run with.

use crate::failure::Failure;
use crate::secrets::leads_to_secrets;
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
        for name in NO_PROXY_VARIABLES {
            inside.insert(name.into(), NO_PROXY.into());
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

/// Variables that name the destinations to be reached without a proxy, and what they are set to: the sandbox itself.
pub(crate) const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];
pub(crate) const NO_PROXY: &str = "localhost,127.0.0.1,::1";

/// Variables that name a proxy.
pub(crate) const PROXY_VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Caches that programs cannot do without, each with the variable that says where it is, where it usually is in a home
/// directory, and where it is instead if the program may not write there.
const CACHES: [(&str, &str, &str); 2] = [
    ("npm_config_cache", ".npm", "/tmp/.npm"),
    ("GOCACHE", ".cache/go-build", "/tmp/.cache/go-build"),
];

/// Moves caches to the private `/tmp` that could not be written to otherwise. What was set stays.
pub(crate) fn move_caches(
    inside: &mut Vec<(OsString, OsString)>,
    home: &Path,
    may_write: impl Fn(&Path) -> bool,
) {
    for (variable, usual, instead) in CACHES {
        if !may_write(&home.join(usual)) && inside.iter().all(|(name, _)| name != variable) {
            inside.push((variable.into(), instead.into()));
        }
    }
}

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
    (ends_like_a_secret(name) && !OF_MODEL_SERVICES.contains(&name))
        || HELD_BACK_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || HELD_BACK.contains(&name)
        || leads_to_secrets(name)
        || PROXY_VARIABLES.contains(&name)
        || NO_PROXY_VARIABLES.contains(&name)
        || matches!(name, "FTP_PROXY" | "ftp_proxy")
}

fn ends_like_a_secret(name: &str) -> bool {
    let shaped = name.to_ascii_uppercase();
    SECRET_SUFFIXES
        .iter()
        .any(|suffix| shaped.ends_with(suffix))
}

/// Whether the value of a variable is one that is not to be kept or shown: also that of a model service's key, and of one
/// that has no name but what it is, as `TOKEN` and `PGPASSWORD`.
pub(crate) fn looks_secret(name: &str) -> bool {
    let endings = [
        "_KEY",
        "APIKEY",
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "MYSQL_PWD",
    ];
    let name = format!("_{}", name.to_ascii_uppercase());
    ends_like_a_secret(&name) || endings.iter().any(|ending| name.ends_with(ending))
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

/// How the names of variables end that hold secrets, in capitals.
const SECRET_SUFFIXES: [&str; 15] = [
    "_TOKEN",
    "_AUTHTOKEN",
    "_SECRET",
    "_SECRET_KEY",
    "_CLIENT_KEY",
    "_ACCESS_KEY",
    "_ACCESS_KEY_ID",
    "_PRIVATE_KEY",
    "_PASSWORD",
    "_PASSWD",
    "_PASS",
    "_PAT",
    "_CREDENTIALS",
    "_SESSION",
    "DATABASE_URL",
];

/// What an agent is run with, though it looks like the others. (`*_API_KEY` is not among the suffixes for the same reason.)
const OF_MODEL_SERVICES: [&str; 3] = [
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "HF_TOKEN",
];

const HELD_BACK: [&str; 37] = [
    // Agents, buses and displays.
    "SSH_AUTH_SOCK",
    "SSH_ASKPASS",
    "GIT_ASKPASS",
    "SUDO_ASKPASS",
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
    // Container engines.
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CERT_PATH",
    "DOCKER_AUTH_CONFIG",
    "CONTAINER_HOST",
    "CONTAINERD_ADDRESS",
    "BUILDKIT_HOST",
    // Secrets whose names do not end like the others'.
    "AWS_SECURITY_TOKEN",
    "CLOUDFLARE_API_KEY",
    "GOOGLE_CREDENTIALS",
    "MYSQL_PWD",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "PGPASSWORD",
    "REDISCLI_AUTH",
    "RESTIC_REPOSITORY",
    "TF_TOKEN_app_terraform_io",
    "npm_config__auth",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_told_by_its_name() {
        for name in [
            "GITHUB_TOKEN",
            "token",
            "PASSWORD",
            "PGPASSWORD",
            "MYSQL_PWD",
            "OPENAI_API_KEY",
            "APIKEY",
            "CLIENT_SECRET",
            "AWS_SESSION",
        ] {
            assert!(looks_secret(name), "{name}");
        }
        for name in ["PWD", "MONKEY", "TOKENS_PER_MINUTE", "HOME", "PATH"] {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn what_leads_outside_is_held_back_unless_it_is_asked_for() {
        #[rustfmt::skip]
        let table: [(&str, &[&str], Option<&str>); 22] = [
            // variable              -e                       inside
            ("HOME",                 &[],                     Some("outside")),
            ("ANTHROPIC_API_KEY",    &[],                     Some("outside")),
            ("SSH_AUTH_SOCK",        &[],                     None),
            ("DBUS_SESSION_BUS_ADDRESS", &[],                 None),
            ("DOCKER_HOST",          &[],                     None),
            ("GITHUB_TOKEN",         &[],                     None),
            ("DB_PASSWORD",          &[],                     None),
            ("npm_config__authToken", &[],                    None),
            ("STRIPE_SECRET_KEY",    &[],                     None),
            ("AWS_ACCESS_KEY_ID",    &[],                     None),
            ("OTEL_EXPORTER_OTLP_HEADERS", &[],               None),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", &[],        None),
            ("KUBECONFIG",           &[],                     None), // names a file that is hidden
            ("OPENAI_API_KEY",       &[],                     Some("outside")),
            ("CLAUDE_CODE_OAUTH_TOKEN", &[],                  Some("outside")),
            ("PATH",                 &[],                     Some("outside")),
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
    fn caches_that_cannot_be_written_are_moved_unless_somebody_said_where_they_are() {
        let mut inside = vec![("GOCACHE".into(), "/project/cache".into())];
        move_caches(&mut inside, Path::new("/home/u"), |_| false);
        assert_eq!(
            inside[1..],
            [("npm_config_cache".into(), "/tmp/.npm".into())]
        );
        let mut inside = Vec::new();
        move_caches(&mut inside, Path::new("/home/u"), |path| {
            path == Path::new("/home/u/.npm")
        });
        assert_eq!(inside, [("GOCACHE".into(), "/tmp/.cache/go-build".into())]);
    }

    #[test]
    fn the_guide_lists_what_is_held_back() {
        let guide = include_str!("../../../docs/files-and-environment.md");
        let all = HELD_BACK
            .iter()
            .chain(&HELD_BACK_PREFIXES)
            .chain(&SECRET_SUFFIXES)
            .chain(&OF_MODEL_SERVICES);
        for name in all {
            assert!(
                guide.contains(&format!("`{name}`")),
                "{name} is not in docs/files-and-environment.md"
            );
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
