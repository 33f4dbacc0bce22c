//! Globs over paths, those of files and those of requests: `*` within a segment, `**` for any number of segments.
//!
//! Matching takes time in proportion to the path times the pattern, whatever the pattern.

use std::ops::Range;

use crate::visible::is_hidden;

/// A pattern for a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PathGlob {
    /// As it was written.
    text: Box<str>,
    wildcards: bool,
    segments: Box<[Segment]>,
}

/// A part of a pattern between two slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    /// `**`
    AnyNumber,
    /// Octets with `*`s between them; one piece where there is none.
    Pieces(Box<[Box<[u8]>]>),
}

/// Why a text is no pattern, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadGlob {
    pub(crate) part: Range<usize>,
    pub(crate) why: &'static str,
}

impl PathGlob {
    /// Reads a pattern. A slash at the end is a last segment that is empty; what else a segment may be, the caller says.
    pub(crate) fn parse(
        text: &str,
        segment_flaw: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<Self, BadGlob> {
        let bad = |part, why| Err(BadGlob { part, why });
        let Some(rest) = text.strip_prefix('/') else {
            return bad(0..text.len(), "a path begins with `/`");
        };
        if text.len() > MAX_GLOB {
            return bad(0..text.len(), "a path has at most 4096 octets");
        }
        let mut segments = Vec::new();
        let mut at = 1;
        for segment in rest.split('/') {
            let part = at..at + segment.len();
            at = part.end + 1;
            let last = part.end == text.len();
            match segment {
                "**" => segments.push(Segment::AnyNumber),
                "." | ".." => return bad(part, "a path has no `.` and no `..`"),
                "" if !last => return bad(part, "there is nothing between the slashes"),
                _ if segment.contains("**") => {
                    return bad(part, "`**` stands alone between slashes");
                }
                _ => {
                    if segment.chars().any(is_hidden) {
                        return bad(
                            part,
                            "a character that cannot be seen cannot stand in a path",
                        );
                    }
                    if let Some(why) = segment_flaw(segment) {
                        return bad(part, why);
                    }
                    let pieces = segment.split('*').map(|piece| piece.as_bytes().into());
                    segments.push(Segment::Pieces(pieces.collect()));
                }
            }
        }
        Ok(Self {
            text: text.into(),
            wildcards: text.contains('*'),
            segments: segments.into(),
        })
    }

    /// The pattern as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The same in lower case; it is still shown as it was written.
    pub(crate) fn folded(&self) -> Self {
        let fold = |piece: &[u8]| {
            let text = String::from_utf8_lossy(piece).to_lowercase();
            text.into_bytes().into_boxed_slice()
        };
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::AnyNumber => Segment::AnyNumber,
            Segment::Pieces(pieces) => {
                Segment::Pieces(pieces.iter().map(|piece| fold(piece)).collect())
            }
        });
        Self {
            text: self.text.clone(),
            wildcards: self.wildcards,
            segments: segments.collect(),
        }
    }

    /// A path that it matches, with this word for its wildcards.
    pub(crate) fn example(&self, word: &str) -> String {
        self.text.replace("**", word).replace('*', word)
    }

    /// Whether there is a wildcard in it.
    pub(crate) fn has_wildcards(&self) -> bool {
        self.wildcards
    }

    /// Whether it matches a path, given as its segments. `**` may match none; a `*` alone matches one that is not empty.
    pub(crate) fn matches<S: AsRef<[u8]>>(&self, path: &[S]) -> bool {
        let pattern = &self.segments;
        let (mut at, mut next) = (0, 0);
        // Where the last `**` stands, and the first segment that it has not been tried to swallow.
        let mut open: Option<(usize, usize)> = None;
        loop {
            match (pattern.get(at), path.get(next)) {
                (None, None) => return true,
                (Some(Segment::AnyNumber), _) => {
                    open = Some((at, next));
                    at += 1;
                    continue;
                }
                (Some(Segment::Pieces(pieces)), Some(segment))
                    if segment_matches(pieces, segment.as_ref()) =>
                {
                    at += 1;
                    next += 1;
                    continue;
                }
                _ => {}
            }
            match open {
                Some((star, swallowed)) if swallowed < path.len() => {
                    open = Some((star, swallowed + 1));
                    at = star + 1;
                    next = swallowed + 1;
                }
                _ => return false,
            }
        }
    }
}

/// Whether the pieces stand in the segment in their order, the first at its beginning and the last at its end.
fn segment_matches(pieces: &[Box<[u8]>], segment: &[u8]) -> bool {
    let (first, rest) = match pieces {
        [] => return segment.is_empty(),
        [only] => return **only == *segment,
        [first, rest @ ..] => (first, rest),
    };
    let Some((last, middle)) = rest.split_last() else {
        return false;
    };
    let whole_star = pieces.iter().all(|piece| piece.is_empty());
    let Some(mut open) = segment
        .strip_prefix(&**first)
        .and_then(|open| open.strip_suffix(&**last))
    else {
        return false;
    };
    for piece in middle.iter().filter(|piece| !piece.is_empty()) {
        let found = open
            .windows(piece.len())
            .position(|window| *window == **piece);
        match found.and_then(|at| open.get(at + piece.len()..)) {
            Some(after) => open = after,
            None => return false,
        }
    }
    !(whole_star && segment.is_empty())
}

/// The most octets of a pattern; as long as a path of Linux may be (PATH_MAX).
const MAX_GLOB: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let glob = PathGlob::parse(pattern, |_| None).unwrap();
        let segments: Vec<&str> = path.strip_prefix('/').unwrap().split('/').collect();
        glob.matches(&segments)
    }

    #[test]
    fn a_star_stays_in_its_segment_and_two_stars_do_not() {
        #[rustfmt::skip]
        let table = [
            ("/a",            "/a",           true ),
            ("/a",            "/A",           false),
            ("/a",            "/a/",          false),
            ("/a/",           "/a/",          true ),
            ("/*",            "/",            false),
            ("/*",            "/a",           true ),
            ("/*",            "/a/b",         false),
            ("/a/*/c",        "/a/b/c",       true ),
            ("/a/*/c",        "/a/c",         false),
            ("/v*",           "/v1",          true ),
            ("/v*",           "/v",           true ),
            ("/*.json",       "/x.json",      true ),
            ("/*.json",       "/x.json.exe",  false),
            ("/a*b*c",        "/a-b-c",       true ),
            ("/a*b*c",        "/ac",          false),
            ("/ab*bc",        "/abc",         false),
            ("/**",           "/",            true ),
            ("/**",           "/a/b",         true ),
            ("/a/**",         "/a",           true ),
            ("/a/**",         "/a/",          true ),
            ("/a/**",         "/a/b/c",       true ),
            ("/a/**",         "/ab",          false),
            ("/**/c",         "/c",           true ),
            ("/**/c",         "/a/b/c",       true ),
            ("/**/c",         "/a/b/d",       false),
            ("/a/**/d/**/g",  "/a/b/d/d/f/g", true ),
            ("/a/**/d/**/g",  "/a/b/f/g",     false),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_could_never_match_is_refused() {
        #[rustfmt::skip]
        let table = [
            ("a",        0..1), ("",       0..0), ("/a//b", 3..3), ("/a/../b", 3..5), ("/.",      1..2), ("/a**", 1..4),
            ("/x/***/y", 3..6), ("/a\n",   1..3),
            ("/a/\u{9b}2J", 3..7), ("/\u{202e}x/y", 1..5), ("/a\u{200b}", 1..5), ("/\u{feff}", 1..4),
        ];
        for (pattern, part) in table {
            assert_eq!(
                PathGlob::parse(pattern, |_| None).unwrap_err().part,
                part,
                "{pattern:?}"
            );
        }
    }

    /// By trying everything.
    fn naive(pattern: &[&str], path: &[&str]) -> bool {
        fn within(pattern: &[u8], text: &[u8]) -> bool {
            match pattern.split_first() {
                None => text.is_empty(),
                Some((b'*', rest)) => (0..=text.len()).any(|taken| within(rest, &text[taken..])),
                Some((c, rest)) => text.first() == Some(c) && within(rest, &text[1..]),
            }
        }
        match pattern.split_first() {
            None => path.is_empty(),
            Some((&"**", rest)) => (0..=path.len()).any(|taken| naive(rest, &path[taken..])),
            Some((&"*", rest)) => {
                path.first().is_some_and(|segment| !segment.is_empty()) && naive(rest, &path[1..])
            }
            Some((segment, rest)) => {
                path.first()
                    .is_some_and(|first| within(segment.as_bytes(), first.as_bytes()))
                    && naive(rest, &path[1..])
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn it_agrees_with_trying_everything(
            pattern in prop::collection::vec(prop_oneof![Just("**".to_owned()), Just("*".to_owned()), "[ab]{1,3}", "[ab]?\\*[ab]?(\\*[ab])?"], 1..6),
            path in prop::collection::vec("[ab]{0,4}", 1..6),
        ) {
            let text = format!("/{}", pattern.join("/"));
            if let Ok(glob) = PathGlob::parse(&text, |_| None) {
                let pattern: Vec<&str> = pattern.iter().map(String::as_str).collect();
                let segments: Vec<&str> = path.iter().map(String::as_str).collect();
                prop_assert_eq!(glob.matches(&segments), naive(&pattern, &segments), "{} {:?}", text, path);
            }
        }
    }
}
