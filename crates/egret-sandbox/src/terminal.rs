//! The terminal that egret shares with the program.

use crate::sys::process::process_group;
use crate::sys::signals::kill;
use rustix::process::Pid;
use rustix::termios::{isatty, tcgetpgrp, tcsetpgrp};
use std::fs::File;
use std::io;

/// The controlling terminal, if there is one.
#[derive(Debug)]
pub(crate) struct Terminal {
    file: Option<File>,
    /// `None` if our process group was made outside this process namespace, as with `docker exec`.
    ours: Option<Pid>,
}

impl Terminal {
    pub(crate) fn current() -> Self {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()
            .filter(|file| isatty(file));
        Self {
            file,
            ours: process_group(),
        }
    }

    /// Whether the foreground group is ours, so that what is typed reaches the program as it reaches us.
    pub(crate) fn is_shared(&self) -> bool {
        self.foreground()
            .is_none_or(|group| Some(group) == self.ours)
    }

    /// Makes our group the foreground again: a shell in the sandbox had put its own there, and cannot name ours.
    pub(crate) fn take_back(&self) {
        if let (Some(file), Some(ours)) = (&self.file, self.ours)
            && self
                .foreground()
                .is_some_and(|group| group != ours && !exists(group))
        {
            // SIGTTOU is blocked, so this works from the background; a terminal that is gone meanwhile needs none of it.
            let (Ok(()) | Err(_)) = tcsetpgrp(file, ours);
        }
    }

    /// Stops this process, since the program was stopped, and says so once it was told to continue.
    ///
    /// Only for the sake of a shell, which wants to know. Where there is no terminal nobody would let us continue, and there
    /// is somebody else to serve: those who want to stop the sandbox, and the rest of its processes.
    pub(crate) fn stop_with_program(&self) -> io::Result<bool> {
        if self.file.is_none() {
            return Ok(false);
        }
        let before = self.foreground().filter(|group| Some(*group) != self.ours);
        if let (Some(file), Some(ours), Some(_)) = (&self.file, self.ours, before) {
            tcsetpgrp(file, ours)?;
        }
        kill(
            rustix::process::getpid().as_raw_nonzero().get(),
            libc::SIGSTOP,
        )?;
        // A shell has resumed us. If that was `fg`, what had the terminal in the sandbox gets it again.
        if let (Some(file), Some(group)) = (&self.file, before)
            && self.foreground() == self.ours
            && exists(group)
        {
            tcsetpgrp(file, group)?;
        }
        Ok(true)
    }

    fn foreground(&self) -> Option<Pid> {
        self.file.as_ref().and_then(|file| tcgetpgrp(file).ok())
    }
}

fn exists(group: Pid) -> bool {
    rustix::process::test_kill_process_group(group).is_ok()
}
