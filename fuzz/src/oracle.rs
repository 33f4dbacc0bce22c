//! Second opinions, from the C library and from the standard library, that share nothing with Egret's own readers.

use std::ffi::{CString, c_char, c_int, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

unsafe extern "C" {
    fn inet_aton(text: *const c_char, address: *mut u32) -> c_int;
    fn inet_pton(family: c_int, text: *const c_char, address: *mut c_void) -> c_int;
}

const AF_INET6: c_int = 10;

/// What the C library takes a text for: an address that programs would connect to without asking any name server.
pub fn libc_address(text: &str) -> Option<IpAddr> {
    let text = CString::new(text).ok()?;
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
