//! Reading the paths of `filesystem:`, in Egret's own language and for those of others.

use std::collections::HashMap;

use crate::filesystem::Share;
use crate::report::{Report, Span};
use crate::text::advice;
use crate::text::entry::BadEntry;
use crate::text::reader::shown;

/// Reads `HOST` or `HOST:INSIDE`.
pub(crate) fn parse_share(text: &str) -> Result<Share, BadEntry> {
    let mut parts = text.splitn(3, ':');
    let host = parse_path(parts.next().unwrap_or_default(), text)?;
    let (inside, more) = (parts.next(), parts.next());
    if let Some(option) = more.or(inside).filter(|word| is_option(word)) {
        let part = text.len() - option.len() - 1..text.len();
        let help = format!("leave `:{option}` out");
        let message = "`read` and `write` say already whether a path can be changed";
        return Err(BadEntry::new(part, message, "", help));
    }
    if more.is_some() {
        let message = "a path is `PATH` or `HOST:INSIDE`";
        return Err(BadEntry::new(0..text.len(), message, "", COLON));
    }
    share(text, host, inside)
}

/// Reads a path of `hide`.
pub(crate) fn parse_hidden(text: &str) -> Result<String, BadEntry> {
    if let Some(at) = text.find(':') {
        let message = "a path of `hide` has no colon";
        return Err(BadEntry::new(at..text.len(), message, "", COLON));
    }
    parse_path(text, text).map(str::to_owned)
}

/// What to do about a path that has one.
const COLON: &str = "what is behind a colon is where a path is inside; a file that has one in its name cannot be named";

/// Puts a path outside and one inside together; `text` is both with a colon between, and `inside` may be missing.
pub(crate) fn share(text: &str, host: &str, inside: Option<&str>) -> Result<Share, BadEntry> {
    let host = host.to_owned();
    let Some(inside) = inside else {
        return Ok(Share { host, inside: None });
    };
    let bad = |message: &str, help: &str| {
        let part = text.len() - inside.len()..text.len();
        Err(BadEntry::new(part, message, "", help))
    };
    if inside.contains(['*', '?', '$', '\0']) {
        parse_path(inside, text)?;
    }
    match normal(inside) {
        _ if !inside.starts_with('/') => bad("where a path is inside begins with `/`", COLON),
        None => bad("where a path is inside has no `..`", "write it without"),
        Some(path) if path.is_empty() => bad(
            "a path cannot be all that is inside",
            "name a directory below `/`",
        ),
        // Written twice, it is still one place.
        Some(path) if host.starts_with('/') && normal(&host).as_ref() == Some(&path) => {
            Ok(Share { host, inside: None })
        }
        Some(path) => Ok(Share {
            host,
            inside: Some(path),
        }),
    }
}

/// Refuses two paths in the same place; only one of them could be there.
pub(crate) fn check_places<'a>(
    shares: impl IntoIterator<Item = &'a (Span, Share)>,
    report: &mut Report<'_>,
) {
    let mut taken: HashMap<String, (Span, &str)> = HashMap::new();
    for (span, share) in shares {
        let host = normal(&share.host).filter(|_| share.host.starts_with('/'));
        let Some(place) = share.inside.clone().or_else(|| host.clone()) else {
            continue;
        };
        let (first, path) = *taken.entry(place.clone()).or_insert((*span, &share.host));
        if path != share.host && normal(path) != host {
            let label = format!("{} has `{}` there", report.place(first, *span), shown(path));
            let message = format!("two paths cannot both be `{}` inside", shown(&place));
            let help = "write another place behind the colon of one of them".to_owned();
            report.error(*span, message, label, Some(help));
        }
    }
}

/// Reads a path of this machine, which is the whole of `text` or a part of it.
fn parse_path<'t>(path: &'t str, text: &str) -> Result<&'t str, BadEntry> {
    let whole = 0..text.len();
    if path.is_empty() || path.contains('\0') {
        return Err(BadEntry::new(whole, "this is not a path", "", ""));
    }
    match advice::not_expanded(path) {
        None => Ok(path),
        Some(sign) => {
            let message = format!("a path of `filesystem` has no `{sign}`");
            let help = "write the path out; a file that is really called so cannot be named";
            Err(BadEntry::new(whole, message, "this is not expanded", help))
        }
    }
}

/// What stands behind a path for `docker run --volume`.
fn is_option(word: &str) -> bool {
    let options = [
        "ro",
        "rw",
        "z",
        "Z",
        "U",
        "O",
        "cached",
        "delegated",
        "consistent",
    ];
    !word.is_empty() && word.split(',').all(|word| options.contains(&word))
}

/// An absolute path without what says nothing: slashes that are repeated or at the end, and `.`. None if it has `..`.
fn normal(path: &str) -> Option<String> {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    let mut normal = String::with_capacity(path.len());
    for part in parts {
        if part == ".." {
            return None;
        }
        normal.extend(["/", part]);
    }
    Some(normal)
}

#[cfg(test)]
mod tests;
