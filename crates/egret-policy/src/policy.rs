//! The validated policy: what a file and the command line say, before it is compiled for deciding.
//!
//! There is no policy that parsed but cannot be used, and none that grants by being absent: without a file,
//! [`Policy::deny_all`] applies.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;

use crate::cases::Case;
use crate::filesystem::Filesystem;
use crate::inbound::InboundHost;
use crate::matcher::{Compiled, Matcher};
use crate::names::{Special, special_str};
use crate::narrowing::Narrowed;
use crate::pattern::{Pattern, Shape};
use crate::program::{ProgramPattern, Programs};
use crate::report::{Diagnostic, PolicyErrors, Report};
use crate::request::Requests;
use crate::rule::RuleId;
use crate::text::entry::{BadEntry, Side, parse_entry, parse_ports, several_hosts};
use crate::text::yaml::MAX_OCTETS;
use crate::text::yaml::Node;
use crate::text::{foreign, lint, native, source};

/// A validated policy. There is none that parsed but cannot be used.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) name: Option<String>,
    pub(crate) default: Default,
    pub(crate) allow: Vec<Entry>,
    pub(crate) deny: Vec<Entry>,
    pub(crate) host_gateway: Option<HostGatewayPorts>,
    pub(crate) inbound: Vec<InboundHost>,
    pub(crate) filesystem: Filesystem,
    pub(crate) privileged: Option<RuleId>,
    pub(crate) tests: Vec<Case>,
    /// The forms of wildcards inside patterns. Each costs a look-up in every decision, so they are counted.
    pub(crate) shapes: HashSet<Shape>,
    /// What projects' files take away.
    pub(crate) narrowed: Narrowed,
}

/// The most forms of wildcards inside patterns ([`Shape`]) that a policy may have.
pub(crate) const MAX_SHAPES: usize = 256;

/// What happens to a destination that no entry speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    Deny,
    /// It is allowed on these ports, if it is public.
    AllowPublic(Ports),
}

/// One entry of `allow` or `deny`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) what: What,
    pub(crate) ports: Ports,
    pub(crate) addresses: Box<[IpNet]>,
    /// Whether the name may resolve to `addresses` only, and not to any public address besides.
    pub(crate) only_addresses: bool,
    pub(crate) programs: Programs,
    pub(crate) requests: Requests,
    pub(crate) note: Option<Arc<str>>,
    pub(crate) rule: RuleId,
}

impl Entry {
    /// The entry that grants this and nothing special.
    pub(crate) fn new(what: What, ports: Ports, rule: RuleId) -> Self {
        Self {
            what,
            ports,
            addresses: Box::default(),
            only_addresses: false,
            programs: Programs::default(),
            requests: Requests::default(),
            note: None,
            rule,
        }
    }

    /// Whether the two grant or refuse the same, where they name the same.
    pub(crate) fn grants_the_same_as(&self, other: &Self) -> bool {
        self.addresses == other.addresses
            && self.only_addresses == other.only_addresses
            && self.programs == other.programs
            && self.requests == other.requests
    }

    /// Whether it can be enforced only by looking into TLS: requests on its port.
    pub(crate) fn needs_tls_inspection(&self) -> bool {
        let on_443 = match &self.ports {
            Ports::Any | Ports::Web => true,
            Ports::Listed(ports) => ports.contains(&443),
        };
        on_443 && !self.requests.are_all()
    }
}

/// What an entry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Name(Pattern),
    Net(IpNet),
}

impl What {
    /// Whether it is a host-gateway name, written out.
    pub(crate) fn is_host_gateway(&self) -> bool {
        match self {
            Self::Name(pattern) => {
                pattern.is_exact() && special_str(pattern.as_str()) == Some(Special::HostGateway)
            }
            Self::Net(_) => false,
        }
    }
}

/// The ports of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    Any,
    /// 80 and 443.
    Web,
    /// Sorted, without repetitions, not empty.
    Listed(Box<[u16]>),
}

impl Ports {
    pub(crate) fn default_of(side: Side) -> Self {
        match side {
            Side::Allow => Self::Web,
            Side::Deny => Self::Any,
        }
    }

    pub(crate) fn listed(mut ports: Vec<u16>) -> Self {
        ports.sort_unstable();
        ports.dedup();
        Self::Listed(ports.into())
    }

    /// Whether a port is among them.
    pub(crate) fn contain(&self, port: u16) -> bool {
        *self == Self::Any || self.as_slice().contains(&port)
    }

    /// As the tables have them: a single 0 stands for every port.
    pub(crate) fn as_slice(&self) -> &[u16] {
        match self {
            Self::Any => &[0],
            Self::Web => &[80, 443],
            Self::Listed(ports) => ports,
        }
    }
}

/// What [`Policy::parse`] makes of a good text.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The policy.
    pub policy: Policy,
    /// What is valid and probably not meant, in the order of the file, at most a hundred and a count of the rest.
    pub warnings: Vec<Diagnostic>,
    /// The language that it was written in.
    pub language: Language,
    /// What is narrower here than in the system that the policy was written for, and what differs: a sentence each. None
    /// for a policy in Egret's own language.
    pub notes: Vec<String>,
}

/// A language of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Egret's own.
    Native,
    /// Permission profiles of ToolHive.
    ToolHive,
    /// Policies of OpenShell.
    OpenShell,
    /// ACLs of Smokescreen.
    Smokescreen,
}

impl Language {
    /// Its name, as people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "Egret",
            Self::ToolHive => "ToolHive",
            Self::OpenShell => "OpenShell",
            Self::Smokescreen => "Smokescreen",
        }
    }
}

/// A `--allow`, `--deny` or `--allow-docker-gateway`, or a list of ports, that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct FlagError(String);

impl FlagError {
    pub(crate) fn too_many_shapes(what: &str) -> Self {
        Self(format!(
            "{what}: more than {MAX_SHAPES} different forms of wildcards inside patterns"
        ))
    }
}

/// The ports on which the host gateway is opened.
///
/// From the text of `--allow-docker-gateway[=PORTS]`: nothing means any port, otherwise ports with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostGatewayPorts(Option<Vec<u16>>);

impl HostGatewayPorts {
    /// Every port.
    pub const ANY: Self = Self(None);

    /// These ports, in any order.
    ///
    /// # Errors
    /// If there are none, or if one is 0, which is no port.
    pub fn new(ports: Vec<u16>) -> Result<Self, FlagError> {
        match ports.contains(&0) {
            _ if ports.is_empty() => Err(FlagError("there are no ports".to_owned())),
            true => Err(FlagError(
                "0 is not a port: ports are 1 to 65535".to_owned(),
            )),
            false => Ok(Self::listed(ports)),
        }
    }

    pub(crate) fn listed(mut ports: Vec<u16>) -> Self {
        ports.sort_unstable();
        ports.dedup();
        Self(Some(ports))
    }

    /// The ports, in order; none where it is every port.
    pub fn ports(&self) -> Option<&[u16]> {
        self.0.as_deref()
    }

    /// The ports, where they are listed.
    pub(crate) fn listed_ports(&self) -> &[u16] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether the host gateway is opened on this port.
    pub fn contain(&self, port: u16) -> bool {
        match &self.0 {
            None => true,
            Some(ports) => ports.contains(&port),
        }
    }
}

impl FromStr for HostGatewayPorts {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        if text.is_empty() {
            return Ok(Self::ANY);
        }
        let ports =
            parse_ports(text).map_err(|bad| flag_error("--allow-docker-gateway", text, &[bad]))?;
        Ok(Self::listed(ports.as_slice().to_vec()))
    }
}

impl Policy {
    /// Reads a policy, YAML or JSON, in Egret's own language or in that of ToolHive, OpenShell or Smokescreen, which are
    /// told by their shape. `source_name` is how messages and rules name the file.
    ///
    /// # Errors
    /// Everything that is wrong with the text, at once, each with line and column.
    pub fn parse(source_name: &str, text: &[u8]) -> Result<Parsed, PolicyErrors> {
        Self::parse_service(source_name, text, None)
    }

    /// As [`Self::parse`], of a policy that has several services ([`Language::Smokescreen`]): the rules of this one.
    /// Without a name, and for one that the policy does not have, its `default` applies.
    ///
    /// # Errors
    /// As [`Self::parse`]; also where a service is named and the language has none, and where there is no rule to choose.
    pub fn parse_service(
        source_name: &str,
        text: &[u8],
        service: Option<&str>,
    ) -> Result<Parsed, PolicyErrors> {
        let read = |root: &Node<'_>, report: &mut Report<'_>| Self::read(root, service, report);
        let ((policy, language, notes), warnings) =
            source::read(source_name, text, "policy", MAX_OCTETS, read)?;
        Ok(Parsed {
            policy,
            warnings,
            language,
            notes,
        })
    }

    fn read(
        root: &Node<'_>,
        service: Option<&str>,
        report: &mut Report<'_>,
    ) -> (Self, Language, Vec<String>) {
        let language = foreign::recognise(root);
        if service.is_some() && language != Language::Smokescreen {
            let help = "name the file alone, without `#` and what follows it".to_owned();
            let message = "only a policy of Smokescreen has services to choose from";
            report.error(root.span, message, "", Some(help));
        }
        let (policy, spans, notes) = match language {
            Language::Native => {
                let (policy, spans) = native::read(root, report);
                (policy, spans, Vec::new())
            }
            foreign => foreign::read(foreign, root, service, report),
        };
        if !report.has_errors() {
            lint::lint(&policy, &spans, report);
        }
        (policy, language, notes)
    }

    /// The policy that ToolHive has by this name without a file: `none`, or `network`, which is everything public.
    pub fn built_in(name: &str) -> Option<Policy> {
        foreign::built_in(name)
    }

    /// The most octets that [`Policy::parse`] takes.
    pub const MAX_OCTETS: usize = MAX_OCTETS;

    /// The policy that applies where there is no other: nothing is allowed.
    pub fn deny_all() -> Policy {
        Policy {
            name: None,
            default: Default::Deny,
            allow: Vec::new(),
            deny: Vec::new(),
            host_gateway: None,
            inbound: Vec::new(),
            filesystem: Filesystem::default(),
            privileged: None,
            tests: Vec::new(),
            shapes: HashSet::new(),
            narrowed: Narrowed::default(),
        }
    }

    /// Adds `--allow HOST[:PORT[,PORT…]]`; an address or a CIDR stands for an address entry. Without ports: 80 and 443.
    ///
    /// # Errors
    /// What is wrong with the text, in one sentence.
    pub fn add_allow_flag(&mut self, text: &str) -> Result<(), FlagError> {
        let entry = self.flag("--allow", text, Side::Allow)?;
        self.allow.push(entry);
        Ok(())
    }

    /// Adds `--deny HOST[:PORT[,PORT…]]`; an address or a CIDR stands for an address entry. Without ports: all of them.
    ///
    /// # Errors
    /// What is wrong with the text, in one sentence.
    pub fn add_deny_flag(&mut self, text: &str) -> Result<(), FlagError> {
        let entry = self.flag("--deny", text, Side::Deny)?;
        self.deny.push(entry);
        Ok(())
    }

    fn flag(&mut self, flag: &str, text: &str, side: Side) -> Result<Entry, FlagError> {
        let (what, ports) = parse_entry(text, side).map_err(|mut bad| {
            if let (true, Some(first)) = (several_hosts(text), bad.first_mut()) {
                first.help = Some(format!("write {flag} once for each host"));
            }
            flag_error(flag, text, &bad)
        })?;
        self.count_shape(&what);
        if self.shapes.len() > MAX_SHAPES {
            return Err(FlagError::too_many_shapes(&format!("{flag} {text}")));
        }
        Ok(Entry::new(what, ports, RuleId::new(flag.into(), 0)))
    }

    pub(crate) fn count_shape(&mut self, what: &What) {
        if let What::Name(pattern) = what
            && pattern.shape().is_looked_up_by_form()
        {
            self.shapes.insert(pattern.shape());
        }
    }

    /// Opens the host gateway, in addition to what the policy opens of it.
    pub fn grant_host_gateway(&mut self, ports: HostGatewayPorts) {
        self.host_gateway = Some(match (self.host_gateway.take(), ports) {
            (Some(HostGatewayPorts(Some(mut had))), HostGatewayPorts(Some(more))) => {
                had.extend(more);
                HostGatewayPorts::listed(had)
            }
            (None, ports) => ports,
            _ => HostGatewayPorts::ANY,
        });
    }

    /// Allows what no entry speaks of, if it is public, on every port: for a run that is to be learnt from.
    pub fn allow_public(&mut self) {
        self.default = Default::AllowPublic(Ports::Any);
    }

    /// Leaves out the paths of `filesystem: {write}` that are not there, for a policy that was written for the files of an
    /// image. Returns them.
    pub fn leave_out_missing(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<String> {
        let write = &mut self.filesystem.write;
        let (there, missing): (Vec<_>, Vec<_>) =
            write.drain(..).partition(|share| is_there(&share.host));
        *write = there;
        missing.into_iter().map(|share| share.host).collect()
    }

    /// The hosts by which a published port may be addressed, besides the names of this machine's loopback and of the
    /// sandbox.
    pub fn inbound(&self) -> &[InboundHost] {
        &self.inbound
    }

    /// The `filesystem:` section; empty lists where there is none.
    pub fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    /// The policy's `name:`.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether anything of the host gateway is opened, by `host_gateway:`, by the flag, or by an entry that names it.
    pub fn opens_host_gateway(&self) -> bool {
        let by_entry = |entry: &Entry| entry.what.is_host_gateway();
        self.narrowed.no_host.is_none()
            && (self.host_gateway.is_some() || self.allow.iter().any(by_entry))
    }

    /// Whether public destinations are allowed that no entry speaks of.
    pub fn opens_by_default(&self) -> bool {
        self.default != Default::Deny && self.narrowed.only.is_empty()
    }

    /// Whether the host is opened on every port.
    pub fn opens_every_host_port(&self) -> bool {
        let by_entry = |entry: &Entry| entry.what.is_host_gateway() && entry.ports == Ports::Any;
        self.narrowed.no_host.is_none()
            && self.narrowed.only.is_empty()
            && (self.host_gateway == Some(HostGatewayPorts::ANY) || self.allow.iter().any(by_entry))
    }

    /// Whether anything is opened at all, by an entry, the default or the host gateway, be it only for some programs or
    /// requests. What a deny entry leaves of it is not looked at.
    pub fn opens_anything(&self) -> bool {
        !self.allow.is_empty() || self.default != Default::Deny || self.host_gateway.is_some()
    }

    /// Where the policy asks for a privileged program, which could undo its sandbox: whoever makes one refuses that.
    pub fn privileged(&self) -> Option<&RuleId> {
        self.privileged.as_ref()
    }

    /// The first entry that is about some programs only, with `by` or `under`. Where nobody can say which program asks, such
    /// an entry of `allow` allows nothing, and one of `deny` refuses everybody.
    pub fn names_programs(&self) -> Option<&RuleId> {
        let mut entries = self.allow.iter().chain(&self.deny);
        let entry = entries.find(|entry| !entry.programs.are_all());
        entry.map(|entry| &entry.rule)
    }

    /// How many entries `allow` and `deny` have together, those of flags included.
    pub fn entries(&self) -> usize {
        self.allow.len() + self.deny.len()
    }

    /// Compiles the policy for deciding. Takes time and space in proportion to the number of entries and their ports.
    pub fn compile(&self) -> Matcher {
        let host_gateway = self.host_gateway.clone();
        let compiled = Compiled::new(self.default.clone(), host_gateway, &self.allow, &self.deny);
        Matcher::new(compiled.narrowed(&self.narrowed))
    }

    /// Where the policy lists requests on port 443, which only a gateway that looks into TLS can tell apart.
    pub fn needs_tls_inspection(&self) -> Option<&RuleId> {
        let mut entries = self.allow.iter().chain(&self.deny);
        let entry = entries.find(|entry| entry.needs_tls_inspection());
        entry.map(|entry| &entry.rule)
    }

    /// The executables that entries name without wildcards.
    pub fn executables(&self) -> impl Iterator<Item = &str> {
        let entries = self.allow.iter().chain(&self.deny);
        let patterns = entries.flat_map(|entry| entry.programs.iter());
        let plain = patterns.filter(|pattern| !pattern.path.has_wildcards());
        plain.map(|pattern| pattern.path.as_str())
    }

    /// Says that an executable that entries name is a link to another one, which they mean as well then.
    pub fn add_executable_alias(&mut self, link: &str, executable: &str) {
        for entry in self.allow.iter_mut().chain(&mut self.deny) {
            entry.programs.extend(|named| {
                let same = named.path.as_str() == link;
                same.then(|| ProgramPattern::plain(executable, named.descendants))
                    .flatten()
            });
        }
    }
}

pub(crate) fn flag_error(flag: &str, text: &str, bad: &[BadEntry]) -> FlagError {
    let problems = bad.iter().map(|bad| {
        let details = [
            Some(bad.label.as_str()).filter(|label| !label.is_empty()),
            bad.help.as_deref(),
        ];
        let details: Vec<_> = details.into_iter().flatten().collect();
        match details.is_empty() {
            true => bad.message.clone(),
            false => format!("{} ({})", bad.message, details.join("; ")),
        }
    });
    let problems: Vec<_> = problems.collect();
    FlagError(format!(
        "{flag} {}: {}",
        text.escape_debug(),
        problems.join("; ")
    ))
}

#[cfg(test)]
mod tests;
