//! Host patterns: how an entry says which names it means.
//!
//! A pattern is canonical like a [`Host`](crate::Host), matches whole labels only, and never means an address.

use std::cmp::Reverse;
use std::fmt;
use std::ops::Range;

use thiserror::Error;

use crate::destination::Flaw;
use crate::host::{MAX_LABEL, MAX_NAME, canonical_label, canonical_name, ends_in_number};

/// A host pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pattern {
    /// Canonical, with the wildcards as they are written.
    text: Box<str>,
    shape: Shape,
}

/// Everything about a pattern but its letters. Patterns of one shape are told apart by one look-up.
///
/// The order is that of specificity, the most specific first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub(crate) lead: Lead,
    /// How many labels stand after the leading wildcard, or in all where there is none.
    pub(crate) labels: u8,
    /// Which of those, counted from the right, are `*`.
    pub(crate) stars: u128,
}

/// How a pattern begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lead {
    /// With a label that is written out.
    Label,
    /// With `pre*post`: a label that begins and ends so. `labels` does not count it.
    Within { prefix: u8, suffix: u8 },
    /// With `*`: exactly one label.
    One,
    /// With `**`: one or more labels.
    Below,
    /// With a dot: any number of labels.
    ApexAndBelow,
}

impl Shape {
    /// Whether it has wildcards that a table by suffix does not know.
    pub(crate) fn is_looked_up_by_form(&self) -> bool {
        self.stars != 0 || matches!(self.lead, Lead::Within { .. })
    }

    /// Smaller is more specific. Two shapes that can match the same name in different ways never compare equal, but
    /// for `**.` and `.` in front of the same labels, which are one as far as matching below the apex goes.
    pub(crate) fn specificity(&self) -> impl Ord + use<> {
        let (rank, prefix, suffix) = match self.lead {
            Lead::Label if self.stars == 0 => (0, 0, 0),
            Lead::Label => (1, u8::MAX, 0),
            Lead::Within { prefix, suffix } => (1, prefix, suffix),
            Lead::One => (2, 0, 0),
            Lead::Below | Lead::ApexAndBelow => (3, 0, 0),
        };
        let literal = u16::from(prefix) + u16::from(suffix);
        (
            rank,
            Reverse(self.labels),
            self.stars.count_ones(),
            Reverse(literal),
            Reverse(prefix),
            self.stars,
        )
    }
}

/// Why a text is no host pattern, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadPattern {
    pub(crate) part: Range<usize>,
    pub(crate) why: Why,
}

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Why {
    #[error("{0}")]
    Flaw(Flaw),
    #[error("a label can have one `*`")]
    TwoStars,
    #[error("`**` can only be the first label")]
    LateDoubleStar,
    #[error("a `*` within a label can only stand in the first label")]
    LateStar,
    #[error("letters beyond ASCII cannot stand next to a `*`")]
    StarIdna,
    #[error("a wildcard cannot stand at the end")]
    LastStar,
    #[error("a wildcard for every name there is")]
    Everything,
}

impl Pattern {
    /// Reads a pattern as the user wrote it.
    pub(crate) fn parse(written: &str) -> Result<Self, BadPattern> {
        let whole = |why| BadPattern {
            part: 0..written.len(),
            why,
        };
        if !written.contains('*') && !written.starts_with('.') {
            let text = canonical_name(written).map_err(|flaw| whole(Why::Flaw(flaw)))?;
            return Ok(Self::exact(text.into_owned()));
        }
        if matches!(written, "*" | "**" | "." | "*." | "**.") {
            return Err(whole(Why::Everything));
        }
        let text = written.strip_suffix('.').unwrap_or(written);
        let mut lead = Lead::Label;
        let mut labels = Vec::new();
        let mut at = 0;
        for (index, label) in text.split('.').enumerate() {
            let part = at..at + label.len();
            at = part.end + 1;
            let bad = |why| {
                Err(BadPattern {
                    part: part.clone(),
                    why,
                })
            };
            match (index, label) {
                (0, "") => lead = Lead::ApexAndBelow,
                (0, "*") => lead = Lead::One,
                (0, "**") => lead = Lead::Below,
                (_, "") => return bad(Why::Flaw(Flaw::EmptyLabel)),
                (_, "*") => labels.push("*".to_owned()),
                (_, "**") => return bad(Why::LateDoubleStar),
                (0, _) if label.contains('*') => {
                    let (glob, prefix, suffix) = match within(label) {
                        Ok(parts) => parts,
                        Err(why) => return bad(why),
                    };
                    lead = Lead::Within { prefix, suffix };
                    labels.push(glob);
                }
                (_, _) if label.contains('*') => return bad(Why::LateStar),
                (_, _) => match canonical_label(label) {
                    Ok(label) => labels.push(label),
                    Err(flaw) => return bad(Why::Flaw(flaw)),
                },
            }
        }
        let last = labels.last().map_or("*", String::as_str);
        if last.contains('*') {
            let some = labels.iter().any(|label| label != "*");
            return Err(whole(if some { Why::LastStar } else { Why::Everything }));
        }
        if ends_in_number(last) {
            return Err(whole(Why::Flaw(Flaw::NumericName)));
        }
        let front = match lead {
            Lead::Label | Lead::Within { .. } => "",
            Lead::One => "*.",
            Lead::Below => "**.",
            Lead::ApexAndBelow => ".",
        };
        let text = format!("{front}{}", labels.join("."));
        if text.len() > MAX_NAME || labels.len() > MAX_LABELS {
            return Err(whole(Why::Flaw(Flaw::LongName)));
        }
        let glob = usize::from(matches!(lead, Lead::Within { .. }));
        let rest = labels.iter().skip(glob);
        let stars = rest.rev().enumerate().filter(|(_, label)| *label == "*");
        let stars = stars.fold(0, |stars, (place, _)| stars | 1 << place);
        let count = u8::try_from(labels.len() - glob).unwrap_or(u8::MAX);
        Ok(Self {
            text: text.into(),
            shape: Shape {
                lead,
                labels: count,
                stars,
            },
        })
    }

    fn exact(text: String) -> Self {
        let labels = u8::try_from(text.split('.').count()).unwrap_or(u8::MAX);
        let shape = Shape {
            lead: Lead::Label,
            labels,
            stars: 0,
        };
        Self {
            text: text.into(),
            shape,
        }
    }

    /// The canonical text, wildcards included.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the pattern is a plain name.
    pub(crate) fn is_exact(&self) -> bool {
        self.shape.lead == Lead::Label && self.shape.stars == 0
    }

    /// Whether a canonical name is one of those that are meant. Where many patterns are asked, a table finds them faster.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let mut labels = name.rsplit('.');
        let mut rest = self.rest().rsplit('.');
        if !rest.all(|own| {
            labels
                .next()
                .is_some_and(|label| own == "*" || own == label)
        }) {
            return false;
        }
        match self.shape.lead {
            Lead::Label => labels.next().is_none(),
            Lead::One => labels.count() == 1,
            Lead::Below => labels.next().is_some(),
            Lead::ApexAndBelow => true,
            Lead::Within { .. } => {
                let glob = self
                    .text
                    .split('.')
                    .next()
                    .and_then(|glob| glob.split_once('*'));
                let ends = |label: &str| {
                    glob.is_some_and(|(prefix, suffix)| {
                        label.len() >= prefix.len() + suffix.len()
                            && label.starts_with(prefix)
                            && label.ends_with(suffix)
                    })
                };
                labels.next().is_some_and(ends) && labels.next().is_none()
            }
        }
    }

    /// The text after the leading wildcard and its dot; the whole text where there is none.
    pub(crate) fn rest(&self) -> &str {
        match self.shape.lead {
            Lead::Label => &self.text,
            _ => self.text.split_once('.').map_or("", |(_, rest)| rest),
        }
    }

    /// The labels to the right of the last wildcard: the name under which the pattern is open.
    pub(crate) fn base(&self) -> &str {
        let rest = self.rest();
        match rest.rfind("*.") {
            Some(star) => rest.get(star + 2..).unwrap_or(rest),
            None => rest,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// As many as fit into a name.
const MAX_LABELS: usize = MAX_NAME / 2 + 1;

/// Reads `pre*post`; returns it with the lengths of the two.
fn within(label: &str) -> Result<(String, u8, u8), Why> {
    let (prefix, suffix) = label.split_once('*').unwrap_or((label, ""));
    if suffix.contains('*') {
        return Err(Why::TwoStars);
    }
    if !label.is_ascii() {
        return Err(Why::StarIdna);
    }
    let bad = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*'));
    if let Some(bad) = label.chars().find(|&c| bad(c)) {
        return Err(Why::Flaw(Flaw::Character(bad)));
    }
    match (u8::try_from(prefix.len()), u8::try_from(suffix.len())) {
        (Ok(prefix), Ok(suffix)) if label.len() <= MAX_LABEL => {
            Ok((label.to_ascii_lowercase(), prefix, suffix))
        }
        _ => Err(Why::Flaw(Flaw::LongLabel)),
    }
}
