//! The sandbox's resolver.

use hickory_proto::op::{Edns, MessageType, OpCode, Query};
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

use super::*;

const POLICY: &str = "allow: [api.example.com, '*.wild.example']
deny: [no.wild.example]";

pub(super) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.parse().unwrap(), kind));
    message
}

async fn ask_raw(world: &World, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    socket.send_to(bytes, world.dns).await.unwrap();
    let mut buffer = [0; 4096];
    let (length, from) = in_time(socket.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(from, world.dns);
    Message::from_vec(&buffer[..length]).unwrap()
}

pub(super) async fn ask(world: &World, message: &Message) -> Message {
    let answer = ask_raw(world, &message.to_vec().unwrap()).await;
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.queries, message.queries);
    answer
}

pub(super) fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect()
}

#[tokio::test]
async fn names_exist_as_far_as_the_policy_lets_them() {
    let world = World::new(POLICY).await;
    #[rustfmt::skip]
    let table = [
        ("api.example.com.",         RecordType::A,     ResponseCode::NoError,  1),
        ("API.Example.COM.",         RecordType::A,     ResponseCode::NoError,  1),
        ("api.example.com.",         RecordType::AAAA,  ResponseCode::NoError,  0),
        ("api.example.com.",         RecordType::HTTPS, ResponseCode::NoError,  0),
        ("api.example.com.",         RecordType::SVCB,  ResponseCode::NoError,  0),
        ("api.example.com.",         RecordType::TXT,   ResponseCode::NoError,  0),
        ("api.example.com.",         RecordType::MX,    ResponseCode::NoError,  0),
        ("api.example.com.",         RecordType::SRV,   ResponseCode::NoError,  0),
        ("api.example.com.",         RecordType::ANY,   ResponseCode::NoError,  0),
        ("a.wild.example.",          RecordType::A,     ResponseCode::NoError,  1),
        ("no.wild.example.",         RecordType::A,     ResponseCode::NXDomain, 0),
        ("example.com.",             RecordType::A,     ResponseCode::NXDomain, 0),
        ("c2VjcmV0.evil.example.",   RecordType::TXT,   ResponseCode::NXDomain, 0),
        ("host.docker.internal.",    RecordType::A,     ResponseCode::NXDomain, 0),
        ("metadata.google.internal.",RecordType::A,     ResponseCode::NXDomain, 0),
        ("localhost.",               RecordType::A,     ResponseCode::NoError,  1),
        ("a.localhost.",             RecordType::AAAA,  ResponseCode::NoError,  1),
        ("1.0.0.127.in-addr.arpa.",  RecordType::PTR,   ResponseCode::NXDomain, 0),
        ("_x._tcp.example.com.",     RecordType::SRV,   ResponseCode::NXDomain, 0),
        (".",                        RecordType::NS,    ResponseCode::NXDomain, 0),
    ];
    for (name, kind, code, count) in table {
        let answer = ask(&world, &question(name, kind)).await;
        assert_eq!(
            (answer.metadata.response_code, answer.answers.len()),
            (code, count),
            "{name} {kind}"
        );
        assert!(answer.metadata.recursion_available);
    }
    let one = addresses(&ask(&world, &question("api.example.com.", RecordType::A)).await);
    assert_eq!(
        one,
        addresses(&ask(&world, &question("aPi.example.com.", RecordType::A)).await)
    );
    assert!(one[0].to_string().starts_with("198.18."));
    assert_ne!(
        one,
        addresses(&ask(&world, &question("b.wild.example.", RecordType::A)).await)
    );
}

#[tokio::test]
async fn a_refusal_says_why_to_those_who_speak_edns_and_is_recorded_once() {
    let world = World::new(POLICY).await;
    let mut message = question("evil.example.", RecordType::A);
    message.set_edns(Edns::new());
    for _ in 0..3 {
        let answer = ask(&world, &message).await;
        let edns = answer.edns.unwrap();
        let Some(EdnsOption::Unknown(15, error)) = edns.option(EdnsCode::from(15)) else {
            panic!("{edns:?}")
        };
        assert_eq!(error, b"\x00\x0fdenied.default");
    }
    let plain = ask(&world, &question("evil.example.", RecordType::A)).await;
    assert!(plain.edns.is_none());
    let records: Vec<_> = world
        .records()
        .into_iter()
        .filter(|record| record.event == Event::Dns)
        .collect();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (records[0].host.as_deref(), records[0].query.as_deref()),
        (Some("evil.example"), Some("A"))
    );
    assert_eq!(world.gateway.refusals()[0].count, 4);
}

#[tokio::test]
async fn what_is_no_proper_question_gets_the_fitting_error() {
    let world = World::new(POLICY).await;
    let mut two = question("api.example.com.", RecordType::A);
    two.add_query(Query::query("b.example.".parse().unwrap(), RecordType::A));
    let mut none = Message::query();
    none.queries.clear();
    let mut status = question("api.example.com.", RecordType::A);
    status.metadata.op_code = OpCode::Status;
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut future = question("api.example.com.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    future.set_edns(edns);
    #[rustfmt::skip]
    let table = [
        (two,    ResponseCode::FormErr),
        (none,   ResponseCode::FormErr),
        (status, ResponseCode::NotImp),
        (chaos,  ResponseCode::Refused),
        (future, ResponseCode::BADVERS),
    ];
    for (message, code) in table {
        let bytes = message.to_vec().unwrap();
        let answered = ask_raw(&world, &bytes).await.metadata.response_code;
        assert_eq!(u16::from(answered), u16::from(code), "{message:?}");
    }
    let cut = question("api.example.com.", RecordType::A)
        .to_vec()
        .unwrap();
    assert_eq!(
        ask_raw(&world, &cut[..15]).await.metadata.response_code,
        ResponseCode::FormErr
    );
    // An answer is not answered, nor is a stump; the next question is.
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    let mut response = question("api.example.com.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    socket
        .send_to(&response.to_vec().unwrap(), world.dns)
        .await
        .unwrap();
    socket.send_to(b"\0\0\0", world.dns).await.unwrap();
    ask(&world, &question("api.example.com.", RecordType::A)).await;
    assert!(socket.try_recv_from(&mut [0; 512]).is_err());
}

#[tokio::test]
async fn tcp_carries_several_questions_split_as_it_likes() {
    let world = World::new(POLICY).await;
    let mut stream = TcpStream::connect(world.dns).await.unwrap();
    let mut bytes = Vec::new();
    for name in ["api.example.com.", "evil.example."] {
        let message = question(name, RecordType::A).to_vec().unwrap();
        bytes.extend_from_slice(&(message.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&message);
    }
    for byte in bytes {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
        let length = in_time(stream.read_u16()).await.unwrap();
        let mut answer = vec![0; length.into()];
        in_time(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(
            Message::from_vec(&answer).unwrap().metadata.response_code,
            code
        );
    }
}

#[tokio::test]
async fn names_and_questions_are_bounded() {
    let limits = Limits {
        names: 2,
        dns_per_second: 5,
        ..Limits::default()
    };
    let world = World::with(
        POLICY,
        With {
            limits,
            ..With::default()
        },
    )
    .await;
    for (name, code) in [
        ("a", ResponseCode::NoError),
        ("b", ResponseCode::NoError),
        ("c", ResponseCode::Refused),
        ("a", ResponseCode::NoError),
    ] {
        let answer = ask(
            &world,
            &question(&format!("{name}.wild.example."), RecordType::A),
        )
        .await;
        assert_eq!(answer.metadata.response_code, code, "{name}");
    }
    world
        .record(|record| record.limit.as_deref() == Some("names"))
        .await;
    for _ in 0..4 {
        ask(&world, &question("a.wild.example.", RecordType::A)).await;
    }
    world
        .record(|record| record.limit.as_deref() == Some("dns_rate"))
        .await;
}
