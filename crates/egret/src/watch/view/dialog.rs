//! What lies above the list: a question, an entry to be added, and the help.

use super::detail::wrap;
use super::{Look, put};
use crate::watch::app::{App, Change};
use crate::watch::model::{Sandbox, short};
use egret_policy::{List, visible};
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Style};

/// A question of a sandbox's, with the keys that answer it. Says whether all of what is asked could be shown, without which
/// nobody can answer.
pub(super) fn question(app: &App, look: &Look, buffer: &mut Buffer, area: Rect) -> bool {
    let Some((sandbox, question)) = app.facing.current() else {
        return false;
    };
    let who = question.program.as_deref().unwrap_or("a program");
    let more = match app.facing.count() {
        0 | 1 => String::new(),
        several => format!(" (1 of {several})"),
    };
    let window = Window {
        colour: Color::Yellow,
        title: vec![
            format!("{sandbox}: may this be connected to?{more}"),
            // Whole, however long: the end of a name is what it belongs to.
            format!("  {}", visible(&question.destination)),
        ],
        body: vec![
            (format!("asked by {}", short(who)), Style::new()),
            (visible(&question.message).into_owned(), Style::new()),
            (
                format!("refused in {} s", question.left_ms.div_ceil(1000)),
                look.dim(),
            ),
        ],
        scroll: None,
        keys: &["o once", "r this run", "a always (policy file)", "n no"],
        keys_style: match app.facing.is_armed(look.now) {
            true => Style::new(),
            false => look.dim(),
        },
    };
    if window.fits(area) {
        window.draw(look, buffer, area);
        return true;
    }
    let too_small = Window {
        title: vec!["A question does not fit: make the window larger.".into()],
        body: Vec::new(),
        keys: &[],
        ..window
    };
    too_small.draw(look, buffer, area);
    false
}

/// An entry, and where it may go.
pub(super) fn change(
    change: &Change,
    app: &App,
    look: &Look,
    buffer: &mut Buffer,
    area: Rect,
) -> usize {
    let verb = match change.list {
        List::Allow => "Allow",
        List::Deny => "Deny",
    };
    let title = vec![format!(
        "{verb} {} in {}?",
        visible(&change.entry),
        change.sandbox
    )];
    let window = match &change.proposal {
        None => {
            let file = app.model.sandbox(&change.sandbox);
            let file = file.and_then(Sandbox::policy);
            Window {
                colour: Color::Cyan,
                title,
                body: vec![match file {
                    Some(file) => (format!("Its policy is {}.", short(file)), Style::new()),
                    None => ("It has no policy file.".into(), Style::new()),
                }],
                scroll: None,
                keys: &["r this run", "a always (policy file)", "Esc not at all"],
                keys_style: Style::new(),
            }
        }
        Some(proposal) => {
            let mut body = vec![(
                format!("This is written to {}:", proposal.file),
                Style::new(),
            )];
            for line in &proposal.lines {
                let style = match line.chars().next() {
                    Some('+') => look.colour(Color::Green),
                    Some('-') => look.colour(Color::Red),
                    _ => look.dim(),
                };
                body.push((format!("  {line}"), style));
            }
            Window {
                colour: Color::Cyan,
                title,
                body,
                scroll: Some(app.scroll),
                keys: &["y write it and load it", "Esc leave it as it is"],
                keys_style: Style::new(),
            }
        }
    };
    window.draw(look, buffer, area)
}

/// What the keys do.
pub(super) fn help(app: &App, buffer: &mut Buffer, area: Rect) -> usize {
    let lines = HELP.lines().flat_map(|line| wrap(line, area.width, 10));
    let lines: Vec<String> = lines.collect();
    let first = app
        .scroll
        .min(lines.len().saturating_sub(usize::from(area.height)));
    for (y, line) in (area.y..area.bottom()).zip(lines.iter().skip(first)) {
        put(buffer, area.x, y, area.width, line, Style::new());
    }
    first
}

const HELP: &str = "\
Up Down j k PgUp PgDn Home End  move; at the top, the newest stays in view
Enter     all about a destination, and back
/         search in destinations, programs, sandboxes and reasons; Esc ends it
f         show all, refused, allowed, open
s         sort by when it was last, how often, how much, name
p Space   hold the list still, and go on
a         allow what was refused: for this run, or in the policy's file
d         deny what was allowed, likewise
Ctrl-L    paint anew
Ctrl-Z    suspend
q Ctrl-C  quit; the sandboxes go on

A row is a destination of a sandbox: what became of the last attempt,
how many there were, bytes a second, bytes up and down, when the last one was.

A question that a sandbox asks lies above all else. It takes keys once nothing
was pressed for half a second.";

/// Lines in a frame in the middle: what it is about, what there is to say, and the keys.
struct Window<'a> {
    colour: Color,
    title: Vec<String>,
    body: Vec<(String, Style)>,
    /// Lines of the body that are above the frame; none where it cannot be scrolled.
    scroll: Option<usize>,
    keys: &'a [&'a str],
    keys_style: Style,
}

impl Window<'_> {
    /// Whether there is room for what it is about, and for the keys.
    fn fits(&self, area: Rect) -> bool {
        let inner = area.width.min(WIDEST).saturating_sub(4);
        let keys = wrap(&self.keys.join("  "), inner, 0);
        self.title(inner).len() + keys.len() <= usize::from(area.height.saturating_sub(2))
    }

    fn title(&self, width: u16) -> Vec<String> {
        let lines = self.title.iter();
        lines.flat_map(|line| wrap(line, width, 2)).collect()
    }

    /// Says how many lines of the body are above the frame.
    fn draw(&self, look: &Look, buffer: &mut Buffer, area: Rect) -> usize {
        let width = area.width.min(WIDEST);
        let inner = width.saturating_sub(4);
        let room = usize::from(area.height.saturating_sub(2));
        let title = self.title(inner);
        let body: Vec<(String, Style)> = self
            .body
            .iter()
            .flat_map(|(line, style)| {
                let lines = wrap(line, inner, 4);
                lines.into_iter().map(move |line| (line, *style))
            })
            .collect();
        // A line for each key, or as few as there can be.
        let mut keys: Vec<String> = self.keys.iter().map(|key| (*key).to_owned()).collect();
        if title.len() + body.len() + keys.len() + 2 > room {
            keys = wrap(&self.keys.join("  "), inner, 0);
        }
        // The title says what is asked, and without the keys there is no answer: the rest has what is left.
        let left = room.saturating_sub(title.len() + keys.len());
        let blanks = usize::from(left > body.len());
        let shown = left.saturating_sub(blanks).min(body.len());
        let first = self.scroll.unwrap_or(0).min(body.len() - shown);
        let mut lines: Vec<(String, Style)> =
            title.into_iter().map(|line| (line, look.bold())).collect();
        lines.extend(body.iter().skip(first).take(shown).cloned());
        let below = body.len() - first - shown;
        if let (Some((last, style)), 1..) = (lines.last_mut(), below) {
            let how = match self.scroll {
                Some(_) => "Up, Down",
                None => "in a larger window",
            };
            *last = format!("({} more lines: {how})", below + 1);
            *style = look.dim();
        }
        lines.extend(std::iter::repeat_n((String::new(), Style::new()), blanks));
        lines.extend(keys.into_iter().map(|line| (line, self.keys_style)));
        lines.truncate(room);
        self.frame(width, &lines, look, buffer, area);
        first
    }

    fn frame(
        &self,
        width: u16,
        lines: &[(String, Style)],
        look: &Look,
        buffer: &mut Buffer,
        area: Rect,
    ) {
        let height = u16::try_from(lines.len())
            .unwrap_or(area.height)
            .saturating_add(2);
        let height = height.min(area.height);
        let (x, y) = (
            area.x + (area.width - width) / 2,
            area.y + (area.height - height) / 2,
        );
        let style = look.colour(self.colour);
        let (top, bottom, side) = match look.unicode {
            true => (["┌", "─", "┐"], ["└", "─", "┘"], "│"),
            false => (["+", "-", "+"], ["+", "-", "+"], "|"),
        };
        let across = |[left, line, right]: [&str; 3]| {
            let line = line.repeat(usize::from(width.saturating_sub(2)));
            format!("{left}{line}{right}")
        };
        let frame = Rect {
            x,
            y,
            width,
            height,
        };
        for cell in frame.rows().flat_map(Rect::columns) {
            if let Some(cell) = buffer.cell_mut((cell.x, cell.y)) {
                cell.reset();
            }
        }
        put(buffer, x, y, width, &across(top), style);
        put(buffer, x, y + height - 1, width, &across(bottom), style);
        for (y, (line, of_line)) in (y + 1..y + height - 1).zip(lines) {
            put(buffer, x, y, 1, side, style);
            put(buffer, x + 2, y, width.saturating_sub(4), line, *of_line);
            put(buffer, x + width - 1, y, 1, side, style);
        }
    }
}

/// Columns of a frame.
const WIDEST: u16 = 76;
