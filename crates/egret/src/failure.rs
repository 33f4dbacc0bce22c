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

/// An error and all that caused it, in one line, without the numbers that the standard library adds.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source());
    let mut text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    while let Some((before, (_number, after))) = text
        .split_once(" (os error ")
        .and_then(|(before, rest)| Some((before, rest.split_once(')')?)))
    {
        text = format!("{before}{after}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_sentence_with_its_cause() {
        let cause = std::io::Error::from_raw_os_error(2);
        let failure = Failure::because("cannot read the policy x.yaml", &cause).and("write one");
        assert_eq!(
            failure.to_string(),
            "cannot read the policy x.yaml: No such file or directory; write one"
        );
    }

    #[test]
    fn a_program_that_cannot_be_run_ends_as_it_would_in_a_shell() {
        for (errno, code) in [(2, NOT_FOUND), (13, NOT_EXECUTABLE), (8, NOT_EXECUTABLE)] {
            let error = SandboxError::Program {
                program: "x".into(),
                errno,
            };
            assert_eq!(Failure::from(error).code, code, "errno {errno}");
        }
        assert_eq!(Failure::from(SandboxError::Vanished).code, EGRET_FAILED);
    }
}
