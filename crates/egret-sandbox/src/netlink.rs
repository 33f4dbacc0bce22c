//! Netlink messages: just enough of the wire format to set up a namespace, and to ask what is in it.
//!
//! A [`Batch`] holds messages, sends them in one write and waits until the kernel has acknowledged each. Attributes are
//! built in place by [`Attributes`]. The format is that of `netlink(7)`: native byte order in headers, everything padded
//! to four bytes. What the messages *mean* is the business of [`crate::jail`] and [`crate::makers`].

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::os::fd::OwnedFd;

/// `nlmsg_flags`: create what is not there, and fail if it is.
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `nlmsg_flags`: put a rule behind those that are there.
pub(crate) const APPEND: u16 = 0x800;
/// `nlmsg_flags`: answer with an acknowledgement, or an error.
pub(crate) const ACK: u16 = 0x4;
/// `nlmsg_flags` of a question: all there is.
const DUMP: u16 = 0x300;
const REQUEST: u16 = 0x1;
/// `NLA_F_NESTED`: the attribute's value is attributes.
const NESTED: u16 = 0x8000;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;

/// A netlink socket of one protocol.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// `None` is `NETLINK_ROUTE`, whose number is zero.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self(fd))
    }

    /// Sends a dump request and returns the body of each message of the answer.
    pub(crate) fn dump(&self, kind: u16, header: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut batch = Batch::default();
        batch.message(kind, DUMP, header, |_| {});
        net::send(&self.0, &batch.bytes, SendFlags::empty())?;
        let mut bodies = Vec::new();
        loop {
            let mut done = false;
            self.receive(RecvFlags::empty(), |kind, body| {
                match kind {
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => return Err(refusal(body)),
                    _ => bodies.push(body.to_vec()),
                }
                Ok(())
            })?;
            if done {
                return Ok(bodies);
            }
        }
    }

    /// Asks for one thing, and returns the body of the message that answers.
    ///
    /// # Errors
    /// What the kernel says instead of an answer, such as `ENOENT`. The kernel answers before sending is over, so this never
    /// waits: no answer is `EAGAIN`.
    pub(crate) fn ask(&self, kind: u16, header: &[u8]) -> io::Result<Vec<u8>> {
        // An answer that somebody asked for and did not take would be taken for ours.
        while self.receive(RecvFlags::DONTWAIT, |_, _| Ok(())).is_ok() {}
        let mut batch = Batch::default();
        batch.message(kind, 0, header, |_| {});
        net::send(&self.0, &batch.bytes, SendFlags::empty())?;
        let mut answer = Err(Errno::AGAIN.into());
        self.receive(RecvFlags::DONTWAIT, |got, body| {
            answer = match got {
                NLMSG_ERROR => Err(refusal(body)),
                got if got == kind => Ok(body.to_vec()),
                _ => Err(Errno::BADMSG.into()),
            };
            Ok(())
        })?;
        answer
    }

    /// The socket itself, for others to read from.
    pub(crate) fn into_nonblocking(self) -> io::Result<OwnedFd> {
        rustix::io::ioctl_fionbio(&self.0, true)?;
        Ok(self.0)
    }

    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    fn receive(
        &self,
        flags: RecvFlags,
        mut each: impl FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 32 << 10];
        let (_, length) = net::recv(&self.0, &mut buffer[..], flags)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
            let [l0, l1, l2, l3, k0, k1, ..] = *header;
            let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            let body = rest.get(HEADER..length).ok_or(Errno::BADMSG)?;
            each(u16::from_ne_bytes([k0, k1]), body)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

impl From<OwnedFd> for Socket {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

/// Messages that are sent together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    acknowledgements: usize,
}

impl Batch {
    /// Adds a message of `kind` with the fixed `header` of its family, and the attributes that `body` writes.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.sequence += 1;
        self.acknowledgements += usize::from(flags & ACK != 0);
        let start = self.bytes.len();
        self.bytes.extend([0; 4]); // the length, once it is known
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]); // port id: the kernel fills it in
        self.bytes.extend(header);
        body(&mut Attributes(&mut self.bytes));
        let length = self.bytes.len() - start;
        if let Some(field) = self.bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&(length as u32).to_ne_bytes());
        }
    }

    /// Sends everything and waits until every message that asked for it is acknowledged. The first refusal is the error.
    pub(crate) fn commit(self, socket: &Socket) -> io::Result<()> {
        net::send(&socket.0, &self.bytes, SendFlags::empty())?;
        let mut missing = self.acknowledgements;
        while missing > 0 {
            socket.receive(RecvFlags::empty(), |kind, body| {
                if kind == NLMSG_ERROR {
                    match refusal(body) {
                        error if error.raw_os_error() == Some(0) => {
                            missing = missing.saturating_sub(1)
                        }
                        error => return Err(error),
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The error in an `NLMSG_ERROR`, which is number 0 in an acknowledgement.
fn refusal(body: &[u8]) -> io::Error {
    let number = body
        .first_chunk::<4>()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    io::Error::from_raw_os_error(-number)
}

/// Writes attributes at the end of a message.
pub(crate) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// A number in network byte order, as nftables wants its numbers.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nested(
        &mut self,
        kind: u16,
        body: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        let start = self.0.len();
        self.bytes(kind | NESTED, &[]);
        body(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        if let Some(field) = self.0.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        self
    }
}
