//! The question that lies above everything else, and when a key may answer it.
//!
//! A key that was on its way to something else must not answer. So a question takes keys only once it has been on the screen
//! for a while in which nothing was pressed.

use egret_gateway::Question;
use std::time::{Duration, Instant};

/// The questions of all sandboxes, and the one that is shown.
#[derive(Debug, Default)]
pub(crate) struct Facing {
    /// With the sandbox that each is from, the oldest first.
    open: Vec<(String, Question)>,
    /// Since when nothing was pressed while the first one was shown; not known as long as it has not been shown.
    quiet: Option<Instant>,
}

impl Facing {
    /// The questions of one sandbox are these now. Says whether there is any, or was.
    pub(crate) fn set(&mut self, sandbox: &str, questions: Vec<Question>) -> bool {
        let was_any = self.is_any();
        let shown = self.named();
        let before = std::mem::take(&mut self.open);
        // Those that were there keep their places.
        let mut new = questions;
        for (of, old) in before {
            if of != sandbox {
                self.open.push((of, old));
            } else if let Some(at) = new.iter().position(|question| question.id == old.id) {
                self.open.push((of, new.remove(at)));
            }
        }
        self.open.extend(
            new.into_iter()
                .map(|question| (sandbox.to_owned(), question)),
        );
        if self.named() != shown {
            self.quiet = None;
        }
        was_any || self.is_any()
    }

    /// A question has been answered.
    pub(crate) fn answered(&mut self, sandbox: &str, id: &str) {
        let shown = self.named();
        self.open
            .retain(|(of, question)| of != sandbox || question.id != id);
        if self.named() != shown {
            self.quiet = None;
        }
    }

    /// It was drawn.
    pub(crate) fn shown(&mut self, now: Instant) {
        if self.is_any() {
            self.quiet.get_or_insert(now);
        }
    }

    /// A key was pressed. Whether it may answer.
    pub(crate) fn takes_keys(&mut self, now: Instant) -> bool {
        let takes = self.is_armed(now);
        if !takes && self.quiet.is_some() {
            self.quiet = Some(now);
        }
        takes
    }

    /// Whether a key that is pressed now would answer.
    pub(crate) fn is_armed(&self, now: Instant) -> bool {
        self.quiet
            .is_some_and(|since| now.saturating_duration_since(since) >= QUIET)
    }

    /// Whether there is one.
    pub(crate) fn is_any(&self) -> bool {
        !self.open.is_empty()
    }

    /// The one that is shown, and the sandbox that it is from.
    pub(crate) fn current(&self) -> Option<(&str, &Question)> {
        self.open
            .first()
            .map(|(sandbox, question)| (sandbox.as_str(), question))
    }

    /// The id of the one that is shown, if it is from this sandbox.
    pub(crate) fn id(&self, sandbox: &str) -> Option<&str> {
        self.current()
            .filter(|(of, _)| *of == sandbox)
            .map(|(_, question)| question.id.as_str())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    fn named(&self) -> Option<(String, String)> {
        self.current()
            .map(|(sandbox, question)| (sandbox.to_owned(), question.id.clone()))
    }
}

/// How long nothing has to be pressed before a key answers.
const QUIET: Duration = Duration::from_millis(500);
