//! The servers of the world: what a test's clients talk to, and what remembers that they did.
//!
//! A [`Server`] keeps every byte it got (up to a bound), so a test can ask for what must *not* have arrived.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use rcgen::{Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};

use super::machine::Machine;

/// A server that runs until it is dropped.
pub(crate) struct Server {
    seen: Arc<Seen>,
    _listening: Listening,
}

/// How a server behaves.
#[derive(Clone)]
pub(crate) enum Service {
    /// Takes everything and says nothing.
    Sink,
    /// Sends back what it gets.
    Echo,
    /// Speaks first, as SSH, SMTP and MySQL do, then echoes.
    Greeting(&'static [u8]),
    /// HTTP/1.1; see [`respond`] for its pages.
    Http,
    /// The same under TLS, with a certificate of the test's authority for these names.
    Https(&'static [&'static str]),
}

/// What arrived.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    bytes: Mutex<Vec<u8>>,
    requests: Mutex<Vec<Request>>,
}

/// An HTTP request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: usize,
}

impl Server {
    /// Starts a server on `machine`.
    #[track_caller]
    pub(crate) fn start(machine: &Machine, address: SocketAddr, service: Service) -> Server {
        let seen = Arc::new(Seen::default());
        let held = Arc::clone(&seen);
        let tls = if let Service::Https(names) = &service {
            Some(AUTHORITY.server(names))
        } else {
            None
        };
        let listening = Listening::on(machine.listen(address), move |stream| {
            held.connections.fetch_add(1, Ordering::SeqCst);
            let _ = stream.set_nodelay(true);
            match &service {
                Service::Sink => held.drain(stream, false),
                Service::Echo => held.drain(stream, true),
                Service::Greeting(words) => {
                    if (&stream).write_all(words).is_ok() {
                        held.drain(stream, true);
                    }
                }
                Service::Http => held.http(stream),
                Service::Https(_) => {
                    let connection = ServerConnection::new(tls.clone().unwrap()).unwrap();
                    held.http(StreamOwned::new(connection, stream));
                }
            }
        });
        Server {
            seen,
            _listening: listening,
        }
    }

    /// How often somebody connected.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The bytes of all connections, without those of HTTP requests.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.seen.bytes.lock().unwrap().clone()
    }

    /// The HTTP requests that arrived.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }
}

impl Request {
    /// The value of a header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Seen {
    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.bytes.lock().unwrap();
        let room = MOST.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
    }

    fn drain(&self, mut stream: TcpStream, echo: bool) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    self.keep(&buffer[..length]);
                    if echo && stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
    }

    fn http(&self, stream: impl Read + Write) {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read_request(&mut stream) {
            self.requests.lock().unwrap().push(request.clone());
            let stay = respond(&request, &mut stream);
            if !matches!(stay, Ok(true)) || request.header("connection") == Some("close") {
                break;
            }
        }
        let _ = stream.get_mut().flush();
    }
}

/// Answers one request. Says whether the connection may carry another one.
///
/// | path | answer |
/// |---|---|
/// | `/bytes/N` | N bytes of [`PATTERN`] |
/// | `/chunked` | three chunks |
/// | `/events/N/MS` | N server-sent events, MS milliseconds apart |
/// | `/status/N` | that status |
/// | `/to/URL` | a redirect there |
/// | `/socket` | a WebSocket that sends back whatever octets it gets |
/// | else | a line with the method, the path, the Host and the length of the body |
fn respond<S: Read + Write>(request: &Request, stream: &mut BufReader<S>) -> std::io::Result<bool> {
    let target = request.target.as_str();
    let path = target
        .strip_prefix("http://")
        .map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let parts: Vec<_> = path.trim_start_matches('/').splitn(2, '/').collect();
    let argument = parts.get(1).copied().unwrap_or_default();
    let stream_out =
        |stream: &mut BufReader<S>, head: String| stream.get_mut().write_all(head.as_bytes());
    match parts[0] {
        "bytes" => {
            let length: u64 = argument.parse().unwrap();
            stream_out(
                stream,
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"),
            )?;
            for piece in pattern(length) {
                stream.get_mut().write_all(piece)?;
            }
        }
        "chunked" => {
            stream_out(
                stream,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            )?;
            for chunk in ["one ", "two ", "three\n"] {
                stream_out(stream, format!("{:x}\r\n{chunk}\r\n", chunk.len()))?;
                stream.get_mut().flush()?;
            }
            stream_out(stream, "0\r\n\r\n".into())?;
        }
        "events" => {
            let (count, pause) = argument.split_once('/').unwrap();
            stream_out(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".into(),
            )?;
            for event in 0..count.parse::<u32>().unwrap() {
                if event > 0 {
                    std::thread::sleep(Duration::from_millis(pause.parse().unwrap()));
                }
                stream_out(stream, format!("data: event {event}\n\n"))?;
                stream.get_mut().flush()?;
            }
            return Ok(false);
        }
        "status" => stream_out(
            stream,
            format!("HTTP/1.1 {argument} As Asked\r\nContent-Length: 0\r\n\r\n"),
        )?,
        "to" => stream_out(
            stream,
            format!("HTTP/1.1 302 Found\r\nLocation: {argument}\r\nContent-Length: 0\r\n\r\n"),
        )?,
        "socket" => {
            // The answer to the key of the example in RFC 6455, section 1.3, which is the one that tests send.
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            stream_out(stream, head.into())?;
            loop {
                let waiting = stream.fill_buf()?.to_vec();
                if waiting.is_empty() {
                    return Ok(false);
                }
                stream.consume(waiting.len());
                stream.get_mut().write_all(&waiting)?;
                stream.get_mut().flush()?;
            }
        }
        _ => {
            let host = request.header("host").unwrap_or("nobody");
            let body = format!(
                "{} {path} for {host}, {} bytes\n",
                request.method, request.body
            );
            let length = body.len();
            let body = if request.method == "HEAD" { "" } else { &body };
            stream_out(
                stream,
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"),
            )?;
        }
    }
    stream.get_mut().flush()?;
    Ok(true)
}

fn read_request<S: Read>(stream: &mut BufReader<S>) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        (stream.read_line(&mut line).ok()? > 0)
            .then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        method,
        target,
        headers,
        body: 0,
    };
    if let Some(length) = request
        .header("content-length")
        .and_then(|length| length.parse::<u64>().ok())
    {
        request.body =
            usize::try_from(std::io::copy(&mut stream.take(length), &mut std::io::sink()).ok()?)
                .ok()?;
    } else if request.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).ok()?;
            let size = u64::from_str_radix(size.trim(), 16).ok()?;
            std::io::copy(&mut stream.take(size + 2), &mut std::io::sink()).ok()?;
            request.body += usize::try_from(size).ok()?;
            if size == 0 {
                break;
            }
        }
    }
    Some(request)
}

/// The first `length` bytes of [`PATTERN`], over and over, in pieces.
fn pattern(length: u64) -> impl Iterator<Item = &'static [u8]> {
    let block = PATTERN.as_slice();
    let whole = length / block.len() as u64;
    let rest = usize::try_from(length % block.len() as u64).unwrap();
    (0..whole)
        .map(move |_| block)
        .chain(std::iter::once(&block[..rest]))
}

/// The SHA-256 of what `/bytes/N` sends, in hex.
pub(crate) fn pattern_digest(length: u64) -> String {
    let mut digest = Sha256::new();
    for piece in pattern(length) {
        digest.update(piece);
    }
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A mebibyte of numbers that do not compress or repeat.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..(1 << 17)).flat_map(|_| next()).collect()
});

/// A listening socket with a thread that accepts from it until this is dropped.
pub(crate) struct Listening(TcpListener);

impl Listening {
    /// Handles each connection on a thread of its own.
    pub(crate) fn on(
        listener: TcpListener,
        handle: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Listening {
        let accepting = listener.try_clone().unwrap();
        let handle = Arc::new(handle);
        std::thread::spawn(move || {
            // `incoming` never ends by itself; after the shutdown below, every accept fails.
            while let Ok((stream, _)) = accepting.accept() {
                let handle = Arc::clone(&handle);
                std::thread::spawn(move || handle(stream));
            }
        });
        Listening(listener)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = nix::sys::socket::shutdown(self.0.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

/// The certificate authority that the test's clients are told to trust.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

pub(crate) static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Authority of Egret's tests");
    Authority {
        issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
    }
});

impl Authority {
    /// Its certificate in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for these names and its key, in PEM.
    pub(crate) fn identity(&self, names: &[&str]) -> String {
        let (certificate, key) = self.sign(names);
        certificate.pem() + &key.serialize_pem()
    }

    fn sign(&self, names: &[&str]) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        (certificate, key)
    }

    fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let (certificate, key) = self.sign(names);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

/// How much a server remembers.
const MOST: usize = 8 << 20;
