//! HTTP requests: how an entry says which ones it means, and how a request's path is read.
//!
//! Servers differ in how they read a path: some decode `%2f` before they look for slashes, some take `..;` for `..`. A
//! path that only some of them would read as it is matched here is refused, or has to be allowed in each of its readings.

use std::fmt;

use crate::glob::{BadGlob, PathGlob};
use crate::text::entry::BadEntry;

/// The requests that an entry is about: all of them, unseen, where there are no rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Requests(Box<[RequestRule]>);

/// Some of the requests that an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestRule {
    pub(crate) methods: Methods,
    pub(crate) path: PathGlob,
}

/// The methods of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Methods {
    Any,
    Listed(Box<[Box<str>]>),
}

impl Requests {
    pub(crate) fn new(rules: Vec<RequestRule>) -> Self {
        Self(rules.into())
    }

    /// Whether every request is meant, so that none has to be looked at.
    pub(crate) fn are_all(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &RequestRule> {
        self.0.iter()
    }

    /// Whether each request is listed.
    pub(crate) fn list_everything(&self) -> bool {
        let every =
            |rule: &RequestRule| rule.methods == Methods::Any && rule.path.as_str() == "/**";
        self.0.iter().any(every)
    }

    /// The same in lower case, as [`Asked::may_be_meant`] compares it.
    pub(crate) fn folded(&self) -> Self {
        let fold = |rule: &RequestRule| RequestRule {
            methods: rule.methods.clone(),
            path: rule.path.folded(),
        };
        Self(self.0.iter().map(fold).collect())
    }
}

impl RequestRule {
    /// Reads an item of `http:`: `METHOD[,METHOD…] PATH`, or the name of a preset.
    pub(crate) fn parse(text: &str) -> Result<Self, BadEntry> {
        Self::read(text).map_err(|bad| match tidied(text) {
            Some(tidied) => BadEntry {
                help: Some(format!("write `{}`", tidied.escape_debug())),
                ..bad
            },
            None => bad,
        })
    }

    fn read(text: &str) -> Result<Self, BadEntry> {
        match text {
            "read-only" => return Self::parse("GET,HEAD,OPTIONS /**"),
            "full" => return Self::parse("* /**"),
            _ => {}
        }
        let whole = 0..text.len();
        let Some((methods, path)) = text.split_once(' ') else {
            let help = match text {
                _ if text.starts_with('/') => {
                    format!("write `GET {text}`, or `* {text}` for every method")
                }
                _ if !text.is_empty()
                    && text.bytes().all(|b| b.is_ascii_uppercase() || b == b',') =>
                {
                    format!("write `{text} /**` for every path")
                }
                _ => {
                    "write `METHOD PATH`, such as `GET /v1/**`, or `read-only` or `full`".to_owned()
                }
            };
            return Err(BadEntry::new(
                whole,
                "a request has a method and a path",
                "",
                help,
            ));
        };
        if methods.ends_with(',') {
            let part = methods.len() - 1..methods.len() + 1;
            let label = "no blank after the comma";
            return Err(BadEntry::new(part, "methods stand side by side", label, ""));
        }
        let at = methods.len() + 1 + (path.len() - path.trim_start_matches(' ').len());
        let path = path.trim_matches(' ');
        let path = PathGlob::parse(path, path_flaw).map_err(|BadGlob { part, why }| {
            let message = format!("`{}` is not the path of a request", path.escape_debug());
            let help = match path.contains(' ') {
                true => "write an item for each request",
                false => "",
            };
            BadEntry::new(part.start + at..part.end + at, message, why, help)
        })?;
        Ok(Self {
            methods: Methods::parse(methods)?,
            path,
        })
    }

    fn means(&self, method: &str, path: &[String]) -> bool {
        let method = match &self.methods {
            Methods::Any => true,
            Methods::Listed(methods) => methods.iter().any(|listed| **listed == *method),
        };
        method && self.path.matches(path)
    }
}

/// The request of a test: one method, and a target, which may have a query.
pub(crate) fn parse_asked(text: &str) -> Result<(Box<str>, Box<str>), BadEntry> {
    let bad = |part, message: &str| {
        let help = "write `METHOD PATH`, such as `GET /v1/items`";
        Err(BadEntry::new(part, message, "", help))
    };
    let Some((method, target)) = text.split_once(' ') else {
        return bad(0..text.len(), "a request has a method and a path");
    };
    if !target.starts_with('/') {
        return bad(0..text.len(), "a request has a method and a path");
    }
    match Methods::parse(method)? {
        Methods::Listed(methods) if methods.len() == 1 => Ok((method.into(), target.into())),
        _ => bad(0..method.len(), "a test makes one request, with one method"),
    }
}

/// The same rule with its methods as they are written here, if that makes one of it.
fn tidied(text: &str) -> Option<String> {
    let (methods, path) = text.split_at_checked(text.find(" /")?)?;
    let methods = methods.split([',', ' ', '|', '/', '+', ';', '&']);
    let methods: Vec<_> = methods.filter(|method| !method.is_empty()).collect();
    let tidied = format!("{}{path}", methods.join(",").to_uppercase());
    (tidied != text && RequestRule::read(&tidied).is_ok()).then_some(tidied)
}

impl Methods {
    fn parse(text: &str) -> Result<Self, BadEntry> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let mut methods: Vec<Box<str>> = Vec::new();
        let mut at = 0;
        for method in text.split(',') {
            let part = at..at + method.len();
            at = part.end + 1;
            let help = match method {
                "*" => "write `*` alone for every method".to_owned(),
                "CONNECT" => {
                    "a CONNECT is no request to the host: it is decided like any other connection"
                        .to_owned()
                }
                _ if method.is_empty()
                    || !method
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-') =>
                {
                    String::new()
                }
                _ if method.bytes().any(|b| b.is_ascii_lowercase()) => {
                    format!("write `{}`", method.to_uppercase())
                }
                _ => {
                    methods.push(method.into());
                    continue;
                }
            };
            let message = match method {
                "" => "a method is missing".to_owned(),
                _ => format!("`{}` is not a method", method.escape_debug()),
            };
            return Err(BadEntry::new(part, message, "", help));
        }
        methods.sort_unstable();
        methods.dedup();
        Ok(Self::Listed(methods.into()))
    }
}

impl fmt::Display for RequestRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.methods {
            Methods::Any => f.write_str("*")?,
            Methods::Listed(methods) => f.write_str(&methods.join(","))?,
        }
        write!(f, " {}", self.path.as_str())
    }
}

/// What in a rule's path could match no request.
fn path_flaw(segment: &str) -> Option<&'static str> {
    segment.chars().find_map(|c| match c {
        '?' => Some("a query is not matched: leave it out"),
        '#' => Some("a fragment is never sent"),
        '%' => Some("write the character itself: paths are decoded before they are matched"),
        '{' | '}' => Some("write `*` for a part that varies"),
        '\\' | ' ' => Some("this cannot stand in a path"),
        _ => None,
    })
}

/// A request as rules see it: its method, and every way in which a server may read its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    method: &'a str,
    readings: Vec<Vec<String>>,
}

impl<'a> Asked<'a> {
    /// Reads a request's target in origin form, which may have a query.
    pub(crate) fn read(method: &'a str, target: &str) -> Result<Self, &'static str> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Some(path) = path.strip_prefix('/') else {
            return Err("the target is no path");
        };
        if query.split(['&', ';']).any(is_method) {
            return Err("its query has `_method`, which some servers take for the method");
        }
        let segments: Vec<_> = path.split('/').map(decode).collect::<Result<_, _>>()?;
        let with_slashes = segments.iter().flat_map(|segment| segment.split('/'));
        let with_slashes: Vec<_> = with_slashes.map(str::to_owned).collect();
        let mut readings = vec![segments, with_slashes];
        // Some servers take what is behind a `;` away before they look at the path.
        let without = |segments: &Vec<String>| -> Vec<String> {
            let name = |segment: &String| segment.split(';').next().unwrap_or_default().to_owned();
            segments.iter().map(name).collect()
        };
        readings.extend(readings.iter().map(without).collect::<Vec<_>>());
        readings.sort();
        readings.dedup();
        match readings.iter().all(|reading| is_plain(reading)) {
            true => Ok(Self { method, readings }),
            false => Err(NOT_PLAIN),
        }
    }

    /// Whether each of its readings is meant by some of these.
    pub(crate) fn is_always_meant<'r>(
        &self,
        by: impl Iterator<Item = &'r Requests> + Clone,
    ) -> bool {
        let meant = |rules: &Requests, path: &[String]| {
            rules.are_all() || rules.iter().any(|rule| rule.means(self.method, path))
        };
        let mut readings = self.readings.iter();
        readings.all(|path| by.clone().any(|rules| meant(rules, path)))
    }

    /// Whether one of its readings is meant, as the most obliging of servers would read it: whatever the case, and with or
    /// without a slash, dots or blanks at the end. To be asked with [`Requests::folded`].
    pub(crate) fn may_be_meant(&self, by: &Requests) -> bool {
        let method = self.method.to_ascii_uppercase();
        self.readings.iter().any(|path| {
            let fold = |segment: &String| segment.trim_end_matches(['.', ' ']).to_lowercase();
            let mut path: Vec<_> = path.iter().map(fold).collect();
            path.pop_if(|last| last.is_empty());
            let bare = by.iter().any(|rule| rule.means(&method, &path));
            path.push(String::new());
            bare || by.iter().any(|rule| rule.means(&method, &path))
        })
    }
}

const NOT_PLAIN: &str =
    "its path has `.`, `..` or nothing between slashes, which servers read in different ways";

/// Whether a part of a query is the method to some frameworks. PHP cuts keys short and makes underscores of much.
fn is_method(part: &str) -> bool {
    let key = part.split('=').next().unwrap_or_default().replace('+', " ");
    let Ok(key) = decode(&key) else {
        return true;
    };
    let key = key.split('[').next().unwrap_or_default();
    let key = key.trim_start().replace(['.', ' '], "_");
    key.eq_ignore_ascii_case("_method")
}

/// Decodes the percent-encoding of one segment (RFC 3986, section 2.1).
fn decode(segment: &str) -> Result<String, &'static str> {
    let mut octets = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'%' => {
                let mut digit = || {
                    octets
                        .next()
                        .and_then(|digit| char::from(digit).to_digit(16))
                };
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err("its path has a `%` that encodes nothing");
                };
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            plain => plain,
        };
        match octet {
            0..=0x1f | 0x7f => return Err("its path has a control character"),
            b'\\' => return Err("its path has a backslash, which some servers take for a slash"),
            b'?' | b'#' => {
                return Err("its path has a `?` or `#`, at which some servers cut it off");
            }
            octet => decoded.push(octet),
        }
    }
    // A server that decodes twice would see something else than was matched.
    let twice = decoded.windows(3).any(|three| {
        matches!(three, [b'%', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
    });
    match twice {
        true => Err("its path is encoded twice"),
        false => String::from_utf8(decoded).map_err(|_| "its path is not UTF-8"),
    }
}

/// Whether there are no segments that servers take away: `.`, `..`, empty ones but for the last.
fn is_plain(segments: &[String]) -> bool {
    let last = segments.len().saturating_sub(1);
    segments.iter().enumerate().all(|(at, segment)| {
        !matches!(segment.as_str(), "." | "..") && (at == last || !segment.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> Requests {
        Requests::new(
            texts
                .iter()
                .map(|text| RequestRule::parse(text).unwrap())
                .collect(),
        )
    }

    #[test]
    fn a_request_has_to_be_listed() {
        #[rustfmt::skip]
        let table: &[(&[&str], &str, &str, bool)] = &[
            (&["GET /v1/**"],              "GET",     "/v1/x?q=1",        true ),
            (&["GET /v1/**"],              "GET",     "/v1",              true ),
            (&["GET /v1/**"],              "HEAD",    "/v1/x",            false),
            (&["GET /v1/**"],              "get",     "/v1/x",            false),
            (&["GET /v1/**"],              "GET",     "/v2/x",            false),
            (&["GET /v1/*"],               "GET",     "/v1/x/y",          false),
            (&["GET,HEAD /a", "PUT /b"],   "PUT",     "/b",               true ),
            (&["GET,HEAD /a", "PUT /b"],   "PUT",     "/a",               false),
            (&["read-only"],               "OPTIONS", "/x/y",             true ),
            (&["read-only"],               "POST",    "/x/y",             false),
            (&["full"],                    "DELETE",  "/",                true ),
            (&["* /x"],                    "BREW",    "/x",               true ),
            (&["GET /a b"],                "GET",     "/a%20b",           false),
            (&["GET /é"],                  "GET",     "/%C3%A9",          true ),
            (&["GET /abc"],                "GET",     "/%61bc",           true ),
            (&["GET /a/*/c"],              "GET",     "/a/x%2Fy/c",       false), // one reading has a segment more
            (&["GET /a/**"],               "GET",     "/a/x%2fy/c",       true ),
            (&["GET /*/*.css"],            "GET",     "/a/b;x.css",       false), // to some servers /a/b
            (&["GET /*/*.css"],            "GET",     "/a/b.css;v=1",     false),
            (&["GET /a/*"],                "GET",     "/a/b;v=1",         true ),
        ];
        for (texts, method, target, expected) in table {
            let Ok(rules) = texts
                .iter()
                .map(|text| RequestRule::parse(text))
                .collect::<Result<Vec<_>, _>>()
            else {
                assert!(!expected, "{texts:?}");
                continue;
            };
            let asked = Asked::read(method, target).unwrap();
            let rules = Requests::new(rules);
            assert_eq!(
                asked.is_always_meant([&rules].into_iter()),
                *expected,
                "{texts:?} {method} {target}"
            );
        }
    }

    #[test]
    fn one_reading_is_enough_for_a_refusal() {
        #[rustfmt::skip]
        let targets = [
            "/admin/x", "/admin%2fx", "/%61dmin/x", "/admin/x?y", "/ADMIN/x", "/admin/x/", "/admin./x%20", "/admin;a/x;b", "/admin/x..",
        ];
        for rule in ["DELETE /admin/*", "DELETE /Admin/*/"] {
            let refused = rules(&[rule]).folded();
            let refuses = |method, target| {
                let asked = Asked::read(method, target).unwrap();
                asked.may_be_meant(&refused)
            };
            for target in targets {
                assert!(
                    refuses("DELETE", target) && refuses("delete", target),
                    "{target}"
                );
            }
            assert!(!refuses("GET", "/admin/x"));
            assert!(!refuses("DELETE", "/admin/x/y"));
        }
    }

    #[test]
    fn a_path_that_servers_read_in_different_ways_is_not_read_at_all() {
        #[rustfmt::skip]
        let bad = [
            "/?_method=PUT", "/?a=1&%5fMETHOD=PUT", "/?_method%00=PUT", "/?%20_method=PUT", "/?+_method=PUT", "/?.method=PUT", "/?_method[]=PUT",
            "", "*", "x", "http://a/", "/a/../b", "/a/./b", "/..", "/a/%2e%2e/b", "/a/.%2E", "/a//b", "//a", "/a/..;x=1/b", "/a/;/b",
            "/a%2f..%2fb", "/a%2f%2fb", "/a\\b", "/a%5cb", "/a%00", "/a%0d%0a", "/a%", "/a%2", "/a%zz", "/a%252e", "/a%252Fb", "/a#b",
        ];
        for target in bad {
            assert!(Asked::read("GET", target).is_err(), "{target}");
        }
        for target in [
            "/",
            "/a/",
            "/a/?x=/../",
            "/a...b",
            "/.a/..b",
            "/100%25",
            "/a;x=1",
            "/%7Euser/~x",
        ] {
            assert!(Asked::read("GET", target).is_ok(), "{target}");
        }
    }

    #[test]
    fn what_a_rule_cannot_be_is_said_with_a_way_out() {
        #[rustfmt::skip]
        let table = [
            ("",              "a request has a method and a path: write `METHOD PATH`, such as `GET /v1/**`, or `read-only` or `full`"),
            ("GET",           "a request has a method and a path: write `GET /**` for every path"),
            ("/v1",           "a request has a method and a path: write `GET /v1`, or `* /v1` for every method"),
            ("readonly",      "a request has a method and a path: write `METHOD PATH`, such as `GET /v1/**`, or `read-only` or `full`"),
            ("get /v1",       "`get` is not a method: write `GET /v1`"),
            ("GET,,PUT /v1",  "a method is missing: write `GET,PUT /v1`"),
            ("GET, HEAD /v1", "methods stand side by side: write `GET,HEAD /v1`"),
            ("get|put  /v1",  "`get|put` is not a method: write `GET,PUT /v1`"),
            ("GET /a, PUT /b", "`/a, PUT /b` is not the path of a request: write an item for each request"),
            ("GET,* /v1",     "`*` is not a method: write `*` alone for every method"),
            ("CONNECT /",     "`CONNECT` is not a method: a CONNECT is no request to the host: it is decided like any other connection"),
            ("GET v1",        "`v1` is not the path of a request: "),
            ("GET /a?x=1",    "`/a?x=1` is not the path of a request: "),
            ("GET /{id}",     "`/{id}` is not the path of a request: "),
            ("GET /a/../b",   "`/a/../b` is not the path of a request: "),
        ];
        for (text, expected) in table {
            let bad = RequestRule::parse(text).unwrap_err();
            let said = format!("{}: {}", bad.message, bad.help.unwrap_or_default());
            assert_eq!(said, expected, "{text}");
        }
    }
}
