//! Mounts, made detached and then put where they belong (`fsopen(2)`, `open_tree(2)`, `move_mount(2)`).

use super::plan::Kind;
use crate::error::{Cause, at};
use crate::sys::mounts::{Attributes, Reach, restrict};
use rustix::fs::{self, RawMode};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

type Result<T, E = Cause> = std::result::Result<T, E>;

/// A detached copy of what is mounted at `path`, with all that is mounted beneath it.
pub(super) fn clone(path: &Path, kind: &Kind) -> Result<OwnedFd> {
    clone_at(fs::CWD, path.as_os_str(), kind).map_err(at(path))
}

pub(super) fn clone_at(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    kind: &Kind,
) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if name.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    let tree = open_tree(directory, name, flags)?;
    let attributes = Attributes {
        // Read-only does not keep anyone from writing to a device, only from changing its mode and owner.
        read_only: matches!(kind, Kind::Read | Kind::Device),
        no_devices: *kind != Kind::Device,
    };
    restrict(tree.as_fd(), attributes, Reach::Tree)?;
    Ok(tree)
}

pub(super) fn attach(
    mount: &OwnedFd,
    directory: impl AsFd,
    name: impl rustix::path::Arg,
    flags: MoveMountFlags,
) -> rustix::io::Result<()> {
    move_mount(
        mount,
        "",
        directory,
        name,
        flags | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

pub(super) fn new_mount(kind: &str, options: &[(&str, &str)]) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(at(kind))?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value).map_err(at(kind))?;
    }
    fsconfig_create(context.as_fd()).map_err(at(kind))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(at(kind))
}

/// An empty directory in memory: with room for files if it is anyone's, and otherwise for what belongs in such a place.
/// All that a sandbox has of them together hold less than the machine's memory.
pub(super) fn private_mount(mode: RawMode) -> Result<OwnedFd> {
    let size = if mode == 0o1777 { "25%" } else { "16m" };
    new_mount("tmpfs", &[("mode", &format!("{mode:o}")), ("size", size)])
}

pub(super) fn kernel_mount(kind: &str) -> Result<OwnedFd> {
    match kind {
        "devpts" => {
            // Terminals are devices, so this one file system must not be mounted `nodev`.
            let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(at(kind))?;
            for (key, value) in [("ptmxmode", "0666"), ("mode", "0620")] {
                fsconfig_set_string(context.as_fd(), key, value).map_err(at(kind))?;
            }
            fsconfig_create(context.as_fd()).map_err(at(kind))?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(at(kind))
        }
        "sysfs" => {
            let mount = new_mount(kind, &[])?;
            set_read_only(mount.as_fd())?;
            Ok(mount)
        }
        _ => new_mount(kind, &[]),
    }
}

pub(super) fn set_read_only(mount: BorrowedFd<'_>) -> Result<()> {
    Ok(restrict(
        mount,
        Attributes {
            read_only: true,
            no_devices: true,
        },
        Reach::One,
    )?)
}
