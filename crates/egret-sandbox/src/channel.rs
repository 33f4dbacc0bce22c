//! The connection between what is in a sandbox and what is outside of it.
//!
//! Each [`End`] can only say what is its to say. Between a jail and the process that asked for it, [`Outside`] sends
//! [`Order`]s and receives [`Report`]s, [`Inside`] the other way round; what the agent of a container and its gateway say
//! is in [`crate::agent`]. A message is a length, then JSON; descriptors travel with the first byte of a message. The peer
//! is a process of our own that runs none of the user's code, so a broken message is a bug or a dead peer, and ends the
//! connection.

use crate::error::Step;
use crate::spec::Spec;
use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the outside tells a jail.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Order {
    /// The user and group ids are mapped; what to build.
    Build(Box<Spec>),
    /// The gateway stands: start the program.
    Release,
    /// Send this signal to the program.
    Signal(i32),
    /// Let the program, which was stopped, continue in the foreground or where it is.
    Continue,
    /// Run egret itself, with these arguments, beside the program and confined like it. What it prints goes to the
    /// descriptor that comes along.
    Probe(Vec<String>),
}

/// What a jail tells the outside.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Report {
    /// The namespaces are there, and the ids have to be mapped from outside. This is the first process in them, by its id
    /// outside; an end of its own channel comes along.
    Init(i32),
    /// Sealed. The listeners come along, for so many address families; probes that carry `nonce` are on their way.
    Sealed { families: usize, nonce: String },
    /// All is built but for what the program's own process gives up. What [`Makers`](crate::Makers) takes comes along.
    Built,
    /// The program could not be started.
    NotStarted { errno: i32 },
    /// The program runs.
    Started,
    /// The program was stopped by a signal.
    Stopped(i32),
    /// The program has ended.
    Ended(Ended),
    /// A step of building the jail failed; nothing was started.
    Failed {
        step: Step,
        errno: Option<i32>,
        message: String,
    },
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Ended {
    /// By exiting with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// One end of a connection, which says `S` and hears `R`.
#[derive(Debug)]
pub(crate) struct End<S, R> {
    socket: File,
    /// The longest message that is heard, in bytes.
    longest: usize,
    words: PhantomData<fn(S) -> R>,
}

/// The end of the process that asked for the jail.
pub(crate) type Outside = End<Order, Report>;

/// The end of the jail.
pub(crate) type Inside = End<Report, Order>;

/// Both ends, neither of which survives an exec.
pub(crate) fn pair() -> io::Result<(Outside, OwnedFd)> {
    let (outside, inside) = net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((End::new(outside, LONGEST), inside))
}

/// The longest message between a jail and its outside, in bytes: the arguments and environment of a program, which the
/// kernel holds to less than this, and the marks of its files.
pub(crate) const LONGEST: usize = 64 << 20;

impl<S: Serialize, R: DeserializeOwned> End<S, R> {
    /// An end that takes messages of at most `longest` bytes from the other one.
    pub(crate) fn new(socket: OwnedFd, longest: usize) -> Self {
        Self {
            socket: socket.into(),
            longest,
            words: PhantomData,
        }
    }

    pub(crate) fn send(&mut self, message: &S) -> io::Result<()> {
        self.send_with(message, &[])
    }

    /// Sends `message`, and `descriptors` with it.
    pub(crate) fn send_with(
        &mut self,
        message: &S,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        send(&mut self.socket, message, descriptors)
    }

    /// The next message and the descriptors that came with it; `None` when the other end is gone.
    pub(crate) fn receive(&mut self) -> io::Result<Option<(R, Vec<OwnedFd>)>> {
        receive(&mut self.socket, self.longest)
    }
}

impl<S, R> AsFd for End<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Two address families with four sockets each, the one that tells of strays, and the one that tells of the agent's end.
const MOST_DESCRIPTORS: usize = 10;

fn send(
    socket: &mut File,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let frame = [&length.to_ne_bytes()[..], &body].concat();

    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let sent = retry_on_intr(|| {
        net::sendmsg(
            &*socket,
            &[IoSlice::new(&frame)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
    })?;
    socket.write_all(frame.get(sent..).unwrap_or_default())
}

fn receive<T: DeserializeOwned>(
    socket: &mut File,
    longest: usize,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    // A socket with a time limit is interrupted by signals that nobody handles.
    let received = retry_on_intr(|| {
        net::recvmsg(
            &*socket,
            &mut [IoSliceMut::new(&mut length)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost on the way"));
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    if let Some(rest) = length.get_mut(received.bytes..) {
        socket.read_exact(rest)?;
    }
    let length = u32::from_ne_bytes(length) as usize;
    if length > longest {
        return Err(io::Error::other("a message is too long"));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::Doors;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn messages_arrive_whole_and_in_order_with_their_descriptors() {
        let (mut outside, inside) = pair().unwrap();
        let mut inside = Inside::new(inside, LONGEST);
        let (listener, datagram) = (
            std::net::TcpListener::bind("127.0.0.1:0"),
            std::net::UdpSocket::bind("127.0.0.1:0"),
        );
        let (listener, datagram) = (listener.unwrap(), datagram.unwrap());
        let port = datagram.local_addr().unwrap().port();
        let doors = Doors {
            captured: vec![listener.try_clone().unwrap()],
            proxy: vec![listener.try_clone().unwrap()],
            dns_tcp: vec![listener],
            dns_udp: vec![datagram],
        };
        inside.send(&Report::Built).unwrap();
        let sealed = Report::Sealed {
            families: 1,
            nonce: "nonce".into(),
        };
        inside.send_with(&sealed, &doors.descriptors()).unwrap();
        drop((inside, doors));

        assert!(
            matches!(outside.receive().unwrap(), Some((Report::Built, none)) if none.is_empty())
        );
        let Some((Report::Sealed { families: 1, nonce }, descriptors)) = outside.receive().unwrap()
        else {
            panic!("something else arrived");
        };
        assert_eq!(nonce, "nonce");
        let (doors, strays) = Doors::from_descriptors(1, descriptors).unwrap();
        assert_eq!(doors.dns_udp[0].local_addr().unwrap().port(), port);
        assert!(strays.is_none());
        assert!(
            outside.receive().unwrap().is_none(),
            "the other end is gone"
        );
    }

    #[test]
    fn a_big_message_does_not_fit_the_socket_at_once_and_arrives_all_the_same() {
        let (mut outside, inside) = pair().unwrap();
        let environment = vec![("BIG".into(), "x".repeat(1 << 20).into())];
        let spec = Spec {
            program: "true".into(),
            arguments: vec![],
            environment,
            directory: std::ffi::OsString::from_vec(b"/not \xff text".into()).into(),
            files: crate::Files {
                marks: vec![("/x".into(), crate::Mark::Hide)],
                protected: vec!["/y".into()],
            },
            allow_user_namespaces: false,
        };
        let reader = std::thread::spawn(move || Inside::new(inside, LONGEST).receive());
        outside.send(&Order::Build(Box::new(spec))).unwrap();
        let Some((Order::Build(spec), _)) = reader.join().unwrap().unwrap() else {
            panic!("something else arrived")
        };
        assert_eq!(spec.environment[0].1.len(), 1 << 20);
        assert_eq!(
            spec.directory.as_os_str().as_encoded_bytes(),
            b"/not \xff text"
        );
        assert_eq!(spec.files.marks, [("/x".into(), crate::Mark::Hide)]);
    }

    #[test]
    fn a_message_that_lies_about_its_length_is_an_error_and_takes_no_memory() {
        for frame in [&[0xff; 4][..], &[0xff, 0xff, 0xff, 0xff, b'{'], &[3, 0, 0]] {
            let (outside, inside) = pair().unwrap();
            let mut socket = outside.socket;
            socket.write_all(frame).unwrap();
            drop(socket);
            assert!(Inside::new(inside, 100).receive().is_err(), "{frame:?}");
        }
        let (outside, inside) = pair().unwrap();
        let (mut socket, body) = (outside.socket, b"\"Release\"");
        for _ in 0..2 {
            socket
                .write_all(&(body.len() as u32).to_ne_bytes())
                .unwrap();
            socket.write_all(body).unwrap();
        }
        let mut exact = Inside::new(inside.try_clone().unwrap(), body.len());
        assert!(matches!(exact.receive(), Ok(Some((Order::Release, _)))));
        assert!(Inside::new(inside, body.len() - 1).receive().is_err());
    }

    #[test]
    fn doors_are_not_made_of_too_few_or_too_many_descriptors() {
        let some = |count: usize| -> Vec<OwnedFd> {
            (0..count)
                .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into())
                .collect()
        };
        for (families, count, good) in [
            (1, 3, false),
            (1, 4, true),
            (1, 5, true),
            (1, 6, false),
            (2, 8, true),
            (0, 0, false),
        ] {
            assert_eq!(
                Doors::from_descriptors(families, some(count)).is_some(),
                good,
                "{families} families, {count}"
            );
        }
    }
}
