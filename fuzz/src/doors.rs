//! The doors: where a request leads is what a second reader says as well.

use egret_gateway::fuzz::{self, Wanted};
use egret_policy::{Destination, Target};
use url::{Host, Url};

use crate::holds;
use crate::llhttp::{self, Kind, Message};

/// A request at the proxy port.
pub fn proxy_request(data: &[u8]) {
    if let Ok(Some(wanted)) = fuzz::proxy(data)
        && let Some(theirs) = llhttp::read(data, Kind::Request)
    {
        holds(leads_there(&wanted, &theirs));
    }
}

fn leads_there(wanted: &Wanted, theirs: &Message) -> Result<(), String> {
    let text = String::from_utf8_lossy(&theirs.target);
    let url = match &wanted.target {
        None if theirs.method != "CONNECT" => return Err("a tunnel".into()),
        // A scheme that has no port of its own, so that none is left out.
        None => Url::parse(&format!("http://{text}/")),
        Some(_) => Url::parse(&text),
    };
    // Where the one who writes URLs sees none, there is nothing to compare.
    let Ok(url) = url else { return Ok(()) };
    let (host, port) = (url.host(), url.port_or_known_default());
    if !is_host(&wanted.destination, host.as_ref()) || port != Some(wanted.destination.port()) {
        return Err(format!(
            "to {}, and by its URL to {url}",
            wanted.destination
        ));
    }
    match url.username().is_empty() && url.password().is_none() {
        true => Ok(()),
        false => Err("a user".into()),
    }
}

fn is_host(to: &Destination, host: Option<&Host<&str>>) -> bool {
    match (to.target(), host) {
        (Target::Name(name), Some(Host::Domain(domain))) => {
            name.as_str() == domain.trim_end_matches('.')
        }
        (Target::Address(address), Some(Host::Ipv4(v4))) => *address == *v4,
        (Target::Address(address), Some(Host::Ipv6(v6))) => *address == v6.to_canonical(),
        _ => false,
    }
}

/// A request at a published port: only by a name of this machine, or of the sandbox.
pub fn published_request(data: &[u8]) {
    if let Ok(Some(wanted)) = fuzz::published(data, 8080) {
        let theirs = llhttp::read(data, Kind::Request);
        holds(is_meant(&wanted, theirs.as_ref()));
    }
}

fn is_meant(wanted: &Wanted, theirs: Option<&Message>) -> Result<(), String> {
    let is_here = match wanted.destination.target() {
        Target::Address(address) => address.is_loopback(),
        Target::Name(name) => {
            let name = name.as_str();
            name == "fuzz" || name == "localhost" || name.ends_with(".localhost")
        }
    };
    if !is_here || wanted.destination.port() != 8080 {
        return Err(format!("by {}", wanted.destination));
    }
    let Some(theirs) = theirs else { return Ok(()) };
    for (name, value) in &theirs.fields {
        if name.eq_ignore_ascii_case(b"origin") {
            let text = String::from_utf8_lossy(value);
            let origin = Url::parse(&text).map_err(|error| format!("{text}: {error}"))?;
            let is_here = match origin.host() {
                Some(Host::Domain(name)) => {
                    let name = name.trim_end_matches('.');
                    name == "fuzz" || name == "localhost" || name.ends_with(".localhost")
                }
                Some(Host::Ipv4(v4)) => v4.is_loopback(),
                Some(Host::Ipv6(v6)) => v6.to_canonical().is_loopback(),
                None => false,
            };
            if !is_here {
                return Err(format!("from a page of {text}"));
            }
        }
    }
    Ok(())
}

/// What a SOCKS client sends.
pub fn socks(data: &[u8]) {
    // By this the proxy port knows them.
    let [4 | 5, ..] = data else { return };
    let (told, wanted) = fuzz::socks(data);
    holds(by_rfc_1928(data, &told, wanted.as_ref()));
}

fn by_rfc_1928(
    data: &[u8],
    told: &[u8],
    wanted: Option<&(Destination, usize)>,
) -> Result<(), String> {
    let Some((to, rest)) = wanted else {
        return match told {
            [] | [5, 0 | 0xff] | [5, 0, 5, 1..=8, 0, 1, 0, 0, 0, 0, 0, 0] => Ok(()),
            told => Err(format!("a refusal that is none: {told:?}")),
        };
    };
    if told != [5, 0] {
        return Err(format!("answered {told:?}"));
    }
    let read = || -> Option<(String, usize)> {
        let [5, count, more @ ..] = data else {
            return None;
        };
        let (methods, request) = more.split_at_checked(usize::from(*count))?;
        methods.contains(&0).then_some(())?;
        let [5, 1, 0, kind, address @ ..] = request else {
            return None;
        };
        let (host, behind) = match kind {
            1 => {
                let (v4, behind) = address.split_first_chunk::<4>()?;
                (std::net::Ipv4Addr::from(*v4).to_string(), behind)
            }
            4 => {
                let (v6, behind) = address.split_first_chunk::<16>()?;
                (format!("[{}]", std::net::Ipv6Addr::from(*v6)), behind)
            }
            3 => {
                let (length, name) = address.split_first()?;
                let (name, behind) = name.split_at_checked(usize::from(*length))?;
                (String::from_utf8(name.to_vec()).ok()?, behind)
            }
            _ => return None,
        };
        let (port, behind) = behind.split_first_chunk::<2>()?;
        Some((
            format!("{host}:{}", u16::from_be_bytes(*port)),
            behind.len(),
        ))
    };
    let Some((text, behind)) = read() else {
        return Err("a request where there is none".into());
    };
    let same = Destination::from_authority(&text, None).is_ok_and(|theirs| theirs == *to);
    // A name may stand without the brackets that an address of IPv6 has in an authority.
    let bare = text
        .rsplit_once(':')
        .and_then(|(host, port)| Destination::parse(host, port).ok());
    if !same && bare.as_ref() != Some(to) {
        return Err(format!("{to}, and {text} by RFC 1928"));
    }
    match *rest == behind {
        true => Ok(()),
        false => Err(format!("{rest} bytes are left, and {behind} by RFC 1928")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Destination {
        Destination::from_authority(text, None).unwrap()
    }

    #[test]
    fn a_request_that_would_go_elsewhere_is_noticed() {
        let head = b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let theirs = llhttp::read(head, Kind::Request).unwrap();
        let ours = fuzz::proxy(head).unwrap().unwrap();
        assert_eq!(leads_there(&ours, &theirs), Ok(()));
        for other in ["b.example:80", "a.example:81", "93.184.216.34:80"] {
            let wrong = Wanted {
                destination: to(other),
                ..ours.clone()
            };
            assert!(leads_there(&wrong, &theirs).is_err(), "{other}");
        }
        let tunnel = Wanted {
            target: None,
            ..ours
        };
        assert!(leads_there(&tunnel, &theirs).is_err());
    }

    #[test]
    fn a_caller_that_may_not_come_in_is_noticed() {
        let head = b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\n\r\n";
        let theirs = llhttp::read(head, Kind::Request).unwrap();
        let ours = fuzz::published(head, 8080).unwrap().unwrap();
        assert_eq!(is_meant(&ours, Some(&theirs)), Ok(()));
        let wrong = Wanted {
            destination: to("evil.example:8080"),
            ..ours.clone()
        };
        assert!(is_meant(&wrong, Some(&theirs)).is_err());
        let from_elsewhere =
            String::from_utf8_lossy(head).replace("localhost:3000", "evil.example");
        let theirs = llhttp::read(from_elsewhere.as_bytes(), Kind::Request).unwrap();
        assert!(is_meant(&ours, Some(&theirs)).is_err());
    }

    #[test]
    fn a_socks_request_that_is_read_otherwise_is_noticed() {
        let bytes = b"\x05\x01\x00\x05\x01\x00\x03\x09a.example\x01\xbbrest";
        let (told, wanted) = fuzz::socks(bytes);
        assert_eq!(wanted, Some((to("a.example:443"), 4)));
        assert_eq!(by_rfc_1928(bytes, &told, wanted.as_ref()), Ok(()));
        let judge = |told: &[u8], to_: &str, rest| by_rfc_1928(bytes, told, Some(&(to(to_), rest)));
        assert!(judge(&[5, 0], "b.example:443", 4).is_err());
        assert!(judge(&[5, 0], "a.example:442", 4).is_err());
        assert!(judge(&[5, 0], "a.example:443", 3).is_err());
        assert!(judge(&[5, 0xff], "a.example:443", 4).is_err());
        assert!(by_rfc_1928(&bytes[..8], &[5, 0], wanted.as_ref()).is_err());
        assert!(by_rfc_1928(bytes, &[5, 0, 5, 0], None).is_err());
    }
}
