//! How much a comparison may cost.
//!
//! What two policies tell apart can be more than anybody can wait for. There is no clock here, so steps are counted: who
//! runs out of them stops, and the result says that it is not complete.

use std::cell::Cell;

/// The steps that are left.
pub(crate) struct Work {
    left: Cell<usize>,
    complete: Cell<bool>,
}

impl Work {
    pub(crate) fn new(steps: usize) -> Self {
        Self {
            left: Cell::new(steps),
            complete: Cell::new(true),
        }
    }

    /// Takes some steps; false if they are not there any more, and then nothing more may be done.
    pub(crate) fn spend(&self, steps: usize) -> bool {
        match self.left.get().checked_sub(steps) {
            Some(left) => self.left.set(left),
            None => {
                self.left.set(0);
                self.leave_out();
            }
        }
        self.is_left()
    }

    /// Whether anything can still be done.
    pub(crate) fn is_left(&self) -> bool {
        self.left.get() > 0
    }

    /// Says that something was not compared.
    pub(crate) fn leave_out(&self) {
        self.complete.set(false);
    }

    /// Whether nothing was left out.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// Does a part with at most so many of the steps that are left.
    pub(crate) fn part<T>(&self, most: usize, part: impl FnOnce(&Self) -> T) -> T {
        let given = self.left.get().min(most);
        let work = Self::new(given);
        let done = part(&work);
        self.left
            .set(self.left.get().saturating_sub(given - work.left.get()));
        if !work.is_complete() {
            self.leave_out();
        }
        done
    }
}
