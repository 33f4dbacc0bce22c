//! The list as filters for this process, in the kernel's own language (`seccomp(2)`).

use super::{Condition, Rule, Runtime, rules};
use crate::error::Cause;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter, sock_filter,
};
use std::collections::BTreeMap;
use std::io;

/// Installs the filters on this process and all that it becomes.
///
/// Where nothing else keeps a signal to the process group from leaving the sandbox, it is refused.
pub(crate) fn restrict(
    allow_user_namespaces: bool,
    signals_stay_inside: bool,
) -> Result<(), Cause> {
    let runtime = Runtime::Process {
        signals_stay_inside,
    };
    // A filter refuses with one errno. The strictest answer of all filters counts.
    let mut by_errno: BTreeMap<i32, Vec<Rule>> = BTreeMap::new();
    for rule in rules(runtime, allow_user_namespaces) {
        by_errno.entry(rule.errno).or_default().push(rule);
    }
    let mut programs = vec![other_abi()];
    for (errno, rules) in by_errno {
        programs.push(compile(&rules, errno)?);
    }
    for program in programs {
        apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
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

fn compile(rules: &[Rule], errno: i32) -> Result<BpfProgram, Cause> {
    let mut chains: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        // One that this architecture does not have cannot be made.
        let Some(number) = rule.call.number else {
            continue;
        };
        let chain = chains.entry(number).or_default();
        if !rule.when.is_empty() {
            let conditions = rule.when.iter().map(conditions);
            let conditions = conditions.collect::<Result<Vec<_>, _>>()?.concat();
            chain.push(SeccompRule::new(conditions).map_err(io::Error::other)?);
        }
    }
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let filter =
        SeccompFilter::new(chains, SeccompAction::Allow, refuse, arch).map_err(io::Error::other)?;
    Ok(filter.try_into().map_err(io::Error::other)?)
}

fn conditions(condition: &Condition) -> Result<Vec<SeccompCondition>, Cause> {
    let compared = |argument: u8, compare: Compare, value: u32| {
        SeccompCondition::new(argument, Length::Dword, compare, value.into())
    };
    let conditions = match condition {
        Condition::Bits {
            argument,
            mask,
            value,
        } => vec![compared(
            *argument,
            Compare::MaskedEq((*mask).into()),
            *value,
        )],
        Condition::NoneOf { argument, values } => values
            .iter()
            .map(|&value| compared(*argument, Compare::Ne, value))
            .collect(),
    };
    Ok(conditions
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?)
}
