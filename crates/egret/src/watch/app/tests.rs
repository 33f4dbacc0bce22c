use super::*;
use egret_gateway::Question;
use jiff::Timestamp;

const SECOND: Duration = Duration::from_secs(1);

/// A screen with a sandbox `s`, where these were refused, with these hints.
fn app(refused: &[(&str, Option<&str>)]) -> App {
    let mut app = App::default();
    app.model.began(About {
        name: "s".into(),
        runs_in: "process 1".into(),
        program: "sh".into(),
        policy: None,
    });
    for (host, hint) in refused {
        let hint = hint
            .map(|hint| format!(r#", "hint": "{hint}""#))
            .unwrap_or_default();
        tell(
            &mut app,
            &format!(
                r#""verdict": "deny", "reason": "denied.default", "host": "{host}", "port": 443{hint}"#
            ),
        );
    }
    app
}

fn tell(app: &mut App, record: &str) {
    let line = format!(
        r#"{{"v": 1, "time": "2026-11-22T12:00:00Z", "id": "i", "sandbox": "s", "event": "decision", {record}}}"#
    );
    app.model.line("s", &line, Timestamp::UNIX_EPOCH);
}

/// Types, as slowly as a person does who looks first. Gives the last effect.
fn press(app: &mut App, keys: &str, now: &mut Instant) -> Option<Effect> {
    let mut effect = None;
    for key in keys.chars() {
        *now += SECOND;
        let key = match key {
            '\n' => Pressed::Enter,
            '\u{1b}' => Pressed::Escape,
            letter => Pressed::Letter(letter),
        };
        effect = app.press(key, *now);
    }
    effect
}

fn shown(app: &App) -> Vec<String> {
    app.lines()
        .iter()
        .map(|line| line.row.destination.clone())
        .collect()
}

fn under_cursor(app: &App) -> String {
    let lines = app.lines();
    app.cursor(&lines).unwrap().1.row.destination.clone()
}

fn question(id: &str) -> Question {
    Question {
        id: id.into(),
        destination: format!("{id}.example:443"),
        host: format!("{id}.example"),
        port: 443,
        program: Some("/usr/bin/curl".into()),
        reason: "denied.default".into(),
        message: "no entry allows it".into(),
        waiting: 1,
        left_ms: 30_000,
    }
}

#[test]
fn the_cursor_stays_on_its_row_and_follows_the_newest_at_the_top() {
    let mut now = Instant::now();
    let mut app = app(&[("a.test", None), ("b.test", None), ("c.test", None)]);
    assert_eq!(shown(&app), ["c.test:443", "b.test:443", "a.test:443"]);
    assert_eq!(under_cursor(&app), "c.test:443");
    press(&mut app, "j", &mut now);
    assert_eq!(under_cursor(&app), "b.test:443");
    let again = r#""verdict": "deny", "host": "a.test", "port": 443"#;
    tell(&mut app, again);
    assert_eq!(shown(&app), ["a.test:443", "c.test:443", "b.test:443"]);
    assert_eq!(under_cursor(&app), "b.test:443");
    press(&mut app, "jjjjj", &mut now);
    assert_eq!(under_cursor(&app), "b.test:443");
    press(&mut app, "g", &mut now);
    assert_eq!(under_cursor(&app), "a.test:443");
}

#[test]
fn rows_are_filtered_searched_sorted_and_held_still() {
    let mut now = Instant::now();
    let mut app = app(&[("a.test", None), ("b.test", None)]);
    tell(
        &mut app,
        r#""verdict": "allow", "host": "c.test", "port": 443, "dialled": "1.2.3.4:443", "executable": "/bin/git""#,
    );
    for (filter, expected) in [
        (Filter::Refused, &["b.test:443", "a.test:443"][..]),
        (Filter::Allowed, &["c.test:443"]),
        (Filter::Open, &[]),
        (Filter::All, &["c.test:443", "b.test:443", "a.test:443"]),
    ] {
        press(&mut app, "f", &mut now);
        assert_eq!(app.filter, filter);
        assert_eq!(shown(&app), expected);
    }
    for (search, expected) in [
        ("/B.t\n", &["b.test:443"][..]),
        ("/git\n", &["c.test:443"]),
        ("/denied.def\n", &["b.test:443", "a.test:443"]),
        ("/nowhere\n", &[]),
    ] {
        press(&mut app, search, &mut now);
        assert_eq!(shown(&app), expected, "{search}");
    }
    press(&mut app, "\u{1b}s", &mut now);
    assert_eq!(app.sort, Sort::Count);
    tell(
        &mut app,
        r#""verdict": "deny", "host": "a.test", "port": 443"#,
    );
    tell(
        &mut app,
        r#""verdict": "allow", "host": "c.test", "port": 443, "dialled": "1.2.3.4:443""#,
    );
    tell(
        &mut app,
        r#""verdict": "deny", "host": "a.test", "port": 443"#,
    );
    assert_eq!(shown(&app), ["a.test:443", "c.test:443", "b.test:443"]);
    press(&mut app, "ss", &mut now);
    assert_eq!(shown(&app), ["a.test:443", "b.test:443", "c.test:443"]);
    press(&mut app, "p", &mut now);
    tell(
        &mut app,
        r#""verdict": "deny", "host": "d.test", "port": 443"#,
    );
    assert_eq!(shown(&app).len(), 3);
    press(&mut app, "p", &mut now);
    assert_eq!(shown(&app).len(), 4);
}

#[test]
fn only_what_a_mere_entry_allows_can_be_allowed_here() {
    let mut now = Instant::now();
    #[rustfmt::skip]
    let table = [
        ("a.test",                Some("--allow a.test:443"),                        Some("a.test:443")),
        ("10.0.0.7",              Some("give `a` an entry with `addresses: [..]`"),  None),
        ("host.docker.internal",  Some("--allow-docker-gateway=443"),                None),
        ("169.254.169.254",       None,                                              None),
        ("localhost",             Some("--allow-docker-gateway=443, and connect to host.docker.internal:443 in its place"), None),
    ];
    for (host, hint, entry) in table {
        let mut app = app(&[(host, hint)]);
        assert!(press(&mut app, "a", &mut now).is_none());
        match (&app.mode, entry) {
            (Mode::Change(change), Some(entry)) => {
                assert_eq!((change.entry.as_str(), change.list), (entry, List::Allow));
            }
            (Mode::List, None) => assert!(app.flash.is_some()),
            (mode, _) => panic!("{host}: {mode:?}"),
        }
    }
    // What was allowed can be denied, and not allowed.
    let mut app = app(&[]);
    tell(
        &mut app,
        r#""verdict": "allow", "host": "fe80::1", "port": 443, "dialled": "[fe80::1]:443""#,
    );
    press(&mut app, "a", &mut now);
    assert!(matches!(app.mode, Mode::List));
    press(&mut app, "d", &mut now);
    let Mode::Change(change) = &app.mode else {
        panic!("{:?}", app.mode);
    };
    assert_eq!(
        (change.entry.as_str(), change.list),
        ("[fe80::1]:443", List::Deny)
    );
    // Nothing can be changed in what has ended.
    app.model.ended("s");
    press(&mut app, "\u{1b}d", &mut now);
    assert!(matches!(app.mode, Mode::List));
}

#[test]
fn a_key_is_about_what_was_seen_and_not_about_what_came_in_its_place() {
    let mut now = Instant::now();
    let hint = |host: &str| {
        format!(r#""verdict": "deny", "host": "{host}", "port": 443, "hint": "--allow {host}:443""#)
    };
    let proposed = |app: &App| match &app.mode {
        Mode::Change(change) => Some(change.entry.clone()),
        _ => None,
    };
    for keys in ["ar", "aa", "d"] {
        // What has come on top has not been drawn yet, or only just.
        for drawn in [false, true] {
            let mut app = app(&[("good.test", Some("--allow good.test:443"))]);
            app.drawn(now);
            tell(&mut app, &hint("evil.test"));
            if drawn {
                app.drawn(now);
            }
            for key in keys.chars() {
                let effect = app.press(Pressed::Letter(key), now + STEADY / 2);
                assert!(effect.is_none(), "{keys}");
            }
            let seen = proposed(&app).is_none_or(|entry| !drawn && entry == "good.test:443");
            assert!(seen && app.flash.is_some(), "{keys} {drawn}");
        }
    }
    // After another look it is what the cursor was on, whatever comes on top.
    let mut app = app(&[("good.test", Some("--allow good.test:443"))]);
    app.drawn(now);
    tell(&mut app, &hint("evil.test"));
    press(&mut app, "a", &mut now);
    app.drawn(now);
    tell(&mut app, &hint("other.test"));
    press(&mut app, "a", &mut now);
    assert_eq!(proposed(&app).as_deref(), Some("good.test:443"));
    // Where somebody has moved the cursor, they know.
    press(&mut app, "\u{1b}G", &mut now);
    app.press(Pressed::Letter('a'), now);
    assert!(proposed(&app).is_some());
}

#[test]
fn a_file_is_written_only_after_it_was_shown_and_said_yes_to() {
    let mut now = Instant::now();
    let mut app = app(&[("a.test", Some("--allow a.test:443"))]);
    assert!(
        press(&mut app, "ay", &mut now).is_none(),
        "nothing was shown yet"
    );
    let effect = press(&mut app, "a", &mut now);
    assert!(matches!(effect, Some(Effect::Propose(_))), "{effect:?}");
    let proposal = Proposal {
        file: "/p.yaml".into(),
        lines: vec!["+  - a.test:443".into()],
        before: "x".into(),
        after: "y".into(),
    };
    app.proposed(Ok(proposal.clone()), now);
    for key in ["r", "a", "o", "\n"] {
        assert!(press(&mut app, key, &mut now).is_none(), "{key}");
    }
    let effect = press(&mut app, "y", &mut now);
    assert!(
        matches!(&effect, Some(Effect::Write(change, shown)) if *shown == proposal && change.entry == "a.test:443"),
        "{effect:?}"
    );
    // For this run there is no file to show.
    let effect = press(&mut app, "ar", &mut now);
    assert!(matches!(&effect, Some(Effect::Amend(change)) if change.entry == "a.test:443"));
    // A proposal that comes when nobody waits for one any more opens nothing.
    press(&mut app, "aa\u{1b}", &mut now);
    app.proposed(Ok(proposal), now);
    assert!(matches!(app.mode, Mode::List));
}

#[test]
fn a_question_lies_above_all_else_and_takes_one_key() {
    for (key, wanted) in [('o', "Once"), ('n', "No"), ('r', "Amend"), ('a', "Propose")] {
        for before in ["", "/abc", "?", "\n", "a"] {
            let mut now = Instant::now();
            let mut app = app(&[("a.test", Some("--allow a.test:443"))]);
            press(&mut app, before, &mut now);
            app.facing.set("s", vec![question("q1")]);
            assert!(app.asks());
            app.facing.shown(now);
            let effect = press(&mut app, &key.to_string(), &mut now);
            assert!(format!("{effect:?}").contains(wanted), "{key}: {effect:?}");
            if key == 'a' {
                // Its own dialog lies where the question was, and gives way to it again.
                assert!(!app.asks());
                press(&mut app, "\u{1b}", &mut now);
                assert!(app.asks());
            }
        }
    }
    let mut now = Instant::now();
    let mut app = app(&[]);
    app.facing.set("s", vec![question("q1")]);
    app.facing.shown(now);
    for key in ["y", "\n", "q", "\u{1b}", "d"] {
        assert!(press(&mut app, key, &mut now).is_none(), "{key}");
        assert!(app.asks(), "{key}");
    }
    assert!(matches!(
        app.press(Pressed::Interrupt, now),
        Some(Effect::Quit)
    ));
}

#[test]
fn a_key_that_was_meant_for_something_else_does_not_answer() {
    let start = Instant::now();
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    let mut app = app(&[]);
    let answered = |effect: Option<Effect>| effect.is_some();
    // Typed before it came, or before it was drawn.
    app.facing.set("s", vec![question("q1")]);
    assert!(!answered(app.press(Pressed::Letter('n'), at(10_000))));
    app.facing.shown(at(20_000));
    // Somebody who types on does not look.
    for time in [20_100, 20_500, 20_900, 21_399] {
        assert!(
            !answered(app.press(Pressed::Letter('n'), at(time))),
            "{time}"
        );
    }
    assert!(answered(app.press(Pressed::Letter('n'), at(21_900))));
    // The next one is another question.
    app.facing.set("s", vec![question("q1"), question("q2")]);
    app.facing.answered("s", "q1");
    assert!(!answered(app.press(Pressed::Letter('n'), at(22_000))));
    app.facing.shown(at(22_010));
    assert!(!answered(app.press(Pressed::Letter('n'), at(22_100))));
    assert!(answered(app.press(Pressed::Letter('o'), at(22_700))));
    // One that is there already stays first, and keeps its time, when others come.
    app.facing.set("t", vec![question("q3")]);
    app.facing.set("s", vec![question("q4"), question("q2")]);
    assert_eq!(app.facing.current().unwrap().1.id, "q2");
    assert!(answered(app.press(Pressed::Letter('o'), at(22_800))));
    // Withdrawn, and another one in its place.
    app.facing.set("s", vec![question("q5")]);
    assert!(!answered(app.press(Pressed::Letter('o'), at(40_000))));
}
