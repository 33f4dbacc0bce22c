//! The text of a user's settings: keys and values, as strictly read as a policy, and by the same reader.
//!
//! What keys there are and what becomes of their values is for the caller to know.

use crate::report::{Diagnostic, PolicyErrors, Report};
use crate::text::reader::{can_be_a_name, shown, text_of};
use crate::text::source;
use crate::text::yaml::{Kind, Node, Value};

/// A key that settings can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingKey {
    /// How it is written.
    pub name: &'static str,
    /// What its value is.
    pub takes: Takes,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A text.
    Text,
    /// A text, or a whole number, which is taken as it is written.
    TextOrNumber,
    /// A list of texts, with something in it.
    List,
    /// `true`, or `false`, which is as if the key were not there.
    Flag,
}

/// A value that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// What it says: one text, those of a list, or none for a flag.
    pub values: Vec<String>,
    /// Where that stands, from 1.
    pub line: u32,
}

/// Settings that can be used, as far as their form goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What is set for everything.
    pub all: Vec<Setting>,
    /// What is set for some programs, by their names, in the order of the file.
    pub programs: Vec<(String, Vec<Setting>)>,
}

/// The key of what is set for some programs.
const PROGRAMS: &str = "programs";

impl Settings {
    /// The most octets that [`Self::parse`] takes.
    pub const MAX_OCTETS: usize = 256 << 10;

    /// Reads settings that can have these keys, and `version` and `programs` besides. `source_name` is how messages name the
    /// file.
    ///
    /// # Errors
    /// Everything that is wrong with the text, at once, each with line and column.
    pub fn parse(
        source_name: &str,
        text: &[u8],
        keys: &[SettingKey],
    ) -> Result<(Self, Vec<Diagnostic>), PolicyErrors> {
        let read = |root: &Node<'_>, report: &mut Report<'_>| read(root, keys, report);
        source::read(source_name, text, "settings file", Self::MAX_OCTETS, read)
    }
}

fn read(root: &Node<'_>, keys: &[SettingKey], report: &mut Report<'_>) -> Settings {
    let mut settings = Settings::default();
    let Value::Map(pairs) = &root.value else {
        let help = "begin with `version: 1`".to_owned();
        let label = format!("this is {}", root.value.describe());
        report.error(root.span, "settings are a mapping", label, Some(help));
        return settings;
    };
    let names = keys.iter().map(|key| key.name);
    let known: Vec<_> = ["version"]
        .into_iter()
        .chain(names.clone())
        .chain([PROGRAMS])
        .collect();
    let mut version = false;
    for (key, value) in report.fields(pairs, &known, "a settings file") {
        match key {
            "version" => {
                version = true;
                if !matches!(&value.value, Value::Scalar(text, Kind::Number) if text == "1") {
                    let help = "write `version: 1`".to_owned();
                    let message = "this version of settings is not known";
                    report.error(value.span, message, "has to be 1", Some(help));
                }
            }
            PROGRAMS => {
                let known: Vec<_> = names.clone().collect();
                for (name, value) in report.pairs(value, "`programs`").unwrap_or_default() {
                    let program =
                        text_of(name).filter(|name| can_be_a_name(name) && !name.contains('/'));
                    let Some(program) = program else {
                        let help = "write the name that is run, as in `claude: {policy: agent}`"
                            .to_owned();
                        report.error(
                            name.span,
                            "a program is known by its name alone",
                            "",
                            Some(help),
                        );
                        continue;
                    };
                    if settings.programs.iter().any(|(other, _)| other == program) {
                        let message = format!("`{}` stands here twice", shown(program));
                        report.error(name.span, message, "", None);
                    }
                    let what = format!("`{}`", shown(program));
                    let pairs = report.pairs(value, &what).unwrap_or_default();
                    let fields = report.fields(pairs, &known, "a program's settings");
                    let set = fields
                        .into_iter()
                        .filter_map(|(key, value)| setting(key, value, keys, report));
                    let set = set.collect();
                    settings.programs.push((program.to_owned(), set));
                }
            }
            key => settings.all.extend(setting(key, value, keys, report)),
        }
    }
    if !version {
        let help = "add `version: 1`".to_owned();
        report.error(root.span, "the settings have no `version`", "", Some(help));
    }
    settings
}

fn setting(
    key: &'static str,
    value: &Node<'_>,
    keys: &[SettingKey],
    report: &mut Report<'_>,
) -> Option<Setting> {
    let what = format!("`{key}`");
    let takes = keys.iter().find(|known| known.name == key)?.takes;
    let values = match takes {
        Takes::TextOrNumber if let Value::Scalar(text, Kind::Number) = &value.value => {
            vec![text.to_string()]
        }
        Takes::Text | Takes::TextOrNumber => vec![text(value, &what, report)?],
        Takes::List => {
            let items = report.list(value, &what);
            let what = format!("an item of {what}");
            let texts = items.iter().map(|item| text(item, &what, report));
            texts.collect::<Option<Vec<_>>>()?
        }
        Takes::Flag => match report.flag(value, &what) {
            true => Vec::new(),
            false => return None,
        },
    };
    Some(Setting {
        key,
        values,
        line: value.span.line,
    })
}

/// A text with something in it that can all be seen: it is shown where settings are.
fn text(value: &Node<'_>, what: &str, report: &mut Report<'_>) -> Option<String> {
    let text = report.words(value, what)?;
    if text.is_empty() || text.contains('\n') {
        let message = format!("{what} has to be a text of one line");
        report.error(value.span, message, "", None);
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[SettingKey] = &[
        SettingKey {
            name: "policy",
            takes: Takes::Text,
        },
        SettingKey {
            name: "log_size",
            takes: Takes::TextOrNumber,
        },
        SettingKey {
            name: "write",
            takes: Takes::List,
        },
        SettingKey {
            name: "ask",
            takes: Takes::Flag,
        },
    ];

    #[test]
    fn settings_are_what_they_say_and_where() {
        let text = "version: 1\npolicy: agent\nlog_size: 10\nwrite: [~/a, /b]\nask: true\nprograms:\n  claude:\n    policy: claude\n    ask: false\n";
        let (settings, warnings) = Settings::parse("s.yaml", text.as_bytes(), KEYS).unwrap();
        assert_eq!(warnings, []);
        let set = |key, values: &[&str], line| Setting {
            key,
            values: values.iter().map(|&value| value.to_owned()).collect(),
            line,
        };
        let expected = Settings {
            all: vec![
                set("policy", &["agent"], 2),
                set("log_size", &["10"], 3),
                set("write", &["~/a", "/b"], 4),
                set("ask", &[], 5),
            ],
            programs: vec![("claude".to_owned(), vec![set("policy", &["claude"], 8)])],
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn what_is_no_setting_is_an_error() {
        #[rustfmt::skip]
        let table = [
            ("polcy: x",                              "did you mean `policy`?"),
            ("version: 2",                            "twice"),
            ("policy: [x]",                           "`policy` has to be a text"),
            ("policy: ''",                            "a text of one line"),
            ("policy: \"a\\u202eb\"",                 "cannot be seen"),
            ("policy: 7",                             "`policy` has to be a text"),
            ("write: /x",                             "`write` has to be a list"),
            ("write: []",                             "`write` is empty"),
            ("write: [7]",                            "an item of `write` has to be a text"),
            ("ask: 1",                                "`ask` has to be `true` or `false`"),
            ("programs: [claude]",                    "`programs` has to be a mapping"),
            ("programs: {./claude: {policy: x}}",     "known by its name alone"),
            ("programs: {claude: {polcy: x}}",        "did you mean `policy`?"),
            ("programs: {a: {programs: {}}}",         "has no key `programs`"),
            ("programs: {a: {ask: true}, a: {}}",     "twice"),
        ];
        for (text, says) in table {
            let text = format!("version: 1\n{text}\n");
            let errors = Settings::parse("s.yaml", text.as_bytes(), KEYS).unwrap_err();
            assert!(errors.to_string().contains(says), "{text}\n{errors}");
        }
        for text in ["", "policy: x", "[]", "version: '1'", "version: 1\na: &x 1"] {
            assert!(
                Settings::parse("s.yaml", text.as_bytes(), KEYS).is_err(),
                "{text:?}"
            );
        }
    }
}
