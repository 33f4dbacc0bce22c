//! What is told of records, against records that say everything there is to say.

use super::*;
use crate::explain::find::Found;
use std::fmt::Write as _;

const POLICY: &str = "version: 1\nallow:\n- {host: api.example, by: [/nowhere/agent]}\n- files.example\n- {host: r.example, ports: [80], http: [GET /a/**]}\ndeny: [bad.example]\n";

/// A log of one run, of which each entry is an event's fields.
fn log(directory: &str, entries: &[&str]) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("egret-{directory}-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let policy = json!({ "file": "/p/agent.yaml", "text": POLICY, "deny": ["flag.example"], "host": ["172.17.0.1", "192.168.7.2"] });
    let mut text = format!(
        r#"{{"v":1,"time":"2026-11-22T09:00:00.000000Z","id":"k3x9qf-1","sandbox":"box","event":"policy","action":"loaded","policy":{policy},"message":"/p/agent.yaml"}}"#
    );
    for (number, entry) in entries.iter().enumerate() {
        let (number, id) = (number + 10, number + 2);
        let id = if entry.contains("\"id\"") {
            String::new()
        } else {
            format!(r#""id":"k3x9qf-{id}","#)
        };
        write!(text, "\n{{\"v\":1,\"time\":\"2026-11-22T09:00:{number}.000000Z\",{id}\"sandbox\":\"box\",{entry}}}").unwrap();
    }
    text.push('\n');
    let path = directory.join("log.jsonl");
    std::fs::write(&path, text).unwrap();
    path
}

fn told(path: &std::path::Path, id: &str) -> (Found, Told, String) {
    let found = by_id(id, Some(path)).unwrap();
    let told = retell(&found);
    let mut page = Page::new(false);
    tell(&found, &told, &mut page);
    let text = page.as_str().to_owned();
    (found, told, text)
}

#[test]
fn a_decision_is_taken_once_more_by_the_policy_of_then() {
    let decision = |rest: &str| format!(r#""event":"decision","door":"connect","port":443,{rest}"#);
    #[rustfmt::skip]
    let table = [
        (decision(r#""verdict":"deny","reason":"denied.default","host":"other.example""#),
            "denied (denied.default)", "or run with --allow other.example:443", false),
        (decision(r#""verdict":"deny","reason":"denied.rule","host":"bad.example""#),
            "denied (denied.rule) by /p/agent.yaml:6", "a deny entry matches", false),
        (decision(r#""verdict":"deny","reason":"denied.rule","host":"flag.example""#),
            "denied (denied.rule) by --deny\n", "", false),
        (decision(r#""verdict":"deny","reason":"denied.executable","host":"api.example","executable":"/usr/bin/curl","ancestors":["/bin/sh"]"#),
            "denied (denied.executable)", "asked by /usr/bin/curl, which /bin/sh started", false),
        (decision(r#""verdict":"allow","reason":"allowed.rule","host":"api.example","executable":"/nowhere/agent","addresses":["93.184.216.34"],"dialled":"93.184.216.34:443""#),
            "allowed (allowed.rule)", "93.184.216.34 is public", false),
        // What counted as the host is on record, and need not be the host's any more.
        (decision(r#""verdict":"deny","reason":"denied.address.host","host":"files.example","addresses":["192.168.7.2"]"#),
            "denied (denied.address.host)", "192.168.7.2 is host", false),
        (decision(r#""verdict":"allow","reason":"allowed.rule","host":"files.example","message":"it did not answer""#),
            "allowed (allowed.rule)", "it failed on the way there", true),
        (decision(r#""verdict":"deny","reason":"denied.limit","limit":"connections","host":"files.example""#),
            "allowed (allowed.rule)", "a bound was reached (connections)", true),
        (decision(r#""verdict":"deny","reason":"denied.name_mismatch","host":"files.example""#),
            "allowed (allowed.rule)", "what was spoken on the connection", true),
        (decision(r#""verdict":"deny","reason":"denied.default","host":"files.example""#),
            "allowed (allowed.rule)", "something was known then", true),
        (decision(r#""verdict":"deny","reason":"denied.malformed","host":"a\u001b[2J b""#),
            "denied (denied.malformed)", "", false),
        (r#""event":"decision","door":"forward","port":80,"verdict":"deny","reason":"denied.request","host":"r.example","method":"PUT","path":"/b""#.into(),
            "denied (denied.request)", "PUT", false),
        (r#""event":"dns","door":"dns","verdict":"deny","reason":"denied.default","host":"other.example","query":"A""#.into(),
            "denied (denied.default)", "--allow other.example", false),
        (r#""event":"decision","door":"published","port":8000,"peer":"10.0.0.1:1","verdict":"deny","reason":"denied.protocol","host":"x""#.into(),
            "published port", "the record has the reason", false),
        (r#""event":"decision","door":"packet","port":53,"verdict":"deny","reason":"denied.protocol","host":"1.1.1.1""#.into(),
            "No policy decides about it", "", false),
        (r#""event":"lifecycle","action":"started""#.into(),
            "no decision", "", false),
    ];
    let entries: Vec<&str> = table.iter().map(|(entry, ..)| entry.as_str()).collect();
    let path = log("again", &entries);
    for (place, (entry, verdict, more, differs)) in table.iter().enumerate() {
        let (_, told, text) = told(&path, &format!("k3x9qf-{}", place + 2));
        assert!(
            text.contains(verdict) && text.contains(more),
            "{entry}: {text}"
        );
        assert_eq!(told.difference.is_some(), *differs, "{entry}: {text}");
        let acts = |c: char| c != '\n' && egret_policy::is_hidden(c);
        assert!(!text.contains(acts), "{text:?}");
    }
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn the_policy_is_that_of_the_moment_and_the_refusal_is_what_counts() {
    let new = json!({ "file": "/p/new.yaml", "text": "version: 1\ndefault: deny", "host": ["172.17.0.1"] });
    let replaced =
        format!(r#""event":"policy","action":"replaced","message":"/p/new.yaml","policy":{new}"#);
    let other = format!(
        r#""id":"zzzzzz-1","event":"policy","action":"loaded","message":"/p/other.yaml","policy":{new}"#
    );
    let decision =
        r#""id":"k3x9qf-a","event":"decision","door":"captured","host":"files.example","port":443"#;
    let path = log(
        "moment",
        &[
            // Of another run that writes to the same file.
            &other,
            &format!(
                r#"{decision},"verdict":"allow","reason":"allowed.rule","dialled":"93.184.216.34:443""#
            ),
            &format!(r#"{decision},"verdict":"deny","reason":"denied.name_mismatch""#),
            r#""id":"k3x9qf-a","event":"close","door":"captured","host":"files.example","port":443,"bytes_up":1,"bytes_down":2,"duration_ms":3"#,
            &replaced,
            r#""id":"k3x9qf-b","event":"decision","door":"captured","host":"files.example","port":443,"verdict":"deny","reason":"denied.default""#,
        ],
    );
    let (found, _, text) = told(&path, "k3x9qf-a");
    assert_eq!(found.records.len(), 3);
    assert_eq!(
        found.decisive.reason.as_deref(),
        Some("denied.name_mismatch")
    );
    assert!(
        text.contains("/p/agent.yaml") && !text.contains("new.yaml"),
        "{text}"
    );
    let (found, told, text) = told(&path, "k3x9qf-b");
    assert!(
        text.contains("By the policy of 2026-11-22T09:00:14.000000Z, /p/new.yaml:"),
        "{text}"
    );
    assert_eq!(told.difference, None);
    let value = described(&found, &told);
    assert_eq!(value["verdict"], "deny");
    assert_eq!(value["records"][0]["id"], "k3x9qf-b");
    assert_eq!(value["policy"]["policy"]["file"], "/p/new.yaml");
    for (id, says) in [
        ("k3x9qf-zz", "has the id"),
        ("nothing", "is no id"),
        ("-", "is no id"),
    ] {
        let error = by_id(id, Some(&path)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let about = find::about(Some("box"), Some(&path), "FILES.example").unwrap();
    assert_eq!(about.records.len(), 3);
    assert_eq!(
        about.policy.unwrap().message.as_deref(),
        Some("/p/new.yaml")
    );
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn a_policy_that_is_not_on_record_is_not_made_up() {
    let long = json!({ "file": "/p/long.yaml", "left_out": 300_000, "host": ["172.17.0.1"] });
    let decision = r#""id":"k3x9qf-b","event":"decision","door":"captured","host":"files.example","port":443,"verdict":"deny","reason":"denied.default""#;
    let replaced = format!(r#""event":"policy","action":"replaced","policy":{long}"#);
    let path = log("absent", &[&replaced, decision]);
    let (_, told, text) = told(&path, "k3x9qf-b");
    assert!(text.contains("300000 bytes"), "{text}");
    assert!(told.explanation.is_err());
    let only = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, only.lines().last().unwrap().to_owned() + "\n").unwrap();
    let (found, _, text) = super::tests::told(&path, "k3x9qf-b");
    assert!(
        found.policy.is_none() && text.contains("a part of it is missing"),
        "{text}"
    );
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn without_a_port_the_one_that_was_asked_for_last_is_meant() {
    let decision = |host: &str, port: u16| {
        format!(
            r#""event":"decision","door":"forward","verdict":"deny","reason":"denied.default","host":"{host}","port":{port}"#
        )
    };
    let entries = [
        decision("other.example", 8080),
        decision("other.example", 80),
        decision("third.example", 22),
        decision("2001:db8::1", 25),
    ];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let path = log("ports", &entries);
    for (asked, meant, records) in [
        ("other.example", "other.example:80", 2),
        ("other.example:8080", "other.example:8080", 1),
        ("other.example:443", "other.example:443", 0),
        ("https://other.example", "https://other.example", 0),
        ("2001:db8::1", "[2001:db8::1]:25", 1),
        ("[2001:db8::1]", "[2001:db8::1]:25", 1),
        ("[2001:db8::1]:26", "[2001:db8::1]:26", 0),
        ("never.example", "never.example", 0),
    ] {
        let found = find::about(None, Some(&path), asked).unwrap();
        assert_eq!(
            (&*found.meant(asked), found.records.len()),
            (meant, records),
            "{asked}"
        );
    }
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}
