//! What the prober tells, what the sinks saw and what is on record, put together: a finding for each class.
//!
//! A leak is what a sink saw, or what the prober got through. A refusal that took long, or is not on record though it has to
//! be, is no leak, and is not what was promised either.

use super::Told;
use super::classes::{CLASSES, Class, NEEDS_A_SINK, Tried};
use super::plan::{Around, Attempt, Outcome, Plan, Recorded};
use super::sinks::{BLIND, CONTROL, QUESTION, REBOUND, Sighting};
use egret_gateway::audit::{Event, Record, Verdict};
use serde::Serialize;
use std::collections::{BTreeSet, HashSet};

/// What came out about a class.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) class: u8,
    pub(crate) title: &'static str,
    pub(crate) result: Verification,
    /// How many attempts were made.
    pub(crate) tried: usize,
    /// What was seen: of a leak, what got out; otherwise how attempts were refused, each way once.
    pub(crate) evidence: Vec<String>,
    /// The ids of audit records about them, at most [`MOST_IDS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) records: Vec<String>,
    /// The longest that a refusal took, in milliseconds.
    pub(crate) slowest_ms: u64,
}

/// How a class stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verification {
    /// Everything that was tried was refused, at once and on record.
    Held,
    /// Something got out.
    Leaked,
    /// Nothing got out, but a refusal is not on record or took longer than [`AT_ONCE`].
    Imperfect,
    /// It is not for a prober to try here.
    NotTried,
    /// It should have been tried and could not be.
    Skipped,
}

/// Ids that are shown.
pub(crate) const MOST_IDS: usize = 5;
/// Evidence that is shown for a class.
const MOST_EVIDENCE: usize = 8;
/// Why it cannot be said what is on record.
const FLOODED: &str = "so much is refused in the sandbox that its log leaves refusals out; stop what asks, or verify a new sandbox";
/// How long a refusal may take, in milliseconds: the machine may be busy.
const AT_ONCE: u64 = 2_000;

/// All that there is to judge by.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) told: Told,
    pub(crate) sightings: Vec<Sighting>,
    /// The audit log; none where nothing is sealed.
    pub(crate) log: Option<Vec<u8>>,
}

/// A finding for each class, in order.
pub(crate) fn judge(plan: &Plan, evidence: &Evidence) -> Vec<Finding> {
    let log = evidence.log.as_deref().map(Log::read);
    CLASSES
        .iter()
        .map(|class| finding(class, plan, evidence, log.as_ref()))
        .collect()
}

/// What is on record.
struct Log {
    ids: HashSet<String>,
    ports: HashSet<u16>,
    names: HashSet<String>,
    by_port: Vec<(u16, String)>,
    /// Ports of connections that were allowed.
    allowed: HashSet<u16>,
    /// Lines that are no record, or hold what would command a terminal.
    bad: Vec<String>,
    /// Whether refusals were left out, as they are when there are too many: then a missing one says nothing.
    left_out: bool,
}

impl Log {
    fn read(bytes: &[u8]) -> Self {
        let mut log = Self {
            ids: HashSet::new(),
            ports: HashSet::new(),
            names: HashSet::new(),
            by_port: Vec::new(),
            allowed: HashSet::new(),
            bad: Vec::new(),
            left_out: false,
        };
        for line in bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let text = String::from_utf8_lossy(line);
            let commands = |c: char| {
                c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            };
            let record: Record = match serde_json::from_str(&text) {
                Ok(record) if !text.contains(commands) => record,
                _ => {
                    log.bad.push(text.escape_debug().take(120).collect());
                    continue;
                }
            };
            log.left_out |= record.action.as_deref() == Some("refusal_flood");
            if record.verdict != Some(Verdict::Deny) {
                let decided = record.event == Event::Decision;
                log.allowed.extend(record.port.filter(|_| decided));
                continue;
            }
            if let Some(port) = record.port {
                log.ports.insert(port);
                log.by_port.push((port, record.id.clone()));
            }
            log.ids.insert(record.id);
            log.names.extend(
                record
                    .host
                    .map(|host| host.trim_end_matches('.').to_ascii_lowercase()),
            );
        }
        log
    }

    fn has(&self, recorded: &Recorded) -> bool {
        match recorded {
            Recorded::Id(id) => self.ids.contains(id),
            Recorded::Port(port) => self.ports.contains(port),
            Recorded::Name(name) => self.names.contains(&name.to_ascii_lowercase()),
        }
    }
}

fn finding(class: &Class, plan: &Plan, evidence: &Evidence, log: Option<&Log>) -> Finding {
    let attempts: Vec<&Attempt> = evidence
        .told
        .attempts
        .iter()
        .filter(|attempt| attempt.class == class.number)
        .collect();
    let made: Vec<&&Attempt> = attempts
        .iter()
        .filter(|attempt| {
            !matches!(
                attempt.outcome,
                Outcome::Impossible(_) | Outcome::NotMeant(_)
            )
        })
        .collect();
    let mut finding = Finding {
        class: class.number,
        title: class.title,
        result: Verification::Held,
        tried: made.len(),
        evidence: Vec::new(),
        records: Vec::new(),
        slowest_ms: made
            .iter()
            .map(|attempt| attempt.ms)
            .max()
            .unwrap_or_default(),
    };
    let seen = evidence
        .sightings
        .iter()
        .filter(|seen| seen.class == class.number);
    let mut leaks: Vec<String> = seen
        .map(|seen| format!("seen outside: {}", seen.what))
        .collect();
    leaks.extend(made.iter().filter_map(|attempt| match &attempt.outcome {
        Outcome::Through(what) => Some(format!("{}: {what}", attempt.what)),
        _ => None,
    }));
    if class.number == 32
        && let Some(log) = log
    {
        leaks.extend(log.bad.iter().map(|line| format!("in the log: {line}")));
    }
    if !leaks.is_empty() {
        finding.result = Verification::Leaked;
        finding.evidence = each_once(leaks);
        return finding;
    }
    if let Some((result, why)) = not_tried(class, plan, evidence, log, &attempts, made.is_empty()) {
        finding.result = result;
        finding.evidence = vec![why];
        return finding;
    }
    if let Some(log) = log {
        let missing: Vec<String> = made
            .iter()
            .filter(|attempt| {
                attempt
                    .record
                    .as_ref()
                    .is_some_and(|recorded| !log.has(recorded))
            })
            .map(|attempt| format!("not on record: {}", attempt.what))
            .collect();
        if !missing.is_empty() {
            (finding.result, finding.evidence) = match log.left_out {
                false => (Verification::Imperfect, each_once(missing)),
                true => (Verification::Skipped, vec![FLOODED.into()]),
            };
            return finding;
        }
        let known = made.iter().filter_map(|attempt| match &attempt.record {
            Some(Recorded::Id(id)) => Some(id.clone()),
            Some(Recorded::Port(port)) => {
                let of_port = log.by_port.iter().find(|(other, _)| other == port);
                of_port.map(|(_, id)| id.clone())
            }
            _ => None,
        });
        let known: BTreeSet<String> = known.collect();
        finding.records = known.into_iter().take(MOST_IDS).collect();
    }
    // Without a network there is nobody who could refuse.
    if finding.slowest_ms > AT_ONCE && evidence.told.around == Around::Sealed {
        finding.result = Verification::Imperfect;
        let slow = made.iter().filter(|attempt| attempt.ms > AT_ONCE);
        finding.evidence =
            each_once(slow.map(|attempt| format!("{} took {} ms", attempt.what, attempt.ms)));
        return finding;
    }
    finding.evidence = each_once(made.iter().map(|attempt| match &attempt.outcome {
        Outcome::Refused(how) => how.clone(),
        _ => "nothing arrived".into(),
    }));
    finding
}

/// Why a class was not tried, if it was not.
fn not_tried(
    class: &Class,
    plan: &Plan,
    evidence: &Evidence,
    log: Option<&Log>,
    attempts: &[&Attempt],
    none_made: bool,
) -> Option<(Verification, String)> {
    match class.tried {
        Tried::No(why) => return Some((Verification::NotTried, why.into())),
        Tried::BehindTheGateway if plan.granted.is_none() && none_made => {
            return Some((Verification::NotTried, NEEDS_A_SINK.into()));
        }
        Tried::BehindTheGateway | Tried::Anywhere => {}
    }
    if evidence.log.is_some() && class.tried == Tried::BehindTheGateway {
        let control = evidence
            .told
            .attempts
            .iter()
            .find(|attempt| attempt.class == CONTROL);
        let arrived = evidence.sightings.iter().any(|seen| seen.class == CONTROL);
        match control.map(|control| &control.outcome) {
            Some(Outcome::Through(_)) if arrived => {
                let granted = plan.granted.as_ref().map(|granted| granted.port);
                if granted.is_some_and(|port| log.is_some_and(|log| !log.allowed.contains(&port))) {
                    let why = "not on record: the connection that is allowed";
                    return Some((Verification::Imperfect, why.into()));
                }
            }
            Some(Outcome::NotMeant(why)) => return Some((Verification::NotTried, why.clone())),
            Some(Outcome::Refused(how) | Outcome::Impossible(how)) => {
                let why = format!(
                    "the server behind the gateway, which is allowed, was not reached: {how}"
                );
                return Some((Verification::Skipped, why));
            }
            _ => {
                return Some((
                    Verification::Skipped,
                    "the server behind the gateway saw nothing".into(),
                ));
            }
        }
    }
    if let Some(blind) = evidence.sightings.iter().find(|seen| seen.class == BLIND) {
        return Some((Verification::Skipped, blind.what.clone()));
    }
    if let (14, Some(granted), true) = (class.number, &plan.granted, evidence.log.is_some()) {
        let asked_about = |label: &str| {
            let name = format!("{label}.{}", granted.zone);
            let mut questions = evidence.sightings.iter();
            questions.any(|seen| seen.class == QUESTION && seen.what == name)
        };
        if let Some(label) = REBOUND.into_iter().find(|label| !asked_about(label)) {
            let why = format!(
                "the name server that the gateway is to ask was not asked about {label}.{}",
                granted.zone
            );
            return Some((Verification::Skipped, why));
        }
    }
    // The one attempt that could not be made may be the one that gets out.
    let impossible = attempts.iter().find_map(|attempt| match &attempt.outcome {
        Outcome::Impossible(why) => Some(why.clone()),
        _ => None,
    });
    if let Some(why) = impossible {
        return Some((Verification::Skipped, why));
    }
    if none_made {
        let not_meant = attempts.iter().find_map(|attempt| match &attempt.outcome {
            Outcome::NotMeant(why) => Some(why.clone()),
            _ => None,
        });
        return Some(match (not_meant, evidence.told.around) {
            (Some(why), _) => (Verification::NotTried, why),
            (None, Around::Sealed) => {
                let why = "there was nothing to try it with";
                (Verification::Skipped, why.into())
            }
            (None, Around::NoNetwork) => (Verification::NotTried, NO_GATEWAY.into()),
            (None, Around::Nothing) => (Verification::Skipped, NO_GATEWAY.into()),
        });
    }
    if !evidence.told.complete {
        return Some((
            Verification::Skipped,
            "the prober did not come to its end".into(),
        ));
    }
    None
}

/// Why what is asked of a gateway was not tried.
const NO_GATEWAY: &str = "there is no gateway to try it with";

fn each_once(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    let mut kept: Vec<String> = texts
        .into_iter()
        .filter(|text| known.insert(text.clone()))
        .collect();
    let more = kept.len().saturating_sub(MOST_EVIDENCE);
    if more > 0 {
        kept.truncate(MOST_EVIDENCE);
        kept.push(format!("and {more} more"));
    }
    kept
}
