//! Why a sandbox could not be had.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is no sandbox. Nothing of the user's was started in any of these cases.
#[derive(Debug, Error)]
pub enum Error {
    /// A process or socket pair for the jail could not be had.
    #[error("cannot start the process that builds the sandbox")]
    Spawn(#[source] io::Error),
    /// The program was to get a descriptor that leads out of the sandbox.
    #[error(
        "{name} {what}, and would be a way out of the sandbox; put a pipe in between, such as `| cat`"
    )]
    Standard {
        /// Which of the three.
        name: &'static str,
        /// What it is.
        what: String,
    },
    /// A step of building the sandbox failed.
    #[error("cannot {step}: {cause}{}", advice(.step, *.errno))]
    Jail {
        /// What was being done.
        step: Step,
        /// The kernel's answer, where it was one.
        errno: Option<i32>,
        /// What went wrong with what.
        cause: String,
    },
    /// The sandbox stands, and its traffic does not arrive where it must.
    #[error("the sandbox's network is not sealed: {0}; the program was not started")]
    NotSealed(String),
    /// The program could not be executed; `errno` tells "not found" from "not executable".
    #[error("cannot run `{program}`: {}", io::Error::from_raw_os_error(*.errno))]
    Program {
        /// The program as it was named.
        program: String,
        /// The kernel's answer.
        errno: i32,
    },
    /// The jail ended without a word.
    #[error("the sandbox ended before the program was started")]
    Vanished,
    /// Talking to the jail failed.
    #[error("lost contact with the sandbox")]
    Channel(#[source] io::Error),
    /// The agent of a container sandbox cannot be talked to.
    #[error("cannot get the sandbox's doors from its agent at `{path}`")]
    Agent {
        /// The agent's socket.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The agent of a container sandbox serves another gateway.
    #[error("another gateway serves this sandbox; stop that one first")]
    Busy,
}

/// A step of building a sandbox, as the end of "cannot …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, Error)]
pub enum Step {
    /// `unshare(2)`, the user namespace among the rest.
    #[error("make namespaces")]
    Namespaces,
    /// Writing the maps of user and group ids.
    #[error("map user ids into the sandbox")]
    Ids,
    /// Routes, rules and listeners.
    #[error("seal the sandbox's network")]
    Seal,
    /// The same, in a namespace that an engine made.
    #[error("seal the container's network")]
    SealContainer,
    /// Listening for the gateway.
    #[error("wait for the gateway")]
    Control,
    /// Opening listeners in a namespace that was sealed before.
    #[error("open the sandbox's doors")]
    Doors,
    /// The file system.
    #[error("build the sandbox's file system")]
    Files,
    /// Capabilities, Landlock and system call filters.
    #[error("give up privileges")]
    Privileges,
    /// Watching over the program.
    #[error("watch over the program")]
    Watch,
}

impl Error {
    pub(crate) fn jail(step: Step, cause: impl Into<Cause>) -> Self {
        let Cause { errno, message } = cause.into();
        Self::Jail {
            step,
            errno,
            cause: message,
        }
    }
}

/// What went wrong in a step, and with what.
#[derive(Debug)]
pub(crate) struct Cause {
    pub(crate) errno: Option<i32>,
    pub(crate) message: String,
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self {
            errno: error.raw_os_error(),
            message: error.to_string(),
        }
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// Names the path that an operation failed on.
pub(crate) fn at<E: Into<io::Error>>(path: impl AsRef<Path>) -> impl FnOnce(E) -> Cause {
    move |error| {
        let Cause { errno, message } = error.into().into();
        Cause {
            errno,
            message: format!("{}: {message}", path.as_ref().display()),
        }
    }
}

/// What to do about it, where that can be known.
fn advice(step: &Step, errno: Option<i32>) -> String {
    match (step, errno) {
        (Step::SealContainer, Some(libc::EPERM | libc::EACCES)) => {
            "; the agent's container needs the capability NET_ADMIN (--cap-add NET_ADMIN)".into()
        }
        (Step::Doors, Some(libc::EADDRINUSE)) => {
            "; a program in the sandbox holds that port, which Egret needs for itself".into()
        }
        _ => namespaces_advice(step, errno),
    }
}

/// Which of the switches that turn user namespaces off is set.
fn namespaces_advice(step: &Step, errno: Option<i32>) -> String {
    let setting = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    if !matches!(
        step,
        Step::Namespaces | Step::Ids | Step::Seal | Step::Files
    ) {
        return String::new();
    }
    let refused = matches!(
        errno,
        Some(libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS | libc::EINVAL)
    );
    if !refused {
        return String::new();
    }
    if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return "; user namespaces are switched off here: set user.max_user_namespaces to 15000 or more \
                (sudo sysctl user.max_user_namespaces=15000)"
            .into();
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "; user namespaces are switched off here for ordinary users: allow them \
                (sudo sysctl kernel.unprivileged_userns_clone=1) or run egret as root"
            .into();
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return "; AppArmor restricts user namespaces here: allow them \
                (sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0), give egret an AppArmor profile with \
                `userns,`, or run egret as root"
            .into();
    }
    if *step == Step::Namespaces {
        return "; inside a container this needs a seccomp profile that allows user namespaces \
                (docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined)"
            .into();
    }
    String::new()
}
