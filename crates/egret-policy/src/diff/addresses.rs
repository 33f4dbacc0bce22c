//! The addresses that networks and classes tell apart.
//!
//! Of each run of addresses that are in the same networks and rows of the table of classes, the first is at an edge of one
//! of these. An IPv6 address that has an IPv4 address inside is judged by that too, so the edges of IPv4 are put into each
//! form that such an address may have.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::work::Work;
use crate::addr::{DOCKER_BRIDGE, behind, edges};

/// Addresses of which one may be taken for any public one, the readable ones first.
pub(crate) const PUBLIC: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111)),
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
    IpAddr::V4(Ipv4Addr::new(31, 13, 24, 1)),
    IpAddr::V4(Ipv4Addr::new(93, 184, 215, 14)),
    IpAddr::V4(Ipv4Addr::new(185, 199, 108, 1)),
];

/// Addresses of every kind that these networks tell apart, in their order.
pub(crate) fn candidates(nets: &[IpNet], work: &Work) -> BTreeSet<IpAddr> {
    let mut all = BTreeSet::new();
    if nets.is_empty() {
        return all;
    }
    all.extend(PUBLIC);
    for net in nets {
        all.insert(net.network());
        all.extend(behind(net));
    }
    let v6_net = |net: &IpNet| match net {
        IpNet::V6(net) => Some(*net),
        IpNet::V4(_) => None,
    };
    let v6_nets: Vec<Ipv6Net> = nets.iter().filter_map(v6_net).collect();
    if v6_nets.is_empty() {
        // An IPv4 address inside is decided on as it is by itself, where no network is of IPv6.
        all.extend(edges().filter(IpAddr::is_ipv4));
        return all;
    }
    all.extend(edges());
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in all.iter().copied().chain([DOCKER_BRIDGE]) {
        match address {
            IpAddr::V4(address) => v4.push(address),
            IpAddr::V6(address) => v6.push(address),
        }
    }
    for inner in v4 {
        if !work.spend(v6_nets.len() * FORMS.len() + v6.len()) {
            break;
        }
        let inner = u128::from(inner.to_bits());
        for form in FORMS {
            let address = form.prefix | (form.place)(inner);
            all.insert(IpAddr::V6(address.into()));
            let Ok(whole) = Ipv6Net::new(form.prefix.into(), form.len) else {
                continue;
            };
            let overlap = |net: &&Ipv6Net| net.contains(&whole) || whole.contains(*net);
            all.extend(v6_nets.iter().filter(overlap).map(|net| {
                let behind = u128::from(net.hostmask()) & address;
                IpAddr::V6((u128::from(net.network()) | behind).into())
            }));
        }
        // ISATAP, which may stand in every network (RFC 5214, section 6.1).
        let isatap = |address: &Ipv6Addr| {
            let front = u128::from(*address) & !u128::from(u64::MAX);
            [0x5efe, 0x200_5efe].map(|form| {
                let address = front | form << 32 | inner;
                IpAddr::V6(address.into())
            })
        };
        all.extend(v6.iter().flat_map(isatap));
    }
    all
}

/// A form of IPv6 addresses that have an IPv4 address inside: their prefix, and where the address stands behind it. See
/// `addr`, which reads them.
struct Form {
    prefix: u128,
    len: u8,
    place: fn(u128) -> u128,
}

#[rustfmt::skip]
const FORMS: &[Form] = &[
    Form { prefix: 0,                       len: 96, place: |inner| inner },
    Form { prefix: 0xffff_0000 << 32,       len: 96, place: |inner| inner },
    Form { prefix: 0x64_ff9b << 96,         len: 96, place: |inner| inner },
    Form { prefix: 0x64_ff9b_0001 << 80,    len: 48, place: |inner| inner },
    Form { prefix: 0x64_ff9b_0001 << 80,    len: 48, place: |inner| around_octet_8(inner << 40) },
    Form { prefix: 0x64_ff9b_0001 << 80,    len: 48, place: |inner| around_octet_8(inner << 32) },
    Form { prefix: 0x64_ff9b_0001 << 80,    len: 48, place: |inner| around_octet_8(inner << 24) },
    Form { prefix: 0x2002 << 112,           len: 16, place: |inner| inner << 80 },
    Form { prefix: 0x2001 << 112,           len: 32, place: |inner| inner << 64 | !SOME & LOW_32 },
    Form { prefix: 0x2001 << 112,           len: 32, place: |inner| SOME << 64 | !inner & LOW_32 },
];

const LOW_32: u128 = u32::MAX as u128;
/// A public address, for where there are two.
const SOME: u128 = 0x0101_0101;

/// The upper of 120 bits move up by one octet.
fn around_octet_8(bits: u128) -> u128 {
    let low = bits & ((1 << 56) - 1);
    (bits ^ low) << 8 | low
}
