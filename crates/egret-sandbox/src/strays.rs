//! Packets that a sandboxed program sent and that nothing carries: UDP to elsewhere, pings.
//!
//! They were refused by the kernel, inside, before anybody hears of them here. This is for the record only, and what
//! arrives was written by the program, so nothing is trusted to be well-formed.

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A netlink socket, made inside a sandbox, that gets a copy of every refused packet's headers. Non-blocking.
#[derive(Debug)]
pub struct Strays(OwnedFd);

/// A refused packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stray {
    /// `udp`, `icmp` or `icmpv6`.
    pub protocol: &'static str,
    /// Where it was to go.
    pub address: IpAddr,
    /// The port it was to go to, for UDP.
    pub port: Option<u16>,
}

impl Strays {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// All that has arrived and can be understood, or as much of it as is taken at once. Never waits.
    #[must_use]
    pub fn drain(&self) -> Vec<Stray> {
        let mut found = Vec::new();
        let mut buffer = [0; 16 << 10];
        while found.len() < MOST_AT_ONCE {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => found.extend(strays(buffer.get(..length).unwrap_or_default())),
                // More were sent than the socket holds. What is lost was refused all the same.
                Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        found
    }
}

/// A flood is taken in portions, so that whoever reads gets to other things in between.
const MOST_AT_ONCE: usize = 1024;

impl AsFd for Strays {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const PACKET: u16 = 4 << 8; // NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET
const PAYLOAD: u16 = 9; // NFULA_PAYLOAD

/// The packets in a buffer of netlink messages.
fn strays(buffer: &[u8]) -> Vec<Stray> {
    records(buffer, 16, |header| {
        Some((u32_at(header, 0)? as usize, u16_at(header, 4)?))
    })
    .filter(|(kind, _)| *kind == PACKET)
    // Four bytes of struct nfgenmsg, then attributes: length, type, value.
    .filter_map(|(_, body)| body.get(4..))
    .flat_map(|attributes| {
        records(attributes, 4, |header| {
            Some((u16_at(header, 0)?.into(), u16_at(header, 2)?))
        })
    })
    .filter(|(kind, _)| *kind == PAYLOAD)
    .filter_map(|(_, packet)| stray(packet))
    .collect()
}

/// Walks over records that begin with a header of `size` bytes, from which `read` takes the record's length and kind.
fn records(
    mut rest: &[u8],
    size: usize,
    read: impl Fn(&[u8]) -> Option<(usize, u16)>,
) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = read(rest)?;
        let body = rest.get(size..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Where a packet was to go, by its IP header (RFC 791, RFC 8200; extension headers are not looked behind).
fn stray(packet: &[u8]) -> Option<Stray> {
    let version = packet.first()? >> 4;
    let (number, address, transport): (u8, IpAddr, &[u8]) = match version {
        4 => {
            let length = usize::from(packet.first()? & 0xf) * 4;
            let address = Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?);
            (*packet.get(9)?, address.into(), packet.get(length..)?)
        }
        6 => {
            let address = Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?);
            (*packet.get(6)?, address.into(), packet.get(40..)?)
        }
        _ => return None,
    };
    let (protocol, port) = match number {
        17 => (
            "udp",
            transport
                .get(2..)?
                .first_chunk::<2>()
                .map(|port| u16::from_be_bytes(*port)),
        ),
        1 => ("icmp", None),
        58 => ("icmpv6", None),
        _ => return None,
    };
    Some(Stray {
        protocol,
        address,
        port,
    })
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk::<2>()
        .map(|value| u16::from_ne_bytes(*value))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk::<4>()
        .map(|value| u32::from_ne_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_v4(to: [u8; 4], port: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1];
        packet.extend(to);
        packet.extend([0x80, 0]);
        packet.extend(port.to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        packet
    }

    fn message(kind: u16, packet: &[u8]) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 1];
        body.extend((packet.len() as u16 + 4).to_ne_bytes());
        body.extend(PAYLOAD.to_ne_bytes());
        body.extend(packet);
        body.resize(body.len().next_multiple_of(4), 0);
        let mut message = (body.len() as u32 + 16).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn a_packet_tells_where_it_was_to_go() {
        let two = [
            message(PACKET, &udp_v4([8, 8, 8, 8], 443)),
            message(PACKET, &udp_v4([9, 9, 9, 9], 123)),
        ]
        .concat();
        let expected = [([8, 8, 8, 8], 443), ([9, 9, 9, 9], 123)].map(|(to, port)| Stray {
            protocol: "udp",
            address: to.into(),
            port: Some(port),
        });
        assert_eq!(strays(&two), expected);
        assert_eq!(strays(&message(2, &udp_v4([8, 8, 8, 8], 443))), []);
    }

    #[test]
    fn what_is_cut_short_or_lies_about_its_length_is_passed_over() {
        let whole = message(PACKET, &udp_v4([8, 8, 8, 8], 443));
        for length in 0..whole.len() {
            assert!(strays(&whole[..length]).is_empty(), "{length} bytes");
        }
        for byte in 0..whole.len() {
            let mut bent = whole.clone();
            bent[byte] = 0xff;
            assert!(strays(&bent).len() <= 1);
        }
    }
}
