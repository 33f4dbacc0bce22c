//! What has to hold for every input there is: the bodies of the fuzz targets.
//!
//! Each function takes what the fuzzer made up and panics where a promise of Egret is broken; that nothing else panics is
//! the first promise. They live in a library so that the seeds can be run by an ordinary test, too. What judges a reader
//! takes what that has read, so that a test can show a wrong one to it.

mod address;
mod conversation;
mod convert;
mod diff;
mod dns;
mod doors;
mod first;
mod format;
mod host;
mod http;
mod llhttp;
mod oracle;
mod policy;
mod record;
mod request;
mod run;
mod upstream;

pub use address::address;
pub use conversation::conversation;
pub use convert::convert;
pub use diff::diff;
pub use dns::dns;
pub use doors::{proxy_request, published_request, socks};
pub use first::{client_hello, first_bytes};
pub use format::format;
pub use host::host;
pub use http::{http_answer, http_request};
pub use policy::{own_files, policy};
pub use record::{log_line, record};
pub use request::request;
pub use run::{control, environment, mount, run_config};
pub use upstream::{proxy_answer, proxy_url};

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

/// Pieces of so many bytes; one if there are none.
fn cut(bytes: &[u8], step: u8) -> Vec<&[u8]> {
    match step {
        0 => vec![bytes],
        step => bytes.chunks(usize::from(step)).collect(),
    }
}

/// Ends the fuzzer where something does not hold.
#[track_caller]
fn holds(judged: Result<(), String>) {
    if let Err(why) = judged {
        panic!("{why}");
    }
}

#[cfg(test)]
mod tests;
