use crate::Policy;

use super::{check, errors, read, told, written};

/// Hosts and ports, as profiles mostly have them.
pub(super) const BOTH: &str = r#"{
  "name": "weather",
  "read": ["/srv/maps", "/srv/tiles:/tiles/"],
  "write": ["/srv/out:/srv/out/"],
  "network": {
    "outbound": {
      "insecure_allow_all": false,
      "allow_host": ["api.weather.example", ".tiles.example", "*.cdn.example"],
      "allow_port": [443, 8443]
    },
    "inbound": {"allow_host": ["localhost"]}
  },
  "privileged": false
}"#;

#[test]
fn hosts_and_ports_have_to_match_both() {
    let parsed = read(BOTH, None);
    assert_eq!(parsed.policy.name(), Some("weather"));
    let files = parsed.policy.filesystem();
    assert_eq!(written(&files.read), ["/srv/maps", "/srv/tiles:/tiles"]);
    assert_eq!(written(&files.write), ["/srv/out"]);
    check(
        &parsed,
        &[
            ("api.weather.example:443", "allowed.rule"),
            ("api.weather.example:8443", "allowed.rule"),
            ("api.weather.example:80", "denied.port"),
            ("www.api.weather.example:443", "denied.default"),
            ("tiles.example:443", "allowed.rule"),
            ("a.b.tiles.example:443", "allowed.rule"),
            ("cdn.example:443", "allowed.rule"),
            ("a.b.cdn.example:443", "allowed.rule"),
            ("other.example:443", "denied.default"),
            (
                "api.weather.example:443 -> 10.0.0.1",
                "denied.address.private",
            ),
            ("93.184.216.34:443", "denied.literal_address"),
        ],
    );
    assert_eq!(
        parsed
            .policy
            .compile()
            .decide(
                &crate::Destination::from_user("tiles.example:443").unwrap(),
                None,
                &crate::HostAddresses::new([])
            )
            .unwrap()
            .rule()
            .unwrap()
            .to_string(),
        "p:8"
    );
}

#[test]
fn what_is_not_listed_does_not_restrict_unless_nothing_is() {
    let hosts = read(
        "network: {outbound: {allow_host: [a.example, 10.1.2.3], allow_port: []}}",
        None,
    );
    check(
        &hosts,
        &[
            ("a.example:22", "allowed.rule"),
            ("a.example:65535", "allowed.rule"),
            ("10.1.2.3:5432", "allowed.rule"),
            ("b.example:443", "denied.default"),
        ],
    );
    let all = read("network: {outbound: {insecure_allow_all: true}}", None);
    check(
        &all,
        &[
            ("a.example:22", "allowed.default_public"),
            ("a.example:22 -> 192.168.0.1", "denied.address.private"),
            ("host.docker.internal:80", "denied.host_gateway"),
            ("169.254.169.254:80", "denied.address.metadata"),
        ],
    );
    for nothing in [
        "network: {outbound: {}}",
        "network: {outbound: null}",
        "network: {}",
        "network: null",
        "privileged: false",
        "network: {outbound: {allow_host: [], allow_port: null}}",
        "network: {mode: none, outbound: {allow_host: [a.example]}}",
        "network: {mode: none, outbound: {insecure_allow_all: true}}",
        "network: {outbound: {allow_host: [host.docker.internal]}}",
        "network: {outbound: {allow_host: [host.docker.internal], allow_port: [443]}}",
    ] {
        check(
            &read(nothing, None),
            &[
                ("a.example:443", "denied.default"),
                ("host.docker.internal:443", "denied.host_gateway"),
            ],
        );
    }
}

#[test]
fn what_differs_is_told() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("network: {mode: bridge, outbound: {allow_host: [10.0.0.1]}}", &[]),
        ("network: {mode: '', outbound: {allow_host: [a.example]}}", &[
            "note: a host may resolve to public addresses only, while ToolHive's proxies do not look at what it resolves to; where a \
             private network is meant, `addresses` of Egret's own language opens it"]),
        ("network: {outbound: {insecure_allow_all: true, allow_host: [a.example]}}", &[
            "1: beside `insecure_allow_all: true`, `allow_host` and `allow_port` restrict nothing",
            "1: every public destination can be reached, and data can be sent to any of them",
            "note: where every host is allowed, that is what is public: no private networks, not this machine, no metadata services"]),
        ("network: {outbound: {allow_host: [host.docker.internal]}}", &[
            "1: this opens nothing: ToolHive shuts the names of the host, listed or not"]),
        ("network: {mode: none, outbound: {allow_port: [1]}}", &["1: with `mode: none` there is no network, so `outbound` opens nothing"]),
        ("network: {inbound: {allow_host: [a.example]}}", &[
            "note: `inbound` adds to localhost and the sandbox's own name, which ToolHive's Squid proxy no longer answers to where hosts \
             are listed; its Envoy proxy answers to any name"]),
        ("network: {inbound: {allow_host: []}}", &[]),
        ("network: {}\nprivileged: false", &[]),
        ("network: {}\nprivileged: true", &[
            "2: a privileged program could undo its sandbox, so this is not run in one",
            "note: `privileged` is left out: Egret's own language cannot ask for it, since a privileged program could undo its sandbox"]),
        ("network: {}\nread: [/a]", &[
            "note: `read` and `write` are mounted in a container, as there; to what a process sees they add: it has the other files of \
             this machine too, read-only, but for those that hold secrets"]),
        ("name: x\nwrite: []", &[
            "note: a profile without `network` opens nothing; ToolHive's Squid proxy lets everything through then, its Envoy proxy nothing"]),
    ];
    for (text, expected) in table {
        assert_eq!(told(&read(text, None)), *expected, "{text}");
    }
}

/// Each text, and what its errors say: line, column, message and help.
#[test]
fn what_is_wrong_is_named_with_its_place() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("network: {outbond: {}}",                     &["1:11 `network` has no key `outbond`: did you mean `outbound`?"]),
        ("network: {outbound: {allow_hosts: [a.b]}}",  &["1:22 `outbound` has no key `allow_hosts`: did you mean `allow_host`?"]),
        ("network: []",                                &["1:10 `network` has to be a mapping"]),
        ("network: {mode: host}",                      &["1:17 with `mode: host`, ToolHive does not isolate the network, which Egret always does: leave `mode` out"]),
        ("network: {mode: non}",                       &["1:17 with `mode: non`, ToolHive does not isolate the network, which Egret always does: did you mean `none`?"]),
        ("privileged: 'yes'",                          &["1:13 `privileged` has to be `true` or `false`"]),
        ("network: {outbound: {allow_host: a.b}}",     &["1:34 `allow_host` has to be a list: put it in brackets: `[a.b]`"]),
        ("network: {outbound: {allow_host: ['a.b:443', '*', 'a*.b.example', '**.b.example']}}", &[
            "1:39 `allow_host` takes hosts without ports: write `a.b` and 443 in `allow_port`",
            "1:47 ToolHive knows a `*` only as the whole first label: for every host write `insecure_allow_all: true`",
            "1:53 ToolHive knows a `*` only as the whole first label: write `.example.com` for `example.com` and everything below it",
            "1:68 ToolHive knows a `*` only as the whole first label: write `.example.com` for `example.com` and everything below it"]),
        ("network: {outbound: {allow_host: [localhost]}}", &["1:35 `localhost` cannot be allowed: a service on the host that runs the sandbox is `host.docker.internal`, opened by `host_gateway: [PORT]` or --allow-docker-gateway=PORT"]),
        ("network: {outbound: {allow_host: [169.254.169.254, 10.0.0.0/8, 'https://a.b']}}", &[
            "1:35 `169.254.169.254` can never be allowed: a metadata service hands out the credentials of the machine to whoever asks, and is never opened",
            "1:60 a host stands here, without a path, and not a network: write `example.com`, or one address",
            "1:71 a host stands here, without a path, and not a network: write `example.com`, or one address"]),
        ("network: {outbound: {allow_host: [a.b], allow_port: [0, 443.5, '443', 70000]}}", &[
            "1:54 `0` is not a port", "1:57 `443.5` is not a port", "1:64 a port is a number: write 443 without quotes", "1:71 `70000` is not a port"]),
        ("read: ['volume://data:/data', '/a:b', 'C:\\x', '/a;b', '~/x', '/a:/a:/a', '']", &[
            "1:9 mounting a resource is not implemented yet: name a path of this machine",
            "1:35 where a path is inside begins with `/`: what is behind a colon is where a path is inside; a file that has one in its name cannot be named",
            "1:40 this is a path of Windows: name a path of this machine",
            "1:48 ToolHive takes no `;` in a path",
            "1:56 ToolHive does not take `~` for the home directory: write the path out",
            "1:63 a mount is `PATH` or `HOST-PATH:CONTAINER-PATH`",
            "1:74 this is not a path"]),
        ("read: ['/a:/d', '/b:/d']\nwrite: ['/a/:/d']", &["1:17 two paths cannot both be `/d` inside: write another place behind the colon of one of them"]),
        ("network: {inbound: {allow_host: [1]}}",      &["1:34 a host has to be a text: put it in quotes"]),
        ("network: {inbound: {allow_host: ['*', 'a.b:80', 'a*.b.example', '*.com', 'https://a.b', 10.0.0.0/8]}}", &[
            "1:35 ToolHive knows a `*` only as the whole first label: name the hosts",
            "1:43 `allow_host` takes hosts without ports: write `a.b` alone",
            "1:51 ToolHive knows a `*` only as the whole first label: write `.example.com` for `example.com` and everything below it",
            "1:66 `.com` would match every domain registered under `com`: name the hosts: under any other name, a port is not answered, so that no web page can pass itself off as its user",
            "1:75 an entry names a host, not a URL: write `a.b`",
            "1:89 a network cannot be addressed, only a host: write a name, or one address"]),
    ];
    for (text, expected) in table {
        assert_eq!(super::said(&errors(text)), *expected, "{text}");
    }
}

#[test]
fn who_asks_for_privileges_is_known_and_an_own_policy_cannot() {
    let policy = |text: &str| read(text, None).policy;
    let privileged = policy("{\"network\": {},\n\"privileged\": true}");
    let said = privileged.privileged().map(ToString::to_string);
    assert_eq!(said.as_deref(), Some("p:2"));
    assert_eq!(policy("privileged: false").privileged(), None);
    let converted = policy(&privileged.to_yaml(&[]).unwrap());
    assert_eq!(converted.privileged(), None);
    let change = |old: &Policy, new: &Policy| {
        let difference = old.diff(new);
        assert_eq!(difference.is_none(), difference.privileged.is_none());
        difference.privileged
    };
    assert_eq!(change(&converted, &privileged), Some("added"));
    assert_eq!(change(&privileged, &converted), Some("removed"));
    assert_eq!(change(&privileged, &privileged), None);
    let errors = errors("version: 1\ndefault: deny\nprivileged: true");
    assert_eq!(
        errors.errors()[0].message(),
        "a policy has no key `privileged`"
    );
}

#[test]
fn hosts_of_published_ports_follow_dstdomain() {
    let text =
        "network: {inbound: {allow_host: [a.example, .b.example, '*.c.example', 192.168.1.7]}}";
    let policy = read(text, None).policy;
    let converted = policy.to_yaml(&[]).unwrap();
    assert_eq!(
        converted,
        "version: 1\ninbound: [a.example, .b.example, .c.example, 192.168.1.7]\n"
    );
    for policy in [&policy, &read(&converted, None).policy] {
        let answers = |asked: &str| policy.inbound().iter().any(|host| host.matches(asked));
        for asked in [
            "A.example.",
            "b.example",
            "x.y.b.example",
            "c.example",
            "x.c.example",
            "192.168.1.7",
        ] {
            assert!(answers(asked), "{asked}");
        }
        for asked in ["x.a.example", "xb.example", "192.168.1.8", "localhost", "*"] {
            assert!(!answers(asked), "{asked}");
        }
    }
    let nothing = read("network: {inbound: {allow_host: []}}", None);
    assert!(nothing.policy.inbound().is_empty());
}

#[test]
fn ports_without_hosts_are_those_of_every_public_host() {
    let parsed = read("network: {outbound: {allow_port: [443, 8443]}}", None);
    check(
        &parsed,
        &[
            ("a.example:443", "allowed.default_public"),
            ("93.184.216.34:8443", "allowed.default_public"),
            ("a.example:80", "denied.default"),
            ("93.184.216.34:80", "denied.literal_address"),
            ("a.example:443 -> 10.0.0.1", "denied.address.private"),
            ("host.docker.internal:443", "denied.host_gateway"),
        ],
    );
    let yaml = parsed.policy.to_yaml(&[]).unwrap();
    assert_eq!(yaml, "version: 1\ndefault: allow-public:443,8443\n");
}
