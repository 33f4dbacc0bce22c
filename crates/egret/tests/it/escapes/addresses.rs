//! Classes 18 to 23: addresses and ports. What is attempted stands in tables of their own where containers attempt it, too.

use crate::world::probe::{
    Table, attempt, connect, dns, forward, refused, refused_by_then, socks_name, tcp,
};
use crate::world::servers::Service;
use crate::world::{World, at};

everywhere!(
    ipv4_in_any_notation_is_the_address_it_means,
    ipv6_forms_of_ipv4_have_the_class_of_what_is_inside,
    a_mapped_public_address_stays_public,
    zones_are_malformed,
    ranges_with_a_meaning_of_their_own_are_not_public,
    no_grant_reaches_a_metadata_service,
    a_port_is_plain_digits,
    the_hosts_names_are_shut_in_every_spelling,
    a_granted_alias_cannot_be_pointed_elsewhere_from_inside,
);

pub(crate) const ALLOW_PUBLIC: &str = "version: 1\ndefault: allow-public\n";

fn ipv4_in_any_notation_is_the_address_it_means(world: &World) {
    let sink = world.serve_on_machine(80, Service::Sink);
    for place in world.places() {
        refused(world.run_in(place).policy(ALLOW_PUBLIC), &ipv4_notations());
    }
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

/// Where everything public is allowed.
fn ipv4_notations() -> Table {
    #[rustfmt::skip]
    let table = [
        ("127.1",               "denied.address.loopback"),
        ("2130706433",          "denied.address.loopback"),
        ("0x7f000001",          "denied.address.loopback"),
        ("0x7f.1",              "denied.address.loopback"),
        ("017700000001",        "denied.address.loopback"),
        ("0177.0.0.1",          "denied.address.loopback"),
        ("127.0.1",             "denied.address.loopback"),
        ("0x7F.0x0.0x0.0x1",    "denied.address.loopback"),
        ("169.254.43518",       "denied.address.metadata"),
        ("2852039166",          "denied.address.metadata"),
        ("0xA9FEA9FE",          "denied.address.metadata"),
        ("0251.0376.0251.0376", "denied.address.metadata"),
        ("10.1",                "denied.address.private"),
        ("012.0.0.1",           "denied.address.private"),
        ("0xa.0x14.7",          "denied.address.private"),
        ("0",                   "denied.address.reserved"),
        ("172.17.1",            "denied.host_gateway"),
        ("2886795265",          "denied.host_gateway"),
        ("3232237314",          "denied.host_gateway"),
    ];
    table
        .iter()
        .flat_map(|(host, reason)| {
            [
                (connect(&format!("{host}:80")), *reason),
                (forward(&format!("http://{host}/")), *reason),
                (socks_name(host, 80), *reason),
                (tcp(host, 80), ""),
            ]
        })
        .collect()
}

fn ipv6_forms_of_ipv4_have_the_class_of_what_is_inside(world: &World) {
    let sink = world.serve_on_machine(80, Service::Sink);
    world.serve_everywhere(80, Service::Sink);
    for place in world.places() {
        refused(world.run_in(place).policy(ALLOW_PUBLIC), &ipv6_forms());
    }
    // The same as answers.
    let mut attempts = Vec::new();
    for (number, (address, _)) in IPV6_FORMS.iter().enumerate() {
        let name = format!("v{number}.example.com");
        world.dns.answer(&name, &[address]);
        attempts.push((connect(&format!("{name}:80")), ""));
    }
    let (outcome, _) = refused_by_then(world.run().policy(ALLOW_PUBLIC), &attempts);
    assert!(
        outcome
            .reasons()
            .iter()
            .all(|reason| reason.starts_with("denied.address.")),
        "{outcome:#?}"
    );
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

/// Where everything public is allowed.
fn ipv6_forms() -> Table {
    IPV6_FORMS
        .iter()
        .flat_map(|(host, reason)| {
            [
                (connect(&format!("[{host}]:80")), *reason),
                (tcp(host, 80), ""),
            ]
        })
        .collect()
}

#[rustfmt::skip]
const IPV6_FORMS: [(&str, &str); 14] = [
    ("::ffff:127.0.0.1",             "denied.address.loopback"),
    ("::ffff:10.20.0.7",             "denied.address.private"),
    ("::ffff:a9fe:a9fe",             "denied.address.metadata"),
    ("::ffff:172.17.0.1",            "denied.host_gateway"),
    ("::10.20.0.7",                  "denied.address.private"),   // compatible
    ("::ffff:0:10.20.0.7",           "denied.address.private"),   // translated
    ("64:ff9b::10.20.0.7",           "denied.address.private"),   // NAT64
    ("64:ff9b::169.254.169.254",     "denied.address.metadata"),
    ("64:ff9b:1::10.20.0.7",         ""),                         // local NAT64 prefix
    ("2002:0a14:0007::1",            "denied.address.private"),   // 6to4
    ("2002:5db8:d822::1",            "denied.address.reserved"),
    ("2001:0:4136:e378:8000:63bf:f5eb:fff8", "denied.address.private"), // Teredo of 10.20.0.7
    ("fe80::5efe:10.20.0.7",         ""),                         // ISATAP
    ("2606:2800:220:1:0:5efe:10.20.0.7", "denied.address.private"),
];

fn a_mapped_public_address_stays_public(world: &World) {
    world.serve("93.184.216.34:7000", Service::Echo);
    let (outcome, ends) = attempt(
        world.run().policy(ALLOW_PUBLIC),
        &[tcp("::ffff:93.184.216.34", 7000)],
    );
    assert_eq!(ends[0]["data"], "hello\n", "{outcome:#?}");
}

fn zones_are_malformed(world: &World) {
    refused(world.run().policy(ALLOW_PUBLIC), &zones());
}

/// Where everything public is allowed.
fn zones() -> Table {
    [
        "[fe80::1%lo]:80",
        "[fe80::1%25lo]:80",
        "[fe80::1%1]:80",
        "[2606:2800:220:1::1%eth0]:80",
    ]
    .map(|authority| (connect(authority), "denied.malformed"))
    .to_vec()
}

fn ranges_with_a_meaning_of_their_own_are_not_public(world: &World) {
    for place in world.places() {
        let outcome = refused(world.run_in(place).policy(ALLOW_PUBLIC), &special_ranges());
        assert!(
            outcome
                .reasons()
                .iter()
                .all(|reason| reason.starts_with("denied.")),
            "{outcome:#?}"
        );
    }
}

/// Where everything public is allowed.
fn special_ranges() -> Table {
    let ranges = [
        "0.0.0.0",
        "0.1.2.3",
        "127.200.1.1",
        "240.1.1.1",
        "255.255.255.255",
        "239.1.1.1",
        "192.0.2.7",
        "198.51.100.7",
        "203.0.113.7",
        "198.18.0.77",
        "198.19.255.1",
        "192.88.99.1",
        "192.0.0.9",
        "100.127.255.254",
        "::",
        "::1",
        "fc00::1",
        "fdff::1",
        "fec0::1",
        "2001:db8::1",
        "100::1",
        "2001:2::1",
        "3fff::1",
        "5f00::1",
        "ff05::2",
    ];
    ranges
        .iter()
        .flat_map(|address| {
            [
                (connect(&authority(address, 80)), ""),
                (tcp(address, 80), ""),
            ]
        })
        .collect()
}

fn no_grant_reaches_a_metadata_service(world: &World) {
    world.serve_everywhere(80, Service::Sink);
    for place in world.places() {
        refused(world.run_in(place).policy(ALLOW_MUCH), &metadata());
    }
    // A policy that tries to allow one is refused when it is read.
    for entry in [
        "{host: www.example.com, addresses: [169.254.169.254]}",
        "{host: www.example.com, addresses: [169.254.0.0/16]}",
        "{address: 169.254.169.254, ports: [80]}",
    ] {
        let outcome = world
            .run()
            .policy(&format!("version: 1\nallow:\n  - {entry}\n"))
            .client("echo RAN");
        assert_eq!(
            (outcome.code(), outcome.stdout.as_str()),
            (125, ""),
            "{entry}: {outcome:#?}"
        );
    }
}

/// Where [`ALLOW_MUCH`] is the policy.
fn metadata() -> Table {
    let addresses = [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
    ];
    let names = [
        "metadata.google.internal",
        "metadata.goog",
        "instance-data.ec2.internal",
        "METADATA.GOOGLE.INTERNAL.",
    ];
    let by_address = addresses.iter().flat_map(|address| {
        [connect(&authority(address, 80)), tcp(address, 80)]
            .map(|attempt| (attempt, "denied.address.metadata"))
    });
    let by_name = names.iter().flat_map(|name| {
        [
            (connect(&format!("{name}:80")), "denied.address.metadata"),
            (dns(name, 1), ""),
        ]
    });
    by_address.chain(by_name).collect()
}

/// As much as a policy can allow without naming an address.
const ALLOW_MUCH: &str =
    "version: 1\ndefault: allow-public\nhost_gateway: allow\nallow: ['**.example.com']\n";

fn a_port_is_plain_digits(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    refused(world.run().allow("www.example.com"), &ports());
}

/// Where `www.example.com` is allowed.
fn ports() -> Table {
    let mut table = [
        "",
        ":",
        ":007",
        ":+80",
        ":-1",
        ":0",
        ":65536",
        ":0x50",
        ":80 ",
        ": 80",
        ":8０",
        ":80:80",
        ":99999999999999999999",
    ]
    .map(|port| {
        (
            connect(&format!("www.example.com{port}")),
            "denied.malformed",
        )
    })
    .to_vec();
    table.push((connect("www.example.com:81"), "denied.port"));
    table.push((forward("http://www.example.com:007/"), "denied.malformed"));
    table.push((forward("http://www.example.com:65536/"), "denied.malformed"));
    table.push((socks_name("www.example.com", 0), "denied.malformed"));
    table
}

fn the_hosts_names_are_shut_in_every_spelling(world: &World) {
    let sink = world.serve_on_machine(80, Service::Sink);
    world
        .dns
        .answer("host.docker.internal", &["172.17.0.1"])
        .answer("public.example.com", &["172.17.0.1"]);
    for place in world.places() {
        refused(world.run_in(place).policy(ALLOW_AROUND_HOST), &host_names());
        refused_by_then(
            world.run_in(place).policy(ALLOW_AROUND_HOST),
            &[
                (connect("public.example.com:80"), "denied.address.host"),
                (tcp("public.example.com", 80), "denied.address.host"),
            ],
        );
    }
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

/// Where [`ALLOW_AROUND_HOST`] is the policy.
fn host_names() -> Table {
    let names = [
        "host.docker.internal",
        "HOST.docker.INTERNAL",
        "host.docker.internal.",
        "gateway.docker.internal",
        "host.containers.internal",
        "host.egret.internal",
    ];
    let mut table: Vec<_> = names
        .iter()
        .flat_map(|name| {
            [
                (connect(&format!("{name}:80")), "denied.host_gateway"),
                (dns(name, 1), "denied.host_gateway"),
            ]
        })
        .collect();
    for other in [
        "host.docker.internal..",
        "host.docker.internal%00",
        "user@host.docker.internal",
        "[host.docker.internal]",
        "host.docker.internal\\",
    ] {
        table.push((connect(&format!("{other}:80")), "denied.malformed"));
    }
    // Full-width letters and dots mean the plain ones.
    for same in [
        "host\u{ff0e}docker\u{ff0e}internal",
        "\u{ff48}ost.docker.internal",
    ] {
        table.push((connect(&format!("{same}:80")), ""));
    }
    table
}

/// Patterns and ranges that would match the host's names and addresses, were they to count.
const ALLOW_AROUND_HOST: &str = "version: 1\ndefault: allow-public\nallow:\n  - '**.docker.internal'\n  - '*.containers.internal'\n  - {host: public.example.com, addresses: [172.16.0.0/12]}\n";

fn a_granted_alias_cannot_be_pointed_elsewhere_from_inside(world: &World) {
    world.serve_on_machine(5432, Service::Http);
    let elsewhere = world.serve("10.20.0.7:5432", Service::Http);
    let run = world.run().args(&["--allow-docker-gateway=5432"]);
    let outcome = run.client(
        "curl -sS --noproxy '*' --resolve host.docker.internal:5432:10.20.0.7 http://host.docker.internal:5432/; \
         curl -sS --noproxy '*' -H 'Host: host.docker.internal' http://10.20.0.7:5432/ ; \
         curl -sS http://host.docker.internal:5432/ok",
    );
    assert!(
        outcome.stdout.contains("GET /ok for host.docker.internal"),
        "{outcome:#?}"
    );
    assert!(!outcome.reached(at::PRIVATE, 5432));
    assert_eq!(world.server(elsewhere, |server| server.connections()), 0);
}

/// As a URL has it.
fn authority(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}
