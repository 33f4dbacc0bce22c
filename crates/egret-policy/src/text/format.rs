//! The layout of a policy: the same values and the same comments, in the form that the documentation shows.
//!
//! Keys stand in the order of the documentation, two blanks deeper at every level. A list or a mapping that stood in one line
//! stays in one as long as it fits and nobody comments on its parts. At most one blank line separates things, and one
//! always separates sections that take several lines.
//!
//! Nothing else changes, and that is checked each time: what was written is read again, and has to be what was read.
//!
//! A comment belongs to the value before it in its line; in a line of its own, to what follows, or, where it stands
//! deeper than what follows, to the end of the list or mapping that it stands in.

use std::borrow::Cow;
use std::iter::Peekable;
use std::vec;

use crate::policy::{Language, Policy};
use crate::report::{PolicyErrors, Report, Span};
use crate::text::native;
use crate::text::write::{self, Collection, Comment, Item};
use crate::text::yaml::{self, Kind, Node, Value};

/// Lays out a policy in Egret's own language as the documentation does: order of the keys, indentation, quotes and blank
/// lines. Comments stay with what they are about, JSON stays JSON. Formatting what is formatted changes nothing.
///
/// # Errors
/// What is wrong with the policy, as [`Policy::parse`] has it: only what can be used is formatted. A policy of another
/// system is refused as well.
pub fn format_policy(source_name: &str, text: &[u8]) -> Result<String, PolicyErrors> {
    let language = Policy::parse(source_name, text)?.language;
    // What parsed is UTF-8.
    let text = std::str::from_utf8(text).unwrap_or_default();
    let source = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::new(source_name.into(), source);
    if language != Language::Native {
        let message = format!(
            "this is written for {}, and only policies in Egret's own language are formatted",
            language.name()
        );
        let help = "`egret policy convert` writes it in Egret's own language".to_owned();
        report.error(Span::START, message, "", Some(help));
        return report.finish().map(|_| String::new());
    }
    let formatted = laid_out(&mut report);
    if formatted.is_none() && !report.has_errors() {
        let help = "leave the file as it is, and report this with the file".to_owned();
        report.error(
            Span::START,
            "this policy cannot be formatted without changing what it says, which is a bug of Egret's",
            "",
            Some(help),
        );
    }
    report.finish()?;
    Ok(formatted.unwrap_or_default())
}

/// The new text, if it says what the old one does.
fn laid_out(report: &mut Report<'_>) -> Option<String> {
    let source = report.source();
    let (root, comments) = yaml::parse_with_comments(report)?;
    let formatted = Layout::of(&root, &comments, source)?.write();
    let mut again = Report::new(report.file().clone(), &formatted);
    let (root_again, comments_again) = yaml::parse_with_comments(&mut again)?;
    let same = same(&root, &root_again)
        && !again.has_errors()
        && texts(&comments, source) == texts(&comments_again, &formatted);
    same.then_some(formatted)
}

/// A policy that is ready to be written in its one layout.
pub(crate) struct Layout<'a> {
    header: Vec<Comment<'a>>,
    root: Map<'a>,
    /// Whether it is JSON, which has no comments.
    json: bool,
}

impl<'a> Layout<'a> {
    /// From the values of a policy and the places of its comments; none if it is no mapping.
    pub(crate) fn of(root: &Node<'a>, comments: &[Span], source: &'a str) -> Option<Self> {
        let blank_lines: Vec<bool> = source
            .split('\n')
            .map(|line| line.trim().is_empty())
            .collect();
        let mut reader = Reader {
            source,
            comments: remarks(comments, source, &blank_lines)
                .into_iter()
                .peekable(),
            blank_lines,
            last: 0,
            json: comments.is_empty(),
        };
        let (header, root) = reader.document(root)?;
        let json = reader.json;
        Some(Self { header, root, json })
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The items of a list of the policy, which is put in its place if it is not there; none if it is no list.
    pub(crate) fn list(&mut self, key: &'static str) -> Option<&mut Vec<Item<'a>>> {
        let items = &mut self.root.items;
        let at = match items.iter().position(|(name, _)| name == key) {
            Some(at) => at,
            None => {
                let before = |(name, _): &(Cow<'a, str>, Item<'a>)| {
                    Place::Policy.order(name) <= Place::Policy.order(key)
                };
                let at = items.partition_point(before);
                let list = Collection {
                    items: Vec::new(),
                    inline: self.json,
                    foot: Vec::new(),
                };
                items.insert(at, (key.into(), write::Value::List(list).into()));
                at
            }
        };
        match items.get_mut(at).map(|(_, item)| &mut item.value) {
            Some(write::Value::List(list)) => Some(&mut list.items),
            _ => None,
        }
    }

    pub(crate) fn write(&self) -> String {
        match self.json {
            true => write::json(&self.root),
            false => write::yaml(&self.header, &self.root),
        }
    }
}

/// Makes values to be written from the tree, and gives each comment to one of them.
struct Reader<'a> {
    source: &'a str,
    comments: Peekable<vec::IntoIter<Remark<'a>>>,
    /// For each line whether there is nothing in it.
    blank_lines: Vec<bool>,
    /// Where the last scalar or bracket ends.
    last: u32,
    /// Whether all that was seen is JSON.
    json: bool,
}

/// A comment and where it stands.
struct Remark<'a> {
    start: u32,
    /// Characters before it in its line.
    column: usize,
    comment: Comment<'a>,
}

/// What the keys of a mapping depend on.
#[derive(Clone, Copy)]
enum Place {
    Policy,
    Entries,
    Filesystem,
    Tests,
    Elsewhere,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Policy, "allow" | "deny") => Self::Entries,
            (Self::Policy, "filesystem") => Self::Filesystem,
            (Self::Policy, "tests") => Self::Tests,
            _ => Self::Elsewhere,
        }
    }

    /// Where a key stands among the others: the order in which the reader knows them.
    fn order(self, key: &str) -> usize {
        let known: &[&[&str]] = match self {
            Self::Policy => &[native::KEYS],
            Self::Entries => &[native::HOST_KEYS, native::ADDRESS_KEYS],
            Self::Filesystem => &[native::FILESYSTEM_KEYS],
            Self::Tests => &[native::TEST_KEYS],
            Self::Elsewhere => &[],
        };
        let place = |keys: &&[&str]| keys.iter().position(|known| *known == key);
        known.iter().find_map(place).unwrap_or(usize::MAX)
    }
}

/// What a value stands in.
#[derive(Clone, Copy)]
struct Around {
    /// Where the next thing after the value begins.
    end: u32,
    /// Where lines of the collection begin that the value stands in, if they begin anywhere.
    column: Option<usize>,
}

type Map<'a> = Collection<'a, (Cow<'a, str>, Item<'a>)>;

impl<'a> Reader<'a> {
    /// The mapping that a policy is, and the comments that are about all of it: those above the first blank line that
    /// separates them from the first key.
    fn document(&mut self, root: &Node<'a>) -> Option<(Vec<Comment<'a>>, Map<'a>)> {
        let Value::Map(pairs) = &root.value else {
            return None;
        };
        let mut above = Vec::new();
        let first = pairs.first().map_or(root.span, |(key, _)| key.span);
        while let Some(remark) = self.comments.next_if(|remark| remark.start < first.start) {
            above.push(remark.comment);
        }
        let apart = match blank_before(&self.blank_lines, first) {
            true => above.len(),
            false => above
                .iter()
                .rposition(|comment| comment.blank)
                .unwrap_or_default(),
        };
        let own = above.split_off(apart);
        let around = Around {
            end: u32::MAX,
            column: None,
        };
        let mut map = self.map(root, pairs, Place::Policy, around, own);
        // After the end of the document, too.
        map.foot
            .extend(self.comments.by_ref().map(|remark| remark.comment));
        Some((above, map))
    }

    fn value(&mut self, node: &Node<'a>, place: Place, around: Around) -> write::Value<'a> {
        match &node.value {
            Value::Scalar(text, kind) => {
                // What has lines of its own ends with its last line, not with where the next thing begins.
                let written = self.source.get(node.span.range()).unwrap_or_default();
                let length = u32::try_from(written.trim_end().len()).unwrap_or(u32::MAX);
                self.last = node.span.start.saturating_add(length);
                let double_quoted = self.begins_with(node, '"');
                match kind {
                    Kind::String => {
                        self.json &= double_quoted;
                        write::Value::Text(text.clone())
                    }
                    Kind::Null => {
                        self.json &= text == "null";
                        write::Value::Plain("null".into())
                    }
                    Kind::Bool | Kind::Number => write::Value::Plain(text.clone()),
                }
            }
            Value::List(items) => write::Value::List(self.list(node, items, place, around)),
            Value::Map(pairs) => {
                write::Value::Map(self.map(node, pairs, place, around, Vec::new()))
            }
        }
    }

    fn list(
        &mut self,
        node: &Node<'a>,
        nodes: &[Node<'a>],
        place: Place,
        around: Around,
    ) -> Collection<'a, Item<'a>> {
        let inside = self.inside(node, '[', around);
        let mut items: Vec<Item<'a>> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let lead = self.before(node.span.start, items.last_mut());
            let end = nodes
                .get(index + 1)
                .map_or(inside.end, |next| next.span.start);
            let blank = blank_before(&self.blank_lines, node.span);
            let value = self.value(node, place, Around { end, ..inside });
            items.push(Item {
                lead,
                blank,
                value,
                behind: None,
            });
        }
        let foot = self.after(inside, around, items.last_mut());
        self.collection(node, items, foot)
    }

    fn map(
        &mut self,
        node: &Node<'a>,
        pairs: &[(Node<'a>, Node<'a>)],
        place: Place,
        around: Around,
        mut first_lead: Vec<Comment<'a>>,
    ) -> Map<'a> {
        let inside = self.inside(node, '{', around);
        let mut items: Vec<(Cow<'a, str>, Item<'a>)> = Vec::with_capacity(pairs.len());
        for (index, (key, value)) in pairs.iter().enumerate() {
            let mut lead = std::mem::take(&mut first_lead);
            lead.extend(self.before(key.span.start, items.last_mut().map(|(_, item)| item)));
            let blank = blank_before(&self.blank_lines, key.span);
            self.last = key.span.end;
            self.json &= self.begins_with(key, '"');
            let name = match &key.value {
                Value::Scalar(text, _) => text.clone(),
                Value::List(_) | Value::Map(_) => "".into(),
            };
            let behind = self.behind(value.span.start);
            let nested = matches!(value.value, Value::List(_) | Value::Map(_));
            if !nested {
                // Between a key and its value, but not in the line of the key: it has to go in front of both.
                lead.extend(self.before(value.span.start, None));
            }
            let folds = self.folds(key, value);
            let end = pairs
                .get(index + 1)
                .map_or(inside.end, |(next, _)| next.span.start);
            let value = match self.value(value, place.below(&name), Around { end, ..inside }) {
                write::Value::Text(text) if folds => write::Value::Folded(text),
                value => value,
            };
            items.push((
                name,
                Item {
                    lead,
                    blank,
                    value,
                    behind,
                },
            ));
        }
        let foot = self.after(inside, around, items.last_mut().map(|(_, item)| item));
        items.sort_by_key(|(name, _)| place.order(name));
        self.collection(node, items, foot)
    }

    fn collection<T>(
        &mut self,
        node: &Node<'a>,
        items: Vec<T>,
        foot: Vec<Comment<'a>>,
    ) -> Collection<'a, T> {
        let written = self.source.get(node.span.range()).unwrap_or_default();
        let brackets = self.begins_with(node, '[') || self.begins_with(node, '{');
        self.json &= brackets;
        if brackets {
            self.last = node.span.end;
        }
        Collection {
            items,
            inline: brackets && !written.contains(['\n', '\r']),
            foot,
        }
    }

    /// What the items of a collection stand in. In brackets, indentation says nothing.
    fn inside(&mut self, node: &Node<'_>, bracket: char, around: Around) -> Around {
        match self.begins_with(node, bracket) {
            true => {
                self.last = node.span.start + 1;
                Around {
                    end: node.span.end,
                    column: None,
                }
            }
            false => Around {
                end: around.end,
                column: Some(column_of(self.source, node.span.start)),
            },
        }
    }

    /// The comments before an item. The first may stand in the line of the item before.
    fn before(&mut self, start: u32, previous: Option<&mut Item<'a>>) -> Vec<Comment<'a>> {
        if let Some(previous) = previous.filter(|previous| previous.behind.is_none()) {
            previous.behind = self.behind(start);
        }
        let mut lead = Vec::new();
        while let Some(remark) = self.comments.next_if(|remark| remark.start < start) {
            lead.push(remark.comment);
        }
        lead
    }

    /// The comments after the last item that belong to the collection.
    fn after(
        &mut self,
        inside: Around,
        around: Around,
        last: Option<&mut Item<'a>>,
    ) -> Vec<Comment<'a>> {
        if let Some(last) = last.filter(|last| last.behind.is_none()) {
            last.behind = self.behind(inside.end);
        }
        let mut foot = Vec::new();
        let belongs = |remark: &Remark<'_>| match (inside.column, around.column) {
            (None, _) => true,
            (Some(own), outer) => remark.column >= own && outer.is_none_or(|outer| own > outer),
        };
        while let Some(remark) = self
            .comments
            .next_if(|remark| remark.start < inside.end && belongs(remark))
        {
            foot.push(remark.comment);
        }
        foot
    }

    /// The comment in the line in which the last thing ended.
    fn behind(&mut self, before: u32) -> Option<Comment<'a>> {
        let (source, last) = (self.source, self.last as usize);
        let same_line = |remark: &Remark<'_>| {
            let between = source.get(last..remark.start as usize);
            remark.start < before && between.is_some_and(|text| !text.contains(['\n', '\r']))
        };
        self.comments
            .next_if(same_line)
            .map(|remark| remark.comment)
    }

    fn begins_with(&self, node: &Node<'_>, first: char) -> bool {
        let written = self.source.get(node.span.range()).unwrap_or_default();
        written.starts_with(first)
    }

    /// Whether a value was written as a folded text, with `>`.
    fn folds(&self, key: &Node<'_>, value: &Node<'_>) -> bool {
        let between = key.span.end as usize..value.span.start as usize;
        let between = self.source.get(between).unwrap_or_default();
        between.trim_start_matches([':', ' ']).starts_with('>')
    }
}

fn remarks<'a>(spans: &[Span], source: &'a str, blank_lines: &[bool]) -> Vec<Remark<'a>> {
    let remark = |span: &Span| {
        let before = source.get(..span.start as usize).unwrap_or_default();
        let gap = before.len() - before.trim_end_matches(' ').len();
        let column = column_of(source, span.start);
        Remark {
            start: span.start,
            column,
            comment: Comment {
                text: comment_text(*span, source).into(),
                blank: blank_before(blank_lines, *span),
                // Where there is a wider gap, comments of several lines stand in a column of their own.
                column: if gap > write::GAP { column } else { 0 },
            },
        }
    };
    spans.iter().map(remark).collect()
}

pub(crate) fn comment_text(span: Span, source: &str) -> &str {
    source.get(span.range()).unwrap_or_default().trim_end()
}

/// The comments in any order, for keys may have changed places.
pub(crate) fn texts<'s>(spans: &[Span], source: &'s str) -> Vec<&'s str> {
    let mut texts: Vec<_> = spans
        .iter()
        .map(|span| comment_text(*span, source))
        .collect();
    texts.sort_unstable();
    texts
}

/// Whether there is nothing in the line before the one that something begins in.
fn blank_before(blank_lines: &[bool], span: Span) -> bool {
    let before = (span.line as usize).checked_sub(2);
    before.is_some_and(|line| blank_lines.get(line) == Some(&true))
}

pub(crate) fn column_of(source: &str, at: u32) -> usize {
    let before = source.get(..at as usize).unwrap_or_default();
    let line = before.rsplit(['\n', '\r']).next().unwrap_or_default();
    line.chars().count()
}

/// Whether two trees have the same values. The keys of a mapping may stand in any order, none stands twice.
pub(crate) fn same(one: &Node<'_>, other: &Node<'_>) -> bool {
    match (&one.value, &other.value) {
        (Value::Scalar(one, kind), Value::Scalar(other, other_kind)) => {
            one == other && kind == other_kind
        }
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Map(one), Value::Map(other)) => {
            let has = |key: &Node<'_>, value: &Node<'_>| {
                let mut pairs = other.iter();
                pairs.any(|(other, its)| same(key, other) && same(value, its))
            };
            one.len() == other.len() && one.iter().all(|(key, value)| has(key, value))
        }
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
