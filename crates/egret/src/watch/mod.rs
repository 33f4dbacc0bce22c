//! `egret watch`: the sandboxes that run, on a screen.
//!
//! [`source`] listens to them, [`model`] puts together what they did, [`app`] is what somebody at the screen does with it, and
//! [`view`] draws. Between these, [`keys`] says what a key means, [`question`] when one may answer, and [`change`] what
//! becomes of an answer. Here is the loop that passes things on; nothing is decided about a connection.

mod answer;
mod app;
mod change;
mod keys;
mod model;
mod paint;
mod plain;
mod question;
mod source;
mod terminal;
mod view;

use crate::cli::Output;
use crate::explain::{self, Found};
use crate::failure::Failure;
use crate::policy::{self, Page};
pub(crate) use answer::{Answer, answer};
use app::{App, Change, Effect, Proposal};
use clap::Args;
use crossterm::event;
use egret_policy::SandboxId;
use jiff::Timestamp;
use keys::Key;
use model::{Decided, Sandbox};
use rustix::process::Signal;
use source::Peer;
pub(crate) use source::{News, Source, Wanted};
use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use terminal::Screen;
use tokio::signal::unix::{SignalKind, signal};
use view::{Look, Shown};

/// Arguments of `egret watch`.
#[derive(Debug, Args)]
#[command(after_help = "\
What sandboxes try to reach and what becomes of it, as it happens, with a key that
allows or denies it. The question mark shows the keys.

Examples:
  egret watch
  egret watch agent
  egret watch --output json | jq 'select(.verdict == \"deny\")'")]
pub(crate) struct Watch {
    /// Only these sandboxes, now or when they start
    #[arg(value_name = "NAME")]
    names: Vec<SandboxId>,
    /// Print lines, as where there is no terminal
    #[arg(long)]
    plain: bool,
    /// Form of the lines; json implies --plain
    #[arg(long, value_name = "FORM", default_value = "text")]
    output: Output,
}

/// `egret watch`
pub(crate) fn watch(arguments: Watch) -> Result<ExitCode, Failure> {
    let Watch {
        names,
        plain,
        output,
    } = arguments;
    if plain || output == Output::Json || !terminal::is_there() {
        plain::follow(names, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let failed = |error: std::io::Error| Failure::because("cannot use the terminal", &error);
    let (send, receive) = sync_channel(1024);
    let source = Source::start(
        Wanted {
            names,
            activity: true,
        },
        send.clone(),
    );
    let screen = Screen::take().map_err(failed)?;
    listen(&send)?;
    let ended = Watching {
        screen,
        app: App::default(),
        peers: HashMap::new(),
        send,
        colour: std::env::var_os("NO_COLOR").is_none(),
        unicode: speaks_unicode(),
    }
    .run(&receive)
    .map_err(failed);
    drop(source);
    ended
}

/// Something that happened.
enum Event {
    News(News),
    Key(Key),
    /// The window has another size.
    Resized,
    /// A signal asks for an end, and this is the status for it.
    End(u8),
    /// It was stopped, and goes on.
    Continued,
    /// Keys cannot be read any more.
    NoKeys,
    /// Something was done in the background, or not.
    Done(Result<String, Failure>),
    /// The question has been dealt with.
    Answered(String, String),
    /// What a change would do to a file.
    Proposed(Result<Proposal, Failure>),
}

impl From<News> for Event {
    fn from(news: News) -> Self {
        Self::News(news)
    }
}

/// What came of something that happened.
enum Happened {
    /// The picture is the same.
    Nothing,
    /// It may be another.
    Something,
    /// Somebody has seen enough, and this is how to end.
    Enough(ExitCode),
}

struct Watching {
    screen: Screen,
    app: App,
    peers: HashMap<String, Peer>,
    send: SyncSender<Event>,
    colour: bool,
    unicode: bool,
}

impl Watching {
    /// Until somebody has seen enough.
    fn run(mut self, events: &Receiver<Event>) -> std::io::Result<ExitCode> {
        let mut next_tick = Instant::now() + TICK;
        let mut drawn = Instant::now();
        let mut due = Some(drawn);
        loop {
            let until = due.map_or(next_tick, |due| due.min(next_tick));
            let wait = until.saturating_duration_since(Instant::now());
            match events.recv_timeout(wait) {
                Ok(first) => {
                    // What has piled up is one picture.
                    let more = events.try_iter().take(MOST_AT_ONCE);
                    for event in std::iter::once(first).chain(more) {
                        let soon = match &event {
                            Event::Key(_) | Event::Resized => drawn + AT_ONCE,
                            _ => drawn + FRAME,
                        };
                        match self.happened(event)? {
                            Happened::Nothing => {}
                            Happened::Something => {
                                due = Some(due.map_or(soon, |due| due.min(soon)));
                            }
                            Happened::Enough(code) => return Ok(code),
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // We hold a sender ourselves.
                Err(RecvTimeoutError::Disconnected) => return Ok(ExitCode::SUCCESS),
            }
            let now = Instant::now();
            if now >= next_tick {
                self.app.model.tick();
                next_tick = now + TICK;
                due.get_or_insert(now);
            }
            if due.is_some_and(|due| now >= due) {
                self.draw(now)?;
                drawn = now;
                // A question shows when it takes keys.
                due = self.app.asks().then_some(now + TICK / 4);
            }
        }
    }

    fn draw(&mut self, now: Instant) -> std::io::Result<()> {
        let look = Look {
            colour: self.colour,
            unicode: self.unicode,
            now,
            time: Timestamp::now(),
        };
        self.app.explain(explained);
        let app = &self.app;
        let terminal = self.screen.terminal();
        let mut shown = Shown::default();
        terminal.draw(|frame| shown = view::draw(app, &look, frame.buffer_mut()))?;
        self.app.scroll = shown.scroll;
        self.app.drawn(now);
        if shown.question {
            self.app.facing.shown(now);
        }
        Ok(())
    }

    /// Takes in what happened.
    fn happened(&mut self, event: Event) -> std::io::Result<Happened> {
        let now = Instant::now();
        match event {
            Event::News(news) => return Ok(self.heard(news)),
            Event::Key(key) => {
                if let Some(effect) = self.app.press(key, now) {
                    return self.act(effect);
                }
            }
            Event::Resized => {}
            Event::End(status) => return Ok(Happened::Enough(ExitCode::from(status))),
            Event::Continued => self.screen.resume()?,
            Event::NoKeys => return Ok(Happened::Enough(ExitCode::SUCCESS)),
            Event::Done(Ok(text)) => self.app.say(text, now),
            Event::Done(Err(failure)) => self.app.say(model::short(&failure.to_string()), now),
            Event::Answered(sandbox, question) => self.app.facing.answered(&sandbox, &question),
            Event::Proposed(proposal) => {
                let proposal = proposal.map_err(|failure| model::short(&failure.to_string()));
                self.app.proposed(proposal, now);
            }
        }
        Ok(Happened::Something)
    }

    fn heard(&mut self, news: News) -> Happened {
        let model = &mut self.app.model;
        match news {
            News::Began(about, peer) => {
                self.peers.insert(about.name.clone(), peer);
                model.began(about);
            }
            News::Line(name, line) => model.line(&name, &line, Timestamp::now()),
            News::Activity(name, activity) => {
                let moved = model.activity(&name, &activity.connections, Timestamp::now());
                let asked = self.app.facing.set(&name, activity.questions);
                if !moved && !asked {
                    return Happened::Nothing;
                }
            }
            News::Ended(name) => {
                self.peers.remove(&name);
                model.ended(&name);
                self.app.facing.set(&name, Vec::new());
            }
        }
        Happened::Something
    }

    fn act(&mut self, effect: Effect) -> std::io::Result<Happened> {
        match effect {
            Effect::Quit => return Ok(Happened::Enough(ExitCode::SUCCESS)),
            Effect::Suspend => self.screen.suspend()?,
            Effect::Redraw => self.screen.paint_anew()?,
            Effect::Amend(change) => self.change(change, change::for_this_run),
            Effect::Write(change, proposal) => self.change(change, move |peer, change| {
                change::write(peer, change, &proposal)
            }),
            Effect::Propose(change) => {
                let sandbox = self.app.model.sandbox(&change.sandbox);
                let basis = sandbox.and_then(Sandbox::basis).cloned();
                self.in_background(&change.sandbox.clone(), move |peer| {
                    Event::Proposed(change::propose(peer, &change, basis.as_ref()))
                });
            }
            Effect::Reply {
                sandbox,
                question,
                reply,
            } => self.in_background(&sandbox.clone(), move |peer| {
                match change::reply(peer, &question, reply) {
                    Ok(()) => Event::Answered(sandbox, question),
                    Err(failure) => Event::Done(Err(failure)),
                }
            }),
        }
        Ok(Happened::Something)
    }

    /// Makes a change, and says what came of it.
    fn change(
        &mut self,
        change: Change,
        make: impl FnOnce(&Peer, &Change) -> Result<String, Failure> + Send + 'static,
    ) {
        self.in_background(&change.sandbox.clone(), move |peer| {
            Event::Done(make(peer, &change))
        });
    }

    /// Has a sandbox asked something, which can take a while.
    fn in_background(&mut self, sandbox: &str, work: impl FnOnce(&Peer) -> Event + Send + 'static) {
        let Some(peer) = self.peers.get(sandbox).cloned() else {
            return self.app.say(format!("{sandbox} has ended"), Instant::now());
        };
        let send = self.send.clone();
        std::thread::spawn(move || {
            // There may be nobody left to tell.
            let (Ok(()) | Err(_)) = send.send(work(&peer));
        });
    }
}

/// Why a decision came out as it did, as `egret explain` says it.
fn explained(decided: &Decided) -> Vec<String> {
    let Decided { record, policy } = decided;
    let told = explain::retell(&Found {
        log: String::new(),
        policy: policy.clone(),
        records: Vec::new(),
        decisive: record.clone(),
    });
    let mut page = Page::new(false);
    match &told.explanation {
        Ok(explanation) => policy::explained(explanation, &told.asked, &mut page),
        Err(why) => writeln!(page, "{why}"),
    }
    if let Some(difference) = &told.difference {
        writeln!(page, "\n{difference}");
    }
    page.as_str().lines().map(str::to_owned).collect()
}

/// What is painted of a line of a log, in windows of several sizes, as a list and as a detail.
#[cfg(fuzzing)]
pub(crate) fn pictures_of(line: &str) -> Vec<String> {
    use ratatui_core::{buffer::Buffer, layout::Rect};
    let time = Timestamp::UNIX_EPOCH;
    let look = Look {
        colour: true,
        unicode: true,
        now: Instant::now(),
        time,
    };
    let mut app = App::default();
    app.model.began(model::About {
        name: "s".into(),
        runs_in: "process 1".into(),
        program: "sh".into(),
        policy: None,
    });
    app.model.line("s", line, time);
    let mut pictures = Vec::new();
    for key in [Key::Home, Key::Enter] {
        app.press(key, look.now);
        app.explain(explained);
        for (width, height) in [(80, 24), (20, 6), (200, 60)] {
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
            view::draw(&app, &look, &mut buffer);
            pictures.push(buffer.content().iter().map(|cell| cell.symbol()).collect());
        }
    }
    pictures
}

/// Begins to listen for keys and signals.
fn listen(send: &SyncSender<Event>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::because("cannot receive signals", &error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let context = runtime.enter();
    let hear = |kind| signal(kind).map_err(failed);
    let mut terminate = hear(SignalKind::terminate())?;
    let mut hang_up = hear(SignalKind::hangup())?;
    let mut interrupt = hear(SignalKind::interrupt())?;
    let mut go_on = hear(SignalKind::from_raw(Signal::CONT.as_raw()))?;
    drop(context);
    let signals = send.clone();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            loop {
                let ends = |signal: Signal| Event::End(128 + signal.as_raw().unsigned_abs() as u8);
                let event = tokio::select! {
                    _ = terminate.recv() => ends(Signal::TERM),
                    _ = hang_up.recv() => ends(Signal::HUP),
                    _ = interrupt.recv() => ends(Signal::INT),
                    _ = go_on.recv() => Event::Continued,
                };
                if signals.send(event).is_err() {
                    return;
                }
            }
        });
    });
    let keys = send.clone();
    std::thread::spawn(move || {
        loop {
            let event = match event::read() {
                Ok(event::Event::Key(key)) => keys::key(key).map(Event::Key),
                Ok(event::Event::Resize(..)) => Some(Event::Resized),
                Ok(_) => None,
                Err(_) => Some(Event::NoKeys),
            };
            let ends = matches!(event, Some(Event::NoKeys));
            if event.is_some_and(|event| keys.send(event).is_err()) || ends {
                return;
            }
        }
    });
    Ok(())
}

/// Whether the terminal shows more than ASCII, by what says so to every program.
fn speaks_unicode() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// How often rates and ages are worked out.
const TICK: Duration = Duration::from_secs(1);
/// How long a picture stays, whatever the sandboxes do.
const FRAME: Duration = Duration::from_millis(100);
/// How long it stays when a key was pressed.
const AT_ONCE: Duration = Duration::from_millis(15);
/// Events that are taken in for one picture.
const MOST_AT_ONCE: usize = 5_000;
