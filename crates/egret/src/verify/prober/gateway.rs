//! Attempts by way of the gateway: what may not be asked of it.

use super::super::plan::{Outcome, Recorded};
use super::super::sinks::GREETING;
use super::{PATIENCE, SHUT, Told, hear, in_words, shown};
use egret_policy::Reason;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A way to ask for a destination.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Connect,
    Forward,
    Socks,
}

/// The machine, by the name that is opened for the prober.
pub(super) const MACHINE: &str = "host.docker.internal";

/// Asks the gateway for `authority`, which is `HOST:PORT` or meant to look like it.
pub(super) fn ask(told: &Told<'_>, class: u8, way: Ask, authority: &str) {
    let Some(proxy) = told.plan.proxy else { return };
    let token = told.plan.token(class);
    let what = match way {
        Ask::Connect => format!("CONNECT {authority}"),
        Ask::Forward => format!("GET http://{authority}/"),
        Ask::Socks => format!("SOCKS5 {authority}"),
    };
    told.attempt(class, printable(&what), || {
        let asked = match way {
            Ask::Connect => format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes(),
            Ask::Forward => format!("GET http://{authority}/{token} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n").into_bytes(),
            Ask::Socks => match socks_request(authority) {
                Some(request) => request,
                None => return (Outcome::NotMeant("it has no form in SOCKS".into()), None),
            },
        };
        judge(say(proxy, &[&asked], is_whole), way)
    });
}

/// Whether what was heard of a proxy says all there is to know.
fn is_whole(heard: &[u8]) -> bool {
    let text = String::from_utf8_lossy(heard);
    text.contains(GREETING) || (heard.first() == Some(&5) && heard.len() >= 12)
}

/// What a gateway's answer means. It refuses in words: what it does not answer, or has too much to do for, it did not decide.
pub(super) fn judge(heard: io::Result<Vec<u8>>, way: Ask) -> (Outcome, Option<Recorded>) {
    let heard = match &heard {
        Ok(heard) if !heard.is_empty() => heard.as_slice(),
        Ok(_) => {
            return (
                Outcome::Impossible("the gateway gave no answer".into()),
                None,
            );
        }
        Err(error) => {
            let why = format!("the gateway gave no answer: {}", in_words(error));
            return (Outcome::Impossible(why), None);
        }
    };
    let text = String::from_utf8_lossy(heard);
    if text.contains(GREETING) {
        return (Outcome::Through(shown(heard)), None);
    }
    if let Ask::Socks = way {
        return match heard {
            [5, 0, 5, 0, ..] => (Outcome::Through("the reply is success".into()), None),
            [5, 0, 5, reply, ..] => (Outcome::Refused(format!("reply {reply}")), None),
            _ => (Outcome::Refused("closed".into()), None),
        };
    }
    if text.starts_with("HTTP/1.1 2") {
        return (Outcome::Through(shown(heard)), None);
    }
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
    let body: Option<serde_json::Value> = body.and_then(|body| serde_json::from_str(body).ok());
    let word = |key: &str| Some(body.as_ref()?.get(key)?.as_str()?.to_owned());
    let how = match word("reason") {
        Some(reason) if reason == Reason::DeniedLimit.code() => {
            return (Outcome::Impossible(reason), None);
        }
        Some(reason) => reason,
        None => shown(heard),
    };
    (Outcome::Refused(how), word("id").map(Recorded::Id))
}

/// A SOCKS5 greeting and request (RFC 1928) for `HOST:PORT`.
fn socks_request(authority: &str) -> Option<Vec<u8>> {
    let (host, port) = authority.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let mut request = vec![5, 1, 0, 5, 1, 0];
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(3);
            request.push(u8::try_from(host.len()).ok()?);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Some(request)
}

/// Says `parts` to the proxy, one after the other, and returns what comes back until it ends or is `enough`.
pub(super) fn say(
    proxy: u16,
    parts: &[&[u8]],
    enough: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    let mut stream = open(proxy)?;
    for part in parts {
        // Whoever has refused already has said why.
        if stream.write_all(part).is_err() {
            break;
        }
    }
    hear(&mut stream, enough)
}

pub(super) fn open(proxy: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy));
    let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| {
        let why = format!("the gateway takes no connection: {error}");
        io::Error::new(SHUT, why)
    })?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Classes 15, 18 to 22: destinations that are no names.
pub(super) fn addresses(told: &Told<'_>) {
    ask(
        told,
        15,
        Ask::Connect,
        &format!("198.51.100.7:{}", told.port(15)),
    );
    let port = told.port(18);
    let v4: Vec<Ipv4Addr> = told
        .plan
        .hosts
        .iter()
        .filter_map(|host| match host {
            IpAddr::V4(host) => Some(*host),
            IpAddr::V6(_) => None,
        })
        .collect();
    for address in [Ipv4Addr::LOCALHOST].iter().chain(v4.first()) {
        let number = u32::from(*address);
        let [a, b, c, d] = address.octets();
        for host in [
            number.to_string(),
            format!("{number:#x}"),
            format!("0{number:o}"),
            format!("{a}.{}", number & 0xff_ffff),
            format!("{a:#x}.{b}.{c}.{d}"),
            format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
            format!("{a}.{b}.{c}.{d}."),
        ] {
            for way in [Ask::Connect, Ask::Socks] {
                ask(told, 18, way, &format!("{host}:{port}"));
            }
        }
    }
    let port = told.port(19);
    for address in [Ipv4Addr::LOCALHOST].iter().chain(v4.first()) {
        let [a, b, c, d] = address.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for host in [
            format!("::ffff:{address}"),
            format!("::{address}"),
            format!("::ffff:0:{address}"),
            format!("64:ff9b::{address}"),
            format!("64:ff9b:1::{address}"),
            format!("2002:{high:x}:{low:x}::1"),
            format!("2001:0:{high:x}:{low:x}::{:x}:{:x}", !high, !low),
            format!("fe80::5efe:{address}"),
            "fe80::1%lo".into(),
        ] {
            ask(told, 19, Ask::Connect, &format!("[{host}]:{port}"));
        }
    }
    let port = told.port(20);
    for host in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.8.8.8",
        "10.255.255.254",
        "172.31.255.254",
        "192.168.255.254",
        "100.64.0.1",
        "169.254.1.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.19.255.254",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[fc00::1]",
        "[fec0::1]",
        "[fe80::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[100::1]",
    ] {
        ask(told, 20, Ask::Connect, &format!("{host}:{port}"));
    }
    for host in [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "[fd00:ec2::254]",
        "[fd20:ce::254]",
        "metadata.google.internal",
        "metadata",
        "instance-data",
    ] {
        for way in [Ask::Connect, Ask::Forward] {
            ask(told, 21, way, &format!("{host}:80"));
        }
    }
    let (port, name) = (told.port(22), MACHINE);
    let granted = told
        .plan
        .granted
        .as_ref()
        .map_or(port, |granted| granted.port);
    for odd in [
        format!("0{granted}"),
        format!("+{granted}"),
        format!("-{granted}"),
        (65_536 + u32::from(granted)).to_string(),
        format!("{granted}x"),
        format!(" {granted}"),
        String::new(),
        "0".into(),
    ] {
        ask(told, 22, Ask::Connect, &format!("{name}:{odd}"));
    }
    if !told.plan.host_is_open {
        ask(told, 22, Ask::Connect, &format!("{name}:{port}"));
    }
    if let Some(granted) = &told.plan.granted {
        ask(
            told,
            22,
            Ask::Connect,
            &format!("allowed.{}:{}", granted.zone, told.plan.udp),
        );
    }
}

/// Class 28.
pub(super) fn socks(told: &Told<'_>) {
    let Some(proxy) = told.plan.proxy else { return };
    let port = told.port(28).to_be_bytes();
    let Some(host) = told.plan.hosts.iter().find_map(|host| match host {
        IpAddr::V4(host) => Some(host.octets()),
        IpAddr::V6(_) => None,
    }) else {
        return;
    };
    let five = |rest: &[u8]| [&[5, 1, 0][..], rest].concat();
    let target = [&[1][..], &host, &port].concat();
    for (what, request) in [
        ("SOCKS4", [&[4, 1][..], &port, &host, b"user\0"].concat()),
        (
            "SOCKS4a",
            [
                &[4, 1][..],
                &port,
                &[0, 0, 0, 1],
                b"user\0host.docker.internal\0",
            ]
            .concat(),
        ),
        ("BIND", five(&[&[5, 2, 0][..], &target].concat())),
        ("UDP ASSOCIATE", five(&[&[5, 3, 0][..], &target].concat())),
        (
            "an unknown command",
            five(&[&[5, 9, 0][..], &target].concat()),
        ),
        (
            "an unknown kind of address",
            five(&[&[5, 1, 0, 7][..], &host, &port].concat()),
        ),
        (
            "an empty name",
            five(&[&[5, 1, 0, 3, 0][..], &port].concat()),
        ),
        (
            "a length that lies",
            five(&[&[5, 1, 0, 3, 255][..], b"host", &port].concat()),
        ),
    ] {
        told.attempt(28, what, || {
            let lies = what.contains("lies");
            let heard = (|| {
                let mut stream = open(proxy)?;
                stream.set_read_timeout(Some(Duration::from_millis(if lies {
                    300
                } else {
                    3000
                })))?;
                stream.write_all(&request)?;
                hear(&mut stream, is_whole)
            })();
            let outcome = match heard {
                Ok(heard) if heard.starts_with(&[0, 0x5a]) => {
                    Outcome::Through("the reply is success".into())
                }
                Ok(heard) if heard.is_empty() => Outcome::Refused("closed".into()),
                // It waits for the rest of a name that never comes.
                Err(error) if lies && error.kind() == io::ErrorKind::WouldBlock => {
                    Outcome::Refused("it waits for the rest".into())
                }
                heard => judge(heard, Ask::Socks).0,
            };
            (outcome, None)
        });
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}
