//! Second opinions, from the C library and from the standard library, that share nothing with Egret's own readers.

use std::ffi::{CString, c_char, c_int, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use libc::{AF_INET, AF_INET6, AI_NUMERICHOST, addrinfo, sockaddr_in, sockaddr_in6};

/// What the C library takes a text for: an address that programs would connect to without asking any name server. By two
/// of its readers, which have to agree where both see one: `getaddrinfo(3)`, and `inet_aton(3)` with `inet_pton(3)`.
pub fn libc_address(text: &str) -> Option<IpAddr> {
    let text = CString::new(text).ok()?;
    let new = by_getaddrinfo(&text);
    let old = by_inet(&text);
    if let (Some(new), Some(old)) = (new, old) {
        assert_eq!(new, old, "the C library does not agree with itself");
    }
    new.or(old)
}

fn by_getaddrinfo(text: &CString) -> Option<IpAddr> {
    // SAFETY: an `addrinfo` of zeros asks for everything, and has no pointers.
    let mut wanted: addrinfo = unsafe { std::mem::zeroed() };
    wanted.ai_flags = AI_NUMERICHOST;
    let mut found = ptr::null_mut();
    // SAFETY: the text ends in a zero octet, and the others live until this returns.
    if unsafe { libc::getaddrinfo(text.as_ptr(), ptr::null(), &wanted, &mut found) } != 0 {
        return None;
    }
    // SAFETY: it is what was found, and lives until it is freed.
    let first = unsafe { &*found };
    let address = match first.ai_family {
        AF_INET => {
            // SAFETY: the family says what the address is.
            let v4 = unsafe { &*first.ai_addr.cast::<sockaddr_in>() };
            IpAddr::V4(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()))
        }
        _ => {
            // SAFETY: the same; there are but two.
            let v6 = unsafe { &*first.ai_addr.cast::<sockaddr_in6>() };
            IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)).to_canonical()
        }
    };
    // SAFETY: it was found above, and is not looked at any more.
    unsafe { libc::freeaddrinfo(found) };
    Some(address)
}

fn by_inet(text: &CString) -> Option<IpAddr> {
    let mut v4 = 0_u32;
    // SAFETY: the text ends in a zero octet, and an `in_addr` is four octets.
    if unsafe { inet_aton(text.as_ptr(), &mut v4) } != 0 {
        return Some(IpAddr::V4(Ipv4Addr::from(v4.to_ne_bytes())));
    }
    let mut v6 = [0_u8; 16];
    // SAFETY: the text ends in a zero octet, and an `in6_addr` is sixteen octets.
    let found = unsafe { inet_pton(AF_INET6, text.as_ptr(), v6.as_mut_ptr().cast()) };
    (found == 1).then(|| IpAddr::V6(Ipv6Addr::from(v6)).to_canonical())
}

unsafe extern "C" {
    fn inet_aton(text: *const c_char, address: *mut u32) -> c_int;
    fn inet_pton(family: c_int, text: *const c_char, address: *mut c_void) -> c_int;
}

/// Whether an address is one that no policy can open, by what the standard library knows of it; metadata services
/// outside of link-local are listed by hand.
pub fn is_never_granted(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_never_granted_v4(v4),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            let inner = Ipv4Addr::new(a, b, c, d);
            let nat64 = v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            let compatible = v6.segments()[..6] == [0; 6];
            let amazon = v6.segments()[..2] == [0xfd00, 0xec2] && v6.segments()[7] == 0x254;
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || amazon
                || (nat64 || compatible) && is_never_granted_v4(inner)
        }
    }
}

fn is_never_granted_v4(v4: Ipv4Addr) -> bool {
    v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.octets()[0] == 0
        || v4 == Ipv4Addr::new(100, 100, 100, 200)
        || v4 == Ipv4Addr::new(168, 63, 129, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_reads_more_than_the_standard_library() {
        #[rustfmt::skip]
        let table = [
            ("127.1",            Some("127.0.0.1")),
            ("0x7f.1",           Some("127.0.0.1")),
            ("2130706433",       Some("127.0.0.1")),
            ("0177.0.0.1",       Some("127.0.0.1")),
            ("::ffff:127.0.0.1", Some("127.0.0.1")),
            ("2001:db8::1",      Some("2001:db8::1")),
            ("a.example",        None),
            ("256.1.1.1",        None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(libc_address(text), expected, "{text}");
        }
    }
}
