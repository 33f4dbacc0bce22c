use super::{check, errors, read, told};

const ACL: &str = "\
version: v1
services:
  - name: billing
    project: money
    action: enforce
    allowed_domains:
      - api.bank.example
      - '*.partner.example'
      - ads.tracker.example   # denied globally, and the service needs it
  - name: crawler
    project: search
    action: report
    allowed_domains: [index.example]
  - name: lab
    project: research
    action: open
default:
  project: other
  action: enforce
  allowed_domains: [status.example]
global_deny_list: ['*.tracker.example', paste.example]
global_allow_list: [time.example, paste.example, '*.logs.example']
";

#[test]
fn the_order_is_smokescreens() {
    check(
        &read(ACL, Some("billing")),
        &[
            ("api.bank.example:443", "allowed.rule"),
            ("api.bank.example:9000", "allowed.rule"),
            ("x.y.partner.example:443", "allowed.rule"),
            ("partner.example:443", "denied.default"),
            ("ads.tracker.example:443", "allowed.rule"), // its own list wins
            ("www.tracker.example:443", "denied.default"),
            ("time.example:443", "allowed.rule"),
            ("a.b.logs.example:443", "allowed.rule"),
            ("paste.example:443", "denied.rule"), // denied before it is allowed
            ("status.example:443", "denied.default"), // of the default
            ("api.bank.example:443 -> 10.0.0.1", "denied.address.private"),
        ],
    );
    for service in ["crawler", "lab"] {
        check(
            &read(ACL, Some(service)),
            &[
                (
                    "index.example:443",
                    if service == "lab" {
                        "allowed.default_public"
                    } else {
                        "allowed.rule"
                    },
                ),
                ("other.example:22", "allowed.default_public"),
                ("www.tracker.example:443", "denied.rule"),
                ("paste.example:443", "denied.rule"),
                ("time.example:443", "allowed.rule"),
                ("other.example:22 -> 192.168.1.1", "denied.address.private"),
            ],
        );
    }
    for service in [None, Some("unknown")] {
        check(
            &read(ACL, service),
            &[
                ("status.example:443", "allowed.rule"),
                ("time.example:443", "allowed.rule"),
                ("api.bank.example:443", "denied.default"),
            ],
        );
    }
    assert_eq!(read(ACL, Some("billing")).policy.name(), Some("billing"));
}

/// Smokescreen's own decision, word for word what its documentation says.
fn theirs(own: &[&str], denied: &[&str], allowed: &[&str], open: bool, host: &str) -> bool {
    let in_list = |globs: &[&str]| {
        globs.iter().any(|glob| match glob.strip_prefix("*.") {
            Some(below) => host.ends_with(&format!(".{below}")),
            None => host == *glob,
        })
    };
    in_list(own) || !in_list(denied) && (in_list(allowed) || open)
}

#[test]
fn it_decides_as_smokescreen_does_but_where_it_says_otherwise() {
    const GLOBS: [&str; 5] = [
        "b.example",
        "*.b.example",
        "a.b.example",
        "*.a.b.example",
        "x.a.b.example",
    ];
    const HOSTS: [&str; 5] = [
        "b.example",
        "a.b.example",
        "x.a.b.example",
        "y.x.a.b.example",
        "z.b.example",
    ];
    let lists: Vec<Vec<&str>> = (0..1 << GLOBS.len())
        .filter(|set: &usize| set.count_ones() <= 2)
        .map(|set| {
            (0..GLOBS.len())
                .filter(|at| set >> at & 1 == 1)
                .map(|at| GLOBS[at])
                .collect()
        })
        .collect();
    let (mut same, mut narrower) = (0, 0);
    let two = || {
        lists
            .iter()
            .flat_map(|one| lists.iter().map(move |other| (one, other)))
    };
    for (own, (denied, allowed)) in lists
        .iter()
        .flat_map(|own| two().map(move |rest| (own, rest)))
    {
        for action in ["enforce", "open"] {
            let text = format!(
                "version: v1\nservices: []\ndefault: {{action: {action}, allowed_domains: {own:?}}}\nglobal_deny_list: {denied:?}\nglobal_allow_list: {allowed:?}"
            );
            let parsed = read(&text, None);
            let noted = parsed
                .notes
                .iter()
                .any(|note| note.contains("of the global deny list also denies"));
            let matcher = parsed.policy.compile();
            for host in HOSTS {
                let to = crate::Destination::from_user(host).unwrap();
                let ours = matcher
                    .decide(&to, None, &crate::HostAddresses::new([]))
                    .is_ok();
                let theirs = theirs(own, denied, allowed, action == "open", host);
                match (theirs, ours) {
                    (true, false) => {
                        assert!(noted, "{text} {host}");
                        narrower += 1;
                    }
                    (false, true) => panic!("wider than Smokescreen: {text} {host}"),
                    _ => same += 1,
                }
            }
        }
    }
    assert!(same > 20 * narrower && narrower > 0, "{same} {narrower}");
}

#[test]
fn which_service_is_meant_has_to_be_clear() {
    let without = ACL.split("default:").next().unwrap();
    let errors_of = |text: &str, service| {
        let errors =
            crate::Policy::parse_service("acl.yaml", text.as_bytes(), service).unwrap_err();
        super::said(&errors)
    };
    assert_eq!(
        errors_of(without, None),
        [
            "1:1 this has several services and no `default`: name the service behind the file, as `acl.yaml#NAME`: there is `billing`, `crawler` and `lab`"
        ]
    );
    assert_eq!(
        errors_of(without, Some("x")),
        ["1:1 there is no service `x`, and no `default`: there is `billing`, `crawler` and `lab`"]
    );
    let one = "version: v1\nservices: [{name: a, action: open}]";
    check(
        &read(one, Some("a")),
        &[("a.example:443", "allowed.default_public")],
    );
    let nobody = read(one, None);
    check(&nobody, &[("a.example:443", "denied.default")]);
    assert_eq!(
        told(&nobody),
        ["1: no service is chosen and there is no `default`, so this denies everything"]
    );
    assert_eq!(
        told(&read(ACL, Some("x"))),
        ["18: there is no service `x`: the default applies"]
    );
}

#[test]
fn what_differs_is_told() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("default: {action: enforce, allowed_domains: [a.example, 93.184.216.34]}", &[]),
        ("default: {action: enforce, allowed_domains: [10.0.0.1, host.docker.internal]}", &[
            "3: `10.0.0.1` opens nothing: the address is not public",
            "3: `host.docker.internal` opens nothing: names of the host lead to private addresses"]),
        ("default: {action: report}", &[
            "3: every public destination can be reached, and data can be sent to any of them",
            "note: what Smokescreen would report is in the log as `allowed.default_public`: allowed, and by no entry"]),
        ("default: {action: open, allowed_domains: [x.b.example]}\nglobal_deny_list: ['*.b.example']", &[
            "3: every public destination can be reached, and data can be sent to any of them",
            "3: this entry allows nothing",
            "note: `*.b.example` of the global deny list also denies `x.b.example`, which the service's own list allows in Smokescreen"]),
        ("default: {action: open}\nglobal_deny_list: [203.0.113.7]", &[
            "3: every public destination can be reached, and data can be sent to any of them",
            "note: an address that is denied is denied to names that resolve to it, too"]),
        ("default: {action: enforce, mitm_domains: [], allowed_external_proxies: null}", &[]),
    ];
    for (text, expected) in table {
        let text = format!("version: v1\nservices: []\n{text}");
        assert_eq!(told(&read(&text, None)), *expected, "{text}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("version: v2\nservices: []",              &["1:10 this version of Smokescreen's ACLs is not known: write `version: v1`"]),
        ("services: []",                           &["1:1 the ACL has no `version`: add `version: v1`"]),
        ("version: v1",                            &["1:1 the ACL has no `services`: add `services: []` if there is only a default"]),
        ("version: v1\nservices:",                 &["2:9 `services` is empty: write `services: []` if there is only a default"]),
        ("version: v1\nservice: []",               &["1:1 the ACL has no `services`: add `services: []` if there is only a default", "2:1 an ACL of Smokescreen's has no key `service`: did you mean `services`?"]),
        ("version: v1\nservices: [{action: open}]", &["2:12 the service has no `name`: add `name: ...`"]),
        ("version: v1\nservices: [{name: a}]",     &["2:12 the service has no `action`: add `action: enforce`; it can be `enforce`, `report` and `open`"]),
        ("version: v1\nservices: [{name: a, action: enfroce}]", &["2:30 `enfroce` is not an action: did you mean `enforce`?"]),
        ("version: v1\nservices: [{name: a, action: open}, {name: a, action: open}]", &["2:37 the service `a` stands here twice"]),
        ("version: v1\nservices: [{name: a, action: open, allowed_domain: []}]", &["2:36 a service has no key `allowed_domain`: did you mean `allowed_domains`?"]),
        ("version: v1\nservices: []\ndefault: {action: enforce, allowed_domains: ['a.b:443', 'a.*.example', '*a.example', '.a.example', '*.com']}", &[
            "3:50 Smokescreen's lists take hosts without ports: leave `:443` out",
            "3:60 Smokescreen knows a `*` only as the whole first label: write `*.example.com` for everything below `example.com`",
            "3:73 Smokescreen knows a `*` only as the whole first label: write `*.example.com` for everything below `example.com`",
            "3:87 a domain does not begin with a dot: write `*.a.example` for what is below it",
            "3:101 `*.com` would match every domain registered under `com`: name the domains, or write `default: allow-public` if every public destination is meant"]),
        ("version: v1\nservices: []\ndefault: {action: open, mitm_domains: [{domain: a.example}]}", &["3:39 `mitm_domains` is not implemented yet: leave it out: Egret adds no headers to requests"]),
        ("version: v1\nservices: []\ndefault: {action: open, allowed_external_proxies: [p.example]}", &["3:51 `allowed_external_proxies` is not implemented yet: leave it out: a program cannot choose a further proxy"]),
    ];
    for (text, expected) in table {
        assert_eq!(super::said(&errors(text)), *expected, "{text}");
    }
}
