//! The rules that make connections arrive at the doors, as messages for the kernel (`linux/netfilter/nf_tables.h`).

use super::strays;
use crate::doors::Ports;
use crate::guard::stands;
use crate::netlink::{ACK, APPEND, Attributes, Batch, CREATE, EXCLUSIVE, Socket};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;

use super::{AF_INET, AF_INET6, LOOPBACK};

const TABLE: &str = "egret";
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const SUBSYSTEM: u16 = 10;
const FAMILY_INET: u8 = 1;
const HOOK_INPUT: u32 = 1;
const HOOK_OUTPUT: u32 = 3;
const PRIORITY_RAW: i32 = -300;
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
    /// Load whether the packet is the answer to an earlier one (`IP_CT_DIR_*`).
    Direction,
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
    /// Keep no note of the connection.
    Untracked,
    /// Send the packet to this port of loopback, and end.
    Redirect(u16),
    /// End with this verdict (`NF_*`, `NFT_*`).
    Verdict(i32),
}

const META_INPUT: u32 = 4;
const META_OUTPUT: u32 = 5;
const META_L4PROTO: u32 = 16;
const META_NFPROTO: u32 = 15;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const ORIGINAL: u8 = 0;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const RETURN: i32 = -5;

/// Loads the ruleset, all of it or nothing:
///
/// ```text
/// table inet egret {
///     chain asked  { type filter hook output priority raw;
///         meta l4proto tcp ip daddr 127.0.0.0/8 tcp dport PROXY notrack
///         meta l4proto tcp ip saddr 127.0.0.0/8 tcp sport PROXY notrack }
///     chain out    { type nat hook output priority dstnat;
///         udp dport 53 redirect to :DNS
///         tcp dport 53 redirect to :DNS
///         meta l4proto tcp ip daddr 127.0.0.0/8 return
///         meta l4proto tcp ip6 daddr ::1 return
///         meta l4proto tcp redirect to :CAPTURE }
///     chain filter { type filter hook output priority filter;
///         oif lo meta l4proto tcp accept
///         ct direction original meta l4proto udp ip daddr != 127.0.0.0/8 log group GROUP
///         ct direction original meta l4proto udp ip6 daddr != ::1 log group GROUP
///         icmp type echo-request log group GROUP drop
///         icmpv6 type echo-request log group GROUP drop
///         oif != lo drop }
///     chain arrived { type filter hook input priority filter;
///         iif != lo drop }
/// }
/// ```
///
/// There is no other interface. One that somebody plugs in later, with privileges outside, finds its traffic dropped: the
/// route that makes every address local is not the only one then.
///
/// Whoever asks the proxy need not be redirected, so the kernel keeps no note of that connection, which would cost time with
/// each packet and memory for two minutes after its end.
///
/// The drops of echo requests make `ping` fail at once: otherwise the kernel, to which every address is its own, would
/// answer it. What is logged goes nowhere in any case; logging lets the gateway put the attempt on record. A kernel without
/// `nfnetlink_log` seals as well as any other and has nobody to tell (`None`).
pub(super) fn redirect(socket: &Socket, ports: Ports) -> io::Result<Option<OwnedFd>> {
    match strays::listen()
        .and_then(|listener| ruleset(ports, true).commit(socket).map(|()| listener))
    {
        Ok(listener) => Ok(Some(listener)),
        Err(_) => ruleset(ports, false).commit(socket).map(|()| None),
    }
}

fn ruleset(ports: Ports, log: bool) -> Batch {
    use Step::{Differs, Direction, Equals, Log, Meta, Payload, Redirect, Untracked, Verdict};
    let protocol = |number: u8| vec![Meta(META_L4PROTO), Equals(vec![number])];
    let port = |offset: u32, number: u16| {
        vec![
            Payload {
                header: TRANSPORT_HEADER,
                offset,
                length: 2,
            },
            Equals(number.to_be_bytes().into()),
        ]
    };
    let port_53 = || port(2, 53);
    let family = |number: u8| vec![Meta(META_NFPROTO), Equals(vec![number])];
    let v4_first_octet = |offset: u32| {
        vec![Payload {
            header: NETWORK_HEADER,
            offset,
            length: 1,
        }]
    };
    let v4_destination = || v4_first_octet(16);
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
    chain(&mut batch, "asked", "filter", HOOK_OUTPUT, PRIORITY_RAW);
    chain(&mut batch, "out", "nat", HOOK_OUTPUT, PRIORITY_DSTNAT);
    chain(&mut batch, "filter", "filter", HOOK_OUTPUT, PRIORITY_FILTER);
    chain(&mut batch, "arrived", "filter", HOOK_INPUT, PRIORITY_FILTER);
    // Where the address stands in the IPv4 header, and the port in that of TCP.
    let asked = [(16, 2), (12, 0)].map(|(address, at)| {
        vec![
            protocol(TCP),
            family(AF_INET),
            v4_first_octet(address),
            vec![Equals(v4_loopback.clone())],
            port(at, ports.proxy),
            vec![Untracked],
        ]
    });
    let mut out = vec![
        vec![protocol(UDP), port_53(), vec![Redirect(ports.dns)]],
        vec![protocol(TCP), port_53(), vec![Redirect(ports.dns)]],
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
        vec![protocol(TCP), vec![Redirect(ports.capture)]],
    ];
    if !stands("redirect") {
        out.clear();
    }
    let lo = || LOOPBACK.to_ne_bytes().to_vec();
    let mut filter = vec![
        // Nearly everything is this.
        vec![
            vec![Meta(META_OUTPUT), Equals(lo())],
            protocol(TCP),
            vec![Verdict(ACCEPT)],
        ],
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
            vec![Direction, Equals(vec![ORIGINAL])],
            family(AF_INET),
            v4_destination(),
            vec![Differs(v4_loopback)],
            reported.clone(),
        ]);
        filter.push(vec![
            protocol(UDP),
            vec![Direction, Equals(vec![ORIGINAL])],
            family(AF_INET6),
            v6_destination(),
            vec![Differs(v6_loopback)],
            reported,
        ]);
    }
    let elsewhere = |by: u32| vec![vec![Meta(by), Differs(lo()), Verdict(DROP)]];
    filter.push(elsewhere(META_OUTPUT));
    let arrived = vec![elsewhere(META_INPUT)];
    for (name, rules) in [
        ("asked", asked.to_vec()),
        ("out", out.to_vec()),
        ("filter", filter),
        ("arrived", arrived),
    ] {
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

fn chain(batch: &mut Batch, name: &str, kind: &str, hook: u32, priority: i32) {
    batch.message(
        nft(NEWCHAIN),
        CREATE | ACK,
        &nf_header(FAMILY_INET, 0),
        |attributes| {
            attributes.text(1, TABLE).text(3, name);
            attributes.nested(4, |attached| {
                attached.number(1, hook).number(2, priority.cast_unsigned());
            });
            attributes.number(5, ACCEPT.cast_unsigned()).text(7, kind);
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
    const CT_DIRECTION: u32 = 1; // NFT_CT_DIRECTION
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
        Step::Direction => expression("ct", &|data| {
            data.number(1, REGISTER).number(2, CT_DIRECTION);
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
        Step::Untracked => expression("notrack", &|_| {}),
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
