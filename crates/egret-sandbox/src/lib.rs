//! From a `Spec` to a confined process.
