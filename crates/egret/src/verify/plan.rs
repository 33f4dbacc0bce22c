//! What a prober is told to try, and what it tells of it.

use crate::cli;
use egret_policy::{Destination, HostAddresses, HostGatewayPorts, Policy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What there is to try, for the prober in the sandbox.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Plan {
    /// In everything that is sent: what arrives at a sink can be told from what anybody else sends there.
    pub(crate) nonce: String,
    /// The machine's addresses.
    pub(crate) hosts: Vec<IpAddr>,
    /// For each class that has one, a port of the machine where a sink listens.
    pub(crate) ports: BTreeMap<u8, u16>,
    /// The port of a sink for datagrams.
    pub(crate) udp: u16,
    /// An abstract unix socket outside.
    pub(crate) abstract_socket: String,
    /// One that is called as the sockets are by which sandboxes are spoken to.
    pub(crate) control_socket: String,
    /// Unix sockets with paths, outside.
    pub(crate) paths: Vec<PathBuf>,
    /// What is Egret's own and not to be seen or changed.
    pub(crate) own: Vec<PathBuf>,
    /// Processes outside.
    pub(crate) processes: Vec<u32>,
    /// What a sandbox that was made for the prober lets through.
    pub(crate) granted: Option<Granted>,
    /// Where the gateway listens for requests to a proxy, inside.
    pub(crate) proxy: Option<u16>,
    /// What is around the prober.
    pub(crate) around: Around,
    /// Whether the policy lets any public name be reached: then questions about names are answered, and connecting to one
    /// asks about it.
    pub(crate) names_are_open: bool,
    /// Whether the policy opens every port of the machine by its names.
    pub(crate) host_is_open: bool,
}

/// What is around a prober.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Around {
    /// A sealed sandbox, with a gateway.
    Sealed,
    /// A container that has no network, and so no gateway.
    NoNetwork,
    /// Nothing of Egret's: what would change the machine is left out.
    Nothing,
}

/// What is opened for the prober.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Granted {
    /// A port of the machine, by its name `host.docker.internal`, behind which a sink takes what gets through.
    pub(crate) port: u16,
    /// Names below this are allowed on the sinks' ports, and `resolver` says what they resolve to.
    pub(crate) zone: String,
    /// The name server that the gateway asks.
    pub(crate) resolver: SocketAddr,
}

/// What names are below that no policy allows but one that allows all.
pub(crate) const NOBODYS: &str = "nobody.egret.test";

impl Plan {
    /// What everything contains that is sent to try a class.
    pub(crate) fn token(&self, class: u8) -> String {
        format!("t{class:02}-{}", self.nonce)
    }

    /// The class that a token in `bytes` stands for.
    pub(crate) fn class_in(nonce: &str, bytes: &[u8]) -> Option<u8> {
        let tail = format!("-{nonce}");
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let at = text.find(&tail)?;
        text.get(at.checked_sub(2)?..at)?.parse().ok()
    }
}

/// One line of what a prober tells.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Attempt {
    pub(crate) class: u8,
    /// What was tried, in a few words.
    pub(crate) what: String,
    pub(crate) outcome: Outcome,
    /// How long it took, in milliseconds.
    pub(crate) ms: u64,
    /// What has to be on record for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<Recorded>,
}

/// How an attempt went, as seen from inside.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It was refused, in this way.
    Refused(String),
    /// It got through, as this shows.
    Through(String),
    /// It was let go by, and only a sink can tell whether anything arrived.
    Sent,
    /// It could not be made, because: nothing is known then.
    Impossible(String),
    /// It is not one for this sandbox, because.
    NotMeant(String),
}

/// How the record of a refusal is found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Recorded {
    /// By the id in the refusal.
    Id(String),
    /// By the port that was connected to.
    Port(u16),
    /// By the name that was asked about.
    Name(String),
}

// ---- what `egret run` makes of a plan ----

impl Plan {
    /// As an argument.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|_| "this is for `egret verify` to write".into())
    }

    /// Opens to the prober what it needs to be opened.
    pub(crate) fn open(&self, options: &mut cli::Options) {
        let Some(Granted {
            port,
            zone,
            resolver,
        }) = &self.granted
        else {
            return;
        };
        let ports: Vec<String> = self.ports.values().map(u16::to_string).collect();
        options.allow.push(format!("*.{zone}:{}", ports.join(",")));
        options.resolver = vec![resolver.to_string()];
        let given = options.allow_docker_gateway.take();
        options.allow_docker_gateway = match given.as_ref().map(HostGatewayPorts::ports) {
            Some(None) => given,
            Some(Some(ports)) => HostGatewayPorts::new([ports, &[*port]].concat()).ok(),
            None => HostGatewayPorts::new(vec![*port]).ok(),
        };
    }

    /// The prober's arguments where there is no gateway, and nothing that it could be granted.
    pub(crate) fn without_gateway(&self, around: Around) -> Vec<String> {
        let plan = Self {
            granted: None,
            around,
            ..self.clone()
        };
        plan.words()
    }

    fn words(&self) -> Vec<String> {
        let text = serde_json::to_string(self).unwrap_or_else(|error| unreachable!("{error}"));
        vec!["probe".into(), text]
    }

    /// The prober's arguments, in a sandbox where the gateway has this port.
    pub(crate) fn arguments(&self, proxy: u16, opened: Opened) -> Vec<String> {
        let mut plan = self.clone();
        plan.proxy = Some(proxy);
        plan.around = Around::Sealed;
        plan.names_are_open = opened.names;
        plan.host_is_open = opened.machine;
        plan.words()
    }

    /// The same, in a new sandbox under this policy, which may refuse what is meant for the prober.
    pub(crate) fn arguments_under(&self, policy: &Policy, proxy: u16) -> Vec<String> {
        let matcher = policy.compile();
        let hosts = HostAddresses::new([]).with_gateway(vec![Ipv4Addr::LOCALHOST.into()]);
        let port = |class: u8| self.ports.get(&class).copied().unwrap_or_default();
        let may = |host: &str, port: u16| {
            Destination::parse(host, &port.to_string())
                .is_ok_and(|to| matcher.decide(&to, None, &hosts).is_ok())
        };
        let is_allowed = |granted: &Granted| {
            may("host.docker.internal", granted.port)
                && may(&format!("machine.{}", granted.zone), port(14))
        };
        let plan = Self {
            granted: self.granted.clone().filter(is_allowed),
            ..self.clone()
        };
        plan.arguments(proxy, Opened::by(policy))
    }
}

/// What a policy opens on purpose, so that a prober does not take it for a leak. This is what it says, not what is made of
/// it: how it decides is under test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// Every public name.
    names: bool,
    /// Every port of the machine.
    machine: bool,
}

impl Opened {
    pub(crate) fn by(policy: &Policy) -> Self {
        Self {
            names: policy.opens_by_default(),
            machine: policy.opens_every_host_port(),
        }
    }
}
