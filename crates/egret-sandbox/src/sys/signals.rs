//! Signals as something to read, instead of something that interrupts.

use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The signals that Egret passes on to the program, or answers itself.
const WATCHED: [i32; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGALRM,
];

/// One signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub number: i32,
    /// Whether the kernel made it, for instance because someone typed Ctrl-C: the whole foreground group has it then.
    pub from_kernel: bool,
}

/// Blocks signals and hands them out through a descriptor (`signalfd(2)`).
///
/// Made before the first thread, so that all later threads inherit the mask and no signal is lost to one of them.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks the watched signals from here on.
    ///
    /// # Errors
    /// If the kernel has no descriptor left to give.
    pub fn block() -> io::Result<Self> {
        let mut watched = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises `watched` before sigaddset and the others read it; pthread_sigmask fills
        // `before` when it returns 0, and we leave the function when it does not. signalfd returns a new descriptor that
        // nobody else owns, or a negative number, which we check first.
        unsafe {
            libc::sigemptyset(watched.as_mut_ptr());
            for number in WATCHED {
                libc::sigaddset(watched.as_mut_ptr(), number);
            }
            let failed =
                libc::pthread_sigmask(libc::SIG_BLOCK, watched.as_ptr(), before.as_mut_ptr());
            if failed != 0 {
                return Err(io::Error::from_raw_os_error(failed));
            }
            let fd = libc::signalfd(-1, watched.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self {
                fd: OwnedFd::from_raw_fd(fd),
                before: before.assume_init(),
            })
        }
    }

    /// The next signal that has arrived, if there is one.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn next(&self) -> io::Result<Option<Arrived>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        // SAFETY: the buffer has the size that is passed. signalfd writes whole records only, so after a read of that
        // size `info` is initialised; any other outcome returns before it is looked at.
        unsafe {
            let size = size_of::<libc::signalfd_siginfo>();
            let read = libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size);
            if usize::try_from(read) == Ok(size) {
                let info = info.assume_init();
                let number = i32::try_from(info.ssi_signo).map_err(|_| Errno::INVAL)?;
                return Ok(Some(Arrived {
                    number,
                    from_kernel: info.ssi_code == libc::SI_KERNEL,
                }));
            }
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        }
    }

    /// Makes `command` start with the mask that was there before: the standard library passes on the one there is.
    pub fn unblock_in<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let before = self.before;
        let unblock = move || set_mask(&before);
        // SAFETY: between fork and exec only async-signal-safe functions may be called, and sigprocmask is one; `before`
        // is a copy that the closure owns.
        unsafe { command.pre_exec(unblock) }
    }

    /// Puts back the mask that was there before, for a program about to be started.
    pub(crate) fn unblock(&self) -> io::Result<()> {
        set_mask(&self.before)
    }
}

fn set_mask(mask: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `mask` is a mask that the kernel filled in `Signals::block`, and only read.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(failed))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Gives `SIGPIPE` its default action back, which the Rust runtime took away at start.
pub(crate) fn restore_sigpipe() {
    // SAFETY: sets a signal to its default action in a process with one thread; no handler of ours is involved.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Sends `signal`, by number, to one process or (if negative) to a process group.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two integers and touches no memory.
    let done = unsafe { libc::kill(pid, signal) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
