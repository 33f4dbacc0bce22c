//! `egret observe`: of all sandboxes, those of images as well, what `--metrics` and `--otlp` tell of one.
//!
//! Everything is read from outside, from their audit logs and from what they say goes on in them, as `egret watch` does it.
//! A sandbox that has ended is told of no more.

use super::metrics::{Listener, Place};
use super::otlp::{self, Endpoint, OtlpSettings, Queue};
use super::totals::{Metric, Totals};
use crate::failure::Failure;
use crate::watch::{News, Source, Wanted};
use clap::Args;
use egret_gateway::Counts;
use egret_gateway::audit::Record;
use egret_policy::SandboxId;
use jiff::Timestamp;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Arguments of `egret observe`.
#[derive(Debug, Args)]
#[command(after_help = "\
All of your sandboxes that run, those of images as well, at one place: each value has
the sandbox's name as a label, and each span as a part of its resource. Without
options there are metrics at http://127.0.0.1:9464/metrics. Runs until it is ended.

Examples:
  egret observe
  egret observe --metrics unix:/run/user/1000/egret.sock agent
  egret observe --otlp http://127.0.0.1:4318")]
pub(crate) struct Observe {
    /// Only these sandboxes, now or when they start
    #[arg(value_name = "NAME")]
    names: Vec<SandboxId>,
    /// Where metrics are told.
    #[arg(
        long,
        value_name = "WHERE",
        help = "Tell metrics for Prometheus at unix:PATH, 127.0.0.1:PORT or [::1]:PORT"
    )]
    metrics: Option<Place>,
    /// Send spans and metrics to the OpenTelemetry collector at this URL, or at that of OTEL_EXPORTER_OTLP_ENDPOINT: of what
    /// happens from now on
    #[arg(long, value_name = "URL")]
    otlp: Option<Endpoint>,
}

/// `egret observe`
pub(crate) fn observe(arguments: Observe) -> Result<ExitCode, Failure> {
    let Observe {
        names,
        metrics,
        otlp,
    } = arguments;
    let since = Timestamp::now();
    let settings = OtlpSettings::find(otlp.as_ref(), |name| std::env::var(name).ok())?;
    let usual = || Place::Loopback(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    let place = metrics.or_else(|| settings.is_none().then(usual));
    let listener = place.as_ref().map(Listener::bind).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot observe sandboxes", &error))?;
    let (send, receive) = sync_channel(1024);
    let wanted = Wanted {
        names,
        activity: true,
    };
    let source = Source::start(wanted, send);
    let all = Arc::new(All {
        settings,
        since,
        runtime: runtime.handle().clone(),
        known: Mutex::default(),
    });
    std::thread::spawn({
        let all = all.clone();
        move || all.hear(&receive)
    });
    let ended = runtime.block_on(async {
        let told = all.clone();
        let serving = async {
            match listener {
                Some(listener) => listener.serve(move || told.metrics()).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            error = serving => Err(Failure::because("metrics cannot be told any more", &error)),
            ended = until_told_to_end() => match ended {
                Ok(signal) => Ok(ExitCode::from(128 + signal)),
                Err(error) => Err(Failure::because("cannot receive signals", &error)),
            },
        };
        all.finish().await;
        ended
    });
    // With it end the processes that read what an engine has.
    drop(source);
    ended
}

/// Where exporters for Prometheus that are OpenTelemetry's listen, too.
const PORT: u16 = 9464;

/// Waits for a signal that asks for an end, and tells its number.
async fn until_told_to_end() -> std::io::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signal = tokio::select! {
        _ = terminate.recv() => Signal::TERM,
        _ = hang_up.recv() => Signal::HUP,
        _ = interrupt.recv() => Signal::INT,
    };
    Ok(u8::try_from(signal.as_raw()).unwrap_or_default())
}

/// What is known of the sandboxes that run.
#[derive(Debug)]
struct All {
    settings: Option<OtlpSettings>,
    /// What was on record before has been sent, by whoever observed then.
    since: Timestamp,
    runtime: Handle,
    /// By their names.
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    totals: Arc<Totals>,
    now: Arc<Mutex<Counts>>,
    exporting: Option<Exporting>,
}

/// What sends to a collector of one sandbox.
#[derive(Debug)]
struct Exporting {
    queue: Queue,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl All {
    /// Takes in what sandboxes do, for as long as that is told.
    fn hear(&self, news: &Receiver<News>) {
        for news in news {
            let mut all = self.known();
            match news {
                News::Began(about, _) => {
                    let known = self.begin(&about.name);
                    if let Some(before) = all.insert(about.name, known) {
                        before.end();
                    }
                }
                News::Line(name, line) => {
                    // A line that is no record is nothing to count.
                    if let (Some(known), Ok(record)) =
                        (all.get(&name), serde_json::from_str::<Record>(&line))
                    {
                        known.see(&record, self.since);
                    }
                }
                News::Activity(name, activity) => {
                    if let Some(known) = all.get(&name) {
                        *locked(&known.now) = activity.counts;
                    }
                }
                News::Ended(name) => {
                    if let Some(known) = all.remove(&name) {
                        known.end();
                    }
                }
            }
        }
    }

    fn begin(&self, name: &str) -> Known {
        let totals = Arc::new(Totals::new(name));
        let now = Arc::<Mutex<Counts>>::default();
        let exporting = self.settings.clone().map(|settings| {
            let (queue, exporter) = otlp::exporter(settings);
            let (end, ended) = oneshot::channel();
            let (totals, now, name) = (totals.clone(), now.clone(), name.to_owned());
            let task = self.runtime.spawn(async move {
                let counts = || *locked(&now);
                exporter.run(&name, &totals, counts, ended).await;
            });
            Exporting { queue, end, task }
        });
        Known {
            totals,
            now,
            exporting,
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        let all = self.known();
        let each = all.iter().map(|(name, known)| {
            let dropped = known.exporting.as_ref();
            let dropped = dropped.map_or(0, |exporting| exporting.queue.dropped());
            let mut metrics = known.totals.metrics(&locked(&known.now), dropped);
            for metric in &mut metrics {
                metric.points.label("sandbox", name);
            }
            metrics
        });
        // All of them have the same ones.
        each.reduce(|mut all, more| {
            for (metric, more) in all.iter_mut().zip(more) {
                metric.points.add(more.points);
            }
            all
        })
        .unwrap_or_default()
    }

    /// Sends the last of it.
    async fn finish(&self) {
        let all = std::mem::take(&mut *self.known());
        let tasks: Vec<_> = all.into_values().filter_map(Known::end).collect();
        for task in tasks {
            // Each has its own bound.
            let (Ok(()) | Err(_)) = task.await;
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        locked(&self.known)
    }
}

impl Known {
    fn see(&self, record: &Record, since: Timestamp) {
        self.totals.see(record);
        if let Some(Exporting { queue, .. }) = &self.exporting
            && record
                .time
                .parse::<Timestamp>()
                .is_ok_and(|time| time >= since)
        {
            queue.see(record);
        }
    }

    /// Has the rest sent, by what is returned.
    fn end(self) -> Option<JoinHandle<()>> {
        let Exporting { end, task, .. } = self.exporting?;
        // If it is gone it needs no telling.
        let (Ok(()) | Err(())) = end.send(());
        Some(task)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
