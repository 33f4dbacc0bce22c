//! The gateway on real sockets, all of them on loopback.
//!
//! Loopback can be reached through the host gateway only, so that is what the test policies open:
//! `host.docker.internal` stands for 127.0.0.1 here. Names that have to resolve are asked of a stub server.

mod activity;
mod asking;
mod captured;
mod connect;
mod dns;
mod forward;
mod host_gateway;
mod identify;
mod log;
mod published;
mod reload;
mod requests;
mod resolving;
mod rotation;
mod serving;
mod socks;
mod spoken;
mod swap;
mod traffic;

pub(crate) use spoken::client_hello;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use egret_policy::{HostAddresses, Matcher, Policy};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record as DnsRecord, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::audit::{Basis, Door, Event, Log, Record, Verdict};
use crate::{
    Config, Doors, Gateway, HostGateway, Identify, InboundHosts, Inside, Limits, Published,
    ResolverConfig, Servers, UpstreamProxy,
};

pub(crate) const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
pub(crate) const HOST: &str = "host.docker.internal";

/// A gateway at work.
pub(crate) struct World {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) proxy: SocketAddr,
    pub(crate) captured: SocketAddr,
    pub(crate) dns: SocketAddr,
    log: PathBuf,
    _dir: tempfile::TempDir,
    _serving: JoinHandle<std::io::Result<()>>,
}

/// What a gateway may be started with, apart from the policy.
pub(crate) struct With {
    pub(crate) limits: Limits,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) hosts_file: Option<PathBuf>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) file: Option<std::fs::File>,
    pub(crate) upstream_proxy: Option<UpstreamProxy>,
    pub(crate) ask: Option<Duration>,
    pub(crate) identify: Option<Identify>,
    pub(crate) hosts: HostAddresses,
    pub(crate) host_gateway: HostGateway,
    pub(crate) inside: Option<Inside>,
    pub(crate) inbound: InboundHosts,
    pub(crate) published: Vec<Published>,
}

impl Default for With {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            servers: vec!["127.0.0.1:1".parse().unwrap()],
            hosts_file: None,
            log: None,
            file: None,
            upstream_proxy: None,
            ask: None,
            identify: None,
            hosts: HostAddresses::new([]).with_gateway(vec![Ipv4Addr::LOCALHOST.into()]),
            host_gateway: HostGateway::Known,
            inside: None,
            inbound: InboundHosts::new(&"test".parse().unwrap(), Vec::new()),
            published: Vec::new(),
        }
    }
}

impl World {
    /// A gateway whose policy has these lines after `version: 1`.
    pub(crate) async fn new(policy: &str) -> Self {
        Self::with(policy, With::default()).await
    }

    /// One that opens the host gateway on `port`.
    pub(crate) async fn open_to(port: u16) -> Self {
        Self::new(&format!("allow: ['{HOST}:{port}']")).await
    }

    pub(crate) async fn with(policy: &str, with: With) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = with.log.unwrap_or_else(|| dir.path().join("audit.jsonl"));
        let gateway = Gateway::new(Config {
            sandbox: "test".parse().unwrap(),
            matcher: matcher(policy),
            hosts: with.hosts,
            host_gateway: with.host_gateway,
            identify: with.identify,
            resolver: ResolverConfig {
                servers: Servers::These(with.servers),
                hosts_file: with.hosts_file,
            },
            inside: with.inside,
            inbound: with.inbound,
            upstream_proxy: with.upstream_proxy,
            ask: with.ask,
            limits: with.limits,
            audit: match with.file {
                Some(file) => Log::from_file(file).unwrap(),
                None => Log::to_file(&log).unwrap(),
            },
        })
        .unwrap();
        let (captured, proxy) = (listener(), listener());
        // The same port for both, which another test may have got for one of them.
        let (dns, dns_tcp, dns_udp) = loop {
            let dns_tcp = listener();
            let dns = dns_tcp.local_addr().unwrap();
            if let Ok(dns_udp) = std::net::UdpSocket::bind(dns) {
                break (dns, dns_tcp, dns_udp);
            }
        };
        dns_udp.set_nonblocking(true).unwrap();
        let (captured_at, proxy_at) = (captured.local_addr().unwrap(), proxy.local_addr().unwrap());
        let doors = Doors {
            captured: vec![captured],
            proxy: vec![proxy],
            dns_tcp: vec![dns_tcp],
            dns_udp: vec![dns_udp],
            published: with.published,
        };
        let serving = tokio::spawn(gateway.clone().serve(doors));
        Self {
            gateway,
            proxy: proxy_at,
            captured: captured_at,
            dns,
            log,
            _dir: dir,
            _serving: serving,
        }
    }

    /// Everything on record. Each record is held against the schema.
    pub(crate) fn records(&self) -> Vec<Record> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines().map(checked_record).collect()
    }

    /// The first record that satisfies `wanted`, waiting for it a little.
    pub(crate) async fn record(&self, wanted: impl Fn(&Record) -> bool) -> Record {
        for _ in 0..250 {
            if let Some(found) = self.records().into_iter().find(&wanted) {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("no such record among {:#?}", self.records());
    }

    pub(crate) async fn decision(&self, reason: &str) -> Record {
        self.record(|record| {
            record.event == Event::Decision && record.reason.as_deref() == Some(reason)
        })
        .await
    }

    pub(crate) async fn close(&self) -> Record {
        self.record(|record| record.event == Event::Close).await
    }

    /// Sends `head` to the proxy port and reads one response.
    pub(crate) async fn ask(&self, head: &str) -> (Answer, TcpStream) {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream, false).await;
        (answer, stream)
    }

    /// A tunnel to `destination`, which has to be granted.
    pub(crate) async fn tunnel(&self, destination: &str) -> TcpStream {
        let (answer, stream) = self
            .ask(&format!(
                "CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        stream
    }
}

pub(crate) fn matcher(policy: &str) -> Arc<Matcher> {
    let text = format!("version: 1\n{policy}\n");
    let parsed =
        Policy::parse("policy.yaml", text.as_bytes()).unwrap_or_else(|errors| panic!("{errors}"));
    Arc::new(parsed.policy.compile())
}

pub(crate) fn listener() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind(LOCAL).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn checked_record(line: &str) -> Record {
    static SCHEMA: LazyLock<(serde_json::Value, jsonschema::Validator)> = LazyLock::new(|| {
        let schema =
            serde_json::from_str(include_str!("../../../../docs/audit.schema.json")).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        (schema, validator)
    });
    assert!(
        line.chars().all(|character| !character.is_control()),
        "{line:?}"
    );
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    if let Err(error) = SCHEMA.1.validate(&value) {
        panic!("{line} does not follow the schema: {error}");
    }
    for field in value.as_object().unwrap().keys() {
        assert!(
            SCHEMA.0["properties"].get(field).is_some(),
            "the schema does not know `{field}`"
        );
    }
    serde_json::from_value(value).unwrap()
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads a response with a `content-length`, or with no body.
    pub(crate) async fn read(stream: &mut TcpStream, to_head: bool) -> Self {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let read = in_time(stream.read_buf(&mut bytes)).await.unwrap();
            assert_ne!(
                read,
                0,
                "ended within the head: {:?}",
                String::from_utf8_lossy(&bytes)
            );
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut body = bytes[end..].to_vec();
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        while !to_head && body.len() < length {
            assert_ne!(
                in_time(stream.read_buf(&mut body)).await.unwrap(),
                0,
                "ended within the body"
            );
        }
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body,
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The reason of a refusal, which the header and the body have to agree on.
    pub(crate) fn reason(&self) -> String {
        let reason = self
            .field("x-egret-reason")
            .unwrap_or_else(|| panic!("not a refusal: {self:?}"));
        assert_eq!(self.json()["reason"], reason.as_str());
        reason
    }
}

fn field(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (other, value) = line.split_once(':')?;
        other
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), work)
        .await
        .expect("took too long")
}

/// What a connection has to say until it ends, and whether it ended in a reset.
pub(crate) async fn until_end(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let reset = in_time(stream.read_to_end(&mut bytes)).await.is_err();
    (bytes, reset)
}

/// A server that gives each connection to `serve`.
pub(crate) async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(LOCAL).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// A server that sends back what it gets and ends when the client does.
pub(crate) async fn echo() -> u16 {
    server(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// A server that keeps what it gets, all connections together.
pub(crate) async fn sink() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = got.clone();
    let port = server(move |mut stream| {
        let kept = kept.clone();
        async move {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                kept.lock().unwrap().extend_from_slice(&chunk[..read]);
            }
        }
    })
    .await;
    (port, got)
}

/// An HTTP server that answers each request with the request itself, head and body, and keeps all of them.
pub(crate) async fn mirror() -> (u16, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let port = server(move |mut stream| {
        let kept = kept.clone();
        async move {
            let mut bytes = Vec::new();
            loop {
                while let Some(end) = bytes
                    .windows(4)
                    .position(|window| window == b"\r\n\r\n")
                    .map(|at| at + 4)
                {
                    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                    let length =
                        field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
                    if bytes.len() < end + length {
                        break;
                    }
                    let request: Vec<u8> = bytes.drain(..end + length).collect();
                    kept.lock()
                        .unwrap()
                        .push(String::from_utf8_lossy(&request).into_owned());
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                        request.len()
                    );
                    let body = if head.starts_with("HEAD ") {
                        &[][..]
                    } else {
                        &request[..]
                    };
                    if stream
                        .write_all(&[answer.as_bytes(), body].concat())
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                    return;
                }
            }
        }
    })
    .await;
    (port, seen)
}

/// A DNS server that knows a few names.
pub(crate) struct StubDns {
    pub(crate) address: SocketAddr,
    pub(crate) records: Arc<Mutex<HashMap<String, Vec<DnsRecord>>>>,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// Whether it answers that it cannot tell.
    pub(crate) fails: Arc<AtomicBool>,
}

impl StubDns {
    pub(crate) async fn new() -> Self {
        let socket = UdpSocket::bind(LOCAL).await.unwrap();
        let address = socket.local_addr().unwrap();
        let records: Arc<Mutex<HashMap<String, Vec<DnsRecord>>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let fails: Arc<AtomicBool> = Arc::default();
        let (known, questions, failing) = (records.clone(), asked.clone(), fails.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let query = question.queries[0].clone();
                let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
                answer.queries = question.queries.clone();
                answer.metadata.recursion_available = true;
                let mut name = query.name().to_ascii().to_lowercase();
                questions
                    .lock()
                    .unwrap()
                    .push(format!("{name} {}", query.query_type()));
                let known = known.lock().unwrap().clone();
                if failing.load(Ordering::Relaxed) {
                    answer.metadata.response_code = ResponseCode::ServFail;
                } else if !known.contains_key(&name) {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                while let Some(found) = known.get(&name) {
                    let alias = found.iter().find_map(|record| match &record.data {
                        RData::CNAME(target) => Some(target.0.to_ascii()),
                        _ => None,
                    });
                    for record in found {
                        let kind = record.record_type();
                        if kind == query.query_type() || kind == RecordType::CNAME {
                            answer.add_answer(record.clone());
                        }
                    }
                    match alias {
                        Some(alias) => name = alias,
                        None => break,
                    }
                }
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        Self {
            address,
            records,
            asked,
            fails,
        }
    }

    /// Gives `name` these addresses.
    pub(crate) fn set(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let owner: Name = format!("{name}.").parse().unwrap();
        let records = addresses.iter().map(|address| {
            let data = match address.parse::<IpAddr>().unwrap() {
                IpAddr::V4(v4) => RData::A(v4.into()),
                IpAddr::V6(v6) => RData::AAAA(v6.into()),
            };
            DnsRecord::from_rdata(owner.clone(), ttl, data)
        });
        self.records
            .lock()
            .unwrap()
            .insert(format!("{name}."), records.collect());
    }

    /// Makes `name` another name for `target`.
    pub(crate) fn alias(&self, name: &str, target: &str) {
        let owner: Name = format!("{name}.").parse().unwrap();
        let target: Name = format!("{target}.").parse().unwrap();
        let record = DnsRecord::from_rdata(
            owner,
            60,
            RData::CNAME(hickory_proto::rr::rdata::CNAME(target)),
        );
        self.records
            .lock()
            .unwrap()
            .insert(format!("{name}."), vec![record]);
    }
}
