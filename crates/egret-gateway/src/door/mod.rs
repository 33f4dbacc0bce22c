//! The ways in.
//!
//! A door reads a request and knows how to say yes and no in its protocol; that is all. Whatever it has read
//! goes to [`crate::flow`], and the decision there is the same for every door.

mod captured;
pub(crate) mod connect;
pub(crate) mod dns;
pub(crate) mod forward;
pub(crate) mod published;
pub(crate) mod socks;

pub(crate) use captured::original_destination;
pub use published::{Callers, Protocol, Published};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use egret_policy::Destination;
use published::Port;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::audit::Door;
use crate::flow::{self, reset};
use crate::inspect::first::{First, Sniffer};
use crate::inspect::http::Input;
use crate::inspect::http::head::Request;
use crate::limits::Limit;
use crate::refused::Refused;
use crate::relay;
use crate::serving::{Lent, Shut};
use crate::{Gateway, note_refusal};

/// What is spoken at a listener.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Redirected connections, and where they are redirected to.
    Captured(SocketAddr),
    Proxy,
    Dns,
    Published(Arc<Port>),
}

/// Takes connections until the door is shut, then waits for those it took.
pub(crate) async fn accept(
    gateway: Arc<Gateway>,
    listener: Lent<TcpListener>,
    mut shut: Shut,
    kind: Kind,
) {
    let mut connections = JoinSet::new();
    let shut = shut.wait();
    tokio::pin!(shut);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = &mut shut => break,
        };
        match accepted {
            Ok((stream, peer)) => let_in(&gateway, stream, peer, &kind, &mut connections),
            // The client was gone again before we came to it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            // No descriptors or no memory: those that are open go on, and some will close.
            Err(_) => sleep(BREATH).await,
        }
    }
    // Who waited for a person has been told, and gets to say so.
    tokio::task::yield_now().await;
    gateway.drained().await;
    connections.shutdown().await;
}

/// Gives a connection to its door, unless there are too many.
fn let_in(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    kind: &Kind,
    connections: &mut JoinSet<()>,
) {
    let door = match kind {
        Kind::Published(port) => {
            match published::admit(gateway, port, &stream, peer) {
                Some(caller) => {
                    connections.spawn(published::enter(gateway.clone(), stream, caller));
                }
                None => reset(&stream),
            }
            return;
        }
        Kind::Captured(_) => Door::Captured,
        Kind::Proxy => Door::Connect,
        Kind::Dns => Door::Dns,
    };
    let Some(handshake) = gateway.handshake() else {
        reset(&stream);
        drop(stream);
        let refused = Refused::limit(Limit::Handshakes, "");
        return note_refusal(gateway, door, &refused, |record| record);
    };
    let gateway = gateway.clone();
    match *kind {
        Kind::Captured(at) => {
            drop(handshake);
            let asked = captured::read(stream, at);
            connections.spawn(async move { flow::carry(&gateway, asked).await });
        }
        Kind::Dns => {
            connections.spawn(dns::serve_tcp(gateway, stream, handshake));
        }
        _ => {
            connections.spawn(async move {
                // Boxed, since it is over before the connection is.
                if let Some(asked) = Box::pin(connect::read(&gateway, stream, handshake)).await {
                    flow::carry(&gateway, asked).await;
                }
            });
        }
    }
}

/// What a door has read: who asks, and for what.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) client: Client,
    pub(crate) wanted: Result<Destination, Refused>,
}

/// A client whose request has been read.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// What it has sent beyond the request.
    pub(crate) input: Input,
    pub(crate) door: Door,
    pub(crate) reply: Reply,
    /// The first of the requests that its connection carries, if it has been read.
    pub(crate) request: Option<Box<Request>>,
}

/// How a client is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Http,
    Socks5,
    Socks4,
    /// It does not know that it is talking to us.
    Nothing,
}

impl Client {
    fn new(stream: TcpStream, input: Input, door: Door, reply: Reply) -> Self {
        Self {
            stream,
            input,
            door,
            reply,
            request: None,
        }
    }

    fn asks(self, wanted: Result<Destination, Refused>) -> Asked {
        Asked {
            client: self,
            wanted,
        }
    }

    /// Tells the client that its connection is there.
    pub(crate) async fn accept(&mut self) -> io::Result<()> {
        match self.reply {
            Reply::Http => send(&self.stream, b"HTTP/1.1 200 Connection established\r\n\r\n").await,
            Reply::Socks5 => send(&self.stream, &socks::granted()).await,
            Reply::Socks4 | Reply::Nothing => Ok(()),
        }
    }

    /// Tells the client that there will be no connection, and why as far as its protocol can say so.
    pub(crate) async fn refuse(
        mut self,
        refused: &Refused,
        id: &str,
        destination: Option<&Destination>,
    ) {
        let http = match self.reply {
            Reply::Http => true,
            Reply::Nothing => self.looks_like_http().await,
            Reply::Socks5 | Reply::Socks4 => false,
        };
        let answer = match self.reply {
            Reply::Http | Reply::Nothing if http => refused.http_response(id, destination, false),
            Reply::Socks5 => socks::refusal(refused).to_vec(),
            Reply::Socks4 => socks::refusal_4().to_vec(),
            Reply::Http | Reply::Nothing => {
                reset(&self.stream);
                return;
            }
        };
        if send(&self.stream, &answer).await.is_ok() {
            part(&self.stream, !self.input.bytes().is_empty()).await;
        }
    }

    /// Whether a client that was captured begins with a plain HTTP request, and soon.
    async fn looks_like_http(&mut self) -> bool {
        let mut sniffer = Sniffer::default();
        let look = async {
            loop {
                let seen = self.input.bytes().len();
                match self.input.fill(&self.stream).await {
                    Ok(0) | Err(_) => return false,
                    Ok(_) => match sniffer.push(self.input.bytes().get(seen..).unwrap_or_default())
                    {
                        First::Hold | First::Watch => {}
                        First::Http => return true,
                        _ => return false,
                    },
                }
            }
        };
        timeout(MOMENT, look).await.unwrap_or(false)
    }
}

/// Writes all of `bytes`.
pub(crate) async fn send(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                relay::writable(stream).await?
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Closes a connection after a last answer. Where the client has sent, or still sends, more than was read,
/// closing at once would be a reset, which may overtake the answer.
pub(crate) async fn part(stream: &TcpStream, unread: bool) {
    if !unread {
        return;
    }
    if rustix::net::shutdown(stream, rustix::net::Shutdown::Write).is_err() {
        return;
    }
    let drain = async {
        let mut rest = Input::default();
        let mut drained = 0;
        while let Ok(read @ 1..) = rest.fill(stream).await {
            drained += read;
            if drained > DRAIN {
                return;
            }
            rest.consume(read);
        }
    };
    let _ = timeout(PARTING, drain).await;
}

/// How long accepting pauses when the system has nothing to accept with.
const BREATH: Duration = Duration::from_millis(20);
/// How long a refused captured connection may take to show that it is HTTP.
const MOMENT: Duration = Duration::from_millis(20);
/// How long, and how much, is read from a client that has its answer.
const PARTING: Duration = Duration::from_millis(500);
const DRAIN: usize = 256 << 10;
