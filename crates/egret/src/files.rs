//! What of the machine's files a sandboxed program sees: the defaults, and what flags and policies change about them.
//!
//! Later marks win over earlier ones on the same path, and marks on longer paths over marks on shorter ones. All paths
//! leave here absolute and with symbolic links followed, as the sandbox wants them.

use crate::failure::Failure;
use egret_policy::Filesystem;
use egret_sandbox::{Files, Mark};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// Where a program starts, and what `run` and the policy were told about files.
#[derive(Debug)]
pub(crate) struct Wishes<'a> {
    /// The working directory, resolved.
    pub(crate) directory: &'a Path,
    /// The user's home directory, if there is one.
    pub(crate) home: Option<&'a Path>,
    /// The policy's section.
    pub(crate) policy: &'a Filesystem,
    /// `--read`, `--write`, `--hide`.
    pub(crate) read: &'a [PathBuf],
    pub(crate) write: &'a [PathBuf],
    pub(crate) hide: &'a [PathBuf],
    /// The policy's file, which the program must not change.
    pub(crate) policy_file: Option<&'a Path>,
    /// The audit log, which the program must not even see.
    pub(crate) log_file: &'a Path,
}

/// The files of a sandbox.
pub(crate) fn files(wishes: &Wishes<'_>) -> Result<Files, Failure> {
    let mut marks = Vec::new();
    for home in homes(wishes.home) {
        let secrets = SECRETS_AT_HOME.iter().map(|secret| home.join(secret));
        marks.extend(secrets.flat_map(hidden));
    }
    marks.extend(SYSTEM_SECRETS.iter().map(PathBuf::from).flat_map(hidden));
    marks.extend(host_keys().into_iter().flat_map(hidden));
    marks.extend(sockets().into_iter().flat_map(hidden));
    if may_be_written_by_default(wishes.directory) {
        marks.push((wishes.directory.to_owned(), Mark::Write));
    }

    let section = |paths: &[String], flags: &[PathBuf]| -> Vec<PathBuf> {
        paths
            .iter()
            .map(PathBuf::from)
            .chain(flags.iter().cloned())
            .collect()
    };
    for (paths, mark, option) in [
        (
            section(&wishes.policy.read, wishes.read),
            Mark::Read,
            "--read",
        ),
        (
            section(&wishes.policy.write, wishes.write),
            Mark::Write,
            "--write",
        ),
        (
            section(&wishes.policy.hide, wishes.hide),
            Mark::Hide,
            "--hide",
        ),
    ] {
        for path in paths {
            let path = wishes.directory.join(at_home(&path, wishes.home)?);
            marks.extend(wished(&path, mark, option)?);
        }
    }
    marks.push((wishes.log_file.to_owned(), Mark::Hide));
    check_directory(wishes.directory, &marks)?;
    let protected = wishes
        .policy_file
        .into_iter()
        .chain([wishes.log_file])
        .map(Path::to_owned)
        .collect();
    Ok(Files { marks, protected })
}

/// Hides a path that need not exist, and what it leads to if it is a link.
fn hidden(path: PathBuf) -> Vec<(PathBuf, Mark)> {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else {
        return Vec::new();
    };
    // Without a parent there is nothing to hide, nor anything that could appear there.
    let Ok(parent) = parent.canonicalize() else {
        return Vec::new();
    };
    let literal = parent.join(name);
    let target = literal
        .canonicalize()
        .ok()
        .filter(|target| *target != literal);
    [Some(literal), target]
        .into_iter()
        .flatten()
        .map(|path| (path, Mark::Hide))
        .collect()
}

/// A mark that someone asked for. What is to be shown must exist; what is to be hidden may appear later.
fn wished(path: &Path, mark: Mark, option: &str) -> Result<Vec<(PathBuf, Mark)>, Failure> {
    let shown = path.display();
    let resolved = match (path.canonicalize(), mark) {
        (Ok(resolved), _) => resolved,
        (Err(_), Mark::Hide) => path.to_owned(),
        (Err(error), _) => return Err(Failure::because(format_args!("{option} {shown}"), &error)),
    };
    if resolved == Path::new("/") {
        return Err(Failure::new(format!(
            "{option} {shown} means every file there is; name a directory instead"
        )));
    }
    if ["/proc", "/sys", "/dev"]
        .iter()
        .any(|own| resolved.starts_with(own))
    {
        return Err(Failure::new(format!(
            "{option} {shown}: a sandbox has its own /proc, /sys and /dev"
        )));
    }
    Ok(if mark == Mark::Hide {
        hidden(path.to_owned())
    } else {
        vec![(resolved, mark)]
    })
}

/// `~` and `~/…` are the home directory's.
fn at_home(path: &Path, home: Option<&Path>) -> Result<PathBuf, Failure> {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Ok(home.join(rest)),
        (Ok(_), None) => Err(Failure::new(format!(
            "{} needs a home directory, and HOME is not set",
            path.display()
        ))),
        (Err(_), _) => Ok(path.to_owned()),
    }
}

/// Standing in a directory does not mean wanting all of the system opened for writing.
fn may_be_written_by_default(directory: &Path) -> bool {
    const SYSTEM: [&str; 16] = [
        "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/run",
        "/sbin", "/sys", "/tmp", "/usr", "/var",
    ];
    !SYSTEM.iter().any(|system| directory == Path::new(system))
        && !["/dev", "/proc", "/sys", "/boot"]
            .iter()
            .any(|own| directory.starts_with(own))
        && directory != Path::new("/var/tmp")
}

/// The working directory must be there inside.
fn check_directory(directory: &Path, marks: &[(PathBuf, Mark)]) -> Result<(), Failure> {
    let deepest = marks
        .iter()
        .enumerate()
        .filter(|(_, (path, _))| directory.starts_with(path))
        .max_by_key(|(order, (path, _))| (path.components().count(), *order));
    match deepest {
        Some((_, (path, Mark::Hide))) => Err(Failure::new(format!(
            "the working directory {} is hidden in the sandbox because of {}; start elsewhere or add --read {}",
            directory.display(),
            path.display(),
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// The home directories whose secrets could be read from here: the user's own, and everybody's for root.
fn homes(own: Option<&Path>) -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = own.map(Path::to_owned).into_iter().collect();
    if rustix::process::geteuid().is_root() {
        homes.push("/root".into());
        if let Ok(entries) = std::fs::read_dir("/home") {
            homes.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    let mut homes: Vec<PathBuf> = homes
        .into_iter()
        .filter_map(|home| home.canonicalize().ok())
        .collect();
    homes.sort();
    homes.dedup();
    // A home directory of `/`, as some service accounts have it, would have nothing of a home.
    homes.retain(|home| home != Path::new("/"));
    homes
}

fn host_keys() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/etc/ssh") else {
        return Vec::new();
    };
    let key = |name: &str| name.starts_with("ssh_host_") && name.ends_with("_key");
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(key))
        .map(|entry| entry.path())
        .collect()
}

/// The unix sockets of this machine that have a path. Behind each is a process that is not in the sandbox, and being
/// mounted read-only does not keep anyone from connecting.
fn sockets() -> Vec<PathBuf> {
    // Num RefCount Protocol Flags Type St Inode Path; abstract names begin with `@` and end at the namespace's border.
    let Ok(table) = std::fs::read_to_string("/proc/net/unix") else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
        .filter(|path| !PRIVATE.iter().any(|own| path.starts_with(own)))
        .filter(|path| {
            path.symlink_metadata()
                .is_ok_and(|found| found.file_type().is_socket())
        })
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Directories that are the sandbox's own, so that nothing of the machine is in them.
const PRIVATE: [&str; 6] = ["/run", "/tmp", "/var/tmp", "/proc", "/sys", "/dev"];

/// Keys, tokens, histories, browsers: what a thief would look for, relative to a home directory.
const SECRETS_AT_HOME: &[&str] = &[
    // Keys and agents.
    ".ssh",
    ".gnupg",
    ".pki",
    ".password-store",
    ".local/share/keyrings",
    ".local/share/kwalletd",
    ".local/share/password-store",
    ".config/age",
    ".config/sops",
    ".config/op",
    ".config/1Password",
    ".config/Bitwarden",
    ".config/keepassxc",
    ".vault-token",
    ".Xauthority",
    ".ICEauthority",
    // Clouds and clusters.
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/doctl",
    ".config/hcloud",
    ".config/linode-cli",
    ".config/rclone",
    ".config/heroku",
    ".config/fly",
    ".fly",
    ".oci",
    ".aliyun",
    ".bluemix",
    ".boto",
    ".s3cfg",
    ".databrickscfg",
    ".snowflake",
    ".kube",
    ".minikube",
    ".helm",
    ".config/helm",
    ".terraformrc",
    ".terraform.d",
    ".pulumi",
    // Container engines: their credentials, and their sockets.
    ".docker",
    ".colima",
    ".lima",
    ".rd",
    ".config/containers",
    ".local/share/containers",
    ".local/share/docker",
    // Forges and package registries.
    ".git-credentials",
    ".config/git/credentials",
    ".config/gh",
    ".config/hub",
    ".config/glab-cli",
    ".netrc",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pypirc",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".gem/credentials",
    ".local/share/gem/credentials",
    ".composer/auth.json",
    ".config/composer/auth.json",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".gradle/gradle.properties",
    ".nuget/NuGet/NuGet.Config",
    ".config/NuGet",
    // Databases and other servers.
    ".pgpass",
    ".my.cnf",
    ".mylogin.cnf",
    ".config/filezilla",
    ".lftprc",
    ".config/rustdesk",
    // Browsers, mail and chat.
    ".mozilla",
    ".thunderbird",
    ".config/google-chrome",
    ".config/google-chrome-beta",
    ".config/chromium",
    ".config/BraveSoftware",
    ".config/microsoft-edge",
    ".config/vivaldi",
    ".config/opera",
    ".config/Signal",
    ".config/Slack",
    ".config/discord",
    ".local/share/TelegramDesktop",
    ".var/app",
    "snap",
    // Wallets.
    ".bitcoin",
    ".ethereum",
    ".electrum",
    ".config/solana",
    // What was typed.
    ".bash_history",
    ".zsh_history",
    ".local/share/fish/fish_history",
    ".python_history",
    ".node_repl_history",
    ".psql_history",
    ".mysql_history",
    ".rediscli_history",
    ".sqlite_history",
    ".lesshst",
    ".viminfo",
    // Egret's own.
    ".local/state/egret",
];

/// What only root could read, which is what egret runs as sometimes.
const SYSTEM_SECRETS: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/krb5.keytab",
    "/etc/kubernetes",
    "/etc/wireguard",
    "/etc/ssl/private",
    "/etc/pki/tls/private",
    "/etc/letsencrypt",
    "/etc/NetworkManager/system-connections",
    "/etc/ppp/chap-secrets",
    "/etc/ppp/pap-secrets",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/spool/cron",
    "/var/backups",
    "/var/db/sudo",
];
