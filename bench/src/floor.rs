//! The floor: the least that a correct `CONNECT` relay can do on this machine.
//!
//! It reads a request's head, connects to the literal address in it, answers, and moves bytes both ways, passing on the end
//! of each direction. No policy, no names, no log, no limits. Whatever Egret costs above it is the price of those.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::{Error, client};

/// How bytes are moved.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum How {
    /// Through a buffer of 8 KiB in each direction
    Copy,
    /// Through a pipe, without their ever being in this process
    Splice,
}

/// Serves at `port` for ever.
pub(crate) fn serve(how: How, port: u16) -> Result<(), Error> {
    client::runtime()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (client, _) = listener.accept().await?;
            // A connection that fails is over, and the next one is another matter.
            tokio::spawn(async move { carry(how, client).await.ok() });
        }
    })
}

async fn carry(how: How, mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut head = [0; 1024];
    let mut read = 0;
    while !head.get(..read).unwrap_or_default().ends_with(b"\r\n\r\n") {
        match client
            .read(head.get_mut(read..).unwrap_or_default())
            .await?
        {
            0 => return Ok(()),
            more => read += more,
        }
    }
    let target: SocketAddr = std::str::from_utf8(&head)
        .ok()
        .and_then(|head| {
            head.strip_prefix("CONNECT ")?
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    match how {
        How::Copy => copy_bidirectional(&mut client, &mut server)
            .await
            .map(|_| ()),
        How::Splice => tokio::try_join!(
            through_pipe(&client, &server),
            through_pipe(&server, &client)
        )
        .map(|_| ()),
    }
}

async fn through_pipe(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    from.readable().await?;
    let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    // What a user may have of them is bounded; the rest are small ones.
    fcntl_setpipe_size(&write, PIPE).ok();
    loop {
        let filled = from
            .async_io(Interest::READABLE, || {
                Ok(splice(from.as_fd(), None, &write, None, PIPE, flags)?)
            })
            .await?;
        if filled == 0 {
            return Ok(shutdown(to, Shutdown::Write)?);
        }
        let mut left = filled;
        while left > 0 {
            left -= to
                .async_io(Interest::WRITABLE, || {
                    Ok(splice(&read, None, to.as_fd(), None, left, flags)?)
                })
                .await?;
        }
    }
}

/// The size of a pipe, in bytes.
const PIPE: usize = 256 << 10;
