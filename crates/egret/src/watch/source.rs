//! What the sandboxes say: which there are, their audit logs as these grow, and what goes on in them right now.
//!
//! A thread for each sandbox asks and reads, and one looks for new ones; all of it goes into one channel. What reads an
//! engine's output is a process, which ends with the [`Source`].

use super::model::About;
use crate::container::{self, AuditStream, Conversation, Role};
use crate::control::{self, Answer, Request, Status};
use crate::failure::Failure;
use crate::logs::parts::Parts;
use egret_gateway::Activity;
use egret_policy::SandboxId;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SendError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Something that a sandbox did, or that happened to one.
#[derive(Debug)]
pub(crate) enum News {
    /// It is there.
    Began(About, Peer),
    /// A line of its audit log, without its end.
    Line(String, String),
    /// What goes on in it.
    Activity(String, Activity),
    /// It is gone.
    Ended(String),
}

/// How a sandbox is spoken to.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// By its name.
    Process(String),
    /// By way of its engine.
    Container(Arc<container::Sandbox>),
}

impl Peer {
    /// Asks it something.
    pub(crate) fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        match self {
            Self::Process(name) => control::ask(name, request)?
                .ok_or_else(|| Failure::new(format!("{name} has ended"))),
            Self::Container(sandbox) => container::ask_gateway(sandbox, request),
        }
    }
}

/// What is looked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Only these; all if there are none.
    pub(crate) names: Vec<SandboxId>,
    /// Whether it is to be told what goes on, besides what is on record.
    pub(crate) activity: bool,
}

impl Wanted {
    fn is(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted.as_str() == name)
    }
}

/// What looks and listens. When it is dropped, so are the processes that it has started.
#[derive(Debug)]
pub(crate) struct Source {
    streams: Arc<Mutex<Streams>>,
}

/// Processes that print what an engine has, by the sandbox.
type Streams = HashMap<String, AuditStream>;

impl Source {
    /// Looks for sandboxes, and says what they do, until nobody listens.
    pub(crate) fn start<M: From<News> + Send + 'static>(
        wanted: Wanted,
        news: SyncSender<M>,
    ) -> Self {
        let streams = Arc::<Mutex<Streams>>::default();
        let source = Self {
            streams: Arc::clone(&streams),
        };
        let finder = Finder {
            wanted,
            news,
            streams,
            known: HashMap::new(),
            silent: HashMap::new(),
        };
        std::thread::spawn(move || finder.run());
        source
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Looks for sandboxes.
struct Finder<M> {
    wanted: Wanted,
    news: SyncSender<M>,
    streams: Arc<Mutex<Streams>>,
    known: HashMap<String, Known>,
    /// Those that have not answered, as one does not that is stopped, and until when they are not asked again.
    silent: HashMap<String, Instant>,
}

/// A sandbox that is followed.
struct Known {
    found: Found,
    /// Set once it has ended, for the thread that follows it.
    ended: Arc<AtomicBool>,
}

impl<M: From<News> + Send + 'static> Finder<M> {
    fn run(mut self) {
        let mut next_list = Instant::now();
        let mut containers = Vec::new();
        loop {
            let mut there = self.processes();
            if Instant::now() >= next_list {
                let start = Instant::now();
                containers = listed(&self.wanted);
                // An engine is asked as often as takes a fiftieth of the time.
                next_list = Instant::now() + (start.elapsed() * 50).max(LOOK);
            }
            there.extend(containers.iter().cloned());
            if self.compare(there).is_err() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The sandboxes of processes. One that does not answer is what it was.
    fn processes(&mut self) -> Vec<Found> {
        let mut there = Vec::new();
        // A list that cannot be had now can be in a second.
        for name in control::names().unwrap_or_default() {
            if !self.wanted.is(&name) {
                continue;
            }
            let is_silent = |until: &Instant| Instant::now() < *until;
            if !self.silent.get(&name).is_some_and(is_silent) {
                self.silent.remove(&name);
                match control::ask(&name, &Request::Status) {
                    Ok(Some(Answer::Status(status))) => {
                        there.push(of_process(status));
                        continue;
                    }
                    Ok(_) => continue,
                    Err(_) => {
                        self.silent.insert(name.clone(), Instant::now() + PATIENCE);
                    }
                }
            }
            there.extend(self.known.get(&name).map(|known| known.found.clone()));
        }
        there
    }

    /// Begins to follow what is new, and has it known what is gone.
    fn compare(&mut self, there: Vec<Found>) -> Result<(), SendError<M>> {
        self.known.retain(|name, known| {
            let stays = there
                .iter()
                .any(|found| found.about.name == *name && found.instance == known.found.instance);
            if !stays {
                known.ended.store(true, Ordering::Release);
            }
            stays
        });
        for found in there {
            if self.known.contains_key(&found.about.name) {
                continue;
            }
            let ended = Arc::<AtomicBool>::default();
            let known = Known {
                found: found.clone(),
                ended: Arc::clone(&ended),
            };
            self.known.insert(found.about.name.clone(), known);
            self.news
                .send(News::Began(found.about.clone(), found.peer.clone()).into())?;
            let news = self.news.clone();
            let streams = Arc::clone(&self.streams);
            let activity = self.wanted.activity;
            std::thread::spawn(move || follow(&found, &ended, activity, &news, &streams));
        }
        Ok(())
    }
}

/// A sandbox that is there.
#[derive(Clone)]
struct Found {
    about: About,
    peer: Peer,
    instance: String,
    /// Its audit log, if that is a file.
    log: Option<String>,
}

fn of_process(status: Status) -> Found {
    let Status {
        name,
        pid,
        started,
        program,
        policy,
        log,
        ..
    } = status;
    Found {
        peer: Peer::Process(name.clone()),
        instance: format!("{pid} {started}"),
        about: About {
            name,
            runs_in: format!("process {pid}"),
            program,
            policy,
        },
        log: Some(log),
    }
}

fn listed(wanted: &Wanted) -> Vec<Found> {
    let sandboxes = container::listed(None).unwrap_or_default();
    sandboxes
        .into_iter()
        .filter(|sandbox| wanted.is(&sandbox.name))
        .filter_map(of_container)
        .collect()
}

/// A sandbox of containers, if it has a gateway that runs.
fn of_container(sandbox: container::Sandbox) -> Option<Found> {
    let gateway = sandbox
        .container(Role::Gateway)
        .filter(|gateway| gateway.runs())?;
    let workload = sandbox
        .container(Role::Workload)
        .filter(|workload| workload.runs())?;
    Some(Found {
        about: About {
            name: sandbox.name.clone(),
            runs_in: sandbox.engine.kind.program().to_owned(),
            program: workload.image.clone(),
            policy: None,
        },
        instance: format!("{} {}", gateway.id, gateway.started),
        peer: Peer::Container(Arc::new(sandbox)),
        log: None,
    })
}

/// Says what a sandbox does, until it ends.
fn follow<M: From<News> + Send + 'static>(
    found: &Found,
    ended: &Arc<AtomicBool>,
    activity: bool,
    news: &SyncSender<M>,
    streams: &Mutex<Streams>,
) {
    let name = &found.about.name;
    let followed = match (&found.log, &found.peer) {
        (Some(log), _) => follow_file(name, log, &found.peer, ended, activity, news),
        (None, Peer::Container(sandbox)) => {
            if activity {
                let (sandbox, ended, news) = (sandbox.clone(), ended.clone(), news.clone());
                std::thread::spawn(move || look_into(&sandbox, &ended, &news));
            }
            follow_stream(sandbox, news, streams)
        }
        (None, Peer::Process(_)) => Ok(()),
    };
    ended.store(true, Ordering::Release);
    // If nobody listens any more, nobody is told.
    let (Ok(()) | Err(_)) = followed.and_then(|()| news.send(News::Ended(name.clone()).into()));
}

fn follow_file<M: From<News>>(
    name: &str,
    log: &str,
    peer: &Peer,
    ended: &AtomicBool,
    activity: bool,
    news: &SyncSender<M>,
) -> Result<(), SendError<M>> {
    let mut parts = None;
    let mut line = String::new();
    loop {
        // Before the last look, so that nothing is missed.
        let last_look = ended.load(Ordering::Acquire);
        // What cannot be opened or read now is tried again.
        if parts.is_none() {
            parts = Parts::open(log.as_ref()).ok();
        }
        while parts
            .as_mut()
            .is_some_and(|parts| parts.read_line(&mut line).is_ok_and(|read| read > 0))
        {
            if line.ends_with('\n') {
                line.pop();
                news.send(News::Line(name.to_owned(), std::mem::take(&mut line)).into())?;
            }
        }
        if last_look {
            return Ok(());
        }
        // After the log, so that what has closed is not counted twice.
        if activity && let Ok(Answer::Activity(now)) = peer.ask(&Request::Activity) {
            news.send(News::Activity(name.to_owned(), now).into())?;
        }
        std::thread::sleep(GLANCE);
    }
}

fn follow_stream<M: From<News>>(
    sandbox: &container::Sandbox,
    news: &SyncSender<M>,
    streams: &Mutex<Streams>,
) -> Result<(), SendError<M>> {
    let name = &sandbox.name;
    let Ok(Some(mut stream)) = container::audit(sandbox, true) else {
        return Ok(());
    };
    let output = stream.output();
    streams
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(name.clone(), stream);
    for line in output
        .map(BufReader::new)
        .into_iter()
        .flat_map(|output| output.lines())
    {
        // The engine's word for that it has no more.
        let Ok(line) = line else { break };
        news.send(News::Line(name.clone(), line).into())?;
    }
    streams
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(name);
    Ok(())
}

/// Says what goes on in a container sandbox.
fn look_into<M: From<News>>(
    sandbox: &container::Sandbox,
    ended: &AtomicBool,
    news: &SyncSender<M>,
) {
    // A gateway that was started by an older egret has no answer to that, and one that is removed has none to anything.
    for _ in 0..MOST_CONVERSATIONS {
        let Ok(mut conversation) = Conversation::begin(sandbox) else {
            return;
        };
        while let Ok(Answer::Activity(now)) = conversation.ask(&Request::Activity) {
            let told = news.send(News::Activity(sandbox.name.clone(), now).into());
            if told.is_err() || ended.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(GLANCE);
        }
        std::thread::sleep(LOOK);
    }
}

/// How often a conversation is begun anew.
const MOST_CONVERSATIONS: usize = 5;
/// How often new sandboxes are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How long a sandbox that has not answered is left alone.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a sandbox is looked at.
const GLANCE: Duration = Duration::from_millis(250);
