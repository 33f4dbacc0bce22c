//! OTLP's messages, as JSON: the parts of them that Egret has something to say in.
//!
//! Numbers of 64 bits are texts there, and so are ids, in hexadecimal.

use super::super::totals::{BOUNDS, Durations, Metric, Points};
use super::OtlpSettings;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

/// Who says it.
#[derive(Debug)]
pub(super) struct Resource(Vec<Attribute>);

#[derive(Clone, Debug, Serialize)]
pub(super) struct Attribute {
    key: String,
    value: Value,
}

impl Attribute {
    pub(super) fn text(key: &str, value: String) -> Self {
        Self {
            key: key.to_owned(),
            value: json!({ "stringValue": value }),
        }
    }

    pub(super) fn number(key: &str, value: u64) -> Self {
        Self {
            key: key.to_owned(),
            value: json!({ "intValue": value.to_string() }),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Span {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    pub(super) name: &'static str,
    pub(super) kind: u32,
    pub(super) start_time_unix_nano: String,
    pub(super) end_time_unix_nano: String,
    pub(super) attributes: Vec<Attribute>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) events: Vec<SpanEvent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Status>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpanEvent {
    pub(super) time_unix_nano: String,
    pub(super) name: &'static str,
    pub(super) attributes: Vec<Attribute>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Status {
    pub(super) message: String,
    pub(super) code: u32,
}

impl Resource {
    pub(super) fn new(settings: &OtlpSettings, sandbox: &str) -> Self {
        let own = [
            ("service.name", "egret"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("egret.sandbox", sandbox),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut attributes: Vec<Attribute> = Vec::new();
        for (name, value) in settings.resource.iter().cloned().chain(own) {
            if attributes.iter().all(|known| known.key != name) {
                attributes.push(Attribute::text(&name, value));
            }
        }
        Self(attributes)
    }

    pub(super) fn traces(&self, spans: &[Span]) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&json!({ "resourceSpans": [{
            "resource": { "attributes": self.0 },
            "scopeSpans": [{ "scope": scope(), "spans": spans }],
        }] }))
    }

    pub(super) fn metrics(&self, metrics: &[Metric], started: f64) -> serde_json::Result<Vec<u8>> {
        let now = Timestamp::now().as_nanosecond().to_string();
        // Whole microseconds are as exact as this is.
        let started = format!("{}000", (started * 1e6) as u64);
        let times = json!({ "startTimeUnixNano": started, "timeUnixNano": now });
        let metrics: Vec<_> = metrics
            .iter()
            .map(|metric| in_json(metric, &times))
            .collect();
        serde_json::to_vec(&json!({ "resourceMetrics": [{
            "resource": { "attributes": self.0 },
            "scopeMetrics": [{ "scope": scope(), "metrics": metrics }],
        }] }))
    }
}

fn scope() -> Value {
    json!({ "name": "egret", "version": env!("CARGO_PKG_VERSION") })
}

fn in_json(metric: &Metric, times: &Value) -> Value {
    let with_times = |mut point: Value| {
        if let (Some(point), Some(times)) = (point.as_object_mut(), times.as_object()) {
            point.extend(times.clone());
        }
        point
    };
    let attributes = |labels: &[(&'static str, String)]| -> Vec<Attribute> {
        let labels = labels.iter();
        labels
            .map(|(name, value)| Attribute::text(name, value.clone()))
            .collect()
    };
    // Cumulative.
    let since_start = 2;
    let (kind, data) = match &metric.points {
        Points::Counter(points) => {
            let point = |(labels, value): &(_, u64)| {
                let labels: &Vec<_> = labels;
                with_times(json!({ "attributes": attributes(labels), "asInt": value.to_string() }))
            };
            let points: Vec<_> = points.iter().map(point).collect();
            (
                "sum",
                json!({ "dataPoints": points, "aggregationTemporality": since_start, "isMonotonic": true }),
            )
        }
        Points::Gauge(points) => {
            let point = |(labels, value): &(_, f64)| {
                let labels: &Vec<_> = labels;
                with_times(json!({ "attributes": attributes(labels), "asDouble": value }))
            };
            let points: Vec<_> = points.iter().map(point).collect();
            ("gauge", json!({ "dataPoints": points }))
        }
        Points::Histogram(points) => {
            let point = |(labels, durations): &(_, Durations)| {
                let labels: &Vec<_> = labels;
                let buckets: Vec<_> = durations.buckets.iter().map(u64::to_string).collect();
                with_times(json!({
                    "attributes": attributes(labels), "count": durations.count.to_string(), "sum": durations.sum,
                    "bucketCounts": buckets, "explicitBounds": BOUNDS,
                }))
            };
            let points: Vec<_> = points.iter().map(point).collect();
            (
                "histogram",
                json!({ "dataPoints": points, "aggregationTemporality": since_start }),
            )
        }
    };
    json!({ "name": metric.dotted, "description": metric.help, "unit": metric.unit, kind: data })
}

/// A record's time, in nanoseconds since 1970; that of now for one that cannot be read.
pub(super) fn nanoseconds(time: &str) -> String {
    let time: Timestamp = time.parse().unwrap_or_else(|_| Timestamp::now());
    time.as_nanosecond().to_string()
}
