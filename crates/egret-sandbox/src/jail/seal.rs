//! Sealing the network namespace: every address is local, every connection ends at one of our listeners.
//!
//! The namespace has `lo` and nothing else, so nothing that is sent in it can leave. What is left to do is to make
//! attempts *arrive*: a route says that every address there is belongs to this machine, and an nftables chain on output
//! turns DNS towards one listener and all other TCP, but to loopback, towards another. `SO_ORIGINAL_DST` then tells where
//! a connection wanted to go. UDP to elsewhere finds no socket and is refused by the kernel at once.
//!
//! [`seal`] sets this up and [`Probe`] lets the outside check that it works; who may connect where is not decided here.

use super::strays;
use crate::doors::{CAPTURE_PORT, DNS_PORT, Doors, PROXY_PORT};
use crate::netlink::{ACK, APPEND, Attributes, Batch, CREATE, EXCLUSIVE, Socket};
use rustix::io::Errno;
use rustix::net::{self, netlink};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;

/// Seals this process's network namespace and opens the listeners in it, and the socket that hears of strays.
///
/// # Errors
/// Any step that the kernel refuses, and any interface besides `lo` that is up.
pub(super) fn seal() -> io::Result<(Doors, Option<OwnedFd>)> {
    let routes = Socket::open(None)?;
    only_loopback(&routes)?;
    let families = raise_loopback(&routes)?;
    let strays = redirect(&Socket::open(Some(netlink::NETFILTER))?)?;
    Ok((open_doors(&families)?, strays))
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
        if index != LOOPBACK && flags & IFF_UP != 0 {
            return Err(io::Error::other(format!(
                "interface {index} is up in a namespace that should have only lo"
            )));
        }
    }
    Ok(())
}

/// Brings `lo` up, makes every address local to it, and says which loopback addresses can be listened on.
fn raise_loopback(socket: &Socket) -> io::Result<Vec<IpAddr>> {
    // A namespace may be born with IPv6 switched off. Then there is nothing to catch, but a program that switched it on
    // later would find nothing listening either way, so this is about serving IPv6, not about holding it.
    for scope in ["all", "default", "lo"] {
        match std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "0") {
            Err(error) if error.kind() != io::ErrorKind::NotFound && !read_only(&error) => {
                return Err(error);
            }
            _ => {}
        }
    }
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

// ---- rules: linux/netfilter/nf_tables.h ----

const TABLE: &str = "egret";
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const SUBSYSTEM: u16 = 10;
const FAMILY_INET: u8 = 1;
const HOOK_OUTPUT: u32 = 3;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// One step of a rule, working on register 1.
#[derive(Clone, Debug)]
enum Step {
    /// Load a fact about the packet (`NFT_META_*`).
    Meta(u32),
    /// Load bytes of the packet, counted from a header (`NFT_PAYLOAD_*`).
    Payload {
        header: u32,
        offset: u32,
        length: u32,
    },
    /// Go on only if what was loaded is this.
    Equals(Vec<u8>),
    /// Go on only if what was loaded is not this.
    Differs(Vec<u8>),
    /// Give a copy of the packet's headers to whoever listens to this netlink group.
    Log(u16),
    /// Send the packet to this port of loopback, and end.
    Redirect(u16),
    /// End with this verdict (`NF_*`, `NFT_*`).
    Verdict(i32),
}

const META_L4PROTO: u32 = 16;
const META_NFPROTO: u32 = 15;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const DROP: i32 = 0;
const RETURN: i32 = -5;

/// Loads the ruleset, all of it or nothing:
///
/// ```text
/// table inet egret {
///     chain out    { type nat hook output priority dstnat;
///         udp dport 53 redirect to :DNS_PORT
///         tcp dport 53 redirect to :DNS_PORT
///         meta l4proto tcp ip daddr 127.0.0.0/8 return
///         meta l4proto tcp ip6 daddr ::1 return
///         meta l4proto tcp redirect to :CAPTURE_PORT }
///     chain filter { type filter hook output priority filter;
///         meta l4proto udp ip daddr != 127.0.0.0/8 log group GROUP
///         meta l4proto udp ip6 daddr != ::1 log group GROUP
///         icmp type echo-request log group GROUP drop
///         icmpv6 type echo-request log group GROUP drop }
/// }
/// ```
///
/// The drops make `ping` fail at once: otherwise the kernel, to which every address is its own, would answer it. What is
/// logged goes nowhere in any case; logging lets the gateway put the attempt on record. A kernel without `nfnetlink_log`
/// seals as well as any other and has nobody to tell (`None`).
fn redirect(socket: &Socket) -> io::Result<Option<OwnedFd>> {
    match strays::listen().and_then(|listener| ruleset(true).commit(socket).map(|()| listener)) {
        Ok(listener) => Ok(Some(listener)),
        Err(_) => ruleset(false).commit(socket).map(|()| None),
    }
}

fn ruleset(log: bool) -> Batch {
    use Step::{Differs, Equals, Log, Meta, Payload, Redirect, Verdict};
    let protocol = |number: u8| vec![Meta(META_L4PROTO), Equals(vec![number])];
    let port_53 = || {
        vec![
            Payload {
                header: TRANSPORT_HEADER,
                offset: 2,
                length: 2,
            },
            Equals(53u16.to_be_bytes().into()),
        ]
    };
    let family = |number: u8| vec![Meta(META_NFPROTO), Equals(vec![number])];
    let v4_destination = || {
        vec![Payload {
            header: NETWORK_HEADER,
            offset: 16,
            length: 1,
        }]
    };
    let v6_destination = || {
        vec![Payload {
            header: NETWORK_HEADER,
            offset: 24,
            length: 16,
        }]
    };
    let (v4_loopback, v6_loopback) = (vec![127], Ipv6Addr::LOCALHOST.octets().to_vec());
    let reported = if log {
        vec![Log(strays::GROUP)]
    } else {
        Vec::new()
    };
    let icmp_type = |number: u8| {
        vec![
            Payload {
                header: TRANSPORT_HEADER,
                offset: 0,
                length: 1,
            },
            Equals(vec![number]),
        ]
    };

    let mut batch = Batch::default();
    batch.message(BATCH_BEGIN, 0, &nf_header(0, SUBSYSTEM), |_| {});
    batch.message(
        nft(NEWTABLE),
        CREATE | EXCLUSIVE | ACK,
        &nf_header(FAMILY_INET, 0),
        |attributes| {
            attributes.text(1, TABLE);
        },
    );
    chain(&mut batch, "out", "nat", PRIORITY_DSTNAT);
    chain(&mut batch, "filter", "filter", PRIORITY_FILTER);
    let out = [
        vec![protocol(UDP), port_53(), vec![Redirect(DNS_PORT)]],
        vec![protocol(TCP), port_53(), vec![Redirect(DNS_PORT)]],
        vec![
            protocol(TCP),
            family(AF_INET),
            v4_destination(),
            vec![Equals(v4_loopback.clone()), Verdict(RETURN)],
        ],
        vec![
            protocol(TCP),
            family(AF_INET6),
            v6_destination(),
            vec![Equals(v6_loopback.clone()), Verdict(RETURN)],
        ],
        vec![protocol(TCP), vec![Redirect(CAPTURE_PORT)]],
    ];
    let mut filter = vec![
        vec![
            protocol(ICMP),
            icmp_type(8),
            reported.clone(),
            vec![Verdict(DROP)],
        ],
        vec![
            protocol(ICMPV6),
            icmp_type(128),
            reported.clone(),
            vec![Verdict(DROP)],
        ],
    ];
    if log {
        filter.push(vec![
            protocol(UDP),
            family(AF_INET),
            v4_destination(),
            vec![Differs(v4_loopback)],
            reported.clone(),
        ]);
        filter.push(vec![
            protocol(UDP),
            family(AF_INET6),
            v6_destination(),
            vec![Differs(v6_loopback)],
            reported,
        ]);
    }
    for (name, rules) in [("out", out.to_vec()), ("filter", filter)] {
        for steps in rules {
            rule(&mut batch, name, &steps.concat());
        }
    }
    batch.message(BATCH_END, 0, &nf_header(0, SUBSYSTEM), |_| {});
    batch
}

const fn nft(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// `struct nfgenmsg`: family, version, resource id in network byte order.
const fn nf_header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn chain(batch: &mut Batch, name: &str, kind: &str, priority: i32) {
    const ACCEPT: u32 = 1;
    batch.message(
        nft(NEWCHAIN),
        CREATE | ACK,
        &nf_header(FAMILY_INET, 0),
        |attributes| {
            attributes.text(1, TABLE).text(3, name);
            attributes.nested(4, |hook| {
                hook.number(1, HOOK_OUTPUT)
                    .number(2, priority.cast_unsigned());
            });
            attributes.number(5, ACCEPT).text(7, kind);
        },
    );
}

fn rule(batch: &mut Batch, chain: &str, steps: &[Step]) {
    batch.message(
        nft(NEWRULE),
        CREATE | APPEND | ACK,
        &nf_header(FAMILY_INET, 0),
        |attributes| {
            attributes.text(1, TABLE).text(2, chain).nested(4, |list| {
                steps.iter().for_each(|step| expressions(list, step))
            });
        },
    );
}

/// A step as expressions, the way `nft --debug=netlink` prints them.
fn expressions(list: &mut Attributes<'_>, step: &Step) {
    const REGISTER: u32 = 1;
    const VERDICT_REGISTER: u32 = 0;
    const EQUAL: u32 = 0;
    const NOT_EQUAL: u32 = 1;
    const HEADERS: u32 = 64; // bytes: an IPv6 header, and ports
    const PORT_GIVEN: u32 = 2; // NF_NAT_RANGE_PROTO_SPECIFIED
    let compare = |data: &mut Attributes<'_>, operator: u32, value: &[u8]| {
        data.number(1, REGISTER)
            .number(2, operator)
            .nested(3, |operand| {
                operand.bytes(1, value);
            });
    };
    let mut expression = |name: &str, data: &dyn Fn(&mut Attributes<'_>)| {
        list.nested(1, |element| {
            element.text(1, name).nested(2, data);
        });
    };
    match step {
        Step::Meta(key) => expression("meta", &|data| {
            data.number(1, REGISTER).number(2, *key);
        }),
        Step::Payload {
            header,
            offset,
            length,
        } => expression("payload", &|data| {
            data.number(1, REGISTER)
                .number(2, *header)
                .number(3, *offset)
                .number(4, *length);
        }),
        Step::Equals(value) => expression("cmp", &|data| compare(data, EQUAL, value)),
        Step::Differs(value) => expression("cmp", &|data| compare(data, NOT_EQUAL, value)),
        Step::Log(group) => expression("log", &|data| {
            data.bytes(1, &group.to_be_bytes()).number(3, HEADERS);
        }),
        Step::Redirect(port) => {
            expression("immediate", &|data| {
                data.number(1, REGISTER).nested(2, |operand| {
                    operand.bytes(1, &port.to_be_bytes());
                });
            });
            expression("redir", &|data| {
                data.number(1, REGISTER)
                    .number(2, REGISTER)
                    .number(3, PORT_GIVEN);
            });
        }
        Step::Verdict(verdict) => expression("immediate", &|data| {
            data.number(1, VERDICT_REGISTER).nested(2, |operand| {
                operand.nested(2, |code| {
                    code.number(1, verdict.cast_unsigned());
                });
            });
        }),
    }
}

// ---- listeners, and the proof ----

/// Connections that the kernel completes and keeps until the gateway accepts them.
const BACKLOG: i32 = 4096;

fn open_doors(families: &[IpAddr]) -> io::Result<Doors> {
    let listen = |port| -> io::Result<Vec<TcpListener>> {
        families
            .iter()
            .map(|&address| {
                let listener = TcpListener::bind(SocketAddr::new(address, port))?;
                listener.set_nonblocking(true)?;
                net::listen(&listener, BACKLOG)?; // the standard library's 128 is little for a burst
                Ok(listener)
            })
            .collect()
    };
    let dns_udp = families.iter().map(|&address| {
        let socket = UdpSocket::bind(SocketAddr::new(address, DNS_PORT))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    Ok(Doors {
        captured: listen(CAPTURE_PORT)?,
        proxy: listen(PROXY_PORT)?,
        dns_tcp: listen(DNS_PORT)?,
        dns_udp: dns_udp.collect::<io::Result<_>>()?,
    })
}

/// Traffic that leaves for documentation addresses (RFC 5737, RFC 3849) and must arrive at the listeners instead.
///
/// The connections are kept open until the outside has looked at them.
#[derive(Debug)]
pub(super) struct Probe {
    _connections: Vec<TcpStream>,
}

/// Where the probes pretend to go: one address for each address family.
pub(crate) const PROBED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// The port that the probes pretend to go to.
pub(crate) const PROBED_PORT: u16 = 9;

impl Probe {
    /// Sends `nonce` by TCP, and by UDP to port 53, once for each address family that `doors` serve.
    pub(super) fn send(doors: &Doors, nonce: &[u8]) -> io::Result<Self> {
        use std::io::Write as _;
        let mut connections = Vec::new();
        for address in PROBED.into_iter().take(doors.captured.len()) {
            let mut connection = TcpStream::connect(SocketAddr::new(address, PROBED_PORT))?;
            connection.write_all(nonce)?;
            connections.push(connection);
            let any = if address.is_ipv4() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            } else {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            };
            UdpSocket::bind(SocketAddr::new(any, 0))?
                .send_to(nonce, SocketAddr::new(address, 53))?;
        }
        Ok(Self {
            _connections: connections,
        })
    }
}
