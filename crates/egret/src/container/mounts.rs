//! `-v` and `--mount`, read and written anew. An engine reads more into them than meets the eye (a key again in another
//! case, of which the last counts; options of a volume's driver), so that what is refused here has to be all that is not
//! understood, and an engine gets nothing but what was.

use super::sandbox::is_control_volume;
use std::path::{Component, Path, PathBuf};

/// Something that is mounted in an isolated container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mount {
    /// A path of the host.
    Path {
        /// As it is whatever links lead to.
        source: PathBuf,
        target: String,
        options: Vec<String>,
    },
    /// A volume, one without a name if there is none.
    Volume {
        name: Option<String>,
        target: String,
        options: Vec<String>,
    },
    /// A file system in memory.
    Memory {
        target: String,
        options: Vec<String>,
    },
}

/// What is said of one that is not understood.
type Refusal = String;

/// Options of `-v` that change nothing about what is mounted.
const OPTIONS: [&str; 9] = [
    "ro",
    "rw",
    "z",
    "Z",
    "U",
    "nocopy",
    "cached",
    "delegated",
    "consistent",
];

impl Mount {
    /// Reads `[SOURCE:]TARGET[:OPTION,…]`.
    pub(crate) fn of_volume(text: &str) -> Result<Self, Refusal> {
        plain_text(text)?;
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts.as_slice() {
            [target] => (None, *target, ""),
            [source, target] => (Some(*source), *target, ""),
            [source, target, options] => (Some(*source), *target, *options),
            _ => return Err("write SOURCE:TARGET, or SOURCE:TARGET:ro".into()),
        };
        let options: Vec<String> = options
            .split(',')
            .filter(|option| !option.is_empty())
            .map(str::to_owned)
            .collect();
        if let Some(unknown) = options
            .iter()
            .find(|option| !OPTIONS.contains(&option.as_str()))
        {
            return Err(format!(
                "`{unknown}` is not among the options {}",
                OPTIONS.join(", ")
            ));
        }
        let target = absolute(target)?;
        match source {
            Some(source) if source.starts_with(['/', '.', '~']) || source.contains('/') => {
                Ok(Self::Path {
                    source: real(source)?,
                    target,
                    options,
                })
            }
            source => Ok(Self::Volume {
                name: source.map(volume_name).transpose()?,
                target,
                options,
            }),
        }
    }

    /// Reads `type=…,source=…,target=…[,readonly]`, in the names that engines have for the keys.
    pub(crate) fn of_mount(text: &str) -> Result<Self, Refusal> {
        plain_text(text)?;
        let (mut kind, mut source, mut target, mut options) = (None, None, None, Vec::new());
        for part in text.split(',') {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (part, None),
            };
            let given = || {
                value
                    .filter(|value| !value.is_empty())
                    .ok_or(format!("`{key}` has no value"))
            };
            let twice = |there: bool| {
                if there {
                    Err(format!("`{key}` is there twice"))
                } else {
                    Ok(())
                }
            };
            match key {
                "type" => {
                    twice(kind.replace(given()?).is_some())?;
                }
                "source" | "src" => {
                    twice(source.replace(given()?).is_some())?;
                }
                "target" | "dst" | "destination" => {
                    twice(target.replace(given()?).is_some())?;
                }
                "readonly" | "ro" => match value {
                    None | Some("true" | "1") => options.push("readonly".to_owned()),
                    Some("false" | "0") => {}
                    Some(value) => return Err(format!("`{key}` is true or false, not `{value}`")),
                },
                "tmpfs-size" | "tmpfs-mode" => options.push(format!("{key}={}", given()?)),
                "volume-nocopy" => options.push("volume-nocopy=true".into()),
                _ => {
                    return Err(format!(
                        "`{key}` is not among the keys type, source, target, readonly, tmpfs-size, tmpfs-mode and volume-nocopy"
                    ));
                }
            }
        }
        let target = absolute(target.ok_or("it has no `target`")?)?;
        match (kind.unwrap_or("volume"), source) {
            ("bind", Some(source)) => Ok(Self::Path {
                source: real(source)?,
                target,
                options,
            }),
            ("bind", None) => Err("a bind mount has a `source`".into()),
            ("volume", source) => Ok(Self::Volume {
                name: source.map(volume_name).transpose()?,
                target,
                options,
            }),
            ("tmpfs", None) => Ok(Self::Memory { target, options }),
            ("tmpfs", Some(_)) => Err("a file system in memory has no `source`".into()),
            (kind, _) => Err(format!(
                "`{kind}` is not among the types bind, volume and tmpfs"
            )),
        }
    }

    /// The path of the host, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Path { source, .. } => Some(source),
            Self::Volume { .. } | Self::Memory { .. } => None,
        }
    }

    /// Whether what is mounted can be written to.
    pub(crate) fn is_writable(&self) -> bool {
        match self {
            Self::Path { options, .. }
            | Self::Volume { options, .. }
            | Self::Memory { options, .. } => !options
                .iter()
                .any(|option| matches!(option.as_str(), "ro" | "readonly")),
        }
    }

    /// Whether it lies over this file, which is in the image.
    pub(crate) fn covers(&self, file: &Path) -> bool {
        let (Self::Path { target, .. } | Self::Volume { target, .. } | Self::Memory { target, .. }) =
            self;
        let mut real = PathBuf::from("/");
        for component in Path::new(target).components() {
            match component {
                Component::Normal(name) => real.push(name),
                Component::ParentDir => drop(real.pop()),
                _ => {}
            }
        }
        file.starts_with(real)
    }

    /// `SOURCE:TARGET[:OPTION,…]`, of what [`Mount::of_volume`] read.
    pub(crate) fn to_volume(&self) -> String {
        let (source, target, options) = match self {
            Self::Path {
                source,
                target,
                options,
            } => (Some(source.display().to_string()), target, options),
            Self::Volume {
                name,
                target,
                options,
            } => (name.clone(), target, options),
            Self::Memory { target, options } => (None, target, options),
        };
        let options = if options.is_empty() {
            String::new()
        } else {
            format!(":{}", options.join(","))
        };
        match source {
            Some(source) => format!("{source}:{target}{options}"),
            None => format!("{target}{options}"),
        }
    }

    /// `type=…,…`, of what [`Mount::of_mount`] read.
    pub(crate) fn to_mount(&self) -> String {
        let (kind, source, target, options) = match self {
            Self::Path {
                source,
                target,
                options,
            } => ("bind", Some(source.display().to_string()), target, options),
            Self::Volume {
                name,
                target,
                options,
            } => ("volume", name.clone(), target, options),
            Self::Memory { target, options } => ("tmpfs", None, target, options),
        };
        let mut words = vec![format!("type={kind}")];
        words.extend(source.map(|source| format!("source={source}")));
        words.push(format!("target={target}"));
        words.extend(options.iter().cloned());
        words.join(",")
    }
}

/// Nothing that an engine could read as an end, or as the beginning of something else.
fn plain_text(text: &str) -> Result<(), Refusal> {
    match text
        .chars()
        .find(|c| c.is_control() || matches!(c, '"' | '\\'))
    {
        Some(_) => Err("it has a quotation mark, a backslash or a control character in it".into()),
        None => Ok(()),
    }
}

fn absolute(target: &str) -> Result<String, Refusal> {
    match target.starts_with('/') {
        true => Ok(target.to_owned()),
        false => Err(format!(
            "`{target}` is where it is to be in the container, and has to begin with a slash"
        )),
    }
}

fn volume_name(name: &str) -> Result<String, Refusal> {
    if !is_plain_name(name) {
        return Err(format!(
            "`{name}` is neither a path nor the name of a volume"
        ));
    }
    match is_control_volume(name) {
        true => Err("that volume is for Egret's own containers".into()),
        false => Ok(name.to_owned()),
    }
}

/// Whether it can only be the name of a volume or a network, whichever engine reads it.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    name.bytes().next().is_some_and(plain)
        && name
            .bytes()
            .all(|b| plain(b) || matches!(b, b'_' | b'.' | b'-'))
}

/// A path as it is whatever links lead to, as far as it is there: without `.` and `..`, from the working directory. It is
/// written where commas and colons mean something, and must have none, wherever it came from.
fn real(path: &str) -> Result<PathBuf, Refusal> {
    let path = Path::new(path);
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut real = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            component => real.push(component),
        }
        if let Ok(there) = real.canonicalize() {
            real = there;
        }
    }
    let shown = real.to_str().map(str::to_owned);
    let plain = shown.filter(|shown| plain_text(shown).is_ok() && !shown.contains([',', ':']));
    match plain {
        Some(_) => Ok(real),
        None => Err(format!(
            "it is {:?}, and an engine takes no path with a comma, a colon or the like in it",
            real.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_written_anew() {
        #[rustfmt::skip]
        let table = [
            ("data:/data",               Ok("data:/data")),
            ("/data",                    Ok("/data")),
            ("/usr/../etc:/e:ro",        Ok("/etc:/e:ro")),
            ("/:/host",                  Ok("/:/host")), // whether it may be is not the question here
            ("data:/data:ro,z",          Ok("data:/data:ro,z")),
            ("data:/data:rshared",       Err("rshared")),
            ("data:/data:ro:rw",         Err("SOURCE:TARGET")),
            ("data:relative",            Err("relative")),
            ("da ta:/x",                 Err("da ta")),
            ("x-egret-0123456789ab:/x",  Err("Egret's own")),
            ("a\nb:/x",                  Err("control")),
        ];
        for (text, expected) in table {
            let read = Mount::of_volume(text).map(|mount| mount.to_volume());
            match (read, expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{text}"),
                (Err(said), Err(expected)) => assert!(said.contains(expected), "{text}: {said}"),
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
        #[rustfmt::skip]
        let table = [
            ("type=bind,src=/etc,dst=/e,ro",        Ok("type=bind,source=/etc,target=/e,readonly")),
            ("source=v,destination=/e",             Ok("type=volume,source=v,target=/e")),
            ("type=tmpfs,target=/t,tmpfs-size=1m",  Ok("type=tmpfs,target=/t,tmpfs-size=1m")),
            ("TYPE=bind,SRC=/,DST=/h",              Err("`TYPE`")),
            ("type=Bind,src=/,dst=/h",              Err("`Bind`")),
            ("type=tmpfs,type=bind,src=/run,dst=/h",Err("twice")),
            ("type=bind,src=/tmp,source=/run,dst=/h",Err("twice")),
            ("type=volume,dst=/h,volume-opt=device=/",Err("volume-opt")),
            ("type=volume,dst=/h,Volume-Opt=device=/",Err("Volume-Opt")),
            ("type=bind,src=/a,dst=/h,bind-propagation=shared",Err("bind-propagation")),
            ("type=npipe,src=/a,dst=/h",            Err("npipe")),
            ("type=bind,dst=/h",                    Err("source")),
            ("type=bind,src=/a",                    Err("target")),
            ("\"type=bind\",src=/a,dst=/b",         Err("quotation")),
            ("type=bind, src=/a,dst=/b",            Err("` src`")),
            ("type=bind,src=,dst=/b",               Err("no value")),
        ];
        for (text, expected) in table {
            let read = Mount::of_mount(text).map(|mount| mount.to_mount());
            match (read, expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{text}"),
                (Err(said), Err(expected)) => assert!(said.contains(expected), "{text}: {said}"),
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
    }

    #[test]
    fn links_are_followed_as_far_as_they_are_there() {
        let directory = std::env::temp_dir().join(format!("egret-mounts-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let link = directory.join("link");
        std::os::unix::fs::symlink("/run", &link).unwrap();
        let volume = |path: &str| Mount::of_volume(&format!("{path}:/x")).unwrap();
        let shown = link.display();
        let run = Path::new("/run").canonicalize().unwrap();
        assert_eq!(
            volume(&format!("{shown}/not/there")).path(),
            Some(run.join("not/there").as_path())
        );
        assert_eq!(
            volume(&format!("{shown}/../etc")).path(),
            Some(Path::new("/etc"))
        );
        // What a link leads to can have a name that reads like more than a path.
        let odd = directory.join("a,source=").join("run");
        std::fs::create_dir_all(&odd).unwrap();
        let link = directory.join("odd");
        std::os::unix::fs::symlink(&odd, &link).unwrap();
        let shown = link.display();
        for read in [
            Mount::of_mount(&format!("type=bind,src={shown},dst=/x")),
            Mount::of_volume(&format!("{shown}:/x")),
        ] {
            assert!(read.unwrap_err().contains("comma"));
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
