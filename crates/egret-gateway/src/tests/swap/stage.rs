//! A gateway, and all that is around one connection of it: its client, its server, a name server and the audit log.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream as Std, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record as DnsRecord, RecordType};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::{New, Spoken};
use crate::audit::{Basis, Event, Log, Record, Verdict};
use crate::door::connect;
use crate::tests::{HOST, LOCAL, checked_record, listener, matcher};
use crate::{Config, Gateway, HostGateway, InboundHosts, Limits, ResolverConfig, Servers, flow};

/// What can happen around a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// A question is answered.
    Name,
    /// The server answers what it has got.
    Server,
    /// The client says what it has to say next.
    Client,
}

/// A gateway that does not do all that it should, so that it can be seen that this is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Nothing,
    /// The policy is replaced, and open connections are not put to it.
    ForgetsConnections,
    /// Open connections are put to the new policy before it is there for those that come to be open.
    ForgetsNewOnes,
}

/// What has been seen of a connection so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    questions: usize,
    dials: usize,
    /// Bytes that the server got.
    up: usize,
    /// Answers of the server's that the client got.
    down: usize,
}

pub(super) struct Stage {
    gateway: Arc<Gateway>,
    broken: Broken,
    spoken: Spoken,
    /// What the client has still to say, the next thing last.
    script: Vec<Vec<u8>>,
    said: usize,
    answer: &'static [u8],
    client: Std,
    door: Option<TcpStream>,
    heard: Vec<u8>,
    listener: TcpListener,
    servers: Vec<Std>,
    /// What each server got, and how much of it is answered.
    got: Vec<(Vec<u8>, usize)>,
    names: UdpSocket,
    asked: Vec<(Vec<u8>, SocketAddr)>,
    questions: usize,
    log: tempfile::NamedTempFile,
    port: u16,
}

impl Stage {
    pub(super) async fn new(spoken: Spoken, broken: Broken) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let listener = listener();
        let port = listener.local_addr().unwrap().port();
        let names = UdpSocket::bind(LOCAL).unwrap();
        names.set_nonblocking(true).unwrap();
        let local = crate::tests::With::default().hosts;
        let gateway = Gateway::new(Config {
            sandbox: "test".parse().unwrap(),
            matcher: matcher(&format!("host_gateway: [{port}]")),
            hosts: local,
            identify: None,
            resolver: ResolverConfig {
                servers: Servers::These(vec![names.local_addr().unwrap()]),
                hosts_file: None,
            },
            host_gateway: HostGateway::Resolved("alias.example".parse().unwrap()),
            inside: None,
            inbound: InboundHosts::new(&"test".parse().unwrap(), Vec::new()),
            upstream_proxy: None,
            ask: None,
            limits: Limits::default(),
            audit: Log::to_file(log.path()).unwrap(),
        })
        .unwrap();
        let at = crate::tests::listener();
        let client = Std::connect(at.local_addr().unwrap()).unwrap();
        at.set_nonblocking(false).unwrap();
        let (door, _) = at.accept().unwrap();
        door.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        leaves_at_once(&client);
        let to = format!("{HOST}:{port}");
        let connect = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        let inside = format!("GET / HTTP/1.1\r\nHost: {to}\r\n\r\n");
        let forward = format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n");
        let (script, answer): (_, &[u8]) = match spoken {
            Spoken::Tunnel => (vec![connect, "ping".into(), "ping".into()], b"pong"),
            Spoken::Early => (vec![connect + "ping", "ping".into()], b"pong"),
            Spoken::Forward => (vec![forward.clone(), forward], ANSWER),
            Spoken::Requests => (vec![connect, inside.clone(), inside], ANSWER),
        };
        Self {
            gateway,
            broken,
            spoken,
            said: 0,
            script: script.into_iter().rev().map(String::into_bytes).collect(),
            answer,
            client,
            door: Some(TcpStream::from_std(door).unwrap()),
            heard: Vec::new(),
            listener,
            servers: Vec::new(),
            got: Vec::new(),
            names,
            asked: Vec::new(),
            questions: 0,
            log,
            port,
        }
    }

    /// The connection, as the proxy port takes it.
    pub(super) fn connection(&mut self) -> Connection {
        let (gateway, door) = (self.gateway.clone(), self.door.take().unwrap());
        let handshake = gateway.handshake().unwrap();
        let work = async move {
            if let Some(asked) = connect::read(&gateway, door, handshake).await {
                flow::carry(&gateway, asked).await;
            }
        };
        Connection {
            work: Some(Box::pin(work)),
            woken: Arc::new(Woken(AtomicBool::new(true))),
        }
    }

    /// Lets the runtime hear what the sockets have to tell, and the resolver's own tasks go on.
    pub(super) async fn settle(&self) {
        for _ in 0..4 {
            yield_now().await;
        }
    }

    /// Takes in what has come to client, servers and name server.
    pub(super) fn look(&mut self) {
        read(&mut self.client, &mut self.heard);
        while let Ok((server, _)) = self.listener.accept() {
            server.set_nonblocking(true).unwrap();
            leaves_at_once(&server);
            self.servers.push(server);
            self.got.push(Default::default());
        }
        for (server, (got, _)) in self.servers.iter_mut().zip(&mut self.got) {
            read(server, got);
        }
        let mut question = [0; 512];
        while let Ok((length, from)) = self.names.recv_from(&mut question) {
            self.asked.push((question[..length].to_vec(), from));
            self.questions += 1;
        }
    }

    pub(super) fn possible(&self) -> impl Iterator<Item = Told> {
        let unanswered = |(got, answered): &(Vec<u8>, usize)| got.len() > *answered;
        let name = (!self.asked.is_empty()).then_some(Told::Name);
        let server = self.got.iter().any(unanswered).then_some(Told::Server);
        let client = self.may_speak().then_some(Told::Client);
        [name, server, client].into_iter().flatten()
    }

    /// Whether the client has heard all that it waits for before it goes on.
    fn may_speak(&self) -> bool {
        let answers = match self.spoken {
            Spoken::Early => count(&self.heard, self.answer),
            _ => count(&self.heard, b"HTTP/1.1 ") + count(&self.heard, b"pong"),
        };
        !self.script.is_empty() && answers >= self.said
    }

    pub(super) async fn tell(&mut self, told: Told) {
        match told {
            Told::Client => {
                let next = self.script.pop().unwrap();
                self.said += 1;
                // Whoever was let go hears of it.
                let _ = self.client.write_all(&next);
            }
            Told::Server => {
                let unanswered = |(got, answered): &mut (Vec<u8>, usize)| got.len() > *answered;
                let at = self.got.iter_mut().position(unanswered).unwrap();
                self.got[at].1 = self.got[at].0.len();
                let _ = self.servers[at].write_all(self.answer);
            }
            Told::Name => {
                let (question, from) = self.asked.remove(0);
                let question = Message::from_vec(&question).unwrap();
                let query = question.queries[0].clone();
                let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
                answer.queries.push(query.clone());
                if query.query_type() == RecordType::A {
                    let data = RData::A(std::net::Ipv4Addr::LOCALHOST.into());
                    answer.add_answer(DnsRecord::from_rdata(query.name().clone(), 60, data));
                }
                self.names.send_to(&answer.to_vec().unwrap(), from).unwrap();
            }
        }
    }

    /// Replaces the policy.
    pub(super) fn replace(&mut self, new: New) {
        let new = match new {
            New::Denies => matcher("host_gateway: [1]"),
            New::Keeps => matcher(&format!("host_gateway: [{}, 1]", self.port)),
        };
        match self.broken {
            Broken::Nothing => self
                .gateway
                .set_policy(new, "policy.yaml", Basis::default()),
            Broken::ForgetsConnections => self.gateway.matcher.store(new),
            Broken::ForgetsNewOnes => {
                let hosts = self.gateway.hosts.load_full();
                self.gateway.sessions.decide_again(&new, &hosts);
            }
        }
    }

    pub(super) fn seen(&self) -> Seen {
        Seen {
            questions: self.questions,
            dials: self.servers.len(),
            up: self.got.iter().map(|(got, _)| got.len()).sum(),
            down: count(&self.heard, self.answer),
        }
    }

    /// Whether nothing came of it from then on.
    pub(super) fn ended_by(&self, then: &Seen, is_over: bool) -> Result<(), String> {
        let now = self.seen();
        if now != *then {
            return Err(format!(
                "{then:?} when the policy was replaced, and {now:?} later"
            ));
        }
        let records = self.records();
        let of = |event: Event, verdict: Option<Verdict>| {
            let is = |record: &&Record| record.event == event && record.verdict == verdict;
            records.iter().filter(is).count()
        };
        let allowed = of(Event::Decision, Some(Verdict::Allow));
        let closed = of(Event::Close, None);
        if allowed != closed {
            return Err(format!(
                "{allowed} connections were allowed, and {closed} closed"
            ));
        }
        // Whoever was refused is let go in peace, and at the proxy may ask for something else.
        let is_refused = count(&self.heard, b"HTTP/1.1 403") > 0;
        match is_over || is_refused || self.spoken == Spoken::Forward || self.said == 0 {
            true => Ok(()),
            false => Err("it goes on".into()),
        }
    }

    /// Whether the connection came to everything that it was made for.
    pub(super) fn went_well(&self, is_over: bool) -> Result<(), String> {
        let answers = count(&self.heard, self.answer);
        if answers != 2 || is_over {
            return Err(format!("{answers} answers, and over: {is_over}"));
        }
        let reasons: Vec<_> = self
            .records()
            .into_iter()
            .filter_map(|record| record.reason)
            .collect();
        match reasons.iter().all(|reason| reason.starts_with("allowed")) {
            true => Ok(()),
            false => Err(format!("{reasons:?}")),
        }
    }

    fn records(&self) -> Vec<Record> {
        let text = std::fs::read_to_string(self.log.path()).unwrap();
        text.lines().map(checked_record).collect()
    }
}

/// A connection under way.
pub(super) struct Connection {
    work: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Connection {
    pub(super) fn is_woken(&self) -> bool {
        !self.is_over() && self.woken.0.load(Ordering::SeqCst)
    }

    pub(super) fn is_over(&self) -> bool {
        self.work.is_none()
    }

    pub(super) fn poll(&mut self) {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.woken.clone());
        let work = self.work.as_mut().unwrap();
        if work
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            self.work = None;
        }
    }
}

fn read(stream: &mut Std, into: &mut Vec<u8>) {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(read) => into.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Makes its end a reset, after which the system has nothing to remember: there are a great many.
fn leaves_at_once(stream: &Std) {
    rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO)).unwrap();
}

fn count(bytes: &[u8], word: &[u8]) -> usize {
    bytes
        .windows(word.len())
        .filter(|window| *window == word)
        .count()
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
