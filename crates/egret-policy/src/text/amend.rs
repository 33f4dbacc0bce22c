//! Adding entries to a policy's text, which otherwise stays what it was.
//!
//! An entry goes behind the last one that is about the same domain, and else to the end of its list. Where the list has a line
//! for each item, lines are added and no other octet changes. In brackets, and in JSON, there is no such place: then
//! the whole policy is laid out as [`format_policy`](crate::format_policy) does.
//!
//! What was written is read again each time: it has to be the old values and the old comments, and what was added.
//!
//! Not here: whether something should be allowed, and the file that the text is from.

use thiserror::Error;

use crate::policy::{Entry, FlagError, Language, Policy, Ports, What, flag_error};
use crate::report::{PolicyErrors, Report, Span};
use crate::suffix::registered;
use crate::text::entry::{Side, parse_entry};
use crate::text::format::{self, Layout, column_of};
use crate::text::reader::{get, text_of};
use crate::text::write::{self, Comment, Item};
use crate::text::yaml::{self, Node, Value};
use crate::text::{emit, native};
use crate::visible::visible;

/// An entry that is to be in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// The list that it goes to.
    pub list: List,
    /// As `--allow` and `--deny` take it: `HOST[:PORT[,PORT…]]`, an address or a network.
    pub entry: String,
    /// What is said about it: the last line stands behind it, those before stand above it. Characters that are not to be
    /// seen are written out ([`visible`]). JSON has no comments, and so loses it.
    pub comment: Option<String>,
}

/// A list of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// What may be reached.
    Allow,
    /// What may not, whatever is allowed.
    Deny,
}

impl List {
    fn side(self) -> Side {
        match self {
            Self::Allow => Side::Allow,
            Self::Deny => Side::Deny,
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    fn of(self, policy: &Policy) -> &[Entry] {
        match self {
            Self::Allow => &policy.allow,
            Self::Deny => &policy.deny,
        }
    }
}

/// Why nothing was added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AmendError {
    /// The text is no policy, or would be none with the additions: what is wrong with it.
    #[error(transparent)]
    Policy(#[from] PolicyErrors),
    /// One of the additions is no entry.
    #[error(transparent)]
    Entry(#[from] FlagError),
    /// The policy is in the language of another system.
    #[error(
        "`{0}` is written for {name}, and entries are only added to policies in Egret's own language; `egret policy convert` \
         writes it in that",
        name = .1.name()
    )]
    Foreign(String, Language),
    /// The text that came out says something else, which must not happen.
    #[error(
        "nothing can be added to `{0}` without changing what else it says, which is a bug of Egret's: add the entries by hand, and \
         report this with the file"
    )]
    Changed(String),
}

/// Adds entries to the text of a policy in Egret's own language. What stands there already, for everybody and every request,
/// is not added again; if that is all, the text comes back as it was. `name` is how messages call the file.
///
/// # Errors
/// [`AmendError`]: nothing is ever added in part.
pub fn amend(name: &str, text: &[u8], additions: &[Addition]) -> Result<String, AmendError> {
    let parsed = Policy::parse(name, text)?;
    if parsed.language != Language::Native {
        return Err(AmendError::Foreign(visible(name).into(), parsed.language));
    }
    // What parsed is UTF-8.
    let text = std::str::from_utf8(text).unwrap_or_default();
    let source = text.strip_prefix('\u{feff}').unwrap_or(text);
    let plan = |list| Plan::new(list, &parsed.policy, additions);
    let plans = [plan(List::Allow)?, plan(List::Deny)?];
    if plans.iter().all(|plan| plan.new.is_empty()) {
        return Ok(text.to_owned());
    }
    let changed = || AmendError::Changed(visible(name).into());
    let mut report = Report::new(name.into(), source);
    let (root, comments) = yaml::parse_with_comments(&mut report).ok_or_else(changed)?;
    let old = Old {
        source,
        root: &root,
        comments: &comments,
    };
    // The second way takes what the first has no place for.
    let ways = [Old::with_lines, Old::laid_out];
    let amended = ways
        .iter()
        .find_map(|way| way(&old, &plans).filter(|text| old.is_kept(text, &plans)));
    let amended = amended.ok_or_else(changed)?;
    // There may be too much of something now.
    Policy::parse(name, amended.as_bytes())?;
    let mark = text.len() - source.len();
    Ok(text.get(..mark).unwrap_or_default().to_owned() + &amended)
}

/// The entries of a list that there will be, in order.
struct Plan {
    list: List,
    /// How many there are now.
    old: usize,
    new: Vec<New>,
}

struct New {
    /// Behind how many of the old entries it goes.
    behind: usize,
    /// The short form.
    text: String,
    /// Lines without `#`.
    above: Vec<String>,
    beside: Option<String>,
}

impl Plan {
    fn new(list: List, policy: &Policy, additions: &[Addition]) -> Result<Self, AmendError> {
        let side = list.side();
        let mut entries: Vec<(What, Ports)> = Vec::new();
        let old = list.of(policy);
        let mut new: Vec<(New, What)> = Vec::new();
        for addition in additions.iter().filter(|addition| addition.list == list) {
            let (what, ports) = parse_entry(&addition.entry, side)
                .map_err(|bad| flag_error(list.key(), &addition.entry, &bad))?;
            let unconditional = old.iter().filter(|entry| {
                entry.programs.are_all() && entry.requests.are_all() && !entry.only_addresses
            });
            let had = unconditional.map(|entry| (&entry.what, &entry.ports));
            let had = had.chain(entries.iter().map(|(what, ports)| (what, ports)));
            let had = had.filter(|(had, _)| **had == what).map(|(_, ports)| ports);
            let Some(mut ports) = missing(&ports, had) else {
                continue;
            };
            if ports.as_slice() == Ports::default_of(side).as_slice() {
                ports = Ports::default_of(side);
            }
            let behind = old.iter().rposition(|entry| same_group(&entry.what, &what));
            let behind = behind.map_or(old.len(), |at| at + 1);
            let lines = addition.comment.as_deref().unwrap_or_default().lines();
            let mut lines: Vec<String> = lines
                .map(|line| visible(line.trim()).into_owned())
                .collect();
            let beside = lines.pop().filter(|line| !line.is_empty());
            let text = emit::short(&what, &ports, side);
            let entry = New {
                behind,
                text,
                above: lines,
                beside,
            };
            // Among those that go to the same place, too, behind those of the same domain.
            let last = new
                .iter()
                .rposition(|(other, its)| other.behind == behind && same_group(its, &what));
            let place = last.map_or(new.len(), |at| at + 1);
            new.insert(place, (entry, what.clone()));
            entries.push((what, ports));
        }
        let mut new: Vec<New> = new.into_iter().map(|(new, _)| new).collect();
        new.sort_by_key(|new| new.behind);
        Ok(Self {
            list,
            old: old.len(),
            new,
        })
    }

    /// Where comments begin that have no others to go by: in one column, if the entries are not too long for that.
    fn comment_column(&self, indent: usize) -> usize {
        let width = |new: &New| {
            indent + DASH.len() + write::text(&new.text, false).chars().count() + write::GAP
        };
        self.new
            .iter()
            .map(width)
            .max()
            .unwrap_or_default()
            .min(LAST_COLUMN)
    }

    /// Whether each of the entries there will be is new, in order.
    fn are_new(&self) -> Vec<Option<&New>> {
        let mut all: Vec<Option<&New>> = Vec::with_capacity(self.old + self.new.len());
        let mut new = self.new.iter().peekable();
        for index in 0..=self.old {
            while let Some(next) = new.next_if(|new| new.behind == index) {
                all.push(Some(next));
            }
            if index < self.old {
                all.push(None);
            }
        }
        all
    }
}

/// Whether two entries are about one domain, or both about addresses.
fn same_group(one: &What, other: &What) -> bool {
    match (one, other) {
        (What::Name(one), What::Name(other)) => registered(one.base()) == registered(other.base()),
        (What::Net(_), What::Net(_)) => true,
        _ => false,
    }
}

/// The ports that nobody has yet.
fn missing<'p>(wanted: &Ports, had: impl Iterator<Item = &'p Ports>) -> Option<Ports> {
    let had: Vec<&Ports> = had.collect();
    if had.contains(&&Ports::Any) {
        return None;
    }
    if had.is_empty() || *wanted == Ports::Any {
        return Some(wanted.clone());
    }
    let missing = wanted.as_slice().iter().copied();
    let missing: Vec<u16> = missing
        .filter(|port| !had.iter().any(|had| had.contain(*port)))
        .collect();
    match missing.as_slice() {
        [] => None,
        missing if missing == wanted.as_slice() => Some(wanted.clone()),
        _ => Some(Ports::listed(missing)),
    }
}

/// The policy as it is now.
struct Old<'s> {
    source: &'s str,
    root: &'s Node<'s>,
    comments: &'s [Span],
}

/// Lines that come in somewhere.
struct Lines {
    at: usize,
    text: String,
    /// Whether blank lines are to stand around them.
    section: bool,
}

impl<'s> Old<'s> {
    /// The text with lines added; none where there is no place for them.
    fn with_lines(&self, plans: &[Plan]) -> Option<String> {
        let Value::Map(pairs) = &self.root.value else {
            return None;
        };
        if self.begins_with(self.root, '{') {
            return None;
        }
        let key_column = column_of(self.source, self.root.span.start);
        let mut added = Vec::new();
        for plan in plans.iter().filter(|plan| !plan.new.is_empty()) {
            match get(pairs, plan.list.key()) {
                Some(list) => self.to_list(list, plan, key_column, &mut added)?,
                None => added.push(self.section(pairs, plan, key_column)?),
            }
        }
        added.sort_by_key(|lines| lines.at);
        Some(self.put_in(&added))
    }

    fn to_list(
        &self,
        list: &Node<'_>,
        plan: &Plan,
        key_column: usize,
        added: &mut Vec<Lines>,
    ) -> Option<()> {
        let Value::List(items) = &list.value else {
            return None;
        };
        if self.begins_with(list, '[') {
            return None;
        }
        let column = self.dashes(list, items.first()?)?;
        for new in &plan.new {
            let item = items.get(new.behind.checked_sub(1)?)?;
            let end = self.end_of(item);
            let is_last = new.behind == items.len();
            // What is commented out at the end of a list, too, was said about what is in front of it.
            let belongs =
                |its: usize| its > column || is_last && its == column && column > key_column;
            let at = self.past_comments(self.line_after(end), belongs);
            let text = written(new, column, self.comment_column(end, plan, column));
            added.push(Lines {
                at,
                text,
                section: false,
            });
        }
        Some(())
    }

    fn section(&self, pairs: &[(Node<'_>, Node<'_>)], plan: &Plan, column: usize) -> Option<Lines> {
        let key = plan.list.key();
        let place = |key: &str| native::KEYS.iter().position(|known| *known == key);
        let before = |pair: &&(Node<'_>, Node<'_>)| place(name_of(&pair.0)) < place(key);
        let (_, value) = pairs.iter().rfind(before)?;
        let indent = column + write::STEP;
        let lines = plan
            .new
            .iter()
            .map(|new| written(new, indent, plan.comment_column(indent)));
        let text = format!("{:column$}{key}:\n{}", "", lines.collect::<String>());
        let at = self.past_comments(self.line_after(self.end_of(value)), |its| its > column);
        Some(Lines {
            at,
            text,
            section: true,
        })
    }

    fn put_in(&self, added: &[Lines]) -> String {
        let end_of_line = if self.source.contains("\r\n") {
            "\r\n"
        } else {
            "\n"
        };
        let blank = end_of_line.repeat(2);
        let mut out = String::with_capacity(self.source.len() + 1024);
        let mut from = 0;
        for lines in added {
            out.push_str(self.source.get(from..lines.at).unwrap_or_default());
            from = lines.at;
            if !out.ends_with('\n') {
                out.push_str(end_of_line);
            }
            if lines.section && !out.ends_with(&blank) {
                out.push_str(end_of_line);
            }
            out.push_str(&lines.text.replace('\n', end_of_line));
            let next = self.source.get(from..).unwrap_or_default().lines().next();
            if lines.section && next.is_some_and(|next| !next.trim().is_empty()) {
                out.push_str(end_of_line);
            }
        }
        out.push_str(self.source.get(from..).unwrap_or_default());
        out
    }

    /// The whole policy in its one layout, with the entries in its lists.
    fn laid_out(&self, plans: &[Plan]) -> Option<String> {
        let mut layout = Layout::of(self.root, self.comments, self.source)?;
        let json = layout.is_json();
        for plan in plans.iter().filter(|plan| !plan.new.is_empty()) {
            let items = layout.list(plan.list.key())?;
            let mut old = std::mem::take(items).into_iter();
            for new in plan.are_new() {
                items.push(match new {
                    Some(new) => item(new, json),
                    None => old.next()?,
                });
            }
        }
        Some(layout.write())
    }

    /// Whether a text has the old values and comments, and those that were added.
    fn is_kept(&self, amended: &str, plans: &[Plan]) -> bool {
        let mut report = Report::new("".into(), amended);
        let Some((mut root, comments)) = yaml::parse_with_comments(&mut report) else {
            return false;
        };
        for plan in plans.iter().filter(|plan| !plan.new.is_empty()) {
            if !take_out(&mut root, plan) {
                return false;
            }
        }
        let new = plans.iter().flat_map(|plan| &plan.new);
        let said = new.flat_map(|new| new.above.iter().chain(&new.beside));
        let said: Vec<String> = said.map(|line| remark(line)).collect();
        let mut expected = format::texts(self.comments, self.source);
        if !comments.is_empty() {
            expected.extend(said.iter().map(String::as_str));
            expected.sort_unstable();
        }
        !report.has_errors()
            && format::same(self.root, &root)
            && format::texts(&comments, amended) == expected
    }

    /// The column of the dashes of a list. As far as YAML goes, a list that is no deeper than its key begins behind the first.
    fn dashes(&self, list: &Node<'_>, first: &Node<'_>) -> Option<usize> {
        let before = self.source.get(..first.span.start as usize)?;
        let before = before.trim_end_matches(' ');
        let dash = match before.ends_with('-') {
            true => before.len() - 1,
            false if self.begins_with(list, '-') => list.span.start as usize,
            false => return None,
        };
        Some(column_of(self.source, u32::try_from(dash).ok()?))
    }

    /// Where a value ends. What YAML calls the end of lines of items is where the next thing begins.
    fn end_of(&self, node: &Node<'_>) -> usize {
        let last = match &node.value {
            _ if self.begins_with(node, '[') || self.begins_with(node, '{') => None,
            Value::Scalar(..) => None,
            Value::List(items) => items.last(),
            Value::Map(pairs) => pairs.last().map(|(_, value)| value),
        };
        match last {
            Some(last) => self.end_of(last),
            None => {
                let written = self.source.get(node.span.range()).unwrap_or_default();
                node.span.start as usize + written.trim_end().len()
            }
        }
    }

    fn line_after(&self, at: usize) -> usize {
        let rest = self.source.get(at..).unwrap_or_default();
        rest.find('\n')
            .map_or(self.source.len(), |end| at + end + 1)
    }

    /// The first line from this one on that is no comment, or one in a column of something else.
    fn past_comments(&self, mut at: usize, belongs: impl Fn(usize) -> bool) -> usize {
        while let Some(line) = self.source.get(at..).and_then(|rest| rest.lines().next()) {
            let text = line.trim_start();
            if !text.starts_with('#') || !belongs(line.len() - text.len()) {
                break;
            }
            at = self.line_after(at);
        }
        at
    }

    /// Where the comments of new entries begin: under that of the line before, if it has one.
    fn comment_column(&self, end: usize, plan: &Plan, indent: usize) -> usize {
        let line = end..self.line_after(end);
        let in_line = |comment: &&Span| line.contains(&(comment.start as usize));
        match self.comments.iter().find(in_line) {
            Some(comment) => column_of(self.source, comment.start),
            None => plan.comment_column(indent),
        }
    }

    fn begins_with(&self, node: &Node<'_>, first: char) -> bool {
        let written = self.source.get(node.span.range()).unwrap_or_default();
        written.starts_with(first)
    }
}

const DASH: &str = "- ";
/// Comments beside long entries are not moved further than this.
const LAST_COLUMN: usize = 60;

/// The lines of a new entry.
fn written(new: &New, indent: usize, comment_column: usize) -> String {
    let mut out = String::new();
    for line in &new.above {
        out.extend(std::iter::repeat_n(' ', indent));
        out.push_str(&remark(line));
        out.push('\n');
    }
    let entry = write::text(&new.text, false);
    out.extend(std::iter::repeat_n(' ', indent));
    out.push_str(DASH);
    out.push_str(&entry);
    if let Some(line) = &new.beside {
        let column = indent + DASH.len() + entry.chars().count();
        let gap = comment_column.saturating_sub(column).max(write::GAP);
        out.extend(std::iter::repeat_n(' ', gap));
        out.push_str(&remark(line));
    }
    out.push('\n');
    out
}

/// A new entry as a value, without comments where there are none.
fn item(new: &New, json: bool) -> Item<'static> {
    let comment = |line: &String| Comment {
        text: remark(line).into(),
        blank: false,
        column: 0,
    };
    let mut item = Item::from(write::Value::Text(new.text.clone().into()));
    if !json {
        item.lead = new.above.iter().map(comment).collect();
        item.behind = new.beside.as_ref().map(comment);
    }
    item
}

/// A line as a comment.
fn remark(line: &str) -> String {
    format!("# {line}").trim_end().to_owned()
}

/// Takes the new entries out of what was read; says whether they were there.
fn take_out(root: &mut Node<'_>, plan: &Plan) -> bool {
    let Value::Map(pairs) = &mut root.value else {
        return false;
    };
    let Some(at) = pairs
        .iter()
        .position(|(key, _)| name_of(key) == plan.list.key())
    else {
        return false;
    };
    let Some((
        _,
        Node {
            value: Value::List(items),
            ..
        },
    )) = pairs.get_mut(at)
    else {
        return false;
    };
    let are_new = plan.are_new();
    if items.len() != are_new.len() {
        return false;
    }
    let (mut index, mut all_there) = (0, true);
    items.retain(|item| {
        let new = are_new.get(index).copied().flatten();
        index += 1;
        all_there &= new.is_none_or(|new| text_of(item) == Some(new.text.as_str()));
        new.is_none()
    });
    if items.is_empty() {
        pairs.remove(at);
    }
    all_there
}

fn name_of<'n>(key: &'n Node<'_>) -> &'n str {
    text_of(key).unwrap_or_default()
}

#[cfg(test)]
mod tests;
