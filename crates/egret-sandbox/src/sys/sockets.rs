//! Who is at the other end of a unix socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// The user, as this process's user namespace numbers them, who connected to or made the other end of `socket`
/// (`SO_PEERCRED`, `unix(7)`).
///
/// `rustix` has this as well, but with a process id that must not be zero, and that of a process in another process
/// namespace is.
///
/// # Errors
/// Whatever the kernel says: `socket` is no unix socket, for one.
pub fn peer_user(socket: &impl AsFd) -> io::Result<u32> {
    Ok(peer(socket)?.uid)
}

/// Whether who made the other end of `socket` is a process of this process's namespace of processes.
///
/// # Errors
/// As [`peer_user`].
pub fn peer_is_inside(socket: &impl AsFd) -> io::Result<bool> {
    Ok(peer(socket)?.pid != 0)
}

fn peer(socket: &impl AsFd) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `socket` is open for the length of the call. `peer` and `length` live through it, and `length` is the size of
    // `peer`, beyond which the kernel does not write; each of its fields is a number that may have any value.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if done == 0 && length as usize == size_of::<libc::ucred>() {
        Ok(peer)
    } else if done == 0 {
        Err(io::ErrorKind::InvalidData.into())
    } else {
        Err(io::Error::last_os_error())
    }
}
