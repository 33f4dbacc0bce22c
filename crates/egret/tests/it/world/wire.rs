//! What passed over a machine's network interfaces.
//!
//! A [`Wire`] sees every IP packet that any process of the machine sends on any interface, `lo` included, whatever
//! its protocol. So "nothing got out" is asked of the kernel and not only of servers that might not have listened.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::machine::Machine;

/// A running record of a machine's packets.
pub(crate) struct Wire {
    seen: Arc<Mutex<Vec<Packet>>>,
}

/// One IP packet.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) protocol: u8,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The destination port of TCP and UDP, else 0.
    pub(crate) port: u16,
    /// What follows the TCP or UDP header, or the IP header of other protocols.
    pub(crate) payload: Vec<u8>,
}

impl Wire {
    /// Listens on all interfaces of `machine` from now on.
    pub(crate) fn tap(machine: &Machine) -> Wire {
        let socket = machine.in_network(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .unwrap();
            // It looks up now and then, to see whether anybody still wants to know.
            setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(1)).unwrap();
            setsockopt(&socket, RcvBufForce, &(16 << 20)).unwrap();
            socket
        });
        let seen = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::downgrade(&seen);
        std::thread::spawn(move || {
            let socket: OwnedFd = socket;
            let mut buffer = vec![0; 70_000];
            // Only the start is kept: tests that move gigabytes do not want them twice.
            loop {
                let got = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
                let Some(store) = store.upgrade() else { return };
                let Ok(length) = got else { continue };
                if let Some(packet) = Packet::read(&buffer[..length]) {
                    let mut store = store.lock().unwrap();
                    if store.len() < MOST {
                        store.push(packet);
                    }
                }
            }
        });
        Wire { seen }
    }

    /// The packets seen so far that say something: neighbour discovery and multicast housekeeping do not.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        // A packet is on record a moment after it was sent.
        std::thread::sleep(Duration::from_millis(5));
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|packet| !packet.is_housekeeping())
            .cloned()
            .collect()
    }

    /// Forgets what was seen.
    pub(crate) fn forget(&self) {
        std::thread::sleep(Duration::from_millis(5));
        self.seen.lock().unwrap().clear();
    }
}

impl Packet {
    fn read(ip: &[u8]) -> Option<Packet> {
        let (protocol, source, destination, rest): (_, IpAddr, IpAddr, _) = match ip.first()? >> 4 {
            4 => {
                let four = |at: usize| {
                    Some(Ipv4Addr::from(
                        <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?,
                    ))
                };
                (
                    *ip.get(9)?,
                    four(12)?.into(),
                    four(16)?.into(),
                    ip.get(usize::from(ip[0] & 15) * 4..)?,
                )
            }
            6 => {
                let six = |at: usize| {
                    Some(Ipv6Addr::from(
                        <[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?,
                    ))
                };
                let (protocol, skip) = match *ip.get(6)? {
                    0 => (*ip.get(40)?, 40 + 8 + usize::from(*ip.get(41)?) * 8),
                    other => (other, 40),
                };
                (protocol, six(8)?.into(), six(24)?.into(), ip.get(skip..)?)
            }
            _ => return None,
        };
        let port = if matches!(protocol, TCP | UDP) {
            u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?])
        } else {
            0
        };
        let header = match protocol {
            TCP => usize::from(rest.get(12)? >> 4) * 4,
            UDP => 8,
            _ => 0,
        };
        let payload = rest.get(header..)?.iter().copied().take(512).collect();
        Some(Packet {
            protocol,
            source,
            destination,
            port,
            payload,
        })
    }

    fn is_housekeeping(&self) -> bool {
        let kind = self.payload.first().copied().unwrap_or(0);
        (self.protocol == ICMPV6 && (130..=143).contains(&kind)) || self.protocol == IGMP
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet {
            protocol,
            source,
            destination,
            port,
            payload,
        } = self;
        write!(
            f,
            "protocol {protocol} {source} -> {destination} port {port} {:?}",
            String::from_utf8_lossy(payload)
        )
    }
}

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
/// No test needs more packets than this.
const MOST: usize = 200_000;
