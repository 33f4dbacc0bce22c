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
    #[serde(with = "wire")]
    pub program: OsString,
    /// Its arguments, without its own name.
    #[serde(with = "wire")]
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    #[serde(with = "wire")]
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

/// What the operating system takes for text, on the way to the jail. Most of it is text, and goes as such; all else as bytes.
mod wire {
    use super::Mark;
    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::ffi::OsString;
    use std::fmt;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::PathBuf;

    /// Something made of paths and the like, and the same made of [`Octets`].
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

    pub(super) struct Octets(OsString);

    impl Serialize for Octets {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0.to_str() {
                Some(text) => serializer.serialize_str(text),
                None => self.0.as_bytes().serialize(serializer),
            }
        }
    }

    impl<'de> Deserialize<'de> for Octets {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(TextOrBytes)
        }
    }

    struct TextOrBytes;

    impl<'de> Visitor<'de> for TextOrBytes {
        type Value = Octets;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or a list of bytes")
        }

        fn visit_str<E>(self, text: &str) -> Result<Octets, E> {
            Ok(Octets(text.into()))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Octets, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = list.next_element()? {
                bytes.push(byte);
            }
            Ok(Octets(OsString::from_vec(bytes)))
        }
    }

    impl OfPaths for OsString {
        type Raw = Octets;
        fn into_raw(self) -> Octets {
            Octets(self)
        }
        fn from_raw(raw: Octets) -> Self {
            raw.0
        }
    }

    impl OfPaths for PathBuf {
        type Raw = Octets;
        fn into_raw(self) -> Octets {
            Octets(self.into())
        }
        fn from_raw(raw: Octets) -> Self {
            raw.0.into()
        }
    }

    impl OfPaths for Mark {
        type Raw = Self;
        fn into_raw(self) -> Self {
            self
        }
        fn from_raw(raw: Self) -> Self {
            raw
        }
    }

    impl<T: OfPaths, U: OfPaths> OfPaths for (T, U) {
        type Raw = (T::Raw, U::Raw);
        fn into_raw(self) -> Self::Raw {
            (self.0.into_raw(), self.1.into_raw())
        }
        fn from_raw((first, second): Self::Raw) -> Self {
            (T::from_raw(first), U::from_raw(second))
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
