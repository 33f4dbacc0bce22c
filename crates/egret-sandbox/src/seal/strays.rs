//! Hearing of packets that nothing caught: a netlink socket to which the rules of [`super::rules`] send copies.
//!
//! The format is that of `linux/netfilter/nfnetlink_log.h`. What the copies say is read outside, by
//! [`Strays`](crate::Strays).

use crate::netlink::{ACK, Batch, Socket};
use rustix::net::netlink;
use std::io;
use std::os::fd::OwnedFd;

/// The group that the rules log to. Groups belong to a network namespace, so any number will do.
pub(super) const GROUP: u16 = 1;

const CONFIGURE: u16 = 4 << 8 | 1; // NFNL_SUBSYS_ULOG, NFULNL_MSG_CONFIG
const COMMAND: u16 = 1;
const MODE: u16 = 2;
const THRESHOLD: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const BYTES: u32 = 64;

/// Opens a socket that gets a copy of the headers of every logged packet, at once and one in a message.
pub(super) fn listen() -> io::Result<OwnedFd> {
    let socket = Socket::open(Some(netlink::NETFILTER))?;
    let [high, low] = GROUP.to_be_bytes();
    let header = [0, 0, high, low]; // struct nfgenmsg: family, version, group
    let mut batch = Batch::default();
    batch.message(CONFIGURE, ACK, &header, |attributes| {
        attributes.bytes(COMMAND, &[BIND]);
    });
    batch.message(CONFIGURE, ACK, &header, |attributes| {
        let [a, b, c, d] = BYTES.to_be_bytes();
        attributes
            .bytes(MODE, &[a, b, c, d, COPY_PACKET, 0])
            .number(THRESHOLD, 1);
    });
    batch.commit(&socket)?;
    socket.into_nonblocking()
}
