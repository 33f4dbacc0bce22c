//! What is made of attempts, sightings and records.

use super::OPEN;
use super::judge::{Evidence, Finding, Verification, judge};
use super::plan::{Around, Attempt, Granted, Outcome, Plan, Recorded};
use super::report::Report;
use super::sinks::{BLIND, CONTROL, QUESTION, REBOUND, Sighting};
use super::subject::Told;

fn plan() -> Plan {
    Plan {
        nonce: "0123456789ab".into(),
        hosts: Vec::new(),
        ports: [(1, 40001), (4, 40004), (24, 40024)].into(),
        udp: 40000,
        abstract_socket: String::new(),
        control_socket: String::new(),
        paths: Vec::new(),
        own: Vec::new(),
        processes: Vec::new(),
        granted: Some(Granted {
            port: 40100,
            zone: "0123456789ab.verify.egret.test".into(),
            resolver: "127.0.0.1:40053".parse().unwrap(),
        }),
        proxy: Some(1),
        around: Around::Sealed,
        names_are_open: false,
        host_is_open: false,
    }
}

fn attempt(class: u8, outcome: Outcome, ms: u64, record: Option<Recorded>) -> Attempt {
    Attempt {
        class,
        what: format!("attempt {class}"),
        outcome,
        ms,
        record,
    }
}

fn refused() -> Outcome {
    Outcome::Refused("no".into())
}

/// A prober that came to its end in a sealed sandbox, and saw that the sink behind the gateway is there.
fn evidence(attempts: Vec<Attempt>, log: &str) -> Evidence {
    let control = attempt(CONTROL, Outcome::Through("200".into()), 1, None);
    Evidence {
        told: Told {
            around: Around::Sealed,
            attempts: [vec![control], attempts].concat(),
            complete: true,
        },
        sightings: [sighting(CONTROL)]
            .into_iter()
            .chain(REBOUND.map(|label| Sighting {
                class: QUESTION,
                what: format!("{label}.0123456789ab.verify.egret.test"),
            }))
            .collect(),
        log: Some(format!("{ALLOWED}\n{log}").into_bytes()),
    }
}

fn sighting(class: u8) -> Sighting {
    Sighting {
        class,
        what: "a connection".into(),
    }
}

const ALLOWED: &str = r#"{"v":1,"time":"2026-11-22T09:00:00Z","id":"a","sandbox":"s","event":"decision","verdict":"allow","host":"host.docker.internal","port":40100}"#;
const DENIED: &str = r#"{"v":1,"time":"2026-11-22T09:00:00Z","id":"d","sandbox":"s","event":"decision","verdict":"deny","host":"x.test","port":40001}"#;

#[track_caller]
fn of_class(number: u8, plan: &Plan, evidence: &Evidence) -> (Verification, String) {
    let findings = judge(plan, evidence);
    let Finding {
        result, evidence, ..
    } = findings
        .into_iter()
        .find(|finding| finding.class == number)
        .unwrap();
    (result, evidence.join("; "))
}

#[test]
fn a_refusal_has_to_be_quick_and_on_record() {
    use Verification::{Held, Imperfect};
    let by = |recorded| Some(recorded);
    for (attempt, result) in [
        (attempt(1, refused(), 1, None), Held),
        (attempt(1, refused(), 1, by(Recorded::Port(40001))), Held),
        (attempt(1, refused(), 1, by(Recorded::Id("d".into()))), Held),
        (
            attempt(1, refused(), 1, by(Recorded::Name("X.test".into()))),
            Held,
        ),
        (attempt(1, Outcome::Sent, 1, None), Held),
        (
            attempt(1, refused(), 1, by(Recorded::Port(40004))),
            Imperfect,
        ),
        // What was allowed is no record of a refusal.
        (
            attempt(1, refused(), 1, by(Recorded::Id("a".into()))),
            Imperfect,
        ),
        (attempt(1, refused(), 2_500, None), Imperfect),
    ] {
        let found = of_class(1, &plan(), &evidence(vec![attempt.clone()], DENIED));
        assert_eq!(found.0, result, "{attempt:?}: {}", found.1);
    }
}

#[test]
fn what_arrives_or_gets_through_is_a_leak_whatever_else_is_said() {
    let held = vec![attempt(4, refused(), 1, None)];
    let mut seen = evidence(held, "");
    seen.sightings.push(sighting(4));
    let (result, why) = of_class(4, &plan(), &seen);
    assert_eq!(
        (result, why.as_str()),
        (Verification::Leaked, "seen outside: a connection")
    );
    // Even of a class that is not tried, or by a prober that did not come to its end.
    seen.sightings.push(sighting(30));
    seen.told.complete = false;
    assert_eq!(of_class(30, &plan(), &seen).0, Verification::Leaked);
    assert_eq!(of_class(4, &plan(), &seen).0, Verification::Leaked);

    let through = vec![
        attempt(4, refused(), 1, None),
        attempt(4, Outcome::Through("ok".into()), 1, None),
    ];
    assert_eq!(
        of_class(4, &plan(), &evidence(through, "")).0,
        Verification::Leaked
    );

    let log = format!("{DENIED}\n{{\"a line that is no record");
    let said = vec![attempt(32, refused(), 1, None)];
    assert_eq!(
        of_class(32, &plan(), &evidence(said.clone(), DENIED)).0,
        Verification::Held
    );
    assert_eq!(
        of_class(32, &plan(), &evidence(said, &log)).0,
        Verification::Leaked
    );
}

#[test]
fn what_could_not_be_tried_has_not_held() {
    use Verification::{NotTried, Skipped};
    let none = evidence(Vec::new(), "");
    assert_eq!(of_class(4, &plan(), &none).0, Skipped);
    let impossible = evidence(
        vec![attempt(4, Outcome::Impossible("why".into()), 1, None)],
        "",
    );
    assert_eq!(of_class(4, &plan(), &impossible), (Skipped, "why".into()));
    // The others show nothing about it.
    let one_of_two = evidence(
        vec![
            attempt(4, refused(), 1, None),
            attempt(4, Outcome::Impossible("why".into()), 1, None),
        ],
        "",
    );
    assert_eq!(of_class(4, &plan(), &one_of_two), (Skipped, "why".into()));
    let open = evidence(
        vec![attempt(4, Outcome::NotMeant(OPEN.into()), 1, None)],
        "",
    );
    assert_eq!(of_class(4, &plan(), &open).0, NotTried);
    let mut broken_off = evidence(vec![attempt(4, refused(), 1, None)], "");
    broken_off.told.complete = false;
    assert_eq!(of_class(4, &plan(), &broken_off).0, Skipped);
}

#[test]
fn what_is_not_seen_behind_the_gateway_shows_nothing_unless_what_is_allowed_was() {
    use Verification::{Held, Imperfect, NotTried, Skipped};
    let said = || vec![attempt(24, refused(), 1, None)];
    assert_eq!(of_class(24, &plan(), &evidence(said(), "")).0, Held);

    let mut unseen = evidence(said(), "");
    unseen.sightings.clear();
    assert_eq!(of_class(24, &plan(), &unseen).0, Skipped);

    let mut unreached = evidence(said(), "");
    unreached.told.attempts[0].outcome = refused();
    assert_eq!(of_class(24, &plan(), &unreached).0, Skipped);

    let mut unrecorded = evidence(said(), "");
    unrecorded.log = Some(DENIED.into());
    assert_eq!(of_class(24, &plan(), &unrecorded).0, Imperfect);

    // A sandbox that runs has no such server.
    let mut running = evidence(Vec::new(), "");
    running.told.attempts.clear();
    let plan = Plan {
        granted: None,
        ..plan()
    };
    assert_eq!(of_class(24, &plan, &running).0, NotTried);
}

#[test]
fn what_nobody_could_see_has_not_held() {
    use Verification::{Held, Skipped};
    let held = || evidence(vec![attempt(14, refused(), 1, None)], "");
    assert_eq!(of_class(14, &plan(), &held()).0, Held);
    // Names that were never resolved have led nowhere, whatever is made of what they resolve to.
    let mut unasked = held();
    unasked
        .sightings
        .retain(|seen| !seen.what.starts_with("mapped"));
    assert_eq!(of_class(14, &plan(), &unasked).0, Skipped);
    let mut blind = evidence(vec![attempt(4, refused(), 1, None)], "");
    blind.sightings.push(sighting(BLIND));
    assert_eq!(of_class(4, &plan(), &blind).0, Skipped);
}

#[test]
fn a_log_that_leaves_refusals_out_shows_nothing() {
    let flood = DENIED
        .replace("decision", "finding")
        .replace(r#""verdict""#, r#""action":"refusal_flood","verdict""#);
    let recorded = attempt(1, refused(), 1, Some(Recorded::Port(40001)));
    let missing = attempt(1, refused(), 1, Some(Recorded::Port(40004)));
    for (attempt, result) in [
        (recorded, Verification::Held),
        (missing, Verification::Skipped),
    ] {
        let found = of_class(1, &plan(), &evidence(vec![attempt], &flood));
        assert_eq!(found.0, result, "{}", found.1);
    }
}

#[test]
fn a_line_that_is_not_understood_makes_what_is_told_incomplete() {
    let line = serde_json::to_string(&attempt(1, refused(), 1, None)).unwrap();
    let read = |lines: &[&str]| {
        let lines = lines.iter().map(|line| (*line).to_owned());
        Told::read(["\"sealed\"".to_owned()].into_iter().chain(lines))
    };
    for (lines, complete) in [
        (&[line.as_str(), ""][..], true),
        (&[&line], false),
        (&[&line, &line[..9], ""], false),
        (&["", &line[..9]], false),
    ] {
        assert_eq!(read(lines).unwrap().complete, complete, "{lines:?}");
    }
}

#[test]
fn all_is_well_only_if_nothing_leaked_and_nothing_was_skipped() {
    let findings = |result| {
        let mut findings = judge(&plan(), &evidence(Vec::new(), ""));
        findings.truncate(1);
        findings[0].result = result;
        Report::new("s".into(), findings, 1).holds
    };
    assert!(findings(Verification::Held) && findings(Verification::NotTried));
    for result in [
        Verification::Leaked,
        Verification::Imperfect,
        Verification::Skipped,
    ] {
        assert!(!findings(result), "{result:?}");
    }
}

#[test]
fn a_token_tells_the_class() {
    let plan = plan();
    for class in [0, 1, 24, 35] {
        let sent = format!("\x16\x03 {} \r\n", plan.token(class).to_uppercase());
        assert_eq!(Plan::class_in(&plan.nonce, sent.as_bytes()), Some(class));
    }
    for other in ["", "-0123456789ab", "x-0123456789ab", "t01-0123456789ac"] {
        assert_eq!(
            Plan::class_in(&plan.nonce, other.as_bytes()),
            None,
            "{other}"
        );
    }
}
