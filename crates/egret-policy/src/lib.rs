//! From policy text to decision.
//!
//! [`Policy::parse`] turns a file into a validated [`Policy`], [`Policy::compile`] turns that into a [`Matcher`], and
//! [`Matcher::decide`] answers, for one [`Destination`], with a [`Permit`] or a [`Denial`]. A permit says what has to
//! be resolved ([`Permit::lookup`]) and judges the answer ([`Permit::vet`]); only the [`Vetted`] addresses that come
//! out of that may be dialled. Neither can be made in any other way, so a caller cannot forget a step.
//!
//! Everything here is a function of its arguments: no IO, no clock, no threads. The same policy and the same
//! destination give the same decision for ever, on any machine.
//!
//! Not here: reading files, resolving names, opening connections, and telling anybody about a refusal.
#![forbid(unsafe_code)]

mod addr;
mod askable;
mod cases;
mod denial;
mod destination;
mod diff;
mod explain;
mod filesystem;
mod glob;
#[doc(hidden)]
pub mod guard;
mod host;
mod inbound;
mod learn;
mod matcher;
mod names;
mod narrowing;
mod pattern;
mod permit;
mod policy;
mod program;
mod reason;
mod report;
mod request;
mod rule;
mod settings;
mod suffix;
mod text;
mod visible;

pub use addr::{Class, HostAddresses, class_of};
pub use askable::Askable;
pub use cases::Tested;
pub use denial::{Denial, Hint};
pub use destination::{Destination, Malformed, Target};
pub use diff::{Change, Decided, Difference, FileChange, InboundChange};
pub use explain::{
    ExplainedDestination, ExplainedStep, Explanation, JudgedAddress, Question, Verdict,
};
pub use filesystem::{Filesystem, Share};
pub use host::{BadSandboxId, Host, SandboxId};
pub use inbound::InboundHost;
pub use learn::{Asked, Learnt, Lesson};
pub use matcher::{Matcher, Spoken};
pub use narrowing::Narrowing;
pub use permit::{Lookup, Permit, Vetted};
pub use policy::{FlagError, HostGatewayPorts, Language, Parsed, Policy};
pub use program::Program;
pub use reason::{Reason, UnknownReason};
pub use report::{Diagnostic, PolicyErrors, Severity};
pub use rule::RuleId;
pub use settings::{Setting, SettingKey, Settings, Takes};
pub use text::amend::{Addition, AmendError, List, amend};
pub use text::format::format_policy;
pub use text::schema::POLICY_SCHEMA;
pub use visible::{is_hidden, visible, visible_lines};
