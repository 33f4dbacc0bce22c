use super::*;
use proptest::prelude::*;

/// A record with all of its fields.
fn full(words: &[String; 6], number: u64, address: IpAddr) -> Record {
    let word = |at: usize| Some(words[at % words.len()].clone());
    let word_or_code = |at| word(at).map(Cow::Owned);
    Record {
        verdict: Some(Verdict::Deny),
        reason: word_or_code(0),
        rule: word(1),
        note: word(2),
        host: word(3),
        port: Some(number as u16),
        addresses: vec![address, address],
        dialled: Some(SocketAddr::new(address, number as u16)),
        door: Some(Door::Captured),
        peer: Some(SocketAddr::new(address, 1)),
        executable: word(4),
        ancestors: words.to_vec(),
        method: word(5),
        path: word(0),
        query: word(1),
        bytes_up: Some(number),
        bytes_down: Some(number / 2),
        duration_ms: Some(number / 3),
        limit: word_or_code(2),
        action: word_or_code(3),
        count: Some(number),
        message: word_or_code(4),
        hint: word(5),
        ..Record::new(Event::Finding, words[0].clone(), &words[1])
    }
}

proptest! {
    #[test]
    fn a_line_is_what_serde_makes_of_a_record(words: [String; 6], number: u64, address: IpAddr, full_one: bool) {
        let record = match full_one {
            true => full(&words, number, address),
            false => Record::new(Event::Close, words[0].clone(), &words[1]),
        };
        let mut line = Vec::new();
        record.line(&mut line);
        prop_assert_eq!(line.pop(), Some(b'\n'));
        let line = String::from_utf8(line).unwrap();
        let by_serde = String::from_utf8(inert_json(&record)).unwrap();
        prop_assert_eq!(&line, &by_serde);
        prop_assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        prop_assert!(!line.contains(is_hidden));
    }
}
