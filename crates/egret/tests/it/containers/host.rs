//! The host, which nothing opens but what is said about it: classes 4 and 23 of `docs/bypasses.md`, and the ways to opt in.

use serde_json::json;

use super::{host_addresses, reached_on_host, world};
use crate::escapes::addresses::ALLOW_PUBLIC;
use crate::world::engine::Kind;
use crate::world::probe::attempt;
use crate::world::servers::Service;

/// What engines and Egret call the host.
const NAMES: [&str; 5] = [
    "host.docker.internal",
    "gateway.docker.internal",
    "host.containers.internal",
    "host.egret.internal",
    "localhost",
];

#[test]
fn no_address_of_the_host_leads_there() {
    for kind in Kind::ALL {
        let world = world(kind);
        // Another network, with somebody on it, so that its gateway is there.
        world.docker(&["network", "create", "other"]);
        let sleeper = ["run", "--detach", "--network", "other"];
        let mounts = &crate::world::images::TOOLS_MOUNTS[..];
        world.docker(&[&sleeper, mounts, &["tools", "/bin/sleep", "60"]].concat());
        let mut hosts = host_addresses(&world);
        hosts.extend(NAMES.map(str::to_owned));
        let reached = reached_on_host(&world, &hosts, &|attempts| {
            let (outcome, ends) = attempt(world.run_container().policy(ALLOW_PUBLIC), attempts);
            outcome.silent();
            for (attempt, end) in attempts.iter().zip(&ends) {
                assert_ne!(end["end"], "timeout", "{kind:?}: {attempt}");
            }
            ends
        });
        assert!(reached.is_empty(), "{kind:?}: {reached:?}");
    }
}

#[test]
fn each_way_to_open_the_host_opens_what_it_says() {
    for kind in Kind::ALL {
        let world = world(kind);
        world.serve_on_machine(5432, Service::Http);
        world.serve_on_machine(5433, Service::Http);
        let name = match kind {
            Kind::Docker => "host.docker.internal",
            Kind::Podman | Kind::RootlessPodman => "host.containers.internal",
        };
        // Flags and a policy, and what they open: the host's name on two ports, and an address of the host.
        let by_name = ["--allow", &format!("{name}:5432")];
        #[rustfmt::skip]
        let table: [(&[&str], &str, [bool; 3]); 8] = [
            (&[],                              "",                        [false, false, false]),
            (&["--allow-docker-gateway"],      "",                        [true,  true,  true ]),
            (&["--allow-docker-gateway=5432"], "",                        [true,  false, true ]),
            (&[],                              "host_gateway: allow",     [true,  true,  true ]),
            (&[],                              "host_gateway: [5432]",    [true,  false, true ]),
            (&by_name,                         "",                        [true,  false, false]),
            (&[],                              "default: allow-public",   [false, false, false]),
            (&[],                              AROUND,                    [false, false, false]),
        ];
        for (flags, policy, expected) in table {
            let mut run = world.run_container().args(flags);
            if !policy.is_empty() {
                run = run.policy(&format!("version: 1\n{policy}\n"));
            }
            let get = |host: &str, port: u16| {
                let request =
                    format!("GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
                json!({"try": "tcp", "host": host, "port": port, "send": request})
            };
            let attempts = [get(name, 5432), get(name, 5433), get("172.17.0.1", 5432)];
            let (outcome, ends) = attempt(run, &attempts);
            let reached: Vec<_> = ends
                .iter()
                .map(|end| end["data"].as_str().unwrap().starts_with("HTTP/1.1 200"))
                .collect();
            assert_eq!(
                reached, expected,
                "{kind:?}: {flags:?} {policy}: {ends:#?} {outcome:#?}"
            );
        }
    }
}

/// Patterns and ranges that would match, were the host not apart from everything else.
const AROUND: &str = "default: allow-public
allow: ['**.docker.internal', '**.containers.internal', {address: 172.16.0.0/12, ports: [5432]}, {address: 10.0.0.0/8, ports: [5432]}]";
