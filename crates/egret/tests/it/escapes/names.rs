//! Classes 13 to 17: names. What is attempted stands in tables of their own where containers attempt it, too.

use serde_json::{Value, json};

use crate::world::dns::{Data, Dns, Reply};
use crate::world::probe::{
    Table, attempt, connect, dns, forward, refused, refused_by_then, socks_name, tcp, udp,
};
use crate::world::servers::Service;
use crate::world::{User, World, at};

everywhere!(
    questions_carry_nothing_out,
    names_below_an_allowed_wildcard_are_answered_without_asking,
    other_name_services_are_shut,
    a_name_is_not_asked_about_before_it_is_decided,
    a_question_is_on_record_before_it_is_asked,
    a_name_with_more_addresses_than_any_honest_one_is_refused,
    an_answer_that_changes_changes_nothing_that_was_vetted,
    one_forbidden_address_spoils_the_whole_answer,
    an_alias_does_not_lend_its_name,
    resolvers_that_disagree_are_vetted_alike,
    a_name_that_resolves_to_the_gateways_machine_is_refused,
    addresses_are_never_looked_up_backwards,
    search_domains_and_names_without_a_dot_gain_nothing,
    other_spellings_of_a_name_mean_the_same_or_nothing,
);

fn questions_carry_nothing_out(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    for place in world.places() {
        refused(world.run_in(place).allow("www.example.com"), &questions());
    }
}

/// Where `www.example.com` is allowed.
fn questions() -> Table {
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

fn names_below_an_allowed_wildcard_are_answered_without_asking(world: &World) {
    let attempts: Vec<_> = (0..50)
        .map(|n| dns(&format!("c2VjcmV0-{n}.example.com"), 1))
        .collect();
    let (outcome, ends) = attempt(world.run().allow("*.example.com"), &attempts);
    assert!(
        ends.iter().all(|end| end["end"] == "rcode 0 answers 1"),
        "{ends:#?}"
    );
    outcome.silent();
}

fn other_name_services_are_shut(world: &World) {
    world.serve_everywhere(853, Service::Sink);
    world.serve_everywhere(443, Service::Sink);
    for place in world.places() {
        refused(world.run_in(place), &other_services());
    }
}

/// Where nothing that is named here is allowed.
fn other_services() -> Table {
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

fn a_name_is_not_asked_about_before_it_is_decided(world: &World) {
    world.dns.answer("evil.test", &[at::PUBLIC]);
    for place in world.places() {
        refused(world.run_in(place).allow("www.example.com"), &undecided());
    }
}

/// Where `www.example.com` is allowed.
fn undecided() -> Table {
    vec![
        (connect("evil.test:443"), "denied.default"),
        (forward("http://evil.test/"), "denied.default"),
        (socks_name("evil.test", 443), "denied.default"),
        (tcp("evil.test", 443), ""),
        (connect("www.example.com:22"), "denied.port"),
    ]
}

fn a_question_is_on_record_before_it_is_asked(world: &World) {
    world.serve("93.184.216.34:80", Service::Http);
    for place in world.places() {
        // What is looked up is put on record before the decision that it is for, whatever comes of it.
        for (name, reason) in [("there", "allowed.rule"), ("nowhere", "denied.resolution")] {
            world.dns.answer("there.example.com", &[at::PUBLIC]);
            let host = format!("{name}.example.com");
            let outcome = world
                .run_in(place)
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
    }
}

#[test]
fn what_cannot_be_put_on_record_is_not_asked() {
    let world = World::new();
    world.dns.answer("there.example.com", &[at::PUBLIC]);
    for user in User::ALL {
        // Each question has its record in a log that becomes full.
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

fn a_name_with_more_addresses_than_any_honest_one_is_refused(world: &World) {
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
    for place in world.places() {
        let script = "for name in many some; do curl -s -m 20 -o /dev/null -w '%{http_code} ' http://$name.example.com/; done";
        let outcome = world
            .run_in(place)
            .allow("*.example.com")
            .client(script)
            .ok();
        assert_eq!(outcome.stdout, "502 200 ", "{place:?}: {outcome:#?}");
        outcome.decided("denied.resolution", "many.example.com", 80);
        assert!(!outcome.reached("93.184.216.1", 80), "{outcome:#?}");
    }
}

fn an_answer_that_changes_changes_nothing_that_was_vetted(world: &World) {
    let inside = world.serve("10.20.0.7:80", Service::Sink);
    let metadata = world.serve("169.254.169.254:80", Service::Sink);
    let public = world.serve("93.184.216.34:80", Service::Http);
    let mut attempts = Vec::new();
    for (number, later) in [at::PRIVATE, at::METADATA, "127.0.0.1"].iter().enumerate() {
        let name = format!("rebind{number}.example.com");
        let replies = [at::PUBLIC, later].map(|address| Reply::records(&[address]));
        world.dns.script(&name, replies.to_vec());
        attempts.extend([0, 1].map(|_| connect(&format!("{name}:80"))));
        attempts.push(tcp(&name, 80));
    }
    let (outcome, ends) = attempt(world.run().allow("*.example.com"), &attempts);
    for ends in ends.chunks(3) {
        let said = |end: &Value, what: &str| end["data"].as_str().unwrap().starts_with(what);
        assert!(said(&ends[0], "HTTP/1.1 200"), "{outcome:#?}");
        assert!(said(&ends[1], "HTTP/1.1 403"), "{outcome:#?}");
        assert_eq!(ends[2]["data"], "", "{outcome:#?}");
    }
    // What was decided was dialled, and a name was asked about once per connection.
    let dialled = outcome
        .events("decision")
        .filter_map(|record| record["dialled"].as_str());
    assert_eq!(
        Vec::from_iter(dialled),
        ["93.184.216.34:80"; 3],
        "{outcome:#?}"
    );
    let asked = outcome.queries.iter();
    let asked = asked.filter(|query| query.kind == crate::world::dns::A);
    assert_eq!(asked.count(), 9, "{outcome:#?}");
    assert_eq!(world.server(public, |server| server.connections()), 3);
    for sink in [inside, metadata] {
        assert_eq!(world.server(sink, |sink| sink.connections()), 0);
    }
}

fn one_forbidden_address_spoils_the_whole_answer(world: &World) {
    let public = world.serve_everywhere(80, Service::Sink);
    let mut table = Vec::new();
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
        table.push((connect(&format!("{name}:80")), ""));
        table.push((tcp(&name, 80), ""));
    }
    refused_by_then(world.run().allow("*.example.com"), &table);
    assert_eq!(world.server(public, |sink| sink.connections()), 0);
}

fn an_alias_does_not_lend_its_name(world: &World) {
    world
        .dns
        .answer("target.example.net", &[at::PRIVATE])
        .answer("host.docker.internal", &["172.17.0.1"]);
    world
        .dns
        .cname("alias.example.com", "target.example.net")
        .cname("host.example.com", "host.docker.internal");
    let mut table = vec![
        (connect("alias.example.com:80"), "denied.address.private"),
        (connect("host.example.com:80"), "denied.address.host"),
        (tcp("alias.example.com", 80), "denied.address.private"),
    ];
    // The whole of a zone elsewhere, with and without the alias that goes with it.
    let elsewhere = || Data::Dname("example.net".to_owned());
    let alias = Data::Cname("target.example.net".to_owned());
    let address = Data::Address(at::PRIVATE.parse().unwrap());
    for (name, records) in [
        ("zone", vec![elsewhere()]),
        ("aliased", vec![elsewhere(), alias]),
        ("address", vec![elsewhere(), address]),
    ] {
        let name = format!("{name}.example.com");
        world.dns.script(&name, vec![Reply::Records(records)]);
        table.push((connect(&format!("{name}:80")), ""));
        table.push((tcp(&name, 80), ""));
    }
    refused_by_then(world.run().allow("*.example.com"), &table);
}

fn resolvers_that_disagree_are_vetted_alike(world: &World) {
    // The second is asked when the first has nothing to say, and says something else.
    let second = Dns::start(&world.outside, "10.20.0.54:53".parse().unwrap());
    world.serve("93.184.216.34:80", Service::Http);
    let addresses = [at::PRIVATE, at::METADATA, "127.0.0.1", "172.17.0.1"];
    let mut attempts = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let name = format!("n{number}.example.com");
        second.answer(&name, &[address]);
        let first = [Reply::records(&[at::PUBLIC]), Reply::ServFail];
        world.dns.script(&name, first.to_vec());
        attempts.extend([0, 1].map(|_| connect(&format!("{name}:80"))));
        attempts.push(tcp(&name, 80));
    }
    let run = world.run().args(&["--resolver", "10.20.0.54:53"]);
    let (outcome, ends) = attempt(run.allow("*.example.com"), &attempts);
    for (address, ends) in addresses.iter().zip(ends.chunks(3)) {
        let said = |end: &Value| end["data"].as_str().unwrap().to_owned();
        assert!(said(&ends[0]).starts_with("HTTP/1.1 200"), "{outcome:#?}");
        for end in &ends[1..] {
            let refused = said(end).is_empty() || said(end).starts_with("HTTP/1.1 403");
            assert!(refused, "{address}: {end}: {outcome:#?}");
        }
        assert!(!outcome.reached(address, 80), "{address}: {outcome:#?}");
    }
    assert!(
        second.queries().len() >= 2 * addresses.len(),
        "{outcome:#?}"
    );
}

fn a_name_that_resolves_to_the_gateways_machine_is_refused(world: &World) {
    let sink = world.serve_on_machine(61081, Service::Sink);
    let mut table = Vec::new();
    for (name, address) in [
        ("a.example.com", "45.33.32.10"),
        ("b.example.com", "127.0.0.1"),
        ("c.example.com", "172.17.0.1"),
    ] {
        world.dns.answer(name, &[address]);
        table.push((connect(&format!("{name}:61081")), ""));
        table.push((tcp(name, 61081), ""));
    }
    refused_by_then(world.run().allow("*.example.com:61081"), &table);
    assert_eq!(world.server(sink, |sink| sink.connections()), 0);
}

fn addresses_are_never_looked_up_backwards(world: &World) {
    // Were anybody to ask, the address would turn out to be an allowed name's.
    world
        .dns
        .script("34.216.184.93.in-addr.arpa", vec![Reply::records(&[])]);
    refused(world.run().allow("www.example.com"), &backwards());
}

/// Where `www.example.com` is allowed.
fn backwards() -> Table {
    vec![
        (tcp(at::PUBLIC, 443), "denied.literal_address"),
        (connect("93.184.216.34:443"), "denied.literal_address"),
        (dns("34.216.184.93.in-addr.arpa", 12), ""),
    ]
}

fn search_domains_and_names_without_a_dot_gain_nothing(world: &World) {
    let table = [
        (tcp("intranet", 80), ""),
        (connect("intranet:80"), "denied.default"),
        (tcp("wpad", 80), ""),
        (connect("printer.localhost:80"), "denied.address.loopback"),
        (connect("localhost.:80"), "denied.address.loopback"),
        (connect("LOCALHOST:80"), "denied.address.loopback"),
        (tcp("printer.localhost", 80), ""),
    ];
    for place in world.places() {
        // Names are completed inside, if at all.
        refused(world.run_in(place), &table);
    }
}

#[test]
fn the_sandboxs_own_files_about_names_are_egrets() {
    let world = World::new();
    for user in User::ALL {
        let outcome = world.run_as(user).client(
            "echo '10.20.0.7 www.example.com' >> /etc/hosts && echo CHANGED; cat /etc/resolv.conf",
        );
        assert!(!outcome.stdout.contains("CHANGED"), "{outcome:#?}");
        assert!(!outcome.stdout.contains("10.20.0.53"), "{outcome:#?}");
    }
}

fn other_spellings_of_a_name_mean_the_same_or_nothing(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    let same = ["WWW.EXAMPLE.COM", "www.example.com.", "wWw.ExAmPlE.cOm."];
    let attempts: Vec<_> = same
        .iter()
        .map(|name| connect(&format!("{name}:80")))
        .chain(same.iter().map(|name| socks_name(name, 80)))
        .collect();
    let (outcome, ends) = attempt(world.run().allow("www.example.com"), &attempts);
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

    let outcome = refused(world.run().allow("www.example.com"), &spellings());
    assert!(
        outcome
            .reasons()
            .iter()
            .all(|reason| ["denied.default", "denied.malformed"].contains(reason)),
        "{outcome:#?}"
    );
}

/// Where `www.example.com` is allowed.
fn spellings() -> Table {
    let long_label = format!("{}.www.example.com", "a".repeat(64));
    let long_name = format!("{}www.example.com", "a.".repeat(125));
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
        ".www.example.com",
        "www.example.com evil.test",
        "www.example.com\u{1}",
        "www.example.com%00.evil.test",
        "www.example.com\u{3002}evil.test",
        "evil.test\u{ff0f}www.example.com",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "xn--\u{ff57}ww.example.com",
        "xn--a.example.com",
        &long_label,
        &long_name,
    ];
    let mut table: Vec<_> = other
        .iter()
        .map(|name| (connect(&format!("{name}:80")), ""))
        .collect();
    table.extend(
        other
            .iter()
            .filter(|name| name.is_ascii() && name.len() < 256)
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
