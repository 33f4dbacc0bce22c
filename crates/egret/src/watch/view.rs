//! The screen: what of the state is drawn where.
//!
//! Pure: the same state gives the same picture. Texts from a sandbox come here harmless already, and the buffer that is drawn
//! into drops what is no character to be seen.

mod detail;
mod dialog;
mod list;

use super::app::{App, Mode};
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
            list::draw(app, &lines, look, buffer, body);
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
                "q quit  ? help  a allow  d deny  Enter more  / search{}  f {}  s {}  p hold",
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

#[cfg(test)]
mod tests;
