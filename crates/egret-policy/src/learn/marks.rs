//! What about a destination deserves a second look, in words.
//!
//! Each is something that can be told from the destination itself and from what was done with it; there is no list of names
//! that somebody thought suspicious. Under which names anyone can register, the list of public suffixes says.

use super::Met;
use crate::suffix::{Suffix, public_suffix, registered};

/// Whoever sends more than this to a place has sent something.
const MUCH: u64 = 1 << 20;

/// Ports with a protocol that programs speak with public servers, besides those of the web.
const USUAL_PORTS: [u16; 11] = [22, 443, 465, 587, 853, 993, 995, 3306, 5432, 6379, 9418];

/// About an address.
pub(super) fn of_address(ports: &[u16], met: &[&Met]) -> Vec<String> {
    let literal =
        "a literal address, of which nobody knows whose it will be; allow a name if there is one";
    let mut marks = vec![literal.to_owned()];
    marks.extend(of_use(ports, met));
    marks
}

/// About a name.
pub(super) fn of_name(name: &str, ports: &[u16], met: &[&Met]) -> Vec<String> {
    let mut marks = Vec::new();
    let domain = registered(name);
    if let Some((_, suffix)) = domain.split_once('.')
        && public_suffix(suffix) == Some(Suffix::Private)
    {
        marks.push(format!("anyone can get a name under {suffix}"));
    }
    if name.split('.').any(|label| label.starts_with("xn--")) {
        marks.push("it has letters beyond ASCII, which may look like others".to_owned());
    }
    let own = name.strip_suffix(domain).unwrap_or_default();
    if let Some(label) = own.split('.').find(|label| looks_made_up(label)) {
        marks.push(format!(
            "`{label}` looks made up, and a name can carry data"
        ));
    }
    marks.extend(of_use(ports, met));
    marks
}

/// About a wildcard that stands for these names.
pub(super) fn of_wildcard(
    parent: &str,
    names: &[&str],
    ports: &[u16],
    met: &[&Met],
) -> Vec<String> {
    let some: Vec<_> = names.iter().take(3).copied().collect();
    let more = match names.len() - some.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let mut marks = vec![format!(
        "every name under {parent}; seen were {}{more}",
        some.join(", ")
    )];
    let first = |name: &&&str| name.split('.').next().is_some_and(looks_made_up);
    if names.iter().any(|name| first(&name)) {
        marks.push("some look made up, and a name can carry data".to_owned());
    }
    marks.extend(of_use(ports, met).into_iter().filter(|mark| mark != ONCE));
    marks
}

const ONCE: &str = "only one connection was made";

fn of_use(ports: &[u16], met: &[&Met]) -> Vec<String> {
    let mut marks = Vec::new();
    if met.iter().map(|met| met.reached).sum::<u64>() == 1 {
        marks.push(ONCE.to_owned());
    }
    if ports.contains(&80) {
        marks.push("what goes to port 80 can be read and changed on the way".to_owned());
    }
    let unusual = ports
        .iter()
        .filter(|port| **port != 80 && !USUAL_PORTS.contains(port));
    let unusual: Vec<_> = unusual.map(u16::to_string).collect();
    match unusual.as_slice() {
        [] => {}
        [port] => marks.push(format!("{port} is an unusual port")),
        ports => marks.push(format!("{} are unusual ports", ports.join(", "))),
    }
    let sent = met
        .iter()
        .fold(0, |sum: u64, met| sum.saturating_add(met.sent));
    if sent >= MUCH {
        marks.push(format!("{} MiB were sent there", sent >> 20));
    }
    marks
}

/// Whether a label has rather been computed than chosen: long, and digits and letters in turns, hexadecimal, or without vowels.
fn looks_made_up(label: &str) -> bool {
    let letters = label.bytes().filter(u8::is_ascii_alphabetic).count();
    let digits = label.bytes().filter(u8::is_ascii_digit).count();
    let vowels = label.bytes().filter(|b| b"aeiouy".contains(b)).count();
    let pairs = label.as_bytes().windows(2);
    let turns = pairs.filter(|pair| matches!(pair, [a, b] if a.is_ascii_digit() != b.is_ascii_digit() && *a != b'-' && *b != b'-'));
    let hexadecimal = label.bytes().all(|b| b.is_ascii_hexdigit());
    match label.len() {
        32.. => true,
        16.. => {
            hexadecimal && digits >= 4
                || turns.count() >= 4
                || letters >= 12 && vowels * 6 < letters
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computed_labels_are_told_from_chosen_ones() {
        #[rustfmt::skip]
        let table = [
            ("registry", false), ("api-v2", false), ("files-northamerica-1", false), ("production-release-asset", false),
            ("objects-origin", false), ("s3-us-west-2", false), ("internationalisation", false), ("e1234", false),
            ("0123456789abcdef0123", true), ("mzxw6ytboi2dg4tfmfza", true), ("a1b2c3d4e5f6a7b8", true), ("bcdfghjklmnpqrstv", true),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true),
        ];
        for (label, expected) in table {
            assert_eq!(looks_made_up(label), expected, "{label}");
        }
    }
}
