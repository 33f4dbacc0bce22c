//! The names by which published ports may be addressed.
//!
//! A page in a browser can have the browser speak to any port of the machine that it runs on. What tells such a request
//! from one that somebody meant to make is in its head: `Host`, which is the page's own name where that name was made to
//! mean this machine (DNS rebinding), and `Origin`, which is the page's site. So each request has to name, in both, a host
//! of a list that no site can get into by itself. An address cannot be made to mean another one, and `localhost` and what
//! is below it cannot be registered (RFC 6761 6.3).
//!
//! A request without `Origin` may come from a page as well: that of an image, say. Browsers tell in `Sec-Fetch-Site` (Fetch
//! Metadata) how the page's site stands to the request's, and a page of another one may do no more than lead the
//! whole window here.
//!
//! Ports are left aside: that outside is seldom the one inside, and who can publish one of them can read none of the others.

use egret_policy::{Denial, Destination, Host, InboundHost, Reason, SandboxId, Target};

use crate::inspect::http::head::{BadHead, Request};
use crate::inspect::http::{Absolute, agree, destination, method_allowed};
use crate::refused::Refused;

/// The hosts that requests to published ports may be for, and whose pages may make them.
#[derive(Debug, Clone)]
pub struct InboundHosts {
    sandbox: Option<Host>,
    listed: Vec<InboundHost>,
}

impl InboundHosts {
    /// `localhost`, all names below it, loopback addresses (127.0.0.0/8 and `::1`), the sandbox's own name, and those that
    /// a policy lists.
    pub fn new(sandbox: &SandboxId, listed: Vec<InboundHost>) -> Self {
        Self {
            // Not every name of a sandbox is one of a host; a number would be read as an address.
            sandbox: sandbox.as_str().parse().ok(),
            listed,
        }
    }

    fn allow(&self, target: &Target) -> bool {
        let is_sandbox =
            matches!(target, Target::Name(name) if self.sandbox.as_ref() == Some(name));
        is_this_machine(target) || is_sandbox || {
            let text = target.to_string();
            self.listed.iter().any(|host| host.matches(&text))
        }
    }

    /// Puts a request for `port`, the one inside, to the list.
    pub(crate) fn check<'a>(
        &self,
        request: &'a Request,
        port: u16,
    ) -> Result<Addressed<'a>, Refused> {
        let host = request.host()?;
        let host = host.ok_or(BadHead::Malformed("the request has no Host field"))?;
        let named = destination(host, Some(80))?;
        let addressed = Destination::new(named.target().clone(), port).map_err(Denial::from)?;
        method_allowed(request, &addressed)?;
        let target = match request.target() {
            target if target.starts_with('/') => target,
            "*" if request.method() == "OPTIONS" => "*",
            target => {
                let absolute = Absolute::parse(target)?;
                agree(&absolute.destination()?, Some(host))?;
                absolute.path
            }
        };
        let refuse = |message: &str, host: Option<&Target>| Refused::Inbound {
            denial: Denial::new(Reason::DeniedNameMismatch, addressed.to_string(), message),
            host: host.cloned().map(Box::new),
        };
        if !self.allow(addressed.target()) {
            let message = "the request's Host is none by which the port may be addressed";
            return Err(refuse(message, Some(addressed.target())));
        }
        let mut origins = request.field("origin");
        let told = match (origins.next(), origins.next()) {
            (None, _) => false,
            (Some(_), Some(_)) => return Err(refuse("the request has two Origin fields", None)),
            (Some(origin), None) => match &site(origin) {
                Some(site) if self.allow(site) => true,
                Some(site) => {
                    let message = format!(
                        "the request comes from a page of {site}, which may not use the port (its Origin)"
                    );
                    return Err(refuse(&message, Some(site)));
                }
                None => {
                    let message = "the request comes from a page of which it cannot be told whose it is (its Origin)";
                    return Err(refuse(message, None));
                }
            },
        };
        // An Origin that is allowed says more.
        if !told && from_another_site(request, addressed.target()) && !is_visit(request) {
            let message = "the request comes from a page of another site, which may lead here and do nothing else (its Sec-Fetch-Site)";
            return Err(refuse(message, None));
        }
        Ok(Addressed {
            destination: addressed,
            host,
            target,
        })
    }
}

/// What a request is for, once it may be asked.
pub(crate) struct Addressed<'a> {
    /// The host that it names, and the port inside.
    pub(crate) destination: Destination,
    /// Its `Host`, as it came.
    pub(crate) host: &'a str,
    /// Its target in origin form, or `*`.
    pub(crate) target: &'a str,
}

/// Whether a browser says that a page asks whose site may not use the port, or says what cannot be understood. It says nothing
/// to a host that is neither on this machine nor reached over TLS, and other programs never do.
fn from_another_site(request: &Request, addressed: &Target) -> bool {
    request.field("sec-fetch-site").any(|site| match site {
        b"same-origin" | b"none" => false,
        // Of an address, and of `localhost`, that is the same host, whose pages may use the port; of a name it may be a
        // neighbour.
        b"same-site" => !is_this_machine(addressed),
        _ => true,
    })
}

/// Whether a person is led here, by a link or from a sign-in, to look at it in a window of its own. Unlike an image or a frame
/// that cannot go unnoticed; what is fetched in advance can.
fn is_visit(request: &Request) -> bool {
    let says = |name, what: &[u8]| {
        let mut values = request.field(name);
        values.next() == Some(what) && values.next().is_none()
    };
    request.method() == "GET"
        && says("sec-fetch-mode", b"navigate")
        && says("sec-fetch-dest", b"document")
        && request.field("sec-purpose").next().is_none()
}

fn is_this_machine(target: &Target) -> bool {
    match target {
        Target::Address(address) => address.is_loopback(),
        Target::Name(name) => name.as_str() == "localhost" || name.as_str().ends_with(".localhost"),
    }
}

/// The host of an `Origin` (RFC 6454 7.1): a scheme, a host and perhaps a port, and nothing else.
fn site(origin: &[u8]) -> Option<Target> {
    let origin = std::str::from_utf8(origin).ok()?;
    let (scheme, authority) = origin.split_once("://")?;
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let site = Destination::from_authority(authority, Some(default_port)).ok()?;
    Some(site.target().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_the_sandbox_and_what_is_listed_is_allowed() {
        let text =
            "version: 1\ninbound: [app.example.com, .tree.example, 192.0.2.7, '2001:db8::1']";
        let policy = egret_policy::Policy::parse("p.yaml", text.as_bytes()).unwrap();
        let sandbox = "my_mcp.server".parse().unwrap();
        let hosts = InboundHosts::new(&sandbox, policy.policy.inbound().to_vec());
        let none = InboundHosts::new(&sandbox, Vec::new());
        #[rustfmt::skip]
        let table = [
            // the host               by default, listed
            ("localhost",             true,  false),
            ("LOCALHOST.:8080",       true,  false),
            ("app.localhost:1",       true,  false),
            ("notlocalhost",          false, false),
            ("localhost.example",     false, false),
            ("127.0.0.1:8080",        true,  false),
            ("127.1.2.3",             true,  false),
            ("[::1]:8080",            true,  false),
            ("[::ffff:127.0.0.1]",    true,  false),
            ("0.0.0.0",               false, false),
            ("[::]",                  false, false),
            ("my_mcp.server:8080",    true,  false),
            ("x.my_mcp.server",       false, false),
            ("app.example.com:443",   false, true ),
            ("a.app.example.com",     false, false),
            ("example.com",           false, false),
            ("tree.example",          false, true ),
            ("a.b.tree.example",      false, true ),
            ("notree.example",        false, false),
            ("192.0.2.7",             false, true ),
            ("192.0.2.9",             false, false),
            ("[2001:db8::1]:80",      false, true ),
        ];
        for (host, by_default, listed) in table {
            let target = Destination::from_authority(host, Some(80)).unwrap();
            let target = target.target();
            assert_eq!(none.allow(target), by_default, "{host}");
            assert_eq!(hosts.allow(target), by_default || listed, "{host}");
        }
        // A name that would be read as an address is no host of the sandbox's.
        let number = InboundHosts::new(&"2130706434".parse().unwrap(), Vec::new());
        assert!(number.sandbox.is_none());
    }

    #[test]
    fn the_site_of_a_page_is_told_from_an_origin_that_is_one() {
        #[rustfmt::skip]
        let table = [
            ("http://localhost",               Some("localhost")),
            ("https://Localhost:3000",         Some("localhost")),
            ("http://[::1]:3000",              Some("::1")),
            ("http://127.0.0.1:65535",         Some("127.0.0.1")),
            ("null",                           None),
            ("",                               None),
            ("localhost",                      None),
            ("http://",                        None),
            ("http://localhost/",              None),
            ("http://localhost/x",             None),
            ("http://localhost?x",             None),
            ("http://localhost#x",             None),
            ("http://evil.example@localhost",  None),
            ("http://localhost:",              None),
            ("http://localhost:0",             None),
            ("http://localhost:99999",         None),
            ("http://localhost http://evil",   None),
            ("http://localhost, http://evil",  None),
            ("http://loc\u{e4}lhost\\",        None),
            ("file://localhost",               None),
            ("chrome-extension://localhost",   None),
            ("ws://localhost",                 None),
        ];
        for (origin, expected) in table {
            let site = site(origin.as_bytes()).map(|site| site.to_string());
            assert_eq!(site.as_deref(), expected, "{origin}");
        }
        assert_eq!(site(b"http://\xff"), None);
    }
}
