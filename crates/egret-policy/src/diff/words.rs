//! The kinds of words that patterns tell apart: the labels of names, the segments of paths.
//!
//! A pattern is letters with `*`s between them. All patterns are followed at once, letter by letter; two beginnings after
//! which the same is still open are one. So each set of patterns that some word is matched by is found, with one word
//! that shows it, and no set that is matched by none.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::work::Work;

/// What words are made of.
pub(crate) struct Alphabet {
    /// Letters to take where any will do.
    letters: &'static str,
    /// Whether letters beyond ASCII will do as well.
    beyond_ascii: bool,
    /// The most octets of a word.
    longest: usize,
    place: fn(&str) -> Place,
    /// Patterns that words match which have a place of their own.
    apart: &'static [&'static str],
}

/// Where a word may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Anywhere,
    /// Only at the end.
    Last,
    Nowhere,
}

/// How a word is read before a pattern is matched with it (see `request`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reading {
    /// Without what is behind a `;`.
    pub(crate) cut: bool,
    /// In lower case, without dots and blanks at the end.
    pub(crate) folded: bool,
}

impl Reading {
    pub(crate) const ALL: [Self; 4] = [
        Self {
            cut: false,
            folded: false,
        },
        Self {
            cut: true,
            folded: false,
        },
        Self {
            cut: false,
            folded: true,
        },
        Self {
            cut: true,
            folded: true,
        },
    ];

    pub(crate) fn of(self, word: &str) -> String {
        let word = match self.cut {
            true => word.split(';').next().unwrap_or_default(),
            false => word,
        };
        match self.folded {
            true => word.trim_end_matches(TRIMMED).to_lowercase(),
            false => word.to_owned(),
        }
    }
}

/// What a folded word does not end with.
const TRIMMED: [char; 2] = ['.', ' '];

/// Words that the same patterns match.
pub(crate) struct WordKind {
    /// One of them.
    pub(crate) word: String,
    /// The patterns, by their places in the list.
    pub(crate) matched: Vec<usize>,
}

/// Labels of host names.
pub(crate) const LABELS: Alphabet = Alphabet {
    letters: "anybcdefghijklmopqrstuvwxz0123456789",
    beyond_ascii: false,
    longest: 63,
    place: |label| match label {
        "" => Place::Nowhere,
        _ => Place::Anywhere,
    },
    apart: &[],
};

/// Segments of the paths of executables.
pub(crate) const FILES: Alphabet = Alphabet {
    letters: "anybcdefghijklmopqrstuvwxz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    beyond_ascii: true,
    longest: usize::MAX,
    place: |segment| match segment {
        "" | "." | ".." => Place::Nowhere,
        _ => Place::Anywhere,
    },
    apart: &[".", ".."],
};

/// Segments of the paths of requests, as far as all servers read them alike (see `request`).
pub(crate) const SEGMENTS: Alphabet = Alphabet {
    place: |segment| match segment.split(';').next() {
        None | Some("") => Place::Last,
        Some("." | "..") => Place::Nowhere,
        Some(_) => Place::Anywhere,
    },
    apart: &[".", "..", ";*", ".;*", "..;*"],
    ..FILES
};

impl Alphabet {
    /// Where a word may stand.
    pub(crate) fn place(&self, word: &str) -> Place {
        match word.len() > self.longest {
            true => Place::Nowhere,
            false => (self.place)(word),
        }
    }

    /// A word that is none of these.
    pub(crate) fn fresh(&self, is_taken: impl Fn(&str) -> bool) -> Option<String> {
        let numbered = (1..=1_000_000).map(|number| format!("{ANY}{number}"));
        std::iter::once(ANY.to_owned())
            .chain(numbered)
            .find(|word| !is_taken(word))
    }

    /// A letter that is none of these.
    fn fresh_letter(&self, taken: &BTreeSet<char>) -> Option<char> {
        let beyond = '\u{e0}'..if self.beyond_ascii {
            '\u{d000}'
        } else {
            '\u{e0}'
        };
        let mut letters = self.letters.chars().chain(beyond);
        letters.find(|letter| !taken.contains(letter))
    }
}

/// The kinds of words, but for the empty one. Those that are found before the work is spent.
pub(crate) fn words(
    patterns: &[(&str, Reading)],
    alphabet: &Alphabet,
    work: &Work,
) -> Vec<WordKind> {
    // What stands apart is no matter where its letters are in no pattern.
    let has = |letter| letter == '*' || patterns.iter().any(|(text, _)| text.contains(letter));
    let apart = alphabet.apart.iter().filter(|text| text.chars().all(has));
    let all = patterns
        .iter()
        .copied()
        .chain(apart.map(|&text| (text, Reading::default())));
    let automaton = Automaton(
        all.map(|(text, reading)| (text.chars().collect(), reading))
            .collect(),
    );
    let mut found: HashMap<Vec<usize>, usize> = HashMap::new();
    let mut kinds: Vec<WordKind> = Vec::new();
    let start = automaton.start();
    let mut seen: HashSet<State> = HashSet::from([start.clone()]);
    let mut open = VecDeque::from([(start, String::new())]);
    while let Some((state, word)) = open.pop_front() {
        for letter in automaton.letters(&state, alphabet) {
            let next = automaton.step(&state, letter);
            if !work.spend(state.len() + next.len() + 1) {
                return kinds;
            }
            let mut word = word.clone();
            word.push(letter);
            let matched = automaton.matched(&next);
            if !found.contains_key(&matched) {
                let word = plain_word(&automaton, patterns, &matched, alphabet, work)
                    .unwrap_or_else(|| word.clone());
                if alphabet.place(&word) != Place::Nowhere {
                    found.insert(matched.clone(), kinds.len());
                    let matched = matched.into_iter().filter(|&at| at < patterns.len());
                    kinds.push(WordKind {
                        word,
                        matched: matched.collect(),
                    });
                }
            }
            if !next.is_empty() && word.len() <= alphabet.longest && seen.insert(next.clone()) {
                open.push_back((next, word));
            }
        }
    }
    kinds
}

/// A word that is easily read, if there is one that exactly these patterns match.
fn plain_word(
    automaton: &Automaton,
    patterns: &[(&str, Reading)],
    matched: &[usize],
    alphabet: &Alphabet,
    work: &Work,
) -> Option<String> {
    let matching = || matched.iter().filter_map(|&at| patterns.get(at));
    if matching().any(|(pattern, _)| !pattern.contains('*')) {
        return None;
    }
    let filled = matching().map(|(pattern, _)| pattern.replace('*', ANY));
    let mut candidates = std::iter::once(ANY.to_owned()).chain(filled).take(4);
    candidates.find(|word| {
        let state = word.chars().fold(automaton.start(), |state, letter| {
            work.spend(state.len());
            automaton.step(&state, letter)
        });
        automaton.matched(&state) == matched && alphabet.place(word) != Place::Nowhere
    })
}

/// What stands where anything will do.
pub(crate) const ANY: &str = "any";

/// All patterns at once, in the letters of their readings.
struct Automaton(Vec<(Vec<char>, Reading)>);

/// How far each pattern has come: its place, and a place in it. It may have come to several.
type State = Vec<(usize, usize)>;

impl Automaton {
    fn start(&self) -> State {
        let all = (0..self.0.len()).map(|pattern| (pattern, 0));
        self.closed(all)
    }

    /// With what follows each `*`, which may stand for nothing.
    fn closed(&self, places: impl Iterator<Item = (usize, usize)>) -> State {
        let mut state = Vec::new();
        for (pattern, at) in places {
            state.push((pattern, at));
            let mut next = at;
            while self.letter((pattern, next)) == Some('*') {
                next += 1;
                state.push((pattern, next));
            }
        }
        without_the_overtaken(state, |place| self.letter(place) == Some('*'))
    }

    fn letter(&self, (pattern, at): (usize, usize)) -> Option<char> {
        self.0.get(pattern)?.0.get(at).copied()
    }

    /// The letters that lead to different states.
    fn letters(&self, state: &State, alphabet: &Alphabet) -> BTreeSet<char> {
        let next = state.iter().filter_map(|&place| self.letter(place));
        let mut letters: BTreeSet<char> = next.filter(|&letter| letter != '*').collect();
        letters.extend(alphabet.fresh_letter(&letters));
        letters
    }

    fn step(&self, state: &State, letter: char) -> State {
        let next = state.iter().filter_map(|&(pattern, at)| {
            let (letters, reading) = self.0.get(pattern)?;
            let is = |own: char| match reading.folded {
                true => letter.to_lowercase().eq(std::iter::once(own)),
                false => letter == own,
            };
            let next = match letters.get(at) {
                // Behind a `;` nothing counts any more: one place further than the end.
                None if reading.cut && (letter == ';' || at > letters.len()) => letters.len() + 1,
                _ if reading.cut && letter == ';' => return None,
                None if reading.folded && TRIMMED.contains(&letter) => at,
                Some('*') => at,
                Some(&own) if is(own) => at + 1,
                _ => return None,
            };
            Some((pattern, next))
        });
        self.closed(next)
    }

    fn matched(&self, state: &State) -> Vec<usize> {
        let ended = state.iter().filter(|&&place| self.letter(place).is_none());
        let mut ended: Vec<_> = ended.map(|&(pattern, _)| pattern).collect();
        ended.dedup();
        ended
    }
}

/// Leaves out the places of a pattern that stand before a wildcard which it has come to: what they lead to, that does too.
pub(crate) fn without_the_overtaken<P: Copy + Ord, A: Copy + Ord>(
    mut state: Vec<(P, A)>,
    is_wildcard: impl Fn((P, A)) -> bool,
) -> Vec<(P, A)> {
    state.sort_unstable();
    state.dedup();
    let mut kept: Vec<(P, A)> = Vec::with_capacity(state.len());
    let mut overtaken_in = None;
    for place in state.into_iter().rev() {
        if overtaken_in == Some(place.0) {
            continue;
        }
        kept.push(place);
        if is_wildcard(place) {
            overtaken_in = Some(place.0);
        }
    }
    kept.reverse();
    kept
}
