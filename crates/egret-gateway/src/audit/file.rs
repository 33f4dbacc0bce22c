//! The file of a log, and how it is continued in a new one.
//!
//! What is written goes to the log's own path, always. Once the file there has its size, it is given a number behind its name,
//! and a new file takes its place: at no moment is there nothing at the path, and a file that has its number is written to no more.
//! For that everybody who writes holds a shared lock on the file, and who moves it has to get an exclusive one. A log that
//! several write to is moved once only one of them is left.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// When a log is continued in a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The size, in bytes, from which on a file takes no more.
    pub at: u64,
    /// How many of the files that take no more are kept; all of them where this is not said.
    pub keep: Option<usize>,
}

/// A log's path, and what is known about the file there.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    rotation: Rotation,
    size: u64,
    /// From which size on it is tried to continue in a new file.
    next: u64,
    /// The last number that a file was given.
    number: u64,
}

/// Opens the file at `path` for appending, creating it readable for its owner only, and says whether what is there can be
/// moved: what is no regular file cannot.
pub(super) fn open(path: &Path) -> io::Result<(File, bool)> {
    for _ in 0..PATIENCE {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Ok((file, false));
        }
        match file.try_lock_shared() {
            Ok(()) if is_at(&file, path)? => return Ok((file, true)),
            // It has been moved in between, or is being moved.
            Ok(()) | Err(TryLockError::WouldBlock) => sleep(MOMENT),
            // A file system without locks: such a log is not moved.
            Err(TryLockError::Error(_)) => return Ok((file, false)),
        }
    }
    let message = "it is locked by another program";
    Err(io::Error::new(io::ErrorKind::WouldBlock, message))
}

impl Place {
    pub(super) fn new(path: &Path, file: &File, rotation: Rotation) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            rotation,
            size: file.metadata()?.len(),
            next: rotation.at,
            number: 0,
        })
    }

    /// So much was written.
    pub(super) fn grew(&mut self, by: usize) {
        self.size = self.size.saturating_add(by as u64);
    }

    /// Continues in a new file if it is time to. There is nothing left to write to the old one.
    ///
    /// That it could not be done is returned, as a sentence; it is not tried again for a while. An error is one of a file that
    /// must not be written to now.
    pub(super) fn turn(&mut self, file: &mut File) -> io::Result<Option<String>> {
        if self.size < self.next {
            return Ok(None);
        }
        let outcome = match file.try_lock() {
            Ok(()) => self.replace(file),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(error)) => Err(error),
        };
        // Whatever came of it, the lock is not ours any more, and the file may not be that at the path.
        self.hold(file)?;
        self.size = file.metadata()?.len();
        self.next = match self.size < self.rotation.at {
            true => self.rotation.at,
            false => self.size + (self.rotation.at / 8).max(4096),
        };
        let failed = |error| {
            let path = self.path.display();
            format!("{path} could not be continued in a new file, and goes on: {error}")
        };
        Ok(outcome.err().map(failed))
    }

    /// Takes the shared lock again, on the file that is at the path now.
    fn hold(&self, file: &mut File) -> io::Result<()> {
        let held = match file.try_lock_shared() {
            Ok(()) => is_at(file, &self.path)?,
            Err(TryLockError::WouldBlock) => false,
            // Where there are no locks nothing is moved.
            Err(TryLockError::Error(_)) => true,
        };
        if !held {
            (*file, _) = open(&self.path)?;
        }
        Ok(())
    }

    /// Puts a new file in the place of one that nobody else writes to.
    fn replace(&mut self, file: &mut File) -> io::Result<()> {
        if !is_at(file, &self.path)? {
            // Somebody has moved it already.
            return Ok(());
        }
        let new = with_ending(&self.path, "new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let created = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        // Before anybody can find it.
        created.try_lock_shared().map_err(io::Error::from)?;
        let moved = self
            .give_number()
            .and_then(|numbered| fs::rename(&new, &self.path).inspect_err(|_| forget(&numbered)));
        match moved {
            Ok(()) => *file = created,
            Err(error) => {
                forget(&new);
                return Err(error);
            }
        }
        self.leave_out_oldest()
    }

    /// Gives the file its number, beside the name that it has.
    fn give_number(&mut self) -> io::Result<PathBuf> {
        let last = self.numbered()?.last().map_or(0, |(number, _)| *number);
        self.number = self.number.max(last);
        loop {
            self.number += 1;
            let numbered = with_ending(&self.path, &self.number.to_string());
            match fs::hard_link(&self.path, &numbered) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                outcome => return outcome.map(|()| numbered),
            }
        }
    }

    fn leave_out_oldest(&self) -> io::Result<()> {
        let Some(keep) = self.rotation.keep else {
            return Ok(());
        };
        let all = self.numbered()?;
        let surplus = all.len().saturating_sub(keep);
        all.iter()
            .take(surplus)
            .try_for_each(|(_, path)| fs::remove_file(path))
    }

    /// The files that have a number, the oldest first.
    fn numbered(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        numbered(&self.path)
    }
}

/// The files of the log at `path` that take no more, each with its number, the oldest first.
///
/// # Errors
/// The directory cannot be listed.
pub fn numbered(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let ending = file_name
            .to_str()
            .and_then(|other| other.strip_prefix(name)?.strip_prefix('.'));
        let number = ending.and_then(|ending| {
            let digits = ending.bytes().all(|byte| byte.is_ascii_digit());
            ending.parse().ok().filter(|_| digits)
        });
        found.extend(number.map(|number: u64| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    path.into()
}

/// Removes a name that is not needed after all. If that fails, there is an empty file, or a second name of the log, which
/// readers know to be the same.
fn forget(path: &Path) {
    let (Ok(()) | Err(_)) = fs::remove_file(path);
}

/// Whether the file at `path` is this one.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// How often a file is tried that is being moved, which takes no time, unless who does it was stopped.
const PATIENCE: u32 = 100;
const MOMENT: Duration = Duration::from_millis(1);
