//! One entry: the text form `HOST[:PORT[,PORT…]]` that files and flags share, and the parts of the long form.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::{IpNet, Ipv4Net};

use crate::addr::{Class, class_of, never_granted};
use crate::destination::{Flaw, Target, parse_port, parse_target};
use crate::host::MAX_NAME;
use crate::names::{Special, special_str};
use crate::pattern::{Lead, Pattern, Why};
use crate::policy::{Ports, What};
use crate::suffix::{Suffix, public_suffix};
use crate::text::advice;

/// Which list an entry stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Allow,
    Deny,
}

/// How a service of the machine is reached, which loopback and its own addresses never are.
const HOST_SERVICE: &str = "a service on the host that runs the sandbox is `host.docker.internal`, opened by \
                            `host_gateway: [PORT]` or --allow-docker-gateway=PORT";

/// What somebody should know who wants to allow it.
const METADATA_SERVICE: &str = "a metadata service hands out the credentials of the machine to whoever asks, and is never opened";

/// How an entry says every port.
pub(crate) const EVERY_PORT: &str = "every port is `ports: any`, in the long form of an entry";

/// What is wrong with an entry, and which part of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadEntry {
    pub(crate) part: Range<usize>,
    pub(crate) message: String,
    pub(crate) label: String,
    pub(crate) help: Option<String>,
}

impl BadEntry {
    pub(crate) fn new(
        part: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let help = Some(help.into()).filter(|help: &String| !help.is_empty());
        Self {
            part,
            message: message.into(),
            label: label.into(),
            help,
        }
    }

    /// The same, in a text that has `by` octets in front.
    pub(crate) fn shift(mut self, by: usize) -> Self {
        self.part = self.part.start + by..self.part.end + by;
        self
    }
}

/// Reads the text form. Without ports, an allow entry means 80 and 443 and a deny entry every port.
pub(crate) fn parse_entry(text: &str, side: Side) -> Result<(What, Ports), Vec<BadEntry>> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let help = match without_scheme(scheme, rest) {
            Some(entry) => format!("write `{entry}`"),
            None => "write `HOST:PORT`, such as `api.github.com:443`".to_owned(),
        };
        return Err(vec![a_url(scheme, help)]);
    }
    let (host, ports) = split_ports(text).map_err(|bad| vec![bad])?;
    let what = match host {
        HostPart::Plain(host) => parse_what(host, side),
        HostPart::Bracketed(address) => parse_net(address)
            .map(What::Net)
            .map_err(|bad| bad.shift(1)),
    };
    let what = what.and_then(|what| {
        allowed_there(what, side, host.text()).map_err(|bad| bad.shift(host.at()))
    });
    let ports = match ports {
        None => Ok(Ports::default_of(side)),
        Some(at) => {
            let ports = text.get(at..).unwrap_or_default();
            ports_or(ports, EVERY_PORT).map_err(|bad| bad.shift(at))
        }
    };
    match (what, ports) {
        (Ok(what), Ok(ports)) => Ok((what, ports)),
        (Err(bad), Ok(_)) | (Ok(_), Err(bad)) => Err(vec![bad]),
        (Err(first), Err(second)) => Err(vec![first, second]),
    }
}

pub(crate) fn a_url(scheme: &str, help: String) -> BadEntry {
    let message = "an entry names a host, not a URL";
    BadEntry::new(0..scheme.len() + 3, message, "leave this out", help)
}

/// The entry in the text form for what a URL leads to.
fn without_scheme(scheme: &str, rest: &str) -> Option<String> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let port = match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => ":80",
        "https" | "wss" => ":443",
        _ => "",
    };
    let port = if authority.contains(':') { "" } else { port };
    let entry = format!("{authority}{port}");
    (entry.len() <= MAX_NAME && parse_entry(&entry, Side::Allow).is_ok()).then_some(entry)
}

/// Whether there are commas between hosts, where only ports have them.
pub(crate) fn several_hosts(text: &str) -> bool {
    let mut parts = text.split(',');
    parts.next().is_some_and(|first| !first.is_empty())
        && parts.any(|part| part.contains(|c: char| c == '.' || c.is_alphabetic()))
}

/// Reads what stands behind `host:` in the long form.
pub(crate) fn parse_host(text: &str, side: Side) -> Result<What, BadEntry> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let entry = without_scheme(scheme, rest);
        let help = match entry.as_deref().and_then(|entry| entry.rsplit_once(':')) {
            Some((host, port)) => format!("write `host: {host}` and `ports: [{port}]`"),
            None => "write the name alone, such as `host: api.github.com`".to_owned(),
        };
        return Err(a_url(scheme, help));
    }
    if let Some((host, ports)) = text.rsplit_once(':')
        && !host.contains(':')
    {
        let part = host.len()..text.len();
        let help = format!("write `host: {host}` and {}", advice::ports_key(ports));
        return Err(BadEntry::new(
            part,
            "in the long form the port has its own key",
            "not here",
            help,
        ));
    }
    match parse_what(text, side)? {
        What::Net(_) => {
            let help = format!("write `address: {text}`");
            Err(BadEntry::new(
                0..text.len(),
                "this is an address, not a name",
                "",
                help,
            ))
        }
        what => allowed_there(what, side, text),
    }
}

/// Reads what stands behind `address:`.
pub(crate) fn parse_address(text: &str, side: Side) -> Result<What, BadEntry> {
    let net = parse_net(text).map_err(|bad| match split_ports(text) {
        // An address with ports behind it.
        Ok((address, Some(at))) if parse_net(address.text()).is_ok() => {
            let (address, ports) = (address.text(), text.get(at..).unwrap_or_default());
            let help = format!(
                "write `address: {address}` and {}",
                advice::ports_key(ports)
            );
            let message = "in the long form the port has its own key";
            BadEntry::new(at - 1..text.len(), message, "not here", help)
        }
        _ => bad,
    })?;
    allowed_there(What::Net(net), side, text)
}

/// Reads an item of `addresses:`, which may not be something that is never granted.
pub(crate) fn parse_granted(text: &str) -> Result<IpNet, BadEntry> {
    let net = parse_net(text)?;
    can_be_granted(&net, text)?;
    Ok(net)
}

/// Reads an address or a CIDR.
pub(crate) fn parse_net(text: &str) -> Result<IpNet, BadEntry> {
    let whole = 0..text.len();
    let Some((address, len)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(address) => Ok(IpNet::from(address.to_canonical())),
            Err(_) => Err(not_an_address(text)),
        };
    };
    let address: IpAddr = address.parse().map_err(|_| not_an_address(address))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let plain = len.bytes().all(|b| b.is_ascii_digit()) && (len == "0" || !len.starts_with('0'));
    let net = match len.parse::<u8>() {
        Ok(len) if plain && len <= most => IpNet::new(address, len).ok(),
        _ => None,
    };
    let Some(net) = net else {
        let part = text.len() - len.len()..text.len();
        return Err(BadEntry::new(
            part,
            "this is not a prefix length",
            format!("0 to {most}"),
            "",
        ));
    };
    if net.addr() != net.network() {
        let help = format!(
            "write `{}` for the network or `{address}` for the one address",
            net.trunc()
        );
        return Err(BadEntry::new(
            whole,
            format!("`{net}` has host bits set"),
            "a network ends in zeros",
            help,
        ));
    }
    Ok(canonical_net(net))
}

/// IPv4 addresses are dialled and compared as such, so a network of IPv4-mapped ones is an IPv4 network.
fn canonical_net(net: IpNet) -> IpNet {
    match (net.network().to_canonical(), net) {
        (IpAddr::V4(v4), IpNet::V6(v6)) if v6.prefix_len() >= 96 => {
            Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4)
        }
        _ => net,
    }
}

fn not_an_address(text: &str) -> BadEntry {
    let help = match (advice::network(text), parse_target(text)) {
        (Some(help), _) => help,
        (None, Ok(Target::Address(address))) => format!("write it as `{address}`"),
        _ => "write an address such as `203.0.113.7`, or a network such as `203.0.113.0/24`"
            .to_owned(),
    };
    BadEntry::new(
        0..text.len(),
        format!("`{}` is not an IP address", text.escape_debug()),
        "",
        help,
    )
}

/// Reads ports with commas between them.
pub(crate) fn parse_ports(text: &str) -> Result<Ports, BadEntry> {
    ports_or(text, "")
}

/// The same, where `every` says how every port is written.
pub(crate) fn ports_or(text: &str, every: &str) -> Result<Ports, BadEntry> {
    let mut ports = Vec::new();
    let mut at = 0;
    for port in text.split(',') {
        match parse_port(port) {
            Ok(port) => ports.push(port),
            Err(_) => return Err(bad_port(at..at + port.len(), port, every)),
        }
        at += port.len() + 1;
    }
    Ok(Ports::listed(ports))
}

/// `every` says how every port is written there, if it can be.
pub(crate) fn bad_port(part: Range<usize>, text: &str, every: &str) -> BadEntry {
    let message = match text {
        "" => "a port is missing".to_owned(),
        _ => format!("`{}` is not a port", text.escape_debug()),
    };
    BadEntry::new(
        part,
        message,
        "1 to 65535, in plain digits without leading zeros",
        advice::port(text, every).unwrap_or_default(),
    )
}

#[derive(Clone, Copy)]
pub(crate) enum HostPart<'a> {
    Plain(&'a str),
    Bracketed(&'a str),
}

impl<'a> HostPart<'a> {
    pub(crate) fn text(self) -> &'a str {
        match self {
            Self::Plain(text) | Self::Bracketed(text) => text,
        }
    }

    pub(crate) fn is_bracketed(self) -> bool {
        matches!(self, Self::Bracketed(_))
    }

    fn at(self) -> usize {
        usize::from(self.is_bracketed())
    }
}

/// Splits the host from the ports; says where the ports begin, if there are any.
pub(crate) fn split_ports(text: &str) -> Result<(HostPart<'_>, Option<usize>), BadEntry> {
    let bad_brackets = || {
        let help = "write an IPv6 address with a port as `[2001:db8::1]:443`";
        Err(BadEntry::new(
            0..text.len(),
            "it is not clear where the port begins",
            "",
            help,
        ))
    };
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((inside, "")) => Ok((HostPart::Bracketed(inside), None)),
            Some((inside, after)) if after.starts_with(':') => {
                Ok((HostPart::Bracketed(inside), Some(inside.len() + 3)))
            }
            _ => bad_brackets(),
        };
    }
    match text.bytes().filter(|&b| b == b':').count() {
        0 => Ok((HostPart::Plain(text), None)),
        1 => {
            let at = text.find(':').unwrap_or(text.len());
            Ok((
                HostPart::Plain(text.get(..at).unwrap_or_default()),
                Some(at + 1),
            ))
        }
        // An IPv6 address or network without a port.
        _ => match parse_net(text) {
            Err(bad) if bad.message.contains("is not an IP address") => bad_brackets(),
            _ => Ok((HostPart::Plain(text), None)),
        },
    }
}

fn parse_what(text: &str, side: Side) -> Result<What, BadEntry> {
    let whole = 0..text.len();
    if text.is_empty() {
        return Err(BadEntry::new(whole, "the host is missing", "", ""));
    }
    if let Some((host, _)) = text.split_once('/') {
        return match parse_target(host) {
            Ok(Target::Address(_)) => parse_net(text).map(What::Net),
            _ => {
                let help = "which paths may be asked for is said with `http:` in the long form";
                Err(BadEntry::new(
                    host.len()..text.len(),
                    "an entry names a host, not a path",
                    "leave this out",
                    help,
                ))
            }
        };
    }
    match parse_target(text) {
        Ok(Target::Address(_)) => return parse_net(text).map(What::Net),
        Ok(Target::Name(_)) | Err(_) => {}
    }
    let (every_name, every_domain) = match side {
        Side::Allow => (
            "for every public destination write `default: allow-public`",
            "name the domains, or write `default: allow-public` if every public destination is meant",
        ),
        Side::Deny => (
            "what no entry allows is denied already",
            "name the domains: what no entry allows is denied already",
        ),
    };
    parse_pattern(text, every_name, every_domain).map(What::Name)
}

/// Reads a host pattern. The two sentences are what to do in place of one for every name, and of one directly under a
/// public suffix.
pub(crate) fn parse_pattern(
    text: &str,
    every_name: &str,
    every_domain: &str,
) -> Result<Pattern, BadEntry> {
    let pattern = Pattern::parse(text).map_err(|bad| {
        let everything = bad.why == Why::Everything;
        let network = advice::network(text);
        let help = match &bad.why {
            _ if let Some(network) = &network => network,
            Why::Everything => every_name,
            Why::LastStar => "name the domains: an entry for each, such as `example.com`",
            Why::Flaw(Flaw::NumericName) => {
                "an address is written with four numbers, a network as `203.0.113.0/24`"
            }
            _ => "",
        };
        let message = match everything {
            true => format!("`{text}` would match every name there is"),
            false => format!("`{}` is not a host pattern", text.escape_debug()),
        };
        let label = if everything {
            String::new()
        } else {
            bad.why.to_string()
        };
        BadEntry::new(bad.part, message, label, help)
    })?;
    if !pattern.is_exact() && public_suffix(pattern.base()) == Some(Suffix::Icann) {
        let message = format!(
            "`{pattern}` would match every domain registered under `{}`",
            pattern.base()
        );
        return Err(BadEntry::new(
            0..text.len(),
            message,
            "a wildcard directly under a public suffix",
            every_domain,
        ));
    }
    Ok(pattern)
}

/// Refuses an allow entry that could never allow anything.
fn allowed_there(what: What, side: Side, text: &str) -> Result<What, BadEntry> {
    if side == Side::Deny {
        return Ok(what);
    }
    match &what {
        What::Net(net) => can_be_granted(net, text)?,
        What::Name(pattern) => {
            let under_localhost =
                pattern.base() == "localhost" && pattern.shape().lead != Lead::Label;
            let special = if pattern.is_exact() {
                special_str(pattern.as_str())
            } else {
                None
            };
            let why = match special {
                Some(Special::Metadata) => "the name of a metadata service",
                Some(Special::Loopback) => "this is the sandbox itself, which needs no entry",
                None if under_localhost => "this is the sandbox itself, which needs no entry",
                Some(Special::HostGateway) | None => return Ok(what),
            };
            let help = match special {
                Some(Special::Metadata) => METADATA_SERVICE,
                _ => HOST_SERVICE,
            };
            return Err(BadEntry::new(
                0..text.len(),
                format!("`{pattern}` cannot be allowed"),
                why,
                help,
            ));
        }
    }
    Ok(what)
}

fn can_be_granted(net: &IpNet, text: &str) -> Result<(), BadEntry> {
    let whole = 0..text.len();
    if net.prefix_len() == net.max_prefix_len() {
        if net.addr() == crate::addr::DOCKER_BRIDGE {
            let message = format!("`{text}` is the host, which no address opens");
            return Err(BadEntry::new(
                whole,
                message,
                "the default bridge of Docker",
                HOST_SERVICE,
            ));
        }
        let class = class_of(net.addr());
        if !class.can_be_granted() {
            let message = format!("`{text}` can never be allowed");
            let label = format!("{} {} address", article(class), class.word());
            let help = never(class, net, text);
            return Err(BadEntry::new(whole, message, label, help));
        }
    }
    match never_granted().find(|row| row.covers(net)) {
        Some(row) => Err(BadEntry::new(
            whole,
            format!("`{text}` can never be allowed"),
            row.source,
            never(row.class, net, text),
        )),
        None => Ok(()),
    }
}

fn article(class: Class) -> &'static str {
    match class.word().starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => "an",
        false => "a",
    }
}

/// Why something is never granted, or what is in its place.
fn never(class: Class, net: &IpNet, text: &str) -> String {
    if let Some(help) = advice::port_in_brackets(text) {
        return help;
    }
    let help = match (class, net) {
        (Class::Loopback, _) => HOST_SERVICE,
        (Class::Metadata, _) => METADATA_SERVICE,
        (Class::Unspecified, IpNet::V4(_)) => "every address is `0.0.0.0/0`",
        (Class::Unspecified, IpNet::V6(_)) => "every address is `::/0`",
        _ => "",
    };
    help.to_owned()
}
