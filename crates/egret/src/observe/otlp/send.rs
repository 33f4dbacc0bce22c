//! One request to a collector.

use super::OtlpSettings;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::error::Error;
use tokio::net::TcpStream;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The collector has it.
    Taken,
    /// The collector does not want it, now or ever.
    Refused,
    /// It may want it later.
    Again,
}

impl Outcome {
    /// The worse of two.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Again, _) | (_, Self::Again) => Self::Again,
            (Self::Refused, _) | (_, Self::Refused) => Self::Refused,
            (Self::Taken, Self::Taken) => Self::Taken,
        }
    }
}

/// Sends a message to the collector, on a connection of its own.
pub(super) async fn post(settings: &OtlpSettings, path: &str, body: Vec<u8>) -> Outcome {
    match try_post(settings, path, body).await {
        Ok(status) if status.is_success() => Outcome::Taken,
        // The statuses that the protocol says may be tried again.
        Ok(
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT,
        )
        | Err(_) => Outcome::Again,
        Ok(_) => Outcome::Refused,
    }
}

async fn try_post(
    settings: &OtlpSettings,
    path: &str,
    body: Vec<u8>,
) -> Result<StatusCode, Box<dyn Error + Send + Sync>> {
    let endpoint = &settings.endpoint;
    let mut request = Request::post(format!("{}{path}", endpoint.path))
        .header(HOST, &endpoint.authority)
        .header(USER_AGENT, concat!("egret/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in &settings.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let stream = TcpStream::connect(endpoint.address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        // To its end, so that the collector does not see it broken off.
        let (Ok(_) | Err(_)) = Limited::new(response.into_body(), LONGEST_ANSWER)
            .collect()
            .await;
        Ok(status)
    };
    tokio::select! {
        biased;
        status = exchange => status,
        ended = connection => {
            ended?;
            Err("the collector has broken off".into())
        }
    }
}

/// More than a collector has to say.
const LONGEST_ANSWER: usize = 64 << 10;
