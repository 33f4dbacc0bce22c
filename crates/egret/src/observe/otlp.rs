//! `--otlp`: spans and metrics for a collector, as OTLP over HTTP in JSON.
//!
//! A connection is a span, from its decision to its end, and so is a refusal. The gateway never waits: what does not fit into
//! the queue, or does not reach the collector, is left out and counted. Nothing is sent but by this module, from the user's own
//! network, to where the user said.

mod send;
mod settings;
mod spans;
mod wire;

pub(super) use settings::{Endpoint, OtlpSettings};

use super::totals::Totals;
use egret_gateway::Counts;
use egret_gateway::audit::Record;
use send::{Outcome, post};
use spans::Spans;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use wire::Resource;

/// The end of the queue that records go into.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    records: Sender<Record>,
    dropped: Arc<AtomicU64>,
}

/// What sends.
#[derive(Debug)]
pub(super) struct Exporter {
    settings: OtlpSettings,
    records: Receiver<Record>,
    dropped: Arc<AtomicU64>,
}

/// A queue, and what empties it.
pub(super) fn exporter(settings: OtlpSettings) -> (Queue, Exporter) {
    let (sender, records) = channel(QUEUED);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = Queue {
        records: sender,
        dropped: dropped.clone(),
    };
    let exporter = Exporter {
        settings,
        records,
        dropped,
    };
    (queue, exporter)
}

impl Queue {
    /// Takes a record if there is room, and does not wait.
    pub(super) fn see(&self, record: &Record) {
        if spans::is_wanted(record) && self.records.try_send(record.clone()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many records were left out.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Exporter {
    /// Sends until it is told that this is the end, and then what is left, for a while.
    pub(super) async fn run(
        mut self,
        sandbox: &str,
        totals: &Totals,
        counts: impl Fn() -> Counts + Send + Sync,
        mut end: oneshot::Receiver<()>,
    ) {
        let resource = Resource::new(&self.settings, sandbox);
        let mut spans = Spans::default();
        let mut tick = interval(BREATH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_metrics = Instant::now() + self.settings.interval;
        let mut failures = 0_u32;
        let mut not_before = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = &mut end => break,
                _ = tick.tick() => {}
                Some(record) = self.records.recv() => {
                    self.count(spans.see(&record));
                    if !spans.are_many() {
                        continue;
                    }
                }
            }
            if Instant::now() < not_before {
                continue;
            }
            let sending = async {
                let mut outcome = Outcome::Taken;
                while outcome == Outcome::Taken && !spans.is_empty() {
                    outcome = self.send_spans(&resource, &mut spans).await;
                }
                if Instant::now() >= next_metrics {
                    next_metrics = Instant::now() + self.settings.interval;
                    outcome = outcome.and(self.send_metrics(&resource, totals, counts()).await);
                }
                outcome
            };
            // At the end nobody waits for an answer that is late already.
            let outcome = tokio::select! {
                biased;
                _ = &mut end => break,
                outcome = sending => outcome,
            };
            // Who does not answer is asked less and less often.
            failures = match outcome {
                Outcome::Again => (failures + 1).min(6),
                Outcome::Taken | Outcome::Refused => 0,
            };
            if outcome == Outcome::Again {
                not_before = Instant::now() + BREATH * (1 << failures);
            }
        }
        let until = Instant::now() + LAST;
        while let Ok(record) = self.records.try_recv() {
            self.count(spans.see(&record));
        }
        spans.end_all();
        while !spans.is_empty() {
            let sent = timeout_at(until, self.send_spans(&resource, &mut spans)).await;
            if !matches!(sent, Ok(Outcome::Taken | Outcome::Refused)) {
                self.count(spans.len());
                break;
            }
        }
        let (Ok(_) | Err(_)) =
            timeout_at(until, self.send_metrics(&resource, totals, counts())).await;
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            say!(
                "egret: {dropped} records did not reach the collector at {}; the audit log has them",
                self.settings.endpoint
            );
        }
    }

    fn count(&self, dropped: u64) {
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    async fn send_spans(&self, resource: &Resource, spans: &mut Spans) -> Outcome {
        let batch = spans.batch();
        if batch.is_empty() {
            return Outcome::Taken;
        }
        let outcome = self.send("/v1/traces", resource.traces(batch)).await;
        match outcome {
            Outcome::Again => {}
            Outcome::Taken => spans.forget_batch(),
            Outcome::Refused => {
                self.count(batch.len() as u64);
                spans.forget_batch();
            }
        }
        outcome
    }

    async fn send_metrics(&self, resource: &Resource, totals: &Totals, now: Counts) -> Outcome {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let metrics = totals.metrics(&now, dropped);
        self.send("/v1/metrics", resource.metrics(&metrics, totals.started()))
            .await
    }

    async fn send(&self, path: &str, body: serde_json::Result<Vec<u8>>) -> Outcome {
        let Ok(body) = body else {
            return Outcome::Refused;
        };
        timeout(PATIENCE, post(&self.settings, path, body))
            .await
            .unwrap_or(Outcome::Again)
    }
}

/// Records that wait to be looked at.
const QUEUED: usize = 4096;
/// How often spans are sent.
const BREATH: Duration = Duration::from_secs(1);
/// How long a collector has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last of it may take: somebody waits for egret to end.
const LAST: Duration = Duration::from_secs(3);
