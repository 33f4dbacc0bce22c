//! Asking a person about a destination that is refused, while the connections to it wait.
//!
//! One question stands for a destination, however many connections wait for its answer. It has its time, and is open for all
//! of that, whether or not those who wait are still there: what is on a person's screen does not change under their hands. A
//! destination that was refused, or that nobody answered in time, is not asked about again: for good, or for a while.
//!
//! What may be asked about is the policy's to say ([`Askable`]), and so is what a yes opens. The program can make questions,
//! so they are few at a time and not too many in a minute; what is more is refused as if nobody were asked.
//!
//! Every question is on record, and what became of it. Not here: who answers, and how they are shown what they are asked.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use egret_policy::{Askable, Denial, Destination, HostAddresses, Matcher, Program, Target};
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::Gateway;
use crate::activity::{Question, Reply};
use crate::audit::Event;
use crate::identify::Asker;
use crate::limits::Bucket;
use crate::refused::Refused;

/// The questions of a gateway.
#[derive(Debug)]
pub(crate) struct Asking {
    /// How long a question waits for its answer.
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Nobody is asked, since everything ends.
    closed: bool,
    /// Those that are open, the oldest first.
    open: Vec<Open>,
    /// What is refused without a question, and until when; for good, where there is no end to it.
    settled: HashMap<Destination, Option<Instant>>,
    bucket: Bucket,
    /// Destinations that were not asked about because there were too many, since the last finding.
    skipped: u64,
}

/// One question.
#[derive(Debug)]
struct Open {
    id: String,
    about: Askable,
    program: Option<Program>,
    denial: Denial,
    until: Instant,
    /// What those wait for who are about it.
    became: watch::Sender<Option<Became>>,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    /// Whoever waits may go on.
    Once,
    No,
    /// A new policy speaks of it.
    Replaced,
    /// Its time was over.
    Unanswered,
    /// Everything ended.
    Ended,
}

impl Became {
    /// The record's word for it, and what happened, with the destination between the two parts.
    const fn told(self) -> (&'static str, [&'static str; 2]) {
        match self {
            Self::Once => (
                "once",
                [
                    "",
                    " may be reached by the connections that wait: somebody allowed it",
                ],
            ),
            Self::No => ("no", ["", " stays refused: somebody said so"]),
            Self::Replaced => ("replaced", ["a new policy answers the question about ", ""]),
            Self::Unanswered => (
                "unanswered",
                ["nobody answered in time the question about ", ""],
            ),
            Self::Ended => (
                "ended",
                ["everything ended before somebody answered about ", ""],
            ),
        }
    }
}

impl Asking {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            state: Mutex::new(State {
                closed: false,
                open: Vec::new(),
                settled: HashMap::new(),
                bucket: Bucket::new(PER_SECOND, BURST),
                skipped: 0,
            }),
        }
    }

    /// Holds a connection that was refused until somebody has answered, if it is one that they may be asked about: then
    /// what it may be decided with from now on, or nothing where it is to be decided on anew.
    ///
    /// # Errors
    /// The refusal stands.
    pub(crate) async fn hold(
        &self,
        gateway: &Gateway,
        asker: &Asker<'_>,
        id: &str,
        refused: Refused,
    ) -> Result<Option<Askable>, Refused> {
        let Refused::Denied(denial) = &refused else {
            return Err(refused);
        };
        let asked = denial
            .askable()
            .and_then(|about| self.ask(gateway, asker.program(), id, denial, about));
        let Some((mut became, about, until)) = asked else {
            return Err(refused);
        };
        let became = match timeout_at(until.into(), became.wait_for(Option::is_some)).await {
            Ok(Ok(became)) => *became,
            // The question is gone.
            Ok(Err(_)) => None,
            Err(_) => {
                self.expire(gateway, Instant::now());
                None
            }
        };
        match became {
            Some(Became::Once) => Ok(Some(about)),
            Some(Became::Replaced) => Ok(None),
            Some(Became::No | Became::Unanswered | Became::Ended) | None => Err(refused),
        }
    }

    /// Waits for the answer to a question, a new one if there is none about this yet. None where nobody is asked.
    fn ask(
        &self,
        gateway: &Gateway,
        program: Option<&Program>,
        id: &str,
        denial: &Denial,
        about: Askable,
    ) -> Option<(watch::Receiver<Option<Became>>, Askable, Instant)> {
        let now = Instant::now();
        self.expire(gateway, now);
        let mut state = self.state();
        if state.closed || state.settled.contains_key(about.destination()) {
            return None;
        }
        if let Some(open) = state.open.iter().find(|open| open.about == about) {
            return Some((open.became.subscribe(), about, open.until));
        }
        if state.open.len() >= MOST || !state.bucket.take() {
            state.skipped += 1;
            return None;
        }
        let skipped = std::mem::take(&mut state.skipped);
        let open = Open {
            id: id.to_owned(),
            about: about.clone(),
            program: program.cloned(),
            denial: denial.clone(),
            until: now + self.patience,
            became: watch::Sender::new(None),
        };
        let waits = (open.became.subscribe(), about, open.until);
        open.note(
            gateway,
            "asked",
            ["somebody is asked whether to allow ", ""],
        );
        state.open.push(open);
        drop(state);
        note_skipped(gateway, skipped);
        Some(waits)
    }

    /// What is asked at the moment.
    pub(crate) fn questions(&self, gateway: &Gateway) -> Vec<Question> {
        let now = Instant::now();
        self.expire(gateway, now);
        self.state()
            .open
            .iter()
            .map(|open| open.told(now))
            .collect()
    }

    /// Answers a question. Whether it was still open.
    pub(crate) fn reply(&self, gateway: &Gateway, id: &str, reply: Reply) -> bool {
        self.expire(gateway, Instant::now());
        let mut state = self.state();
        let Some(at) = state.open.iter().position(|open| open.id == id) else {
            return false;
        };
        let open = state.open.remove(at);
        match reply {
            Reply::Once => open.end(gateway, Became::Once),
            Reply::No => {
                let destination = open.about.destination().clone();
                state.settled.insert(destination, None);
                open.end(gateway, Became::No);
            }
        }
        true
    }

    /// Has what waits be decided on by a new policy: what it speaks of is answered by that.
    pub(crate) fn decide_again(&self, gateway: &Gateway, matcher: &Matcher, hosts: &HostAddresses) {
        let answered = |open: &mut Open| {
            let (to, by) = (open.about.destination(), open.program.as_ref());
            match matcher.decide(to, by, hosts) {
                Ok(_) => true,
                Err(denial) => denial.askable().is_none(),
            }
        };
        let mut state = self.state();
        let open: Vec<_> = state.open.extract_if(.., |open| answered(open)).collect();
        drop(state);
        for open in open {
            open.end(gateway, Became::Replaced);
        }
    }

    /// Ends all questions, and asks none until [`Self::open_again`].
    pub(crate) fn close_all(&self, gateway: &Gateway) {
        let (open, skipped) = {
            let mut state = self.state();
            state.closed = true;
            (
                std::mem::take(&mut state.open),
                std::mem::take(&mut state.skipped),
            )
        };
        note_skipped(gateway, skipped);
        for open in open {
            open.end(gateway, Became::Ended);
        }
    }

    pub(crate) fn open_again(&self) {
        self.state().closed = false;
    }

    /// Ends what has had its time, and forgets what was settled for a while only.
    fn expire(&self, gateway: &Gateway, now: Instant) {
        let mut state = self.state();
        state
            .settled
            .retain(|_, until| until.is_none_or(|until| now < until));
        let over: Vec<_> = state
            .open
            .extract_if(.., |open| open.until <= now)
            .collect();
        for open in &over {
            let destination = open.about.destination().clone();
            state.settled.insert(destination, Some(now + QUIET));
        }
        drop(state);
        for open in over {
            open.end(gateway, Became::Unanswered);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Tells those who wait, and puts on record what became of it.
    fn end(self, gateway: &Gateway, became: Became) {
        let (action, words) = became.told();
        self.note(gateway, action, words);
        self.became.send_replace(Some(became));
    }

    fn note(&self, gateway: &Gateway, action: &'static str, [before, after]: [&str; 2]) {
        let mut record = gateway
            .record(Event::Question, &self.id)
            .action(action)
            .program(self.program.as_ref())
            .denial(&self.denial)
            .destination(self.about.destination());
        // What is decided has a record of its own.
        record.verdict = None;
        let entry = self.about.entry();
        let record = record.message(format!("{before}`{entry}`{after}"));
        gateway.log.note(&record);
    }

    /// Why it is refused, what to look at in the name, and whether a yes is for many.
    fn in_words(&self, waiting: usize) -> String {
        let mut text = self.denial.cause();
        if waiting > 1 {
            text += &format!("; {waiting} connections wait");
        }
        if let Some(registered) = self.about.registered() {
            text += "; where it leads is up to whoever has registered ";
            text += registered;
        }
        if self.about.is_international() {
            text += "; the name stands for one with letters that may look like others";
        }
        text
    }

    fn told(&self, now: Instant) -> Question {
        let destination = self.about.destination();
        let waiting = self.became.receiver_count();
        let left = self.until.saturating_duration_since(now).as_millis();
        Question {
            id: self.id.clone(),
            destination: self.about.entry(),
            host: match destination.target() {
                Target::Name(name) => name.to_string(),
                Target::Address(address) => address.to_string(),
            },
            port: destination.port(),
            program: self
                .program
                .as_ref()
                .map(|program| program.executable.clone()),
            reason: self.denial.reason().code().to_owned(),
            message: self.in_words(waiting),
            waiting: waiting as u64,
            left_ms: u64::try_from(left).unwrap_or(u64::MAX),
        }
    }
}

/// Puts on record that there was more to ask about than a person is asked.
fn note_skipped(gateway: &Gateway, skipped: u64) {
    if skipped == 0 {
        return;
    }
    let mut finding = gateway
        .record(Event::Finding, &gateway.log.id())
        .action("question_flood")
        .message("more was refused than a person is asked about at a time; this was refused without a question");
    finding.count = Some(skipped);
    gateway.log.note(&finding);
}

/// Questions that are open at once.
const MOST: usize = 8;
/// Questions that may come at any speed, and how many a second after that.
const BURST: u32 = 16;
const PER_SECOND: f64 = 0.2;
/// How long a destination is not asked about again that nobody has answered about.
const QUIET: Duration = Duration::from_secs(30);
