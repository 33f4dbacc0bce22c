//! What one policy allows and another does not.
//!
//! Two policies are compared by what they decide, not by their text. Everything that could be decided differently is
//! decided by both, once for each kind: a name for each set of patterns that match it, a port, a program, a request and
//! an address for each that entries tell apart. So a difference always comes with a destination that shows it, and a
//! change of the text that changes no decision is none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use crate::addr::{DOCKER_BRIDGE, HostAddresses};
use crate::filesystem::Share;
use crate::names::HOST_GATEWAY;
use crate::policy::Policy;
use crate::reason::Reason;
use crate::rule::RuleId;
use crate::text::entry::Side;
use compare::{Changes, Judges};
use witness::Witnesses;
use work::Work;

mod addresses;
mod askers;
mod compare;
mod inbound;
mod sequences;
#[cfg(test)]
mod tests;
mod witness;
mod words;
mod work;

/// How two policies differ. Its serialised form is part of Egret's public interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What the new policy allows and the old one does not.
    pub gained: Vec<Change>,
    /// What the old policy allows and the new one does not.
    pub lost: Vec<Change>,
    /// Paths that stand in one policy's `filesystem:` only.
    pub filesystem: Vec<FileChange>,
    /// Hosts by which a published port may be addressed, or no longer.
    pub inbound: Vec<InboundChange>,
    /// Whether one of them asks for a privileged program, and the other does not: `added` or `removed`.
    pub privileged: Option<&'static str>,
    /// Whether everything was compared that could differ. It is not where entries tell so much apart that comparing all of
    /// it would take too long.
    pub complete: bool,
}

/// Destinations that are decided differently, in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// A destination that shows it, as `host:port`.
    pub destination: String,
    /// What it stands for: a pattern, a network, or a description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<String>,
    /// The ports on which it holds, as far as entries name them.
    pub ports: Vec<u16>,
    /// Whether it holds on every port that no entry names, too.
    pub other_ports: bool,
    /// The executable for which it holds, or [`Change::UNKNOWN_PROGRAM`]; none where it makes no difference who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Whether that stands for every executable that no entry names.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub other_programs: bool,
    /// The programs that it has to descend from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub under: Vec<String>,
    /// Requests for which it holds, and `anything but HTTP`; none where it holds for everything that is sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<String>,
    /// The addresses that the name would have to resolve to, where it is not any public one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolves_to: Vec<IpAddr>,
    /// What the old policy decides.
    pub old: Decided,
    /// What the new policy decides.
    pub new: Decided,
}

/// A decision in short.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Decided {
    /// Why.
    pub reason: Reason,
    /// The entry that decided, if one did.
    pub rule: Option<RuleId>,
}

/// A path that one policy's `filesystem:` has and the other's has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// `added` or `removed`.
    pub change: &'static str,
    /// The list: `read`, `write` or `hide`.
    pub list: &'static str,
    /// The path, as it was written, with the path inside behind a colon where that is another one.
    pub path: String,
}

/// A host of one policy's `inbound:` that nothing of the other's means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InboundChange {
    /// `added` or `removed`.
    pub change: &'static str,
    /// The name, pattern or address, in its canonical form.
    pub host: String,
}

impl Difference {
    /// Whether the two policies decide alike.
    pub fn is_none(&self) -> bool {
        self.gained.is_empty()
            && self.lost.is_empty()
            && self.filesystem.is_empty()
            && self.inbound.is_empty()
            && self.privileged.is_none()
    }
}

impl Change {
    /// What stands in place of an executable where nobody can tell who asks.
    pub const UNKNOWN_PROGRAM: &str = "a program that cannot be told";

    fn shows_the_same_as(&self, other: &Self) -> bool {
        self.stands_for.is_some()
            && *self
                == Self {
                    destination: self.destination.clone(),
                    ..other.clone()
                }
    }
}

impl Policy {
    /// Says how `new` differs from this policy, by what the two decide.
    pub fn diff(&self, new: &Policy) -> Difference {
        let work = Work::new(MOST_WORK);
        let hosts = HostAddresses::new([]).with_gateway(vec![DOCKER_BRIDGE]);
        let mut witnesses = Witnesses::new(self, new, &hosts, &work);
        let judges = Judges {
            old: self.compile(),
            new: new.compile(),
            hosts: &hosts,
        };
        let mut changes = Changes::new(&judges, &work);
        for witness in witnesses.all() {
            if !work.is_left() {
                break;
            }
            let kind = witnesses.kind(&witness);
            changes.compare(&witness, &kind, witnesses.denied_networks());
        }
        let (gained, lost) = changes.grouped();
        Difference {
            gained,
            lost,
            filesystem: files(self, new),
            inbound: inbound::changes(self.inbound(), new.inbound()),
            privileged: match (self.privileged(), new.privileged()) {
                (None, Some(_)) => Some("added"),
                (Some(_), None) => Some("removed"),
                (None, None) | (Some(_), Some(_)) => None,
            },
            complete: work.is_complete(),
        }
    }
}

/// Steps that a comparison may take: some seconds.
const MOST_WORK: usize = 1_000_000_000;

/// What holds for this machine by each of its names and its address is said once.
fn with_one_host(mut changes: Vec<Change>) -> Vec<Change> {
    let is_host = |change: &Change| {
        let host = change.destination.rsplit_once(':').map(|(host, _)| host);
        host.is_some_and(|host| HOST_GATEWAY.contains(&host) || host == DOCKER_BRIDGE.to_string())
    };
    let alike = |one: &Change, other: &Change| {
        let plain = |change: &Change| Change {
            destination: String::new(),
            stands_for: None,
            ..change.clone()
        };
        is_host(one) && is_host(other) && plain(one) == plain(other)
    };
    let hosts: Vec<Change> = changes.iter().filter(|one| is_host(one)).cloned().collect();
    for change in &hosts {
        let same = hosts.iter().filter(|other| alike(change, other)).count();
        let first = hosts.iter().find(|other| alike(change, other));
        if same != HOST_GATEWAY.len() + 1 || first != Some(change) {
            continue;
        }
        changes.retain(|other| other == change || !alike(change, other));
        let kept = changes.iter_mut().find(|other| *other == change);
        if let (Some(kept), Some(name), Some((_, port))) = (
            kept,
            HOST_GATEWAY.first(),
            change.destination.rsplit_once(':'),
        ) {
            kept.stands_for = Some("this machine".to_owned());
            kept.destination = format!("{name}:{port}");
        }
    }
    changes
}

fn files(old: &Policy, new: &Policy) -> Vec<FileChange> {
    let shown = |shares: &[Share]| shares.iter().map(ToString::to_string).collect();
    let lists = |policy: &Policy| -> [(&'static str, BTreeSet<String>); 3] {
        let files = policy.filesystem();
        [
            ("read", shown(&files.read)),
            ("write", shown(&files.write)),
            ("hide", files.hide.iter().cloned().collect()),
        ]
    };
    let mut changes = Vec::new();
    for ((list, old), (_, new)) in lists(old).into_iter().zip(lists(new)) {
        let change = |change, path: &String| FileChange {
            change,
            list,
            path: path.clone(),
        };
        changes.extend(new.difference(&old).map(|path| change("added", path)));
        changes.extend(old.difference(&new).map(|path| change("removed", path)));
    }
    changes
}
