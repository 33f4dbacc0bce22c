//! From a [`Spec`] to a confined process.
//!
//! A sandbox is a set of namespaces with a network that leads nowhere but to listeners, which are handed out to whoever
//! ordered it. This crate builds it, proves that it is sealed, starts a program in it and waits for the program's end. Who
//! may connect where is decided elsewhere: nothing here knows of policies.
//!
//! - [`Jail`] orders a sandbox from outside; [`jail`] builds it from inside, in a process of its own.
//! - [`attempts`] are what a program could try against its sandbox, for a prober.
//! - [`agent`] seals what a container engine made, for a gateway in another container.
//! - If a part of the confinement cannot be had, there is an [`Error`] and nothing was started.
//! - All unsafe code of the project is in the private module `sys`.

mod addresses;
pub mod agent;
pub mod attempts;
mod channel;
mod doors;
mod error;
mod guard;
pub mod jail;
mod makers;
mod netlink;
mod prepare;
mod seal;
mod spec;
mod standard;
mod strays;
mod sys;
mod syscalls;
mod terminal;

pub use addresses::AddressChanges;
pub use channel::Ended;
pub use doors::{CAPTURE_PORT, DNS_PORT, Doors, PROXY_PORT, Ports};
pub use error::{Error, Step};
pub use makers::{Maker, Makers};
pub use prepare::{Jail, Killer, Notice, Prepared, Prober, Running, Sealed};
pub use spec::{Files, Mark, Spec};
pub use strays::{Stray, Strays};
pub use sys::interfaces::addresses;
pub use sys::memory::{give_memory_back, share_one_heap};
pub use sys::process::die_by;
pub use sys::signals::{Arrived, Signals};
pub use sys::sockets::{peer_is_inside, peer_user};
pub use syscalls::profile::seccomp_profile;
