//! The file that records go to.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use egret_policy::SandboxId;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::file::{self, Place, Rotation};
use super::record::{Event, Record};

/// An open audit log. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    sink: Mutex<Sink>,
    observer: OnceLock<Observer>,
    /// What every id of this run begins with, so that ids of different runs differ.
    prefix: String,
    next: AtomicU64,
}

#[derive(Debug)]
struct Sink {
    file: File,
    /// Where it is, if it is to be continued in others.
    place: Option<Place>,
    /// The line being made; kept for its memory.
    line: Vec<u8>,
    /// The rest of a line of which the file took only the beginning. Goes first, always.
    rest: Vec<u8>,
    /// Records given up on since the last that could be written.
    lost: u64,
}

/// Is called with every record that the file has taken, in their order. What waits for the log waits for it, too.
pub type Observer = Box<dyn Fn(&Record) + Send + Sync>;

/// A record did not get into the log.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The file did not take the record within the time that connections wait for it.
    #[error("cannot write the audit log: {0}; make room for it or make it writable")]
    Write(#[from] io::Error),
}

impl Log {
    /// Opens `path` for appending, creating it readable for its owner only.
    ///
    /// # Errors
    /// Whatever opening the file meets.
    pub fn to_file(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::from_file(file::open(path.as_ref())?.0)
    }

    /// The same, to be continued in new files.
    ///
    /// # Errors
    /// Also that what is at `path` cannot be moved.
    pub fn to_files(path: impl AsRef<Path>, rotation: Rotation) -> io::Result<Self> {
        let path = path.as_ref();
        let (file, can_be_moved) = file::open(path)?;
        if !can_be_moved {
            return Err(io::Error::other(
                "it is no regular file, or its file system has no locks, so that it cannot be split",
            ));
        }
        let place = Place::new(path, &file, rotation)?;
        let log = Self::from_file(file)?;
        log.sink().place = Some(place);
        Ok(log)
    }

    /// Writes to `file`, which has to be open for appending if anything else writes to it too.
    ///
    /// A pipe or socket, such as the standard output of a container, becomes non-blocking, for everybody who has it: one
    /// whose reader does not keep up is like a file that takes no more, and must not hold the gateway's one thread.
    ///
    /// # Errors
    /// The kernel gave no random bytes for the ids, or does not say what `file` is.
    pub fn from_file(file: File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        if kind.is_fifo() || kind.is_socket() {
            rustix::io::ioctl_fionbio(&file, true)?;
        }
        let sink = Sink {
            file,
            place: None,
            line: Vec::with_capacity(512),
            rest: Vec::new(),
            lost: 0,
        };
        Ok(Self(Arc::new(Inner {
            sink: Mutex::new(sink),
            observer: OnceLock::new(),
            prefix: random_prefix()?,
            next: AtomicU64::new(1),
        })))
    }

    /// Has all records from now on shown to `observer`. There is one at most: a second is not called.
    pub fn observe(&self, observer: Observer) {
        let (Ok(()) | Err(_)) = self.0.observer.set(observer);
    }

    /// Records that a sandbox or a part of it started or stopped; `action` is one word such as `start`.
    ///
    /// # Errors
    /// The record did not get into the file.
    pub fn lifecycle(
        &self,
        sandbox: &SandboxId,
        action: &'static str,
        message: &str,
    ) -> Result<(), AuditError> {
        self.event(Event::Lifecycle, sandbox, action, message)
    }

    /// Records that a policy could not be loaded; `message` says where it came from and what was wrong with it. That one
    /// was loaded is recorded by [`Gateway::record_policy`](crate::Gateway::record_policy) and
    /// [`Gateway::set_policy`](crate::Gateway::set_policy).
    ///
    /// # Errors
    /// The record did not get into the file.
    pub fn rejected(&self, sandbox: &SandboxId, message: &str) -> Result<(), AuditError> {
        self.event(Event::Policy, sandbox, "rejected", message)
    }

    fn event(
        &self,
        event: Event,
        sandbox: &SandboxId,
        action: &'static str,
        message: &str,
    ) -> Result<(), AuditError> {
        let record = Record::new(event, self.id(), sandbox.as_str())
            .action(action)
            .message(message.to_owned());
        self.write_now(&record)
    }

    /// An id no other event has: short, and made to be searched for.
    pub(crate) fn id(&self) -> String {
        let mut id = String::with_capacity(16);
        id.push_str(&self.0.prefix);
        id.push('-');
        base36(self.0.next.fetch_add(1, Ordering::Relaxed), &mut id);
        id
    }

    /// Writes `record` at once or not at all.
    pub(crate) fn write_now(&self, record: &Record) -> Result<(), AuditError> {
        Ok(self.attempt(record, &mut false)?)
    }

    /// Writes `record`, if not at once, before anything else is recorded. For what nobody waits for, and without which the
    /// records behind it could not be understood.
    pub(crate) fn write_first(&self, record: &Record) {
        let mut begun = false;
        if self.attempt(record, &mut begun).is_ok() || begun {
            return;
        }
        let sink = &mut *self.sink();
        if sink.rest.len() > MOST_WAITING {
            sink.lost += 1;
        } else {
            record.line(&mut sink.rest);
            self.tell(record);
        }
    }

    /// Writes `record`, trying for up to `wait`: once before this returns, and then, should the file not take it, as often as
    /// the future is given time. When that ends with an error, the record is not in the log as a whole, and what it
    /// would have recorded must not happen.
    pub(crate) fn write(
        &self,
        record: Record,
        wait: Duration,
    ) -> impl Future<Output = Result<(), AuditError>> + Send + use<> {
        let mut begun = false;
        let tried = self.attempt(&record, &mut begun);
        let again =
            tried.map_err(|error| Box::pin(self.clone().write_again(record, wait, begun, error)));
        async move {
            match again {
                Ok(()) => Ok(()),
                Err(again) => again.await,
            }
        }
    }

    async fn write_again(
        self,
        record: Record,
        wait: Duration,
        mut begun: bool,
        mut error: io::Error,
    ) -> Result<(), AuditError> {
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline {
            sleep(RETRY).await;
            match self.attempt(&record, &mut begun) {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
        self.sink().lost += 1;
        Err(error.into())
    }

    /// Writes `record` at once, or counts it among those that were lost. For what the sandbox could use to keep
    /// others waiting, and of which nothing passes.
    pub(crate) fn note(&self, record: &Record) {
        let mut begun = false;
        if self.attempt(record, &mut begun).is_err() && !begun {
            self.sink().lost += 1;
        }
    }

    /// `begun` remembers, from one attempt to the next, that the file took a part of this very line: the rest of it goes
    /// before all others.
    fn attempt(&self, record: &Record, begun: &mut bool) -> io::Result<()> {
        let sink = &mut *self.sink();
        sink.finish_rest()?;
        if *begun {
            return Ok(());
        }
        let continued = |number: u64| {
            let mut first = Record::new(Event::Lifecycle, self.id(), &record.sandbox)
                .action(file::CONTINUED)
                .message("the log goes on here; the file before this one has the number `count`");
            first.count = Some(number);
            let mut line = Vec::new();
            first.line(&mut line);
            line
        };
        if let Some(place) = &mut sink.place
            && let Some(trouble) = place.turn(&mut sink.file, continued)?
        {
            let finding = Record::new(Event::Finding, self.id(), &record.sandbox)
                .action("log_not_split")
                .message(trouble);
            sink.begin(&finding)?;
            self.tell(&finding);
            sink.finish_rest()?;
        }
        if sink.lost > 0 {
            let mut finding = Record::new(Event::Finding, self.id(), &record.sandbox)
                .action("records_lost")
                .message("records could not be written; what they would have recorded was refused or had ended");
            finding.count = Some(sink.lost);
            sink.begin(&finding)?;
            self.tell(&finding);
            sink.lost = 0;
            sink.finish_rest()?;
        }
        sink.begin(record)?;
        self.tell(record);
        *begun = true;
        sink.finish_rest()
    }

    /// What the file has taken a part of, it will have as a whole before anything else.
    fn tell(&self, record: &Record) {
        if let Some(observer) = self.0.observer.get() {
            observer(record);
        }
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        // A panic while the lock was held leaves at worst a line unfinished, which `rest` knows about.
        self.0.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("sink", &self.sink)
            .finish_non_exhaustive()
    }
}

impl Sink {
    /// Has the file take the beginning of a line, at least; what it leaves is in `rest`.
    fn begin(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        record.line(&mut self.line);
        let taken = write_some(&mut self.file, &self.line)?;
        if let Some(place) = &mut self.place {
            place.grew(self.line.len());
        }
        self.rest
            .extend_from_slice(self.line.get(taken..).unwrap_or_default());
        Ok(())
    }

    fn finish_rest(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            let taken = write_some(&mut self.file, &self.rest)?;
            self.rest.drain(..taken.min(self.rest.len()));
        }
        Ok(())
    }
}

/// One `write(2)` that took at least a byte.
fn write_some(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn random_prefix() -> io::Result<String> {
    let mut bytes = [0_u8; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let mut prefix = String::with_capacity(8);
    // 36^6 is the largest power that fits: six characters, always.
    base36(
        u64::from(u32::from_le_bytes(bytes)) % 36_u64.pow(6) + 36_u64.pow(6),
        &mut prefix,
    );
    prefix.remove(0);
    Ok(prefix)
}

fn base36(mut number: u64, text: &mut String) {
    let mut digits = [0_u8; 13];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"
            .get((number % 36) as usize)
            .copied()
            .unwrap_or(b'0');
        number /= 36;
        used += 1;
        if number == 0 {
            break;
        }
    }
    text.extend(
        digits
            .iter()
            .skip(digits.len() - used)
            .map(|&digit| char::from(digit)),
    );
}

/// Octets of whole records that wait for the file to take them; one more may come on top.
const MOST_WAITING: usize = 1 << 20;

/// How long to wait between two attempts at a file that refuses.
const RETRY: Duration = Duration::from_millis(50);
