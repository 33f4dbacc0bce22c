//! The file that is written at the end of a run, found before it.
//!
//! The program may be able to write next to it. So links are followed, and the directory opened, before anything runs; what is
//! there afterwards, be it a link to elsewhere, is replaced and not followed.

use crate::failure::Failure;
use crate::settings;
use rustix::fs::{Access, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A place for a file.
#[derive(Debug)]
pub(crate) struct Place {
    named: PathBuf,
    directory: OwnedFd,
    name: OsString,
    /// Of what is there now.
    permissions: Option<Permissions>,
}

impl Place {
    /// Where `named` leads to now.
    pub(crate) fn new(named: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::because(
                format_args!("cannot write the policy {}", named.display()),
                error,
            )
        };
        let real = match named.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named.is_symlink() => {
                let parent = named
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new(".")).canonicalize();
                parent
                    .map_err(|error| failed(&error))?
                    .join(named.file_name().unwrap_or_default())
            }
            real => real.map_err(|error| failed(&error))?,
        };
        let permissions = match real.symlink_metadata() {
            Ok(there) if there.is_file() => Some(there.permissions()),
            Ok(_) => {
                return Err(Failure::new(format!(
                    "{} is no file that a policy can be written to",
                    named.display()
                )));
            }
            Err(_) => None,
        };
        let (Some(directory), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(Failure::new(format!("{} names no file", named.display())));
        };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty());
        let directory = directory.map_err(|errno| failed(&io::Error::from(errno)))?;
        rustix::fs::accessat(&directory, ".", Access::WRITE_OK, AtFlags::EACCESS)
            .map_err(|errno| failed(&io::Error::from(errno)))?;
        Ok(Self {
            named: named.to_owned(),
            directory,
            name: name.to_owned(),
            permissions,
        })
    }

    /// The path that it was named by.
    pub(crate) fn named(&self) -> &Path {
        &self.named
    }

    /// Whether there was a file.
    pub(crate) fn is_taken(&self) -> bool {
        self.permissions.is_some()
    }

    /// Puts a new file there, whole or not at all, and only if there is still none.
    pub(crate) fn create(&self, text: &str) -> Result<(), Failure> {
        self.put(text, RenameFlags::NOREPLACE)
    }

    /// Puts a new file there, whole or not at all.
    pub(crate) fn write(&self, text: &str) -> Result<(), Failure> {
        self.put(text, RenameFlags::empty())
    }

    fn put(&self, text: &str, how: RenameFlags) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            Failure::because(
                format_args!("cannot write the policy {}", self.named.display()),
                &error,
            )
        };
        let mut new = OsString::from(".");
        new.push(&self.name);
        new.push(format!(".{}", settings::random_word::<8>()?));
        let put = || -> io::Result<()> {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file =
                rustix::fs::openat(&self.directory, &new, flags, Mode::from_raw_mode(0o644))?;
            let mut file = File::from(file);
            if let Some(permissions) = &self.permissions {
                file.set_permissions(permissions.clone())?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            rustix::fs::renameat_with(&self.directory, &new, &self.directory, &self.name, how)?;
            Ok(())
        };
        put().map_err(|error| {
            // It may not have come to be at all.
            let (Ok(()) | Err(Errno::NOENT | _)) =
                rustix::fs::unlinkat(&self.directory, &new, AtFlags::empty());
            failed(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn what_is_put_in_its_place_meanwhile_is_replaced() {
        let directory = std::env::temp_dir().join(format!("egret-place-{}", std::process::id()));
        fs::create_dir_all(directory.join("real")).unwrap();
        let precious = directory.join("precious");
        fs::write(&precious, "mine").unwrap();
        let named = directory.join("p.yaml");
        let place = Place::new(&named).unwrap();
        assert!(!place.is_taken());
        symlink(&precious, &named).unwrap();
        place.write("one").unwrap();
        assert_eq!(fs::read_to_string(&named).unwrap(), "one");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
        assert!(!named.is_symlink());

        // A link that is there before is followed, and a mode is kept.
        let link = directory.join("link.yaml");
        symlink("p.yaml", &link).unwrap();
        fs::set_permissions(&named, Permissions::from_mode(0o640)).unwrap();
        let place = Place::new(&link).unwrap();
        assert!(place.is_taken());
        place.write("two").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&named).unwrap(), "two");
        assert_eq!(
            fs::metadata(&named).unwrap().permissions().mode() & 0o777,
            0o640
        );

        // The directory stays what it was, whatever its name comes to mean.
        let place = Place::new(&directory.join("real/q.yaml")).unwrap();
        fs::rename(directory.join("real"), directory.join("moved")).unwrap();
        symlink("/etc", directory.join("real")).unwrap();
        place.write("three").unwrap();
        assert_eq!(
            fs::read_to_string(directory.join("moved/q.yaml")).unwrap(),
            "three"
        );
        let left = fs::read_dir(directory.join("moved")).unwrap().count();
        assert_eq!(left, 1, "nothing half-made is left");

        fs::create_dir(directory.join("moved/d.yaml")).unwrap();
        symlink("nowhere", directory.join("dangling")).unwrap();
        for bad in ["moved/d.yaml", "dangling", "none/x.yaml", "moved/.."] {
            let error = Place::new(&directory.join(bad)).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
        assert!(Place::new(Path::new("/dev/null")).is_err());
        let place = Place::new(&directory.join("moved/e.yaml")).unwrap();
        fs::create_dir(directory.join("moved/e.yaml")).unwrap();
        assert!(place.write("four").is_err());
        assert_eq!(fs::read_dir(directory.join("moved")).unwrap().count(), 3);

        // What came to be meanwhile stays, where nothing was to be replaced.
        let place = Place::new(&directory.join("moved/f.yaml")).unwrap();
        fs::write(directory.join("moved/f.yaml"), "theirs").unwrap();
        let error = place.create("five").unwrap_err().to_string();
        assert!(error.contains("File exists"), "{error}");
        let there = fs::read_to_string(directory.join("moved/f.yaml")).unwrap();
        assert_eq!(there, "theirs");
        assert_eq!(fs::read_dir(directory.join("moved")).unwrap().count(), 4);
        fs::remove_file(directory.join("moved/f.yaml")).unwrap();
        place.create("five").unwrap();
        fs::remove_dir_all(directory).unwrap();
    }
}
