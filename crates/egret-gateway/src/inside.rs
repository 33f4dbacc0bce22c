//! The way to a port inside the sandbox, for what comes in by a published port.
//!
//! The sandbox has no network, so the connection is made by somebody who is in there and hands it out. [`Inside`] asks for
//! that; here it is seen to that the gateway's one thread never waits for it, nor a caller for ever.

use std::fmt;
use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connects to a port of the sandbox's loopback. It may take its time, though not for ever, and is called on threads of
/// its own, a few at once.
#[derive(Clone)]
pub struct Inside(Arc<Reach>);

type Reach = dyn Fn(u16) -> io::Result<StdStream> + Send + Sync;

impl Inside {
    /// Connects with `reach`, which gets the port.
    pub fn new(reach: impl Fn(u16) -> io::Result<StdStream> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reach))
    }
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").finish_non_exhaustive()
    }
}

/// Connects to the sandbox, a few connections at a time.
#[derive(Debug)]
pub(crate) struct Entrance {
    inside: Option<Inside>,
    turns: Arc<Semaphore>,
    within: Duration,
}

impl Entrance {
    /// Without `inside` nothing can be reached.
    pub(crate) fn new(inside: Option<Inside>, within: Duration) -> Self {
        Self {
            inside,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            within,
        }
    }

    /// A connection to `port` inside.
    pub(crate) async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let Some(Inside(reach)) = self.inside.clone() else {
            return Err(io::Error::other(
                "nobody is there to connect inside the sandbox",
            ));
        };
        let reached = async {
            let turns = self.turns.clone();
            let turn = turns.acquire_owned().await.map_err(io::Error::other)?;
            // The turn ends with the work, also where nobody waits for that any more.
            let work = tokio::task::spawn_blocking(move || (reach(port), turn));
            work.await.map_err(io::Error::other)?.0
        };
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
        let stream = timeout(self.within, reached).await.unwrap_or_else(late)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        TcpStream::from_std(stream)
    }
}

/// Connections that are made at the same time: enough for a burst, and few enough not to become one of threads.
const AT_ONCE: usize = 4;
