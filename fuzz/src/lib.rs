//! What has to hold for every input there is: the bodies of the fuzz targets.
//!
//! Each function takes what the fuzzer made up and panics where a promise of `egret-policy` is broken; that nothing
//! else panics is the first promise. They live in a library so that the seeds can be run by an ordinary test, too.

mod address;
mod format;
mod host;
mod oracle;
mod policy;
mod request;

pub use address::address;
pub use format::format;
pub use host::host;
pub use policy::policy;
pub use request::request;

#[cfg(test)]
mod tests;
