use super::*;
use egret_gateway::audit::Door;

/// A model with a sandbox `s`, that was told these records at noon.
fn told(records: &[&str]) -> Model {
    let mut model = Model::default();
    model.began(about("s"));
    tell(&mut model, records);
    model
}

fn about(name: &str) -> About {
    About {
        name: name.into(),
        runs_in: "process 1".into(),
        program: "sh".into(),
        policy: None,
    }
}

/// Records of `s`, without the fields that all have.
fn tell(model: &mut Model, records: &[&str]) {
    for record in records {
        let line =
            format!(r#"{{"v": 1, "time": "2026-11-22T12:00:00Z", "sandbox": "s", {record}}}"#);
        model.line("s", &line, noon());
    }
}

fn noon() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn row<'a>(model: &'a Model, destination: &str) -> &'a Row {
    let mut rows = model.rows();
    rows.find(|(_, row)| row.destination == destination)
        .unwrap_or_else(|| panic!("no row {destination}: {:#?}", model.sandboxes()))
        .1
}

const ALLOWED: &str = r#""id": "a1", "event": "decision", "verdict": "allow", "reason": "allowed.rule", "rule": "p.yaml:3", "host": "api.example", "port": 443, "dialled": "93.184.216.34:443", "executable": "/usr/bin/curl""#;
const CLOSED: &str = r#""id": "a1", "event": "close", "host": "api.example", "port": 443, "bytes_up": 30, "bytes_down": 900"#;
const REFUSED: &str = r#""id": "a2", "event": "decision", "verdict": "deny", "reason": "denied.default", "host": "api.example", "port": 443, "hint": "--allow api.example:443""#;
const FAILED: &str = r#""id": "a3", "event": "decision", "verdict": "allow", "reason": "allowed.rule", "host": "api.example", "port": 443, "message": "no route""#;

fn connection(id: &str, up: u64, down: u64) -> Connection {
    Connection {
        id: id.into(),
        host: "api.example".into(),
        port: 443,
        door: Door::Connect,
        program: Some("/usr/bin/git".into()),
        since: "2026-11-22T12:00:00Z".into(),
        bytes_up: up,
        bytes_down: down,
    }
}

#[test]
fn a_row_is_a_destination_and_shows_what_was_decided_last() {
    let model = told(&[REFUSED, ALLOWED, FAILED]);
    let row = row(&model, "api.example:443");
    assert_eq!((row.allowed, row.refused, row.failed), (1, 1, 1));
    assert_eq!(row.state, State::Failed);
    assert_eq!(row.programs, ["/usr/bin/curl"]);
    let seen: Vec<_> = row.seen.iter().map(|seen| seen.id.as_str()).collect();
    assert_eq!(seen, ["a3", "a1", "a2"]);
    assert_eq!(row.refusal(), None, "the last decision was no refusal");
}

#[test]
fn what_moves_is_counted_once_whatever_is_heard_first() {
    let open = |up, down| vec![connection("a1", up, down)];
    // A look at it while it is open, and its record: in either order, and without any look.
    for looks in [&[][..], &[(10, 500)], &[(10, 500), (20, 900)], &[(30, 900)]] {
        for gone_before_the_record in [false, true] {
            let mut model = told(&[ALLOWED]);
            for (up, down) in looks {
                model.activity("s", &open(*up, *down), noon());
                assert_eq!(row(&model, "api.example:443").open(), 1);
                assert_eq!(row(&model, "api.example:443").bytes(), (*up, *down));
            }
            if gone_before_the_record {
                model.activity("s", &[], noon());
            }
            tell(&mut model, &[CLOSED]);
            // A picture that is older than the record.
            model.activity("s", &open(25, 800), noon());
            let row = row(&model, "api.example:443");
            assert_eq!(row.bytes(), (30, 900), "{looks:?} {gone_before_the_record}");
            assert_eq!(row.open(), 0);
        }
    }
}

#[test]
fn a_rate_is_of_what_moves_now() {
    let mut model = told(&[ALLOWED]);
    model.activity("s", &[connection("a1", 0, 300)], noon());
    assert_eq!(row(&model, "api.example:443").rates(), (0, 100));
    for _ in 0..3 {
        model.tick();
    }
    assert_eq!(row(&model, "api.example:443").rates(), (0, 0));
    // What has moved before somebody watched is no rate.
    let later: Timestamp = "2026-11-22T13:00:00Z".parse().unwrap();
    let mut model = Model::default();
    model.began(about("s"));
    model.activity("s", &[connection("b", 5, 1_000_000)], later);
    assert_eq!(row(&model, "api.example:443").rates(), (0, 0));
    assert_eq!(row(&model, "api.example:443").bytes(), (5, 1_000_000));
    model.activity("s", &[connection("b", 5, 1_000_300)], later);
    assert_eq!(row(&model, "api.example:443").rates(), (0, 100));
    // Nor is what is read from the log of an hour ago.
    model.line(
        "s",
        &format!(r#"{{"v": 1, "time": "2026-11-22T12:00:00Z", "sandbox": "s", {CLOSED}}}"#),
        later,
    );
    assert_eq!(row(&model, "api.example:443").rates(), (0, 100));
}

#[test]
fn a_question_of_the_resolver_has_a_row_and_a_lookup_has_none() {
    let model = told(&[
        r#""id": "d1", "event": "dns", "verdict": "deny", "reason": "denied.default", "host": "gist.example", "door": "dns""#,
        r#""id": "d2", "event": "dns", "verdict": "allow", "reason": "allowed.rule", "host": "api.example", "port": 443"#,
        r#""id": "d3", "event": "decision", "verdict": "deny", "reason": "denied.default", "host": "localhost", "port": 80, "door": "published""#,
        r#""id": "d4", "event": "decision", "verdict": "deny", "reason": "denied.malformed""#,
        r#""id": "d5", "event": "decision", "verdict": "deny", "reason": "denied.address.loopback", "host": "::1", "port": 80"#,
    ]);
    let mut rows: Vec<_> = model
        .rows()
        .map(|(_, row)| row.destination.clone())
        .collect();
    rows.sort();
    assert_eq!(
        rows,
        ["(nothing)", "[::1]:80", "gist.example", "in: localhost:80"]
    );
}

#[test]
fn a_sandbox_that_makes_up_names_fills_nothing() {
    let mut model = told(&[]);
    for n in 0..20 * MOST_ROWS {
        let name = "x".repeat(2_000);
        tell(
            &mut model,
            &[&format!(
                r#""id": "n{n}", "event": "decision", "verdict": "deny", "reason": "denied.default", "host": "n{n}.{name}", "port": 443, "message": "{name}""#
            )],
        );
    }
    let kept = model.rows().count();
    assert!(
        (MOST_ROWS..=MOST_ROWS + MOST_ROWS / 4).contains(&kept),
        "{kept}"
    );
    let sandbox = model.sandbox("s").unwrap();
    assert_eq!(sandbox.left_out, (20 * MOST_ROWS - kept) as u64);
    let newest = format!("n{}.", 20 * MOST_ROWS - 1);
    assert!(
        model
            .rows()
            .any(|(_, row)| row.destination.starts_with(&newest))
    );
    for (_, row) in model.rows() {
        assert!(row.destination.chars().count() < LONGEST_TEXT + 10);
        let message = row.seen[0].message.as_deref().unwrap();
        assert!(message.chars().count() <= LONGEST_TEXT + 1);
    }
    // The same for what one destination can make grow.
    for n in 0..1_000 {
        let record = REFUSED.replace("a2", &format!("r{n}"));
        tell(&mut model, &[&record]);
        let program = format!(r#"{ALLOWED}, "ancestors": []"#).replace("curl", &format!("p{n}"));
        tell(&mut model, &[&program]);
    }
    let row = row(&model, "api.example:443");
    assert!(row.seen.len() <= 8 && row.programs.len() <= 8);
    assert_eq!(row.programs[0], "/usr/bin/p999");
}

#[test]
fn what_is_open_is_kept_however_old_it_is() {
    let mut model = told(&[ALLOWED]);
    model.activity("s", &[connection("a1", 1, 1)], noon());
    for n in 0..5 * MOST_ROWS {
        let record = REFUSED.replace("api.example", &format!("n{n}.example"));
        tell(&mut model, &[&record]);
    }
    assert_eq!(row(&model, "api.example:443").open(), 1);
}

#[test]
fn nothing_from_a_record_acts_on_a_terminal() {
    let acts = r"\u001b[2J\u202e\u0007\n";
    let fields = [
        "id",
        "reason",
        "rule",
        "note",
        "host",
        "executable",
        "method",
        "path",
        "message",
        "hint",
    ];
    let fields: Vec<_> = fields.map(|name| format!(r#""{name}": "{acts}""#)).into();
    let fields = fields.join(", ");
    let model = told(&[
        &format!(r#""event": "decision", "verdict": "deny", "ancestors": ["{acts}"], {fields}"#),
        &format!(r#""event": "finding", "count": 3, {fields}"#),
        &format!(r#""event": "policy", "action": "{acts}", {fields}"#),
    ]);
    let text = format!("{:?}", model.rows().map(|(_, row)| row).collect::<Vec<_>>());
    // Written out, and again by `Debug`.
    assert!(text.contains(r"\\u{1b}[2J\\u{202e}"), "{text}");
    for (_, row) in model.rows() {
        for text in row.seen.iter().flat_map(|seen| {
            [
                &seen.rule,
                &seen.note,
                &seen.message,
                &seen.hint,
                &seen.request,
                &seen.program,
            ]
            .into_iter()
            .flatten()
            .chain([&seen.id, &seen.reason, &seen.time])
            .chain(&seen.ancestors)
        }) {
            assert!(!text.contains(egret_policy::is_hidden), "{text:?}");
        }
        assert!(!row.destination.contains(egret_policy::is_hidden));
    }
    let note = model.sandbox("s").unwrap().note.as_deref().unwrap();
    assert!(!note.contains(egret_policy::is_hidden), "{note:?}");
}

#[test]
fn a_sandbox_stays_when_it_has_ended_until_its_name_is_taken_again() {
    let mut model = told(&[ALLOWED]);
    model.activity("s", &[connection("a1", 1, 1)], noon());
    model.ended("s");
    assert!(model.sandbox("s").unwrap().ended);
    assert_eq!(row(&model, "api.example:443").open(), 0);
    model.began(about("s"));
    assert!(!model.sandbox("s").unwrap().ended);
    assert_eq!(model.rows().count(), 0);
    for n in 0..100 {
        let name = format!("s{n}");
        model.began(about(&name));
        model.ended(&name);
    }
    assert!(model.sandboxes().len() <= MOST_ENDED + 3);
    assert!(
        model.sandbox("s").is_some(),
        "one that runs is not left out"
    );
}

#[test]
fn the_policy_in_force_is_the_one_that_was_loaded_last() {
    let policy = |action: &str, text: &str| {
        format!(
            r#""id": "p", "event": "policy", "action": "{action}", "message": "p.yaml", "policy": {{"file": "p.yaml", "text": "{text}"}}"#
        )
    };
    let mut model = told(&[&policy("loaded", "one"), &policy("replaced", "two")]);
    let in_force = |model: &Model| {
        let basis = model.sandbox("s").unwrap().basis().cloned();
        basis.and_then(|basis| basis.text)
    };
    assert_eq!(in_force(&model).as_deref(), Some("two"));
    assert_eq!(model.sandbox("s").unwrap().policy(), Some("p.yaml"));
    tell(
        &mut model,
        &[r#""id": "p", "event": "policy", "action": "rejected", "message": "bad""#],
    );
    assert_eq!(in_force(&model).as_deref(), Some("two"));
}
