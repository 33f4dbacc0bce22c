//! What Egret asks of the kernel, counted: a check of speed that a busy machine does not disturb.
//!
//! Each scenario drives a real gateway one step at a time: nothing is sent before the gateway has come to rest after what
//! was sent before, so that the same happens in the same order each time, and a connection costs the same number of system
//! calls as the one before it. How many of which, and for what reason each of them is there, is in
//! `costs/system-calls.txt`. More than that fails, as a cost that somebody should know of; fewer fail too, so that the
//! table stays true. `./x costs` shows what was counted.
//!
//! The client is this very process, in the sandbox's network, and so are the servers, outside.

mod table;
mod trace;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use rustls::pki_types::ServerName;

use crate::world::{User, World, at};
use table::{Counts, check};
use trace::{Call, Trace, now, settle};

#[test]
fn connections_cost_the_system_calls_that_are_written_down() {
    let world = World::new();
    let stage = Stage {
        server: world.outside.listen(SERVER.parse().unwrap()),
        names: world.outside.bind_udp(NAMES.parse().unwrap()),
    };
    let live = world
        .run_as(User::Alice)
        .resolver(NAMES)
        .args(&[
            "--allow",
            "known.example.com:7000",
            "--allow",
            "fresh.example.com:7000",
        ])
        .start(&["sleep", "1000"]);
    let tree = Tree::below(live.child.id());
    let inside = File::open(format!("/proc/{}/ns/net", tree.program)).unwrap();
    let trace = Trace::attach(&tree.egret);
    let seen = std::thread::scope(|scope| {
        let drive = || {
            setns(inside, CloneFlags::CLONE_NEWNET).unwrap();
            stage.drive(tree.gateway)
        };
        scope.spawn(drive).join().unwrap()
    });
    let calls = trace.detach();
    drop(live);

    let mut wrong = Vec::new();
    for Seen { scenario, spans } in seen {
        match typical(&calls, &spans) {
            Ok((counts, calls)) => {
                eprintln!("{}", shown(scenario, &counts));
                if let Err(why) = check(scenario, &counts) {
                    let many = if spans.len() > 1 { calls.len() } else { 0 };
                    let lines = calls.iter().take(many).map(|call| call.line.as_str());
                    let lines = lines.collect::<Vec<_>>().join("\n    ");
                    wrong.push(format!("{why}\nSo strace saw it:\n    {lines}"));
                }
            }
            Err(why) => wrong.push(format!("`{scenario}` is not the same each time: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn starting_costs_the_system_calls_that_are_written_down() {
    let world = World::new();
    let output = world.machine.path("/tmp/trace");
    let outcome = world
        .run_as(User::Alice)
        .through(&["strace", "-f", "-ttt", "-o", "/tmp/trace"])
        .program(&["true"])
        .ok();
    assert_eq!(outcome.stdout, "");
    let text = std::fs::read_to_string(output).unwrap();
    let calls = trace::calls(&text);
    // `clone3` keeps its flags behind a pointer, which strace looks behind.
    let made = |threads: bool| {
        let clones = calls.iter().filter(|call| {
            ["clone", "fork", "vfork", "clone3"].contains(&call.name.as_str())
                && call.line.contains("CLONE_THREAD") == threads
        });
        clones.count() as u64
    };
    let counts = Counts::from([
        ("any call".into(), calls.len() as u64),
        ("new thread".into(), made(true)),
        ("new process".into(), made(false)),
    ]);
    let mut by_call = Counts::new();
    for call in &calls {
        let call = call.name.split(' ').next().unwrap();
        *by_call.entry(call.to_owned()).or_default() += 1;
    }
    println!(
        "{}{}",
        shown("start", &counts),
        shown("call by call", &by_call)
    );
    check("start", &counts).unwrap_or_else(|why| panic!("{why}"));
}

/// What the client and the servers have in hand.
struct Stage {
    server: TcpListener,
    names: UdpSocket,
}

/// When a scenario was played.
struct Seen {
    scenario: &'static str,
    spans: Vec<(u128, u128)>,
}

impl Stage {
    fn drive(&self, gateway: u32) -> Vec<Seen> {
        let rest = || settle(gateway);
        let play = |scenario: &'static str, step: &dyn Fn()| {
            // What is made once, such as room for tasks, is there after a few.
            for _ in 0..WARM_UP {
                step();
            }
            let span = || {
                rest();
                let start = now();
                step();
                rest();
                (start, now())
            };
            Seen {
                scenario,
                spans: (0..TIMES).map(|_| span()).collect(),
            }
        };
        let mut seen = Vec::new();

        // The first one has to ask for the address.
        let first = TcpStream::connect(PROXY).unwrap();
        (&first).write_all(&connect("known.example.com")).unwrap();
        self.tell(3600, &rest);
        drop(self.server.accept().unwrap());
        drop(first);

        seen.push(play("tunnel", &|| {
            let (client, server) = self.tunnel("known.example.com", &rest);
            echo(&client, &server, &rest);
            part(client, server, &rest);
        }));
        seen.push(play("tunnel-resolved", &|| {
            let client = TcpStream::connect(PROXY).unwrap();
            rest();
            (&client).write_all(&connect("fresh.example.com")).unwrap();
            self.tell(0, &rest);
            let server = self.accept();
            granted(&client);
            rest();
            echo(&client, &server, &rest);
            part(client, server, &rest);
        }));
        seen.push(play("refused", &|| {
            let client = TcpStream::connect(PROXY).unwrap();
            rest();
            (&client)
                .write_all(&connect("nowhere.example.com"))
                .unwrap();
            let answer = read_all(&client);
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
            rest();
        }));
        seen.push(play("socks", &|| {
            let client = TcpStream::connect(PROXY).unwrap();
            rest();
            (&client).write_all(b"\x05\x01\x00").unwrap();
            read(&client, 2);
            rest();
            let name = b"known.example.com";
            let mut request = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
            request.extend(name);
            request.extend(PORT.to_be_bytes());
            (&client).write_all(&request).unwrap();
            let server = self.accept();
            assert_eq!(read(&client, 10)[1], 0);
            rest();
            echo(&client, &server, &rest);
            part(client, server, &rest);
        }));
        let question = question("known.example.com");
        let resolver = UdpSocket::bind("0.0.0.0:0").unwrap();
        resolver.connect("8.8.8.8:53").unwrap();
        let ask = || {
            let mut answer = [0; 512];
            resolver.send(&question).unwrap();
            let length = resolver.recv(&mut answer).unwrap();
            <[u8; 4]>::try_from(&answer[length - 4..length]).unwrap()
        };
        seen.push(play("dns", &|| {
            ask();
        }));
        let stands_for = SocketAddr::from((Ipv4Addr::from(ask()), PORT));
        seen.push(play("captured", &|| {
            let client = TcpStream::connect(stands_for).unwrap();
            rest();
            (&client).write_all(WORDS).unwrap();
            let server = self.accept();
            read(&server, WORDS.len());
            rest();
            echo(&client, &server, &rest);
            part(client, server, &rest);
        }));
        let hello = client_hello("known.example.com");
        seen.push(play("captured-tls", &|| {
            let client = TcpStream::connect(stands_for).unwrap();
            rest();
            (&client).write_all(&hello).unwrap();
            let server = self.accept();
            assert_eq!(read(&server, hello.len()), hello);
            rest();
            echo(&client, &server, &rest);
            part(client, server, &rest);
        }));
        {
            let client = TcpStream::connect(PROXY).unwrap();
            let request = b"GET http://known.example.com:7000/x HTTP/1.1\r\nHost: known.example.com:7000\r\n\r\n";
            (&client).write_all(request).unwrap();
            let server = self.accept();
            let exchange = || {
                let head = read_head(&server);
                assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
                rest();
                (&server)
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
                    .unwrap();
                let head = read_head(&client);
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                read(&client, 6);
                rest();
            };
            exchange();
            seen.push(play("request", &|| {
                (&client).write_all(request).unwrap();
                exchange();
            }));
        }
        let (client, server) = self.tunnel("known.example.com", &rest);
        echo(&client, &server, &rest);
        seen.push(play("echo", &|| echo(&client, &server, &rest)));
        let start = now();
        std::thread::sleep(IDLE);
        seen.push(Seen {
            scenario: "idle",
            spans: vec![(start, now())],
        });
        let through = |from: &TcpStream, to: &TcpStream| {
            let mebibyte = vec![7; 1 << 20];
            rest();
            let start = now();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    (0..MEBIBYTES).for_each(|_| {
                        let mut from = from;
                        from.write_all(&mebibyte).unwrap();
                    });
                });
                for _ in 0..MEBIBYTES {
                    read(to, 1 << 20);
                }
            });
            rest();
            (start, now())
        };
        seen.push(Seen {
            scenario: "download",
            spans: vec![through(&server, &client)],
        });
        seen.push(Seen {
            scenario: "upload",
            spans: vec![through(&client, &server)],
        });
        part(client, server, &rest);
        seen
    }

    /// A tunnel to a name whose address is known.
    fn tunnel(&self, name: &str, rest: &impl Fn()) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(PROXY).unwrap();
        rest();
        (&client).write_all(&connect(name)).unwrap();
        let server = self.accept();
        granted(&client);
        rest();
        (client, server)
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.server.accept().unwrap();
        stream
    }

    /// Answers the two questions about a name, in their order: an address, good for `ttl` seconds, and that there is no
    /// address of IPv6.
    fn tell(&self, ttl: u32, rest: &impl Fn()) {
        let mut questions = [(); 2].map(|()| {
            let mut question = vec![0; 512];
            let (length, from) = self.names.recv_from(&mut question).unwrap();
            question.truncate(length);
            (question, from)
        });
        // The record's type stands behind the name, in front of its class.
        let kind = |question: &[u8]| question[end_of_name(question) + 1];
        questions.sort_by_key(|(question, _)| kind(question));
        for (question, from) in questions {
            rest();
            let has = u8::from(kind(&question) == 1);
            let mut answer = question[..end_of_name(&question) + 4].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, has, 0, 0, 0, 0]);
            if has == 1 {
                answer.extend([0xc0, 12, 0, 1, 0, 1]);
                answer.extend(ttl.to_be_bytes());
                answer.extend([0, 4]);
                answer.extend(at::PUBLIC.parse::<Ipv4Addr>().unwrap().octets());
            }
            self.names.send_to(&answer, from).unwrap();
        }
    }
}

fn connect(name: &str) -> Vec<u8> {
    format!("CONNECT {name}:{PORT} HTTP/1.1\r\nHost: {name}:{PORT}\r\n\r\n").into_bytes()
}

fn granted(client: &TcpStream) {
    let head = read_head(client);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

/// A few octets there and back.
fn echo(client: &TcpStream, server: &TcpStream, rest: &impl Fn()) {
    for (mut from, to) in [(client, server), (server, client)] {
        from.write_all(WORDS).unwrap();
        read(to, WORDS.len());
        rest();
    }
}

/// The client ends the connection, and the server does when it hears of it.
fn part(client: TcpStream, server: TcpStream, rest: &impl Fn()) {
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&server), "");
    rest();
    drop(server);
    assert_eq!(read_all(&client), "");
    rest();
}

fn read(mut stream: &TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn read_head(stream: &TcpStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(read(stream, 1)[0]));
    }
    head
}

fn read_all(mut stream: &TcpStream) -> String {
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    all
}

/// A DNS question for an IPv4 address.
fn question(name: &str) -> Vec<u8> {
    let mut message = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.extend(b"\x00\x00\x01\x00\x01");
    message
}

/// Where the name ends that a DNS message asks for.
fn end_of_name(message: &[u8]) -> usize {
    12 + message[12..].iter().position(|&octet| octet == 0).unwrap() + 1
}

fn client_hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// The processes of a run.
struct Tree {
    /// Those that are Egret.
    egret: Vec<u32>,
    /// The thread in which the gateway works.
    gateway: u32,
    program: u32,
}

impl Tree {
    /// The run that begins with this process, once its program has started.
    fn below(first: u32) -> Tree {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            let mut all = vec![first];
            let mut at = 0;
            while let Some(&process) = all.get(at) {
                for thread in threads(process) {
                    all.extend(numbers(&format!("/proc/{process}/task/{thread}/children")));
                }
                at += 1;
            }
            let (program, egret): (Vec<_>, _) = all
                .into_iter()
                .partition(|process| comm(&format!("/proc/{process}")) == "sleep");
            let gateway = threads(first)
                .into_iter()
                .find(|thread| comm(&format!("/proc/{first}/task/{thread}")) == "gateway");
            if let (Some(gateway), [program]) = (gateway, program.as_slice()) {
                return Tree {
                    egret,
                    gateway,
                    program: *program,
                };
            }
            assert!(Instant::now() < limit, "the program has not started");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn threads(process: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.into_iter().flatten().flatten();
    threads
        .filter_map(|thread| thread.file_name().to_str()?.parse().ok())
        .collect()
}

fn numbers(file: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect()
}

fn comm(process: &str) -> String {
    let comm = std::fs::read_to_string(Path::new(process).join("comm"));
    comm.unwrap_or_default().trim().to_owned()
}

/// What a scenario did, and the calls of one of its repetitions: not of each, as timers go off in some.
fn typical<'c>(
    calls: &'c [Call],
    spans: &[(u128, u128)],
) -> Result<(Counts, Vec<&'c Call>), String> {
    let mut kinds: BTreeMap<Counts, (usize, Vec<&Call>)> = BTreeMap::new();
    for (start, end) in spans {
        let calls = calls.iter().filter(|call| (start..end).contains(&&call.at));
        let calls: Vec<_> = calls.collect();
        let mut counts = Counts::new();
        for call in &calls {
            *counts.entry(call.name.clone()).or_default() += 1;
        }
        if spans.len() > 1 {
            // Whether the runtime wakes itself for a timer depends on whether some other goes off before it.
            counts.remove("write eventfd");
        }
        kinds.entry(counts).or_insert((0, calls)).0 += 1;
    }
    let most = kinds.iter().max_by_key(|(_, (often, _))| *often);
    let (counts, (often, calls)) = most.ok_or("it was not played")?;
    if often * 2 < spans.len() {
        let kinds = kinds
            .iter()
            .map(|(counts, (often, _))| format!("{often} times {counts:?}"));
        return Err(kinds.collect::<Vec<_>>().join("\n"));
    }
    Ok((counts.clone(), calls.clone()))
}

fn shown(scenario: &str, counts: &Counts) -> String {
    let all: u64 = counts.values().sum();
    let rows = counts
        .iter()
        .map(|(call, count)| format!("{count:8}  {call}\n"));
    format!("{scenario}: {all}\n{}", rows.collect::<String>())
}

const PROXY: &str = "127.0.0.1:61081";
const PORT: u16 = 7000;
const SERVER: &str = "93.184.216.34:7000";
/// A name server that answers when it suits the scenario.
const NAMES: &str = "10.20.0.54:53";
/// The end of the line says that it is nobody's request.
const WORDS: &[u8] = b"sixty-four octets of a protocol that Egret has never heard of..\n";
const WARM_UP: u32 = 3;
const TIMES: u32 = 20;
const IDLE: Duration = Duration::from_secs(10);
const MEBIBYTES: u64 = 64;
