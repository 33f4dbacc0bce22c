use super::*;

fn class(address: &str) -> &'static str {
    class_of(address.parse().unwrap()).as_str()
}

#[test]
fn every_range_has_its_class() {
    #[rustfmt::skip]
    let table = [
        ("1.1.1.1",              "public"),
        ("93.184.216.34",        "public"),
        ("0.0.0.0",              "unspecified"),
        ("0.1.2.3",              "unspecified"),
        ("9.255.255.255",        "public"),
        ("10.0.0.0",             "private"),
        ("10.255.255.255",       "private"),
        ("11.0.0.0",             "public"),
        ("100.63.255.255",       "public"),
        ("100.64.0.0",           "private"),
        ("100.100.100.200",      "metadata"),
        ("100.127.255.255",      "private"),
        ("100.128.0.0",          "public"),
        ("127.0.0.1",            "loopback"),
        ("127.255.255.254",      "loopback"),
        ("168.63.129.16",        "metadata"),
        ("169.254.0.1",          "link_local"),
        ("169.254.169.254",      "metadata"),
        ("169.254.170.2",        "metadata"),
        ("169.254.170.23",       "metadata"),
        ("172.15.255.255",       "public"),
        ("172.16.0.0",           "private"),
        ("172.31.255.255",       "private"),
        ("172.32.0.0",           "public"),
        ("192.0.0.1",            "reserved"),
        ("192.0.0.192",          "metadata"),
        ("192.0.2.1",            "reserved"),
        ("192.88.99.1",          "reserved"),
        ("192.168.255.255",      "private"),
        ("198.17.255.255",       "public"),
        ("198.18.0.1",           "reserved"),
        ("198.19.255.255",       "reserved"),
        ("198.51.100.7",         "reserved"),
        ("203.0.113.7",          "reserved"),
        ("223.255.255.255",      "public"),
        ("224.0.0.1",            "multicast"),
        ("239.255.255.255",      "multicast"),
        ("240.0.0.1",            "reserved"),
        ("255.255.255.255",      "reserved"),
        ("::",                   "unspecified"),
        ("::1",                  "loopback"),
        ("::2",                  "unspecified"), // 0.0.0.2, IPv4-compatible
        ("2606:4700::1111",      "public"),
        ("2001:4860:4860::8888", "public"),
        ("2001:db8::1",          "reserved"),
        ("2001:2::1",            "reserved"),
        ("2001:20::1",           "reserved"),
        ("2001:1ff::1",          "reserved"),
        ("2001:200::1",          "public"),
        ("3fff::1",              "reserved"),
        ("3ffe::1",              "reserved"),
        ("2d00::1",              "reserved"),
        ("5f00::1",              "reserved"),
        ("4000::1",              "reserved"),
        ("100::1",               "reserved"),
        ("fc00::1",              "private"),
        ("fdff::1",              "private"),
        ("fd00:ec2::254",        "metadata"),
        ("fd00:ec2::23",         "metadata"),
        ("fd20:ce::254",         "metadata"),
        ("fe80::1",              "link_local"),
        ("febf::1",              "link_local"),
        ("fec0::1",              "reserved"),
        ("ff02::1",              "multicast"),
    ];
    for (address, expected) in table {
        assert_eq!(class(address), expected, "{address}");
    }
}

#[test]
fn an_ipv4_address_inside_an_ipv6_one_counts() {
    #[rustfmt::skip]
    let table = [
        // mapped: IPv4 itself
        ("::ffff:1.1.1.1",             "public"),
        ("::ffff:10.0.0.1",            "private"),
        ("::ffff:127.0.0.1",           "loopback"),
        ("::ffff:169.254.169.254",     "metadata"),
        // NAT64, well-known prefix
        ("64:ff9b::1.1.1.1",           "public"),
        ("64:ff9b::10.0.0.1",          "private"),
        ("64:ff9b::127.0.0.1",         "loopback"),
        ("64:ff9b::169.254.169.254",   "metadata"),
        ("64:ff9b:0:1::1.1.1.1",       "reserved"), // not the prefix
        // NAT64, local prefix: /96, /64, /56 and /48 layouts
        ("64:ff9b:1::1.1.1.1",         "public"),
        ("64:ff9b:1::10.0.0.1",        "private"),
        ("64:ff9b:1:2:3:4:127.0.0.1",  "loopback"),
        ("64:ff9b:1:0:a9:fea9:fe00:0", "metadata"),
        ("64:ff9b:1:7f:0:100::",       "loopback"),
        ("64:ff9b:1:0a00:00:0100::",   "unspecified"), // 10.0.0.1 by /48, 0.0.1.0 by /56: the stricter holds
        ("64:ff9b:1:808:8:800::",      "public"),
        ("64:ff9b:1::",                "unspecified"),
        // compatible, translated, 6to4, Teredo, ISATAP: reserved at best
        ("::1.1.1.1",                  "reserved"),
        ("::10.0.0.1",                 "private"),
        ("::127.0.0.1",                "loopback"),
        ("::ffff:0:1.1.1.1",           "reserved"),
        ("::ffff:0:169.254.169.254",   "metadata"),
        ("2002:101:101::1",            "reserved"),
        ("2002:7f00:1::1",             "loopback"),
        ("2002:a9fe:a9fe::1",          "metadata"),
        ("2001:0:101:101:0:0:fefe:fefe", "reserved"), // server and client 1.1.1.1
        ("2001:0:101:101:0:0:80ff:fffe", "loopback"), // client 127.0.0.1, flipped
        ("2001:0:7f00:1:0:0:fefe:fefe",  "loopback"), // server 127.0.0.1
        ("2606:4700::5efe:1.1.1.1",    "reserved"),
        ("2606:4700::200:5efe:10.0.0.1", "private"),
        ("2606:4700::5efe:169.254.169.254", "metadata"),
    ];
    for (address, expected) in table {
        assert_eq!(class(address), expected, "{address}");
    }
}

#[test]
fn what_is_the_host_is_known_in_every_spelling() {
    let own = ["192.168.7.9", "2606:4700::9", "169.254.1.2", "127.0.0.1"];
    let hosts = HostAddresses::new(own.iter().map(|address| address.parse().unwrap()))
        .with_gateway(vec![
            "127.0.0.1".parse().unwrap(),
            "169.254.169.254".parse().unwrap(),
        ]);
    #[rustfmt::skip]
    let table = [
        // address                 class       may be dialled for the host gateway
        ("172.17.0.1",             "host",      true ),
        ("::ffff:172.17.0.1",      "host",      true ),
        ("64:ff9b::172.17.0.1",    "host",      true ),
        ("192.168.7.9",            "host",      true ),
        ("192.168.7.10",           "private",   false),
        ("2606:4700::9",           "host",      true ),
        ("169.254.1.2",            "host",      true ),
        ("127.0.0.1",              "loopback",  true ), // as the gateway's own address
        ("127.0.0.2",              "loopback",  false),
        ("169.254.169.254",        "metadata",  false), // whatever anybody says
        ("1.1.1.1",                "public",    false),
    ];
    for (address, expected, gateway) in table {
        let address = address.parse().unwrap();
        assert_eq!(
            (hosts.class_of(address).as_str(), hosts.is_gateway(address)),
            (expected, gateway),
            "{address}"
        );
    }
    let none = HostAddresses::new([]);
    assert_eq!(none.class_of("172.17.0.1".parse().unwrap()), Class::Host);
    assert!(!none.is_gateway("127.0.0.1".parse().unwrap()));
}

#[test]
fn the_table_has_no_host_bits_and_no_row_twice() {
    for (index, row) in SPECIAL.iter().enumerate() {
        let net = IpNet::new(row.network, row.len).unwrap();
        assert_eq!(net.network(), row.network, "{net}");
        assert!(
            SPECIAL[..index]
                .iter()
                .all(|other| (other.network, other.len) != (row.network, row.len)),
            "{net}"
        );
    }
}

#[test]
fn what_is_known_by_the_first_octet_is_what_the_rows_say() {
    for first in 0..=u8::MAX {
        for address in [
            IpAddr::from([first, 0, 0, 0]),
            IpAddr::from([first, 10, 20, 30]),
            IpAddr::from([first; 4]),
            IpAddr::from([first, 255, 255, 255]),
            IpAddr::V6((u128::from(first) << 120).into()),
            IpAddr::from([first; 16]),
            IpAddr::V6((u128::MAX >> 8 | u128::from(first) << 120).into()),
        ] {
            assert_eq!(table_class(address), row_class(address), "{address}");
        }
    }
    // Where rows begin, and behind their ends, that is before and behind where the class changes.
    for edge in edges() {
        let before = match edge {
            IpAddr::V4(v4) => IpAddr::from(Ipv4Addr::from_bits(v4.to_bits().wrapping_sub(1))),
            IpAddr::V6(v6) => IpAddr::from(Ipv6Addr::from_bits(v6.to_bits().wrapping_sub(1))),
        };
        for address in [before, edge] {
            assert_eq!(table_class(address), row_class(address), "{address}");
        }
    }
    let told = |classes: [Option<Class>; 256]| classes.iter().flatten().count();
    assert_eq!((told(V4_BY_FIRST), told(V6_BY_FIRST)), (249, 251));
}

proptest::proptest! {
    #[test]
    fn an_address_has_the_class_of_its_row(v4: u32, v6: u128) {
        for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
            proptest::prop_assert_eq!(table_class(address), row_class(address));
        }
    }
}
