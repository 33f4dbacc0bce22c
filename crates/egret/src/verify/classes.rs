//! The known ways past an egress boundary, by the numbers that `docs/bypasses.md` gives them, and which of them a prober can
//! try.

/// A class of attempts.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) number: u8,
    pub(crate) title: &'static str,
    pub(crate) tried: Tried,
}

/// Where a class can be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// In every sandbox.
    Anywhere,
    /// Where a sink can be put behind the gateway: in a sandbox that was made for the prober.
    BehindTheGateway,
    /// Not by a prober, because.
    No(&'static str),
}

/// Why a class cannot be tried in a sandbox that was not made for the prober.
pub(crate) const NEEDS_A_SINK: &str = "takes a server that this sandbox's policy does not open; `egret verify` with the same options tries it";

const fn class(number: u8, title: &'static str, tried: Tried) -> Class {
    Class {
        number,
        title,
        tried,
    }
}

use Tried::{Anywhere, BehindTheGateway, No};

/// All of them, in order.
#[rustfmt::skip]
pub(crate) const CLASSES: [Class; 35] = [
    class(1, "proxy variables ignored", Anywhere),
    class(2, "another address for an allowed name", Anywhere),
    class(3, "a relay inside", Anywhere),
    class(4, "this machine, at each address", Anywhere),
    class(5, "other sandboxes", Anywhere),
    class(6, "UDP, ICMP, exotic sockets", Anywhere),
    class(7, "root: links, routes, namespaces, mounts", Anywhere),
    class(8, "io_uring, foreign system calls", Anywhere),
    class(9, "descriptors, processes, the terminal", Anywhere),
    class(10, "unix sockets", Anywhere),
    class(11, "faster than the seal", Anywhere),
    class(12, "Egret's own files and sockets", Anywhere),
    class(13, "DNS as a channel", Anywhere),
    class(14, "rebinding", BehindTheGateway),
    class(15, "reverse lookups", Anywhere),
    class(16, "search domains, localhost", Anywhere),
    class(17, "spellings of names", Anywhere),
    class(18, "spellings of IPv4", Anywhere),
    class(19, "IPv6 forms of IPv4", Anywhere),
    class(20, "special-purpose ranges", Anywhere),
    class(21, "metadata services", Anywhere),
    class(22, "ports", Anywhere),
    class(23, "names of the host", Anywhere),
    class(24, "another server name or Host", BehindTheGateway),
    class(25, "the second request", BehindTheGateway),
    class(26, "request smuggling", BehindTheGateway),
    class(27, "upgrades, HTTP/2, nested CONNECT", BehindTheGateway),
    class(28, "SOCKS beyond CONNECT", Anywhere),
    class(29, "redirects", BehindTheGateway),
    class(30, "policy reload", No("a policy is replaced from outside; Egret's own tests do it")),
    class(31, "exhaustion", No("a flood would disturb this machine; Egret's own tests do it")),
    class(32, "injection into the log", Anywhere),
    class(33, "a published port and web pages", No("a client outside attacks here, not the program; Egret's own tests do it")),
    class(34, "learning from a hostile run", No("is about a policy that a run leaves; Egret's own tests do it")),
    class(35, "policy text", No("is about policy files, which no sandbox reads; Egret's own tests do it")),
];
