//! `egret metrics`: what is counted of all sandboxes, those of images as well, at one place.
//!
//! Everything is read from outside, from their audit logs and from what they say goes on in them, as `egret watch` does it.
//! A sandbox that has ended is told of no more.

use super::metrics::{Listener, Place};
use super::totals::{Metric, Totals};
use crate::failure::Failure;
use crate::watch::{News, Source, Wanted};
use clap::Args;
use egret_gateway::Counts;
use egret_gateway::audit::Record;
use egret_policy::SandboxId;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `egret metrics`.
#[derive(Debug, Args)]
#[command(after_help = "\
All of your sandboxes that run, those of images as well, at one place for Prometheus:
each value has the sandbox's name as a label. Runs until it is ended.

Examples:
  egret metrics                                # http://127.0.0.1:9464/metrics
  egret metrics --at unix:/run/user/1000/egret.sock agent")]
pub(crate) struct Metrics {
    /// Only these sandboxes, now or when they start
    #[arg(value_name = "NAME")]
    names: Vec<SandboxId>,
    /// Where they are told: unix:PATH, 127.0.0.1:PORT or [::1]:PORT
    #[arg(long, value_name = "WHERE", default_value = "127.0.0.1:9464")]
    at: Place,
}

/// `egret metrics`
pub(crate) fn metrics(arguments: Metrics) -> Result<ExitCode, Failure> {
    let listener = Listener::bind(&arguments.at)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::because("cannot tell metrics", &error))?;
    let (send, receive) = sync_channel(1024);
    let wanted = Wanted {
        names: arguments.names,
        activity: true,
    };
    let source = Source::start(wanted, send);
    let all = Arc::new(All::default());
    std::thread::spawn({
        let all = all.clone();
        move || all.hear(&receive)
    });
    let ended = runtime.block_on(async {
        tokio::select! {
            error = listener.serve(move || all.metrics()) => {
                Err(Failure::because("metrics cannot be told any more", &error))
            }
            ended = until_told_to_end() => match ended {
                Ok(signal) => Ok(ExitCode::from(128 + signal)),
                Err(error) => Err(Failure::because("cannot receive signals", &error)),
            },
        }
    });
    // With it end the processes that read what an engine has.
    drop(source);
    ended
}

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

/// What is known of the sandboxes that run, by their names.
#[derive(Debug, Default)]
struct All(Mutex<BTreeMap<String, Known>>);

#[derive(Debug)]
struct Known {
    totals: Totals,
    now: Counts,
}

impl All {
    /// Takes in what sandboxes do, for as long as that is told.
    fn hear(&self, news: &Receiver<News>) {
        for news in news {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match news {
                News::Began(about, _) => {
                    let known = Known {
                        totals: Totals::new(&about.name),
                        now: Counts::default(),
                    };
                    all.insert(about.name, known);
                }
                News::Line(name, line) => {
                    // A line that is no record is nothing to count.
                    if let (Some(known), Ok(record)) =
                        (all.get(&name), serde_json::from_str::<Record>(&line))
                    {
                        known.totals.see(&record);
                    }
                }
                News::Activity(name, activity) => {
                    if let Some(known) = all.get_mut(&name) {
                        known.now = activity.counts;
                    }
                }
                News::Ended(name) => {
                    all.remove(&name);
                }
            }
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let each = all.iter().map(|(name, known)| {
            let mut metrics = known.totals.metrics(&known.now, 0);
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
}
