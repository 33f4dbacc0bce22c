//! Containers: Egret on Docker, on Podman, and on Podman without root.

mod attacks;
mod commands;
mod configuration;
mod escapes;
mod failures;
mod host;
mod images;
mod kills;
mod learn;
mod lifecycle;
mod mcp;
mod plain;
mod root;
mod session;
mod verify;

use serde_json::{Value, json};

use crate::world::World;
use crate::world::engine::Kind;
use crate::world::images::BUSYBOX;
use crate::world::run::Run;
use crate::world::servers::Service;
use crate::world::until;

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
        .map(|host| json!({"try": "tcp", "host": host, "port": port, "send": request, "wait": 2}))
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
    World::with_tools(kind)
}

/// Engines for what is not about addresses: with a daemon, and with neither daemon nor root.
const ROWS: [Kind; 2] = [Kind::Docker, Kind::RootlessPodman];

/// A world with an engine that has Busybox, and Egret's own image, so that what is there can be compared.
#[track_caller]
pub(crate) fn furnished(kind: Kind) -> World {
    let world = World::with_engine(kind);
    world.import(&BUSYBOX);
    world.typed("egret run --rm busybox true").ok();
    world
}

/// What starts Busybox in the foreground, with these options.
fn shell<'w>(world: &'w World, options: &[&str]) -> Run<'w> {
    let kind = world.engine();
    world
        .run_as(kind.user())
        .log(None)
        .args(&["--engine", kind.program(), "--rm"])
        .args(options)
        .image("busybox")
}

/// What is typed, the status that it ends with, and what is on its standard output and standard error, in which `…`
/// stands for anything. Nothing else may be there.
type Step<'a> = (&'a str, i32, &'a str, &'a str);

/// Types one line after the other.
#[track_caller]
fn transcript(world: &World, steps: &[Step<'_>]) {
    for &(line, code, stdout, stderr) in steps {
        let outcome = world.typed(line);
        let (ended, out, err) = (
            outcome.code(),
            outcome.stdout.trim_end(),
            outcome.stderr.trim_end(),
        );
        assert!(
            ended == code && is_like(out, stdout) && is_like(err, stderr),
            "{:?}: {line}\n  wanted {code}, {stdout:?}, {stderr:?}\n  got    {ended}, {out:?}, {err:?}",
            world.engine()
        );
    }
}

/// Whether a text is as a pattern says, in which `…` stands for anything.
pub(crate) fn is_like(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('…') else {
        return text == pattern;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let (between, last) = rest.rsplit_once('…').unwrap_or(("", rest));
    for part in between.split('…') {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}
