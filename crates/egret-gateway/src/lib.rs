//! From a caught connection to its record.
#![forbid(unsafe_code)]
