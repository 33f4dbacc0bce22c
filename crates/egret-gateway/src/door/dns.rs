//! The sandbox's resolver. It answers everything itself and asks nobody.
//!
//! A name that the policy could let through gets a synthetic address ([`crate::names`]); any other name does
//! not exist, and a client that speaks EDNS is told the reason code as well (RFC 8914). A question that
//! arrives here leaves no trace outside, so names cannot be used to carry data away.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use egret_policy::{Denial, Host, Reason};
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::send;
use crate::audit::{Door, Event};
use crate::inspect::http::Input;
use crate::limits::Limit;
use crate::names::Full;
use crate::refused::Refused;
use crate::serving::{Lent, Shut};
use crate::{Gateway, Handshake};

/// Answers questions on `socket`.
pub(crate) async fn serve_udp(gateway: Arc<Gateway>, socket: Lent<UdpSocket>, mut shut: Shut) {
    let mut question = vec![0; UDP];
    let shut = shut.wait();
    tokio::pin!(shut);
    loop {
        let received = tokio::select! {
            received = socket.receive(&mut question) => received,
            () = &mut shut => return,
        };
        match received {
            Ok((length, from)) => {
                let question = question.get(..length).unwrap_or_default();
                #[cfg(feature = "unguarded")]
                forward(&gateway, question);
                if let Some(answer) = answer(&gateway, question) {
                    socket.send(&answer, from);
                }
            }
            // An answer that could not be delivered is reported here (ICMP); anything lasting must not spin.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => tokio::time::sleep(super::BREATH).await,
        }
    }
}

/// What must not be: a question of the sandbox's is asked outside.
#[cfg(feature = "unguarded")]
fn forward(gateway: &Arc<Gateway>, question: &[u8]) {
    let name = Message::from_vec(question).ok();
    let name = name.and_then(|question| {
        question
            .queries
            .first()
            .map(|query| query.name().to_ascii())
    });
    let name: Option<Host> = name.and_then(|name| name.parse().ok());
    if let Some(name) = name.filter(|_| !egret_policy::guard::stands("asking-nobody")) {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.dialler.look_up(&name).await });
    }
}

/// Answers questions on one TCP connection (RFC 7766), each behind its length.
pub(super) async fn serve_tcp(gateway: Arc<Gateway>, stream: TcpStream, handshake: Handshake) {
    // Held to the end: these connections are short, and their number is bounded by this.
    let _handshake = handshake;
    let mut input = Input::default();
    while let Ok(Ok(question)) = timeout(IDLE, framed(&stream, &mut input)).await {
        let Some(mut answer) = answer(&gateway, &question) else {
            return;
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return;
        };
        answer.splice(0..0, length.to_be_bytes());
        if !matches!(timeout(IDLE, send(&stream, &answer)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn framed(stream: &TcpStream, input: &mut Input) -> io::Result<Vec<u8>> {
    loop {
        if let [high, low, rest @ ..] = input.bytes() {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if let Some(question) = rest.get(..length) {
                let question = question.to_vec();
                input.consume(2 + length);
                return Ok(question);
            }
        }
        if input.fill(stream).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The answer to `question`; none for what is no question at all.
pub(crate) fn answer(gateway: &Gateway, question: &[u8]) -> Option<Vec<u8>> {
    let (answer, refused) = match Message::from_vec(question) {
        Ok(question) if question.metadata.message_type == MessageType::Response => return None,
        Ok(question) => reply(gateway, &question),
        Err(_) => (unreadable(question)?, None),
    };
    if let Some((query, denial, limit)) = refused {
        record(gateway, &query, denial, limit);
    }
    answer.to_vec().ok()
}

type Asked = (Query, Denial, Option<Limit>);

fn reply(gateway: &Gateway, question: &Message) -> (Message, Option<Asked>) {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&question.metadata);
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&question.queries);
    let edns = question.edns.is_some();
    if edns {
        let mut ours = Edns::new();
        ours.set_max_payload(1232).set_version(0);
        reply.edns = Some(ours);
    }
    let code = |mut reply: Message, code| {
        reply.metadata.response_code = code;
        (reply, None)
    };
    if question.metadata.op_code != OpCode::Query {
        return code(reply, ResponseCode::NotImp);
    }
    let [query] = question.queries.as_slice() else {
        return code(reply, ResponseCode::FormErr);
    };
    if question
        .edns
        .as_ref()
        .is_some_and(|edns| edns.version() != 0)
    {
        return code(reply, ResponseCode::BADVERS);
    }
    if query.query_class() != DNSClass::IN {
        return code(reply, ResponseCode::Refused);
    }
    match resolve(gateway, query) {
        Ok(data) => {
            reply.metadata.authoritative = true;
            if let Some(data) = data {
                reply.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
            }
            (reply, None)
        }
        Err((denial, limit)) => {
            reply.metadata.response_code = if limit.is_some() {
                ResponseCode::Refused
            } else {
                ResponseCode::NXDomain
            };
            if let Some(edns) = &mut reply.edns {
                edns.options_mut().insert(extended_error(&denial));
            }
            (reply, Some((query.clone(), denial, limit)))
        }
    }
}

/// What `query` is answered with; `None` is a name that has no such record.
fn resolve(gateway: &Gateway, query: &Query) -> Result<Option<RData>, (Denial, Option<Limit>)> {
    let asked = query.name().to_ascii();
    if !gateway.dns_bucket() {
        return Err(limited(Limit::DnsRate, asked));
    }
    let name: Host = match asked.parse() {
        Ok(name) => name,
        Err(_) => {
            return Err((
                Denial::new(
                    Reason::DeniedMalformed,
                    asked,
                    "it is not a host name, or not in one way only",
                ),
                None,
            ));
        }
    };
    let kind = query.query_type();
    if name.as_str() == "localhost" || name.as_str().ends_with(".localhost") {
        return Ok(match kind {
            RecordType::A => Some(RData::A(Ipv4Addr::LOCALHOST.into())),
            RecordType::AAAA => Some(RData::AAAA(Ipv6Addr::LOCALHOST.into())),
            _ => None,
        });
    }
    let matcher = gateway.matcher.load();
    match matcher.knows(&name) {
        // Somebody is asked about it once it is connected to.
        Err(denial) if gateway.asking.is_some() && denial.reason() == Reason::DeniedDefault => {}
        known => known.map_err(|denial| (denial, None))?,
    }
    match kind {
        RecordType::A => match gateway.names.address_of(&name) {
            Ok(address) => Ok(Some(RData::A(address.into()))),
            Err(Full) => Err(limited(Limit::Names, asked)),
        },
        _ => Ok(None),
    }
}

fn limited(limit: Limit, asked: String) -> (Denial, Option<Limit>) {
    (
        Denial::new(Reason::DeniedLimit, asked, limit.message()),
        Some(limit),
    )
}

/// RFC 8914: code 15 (Blocked), or 18 (Prohibited) for a limit, with the reason code as text.
fn extended_error(denial: &Denial) -> EdnsOption {
    let code: u16 = if denial.reason() == Reason::DeniedLimit {
        18
    } else {
        15
    };
    let mut option = code.to_be_bytes().to_vec();
    option.extend_from_slice(denial.reason().code().as_bytes());
    EdnsOption::Unknown(EXTENDED_ERROR, option)
}

/// A message that cannot be read is answered if at least its header is there.
fn unreadable(question: &[u8]) -> Option<Message> {
    let &[a, b, flags, _, _, _, _, _, _, _, _, _, ..] = question else {
        return None;
    };
    let is_response = flags & 0x80 != 0;
    let id = u16::from_be_bytes([a, b]);
    (!is_response).then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
}

/// Counts a refused question, and records it if it is the first about its name. Does not wait for the log: the
/// next question is waiting, and nothing passes with this one.
fn record(gateway: &Gateway, query: &Query, denial: Denial, limit: Option<Limit>) {
    let name = denial.destination();
    gateway.summary.count(name.clone(), &denial);
    if !gateway.first_asked(&name, denial.reason()) || !gateway.may_record() {
        return;
    }
    let refused = match limit {
        Some(limit) => Refused::Limit { limit, denial },
        None => Refused::Denied(denial),
    };
    let mut record = gateway
        .record(Event::Dns, &gateway.log.id())
        .door(Door::Dns)
        .refused(&refused);
    record.host = Some(name);
    record.query = Some(query.query_type().to_string());
    gateway.log.note(&record);
}

/// The largest UDP question that is read.
const UDP: usize = 4 << 10;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Seconds an answer may be kept. Short, since a reload may take a name away.
const TTL: u32 = 5;
/// The option code of RFC 8914.
const EXTENDED_ERROR: u16 = 15;
