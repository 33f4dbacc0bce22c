//! The outside of a sandbox: ordering it, making sure that it is sealed, starting the program, waiting for its end.
//!
//! ```text
//! Jail ──prepare──▶ Prepared ──release──▶ Running ──wait──▶ Ended
//! ```
//!
//! A [`Jail`] makes and seals namespaces while the caller finds out what is to run. A [`Prepared`] sandbox stands and is
//! sealed, and nothing of the user's has run in it. Only its `release` starts the program, so that a gateway can stand before
//! there is anything to let through. Dropping any of them ends the sandbox.

use crate::channel::{self, Ended, LONGEST, Order, Outside, Report};
use crate::doors::Doors;
use crate::error::{Cause, Error, Step, at};
use crate::guard::stands;
use crate::makers::Makers;
use crate::seal::prove;
use crate::spec::Spec;
use crate::standard;
use crate::strays::{Stray, Strays};
use crate::sys::signals::{Signals, kill};
use crate::terminal::Terminal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{Shutdown, shutdown};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getegid, geteuid, pidfd_open,
    pidfd_send_signal, waitpid,
};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};

/// A sandbox whose namespaces are made and sealed, by a process of its own, while the caller finds out what to run.
#[derive(Debug)]
pub struct Jail {
    /// Gone once the process at its other end is needed no more.
    channel: Option<Outside>,
    maker: Child,
}

impl Jail {
    /// Starts to make a sandbox. The program will have the signal mask that the calling thread has now.
    ///
    /// The calling process starts itself again as `egret jail FD`, where [`crate::jail`] does the work.
    ///
    /// # Errors
    /// If a standard descriptor would be a way out, or there can be no further process.
    pub fn start() -> Result<Self, Error> {
        standard::check()?;
        let (channel, inside) = channel::pair().map_err(Error::Spawn)?;
        let maker = spawn(&inside).map_err(Error::Spawn)?;
        Ok(Self {
            channel: Some(channel),
            maker,
        })
    }

    /// Waits until the sandbox is sealed, and has the rest of it built for `spec` meanwhile. The program is not started yet.
    ///
    /// # Errors
    /// If any part of the confinement cannot be had. Nothing is left behind then.
    pub fn prepare(mut self, spec: Spec) -> Result<Prepared, Error> {
        let program = spec.program.to_string_lossy().into_owned();
        let from_maker = self.channel.as_mut().ok_or(Error::Vanished)?;
        let (Report::Init(pid), descriptors) = next(from_maker)? else {
            return Err(Error::Vanished);
        };
        let init = Init::new(pid).map_err(Error::Spawn)?;
        let [socket] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| Error::Vanished)?;
        let mut channel = Outside::new(socket, LONGEST);
        map_ids(init.pid).map_err(|cause| Error::jail(Step::Ids, cause))?;
        channel
            .send(&Order::Build(Box::new(spec)))
            .map_err(Error::Channel)?;

        let (Report::Sealed { families, nonce }, descriptors) = next(from_maker)? else {
            return Err(Error::Vanished);
        };
        let (doors, strays) = Doors::from_descriptors(families, descriptors)
            .ok_or_else(|| Error::NotSealed("the listeners did not arrive".into()))?;
        if stands("proof") {
            prove(&doors, nonce.as_bytes())?;
        }
        // It ends by this, while the gateway is made.
        self.channel = None;
        Ok(Prepared {
            doors,
            sealed: Sealed {
                jail: self,
                program,
                channel,
                strays,
                init,
                makers: Makers::default(),
            },
        })
    }
}

impl Drop for Jail {
    /// Waits for the end of the process that made the sandbox; ends the sandbox itself if nobody has taken it.
    fn drop(&mut self) {
        if let Some(mut channel) = self.channel.take() {
            // It ends when there is nobody to wait for any more; if that cannot be told, it has ended already.
            let (Ok(()) | Err(_)) = shutdown(&channel, Shutdown::Write);
            while let Ok((report, _)) = next(&mut channel) {
                if let Report::Init(pid) = report {
                    let (Ok(_) | Err(_)) = Init::new(pid);
                }
            }
        }
        let (Ok(_) | Err(_)) = self.maker.wait();
    }
}

/// A sandbox that stands, is sealed, and has not run anything yet.
#[derive(Debug)]
pub struct Prepared {
    doors: Doors,
    sealed: Sealed,
}

impl Prepared {
    /// The sockets through which the sandbox's traffic arrives, for the gateway; and what is left to release.
    #[must_use]
    pub fn split(self) -> (Doors, Sealed) {
        (self.doors, self.sealed)
    }
}

/// A prepared sandbox whose listeners have been handed to the gateway.
#[derive(Debug)]
pub struct Sealed {
    jail: Jail,
    program: String,
    channel: Outside,
    strays: Option<Strays>,
    init: Init,
    makers: Makers,
}

impl Sealed {
    /// What will tell, from the program's start on, who made a connection.
    #[must_use]
    pub fn makers(&self) -> Makers {
        self.makers.clone()
    }

    /// Starts the program.
    ///
    /// # Errors
    /// If the last confinements fail or the program cannot be executed.
    pub fn release(mut self) -> Result<Running, Error> {
        let (Report::Built, views) = next(&mut self.channel)? else {
            return Err(Error::Vanished);
        };
        self.makers.take(views);
        // Who made the namespaces has every capability over them: the program starts when it is gone.
        drop(self.jail);
        self.channel.send(&Order::Release).map_err(Error::Channel)?;
        match next(&mut self.channel)?.0 {
            Report::Started => Ok(Running {
                channel: self.channel,
                strays: self.strays,
                init: self.init,
            }),
            Report::NotStarted { errno } => Err(Error::Program {
                program: self.program,
                errno,
            }),
            _ => Err(Error::Vanished),
        }
    }
}

/// A program in its sandbox.
#[derive(Debug)]
pub struct Running {
    channel: Outside,
    strays: Option<Strays>,
    init: Init,
}

impl Running {
    /// A handle that can end the sandbox at once, from anywhere.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn killer(&self) -> io::Result<Killer> {
        Ok(Killer(self.init.pidfd.try_clone()?))
    }

    /// A way to have a prober run in there, from anywhere.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn prober(&self) -> io::Result<Prober> {
        let orders = rustix::io::fcntl_dupfd_cloexec(&self.channel, 3)?;
        Ok(Prober(Mutex::new(Outside::new(orders, LONGEST))))
    }

    /// Waits until the program has ended, passing on the signals that arrive meanwhile and following it when it is
    /// stopped, as the shell expects of a child. What else happens, `notice` is told.
    ///
    /// # Errors
    /// If contact with the sandbox is lost; it is ended then.
    pub fn wait(
        mut self,
        signals: &Signals,
        mut notice: impl FnMut(Notice),
    ) -> Result<Ended, Error> {
        let terminal = Terminal::current();
        let mut left_stopped = false;
        loop {
            let mut ready = vec![
                PollFd::new(&self.channel, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
            ];
            ready.extend(
                self.strays
                    .iter()
                    .map(|strays| PollFd::new(strays, PollFlags::IN)),
            );
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Channel(errno.into())),
            }
            let report_waits = ready.first().is_some_and(|jail| !jail.revents().is_empty());
            // Before the program's end is looked at: what it sent last is part of the record, too.
            if let Some(strays) = &self.strays {
                strays
                    .drain()
                    .into_iter()
                    .map(Notice::Refused)
                    .for_each(&mut notice);
            }
            while let Some(signal) = signals.next().map_err(Error::Channel)? {
                match signal.number {
                    libc::SIGHUP if !signal.from_kernel => notice(Notice::Reload),
                    // The program, being in the foreground with us, has these already when they came from the keyboard.
                    _ if signal.from_kernel && terminal.is_shared() => {}
                    libc::SIGCHLD | libc::SIGTTIN | libc::SIGTTOU => {}
                    number => {
                        self.tell(&Order::Signal(number))?;
                        // It takes a signal only when it continues, and nobody else will make it.
                        if std::mem::take(&mut left_stopped) {
                            self.tell(&Order::Continue)?;
                        }
                    }
                }
            }
            if !report_waits {
                continue;
            }
            let report = match next(&mut self.channel) {
                // Killed from outside, its first process takes everything with it and has no time for a word.
                Err(Error::Vanished) => {
                    let ended = self
                        .init
                        .reap()
                        .and_then(|status| status.terminating_signal());
                    terminal.take_back();
                    return ended.map(Ended::Signal).ok_or(Error::Vanished);
                }
                report => report?.0,
            };
            match report {
                Report::Ended(ended) => {
                    terminal.take_back();
                    return Ok(ended);
                }
                Report::Stopped(_) => match terminal.stop_with_program().map_err(Error::Channel)? {
                    true => self.tell(&Order::Continue)?,
                    false => left_stopped = true,
                },
                _ => return Err(Error::Vanished),
            }
        }
    }

    /// Sends an order. A sandbox that has just ended takes none, and has left word of its end.
    fn tell(&mut self, order: &Order) -> Result<(), Error> {
        match self.channel.send(order) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            sent => sent.map_err(Error::Channel),
        }
    }
}

/// What happens while a program runs, besides its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody sent SIGHUP. (One from the kernel means that the terminal is gone, and is passed on.)
    Reload,
    /// The sandbox's kernel refused a packet.
    Refused(Stray),
}

/// Ends a sandbox.
#[derive(Debug)]
pub struct Killer(OwnedFd);

impl Killer {
    /// Ends every process of the sandbox. It is no error if they have ended already.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.0, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Has egret itself run in a sandbox, beside the program and confined like it.
#[derive(Debug)]
pub struct Prober(Mutex<Outside>);

impl Prober {
    /// The most that arguments may be together, in bytes: an order is sent in one piece, since signals are passed on by
    /// another thread over the same socket.
    pub const LONGEST: usize = 32 << 10;

    /// Runs it with these arguments; what it prints goes to `output`, which ends with it.
    ///
    /// # Errors
    /// If the arguments are too long, or the sandbox has ended.
    pub fn probe(&self, arguments: Vec<String>, output: &OwnedFd) -> io::Result<()> {
        if arguments.iter().map(String::len).sum::<usize>() > Self::LONGEST {
            return Err(Errno::TOOBIG.into());
        }
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        orders.send_with(&Order::Probe(arguments), &[output.as_fd()])
    }
}

/// The first process of a sandbox, which is our child; ended and reaped when dropped.
#[derive(Debug)]
struct Init {
    pid: Pid,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Init {
    fn new(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self {
                pid,
                pidfd,
                reaped: false,
            }),
            Err(errno) => {
                kill(pid.as_raw_nonzero().get(), libc::SIGKILL)?;
                Err(errno.into())
            }
        }
    }

    /// Waits until it has ended, which it has to be about to, and says how; `None` if that was known before.
    fn reap(&mut self) -> Option<WaitStatus> {
        while !self.reaped {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                ended => {
                    self.reaped = true;
                    return ended.ok().flatten().map(|(_, status)| status);
                }
            }
        }
        None
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // It is our child and stays one until it is reaped here, so there is nobody else to hit; and it may have ended.
        if !self.reaped {
            let (Ok(()) | Err(_)) = pidfd_send_signal(&self.pidfd, Signal::KILL);
            self.reap();
        }
    }
}

/// The next report; a failure that the jail reports becomes our error.
fn next(channel: &mut Outside) -> Result<(Report, Vec<OwnedFd>), Error> {
    match channel.receive().map_err(Error::Channel)? {
        Some((
            Report::Failed {
                step,
                errno,
                message,
            },
            _,
        )) => Err(Error::jail(step, Cause { errno, message })),
        Some(report) => Ok(report),
        None => Err(Error::Vanished),
    }
}

/// Starts this very program again; the end of the channel is the one descriptor it gets besides the standard ones.
fn spawn(inside: &OwnedFd) -> io::Result<Child> {
    fcntl_setfd(inside, FdFlags::empty())?;
    let number = inside.as_raw_fd().to_string();
    let mut command = Command::new("/proc/self/exe");
    command.arg("jail").arg(number).env_clear();
    #[cfg(feature = "unguarded")]
    command.envs(std::env::vars().filter(|(name, _)| name == "EGRET_WITHOUT"));
    command.spawn()
}

/// Gives the sandbox's user namespace the ids of this process: all of them where we may (as root), else our own.
fn map_ids(pid: Pid) -> Result<(), Cause> {
    let write = |name: &str, text: &str| {
        let path = format!("/proc/{}/{name}", pid.as_raw_nonzero());
        std::fs::write(&path, text).map_err(at(path))
    };
    let identity = |name: &str| -> Result<String, Cause> {
        let path = format!("/proc/self/{name}");
        let map = std::fs::read_to_string(&path).map_err(at(path))?;
        // Each line is "first-inside first-outside count"; what is inside for us is what the new namespace is given.
        Ok(map
            .lines()
            .filter_map(|line| {
                let mut numbers = line.split_whitespace();
                let (first, count) = (numbers.next()?, numbers.nth(1)?);
                Some(format!("{first} {first} {count}\n"))
            })
            .collect())
    };
    if write("uid_map", &identity("uid_map")?).is_ok() {
        return write("gid_map", &identity("gid_map")?);
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    write("setgroups", "deny")?; // without it an ordinary user may not map a group (user_namespaces(7))
    write("uid_map", &format!("{uid} {uid} 1\n"))?;
    write("gid_map", &format!("{gid} {gid} 1\n"))
}
