//! Host names are canonical, and no address is one.

use egret_policy::{Destination, Host, SandboxId, Target};

use crate::oracle;

/// A text as a [`Host`] and as a [`SandboxId`].
pub fn host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = text.parse::<SandboxId>() {
        assert_eq!(id.as_str(), text, "a sandbox's name is taken as it is");
        assert!(!text.contains('/') && text != "." && text != "..");
    }
    let parsed = text.parse::<Host>();
    let as_destination = Destination::parse(text, "443");
    let Ok(host) = parsed else {
        let is_name = as_destination.is_ok_and(|to| matches!(to.target(), Target::Name(_)));
        assert!(!is_name, "a destination with a name that is no host");
        return;
    };
    let canonical = host.as_str();
    assert_eq!(canonical.parse::<Host>().as_ref(), Ok(&host), "canonical");
    assert!((1..=253).contains(&canonical.len()), "length");
    for label in canonical.split('.') {
        assert!((1..=63).contains(&label.len()), "length of a label");
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        assert!(label.bytes().all(plain), "what a label is made of");
    }
    assert_eq!(oracle::libc_address(text), None, "a name and an address");
    assert_eq!(
        oracle::libc_address(canonical),
        None,
        "a name and an address"
    );
    let target = as_destination.map(|to| to.target().clone());
    assert_eq!(target, Ok(Target::Name(host.clone())), "one reading");
    let written = serde_json::to_string(&host).expect("a host can be written");
    let read: Host = serde_json::from_str(&written).expect("and read again");
    assert_eq!(read, host);
    if text.is_ascii() {
        let shouted = text.to_ascii_uppercase();
        assert_eq!(shouted.parse::<Host>(), Ok(host.clone()), "case");
        if !text.ends_with('.') {
            assert_eq!(format!("{text}.").parse::<Host>(), Ok(host), "trailing dot");
        }
    }
}
