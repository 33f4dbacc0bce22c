//! Who asks: which program made a connection, where the policy wants to know.
//!
//! Finding out takes a look through the sandbox's processes. [`Identify`] does that for the gateway; here it is seen to
//! that nobody is asked about unless the policy's entries are about programs, or all are to be on record, and that the
//! gateway's one thread never waits for the answer. Somebody of whom nothing can be told is `None`, and what that means is the policy's to say.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use egret_policy::{Matcher, Program};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::audit::Door;
use crate::door::original_destination;

/// Tells which program made a connection: asked with the address of the client's socket and the one that this is connected
/// to, as the client sees it. It may take its time, and is called on threads of its own.
///
/// `None` is for what cannot be told for certain.
#[derive(Clone)]
pub struct Identify {
    find: Arc<Find>,
    everybody: bool,
}

type Find = dyn Fn(SocketAddr, SocketAddr) -> Option<Program> + Send + Sync;

impl Identify {
    /// Asks `find`, where the policy has entries about programs.
    pub fn new(
        find: impl Fn(SocketAddr, SocketAddr) -> Option<Program> + Send + Sync + 'static,
    ) -> Self {
        Self {
            find: Arc::new(find),
            everybody: false,
        }
    }

    /// Asks about every connection, whatever the policy, so that its program is on record.
    pub fn everybody(self) -> Self {
        Self {
            everybody: true,
            ..self
        }
    }
}

impl fmt::Debug for Identify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identify").finish_non_exhaustive()
    }
}

/// Finds out who asks, a few at a time.
#[derive(Debug)]
pub(crate) struct Identifier {
    identify: Option<Identify>,
    turns: Semaphore,
}

impl Identifier {
    /// Without `identify` nothing can be told of anybody.
    pub(crate) fn new(identify: Option<Identify>) -> Self {
        Self {
            identify,
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Whether it is to be found out who asks, where `matcher` decides.
    fn wants_to_know(&self, matcher: &Matcher) -> bool {
        let everybody = |identify: &Identify| identify.everybody;
        matcher.asks_for_programs() || self.identify.as_ref().is_some_and(everybody)
    }

    async fn program(&self, client: &TcpStream, door: Door) -> Option<Program> {
        let find = self.identify.as_ref()?.find.clone();
        let own = client.peer_addr().ok()?;
        let peer = match door {
            Door::Captured => original_destination(client)?,
            _ => client.local_addr().ok()?,
        };
        let _turn = self.turns.acquire().await.ok()?;
        let found = tokio::task::spawn_blocking(move || find(own, peer));
        found.await.ok()?
    }
}

/// Somebody who asks for a connection, and the program that this is, once somebody has wanted to know.
#[derive(Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) client: &'a TcpStream,
    pub(crate) door: Door,
    program: Option<Arc<Program>>,
}

impl<'a> Asker<'a> {
    /// Whoever is at the other end of `client`, which came in by `door`.
    pub(crate) fn new(client: &'a TcpStream, door: Door) -> Self {
        Self {
            client,
            door,
            program: None,
        }
    }

    /// Finds out which program this is, if `matcher` asks for programs or all are to be on record.
    pub(crate) async fn identify(&mut self, by: &Identifier, matcher: &Matcher) {
        if by.wants_to_know(matcher) {
            self.program = by.program(self.client, self.door).await.map(Arc::new);
        }
    }

    /// The program, as far as anybody asked and could tell.
    pub(crate) fn program(&self) -> Option<&Program> {
        self.program.as_deref()
    }

    /// The same, to be kept.
    pub(crate) fn shared_program(&self) -> Option<Arc<Program>> {
        self.program.clone()
    }

    pub(crate) fn into_program(self) -> Option<Arc<Program>> {
        self.program
    }
}

/// Answers that are looked for at the same time: enough for the processors, and few enough that a burst of connections
/// does not become one of threads.
const AT_ONCE: usize = 4;
