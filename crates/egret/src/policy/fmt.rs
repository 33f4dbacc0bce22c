//! `egret policy fmt`: policies in the layout of the documentation.
//!
//! A file is replaced in one step, by a new one that was written beside it: whoever reads it meanwhile, or after a crash,
//! finds the old text or the new one, and an error leaves it as it was. Owner and permissions stay. A link stays a link; a
//! file that has several names (hard links) is not written, for it would no longer be one file.

use super::{
    BAD_INPUT, Bad, FINE, Page, REFUSED, cannot_print, one_standard_input, print_data, print_json,
    read_limited, refuse_input, shown, source_name,
};
use crate::cli::Output;
use crate::failure::Failure;
use crate::source::{self, Origin};
use clap::Args;
use egret_policy::format_policy;
use rustix::fs::{AtFlags, Mode, OFlags};
use serde_json::json;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

/// Arguments of `egret policy fmt`.
#[derive(Debug, Args)]
pub(crate) struct Fmt {
    /// The policies, which are changed in place; `-` is from standard input to standard output
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Change nothing, and exit with 1 if something would be changed
    #[arg(long)]
    check: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What became of a policy.
struct Formatted {
    text: String,
    changed: bool,
}

pub(super) fn fmt(args: &Fmt) -> u8 {
    if let Err(bad) = one_standard_input(&args.files) {
        return refuse_input(&bad, args.output);
    }
    let format = |file: &String| match file.as_str() {
        "-" => standard_input(),
        named => place_of(named).and_then(|path| format_file(&path, args.check)),
    };
    let done: Vec<_> = args.files.iter().map(|file| (file, format(file))).collect();
    let status = match () {
        () if done.iter().any(|(_, result)| result.is_err()) => BAD_INPUT,
        () if args.check
            && done
                .iter()
                .flat_map(|(_, result)| result)
                .any(|it| it.changed) =>
        {
            REFUSED
        }
        () => FINE,
    };
    let printed = match args.output {
        Output::Json => {
            let files = done.iter().map(|(file, result)| in_json(file, result));
            let files: Vec<_> = files.collect();
            print_json(&json!({ "files": files }))
        }
        Output::Text => done
            .iter()
            .try_for_each(|(file, result)| in_text(file, result, args.check)),
    };
    printed.map_or_else(|error| cannot_print(&error), |()| status)
}

fn in_json(file: &str, result: &Result<Formatted, Bad>) -> serde_json::Value {
    match result {
        Ok(Formatted { text, changed }) => {
            let text = Some(text).filter(|_| file == "-");
            json!({ "file": file, "valid": true, "changed": changed, "text": text, "errors": [] })
        }
        Err(bad) => bad.in_json(file),
    }
}

fn in_text(file: &str, result: &Result<Formatted, Bad>, check: bool) -> io::Result<()> {
    match result {
        Ok(Formatted { text, .. }) if file == "-" && !check => print_data(text),
        Ok(Formatted { changed, .. }) => {
            let became = match (changed, check) {
                (true, true) => "not formatted",
                (true, false) => "formatted",
                (false, _) => "already formatted",
            };
            let mut page = Page::for_stdout();
            writeln!(page, "{}: {became}", shown(file));
            page.print()
        }
        Err(bad) => bad.tell(),
    }
}

/// The file itself, where it is one that has a name.
fn place_of(named: &str) -> Result<String, Bad> {
    let bad = |failure: Failure| Bad::File(failure.to_string());
    match Origin::named(named).map_err(bad)? {
        Origin::File {
            path,
            service: None,
            name: Some(name),
        } => match path.exists() {
            true => Ok(path.to_string_lossy().into_owned()),
            false => Err(bad(source::named::unknown(&name))),
        },
        _ => Ok(named.to_owned()),
    }
}

fn standard_input() -> Result<Formatted, Bad> {
    let before = read_limited("-", io::stdin().lock())?;
    formatted("-", &before)
}

fn formatted(file: &str, before: &[u8]) -> Result<Formatted, Bad> {
    let text = format_policy(source_name(file), before).map_err(Bad::Policy)?;
    let changed = text.as_bytes() != before;
    Ok(Formatted { text, changed })
}

fn format_file(path: &str, check: bool) -> Result<Formatted, Bad> {
    let place = Place::open(path).map_err(|error| cannot("read", path, &error))?;
    if !place.before.is_file() {
        let message = format!(
            "cannot format {}: it is no file; `-` is standard input",
            shown(path)
        );
        return Err(Bad::File(message));
    }
    let text = read_limited(path, &place.file)?;
    let formatted = formatted(path, &text)?;
    if formatted.changed && !check {
        if place.before.nlink() > 1 {
            let message = format!(
                "cannot write {}: it has {} names (hard links), and the new text would come under this one only; \
                 `egret policy fmt -` prints it",
                shown(path),
                place.before.nlink()
            );
            return Err(Bad::File(message));
        }
        place
            .replace(formatted.text.as_bytes())
            .map_err(|error| cannot("write", path, &error))?;
    }
    Ok(formatted)
}

fn cannot(what: &str, path: &str, error: &dyn Error) -> Bad {
    Bad::File(Failure::because(format!("cannot {what} {}", shown(path)), error).to_string())
}

/// A file that may be replaced: where links lead to, by its directory, so that it stays the same one whatever becomes
/// of the path.
struct Place {
    directory: OwnedFd,
    name: OsString,
    file: File,
    before: Metadata,
}

impl Place {
    fn open(path: &str) -> io::Result<Self> {
        let target = Path::new(path).canonicalize()?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let directory = rustix::fs::open(
            parent,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // Without waiting, should it be a pipe that nobody writes to.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&directory, name, flags, Mode::empty())?);
        let before = file.metadata()?;
        Ok(Self {
            directory,
            name: name.to_owned(),
            file,
            before,
        })
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let new = format!(".egret-fmt-{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &new, flags, Mode::RUSR | Mode::WUSR)?;
        let replaced = self.fill(&File::from(file), text).and_then(|()| {
            self.has_not_changed()?;
            Ok(rustix::fs::renameat(
                &self.directory,
                &new,
                &self.directory,
                &self.name,
            )?)
        });
        if replaced.is_err() {
            // The error that is on its way says more than one about what is left over.
            let (Ok(()) | Err(_)) = rustix::fs::unlinkat(&self.directory, &new, AtFlags::empty());
        }
        replaced
    }

    fn fill(&self, mut file: &File, text: &[u8]) -> io::Result<()> {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (self.before.uid(), self.before.gid()) {
            fchown(file, Some(self.before.uid()), Some(self.before.gid()))?;
        }
        // After the owner, for changing that takes special bits away.
        file.set_permissions(self.before.permissions())?;
        file.write_all(text)?;
        file.sync_all()
    }

    /// Somebody may have saved the file since it was read.
    fn has_not_changed(&self) -> io::Result<()> {
        let now = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let opened = self.file.metadata()?;
        let same = (now.st_dev, now.st_ino) == (self.before.dev(), self.before.ino())
            && (
                opened.mtime(),
                opened.mtime_nsec(),
                opened.size(),
                opened.nlink(),
            ) == (
                self.before.mtime(),
                self.before.mtime_nsec(),
                self.before.size(),
                self.before.nlink(),
            );
        match same {
            true => Ok(()),
            false => Err(io::Error::other(
                "it was changed while it was being formatted; try again",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const UGLY: &str = "allow: [ a.example ]\nversion: 1";
    const NICE: &str = "version: 1\nallow: [a.example]\n";

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("egret-fmt-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn a_file_is_replaced_with_its_permissions_and_through_links() {
        let directory = directory("replaced");
        let (file, link) = (directory.join("p.yaml"), directory.join("link"));
        std::fs::write(&file, UGLY).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("p.yaml", &link).unwrap();
        let path = link.to_str().unwrap();
        assert!(format_file(path, true).is_ok_and(|it| it.changed));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), UGLY);
        assert!(format_file(path, false).is_ok_and(|it| it.changed));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), NICE);
        assert!(format_file(path, false).is_ok_and(|it| !it.changed));
        assert!(link.is_symlink());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 2);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_with_several_names_stays_one_file() {
        let directory = directory("names");
        let (one, other) = (directory.join("p.yaml"), directory.join("q.yaml"));
        std::fs::write(&one, UGLY).unwrap();
        std::fs::hard_link(&one, &other).unwrap();
        let path = one.to_str().unwrap();
        assert!(format_file(path, true).is_ok_and(|it| it.changed));
        let Err(Bad::File(message)) = format_file(path, false) else {
            panic!("a link was broken");
        };
        assert!(message.contains("it has 2 names (hard links)"), "{message}");
        assert_eq!(std::fs::read_to_string(&one).unwrap(), UGLY);
        std::fs::write(&one, NICE).unwrap();
        assert!(format_file(path, false).is_ok_and(|it| !it.changed));
        let names = std::fs::metadata(&other).unwrap().nlink();
        assert_eq!(
            (names, std::fs::read_dir(&directory).unwrap().count()),
            (2, 2)
        );
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_cannot_be_formatted_stays_as_it_is() {
        let directory = directory("stays");
        let file = directory.join("p.yaml");
        let path = file.to_str().unwrap();
        std::fs::write(&file, "version: 1\nalow: [a.example]\n").unwrap();
        assert!(matches!(format_file(path, false), Err(Bad::Policy(_))));
        assert!(std::fs::read_to_string(&file).unwrap().contains("alow"));

        std::fs::write(&file, UGLY).unwrap();
        let place = Place::open(path).unwrap();
        std::fs::write(&file, "version: 1\n").unwrap();
        assert!(place.replace(NICE.as_bytes()).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "version: 1\n");

        for other in [directory.to_str().unwrap(), "/dev/null", "/nowhere/p.yaml"] {
            assert!(
                matches!(format_file(other, false), Err(Bad::File(_))),
                "{other}"
            );
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
