//! The run configuration: what a container sandbox is, as flags say it and as a file keeps it.
//!
//! `egret export` writes one and `egret run --from-config` reads it; a running sandbox has its own in a label. What a
//! field leaves out it does not grant: a configuration without `allow_docker_gateway` has the host shut. Values of
//! variables that look like secrets are not kept; such a variable is taken from the environment of whoever runs it.

use crate::settings;
use egret_policy::{HostGatewayPorts, SandboxId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The version of the format that this version writes, and reads, besides older ones.
const VERSION: u32 = 1;

/// What a container sandbox is made of. Strings are as the engine's own command line has them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunConfig {
    /// The version of this format.
    pub(crate) version: u32,
    /// The workload's image.
    pub(crate) image: String,
    /// Arguments in place of the image's command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<SandboxId>,
    /// The policy's file, a profile's name, or the policy itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyText>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deny: Vec<String>,
    #[serde(default)]
    pub(crate) allow_docker_gateway: HostAccess,
    #[serde(default, skip_serializing_if = "Isolation::is_default")]
    pub(crate) isolate_network: Isolation,
    #[serde(default)]
    pub(crate) transport: Transport,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target_port: Option<u16>,
    /// `NAME=VALUE`, or `NAME` for what the environment has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env_file: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volume: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mount: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tmpfs: Vec<String>,
    /// `[HOST-IP:][HOST-PORT:]PORT`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) publish: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) label: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) add_host: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) entrypoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pull: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restart: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shm_size: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) read_only: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) init: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) interactive: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) tty: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) no_proxy_env: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resolver: Vec<String>,
    /// For how many seconds what is refused waits for somebody who is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ask: Option<u64>,
    /// Kept without the credentials that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upstream_proxy: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cap_add: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cap_drop: Vec<String>,
    /// Options that weaken a container and that no isolated one may have.
    #[serde(default, skip_serializing_if = "Weakening::is_empty")]
    pub(crate) weakening: Weakening,
}

/// Options of engines that would open the seal. They are here to be refused, or passed on where nothing is sealed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weakening {
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) privileged: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) device: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) security_opt: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes_from: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ipc: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uts: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) userns: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cgroupns: Option<String>,
}

impl Weakening {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a workload is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "bool", into = "bool")]
pub(crate) enum Isolation {
    /// It is, since nothing else was said.
    #[default]
    ByDefault,
    /// It is: that was asked for.
    Asked,
    /// It is not: that was asked for.
    Off,
}

impl Isolation {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_default(&self) -> bool {
        *self == Self::ByDefault
    }
}

impl From<bool> for Isolation {
    fn from(isolate: bool) -> Self {
        if isolate { Self::Asked } else { Self::Off }
    }
}

impl From<Isolation> for bool {
    fn from(isolation: Isolation) -> Self {
        isolation != Isolation::Off
    }
}

/// Which ports of the host are open to the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum HostAccess {
    /// None.
    #[default]
    Off,
    /// These, or every one.
    On(HostGatewayPorts),
}

/// What a client speaks with a server in the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transport {
    /// Standard input and output.
    #[default]
    Stdio,
    /// HTTP, with events as an endless response.
    Sse,
    /// HTTP.
    StreamableHttp,
}

/// Where a run configuration has its policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PolicyText {
    /// `FILE`, `FILE#SERVICE` or the name of a profile.
    Named(String),
    /// The policy itself, as it stands there: what is wrong with it is for those to say who read policies.
    Inline(String),
}

impl<'de> Deserialize<'de> for PolicyText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match text.get().starts_with('"') {
            true => serde_json::from_str(text.get())
                .map(Self::Named)
                .map_err(serde::de::Error::custom),
            false => Ok(Self::Inline(text.get().to_owned())),
        }
    }
}

impl Serialize for PolicyText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => name.serialize(serializer),
            Self::Inline(text) => RawValue::from_string(text.clone())
                .map_err(serde::ser::Error::custom)?
                .serialize(serializer),
        }
    }
}

/// A run configuration that cannot be used, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadConfig(String);

impl RunConfig {
    /// The configuration of a sandbox that runs `image` and may do nothing.
    pub(crate) fn new(image: impl Into<String>) -> Self {
        // The one place that says what is meant by leaving something out is the format itself.
        let least = serde_json::json!({ "version": VERSION, "image": image.into() });
        serde_json::from_value(least).unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// Opens the host to the sandbox: on these ports, or on every one.
    pub(crate) fn with_docker_gateway(mut self, ports: Option<HostGatewayPorts>) -> Self {
        self.allow_docker_gateway = ports.map_or(HostAccess::Off, HostAccess::On);
        self
    }

    /// Opens the host gateway, where it is.
    pub(crate) fn docker_gateway(&self) -> Option<HostGatewayPorts> {
        match &self.allow_docker_gateway {
            HostAccess::Off => None,
            HostAccess::On(ports) => Some(ports.clone()),
        }
    }

    /// Whether its network is that of somebody else, or none, so that there is nothing to seal.
    pub(crate) fn has_foreign_network(&self) -> bool {
        let network = self.network.as_deref().unwrap_or_default();
        matches!(network, "host" | "none")
            || network.starts_with("container:")
            || network.starts_with("ns:")
    }

    /// As it may be kept and shown: without values that look like secrets.
    pub(crate) fn without_secrets(mut self) -> Self {
        for variable in &mut self.env {
            *variable = settings::without_secret(variable);
        }
        self.upstream_proxy = self
            .upstream_proxy
            .map(|url| settings::without_credentials(&url));
        self
    }

    /// The text of a file.
    pub(crate) fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).unwrap_or_else(|error| unreachable!("{error}"));
        text.push('\n');
        text
    }
}

impl FromStr for RunConfig {
    type Err = BadConfig;

    fn from_str(text: &str) -> Result<Self, BadConfig> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let bad = |error: serde_json::Error| BadConfig(error.to_string());
        let Versioned { version } = serde_json::from_str(text).map_err(bad)?;
        if version == 0 || version > VERSION {
            return Err(BadConfig(format!(
                "version {version} is not one that this egret reads; it reads {VERSION}"
            )));
        }
        serde_json::from_str(text).map_err(bad)
    }
}

impl Transport {
    /// Whether it is HTTP on a published port.
    pub(crate) const fn is_http(self) -> bool {
        !matches!(self, Self::Stdio)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdio => "stdio",
            Self::Sse => "sse",
            Self::StreamableHttp => "streamable-http",
        })
    }
}

/// `false`, `true`, or a list of ports.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum HostAccessText {
    Whole(bool),
    Ports(Vec<u16>),
}

impl<'de> Deserialize<'de> for HostAccess {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = HostAccessText::deserialize(deserializer).map_err(|_| {
            serde::de::Error::custom("allow_docker_gateway is true, false or a list of ports")
        })?;
        match text {
            HostAccessText::Whole(false) => Ok(Self::Off),
            HostAccessText::Whole(true) => Ok(Self::On(HostGatewayPorts::ANY)),
            HostAccessText::Ports(ports) => HostGatewayPorts::new(ports)
                .map(Self::On)
                .map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for HostAccess {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = match self {
            Self::Off => HostAccessText::Whole(false),
            Self::On(ports) => match ports.ports() {
                None => HostAccessText::Whole(true),
                Some(ports) => HostAccessText::Ports(ports.to_vec()),
            },
        };
        text.serialize(serializer)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}
