//! What a person may be asked about, and what their yes opens.
//!
//! A refusal is [`Askable`] if nothing speaks against the destination but that no entry speaks for it. What a person allows
//! by that is what the entry would allow that they could have written: this name on this port, wherever it leads among public
//! addresses, or this public address. It never opens this machine, loopback, a metadata service or a private network, and
//! nothing that an entry of `deny` names.
//!
//! An answer is put to the policy with each decision ([`Matcher::decide_with`](crate::Matcher::decide_with)), and opens what
//! would still be asked about then. So it grants nothing by itself, and a policy that comes later is not overruled by it.

use crate::addr::{Class, class_of};
use crate::denial::Denial;
use crate::destination::{Destination, Target};
use crate::reason::Reason;
use crate::suffix::registered;

/// A destination that is refused, and that a person may be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Askable(Destination);

impl Askable {
    /// The destination, as it was decided on.
    pub fn destination(&self) -> &Destination {
        &self.0
    }

    /// The entry of `allow`, or what comes after `--allow`, that would let exactly this pass.
    pub fn entry(&self) -> String {
        self.0.to_string()
    }

    /// The part of the name that somebody has registered, who says where all of it leads: what a name begins with can be
    /// made to look like another. Nothing if that is the whole name, or it is an address.
    pub fn registered(&self) -> Option<&str> {
        match self.0.target() {
            Target::Name(name) => {
                Some(registered(name.as_str())).filter(|part| *part != name.as_str())
            }
            Target::Address(_) => None,
        }
    }

    /// Whether the name stands for one that has other letters than those of ASCII, some of which look like these.
    pub fn is_international(&self) -> bool {
        match self.0.target() {
            Target::Name(name) => name
                .as_str()
                .split('.')
                .any(|label| label.starts_with("xn--")),
            Target::Address(_) => false,
        }
    }
}

impl Denial {
    /// What a person may be asked about; nothing, if they may not be.
    pub fn askable(&self) -> Option<Askable> {
        let unnamed = matches!(
            self.reason(),
            Reason::DeniedDefault | Reason::DeniedPort | Reason::DeniedLiteralAddress
        );
        let to = self.decided().filter(|_| unnamed)?;
        let public = match to.target() {
            Target::Name(_) => true,
            Target::Address(address) => class_of(*address) == Class::Public,
        };
        public.then(|| Askable(to.clone()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Host, HostAddresses, Matcher, Policy};

    const POLICY: &str = "
version: 1
allow:
- a.test
- {host: b.test, addresses: [10.0.0.0/8]}
- {host: c.test, by: [/usr/bin/c]}
- {address: 10.1.2.3, ports: [5432]}
- {host: h.test, ports: [80], http: [GET /**]}
deny:
- '*.d.test'
- {host: e.test, ports: [443]}
- 93.184.216.0/30
- {host: r.test, http: [POST /**]}
";

    fn policy(text: &str) -> Policy {
        Policy::parse("p.yaml", text.as_bytes()).unwrap().policy
    }

    fn hosts() -> HostAddresses {
        HostAddresses::new([
            "45.33.32.10".parse().unwrap(),
            "192.168.7.2".parse().unwrap(),
        ])
    }

    fn to(text: &str) -> Destination {
        Destination::from_authority(text, None).unwrap()
    }

    fn askable(matcher: &Matcher, text: &str) -> Option<Askable> {
        matcher
            .decide(&to(text), None, &hosts())
            .unwrap_err()
            .askable()
    }

    #[test]
    fn what_no_entry_speaks_of_may_be_asked_about_and_nothing_else() {
        let matcher = policy(POLICY).compile();
        #[rustfmt::skip]
        let table = [
            ("x.test:443",                   true),
            ("xn--e1afmkfd.xn--p1ai:443",    true),
            ("a.test:8443",                  true),
            ("b.test:22",                    true),
            ("93.184.216.34:443",            true),
            ("[2606:2800:220:1:248:1893:25c8:1946]:443", true),
            ("intranet:80",                  true),
            // Entries that say no, or that say whom they are for.
            ("x.d.test:443",                 false),
            ("e.test:443",                   false),
            ("93.184.216.1:443",             false),
            ("c.test:443",                   false),
            // This machine.
            ("host.docker.internal:5432",    false),
            ("host.containers.internal:80",  false),
            ("gateway.docker.internal:80",   false),
            ("45.33.32.10:22",               false),
            ("192.168.7.2:22",               false),
            ("localhost:80",                 false),
            ("a.localhost:80",               false),
            ("127.0.0.1:80",                 false),
            ("127.9.9.9:80",                 false),
            ("[::1]:80",                     false),
            ("0.0.0.0:80",                   false),
            ("[::ffff:127.0.0.1]:80",        false),
            // What cloud machines ask about themselves.
            ("169.254.169.254:80",           false),
            ("[fd00:ec2::254]:80",           false),
            ("100.100.100.200:80",           false),
            ("168.63.129.16:80",             false),
            ("metadata.google.internal:80",  false),
            // Other networks, an entry for another port notwithstanding.
            ("10.1.2.3:22",                  false),
            ("10.20.0.7:80",                 false),
            ("172.17.0.1:80",                false),
            ("100.64.0.1:80",                false),
            ("[fd12:1::2]:80",               false),
            ("[fe80::1]:80",                 false),
            ("169.254.1.1:80",               false),
            ("224.0.0.251:5353",             false),
            ("255.255.255.255:80",           false),
            ("198.51.100.1:80",              false),
            ("[64:ff9b::10.0.0.1]:80",       false),
            ("[2002:a00:1::]:80",            false),
        ];
        for (text, expected) in table {
            let denial = matcher.decide(&to(text), None, &hosts()).unwrap_err();
            assert_eq!(denial.askable().is_some(), expected, "{denial}");
            if let Some(askable) = denial.askable() {
                assert_eq!(askable.is_international(), text.contains("xn--"));
                assert_eq!(askable.entry(), to(text).to_string());
            }
        }
        let malformed = Denial::new(Reason::DeniedDefault, "x.test:443", "as somebody says");
        assert_eq!(malformed.askable(), None);
        assert_eq!(
            matcher
                .knows(&"x.test".parse().unwrap())
                .unwrap_err()
                .askable(),
            None
        );
    }

    #[test]
    fn a_yes_opens_what_its_entry_would_and_the_policy_has_the_last_word() {
        let matcher = policy(POLICY).compile();
        let decide = |matcher: &Matcher, text: &str, yes: &Askable| {
            matcher.decide_with(&to(text), None, &hosts(), Some(yes))
        };
        let yes = askable(&matcher, "x.test:443").unwrap();
        let mut permit = decide(&matcher, "x.test:443", &yes).unwrap();
        assert_eq!(permit.reason(), Reason::AllowedOnce);
        assert!(permit.rule().is_none() && !permit.inspects());
        for (address, refused) in [
            ("93.184.216.34", None),
            ("93.184.216.1", Some(Reason::DeniedRule)),
            ("10.0.0.1", Some(Reason::DeniedAddressPrivate)),
            ("127.0.0.1", Some(Reason::DeniedAddressLoopback)),
            ("169.254.169.254", Some(Reason::DeniedAddressMetadata)),
            ("45.33.32.10", Some(Reason::DeniedAddressHost)),
        ] {
            let vetted = permit.vet(&[address.parse().unwrap()], &hosts());
            assert_eq!(
                vetted.err().map(|denial| denial.reason()),
                refused,
                "{address}"
            );
        }
        // It is for that, and for nothing else.
        for other in ["y.test:443", "x.test:80", "www.x.test:443"] {
            let denial = decide(&matcher, other, &yes).unwrap_err();
            assert_eq!(denial.reason(), Reason::DeniedDefault, "{other}");
        }
        // Where an entry allows it, that is what counts.
        let later =
            policy("version: 1\nallow: [{host: x.test, addresses: [10.0.0.0/8]}]").compile();
        let mut permit = decide(&later, "x.test:443", &yes).unwrap();
        assert_eq!(permit.reason(), Reason::AllowedRule);
        permit
            .vet(&["10.0.0.1".parse().unwrap()], &hosts())
            .unwrap();
        // And where one denies it, too: all of it, or some of its requests.
        let later = policy("version: 1\ndeny: [x.test]").compile();
        assert_eq!(
            decide(&later, "x.test:443", &yes).unwrap_err().reason(),
            Reason::DeniedRule
        );
        let yes = askable(&matcher, "r.test:80").unwrap();
        let permit = decide(&matcher, "r.test:80", &yes).unwrap();
        assert!(permit.inspects());
        permit.request("GET", "/").unwrap();
        permit.request("POST", "/").unwrap_err();
        // An entry on another port says nothing about where the name may lead on this one.
        let yes = askable(&matcher, "b.test:22").unwrap();
        let mut permit = decide(&matcher, "b.test:22", &yes).unwrap();
        permit
            .vet(&["10.0.0.1".parse().unwrap()], &hosts())
            .unwrap_err();
        // An address that has become the host's since.
        let yes = askable(&matcher, "93.184.216.34:443").unwrap();
        assert!(decide(&matcher, "93.184.216.34:443", &yes).is_ok());
        let hosts = HostAddresses::new(["93.184.216.34".parse().unwrap()]);
        let denial = matcher.decide_with(&to("93.184.216.34:443"), None, &hosts, Some(&yes));
        assert_eq!(denial.unwrap_err().reason(), Reason::DeniedHostGateway);
    }

    #[test]
    fn a_name_of_which_only_some_requests_pass_is_not_reached_around_them_by_its_address() {
        let matcher = policy(POLICY).compile();
        let yes = askable(&matcher, "93.184.216.34:80").unwrap();
        let permit = matcher.decide_with(&to("93.184.216.34:80"), None, &hosts(), Some(&yes));
        let said = crate::Spoken::Host(Some("h.test"));
        let denial = matcher.confirm(&permit.unwrap(), said).unwrap_err();
        assert_eq!(denial.reason(), Reason::DeniedRequest);
    }

    #[test]
    fn who_decides_where_a_name_leads_is_told() {
        let none = Policy::deny_all().compile();
        #[rustfmt::skip]
        let table = [
            ("api.github.com.evil.test:443",   Some("evil.test")),
            ("www.example.co.uk:443",          Some("example.co.uk")),
            ("me.github.io:443",               None),
            ("a.me.github.io:443",             Some("me.github.io")),
            ("example.com:443",                None),
            ("93.184.216.34:443",              None),
        ];
        for (text, expected) in table {
            assert_eq!(
                askable(&none, text).unwrap().registered(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_projects_file_leaves_out_is_not_asked_about() {
        let (narrowing, _) =
            crate::Narrowing::parse("egret.yaml", b"version: 1\nonly: [a.test]").unwrap();
        let mut policy = Policy::deny_all();
        policy.narrow(&narrowing).unwrap();
        let matcher = policy.compile();
        assert!(askable(&matcher, "a.test:443").is_some());
        assert_eq!(askable(&matcher, "b.test:443"), None);
    }

    proptest! {
        #[test]
        fn the_entry_that_is_shown_allows_exactly_that(
            name in "[a-z0-9_-]{1,12}(\\.[a-z0-9_-]{1,12}){0,3}", port in 1_u16.., other in 1_u16..
        ) {
            let Ok(name) = name.parse::<Host>() else { return Ok(()) };
            let destination = |port| Destination::new(Target::Name(name.clone()), port).unwrap();
            let none = Policy::deny_all().compile();
            let denial = none.decide(&destination(port), None, &hosts()).unwrap_err();
            let Some(askable) = denial.askable() else { return Ok(()) };
            let mut with = Policy::deny_all();
            with.add_allow_flag(&askable.entry()).unwrap();
            let with = with.compile();
            prop_assert!(with.decide(&destination(port), None, &hosts()).is_ok());
            if other != port {
                prop_assert!(with.decide(&destination(other), None, &hosts()).is_err());
            }
        }
    }
}
