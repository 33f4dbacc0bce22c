//! Egret's own policy language: from a YAML tree to a [`Policy`].
//!
//! Every key is known, stands once, and has the type it needs; everything that is wrong is reported, not just the first
//! thing.

use std::sync::Arc;

use ipnet::IpNet;

use crate::filesystem::Share;
use crate::inbound::{InboundHost, MAX_INBOUND, parse_inbound};
use crate::policy::{Default, Entry, HostGatewayPorts, MAX_SHAPES, Policy, Ports};
use crate::program::{ProgramPattern, Programs};
use crate::report::{Report, Span};
use crate::request::{RequestRule, Requests};
use crate::rule::RuleId;
use crate::text::advice;
use crate::text::entry::{self, BadEntry, Side};
use crate::text::reader::{MAX_POLICY_NAME, can_be_a_name, shown, text_of};
use crate::text::shares::{check_places, parse_hidden, parse_share};
use crate::text::yaml::{Kind, Node, Value};

mod cases;
pub(crate) mod meant;
mod narrowing;

#[cfg(test)]
pub(crate) use narrowing::KEYS as NARROWING_KEYS;
pub(crate) use narrowing::read_narrowing;

/// What stands before ports in `default:`.
const ALLOW_PUBLIC_ON: &str = "allow-public:";
/// The most items in one entry's `addresses:`.
const MAX_ADDRESSES: usize = 4096;

/// What the warnings are made from, besides the policy: where its entries stand.
#[derive(Default)]
pub(crate) struct Spans {
    pub(crate) allow: Vec<Span>,
    pub(crate) deny: Vec<Span>,
    pub(crate) default: Option<Span>,
    pub(crate) inbound: Vec<Span>,
    pub(crate) tests: Vec<Span>,
}

/// Reads a policy; what is wrong stands in the report afterwards, and then the policy is good for nothing.
pub(crate) fn read(root: &Node<'_>, report: &mut Report<'_>) -> (Policy, Spans) {
    let mut reader = Reader {
        report,
        policy: Policy::deny_all(),
        spans: Spans::default(),
    };
    reader.policy(root);
    (reader.policy, reader.spans)
}

struct Reader<'r, 's> {
    report: &'r mut Report<'s>,
    policy: Policy,
    spans: Spans,
}

pub(crate) const KEYS: &[&str] = &[
    "version",
    "name",
    "default",
    "allow",
    "deny",
    "host_gateway",
    "inbound",
    "filesystem",
    "tests",
];
pub(crate) const HOST_KEYS: &[&str] = &[
    "host",
    "ports",
    "addresses",
    "only_addresses",
    "reason",
    "by",
    "under",
    "http",
];
pub(crate) const ADDRESS_KEYS: &[&str] = &["address", "ports", "reason", "by", "under", "http"];
/// How every port is said in `ports`.
const EVERY_PORT: &str = "every port is `ports: any`";
pub(crate) const FILESYSTEM_KEYS: &[&str] = &["read", "write", "hide"];
pub(crate) const TEST_KEYS: &[&str] = &["allow", "deny", "by", "request", "resolves_to"];

/// Whether a policy has this key somewhere.
pub(crate) fn is_key(word: &str) -> bool {
    KEYS.contains(&word) || home_of(word).is_some()
}

/// Where a key belongs that a policy as a whole does not have.
pub(crate) fn home_of(key: &str) -> Option<&'static str> {
    let homes = [
        (HOST_KEYS, "an entry, in line with its `host`"),
        (ADDRESS_KEYS, "an entry"),
        (FILESYSTEM_KEYS, "`filesystem`"),
        (TEST_KEYS, "a test"),
    ];
    let home = homes.iter().find(|(keys, _)| keys.contains(&key));
    home.map(|(_, home)| *home)
}

impl Reader<'_, '_> {
    fn policy(&mut self, root: &Node<'_>) {
        let Value::Map(pairs) = &root.value else {
            let help = "begin with `version: 1`".to_owned();
            let label = format!("this is {}", root.value.describe());
            return self
                .report
                .error(root.span, "a policy is a mapping", label, Some(help));
        };
        if let Some(at) = meant::settings_of_claude(pairs) {
            let message = "these are settings of Claude's sandbox";
            let help = "docs/guide/policy.md says how they are written here".to_owned();
            return self.report.error(at, message, "", Some(help));
        }
        let mut version = false;
        for (key, value) in self.report.fields(pairs, KEYS, "a policy") {
            match key {
                "version" => {
                    version = true;
                    self.version(value);
                }
                "name" => self.name(value),
                "default" => self.default(value),
                "allow" => {
                    let entries = self.read_entries(value, Side::Allow, "`allow`");
                    (self.policy.allow, self.spans.allow) = entries.into_iter().unzip();
                }
                "deny" => {
                    let entries = self.read_entries(value, Side::Deny, "`deny`");
                    (self.policy.deny, self.spans.deny) = entries.into_iter().unzip();
                }
                "host_gateway" => self.host_gateway(value),
                "inbound" => self.inbound(value),
                "filesystem" => self.filesystem(value),
                _ => self.tests(value),
            }
        }
        // A comment of another language takes a key with it.
        let said = |key: &str| key == "version" || key.ends_with("\"version\"");
        if !version && !pairs.iter().any(|(key, _)| text_of(key).is_some_and(said)) {
            let help = "add `version: 1`".to_owned();
            self.report
                .error(root.span, "the policy has no `version`", "", Some(help));
        }
    }

    fn version(&mut self, value: &Node<'_>) {
        let (message, help) = match &value.value {
            Value::Scalar(text, Kind::Number) if text == "1" => return,
            Value::Scalar(text, Kind::String) if text == "1" => (
                "`version` has to be a number",
                "write `version: 1`, without quotes",
            ),
            _ => (
                "this version of the policy language is not known",
                "write `version: 1`",
            ),
        };
        self.report
            .error(value.span, message, "has to be 1", Some(help.to_owned()));
    }

    fn name(&mut self, value: &Node<'_>) {
        let Some(name) = self.report.text(value, "`name`") else {
            return;
        };
        if !can_be_a_name(name) {
            let label = format!("1 to {MAX_POLICY_NAME} octets that can be shown");
            return self
                .report
                .error(value.span, "this cannot name a policy", label, None);
        }
        self.policy.name = Some(name.to_owned());
    }

    fn default(&mut self, value: &Node<'_>) {
        let word = match &value.value {
            Value::Scalar(word, Kind::Bool) => Some(&**word),
            _ => self.report.text(value, "`default`"),
        };
        let Some(word) = word else {
            return;
        };
        match word {
            "deny" => self.policy.default = Default::Deny,
            "allow-public" => {
                self.policy.default = Default::AllowPublic(Ports::Any);
                self.spans.default = Some(value.span);
            }
            _ if word.starts_with(ALLOW_PUBLIC_ON) => {
                let ports = self.report.parsed(value, "`default`", |word| {
                    let ports = word.strip_prefix(ALLOW_PUBLIC_ON).unwrap_or_default();
                    entry::ports_or(ports, "every port is `allow-public` alone")
                        .map_err(|bad| bad.shift(ALLOW_PUBLIC_ON.len()))
                });
                if let Some(ports) = ports {
                    self.policy.default = Default::AllowPublic(ports);
                    self.spans.default = Some(value.span);
                }
            }
            _ => {
                let label = "`deny`, `allow-public` or `allow-public:PORT[,PORT…]`";
                let message = format!("`{}` is not a default", shown(word));
                let help = Some(advice::default(word));
                self.report.error(value.span, message, label, help);
            }
        }
    }

    /// The entries of a list, each with where it stands.
    fn read_entries(&mut self, value: &Node<'_>, side: Side, what: &str) -> Vec<(Entry, Span)> {
        let mut entries = Vec::new();
        if let Value::Scalar(word, _) = &value.value
            && let Some(help) = advice::hosts(word, side == Side::Allow)
            && !word.is_empty()
        {
            let label = format!("this is {}", value.value.describe());
            let message = format!("{what} has to be a list");
            self.report.error(value.span, message, label, Some(help));
            return entries;
        }
        for item in self.report.list(value, what) {
            let Some(entry) = self.entry(item, side) else {
                continue;
            };
            if self.policy.shapes.len() > MAX_SHAPES {
                self.policy.shapes.clear();
                let message =
                    format!("more than {MAX_SHAPES} different forms of wildcards inside patterns");
                let help = "use `*.` or `**.` in front, which are not limited".to_owned();
                self.report
                    .error(item.span, message, "one more here", Some(help));
            }
            entries.push((entry, item.span));
        }
        entries
    }

    fn entry(&mut self, item: &Node<'_>, side: Side) -> Option<Entry> {
        let rule = RuleId::new(Arc::clone(self.report.file()), item.span.line);
        match &item.value {
            Value::Scalar(text, Kind::String) => match entry::parse_entry(text, side) {
                Ok((what, ports)) => {
                    self.policy.count_shape(&what);
                    Some(Entry::new(what, ports, rule))
                }
                Err(bad) => {
                    for mut bad in bad {
                        if let Some(help) = advice::entry(text) {
                            bad.help = Some(help);
                        } else if entry::several_hosts(text) {
                            bad.help = Some("write an entry for each host".to_owned());
                        }
                        self.report.bad(item, text, bad);
                    }
                    None
                }
            },
            Value::Map(pairs) => self.long_entry(item, pairs, side, rule),
            Value::Scalar(_, Kind::Null) => {
                self.report.error(
                    item.span,
                    "an entry is empty",
                    "write `HOST[:PORT]` here",
                    None,
                );
                None
            }
            other => {
                let label = format!("this is {}", other.describe());
                let help = match other {
                    Value::Scalar(port, Kind::Number) if port.parse::<u16>().is_ok() => {
                        format!("write the host in front of its port: `HOST:{port}`")
                    }
                    Value::Scalar(number, Kind::Number) => advice::network(number)
                        .unwrap_or_else(|| "an address has four numbers".to_owned()),
                    Value::List(_) => "write the entry without brackets around it".to_owned(),
                    _ => "write `HOST[:PORT]`, or a mapping with `host` or `address`".to_owned(),
                };
                self.report.error(
                    item.span,
                    "an entry is a text or a mapping",
                    label,
                    Some(help),
                );
                None
            }
        }
    }

    fn long_entry(
        &mut self,
        item: &Node<'_>,
        pairs: &[(Node<'_>, Node<'_>)],
        side: Side,
        rule: RuleId,
    ) -> Option<Entry> {
        let has = |name: &str| pairs.iter().find(|(key, _)| text_of(key) == Some(name));
        let keys = match (has("host"), has("address")) {
            (Some(_), None) => HOST_KEYS,
            (None, Some(_)) => ADDRESS_KEYS,
            (Some(_), Some((address, _))) => {
                let help = "make it two entries".to_owned();
                self.report.error(
                    address.span,
                    "an entry has `host` or `address`, not both",
                    "",
                    Some(help),
                );
                return None;
            }
            (None, None) => {
                let help = meant::entry(pairs, side);
                let at = pairs.first().map_or(item.span, |(key, _)| key.span);
                self.report
                    .error(at, "the entry has neither `host` nor `address`", "", help);
                return None;
            }
        };
        let (mut what, mut ports, mut addresses, mut note) = (
            None,
            Some(Ports::default_of(side)),
            Some(Box::default()),
            None,
        );
        let (mut programs, mut requests) = (Some(Vec::new()), Some(Vec::new()));
        for (key, value) in self.report.fields(pairs, keys, "an entry") {
            match key {
                "host" => {
                    what = self
                        .report
                        .parsed(value, "`host`", |text| entry::parse_host(text, side))
                }
                "address" => {
                    what = self
                        .report
                        .parsed(value, "`address`", |text| entry::parse_address(text, side))
                }
                "ports" => ports = self.entry_ports(value),
                "addresses" | "only_addresses" if side == Side::Deny => {
                    let help = "to deny addresses, write entries with `address`".to_owned();
                    self.report.error(
                        value.span,
                        format!("`{key}` grants, so it has no meaning under `deny`"),
                        "",
                        Some(help),
                    );
                }
                "only_addresses" if has("addresses").is_some() => {
                    let help =
                        "put all of them into `only_addresses`, or into `addresses`".to_owned();
                    let message = "an entry has `addresses` or `only_addresses`, not both";
                    self.report.error(value.span, message, "", Some(help));
                }
                "addresses" | "only_addresses" => addresses = self.addresses(value, key),
                "reason" => note = self.report.words(value, "`reason`").map(Arc::from),
                "http" if side == Side::Deny && keys == ADDRESS_KEYS => {
                    let help = "say which requests are allowed, under `allow`".to_owned();
                    self.report.error(
                        value.span,
                        "under `deny`, `http` needs a `host`",
                        "",
                        Some(help),
                    );
                }
                "http" => requests = self.all_parsed(value, "`http`", RequestRule::parse),
                key => {
                    let descendants = key == "under";
                    let what = format!("`{key}`");
                    let parse = |text: &str| ProgramPattern::parse(text, descendants);
                    let more = self.all_parsed(value, &what, parse);
                    programs = programs.zip(more).map(|(had, more)| [had, more].concat());
                }
            }
        }
        let (what, ports, addresses) = (what?, ports?, addresses?);
        let (programs, requests) = (programs?, requests?);
        if what.is_host_gateway() && !addresses.is_empty() {
            let at = has("addresses").or(has("only_addresses"));
            let at = at.map_or(item.span, |(key, _)| key.span);
            let help = "leave it out: Egret knows the address".to_owned();
            self.report.error(
                at,
                "a host-gateway name takes no `addresses`",
                "",
                Some(help),
            );
        }
        self.policy.count_shape(&what);
        Some(Entry {
            what,
            ports,
            addresses,
            only_addresses: has("only_addresses").is_some(),
            programs: Programs::new(programs),
            requests: Requests::new(requests),
            note,
            rule,
        })
    }

    fn entry_ports(&mut self, value: &Node<'_>) -> Option<Ports> {
        match &value.value {
            Value::Scalar(word, Kind::String) if word == "any" => Some(Ports::Any),
            Value::Scalar(word, kind @ (Kind::String | Kind::Bool))
                if let Some(help) = advice::ports(word, EVERY_PORT) =>
            {
                let label = if *kind == Kind::Bool {
                    "this is a truth value"
                } else {
                    "this is a text"
                };
                let message = "`ports` has to be a list";
                self.report.error(value.span, message, label, Some(help));
                None
            }
            _ => self.ports(value, "`ports`", EVERY_PORT).map(Ports::listed),
        }
    }

    /// The items of a list, each read by `parse`; none if one of them cannot be, or if there are none.
    fn all_parsed<T>(
        &mut self,
        value: &Node<'_>,
        what: &str,
        parse: impl Fn(&str) -> Result<T, BadEntry>,
    ) -> Option<Vec<T>> {
        let help = match &value.value {
            Value::Map(pairs) => {
                meant::text(pairs, what).map(|text| format!("write `[\"{}\"]`", shown(&text)))
            }
            Value::Scalar(word, _) => advice::narrows(word, what),
            Value::List(_) => None,
        };
        if help.is_some() {
            let label = format!("this is {}", value.value.describe());
            let message = format!("{what} has to be a list");
            self.report.error(value.span, message, label, help);
            return None;
        }
        let items = self.report.list(value, what);
        let parsed = items.iter().map(|item| {
            let what_one = format!("an item of {what}");
            match &item.value {
                Value::Map(pairs) if let Some(text) = meant::text(pairs, what) => {
                    let message = format!("{what_one} has to be a text");
                    let help = Some(format!("write `{}`", shown(&text)));
                    self.report
                        .error(item.span, message, "this is a mapping", help);
                    None
                }
                _ => self.report.parsed(item, &what_one, |text| {
                    parse(text).map_err(|bad| BadEntry {
                        help: advice::narrows(text, what).or(bad.help),
                        ..bad
                    })
                }),
            }
        });
        let parsed: Vec<_> = parsed.collect();
        let parsed: Option<Vec<_>> = parsed.into_iter().collect();
        parsed.filter(|parsed| !parsed.is_empty())
    }

    fn addresses(&mut self, value: &Node<'_>, key: &str) -> Option<Box<[IpNet]>> {
        if let Value::List(items) = &value.value
            && items.len() > MAX_ADDRESSES
        {
            let message = format!("an entry takes at most {MAX_ADDRESSES} `{key}`");
            self.report.error(
                value.span,
                message,
                "",
                Some("use larger networks".to_owned()),
            );
            return None;
        }
        self.all_parsed(value, &format!("`{key}`"), entry::parse_granted)
            .map(Vec::into_boxed_slice)
    }

    fn ports(&mut self, value: &Node<'_>, what: &str, every: &str) -> Option<Vec<u16>> {
        let items = self.report.list(value, what);
        let port = |item: &Node<'_>| self.report.port_or(item, every);
        let ports: Vec<_> = items.iter().map(port).collect();
        let ports: Option<Vec<_>> = ports.into_iter().collect();
        ports.filter(|ports| !ports.is_empty())
    }

    fn host_gateway(&mut self, value: &Node<'_>) {
        self.policy.host_gateway = match &value.value {
            Value::List(_) => self
                .ports(value, "`host_gateway`", advice::OF_THE_HOST)
                .map(HostGatewayPorts::listed),
            Value::Scalar(word, Kind::String) if word == "deny" => None,
            Value::Scalar(word, Kind::String) if word == "allow" => Some(HostGatewayPorts::ANY),
            other => {
                let help = match other {
                    Value::Scalar(word, _) => advice::host_gateway(word),
                    _ => advice::OF_THE_HOST.to_owned(),
                };
                let label = "`deny`, `allow` or a list of ports";
                self.report.error(
                    value.span,
                    "this does not say what is open of the host",
                    label,
                    Some(help),
                );
                None
            }
        };
    }

    fn inbound(&mut self, value: &Node<'_>) {
        let items = self.report.list(value, "`inbound`");
        if items.len() > MAX_INBOUND {
            let message = format!("`inbound` takes at most {MAX_INBOUND} hosts");
            let help = "use wildcards, such as `**.example.com`".to_owned();
            return self.report.error(value.span, message, "", Some(help));
        }
        for item in items {
            let rule = RuleId::new(Arc::clone(self.report.file()), item.span.line);
            if let Some(named) = self
                .report
                .parsed(item, "an item of `inbound`", parse_inbound)
            {
                self.policy.inbound.push(InboundHost::new(named, rule));
                self.spans.inbound.push(item.span);
            }
        }
    }

    fn filesystem(&mut self, value: &Node<'_>) {
        let Value::Map(pairs) = &value.value else {
            let label = format!("this is {}", value.value.describe());
            let help = "write `filesystem: {read: [...], write: [...], hide: [...]}`".to_owned();
            return self
                .report
                .error(value.span, "`filesystem` is a mapping", label, Some(help));
        };
        let mut shares: [Vec<(Span, Share)>; 2] = [Vec::new(), Vec::new()];
        let [read, write] = &mut shares;
        for (key, value) in self.report.fields(pairs, FILESYSTEM_KEYS, "`filesystem`") {
            if key == "hide" {
                self.policy.filesystem.hide = self.hidden(value);
                continue;
            }
            let items = self.report.list(value, &format!("`{key}`"));
            for item in items {
                let share = self.report.parsed(item, "a path", parse_share);
                let list = if key == "read" {
                    &mut *read
                } else {
                    &mut *write
                };
                list.extend(share.map(|share| (item.span, share)));
            }
        }
        check_places(read.iter().chain(&*write), self.report);
        let [read, write] = shares.map(|list| list.into_iter().map(|(_, share)| share).collect());
        self.policy.filesystem.read = read;
        self.policy.filesystem.write = write;
    }

    fn hidden(&mut self, value: &Node<'_>) -> Vec<String> {
        let items = self.report.list(value, "`hide`");
        let path = |item: &Node<'_>| self.report.parsed(item, "a path", parse_hidden);
        items.iter().filter_map(path).collect()
    }
}
