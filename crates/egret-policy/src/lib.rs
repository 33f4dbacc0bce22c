//! From policy text to decision.
#![forbid(unsafe_code)]
