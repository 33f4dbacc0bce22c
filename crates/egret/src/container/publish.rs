//! Published ports: `[HOST-IP:][HOST-PORT:]PORT[-PORT][/tcp]`, as engines have it but for one thing: without an address
//! they are on the host's loopback.

use std::net::IpAddr;

/// A port of the sandbox that the host answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Where the host listens.
    pub(crate) address: IpAddr,
    /// On which port; the engine chooses one if there is none.
    pub(crate) host_port: Option<u16>,
    /// Which port of the sandbox it is.
    pub(crate) port: u16,
    /// Whether nothing but HTTP is spoken there.
    pub(crate) http: bool,
}

/// A `-p` that cannot be understood or carried, in words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("-p {text}: {why}")]
pub(crate) struct BadPublish {
    text: String,
    why: String,
}

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// More is a mistake rather than a wish.
const MOST: usize = 256;

impl Publish {
    /// The ports that a `-p` names.
    pub(crate) fn parse(text: &str) -> Result<Vec<Self>, BadPublish> {
        let bad = |why: &str| BadPublish {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        const FORM: &str =
            "write [HOST-IP:][HOST-PORT:]PORT, such as 8080, 8080:80 or 127.0.0.1:8080:80";
        let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        match protocol.to_ascii_lowercase().as_str() {
            "tcp" => {}
            "udp" | "sctp" => {
                return Err(bad(
                    "only TCP passes the gateway; leave out what comes after the slash",
                ));
            }
            _ => return Err(bad(FORM)),
        }
        let (before, inside) = match rest.rsplit_once(':') {
            Some((before, inside)) => (Some(before), inside),
            None => (None, rest),
        };
        let inside = ports(inside).ok_or_else(|| bad(FORM))?;
        let (address, outside) = match before {
            None => (LOOPBACK, ""),
            Some(before) => match before.rsplit_once(':') {
                None => (LOOPBACK, before),
                Some((address, port)) => {
                    let bare = address
                        .strip_prefix('[')
                        .and_then(|address| address.strip_suffix(']'));
                    let address = bare.unwrap_or(address);
                    let parsed = match address {
                        "localhost" => Ok(LOOPBACK),
                        address => address.parse(),
                    };
                    (
                        parsed.map_err(|_| bad("the host's part is no IP address"))?,
                        port,
                    )
                }
            },
        };
        let outside: Vec<Option<u16>> = match outside {
            "" => vec![None; inside.len()],
            outside => {
                let outside = ports(outside).ok_or_else(|| bad(FORM))?;
                if outside.len() != inside.len() {
                    return Err(bad("the two ranges of ports are not equally long"));
                }
                outside.into_iter().map(Some).collect()
            }
        };
        let published = inside
            .into_iter()
            .zip(outside)
            .map(|(port, host_port)| Self {
                address,
                host_port,
                port,
                http: false,
            });
        Ok(published.collect())
    }

    /// The option that lets it arrive at port `inner` of the gateway's container.
    pub(crate) fn to_gateway(&self, inner: u16) -> String {
        let port = self
            .host_port
            .map(|port| port.to_string())
            .unwrap_or_default();
        match self.address {
            IpAddr::V4(address) => format!("{address}:{port}:{inner}"),
            IpAddr::V6(address) => format!("[{address}]:{port}:{inner}"),
        }
    }
}

/// `PORT` or `FIRST-LAST`.
fn ports(text: &str) -> Option<Vec<u16>> {
    let port = |text: &str| -> Option<u16> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        plain
            .then(|| text.parse().ok())
            .flatten()
            .filter(|&port| port != 0)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    let ports: Vec<u16> = (first..=last).collect();
    (!ports.is_empty() && ports.len() <= MOST).then_some(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_published_on_loopback_unless_an_address_is_given() {
        #[rustfmt::skip]
        let table = [
            ("80",                   Some(vec!["127.0.0.1::1"])),
            ("8080:80",              Some(vec!["127.0.0.1:8080:1"])),
            ("0.0.0.0:8080:80",      Some(vec!["0.0.0.0:8080:1"])),
            ("127.0.0.1::80",        Some(vec!["127.0.0.1::1"])),
            ("localhost:8080:80/TCP",Some(vec!["127.0.0.1:8080:1"])),
            ("[::1]:8080:80",        Some(vec!["[::1]:8080:1"])),
            ("8080-8081:80-81",      Some(vec!["127.0.0.1:8080:1", "127.0.0.1:8081:1"])),
            ("80/udp",               None),
            ("0",                    None),
            ("65536",                None),
            ("080x",                 None),
            ("",                     None),
            ("8081-8080",            None),
            ("8080-8081:80",         None),
            ("example.com:8080:80",  None),
            ("1-60000:1-60000",      None),
        ];
        for (text, expected) in table {
            let found = Publish::parse(text).ok().map(|published| {
                published
                    .iter()
                    .map(|publish| publish.to_gateway(1))
                    .collect::<Vec<_>>()
            });
            let expected =
                expected.map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(found, expected, "{text}");
        }
    }
}
