//! `egret run`: from arguments to an exit status. [`run`] is the whole story.

use crate::cli;
use crate::control::{self, Claim};
use crate::environment::{self, environment};
use crate::failure::Failure;
use crate::files::{self, files};
use crate::gate::{Gate, GatePlan};
use crate::learn::Learner;
use crate::observe::Prepared;
use crate::source::{Loaded, Origin, PolicySource};
use crate::verify::Opened;
use crate::{container, logs, project, settings, summary};
use egret_gateway::audit::{self, Rotation};
use egret_policy::SandboxId;
use egret_sandbox::{Jail, PROXY_PORT, Signals, Spec};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Runs a program with one way out, and ends as it ends; without a jail, an image.
///
/// The jail makes a sealed sandbox while the rest is found out here. It passes on which signals are blocked, so it is
/// started before they are.
pub(crate) fn run(mut arguments: Box<cli::Run>, jail: Option<Jail>) -> Result<ExitCode, Failure> {
    if let Some(plan) = &arguments.probe {
        plan.open(&mut arguments.options);
    }
    // Before any thread, so that every thread leaves signals to this one.
    let signals =
        Signals::block().map_err(|error| Failure::because("cannot receive signals", &error))?;
    let mut learner = arguments.learner.take();
    if learner.is_some() {
        say!("egret: everything public is open to this run, which is to be learnt from");
    }
    let Some(jail) = jail else {
        return container::run(&arguments, learner, &signals);
    };
    let Plan {
        name,
        claim,
        spec,
        gate,
        summary,
        output,
    } = Plan::resolve(*arguments, learner.as_ref())?;
    if let Some(learner) = &mut learner {
        learner.follow(&gate.log_path, &name)?;
    }

    let wanted = spec.directory.join(&spec.program);
    let (doors, sealed) = jail.prepare(spec)?.split();
    let gate = Gate::open(name, claim, gate, doors, sealed.makers())?;
    let ended = sealed.release().and_then(|running| {
        gate.runs(&running);
        running.wait(&signals, |notice| gate.notice(notice))
    });
    let ending = gate.close();

    if summary {
        // The program has ended; that its summary cannot be printed does not change how.
        let (Ok(()) | Err(_)) = summary::print(&ending, output);
    }
    let ended = ended.map_err(|error| explained(error, &wanted))?;
    if let Some(learner) = learner {
        learner.finish(&ending.log)?;
    }
    Ok(container::exit_as(ended))
}

/// A program that is not found is worth a word more: it may be there outside.
fn explained(error: egret_sandbox::Error, program: &Path) -> Failure {
    let not_found = matches!(error, egret_sandbox::Error::Program { errno, .. } if errno == Errno::NOENT.raw_os_error());
    let failure = Failure::from(error);
    if !not_found {
        return failure;
    }
    match program.canonicalize() {
        Ok(outside) if !outside.is_dir() => failure.and(format_args!(
            "it is there outside, but it, or what it is run by, is not in the sandbox; add --read {}",
            outside.display()
        )),
        _ => failure.and("no directory in PATH has it, as the sandbox sees them"),
    }
}

/// Everything that a run needs, found and checked. Of its parts only the log file and the name exist already.
struct Plan {
    name: SandboxId,
    claim: Claim,
    spec: Spec,
    gate: GatePlan,
    summary: bool,
    output: cli::Output,
}

impl Plan {
    fn resolve(arguments: cli::Run, learner: Option<&Learner>) -> Result<Self, Failure> {
        if let Some(option) = arguments.container.first_given() {
            return Err(Failure::new(format!(
                "{option} is about containers; without `--`, what follows the options is an image"
            )));
        }
        let mut command = arguments.words.into_iter();
        let program = command
            .next()
            .ok_or_else(|| Failure::new("there is no command to run"))?;
        let home = settings::home();
        let directory = directory(arguments.options.workdir.as_deref())?;

        let named = arguments.options.policy.as_deref().map(Origin::named);
        let named = named.transpose()?;
        let mut source = PolicySource::new(
            named.clone().map(Origin::resolved).transpose()?,
            arguments.options.allow,
            arguments.options.deny,
            arguments.options.allow_docker_gateway,
        );
        let projects = match arguments.options.no_settings {
            true => Vec::new(),
            false => project::find(&directory)?,
        };
        source.projects.clone_from(&projects);
        source.learning = arguments.learning;
        let Loaded { policy, basis } = source.load()?;
        let resolver = settings::resolver(&arguments.options.resolver)?;
        let upstream_proxy = settings::upstream_proxy(arguments.options.upstream_proxy.as_deref())?;
        let outside = std::env::vars_os().collect();
        let wishes = environment::Wishes {
            set: &arguments.options.env,
            files: &arguments.options.env_file,
            proxy: !arguments.options.no_proxy_env,
        };
        let mut environment = environment(&outside, &wishes)?;
        for name in wishes
            .set
            .iter()
            .filter(|wish| !wish.contains('=') && std::env::var_os(wish).is_none())
        {
            say!("egret: {name} is not set, so there is nothing to pass on");
        }

        let name = match arguments.options.name {
            Some(name) => name
                .parse()
                .map_err(|error| Failure::because("--name", &error))?,
            None => settings::made_up_name(Path::new(&program))?,
        };
        let claim = control::claim(&name)?;
        let log_path = match arguments.options.log_file {
            Some(path) => path,
            None => settings::make_log_directory()?
                .join(logs::file_name(name.as_str(), jiff::Timestamp::now())),
        };
        let rotation = arguments.process.observe.rotation();
        let (log, log_path) = open_log(&log_path, rotation)?;
        // Before the files: what sockets there are the program does not see.
        let observe = Prepared::new(&arguments.process.observe)?;
        let files = files(&files::Wishes {
            directory: &directory,
            home: home.as_deref(),
            policy: policy.filesystem(),
            read: &arguments.process.read,
            write: &arguments.process.write,
            hide: &arguments.process.hide,
            policy_file: source.origin().as_ref().and_then(Origin::file),
            policy_named: named.as_ref().and_then(Origin::file),
            projects: &projects,
            learnt: learner.and_then(Learner::path),
            log_file: &log_path,
            socket: observe.as_ref().and_then(Prepared::socket),
        })?;
        if !files::may_write(&directory, &files.marks) && std::io::stderr().is_terminal() {
            let shown = directory.display();
            say!(
                "egret: {shown} is read-only in the sandbox; start in a project's directory, or add --write for what is to change"
            );
        }
        let log_directory = log_path.parent().unwrap_or(&log_path);
        let has_parts = log_path.is_file() && {
            let parts = audit::parts(&log_path);
            let (parts, _) = parts.map_err(|error| {
                Failure::because(
                    format_args!("cannot open the audit log {}", log_path.display()),
                    &error,
                )
            })?;
            !parts.is_empty()
        };
        if (rotation.is_some() || has_parts) && !files::is_hidden(log_directory, &files.marks) {
            return Err(Failure::new(format!(
                "the audit log is split by its size, and the program would see the numbered files in {0}; leave out --log-file, or add --hide {0}",
                log_directory.display()
            )));
        }
        source.marks.clone_from(&files.marks);
        if let Some(home) = &home {
            environment::move_caches(&mut environment, home, |path| {
                files::may_write(path, &files.marks)
            });
        }
        Ok(Self {
            name,
            claim,
            gate: GatePlan {
                matcher: policy.compile(),
                basis,
                opened: Opened::by(&policy),
                policy: source,
                log,
                log_path,
                observe,
                resolver,
                upstream_proxy,
                program: program.to_string_lossy().into_owned(),
                record_programs: arguments.process.record_programs,
                ask: arguments.ask.map(Duration::from_secs),
            },
            spec: Spec {
                // The executable is open in the jail, whatever of the file system is shown.
                program: match &arguments.probe {
                    Some(_) => "/proc/self/exe".into(),
                    None => program,
                },
                arguments: match &arguments.probe {
                    Some(plan) => {
                        let words = plan.arguments_under(&policy, PROXY_PORT);
                        words.into_iter().map(OsString::from).collect()
                    }
                    None => command.collect(),
                },
                environment,
                directory,
                files,
                allow_user_namespaces: arguments.process.allow_user_namespaces,
            },
            summary: arguments.summary
                || arguments.output == cli::Output::Json
                || std::io::stderr().is_terminal(),
            output: arguments.output,
        })
    }
}

/// The directory that the program starts in.
fn directory(chosen: Option<&Path>) -> Result<PathBuf, Failure> {
    let resolved = match chosen {
        Some(chosen) => chosen.canonicalize(),
        None => std::env::current_dir().and_then(|current| current.canonicalize()),
    };
    let shown = chosen.unwrap_or(Path::new(".")).display();
    let directory = resolved
        .map_err(|error| Failure::because(format_args!("working directory {shown}"), &error))?;
    if !directory.is_dir() {
        return Err(Failure::new(format!(
            "working directory {shown}: not a directory"
        )));
    }
    Ok(directory)
}

/// Opens the audit log, readable for this user only.
fn open_log(path: &Path, rotation: Option<Rotation>) -> Result<(audit::Log, PathBuf), Failure> {
    let open = || {
        let log = audit::Log::to_file(path)?;
        // A link stays what it is, and what it leads to is what is moved.
        let path = path.canonicalize()?;
        Ok(match rotation {
            Some(rotation) => (audit::Log::to_files(&path, rotation)?, path),
            None => (log, path),
        })
    };
    open().map_err(|error: std::io::Error| {
        Failure::because(
            format_args!("cannot open the audit log {}", path.display()),
            &error,
        )
    })
}
