use proptest::prelude::*;

use super::*;
use crate::{Destination, Lookup, Matcher, Program};

fn policy(text: &str) -> Policy {
    let text = format!("version: 1\n{text}");
    Policy::parse("p.yaml", text.as_bytes())
        .unwrap_or_else(|errors| panic!("{errors}"))
        .policy
}

/// A difference in words: `+` for what is gained, `-` for what is lost.
fn said(old: &str, new: &str) -> Vec<String> {
    let difference = policy(old).diff(&policy(new));
    assert!(difference.complete);
    let say = |sign: &str, change: &Change| {
        let mut text = format!("{sign} {}", change.destination);
        let mut add = |part: String| text = format!("{text} {part}");
        if change.ports.len() > 1 || change.other_ports {
            let other = if change.other_ports { "+other" } else { "" };
            let ports: Vec<_> = change.ports.iter().map(u16::to_string).collect();
            add(format!("({}{other})", ports.join(",")));
        }
        change.by.iter().for_each(|by| add(format!("by {by}")));
        let under = change.under.iter();
        under.for_each(|by| add(format!("under {by}")));
        change
            .requests
            .iter()
            .for_each(|request| add(format!("[{request}]")));
        change
            .resolves_to
            .iter()
            .for_each(|address| add(format!("at {address}")));
        text
    };
    let gained = difference.gained.iter().map(|change| say("+", change));
    let lost = difference.lost.iter().map(|change| say("-", change));
    let files = difference.filesystem.iter();
    let files = files.map(|file| format!("{} {}: {}", file.change, file.list, file.path));
    let hosts = difference.inbound.iter();
    let hosts = hosts.map(|host| format!("{} inbound: {}", host.change, host.host));
    gained.chain(lost).chain(files).chain(hosts).collect()
}

#[test]
fn a_difference_is_one_of_meaning() {
    #[rustfmt::skip]
    let table: &[(&str, &str, &[&str])] = &[
        ("", "", &[]),
        ("name: x\nallow: [a.test, b.test]", "allow: [{host: B.test., reason: y}, 'a.test:443,80']\ntests: [{allow: a.test}]", &[]),
        ("allow: ['.a.test']", "allow: [a.test, '**.a.test']", &[]),
        ("allow: [x.a.test, '*.a.test']", "allow: ['*.a.test']", &[]),
        ("allow: [a.test]\ndeny: [a.test]", "", &[]),
        ("allow: [10.0.0.0/9, 10.128.0.0/9]", "allow: [10.0.0.0/8]", &[]),
        ("host_gateway: deny", "", &[]),
        ("", "allow: [a.test]", &["+ a.test:443 (80,443)"]),
        ("allow: [a.test]", "", &["- a.test:443 (80,443)"]),
        ("allow: [a.test]", "allow: ['a.test:443']", &["- a.test:80"]),
        ("allow: ['a.test:443']", "allow: ['a.test:443,8443']", &["+ a.test:8443"]),
        ("allow: ['*.a.test:443']", "allow: ['**.a.test:443']", &["+ any.any.a.test:443"]),
        ("allow: ['**.a.test:443']", "allow: ['.a.test:443']", &["+ a.test:443"]),
        ("allow: ['.a.test:443']", "allow: ['.a.test:443']\ndeny: [x.a.test]", &["- x.a.test:443"]),
        ("allow: ['.a.test:443']", "allow: ['.a.test:443']\ndeny: ['api-*.a.test']", &["- api-any.a.test:443"]),
        ("", "default: allow-public", &["+ any.example:443 (80,443+other)", "+ 1.1.1.1:443 (80,443+other)", "+ [2606:4700::1111]:443 (80,443+other)"]),
        ("allow: ['a.test:443']", "default: allow-public\nallow: ['a.test:443']", &["+ any.example:443 (80,443+other)", "+ 1.1.1.1:443 (80,443+other)", "+ [2606:4700::1111]:443 (80,443+other)"]),
        ("default: allow-public", "default: allow-public\ndeny: [x.test]", &["- x.test:443 (80,443+other)"]),
        ("", "host_gateway: [5432]", &["+ host.docker.internal:5432"]),
        ("", "allow: ['host.docker.internal:81']", &["+ host.docker.internal:81"]),
        ("allow: ['a.test:443']", "allow: [{host: a.test, ports: [443], addresses: [10.0.0.0/8]}]", &["+ a.test:443 at 10.0.0.0"]),
        ("allow: ['a.test:443']", "allow: ['a.test:443']\ndeny: ['9.0.0.0/8']", &["- a.test:443 at 9.0.0.0"]),
        ("allow: ['a.test:443']", "allow: [{host: a.test, ports: [443], by: [/x]}]", &["- a.test:443 by /any/other/program"]),
        ("", "allow: [{host: a.test, ports: [443], by: [/x]}]", &["+ a.test:443 by /x"]),
        ("allow: [{host: a.test, ports: [443], by: [/x]}]", "allow: [{host: a.test, ports: [443], under: [/x]}]", &["+ a.test:443 by /any/other/program under /x"]),
        ("allow: ['a.test:80']", "allow: [{host: a.test, ports: [80], http: [GET /a]}]", &["- a.test:80 [anything but HTTP] [OTHER /a] [GET /any/other/path] [OTHER /any/other/path]"]),
        ("allow: [{host: a.test, ports: [80], http: [GET /a/**]}]", "allow: [{host: a.test, ports: [80], http: [GET /a/**]}]\ndeny: [{host: a.test, http: ['* /**/z']}]", &["- a.test:80 [GET /a/z]"]),
        ("allow: [10.0.0.0/8]\ndeny: [10.1.0.0/16]", "allow: [10.0.0.0/8]", &["+ 10.1.0.0:443 (80,443)"]),
        ("filesystem: {write: [a, b]}", "filesystem: {write: [b], read: [c]}", &["added read: c", "removed write: a"]),
        ("filesystem: {write: ['/a:/b', '/c:/c']}", "filesystem: {write: ['/a:/d', /c]}", &["added write: /a:/d", "removed write: /a:/b"]),
        ("", "inbound: [b.test, a.test, A.test.]", &["added inbound: a.test", "added inbound: b.test"]),
        ("inbound: [a.test, 10.0.0.1, '::1']", "inbound: [10.0.0.2, '[::1]']", &["added inbound: 10.0.0.2", "removed inbound: 10.0.0.1", "removed inbound: a.test"]),
        ("inbound: [.a.test]", "inbound: [x.a.test, '*.a.test', '**.y.a.test']", &["removed inbound: .a.test"]),
        ("inbound: [x.a.test, '*.a.test']", "inbound: [.a.test]", &["added inbound: .a.test"]),
        ("inbound: [.a.test, x.a.test]", "inbound: ['**.a.test', a.test]", &[]),
        ("inbound: ['*.s3.*.test', '.x.*.test']", "inbound: ['.x.*.test', '*.s3.*.test']", &[]),
        ("inbound: ['p-*.test.example']", "inbound: ['*.test.example']", &["added inbound: *.test.example"]),
    ];
    for (old, new, expected) in table {
        assert_eq!(said(old, new), *expected, "{old:?} to {new:?}");
    }
}

#[test]
fn what_patterns_with_wildcards_inside_share_is_tried() {
    #[rustfmt::skip]
    let table: &[(&str, &str, &[&str])] = &[
        ("allow: ['a*.t.test:1']\ndeny: ['*z.t.test']", "allow: ['a*.t.test:1']", &["+ anyz.t.test:1"]),
        ("allow: ['*.s3.*.t.test:1']\ndeny: ['**.eu.t.test']", "allow: ['*.s3.*.t.test:1']", &["+ any.s3.eu.t.test:1"]),
    ];
    for (old, new, expected) in table {
        assert_eq!(said(old, new), *expected, "{old:?} to {new:?}");
    }
}

/// Differences that are easily overlooked.
#[test]
fn every_kind_is_asked_about() {
    #[rustfmt::skip]
    let table: &[(&str, &str, &[&str])] = &[
        // Networks that begin with what is never opened.
        ("", "allow: [{address: 0.0.0.0/0, ports: [1]}]", &["+ 1.0.0.0:1", "+ 10.0.0.0:1", "+ 192.0.0.0:1"]),
        ("", "allow: [{address: 0.0.0.0/1, ports: [1]}]", &["+ 1.0.0.0:1", "+ 10.0.0.0:1"]),
        ("", "allow: [{address: '::/0', ports: [1]}]", &["+ [::100:0]:1", "+ [::a00:0]:1", "+ [64:ff9b::100:0]:1"]),
        ("", "allow: [{address: '64:ff9b::/96', ports: [1]}]", &["+ [64:ff9b::100:0]:1", "+ [64:ff9b::a00:0]:1", "+ [64:ff9b::c000:0]:1"]),
        ("default: allow-public", "default: allow-public\ndeny: ['0.0.0.0/0']", &["- any.example:443 (80,443+other) at 1.0.0.0", "- 1.0.0.0:443 (80,443+other)"]),
        ("HOST", "HOST, addresses: [0.0.0.0/0]", &["+ a.test:80 at 10.0.0.0", "+ a.test:80 at 192.0.0.0"]),
        ("HOST", "HOST, addresses: ['::/0']", &["+ a.test:80 at ::100:0", "+ a.test:80 at ::a00:0"]),
        ("HOST", "HOST, addresses: ['64:ff9b::/96']", &["+ a.test:80 at 64:ff9b::a00:0", "+ a.test:80 at 64:ff9b::c000:0"]),
        ("HOST, only_addresses: [9.0.0.0/8]", "HOST, only_addresses: [9.0.0.0/8, 168.0.0.0/6]", &["+ a.test:80 at 168.0.0.0"]),
        ("HOST, only_addresses: [10.0.0.0/8], http: [GET /x]}, {host: a.test, ports: [80], only_addresses: [192.168.0.0/16], http: [GET /x]", "HOST, only_addresses: [10.0.0.0/8, 192.168.0.0/16], http: [GET /x]", &["+ a.test:80 [GET /x] at 10.0.0.0 at 192.168.0.0"]),
        // Requests.
        ("HOST, http: [GET /p0, GET /p1]", "HOST, http: [GET /p0, GET /p1, GET /zzz, POST /zzz/**]", &["+ a.test:80 [GET /zzz] [POST /zzz] [POST /zzz/]"]),
        ("HOST, http: [GET /, GET /*, GET /*/*, GET /*/*/*]", "HOST, http: [GET /**]", &["+ a.test:80 [GET /any/]"]),
        ("HOST, http: [GET /a, GET /a/**/*]", "HOST, http: [GET /a/**]", &["+ a.test:80 [GET /a/]"]),
        ("HOST, http: [GET /any]", "HOST, http: [GET /*]", &["+ a.test:80 [GET /any1]"]),
        ("HOST, http: [GET /aany]", "HOST, http: [GET /a*]", &["+ a.test:80 [GET /any]"]),
        ("HOST, http: ['GET,OTHER /x']", "HOST, http: ['* /x']", &["+ a.test:80 [OTHER1 /x]"]),
        ("HOST, http: [GET /any/other/path]", "HOST, http: [GET /**]", &["+ a.test:80 [GET /]"]),
        ("HOST, http: [GET /a]", "HOST, http: ['GET /*;x', GET /a]", &["+ a.test:80 [GET /a;x]"]),
        ("HOST, http: [GET /*]}]\ndeny: [{host: a.test, http: [GET /a]", "HOST, http: [GET /*]}]\ndeny: [{host: a.test, http: [GET /A]", &[]),
        ("", "HOST, http: ['GET /*;x', 'PUT /*']", &["+ a.test:80 [PUT /any] [PUT /any;x]"]),
        // Programs.
        ("HOST, by: [/usr/bin/any]", "HOST, by: ['/usr/bin/*']", &["+ a.test:80 by /usr/bin/any1"]),
        ("HOST, by: [/any/other/program]", "HOST", &["+ a.test:80 by /any"]),
        ("HOST, by: ['/**']", "HOST", &["+ a.test:80 by a program that cannot be told"]),
        ("HOST2, by: ['/u/**']}]\ndeny: [{address: 9.0.0.0/8, ports: [8080], by: ['/**/a']}]", "HOST2, by: ['/u/**']}]\ndeny: [{address: 9.0.0.0/8, ports: any, by: ['/**/a']}]", &["- any.ex.com:443 (80,443+other) by /u/a at 9.0.0.0"]),
        ("HOST2, under: [/u/a]}]\ndeny: [{host: '*.ex.com', http: ['GET /x'], under: [/u/b]}]", "HOST2, under: [/u/a]}]\ndeny: [{host: '**.ex.com', http: ['GET /x'], under: [/u/b]}]", &["- any.any.ex.com:443 (80,443+other) by /u/a under /u/b [GET /x]", "- any.any.ex.com:443 (80,443+other) by /u/a under /u/b [anything but HTTP]"]),
        ("host_gateway: deny\ndeny: [{address: 0.0.0.0/0, under: ['/*']}]", "host_gateway: allow\ndeny: [{address: 0.0.0.0/0, under: ['/*']}]", &["+ host.docker.internal:443 (80,443+other) by /any/other/program"]),
        ("host_gateway: allow\nallow: ['a.test:443']", "host_gateway: allow\nallow: ['a.test:443']\ndeny: [{address: 9.0.0.0/8, by: [/x]}]", &["- a.test:443 by /x at 9.0.0.0", "- a.test:443 by a program that cannot be told at 9.0.0.0"]),
        ("NAMES", "NAMES\ndeny: [{address: 9.0.0.0/8, by: [/q]}]", &["- z.test:80 by /q at 9.0.0.0", "- z.test:80 by a program that cannot be told at 9.0.0.0"]),
    ];
    let names: Vec<_> = (0..8)
        .map(|n| format!("{{host: h{n}.test, by: [/p]}}"))
        .collect();
    let names = format!("allow: [{}, 'z.test:80']", names.join(", "));
    let whole = |text: &str| {
        if let Some(rest) = text.strip_prefix("HOST2") {
            return format!("allow: [{{host: '**.ex.com', ports: any{rest}");
        }
        if let Some(rest) = text.strip_prefix("HOST") {
            return format!("allow: [{{host: a.test, ports: [80]{rest}}}]");
        }
        text.replace("NAMES", &names)
    };
    for (old, new, expected) in table {
        let (old, new) = (whole(old), whole(new));
        assert_eq!(said(&old, &new), *expected, "{old:?} to {new:?}");
        assert_eq!(said(&new, &old).len(), expected.len(), "{new:?} to {old:?}");
    }
}

#[test]
fn what_is_left_out_for_its_cost_is_said() {
    let rules: Vec<_> = (0..40).map(|n| format!("GET /**/p{n}/*")).collect();
    let policy = policy(&format!(
        "allow: [{{host: a.test, http: ['{}']}}]",
        rules.join("', '")
    ));
    let requests = policy.allow.iter().map(|entry| (0, false, &entry.requests));
    let requests: Vec<_> = requests.collect();
    for (steps, complete) in [(100, false), (10_000_000, true)] {
        let work = Work::new(steps);
        let found = askers::requests(&requests, &work);
        assert_eq!(work.is_complete(), complete, "{steps}");
        assert!(found.all.len() > usize::from(complete) * 40);
    }
}

/// Entries that have much to do with each other.
mod told {
    pub(super) const HOSTS: &[&str] = &[
        "a.t.test",
        "b.t.test",
        "*.t.test",
        "**.t.test",
        ".t.test",
        "a*.t.test",
        "*a.t.test",
        "ab*.t.test",
        "*.*.t.test",
        "**.u.t.test",
        "a*.*.t.test",
        "any.t.test",
        "host.docker.internal",
    ];
    pub(super) const NETS: &[&str] = &[
        "9.0.0.0/8",
        "9.9.0.0/16",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "0.0.0.0/0",
        "0.0.0.0/1",
        "::/0",
        "64:ff9b::/96",
        "64:ff9b::a00:0/104",
        "2002::/16",
        "2600::/16",
        "2600::/32",
        "fd00::/8",
        "168.0.0.0/6",
        "172.16.0.0/12",
        "192.0.2.0/24",
        "1.1.1.1",
    ];
    pub(super) const PROGRAMS: &[&str] = &[
        "/x",
        "/y",
        "/**",
        "/*",
        "/y/*",
        "/y/**",
        "/**/a",
        "/*/a",
        "/x*",
        "/a*b",
        "/any",
        "/any/other/program",
    ];
    pub(super) const PATHS: &[&str] = &[
        "/", "/a", "/a/", "/a/**", "/a/*", "/**", "/*", "/**/b", "/**/b/", "/a/**/b", "/a*", "/*a",
        "/A", "/a;x", "/*;x", "/a.", "/*.j", "/*/*", "/**/*", "/A*", "/any",
    ];
    pub(super) const METHODS: &[&str] = &["GET", "PUT", "*", "GET,PUT", "GET,OTHER"];
    pub(super) const PORTS: &[&str] = &["any", "[1]", "[2]", "[1, 2]", "[80]"];
    pub(super) const DEFAULTS: &[&str] = &["deny", "deny", "allow-public", "'allow-public:1,80'"];
    pub(super) const HOST_GATEWAYS: &[&str] = &["deny", "deny", "allow", "[1]"];
}

/// What may be asked about them.
mod asked {
    pub(super) const HOSTS: &[&str] = &[
        "a.t.test",
        "b.t.test",
        "ab.t.test",
        "aab.t.test",
        "aba.t.test",
        "ba.t.test",
        "x.t.test",
        "a.u.t.test",
        "x.y.t.test",
        "t.test",
        "u.t.test",
        "any.t.test",
        "q.test",
        "a.b.c.t.test",
        "host.docker.internal",
    ];
    pub(super) const ADDRESSES: &[&str] = &[
        "8.8.8.8",
        "9.1.1.1",
        "9.9.1.1",
        "10.1.1.1",
        "10.2.2.2",
        "172.17.0.1",
        "172.16.1.1",
        "192.0.2.1",
        "203.0.113.1",
        "1.1.1.1",
        "169.1.1.1",
        "200.1.1.1",
        "64:ff9b::9.9.9.9",
        "64:ff9b::10.1.1.1",
        "64:ff9b::8.8.8.8",
        "2002:909:909::1",
        "2002:a01:101::1",
        "2600::1",
        "2600::5efe:10.1.1.1",
        "2600:1::5efe:9.1.1.1",
        "fd00::1",
        "2606::1",
        "::9.9.9.9",
        "64:ff9b::172.17.0.1",
    ];
    pub(super) const PROGRAMS: &[&str] = &[
        "/x", "/y", "/y/b", "/y/b/c", "/y/a", "/q/a", "/a", "/z", "/axb", "/xx", "/any", "/q/q/q",
    ];
    pub(super) const PATHS: &[&str] = &[
        "/", "/a", "/a/", "/a/b", "/a/b/", "/b", "/b/", "/c", "/c/", "/A", "/A/b", "/a/x/b",
        "/a;x", "/a;y", "/b;x", "/c;x", "/a.", "/ax", "/xa", "/aa", "/x.j", "/a%2fb", "/x/b;x",
        "/any", "/Ax", "/a./b", "/c/d/e", "/a/../b",
    ];
    pub(super) const METHODS: &[&str] = &["GET", "PUT", "OTHER", "get", "XXX"];
    pub(super) const PORTS: &[u16] = &[1, 2, 3, 80];
}

fn of<T: Copy + std::fmt::Debug>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

fn some(all: &'static [&str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(of(all), 1..=most).prop_map(|some| {
        let mut quoted: Vec<_> = some.iter().map(|one| format!("'{one}'")).collect();
        quoted.sort();
        quoted.dedup();
        quoted.join(", ")
    })
}

fn sometimes(
    often: u32,
    key: &'static str,
    list: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    prop::option::weighted(f64::from(often) / 10.0, list)
        .prop_map(move |list| list.map_or(String::new(), |list| format!(", {key}: [{list}]")))
}

fn who() -> impl Strategy<Value = String> {
    (
        sometimes(2, "by", some(told::PROGRAMS, 2)),
        sometimes(2, "under", some(told::PROGRAMS, 2)),
    )
        .prop_map(|(by, under)| by + &under)
}

fn http() -> impl Strategy<Value = String> {
    let rule = (of(told::METHODS), of(told::PATHS))
        .prop_map(|(method, path)| format!("'{method} {path}'"));
    sometimes(
        4,
        "http",
        prop::collection::vec(rule, 1..4).prop_map(|rules| rules.join(", ")),
    )
}

fn allow() -> impl Strategy<Value = String> {
    let addresses = prop_oneof![
        sometimes(3, "addresses", some(told::NETS, 3)),
        sometimes(3, "only_addresses", some(told::NETS, 3)),
    ];
    let named =
        (of(told::HOSTS), addresses, http()).prop_map(|(host, addresses, http)| match host {
            "host.docker.internal" => format!("host: '{host}'{http}"),
            _ => format!("host: '{host}'{addresses}{http}"),
        });
    let net = of(told::NETS).prop_map(|net| format!("address: '{net}'"));
    let what = prop_oneof![3 => named, 1 => net];
    (what, of(told::PORTS), who())
        .prop_map(|(what, ports, who)| format!("{{{what}, ports: {ports}{who}}}"))
}

fn deny() -> impl Strategy<Value = String> {
    let named = (of(told::HOSTS), http()).prop_map(|(host, http)| format!("host: '{host}'{http}"));
    let net = of(told::NETS).prop_map(|net| format!("address: '{net}'"));
    let what = prop_oneof![2 => named, 1 => net];
    (what, of(told::PORTS), who())
        .prop_map(|(what, ports, who)| format!("{{{what}, ports: {ports}{who}}}"))
}

/// Two policies that have most of their entries in common.
fn two_policies() -> impl Strategy<Value = (String, String)> {
    let lists = || {
        (
            prop::collection::vec(allow(), 0..3),
            prop::collection::vec(deny(), 0..2),
        )
    };
    let rest = || (of(told::DEFAULTS), of(told::HOST_GATEWAYS));
    (
        prop::collection::vec(allow(), 0..3),
        prop::collection::vec(deny(), 0..3),
        lists(),
        lists(),
        rest(),
        rest(),
        any::<bool>(),
    )
        .prop_map(|(allow, deny, old, new, rest, other_rest, same_rest)| {
            let text = |more: (Vec<String>, Vec<String>), (default, gateway): (&str, &str)| {
                let list = |entries: [&[String]; 2]| entries.concat().join(", ");
                let default = default.to_owned();
                format!(
                    "default: {default}\nhost_gateway: {gateway}\nallow: [{}]\ndeny: [{}]",
                    list([&allow, &more.0]),
                    list([&deny, &more.1]),
                )
            };
            (
                text(old, rest),
                text(new, if same_rest { rest } else { other_rest }),
            )
        })
}

/// Whether a policy allows everything that is asked, by its matcher.
fn allows(
    matcher: &Matcher,
    to: &Destination,
    by: Option<&Program>,
    request: Option<(&str, &str)>,
    answer: &[IpAddr],
    hosts: &HostAddresses,
) -> bool {
    let Ok(mut permit) = matcher.decide(to, by, hosts) else {
        return false;
    };
    let literal = match permit.lookup() {
        Lookup::Literal(address) => vec![address],
        _ => answer.to_vec(),
    };
    let (method, path) = request.unwrap_or_default();
    permit.vet(&literal, hosts).is_ok() && permit.request(method, path).is_ok()
}

/// Small numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % end
    }

    fn one<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn policies_without_a_difference_decide_alike((old, new) in two_policies(), seed in 1_u64..) {
        let parse = |text: &str| Policy::parse("p.yaml", format!("version: 1\n{text}").as_bytes());
        let (Ok(old), Ok(new)) = (parse(&old), parse(&new)) else {
            return Ok(());
        };
        let (old, new) = (old.policy, new.policy);
        prop_assert!(old.diff(&old.clone()).is_none());
        let there = old.diff(&new);
        let back = new.diff(&old);
        prop_assert!(there.complete && back.complete);
        prop_assert_eq!(there.gained.is_empty(), back.lost.is_empty());
        prop_assert_eq!(there.lost.is_empty(), back.gained.is_empty());
        let (was, is) = (old.compile(), new.compile());
        let hosts = HostAddresses::new([]).with_gateway(vec![DOCKER_BRIDGE]);
        let mut random = Random(seed);
        for _ in 0..1000 {
            let host = if random.below(3) == 0 { random.one(asked::ADDRESSES) } else { random.one(asked::HOSTS) };
            let port = random.one(asked::PORTS).to_string();
            let to = Destination::parse(host, &port).unwrap();
            let ancestors = (0..random.below(3)).map(|_| random.one(asked::PROGRAMS).to_owned()).collect();
            let program = Program { executable: random.one(asked::PROGRAMS).to_owned(), ancestors };
            let by = (random.below(5) > 0).then_some(&program);
            let request = (random.below(5) > 0).then(|| (random.one(asked::METHODS), random.one(asked::PATHS)));
            let answer: Vec<IpAddr> = (0..1 + random.below(3)).map(|_| match host {
                "host.docker.internal" => DOCKER_BRIDGE,
                _ => random.one(asked::ADDRESSES).parse().unwrap(),
            }).collect();
            let (before, after) = (allows(&was, &to, by, request, &answer, &hosts), allows(&is, &to, by, request, &answer, &hosts));
            let said = match (before, after) {
                (false, true) => !there.gained.is_empty(),
                (true, false) => !there.lost.is_empty(),
                _ => true,
            };
            prop_assert!(said, "{} {:?} {:?} {:?}: {} then {}", to, by, request, answer, before, after);
        }
    }
}
