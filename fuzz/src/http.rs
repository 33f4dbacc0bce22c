//! Heads and bodies of HTTP/1: where Egret and llhttp both take a message, they take it for the same one, and what follows
//! it begins at the same place.

use egret_gateway::fuzz::{self, Answer, Framing, Head};

use crate::llhttp::{self, Kind, Message};
use crate::{cut, holds};

/// How many of the bytes behind a head are its body's, and whether that is all of it.
type Body = Result<(usize, bool), String>;

/// How finely it is cut, and what a client sends.
pub fn http_request(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else {
        return;
    };
    let whole = fuzz::request(&[bytes]);
    let in_pieces = fuzz::request(&cut(bytes, step));
    let Ok(Some(head)) = whole else {
        assert!(!matches!(in_pieces, Ok(Some(_))), "only in pieces");
        return;
    };
    let Ok(Some(same)) = in_pieces else {
        panic!("not in pieces: {in_pieces:?}");
    };
    let without_length = |head: Head| Head { length: 0, ..head };
    assert_eq!(without_length(head.clone()), without_length(same));
    let body = body(&head.framing, &bytes[head.length..], step);
    let theirs = llhttp::read(bytes, Kind::Request);
    holds(same_request(bytes, &head, &body, theirs.as_ref()));
}

/// How finely it is cut, whether it is an answer to `HEAD`, and what a server sends.
pub fn http_answer(data: &[u8]) {
    let [step, to_head, bytes @ ..] = data else {
        return;
    };
    let to_head = to_head % 2 == 1;
    let method = if to_head { "HEAD" } else { "GET" };
    let Ok(Some(head)) = fuzz::response(bytes, method) else {
        return;
    };
    let body = body(&head.framing, &bytes[head.length..], *step);
    if let Some(theirs) = llhttp::read(bytes, Kind::Answer { to_head }) {
        holds(same_answer(&head, &body, &theirs, bytes.len()));
    }
}

/// The body, which is the same however it is cut.
fn body(framing: &Result<Framing, String>, bytes: &[u8], step: u8) -> Body {
    let framing = framing.clone()?;
    let whole = fuzz::body(framing, &[bytes]);
    let in_pieces = fuzz::body(framing, &cut(bytes, step));
    match (&whole, &in_pieces) {
        (Err(_), Err(_)) => {}
        _ => assert_eq!(whole, in_pieces, "in pieces"),
    }
    whole
}

fn same_request(
    bytes: &[u8],
    head: &Head,
    body: &Body,
    theirs: Option<&Message>,
) -> Result<(), String> {
    let (Ok(host), Ok(_)) = (&head.host, &head.framing) else {
        return Ok(());
    };
    let Some(theirs) = theirs else {
        // What Egret takes and Node.js would not was looked at, and it is this: methods that it does not know, targets
        // that are none of those that are passed on, and tabs behind a value, which are not.
        let is_known = METHODS.contains(&head.method.as_str());
        let is_usual = is_known && target_is_plain(head) && !bytes.contains(&b'\t');
        return same(is_usual, false, "taken by us alone");
    };
    same(&head.method, &theirs.method, "the method")?;
    same(
        head.target.as_bytes(),
        theirs.target.as_slice(),
        "the target",
    )?;
    same(i32::from(head.minor), theirs.minor, "the version")?;
    same_fields(&head.fields, &theirs.fields)?;
    let mut hosts = theirs
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"host"));
    let their_host = hosts.next().map(|(_, host)| trimmed(host));
    same(host.as_deref().map(str::as_bytes), their_host, "the host")?;
    same(hosts.count(), 0, "more hosts")?;
    // A tunnel has no body, and where it is asked for, whoever states one is refused.
    if head.method == "CONNECT" {
        return Ok(());
    }
    match body {
        // Looked at as well: what stands in the extension of a chunk, or in fields behind the last one, is passed on and
        // means nothing to where the body ends.
        Ok((length, _)) if theirs.is_refused => {
            let taken = bytes.get(head.length..head.length + length);
            let is_more =
                taken.is_some_and(|body| body.contains(&b';') || !body.ends_with(b"0\r\n\r\n"));
            same(is_more, true, "taken by us alone")
        }
        Ok((length, true)) => {
            same(theirs.is_complete, true, "the body ends")?;
            same(
                head.length + length,
                theirs.length,
                "where the next one begins",
            )
        }
        Ok((_, false)) => same(theirs.is_complete, false, "the body goes on"),
        Err(_) => Ok(()),
    }
}

fn same_answer(head: &Answer, body: &Body, theirs: &Message, all: usize) -> Result<(), String> {
    let Ok(framing) = head.framing else {
        return Ok(());
    };
    same(i32::from(head.status), theirs.status, "the status")?;
    same(i32::from(head.minor), theirs.minor, "the version")?;
    if head.status == 101 || theirs.is_refused {
        return Ok(());
    }
    // A blank is no part of a value (RFC 9110, 5.5), and is not passed on; to llhttp a tab is.
    let ends_in_tab = |(_, value): &(Vec<u8>, Vec<u8>)| value.ends_with(b"\t");
    if theirs.fields.iter().any(ends_in_tab) {
        return Ok(());
    }
    match body {
        Ok(_) if framing == Framing::UntilClose => {
            same(
                theirs.is_complete,
                true,
                "the end of the connection ends it",
            )?;
            same(theirs.length, all, "and nothing else")
        }
        Ok((length, true)) => {
            same(theirs.is_complete, true, "the body ends")?;
            same(
                head.length + length,
                theirs.length,
                "where the next one begins",
            )
        }
        Ok((_, false)) => same(theirs.is_complete, false, "the body goes on"),
        Err(_) => Ok(()),
    }
}

type Fields = [(Vec<u8>, Vec<u8>)];

fn same_fields(ours: &Fields, theirs: &Fields) -> Result<(), String> {
    same(ours.len(), theirs.len(), "how many fields")?;
    for ((name, value), (their_name, their_value)) in ours.iter().zip(theirs) {
        same(name, their_name, "the name of a field")?;
        same(trimmed(value), trimmed(their_value), "the value of a field")?;
    }
    Ok(())
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a target is one of those that are passed on as they are.
fn target_is_plain(head: &Head) -> bool {
    let is_path = head.target.starts_with('/') || head.target == "*";
    is_path && head.target.bytes().all(|byte| byte.is_ascii_graphic())
}

fn same<T: PartialEq + std::fmt::Debug>(ours: T, theirs: T, what: &str) -> Result<(), String> {
    match ours == theirs {
        true => Ok(()),
        false => Err(format!("{what}: {ours:?}, and {theirs:?} by llhttp")),
    }
}

/// Those that llhttp knows.
const METHODS: [&str; 34] = [
    "DELETE",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "COPY",
    "LOCK",
    "MKCOL",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "SEARCH",
    "UNLOCK",
    "BIND",
    "REBIND",
    "UNBIND",
    "ACL",
    "REPORT",
    "MKACTIVITY",
    "CHECKOUT",
    "MERGE",
    "M-SEARCH",
    "NOTIFY",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "PATCH",
    "PURGE",
    "MKCALENDAR",
    "LINK",
    "UNLINK",
    "SOURCE",
];

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &[u8] =
        b"POST /x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET ";

    fn read(bytes: &[u8]) -> (Head, Body, Option<Message>) {
        let head = fuzz::request(&[bytes]).unwrap().unwrap();
        let body = body(&head.framing, &bytes[head.length..], 0);
        (head, body, llhttp::read(bytes, Kind::Request))
    }

    #[test]
    fn a_reader_that_reads_otherwise_is_caught() {
        let (head, body, theirs) = read(POST);
        assert_eq!(same_request(POST, &head, &body, theirs.as_ref()), Ok(()));
        type Wrong = (&'static str, fn(&mut Head, &mut Body));
        let wrong: [Wrong; 9] = [
            ("the method", |head, _| head.method = "PUT".into()),
            ("the target", |head, _| head.target = "/".into()),
            ("the version", |head, _| head.minor = 0),
            ("the host", |head, _| {
                head.host = Ok(Some("b.example".into()))
            }),
            ("no host", |head, _| head.host = Ok(None)),
            ("a field", |head, _| head.fields[1].1 = b"identity".into()),
            ("fields", |head, _| drop(head.fields.pop())),
            ("the end", |_, body| *body = Ok((12, true))),
            ("no end", |_, body| *body = Ok((13, false))),
        ];
        for (what, change) in wrong {
            let (mut head, mut body) = (head.clone(), body.clone());
            change(&mut head, &mut body);
            assert!(
                same_request(POST, &head, &body, theirs.as_ref()).is_err(),
                "{what}"
            );
        }
        assert!(
            same_request(POST, &head, &body, None).is_err(),
            "taken by us alone"
        );
    }

    #[test]
    fn an_answer_that_is_read_otherwise_is_caught() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 ";
        let head = fuzz::response(bytes, "GET").unwrap().unwrap();
        let body = body(&head.framing, &bytes[head.length..], 0);
        let theirs = llhttp::read(bytes, Kind::Answer { to_head: false }).unwrap();
        let all = bytes.len();
        assert_eq!(same_answer(&head, &body, &theirs, all), Ok(()));
        assert!(same_answer(&head, &Ok((2, true)), &theirs, all).is_err());
        assert!(same_answer(&head, &Ok((3, false)), &theirs, all).is_err());
        let other = Answer {
            status: 404,
            ..head.clone()
        };
        assert!(same_answer(&other, &body, &theirs, all).is_err());
        let until_close = Answer {
            framing: Ok(Framing::UntilClose),
            ..head
        };
        assert!(same_answer(&until_close, &body, &theirs, all).is_err());
    }
}
