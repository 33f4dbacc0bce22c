//! The plan of a sandbox's file system: a tree of what stands where.
//!
//! [`plan`] puts together what a [`Spec`](crate::Spec) marks and what every sandbox has of its own. [`super::files`] builds
//! by it.

use crate::error::{Cause, at};
use crate::spec::{Files, Mark};
use crate::standard;
use rustix::fs::RawMode;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

/// The plan for `files` on a machine of this name.
pub(super) fn plan(files: &Files, hostname: &str) -> Result<Node, Cause> {
    let mut plan = Node {
        kind: Some(Kind::Read),
        ..Node::default()
    };
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    );
    // Any address would do as a name server, since port 53 is caught wherever it is.
    let resolver = "nameserver 127.0.0.53\noptions timeout:2 attempts:2\n";
    for (path, kind) in [
        ("/proc", Kind::Kernel("proc")),
        ("/sys", Kind::Kernel("sysfs")),
        ("/dev", Kind::Private(0o755)),
        ("/dev/null", Kind::Device),
        ("/dev/zero", Kind::Device),
        ("/dev/full", Kind::Device),
        ("/dev/random", Kind::Device),
        ("/dev/urandom", Kind::Device),
        ("/dev/tty", Kind::Device),
        ("/dev/pts", Kind::Kernel("devpts")),
        ("/dev/shm", Kind::Private(0o1777)),
        ("/dev/ptmx", Kind::Link("pts/ptmx")),
        ("/dev/fd", Kind::Link("/proc/self/fd")),
        ("/dev/stdin", Kind::Link("/proc/self/fd/0")),
        ("/dev/stdout", Kind::Link("/proc/self/fd/1")),
        ("/dev/stderr", Kind::Link("/proc/self/fd/2")),
        ("/run", Kind::Private(0o755)),
        ("/tmp", Kind::Private(0o1777)),
        ("/var/tmp", Kind::Private(0o1777)),
        ("/etc/hosts", Kind::Text(hosts)),
        ("/etc/resolv.conf", Kind::Text(resolver.into())),
    ] {
        // resolv.conf is often a link that leads into /run. In /dev the links are what is wanted.
        let path = Path::new(path);
        if path.starts_with("/dev") {
            plan.insert(path, kind)?
        } else {
            plan.insert(&resolved(path), kind)?
        }
    }
    // A terminal from outside is not in the new /dev/pts. ttyname(3) finds it here.
    if let Some(terminal) = terminal() {
        plan.insert(Path::new("/dev/console"), Kind::Terminal(terminal))?;
    }
    let runtime = format!("/run/user/{}", rustix::process::getuid().as_raw());
    plan.insert(Path::new(&runtime), Kind::Private(0o700))?;
    if !Path::new("/var/run").is_symlink() {
        plan.insert(Path::new("/var/run"), Kind::Private(0o755))?;
    }
    for (path, mark) in &files.marks {
        let kind = match mark {
            Mark::Hide => Kind::Hide,
            Mark::Read => Kind::Read,
            Mark::Write => Kind::Write,
        };
        plan.insert(path, kind)?;
    }
    // What is covered in a writable directory would come to light elsewhere if a directory above it could be renamed.
    for (path, mark) in &files.marks {
        if *mark == Mark::Hide && plan.passes_writable(path) && path.symlink_metadata().is_ok() {
            plan.protect(path);
        }
    }
    for path in &files.protected {
        plan.protect(path);
    }
    Ok(plan)
}

/// What stands at a path of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Hide,
    /// What is there outside; unchangeable.
    Read,
    /// What is there outside.
    Write,
    /// An empty directory of the sandbox's own, in memory, with this mode.
    Private(RawMode),
    /// A file with this text.
    Text(String),
    /// A device of the machine.
    Device,
    /// The terminal that the program has, which is at this path outside.
    Terminal(PathBuf),
    /// A symbolic link.
    Link(&'static str),
    /// A file system that the kernel makes for these namespaces.
    Kernel(&'static str),
}

/// One path of the plan; a path without a kind is there to lead to others.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) kind: Option<Kind>,
    pub(super) children: BTreeMap<OsString, Node>,
}

/// Where the terminal is that one of the standard descriptors leads to.
fn terminal() -> Option<PathBuf> {
    let name = standard::all()
        .into_iter()
        .find_map(|(_, descriptor)| rustix::termios::ttyname(descriptor, Vec::new()).ok())?;
    Some(PathBuf::from(OsString::from_vec(name.into_bytes())))
}

/// `path` with its symbolic links followed, or as it stands where it leads nowhere.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(target) = path.canonicalize() {
        return target;
    }
    match std::fs::read_link(path) {
        Ok(target) => path
            .parent()
            .unwrap_or(Path::new("/"))
            .join(target)
            .components()
            .fold(PathBuf::new(), |mut clean, component| {
                if component == Component::ParentDir {
                    clean.pop();
                } else {
                    clean.push(component);
                }
                clean
            }),
        Err(_) => path.to_owned(),
    }
}

impl Node {
    fn insert(&mut self, path: &Path, kind: Kind) -> Result<(), Cause> {
        let mut node = self;
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => node = node.children.entry(name.to_owned()).or_default(),
                _ => return Err(at(path)(io::Error::from(io::ErrorKind::InvalidInput))),
            }
        }
        node.kind = Some(kind);
        Ok(())
    }

    /// Whether `path`, or a directory on the way to it, is marked as one to write to.
    fn passes_writable(&self, path: &Path) -> bool {
        let mut on_the_way = path.iter().skip(1).scan(self, |node, name| {
            *node = node.children.get(name)?;
            Some(*node)
        });
        on_the_way.any(|node| node.kind == Some(Kind::Write))
    }

    /// Makes the file at `path` unchangeable, unless it is hidden, if it lies where the program can write.
    ///
    /// A mount over the file itself is not enough: its directory could be renamed and another put in its place. A
    /// mount point cannot be renamed, so each directory on the way becomes one.
    fn protect(&mut self, path: &Path) {
        let mut node = self;
        let mut writable = false;
        let names: Vec<&OsStr> = path.iter().skip(1).collect();
        for (depth, name) in names.iter().enumerate() {
            node = node.children.entry(name.into()).or_default();
            writable = match node.kind {
                Some(Kind::Write) => true,
                Some(_) => false,
                None => writable,
            };
            if writable && node.kind.is_none() {
                let last = depth + 1 == names.len();
                node.kind = Some(if last { Kind::Read } else { Kind::Write });
            }
        }
    }

    /// Whether anything at or beneath this node is there for the program to see.
    pub(super) fn shows_something(&self) -> bool {
        matches!(&self.kind, Some(kind) if *kind != Kind::Hide)
            || self.children.values().any(Self::shows_something)
    }

    /// Whether nothing is lost if the place for this node does not exist: there is nothing to hide there, and what would
    /// be put there is a convenience.
    pub(super) fn may_be_missing(&self) -> bool {
        !matches!(&self.kind, Some(Kind::Read | Kind::Write | Kind::Device))
            && self.children.values().all(Self::may_be_missing)
    }

    pub(super) fn hides_a_child(&self) -> bool {
        self.children
            .values()
            .any(|child| child.kind == Some(Kind::Hide))
    }

    pub(super) fn collect_writable(&self, path: PathBuf, found: &mut Vec<PathBuf>) {
        if matches!(
            self.kind,
            Some(
                Kind::Write
                    | Kind::Private(_)
                    | Kind::Kernel("proc" | "devpts")
                    | Kind::Device
                    | Kind::Terminal(_)
            )
        ) {
            found.push(path.clone());
        }
        for (name, child) in &self.children {
            child.collect_writable(path.join(name), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(marks: &[(&str, Mark)], protected: &[&str]) -> Node {
        let files = Files {
            marks: marks
                .iter()
                .map(|(path, mark)| (path.into(), *mark))
                .collect(),
            protected: protected.iter().map(PathBuf::from).collect(),
        };
        plan(&files, "machine").unwrap()
    }

    fn at_path<'a>(plan: &'a Node, path: &str) -> Option<&'a Node> {
        path.split('/')
            .skip(1)
            .try_fold(plan, |node, name| node.children.get(OsStr::new(name)))
    }

    fn kind<'a>(plan: &'a Node, path: &str) -> Option<&'a Kind> {
        at_path(plan, path)?.kind.as_ref()
    }

    #[test]
    fn of_two_marks_on_a_path_the_later_counts() {
        let plan = planned(
            &[("/home/u/.ssh", Mark::Hide), ("/home/u/.ssh", Mark::Read)],
            &[],
        );
        assert_eq!(kind(&plan, "/home/u/.ssh"), Some(&Kind::Read));
    }

    #[test]
    fn a_path_that_is_not_plain_is_an_error() {
        for path in ["/a/../b", "../b"] {
            let files = Files {
                marks: vec![(path.into(), Mark::Read)],
                protected: vec![],
            };
            assert!(plan(&files, "machine").is_err(), "{path}");
        }
    }

    #[test]
    fn a_protected_file_cannot_be_replaced_by_renaming_a_directory_above_it() {
        let plan = planned(
            &[("/project", Mark::Write)],
            &["/project/conf/deep/policy.yaml"],
        );
        // Mount points, each of them, up to the directory that cannot be renamed from inside.
        assert_eq!(kind(&plan, "/project/conf"), Some(&Kind::Write));
        assert_eq!(kind(&plan, "/project/conf/deep"), Some(&Kind::Write));
        assert_eq!(
            kind(&plan, "/project/conf/deep/policy.yaml"),
            Some(&Kind::Read)
        );
    }

    #[test]
    fn a_protected_file_that_is_hidden_stays_hidden_and_one_out_of_reach_needs_nothing() {
        let marks = [
            ("/project", Mark::Write),
            ("/project/logs/a.jsonl", Mark::Hide),
        ];
        let plan = planned(&marks, &["/project/logs/a.jsonl", "/etc/egret/policy.yaml"]);
        assert_eq!(kind(&plan, "/project/logs"), Some(&Kind::Write));
        assert_eq!(kind(&plan, "/project/logs/a.jsonl"), Some(&Kind::Hide));
        assert_eq!(kind(&plan, "/etc/egret/policy.yaml"), None);
    }

    #[test]
    fn what_can_be_written_is_what_is_marked_so_and_the_sandbox_s_own() {
        let plan = planned(
            &[
                ("/project", Mark::Write),
                ("/project/vendor", Mark::Read),
                ("/srv", Mark::Hide),
            ],
            &[],
        );
        let mut found = Vec::new();
        plan.collect_writable("/".into(), &mut found);
        for (path, expected) in [
            ("/project", true),
            ("/tmp", true),
            ("/proc", true),
            ("/project/vendor", false),
            ("/srv", false),
            ("/sys", false),
        ] {
            assert_eq!(found.contains(&PathBuf::from(path)), expected, "{path}");
        }
    }
}
