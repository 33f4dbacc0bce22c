//! The screens that the guide shows: each is what the program paints in the closed world, as a picture.
//!
//! A picture that is kept has to show the lines that are painted now, but for numbers, which are others each time.
//! `EGRET_ACCEPT=1` (`./x screens`) records them anew.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;

use crate::world::servers::Service;
use crate::world::terminal::Screen;
use crate::world::{User, World, at};

const POLICY: &str = "\
version: 1
allow:
  - api.example.com     # the model
  - files.example       # releases
deny:
  - ads.example
";

/// What an agent does that is worth a picture.
const AGENT: &str = "
    curl -s --limit-rate 2M -o /dev/null http://files.example/bytes/900000000 &
    for url in http://api.example.com/v1 http://api.example.com/v1/models http://telemetry.example/ http://telemetry.example/batch \
        http://gist.example.com/ http://169.254.169.254/latest/meta-data http://intranet.example/; do
        curl -s -m 5 -o /dev/null $url
    done
    python3 -c \"import urllib.request as u; u.urlopen('http://registry.example/simple')\" 2>/dev/null
    sleep 1000";

#[test]
fn watching() {
    let world = town();
    let agent = world
        .run_as(User::Alice)
        .args(&[
            "--name",
            "agent",
            "--record-programs",
            "--policy",
            "agent.yaml",
        ])
        .start(&["/bin/sh", "-c", AGENT]);
    let screen = Screen::start(&world, User::Alice, "egret watch");
    screen.until("all of it", |text| {
        text.contains("M/s")
            && ["registry.example:80", "intranet", "gist"]
                .iter()
                .all(|word| text.contains(word))
    });
    // By name, and the cursor on what could be allowed.
    screen.press(&["s", "s", "s", "j", "j", "j"]);
    screen.until("the cursor", |text| {
        text.contains("> refused gist.example.com:80")
    });
    record("watch", &screen);
    screen.press(&["a", "a"]);
    screen.until("the change", |text| {
        text.contains("+  - gist.example.com:80")
    });
    record("watch-allow", &screen);
    drop(agent);
}

#[test]
fn a_question() {
    let world = town();
    let run = world.run_as(User::Alice);
    let agent = run
        .args(&["--name", "agent", "--ask=60", "--policy", "agent.yaml"])
        .start(&[
            "/bin/sh",
            "-c",
            "for name in api.example.com telemetry.example; do curl -s -o /dev/null http://$name/; done",
        ]);
    let screen = Screen::start(&world, User::Alice, "egret watch");
    screen.until("a question", |text| {
        text.contains("may this be connected to?")
    });
    // Until it takes keys.
    std::thread::sleep(Duration::from_secs(1));
    record("watch-question", &screen);
    drop(agent);
}

#[test]
fn a_run_that_ends_with_what_was_refused() {
    let world = town();
    let script = "#!/bin/sh\nfor url in api.example.com/v1 telemetry.example/ telemetry.example/batch gist.example.com/ intranet.example/; do\n  curl -s -o /dev/null http://$url\ndone\n";
    world.machine.write("/home/alice/project/agent", script);
    world.machine.sh("chmod 755 /home/alice/project/agent");
    let screen = Screen::start(&world, User::Alice, "bash --norc --noprofile");
    screen.resize(104, 24);
    screen.press(&["PS1='$ '; cd ~/project; clear", "Enter"]);
    screen.until("a clear screen", |text| text.trim() == "$");
    screen.press(&[
        "egret run --allow api.example.com --allow intranet.example -- ./agent",
        "Enter",
    ]);
    screen.until("the summary", |text| {
        text.contains("every decision is in") && text.trim_end().ends_with('$')
    });
    record("summary", &screen);
}

#[test]
fn a_policy_that_was_learned() {
    let world = town();
    let script = "#!/bin/sh\nfor url in api.example.com/v1 files.example/a files.example/b 10.20.0.7/; do\n  curl -s -o /dev/null http://$url\ndone\n";
    world.machine.write("/home/alice/project/agent", script);
    world.machine.sh("chmod 755 /home/alice/project/agent");
    let screen = Screen::start(&world, User::Alice, "bash --norc --noprofile");
    screen.resize(120, 44);
    screen.press(&["PS1='$ '; cd ~/project; clear", "Enter"]);
    screen.until("a clear screen", |text| text.trim() == "$");
    screen.press(&["egret learn -- ./agent", "Enter"]);
    screen.until("that it has ended", |text| {
        text.contains("egret run --policy agent") && text.trim_end().ends_with('$')
    });
    screen.press(&["cat ~/.config/egret/policies/agent.yaml", "Enter"]);
    screen.until("the policy", |text| {
        text.contains("files.example") && text.trim_end().ends_with('$')
    });
    record("learn", &screen);
}

fn town() -> World {
    let world = World::new();
    for name in [
        "api.example.com",
        "files.example",
        "telemetry.example",
        "gist.example.com",
        "registry.example",
    ] {
        world.dns.answer(name, &[at::PUBLIC]);
    }
    world.dns.answer("intranet.example", &[at::PRIVATE]);
    world.serve("93.184.216.34:80", Service::Http);
    world
        .machine
        .write("/home/alice/project/agent.yaml", POLICY);
    world.machine.sh("chown -R alice: /home/alice/project");
    world
}

/// Holds what is on a screen against the picture of it, or makes that.
#[track_caller]
fn record(name: &str, screen: &Screen<'_>) {
    let drawn = picture(&screen.painted());
    let kept = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../docs/guide/screens/{name}.svg"));
    if std::env::var_os("EGRET_ACCEPT").is_some() {
        std::fs::write(&kept, &drawn).unwrap();
    }
    let kept = std::fs::read_to_string(kept).unwrap_or_default();
    let (shown, is) = (lines(&kept), lines(&drawn));
    assert!(
        shown == is,
        "./x screens records it anew: {name} shows\n{shown}\nand it is\n{is}"
    );
}

/// What a picture says, line by line, without what is another each time.
fn lines(svg: &str) -> String {
    let mut text = svg.to_owned();
    for (pattern, word) in [
        ("<[^>]*>", ""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
        (r"\d+(\.\d+)?[kM]?(/s|s\b)?", "N"),
        ("[ N]{2,}", " "),
    ] {
        let pattern = Regex::new(pattern).unwrap();
        text = pattern.replace_all(&text, word).into_owned();
    }
    text
}

/// What a terminal shows as a picture: lines of text in which escapes say how it looks.
fn picture(painted: &str) -> String {
    const WIDE: f32 = 8.4;
    const HIGH: f32 = 18.0;
    let painted = painted.trim_end();
    let rows = painted.lines().count() as f32;
    let escapes = Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
    let columns = painted
        .lines()
        .map(|line| escapes.replace_all(line, "").chars().count());
    let (width, height) = (
        columns.max().unwrap_or(0) as f32 * WIDE + 24.0,
        rows * HIGH + 20.0,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1b1f24\"/>\n"
    );
    for (row, line) in painted.lines().enumerate() {
        let y = row as f32 * HIGH + 24.0;
        let mut look = Look::default();
        let mut column = 0;
        for piece in line.split('\u{1b}') {
            let text = match piece
                .strip_prefix('[')
                .and_then(|piece| piece.split_once('m'))
            {
                Some((codes, text)) => {
                    look.change(codes);
                    text
                }
                None => piece,
            };
            let length = text.chars().count();
            if length == 0 {
                continue;
            }
            let (x, wide) = (column as f32 * WIDE + 12.0, length as f32 * WIDE);
            let (fill, behind) = look.colours();
            if let Some(behind) = behind {
                let top = y - 14.0;
                write!(svg, "<rect x=\"{x}\" y=\"{top}\" width=\"{wide}\" height=\"{HIGH}\" fill=\"{behind}\"/>").unwrap();
            }
            let text = text
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;");
            let weight = if look.bold {
                " font-weight=\"bold\""
            } else {
                ""
            };
            write!(
                svg,
                "<text x=\"{x}\" y=\"{y}\" textLength=\"{wide}\" fill=\"{fill}\"{weight} xml:space=\"preserve\">{text}</text>"
            )
            .unwrap();
            column += length;
        }
        svg.push('\n');
    }
    svg + "</svg>\n"
}

/// How text looks, as far as Egret makes a difference.
#[derive(Default)]
struct Look {
    bold: bool,
    dim: bool,
    reversed: bool,
    colour: Option<u32>,
}

impl Look {
    fn change(&mut self, codes: &str) {
        for code in codes.split(';') {
            match code.parse().unwrap_or(0) {
                0 => *self = Look::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                7 => self.reversed = true,
                22 => (self.bold, self.dim) = (false, false),
                27 => self.reversed = false,
                39 => self.colour = None,
                code @ 30..=37 => self.colour = Some(code),
                _ => {}
            }
        }
    }

    /// Of the text, and behind it if that is not as everywhere.
    fn colours(&self) -> (&'static str, Option<&'static str>) {
        let colour = match self.colour {
            Some(31) => "#ff7b72",
            Some(32) => "#7ee787",
            Some(33) => "#e3b341",
            Some(36) => "#76e3ea",
            _ if self.dim => "#8b949e",
            _ => "#e6edf3",
        };
        match self.reversed {
            true => ("#1b1f24", Some(colour)),
            false => (colour, None),
        }
    }
}
