//! Attempts that ignore the proxy: connections and datagrams straight to the machine, as if there were a network.

use super::super::plan::{Outcome, Plan, Recorded};
use super::super::sinks::GREETING;
use super::gateway::{Ask, ask};
use super::{PATIENCE, Told, hear, reach, refused, shown};
use egret_sandbox::attempts;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

/// Class 11: what is sent by the first instruction.
pub(super) fn first(told: &Told<'_>) {
    for &host in told.plan.hosts.iter().take(1) {
        connect(told, 11, host, "a connection at once");
    }
}

/// Connects straight to a sink.
fn connect(told: &Told<'_>, class: u8, host: IpAddr, what: &str) {
    let to = SocketAddr::new(host, told.port(class));
    told.attempt(class, format!("{what}, {host}"), || {
        (reach(told.plan, class, to), recorded(host, to.port()))
    });
}

/// A connection to loopback stays in the sandbox, and there is nothing to record.
fn recorded(host: IpAddr, port: u16) -> Option<Recorded> {
    (!host.is_loopback()).then_some(Recorded::Port(port))
}

/// Classes 1, 2 and 3.
pub(super) fn direct(told: &Told<'_>) {
    let hosts = &told.plan.hosts;
    for &host in hosts {
        connect(told, 1, host, "a plain connection");
    }
    let Some(&host) = hosts.first() else { return };
    let name = match &told.plan.granted {
        Some(granted) => format!("allowed.{}", granted.zone),
        None => "example.com".into(),
    };
    let to = SocketAddr::new(host, told.port(2));
    told.attempt(2, format!("{name} at {host}"), || {
        let token = told.plan.token(2);
        let request = format!(
            "GET /{token} HTTP/1.1\r\nHost: {name}:{}\r\n\r\n",
            to.port()
        );
        let outcome = TcpStream::connect_timeout(&to, PATIENCE)
            .and_then(|stream| super::talk(stream, request.as_bytes()));
        let outcome = match outcome {
            Ok(heard) if heard.starts_with(GREETING.as_bytes()) => Outcome::Through(shown(&heard)),
            Ok(heard) => Outcome::Refused(shown(&heard)),
            Err(error) => refused(&error),
        };
        (outcome, recorded(host, to.port()))
    });
    told.attempt(3, format!("a relay inside, to {host}"), || {
        let to = SocketAddr::new(host, told.port(3));
        (relayed(told.plan, to), recorded(host, to.port()))
    });
}

/// Asks a relay in here to connect.
fn relayed(plan: &Plan, to: SocketAddr) -> Outcome {
    let run = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let asked = TcpStream::connect(listener.local_addr()?)?;
        let (mut inner, _) = listener.accept()?;
        let outcome = reach(plan, 3, to);
        if let Outcome::Through(_) = outcome {
            inner.write_all(GREETING.as_bytes())?;
        }
        drop((asked, inner));
        Ok(outcome)
    };
    run().unwrap_or_else(|error: std::io::Error| Outcome::Impossible(error.to_string()))
}

/// Class 4, and what of class 20 is an address of this machine.
pub(super) fn machine(told: &Told<'_>) {
    let port = told.port(4);
    for &host in &told.plan.hosts {
        connect(told, 4, host, "straight");
        let authority = SocketAddr::new(host, port).to_string();
        for way in [Ask::Connect, Ask::Forward, Ask::Socks] {
            ask(told, 4, way, &authority);
        }
    }
    // The gateway's own doors. What is connected to them by itself was redirected from nowhere.
    let doors = match told.plan.proxy {
        Some(proxy) => vec![proxy, egret_sandbox::CAPTURE_PORT, egret_sandbox::DNS_PORT],
        None => return,
    };
    for door in doors {
        for address in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            ask(
                told,
                4,
                Ask::Connect,
                &SocketAddr::new(address, door).to_string(),
            );
        }
    }
    told.attempt(4, "the capture port by itself", || {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, egret_sandbox::CAPTURE_PORT));
        (reach(told.plan, 4, to), None)
    });
}

/// Class 6.
pub(super) fn datagrams(told: &Told<'_>) {
    for &host in &told.plan.hosts {
        for (port, what) in [(told.plan.udp, "UDP"), (443, "UDP 443 (QUIC)")] {
            // A service of the machine's may be there; what it would say to a token is not worth asking.
            if port == 443 && host.is_loopback() {
                continue;
            }
            told.attempt(6, format!("{what} to {host}"), || {
                (datagram(told.plan, SocketAddr::new(host, port)), None)
            });
        }
    }
    for address in [
        "224.0.0.251:5353",
        "[ff02::fb]:5353",
        "255.255.255.255:5355",
    ] {
        let Ok(to) = address.parse() else { continue };
        told.attempt(6, format!("UDP to {to}"), || {
            (datagram(told.plan, to), None)
        });
    }
    for attempt in attempts::sockets() {
        told.attempt(6, attempt.what, || (outcome(attempt.refused), None));
    }
}

pub(super) fn outcome(refusal: Option<std::io::Error>) -> Outcome {
    match refusal {
        Some(error) => refused(&error),
        None => Outcome::Through("the kernel lets it in".into()),
    }
}

fn datagram(plan: &Plan, to: SocketAddr) -> Outcome {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let send = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        // A refusal by ICMP is heard of with the next call.
        socket.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
        socket.send(plan.token(6).as_bytes())?;
        let mut heard = [0; 256];
        let length = socket.recv(&mut heard)?;
        std::io::Result::Ok(heard.get(..length).unwrap_or_default().to_vec())
    };
    match send() {
        Ok(heard) if heard.starts_with(GREETING.as_bytes()) => Outcome::Through(shown(&heard)),
        Ok(_) => Outcome::Refused("something in here answers".into()),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Outcome::Sent,
        Err(error) => refused(&error),
    }
}

/// Reads from a stream that has been connected, for others.
pub(super) fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    hear(stream, |_| false)
}
