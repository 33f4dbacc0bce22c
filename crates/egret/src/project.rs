//! A project's own file, `egret.yaml`: what it takes away from whatever policy a sandbox has.
//!
//! It is looked for in the working directory and in every directory above. All that are found hold: a program that can
//! write in one of these directories can make files there, and if the nearest one alone held, that could take the place
//! of one above. For the same reason nothing ends the search that a program could make, and what is in place of the file
//! and is none (a link, a pipe, a directory) stops the run.
//!
//! What may be in it is told by [`Narrowing`], which can only take away.

use crate::failure::Failure;
use egret_gateway::audit::ProjectFile;
use egret_policy::{Narrowing, Policy};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// What the file is called.
pub(crate) const NAME: &str = "egret.yaml";

/// Anybody makes files here, and they are nobody's project.
const SHARED: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// A project's file as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Project {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// The files that hold for what is started here, unless they are to be left aside.
pub(crate) fn find_here(leave_aside: bool) -> Result<Vec<Project>, Failure> {
    if leave_aside {
        return Ok(Vec::new());
    }
    let directory = std::env::current_dir()
        .map_err(|error| Failure::because("the working directory", &error))?;
    find(&directory)
}

/// The files that hold for a sandbox with this working directory, the nearest first. Each can be used.
pub(crate) fn find(directory: &Path) -> Result<Vec<Project>, Failure> {
    let mut found = Vec::new();
    for directory in directory.ancestors() {
        if SHARED.iter().any(|shared| directory == Path::new(shared)) {
            continue;
        }
        let path = directory.join(NAME);
        let read = read(&path).map_err(|error| {
            Failure::because(
                format_args!("cannot read the project's file {}", path.display()),
                &error,
            )
            .and("remove it, or run with --no-settings")
        })?;
        let Some(text) = read else { continue };
        let project = Project { path, text };
        project.narrowing()?;
        found.push(project);
    }
    Ok(found)
}

impl Project {
    /// What it takes away.
    pub(crate) fn narrowing(&self) -> Result<Narrowing, Failure> {
        let name = self.path.display().to_string();
        match Narrowing::parse(&name, self.text.as_bytes()) {
            Ok((narrowing, _)) => Ok(narrowing),
            Err(errors) => Err(Failure::new(format!(
                "the project's file {name} cannot be used (--no-settings leaves it aside)\n{errors}"
            ))),
        }
    }

    /// Takes it away.
    pub(crate) fn narrow(&self, policy: &mut Policy) -> Result<(), Failure> {
        policy
            .narrow(&self.narrowing()?)
            .map_err(|error| Failure::because(self.path.display(), &error))
    }

    /// As it is on record.
    pub(crate) fn of(recorded: &ProjectFile) -> Self {
        Self {
            path: recorded.file.clone().into(),
            text: recorded.text.clone(),
        }
    }

    /// For the record.
    pub(crate) fn basis(&self) -> ProjectFile {
        ProjectFile {
            file: self.path.display().to_string(),
            text: self.text.clone(),
        }
    }

    /// The paths that it hides, all of them in its own directory.
    pub(crate) fn hidden(&self) -> Result<Vec<PathBuf>, Failure> {
        let narrowing = self.narrowing()?;
        let around = self.path.parent().unwrap_or(Path::new("/"));
        let path = |path: &String| {
            let path = around.join(path);
            match path.canonicalize() {
                Ok(real) if !real.starts_with(around) => Err(Failure::new(format!(
                    "the project's file {} hides {}, which is a link that leads out of the project; hide the link's target by --hide, or run with --no-settings",
                    self.path.display(),
                    path.display()
                ))),
                _ => Ok(path),
            }
        };
        narrowing.hide().iter().map(path).collect()
    }
}

/// What is in the file, if there is one.
fn read(path: &Path) -> io::Result<Option<String>> {
    // Without following a link, and without waiting, should it be a pipe that nobody writes to.
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(io::Error::other("it is a symbolic link")),
        file => file?,
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::other("it is no file"));
    }
    // One octet more, so that a longer one is refused and not cut.
    let most = Narrowing::MAX_OCTETS as u64 + 1;
    let mut text = Vec::new();
    File::from(file).take(most).read_to_end(&mut text)?;
    let text = String::from_utf8(text).map_err(|_| io::Error::other("it is not UTF-8"))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_file_above_holds_and_what_is_no_file_stops_the_run() {
        let root = std::env::temp_dir().canonicalize().unwrap();
        let root = root.join(format!("egret-project-{}", std::process::id()));
        let deep = root.join("a/b");
        std::fs::create_dir_all(deep.join(".git")).unwrap();
        let file = |directory: &str| root.join(directory).join(NAME);
        std::fs::write(file(""), "version: 1\ndeny: [a.example]\n").unwrap();
        std::fs::write(file("a/b"), "version: 1\nfilesystem: {hide: [x, ./y/z]}\n").unwrap();
        let found = find(&deep).unwrap();
        let ours: Vec<_> = found
            .iter()
            .map(|project| project.path.clone())
            .filter(|path| path.starts_with(&root))
            .collect();
        assert_eq!(ours, [file("a/b"), file("")]);
        assert_eq!(
            found[0].hidden().unwrap(),
            [deep.join("x"), deep.join("./y/z")]
        );
        symlink("/usr", deep.join("x")).unwrap();
        let failure = found[0].hidden().unwrap_err().to_string();
        assert!(failure.contains("leads out of the project"), "{failure}");

        let place = file("a");
        let fails = |says: &str| {
            let failure = find(&deep).unwrap_err().to_string();
            assert!(failure.contains(says), "{failure}");
            assert!(failure.contains("--no-settings"), "{failure}");
        };
        std::fs::write(&place, "version: 1\nallow: [evil.example]\n").unwrap();
        fails("a project file can only take away");
        std::fs::write(&place, vec![b'#'; Narrowing::MAX_OCTETS + 1]).unwrap();
        fails("a project file has at most 64 KiB");
        std::fs::write(&place, b"version: 1 # \xff").unwrap();
        fails("it is not UTF-8");
        std::fs::remove_file(&place).unwrap();
        symlink(file(""), &place).unwrap();
        fails("it is a symbolic link");
        std::fs::remove_file(&place).unwrap();
        std::fs::create_dir(&place).unwrap();
        fails("it is no file");
        std::fs::remove_dir(&place).unwrap();
        nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRUSR).unwrap();
        fails("it is no file");
        std::fs::remove_file(&place).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&place).unwrap();
        fails("cannot read the project's file");
        std::fs::remove_dir_all(root).unwrap();
    }
}
