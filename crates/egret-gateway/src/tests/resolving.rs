//! Resolving and vetting.

use std::time::Instant;

use super::*;

async fn world(policy: &str, dns: &StubDns) -> World {
    let limits = Limits {
        resolve_time: Duration::from_millis(600),
        connect_time: Duration::from_millis(300),
        ..Limits::default()
    };
    World::with(
        policy,
        With {
            limits,
            servers: vec![dns.address],
            ..With::default()
        },
    )
    .await
}

#[tokio::test]
async fn one_address_that_may_not_be_dialled_refuses_the_whole_answer() {
    let dns = StubDns::new().await;
    #[rustfmt::skip]
    let table: [(&str, &[&str], &str); 12] = [
        ("loopback.example",  &["127.0.0.1"],                       "denied.address.loopback"),
        ("mixed.example",     &["93.184.216.34", "127.0.0.1"],      "denied.address.loopback"),
        ("mixed6.example",    &["93.184.216.34", "::1"],            "denied.address.loopback"),
        ("private.example",   &["10.0.0.5"],                        "denied.address.private"),
        ("metadata.example",  &["169.254.169.254"],                 "denied.address.metadata"),
        ("metadata6.example", &["fd00:ec2::254"],                   "denied.address.metadata"),
        ("linklocal.example", &["169.254.1.1"],                     "denied.address.link_local"),
        ("host.example",      &["172.17.0.1"],                      "denied.address.host"),
        ("mapped.example",    &["::ffff:10.0.0.1"],                 "denied.address.private"),
        ("nat64.example",     &["64:ff9b::a9fe:a9fe"],              "denied.address.metadata"),
        ("zero.example",      &["0.0.0.0"],                         "denied.address.reserved"),
        ("multicast.example", &["224.0.0.1"],                       "denied.address.multicast"),
    ];
    for (name, addresses, _) in table {
        dns.set(name, 60, addresses);
    }
    dns.alias("alias.example", "private.example");
    let world = world(
        "allow: ['*.example', alias.example]"
            .replace("'*.example'", &table.map(|row| row.0).join(", "))
            .as_str(),
        &dns,
    )
    .await;
    for (name, _, reason) in
        table
            .into_iter()
            .chain([("alias.example", &[][..], "denied.address.private")])
    {
        let (answer, _) = world
            .ask(&format!("CONNECT {name}:443 HTTP/1.1\r\n\r\n"))
            .await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (403, reason),
            "{name}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_changes_is_vetted_each_time_and_a_ttl_of_zero_is_not_kept() {
    let dns = StubDns::new().await;
    let world = world("allow: [a.example.com, b.example.com]", &dns).await;
    for (name, ttl, lookups) in [("a.example.com", 0, 2), ("b.example.com", 60, 1)] {
        dns.asked.lock().unwrap().clear();
        for address in ["10.0.0.1", "127.0.0.1"] {
            dns.set(name, ttl, &[address]);
            world
                .ask(&format!("CONNECT {name}:443 HTTP/1.1\r\n\r\n"))
                .await;
        }
        let asked = dns
            .asked
            .lock()
            .unwrap()
            .iter()
            .filter(|asked| asked.ends_with(" A"))
            .count();
        assert_eq!(asked, lookups, "{name}");
    }
    let reasons: Vec<_> = world
        .records()
        .into_iter()
        .filter(|record| record.event == Event::Decision)
        .map(|record| record.reason.unwrap().into_owned())
        .collect();
    assert_eq!(
        reasons,
        [
            "denied.address.private",
            "denied.address.loopback",
            "denied.address.private",
            "denied.address.private"
        ]
    );
}

#[tokio::test]
async fn an_answer_with_more_addresses_than_may_be_used_is_not_kept() {
    let dns = StubDns::new().await;
    let addresses: Vec<_> = (1..=65).map(|last| format!("93.184.216.{last}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    dns.set("many.example.com", 60, &addresses);
    let world = world("allow: [many.example.com]", &dns).await;
    for asked in 1..=2 {
        let (answer, _) = world
            .ask("CONNECT many.example.com:443 HTTP/1.1\r\n\r\n")
            .await;
        assert_eq!(answer.reason(), "denied.resolution");
        let questions = dns.asked.lock().unwrap().clone();
        let about_v4 = questions.iter().filter(|asked| asked.ends_with(" A"));
        assert_eq!(about_v4.count(), asked, "{questions:?}");
    }
}

#[tokio::test]
async fn names_that_do_not_resolve_say_so_and_in_time() {
    let dns = StubDns::new().await;
    dns.set("empty.example.com", 60, &[]);
    let policy = "allow: [none.example.com, empty.example.com]";
    let here = world(policy, &dns).await;
    for name in ["none.example.com", "empty.example.com"] {
        let (answer, _) = here
            .ask(&format!("CONNECT {name}:443 HTTP/1.1\r\n\r\n"))
            .await;
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (502, "denied.resolution"),
            "{name}"
        );
    }
    // No search list: what is asked is the name itself, made absolute.
    assert!(
        dns.asked
            .lock()
            .unwrap()
            .iter()
            .all(|asked| asked.starts_with("none.example.com. ")
                || asked.starts_with("empty.example.com. "))
    );
    let silent = UdpSocket::bind(LOCAL).await.unwrap();
    let limits = Limits {
        resolve_time: Duration::from_millis(400),
        ..Limits::default()
    };
    let there = World::with(
        policy,
        With {
            limits,
            servers: vec![silent.local_addr().unwrap()],
            ..With::default()
        },
    )
    .await;
    let begun = Instant::now();
    let (answer, _) = there
        .ask("CONNECT none.example.com:443 HTTP/1.1\r\n\r\n")
        .await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (502, "denied.resolution")
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn servers_are_asked_in_their_order_and_the_next_only_if_one_does_not_answer() {
    let (first, second) = (StubDns::new().await, StubDns::new().await);
    let silent = UdpSocket::bind(LOCAL).await.unwrap();
    let silent = silent
        .local_addr()
        .map(|address| (silent, address))
        .unwrap();
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    first.set("first.example.com", 0, &["10.0.0.1"]);
    first.set("empty.example.com", 0, &[]);
    for name in [
        "first.example.com",
        "empty.example.com",
        "second.example.com",
    ] {
        second.set(name, 0, &["127.0.0.1"]);
    }
    let (one, two) = (first.address, second.address);
    let (private, loopback) = ("denied.address.private", "denied.address.loopback");
    let unknown = "denied.resolution";
    #[rustfmt::skip]
    let table: [(&str, &[SocketAddr], bool, &str, bool); 9] = [
        // the name           the servers                  the first fails, what comes of it, whether the second is asked
        ("first.example.com",  &[one, two],                 false,           private,  false),
        ("empty.example.com",  &[one, two],                 false,           unknown,  false),
        ("second.example.com", &[one, two],                 false,           unknown,  false),
        ("second.example.com", &[one, two],                 true,            loopback, true ),
        ("first.example.com",  &[silent.1, one, two],       false,           private,  false),
        ("second.example.com", &[silent.1, two],            false,           loopback, true ),
        ("second.example.com", &[nobody, two],              false,           loopback, true ),
        ("second.example.com", &[silent.1, nobody, two],    false,           loopback, true ),
        ("second.example.com", &[one, silent.1],            true,            unknown,  false),
    ];
    for (name, servers, fails, reason, asked) in table {
        let what = format!("{name} {servers:?} {fails}");
        first.fails.store(fails, Ordering::Relaxed);
        for step in 0..6 {
            second.asked.lock().unwrap().clear();
            let limits = Limits {
                resolve_time: Duration::from_millis(900),
                ..Limits::default()
            };
            let with = With {
                limits,
                servers: servers.to_vec(),
                ..With::default()
            };
            let world = World::with("allow: ['*.example.com']", with).await;
            let begun = Instant::now();
            let (answer, _) = world
                .ask(&format!("CONNECT {name}:443 HTTP/1.1\r\n\r\n"))
                .await;
            assert_eq!(answer.reason(), reason, "{what}");
            assert!(begun.elapsed() < Duration::from_millis(1200), "{what}");
            assert_eq!(!second.asked.lock().unwrap().is_empty(), asked, "{what}");
            if servers.contains(&silent.1) || step > 2 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_is_not_allowed_is_never_asked_about() {
    let dns = StubDns::new().await;
    let world = world("allow: [a.example.com]\ndeny: [b.example.com]", &dns).await;
    for destination in [
        "evil.example:443",
        "b.example.com:443",
        "a.example.com:22",
        "host.docker.internal:80",
        "metadata.google.internal:80",
    ] {
        world
            .ask(&format!("CONNECT {destination} HTTP/1.1\r\n\r\n"))
            .await;
    }
    assert!(dns.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn many_at_once_share_one_question() {
    let dns = StubDns::new().await;
    dns.set("a.example.com", 60, &["10.0.0.1"]);
    let world = world("allow: [a.example.com]", &dns).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let proxy = world.proxy;
        asking.spawn(async move {
            let mut stream = TcpStream::connect(proxy).await.unwrap();
            stream
                .write_all(b"CONNECT a.example.com:443 HTTP/1.1\r\n\r\n")
                .await
                .unwrap();
            Answer::read(&mut stream, false).await.reason()
        });
    }
    assert!(
        asking
            .join_all()
            .await
            .iter()
            .all(|reason| reason == "denied.address.private")
    );
    assert_eq!(dns.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_read_again_when_it_changes() {
    let dns = StubDns::new().await;
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    std::fs::write(
        &hosts,
        "# comment\n10.1.1.1 A.Example.com other # more\nnonsense\n",
    )
    .unwrap();
    let with = With {
        servers: vec![dns.address],
        hosts_file: Some(hosts.clone()),
        ..With::default()
    };
    let world = World::with("allow: [a.example.com]", with).await;
    let ask = || world.ask("CONNECT a.example.com:443 HTTP/1.1\r\n\r\n");
    assert_eq!(ask().await.0.reason(), "denied.address.private");
    std::fs::write(
        &hosts,
        "127.0.0.1 a.example.com\n10.1.1.1 a.example.com # longer now\n",
    )
    .unwrap();
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(ask().await.0.reason(), "denied.address.loopback");
    assert!(dns.asked.lock().unwrap().is_empty());
}
