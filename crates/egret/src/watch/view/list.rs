//! The list: a row for each destination, in as many columns as fit.

use super::{Look, cut, detail, horizontal, length, put, size};
use crate::watch::app::{App, Filter, Line};
use crate::watch::model::{Sandbox, State};
use jiff::Timestamp;
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};

/// Draws it, and below it why the decision under the cursor came out as it did.
pub(super) fn draw(app: &App, lines: &[Line<'_>], look: &Look, buffer: &mut Buffer, area: Rect) {
    let columns = columns(area.width, lines, app.model.sandboxes().len() > 1);
    let taken: u16 = columns.iter().map(|column| column.width + 1).sum();
    let width = area.width.saturating_sub(2 + STATE + 1 + taken);
    let cells = |buffer: &mut Buffer, y: u16, style: Style, texts: &dyn Fn(&Column) -> String| {
        let mut x = area.x + 2 + STATE + 1 + width;
        for column in &columns {
            let text = texts(column);
            let text = cut(&text, column.width, look);
            let length = length(&text);
            let indent = if column.right {
                column.width - length
            } else {
                0
            };
            put(buffer, x + 1 + indent, y, length, &text, style);
            x += column.width + 1;
        }
    };
    put(buffer, area.x + 2, area.y, STATE, "STATE", look.dim());
    put(
        buffer,
        area.x + 2 + STATE + 1,
        area.y,
        width,
        "DESTINATION",
        look.dim(),
    );
    cells(buffer, area.y, look.dim(), &|column| column.name.into());

    let [rows, about] = match area.height {
        // What is said of the row under the cursor takes a rule and two lines.
        height @ 9.. => [height - 1 - 3, 3],
        height => [height - 1, 0],
    };
    let cursor = app.cursor(lines);
    let at = cursor.as_ref().map_or(0, |(at, _)| *at);
    let first = at.saturating_sub(usize::from(rows).saturating_sub(1));
    for (nth, (y, line)) in (area.y + 1..area.y + 1 + rows)
        .zip(lines.iter().skip(first))
        .enumerate()
    {
        let is_at = first + nth == at;
        let mut style = if line.ended { look.dim() } else { Style::new() };
        if is_at {
            style = style.add_modifier(Modifier::REVERSED);
            buffer.set_style(
                Rect {
                    y,
                    height: 1,
                    ..area
                },
                style,
            );
            put(buffer, area.x, y, 1, ">", style);
        }
        let (state, colour) = state(line);
        put(
            buffer,
            area.x + 2,
            y,
            STATE,
            state,
            style.patch(look.colour(colour)),
        );
        let destination = cut(&line.row.destination, width, look);
        put(
            buffer,
            area.x + 2 + STATE + 1,
            y,
            width,
            &destination,
            style,
        );
        cells(buffer, y, style, &|column| (column.text)(line, look));
    }
    if lines.is_empty() {
        put(
            buffer,
            area.x + 2,
            area.y + 2,
            area.width - 2,
            nothing(app),
            look.dim(),
        );
    }
    if about > 0 {
        let area = Rect {
            y: area.y + 1 + rows,
            height: about,
            ..area
        };
        horizontal(buffer, area, look);
        if let Some((_, line)) = cursor {
            let sandbox = app.model.sandbox(&line.sandbox.name);
            if let Some(text) = sandbox.and_then(remark) {
                let text = format!(" {}: {text} ", line.sandbox.name);
                put(
                    buffer,
                    area.x + 2,
                    area.y,
                    area.width - 4,
                    &cut(&text, area.width - 4, look),
                    look.dim(),
                );
            }
            detail::in_brief(&line, look, buffer, area);
        }
    }
}

/// A column of the list: its heading, its width, and whether it is on the right of it.
struct Column {
    name: &'static str,
    width: u16,
    right: bool,
    text: fn(&Line<'_>, &Look) -> String,
}

const COLUMNS: [Column; 7] = [
    Column {
        name: "SANDBOX",
        width: 10,
        right: false,
        text: |line, _| line.sandbox.name.clone(),
    },
    Column {
        name: "PROGRAM",
        width: 9,
        right: false,
        text: |line, _| programs(line),
    },
    Column {
        name: "COUNT",
        width: 5,
        right: true,
        text: |line, _| number(line.row.count()),
    },
    Column {
        name: "RATE",
        width: 6,
        right: true,
        text: |line, _| {
            let (up, down) = line.row.rates();
            match up.saturating_add(down) {
                0 => String::new(),
                rate => format!("{}/s", size(rate)),
            }
        },
    },
    Column {
        name: "UP",
        width: 5,
        right: true,
        text: |line, _| octets(line.row.bytes().0),
    },
    Column {
        name: "DOWN",
        width: 5,
        right: true,
        text: |line, _| octets(line.row.bytes().1),
    },
    Column {
        name: "LAST",
        width: 4,
        right: true,
        text: |line, look| {
            line.row
                .last
                .map(|last| age(last, look))
                .unwrap_or_default()
        },
    },
];

/// What remains for the destination has to be so wide.
const DESTINATION: u16 = 20;
const STATE: u16 = 7;

/// The columns that fit: what is told least of goes first.
fn columns(width: u16, lines: &[Line<'_>], several: bool) -> Vec<&'static Column> {
    let programs = lines.iter().any(|line| !line.row.programs.is_empty());
    let says_something = |column: &&Column| match column.name {
        "SANDBOX" => several,
        "PROGRAM" => programs,
        _ => true,
    };
    let mut kept: Vec<&Column> = COLUMNS.iter().filter(says_something).collect();
    for least in ["LAST", "COUNT", "UP", "SANDBOX", "PROGRAM", "DOWN", "RATE"] {
        let taken: u16 = kept.iter().map(|column| column.width + 1).sum();
        if 2 + STATE + 1 + DESTINATION + taken <= width {
            break;
        }
        kept.retain(|column| column.name != least);
    }
    kept
}

/// What there is to say of a sandbox as a whole.
fn remark(sandbox: &Sandbox) -> Option<String> {
    let counted = |number: u64, what: &str| (number > 0).then(|| format!("{number} {what}"));
    let parts = [
        counted(sandbox.left_out, "older rows left out"),
        counted(sandbox.uncounted, "events only counted"),
        sandbox.note.clone(),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn nothing(app: &App) -> &'static str {
    match () {
        () if !app.search.is_empty() => "nothing has that in it; Esc ends the search",
        () if app.filter != Filter::All => "nothing of that kind; f shows other kinds",
        () if app.model.sandboxes().is_empty() => "no sandbox runs; those that start will be here",
        () => "nothing was asked for yet",
    }
}

fn state(line: &Line<'_>) -> (&'static str, Color) {
    match line.row.state {
        _ if line.row.open() > 0 => ("open", Color::Cyan),
        State::Refused => ("refused", Color::Red),
        State::Failed => ("failed", Color::Yellow),
        State::Allowed => ("allowed", Color::Green),
    }
}

/// The program that asked last, by its name, and a sign for that there were others.
fn programs(line: &Line<'_>) -> String {
    let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let more = if line.row.programs.len() > 1 { "+" } else { "" };
    line.row
        .programs
        .first()
        .map(|path| name(path) + more)
        .unwrap_or_default()
}

fn octets(octets: u64) -> String {
    match octets {
        0 => String::new(),
        octets => size(octets),
    }
}

fn number(number: u64) -> String {
    match number {
        ..100_000 => number.to_string(),
        number => size(number),
    }
}

/// How long ago, in the largest unit that says something.
fn age(last: Timestamp, look: &Look) -> String {
    let seconds = look
        .time
        .as_second()
        .saturating_sub(last.as_second())
        .max(0);
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
