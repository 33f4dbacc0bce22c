//! What of the machine's files a sandboxed program sees: the defaults, and what flags and policies change about them.
//!
//! Later marks win over earlier ones on the same path, and marks on longer paths over marks on shorter ones. All paths
//! leave here absolute and with symbolic links followed, as the sandbox wants them.

use crate::failure::Failure;
use crate::project::Project;
use crate::secrets::{Homes, places, sockets};
use crate::settings;
use egret_policy::{Filesystem, Share};
use egret_sandbox::{Files, Mark};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
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
    /// The path by which it was named.
    pub(crate) policy_named: Option<&'a Path>,
    /// The projects' files, which hide some more, and which the program must not change where they are.
    pub(crate) projects: &'a [Project],
    /// The file to which a policy will be written that is learnt, by the path that it was named by.
    pub(crate) learnt: Option<&'a Path>,
    /// The audit log, which the program must not even see.
    pub(crate) log_file: &'a Path,
    /// The socket at which metrics are told, which neither.
    pub(crate) socket: Option<&'a Path>,
}

/// What is in a file, and one octet more than `most` where there is more than that: a device never ends.
pub(crate) fn read_at_most(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(most)
        .map_err(io::Error::other)?
        .saturating_add(1);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The files of a sandbox.
pub(crate) fn files(wishes: &Wishes<'_>) -> Result<Files, Failure> {
    let homes = Homes::find(wishes.home);
    let places = places(&homes, settings::state_directory());
    let mut real = RealDirectories::default();
    let mut marks: Vec<(PathBuf, Mark)> = places
        .into_iter()
        .chain(
            sockets(wishes.directory)?
                .into_iter()
                .map(|socket| (socket, true)),
        )
        .flat_map(|(path, there)| hidden(&path, there, &mut real))
        .collect();
    if may_be_written_by_default(wishes.directory) && !homes.are_in(wishes.directory) {
        marks.push((wishes.directory.to_owned(), Mark::Write));
    }

    let mut hide: Vec<_> = wishes.policy.hide.iter().map(PathBuf::from).collect();
    for project in wishes.projects {
        hide.extend(project.hidden()?);
    }
    for (paths, mark, option) in [
        (same_inside(&wishes.policy.read)?, Mark::Read, None),
        (same_inside(&wishes.policy.write)?, Mark::Write, None),
        (hide, Mark::Hide, None),
        (wishes.read.to_vec(), Mark::Read, Some("--read")),
        (wishes.write.to_vec(), Mark::Write, Some("--write")),
        (wishes.hide.to_vec(), Mark::Hide, Some("--hide")),
    ] {
        for path in paths {
            let path = wishes.directory.join(at_home(&path, wishes.home)?);
            marks.extend(wished(&path, mark, option, &mut real)?);
        }
    }
    let unseen = || wishes.socket.into_iter().chain([wishes.log_file]);
    marks.extend(unseen().map(|path| (path.to_owned(), Mark::Hide)));
    check_directory(wishes.directory, &marks)?;
    if let Some(link) = wishes.policy_named.and_then(|named| exposed(named, &marks)) {
        return Err(Failure::new(format!(
            "the policy is named by way of the link {}, which the program could replace; name the file itself",
            link.display()
        )));
    }
    if let Some(link) = wishes.learnt.and_then(|named| exposed(named, &marks)) {
        return Err(Failure::new(format!(
            "what is learnt would be written by way of the link {}, which a program could have put there; name the file itself",
            link.display()
        )));
    }
    let own_directories = own_directories(wishes.home, &mut marks)?;
    // This program itself, if it happens to lie in the project: it is what will be started the next time.
    let own = std::env::current_exe().ok();
    let protected = wishes
        .policy_file
        .into_iter()
        .chain(own.as_deref())
        .chain(unseen())
        .chain(wishes.projects.iter().map(|project| project.path.as_path()))
        .map(Path::to_owned)
        .chain(own_directories)
        .collect();
    Ok(Files { marks, protected })
}

/// Where the user's settings and policies are, which a program may not change even where it may write all around them: what
/// it put there would hold for the next run.
fn own_directories(
    home: Option<&Path>,
    marks: &mut Vec<(PathBuf, Mark)>,
) -> Result<Vec<PathBuf>, Failure> {
    let usual = home.map(|home| home.join(".config/egret"));
    let mut kept = Vec::new();
    for directory in settings::config_directory().into_iter().chain(usual) {
        if let Some(link) = exposed(&directory, marks) {
            return Err(Failure::new(format!(
                "your settings and policies are found by way of the link {}, which the program could replace; let it write elsewhere",
                link.display()
            )));
        }
        let nearest = directory
            .ancestors()
            .find_map(|path| path.canonicalize().ok());
        if nearest.is_some_and(|nearest| may_write(&nearest, marks)) {
            // What is not there cannot be covered.
            settings::make_private(&directory)?;
        }
        let Ok(real) = directory.canonicalize() else {
            continue;
        };
        let inside =
            |(path, mark): &&(PathBuf, Mark)| *mark == Mark::Write && path.starts_with(&real);
        if let Some((path, _)) = marks.iter().find(inside) {
            return Err(Failure::new(format!(
                "{} cannot be opened for writing: your settings and policies are there, and no program may change these",
                path.display()
            )));
        }
        if may_write(&real, marks) {
            marks.push((real.clone(), Mark::Hide));
        }
        kept.push(real);
    }
    Ok(kept)
}

/// The link on the way to `path` that a program could put something else in the place of.
fn exposed(path: &Path, marks: &[(PathBuf, Mark)]) -> Option<PathBuf> {
    links(path)
        .into_iter()
        .find(|link| is_writable(link, marks))
}

/// The paths of a policy, none of which can be another one inside.
fn same_inside(shares: &[Share]) -> Result<Vec<PathBuf>, Failure> {
    let path = |share: &Share| match &share.inside {
        None => Ok(PathBuf::from(&share.host)),
        Some(_) => Err(Failure::new(format!(
            "the policy's filesystem: {share}: only a container can have a path elsewhere; write {} alone for a command",
            share.host
        ))),
    };
    shares.iter().map(path).collect()
}

/// Hides a path, and what it leads to if it is a link; which it is not if nothing is there.
fn hidden(path: &Path, there: bool, real: &mut RealDirectories) -> Vec<(PathBuf, Mark)> {
    // Without a parent there is nothing to hide, nor anything that could appear there.
    let literal = path
        .parent()
        .zip(path.file_name())
        .and_then(|(parent, name)| Some(real.path(parent)?.join(name)));
    let Some(literal) = literal else {
        return Vec::new();
    };
    let target = (there && literal.is_symlink())
        .then(|| literal.canonicalize().ok())
        .flatten();
    [Some(literal), target]
        .into_iter()
        .flatten()
        .map(|path| (path, Mark::Hide))
        .collect()
}

/// Directories by their real names, each looked up once: most of what is hidden is in few of them.
#[derive(Debug, Default)]
struct RealDirectories(HashMap<PathBuf, Option<PathBuf>>);

impl RealDirectories {
    /// `path` with its links followed; `None` if it leads nowhere.
    fn path(&mut self, path: &Path) -> Option<PathBuf> {
        if let Some(known) = self.0.get(path) {
            return known.clone();
        }
        let real = match path.parent().zip(path.file_name()) {
            Some((parent, name)) => {
                let literal = self.path(parent)?.join(name);
                match literal.symlink_metadata() {
                    Ok(found) if found.is_dir() => Some(literal),
                    _ => literal.canonicalize().ok(),
                }
            }
            None => path.canonicalize().ok(),
        };
        self.0.insert(path.to_owned(), real.clone());
        real
    }
}

/// A mark that someone asked for, by an option or in the policy. What is to be shown must exist, and so must what an option
/// hides, or a mistyped name would leave a secret in the open.
fn wished(
    path: &Path,
    mark: Mark,
    option: Option<&str>,
    real: &mut RealDirectories,
) -> Result<Vec<(PathBuf, Mark)>, Failure> {
    let shown = format!(
        "{} {}",
        option.unwrap_or("the policy's filesystem:"),
        path.display()
    );
    let resolved = match (path.canonicalize(), mark) {
        (Ok(resolved), _) => resolved,
        // In a policy for many machines, or for a file that is yet to come.
        (Err(_), Mark::Hide) if option.is_none() => path.to_owned(),
        (Err(error), _) => {
            let failure = Failure::because(&shown, &error);
            return Err(match mark {
                Mark::Hide => failure.and("nothing would be hidden"),
                _ if error.kind() == std::io::ErrorKind::NotFound => failure.and(format_args!(
                    "make it first: `mkdir -p {0}`, or `touch {0}` if it is a file",
                    path.display()
                )),
                _ => failure,
            });
        }
    };
    if resolved == Path::new("/") {
        return Err(Failure::new(format!(
            "{shown} means every file there is; name a directory instead"
        )));
    }
    if ["/proc", "/sys", "/dev"]
        .iter()
        .any(|own| resolved.starts_with(own))
    {
        return Err(Failure::new(format!(
            "{shown}: a sandbox has its own /proc, /sys and /dev"
        )));
    }
    Ok(if mark == Mark::Hide {
        hidden(path, true, real)
    } else {
        vec![(resolved, mark)]
    })
}

/// `~` and `~/…` are the home directory's.
/// What a policy shares of this machine's files with a container, as an engine mounts it: `HOST:INSIDE[:ro]`. What is to be
/// shared must exist: an engine would make a directory of it.
pub(crate) fn shares(policy: &Filesystem) -> Result<Vec<String>, Failure> {
    let home = settings::home();
    let mut shares = Vec::new();
    let mut taken = HashSet::new();
    // Where one place is in both lists, it can be written.
    let entries = policy.write.iter().map(|share| (share, ""));
    for (Share { host, inside }, mode) in
        entries.chain(policy.read.iter().map(|share| (share, ":ro")))
    {
        let path = at_home(Path::new(host), home.as_deref())?;
        let real = path.canonicalize().map_err(|error| {
            Failure::because(format_args!("the policy shares {}", path.display()), &error)
        })?;
        let path = std::path::absolute(&path).map_err(|error| {
            Failure::because(format_args!("the policy shares {}", path.display()), &error)
        })?;
        let inside = inside.clone().unwrap_or_else(|| path.display().to_string());
        let (Some(real), false) = (
            real.to_str().filter(|real| !real.contains(':')),
            inside.contains(':'),
        ) else {
            return Err(Failure::new(format!(
                "the policy shares {}: an engine takes no path with a colon, and only UTF-8",
                path.display()
            )));
        };
        if taken.insert(inside.clone()) {
            shares.push(format!("{real}:{inside}{mode}"));
        }
    }
    Ok(shares)
}

pub(crate) fn at_home(path: &Path, home: Option<&Path>) -> Result<PathBuf, Failure> {
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

/// The symbolic links on the way to `path`, each by a path that leads to it.
fn links(path: &Path) -> Vec<PathBuf> {
    const MOST: usize = 40; // as many as the kernel follows
    let mut found = Vec::new();
    let mut ahead: Vec<PathBuf> =
        vec![std::path::absolute(path).unwrap_or_else(|_| path.to_owned())];
    while let Some(path) = ahead.pop() {
        let Some(link) = path.ancestors().filter(|prefix| prefix.is_symlink()).last() else {
            continue;
        };
        if let (Ok(target), Some(parent), Ok(rest)) =
            (link.read_link(), link.parent(), path.strip_prefix(link))
            && found.len() < MOST
        {
            // Without the slash that joining nothing leaves, which would have a link followed.
            ahead.push(parent.join(target).join(rest).components().collect());
        }
        found.push(link.to_owned());
    }
    found
}

/// Whether a program may write to `directory`.
pub(crate) fn may_write(directory: &Path, marks: &[(PathBuf, Mark)]) -> bool {
    matches!(governing(directory, marks), Some((_, Mark::Write)))
}

/// Whether a program sees nothing of what is in a directory, nor of what will be.
pub(crate) fn is_hidden(directory: &Path, marks: &[(PathBuf, Mark)]) -> bool {
    let own = ["/tmp", "/var/tmp", "/run"];
    let shown_beneath =
        |(path, mark): &(PathBuf, Mark)| *mark != Mark::Hide && path.starts_with(directory);
    let hidden = match governing(directory, marks) {
        Some((_, mark)) => *mark == Mark::Hide,
        // The sandbox has these for itself.
        None => own.iter().any(|own| directory.starts_with(own)),
    };
    hidden && !marks.iter().any(shown_beneath)
}

/// Whether a program could replace what is at `path`, going by its directory.
pub(crate) fn is_writable(path: &Path, marks: &[(PathBuf, Mark)]) -> bool {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new(".")).canonicalize();
    directory.is_ok_and(|directory| may_write(&directory, marks))
}

/// The mark that decides about `path`: the one on the longest path above it, or on itself, and of those the last.
fn governing<'a>(path: &Path, marks: &'a [(PathBuf, Mark)]) -> Option<&'a (PathBuf, Mark)> {
    let above = marks
        .iter()
        .enumerate()
        .filter(|(_, (marked, _))| path.starts_with(marked));
    above
        .max_by_key(|(order, (marked, _))| (marked.components().count(), *order))
        .map(|(_, mark)| mark)
}

/// The working directory must be there inside.
fn check_directory(directory: &Path, marks: &[(PathBuf, Mark)]) -> Result<(), Failure> {
    match governing(directory, marks) {
        Some((path, Mark::Hide)) => Err(Failure::new(format!(
            "the working directory {} is hidden in the sandbox because of {}; start elsewhere or add --read {}",
            directory.display(),
            path.display(),
            path.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_command_has_paths_where_they_are() {
        let share = |inside: Option<&str>| Share {
            host: "/srv/data".into(),
            inside: inside.map(str::to_owned),
        };
        let paths = same_inside(&[share(None)]).unwrap();
        assert_eq!(paths, [PathBuf::from("/srv/data")]);
        let error = same_inside(&[share(None), share(Some("/data"))]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the policy's filesystem: /srv/data:/data: only a container can have a path elsewhere; \
             write /srv/data alone for a command"
        );
    }

    #[test]
    fn every_link_on_the_way_is_found() {
        let directory = std::env::temp_dir().join(format!("egret-links-{}", std::process::id()));
        let directory = &directory;
        std::fs::create_dir_all(directory.join("real")).unwrap();
        std::fs::write(directory.join("real/policy.yaml"), "").unwrap();
        symlink("real", directory.join("conf")).unwrap();
        symlink("conf/policy.yaml", directory.join("p.yaml")).unwrap();
        symlink("p.yaml", directory.join("q.yaml")).unwrap();
        symlink("loop", directory.join("loop")).unwrap();
        assert_eq!(
            links(&directory.join("real/policy.yaml")),
            <[PathBuf; 0]>::default()
        );
        assert_eq!(
            links(&directory.join("conf/policy.yaml")),
            [directory.join("conf")]
        );
        assert_eq!(
            links(&directory.join("p.yaml")),
            [directory.join("p.yaml"), directory.join("conf")]
        );
        assert_eq!(links(&directory.join("q.yaml")).len(), 3);
        assert!(links(&directory.join("loop")).len() < 50);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
