//! The terminal: taken, and given back in whatever way this ends.

use super::paint::Painter;
use crate::failure::EGRET_FAILED;
use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui_core::terminal::Terminal;
use rustix::process::Signal;
use std::io::{self, IsTerminal as _, stdout};
use std::sync::Once;

/// A terminal that is ours. It is given back when this is dropped, and when anything panics.
pub(crate) struct Screen {
    terminal: Terminal<Painter>,
}

/// Whether there is a terminal to paint on: both ways, and one that can move its cursor.
pub(crate) fn is_there() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdin().is_terminal() && stdout().is_terminal() && !dumb
}

impl Screen {
    /// Takes the terminal.
    pub(crate) fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
                // The one that draws is on its way out; others would leave it drawing over what was just said.
                if std::thread::current().name() != Some("main") {
                    std::process::exit(i32::from(EGRET_FAILED));
                }
            }));
        });
        let screen = Self {
            terminal: Terminal::new(Painter::new())?,
        };
        enter()?;
        Ok(screen)
    }

    /// What is drawn on.
    pub(crate) fn terminal(&mut self) -> &mut Terminal<Painter> {
        &mut self.terminal
    }

    /// Stops, as a shell expects of who is told so by Ctrl-Z, and goes on once it is continued. Where no shell would
    /// continue it, the kernel knows, and it does not stop.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        rustix::process::kill_current_process_group(Signal::TSTP)?;
        self.resume()
    }

    /// Takes the terminal again, whoever had it meanwhile.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        // Modes that are in force already, as far as anybody here knows, would not be set again.
        disable_raw_mode()?;
        enter()?;
        self.paint_anew()
    }

    /// Has everything painted, whatever is on the screen.
    pub(crate) fn paint_anew(&mut self) -> io::Result<()> {
        // Clearing would ask the terminal where its cursor is, and the answer go to whoever reads keys.
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// Does what can be done: there is nobody to tell if it fails.
fn give_back() {
    let (Ok(()) | Err(_)) = execute!(stdout(), Show, LeaveAlternateScreen);
    let (Ok(()) | Err(_)) = disable_raw_mode();
}
