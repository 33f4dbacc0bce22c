//! Host patterns, looked up by suffix.
//!
//! One hash table holds the plain patterns by the labels they end in, so that a name costs one look-up for each of
//! its labels. The rare ones, with a `*` inside, are looked up once for each [`Shape`] that is in use: the name is
//! written with the shape's wildcards, and the result is either a pattern of the policy or not. Neither depends on
//! how many entries there are, and neither allocates.

use crate::matcher::found::Table;
use crate::matcher::{Found, Ports};
use crate::pattern::{Lead, Pattern, Shape};

/// Which entry names a host and a port.
#[derive(Debug, Default)]
pub(crate) struct NameTable {
    by_suffix: Table<Box<str>, Slot>,
    /// The most labels of a suffix, those of shapes included: a longer one need not be looked up.
    longest: usize,
    shaped: Table<Box<str>, Id>,
    /// In use in `shaped`, the most specific first.
    shapes: Vec<Shape>,
    ports: Ports<Id>,
    /// The first entry of each pattern, by the pattern's id.
    first: Vec<u32>,
}

/// A pattern's number.
type Id = u32;
const NONE: Id = Id::MAX;

/// The plain patterns that end in the same labels.
#[derive(Clone, Copy, Debug)]
struct Slot {
    exact: Id,
    one: Id,
    below: Id,
    apex: Id,
}

const EMPTY: Slot = Slot {
    exact: NONE,
    one: NONE,
    below: NONE,
    apex: NONE,
};

impl NameTable {
    pub(crate) fn with_capacity(entries: usize) -> Self {
        Self {
            by_suffix: Table::with_capacity_and_hasher(entries, Default::default()),
            ports: Ports::with_capacity(2 * entries),
            first: Vec::with_capacity(entries),
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Adds an entry. Of two for the same pattern and port the first is the one that is named; one that says the `same`
    /// as the first is left out.
    pub(crate) fn insert(
        &mut self,
        pattern: &Pattern,
        ports: &[u16],
        entry: u32,
        same: impl Fn(u32, u32) -> bool,
    ) {
        let shape = pattern.shape();
        if shape.is_looked_up_by_form() {
            for id in self.ids_of_shaped(pattern, entry) {
                self.ports.insert(id, ports, entry, &same);
            }
            return;
        }
        self.longest = self.longest.max(usize::from(shape.labels));
        let slot = match self.by_suffix.get_mut(pattern.rest()) {
            Some(slot) => slot,
            None => self.by_suffix.entry(pattern.rest().into()).or_insert(EMPTY),
        };
        let places: &mut [&mut Id] = match shape.lead {
            Lead::One => &mut [&mut slot.one],
            Lead::Below => &mut [&mut slot.below],
            Lead::ApexAndBelow => &mut [&mut slot.apex, &mut slot.below],
            Lead::Label | Lead::Within { .. } => &mut [&mut slot.exact],
        };
        let mut ids = [NONE; 2];
        for (place, id) in places.iter_mut().zip(&mut ids) {
            if **place == NONE {
                **place = Id::try_from(self.first.len()).unwrap_or(NONE);
                self.first.push(entry);
            }
            *id = **place;
        }
        for id in ids.into_iter().filter(|&id| id != NONE) {
            self.ports.insert(id, ports, entry, &same);
        }
    }

    /// The dotted form stands twice, once for the apex, which `**.` does not mean.
    fn ids_of_shaped(&mut self, pattern: &Pattern, entry: u32) -> Vec<Id> {
        let shape = pattern.shape();
        self.longest = self.longest.max(usize::from(shape.labels));
        let forms = match shape.lead {
            Lead::ApexAndBelow => vec![
                (
                    Shape {
                        lead: Lead::Below,
                        ..shape
                    },
                    format!("**.{}", pattern.rest()),
                ),
                (shape, pattern.as_str().to_owned()),
            ],
            _ => vec![(shape, pattern.as_str().to_owned())],
        };
        let mut ids = Vec::new();
        for (shape, text) in forms {
            if !self.shapes.contains(&shape) {
                self.shapes.push(shape);
                self.shapes.sort_by_key(Shape::specificity);
            }
            let next = Id::try_from(self.first.len()).unwrap_or(NONE);
            let id = *self.shaped.entry(text.into()).or_insert(next);
            if id == next {
                self.first.push(entry);
            }
            ids.push(id);
        }
        ids
    }

    /// The entries with the most specific pattern that matches name and port, of those that are `meant`.
    pub(crate) fn find(&self, name: &str, port: u16, meant: impl Fn(u32) -> bool) -> Found {
        let mut found = Found::Nothing;
        self.each_match(name, |id| {
            let first = *self.first.get(id as usize)?;
            found.improve(self.ports.find(id, port, first, &meant));
            found.is_entry().then_some(())
        });
        found
    }

    /// All entries that match name and port, of those that are `meant`.
    pub(crate) fn find_all(
        &self,
        name: &str,
        port: u16,
        meant: impl Fn(u32) -> bool,
        into: &mut Vec<u32>,
    ) {
        self.each_match(name, |id| {
            into.extend(self.ports.entries(id, port).filter(|&entry| meant(entry)));
            None::<()>
        });
    }

    /// As [`Self::find`], by entries that write the name out and by no pattern.
    pub(crate) fn find_exact(&self, name: &str, port: u16, meant: impl Fn(u32) -> bool) -> Found {
        let exact = self.by_suffix.get(name).map_or(NONE, |slot| slot.exact);
        match self.first.get(exact as usize) {
            Some(&first) => self.ports.find(exact, port, first, &meant),
            None => Found::Nothing,
        }
    }

    /// Whether an entry names the host on some port.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.each_match(name, |_| Some(())).is_some()
    }

    /// The first entry whose pattern matches every name that `pattern` matches, on this port.
    pub(crate) fn covering(&self, pattern: &Pattern, port: u16) -> Option<u32> {
        let by = |id: Id| self.ports.entries(id, port).next();
        if pattern.is_exact() {
            return self.each_match(pattern.as_str(), by);
        }
        let shape = pattern.shape();
        if let Some(entry) = self.shaped.get(pattern.as_str()).and_then(|&id| by(id)) {
            return Some(entry);
        }
        let mut rest = Some(pattern.rest()).filter(|rest| !rest.is_empty());
        let mut own = shape.lead != Lead::Label;
        while let Some(suffix) = rest {
            if let Some(slot) = self.by_suffix.get(suffix) {
                let matched_by = match (own, shape.lead) {
                    (true, Lead::ApexAndBelow) => [slot.apex, NONE],
                    (true, Lead::One | Lead::Within { .. }) => [slot.one, slot.below],
                    _ if suffix.len() < pattern.as_str().len() => [slot.below, NONE],
                    _ => [NONE, NONE],
                };
                if let Some(entry) = matched_by.into_iter().filter(|&id| id != NONE).find_map(by) {
                    return Some(entry);
                }
            }
            own = false;
            rest = suffix.split_once('.').map(|(_, rest)| rest);
        }
        None
    }

    /// Calls `visit` with every pattern that matches a name, the most specific first, until it returns something.
    fn each_match<T>(&self, name: &str, mut visit: impl FnMut(Id) -> Option<T>) -> Option<T> {
        let mut visit = |id: Id| if id == NONE { None } else { visit(id) };
        let labels = 1 + name.bytes().filter(|&b| b == b'.').count();
        let slot = |suffix: &str, labels: usize| match labels <= self.longest {
            true => self.by_suffix.get(suffix).copied().unwrap_or(EMPTY),
            false => EMPTY,
        };
        let own = slot(name, labels);
        if let Some(out) = visit(own.exact) {
            return Some(out);
        }
        let mut shapes = self.shapes.iter().peekable();
        while let Some(shape) =
            shapes.next_if(|shape| matches!(shape.lead, Lead::Label | Lead::Within { .. }))
        {
            if let Some(out) = visit(self.shaped(name, labels, shape)) {
                return Some(out);
            }
        }
        let parent = name.split_once('.').map(|(_, parent)| parent);
        if let Some(out) = parent.and_then(|parent| visit(slot(parent, labels - 1).one)) {
            return Some(out);
        }
        while let Some(shape) = shapes.next_if(|shape| shape.lead == Lead::One) {
            if let Some(out) = visit(self.shaped(name, labels, shape)) {
                return Some(out);
            }
        }
        let (mut suffix, mut left) = (Some(name), labels);
        if labels > self.longest {
            // Before the last dot that is too many there is nothing to find.
            let dot = name.rmatch_indices('.').nth(self.longest.checked_sub(1)?);
            suffix = dot.and_then(|(at, _)| name.get(at + 1..));
            left = self.longest;
        }
        while let Some(at) = suffix {
            // The plain pattern first: at the same number of labels it has fewer wildcards.
            let plain = match left == labels {
                true => own.apex,
                false => slot(at, left).below,
            };
            if let Some(out) = visit(plain) {
                return Some(out);
            }
            while let Some(shape) = shapes.next_if(|shape| usize::from(shape.labels) >= left) {
                if let Some(out) = visit(self.shaped(name, labels, shape)) {
                    return Some(out);
                }
            }
            suffix = at.split_once('.').map(|(_, parent)| parent);
            left -= 1;
        }
        None
    }

    /// The pattern of this shape that matches a name, found by writing the name with the shape's wildcards.
    fn shaped(&self, name: &str, labels: usize, shape: &Shape) -> Id {
        let mut buffer = Buffer::new();
        match write_as(name, labels, shape, &mut buffer) {
            Some(()) => self.shaped.get(buffer.as_str()).copied().unwrap_or(NONE),
            None => NONE,
        }
    }
}

/// Writes a name the way a pattern of this shape that matches it is written; none where no such pattern could.
fn write_as(name: &str, labels: usize, shape: &Shape, out: &mut Buffer) -> Option<()> {
    let fixed = usize::from(shape.labels);
    let in_front = labels.checked_sub(fixed)?;
    match (shape.lead, in_front) {
        (Lead::Label, 0) => {}
        (Lead::One, 1) => out.push("*.")?,
        (Lead::Below, 1..) => out.push("**.")?,
        (Lead::ApexAndBelow, 0) => out.push(".")?,
        (Lead::Within { prefix, suffix }, 1) => {
            let label = name.split('.').next()?;
            let (prefix, suffix) = (usize::from(prefix), usize::from(suffix));
            let open = label.len().checked_sub(prefix + suffix)?;
            out.push(label.get(..prefix)?)?;
            out.push("*")?;
            out.push(label.get(prefix + open..)?)?;
            out.push(".")?;
        }
        _ => return None,
    }
    for (index, label) in name.split('.').skip(in_front).enumerate() {
        if index > 0 {
            out.push(".")?;
        }
        let place = fixed - 1 - index;
        match shape.stars >> place & 1 {
            1 => out.push("*")?,
            _ => out.push(label)?,
        }
    }
    Some(())
}

/// Room for a name with its wildcards, on the stack.
struct Buffer {
    octets: [u8; 264],
    len: usize,
}

impl Buffer {
    fn new() -> Self {
        Self {
            octets: [0; 264],
            len: 0,
        }
    }

    fn push(&mut self, text: &str) -> Option<()> {
        let end = self.len + text.len();
        self.octets
            .get_mut(self.len..end)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Some(())
    }

    fn as_str(&self) -> &str {
        let written = self.octets.get(..self.len).unwrap_or_default();
        std::str::from_utf8(written).unwrap_or_default()
    }
}
