//! The gateway's end of the connection to an agent.

use super::{Answer, Request};
use crate::channel::End;
use crate::doors::Doors;
use crate::error::{Cause, Error};
use crate::seal::prove;
use crate::strays::Strays;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with,
};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A connection to the agent that gave this process its doors. When it is dropped, the agent is free for another one.
///
/// As a descriptor it is something that is never written to: it becomes readable, at its end, when the agent is gone or
/// has hung up. The doors are good for nothing from then on and are to be dropped: the agent opens others in their place.
#[derive(Debug)]
pub struct Link {
    channel: Mutex<End<Request, Answer>>,
    ends: OwnedFd,
}

/// How often to look whether there is an agent.
const POLLING: Duration = Duration::from_millis(5);
/// How long the agent may take for an answer, which is bounded on its side by less.
const ANSWERING: Duration = Duration::from_secs(10);
/// A port is held by another socket.
const TAKEN: Option<i32> = Some(libc::EADDRINUSE);
/// The longest answer, in bytes.
const LONGEST_ANSWER: usize = 4096;

impl Link {
    /// Connects to the agent whose socket is at `path`, takes the doors of its sandbox, and makes sure that what the
    /// sandbox sends arrives at them. Waits up to `patience` for an agent that does not listen yet, that still serves a
    /// gateway before this one, or that finds a port of the doors taken: by doors that are just being closed, perhaps.
    ///
    /// # Errors
    /// - [`Error::Agent`] if there is no agent, or it hangs up, as it does on users that it was not told of;
    /// - [`Error::Busy`] if it serves another gateway;
    /// - [`Error::Jail`] if it cannot open the doors, as when a program of the sandbox holds a port of theirs;
    /// - [`Error::NotSealed`] if what left the sandbox did not arrive.
    pub fn connect(
        path: &Path,
        patience: Duration,
    ) -> Result<(Doors, Option<Strays>, Self), Error> {
        let until = Instant::now() + patience;
        let agent = |source| Error::Agent {
            path: path.to_owned(),
            source,
        };
        loop {
            let problem = match attempt(path).map_err(agent)? {
                Attempt::Nobody(error) => agent(error),
                Attempt::Answered(_, Answer::Busy, _) => Error::Busy,
                Attempt::Answered(channel, answer, descriptors) => {
                    match Self::take(channel, answer, descriptors) {
                        Err(taken @ Error::Jail { errno: TAKEN, .. }) => taken,
                        done => return done,
                    }
                }
            };
            if Instant::now() >= until {
                return Err(problem);
            }
            std::thread::sleep(POLLING);
        }
    }

    fn take(
        mut channel: End<Request, Answer>,
        answer: Answer,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(Doors, Option<Strays>, Self), Error> {
        let (families, nonce) = match answer {
            Answer::Sealed { families, nonce } => (families, nonce),
            Answer::Failed {
                step,
                errno,
                message,
            } => return Err(Error::jail(step, Cause { errno, message })),
            _ => return Err(Error::Channel(Errno::PROTO.into())),
        };
        let incomplete = || Error::NotSealed("the listeners did not arrive".into());
        let ends = descriptors.pop().ok_or_else(incomplete)?;
        let (doors, strays) =
            Doors::from_descriptors(families, descriptors).ok_or_else(incomplete)?;
        prove(&doors, nonce.as_bytes())?;
        channel.send(&Request::Proved).map_err(Error::Channel)?;
        let link = Self {
            channel: Mutex::new(channel),
            ends,
        };
        Ok((doors, strays, link))
    }

    /// A connection to `port` of the sandbox's loopback, by IPv4 or else by IPv6; non-blocking. Waits for another thread's
    /// that is under way, and a second or so for its own.
    ///
    /// # Errors
    /// As of `connect(2)`, inside: `ConnectionRefused` where nobody listens, and for the ports of the doors and 53;
    /// `TimedOut` where nobody accepts. Anything else that goes wrong ends the link.
    pub fn reach(&self, port: u16) -> io::Result<TcpStream> {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = channel
            .send(&Request::Reach(port))
            .and_then(|()| channel.receive());
        match answer {
            Ok(Some((Answer::NotReached { errno }, _))) => {
                return Err(io::Error::from_raw_os_error(errno));
            }
            Ok(Some((Answer::Reached, descriptors))) => {
                if let Ok([stream]) = <[OwnedFd; 1]>::try_from(descriptors) {
                    return Ok(stream.into());
                }
            }
            Ok(_) | Err(_) => {}
        }
        // An answer that comes after all would be taken for that to another question, so there must be none.
        match shutdown(&*channel, Shutdown::Both) {
            Ok(()) | Err(_) => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "lost contact with the sandbox's agent",
            )),
        }
    }

    /// Waits until the agent is gone, or has hung up.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn wait_until_gone(&self) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(&self.ends, PollFlags::IN)], None) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ends.as_fd()
    }
}

/// What came of connecting once.
enum Attempt {
    Answered(End<Request, Answer>, Answer, Vec<OwnedFd>),
    /// There is no agent yet, or none any more.
    Nobody(io::Error),
}

fn attempt(path: &Path) -> io::Result<Attempt> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWERING))?;
    set_socket_timeout(&socket, Timeout::Send, Some(ANSWERING))?; // bounds connecting as well
    let address = SocketAddrUnix::new(path)?;
    match retry_on_intr(|| connect(&socket, &address)) {
        Ok(()) => {}
        Err(errno @ (Errno::NOENT | Errno::CONNREFUSED)) => {
            return Ok(Attempt::Nobody(errno.into()));
        }
        Err(errno) => return Err(errno.into()),
    }
    let mut channel = End::new(socket, LONGEST_ANSWER);
    match channel.receive()? {
        Some((answer, descriptors)) => Ok(Attempt::Answered(channel, answer, descriptors)),
        None => Err(io::Error::other(
            "it hung up: it has ended, or it was told to serve another user than this one",
        )),
    }
}
