//! All that is known of the row under the cursor.

use super::{Look, horizontal, length, put, size};
use crate::watch::app::{App, Line};
use crate::watch::model::{Seen, State};
use egret_policy::Reason;
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;

/// Draws it in place of the list, and says how many lines are above the screen.
pub(super) fn draw(
    app: &App,
    lines: &[Line<'_>],
    look: &Look,
    buffer: &mut Buffer,
    area: Rect,
) -> usize {
    horizontal(buffer, area, look);
    let Some((_, line)) = app.cursor(lines) else {
        put(
            buffer,
            area.x,
            area.y + 1,
            area.width,
            "it is not shown any more",
            look.dim(),
        );
        return 0;
    };
    let texts = texts(app, &line, look);
    let wrapped: Vec<(String, Style)> = texts
        .into_iter()
        .flat_map(|(text, style)| {
            let hang = if text.starts_with(' ') { HANG } else { 0 };
            wrap(&text, area.width, hang)
                .into_iter()
                .map(move |line| (line, style))
        })
        .collect();
    let height = usize::from(area.height.saturating_sub(1));
    let first = app.scroll.min(wrapped.len().saturating_sub(height));
    for (y, (text, style)) in (area.y + 1..area.bottom()).zip(wrapped.iter().skip(first)) {
        put(buffer, area.x, y, area.width, text, *style);
    }
    first
}

/// Draws the most important of it below the list: the reason, and what would change it.
pub(super) fn in_brief(line: &Line<'_>, look: &Look, buffer: &mut Buffer, area: Rect) {
    let Some(seen) = line.row.seen.front() else {
        return;
    };
    let why = match &seen.message {
        Some(message) => message.clone(),
        None => reason(seen),
    };
    let what_to_do = match (&seen.hint, &seen.rule) {
        (Some(hint), _) => format!("to allow it: {hint}"),
        (None, Some(rule)) => format!("by {rule}"),
        (None, None) => String::new(),
    };
    let lines = match what_to_do.is_empty() {
        true => wrap(&why, area.width, 0),
        false => vec![why, what_to_do],
    };
    for (y, text) in (area.y + 1..area.bottom()).zip(lines) {
        put(
            buffer,
            area.x,
            y,
            area.width,
            &super::cut(&text, area.width, look),
            Style::new(),
        );
    }
}

fn texts(app: &App, line: &Line<'_>, look: &Look) -> Vec<(String, Style)> {
    let row = line.row;
    let plain = Style::new();
    let mut texts = vec![(
        format!("{}  in {}", row.destination, line.sandbox.name),
        look.bold(),
    )];
    let (up, down) = row.bytes();
    let (up_now, down_now) = row.rates();
    texts.push((
        format!(
            "{} allowed, {} refused, {} failed, {} open; up {} ({}/s), down {} ({}/s)",
            row.allowed,
            row.refused,
            row.failed,
            row.open(),
            size(up),
            size(up_now),
            size(down),
            size(down_now)
        ),
        plain,
    ));
    if !row.programs.is_empty() {
        texts.push((format!("asked for by {}", row.programs.join(", ")), plain));
    }
    let mut seen = row.seen.iter();
    if let Some(newest) = seen.next() {
        texts.push((String::new(), plain));
        texts.push((headline(newest), look.bold()));
        let explanation = row.decided.as_ref();
        let explanation = explanation.and_then(|decided| app.explanation_of(decided));
        let why = match explanation {
            Some(lines) => [&[String::new()], lines].concat(),
            None => vec![format!("  {}", reason(newest))],
        };
        let all = facts(newest).into_iter().chain(why);
        texts.extend(all.map(|text| (text, plain)));
    }
    if row.seen.len() > 1 {
        texts.push((String::new(), plain));
        texts.push(("Before that".into(), look.bold()));
    }
    texts.extend(seen.map(|seen| (headline(seen), plain)));
    texts
}

/// A decision in a line.
fn headline(seen: &Seen) -> String {
    let word = match seen.state {
        State::Refused => "refused",
        State::Failed => "failed",
        State::Allowed => "allowed",
    };
    let Seen {
        time, reason, id, ..
    } = seen;
    match &seen.request {
        Some(request) => format!("{time} {word} {request} {reason} [{id}]"),
        None => format!("{time} {word} {reason} [{id}]"),
    }
}

/// What is known of a decision, a line each.
fn facts(seen: &Seen) -> Vec<String> {
    let mut facts = Vec::new();
    let mut add = |name: &str, text: Option<String>| {
        facts.extend(text.map(|text| format!("  {name:<9} {text}")));
    };
    add("message", seen.message.clone());
    add("rule", seen.rule.clone());
    add("note", seen.note.clone());
    add("program", seen.program.clone());
    let ancestors = seen.ancestors.join(", ");
    add("under", Some(ancestors).filter(|text| !text.is_empty()));
    let addresses: Vec<_> = seen.addresses.iter().map(ToString::to_string).collect();
    add(
        "addresses",
        Some(addresses.join(", ")).filter(|text| !text.is_empty()),
    );
    add("connected", seen.dialled.map(|to| to.to_string()));
    add("hint", seen.hint.clone());
    facts
}

/// Where the facts begin, behind their names.
const HANG: u16 = 12;

/// What a reason code means.
fn reason(seen: &Seen) -> String {
    match seen.reason.parse::<Reason>() {
        Ok(reason) => reason.meaning().to_owned(),
        // Of a published port, or of another version.
        Err(_) => seen.reason.clone(),
    }
}

/// A text in lines that fit, broken at blanks where there are any; what continues a line begins at the column `hang`.
pub(super) fn wrap(text: &str, width: u16, hang: u16) -> Vec<String> {
    let hang = " ".repeat(usize::from(hang.min(width / 2)));
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut rest = text;
    loop {
        let room = width.max(1).saturating_sub(length(&line)).max(1);
        if length(rest) <= room {
            lines.push(line + rest);
            return lines;
        }
        let fits = prefix(rest, room);
        // A blank right behind what fits is as good as one in it.
        let with_next = rest.get(..fits + 1).unwrap_or(rest);
        let at = match with_next.rfind(' ') {
            Some(blank) if !rest.get(..blank).unwrap_or_default().trim().is_empty() => blank,
            _ => fits,
        };
        let (before, after) = rest.split_at(at);
        lines.push(line + before.trim_end());
        rest = after.trim_start();
        line = hang.clone();
    }
}

/// How many octets of a text take no more than so many columns; one character at least.
fn prefix(text: &str, columns: u16) -> usize {
    let mut taken = 0;
    for (at, letter) in text.char_indices() {
        taken += length(letter.encode_utf8(&mut [0; 4]));
        if taken > columns && at > 0 {
            return at;
        }
    }
    text.len()
}
