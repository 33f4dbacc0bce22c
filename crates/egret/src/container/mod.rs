//! Sandboxes of containers: `egret run IMAGE` and what is done with them afterwards.
//!
//! The engine's own command does what it can do; here is what it cannot: a workload without a network, whose connections
//! reach a gateway in another container. [`deploy`] starts one, [`spec`] says with which commands, [`inside`] is what runs
//! in the two containers of ours, and [`commands`] is the rest of the command line.

mod commands;
pub(crate) mod config;
mod deploy;
mod ending;
mod engine;
mod hear;
mod hosts;
mod image;
pub(crate) mod inside;
mod minder;
pub(crate) mod mounts;
pub(crate) mod openings;
mod options;
pub(crate) mod plan;
pub(crate) mod publish;
mod sandbox;
pub(crate) mod socket;
mod spec;
#[cfg(test)]
mod tests;
mod wait;

use crate::failure::Failure;

pub(crate) use commands::{
    AuditStream, Conversation, ask_gateway, audit, exec, export, find, inspect, listed, logs,
    remove, restart, start, stop,
};
pub(crate) use deploy::{prober, run};
pub(crate) use engine::Kind;
pub(crate) use inside::{agent, ask, gateway};
pub(crate) use minder::mind;
pub(crate) use options::ContainerOptions;
pub(crate) use sandbox::{Container, Role, Sandbox};
pub(crate) use wait::exit_as;

/// How long the word is that tells one start from another, in hexadecimal digits.
const INSTANCE_LENGTH: usize = 12;

/// What a thread that was waited for has found out.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> Result<T, Failure> {
    thread
        .join()
        .map_err(|_| Failure::new("a part of egret has failed; this is a mistake in egret"))
}
