//! Every order in which things can happen, one after the other.

use std::time::Duration;

/// The choices of one run: those that are given, and after them the usual ones.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    given: Vec<Choice>,
    made: Vec<Choice>,
    /// How often one may still depart from the usual.
    left: usize,
    /// How often this run was tried before.
    tried: u32,
    /// What was given could not be chosen: something came later than before, or in another order, for the runtime chooses by
    /// chance whom of several it asks first.
    differs: bool,
}

#[derive(Debug, Clone)]
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
        let given = self.given.get(self.made.len());
        // In this order: the usual, then what is free, then the departures, if there may be any.
        let mut order = vec![usual];
        order.extend(possible.iter().skip(1).filter(|next| free(next)));
        let is_free = order.len();
        if self.left > 0 {
            order.extend(possible.iter().skip(1).filter(|next| !free(next)));
        }
        let among = order.len();
        let taken = given.map_or(0, |given| given.taken);
        let Some(&&next) = order.get(taken) else {
            self.differs = true;
            return None;
        };
        self.left -= usize::from(taken >= is_free);
        let told = format!("{next:?}");
        self.differs |= given.is_some_and(|given| !given.told.is_empty() && given.told != told);
        self.made.push(Choice { taken, among, told });
        Some(next)
    }

    /// How long to wait for what may still come, where nothing is possible: the longer, the more often this was tried.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(10) * self.tried
    }

    /// The first choices of the run after this one: the last that can be made otherwise is.
    fn next(mut self) -> Option<Vec<Choice>> {
        while let Some(mut last) = self.made.pop() {
            if last.taken + 1 < last.among {
                last.taken += 1;
                // What that is, is seen when it is taken.
                last.told.clear();
                self.made.push(last);
                return Some(self.made);
            }
        }
        None
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

/// What was tried.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Explored {
    pub(super) runs: usize,
    /// Runs that could not be had a second time, so that what they would have led to was not tried.
    pub(super) lost: usize,
}

/// Runs all there are, or up to one in which something does not hold, however often it is run.
pub(super) fn explore(
    departures: usize,
    mut run: impl FnMut(&mut Schedule) -> Result<(), String>,
) -> Result<Explored, String> {
    let mut given = Vec::new();
    let mut explored = Explored::default();
    loop {
        explored.runs += 1;
        let mut tried = 0;
        let schedule = loop {
            let mut schedule = Schedule {
                given: given.clone(),
                left: departures,
                tried,
                ..Schedule::default()
            };
            let held = run(&mut schedule);
            tried += 1;
            match held {
                Ok(()) if !schedule.differs => break schedule,
                _ if tried < TRIES => {}
                _ if schedule.differs => {
                    explored.lost += 1;
                    schedule.made = given.clone();
                    break schedule;
                }
                Ok(()) => break schedule,
                Err(why) => {
                    let (run, steps) = (explored.runs, schedule.told());
                    return Err(format!("{why}, in run {run}, which was: {steps}"));
                }
            }
        };
        match schedule.next() {
            Some(next) => given = next,
            None => return Ok(explored),
        }
    }
}

const TRIES: u32 = 8;

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
    assert_eq!(runs, Ok(Explored { runs: 6, lost: 0 }));
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
    assert_eq!(runs, Ok(Explored { runs: 6, lost: 0 }));
    let found = explore(1, |schedule| {
        match schedule.choose(&['a', 'b'], |_| false) {
            Some('b') => Err("found".into()),
            _ => Ok(()),
        }
    });
    assert_eq!(found, Err("found, in run 2, which was: 'b'".into()));
}
