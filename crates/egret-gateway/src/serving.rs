//! Serving a set of doors, and shutting it.
//!
//! The sockets belong to the future that serves them, and its tasks only borrow them: when it is dropped they are closed
//! there and then, not when a task gets to hear of it. What the tasks have open by then they end and put on record.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::task::Poll;

use rustix::net::sockopt::set_tcp_nodelay;
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::door::published::Port;
use crate::door::{self, Kind};
use crate::{Doors, Gateway, Published};

/// Doors that are open.
pub(crate) struct Serving {
    gateway: Arc<Gateway>,
    listeners: Vec<Arc<TcpListener>>,
    sockets: Vec<Arc<UdpSocket>>,
    tasks: Vec<JoinHandle<()>>,
    open: watch::Sender<()>,
}

impl Serving {
    /// Opens `doors`.
    pub(crate) fn new(gateway: Arc<Gateway>, doors: Doors) -> io::Result<Self> {
        let Doors {
            captured,
            proxy,
            dns_tcp,
            dns_udp,
            published,
        } = doors;
        gateway.open_again();
        let mut serving = Self {
            gateway,
            listeners: Vec::new(),
            sockets: Vec::new(),
            tasks: Vec::new(),
            open: watch::Sender::new(()),
        };
        for listener in captured {
            let at = listener.local_addr()?;
            serving.listen(listener, Kind::Captured(at))?;
        }
        for (listeners, kind) in [(proxy, Kind::Proxy), (dns_tcp, Kind::Dns)] {
            for listener in listeners {
                serving.listen(listener, kind.clone())?;
            }
        }
        for Published {
            listener,
            port,
            from,
            speaks,
        } in published
        {
            let port = Port { port, from, speaks };
            serving.listen(listener, Kind::Published(Arc::new(port)))?;
        }
        for socket in dns_udp {
            socket.set_nonblocking(true)?;
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            let lent = Lent(Arc::downgrade(&socket));
            serving.sockets.push(socket);
            let (gateway, shut) = (serving.gateway.clone(), serving.shut());
            let task = door::dns::serve_udp(gateway, lent, shut);
            serving.tasks.push(tokio::spawn(task));
        }
        Ok(serving)
    }

    fn listen(&mut self, listener: std::net::TcpListener, kind: Kind) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        // The connections that it accepts have this from it (tcp(7) of Linux).
        set_tcp_nodelay(&listener, true)?;
        let listener = Arc::new(TcpListener::from_std(listener)?);
        let lent = Lent(Arc::downgrade(&listener));
        self.listeners.push(listener);
        let task = door::accept(self.gateway.clone(), lent, self.shut(), kind);
        self.tasks.push(tokio::spawn(task));
        Ok(())
    }

    fn shut(&self) -> Shut {
        Shut {
            gateway: self.gateway.clone(),
            open: self.open.subscribe(),
        }
    }

    /// Waits until the gateway is shut down and everything has ended.
    pub(crate) async fn until_shut(mut self) {
        let mut tasks = std::mem::take(&mut self.tasks);
        for task in &mut tasks {
            // One that panicked has ended, too.
            let _ = task.await;
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.listeners.clear();
        self.sockets.clear();
        self.gateway.close_all();
        // `open` goes with this, which tells the tasks. They are not waited for.
    }
}

/// Tells a task when its door is shut.
pub(crate) struct Shut {
    gateway: Arc<Gateway>,
    open: watch::Receiver<()>,
}

impl Shut {
    /// Waits for that.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            () = self.gateway.until_closing() => {}
            // Nothing is ever sent.
            _ = self.open.changed() => {}
        }
    }
}

/// A socket that belongs to somebody else, who may close it at any time.
pub(crate) struct Lent<T>(Weak<T>);

impl Lent<TcpListener> {
    /// The next connection; for ever, once the listener is closed.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| match self.0.upgrade() {
            Some(listener) => listener.poll_accept(context),
            None => Poll::Pending,
        })
        .await
    }
}

impl Lent<UdpSocket> {
    /// The next datagram, its length and whom it is from; for ever, once the socket is closed.
    pub(crate) async fn receive(&self, datagram: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut buffer = ReadBuf::new(datagram);
        let from = poll_fn(|context| match self.0.upgrade() {
            Some(socket) => socket.poll_recv_from(context, &mut buffer),
            None => Poll::Pending,
        })
        .await?;
        Ok((buffer.filled().len(), from))
    }

    /// Sends a datagram now or not at all.
    pub(crate) fn send(&self, datagram: &[u8], to: SocketAddr) {
        if let Some(socket) = self.0.upgrade() {
            // Whoever asked and gets no answer asks again.
            let _ = socket.try_send_to(datagram, to);
        }
    }
}
