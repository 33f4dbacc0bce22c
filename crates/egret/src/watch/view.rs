//! The screen: what of the state is drawn where.
//!
//! Pure: the same state gives the same picture. Texts from a sandbox come here harmless already, and the buffer that is drawn
//! into drops what is no character to be seen.

mod detail;
mod dialog;

use super::app::{App, Line, Mode};
use super::model::{Sandbox, State};
use jiff::Timestamp;
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};
use std::time::Instant;

/// How things look, and the moment of the picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) colour: bool,
    /// Whether the terminal shows more than ASCII.
    pub(crate) unicode: bool,
    pub(crate) now: Instant,
    pub(crate) time: Timestamp,
}

impl Look {
    fn colour(&self, colour: Color) -> Style {
        match self.colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn dim(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn bold(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    const fn rule(&self) -> &'static str {
        if self.unicode { "─" } else { "-" }
    }
}

/// What somebody has before them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown {
    /// Lines of a text that does not fit, above what is shown of it.
    pub(crate) scroll: usize,
    /// Whether a question is there as a whole.
    pub(crate) question: bool,
}

/// Draws everything.
pub(crate) fn draw(app: &App, look: &Look, buffer: &mut Buffer) -> Shown {
    let area = buffer.area;
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (columns, rows) = SMALLEST;
        put(
            buffer,
            area.x,
            area.y,
            area.width,
            &format!("too small: {columns}x{rows}"),
            Style::new(),
        );
        return Shown::default();
    }
    let lines = app.lines();
    let header = header(app, look, buffer, area);
    let [body, footer] = split_last(Rect {
        y: area.y + header,
        height: area.height - header,
        ..area
    });
    let scroll = match &app.mode {
        Mode::Detail => detail::draw(app, &lines, look, buffer, body),
        Mode::Help => dialog::help(app, buffer, body),
        Mode::List | Mode::Search | Mode::Change(_) => {
            list(app, &lines, look, buffer, body);
            0
        }
    };
    last_line(app, look, buffer, footer);
    match &app.mode {
        _ if app.asks() => Shown {
            scroll,
            question: dialog::question(app, look, buffer, body),
        },
        Mode::Change(change) => Shown {
            scroll: dialog::change(change, app, look, buffer, body),
            question: false,
        },
        _ => Shown {
            scroll,
            question: false,
        },
    }
}

/// What is needed to show anything.
const SMALLEST: (u16, u16) = (20, 6);

/// The lines at the top: which sandboxes there are, and what goes on in all of them. Says how many.
fn header(app: &App, look: &Look, buffer: &mut Buffer, area: Rect) -> u16 {
    let sandboxes = app.model.sandboxes();
    let live = sandboxes.iter().filter(|sandbox| !sandbox.ended).count();
    let rows = app.model.rows();
    let (mut open, mut refused, mut allowed, mut up, mut down) = (0, 0_u64, 0_u64, 0_u64, 0_u64);
    for (_, row) in rows {
        open += row.open();
        refused += row.refused;
        allowed += row.allowed;
        let (row_up, row_down) = row.rates();
        (up, down) = (up + row_up, down + row_down);
    }
    let mut x = area.x;
    let mut add = |buffer: &mut Buffer, text: &str, style: Style| {
        let left = area.right().saturating_sub(x);
        x = put(buffer, x, area.y, left, text, style);
    };
    if area.width >= 60 {
        add(buffer, "egret watch  ", look.bold());
    }
    let many = if live == 1 { "sandbox" } else { "sandboxes" };
    add(buffer, &format!("{live} {many}  {open} open"), Style::new());
    add(
        buffer,
        &format!("  {refused} refused"),
        look.colour(Color::Red),
    );
    add(
        buffer,
        &format!("  {allowed} allowed"),
        look.colour(Color::Green),
    );
    add(
        buffer,
        &format!("  up {}/s down {}/s", size(up), size(down)),
        Style::new(),
    );
    if app.paused.is_some() {
        add(buffer, "  PAUSED", look.bold());
    }
    let names = sandboxes.iter().map(|sandbox| {
        let about = &sandbox.about;
        let state = if sandbox.ended {
            "ended"
        } else {
            &about.runs_in
        };
        let style = if sandbox.ended {
            look.dim()
        } else {
            Style::new()
        };
        (format!("{} ({state})", about.name), style)
    });
    let mut x = area.x;
    for (name, style) in names {
        let left = area.right().saturating_sub(x);
        if usize::from(left) < name.len().min(12) {
            break;
        }
        x = put(buffer, x, area.y + 1, left, &name, style);
        x = x.saturating_add(2).min(area.right());
    }
    2
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

fn list(app: &App, lines: &[Line<'_>], look: &Look, buffer: &mut Buffer, area: Rect) {
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
        () if app.filter != super::app::Filter::All => "nothing of that kind; f shows other kinds",
        () if app.model.sandboxes().is_empty() => "no sandbox runs; those that start will be here",
        () => "nothing was asked for yet",
    }
}

fn last_line(app: &App, look: &Look, buffer: &mut Buffer, area: Rect) {
    let recent = app
        .flash
        .as_ref()
        .filter(|(_, since)| look.now.saturating_duration_since(*since) < super::app::FLASH);
    let (text, style) = match (&app.mode, recent) {
        (Mode::Search, _) => (format!("/{}_", app.search), Style::new()),
        (_, Some((text, _))) => (text.clone(), look.bold()),
        (Mode::Detail, _) => (
            "Enter back  Up/Down scroll  a allow  d deny".into(),
            look.dim(),
        ),
        (Mode::Help, _) => ("Up/Down scroll  any other key: back".into(), look.dim()),
        _ => (
            format!(
                "q quit  ? help  Enter detail  / search{}  f {}  s {}  p pause  a allow  d deny",
                if app.search.is_empty() {
                    String::new()
                } else {
                    format!(" {:?}", app.search)
                },
                app.filter.name(),
                app.sort.name()
            ),
            look.dim(),
        ),
    };
    put(
        buffer,
        area.x,
        area.y,
        area.width,
        &cut(&text, area.width, look),
        style,
    );
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

/// Writes a text, not further than `width`, and says where it ended.
fn put(buffer: &mut Buffer, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
    let within = buffer.area.contains((x, y).into());
    match within {
        true => buffer.set_stringn(x, y, text, usize::from(width), style).0,
        false => x,
    }
}

fn horizontal(buffer: &mut Buffer, area: Rect, look: &Look) {
    for x in area.left()..area.right() {
        put(buffer, x, area.y, 1, look.rule(), look.dim());
    }
}

/// How many columns a text takes.
fn length(text: &str) -> u16 {
    u16::try_from(unicode_width::UnicodeWidthStr::width(text)).unwrap_or(u16::MAX)
}

/// A text that fits, with a sign at its end if something is missing.
fn cut(text: &str, width: u16, look: &Look) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let sign = if look.unicode { '…' } else { '~' };
    let mut kept = String::new();
    for letter in text.chars() {
        kept.push(letter);
        if length(&kept) >= width {
            kept.pop();
            break;
        }
    }
    kept.push(sign);
    kept
}

/// The area without its last line, and that.
fn split_last(area: Rect) -> [Rect; 2] {
    let rest = Rect {
        height: area.height - 1,
        ..area
    };
    let last = Rect {
        y: area.bottom() - 1,
        height: 1,
        ..area
    };
    [rest, last]
}

/// A number of bytes in four characters or fewer.
fn size(octets: u64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if octets < 1_000 {
        return octets.to_string();
    }
    let mut whole = octets;
    let mut rest = 0;
    let mut unit = "";
    for name in UNITS {
        if whole < 1_000 {
            break;
        }
        rest = whole % 1_000 / 100;
        whole /= 1_000;
        unit = name;
    }
    match whole {
        ..10 => format!("{whole}.{rest}{unit}"),
        _ => format!("{whole}{unit}"),
    }
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

#[cfg(test)]
mod tests;
