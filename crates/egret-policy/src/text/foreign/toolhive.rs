//! Permission profiles of ToolHive: which hosts and ports its egress proxy lets through, and which files are mounted.
//!
//! The meaning is that of the proxy's rules: hosts and ports have to match both, and a list that is empty does not
//! restrict, unless both are. Sources: `permissions/profile.go` of stacklok/toolhive-core,
//! `pkg/container/docker/{squid,envoy}.go` of stacklok/toolhive.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Draft, host, is_nothing, port_in_host};
use crate::destination::Target;
use crate::filesystem::Share;
use crate::inbound::{MAX_INBOUND, Named, parse_inbound};
use crate::names::{Special, special_str};
use crate::policy::{Ports, What};
use crate::report::{Span, did_you_mean};
use crate::rule::RuleId;
use crate::text::entry::{BadEntry, Side};
use crate::text::reader::{Pairs, shown};
use crate::text::shares::{check_places, share};
use crate::text::yaml::Node;

const KEYS: &[&str] = &["name", "read", "write", "network", "privileged"];
const NETWORK_KEYS: &[&str] = &["mode", "outbound", "inbound"];
/// The most ports of a profile times its hosts: each of its entries has all of them.
const MAX_OPENED: usize = 1_000_000;
const OUTBOUND_KEYS: &[&str] = &["insecure_allow_all", "allow_host", "allow_port"];
const INBOUND_KEYS: &[&str] = &["allow_host"];

pub(super) fn read(pairs: &Pairs<'_>, draft: &mut Draft<'_, '_>) {
    let (mut read, mut write, mut network) = (Vec::new(), Vec::new(), None);
    for (key, value) in draft.report.fields(pairs, KEYS, "a permission profile") {
        match key {
            "name" => draft.name(value),
            "read" => read = mounts(value, "`read`", draft),
            "write" => write = mounts(value, "`write`", draft),
            "network" => network = (!is_nothing(value)).then_some(value),
            _ if draft.report.flag(value, "`privileged`") => privileged(value.span, draft),
            _ => {}
        }
    }
    check_places(read.iter().chain(&write), draft.report);
    draft.policy.filesystem.read = read.into_iter().map(|(_, share)| share).collect();
    draft.policy.filesystem.write = write.into_iter().map(|(_, share)| share).collect();
    match network {
        Some(value) => read_network(value, draft),
        None => draft.note(
            "a profile without `network` opens nothing; ToolHive's Squid proxy lets everything through then, its Envoy \
             proxy nothing",
        ),
    }
}

fn privileged(at: Span, draft: &mut Draft<'_, '_>) {
    let rule = RuleId::new(Arc::clone(draft.report.file()), at.line);
    draft.policy.privileged = Some(rule);
    let message = "a privileged program could undo its sandbox, so this is not run in one";
    let help = "leave `privileged` out; --isolate-network=false runs an image as its engine would";
    draft.report.warning(at, message, "", Some(help.to_owned()));
    draft.note(
        "`privileged` is left out: Egret's own language cannot ask for it, since a privileged program could undo its sandbox",
    );
}

fn read_network(value: &Node<'_>, draft: &mut Draft<'_, '_>) {
    let Some(pairs) = draft.report.pairs(value, "`network`") else {
        return;
    };
    let (mut outbound, mut cut_off) = (None, false);
    for (key, value) in draft.report.fields(pairs, NETWORK_KEYS, "`network`") {
        match key {
            "mode" => cut_off = read_mode(value, draft),
            "outbound" => outbound = draft.report.pairs(value, "`outbound`"),
            _ => read_inbound(value, draft),
        }
    }
    let Some(pairs) = outbound else {
        return;
    };
    let outbound = Outbound::read(pairs, draft);
    match cut_off {
        true if outbound.says_something() => {
            let message = "with `mode: none` there is no network, so `outbound` opens nothing";
            let help = "leave one of the two out".to_owned();
            draft.report.warning(value.span, message, "", Some(help));
        }
        true => {}
        false => outbound.write(draft),
    }
}

/// Whether the mode is to have no network at all.
fn read_mode(value: &Node<'_>, draft: &mut Draft<'_, '_>) -> bool {
    match draft.report.optional_text(value, "`mode`") {
        None | Some("bridge" | "default") => {}
        Some("none") => return true,
        Some(mode) => {
            let message = format!(
                "with `mode: {}`, ToolHive does not isolate the network, which Egret always does",
                shown(mode)
            );
            let meant = did_you_mean(mode, &["bridge", "default", "none"]);
            let help = meant.unwrap_or_else(|| "leave `mode` out".to_owned());
            draft.report.error(value.span, message, "", Some(help));
        }
    }
    false
}

fn read_inbound(value: &Node<'_>, draft: &mut Draft<'_, '_>) {
    let Some(pairs) = draft.report.pairs(value, "`inbound`") else {
        return;
    };
    for (_, value) in draft.report.fields(pairs, INBOUND_KEYS, "`inbound`") {
        let items = draft.report.items(value, "`allow_host`");
        if items.len() > MAX_INBOUND {
            let message = format!("`inbound` takes at most {MAX_INBOUND} hosts");
            return draft.report.error(value.span, message, "", None);
        }
        for item in items {
            if let Some(named) = draft.report.parsed(item, "a host", inbound_host) {
                draft.inbound(named, item.span);
            }
        }
        if !items.is_empty() {
            draft.note(
                "`inbound` adds to localhost and the sandbox's own name, which ToolHive's Squid proxy no longer answers to where \
                 hosts are listed; its Envoy proxy answers to any name",
            );
        }
    }
}

/// What `outbound` says, as far as it could be read.
struct Outbound<'n, 's> {
    /// Where it stands that everything is allowed.
    all: Option<&'n Node<'s>>,
    hosts: Vec<(&'n Node<'s>, What)>,
    /// Hosts that the proxy shuts before it looks at the list.
    shut: Vec<&'n Node<'s>>,
    ports: Vec<u16>,
    ports_at: Option<&'n Node<'s>>,
}

impl<'n, 's> Outbound<'n, 's> {
    fn read(pairs: &'n Pairs<'s>, draft: &mut Draft<'_, '_>) -> Self {
        let mut outbound = Self {
            all: None,
            hosts: Vec::new(),
            shut: Vec::new(),
            ports: Vec::new(),
            ports_at: None,
        };
        for (key, value) in draft.report.fields(pairs, OUTBOUND_KEYS, "`outbound`") {
            match key {
                "insecure_allow_all" => {
                    let all = draft.report.flag(value, "`insecure_allow_all`");
                    outbound.all = all.then_some(value);
                }
                "allow_host" => {
                    for item in draft.report.items(value, "`allow_host`") {
                        let what = draft.report.parsed(item, "a host", allowed_host);
                        match what {
                            Some(Some(what)) => outbound.hosts.push((item, what)),
                            Some(None) => outbound.shut.push(item),
                            None => {}
                        }
                    }
                }
                _ => {
                    let ports = draft.report.items(value, "`allow_port`");
                    outbound.ports = ports
                        .iter()
                        .filter_map(|port| draft.report.port(port))
                        .collect();
                    outbound.ports_at = (!ports.is_empty()).then_some(value);
                }
            }
        }
        outbound
    }

    fn says_something(&self) -> bool {
        self.all.is_some() || self.lists_something()
    }

    fn lists_something(&self) -> bool {
        !self.hosts.is_empty() || !self.shut.is_empty() || self.ports_at.is_some()
    }

    fn write(self, draft: &mut Draft<'_, '_>) {
        for item in &self.shut {
            let message = "this opens nothing: ToolHive shuts the names of the host, listed or not";
            let help = "--allow-docker-gateway opens the host, there and here".to_owned();
            draft.report.warning(item.span, message, "", Some(help));
        }
        if let Some(all) = self.all {
            if self.lists_something() {
                let message = "beside `insecure_allow_all: true`, `allow_host` and `allow_port` restrict nothing";
                let help = "leave `insecure_allow_all` out to have them apply".to_owned();
                draft.report.warning(all.span, message, "", Some(help));
            }
            draft.allow_public(Ports::Any, all.span);
            return draft.note(PUBLIC_ONLY);
        }
        match self.ports_at {
            // Nothing in the list could be used, which is not the same as no list.
            _ if self.hosts.is_empty() && !self.shut.is_empty() => {}
            Some(at) if self.hosts.is_empty() => {
                draft.allow_public(Ports::listed(self.ports), at.span);
                draft.note(PUBLIC_ONLY);
            }
            Some(at) if self.hosts.len().saturating_mul(self.ports.len()) > MAX_OPENED => {
                let message = format!(
                    "a profile can open at most {MAX_OPENED} ports, counted once for each of its hosts"
                );
                let help = "leave `allow_port` out where every port is meant".to_owned();
                draft.report.error(at.span, message, "", Some(help));
            }
            ports_at => {
                let ports = match ports_at {
                    Some(_) => Ports::listed(self.ports),
                    None => Ports::Any,
                };
                for (item, what) in self.hosts {
                    let ports = ports.clone();
                    if let What::Name(_) = what {
                        draft.note(
                            "a host may resolve to public addresses only, while ToolHive's proxies do not look at what it \
                             resolves to; where a private network is meant, `addresses` of Egret's own language opens it",
                        );
                    }
                    let entry = draft.entry(what, ports, item.span);
                    draft.add(Side::Allow, entry, item.span);
                }
            }
        }
    }
}

/// What a default opens.
const PUBLIC_ONLY: &str = "where every host is allowed, that is what is public: no private networks, not this machine, no \
                           metadata services";

/// Reads an item of `outbound`'s `allow_host`; nothing for a name of the host, which the proxies shut whatever is listed.
fn allowed_host(text: &str) -> Result<Option<What>, BadEntry> {
    let written = as_pattern(
        text,
        "and {port} in `allow_port`",
        "for every host write `insecure_allow_all: true`",
    )?;
    if let Ok(Target::Name(name)) = crate::destination::parse_target(&written)
        && special_str(name.as_str()) == Some(Special::HostGateway)
    {
        return Ok(None);
    }
    let whole = 0..text.len();
    let what = match written {
        Cow::Borrowed(text) => host(text, Side::Allow),
        Cow::Owned(below) => {
            host(&below, Side::Allow).map_err(|bad| BadEntry { part: whole, ..bad })
        }
    };
    what.map(Some)
}

/// Reads an item of `inbound`'s `allow_host`.
fn inbound_host(text: &str) -> Result<Named, BadEntry> {
    let written = as_pattern(text, "alone", "name the hosts")?;
    parse_inbound(&written).map_err(|bad| match written {
        Cow::Borrowed(_) => bad,
        Cow::Owned(_) => BadEntry {
            part: 0..text.len(),
            ..bad
        },
    })
}

/// A host of `allow_host` as a pattern of Egret's: a dot in front and `*.` mean the name and everything below it. What to do
/// with a port behind it, and with a `*` alone, is the caller's to say.
fn as_pattern<'t>(text: &'t str, with_port: &str, every: &str) -> Result<Cow<'t, str>, BadEntry> {
    if let Some((host, port)) = port_in_host(text) {
        let part = host.len()..text.len();
        let message = "`allow_host` takes hosts without ports";
        let help = format!("write `{host}` {}", with_port.replace("{port}", port));
        return Err(BadEntry::new(part, message, "not here", help));
    }
    let below = text.strip_prefix("*.").or(text.strip_prefix('.'));
    let rest = below.unwrap_or(text);
    if let Some(at) = rest.find('*') {
        let at = text.len() - rest.len() + at;
        let help = match text {
            "*" => every,
            _ => "write `.example.com` for `example.com` and everything below it",
        };
        let message = "ToolHive knows a `*` only as the whole first label";
        return Err(BadEntry::new(at..at + 1, message, "", help));
    }
    Ok(match below {
        Some(below) => Cow::Owned(format!(".{below}")),
        None => Cow::Borrowed(text),
    })
}

fn mounts(value: &Node<'_>, what: &str, draft: &mut Draft<'_, '_>) -> Vec<(Span, Share)> {
    let items = draft.report.items(value, what);
    if !items.is_empty() {
        draft.note(
            "`read` and `write` are mounted in a container, as there; to what a process sees they add: it has the other files of \
             this machine too, read-only, but for those that hold secrets",
        );
    }
    let shares = items
        .iter()
        .filter_map(|item| Some((item.span, draft.report.parsed(item, "a path", mount)?)));
    shares.collect()
}

/// Reads a mount: a path, or one of this machine and one in the container.
fn mount(text: &str) -> Result<Share, BadEntry> {
    let whole = 0..text.len();
    let bad = |message: String, help: &str| Err(BadEntry::new(whole.clone(), message, "", help));
    if text.contains("://") {
        let message = "mounting a resource is not implemented yet".to_owned();
        return bad(message, "name a path of this machine");
    }
    let drive =
        matches!(text.as_bytes(), [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic());
    if drive || text.starts_with('\\') {
        return bad(
            "this is a path of Windows".to_owned(),
            "name a path of this machine",
        );
    }
    if let Some(c) = text
        .chars()
        .find(|c| matches!(c, '$' | '&' | ';' | '|' | '`' | '\0'))
    {
        let message = format!("ToolHive takes no `{}` in a path", c.escape_debug());
        return bad(message, "");
    }
    let mut parts = text.split(':');
    let (path, inside) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        let message = "a mount is `PATH` or `HOST-PATH:CONTAINER-PATH`".to_owned();
        return bad(message, "");
    }
    if path.is_empty() {
        return bad("this is not a path".to_owned(), "");
    }
    if path.starts_with('~') {
        let message = "ToolHive does not take `~` for the home directory".to_owned();
        return bad(message, "write the path out");
    }
    share(text, path, inside)
}
