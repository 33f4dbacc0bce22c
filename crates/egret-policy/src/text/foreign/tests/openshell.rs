use super::{check, errors, read, told, written};

pub(super) const AGENT: &str = r#"
version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/usr, /proc, /etc]
  read_write: [/tmp, /dev/null, /srv/agent]
landlock: {compatibility: best_effort}
process: {run_as_user: sandbox, run_as_group: "1500"}
network_policies:
  forge:
    name: forge api
    endpoints:
      - host: api.forge.example
        port: 8080
        protocol: rest
        enforcement: enforce
        access: read-only
        deny_rules:
          - {method: GET, path: "/admin/**"}
      - {host: uploads.forge.example, ports: [80, 8080], protocol: rest, enforcement: enforce,
         rules: [{allow: {method: post, path: "/repos/*/assets"}}, {allow: {method: GET, path: "/repos/**"}}]}
    binaries:
      - {path: /usr/local/bin/agent}
      - path: /opt/tools/**
  registry:
    endpoints: [{host: "*.registry.example", port: 443}]
    binaries: [{path: /usr/bin/npm}]
  database:
    endpoints:
      - {host: db.corp.example, port: 5432, protocol: tcp}
      - {host: "*.data.example", port: 5432, allowed_ips: [10.2.0.0/16, 10.9.9.9]}
    binaries: [{path: "/usr/bin/psql*"}]
"#;

#[test]
fn programs_endpoints_and_requests_have_to_match() {
    let parsed = read(AGENT, None);
    check(
        &parsed,
        &[
            ("api.forge.example:8080 by /usr/local/bin/agent", "inspect"),
            (
                "api.forge.example:8080 by /usr/bin/curl</bin/sh</usr/local/bin/agent",
                "inspect",
            ),
            ("api.forge.example:8080 by /opt/tools/x/y", "inspect"),
            (
                "api.forge.example:8080 by /usr/bin/curl",
                "denied.executable",
            ),
            ("api.forge.example:8080", "denied.executable"),
            (
                "api.forge.example:443 by /usr/local/bin/agent",
                "denied.port",
            ),
            (
                "api.forge.example:8080 by /usr/local/bin/agent GET /x/y?z=1",
                "allowed.rule",
            ),
            (
                "api.forge.example:8080 by /usr/local/bin/agent OPTIONS /",
                "allowed.rule",
            ),
            (
                "api.forge.example:8080 by /usr/local/bin/agent POST /x",
                "denied.request",
            ),
            (
                "api.forge.example:8080 by /usr/local/bin/agent GET /admin/x",
                "denied.request",
            ),
            (
                "api.forge.example:8080 by /usr/local/bin/agent HEAD /admin/x",
                "denied.request",
            ), // GET means HEAD, too
            (
                "api.forge.example:8080 by /usr/local/bin/agent OPTIONS /admin/x",
                "allowed.rule",
            ),
            (
                "uploads.forge.example:80 by /usr/local/bin/agent POST /repos/a/assets",
                "allowed.rule",
            ),
            (
                "uploads.forge.example:80 by /usr/local/bin/agent POST /repos/a/b/assets",
                "denied.request",
            ),
            (
                "uploads.forge.example:80 by /usr/local/bin/agent HEAD /repos/a",
                "allowed.rule",
            ),
            (
                "uploads.forge.example:80 by /usr/local/bin/agent GET /repos",
                "denied.request",
            ),
            ("a.registry.example:443 by /usr/bin/npm", "allowed.rule"),
            ("a.b.registry.example:443 by /usr/bin/npm", "denied.default"),
            (
                "a.registry.example:443 by /usr/bin/npm -> 10.0.0.1",
                "denied.address.private",
            ),
            (
                "db.corp.example:5432 by /usr/bin/psql14 -> 10.77.0.1",
                "allowed.rule",
            ),
            (
                "db.corp.example:5432 by /usr/bin/psql -> 100.64.0.1 fd00::1",
                "allowed.rule",
            ),
            (
                "db.corp.example:5432 by /usr/bin/psql -> 169.254.169.254",
                "denied.address.metadata",
            ),
            (
                "db.corp.example:5432 by /usr/bin/psql -> 127.0.0.1",
                "denied.address.loopback",
            ),
            (
                "x.data.example:5432 by /usr/bin/psql -> 10.2.3.4",
                "allowed.rule",
            ),
            (
                "x.data.example:5432 by /usr/bin/psql -> 10.9.9.9",
                "allowed.rule",
            ),
            (
                "x.data.example:5432 by /usr/bin/psql -> 10.9.9.8",
                "denied.address.private",
            ),
            (
                "x.data.example:5432 by /usr/bin/psql -> 10.2.3.4 93.184.216.34",
                "denied.default",
            ), // only these
            (
                "x.data.example:5432 by /usr/bin/psql/x -> 10.2.3.4",
                "denied.executable",
            ),
        ],
    );
    let files = parsed.policy.filesystem();
    assert_eq!(
        (written(&files.read), written(&files.write)),
        (vec![], vec!["/srv/agent".to_owned()])
    );
    let to = crate::Destination::from_user("a.registry.example").unwrap();
    let npm = crate::Program {
        executable: "/usr/bin/npm".into(),
        ancestors: Vec::new(),
    };
    let permit = parsed
        .policy
        .compile()
        .decide(&to, Some(&npm), &crate::HostAddresses::new([]))
        .unwrap();
    assert_eq!(
        (permit.rule().unwrap().line(), permit.note()),
        (26, Some("registry"))
    );
}

/// An endpoint for every program, under `version: 1`.
fn endpoint(fields: &str) -> String {
    format!(
        "version: 1\nnetwork_policies: {{p: {{endpoints: [{{{fields}}}], binaries: [{{path: '/**'}}]}}}}"
    )
}

#[test]
fn presets_and_rules_say_which_requests() {
    #[rustfmt::skip]
    let table: &[(&str, &[(&str, &str)])] = &[
        ("access: full",       &[("DELETE /x", "allowed.rule")]),
        ("access: read-write", &[("PATCH /x", "allowed.rule"), ("HEAD /", "allowed.rule"), ("DELETE /x", "denied.request")]),
        ("access: read-only",  &[("OPTIONS /x", "allowed.rule"), ("POST /x", "denied.request")]),
        ("access: full, path: '/v1/**'", &[("PUT /v1/x", "allowed.rule"), ("PUT /v1", "denied.request"), ("PUT /v2/x", "denied.request")]),
        ("access: read-only, path: /v1/x", &[("GET /v1/x", "allowed.rule"), ("GET /v1/y", "denied.request")]),
        ("rules: [{allow: {method: '*', path: '**'}}]", &[("BREW /", "allowed.rule")]),
        ("rules: [{allow: {method: put, path: '/a/*'}}]", &[("PUT /a/b", "allowed.rule"), ("PUT /a/b/c", "denied.request")]),
        ("rules: [{allow: {method: GET, path: '/v1/a'}}], path: '/v1/**'", &[("GET /v1/a", "allowed.rule"), ("GET /v1/b", "denied.request")]),
        ("rules: [{allow: {method: GET, path: '/v2/a'}}, {allow: {method: PUT, path: '/v1/a'}}], path: '/v1/**'", &[("GET /v2/a", "denied.request"), ("PUT /v1/a", "allowed.rule")]),
        ("access: full, deny_rules: [{method: DELETE, path: '**'}, {method: '*', path: '/keys/*'}]",
            &[("DELETE /x", "denied.request"), ("PUT /keys/", "denied.request"), ("PUT /keys/a/b", "allowed.rule")]),
    ];
    for (fields, rows) in table {
        let parsed = read(
            &endpoint(&format!(
                "host: a.example, port: 80, protocol: REST, enforcement: enforce, {fields}"
            )),
            None,
        );
        let rows: Vec<_> = rows
            .iter()
            .map(|(request, reason)| (format!("a.example:80 by /x {request}"), *reason))
            .collect();
        let rows: Vec<_> = rows
            .iter()
            .map(|(asked, reason)| (asked.as_str(), *reason))
            .collect();
        check(&parsed, &rows);
    }
}

#[test]
fn endpoints_of_the_same_place_never_open_more_than_there() {
    let two = |first: &str, second: &str| {
        read(
            &format!(
                "version: 1\nnetwork_policies:\n  p: {{endpoints: [{{{first}}}], binaries: [{{path: /a}}]}}\n  q: {{endpoints: [{{{second}}}], binaries: [{{path: /a}}]}}"
            ),
            None,
        )
    };
    let rest = "protocol: rest, enforcement: enforce, access: read-only";
    // One without rules adds nothing to one with rules, whichever comes first.
    for (plain, ruled) in [
        (
            "host: x.a.example, ports: [80, 81]",
            format!("host: x.a.example, port: 80, {rest}"),
        ),
        (
            "host: x.a.example, ports: [80, 81]",
            format!("host: '*.a.example', port: 80, {rest}"),
        ),
        (
            "host: '*.a.example', ports: [80, 81]",
            format!("host: '*.a.example', port: 80, {rest}"),
        ),
        (
            "host: 'x*.a.example', ports: [80, 81]",
            format!("host: 'x*.a.example', port: 80, {rest}"),
        ),
        (
            "host: '*.a.example', ports: [80, 81]",
            format!("host: x.a.example, port: 80, {rest}"),
        ),
    ] {
        for parsed in [two(plain, &ruled), two(&ruled, plain)] {
            check(
                &parsed,
                &[
                    ("x.a.example:80 by /a GET /", "allowed.rule"),
                    ("x.a.example:80 by /a POST /", "denied.request"),
                    ("x.a.example:81 by /a POST /", "allowed.rule"),
                ],
            );
        }
    }
    let parsed = two(
        "host: x.a.example, port: 80",
        &format!("host: x.a.example, port: 80, {rest}"),
    );
    assert!(
        parsed.notes[0].starts_with("a host that is written out"),
        "{:?}",
        parsed.notes
    );
    assert!(
        parsed.notes[2].starts_with("the endpoint in line 3 opens nothing where the one in line 4"),
        "{:?}",
        parsed.notes
    );
    // Rules of the same place add up.
    let put = "protocol: rest, enforcement: enforce, rules: [{allow: {method: PUT, path: '**'}}]";
    check(
        &two(
            &format!("host: x.a.example, port: 80, {rest}"),
            &format!("host: x.a.example, port: 80, {put}"),
        ),
        &[
            ("x.a.example:80 by /a GET /", "allowed.rule"),
            ("x.a.example:80 by /a PUT /", "allowed.rule"),
            ("x.a.example:80 by /a POST /", "denied.request"),
        ],
    );
}

#[test]
fn endpoints_that_overlap_have_the_same_addresses() {
    let two = |first: &str, second: &str, programs: &str| {
        format!(
            "version: 1\nnetwork_policies:\n  p: {{endpoints: [{{{first}}}], binaries: [{{path: /a}}]}}\n  q: {{endpoints: [{{{second}}}], binaries: [{{path: {programs}}}]}}"
        )
    };
    let private = "allowed_ips: [10.1.0.0/16]";
    #[rustfmt::skip]
    let table = [
        ("host: db.a.example, port: 80",                 "host: db.a.example, ports: [8080, 80]", true ),
        ("host: db.a.example, port: 80",                 "host: '*.a.example', port: 80",         true ),
        ("host: '*.a.example', port: 80",                "host: db.a.example, port: 80",          true ),
        ("host: 'd*.a.example', port: 80",               "host: '*.a.example', port: 80",         true ),
        ("host: db.a.example, port: 80, allowed_ips: [10.2.0.0/16]", "host: db.a.example, port: 80", true ),
        ("host: db.a.example, port: 80, protocol: rest, access: full", "host: db.a.example, port: 80", true ),
        ("host: db.a.example, port: 80",                 "port: 80",                              true ),
        ("port: 80, allowed_ips: [10.2.0.0/16]",         "port: 80",                              true ),
        ("host: 10.1.2.3, port: 80",                     "port: 80",                              true ),
        ("host: 10.9.9.9, port: 80, allowed_ips: [10.8.0.0/16]", "port: 80",                      true ),
        ("host: 10.1.2.3, port: 80",                     "host: 10.1.2.3, port: 80",              true ),
        ("host: a.example, port: 6443",                  "host: a.example, port: 6443",           true ),
        ("host: db.a.example, port: 81",                 "host: db.a.example, port: 80",          false),
        ("host: dc.a.example, port: 80",                 "host: db.a.example, port: 80",          false),
        ("host: db.a.example, port: 80, allowed_ips: [10.1.2.3/16]", "host: '*.a.example', port: 80", false),
    ];
    for (one, listing, refused) in table {
        // Whichever comes first, and whichever programs they name: one may have started the other.
        let listing = format!("{listing}, {private}");
        for text in [two(one, &listing, "/a"), two(&listing, one, "/b")] {
            match crate::Policy::parse("p", text.as_bytes()) {
                Ok(_) => assert!(!refused, "{text}"),
                Err(errors) => assert!(
                    refused
                        && super::said(&errors)[0].ends_with(
                            "this endpoint and the one in line 3 are for the same host and port, and differ in `allowed_ips`: give both the same list, or different ports"
                        ),
                    "{text}\n{errors}"
                ),
            }
        }
    }
    check(
        &read(
            &two(
                &format!("host: db.a.example, port: 80, {private}"),
                &format!("host: '*.a.example', port: 80, {private}"),
                "/b",
            ),
            None,
        ),
        &[
            ("db.a.example:80 by /a -> 10.1.2.3", "allowed.rule"),
            ("db.a.example:80 by /b -> 10.1.2.3", "allowed.rule"),
            (
                "db.a.example:80 by /a -> 10.2.2.3",
                "denied.address.private",
            ),
            ("db.a.example:80 by /b -> 93.184.216.34", "denied.default"),
            ("x.a.example:80 by /b -> 93.184.216.34", "denied.default"),
        ],
    );
}

#[test]
fn what_leads_nowhere_is_not_opened_by_a_wider_pattern() {
    let parsed = read(
        r#"
version: 1
network_policies:
  p:
    endpoints:
      - {host: k8s.a.example, ports: [443, 6443]}
      - {host: other.a.example, ports: [443, 10250]}
    binaries: [{path: /a}]
  q:
    endpoints: [{host: "*.a.example", ports: [443, 6443]}]
    binaries: [{path: /a}, {path: /b}]
"#,
        None,
    );
    check(
        &parsed,
        &[
            ("k8s.a.example:6443 by /a", "denied.rule"),
            ("k8s.a.example:6443 by /x</a", "denied.rule"),
            ("k8s.a.example:6443 by /b", "allowed.rule"),
            (
                "k8s.a.example:6443 by /b -> 10.0.0.1",
                "denied.address.private",
            ),
            ("k8s.a.example:443 by /a -> 10.0.0.1", "allowed.rule"),
            ("x.a.example:6443 by /a", "allowed.rule"),
            ("other.a.example:6443 by /a", "allowed.rule"),
            ("other.a.example:10250 by /a", "denied.port"),
        ],
    );
    // What has rules and no `protocol` is plain there, and what its rules allow is not allowed by them.
    let rest = "protocol: rest, enforcement: enforce, path: '/v1/**'";
    for (first, second) in [(0, 1), (1, 0)] {
        let ends = [
            "{host: a.example, port: 80, rules: [{allow: {method: '*', path: /x}}]}".to_owned(),
            format!(
                "{{host: a.example, port: 80, {rest}, rules: [{{allow: {{method: GET, path: /v1/a}}}}]}}"
            ),
        ];
        let text = format!(
            "version: 1\nnetwork_policies: {{p: {{endpoints: [{}, {}], binaries: [{{path: /a}}]}}}}",
            ends[first], ends[second]
        );
        check(
            &read(&text, None),
            &[
                ("a.example:80 by /a GET /v1/a", "allowed.rule"),
                ("a.example:80 by /a GET /x", "denied.request"),
            ],
        );
    }
}

#[test]
fn where_an_endpoint_leads_is_what_it_leads_to_there() {
    #[rustfmt::skip]
    let table: &[(&str, &[(&str, &str)])] = &[
        ("host: 10.1.2.3, port: 5432", &[("10.1.2.3:5432 by /a", "allowed.rule"), ("10.1.2.4:5432 by /a", "denied.address.private")]),
        ("port: 5432, allowed_ips: [10.1.2.0/24]", &[("10.1.2.3:5432 by /a", "allowed.rule"), ("10.1.2.3:80 by /a", "denied.port"), ("a.example:5432 by /a", "denied.default")]),
        ("host: '**.a.example', port: 443", &[("x.y.a.example:443 by /a", "allowed.rule"), ("a.example:443 by /a", "denied.default")]),
        ("host: '*-api.a.example', port: 443", &[("eu-api.a.example:443 by /a", "allowed.rule"), ("x.eu-api.a.example:443 by /a", "denied.default")]),
        ("host: host.docker.internal, port: 5432", &[("host.docker.internal:5432 by /a", "allowed.host_gateway"), ("host.docker.internal:80 by /a", "denied.host_gateway")]),
        ("host: a.example, ports: [443, 6443]", &[("a.example:443 by /a", "allowed.rule"), ("a.example:6443 by /a", "denied.port")]),
        ("host: '*.a.example', port: 6443", &[("x.a.example:6443 by /a", "allowed.rule")]),
        ("host: A.Example, port: 443, tls: skip, access: full", &[("a.example:443 by /a", "allowed.rule")]),
    ];
    for (fields, rows) in table {
        check(&read(&endpoint(fields), None), rows);
    }
    // Nobody may use endpoints without binaries.
    for text in [
        "version: 1\nnetwork_policies: {p: {endpoints: [{host: a.example, port: 443}]}}",
        "version: 1\nnetwork_policies: {p: {endpoints: [{host: a.example, port: 443}], binaries: []}}",
    ] {
        let parsed = read(text, None);
        check(
            &parsed,
            &[
                ("a.example:443 by /a", "denied.default"),
                ("a.example:443", "denied.default"),
            ],
        );
        assert_eq!(
            told(&parsed)[0],
            "2: `p` opens nothing: it has no `binaries`"
        );
    }
}

#[test]
fn what_differs_is_told() {
    let rest = "host: '*.a.example', port: 80, protocol: rest";
    #[rustfmt::skip]
    let table: &[(String, &[&str])] = &[
        (endpoint("host: '*.a.example', port: 443"), &[]),
        (endpoint(&format!("{rest}, access: full")), &[]),
        (endpoint(&format!("{rest}, access: read-only, enforcement: enforce")), &[]),
        (endpoint(&format!("{rest}, access: read-only")), &["note: requests that no rule allows are always refused"]),
        (endpoint(&format!("{rest}, access: read-only, enforcement: audit")), &["note: requests that no rule allows are always refused"]),
        (endpoint("host: '*.a.example', port: 80, access: read-only, enforcement: enforce"), &["note: what an endpoint without `protocol` says of requests holds here"]),
        (endpoint("host: a.example, port: 443"), &["note: a host that is written out may resolve to private addresses"]),
        (endpoint("port: 443, allowed_ips: [10.0.0.1]"), &["note: an endpoint without `host` opens the addresses of its `allowed_ips`"]),
        (endpoint("host: a.example, ports: [443, 2379]"), &["2: port 2379 stays shut: OpenShell keeps it for control planes", "note: a host that is"]),
        (endpoint("host: 10.0.0.1, port: 443, allowed_ips: [10.0.0.2]"), &["2: this opens nothing: the address is not among its `allowed_ips`"]),
        (endpoint(&format!("{rest}, enforcement: enforce, path: '/a/**', rules: [{{allow: {{method: GET, path: /b}}}}, {{allow: {{method: GET, path: /a/b}}}}]")), &["2: this rule is about nothing"]),
        (endpoint(&format!("{rest}, enforcement: enforce, access: full, deny_rules: [{{method: GET, path: '/x/**'}}]")), &["note: a rule of `deny_rules` for `/x/*` or `/x/**`"]),
        (endpoint(&format!("{rest}, access: full, allow_encoded_slash: true")), &["note: `allow_encoded_slash`"]),
        ("version: 1\nprocess: {run_as_user: sandbox}\nlandlock: {}".to_owned(), &["note: `process` has no effect", "note: Egret does not confine files by Landlock alone"]),
        ("version: 1\nfilesystem_policy: {read_only: [/usr]}".to_owned(), &["note: `filesystem_policy` speaks of this machine's files here"]),
        ("version: 1\nfilesystem_policy: {read_write: [/tmp, /srv, /dev/null]}".to_owned(), &["note: of `read_write`, /tmp, /dev/null are left out: every sandbox of Egret's has its own /tmp,", "note: `filesystem_policy` speaks"]),
        ("version: 1\nfilesystem_policy: {read_write: [/run/x]}".to_owned(), &["note: of `read_write`, /run/x is left out:", "note: `filesystem_policy` speaks"]),
    ];
    for (text, expected) in table {
        let mut told = told(&read(text, None));
        // Said of every policy with programs.
        let hashes = told
            .iter()
            .position(|told| told.contains("its content has changed"));
        assert_eq!(hashes.is_some(), text.contains("binaries"), "{text}");
        hashes.map(|at| told.remove(at));
        let begin = told.len() == expected.len()
            && told
                .iter()
                .zip(*expected)
                .all(|(told, expected)| told.starts_with(expected));
        assert!(begin, "{text}\n{told:#?}");
    }
    // A working directory that is not asked for is not writable.
    let read = |text| written(&read(text, None).policy.filesystem().read);
    assert_eq!(
        read("version: 1\nfilesystem_policy: {read_write: [/tmp/x]}"),
        ["."]
    );
    assert_eq!(
        read("version: 1\nfilesystem_policy: {include_workdir: true}"),
        <[&str; 0]>::default()
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    #[rustfmt::skip]
    let table: &[(&str, &str)] = &[
        ("host: a.example",                                  "an endpoint has no `port`: add `port: 443`, or another one"),
        ("port: 443",                                        "an endpoint has no `host`: add `host: api.example.com`"),
        ("host: a.example, port: 1, ports: [2]",             "an endpoint has `port` or `ports`, not both: leave `port` out"),
        ("host: a.example, port: 70000",                     "`70000` is not a port"),
        ("host: a.example, port: 1, acces: full",            "an endpoint has no key `acces`: did you mean `access`?"),
        ("host: '*', port: 1",                               "`*` would match a whole top-level domain: write a wildcard such as `*.example.com`"),
        ("host: .a.example, port: 1",                        "a host neither begins nor ends with a dot here: leave the dot out; `**.example.com` means every name below"),
        ("host: a.example., port: 1",                        "a host neither begins nor ends with a dot here: leave the dot out; `**.example.com` means every name below"),
        ("host: '*.com', port: 1",                           "`*.com` would match a whole top-level domain: write a wildcard such as `*.example.com`"),
        ("host: 'a.b*.example.com', port: 1",                "`a.b*.example.com` is not a host pattern"),
        ("host: 'a*b*.example.com', port: 1",                "`a*b*.example.com` is not a host pattern"),
        ("host: '{a,b}*.example.com', port: 1",              "`{a,b}*.example.com` is not a host pattern"),
        ("host: localhost, port: 1",                         "`localhost` cannot be allowed: a service on the host that runs the sandbox is `host.docker.internal`, opened by `host_gateway: [PORT]` or --allow-docker-gateway=PORT"),
        ("host: metadata.google.internal, port: 80",         "`metadata.google.internal` cannot be allowed: a metadata service hands out the credentials of the machine to whoever asks, and is never opened"),
        ("host: 169.254.169.254, port: 80",                  "`169.254.169.254` can never be allowed: a metadata service hands out the credentials of the machine to whoever asks, and is never opened"),
        ("host: host.openshell.internal, port: 80",          "Egret does not know the host by this name: write `host: host.docker.internal`, which is the same host"),
        ("host: 10.0.0.1, port: 1, protocol: tcp",           "`protocol: tcp` needs a name as its `host`: leave `protocol` out"),
        ("host: a.example, port: 1, allowed_ips: [127.0.0.0/8]", "`127.0.0.0/8` can never be allowed: a service on the host that runs the sandbox is `host.docker.internal`, opened by `host_gateway: [PORT]` or --allow-docker-gateway=PORT"),
        ("host: a.example, port: 1, allowed_ips: [0.0.0.0/0]", "`0.0.0.0/0` has loopback addresses in it: write smaller networks"),
        ("host: a.example, port: 1, allowed_ips: [x]",       "`x` is not an IP address: write an address such as `203.0.113.7`, or a network such as `203.0.113.0/24`"),
        ("host: a.example, port: 1, protocol: http",         "`http` is no protocol"),
        ("host: a.example, port: 1, protocol: mcp, mcp: {allow_all_known_mcp_methods: true}", "`protocol: mcp` is not implemented yet: `rest` tells requests apart by method and path, `tcp` takes all of them"),
        ("host: a.example, port: 1, protocol: graphql, access: read-only", "`protocol: graphql` is not implemented yet: `rest` tells requests apart by method and path, `tcp` takes all of them"),
        ("host: a.example, port: 1, protocol: rest",         "`protocol: rest` needs `access` or `rules`: `access: full` takes every request"),
        ("host: a.example, port: 1, protocol: rest, access: ro", "`ro` is no value of `access`"),
        ("host: a.example, port: 1, protocol: rest, access: full, rules: [{allow: {method: GET, path: /}}]", "an endpoint has `access` or `rules`, not both: leave one of the two out"),
        ("host: a.example, port: 1, protocol: rest, rules: []", "`rules` is empty: leave the key out; `access: full` takes every request"),
        ("host: a.example, port: 1, protocol: rest, access: full, deny_rules: []", "`deny_rules` is empty: leave the key out; `access: full` takes every request"),
        ("host: a.example, port: 1, deny_rules: [{method: GET, path: /}]", "`deny_rules` need a `protocol`: add `protocol: rest`"),
        ("host: a.example, port: 1, protocol: tcp, access: full", "with `protocol: tcp` nothing can be said of requests: write `protocol: rest`, or leave this out"),
        ("host: a.example, port: 1, protocol: rest, access: full, tls: skip", "with `tls: skip` requests cannot be read, so what is said of them would not hold: leave `tls` out, or `protocol` and the rules"),
        ("host: a.example, port: 1, tls: skipp",             "`skipp` is no value of `tls`: did you mean `skip`?"),
        ("host: a.example, port: 1, enforcement: warn",      "`warn` is no value of `enforcement`"),
        ("host: a.example, port: 1, protocol: rest, rules: [{method: GET, path: /}]", "this is not a rule: write `allow: {method: GET, path: \"/**\"}`"),
        ("host: a.example, port: 1, protocol: rest, rules: [{allow: {path: /}}]", "the rule has no `method`: `method: \"*\"` means every one"),
        ("host: a.example, port: 1, protocol: rest, rules: [{allow: {method: GET}}]", "the rule has no `path`: `path: \"**\"` means every one"),
        ("host: a.example, port: 1, protocol: rest, rules: [{allow: {method: GET, path: '/a?'}}]", "`?` in a path, a wildcard of OpenShell's, is not implemented yet: write `*`, or the paths one by one"),
        ("host: a.example, port: 1, protocol: rest, rules: [{allow: {method: GET, path: a}}]", "`a` is not the path of a request"),
        ("host: a.example, port: 1, protocol: rest, rules: [{allow: {method: 'GET,PUT', path: /}}]", "`GET,PUT` is not a method: write one such as `GET`, or `*`"),
        ("host: a.example, port: 1, protocol: rest, rules: [{allow: {method: GET, path: /, query: {a: b}}}]", "`query` is not implemented yet: without it, a rule is about every query"),
        ("host: a.example, port: 1, protocol: rest, rules: [{allow: {operation_type: query}}]", "`operation_type` is not implemented yet"),
        ("host: a.example, port: 1, protocol: rest, path: '/v1/*/x', rules: [{allow: {method: GET, path: '/v1/y/*'}}]", "a `path` that only partly lies within the endpoint's `path` is not implemented yet: leave out the endpoint's, and have each rule say its whole path"),
        ("host: a.example, port: 1, protocol: rest, path: '/v1/**', rules: [{allow: {method: GET, path: '/v2/a'}}]", "no rule of the endpoint lies within its `path`: leave `path` out, or the endpoint"),
        ("host: a.example, port: 1, protocol: rest, access: full, path: v1", "an endpoint's `path` begins with `/`, or is `**`"),
        ("host: 10.0.0.1, port: 1, protocol: rest, access: full, deny_rules: [{method: GET, path: /}]", "`deny_rules` for an address are not implemented yet: list what is allowed in `rules`"),
        ("host: a.example, port: 1, credential_signing: sigv4", "`credential_signing` is not implemented yet"),
        ("host: a.example, port: 1, credential_binding: {provider: x}", "`credential_binding` is not implemented yet"),
        ("host: a.example, port: 1, request_body_credential_rewrite: true", "`request_body_credential_rewrite` is not implemented yet: leave it out: Egret holds no credentials that it could put in"),
    ];
    for (fields, expected) in table {
        let said = super::said(&errors(&endpoint(fields)));
        let first = said[0].split_once(' ').unwrap().1;
        assert_eq!(first, *expected, "{fields}");
    }
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("network_policies: {}",                          &["1:1 the policy has no `version`: add `version: 1`"]),
        ("version: 2\nnetwork_policies: {}",              &["1:10 this version of OpenShell's policies is not known: write `version: 1`"]),
        ("version: 1\nnetwork_policies: []",              &["2:19 `network_policies` has to be a mapping"]),
        ("version: 1\nnetwork_policies: {a: {endpoint: []}}", &["2:24 a network policy has no key `endpoint`: did you mean `endpoints`?"]),
        ("version: 1\nnetwork_policies: {a: {}, a: {}}",  &["2:27 `a` stands here twice"]),
        ("version: 1\nnetwork_policies: {a: {binaries: [/x, {path: x}, {path: '/a?*'}, {}]}}", &[
            "2:35 an item of `binaries` is a mapping: write `path: /x`",
            "2:46 `x` does not name an executable: write where it is, such as `/usr/bin/curl`; `command -v NAME` tells",
            "2:60 `?` in a path, a wildcard of OpenShell's, is not implemented yet: write `*`, or the paths one by one",
            "2:66 a binary has no `path`"]),
        ("version: 1\nnetwork_policies: {}\nnetwork_middlewares: {m: {}}", &["3:22 `network_middlewares` is not implemented yet: leave it out: Egret changes nothing in requests"]),
        ("version: 1\nfilesystem_policy: {read_only: [usr, /a/../b], read_write: [/, /x]}", &["2:33 a path begins with `/`", "2:38 a path has no `..`", "2:61 `/` cannot be writable: name the directories that the program writes to"]),
        ("version: 1\nprocess: {run_as_user: root, run_as_group: '0'}", &["2:24 `run_as_user` is `sandbox` or a number from 1 to 4294967294", "2:44 `run_as_group` is `sandbox` or a number from 1 to 4294967294"]),
        ("version: 1\nlandlock: {compatibility: strict}", &["2:27 `strict` is not a `compatibility`"]),
    ];
    for (text, expected) in table {
        assert_eq!(super::said(&errors(text)), *expected, "{text}");
    }
}
