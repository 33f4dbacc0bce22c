//! Giving up what a program could use against its sandbox.
//!
//! By the time this runs the namespaces already hold. Each step here takes away something that would widen an attack on
//! them: capabilities, writing outside the opened paths (Landlock), and system calls that programs do not need.

use crate::error::{Cause, at};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, Scope,
};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use std::io;
use std::path::PathBuf;

/// Empties every capability set of this process, the bounding set included, for good.
pub(super) fn drop_capabilities() -> Result<(), Cause> {
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no capability of this number, hence none above it.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    match clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    set_no_new_privs(true)?;
    Ok(())
}

/// Forbids, by Landlock, to change anything but what is beneath `writable`, to reach unix sockets that were not made in
/// here, and to signal processes outside. A kernel that knows less of this, or no Landlock, has the mounts and namespaces
/// alone to hold (and lets a program connect to a socket that appears, after the start, at a path that it sees).
pub(super) fn restrict_files(writable: &[PathBuf]) -> Result<(), Cause> {
    let abi = ABI::V9;
    let handled: BitFlags<AccessFs> = AccessFs::from_write(abi);
    // Granted nowhere: sockets of the program's own making need no grant.
    let changes = handled & !BitFlags::from(AccessFs::ResolveUnix);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    for path in writable {
        let Ok(opened) = PathFd::new(path) else {
            continue;
        };
        let stat = rustix::fs::fstat(&opened).map_err(at(path))?;
        let is_directory =
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        let granted = if is_directory {
            changes
        } else {
            changes & AccessFs::from_file(abi)
        };
        rules = rules
            .add_rule(PathBeneath::new(opened, granted))
            .map_err(io::Error::other)?;
    }
    rules.restrict_self().map_err(io::Error::other)?;
    Ok(())
}
