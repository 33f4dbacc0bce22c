//! From a caught connection to its record.
//!
//! A sandbox has no network; its connections and DNS questions end at sockets ([`Doors`]) that are handed
//! to a [`Gateway`]. For each connection the gateway decides, resolves, vets, dials, looks at what is
//! spoken, relays, and records; `flow::carry` is that on one page. The doors differ in how they read a request
//! and how they say no, never in what is allowed. One leads the other way, to ports that are [`Published`].
//!
//! Promises: only `dial` opens outbound sockets, and it takes a [`Permit`](egret_policy::Permit), which only
//! the policy can make; no byte of a connection goes out before its decision is in the audit log; everything
//! that a sandbox can make grow has a bound. There is no unsafe code here and no process is started.
//!
//! Not here: what is allowed (`egret-policy`), the sandbox itself (`egret-sandbox`), and reading the
//! environment or arguments (`egret`).
#![forbid(unsafe_code)]

mod activity;
mod asking;
pub mod audit;
mod dial;
mod door;
mod flow;
#[cfg(fuzzing)]
#[expect(clippy::expect_used, reason = "what cannot be set up ends the fuzzer")]
pub mod fuzz;
mod grant;
mod identify;
mod inbound;
mod inside;
mod inspect;
mod limits;
mod names;
mod refused;
mod relay;
mod resolve;
mod serving;
mod sessions;
mod summary;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests are the clients")]
mod tests;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use egret_policy::guard::stands;
use egret_policy::{Denial, Destination, Host, HostAddresses, Matcher, Reason, SandboxId, Target};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

pub use activity::{Activity, Connection, Counts, Question, Reply};
pub use dial::{UpstreamProxy, UpstreamProxyError};
pub use door::{Callers, Protocol, Published};
pub use identify::Identify;
pub use inbound::InboundHosts;
pub use inside::Inside;
pub use limits::Limits;
pub use resolve::{ResolverConfig, ResolverError, Servers};
pub use summary::{Failure, Refusal};

use activity::MOST_TOLD;
use asking::Asking;
use audit::{Basis, Door, Event, Record};
use dial::Dialler;
use identify::Identifier;
use inside::Entrance;
use limits::{Bucket, Limit};
use names::{Meaning, Names};
use refused::Refused;
use relay::Pool;
use resolve::Resolver;
use serving::Serving;
use sessions::Sessions;
use summary::Summary;

/// What a gateway is made of.
#[derive(Debug)]
pub struct Config {
    /// The sandbox whose connections come in; its name is in every record.
    pub sandbox: SandboxId,
    /// What is allowed.
    pub matcher: Arc<Matcher>,
    /// What counts as the host.
    pub hosts: HostAddresses,
    /// Which program made a connection. Without it nobody is known, and entries that are about programs allow nothing.
    pub identify: Option<Identify>,
    /// How names are looked up.
    pub resolver: ResolverConfig,
    /// Where the addresses of the host-gateway names come from.
    pub host_gateway: HostGateway,
    /// Who connects to published ports inside the sandbox. Without it none of them leads anywhere.
    pub inside: Option<Inside>,
    /// By which names published ports may be addressed, and whose pages may use them, where HTTP is spoken.
    pub inbound: InboundHosts,
    /// A proxy that every connection has to go through, but for those to the host.
    pub upstream_proxy: Option<UpstreamProxy>,
    /// Whether a person is asked about destinations that are refused and that they may allow, and how long connections wait
    /// for their answer: see [`Gateway::reply`].
    pub ask: Option<Duration>,
    /// The bounds.
    pub limits: Limits,
    /// Where everything is recorded.
    pub audit: audit::Log,
}

/// Where the addresses of the host-gateway names (`host.docker.internal` and its kin) come from. Whatever they are, each has
/// to be the host's by [`Config::hosts`].
#[derive(Debug, Clone)]
pub enum HostGateway {
    /// They are [`HostAddresses::gateway`].
    Known,
    /// They are what this name stands for when a connection is made, whichever of the names the sandbox used: that of an
    /// alias in the hosts file, or one that the container engine's resolver knows. Looked up anew for each connection.
    Resolved(Host),
}

/// The sockets at which a sandbox's connections end. They become non-blocking.
///
/// There is one of each for every address family that the sandbox has.
#[derive(Debug, Default)]
pub struct Doors {
    /// Where redirected TCP connections arrive; `SO_ORIGINAL_DST` tells where they were going.
    pub captured: Vec<std::net::TcpListener>,
    /// Where `CONNECT`, forward HTTP and SOCKS5 are spoken.
    pub proxy: Vec<std::net::TcpListener>,
    /// DNS over TCP.
    pub dns_tcp: Vec<std::net::TcpListener>,
    /// DNS over UDP.
    pub dns_udp: Vec<std::net::UdpSocket>,
    /// Ports outside that lead into the sandbox.
    pub published: Vec<Published>,
}

/// A gateway cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// Names cannot be looked up.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
}

/// Carries a sandbox's connections.
pub struct Gateway {
    sandbox: SandboxId,
    matcher: ArcSwap<Matcher>,
    hosts: ArcSwap<HostAddresses>,
    identifier: Identifier,
    dialler: Dialler,
    entrance: Entrance,
    inbound: InboundHosts,
    limits: Limits,
    log: audit::Log,
    names: Names,
    pool: Pool,
    sessions: Arc<Sessions>,
    /// Those that came in by a published port. A policy has nothing to say about them.
    published: Arc<Sessions>,
    asking: Option<Asking>,
    summary: Summary,
    handshakes: AtomicUsize,
    recording: Mutex<Recording>,
    asked: Mutex<Asked>,
    closing: watch::Sender<bool>,
}

/// How many refusals may still be recorded one by one.
struct Recording {
    bucket: Bucket,
    /// Refusals since the last finding that were counted only.
    skipped: u64,
}

/// What the sandbox has asked its resolver.
struct Asked {
    bucket: Bucket,
    /// Names whose refusal is on record, each with its reason.
    refused: HashSet<(String, Reason)>,
}

impl Gateway {
    /// Sets a gateway up. It does nothing until [`serve`](Self::serve) runs.
    ///
    /// # Errors
    /// The resolver's configuration cannot be read or used.
    pub fn new(config: Config) -> Result<Arc<Self>, StartError> {
        let Config {
            sandbox,
            matcher,
            hosts,
            identify,
            resolver,
            host_gateway,
            inside,
            inbound,
            upstream_proxy,
            ask,
            limits,
            audit,
        } = config;
        let resolver = Resolver::new(&resolver, limits.resolve_time)?;
        Ok(Arc::new(Self {
            sandbox,
            matcher: ArcSwap::new(matcher),
            hosts: ArcSwap::from_pointee(hosts),
            identifier: Identifier::new(identify),
            dialler: Dialler::new(resolver, host_gateway, upstream_proxy, limits.connect_time),
            entrance: Entrance::new(inside, limits.connect_time),
            inbound,
            log: audit,
            names: Names::new(limits.names),
            pool: Pool::default(),
            sessions: Sessions::new(limits.connections),
            published: Sessions::new(limits.published),
            asking: ask.map(Asking::new),
            summary: Summary::default(),
            handshakes: AtomicUsize::new(0),
            recording: Mutex::new(Recording {
                bucket: Bucket::new(limits.refusals_per_second, limits.refusal_burst),
                skipped: 0,
            }),
            asked: Mutex::new(Asked {
                bucket: Bucket::new(limits.dns_per_second, limits.dns_per_second),
                refused: HashSet::new(),
            }),
            closing: watch::Sender::new(false),
            limits,
        }))
    }

    /// Takes connections from `doors` until [`shutdown`](Self::shutdown) or until it is dropped. Runs in a tokio runtime with
    /// IO and time, best a `current_thread` one of its own.
    ///
    /// Dropping it closes the doors there and then, so that nobody can connect any more. Connections that are open are
    /// reset and put on record as soon as the runtime gets to it. After that it can be called again with other doors: what
    /// names were given, and what was counted, stays. There is one set of doors at a time.
    ///
    /// # Errors
    /// A socket cannot be used with the runtime. Then none of them is.
    pub async fn serve(self: Arc<Self>, doors: Doors) -> io::Result<()> {
        Serving::new(self, doors)?.until_shut().await;
        Ok(())
    }

    /// Replaces the policy for everything from now on. Connections that are open are put to the new one;
    /// those that it would not allow are reset, and their `close` records say why. Those that are being made are decided on
    /// anew. Which program made a connection is not looked up again: of those that were opened when no policy asked for it,
    /// it is not known.
    ///
    /// `source` is recorded, where the policy came from, and `basis`, what it is.
    pub fn set_policy(&self, matcher: Arc<Matcher>, source: &str, basis: Basis) {
        self.matcher.store(matcher.clone());
        self.tell_policy("replaced", source, basis);
        let hosts = self.hosts.load();
        if let Some(asking) = &self.asking {
            asking.decide_again(self, &matcher, &hosts);
        }
        self.sessions.decide_again(&matcher, &hosts);
    }

    /// Puts on record what is decided by from the start on, before anything is served. See [`set_policy`](Self::set_policy).
    pub fn record_policy(&self, source: &str, basis: Basis) {
        self.tell_policy("loaded", source, basis);
    }

    /// A log that cannot be written stops new connections by itself; a new policy applies all the same.
    fn tell_policy(&self, action: &'static str, source: &str, basis: Basis) {
        let mut record = self
            .record(Event::Policy, &self.log.id())
            .action(action)
            .message(source.to_owned());
        record.policy = Some(Box::new(basis.with_hosts(&self.hosts.load())));
        self.log.write_first(&record);
    }

    /// Replaces what counts as the host, for connections made from now on.
    pub fn set_hosts(&self, hosts: HostAddresses) {
        self.hosts.store(Arc::new(hosts));
    }

    /// Puts on record that the sandbox sent a packet of a protocol that is not carried, which its kernel refused:
    /// `protocol` (`udp`, `icmp`, …), to `address` and, where the protocol has ports, `port`. Once for each.
    pub fn refused_packet(&self, protocol: &str, address: IpAddr, port: Option<u16>) {
        let target = match self.names.meaning(address) {
            Some(Meaning::Name(name)) => name.to_string(),
            Some(Meaning::Nothing) | None => address.to_string(),
        };
        let text = match port {
            Some(port) if target.contains(':') => format!("[{target}]:{port}"),
            Some(port) => format!("{target}:{port}"),
            None => target.clone(),
        };
        let message =
            format!("{protocol} is not carried; a sandbox has TCP, and DNS for allowed names");
        let denial = Denial::new(Reason::DeniedProtocol, text.as_str(), message);
        self.summary.count(format!("{text} ({protocol})"), &denial);
        if !self.first_asked(&format!("{protocol} {text}"), Reason::DeniedProtocol)
            || !self.may_record()
        {
            return;
        }
        let mut record = self
            .record(Event::Decision, &self.log.id())
            .door(Door::Packet)
            .denial(&denial);
        record.host = Some(target);
        record.port = port.filter(|&port| port != 0);
        self.log.note(&record);
    }

    /// What was refused so far, grouped by destination and reason, the most frequent first.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.summary.refusals()
    }

    /// What was allowed so far and could not be reached, the most frequent first.
    pub fn failures(&self) -> Vec<Failure> {
        self.summary.failures()
    }

    /// What goes on right now.
    pub fn activity(&self) -> Activity {
        let mut counts = Counts {
            refused: self.summary.refused(),
            failed: self.summary.failed(),
            ..Counts::default()
        };
        let mut open = Vec::new();
        for sessions in [&self.sessions, &self.published] {
            sessions.tell(&mut counts, &mut open);
        }
        open.sort_by_key(|(since, _)| Reverse(*since));
        open.truncate(MOST_TOLD);
        Activity {
            connections: open.into_iter().map(|(_, connection)| connection).collect(),
            counts,
            questions: match &self.asking {
                Some(asking) => asking.questions(self),
                None => Vec::new(),
            },
        }
    }

    /// Answers one of the [questions](Activity::questions), by its id. Whether it was still open.
    ///
    /// A yes for more than the connections that wait is a new policy: [`Self::set_policy`].
    pub fn reply(&self, question: &str, reply: Reply) -> bool {
        let asking = self.asking.as_ref();
        asking.is_some_and(|asking| asking.reply(self, question, reply))
    }

    /// Waits until half of a great many connections have ended: a good moment to give memory back to the system, which an
    /// allocator need not do by itself.
    pub async fn many_ended(&self) {
        tokio::select! {
            () = self.sessions.many_ended() => {}
            () = self.published.many_ended() => {}
        }
    }

    /// Closes the doors and all connections, and waits until each of them is on record.
    pub async fn shutdown(&self) {
        self.closing.send_replace(true);
        self.close_all();
        self.drained().await;
        let skipped = std::mem::take(
            &mut self
                .recording
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .skipped,
        );
        self.record_flood(skipped);
    }

    fn open_again(&self) {
        self.sessions.open_again();
        self.published.open_again();
        if let Some(asking) = &self.asking {
            asking.open_again();
        }
    }

    fn close_all(&self) {
        if let Some(asking) = &self.asking {
            asking.close_all(self);
        }
        self.sessions.close_all();
        self.published.close_all();
    }

    /// What a client means that asks for `wanted`: the name, where it asks for the address that our resolver gave for one.
    fn meant(&self, wanted: Destination) -> Result<Destination, Refused> {
        let Target::Address(address) = *wanted.target() else {
            return Ok(wanted);
        };
        match self.names.meaning(address) {
            None => Ok(wanted),
            Some(Meaning::Name(name)) => Destination::new(Target::Name(name), wanted.port())
                .map_err(|malformed| Denial::from(malformed).into()),
            Some(Meaning::Nothing) => {
                let message = "the address is one that stands for a name, and no name was given it";
                Err(Denial::new(Reason::DeniedLiteralAddress, wanted.to_string(), message).into())
            }
        }
    }

    /// Waits until the doors are to be shut.
    async fn until_closing(&self) {
        // The sender is our own field: it cannot be gone.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Waits until no connection is open any more that is to be closed.
    async fn drained(&self) {
        let all = async { tokio::join!(self.sessions.drained(), self.published.drained()) };
        // Whatever still hangs on after this has a log that cannot be written.
        let _ = timeout(self.limits.audit_wait + Duration::from_secs(1), all).await;
    }

    /// Puts on record what is about to pass on its way to `destination`: what cannot be recorded does not.
    fn before_it_passes(
        &self,
        record: Record,
        destination: &Destination,
    ) -> impl Future<Output = Result<(), Refused>> + Send {
        let written = stands("records").then(|| self.log.write(record, self.limits.audit_wait));
        async move {
            let Some(written) = written else {
                return Ok(());
            };
            let unwritten = |_| Refused::limit(Limit::AuditLog, destination.to_string());
            written.await.map_err(unwritten)
        }
    }

    /// Counts a refusal and puts it on record.
    async fn refused(
        &self,
        id: &str,
        door: Door,
        destination: Option<&Destination>,
        refused: &Refused,
    ) {
        self.refused_with(id, door, destination, refused, |record| record)
            .await;
    }

    /// The same, with `add` putting more into the record.
    async fn refused_with(
        &self,
        id: &str,
        door: Door,
        destination: Option<&Destination>,
        refused: &Refused,
        add: impl FnOnce(Record) -> Record,
    ) {
        let destination = refused.about(destination);
        if let Refused::Unreachable {
            destination, cause, ..
        } = refused
        {
            let text = counted_as(destination.to_string(), door);
            self.summary.count_failure(text, cause);
        }
        if let Some(denial) = refused.denial() {
            let text = destination.map_or_else(|| denial.destination(), ToString::to_string);
            self.summary.count(counted_as(text, door), denial);
            if !self.may_record() {
                return;
            }
        }
        let mut record = self.record(Event::Decision, id).door(door).refused(refused);
        let named = refused
            .denial()
            .map(Denial::destination)
            .unwrap_or_default();
        record = match destination
            .cloned()
            .or_else(|| Destination::from_authority(&named, None).ok())
        {
            Some(destination) => record.destination(&destination),
            None => {
                record.host = Some(named).filter(|text| !text.is_empty());
                record
            }
        };
        // Nothing passes in any case; the log itself counts what it could not take.
        let _ = self.log.write(add(record), self.limits.audit_wait).await;
    }

    /// Whether one more refusal may be recorded by itself; a flood becomes findings instead.
    fn may_record(&self) -> bool {
        if !stands("records-of-refusals") {
            return false;
        }
        let skipped = {
            let recording = &mut *self
                .recording
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if !recording.bucket.take() {
                recording.skipped += 1;
                return false;
            }
            std::mem::take(&mut recording.skipped)
        };
        self.record_flood(skipped);
        true
    }

    /// Puts refusals on record that were counted only.
    fn record_flood(&self, skipped: u64) {
        if skipped == 0 {
            return;
        }
        let mut finding = self
            .record(Event::Finding, &self.log.id())
            .action("refusal_flood")
            .message(
                "refusals came faster than they are recorded one by one; these were counted only",
            );
        finding.reason = Some(Reason::DeniedLimit.code().into());
        finding.limit = Some("refusal_records".into());
        finding.count = Some(skipped);
        self.log.note(&finding);
    }

    /// Whether the sandbox may ask one more DNS question now.
    fn dns_bucket(&self) -> bool {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bucket
            .take()
    }

    /// Whether this is the first time that `name` is refused for `reason`. Forgets everything once it
    /// remembers too much; names are then recorded once more.
    fn first_asked(&self, name: &str, reason: Reason) -> bool {
        let refused = &mut self
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .refused;
        if refused.len() >= NAMES_REMEMBERED {
            refused.clear();
        }
        refused.insert((name.to_owned(), reason))
    }

    fn record(&self, event: Event, id: &str) -> Record {
        Record::new(event, id.to_owned(), self.sandbox.as_str())
    }

    /// A place among those whose request has not been read yet.
    fn handshake(self: &Arc<Self>) -> Option<Handshake> {
        if self.handshakes.fetch_add(1, Ordering::Relaxed) >= self.limits.handshakes {
            self.handshakes.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Handshake(self.clone()))
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("sandbox", &self.sandbox)
            .finish_non_exhaustive()
    }
}

/// Held while a client's request is being read.
struct Handshake(Arc<Gateway>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a refusal and puts it on record. Does not wait for the log: the connections behind it are waiting.
fn note_refusal(
    gateway: &Gateway,
    door: Door,
    refused: &Refused,
    add: impl FnOnce(Record) -> Record,
) {
    if let Some(denial) = refused.denial() {
        let text = counted_as(denial.destination(), door);
        gateway.summary.count(text, denial);
    }
    if gateway.may_record() {
        let record = gateway.record(Event::Decision, &gateway.log.id());
        gateway.log.note(&add(record.door(door).refused(refused)));
    }
}

/// What a destination is counted as among those that were refused.
fn counted_as(destination: String, door: Door) -> String {
    match door {
        Door::Published => format!("{destination} (published port)"),
        _ => destination,
    }
}

/// Refused names that are remembered so as to be recorded once.
const NAMES_REMEMBERED: usize = 8_192;
