use super::*;
use crate::addr::{DOCKER_BRIDGE, HostAddresses};
use crate::{Destination, Host, Question, Reason};

const WIDE: &str = "
version: 1
default: allow-public
allow: ['**.example.com', 'host.docker.internal:5432', 'db.corp.example:5432']
host_gateway: [11434]
";

/// `WIDE`, narrowed by these files.
fn narrowed(files: &[&str]) -> Policy {
    let mut policy = Policy::parse("p.yaml", WIDE.as_bytes()).unwrap().policy;
    for file in files {
        let (read, _) = Narrowing::parse("egret.yaml", file.as_bytes()).unwrap();
        policy.narrow(&read).unwrap();
    }
    policy
}

/// What is decided, the rule, and what would change it.
fn decided(policy: &Policy, destination: &str) -> (Reason, Option<String>, Option<String>) {
    let to = Destination::from_user(destination).unwrap();
    let hosts = HostAddresses::new([]).with_gateway(vec![DOCKER_BRIDGE]);
    match policy.compile().decide(&to, None, &hosts) {
        Ok(permit) => (permit.reason(), None, None),
        Err(denial) => (
            denial.reason(),
            denial.rule().map(ToString::to_string),
            denial.hint().map(|hint| hint.to_string()),
        ),
    }
}

#[test]
fn a_project_s_file_leaves_out_what_it_says() {
    use Reason::{
        AllowedDefaultPublic, AllowedHostGateway, AllowedRule, DeniedDefault, DeniedProject,
        DeniedRule,
    };
    let only = "version: 1\nonly: ['**.example.com:443', api.partner.example, 'host.docker.internal:11434']";
    let no_host = "version: 1\ndeny: [gist.example.com]\nhost_gateway: deny\ndefault: deny";
    #[rustfmt::skip]
    let table: [(&[&str], &str, Reason, Option<&str>); 19] = [
        (&[],              "a.example.com:80",           AllowedRule,          None),
        (&[only],          "a.example.com:443",          AllowedRule,          None),
        (&[only],          "a.example.com:80",           DeniedProject,        Some("egret.yaml:2")),
        (&[only],          "api.partner.example:80",     AllowedDefaultPublic, None),
        (&[only],          "other.example:443",          DeniedProject,        Some("egret.yaml:2")),
        (&[only],          "93.184.216.34:443",          DeniedProject,        Some("egret.yaml:2")),
        (&[only],          "host.docker.internal:11434", AllowedHostGateway,   None),
        (&[only],          "172.17.0.1:11434",           AllowedHostGateway,   None),
        (&[only],          "host.docker.internal:5432",  DeniedProject,        Some("egret.yaml:2")),
        (&[only],          "host.egret.internal:11434",  DeniedProject,        Some("egret.yaml:2")),
        (&[no_host],       "host.docker.internal:5432",  DeniedProject,        Some("egret.yaml:3")),
        (&[no_host],       "host.docker.internal:11434", DeniedProject,        Some("egret.yaml:3")),
        (&[no_host],       "172.17.0.1:11434",           DeniedProject,        Some("egret.yaml:3")),
        (&[no_host],       "gist.example.com:443",       DeniedRule,           Some("egret.yaml:2")),
        (&[no_host],       "a.example.com:443",          AllowedRule,          None),
        (&[no_host],       "other.example:443",          DeniedDefault,        None),
        (&[only, no_host], "host.docker.internal:11434", DeniedProject,        Some("egret.yaml:3")),
        (&[no_host, only], "a.example.com:443",          AllowedRule,          None),
        (&[no_host, only], "a.example.com:80",           DeniedProject,        Some("egret.yaml:2")),
    ];
    for (files, destination, reason, rule) in table {
        let (found, by, _) = decided(&narrowed(files), destination);
        assert_eq!(
            (found, by.as_deref()),
            (reason, rule),
            "{files:?} {destination}"
        );
        // A question about a name is answered where some port is allowed, and only there.
        if let Ok(name) = destination.rsplit_once(':').unwrap().0.parse::<Host>() {
            let known = narrowed(files).compile().knows(&name);
            assert!(
                known.is_ok() || !reason.is_allowed(),
                "{files:?} {destination}: {known:?}"
            );
        }
    }
    let matcher = narrowed(&[only]).compile();
    assert!(matcher.knows(&"a.example.com".parse().unwrap()).is_ok());
    for name in ["other.example", "host.egret.internal"] {
        let denial = matcher.knows(&name.parse().unwrap()).unwrap_err();
        assert_eq!(denial.reason(), DeniedProject);
    }
}

#[test]
fn what_a_project_s_file_refuses_is_explained_by_it() {
    let policy = narrowed(&["version: 1\nonly:\n- a.example\nhost_gateway: deny"]);
    #[rustfmt::skip]
    let table = [
        ("b.example:443",              "add `b.example:443` to the project's `only` (egret.yaml:3)"),
        ("host.docker.internal:11434", "take `host_gateway: deny` out of the project's file (egret.yaml:4)"),
        ("host.docker.internal:22",    "take `host_gateway: deny` out of the project's file (egret.yaml:4), and set `host_gateway: [22]`"),
    ];
    for (destination, hint) in table {
        assert_eq!(decided(&policy, destination).2.as_deref(), Some(hint));
    }
    let explain = |destination: &str| {
        let to = Destination::from_user(destination).unwrap();
        let explained = policy.compile().explain(&Question {
            to: &to,
            by: None,
            request: None,
            resolves_to: None,
            hosts: &HostAddresses::new([]),
        });
        let steps = explained.steps.iter();
        steps
            .map(|step| (step.step, step.outcome))
            .collect::<Vec<_>>()
    };
    assert_eq!(explain("b.example").last(), Some(&("project", "deny")));
    assert!(explain("a.example").contains(&("project", "pass")));
}

#[test]
fn what_would_allow_more_is_an_error_that_says_where_it_belongs() {
    #[rustfmt::skip]
    let table = [
        ("allow: [evil.example]",                    "`allow` allows, and a project file can only take away"),
        ("inbound: [evil.example]",                  "`inbound` allows, and a project file can only take away"),
        ("default: allow-public",                    "`default` can only be `deny`"),
        ("host_gateway: allow",                      "`host_gateway` can only be `deny`"),
        ("host_gateway: [5432]",                     "`host_gateway` can only be `deny`"),
        ("filesystem: {read: [~/.ssh]}",             "`read` shows what is not shown without it"),
        ("filesystem: {write: [~/.config]}",         "`write` shows what is not shown without it"),
        ("filesystem: {hide: [a, ../b]}",            "`../b` is not in the project"),
        ("filesystem: {hide: [~/.ssh]}",             "`~/.ssh` is not in the project"),
        ("filesystem: {hide: [/usr]}",               "`/usr` is not in the project"),
        ("tests: [{allow: a.example}]",              "a project file has no `tests`"),
        ("name: mine",                               "a project file has no `name`"),
        ("network: {}",                              "a project file has no key `network`"),
        ("only: []",                                 "`only` is empty"),
        ("only: [{host: a.example, by: [/bin/x]}]",  "an item of `only` says where to"),
        ("only: [{host: a.example, addresses: [10.0.0.0/8]}]", "an item of `only` says where to"),
        ("only: [{host: a.example, http: [GET /]}]", "an item of `only` says where to"),
        ("only: [169.254.169.254]",                  "169.254.169.254"),
        ("deny: [x]\ndeny: [y]",                     "`deny` stands here twice"),
        ("deny: &a [x, *a]",                         "alias"),
        ("version: 2",                               "twice"),
    ];
    for (text, says) in table {
        let text = format!("version: 1\n{text}\n");
        let errors = Narrowing::parse("egret.yaml", text.as_bytes()).unwrap_err();
        assert!(errors.to_string().contains(says), "{text}\n{errors}");
    }
    for text in [
        "",
        "deny: [x.example]",
        "[]",
        "version: 1\ndeny: 7",
        "\u{0}",
        "version: 1\n--- {}",
    ] {
        assert!(
            Narrowing::parse("egret.yaml", text.as_bytes()).is_err(),
            "{text:?}"
        );
    }
    assert!(Narrowing::parse("egret.yaml", b"version: 1 # \xff").is_err());
    let long = format!("version: 1\n{}", "#".repeat(Narrowing::MAX_OCTETS));
    let errors = Narrowing::parse("egret.yaml", long.as_bytes()).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("a project file has at most 64 KiB"),
        "{errors}"
    );
}

#[test]
fn a_file_with_too_many_forms_of_wildcards_is_refused_and_not_cut() {
    // As many letters before and behind the `*` as no other has.
    let form = |at: usize| format!("x{}*{}.example", "a".repeat(at % 30), "b".repeat(at / 30));
    let mut policy = Policy::deny_all();
    for at in 0..250 {
        policy.add_deny_flag(&form(at)).unwrap();
    }
    let deny: Vec<_> = (250..300).map(form).collect();
    let text = format!("version: 1\ndeny: {deny:?}");
    let Ok((read, _)) = Narrowing::parse("egret.yaml", text.as_bytes()) else {
        panic!("{text}");
    };
    let error = policy.narrow(&read).unwrap_err();
    assert!(error.to_string().contains("forms of wildcards"), "{error}");
}
