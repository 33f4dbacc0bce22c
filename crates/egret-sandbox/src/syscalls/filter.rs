//! The list as a filter for this process, in the kernel's own language (`seccomp(2)`).
//!
//! The kernel runs a filter for every system call, and once for each number there is when the filter is installed. So the
//! numbers are searched, by halves, instead of compared one after the other; and there is one filter for all that is
//! refused. Arguments are compared by the 32 bits that the kernel looks at.

use super::{Condition, Rule, Runtime, rules};
use crate::error::Cause;
use crate::sys::filters::install;
use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter,
};
use std::collections::BTreeMap;

/// Installs the filter on this process and all that it becomes, which cannot have new privileges.
///
/// Where nothing else keeps a signal to the process group from leaving the sandbox, it is refused.
pub(crate) fn restrict(
    allow_user_namespaces: bool,
    signals_stay_inside: bool,
) -> Result<(), Cause> {
    let runtime = Runtime::Process {
        signals_stay_inside,
    };
    Ok(install(&filter(rules(runtime, allow_user_namespaces)))?)
}

// ---- the filter ----

/// Instructions. Jumps go forward only, to the end of a block at most; one that is reached goes on with what follows it.
type Block = Vec<sock_filter>;

/// What the kernel calls this architecture (`linux/audit.h`).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: u32 = 0xC000_00F3;

/// From here on numbers are those of the x32 ABI, which shares the architecture's name and would miss every rule.
const OTHER_ABI: u32 = 0x4000_0000;

// Where `struct seccomp_data` has what, on machines that store the lower half of a number first.
const NUMBER: u32 = 0;
const CALLED_BY: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_LENGTH: u32 = 8;
#[cfg(target_endian = "big")]
compile_error!("the lower half of an argument is the second one here");

fn filter(rules: Vec<Rule>) -> Block {
    let mut by_number: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for rule in rules {
        // One that this architecture does not have cannot be made.
        if let Some(number) = rule
            .call
            .number
            .and_then(|number| u32::try_from(number).ok())
        {
            by_number.entry(number).or_default().push(rule);
        }
    }
    let calls: Vec<(u32, Vec<Rule>)> = by_number.into_iter().collect();
    // System calls of another architecture, 32-bit ones among them, end the process.
    let other = vec![answer(SECCOMP_RET_KILL_PROCESS)];
    [
        vec![load(CALLED_BY)],
        skip_if(BPF_JEQ, ARCHITECTURE, true, other.len()),
        other,
        vec![load(NUMBER)],
        skip_if(BPF_JGE, OTHER_ABI, false, 1),
        vec![refuse(libc::ENOSYS)],
        search(&calls),
    ]
    .concat()
}

/// Finds the number that is loaded among `calls`, which are in order, and answers.
fn search(calls: &[(u32, Vec<Rule>)]) -> Block {
    let (lower, upper) = calls.split_at(calls.len() / 2);
    match (lower, upper) {
        ([], [(number, rules), ..]) => {
            let refused: Block = rules.iter().flat_map(refusal).collect();
            [
                skip_if(BPF_JEQ, *number, false, refused.len()),
                refused,
                vec![answer(SECCOMP_RET_ALLOW)],
            ]
            .concat()
        }
        (_, [(first, _), ..]) => {
            let (lower, upper) = (search(lower), search(upper));
            [skip_if(BPF_JGE, *first, true, lower.len()), lower, upper].concat()
        }
        (_, []) => vec![answer(SECCOMP_RET_ALLOW)],
    }
}

/// Refuses the call if all conditions of the rule hold.
fn refusal(rule: &Rule) -> Block {
    let refused = vec![refuse(rule.errno)];
    rule.when.iter().rfold(refused, |then, condition| {
        [check(condition, then.len()), then].concat()
    })
}

/// Skips the next instructions unless the condition holds.
fn check(condition: &Condition, next: usize) -> Block {
    match condition {
        Condition::Bits {
            argument,
            mask,
            value,
        } => [
            vec![
                load_argument(*argument),
                instruction(BPF_ALU | BPF_AND | BPF_K, *mask),
            ],
            skip_if(BPF_JEQ, *value, false, next),
        ]
        .concat(),
        Condition::NoneOf { argument, values } => {
            let compared = values.iter().rfold(Block::new(), |then, value| {
                [skip_if(BPF_JEQ, *value, true, then.len() + next), then].concat()
            });
            [vec![load_argument(*argument)], compared].concat()
        }
    }
}

/// Skips so many instructions if the comparison of what is loaded with `value` holds, or else if it does not.
fn skip_if(comparison: u32, value: u32, holds: bool, instructions: usize) -> Block {
    let compare = |if_so: u8, if_not: u8| sock_filter {
        jt: if holds { if_so } else { if_not },
        jf: if holds { if_not } else { if_so },
        ..instruction(BPF_JMP | comparison | BPF_K, value)
    };
    match u8::try_from(instructions) {
        Ok(near) => vec![compare(near, 0)],
        // The kernel refuses a filter that is left by a jump.
        Err(_) => {
            let far = u32::try_from(instructions).unwrap_or(u32::MAX);
            vec![compare(0, 1), instruction(BPF_JMP | BPF_JA, far)]
        }
    }
}

fn load_argument(argument: u8) -> sock_filter {
    load(ARGUMENTS + u32::from(argument) * ARGUMENT_LENGTH)
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn refuse(errno: i32) -> sock_filter {
    answer(SECCOMP_RET_ERRNO | errno.cast_unsigned())
}

fn answer(action: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, action)
}

/// The kernel's codes have 16 bits.
fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::holds;
    use super::*;

    #[test]
    fn a_filter_refuses_what_the_list_does_and_nothing_else() {
        let interesting: Vec<u64> = (0..48)
            .chain([
                115, 131, 132, 136, 255, 256, 262, 263, 0x5412, 0x541c, 0x8_0003,
            ])
            .chain([(1 << 32) + 40, (1 << 32) + 2, u64::MAX])
            .chain((6..64).step_by(3).map(|bit| 1 << bit))
            .collect();
        for (signals_stay_inside, user_namespaces) in [(true, false), (false, true)] {
            let runtime = Runtime::Process {
                signals_stay_inside,
            };
            let rules = rules(runtime, user_namespaces);
            let filter = filter(rules.clone());
            for number in 0..600 {
                let listed: Vec<_> = rules
                    .iter()
                    .filter(|rule| rule.call.number == Some(number.into()))
                    .collect();
                // What looks at no argument has the same answer to all.
                let some = match listed.iter().any(|rule| !rule.when.is_empty()) {
                    true => &interesting[..],
                    false => &interesting[..1],
                };
                for (&a, &b) in some.iter().flat_map(|a| some.iter().map(move |b| (a, b))) {
                    for [x, y, z, w] in [[a, b, 0, 0], [a, 3, b, 4], [2, a, b, b], [b, a, a, a]] {
                        let arguments = [x, y, z, w, 0, 0];
                        let expected = listed
                            .iter()
                            .find(|rule| rule.when.iter().all(|when| holds(when, &arguments)))
                            .map_or(SECCOMP_RET_ALLOW, |rule| {
                                SECCOMP_RET_ERRNO | rule.errno.cast_unsigned()
                            });
                        let got = run(&filter, ARCHITECTURE, number, &arguments);
                        assert_eq!(got, expected, "{number} {arguments:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_other_abi_goes_past_the_list() {
        let runtime = Runtime::Process {
            signals_stay_inside: true,
        };
        let filter = filter(rules(runtime, true));
        for number in [0, 59, 165, OTHER_ABI, u32::MAX] {
            let other = run(&filter, ARCHITECTURE ^ 1, number, &[0; 6]);
            assert_eq!(other, SECCOMP_RET_KILL_PROCESS, "{number}");
        }
        let absent = SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        for number in [0, 59, 165].map(|number| number | OTHER_ABI) {
            assert_eq!(run(&filter, ARCHITECTURE, number, &[0; 6]), absent);
        }
    }

    #[test]
    fn far_jumps_go_where_near_ones_do() {
        let block = |length: usize| {
            let not_reached = vec![answer(1); length];
            [
                vec![load(NUMBER)],
                skip_if(BPF_JEQ, 7, true, length),
                not_reached,
                vec![answer(2)],
            ]
            .concat()
        };
        for length in [1, 255, 256, 1000] {
            let filter = block(length);
            assert_eq!(run(&filter, ARCHITECTURE, 7, &[0; 6]), 2, "{length}");
            assert_eq!(run(&filter, ARCHITECTURE, 8, &[0; 6]), 1, "{length}");
        }
    }

    /// What the kernel does with a filter.
    fn run(filter: &[sock_filter], architecture: u32, number: u32, arguments: &[u64; 6]) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = filter[at];
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            at += 1;
            match u32::from(code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    loaded = match k {
                        NUMBER => number,
                        CALLED_BY => architecture,
                        offset => {
                            arguments[((offset - ARGUMENTS) / ARGUMENT_LENGTH) as usize] as u32
                        }
                    }
                }
                code if code == BPF_ALU | BPF_AND | BPF_K => loaded &= k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => at += jump(loaded == k),
                code if code == BPF_JMP | BPF_JGE | BPF_K => at += jump(loaded >= k),
                code if code == BPF_JMP | BPF_JA => at += k as usize,
                code if code == BPF_RET | BPF_K => return k,
                code => panic!("unknown code {code:#x}"),
            }
        }
    }
}
