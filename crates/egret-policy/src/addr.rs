//! What kind of place an IP address is.
//!
//! One [table](SPECIAL) says it, from the special-purpose registries and the clouds' documentation. An IPv6 address
//! that has an IPv4 address inside is judged by both. What the table does not know to be public is reserved.
//!
//! Which addresses are the host's cannot be in a table; [`HostAddresses`] holds them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::guard::stands;
use crate::reason::Reason;

/// What kind of place an address is, from what is most easily opened to what never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Globally reachable: what an ordinary allow entry grants.
    Public,
    /// Set aside for documentation, benchmarks, transition or the future, or not known to be global.
    Reserved,
    /// A private network: RFC 1918, RFC 6598 (carrier-grade NAT), RFC 4193 (unique local).
    Private,
    /// On the link only (RFC 3927, RFC 4291).
    LinkLocal,
    /// The host that runs the sandbox, or the gateway of one of its container networks.
    Host,
    /// A group, not a machine.
    Multicast,
    /// `0.0.0.0/8` and `::`, which an operating system takes for itself.
    Unspecified,
    /// The machine itself.
    Loopback,
    /// A cloud's metadata service, which hands out credentials.
    Metadata,
}

impl Class {
    /// The word for it, as in `denied.address.link_local`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Reserved => "reserved",
            Self::Private => "private",
            Self::LinkLocal => "link_local",
            Self::Host => "host",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Metadata => "metadata",
        }
    }

    /// The word for it in a sentence.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::LinkLocal => "link-local",
            other => other.as_str(),
        }
    }

    /// Whether an entry's `addresses`, or an `address:` entry, can open it.
    pub const fn can_be_granted(self) -> bool {
        matches!(self, Self::Public | Self::Reserved | Self::Private)
    }

    /// The reason for refusing an address of this class; for a public one, that no entry names it.
    pub const fn denied(self) -> Reason {
        match self {
            Self::Public => Reason::DeniedLiteralAddress,
            Self::Reserved | Self::Unspecified => Reason::DeniedAddressReserved,
            Self::Private => Reason::DeniedAddressPrivate,
            Self::LinkLocal => Reason::DeniedAddressLinkLocal,
            Self::Host => Reason::DeniedAddressHost,
            Self::Multicast => Reason::DeniedAddressMulticast,
            Self::Loopback => Reason::DeniedAddressLoopback,
            Self::Metadata => Reason::DeniedAddressMetadata,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The addresses that are the host: what makes an address of class [`Class::Host`].
///
/// `172.17.0.1`, the default bridge of Docker, is always among them, also where nobody could be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddresses {
    own: Vec<IpAddr>,
    gateway: Vec<IpAddr>,
}

impl HostAddresses {
    /// The host's own interface addresses and the gateways of its container networks, as far as they are known.
    pub fn new(own: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut own: Vec<_> = own
            .into_iter()
            .map(|address| address.to_canonical())
            .collect();
        own.push(DOCKER_BRIDGE);
        own.sort_unstable();
        own.dedup();
        Self {
            own,
            gateway: Vec::new(),
        }
    }

    /// Says what the host-gateway names stand for in this runtime, loopback of the host included.
    pub fn with_gateway(mut self, addresses: Vec<IpAddr>) -> Self {
        self.gateway = addresses.iter().map(IpAddr::to_canonical).collect();
        self
    }

    /// The host's own addresses, in order.
    pub fn own(&self) -> &[IpAddr] {
        &self.own
    }

    /// What the host-gateway names (`host.docker.internal` and its kin) stand for in this runtime.
    pub fn gateway(&self) -> &[IpAddr] {
        &self.gateway
    }

    /// The class of an address, knowing which addresses are the host's.
    ///
    /// Loopback is never `host`: a program that says `127.0.0.1` means itself.
    pub fn class_of(&self, address: IpAddr) -> Class {
        if !stands("address-classes") {
            return Class::Public;
        }
        let class = class_of(address);
        let is_host = readings(address).any(|reading| {
            self.own.binary_search(&reading).is_ok() || self.gateway.contains(&reading)
        });
        match is_host {
            true => class.max(Class::Host),
            false => class,
        }
    }

    /// Whether a connection that was granted the host gateway may be dialled to this address.
    pub(crate) fn is_gateway(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self.class_of(address) {
            Class::Metadata => false,
            Class::Host => true,
            _ => self.gateway.contains(&address),
        }
    }
}

pub(crate) const DOCKER_BRIDGE: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1));

/// The class of an address, as far as it can be told without knowing the host: never [`Class::Host`].
pub fn class_of(address: IpAddr) -> Class {
    let address = address.to_canonical();
    let outer = table_class(address);
    match address {
        IpAddr::V4(_) => outer,
        IpAddr::V6(v6) => {
            let outer = if is_isatap(v6) {
                outer.max(Class::Reserved)
            } else {
                outer
            };
            inner_addresses(v6)
                .map(|inner| table_class(IpAddr::V4(inner)))
                .fold(outer, Class::max)
        }
    }
}

/// The address itself and the IPv4 addresses inside it.
pub(crate) fn readings(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let address = address.to_canonical();
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(inner_addresses(v6).map(IpAddr::V4)),
    };
    std::iter::once(address).chain(inner.into_iter().flatten())
}

/// The row with the longest prefix decides. Where there is none, IPv4 is public and IPv6 is reserved.
fn table_class(address: IpAddr) -> Class {
    let known = match address {
        IpAddr::V4(v4) => V4_BY_FIRST.get(usize::from(v4.octets()[0])),
        IpAddr::V6(v6) => V6_BY_FIRST.get(usize::from(v6.octets()[0])),
    };
    known
        .copied()
        .flatten()
        .unwrap_or_else(|| row_class(address))
}

fn row_class(address: IpAddr) -> Class {
    match (row_of(address), address) {
        (Some(row), _) => row.class,
        (None, IpAddr::V4(_)) => Class::Public,
        (None, IpAddr::V6(_)) => Class::Reserved,
    }
}

fn row_of(address: IpAddr) -> Option<&'static Row> {
    let rows = SPECIAL.iter().filter(|row| row.holds(address));
    rows.max_by_key(|row| row.len)
}

/// The class of all addresses that begin with an octet, for each octet; none where rows tell some of them apart. So most
/// addresses are known without looking through the rows.
static V4_BY_FIRST: [Option<Class>; 256] = by_first_octet(false);
static V6_BY_FIRST: [Option<Class>; 256] = by_first_octet(true);

#[expect(
    clippy::indexing_slicing,
    reason = "the compiler does this, and would not go on"
)]
const fn by_first_octet(v6: bool) -> [Option<Class>; 256] {
    let without = if v6 { Class::Reserved } else { Class::Public };
    let mut classes = [Some(without); 256];
    let mut first = 0;
    while first < classes.len() {
        let (mut row, mut longest) = (0, 0);
        while row < SPECIAL.len() {
            let Row {
                network,
                len,
                class,
                ..
            } = SPECIAL[row];
            row += 1;
            let begins = match network {
                IpAddr::V4(network) if !v6 => network.octets()[0] as usize,
                IpAddr::V6(network) if v6 => network.octets()[0] as usize,
                IpAddr::V4(_) | IpAddr::V6(_) => continue,
            };
            if len > 8 {
                if begins == first {
                    classes[first] = None;
                    break;
                }
            } else if begins >> (8 - len) == first >> (8 - len) && len >= longest {
                (classes[first], longest) = (Some(class), len);
            }
        }
        first += 1;
    }
    classes
}

/// ISATAP tunnels have no prefix of their own, but their own form of interface identifier (RFC 5214, section 6.1).
fn is_isatap(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [.., 0 | 0x200, 0x5efe, _, _])
}

/// The ranges that can never be granted: loopback, link-local, metadata, multicast and unspecified.
pub(crate) fn never_granted() -> impl Iterator<Item = &'static Row> {
    SPECIAL.iter().filter(|row| !row.class.can_be_granted())
}

/// Where rows of the table begin, and what follows on their ends: of each run of addresses in one row, the first is here.
pub(crate) fn edges() -> impl Iterator<Item = IpAddr> {
    SPECIAL.iter().flat_map(|row| {
        let net = IpNet::new(row.network, row.len).ok();
        std::iter::once(row.network).chain(net.and_then(|net| behind(&net)))
    })
}

/// The address that follows on a network; none where there is no more.
pub(crate) fn behind(net: &IpNet) -> Option<IpAddr> {
    match net.broadcast() {
        IpAddr::V4(last) => Some(IpAddr::V4(last.to_bits().checked_add(1)?.into())),
        IpAddr::V6(last) => Some(IpAddr::V6(last.to_bits().checked_add(1)?.into())),
    }
}

/// Whether a network has addresses of a class in it, going by the table's own rows for the class.
pub(crate) fn overlaps_class(net: &IpNet, class: Class) -> bool {
    let mut rows = SPECIAL.iter().filter(|row| row.class == class);
    rows.any(|row| row.covers(net) || net.contains(&row.network))
}

/// The IPv4 addresses that an IPv6 address stands for, or has inside (RFC 6052, 2765, 3056, 4380, 5214).
fn inner_addresses(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let bits = u128::from(address);
    let s = address.segments();
    // Four octets, the last of which ends `from_the_right` bits before the end of the address.
    let octets = |from_the_right: u32| Ipv4Addr::from((bits >> from_the_right) as u32);
    let low = octets(0);
    let mut inner = [None; 4];
    match s {
        // `::` and `::1` are themselves; the rest of ::/96 is IPv4-compatible.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => {}
        // IPv4-compatible, mapped (though that is IPv4 by now), translated, NAT64 with the well-known prefix.
        [0, 0, 0, 0, 0, 0, _, _]
        | [0, 0, 0, 0, 0, 0xffff, _, _]
        | [0, 0, 0, 0, 0xffff, 0, _, _]
        | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => inner = [Some(low), None, None, None],
        // NAT64 with a local prefix: where the address stands depends on a prefix length that only the network
        // knows (RFC 6052, section 2.2, has the layouts), so every layout that could be meant is read.
        [0x64, 0xff9b, 1, ..] => {
            // Octet 8 is left out of the layouts, and what follows the address is zero.
            let packed = (bits >> 64) << 56 | bits & ((1 << 56) - 1);
            let layout = |prefix: u32| {
                let after = 120 - prefix - 32;
                let rest_is_zero = packed & ((1 << after) - 1) == 0;
                rest_is_zero.then(|| Ipv4Addr::from((packed >> after) as u32))
            };
            let at_the_end = (!low.is_unspecified()).then_some(low);
            inner = [at_the_end, layout(48), layout(56), layout(64)];
        }
        // 6to4: the relay's address. Teredo: the server's, and the client's with its bits flipped.
        [0x2002, ..] => inner = [Some(octets(80)), None, None, None],
        [0x2001, 0, ..] => {
            inner = [
                Some(octets(64)),
                Some(Ipv4Addr::from(!low.to_bits())),
                None,
                None,
            ]
        }
        // ISATAP, under any prefix.
        _ if is_isatap(address) => inner = [Some(low), None, None, None],
        _ => {}
    }
    inner.into_iter().flatten()
}

/// One row of the table: a prefix, its class, and who says so.
pub(crate) struct Row {
    network: IpAddr,
    len: u8,
    pub(crate) class: Class,
    pub(crate) source: &'static str,
}

impl Row {
    fn holds(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let free = 32 - u32::from(self.len);
                u32::from(network).checked_shr(free) == u32::from(address).checked_shr(free)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let free = 128 - u32::from(self.len);
                u128::from(network).checked_shr(free) == u128::from(address).checked_shr(free)
            }
            _ => false,
        }
    }

    /// Whether the whole of `net` lies in this row.
    pub(crate) fn covers(&self, net: &IpNet) -> bool {
        self.len <= net.prefix_len() && self.holds(net.network())
    }
}

const fn v4(address: [u8; 4], len: u8, class: Class, source: &'static str) -> Row {
    let [a, b, c, d] = address;
    let network = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    Row {
        network,
        len,
        class,
        source,
    }
}

const fn v6(address: [u16; 8], len: u8, class: Class, source: &'static str) -> Row {
    let [a, b, c, d, e, f, g, h] = address;
    let network = IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h));
    Row {
        network,
        len,
        class,
        source,
    }
}

/// The IANA IPv4 and IPv6 Special-Purpose Address Registries, the reserved blocks of the IANA IPv6 Global Unicast
/// Address Assignments, and the metadata services of the clouds.
///
/// Where a registry calls a block inside a special one globally reachable, it is public here only if it serves the
/// public (AS112, AMT, DRIP); anycast addresses for the local network's own services stay reserved.
#[rustfmt::skip]
const SPECIAL: &[Row] = &[
    v4([0, 0, 0, 0],         8, Class::Unspecified, "this network, RFC 791"),
    v4([10, 0, 0, 0],        8, Class::Private,     "private use, RFC 1918"),
    v4([100, 64, 0, 0],     10, Class::Private,     "shared address space, RFC 6598"),
    v4([100, 100, 100, 200],32, Class::Metadata,    "metadata of Alibaba Cloud"),
    v4([127, 0, 0, 0],       8, Class::Loopback,    "loopback, RFC 1122"),
    v4([168, 63, 129, 16],  32, Class::Metadata,    "the platform's services of Azure"),
    v4([169, 254, 0, 0],    16, Class::LinkLocal,   "link-local, RFC 3927"),
    v4([169, 254, 0, 23],   32, Class::Metadata,    "metadata of Tencent Cloud"),
    v4([169, 254, 42, 42],  32, Class::Metadata,    "metadata of Scaleway"),
    v4([169, 254, 169, 123],32, Class::Metadata,    "time service of Amazon EC2"),
    v4([169, 254, 169, 250],32, Class::Metadata,    "metadata of Rancher"),
    v4([169, 254, 169, 253],32, Class::Metadata,    "name server of Amazon VPC"),
    v4([169, 254, 169, 254],32, Class::Metadata,    "metadata of Amazon EC2, Google Cloud, Azure and others"),
    v4([169, 254, 170, 2],  32, Class::Metadata,    "task credentials of Amazon ECS"),
    v4([169, 254, 170, 23], 32, Class::Metadata,    "pod identity of Amazon EKS"),
    v4([172, 16, 0, 0],     12, Class::Private,     "private use, RFC 1918"),
    v4([192, 0, 0, 0],      24, Class::Reserved,    "IETF protocol assignments, RFC 6890"),
    v4([192, 0, 0, 192],    32, Class::Metadata,    "metadata of Oracle Cloud's classic services"),
    v4([192, 0, 2, 0],      24, Class::Reserved,    "documentation, RFC 5737"),
    v4([192, 88, 99, 0],    24, Class::Reserved,    "6to4 relay anycast, deprecated by RFC 7526"),
    v4([192, 168, 0, 0],    16, Class::Private,     "private use, RFC 1918"),
    v4([198, 18, 0, 0],     15, Class::Reserved,    "benchmarking, RFC 2544"),
    v4([198, 51, 100, 0],   24, Class::Reserved,    "documentation, RFC 5737"),
    v4([203, 0, 113, 0],    24, Class::Reserved,    "documentation, RFC 5737"),
    v4([224, 0, 0, 0],       4, Class::Multicast,   "multicast, RFC 5771"),
    v4([240, 0, 0, 0],       4, Class::Reserved,    "reserved, RFC 1112, and limited broadcast, RFC 919"),

    v6([0; 8],                                96, Class::Reserved,    "IPv4-compatible, deprecated by RFC 4291"),
    v6([0; 8],                               128, Class::Unspecified, "unspecified, RFC 4291"),
    v6([0, 0, 0, 0, 0, 0, 0, 1],             128, Class::Loopback,    "loopback, RFC 4291"),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0],         96, Class::Reserved,    "IPv4-translated, RFC 2765"),
    // Public as far as the prefix goes: the IPv4 address inside says the rest.
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0],      96, Class::Public,      "NAT64, RFC 6052"),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0],      48, Class::Public,      "NAT64 with a local prefix, RFC 8215"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0],          64, Class::Reserved,    "discard-only, RFC 6666"),
    v6([0x2000, 0, 0, 0, 0, 0, 0, 0],          3, Class::Public,      "global unicast, RFC 4291"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0],         23, Class::Reserved,    "IETF protocol assignments, RFC 2928"),
    v6([0x2001, 3, 0, 0, 0, 0, 0, 0],         32, Class::Public,      "AMT, RFC 7450"),
    v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0],     48, Class::Public,      "AS112, RFC 7535"),
    v6([0x2001, 0x30, 0, 0, 0, 0, 0, 0],      28, Class::Public,      "drone remote identification, RFC 9374"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0],     32, Class::Reserved,    "documentation, RFC 3849"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0],         16, Class::Reserved,    "6to4, RFC 3056"),
    v6([0x2d00, 0, 0, 0, 0, 0, 0, 0],          8, Class::Reserved,    "not yet assigned by IANA"),
    v6([0x2e00, 0, 0, 0, 0, 0, 0, 0],          7, Class::Reserved,    "not yet assigned by IANA"),
    v6([0x3000, 0, 0, 0, 0, 0, 0, 0],          4, Class::Reserved,    "not yet assigned by IANA, and documentation, RFC 9637"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0],          7, Class::Private,     "unique local, RFC 4193"),
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42],  128, Class::Metadata,    "metadata of Scaleway"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128, Class::Metadata,    "pod identity of Amazon EKS"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123],128, Class::Metadata,    "time service of Amazon EC2"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253],128, Class::Metadata,    "name server of Amazon VPC"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],128, Class::Metadata,    "metadata of Amazon EC2"),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, Class::Metadata,    "metadata of Google Cloud"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0],         10, Class::LinkLocal,   "link-local, RFC 4291"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0],         10, Class::Reserved,    "site-local, deprecated by RFC 3879"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0],          8, Class::Multicast,   "multicast, RFC 4291"),
];

#[cfg(test)]
mod tests;
