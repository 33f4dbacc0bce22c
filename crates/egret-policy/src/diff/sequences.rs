//! The kinds of names and paths that patterns tell apart.
//!
//! Both are sequences of words. All patterns are followed at once, word by word, as [`words`] does letter by letter: each
//! set of patterns that something is matched by is found, with one member that shows it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

use super::words::{ANY, Alphabet, Place, Reading, WordKind, without_the_overtaken, words};
use super::work::Work;

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'p> {
    /// Any number of words.
    AnyNumber,
    /// A word, in which `*` stands for any letters; a `*` alone is a word that is not empty.
    Word(&'p str),
}

/// A pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern<'p> {
    pub(crate) parts: Vec<Part<'p>>,
    /// How words are read for it. If they are folded, an empty word at the end may be there or not, for both.
    pub(crate) reading: Reading,
}

/// Sequences that the same patterns match.
pub(crate) struct Kind {
    /// One of them; there is at least one word.
    pub(crate) words: Vec<String>,
    /// The patterns, by their places in the list.
    pub(crate) matched: Vec<u32>,
}

/// The kinds of sequences, the shortest first, and the one that no pattern matches among them. Those that are found before
/// the work is spent, and then a member of each pattern.
pub(crate) fn kinds(patterns: &[Pattern<'_>], alphabet: &Alphabet, work: &Work) -> Vec<Kind> {
    let mut search = Search {
        patterns,
        alphabet,
        work,
        word_kinds: HashMap::new(),
    };
    let mut kinds = search.run();
    if !work.is_left() {
        kinds.extend((0..).zip(patterns).map(member));
    }
    kinds
}

/// A member of a pattern, whatever others match it too.
fn member((at, pattern): (u32, &Pattern<'_>)) -> Kind {
    let words = pattern.parts.iter().filter_map(|part| match part {
        Part::AnyNumber => None,
        Part::Word(word) => Some(word.replace('*', ANY)),
    });
    let mut words: Vec<_> = words.collect();
    if words.is_empty() {
        words.push(ANY.to_owned());
    }
    Kind {
        words,
        matched: vec![at],
    }
}

/// A pattern, and how far it has come.
type Item = (u32, u16);

struct Search<'s, 'p> {
    patterns: &'s [Pattern<'p>],
    alphabet: &'s Alphabet,
    work: &'s Work,
    /// The kinds of words that patterns with wildcards in them tell apart, as far as that was asked.
    word_kinds: HashMap<Vec<(&'p str, Reading)>, Rc<Vec<WordKind>>>,
}

/// A word that may come next, and what it leads to.
struct Branch {
    word: String,
    place: Place,
    items: Vec<Item>,
}

impl<'p> Search<'_, 'p> {
    fn run(&mut self) -> Vec<Kind> {
        // Each with the one before it, and the word between them.
        let mut steps: Vec<(usize, String)> = Vec::new();
        let mut found: HashSet<Vec<u32>> = HashSet::new();
        let mut kinds = Vec::new();
        let start: Rc<[Item]> = self
            .closed((0..).zip(self.patterns).map(|(at, _)| (at, 0)))
            .into();
        let mut seen: HashSet<Rc<[Item]>> = HashSet::from([Rc::clone(&start)]);
        let mut open = VecDeque::from([(start, usize::MAX)]);
        while let Some((state, before)) = open.pop_front() {
            for branch in self.branches(&state) {
                if !self.work.spend(branch.items.len() + 2) {
                    return kinds;
                }
                let step = steps.len();
                steps.push((before, branch.word));
                let matched = self.matched(&branch.items);
                // Behind the end of all patterns there is only what none matches.
                let mut parts = branch.items.iter().map(|&item| self.part(item));
                let leads_on = parts.any(|part| part.is_some()) || !found.contains(&Vec::new());
                let goes_on = branch.place == Place::Anywhere && leads_on;
                if !found.contains(&matched) {
                    kinds.push(Kind {
                        words: words_up_to(&steps, step),
                        matched: matched.clone(),
                    });
                    found.insert(matched);
                }
                // What has ended makes no difference to what follows, but where an empty word may follow.
                let mut state = branch.items;
                state.retain(|&item| self.part(item).is_some() || self.reading(item.0).folded);
                let state: Rc<[Item]> = state.into();
                if goes_on && seen.insert(Rc::clone(&state)) {
                    open.push_back((state, step));
                }
            }
        }
        kinds
    }

    /// The words that lead to different states.
    fn branches(&mut self, state: &[Item]) -> Vec<Branch> {
        let mut open = Open::default();
        for &(pattern, at) in state {
            let reading = self.reading(pattern);
            let next = (pattern, at.saturating_add(1));
            if reading.folded {
                open.folded.push((pattern, at));
            }
            match self.part((pattern, at)) {
                None => {}
                Some(Part::AnyNumber) => open.waiting.push((pattern, at)),
                Some(Part::Word("*")) => open.stars.entry(reading).or_default().push(next),
                Some(Part::Word(word)) => {
                    let words = match word.contains('*') {
                        true => &mut open.globs,
                        false => &mut open.literals,
                    };
                    words.entry((word, reading)).or_default().push(next);
                }
            }
        }
        let mut branches = Vec::new();
        let mut add = |word: String, globs: &[&[Item]]| {
            let place = self.alphabet.place(&word);
            if place != Place::Nowhere && self.work.is_left() {
                let items = self.closed(open.behind(&word, globs).into_iter());
                self.work.spend(items.len());
                branches.push(Branch { word, place, items });
            }
        };
        add(String::new(), &[]);
        let written = |word: &str| {
            let mut readings = Reading::ALL.into_iter();
            readings.any(|reading| open.literals.contains_key(&(word, reading)))
        };
        if open.globs.is_empty() {
            let mut literals: Vec<_> = open.literals.keys().map(|(word, _)| *word).collect();
            literals.dedup();
            for word in literals.into_iter().filter(|word| !word.is_empty()) {
                add(word.to_owned(), &[]);
            }
            if let Some(fresh) = self.alphabet.fresh(written) {
                add(fresh, &[]);
            }
            return branches;
        }
        let literals = open.literals.keys().filter(|(word, _)| !word.is_empty());
        let patterns: Vec<_> = open.globs.keys().chain(literals).copied().collect();
        let globs: Vec<&[Item]> = open.globs.values().map(Vec::as_slice).collect();
        let kinds = match self.word_kinds.get(&patterns) {
            Some(known) => Rc::clone(known),
            None => Rc::new(words(&patterns, self.alphabet, self.work)),
        };
        for kind in kinds.iter() {
            let matched = kind.matched.iter().filter_map(|&at| globs.get(at).copied());
            add(kind.word.clone(), &matched.collect::<Vec<_>>());
        }
        self.word_kinds.insert(patterns, kinds);
        branches
    }

    fn reading(&self, pattern: u32) -> Reading {
        let pattern = self.patterns.get(pattern as usize);
        pattern.map_or(Reading::default(), |pattern| pattern.reading)
    }

    fn part(&self, (pattern, at): Item) -> Option<Part<'p>> {
        let pattern = self.patterns.get(pattern as usize)?;
        pattern.parts.get(usize::from(at)).copied()
    }

    /// With what follows each part that may stand for nothing.
    fn closed(&self, items: impl Iterator<Item = Item>) -> Vec<Item> {
        let mut state = Vec::new();
        for (pattern, at) in items {
            state.push((pattern, at));
            let mut next = at;
            while self.part((pattern, next)) == Some(Part::AnyNumber) {
                next = next.saturating_add(1);
                state.push((pattern, next));
            }
        }
        without_the_overtaken(state, |item| self.part(item) == Some(Part::AnyNumber))
    }

    fn matched(&self, state: &[Item]) -> Vec<u32> {
        let has_ended = |&&(pattern, at): &&Item| match self.part((pattern, at)) {
            None => true,
            Some(Part::Word("")) => self.reading(pattern).folded,
            Some(_) => false,
        };
        let ended = state.iter().filter(has_ended);
        let mut ended: Vec<_> = ended.map(|&(pattern, _)| pattern).collect();
        ended.dedup();
        ended
    }
}

/// How far all patterns have come, by what they wait for.
#[derive(Default)]
struct Open<'p> {
    /// Any number of words.
    waiting: Vec<Item>,
    /// Any word, and where they are then.
    stars: HashMap<Reading, Vec<Item>>,
    /// This word.
    literals: BTreeMap<(&'p str, Reading), Vec<Item>>,
    /// A word that a pattern matches.
    globs: BTreeMap<(&'p str, Reading), Vec<Item>>,
    /// All that are folded.
    folded: Vec<Item>,
}

impl Open<'_> {
    /// Where they are behind a word, of which some globs match it.
    fn behind(&self, word: &str, globs: &[&[Item]]) -> Vec<Item> {
        let mut items = self.waiting.clone();
        items.extend(globs.iter().copied().flatten());
        for reading in Reading::ALL {
            let read = reading.of(word);
            let literal = self.literals.get(&(read.as_str(), reading));
            items.extend(literal.into_iter().flatten());
            if !read.is_empty() {
                items.extend(self.stars.get(&reading).into_iter().flatten());
            } else if reading.folded {
                let same = self.folded.iter();
                items.extend(same);
            }
        }
        items
    }
}

fn words_up_to(steps: &[(usize, String)], last: usize) -> Vec<String> {
    let mut words = Vec::new();
    let mut at = last;
    while let Some((before, word)) = steps.get(at) {
        words.push(word.clone());
        at = *before;
    }
    words.reverse();
    words
}
