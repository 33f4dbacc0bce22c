//! Programs: which executable makes a connection, and how an entry says which ones it means.
//!
//! A program is its executable's file, as the kernel names it, and what it was started by. Links are resolved by whoever
//! asks the kernel; nothing here looks at a file.

use serde::{Deserialize, Serialize};

use crate::glob::{BadGlob, PathGlob};
use crate::text::entry::{BadEntry, Side};

/// The program behind a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Program {
    /// The absolute path of its executable, without links, as the sandbox sees it.
    pub executable: String,
    /// The executables of the processes that it descends from, its parent first, as far as they are known.
    pub ancestors: Vec<String>,
}

/// Stands for a program that no entry is likely to name.
pub(crate) const OTHER_PROGRAM: &str = "/some other program/which no entry names";

/// Who asks, as far as that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker<'a> {
    /// This program.
    Program(&'a Program),
    /// Somebody; nobody could tell who.
    Unknown,
    /// Whoever it takes: what could be reached by some program.
    Anyone,
}

impl<'a> From<Option<&'a Program>> for Asker<'a> {
    fn from(program: Option<&'a Program>) -> Self {
        program.map_or(Self::Unknown, Self::Program)
    }
}

/// The programs that an entry is about: all of them where there are no patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Programs(Box<[ProgramPattern]>);

/// Some of the programs that an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProgramPattern {
    pub(crate) path: PathGlob,
    /// Whether the programs that these started are meant too.
    pub(crate) descendants: bool,
}

impl Programs {
    pub(crate) fn new(patterns: Vec<ProgramPattern>) -> Self {
        Self(patterns.into())
    }

    /// Whether every program is meant.
    pub(crate) fn are_all(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ProgramPattern> {
        self.0.iter()
    }

    /// Adds the patterns that `more` makes of those that are there. Does not narrow "all" down.
    pub(crate) fn extend(&mut self, more: impl Fn(&ProgramPattern) -> Option<ProgramPattern>) {
        let more: Vec<_> = self.0.iter().filter_map(more).collect();
        let added = more.into_iter().filter(|pattern| !self.0.contains(pattern));
        self.0 = self.0.iter().cloned().chain(added).collect();
    }

    /// Whether an entry is about who asks. What is not known does not help: nobody is allowed for being unknown, and
    /// nobody escapes a deny entry for it.
    pub(crate) fn mean(&self, asker: Asker<'_>, side: Side) -> bool {
        self.are_all()
            || match (asker, side) {
                (Asker::Program(program), _) => self.0.iter().any(|one| one.means(program)),
                (Asker::Unknown, Side::Allow) | (Asker::Anyone, Side::Deny) => false,
                (Asker::Unknown, Side::Deny) | (Asker::Anyone, Side::Allow) => true,
            }
    }
}

impl ProgramPattern {
    /// Reads an item of `by:` or, for `descendants`, of `under:`.
    pub(crate) fn parse(text: &str, descendants: bool) -> Result<Self, BadEntry> {
        let bad = |BadGlob { part, why }| {
            let anywhere = format!("/{text}");
            let help = match text {
                _ if text.starts_with("~/") => "write the whole path in place of `~`",
                _ if text.starts_with('$') => "write the whole path: variables are not expanded",
                _ if text.starts_with("**/") => &format!("write `{}`", anywhere.escape_debug()),
                _ if text.contains('/') => "",
                _ => "write where it is, such as `/usr/bin/curl`; `command -v NAME` tells",
            };
            let message = format!("`{}` does not name an executable", text.escape_debug());
            BadEntry::new(part, message, why, help)
        };
        if text.ends_with('/') {
            return Err(bad(BadGlob {
                part: text.len() - 1..text.len(),
                why: "this names a directory; add `**` for everything below it",
            }));
        }
        let path = PathGlob::parse(text, path_flaw).map_err(bad)?;
        Ok(Self { path, descendants })
    }

    /// The pattern for one executable, if it can be written as one.
    pub(crate) fn plain(executable: &str, descendants: bool) -> Option<Self> {
        let path = PathGlob::parse(executable, |_| None).ok()?;
        let plain = !path.has_wildcards() && !executable.ends_with('/');
        plain.then_some(Self { path, descendants })
    }

    /// Programs that it means: with a usual word for each wildcard, and with one that nobody uses.
    pub(crate) fn examples(&self) -> impl Iterator<Item = Program> {
        ["any", "zqx7"].into_iter().flat_map(|word| {
            let path = self.path.example(word);
            let started = self.descendants.then(|| Program {
                executable: OTHER_PROGRAM.to_owned(),
                ancestors: vec![path.clone()],
            });
            let itself = Program {
                executable: path,
                ancestors: Vec::new(),
            };
            std::iter::once(itself).chain(started)
        })
    }

    fn means(&self, program: &Program) -> bool {
        let matches = |path: &String| {
            // There may be many to compare with, and most are written out.
            if !self.path.has_wildcards() {
                return self.path.as_str() == path;
            }
            path.strip_prefix('/').is_some_and(|path| {
                let segments: Vec<_> = path.split('/').collect();
                self.path.matches(&segments)
            })
        };
        matches(&program.executable) || (self.descendants && program.ancestors.iter().any(matches))
    }
}

/// What other programs have for a wildcard, and what no executable is called.
fn path_flaw(segment: &str) -> Option<&'static str> {
    segment.chars().find_map(|c| match c {
        '?' => Some("`*` and `**` are the only wildcards"),
        '{' | '}' => Some("braces are not expanded: write an item for each"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_an_executable_or_what_it_started() {
        let git = Program {
            executable: "/usr/lib/git-core/git-remote-http".into(),
            ancestors: vec!["/usr/bin/git".into(), "/usr/bin/bash".into()],
        };
        #[rustfmt::skip]
        let table = [
            ("/usr/bin/git",       false, false),
            ("/usr/bin/git",       true,  true ),
            ("/usr/lib/git-core/git-remote-http", false, true ),
            ("/usr/lib/git-core/*", false, true ),
            ("/usr/*",             false, false),
            ("/usr/**",            false, true ),
            ("/opt/**",            true,  false),
            ("/usr/bin/bas*",      true,  true ),
        ];
        for (pattern, descendants, expected) in table {
            let pattern = ProgramPattern::parse(pattern, descendants).unwrap();
            assert_eq!(pattern.means(&git), expected, "{pattern:?}");
        }
    }

    #[test]
    fn what_is_not_known_helps_nobody() {
        let some = Programs::new(vec![ProgramPattern::parse("/a", false).unwrap()]);
        let all = Programs::default();
        for side in [Side::Allow, Side::Deny] {
            assert!(all.mean(Asker::Unknown, side) && all.mean(Asker::Anyone, side));
        }
        assert!(!some.mean(Asker::Unknown, Side::Allow) && some.mean(Asker::Unknown, Side::Deny));
        assert!(some.mean(Asker::Anyone, Side::Allow) && !some.mean(Asker::Anyone, Side::Deny));
    }

    #[test]
    fn only_absolute_paths_name_executables() {
        for bad in [
            "",
            "curl",
            "./curl",
            "/usr/bin/",
            "/usr//bin",
            "/usr/../bin/x",
        ] {
            assert!(ProgramPattern::parse(bad, false).is_err(), "{bad}");
        }
    }
}
