//! Policies that are ready, for common programs and what they use, and how several become one.
//!
//! They lie in `examples/policies/ready`, with the reasons for what is in them and what is not, and with tests. Each begins
//! with a comment, has entries in lines of their own, and nothing that a mere list of its parts would not keep.

use crate::failure::Failure;
use egret_policy::{Policy, format_policy};
use std::collections::HashSet;

/// What a ready policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Agent,
    Model,
    Registry,
    Forge,
}

/// A policy that is ready.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    text: &'static str,
    /// How the program is run, where it is one, and where it keeps what it has to remember.
    pub(super) command: &'static str,
    pub(super) writes: &'static [&'static str],
}

macro_rules! ready {
    ($($kind:ident $name:literal $($command:literal $writes:expr)?;)*) => {
        &[$(Ready {
            name: $name,
            kind: Kind::$kind,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/policies/ready/", $name, ".yaml")),
            command: concat!($($command)?),
            writes: { const NONE: &[&str] = &[]; let _none = NONE; $(let _none = $writes;)? _none },
        },)*]
    };
}

/// All of them.
pub(super) const ALL: &[Ready] = ready! {
    Agent "claude-code" "claude" &["~/.claude", "~/.claude.json"];
    Agent "codex" "codex" &["~/.codex"];
    Agent "gemini-cli" "gemini" &["~/.gemini"];
    Agent "copilot-cli" "copilot" &["~/.copilot"];
    Agent "aider" "aider" &["~/.aider"];
    Agent "opencode" "opencode" &["~/.local/share/opencode", "~/.local/state/opencode", "~/.cache/opencode"];
    Agent "goose" "goose" &["~/.local/share/goose", "~/.local/state/goose"];
    Model "anthropic";
    Model "openai";
    Model "google-ai";
    Model "openrouter";
    Model "mistral";
    Model "deepseek";
    Model "ollama";
    Registry "npm";
    Registry "pypi";
    Registry "crates";
    Registry "go";
    Registry "rubygems";
    Registry "maven";
    Registry "nuget";
    Registry "apt-debian";
    Registry "apt-ubuntu";
    Registry "docker-hub";
    Registry "ghcr";
    Registry "huggingface";
    Forge "github";
    Forge "gitlab";
};

/// The one that is called so.
pub(super) fn named(name: &str) -> Option<&'static Ready> {
    ALL.iter().find(|ready| ready.name == name)
}

impl Ready {
    /// What it is, in a sentence.
    pub(super) fn title(&self) -> String {
        let comment = self.comment().join(" ");
        let sentence = comment.split(". ").next().unwrap_or_default();
        sentence.trim_end_matches('.').to_owned()
    }

    /// The comment that it begins with.
    fn comment(&self) -> Vec<&'static str> {
        let lines = self.text.lines().map_while(|line| line.strip_prefix('#'));
        lines.map(str::trim).collect()
    }

    /// The items of a list, each with its lines.
    fn items(&self, key: &str) -> Vec<String> {
        let mut lines = self.text.lines();
        lines.find(|line| line.strip_suffix(':') == Some(key));
        let mut items: Vec<String> = Vec::new();
        for line in lines.take_while(|line| line.starts_with(' ')) {
            match (line.starts_with("  - "), items.last_mut()) {
                (false, Some(item)) => {
                    item.push_str(line);
                    item.push('\n');
                }
                _ => items.push(format!("{line}\n")),
            }
        }
        items
    }
}

/// One policy of several, which decides as they do together: nothing is allowed that none of them allows.
pub(super) fn composed(name: &str, parts: &[&Ready]) -> Result<String, Failure> {
    let tests = |_: &str| true;
    let all = written(name, parts, &tests)?;
    let failed = |error: String| {
        Failure::new(format!(
            "the ready policies do not go together, which is a bug of Egret's: {error}"
        ))
    };
    let parsed =
        Policy::parse(name, all.as_bytes()).map_err(|errors| failed(errors.to_string()))?;
    // One part may allow what another says it does not need.
    let mut moot = HashSet::new();
    for test in parsed.policy.run_tests() {
        match (test.passed, test.expected()) {
            (true, _) => {}
            (false, "deny") => {
                moot.insert(format!("  - deny: {}\n", test.destination));
            }
            (false, _) => return Err(failed(test.destination)),
        }
    }
    written(name, parts, &|item| !moot.contains(item))
}

fn written(
    name: &str,
    parts: &[&Ready],
    keep_test: &dyn Fn(&str) -> bool,
) -> Result<String, Failure> {
    let mut text = format!(
        "# Made by `egret init`. Change it as you like; `egret policy check {name}` looks it over.\n"
    );
    let comments = |text: &mut String, indent: &str, lines: &[&str]| {
        for line in lines {
            text.push_str(format!("{indent}# {line}").trim_end());
            text.push('\n');
        }
    };
    // What allows nothing has something to say all the same.
    for part in parts.iter().filter(|part| part.items("allow").is_empty()) {
        text.push_str("#\n");
        comments(&mut text, "", &part.comment());
    }
    text.push_str(&format!("version: 1\nname: {name}\n"));
    for key in ["allow", "deny", "tests"] {
        let mut section = String::new();
        let mut seen = HashSet::new();
        for part in parts {
            let items = part.items(key).into_iter();
            let items: Vec<_> = items
                .filter(|item| key != "tests" || keep_test(item))
                .filter(|item| seen.insert(entry_of(item).to_owned()))
                .collect();
            if items.is_empty() {
                continue;
            }
            match key {
                "allow" => comments(&mut section, "  ", &part.comment()),
                _ => comments(&mut section, "  ", &[part.name]),
            }
            section.extend(items);
            section.push('\n');
        }
        if !section.is_empty() {
            text.push_str(&format!("\n{key}:\n{}\n", section.trim_end()));
        }
    }
    format_policy(name, text.as_bytes()).map_err(|errors| {
        Failure::new(format!(
            "the ready policies do not go together, which is a bug of Egret's\n{errors}"
        ))
    })
}

/// An item without what is said about it.
fn entry_of(item: &str) -> &str {
    match item.lines().count() {
        1 => item.split(" #").next().unwrap_or_default().trim(),
        _ => item,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egret_policy::{Destination, HostAddresses};
    use std::collections::BTreeSet;

    #[test]
    fn every_ready_policy_is_embedded_and_says_what_it_is() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/policies/ready");
        let files = std::fs::read_dir(directory).unwrap();
        let files: BTreeSet<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let own: BTreeSet<String> = ALL
            .iter()
            .map(|ready| format!("{}.yaml", ready.name))
            .collect();
        assert_eq!(files, own);
        for ready in ALL {
            let title = ready.title();
            assert!(
                (10..140).contains(&title.len()) && !title.contains('#'),
                "{}: {title}",
                ready.name
            );
            assert_eq!(
                ready.kind == Kind::Agent,
                !ready.command.is_empty(),
                "{}",
                ready.name
            );
            let parsed = Policy::parse(ready.name, ready.text.as_bytes()).unwrap();
            assert_eq!(parsed.warnings, [], "{}", ready.name);
            assert_eq!(parsed.policy.name(), Some(ready.name));
            assert!(
                !parsed.policy.opens_by_default()
                    && (ready.name == "ollama" || !parsed.policy.opens_host_gateway())
            );
            // Nothing gets lost between the lines.
            let items = ready.items("allow").len() + ready.items("deny").len();
            assert_eq!(items, parsed.policy.entries(), "{}", ready.name);
            assert_eq!(
                ready.items("tests").len(),
                parsed.policy.run_tests().len(),
                "{}",
                ready.name
            );
        }
    }

    #[test]
    fn what_is_made_of_several_allows_what_they_allow_and_nothing_else() {
        for (at, one) in ALL.iter().enumerate() {
            for other in ALL.iter().skip(at) {
                let parts = [one, other];
                let parts = &parts[usize::from(one == other)..];
                let names = format!("{} {}", one.name, other.name);
                let text = composed("made", parts).unwrap();
                let parsed = Policy::parse("made", text.as_bytes())
                    .unwrap_or_else(|errors| panic!("{names}\n{errors}"));
                for test in parsed.policy.run_tests() {
                    assert!(test.passed, "{names}: {}", test.destination);
                }
                let alone = |part: &Ready| {
                    Policy::parse(part.name, part.text.as_bytes())
                        .unwrap()
                        .policy
                };
                let entries = |part: &Ready| -> Vec<String> {
                    let items = part.items("allow");
                    items.iter().map(|item| entry_of(item).to_owned()).collect()
                };
                for (part, rest) in [(one, other), (other, one)] {
                    let is_within = entries(part)
                        .iter()
                        .all(|entry| entries(rest).contains(entry));
                    let told = part.comment().iter().all(|line| text.contains(line));
                    assert!(told || is_within, "{names}\n{text}");
                    let difference = alone(part).diff(&parsed.policy);
                    // Of what it allows alone, a deny entry of the other may take away, and what comes is the other's.
                    let lost = difference.lost;
                    assert!(
                        lost.iter()
                            .all(|change| change.new.reason.code() == "denied.rule"),
                        "{names}: {lost:#?}"
                    );
                    let rest = alone(rest).compile();
                    for change in difference.gained {
                        let to = Destination::from_user(&change.destination).unwrap();
                        assert!(
                            rest.decide(&to, None, &HostAddresses::new([])).is_ok(),
                            "{names}: {change:#?}"
                        );
                    }
                }
                assert_eq!(format_policy("made", text.as_bytes()).unwrap(), text);
            }
        }
    }
}
