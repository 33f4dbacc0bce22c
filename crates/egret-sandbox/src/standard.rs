//! Standard input, output and error: the only descriptors that a program gets from outside.
//!
//! A descriptor belongs to where it was opened. A socket of the machine's network namespace could be connected anew, past
//! the seal; a directory leads to every file beneath it, the hidden ones included. So what comes in is what a shell makes:
//! files, pipes, terminals and other character devices, and the connected unix sockets that some programs use for pipes.

use crate::error::Error;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType, getpeername};
use std::os::fd::BorrowedFd;

/// The three, with their names.
pub(crate) fn all() -> [(&'static str, BorrowedFd<'static>); 3] {
    [
        ("standard input", rustix::stdio::stdin()),
        ("standard output", rustix::stdio::stdout()),
        ("standard error", rustix::stdio::stderr()),
    ]
}

/// Refuses descriptors that would open a way round the sandbox.
pub(crate) fn check() -> Result<(), Error> {
    for (name, descriptor) in all() {
        let what = fault(descriptor).map_err(|errno| Error::Standard {
            name,
            what: errno.to_string(),
        })?;
        if let Some(what) = what {
            return Err(Error::Standard {
                name,
                what: what.into(),
            });
        }
    }
    Ok(())
}

/// What is wrong with a descriptor, if anything is.
fn fault(descriptor: BorrowedFd<'_>) -> rustix::io::Result<Option<&'static str>> {
    if fcntl_getfl(descriptor)?.contains(OFlags::PATH) {
        return Ok(Some("is a path and not an open file"));
    }
    Ok(match FileType::from_raw_mode(fstat(descriptor)?.st_mode) {
        FileType::RegularFile | FileType::Fifo | FileType::CharacterDevice => None,
        FileType::Directory => Some("is a directory, with every file beneath it"),
        FileType::BlockDevice => Some("is a block device, with every file on it"),
        FileType::Socket if is_a_pipe_by_another_name(descriptor)? => None,
        FileType::Socket => Some("is a socket outside of the sandbox"),
        _ => Some("is neither a file nor a pipe nor a terminal"),
    })
}

/// A connected unix socket that carries a stream cannot be connected to anything else any more.
fn is_a_pipe_by_another_name(socket: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let carries_a_stream = matches!(
        socket_type(socket)?,
        SocketType::STREAM | SocketType::SEQPACKET
    );
    if socket_domain(socket)? != AddressFamily::UNIX
        || !carries_a_stream
        || socket_acceptconn(socket)?
    {
        return Ok(false);
    }
    match getpeername(socket) {
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn only_what_leads_nowhere_else_is_passed_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _other) = UnixStream::pair().unwrap();
        let (datagram, _peer) = UnixDatagram::pair().unwrap();
        let (pipe, _end) = rustix::pipe::pipe().unwrap();
        let path =
            rustix::fs::open("/etc/passwd", OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let fresh = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let events =
            rustix::event::epoll::create(rustix::event::epoll::CreateFlags::empty()).unwrap();
        #[rustfmt::skip]
        let table: [(&str, OwnedFd, bool); 12] = [
            ("file",                 File::open("/etc/passwd").unwrap().into(),                  true ),
            ("device",               File::open("/dev/null").unwrap().into(),                    true ),
            ("pipe",                 pipe,                                                       true ),
            ("pair of streams",      stream.into(),                                              true ),
            ("pair of datagrams",    datagram.into(),                                            false),
            ("unix, not connected",  fresh,                                                      false),
            ("directory",            File::open("/").unwrap().into(),                            false),
            ("path",                 path,                                                       false),
            ("TCP connection",       connection.into(),                                          false),
            ("TCP listener",         listener.into(),                                            false),
            ("UDP",                  UdpSocket::bind("127.0.0.1:0").unwrap().into(),             false),
            ("epoll",                events,                                                     false),
        ];
        for (name, descriptor, good) in table {
            assert_eq!(fault(descriptor.as_fd()).unwrap().is_none(), good, "{name}");
        }
    }
}
