//! The command line.

#[cfg(test)]
mod reference;

use crate::container::{ContainerOptions, Kind};
use crate::failure::Failure;
use crate::learn::{self, Learn, Learner};
use crate::logs::Filter;
use crate::observe::{Observe, ObserveOptions};
use crate::verify::Plan;
use crate::watch::{Answer, Watch};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use egret_policy::{HostGatewayPorts, SandboxId};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run untrusted programs so that their only way out is a gateway that enforces a policy.
#[derive(Debug, Parser)]
#[command(
    name = "egret",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
#[command(after_help = "\
Examples:
  egret run --allow example.com -- curl https://example.com/
  egret run --policy agent.yaml -- claude
  egret learn -o agent.yaml -- ./agent
  egret run --allow-docker-gateway=5432 -- psql -h host.docker.internal
  egret policy explain agent.yaml api.github.com:443
  egret logs --denied
  egret verify --policy agent.yaml")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program in a sealed sandbox
    #[command(
        override_usage = "egret run [OPTIONS] -- COMMAND [ARG]...\n       egret run [OPTIONS] IMAGE [ARG]...",
        after_help = "\
Nothing is reachable until a policy or a flag says so. This machine, private
networks and cloud metadata stay shut even under `default: allow-public`; the
machine has its own opt-in, --allow-docker-gateway.

A command sees your files read-only, without those that hold secrets. It can
write to the working directory and to a /tmp of its own. An image runs on Docker
or Podman, with options that mean what they mean there. Inside, a name has an
address of 198.18.0.0/15 that stands for it.

Exit status: the program's own; 125 if egret failed, 126 if the program cannot
be run, 127 if it is not there."
    )]
    Run(Box<Run>),
    /// Run something with everything public open to it, and write the smallest policy that it needed
    #[command(override_usage = learn::USAGE, after_help = learn::HELP)]
    Learn(Box<Learn>),
    /// List the sandboxes that are running
    Ps(Ps),
    /// Try the known ways out of a sandbox, from inside, and see what gets through
    Verify(Box<Verify>),
    /// Show what sandboxes tried to reach, and what became of it
    Logs(Logs),
    /// Say why something was allowed or refused, from the audit log
    Explain(crate::explain::Explain),
    /// Watch sandboxes on a screen: what they try to reach, and a key that allows or denies it
    Watch(Watch),
    /// Answer what sandboxes ask that were started with --ask, line by line
    Answer(Answer),
    /// Tell of all sandboxes to Prometheus and to OpenTelemetry collectors
    Observe(Observe),
    /// Stop a sandbox: SIGTERM to its program, then an end to all of it
    Stop(Stop),
    /// Start container sandboxes that were stopped
    Start(Start),
    /// Stop container sandboxes and start them again
    Restart(Stop),
    /// Remove container sandboxes, all but their audit logs
    Rm(Remove),
    /// Run a command in a container sandbox, confined like the rest of it
    Exec(Exec),
    /// Show what container sandboxes are made of, as JSON
    Inspect(Inspect),
    /// Print the run configuration of a container sandbox, for `egret run --from-config`
    Export(Inspect),
    /// Write a first policy
    Init(crate::init::Init),
    /// Show your settings, and what the project takes away
    Settings(crate::settings::user::Show),
    /// Print what makes a shell complete egret's commands and options
    Completion(Completion),
    /// Check, explain, test, compare and convert policies, or give a running sandbox a new one
    #[command(subcommand)]
    Policy(Policy),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Give a running sandbox a new policy
    Set(SetPolicy),
    #[command(flatten)]
    Offline(crate::policy::PolicyCommand),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) options: Options,
    /// Let what is refused, and you could allow, wait this long while you are asked in another terminal (`egret watch`)
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "15",
        value_parser = clap::value_parser!(u64).range(1..=300))]
    pub(crate) ask: Option<u64>,
    /// End with a summary of what was refused, even if standard error is no terminal
    #[arg(long)]
    pub(crate) summary: bool,
    /// Form of the summary; json implies --summary
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
    #[command(flatten, next_help_heading = "Options for a command")]
    pub(crate) process: ProcessOptions,
    #[command(flatten, next_help_heading = "Options for an image")]
    pub(crate) container: ContainerOptions,
    /// Let it reach everything public, and write the policy that it needed to this file (see `egret learn`)
    #[arg(long, value_name = "FILE")]
    pub(crate) learn: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) learning: bool,
    #[arg(skip)]
    pub(crate) learner: Option<Learner>,
    /// Run `egret verify`'s prober instead: what it is to try, as JSON
    #[arg(long, hide = true, value_name = "PLAN", value_parser = Plan::parse)]
    pub(crate) probe: Option<Plan>,
    /// The image to run, and arguments in place of its command; or, after `--`, the command to run
    #[arg(
        value_name = "IMAGE",
        num_args = 0..,
        trailing_var_arg = true
    )]
    pub(crate) words: Vec<OsString>,
}

/// What every sandbox has.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Allow a destination, on ports 80 and 443 unless it says which
    #[arg(long, value_name = "HOST[:PORT,…]")]
    pub(crate) allow: Vec<String>,
    /// Refuse a destination, whatever else allows it
    #[arg(long, value_name = "HOST[:PORT,…]")]
    pub(crate) deny: Vec<String>,
    /// Decide by the policy in this file, Egret's own or one of ToolHive, OpenShell or Smokescreen (FILE#SERVICE), or by
    /// yours of this name (`egret policy list`); the profiles `none` and `network` are built in
    #[arg(long, visible_alias = "permission-profile", value_name = "FILE|NAME")]
    pub(crate) policy: Option<String>,
    /// Open this machine to the program, as host.docker.internal: on any port, or on these
    #[arg(long, value_name = "PORTS", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) allow_docker_gateway: Option<HostGatewayPorts>,
    /// Set an environment variable, or pass on one that is held back
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Name the sandbox
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Start in this directory; a command can write to it, unless it is a home or the system's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Resolve names by asking this DNS server instead of the system's
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub(crate) resolver: Vec<String>,
    /// Reach the outside through this HTTP proxy
    #[arg(long, value_name = "URL")]
    pub(crate) upstream_proxy: Option<String>,
    /// Do not set HTTP_PROXY and its kin
    #[arg(long)]
    pub(crate) no_proxy_env: bool,
    /// Write the audit log to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// Leave your settings aside, and the project's egret.yaml
    #[arg(long)]
    pub(crate) no_settings: bool,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "egret verify [OPTIONS] [-- COMMAND]\n       egret verify [OPTIONS] IMAGE\n       egret verify NAME",
    after_help = "\
Puts a prober into a sandbox, which tries the known ways past its boundary, and
opens servers outside that see what gets through. With the options of `egret run`
the sandbox is a new one, in which the prober is run in place of the command or
of the image's. With the NAME of a sandbox that runs, the prober joins it.

What is tried, and what closes each way: docs/bypasses.md.

Exit status: 0 if nothing leaked and nothing was skipped, 1 otherwise, 125 if
there is no such sandbox or it cannot be made."
)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) options: Options,
    /// Form of the report
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Report,
    #[command(flatten, next_help_heading = "Options for a command")]
    pub(crate) process: ProcessOptions,
    #[command(flatten, next_help_heading = "Options for an image")]
    pub(crate) container: ContainerOptions,
    /// A sandbox that runs, or an image; or, after `--`, a command, which is not run
    #[arg(value_name = "NAME|IMAGE", num_args = 0.., trailing_var_arg = true)]
    pub(crate) words: Vec<OsString>,
}

/// How a verification is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Report {
    /// A table for people.
    Text,
    /// For machines.
    Json,
    /// JUnit XML, for what reads test results.
    Junit,
}

impl Run {
    /// Whether its words are a command, given the arguments that it was parsed from: whether there is `--` before them.
    pub(crate) fn is_command(&self, arguments: &[OsString]) -> bool {
        is_command(self.words.len(), arguments)
    }

    /// What is wrong with ports that stand after the option and a blank, where they would be the image.
    pub(crate) fn misplaced_ports(&self, arguments: &[OsString]) -> Option<String> {
        let first = self.words.first()?.to_str()?;
        let ports = first.split(',').all(|port| port.parse::<u16>().is_ok());
        let before = arguments.len().checked_sub(self.words.len() + 1)?;
        let misplaced = ports && arguments.get(before)? == "--allow-docker-gateway";
        misplaced
            .then(|| format!("write --allow-docker-gateway={first}, with `=` and without a blank"))
    }
}

/// Whether there is `--` before the last so many of the arguments.
pub(crate) fn is_command(words: usize, arguments: &[OsString]) -> bool {
    let before = arguments.len().checked_sub(words + 1);
    before
        .and_then(|before| arguments.get(before))
        .is_some_and(|before| before == "--")
}

/// Whether arguments that have not been parsed look like those of a command to run.
pub(crate) fn likely_command(arguments: &[OsString]) -> bool {
    arguments
        .get(1)
        .is_some_and(|first| first == "run" || first == "learn")
        && arguments.iter().any(|word| word == "--")
}

/// What only a command's sandbox has.
#[derive(Debug, Args)]
pub(crate) struct ProcessOptions {
    /// Show a path that is hidden or outside, read-only
    #[arg(long, value_name = "PATH")]
    pub(crate) read: Vec<PathBuf>,
    /// Let the program change a path
    #[arg(long, value_name = "PATH")]
    pub(crate) write: Vec<PathBuf>,
    /// Hide a path
    #[arg(long, value_name = "PATH")]
    pub(crate) hide: Vec<PathBuf>,
    /// Let the program make user namespaces, which the sandboxes of browsers and build tools need
    #[arg(long)]
    pub(crate) allow_user_namespaces: bool,
    /// Find out of every connection which program made it, for the log; else only where the policy asks who it is
    #[arg(long)]
    pub(crate) record_programs: bool,
    #[command(flatten)]
    pub(crate) observe: ObserveOptions,
}

/// An error of clap's, in Egret's voice, and without the advice to pass a mistyped option to the program.
pub(crate) fn plain(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().filter(|line| !line.contains("tip: to pass '"));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    text.replacen("error: ", "egret: ", 1)
        .replace("\n\n\n", "\n\n")
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also containers that have ended
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only the containers of this engine
    #[arg(long, value_name = "ENGINE", env = "EGRET_ENGINE")]
    pub(crate) engine: Option<Kind>,
    /// Form of the list
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The sandbox, or the program that it ran; the newest log if none is named
    pub(crate) name: Option<SandboxId>,
    /// Of all sandboxes that left a log, one after the other, each line with the name of its sandbox
    #[arg(long, conflicts_with_all = ["name", "file", "follow", "tail"])]
    pub(crate) all: bool,
    /// Go on as records arrive, until the sandbox ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// What a container sandbox tried to reach, instead of what it printed
    #[arg(long)]
    pub(crate) audit: bool,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Only so many lines of a container's output, from its end
    #[arg(short = 'n', long, value_name = "LINES")]
    pub(crate) tail: Option<String>,
    /// Read this file instead
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    pub(crate) file: Option<PathBuf>,
    /// Form of the records
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: crate::logs::Form,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The sandboxes
    #[arg(required = true)]
    pub(crate) names: Vec<SandboxId>,
    /// How long the program has to end by itself, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) time: u64,
    /// The engine that has it
    #[arg(long, value_name = "ENGINE", env = "EGRET_ENGINE")]
    pub(crate) engine: Option<Kind>,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The sandboxes
    #[arg(required = true)]
    pub(crate) names: Vec<SandboxId>,
    /// Show its output, and end as it ends
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Attach standard input as well
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// The engine that has it
    #[arg(long, value_name = "ENGINE", env = "EGRET_ENGINE")]
    pub(crate) engine: Option<Kind>,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The sandboxes
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) names: Vec<SandboxId>,
    /// All container sandboxes, and images of other versions of egret
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Also those that are running
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The engine that has it
    #[arg(long, value_name = "ENGINE", env = "EGRET_ENGINE")]
    pub(crate) engine: Option<Kind>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Run it in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Start in this directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// The engine that has it
    #[arg(long, value_name = "ENGINE", env = "EGRET_ENGINE")]
    pub(crate) engine: Option<Kind>,
    /// The sandbox
    pub(crate) name: SandboxId,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The sandboxes
    #[arg(required = true)]
    pub(crate) names: Vec<SandboxId>,
    /// The engine that has it
    #[arg(long, value_name = "ENGINE", env = "EGRET_ENGINE")]
    pub(crate) engine: Option<Kind>,
}

#[derive(Debug, Args)]
pub(crate) struct SetPolicy {
    /// The sandbox
    pub(crate) name: SandboxId,
    /// The new policy: a file, FILE#SERVICE, one of yours by its name, or one of the profiles `none` and `network`
    #[arg(value_name = "FILE|NAME")]
    pub(crate) policy: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  egret completion bash > ~/.local/share/bash-completion/completions/egret
  egret completion zsh > ~/.zfunc/_egret
  egret completion fish > ~/.config/fish/completions/egret.fish")]
pub(crate) struct Completion {
    /// The shell
    pub(crate) shell: Shell,
}

/// Prints a shell's completions.
pub(crate) fn complete(arguments: &Completion) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "egret", &mut script);
    std::io::stdout()
        .write_all(&script)
        .map_err(|error| Failure::because("cannot print", &error))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_from_an_image_by_what_is_before_it() {
        #[rustfmt::skip]
        let table = [
            ("egret run --name x -- ls -la", true,  &["ls", "-la"][..]),
            ("egret run alpine ls -la",      false, &["alpine", "ls", "-la"]),
            ("egret run -it alpine -- ls",   false, &["alpine", "--", "ls"]),
            ("egret run --rm alpine --rm",   false, &["alpine", "--rm"]),
            ("egret run -- -- ls",           true,  &["--", "ls"]),
        ];
        for (line, is_command, words) in table {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let Command::Run(run) = Cli::try_parse_from(&arguments).unwrap().command else {
                panic!("{line}");
            };
            assert_eq!(run.words, words, "{line}");
            assert_eq!(run.is_command(&arguments), is_command, "{line}");
            assert_eq!(run.misplaced_ports(&arguments), None, "{line}");
        }
    }

    #[test]
    fn ports_after_a_blank_are_no_image() {
        let arguments = [
            "egret",
            "run",
            "--allow-docker-gateway",
            "5432,80",
            "alpine",
        ]
        .map(OsString::from);
        let Command::Run(run) = Cli::try_parse_from(&arguments).unwrap().command else {
            panic!("not a run");
        };
        let advice = run.misplaced_ports(&arguments).unwrap();
        assert!(
            advice.contains("--allow-docker-gateway=5432,80"),
            "{advice}"
        );
    }

    #[test]
    fn a_mistyped_option_is_not_advised_to_be_passed_on() {
        let error = Cli::try_parse_from(["egret", "run", "--alow", "x", "--", "ls"]).unwrap_err();
        let text = plain(&error);
        assert!(
            text.starts_with("egret: ") && text.contains("--allow") && !text.contains("-- --alow"),
            "{text}"
        );
    }
}
