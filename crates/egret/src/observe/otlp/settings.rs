//! Where to send to, and what to say of oneself: the variables that OpenTelemetry has for it.

use crate::failure::Failure;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::Uri;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// How it is sent, and as whose.
#[derive(Clone, Debug)]
pub(crate) struct OtlpSettings {
    pub(super) endpoint: Endpoint,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// What is said of the service, in order; the first of a name counts.
    pub(super) resource: Vec<(String, String)>,
    /// Between two sendings of the metrics.
    pub(super) interval: Duration,
}

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(super) address: SocketAddr,
    /// As it stands in the URL.
    pub(super) authority: String,
    /// What paths are appended to: empty, or a path without a slash at its end.
    pub(super) path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let advice = "write http://127.0.0.1:4318, or another address in place of 127.0.0.1";
        let uri: Uri = url
            .parse()
            .map_err(|_| format!("{url:?} is no URL; {advice}"))?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'));
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), authority) else {
            return Err(format!("{url:?} is no URL of a collector; {advice}"));
        };
        if scheme != "http" {
            return Err(format!(
                "a collector is spoken to by http, not {scheme}; run one on this machine that passes things on, and {advice}"
            ));
        }
        if uri.query().is_some() {
            return Err(format!("the URL of a collector has no `?`; {advice}"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let address = match host.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) if host.eq_ignore_ascii_case("localhost") => Ipv4Addr::LOCALHOST.into(),
            Err(_) => {
                return Err(format!(
                    "{host} is no address, and names of collectors are not looked up; {advice}"
                ));
            }
        };
        let port = authority.as_str().strip_prefix(authority.host());
        let port = match port.and_then(|port| port.strip_prefix(':')) {
            Some(port) => port
                .parse()
                .map_err(|_| format!("{port:?} is no port; {advice}"))?,
            None => 4318,
        };
        Ok(Self {
            address: SocketAddr::new(address, port),
            authority: authority.to_string(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl OtlpSettings {
    /// What the option or else the environment says; nothing if neither says where to send to.
    ///
    /// A variable that is meant for other programs as well must not keep egret from running one: what is in it and cannot be used
    /// is told, and nothing is sent.
    pub(crate) fn find(
        option: Option<&Endpoint>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Failure> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_off =
            variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let (endpoint, is_option) = match (option, variable(ENDPOINT)) {
            (Some(endpoint), _) => (endpoint.clone(), true),
            (None, Some(_)) if is_off => return Ok(None),
            (None, Some(url)) => {
                let is_http = |protocol: String| protocol.starts_with("http/");
                let usable = match variable("OTEL_EXPORTER_OTLP_PROTOCOL").is_none_or(is_http) {
                    true => url.trim().parse(),
                    false => Err("a collector is spoken to by HTTP, and not by gRPC".to_owned()),
                };
                match usable {
                    Ok(endpoint) => (endpoint, false),
                    Err(why) => {
                        say!("egret: nothing is sent to a collector: {ENDPOINT}: {why}");
                        return Ok(None);
                    }
                }
            }
            (None, None) => return Ok(None),
        };
        let settings = Self::with(endpoint, variable);
        match settings {
            Ok(settings) => Ok(Some(settings)),
            Err(failure) if is_option => Err(failure),
            Err(failure) => {
                say!("egret: nothing is sent to a collector: {failure}");
                Ok(None)
            }
        }
    }

    fn with(
        endpoint: Endpoint,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let mut headers = Vec::new();
        for (name, value) in pairs(&variable("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default()) {
            // Its value is a secret, most likely.
            let unusable = |_| {
                Failure::new(format!(
                    "OTEL_EXPORTER_OTLP_HEADERS: {name:?} cannot be a header; write NAME=VALUE,…"
                ))
            };
            let mut value = HeaderValue::from_str(&value).map_err(|_| unusable(()))?;
            value.set_sensitive(true);
            headers.push((name.parse().map_err(|_| unusable(()))?, value));
        }
        let mut resource: Vec<_> = variable("OTEL_SERVICE_NAME")
            .map(|name| ("service.name".to_owned(), name))
            .into_iter()
            .collect();
        resource.extend(pairs(
            &variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default(),
        ));
        let interval = variable("OTEL_METRIC_EXPORT_INTERVAL").map(|text| text.trim().parse());
        let interval = match interval {
            None => DEFAULT_INTERVAL,
            Some(Ok(milliseconds @ 1..)) => Duration::from_millis(milliseconds).max(SHORTEST),
            Some(_) => {
                return Err(Failure::new(
                    "OTEL_METRIC_EXPORT_INTERVAL is a number of milliseconds",
                ));
            }
        };
        Ok(Self {
            endpoint,
            headers,
            resource,
            interval,
        })
    }
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(1);

/// `NAME=VALUE,…`, with octets written as `%XX`; what has no `=` is left out.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim().to_owned(), decoded(value.trim())))
    };
    text.split(',')
        .filter_map(pair)
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

fn decoded(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let coded = behind.get(..2).filter(|_| first == b'%');
        let octet = coded
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        octets.push(octet.unwrap_or(first));
        rest = match octet {
            Some(_) => behind.get(2..).unwrap_or_default(),
            None => behind,
        };
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_has_an_address_and_speaks_http() {
        #[rustfmt::skip]
        let table = [
            ("http://127.0.0.1:4318",        Some(("127.0.0.1:4318", ""))),
            ("http://127.0.0.1",             Some(("127.0.0.1:4318", ""))),
            ("http://LOCALHOST:1/",          Some(("127.0.0.1:1", ""))),
            ("http://[::1]:4318/otlp/",      Some(("[::1]:4318", "/otlp"))),
            ("http://10.1.2.3:80/a/b",       Some(("10.1.2.3:80", "/a/b"))),
            ("https://127.0.0.1:4318",       None),
            ("grpc://127.0.0.1:4317",        None),
            ("http://collector:4318",        None),
            ("http://u:p@127.0.0.1:4318",    None),
            ("http://127.0.0.1:4318/?x",     None),
            ("http://127.0.0.1:99999",       None),
            ("127.0.0.1:4318",               None),
            ("/v1/traces",                   None),
            ("",                             None),
            ("http://127.0.0.1/\r\nX: y",    None),
        ];
        for (url, expected) in table {
            let endpoint = url.parse::<Endpoint>();
            let found = endpoint.as_ref().ok();
            let found = found.map(|found| (found.address.to_string(), found.path.clone()));
            let expected = expected.map(|(address, path)| (address.to_owned(), path.to_owned()));
            assert_eq!(found, expected, "{url}");
            let why = endpoint.err().unwrap_or_default();
            assert!(
                why.is_empty() || why.contains("http://127.0.0.1:4318"),
                "{why}"
            );
        }
    }

    #[test]
    fn variables_mean_what_they_mean_elsewhere() {
        let found = |variables: &[(&str, &str)], option: Option<&str>| {
            let option = option.map(|url| url.parse().unwrap());
            let variable = |name: &str| {
                let mut all = variables.iter();
                let found = all.find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            OtlpSettings::find(option.as_ref(), variable)
        };
        let none = |variables: &[(&str, &str)]| found(variables, None).unwrap().is_none();
        let here = (ENDPOINT, "http://127.0.0.1:4318");
        assert!(none(&[]) && none(&[(ENDPOINT, " ")]));
        assert!(none(&[here, ("OTEL_SDK_DISABLED", "true")]));
        assert!(none(&[here, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]));
        assert!(none(&[here, ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c")]));
        assert!(none(&[here, ("OTEL_METRIC_EXPORT_INTERVAL", "soon")]));
        assert!(found(&[("OTEL_METRIC_EXPORT_INTERVAL", "0")], Some(here.1)).is_err());
        let secret = found(
            &[("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2")],
            Some(here.1),
        );
        assert!(!secret.unwrap_err().to_string().contains("hunter2"));
        let all = [
            here,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "Authorization=Bearer%20x, b=1%2C2,,=c",
            ),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%C3%A9,b=%zz,c"),
            ("OTEL_SERVICE_NAME", "s"),
        ];
        let settings = found(&all, None).unwrap().unwrap();
        let header = |(name, value): &(HeaderName, HeaderValue)| {
            assert!(value.is_sensitive());
            format!("{name}: {}", value.to_str().unwrap())
        };
        let headers: Vec<_> = settings.headers.iter().map(header).collect();
        assert_eq!(headers, ["authorization: Bearer x", "b: 1,2"]);
        assert_eq!(settings.interval, Duration::from_secs(5));
        let resource: Vec<_> = settings
            .resource
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            resource,
            [("service.name", "s"), ("a", "\u{e9}"), ("b", "%zz")]
        );
    }
}
