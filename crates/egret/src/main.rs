//! The front door: arguments, environment, signals, exit codes, and who is introduced to whom.
//!
//! Nothing is decided here and nothing relayed. [`run`] is the page to read first.
#![forbid(unsafe_code)]
#![warn(clippy::print_stderr, clippy::print_stdout)]

/// Says something to the user, on standard error, with what a terminal would act on written out. If that cannot be written nobody listens, and there is nothing to do:
/// `eprintln!` would panic, and a sandbox with it.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let text = format!($($argument)*);
        let (Ok(()) | Err(_)) = writeln!(std::io::stderr(), "{}", egret_policy::visible_lines(&text));
    }};
}

mod cli;
mod control;
mod environment;
mod failure;
mod files;
mod gate;
mod logs;
mod policy;
mod run;
mod sandboxes;
mod secrets;
mod settings;
mod source;
mod summary;

use clap::Parser as _;
use cli::{Cli, Command};
use failure::EGRET_FAILED;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // `egret jail FD` is how egret starts itself to build a sandbox. It must come before anything that could open a
    // descriptor or start a thread.
    if arguments.nth(1).is_some_and(|first| first == "jail") {
        return jail(arguments.next());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let outcome = match cli.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Ps(arguments) => sandboxes::ps(&arguments),
        Command::Stop(arguments) => sandboxes::stop(&arguments),
        Command::Logs(arguments) => logs::logs(&arguments),
        Command::Policy(cli::Policy::Set(arguments)) => sandboxes::set_policy(&arguments),
        Command::Policy(cli::Policy::Offline(command)) => return policy::run(command).into(),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            say!("egret: {failure}");
            failure.code()
        }
    }
}

fn jail(descriptor: Option<OsString>) -> ExitCode {
    let number = descriptor.and_then(|text| text.to_str()?.parse().ok());
    match number.map(egret_sandbox::jail::inherited_socket) {
        Some(Ok(socket)) => egret_sandbox::jail::enter(socket),
        _ => {
            say!("egret: `egret jail` is how egret starts itself; use `egret run -- COMMAND`");
            ExitCode::from(EGRET_FAILED)
        }
    }
}

/// Help and version are no failures; anything else is, with the status that the command's other failures have.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // That help cannot be printed is nothing to print.
        let (Ok(()) | Err(_)) = error.print();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    match cli::misplaced(error, &arguments) {
        Some(advice) => say!("egret: {advice}"),
        None => say!("{}", cli::plain(error).trim_end()),
    }
    match arguments.get(1).map(String::as_str) {
        Some("policy") => ExitCode::from(2),
        _ => ExitCode::from(EGRET_FAILED),
    }
}
