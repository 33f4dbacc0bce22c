//! Leaving through somebody else's HTTP proxy.
//!
//! The proxy is asked for the vetted *address*, never for the name, so it has no say in what is reached.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use egret_policy::Host;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::resolve::Resolver;

/// A proxy that every connection goes through: `http://[user:password@]host[:port]`.
#[derive(Clone)]
pub struct UpstreamProxy {
    host: ProxyHost,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

#[derive(Clone)]
enum ProxyHost {
    Name(Host),
    Address(IpAddr),
}

/// A proxy URL that cannot be used. The URL is not repeated, since it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UpstreamProxyError {
    /// Only plain HTTP proxies are spoken to.
    #[error(
        "an upstream proxy is given as `http://[user:password@]host[:port]`; other schemes are not supported"
    )]
    Scheme,
    /// The part after the scheme is not a host with an optional port.
    #[error(
        "the upstream proxy's host or port is not valid; it is given as `http://[user:password@]host[:port]`"
    )]
    Authority,
    /// The user name or password is not percent-encoded properly.
    #[error(
        "the upstream proxy's user name or password is not valid; write special characters percent-encoded, such as `%40` for `@`"
    )]
    Credentials,
}

impl FromStr for UpstreamProxy {
    type Err = UpstreamProxyError;

    fn from_str(url: &str) -> Result<Self, UpstreamProxyError> {
        let (scheme, rest) = url.split_once("://").ok_or(UpstreamProxyError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(UpstreamProxyError::Scheme);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // To others a host ends here, and what follows is none of it, so that they would ask another proxy.
        if rest.contains(['/', '?', '#', '\\']) {
            return Err(match rest.contains('@') {
                true => UpstreamProxyError::Credentials,
                false => UpstreamProxyError::Authority,
            });
        }
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, rest),
        };
        let authorization = credentials.map(basic).transpose()?;
        let (host, port) = split_port(authority)?;
        let host = match host.parse::<IpAddr>() {
            Ok(address) => ProxyHost::Address(address),
            Err(_) => ProxyHost::Name(host.parse().map_err(|_| UpstreamProxyError::Authority)?),
        };
        Ok(Self {
            host,
            port,
            authorization,
        })
    }
}

/// Without the credentials.
impl fmt::Debug for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            ProxyHost::Name(name) => write!(f, "UpstreamProxy({name}:{})", self.port),
            ProxyHost::Address(address) => {
                write!(f, "UpstreamProxy({})", SocketAddr::new(*address, self.port))
            }
        }
    }
}

impl UpstreamProxy {
    pub(super) async fn addresses(&self, resolver: &Resolver) -> io::Result<Vec<SocketAddr>> {
        let addresses = match &self.host {
            ProxyHost::Address(address) => return Ok(vec![SocketAddr::new(*address, self.port)]),
            ProxyHost::Name(name) => resolver.addresses(name).await,
        };
        match addresses {
            Ok(addresses) => Ok(addresses
                .iter()
                .map(|&address| SocketAddr::new(address, self.port))
                .collect()),
            Err(why) => Err(io::Error::other(format!(
                "the upstream proxy's name could not be resolved: {why}"
            ))),
        }
    }

    /// Asks the proxy at the other end of `stream` for a tunnel to `target`.
    pub(crate) async fn connect(
        &self,
        mut stream: TcpStream,
        target: SocketAddr,
    ) -> io::Result<(TcpStream, Vec<u8>)> {
        let authorization = self
            .authorization
            .as_ref()
            .map(|value| format!("Proxy-Authorization: {value}\r\n"))
            .unwrap_or_default();
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(512);
        loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::other(
                    "the upstream proxy closed the connection instead of answering",
                ));
            }
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut fields);
            match response.parse(&answer) {
                Ok(httparse::Status::Complete(head)) => {
                    let status = response.code.unwrap_or_default();
                    if !(200..300).contains(&status) {
                        return Err(io::Error::other(format!(
                            "the upstream proxy answered {status}"
                        )));
                    }
                    let early = answer.split_off(head.min(answer.len()));
                    return Ok((stream, early));
                }
                Ok(httparse::Status::Partial) if answer.len() < ANSWER => {}
                Ok(httparse::Status::Partial) | Err(_) => {
                    return Err(io::Error::other("the upstream proxy's answer is not HTTP"));
                }
            }
        }
    }
}

fn basic(credentials: &str) -> Result<String, UpstreamProxyError> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut plain = percent_decoded(user)?;
    plain.push(b':');
    plain.extend(percent_decoded(password)?);
    Ok(format!("Basic {}", BASE64_STANDARD.encode(plain)))
}

fn percent_decoded(text: &str) -> Result<Vec<u8>, UpstreamProxyError> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| {
        byte.and_then(|byte| char::from(byte).to_digit(16))
            .ok_or(UpstreamProxyError::Credentials)
    };
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8,
            byte => byte,
        });
    }
    Ok(decoded)
}

/// The host without brackets, and the port, 80 if there is none.
fn split_port(authority: &str) -> Result<(&str, u16), UpstreamProxyError> {
    let bad = || UpstreamProxyError::Authority;
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (
                host,
                if rest.is_empty() {
                    None
                } else {
                    Some(rest.strip_prefix(':').ok_or_else(bad)?)
                },
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map_or(Ok(80), str::parse).map_err(|_| bad())?;
    if host.is_empty() || port == 0 {
        Err(bad())
    } else {
        Ok((host, port))
    }
}

/// The largest answer that is read.
const ANSWER: usize = 16 << 10;
