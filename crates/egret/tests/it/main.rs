//! Egret as its users meet it: the built binary, real namespaces, real sockets and real clients, in a world without
//! internet.
//!
//! These tests make network namespaces and mount file systems in namespaces of their own, so they want root, and a
//! handful of programs from the distribution. `./x test` brings both. Nothing is skipped where they are missing: it
//! fails and says so.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test, and what helps it, fails by panicking"
)]

mod ask;
mod closed;
mod commands;
mod containers;
mod costs;
mod doors;
mod escapes;
mod explain;
mod faults;
mod files;
mod guide;
mod harness;
mod invisible;
mod learn;
mod observe;
mod packages;
mod policies;
mod programs;
mod projects;
mod refusals;
mod requests;
mod rotation;
mod screens;
mod settings;
mod verify;
mod watch;
mod world;
