//! Destinations have one reading, and where the C library sees an address, so does Egret.

use std::net::IpAddr;

use egret_policy::{Class, Destination, HostAddresses, Target, class_of};

use crate::oracle;

/// A text as a destination, in every way there is to read one; a line break parts host and port.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (host, port) = text.split_once('\n').unwrap_or((text, "443"));
    let parsed = Destination::parse(host, port);
    if port == "443" {
        against_libc(host, parsed.as_ref().ok());
    }
    let read = [
        parsed,
        Destination::from_authority(text, None),
        Destination::from_authority(text, Some(443)),
        Destination::from_user(text),
    ];
    for to in read.iter().flatten() {
        stands(to);
    }
    for malformed in read.iter().filter_map(|read| read.as_ref().err()) {
        let shown = malformed.to_string();
        assert!(
            !shown.contains(char::is_control),
            "a message is safe to show"
        );
    }
    if let [_, Ok(to), Ok(with_default), from_user] = &read {
        assert_eq!(
            to, with_default,
            "a port that is there wins over the default"
        );
        assert!(
            from_user.as_ref().is_ok_and(|user| user == to),
            "one reading"
        );
    }
}

fn against_libc(host: &str, parsed: Option<&Destination>) {
    let address = parsed.and_then(|to| match to.target() {
        Target::Address(address) => Some(*address),
        Target::Name(_) => None,
    });
    match (oracle::libc_address(host), parsed) {
        (Some(libc), Some(_)) => assert_eq!(address, Some(libc), "another address"),
        (None, Some(_)) => assert_eq!(address, None, "an address that nobody else sees"),
        (_, None) => {}
    }
}

fn stands(to: &Destination) {
    let written = to.to_string();
    assert_eq!(Destination::from_authority(&written, None).as_ref(), Ok(to));
    assert_eq!(Destination::from_user(&written).as_ref(), Ok(to));
    assert_eq!(
        Destination::new(to.target().clone(), to.port()).as_ref(),
        Ok(to)
    );
    let Target::Address(address) = *to.target() else {
        return;
    };
    assert_eq!(address, address.to_canonical(), "mapped addresses are IPv4");
    let class = class_of(address);
    if oracle::is_never_granted(address) {
        assert!(!class.can_be_granted(), "{address} is {class}");
    }
    if let IpAddr::V4(v4) = address {
        assert_eq!(class_of(IpAddr::V6(v4.to_ipv6_mapped())), class);
        assert!(
            !v4.is_private() || class == Class::Private,
            "{v4} is {class}"
        );
    }
    let hosts = HostAddresses::new([address]);
    assert!(!hosts.class_of(address).can_be_granted(), "the host's own");
}
