//! The sockets through which a sandbox's traffic is caught, and how they get from inside to outside.

use crate::strays::Strays;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

// Above the range that Linux takes ephemeral ports from (32768 to 60999), so no program is given one of these by chance.

/// Port of loopback, inside the sandbox, where captured TCP arrives.
pub const CAPTURE_PORT: u16 = 61080;
/// Port of loopback, inside the sandbox, of the explicit proxy (HTTP and SOCKS5).
pub const PROXY_PORT: u16 = 61081;
/// Port of loopback, inside the sandbox, where DNS arrives, over UDP and TCP.
pub const DNS_PORT: u16 = 61053;

/// Where, on loopback inside the sandbox, the doors are. Unless told otherwise, at the constants of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Of captured TCP: [`CAPTURE_PORT`].
    pub capture: u16,
    /// Of the explicit proxy: [`PROXY_PORT`].
    pub proxy: u16,
    /// Of DNS, over UDP and TCP: [`DNS_PORT`].
    pub dns: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            capture: CAPTURE_PORT,
            proxy: PROXY_PORT,
            dns: DNS_PORT,
        }
    }
}

/// Non-blocking sockets that were made inside a sandbox, on its loopback addresses.
///
/// A socket stays in the network namespace it was made in, so whoever holds these serves the sandbox without being in it.
/// Each list has one socket for IPv4 and, if the sandbox has IPv6, a second one for that.
#[derive(Debug)]
pub struct Doors {
    /// All TCP that was on its way elsewhere. `SO_ORIGINAL_DST` says where.
    pub captured: Vec<TcpListener>,
    /// Connections of programs that know of the proxy.
    pub proxy: Vec<TcpListener>,
    /// DNS over TCP.
    pub dns_tcp: Vec<TcpListener>,
    /// DNS over UDP.
    pub dns_udp: Vec<UdpSocket>,
}

impl Doors {
    /// The descriptors in the order in which [`Doors::from_descriptors`] expects them.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let tcp = [&self.captured, &self.proxy, &self.dns_tcp];
        let udp = self.dns_udp.iter().map(AsFd::as_fd);
        tcp.into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .chain(udp)
            .collect()
    }

    /// Takes `descriptors` for the doors of `families` address families, and for word of strays if there is one more;
    /// `None` if there are too few or too many.
    pub(crate) fn from_descriptors(
        families: usize,
        descriptors: Vec<OwnedFd>,
    ) -> Option<(Self, Option<Strays>)> {
        let sockets = families.checked_mul(4)?;
        if families == 0 || !(sockets..=sockets + 1).contains(&descriptors.len()) {
            return None;
        }
        let mut rest = descriptors.into_iter();
        let mut listeners = || {
            rest.by_ref()
                .take(families)
                .map(TcpListener::from)
                .collect()
        };
        let (captured, proxy, dns_tcp) = (listeners(), listeners(), listeners());
        let dns_udp = rest.by_ref().take(families).map(UdpSocket::from).collect();
        Some((
            Self {
                captured,
                proxy,
                dns_tcp,
                dns_udp,
            },
            rest.next().map(Strays::new),
        ))
    }
}
