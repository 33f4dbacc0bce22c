//! Hearing of changes to the machine's own addresses.

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A netlink socket that has something to be read once an address of this network namespace may have changed since the
/// last [`drain`](Self::drain) (rtnetlink(7)). Non-blocking.
#[derive(Debug)]
pub struct AddressChanges(OwnedFd);

impl AddressChanges {
    /// Listens from now on.
    ///
    /// # Errors
    /// There is no such socket to be had.
    pub fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Takes what has arrived. That something did is all there is to know: the addresses are listed anew. Never waits.
    pub fn drain(&self) {
        let mut buffer = [0; 8 << 10];
        loop {
            match net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                // Where more came than the socket holds, the rest is as good.
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for AddressChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
