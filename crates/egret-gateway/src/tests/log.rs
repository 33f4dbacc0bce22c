//! The audit log, and what happens without it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::time::Instant;

use egret_policy::{Denial, Reason};
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;
use crate::audit::Door;

#[tokio::test]
async fn without_a_log_nothing_passes() {
    let (port, got) = sink().await;
    let limits = Limits {
        audit_wait: Duration::from_millis(200),
        ..Limits::default()
    };
    let with = With {
        limits,
        log: Some("/dev/full".into()),
        ..With::default()
    };
    let world = World::with(&format!("allow: ['{HOST}:{port}']"), with).await;
    let (answer, _) = world
        .ask(&format!("CONNECT {HOST}:{port} HTTP/1.1\r\n\r\nsecret"))
        .await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "denied.limit")
    );
    assert!(
        answer.json()["error"]
            .as_str()
            .unwrap()
            .contains("audit log")
    );
    let (answer, _) = world
        .ask(&format!(
            "GET http://{HOST}:{port}/ HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n"
        ))
        .await;
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (503, "denied.limit")
    );
    let (answer, _) = world.ask("CONNECT evil.example:1 HTTP/1.1\r\n\r\n").await;
    assert_eq!(answer.reason(), "denied.default");
    assert!(got.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_connection_waits_for_the_log_and_no_line_is_torn_or_doubled() {
    let port = echo().await;
    // A pipe that is full refuses like a full disk does, until somebody makes room.
    let (mut read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)
        .map(|(read, write)| (File::from(read), File::from(write)))
        .unwrap();
    rustix::pipe::fcntl_setpipe_size(&write, 4096).unwrap();
    let mut filler = write.try_clone().unwrap();
    filler.write_all(&[b' '; 4096]).unwrap();
    let log = Log::from_file(write).unwrap();
    let record = |id: &str| {
        crate::audit::Record::new(Event::Lifecycle, id.to_owned(), "test")
            .action("start")
            .message("m".repeat(6000))
    };
    // Longer than what a pipe takes as a whole or not at all.
    let waiting = tokio::spawn({
        let log = log.clone();
        let in_time = Duration::from_secs(5);
        let write = move |id: &str| log.write(record(id), in_time);
        async move {
            let (one, two, three) = (write("aaaaaa-1"), write("aaaaaa-2"), write("aaaaaa-3"));
            // Whoever comes first finishes what the others have begun, and has a line of its own torn.
            tokio::join!(three, two, one)
        }
    });
    sleep(Duration::from_millis(120)).await;
    assert!(!waiting.is_finished());
    let mut text = Vec::new();
    let begun = Instant::now();
    // Little by little, so that lines are taken in pieces.
    while !waiting.is_finished() && begun.elapsed() < Duration::from_secs(5) {
        let mut piece = [0; 1000];
        if let Ok(length) = read.read(&mut piece) {
            text.extend_from_slice(&piece[..length]);
        }
        sleep(Duration::from_millis(20)).await;
    }
    let (three, two, one) = waiting.await.unwrap();
    three.and(two).and(one).unwrap();
    let mut piece = [0; 8192];
    while let Ok(length @ 1..) = read.read(&mut piece) {
        text.extend_from_slice(&piece[..length]);
    }
    let text = String::from_utf8(text).unwrap();
    let ids: Vec<_> = text
        .trim_start()
        .lines()
        .map(|line| serde_json::from_str::<Record>(line).unwrap().id)
        .collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(
        ids.iter().collect::<std::collections::HashSet<_>>().len(),
        3
    );
    let _ = port;
}

#[tokio::test]
async fn records_that_were_lost_are_told_of_once_there_is_room() {
    let (mut read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)
        .map(|(read, write)| (File::from(read), File::from(write)))
        .unwrap();
    rustix::pipe::fcntl_setpipe_size(&write, 4096).unwrap();
    write.try_clone().unwrap().write_all(&[b' '; 4096]).unwrap();
    let log = Log::from_file(write).unwrap();
    let record = |log: &Log| Record::new(Event::Lifecycle, log.id(), "test").action("start");
    assert!(
        log.write(record(&log), Duration::from_millis(100))
            .await
            .is_err()
    );
    let mut text = vec![0; 8192];
    let _ = read.read(&mut text).unwrap();
    log.write(record(&log), Duration::from_millis(100))
        .await
        .unwrap();
    let length = read.read(&mut text).unwrap();
    let lines: Vec<_> = std::str::from_utf8(&text[..length])
        .unwrap()
        .lines()
        .map(checked_record)
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (lines[0].event, lines[0].action.as_deref(), lines[0].count),
        (Event::Finding, Some("records_lost"), Some(1))
    );
}

#[tokio::test]
async fn a_policy_is_told_before_what_it_decides_and_whole() {
    let (mut read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)
        .map(|(read, write)| (File::from(read), File::from(write)))
        .unwrap();
    rustix::pipe::fcntl_setpipe_size(&write, 4096).unwrap();
    write.try_clone().unwrap().write_all(&[b' '; 4096]).unwrap();
    let with = With {
        file: Some(write),
        ..With::default()
    };
    let world = World::with("default: deny", with).await;
    let basis = |text: &str| Basis {
        allow: vec!["a.example".into()],
        ..Basis::default().with_text(text.as_bytes())
    };
    // Nothing of these can be written when they come, and they are longer than the pipe.
    let texts = ["one: 1\n".repeat(2000), "two: 2\n".repeat(2000)];
    for text in &texts {
        world
            .gateway
            .set_policy(matcher("default: deny"), "policy.yaml", basis(text));
    }
    let world = Arc::new(world);
    let asking = tokio::spawn({
        let world = world.clone();
        async move { world.ask("CONNECT evil.example:1 HTTP/1.1\r\n\r\n").await }
    });
    let mut text = Vec::new();
    while text.split(|&byte| byte == b'\n').count() < 4 {
        let mut piece = [0; 4096];
        if let Ok(length) = read.read(&mut piece) {
            text.extend_from_slice(&piece[..length]);
        }
        sleep(Duration::from_millis(5)).await;
    }
    asking.await.unwrap();
    let text = String::from_utf8(text).unwrap();
    let records: Vec<_> = text.trim().lines().map(checked_record).collect();
    let told = records.iter().filter_map(|record| record.policy.as_ref());
    let told: Vec<_> = told.map(|policy| policy.text.clone().unwrap()).collect();
    assert_eq!(told, texts);
    assert_eq!(records[0].policy.as_ref().unwrap().allow, ["a.example"]);
    assert_eq!(records[2].event, Event::Decision);
    let long = "#".repeat(Basis::LONGEST_TEXT + 1);
    assert_eq!(basis(&long).left_out, Some(long.len() as u64));
    assert_eq!(basis(&long).text, None);
}

#[tokio::test]
async fn a_reader_that_does_not_keep_up_holds_connections_and_not_the_gateway() {
    // As standard output is in a container: nobody made it non-blocking.
    let (mut read, write) = pipe_with(PipeFlags::CLOEXEC)
        .map(|(read, write)| (File::from(read), File::from(write)))
        .unwrap();
    rustix::pipe::fcntl_setpipe_size(&write, 4096).unwrap();
    let port = echo().await;
    let with = With {
        limits: Limits {
            audit_wait: Duration::from_millis(300),
            ..Limits::default()
        },
        file: Some(write),
        ..With::default()
    };
    let world = World::with(&format!("allow: ['{HOST}:{port}']"), with).await;
    let request = format!("CONNECT {HOST}:{port} HTTP/1.1\r\n\r\n");
    let mut held = Vec::new();
    let begun = Instant::now();
    let refused = loop {
        let (answer, stream) = world.ask(&request).await;
        match answer.status {
            200 => held.push(stream),
            _ => break answer,
        }
        assert!(held.len() < 100);
    };
    assert_eq!(
        (refused.status, refused.reason().as_str()),
        (503, "denied.limit")
    );
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // Those that are open go on, and one that waits is let through when there is room.
    let stream = &mut held[0];
    stream.write_all(b"x").await.unwrap();
    assert_eq!(in_time(stream.read_u8()).await.unwrap(), b'x');
    let (waited, text) = tokio::join!(world.ask(&request), async {
        sleep(Duration::from_millis(100)).await;
        let mut text = vec![0; 4096];
        let length = read.read(&mut text).unwrap();
        text.truncate(length);
        text
    });
    assert_eq!(waited.0.status, 200);
    assert!(text.starts_with(b"{\"v\":1,"));
    // Nobody reads any more: the end comes all the same.
    let begun = Instant::now();
    in_time(world.gateway.shutdown()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn nothing_that_a_terminal_obeys_reaches_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Log::to_file(&path).unwrap();
    let nasty = "a\u{1b}[31m\r\n\t\"\\\u{7f}\u{85}\u{202e}\u{2066}\u{200f}\u{feff}\u{2028}\u{e0041}é\u{1f980}";
    let mut record = Record::new(Event::Finding, log.id(), "test")
        .action("test")
        .message(nasty.to_owned());
    record.host = Some(nasty.to_owned());
    log.write_now(&record).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let raw = text.strip_suffix('\n').unwrap();
    assert!(
        raw.chars()
            .all(|character| (' '..='~').contains(&character) || "é\u{1f980}".contains(character)),
        "{raw:?}"
    );
    assert_eq!(serde_json::from_str::<Record>(raw).unwrap(), record);
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn ids_are_short_and_all_different() {
    let mut file = tempfile::tempfile().unwrap();
    let log = Log::from_file(file.try_clone().unwrap()).unwrap();
    let ids: std::collections::HashSet<_> = (0..2000).map(|_| log.id()).collect();
    assert_eq!(ids.len(), 2000);
    assert!(
        ids.iter()
            .all(|id| id.len() <= 10 && id.as_bytes()[6] == b'-'),
        "{ids:?}"
    );
    log.lifecycle(&"test".parse().unwrap(), "start", "the sandbox starts")
        .unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(checked_record(text.trim_end()).event, Event::Lifecycle);
}

#[test]
fn appending_goes_to_the_end_of_what_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (one, two) = (Log::to_file(&path).unwrap(), Log::to_file(&path).unwrap());
    for log in [&one, &two, &one] {
        log.lifecycle(&"test".parse().unwrap(), "start", "x")
            .unwrap();
    }
    OpenOptions::new().append(true).open(&path).unwrap();
    assert_eq!(
        std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(checked_record)
            .count(),
        3
    );
}

#[tokio::test]
async fn a_flood_of_refusals_becomes_a_finding() {
    let limits = Limits {
        refusal_burst: 5,
        refusals_per_second: 20,
        ..Limits::default()
    };
    let world = World::with(
        "default: deny",
        With {
            limits,
            ..With::default()
        },
    )
    .await;
    let denial =
        || crate::refused::Refused::Denied(Denial::new(Reason::DeniedDefault, "x:1", "no"));
    for _ in 0..100 {
        world
            .gateway
            .refused(&world.gateway.log.id(), Door::Connect, None, &denial())
            .await;
    }
    assert!(world.records().len() < 30);
    sleep(Duration::from_millis(200)).await;
    world
        .gateway
        .refused(&world.gateway.log.id(), Door::Connect, None, &denial())
        .await;
    let records = world.records();
    let told: u64 = records.iter().filter_map(|record| record.count).sum();
    let single = records
        .iter()
        .filter(|record| record.event == Event::Decision)
        .count() as u64;
    assert_eq!(told + single, 101);
    assert_eq!(world.gateway.refusals()[0].count, 101);
}

#[test]
fn the_documented_examples_are_records_and_every_field_is_documented() {
    let page = include_str!("../../../../docs/audit-log.md");
    let examples: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("{\"v\":"))
        .map(checked_record)
        .collect();
    assert_eq!(examples.len(), 3);
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/audit.schema.json")).unwrap();
    for field in schema["properties"].as_object().unwrap().keys() {
        assert!(
            page.contains(&format!("`{field}`")),
            "docs/audit-log.md does not explain `{field}`"
        );
    }
    for limit in schema["properties"]["limit"]["enum"].as_array().unwrap() {
        assert!(
            page.contains(&format!("`{}`", limit.as_str().unwrap())),
            "{limit}"
        );
    }
}

#[tokio::test]
async fn passwords_and_queries_stay_out_of_the_log() {
    let (port, _) = mirror().await;
    let world = World::open_to(port).await;
    let there = format!("{HOST}:{port}");
    for request in [
        format!("CONNECT u:hunter2@{there} HTTP/1.1\r\n\r\n"),
        format!("GET http://u:hunter2@{there}/ HTTP/1.1\r\nHost: {there}\r\n\r\n"),
        format!("GET https://u:hunter2@{there}/ HTTP/1.1\r\nHost: {there}\r\n\r\n"),
        format!(
            "GET http://{there}/?hunter2 HTTP/1.1\r\nHost: u:hunter2@{there}\r\nAuthorization: hunter2\r\n\r\n"
        ),
        format!("GET http://{there}/?hunter2 HTTP/1.1\r\nHost: {there}\r\nCookie: hunter2\r\n\r\n"),
    ] {
        world.ask(&request).await;
    }
    for request in [
        format!("GET http://u:hunter2@{there}/?hunter2 HTTP/1.1\r\nHost: {there}\r\n\r\n"),
        "GET /?hunter2 HTTP/1.1\r\nHost: u:hunter2@evil.example\r\n\r\n".to_owned(),
    ] {
        let mut stream = world.tunnel(&there).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(Answer::read(&mut stream, false).await.status >= 400);
    }
    assert!(world.records().len() > 10);
    let text = std::fs::read_to_string(&world.log).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
}
