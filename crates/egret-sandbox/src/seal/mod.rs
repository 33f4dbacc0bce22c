//! Sealing a network namespace: every address is local, every connection ends at one of our listeners.
//!
//! The namespace has `lo` and nothing else, so nothing that is sent in it can leave. What is left to do is to make
//! attempts *arrive*: a route says that every address there belongs to this machine, and an nftables chain on output
//! turns DNS towards one listener and all other TCP, but to loopback, towards another ([`rules`]). `SO_ORIGINAL_DST` then
//! tells where a connection wanted to go. UDP to elsewhere finds no socket and is refused by the kernel at once.
//!
//! [`Seal::set`] sets this up, once; [`Seal::open_doors`] opens the listeners, as often as somebody wants to serve them;
//! and what [`proof`] sends shows whoever has them that it works. Who may connect where is not decided here.

mod proof;
mod rules;
mod strays;

pub(crate) use proof::{Probe, nonce, prove};

use crate::doors::{Doors, Ports};
use crate::error::Cause;
use crate::guard::stands;
use crate::netlink::{ACK, Batch, CREATE, EXCLUSIVE, Socket};
use rustix::io::Errno;
use rustix::net::{self, netlink};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

/// A network namespace that is sealed.
#[derive(Debug)]
pub(crate) struct Seal {
    families: Vec<IpAddr>,
    ports: Ports,
}

impl Seal {
    /// Seals this process's network namespace towards `ports`, and opens the socket that hears of strays. This takes
    /// `CAP_NET_ADMIN`; what follows takes no privilege.
    ///
    /// # Errors
    /// Any step that the kernel refuses, and any interface besides `lo` that is up.
    pub(crate) fn set(ports: Ports) -> Result<(Self, Option<OwnedFd>), Cause> {
        if !stands("network-namespace") {
            let families = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
            return Ok((Self { families, ports }, None));
        }
        let routes = Socket::open(None)?;
        only_loopback(&routes)?;
        let families = raise_loopback(&routes).map_err(during("make every address local to lo"))?;
        let rules = Socket::open(Some(netlink::NETFILTER));
        let strays = rules
            .and_then(|socket| rules::redirect(&socket, ports))
            .map_err(during(
                "load nftables rules, for which the kernel needs nf_tables, nft_chain_nat and nft_redir",
            ))?;
        Ok((Self { families, ports }, strays))
    }

    /// Opens the listeners of a sealed namespace, which has to have no interface but `lo` still.
    ///
    /// # Errors
    /// A port that somebody holds, and an interface that has come up.
    pub(crate) fn open_doors(&self) -> Result<Doors, Cause> {
        only_loopback(&Socket::open(None)?)?;
        let Ports {
            capture,
            proxy,
            dns,
        } = self.ports;
        let each = |port: u16| {
            self.families
                .iter()
                .map(move |&ip| SocketAddr::new(ip, port))
        };
        let listeners = |port: u16| each(port).map(listen).collect::<Result<Vec<_>, _>>();
        Ok(Doors {
            captured: listeners(capture)?,
            proxy: listeners(proxy)?,
            dns_tcp: listeners(dns)?,
            dns_udp: each(dns).map(receive).collect::<Result<_, _>>()?,
        })
    }
}

/// Connections that the kernel completes and keeps until the gateway accepts them.
const BACKLOG: i32 = 4096;

fn listen(address: SocketAddr) -> Result<TcpListener, Cause> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        net::listen(&listener, BACKLOG)?; // the standard library's 128 is little for a burst
        Ok(listener)
    };
    open().map_err(during(&format!("listen at {address}")))
}

fn receive(address: SocketAddr) -> Result<UdpSocket, Cause> {
    let open = || {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    open().map_err(during(&format!("receive at UDP {address}")))
}

/// Says what was being done when something went wrong.
fn during(what: &str) -> impl FnOnce(io::Error) -> Cause {
    move |error| {
        let Cause { errno, message } = error.into();
        Cause {
            errno,
            message: format!("cannot {what}: {message}"),
        }
    }
}

// ---- links and routes: rtnetlink(7) ----

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTA_OIF: u16 = 4;
const IFF_UP: u32 = 1;
/// The first interface of every network namespace is `lo`.
const LOOPBACK: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Modules such as `ipip` put a tunnel interface into every new namespace; it is down and only a capability that the
/// program will not have can bring it up. An interface that *is* up would be a way out.
fn only_loopback(socket: &Socket) -> io::Result<()> {
    // struct ifinfomsg: family, pad, type (2), index (4), flags (4), change (4)
    for body in socket.dump(RTM_GETLINK, &[0; 16])? {
        let Some(&[_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..]) = body.first_chunk::<16>()
        else {
            return Err(Errno::BADMSG.into());
        };
        let (index, flags) = (
            u32::from_ne_bytes([i0, i1, i2, i3]),
            u32::from_ne_bytes([f0, f1, f2, f3]),
        );
        if index != LOOPBACK && flags & IFF_UP != 0 && stands("network-namespace") {
            return Err(io::Error::other(format!(
                "interface {index} is up in a namespace that should have only lo"
            )));
        }
    }
    Ok(())
}

/// Switches IPv6 on in this process's network namespace, if its kernel has it, for [`Seal::set`] to follow.
///
/// A namespace may be born with IPv6 switched off. Then there is nothing to catch, but a program that switched it on later
/// would find nothing listening either way, so this is about serving IPv6, not about holding it.
pub(crate) fn allow_ipv6() -> io::Result<()> {
    for scope in ["all", "default", "lo"] {
        match std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "0") {
            Err(error) if error.kind() != io::ErrorKind::NotFound && !read_only(&error) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Has the kernel forget sooner what has ended in this process's network namespace. A redirected connection stays in its
/// table for two minutes after its end, and a question about a name for half a minute; a few hundred of them a second, for as
/// long, fill it, and after that nothing is captured any more. Between processes of one machine nothing comes late.
///
/// Where this cannot be set, or there is no such table yet, the table's size is the bound.
pub(crate) fn forget_soon() {
    for setting in [
        "nf_conntrack_tcp_timeout_time_wait",
        "nf_conntrack_udp_timeout",
    ] {
        let (Ok(()) | Err(_)) = std::fs::write(format!("/proc/sys/net/netfilter/{setting}"), "5");
    }
}

/// Brings `lo` up, makes every address local to it, and says which loopback addresses can be listened on.
fn raise_loopback(socket: &Socket) -> io::Result<Vec<IpAddr>> {
    let mut up = Batch::default();
    let link = [
        &[0u8, 0, 0, 0][..],
        &LOOPBACK.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
    ]
    .concat();
    up.message(RTM_NEWLINK, ACK, &link, |_| {});
    any_address(&mut up, AF_INET);
    up.commit(socket)?;

    let mut families = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let mut v6 = Batch::default();
    any_address(&mut v6, AF_INET6);
    match v6.commit(socket) {
        Ok(()) => families.push(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        // No IPv6 in this kernel, or switched off for good: no IPv6 packet can be made in here, then.
        Err(error) if ipv6_is_off(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(families)
}

/// A route of type local for everything, also known as AnyIP: `ip route add local default dev lo`.
fn any_address(batch: &mut Batch, family: u8) {
    const TABLE_LOCAL: u8 = 255;
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_HOST: u8 = 254;
    const TYPE_LOCAL: u8 = 2;
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags (4)
    let route = [
        family,
        0,
        0,
        0,
        TABLE_LOCAL,
        PROTOCOL_STATIC,
        SCOPE_HOST,
        TYPE_LOCAL,
        0,
        0,
        0,
        0,
    ];
    batch.message(
        RTM_NEWROUTE,
        CREATE | EXCLUSIVE | ACK,
        &route,
        |attributes| {
            attributes.bytes(RTA_OIF, &LOOPBACK.to_ne_bytes());
        },
    );
}

fn read_only(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::ROFS)
        || error.kind() == io::ErrorKind::PermissionDenied
}

fn ipv6_is_off(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ACCESS | Errno::AFNOSUPPORT | Errno::OPNOTSUPP | Errno::NODEV)
    )
}
