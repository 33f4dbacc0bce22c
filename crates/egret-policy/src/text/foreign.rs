//! Policies of other systems, recognised by their shape so that one error says what they are.
//!
//! They are not read: each means something else by a host and by a missing port. Where the hosts are few and nothing
//! hangs on the rest, the error shows them in Egret's own form, to be looked over and used.

use crate::text::entry::{Side, parse_entry};
use crate::text::yaml::{Kind, Node, Value};

/// A policy of another system.
pub(crate) struct Foreign {
    /// What it is, with its article.
    pub(crate) what: &'static str,
    /// The key that told.
    pub(crate) key: &'static str,
    /// What to do about it.
    pub(crate) help: String,
}

/// The most hosts that are shown in Egret's own form.
const MOST_SHOWN: usize = 20;

/// What a mapping is, if it is a policy of another system.
pub(crate) fn recognise(root: &Node<'_>) -> Option<Foreign> {
    if let Some(outbound) = get(root, "network").and_then(|network| get(network, "outbound")) {
        return Some(Foreign {
            what: "a ToolHive permission profile",
            key: "network",
            help: own_form(toolhive(outbound), ""),
        });
    }
    if let Some(policies) = get(root, "network_policies") {
        return Some(Foreign {
            what: "an OpenShell policy",
            key: "network_policies",
            help: own_form(openshell(policies), ", for every program and request"),
        });
    }
    let version = get(root, "version").and_then(text);
    if let (Some("v1"), Some(services)) = (version, get(root, "services")) {
        return Some(Foreign {
            what: "a Smokescreen policy",
            key: "services",
            help: own_form(smokescreen(root, services), ""),
        });
    }
    None
}

fn own_form(entries: Option<Vec<String>>, wider: &str) -> String {
    match entries.filter(|entries| (1..=MOST_SHOWN).contains(&entries.len())) {
        Some(entries) => {
            // Quoted as YAML and JSON have it; an entry that parsed has nothing to escape.
            let entries: Vec<_> = entries.iter().map(|entry| format!("\"{entry}\"")).collect();
            let entries = entries.join(", ");
            format!(
                "Egret's own form for its hosts{wider}: `{{\"version\": 1, \"allow\": [{entries}]}}`"
            )
        }
        None => "write a policy of Egret's own, beginning with `version: 1`".to_owned(),
    }
}

/// The hosts of `allow_host`, each on every port of `allow_port`; a leading dot means there what it means here.
fn toolhive(outbound: &Node<'_>) -> Option<Vec<String>> {
    let everything = get(outbound, "insecure_allow_all").and_then(text);
    if everything.is_some_and(|word| word != "false") {
        return None;
    }
    let ports = get(outbound, "allow_port").map_or(Some(Vec::new()), texts)?;
    let hosts = texts(get(outbound, "allow_host")?)?;
    hosts.iter().map(|host| entry(host, &ports)).collect()
}

/// The endpoints of all policies.
fn openshell(policies: &Node<'_>) -> Option<Vec<String>> {
    let Value::Map(policies) = &policies.value else {
        return None;
    };
    let mut entries = Vec::new();
    for (_, policy) in policies {
        for endpoint in list(get(policy, "endpoints")?)? {
            let ports = match (get(endpoint, "ports"), get(endpoint, "port")) {
                (Some(ports), _) => texts(ports)?,
                (None, Some(port)) => vec![text(port)?],
                (None, None) => return None,
            };
            entries.push(entry(text(get(endpoint, "host")?)?, &ports)?);
        }
    }
    Some(entries)
}

/// The domains of the only service, if they are enforced; `*.` means every depth there.
fn smokescreen(root: &Node<'_>, services: &Node<'_>) -> Option<Vec<String>> {
    let others = ["default", "global_allow_list", "global_deny_list"];
    let [service] = list(services)? else {
        return None;
    };
    if others.iter().any(|key| get(root, key).is_some())
        || text(get(service, "action")?)? != "enforce"
    {
        return None;
    }
    let domains = texts(get(service, "allowed_domains")?)?;
    let deep = domains.iter().map(|domain| match domain.starts_with("*.") {
        true => entry(&format!("*{domain}"), &[]),
        false => entry(domain, &[]),
    });
    deep.collect()
}

/// An entry that Egret would take.
fn entry(host: &str, ports: &[&str]) -> Option<String> {
    let entry = match ports {
        [] => host.to_owned(),
        _ => format!("{host}:{}", ports.join(",")),
    };
    parse_entry(&entry, Side::Allow).ok().map(|_| entry)
}

fn get<'n, 's>(map: &'n Node<'s>, name: &str) -> Option<&'n Node<'s>> {
    let Value::Map(pairs) = &map.value else {
        return None;
    };
    let named = |(key, _): &&(Node<'_>, Node<'_>)| text(key) == Some(name);
    pairs.iter().find(named).map(|(_, value)| value)
}

fn list<'n, 's>(value: &'n Node<'s>) -> Option<&'n [Node<'s>]> {
    match &value.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

fn texts<'n>(value: &'n Node<'_>) -> Option<Vec<&'n str>> {
    list(value)?.iter().map(text).collect()
}

fn text<'n>(value: &'n Node<'_>) -> Option<&'n str> {
    match &value.value {
        Value::Scalar(_, Kind::Null) | Value::List(_) | Value::Map(_) => None,
        Value::Scalar(text, _) => Some(text),
    }
}
