//! What has changed of a picture, as a terminal is told it.
//!
//! The sixteen colours are named as every terminal with colours knows them, and nothing is sent where nothing has changed.

use anstyle::{AnsiColor, Style};
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::queue;
use crossterm::terminal::{Clear, ClearType as Part};
use ratatui_core::backend::{Backend, ClearType, WindowSize};
use ratatui_core::buffer::Cell;
use ratatui_core::layout::{Position, Size};
use ratatui_core::style::{Color, Modifier};
use rustix::termios::tcgetwinsize;
use std::io::{self, Stdout, Write as _, stdout};

/// Standard output, as a picture is put on it.
#[derive(Debug)]
pub(crate) struct Painter {
    out: Stdout,
    /// What is sent with the next flush.
    waiting: Vec<u8>,
}

impl Painter {
    pub(crate) fn new() -> Self {
        Self {
            out: stdout(),
            waiting: Vec::new(),
        }
    }
}

impl Backend for Painter {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, cells: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut next = None;
        let mut style = Style::new();
        for (x, y, cell) in cells {
            if next != Some((x, y)) {
                queue!(self.waiting, MoveTo(x, y))?;
            }
            let wanted = of(cell);
            if wanted != style {
                write!(self.waiting, "{style:#}{wanted}")?;
                style = wanted;
            }
            self.waiting.extend_from_slice(cell.symbol().as_bytes());
            next = Some((x + 1, y));
        }
        write!(self.waiting, "{style:#}")
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        // It is, from the beginning.
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        queue!(self.waiting, Show)
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        // Whoever asks the terminal takes what others are to read.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        queue!(self.waiting, MoveTo(x, y))
    }

    fn clear(&mut self) -> io::Result<()> {
        queue!(self.waiting, Hide, Clear(Part::All))
    }

    fn clear_region(&mut self, part: ClearType) -> io::Result<()> {
        let part = match part {
            ClearType::All => Part::All,
            ClearType::AfterCursor => Part::FromCursorDown,
            ClearType::BeforeCursor => Part::FromCursorUp,
            ClearType::CurrentLine => Part::CurrentLine,
            ClearType::UntilNewLine => Part::UntilNewLine,
        };
        queue!(self.waiting, Clear(part))
    }

    fn size(&self) -> io::Result<Size> {
        let size = tcgetwinsize(&self.out)?;
        match (size.ws_col, size.ws_row) {
            // A line that knows no size, such as a serial one.
            (0, _) | (_, 0) => Ok(Size::new(80, 24)),
            (columns, rows) => Ok(Size::new(columns, rows)),
        }
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize {
            columns_rows: self.size()?,
            pixels: Size::new(0, 0),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.waiting)?;
        self.waiting.clear();
        self.out.flush()
    }
}

fn of(cell: &Cell) -> Style {
    let colour = match cell.fg {
        Color::Red => Some(AnsiColor::Red),
        Color::Green => Some(AnsiColor::Green),
        Color::Yellow => Some(AnsiColor::Yellow),
        Color::Cyan => Some(AnsiColor::Cyan),
        // No other is used.
        _ => None,
    };
    let mut style = Style::new().fg_color(colour.map(Into::into));
    if cell.modifier.contains(Modifier::BOLD) {
        style = style.bold();
    }
    if cell.modifier.contains(Modifier::DIM) {
        style = style.dimmed();
    }
    if cell.modifier.contains(Modifier::REVERSED) {
        style = style.invert();
    }
    style
}
