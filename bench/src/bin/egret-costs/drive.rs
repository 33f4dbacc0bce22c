//! The client and the server of the gateway that is measured, and its name server.
//!
//! As in the end-to-end tests that count system calls, nothing is sent before the gateway has come to rest, so that the same
//! happens each time.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;

/// Starts `command` as the gateway and plays `scenario` so many `times`. Gives what it said.
pub(crate) fn drive(scenario: &str, command: &mut Command, times: u64) -> Result<Vec<u8>, Error> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (server, names) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
    command.args([
        "gate",
        &server.local_addr()?.port().to_string(),
        &names.local_addr()?.to_string(),
    ]);
    let mut gate = command
        .spawn()
        .map_err(|error| format!("valgrind does not start: {error}"))?;
    let pid = i32::try_from(gate.id())?;
    let mut line = String::new();
    if let Some(said) = &mut gate.stdout {
        BufReader::new(said).read_line(&mut line)?;
    }
    let played = line
        .trim()
        .split_once(' ')
        .ok_or("the gateway does not start".into())
        .and_then(|(proxy, dns)| {
            let stage = Stage {
                pid,
                server,
                names,
                proxy: proxy.parse()?,
                dns: dns.parse()?,
            };
            stage.play(scenario, times)
        });
    // Callgrind writes its file when the process is ended.
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    let said = gate.wait_with_output()?.stderr;
    match played {
        Ok(()) => Ok(said),
        Err(error) => {
            Err(format!("{scenario}: {error}\n{}", String::from_utf8_lossy(&said)).into())
        }
    }
}

struct Stage {
    /// The gateway's process.
    pid: i32,
    server: TcpListener,
    names: UdpSocket,
    proxy: SocketAddr,
    dns: SocketAddr,
}

impl Stage {
    fn play(&self, scenario: &str, times: u64) -> Result<(), Error> {
        let host = format!("host.docker.internal:{}", self.server.local_addr()?.port());
        match scenario {
            "tunnel" => (0..times).try_for_each(|_| {
                let (client, server) = self.tunnel(&host)?;
                self.echo(&client, &server, WORDS)?;
                self.part(client, server)
            }),
            "tunnel-tls" => (0..times).try_for_each(|_| {
                let (client, server) = self.tunnel(&host)?;
                let hello = client_hello("host.docker.internal");
                (&client).write_all(&hello)?;
                (&server).read_exact(&mut vec![0; hello.len()])?;
                self.rest()?;
                self.echo(&client, &server, WORDS)?;
                self.part(client, server)
            }),
            "echo" | "echo-watched" => {
                let (client, server) = self.tunnel(&host)?;
                let words = if scenario == "echo" { WORDS } else { WORD };
                (0..times).try_for_each(|_| self.echo(&client, &server, words))
            }
            "refused" => (0..times).try_for_each(|_| self.refused("elsewhere.example.com:443")),
            "refused-address" => {
                self.begin_refused("inside.example.com:443")?;
                self.tell()?;
                (0..times).try_for_each(|_| self.refused("inside.example.com:443"))
            }
            "request" => self.requests(&host, "", times),
            "request-browser" => self.requests(&host, BROWSER, times),
            "dns" => {
                let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                client.set_read_timeout(Some(PATIENCE))?;
                client.connect(self.dns)?;
                let question = question("inside.example.com");
                (0..times).try_for_each(|_| {
                    client.send(&question)?;
                    let length = client.recv(&mut [0; 512])?;
                    self.rest()?;
                    if length <= question.len() {
                        Err("a DNS question has no answer".into())
                    } else {
                        Ok(())
                    }
                })
            }
            _ => Err("there is no such scenario".into()),
        }
    }

    fn tunnel(&self, to: &str) -> Result<(TcpStream, TcpStream), Error> {
        let client = self.connect()?;
        write!(&client, "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")?;
        let server = self.accept()?;
        expect(&head(&client)?, "HTTP/1.1 200")?;
        self.rest()?;
        Ok((client, server))
    }

    /// 64 octets there and back.
    fn echo(&self, client: &TcpStream, server: &TcpStream, words: &[u8; 64]) -> Result<(), Error> {
        for (mut from, mut to) in [(client, server), (server, client)] {
            from.write_all(words)?;
            to.read_exact(&mut [0; 64])?;
            self.rest()?;
        }
        Ok(())
    }

    /// The client ends the connection, and the server does when it hears of it.
    fn part(&self, client: TcpStream, server: TcpStream) -> Result<(), Error> {
        client.shutdown(Shutdown::Write)?;
        (&server).read_to_end(&mut Vec::new())?;
        self.rest()?;
        drop(server);
        (&client).read_to_end(&mut Vec::new())?;
        self.rest()
    }

    fn begin_refused(&self, to: &str) -> Result<TcpStream, Error> {
        let client = self.connect()?;
        write!(&client, "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")?;
        Ok(client)
    }

    fn refused(&self, to: &str) -> Result<(), Error> {
        let mut answer = String::new();
        self.begin_refused(to)?.read_to_string(&mut answer)?;
        self.rest()?;
        expect(&answer, "HTTP/1.1 403")
    }

    /// Requests over one connection.
    fn requests(&self, host: &str, fields: &str, times: u64) -> Result<(), Error> {
        let client = self.connect()?;
        let mut kept = None;
        (0..times).try_for_each(|_| {
            write!(
                &client,
                "GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
            )?;
            let server = match kept.take() {
                Some(server) => server,
                None => self.accept()?,
            };
            expect(&head(&server)?, "GET /x HTTP/1.1\r\n")?;
            self.rest()?;
            (&server).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")?;
            expect(&head(&client)?, "HTTP/1.1 200")?;
            (&client).read_exact(&mut [0; 6])?;
            kept = Some(server);
            self.rest()
        })
    }

    fn connect(&self) -> Result<TcpStream, Error> {
        let client = TcpStream::connect(self.proxy)?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.set_nodelay(true)?;
        self.rest()?;
        Ok(client)
    }

    fn accept(&self) -> Result<TcpStream, Error> {
        let (server, _) = self.server.accept()?;
        server.set_read_timeout(Some(PATIENCE))?;
        server.set_nodelay(true)?;
        Ok(server)
    }

    /// Answers the two questions about a name: an address of IPv4, good for an hour, and none of IPv6.
    fn tell(&self) -> Result<(), Error> {
        self.names.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..2 {
            let mut asked = [0; 512];
            let (length, from) = self.names.recv_from(&mut asked)?;
            self.rest()?;
            let mut answer =
                hickory_proto::op::Message::from_vec(asked.get(..length).unwrap_or_default())?;
            answer.metadata.message_type = hickory_proto::op::MessageType::Response;
            let query = answer.queries.first().ok_or("a DNS message asks nothing")?;
            if query.query_type() == hickory_proto::rr::RecordType::A {
                let address = hickory_proto::rr::RData::A(hickory_proto::rr::rdata::A(
                    Ipv4Addr::new(10, 0, 0, 1),
                ));
                let record =
                    hickory_proto::rr::Record::from_rdata(query.name().clone(), 3600, address);
                answer.answers.push(record);
            }
            self.names.send_to(&answer.to_vec()?, from)?;
            self.rest()?;
        }
        Ok(())
    }

    /// Waits until the gateway waits for something to happen and nothing does any more.
    fn rest(&self) -> Result<(), Error> {
        let limit = Instant::now() + PATIENCE;
        let (mut calm, mut before) = (0, String::new());
        while calm < CALM {
            if Instant::now() > limit {
                return Err("the gateway does not come to rest".into());
            }
            std::thread::sleep(Duration::from_micros(300));
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
            let sleeps = status.lines().any(|line| line.starts_with("State:\tS"));
            let switches: String = status
                .lines()
                .filter(|line| line.contains("switches"))
                .collect();
            calm = if sleeps && switches == before {
                calm + 1
            } else {
                0
            };
            before = switches;
        }
        Ok(())
    }
}

fn head(mut stream: &TcpStream) -> Result<String, Error> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        head.extend(octet);
    }
    Ok(String::from_utf8(head)?)
}

fn expect(answer: &str, beginning: &str) -> Result<(), Error> {
    if answer.starts_with(beginning) {
        Ok(())
    } else {
        Err(format!("not {beginning}, but {answer}").into())
    }
}

/// A ClientHello (RFC 8446 4.1.2) of 517 octets, as many as browsers like to send.
fn client_hello(name: &str) -> Vec<u8> {
    // What stands behind its own length, in so many octets.
    let sized = |octets: usize, content: Vec<u8>| {
        let length = content.len().to_be_bytes();
        let length = length.get(length.len() - octets..).unwrap_or_default();
        [length, content.as_slice()].concat()
    };
    let extension = |kind: u16, content| [kind.to_be_bytes().to_vec(), sized(2, content)].concat();
    let name = [vec![0], sized(2, name.as_bytes().to_vec())].concat();
    let server_name = extension(0, sized(2, name));
    let versions = extension(43, vec![2, 3, 4]);
    let front = [
        vec![3, 3],
        vec![7; 32],
        sized(1, vec![7; 32]),
        sized(2, [0x13, 1].repeat(16)),
        vec![1, 0],
    ]
    .concat();
    // Record, handshake and the last extension have headers of 5, 4 and 4 octets, and the extensions their length.
    let so_far = 15 + front.len() + server_name.len() + versions.len();
    let padding = extension(21, vec![0; 517_usize.saturating_sub(so_far)]);
    let extensions = sized(2, [server_name, versions, padding].concat());
    let handshake = [vec![1], sized(3, [front, extensions].concat())].concat();
    [vec![22, 3, 1], sized(2, handshake)].concat()
}

/// A DNS question for an IPv4 address.
fn question(name: &str) -> Vec<u8> {
    let mut message = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend(label.as_bytes());
    }
    message.extend(b"\x00\x00\x01\x00\x01");
    message
}

/// The end of the line says that it is nobody's request.
const WORDS: &[u8; 64] = b"sixty-four octets of a protocol that Egret has never heard of..\n";
/// What may go on to be a request's first word.
const WORD: &[u8; 64] = &[b'x'; 64];
/// What a browser sends besides.
const BROWSER: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\
    Referer: http://host.docker.internal/index.html\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\
    Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-User: ?1\r\nPriority: u=0, i\r\nPragma: no-cache\r\n\
    Cache-Control: no-cache\r\n";
const PATIENCE: Duration = Duration::from_secs(30);
/// How many looks in a row have to find the gateway asleep.
const CALM: u32 = 4;
