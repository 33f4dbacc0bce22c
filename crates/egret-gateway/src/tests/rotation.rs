//! A log that is continued in new files: everything that goes in comes out, once, and whole.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;

use crate::audit::{Event, Log, Record, Rotation, numbered};

fn record(log: &Log, size: usize) -> Record {
    Record::new(Event::Lifecycle, log.id(), "test")
        .action("test")
        .message("m".repeat(size))
}

/// The ids in all files of a log, in order; each line is a record, and each id there once.
fn ids(path: &Path) -> Vec<String> {
    let parts = numbered(path).unwrap().into_iter().map(|(_, part)| part);
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
                .filter(|record| record.event == Event::Lifecycle)
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
    let parts = numbered(&path).unwrap();
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
    let last = numbered(&path).unwrap().last().unwrap().0;
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
    let before = numbered(&path).unwrap().len();

    // With one that has it open, be it that it never moves its log, nobody gives it a number.
    let other = Log::to_file(&path).unwrap();
    let log = open(Some(2));
    for _ in 0..100 {
        log.write_now(&record(&log, 50)).unwrap();
        other.write_now(&record(&other, 50)).unwrap();
    }
    assert_eq!(numbered(&path).unwrap().len(), before);
    assert_eq!(ids(&path).len(), 6200);
    drop(other);
    for _ in 0..100 {
        log.write_now(&record(&log, 50)).unwrap();
    }
    // The oldest are gone now, as was said, and only these.
    let left = numbered(&path).unwrap();
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
    assert_eq!(numbered(&path).unwrap(), []);
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
    assert!(!numbered(&path).unwrap().is_empty());

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
