//! Every order in which things can happen, one after the other.

/// The choices of one run: those that are given, and after them the usual ones.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    given: Vec<usize>,
    made: Vec<Choice>,
    /// How often one may still depart from the usual.
    left: usize,
}

#[derive(Debug)]
struct Choice {
    taken: usize,
    /// How many there were to choose from.
    among: usize,
    told: String,
}

impl Schedule {
    /// What happens next: as a rule the first of what can. Another one is a departure from that, unless it is `free`: that
    /// is tried everywhere.
    pub(super) fn choose<T: Copy + std::fmt::Debug>(
        &mut self,
        possible: &[T],
        free: impl Fn(&T) -> bool,
    ) -> Option<T> {
        let usual = possible.first()?;
        let given = self.given.get(self.made.len()).copied().unwrap_or(0);
        // In this order: the usual, then what is free, then the departures, if there may be any.
        let mut order = vec![usual];
        order.extend(possible.iter().skip(1).filter(|next| free(next)));
        let is_free = order.len();
        if self.left > 0 {
            order.extend(possible.iter().skip(1).filter(|next| !free(next)));
        }
        let taken = **order.get(given).expect("a choice that was there before");
        self.left -= usize::from(given >= is_free);
        self.made.push(Choice {
            taken: given,
            among: order.len(),
            told: format!("{taken:?}"),
        });
        Some(taken)
    }

    /// The first choices of the run after this one: the last that can be made otherwise is.
    fn next(&self) -> Option<Vec<usize>> {
        let at = self
            .made
            .iter()
            .rposition(|choice| choice.taken + 1 < choice.among)?;
        let mut next: Vec<usize> = self.made[..at].iter().map(|choice| choice.taken).collect();
        next.push(self.made[at].taken + 1);
        Some(next)
    }

    fn told(&self) -> String {
        let steps: Vec<_> = self
            .made
            .iter()
            .map(|choice| choice.told.as_str())
            .collect();
        steps.join(", ")
    }
}

/// Runs all there are, or up to one in which something does not hold; says how many.
pub(super) fn explore(
    departures: usize,
    mut run: impl FnMut(&mut Schedule) -> Result<(), String>,
) -> Result<usize, String> {
    let mut given = Some(Vec::new());
    let mut runs = 0;
    while let Some(choices) = given {
        let mut schedule = Schedule {
            given: choices,
            made: Vec::new(),
            left: departures,
        };
        runs += 1;
        run(&mut schedule)
            .map_err(|why| format!("{why}, in run {runs}, which was: {}", schedule.told()))?;
        given = schedule.next();
    }
    Ok(runs)
}

#[test]
fn every_order_is_tried_once() {
    let mut seen = Vec::new();
    let runs = explore(usize::MAX, |schedule| {
        let mut left = vec!['a', 'b', 'c'];
        let mut order = String::new();
        while let Some(next) = schedule.choose(&left, |_| false) {
            left.retain(|other| *other != next);
            order.push(next);
        }
        seen.push(order);
        Ok(())
    });
    seen.sort();
    assert_eq!(seen, ["abc", "acb", "bac", "bca", "cab", "cba"]);
    assert_eq!(runs, Ok(6));
    // One departure at most, but what is free is tried everywhere.
    let mut seen = Vec::new();
    let runs = explore(1, |schedule| {
        let mut left = vec!['a', 'b', 'c'];
        let mut order = String::new();
        while let Some(next) = schedule.choose(&left, |next| *next == 'c') {
            left.retain(|other| *other != next);
            order.push(next);
        }
        seen.push(order);
        Ok(())
    });
    seen.sort();
    assert_eq!(seen, ["abc", "acb", "bac", "bca", "cab", "cba"]);
    assert_eq!(runs, Ok(6));
    let found = explore(1, |schedule| {
        match schedule.choose(&['a', 'b'], |_| false) {
            Some('b') => Err("found".into()),
            _ => Ok(()),
        }
    });
    assert_eq!(found, Err("found, in run 2, which was: 'b'".into()));
}
