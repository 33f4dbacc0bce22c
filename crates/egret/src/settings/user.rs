//! The user's settings: options of `egret run` that need not be given each time.
//!
//! A setting stands for an option, and is put among the arguments where the option is not: so it means what the option
//! means, is checked as that is, and loses against it. It is read from one file, which nobody else may write to and no
//! sandbox sees. `egret settings` shows what there is.

use crate::cli::{self, Cli, Output};
use crate::failure::Failure;
use crate::files;
use crate::project;
use crate::settings::{config_directory, home, without_credentials, without_secret};
use crate::source::named;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _};
use egret_policy::{Setting, SettingKey, Settings, Takes};
use rustix::process::geteuid;
use serde_json::json;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the file is called.
const NAME: &str = "settings.yaml";

/// What a setting is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Everything,
    Commands,
    Images,
}

/// Every setting: its key, which is the option's name, what it takes, and what it is for.
const KEYS: [(&str, Takes, For); 16] = [
    ("policy", Takes::Text, For::Everything),
    ("deny", Takes::List, For::Everything),
    ("env", Takes::List, For::Everything),
    ("resolver", Takes::List, For::Everything),
    ("upstream_proxy", Takes::Text, For::Everything),
    ("no_proxy_env", Takes::Flag, For::Everything),
    ("ask", Takes::TextOrNumber, For::Everything),
    ("read", Takes::List, For::Commands),
    ("write", Takes::List, For::Commands),
    ("hide", Takes::List, For::Commands),
    ("allow_user_namespaces", Takes::Flag, For::Commands),
    ("record_programs", Takes::Flag, For::Commands),
    ("log_max_size", Takes::TextOrNumber, For::Commands),
    ("log_keep", Takes::TextOrNumber, For::Commands),
    ("otlp", Takes::Text, For::Commands),
    ("engine", Takes::Text, For::Images),
];

/// Lists that an option is added to. Others give way to the option, as what is no list does.
const ADDED: [&str; 5] = ["deny", "env", "read", "write", "hide"];

/// What may have a secret in its value.
const SECRET: [&str; 2] = ["env", "upstream_proxy"];

/// Arguments of `egret settings`.
#[derive(Debug, Args)]
#[command(after_help = "\
Settings are in ~/.config/egret/settings.yaml ($XDG_CONFIG_HOME/egret), and what a
project takes away in its egret.yaml. An option wins over a setting; `egret run
--no-settings` leaves both files aside.")]
pub(crate) struct Show {
    /// Show what applies to this program, as in `egret run -- PROGRAM`
    program: Option<String>,
    /// Form of the list
    #[arg(long, value_name = "FORM", default_value = "text")]
    output: Output,
}

/// What was given, with what settings add.
pub(crate) struct Extended {
    pub(crate) arguments: Vec<OsString>,
    pub(crate) cli: Cli,
    from: Option<User>,
}

/// Reads arguments, and adds to them what the settings say and they do not.
pub(crate) fn parse(given: Vec<OsString>) -> Result<Result<Extended, Failure>, clap::Error> {
    let matches = Cli::command().try_get_matches_from(&given)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let user = match asked(&given, &matches) {
        Some(asked) => match User::load() {
            Ok(user) => user.map(|user| (asked, user)),
            Err(failure) => return Ok(Err(failure)),
        },
        None => None,
    };
    let Some((asked, user)) = user else {
        return Ok(Ok(Extended {
            arguments: given,
            cli,
            from: None,
        }));
    };
    let arguments = match user.add_to(given, &asked) {
        Ok(arguments) => arguments,
        Err(failure) => return Ok(Err(failure)),
    };
    let extended = match Cli::command()
        .try_get_matches_from(&arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => Ok(Extended {
            arguments,
            cli,
            from: Some(user),
        }),
        Err(error) => Err(user.explain(Failure::new(
            cli::plain(&error).trim_start_matches("egret: ").trim_end(),
        ))),
    };
    Ok(extended)
}

/// A command that settings are for.
struct Asked<'m> {
    options: &'m ArgMatches,
    /// The program's name, if a command is to be run that has one.
    program: Option<String>,
    is_command: bool,
    /// Whether it is to find out what policy it needs.
    learns: bool,
    /// Whether it starts an `egret run`, which goes by the settings itself, and whose arguments others can see.
    starts_another: bool,
}

fn asked<'m>(given: &[OsString], matches: &'m ArgMatches) -> Option<Asked<'m>> {
    let (command, options) = matches.subcommand()?;
    if !matches!(command, "run" | "learn" | "verify") || options.get_flag("no_settings") {
        return None;
    }
    let is_given = |option: &str| matches!(options.try_contains_id(option), Ok(true));
    // Of runs that are over.
    if is_given("from_log") {
        return None;
    }
    let words: Vec<&OsString> = options.get_many("words").unwrap_or_default().collect();
    let is_command = cli::is_command(words.len(), given);
    // Only after `--` it is not the name of a sandbox that runs. What is made for an image is an `egret run` of its own.
    if command == "verify" && !is_command {
        return None;
    }
    // What has a slash is no program that is known by its name: anybody may have called it that.
    let program = words.first().and_then(|word| word.to_str());
    let program = program.filter(|word| is_command && !word.contains('/'));
    Some(Asked {
        options,
        program: program.map(str::to_owned),
        is_command,
        learns: command == "learn" || is_given("learn"),
        starts_another: command == "verify",
    })
}

impl Asked<'_> {
    /// Whether a setting has a place among the arguments.
    fn takes(&self, setting: &Setting) -> bool {
        // Not every command has every option.
        if self.options.try_contains_id(setting.key).is_err() {
            return false;
        }
        let given = matches!(
            self.options.value_source(setting.key),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        );
        let of_file = self.options.contains_id("from_config");
        let is_for = KEYS.iter().find(|(key, ..)| *key == setting.key);
        let is_for = match is_for.map(|(.., is_for)| *is_for) {
            Some(For::Everything) => !of_file,
            Some(For::Commands) => self.is_command,
            Some(For::Images) => !self.is_command,
            None => false,
        };
        let is_for = is_for && !(self.starts_another && SECRET.contains(&setting.key));
        // By no policy but the one that it has, without questions, and from a log of which nothing goes missing.
        let is_for =
            is_for && !(self.learns && ["policy", "log_keep", "ask"].contains(&setting.key));
        is_for && (!given || ADDED.contains(&setting.key))
    }
}

/// The user's settings as they were read.
struct User {
    file: PathBuf,
    settings: Settings,
}

impl User {
    /// The settings, if there are any.
    fn load() -> Result<Option<Self>, Failure> {
        let Some(directory) = config_directory() else {
            return Ok(None);
        };
        let file = directory.join(NAME);
        let failed = |error: &io::Error| {
            Failure::because(
                format_args!("cannot read your settings {}", file.display()),
                error,
            )
        };
        let open = match File::open(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            open => open.map_err(|error| failed(&error))?,
        };
        let found = open.metadata().map_err(|error| failed(&error))?;
        let of_directory = directory.metadata().map_err(|error| failed(&error))?;
        if !found.is_file() {
            return Err(Failure::new(format!(
                "your settings {} are no file",
                file.display()
            )));
        }
        for (path, found) in [(&file, &found), (&directory, &of_directory)] {
            let trusted =
                [geteuid().as_raw(), 0].contains(&found.uid()) && found.mode() & 0o022 == 0;
            if !trusted {
                return Err(Failure::new(format!(
                    "somebody else can write to {}: it has to be yours, and `chmod go-w {}`; --no-settings leaves it aside",
                    path.display(),
                    path.display()
                )));
            }
        }
        let mut text = Vec::new();
        open.take(Settings::MAX_OCTETS as u64 + 1)
            .read_to_end(&mut text)
            .map_err(|error| failed(&error))?;
        let keys = KEYS.map(|(name, takes, _)| SettingKey { name, takes });
        let parsed = Settings::parse(&file.display().to_string(), &text, &keys);
        let (settings, _) = parsed.map_err(|errors| {
            Failure::new(format!(
                "your settings cannot be used (--no-settings leaves them aside)\n{errors}"
            ))
        })?;
        let user = Self { file, settings };
        let every = user.settings.programs.iter().flat_map(|(_, set)| set);
        let every = user.settings.all.iter().chain(every);
        every.clone().try_for_each(|setting| user.check(setting))?;
        Ok(Some(user))
    }

    /// What is set is the same wherever one stands: paths and policies of the working directory may be a program's.
    fn check(&self, setting: &Setting) -> Result<(), Failure> {
        let anywhere = |path: &str| path.starts_with('/') || path == "~" || path.starts_with("~/");
        let bad = setting.values.iter().find(|value| match setting.key {
            "policy" => !anywhere(value) && !named::is_name(value),
            "read" | "write" | "hide" => !anywhere(value),
            _ => false,
        });
        match bad {
            Some(value) => Err(Failure::new(format!(
                "{}: `{}` {value:?} depends on where one stands; write a path that begins with `/` or `~/`{}",
                self.place(setting),
                setting.key,
                if setting.key == "policy" {
                    ", or the name of a policy"
                } else {
                    ""
                }
            ))),
            None => Ok(()),
        }
    }

    fn place(&self, setting: &Setting) -> String {
        format!("{}:{}", self.file.display(), setting.line)
    }

    /// What is set for a program: first of all that is its own.
    fn of<'u>(&'u self, program: Option<&str>) -> impl Iterator<Item = &'u Setting> {
        let named = |(name, _): &&(String, Vec<Setting>)| program == Some(name);
        let own = self.settings.programs.iter().find(named);
        let own = own.map(|(_, set)| set.as_slice()).unwrap_or_default();
        let replaced = move |setting: &&Setting| {
            ADDED.contains(&setting.key) || own.iter().all(|own| own.key != setting.key)
        };
        self.settings.all.iter().filter(replaced).chain(own)
    }

    fn add_to(
        &self,
        mut given: Vec<OsString>,
        asked: &Asked<'_>,
    ) -> Result<Vec<OsString>, Failure> {
        let mut more = Vec::new();
        for setting in self
            .of(asked.program.as_deref())
            .filter(|setting| asked.takes(setting))
        {
            let option = option(setting.key);
            match setting.values.is_empty() {
                true => more.push(option.into()),
                false => {
                    for value in &setting.values {
                        let value = match setting.key {
                            "policy" => files::at_home(Path::new(value), home().as_deref())?.into(),
                            _ => OsString::from(value),
                        };
                        let mut word = OsString::from(format!("{option}="));
                        word.push(value);
                        more.push(word);
                    }
                }
            }
        }
        // Behind the name of the program and of the command.
        let rest = given.split_off(given.len().min(2));
        given.extend(more);
        given.extend(rest);
        Ok(given)
    }

    /// A failure that names an option which nobody has given names the setting as well.
    fn explain(&self, failure: Failure) -> Failure {
        let text = failure.to_string();
        let programs = self.settings.programs.iter().flat_map(|(_, set)| set);
        let mut all = self.settings.all.iter().chain(programs);
        let named = all.find(|setting| {
            text.contains(&option(setting.key))
                && setting
                    .values
                    .iter()
                    .any(|value| text.contains(value.as_str()))
        });
        match named {
            Some(setting) => {
                let place = self.place(setting);
                failure.and(format_args!(
                    "this is the setting `{}` ({place})",
                    setting.key
                ))
            }
            None => failure,
        }
    }
}

impl Extended {
    /// The same, and what it has to say about how it came about.
    pub(crate) fn split(self) -> (Vec<OsString>, Cli, impl Fn(Failure) -> Failure) {
        let Self {
            arguments,
            cli,
            from,
        } = self;
        (arguments, cli, move |failure| match &from {
            Some(user) => user.explain(failure),
            None => failure,
        })
    }
}

/// What is set, but for what nobody is to look at over a shoulder.
fn shown(setting: &Setting) -> Vec<String> {
    let values = setting.values.iter();
    values
        .map(|value| match setting.key {
            "env" => without_secret(value),
            "upstream_proxy" => without_credentials(value),
            _ => value.clone(),
        })
        .collect()
}

fn option(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// `egret settings`
pub(crate) fn show(arguments: &Show) -> Result<ExitCode, Failure> {
    let user = User::load()?;
    let projects = project::find_here(false)?;
    let set: Vec<&Setting> = user
        .iter()
        .flat_map(|user| user.of(arguments.program.as_deref()))
        .collect();
    let file = config_directory().map(|directory| directory.join(NAME).display().to_string());
    let programs = user.iter().flat_map(|user| &user.settings.programs);
    let programs: Vec<&str> = programs.map(|(name, _)| name.as_str()).collect();
    let mut taken = Vec::new();
    for project in &projects {
        taken.push((
            project.path.display().to_string(),
            project.narrowing()?.in_words(),
        ));
    }
    let text = match arguments.output {
        Output::Json => {
            let settings: Vec<_> = set
                .iter()
                .map(|setting| json!({ "key": setting.key, "values": shown(setting), "line": setting.line }))
                .collect();
            let projects: Vec<_> = taken
                .iter()
                .map(|(file, takes_away)| json!({ "file": file, "takes_away": takes_away }))
                .collect();
            let all = json!({
                "file": file, "exists": user.is_some(), "settings": settings, "programs": programs, "projects": projects,
            });
            format!("{all:#}\n")
        }
        Output::Text => in_text(file.as_deref(), user.as_ref(), &set, &programs, &taken),
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::because("cannot print", &error))?;
    Ok(ExitCode::SUCCESS)
}

fn in_text(
    file: Option<&str>,
    user: Option<&User>,
    set: &[&Setting],
    programs: &[&str],
    taken: &[(String, Vec<String>)],
) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&egret_policy::visible_lines(&words));
        text.push('\n');
    };
    match (file, user) {
        (Some(file), None) => line(format!("There are no settings in {file}.")),
        (None, _) => line("There is no place for settings: HOME is not set.".into()),
        (Some(_), Some(user)) => {
            for setting in set {
                let value = match shown(setting).as_slice() {
                    [] => "true".to_owned(),
                    values => values.join(", "),
                };
                line(format!(
                    "{:22} {value}  ({})",
                    setting.key,
                    user.place(setting)
                ));
            }
            if !programs.is_empty() {
                line(format!(
                    "{:22} {}",
                    "settings of their own",
                    programs.join(", ")
                ));
            }
        }
    }
    for (file, takes_away) in taken {
        line(format!("{file} takes away:"));
        takes_away
            .iter()
            .for_each(|phrase| line(format!("  {phrase}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Settings {
        let keys = KEYS.map(|(name, takes, _)| SettingKey { name, takes });
        let parsed = Settings::parse("s", text.as_bytes(), &keys);
        parsed.unwrap_or_else(|errors| panic!("{errors}")).0
    }

    fn extended(settings: &str, line: &str) -> Vec<String> {
        let settings = parsed(&format!("version: 1\n{settings}"));
        let user = User {
            file: "s".into(),
            settings,
        };
        let given: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let matches = Cli::command().try_get_matches_from(&given).unwrap();
        let Some(asked) = asked(&given, &matches) else {
            return Vec::new();
        };
        let words = user.add_to(given.clone(), &asked).unwrap();
        assert!(
            Cli::command().try_get_matches_from(&words).is_ok(),
            "{words:?}"
        );
        let more = words.len() - given.len();
        words[2..2 + more]
            .iter()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_setting_is_an_option() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        for (key, ..) in KEYS {
            let found = run
                .get_arguments()
                .any(|arg| arg.get_id() == key && arg.get_long() == Some(&option(key)[2..]));
            assert!(found, "{key}");
        }
    }

    #[test]
    fn the_schema_has_every_setting() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../../docs/settings.schema.json")).unwrap();
        let keys = |value: &serde_json::Value| {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort_unstable();
            keys
        };
        let mut own: Vec<_> = KEYS.iter().map(|(key, ..)| (*key).to_owned()).collect();
        own.sort_unstable();
        assert_eq!(keys(&schema["$defs"]["settings"]["properties"]), own);
        let guide = include_str!("../../../../docs/guide/settings.md");
        let (_, section) = guide.split_once("## Your settings").unwrap();
        let example = section.split("```yaml\n").nth(1).unwrap();
        let example = example.split("```").next().unwrap();
        assert_eq!(
            parsed(example).all.len() + parsed(example).programs.len(),
            5
        );
        for key in own {
            assert!(
                guide.contains(&format!("`{key}`")),
                "{key} is not in docs/guide/settings.md"
            );
        }
    }

    #[test]
    fn an_option_wins_over_a_setting_and_a_program_s_own_over_that_of_all() {
        let settings = "policy: agent\nresolver: [192.0.2.1]\nwrite: [/a]\nrecord_programs: true\nengine: podman\nask: 20\n\
                        programs:\n  claude: {policy: claude, write: [/c]}";
        #[rustfmt::skip]
        let table: [(&str, &[&str]); 14] = [
            ("egret run -- x",                       &["--policy=agent", "--resolver=192.0.2.1", "--write=/a", "--record-programs", "--ask=20"]),
            ("egret run -- claude",                  &["--resolver=192.0.2.1", "--write=/a", "--record-programs", "--ask=20", "--policy=claude", "--write=/c"]),
            ("egret run --policy p.yaml -- claude",  &["--resolver=192.0.2.1", "--write=/a", "--record-programs", "--ask=20", "--write=/c"]),
            ("egret run -- ./claude",                &["--policy=agent", "--resolver=192.0.2.1", "--write=/a", "--record-programs", "--ask=20"]),
            ("egret run --resolver 192.0.2.9 --write /b -- x", &["--policy=agent", "--write=/a", "--record-programs", "--ask=20"]),
            ("egret run claude -- claude",           &["--policy=agent", "--resolver=192.0.2.1", "--engine=podman", "--ask=20"]),
            ("egret run --engine docker x",          &["--policy=agent", "--resolver=192.0.2.1", "--ask=20"]),
            ("egret run --from-config c.json",       &["--engine=podman"]),
            ("egret verify -- claude",               &["--resolver=192.0.2.1", "--write=/a", "--record-programs", "--policy=claude", "--write=/c"]),
            ("egret verify claude",                  &[]),
            ("egret learn -- claude",                &["--resolver=192.0.2.1", "--write=/a", "--record-programs", "--write=/c"]),
            ("egret run --learn x -- mytool",        &["--resolver=192.0.2.1", "--write=/a", "--record-programs"]),
            ("egret learn --from-log x.jsonl",       &[]),
            ("egret run --no-settings -- claude",    &[]),
        ];
        for (line, more) in table {
            assert_eq!(extended(settings, line), more, "{line}");
        }
        assert_eq!(extended("policy: ~/p.yaml", "egret run -- x").len(), 1);
        assert!(!extended("policy: ~/p.yaml", "egret run -- x")[0].contains('~'));
    }

    #[test]
    fn what_is_secret_is_not_shown_nor_passed_on_where_it_can_be_seen() {
        let text =
            "upstream_proxy: http://me:s3cret@proxy.example:3128\nenv: [A=b, API_KEY=s3cret]";
        for setting in parsed(&format!("version: 1\n{text}")).all {
            assert!(!shown(&setting).concat().contains("s3cret"), "{setting:?}");
        }
        assert_eq!(extended(text, "egret run -- x").len(), 3);
        assert!(extended(text, "egret verify -- x").is_empty());
    }

    #[test]
    fn what_depends_on_the_working_directory_is_no_setting() {
        let user = User {
            file: "s".into(),
            settings: Settings::default(),
        };
        let check = |key: &'static str, value: &str| {
            let values = vec![value.to_owned()];
            user.check(&Setting {
                key,
                values,
                line: 3,
            })
        };
        for (key, value) in [
            ("policy", "p.yaml"),
            ("policy", "./p"),
            ("policy", "a/b"),
            ("write", "out"),
            ("read", "."),
        ] {
            let failure = check(key, value).unwrap_err().to_string();
            assert!(failure.starts_with(&format!("s:3: `{key}`")), "{failure}");
        }
        for (key, value) in [
            ("policy", "agent"),
            ("policy", "/p.yaml"),
            ("policy", "~/p.yaml"),
            ("write", "~"),
            ("hide", "/x"),
        ] {
            assert!(check(key, value).is_ok(), "{key} {value}");
        }
    }
}
