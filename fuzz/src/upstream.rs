//! A proxy that connections leave through: its URL is read as others read it, and what it answers as well.

use egret_gateway::UpstreamProxy;
use egret_gateway::fuzz;
use url::Url;

use crate::holds;
use crate::llhttp::{self, Kind};

/// A URL.
pub fn proxy_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match text.parse::<UpstreamProxy>() {
        Ok(proxy) => holds(same_proxy(&format!("{proxy:?}"), text)),
        Err(error) => {
            let password = text
                .split_once("://")
                .and_then(|(_, rest)| rest.rsplit_once('@'));
            let shown = error.to_string();
            let is_told = password.is_some_and(|(word, _)| word.len() > 24 && shown.contains(word));
            assert!(!is_told, "a message tells the password");
        }
    }
}

/// Whether a proxy, as it shows itself, is the one of a URL.
fn same_proxy(shown: &str, text: &str) -> Result<(), String> {
    // What others write away, we refuse or take as it stands.
    let Ok(url) = Url::parse(text) else {
        return Ok(());
    };
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    let port = url.port_or_known_default().unwrap_or_default();
    match shown == format!("UpstreamProxy({host}:{port})") && url.scheme() == "http" {
        true => Ok(()),
        false => Err(format!("{shown}, and {host}:{port} by its URL")),
    }
}

/// What a proxy answers to `CONNECT`.
pub fn proxy_answer(data: &[u8]) {
    let proxy: UpstreamProxy = "http://192.0.2.1:3128".parse().expect("a URL");
    if let Ok(early) = fuzz::upstream(&proxy, data)
        && let Some(theirs) = llhttp::read(data, Kind::Answer { to_head: true })
    {
        holds(same_tunnel(
            data.len() - early,
            theirs.length,
            theirs.status,
        ));
    }
}

fn same_tunnel(ours: usize, theirs: usize, status: i32) -> Result<(), String> {
    match (200..300).contains(&status) && ours == theirs {
        true => Ok(()),
        false => Err(format!(
            "{status}, and the tunnel begins at {ours}, by llhttp at {theirs}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_proxy_is_noticed() {
        let shown = |text: &str| format!("{:?}", text.parse::<UpstreamProxy>().unwrap());
        let url = "http://user:pass@proxy.example:3128";
        assert_eq!(same_proxy(&shown(url), url), Ok(()));
        assert!(same_proxy(&shown("http://proxy.example"), url).is_err());
        assert!(same_proxy(&shown("http://user:3128"), url).is_err());
    }

    #[test]
    fn a_tunnel_that_begins_elsewhere_is_noticed() {
        let answer = b"HTTP/1.1 200 OK\r\n\r\nearly";
        let proxy: UpstreamProxy = "http://192.0.2.1".parse().unwrap();
        assert_eq!(fuzz::upstream(&proxy, answer), Ok(5));
        assert!(fuzz::upstream(&proxy, b"HTTP/1.1 403 No\r\n\r\n").is_err());
        assert!(same_tunnel(19, 19, 200).is_ok());
        assert!(same_tunnel(18, 19, 200).is_err());
        assert!(same_tunnel(19, 19, 403).is_err());
    }
}
