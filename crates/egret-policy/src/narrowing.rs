//! What a project's own file takes away from a policy.
//!
//! A program can usually write to the project that it works in, and so to that file. It is read all the same, because
//! nothing in it can allow anything: whatever is in there, what a narrowed policy allows was allowed without it, and a
//! file that cannot be used stops the run. That is a property of this module, and is tested as one.

use crate::names::HOST_GATEWAY;
use crate::policy::{Default as Unnamed, Entry, FlagError, MAX_SHAPES, Policy};
use crate::report::{Diagnostic, PolicyErrors};
use crate::rule::RuleId;
use crate::text::{native, source};

/// What a project's file says, validated.
#[derive(Clone, Debug, Default)]
pub struct Narrowing {
    pub(crate) deny: Vec<Entry>,
    pub(crate) only: Option<Only>,
    /// `default: deny`.
    pub(crate) no_default: bool,
    /// `host_gateway: deny`.
    pub(crate) no_host: Option<RuleId>,
    pub(crate) hide: Vec<String>,
}

/// A list that whatever is allowed has to be in, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Only {
    pub(crate) rule: RuleId,
    pub(crate) entries: Vec<Entry>,
}

/// What remains of narrowings in a policy that entries cannot say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Narrowed {
    /// Where the host gateway is shut for good.
    pub(crate) no_host: Option<RuleId>,
    /// Each of them has to have what is allowed.
    pub(crate) only: Vec<Only>,
}

impl Narrowing {
    /// The most octets that [`Self::parse`] takes.
    pub const MAX_OCTETS: usize = 64 << 10;

    /// Reads a project's file, and what is probably not meant in it. `source_name` is how messages and rules name the file.
    ///
    /// # Errors
    /// Everything that is wrong with the text, at once, each with line and column. That something in it would allow more is
    /// wrong, too.
    pub fn parse(source_name: &str, text: &[u8]) -> Result<(Self, Vec<Diagnostic>), PolicyErrors> {
        let read = native::read_narrowing;
        source::read(source_name, text, "project file", Self::MAX_OCTETS, read)
    }

    /// The paths of `filesystem: {hide}`, as they are written.
    pub fn hide(&self) -> &[String] {
        &self.hide
    }

    /// What it takes away, for people: a phrase for each key.
    pub fn in_words(&self) -> Vec<String> {
        let entries = |count: usize| match count {
            1 => "1 entry".to_owned(),
            count => format!("{count} entries"),
        };
        let some = |count: usize| Some(count).filter(|count| *count > 0).map(entries);
        let deny = some(self.deny.len()).map(|entries| format!("deny: {entries}"));
        let only = self.only.as_ref();
        let only = only.map(|only| format!("only: {}", entries(only.entries.len())));
        let default = self.no_default.then(|| "default: deny".to_owned());
        let host = self
            .no_host
            .as_ref()
            .map(|_| "host_gateway: deny".to_owned());
        let hide = (!self.hide.is_empty()).then(|| format!("hide: {}", self.hide.join(", ")));
        [only, deny, default, host, hide]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Policy {
    /// Takes away what a project's file takes away, but for files, which are for those to hide who show them. `diff` does
    /// not know of it: it compares policies as they are written.
    ///
    /// # Errors
    /// If the policy would have more forms of wildcards inside patterns then than one may have.
    pub fn narrow(&mut self, by: &Narrowing) -> Result<(), FlagError> {
        let only = by.only.iter().flat_map(|only| &only.entries);
        for entry in by.deny.iter().chain(only) {
            self.count_shape(&entry.what);
        }
        if self.shapes.len() > MAX_SHAPES {
            return Err(FlagError::too_many_shapes("the project's file"));
        }
        self.deny.extend_from_slice(&by.deny);
        self.narrowed.only.extend(by.only.clone());
        if by.no_default {
            self.default = Unnamed::Deny;
        }
        if let Some(rule) = &by.no_host {
            self.narrowed.no_host.get_or_insert_with(|| rule.clone());
        }
        Ok(())
    }
}

/// Whether one of the names of the host is meant.
pub(crate) fn some_host_name(meant: impl Fn(&str) -> bool) -> bool {
    HOST_GATEWAY.iter().any(|name| meant(name))
}

#[cfg(test)]
mod tests;
