//! A log that is continued in new files: everything that goes in comes out, once, and whole.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::audit::{Event, Log, Record, Rotation, parts};

fn record(log: &Log, size: usize) -> Record {
    Record::new(Event::Lifecycle, log.id(), "test")
        .action("test")
        .message("m".repeat(size))
}

fn numbered(path: &Path) -> Vec<(u64, PathBuf)> {
    parts(path).unwrap().0
}

/// The ids in all files of a log, in order; each line is a record, and each id there once.
fn ids(path: &Path) -> Vec<String> {
    let parts = numbered(path).into_iter().map(|(_, part)| part);
    let mut ids = Vec::new();
    for part in parts.chain([path.to_owned()]) {
        let text = fs::read_to_string(&part).unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{}",
            part.display()
        );
        let records = text.lines().map(super::checked_record);
        ids.extend(
            records
                .filter(|record| record.action.as_deref() == Some("test"))
                .map(|record| record.id),
        );
    }
    let different: HashSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len());
    ids
}

#[test]
fn what_many_write_is_in_the_files_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.jsonl");
    let rotation = Rotation {
        at: 4096,
        keep: None,
    };
    let log = Log::to_files(&path, rotation).unwrap();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let log = log.clone();
            thread::spawn(move || {
                for number in 0..500 {
                    log.write_now(&record(&log, writer * 40 + number % 7))
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(ids(&path).len(), 4000);
    let parts = numbered(&path);
    assert!(parts.len() > 100, "{}", parts.len());
    for (number, (part, path)) in (1..).zip(&parts) {
        assert_eq!(number, *part);
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(path).unwrap();
        assert!(
            (4096..4096 + 512).contains(&metadata.len()),
            "{}",
            metadata.len()
        );
        assert_eq!(metadata.mode() & 0o777, 0o600);
    }
    // One that goes on later goes on with the numbers.
    drop(log);
    let log = Log::to_files(&path, rotation).unwrap();
    for _ in 0..100 {
        log.write_now(&record(&log, 100)).unwrap();
    }
    let last = numbered(&path).last().unwrap().0;
    assert!(last > parts.len() as u64);
    assert_eq!(ids(&path).len(), 4100);
}

#[test]
fn whoever_shares_a_log_loses_nothing_and_it_is_moved_by_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.jsonl");
    let open = |keep| Log::to_files(&path, Rotation { at: 2048, keep }).unwrap();
    // Sandboxes that come and go, each with the file open for itself, as other processes have it.
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let log = open(None);
                    for _ in 0..25 {
                        log.write_now(&record(&log, 50)).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(ids(&path).len(), 6 * 40 * 25);
    let before = numbered(&path).len();

    // With one that has it open, be it that it never moves its log, nobody gives it a number.
    let other = Log::to_file(&path).unwrap();
    let log = open(Some(2));
    for _ in 0..100 {
        log.write_now(&record(&log, 50)).unwrap();
        other.write_now(&record(&other, 50)).unwrap();
    }
    assert_eq!(numbered(&path).len(), before);
    assert_eq!(ids(&path).len(), 6200);
    drop(other);
    for _ in 0..100 {
        log.write_now(&record(&log, 50)).unwrap();
    }
    // The oldest are gone now, as was said, and only these.
    let left = numbered(&path);
    assert_eq!(left.len(), 2);
    assert_eq!(left[1].0, left[0].0 + 1);
    assert!(left[0].0 > before as u64);
}

#[test]
fn a_log_that_cannot_be_continued_goes_on_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.jsonl");
    let rotation = Rotation {
        at: 1024,
        keep: None,
    };
    let log = Log::to_files(&path, rotation).unwrap();
    // In the place of the new file is something that cannot be removed like a file.
    fs::create_dir(dir.path().join("log.jsonl.new")).unwrap();
    for _ in 0..200 {
        log.write_now(&record(&log, 50)).unwrap();
    }
    assert_eq!(ids(&path).len(), 200);
    assert_eq!(numbered(&path), []);
    let text = fs::read_to_string(&path).unwrap();
    let told = text
        .lines()
        .filter(|line| line.contains("log_not_split"))
        .count();
    assert!((2..=20).contains(&told), "{told}");
    fs::remove_dir(dir.path().join("log.jsonl.new")).unwrap();
    for _ in 0..100 {
        log.write_now(&record(&log, 50)).unwrap();
    }
    assert_eq!(ids(&path).len(), 300);
    assert!(!numbered(&path).is_empty());

    // Its directory goes away: there is nothing to write to, so nothing passes.
    fs::rename(dir.path(), dir.path().with_extension("away")).unwrap();
    let outcomes: Vec<_> = (0..100).map(|_| log.write_now(&record(&log, 50))).collect();
    fs::rename(dir.path().with_extension("away"), dir.path()).unwrap();
    assert!(outcomes.last().unwrap().is_err());
    log.write_now(&record(&log, 50)).unwrap();

    for path in ["/dev/full", "/dev/null"] {
        assert!(Log::to_files(path, rotation).is_err());
        assert!(Log::to_file(path).is_ok());
    }
}

#[test]
fn what_is_put_beside_a_log_is_no_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.jsonl");
    let beside = |number: &str| dir.path().join(format!("log.jsonl.{number}"));
    fs::write(&path, "").unwrap();
    let planted = ["1", "2", "50", "18446744073709551615"];
    for number in planted {
        fs::write(beside(number), "{}\n").unwrap();
    }
    assert_eq!(numbered(&path), []);
    let rotation = Rotation {
        at: 1024,
        keep: Some(3),
    };
    let log = Log::to_files(&path, rotation).unwrap();
    for _ in 0..9 {
        log.write_now(&record(&log, 200)).unwrap();
    }
    // They have numbers that are free, and only what is the log's own goes when there are too many.
    let numbers = |path: &Path| {
        numbered(path)
            .into_iter()
            .map(|(number, _)| number)
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&path), [3, 4]);
    assert_eq!(ids(&path).len(), 9);
    for _ in 0..9 {
        log.write_now(&record(&log, 200)).unwrap();
    }
    assert_eq!(numbers(&path).len(), 3);
    assert!(!beside("3").exists());
    for number in planted {
        assert_eq!(fs::read_to_string(beside(number)).unwrap(), "{}\n");
    }

    // Nor is what takes the place of a part that was removed and is not one.
    let [(oldest, _), .., (newest, _)] = numbered(&path)[..] else {
        panic!("there are parts");
    };
    let [oldest, newest] = [oldest, newest].map(|number| beside(&number.to_string()));
    fs::remove_file(&oldest).unwrap();
    assert_eq!(numbers(&path).len(), 2);
    let _socket = std::os::unix::net::UnixListener::bind(&oldest).unwrap();
    assert!(parts(&path).is_err());
    fs::remove_file(&oldest).unwrap();
    fs::remove_file(&newest).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &newest).unwrap();
    assert!(parts(&path).is_err());
}

#[test]
fn without_a_number_that_is_left_a_log_goes_on_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.jsonl");
    let rotation = Rotation {
        at: 1024,
        keep: None,
    };
    let first = r#"{"v":1,"time":"t","id":"aaaaaa-1","sandbox":"s","event":"lifecycle","action":"continued","count":18446744073709551615}"#;
    fs::write(&path, format!("{first}\n")).unwrap();
    let log = Log::to_files(&path, rotation).unwrap();
    for _ in 0..20 {
        log.write_now(&record(&log, 200)).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("there is no number left for it"), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
