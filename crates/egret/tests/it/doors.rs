//! What is allowed works, by every way in and for ordinary clients.

use serde_json::Value;

use crate::world::probe::{attempt, connect, forward, socks, tcp};
use crate::world::run::Outcome;
use crate::world::servers::Service;
use crate::world::{User, World, at, real};

/// A web server at an allowed name, by HTTP and HTTPS.
fn web() -> World {
    let world = World::new();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    world.serve("93.184.216.34:443", Service::Https(&["www.example.com"]));
    world
}

/// The one decision of a run, which has to have come by `door`.
#[track_caller]
fn only_decision<'a>(outcome: &'a Outcome, door: &str) -> &'a Value {
    let decisions: Vec<_> = outcome.events("decision").collect();
    assert_eq!(decisions.len(), 1, "{outcome:#?}");
    assert_eq!(decisions[0]["door"], door, "{outcome:#?}");
    assert_eq!(decisions[0]["verdict"], "allow", "{outcome:#?}");
    decisions[0]
}

#[test]
fn curl_gets_through_by_every_door() {
    let world = web();
    #[rustfmt::skip]
    let table = [
        // door       client
        ("forward",  "curl -sS http://www.example.com/x"),
        ("connect",  "curl -sS https://www.example.com/x"),
        ("connect",  "curl -sS -p http://www.example.com/x"),
        ("socks",    "curl -sS --socks5-hostname 127.0.0.1:61081 http://www.example.com/x"),
        ("socks",    "curl -sS --socks5-hostname 127.0.0.1:61081 https://www.example.com/x"),
        ("socks",    "curl -sS --socks5 127.0.0.1:61081 https://www.example.com/x"),
        ("captured", "curl -sS --noproxy '*' http://www.example.com/x"),
        ("captured", "curl -sS --noproxy '*' https://www.example.com/x"),
        ("captured", "env -u https_proxy -u HTTPS_PROXY -u all_proxy -u ALL_PROXY curl -sS https://www.example.com/x"),
    ];
    for user in User::ALL {
        for (door, client) in table {
            let outcome = world
                .run_as(user)
                .allow("www.example.com")
                .client(client)
                .ok();
            assert_eq!(
                outcome.stdout, "GET /x for www.example.com, 0 bytes\n",
                "{user:?} {client}: {outcome:#?}"
            );
            assert_eq!(outcome.stderr, "", "{user:?} {client}");
            let decision = only_decision(&outcome, door);
            assert_eq!(decision["reason"], "allowed.rule");
            assert_eq!(decision["rule"], "--allow");
            assert_eq!(decision["host"], "www.example.com");
            let close = outcome
                .events("close")
                .next()
                .unwrap_or_else(|| panic!("no end on record: {outcome:#?}"));
            assert_eq!(close["id"], decision["id"]);
            assert!(close["bytes_down"].as_u64().unwrap() > 40, "{close}");
        }
    }
}

#[test]
fn without_proxy_variables_everything_is_captured() {
    let world = web();
    for user in User::ALL {
        let run = world
            .run_as(user)
            .allow("www.example.com")
            .args(&["--no-proxy-env"]);
        let outcome = run
            .client("env | grep -i _proxy; curl -sS https://www.example.com/x")
            .ok();
        assert_eq!(outcome.stdout, "GET /x for www.example.com, 0 bytes\n");
        only_decision(&outcome, "captured");
    }
}

#[test]
fn python_and_node_get_through() {
    let world = web();
    let python = "import urllib.request as r; print(r.urlopen('URL').read().decode(), end='')";
    let node = "fetch('URL').then(a => a.text()).then(t => process.stdout.write(t))";
    let raw = "import socket; s = socket.create_connection(('www.example.com', 80)); \
               s.send(b'GET /x HTTP/1.1\\r\\nHost: www.example.com\\r\\nConnection: close\\r\\n\\r\\n'); \
               print(s.makefile().read().split('\\n')[-2])";
    for user in User::ALL {
        for url in ["http://www.example.com/x", "https://www.example.com/x"] {
            for (program, flag, script) in
                [("/usr/bin/python3", "-c", python), ("node", "-e", node)]
            {
                let script = script.replace("URL", url);
                let outcome = world
                    .run_as(user)
                    .allow("www.example.com")
                    .program(&[program, flag, &script])
                    .ok();
                assert_eq!(
                    outcome.stdout, "GET /x for www.example.com, 0 bytes\n",
                    "{user:?} {program}: {outcome:#?}"
                );
            }
        }
        let outcome = world.run_as(user).allow("www.example.com").python(raw).ok();
        assert_eq!(
            outcome.stdout, "GET /x for www.example.com, 0 bytes\n",
            "{outcome:#?}"
        );
    }
}

#[test]
fn protocols_in_which_the_server_speaks_first_work() {
    let world = World::new();
    world.dns.answer("mail.example.com", &[at::PUBLIC]);
    let greetings: [(u16, &[u8], &str); 3] = [
        (25, b"220 mail.example.com ESMTP\r\n", "220 mail"),
        (
            3306,
            b"\x4a\0\0\0\x0a8.0.36\0mysql_native_password\0",
            "8.0.36",
        ),
        (2222, b"SSH-2.0-OpenSSH_9.6\r\n", "SSH-2.0"),
    ];
    for (port, greeting, _) in greetings {
        world.serve(
            &format!("93.184.216.34:{port}"),
            Service::Greeting(greeting),
        );
    }
    for user in User::ALL {
        // Nothing is sent before the greeting was read.
        let silent =
            |port: u16| serde_json::json!({"try": "tcp", "host": "mail.example.com", "port": port});
        let attempts: Vec<_> = greetings.iter().map(|(port, ..)| silent(*port)).collect();
        let (outcome, ends) = attempt(
            world.run_as(user).allow("mail.example.com:25,3306,2222"),
            &attempts,
        );
        for ((port, _, words), end) in greetings.iter().zip(&ends) {
            assert!(
                end["data"].as_str().unwrap().contains(words),
                "{user:?} {port}: {end} {outcome:#?}"
            );
        }
    }
}

#[test]
fn octets_of_no_protocol_in_particular_pass_both_ways() {
    let world = World::new();
    world.dns.answer("echo.example.com", &[at::PUBLIC]);
    let echo = world.serve("93.184.216.34:7000", Service::Echo);
    for user in User::ALL {
        let attempts = [
            tcp("echo.example.com", 7000),
            socks("echo.example.com", 7000),
        ];
        let (outcome, ends) = attempt(world.run_as(user).allow("echo.example.com:7000"), &attempts);
        for end in ends {
            assert_eq!(end["data"], "hello\n", "{outcome:#?}");
        }
    }
    assert_eq!(
        world.server(echo, |echo| echo.bytes()),
        b"hello\n".repeat(4)
    );
}

#[test]
fn literal_addresses_are_allowed_by_entries_of_their_own() {
    let world = World::new();
    world.serve_everywhere(7000, Service::Echo);
    let policy = "version: 1\nallow:\n  - address: 93.184.216.0/24\n    ports: [7000]\n  \
                  - address: '2606:2800:220:1::/64'\n    ports: [7000]\n  - address: 10.20.0.7\n    ports: [7000]\n";
    for user in User::ALL {
        let attempts = [at::PUBLIC, at::PUBLIC6, at::PRIVATE].map(|address| tcp(address, 7000));
        let (outcome, ends) = attempt(world.run_as(user).policy(policy), &attempts);
        for end in ends {
            assert_eq!(end["data"], "hello\n", "{outcome:#?}");
        }
        outcome.decided("allowed.rule", at::PUBLIC, 7000).decided(
            "allowed.rule",
            at::PUBLIC6,
            7000,
        );
        assert_eq!(outcome.queries, []);
    }
}

#[test]
fn a_name_that_has_only_ipv6_addresses_is_reached() {
    let world = World::new();
    world.dns.answer("six.example.com", &[at::PUBLIC6]);
    world.serve(&format!("[{}]:80", at::PUBLIC6), Service::Http);
    for client in [
        "curl -sS http://six.example.com/",
        "curl -sS --noproxy '*' http://six.example.com/",
    ] {
        let outcome = world
            .run_as(User::Alice)
            .allow("six.example.com")
            .client(client)
            .ok();
        assert_eq!(outcome.stdout, "GET / for six.example.com, 0 bytes\n");
        assert_eq!(
            outcome.events("decision").next().unwrap()["dialled"],
            format!("[{}]:80", at::PUBLIC6)
        );
    }
}

#[test]
fn a_private_address_is_reached_where_the_entry_says_so() {
    let world = World::new();
    world.dns.answer("db.corp.example", &[at::PRIVATE]);
    world.serve("10.20.0.7:5000", Service::Echo);
    let policy = "version: 1\nallow:\n  - host: db.corp.example\n    ports: [5000]\n    addresses: [10.20.0.0/16]\n";
    let (outcome, ends) = attempt(
        world.run_as(User::Alice).policy(policy),
        &[tcp("db.corp.example", 5000)],
    );
    assert_eq!(ends[0]["data"], "hello\n", "{outcome:#?}");
    assert!(
        outcome.events("decision").next().unwrap()["rule"]
            .as_str()
            .unwrap()
            .ends_with("policy.yaml:3")
    );
}

#[test]
fn under_allow_public_the_public_is_reached_and_nothing_else() {
    let world = web();
    world.serve_everywhere(7000, Service::Echo);
    world.dns.answer("inside.example.com", &[at::PRIVATE]);
    let run = world
        .run_as(User::Alice)
        .policy("version: 1\ndefault: allow-public\n");
    let attempts = [
        forward("http://www.example.com/"),
        connect("www.example.com:443"),
        tcp(at::PUBLIC2, 7000),
        tcp(at::PRIVATE, 7000),
        tcp("inside.example.com", 7000),
    ];
    let (outcome, ends) = attempt(run, &attempts);
    for end in &ends[..2] {
        assert!(
            end["data"].as_str().unwrap().starts_with("HTTP/1.1 200"),
            "{outcome:#?}"
        );
    }
    assert_eq!(ends[2]["data"], "hello\n", "{outcome:#?}");
    assert_eq!(
        (&ends[3]["data"], &ends[4]["data"]),
        (&"".into(), &"".into()),
        "{outcome:#?}"
    );
    outcome.decided("allowed.default_public", "www.example.com", 443);
    outcome.decided("denied.address.private", "inside.example.com", 7000);
    assert!(!outcome.reached(at::PRIVATE, 7000));
}

#[test]
fn the_host_is_reached_where_its_gateway_is_open() {
    let world = World::new();
    world.serve("127.0.0.1:5432", Service::Http);
    world.serve("192.168.7.2:8080", Service::Http);
    for user in User::ALL {
        for args in [["--allow-docker-gateway=5432"], ["--allow-docker-gateway"]] {
            for flag in ["", "--noproxy '*'"] {
                let client = format!("curl -sS {flag} http://host.docker.internal:5432/");
                let outcome = world.run_as(user).args(&args).client(&client).ok();
                assert_eq!(
                    outcome.stdout, "GET / for host.docker.internal:5432, 0 bytes\n",
                    "{outcome:#?}"
                );
                outcome.decided("allowed.host_gateway", "host.docker.internal", 5432);
                assert_eq!(outcome.queries, []);
            }
        }
        let outcome = world.run_as(user).allow("host.egret.internal:5432");
        let outcome = outcome
            .client("curl -sS http://host.egret.internal:5432/")
            .ok();
        assert_eq!(
            outcome.stdout,
            "GET / for host.egret.internal:5432, 0 bytes\n"
        );
        let outcome = world.run_as(user).args(&["--allow-docker-gateway"]);
        let outcome = outcome.client("curl -sS http://192.168.7.2:8080/").ok();
        assert_eq!(outcome.stdout, "GET / for 192.168.7.2:8080, 0 bytes\n");
    }
}

#[test]
fn git_clones_over_http() {
    let world = World::new();
    real::git_http(&world);
    world.dns.answer("git.example.com", &[real::GIT]);
    for user in User::ALL {
        let script = "git -c init.defaultBranch=main clone -q http://git.example.com:8000/project.git && cat project/README";
        let outcome = world
            .run_as(user)
            .allow("git.example.com:8000")
            .client(script)
            .ok();
        assert_eq!(outcome.stdout, "a project\n", "{outcome:#?}");
        let outcome = world
            .run_as(user)
            .client("rm -rf project; git clone -q http://git.example.com:8000/project.git");
        assert_eq!(outcome.code(), 128, "{outcome:#?}");
        outcome
            .silent()
            .decided("denied.default", "git.example.com", 8000);
    }
}

#[test]
fn ssh_and_git_over_ssh_get_through() {
    let world = World::new();
    real::sshd(&world);
    world.dns.answer("git.example.com", &[real::GIT]);
    for user in User::ALL {
        real::ssh_key(&world, user);
        let ssh = "ssh -i ./key -o IdentitiesOnly=yes -o UserKnownHostsFile=./known -o StrictHostKeyChecking=yes";
        let outcome = world.run_as(user).allow("git.example.com:22");
        let outcome = outcome
            .client(&format!("{ssh} root@git.example.com 'echo $((6 * 7))'"))
            .ok();
        assert_eq!(outcome.stdout, "42\n", "{outcome:#?}");
        let outcome = world.run_as(user).allow("git.example.com:22");
        let clone = format!(
            "GIT_SSH_COMMAND='{ssh}' git clone -q root@git.example.com:/srv/project.git && cat project/README"
        );
        assert_eq!(outcome.client(&clone).ok().stdout, "a project\n");
        let outcome = world.run_as(user).client(&format!(
            "{ssh} -o ConnectTimeout=5 root@{} true",
            real::GIT
        ));
        assert_eq!(outcome.code(), 255, "{outcome:#?}");
        outcome
            .silent()
            .decided("denied.literal_address", real::GIT, 22);
    }
}

#[test]
fn psql_gets_through() {
    let world = World::new();
    real::postgres(&world);
    world.dns.answer("db.example.com", &[real::DATABASE]);
    for user in User::ALL {
        let psql = "psql -At -h db.example.com -U postgres postgres -c 'select 6 * 7'";
        let outcome = world
            .run_as(user)
            .allow("db.example.com:5432")
            .client(psql)
            .ok();
        assert_eq!(outcome.stdout, "42\n", "{outcome:#?}");
        let outcome = world.run_as(user).allow("db.example.com:80").client(psql);
        assert_eq!(outcome.code(), 2, "{outcome:#?}");
        assert!(outcome.packets.is_empty(), "{outcome:#?}");
        outcome.decided("denied.port", "db.example.com", 5432);
    }
}
