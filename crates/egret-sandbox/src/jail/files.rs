//! The file system that the program sees.
//!
//! The plan is a tree of [`Kind`]s: what the [`Spec`](crate::Spec) marks, together with the sandbox's own `/proc`, `/dev`,
//! `/tmp` and so on. [`build`] lays the plan out on an empty root and pivots into it.
//!
//! A directory in which nothing is hidden is one bind mount of the real one. A directory that has something to hide is
//! built anew: an empty directory into which everything but the hidden is mounted piece by piece. So what is hidden is
//! not there, rather than there and unreadable. Inside a directory that the program may write to this cannot be done (a
//! file made in there has to be made in the real one), so there an empty file or directory covers what is hidden.
//!
//! Paths are never followed through symbolic links while laying out: whoever made the plan resolved them.

use super::mounts::{
    attach, clone, clone_at, kernel_mount, new_mount, private_mount, set_read_only,
};
use super::plan::{Kind, Node, plan};
use crate::error::{Cause, at};
use crate::guard::stands;
use crate::spec::Files;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RawMode, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

type Result<T, E = Cause> = std::result::Result<T, E>;

/// Builds the file system, and makes it this process's root. Returns the paths that can be written to.
pub(super) fn build(files: &Files, hostname: &str) -> Result<Vec<PathBuf>> {
    if !stands("files") {
        return Ok(Vec::new());
    }
    // Nothing that is mounted outside from now on appears in here, and nothing in here out there.
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(at("/"))?;
    let plan = plan(files, hostname)?;
    let root = new_mount("tmpfs", &[("mode", "0755"), ("size", "4m")])?;
    // The new root has to hang somewhere until it is the root, and every machine has /proc.
    attach(&root, fs::CWD, "/proc", MoveMountFlags::empty()).map_err(at("/proc"))?;
    let builder = Builder { root: root.as_fd() };
    builder.blank()?;
    builder.rebuild(root.as_fd(), Path::new("/"), &plan, true)?;
    builder.cover_proc()?;
    builder.remove_blank()?;
    set_read_only(root.as_fd())?;

    fchdir(&root)?;
    pivot_root(".", ".")?;
    // The old root now lies over the new one; taking it away leaves the new one alone.
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;

    let mut writable = Vec::new();
    plan.collect_writable(PathBuf::from("/"), &mut writable);
    Ok(writable)
}

/// A hidden file's stand-in where it has to have one.
const BLANK: &str = ".blank";

struct Builder<'a> {
    root: BorrowedFd<'a>,
}

impl Builder<'_> {
    /// Fills the empty directory `target` with what is at `path` outside (if `list`) and with what `node` plans there.
    fn rebuild(&self, target: BorrowedFd<'_>, path: &Path, node: &Node, list: bool) -> Result<()> {
        if list {
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let outside = fs::open(path, flags, Mode::empty()).map_err(at(path))?;
            let mut listing = Dir::new(outside).map_err(at(path))?;
            while let Some(entry) = listing.read() {
                let entry = entry.map_err(at(path))?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." || node.children.contains_key(name) {
                    continue;
                }
                let outside = listing.fd().map_err(at(path))?;
                let from = Place {
                    directory: outside,
                    name,
                };
                let to = Place {
                    directory: target,
                    name,
                };
                show(from, entry.file_type(), to, &Kind::Read)
                    .map_err(|error| at(path.join(name))(error))?;
            }
        }
        for (name, child) in &node.children {
            let inherited = if list { Kind::Read } else { Kind::Hide };
            self.place_new(target, name, &path.join(name), child, inherited)?;
        }
        Ok(())
    }

    /// Places `node` in `directory`, which is one of ours and does not have `name` yet.
    fn place_new(
        &self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        node: &Node,
        inherited: Kind,
    ) -> Result<()> {
        match node.kind.as_ref().unwrap_or(&inherited) {
            Kind::Hide if !node.shows_something() => Ok(()),
            Kind::Hide => {
                let target = make_directory(directory, name, 0o755).map_err(at(path))?;
                self.rebuild(target.as_fd(), path, node, false)
            }
            Kind::Read if node.hides_a_child() && path.is_dir() => {
                let target = make_directory(directory, name, 0o755).map_err(at(path))?;
                copy_owner(path, target.as_fd()).map_err(at(path))?;
                self.rebuild_or_cover(target.as_fd(), path, node)
            }
            kind @ (Kind::Read | Kind::Write | Kind::Device) => {
                if show_at(path, directory, name, kind)? {
                    self.place_children_over(path, node, kind)?;
                }
                Ok(())
            }
            Kind::Terminal(outside) => {
                show_at(outside, directory, name, &Kind::Device).map(|_shown| ())
            }
            Kind::Private(mode) => {
                fs::mkdirat(directory, name, Mode::from_raw_mode(*mode)).map_err(at(path))?;
                let mount = private_mount(*mode)?;
                attach(&mount, directory, name, MoveMountFlags::empty()).map_err(at(path))?;
                self.rebuild(mount.as_fd(), path, node, false)
            }
            Kind::Text(text) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let file = fs::openat(directory, name, flags, Mode::from_raw_mode(0o644))
                    .map_err(at(path))?;
                io::Write::write_all(&mut std::fs::File::from(file), text.as_bytes())
                    .map_err(at(path))
            }
            Kind::Link(to) => fs::symlinkat(*to, directory, name).map_err(at(path)),
            Kind::Kernel(kind) => {
                fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)).map_err(at(path))?;
                match kernel_mount(kind) {
                    Ok(mount) => {
                        attach(&mount, directory, name, MoveMountFlags::empty()).map_err(at(path))
                    }
                    // A container engine may have covered parts of /sys, and the kernel then gives us no fresh one:
                    // without it a program knows less about the machine, and that is all.
                    Err(_) if *kind == "sysfs" => Ok(()),
                    Err(cause) => Err(cause),
                }
            }
        }
    }

    /// Places what `node` plans beneath `path`, where the real directory is already mounted as `around`.
    fn place_children_over(&self, path: &Path, node: &Node, around: &Kind) -> Result<()> {
        for (name, child) in &node.children {
            self.place_over(&path.join(name), child, around)?;
        }
        Ok(())
    }

    fn place_over(&self, path: &Path, node: &Node, around: &Kind) -> Result<()> {
        let target = match self.open(path) {
            Ok(target) => target,
            // Nothing there to cover or to show; or nothing that could be seen from in here either.
            Err(cause)
                if matches!(cause.errno, Some(libc::ENOENT | libc::EACCES))
                    && node.may_be_missing() =>
            {
                return Ok(());
            }
            // A link cannot be covered. What it leads to is hidden by a mark of its own.
            Err(cause)
                if cause.errno == Some(Errno::LOOP.raw_os_error())
                    && path.is_symlink()
                    && !node.shows_something() =>
            {
                return Ok(());
            }
            Err(cause) => return Err(cause),
        };
        let over = MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        match node.kind.as_ref().unwrap_or(around) {
            Kind::Hide => self.cover(&target, path, node),
            Kind::Read if node.hides_a_child() => {
                let mount = private_mount(0o755)?;
                copy_owner(path, mount.as_fd()).map_err(at(path))?;
                attach(&mount, &target, "", over).map_err(at(path))?;
                self.rebuild_or_cover(mount.as_fd(), path, node)?;
                set_read_only(mount.as_fd())
            }
            kind @ (Kind::Read | Kind::Write | Kind::Device) => {
                if node.kind.is_some() {
                    let mount = clone(path, kind)?;
                    attach(&mount, &target, "", over).map_err(at(path))?;
                }
                self.place_children_over(path, node, kind)
            }
            Kind::Private(mode) => {
                let mount = private_mount(*mode)?;
                attach(&mount, &target, "", over).map_err(at(path))?;
                self.rebuild(mount.as_fd(), path, node, false)
            }
            Kind::Text(_) => {
                // Written into a file system of its own, since a file has to be somewhere to be mounted.
                let mount = private_mount(0o755)?;
                attach(&mount, self.root, BLANK_DIRECTORY, MoveMountFlags::empty())
                    .map_err(at(path))?;
                let bare = Node {
                    kind: node.kind.clone(),
                    ..Node::default()
                };
                self.place_new(mount.as_fd(), OsStr::new("text"), path, &bare, Kind::Hide)?;
                let file =
                    clone_at(mount.as_fd(), OsStr::new("text"), &Kind::Read).map_err(at(path))?;
                attach(&file, &target, "", over).map_err(at(path))?;
                let staging = Path::new("/proc").join(BLANK_DIRECTORY);
                unmount(&staging, UnmountFlags::DETACH).map_err(at(path))
            }
            Kind::Link(_) | Kind::Kernel(_) | Kind::Terminal(_) => Err(at(path)(io::Error::other(
                "a link or kernel file system cannot be laid over a file",
            ))),
        }
    }

    /// Rebuilds a directory without what it hides; where it cannot be listed, covers what it hides instead.
    fn rebuild_or_cover(&self, target: BorrowedFd<'_>, path: &Path, node: &Node) -> Result<()> {
        match self.rebuild(target, path, node, true) {
            Err(cause) if cause.errno == Some(Errno::ACCESS.raw_os_error()) => {
                let real = clone(path, &Kind::Read)?;
                attach(&real, target, "", MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
                    .map_err(at(path))?;
                self.place_children_over(path, node, &Kind::Read)
            }
            done => done,
        }
    }

    /// Lays something empty over `target`, with what `node` shows beneath it.
    fn cover(&self, target: &OwnedFd, path: &Path, node: &Node) -> Result<()> {
        let over = MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        let stat = fs::fstat(target).map_err(at(path))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let mount = private_mount(0o755)?;
            attach(&mount, target, "", over).map_err(at(path))?;
            self.rebuild(mount.as_fd(), path, node, false)?;
            set_read_only(mount.as_fd())
        } else {
            let blank = clone_at(self.root, OsStr::new(BLANK), &Kind::Read).map_err(at(path))?;
            attach(&blank, target, "", over).map_err(at(path))
        }
    }

    /// Opens a path of the new root, refusing to follow links.
    fn open(&self, path: &Path) -> Result<OwnedFd> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        fs::openat2(
            self.root,
            inside,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
        .map_err(at(path))
    }

    /// The same, for what not every kernel has.
    fn open_if_there(&self, path: &Path) -> Result<Option<OwnedFd>> {
        match self.open(path) {
            Ok(target) => Ok(Some(target)),
            Err(cause) if cause.errno == Some(Errno::NOENT.raw_os_error()) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Makes the empty file, and the directory where texts are written, for as long as building takes.
    fn blank(&self) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        fs::openat(self.root, BLANK, flags, Mode::from_raw_mode(0o444)).map_err(at(BLANK))?;
        make_directory(self.root, OsStr::new(BLANK_DIRECTORY), 0o700)
            .map_err(at(BLANK_DIRECTORY))?;
        Ok(())
    }

    fn remove_blank(&self) -> Result<()> {
        fs::unlinkat(self.root, BLANK, AtFlags::empty()).map_err(at(BLANK))?;
        fs::unlinkat(self.root, BLANK_DIRECTORY, AtFlags::REMOVEDIR).map_err(at(BLANK_DIRECTORY))
    }

    /// Closes what `/proc` leaves open to a program that runs as the machine's root, capabilities or not: system-wide
    /// settings are made read-only, and windows into the kernel and its keys are covered.
    fn cover_proc(&self) -> Result<()> {
        if !stands("kernel-settings") {
            return Ok(());
        }
        for name in [
            "sys",
            "bus",
            "fs",
            "irq",
            "acpi",
            "sysrq-trigger",
            "dynamic_debug",
            "driver",
            "pressure",
            "tty",
            "scsi",
        ] {
            let path = Path::new("/proc").join(name);
            let Some(target) = self.open_if_there(&path)? else {
                continue;
            };
            let mount = clone_at(target.as_fd(), OsStr::new(""), &Kind::Read).map_err(at(&path))?;
            attach(&mount, &target, "", MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
                .map_err(at(&path))?;
        }
        for name in [
            "kcore",
            "keys",
            "kmsg",
            "timer_list",
            "sched_debug",
            "latency_stats",
            "slabinfo",
            "vmallocinfo",
            "kpagecount",
            "kpageflags",
            "kpagecgroup",
            "pagetypeinfo",
        ] {
            let path = Path::new("/proc").join(name);
            let Some(target) = self.open_if_there(&path)? else {
                continue;
            };
            self.cover(&target, &path, &Node::default())?;
        }
        Ok(())
    }
}

/// A name in a directory.
#[derive(Clone, Copy)]
struct Place<'a> {
    directory: BorrowedFd<'a>,
    name: &'a OsStr,
}

/// Puts what is at `path` outside into `directory`, as `name`; returns whether anything can be placed over it.
fn show_at(path: &Path, directory: BorrowedFd<'_>, name: &OsStr, kind: &Kind) -> Result<bool> {
    let from = Place {
        directory: fs::CWD,
        name: path.as_os_str(),
    };
    show(from, FileType::Unknown, Place { directory, name }, kind).map_err(at(path))
}

/// Puts what is at `from` outside, and of this type if it is known, to `to`: a link as a link like it, all else as a mount.
/// Sockets and what has vanished are left out. Returns whether anything can be placed over it.
fn show(from: Place<'_>, file_type: FileType, to: Place<'_>, kind: &Kind) -> io::Result<bool> {
    match Outside::find(from, file_type, kind) {
        Ok(Outside::Link(target)) => {
            fs::symlinkat(&target, to.directory, to.name)?;
            Ok(false)
        }
        Ok(Outside::Directory(mount)) => {
            fs::mkdirat(to.directory, to.name, Mode::from_raw_mode(0o755))?;
            attach(&mount, to.directory, to.name, MoveMountFlags::empty())?;
            Ok(true)
        }
        Ok(Outside::File(mount)) => {
            let mode = Mode::from_raw_mode(0o644);
            fs::mknodat(to.directory, to.name, FileType::RegularFile, mode, 0)?;
            attach(&mount, to.directory, to.name, MoveMountFlags::empty())?;
            Ok(true)
        }
        Ok(Outside::Socket) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What there is outside, as a mount if it can be one.
enum Outside {
    Link(CString),
    Directory(OwnedFd),
    File(OwnedFd),
    Socket,
}

impl Outside {
    fn find(place: Place<'_>, file_type: FileType, kind: &Kind) -> io::Result<Self> {
        let Place { directory, name } = place;
        let file_type = match file_type {
            FileType::Unknown => {
                let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        Ok(match file_type {
            FileType::Symlink => Self::Link(fs::readlinkat(directory, name, Vec::new())?),
            FileType::Directory => Self::Directory(clone_at(directory, name, kind)?),
            FileType::Socket => Self::Socket,
            _ => Self::File(clone_at(directory, name, kind)?),
        })
    }
}

/// Where a text is written before it is mounted.
const BLANK_DIRECTORY: &str = ".text";

fn make_directory(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    mode: RawMode,
) -> rustix::io::Result<OwnedFd> {
    fs::mkdirat(directory, name, Mode::from_raw_mode(mode))?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(directory, name, flags, Mode::empty())
}

/// Gives a rebuilt directory the mode of the real one, and its owner where that can be said in this user namespace.
fn copy_owner(from: &Path, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let stat = fs::stat(from)?;
    let (uid, gid) = (
        fs::Uid::from_raw(stat.st_uid),
        fs::Gid::from_raw(stat.st_gid),
    );
    // By `.`, since a mount is opened without the right to change it by descriptor.
    match fs::chownat(to, ".", Some(uid), Some(gid), AtFlags::empty()) {
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    fs::chmodat(
        to,
        ".",
        Mode::from_raw_mode(stat.st_mode & 0o7777),
        AtFlags::empty(),
    )
}
