//! What somebody tries who cannot get through the doors: passing for a part of Egret, or changing what it stands on between
//! two looks. Each was possible once.

use super::{furnished, transcript, until};
use crate::world::World;
use crate::world::engine::Kind;
use crate::world::servers::Service;

/// A sandbox `box` in the background that is allowed nothing, and a server on every address of the host.
fn background(world: &World, options: &str) -> usize {
    let server = world.serve_on_machine(9999, Service::Http);
    world
        .typed(&format!(
            "egret run -d --name box {options} busybox sleep 1000"
        ))
        .ok();
    server
}

/// What Busybox' client says of a connection from `box` to the host's server at an address.
fn asks(world: &World, address: &str) -> String {
    let script = format!(
        "printf 'GET / HTTP/1.0\\r\\nHost: {address}:9999\\r\\n\\r\\n' | nc -w 2 {address} 9999 2>&1 | head -n 1"
    );
    world
        .typed(&format!(
            "egret exec box sh -c \"{}\"",
            script.replace('\\', "\\\\")
        ))
        .stdout
}

#[test]
fn an_interface_that_is_plugged_in_later_leads_nowhere() {
    let world = furnished(Kind::Docker);
    let server = background(&world, "");
    world.docker(&["network", "disconnect", "none", "box-egret-agent"]);
    world.docker(&["network", "connect", "bridge", "box-egret-agent"]);
    let links = world.typed("egret exec box ip -o link").ok().stdout;
    assert!(links.contains("eth0"), "it was not plugged in: {links}");
    for address in ["172.17.0.1", "10.20.0.7", "93.184.216.34"] {
        let said = asks(&world, address);
        assert!(!said.contains("200"), "{address}: {said}");
    }
    world.server(server, |server| assert_eq!(server.connections(), 0));
    world.assert_silent();
    world.typed("egret rm -f box").ok();
}

#[test]
fn an_image_of_the_same_name_is_not_taken_for_egrets_own() {
    for kind in Kind::ALL {
        let world = furnished(kind);
        let own = world.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let own = own
            .lines()
            .find(|name| name.starts_with("localhost/egret:"))
            .unwrap()
            .to_owned();
        world.docker(&["rmi", &own]);
        world.docker(&["tag", "busybox", &own]);
        transcript(
            &world,
            &[("egret run --rm busybox echo works", 0, "works", "")],
        );
        // It was made anew, over the other one.
        let entrypoint = world.docker(&[
            "image",
            "inspect",
            "--format",
            "{{.Config.Entrypoint}}",
            &own,
        ]);
        assert_eq!(entrypoint.trim(), "[/bin/egret]", "{kind:?}");
    }
}

#[test]
fn what_only_has_egrets_labels_is_not_touched() {
    let world = furnished(Kind::Docker);
    background(&world, "");
    let labels = ["dev.egret.sandbox=box", "dev.egret.role=workload"];
    world.docker(&[
        "run", "-d", "--name", "other", "--label", labels[0], "--label", labels[1], "busybox",
        "sleep", "1000",
    ]);
    // A row of a list cannot be made by what stands in a label.
    let forged = "dev.egret.role=x\nother\trunning\tUp\tbusybox\t\tbox\tworkload";
    world.docker(&[
        "run", "-d", "--name", "third", "--label", labels[0], "--label", forged, "busybox",
        "sleep", "1000",
    ]);
    world.docker(&["tag", "busybox", "mine:1"]);
    let hostname = world.typed("egret exec box hostname").ok().stdout;
    assert_eq!(hostname.trim(), "box");
    world.typed("egret stop -t 0 box").ok();
    world.typed("egret rm --all").ok();
    let running = world.docker(&["ps", "--format", "{{.Names}}"]);
    let mut running: Vec<_> = running.lines().collect();
    running.sort_unstable();
    assert_eq!(running, ["other", "third"]);
    assert!(world.docker(&["images"]).contains("mine"));
    // Somebody else's container under the name of one that is gone.
    world
        .typed("egret run -d --name box busybox sleep 1000")
        .ok();
    world.docker(&["rm", "-f", "box"]);
    world.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]);
    world.typed("egret rm -f box").ok();
    assert!(
        world
            .docker(&["ps", "--format", "{{.Names}}"])
            .lines()
            .any(|name| name == "box")
    );
}

#[test]
fn a_container_in_the_gateways_network_cannot_give_it_orders() {
    let world = furnished(Kind::Docker);
    background(&world, "");
    let gateway = "box-egret-gateway";
    let sockets = world.docker(&[
        "run",
        "--rm",
        "--network",
        &format!("container:{gateway}"),
        "busybox",
        "cat",
        "/proc/net/unix",
    ]);
    assert!(!sockets.contains("@egret"), "{sockets}");
    // The gateway's own user can, beside it.
    transcript(
        &world,
        &[(
            "printf 'version: 1\\n' > p.yaml; egret policy set box p.yaml; egret rm -f box",
            0,
            "box",
            "",
        )],
    );
}

#[test]
fn addresses_that_the_machine_gets_later_are_the_hosts() {
    let world = furnished(Kind::Docker);
    let grant = "--allow 172.16.0.0/12:9999 --allow 10.77.0.0/16:9999";
    background(&world, grant);
    world.docker(&["network", "create", "--subnet", "172.30.5.0/24", "later"]);
    world.machine.sh("ip address add 10.77.0.5/24 dev lo");
    world.typed("egret restart -t 0 box").ok();
    for address in ["172.30.5.1", "10.77.0.5"] {
        let said = asks(&world, address);
        assert!(said.contains("403"), "{address}: {said}");
    }
    world.typed("egret rm -f box").ok();

    // As long as somebody waits for it, a sandbox need not be started again.
    let started = format!("egret run --rm --name box {grant} busybox sleep 300 >/dev/null 2>&1 &");
    world.typed(&started);
    until("it runs", || world.typed("egret exec box true").code() == 0);
    world.machine.sh("ip address add 10.77.0.6/24 dev lo");
    until("the gateway knows", || {
        asks(&world, "10.77.0.6").contains("403")
    });
    world.typed("egret rm -f box").ok();
}

#[test]
fn a_path_that_leads_elsewhere_is_not_mounted_again() {
    let world = furnished(Kind::Docker);
    transcript(
        &world,
        &[
            (
                "mkdir -p p/sub other; egret run -d --name box -v ./p/sub:/sub busybox sleep 1000",
                0,
                "box",
                "",
            ),
            ("egret restart -t 0 box", 0, "box", ""),
            ("mv p/sub p/old; ln -s ../other p/sub", 0, "", ""),
            (
                "egret restart -t 0 box",
                125,
                "",
                "egret: -v …/p/sub:/sub: that path leads elsewhere now than when the sandbox was made; …",
            ),
            (
                "egret start box",
                125,
                "",
                "egret: -v …/p/sub:/sub: that path leads elsewhere now…",
            ),
            ("egret rm box", 0, "box", ""),
        ],
    );
}
