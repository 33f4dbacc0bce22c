//! System calls that no safe wrapper offers, and every `unsafe` block of the project.
//!
//! Everything else in the workspace goes through `rustix`. What is left here is what `rustix` does not have:
//! a `fork` that gives the child to our own parent, `execve` after it, `mount_setattr`, filters for system calls, the
//! signal mask with `signalfd`, the list of interface addresses, who is at the other end of a socket, calls that are made
//! only to see them refused, and a word to the allocator.
//!
//! Two facts carry most of the arguments below, and [`crate::jail`] upholds both: the jail is a process that was
//! started afresh and never had a second thread, and nothing in it shares memory with anyone.

#![expect(
    unsafe_code,
    reason = "the one room of the project where unsafe code is allowed; each block argues its case"
)]

pub(crate) mod filters;
pub(crate) mod interfaces;
pub(crate) mod memory;
pub(crate) mod mounts;
pub(crate) mod process;
pub(crate) mod signals;
pub(crate) mod sockets;
pub(crate) mod tries;
