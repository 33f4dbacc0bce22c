//! Containers: Egret on Docker, on Podman, and on Podman without root.

mod escapes;
mod failures;
mod host;
mod mcp;
mod plain;
mod root;
mod session;

use serde_json::{Value, json};

use crate::world::World;
use crate::world::engine::Kind;
use crate::world::images::TOOLS;
use crate::world::servers::Service;

/// What makes attempts from inside some container and says how each ended.
type Attempts<'a> = &'a dyn Fn(&[Value]) -> Vec<Value>;

/// Starts a server on the host and tries it at these addresses and names. Says at which it answered.
#[track_caller]
fn reached_on_host(world: &World, hosts: &[String], attempt: Attempts<'_>) -> Vec<String> {
    let port = 9999;
    let server = world.serve_on_machine(port, Service::Http);
    let request = "GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n";
    let attempts: Vec<_> = hosts
        .iter()
        .map(|host| json!({"try": "tcp", "host": host, "port": port, "send": request, "wait": 0.5}))
        .collect();
    let ends = attempt(&attempts);
    assert_eq!(ends.len(), attempts.len(), "{ends:#?}");
    let answered = |end: &Value| end["data"].as_str().unwrap().starts_with("HTTP/1.1 200");
    let reached: Vec<_> = hosts
        .iter()
        .zip(&ends)
        .filter(|(_, end)| answered(end))
        .map(|(host, _)| host.clone())
        .collect();
    assert_eq!(
        world.server(server, |server| server.connections()),
        reached.len(),
        "the server has seen other connections than these: {reached:?}, of {ends:#?}"
    );
    reached
}

/// Every address that any interface of the machine has, container networks included: those of link-local scope with
/// every interface that a container could have.
#[track_caller]
fn host_addresses(world: &World) -> Vec<String> {
    let interfaces: Vec<Value> = serde_json::from_str(&world.machine.sh("ip -j address")).unwrap();
    let mut hosts = Vec::new();
    for interface in &interfaces {
        for address in interface["addr_info"].as_array().unwrap() {
            let local = address["local"].as_str().unwrap();
            if address["scope"] == "link" && address["family"] == "inet6" {
                hosts.extend(["eth0", "tap0", "lo"].map(|name| format!("{local}%{name}")));
            } else {
                hosts.push(local.to_owned());
            }
        }
    }
    assert!(hosts.len() > 8, "{interfaces:#?}");
    // Other ways to write loopback, and what slirp4netns calls the host.
    hosts.extend(["127.0.0.2", "0.0.0.0", "10.0.2.2"].map(str::to_owned));
    hosts
}

/// A world with an engine that has what [`World::run_container`] runs.
#[track_caller]
fn world(kind: Kind) -> World {
    let world = World::with_engine(kind);
    world.import(&TOOLS);
    world
}
