//! Bytes that were received and not yet used.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::head::{self, BadHead, Request};
use crate::limits::{Limit, Limits};
use crate::refused::Refused;
use crate::relay::{forget_readiness, is_ready, readable};

/// What has come in on a socket and waits to be used. Holds no memory while it is empty.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    /// How far a search for the end of a head has got.
    scanned: usize,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum NoRequest {
    /// The client ended the connection between two requests.
    End,
    /// The connection failed, or ended in the middle of a head.
    Gone,
    /// What came is not acceptable.
    Refused(Refused),
}

impl Input {
    pub(crate) fn starting_with(bytes: Vec<u8>) -> Self {
        Self { bytes, scanned: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first `count` bytes away.
    pub(crate) fn consume(&mut self, count: usize) {
        if count >= self.bytes.len() {
            self.bytes = Vec::new();
        } else {
            self.bytes.drain(..count);
        }
    }

    /// Reads whatever there is, after waiting for it; 0 is the end. Loses nothing if dropped.
    pub(crate) async fn fill(&mut self, stream: &TcpStream) -> io::Result<usize> {
        loop {
            match self.try_fill(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable(stream).await?,
                outcome => return outcome,
            }
        }
    }

    /// Memory is taken once there is something to be read, so that a connection on which nothing is said holds none.
    fn try_fill(&mut self, stream: &TcpStream) -> io::Result<usize> {
        if !is_ready(stream) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.reserve(CHUNK);
        let room = self.bytes.capacity() - self.bytes.len();
        let outcome = stream.try_read_buf(&mut self.bytes);
        match outcome {
            Ok(read) if (1..room).contains(&read) => forget_readiness(stream),
            Ok(_) => {}
            Err(_) if self.bytes.is_empty() => self.bytes = Vec::new(),
            Err(_) => {}
        }
        outcome
    }

    /// Reads one request head. A client may take as long as it likes to begin, unless `hurry`, and
    /// `limits.handshake_time` to finish.
    pub(crate) async fn request(
        &mut self,
        stream: &TcpStream,
        limits: &Limits,
        hurry: bool,
    ) -> Result<Request, NoRequest> {
        if self.bytes.is_empty() && !hurry {
            match self.fill(stream).await {
                Ok(0) => return Err(NoRequest::End),
                Ok(_) => {}
                Err(_) => return Err(NoRequest::Gone),
            }
        }
        if let Some(request) = self.take_request(limits)? {
            return Ok(request);
        }
        let rest = async {
            loop {
                match self.fill(stream).await {
                    Ok(0) if self.bytes.is_empty() => return Err(NoRequest::End),
                    Ok(0) | Err(_) => return Err(NoRequest::Gone),
                    Ok(_) => {}
                }
                if let Some(request) = self.take_request(limits)? {
                    return Ok(request);
                }
            }
        };
        in_time(limits.handshake_time, rest).await
    }

    pub(crate) fn take_request(&mut self, limits: &Limits) -> Result<Option<Request>, NoRequest> {
        let Some(end) = head::end(&self.bytes, &mut self.scanned, limits)? else {
            return Ok(None);
        };
        // Mostly there is nothing behind it.
        let rest = self.bytes.split_off(end);
        let head = std::mem::replace(&mut self.bytes, rest);
        Ok(Some(Request::parse(head, limits)?))
    }
}

async fn in_time<T>(
    time: Duration,
    work: impl Future<Output = Result<T, NoRequest>>,
) -> Result<T, NoRequest> {
    timeout(time, work)
        .await
        .unwrap_or_else(|_| Err(NoRequest::Refused(Refused::limit(Limit::HandshakeTime, ""))))
}

impl From<BadHead> for NoRequest {
    fn from(bad: BadHead) -> Self {
        Self::Refused(bad.into())
    }
}

impl From<BadHead> for Refused {
    fn from(bad: BadHead) -> Self {
        match bad {
            BadHead::Malformed(why) => Self::malformed(why),
            BadHead::Limit(limit) => Self::limit(limit, ""),
        }
    }
}

/// Bytes read at once: most heads, and most ClientHellos, come in one piece.
const CHUNK: usize = 4 << 10;
