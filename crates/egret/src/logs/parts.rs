//! An audit log that was split by its size, read as if it were one file.
//!
//! What is written goes to the log's own path. A part that is full is renamed: `audit.jsonl.1` is the oldest, and the number grows.
//! Nothing is written to a part any more once it has its number.

use egret_gateway::audit;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A log that is being read, from its first part to the end of what there is.
#[derive(Debug)]
pub(crate) struct Parts {
    path: PathBuf,
    file: BufReader<File>,
    inode: (u64, u64),
    /// The number of the part that is being read, or that it will have at least.
    number: u64,
    /// There is another part behind this one, which takes no more.
    is_full: bool,
}

impl Parts {
    /// Opens a log at its beginning.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match numbered(path).first() {
            Some((number, part)) => match File::open(part) {
                // It was removed in between, or given to somebody else.
                Err(_) => Self::open_at(path, path, *number),
                Ok(file) => Self::of(path, file, *number),
            },
            None => Self::open_at(path, path, 1),
        }
    }

    /// Opens a log behind all that is in it now.
    pub(crate) fn open_behind(path: &Path) -> io::Result<Self> {
        let mut parts = Self::open_at(path, path, 1)?;
        parts.file.seek(SeekFrom::End(0))?;
        Ok(parts)
    }

    fn open_at(path: &Path, part: &Path, number: u64) -> io::Result<Self> {
        Self::of(path, File::open(part)?, number)
    }

    fn of(path: &Path, file: File, number: u64) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            inode: (metadata.dev(), metadata.ino()),
            file: BufReader::new(file),
            number,
            is_full: false,
        })
    }

    /// Appends the next line to `line`, or what there is of it. Nothing is the end of what there is for now.
    pub(crate) fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        loop {
            let read = self.file.read_line(line)?;
            if read > 0 {
                return Ok(read);
            }
            if !self.is_full {
                self.is_full = self.is_numbered();
                if !self.is_full {
                    return Ok(0);
                }
                // Once more, for what was written before it was full.
                continue;
            }
            *self = self.next()?;
            if !line.is_empty() && !line.ends_with('\n') {
                line.push('\n');
                return Ok(1);
            }
        }
    }

    /// Calls `each` with every line there is.
    pub(crate) fn each(mut self, mut each: impl FnMut(&str)) -> io::Result<()> {
        let mut line = String::new();
        while self.read_line(&mut line)? > 0 {
            if line.ends_with('\n') {
                each(&line);
                line.clear();
            }
        }
        Ok(())
    }

    /// Whether what is being read is not what is written to.
    fn is_numbered(&self) -> bool {
        // What is no regular file, such as a pipe, is not split.
        fs::metadata(&self.path).is_ok_and(|now| now.is_file() && inode(&now) != self.inode)
    }

    fn next(&self) -> io::Result<Self> {
        let mut parts = numbered(&self.path).into_iter();
        let own = |part: &Path| fs::metadata(part).is_ok_and(|now| inode(&now) == self.inode);
        let behind = match parts.clone().position(|(_, part)| own(&part)) {
            Some(place) => parts.nth(place + 1),
            None => parts.find(|(number, _)| *number > self.number),
        };
        match behind {
            Some((number, part)) => Self::open_at(&self.path, &part, number),
            None => Self::open_at(&self.path, &self.path, self.number + 1),
        }
    }
}

fn inode(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The parts of a log that are full, the oldest first; none where the directory cannot be listed, which a log can lie in.
fn numbered(path: &Path) -> Vec<(u64, PathBuf)> {
    audit::numbered(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn read(parts: &mut Parts) -> String {
        let mut text = String::new();
        while parts.read_line(&mut text).unwrap() > 0 {}
        text
    }

    #[test]
    fn parts_are_read_in_order_and_followed() {
        let directory = std::env::temp_dir().join(format!("egret-parts-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("a.jsonl");
        let part = |number: u32| directory.join(format!("a.jsonl.{number}"));
        for (number, text) in [(2, "b\n"), (10, "c\n"), (1, "a\n")] {
            fs::write(part(number), text).unwrap();
        }
        // What is not a part.
        fs::write(directory.join("a.jsonl.bak"), "x\n").unwrap();
        fs::write(directory.join("b.jsonl.1"), "x\n").unwrap();
        fs::write(&path, "d\n").unwrap();
        let mut parts = Parts::open(&path).unwrap();
        assert_eq!(read(&mut parts), "a\nb\nc\nd\n");
        assert_eq!(read(&mut parts), "");
        let mut written = File::options().append(true).open(&path).unwrap();
        written.write_all(b"e\n").unwrap();
        fs::rename(&path, part(11)).unwrap();
        fs::write(&path, "f\n").unwrap();
        assert_eq!(read(&mut parts), "e\nf\n");
        // Two are full before the reader is back, and the one it had read is gone.
        fs::rename(&path, part(12)).unwrap();
        fs::write(part(13), "g\n").unwrap();
        fs::write(&path, "h").unwrap();
        fs::remove_file(part(12)).unwrap();
        assert_eq!(read(&mut parts), "g\nh");
        let mut all = String::new();
        Parts::open(&path)
            .unwrap()
            .each(|line| all += line)
            .unwrap();
        assert_eq!(all, "a\nb\nc\nd\ne\ng\n");
        fs::remove_dir_all(directory).unwrap();
    }
}
