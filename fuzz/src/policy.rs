//! A policy that is accepted can be used, and opens nothing that is never to be opened.

use std::net::IpAddr;

use egret_policy::{
    Class, Denial, Destination, HostAddresses, Lookup, Matcher, Permit, Policy, Reason, Spoken,
    Target, class_of,
};

use crate::oracle;

/// The most destinations that are taken from the policy's own text.
const MAX_WORDS: usize = 24;

/// A text as a policy, in whatever language it is; one that is accepted then decides.
pub fn policy(data: &[u8]) {
    let parsed = match Policy::parse("policy.yaml", data) {
        Ok(parsed) => parsed,
        Err(errors) => {
            let shown = errors.to_string();
            assert!(!shown.is_empty(), "an error says something");
            return;
        }
    };
    let text = String::from_utf8_lossy(data);
    let words = words(&text);
    let mut destinations: Vec<_> = DESTINATIONS.iter().map(|to| known(to)).collect();
    for (n, word) in words.iter().enumerate() {
        // A few of the ports that policies speak of; which ones makes no difference to the promises.
        let port = [443, 80, 22, 5432][n % 4].to_string();
        destinations.extend(Destination::parse(word, &port));
        destinations.extend(Destination::from_authority(word, Some(443)));
    }
    let mut answers: Vec<IpAddr> = ANSWERS
        .iter()
        .map(|address| address.parse().expect("an address"))
        .collect();
    answers.extend(words.iter().filter_map(|word| word.parse::<IpAddr>().ok()));
    let policy = parsed.policy;
    let world = World {
        gateway_open: policy.opens_host_gateway(),
        answers,
        hosts: HostAddresses::new([known_address("10.9.8.7"), known_address("2001:db8:9::7")]),
        matcher: policy.compile(),
    };
    for to in &destinations {
        world.decides(to);
    }
    for word in &words {
        denied_by_flag(&policy, word, &world, &destinations);
    }
}

struct World {
    gateway_open: bool,
    answers: Vec<IpAddr>,
    hosts: HostAddresses,
    matcher: Matcher,
}

impl World {
    fn decides(&self, to: &Destination) {
        let decision = decide(&self.matcher, to, &self.hosts);
        let again = decide(&self.matcher, to, &self.hosts);
        assert_eq!(
            word(&decision),
            word(&again),
            "{to} is decided the same for ever"
        );
        let knows = match to.target() {
            Target::Name(name) => self.matcher.knows(name).is_ok(),
            Target::Address(_) => true,
        };
        let permit = match decision {
            Ok(permit) => permit,
            Err(denial) => {
                assert!(!denial.to_string().is_empty());
                let _ = denial.hint();
                return;
            }
        };
        assert!(knows, "{to} is allowed, and its name is said not to exist");
        self.vets(&permit, to);
        self.holds_to_its_name(&permit);
    }

    fn vets(&self, permit: &Permit, to: &Destination) {
        assert_eq!(permit.destination(), to);
        assert!(permit.vet(&[], &self.hosts).is_err(), "an empty answer");
        for &address in &self.answers {
            let Ok(vetted) = permit.vet(&[address], &self.hosts) else {
                // One forbidden address spoils the whole answer, wherever it stands.
                let public = known_address("1.1.1.1");
                assert!(permit.vet(&[public, address], &self.hosts).is_err());
                assert!(permit.vet(&[address, public], &self.hosts).is_err());
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
        let before = decide(&world.matcher, to, &world.hosts);
        let after = decide(&stricter, to, &world.hosts);
        assert!(before.is_ok() || after.is_err(), "a deny opened {to}");
        if itself.as_ref() == Ok(to) {
            assert!(after.is_err(), "{to} was denied, and is allowed");
        }
    }
}

fn decide(matcher: &Matcher, to: &Destination, hosts: &HostAddresses) -> Result<Permit, Denial> {
    matcher.decide(to, None, hosts)
}

fn word(decision: &Result<Permit, Denial>) -> Reason {
    match decision {
        Ok(permit) => permit.reason(),
        Err(denial) => denial.reason(),
    }
}

/// What could be a host or an address in a policy's text: its longest runs of such characters, without wildcards.
fn words(text: &str) -> Vec<&str> {
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
