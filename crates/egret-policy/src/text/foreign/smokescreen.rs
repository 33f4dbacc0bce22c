//! Smokescreen's ACLs: which hosts a service may reach.
//!
//! The order is Smokescreen's: what the service's own list names is allowed, then what the global deny list names is
//! denied, then what the global allow list names is allowed, and the rest goes by the service's action. In Egret a
//! denial always wins, so the global denials are taken only as far as they say something for the service. Sources:
//! `pkg/smokescreen/acl/v1/{acl,yaml_loader}.go` and `README.md` of stripe/smokescreen.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::{Draft, host, is_said, port_in_host, scalar};
use crate::addr::{Class, class_of};
use crate::names::{Special, special_str};
use crate::policy::{Ports, What};
use crate::report::{Span, did_you_mean};
use crate::text::entry::{BadEntry, Side};
use crate::text::reader::{Pairs, can_be_a_name, get, list_of, shown};
use crate::text::yaml::{Kind, Node, Value};

const KEYS: &[&str] = &[
    "version",
    "services",
    "default",
    "global_deny_list",
    "global_allow_list",
];
const RULE_KEYS: &[&str] = &[
    "name",
    "project",
    "action",
    "allowed_domains",
    "mitm_domains",
    "allowed_external_proxies",
];
const ACTIONS: &[&str] = &["enforce", "report", "open"];

pub(super) fn read(
    root: &Node<'_>,
    pairs: &Pairs<'_>,
    chosen: Option<&str>,
    draft: &mut Draft<'_, '_>,
) {
    let (mut services, mut default) = (Vec::new(), None);
    let (mut denied, mut allowed) = (Vec::new(), Vec::new());
    for (key, value) in draft.report.fields(pairs, KEYS, "an ACL of Smokescreen's") {
        match key {
            "version" => version(value, draft),
            "services" => services = read_services(value, draft),
            "default" => {
                default = draft
                    .report
                    .pairs(value, "`default`")
                    .map(|pairs| Rule::read(value, pairs, draft))
            }
            "global_deny_list" => denied = domains(value, "`global_deny_list`", Side::Deny, draft),
            _ => allowed = domains(value, "`global_allow_list`", Side::Allow, draft),
        }
    }
    for (key, help) in [
        ("version", "add `version: v1`"),
        ("services", "add `services: []` if there is only a default"),
    ] {
        if get(pairs, key).is_none() {
            let message = format!("the ACL has no `{key}`");
            draft
                .report
                .error(root.span, message, "", Some(help.to_owned()));
        }
    }
    let Some(rule) = choose(root, services, default, chosen, draft) else {
        return;
    };
    draft.policy.name = rule
        .name
        .filter(|name| can_be_a_name(name))
        .map(str::to_owned);
    if let Some(what) = rule.not_yet {
        let (value, key, help) = what;
        draft.not_yet(value, &format!("`{key}`"), help);
    }
    write(&rule, denied, allowed, draft);
}

fn version(value: &Node<'_>, draft: &mut Draft<'_, '_>) {
    if scalar(value) != Some("v1") {
        let message = "this version of Smokescreen's ACLs is not known";
        let help = "write `version: v1`".to_owned();
        draft
            .report
            .error(value.span, message, "has to be v1", Some(help));
    }
}

/// A service, or the default.
struct Rule<'n, 's> {
    span: Span,
    name: Option<&'n str>,
    action: Option<Action>,
    domains: Vec<Domain>,
    /// What the service asks for and Egret does not have; of no concern where another service is chosen.
    not_yet: Option<(&'n Node<'s>, &'static str, &'static str)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Enforce,
    Report(Span),
    Open(Span),
}

/// A host, or what is below one, and where it is listed.
struct Domain {
    span: Span,
    /// As it stands in the file.
    text: String,
    what: What,
}

impl<'n, 's> Rule<'n, 's> {
    fn read(at: &'n Node<'s>, pairs: &'n Pairs<'s>, draft: &mut Draft<'_, '_>) -> Self {
        let mut rule = Self {
            span: at.span,
            name: None,
            action: None,
            domains: Vec::new(),
            not_yet: None,
        };
        for (key, value) in draft.report.fields(pairs, RULE_KEYS, "a service") {
            match key {
                "name" => rule.name = Some(scalar(value).unwrap_or_default()),
                // Whose the service is: of no consequence.
                "project" => {}
                "action" => rule.action = action(value, draft),
                "allowed_domains" => {
                    rule.domains = domains(value, "`allowed_domains`", Side::Allow, draft);
                }
                "mitm_domains" if is_said(value) => {
                    let help = "leave it out: Egret adds no headers to requests";
                    rule.not_yet = Some((value, "mitm_domains", help));
                }
                "allowed_external_proxies" if is_said(value) => {
                    let help = "leave it out: a program cannot choose a further proxy";
                    rule.not_yet = Some((value, "allowed_external_proxies", help));
                }
                _ => {}
            }
        }
        if get(pairs, "action").is_none() {
            let help = format!("add `action: enforce`; it can be {}", list_of(ACTIONS));
            draft
                .report
                .error(at.span, "the service has no `action`", "", Some(help));
        }
        rule
    }
}

fn action(value: &Node<'_>, draft: &mut Draft<'_, '_>) -> Option<Action> {
    match draft.report.text(value, "`action`")? {
        "enforce" => Some(Action::Enforce),
        "report" => Some(Action::Report(value.span)),
        "open" => Some(Action::Open(value.span)),
        word => {
            let message = format!("`{}` is not an action", shown(word));
            let label = "`enforce`, `report` or `open`";
            let help = did_you_mean(word, ACTIONS);
            draft.report.error(value.span, message, label, help);
            None
        }
    }
}

fn read_services<'n, 's>(value: &'n Node<'s>, draft: &mut Draft<'_, '_>) -> Vec<Rule<'n, 's>> {
    let mut services: Vec<Rule<'n, 's>> = Vec::new();
    let mut lines: HashMap<&str, u32> = HashMap::new();
    if let Value::Scalar(_, Kind::Null) = value.value {
        let help = "write `services: []` if there is only a default".to_owned();
        draft
            .report
            .error(value.span, "`services` is empty", "", Some(help));
    }
    for item in draft.report.items(value, "`services`") {
        let Some(pairs) = draft.report.pairs(item, "a service") else {
            if let Value::Scalar(_, Kind::Null) = item.value {
                draft
                    .report
                    .error(item.span, "a service is empty", "", None);
            }
            continue;
        };
        let service = Rule::read(item, pairs, draft);
        let Some(name) = service.name.filter(|name| !name.is_empty()) else {
            let help = "add `name: ...`".to_owned();
            draft
                .report
                .error(item.span, "the service has no `name`", "", Some(help));
            continue;
        };
        match lines.get(name) {
            Some(line) => {
                let message = format!("the service `{}` stands here twice", shown(name));
                let label = format!("it is in line {line} already");
                draft.report.error(item.span, message, label, None);
            }
            None => {
                lines.insert(name, item.span.line);
                services.push(service);
            }
        }
    }
    services
}

/// The rule that applies: the chosen service's; the default for one that is not there, or where none is chosen.
fn choose<'n, 's>(
    root: &Node<'_>,
    services: Vec<Rule<'n, 's>>,
    default: Option<Rule<'n, 's>>,
    chosen: Option<&str>,
    draft: &mut Draft<'_, '_>,
) -> Option<Rule<'n, 's>> {
    let first = services.first().and_then(|service| service.name).map(shown);
    let several = services.len() > 1;
    let there_is = first
        .is_some()
        .then(|| format!("there is {}", listed(&services)));
    let file = draft.report.file().to_string();
    match chosen {
        Some(wanted) => {
            let found = services
                .into_iter()
                .find(|service| service.name == Some(wanted));
            if found.is_none() && default.is_none() {
                let message = format!("there is no service `{}`, and no `default`", shown(wanted));
                draft.report.error(root.span, message, "", there_is);
            } else if let (None, Some(default)) = (&found, &default) {
                let message = format!(
                    "there is no service `{}`: the default applies",
                    shown(wanted)
                );
                draft.report.warning(default.span, message, "", there_is);
            }
            found.or(default)
        }
        None if default.is_some() => default,
        None if several => {
            let message = "this has several services and no `default`";
            let help = format!(
                "name the service behind the file, as `{file}#NAME`: there is {}",
                listed(&services)
            );
            draft.report.error(root.span, message, "", Some(help));
            None
        }
        None => {
            let message =
                "no service is chosen and there is no `default`, so this denies everything";
            let help =
                first.map(|name| format!("name the service behind the file: `{file}#{name}`"));
            draft.report.warning(root.span, message, "", help);
            None
        }
    }
}

/// The names of services for a sentence.
fn listed(services: &[Rule<'_, '_>]) -> String {
    let names = services.iter().filter_map(|service| service.name);
    let shown: Vec<_> = names.take(MOST_LISTED).map(shown).collect();
    let shown: Vec<_> = shown.iter().map(String::as_str).collect();
    let more = if services.len() > MOST_LISTED {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", list_of(&shown))
}

/// The most services that a message names.
const MOST_LISTED: usize = 20;

fn domains(value: &Node<'_>, what: &str, side: Side, draft: &mut Draft<'_, '_>) -> Vec<Domain> {
    let mut domains = Vec::new();
    for item in draft.report.items(value, what) {
        let Some(found) = draft
            .report
            .parsed(item, "a domain", |text| domain(text, side))
        else {
            continue;
        };
        let text = scalar(item).unwrap_or_default();
        match why_never(&found).filter(|_| side == Side::Allow) {
            Some(why) => {
                let message = format!("`{}` opens nothing: {why}", shown(text));
                draft
                    .report
                    .warning(item.span, message, "refused by Smokescreen as well", None);
            }
            None => domains.push(Domain {
                span: item.span,
                text: text.to_owned(),
                what: found,
            }),
        }
    }
    domains
}

/// Reads a domain glob: a name, or `*.` and what is below a name at any depth.
fn domain(text: &str, side: Side) -> Result<What, BadEntry> {
    if let Some((host, port)) = port_in_host(text) {
        let message = "Smokescreen's lists take hosts without ports";
        let help = format!("leave `:{port}` out");
        return Err(BadEntry::new(
            host.len()..text.len(),
            message,
            "not here",
            help,
        ));
    }
    let below = text.strip_prefix("*.");
    let rest = below.unwrap_or(text);
    let at = text.len() - rest.len();
    if let Some(star) = rest.find('*') {
        let message = "Smokescreen knows a `*` only as the whole first label";
        let part = at + star..at + star + 1;
        return Err(BadEntry::new(
            part,
            message,
            "",
            "write `*.example.com` for everything below `example.com`",
        ));
    }
    if rest.starts_with('.') {
        let help = format!("write `*{rest}` for what is below it");
        return Err(BadEntry::new(
            0..text.len(),
            "a domain does not begin with a dot",
            "",
            help,
        ));
    }
    match below {
        Some(rest) => host(&format!("**.{rest}"), side).map_err(|bad| BadEntry {
            part: 0..text.len(),
            message: bad.message.replace("`**.", "`*."),
            ..bad
        }),
        None => host(text, side),
    }
}

/// Why an entry that Smokescreen lists is refused there all the same, for where it leads.
fn why_never(what: &What) -> Option<&'static str> {
    match what {
        What::Name(pattern) => {
            let host =
                pattern.is_exact() && special_str(pattern.as_str()) == Some(Special::HostGateway);
            host.then_some("names of the host lead to private addresses")
        }
        What::Net(net) => {
            let public = class_of(net.addr()) == Class::Public;
            (!public).then_some("the address is not public")
        }
    }
}

fn write(
    rule: &Rule<'_, '_>,
    denied: Vec<Domain>,
    allowed: Vec<Domain>,
    draft: &mut Draft<'_, '_>,
) {
    let open = match rule.action {
        Some(Action::Open(at) | Action::Report(at)) => Some(at),
        Some(Action::Enforce) | None => None,
    };
    if let Some(at) = open {
        draft.allow_public(Ports::Any, at);
    }
    if let Some(Action::Report(_)) = rule.action {
        draft.note("what Smokescreen would report is in the log as `allowed.default_public`: allowed, and by no entry");
    }
    let own = Cover::of(&rule.domains);
    // What the service's own list names whole is allowed before any global list is looked at.
    let denied: Vec<_> = denied
        .into_iter()
        .filter(|deny| !own.covers(&deny.what))
        .collect();
    let shut = Cover::of(&denied);
    let granted: Vec<_> = allowed
        .into_iter()
        .filter(|allow| !shut.covers(&allow.what))
        .collect();
    let needed = open.is_some();
    let wider = Cover::of(&granted);
    let narrowed = shut.with_something_below(&rule.domains);
    for (index, deny) in denied.iter().enumerate() {
        let below = narrowed.get(&index);
        match below {
            // Denied by default as it is, and the denial would take what the service's own list allows.
            Some(_) if !needed && !wider.covers(&deny.what) => continue,
            Some(own) => {
                let own = own
                    .iter()
                    .take(3)
                    .map(|text| format!("`{}`", shown(text)))
                    .collect::<Vec<_>>();
                draft.note(format!(
                    "`{}` of the global deny list also denies {}, which the service's own list allows in Smokescreen",
                    shown(&deny.text),
                    own.join(", "),
                ));
            }
            None => {}
        }
        if let What::Net(_) = deny.what {
            draft.note("an address that is denied is denied to names that resolve to it, too");
        }
        let entry = draft.entry(deny.what.clone(), Ports::Any, deny.span);
        draft.add(Side::Deny, entry, deny.span);
    }
    for allow in rule.domains.iter().chain(&granted) {
        let entry = draft.entry(allow.what.clone(), Ports::Any, allow.span);
        draft.add(Side::Allow, entry, allow.span);
    }
}

/// The names that some domains stand for. Two domains are either apart or one is within the other.
struct Cover<'d> {
    names: HashMap<&'d str, usize>,
    below: HashMap<&'d str, usize>,
    nets: HashSet<IpNet>,
}

impl<'d> Cover<'d> {
    fn of(domains: &'d [Domain]) -> Self {
        let mut cover = Self {
            names: HashMap::new(),
            below: HashMap::new(),
            nets: HashSet::new(),
        };
        for (index, domain) in domains.iter().enumerate() {
            match &domain.what {
                What::Name(pattern) if pattern.is_exact() => {
                    cover.names.insert(pattern.as_str(), index)
                }
                What::Name(pattern) => cover.below.insert(pattern.rest(), index),
                What::Net(net) => {
                    cover.nets.insert(*net);
                    None
                }
            };
        }
        cover
    }

    /// Whether everything that `what` stands for is among the domains.
    fn covers(&self, what: &What) -> bool {
        match what {
            What::Net(net) => self.nets.contains(net),
            What::Name(pattern) if pattern.is_exact() => {
                self.names.contains_key(pattern.as_str())
                    || self.above(pattern.as_str()).next().is_some()
            }
            What::Name(pattern) => {
                self.below.contains_key(pattern.rest())
                    || self.above(pattern.rest()).next().is_some()
            }
        }
    }

    /// The domains that a name is below.
    fn above<'c>(&'c self, name: &'c str) -> impl Iterator<Item = usize> + 'c {
        let parents = std::iter::successors(parent(name), |name| parent(name));
        parents.filter_map(|parent| self.below.get(parent).copied())
    }

    /// For each of these domains, by its place, those of `others` that are within it.
    fn with_something_below<'o>(&self, others: &'o [Domain]) -> HashMap<usize, Vec<&'o str>> {
        let mut found: HashMap<usize, Vec<&str>> = HashMap::new();
        for other in others {
            let What::Name(pattern) = &other.what else {
                continue;
            };
            let own = match pattern.is_exact() {
                true => None,
                false => self.below.get(pattern.rest()).copied(),
            };
            for place in own.into_iter().chain(self.above(pattern.rest())) {
                found.entry(place).or_default().push(&other.text);
            }
        }
        found
    }
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}
