//! What is counted of a sandbox's records, and the metrics that this makes: one table for all forms in which they leave.
//!
//! No label has a value that a sandbox chooses: there are no hosts, paths or programs here.

use egret_gateway::Counts;
use egret_gateway::audit::{Event, Record, Verdict};
use jiff::Timestamp;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What is counted.
#[derive(Debug)]
pub(super) struct Totals {
    sandbox: String,
    counted: Mutex<Counted>,
}

type Word = Cow<'static, str>;

#[derive(Debug, Default)]
struct Counted {
    /// Seconds since 1970.
    started: f64,
    decisions: BTreeMap<[Word; 3], u64>,
    failures: BTreeMap<[Word; 1], u64>,
    lookups: u64,
    policies: BTreeMap<[Word; 1], u64>,
    questions: BTreeMap<[Word; 1], u64>,
    limits: BTreeMap<[Word; 1], u64>,
    findings: BTreeMap<[Word; 1], u64>,
    unrecorded: u64,
    lost: u64,
    durations: Durations,
}

/// How long connections lasted.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations {
    /// One for each of [`BOUNDS`], and one for what is beyond.
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    pub(super) count: u64,
    /// Seconds.
    pub(super) sum: f64,
}

/// The upper bounds of the buckets of durations, in seconds.
pub(super) const BOUNDS: [f64; 9] = [0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

/// One metric, as it is now.
#[derive(Debug)]
pub(super) struct Metric {
    /// By Prometheus' rules; what they add to names of counters is not in it.
    pub(super) name: &'static str,
    /// By OpenTelemetry's.
    pub(super) dotted: &'static str,
    pub(super) unit: &'static str,
    pub(super) help: &'static str,
    pub(super) points: Points,
}

/// The values of a metric, by their labels.
#[derive(Debug)]
pub(super) enum Points {
    /// They only ever grow.
    Counter(Vec<(Labels, u64)>),
    Gauge(Vec<(Labels, f64)>),
    Histogram(Vec<(Labels, Durations)>),
}

pub(super) type Labels = Vec<(&'static str, String)>;

impl Totals {
    pub(super) fn new(sandbox: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            sandbox: sandbox.to_owned(),
            counted: Mutex::new(Counted {
                started: now.unwrap_or_default().as_secs_f64(),
                ..Counted::default()
            }),
        }
    }

    /// When the sandbox was started, in seconds since 1970.
    pub(super) fn started(&self) -> f64 {
        self.counted().started
    }

    /// Counts a record.
    pub(super) fn see(&self, record: &Record) {
        let counted = &mut *self.counted();
        let door = || Word::Borrowed(record.door.map_or("none", |door| door.word()));
        let word = |word: &Option<Word>| word.clone().unwrap_or(Word::Borrowed("none"));
        if let Some(limit) = &record.limit {
            *counted.limits.entry([limit.clone()]).or_default() += 1;
        }
        match (record.event, record.verdict) {
            (Event::Dns, Some(Verdict::Allow)) => counted.lookups += 1,
            (Event::Decision | Event::Dns, Some(verdict)) => {
                let key = [verdict.word().into(), word(&record.reason), door()];
                *counted.decisions.entry(key).or_default() += 1;
                if verdict == Verdict::Allow && record.dialled.is_none() {
                    *counted.failures.entry([door()]).or_default() += 1;
                }
            }
            (Event::Close, _) => {
                let seconds = record.duration_ms.unwrap_or_default() as f64 / 1000.0;
                counted.durations.observe(seconds);
            }
            (Event::Policy, _) => {
                *counted.policies.entry([word(&record.action)]).or_default() += 1;
            }
            (Event::Question, _) => {
                *counted.questions.entry([word(&record.action)]).or_default() += 1;
            }
            (Event::Finding, _) => {
                let count = record.count.unwrap_or_default();
                match record.action.as_deref() {
                    Some("records_lost") => counted.lost += count,
                    Some("refusal_flood") => counted.unrecorded += count,
                    _ => {}
                }
                *counted.findings.entry([word(&record.action)]).or_default() += 1;
            }
            // For whoever came later, and reads the log from its beginning.
            (Event::Lifecycle, _) if record.action.as_deref() == Some("started") => {
                if let Ok(time) = record.time.parse::<Timestamp>() {
                    counted.started = time.as_microsecond() as f64 / 1e6;
                }
            }
            _ => {}
        }
    }

    /// The metrics as they are now.
    pub(super) fn metrics(&self, now: &Counts, dropped: u64) -> Vec<Metric> {
        let counted = self.counted();
        let one = |value| Points::Counter(vec![(Vec::new(), value)]);
        let direction = |way: &str| vec![("direction", way.to_owned())];
        let traffic = vec![
            (direction("up"), now.bytes_up),
            (direction("down"), now.bytes_down),
        ];
        let build = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        let sandbox = vec![("sandbox", self.sandbox.clone())];
        #[rustfmt::skip]
        let table = [
            ("egret_decisions", "egret.decisions", "{decision}", "Decisions about connections, requests, packets and DNS questions that are on record",
                counters(["verdict", "reason", "door"], &counted.decisions)),
            ("egret_connections_open", "egret.connections.open", "{connection}", "Connections that are open",
                Points::Gauge(vec![(Vec::new(), now.open as f64)])),
            ("egret_connections", "egret.connections", "{connection}", "Connections that were allowed and came about",
                one(now.allowed)),
            ("egret_connection_failures", "egret.connection.failures", "{connection}", "Connections that were allowed and did not come about",
                counters(["door"], &counted.failures)),
            ("egret_connection_duration_seconds", "egret.connection.duration", "s", "How long connections and requests lasted that have ended",
                Points::Histogram(vec![(Vec::new(), counted.durations.clone())])),
            ("egret_bytes", "egret.network.io", "By", "Bytes carried: up to servers, and down from them",
                Points::Counter(traffic)),
            ("egret_lookups", "egret.lookups", "{lookup}", "Names that were looked up outside",
                one(counted.lookups)),
            ("egret_policy_changes", "egret.policy.changes", "{change}", "Policies that were loaded, replaced or rejected",
                counters(["action"], &counted.policies)),
            ("egret_questions", "egret.questions", "{question}", "Questions about what was refused: that were asked, and what became of them",
                counters(["action"], &counted.questions)),
            ("egret_limits_reached", "egret.limits.reached", "{event}", "Records that say that a bound was reached",
                counters(["limit"], &counted.limits)),
            ("egret_findings", "egret.findings", "{finding}", "Findings that are on record",
                counters(["action"], &counted.findings)),
            ("egret_refusals_unrecorded", "egret.refusals.unrecorded", "{refusal}", "Refusals in a flood, which were counted and not recorded one by one",
                one(counted.unrecorded)),
            ("egret_records_lost", "egret.records.lost", "{record}", "Records that the audit log could not take; what they were about was refused or had ended",
                one(counted.lost)),
            ("egret_otlp_dropped", "egret.otlp.dropped", "{record}", "Records that were left out of what is sent to a collector",
                one(dropped)),
            ("egret_start_time_seconds", "egret.start_time", "s", "When the sandbox was started, in seconds since 1970",
                Points::Gauge(vec![(Vec::new(), counted.started)])),
            ("egret_build_info", "egret.build", "1", "The version of egret",
                Points::Gauge(vec![(build, 1.0)])),
            ("egret_sandbox_info", "egret.sandbox", "1", "The name of the sandbox",
                Points::Gauge(vec![(sandbox, 1.0)])),
        ];
        let metric = |(name, dotted, unit, help, points)| Metric {
            name,
            dotted,
            unit,
            help,
            points,
        };
        table.into_iter().map(metric).collect()
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Points {
    /// Has all values labelled, but for those that are already.
    pub(super) fn label(&mut self, name: &'static str, value: &str) {
        let label = |labels: &mut Labels| {
            if labels.iter().all(|(other, _)| *other != name) {
                labels.push((name, value.to_owned()));
            }
        };
        match self {
            Self::Counter(points) => points.iter_mut().for_each(|(labels, _)| label(labels)),
            Self::Gauge(points) => points.iter_mut().for_each(|(labels, _)| label(labels)),
            Self::Histogram(points) => points.iter_mut().for_each(|(labels, _)| label(labels)),
        }
    }

    /// Adds the values of another metric of the same kind, which have other labels.
    pub(super) fn add(&mut self, more: Self) {
        match (self, more) {
            (Self::Counter(points), Self::Counter(more)) => points.extend(more),
            (Self::Gauge(points), Self::Gauge(more)) => points.extend(more),
            (Self::Histogram(points), Self::Histogram(more)) => points.extend(more),
            _ => {}
        }
    }
}

fn counters<const N: usize>(
    names: [&'static str; N],
    counted: &BTreeMap<[Word; N], u64>,
) -> Points {
    let labels = |words: &[Word; N]| {
        let words = words.iter().map(|word| word.clone().into_owned());
        names.into_iter().zip(words).collect()
    };
    let points = counted.iter().map(|(words, value)| (labels(words), *value));
    Points::Counter(points.collect())
}

impl Durations {
    fn observe(&mut self, seconds: f64) {
        self.count += 1;
        self.sum += seconds;
        let bounds = BOUNDS.iter().map(|&bound| seconds <= bound).chain([true]);
        let fits = self.buckets.iter_mut().zip(bounds).find(|(_, fits)| *fits);
        if let Some((bucket, _)) = fits {
            *bucket += 1;
        }
    }
}
