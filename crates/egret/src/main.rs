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
mod container;
mod control;
mod environment;
mod explain;
mod failure;
mod files;
#[cfg(fuzzing)]
pub mod fuzz;
mod gate;
mod init;
mod learn;
mod logs;
mod observe;
mod policy;
mod project;
mod run;
mod sandboxes;
mod secrets;
mod settings;
mod source;
mod summary;
mod verify;
mod watch;

use cli::Command;
use egret_sandbox::Jail;
use failure::{EGRET_FAILED, Failure};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // `egret jail FD` is how egret starts itself to build a sandbox. It must come before anything that could open a
    // descriptor or start a thread.
    if arguments.nth(1).is_some_and(|first| first == "jail") {
        return jail(arguments.next());
    }
    // How egret starts itself in containers of its own.
    let mut words = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned());
    let first = words.next();
    let rest: Vec<String> = words.collect();
    let hidden = match first.as_deref() {
        Some("agent") => Some(container::agent(&rest)),
        Some("gateway") => Some(container::gateway()),
        Some("ask") => Some(container::ask(&rest)),
        Some("mind") => Some(container::mind(&rest)),
        Some("probe") => Some(verify::probe(&rest)),
        _ => None,
    };
    if let Some(outcome) = hidden {
        return exit(outcome);
    }
    #[cfg(feature = "unguarded")]
    say!("egret: warning: this build has switches for its guards, for tests alone");
    let given: Vec<OsString> = std::env::args_os().collect();
    // It is made while the arguments are read, which tell for certain whether it is needed.
    let jail = cli::likely_command(&given).then(Jail::start);
    let extended = match settings::user::parse(given) {
        Ok(Ok(extended)) => extended,
        Ok(Err(failure)) => return exit(Err(failure)),
        Err(error) => return usage(&error),
    };
    let (given, cli, explain) = extended.split();
    let outcome = match cli.command {
        Command::Run(arguments) => start(arguments, &given, jail),
        Command::Learn(arguments) => match learn::learn(*arguments, &given) {
            Ok(learn::Next::Run(arguments)) => start(arguments, &given, jail),
            Ok(learn::Next::Done(code)) => Ok(code),
            Err(failure) => Err(failure),
        },
        Command::Verify(arguments) => verify::verify(&arguments, &given),
        Command::Ps(arguments) => sandboxes::ps(&arguments),
        Command::Stop(arguments) => sandboxes::stop(&arguments),
        Command::Logs(arguments) => logs::logs(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Watch(arguments) => watch::watch(arguments),
        Command::Answer(arguments) => watch::answer(arguments),
        Command::Observe(arguments) => observe::observe(arguments),
        Command::Start(arguments) => container::start(&arguments),
        Command::Restart(arguments) => container::restart(&arguments),
        Command::Rm(arguments) => container::remove(&arguments),
        Command::Exec(arguments) => container::exec(&arguments),
        Command::Inspect(arguments) => container::inspect(&arguments),
        Command::Export(arguments) => container::export(&arguments),
        Command::Init(arguments) => init::init(arguments),
        Command::Settings(arguments) => settings::user::show(&arguments),
        Command::Completion(arguments) => cli::complete(&arguments),
        Command::Policy(cli::Policy::Set(arguments)) => sandboxes::set_policy(&arguments),
        Command::Policy(cli::Policy::Offline(command)) => return policy::run(command).into(),
    };
    exit(outcome.map_err(explain))
}

/// `egret run`, with the jail if one has been started.
fn start(
    mut arguments: Box<cli::Run>,
    given: &[OsString],
    jail: Option<Result<Jail, egret_sandbox::Error>>,
) -> Result<ExitCode, Failure> {
    if let Some(advice) = arguments.misplaced_ports(given) {
        return Err(Failure::new(advice));
    }
    learn::to_file(&mut arguments, given)?;
    let jail = arguments
        .is_command(given)
        .then(|| jail.unwrap_or_else(Jail::start))
        .transpose()?;
    run::run(arguments, jail)
}

fn exit(outcome: Result<ExitCode, Failure>) -> ExitCode {
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
    say!("{}", cli::plain(error).trim_end());
    match std::env::args_os().nth(1) {
        Some(command) if command == "policy" => ExitCode::from(2),
        _ => ExitCode::from(EGRET_FAILED),
    }
}
