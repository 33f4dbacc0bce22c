//! A name server that says what a test tells it to, and remembers what it was asked.
//!
//! It answers over UDP and TCP. What it is not told about does not exist (NXDOMAIN).

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::machine::Machine;
use super::servers::Listening;

/// A scripted name server.
pub(crate) struct Dns {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tcp: Listening,
}

/// What the server says to one question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These records, as far as their type was asked for.
    Records(Vec<Data>),
    /// No such name.
    NxDomain,
    /// The server failed.
    ServFail,
    /// Nothing at all.
    Silence,
    /// The same, later.
    After(Duration, Box<Reply>),
    /// Over UDP nothing but the sign that the answer is too long; over TCP these records.
    Truncated(Vec<Data>),
    /// Bytes that are no answer.
    Garbage,
}

/// The data of one record. Every record has a TTL of 0.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Address(IpAddr),
    Cname(String),
    /// All that is below the name is below this one instead. The alias that a server says as well is another record.
    Dname(String),
}

/// A question that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) kind: u16,
}

#[derive(Default)]
struct State {
    script: HashMap<String, Vec<Reply>>,
    asked: HashMap<(String, u16), usize>,
    queries: Vec<Query>,
}

impl Dns {
    /// Starts a server on `machine`.
    pub(crate) fn start(machine: &Machine, address: SocketAddr) -> Dns {
        let state = Arc::new(Mutex::new(State::default()));
        let (udp, tcp) = (machine.bind_udp(address), machine.listen(address));
        let held = Arc::downgrade(&state);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            udp.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            loop {
                let got = udp.recv_from(&mut buffer);
                let Some(state) = held.upgrade() else { return };
                let Ok((length, client)) = got else { continue };
                let (udp, question) = (udp.try_clone().unwrap(), buffer[..length].to_vec());
                // Each question has its own thread, so that a slow answer delays no other.
                std::thread::spawn(move || {
                    if let Some(answer) = answer(&state, &question, false) {
                        let _ = udp.send_to(&answer, client);
                    }
                });
            }
        });
        let held = Arc::clone(&state);
        let tcp = Listening::on(tcp, move |stream| serve_tcp(&held, stream));
        Dns {
            address,
            state,
            _tcp: tcp,
        }
    }

    /// Says `addresses` whenever `name` is asked for.
    pub(crate) fn answer(&self, name: &str, addresses: &[&str]) -> &Dns {
        self.script(name, vec![Reply::records(addresses)])
    }

    /// Says `target` is the canonical name of `name`.
    pub(crate) fn cname(&self, name: &str, target: &str) -> &Dns {
        self.script(name, vec![Reply::Records(vec![Data::Cname(target.into())])])
    }

    /// Gives the replies one after the other, per record type; the last is repeated.
    pub(crate) fn script(&self, name: &str, replies: Vec<Reply>) -> &Dns {
        self.state
            .lock()
            .unwrap()
            .script
            .insert(name.to_ascii_lowercase(), replies);
        self
    }

    /// What was asked since the last [`Dns::forget`].
    pub(crate) fn queries(&self) -> Vec<Query> {
        self.state.lock().unwrap().queries.clone()
    }

    /// Forgets the questions so far, and starts scripts over.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock().unwrap();
        state.queries.clear();
        state.asked.clear();
    }
}

impl Reply {
    /// The reply that holds these addresses.
    pub(crate) fn records(addresses: &[&str]) -> Reply {
        Reply::Records(
            addresses
                .iter()
                .map(|address| Data::Address(address.parse().unwrap()))
                .collect(),
        )
    }
}

fn serve_tcp(state: &Mutex<State>, mut stream: TcpStream) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut question).is_err() {
            return;
        }
        let Some(answer) = answer(state, &question, true) else {
            return;
        };
        let mut framed = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(answer);
        if stream.write_all(&framed).is_err() {
            return;
        }
    }
}

/// The message (RFC 1035, section 4) to send back, if one is to be sent.
fn answer(state: &Mutex<State>, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let (name, end) = read_name(question)?;
    let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
    let mut reply = {
        let mut state = state.lock().unwrap();
        state.queries.push(Query {
            name: name.clone(),
            kind,
        });
        let turn = *state
            .asked
            .entry((name.clone(), kind))
            .and_modify(|n| *n += 1)
            .or_insert(0);
        let replies = state.script.get(&name);
        replies
            .and_then(|all| all.get(turn).or(all.last()))
            .cloned()
            .unwrap_or(Reply::NxDomain)
    };
    while let Reply::After(delay, then) = reply {
        std::thread::sleep(delay);
        reply = *then;
    }
    let (code, records, truncated) = match reply {
        Reply::Records(records) => (0, records, false),
        Reply::Truncated(records) if tcp => (0, records, false),
        Reply::Truncated(_) => (0, Vec::new(), true),
        Reply::NxDomain => (3, Vec::new(), false),
        Reply::ServFail => (2, Vec::new(), false),
        Reply::Garbage => return Some(b"\xde\xad\xbe\xef no".to_vec()),
        Reply::Silence | Reply::After(..) => return None,
    };

    let mut answers = Vec::new();
    let (mut owner, mut records) = (name, records);
    // Aliases are followed here, as a recursive server does.
    for _ in 0..16 {
        let mut next = None;
        for record in &records {
            match record {
                Data::Address(IpAddr::V4(address)) if kind == A => {
                    push(&mut answers, &owner, A, &address.octets())
                }
                Data::Address(IpAddr::V6(address)) if kind == AAAA => {
                    push(&mut answers, &owner, AAAA, &address.octets());
                }
                Data::Address(_) => {}
                Data::Dname(target) => push(&mut answers, &owner, DNAME, &write_name(target)),
                Data::Cname(target) => {
                    push(&mut answers, &owner, CNAME, &write_name(target));
                    next = Some(target.clone());
                }
            }
        }
        let Some(target) = next else { break };
        records = match state
            .lock()
            .unwrap()
            .script
            .get(&target)
            .and_then(|replies| replies.first())
        {
            Some(Reply::Records(records)) => records.clone(),
            _ => break,
        };
        owner = target;
    }

    let mut message = question.get(..2)?.to_vec();
    message.extend([
        0x80 | (question.get(2)? & 1) | if truncated { 2 } else { 0 },
        0x80 | code,
        0,
        1,
    ]);
    message.extend(u16::try_from(answers.len()).unwrap().to_be_bytes());
    message.extend([0, 0, 0, 0]);
    message.extend(question.get(12..end + 4)?);
    message.extend(answers.concat());
    Some(message)
}

fn push(answers: &mut Vec<Vec<u8>>, owner: &str, kind: u16, data: &[u8]) {
    let mut record = write_name(owner);
    record.extend(kind.to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 0]);
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    answers.push(record);
}

/// The name in the question, in lower case, and where it ends.
fn read_name(message: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join(".").to_ascii_lowercase(), at));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).into_owned());
        at += length;
    }
}

fn write_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}

pub(crate) const A: u16 = 1;
const CNAME: u16 = 5;
const DNAME: u16 = 39;
pub(crate) const AAAA: u16 = 28;
