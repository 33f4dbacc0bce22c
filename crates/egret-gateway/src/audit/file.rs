//! The file of a log, and how it is continued in a new one.
//!
//! What is written goes to the log's own path, always. Once the file there has its size, it is given a number behind its name,
//! and a new file takes its place: at no moment is there nothing at the path, and a file that has its number is written to no more.
//! For that everybody who writes holds a shared lock on the file, and who moves it has to get an exclusive one. A log that
//! several write to is moved once only one of them is left.
//!
//! A new file begins with a record that has the number of the file before it. So the files of a log are told from what lies
//! beside them and is called like one: a program may be able to put such a thing there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::OFlags;

use super::{Event, Record};

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
    /// must not be written to now. `first` makes the line that a new file begins with, of the number of the one before it.
    pub(super) fn turn(
        &mut self,
        file: &mut File,
        first: impl FnOnce(u64) -> Vec<u8>,
    ) -> io::Result<Option<String>> {
        if self.size < self.next {
            return Ok(None);
        }
        let outcome = match file.try_lock() {
            Ok(()) => self.replace(file, first),
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
    fn replace(&mut self, file: &mut File, first: impl FnOnce(u64) -> Vec<u8>) -> io::Result<()> {
        if !is_at(file, &self.path)? {
            // Somebody has moved it already.
            return Ok(());
        }
        let new = with_ending(&self.path, "new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut created = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        // Before anybody can find it.
        created.try_lock_shared().map_err(io::Error::from)?;
        let moved = self.give_number().and_then(|numbered| {
            created
                .write_all(&first(self.number))
                .and_then(|()| fs::rename(&new, &self.path))
                .inspect_err(|_| forget(&numbered))
        });
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
        let last = preceding(&self.path)?.unwrap_or_default();
        self.number = self.number.max(last);
        loop {
            let next = self.number.checked_add(1);
            self.number = next.ok_or_else(|| io::Error::other("there is no number left for it"))?;
            let numbered = with_ending(&self.path, &self.number.to_string());
            match fs::hard_link(&self.path, &numbered) {
                // It is somebody else's: what is this log's has a smaller number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                outcome => return outcome.map(|()| numbered),
            }
        }
    }

    fn leave_out_oldest(&self) -> io::Result<()> {
        let Some(keep) = self.rotation.keep else {
            return Ok(());
        };
        let (all, _) = parts(&self.path)?;
        let surplus = all.len().saturating_sub(keep);
        all.iter()
            .take(surplus)
            .try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// The files of the log at `path` that take no more, each with its number, the oldest first, and the file that is at `path`,
/// at its beginning. What does not belong to the log by its own word is not among them; nor is what is older than one that is
/// missing.
///
/// # Errors
/// The log cannot be read.
pub fn parts(path: &Path) -> io::Result<(Vec<(u64, PathBuf)>, File)> {
    let (last, file) = open_first(path, OFlags::empty())?;
    let mut before = last;
    let mut parts = Vec::new();
    while let Some(number) = before {
        let part = with_ending(path, &number.to_string());
        // Without following a link, and without waiting, should somebody have put a pipe there.
        match open_first(&part, OFlags::NOFOLLOW | OFlags::NONBLOCK) {
            Ok((_, file)) if !file.metadata()?.is_file() => {
                let message = format!("{} is no file", part.display());
                return Err(io::Error::other(message));
            }
            // The numbers of older ones are smaller.
            Ok((older, _)) => before = older.filter(|older| *older < number),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
        parts.push((number, part));
    }
    parts.reverse();
    Ok((parts, file))
}

/// The number of the file before the one at `path`, if this is no log's first.
fn preceding(path: &Path) -> io::Result<Option<u64>> {
    open_first(path, OFlags::empty()).map(|(number, _)| number)
}

/// Opens a file and reads what it says of the one before it.
fn open_first(path: &Path, flags: OFlags) -> io::Result<(Option<u64>, File)> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    // What is read from a pipe is gone.
    if !file.metadata()?.is_file() {
        return Ok((None, file));
    }
    let mut line = Vec::new();
    BufReader::new((&file).take(LONGEST_FIRST)).read_until(b'\n', &mut line)?;
    file.seek(SeekFrom::Start(0))?;
    let first = serde_json::from_slice::<Record>(&line).ok();
    let first = first.filter(|record| {
        record.event == Event::Lifecycle && record.action.as_deref() == Some(CONTINUED)
    });
    Ok((first.and_then(|record| record.count), file))
}

/// What happened before the first record of a file that is not a log's first one.
pub(super) const CONTINUED: &str = "continued";
/// More than such a record has.
const LONGEST_FIRST: u64 = 4096;

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
