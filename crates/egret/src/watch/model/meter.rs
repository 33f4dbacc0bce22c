//! How fast a number rises.

/// Seconds that a rate is the mean of.
const SPAN: usize = 3;

/// A number that rises, and what it was in the seconds before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    total: u64,
    past: [u64; SPAN],
}

impl Meter {
    /// It rises now.
    pub(crate) fn add(&mut self, more: u64) {
        self.total = self.total.saturating_add(more);
    }

    /// It was so much higher all the time, which was not known.
    pub(crate) fn add_old(&mut self, more: u64) {
        self.add(more);
        for past in &mut self.past {
            *past = past.saturating_add(more);
        }
    }

    /// A second has gone by.
    pub(crate) fn tick(&mut self) {
        self.past.rotate_right(1);
        if let Some(newest) = self.past.first_mut() {
            *newest = self.total;
        }
    }

    /// How much it is.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// How much it rises in a second.
    pub(crate) fn rate(&self) -> u64 {
        let oldest = self.past.last().copied().unwrap_or_default();
        self.total.saturating_sub(oldest) / 3
    }
}
