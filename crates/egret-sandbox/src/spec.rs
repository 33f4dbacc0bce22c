//! What to run and how tightly, with nothing left to find out.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;

/// A program and the files it may see.
///
/// Every path is absolute. Nothing is looked up any more once a `Spec` exists, so building the same one twice gives the
/// same sandbox.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Spec {
    /// The program, as its caller named it: with a slash a path, without one a name to look for in `PATH`.
    pub program: OsString,
    /// Its arguments, without its own name.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it starts.
    #[serde(with = "wire")]
    pub directory: PathBuf,
    /// What it may see and change.
    pub files: Files,
    /// Whether it may make user namespaces of its own, which some programs' own sandboxes need.
    pub allow_user_namespaces: bool,
}

/// The file system as the program sees it: the machine's own, read-only, changed by these marks.
///
/// The mark on the longest path wins. `/proc`, `/sys`, `/dev`, `/run`, `/tmp` and `/var/tmp` are the sandbox's own;
/// a mark beneath one of them makes that one path of the machine appear in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Files {
    /// Paths and the marks on them. Of two marks on one path the later counts.
    #[serde(with = "wire")]
    pub marks: Vec<(PathBuf, Mark)>,
    /// Files that nothing inside can change or replace, wherever they are. They need not be visible.
    #[serde(with = "wire")]
    pub protected: Vec<PathBuf>,
}

/// What a program may do with a path and everything beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Mark {
    /// The path is not there.
    Hide,
    /// The path is there as it is outside, but nothing can be changed.
    Read,
    /// The path is there as it is outside.
    Write,
}

/// Paths on the way to the jail, as what the operating system takes them for: serde takes a path for text.
mod wire {
    use super::Mark;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::ffi::OsString;
    use std::path::PathBuf;

    /// Something made of paths, and the same made of what paths are made of.
    pub(super) trait OfPaths: Clone {
        type Raw: Serialize + for<'de> Deserialize<'de>;
        fn into_raw(self) -> Self::Raw;
        fn from_raw(raw: Self::Raw) -> Self;
    }

    pub(super) fn serialize<T: OfPaths, S: Serializer>(
        paths: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        paths.clone().into_raw().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: OfPaths, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        T::Raw::deserialize(deserializer).map(T::from_raw)
    }

    impl OfPaths for PathBuf {
        type Raw = OsString;
        fn into_raw(self) -> OsString {
            self.into_os_string()
        }
        fn from_raw(raw: OsString) -> Self {
            raw.into()
        }
    }

    impl OfPaths for (PathBuf, Mark) {
        type Raw = (OsString, Mark);
        fn into_raw(self) -> Self::Raw {
            (self.0.into(), self.1)
        }
        fn from_raw((path, mark): Self::Raw) -> Self {
            (path.into(), mark)
        }
    }

    impl<T: OfPaths> OfPaths for Vec<T> {
        type Raw = Vec<T::Raw>;
        fn into_raw(self) -> Self::Raw {
            self.into_iter().map(T::into_raw).collect()
        }
        fn from_raw(raw: Self::Raw) -> Self {
            raw.into_iter().map(T::from_raw).collect()
        }
    }
}
