//! Every known way past an egress boundary, tried from inside. `docs/bypasses.md` has the list, with what closes each and where
//! it is tried; [`list`] holds list and tests together.
//!
//! What can be attempted anywhere is a function of a [`World`], and [`everywhere`] makes a test of it for each runtime.

/// Makes tests of functions that make attempts in a [`World`]: in the sandboxes of programs, and in containers of each engine.
macro_rules! everywhere {
    ($($attempt:ident),+ $(,)?) => {
        mod process {
            $(#[test]
            fn $attempt() {
                super::$attempt(&crate::world::World::new());
            })+
        }
        mod docker {
            $(#[test]
            fn $attempt() {
                super::$attempt(&crate::world::World::with_tools(crate::world::engine::Kind::Docker));
            })+
        }
        mod podman {
            $(#[test]
            fn $attempt() {
                super::$attempt(&crate::world::World::with_tools(crate::world::engine::Kind::Podman));
            })+
        }
        mod rootless_podman {
            $(#[test]
            fn $attempt() {
                super::$attempt(&crate::world::World::with_tools(crate::world::engine::Kind::RootlessPodman));
            })+
        }
    };
}
pub(crate) use everywhere;

pub(crate) mod addresses;
mod asking;
mod descriptors;
mod floods;
mod kernel;
mod learning;
mod list;
mod names;
mod neighbours;
mod policies;
mod routing;
mod secrets;
mod spoken;
mod unix;

use crate::world::{Place, World};

/// What scripts begin with that make attempts of their own: system calls that Python has no words for.
pub(crate) const CALLS: &str = "
import ctypes, os, socket, struct, sys, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    got = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return 'ok' if got >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(what):
    try:
        what()
        return 'ok'
    except OSError as error:
        return errno.errorcode[error.errno]
";

/// What scripts begin with that speak to the explicit proxy, whose port a container chooses.
pub(crate) const PROXY: &str = "
import os, socket
PROXY = ('127.0.0.1', int(os.environ['HTTP_PROXY'].rsplit(':', 1)[1]))
";

/// Runs a script that prints a line for each attempt, `WHAT RESULT`, and fails if any result is not an error.
#[track_caller]
pub(crate) fn all_fail(world: &World, place: Place, script: &str, count: usize) {
    let outcome = world.run_in(place).python(&format!("{CALLS}{script}")).ok();
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), count, "{outcome:#?}");
    for line in lines {
        let result = line.rsplit(' ').next().unwrap();
        assert!(result.starts_with('E'), "{place:?}: {line}: {outcome:#?}");
    }
    outcome.silent();
}
