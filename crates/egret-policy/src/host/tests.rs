use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn a_plain_name_is_what_it_is_when_looked_at_closely(
        parts in proptest::collection::vec(prop_oneof![
            6 => "[a-zA-Z0-9_-]{1,4}", 6 => Just(".".to_owned()), 1 => "[ -~]", 1 => "[0-9]{1,3}", 1 => Just("xn--".to_owned()),
            1 => Just("0x7f".to_owned()), 1 => "[a-z]{60,66}", 1 => Just("ß".to_owned()), 1 => Just("xN--bcher-kva".to_owned()),
        ], 0..9),
    ) {
        let text = parts.concat();
        if let Some(name) = plain_name(&text) {
            prop_assert_eq!(Ok(name.into_owned()), mapped_name(&text));
            prop_assert!(inet_aton(&text).is_none() && text.parse::<IpAddr>().is_err());
        }
    }
}

#[test]
fn most_names_are_plain_and_of_the_others_none_is() {
    let most = "a.".repeat(126) + "a";
    for name in [
        "localhost",
        "a.example",
        "A.Example.",
        "_dns.x-1.1password.com",
        "3com.net",
        &most,
    ] {
        assert_eq!(
            plain_name(name).as_deref(),
            Some(&*name.trim_end_matches('.').to_ascii_lowercase())
        );
    }
    let (more, long) = (most.clone() + "a", "a".repeat(64));
    for name in [
        "",
        ".",
        "a..b",
        ".a",
        "a..",
        "127.1",
        "0x7f",
        "a.0x7f",
        "a.1b",
        "xn--bcher-kva.example",
        "a--b",
        "a b",
        "a:b",
        "ß",
        &more,
        &long,
    ] {
        assert_eq!(plain_name(name), None, "{name}");
    }
}
