//! What was measured, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::stats::Spread;

/// All of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The machine, and the version of everything on it that was measured: name and value.
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) figures: Vec<Figure>,
    /// What could not be measured, and why.
    pub(crate) missing: Vec<String>,
}

/// One thing that was measured of several subjects.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) unit: String,
    /// The subject that the others are compared with.
    pub(crate) against: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) goals: Vec<Goal>,
}

/// What the rounds gave for one subject, in their order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) subject: String,
    pub(crate) rounds: Vec<f64>,
}

/// What a subject is to come to: so many times what another one does, or so much.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) subject: String,
    /// Without it, `limit` is in the figure's unit.
    pub(crate) against: Option<String>,
    pub(crate) limit: f64,
    /// Whether more than the limit is good, rather than less.
    pub(crate) at_least: bool,
    /// In the figure's unit, what may be added to the other subject's part.
    pub(crate) plus: f64,
}

impl Goal {
    pub(crate) fn ratio(subject: &str, at_least: bool, limit: f64, against: &str) -> Self {
        Self {
            subject: subject.into(),
            against: Some(against.into()),
            limit,
            at_least,
            plus: 0.0,
        }
    }

    pub(crate) fn at_most(subject: &str, limit: f64) -> Self {
        Self {
            subject: subject.into(),
            against: None,
            limit,
            at_least: false,
            plus: 0.0,
        }
    }
}

impl Figure {
    pub(crate) fn new(name: &str, title: &str, unit: &str, against: &str) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            unit: unit.into(),
            against: against.into(),
            rows: Vec::new(),
            goals: Vec::new(),
        }
    }

    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// Adds what a round gave.
    pub(crate) fn add(&mut self, subject: &str, value: f64) {
        match self.rows.iter_mut().find(|row| row.subject == subject) {
            Some(row) => row.rounds.push(value),
            None => self.rows.push(Row {
                subject: subject.into(),
                rounds: vec![value],
            }),
        }
    }

    fn rounds(&self, subject: &str) -> Option<&[f64]> {
        self.rows
            .iter()
            .find(|row| row.subject == subject)
            .map(|row| row.rounds.as_slice())
    }

    /// How a subject compares with another one: the quotient of each round by itself.
    fn ratio(&self, subject: &str, against: &str, plus: f64) -> Option<Spread> {
        let (ours, theirs) = (self.rounds(subject)?, self.rounds(against)?);
        let quotients: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| (ours - plus) / theirs)
            .collect();
        Some(Spread::of(&quotients))
    }

    fn table(&self) -> String {
        let mut text = format!("{} ({}), against {}\n", self.title, self.unit, self.against);
        for Row { subject, rounds } in &self.rows {
            let Spread {
                median,
                least,
                most,
            } = Spread::of(rounds);
            let ratio = match self.ratio(subject, &self.against, 0.0) {
                Some(ratio) => format!(
                    "{:>7.2} x ({:.2}-{:.2})",
                    ratio.median, ratio.least, ratio.most
                ),
                None => String::new(),
            };
            // Writing to a string does not fail.
            let range = format!("({}-{})", number(least), number(most));
            writeln!(
                text,
                "  {subject:<24}{:>10}  {range:<19}{ratio}",
                number(median)
            )
            .ok();
        }
        for goal in &self.goals {
            writeln!(text, "  {}", self.verdict(goal)).ok();
        }
        text
    }

    fn verdict(&self, goal: &Goal) -> String {
        let sign = if goal.at_least { ">=" } else { "<=" };
        let subject = &goal.subject;
        let (reached, wanted) = match &goal.against {
            Some(against) => {
                let plus = if goal.plus > 0.0 {
                    format!(" + {} {}", number(goal.plus), self.unit)
                } else {
                    String::new()
                };
                (
                    self.ratio(subject, against, goal.plus),
                    format!("{} x {against}{plus}", goal.limit),
                )
            }
            None => (
                self.rounds(subject).map(Spread::of),
                format!("{} {}", number(goal.limit), self.unit),
            ),
        };
        let Some(Spread { median, .. }) = reached else {
            return format!("goal: {subject} {sign} {wanted}: NOT MEASURED");
        };
        let met = if goal.at_least {
            median >= goal.limit
        } else {
            median <= goal.limit
        };
        let verdict = if met { "met" } else { "MISSED" };
        format!("goal: {subject} {sign} {wanted}: {median:.2}, {verdict}")
    }
}

impl Report {
    /// The report for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.machine {
            writeln!(text, "{name:<20}{value}").ok();
        }
        for figure in &self.figures {
            write!(text, "\n{}: {}", figure.name, figure.table()).ok();
        }
        for missing in &self.missing {
            writeln!(text, "\nNOT MEASURED: {missing}").ok();
        }
        text
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.machine.extend(other.machine);
        self.figures.extend(other.figures);
        self.missing.extend(other.missing);
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_one_round() {
        let mut figure = Figure::new("rate", "Rate", "1/s", "floor")
            .goal(Goal::ratio("ours", true, 0.9, "floor"));
        // A machine that was slow in one round was so for both.
        for (floor, ours) in [(10.0, 9.0), (100.0, 95.0), (1000.0, 900.0)] {
            figure.add("floor", floor);
            figure.add("ours", ours);
        }
        assert_eq!(figure.ratio("ours", "floor", 0.0).unwrap().median, 0.9);
        assert!(figure.table().contains("0.90, met"), "{}", figure.table());
        figure.goals = vec![Goal::at_most("ours", 10.0), Goal::at_most("theirs", 10.0)];
        assert!(figure.table().contains("MISSED") && figure.table().contains("NOT MEASURED"));
    }
}
