//! What is known of one destination of one sandbox.

use super::meter::Meter;
use super::{Key, short};
use egret_gateway::Connection;
use egret_gateway::audit::{Door, Event, Record, Verdict};
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Decisions about a destination that are kept, for its detail.
const MOST_SEEN: usize = 8;
/// Programs of a row that are told apart.
const MOST_PROGRAMS: usize = 8;
/// Connections that are told apart.
const MOST_OPEN: usize = 4_096;
/// What is older was not there to be watched: it does not count towards a rate.
const RECENT: SignedDuration = SignedDuration::from_secs(5);

/// One destination of one sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// `host:port`, or a name alone for a question to the resolver.
    pub(crate) destination: String,
    /// What was decided last.
    pub(crate) state: State,
    pub(crate) allowed: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    /// The programs that asked, the last one first.
    pub(crate) programs: Vec<String>,
    /// When it was heard of last.
    pub(crate) last: Option<Timestamp>,
    /// The last decisions, the newest first.
    pub(crate) seen: VecDeque<Seen>,
    /// The last decision as it is on record, unless that is very long.
    pub(crate) decided: Option<Rc<Decided>>,
    up: Meter,
    down: Meter,
    /// Connections that are open.
    open: HashMap<String, Open>,
    heard: u64,
}

/// A decision as it is on record.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) record: Record,
    /// The record of the policy that was in force.
    pub(crate) policy: Option<Rc<Record>>,
}

/// A connection that is open.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// What is counted of it already, up and down.
    counted: (u64, u64),
    /// Whether it was there at the last look.
    there: bool,
}

/// What became of the last attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Refused.
    Refused,
    /// Allowed, and the network did not bring it about.
    Failed,
    /// Allowed.
    Allowed,
}

/// A decision, as far as a detail shows it. All texts are harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) time: String,
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) reason: String,
    pub(crate) rule: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) request: Option<String>,
    pub(crate) program: Option<String>,
    pub(crate) ancestors: Vec<String>,
    pub(crate) door: Option<Door>,
    pub(crate) addresses: Vec<std::net::IpAddr>,
    pub(crate) dialled: Option<std::net::SocketAddr>,
}

impl Row {
    pub(super) fn new(destination: String) -> Self {
        Self {
            destination,
            state: State::Refused,
            allowed: 0,
            refused: 0,
            failed: 0,
            programs: Vec::new(),
            last: None,
            seen: VecDeque::new(),
            decided: None,
            up: Meter::default(),
            down: Meter::default(),
            open: HashMap::new(),
            heard: 0,
        }
    }

    /// How it is named, in this sandbox.
    pub(crate) fn key(&self, sandbox: &str) -> Key {
        Key {
            sandbox: sandbox.to_owned(),
            destination: self.destination.clone(),
        }
    }

    /// How often it was asked for.
    pub(crate) const fn count(&self) -> u64 {
        self.allowed
            .saturating_add(self.refused)
            .saturating_add(self.failed)
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.values().filter(|open| open.there).count()
    }

    /// Bytes to the server and from it.
    pub(crate) const fn bytes(&self) -> (u64, u64) {
        (self.up.total(), self.down.total())
    }

    /// Bytes a second to the server and from it.
    pub(crate) fn rates(&self) -> (u64, u64) {
        (self.up.rate(), self.down.rate())
    }

    /// The last refusal, if that was the last that was decided.
    pub(crate) fn refusal(&self) -> Option<&Seen> {
        self.seen
            .front()
            .filter(|seen| seen.state == State::Refused)
    }

    /// The greater, the later it was heard of.
    pub(crate) const fn age_rank(&self) -> u64 {
        self.heard
    }

    pub(super) fn tick(&mut self) {
        self.up.tick();
        self.down.tick();
    }

    pub(super) fn all_closed(&mut self) {
        self.open.clear();
    }

    /// A look at what is open begins: nothing is, but what is seen. What has been counted of the others is remembered
    /// until they are on record as closed.
    pub(super) fn look(&mut self) {
        self.open.values_mut().for_each(|open| open.there = false);
        if self.open.len() > MOST_OPEN {
            self.open.clear();
        }
    }

    /// This one is open.
    pub(super) fn connection(&mut self, connection: &Connection, heard: u64, now: Timestamp) {
        let since: Option<Timestamp> = connection.since.parse().ok();
        let recent = since.is_some_and(|since| is_recent(since, now));
        if self.heard == 0 {
            // It was allowed before there was a record to see, which is left out by now.
            (self.heard, self.last, self.state) = (heard, since, State::Allowed);
        }
        let known = self.open.get(&connection.id).copied();
        let (up, down) = known.unwrap_or_default().counted;
        let (more_up, more_down) = (
            connection.bytes_up.saturating_sub(up),
            connection.bytes_down.saturating_sub(down),
        );
        self.moved(more_up, more_down, recent || known.is_some());
        if more_up + more_down > 0 && known.is_some() {
            (self.heard, self.last) = (heard, Some(now));
        }
        let counted = (connection.bytes_up.max(up), connection.bytes_down.max(down));
        self.open.insert(
            connection.id.clone(),
            Open {
                counted,
                there: true,
            },
        );
        if let Some(program) = &connection.program {
            self.program(short(program));
        }
    }

    pub(super) fn record(&mut self, record: &Record, heard: u64, now: Timestamp) {
        self.heard = heard;
        let time: Option<Timestamp> = record.time.parse().ok();
        self.last = time.or(Some(now));
        if let Some(program) = &record.executable {
            self.program(short(program));
        }
        if record.event == Event::Close {
            return self.close(record, time.is_some_and(|time| is_recent(time, now)));
        }
        let state = match record.verdict {
            Some(Verdict::Allow) if record.dialled.is_some() => State::Allowed,
            Some(Verdict::Allow) => State::Failed,
            // Whoever is not allowed is refused.
            Some(Verdict::Deny) | None => State::Refused,
        };
        self.state = state;
        let count = match state {
            State::Refused => &mut self.refused,
            State::Failed => &mut self.failed,
            State::Allowed => &mut self.allowed,
        };
        *count = count.saturating_add(1);
        if state != State::Allowed {
            // A connection that was allowed first, and then spoke what it may not.
            self.open.remove(&record.id);
        }
        self.seen.push_front(Seen::of(record, state));
        self.seen.truncate(MOST_SEEN);
    }

    fn close(&mut self, record: &Record, recent: bool) {
        let (up, down) = (
            record.bytes_up.unwrap_or_default(),
            record.bytes_down.unwrap_or_default(),
        );
        let (counted_up, counted_down) = self.open.remove(&record.id).unwrap_or_default().counted;
        self.moved(
            up.saturating_sub(counted_up),
            down.saturating_sub(counted_down),
            recent,
        );
    }

    fn moved(&mut self, up: u64, down: u64, recent: bool) {
        match recent {
            true => {
                self.up.add(up);
                self.down.add(down);
            }
            false => {
                self.up.add_old(up);
                self.down.add_old(down);
            }
        }
    }

    fn program(&mut self, program: String) {
        self.programs.retain(|known| *known != program);
        self.programs.insert(0, program);
        self.programs.truncate(MOST_PROGRAMS);
    }
}

impl Seen {
    fn of(record: &Record, state: State) -> Self {
        let text = |text: &Option<String>| text.as_deref().map(short);
        Self {
            time: short(&record.time),
            id: short(&record.id),
            state,
            reason: record.reason.as_deref().map(short).unwrap_or_default(),
            rule: text(&record.rule),
            note: text(&record.note),
            message: record.message.as_deref().map(short),
            hint: text(&record.hint),
            request: record
                .method
                .as_deref()
                .zip(record.path.as_deref())
                .map(|(method, path)| short(&format!("{method} {path}"))),
            program: text(&record.executable),
            ancestors: record
                .ancestors
                .iter()
                .take(MOST_PROGRAMS)
                .map(|program| short(program))
                .collect(),
            door: record.door,
            addresses: record.addresses.iter().take(MOST_SEEN).copied().collect(),
            dialled: record.dialled,
        }
    }
}

/// What a record is about, as text.
pub(super) fn destination(record: &Record) -> String {
    place(record.host.as_deref(), record.port, record.door)
}

/// The same of a connection.
pub(super) fn destination_of(connection: &Connection) -> String {
    let Connection {
        host, port, door, ..
    } = connection;
    place(Some(host), Some(*port), Some(*door))
}

fn place(host: Option<&str>, port: Option<u16>, door: Option<Door>) -> String {
    let host = host.map_or_else(|| "(nothing)".into(), short);
    let place = match port {
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    match door {
        // The other way round: what somebody outside asked of the sandbox.
        Some(Door::Published) => format!("in: {place}"),
        _ => place,
    }
}

fn is_recent(time: Timestamp, now: Timestamp) -> bool {
    now.duration_since(time) < RECENT
}
