//! The kinds of names and paths that patterns tell apart.
//!
//! Both are sequences of words. All patterns are followed at once, word by word, as [`words`] does letter by letter: each
//! set of patterns that something is matched by is found, with one member that shows it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

use super::words::{ANY, Alphabet, Place, WordKind, without_the_overtaken, words};
use super::work::Work;

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'p> {
    /// Any number of words.
    AnyNumber,
    /// A word, in which `*` stands for any letters; a `*` alone is a word that is not empty.
    Word(&'p str),
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
pub(crate) fn kinds(patterns: &[Vec<Part<'_>>], alphabet: &Alphabet, work: &Work) -> Vec<Kind> {
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
fn member((at, parts): (u32, &Vec<Part<'_>>)) -> Kind {
    let words = parts.iter().filter_map(|part| match part {
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
    patterns: &'s [Vec<Part<'p>>],
    alphabet: &'s Alphabet,
    work: &'s Work,
    /// The kinds of words that patterns with wildcards in them tell apart, as far as that was asked.
    word_kinds: HashMap<Vec<&'p str>, Rc<Vec<WordKind>>>,
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
                let goes_on = branch.place == Place::Anywhere && matched.len() < branch.items.len();
                if !found.contains(&matched) {
                    kinds.push(Kind {
                        words: words_up_to(&steps, step),
                        matched: matched.clone(),
                    });
                    found.insert(matched);
                }
                let state: Rc<[Item]> = branch.items.into();
                if goes_on && seen.insert(Rc::clone(&state)) {
                    open.push_back((state, step));
                }
            }
        }
        kinds
    }

    /// The words that lead to different states.
    fn branches(&mut self, state: &[Item]) -> Vec<Branch> {
        let mut waiting = Vec::new();
        let mut stars = Vec::new();
        let mut literals: BTreeMap<&'p str, Vec<Item>> = BTreeMap::new();
        let mut globs: BTreeMap<&'p str, Vec<Item>> = BTreeMap::new();
        for &(pattern, at) in state {
            let next = (pattern, at.saturating_add(1));
            match self.part((pattern, at)) {
                None => {}
                Some(Part::AnyNumber) => waiting.push((pattern, at)),
                Some(Part::Word("*")) => stars.push(next),
                Some(Part::Word(word)) if word.contains('*') => {
                    globs.entry(word).or_default().push(next);
                }
                Some(Part::Word(word)) => literals.entry(word).or_default().push(next),
            }
        }
        let mut branches = Vec::new();
        let mut add = |search: &Self, word: String, place, advanced: &[&[Item]]| {
            let items = waiting.iter().chain(advanced.iter().copied().flatten());
            let items = search.closed(items.copied());
            search.work.spend(items.len());
            branches.push(Branch { word, place, items });
        };
        let empty = self.alphabet.place("");
        if empty != Place::Nowhere {
            let advanced = literals.get("").map(Vec::as_slice).unwrap_or_default();
            add(self, String::new(), empty, &[advanced]);
        }
        literals.remove("");
        if globs.is_empty() {
            for (&word, advanced) in &literals {
                let place = self.alphabet.place(word);
                if place != Place::Nowhere && self.work.is_left() {
                    add(self, word.to_owned(), place, &[advanced, &stars]);
                }
            }
            if let Some(fresh) = self.alphabet.fresh(|word| literals.contains_key(word)) {
                add(self, fresh, Place::Anywhere, &[&stars]);
            }
            return branches;
        }
        literals.extend(globs);
        let patterns: Vec<&'p str> = literals.keys().copied().collect();
        let advanced: Vec<&[Item]> = literals.values().map(Vec::as_slice).collect();
        for kind in self.words(patterns).iter() {
            let matched = kind
                .matched
                .iter()
                .filter_map(|&at| advanced.get(at).copied());
            let all: Vec<&[Item]> = matched.chain([stars.as_slice()]).collect();
            add(self, kind.word.clone(), kind.place, &all);
        }
        branches
    }

    fn words(&mut self, patterns: Vec<&'p str>) -> Rc<Vec<WordKind>> {
        if let Some(known) = self.word_kinds.get(&patterns) {
            return Rc::clone(known);
        }
        let kinds = Rc::new(words(&patterns, self.alphabet, self.work));
        self.word_kinds.insert(patterns, Rc::clone(&kinds));
        kinds
    }

    fn part(&self, (pattern, at): Item) -> Option<Part<'p>> {
        let parts = self.patterns.get(pattern as usize)?;
        parts.get(usize::from(at)).copied()
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
        let ended = state.iter().filter(|&&item| self.part(item).is_none());
        ended.map(|&(pattern, _)| pattern).collect()
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
