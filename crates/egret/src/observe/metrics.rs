//! `--metrics`: what is counted, for Prometheus and its kin, over HTTP at a socket of this machine.
//!
//! Only this machine can connect: the address is loopback, or a unix socket of the user's own. How many are answered at once is
//! bounded, and so is how long each may take.

use super::totals::{BOUNDS, Durations, Labels, Metric, Points};
use crate::failure::Failure;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Where metrics are to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Unix(PathBuf),
    Loopback(SocketAddr),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(address) => Err(format!(
                "{} is not loopback, and who can connect there is not only this machine; write 127.0.0.1:{}",
                address.ip(),
                address.port()
            )),
            Err(_) => Err("write unix:PATH, 127.0.0.1:PORT or [::1]:PORT".to_owned()),
        }
    }
}

/// A socket at which metrics will be told.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(std::os::unix::net::UnixListener, Bound),
    Loopback(std::net::TcpListener),
}

/// A socket's path, which is removed with it.
#[derive(Debug)]
pub(super) struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let (Ok(()) | Err(_)) = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// The path of the socket, if it has one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(_, Bound(path)) => Some(path),
            Self::Loopback(_) => None,
        }
    }

    /// Takes a place, and says which it is if it was not said.
    pub(super) fn bind(place: &Place) -> Result<Self, Failure> {
        let failed = |error: io::Error| match place {
            Place::Unix(path) => Failure::because(
                format_args!("cannot tell metrics at {}", path.display()),
                &error,
            ),
            Place::Loopback(address) => {
                Failure::because(format_args!("cannot tell metrics at {address}"), &error)
            }
        };
        match place {
            Place::Unix(path) => bind_unix(path).map_err(failed),
            Place::Loopback(address) => {
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                if address.port() == 0 {
                    let address = listener.local_addr().map_err(failed)?;
                    say!("egret: metrics are at http://{address}/metrics");
                }
                Ok(Self::Loopback(listener))
            }
        }
    }

    /// Answers whoever comes, for as long as it is polled.
    pub(super) async fn serve(
        self,
        told: impl Fn() -> Vec<Metric> + Send + Sync + 'static,
    ) -> io::Error {
        let registry = registry(Arc::new(told));
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let listening = async {
            match self {
                Self::Unix(listener, path) => {
                    let listener = tokio::net::UnixListener::from_std(listener)?;
                    // Until the end.
                    let _path = path;
                    loop {
                        let stream = listener.accept().await.map(|(stream, _)| stream);
                        answer(stream, &turns, &registry, false).await;
                    }
                }
                Self::Loopback(listener) => {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    loop {
                        let stream = listener.accept().await.map(|(stream, _)| stream);
                        answer(stream, &turns, &registry, true).await;
                    }
                }
            }
        };
        let ended: io::Result<std::convert::Infallible> = listening.await;
        match ended {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    // The kernel lists it by the path that it was given, and by that list it is hidden from programs.
    let path = &std::path::absolute(path)?;
    // What a process that was killed has left. Nothing else is removed.
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    let path = Bound(path.canonicalize()?);
    std::fs::set_permissions(&path.0, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(listener, path))
}

/// Answers one client, beside the others.
async fn answer(
    stream: io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    turns: &Arc<Semaphore>,
    registry: &Arc<Registry>,
    by_network: bool,
) {
    let Ok(stream) = stream else {
        // Out of descriptors, most likely; the next one may have more luck.
        return sleep(Duration::from_millis(100)).await;
    };
    let Ok(turn) = turns.clone().acquire_owned().await else {
        return;
    };
    let registry = registry.clone();
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let response = respond(&request, &registry, by_network);
            async { Ok::<_, std::convert::Infallible>(response) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        let connection = server
            .max_buf_size(16 << 10)
            .serve_connection(TokioIo::new(stream), service);
        // Whoever breaks off, or dawdles, has had their chance.
        let (Ok(_) | Err(_)) = timeout(PATIENCE, connection).await;
        drop(turn);
    });
}

fn respond(
    request: &Request<Incoming>,
    registry: &Registry,
    by_network: bool,
) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    // A web page can have its own name mean this machine, but not call it localhost.
    if by_network && !request.headers().get(HOST).is_some_and(is_local) {
        return plain(
            StatusCode::FORBIDDEN,
            "the Host has to be localhost or a loopback address\n",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "see /metrics\n");
    }
    let mut text = String::new();
    match text::encode(&mut text, registry) {
        Ok(()) => {
            let mut response = Response::new(Full::from(text));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            response
        }
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics cannot be written\n",
        ),
    }
}

fn is_local(host: &HeaderValue) -> bool {
    let Ok(authority) = host
        .to_str()
        .unwrap_or_default()
        .parse::<hyper::http::uri::Authority>()
    else {
        return false;
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How many are answered at once.
const AT_ONCE: usize = 4;
/// How long a client may take over all that it asks.
const PATIENCE: Duration = Duration::from_secs(10);

fn registry(told: Arc<dyn Fn() -> Vec<Metric> + Send + Sync>) -> Arc<Registry> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Told(told)));
    Arc::new(registry)
}

/// The metrics, asked for anew each time.
struct Told(Arc<dyn Fn() -> Vec<Metric> + Send + Sync>);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric {
            name, help, points, ..
        } in (self.0)()
        {
            let kind = match points {
                Points::Counter(_) => MetricType::Counter,
                Points::Gauge(_) => MetricType::Gauge,
                Points::Histogram(_) => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            match points {
                Points::Counter(points) => {
                    for (labels, value) in points {
                        with(&mut metric, &labels, |metric| {
                            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
                        })?;
                    }
                }
                Points::Gauge(points) => {
                    for (labels, value) in points {
                        with(&mut metric, &labels, |metric| metric.encode_gauge(&value))?;
                    }
                }
                Points::Histogram(points) => {
                    for (labels, durations) in points {
                        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
                        let buckets: Vec<_> = bounds.zip(durations.buckets).collect();
                        let Durations { sum, count, .. } = durations;
                        with(&mut metric, &labels, |metric| {
                            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Writes a value with its labels; without any it has no braces, which some readers insist on.
fn with(
    metric: &mut MetricEncoder<'_>,
    labels: &Labels,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    match labels.is_empty() {
        true => write(metric),
        false => write(&mut metric.encode_family(&labels)?),
    }
}
