//! A refusal: its reason, what was refused, the entry that decided, and what would change it.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::addr::class_of;
use crate::destination::{Destination, Malformed, Target};
use crate::host::Host;
use crate::reason::Reason;
use crate::rule::RuleId;

/// Why something was refused.
///
/// Displays as one sentence without line breaks or control characters, safe for logs and error bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    reason: Reason,
    subject: Subject,
    rule: Option<RuleId>,
    cause: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Destination(Destination),
    Name(Host),
    Text(Box<str>),
}

/// What more there is to say than the reason says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A stage of the decision; the reason says it all.
    Decision,
    /// A deny entry, and what would refuse it otherwise.
    Deny { otherwise: Option<Box<Denial>> },
    /// A project's file leaves it out: as the host, or because its `only` does not have it. And what would refuse it
    /// otherwise.
    LeftOut {
        as_host: bool,
        otherwise: Option<Box<Denial>>,
    },
    /// An address that may not be dialled, and all those of the answer that would have to be granted; none of these if
    /// one of them never can.
    Address {
        address: IpAddr,
        to_grant: Option<Box<[IpAddr]>>,
    },
    /// A program that no entry names; none if nobody could tell which one it was.
    Program { executable: Option<Box<str>> },
    /// A request that is not listed, or that a deny entry lists.
    Request {
        method: Box<str>,
        path: Box<str>,
        by_deny: bool,
    },
    /// A stage outside this crate, in its own words.
    Told(Box<str>),
}

impl Denial {
    /// A refusal by a stage that policy does not see, such as a name that did not resolve or a limit that was reached.
    ///
    /// `destination` and `message` may hold anything; control characters are escaped when the denial is shown. A
    /// reason that speaks of something allowed is taken for [`Reason::DeniedDefault`]: a denial denies.
    pub fn new(reason: Reason, destination: impl Into<String>, message: impl Into<String>) -> Self {
        let reason = match reason.is_allowed() {
            true => Reason::DeniedDefault,
            false => reason,
        };
        Self {
            reason,
            subject: Subject::Text(destination.into().into()),
            rule: None,
            cause: Cause::Told(message.into().into()),
        }
    }

    pub(crate) fn of(
        reason: Reason,
        destination: &Destination,
        rule: Option<RuleId>,
        cause: Cause,
    ) -> Self {
        Self {
            reason,
            subject: Subject::Destination(destination.clone()),
            rule,
            cause,
        }
    }

    pub(crate) fn of_name(reason: Reason, name: &Host, rule: Option<RuleId>) -> Self {
        Self {
            reason,
            subject: Subject::Name(name.clone()),
            rule,
            cause: Cause::Decision,
        }
    }

    /// The stable reason; never one of the allowed ones.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The entry that decided, if one did.
    pub fn rule(&self) -> Option<&RuleId> {
        self.rule.as_ref()
    }

    /// What was refused, as `host:port`, as a name alone (a DNS question), or as the client wrote it.
    pub fn destination(&self) -> String {
        match &self.subject {
            Subject::Destination(destination) => destination.to_string(),
            Subject::Name(name) => name.to_string(),
            Subject::Text(text) => text.escape_debug().to_string(),
        }
    }

    /// The destination that was decided on, where the decision itself refused it.
    pub(crate) fn decided(&self) -> Option<&Destination> {
        match (&self.subject, &self.cause) {
            (Subject::Destination(to), Cause::Decision) => Some(to),
            _ => None,
        }
    }

    /// The address that was refused, where a name resolved to one that may not be dialled.
    pub fn address(&self) -> Option<IpAddr> {
        match self.cause {
            Cause::Address { address, .. } => Some(address),
            _ => None,
        }
    }

    /// Why, as the end of a sentence, safe for logs and terminals.
    pub fn cause(&self) -> String {
        let meaning = || lower_first(self.reason.meaning());
        match &self.cause {
            Cause::Told(message) => escaped(message),
            Cause::Address { address, .. } => format!("it resolved to {address}; {}", meaning()),
            Cause::Program { executable: None } => {
                "the policy allows it to certain programs, and which one asked could not be told"
                    .to_owned()
            }
            Cause::Program {
                executable: Some(executable),
            } => format!("the policy allows it, but not to {}", shortened(executable)),
            Cause::Request { method, path, .. } => {
                let (method, path) = (shortened(method), shortened(path));
                format!("the policy allows the host, but not {method} {path}")
            }
            Cause::Decision | Cause::Deny { .. } | Cause::LeftOut { .. } => meaning(),
        }
    }

    /// The smallest change that would allow it; none where nothing can. For a loopback address or name, which nothing
    /// can allow, it is how a service of the machine is reached.
    pub fn hint(&self) -> Option<Hint> {
        hint(self)
    }
}

impl From<Malformed> for Denial {
    fn from(malformed: Malformed) -> Self {
        Self::new(
            Reason::DeniedMalformed,
            malformed.text(),
            malformed.flaw().to_string(),
        )
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (destination, reason, cause) = (self.destination(), self.reason.code(), self.cause());
        let text = ["`", &destination, "` is refused (", reason, "): ", &cause];
        f.write_str(&text.concat())?;
        match &self.rule {
            Some(rule) => write!(f, " [{rule}]"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Denial {}

/// Without what a terminal acts on; quotes are harmless in a sentence, and better to read as they are.
fn escaped(text: &str) -> String {
    if text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\')
    {
        return text.to_owned();
    }
    let escape = |c: char| match c {
        '\'' | '"' => String::from(c),
        c => c.escape_debug().to_string(),
    };
    text.chars().map(escape).collect()
}

/// Text of the sandbox's for a sentence: not at any length, and nothing that a terminal acts on.
fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let short: String = chars.by_ref().take(MOST_SHOWN).collect();
    let rest = if chars.next().is_some() { "…" } else { "" };
    format!("{}{rest}", short.escape_debug())
}

/// Characters of a path that are shown.
const MOST_SHOWN: usize = 200;

fn lower_first(sentence: &str) -> String {
    let mut clause = sentence.trim_end_matches('.').to_owned();
    if let Some(first) = clause.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    clause
}

/// The smallest change that would allow what was refused; for loopback, what reaches the machine in its place.
///
/// Displays as the flag for `egret run` where there is one, else as the change to the policy; serialises as that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    flag: Option<String>,
    change: String,
}

impl Hint {
    /// The flag for `egret run`, such as `--allow api.github.com:443`; none where only the policy can say it.
    pub fn flag(&self) -> Option<&str> {
        self.flag.as_deref()
    }

    /// The change to the policy, as an instruction.
    pub fn change(&self) -> &str {
        &self.change
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.flag().unwrap_or(&self.change))
    }
}

impl Serialize for Hint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn hint(denial: &Denial) -> Option<Hint> {
    let (what, port) = match &denial.subject {
        Subject::Destination(destination) => (destination.to_string(), Some(destination.port())),
        Subject::Name(name) => (name.to_string(), None),
        Subject::Text(_) => return None,
    };
    let in_file = denial.rule.as_ref().filter(|rule| !rule.is_flag());
    match (denial.reason, &denial.cause) {
        (Reason::DeniedDefault | Reason::DeniedLiteralAddress, Cause::Decision) => {
            Some(allow(&what))
        }
        (Reason::DeniedPort, _) => Some(match (in_file, port) {
            (Some(rule), Some(port)) => Hint {
                change: format!("add port {port} to the entry at {rule}"),
                ..allow(&what)
            },
            _ => allow(&what),
        }),
        (
            Reason::DeniedExecutable,
            Cause::Program {
                executable: Some(executable),
            },
        ) => Some(Hint {
            flag: None,
            change: format!("add `{executable}` to the `by` of {}", entry_at(denial)),
        }),
        (Reason::DeniedRequest, Cause::Request { by_deny: true, .. }) => Some(Hint {
            flag: None,
            change: format!("remove or narrow the deny entry ({})", denial.rule()?),
        }),
        (Reason::DeniedRequest, Cause::Request { method, path, .. }) => Some(Hint {
            flag: None,
            change: format!(
                "add `{} {}` to the `http` of {}",
                shortened(method),
                shortened(path),
                entry_at(denial)
            ),
        }),
        (Reason::DeniedHostGateway, _) => Some(open_host_gateway(port)),
        (Reason::DeniedAddressLoopback, Cause::Decision) => Some(use_host_gateway(port)),
        (
            Reason::DeniedAddressPrivate | Reason::DeniedAddressReserved | Reason::DeniedDefault,
            Cause::Address { to_grant, .. },
        ) => {
            let addresses: Vec<_> = to_grant.as_ref()?.iter().map(IpAddr::to_string).collect();
            let addresses = addresses.join(", ");
            let change = match in_file {
                Some(rule) => format!("add {addresses} to the `addresses` of the entry at {rule}"),
                None => {
                    format!("give `{what}` an entry in the policy with `addresses: [{addresses}]`")
                }
            };
            Some(Hint { flag: None, change })
        }
        (Reason::DeniedAddressPrivate | Reason::DeniedAddressReserved, Cause::Decision) => {
            match &denial.subject {
                Subject::Destination(to) => match to.target() {
                    Target::Address(address) if class_of(*address).can_be_granted() => {
                        Some(allow(&what))
                    }
                    _ => None,
                },
                Subject::Name(_) | Subject::Text(_) => None,
            }
        }
        (Reason::DeniedProject, Cause::LeftOut { as_host, otherwise }) => {
            let rule = denial.rule.as_ref()?;
            let change = match as_host {
                true => format!("take `host_gateway: deny` out of the project's file ({rule})"),
                false => format!("add `{what}` to the project's `only` ({rule})"),
            };
            let also = match otherwise {
                Some(otherwise) => format!(", and {}", otherwise.hint()?.change),
                None => String::new(),
            };
            Some(Hint {
                flag: None,
                change: format!("{change}{also}"),
            })
        }
        (Reason::DeniedRule, cause) => {
            let rule = denial.rule.as_ref()?;
            let also = match cause {
                Cause::Deny {
                    otherwise: Some(otherwise),
                } => format!(", and {}", otherwise.hint()?.change),
                Cause::Address { to_grant, .. }
                    if to_grant.as_ref().is_none_or(|more| !more.is_empty()) =>
                {
                    return None;
                }
                _ => String::new(),
            };
            Some(Hint {
                flag: None,
                change: format!("remove or narrow the deny entry ({rule}){also}"),
            })
        }
        _ => None,
    }
}

fn entry_at(denial: &Denial) -> String {
    match denial.rule() {
        Some(rule) => format!("the entry at {rule}"),
        None => "its entry".to_owned(),
    }
}

fn allow(what: &str) -> Hint {
    Hint {
        flag: Some(["--allow ", what].concat()),
        change: ["add `", what, "` to `allow`"].concat(),
    }
}

fn open_host_gateway(port: Option<u16>) -> Hint {
    match port {
        Some(port) => Hint {
            flag: Some(format!("--allow-docker-gateway={port}")),
            change: format!("set `host_gateway: [{port}]`"),
        },
        None => Hint {
            flag: Some("--allow-docker-gateway".to_owned()),
            change: "set `host_gateway: allow`".to_owned(),
        },
    }
}

fn use_host_gateway(port: Option<u16>) -> Hint {
    let port = |before| port.map_or(String::new(), |port| format!("{before}{port}"));
    let (flag, name) = (port('='), port(':'));
    let change = format!(
        "--allow-docker-gateway{flag}, and connect to host.docker.internal{name} in its place"
    );
    Hint { flag: None, change }
}
