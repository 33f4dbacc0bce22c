//! Medians, ranges and percentiles.

use serde::Serialize;

/// What several rounds came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of at least one value; of none it is not a number.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: percentile(&sorted, 0.5),
            least: percentile(&sorted, 0.0),
            most: percentile(&sorted, 1.0),
        }
    }
}

/// The value below which the share `at` (0 to 1) of `sorted` lies; between two values, the part of the way that is left.
pub(crate) fn percentile(sorted: &[f64], at: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = at * last as f64;
    let below = place.floor();
    let value = |index: f64| sorted.get(index as usize).copied().unwrap_or(f64::NAN);
    let (low, high) = (value(below), value(place.ceil()));
    low + (high - low) * (place - below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_does_not_depend_on_the_order_of_the_rounds() {
        let spread = Spread::of(&[30.0, 10.0, 20.0, 50.0, 40.0]);
        assert_eq!(
            (spread.least, spread.median, spread.most),
            (10.0, 30.0, 50.0)
        );
        assert_eq!(Spread::of(&[1.0, 2.0]).median, 1.5);
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn percentiles_lie_between_values() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values[..2], 0.25), 0.25);
    }
}
