//! Public suffixes: names under which anyone can register.
//!
//! The list is embedded as sorted text and searched by halving: 144 KB of data and no code, where a matcher generated
//! from it adds 2 MB to the binary. It is asked about wildcards only, while a policy is read, so that speed is no
//! concern. What the list does not know is no public suffix, other than in the list's own algorithm: networks have
//! top-level names of their own.

/// Who lets people register under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suffix {
    /// A registry, under ICANN's rules: `com`, `co.uk`.
    Icann,
    /// A company that gives names to its customers: `github.io`.
    Private,
}

/// What kind of public suffix a canonical name is, if it is one.
pub(crate) fn public_suffix(name: &str) -> Option<Suffix> {
    if is_suffix(ICANN, name) {
        Some(Suffix::Icann)
    } else if is_suffix(PRIVATE, name) {
        Some(Suffix::Private)
    } else {
        None
    }
}

/// The part of a canonical name, or of the base of a pattern, that somebody registered: a public suffix and one label more.
/// What is a suffix itself, or has one label, is its own. Of what the list does not know, the last label is the suffix.
pub(crate) fn registered(name: &str) -> &str {
    let mut found = name.rsplit('.').next().unwrap_or(name);
    for (nth, (dot, _)) in name.rmatch_indices('.').enumerate() {
        let (before, suffix) = name.split_at(dot);
        let suffix = suffix.trim_start_matches('.');
        if nth == 0 || public_suffix(suffix).is_some() {
            let start = before.rfind('.').map_or(0, |dot| dot + 1);
            found = name.get(start..).unwrap_or(name);
        }
    }
    found
}

fn is_suffix(list: &str, name: &str) -> bool {
    if has_rule(list, "!", name) {
        return false;
    }
    // The parent of a wildcard rule counts too: whatever stands directly under it is a suffix.
    let parent = name.split_once('.').map(|(_, parent)| parent);
    has_rule(list, "", name)
        || has_rule(list, "*.", name)
        || parent.is_some_and(|parent| has_rule(list, "*.", parent))
}

/// Whether the line `mark` + `name` is in the sorted list.
fn has_rule(list: &str, mark: &str, name: &str) -> bool {
    let wanted = || mark.bytes().chain(name.bytes());
    let (mut low, mut high) = (0, list.len());
    // `low` and `high` are always starts of lines, or the end.
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(before) = list.get(..middle) else {
            return false;
        };
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let Some(line) = list.get(start..).and_then(|rest| rest.lines().next()) else {
            return false;
        };
        match wanted().cmp(line.bytes()) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => high = start,
            std::cmp::Ordering::Greater => low = start + line.len() + 1,
        }
    }
    false
}

const ICANN: &str = include_str!("../data/icann.txt");
const PRIVATE: &str = include_str!("../data/private.txt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_as_its_rules_say() {
        #[rustfmt::skip]
        let table = [
            // name                  is
            ("com",                  Some(Suffix::Icann)),
            ("co.uk",                Some(Suffix::Icann)),
            ("example.com",          None),
            ("foo.ck",               Some(Suffix::Icann)), // *.ck
            ("ck",                   Some(Suffix::Icann)), // everything under it is a suffix
            ("www.ck",               None),                // !www.ck
            ("kobe.jp",              Some(Suffix::Icann)),
            ("city.kobe.jp",         None),
            ("xn--p1ai",             Some(Suffix::Icann)),
            ("github.io",            Some(Suffix::Private)),
            ("vercel.app",           Some(Suffix::Private)),
            ("githubusercontent.com", Some(Suffix::Private)),
            ("corp",                 None),                // not in the list
            ("internal",             None),
            ("",                     None),
        ];
        for (name, expected) in table {
            assert_eq!(public_suffix(name), expected, "{name}");
        }
    }

    #[test]
    fn what_somebody_registered_is_a_label_under_a_suffix() {
        #[rustfmt::skip]
        let table = [
            ("api.github.com",         "github.com"),
            ("github.com",             "github.com"),
            ("a.b.example.co.uk",      "example.co.uk"),
            ("x.someone.github.io",    "someone.github.io"),
            ("github.io",              "github.io"),
            ("bucket.s3.amazonaws.com", "bucket.s3.amazonaws.com"),
            ("sts.amazonaws.com",      "amazonaws.com"),
            ("a.www.ck",               "www.ck"),
            ("a.b.foo.ck",             "b.foo.ck"),
            ("db.corp",                "db.corp"),
            ("a.db.corp",              "db.corp"),
            ("corp",                   "corp"),
            ("com",                    "com"),
            ("",                       ""),
        ];
        for (name, expected) in table {
            assert_eq!(registered(name), expected, "{name}");
        }
    }

    #[test]
    fn every_line_of_the_list_is_found() {
        for list in [ICANN, PRIVATE] {
            assert!(list.is_ascii() && list.lines().is_sorted());
            for line in list.lines() {
                assert!(has_rule(list, "", line), "{line}");
            }
        }
    }
}
