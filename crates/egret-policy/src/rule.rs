//! Where an entry of a policy stands.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::visible::visible;

/// Where an entry of a policy stands: a file (or a flag such as `--allow`) and a line in it.
///
/// It is how the audit log, `explain` and every refusal name the entry that decided. Displays on one line, whatever the
/// file is called. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleId {
    file: Arc<str>,
    line: u32,
}

impl RuleId {
    pub(crate) fn new(file: Arc<str>, line: u32) -> Self {
        Self { file, line }
    }

    /// The file as it was named to [`crate::Policy::parse`], or the flag, with its dashes, that the entry came from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line of the entry, from 1; 0 for a flag, which has no lines.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Whether the entry came from the command line rather than from a file.
    pub fn is_flag(&self) -> bool {
        self.line == 0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = visible(&self.file);
        match self.line {
            0 => f.write_str(&file),
            line => write!(f, "{file}:{line}"),
        }
    }
}
