//! Building the sandbox, from inside.
//!
//! This runs in processes of its own: `egret` starts itself again as `egret jail`, so there is one thread, and memory that
//! holds nothing of the gateway's. [`enter`] is the whole order of things; the order is the security. Everything that could
//! fail is done before the program starts, and any failure ends the jail with nothing started.

mod files;
mod init;
mod makers;
mod mounts;
mod plan;
pub(crate) mod privileges;

use crate::channel::{self, Inside, LONGEST, Order, Report};
use crate::doors::Ports;
use crate::error::{Cause, Step};
use crate::guard::stands;
use crate::seal::{Probe, Seal, allow_ipv6, forget_soon, nonce};
use crate::sys::process::{Forked, fork_sibling, unshare};
use rustix::process::{
    DumpableBehavior, Pid, Signal, getpid, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// Makes a sandbox for the process at the other end of `socket`, in two: this process seals its network, while the first
/// one of the sandbox builds its files, runs the program and watches over it.
///
/// To be called first thing in a process that was started for it.
pub fn enter(socket: OwnedFd) -> ExitCode {
    let mut channel = Inside::new(socket, LONGEST);
    let done = divide(&mut channel).and_then(|here| match here {
        Forked::Parent(_) => seal(&mut channel),
        Forked::Child => build_and_run(&mut channel),
    });
    match done {
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

/// Makes the namespaces, and the first process in them, which has `channel` replaced by one of its own.
fn divide(channel: &mut Inside) -> Result<Forked, Ending> {
    unshare_all().during(Step::Namespaces)?;
    // This takes files of the machine's, and there will be other ones as soon as the first process builds them.
    allow_ipv6().during(Step::Seal)?;
    forget_soon();
    let (outside, inside) = channel::pair().during(Step::Namespaces)?;
    // A process namespace begins with the next child. It becomes our parent's.
    let forked = fork_sibling().during(Step::Namespaces)?;
    match forked {
        Forked::Parent(pid) => {
            let init = Report::Init(pid.as_raw_nonzero().get());
            channel
                .send_with(&init, &[outside.as_fd()])
                .during(Step::Namespaces)?;
        }
        Forked::Child => *channel = Inside::new(inside, LONGEST),
    }
    Ok(forked)
}

/// Seals the network, and stays until the outside has seen that it is sealed.
fn seal(channel: &mut Inside) -> Result<(), Ending> {
    let (seal, strays) = Seal::set(Ports::default()).during(Step::Seal)?;
    let doors = seal.open_doors().during(Step::Seal)?;
    let nonce = nonce().during(Step::Seal)?;
    let probe = match stands("proof") {
        true => Some(Probe::send(&doors, nonce.as_bytes()).during(Step::Seal)?),
        false => None,
    };
    let sealed = Report::Sealed {
        families: doors.captured.len(),
        nonce,
    };
    let mut given = doors.descriptors();
    given.extend(strays.as_ref().map(AsFd::as_fd));
    channel.send_with(&sealed, &given).during(Step::Seal)?;
    // From here on only the gateway can accept what the sandbox connects.
    drop((doors, strays));
    match next(channel) {
        // Nothing is ordered here; the outside is gone when it has seen enough.
        Ok(_) | Err(_) => drop(probe),
    }
    Ok(())
}

/// The rest, as the first process of the sandbox.
fn build_and_run(channel: &mut Inside) -> Result<(), Ending> {
    // If the gateway's process dies, so does this one, and with it every process of the sandbox. Only from here on: a
    // change of capabilities, such as unshare made, clears the setting.
    set_parent_process_death_signal(Some(Signal::KILL)).during(Step::Watch)?;
    rustix::thread::set_name(c"egret").during(Step::Watch)?; // what `ps` shows
    if getpid() != Pid::INIT {
        return Err(Ending::Failed(
            Step::Namespaces,
            io::Error::other("not the first process of the sandbox").into(),
        ));
    }

    // Ids are mapped before this comes, by the process outside: only there can root map more than itself.
    let Order::Build(spec) = next(channel)? else {
        return Err(Ending::Orphaned);
    };
    // The program runs as the same user. Without this it could trace us and read what we have open. Not before ids are
    // mapped: the files to do it by would belong to root.
    if stands("untraceable") {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).during(Step::Watch)?;
    }
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
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
    init::run(channel, &spec, &writable).during(Step::Watch)
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
    let except = match stands("network-namespace") {
        true => UnshareFlags::empty(),
        false => UnshareFlags::NEWNET,
    };
    unshare(all - except)
}

fn next(channel: &mut Inside) -> Result<Order, Ending> {
    match channel.receive() {
        Ok(Some((order, _))) => Ok(order),
        Ok(None) | Err(_) => Err(Ending::Orphaned),
    }
}
