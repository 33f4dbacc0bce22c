//! What decisions were based on, as a record tells it: enough to take them once more.

use std::net::IpAddr;

use egret_policy::{HostAddresses, HostGatewayPorts};
use serde::{Deserialize, Serialize};

/// A policy in the form that it was given in, and what counted as the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The file that the policy is from, or the profile that has no file. Without one there are the flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Which of the file's services is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What was in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How long the text is, where it is too long to be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
    /// What `--allow` said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// What `--deny` said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// What `--allow-docker-gateway` said: ports with commas between; nothing between for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_gateway: Option<String>,
    /// The projects' files that took away from all that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub projects: Vec<ProjectFile>,
    /// Whether everything public was allowed besides, to learn from what is reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learning: bool,
    /// The host's addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<IpAddr>,
    /// What the host-gateway names stood for, where that was known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateway: Vec<IpAddr>,
}

/// A project's file, which can only take away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectFile {
    /// Where it lies.
    pub file: String,
    /// What was in it.
    pub text: String,
}

impl Basis {
    /// The longest text that is recorded.
    pub const LONGEST_TEXT: usize = 256 << 10;

    /// With the text of the policy's file, unless it is too long or is none.
    #[must_use]
    pub fn with_text(mut self, text: &[u8]) -> Self {
        match str::from_utf8(text) {
            Ok(text) if text.len() <= Self::LONGEST_TEXT => self.text = Some(text.to_owned()),
            _ => self.left_out = Some(text.len().try_into().unwrap_or(u64::MAX)),
        }
        self
    }

    /// With what `--allow-docker-gateway` said.
    #[must_use]
    pub fn with_host_gateway(mut self, ports: Option<&HostGatewayPorts>) -> Self {
        self.host_gateway = ports.map(|ports| {
            let ports = ports.ports().unwrap_or_default().iter();
            ports.map(u16::to_string).collect::<Vec<_>>().join(",")
        });
        self
    }

    pub(crate) fn with_hosts(mut self, hosts: &HostAddresses) -> Self {
        self.host = hosts.own().to_vec();
        self.gateway = hosts.gateway().to_vec();
        self
    }

    /// What counted as the host.
    pub fn hosts(&self) -> HostAddresses {
        HostAddresses::new(self.host.iter().copied()).with_gateway(self.gateway.clone())
    }
}
