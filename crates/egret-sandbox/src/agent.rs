//! The agent of a container sandbox: what holds its network namespace, and hands its doors to the gateway.
//!
//! [`run`] is the agent, in a container that has no network and no capability but `NET_ADMIN`; the user's container joins
//! its network namespace. [`Link`] is the gateway's end, in a container of its own. They meet at a unix socket in a
//! directory that only these two have: the user's programs share the network namespace, in which a unix socket with a path
//! cannot be reached without its file system.
//!
//! - The agent seals first, gives up every privilege, and talks to somebody only then.
//! - It keeps no door open. When the gateway that has the doors is gone, so are they, and the kernel refuses connections
//!   at once. The next gateway gets doors that were opened afresh, and proof that what leaves arrives at them.
//! - One gateway is served at a time, and only one that runs as the user it was told of. A second one hears that there is
//!   one, and is let go; nobody waits in line.
//! - What a peer says can end its connection and nothing else: messages are short, and reading and writing them takes
//!   bounded time. So does whatever else the agent does, which is one thread.
//!
//! Programs in the sandbox can hold a port that a door needs while no gateway has it. Then there are no doors until they
//! let go: the gateway is told which port it is.

mod link;

pub use link::Link;

use crate::channel::End;
use crate::doors::Ports;
use crate::error::{Cause, Error, Step, at};
use crate::jail::privileges;
use crate::seal::{Probe, Seal, allow_ipv6, forget_soon, nonce};
use crate::sys::signals::Signals;
use crate::sys::sockets::peer_user;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What an agent is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    /// Where to listen for the gateway: the path of a unix socket, in a directory that the user's programs do not have.
    /// What is left of an earlier agent there is removed.
    pub control: PathBuf,
    /// The user that the gateway runs as, as this user namespace numbers them.
    pub peer: u32,
    /// Where the doors are.
    pub ports: Ports,
}

/// Seals the network namespace of this process, gives up every privilege, and serves one gateway after the other until
/// SIGTERM or SIGINT.
///
/// To be called by a process with one thread, which may be the first of its process namespace.
///
/// # Errors
/// If the namespace cannot be sealed (there is an interface besides `lo`, `CAP_NET_ADMIN` is missing, the kernel lacks
/// something), if the socket cannot be made, or if privileges cannot be given up. Nobody was served in any of these cases.
pub fn run(orders: &Orders) -> Result<(), Error> {
    // The first process of a process namespace gets no signal that it does not ask for, not even SIGTERM.
    let signals = Signals::block().during(Step::Watch)?;
    // Nothing may look into this process or take what it has open.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during(Step::Watch)?;

    allow_ipv6().during(Step::SealContainer)?;
    forget_soon();
    let (seal, strays) = Seal::set(orders.ports).during(Step::SealContainer)?;

    // Whoever connects from here on finds a sealed namespace. The file is made while the mode of the directory can still
    // be what the engine made of it: only privileges over the network were given to us.
    let control = listen(&orders.control).during(Step::Control)?;

    // Everything that follows is done without: what comes from the gateway meets a process that can do nothing.
    privileges::drop_capabilities().during(Step::Privileges)?;

    let agent = Agent {
        seal,
        strays,
        peer: orders.peer,
        ports: orders.ports,
    };
    agent.serve(&signals, &control).during(Step::Control)
}

/// What a gateway asks of the agent.
#[derive(Debug, Deserialize, Serialize)]
enum Request {
    /// The probes have arrived.
    Proved,
    /// A connection to this port of loopback.
    Reach(u16),
}

/// What the agent says.
#[derive(Debug, Deserialize, Serialize)]
enum Answer {
    /// The doors come along, for so many address families; probes that carry `nonce` are on their way. The last
    /// descriptor is a pipe that ends when this agent, or its service to this gateway, does.
    Sealed { families: usize, nonce: String },
    /// Another gateway is being served.
    Busy,
    /// There are no doors.
    Failed {
        step: Step,
        errno: Option<i32>,
        message: String,
    },
    /// The connection that was asked for comes along.
    Reached,
    /// It could not be had.
    NotReached { errno: i32 },
}

/// The longest request, in bytes.
const LONGEST_REQUEST: usize = 64;
/// How long the agent waits for a gateway in the middle of a message.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection inside may take: a listener that does not accept must not keep the agent from its work.
const REACHING: Duration = Duration::from_secs(1);

trait During<T> {
    /// Says in which step this happened.
    fn during(self, step: Step) -> Result<T, Error>;
}

impl<T, E: Into<Cause>> During<T> for Result<T, E> {
    fn during(self, step: Step) -> Result<T, Error> {
        self.map_err(|cause| Error::jail(step, cause))
    }
}

/// Listens at `path`, for every user: the gateway runs as another one, and the agent may not give its files away.
fn listen(path: &Path) -> Result<UnixListener, Cause> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(path)(error)),
        _ => {}
    }
    let before = umask(Mode::XUSR | Mode::XGRP | Mode::XOTH);
    let listener = UnixListener::bind(path);
    umask(before);
    let listener = listener.map_err(at(path))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// An agent that has sealed its namespace.
struct Agent {
    seal: Seal,
    strays: Option<OwnedFd>,
    peer: u32,
    ports: Ports,
}

/// A gateway that has the doors.
struct Peer {
    channel: End<Answer, Request>,
    /// Open until the gateway has seen it arrive.
    probe: Option<Probe>,
    /// The end of the pipe that is never written to.
    _pulse: OwnedFd,
}

impl Agent {
    fn serve(&self, signals: &Signals, control: &UnixListener) -> Result<(), Cause> {
        let mut served: Option<Peer> = None;
        loop {
            let mut ready = vec![
                PollFd::new(signals, PollFlags::IN),
                PollFd::new(control, PollFlags::IN),
            ];
            ready.extend(
                served
                    .iter()
                    .map(|peer| PollFd::new(&peer.channel, PollFlags::IN)),
            );
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let asked = ready.get(2).is_some_and(|peer| !peer.revents().is_empty());
            while let Some(signal) = signals.next()? {
                if matches!(signal.number, libc::SIGTERM | libc::SIGINT) {
                    return Ok(());
                }
            }
            // Before anybody new is looked at, so that a gateway that is gone does not keep the next one out.
            if asked && let Some(peer) = &mut served {
                match self.answer(peer) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => served = None,
                }
            }
            match control.accept() {
                Ok((stream, _)) => {
                    // Whoever gets no doors has heard why, or has gone.
                    if let Ok(Some(peer)) = self.admit(stream, served.is_some()) {
                        served = Some(peer);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// Gives doors to the process that has connected; `None` if it does not get any.
    fn admit(&self, stream: UnixStream, busy: bool) -> io::Result<Option<Peer>> {
        if peer_user(&stream)? != self.peer {
            return Ok(None);
        }
        set_socket_timeout(&stream, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&stream, Timeout::Send, Some(PATIENCE))?;
        let mut channel = End::new(stream.into(), LONGEST_REQUEST);
        if busy {
            channel.send(&Answer::Busy)?;
            return Ok(None);
        }
        match self.open_doors(&mut channel) {
            Ok((probe, pulse)) => Ok(Some(Peer {
                channel,
                probe: Some(probe),
                _pulse: pulse,
            })),
            Err(Cause { errno, message }) => {
                channel.send(&Answer::Failed {
                    step: Step::Doors,
                    errno,
                    message,
                })?;
                Ok(None)
            }
        }
    }

    /// Opens doors and gives them away: when this returns, only the peer can accept what the sandbox connects.
    fn open_doors(&self, channel: &mut End<Answer, Request>) -> Result<(Probe, OwnedFd), Cause> {
        let doors = self.seal.open_doors()?;
        let nonce = nonce()?;
        let probe = Probe::send(&doors, nonce.as_bytes())?;
        let (ends, pulse) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let sealed = Answer::Sealed {
            families: doors.captured.len(),
            nonce,
        };
        let mut given = doors.descriptors();
        given.extend(self.strays.as_ref().map(|strays| strays.as_fd()));
        given.push(ends.as_fd());
        channel.send_with(&sealed, &given)?;
        Ok((probe, pulse))
    }

    /// Does what a gateway asks for; `false` when it is gone.
    fn answer(&self, peer: &mut Peer) -> io::Result<bool> {
        let Some((request, _)) = peer.channel.receive()? else {
            return Ok(false);
        };
        match request {
            Request::Proved => peer.probe = None,
            Request::Reach(port) => match self.reach(port) {
                Ok(stream) => peer
                    .channel
                    .send_with(&Answer::Reached, &[stream.as_fd()])?,
                Err(error) => {
                    let timed_out = error.kind() == io::ErrorKind::TimedOut;
                    let errno = error.raw_os_error().filter(|_| !timed_out);
                    let errno = errno.unwrap_or(libc::ETIMEDOUT);
                    peer.channel.send(&Answer::NotReached { errno })?;
                }
            },
        }
        Ok(true)
    }

    /// A connection to `port` of loopback. The doors, and port 53, which leads to one, are not there for this: they would
    /// lead straight back to the gateway.
    fn reach(&self, port: u16) -> io::Result<TcpStream> {
        let Ports {
            capture,
            proxy,
            dns,
        } = self.ports;
        if [capture, proxy, dns, 53].contains(&port) {
            return Err(Errno::CONNREFUSED.into());
        }
        let until = Instant::now() + REACHING;
        match connect((Ipv4Addr::LOCALHOST, port).into(), until) {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                // Where there is no IPv6, what counts is what IPv4 said.
                connect((Ipv6Addr::LOCALHOST, port).into(), until).map_err(|_| refused)
            }
            done => done,
        }
    }
}

fn connect(to: SocketAddr, until: Instant) -> io::Result<TcpStream> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Errno::TIMEDOUT.into());
    }
    let stream = TcpStream::connect_timeout(&to, left)?;
    // A port that nobody listens at may be given to this very connection, which then answers itself.
    if stream.local_addr()? == to {
        return Err(Errno::CONNREFUSED.into());
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}
