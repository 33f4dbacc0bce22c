use super::*;

fn policy(text: &str) -> Policy {
    let text = format!("version: 1\n{text}");
    match Policy::parse("p", text.as_bytes()) {
        Ok(parsed) => parsed.policy,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

#[test]
fn ports_of_the_host_can_be_made_and_told() {
    let ports = HostGatewayPorts::new(vec![5432, 80]).unwrap();
    assert_eq!(ports.ports(), Some(&[80, 5432][..]));
    assert!(ports.contain(80) && !ports.contain(81));
    assert_eq!(HostGatewayPorts::ANY.ports(), None);
    assert!(HostGatewayPorts::ANY.contain(81));
    let same = "80,5432".parse::<HostGatewayPorts>().unwrap();
    assert_eq!(same.ports(), Some(&[80, 5432][..]));
    for (ports, says) in [
        (vec![], "there are no ports"),
        (vec![80, 0], "0 is not a port: ports are 1 to 65535"),
    ] {
        let error = HostGatewayPorts::new(ports).unwrap_err();
        assert_eq!(error.to_string(), says);
    }
}

#[test]
fn a_policy_says_what_it_is_about() {
    #[rustfmt::skip]
    let table = [
        // Whether it opens anything, and the first line about programs.
        ("",                                                               false, None),
        ("deny: [a.example]",                                              false, None),
        ("inbound: [a.example]\nfilesystem: {read: [/a]}",                 false, None),
        ("host_gateway: deny",                                             false, None),
        ("host_gateway: [80]",                                             true,  None),
        ("default: allow-public:443",                                      true,  None),
        ("allow: [a.example]",                                             true,  None),
        ("allow:\n- a.example\n- {host: b.example, by: [/x]}",             true,  Some(4)),
        ("allow:\n- {host: b.example, under: [/x]}\n- {host: c.example, by: [/x]}", true, Some(3)),
        ("deny:\n- {host: b.example, by: [/x]}",                           false, Some(3)),
        ("deny:\n- {host: b.example, by: [/x]}\nallow:\n- {host: c.example, by: [/x]}", true, Some(5)),
    ];
    for (text, opens, programs) in table {
        let policy = policy(text);
        assert_eq!(policy.opens_anything(), opens, "{text}");
        assert_eq!(
            policy.names_programs().map(RuleId::line),
            programs,
            "{text}"
        );
        assert_eq!(policy.privileged(), None);
    }
    let mut policy = Policy::deny_all();
    policy.grant_host_gateway(HostGatewayPorts::ANY);
    assert!(policy.opens_anything());
}

#[test]
fn what_is_not_there_can_be_left_out() {
    let mut policy = policy("filesystem: {read: [/r], write: [/a, '/b:/d', /c]}");
    let left_out = policy.leave_out_missing(|path| path == "/c");
    assert_eq!(left_out, ["/a", "/b"]);
    let files = policy.filesystem();
    let written: Vec<_> = files.write.iter().map(ToString::to_string).collect();
    assert_eq!((written, files.read.len()), (vec!["/c".to_owned()], 1));
}
