//! What the host is, in the engine's eyes: the gateway of every container network.

use super::engine::{Engine, Kind};
use crate::failure::Failure;
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

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
