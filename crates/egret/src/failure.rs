//! Why a command could not do what it was asked to, as one sentence on standard error and an exit status.

use egret_sandbox::Error as SandboxError;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// Exit status for a failure of Egret's own, as with `docker run` and `env`.
pub(crate) const EGRET_FAILED: u8 = 125;
/// Exit status of the policy commands for input that is no policy.
const BAD_INPUT: u8 = 2;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// A sentence for a person, and the exit status that goes with it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// A failure in Egret's own words.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: EGRET_FAILED,
        }
    }

    /// A file that the policy commands cannot use.
    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: BAD_INPUT,
        }
    }

    /// What was being done, and what went wrong with it.
    pub(crate) fn because(doing: impl fmt::Display, error: &dyn Error) -> Self {
        Self::new(format!("{doing}: {}", chain(error)))
    }

    /// A failure that has been explained already.
    pub(crate) fn unexplained() -> Self {
        Self::new("")
    }

    /// The same, and what to do about it.
    pub(crate) fn and(self, advice: impl fmt::Display) -> Self {
        Self {
            message: format!("{}; {advice}", self.message),
            ..self
        }
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let code = match &error {
            SandboxError::Program { errno, .. }
                if *errno == rustix::io::Errno::NOENT.raw_os_error() =>
            {
                NOT_FOUND
            }
            SandboxError::Program { .. } => NOT_EXECUTABLE,
            _ => EGRET_FAILED,
        };
        Self {
            message: chain(&error),
            code,
        }
    }
}

/// An error and all that caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
