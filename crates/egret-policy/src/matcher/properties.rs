//! What holds for every policy: the matcher decides as a naive reading of the language does, a deny entry only ever takes
//! away, and nothing but its own opt-in opens what has one.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::tests::naive_matches;
use super::*;
use crate::addr::{DOCKER_BRIDGE, class_of};
use crate::pattern::Pattern;
use crate::{Lookup, Narrowing, Policy, Program};

/// An entry, as a person would tell it.
#[derive(Clone, Debug)]
struct Told {
    /// A pattern or a network.
    what: String,
    ports: Vec<u16>,
    addresses: Vec<String>,
    by: Option<String>,
    under: Option<String>,
    /// A method and a path with an optional `/**` at its end.
    http: Option<(String, String)>,
}

#[derive(Clone, Debug)]
struct ToldPolicy {
    allow_public: bool,
    allow: Vec<Told>,
    deny: Vec<Told>,
    host_gateway: Option<Vec<u16>>,
}

/// A question: a destination, who asks, for what, and what the name resolves to.
#[derive(Clone, Debug)]
struct Asked {
    host: String,
    port: u16,
    by: Option<Program>,
    request: (String, String),
    resolves_to: Vec<IpAddr>,
}

impl Told {
    fn yaml(&self, deny: bool) -> String {
        let key = if self.is_net() { "address" } else { "host" };
        let mut fields = vec![
            format!("{key}: '{}'", self.what),
            format!("ports: {:?}", self.ports),
        ];
        if !deny && !self.is_net() && !self.addresses.is_empty() && !self.is_host() {
            fields.push(format!("addresses: [{}]", self.addresses.join(", ")));
        }
        fields.extend(self.by.iter().map(|by| format!("by: ['{by}']")));
        fields.extend(self.under.iter().map(|by| format!("under: ['{by}']")));
        if let (Some((method, path)), false) = (&self.http, deny && self.is_net()) {
            fields.push(format!("http: ['{method} {path}']"));
        }
        format!("{{{}}}", fields.join(", "))
    }

    fn is_net(&self) -> bool {
        self.what.contains('/')
    }

    fn is_host(&self) -> bool {
        self.what == "host.docker.internal"
    }

    fn means_program(&self, by: Option<&Program>, unknown: bool) -> bool {
        let Some(program) = by else {
            return (self.by.is_none() && self.under.is_none()) || unknown;
        };
        let same = |pattern: &String, path: &String| match pattern.strip_suffix("/**") {
            Some(directory) => path.starts_with(&format!("{directory}/")),
            None => path == pattern,
        };
        let by_itself = self
            .by
            .as_ref()
            .is_some_and(|by| same(by, &program.executable));
        let started = self.under.as_ref().is_some_and(|by| {
            same(by, &program.executable) || program.ancestors.iter().any(|path| same(by, path))
        });
        (self.by.is_none() && self.under.is_none()) || by_itself || started
    }

    fn means_request(&self, (method, path): &(String, String)) -> bool {
        let Some((listed, glob)) = &self.http else {
            return true;
        };
        let same_path = match glob.strip_suffix("/**") {
            Some(front) => path == front || path.starts_with(&format!("{front}/")),
            None => path == glob,
        };
        (listed == "*" || listed == method) && same_path
    }

    fn means_address(&self, address: IpAddr) -> bool {
        self.is_net() && self.what.parse::<IpNet>().unwrap().contains(&address)
    }

    fn means_host(&self, host: &str, literal: Option<IpAddr>) -> bool {
        match literal {
            Some(address) => self.means_address(address),
            None if host == "host.docker.internal" => self.is_host(),
            None => !self.is_net() && !self.is_host() && naive_matches(&self.what, host),
        }
    }

    fn specificity(&self) -> impl Ord + use<> {
        match self.what.parse::<IpNet>() {
            Ok(net) => (None, 255 - net.prefix_len()),
            Err(_) => (
                Some(Pattern::parse(&self.what).unwrap().shape().specificity()),
                0,
            ),
        }
    }
}

impl ToldPolicy {
    fn yaml(&self) -> String {
        let list = |key: &str, entries: &[Told], deny| match entries {
            [] => String::new(),
            entries => {
                let entries: Vec<_> = entries.iter().map(|entry| entry.yaml(deny)).collect();
                format!("{key}: [{}]\n", entries.join(",\n  "))
            }
        };
        let default = if self.allow_public {
            "allow-public"
        } else {
            "deny"
        };
        let gateway = self.host_gateway.as_ref();
        let gateway = gateway.map_or(String::new(), |ports| format!("host_gateway: {ports:?}\n"));
        let (allow, deny) = (
            list("allow", &self.allow, false),
            list("deny", &self.deny, true),
        );
        format!("version: 1\ndefault: {default}\n{gateway}{allow}{deny}")
    }

    fn parse(&self) -> Policy {
        let text = self.yaml();
        let parsed = Policy::parse("p.yaml", text.as_bytes());
        parsed
            .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
            .policy
    }

    fn compile(&self) -> Matcher {
        self.parse().compile()
    }

    /// What a project's file can say: this policy's deny entries, its allow entries as `only`, and the rest shut if it is.
    fn as_project(&self) -> String {
        let list = |key: &str, entries: Vec<String>| match entries.as_slice() {
            [] => String::new(),
            entries => format!("{key}: [{}]\n", entries.join(",\n  ")),
        };
        let only = self.allow.iter().map(|entry| {
            Told {
                addresses: vec![],
                by: None,
                under: None,
                http: None,
                ..entry.clone()
            }
            .yaml(true)
        });
        let deny = self.deny.iter().map(|entry| entry.yaml(true));
        format!(
            "version: 1\n{}{}{}{}",
            list("only", only.collect()),
            list("deny", deny.collect()),
            if self.allow_public {
                ""
            } else {
                "default: deny\n"
            },
            if self.host_gateway.is_some() {
                ""
            } else {
                "host_gateway: deny\n"
            },
        )
    }

    /// Whether a project's file that says this leaves a destination in, but for its deny entries, read off its
    /// description.
    fn leaves_in(&self, asked: &Asked) -> bool {
        let literal = asked.host.parse::<IpAddr>().ok();
        let is_host = asked.host == "host.docker.internal" || literal == Some(DOCKER_BRIDGE);
        let mut only = self.allow.iter();
        let named = only.any(|entry| {
            entry.ports.contains(&asked.port)
                && match is_host {
                    true => entry.is_host(),
                    false => entry.means_host(&asked.host, literal),
                }
        });
        (self.allow.is_empty() || named) && !(is_host && self.host_gateway.is_none())
    }

    /// The decision read off the description of the language, entry by entry.
    fn naive(&self, asked: &Asked) -> Result<(), &'static str> {
        let literal = asked.host.parse::<IpAddr>().ok();
        let is_host_name = asked.host == "host.docker.internal";
        let on_port = |entry: &&Told| entry.ports.contains(&asked.port);
        let by = asked.by.as_ref();
        let denies = |entry: &&Told| {
            on_port(entry)
                && entry.means_host(&asked.host, literal)
                && entry.means_program(by, true)
        };
        let whole = |entry: &&Told| entry.http.is_none() || entry.is_net();
        if self.deny.iter().filter(denies).any(|entry| whole(&entry)) {
            return Err("denied.rule");
        }
        let mut allowing: Vec<_> = self
            .allow
            .iter()
            .filter(|entry| entry.means_host(&asked.host, literal))
            .collect();
        allowing.sort_by_key(|entry| entry.specificity());
        let on_this_port: Vec<_> = allowing.iter().copied().filter(on_port).collect();
        let by_this: Vec<_> = on_this_port
            .iter()
            .copied()
            .filter(|entry| entry.means_program(by, false))
            .collect();
        let best: Vec<_> = by_this
            .iter()
            .filter(|entry| entry.specificity() == by_this[0].specificity())
            .collect();
        let gateway = self
            .host_gateway
            .as_ref()
            .is_some_and(|ports| ports.contains(&asked.port));
        match () {
            () if !best.is_empty() => {}
            () if is_host_name && gateway => {}
            () if is_host_name && !on_this_port.is_empty() => return Err("denied.executable"),
            () if is_host_name => return Err("denied.host_gateway"),
            () if self.allow_public
                && literal.is_none_or(|address| class_of(address) == Class::Public) => {}
            () if !on_this_port.is_empty() => return Err("denied.executable"),
            () if !allowing.is_empty() => return Err("denied.port"),
            () => {
                return Err(literal.map_or("denied.default", |address| {
                    class_of(address).denied().code()
                }));
            }
        }
        let answer = match (literal, is_host_name) {
            (Some(address), _) => vec![address],
            (None, true) => vec![DOCKER_BRIDGE],
            (None, false) => asked.resolves_to.clone(),
        };
        for address in answer {
            let port_and_program = |entry: &&Told| on_port(entry) && entry.means_program(by, true);
            if self
                .deny
                .iter()
                .filter(port_and_program)
                .any(|entry| entry.means_address(address))
            {
                return Err("denied.rule");
            }
            let class = class_of(address);
            let granted = best.iter().flat_map(|entry| &entry.addresses);
            let granted = granted
                .into_iter()
                .any(|net| net.parse::<IpNet>().unwrap().contains(&address));
            let ok = literal.is_some()
                || is_host_name
                || class == Class::Public
                || (granted && class.can_be_granted());
            if !ok || (!is_host_name && address == DOCKER_BRIDGE) {
                return Err(if address == DOCKER_BRIDGE {
                    "denied.address.host"
                } else {
                    class.denied().code()
                });
            }
        }
        // Of entries that name the same, those count that let it lead to the whole answer.
        let mut best = best;
        if literal.is_none() && !is_host_name {
            let lets = |entry: &Told, address: &IpAddr| {
                let listed = entry
                    .addresses
                    .iter()
                    .any(|net| net.parse::<IpNet>().unwrap().contains(address));
                listed || class_of(*address) == Class::Public
            };
            let whole =
                |entry: &&&&Told| asked.resolves_to.iter().all(|address| lets(entry, address));
            let some: Vec<_> = best.iter().filter(whole).copied().collect();
            match some.is_empty() && best.iter().any(|entry| entry.http.is_some()) {
                true => {
                    let outside = asked
                        .resolves_to
                        .iter()
                        .find(|address| !lets(best[0], address));
                    return Err(class_of(*outside.unwrap()).denied().code());
                }
                false if some.is_empty() => {}
                false => best = some,
            }
        }
        let refused = |entry: &Told| entry.means_request(&asked.request);
        if self
            .deny
            .iter()
            .filter(denies)
            .filter(|entry| !whole(entry))
            .any(refused)
        {
            return Err("denied.request");
        }
        match best.is_empty() || best.iter().any(|entry| entry.means_request(&asked.request)) {
            true => Ok(()),
            false => Err("denied.request"),
        }
    }
}

/// What the matcher makes of it, with everything that follows a permit.
fn decided(matcher: &Matcher, asked: &Asked) -> Result<Vec<IpAddr>, &'static str> {
    let hosts = HostAddresses::new([]).with_gateway(vec![DOCKER_BRIDGE]);
    let to = Destination::parse(&asked.host, &asked.port.to_string()).unwrap();
    let admitted = matcher
        .decide(&to, asked.by.as_ref(), &hosts)
        .and_then(|mut permit| {
            let answer = match permit.lookup() {
                Lookup::Literal(address) => vec![address],
                Lookup::HostGateway(_) => vec![DOCKER_BRIDGE],
                Lookup::Name(_) => asked.resolves_to.clone(),
            };
            let vetted = permit.vet(&answer, &hosts)?;
            permit.request(&asked.request.0, &asked.request.1)?;
            Ok(vetted.iter().map(|address| address.ip()).collect())
        });
    admitted.map_err(|denial| denial.reason().code())
}

const PATHS: [&str; 5] = ["/x", "/x/y", "/z", "/x/y/z", "/"];

fn port() -> impl Strategy<Value = u16> {
    1_u16..4
}

fn told() -> impl Strategy<Value = Told> {
    let names = prop_oneof![
        "[ab]\\.t",
        "[ab]\\.[ab]\\.t",
        "\\*\\.[ab]\\.t",
        "\\*\\*\\.[ab]\\.t",
        "\\.[ab]\\.t",
        "[ab]\\*\\.[ab]\\.t",
        "\\*[ab]\\.[ab]\\.t",
        "\\*\\.[ab]\\.\\*\\.t",
        "[ab]\\.\\*\\.t",
        Just("host.docker.internal".to_owned()),
    ];
    let nets = prop_oneof![
        Just("9.0.0.0/8"),
        Just("9.9.0.0/16"),
        Just("10.0.0.0/8"),
        Just("10.1.0.0/16"),
        Just("172.16.0.0/12"),
        Just("2600::/12"),
    ];
    let what = prop_oneof![5 => names, 1 => nets.prop_map(str::to_owned)];
    let addresses = prop_oneof![4 => Just(vec![]), 1 => Just(vec!["10.0.0.0/8".to_owned()]), 1 => Just(vec!["172.16.0.0/12".to_owned(), "fd00::/8".to_owned()])];
    let program =
        || prop_oneof![4 => Just(None), 1 => Just(Some("/p/x")), 1 => Just(Some("/q/**"))];
    let method = prop_oneof![Just("GET"), Just("PUT"), Just("*")];
    let glob = prop_oneof![Just("/x"), Just("/x/**"), Just("/**"), Just("/x/y")];
    let http = prop_oneof![3 => Just(None), 1 => (method, glob).prop_map(|(method, path)| Some((method.to_owned(), path.to_owned())))];
    let ports = prop::collection::btree_set(port(), 1..3);
    (what, ports, addresses, program(), program(), http).prop_map(
        |(what, ports, addresses, by, under, http)| Told {
            what,
            ports: ports.into_iter().collect(),
            addresses,
            by: by.map(str::to_owned),
            under: under.map(str::to_owned),
            http,
        },
    )
}

fn policies() -> impl Strategy<Value = ToldPolicy> {
    let gateway =
        prop_oneof![2 => Just(None), 1 => prop::collection::vec(port(), 1..3).prop_map(Some)];
    let (allow, deny) = (
        prop::collection::vec(told(), 0..6),
        prop::collection::vec(told(), 0..4),
    );
    (any::<bool>(), allow, deny, gateway).prop_map(|(allow_public, allow, deny, host_gateway)| {
        ToldPolicy {
            // A deny entry does not list requests to addresses.
            deny: deny
                .into_iter()
                .map(|entry| Told {
                    http: entry.http.clone().filter(|_| !entry.is_net()),
                    addresses: vec![],
                    ..entry
                })
                .collect(),
            allow: allow
                .into_iter()
                .map(|entry| Told {
                    addresses: if entry.is_net() || entry.is_host() {
                        vec![]
                    } else {
                        entry.addresses.clone()
                    },
                    ..entry
                })
                .collect(),
            allow_public,
            host_gateway,
        }
    })
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    #[rustfmt::skip]
    let table = [
        "8.8.8.8", "9.1.1.1", "9.9.9.9", "10.1.1.1", "10.2.2.2", "172.16.0.9", "172.17.0.1", "127.0.0.1", "169.254.169.254", "169.254.1.1",
        "224.0.0.1", "0.0.0.0", "192.0.2.1", "2606:4700::1111", "fd00::1", "fe80::1", "::1", "::", "ff02::1", "fd00:ec2::254",
    ];
    prop::sample::select(table.to_vec()).prop_map(|text| text.parse().unwrap())
}

fn questions() -> impl Strategy<Value = Asked> {
    let names = prop_oneof![
        4 => prop::collection::vec("[ab]{1,2}", 1..4).prop_map(|labels| format!("{}.t", labels.join("."))),
        1 => Just("host.docker.internal".to_owned()),
        1 => prop::sample::select(vec!["9.1.1.1", "9.9.9.9", "10.1.1.1", "10.2.2.2", "8.8.8.8", "172.16.0.9", "192.0.2.1", "2606:4700::1111"]).prop_map(str::to_owned),
    ];
    let programs = prop::sample::select(vec![
        None,
        Some(("/p/x", vec![])),
        Some(("/q/y/z", vec![])),
        Some(("/r", vec!["/s", "/p/x"])),
        Some(("/r", vec!["/q/z"])),
        Some(("/r", vec![])),
    ]);
    let programs = programs.prop_map(|program| {
        program.map(|(executable, ancestors)| Program {
            executable: executable.to_owned(),
            ancestors: ancestors.into_iter().map(str::to_owned).collect(),
        })
    });
    let request = (
        prop::sample::select(vec!["GET", "PUT", "HEAD"]),
        prop::sample::select(PATHS.to_vec()),
    );
    let request = request.prop_map(|(method, path)| (method.to_owned(), path.to_owned()));
    (
        names,
        port(),
        programs,
        request,
        prop::collection::vec(addresses(), 1..3),
    )
        .prop_map(|(host, port, by, request, resolves_to)| Asked {
            host,
            port,
            by,
            request,
            resolves_to,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_matcher_decides_as_the_language_is_described(policy in policies(), questions in prop::collection::vec(questions(), 1..12)) {
        let matcher = policy.compile();
        for asked in questions {
            let expected = policy.naive(&asked);
            prop_assert_eq!(decided(&matcher, &asked).map(drop), expected, "{:?}\n{}", asked, policy.yaml());
        }
    }

    #[test]
    fn a_deny_entry_takes_away_and_never_adds(policy in policies(), more in told(), at in any::<prop::sample::Index>(), questions in prop::collection::vec(questions(), 1..12)) {
        let mut narrower = policy.clone();
        let more = Told { addresses: vec![], http: more.http.clone().filter(|_| !more.is_net()), ..more };
        narrower.deny.insert(at.index(policy.deny.len() + 1), more);
        let (wide, narrow) = (policy.compile(), narrower.compile());
        for asked in questions {
            if decided(&narrow, &asked).is_ok() {
                prop_assert!(decided(&wide, &asked).is_ok(), "{:?}\n{}", asked, narrower.yaml());
            }
        }
    }

    #[test]
    fn a_project_s_file_takes_away_and_never_adds(policy in policies(), file in policies(), another in policies(), questions in prop::collection::vec(questions(), 1..12)) {
        let wide = policy.compile();
        let narrow = |files: &[&ToldPolicy]| {
            let mut narrow = policy.parse();
            for file in files {
                let (text, name) = (file.as_project(), "egret.yaml");
                let (read, _) = Narrowing::parse(name, text.as_bytes()).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
                narrow.narrow(&read).unwrap();
            }
            narrow.compile()
        };
        let (once, twice) = (narrow(&[&file]), narrow(&[&file, &another]));
        // The same with deny entries alone, and without a default, is a policy.
        let mut plain = policy.clone();
        plain.deny.extend(file.deny.clone());
        plain.allow_public &= file.allow_public;
        for asked in questions {
            let (before, after) = (decided(&wide, &asked), decided(&once, &asked));
            if let Ok(addresses) = &after {
                let were = before.clone().unwrap_or_default();
                prop_assert!(addresses.iter().all(|address| were.contains(address)), "{:?} {:?}\n{}\n{}", asked, before, policy.yaml(), file.as_project());
            }
            if let Ok(twice) = decided(&twice, &asked) {
                prop_assert_eq!(&after, &Ok(twice));
            }
            let expected = plain.naive(&asked).is_ok() && file.leaves_in(&asked);
            prop_assert_eq!(after.is_ok(), expected, "{:?} {:?}\n{}\n{}", asked, after, policy.yaml(), file.as_project());
        }
    }

    #[test]
    fn only_its_own_opt_in_opens_what_has_one(policy in policies(), questions in prop::collection::vec(questions(), 1..12)) {
        let mut without = policy;
        without.host_gateway = None;
        without.allow.retain(|entry| !entry.is_host());
        let matcher = without.compile();
        for asked in questions {
            for address in decided(&matcher, &asked).unwrap_or_default() {
                let class = HostAddresses::new([]).class_of(address);
                prop_assert!(class.can_be_granted(), "{} is {}: {:?}\n{}", address, class, asked, without.yaml());
            }
        }
    }
}
