//! The list as a profile for container engines, in the format that Docker and Podman read
//! (`--security-opt seccomp=FILE`).
//!
//! The engine hands a profile to libseccomp, which makes a filter of it. Some things follow from how that is done:
//!
//! - The profile names no architecture but the machine's own, so libseccomp ends a process at its first system call of
//!   another ABI: 32-bit programs do not run, and x32 numbers are no way round.
//! - Comparisons are about all 64 bits of an argument, of which the kernel looks at 32. So every comparison here is a
//!   masked one: a family of 2³² + 40 is no way to get a socket of family 40.
//! - Several comparisons of one argument are taken for alternatives. *None of these values* is therefore said by blocks of
//!   numbers that have their upper bits in common, and cover all other numbers.
//! - A name that the engine's libseccomp does not know is passed over. A call that is listed here and newer than the engine
//!   is allowed then; each of them takes a capability that the container does not have.
//!
//! What differs from the profile that Docker has by default (as of 2026), for a container without capabilities:
//!
//! - Allowed here and refused there: calls that are newer than that profile, which lists what is allowed; `unshare` that
//!   makes no namespace; `chroot`, which takes a capability; `sysfs` and `ustat`, which only tell; and calls that Linux
//!   removed long ago.
//! - Refused here and allowed there: sockets of all families but unix, IPv4, IPv6 and netlink (packet, Bluetooth, …), raw
//!   ones, unusual protocols, netlink but for routing; typing into terminals; `adjtimex`, which takes a capability where it
//!   sets something; 32-bit programs. Above all `AF_VSOCK`, which leads out of any network namespace: that profile lets it
//!   through in Docker 20.10, and in later versions if a bit above the 32nd is set in the family.
//! - A capability that a container is given allows more calls there, and none here.

use super::{Condition, Rule, Runtime, rules};
use serde_json::{Value, json};

/// A seccomp profile for the user's container, as JSON text.
///
/// It refuses what a program in namespaces of our own is refused, but for `chroot`, which programs of images use; and
/// what the engines' own profile refuses. With `allow_user_namespaces` it lets programs make namespaces of their own.
#[must_use]
pub fn seccomp_profile(allow_user_namespaces: bool) -> String {
    let rules = rules(Runtime::Container, allow_user_namespaces);
    let calls: Vec<Value> = rules.iter().flat_map(entries).collect();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": [] },
            { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": [] },
        ],
        "syscalls": calls,
    });
    profile.to_string()
}

/// A rule as entries of a profile: one for each way in which its conditions can hold.
fn entries(rule: &Rule) -> Vec<Value> {
    let mut ways: Vec<Vec<Value>> = vec![Vec::new()];
    for condition in &rule.when {
        let (argument, blocks) = match condition {
            Condition::Bits {
                argument,
                mask,
                value,
            } => (argument, vec![(*mask, *value)]),
            Condition::NoneOf { argument, values } => (argument, all_but(values)),
        };
        ways = ways
            .iter()
            .flat_map(|way| {
                blocks.iter().map(|(mask, value)| {
                    let mut way = way.clone();
                    way.push(json!({
                        "index": argument,
                        "value": mask,
                        "valueTwo": value,
                        "op": "SCMP_CMP_MASKED_EQ",
                    }));
                    way
                })
            })
            .collect();
    }
    ways.into_iter()
        .map(|arguments| {
            json!({
                "names": [rule.call.name()],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": rule.errno,
                "args": arguments,
            })
        })
        .collect()
}

/// Blocks of numbers that together hold all numbers but `values`: a number is in a block if its bits under the mask are the
/// block's.
fn all_but(values: &[u32]) -> Vec<(u32, u32)> {
    let mut blocks = Vec::new();
    // Blocks that hold some of the values, to be cut in two.
    let mut mixed = vec![(0u32, 0u32)];
    while let Some((mask, start)) = mixed.pop() {
        if !values.iter().any(|value| value & mask == start) {
            blocks.push((mask, start));
        } else if mask != u32::MAX {
            let half = (mask >> 1) | (1 << 31);
            mixed.push((half, start | (half ^ mask)));
            mixed.push((half, start));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::super::tests::holds;
    use super::*;

    #[test]
    fn blocks_hold_all_numbers_but_those() {
        for values in [
            &[1, 2, 10, 16][..],
            &[0],
            &[u32::MAX, 0, 8],
            &[0x8000_0000],
            &[],
        ] {
            let blocks = all_but(values);
            let near = values
                .iter()
                .flat_map(|value| (0..32).map(move |bit| value ^ (1 << bit)));
            for number in near.chain(0..1000).chain(values.iter().copied()) {
                let holding = blocks
                    .iter()
                    .filter(|(mask, value)| number & mask == *value)
                    .count();
                assert_eq!(holding, usize::from(!values.contains(&number)), "{number}");
            }
        }
    }

    #[test]
    fn a_profile_refuses_what_the_list_does() {
        let rules = rules(Runtime::Container, false);
        let profile = profile(false);
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
        let interesting: Vec<u64> = (0..48)
            .chain([
                115, 131, 132, 136, 255, 256, 262, 263, 0x5412, 0x541c, 0x8_0003,
            ])
            .chain([
                0x2_0008,
                0xffff_ffff,
                (1 << 32) + 40,
                (1 << 32) + 2,
                u64::MAX,
            ])
            .chain((6..64).step_by(3).map(|bit| 1 << bit))
            .collect();
        let mut names: Vec<_> = rules.iter().map(|rule| rule.call.name()).collect();
        names.dedup();
        for name in names {
            let listed: Vec<_> = rules
                .iter()
                .filter(|rule| rule.call.name() == name)
                .collect();
            let said = said(&profile, name);
            for &a in &interesting {
                for &b in &interesting {
                    for arguments in [[a, b, 0], [a, 3, b], [2, a, b], [b, a, a]] {
                        let expected = listed
                            .iter()
                            .find(|rule| rule.when.iter().all(|c| holds(c, &arguments)))
                            .map(|rule| rule.errno);
                        assert_eq!(answer(&said, &arguments), expected, "{name} {arguments:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_profile_says_nothing_that_engines_would_read_otherwise() {
        for entry in profile(false)["syscalls"].as_array().unwrap() {
            let arguments = entry["args"].as_array().unwrap();
            let mut indices: Vec<_> = arguments.iter().map(|arg| arg["index"].as_u64()).collect();
            indices.dedup();
            assert_eq!(indices.len(), arguments.len(), "{entry}");
            assert!(entry["errnoRet"].as_u64().unwrap() > 0);
        }
    }

    #[test]
    fn what_differs_between_the_runtimes_is_said() {
        let names = |text: &Value| -> Vec<String> {
            let entries = text["syscalls"].as_array().unwrap();
            let name = |entry: &Value| entry["names"][0].as_str().unwrap().to_owned();
            entries.iter().map(name).collect()
        };
        #[rustfmt::skip]
        let table = [
            // call             by default  with user namespaces
            ("mount",           true,       true ),
            ("bpf",             true,       true ),
            ("userfaultfd",     true,       true ),
            ("iopl",            true,       true ),
            ("open_tree_attr",  true,       true ),
            ("io_uring_setup",  true,       true ),
            ("clone3",          true,       false),
            ("unshare",         true,       false),
            ("chroot",          false,      false), // images use it
            ("ptrace",          false,      false),
            ("kill",            false,      false), // a container has process groups of its own
        ];
        for (name, refused, with) in table {
            let has = |profile: Value| names(&profile).iter().any(|listed| listed == name);
            assert_eq!(
                (has(profile(false)), has(profile(true))),
                (refused, with),
                "{name}"
            );
        }
    }

    fn profile(allow_user_namespaces: bool) -> Value {
        serde_json::from_str(&seccomp_profile(allow_user_namespaces)).unwrap()
    }

    /// What a profile says of a call: comparisons (argument, mask, value), and what it fails with where they all hold.
    type Said = Vec<(Vec<(usize, u64, u64)>, i32)>;

    fn said(profile: &Value, name: &str) -> Said {
        let number = |value: &Value| value.as_u64().unwrap();
        let entries = profile["syscalls"].as_array().unwrap();
        let of_this_name = entries.iter().filter(|entry| entry["names"][0] == name);
        of_this_name
            .map(|entry| {
                let compared = entry["args"].as_array().unwrap().iter().map(|compared| {
                    assert_eq!(compared["op"], "SCMP_CMP_MASKED_EQ");
                    let [index, mask, value] = ["index", "value", "valueTwo"];
                    (
                        number(&compared[index]) as usize,
                        number(&compared[mask]),
                        number(&compared[value]),
                    )
                });
                (compared.collect(), number(&entry["errnoRet"]) as i32)
            })
            .collect()
    }

    /// What a filter that was made by it answers: libseccomp compares all 64 bits.
    fn answer(said: &Said, arguments: &[u64; 3]) -> Option<i32> {
        said.iter()
            .find(|(compared, _)| {
                compared
                    .iter()
                    .all(|(index, mask, value)| arguments[*index] & mask == *value)
            })
            .map(|(_, errno)| *errno)
    }
}
