//! Servers that are well, slow, rude and silent, and a name server that lies.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::tally::Report;
use super::witness::Witness;
use crate::{Error, client, world};

/// Sends back what it gets.
pub(crate) const ECHO: u16 = 7;
/// Takes what it gets, slowly, and says at its end how much it was.
pub(crate) const SINK: u16 = 9;
/// Sends a little at a time, and ends by itself.
pub(crate) const TRICKLE: u16 = 19;
/// Speaks first, has said everything soon, and goes on listening.
pub(crate) const GREETING: u16 = 21;
/// Answers HTTP requests on connections that it keeps.
pub(crate) const HTTP: u16 = 80;
/// Resets what connects to it.
pub(crate) const RESET: u16 = 101;
/// Says nothing, for ever.
pub(crate) const STALL: u16 = 102;
/// As [`ECHO`], for names that are not always allowed.
pub(crate) const REVOKED: u16 = 103;
/// Where nobody listens.
pub(crate) const NOBODY: u16 = 104;

/// How much [`TRICKLE`] sends: so often so many octets.
pub(crate) const DRIPS: usize = 10;
pub(crate) const DRIP: usize = 100;
/// What [`GREETING`] says.
pub(crate) const WELCOME: &[u8] =
    b"220 a line that is 64 bytes long, and that no proxy has to read\n";
/// What the HTTP server answers.
pub(crate) const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nfine\n";

struct Seen {
    witness: Witness,
    report: Report,
}

type Shared = Rc<RefCell<Seen>>;

/// Serves at all of this namespace's addresses, and answers each line on standard input with a report. A line `forget`
/// says that the gateway is gone.
pub(crate) fn serve(log: &Path) -> Result<(), Error> {
    let local = LocalSet::new();
    local.block_on(&client::runtime()?, async {
        let shared: Shared = Rc::new(RefCell::new(Seen {
            witness: Witness::new(log.to_owned()),
            report: Report::default(),
        }));
        for port in [ECHO, SINK, TRICKLE, GREETING, HTTP, RESET, STALL, REVOKED] {
            spawn_local(accept(listen(port)?, port, shared.clone()));
        }
        spawn_local(answer_udp(
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).await?,
            shared.clone(),
        ));
        spawn_local(answer_tcp(listen(53)?, shared.clone()));
        println!("ready");
        let (say, mut said) = unbounded_channel();
        std::thread::spawn(move || {
            let lines = io::stdin().lines().map_while(Result::ok);
            lines.map(|line| say.send(line)).find(Result::is_err)
        });
        while let Some(line) = said.recv().await {
            let seen = &mut *shared.borrow_mut();
            seen.witness.read();
            if line == "forget" {
                seen.witness.forget();
            }
            seen.report.log = seen.witness.account.clone();
            seen.report.wrong = seen.witness.wrong.clone();
            println!("{}", serde_json::to_string(&seen.report)?);
        }
        Ok(())
    })
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    socket.listen(4096)
}

async fn accept(listener: TcpListener, port: u16, shared: Shared) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                let report = &mut shared.borrow_mut().report;
                *report.accepted.entry(port).or_default() += 1;
                report.open += 1;
                let shared = shared.clone();
                spawn_local(async move {
                    // Connections end as their clients like.
                    talk(stream, port, &shared).await.ok();
                    shared.borrow_mut().report.open -= 1;
                });
            }
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection, whose bytes are counted.
struct Counted<'a> {
    stream: TcpStream,
    port: u16,
    shared: &'a Shared,
    /// What came behind the first line.
    rest: Vec<u8>,
}

impl Counted<'_> {
    /// Reads some. Nothing is the end.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        if !self.rest.is_empty() {
            return Ok(std::mem::take(&mut self.rest));
        }
        // No memory for those that say nothing.
        poll_fn(|context| self.stream.poll_read_ready(context)).await?;
        let mut buffer = vec![0; 32 << 10];
        let read = self.stream.read(&mut buffer).await?;
        buffer.truncate(read);
        self.count(read, 0);
        Ok(buffer)
    }

    /// Reads up to the end of what `ends` ends.
    async fn until(&mut self, ends: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let found = all.windows(ends.len()).position(|window| window == ends);
            if let Some(at) = found {
                self.rest = all.split_off(at + ends.len());
                return Ok(all);
            }
            match self.read().await? {
                more if more.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => all.extend(more),
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.count(0, bytes.len());
        Ok(())
    }

    fn count(&self, up: usize, down: usize) {
        let report = &mut self.shared.borrow_mut().report;
        let flow = report.used.entry(self.port).or_default();
        flow.up += up as u64;
        flow.down += down as u64;
    }

    fn came(&self, host: &str) {
        let seen = &mut *self.shared.borrow_mut();
        seen.witness.came(host);
        seen.report.used.entry(self.port).or_default().connections += 1;
    }
}

async fn talk(stream: TcpStream, port: u16, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let rest = Vec::new();
    let mut connection = Counted {
        stream,
        port,
        shared,
        rest,
    };
    if port == HTTP {
        return answer_requests(connection).await;
    }
    if port == GREETING {
        connection.write(WELCOME).await?;
    }
    // The first line is the name under which this was asked for.
    let line = connection.until(b"\n").await?;
    connection.came(String::from_utf8_lossy(&line).trim_end());
    match port {
        ECHO | REVOKED => {
            connection.write(&line).await?;
            loop {
                let bytes = connection.read().await?;
                if bytes.is_empty() {
                    return Ok(());
                }
                connection.write(&bytes).await?;
            }
        }
        SINK => {
            let mut got = line.len();
            loop {
                let bytes = connection.read().await?;
                if bytes.is_empty() {
                    return connection.write(format!("{got}\n").as_bytes()).await;
                }
                got += bytes.len();
                sleep(Duration::from_millis(20)).await;
            }
        }
        TRICKLE => {
            for _ in 0..DRIPS {
                sleep(Duration::from_millis(100)).await;
                connection.write(&[b'.'; DRIP]).await?;
            }
            Ok(())
        }
        RESET => connection.stream.set_zero_linger(),
        // Silence, but for the end.
        _ => {
            if port == GREETING {
                connection.stream.shutdown().await?;
            }
            while !connection.read().await?.is_empty() {}
            Ok(())
        }
    }
}

async fn answer_requests(mut connection: Counted<'_>) -> io::Result<()> {
    loop {
        let head = connection.until(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        let host = field("host:").unwrap_or_default();
        connection.came(host.split(':').next().unwrap_or_default());
        let mut body: usize = field("content-length:")
            .and_then(|length| length.parse().ok())
            .unwrap_or_default();
        while body > 0 {
            let mut bytes = connection.read().await?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            connection.rest = bytes.split_off(body.min(bytes.len()));
            body -= bytes.len();
        }
        connection.write(ANSWER).await?;
    }
}

async fn answer_udp(dns: UdpSocket, shared: Shared) -> io::Result<()> {
    let mut question = [0; 512];
    loop {
        let (length, from) = dns.recv_from(&mut question).await?;
        let question = question.get(..length).unwrap_or_default();
        if let Some(answer) = answer(question, false, &shared) {
            dns.send_to(&answer, from).await.ok();
        }
    }
}

async fn answer_tcp(listener: TcpListener, shared: Shared) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let shared = shared.clone();
        spawn_local(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await?;
                let Some(answer) = answer(&question, true, &shared) else {
                    continue;
                };
                let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
                stream.write_u16(length).await?;
                stream.write_all(&answer).await?;
            }
            io::Result::Ok(())
        });
    }
}

/// Every name has one IPv4 address, but for those that begin with a word of trouble.
fn answer(question: &[u8], tcp: bool, shared: &Shared) -> Option<Vec<u8>> {
    let mut message = Message::from_bytes(question).ok()?;
    let asked = message.queries.first()?.clone();
    let name = asked.name().to_string();
    let name = name.trim_end_matches('.');
    let seen = &mut *shared.borrow_mut();
    seen.report.questions += 1;
    seen.witness.asked(name);
    message.metadata.message_type = MessageType::Response;
    message.metadata.op_code = OpCode::Query;
    message.metadata.recursion_available = true;
    let server = Ipv4Addr::from(world::SERVER);
    let word = name.split('-').next().unwrap_or_default();
    let addresses = match word {
        "stall" => return None,
        "garbage" => return Some(question.iter().rev().copied().collect()),
        "servfail" => {
            message.metadata.response_code = ResponseCode::ServFail;
            vec![]
        }
        "none" => vec![],
        "lie" => vec![Ipv4Addr::new(10, 20, 0, 7)],
        "mixed" => vec![server, Ipv4Addr::LOCALHOST],
        "huge" | "endless" if !tcp => {
            message.metadata.truncation = true;
            vec![]
        }
        // Nearly the 64 KiB that a message can have, and more than that, of which only the beginning comes.
        "huge" => vec![server; 1_450],
        "endless" => vec![server; 4_000],
        _ => vec![server],
    };
    if asked.query_type() == RecordType::A {
        for address in addresses {
            let data = RData::A(address.into());
            message.add_answer(Record::from_rdata(asked.name().clone(), 2, data));
        }
    }
    message.to_bytes().ok()
}
