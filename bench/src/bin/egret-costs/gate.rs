//! The gateway that is measured: on loopback, which is its host, in one thread, until it is killed.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use egret_gateway::{
    Config, Doors, Gateway, HostGateway, InboundHosts, Limits, ResolverConfig, Servers, audit,
};
use egret_policy::{HostAddresses, Policy};

use crate::Error;

/// Serves on ports of its own choice, which it prints. The policy allows `port` of the host, and a name that `names` knows.
pub(crate) fn serve(port: &str, names: &str) -> Result<(), Error> {
    let policy = format!(
        "version: 1\nallow:\n- host.docker.internal:{port}\n- inside.example.com\n- '*.packages.example'\n- a.example\n\
         - b.example\n- c.example\n- d.example\n- e.example\n- f.example\n- g.example\ndeny:\n- stats.packages.example\n"
    );
    let policy = Policy::parse("policy.yaml", policy.as_bytes())?.policy;
    let sandbox = "costs".parse()?;
    let gateway = Gateway::new(Config {
        matcher: Arc::new(policy.compile()),
        hosts: HostAddresses::new([]).with_gateway(vec![Ipv4Addr::LOCALHOST.into()]),
        identify: None,
        resolver: ResolverConfig {
            servers: Servers::These(vec![names.parse()?]),
            hosts_file: None,
        },
        host_gateway: HostGateway::Known,
        inside: None,
        inbound: InboundHosts::new(&sandbox, Vec::new()),
        upstream_proxy: None,
        ask: None,
        limits: Limits::default(),
        audit: audit::Log::to_file("/dev/null")?,
        sandbox,
    })?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (proxy, dns) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
    println!("{} {}", proxy.local_addr()?, dns.local_addr()?);
    std::io::stdout().flush()?;
    let doors = Doors {
        proxy: vec![proxy],
        dns_udp: vec![dns],
        ..Doors::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(gateway.serve(doors))?)
}
