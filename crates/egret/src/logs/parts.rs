//! An audit log that was split by its size, read as if it were one file.
//!
//! What is written goes to the log's own path. A part that is full is renamed: `audit.jsonl.1` is the oldest, and the number grows.
//! Nothing is written to a part any more once it has its number. Which files are parts, the log itself says.

use egret_gateway::audit;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
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
        let (parts, newest) = audit::parts(path)?;
        Self::first_of(path, &parts, newest, 1)
    }

    /// Opens a log behind all that is in it now.
    pub(crate) fn open_behind(path: &Path) -> io::Result<Self> {
        let mut parts = Self::of(path, File::open(path)?, 1)?;
        parts.file.seek(SeekFrom::End(0))?;
        Ok(parts)
    }

    /// The first of these parts that is still there, or else the newest file.
    fn first_of(
        path: &Path,
        parts: &[(u64, PathBuf)],
        newest: File,
        least: u64,
    ) -> io::Result<Self> {
        for (number, part) in parts {
            match File::open(part) {
                Ok(file) => return Self::of(path, file, *number),
                // It was removed in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let number = parts
            .last()
            .map_or(least, |(last, _)| last.saturating_add(1));
        Self::of(path, newest, number)
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
            let room = LONGEST_LINE.saturating_sub(line.len()) as u64;
            let read = (&mut self.file).take(room).read_line(line)?;
            if line.len() >= LONGEST_LINE && !line.ends_with('\n') {
                return Err(too_long());
            }
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
        let (parts, newest) = audit::parts(&self.path)?;
        let own = |(_, part): &(u64, PathBuf)| {
            fs::metadata(part).is_ok_and(|now| inode(&now) == self.inode)
        };
        let behind = match parts.iter().position(own) {
            Some(place) => place + 1,
            None => parts.partition_point(|(number, _)| *number <= self.number),
        };
        let parts = parts.get(behind..).unwrap_or_default();
        Self::first_of(&self.path, parts, newest, self.number.saturating_add(1))
    }
}

fn inode(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// What is no log may be a line that never ends.
pub(crate) fn too_long() -> io::Error {
    io::Error::other("it has a line that is longer than any record")
}

/// More than any record has, that of a policy included.
pub(crate) const LONGEST_LINE: usize = 16 << 20;

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
        let after = |number: u64| {
            format!(
                r#"{{"v":1,"time":"t","id":"aaaaaa-1","sandbox":"s","event":"lifecycle","action":"continued","count":{number}}}"#
            ) + "\n"
        };
        let text = |parts: &mut Parts| {
            let text = read(parts);
            let records = text.lines().filter(|line| !line.starts_with('{'));
            records.collect::<Vec<_>>().join(" ")
        };
        for (number, text) in [
            (2, after(1) + "b\n"),
            (10, after(2) + "c\n"),
            (1, "a\n".to_owned()),
        ] {
            fs::write(part(number), text).unwrap();
        }
        // What is not a part.
        fs::write(directory.join("a.jsonl.bak"), "x\n").unwrap();
        fs::write(directory.join("b.jsonl.1"), "x\n").unwrap();
        fs::write(part(3), "x\n").unwrap();
        fs::write(part(99), after(10) + "x\n").unwrap();
        fs::write(&path, after(10) + "d\n").unwrap();
        let mut parts = Parts::open(&path).unwrap();
        assert_eq!(text(&mut parts), "a b c d");
        assert_eq!(text(&mut parts), "");
        let mut written = File::options().append(true).open(&path).unwrap();
        written.write_all(b"e\n").unwrap();
        fs::rename(&path, part(11)).unwrap();
        fs::write(&path, after(11) + "f\n").unwrap();
        assert_eq!(text(&mut parts), "e f");
        // Two are full before the reader is back, and the one it had read is gone.
        fs::rename(&path, part(12)).unwrap();
        fs::write(part(13), after(12) + "g\n").unwrap();
        fs::write(&path, after(13) + "h").unwrap();
        fs::remove_file(part(12)).unwrap();
        assert_eq!(text(&mut parts), "g h");
        let mut all = Vec::new();
        Parts::open(&path)
            .unwrap()
            .each(|line| all.push(line.to_owned()))
            .unwrap();
        // What is older than one that is missing is gone, too.
        assert_eq!(all, [after(12), "g\n".to_owned(), after(13)]);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_log_is_not_read_without_end() {
        let mut parts = Parts::open(Path::new("/dev/zero")).unwrap();
        let error = parts.read_line(&mut String::new()).unwrap_err();
        assert!(
            error.to_string().contains("longer than any record"),
            "{error}"
        );
    }
}
