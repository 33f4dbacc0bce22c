//! What is not allowed is refused: at once, in the words of the protocol, with its reason on record, and without a packet
//! or a question getting out. One test for each step of the decision, by every door.

use serde_json::{Value, json};

use crate::world::dns::{Data, Reply};
use crate::world::probe::{
    connect, dns, forward, refused, refused_by_then, socks, socks_name, tcp,
};
use crate::world::servers::Service;
use crate::world::{HOST_ADDRESSES, User, World, at};

/// The same destination by every door but DNS.
fn by_every_door<'a>(host: &str, port: u16, reason: &'a str) -> Vec<(Value, &'a str)> {
    let bracketed = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let mut table = vec![
        (connect(&format!("{bracketed}:{port}")), reason),
        (forward(&format!("http://{bracketed}:{port}/")), reason),
        (socks(host, port), reason),
        (socks_name(host, port), reason),
    ];
    if host.parse::<std::net::IpAddr>().is_ok() {
        table.push((tcp(host, port), reason));
    }
    table
}

#[test]
fn nothing_is_reachable_without_a_policy() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve_everywhere(80, Service::Http);
    for user in User::ALL {
        let mut table = by_every_door("www.example.com", 80, "denied.default");
        table.extend(by_every_door(at::PUBLIC, 80, "denied.literal_address"));
        table.extend(by_every_door(at::PUBLIC6, 80, "denied.literal_address"));
        table.push((dns("www.example.com", 1), "denied.default"));
        table.push((tcp("www.example.com", 80), ""));
        refused(world.run_as(user), &table);
    }
}

#[test]
fn a_deny_entry_wins() {
    let world = World::new();
    let policy = "version: 1\nallow: ['**.example.com:443']\ndeny: ['**.internal.example.com', gist.example.com]\n";
    for user in User::ALL {
        let mut table = by_every_door("gist.example.com", 443, "denied.rule");
        table.extend(by_every_door(
            "a.b.internal.example.com",
            443,
            "denied.rule",
        ));
        table.push((dns("gist.example.com", 1), "denied.rule"));
        let outcome = refused(world.run_as(user).policy(policy), &table);
        let record = outcome
            .events("decision")
            .find(|record| record["host"] == "gist.example.com")
            .unwrap();
        assert!(
            record["rule"].as_str().unwrap().ends_with("policy.yaml:3"),
            "{record}"
        );
    }
}

#[test]
fn another_port_than_the_allowed_one_is_refused() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    for user in User::ALL {
        let mut table = by_every_door("www.example.com", 22, "denied.port");
        table.push((tcp("www.example.com", 22), "denied.port"));
        table.push((tcp("www.example.com", 8443), "denied.port"));
        refused(world.run_as(user).allow("www.example.com"), &table);
    }
}

#[test]
fn an_allowed_name_does_not_allow_its_address() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve_everywhere(443, Service::Sink);
    let table = by_every_door(at::PUBLIC, 443, "denied.literal_address");
    refused(world.run_as(User::Alice).allow("www.example.com"), &table);
}

#[test]
fn the_host_is_refused_at_every_address_it_has() {
    let world = World::new();
    let sink = world.serve_on_machine(5432, Service::Sink);
    for user in User::ALL {
        for policy in ["version: 1\n", "version: 1\ndefault: allow-public\n"] {
            let mut table = Vec::new();
            for address in HOST_ADDRESSES {
                table.extend(by_every_door(address, 5432, "denied.host_gateway"));
            }
            for name in [
                "host.docker.internal",
                "gateway.docker.internal",
                "host.containers.internal",
                "host.egret.internal",
            ] {
                table.extend(by_every_door(name, 5432, "denied.host_gateway"));
                table.push((dns(name, 1), "denied.host_gateway"));
            }
            refused(world.run_as(user).policy(policy), &table);
        }
    }
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

#[test]
fn the_host_gateway_opens_the_named_ports_only() {
    let world = World::new();
    let sink = world.serve_on_machine(22, Service::Sink);
    let table = [
        by_every_door("host.docker.internal", 22, ""),
        by_every_door("172.17.0.1", 22, ""),
    ]
    .concat();
    let outcome = refused(
        world
            .run_as(User::Alice)
            .args(&["--allow-docker-gateway=5432,11434"]),
        &table,
    );
    assert!(
        outcome
            .reasons()
            .iter()
            .all(|reason| ["denied.host_gateway", "denied.port"].contains(reason)),
        "{outcome:#?}"
    );
    // An entry with the name opens the name, and not the address, nor another name for the host.
    let table = [
        by_every_door("172.17.0.1", 22, "denied.host_gateway"),
        by_every_door("host.containers.internal", 22, "denied.host_gateway"),
    ];
    refused(
        world.run_as(User::Alice).allow("host.docker.internal:22"),
        &table.concat(),
    );
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

#[test]
fn metadata_services_are_refused_by_address_and_by_name() {
    let world = World::new();
    world.serve_everywhere(80, Service::Sink);
    let policy = "version: 1\ndefault: allow-public\n";
    for user in User::ALL {
        for args in [&[][..], &["--allow-docker-gateway"][..]] {
            let mut table = Vec::new();
            for address in [
                "169.254.169.254",
                "168.63.129.16",
                "100.100.100.200",
                "fd00:ec2::254",
                "169.254.170.2",
                "192.0.0.192",
            ] {
                table.extend(by_every_door(address, 80, "denied.address.metadata"));
            }
            for name in ["metadata.google.internal", "metadata.goog"] {
                table.extend(by_every_door(name, 80, "denied.address.metadata"));
                table.push((dns(name, 1), "denied.address.metadata"));
            }
            refused(world.run_as(user).policy(policy).args(args), &table);
        }
    }
}

#[test]
fn addresses_that_are_not_public_are_refused_even_under_allow_public() {
    let world = World::new();
    world.serve_everywhere(80, Service::Sink);
    #[rustfmt::skip]
    let classes = [
        ("10.20.0.7",        "denied.address.private"),
        ("172.31.255.254",   "denied.address.private"),
        ("192.168.7.1",      "denied.address.private"),
        ("100.64.0.1",       "denied.address.private"),
        ("fd12:1::9",        "denied.address.private"),
        ("169.254.1.1",      "denied.address.link_local"),
        ("fe80::1",          "denied.address.link_local"),
        ("224.0.0.1",        "denied.address.multicast"),
        ("ff02::1",          "denied.address.multicast"),
        ("0.0.0.0",          "denied.address.reserved"),
        ("240.0.0.1",        "denied.address.reserved"),
        ("255.255.255.255",  "denied.address.reserved"),
        ("192.0.2.1",        "denied.address.reserved"),
        ("198.51.100.1",     "denied.address.reserved"),
        ("203.0.113.1",      "denied.address.reserved"),
        ("2001:db8::1",      "denied.address.reserved"),
        ("fec0::1",          ""),
        ("::",               "denied.address.reserved"),
    ];
    let table = classes.map(|(address, reason)| (connect(&authority(address)), reason));
    for user in User::ALL {
        refused(
            world
                .run_as(user)
                .policy("version: 1\ndefault: allow-public\n"),
            &table,
        );
    }
    // Captured. A few of these the kernel refuses before anybody else sees them.
    let table = classes.map(|(address, _)| (tcp(address, 80), ""));
    refused(
        world
            .run_as(User::Alice)
            .policy("version: 1\ndefault: allow-public\n"),
        &table,
    );
}

#[test]
fn loopback_is_the_sandboxs_own_and_never_the_hosts() {
    let world = World::new();
    let sink = world.serve_on_machine(8080, Service::Sink);
    for user in User::ALL {
        for args in [&[][..], &["--allow-docker-gateway"][..]] {
            let table: Vec<_> = [
                "127.0.0.1:8080",
                "127.1.2.3:8080",
                "[::1]:8080",
                "localhost:8080",
                "a.localhost:8080",
            ]
            .map(|authority| (connect(authority), "denied.address.loopback"))
            .into_iter()
            .chain(
                ["127.0.0.1", "127.0.0.53", "::1", "localhost"].map(|host| (tcp(host, 8080), "")),
            )
            .collect();
            refused(world.run_as(user).args(args), &table);
        }
    }
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

#[test]
fn what_a_name_resolves_to_is_vetted() {
    let world = World::new();
    world.serve_everywhere(80, Service::Sink);
    let sink = world.serve_on_machine(80, Service::Sink);
    #[rustfmt::skip]
    let table = [
        ("private.example.com",   &["10.20.0.7"][..],                 "denied.address.private"),
        ("cgnat.example.com",     &["100.64.0.9"],                    "denied.address.private"),
        ("ula.example.com",       &["fd12:1::9"],                     "denied.address.private"),
        ("mixed.example.com",     &["93.184.216.34", "10.20.0.7"],    "denied.address.private"),
        ("mixed6.example.com",    &["93.184.216.34", "fd12:1::9"],    "denied.address.private"),
        ("metadata.example.com",  &["169.254.169.254"],               "denied.address.metadata"),
        ("aws6.example.com",      &["fd00:ec2::254"],                 "denied.address.metadata"),
        ("azure.example.com",     &["168.63.129.16"],                 "denied.address.metadata"),
        ("linklocal.example.com", &["169.254.9.9"],                   "denied.address.link_local"),
        ("loopback.example.com",  &["127.0.0.1"],                     "denied.address.loopback"),
        ("loopback6.example.com", &["::1"],                           "denied.address.loopback"),
        ("mapped.example.com",    &["::ffff:10.20.0.7"],              "denied.address.private"),
        ("mapped2.example.com",   &["::ffff:127.0.0.1"],              "denied.address.loopback"),
        ("nat64.example.com",     &["64:ff9b::10.20.0.7"],            "denied.address.private"),
        ("multicast.example.com", &["224.0.0.9"],                     "denied.address.multicast"),
        ("zero.example.com",      &["0.0.0.0"],                       "denied.address.reserved"),
        ("class-e.example.com",   &["240.0.0.1"],                     "denied.address.reserved"),
        ("docs.example.com",      &["192.0.2.9"],                     "denied.address.reserved"),
        ("six-to-four.example.com", &["2002:0a14:0007::1"],           "denied.address.private"),
        ("lan.example.com",       &["192.168.7.2"],                   "denied.address.host"),
        ("wan.example.com",       &["45.33.32.10"],                   "denied.address.host"),
        ("wan6.example.com",      &["2a01:4f8:1:2::2"],               "denied.address.host"),
        ("docker.example.com",    &["172.17.0.1"],                    "denied.address.host"),
        ("broken.example.com",    &[],                                "denied.resolution"),
    ];
    for (name, addresses, _) in table {
        world.dns.answer(name, addresses);
    }
    world
        .dns
        .script("failing.example.com", vec![Reply::ServFail]);
    for user in User::ALL {
        for door in [
            |host: &str| connect(&format!("{host}:80")),
            |host: &str| tcp(host, 80),
        ] {
            let mut attempts: Vec<_> = table
                .iter()
                .map(|(name, _, reason)| (door(name), *reason))
                .collect();
            attempts.push((door("missing.example.com"), "denied.resolution"));
            attempts.push((door("failing.example.com"), "denied.resolution"));
            refused_by_then(world.run_as(user).allow("**.example.com"), &attempts);
        }
    }
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

#[test]
fn a_private_address_outside_of_what_the_entry_names_is_refused() {
    let world = World::new();
    world.dns.answer("db.corp.example", &["10.21.0.7"]);
    let policy = "version: 1\nallow:\n  - host: db.corp.example\n    ports: [80]\n    addresses: [10.20.0.0/16]\n";
    let (outcome, _) = refused_by_then(
        world.run_as(User::Alice).policy(policy),
        &[(connect("db.corp.example:80"), "denied.address.private")],
    );
    assert_eq!(
        outcome.events("decision").next().unwrap()["addresses"],
        json!(["10.21.0.7"])
    );
}

#[test]
fn aliases_that_lead_inside_are_refused() {
    let world = World::new();
    world.dns.answer("internal.corp.example", &[at::PRIVATE]);
    world
        .dns
        .cname("cdn.example.com", "edge.example.net")
        .cname("edge.example.net", "internal.corp.example");
    world.dns.script(
        "loop.example.com",
        vec![Reply::Records(vec![Data::Cname("loop.example.com".into())])],
    );
    let table = [
        (connect("cdn.example.com:80"), "denied.address.private"),
        (connect("loop.example.com:80"), "denied.resolution"),
    ];
    refused_by_then(world.run_as(User::Alice).allow("*.example.com"), &table);
}

#[test]
fn malformed_destinations_are_refused() {
    let world = World::new();
    let authorities = [
        "www.example.com",
        "www.example.com:",
        "www.example.com:0",
        "www.example.com:65536",
        "www.example.com:007",
        "www.example.com:+80",
        "www.example.com:-1",
        "www..example.com:80",
        ".www.example.com:80",
        "www.example.com..:80",
        "user@www.example.com:80",
        "www.example.com%00:80",
        "www.example.com%2f:80",
        "[fe80::1%25lo]:80",
        "[::1:80",
        "::1:80",
        "www.example.com/x:80",
        "www.example.com\\x:80",
        "www.example.com#x:80",
        "www.example.com?x:80",
        "xn--a.example.com:80",
        "256.1.1.1:80",
        "1.2.3.4.5:80",
        "0x1g.1:80",
        ":80",
        "",
    ];
    let mut table: Vec<_> = authorities
        .map(|authority| (connect(authority), "denied.malformed"))
        .to_vec();
    let long_label = format!("{}.example.com:80", "a".repeat(64));
    let long_name = format!("{}example.com:80", "aaaaaaa.".repeat(32));
    table.extend([
        (connect(&long_label), "denied.malformed"),
        (connect(&long_name), "denied.malformed"),
    ]);
    for host in [
        "www.example.com\0.evil.test",
        "www example.com",
        "www.example.com\t",
        "www.example.com/",
        "",
        "[::1]",
    ] {
        table.push((socks_name(host, 80), "denied.malformed"));
    }
    table.push((json!({"try": "proxy", "send": "GET http://user:pw@www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n"}), "denied.malformed"));
    for user in User::ALL {
        refused(world.run_as(user).allow("**.example.com"), &table);
    }
}

#[test]
fn a_refusal_tells_the_client_what_why_and_what_would_allow_it() {
    let world = World::new();
    let run = world.run_as(User::Alice);
    let client =
        "curl -sS -i http://api.example.com/v1; curl -sS https://api.example.com/; echo $?";
    let outcome = run.client(client).ok();
    assert!(outcome.stdout.starts_with("HTTP/1.1 403"), "{outcome:#?}");
    let body = outcome
        .stdout
        .lines()
        .find(|line| line.starts_with('{'))
        .unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let record = outcome.events("decision").next().unwrap();
    assert_eq!(body["id"], record["id"], "{outcome:#?}");
    assert_eq!(body["reason"], "denied.default");
    assert_eq!(body["destination"], "api.example.com:80");
    assert!(
        body["hint"]
            .as_str()
            .unwrap()
            .contains("--allow api.example.com"),
        "{body}"
    );
    assert!(outcome.stdout.ends_with("56\n"), "{outcome:#?}");
}

/// An address as it stands in an authority, with port 80.
fn authority(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:80")
    } else {
        format!("{address}:80")
    }
}
