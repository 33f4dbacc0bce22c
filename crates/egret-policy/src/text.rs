//! From policy text to what it says: one module for YAML, one for Egret's own language, one for those of others.

pub(crate) mod advice;
pub(crate) mod amend;
pub(crate) mod emit;
pub(crate) mod entry;
pub(crate) mod foreign;
pub(crate) mod format;
pub(crate) mod lint;
pub(crate) mod native;
pub(crate) mod reader;
pub(crate) mod schema;
pub(crate) mod shares;
pub(crate) mod source;
pub(crate) mod write;
pub(crate) mod yaml;

#[cfg(test)]
mod tests;
