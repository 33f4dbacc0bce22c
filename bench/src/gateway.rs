//! Egret's gateway without a sandbox around its clients: a proxy like others, in the namespace that they are in.
//!
//! What it costs is what the gateway itself costs. What Egret costs above that is the sandbox's part: each packet of a
//! connection in there meets the rules that seal it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use egret_gateway::{
    Config, Doors, Gateway, HostGateway, InboundHosts, Limits, ResolverConfig, audit,
};
use egret_policy::{HostAddresses, Policy, SandboxId};

use crate::{Error, client, world};

/// Serves at `port` for ever.
pub(crate) fn serve(port: u16, policy: &Path, log: &Path) -> Result<(), Error> {
    let policy = Policy::parse("policy", &fs::read(policy)?)?.policy;
    let sandbox: SandboxId = "bench".parse()?;
    client::runtime()?.block_on(async {
        let gateway = Gateway::new(Config {
            inbound: InboundHosts::new(&sandbox, Vec::new()),
            sandbox,
            matcher: Arc::new(policy.compile()),
            hosts: HostAddresses::new(vec![Ipv4Addr::from(world::SUBJECTS).into()]),
            identify: None,
            resolver: ResolverConfig::system(),
            host_gateway: HostGateway::Known,
            inside: None,
            upstream_proxy: None,
            ask: None,
            limits: Limits::default(),
            audit: audit::Log::to_file(log)?,
        })?;
        let doors = Doors {
            proxy: vec![TcpListener::bind((Ipv4Addr::LOCALHOST, port))?],
            ..Doors::default()
        };
        Ok(gateway.serve(doors).await?)
    })
}
