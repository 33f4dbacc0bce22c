use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::pattern::Pattern;
use crate::{HostGatewayPorts, Lookup, Policy, Question};

fn matcher(policy: &str) -> Matcher {
    match Policy::parse("policy.yaml", policy.as_bytes()) {
        Ok(parsed) => parsed.policy.compile(),
        Err(errors) => panic!("{errors}"),
    }
}

fn hosts() -> HostAddresses {
    HostAddresses::new([])
}

/// Checks decisions in words: the reason, and the line of the entry that decided if one did.
#[track_caller]
fn check(policy: &str, rows: &[(&str, &str)]) {
    let matcher = matcher(policy);
    for (to, expected) in rows {
        let to = Destination::from_user(to).unwrap();
        let (reason, rule) = match matcher.decide(&to, None, &hosts()) {
            Ok(permit) => (permit.reason(), permit.rule().cloned()),
            Err(denial) => (denial.reason(), denial.rule().cloned()),
        };
        let line = rule
            .map(|rule| format!(" {}", rule.line()))
            .unwrap_or_default();
        assert_eq!(format!("{reason}{line}"), *expected, "{to}");
    }
}

#[test]
fn patterns_match_whole_labels_only() {
    #[rustfmt::skip]
    let table = [
        // pattern               host                        matches
        ("example.com",          "example.com",              true ),
        ("EXAMPLE.com.",         "example.COM.",             true ),
        ("example.com",          "www.example.com",          false),
        ("example.com",          "notexample.com",           false),
        ("example.com",          "example.com.evil.test",    false),
        ("*.example.com",        "a.example.com",            true ),
        ("*.example.com",        "a.b.example.com",          false),
        ("*.example.com",        "example.com",              false),
        ("*.example.com",        "evil-example.com",         false),
        ("**.example.com",       "a.example.com",            true ),
        ("**.example.com",       "a.b.example.com",          true ),
        ("**.example.com",       "example.com",              false),
        (".example.com",         "example.com",              true ),
        (".example.com",         "a.b.example.com",          true ),
        (".example.com",         "notexample.com",           false),
        ("*-api.example.com",    "x-api.example.com",        true ),
        ("*-api.example.com",    "-api.example.com",         true ),
        ("*-api.example.com",    "a.x-api.example.com",      false),
        ("api-*.example.com",    "api-x.example.com",        true ),
        ("api-*.example.com",    "apix.example.com",         false),
        ("a*a.example.com",      "aa.example.com",           true ),
        ("a*a.example.com",      "a.example.com",            false),
        ("*.s3.*.amazonaws.com", "b.s3.eu-west-1.amazonaws.com", true ),
        ("*.s3.*.amazonaws.com", "b.s3.a.b.amazonaws.com",   false),
        ("*.s3.*.amazonaws.com", "s3.eu-west-1.amazonaws.com", false),
        ("**.s3.*.amazonaws.com", "a.b.s3.eu.amazonaws.com", true ),
        (".s3.*.amazonaws.com",  "s3.eu.amazonaws.com",      true ),
        (".s3.*.amazonaws.com",  "a.b.s3.eu.amazonaws.com",  true ),
        ("db.*.corp.example",    "db.eu.corp.example",       true ),
        ("db.*.corp.example",    "x.db.eu.corp.example",     false),
        ("bücher.example",       "xn--bcher-kva.example",    true ),
        ("*.bücher.example",     "a.bücher.example",         true ),
        (".host.docker.internal", "host.docker.internal",    false),
        ("**.docker.internal",   "host.docker.internal",     false),
        ("**.google.internal",   "metadata.google.internal", false),
        ("**.7.example",         "1.7.example",              true ),
    ];
    for (pattern, host, expected) in table {
        let policy = matcher(&format!("version: 1\nallow: ['{pattern}']"));
        let to = Destination::parse(host, "443").unwrap();
        assert_eq!(
            policy.decide(&to, None, &hosts()).is_ok(),
            expected,
            "`{pattern}` against `{host}`"
        );
    }
}

#[test]
fn deny_beats_allow_wherever_it_stands_and_silence_denies() {
    check(
        "version: 1
allow: [registry.example, '*.packages.example', 'x.example:22']
deny: [stats.packages.example, '**.ngrok.io', '10.0.0.0/8', 'x.example:80']",
        &[
            ("registry.example", "allowed.rule 2"),
            ("registry.example:80", "allowed.rule 2"),
            ("registry.example:22", "denied.port 2"),
            ("stats.packages.example", "denied.rule 3"),
            ("stats.packages.example:9999", "denied.rule 3"),
            ("a.b.ngrok.io", "denied.rule 3"),
            ("10.1.2.3", "denied.rule 3"),
            ("[64:ff9b::10.1.2.3]:443", "denied.rule 3"),
            ("x.example:80", "denied.rule 3"),
            ("x.example:22", "allowed.rule 2"),
            ("example.com", "denied.default"),
            ("1.1.1.1", "denied.literal_address"),
            ("192.168.1.1", "denied.address.private"),
            ("192.0.2.1", "denied.address.reserved"),
        ],
    );
}

#[test]
fn the_most_specific_pattern_with_the_port_applies() {
    check(
        "version: 1
allow:
- .example.com
- '*.example.com'
- a*.example.com
- api.example.com:443
- ab*.example.com
- .deep.example.com
- '*.*.example.com'",
        &[
            ("example.com", "allowed.rule 3"),
            ("x.example.com", "allowed.rule 4"),
            ("ax.example.com", "allowed.rule 5"),
            ("abx.example.com", "allowed.rule 7"),
            ("api.example.com", "allowed.rule 6"),
            ("api.example.com:80", "allowed.rule 5"),
            ("api.example.com:81", "denied.port 6"),
            ("x.y.example.com", "allowed.rule 9"),
            ("a.b.deep.example.com", "allowed.rule 8"),
        ],
    );
}

#[test]
fn the_default_may_be_for_some_ports_only() {
    check(
        "version: 1
default: allow-public:443,22
allow: [x.example:80]",
        &[
            ("example.com:22", "allowed.default_public"),
            ("example.com:443", "allowed.default_public"),
            ("example.com:80", "denied.default"),
            ("x.example:80", "allowed.rule 3"),
            ("x.example:443", "allowed.default_public"),
            ("x.example:81", "denied.port 3"),
            ("1.1.1.1:22", "allowed.default_public"),
            ("1.1.1.1:23", "denied.literal_address"),
            ("10.0.0.1:22", "denied.address.private"),
        ],
    );
}

#[test]
fn the_default_reaches_public_destinations_only() {
    check(
        "version: 1
default: allow-public
allow: [x.example:443]",
        &[
            ("example.com:22", "allowed.default_public"),
            ("x.example:22", "allowed.default_public"),
            ("1.1.1.1:22", "allowed.default_public"),
            ("[2606:4700::1111]:22", "allowed.default_public"),
            ("[64:ff9b::1.1.1.1]:22", "allowed.default_public"),
            ("10.0.0.1", "denied.address.private"),
            ("[2002:101:101::1]:1", "denied.address.reserved"),
            ("127.1", "denied.address.loopback"),
            ("0", "denied.address.reserved"),
            ("169.254.169.254", "denied.address.metadata"),
            ("169.254.1.1", "denied.address.link_local"),
            ("224.0.0.1", "denied.address.multicast"),
            ("172.17.0.1", "denied.host_gateway"),
            ("host.docker.internal", "denied.host_gateway"),
            ("HOST.docker.internal.:443", "denied.host_gateway"),
            ("gateway.docker.internal", "denied.host_gateway"),
            ("host.containers.internal", "denied.host_gateway"),
            ("host.egret.internal", "denied.host_gateway"),
            ("metadata.google.internal", "denied.address.metadata"),
            ("metadata.goog", "denied.address.metadata"),
            ("localhost", "denied.address.loopback"),
            ("a.b.localhost", "denied.address.loopback"),
        ],
    );
}

#[test]
fn the_host_gateway_opens_by_grant_or_by_its_written_name() {
    check(
        "version: 1
host_gateway: [5432]
deny: [gateway.docker.internal]",
        &[
            ("host.docker.internal:5432", "allowed.host_gateway"),
            ("172.17.0.1:5432", "allowed.host_gateway"),
            ("172.17.0.1:5433", "denied.host_gateway"),
            ("host.docker.internal:22", "denied.host_gateway"),
            ("gateway.docker.internal:5432", "denied.rule 3"),
            ("127.0.0.1:5432", "denied.address.loopback"),
        ],
    );
    check(
        "version: 1
allow: ['host.docker.internal:8080', '**.docker.internal', 172.16.0.0/12, 0.0.0.0/0]",
        &[
            ("host.docker.internal:8080", "allowed.host_gateway 2"),
            ("host.docker.internal:443", "denied.host_gateway"),
            ("gateway.docker.internal:8080", "denied.host_gateway"),
            ("172.17.0.1:443", "denied.host_gateway"),
            ("172.17.0.2:443", "allowed.rule 2"),
            ("169.254.169.254", "denied.address.metadata"),
            ("127.0.0.1", "denied.address.loopback"),
        ],
    );
    check(
        "version: 1\nhost_gateway: allow\ndeny: ['**.docker.internal']",
        &[
            ("host.containers.internal:1", "allowed.host_gateway"),
            ("host.docker.internal:1", "denied.rule 3"),
        ],
    );
}

/// Decides, resolves to what is said, and vets; the reason of the first refusal, or of the permit.
fn vetted(matcher: &Matcher, to: &str, answer: &[&str], hosts: &HostAddresses) -> Reason {
    let to = Destination::from_user(to).unwrap();
    let answer: Vec<IpAddr> = answer
        .iter()
        .map(|address| address.parse().unwrap())
        .collect();
    let decided = matcher.decide(&to, None, hosts);
    let vetted = decided.and_then(|mut permit| permit.vet(&answer, hosts).map(|_| permit.reason()));
    vetted.unwrap_or_else(|denial| denial.reason())
}

#[test]
fn every_address_of_an_answer_is_vetted() {
    let matcher = matcher(
        "version: 1
allow:
- api.example
- {host: db.example, ports: [5432], addresses: [10.20.0.0/16, '::/0', 172.16.0.0/12, 192.0.0.0/16]}
- {host: db.example, ports: [5432], addresses: [10.30.0.0/16]}
- {host: pin.example, only_addresses: [9.9.9.9, 10.0.0.0/24]}
- {address: 10.0.0.0/8, ports: [1]}
- host.docker.internal:80
deny: [203.0.113.0/24, {address: 10.20.9.0/24}]",
    );
    let hosts = HostAddresses::new(["198.51.100.1".parse().unwrap()])
        .with_gateway(vec!["127.0.0.1".parse().unwrap()]);
    #[rustfmt::skip]
    let table: &[(&str, &[&str], &str)] = &[
        ("api.example",          &["1.1.1.1", "2606:4700::1"],  "allowed.rule"),
        ("api.example",          &[],                           "denied.resolution"),
        ("api.example",          &["1.1.1.1", "10.0.0.1"],      "denied.address.private"),
        ("api.example",          &["::ffff:10.0.0.1"],          "denied.address.private"),
        ("api.example",          &["64:ff9b::169.254.169.254"], "denied.address.metadata"),
        ("api.example",          &["127.0.0.1"],                "denied.address.loopback"),
        ("api.example",          &["0.0.0.0"],                  "denied.address.reserved"),
        ("api.example",          &["172.17.0.1"],               "denied.address.host"),
        ("api.example",          &["198.51.100.1"],             "denied.address.host"),
        ("api.example",          &["1.1.1.1", "203.0.113.1"],   "denied.rule"),
        ("db.example:5432",      &["10.20.1.1", "1.1.1.1"],     "allowed.rule"),
        ("db.example:5432",      &["10.30.1.1"],                "allowed.rule"),
        ("db.example:5432",      &["10.40.1.1"],                "denied.address.private"),
        ("db.example:5432",      &["10.20.9.1"],                "denied.rule"),
        ("db.example:5432",      &["fd00::1"],                  "allowed.rule"),
        ("db.example:5432",      &["::1"],                      "denied.address.loopback"),
        ("db.example:5432",      &["fe80::1"],                  "denied.address.link_local"),
        ("db.example:5432",      &["fd00:ec2::254"],            "denied.address.metadata"),
        ("db.example:5432",      &["192.0.0.192"],              "denied.address.metadata"),
        ("db.example:5432",      &["172.17.0.1"],               "denied.address.host"),
        ("db.example:5432",      &["172.18.0.1"],               "allowed.rule"),
        ("pin.example",          &["9.9.9.9", "10.0.0.7"],      "allowed.rule"),
        ("pin.example",          &["9.9.9.9", "1.1.1.1"],       "denied.default"),
        ("pin.example",          &["10.0.1.1"],                 "denied.address.private"),
        ("10.1.1.1:1",           &["10.1.1.1"],                 "allowed.rule"),
        ("10.1.1.1:1",           &["10.1.1.2"],                 "denied.address.private"),
        ("host.docker.internal:80", &["172.17.0.1"],            "allowed.host_gateway"),
        ("host.docker.internal:80", &["127.0.0.1"],             "allowed.host_gateway"),
        ("host.docker.internal:80", &["127.0.0.2"],             "denied.host_gateway.address_mismatch"),
        ("host.docker.internal:80", &["1.1.1.1"],               "denied.host_gateway.address_mismatch"),
        ("host.docker.internal:80", &["172.17.0.1", "169.254.169.254"], "denied.host_gateway.address_mismatch"),
    ];
    for (to, answer, expected) in table {
        assert_eq!(
            vetted(&matcher, to, answer, &hosts).code(),
            *expected,
            "{to} {answer:?}"
        );
    }
}

#[test]
fn vetted_addresses_are_those_of_the_answer_once_each() {
    let matcher = matcher("version: 1\nallow: [a.example]");
    let mut permit = matcher
        .decide(
            &Destination::from_user("a.example").unwrap(),
            None,
            &hosts(),
        )
        .unwrap();
    assert!(matches!(permit.lookup(), Lookup::Name(name) if name.as_str() == "a.example"));
    let answer =
        ["1.1.1.1", "::ffff:1.1.1.1", "2606:4700::1"].map(|address| address.parse().unwrap());
    let vetted = permit.vet(&answer, &hosts()).unwrap();
    let vetted: Vec<_> = vetted.iter().map(|address| address.to_string()).collect();
    assert_eq!(vetted, ["1.1.1.1:443", "[2606:4700::1]:443"]);
}

#[test]
fn what_is_spoken_has_to_be_what_was_decided() {
    let matcher =
        matcher("version: 1\nallow: ['a.example:443,8080', 9.9.9.9]\ndeny: [bad.example]");
    use Spoken::{Host, Sni};
    #[rustfmt::skip]
    let table = [
        ("a.example",      Sni(Some("a.example")),       "ok"),
        ("a.example",      Sni(Some("A.EXAMPLE")),       "ok"),
        ("a.example",      Sni(Some("b.example")),       "denied.name_mismatch"),
        ("a.example",      Sni(Some("a.example:443")),   "denied.name_mismatch"),
        ("a.example",      Sni(None),                    "denied.name_mismatch"),
        ("a.example",      Host(None),                   "denied.name_mismatch"),
        ("a.example:8080", Host(Some("a.example:8080")), "ok"),
        ("a.example:8080", Host(Some("a.example")),      "ok"),
        ("a.example:8080", Host(Some("a.example:80")),   "denied.name_mismatch"),
        ("a.example:8080", Host(Some("a.example:08080")), "denied.name_mismatch"),
        ("a.example:8080", Host(Some("a.example:")),     "denied.name_mismatch"),
        ("a.example:8080", Host(Some("x@a.example")),    "denied.name_mismatch"),
        ("a.example:8080", Host(Some("a.example, b")),   "denied.name_mismatch"),
        ("9.9.9.9",        Sni(None),                    "ok"),
        ("9.9.9.9",        Sni(Some("c.example")),       "ok"),
        ("9.9.9.9",        Sni(Some("bad.example")),     "denied.rule"),
        ("9.9.9.9",        Host(Some("9.9.9.9:443")),    "ok"),
        ("9.9.9.9",        Host(Some("1.1.1.1")),        "denied.name_mismatch"),
        ("9.9.9.9",        Host(Some("bad.example.")),   "denied.rule"),
    ];
    for (to, spoken, expected) in table {
        let permit = matcher
            .decide(&Destination::from_user(to).unwrap(), None, &hosts())
            .unwrap();
        let said = matcher
            .confirm(&permit, spoken)
            .map_or_else(|denial| denial.reason().code(), |()| "ok");
        assert_eq!(said, expected, "{to} {spoken:?}");
    }
}

#[test]
fn requests_are_those_of_the_entries_that_lead_there() {
    let matcher = matcher(
        "version: 1
allow:
- {host: h.example, ports: [80], addresses: [10.0.0.0/8], http: [GET /health]}
- {host: h.example, ports: [80]}
- {host: p.example, ports: [80], only_addresses: [10.0.0.0/8], http: [GET /health]}
- {host: p.example, ports: [80], http: [POST /x]}",
    );
    #[rustfmt::skip]
    let table: &[(&str, &[&str], &str, &str)] = &[
        ("h.example:80", &["1.1.1.1"],             "PUT /y",      "ok"),
        ("h.example:80", &["10.0.0.1"],            "GET /health", "ok"),
        ("h.example:80", &["10.0.0.1"],            "PUT /y",      "denied.request"),
        ("h.example:80", &["10.0.0.1", "1.1.1.1"], "PUT /y",      "denied.request"),
        ("p.example:80", &["10.0.0.1"],            "GET /health", "ok"),
        ("p.example:80", &["10.0.0.1"],            "POST /x",     "denied.request"),
        ("p.example:80", &["1.1.1.1"],             "POST /x",     "ok"),
        ("p.example:80", &["1.1.1.1"],             "GET /health", "denied.request"),
        ("p.example:80", &["1.1.1.1", "10.0.0.1"], "GET /health", "denied.default"),
    ];
    for (to, answer, request, expected) in table {
        let to = Destination::from_user(to).unwrap();
        let answer: Vec<IpAddr> = answer.iter().map(|text| text.parse().unwrap()).collect();
        let (method, target) = request.split_once(' ').unwrap();
        let decided = matcher.decide(&to, None, &hosts()).and_then(|mut permit| {
            permit.vet(&answer, &hosts())?;
            permit.request(method, target)
        });
        let reason = decided.map_or_else(|denial| denial.reason().code(), |()| "ok");
        assert_eq!(reason, *expected, "{to} {answer:?} {request}");
    }
}

#[test]
fn what_is_left_open_is_as_it_would_have_to_be_for_one_and_the_same() {
    #[rustfmt::skip]
    let table = [
        // What a policy allows, the question, and what comes out.
        ("allow: [{host: a.t, by: [/x]}]",                                                              "", "Allow"),
        ("allow: [{host: a.t, by: [/x]}]\ndeny: [{host: a.t, by: [/x]}]",                               "", "Deny"),
        ("allow: [{host: a.t, by: [/u/curl]}]\ndeny: [{host: a.t, by: [/u/*]}]",                        "", "Deny"),
        ("allow: [{host: a.t, by: [/u/*]}]\ndeny: [{host: a.t, by: [/u/curl]}]",                        "", "Allow"),
        ("allow: [{host: a.t, by: [/a], http: [GET /a]}, '.t.example', '*.t']",                         "POST /x", "Allow"), // by others
        ("allow: [{host: a.t, by: [/a], http: [GET /a]}]",                                              "POST /x", "Deny"),
        ("default: allow-public\nallow: [{host: a.t, by: [/a], only_addresses: [10.0.0.0/8]}]",         "", "Allow"),
        ("allow: [{host: a.t, http: [GET /a]}]",                                                        "", "Inspect"),
        ("allow: [{host: a.t, http: [GET /a]}]\ndeny: [{host: a.t, http: ['* /**']}]",                  "", "Deny"),
        ("allow: [a.t]\ndeny: [{host: a.t, http: ['* /**']}]",                                          "", "Deny"),
        ("allow: [{host: a.t, only_addresses: [10.0.0.0/8]}]\ndeny: [10.0.0.0/8]",                      "", "Deny"),
        ("allow: [{host: a.t, under: [/x]}]\ndeny: [{host: a.t, by: [/x]}]",                            "", "Allow"),
        ("allow: [a.t]\ndeny: [{host: a.t, by: [/x]}]",                                                 "", "Allow"), // by others
        ("allow: [a.t]\ndeny: [{host: a.t, by: [/x], http: ['* /**']}]",                                "", "Allow"),
        ("allow: [{host: a.t, by: [/u/*]}]\ndeny: [{host: a.t, by: [/u/a*]}]",                          "", "Allow"),
        ("allow: [{host: a.t, http: ['GET,POST /v1/**']}]\ndeny: [{host: a.t, http: [GET /v1/**]}]",    "", "Inspect"),
        ("allow: [{host: a.t, http: ['* /v1/*']}]\ndeny: [{host: a.t, http: ['* /v1/a*']}]",            "", "Inspect"),
        ("allow: [a.t]\ndeny: [0.0.0.0/0]",                                                            "", "Allow"),
        ("allow: [a.t]\ndeny: [0.0.0.0/0, '::/0']",                                                    "", "Deny"),
        ("allow: [{host: a.t, only_addresses: [9.0.0.0/8]}]\ndeny: [9.0.0.0/24, 9.255.255.0/24]",       "", "Allow"),
    ];
    for (policy, request, expected) in table {
        let matcher = matcher(&format!("version: 1\n{policy}"));
        let explanation = matcher.explain(&Question {
            to: &Destination::from_user("a.t").unwrap(),
            by: None,
            request: request.split_once(' '),
            resolves_to: None,
            hosts: &hosts(),
        });
        assert_eq!(
            format!("{:?}", explanation.verdict),
            expected,
            "{policy} {request}: {explanation:#?}"
        );
    }
}

#[test]
fn an_address_is_no_way_to_a_name_of_which_requests_are_listed() {
    let matcher = matcher(
        "version: 1
default: allow-public
allow:
- {host: a.example, http: [GET /**]}
- {host: b.example, by: [/x]}
- {host: e.example, by: [/x]}
- {host: e.example, http: [GET /**]}
- {host: f.example, only_addresses: [8.8.8.8]}
- {host: f.example, http: [GET /**]}
deny: [{host: d.example, http: ['POST /**']}]",
    );
    let permit = matcher
        .decide(&Destination::from_user("9.9.9.9").unwrap(), None, &hosts())
        .unwrap();
    #[rustfmt::skip]
    let table = [
        ("a.example", "denied.request"), ("b.example", "ok"), ("c.example", "ok"), ("d.example", "denied.rule"),
        ("e.example", "denied.request"), ("f.example", "denied.request"),
    ];
    for (name, expected) in table {
        for spoken in [Spoken::Sni(Some(name)), Spoken::Host(Some(name))] {
            let said = matcher.confirm(&permit, spoken);
            let said = said.map_or_else(|denial| denial.reason().code(), |()| "ok");
            assert_eq!(said, expected, "{name}");
        }
    }
}

#[test]
fn a_name_is_known_if_some_port_of_it_could_be_reached() {
    let matcher = matcher(
        "version: 1
allow: ['a.example:22', '**.b.example', 'host.docker.internal:80', gone.example]
deny: ['x.b.example:443', gone.example]",
    );
    #[rustfmt::skip]
    let table = [
        ("a.example",               "ok"),
        ("q.b.example",             "ok"),
        ("x.b.example",             "ok"), // on port 80
        ("b.example",               "denied.default"),
        ("gone.example",            "denied.rule"),
        ("host.docker.internal",    "ok"),
        ("gateway.docker.internal", "denied.host_gateway"),
        ("localhost",               "denied.address.loopback"),
        ("metadata.goog",           "denied.address.metadata"),
    ];
    for (name, expected) in table {
        let known = matcher.knows(&name.parse().unwrap());
        assert_eq!(
            known.map_or_else(|denial| denial.reason().code(), |()| "ok"),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_hint_is_the_smallest_change_that_allows_it() {
    let matcher = matcher(
        "version: 1
allow: [a.example, b.example, 'c.example:22']
deny: [b.example, d.example, 9.0.0.0/8, host.egret.internal, 1.0.0.0/8, 172.17.0.0/16]",
    );
    #[rustfmt::skip]
    let table: &[(&str, &[&str], &str)] = &[
        ("e.example:8443",         &[],               "--allow e.example:8443"),
        ("9.9.9.9",                &[],               "remove or narrow the deny entry (policy.yaml:3), and add `9.9.9.9:443` to `allow`"),
        ("8.8.8.8",                &[],               "--allow 8.8.8.8:443"),
        ("[2606:4700::1]:80",      &[],               "--allow [2606:4700::1]:80"),
        ("10.0.0.1:5432",          &[],               "--allow 10.0.0.1:5432"),
        ("c.example",              &[],               "--allow c.example:443"),
        ("b.example",              &[],               "remove or narrow the deny entry (policy.yaml:3)"),
        ("d.example",              &[],               "remove or narrow the deny entry (policy.yaml:3), and add `d.example:443` to `allow`"),
        ("host.docker.internal:5", &[],               "--allow-docker-gateway=5"),
        ("host.egret.internal:5",  &[],               "remove or narrow the deny entry (policy.yaml:3), and set `host_gateway: [5]`"),
        ("172.17.0.1:5",           &[],               "remove or narrow the deny entry (policy.yaml:3), and set `host_gateway: [5]`"),
        ("a.example",              &["10.0.0.1", "10.0.0.2"], "add 10.0.0.1, 10.0.0.2 to the `addresses` of the entry at policy.yaml:2"),
        ("a.example",              &["10.0.0.1", "127.0.0.1"], "none"),
        ("a.example",              &["1.1.1.1"],      "remove or narrow the deny entry (policy.yaml:3)"),
        ("a.example",              &["127.0.0.1"],    "none"),
        ("a.example",              &["172.18.0.1"],   "add 172.18.0.1 to the `addresses` of the entry at policy.yaml:2"),
        ("169.254.169.254",        &[],               "none"),
        ("localhost:3000",         &[],               "--allow-docker-gateway=3000, and connect to host.docker.internal:3000 in its place"),
        ("127.0.0.2:1",            &[],               "--allow-docker-gateway=1, and connect to host.docker.internal:1 in its place"),
        ("a.example",              &[],               "none"), // does not resolve
    ];
    for (to, answer, expected) in table {
        let to = Destination::from_user(to).unwrap();
        let answer: Vec<IpAddr> = answer
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let denial = match matcher.decide(&to, None, &hosts()) {
            Err(denial) => denial,
            Ok(mut permit) => permit.vet(&answer, &hosts()).unwrap_err(),
        };
        let hint = denial
            .hint()
            .map_or("none".to_owned(), |hint| hint.to_string());
        assert_eq!(hint, *expected, "{to} {answer:?}");
    }
}

#[test]
fn flags_add_to_a_policy_and_say_what_is_wrong_with_them() {
    let mut policy = Policy::deny_all();
    policy.add_allow_flag("a.example:8443").unwrap();
    policy.add_allow_flag("[2606:4700::1]:53").unwrap();
    policy.add_allow_flag("192.0.2.0/24:1,2").unwrap();
    policy.add_deny_flag("192.0.2.9").unwrap();
    policy.grant_host_gateway("5432,11434".parse().unwrap());
    for bad in [
        "",
        "*",
        "**.com",
        "a.example:0",
        "127.0.0.1",
        "a..b",
        "https://x.example",
        "2001:db8::1:443x",
        "0x7f.1",
    ] {
        let error = policy.add_allow_flag(bad).unwrap_err().to_string();
        assert!(error.starts_with("--allow "), "{error}");
    }
    #[rustfmt::skip]
    let advice = [
        ("a.com,b.com",    "write --allow once for each host"),
        ("a.com:1,b.com",  "write --allow once for each host"),
        ("127.0.0.1:3000", "--allow-docker-gateway=PORT"),
        ("localhost:3000", "--allow-docker-gateway=PORT"),
    ];
    for (bad, advice) in advice {
        let error = policy.add_allow_flag(bad).unwrap_err().to_string();
        assert!(error.contains(advice), "{error}");
    }
    assert!("0".parse::<HostGatewayPorts>().is_err());
    let matcher = policy.compile();
    #[rustfmt::skip]
    let table = [
        ("a.example:8443", "allowed.rule"), ("a.example", "denied.port"), ("[2606:4700::1]:53", "allowed.rule"),
        ("192.0.2.1:2", "allowed.rule"), ("192.0.2.9:2", "denied.rule"), ("172.17.0.1:11434", "allowed.host_gateway"),
    ];
    for (to, expected) in table {
        let to = Destination::from_user(to).unwrap();
        let reason = matcher
            .decide(&to, None, &hosts())
            .map_or_else(|denial| denial.reason(), |permit| permit.reason());
        assert_eq!(reason.code(), expected, "{to}");
    }
}

/// The pattern language read off its description, label by label.
pub(super) fn naive_matches(pattern: &str, host: &str) -> bool {
    let host: Vec<_> = host.split('.').collect();
    let (lead, rest) = match pattern.split_once('.').unwrap_or(("?", pattern)) {
        ("", rest) => (0..=host.len(), rest),
        ("*", rest) => (1..=1, rest),
        ("**", rest) => (1..=host.len(), rest),
        _ => (0..=0, pattern),
    };
    let rest: Vec<_> = rest.split('.').collect();
    host.len().checked_sub(rest.len()).is_some_and(|front| {
        let same = |(label, wanted): (&&str, &&str)| match wanted.split_once('*') {
            None => label == wanted,
            Some(("", "")) => !label.is_empty(),
            Some((prefix, suffix)) => {
                label.len() >= prefix.len() + suffix.len()
                    && label.starts_with(prefix)
                    && label.ends_with(suffix)
            }
        };
        lead.contains(&front) && host[front..].iter().zip(&rest).all(same)
    })
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]", "[ab]{2}", Just("x".to_owned())]
}

fn pattern() -> impl Strategy<Value = String> {
    let lead = prop_oneof![
        3 => Just(String::new()), 2 => Just(".".to_owned()), 2 => Just("*.".to_owned()), 2 => Just("**.".to_owned()),
        2 => "[ab]{0,1}\\*[ab]{1}\\.", 1 => "[ab]{1}\\*\\.",
    ];
    let middle = prop_oneof![4 => label(), 1 => Just("*".to_owned())];
    (lead, prop::collection::vec(middle, 0..3), label(), label()).prop_map(
        |(lead, middle, last, top)| {
            format!("{lead}{}", [middle, vec![last, top]].concat().join("."))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_matcher_agrees_with_a_naive_one(
        allow in prop::collection::vec((pattern(), 1_u16..3), 1..8),
        deny in prop::collection::vec((pattern(), 1_u16..3), 0..3),
        hosts_asked in prop::collection::vec((prop::collection::vec(label(), 1..6), 1_u16..3), 1..20),
    ) {
        // The leading star of `*.x` is read as a lead both here and there; a first label that is `*` is the same thing.
        let mut policy = Policy::deny_all();
        let add = |list: &[(String, u16)]| list.iter().map(|(pattern, port)| format!("{pattern}:{port}")).collect::<Vec<_>>();
        add(&allow).iter().for_each(|entry| policy.add_allow_flag(entry).unwrap());
        add(&deny).iter().for_each(|entry| policy.add_deny_flag(entry).unwrap());
        let matcher = policy.compile();
        for (labels, port) in hosts_asked {
            let host = labels.join(".");
            for (text, _) in allow.iter().chain(&deny) {
                let matches = Pattern::parse(text).unwrap().matches(&host);
                prop_assert_eq!(matches, naive_matches(text, &host), "{} {}", text, host);
            }
            let matching = |list: &[(String, u16)]| -> Vec<(Pattern, u16)> {
                let matching = list.iter().filter(|(pattern, _)| naive_matches(pattern, &host));
                matching.map(|(text, port)| (Pattern::parse(text).unwrap(), *port)).collect()
            };
            let (allowing, denying) = (matching(&allow), matching(&deny));
            let on_port = |list: &[(Pattern, u16)]| list.iter().any(|(_, listed)| *listed == port);
            let expected = match () {
                () if on_port(&denying) => Reason::DeniedRule,
                () if on_port(&allowing) => Reason::AllowedRule,
                () if !allowing.is_empty() => Reason::DeniedPort,
                () => Reason::DeniedDefault,
            };
            let to = Destination::parse(&host, &port.to_string()).unwrap();
            let decided = matcher.decide(&to, None, &hosts());
            let reason = decided.as_ref().map_or_else(Denial::reason, Permit::reason);
            prop_assert_eq!(reason, expected, "{}", to);
            // The most specific of those that match is the one that decided.
            let best = allowing.iter().filter(|(_, listed)| *listed == port);
            let best = best.min_by_key(|(pattern, _)| pattern.shape().specificity());
            let found = matcher.compiled.allow.names.find(&host, port, |_| true);
            if let (Some((best, _)), Found::Entry(grant)) = (best, found) {
                let decided = Pattern::parse(&allow[grant.entry as usize].0).unwrap();
                prop_assert!(decided.shape().specificity() <= best.shape().specificity(), "{decided} over {best} for {to}");
            }
        }
    }
}
