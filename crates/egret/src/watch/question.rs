//! The question that lies above everything else, and when a key may answer it.
//!
//! A key that was on its way to something else must not answer. So a question takes keys only once it has been on the screen
//! for a while in which nothing was pressed.

use egret_gateway::Question;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The questions of all sandboxes, and the one that is shown.
#[derive(Debug, Default)]
pub(crate) struct Facing {
    /// With the sandbox that each is from, the oldest first.
    open: Vec<(String, Question)>,
    /// Those that were answered last: what a sandbox told before it had the answer may name them still.
    answered: VecDeque<(String, String)>,
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
        new.retain(|question| {
            let mut answered = self.answered.iter();
            !answered.any(|(of, id)| of == sandbox && *id == question.id)
        });
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
        self.answered
            .push_front((sandbox.to_owned(), id.to_owned()));
        self.answered.truncate(MOST_ANSWERED);
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

/// Answers that are remembered.
const MOST_ANSWERED: usize = 64;
/// How long nothing has to be pressed before a key answers.
const QUIET: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: &str) -> Question {
        Question {
            id: id.into(),
            destination: "a.test:443".into(),
            host: "a.test".into(),
            port: 443,
            program: None,
            reason: "denied.default".into(),
            message: "no entry allows it".into(),
            waiting: 1,
            left_ms: 1_000,
        }
    }

    #[test]
    fn what_was_answered_does_not_come_back_with_a_picture_from_before() {
        let mut facing = Facing::default();
        facing.set("box", vec![question("1"), question("2")]);
        facing.answered("box", "1");
        facing.set("box", vec![question("1"), question("2")]);
        assert_eq!(facing.id("box"), Some("2"));
        assert_eq!(facing.count(), 1);
        // Another sandbox's may be called the same.
        facing.set("other", vec![question("1")]);
        assert_eq!(facing.count(), 2);
    }
}
