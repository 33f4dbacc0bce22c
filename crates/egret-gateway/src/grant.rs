//! By what leave a connection is carried: a policy's [`Permit`] on the way out, or, on the way in, that a port is
//! published.
//!
//! How a connection is looked at and relayed is the same for both. What may be said on it is told here.

use std::net::IpAddr;

use egret_policy::{Destination, Permit, Spoken};

use crate::Gateway;
use crate::audit::Record;
use crate::inspect::hello::Hello;
use crate::inspect::http::head::{Framing, Request};
use crate::inspect::http::{self, Line};
use crate::refused::Refused;
use crate::sessions::Open;

/// Leave for one connection.
pub(crate) trait Grant: Send + Sync {
    /// Whether a ClientHello is read. Otherwise TLS is as opaque as anything that is not HTTP.
    const READS_TLS: bool;

    /// Where the connection leads.
    fn destination(&self) -> &Destination;

    /// Whether nothing but HTTP requests may pass.
    fn requests_only(&self) -> bool;

    /// Puts a ClientHello to it.
    fn tls(&self, gateway: &Gateway, open: &Open, hello: &Hello) -> Result<(), Refused>;

    /// Puts a request to it.
    fn request<'a>(
        &'a self,
        gateway: &Gateway,
        open: &Open,
        request: &'a Request,
    ) -> Result<Passing<'a>, Refused>;

    /// That it holds, and the server does not do its part; `cause` is the end of a sentence.
    fn unreachable(&self, cause: String) -> Refused;

    /// Puts on record who speaks.
    fn asker(&self, open: &Open, record: Record) -> Record;
}

/// A request that may pass.
pub(crate) struct Passing<'a> {
    pub(crate) framing: Framing,
    pub(crate) line: Line<'a>,
    /// The decision about it, where each request has its own.
    pub(crate) permit: Option<Permit>,
}

impl Grant for Permit {
    const READS_TLS: bool = true;

    fn destination(&self) -> &Destination {
        Permit::destination(self)
    }

    fn requests_only(&self) -> bool {
        self.inspects()
    }

    fn tls(&self, gateway: &Gateway, open: &Open, hello: &Hello) -> Result<(), Refused> {
        let name = hello.server_name.as_deref();
        if let Some(name) = name {
            open.speaks(name);
        }
        let matcher = gateway.matcher.load();
        Ok(matcher.confirm(self, Spoken::Sni(name))?)
    }

    fn request<'a>(
        &'a self,
        gateway: &Gateway,
        open: &Open,
        request: &'a Request,
    ) -> Result<Passing<'a>, Refused> {
        http::check(gateway, self, open, request)
    }

    fn unreachable(&self, cause: String) -> Refused {
        Refused::unreachable(self, Vec::<IpAddr>::new(), cause)
    }

    fn asker(&self, open: &Open, record: Record) -> Record {
        record.program(open.program().as_deref())
    }
}
