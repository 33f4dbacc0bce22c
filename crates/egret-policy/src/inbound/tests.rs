use super::*;
use crate::Policy;

fn named(text: &str) -> InboundHost {
    let named = parse_inbound(text).unwrap_or_else(|bad| panic!("{text}: {}", bad.message));
    InboundHost::new(named, RuleId::new("p.yaml".into(), 1))
}

#[test]
fn a_host_is_matched_as_it_is_meant_and_not_as_it_is_spelt() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str], &[&str])] = &[
        ("app.example", &["app.example", "APP.Example", "app.example."], &["a.app.example", "example", "app.example..", "xapp.example", "", ".", "app.example:80"]),
        ("APP.example.", &["app.example"], &[]),
        ("*.app.example", &["a.app.example"], &["app.example", "a.b.app.example", "aapp.example"]),
        ("**.app.example", &["a.app.example", "a.b.app.example"], &["app.example", "aapp.example"]),
        (".app.example", &["app.example", "a.app.example", "a.b.app.example"], &["aapp.example", "example"]),
        ("pr-*.app.example", &["pr-1.app.example", "pr-.app.example", "PR-X.app.example"], &["pr.app.example", "a.pr-1.app.example", "app.example"]),
        ("a*a.app.example", &["aa.app.example", "aba.app.example"], &["a.app.example"]),
        ("*.s3.*.app.example", &["x.s3.eu.app.example"], &["s3.eu.app.example", "x.s3.app.example", "x.s3.a.b.app.example", "x.y.s3.eu.app.example"]),
        ("bücher.example", &["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"], &["bucher.example"]),
        ("box", &["box", "BOX."], &["box.lan", "null"]),
        ("host.docker.internal", &["host.docker.internal"], &["gateway.docker.internal"]),
        ("localhost", &["localhost"], &["127.0.0.1", "a.localhost"]),
        ("192.168.1.7", &["192.168.1.7", "::ffff:192.168.1.7"], &["192.168.1.8", "192.168.1.7.", "[192.168.1.7]", "192.168.1.7:80"]),
        ("2001:db8::7", &["2001:db8::7", "[2001:db8::7]", "2001:DB8:0::7"], &["2001:db8::8", "[2001:db8::7", "2001:db8::7]", "[2001:db8::7%eth0]", "[]", "[[2001:db8::7]]"]),
        ("[2001:db8::7]", &["[2001:db8::7]"], &[]),
    ];
    for (text, meant, not) in table {
        let host = named(text);
        for asked in *meant {
            assert!(host.matches(asked), "{text} does not match {asked}");
        }
        for asked in *not {
            assert!(!host.matches(asked), "{text} matches {asked}");
        }
    }
}

#[test]
fn a_policy_has_them_in_their_order() {
    let text = "version: 1\ninbound:\n- App.Example\n- '[2001:DB8::7]'\n- .corp.example\n";
    let policy = Policy::parse("p.yaml", text.as_bytes()).unwrap().policy;
    let said = policy.inbound().iter();
    let said: Vec<_> = said.map(|host| format!("{host} {}", host.rule())).collect();
    assert_eq!(
        said,
        [
            "app.example p.yaml:3",
            "2001:db8::7 p.yaml:4",
            ".corp.example p.yaml:5"
        ]
    );
    assert!(Policy::deny_all().inbound().is_empty());
}

/// Each item, and what its error says: column, message and help.
#[test]
fn what_is_wrong_is_named_with_its_place() {
    #[rustfmt::skip]
    let table = [
        ("'*'",                        "13 `*` would match every name there is: name the hosts: under any other name, a port is not answered, so that no web page can pass itself off as its user"),
        ("'*.com'",                    "13 `*.com` would match every domain registered under `com`: name the hosts: under any other name, a port is not answered, so that no web page can pass itself off as its user"),
        ("'a.example:8080'",           "22 `inbound` takes hosts without ports: write `a.example`: it holds for every port that is published"),
        ("'[::1]:80'",                 "18 `inbound` takes hosts without ports: write `::1`: it holds for every port that is published"),
        ("'https://a.example:1/x'",    "13 an entry names a host, not a URL: write `a.example`"),
        ("'https://*'",                "13 an entry names a host, not a URL: write the host alone, such as `app.example`"),
        ("10.0.0.0/8",                 "12 a network cannot be addressed, only a host: write a name, or one address"),
        ("a.example/x",                "12 a host stands here, without a path: write a name, or one address"),
        ("0x7f.1",                     "12 `0x7f.1` is not an IP address: write it as `127.0.0.1`"),
        ("'10.*'",                     "13 `10.*` is not a host pattern: write each address out"),
        ("a..b",                       "12 `a..b` is not a host pattern"),
("'[a.example]'",              "13 brackets belong around an IPv6 address: leave them out"),
        ("''",                         "12 `` is not a host pattern"),
        ("7",                          "12 an item of `inbound` has to be a text: put it in quotes"),
    ];
    for (item, expected) in table {
        let text = format!("version: 1\ninbound: [ {item} ]");
        let errors = Policy::parse("p", text.as_bytes()).unwrap_err();
        let error = &errors.errors()[0];
        let help = error.help().map(|help| format!(": {help}"));
        let said = format!(
            "{} {}{}",
            error.column(),
            error.message(),
            help.unwrap_or_default()
        );
        assert_eq!(said, expected, "{item}");
    }
    let many = format!(
        "version: 1\ninbound: [{}a.example]",
        "a.example, ".repeat(MAX_INBOUND)
    );
    let errors = Policy::parse("p", many.as_bytes()).unwrap_err();
    assert_eq!(
        errors.errors()[0].message(),
        "`inbound` takes at most 1024 hosts"
    );
}
