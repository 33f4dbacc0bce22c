//! The programs and the requests that entries tell apart.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::sequences::{Kind, Part, Pattern, kinds};
use super::words::{Alphabet, FILES, Reading, SEGMENTS};
use super::work::Work;
use crate::glob::PathGlob;
use crate::program::{Program, Programs};
use crate::request::{Methods, Requests};

/// Stands for every program that no entry names, unless one does.
const OTHER_PROGRAM: &str = "/any/other/program";
/// Stands for every path that no entry names, unless one does.
const OTHER_PATH: &str = "/any/other/path";
/// Stands for every method that no entry names, unless one does.
const OTHER_METHOD: &str = "OTHER";

/// The programs that some entries tell apart.
#[derive(Debug, Default)]
pub(crate) struct Askers {
    /// Not empty.
    pub(crate) kinds: Vec<AskerKind>,
    /// The executable that no entry names, if there is one.
    pub(crate) other: Option<String>,
}

/// Programs that the same entries mean.
#[derive(Debug)]
pub(crate) struct AskerKind {
    /// The numbers of the `Programs` that mean them, in order.
    pub(crate) meant_by: Vec<u32>,
    /// One for each way in which that may come about, as far as it is of interest.
    pub(crate) members: Vec<Program>,
}

/// The requests that some entries tell apart. None stands for everything that is no HTTP request.
#[derive(Debug)]
pub(crate) struct RequestKinds {
    pub(crate) all: Vec<Request>,
    /// Of each kind the first, by its place in `all`.
    pub(crate) first: Vec<usize>,
}

/// A method and a target.
pub(crate) type Request = Option<(String, String)>;

impl RequestKinds {
    /// Where every request is decided alike.
    pub(crate) fn none() -> Self {
        Self {
            all: vec![None],
            first: vec![0],
        }
    }
}

/// The programs that these tell apart, each with its number.
///
/// No decision takes more than three entries that mean the program by what it descends from: one that allows the request,
/// one that allows the address, and the one that makes the difference. What else means it can be left aside, so no more
/// than three ancestors are tried at once.
pub(crate) fn askers(programs: &[(u32, &Programs)], work: &Work) -> Askers {
    let patterns = programs
        .iter()
        .flat_map(|(number, programs)| programs.iter().map(move |pattern| (*number, pattern)));
    let mut globs = Globs::default();
    let mut starters = Globs::default();
    for (number, pattern) in patterns {
        globs.add(&pattern.path, Reading::default(), number);
        if pattern.descendants {
            starters.add(&pattern.path, Reading::default(), number);
        }
    }
    let executables = globs.kinds(&FILES, OTHER_PROGRAM, work);
    let starters = match starters.owners.is_empty() {
        true => Vec::new(),
        false => starters.kinds(&FILES, OTHER_PROGRAM, work),
    };
    let other = executables.iter().find(|(_, by)| by.is_empty());
    let other = other.map(|(path, _)| path.clone());
    let program = |executable: &str, ancestors: &[&str]| Program {
        executable: executable.to_owned(),
        ancestors: ancestors.iter().map(|&path| path.to_owned()).collect(),
    };
    let mut found = Found::default();
    let mut last = Vec::new();
    for (path, meant_by) in &executables {
        last.extend(found.add(meant_by, program(path, &[])));
    }
    if let Some(other) = &other {
        for (path, meant_by) in starters.iter().filter(|(_, by)| !by.is_empty()) {
            last.extend(found.add(meant_by, program(other, &[path])));
        }
    }
    // Of those that start the programs of the same entries, one will do.
    let starters: BTreeMap<&Vec<u32>, &String> = starters
        .iter()
        .rev()
        .map(|(path, meant_by)| (meant_by, path))
        .filter(|(meant_by, _)| !meant_by.is_empty())
        .collect();
    for _ in 0..MOST_ANCESTORS {
        let mut next = Vec::new();
        for (meant_by, program) in &last {
            for (more, &path) in &starters {
                if !work.spend(meant_by.len() + more.len() + 1) {
                    return found.finish(other);
                }
                let both: BTreeSet<u32> = meant_by.iter().chain(*more).copied().collect();
                let both: Vec<u32> = both.into_iter().collect();
                if !found.places.contains_key(&both) {
                    let mut program = program.clone();
                    program.ancestors.push(path.clone());
                    next.extend(found.add(&both, program));
                }
            }
        }
        last = next;
    }
    found.finish(other)
}

/// The programs that were found, by the entries that mean them.
#[derive(Default)]
struct Found {
    kinds: Vec<AskerKind>,
    places: HashMap<Vec<u32>, usize>,
}

impl Found {
    /// Returns what was added if it is the first of its kind.
    fn add(&mut self, meant_by: &[u32], program: Program) -> Option<(Vec<u32>, Program)> {
        let known = self.places.get(meant_by);
        if let Some(kind) = known.and_then(|&at| self.kinds.get_mut(at)) {
            kind.members.push(program);
            return None;
        }
        self.places.insert(meant_by.to_vec(), self.kinds.len());
        self.kinds.push(AskerKind {
            meant_by: meant_by.to_vec(),
            members: vec![program.clone()],
        });
        Some((meant_by.to_vec(), program))
    }

    fn finish(self, other: Option<String>) -> Askers {
        Askers {
            kinds: self.kinds,
            other,
        }
    }
}

/// The requests that these tell apart, each with its number, and whether it is of a deny entry.
pub(crate) fn requests(requests: &[(u32, bool, &Requests)], work: &Work) -> RequestKinds {
    let mut all = requests.iter().flat_map(|(_, _, requests)| requests.iter());
    let cuts: &[bool] = match all.any(|rule| rule.path.as_str().contains(';')) {
        true => &[false, true],
        false => &[false],
    };
    let rules = requests.iter().flat_map(|&(number, folded, requests)| {
        let readings = cuts.iter().map(move |&cut| Reading { cut, folded });
        readings.flat_map(move |reading| requests.iter().map(move |rule| (number, reading, rule)))
    });
    let rules: Vec<_> = rules.collect();
    if rules.is_empty() {
        return RequestKinds::none();
    }
    let listed = rules.iter().filter_map(|(_, _, rule)| match &rule.methods {
        Methods::Any => None,
        Methods::Listed(methods) => Some(methods),
    });
    let mut methods: BTreeSet<&str> = listed.flatten().map(|method| &**method).collect();
    let numbered = (1..=methods.len()).map(|number| format!("{OTHER_METHOD}{number}"));
    let other = std::iter::once(OTHER_METHOD.to_owned()).chain(numbered);
    let other: Vec<_> = other
        .filter(|other| !methods.contains(other.as_str()))
        .collect();
    methods.insert("GET");
    methods.extend(other.first().map(String::as_str));
    let mut globs = Globs::default();
    for (place, (_, reading, rule)) in (0..).zip(&rules) {
        globs.add(&rule.path, *reading, place);
    }
    let mut all = vec![(None, BTreeSet::new())];
    let mut targets = globs.kinds(&SEGMENTS, OTHER_PATH, work);
    targets.sort();
    for (target, matching) in targets {
        for &method in &methods {
            if !work.spend(matching.len() + 2) {
                break;
            }
            let matching = matching.iter().filter_map(|&rule| rules.get(rule as usize));
            let meant_by = matching.filter(|(_, _, rule)| match &rule.methods {
                Methods::Any => true,
                Methods::Listed(methods) => methods.iter().any(|listed| **listed == *method),
            });
            let meant_by = meant_by.map(|(number, reading, _)| (*number, *reading));
            let meant_by: BTreeSet<(u32, Reading)> = meant_by.collect();
            let request = (method.to_owned(), target.clone());
            all.push((Some(request), meant_by));
        }
    }
    let mut seen = HashSet::new();
    let mut kinds = RequestKinds {
        all: Vec::with_capacity(all.len()),
        first: Vec::new(),
    };
    for (at, (request, meant_by)) in all.into_iter().enumerate() {
        if seen.insert((request.is_some(), meant_by)) {
            kinds.first.push(at);
        }
        kinds.all.push(request);
    }
    kinds
}

/// Globs, each with the numbers of those that it belongs to.
#[derive(Default)]
struct Globs<'p> {
    globs: Vec<&'p PathGlob>,
    texts: Vec<(String, Reading)>,
    owners: Vec<Vec<u32>>,
    places: HashMap<(&'p str, Reading), usize>,
}

impl<'p> Globs<'p> {
    fn add(&mut self, glob: &'p PathGlob, reading: Reading, owner: u32) {
        let place = *self
            .places
            .entry((glob.as_str(), reading))
            .or_insert(self.globs.len());
        if place == self.globs.len() {
            self.globs.push(glob);
            let text = match reading.folded {
                true => glob.as_str().to_lowercase(),
                false => glob.as_str().to_owned(),
            };
            self.texts.push((text, reading));
            self.owners.push(Vec::new());
        }
        if let Some(owners) = self.owners.get_mut(place)
            && owners.last() != Some(&owner)
        {
            owners.push(owner);
        }
    }

    /// The kinds of paths that the globs tell apart, a path of each, with those that the globs which match it belong to.
    /// What none matches is the `other` path, if that is so.
    fn kinds(&self, alphabet: &Alphabet, other: &str, work: &Work) -> Vec<(String, Vec<u32>)> {
        let patterns = self.texts.iter().map(|(text, reading)| Pattern {
            parts: parts(text),
            reading: *reading,
        });
        let patterns: Vec<_> = patterns.collect();
        let found = work.part(MOST_WORK, |work| kinds(&patterns, alphabet, work));
        let segments: Vec<&str> = other.split('/').skip(1).collect();
        let other_is_free = !self.globs.iter().any(|glob| glob.matches(&segments));
        let path = |kind: Kind| {
            let owners = kind.matched.iter();
            let owners = owners.filter_map(|&glob| self.owners.get(glob as usize));
            let owners: BTreeSet<u32> = owners.flatten().copied().collect();
            let path = match kind.matched.is_empty() && other_is_free {
                true => other.to_owned(),
                false => format!("/{}", kind.words.join("/")),
            };
            (path, owners.into_iter().collect())
        };
        found.into_iter().map(path).collect()
    }
}

fn parts(glob: &str) -> Vec<Part<'_>> {
    let segments = glob.split('/').skip(1);
    let part = |segment| match segment {
        "**" => Part::AnyNumber,
        segment => Part::Word(segment),
    };
    segments.map(part).collect()
}

/// The most work for the paths that the entries about one destination tell apart.
const MOST_WORK: usize = 20_000_000;
/// The most programs that are tried above one.
const MOST_ANCESTORS: usize = 3;
