//! What people write in a policy that means something else there or nothing, and what to write in its place.
//!
//! Tables, as far as that goes. Nothing here decides what is valid: it is asked about what is not.

use std::net::Ipv6Addr;

use crate::destination::parse_port;
use crate::report::did_you_mean;
use crate::text::native::{home_of, is_key};
use crate::text::reader::shown;
use crate::visible::is_hidden;

pub(crate) const COMMENTS: &str = "a comment begins with `#`, in JSON too";

/// Keys, and words that other systems have for them, without `_` and `-`.
const KEYS: &[(&str, &str)] = &[
    (
        "allow",
        "allowed allowlist allows whitelist permit permitted hosts domains egress outbound rules allowhost allowhosts \
         allowedhosts alloweddomains",
    ),
    (
        "deny",
        "denied denylist denies blacklist block blocked blocklist forbid reject drop denyhosts deniedhosts denieddomains",
    ),
    ("default", "defaultaction defaultpolicy otherwise policy"),
    ("host_gateway", "gateway dockergateway localhost"),
    ("inbound", "ingress origin origins allowedorigins published"),
    ("filesystem", "files fs paths mounts"),
    ("host", "domain hostname name url fqdn dns site"),
    ("address", "ip cidr network net subnet addr"),
    ("addresses", "allowedips ips resolvesto"),
    (
        "by",
        "binary binaries executable executables exe program programs process processes",
    ),
    ("http", "request requests method methods path paths rules"),
    ("reason", "comment description note why"),
    ("hide", "deny exclude"),
];

/// What is meant by a key that is not known, where these are.
pub(crate) fn key(word: &str, known: &[&str]) -> Option<String> {
    if is_comment(word) {
        return Some(COMMENTS.to_owned());
    }
    if let Some((key, _)) = word.split_once(':')
        && known.contains(&key)
    {
        return Some(blank_after_colon(word));
    }
    let plain = word.to_lowercase().replace(['_', '-'], "");
    let listed = KEYS
        .iter()
        .find(|(key, words)| known.contains(key) && words.split(' ').any(|listed| listed == plain));
    if let Some((key, _)) = listed {
        return Some(format!("did you mean `{key}`?"));
    }
    // Only a whole policy can have this one.
    match home_of(word).filter(|_| known.contains(&"host_gateway")) {
        Some(home) => Some(format!("`{word}` belongs to {home}")),
        None => did_you_mean(word, known),
    }
}

fn is_comment(text: &str) -> bool {
    text.starts_with("//") || text.starts_with("/*")
}

/// What to write in place of a key with its value close behind the colon.
pub(crate) fn blank_after_colon(written: &str) -> String {
    let (key, value) = written.split_once(':').unwrap_or((written, ""));
    format!(
        "write a blank after the colon: `{key}: {}`",
        shown(value.trim())
    )
}

/// What is the matter with an entry in the text form as a whole, rather than with a part of it.
pub(crate) fn entry(text: &str) -> Option<String> {
    if text.contains(" //") || text.contains(" /*") {
        return Some(COMMENTS.to_owned());
    }
    if let Some((key, _)) = text.split_once(':')
        && is_key(key)
    {
        return Some(blank_after_colon(text));
    }
    if text.ends_with([',', ';']) {
        return Some("leave the sign at the end out: a line ends the entry".to_owned());
    }
    let words = text.split_whitespace().count() > 1 && !text.contains(',');
    words.then(|| "write an entry for each host, and other words behind a `#`".to_owned())
}

/// What is the matter with a text as it stands in the file, whatever it is to be.
pub(crate) fn written(written: &str) -> Option<String> {
    if let Some(c) = written.chars().find(|&c| is_strange(c)) {
        return Some(strange(c));
    }
    if written.starts_with(['"', '\'', '|', '>']) {
        return None;
    }
    let next = written.lines().nth(1)?.trim();
    match next.split_once(':').is_some_and(|(key, _)| is_key(key)) {
        true => Some(blank_after_colon(next)),
        false => {
            Some("the next line is read as a part of this: line it up with this one".to_owned())
        }
    }
}

/// Whether somebody who looks at it takes it for a blank, or for nothing at all.
pub(crate) fn is_strange(c: char) -> bool {
    !c.is_ascii() && (c.is_whitespace() || is_hidden(c))
}

/// What to do about such a character.
pub(crate) fn strange(c: char) -> String {
    let what = match c {
        '\u{a0}' => "a no-break space",
        c if c.is_whitespace() => "no ordinary blank",
        _ => "a character that cannot be seen",
    };
    format!(
        "there is {what} (U+{:04X}) here: write a blank, or nothing",
        u32::from(c)
    )
}

/// Words for everything, and for nothing, where they are none of the language.
const EVERYTHING: &[&str] = &[
    "*",
    "any",
    "all",
    "everything",
    "true",
    "yes",
    "on",
    "open",
    "public",
    "allow",
    "allow-all",
    "accept",
    "permit",
    "internet",
    "enabled",
];
const NOTHING: &[&str] = &[
    "none", "nothing", "false", "no", "off", "closed", "deny", "deny-all", "block", "reject",
    "drop", "disabled", "null",
];

fn is_among(word: &str, words: &[&str]) -> bool {
    words.contains(&word.to_lowercase().replace('_', "-").as_str())
}

/// The answer to a word for everything, or to one for nothing.
fn all_or_nothing(word: &str, everything: &str, nothing: &str) -> Option<String> {
    let answer = match word {
        _ if is_among(word, EVERYTHING) => everything,
        _ if is_among(word, NOTHING) => nothing,
        _ => return None,
    };
    Some(answer.to_owned())
}

/// What is meant by a word in place of a list of entries, or as a host.
pub(crate) fn hosts(word: &str, allow: bool) -> Option<String> {
    let (everything, nothing) = match allow {
        true => (
            "every public destination is `default: allow-public`",
            "leave it out: what no entry allows is denied already",
        ),
        false => (
            "leave it out: what no entry allows is denied already",
            "leave it out if nothing is to be denied",
        ),
    };
    all_or_nothing(word, everything, nothing)
}

/// What to say about a word that is no default.
pub(crate) fn default(word: &str) -> String {
    did_you_mean(word, &["deny", "allow-public"]).unwrap_or_else(|| {
        "`deny` refuses what no entry allows; `allow-public` allows every public destination"
            .to_owned()
    })
}

/// What can be open of the host.
pub(crate) const OF_THE_HOST: &str =
    "`host_gateway: allow` opens every port of it, `[5432]` this one, and `deny` none";

/// What is meant by a text in place of what is open of the host.
pub(crate) fn host_gateway(word: &str) -> String {
    match is_among(word, EVERYTHING) {
        true => OF_THE_HOST.to_owned(),
        false => ports(word, OF_THE_HOST).unwrap_or_else(|| OF_THE_HOST.to_owned()),
    }
}

/// What is meant by a word for everything, where a list narrows.
pub(crate) fn narrows(word: &str, what: &str) -> Option<String> {
    let narrows = matches!(what, "`by`" | "`under`" | "`http`") && is_among(word, EVERYTHING);
    narrows.then(|| format!("leave {what} out: without it there is no limit"))
}

/// Names of ports that people write.
const SERVICES: &[(&str, u16)] = &[
    ("http", 80),
    ("https", 443),
    ("ssh", 22),
    ("git", 9418),
    ("dns", 53),
    ("domain", 53),
    ("ftp", 21),
    ("smtp", 25),
    ("imap", 143),
    ("imaps", 993),
    ("ldap", 389),
    ("ldaps", 636),
    ("mysql", 3306),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("redis", 6379),
    ("mongodb", 27017),
];

/// What is meant by a text that is no port. `every` says how every port is written there, if it can be.
pub(crate) fn port(text: &str, every: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let word = lower
        .strip_suffix("/tcp")
        .or_else(|| lower.strip_suffix("/udp"));
    let word = word.unwrap_or(&lower);
    if is_among(word, EVERYTHING) || matches!(word, "1-65535" | "0-65535") {
        return Some(every.to_owned()).filter(|every| !every.is_empty());
    }
    if let Some((_, port)) = SERVICES.iter().find(|(name, _)| *name == word) {
        return Some(format!("{word} is {port}"));
    }
    if word.len() < lower.len() && parse_port(word).is_ok() {
        return Some(format!("write {word}: no protocol stands behind a port"));
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let range = word.split_once(['-', ':']);
    range
        .filter(|(first, last)| digits(first.trim()) && digits(last.trim()))
        .map(|_| "ranges are not known: list the ports".to_owned())
}

/// The key for ports that stand behind a host.
pub(crate) fn ports_key(text: &str) -> String {
    match port(text, "any").as_deref() {
        Some("any") => "`ports: any`".to_owned(),
        _ => format!("`ports: [{}]`", shown(text)),
    }
}

/// What is meant by a text in place of a list of ports.
pub(crate) fn ports(text: &str, every: &str) -> Option<String> {
    if let Some(help) = port(text, every) {
        return Some(help);
    }
    let ports: Vec<_> = text.split(',').map(str::trim).collect();
    let all = ports.iter().all(|port| parse_port(port).is_ok());
    all.then(|| format!("write `[{}]`", ports.join(", ")))
}

/// What to write in place of numbers and `*` with dots between, or of a part of an address.
pub(crate) fn network(text: &str) -> Option<String> {
    let parts: Vec<_> = text.split('.').collect();
    let number = |part: &&&str| {
        let plain =
            part.bytes().all(|b| b.is_ascii_digit()) && !(part.len() > 1 && part.starts_with('0'));
        plain && part.parse::<u8>().is_ok()
    };
    let numbers: Vec<_> = parts.iter().take_while(number).copied().collect();
    let stars = parts.iter().skip(numbers.len());
    let only_stars = stars.clone().all(|part| *part == "*");
    if !matches!((numbers.len(), parts.len()), (1..=3, 2..=4)) || !only_stars {
        return None;
    }
    let zeros = ["0"; 4];
    let filled: Vec<_> = numbers.iter().chain(&zeros).take(4).copied().collect();
    let network = format!("`{}/{}`", filled.join("."), 8 * numbers.len());
    Some(match stars.count() {
        0 => format!("an address has four numbers; a network is {network}"),
        _ => format!("write {network}"),
    })
}

/// What to write in place of an IPv6 address that may have a port in it, such as `2001:db8::1:443`.
pub(crate) fn port_in_brackets(text: &str) -> Option<String> {
    let (address, port) = text.rsplit_once(':')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let port = parse_port(port).ok().filter(|&port| port > 9)?;
    Some(format!("if {port} is the port, write `[{address}]:{port}`"))
}

/// The thing in brackets, where that can be shown and means what was meant.
pub(crate) fn bracketed(written: &str) -> String {
    let quoted = written.starts_with(['"', '\'', '{']);
    let safe = |c: char| !c.is_control() && !is_strange(c) && !matches!(c, '`' | '#');
    if written.len() > 60 || written.is_empty() || !written.chars().all(safe) {
        return "[...]".to_owned();
    }
    // A comma or a bracket would be one of the list's.
    let lone_comma = written.match_indices(',').any(|(at, _)| {
        !written
            .get(at + 1..)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    match quoted || !(lone_comma || written.contains(['[', ']', '{', '}'])) {
        true => format!("[{written}]"),
        false if written.contains(['"', '\\']) => "[...]".to_owned(),
        false => format!("[\"{written}\"]"),
    }
}

/// What should be said of a path that has a sign in it which other programs expand, if it has one.
pub(crate) fn not_expanded(path: &str) -> Option<char> {
    path.chars().find(|c| matches!(c, '*' | '?' | '$'))
}
