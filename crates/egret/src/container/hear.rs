//! What is heard of agent and gateway while they start: the engine's commands that were told to start them are listened to
//! until the gateway has said its word, and then let go.

use super::engine::{Engine, Kind, said};
use super::spec::{agent_name, gateway_name};
use crate::failure::Failure;
use egret_sandbox::Signals;
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Ends an engine's command that only watches.
pub(super) fn dismiss(command: &mut Child) {
    // It may have ended already.
    let (Ok(()) | Err(_)) = command.kill();
    let (Ok(_) | Err(_)) = command.wait();
}

/// What is heard of agent and gateway while they start.
pub(super) struct Heard {
    words: Receiver<Word>,
    say: Sender<Word>,
}

enum Word {
    /// The gateway's first record: it serves the sandbox.
    Ready,
    /// The command has ended, and said this.
    Ended(&'static str, String),
}

impl Default for Heard {
    fn default() -> Self {
        let (say, words) = channel();
        Self { words, say }
    }
}

impl Heard {
    /// Hears what a command says on its way out.
    pub(super) fn complaints(&self, who: &'static str, command: &mut Child) {
        let say = self.say.clone();
        if let Some(mut stderr) = command.stderr.take() {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let (Ok(_) | Err(_)) = stderr.read_to_end(&mut text);
                let why = said(&String::from_utf8_lossy(&text));
                // Nobody listens any more if the other one was first.
                let (Ok(()) | Err(_)) = say.send(Word::Ended(who, why));
            });
        }
    }

    /// Hears the gateway's first record.
    pub(super) fn ready(&self, gateway: &mut Child) {
        let say = self.say.clone();
        if let Some(output) = gateway.stdout.take() {
            std::thread::spawn(move || {
                let mut line = String::new();
                if BufReader::new(output)
                    .read_line(&mut line)
                    .is_ok_and(|length| length > 0)
                {
                    let (Ok(()) | Err(_)) = say.send(Word::Ready);
                }
            });
        }
    }

    /// Waits for the gateway's word, unless one of the two ends, or the start is broken off.
    pub(super) fn until_ready(&self, signals: &Signals) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            while let Some(arrived) = signals
                .next()
                .map_err(|error| Failure::because("cannot receive signals", &error))?
            {
                let breaks_off =
                    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT].map(Signal::as_raw);
                if breaks_off.contains(&arrived.number) {
                    return Err(Failure::new("the start was broken off"));
                }
            }
            match self.words.recv_timeout(Duration::from_millis(20)) {
                Ok(Word::Ready) => return Ok(()),
                Ok(Word::Ended(who, why)) => {
                    return Err(Failure::new(format!("the {who} did not start: {why}")));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(_) => {
                    return Err(Failure::new(format!(
                        "the gateway was not ready within {} s",
                        PATIENCE.as_secs()
                    )));
                }
            }
        }
    }
}

/// Lets two commands get where they can be ended without harm. Docker's daemon goes on to make a container that its command
/// asked for and does not wait for any more: it would come after everything was removed. Podman's command, ended while it
/// makes a container, leaves processes behind that wait for it.
pub(super) fn calm(engine: &Engine, commands: [(&mut Child, &str); 2]) {
    let until = Instant::now() + Duration::from_secs(15);
    for (command, container) in commands {
        let harmless = |command: &mut Child| {
            let ended = command.try_wait().is_ok_and(|status| status.is_some());
            let state = || {
                engine.output([
                    "container",
                    "inspect",
                    "--format",
                    "{{.State.Status}}",
                    container,
                ])
            };
            let is_made = |state: String| match engine.kind {
                Kind::Docker => true,
                Kind::Podman => matches!(state.trim(), "running" | "exited"),
            };
            ended || state().is_ok_and(is_made)
        };
        while Instant::now() < until && !harmless(command) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// How long agent and gateway have, from the engine's taking them on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the engine knows that both run. Podman's command is the engine itself, and writes down what it has started
/// after that: ended before, it would be started once more.
pub(super) fn settled(engine: &Engine, sandbox: &str) -> Result<(), Failure> {
    if engine.kind == Kind::Docker {
        return Ok(());
    }
    let (agent, gateway) = (agent_name(sandbox), gateway_name(sandbox));
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let states = engine.output([
            "container",
            "inspect",
            "--format",
            "{{.State.Status}}",
            &agent,
            &gateway,
        ]);
        if states.is_ok_and(|states| states.split_whitespace().all(|state| state == "running")) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::new(format!(
        "{} does not say that {agent} and {gateway} run",
        engine.kind
    )))
}
