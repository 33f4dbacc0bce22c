//! Control groups for an engine, which are gone when it is.
//!
//! There is one tree of control groups for the whole kernel, or several, as the machine is set up: version 2, or the
//! hierarchies of version 1. An engine shall find them as they are, and leave nothing in them. So it gets a directory in
//! each, and a control group namespace of which that directory is the root; when the engine is gone, the directories are
//! removed, with whatever it made below.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The directories of one engine; dropping this removes them, so that has to come after the end of its processes.
pub(crate) struct Groups {
    hierarchies: Vec<Hierarchy>,
}

/// A tree of control groups.
struct Hierarchy {
    /// Where it is mounted.
    mounted: PathBuf,
    /// What `mount -o` says to mean it; none for version 2.
    controllers: Option<String>,
    /// The directory in it that is ours.
    directory: PathBuf,
}

impl Groups {
    /// Makes a directory in each hierarchy that engines use.
    pub(super) fn new() -> Groups {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}", std::process::id());
        let mut hierarchies = hierarchies();
        assert!(
            !hierarchies.is_empty(),
            "no control groups are mounted below /sys/fs/cgroup"
        );
        for hierarchy in &mut hierarchies {
            remove_orphans(&hierarchy.directory);
            let parent = hierarchy.directory.clone();
            hierarchy.directory.push(&name);
            let directory = &hierarchy.directory;
            fs::create_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
            // In version 1, a group has no processors and no memory until it is said which.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if hierarchy.controllers.is_some() && directory.join(file).exists() {
                    fs::write(directory.join(file), fs::read(parent.join(file)).unwrap()).unwrap();
                }
            }
        }
        Groups { hierarchies }
    }

    /// The directories.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let directories = self.hierarchies.iter();
        directories
            .map(|hierarchy| hierarchy.directory.clone())
            .collect()
    }

    /// A script that joins the groups, mounts them where everybody looks for them, prints `ready` and becomes its
    /// arguments.
    pub(super) fn enter(&self) -> String {
        let mut join = String::new();
        let mut mount = String::new();
        for hierarchy in &self.hierarchies {
            let (at, directory) = (hierarchy.mounted.display(), hierarchy.directory.display());
            join += &format!("echo 0 > {directory}/cgroup.procs\n");
            mount += &match &hierarchy.controllers {
                Some(controllers) => {
                    format!("mkdir -p {at}; mount -t cgroup -o {controllers} cgroup {at}\n")
                }
                // A group that hands controllers on has no processes itself.
                None => format!(
                    "mount -t cgroup2 cgroup {at}; mkdir {at}/init; echo 0 > {at}/init/cgroup.procs
                     for one in $(cat {at}/cgroup.controllers); do echo +$one > {at}/cgroup.subtree_control; done\n"
                ),
            };
        }
        format!(
            "{join} exec unshare --cgroup /bin/sh -euc '
             mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
             {mount} echo ready; exec \"$@\" >&2' \"$0\" \"$@\""
        )
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // The kernel kills what lives on a machine in its own time.
        let end = Instant::now() + Duration::from_secs(10);
        for hierarchy in &self.hierarchies {
            while hierarchy.directory.exists() && Instant::now() < end {
                if remove(&hierarchy.directory).is_err() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

/// The hierarchies of this machine, each with the directory in which we make ours. Where there are some of version 1,
/// only those: version 2 is beside them just for systemd then, and some engines refuse such a mixture.
fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut first = Vec::new();
    let mut second = Vec::new();
    for line in mounts.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let mounted = PathBuf::from(words[1]);
        if !mounted.starts_with("/sys/fs/cgroup") {
            continue;
        }
        match words[2] {
            "cgroup" => {
                let controllers: Vec<_> = words[3]
                    .split(',')
                    .filter(|option| !GENERAL.contains(option) && !option.contains("agent="))
                    .collect();
                let controllers = controllers.join(",");
                // Within our own group, as whatever limits this process is meant for what it starts, too.
                let group = ours.lines().find_map(|line| {
                    let mut fields = line.splitn(3, ':').skip(1);
                    (fields.next()? == controllers).then(|| fields.next())?
                });
                let below = group.unwrap_or("/").trim_start_matches('/').to_owned();
                first.push(Hierarchy {
                    directory: mounted.join(below),
                    mounted,
                    controllers: Some(controllers),
                });
            }
            // At the top: a group that has processes, as ours has, cannot hand controllers on.
            "cgroup2" => second.push(Hierarchy {
                directory: mounted.clone(),
                mounted,
                controllers: None,
            }),
            _ => {}
        }
    }
    if first.is_empty() { second } else { first }
}

/// Removes a group and those below it; fails while a process is in one.
fn remove(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

/// Removes what tests left here that were killed.
fn remove_orphans(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = remove(&entry.path());
        }
    }
}

/// What our directories are called, before the id of the process that made them.
const PREFIX: &str = "egret-test-";

/// Mount options that say nothing about which hierarchy it is.
const GENERAL: [&str; 8] = [
    "rw",
    "ro",
    "nosuid",
    "nodev",
    "noexec",
    "relatime",
    "xattr",
    "clone_children",
];
