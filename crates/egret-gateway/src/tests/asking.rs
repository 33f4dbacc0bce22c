//! A person is asked. What they allow is dialled through a proxy on loopback, since public addresses are not for tests.

use std::time::Instant;

use super::captured::captured;
use super::dns::{addresses, ask as look_up, question as about};
use super::*;
use crate::{Question, Reply};

struct Stage {
    world: World,
    names: StubDns,
}

impl Stage {
    /// A gateway that asks, and a proxy through which every public address is a server that sends back what it gets.
    async fn new(policy: &str, patience: Duration) -> Self {
        Self::with(policy, patience, Limits::default()).await
    }

    async fn with(policy: &str, patience: Duration, limits: Limits) -> Self {
        let names = StubDns::new().await;
        names.set("a.test", 60, &["93.184.216.34"]);
        names.set("b.test", 60, &["93.184.216.35"]);
        names.set("inside.test", 60, &["10.0.0.1"]);
        let proxy = server(|mut stream| async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else {
                    return;
                };
                head.push(byte);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
        .await;
        let with = With {
            servers: vec![names.address],
            upstream_proxy: Some(format!("http://127.0.0.1:{proxy}").parse().unwrap()),
            ask: Some(patience),
            limits,
            ..With::default()
        };
        let world = World::with(policy, with).await;
        Self { world, names }
    }

    /// A client that asks for a tunnel, and its answer once there is one.
    fn connect(&self, to: &str) -> JoinHandle<(Answer, TcpStream)> {
        let (proxy, to) = (self.world.proxy, to.to_owned());
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(proxy).await.unwrap();
            let head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            (Answer::read(&mut stream, false).await, stream)
        })
    }

    async fn refused(&self, to: &str) -> String {
        let start = Instant::now();
        let (answer, _) = in_time(self.connect(to)).await.unwrap();
        assert!(start.elapsed() < MOMENT, "{to} waited");
        answer.reason()
    }

    /// What is asked, once that is so many questions.
    async fn questions(&self, many: usize) -> Vec<Question> {
        self.until(|questions| questions.len() == many).await
    }

    async fn until(&self, wanted: impl Fn(&[Question]) -> bool) -> Vec<Question> {
        for _ in 0..400 {
            let questions = self.world.gateway.activity().questions;
            if wanted(&questions) {
                return questions;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("{:#?}", self.world.gateway.activity().questions);
    }

    fn reply(&self, question: &Question, reply: Reply) {
        assert!(self.world.gateway.reply(&question.id, reply));
        // There is nothing to answer twice.
        assert!(!self.world.gateway.reply(&question.id, reply));
    }

    /// What is on record of questions: about what, and what happened.
    fn told(&self) -> Vec<(String, String)> {
        let records = self.world.records().into_iter();
        let questions = records.filter(|record| record.event == Event::Question);
        let told = |record: Record| {
            let to = format!("{}:{}", record.host.unwrap(), record.port.unwrap());
            assert_eq!((record.verdict, record.door), (None, None));
            assert!(record.message.unwrap().contains(&to));
            (to, record.action.unwrap().into_owned())
        };
        questions.map(told).collect()
    }

    fn looked_up(&self) -> Vec<String> {
        self.names.asked.lock().unwrap().clone()
    }
}

async fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"x").await.unwrap();
    assert_eq!(in_time(stream.read_u8()).await.unwrap(), b'x');
}

fn pairs(told: &[(String, String)]) -> Vec<(&str, &str)> {
    told.iter()
        .map(|(to, what)| (to.as_str(), what.as_str()))
        .collect()
}

/// Longer than any answer takes that nobody waits for, and much shorter than a question's time.
const MOMENT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn once_is_for_those_who_wait_and_nothing_leaves_before() {
    let stage = Stage::new("allow: [b.test]", LONG).await;
    let (first, second) = (stage.connect("a.test:443"), stage.connect("a.test:443"));
    let [question] = &stage
        .until(|all| all.iter().any(|one| one.waiting == 2))
        .await[..]
    else {
        panic!()
    };
    assert_eq!((question.host.as_str(), question.port), ("a.test", 443));
    assert_eq!(question.destination, "a.test:443");
    assert_eq!(question.reason, "denied.default");
    assert!(
        question.message.ends_with("; 2 connections wait"),
        "{question:?}"
    );
    assert!(question.left_ms > 50_000 && question.left_ms <= 60_000);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(stage.looked_up(), [""; 0]);
    stage.reply(question, Reply::Once);
    for client in [first, second] {
        let (answer, mut stream) = in_time(client).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        echoes(&mut stream).await;
    }
    let decision = stage.world.decision("allowed.once").await;
    assert_eq!((decision.rule, decision.dialled.is_some()), (None, true));
    // The next one is another one.
    let third = stage.connect("a.test:443");
    let again = stage.questions(1).await;
    assert_ne!(again[0].id, question.id);
    stage.reply(&again[0], Reply::No);
    assert_eq!(in_time(third).await.unwrap().0.reason(), "denied.default");
    let expected = ["asked", "once", "asked", "no"].map(|what| ("a.test:443", what));
    assert_eq!(pairs(&stage.told()), expected);
}

#[tokio::test]
async fn no_is_for_the_rest_of_the_run_and_for_that_destination() {
    let stage = Stage::new("default: deny", LONG).await;
    let waits = stage.connect("a.test:443");
    let question = stage.questions(1).await.remove(0);
    stage.reply(&question, Reply::No);
    assert_eq!(in_time(waits).await.unwrap().0.reason(), "denied.default");
    assert_eq!(stage.refused("a.test:443").await, "denied.default");
    assert_eq!(stage.looked_up(), [""; 0]);
    let other = stage.connect("a.test:8443");
    stage.reply(&stage.questions(1).await[0], Reply::Once);
    assert_eq!(in_time(other).await.unwrap().0.status, 200);
    // A policy may allow it all the same.
    stage
        .world
        .gateway
        .set_policy(matcher("allow: [a.test]"), "p", Basis::default());
    assert_eq!(
        in_time(stage.connect("a.test:443")).await.unwrap().0.status,
        200
    );
}

#[tokio::test]
async fn without_an_answer_it_is_refused_and_not_asked_about_again_for_a_while() {
    let stage = Stage::new("default: deny", Duration::from_millis(300)).await;
    let start = Instant::now();
    let first = stage.connect("a.test:443");
    stage.questions(1).await;
    sleep(Duration::from_millis(150)).await;
    // Whoever joins later has what is left of the time.
    let second = stage.connect("a.test:443");
    for client in [first, second] {
        assert_eq!(in_time(client).await.unwrap().0.reason(), "denied.default");
    }
    let waited = start.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_millis(440)).contains(&waited),
        "{waited:?}"
    );
    assert_eq!(stage.refused("a.test:443").await, "denied.default");
    assert_eq!(
        pairs(&stage.told()),
        [("a.test:443", "asked"), ("a.test:443", "unanswered")]
    );
    assert_eq!(stage.world.gateway.activity().counts.refused, 3);
}

#[tokio::test]
async fn a_new_policy_answers_what_it_speaks_of_and_leaves_the_rest_waiting() {
    let stage = Stage::new("default: deny", LONG).await;
    let (a, b, c) = (
        stage.connect("a.test:443"),
        stage.connect("b.test:443"),
        stage.connect("c.test:443"),
    );
    let before = stage.questions(3).await;
    let policy = matcher("allow: [a.test]\ndeny: [b.test]");
    stage
        .world
        .gateway
        .set_policy(policy, "p", Basis::default());
    assert_eq!(in_time(a).await.unwrap().0.status, 200);
    assert_eq!(in_time(b).await.unwrap().0.reason(), "denied.rule");
    let left = stage
        .until(|all| all.len() == 1 && all[0].waiting == 1)
        .await;
    let same = before
        .iter()
        .find(|question| question.id == left[0].id)
        .unwrap();
    assert_eq!(same.host, "c.test");
    // It has not been given more time by that.
    assert!(left[0].left_ms <= same.left_ms);
    stage.reply(&left[0], Reply::No);
    assert_eq!(in_time(c).await.unwrap().0.reason(), "denied.default");
    let mut told = stage.told();
    told.retain(|(_, what)| what == "replaced");
    told.sort();
    assert_eq!(
        pairs(&told),
        [("a.test:443", "replaced"), ("b.test:443", "replaced")]
    );
}

#[tokio::test]
async fn a_connection_that_was_allowed_once_lasts_until_a_policy_speaks_against_it() {
    let stage = Stage::new("default: deny", LONG).await;
    let client = stage.connect("a.test:443");
    stage.reply(&stage.questions(1).await[0], Reply::Once);
    let (_, mut stream) = in_time(client).await.unwrap();
    for policy in ["allow: [b.test]", "default: deny", "allow: ['a.test:80']"] {
        stage
            .world
            .gateway
            .set_policy(matcher(policy), "p", Basis::default());
        echoes(&mut stream).await;
    }
    stage
        .world
        .gateway
        .set_policy(matcher("deny: ['*.test', a.test]"), "p", Basis::default());
    assert!(until_end(&mut stream).await.1);
    assert_eq!(
        stage.world.close().await.reason.as_deref(),
        Some("denied.rule")
    );
}

#[tokio::test]
async fn what_nobody_may_be_asked_about_is_refused_at_once() {
    let policy = "allow: [{host: by.test, by: [/usr/bin/curl]}]\ndeny: [no.test]";
    let stage = Stage::new(policy, LONG).await;
    stage.world.gateway.set_hosts(
        HostAddresses::new(["45.33.32.10".parse().unwrap()])
            .with_gateway(vec![Ipv4Addr::LOCALHOST.into()]),
    );
    #[rustfmt::skip]
    let table = [
        ("no.test:443",                  "denied.rule"),
        ("by.test:443",                  "denied.executable"),
        ("host.docker.internal:5432",    "denied.host_gateway"),
        ("host.containers.internal:22",  "denied.host_gateway"),
        ("45.33.32.10:22",               "denied.host_gateway"),
        ("localhost:80",                 "denied.address.loopback"),
        ("a.localhost:80",               "denied.address.loopback"),
        ("127.0.0.1:80",                 "denied.address.loopback"),
        ("[::1]:80",                     "denied.address.loopback"),
        ("[::ffff:127.0.0.1]:80",        "denied.address.loopback"),
        ("169.254.169.254:80",           "denied.address.metadata"),
        ("[fd00:ec2::254]:80",           "denied.address.metadata"),
        ("metadata.google.internal:80",  "denied.address.metadata"),
        ("10.0.0.1:80",                  "denied.address.private"),
        ("192.168.0.1:80",               "denied.address.private"),
        ("[fd12::1]:80",                 "denied.address.private"),
        ("169.254.1.1:80",               "denied.address.link_local"),
        ("[fe80::1]:80",                 "denied.address.link_local"),
        ("224.0.0.1:80",                 "denied.address.multicast"),
        ("0.0.0.0:80",                   "denied.address.reserved"),
        ("198.18.0.9:443",               "denied.literal_address"),
        ("evil..test:443",               "denied.malformed"),
        ("0x7f.1:80",                    "denied.address.loopback"),
        ("a.test:0",                     "denied.malformed"),
    ];
    for (to, reason) in table {
        assert_eq!(stage.refused(to).await, reason, "{to}");
    }
    assert_eq!(stage.told(), []);
    assert_eq!(stage.looked_up(), [""; 0]);
}

#[tokio::test]
async fn a_name_that_is_allowed_once_leads_where_an_entry_would_let_it_lead() {
    let stage = Stage::new("default: deny", LONG).await;
    stage
        .names
        .set("mixed.test", 60, &["93.184.216.34", "169.254.169.254"]);
    for (to, reason) in [
        ("inside.test:443", "denied.address.private"),
        ("mixed.test:443", "denied.address.metadata"),
        ("nowhere.test:443", "denied.resolution"),
    ] {
        let client = stage.connect(to);
        stage.reply(&stage.questions(1).await[0], Reply::Once);
        assert_eq!(in_time(client).await.unwrap().0.reason(), reason, "{to}");
    }
}

#[tokio::test]
async fn few_questions_are_open_at_once_and_what_is_more_is_refused_and_counted() {
    let stage = Stage::new("default: deny", Duration::from_millis(700)).await;
    let clients: Vec<_> = (0..40)
        .map(|n| stage.connect(&format!("n{n}.test:443")))
        .collect();
    let questions = stage.questions(8).await;
    stage.reply(&questions[0], Reply::No);
    // Room again, as long as they do not come too fast: of sixteen, eight are left.
    let more: Vec<_> = (0..9)
        .map(|n| stage.connect(&format!("m{n}.test:443")))
        .collect();
    stage.questions(8).await;
    for client in clients.into_iter().chain(more) {
        assert_eq!(in_time(client).await.unwrap().0.reason(), "denied.default");
    }
    for round in 0..8 {
        let client = stage.connect(&format!("o{round}.test:443"));
        assert_eq!(in_time(client).await.unwrap().0.reason(), "denied.default");
    }
    let asked = stage
        .told()
        .iter()
        .filter(|(_, what)| what == "asked")
        .count();
    assert!((16..=18).contains(&asked), "{asked}");
    in_time(stage.world.gateway.shutdown()).await;
    let records = stage.world.records();
    let floods = records
        .iter()
        .filter(|record| record.action.as_deref() == Some("question_flood"));
    let skipped: u64 = floods.filter_map(|record| record.count).sum();
    assert_eq!(skipped, 57 - asked as u64);
}

#[tokio::test]
async fn whoever_waits_at_the_end_is_told_and_on_record() {
    let stage = Stage::new("default: deny", LONG).await;
    let client = stage.connect("a.test:443");
    stage.questions(1).await;
    in_time(stage.world.gateway.shutdown()).await;
    assert_eq!(in_time(client).await.unwrap().0.reason(), "denied.default");
    assert_eq!(
        pairs(&stage.told()),
        [("a.test:443", "asked"), ("a.test:443", "ended")]
    );
    let refused = |record: &Record| record.verdict == Some(Verdict::Deny);
    assert_eq!(
        stage
            .world
            .records()
            .iter()
            .filter(|record| refused(record))
            .count(),
        1
    );
    assert_eq!(stage.world.gateway.activity().questions, []);
}

#[tokio::test]
async fn an_answer_that_comes_when_the_client_has_left_leaves_nothing_behind() {
    let stage = Stage::new("default: deny", LONG).await;
    let mut gone = TcpStream::connect(stage.world.proxy).await.unwrap();
    gone.write_all(b"CONNECT a.test:443 HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let question = stage.questions(1).await.remove(0);
    drop(gone);
    sleep(Duration::from_millis(50)).await;
    // The question stays what it was, and is nobody else's.
    assert_eq!(stage.questions(1).await[0].id, question.id);
    stage.reply(&question, Reply::Once);
    stage.world.decision("allowed.once").await;
    stage.world.close().await;
    assert_eq!(stage.world.gateway.activity().counts.open, 0);
    let next = stage.connect("a.test:443");
    stage.reply(&stage.questions(1).await[0], Reply::No);
    assert_eq!(in_time(next).await.unwrap().0.status, 403);
}

#[tokio::test]
async fn a_name_that_may_mislead_is_asked_about_with_a_word_of_that() {
    let stage = Stage::new("default: deny", LONG).await;
    #[rustfmt::skip]
    let table = [
        ("api.github.com.evil.test:443", "api.github.com.evil.test:443", Some("registered evil.test")),
        ("bücher.test:443",              "xn--bcher-kva.test:443",       Some("letters that may look like others")),
        ("a.test:443",                   "a.test:443",                   None),
    ];
    for (to, destination, word) in table {
        let client = stage.connect(to);
        let question = stage.questions(1).await.remove(0);
        assert_eq!(question.destination, destination);
        let said = word.map(|word| question.message.contains(word));
        let plain = "no entry of the policy allows the destination";
        assert!(said.unwrap_or(question.message == plain), "{question:?}");
        stage.reply(&question, Reply::No);
        in_time(client).await.unwrap();
    }
}

#[tokio::test]
async fn every_door_waits() {
    let stage = Stage::new("default: deny", LONG).await;
    // SOCKS.
    let mut socks = TcpStream::connect(stage.world.proxy).await.unwrap();
    socks.write_all(b"\x05\x01\x00").await.unwrap();
    in_time(socks.read_exact(&mut [0; 2])).await.unwrap();
    socks
        .write_all(b"\x05\x01\x00\x03\x06a.test\x01\xbb")
        .await
        .unwrap();
    stage.reply(&stage.questions(1).await[0], Reply::Once);
    let mut granted = [0; 10];
    in_time(socks.read_exact(&mut granted)).await.unwrap();
    assert_eq!(granted[1], 0);
    echoes(&mut socks).await;
    // Captured, by TLS whose name is looked at as ever.
    for (name, passes) in [("a.test", true), ("b.test", false)] {
        let mut tls = captured(&stage.world, "a.test:443").await;
        let hello = client_hello(name);
        tls.write_all(&hello).await.unwrap();
        stage.reply(&stage.questions(1).await[0], Reply::Once);
        let mut back = vec![0; hello.len()];
        let came = in_time(tls.read_exact(&mut back)).await;
        assert_eq!(came.is_ok() && back == hello, passes, "{name}");
    }
    stage.world.decision("denied.name_mismatch").await;
    // A literal address, which is asked about as such.
    let literal = captured(&stage.world, "93.184.216.34:9418").await;
    let question = stage.questions(1).await.remove(0);
    assert_eq!(question.destination, "93.184.216.34:9418");
    assert_eq!(question.reason, "denied.literal_address");
    stage.reply(&question, Reply::Once);
    let mut literal = literal;
    echoes(&mut literal).await;
}

#[tokio::test]
async fn the_requests_of_a_kept_connection_are_one_answers_matter() {
    let (answers, seen) = mirror().await;
    let proxy = server(move |mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut server = TcpStream::connect(("127.0.0.1", answers)).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
    })
    .await;
    let names = StubDns::new().await;
    names.set("a.test", 60, &["93.184.216.34"]);
    let with = With {
        servers: vec![names.address],
        upstream_proxy: Some(format!("http://127.0.0.1:{proxy}").parse().unwrap()),
        ask: Some(LONG),
        ..With::default()
    };
    let world = World::with("deny: [{host: a.test, http: ['POST /**']}]", with).await;
    let stage = Stage { world, names };
    let get = |path: &str| format!("GET http://a.test{path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut client = TcpStream::connect(stage.world.proxy).await.unwrap();
    client.write_all(get("/1").as_bytes()).await.unwrap();
    stage.reply(&stage.questions(1).await[0], Reply::Once);
    assert_eq!(Answer::read(&mut client, false).await.status, 200);
    client.write_all(get("/2").as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut client, false).await.status, 200);
    // Entries about requests hold for what a person allows.
    let post = get("/3").replace("GET", "POST");
    client.write_all(post.as_bytes()).await.unwrap();
    assert_eq!(
        Answer::read(&mut client, false).await.reason(),
        "denied.request"
    );
    assert_eq!(seen.lock().unwrap().len(), 2);
    assert_eq!(stage.told().len(), 2);
}

#[tokio::test]
async fn a_name_exists_that_may_be_asked_about_and_nobody_outside_hears_of_it() {
    let limits = Limits {
        names: 3,
        ..Limits::default()
    };
    let stage = Stage::with("allow: [b.test]\ndeny: [no.test]", LONG, limits).await;
    #[rustfmt::skip]
    let table = [
        ("a.test.",                    ResponseCode::NoError,  1),
        ("c2VjcmV0.evil.test.",        ResponseCode::NoError,  1),
        ("b.test.",                    ResponseCode::NoError,  1),
        ("no.test.",                   ResponseCode::NXDomain, 0),
        ("host.docker.internal.",      ResponseCode::NXDomain, 0),
        ("metadata.google.internal.",  ResponseCode::NXDomain, 0),
        ("one.more.test.",             ResponseCode::Refused,  0),
    ];
    let mut synthetic = None;
    for (name, code, many) in table {
        let answer = look_up(&stage.world, &about(name, RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, code, "{name}");
        assert_eq!(addresses(&answer).len(), many, "{name}");
        synthetic = synthetic.or(addresses(&answer).first().copied());
    }
    assert_eq!(stage.looked_up(), [""; 0]);
    let mut client = captured(&stage.world, &format!("{}:443", synthetic.unwrap())).await;
    let question = stage.questions(1).await.remove(0);
    assert_eq!(question.destination, "a.test:443");
    stage.reply(&question, Reply::Once);
    echoes(&mut client).await;
}
