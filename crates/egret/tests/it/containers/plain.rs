//! What a container can do without Egret. Could it do nothing, the other tests in this room would prove nothing.

use serde_json::Value;

use super::{host_addresses, reached_on_host};
use crate::world::World;
use crate::world::engine::Kind;
use crate::world::images::{BUSYBOX, SERVERS, SERVERS_MOUNT, TOOLS, TOOLS_MOUNTS};
use crate::world::probe::{PROGRAM, answered, asked};

#[test]
fn an_internal_network_leads_to_the_host() {
    for kind in [Kind::Docker, Kind::Podman] {
        let world = World::with_engine(kind);
        world.import(&TOOLS);
        world.docker(&[
            "network",
            "create",
            "--internal",
            "--ipv6",
            "--subnet",
            "172.30.0.0/24",
            "--subnet",
            "fd77::/64",
            "inside",
        ]);
        let reached = reached_in(&world, "inside");
        let mut expected = vec!["172.30.0.1", "fd77::1"];
        if kind == Kind::Docker {
            // Its internal networks have a route to everywhere, which ends at the host: it has no rule for what is
            // meant for itself.
            expected.extend(["172.17.0.1", "192.168.7.2", "45.33.32.10"]);
        }
        for address in expected {
            assert!(
                reached.iter().any(|reached| reached == address),
                "{kind:?}: {address} is not in {reached:?}"
            );
        }
        assert!(
            reached.iter().any(|reached| reached.ends_with("%eth0")),
            "{kind:?}: {reached:?}"
        );
    }
}

#[test]
fn a_usual_network_leads_to_the_host() {
    for kind in Kind::ALL {
        let world = World::with_engine(kind);
        world.import(&TOOLS);
        let network = match kind {
            Kind::Docker => "bridge",
            Kind::Podman => "podman",
            Kind::RootlessPodman => "slirp4netns",
        };
        let reached = reached_in(&world, network);
        for address in ["45.33.32.10", "192.168.7.2", "172.17.0.1"] {
            assert!(
                reached.iter().any(|reached| reached == address),
                "{kind:?}: {address} is not in {reached:?}"
            );
        }
    }
}

#[test]
fn an_engine_ends_with_its_machine() {
    for kind in Kind::ALL {
        let world = World::with_engine(kind);
        world.import(&BUSYBOX);
        let before = world.engine_holds();
        world.docker(&["run", "--detach", "--name", "one", "busybox", "sleep", "60"]);
        let holds = world.engine_holds();
        assert!(holds.contains(&"container one".to_owned()), "{holds:?}");
        world.docker(&["kill", "one"]);
        world.docker(&["rm", "--force", "one"]);
        assert_eq!(world.engine_holds(), before);
        world.docker(&["run", "--detach", "busybox", "sleep", "60"]);
        let groups = world.control_groups();
        assert!(groups.iter().all(|group| group.exists()), "{groups:?}");
        drop(world);
        let left: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
        assert!(left.is_empty(), "{kind:?}: {left:?}");
    }
}

#[test]
fn servers_that_others_wrote_run() {
    let world = World::with_engine(Kind::Docker);
    let hello = r#"{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18",
        "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}"#;
    let hello = format!("{}\n", hello.replace('\n', " "));
    for image in &SERVERS {
        world.import(image);
        let run = ["run", "--interactive", "--rm"];
        let args = [&run, &TOOLS_MOUNTS[..], &SERVERS_MOUNT, &[image.name]].concat();
        let answer = world.docker_reading(&hello, &args);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(
            answer["result"]["serverInfo"]["name"].is_string(),
            "{}: {answer:#}",
            image.name
        );
    }
}

/// Where the host is reached from a container on a network.
#[track_caller]
fn reached_in(world: &World, network: &str) -> Vec<String> {
    // Some engines have the network's interface only while a container is on it.
    let sleeper = ["run", "--detach", "--network", network];
    world.docker(
        &[
            &sleeper,
            &TOOLS_MOUNTS[..],
            &[TOOLS.name, "/bin/sleep", "60"],
        ]
        .concat(),
    );
    reached_on_host(world, &host_addresses(world), &|attempts| {
        let run = ["run", "--interactive", "--rm", "--network", network];
        let args = [&run, &TOOLS_MOUNTS[..], &[TOOLS.name], &PROGRAM].concat();
        answered(&world.docker_reading(&asked(attempts), &args))
    })
}
