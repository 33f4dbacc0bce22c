//! A policy that is accepted can be used, and opens nothing that is never to be opened.

use std::net::IpAddr;

use egret_policy::{
    Class, Denial, Destination, HostAddresses, Language, Lookup, Matcher, Narrowing, Permit,
    Policy, Program, Question, Reason, SettingKey, Settings, Spoken, Takes, Target, Verdict,
    class_of,
};

use crate::oracle;

/// The most destinations that are taken from the policy's own text.
const MAX_WORDS: usize = 24;
/// The most executables that are.
const MAX_PROGRAMS: usize = 4;

/// A text as a policy, in whatever language it is; one that is accepted then decides.
pub fn policy(data: &[u8]) {
    policy_of(data, None);
}

/// The same of one service of a policy.
pub fn policy_of(data: &[u8], service: Option<&str>) {
    let parsed = match Policy::parse_service("policy.yaml", data, service) {
        Ok(parsed) => parsed,
        Err(errors) => {
            let shown = errors.to_string();
            assert!(!shown.is_empty(), "an error says something");
            return;
        }
    };
    if parsed.language == Language::Native {
        assert!(service.is_none() && parsed.notes.is_empty());
    }
    let text = String::from_utf8_lossy(data);
    let words = words(&text);
    let policy = parsed.policy;
    let world = World::of(&policy, &words);
    let destinations = destinations(&words);
    for to in &destinations {
        world.decides(to);
    }
    for word in &words {
        denied_by_flag(&policy, word, &world, &destinations);
    }
    for test in policy.run_tests() {
        let denied = test.explanation.verdict == Verdict::Deny;
        assert_eq!(test.passed, denied == (test.expected() == "deny"));
    }
}

/// A project's file takes away from whatever policy there is, and never adds; and a user's settings are read or refused.
pub fn own_files(data: &[u8]) {
    if let Err(errors) = Settings::parse("settings.yaml", data, KEYS) {
        assert!(!errors.to_string().is_empty(), "an error says something");
    }
    let read = match Narrowing::parse("egret.yaml", data) {
        Ok((read, _)) => read,
        Err(errors) => {
            assert!(!errors.to_string().is_empty(), "an error says something");
            return;
        }
    };
    let leaves =
        |path: &String| path.starts_with(['/', '~']) || path.split('/').any(|part| part == "..");
    assert!(
        !read.hide().iter().any(leaves),
        "a project hides what is its own"
    );
    let text = String::from_utf8_lossy(data);
    let words = words(&text);
    let mut destinations = destinations(&words);
    destinations.extend(
        WIDE_DESTINATIONS
            .iter()
            .filter_map(|text| Destination::from_user(text).ok()),
    );
    let wide = Policy::parse("policy.yaml", WIDE.as_bytes())
        .expect("this is a policy")
        .policy;
    let mut narrow = wide.clone();
    if narrow.narrow(&read).is_err() {
        return;
    }
    let (wide, narrow) = (World::of(&wide, &words), World::of(&narrow, &words));
    for to in &destinations {
        narrow.decides(to);
        for by in narrow.askers() {
            let Ok(mut after) = narrow.decide(to, by) else {
                continue;
            };
            let mut before = wide
                .decide(to, by)
                .unwrap_or_else(|denial| panic!("it was refused before: {denial}"));
            for address in &narrow.answers {
                if narrow.again(to, by).vet(&[*address], &narrow.hosts).is_ok() {
                    let was = wide.again(to, by).vet(&[*address], &wide.hosts);
                    assert!(
                        was.is_ok(),
                        "{to} may lead to {address}, and could not before"
                    );
                }
            }
            let public = [known_address("1.1.1.1")];
            if after.vet(&public, &narrow.hosts).is_err()
                || before.vet(&public, &wide.hosts).is_err()
            {
                continue;
            }
            for (method, target) in REQUESTS {
                let is_new = after.request(method, target).is_ok()
                    && before.request(method, target).is_err();
                assert!(!is_new, "{to}: {method} {target} was refused before");
            }
        }
    }
}

/// What there is to take away from.
const WIDE: &str = "version: 1
default: allow-public:80,443
host_gateway: [5432]
allow:
- '**.example.com'
- host.docker.internal:11434
- {host: db.corp.example, ports: [5432], addresses: [10.0.0.0/8]}
- {host: model.example, by: [/usr/bin/curl]}
- {host: web.example, ports: [80], http: [GET /**]}
- 10.1.0.0/16:22
deny: [gist.example.com]
";
const WIDE_DESTINATIONS: &[&str] = &[
    "a.example.com:443",
    "gist.example.com",
    "host.docker.internal:5432",
    "host.egret.internal:11434",
    "10.9.8.7:5432",
    "db.corp.example:5432",
    "model.example",
    "web.example:80",
    "10.1.2.3:22",
    "93.184.216.34",
];
/// Keys that settings could have.
const KEYS: &[SettingKey] = &[
    SettingKey {
        name: "policy",
        takes: Takes::Text,
    },
    SettingKey {
        name: "log_max_size",
        takes: Takes::TextOrNumber,
    },
    SettingKey {
        name: "write",
        takes: Takes::List,
    },
    SettingKey {
        name: "record_programs",
        takes: Takes::Flag,
    },
];

/// Whether two policies decide the same, about what the text speaks of.
pub fn decide_the_same(one: &Policy, other: &Policy, text: &str) {
    let words = words(text);
    let (one, other) = (World::of(one, &words), World::of(other, &words));
    assert_eq!(one.programs, other.programs);
    for to in &destinations(&words) {
        for by in one.askers() {
            let (one, other) = (one.decide(to, by), other.decide(to, by));
            assert_eq!(word(&one), word(&other), "{to} by {by:?}");
            if let (Ok(one), Ok(other)) = (one, other) {
                assert_eq!(one.note(), other.note());
                assert_eq!(one.inspects(), other.inspects());
                for (method, target) in REQUESTS {
                    let same = one.request(method, target).is_ok()
                        == other.request(method, target).is_ok();
                    assert!(same, "{method} {target}");
                }
            }
        }
    }
}

struct World {
    gateway_open: bool,
    answers: Vec<IpAddr>,
    hosts: HostAddresses,
    matcher: Matcher,
    programs: Vec<Program>,
}

impl World {
    fn of(policy: &Policy, words: &[&str]) -> Self {
        let known = ANSWERS.iter().map(|address| known_address(address));
        let named = words.iter().filter_map(|word| word.parse::<IpAddr>().ok());
        Self {
            gateway_open: policy.opens_host_gateway(),
            answers: known.chain(named).collect(),
            hosts: HostAddresses::new([known_address("10.9.8.7"), known_address("2001:db8:9::7")]),
            matcher: policy.compile(),
            programs: programs(policy),
        }
    }

    /// Nobody known, then each program.
    fn askers(&self) -> impl Iterator<Item = Option<&Program>> {
        std::iter::once(None).chain(self.programs.iter().map(Some))
    }

    fn decide(&self, to: &Destination, by: Option<&Program>) -> Result<Permit, Denial> {
        self.matcher.decide(to, by, &self.hosts)
    }

    fn decides(&self, to: &Destination) {
        let by_anybody = self.explain(to, None, None, None);
        let by_unknown = self.decide(to, None);
        for by in self.askers() {
            let decision = self.decide(to, by);
            let again = self.decide(to, by);
            assert_eq!(
                word(&decision),
                word(&again),
                "{to} is decided the same for ever"
            );
            if !self.matcher.asks_for_programs() {
                assert_eq!(word(&decision), word(&by_unknown), "{to}: nobody asked who");
            }
            if by_unknown.is_ok() {
                assert!(
                    decision.is_ok(),
                    "{to}: being unknown helped against {by:?}"
                );
            }
            match decision {
                Ok(permit) => {
                    if let Target::Name(name) = to.target() {
                        let known = self.matcher.knows(name).is_ok();
                        assert!(known, "{to} is allowed, and its name is said not to exist");
                    }
                    self.permits(&permit, to, by);
                    let literal = matches!(permit.lookup(), Lookup::Literal(_));
                    assert!(
                        literal || by_anybody != Verdict::Deny,
                        "{to}: nobody may, {by:?} does"
                    );
                }
                Err(denial) => {
                    assert!(!denial.to_string().is_empty());
                    let _ = denial.hint();
                    if by.is_some() {
                        assert_eq!(self.explain(to, by, None, None), Verdict::Deny, "{to}");
                    }
                }
            }
        }
    }

    fn permits(&self, permit: &Permit, to: &Destination, by: Option<&Program>) {
        self.vets(permit, to, by);
        self.holds_to_its_name(permit);
        let public = [known_address("1.1.1.1")];
        // Vetting leaves of several entries those that let it lead there: so a permit is asked once.
        let mut permit = self.again(to, by);
        let resolves = permit.vet(&public, &self.hosts).is_ok();
        for (method, target) in REQUESTS {
            let allowed = permit.request(method, target).is_ok();
            assert!(
                allowed || permit.inspects(),
                "refused, and nobody would have asked"
            );
            let with_query = format!("{}?a=/../b", target.split('?').next().unwrap_or_default());
            assert_eq!(
                allowed,
                permit.request(method, &with_query).is_ok(),
                "a query says nothing"
            );
            if by.is_some() && matches!(permit.lookup(), Lookup::Name(_)) {
                let verdict = self.explain(to, by, Some((method, target)), Some(&public));
                assert_eq!(
                    verdict == Verdict::Allow,
                    allowed && resolves,
                    "{to} {method} {target}"
                );
            }
        }
    }

    fn explain(
        &self,
        to: &Destination,
        by: Option<&Program>,
        request: Option<(&str, &str)>,
        resolves_to: Option<&[IpAddr]>,
    ) -> Verdict {
        let question = Question {
            to,
            by,
            request,
            resolves_to,
            hosts: &self.hosts,
        };
        self.matcher.explain(&question).verdict
    }

    fn again(&self, to: &Destination, by: Option<&Program>) -> Permit {
        let permit = self.matcher.decide(to, by, &self.hosts);
        permit.unwrap_or_else(|denial| panic!("decided otherwise the second time: {denial}"))
    }

    fn vets(&self, permit: &Permit, to: &Destination, by: Option<&Program>) {
        assert_eq!(permit.destination(), to);
        let vet = |answer: &[IpAddr]| self.again(to, by).vet(answer, &self.hosts);
        assert!(vet(&[]).is_err(), "an empty answer");
        for &address in &self.answers {
            let Ok(vetted) = vet(&[address]) else {
                // One forbidden address spoils the whole answer, wherever it stands.
                let public = known_address("1.1.1.1");
                assert!(vet(&[public, address]).is_err());
                assert!(vet(&[address, public]).is_err());
                continue;
            };
            for dialled in vetted.iter() {
                assert_eq!(dialled.port(), to.port());
                assert_eq!(dialled.ip(), address.to_canonical());
                let (class, ip) = (self.hosts.class_of(dialled.ip()), dialled.ip());
                assert!(!oracle::is_never_granted(ip), "{to} may be dialled at {ip}");
                assert!(
                    class.can_be_granted() || class == Class::Host && self.gateway_open,
                    "{to} may be dialled at {ip}, which is {class}"
                );
                if let Lookup::Literal(literal) = permit.lookup() {
                    assert_eq!(literal, ip, "a literal is dialled as it was decided on");
                }
                if permit.reason() == Reason::AllowedDefaultPublic {
                    assert_eq!(class_of(ip), Class::Public, "{to} at {ip}, by default");
                }
            }
        }
    }

    fn holds_to_its_name(&self, permit: &Permit) {
        let Target::Name(name) = permit.destination().target() else {
            return;
        };
        let confirm = |spoken| self.matcher.confirm(permit, spoken);
        assert!(confirm(Spoken::Sni(Some(name.as_str()))).is_ok());
        for other in [
            None,
            Some(""),
            Some("another.name.example"),
            Some("1.1.1.1"),
        ] {
            assert!(confirm(Spoken::Sni(other)).is_err());
            assert!(confirm(Spoken::Host(other)).is_err());
        }
    }
}

/// What is denied on top is denied, and nothing else changes for it.
fn denied_by_flag(policy: &Policy, denied: &str, world: &World, destinations: &[Destination]) {
    let mut stricter = policy.clone();
    if stricter.add_deny_flag(denied).is_err() {
        return;
    }
    let stricter = stricter.compile();
    let itself = Destination::from_authority(denied, Some(443));
    for to in destinations.iter().chain(itself.as_ref()) {
        let before = world.decide(to, None);
        let after = stricter.decide(to, None, &world.hosts);
        assert!(before.is_ok() || after.is_err(), "a deny opened {to}");
        if itself.as_ref() == Ok(to) {
            assert!(after.is_err(), "{to} was denied, and is allowed");
        }
    }
}

fn word(decision: &Result<Permit, Denial>) -> Reason {
    match decision {
        Ok(permit) => permit.reason(),
        Err(denial) => denial.reason(),
    }
}

/// What is decided on: the same for every policy, and what this one speaks of.
pub fn destinations(words: &[&str]) -> Vec<Destination> {
    let mut destinations: Vec<_> = DESTINATIONS.iter().map(|to| known(to)).collect();
    for (n, word) in words.iter().enumerate() {
        // A few of the ports that policies speak of; which ones makes no difference to the promises.
        let port = [443, 80, 22, 5432][n % 4].to_string();
        destinations.extend(Destination::parse(word, &port));
        destinations.extend(Destination::from_authority(word, Some(443)));
    }
    destinations
}

/// The executables that a policy names, by themselves and as what started another one.
fn programs(policy: &Policy) -> Vec<Program> {
    let executables = policy.executables().take(MAX_PROGRAMS).map(str::to_owned);
    let executables: Vec<_> = executables.chain(["/usr/bin/curl".to_owned()]).collect();
    let itself = |executable: &String| Program {
        executable: executable.clone(),
        ancestors: Vec::new(),
    };
    let child = |ancestor: &String| Program {
        executable: "/bin/sh".to_owned(),
        ancestors: vec!["/bin/env".to_owned(), ancestor.clone()],
    };
    let children = executables.iter().map(child);
    executables.iter().map(itself).chain(children).collect()
}

/// Nobody known, then each program that a policy names.
pub fn askers(policy: &Policy) -> impl Iterator<Item = Option<Program>> {
    std::iter::once(None).chain(programs(policy).into_iter().map(Some))
}

/// What could be a host or an address in a policy's text: its longest runs of such characters, without wildcards.
pub fn words(text: &str) -> Vec<&str> {
    let part = |c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '*'));
    let words = text.split(part);
    let words = words.map(|word| word.trim_matches(['*', '.', '-', ':']));
    let words = words.filter(|word| word.len() > 2 && word.contains(['.', ':']));
    words.take(MAX_WORDS).collect()
}

fn known(to: &str) -> Destination {
    Destination::from_authority(to, Some(443)).expect("a destination")
}

fn known_address(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

const REQUESTS: &[(&str, &str)] = &[
    ("GET", "/"),
    ("HEAD", "/repos/a/issues/1"),
    ("POST", "/v1/items"),
    ("DELETE", "/v1/items?x=1"),
    ("GET", "/v1/../admin"),
    ("GET", "/a%2fb"),
    ("OPTIONS", "*"),
];

const DESTINATIONS: &[&str] = &[
    "api.github.com",
    "a.b.example.com:80",
    "registry.npmjs.org",
    "host.docker.internal:5432",
    "host.egret.internal:80",
    "gateway.docker.internal:22",
    "metadata.google.internal:80",
    "metadata.goog",
    "instance-data.ec2.internal:80",
    "localhost:80",
    "a.localhost",
    "internal",
    "xn--bcher-kva.example",
    "127.0.0.1:80",
    "[::1]:80",
    "169.254.169.254:80",
    "[fd00:ec2::254]:80",
    "172.17.0.1:5432",
    "10.9.8.7:80",
    "10.1.2.3:5432",
    "1.1.1.1:53",
    "[2606:4700::1111]:443",
    "[64:ff9b::7f00:1]:80",
    "[64:ff9b::a9fe:a9fe]:80",
    "0.0.0.0:80",
    "224.0.0.1:80",
];

/// At least one address of each class, and the ways to wrap one in another.
const ANSWERS: &[&str] = &[
    "1.1.1.1",
    "2606:4700::1111",
    "10.1.2.3",
    "192.168.1.1",
    "fd12::1",
    "192.0.2.1",
    "127.0.0.1",
    "127.9.9.9",
    "::1",
    "::ffff:127.0.0.1",
    "0.0.0.0",
    "::",
    "169.254.169.254",
    "169.254.1.1",
    "fe80::1",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.251",
    "ff02::1",
    "172.17.0.1",
    "10.9.8.7",
    "2001:db8:9::7",
    "::ffff:10.9.8.7",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a09:807",
    "64:ff9b:1::7f00:1",
    "::7f00:1",
    "2002:7f00:1::1",
    "2001:0:7f00:1::1",
    "240.0.0.1",
    "255.255.255.255",
];
