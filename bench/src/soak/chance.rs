//! Numbers that look like chance, and are the same for the same beginning.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// xorshift64* of Marsaglia and Vigna.
pub(crate) struct Chance(Cell<u64>);

impl Chance {
    pub(crate) fn new(seed: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        Self(Cell::new(hasher.finish() | 1))
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        let mixed = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        mixed as usize % bound.max(1)
    }

    pub(crate) fn one_in(&self, many: usize) -> bool {
        self.below(many) == 0
    }
}
