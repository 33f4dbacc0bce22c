use proptest::prelude::*;

use crate::{
    Destination, HostAddresses, Language, Parsed, Policy, PolicyErrors, Program, Reason, Share,
    Target, Verdict,
};

fn read(text: &str, service: Option<&str>) -> Parsed {
    match Policy::parse_service("p", text.as_bytes(), service) {
        Ok(parsed) => parsed,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

/// Paths of `filesystem:` as they are written.
fn written(shares: &[Share]) -> Vec<String> {
    shares.iter().map(ToString::to_string).collect()
}

fn errors(text: &str) -> PolicyErrors {
    match Policy::parse("p", text.as_bytes()) {
        Ok(_) => panic!("valid: {text}"),
        Err(errors) => errors,
    }
}

/// A question in words: `DEST [by EXE[<PARENT…]] [METHOD PATH] [-> IP…]`, and the reason that is the answer, also
/// of the policy that it is converted to.
#[track_caller]
fn check(parsed: &Parsed, rows: &[(&str, &str)]) {
    decides(&parsed.policy, rows);
    let converted = parsed.policy.to_yaml(&[]).unwrap();
    decides(&read(&converted, None).policy, rows);
}

#[track_caller]
fn decides(policy: &Policy, rows: &[(&str, &str)]) {
    let matcher = policy.compile();
    let hosts = HostAddresses::new([]);
    for (asked, expected) in rows {
        let mut words = asked.split(' ').filter(|word| !word.is_empty()).peekable();
        let to = Destination::from_user(words.next().unwrap()).unwrap();
        let mut by = None;
        if words.next_if_eq(&"by").is_some() {
            let mut chain = words.next().unwrap().split('<').map(str::to_owned);
            by = Some(Program {
                executable: chain.next().unwrap(),
                ancestors: chain.collect(),
            });
        }
        let mut request = None;
        if let Some(method) = words.next_if(|word| *word != "->") {
            request = Some((method, words.next().unwrap()));
        }
        let answer: Vec<std::net::IpAddr> = match words.next() {
            Some(_) => words.map(|address| address.parse().unwrap()).collect(),
            None => vec!["93.184.216.34".parse().unwrap()],
        };
        let decided = matcher
            .decide(&to, by.as_ref(), &hosts)
            .and_then(|mut permit| {
                match to.target() {
                    // Which addresses are the host's, no policy says.
                    _ if permit.reason() == Reason::AllowedHostGateway => {}
                    Target::Address(address) => drop(permit.vet(&[*address], &hosts)?),
                    Target::Name(_) => drop(permit.vet(&answer, &hosts)?),
                }
                if let Some((method, target)) = request {
                    permit.request(method, target)?;
                } else if permit.inspects() {
                    return Ok("inspect".to_owned());
                }
                Ok(permit.reason().to_string())
            });
        let said = decided.unwrap_or_else(|denial| denial.reason().to_string());
        assert_eq!(said, *expected, "{asked}");
    }
}

/// What was told besides errors: notes as `note: …`, warnings as `line: …`.
fn told(parsed: &Parsed) -> Vec<String> {
    let warnings = parsed
        .warnings
        .iter()
        .map(|warning| format!("{}: {}", warning.line(), warning.message()));
    let notes = parsed.notes.iter().map(|note| format!("note: {note}"));
    warnings.chain(notes).collect()
}

/// Errors as `LINE:COLUMN MESSAGE[: HELP]`.
fn said(errors: &PolicyErrors) -> Vec<String> {
    let said = errors.errors().iter().map(|error| {
        let help = error
            .help()
            .map(|help| format!(": {help}"))
            .unwrap_or_default();
        format!(
            "{}:{} {}{help}",
            error.line(),
            error.column(),
            error.message()
        )
    });
    said.collect()
}

mod openshell;
mod smokescreen;
mod toolhive;

#[test]
fn a_policy_is_told_by_its_shape() {
    #[rustfmt::skip]
    let table = [
        ("version: 1\nallow: [a.example]",                                Language::Native),
        ("{\"name\": \"x\", \"network\": {}}",                            Language::ToolHive),
        ("{\"network\": null}",                                           Language::ToolHive),
        ("{\"read\": [\"/data\"]}",                                       Language::ToolHive),
        ("version: 1\nnetwork_policies: {}",                              Language::OpenShell),
        ("version: 1\nfilesystem_policy: {include_workdir: true}",        Language::OpenShell),
        ("version: v1\nservices: []",                                     Language::Smokescreen),
        ("version: v1\nservices: []\ndefault: {action: enforce}",         Language::Smokescreen),
    ];
    for (text, language) in table {
        assert_eq!(read(text, None).language, language, "{text}");
    }
    // What belongs to two languages belongs to neither.
    for text in [
        "version: 1\nallow: [a.example]\nnetwork: {}",
        "version: 1\nallow: [a.example]\nnetwork_policies: {}",
        "version: 1\nallow: [a.example]\nservices: []",
    ] {
        assert!(
            errors(text).errors()[0]
                .message()
                .starts_with("a policy has no key"),
            "{text}"
        );
    }
}

#[test]
fn every_policy_can_be_written_in_egrets_own_language() {
    let policies = [
        toolhive::BOTH,
        openshell::AGENT,
        "version: v1\nservices: []\ndefault: {action: report, allowed_domains: ['*.a.example']}\nglobal_deny_list: [b.example]",
    ];
    for text in policies {
        let parsed = read(text, None);
        let yaml = parsed.policy.to_yaml(&parsed.notes).unwrap();
        assert_eq!(read(&yaml, None).language, Language::Native, "{yaml}");
    }
}

#[test]
fn only_smokescreen_has_services() {
    for text in [
        "version: 1",
        "{\"network\": {}}",
        "version: 1\nnetwork_policies: {}",
    ] {
        let errors = Policy::parse_service("p", text.as_bytes(), Some("x")).unwrap_err();
        let message = errors.errors()[0].message();
        assert_eq!(
            message,
            "only a policy of Smokescreen has services to choose from"
        );
    }
}

#[test]
fn the_built_in_profiles_need_no_file() {
    let network = Policy::built_in("network").unwrap();
    let none = Policy::built_in("none").unwrap();
    assert!(Policy::built_in("nothing").is_none());
    let hosts = HostAddresses::new([]);
    for (to, by_network, by_none) in [
        ("a.example", Verdict::Allow, Verdict::Deny),
        ("10.0.0.1", Verdict::Deny, Verdict::Deny),
        ("host.docker.internal", Verdict::Deny, Verdict::Deny),
    ] {
        let to = Destination::from_user(to).unwrap();
        let verdict = |policy: &Policy| match policy.compile().decide(&to, None, &hosts) {
            Ok(_) => Verdict::Allow,
            Err(_) => Verdict::Deny,
        };
        assert_eq!((verdict(&network), verdict(&none)), (by_network, by_none));
    }
    assert_eq!(
        (network.name(), none.name()),
        (Some("network"), Some("none"))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_text_makes_a_reader_panic(
        head in prop_oneof![
            Just("network: {"), Just("version: v1\nservices: [{"), Just("version: 1\nnetwork_policies: {a: {"), Just("")
        ],
        parts in prop::collection::vec(prop_oneof![
            Just("outbound: {".to_owned()), Just("allow_host: [".to_owned()), Just("allow_port: [0, 443, ".to_owned()),
            Just("insecure_allow_all: true, ".to_owned()), Just("read: ['a:b', ".to_owned()), Just("name: x, ".to_owned()),
            Just("action: enforce, ".to_owned()), Just("allowed_domains: ['*.a.example', ".to_owned()),
            Just("endpoints: [{host: '*.a.example', port: 443, ".to_owned()), Just("binaries: [{path: '/b/**'}], ".to_owned()),
            Just("protocol: rest, ".to_owned()), Just("access: read-only, ".to_owned()), Just("rules: [{allow: {method: GET, path: '".to_owned()),
            Just("deny_rules: [{method: '*', path: '/**'}], ".to_owned()), Just("allowed_ips: [10.0.0.0/8], ".to_owned()),
            Just("path: '/v1/**', ".to_owned()), Just("}, ".to_owned()), Just("], ".to_owned()), Just("'".to_owned()),
            Just("}]}}".to_owned()), Just("\nglobal_deny_list: [a.example]".to_owned()), "[ -~]{0,4}", "\\PC{0,3}",
        ], 0..14),
    ) {
        let text = format!("{head}{}", parts.concat());
        match Policy::parse("p", text.as_bytes()) {
            Ok(parsed) => drop((parsed.policy.compile(), told(&parsed))),
            Err(errors) => drop(errors.to_string()),
        }
    }

    #[test]
    fn no_value_makes_a_reader_panic(
        key in prop::sample::select(vec![
            "host", "port", "ports", "path", "protocol", "tls", "enforcement", "access", "rules", "deny_rules", "allowed_ips", "mcp",
        ]),
        value in "[\\[\\]{}*/.a1:'\", -]{0,16}",
    ) {
        let texts = [
            format!("version: 1\nnetwork_policies: {{a: {{endpoints: [{{host: a.example, port: 1, {key}: {value}}}], binaries: [{{path: {value}}}]}}}}"),
            format!("network: {{mode: {value}, outbound: {{allow_host: [{value}], allow_port: [{value}]}}}}\nread: [{value}]"),
            format!("version: v1\nservices: [{{name: {value}, action: open, allowed_domains: [{value}]}}]\nglobal_deny_list: [{value}]\ndefault: {value}"),
        ];
        for text in texts {
            if let Ok(parsed) = Policy::parse("p", text.as_bytes()) {
                drop(parsed.policy.compile());
            }
        }
    }
}

#[test]
fn what_multiplies_is_bounded() {
    let many = |item: &str, times: usize| format!("[{}]", vec![item; times].join(", "));
    let ports: Vec<_> = (1..=65535).map(|port: u16| port.to_string()).collect();
    let hosts = many("a.example", 1000);
    let endpoint = "{host: a.example, port: 1}";
    #[rustfmt::skip]
    let table = [
        (format!("network: {{outbound: {{allow_host: {hosts}, allow_port: [{}]}}}}", ports.join(", ")),
            "a profile can open at most 1000000 ports, counted once for each of its hosts"),
        (format!("version: 1\nnetwork_policies: {{p: {{endpoints: {}, binaries: [{{path: /a}}]}}}}", many(endpoint, 1025)),
            "a policy of OpenShell's can have 1024 endpoints"),
        (format!("version: 1\nnetwork_policies: {{p: {{endpoints: {}, binaries: {}}}}}", many(endpoint, 1000), many("{path: /a}", 101)),
            "a network policy can open at most 100000 endpoints, counted once for each of its binaries"),
        (format!("version: 1\nnetwork_policies: {{p: {{endpoints: [{{host: a.example, ports: [{}]}}], binaries: [{{path: /a}}]}}}}", ports.join(", ")),
            "an endpoint takes at most 256 `ports`"),
    ];
    for (text, expected) in table {
        assert_eq!(errors(&text).errors()[0].message(), expected);
    }
    // Half of the endpoints give way to the other half, which is told of so many only.
    let endpoints: Vec<_> = (0..1000)
        .map(|at| match at % 2 {
            0 => format!("{{host: a{at}.example.com, port: 80}}"),
            _ => format!(
                "{{host: a{}.example.com, port: 80, protocol: rest, access: full}}",
                at - 1
            ),
        })
        .collect();
    let text = format!(
        "version: 1\nnetwork_policies: {{p: {{endpoints: [\n{}], binaries: [{{path: /a}}]}}}}",
        endpoints.join(",\n")
    );
    let parsed = read(&text, None);
    assert_eq!((parsed.notes.len(), parsed.policy.entries()), (100, 500));
}
