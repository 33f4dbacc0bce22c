//! What has to hold for every input there is: the bodies of the fuzz targets.
//!
//! Each function takes what the fuzzer made up and panics where a promise of `egret-policy` is broken; that nothing
//! else panics is the first promise. They live in a library so that the seeds can be run by an ordinary test, too.

mod address;
mod host;
mod oracle;
mod policy;

pub use address::address;
pub use host::host;
pub use policy::policy;

#[cfg(test)]
mod tests;
