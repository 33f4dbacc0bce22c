//! The JSON Schema of Egret's own language, for editors.
//!
//! Every policy that can be used is valid by it. The reverse does not hold: host bits, what may never be allowed and
//! the like are for [`Policy::parse`](crate::Policy::parse) alone to know.

/// A JSON Schema (draft 2020-12) of policies in Egret's own language.
pub const POLICY_SCHEMA: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/policy.schema.json"
));

#[cfg(test)]
mod tests;
