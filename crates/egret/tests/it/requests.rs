//! Hosts of which certain requests may be asked, and policies of other systems, at work.

use crate::escapes::everywhere;
use crate::world::servers::Service;
use crate::world::{User, World, at};

everywhere!(
    only_the_listed_requests_get_through_whichever_door_is_taken,
    what_cannot_be_inspected_is_not_run,
);

fn web(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    world.serve("93.184.216.34:443", Service::Https(&["www.example.com"]));
}

fn only_the_listed_requests_get_through_whichever_door_is_taken(world: &World) {
    web(world);
    let policy = "version: 1
allow:
- {host: www.example.com, ports: [80], http: [GET /v1/**, POST /v1/items]}
deny:
- {host: www.example.com, ports: [80], http: ['* /v1/secret/**']}";
    #[rustfmt::skip]
    let doors = [
        ("forward",  "curl -sS"),
        ("connect",  "curl -sS -p"),
        ("socks",    "curl -sS --socks5-hostname 127.0.0.1:${HTTP_PROXY##*:}"),
        ("captured", "curl -sS --noproxy '*'"),
    ];
    for place in world.places() {
        for (door, curl) in doors {
            let script = format!(
                "{curl} http://www.example.com/v1/x && {curl} -d x http://www.example.com/v1/items \
                 && {curl} -o /dev/null -w '%{{http_code}} ' -X DELETE http://www.example.com/v1/x \
                 && {curl} -o /dev/null -w '%{{http_code}} ' http://www.example.com/v2 \
                 && {curl} -o /dev/null -w '%{{http_code}} ' --path-as-is http://www.example.com/v1/../v2 \
                 && {curl} -o /dev/null -w '%{{http_code}} ' http://www.example.com/v1/secret/x"
            );
            let outcome = world.run_in(place).policy(policy).client(&script).ok();
            assert!(outcome.stdout.contains("GET /v1/x for "), "{outcome:#?}");
            assert!(outcome.stdout.ends_with("403 403 403 403 "), "{outcome:#?}");
            let refused = outcome.events("decision");
            let refused = refused.filter(|record| record["verdict"] == "deny");
            let refused: Vec<_> = refused.map(|record| &record["reason"]).collect();
            assert_eq!(refused, ["denied.request"; 4], "{door}: {outcome:#?}");
            let allowed = outcome.events("decision");
            let paths = allowed.filter(|record| record["verdict"] == "allow");
            let paths: Vec<_> = paths.filter_map(|record| record["path"].as_str()).collect();
            assert_eq!(paths, ["/v1/x", "/v1/items"], "{door}: {outcome:#?}");
        }
    }
    let seen = world.server(0, |server| server.requests());
    let seen = seen
        .iter()
        .map(|request| format!("{} {}", request.method, request.target));
    let seen: std::collections::BTreeSet<_> = seen.collect();
    assert_eq!(Vec::from_iter(seen), ["GET /v1/x", "POST /v1/items"]);
}

fn what_cannot_be_inspected_is_not_run(world: &World) {
    web(world);
    for place in world.places() {
        let outcome = world
            .run_in(place)
            .policy("version: 1\nallow:\n- {host: www.example.com, http: [GET /v1/**]}")
            .client("echo started");
        assert_eq!(outcome.code(), 125, "{outcome:#?}");
        assert!(!outcome.stdout.contains("started"), "{outcome:#?}");
        assert!(
            outcome.stderr.contains("policy.yaml:3: `http` on port 443"),
            "{outcome:#?}"
        );
        // TLS on a port for which requests are listed.
        let outcome = world
            .run_in(place)
            .policy(
                "version: 1\nallow:\n- {host: www.example.com, ports: [80], http: [GET /v1/**]}",
            )
            .client("curl -sS --noproxy '*' https://www.example.com:80/v1/x");
        assert_ne!(outcome.code(), 0, "{outcome:#?}");
        assert_eq!(
            outcome.reasons().last(),
            Some(&"denied.protocol"),
            "{outcome:#?}"
        );
    }
}

#[test]
fn policies_of_other_systems_are_run_as_they_are() {
    let world = World::new();
    web(&world);
    world.dns.answer("other.example.com", &[at::PUBLIC]);
    let toolhive = r#"{"name": "x", "network": {"outbound": {"allow_host": [".example.com"], "allow_port": [80]}}}"#;
    let openshell = "version: 1
network_policies:
  web:
    endpoints: [{host: www.example.com, port: 80, protocol: rest, enforcement: enforce, access: read-only}]
    binaries: [{path: /usr/bin/curl}]";
    let smokescreen = "version: v1
services:
  - {name: web, project: x, action: enforce, allowed_domains: [www.example.com]}
  - {name: none, project: x, action: enforce, allowed_domains: []}";
    #[rustfmt::skip]
    let table = [
        (toolhive,    "",      "curl -sS http://www.example.com/",           "ok"),
        (toolhive,    "",      "curl -sSf https://www.example.com/",         "denied.port"),
        (openshell,   "",      "curl -sS http://www.example.com/; exit $?",  "ok"),
        (openshell,   "",      "curl -sSf -d x http://www.example.com/; exit $?", "denied.request"),
        (openshell,   "",      "wget -qO- http://www.example.com/; exit $?", "denied.executable"),
        (smokescreen, "#web",  "curl -sS https://www.example.com/",          "ok"),
        (smokescreen, "#web",  "curl -sSf http://other.example.com/",        "denied.default"),
        (smokescreen, "#none", "curl -sSf http://www.example.com/",          "denied.default"),
    ];
    for user in User::ALL {
        for (text, service, client, expected) in table {
            world.machine.write("/home/alice/other-policy", text);
            let named = format!("/home/alice/other-policy{service}");
            let run = world.run_as(user).args(&["--permission-profile", &named]);
            let outcome = run.client(client);
            match expected {
                "ok" => drop(outcome.ok()),
                reason => assert_eq!(
                    outcome.reasons().last(),
                    Some(&reason),
                    "{client}: {outcome:#?}"
                ),
            }
        }
        for (profile, expected) in [("none", 1), ("network", 0)] {
            let run = world.run_as(user).args(&["--permission-profile", profile]);
            let outcome = run.client("curl -sSf -o /dev/null https://www.example.com/ || exit 1");
            assert_eq!(outcome.code(), expected, "{profile}: {outcome:#?}");
        }
    }
}
