//! Moving bytes between two sockets.
//!
//! A [`Half`] is one direction. It holds what it has read and not written yet, so a future that
//! drives it can be dropped and another can go on where it stopped: nothing is lost in between.
//!
//! Small exchanges are read into a buffer of 64 KiB. Once a direction has moved a quarter of a MiB
//! and still fills its buffers, its bytes go through a pipe with `splice(2)` and are not copied to this
//! process at all; where the kernel gives no pipe of a useful size, copying goes on. Buffers and pipes
//! belong to the [`Pool`] and are held only while they hold something: an idle tunnel has neither.
//!
//! The end of one direction is passed on as the end of that direction only, and no stream is ever cut
//! for being idle.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;

use crate::activity::{Count, Moving};

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Half {
    held: Held,
    /// The kernel gave no pipe; do not ask again.
    copy_only: bool,
    /// Nothing more comes; what is held is the rest.
    ended: bool,
}

/// What a direction has read and not yet written.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// Bytes that were read while finding out what this connection is.
    Early {
        bytes: Vec<u8>,
        start: usize,
    },
    Buffer {
        bytes: Box<[u8]>,
        start: usize,
        end: usize,
    },
    Pipe {
        pipe: Pipe,
        filled: usize,
    },
}

impl Half {
    /// A direction in which `bytes` were read already.
    pub(crate) fn starting_with(bytes: Vec<u8>) -> Self {
        Self {
            held: Held::Early { bytes, start: 0 },
            ..Self::default()
        }
    }

    /// Puts `bytes` behind what is held. Only for a direction that has not begun to run.
    pub(crate) fn push(&mut self, more: &[u8]) {
        match &mut self.held {
            Held::Early { bytes, .. } => bytes.extend_from_slice(more),
            _ => {
                self.held = Held::Early {
                    bytes: more.to_vec(),
                    start: 0,
                }
            }
        }
    }

    /// Notes that nothing comes behind what is held.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether this direction holds bytes that are still to be written.
    pub(crate) fn holds_some(&self) -> bool {
        match &self.held {
            Held::Nothing => false,
            Held::Early { bytes, start } => *start < bytes.len(),
            Held::Buffer { start, end, .. } => start < end,
            Held::Pipe { filled, .. } => *filled > 0,
        }
    }

    /// Moves everything from `from` to `to`, until `from` has ended; passing on that end is the caller's. `moved` counts
    /// what was written. May be dropped at any await and run again.
    pub(crate) async fn run(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        pool: &Pool,
        moved: &Count,
    ) -> io::Result<()> {
        loop {
            self.flush(to, moved).await?;
            if self.ended {
                return Ok(());
            }
            match self.fill(from, pool, moved) {
                Ok(0) => {
                    self.ended = true;
                    self.release(pool);
                }
                Ok(_) => consume_budget().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.release(pool);
                    readable(from).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all that is held. May be dropped and run again.
    pub(crate) async fn flush(&mut self, to: &TcpStream, moved: &Count) -> io::Result<()> {
        while self.holds_some() {
            match self.drain(to) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => moved.add(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(to).await?,
                Err(error) => return Err(error),
            }
        }
        if matches!(self.held, Held::Early { .. }) {
            self.held = Held::Nothing;
        }
        Ok(())
    }

    /// Reads once; called with nothing held.
    fn fill(&mut self, from: &TcpStream, pool: &Pool, moved: &Count) -> io::Result<usize> {
        if moved.get() >= SPLICE_AFTER && !self.copy_only && !matches!(self.held, Held::Pipe { .. })
        {
            match pool.pipe() {
                Some(pipe) => {
                    self.release(pool);
                    self.held = Held::Pipe { pipe, filled: 0 };
                }
                None => self.copy_only = true,
            }
        }
        if let Held::Pipe { pipe, filled } = &mut self.held {
            let moved = from.try_io(Interest::READABLE, || {
                Ok(splice(
                    from.as_fd(),
                    None,
                    &pipe.write,
                    None,
                    PIPE,
                    SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
                )?)
            });
            match moved {
                // Not every socket can be spliced; this one is copied from now on.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.copy_only = true;
                    self.release(pool);
                }
                Ok(read) => {
                    *filled = read;
                    return Ok(read);
                }
                Err(error) => return Err(error),
            }
        }
        if !matches!(self.held, Held::Buffer { .. }) {
            if !is_ready(from) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.held = Held::Buffer {
                bytes: pool.buffer(),
                start: 0,
                end: 0,
            };
        }
        let Held::Buffer { bytes, start, end } = &mut self.held else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let read = from.try_read(bytes)?;
        (*start, *end) = (0, read);
        if read > 0 && read < bytes.len() {
            forget_readiness(from);
        }
        Ok(read)
    }

    /// Writes once.
    fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        match &mut self.held {
            Held::Nothing => Ok(0),
            Held::Early { bytes, start } => {
                let written = to.try_write(bytes.get(*start..).unwrap_or_default())?;
                *start += written;
                Ok(written)
            }
            Held::Buffer { bytes, start, end } => {
                let written = to.try_write(bytes.get(*start..*end).unwrap_or_default())?;
                *start += written;
                Ok(written)
            }
            Held::Pipe { pipe, filled } => {
                let written = to.try_io(Interest::WRITABLE, || {
                    Ok(splice(
                        &pipe.read,
                        None,
                        to.as_fd(),
                        None,
                        *filled,
                        SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
                    )?)
                })?;
                *filled -= written.min(*filled);
                Ok(written)
            }
        }
    }

    /// Gives back what is empty.
    fn release(&mut self, pool: &Pool) {
        if self.holds_some() {
            return;
        }
        match std::mem::take(&mut self.held) {
            Held::Nothing | Held::Early { .. } => {}
            Held::Buffer { bytes, .. } => pool.take_back(bytes),
            Held::Pipe { pipe, .. } => pool.take_pipe_back(pipe),
        }
    }
}

/// Moves bytes both ways until both directions have ended or one has failed. The end of the one that ends first is passed
/// on at once; the other's goes with the connection, which nothing is left to do with but to close it.
pub(crate) async fn both(
    client: &TcpStream,
    server: &TcpStream,
    up: &mut Half,
    down: &mut Half,
    pool: &Pool,
    moving: &Moving,
) -> io::Result<()> {
    let up_first = tokio::select! {
        ended = up.run(client, server, pool, &moving.up) => ended.map(|()| true)?,
        ended = down.run(server, client, pool, &moving.down) => ended.map(|()| false)?,
    };
    if up_first {
        pass_end(server);
        down.run(server, client, pool, &moving.down).await
    } else {
        pass_end(client);
        up.run(client, server, pool, &moving.up).await
    }
}

/// Tells the other side of `to` that nothing more comes.
pub(crate) fn pass_end(to: &TcpStream) {
    // Whoever cannot be told any more has closed already.
    let _ = shutdown(to, Shutdown::Write);
}

/// Waits until `stream` can be read. For one place at a time: costs and keeps less than the runtime's own way of letting
/// any number wait.
pub(crate) async fn readable(stream: &TcpStream) -> io::Result<()> {
    poll_fn(|context| stream.poll_read_ready(context)).await
}

/// The same for writing.
pub(crate) async fn writable(stream: &TcpStream) -> io::Result<()> {
    poll_fn(|context| stream.poll_write_ready(context)).await
}

/// Whether the runtime has heard that `stream` can be read: without a system call.
pub(crate) fn is_ready(stream: &TcpStream) -> bool {
    stream.try_io(Interest::READABLE, || Ok(())).is_ok()
}

/// Tells the runtime that `stream` has nothing more for now: a read that came back short said so, and
/// asking the kernel again would cost a system call. (An end of the stream that the runtime knows about
/// is not forgotten by this.)
pub(crate) fn forget_readiness(stream: &TcpStream) {
    let _ = stream.try_io(Interest::READABLE, || {
        Err::<(), _>(io::ErrorKind::WouldBlock.into())
    });
}

/// An empty pipe of a useful size.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Buffers and pipes that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    buffers: Mutex<Vec<Box<[u8]>>>,
    pipes: Mutex<Vec<Pipe>>,
}

impl Pool {
    pub(crate) fn buffer(&self) -> Box<[u8]> {
        let spare = self
            .buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        spare.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
    }

    pub(crate) fn take_back(&self, buffer: Box<[u8]>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < SPARE {
            buffers.push(buffer);
        }
    }

    /// A pipe, unless descriptors or the user's share of pipe memory have run out.
    fn pipe(&self) -> Option<Pipe> {
        if let Some(pipe) = self
            .pipes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
        {
            return Some(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        fcntl_setpipe_size(&write, PIPE).ok()?;
        Some(Pipe { read, write })
    }

    fn take_pipe_back(&self, pipe: Pipe) {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        if pipes.len() < SPARE {
            pipes.push(pipe);
        }
    }
}

/// Bytes read at once.
const BUFFER: usize = 64 << 10;
/// Bytes a direction has moved before it is worth two descriptors.
const SPLICE_AFTER: u64 = 256 << 10;
/// The size of a pipe. An unprivileged user has 64 MiB of them in all.
const PIPE: usize = 256 << 10;
/// Buffers, and pipes, that are kept for reuse.
const SPARE: usize = 32;
