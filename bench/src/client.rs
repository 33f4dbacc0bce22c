//! The generator of load.
//!
//! It is a process of its own, since for Egret it has to be inside a sandbox. It reads scenarios from standard input, one
//! a line, and for each prints a line when counting begins and a line with the result when it has ended, so that whoever
//! watches the measured process knows which time counts.

use std::cell::Cell;
use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::stats::percentile;

/// How a connection to a target is made.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Via {
    /// By connecting to the target itself.
    Nothing,
    /// By connecting to this address instead, which leads there by itself.
    Relay(SocketAddr),
    /// By asking this HTTP proxy with `CONNECT`.
    Proxy(SocketAddr),
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Scenario {
    /// Open a connection, send 64 bytes, get them back, close; `at_once` of these at a time. Targets take turns.
    Tunnels {
        via: Via,
        targets: Vec<String>,
        at_once: usize,
        seconds: f64,
    },
    /// Move bytes over some connections at once, to the target or from it.
    Stream {
        via: Via,
        target: String,
        tunnels: usize,
        up: bool,
        seconds: f64,
    },
    /// Ask for something that is refused, on a new connection each time.
    Refusals {
        via: Via,
        target: String,
        at_once: usize,
        seconds: f64,
    },
    /// Send requests for absolute URIs on connections that stay open.
    Requests {
        proxy: SocketAddr,
        host: String,
        at_once: usize,
        seconds: f64,
    },
    /// Open connections, use each once, and keep them.
    Keep {
        via: Via,
        target: String,
        tunnels: usize,
    },
    /// Open a connection to each of these names once: `n0.` and the ending, `n1.`, and so on.
    Names {
        via: Via,
        ending: String,
        port: u16,
        from: usize,
        to: usize,
    },
    /// Close the connections that were kept.
    LetGo,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Connections, requests or bytes.
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
    /// In microseconds, of what was done; 0 where it was bytes.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// What is printed when counting begins.
pub(crate) const BEGIN: &str = "begin";

/// Says what the proxy here is, if there is one, and then does what standard input says, until that ends.
pub(crate) fn obey() -> Result<(), Error> {
    let runtime = runtime()?;
    say(&format!(
        "ready {}",
        std::env::var("HTTP_PROXY").unwrap_or_default()
    ))?;
    let mut kept = Vec::new();
    for line in io::stdin().lock().lines() {
        let scenario = serde_json::from_str(&line?)?;
        let local = LocalSet::new();
        let outcome = local.block_on(&runtime, play(scenario, &mut kept))?;
        say(&serde_json::to_string(&outcome)?)?;
        // What is under way comes to its end before the next scenario.
        runtime.block_on(local);
    }
    Ok(())
}

/// The runtime of everything here: one thread, as every subject has.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

async fn play(scenario: Scenario, kept: &mut Vec<TcpStream>) -> Result<Outcome, Error> {
    match scenario {
        Scenario::Tunnels {
            via,
            targets,
            at_once,
            seconds,
        } => {
            let mut known = Vec::new();
            for target in targets {
                known.push(looked_up(via, target).await?);
            }
            // Each worker goes round by itself: the ports of one target would be used up, for a minute each.
            let known: Rc<[String]> = known.into();
            let workers = (0..at_once).map(|number| {
                let (known, turn) = (known.clone(), Cell::new(number));
                move || {
                    let known = known.clone();
                    let turn = turn.replace(turn.get() + 1);
                    async move {
                        let target = known.iter().cycle().nth(turn % known.len());
                        let target = target.ok_or(io::ErrorKind::NotFound)?;
                        tunnel(via, target).await.map(|_| 1)
                    }
                }
            });
            counted(workers, seconds).await
        }
        Scenario::Refusals {
            via,
            target,
            at_once,
            seconds,
        } => {
            let workers = (0..at_once).map(|_| {
                let target = target.clone();
                move || {
                    let target = target.clone();
                    async move { refusal(via, &target).await.map(|()| 1) }
                }
            });
            counted(workers, seconds).await
        }
        Scenario::Requests {
            proxy,
            host,
            at_once,
            seconds,
        } => {
            let request: Rc<str> =
                format!("GET http://{host}/some/path?and=query HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n").into();
            let mut workers = Vec::new();
            for _ in 0..at_once {
                let kept = Rc::new(tokio::sync::Mutex::new(None));
                let request = request.clone();
                workers.push(move || {
                    let (kept, request) = (kept.clone(), request.clone());
                    async move {
                        let kept = &mut *kept.lock().await;
                        if let Some(stream) = kept
                            && exchange(stream, &request).await.is_ok()
                        {
                            return Ok(1);
                        }
                        // Not every proxy keeps its connections.
                        let stream = kept.insert(connect(proxy).await?);
                        exchange(stream, &request).await.map(|()| 1)
                    }
                });
            }
            counted(workers, seconds).await
        }
        Scenario::Stream {
            via,
            target,
            tunnels,
            up,
            seconds,
        } => {
            let mut workers = Vec::new();
            for _ in 0..tunnels {
                let mut stream = open(via, &target).await?;
                stream.write_all(&PAYLOAD).await?;
                let state = Rc::new(tokio::sync::Mutex::new((stream, vec![0; 256 << 10])));
                workers.push(move || {
                    let state = state.clone();
                    async move {
                        let (stream, buffer) = &mut *state.lock().await;
                        let moved = match up {
                            true => stream.write(buffer).await?,
                            false => stream.read(buffer).await?,
                        };
                        match moved {
                            0 => Err(io::ErrorKind::UnexpectedEof.into()),
                            moved => Ok(moved as u64),
                        }
                    }
                });
            }
            counted(workers, seconds).await
        }
        Scenario::Keep {
            via,
            target,
            tunnels,
        } => {
            for _ in 0..tunnels {
                kept.push(tunnel(via, &target).await?);
            }
            Ok(Outcome {
                done: tunnels as u64,
                ..Outcome::default()
            })
        }
        Scenario::Names {
            via,
            ending,
            port,
            from,
            to,
        } => {
            for number in from..to {
                tunnel(via, &format!("n{number}.{ending}:{port}")).await?;
            }
            Ok(Outcome {
                done: (to - from) as u64,
                ..Outcome::default()
            })
        }
        Scenario::LetGo => {
            kept.clear();
            Ok(Outcome::default())
        }
    }
}

/// Runs workers side by side, each doing its thing again and again, and counts what they do in that time. They warm up
/// first.
async fn counted<W, F>(workers: impl IntoIterator<Item = W>, seconds: f64) -> Result<Outcome, Error>
where
    W: Fn() -> F + 'static,
    F: Future<Output = io::Result<u64>>,
{
    #[derive(Default)]
    struct Tally {
        done: Cell<u64>,
        failed: Cell<u64>,
        over: Cell<bool>,
        took: Cell<Vec<f64>>,
    }
    let tally = Rc::new(Tally::default());
    for work in workers {
        let tally = tally.clone();
        tokio::task::spawn_local(async move {
            while !tally.over.get() {
                let since = Instant::now();
                match timeout(PATIENCE, work()).await {
                    Ok(Ok(done)) => {
                        tally.done.set(tally.done.get() + done);
                        let mut took = tally.took.take();
                        took.push(since.elapsed().as_secs_f64() * 1e6);
                        tally.took.set(took);
                    }
                    Ok(Err(_)) | Err(_) => {
                        tally.failed.set(tally.failed.get() + 1);
                        // A subject that is down is not asked a million times.
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            }
        });
    }
    sleep(WARM_UP).await;
    tally.took.take();
    let (before, failed) = (tally.done.get(), tally.failed.get());
    let since = Instant::now();
    say(BEGIN)?;
    sleep(Duration::from_secs_f64(seconds)).await;
    let lasted = since.elapsed();
    tally.over.set(true);
    let mut took = tally.took.take();
    took.sort_by(f64::total_cmp);
    Ok(Outcome {
        done: tally.done.get() - before,
        failed: tally.failed.get() - failed,
        seconds: lasted.as_secs_f64(),
        p50: percentile(&took, 0.5),
        p99: percentile(&took, 0.99),
    })
}

/// Opens a connection to an echo server and uses it once.
async fn tunnel(via: Via, target: &str) -> io::Result<TcpStream> {
    let mut stream = open(via, target).await?;
    stream.write_all(&PAYLOAD).await?;
    let mut echo = [0; PAYLOAD.len()];
    stream.read_exact(&mut echo).await?;
    match echo == PAYLOAD {
        true => Ok(stream),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What is connected to for a target. Who asks a proxy leaves names to it, and who does not looks each up once, as programs
/// do that connect often.
async fn looked_up(via: Via, target: String) -> io::Result<String> {
    match via {
        Via::Relay(_) | Via::Proxy(_) => Ok(target),
        Via::Nothing => {
            let mut found = lookup_host(&target).await?;
            let first = found.next().ok_or(io::ErrorKind::NotFound)?;
            Ok(first.to_string())
        }
    }
}

async fn open(via: Via, target: &str) -> io::Result<TcpStream> {
    let proxy = match via {
        Via::Nothing => {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            return Ok(stream);
        }
        Via::Relay(relay) => return connect(relay).await,
        Via::Proxy(proxy) => proxy,
    };
    let mut stream = connect(proxy).await?;
    let (status, _) = ask(&mut stream, target).await?;
    match status {
        200 => Ok(stream),
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

/// Asks for a target that is not allowed, until the proxy has said so; where there is no proxy to say it, until the
/// connection is reset.
async fn refusal(via: Via, target: &str) -> io::Result<()> {
    let refused = match via {
        Via::Proxy(proxy) => ask(&mut connect(proxy).await?, target).await?.0 == 403,
        Via::Relay(_) | Via::Nothing => {
            let mut stream = open(via, target).await?;
            stream.write_all(&PAYLOAD).await?;
            stream.read(&mut [0; 1]).await.is_err()
        }
    };
    match refused {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn ask(stream: &mut TcpStream, target: &str) -> io::Result<(u16, usize)> {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    head(stream).await
}

/// Sends a request and reads its whole answer.
async fn exchange(stream: &mut TcpStream, request: &str) -> io::Result<()> {
    stream.write_all(request.as_bytes()).await?;
    let (status, body) = head(stream).await?;
    if status != 200 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut rest = BODY.saturating_sub(body);
    let mut buffer = [0; BODY];
    while rest > 0 {
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => rest = rest.saturating_sub(read),
        }
    }
    Ok(())
}

/// Reads the head of an answer: its status, and how many bytes came behind it.
async fn head(stream: &mut TcpStream) -> io::Result<(u16, usize)> {
    let mut buffer = [0; 4096];
    let mut read = 0;
    loop {
        match stream
            .read(buffer.get_mut(read..).unwrap_or_default())
            .await?
        {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let status = bytes
                .get(9..12)
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            return Ok((status.ok_or(io::ErrorKind::InvalidData)?, read - end - 4));
        }
    }
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One line of something that is neither HTTP nor TLS.
const PAYLOAD: [u8; 64] = *b"220 a line that is 64 bytes long, and that no proxy has to read\n";
/// The length of the body that the HTTP server sends.
const BODY: usize = 64;
/// How long one thing may take before it has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long there is load before it is counted.
const WARM_UP: Duration = Duration::from_millis(100);
