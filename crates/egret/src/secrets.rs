//! Where secrets are, and other things that lead out of a sandbox: what is hidden unless somebody asks for it.

use crate::failure::Failure;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// The home directories whose secrets could be read from here: the user's own, by the environment and by the user
/// database, and for root everybody's. The own ones come first.
#[derive(Debug)]
pub(crate) struct Homes {
    own: Vec<PathBuf>,
    others: Vec<PathBuf>,
}

impl Homes {
    /// `home` is what the environment says.
    pub(crate) fn find(home: Option<&Path>) -> Self {
        let user = rustix::process::geteuid();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let mut own: Vec<PathBuf> = home.map(Path::to_owned).into_iter().collect();
        let mut others = Vec::new();
        // name:password:uid:gid:comment:home:shell, passwd(5)
        for line in passwd.lines() {
            let mut fields = line.split(':').skip(2);
            let (uid, home) = (
                fields.next().and_then(|uid| uid.parse::<u32>().ok()),
                fields.nth(2).map(PathBuf::from),
            );
            match (uid, home) {
                (Some(uid), Some(home)) if uid == user.as_raw() => own.push(home),
                (_, Some(home)) if user.is_root() => others.push(home),
                _ => {}
            }
        }
        if user.is_root() {
            others.extend(entries(Path::new("/home")));
        }
        let own = real(own);
        let mut others = real(others);
        others.retain(|home| !own.contains(home));
        Self { own, others }
    }

    /// Whether `directory` is a home directory, or has one beneath it.
    pub(crate) fn are_in(&self, directory: &Path) -> bool {
        self.own
            .iter()
            .chain(&self.others)
            .any(|home| home.starts_with(directory))
    }

    /// The places of secrets in them. In the user's own also those that are not there yet.
    fn secrets(&self) -> Vec<PathBuf> {
        let own = self
            .own
            .iter()
            .flat_map(|home| SECRETS_AT_HOME.iter().map(|secret| home.join(secret)));
        let others = self.others.iter().flat_map(|home| {
            let there: BTreeSet<OsString> = entries(home)
                .into_iter()
                .filter_map(|entry| Some(entry.file_name()?.to_owned()))
                .collect();
            SECRETS_AT_HOME
                .iter()
                .filter(move |secret| {
                    Path::new(secret)
                        .iter()
                        .next()
                        .is_some_and(|first| there.contains(first))
                })
                .map(|secret| home.join(secret))
        });
        own.chain(others).collect()
    }
}

/// Directories that exist, by their real names, but for those of service accounts that have no home.
fn real(homes: Vec<PathBuf>) -> Vec<PathBuf> {
    const NO_HOME: [&str; 8] = [
        "/bin", "/dev", "/proc", "/run", "/sbin", "/sys", "/usr", "/tmp",
    ];
    let mut homes: Vec<PathBuf> = homes
        .into_iter()
        .filter_map(|home| home.canonicalize().ok())
        .collect();
    homes.retain(|home| {
        home.parent().is_some()
            && !NO_HOME
                .iter()
                .any(|none| home == Path::new(none) || home.starts_with("/usr"))
    });
    homes.sort();
    homes.dedup();
    homes
}

/// Every path that is hidden by default, and whether anything is there. `state` is where Egret keeps its logs.
pub(crate) fn places(homes: &Homes, state: Option<PathBuf>) -> Vec<(PathBuf, bool)> {
    let mut places = homes.secrets();
    places.extend(SYSTEM_SECRETS.iter().map(PathBuf::from));
    places.extend(host_keys());
    places.extend(moved());
    let named = HOLDERS
        .iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from);
    places.extend(named.filter(|path| path.is_absolute() && path.parent().is_some()));
    places.extend(state);
    let mut places: Vec<(PathBuf, bool)> = places
        .into_iter()
        .map(|place| {
            let there = place.symlink_metadata().is_ok();
            (place, there)
        })
        .collect();
    let there = || {
        let there = places.iter().filter(|(_, there)| *there);
        there.map(|(place, _)| place)
    };
    // Some people keep the real files elsewhere, and links to them where they are looked for.
    let linked = there().flat_map(|place| links_in(place));
    let targets = linked.filter_map(|link| link.canonicalize().ok());
    let targets = targets.filter(|target| {
        !["/usr", "/etc"]
            .iter()
            .any(|system| target.starts_with(system))
    });
    let targets: Vec<PathBuf> = targets.collect();
    let elsewhere = mounted_elsewhere(there().chain(&targets));
    places.extend(
        elsewhere
            .into_iter()
            .chain(targets)
            .map(|place| (place, true)),
    );
    places
}

/// The secrets among configuration and data, where the environment says that these are elsewhere than in the home directory.
fn moved() -> Vec<PathBuf> {
    let directories = [
        ("XDG_CONFIG_HOME", ".config/"),
        ("XDG_DATA_HOME", ".local/share/"),
        ("CARGO_HOME", ".cargo/"),
    ];
    let moved = directories
        .into_iter()
        .filter_map(|(name, usual)| Some((PathBuf::from(std::env::var_os(name)?), usual)));
    moved
        .filter(|(directory, _)| directory.is_absolute())
        .flat_map(|(directory, usual)| {
            SECRETS_AT_HOME
                .iter()
                .filter_map(move |secret| Some(directory.join(secret.strip_prefix(usual)?)))
        })
        .collect()
}

/// Whether a variable names a file or directory of secrets.
pub(crate) fn leads_to_secrets(variable: &str) -> bool {
    HOLDERS.contains(&variable)
}

/// Variables that say where a program keeps its secrets, or its history.
const HOLDERS: [&str; 22] = [
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CONFIG_DIR",
    "CLOUDSDK_CONFIG",
    "DOCKER_CONFIG",
    "GH_CONFIG_DIR",
    "GNUPGHOME",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HELM_CONFIG_HOME",
    "HISTFILE",
    "KUBECONFIG",
    "NETRC",
    "NPM_CONFIG_USERCONFIG",
    "npm_config_userconfig",
    "PASSWORD_STORE_DIR",
    "PGPASSFILE",
    "PGSERVICEFILE",
    "REGISTRY_AUTH_FILE",
    "SOPS_AGE_KEY_FILE",
    "VAULT_TOKEN_PATH",
];

/// The same files by other mounts of their file systems: bind mounts, subvolumes, the real root of an image-based system.
fn mounted_elsewhere<'a>(places: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts: Vec<Mounted> = table
        .split(|&byte| byte == b'\n')
        .filter_map(Mounted::parse)
        .collect();
    places
        .filter_map(|place| place.canonicalize().ok())
        .flat_map(|place| others(&mounts, &place))
        .collect()
}

/// A line of `/proc/self/mountinfo`, see proc_pid_mountinfo(5).
#[derive(Debug)]
struct Mounted {
    device: Vec<u8>,
    /// The directory of the file system that is mounted.
    root: PathBuf,
    at: PathBuf,
}

impl Mounted {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ').skip(2);
        let device = fields.next()?.to_vec();
        Some(Self {
            device,
            root: unescaped(fields.next()?),
            at: unescaped(fields.next()?),
        })
    }
}

/// Blanks, line ends and backslashes stand as three octal digits behind a backslash.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = behind
            .first_chunk::<3>()
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match escaped {
            Some(real) => {
                bytes.push(real);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Where else `place` is, by these mounts.
fn others(mounts: &[Mounted], place: &Path) -> Vec<PathBuf> {
    // Of several mounts at one place the last lies on top.
    let own = mounts
        .iter()
        .filter(|mount| place.starts_with(&mount.at))
        .max_by_key(|mount| mount.at.components().count());
    let Some(within) = own.and_then(|own| Some(own.root.join(place.strip_prefix(&own.at).ok()?)))
    else {
        return Vec::new();
    };
    mounts
        .iter()
        .filter(|mount| own.is_some_and(|own| own.device == mount.device))
        .filter_map(|mount| match within.strip_prefix(&mount.root) {
            Ok(rest) => Some(mount.at.join(rest)),
            // Something within the place is mounted by itself.
            Err(_) => mount.root.starts_with(&within).then(|| mount.at.clone()),
        })
        .map(|other| other.components().collect()) // without the slash that joining nothing leaves
        .filter(|other: &PathBuf| other != place)
        .collect()
}

fn host_keys() -> Vec<PathBuf> {
    let key = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("ssh_host_") && name.ends_with("_key"))
    };
    entries(Path::new("/etc/ssh"))
        .into_iter()
        .filter(key)
        .collect()
}

/// What is in a directory; nothing if it cannot be listed, since then it cannot be listed inside either.
fn entries(directory: &Path) -> Vec<PathBuf> {
    listed(directory).map(|entry| entry.path()).collect()
}

/// The symbolic links in a directory.
fn links_in(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let is_link = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
    listed(directory).filter(is_link).map(|entry| entry.path())
}

fn listed(directory: &Path) -> impl Iterator<Item = DirEntry> {
    std::fs::read_dir(directory).into_iter().flatten().flatten()
}

/// The unix sockets of this machine that have a path. Behind each is a process that is not in the sandbox, and being
/// mounted read-only does not keep anyone from connecting. Not all can be found: the table has those of this network
/// namespace, by the name they were bound to. A relative one is looked for where processes are now, and above `directory`.
///
/// # Errors
/// If the table cannot be read, nothing is known, and nothing should be started.
pub(crate) fn sockets(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let table = std::fs::read(UNIX_SOCKETS).map_err(|error| {
        Failure::because(
            format_args!("cannot find unix sockets in {UNIX_SOCKETS}"),
            &error,
        )
    })?;
    // Each connection that was accepted has its listener's name, and most others have none of their own.
    let names: BTreeSet<&[u8]> = bound_names(&table).collect();
    let (absolute, relative): (Vec<_>, Vec<_>) = names
        .into_iter()
        .filter(|name| !name.starts_with(b"@"))
        .partition(|name| name.starts_with(b"/"));
    let mut paths: Vec<PathBuf> = absolute.into_iter().map(path_of).collect();
    if !relative.is_empty() {
        let from = working_directories(directory);
        let joined = |name: &&[u8]| {
            let name = path_of(name);
            from.iter().map(|from| from.join(&name)).collect::<Vec<_>>()
        };
        paths.extend(relative.iter().flat_map(joined));
    }
    paths.retain(|path| {
        path.symlink_metadata()
            .is_ok_and(|found| found.file_type().is_socket())
    });
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// What a relative name may be meant from: where processes are, as far as that can be seen, and `directory` with all above it.
/// Too many do no harm: what is no socket there is left alone.
fn working_directories(directory: &Path) -> BTreeSet<PathBuf> {
    let current =
        listed(Path::new("/proc")).filter_map(|entry| entry.path().join("cwd").read_link().ok());
    let above = directory.ancestors().map(Path::to_owned);
    current
        .filter(|path| path.is_absolute())
        .chain(above)
        .collect()
}

/// See proc_net(5).
pub(crate) const UNIX_SOCKETS: &str = "/proc/net/unix";

/// The names in a table of unix sockets: paths, or abstract names, which begin with `@`.
pub(crate) fn bound_names(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Num RefCount Protocol Flags Type St Inode Path: only the last may have blanks, or anything else, in it.
    table
        .split(|&byte| byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let mut rest = line;
            for _ in 0..7 {
                rest = rest.trim_ascii_start();
                let end = rest.iter().position(|&byte| byte == b' ')?;
                rest = rest.get(end..)?;
            }
            rest.get(1..).filter(|name| !name.is_empty())
        })
}

fn path_of(name: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(name.to_vec()))
}

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
    ".librewolf",
    ".zen",
    ".config/evolution",
    ".local/share/evolution",
    ".config/remmina",
    ".local/share/remmina",
    ".mbsyncrc",
    ".msmtprc",
    ".config/msmtp",
    ".muttrc",
    ".authinfo",
    ".authinfo.gpg",
    // Other programs' tokens.
    ".dockercfg",
    ".cloudflared",
    ".config/configstore",
    ".config/github-copilot",
    ".config/ngrok",
    ".config/stripe",
    ".config/syncthing",
    ".kaggle",
    ".cache/huggingface/token",
    ".local/share/atuin",
    ".local/share/keybase",
    ".putty",
    ".subversion/auth",
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
    ".config/egret",
    ".config/egret/policies",
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
    "/var/lib/cloud",
    "/var/lib/samba/private",
    "/var/lib/sss",
    "/var/lib/systemd/coredump",
    "/var/lib/systemd/credential.secret",
    "/var/crash",
    "/etc/credstore",
    "/etc/credstore.encrypted",
    "/etc/ipsec.secrets",
    "/etc/openvpn",
    "/etc/sssd",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_lists_what_is_hidden() {
        let guide = include_str!("../../../docs/files-and-environment.md");
        for place in SECRETS_AT_HOME.iter().chain(SYSTEM_SECRETS).chain(&HOLDERS) {
            assert!(
                guide.contains(&format!("`{place}`")),
                "{place} is not in docs/files-and-environment.md"
            );
        }
    }

    #[test]
    fn sockets_are_told_by_whatever_name_they_have() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 11911 /run/a b.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03  1191\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 11912 @abstract\xff\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 11913 /\xff\n";
        let found: Vec<&[u8]> = bound_names(table).collect();
        assert_eq!(found, [&b"/run/a b.sock"[..], b"@abstract\xff", b"/\xff"]);
    }

    #[test]
    fn a_file_is_found_at_every_mount_of_its_file_system() {
        let table = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            22 21 8:2 /@home /home rw - btrfs /dev/sda2 rw\n\
            23 21 8:2 / /mnt/top\\040level rw - btrfs /dev/sda2 rw\n\
            24 21 8:2 /@home/u/src /srv/src rw - btrfs /dev/sda2 rw\n\
            26 21 8:2 /@home/u/.aws/credentials /srv/cred rw - btrfs /dev/sda2 rw\n\
            25 21 8:1 /var /elsewhere rw - ext4 /dev/sda1 rw\n\
            malformed";
        let mounts: Vec<Mounted> = table
            .split(|&byte| byte == b'\n')
            .filter_map(Mounted::parse)
            .collect();
        #[rustfmt::skip]
        let table: [(&str, &[&str]); 5] = [
            ("/home/u/.aws",     &["/mnt/top level/@home/u/.aws", "/srv/cred"]),
            ("/home/u/.ssh",     &["/mnt/top level/@home/u/.ssh"]),
            ("/home/u/src/.env", &["/mnt/top level/@home/u/src/.env", "/srv/src/.env"]),
            ("/etc/shadow",      &[]),
            ("/var/backups",     &["/elsewhere/backups"]),
        ];
        for (place, expected) in table {
            let found = others(&mounts, Path::new(place));
            assert_eq!(
                found,
                expected.iter().map(PathBuf::from).collect::<Vec<_>>(),
                "{place}"
            );
        }
    }
}
