//! The connections that are open, so that a new policy can be put to them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use atomic_waker::AtomicWaker;
use egret_policy::{
    Askable, Denial, Destination, HostAddresses, Matcher, Program, Reason, Spoken, Target,
};
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::activity::{Connection, Counts, MOST_TOLD, Moving, Traffic};
use crate::audit::Door;
use crate::limits::Limit;
use crate::refused::Refused;

/// All open connections of a gateway.
#[derive(Debug)]
pub(crate) struct Sessions {
    most: usize,
    /// Nothing may be open: what comes to be so is closed at once.
    closed: AtomicBool,
    taken: AtomicUsize,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Open>>>,
    /// What went over those that have ended.
    past: Mutex<Traffic>,
    /// Told when connections have been put to a new policy.
    again: Notify,
    /// Told when a connection has ended.
    ended: Notify,
    /// The most there were since half of them had ended.
    peak: AtomicUsize,
    /// Told when half of them have.
    fewer: Notify,
}

/// One connection that was allowed.
#[derive(Debug)]
pub(crate) struct Open {
    id: Box<str>,
    door: Door,
    since: SystemTime,
    destination: Destination,
    addresses: Vec<IpAddr>,
    /// What a person allowed it by who was asked, if the policy does not.
    allowed: Option<Box<Askable>>,
    /// Whose connection it is, if a policy wanted to know when it was made.
    program: ArcSwapOption<Program>,
    spoken: OnceLock<String>,
    /// Whether what the client sends is read request by request.
    reads_requests: AtomicBool,
    /// The method and target of the request that is under way, or after which it became something else, such as a WebSocket.
    asked: Mutex<Option<(String, String)>>,
    lost: OnceLock<Lost>,
    wake: AtomicWaker,
    /// What goes over it is counted here.
    pub(crate) moving: Moving,
}

/// Why an open connection is to be closed.
#[derive(Debug, Clone)]
pub(crate) enum Lost {
    /// The policy that applies now would not allow it.
    Denied(Denial),
    /// The gateway shuts down.
    Shutdown,
}

/// A place among the open connections; leaving it is dropping it.
#[derive(Debug)]
pub(crate) struct Session {
    sessions: Arc<Sessions>,
    number: u64,
    pub(crate) open: Arc<Open>,
}

/// The right to open one connection, taken before anything is spent on it.
#[derive(Debug)]
pub(crate) struct Slot {
    sessions: Arc<Sessions>,
}

impl Sessions {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            closed: AtomicBool::new(false),
            taken: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            open: Mutex::default(),
            past: Mutex::default(),
            again: Notify::new(),
            ended: Notify::new(),
            peak: AtomicUsize::new(0),
            fewer: Notify::new(),
        })
    }

    pub(crate) fn slot(self: &Arc<Self>, destination: &Destination) -> Result<Slot, Refused> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::limit(Limit::Connections, destination.to_string()));
        }
        Ok(Slot {
            sessions: self.clone(),
        })
    }

    /// Puts every open connection to `matcher` again, and tells those that lost their grant.
    pub(crate) fn decide_again(&self, matcher: &Matcher, hosts: &HostAddresses) {
        let open: Vec<_> = self.all().values().cloned().collect();
        for open in open {
            open.decide_again(matcher, hosts);
        }
        self.again.notify_waiters();
    }

    /// Tells all connections to end, and those too that come to be open until [`Self::open_again`].
    pub(crate) fn close_all(&self) {
        self.closed.store(true, Ordering::Release);
        let open: Vec<_> = self.all().values().cloned().collect();
        for open in open {
            open.lose(Lost::Shutdown);
        }
        self.again.notify_waiters();
    }

    pub(crate) fn open_again(&self) {
        self.closed.store(false, Ordering::Release);
    }

    /// Waits until the next time, from this call on, that connections are put to a policy, or closed.
    pub(crate) fn decided_again(&self) -> impl Future<Output = ()> {
        self.again.notified()
    }

    /// Waits until no connection is open that has been told to end.
    pub(crate) async fn drained(&self) {
        loop {
            let ended = self.ended.notified();
            if self.all().values().all(|open| open.lost().is_none()) {
                return;
            }
            ended.await;
        }
    }

    /// Waits until half of a great many connections have ended.
    pub(crate) async fn many_ended(&self) {
        self.fewer.notified().await;
        self.all().shrink_to_fit();
    }

    /// Adds what goes on here to `counts`, and the newest of the open connections to `connections`, each with the time
    /// since when it is.
    pub(crate) fn tell(
        &self,
        counts: &mut Counts,
        connections: &mut Vec<(SystemTime, Connection)>,
    ) {
        let all = self.all();
        let mut traffic = *self.past();
        all.values()
            .for_each(|open| traffic += open.moving.so_far());
        counts.open += all.len() as u64;
        counts.allowed += self.next.load(Ordering::Relaxed);
        counts.bytes_up += traffic.up;
        counts.bytes_down += traffic.down;
        let mut open: Vec<_> = all.iter().collect();
        open.sort_unstable_by_key(|(number, _)| Reverse(**number));
        open.truncate(MOST_TOLD);
        connections.extend(open.into_iter().map(|(_, open)| (open.since, open.told())));
    }

    fn one_more(&self, number: u64, open: Arc<Open>) {
        let mut all = self.all();
        all.insert(number, open);
        self.peak.fetch_max(all.len(), Ordering::Relaxed);
    }

    fn one_less(&self, all: &mut HashMap<u64, Arc<Open>>, number: u64) {
        all.remove(&number);
        let peak = self.peak.load(Ordering::Relaxed);
        if peak >= MANY && all.len() <= peak / 2 {
            self.peak.store(all.len(), Ordering::Relaxed);
            self.fewer.notify_one();
        }
    }

    fn past(&self) -> MutexGuard<'_, Traffic> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Turns the right into an entry among the open connections.
    pub(crate) fn enter(
        self,
        id: &str,
        door: Door,
        destination: Destination,
        addresses: Vec<IpAddr>,
        allowed: Option<Askable>,
    ) -> Session {
        let open = Arc::new(Open {
            id: id.into(),
            door,
            since: SystemTime::now(),
            destination,
            addresses,
            allowed: allowed.map(Box::new),
            program: ArcSwapOption::empty(),
            spoken: OnceLock::new(),
            reads_requests: AtomicBool::new(false),
            asked: Mutex::default(),
            lost: OnceLock::new(),
            wake: AtomicWaker::new(),
            moving: Moving::default(),
        });
        let sessions = self.sessions.clone();
        // The session holds a place of its own; this one's is given back when `self` goes.
        sessions.taken.fetch_add(1, Ordering::Relaxed);
        let number = sessions.next.fetch_add(1, Ordering::Relaxed);
        sessions.one_more(number, open.clone());
        if sessions.closed.load(Ordering::Acquire) {
            open.lose(Lost::Shutdown);
        }
        Session {
            sessions,
            number,
            open,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.sessions.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let traffic = self.open.moving.so_far();
        // In one go, so that whoever looks finds it among these or those.
        let mut all = self.sessions.all();
        *self.sessions.past() += traffic;
        self.sessions.one_less(&mut all, self.number);
        drop(all);
        self.sessions.taken.fetch_sub(1, Ordering::Relaxed);
        self.sessions.ended.notify_waiters();
    }
}

impl Open {
    /// Puts this connection to `matcher`; one that would not be allowed today is told so.
    pub(crate) fn decide_again(&self, matcher: &Matcher, hosts: &HostAddresses) {
        let decided = matcher
            .decide_with(
                &self.destination,
                self.program().as_deref(),
                hosts,
                self.allowed(),
            )
            .and_then(|mut permit| {
                permit.vet(&self.addresses, hosts)?;
                // First the flag, which is set after the request is.
                let reads_requests = self.reads_requests.load(Ordering::Acquire);
                let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                match &*asked {
                    Some((method, target)) => permit.request(method, target)?,
                    None if permit.inspects() && !reads_requests => {
                        let message = "the policy allows certain HTTP requests only now, and those on this connection cannot be read";
                        let destination = self.destination.to_string();
                        return Err(Denial::new(Reason::DeniedRequest, destination, message));
                    }
                    None => {}
                }
                drop(asked);
                match self.spoken.get() {
                    Some(name) => matcher.confirm(&permit, Spoken::Sni(Some(name))),
                    None => Ok(()),
                }
            });
        if let Err(denial) = decided {
            self.lose(Lost::Denied(denial));
        }
    }

    /// What a person allowed it by, if it was allowed so.
    pub(crate) fn allowed(&self) -> Option<&Askable> {
        self.allowed.as_deref()
    }

    /// Remembers the program whose connection this is from now on.
    pub(crate) fn asked_by(&self, program: Option<Arc<Program>>) {
        self.program.store(program);
    }

    /// The program whose connection this is, if it is known.
    pub(crate) fn program(&self) -> Option<Arc<Program>> {
        self.program.load_full()
    }

    /// Remembers the server name that the client put into its ClientHello.
    pub(crate) fn speaks(&self, server_name: &str) {
        let _ = self.spoken.set(server_name.to_owned());
    }

    /// Remembers that each request is read and decided on. A connection on which none can be is closed when a policy
    /// comes that allows certain requests only.
    pub(crate) fn reads_requests(&self) {
        self.reads_requests.store(true, Ordering::Release);
    }

    /// Remembers the request that is under way, before it is decided on: a new policy is asked about it, too, for it may
    /// take its time, and about one that made this a connection of another protocol.
    pub(crate) fn asks(&self, method: &str, target: &str) {
        let request = Some((method.to_owned(), target.to_owned()));
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = request;
    }

    /// No request is under way any more.
    pub(crate) fn is_answered(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn told(&self) -> Connection {
        let Traffic { up, down } = self.moving.so_far();
        Connection {
            id: self.id.to_string(),
            host: match self.destination.target() {
                Target::Name(name) => name.to_string(),
                Target::Address(address) => address.to_string(),
            },
            port: self.destination.port(),
            door: self.door,
            program: self.program().map(|program| program.executable.clone()),
            // A clock that is out of all bounds is shown as what it begins with.
            since: format!("{:.3}", Timestamp::try_from(self.since).unwrap_or_default()),
            bytes_up: up,
            bytes_down: down,
        }
    }

    /// What its destination resolved to.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Why it has to be closed, if it has to.
    pub(crate) fn lost(&self) -> Option<&Lost> {
        self.lost.get()
    }

    /// Waits until it has to be closed. For one place at a time.
    pub(crate) async fn until_lost(&self) -> Lost {
        poll_fn(|context| {
            if self.lost.get().is_none() {
                self.wake.register(context.waker());
            }
            // Once more, for what happened before whoever closes it could know of us.
            match self.lost.get() {
                Some(lost) => Poll::Ready(lost.clone()),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn lose(&self, why: Lost) {
        let _ = self.lost.set(why);
        // Whoever does not wait yet sees it when it begins to.
        self.wake.wake();
    }
}

/// Connections that are many: what a tunnel takes, so often, is worth giving back.
const MANY: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sessions: &Arc<Sessions>, count: usize) -> Vec<Session> {
        let destination = Destination::from_authority("www.example.com:443", None).unwrap();
        let slot = || sessions.slot(&destination).unwrap();
        let enter = |_| slot().enter("id", Door::Captured, destination.clone(), Vec::new(), None);
        (0..count).map(enter).collect()
    }

    #[tokio::test]
    async fn half_of_many_having_ended_is_told_and_of_few_is_not() {
        let sessions = Sessions::new(10_000);
        let told = async |sessions: &Sessions| {
            let soon = std::time::Duration::from_millis(20);
            let told = tokio::time::timeout(soon, sessions.many_ended()).await;
            told.is_ok()
        };
        drop(open(&sessions, MANY - 1));
        assert!(!told(&sessions).await);
        let mut many = open(&sessions, MANY * 4);
        many.truncate(MANY * 2 + 1);
        assert!(!told(&sessions).await);
        many.truncate(MANY * 2);
        assert!(told(&sessions).await);
        assert!(!told(&sessions).await);
        many.truncate(MANY);
        assert!(told(&sessions).await);
        drop(many);
        assert!(told(&sessions).await);
        assert!(!told(&sessions).await);
    }
}
