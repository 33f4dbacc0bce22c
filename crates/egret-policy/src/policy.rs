//! The validated policy.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use thiserror::Error;

use crate::destination::{Target, parse_port, parse_target};
use crate::host::Host;
use crate::matcher::nets::NetTable;
use crate::matcher::patterns::NameTable;
use crate::matcher::{Compiled, CompiledEntry, Matcher};
use crate::rule::RuleId;

/// A validated policy. There is none that parsed but cannot be used.
#[derive(Clone, Debug)]
pub struct Policy {
    name: Option<String>,
    default: Default,
    allow: Vec<Entry>,
    deny: Vec<Entry>,
    host_gateway: Option<HostGatewayPorts>,
    filesystem: Filesystem,
}

/// What happens to a destination that no entry speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    Deny,
    AllowPublic,
}

#[derive(Clone, Debug)]
struct Entry {
    what: What,
    /// Sorted; a single 0 stands for every port.
    ports: Arc<[u16]>,
    addresses: Box<[IpNet]>,
    note: Option<Arc<str>>,
    rule: RuleId,
}

#[derive(Clone, Debug)]
enum What {
    Name(Host),
    Net(IpNet),
}

/// What [`Policy::parse`] makes of a good file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The policy.
    pub policy: Policy,
    /// What is probably not meant, in the order of the file.
    pub warnings: Vec<Warning>,
}

/// Something in a policy that is valid and probably not meant.
///
/// Displays with file, line, column, the line itself and an underline, without a line break at the end.
#[derive(Clone, Debug)]
pub struct Warning {
    text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Everything that is wrong with a policy, each with file, line, column, the line itself and an underline.
#[derive(Clone, Debug, Error)]
#[error("{text}")]
pub struct PolicyErrors {
    text: String,
}

/// A `--allow` or `--deny` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct FlagError(String);

/// The ports on which the host gateway is opened. From the text of `--allow-docker-gateway[=PORTS]`: nothing means any
/// port, otherwise ports separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostGatewayPorts(Option<Vec<u16>>);

impl HostGatewayPorts {
    pub(crate) fn contain(&self, port: u16) -> bool {
        match &self.0 {
            None => true,
            Some(ports) => ports.contains(&port),
        }
    }
}

impl FromStr for HostGatewayPorts {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        match text {
            "" => Ok(Self(None)),
            _ => parse_ports(text).map(|ports| Self(Some(ports))),
        }
    }
}

/// The `filesystem:` section, as it was written: `~` and relative paths are the caller's to resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Paths that may be read though they would be hidden.
    pub read: Vec<String>,
    /// Paths that may be written.
    pub write: Vec<String>,
    /// Paths that are not to be there.
    pub hide: Vec<String>,
}

impl Policy {
    /// Reads a policy in Egret's own language, YAML or JSON. `source_name` is how messages and rules name the file.
    ///
    /// # Errors
    /// Everything that is wrong with the text, at once.
    pub fn parse(source_name: &str, _text: &[u8]) -> Result<Parsed, PolicyErrors> {
        Err(PolicyErrors {
            text: format!("error: {source_name}: policy files cannot be read yet"),
        })
    }

    /// The policy that applies where there is no other: nothing is allowed.
    pub fn deny_all() -> Policy {
        Policy {
            name: None,
            default: Default::Deny,
            allow: Vec::new(),
            deny: Vec::new(),
            host_gateway: None,
            filesystem: Filesystem {
                read: Vec::new(),
                write: Vec::new(),
                hide: Vec::new(),
            },
        }
    }

    /// Adds `--allow HOST[:PORT[,PORT…]]`; an address or a CIDR stands for an address entry. Without ports: 80 and 443.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn add_allow_flag(&mut self, text: &str) -> Result<(), FlagError> {
        let entry = parse_flag("--allow", text, &[80, 443])?;
        self.allow.push(entry);
        Ok(())
    }

    /// Adds `--deny HOST[:PORT[,PORT…]]`; an address or a CIDR stands for an address entry. Without ports: all of them.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn add_deny_flag(&mut self, text: &str) -> Result<(), FlagError> {
        let entry = parse_flag("--deny", text, &[0])?;
        self.deny.push(entry);
        Ok(())
    }

    /// Opens the host gateway, in addition to what the policy opens of it.
    pub fn grant_host_gateway(&mut self, ports: HostGatewayPorts) {
        self.host_gateway = Some(match (self.host_gateway.take(), ports) {
            (Some(HostGatewayPorts(Some(mut had))), HostGatewayPorts(Some(more))) => {
                had.extend(more);
                HostGatewayPorts(Some(had))
            }
            (None, ports) => ports,
            _ => HostGatewayPorts(None),
        });
    }

    /// The `filesystem:` section; empty lists where there is none.
    pub fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    /// The policy's `name:`.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Compiles the policy for deciding.
    pub fn compile(&self) -> Matcher {
        let mut compiled = Compiled {
            default: self.default,
            host_gateway: self.host_gateway.clone(),
            entries: Vec::with_capacity(self.allow.len() + self.deny.len()),
            allow_names: NameTable::default(),
            deny_names: NameTable::default(),
            allow_nets: NetTable::default(),
            deny_nets: NetTable::default(),
        };
        for (entry, allow) in self
            .allow
            .iter()
            .map(|e| (e, true))
            .chain(self.deny.iter().map(|e| (e, false)))
        {
            let index = u32::try_from(compiled.entries.len()).unwrap_or(u32::MAX);
            compiled.entries.push(CompiledEntry {
                rule: entry.rule.clone(),
                note: entry.note.clone(),
                addresses: entry.addresses.clone(),
            });
            let (names, nets) = match allow {
                true => (&mut compiled.allow_names, &mut compiled.allow_nets),
                false => (&mut compiled.deny_names, &mut compiled.deny_nets),
            };
            match &entry.what {
                What::Name(name) => names.insert_exact(name.as_str(), &entry.ports, index),
                What::Net(net) => nets.insert(*net, &entry.ports, index),
            }
        }
        Matcher::new(compiled)
    }
}

fn parse_ports(text: &str) -> Result<Vec<u16>, FlagError> {
    let ports: Result<Vec<u16>, _> = text.split(',').map(parse_port).collect();
    ports.map_err(|flaw| FlagError(format!("`{}`: {flaw}", text.escape_debug())))
}

fn parse_flag(flag: &str, text: &str, default_ports: &[u16]) -> Result<Entry, FlagError> {
    let (host, ports) = match text.split_once(':') {
        Some((host, ports)) => (host, parse_ports(ports)?),
        None => (text, default_ports.to_vec()),
    };
    let what = match host.parse::<IpNet>() {
        Ok(net) => What::Net(net),
        Err(_) => match parse_target(host) {
            Ok(Target::Name(name)) => What::Name(name),
            Ok(Target::Address(address)) => What::Net(IpNet::from(address)),
            Err(flaw) => return Err(FlagError(format!("{flag} {}: {flaw}", text.escape_debug()))),
        },
    };
    Ok(Entry {
        what,
        ports: ports.into(),
        addresses: Box::default(),
        note: None,
        rule: RuleId::new(flag.into(), 0),
    })
}
