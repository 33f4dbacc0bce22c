//! What somebody at the screen is doing: what is shown of the model, in which order, and which dialog is open.
//!
//! Pure as well. A key becomes a change of this, or an [`Effect`] for whoever can act on the world.

mod choice;

pub(crate) use choice::{Filter, Sort};

use super::keys::Key as Pressed;
use super::model::{About, Decided, Key, Model, Row, State};
use super::question::Facing;
use egret_gateway::Reply;
use egret_gateway::audit::Record;
use egret_policy::List;
use std::cmp::Reverse;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The state of the screen.
#[derive(Debug, Default)]
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) filter: Filter,
    pub(crate) sort: Sort,
    /// Only rows that have this in them.
    pub(crate) search: String,
    pub(crate) mode: Mode,
    /// Lines of a detail, or of the help, that are above the screen.
    pub(crate) scroll: usize,
    /// What was shown when somebody stopped it.
    pub(crate) paused: Option<Vec<Kept>>,
    /// What has just been done, or could not be.
    pub(crate) flash: Option<(String, Instant)>,
    /// Why the decision in the detail came out as it did.
    pub(crate) explanation: Option<Explanation>,
    /// The question that is on the screen.
    pub(crate) facing: Facing,
    /// The row under the cursor, unless that stays on the first one.
    selected: Option<Key>,
    /// Where it was, for when it is there no more.
    at: usize,
    /// What was drawn under the cursor last.
    under: Option<Under>,
}

/// A row under the cursor.
#[derive(Debug)]
struct Under {
    key: Key,
    /// Since when, if another one was there before, and nobody moved the cursor.
    since: Option<Instant>,
}

/// A row of the list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) sandbox: &'a About,
    pub(crate) ended: bool,
    pub(crate) row: &'a Row,
}

/// The same for as long as the list stands still.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    sandbox: About,
    ended: bool,
    row: Row,
}

impl Line<'_> {
    fn key(&self) -> Key {
        self.row.key(&self.sandbox.name)
    }

    fn kept(&self) -> Kept {
        Kept {
            sandbox: self.sandbox.clone(),
            ended: self.ended,
            row: self.row.clone(),
        }
    }
}

/// Why a decision came out as it did, in lines.
#[derive(Debug)]
pub(crate) struct Explanation {
    of: Rc<Decided>,
    lines: Vec<String>,
}

/// What the keys are about.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mode {
    /// The list.
    #[default]
    List,
    /// All about the row under the cursor.
    Detail,
    /// Typing what to search for.
    Search,
    /// What the keys are.
    Help,
    /// An entry that may be added.
    Change(Change),
}

/// An entry that may be added to a policy.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) sandbox: String,
    pub(crate) list: List,
    /// As `--allow` takes it.
    pub(crate) entry: String,
    /// The question that it answers, if it is one's.
    pub(crate) question: Option<String>,
    /// What it would do to the policy's file, once that is known.
    pub(crate) proposal: Option<Proposal>,
}

/// A policy's file with an entry more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// The file, as it is called.
    pub(crate) file: String,
    /// The lines that change, with those around them: ` `, `+` or `-` before each.
    pub(crate) lines: Vec<String>,
    /// What was in the file.
    pub(crate) before: String,
    /// What is to be in it.
    pub(crate) after: String,
}

/// What is to be done outside.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Quit,
    Suspend,
    Redraw,
    /// Add the entry for the rest of the run.
    Amend(Change),
    /// See what the entry would do to the policy's file.
    Propose(Change),
    /// Write it there, and have it loaded.
    Write(Change, Proposal),
    /// Answer a question and leave the policy alone.
    Reply {
        sandbox: String,
        question: String,
        reply: Reply,
    },
}

impl App {
    /// The rows that are shown, in order.
    pub(crate) fn lines(&self) -> Vec<Line<'_>> {
        let mut lines = match &self.paused {
            Some(kept) => kept
                .iter()
                .map(
                    |Kept {
                         sandbox,
                         ended,
                         row,
                     }| Line {
                        sandbox,
                        ended: *ended,
                        row,
                    },
                )
                .collect(),
            None => self.all(),
        };
        lines.retain(|line| self.wants(line));
        lines
    }

    /// The row under the cursor, and where it is among `lines`.
    pub(crate) fn cursor<'a>(&self, lines: &[Line<'a>]) -> Option<(usize, Line<'a>)> {
        let found = self.selected.as_ref().and_then(|key| {
            let is_it = |line: &Line<'_>| {
                line.row.destination == key.destination && line.sandbox.name == key.sandbox
            };
            lines.iter().position(is_it)
        });
        let at = match &self.selected {
            None => 0,
            Some(_) => found.unwrap_or(self.at.min(lines.len().saturating_sub(1))),
        };
        lines.get(at).map(|line| (at, *line))
    }

    /// It was drawn as it is.
    pub(crate) fn drawn(&mut self, now: Instant) {
        let lines = self.lines();
        let key = self.cursor(&lines).map(|(_, line)| line.key());
        if key.as_ref() == self.under.as_ref().map(|under| &under.key) {
            return;
        }
        let since = self.under.is_some().then_some(now);
        self.under = key.map(|key| Under { key, since });
    }

    /// Whether what is under the cursor has been there long enough to be meant. A sandbox moves rows by what it does. If it
    /// has not, the cursor stays on what was there, for another look.
    fn is_steady(&mut self, now: Instant) -> bool {
        let lines = self.lines();
        let key = self.cursor(&lines).map(|(_, line)| line.key());
        let Some(Under { key: drawn, since }) = &self.under else {
            return true;
        };
        let is_steady = key.as_ref() == Some(drawn)
            && since.is_none_or(|since| now.saturating_duration_since(since) >= STEADY);
        if !is_steady {
            self.selected = Some(drawn.clone());
            self.say(
                "the list has just moved: look again, and press it again",
                now,
            );
        }
        is_steady
    }

    /// Has the decision in the detail explained, if there is one that has not been.
    pub(crate) fn explain(&mut self, explain: impl FnOnce(&Decided) -> Vec<String>) {
        let lines = self.lines();
        let under_cursor = self
            .cursor(&lines)
            .and_then(|(_, line)| line.row.decided.clone());
        let Some(of) = under_cursor.filter(|_| matches!(self.mode, Mode::Detail)) else {
            return;
        };
        if self.explanation_of(&of).is_none() {
            let lines = explain(&of);
            self.explanation = Some(Explanation { of, lines });
        }
    }

    /// Why a decision came out as it did. One that was taken before, of the same by the same, will do.
    pub(crate) fn explanation_of(&self, decided: &Decided) -> Option<&[String]> {
        let Explanation { of, lines } = self.explanation.as_ref()?;
        let same_policy = match (&of.policy, &decided.policy) {
            (Some(one), Some(other)) => Rc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let but_for_the_moment = |record: &Record| Record {
            time: String::new(),
            id: String::new(),
            ..record.clone()
        };
        let same =
            same_policy && but_for_the_moment(&of.record) == but_for_the_moment(&decided.record);
        same.then_some(lines.as_slice())
    }

    /// Says something in the last line, for a while.
    pub(crate) fn say(&mut self, text: impl Into<String>, now: Instant) {
        self.flash = Some((text.into(), now));
    }

    /// What the change of a policy's file would be has been found out.
    pub(crate) fn proposed(&mut self, proposal: Result<Proposal, String>, now: Instant) {
        let Mode::Change(change) = &mut self.mode else {
            return;
        };
        match proposal {
            Ok(proposal) => {
                change.proposal = Some(proposal);
                self.scroll = 0;
            }
            Err(why) => {
                self.mode = Mode::List;
                self.say(why, now);
            }
        }
    }

    /// A key was pressed.
    pub(crate) fn press(&mut self, key: Pressed, now: Instant) -> Option<Effect> {
        match key {
            Pressed::Interrupt => return Some(Effect::Quit),
            Pressed::Suspend => return Some(Effect::Suspend),
            Pressed::Redraw => return Some(Effect::Redraw),
            _ => {}
        }
        if self.asks() {
            return self.answer(key, now);
        }
        if !matches!(key, Pressed::Letter('a' | 'd')) {
            // If rows have moved, it was somebody's own doing.
            self.under = None;
        }
        match self.mode.clone() {
            Mode::List => self.in_list(key, now),
            Mode::Detail => self.in_detail(key, now),
            Mode::Search => self.in_search(key),
            Mode::Help => {
                if !self.scrolls(key) {
                    self.mode = Mode::List;
                }
                None
            }
            Mode::Change(change) => self.in_change(key, change),
        }
    }

    /// Whether a question lies above everything else.
    pub(crate) fn asks(&self) -> bool {
        let answers =
            |change: &Change| change.question.as_deref() == self.facing.id(&change.sandbox);
        let being_answered = matches!(&self.mode, Mode::Change(change) if change.question.is_some() && answers(change));
        self.facing.is_any() && !being_answered
    }

    fn answer(&mut self, key: Pressed, now: Instant) -> Option<Effect> {
        if !self.facing.takes_keys(now) {
            return None;
        }
        let (sandbox, question) = self.facing.current()?;
        let (sandbox, id) = (sandbox.to_owned(), question.id.clone());
        let entry = question.destination.clone();
        let reply = |reply| {
            Some(Effect::Reply {
                sandbox: sandbox.clone(),
                question: id.clone(),
                reply,
            })
        };
        let change = Change {
            sandbox: sandbox.clone(),
            list: List::Allow,
            entry,
            question: Some(id.clone()),
            proposal: None,
        };
        match key {
            Pressed::Letter('o') => reply(Reply::Once),
            Pressed::Letter('n') => reply(Reply::No),
            Pressed::Letter('r') => Some(Effect::Amend(change)),
            Pressed::Letter('a') => {
                self.mode = Mode::Change(change.clone());
                Some(Effect::Propose(change))
            }
            _ => None,
        }
    }

    fn in_list(&mut self, key: Pressed, now: Instant) -> Option<Effect> {
        match key {
            Pressed::Up | Pressed::Letter('k') => self.step(-1),
            Pressed::Down | Pressed::Letter('j') => self.step(1),
            Pressed::PageUp => self.step(-10),
            Pressed::PageDown => self.step(10),
            Pressed::Home | Pressed::Letter('g') => {
                self.selected = None;
                self.at = 0;
            }
            Pressed::End | Pressed::Letter('G') => self.step(isize::MAX),
            Pressed::Enter => {
                self.scroll = 0;
                if self.hold() {
                    self.mode = Mode::Detail;
                }
            }
            Pressed::Letter('/') => {
                self.search.clear();
                self.mode = Mode::Search;
            }
            Pressed::Letter('f') => self.filter = self.filter.next(),
            Pressed::Letter('s') => self.sort = self.sort.next(),
            Pressed::Letter('p' | ' ') => {
                self.paused = match self.paused {
                    Some(_) => None,
                    None => Some(self.all().iter().map(Line::kept).collect()),
                };
            }
            Pressed::Letter('a') => self.allow(now),
            Pressed::Letter('d') => self.deny(now),
            Pressed::Letter('?' | 'h') => {
                self.scroll = 0;
                self.mode = Mode::Help;
            }
            Pressed::Escape => self.search.clear(),
            Pressed::Letter('q') => return Some(Effect::Quit),
            _ => {}
        }
        None
    }

    fn in_detail(&mut self, key: Pressed, now: Instant) -> Option<Effect> {
        match key {
            key if self.scrolls(key) => {}
            Pressed::Enter | Pressed::Escape | Pressed::Letter('q') => self.mode = Mode::List,
            Pressed::Letter('a') => self.allow(now),
            Pressed::Letter('d') => self.deny(now),
            _ => {}
        }
        None
    }

    /// Moves a text that does not fit, if the key is one for that.
    fn scrolls(&mut self, key: Pressed) -> bool {
        self.scroll = match key {
            Pressed::Up | Pressed::Letter('k') => self.scroll.saturating_sub(1),
            Pressed::Down | Pressed::Letter('j') => self.scroll.saturating_add(1).min(LONGEST_TEXT),
            Pressed::PageUp => self.scroll.saturating_sub(10),
            Pressed::PageDown => self.scroll.saturating_add(10).min(LONGEST_TEXT),
            Pressed::Home | Pressed::Letter('g') => 0,
            _ => return false,
        };
        true
    }

    fn in_search(&mut self, key: Pressed) -> Option<Effect> {
        match key {
            Pressed::Enter => self.mode = Mode::List,
            Pressed::Escape => {
                self.search.clear();
                self.mode = Mode::List;
            }
            Pressed::Backspace => {
                self.search.pop();
            }
            Pressed::Letter(letter) if self.search.len() < LONGEST_SEARCH => {
                self.search.push(letter);
            }
            _ => {}
        }
        None
    }

    fn in_change(&mut self, key: Pressed, change: Change) -> Option<Effect> {
        match (key, &change.proposal) {
            (key, Some(_)) if self.scrolls(key) => {}
            (Pressed::Letter('y'), Some(proposal)) => {
                self.mode = Mode::List;
                let proposal = proposal.clone();
                return Some(Effect::Write(change, proposal));
            }
            (Pressed::Letter('r'), None) => {
                self.mode = Mode::List;
                return Some(Effect::Amend(change));
            }
            (Pressed::Letter('a'), None) => return Some(Effect::Propose(change)),
            (Pressed::Escape | Pressed::Letter('n' | 'q'), _) => self.mode = Mode::List,
            _ => {}
        }
        None
    }

    /// Opens the dialog for allowing what the cursor is on, if a mere entry would do it.
    fn allow(&mut self, now: Instant) {
        if !self.is_steady(now) {
            return;
        }
        let lines = self.lines();
        let Some((_, line)) = self.cursor(&lines) else {
            return;
        };
        // The gateway has said itself what would allow it, and says something else of what has a switch of its own: this
        // machine, metadata services, names that lead to private addresses.
        let wanted = match line.row.refusal().map(|refusal| refusal.hint.as_deref()) {
            None => Err("nothing was refused there".into()),
            Some(None) => Err("no entry of a policy would allow this".into()),
            Some(Some(hint)) => match hint.strip_prefix("--allow ") {
                Some(entry) => Ok(entry.to_owned()),
                None => Err(format!("not from here; to allow it, {hint}")),
            },
        };
        self.change(&line.key().sandbox, line.ended, List::Allow, wanted, now);
    }

    /// Opens the dialog for refusing what the cursor is on from now on.
    fn deny(&mut self, now: Instant) {
        if !self.is_steady(now) {
            return;
        }
        let lines = self.lines();
        let Some((_, line)) = self.cursor(&lines) else {
            return;
        };
        let entry = line.row.destination.clone();
        let wanted = match line.row.state {
            State::Refused => Err("it is refused already".into()),
            _ if entry.starts_with("in: ") => Err("the lists are about what goes out".into()),
            _ => Ok(entry),
        };
        self.change(&line.key().sandbox, line.ended, List::Deny, wanted, now);
    }

    fn change(
        &mut self,
        sandbox: &str,
        ended: bool,
        list: List,
        wanted: Result<String, String>,
        now: Instant,
    ) {
        match wanted {
            Err(why) => self.say(why, now),
            Ok(_) if ended => self.say(format!("{sandbox} has ended"), now),
            Ok(entry) => {
                self.mode = Mode::Change(Change {
                    sandbox: sandbox.to_owned(),
                    list,
                    entry,
                    question: None,
                    proposal: None,
                });
            }
        }
    }

    /// Moves the cursor.
    fn step(&mut self, by: isize) {
        let lines = self.lines();
        let Some((at, _)) = self.cursor(&lines) else {
            return;
        };
        let to = at.saturating_add_signed(by).min(lines.len() - 1);
        let selected = lines.get(to).map(Line::key);
        (self.at, self.selected) = (to, selected);
    }

    /// Keeps the cursor on the row that it is on, and says whether there is one.
    fn hold(&mut self) -> bool {
        let lines = self.lines();
        let held = self.cursor(&lines).map(|(at, line)| (at, line.key()));
        let Some((at, key)) = held else {
            return false;
        };
        (self.at, self.selected) = (at, Some(key));
        true
    }

    fn all(&self) -> Vec<Line<'_>> {
        let rows = self.model.rows();
        let mut lines: Vec<Line<'_>> = rows
            .map(|(sandbox, row)| Line {
                sandbox: &sandbox.about,
                ended: sandbox.ended,
                row,
            })
            .collect();
        let newest = |line: &Line<'_>| line.row.age_rank();
        match self.sort {
            Sort::Recent => lines.sort_by_key(|line| Reverse(newest(line))),
            Sort::Count => lines.sort_by_key(|line| Reverse((line.row.count(), newest(line)))),
            Sort::Bytes => lines.sort_by_key(|line| {
                let (up, down) = line.row.bytes();
                Reverse((up.saturating_add(down), newest(line)))
            }),
            Sort::Name => lines.sort_by(|a, b| {
                (&a.row.destination, &a.sandbox.name).cmp(&(&b.row.destination, &b.sandbox.name))
            }),
        }
        lines
    }

    fn wants(&self, line: &Line<'_>) -> bool {
        let Line { sandbox, row, .. } = line;
        let search = self.search.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&search);
        let reason = row.seen.front().map(|seen| seen.reason.as_str());
        self.filter.shows(row)
            && (search.is_empty()
                || has(&row.destination)
                || has(&sandbox.name)
                || row.programs.iter().any(|program| has(program))
                || reason.is_some_and(has))
    }
}

/// How long a row has to have been under the cursor that came there by itself.
const STEADY: Duration = Duration::from_millis(500);
/// How long something is said in the last line.
pub(crate) const FLASH: Duration = Duration::from_secs(6);
/// Lines that can be scrolled by.
const LONGEST_TEXT: usize = 1_000;
/// Characters to search for.
const LONGEST_SEARCH: usize = 60;

#[cfg(test)]
mod tests;
