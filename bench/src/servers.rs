//! The servers that everything leads to, and the DNS that knows them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode};
use hickory_proto::rr::{RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::{Error, client};

/// Sends back what it gets.
pub(crate) const ECHO: u16 = 7;
/// Takes what it gets.
pub(crate) const SINK: u16 = 9;
/// Sends for ever, once it got something.
pub(crate) const SOURCE: u16 = 19;
/// Answers HTTP requests on connections that it keeps.
pub(crate) const HTTP: u16 = 80;

/// Serves for ever, at all of this namespace's addresses. Prints a line once it does.
pub(crate) fn serve() -> Result<(), Error> {
    client::runtime()?.block_on(async {
        for port in [ECHO, SINK, SOURCE, HTTP] {
            tokio::spawn(accept(listen(port)?, port));
        }
        let dns = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).await?;
        println!("ready");
        loop {
            let mut question = [0; 512];
            let (length, from) = dns.recv_from(&mut question).await?;
            if let Some(answer) = answer(question.get(..length).unwrap_or_default()) {
                dns.send_to(&answer, from).await?;
            }
        }
    })
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    socket.listen(4096)
}

async fn accept(listener: TcpListener, port: u16) {
    loop {
        match listener.accept().await {
            // Connections end as their clients like.
            Ok((stream, _)) => drop(tokio::spawn(async move { talk(stream, port).await.ok() })),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn talk(mut stream: TcpStream, port: u16) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let small = port == ECHO || port == HTTP;
    let mut buffer = vec![0; if small { 4 << 10 } else { 256 << 10 }];
    loop {
        let read = stream.read(&mut buffer).await?;
        let bytes = buffer.get(..read).unwrap_or_default();
        match port {
            _ if read == 0 => return Ok(()),
            ECHO => stream.write_all(bytes).await?,
            // Every head that is sent here comes in one piece.
            HTTP => stream.write_all(ANSWER).await?,
            SOURCE => loop {
                stream.write_all(&buffer).await?;
            },
            _ => {}
        }
    }
}

/// Every name has one IPv4 address, [`crate::world::SERVER`], and no other.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::from_bytes(question).ok()?;
    let asked = message.queries.first()?.clone();
    message.metadata.message_type = MessageType::Response;
    message.metadata.op_code = OpCode::Query;
    message.metadata.recursion_available = true;
    if asked.query_type() == RecordType::A {
        let address = RData::A(Ipv4Addr::from(crate::world::SERVER).into());
        message.add_answer(Record::from_rdata(asked.name().clone(), 3600, address));
    }
    message.to_bytes().ok()
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
