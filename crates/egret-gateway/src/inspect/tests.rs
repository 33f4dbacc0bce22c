use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::first::{First, LINE, Sniffer, WORD};
use super::hello::{Bad, Hello, Reader};
use super::http::head;
use crate::limits::Limits;

mod whole;

/// A ClientHello with these extensions.
fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0]); // session id
    body.extend([0, 2, 0x13, 0x01]); // cipher suites
    body.extend([1, 0]); // compression
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [
        &kind.to_be_bytes()[..],
        &(content.len() as u16).to_be_bytes(),
        content,
    ]
    .concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    let length = name.len() as u16;
    let content = [
        &(length + 3).to_be_bytes()[..],
        &[0],
        &length.to_be_bytes(),
        name,
    ]
    .concat();
    extension(0, &content)
}

fn read(bytes: &[u8]) -> Result<Option<Hello>, Bad> {
    Reader::default().push(bytes)
}

#[test]
fn a_hello_names_one_server_or_none_and_says_it_properly() {
    let named = |name: &str| {
        Ok(Some(Hello {
            server_name: Some(name.to_owned()),
        }))
    };
    let two_in_list = extension(
        0,
        &[&[0, 8][..], &[0, 0, 1, b'a'], &[0, 0, 1, b'b']].concat(),
    );
    type Outcome = Result<Option<Hello>, Bad>;
    #[rustfmt::skip]
    let table: Vec<(&str, Vec<u8>, Option<Outcome>)> = vec![
        ("a name",              server_name(b"a.example"),                                           Some(named("a.example"))),
        ("none",                extension(16, &[0, 3, 2, b'h', b'2']),                               Some(Ok(Some(Hello { server_name: None })))),
        ("GREASE beside it",    [extension(0x0a0a, &[]), server_name(b"a")].concat(),                Some(named("a"))),
        ("ECH beside it",       [extension(0xfe0d, &[0; 9]), server_name(b"a")].concat(),            Some(named("a"))),
        ("two extensions",      [server_name(b"a"), server_name(b"b")].concat(),                     None),
        ("two names in one",    two_in_list,                                                         None),
        ("any other twice",     [extension(5, &[]), extension(5, &[])].concat(),                     None),
        ("an empty name",       server_name(b""),                                                    None),
        ("NUL in it",           server_name(b"a\0b"),                                                None),
        ("not ASCII",           server_name("ä.example".as_bytes()),                                 None),
        ("an unknown type",     extension(0, &[0, 4, 1, 0, 1, b'a']),                                None),
        ("a length that lies",  extension(0, &[0, 4, 0, 0, 9, b'a']),                                None),
        ("something behind it", extension(0, &[0, 4, 0, 0, 1, b'a', 0]),                             None),
    ];
    for (what, extensions, expected) in table {
        let outcome = read(&with_extensions(&extensions));
        match expected {
            Some(expected) => assert_eq!(outcome, expected, "{what}"),
            None => assert!(outcome.is_err(), "{what}: {outcome:?}"),
        }
    }
}

#[test]
fn records_may_cut_a_hello_but_not_carry_anything_else() {
    let hello = with_extensions(&server_name(b"a.example"));
    let again = |more: &[u8]| [&hello[..], more].concat();
    // The next record may be there already; the same record may not go on.
    assert!(matches!(read(&again(&[22, 3, 1, 0, 1, 0])), Ok(Some(_))));
    let mut longer = hello.clone();
    longer[4] += 1;
    longer.push(0);
    assert!(read(&longer).is_err());
    for bad in [
        &[22, 2, 0, 0, 1, 1][..],
        &[22, 3, 1, 0, 0],
        &[22, 3, 1, 0x40, 1],
        &[22, 3, 1, 0, 1, 2],
        &[23, 3, 1, 0, 1],
    ] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn rustls_reads_the_same_name() {
    for name in ["a.example", "host.docker.internal", "x-1.y.example.com"] {
        let hello = crate::tests::client_hello(name);
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor.read_tls(&mut &hello[..]).unwrap();
        let accepted = acceptor.accept().unwrap().unwrap();
        let theirs = accepted.client_hello().server_name().map(str::to_owned);
        assert_eq!(
            read(&hello),
            Ok(Some(Hello {
                server_name: theirs
            }))
        );
    }
}

proptest! {
    #[test]
    fn a_hello_reads_the_same_however_it_arrives(cuts in proptest::collection::vec(1usize..40, 1..60), size in 1usize..300) {
        let whole = with_extensions(&server_name(b"a.example"));
        let records: Vec<u8> = whole[5..].chunks(size).flat_map(|part| [&[22, 3, 3][..], &(part.len() as u16).to_be_bytes(), part].concat()).collect();
        let mut reader = Reader::default();
        let mut at = 0;
        for cut in cuts.into_iter().cycle() {
            let end = (at + cut).min(records.len());
            let outcome = reader.push(&records[at..end]).unwrap();
            at = end;
            if at == records.len() {
                prop_assert_eq!(outcome, Some(Hello { server_name: Some("a.example".into()) }));
                break;
            }
            prop_assert_eq!(outcome, None);
        }
    }

    #[test]
    fn no_bytes_upset_the_readers(bytes in proptest::collection::vec(any::<u8>(), 0..400), tls in any::<bool>()) {
        let bytes = if tls { [&[22, 3, 1][..], &bytes].concat() } else { bytes };
        let mut sniffer = Sniffer::default();
        for byte in &bytes {
            if !matches!(sniffer.push(&[*byte]), First::Hold | First::Watch) {
                break;
            }
        }
        let limits = Limits::default();
        if let Ok(Some(end)) = head::end(&bytes, &mut 0, &limits) {
            let _ = head::Request::parse(bytes[..end].to_vec(), &limits);
        }
        let _ = head::Response::parse(&bytes, &limits);
    }

    #[test]
    fn a_request_is_never_opaque_whatever_stands_before_its_version(
        before in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(b'/'), Just(b'\r'), Just(0), b'A'..=b'Z'], 0..300),
        step in 1usize..50,
    ) {
        let before = before.into_iter().filter(|&byte| byte != b'\n');
        let line: Vec<u8> = before.chain(*b" HTTP/1.1\r\n").collect();
        let mut sniffer = Sniffer::default();
        let last = line.chunks(step).map(|part| sniffer.push(part)).find(|first| !matches!(first, First::Hold | First::Watch));
        let begins_tls = matches!(line[..], [20..=24, 3, ..]);
        prop_assert!(begins_tls || matches!(last, Some(First::Http | First::Bad(_))), "{:?}", last);
    }

    #[test]
    fn a_line_is_told_piece_by_piece_as_if_it_were_looked_at_whole(
        parts in proptest::collection::vec(part_of_a_line(), 1..9),
        cuts in proptest::collection::vec(prop_oneof![4 => 1usize..4, 2 => 1usize..30, 1 => 1usize..9000], 1..20),
    ) {
        let line = parts.concat();
        let (mut sniffer, mut whole) = (Sniffer::default(), whole::Sniffer::default());
        let (mut rest, mut cuts) = (line.as_slice(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let few = if rest.len() > LINE / 2 { LINE / 8 } else { 0 };
            let (piece, after) = rest.split_at((few + cuts.next().unwrap()).min(rest.len()));
            rest = after;
            let (found, expected) = (sniffer.push(piece), whole.push(piece));
            match (&found, &expected) {
                (First::Bad(_), First::Bad(_)) => {}
                _ => prop_assert_eq!(&found, &expected),
            }
            prop_assert_eq!((sniffer.line.as_slice(), sniffer.left_out), whole.kept());
            if !matches!(found, First::Hold | First::Watch) {
                break;
            }
        }
    }

    #[test]
    fn a_broken_hello_never_reads_as_another_name(at in 0usize..80, byte in any::<u8>()) {
        let mut hello = with_extensions(&server_name(b"a.example"));
        let index = at.min(hello.len() - 1);
        let name_at = hello.len() - 9;
        hello[index] = byte;
        if let Ok(Some(Hello { server_name: Some(name) })) = read(&hello) {
            // Whatever is read as the name is what stands where the name stands.
            prop_assert_eq!(name.as_bytes(), &hello[name_at..]);
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_arrives_as_if_each_octet_were_looked_at(
        parts in proptest::collection::vec(prop_oneof![4 => "[a-z :]{1,9}", 4 => Just("\r\n".to_owned()), 1 => "[\r\n\t \0x]", 1 => Just("\r\n\r\n".to_owned())], 0..20),
        step in 1usize..9,
        head_bytes in prop_oneof![Just(64usize << 10), 1usize..60],
    ) {
        let text = parts.concat();
        let limits = Limits { head_bytes, ..Limits::default() };
        let (mut scanned, mut length) = (0, 0);
        while length < text.len() {
            length = (length + step).min(text.len());
            let here = &text.as_bytes()[..length];
            let outcome = head::end(here, &mut scanned, &limits);
            prop_assert_eq!(outcome, whole::end(here, &limits));
            prop_assert_eq!(outcome, head::end(here, &mut 0, &limits));
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
    }
}

/// Something that a first line, and what stands before it, may be made of; nothing that TLS or PostgreSQL begin with.
fn part_of_a_line() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&[u8]] = &[
        b"GET",
        b"get",
        b"POST",
        b"PRI",
        b"M-SEARCH",
        b"VERSION-CONTROL",
        b"FOO",
        b"x",
        b" ",
        b" ",
        b" ",
        b"\t",
        b"\r",
        b"\r",
        b"\n",
        b"\r\n",
        b"\x0b",
        b"\x1c",
        b"\x85\xa0",
        b"\x01",
        b"/",
        b"/x",
        b"http://a/",
        b"*",
        b"HTTP/1.1",
        b"HTTP",
        b"/",
        b"hTTp/2.0",
        b"HTTP/",
        b"RTSP/1.0",
        b"1.0",
        b"PROXY ",
        b"PROX",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"{\"a\":1}",
        b"FOO / x",
        b"FOO x RTSP/1.0",
        b":",
        b"\xff",
    ];
    let word = proptest::sample::select(words).prop_map(<[u8]>::to_vec);
    let long = prop_oneof![Just(b'A'), Just(b'\r'), Just(b'/'), Just(b'{')];
    let length = prop_oneof![1..200usize, LINE - 20..LINE + 200];
    let long = (long, length).prop_map(|(byte, length)| vec![byte; length]);
    prop_oneof![14 => word, 1 => long]
}

#[test]
fn a_line_that_comes_byte_by_byte_costs_no_more_for_each_the_longer_it_is() {
    for (begin, byte) in [
        ("", b'A'),
        ("GET ", b'a'),
        ("{", b'/'),
        ("\0", b'\0'),
        ("FOO \r", b'\r'),
    ] {
        let mut sniffer = Sniffer::default();
        sniffer.push(begin.as_bytes());
        let started = Instant::now();
        for _ in begin.len()..LINE {
            assert!(matches!(sniffer.push(&[byte]), First::Hold | First::Watch));
        }
        // Milliseconds, where looking at all of it each time takes seconds.
        assert!(started.elapsed() < Duration::from_secs(1), "{begin:?}");
    }
}

#[test]
fn a_method_of_any_length_and_anything_in_front_of_it_is_watched_without_being_kept() {
    const CHUNK: usize = 4 << 10;
    #[rustfmt::skip]
    let table: [(u8, &[u8], First); 9] = [
        (b'A',   b" / HTTP/1.1\r",   First::Http),
        (b'A',   b" / X\r",          First::Bad("")),
        (b'A',   b"\n",              First::Opaque),
        (b'A',   b"{\n",             First::Opaque),
        (b'A',   b"HTTP/",           First::Http),
        (b'\n', b"GET / HTTP/1.1\r", First::Http),
        (b'\0', b"GET / HTTP/1.1\r", First::Http),
        (b'\0', b"FOO / RTSP/1.0\r", First::Bad("")),
        (b'\0', b"x\0\n",           First::Opaque),
    ];
    for (byte, then, expected) in table {
        for step in [1, then.len()] {
            let mut sniffer = Sniffer::default();
            for _ in 0..100 {
                assert_eq!(sniffer.push(&[byte; CHUNK]), First::Watch);
                assert!(sniffer.line.len() <= LINE + CHUNK);
            }
            let mut found = First::Watch;
            for part in then.chunks(step) {
                if found == First::Watch {
                    found = sniffer.push(part);
                }
            }
            match (&found, &expected) {
                (First::Bad(_), First::Bad(_)) => {}
                _ => assert_eq!(found, expected, "{then:?}"),
            }
        }
        let mut sniffer = Sniffer::default();
        let chunks = (0..WORD / CHUNK + 10).map(|_| sniffer.push(&[byte; CHUNK]));
        assert_eq!(chunks.last(), Some(First::Opaque));
    }
}

#[test]
fn first_bytes_are_told_apart_one_sidedly() {
    let long = |start: &str| [start.as_bytes(), &[b'a'; 17 << 10]].concat();
    let bad = First::Bad("");
    #[rustfmt::skip]
    let table: Vec<(Vec<u8>, First)> = vec![
        (b"".into(),                                              First::Hold),
        (b"GET / HTTP/1.1\r\n".into(),                            First::Http),
        (b"G".into(),                                             First::Hold),
        (b"FOO / HTTP/1.1\r\n".into(),                            First::Http),
        (b"\r\nGET / HTTP/1.1\r\n".into(),                        First::Http),
        (b"PRI * HTTP/2.0\r\n".into(),                            First::Http2),
        // Blanks that only some servers take for such.
        (b"GET\x0b/\x0bHTTP/1.1\r\n".into(),                      First::Http),
        (b"GET\x1c/\x1cHTTP/1.1\r\n".into(),                      First::Http),
        (b"GET\x85/\xa0http/1.1\r\n".into(),                      First::Http),
        (b"GET\0/\0HTTP/1.1\r\n".into(),                          First::Http),
        // HTTP/0.9
        (b"GET /x\r\n".into(),                                    First::Http),
        (b"GET\t/x\n".into(),                                     First::Http),
        (b"\nGET /x\n".into(),                                    First::Http),
        (b"DELETE /x\r\nHost: b\r\n".into(),                       First::Http),
        (b"QUERY http://a/\n".into(),                             First::Http),
        (b"OPTIONS *\r\n".into(),                                 First::Http),
        (b"PRI *\r\n".into(),                                     First::Http),
        (b"SOURCE /x\r\n".into(),                                 First::Http),
        (b"PLAY rtsp://a/x\r\n".into(),                           First::Http),
        (b"CONNECT a.example:443\r\n".into(),                     First::Http),
        (b"CONNECT \r\nHost: b\r\n".into(),                       First::Http),
        // STOMP
        (b"CONNECT\r\naccept-version:1.2\r\n".into(),             First::Opaque),
        (b"DELETE key\r\n".into(),                                First::Opaque),
        (b"GETTING ON\r\n".into(),                                First::Opaque),
        // Lines that outgrow what is waited for.
        (long("GET /"),                                           First::Http),
        (long("FOO /"),                                           bad.clone()),
        (long("\r\nGET /"),                                       bad.clone()),
        (long("FOO"),                                             First::Watch),
        (long("\0FOO"),                                           First::Watch),
        (b"\n".repeat(17 << 10),                                  First::Watch),
        (b"\0".repeat(17 << 10),                                  First::Watch),
        (long("{\"id\":"),                                        First::Opaque),
        // Control characters in front, and a first word that is none of HTTP's.
        (b"\x01GET /".into(),                                     First::Watch),
        (b"\x85\xa0\0GET /x\n".into(),                            First::Http),
        (b"\xef\xbb\xbfGET /".into(),                             First::Watch),
        (b"{\"a\":1} /".into(),                                   First::Watch),
        (b"FOO /\x01\0".into(),                                   First::Watch),
        (b"F\0O /".into(),                                        First::Watch),
        (b"\0\x01{FOO /\x01 HTTP/1.1\r".into(),                   First::Http),
        (b"GET\x1c/x\n".into(),                                  First::Http),
        // Other versions, which some servers do not look at, or take for HTTP's.
        (b"OPTIONS * RTSP/1.0\r\n".into(),                       bad.clone()),
        (b"OPTIONS rtsp://a/ RTSP/1.0\n".into(),                 bad.clone()),
        (b"SOURCE /x ICE/1.0\r".into(),                          bad.clone()),
        (b"\r\nget x FOO/1.1\r".into(),                          bad.clone()),
        (b"{} / x".into(),                                        First::Watch),
        (b"{} / x\r".into(),                                      bad.clone()),
        (b"GET / HTTP /1.1\n".into(),                             bad.clone()),
        (b"FOO http://a/ x y\n".into(),                           bad.clone()),
        // What has a similar form.
        (b"get a b\r\n".into(),                                   First::Opaque),
        (b"get /a\r\n".into(),                                    First::Opaque),
        (b"get user/1 user/2\r\n".into(),                         First::Opaque),
        (b"a1 LOGIN x /y\r\n".into(),                             First::Opaque),
        (b"0032git-upload-pack /x.git\0host=a\0".into(),          First::Watch),
        (b"0032git-upload-pack /x.git\0host=a\x000014want b/1.0\n".into(), First::Opaque),
        (b"{\"method\": \"a/b\", \"id\": 1}\n".into(),              First::Opaque),
        // Headers for a proxy's upstream.
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".into(),            bad.clone()),
        (b"\r\n\r\n\0\r\nQUIT\n".into(),                         bad.clone()),
        (b"PROX".into(),                                          First::Hold),
        // Other protocols.
        (b"SSH-2.0-OpenSSH_9.2\r\n".into(),                       First::Opaque),
        (b"EHLO me\r\n".into(),                                   First::Opaque),
        (b"EHLO".into(),                                          First::Watch),
        (b"*1\r\n$4\r\nPING\r\n".into(),                          First::Opaque),
        (b"\0\0\0\x08\x04\xd2\x16\x2f".into(),                    First::Prelude),
        (b"\x16\x03".into(),                                      First::Hold),
    ];
    for (bytes, expected) in table {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let found = Sniffer::default().push(&bytes);
        match (&found, &expected) {
            (First::Bad(_), First::Bad(_)) => {}
            _ => assert_eq!(found, expected, "{shown:?}"),
        }
    }
}
