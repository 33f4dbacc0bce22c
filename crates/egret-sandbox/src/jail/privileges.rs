//! Giving up what a program could use against its sandbox.
//!
//! By the time this runs the namespaces already hold. Each step here takes away something that would widen an attack on
//! them: capabilities, writing outside the opened paths (Landlock), and system calls that programs do not need.

use crate::error::Cause;
use crate::guard::stands;
use crate::standard;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, Scope,
};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Empties every capability set of this process for good. The bounding set is emptied as well by a process that may; one
/// that may not gains nothing from it either, since `no_new_privs` is set for both.
pub(crate) fn drop_capabilities() -> Result<(), Cause> {
    if !stands("capabilities") {
        return Ok(());
    }
    let may = capabilities(None)?
        .effective
        .contains(CapabilitySet::SETPCAP);
    for bit in (0..64).take_while(|_| may) {
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
///
/// Returns whether signals stay inside.
pub(super) fn restrict_files(writable: &[PathBuf]) -> Result<bool, Cause> {
    if !stands("signals") {
        // What it is to say wrongly: the filter refuses them otherwise.
        return Ok(true);
    }
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
        // What cannot be opened is not granted.
        let Ok(opened) = PathFd::new(path) else {
            continue;
        };
        rules = grant(rules, opened, changes, abi)?;
    }
    // What standard output goes to can be written to by its descriptor, and so can it by name: /dev/stdout.
    for (_, descriptor) in standard::all() {
        let kind = FileType::from_raw_mode(fstat(descriptor)?.st_mode);
        let writes = fcntl_getfl(descriptor)? & OFlags::RWMODE != OFlags::RDONLY;
        if writes && matches!(kind, FileType::RegularFile | FileType::CharacterDevice) {
            rules = grant(rules, descriptor, changes, abi)?;
        }
    }
    let status = rules.restrict_self().map_err(io::Error::other)?;
    Ok(
        matches!(status.landlock, LandlockStatus::Available { effective_abi, .. } if effective_abi >= ABI::V6),
    )
}

/// Grants `changes` to a file, or to all beneath a directory.
fn grant(
    rules: RulesetCreated,
    opened: impl AsFd,
    changes: BitFlags<AccessFs>,
    abi: ABI,
) -> Result<RulesetCreated, Cause> {
    let kind = FileType::from_raw_mode(fstat(&opened)?.st_mode);
    let granted = if kind == FileType::Directory {
        changes
    } else {
        changes & AccessFs::from_file(abi)
    };
    Ok(rules
        .add_rule(PathBeneath::new(opened, granted))
        .map_err(io::Error::other)?)
}
