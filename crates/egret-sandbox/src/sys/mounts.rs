//! `mount_setattr(2)`, which sets the attributes of a whole tree of mounts at once.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Attributes of a mount, as `mount_setattr(2)` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Nothing beneath can be written.
    pub(crate) read_only: bool,
    /// Device nodes beneath cannot be opened.
    pub(crate) no_devices: bool,
}

/// How far a change reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This mount.
    One,
    /// This mount and all that are mounted beneath it.
    Tree,
}

/// Sets `attributes`, and always `nosuid`, on the mount that `mount` refers to.
///
/// # Errors
/// Whatever the kernel says; `ENOSYS` before Linux 5.12.
pub(crate) fn restrict(
    mount: BorrowedFd<'_>,
    attributes: Attributes,
    reach: Reach,
) -> io::Result<()> {
    let mut set = libc::MOUNT_ATTR_NOSUID;
    if attributes.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if attributes.no_devices {
        set |= libc::MOUNT_ATTR_NODEV;
    }
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let recursive = if reach == Reach::Tree {
        libc::AT_RECURSIVE
    } else {
        0
    };
    // SAFETY: `mount` is open for the length of the call; the path is an empty C string, which `AT_EMPTY_PATH` makes
    // mean `mount` itself; `attr` is a live value of the size that is passed, and the kernel only reads it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
