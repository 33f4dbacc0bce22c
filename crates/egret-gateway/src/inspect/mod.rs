//! Looking at what is spoken on a connection that was decided on.
//!
//! [`first::Sniffer`] tells from a client's first bytes whether they are TLS, HTTP/1, HTTP/2 or something
//! else; [`hello`] reads a TLS ClientHello, [`http`] goes through HTTP requests one by one.
//!
//! What is promised: on a connection that was decided for a name, neither a ClientHello nor an HTTP
//! request that names another host is passed on. What is not: anything else is opaque, and TLS that begins
//! in the middle of a conversation (STARTTLS, PostgreSQL's SSLRequest) is not looked into.

pub(crate) mod begin;
pub(crate) mod first;
pub(crate) mod hello;
pub(crate) mod http;
#[cfg(test)]
mod tests;
