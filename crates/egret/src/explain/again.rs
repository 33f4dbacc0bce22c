//! A decision that was taken, taken once more: with the policy and the addresses that there were then.

use super::{Found, decides, program_of};
use crate::source;
use egret_gateway::audit::{Basis, Door, Record, Verdict};
use egret_policy::{Destination, Explanation, HostAddresses, Program, Question};
use std::net::IpAddr;

/// What comes out when a decision is taken once more.
#[derive(Debug)]
pub(crate) struct Told {
    /// What was asked for, as a person would write it.
    pub(crate) asked: String,
    /// The steps, or why there are none.
    pub(crate) explanation: Result<Explanation, String>,
    /// Why what is on record is something else, if it is.
    pub(crate) difference: Option<String>,
}

/// Takes the decision of a request once more.
pub(crate) fn retell(found: &Found) -> Told {
    let record = &found.decisive;
    let asked = asked(record);
    let without = |why: &str| Told {
        asked: asked.clone(),
        explanation: Err(why.to_owned()),
        difference: None,
    };
    if !decides(record) {
        return without("This is no decision, so there is nothing to explain.");
    }
    match record.door {
        Some(Door::Published) => {
            return without(
                "It came in by a published port, about which a policy has nothing to say; the record has the reason.",
            );
        }
        Some(Door::Packet) => {
            return without(
                "No policy decides about it: a sandbox has TCP, and DNS for names that are allowed.",
            );
        }
        _ => {}
    }
    let program = program_of(record);
    let request = record.method.as_deref().zip(record.path.as_deref());
    let question = Asked {
        destination: &asked,
        by: program.as_ref(),
        request,
        resolves_to: Some(record.addresses.as_slice()).filter(|addresses| !addresses.is_empty()),
    };
    match decide(found.policy.as_deref(), &question) {
        Ok(explanation) => Told {
            difference: difference(record, &explanation),
            asked,
            explanation: Ok(explanation),
        },
        Err(why) => without(&why),
    }
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) destination: &'a str,
    pub(super) by: Option<&'a Program>,
    pub(super) request: Option<(&'a str, &'a str)>,
    pub(super) resolves_to: Option<&'a [IpAddr]>,
}

/// Decides by a policy that is on record.
pub(super) fn decide(policy: Option<&Record>, asked: &Asked<'_>) -> Result<Explanation, String> {
    let basis = policy.and_then(|record| record.policy.as_ref()).ok_or(
        "The log does not say by which policy it was decided: a part of it is missing, or an older egret wrote it.",
    )?;
    let policy = policy_of(basis)?;
    let hosts = basis.hosts();
    Ok(explain(&policy, asked, &hosts))
}

fn explain(policy: &egret_policy::Policy, asked: &Asked<'_>, hosts: &HostAddresses) -> Explanation {
    match Destination::from_user(asked.destination) {
        Ok(to) => policy.compile().explain(&Question {
            to: &to,
            by: asked.by,
            request: asked.request,
            resolves_to: asked.resolves_to,
            hosts,
        }),
        Err(malformed) => Explanation::of_malformed(&malformed),
    }
}

fn policy_of(basis: &Basis) -> Result<egret_policy::Policy, String> {
    if let Some(length) = basis.left_out {
        let file = basis.file.as_deref().unwrap_or_default();
        return Err(format!(
            "The policy was too long for the log ({length} bytes): `egret policy explain {file} DEST` goes by what is in its file now."
        ));
    }
    source::again(basis)
        .map_err(|failure| format!("The policy on record cannot be used: {failure}"))
}

/// The destination of a record. A DNS question has no port: any will do that could be allowed.
pub(super) fn asked(record: &Record) -> String {
    let host = record.host.as_deref().unwrap_or_default();
    match record.port {
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Why what is on record is not what comes out now, if it is not.
fn difference(record: &Record, explanation: &Explanation) -> Option<String> {
    let recorded = record.reason.as_deref().unwrap_or_default();
    if recorded == explanation.reason.code() {
        let failed = record.verdict == Some(Verdict::Allow) && record.dialled.is_none();
        return failed.then(|| {
            "The policy allowed it; it failed on the way there, of which the record tells."
                .to_owned()
        });
    }
    let limit = record.limit.as_deref().unwrap_or_default();
    let why = match recorded {
        "denied.limit" => format!("a bound was reached ({limit}), which is no matter of the policy"),
        "denied.name_mismatch" | "denied.protocol" | "denied.malformed" => {
            "what was spoken on the connection was not what may be spoken there; the record has the details".to_owned()
        }
        "denied.resolution" => "the name could not be resolved then".to_owned(),
        _ if record.verdict == Some(Verdict::Allow) && explanation.verdict == egret_policy::Verdict::Deny => {
            "somebody who was asked about it (--ask) may have let it pass once, or it was decided while the policy was being replaced".to_owned()
        }
        _ if record.port.is_none() => {
            "it was a DNS question, which names no port and is answered if any port could be allowed".to_owned()
        }
        _ => "something was known then that is not on record, such as a change of this machine's addresses or of links to programs, \
              or the policy was being replaced at that moment"
            .to_owned(),
    };
    Some(format!("On record is {recorded}: {why}."))
}
