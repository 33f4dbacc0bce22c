//! `seccomp(2)`, which gives a process a filter for its system calls.

use libc::{sock_filter, sock_fprog};
use std::io;

/// Has every system call of this process, and of all that it becomes, answered by `filter` first. The process and its
/// descendants cannot have new privileges then.
///
/// # Errors
/// Whatever the kernel says; `EINVAL` of a filter that is none.
pub(crate) fn install(filter: &[sock_filter]) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let program = sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` is a live value that points to as many instructions as it says, borrowed for the length of the
    // call; the kernel copies them and writes to neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0usize,
            &raw const program,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
