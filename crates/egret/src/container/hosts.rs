//! What the host is, in the engine's eyes: the gateway of every container network.

use super::commands::ask;
use super::engine::{Engine, Kind};
use super::joined;
use super::spec::gateway_name;
use crate::control::{Answer, Request};
use crate::failure::Failure;
use egret_sandbox::addresses;
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::time::Duration;

/// The addresses that are the host, asked for while other things are under way; and what could not be found out.
pub(crate) fn of_engine(engine: &Engine) -> Result<(BTreeSet<IpAddr>, Option<Failure>), Failure> {
    let (gateways, own) = std::thread::scope(|scope| {
        let gateways = scope.spawn(|| network_gateways(engine));
        let own = match engine.remote() {
            None => addresses(),
            Some(machine) => (machine.as_str(), 0)
                .to_socket_addrs()
                .map(|all| all.map(|address| address.ip()).collect()),
        };
        (joined(gateways), own)
    });
    let own = own.map_err(|error| {
        Failure::because("cannot list the addresses of the engine's machine", &error)
    })?;
    let (gateways, unknown) = match gateways? {
        Ok(gateways) => (gateways, None),
        // Addresses of networks that are not known are still private ones, which have to be granted.
        Err(failure) => (BTreeSet::new(), Some(failure)),
    };
    let rootless = engine.kind == Kind::Podman && !rustix::process::geteuid().is_root();
    let unseen = rootless.then_some(ROOTLESS).into_iter().flatten();
    Ok((
        gateways.into_iter().chain(own).chain(unseen).collect(),
        unknown,
    ))
}

/// Tells a sandbox's gateway who the host is, whenever that may have changed, for as long as somebody waits for the sandbox.
/// The bridge of a new network is a new address, too.
pub(crate) fn watch(engine: &Engine, sandbox: &str) {
    const SELDOM: Duration = Duration::from_secs(2);
    let mut known = addresses().unwrap_or_default();
    loop {
        std::thread::sleep(SELDOM);
        // What cannot be found out or told now is tried again.
        if let Ok(now) = addresses()
            && now != known
            && tell(engine, &gateway_name(sandbox), sandbox).is_ok()
        {
            known = now;
        }
    }
}

/// Tells a gateway who the host is now.
pub(crate) fn tell(engine: &Engine, gateway: &str, sandbox: &str) -> Result<(), Failure> {
    let (hosts, unknown) = of_engine(engine)?;
    if let Some(failure) = unknown {
        return Err(failure);
    }
    let hosts = hosts.into_iter().collect();
    match ask(engine, gateway, sandbox, &Request::SetHosts { hosts })? {
        Answer::Done => Ok(()),
        _ => Err(Failure::new(format!(
            "the gateway of {sandbox} was not told who the host is"
        ))),
    }
}

/// The gateways of all networks that the engine has now.
pub(crate) fn network_gateways(engine: &Engine) -> Result<BTreeSet<IpAddr>, Failure> {
    let ask = || {
        let format = match engine.kind {
            Kind::Docker => "{{.ID}}",
            Kind::Podman => "{{.Name}}",
        };
        let networks = engine.output(["network", "ls", "--format", format])?;
        let mut inspect = vec!["network", "inspect"];
        inspect.extend(networks.split_whitespace());
        match inspect.len() {
            2 => Ok("[]".into()),
            _ => engine.output(inspect),
        }
    };
    let failed = |why: &dyn std::error::Error| {
        Failure::because(
            format_args!("cannot ask {} for its networks", engine.kind),
            why,
        )
    };
    let answer = ask().map_err(|complaint: super::engine::Complaint| failed(&complaint))?;
    let networks: Value = serde_json::from_str(&answer).map_err(|error| failed(&error))?;
    Ok(gateways(&networks))
}

/// Addresses that are this machine, or its resolver, in a rootless Podman's networks, whatever is in between: those of
/// slirp4netns(1), and that of pasta(1).
pub(crate) const ROOTLESS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)),
    IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 2)),
];

/// The routers of this machine, of the gateway's container that is: whatever forwards for a container is, or stands for, the
/// host. In rootless networks no engine tells of it otherwise.
pub(crate) fn routers() -> std::io::Result<BTreeSet<IpAddr>> {
    let v4 = std::fs::read_to_string("/proc/net/route")?;
    let mut found: BTreeSet<_> = v4.lines().filter_map(router_v4).collect();
    match std::fs::read_to_string("/proc/net/ipv6_route") {
        Ok(v6) => found.extend(v6.lines().filter_map(router_v6)),
        // No IPv6 in this kernel.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// The gateway in a line of `/proc/net/route`: interface, destination, gateway and more, addresses as the memory has them.
fn router_v4(line: &str) -> Option<IpAddr> {
    let gateway = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
    let address = Ipv4Addr::from(gateway.to_ne_bytes());
    (!address.is_unspecified()).then_some(address.into())
}

/// The next hop in a line of `/proc/net/ipv6_route`: destination and length, source and length, next hop and more.
fn router_v6(line: &str) -> Option<IpAddr> {
    let hop = u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()?;
    let address = Ipv6Addr::from(hop);
    (!address.is_unspecified()).then_some(address.into())
}

/// The gateways in what `network inspect` says, whichever engine said it. Where one is not named, as for Docker's default
/// bridge, it is the subnet's first address.
fn gateways(networks: &Value) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    collect(networks, &mut found);
    found
}

fn collect(value: &Value, found: &mut BTreeSet<IpAddr>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Object(fields) => {
            let text = |names: [&str; 2]| {
                names
                    .into_iter()
                    .find_map(|name| fields.get(name)?.as_str())
            };
            if let Some(gateway) = text(["Gateway", "gateway"]).and_then(address) {
                found.insert(gateway);
            } else if let Some(first) = text(["Subnet", "subnet"]).and_then(first_address) {
                found.insert(first);
            }
            fields.values().for_each(|value| collect(value, found));
        }
        _ => {}
    }
}

/// An address, that of Docker's IPv6 gateways with a prefix length behind it included.
fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

fn first_address(subnet: &str) -> Option<IpAddr> {
    subnet.parse::<IpNet>().ok()?.hosts().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_are_found_in_the_kernels_tables() {
        let little_endian = cfg!(target_endian = "little");
        let line = if little_endian {
            "eth0\t00000000\t010011AC\t0003\t0\t0\t0"
        } else {
            "eth0\t00000000\tAC110001\t0003"
        };
        assert_eq!(router_v4(line), Some("172.17.0.1".parse().unwrap()));
        assert_eq!(router_v4("eth0\t000011AC\t00000000\t0001\t0"), None);
        assert_eq!(router_v4("Iface\tDestination\tGateway \tFlags"), None);
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 00000003 eth0"
        );
        assert_eq!(router_v6(&v6), Some("fe80::1".parse().unwrap()));
        assert_eq!(
            router_v6(&format!(
                "{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo"
            )),
            None
        );
    }

    #[test]
    fn gateways_are_found_in_what_either_engine_says() {
        let docker = serde_json::json!([
            { "Name": "bridge", "IPAM": { "Config": [{ "Subnet": "172.17.0.0/16" }] } },
            { "Name": "mine", "IPAM": { "Config": [{ "Subnet": "10.9.0.0/24", "Gateway": "10.9.0.254" },
                { "Subnet": "fd00:9::/64", "Gateway": "fd00:9::1/64" }] } },
            { "Name": "none", "IPAM": { "Config": [] } },
        ]);
        let podman = serde_json::json!([
            { "name": "podman", "subnets": [{ "subnet": "10.88.0.0/16", "gateway": "10.88.0.1" }] },
            { "name": "bare", "subnets": null },
        ]);
        for (networks, expected) in [
            (docker, &["10.9.0.254", "172.17.0.1", "fd00:9::1"][..]),
            (podman, &["10.88.0.1"]),
        ] {
            let expected: BTreeSet<IpAddr> =
                expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(gateways(&networks), expected);
        }
    }
}
