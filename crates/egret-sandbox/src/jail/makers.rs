//! What is needed to tell, from outside, which program made a connection in here; read by [`Makers`](crate::Makers).

use super::mounts::new_mount;
use crate::error::{Cause, at};
use crate::netlink::Socket;
use rustix::fs::{self, Mode, OFlags};
use rustix::net::netlink;
use std::os::fd::OwnedFd;

/// A view of this process namespace, and a socket that can be asked about this network namespace's sockets.
#[derive(Debug)]
pub(super) struct Views {
    sockets: Option<OwnedFd>,
    processes: OwnedFd,
}

/// Opens both. To be called while there are capabilities, and before anything is laid over `/proc`.
pub(super) fn open() -> Result<Views, Cause> {
    Ok(Views {
        // A kernel without it seals as well as any other; nobody can tell then who made a connection.
        sockets: Socket::open(Some(netlink::SOCK_DIAG))
            .ok()
            .map(Socket::into_descriptor),
        // One that is mounted nowhere, so that nothing can be mounted over parts of it.
        processes: new_mount("proc", &[])?,
    })
}

impl Views {
    /// All that [`Makers`](crate::Makers) takes, in its order: with this process's root, which has to be the sandbox's by
    /// now. Nothing where connections cannot be told apart.
    pub(super) fn with_root(self) -> Result<Vec<OwnedFd>, Cause> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open("/", flags, Mode::empty()).map_err(at("/"))?;
        Ok(self
            .sockets
            .map(|sockets| vec![sockets, self.processes, root])
            .unwrap_or_default())
    }
}
