//! `egret answer`: the questions of sandboxes, one after the other, on a terminal that nothing is painted on.
//!
//! What was typed before a question could be read is thrown away, and a line answers only once the question has been there
//! for a moment. An answer that goes into a file is shown as it would be written, and asked about again.

use super::app::{Change, Proposal};
use super::change;
use super::model::{Model, short};
use super::question::Facing;
use super::source::{News, Peer, Source, Wanted};
use crate::failure::Failure;
use clap::Args;
use egret_gateway::{Question, Reply};
use egret_policy::{List, SandboxId, visible, visible_lines};
use jiff::Timestamp;
use rustix::termios::{QueueSelector, tcflush};
use std::collections::HashMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

/// Arguments of `egret answer`.
#[derive(Debug, Args)]
#[command(after_help = "\
With `egret run --ask`, what is refused waits while somebody is asked. This shows
the questions line by line; `egret watch` has them above everything else that
sandboxes do. Without an answer in time it stays refused.

Examples:
  egret answer
  egret answer agent")]
pub(crate) struct Answer {
    /// Only the questions of these sandboxes; it ends when they have ended
    names: Vec<SandboxId>,
}

/// `egret answer`
pub(crate) fn answer(arguments: Answer) -> Result<ExitCode, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::new(
            "answers come from somebody at a terminal; `egret logs -f` shows what is asked, and entries of a policy answer beforehand",
        ));
    }
    let (send, receive) = sync_channel(1024);
    let left = (!arguments.names.is_empty()).then_some(arguments.names.len());
    let wanted = Wanted {
        names: arguments.names,
        activity: true,
    };
    let source = Source::start(wanted, send.clone());
    read_lines(send);
    let answering = Answering {
        facing: Facing::default(),
        model: Model::default(),
        peers: HashMap::new(),
        shown: None,
        proposal: None,
        left,
    };
    let ended = answering.run(&receive);
    drop(source);
    ended
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| Failure::because("cannot print", &error))
}

/// Something that happened.
enum Event {
    News(News),
    /// A line was typed, and when.
    Typed(String, Instant),
    /// Nothing more will be typed.
    End,
}

impl From<News> for Event {
    fn from(news: News) -> Self {
        Self::News(news)
    }
}

struct Answering {
    facing: Facing,
    /// What the sandboxes go by.
    model: Model,
    peers: HashMap<String, Peer>,
    /// The question that was printed last, by its sandbox and id.
    shown: Option<(String, String)>,
    /// What is to be written to a file, once somebody has said so.
    proposal: Option<(Change, Proposal)>,
    /// How many of those that are named have not ended.
    left: Option<usize>,
}

impl Answering {
    fn run(mut self, events: &Receiver<Event>) -> io::Result<()> {
        print(format_args!("Questions appear here; Ctrl-C ends this."))?;
        for event in events {
            match event {
                Event::News(news) => self.heard(news),
                Event::Typed(line, at) => self.typed(line.trim(), at)?,
                Event::End => return Ok(()),
            }
            if self.left == Some(0) {
                return Ok(());
            }
            self.show()?;
        }
        Ok(())
    }

    fn heard(&mut self, news: News) {
        match news {
            News::Began(about, peer) => {
                self.peers.insert(about.name.clone(), peer);
                self.model.began(about);
            }
            News::Line(name, line) => self.model.line(&name, &line, Timestamp::now()),
            News::Activity(name, activity) => {
                self.facing.set(&name, activity.questions);
            }
            News::Ended(name) => {
                self.peers.remove(&name);
                self.model.ended(&name);
                self.facing.set(&name, Vec::new());
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
        }
    }

    /// Prints the question that is to be answered, if it is another one than before.
    fn show(&mut self) -> io::Result<()> {
        let current = self.facing.current();
        let named = current.map(|(sandbox, question)| (sandbox.to_owned(), question.id.clone()));
        if named == self.shown {
            return Ok(());
        }
        if self.shown.take().is_some() && self.proposal.take().is_some() {
            print(format_args!(
                "  It is not asked any more; nothing was written."
            ))?;
        }
        if let Some((sandbox, question)) = current {
            // Whatever it was meant for, it was not this.
            let (Ok(()) | Err(_)) = tcflush(io::stdin(), QueueSelector::IFlush);
            print(format_args!("\n{}", in_words(sandbox, question)))?;
            prompt()?;
            self.facing.shown(Instant::now());
        }
        self.shown = named;
        Ok(())
    }

    fn typed(&mut self, line: &str, at: Instant) -> io::Result<()> {
        let Some((sandbox, question)) = self.facing.current() else {
            return Ok(());
        };
        if !self.facing.is_armed(at) {
            print(format_args!("  That was quick: read it, then answer."))?;
            return prompt();
        }
        let (sandbox, question) = (sandbox.to_owned(), question.clone());
        let Some(peer) = self.peers.get(&sandbox) else {
            return Ok(());
        };
        let change = Change {
            sandbox: sandbox.clone(),
            list: List::Allow,
            entry: question.destination.clone(),
            question: Some(question.id.clone()),
            proposal: None,
        };
        let done = match (line, self.proposal.take()) {
            ("y", Some((change, proposal))) => change::write(peer, &change, &proposal),
            (_, Some(_)) => {
                print(format_args!("  Nothing was written."))?;
                return prompt();
            }
            ("o", None) => change::reply(peer, &question.id, Reply::Once)
                .map(|()| format!("{} is allowed once", change.entry)),
            ("r", None) => change::for_this_run(peer, &change),
            ("a", None) => {
                let policy = self
                    .model
                    .sandbox(&sandbox)
                    .and_then(|sandbox| sandbox.basis());
                match change::propose(peer, &change, policy) {
                    Ok(proposal) => {
                        let lines = proposal.lines.join("\n  ");
                        print(format_args!(
                            "  This is written to {}:\n  {lines}\n  y writes it",
                            proposal.file
                        ))?;
                        self.proposal = Some((change, proposal));
                        return prompt();
                    }
                    Err(failure) => Err(failure),
                }
            }
            ("n", None) => change::reply(peer, &question.id, Reply::No)
                .map(|()| format!("{} stays refused for this run", change.entry)),
            _ => return prompt(),
        };
        match done {
            Ok(said) => {
                print(format_args!("  {said}"))?;
                self.facing.answered(&sandbox, &question.id);
                Ok(())
            }
            Err(failure) => {
                print(format_args!("  {failure}"))?;
                prompt()
            }
        }
    }
}

/// What is asked. The name is whole, and on a line of its own; nothing in it makes lines or acts on the terminal.
fn in_words(sandbox: &str, question: &Question) -> String {
    let who = question.program.as_deref().unwrap_or("a program");
    let seconds = question.left_ms.div_ceil(1000);
    format!(
        "{}: may this be connected to?\n\n    {}\n\n  asked by {}\n  {} ({})\n  \
         o once   r for this run   a always, in the policy's file   n no   (refused in {seconds} s)",
        visible(sandbox),
        visible(&question.destination),
        short(who),
        visible(&question.message),
        visible(&question.reason)
    )
}

fn print(text: std::fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "{}", visible_lines(&text.to_string()))
}

fn prompt() -> io::Result<()> {
    let mut out = io::stdout();
    write!(out, "> ")?;
    out.flush()
}

/// Passes on what is typed, line by line, until there is no more.
fn read_lines(send: SyncSender<Event>) {
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if send.send(Event::Typed(line, Instant::now())).is_err() {
                return;
            }
        }
        // If nobody listens any more, nobody is told.
        let (Ok(()) | Err(_)) = send.send(Event::End);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_whole_and_cannot_make_up_lines_of_its_own() {
        let name = format!("api.github.com.{}evil.test", "a.".repeat(100));
        let question = Question {
            id: "q".into(),
            destination: format!("{name}:443"),
            host: name.clone(),
            port: 443,
            program: Some(format!(
                "/tmp/curl\n    good.test:443\u{1b}[2J{}",
                "x".repeat(4_000)
            )),
            reason: "denied.default".into(),
            message: "no entry of the policy allows the destination".into(),
            waiting: 1,
            left_ms: 14_200,
        };
        let said = in_words("agent", &question);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 7, "{said}");
        assert_eq!(lines[2], format!("    {name}:443"));
        assert!(
            lines[4].starts_with(r"  asked by /tmp/curl\n    good.test:443\u{1b}[2Jxxx"),
            "{said}"
        );
        assert!(
            lines[4].len() < 1_000 && lines[6].ends_with("(refused in 15 s)"),
            "{said}"
        );
        assert!(!said.contains('\u{1b}'));
    }
}
