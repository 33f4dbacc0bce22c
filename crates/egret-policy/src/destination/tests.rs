use super::*;

#[test]
fn a_host_is_read_as_the_operating_system_would_read_it() {
    let long_label = format!("{}.example", "a".repeat(64));
    let long_name = format!("{}example", "abcdefg.".repeat(40));
    #[rustfmt::skip]
    let table = [
        // host                       reads as; "" where it is malformed
        ("example.com",               "example.com:443"),
        ("EXAMPLE.com",               "example.com:443"),
        ("example.com.",              "example.com:443"),
        ("example.com..",             ""),
        (".example.com",              ""),
        ("a..b",                      ""),
        (".",                         ""),
        ("",                          ""),
        ("intranet",                  "intranet:443"),
        ("_dmarc.example.com",        "_dmarc.example.com:443"),
        // Spelled-out IPv4, as inet_aton reads it.
        ("127.0.0.1",                 "127.0.0.1:443"),
        ("127.1",                     "127.0.0.1:443"),
        ("127.0.1",                   "127.0.0.1:443"),
        ("2130706433",                "127.0.0.1:443"),
        ("0x7f.1",                    "127.0.0.1:443"),
        ("0X7F000001",                "127.0.0.1:443"),
        ("0x7f.0x0.0x0.0x1",          "127.0.0.1:443"),
        ("017700000001",              "127.0.0.1:443"),
        ("0177.0.0.01",               "127.0.0.1:443"),
        ("010.0.0.1",                 "8.0.0.1:443"),
        ("0",                         "0.0.0.0:443"),
        ("4294967295",                "255.255.255.255:443"),
        ("169.254.43518",             "169.254.169.254:443"),
        ("10.1.2",                    "10.1.0.2:443"),
        // What only some parsers take for an address.
        ("4294967296",                ""),
        ("256.0.0.1",                 ""),
        ("1.2.3.4.5",                 ""),
        ("127.0.0.1.",                ""),
        ("08.0.0.1",                  ""),
        ("0x",                        ""),
        ("0x.1",                      ""),
        ("1.2.3.999",                 ""),
        ("example.123",               ""),
        ("example.0x1f",              ""),
        ("+127.0.0.1",                ""),
        ("127.0.0.1 ",                ""),
        ("１２７.0.0.1",              ""),
        // IPv6.
        ("::1",                       "[::1]:443"),
        ("2001:DB8::1",               "[2001:db8::1]:443"),
        ("::ffff:127.0.0.1",          "127.0.0.1:443"),
        ("::ffff:7f00:1",             "127.0.0.1:443"),
        ("64:ff9b::7f00:1",           "[64:ff9b::7f00:1]:443"),
        ("fe80::1%eth0",              ""),
        ("fe80::1%25eth0",            ""),
        ("[::1]",                     ""),
        ("[example.com]",             ""),
        ("1::2::3",                   ""),
        ("::0x1",                     ""),
        // What does not belong into a host.
        ("user@example.com",          ""),
        ("example.com\0.evil.test",   ""),
        ("example.com\r\nx",          ""),
        ("exa mple.com",              ""),
        ("example.com\t",             ""),
        ("ex%61mple.com",             ""),
        ("example.com/",              ""),
        ("example.com\\evil.test",    ""),
        ("example.com#",              ""),
        ("example.com?",              ""),
        ("*.example.com",             ""),
        (long_label.as_str(),         ""),
        (long_name.as_str(),          ""),
        // IDNA.
        ("bücher.example",            "xn--bcher-kva.example:443"),
        ("BÜCHER.example",            "xn--bcher-kva.example:443"),
        ("xn--bcher-kva.example",     "xn--bcher-kva.example:443"),
        ("XN--BCHER-KVA.example",     "xn--bcher-kva.example:443"),
        ("xn--a.example",             ""), // decodes to nothing valid
        ("example。com",              ""), // a full stop to some
        ("ｅxample.com",              ""), // full width
        ("exam\u{ad}ple.com",         ""), // soft hyphen
        ("exam\u{200d}ple.com",       ""), // joiner
        ("bu\u{308}cher.example",     ""), // decomposed
        ("exam\u{202e}ple.com",       ""), // direction override
        ("пример.example",            "xn--e1afmkfd.example:443"),
    ];
    for (host, expected) in table {
        let read = Destination::parse(host, "443")
            .map(|to| to.to_string())
            .unwrap_or_default();
        assert_eq!(read, expected, "{host:?}");
    }
}

#[test]
fn a_port_is_plain_digits() {
    #[rustfmt::skip]
    let table = [
        ("1", true), ("80", true), ("65535", true),
        ("", false), ("0", false), ("007", false), ("080", false), ("+80", false), ("-1", false), ("65536", false),
        ("99999999999", false), ("80 ", false), (" 80", false), ("8_0", false), ("0x50", false), ("８０", false), ("80\0", false),
    ];
    for (port, good) in table {
        assert_eq!(
            Destination::parse("example.com", port).is_ok(),
            good,
            "{port:?}"
        );
    }
}

#[test]
fn an_authority_has_one_reading() {
    #[rustfmt::skip]
    let table = [
        // authority              default   reads as
        ("example.com:80",        None,      "example.com:80"),
        ("example.com",           Some(443), "example.com:443"),
        ("example.com",           None,      ""),
        ("example.com:",          Some(443), ""),
        ("example.com",           Some(0),   ""),
        (":80",                   None,      ""),
        ("[::1]:80",              None,      "[::1]:80"),
        ("[::1]",                 Some(443), "[::1]:443"),
        ("[::1]",                 None,      ""),
        ("[::1]x:80",             None,      ""),
        ("[::1",                  Some(443), ""),
        ("[127.0.0.1]:80",        None,      ""),
        ("[example.com]:80",      None,      ""),
        ("[fe80::1%eth0]:80",     None,      ""),
        ("[::ffff:10.0.0.1]:80",  None,      "10.0.0.1:80"),
        ("::1",                   Some(443), ""),
        ("::1:80",                None,      ""),
        ("a:b:80",                None,      ""),
        ("user:pw@example.com:80", None,     ""),
        ("user@example.com:80",   None,      ""),
        ("a.example:80@b.example", Some(80), ""),
        ("127.1:80",              None,      "127.0.0.1:80"),
    ];
    for (authority, default, expected) in table {
        let read = Destination::from_authority(authority, default).map(|to| to.to_string());
        assert_eq!(read.unwrap_or_default(), expected, "{authority:?}");
    }
}

#[test]
fn a_person_may_write_a_url() {
    #[rustfmt::skip]
    let table = [
        ("api.github.com",                   "api.github.com:443"),
        ("api.github.com:8443",              "api.github.com:8443"),
        ("https://api.github.com/v1?x=1#y",  "api.github.com:443"),
        ("HTTP://api.github.com",            "api.github.com:80"),
        ("http://api.github.com:8080/",      "api.github.com:8080"),
        ("2001:db8::1",                      "[2001:db8::1]:443"),
        ("[2001:db8::1]:80",                 "[2001:db8::1]:80"),
        ("https://[2001:db8::1]/",           "[2001:db8::1]:443"),
        ("ftp://api.github.com",             ""),
        ("https://user@api.github.com",      ""),
        ("https://a.example\\@b.example",    ""),
        ("https:///path",                    ""),
    ];
    for (text, expected) in table {
        let read = Destination::from_user(text)
            .map(|to| to.to_string())
            .unwrap_or_default();
        assert_eq!(read, expected, "{text:?}");
    }
}

#[test]
fn a_destination_has_a_port_and_a_canonical_address() {
    let mapped = Target::Address("::ffff:10.0.0.1".parse().unwrap());
    assert!(Destination::new(mapped.clone(), 0).is_err());
    assert_eq!(
        Destination::new(mapped, 1).unwrap().to_string(),
        "10.0.0.1:1"
    );
}

#[test]
fn what_is_shown_of_bad_text_cannot_act_on_a_terminal() {
    let bad = Destination::parse("a\x1b[31m\r\nb\u{202e}", "80").unwrap_err();
    let shown = bad.to_string();
    assert!(
        !shown.chars().any(|c| c.is_control() || c == '\u{202e}'),
        "{shown:?}"
    );
    let long = Destination::parse(&"a".repeat(1_000_000), "80").unwrap_err();
    assert!(long.to_string().len() < 1000);
}
