//! The generator of load, inside the sandbox: programs of every kind, by every door.
//!
//! It reads a [`Shape`] a line from standard input, plays it, and prints what came of it ([`Tally`]) when nothing of it is
//! open any more. Connections are opened at a pace of their own, whatever becomes of those before.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{interval, sleep, timeout};

use super::chance::Chance;
use super::servers::{
    ANSWER, DRIP, DRIPS, ECHO, GREETING, HTTP, NOBODY, RESET, REVOKED, SINK, STALL, TRICKLE,
    WELCOME,
};
use super::tally::Tally;
use crate::stats::percentile;
use crate::{Error, client, world};

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// What names begin with.
    pub(crate) run: String,
    pub(crate) work: Work,
    pub(crate) seconds: f64,
    /// Connections a second; with [`Work::Hold`], uses of those that are held.
    pub(crate) rate: f64,
    /// Tunnels that stay open meanwhile.
    pub(crate) held: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Everything, at random.
    Mixed,
    /// 64 octets there and back, by CONNECT.
    Asked,
    /// The same, captured.
    Captured,
    /// Nothing but using the tunnels that are open.
    Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Connect,
    Socks,
    Captured,
}

/// What is said when all tunnels that are to be held are open.
pub(crate) const HELD: &str = "held";

pub(crate) fn obey() -> Result<(), Error> {
    let runtime = client::runtime()?;
    let proxy = std::env::var("HTTP_PROXY").unwrap_or_default();
    let proxy = proxy.trim_start_matches("http://").trim_end_matches('/');
    let proxy: SocketAddr = proxy.parse().map_err(|_| "there is no HTTP_PROXY")?;
    client::say("ready")?;
    for line in io::stdin().lock().lines() {
        let shape: Shape = serde_json::from_str(&line?)?;
        let local = LocalSet::new();
        let tally = local.block_on(&runtime, play(shape, proxy))?;
        client::say(&serde_json::to_string(&tally)?)?;
    }
    Ok(())
}

/// What all connections share.
struct Load {
    shape: Shape,
    proxy: SocketAddr,
    tally: RefCell<Tally>,
    took: RefCell<Vec<f64>>,
    chance: Chance,
    number: Cell<u64>,
}

async fn play(shape: Shape, proxy: SocketAddr) -> Result<Tally, Error> {
    let load = Rc::new(Load {
        chance: Chance::new(&shape.run),
        shape,
        proxy,
        tally: RefCell::default(),
        took: RefCell::default(),
        number: Cell::new(0),
    });
    let mut held = load.hold().await;
    if load.shape.work == Work::Hold {
        client::say(HELD)?;
    }
    let began = Instant::now();
    let lasts = Duration::from_secs_f64(load.shape.seconds);
    let mut work = JoinSet::new();
    let mut started: u64 = 0;
    let mut ticks = interval(Duration::from_millis(5));
    let mut turn = 0;
    while began.elapsed() < lasts {
        ticks.tick().await;
        while (started as f64) < began.elapsed().as_secs_f64() * load.shape.rate {
            started += 1;
            let load = load.clone();
            match load.shape.work {
                Work::Hold => {
                    let at = turn % held.len().max(1);
                    turn += 1;
                    if let Some((host, door, stream)) = held.get_mut(at) {
                        load.use_once(host, *door, stream).await;
                    }
                }
                _ => drop(work.spawn_local(async move { load.one().await })),
            }
        }
        while work.try_join_next().is_some() {}
        // Each of those that are held is used now and then.
        if load.shape.work == Work::Mixed
            && load.chance.one_in(20)
            && let Some((host, door, stream)) = held.get_mut(turn % load.shape.held.max(1))
        {
            turn += 1;
            load.use_once(host, *door, stream).await;
        }
    }
    while work.join_next().await.is_some() {}
    drop(held);
    let mut took = load.took.take();
    took.sort_by(f64::total_cmp);
    let mut tally = load.tally.take();
    if !took.is_empty() {
        tally.p50 = percentile(&took, 0.5);
        tally.p99 = percentile(&took, 0.99);
    }
    tally.most = took.last().copied().unwrap_or_default();
    tally.tracked = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
        .ok()
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_default();
    Ok(tally)
}

impl Load {
    /// Opens what is to be held, sixteen at a time.
    async fn hold(self: &Rc<Self>) -> Vec<(String, Door, TcpStream)> {
        let mut opening = JoinSet::new();
        let mut held = Vec::new();
        for _ in 0..self.shape.held {
            if opening.len() >= 16
                && let Some(Ok(Some(one))) = opening.join_next().await
            {
                held.push(one);
            }
            let load = self.clone();
            opening.spawn_local(async move {
                let (host, door) = (load.name("many"), load.door());
                match load.open(door, &host, ECHO).await {
                    Ok(Some(mut stream)) => {
                        load.flow(ECHO, 1, 0, 0);
                        load.use_once(&host, door, &mut stream).await;
                        Some((host, door, stream))
                    }
                    Ok(None) => load.fail(door, &host, "was refused"),
                    Err(error) => load.fail(door, &host, &error.to_string()),
                }
            });
        }
        while let Some(opened) = opening.join_next().await {
            if let Ok(Some(one)) = opened {
                held.push(one);
            }
        }
        held
    }

    /// Sends a line over a tunnel that is open, and gets it back.
    async fn use_once(&self, host: &str, door: Door, stream: &mut TcpStream) {
        let line = format!("{host}\n");
        let done = within(10, exchange(stream, line.as_bytes(), line.as_bytes())).await;
        match done {
            Ok(()) => self.flow(ECHO, 0, line.len(), line.len()),
            Err(error) => {
                self.fail::<()>(door, host, &format!("a tunnel that was open: {error}"));
            }
        }
    }

    /// One thing that programs do.
    async fn one(&self) {
        let (host, door) = (self.name("many"), self.door());
        let work = match self.shape.work {
            Work::Mixed => self.chance.below(100),
            _ => 0,
        };
        let done = match work {
            0..30 => within(30, self.short(door, &host)).await,
            30..40 => within(30, self.requests(&host)).await,
            40..45 => within(30, self.bulk(door, &host, 0)).await,
            45..50 => within(60, self.bulk(door, &host, 100)).await,
            50..55 => within(60, self.slow_writer(door, &host)).await,
            55..60 => within(60, self.upload(door, &host)).await,
            60..65 => within(60, self.trickle(door, &host)).await,
            65..70 => within(30, self.greeted(door, &host)).await,
            70..74 => within(30, self.unanswered(door, &host, RESET)).await,
            74..78 => within(30, self.unanswered(door, &host, STALL)).await,
            78..82 => within(30, self.refused(door, &host, NOBODY)).await,
            82..86 => within(30, self.refused_by_policy(door)).await,
            86..91 => within(30, self.troubled(door)).await,
            91..93 => within(60, self.revoked()).await,
            93..94 => within(30, self.mute()).await,
            _ => within(30, self.lookups()).await,
        };
        if let Err(error) = done {
            self.fail::<()>(door, &host, &format!("work {work}: {error}"));
        }
    }

    /// 64 octets there and back, which is timed.
    async fn short(&self, door: Door, host: &str) -> io::Result<()> {
        let since = Instant::now();
        let mut stream = self.opened(door, host, ECHO).await?;
        let line = format!("{host:<63}\n");
        // What is sent has the name at its beginning, and the server knows to leave the spaces away.
        exchange(&mut stream, line.as_bytes(), line.as_bytes()).await?;
        self.took
            .borrow_mut()
            .push(since.elapsed().as_secs_f64() * 1e6);
        self.flow(ECHO, 1, line.len(), line.len());
        self.part(stream).await
    }

    /// Some requests for absolute URIs, on one connection.
    async fn requests(&self, host: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.proxy).await?;
        for _ in 0..=self.chance.below(4) {
            let body = self.chance.below(3) * 1_000;
            let mut request = format!(
                "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: {body}\r\n\r\n"
            );
            request.extend(std::iter::repeat_n('b', body));
            exchange(&mut stream, request.as_bytes(), ANSWER).await?;
            self.flow(HTTP, 1, 0, 0);
        }
        Ok(())
    }

    /// More than is copied, there and back, read with pauses of so many milliseconds.
    async fn bulk(&self, door: Door, host: &str, pause: u64) -> io::Result<()> {
        let stream = self.opened(door, host, ECHO).await?;
        let mut sent = format!("{host}\n").into_bytes();
        sent.resize(self.chance.below(1 << 20) + sent.len(), b'x');
        let (mut from, mut to) = stream.into_split();
        let length = sent.len();
        let send = async {
            to.write_all(&sent).await?;
            to.shutdown().await
        };
        let receive = async {
            let (mut got, mut buffer) = (0, vec![0; 64 << 10]);
            loop {
                match from.read(&mut buffer).await? {
                    0 => return Ok(got),
                    read => got += read,
                }
                if pause > 0 {
                    sleep(Duration::from_millis(pause)).await;
                }
            }
        };
        let ((), got) = tokio::try_join!(send, receive)?;
        if got != length {
            return Err(io::Error::other(format!("{got} of {length} came back")));
        }
        self.flow(ECHO, 1, length, length);
        Ok(())
    }

    /// A few octets at a time.
    async fn slow_writer(&self, door: Door, host: &str) -> io::Result<()> {
        let mut stream = self.opened(door, host, ECHO).await?;
        let line = format!("{host}\n");
        let mut moved = 0;
        for piece in line.as_bytes().chunks(3) {
            stream.write_all(piece).await?;
            moved += piece.len();
            sleep(Duration::from_millis(100)).await;
        }
        let mut back = vec![0; moved];
        stream.read_exact(&mut back).await?;
        self.flow(ECHO, 1, moved, moved);
        self.part(stream).await
    }

    /// To a server that reads slowly; what it says comes after the client's end.
    async fn upload(&self, door: Door, host: &str) -> io::Result<()> {
        let mut stream = self.opened(door, host, SINK).await?;
        let mut sent = format!("{host}\n").into_bytes();
        sent.resize(self.chance.below(1 << 20) + sent.len(), b'x');
        stream.write_all(&sent).await?;
        stream.shutdown().await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        if said != format!("{}\n", sent.len()) {
            return Err(io::Error::other(format!("{} sent, got {said}", sent.len())));
        }
        self.flow(SINK, 1, sent.len(), said.len());
        Ok(())
    }

    async fn trickle(&self, door: Door, host: &str) -> io::Result<()> {
        let mut stream = self.opened(door, host, TRICKLE).await?;
        let line = format!("{host}\n");
        stream.write_all(line.as_bytes()).await?;
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await?;
        if got.len() != DRIPS * DRIP {
            return Err(io::Error::other(format!("{} came", got.len())));
        }
        self.flow(TRICKLE, 1, line.len(), got.len());
        Ok(())
    }

    /// A server that speaks first, and ends first.
    async fn greeted(&self, door: Door, host: &str) -> io::Result<()> {
        let mut stream = self.opened(door, host, GREETING).await?;
        let mut got = [0; WELCOME.len()];
        stream.read_exact(&mut got).await?;
        let line = format!("{host}\n");
        stream.write_all(line.as_bytes()).await?;
        // Its end, after which it still listens.
        if stream.read(&mut got).await? != 0 {
            return Err(io::Error::other("more came than was to come"));
        }
        stream.write_all(line.as_bytes()).await?;
        self.flow(GREETING, 1, 2 * line.len(), WELCOME.len());
        Ok(())
    }

    /// A server that resets, or says nothing until the client has had enough.
    async fn unanswered(&self, door: Door, host: &str, port: u16) -> io::Result<()> {
        let mut stream = self.opened(door, host, port).await?;
        stream.write_all(format!("{host}\n").as_bytes()).await?;
        if let Ok(Ok(_)) = timeout(Duration::from_secs(2), stream.read_u8()).await {
            return Err(io::Error::other("something came"));
        }
        self.flow(port, 1, 0, 0);
        self.tally.borrow_mut().broken += 1;
        Ok(())
    }

    /// What has to be refused, or cannot come about.
    async fn refused(&self, door: Door, host: &str, port: u16) -> io::Result<()> {
        if let Some(mut stream) = self.open(door, host, port).await? {
            if door != Door::Captured {
                return Err(io::Error::other(format!(
                    "port {port} of {host} was to be refused"
                )));
            }
            // Who does not know of being refused finds the connection gone.
            let line = format!("{host}\n");
            if stream.write_all(line.as_bytes()).await.is_ok()
                && matches!(stream.read(&mut [0]).await, Ok(1..))
            {
                return Err(io::Error::other(format!(
                    "port {port} of {host} was reached"
                )));
            }
        }
        self.tally.borrow_mut().refused += 1;
        Ok(())
    }

    async fn refused_by_policy(&self, door: Door) -> io::Result<()> {
        let host = match door {
            Door::Captured => Ipv4Addr::from(world::SERVER).to_string(),
            _ => self.name("refused"),
        };
        self.refused(door, &host, ECHO).await
    }

    /// A name whose addresses cannot be had, or must not be used, or are too many.
    async fn troubled(&self, door: Door) -> io::Result<()> {
        let words = [
            "stall", "garbage", "servfail", "none", "lie", "mixed", "huge", "endless",
        ];
        let word = words.get(self.chance.below(words.len())).unwrap_or(&"none");
        let host = format!("{word}-{}", self.name("many"));
        self.refused(door, &host, ECHO).await
    }

    /// A name that a policy takes away now and then, over and over on one connection.
    async fn revoked(&self) -> io::Result<()> {
        let host = self.name("revoked");
        let opened = match self.open(Door::Connect, &host, REVOKED).await {
            Ok(opened) => opened,
            // Taken away while it was being made.
            Err(_) => {
                self.tally.borrow_mut().broken += 1;
                return Ok(());
            }
        };
        let Some(mut stream) = opened else {
            self.tally.borrow_mut().refused += 1;
            return Ok(());
        };
        let line = format!("{host}\n");
        for _ in 0..20 {
            if exchange(&mut stream, line.as_bytes(), line.as_bytes())
                .await
                .is_err()
            {
                self.tally.borrow_mut().broken += 1;
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// A client of the proxy that never says what it wants.
    async fn mute(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.proxy).await?;
        stream
            .write_all(b"CONNECT n.many.example.com:7 HTTP/1.1\r\n")
            .await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        if !said.starts_with("HTTP/1.1 408") {
            return Err(io::Error::other(format!("not 408: {said}")));
        }
        self.tally.borrow_mut().refused += 1;
        Ok(())
    }

    async fn lookups(&self) -> io::Result<()> {
        let (allowed, refused) = (self.name("many"), self.name("refused"));
        if self.look_up(&allowed).await?.is_none() {
            return Err(io::Error::other(format!("{allowed} has no address")));
        }
        // The same name each time, as it is on record once.
        let same = refused.split_once('.').map_or("", |(_, same)| same);
        match self.look_up(same).await? {
            None => Ok(()),
            Some(address) => Err(io::Error::other(format!("{same} is {address}"))),
        }
    }

    /// What the sandbox's resolver says about a name.
    async fn look_up(&self, host: &str) -> io::Result<Option<Ipv4Addr>> {
        self.tally.borrow_mut().lookups += 1;
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii(format!("{host}.")).map_err(io::Error::other)?;
        message.add_query(Query::query(name, RecordType::A));
        let question = message.to_bytes().map_err(io::Error::other)?;
        for _ in 0..3 {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            socket.send_to(&question, (Ipv4Addr::LOCALHOST, 53)).await?;
            let mut answer = [0; 1024];
            let received = timeout(Duration::from_secs(2), socket.recv(&mut answer));
            let Ok(Ok(length)) = received.await else {
                continue;
            };
            let answer = Message::from_bytes(answer.get(..length).unwrap_or_default())
                .map_err(io::Error::other)?;
            let address = answer.answers.iter().find_map(|record| match &record.data {
                RData::A(address) => Some(address.0),
                _ => None,
            });
            return match (answer.metadata.response_code, address) {
                (ResponseCode::NoError, Some(address)) => Ok(Some(address)),
                (ResponseCode::NXDomain, None) => Ok(None),
                _ => Err(io::Error::other(format!("a strange answer for {host}"))),
            };
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer to a question",
        ))
    }

    /// A connection that has to come about.
    async fn opened(&self, door: Door, host: &str, port: u16) -> io::Result<TcpStream> {
        let refused = || io::Error::other(format!("port {port} was refused"));
        self.open(door, host, port).await?.ok_or_else(refused)
    }

    /// A connection, unless it is refused. One that is captured is told nothing.
    async fn open(&self, door: Door, host: &str, port: u16) -> io::Result<Option<TcpStream>> {
        if door == Door::Captured {
            let address = match host.parse() {
                Ok(address) => address,
                Err(_) => self.look_up(host).await?.ok_or(io::ErrorKind::NotFound)?,
            };
            let stream = TcpStream::connect((address, port)).await?;
            stream.set_nodelay(true)?;
            return Ok(Some(stream));
        }
        let mut stream = TcpStream::connect(self.proxy).await?;
        stream.set_nodelay(true)?;
        if door == Door::Connect {
            let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            return Ok((connect_status(&mut stream).await? == 200).then_some(stream));
        }
        exchange(&mut stream, &[5, 1, 0], &[5, 0]).await?;
        let length = u8::try_from(host.len()).map_err(io::Error::other)?;
        let mut request = vec![5, 1, 0, 3, length];
        request.extend(host.as_bytes());
        request.extend(port.to_be_bytes());
        stream.write_all(&request).await?;
        let mut reply = [0; 10];
        stream.read_exact(&mut reply).await?;
        let [_, granted, ..] = reply;
        Ok((granted == 0).then_some(stream))
    }

    /// Ends a connection and waits until the other side has.
    async fn part(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.shutdown().await?;
        match stream.read(&mut [0]).await? {
            0 => Ok(()),
            _ => Err(io::Error::other("more came than was sent")),
        }
    }

    fn door(&self) -> Door {
        match self.shape.work {
            Work::Asked => Door::Connect,
            Work::Captured => Door::Captured,
            Work::Mixed | Work::Hold => match self.chance.below(3) {
                0 => Door::Connect,
                1 => Door::Socks,
                _ => Door::Captured,
            },
        }
    }

    /// One of a great many names of a zone.
    fn name(&self, zone: &str) -> String {
        let number = self.number.get();
        self.number.set((number + 1) % NAMES);
        format!("{}-{number}.{zone}.example.com", self.shape.run)
    }

    fn flow(&self, port: u16, connections: u64, up: usize, down: usize) {
        let tally = &mut *self.tally.borrow_mut();
        let flow = tally.flows.entry(port).or_default();
        flow.connections += connections;
        flow.up += up as u64;
        flow.down += down as u64;
    }

    fn fail<T>(&self, door: Door, host: &str, why: &str) -> Option<T> {
        let sentence = format!("{host} by {door:?}: {why}");
        self.tally.borrow_mut().failed.add(sentence);
        None
    }
}

async fn within(seconds: u64, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(Duration::from_secs(seconds), work)
        .await
        .unwrap_or_else(|late| Err(late.into()))
}

/// Sends something, and reads as much as is to come back, which has to be that.
async fn exchange(stream: &mut TcpStream, send: &[u8], expect: &[u8]) -> io::Result<()> {
    stream.write_all(send).await?;
    let mut got = vec![0; expect.len()];
    stream.read_exact(&mut got).await?;
    match got == expect {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "came back: {}",
            String::from_utf8_lossy(&got)
        ))),
    }
}

/// Reads the head of the answer to CONNECT, and nothing of what comes behind it.
async fn connect_status(stream: &mut TcpStream) -> io::Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let status = head.get(9..12).unwrap_or_default();
    let status = String::from_utf8_lossy(status).parse();
    status.map_err(|_| io::ErrorKind::InvalidData.into())
}

/// So many names there are: few enough that all have been used when it is looked for the first time how much memory there is.
const NAMES: u64 = 500;
