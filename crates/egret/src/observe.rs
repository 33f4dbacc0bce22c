//! What a sandbox tells while it runs, beside its audit log: options, and who listens to the records.

mod all;
mod metrics;
mod otlp;
mod totals;

use crate::failure::Failure;
pub(crate) use all::{Observe, observe};
use clap::Args;
use egret_gateway::Gateway;
use egret_gateway::audit::{self, Rotation};
use metrics::Listener;
use otlp::{Endpoint, Exporter, OtlpSettings, Queue};
use std::convert::Infallible;
use std::num::NonZeroU64;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use totals::Totals;

/// How a command's sandbox is observed.
#[derive(Debug, Args)]
pub(crate) struct ObserveOptions {
    /// Continue the audit log in a new file when it has this size, such as 64MiB, and give the old one a number
    #[arg(long, value_name = "SIZE")]
    pub(crate) log_max_size: Option<Size>,
    /// Keep so many of the numbered files, and remove older ones; without this, all are kept
    #[arg(long, value_name = "NUMBER", requires = "log_max_size")]
    pub(crate) log_keep: Option<usize>,
    /// Where metrics are told.
    #[arg(
        long,
        value_name = "WHERE",
        help = "Tell metrics for Prometheus at unix:PATH, 127.0.0.1:PORT or [::1]:PORT; port 0 takes a free one and says which"
    )]
    pub(crate) metrics: Option<metrics::Place>,
    /// Send spans and metrics to the OpenTelemetry collector at this URL, http://127.0.0.1:4318 for one; without this, to that of
    /// OTEL_EXPORTER_OTLP_ENDPOINT, if it is set
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<Endpoint>,
}

impl ObserveOptions {
    /// The first option that was given.
    pub(crate) fn first_given(&self) -> Option<&'static str> {
        let given = [
            (self.log_max_size.is_some(), "--log-max-size"),
            (self.log_keep.is_some(), "--log-keep"),
            (self.metrics.is_some(), "--metrics"),
            (self.otlp.is_some(), "--otlp"),
        ];
        given
            .into_iter()
            .find_map(|(given, option)| given.then_some(option))
    }

    /// When the audit log is continued in a new file, if it is.
    pub(crate) fn rotation(&self) -> Option<Rotation> {
        let Size(at) = self.log_max_size?;
        Some(Rotation {
            at: at.get(),
            keep: self.log_keep,
        })
    }
}

/// Who will listen to a sandbox's records. Its sockets are there already.
#[derive(Debug)]
pub(crate) struct Prepared {
    listener: Option<Listener>,
    exporter: Option<(Queue, Exporter)>,
}

impl Prepared {
    /// What the options and the environment want; nothing if they want nothing.
    pub(crate) fn new(options: &ObserveOptions) -> Result<Option<Self>, Failure> {
        let variable = |name: &str| std::env::var(name).ok();
        let settings = OtlpSettings::find(options.otlp.as_ref(), variable)?;
        let listener = options.metrics.as_ref().map(Listener::bind).transpose()?;
        if settings.is_none() && listener.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            listener,
            exporter: settings.map(otlp::exporter),
        }))
    }

    /// The path of the socket that it listens at, if it has one.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.listener.as_ref()?.path()
    }

    /// Begins to listen. The rest is done in a thread of its own, so that nothing of it keeps the gateway waiting.
    pub(crate) fn start(
        self,
        sandbox: &str,
        log: &audit::Log,
        gateway: Arc<Gateway>,
    ) -> std::io::Result<Observing> {
        let Self { listener, exporter } = self;
        let totals = Arc::new(Totals::new(sandbox));
        let (queue, exporter) = exporter.unzip();
        log.observe(Box::new({
            let (totals, queue) = (totals.clone(), queue.clone());
            move |record| {
                totals.see(record);
                if let Some(queue) = &queue {
                    queue.see(record);
                }
            }
        }));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (end, ended) = oneshot::channel();
        let sandbox = sandbox.to_owned();
        let work = async move {
            let told = {
                let (totals, gateway) = (totals.clone(), gateway.clone());
                move || {
                    let dropped = queue.as_ref().map_or(0, Queue::dropped);
                    totals.metrics(&gateway.activity().counts, dropped)
                }
            };
            let serving = async {
                match listener {
                    Some(listener) => {
                        let error = listener.serve(told).await;
                        say!("egret: metrics are not told any more: {error}");
                        std::future::pending::<Infallible>().await
                    }
                    None => std::future::pending().await,
                }
            };
            let exporting = async {
                match exporter {
                    Some(exporter) => {
                        let counts = || gateway.activity().counts;
                        exporter.run(&sandbox, &totals, counts, ended).await;
                    }
                    None => {
                        let (Ok(()) | Err(_)) = ended.await;
                    }
                }
            };
            tokio::select! {
                never = serving => match never {},
                () = exporting => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("observe".into())
            .spawn(move || runtime.block_on(work))?;
        Ok(Observing { end, thread })
    }
}

/// Listeners at work.
#[derive(Debug)]
pub(crate) struct Observing {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Observing {
    /// Tells the last of it, and ends.
    pub(crate) fn finish(self) {
        // If the thread is gone it needs no telling.
        let (Ok(()) | Err(())) = self.end.send(());
        let (Ok(()) | Err(_)) = self.thread.join();
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(NonZeroU64);

impl FromStr for Size {
    type Err = &'static str;

    /// Reads a number, and behind it `K`, `M` or `G`, which stand for powers of 1024 and may be followed by `B` or `iB`.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let advice = "write a size, such as 500K, 64MiB or 2G";
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.to_ascii_lowercase();
        let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            _ => return Err(advice),
        };
        let number: u64 = number.parse().map_err(|_| advice)?;
        let size = number.checked_mul(1 << shift).and_then(NonZeroU64::new);
        size.map(Self).ok_or(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_as_people_say_them() {
        #[rustfmt::skip]
        let table = [
            ("1", Some(1)), ("4096B", Some(4096)), ("500K", Some(500 << 10)), ("64MiB", Some(64 << 20)), ("64mb", Some(64 << 20)),
            ("2G", Some(2 << 30)), ("0", None), ("", None), ("M", None), ("-1", None), ("1.5M", None), ("1T", None),
            ("99999999999999999999", None), ("18446744073709551615K", None), ("1 M", None),
        ];
        for (text, size) in table {
            let expected = size.and_then(NonZeroU64::new).map(Size);
            assert_eq!(text.parse::<Size>().ok(), expected, "{text}");
        }
    }
}
