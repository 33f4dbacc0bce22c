//! The audit log: what was decided, and how it ended.
//!
//! One JSON object a line, described field by field in `docs/audit-log.md`. [`Record`] is that
//! object, read and written by the same type; [`Log`] is the file.
//!
//! Promises: a record is one `write(2)` on a file opened for appending; control and bidirectional
//! characters reach the file only as `\u` escapes; and writing comes back only once the record
//! is in the file, or with the news that it is not, in which case the caller lets nothing pass.
//!
//! Not here: what is worth recording (the flow and the doors decide that).

mod basis;
mod file;
mod log;
mod record;

pub use basis::{Basis, ProjectFile};
pub use file::{Rotation, parts};
pub use log::{AuditError, Log, Observer};
pub use record::{Door, Event, Record, Verdict, inert_json};
