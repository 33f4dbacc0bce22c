//! Servers outside a sandbox that nothing in it may reach; what does reach them is a leak that was seen.
//!
//! There is a TCP port for each class, one for datagrams, unix sockets, a name server, and, where a sandbox was made for the
//! prober, an HTTP server that it may reach: what must not pass the gateway on an allowed connection is looked for there.

use super::classes::{CLASSES, Tried};
use super::plan::{Granted, Plan};
use hickory_proto::op::{Message, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// What arrived at a sink.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) class: u8,
    /// Where, and from whom.
    pub(crate) what: String,
}

/// Sinks at work, in a thread of their own.
#[derive(Debug)]
pub(crate) struct Sinks {
    runtime: Runtime,
    seen: Seen,
    /// The port of each class that has one.
    pub(crate) ports: BTreeMap<u8, u16>,
    pub(crate) udp: u16,
    /// The port behind the gateway.
    pub(crate) granted: u16,
    pub(crate) resolver: SocketAddr,
}

/// The class of what is allowed, which shows that sinks see what arrives.
pub(crate) const CONTROL: u8 = 0;
/// The class of questions that a name server is meant to be asked, about names that lead where nobody may go.
pub(crate) const QUESTION: u8 = u8::MAX;
/// The class of sinks that have failed, and see nothing any more.
pub(crate) const BLIND: u8 = u8::MAX - 1;
/// The labels of names below the zone that lead where nobody may go. Any other leads nowhere.
pub(crate) const REBOUND: [&str; 9] = [
    "machine",
    "loopback",
    "loopback6",
    "unspecified",
    "private",
    "metadata",
    "mixed",
    "mapped",
    "nat64",
];
/// What a sink says to whoever connects.
pub(crate) const GREETING: &str = "egret-verify";

#[derive(Clone, Debug)]
struct Seen {
    nonce: Arc<str>,
    sightings: Arc<Mutex<Vec<Sighting>>>,
}

impl Seen {
    fn note(&self, class: u8, what: String) {
        let mut sightings = self
            .sightings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if sightings.len() < MOST {
            sightings.push(Sighting { class, what });
        }
    }

    /// Whoever was to see leaks of this class sees nothing any more.
    fn blind(&self, sink: &str, error: &io::Error) {
        self.note(
            BLIND,
            format!("the server that was to see leaks failed: {sink}: {error}"),
        );
    }
}

/// Nobody looks at more sightings than that.
const MOST: usize = 10_000;

/// How long whoever connects may be silent.
const PATIENCE: Duration = Duration::from_secs(8);

impl Sinks {
    /// Opens all of them. `machine` are the addresses of this machine, which names of `zone` resolve to.
    pub(crate) fn open(
        nonce: &str,
        zone: &str,
        machine: &[IpAddr],
        names: [&str; 2],
        path: &Path,
        resolver: IpAddr,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let seen = Seen {
            nonce: nonce.into(),
            sightings: Arc::default(),
        };
        let _inside = runtime.enter();
        let mut ports = BTreeMap::new();
        for class in CLASSES
            .iter()
            .filter(|class| !matches!(class.tried, Tried::No(_)))
        {
            let (listener, port) = listen()?;
            ports.insert(class.number, port);
            runtime.spawn(greet(listener, class.number, seen.clone()));
        }
        let (listener, granted) = listen()?;
        runtime.spawn(serve(
            listener,
            seen.clone(),
            machine.first().copied(),
            ports.get(&29).copied(),
        ));
        let socket = udp()?;
        let udp_port = socket.local_addr()?.port();
        runtime.spawn(datagrams(socket, seen.clone()));
        for (name, class) in names.into_iter().zip([10, 5]) {
            let address = UnixAddress::from_abstract_name(name)?;
            let listener = UnixListener::bind_addr(&address)?;
            unix(&runtime, listener, class, &seen)?;
        }
        unix(&runtime, UnixListener::bind(path)?, 10, &seen)?;
        let urgent = signal(SignalKind::from_raw(Signal::URG.as_raw()))?;
        runtime.spawn(signals(urgent, seen.clone()));
        // At this address alone, so that its answers come from where it was asked.
        let socket = std::net::UdpSocket::bind((resolver, 0))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let resolver = socket.local_addr()?;
        let names = Names {
            zone: zone.to_owned(),
            machine: machine.to_vec(),
        };
        runtime.spawn(answer(socket, seen.clone(), names));
        drop(_inside);
        Ok(Self {
            runtime,
            seen,
            ports,
            udp: udp_port,
            granted,
            resolver,
        })
    }

    /// Has this done if somebody breaks off what goes on.
    pub(crate) fn when_broken_off(&self, undo: impl Fn(i32) + Clone + Send + 'static) {
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            let undo = undo.clone();
            let _inside = self.runtime.enter();
            // Without it the process ends as it does anyway, and leaves a directory.
            let Ok(mut signals) = signal(kind) else {
                continue;
            };
            self.runtime.spawn(async move {
                if signals.recv().await.is_some() {
                    undo(kind.as_raw_value());
                }
            });
        }
    }

    /// What has arrived, once what is under way has had a moment.
    pub(crate) fn close(self) -> Vec<Sighting> {
        std::thread::sleep(Duration::from_millis(100));
        self.runtime.shutdown_background();
        let sightings = self.seen.sightings.lock();
        sightings.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Listens on all addresses.
fn listen() -> io::Result<(TcpListener, u16)> {
    let bound = bound(SocketType::STREAM)?;
    rustix::net::listen(&bound, 1024)?;
    let listener = TcpListener::from_std(bound.into())?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

fn udp() -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound(SocketType::DGRAM)?.into())
}

/// A socket at all addresses of both families, whatever this machine's setting for that (`bindv6only`); or of IPv4 where
/// there is no other.
fn bound(kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let of_both = || -> rustix::io::Result<OwnedFd> {
        let socket = rustix::net::socket_with(AddressFamily::INET6, kind, flags, None)?;
        sockopt::set_ipv6_v6only(&socket, false)?;
        rustix::net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
        Ok(socket)
    };
    let of_one = || -> rustix::io::Result<OwnedFd> {
        let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        Ok(socket)
    };
    Ok(of_both().or_else(|_| of_one())?)
}

/// A port that nothing may connect to: whoever does is seen, and told where it is.
async fn greet(listener: TcpListener, class: u8, seen: Seen) {
    loop {
        let (mut stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => return seen.blind("TCP", &error),
        };
        seen.note(
            class,
            format!("a TCP connection from {}", from.ip().to_canonical()),
        );
        let greeting = format!("{GREETING} {}\n", seen.nonce);
        tokio::spawn(async move {
            // Whether it listens is its own affair: it has been seen.
            let (Ok(()) | Err(_)) = stream.write_all(greeting.as_bytes()).await;
            let mut rest = [0; 1024];
            while let Ok(Ok(1..)) = tokio::time::timeout(PATIENCE, stream.read(&mut rest)).await {}
        });
    }
}

/// A server that the prober may reach: what it must not be sent has the token of its class in it.
async fn serve(listener: TcpListener, seen: Seen, host: Option<IpAddr>, redirect: Option<u16>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return seen.blind("the one behind the gateway", &error),
        };
        tokio::spawn(converse(stream, seen.clone(), host.zip(redirect)));
    }
}

async fn converse(mut stream: TcpStream, seen: Seen, redirect: Option<(IpAddr, u16)>) {
    let mut all = Vec::new();
    let mut answered = 0;
    let mut buffer = [0; 4096];
    while let Ok(Ok(length @ 1..)) = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await
    {
        all.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let fresh = all.get(answered..).unwrap_or_default();
        for line in fresh.split(|byte| *byte == b'\n') {
            if let Some(class) = Plan::class_in(&seen.nonce, line) {
                let shown: String = line
                    .iter()
                    .copied()
                    .filter(u8::is_ascii_graphic)
                    .map(char::from)
                    .collect();
                seen.note(class, format!("{shown} passed the gateway"));
            }
        }
        if !fresh.ends_with(b"\r\n\r\n") {
            answered = all.len()
                - fresh
                    .iter()
                    .rev()
                    .take_while(|byte| **byte != b'\n')
                    .count();
            continue;
        }
        answered = all.len();
        let answer = match (redirect, fresh.starts_with(b"GET /redirect")) {
            (Some((host, port)), true) => format!(
                "HTTP/1.1 302 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
                SocketAddr::new(host, port)
            ),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn datagrams(socket: UdpSocket, seen: Seen) {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => return seen.blind("UDP", &error),
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        let class = Plan::class_in(&seen.nonce, datagram).unwrap_or(6);
        seen.note(
            class,
            format!("a datagram from {}", from.ip().to_canonical()),
        );
        let greeting = format!("{GREETING} {}\n", seen.nonce);
        // It has been seen, whether or not it hears of it.
        let (Ok(_) | Err(_)) = socket.send_to(greeting.as_bytes(), from).await;
    }
}

fn unix(runtime: &Runtime, listener: UnixListener, class: u8, seen: &Seen) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let seen = seen.clone();
    runtime.spawn(async move {
        loop {
            let mut stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => return seen.blind("a unix socket", &error),
            };
            seen.note(class, "a connection to a unix socket".into());
            let greeting = format!("{GREETING} {}\n", seen.nonce);
            let (Ok(()) | Err(_)) = stream.write_all(greeting.as_bytes()).await;
        }
    });
    Ok(())
}

/// Sees the signal that nobody minds, which a prober sends to its process group.
async fn signals(mut signals: tokio::signal::unix::Signal, seen: Seen) {
    while signals.recv().await.is_some() {
        seen.note(9, "a signal".into());
    }
}

/// What the names of the zone resolve to.
struct Names {
    zone: String,
    machine: Vec<IpAddr>,
}

/// A documentation address, which nothing has: RFC 5737.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

impl Names {
    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let Some(label) = name
            .strip_suffix(&self.zone)
            .and_then(|rest| rest.strip_suffix('.'))
        else {
            return Vec::new();
        };
        let v4 = |a, b, c, d| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        let inside = self.machine.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let mapped = |address: Ipv4Addr| IpAddr::V6(address.to_ipv6_mapped());
        match label {
            "machine" => self.machine.clone(),
            "loopback" => vec![v4(127, 0, 0, 1)],
            "loopback6" => vec![IpAddr::V6(Ipv6Addr::LOCALHOST)],
            "unspecified" => vec![v4(0, 0, 0, 0)],
            "private" => vec![v4(10, 255, 255, 254)],
            "metadata" => vec![v4(169, 254, 169, 254)],
            "mixed" => self
                .machine
                .iter()
                .copied()
                .chain([IpAddr::V4(NOWHERE)])
                .collect(),
            "mapped" => inside.into_iter().map(mapped).collect(),
            "nat64" => inside
                .map(|address| {
                    let [a, b, c, d] = address.octets();
                    let [high, low] = [[a, b], [c, d]].map(u16::from_be_bytes);
                    IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low))
                })
                .into_iter()
                .collect(),
            _ => vec![IpAddr::V4(NOWHERE)],
        }
    }
}

/// The name server of the zone. It answers questions about no other name, and sees all of them.
async fn answer(socket: UdpSocket, seen: Seen, names: Names) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => return seen.blind("the name server", &error),
        };
        let Ok(question) = Message::from_vec(buffer.get(..length).unwrap_or_default()) else {
            continue;
        };
        let mut reply = Message::response(question.metadata.id, OpCode::Query);
        reply.metadata = Metadata::response_from_request(&question.metadata);
        reply.metadata.recursion_available = true;
        reply.queries.clone_from(&question.queries);
        reply.metadata.response_code = ResponseCode::NXDomain;
        for query in &question.queries {
            let name = query
                .name()
                .to_ascii()
                .trim_end_matches('.')
                .to_ascii_lowercase();
            if let Some(class) = Plan::class_in(&seen.nonce, name.as_bytes()) {
                seen.note(class, format!("a question about {name} at the name server"));
            }
            if query.query_type() == RecordType::PTR {
                seen.note(15, format!("a question about {name} at the name server"));
            }
            let addresses = names.addresses(&name);
            if name.ends_with(&names.zone) {
                seen.note(QUESTION, name);
            }
            if !addresses.is_empty() {
                reply.metadata.response_code = ResponseCode::NoError;
            }
            for address in addresses {
                let data = match (address, query.query_type()) {
                    (IpAddr::V4(address), RecordType::A) => RData::A(address.into()),
                    (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(address.into()),
                    _ => continue,
                };
                reply.add_answer(Record::from_rdata(query.name().clone(), 0, data));
            }
        }
        if let Ok(reply) = reply.to_vec() {
            // Whoever asked has gone, or asks again.
            let (Ok(_) | Err(_)) = socket.send_to(&reply, from).await;
        }
    }
}

/// What is granted to a prober by a sandbox that is made for it.
pub(crate) fn granted(sinks: &Sinks, zone: &str) -> Granted {
    Granted {
        port: sinks.granted,
        zone: zone.to_owned(),
        resolver: sinks.resolver,
    }
}
