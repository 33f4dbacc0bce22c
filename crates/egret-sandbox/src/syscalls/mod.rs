//! System calls that a sandboxed program does not get.
//!
//! Everything is allowed but what is listed: a list of what is allowed would break programs with every new kernel and C
//! library, and the namespaces hold without any filter. What is listed reaches beyond the namespaces (vsock, keyrings,
//! typing into the terminal), goes round this filter (io_uring, other ABIs), or is an attack surface that ordinary
//! programs never touch. A refused call fails with an error that programs know how to take.
//!
//! [`rules`] is the list. [`filter`] makes a filter of it for a process of our own, [`profile`] a profile for a container
//! engine.

pub(crate) mod filter;
pub(crate) mod profile;

use crate::guard::stands;
use libc::{EAFNOSUPPORT, ENOSYS, EPERM, c_long};

/// Who is not to get them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// A program in namespaces of ours. It shares egret's process group, so that a terminal treats both alike; and a
    /// signal to one's own group reaches members outside of the process namespace. Where nothing else keeps it inside, it
    /// is refused.
    Process { signals_stay_inside: bool },
    /// All of a container, whose image may count on what engines allow.
    Container,
}

/// A call that is refused.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) call: Call,
    /// When: all of these hold. Each is about another argument.
    pub(crate) when: Vec<Condition>,
    /// The `errno` that it fails with.
    pub(crate) errno: i32,
}

/// Something about an argument, of which the kernel looks at the lower 32 bits.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    /// Of these bits, just those of `value` are set.
    Bits { argument: u8, mask: u32, value: u32 },
    /// It is none of these.
    NoneOf { argument: u8, values: Vec<u32> },
}

/// A system call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// The name of its constant, which begins with `SYS_`.
    constant: &'static str,
    /// Its number, if it is one of this architecture's.
    pub(crate) number: Option<c_long>,
}

impl Call {
    /// Its name, as of `syscalls(2)`.
    pub(crate) fn name(self) -> &'static str {
        self.constant.trim_start_matches("SYS_")
    }
}

/// The call of this name. What `libc` does not know is written out.
macro_rules! call {
    (SYS_open_tree_attr) => {
        // From Linux 6.15 on; one number on all architectures.
        Call {
            constant: "SYS_open_tree_attr",
            number: Some(467),
        }
    };
    (SYS_iopl) => {
        on_x86!(SYS_iopl)
    };
    (SYS_ioperm) => {
        on_x86!(SYS_ioperm)
    };
    (SYS_uselib) => {
        on_x86!(SYS_uselib)
    };
    ($constant:ident) => {
        Call {
            constant: stringify!($constant),
            number: Some(libc::$constant),
        }
    };
}

/// One that other architectures do not have.
macro_rules! on_x86 {
    ($constant:ident) => {
        Call {
            constant: stringify!($constant),
            #[cfg(target_arch = "x86_64")]
            number: Some(libc::$constant),
            #[cfg(not(target_arch = "x86_64"))]
            number: None,
        }
    };
}

macro_rules! calls {
    ($($constant:ident)*) => { [$(call!($constant)),*] };
}

/// All that is refused.
pub(crate) fn rules(runtime: Runtime, allow_user_namespaces: bool) -> Vec<Rule> {
    let mut rules = always(PRIVILEGED, EPERM);
    rules.extend(always(ABSENT, ENOSYS));
    // Typing into the terminal, and reading or pasting what is on it.
    for request in [TIOCSTI, TIOCLINUX] {
        rules.push(rule(call!(SYS_ioctl), vec![is(1, request)], EPERM));
    }
    // With this a process of a user namespace of its own could put another program's file in place of its own in /proc,
    // where `Makers` looks.
    let set_memory_map = is(0, libc::PR_SET_MM.cast_unsigned());
    rules.push(rule(call!(SYS_prctl), vec![set_memory_map], EPERM));
    match runtime {
        Runtime::Process {
            signals_stay_inside,
        } => {
            rules.extend(always(&calls! { SYS_chroot }, EPERM));
            if !signals_stay_inside {
                rules.extend(signals_to_the_group());
            }
        }
        Runtime::Container => {
            rules.extend(always(REFUSED_BY_ENGINES, EPERM));
            let others = vec![none_of(0, &PERSONALITIES)];
            rules.push(rule(call!(SYS_personality), others, EPERM));
        }
    }
    if !allow_user_namespaces && stands("user-namespaces") {
        rules.extend(namespaces());
    }
    if stands("socket-families") {
        rules.extend(sockets());
    }
    rules
}

/// Refused with `EPERM`: what an unprivileged program is used to being refused.
const PRIVILEGED: &[Call] = &calls! {
    // Mounts, and entering namespaces.
    SYS_mount SYS_umount2 SYS_pivot_root SYS_open_tree SYS_open_tree_attr SYS_move_mount SYS_fsopen SYS_fsconfig
    SYS_fsmount SYS_fspick SYS_mount_setattr SYS_setns
    // The kernel itself, and devices.
    SYS_bpf SYS_perf_event_open SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load
    SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_quotactl SYS_quotactl_fd SYS_fanotify_init SYS_syslog SYS_vhangup
    SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime SYS_sethostname SYS_setdomainname SYS_iopl
    SYS_ioperm
    // Files by handle, which skips the path that hides them.
    SYS_open_by_handle_at SYS_userfaultfd
    // Keyrings are shared with the session outside.
    SYS_add_key SYS_request_key SYS_keyctl
};

/// Refused with `ENOSYS`: what programs try first and have another way for.
const ABSENT: &[Call] = &calls! { SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register };

/// What engines refuse to every container that has no capability for it. It is of use to debuggers and to programs that
/// place their memory by hand, which know that they do not get it in containers.
const REFUSED_BY_ENGINES: &[Call] = &calls! {
    SYS_kcmp SYS_pidfd_getfd SYS_process_madvise SYS_lookup_dcookie SYS_uselib
    SYS_get_mempolicy SYS_set_mempolicy SYS_set_mempolicy_home_node SYS_mbind SYS_migrate_pages SYS_move_pages
};

/// The personalities that engines let a program of a container take: of Linux, and what asks for the present one.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];

/// A signal to one's own process group, by number or by any member of it.
fn signals_to_the_group() -> [Rule; 2] {
    let flagged = bits(3, PIDFD_SIGNAL_PROCESS_GROUP);
    [
        rule(call!(SYS_kill), vec![is(0, 0)], EPERM),
        rule(call!(SYS_pidfd_send_signal), vec![flagged], EPERM),
    ]
}

/// New namespaces, in which a program could have capabilities.
fn namespaces() -> Vec<Rule> {
    // Its flags are in memory, where a filter cannot look. C libraries fall back to clone.
    let mut rules = always(&calls! { SYS_clone3 }, ENOSYS);
    for flag in NEW_NAMESPACES {
        let flag = flag.cast_unsigned();
        for (call, argument) in [
            (call!(SYS_unshare), 0),
            (call!(SYS_clone), CLONE_FLAGS_ARGUMENT),
        ] {
            rules.push(rule(call, vec![bits(argument, flag)], EPERM));
        }
    }
    rules
}

/// Sockets but of the families and protocols that programs need: unix, TCP and UDP over IP, ping sockets (which the
/// namespace's settings refuse), and routing questions by netlink.
fn sockets() -> Vec<Rule> {
    let [unix, v4, v6, netlink] = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ]
    .map(i32::cast_unsigned);
    let protocols = [
        0,
        libc::IPPROTO_TCP,
        libc::IPPROTO_UDP,
        libc::IPPROTO_MPTCP,
        libc::IPPROTO_ICMP,
        libc::IPPROTO_ICMPV6,
    ]
    .map(i32::cast_unsigned);
    let mut refused = vec![vec![none_of(0, &[unix, v4, v6, netlink])]];
    for family in [v4, v6] {
        // Raw and packet sockets need a capability that the program does not have; this holds even if it had.
        for kind in [libc::SOCK_RAW, libc::SOCK_SEQPACKET, SOCK_DCCP] {
            let kind = Condition::Bits {
                argument: 1,
                mask: SOCK_TYPE_MASK,
                value: kind.cast_unsigned(),
            };
            refused.push(vec![is(0, family), kind]);
        }
        refused.push(vec![is(0, family), none_of(2, &protocols)]);
    }
    let route = libc::NETLINK_ROUTE.cast_unsigned();
    refused.push(vec![is(0, netlink), none_of(2, &[route])]);
    // A pair of sockets talks to itself, and only unix ones come in pairs.
    let pairs = rule(
        call!(SYS_socketpair),
        vec![none_of(0, &[unix])],
        EAFNOSUPPORT,
    );
    refused
        .into_iter()
        .map(|when| rule(call!(SYS_socket), when, EAFNOSUPPORT))
        .chain([pairs])
        .collect()
}

/// The kernel looks at 32 bits of the request.
const TIOCSTI: u32 = libc::TIOCSTI as u32;
/// Not in `libc`: copy and paste on a virtual console.
const TIOCLINUX: u32 = 0x541C;
/// Not in `libc`: the signal is for the whole process group.
const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 4;
/// Not in `libc`.
const SOCK_DCCP: i32 = 6;
/// The kernel's mask for the type of a socket, without `SOCK_CLOEXEC` and `SOCK_NONBLOCK`.
const SOCK_TYPE_MASK: u32 = 0xf;
const NEW_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
/// Where `clone` has its flags: the first argument on all architectures but s390.
const CLONE_FLAGS_ARGUMENT: u8 = 0;

fn always(calls: &[Call], errno: i32) -> Vec<Rule> {
    calls
        .iter()
        .map(|&call| rule(call, Vec::new(), errno))
        .collect()
}

fn rule(call: Call, when: Vec<Condition>, errno: i32) -> Rule {
    Rule { call, when, errno }
}

fn is(argument: u8, value: u32) -> Condition {
    Condition::Bits {
        argument,
        mask: u32::MAX,
        value,
    }
}

/// All bits of `value` are set.
fn bits(argument: u8, value: u32) -> Condition {
    Condition::Bits {
        argument,
        mask: value,
        value,
    }
}

fn none_of(argument: u8, values: &[u32]) -> Condition {
    Condition::NoneOf {
        argument,
        values: values.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::Condition;

    /// Whether a condition holds of these arguments, for filters and profiles to be compared with.
    pub(super) fn holds(condition: &Condition, arguments: &[u64]) -> bool {
        match condition {
            Condition::Bits {
                argument,
                mask,
                value,
            } => arguments[usize::from(*argument)] as u32 & mask == *value,
            Condition::NoneOf { argument, values } => {
                !values.contains(&(arguments[usize::from(*argument)] as u32))
            }
        }
    }
}
