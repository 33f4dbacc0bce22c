//! System calls that a sandboxed program does not get.
//!
//! Everything is allowed but what is listed: a list of what is allowed would break programs with every new kernel and C
//! library, and the namespaces hold without any filter. What is listed reaches beyond the namespaces (vsock, keyrings,
//! typing into the terminal), goes round this filter (io_uring, other ABIs), or is an attack surface that ordinary
//! programs never touch. A refused call fails with an error that programs know how to take.

use crate::error::Cause;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition as Condition, SeccompFilter, SeccompRule, apply_filter, sock_filter,
};
use std::collections::BTreeMap;
use std::io;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filters on this process and all that it becomes.
///
/// The program shares egret's process group, so that a terminal treats both alike; and a signal to one's own group reaches
/// members outside of the process namespace. Where nothing else keeps it inside, it is refused.
pub(super) fn restrict(
    allow_user_namespaces: bool,
    signals_stay_inside: bool,
) -> Result<(), Cause> {
    let programs = [
        other_abi(),
        compile(
            refused(allow_user_namespaces, signals_stay_inside)?,
            libc::EPERM,
        )?,
        compile(absent(allow_user_namespaces), libc::ENOSYS)?,
        compile(sockets()?, libc::EAFNOSUPPORT)?,
    ];
    for program in programs {
        apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Refused with `EPERM`: what an unprivileged program is used to being refused.
fn refused(allow_user_namespaces: bool, signals_stay_inside: bool) -> Result<Rules, Cause> {
    let mut rules = always(&[
        // Mounts, and entering namespaces.
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        OPEN_TREE_ATTR,
        libc::SYS_setns,
        // The kernel itself, and devices.
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_acct,
        libc::SYS_quotactl,
        libc::SYS_quotactl_fd,
        libc::SYS_fanotify_init,
        libc::SYS_syslog,
        libc::SYS_vhangup,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_adjtimex,
        libc::SYS_clock_adjtime,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_iopl,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_ioperm,
        // Files by handle, which skips the path that hides them.
        libc::SYS_open_by_handle_at,
        libc::SYS_userfaultfd,
        // Keyrings are shared with the session outside.
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
    ]);
    // Typing into the terminal, and reading or pasting what is on it. The kernel looks at 32 bits of the request.
    rules.insert(
        libc::SYS_ioctl,
        [libc::TIOCSTI, TIOCLINUX]
            .map(|request| equal(1, request))
            .into_iter()
            .collect::<Result<_, _>>()?,
    );
    // With this a process of a user namespace of its own could put another program's file in place of its own in /proc,
    // where `Makers` looks.
    rules.insert(
        libc::SYS_prctl,
        vec![rule(vec![equals(0, libc::PR_SET_MM)?])?],
    );
    if !signals_stay_inside {
        rules.insert(libc::SYS_kill, vec![rule(vec![equals(0, 0)?])?]);
        rules.insert(
            libc::SYS_pidfd_send_signal,
            vec![any_of_bits(3, PIDFD_SIGNAL_PROCESS_GROUP)?],
        );
    }
    if !allow_user_namespaces {
        let flag = NEW_NAMESPACES;
        let each = |argument: u8| -> Result<Vec<SeccompRule>, Cause> {
            flag.iter()
                .map(|&flag| any_of_bits(argument, flag))
                .collect()
        };
        rules.insert(libc::SYS_unshare, each(0)?);
        rules.insert(libc::SYS_clone, each(CLONE_FLAGS_ARGUMENT)?);
    }
    Ok(rules)
}

/// Refused with `ENOSYS`: what programs try first and have another way for.
fn absent(allow_user_namespaces: bool) -> Rules {
    let mut calls = vec![
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
    if !allow_user_namespaces {
        // Its flags are in memory, where a filter cannot look. C libraries fall back to clone.
        calls.push(libc::SYS_clone3);
    }
    always(&calls)
}

/// Sockets but of the families and protocols that programs need: unix, TCP and UDP over IP, ping sockets (which the
/// namespace's settings refuse), and routing questions by netlink.
fn sockets() -> Result<Rules, Cause> {
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    let mut refused = vec![rule(
        families
            .iter()
            .map(|&family| differs(0, family))
            .collect::<Result<_, _>>()?,
    )?];
    let protocols = [
        0,
        libc::IPPROTO_TCP,
        libc::IPPROTO_UDP,
        libc::IPPROTO_MPTCP,
        libc::IPPROTO_ICMP,
        libc::IPPROTO_ICMPV6,
    ];
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Raw and packet sockets need a capability that the program does not have; this holds even if it had.
        refused.push(rule(vec![equals(0, family)?, type_is(libc::SOCK_RAW)?])?);
        refused.push(rule(vec![
            equals(0, family)?,
            type_is(libc::SOCK_SEQPACKET)?,
        ])?);
        refused.push(rule(vec![equals(0, family)?, type_is(SOCK_DCCP)?])?);
        let mut others = vec![equals(0, family)?];
        for protocol in protocols {
            others.push(differs(2, protocol)?);
        }
        refused.push(rule(others)?);
    }
    refused.push(rule(vec![
        equals(0, libc::AF_NETLINK)?,
        differs(2, libc::NETLINK_ROUTE)?,
    ])?);
    // A pair of sockets talks to itself, and only unix ones come in pairs.
    let pair = vec![rule(vec![differs(0, libc::AF_UNIX)?])?];
    Ok([(libc::SYS_socket, refused), (libc::SYS_socketpair, pair)].into())
}

/// Refuses system calls of the x32 ABI, which share the architecture's number and would miss every rule by theirs.
/// (32-bit system calls come with another architecture's number and end the process in the filters that follow.)
fn other_abi() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const X32_BIT: u32 = 0x4000_0000;
    const NUMBER_OFFSET: u32 = 0; // of struct seccomp_data
    let errno = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    vec![
        sock_filter {
            code: LOAD_WORD,
            jt: 0,
            jf: 0,
            k: NUMBER_OFFSET,
        },
        sock_filter {
            code: JUMP_IF_GREATER_OR_EQUAL,
            jt: 0,
            jf: 1,
            k: X32_BIT,
        },
        sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: errno,
        },
        sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        },
    ]
}

/// Not in `libc` yet: `open_tree_attr`, from Linux 6.15 on; one number on all architectures.
const OPEN_TREE_ATTR: c_long = 467;
/// Not in `libc`: copy and paste on a virtual console.
const TIOCLINUX: libc::Ioctl = 0x541C;
/// Not in `libc`: the signal is for the whole process group.
const PIDFD_SIGNAL_PROCESS_GROUP: i32 = 4;
/// Not in `libc`.
const SOCK_DCCP: i32 = 6;
/// The kernel's mask for the type of a socket, without `SOCK_CLOEXEC` and `SOCK_NONBLOCK`.
const SOCK_TYPE_MASK: u64 = 0xf;
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

fn compile(rules: Rules, errno: i32) -> Result<BpfProgram, Cause> {
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(io::Error::other)?;
    Ok(filter.try_into().map_err(io::Error::other)?)
}

fn always(calls: &[c_long]) -> Rules {
    calls.iter().map(|&call| (call, Vec::new())).collect()
}

fn rule(conditions: Vec<Condition>) -> Result<SeccompRule, Cause> {
    Ok(SeccompRule::new(conditions).map_err(io::Error::other)?)
}

fn equal(argument: u8, value: libc::Ioctl) -> Result<SeccompRule, Cause> {
    rule(vec![condition(argument, Compare::Eq, value)?])
}

fn equals(argument: u8, value: i32) -> Result<Condition, Cause> {
    condition(argument, Compare::Eq, u64::from(value.cast_unsigned()))
}

fn differs(argument: u8, value: i32) -> Result<Condition, Cause> {
    condition(argument, Compare::Ne, u64::from(value.cast_unsigned()))
}

fn type_is(kind: i32) -> Result<Condition, Cause> {
    condition(
        1,
        Compare::MaskedEq(SOCK_TYPE_MASK),
        u64::from(kind.cast_unsigned()),
    )
}

fn any_of_bits(argument: u8, bit: i32) -> Result<SeccompRule, Cause> {
    let bit = u64::from(bit.cast_unsigned());
    rule(vec![condition(argument, Compare::MaskedEq(bit), bit)?])
}

fn condition(argument: u8, compare: Compare, value: u64) -> Result<Condition, Cause> {
    Ok(Condition::new(argument, Length::Dword, compare, value).map_err(io::Error::other)?)
}
