//! The command line.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use egret_policy::{HostGatewayPorts, SandboxId};
use std::ffi::OsString;
use std::path::PathBuf;

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
  egret run --allow-docker-gateway=5432 -- psql -h host.docker.internal
  egret policy explain agent.yaml api.github.com:443
  egret logs --denied")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program in a sealed sandbox
    Run(Box<Run>),
    /// List the sandboxes that are running
    Ps(Ps),
    /// Show what sandboxes tried to reach, and what became of it
    Logs(Logs),
    /// Stop a sandbox: SIGTERM to its program, then an end to all of it
    Stop(Stop),
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
#[command(after_help = "\
Nothing is reachable until a policy or a flag says so. This machine, private
networks and cloud metadata stay shut even under `default: allow-public`; the
machine has its own opt-in, --allow-docker-gateway.

The program sees your files read-only, without those that hold secrets. It can
write to the working directory and to a /tmp of its own. Inside, a name has an
address of 198.18.0.0/15 that stands for it.

Exit status: the program's own; 125 if egret failed, 126 if the program cannot
be run, 127 if it is not there.")]
pub(crate) struct Run {
    /// Allow a destination, on ports 80 and 443 unless it says which
    #[arg(long, value_name = "HOST[:PORT,…]")]
    pub(crate) allow: Vec<String>,
    /// Refuse a destination, whatever else allows it
    #[arg(long, value_name = "HOST[:PORT,…]")]
    pub(crate) deny: Vec<String>,
    /// Decide by the policy in this file, Egret's own or one of ToolHive, OpenShell or Smokescreen (FILE#SERVICE); the
    /// profiles `none` and `network` need no file
    #[arg(long, visible_alias = "permission-profile", value_name = "FILE")]
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
    pub(crate) name: Option<SandboxId>,
    /// Start the program in this directory, which it can write to, unless it is a home or the system's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Show a path that is hidden or outside, read-only
    #[arg(long, value_name = "PATH")]
    pub(crate) read: Vec<PathBuf>,
    /// Let the program change a path
    #[arg(long, value_name = "PATH")]
    pub(crate) write: Vec<PathBuf>,
    /// Hide a path
    #[arg(long, value_name = "PATH")]
    pub(crate) hide: Vec<PathBuf>,
    /// Resolve names by asking this DNS server instead of the system's
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub(crate) resolver: Vec<String>,
    /// Reach the outside through this HTTP proxy
    #[arg(long, value_name = "URL")]
    pub(crate) upstream_proxy: Option<String>,
    /// Do not set HTTP_PROXY and its kin
    #[arg(long)]
    pub(crate) no_proxy_env: bool,
    /// Let the program make user namespaces, which the sandboxes of browsers and build tools need
    #[arg(long)]
    pub(crate) allow_user_namespaces: bool,
    /// Write the audit log to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// End with a summary of what was refused, even if standard error is no terminal
    #[arg(long)]
    pub(crate) summary: bool,
    /// Form of the summary; json implies --summary
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Advice for what users of other tools type: a program without `--` before it, ports without `=` before them.
pub(crate) fn misplaced(error: &clap::Error, arguments: &[String]) -> Option<String> {
    let Some(ContextValue::String(stray)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let at = arguments.iter().position(|argument| argument == stray)?;
    let (before, rest) = arguments.split_at_checked(at)?;
    if error.kind() != ErrorKind::UnknownArgument
        || stray.starts_with('-')
        || before.get(1)? != "run"
    {
        return None;
    }
    if before.last()? == "--allow-docker-gateway" {
        return Some(format!(
            "write --allow-docker-gateway={stray}, with `=` and without a blank"
        ));
    }
    let corrected = [
        &["egret".to_owned()],
        before.get(1..)?,
        &["--".to_owned()],
        rest,
    ]
    .concat()
    .join(" ");
    Some(format!("put `--` before the program: {corrected}"))
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
    /// Form of the list
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The sandbox; the newest log if none is named
    pub(crate) name: Option<SandboxId>,
    /// Go on as records arrive, until the sandbox ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what was refused
    #[arg(long)]
    pub(crate) denied: bool,
    /// Read this file instead
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    pub(crate) file: Option<PathBuf>,
    /// Form of the records
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The sandboxes
    #[arg(required = true)]
    pub(crate) names: Vec<SandboxId>,
    /// How long the program has to end by itself, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) time: u64,
}

#[derive(Debug, Args)]
pub(crate) struct SetPolicy {
    /// The sandbox
    pub(crate) name: SandboxId,
    /// The new policy: a file, FILE#SERVICE, or one of the profiles `none` and `network`
    #[arg(value_name = "FILE")]
    pub(crate) policy: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_of_other_tools_type_gets_the_right_advice() {
        #[rustfmt::skip]
        let table = [
            ("egret run --allow example.com ls -la",       Some("egret run --allow example.com -- ls -la")),
            ("egret run ls",                               Some("egret run -- ls")),
            ("egret run --allow-docker-gateway 5432 -- x", Some("--allow-docker-gateway=5432")),
            ("egret run --alow x -- ls",                   None),
            ("egret frob",                                 None),
        ];
        for (line, advice) in table {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let error = Cli::try_parse_from(&arguments).unwrap_err();
            let given = misplaced(&error, &arguments);
            match advice {
                Some(advice) => assert!(
                    given.as_ref().is_some_and(|given| given.contains(advice)),
                    "{line}: {given:?}"
                ),
                None => assert_eq!(given, None, "{line}"),
            }
        }
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
