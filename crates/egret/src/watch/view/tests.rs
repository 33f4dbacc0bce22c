use super::*;
use crate::watch::app::Proposal;
use crate::watch::keys::Key;
use crate::watch::model::About;
use egret_gateway::{Connection, Question};
use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;
use std::time::Duration;

const NOW: &str = "2026-11-22T12:00:30Z";

/// Two sandboxes, of which one has ended, and what they did.
fn app() -> App {
    let mut app = App::default();
    for (name, runs_in) in [("build", "docker"), ("agent", "process 4711")] {
        app.model.began(About {
            name: name.into(),
            runs_in: runs_in.into(),
            program: "sh".into(),
            policy: None,
        });
    }
    let records = [
        (
            "build",
            r#""time": "2026-11-22T11:58:00Z", "id": "b-1", "event": "decision", "verdict": "deny", "reason": "denied.address.private", "host": "intranet.corp.example", "port": 443, "addresses": ["10.20.0.7"], "hint": "give it an entry with addresses", "message": "the name leads to a private address""#,
        ),
        (
            "agent",
            r#""time": "2026-11-22T11:59:58Z", "id": "a-1", "event": "decision", "verdict": "allow", "reason": "allowed.rule", "rule": "agent.yaml:4", "host": "api.example.com", "port": 443, "dialled": "93.184.216.34:443", "executable": "/usr/bin/curl""#,
        ),
        (
            "agent",
            r#""time": "2026-11-22T11:59:59Z", "id": "a-1", "event": "close", "host": "api.example.com", "port": 443, "bytes_up": 1830, "bytes_down": 40211"#,
        ),
        (
            "agent",
            r#""time": "2026-11-22T12:00:00Z", "id": "a-2", "event": "decision", "verdict": "allow", "reason": "allowed.rule", "host": "files.example", "port": 443, "dialled": "93.184.216.34:443", "executable": "/usr/bin/git""#,
        ),
        (
            "agent",
            r#""time": "2026-11-22T12:00:01Z", "id": "a-3", "event": "decision", "verdict": "allow", "reason": "allowed.rule", "host": "down.example", "port": 80, "message": "`down.example:80` was allowed and could not be reached: connection refused""#,
        ),
        (
            "agent",
            r#""time": "2026-11-22T12:00:25Z", "id": "a-4", "event": "decision", "verdict": "deny", "reason": "denied.default", "host": "telemetry.with.a.long.name.tracker.example", "port": 443, "executable": "/opt/agent/bin/agent", "hint": "--allow telemetry.with.a.long.name.tracker.example:443", "message": "`telemetry.with.a.long.name.tracker.example:443` is refused (denied.default): no entry of the policy allows the destination""#,
        ),
    ];
    for (sandbox, record) in records {
        let line = format!(r#"{{"v": 1, "sandbox": "{sandbox}", {record}}}"#);
        app.model.line(sandbox, &line, NOW.parse().unwrap());
    }
    let open = Connection {
        id: "a-2".into(),
        host: "files.example".into(),
        port: 443,
        door: egret_gateway::audit::Door::Connect,
        program: None,
        since: "2026-11-22T12:00:29Z".into(),
        bytes_up: 2_000,
        bytes_down: 3_400_000,
    };
    app.model.activity("agent", &[open], NOW.parse().unwrap());
    app.model.ended("build");
    app
}

fn look(start: Instant) -> Look {
    Look {
        colour: true,
        unicode: true,
        now: start,
        time: NOW.parse().unwrap(),
    }
}

/// The picture, without blanks at the ends of lines.
fn picture(app: &App, look: &Look, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            draw(app, look, frame.buffer_mut());
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    (0..height).map(line).collect()
}

fn question() -> Question {
    Question {
        id: "q".into(),
        destination: "api.other.example:443".into(),
        host: "api.other.example".into(),
        port: 443,
        program: Some("/usr/bin/curl".into()),
        reason: "denied.default".into(),
        message: "no entry of the policy allows the destination".into(),
        waiting: 1,
        left_ms: 41_000,
    }
}

/// Holds a picture against the one that is kept, which `EGRET_ACCEPT=1` replaces.
#[track_caller]
fn like(name: &str, app: &App, look: &Look, (width, height): (u16, u16)) {
    let drawn = picture(app, look, width, height);
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/watch/view/pictures");
    let kept = format!("{directory}/{name}-{width}x{height}.txt");
    if std::env::var("EGRET_ACCEPT").is_ok() {
        std::fs::write(&kept, &drawn).unwrap();
    }
    let expected = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(drawn == expected, "{kept} is another picture:\n{drawn}");
}

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 10)];

fn press(app: &mut App, keys: &str, now: &mut Instant) {
    for key in keys.chars() {
        *now += Duration::from_secs(1);
        let key = if key == '\n' {
            Key::Enter
        } else {
            Key::Letter(key)
        };
        app.press(key, *now);
    }
}

#[test]
fn the_list() {
    let look = look(Instant::now());
    for size in SIZES {
        like("list", &app(), &look, size);
        like("nothing", &App::default(), &look, size);
    }
    let mut several = app();
    let mut now = look.now;
    press(&mut several, "f/example\n", &mut now);
    several.press(Key::Down, now);
    several.press(Key::Down, now);
    like("filtered", &several, &look, (80, 24));
    let mut one = App::default();
    one.model.began(About {
        name: "one".into(),
        runs_in: "podman".into(),
        program: "sh".into(),
        policy: None,
    });
    let policy = r#"{"v": 1, "time": "2026-11-22T12:00:00Z", "id": "i", "sandbox": "one", "event": "policy", "action": "replaced", "message": "/home/alice/one.yaml", "policy": {"file": "/home/alice/one.yaml"}}"#;
    one.model.line("one", policy, NOW.parse().unwrap());
    for n in 0..60 {
        let record = format!(
            r#"{{"v": 1, "time": "2026-11-22T12:00:00Z", "id": "i", "sandbox": "one", "event": "decision", "verdict": "deny", "reason": "denied.default", "host": "n{n}.example", "port": 443}}"#
        );
        one.model.line("one", &record, NOW.parse().unwrap());
    }
    one.press(Key::End, now);
    press(&mut one, "p", &mut now);
    like("long", &one, &look, (80, 24));
}

#[test]
fn the_detail_has_the_reason_and_what_would_change_it() {
    let look = look(Instant::now());
    let mut app = app();
    let mut now = look.now;
    press(&mut app, "\n", &mut now);
    like("detail-bare", &app, &look, (80, 24));
    app.explain(|decided| {
        let host = decided.record.host.as_deref().unwrap();
        vec![
            format!("{host}:443 is denied (denied.default)"),
            "  allow         pass     no entry of the allow list matches, and this line is as long as they can be".into(),
        ]
    });
    for size in SIZES {
        like("detail", &app, &look, size);
    }
    app.scroll = usize::MAX;
    let mut buffer = Buffer::empty(Rect::new(0, 0, 40, 10));
    let scroll = draw(&app, &look, &mut buffer).scroll;
    assert!((1..100).contains(&scroll), "{scroll}");
}

#[test]
fn a_question_is_asked_whole_or_not_at_all() {
    let start = Instant::now();
    let words = |app: &App, (width, height): (u16, u16)| {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        let shown = draw(app, &look(start), &mut buffer).question;
        let drawn = picture(app, &look(start), width, height);
        let joined = drawn.replace(['│', '\n'], " ");
        let joined = joined.split_whitespace().collect::<Vec<_>>().join(" ");
        (shown, joined)
    };
    let mut asked = app();
    asked.facing.set("agent", vec![question()]);
    for size in SIZES {
        like("question", &asked, &look(start), size);
        let (shown, drawn) = words(&asked, size);
        assert!(shown);
        for word in ["agent", " api.other.example:443 ", "o once", "n no"] {
            assert!(drawn.contains(word), "{word} is not in\n{drawn}");
        }
    }
    // The end of a long name says whose it is.
    let name = format!("api.github.com.{}evil.example:443", "a-b.".repeat(55));
    let long = Question {
        destination: name.clone(),
        ..question()
    };
    asked.facing.set("agent", vec![long]);
    like("question-long", &asked, &look(start), (80, 24));
    let (shown, drawn) = words(&asked, (80, 24));
    assert!(shown && drawn.replace(' ', "").contains(&name), "{drawn}");
    let (shown, drawn) = words(&asked, (40, 10));
    assert!(!shown && !drawn.contains("once"), "{drawn}");
    let nothing = picture(&asked, &look(start), 12, 5);
    assert!(!nothing.contains("once"), "{nothing}");
}

#[test]
fn a_change_shows_what_is_written() {
    let look = look(Instant::now());
    let mut app = app();
    let mut now = look.now;
    press(&mut app, "a", &mut now);
    like("change", &app, &look, (80, 24));
    let mut lines = vec![
        " allow:".to_owned(),
        "   - api.example.com  # the api".into(),
    ];
    lines.push("+  - telemetry.with.a.long.name.tracker.example:443".into());
    app.proposed(
        Ok(Proposal {
            file: "/home/alice/agent.yaml".into(),
            lines: lines.clone(),
            before: String::new(),
            after: String::new(),
        }),
        now,
    );
    for size in SIZES {
        like("proposal", &app, &look, size);
    }
    // What does not fit can be scrolled to, and it is said that there is more.
    lines.extend((0..50).map(|n| format!("+  - line{n}.example")));
    press(&mut app, "qaa", &mut now);
    app.proposed(
        Ok(Proposal {
            file: "/home/alice/agent.yaml".into(),
            lines,
            before: String::new(),
            after: String::new(),
        }),
        now,
    );
    let drawn = picture(&app, &look, 80, 24);
    assert!(
        drawn.contains("more lines: Up, Down") && !drawn.contains("line49"),
        "{drawn}"
    );
    app.scroll = usize::MAX;
    let drawn = picture(&app, &look, 80, 24);
    assert!(
        !drawn.contains("more lines") && drawn.contains("line49"),
        "{drawn}"
    );
}

#[test]
fn the_help_names_every_key() {
    let look = look(Instant::now());
    let mut app = app();
    press(&mut app, "?", &mut look.now.clone());
    like("help", &app, &look, (80, 24));
}

#[test]
fn without_colours_and_beyond_ascii_nothing_is_lost() {
    let plain = Look {
        colour: false,
        unicode: false,
        ..look(Instant::now())
    };
    let mut app = app();
    app.facing.set("agent", vec![question()]);
    for mode in ["", "\n", "?", "a"] {
        let mut now = plain.now;
        app.facing.set("agent", Vec::new());
        press(&mut app, mode, &mut now);
        let drawn = picture(&app, &plain, 80, 24);
        assert!(drawn.is_ascii(), "{drawn}");
        app.mode = Mode::List;
    }
    app.facing.set("agent", vec![question()]);
    like("plain", &app, &plain, (80, 24));
    let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
    draw(&app, &plain, &mut buffer);
    for cell in buffer.content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
}

#[test]
fn every_size_can_be_drawn() {
    let look = look(Instant::now());
    let mut now = look.now;
    for mode in ["", "\n", "?", "a", "/x"] {
        for asked in [false, true] {
            for (width, height) in [
                (1, 1),
                (5, 3),
                (19, 30),
                (20, 6),
                (21, 7),
                (30, 8),
                (300, 5),
                (300, 100),
            ] {
                let mut app = app();
                press(&mut app, mode, &mut now);
                if asked {
                    app.facing.set("agent", vec![question()]);
                }
                picture(&app, &look, width, height);
            }
        }
    }
}

#[test]
fn wide_characters_take_two_columns() {
    let mut app = app();
    let record = r#"{"v": 1, "time": "2026-11-22T12:00:00Z", "id": "i", "sandbox": "agent", "event": "decision", "verdict": "deny", "reason": "denied.malformed", "host": "中文中文中文中文中文中文中文中文中文中文", "port": 443, "message": "e\u0301\u0301 中\u202ex"}"#;
    app.model.line("agent", record, NOW.parse().unwrap());
    like("wide", &app, &look(Instant::now()), (80, 24));
}

#[test]
fn numbers_fit_in_four_characters() {
    #[rustfmt::skip]
    let table = [
        (0, "0"), (999, "999"), (1_000, "1.0k"), (9_999, "9.9k"), (10_000, "10k"), (999_999, "999k"), (1_000_000, "1.0M"),
        (3_400_000_000, "3.4G"), (u64::MAX, "18E"),
    ];
    for (octets, text) in table {
        assert_eq!(size(octets), text);
    }
}

#[test]
fn a_long_line_is_broken_at_blanks_where_it_has_any() {
    #[rustfmt::skip]
    let table = [
        ("one two three", 7,  0, &["one two", "three"][..]),
        ("one two three", 8,  2, &["one two", "  three"]),
        ("  a  b",        20, 4, &["  a  b"]),
        ("abcdefgh",      3,  0, &["abc", "def", "gh"]),
        ("中文中文",       5,  0, &["中文", "中文"]),
        ("",              5,  0, &[""]),
        ("a b",           0,  0, &["a", "b"]),
    ];
    for (text, width, hang, expected) in table {
        assert_eq!(detail::wrap(text, width, hang), expected, "{text:?}");
    }
}
