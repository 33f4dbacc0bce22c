//! Who asks, and what becomes of it: the programs here are made up, by a function in place of a sandbox.

use std::sync::atomic::{AtomicUsize, Ordering};

use egret_policy::Program;

use super::*;

/// Somebody who tells programs apart as they are told: the same one for whoever asks.
#[derive(Clone, Default)]
struct Told {
    program: Arc<Mutex<Option<Program>>>,
    asked: Arc<AtomicUsize>,
}

impl Told {
    fn is(&self, executable: Option<&str>) {
        *self.program.lock().unwrap() = executable.map(|executable| Program {
            executable: executable.into(),
            ancestors: vec!["/bin/sh".into(), "/usr/bin/agent".into()],
        });
    }

    fn identify(&self) -> Identify {
        let told = self.clone();
        Identify::new(move |_, _| {
            told.asked.fetch_add(1, Ordering::Relaxed);
            told.program.lock().unwrap().clone()
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    async fn world(&self, policy: &str) -> World {
        let identify = Some(self.identify());
        World::with(
            policy,
            With {
                identify,
                ..With::default()
            },
        )
        .await
    }
}

fn by_curl(port: u16) -> String {
    format!("allow: [{{host: {HOST}, ports: [{port}], by: [/usr/bin/curl]}}]")
}

fn connect(port: u16) -> String {
    format!("CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n")
}

fn get(port: u16) -> String {
    format!("GET http://{HOST}:{port}/ HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n")
}

#[tokio::test]
async fn the_program_is_decided_on_and_on_record_allowed_or_not() {
    let port = echo().await;
    let told = Told::default();
    let world = told.world(&by_curl(port)).await;
    for (program, reason) in [
        (Some("/usr/bin/wget"), "denied.executable"),
        (Some("/usr/bin/curl"), "allowed.host_gateway"),
    ] {
        told.is(program);
        let (answer, _) = world.ask(&connect(port)).await;
        assert_eq!(
            answer.status == 200,
            reason.starts_with("allowed"),
            "{answer:?}"
        );
        let decision = world.decision(reason).await;
        assert_eq!(decision.executable.as_deref(), program);
        assert_eq!(decision.ancestors, ["/bin/sh", "/usr/bin/agent"]);
    }
    told.is(None);
    let (answer, _) = world.ask(&connect(port)).await;
    assert_eq!(answer.reason(), "denied.executable");
    let nobody = |record: &Record| {
        record.reason.as_deref() == Some("denied.executable") && record.executable.is_none()
    };
    assert!(world.record(nobody).await.ancestors.is_empty());
}

#[tokio::test]
async fn nobody_is_known_without_somebody_to_ask() {
    let port = echo().await;
    let world = World::new(&by_curl(port)).await;
    let (answer, _) = world.ask(&connect(port)).await;
    assert_eq!(answer.reason(), "denied.executable");
}

#[tokio::test]
async fn nobody_is_asked_about_where_no_entry_is_about_programs() {
    let port = echo().await;
    let told = Told::default();
    told.is(Some("/usr/bin/curl"));
    let world = told.world(&format!("allow: ['{HOST}:{port}']")).await;
    world.tunnel(&format!("{HOST}:{port}")).await;
    assert_eq!(told.asked(), 0);
    assert_eq!(
        world.decision("allowed.host_gateway").await.executable,
        None
    );
}

#[tokio::test]
async fn everybody_is_on_record_where_that_is_asked_for_and_it_changes_no_decision() {
    let port = echo().await;
    let told = Told::default();
    let with = With {
        identify: Some(told.identify().everybody()),
        ..With::default()
    };
    let world = World::with(&format!("allow: ['{HOST}:{port}']"), with).await;
    for (program, to, reason) in [
        (Some("/usr/bin/curl"), port, "allowed.host_gateway"),
        (Some("/usr/bin/wget"), 9, "denied.host_gateway"),
    ] {
        told.is(program);
        let (answer, _stream) = world.ask(&connect(to)).await;
        assert_eq!(answer.status == 200, to == port, "{answer:?}");
        let decision = world.decision(reason).await;
        assert_eq!(decision.executable.as_deref(), program);
        assert_eq!(decision.ancestors, ["/bin/sh", "/usr/bin/agent"]);
    }
    told.is(None);
    let stream = world.tunnel(&format!("{HOST}:{port}")).await;
    let open = world.gateway.activity().connections;
    let programs = open.iter().map(|open| open.program.as_deref());
    // Of whom nothing can be told nothing is said.
    assert_eq!(programs.collect::<Vec<_>>()[0], None);
    drop(stream);
}

#[tokio::test]
async fn each_request_of_the_forward_door_may_be_somebody_elses() {
    let (port, _) = mirror().await;
    let told = Told::default();
    let world = told.world(&by_curl(port)).await;
    told.is(Some("/usr/bin/curl"));
    let (answer, mut stream) = world.ask(&get(port)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    told.is(Some("/usr/bin/wget"));
    stream.write_all(get(port).as_bytes()).await.unwrap();
    assert_eq!(
        Answer::read(&mut stream, false).await.reason(),
        "denied.executable"
    );
    told.is(Some("/usr/bin/curl"));
    stream.write_all(get(port).as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream, false).await.status, 200);
    assert!(told.asked() >= 3, "{}", told.asked());
}

#[tokio::test]
async fn a_new_policy_is_put_to_the_program_that_made_a_connection() {
    let port = echo().await;
    let told = Told::default();
    let world = told.world(&by_curl(port)).await;
    told.is(Some("/usr/bin/curl"));
    let mut kept = world.tunnel(&format!("{HOST}:{port}")).await;
    told.is(Some("/usr/bin/wget"));
    let both =
        format!("allow: [{{host: {HOST}, ports: [{port}], by: [/usr/bin/curl, /usr/bin/wget]}}]");
    world
        .gateway
        .set_policy(matcher(&both), "policy.yaml", Basis::default());
    let mut lost = world.tunnel(&format!("{HOST}:{port}")).await;
    world
        .gateway
        .set_policy(matcher(&by_curl(port)), "policy.yaml", Basis::default());
    assert!(until_end(&mut lost).await.1);
    assert_eq!(
        world.close().await.reason.as_deref(),
        Some("denied.executable")
    );
    kept.write_all(b"y").await.unwrap();
    assert_eq!(in_time(kept.read_u8()).await.unwrap(), b'y');
}

#[tokio::test]
async fn a_connection_from_when_nobody_was_asked_about_is_nobodys() {
    let port = echo().await;
    let told = Told::default();
    told.is(Some("/usr/bin/curl"));
    let world = told.world(&format!("allow: ['{HOST}:{port}']")).await;
    let mut lost = world.tunnel(&format!("{HOST}:{port}")).await;
    world
        .gateway
        .set_policy(matcher(&by_curl(port)), "policy.yaml", Basis::default());
    assert!(until_end(&mut lost).await.1);
    world.tunnel(&format!("{HOST}:{port}")).await;
}

#[tokio::test]
async fn finding_out_does_not_hold_up_the_others() {
    let port = echo().await;
    let released = Arc::new(std::sync::Barrier::new(2));
    let identify = {
        let released = released.clone();
        Some(Identify::new(move |_, _| {
            released.wait();
            None
        }))
    };
    let policy = format!(
        "allow: [{{host: {HOST}, ports: [{port}], by: [/usr/bin/curl]}}, {{host: other.example.com}}]"
    );
    let world = World::with(
        &policy,
        With {
            identify,
            ..With::default()
        },
    )
    .await;
    let mut waiting = TcpStream::connect(world.proxy).await.unwrap();
    waiting.write_all(connect(port).as_bytes()).await.unwrap();
    // What is not well-formed is refused without asking who it is.
    let (answer, _) = world
        .ask("CONNECT nonsense HTTP/1.1\r\nHost: nonsense\r\n\r\n")
        .await;
    assert_eq!(answer.reason(), "denied.malformed");
    tokio::task::spawn_blocking(move || released.wait())
        .await
        .unwrap();
    assert_eq!(
        Answer::read(&mut waiting, false).await.reason(),
        "denied.executable"
    );
}
