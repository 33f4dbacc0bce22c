//! Making processes: a fork whose child belongs to our parent, and the exec at its end.

use rustix::process::Pid;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::convert::Infallible;
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// What a fork returned, and where.
#[derive(Debug)]
pub(crate) enum Forked {
    /// In the new process.
    Child,
    /// In the old one, with the new one's id as seen from here.
    Parent(Pid),
}

/// Forks. The child belongs to the caller.
pub(crate) fn fork() -> io::Result<Forked> {
    clone(libc::SIGCHLD)
}

/// Forks a child that belongs to the caller's own parent (`CLONE_PARENT`): the caller can end, and whoever waits for it
/// waits for the child instead.
pub(crate) fn fork_sibling() -> io::Result<Forked> {
    clone(libc::CLONE_PARENT | libc::SIGCHLD)
}

fn clone(flags: i32) -> io::Result<Forked> {
    // SAFETY: without CLONE_VM the child gets its own copy of memory, and a null stack means it continues on its copy of
    // this one: the same as fork(2). The jail has one thread only, so no lock is held by a thread that the child lacks.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            0usize,
            0usize,
            0usize,
            0usize,
        )
    };
    match i32::try_from(pid) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => Pid::from_raw(pid)
            .map(Forked::Parent)
            .ok_or_else(io::Error::last_os_error),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Replaces this process by the program at `path`. Returns only if that failed, with the reason.
pub(crate) fn exec(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const c_char> {
        list.iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: `path` is a C string; both arrays end with a null pointer and point into `args` and `env`, which are
    // borrowed until the call returns. On success nothing of this process is left to be unsound.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// This process's group; `None` if it was made outside this process namespace, where it has no number.
pub(crate) fn process_group() -> Option<Pid> {
    // SAFETY: getpgrp(2) takes nothing and cannot fail.
    Pid::from_raw(unsafe { libc::getpgrp() })
}

/// Takes ownership of a descriptor that this process was started with.
///
/// # Errors
/// If nothing is open at that number, or it is one of the standard three.
pub(crate) fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only reads the descriptor table.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and called first thing in `main`, before anything here could own it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Moves this process, which has one thread, into new namespaces.
pub(crate) fn unshare(namespaces: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: unsafe because CLONE_FILES could leave two threads with different ideas of what a descriptor is. The
    // callers ask for namespaces only, and have one thread.
    unsafe { unshare_unsafe(namespaces) }
}

/// Closes every descriptor from `first` to `last`, both included (`close_range(2)`).
///
/// # Errors
/// Whatever the kernel says; `ENOSYS` before Linux 5.9.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: called on the way to exec, which the descriptors in the range were not meant to survive; their owners on the
    // Rust side are never used or dropped, since this process becomes the program or exits.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends this process by `signal`, as if it had been the one that was killed; returns if the signal did not end it.
pub fn die_by(signal: i32) -> io::Result<Infallible> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a core file of ours would be misleading, so the limit goes first; `none` lives through the call. Setting a
    // signal to its default action and unblocking it touches no memory of ours, and `set` is initialised by sigemptyset
    // before it is read. The process ends or goes on as before.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal, libc::SIG_DFL);
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::kill(libc::getpid(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
    Err(io::Error::other(format!(
        "signal {signal} does not end a process"
    )))
}
