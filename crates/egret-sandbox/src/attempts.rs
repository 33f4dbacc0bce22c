//! What a program can try against its sandbox by system calls alone: for a prober that shows that none of it works.
//!
//! Each attempt has a name that people know it by. All of them are harmless where they succeed: they concern the process
//! that makes them, or a network namespace that is its own. [`foreign`] may end the calling process, which is how a
//! filter refuses it.

use crate::netlink::{ACK, Batch, CREATE, EXCLUSIVE, Socket};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use std::io;

/// Something that was tried.
#[derive(Debug)]
pub struct Attempt {
    /// What, in a few words.
    pub what: &'static str,
    /// How it was refused; `None` if the kernel let it in.
    pub refused: Option<io::Error>,
}

/// Parts of the kernel that programs seldom need and attacks often do.
///
/// One that changes the caller, if it is let in, comes last.
#[must_use]
pub fn kernel() -> Vec<Attempt> {
    const NOBODY: usize = usize::MAX; // no descriptor
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNET;
    let namespaces = namespaces.cast_unsigned() as usize;
    let of_terminal = usize::try_from(libc::TIOCSTI).unwrap_or_default();
    [
        ("io_uring", libc::SYS_io_uring_setup, [1, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0; 4]),
        ("perf_event_open", libc::SYS_perf_event_open, [0; 4]),
        ("keyrings", libc::SYS_add_key, [0; 4]),
        ("userfaultfd", libc::SYS_userfaultfd, [NOBODY, 0, 0, 0]),
        (
            "files by handle",
            libc::SYS_open_by_handle_at,
            [NOBODY, 0, 0, 0],
        ),
        ("mount", libc::SYS_mount, [0; 4]),
        ("the new mount API", libc::SYS_fsopen, [0; 4]),
        ("pivot_root", libc::SYS_pivot_root, [0; 4]),
        ("setns", libc::SYS_setns, [NOBODY, 0, 0, 0]),
        ("kernel modules", libc::SYS_finit_module, [NOBODY, 0, 0, 0]),
        (
            "typing into the terminal",
            libc::SYS_ioctl,
            [0, of_terminal, 0, 0],
        ),
        ("namespaces by clone3", libc::SYS_clone3, [0; 4]),
        ("a user namespace", libc::SYS_unshare, [namespaces, 0, 0, 0]),
    ]
    .into_iter()
    .map(|(what, number, arguments)| Attempt {
        what,
        refused: crate::sys::tries::call(number, arguments)
            .err()
            .filter(is_refusal),
    })
    .collect()
}

/// What says that a call is not for this program. Anything else says that the kernel has looked at its arguments.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS | Errno::AFNOSUPPORT)
    )
}

/// Sockets other than the ordinary ones: of families that lead past IP, and below it.
#[must_use]
pub fn sockets() -> Vec<Attempt> {
    let number = |number: u32| std::num::NonZero::new(number).map(Protocol::from_raw);
    let [unspecified, raw, packets] = [SocketType::STREAM, SocketType::RAW, SocketType::SEQPACKET];
    let family = |number: i32| AddressFamily::from_raw(u16::try_from(number).unwrap_or_default());
    [
        ("vsock", family(libc::AF_VSOCK), unspecified, None),
        ("packet sockets", family(libc::AF_PACKET), raw, None),
        ("raw IP", AddressFamily::INET, raw, number(255)),
        ("raw IPv6", AddressFamily::INET6, raw, number(255)),
        ("raw ICMP", AddressFamily::INET, raw, number(1)),
        ("SCTP", AddressFamily::INET, packets, number(132)),
        ("bluetooth", family(libc::AF_BLUETOOTH), raw, None),
        ("the kernel's crypto", family(libc::AF_ALG), packets, None),
        ("netfilter", AddressFamily::NETLINK, raw, number(12)),
        ("audit", AddressFamily::NETLINK, raw, number(9)),
    ]
    .into_iter()
    .map(|(what, family, kind, protocol)| Attempt {
        what,
        refused: socket_with(family, kind, SocketFlags::CLOEXEC, protocol)
            .map_err(io::Error::from)
            .err(),
    })
    .collect()
}

/// Changes to the network, as root of a machine would make them: a link, an address, a route.
#[must_use]
pub fn network() -> Vec<Attempt> {
    const RTM_NEWLINK: u16 = 16;
    const RTM_NEWADDR: u16 = 20;
    const RTM_NEWROUTE: u16 = 24;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const LOOPBACK: u32 = 1;
    /// TEST-NET-2, RFC 5737.
    const ADDRESS: [u8; 4] = [198, 51, 100, 254];
    let ask = |fill: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::default();
        fill(&mut batch);
        Socket::open(None).and_then(|socket| batch.commit(&socket))
    };
    let flags = CREATE | EXCLUSIVE | ACK;
    [
        (
            "a new link",
            ask(&|batch| {
                batch.message(RTM_NEWLINK, flags, &[0; 16], |attributes| {
                    attributes.text(IFLA_IFNAME, "egret-try").nested(
                        IFLA_LINKINFO,
                        |information| {
                            information.text(IFLA_INFO_KIND, "dummy");
                        },
                    );
                });
            }),
        ),
        (
            "a new address",
            ask(&|batch| {
                // struct ifaddrmsg: family, prefix length, flags, scope, index (4)
                let header = [&[2u8, 32, 0, 0][..], &LOOPBACK.to_ne_bytes()].concat();
                batch.message(RTM_NEWADDR, flags, &header, |attributes| {
                    attributes.bytes(IFA_LOCAL, &ADDRESS);
                });
            }),
        ),
        (
            "a new route",
            ask(&|batch| {
                // struct rtmsg, as in `seal`; table main, scope link, unicast
                let header = [2, 32, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0];
                batch.message(RTM_NEWROUTE, flags, &header, |attributes| {
                    attributes
                        .bytes(RTA_DST, &ADDRESS)
                        .bytes(RTA_OIF, &LOOPBACK.to_ne_bytes());
                });
            }),
        ),
    ]
    .into_iter()
    .map(|(what, outcome)| Attempt {
        what,
        refused: outcome.err(),
    })
    .collect()
}

/// A system call by another convention than this architecture's, which a filter could misread. Returns if it was let in;
/// where the architecture has no other, it returns nothing at all.
#[must_use]
pub fn foreign() -> Option<i32> {
    #[cfg(target_arch = "x86_64")]
    return Some(crate::sys::tries::foreign_getpid());
    #[cfg(not(target_arch = "x86_64"))]
    None
}
