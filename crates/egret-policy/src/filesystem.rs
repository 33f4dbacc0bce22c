//! The `filesystem:` section: which paths of this machine a sandboxed program has, and where.
//!
//! Not here: what is at those paths, and how they get into a sandbox.

use std::fmt;

/// The `filesystem:` section, as it was written: `~` and relative paths are the caller's to resolve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// Paths that may be read though they would be hidden. In a container, which has no other files of this machine, those
    /// that are there.
    pub read: Vec<Share>,
    /// Paths that may be written. Of one that is in both lists, this holds.
    pub write: Vec<Share>,
    /// Paths that are not to be there.
    pub hide: Vec<String>,
}

/// A path of this machine that a sandboxed program may read or write, and where it has it.
///
/// Displays as it is written in a policy, `HOST` or `HOST:INSIDE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// The path on this machine.
    pub host: String,
    /// The path inside, absolute, without `.`, `..` and a slash at the end. None where it is the same as outside, once that
    /// is resolved. Only a container can have it elsewhere.
    pub inside: Option<String>,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.inside
            .iter()
            .try_for_each(|inside| write!(f, ":{inside}"))
    }
}
