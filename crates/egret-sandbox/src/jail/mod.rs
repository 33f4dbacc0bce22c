//! Building the sandbox, from inside.
//!
//! This runs in a process of its own: `egret` starts itself again as `egret jail`, so there is one thread, and memory that
//! holds nothing of the gateway's. [`enter`] is the whole order of things; the order is the security. Everything that could
//! fail is done before the program starts, and any failure ends the jail with nothing started.

mod files;
mod init;
mod makers;
mod mounts;
mod plan;
pub(crate) mod privileges;

use crate::channel::{Inside, LONGEST, Order, Report};
use crate::doors::Ports;
use crate::error::{Cause, Step};
use crate::seal::{Probe, Seal, nonce};
use crate::spec::Spec;
use crate::sys::process::{Forked, fork_sibling, unshare};
use rustix::process::{
    DumpableBehavior, Pid, Signal, getpid, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// Builds a sandbox as the process at the other end of `socket` orders, runs the program in it and watches over it.
///
/// To be called first thing in a process that was started for it.
pub fn enter(socket: OwnedFd) -> ExitCode {
    let mut channel = Inside::new(socket, LONGEST);
    match build_and_run(&mut channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ending::Orphaned) => ExitCode::FAILURE,
        Err(Ending::Failed(step, Cause { errno, message })) => {
            // If nobody hears it, then nobody waits for this sandbox any more either.
            match channel.send(&Report::Failed {
                step,
                errno,
                message,
            }) {
                Ok(()) | Err(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// The end of the channel that the process was started with, by its number.
///
/// # Errors
/// If the number is not that of an open socket which was passed on: whoever started this was not egret.
pub fn inherited_socket(number: i32) -> io::Result<OwnedFd> {
    let socket = crate::sys::process::inherited(number)?;
    rustix::net::sockopt::socket_type(&socket)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// Why building stopped.
enum Ending {
    /// The process that wanted the sandbox is gone, and the sandbox with it.
    Orphaned,
    /// A step failed.
    Failed(Step, Cause),
}

trait During<T> {
    /// Says in which step of building this happened.
    fn during(self, step: Step) -> Result<T, Ending>;
}

impl<T, E: Into<Cause>> During<T> for Result<T, E> {
    fn during(self, step: Step) -> Result<T, Ending> {
        self.map_err(|cause| Ending::Failed(step, cause.into()))
    }
}

fn build_and_run(channel: &mut Inside) -> Result<(), Ending> {
    let Order::Build(spec) = next(channel)? else {
        return Err(Ending::Orphaned);
    };
    unshare_all().during(Step::Namespaces)?;

    // Ids are mapped by the process outside: only there can root map more than itself.
    channel.send(&Report::Unshared).during(Step::Ids)?;
    let Order::Mapped = next(channel)? else {
        return Err(Ending::Orphaned);
    };

    // A process namespace begins with the next child. It becomes our parent's, and we are done.
    match fork_sibling().during(Step::Namespaces)? {
        Forked::Parent(pid) => {
            channel
                .send(&Report::Init(pid.as_raw_nonzero().get()))
                .during(Step::Namespaces)?;
            Ok(())
        }
        Forked::Child => as_init(channel, &spec),
    }
}

/// The rest, as the first process of the sandbox.
fn as_init(channel: &mut Inside, spec: &Spec) -> Result<(), Ending> {
    // If the gateway's process dies, so does this one, and with it every process of the sandbox. Only from here on: a
    // change of capabilities, such as unshare made, clears the setting.
    set_parent_process_death_signal(Some(Signal::KILL)).during(Step::Watch)?;
    rustix::thread::set_name(c"egret").during(Step::Watch)?; // what `ps` shows
    // The program runs as the same user. Without this it could trace us and read what we have open.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during(Step::Watch)?;
    if getpid() != Pid::INIT {
        return Err(Ending::Failed(
            Step::Namespaces,
            io::Error::other("not the first process of the sandbox").into(),
        ));
    }

    // The process that forked us speaks on the same channel, and has to have said its last word before we say our first.
    let Order::Seal = next(channel)? else {
        return Err(Ending::Orphaned);
    };
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let (seal, strays) = Seal::set(Ports::default()).during(Step::Seal)?;
    let doors = seal.open_doors().during(Step::Seal)?;
    let nonce = nonce().during(Step::Seal)?;
    let probe = Probe::send(&doors, nonce.as_bytes()).during(Step::Seal)?;
    let sealed = Report::Sealed {
        families: doors.captured.len(),
        nonce,
    };
    let mut given = doors.descriptors();
    given.extend(strays.as_ref().map(AsFd::as_fd));
    channel.send_with(&sealed, &given).during(Step::Seal)?;
    // From here on only the gateway can accept what the sandbox connects.
    drop((doors, strays));
    let views = makers::open().during(Step::Files)?;

    let hostname = rustix::system::uname();
    let writable =
        files::build(&spec.files, &hostname.nodename().to_string_lossy()).during(Step::Files)?;
    rustix::process::umask(umask);
    let views = views.with_root().during(Step::Files)?;
    privileges::drop_capabilities().during(Step::Privileges)?;
    let given: Vec<_> = views.iter().map(AsFd::as_fd).collect();
    channel
        .send_with(&Report::Built, &given)
        .during(Step::Watch)?;
    drop(views);

    let Order::Release = next(channel)? else {
        return Err(Ending::Orphaned);
    };
    drop(probe);
    init::run(channel, spec, &writable).during(Step::Watch)
}

/// All namespaces but the one for time.
fn unshare_all() -> rustix::io::Result<()> {
    let all = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    unshare(all)
}

fn next(channel: &mut Inside) -> Result<Order, Ending> {
    match channel.receive() {
        Ok(Some((order, _))) => Ok(order),
        Ok(None) | Err(_) => Err(Ending::Orphaned),
    }
}
