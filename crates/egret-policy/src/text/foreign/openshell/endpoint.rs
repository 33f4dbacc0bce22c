//! One endpoint: where it leads, what it may resolve to, and which requests it takes.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::requests::Said;
use crate::addr::{Class, overlaps_class};
use crate::destination::{Target, parse_target};
use crate::names::{Special, special_str};
use crate::policy::What;
use crate::program::Programs;
use crate::report::{Span, did_you_mean};
use crate::request::RequestRule;
use crate::text::entry::{self, BadEntry, Side};
use crate::text::foreign::{Draft, is_said};
use crate::text::reader::{get, list_of, shown, text_of};
use crate::text::yaml::{Node, Value};

/// An endpoint of a network policy, in Egret's terms.
pub(super) struct Endpoint {
    pub(super) span: Span,
    /// A name or an address; networks, for an endpoint that is nothing else.
    pub(super) whats: Vec<What>,
    /// Whether OpenShell means every name by it, and every address.
    pub(super) of_any_host: bool,
    /// None, for an endpoint that nothing is left of.
    pub(super) ports: Vec<u16>,
    /// The ports on which it is named and leads nowhere, and of these those that are denied, so that nobody else's entry
    /// leads there in its place.
    pub(super) shut: Vec<u16>,
    pub(super) denied: Vec<u16>,
    /// Its `allowed_ips`, in order, each once.
    pub(super) listed: Vec<IpNet>,
    pub(super) addresses: Vec<IpNet>,
    /// Whether it may resolve to these only.
    pub(super) only_addresses: bool,
    pub(super) programs: Programs,
    /// Whether OpenShell looks at its requests, too.
    pub(super) is_inspected: bool,
    /// The requests that it takes; not said where they are not looked at.
    pub(super) requests: Option<Vec<RequestRule>>,
    /// The requests that are refused whatever else takes them, each list with its place.
    pub(super) refused: Vec<(Span, Vec<RequestRule>)>,
    pub(super) note: Option<Arc<str>>,
}

const KEYS: &[&str] = &[
    "host",
    "port",
    "ports",
    "path",
    "protocol",
    "tls",
    "enforcement",
    "access",
    "rules",
    "deny_rules",
    "allowed_ips",
    "allow_encoded_slash",
    "websocket_credential_rewrite",
    "request_body_credential_rewrite",
    "allow_uninspected_credentials",
    "credential_signing",
    "signing_service",
    "signing_region",
    "credential_binding",
    "persisted_queries",
    "graphql_persisted_queries",
    "graphql_max_body_bytes",
    "json_rpc",
    "mcp",
];

/// How an endpoint's traffic is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Nothing is said of it.
    Unsaid,
    /// As a stream.
    Tcp,
    /// As requests.
    Rest,
}

/// Reads an endpoint; nothing if it is wrong, or leads nowhere and is warned of.
pub(super) fn read(item: &Node<'_>, draft: &mut Draft<'_, '_>) -> Option<Endpoint> {
    let Value::Map(pairs) = &item.value else {
        let label = format!("this is {}", item.value.describe());
        let help = "write `{host: api.example.com, port: 443}`".to_owned();
        let message = "an endpoint is a mapping";
        draft.report.error(item.span, message, label, Some(help));
        return None;
    };
    let fields = draft.report.fields(pairs, KEYS, "an endpoint");
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| *key == name);
        found
            .map(|(_, value)| *value)
            .filter(|value| is_said(value))
    };
    for (key, value) in &fields {
        check(key, value, draft);
    }
    let protocol = match field("protocol") {
        Some(value) => protocol(value, draft),
        None => Some(Protocol::Unsaid),
    };
    let ports = ports(item, field("port"), field("ports"), draft);
    let nets = match field("allowed_ips") {
        Some(list) => allowed_ips(list, draft),
        None => Some(Vec::new()),
    };
    let said = Said {
        item,
        path: field("path"),
        access: field("access"),
        rules: get(pairs, "rules"),
        deny_rules: get(pairs, "deny_rules"),
        enforcement: field("enforcement"),
        tls: field("tls"),
    };
    let (requests, refused) = said.read(protocol?, draft)?;
    let leads = leads(item, field("host"), nets?, protocol?, draft)?;
    let mut ports = ports?;
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > MAX_PORTS {
        let message = format!("an endpoint takes at most {MAX_PORTS} `ports`");
        draft.report.error(item.span, message, "", None);
        return None;
    }
    if let (true, Some(_)) = (field("host").is_none(), &requests) {
        let message = "rules for an endpoint without `host` are not implemented yet";
        let help = "give it a `host`, or leave the rules out".to_owned();
        draft.report.error(item.span, message, "", Some(help));
        return None;
    }
    let mut shut = Vec::new();
    if leads.leads_nowhere {
        shut = std::mem::take(&mut ports);
    } else if leads.spares_control_plane {
        shut = leave_out_control_plane(item, &mut ports, draft);
    }
    if let (Some(What::Net(_)), Some((at, _))) = (leads.whats.first(), refused.first()) {
        let message = "`deny_rules` for an address are not implemented yet";
        let help = "list what is allowed in `rules`".to_owned();
        draft.report.error(*at, message, "", Some(help));
    }
    Some(Endpoint {
        span: item.span,
        whats: leads.whats,
        of_any_host: field("host").is_none(),
        ports,
        shut,
        denied: Vec::new(),
        listed: leads.listed,
        addresses: leads.addresses,
        only_addresses: leads.only_addresses,
        programs: Programs::default(),
        is_inspected: protocol == Some(Protocol::Rest),
        requests,
        refused,
        note: None,
    })
}

/// Refuses what this version does not have, and words that say nothing.
fn check(key: &str, value: &Node<'_>, draft: &mut Draft<'_, '_>) {
    match key {
        "websocket_credential_rewrite"
        | "request_body_credential_rewrite"
        | "allow_uninspected_credentials" => {
            let said = draft.report.flag(value, &format!("`{key}`"));
            if said {
                let instead = "leave it out: Egret holds no credentials that it could put in";
                draft.not_yet(value, &format!("`{key}`"), instead);
            }
        }
        "allow_encoded_slash" => {
            let said = draft.report.flag(value, "`allow_encoded_slash`");
            if said {
                draft.note(
                    "`allow_encoded_slash`: a path with `%2F` has to be allowed both as it is and with a slash in its place",
                );
            }
        }
        "tls" => one_of(value, key, &["skip", "terminate", "passthrough"], draft),
        "enforcement" => one_of(value, key, &["enforce", "audit"], draft),
        "credential_signing"
        | "signing_service"
        | "signing_region"
        | "credential_binding"
        | "persisted_queries"
        | "graphql_persisted_queries"
        | "graphql_max_body_bytes"
        | "json_rpc"
        | "mcp"
            if is_said(value) =>
        {
            draft.not_yet(value, &format!("`{key}`"), "");
        }
        _ => {}
    }
}

fn one_of(value: &Node<'_>, key: &str, words: &[&str], draft: &mut Draft<'_, '_>) {
    let Some(word) = draft.report.optional_text(value, &format!("`{key}`")) else {
        return;
    };
    if !words.contains(&word) {
        let message = format!("`{}` is no value of `{key}`", shown(word));
        let label = format!("it can be {}", list_of(words));
        draft
            .report
            .error(value.span, message, label, did_you_mean(word, words));
    }
}

fn protocol(value: &Node<'_>, draft: &mut Draft<'_, '_>) -> Option<Protocol> {
    const LATER: &[&str] = &["websocket", "graphql", "sql", "json-rpc", "mcp"];
    let word = draft.report.text(value, "`protocol`")?;
    match word.to_ascii_lowercase().as_str() {
        "rest" => return Some(Protocol::Rest),
        "tcp" => return Some(Protocol::Tcp),
        later if LATER.contains(&later) => {
            let instead = "`rest` tells requests apart by method and path, `tcp` takes all of them";
            draft.not_yet(value, &format!("`protocol: {later}`"), instead);
        }
        _ => {
            let known = [&["rest", "tcp"], LATER].concat();
            let message = format!("`{}` is no protocol", shown(word));
            let label = "`rest` or `tcp`, or nothing";
            draft
                .report
                .error(value.span, message, label, did_you_mean(word, &known));
        }
    }
    None
}

fn ports(
    item: &Node<'_>,
    port: Option<&Node<'_>>,
    ports: Option<&Node<'_>>,
    draft: &mut Draft<'_, '_>,
) -> Option<Vec<u16>> {
    match (port, ports) {
        (Some(port), None) => Some(vec![draft.report.port(port)?]),
        (None, Some(ports)) => {
            let items = draft.report.items(ports, "`ports`");
            let ports: Vec<_> = items.iter().map(|port| draft.report.port(port)).collect();
            let ports: Option<Vec<_>> = ports.into_iter().collect();
            ports.filter(|ports| !ports.is_empty())
        }
        (Some(_), Some(ports)) => {
            let help = "leave `port` out".to_owned();
            let message = "an endpoint has `port` or `ports`, not both";
            draft.report.error(ports.span, message, "", Some(help));
            None
        }
        (None, None) => {
            let help = "add `port: 443`, or another one".to_owned();
            draft
                .report
                .error(item.span, "an endpoint has no `port`", "", Some(help));
            None
        }
    }
}

/// Reads the networks that a name may resolve to, which OpenShell takes with host bits as well.
fn allowed_ips(list: &Node<'_>, draft: &mut Draft<'_, '_>) -> Option<Vec<IpNet>> {
    let items = draft.report.items(list, "`allowed_ips`");
    if items.len() > MAX_ALLOWED {
        let message = format!("an endpoint takes at most {MAX_ALLOWED} `allowed_ips`");
        draft.report.error(list.span, message, "", None);
        return None;
    }
    let nets: Vec<_> = items
        .iter()
        .map(|item| draft.report.parsed(item, "an address", allowed_net))
        .collect();
    let mut nets: Vec<_> = nets.into_iter().collect::<Option<_>>()?;
    nets.sort_unstable();
    nets.dedup();
    Some(nets)
}

/// The most networks of an endpoint.
const MAX_ALLOWED: usize = 4096;
/// The most ports of an endpoint.
const MAX_PORTS: usize = 256;

fn allowed_net(text: &str) -> Result<IpNet, BadEntry> {
    let canonical = text.parse::<IpNet>().map(|net| net.trunc().to_string());
    let net =
        entry::parse_granted(canonical.as_deref().unwrap_or(text)).map_err(|bad| BadEntry {
            part: 0..text.len(),
            ..bad
        })?;
    for class in [Class::Loopback, Class::LinkLocal, Class::Unspecified] {
        if overlaps_class(&net, class) {
            let message = format!("`{text}` has {} addresses in it", class.word());
            let label = "these can never be allowed, and OpenShell refuses the list";
            let help = "write smaller networks";
            return Err(BadEntry::new(0..text.len(), message, label, help));
        }
    }
    Ok(net)
}

/// Where an endpoint leads.
struct Leads {
    whats: Vec<What>,
    addresses: Vec<IpNet>,
    only_addresses: bool,
    listed: Vec<IpNet>,
    /// Whether OpenShell keeps the ports of control planes shut all the same.
    spares_control_plane: bool,
    /// Whether what it lists leaves nothing of it.
    leads_nowhere: bool,
}

fn leads(
    item: &Node<'_>,
    host: Option<&Node<'_>>,
    nets: Vec<IpNet>,
    protocol: Protocol,
    draft: &mut Draft<'_, '_>,
) -> Option<Leads> {
    let Some(host) = host else {
        return without_host(item, nets, protocol, draft);
    };
    let text = draft.report.text(host, "`host`")?;
    if let Ok(Target::Address(address)) = parse_target(text) {
        return to_address(host, address, nets, protocol, draft);
    }
    let what = draft.report.parsed(host, "`host`", host_pattern)?;
    let What::Name(pattern) = &what else {
        return None;
    };
    let exact = pattern.is_exact();
    let the_host = exact && special_str(pattern.as_str()) == Some(Special::HostGateway);
    let constrained = !nets.is_empty();
    let listed = nets.clone();
    let addresses = match (the_host, nets.is_empty()) {
        (true, true) => Vec::new(),
        (true, false) => {
            draft.note("`allowed_ips` says nothing for a name of the host, which leads to the host and nowhere else");
            Vec::new()
        }
        (false, false) => nets,
        (false, true) if exact => {
            draft.note(
                "a host that is written out may resolve to private addresses, as in OpenShell, but not to those of this \
                 machine, of metadata services, or that are reserved; in a converted policy these are the `addresses` of \
                 each such entry: remove them where a host is public",
            );
            PRIVATE.to_vec()
        }
        (false, true) => Vec::new(),
    };
    Some(Leads {
        spares_control_plane: exact || constrained,
        whats: vec![what],
        addresses,
        only_addresses: constrained && !the_host,
        listed,
        leads_nowhere: false,
    })
}

/// Without a host, any name that resolves into the networks is meant, and their addresses.
fn without_host(
    item: &Node<'_>,
    nets: Vec<IpNet>,
    protocol: Protocol,
    draft: &mut Draft<'_, '_>,
) -> Option<Leads> {
    if nets.is_empty() || protocol == Protocol::Tcp {
        let help = "add `host: api.example.com`".to_owned();
        draft
            .report
            .error(item.span, "an endpoint has no `host`", "", Some(help));
        return None;
    }
    draft.note(
        "an endpoint without `host` opens the addresses of its `allowed_ips`, and not the names that resolve to them",
    );
    Some(Leads {
        whats: nets.iter().copied().map(What::Net).collect(),
        addresses: Vec::new(),
        only_addresses: false,
        listed: nets,
        spares_control_plane: true,
        leads_nowhere: false,
    })
}

fn to_address(
    host: &Node<'_>,
    address: IpAddr,
    nets: Vec<IpNet>,
    protocol: Protocol,
    draft: &mut Draft<'_, '_>,
) -> Option<Leads> {
    if protocol == Protocol::Tcp {
        let message = "`protocol: tcp` needs a name as its `host`";
        let help = "leave `protocol` out".to_owned();
        draft.report.error(host.span, message, "", Some(help));
        return None;
    }
    let what = draft.report.parsed(host, "`host`", |text| {
        entry::parse_address(text, Side::Allow)
    })?;
    let leads_nowhere = !nets.is_empty() && !nets.iter().any(|net| net.contains(&address));
    if leads_nowhere {
        let message = "this opens nothing: the address is not among its `allowed_ips`";
        draft.report.warning(host.span, message, "", None);
    }
    Some(Leads {
        whats: vec![what],
        addresses: Vec::new(),
        only_addresses: false,
        listed: nets,
        spares_control_plane: true,
        leads_nowhere,
    })
}

fn host_pattern(text: &str) -> Result<What, BadEntry> {
    let whole = 0..text.len();
    if text
        .trim_end_matches('.')
        .eq_ignore_ascii_case("host.openshell.internal")
    {
        let help = "write `host: host.docker.internal`, which is the same host";
        let message = "Egret does not know the host by this name";
        return Err(BadEntry::new(whole, message, "", help));
    }
    if text.starts_with('.') || text.ends_with('.') {
        let message = "a host neither begins nor ends with a dot here";
        let label = "OpenShell finds no name that is written so";
        let help = "leave the dot out; `**.example.com` means every name below";
        return Err(BadEntry::new(whole, message, label, help));
    }
    if text.contains('*') && text.split('.').count() <= 2 {
        let message = format!(
            "`{}` would match a whole top-level domain",
            text.escape_debug()
        );
        let help = "write a wildcard such as `*.example.com`";
        return Err(BadEntry::new(
            whole,
            message,
            "OpenShell refuses it, too",
            help,
        ));
    }
    entry::parse_host(text, Side::Allow)
}

/// What a host that is written out may resolve to besides public addresses: private networks (RFC 1918, RFC 6598,
/// RFC 4193).
const PRIVATE: &[IpNet] = &[
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([100, 64, 0, 0], 10),
    IpNet::V6(Ipv6Net::new_assert(
        std::net::Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0),
        7,
    )),
];

const fn v4([a, b, c, d]: [u8; 4], len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(
        std::net::Ipv4Addr::new(a, b, c, d),
        len,
    ))
}

/// Ports of etcd, of Kubernetes' API and of its nodes, which OpenShell never opens to what could be a private network.
const CONTROL_PLANE: [u16; 5] = [2379, 2380, 6443, 10250, 10255];

/// Returns the ports that it leaves out.
fn leave_out_control_plane(
    item: &Node<'_>,
    ports: &mut Vec<u16>,
    draft: &mut Draft<'_, '_>,
) -> Vec<u16> {
    let (shut, open) = ports
        .drain(..)
        .partition(|port| CONTROL_PLANE.contains(port));
    *ports = open;
    let shut: Vec<u16> = shut;
    if !shut.is_empty() {
        let ports: Vec<_> = shut.iter().map(u16::to_string).collect();
        let message = format!(
            "port {} stays shut: OpenShell keeps it for control planes",
            ports.join(" and ")
        );
        let help = "a policy of Egret's own can open it".to_owned();
        draft.report.warning(item.span, message, "", Some(help));
    }
    shut
}

/// The text of a field, if it is one.
pub(super) fn is_word(field: Option<&Node<'_>>, word: &str) -> bool {
    field.and_then(text_of) == Some(word)
}
