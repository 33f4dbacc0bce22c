//! Switches for tests that see whether the absence of a guard is noticed.
//!
//! In what is released there are none: [`stands`] is `true`, and the compiler leaves the question out. Only a build with the
//! feature `unguarded`, which no release has, asks the environment.

/// Whether a guard stands, by its name: always, unless this build has the feature `unguarded` and `EGRET_WITHOUT` lists it.
#[cfg(not(feature = "unguarded"))]
#[inline]
pub(crate) const fn stands(_guard: &str) -> bool {
    true
}

/// Whether a guard stands, by its name: not if `EGRET_WITHOUT` lists it, with commas between names.
#[cfg(feature = "unguarded")]
pub(crate) fn stands(guard: &str) -> bool {
    let without = std::env::var("EGRET_WITHOUT").unwrap_or_default();
    without.split(',').all(|name| name != guard)
}
