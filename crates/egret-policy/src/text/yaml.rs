//! YAML (and so JSON) as a tree in which every node knows where it stands.
//!
//! The only module that knows the YAML library; what a text that is no YAML should have been, [`wrong`] says. What a policy has no use for is an error rather than ignored:
//! anchors, aliases, tags, directives and further documents. Without aliases a tree is never larger than its text,
//! so that the limits on octets, nodes and depth bound everything that follows.
//!
//! A tree has all keys of a mapping, repeated ones too: that is for the reader to refuse.

use std::borrow::Cow;

use granit_parser::{Event, Parser, ScalarStyle, Span as YamlSpan, options};

use crate::report::{Report, Span};
use wrong::{INDICATORS, in_front, needs_quotes, not_yaml};

mod wrong;

/// The most octets that a policy may have.
pub(crate) const MAX_OCTETS: usize = 64 << 20;
/// The most values that a policy may have.
const MAX_NODES: usize = 8_000_000;
/// How deeply lists and mappings may be nested; a policy needs four levels.
const MAX_DEPTH: usize = 16;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) span: Span,
    pub(crate) value: Value<'a>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Scalar(Cow<'a, str>, Kind),
    List(Vec<Node<'a>>),
    Map(Vec<(Node<'a>, Node<'a>)>),
}

/// What the core schema of YAML 1.2 takes a scalar for. `no`, `off`, `yes` and `on` are strings there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    Null,
    Bool,
    Number,
}

impl Value<'_> {
    /// What it is, for a message.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Scalar(_, Kind::String) => "a text",
            Self::Scalar(_, Kind::Null) => "nothing",
            Self::Scalar(_, Kind::Bool) => "a truth value",
            Self::Scalar(_, Kind::Number) => "a number",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads one document; none if it is empty or cannot be read, and then the report says so.
pub(crate) fn parse<'a>(report: &mut Report<'a>) -> Option<Node<'a>> {
    read(report, None)
}

/// Reads one document likewise, and says where its comments are, from their `#` to the end of the line.
pub(crate) fn parse_with_comments<'a>(report: &mut Report<'a>) -> Option<(Node<'a>, Vec<Span>)> {
    let mut comments = Vec::new();
    let root = read(report, Some(&mut comments))?;
    comments.sort_unstable_by_key(|comment| comment.start);
    Some((root, comments))
}

fn read<'a>(report: &mut Report<'a>, mut comments: Option<&mut Vec<Span>>) -> Option<Node<'a>> {
    let options = options! {
        disallow_directives: true,
        emit_comments: comments.is_some(),
        max_buffered_comment_events: MAX_NODES,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut tree = Tree {
        open: Vec::new(),
        root: None,
        nodes: 0,
    };
    let mut documents = 0;
    for next in Parser::new_from_str_with_options(report.source(), options) {
        let (event, at) = match next {
            Ok(next) => next,
            Err(error) => {
                let mark = error.marker();
                let span = mark_span(mark.byte_offset(), mark.line(), report.source());
                not_yaml(report, span, error.kind(), tree.flow(report.source()));
                return None;
            }
        };
        let span = span_of(at, report.source());
        tree.nodes += 1;
        if tree.nodes > MAX_NODES {
            report.error(
                span,
                format!("a policy has at most {MAX_NODES} values"),
                "here are more",
                None,
            );
            return None;
        }
        match event {
            Event::Comment(..) => {
                if let Some(comments) = &mut comments {
                    comments.push(span);
                }
            }
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    report.error(
                        span,
                        "a policy is one document",
                        "a second one begins here",
                        None,
                    );
                    return None;
                }
            }
            Event::Alias(_) => {
                no_anchors(report, span);
                tree.put(Node {
                    span,
                    value: Value::Scalar("".into(), Kind::Null),
                });
            }
            Event::UnresolvedAlias(_) => {
                needs_quotes(report, span);
                let written = report.source().get(span.range()).unwrap_or_default();
                tree.put(Node {
                    span,
                    value: Value::Scalar(written.into(), Kind::String),
                });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let properties = anchor != 0 || tag.is_some();
                let unquoted = (properties && span.range().is_empty())
                    .then(|| in_front(report.source(), span))
                    .flatten();
                let text = match unquoted {
                    Some(at) => {
                        needs_quotes(report, at);
                        let written = report.source().get(at.range()).unwrap_or_default();
                        written.trim_start_matches(INDICATORS).into()
                    }
                    None => {
                        no_properties(report, span, anchor, tag.is_some());
                        text
                    }
                };
                let kind = match style {
                    ScalarStyle::Plain => kind_of(&text),
                    _ => Kind::String,
                };
                tree.put(Node {
                    span,
                    value: Value::Scalar(text, kind),
                });
            }
            Event::SequenceStart(_, anchor, tag) => {
                no_properties(report, span, anchor, tag.is_some());
                tree.open.push(Open::List(span, Vec::new()));
            }
            Event::MappingStart(_, anchor, tag) => {
                no_properties(report, span, anchor, tag.is_some());
                tree.open.push(Open::Map(span, Vec::new(), None));
            }
            Event::SequenceEnd | Event::MappingEnd => tree.close(span.end),
            _ => {}
        }
    }
    tree.root
}

struct Tree<'a> {
    open: Vec<Open<'a>>,
    root: Option<Node<'a>>,
    nodes: usize,
}

enum Open<'a> {
    List(Span, Vec<Node<'a>>),
    Map(Span, Vec<(Node<'a>, Node<'a>)>, Option<Node<'a>>),
}

impl<'a> Tree<'a> {
    fn put(&mut self, node: Node<'a>) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, pairs, key)) => match key.take() {
                None => *key = Some(node),
                Some(key) => pairs.push((key, node)),
            },
        }
    }

    /// Where the innermost list or mapping that is still open began with a bracket.
    fn flow(&self, source: &str) -> Option<Span> {
        let (Open::List(span, _) | Open::Map(span, ..)) = self.open.last()?;
        let bracket = source.get(span.start as usize..)?.starts_with(['[', '{']);
        bracket.then_some(*span)
    }

    fn close(&mut self, end: u32) {
        let node = match self.open.pop() {
            Some(Open::List(span, items)) => Node {
                span: Span {
                    end: end.max(span.end),
                    ..span
                },
                value: Value::List(items),
            },
            Some(Open::Map(span, pairs, _)) => Node {
                span: Span {
                    end: end.max(span.end),
                    ..span
                },
                value: Value::Map(pairs),
            },
            None => return,
        };
        self.put(node);
    }
}

fn no_properties(report: &mut Report<'_>, span: Span, anchor: usize, tag: bool) {
    if anchor != 0 {
        no_anchors(report, span);
    }
    if tag {
        report.error(
            span,
            "YAML tags have no meaning in a policy",
            "this value has one",
            Some("write the value without the `!` in front".to_owned()),
        );
    }
}

fn no_anchors(report: &mut Report<'_>, span: Span) {
    let help = "write the value out where it is needed".to_owned();
    report.error(
        span,
        "YAML anchors and aliases cannot be used in a policy",
        "here",
        Some(help),
    );
}

fn span_of(at: YamlSpan, source: &str) -> Span {
    let start = mark_span(at.start.byte_offset(), at.start.line(), source);
    let end = at
        .end
        .byte_offset()
        .and_then(|end| u32::try_from(end).ok())
        .unwrap_or(start.start);
    Span {
        end: end.max(start.start),
        ..start
    }
}

fn mark_span(offset: Option<usize>, line: usize, source: &str) -> Span {
    let offset = offset.unwrap_or(source.len()).min(source.len());
    let start = u32::try_from(offset).unwrap_or(u32::MAX);
    Span {
        start,
        end: start,
        line: u32::try_from(line).unwrap_or(u32::MAX).max(1),
    }
}

/// The core schema (YAML 1.2.2, section 10.3.2).
pub(crate) fn kind_of(plain: &str) -> Kind {
    match plain {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Bool,
        _ if is_number(plain) => Kind::Number,
        _ => Kind::String,
    }
}

fn is_number(plain: &str) -> bool {
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    if let Some(digits) = plain.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(digits) = plain.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(plain, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    // `inf` and the like are names; what the float parser takes beyond them is what the schema takes.
    unsigned
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_digit() || b == b'.')
        && unsigned
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && unsigned.parse::<f64>().is_ok()
}
