//! The proof that a namespace is sealed: traffic that sets out for elsewhere, and must arrive at the doors.
//!
//! [`Probe::send`] is the inside's half and [`prove`] the outside's. Programs may be running in the sandbox by then, where
//! a gateway takes over from another; what they send in between is not taken for the probe, and is lost.

use crate::doors::Doors;
use crate::error::{Cause, Error};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Where the probes pretend to go: one address for each address family (RFC 5737, RFC 3849).
const PROBED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// The port that the probes pretend to go to.
const PROBED_PORT: u16 = 9;
/// How long a probe may take to set out.
const SENDING: Duration = Duration::from_secs(1);
/// How long a probe that was sent before its listeners were may take to arrive.
const ARRIVING: Duration = Duration::from_secs(2);

/// Something that nobody but the inside and its outside can know.
pub(crate) fn nonce() -> rustix::io::Result<String> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if filled < bytes.len() {
        return Err(Errno::AGAIN);
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Traffic that has set out. Its connections are kept open until the outside has looked at them.
#[derive(Debug)]
pub(crate) struct Probe {
    _connections: Vec<TcpStream>,
}

impl Probe {
    /// Sends `nonce` by TCP, and by UDP to port 53, once for each address family that `doors` serve.
    ///
    /// # Errors
    /// If the kernel refuses to, or a door takes no connection because too many wait there already.
    pub(crate) fn send(doors: &Doors, nonce: &[u8]) -> Result<Self, Cause> {
        let send = |address: IpAddr| {
            let to = SocketAddr::new(address, PROBED_PORT);
            let mut connection = TcpStream::connect_timeout(&to, SENDING)?;
            connection.write_all(nonce)?;
            let any = if address.is_ipv4() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            } else {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            };
            UdpSocket::bind(SocketAddr::new(any, 0))?
                .send_to(nonce, SocketAddr::new(address, 53))?;
            Ok(connection)
        };
        let mut connections = Vec::new();
        for address in PROBED.into_iter().take(doors.captured.len()) {
            connections.push(send(address).map_err(|error: io::Error| Cause {
                errno: error.raw_os_error(),
                message: format!("cannot send a probe to {address}: {error}"),
            })?);
        }
        Ok(Self {
            _connections: connections,
        })
    }
}

/// Looks at what arrives: connections and queries that set out for documentation addresses must be there, with the nonce.
///
/// # Errors
/// [`Error::NotSealed`] if one of them is not.
pub(crate) fn prove(doors: &Doors, nonce: &[u8]) -> Result<(), Error> {
    let until = Instant::now() + ARRIVING;
    for ((listener, dns), wanted) in doors.captured.iter().zip(&doors.dns_udp).zip(PROBED) {
        connection_arrives(listener, wanted, nonce, until).map_err(|error| {
            Error::NotSealed(format!("no probe to {wanted} port {PROBED_PORT}: {error}"))
        })?;
        query_arrives(dns, nonce, until)
            .map_err(|error| Error::NotSealed(format!("no DNS probe to {wanted}: {error}")))?;
    }
    Ok(())
}

/// Accepts connections until one wanted to go to `wanted`, which must bring the nonce.
fn connection_arrives(
    listener: &TcpListener,
    wanted: IpAddr,
    nonce: &[u8],
    until: Instant,
) -> io::Result<()> {
    loop {
        wait_readable(listener, until)?;
        let Some((mut connection, _)) = ready(listener.accept())? else {
            continue;
        };
        // One that was not captured, or whose client has gone, has no such thing.
        let destination = match wanted {
            IpAddr::V4(_) => sockopt::ip_original_dst(&connection).map(SocketAddr::from),
            IpAddr::V6(_) => sockopt::ipv6_original_dst(&connection).map(SocketAddr::from),
        };
        if destination != Ok(SocketAddr::new(wanted, PROBED_PORT)) {
            continue;
        }
        connection.set_nonblocking(true)?;
        let mut text = vec![0; nonce.len()];
        wait_readable(&connection, until)?;
        connection.read_exact(&mut text)?;
        return if text == nonce {
            Ok(())
        } else {
            Err(io::Error::other("something else than the probe arrived"))
        };
    }
}

/// Takes queries until one is the nonce.
fn query_arrives(dns: &UdpSocket, nonce: &[u8], until: Instant) -> io::Result<()> {
    let mut query = vec![0; nonce.len() + 1];
    loop {
        wait_readable(dns, until)?;
        if let Some(length) = ready(dns.recv(&mut query))?
            && query.get(..length) == Some(nonce)
        {
            return Ok(());
        }
    }
}

/// What was there to take, if anything was after all: a client may have gone in between.
fn ready<T>(taken: io::Result<T>) -> io::Result<Option<T>> {
    match taken {
        Ok(taken) => Ok(Some(taken)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset => Ok(None),
            _ => Err(error),
        },
    }
}

fn wait_readable(socket: &impl AsFd, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
