//! What has to hold for every input there is: the bodies of the fuzz targets.
//!
//! Each function takes what the fuzzer made up and panics where a promise of `egret-policy` is broken; that nothing
//! else panics is the first promise. They live in a library so that the seeds can be run by an ordinary test, too.

mod address;
mod convert;
mod diff;
mod format;
mod host;
mod oracle;
mod policy;
mod request;

pub use address::address;
pub use convert::convert;
pub use diff::diff;
pub use format::format;
pub use host::host;
pub use policy::policy;
pub use request::request;

/// A policy of another system, which decides and is converted.
pub fn foreign(data: &[u8]) {
    policy::policy(data);
    convert::convert(data);
}

/// A policy with services, each that the seeds have in turn.
pub fn services(data: &[u8]) {
    for service in [None, Some("agent"), Some("watcher"), Some("free")] {
        policy::policy_of(data, service);
        convert::convert_of(data, service);
    }
}

#[cfg(test)]
mod tests;
