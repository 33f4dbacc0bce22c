//! The first process of the sandbox, once it stands: starts the program, reaps, passes signals on, tells how it ended.
//!
//! It holds no capability and no socket but the channel to the outside. When it ends, the kernel ends every process of the
//! sandbox; it ends with the program, or when the outside is gone.

use super::privileges;
use crate::channel::{Ended, Inside, Order, Report};
use crate::error::Cause;
use crate::guard::stands;
use crate::spec::Spec;
use crate::sys::process::{Forked, close_range, exec, fork};
use crate::sys::signals::{Arrived, Signals, kill, restore_sigpipe};
use crate::syscalls::filter::restrict;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, WaitOptions, WaitStatus, chdir, getrlimit, setrlimit, wait,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

/// Runs the program and stays until it has ended.
pub(super) fn run(channel: &mut Inside, spec: &Spec, writable: &[PathBuf]) -> Result<(), Cause> {
    let signals = Signals::block()?;
    // Closed by exec, so reading it tells "started" from "why not".
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let program = match fork()? {
        Forked::Child => become_program(spec, writable, &signals, tell),
        Forked::Parent(pid) => pid,
    };
    drop(tell);
    match start_failure(told)? {
        None => channel.send(&Report::Started)?,
        Some(Failure::Program { errno }) => return Ok(channel.send(&Report::NotStarted { errno })?),
        Some(Failure::Privileges(cause)) => return Err(cause),
    }
    watch(channel, &signals, program, |arguments, output| {
        probe(spec, writable, &signals, arguments, output)
    })
}

/// Runs egret itself beside the program, as confined as that is. It is reaped like any process whose parent has gone.
fn probe(
    spec: &Spec,
    writable: &[PathBuf],
    signals: &Signals,
    arguments: Vec<String>,
    output: OwnedFd,
) -> Result<(), Cause> {
    let prober = Spec {
        program: "/proc/self/exe".into(),
        arguments: arguments.into_iter().map(OsString::from).collect(),
        environment: spec.environment.clone(),
        directory: "/".into(),
        files: spec.files.clone(),
        allow_user_namespaces: spec.allow_user_namespaces,
    };
    // If it cannot be started its output ends at once, which is all there is to say.
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    if let Forked::Child = fork()? {
        drop(told);
        let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let redirected = nothing.and_then(|nothing| {
            dup2_stdin(&nothing)?;
            dup2_stderr(&nothing)?;
            dup2_stdout(&output)
        });
        match redirected {
            Ok(()) => become_program(&prober, writable, signals, tell),
            Err(_) => std::process::exit(125),
        }
    }
    Ok(())
}

fn watch(
    channel: &mut Inside,
    signals: &Signals,
    program: Pid,
    probe: impl Fn(Vec<String>, OwnedFd) -> Result<(), Cause>,
) -> Result<(), Cause> {
    loop {
        if let Some(ended) = reap(channel, program)? {
            return Ok(channel.send(&Report::Ended(ended))?);
        }
        let mut ready = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(channel, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [_, from_outside] = &ready;
        let order_waits = !from_outside.revents().is_empty();
        while let Some(arrived) = signals.next()? {
            // Only SIGCHLD asks for something, and `reap` comes next. What the terminal sends reaches the program by
            // itself, and what a process in here sends to its init is lost, as it would be on a machine.
            let Arrived { .. } = arrived;
        }
        if order_waits {
            match channel.receive()? {
                Some((Order::Signal(number), _)) => deliver(program, number)?,
                Some((Order::Continue, _)) => deliver(program, libc::SIGCONT)?,
                Some((Order::Probe(arguments), given)) => {
                    if let Some(output) = given.into_iter().next() {
                        probe(arguments, output)?;
                    }
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}

/// Sends a signal to the program; one that has ended meanwhile needs none.
fn deliver(program: Pid, number: i32) -> io::Result<()> {
    match kill(program.as_raw_nonzero().get(), number) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(()),
        done => done,
    }
}

/// Collects every process that has ended, and tells when the program was stopped. The program's end ends this.
fn reap(channel: &mut Inside, program: Pid) -> Result<Option<Ended>, Cause> {
    loop {
        match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == program => {
                if let Some(signal) = status.stopping_signal() {
                    channel.send(&Report::Stopped(signal))?;
                } else if let Some(ended) = ended(status) {
                    return Ok(Some(ended));
                }
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ended> {
    status
        .exit_status()
        .map(Ended::Status)
        .or_else(|| status.terminating_signal().map(Ended::Signal))
}

// ---- the program's side of the fork ----

/// Why the child did not become the program.
enum Failure {
    /// It could not be executed.
    Program { errno: i32 },
    /// Privileges could not be given up.
    Privileges(Cause),
}

fn become_program(spec: &Spec, writable: &[PathBuf], signals: &Signals, tell: OwnedFd) -> ! {
    let failure = match confine_and_exec(spec, writable, signals, &tell) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    let mut message = Vec::new();
    match failure {
        Failure::Program { errno } => message.extend(errno.to_ne_bytes()),
        Failure::Privileges(cause) => {
            message.extend(0i32.to_ne_bytes());
            message.extend(cause.message.into_bytes());
        }
    }
    // Without a message the parent takes this for the program, and the status below for the program's.
    match std::fs::File::from(tell).write_all(&message) {
        Ok(()) | Err(_) => std::process::exit(125),
    }
}

fn confine_and_exec(
    spec: &Spec,
    writable: &[PathBuf],
    signals: &Signals,
    tell: &OwnedFd,
) -> Result<std::convert::Infallible, Failure> {
    let confine = || -> Result<(), Cause> {
        let signals_stay_inside = privileges::restrict_files(writable)?;
        no_core_handler()?;
        signals.unblock()?;
        restore_sigpipe();
        if !stands("system-calls") {
            return Ok(());
        }
        restrict(spec.allow_user_namespaces, signals_stay_inside)
    };
    let program_error = |error: io::Error| Failure::Program {
        errno: error.raw_os_error().unwrap_or(libc::EINVAL),
    };
    chdir(&spec.directory).map_err(|errno| program_error(errno.into()))?;
    let env = environment(&spec.environment).map_err(program_error)?;
    let mut args = vec![c_string(&spec.program).map_err(program_error)?];
    for argument in &spec.arguments {
        args.push(c_string(argument).map_err(program_error)?);
    }
    let candidates = candidates(&spec.program, &spec.environment);

    let others_closed = match stands("descriptors") {
        true => keep_only(tell),
        false => Ok(()),
    };
    others_closed.map_err(|error| Failure::Privileges(error.into()))?;
    confine().map_err(Failure::Privileges)?;

    // As execvp(3) does: a match that may not be executed is remembered, in case there is no better one.
    let mut best = libc::ENOENT;
    for path in candidates {
        let path = c_string(path.as_os_str()).map_err(program_error)?;
        match exec(&path, &args, &env).raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => best = libc::EACCES,
            // A script that does not say what runs it.
            Some(libc::ENOEXEC) => {
                let mut script = vec![c"/bin/sh".to_owned(), path];
                script.extend(args.iter().skip(1).cloned());
                exec(&c"/bin/sh".to_owned(), &script, &env);
                return Err(Failure::Program {
                    errno: libc::ENOEXEC,
                });
            }
            errno => {
                return Err(Failure::Program {
                    errno: errno.unwrap_or(libc::EINVAL),
                });
            }
        }
    }
    Err(Failure::Program { errno: best })
}

/// Keeps the kernel from handing a dump of the program to a handler, which would run outside and as root: a limit of one
/// byte means just that (core(5)). A dump into a file, where that is configured, is cut to nothing as well.
fn no_core_handler() -> rustix::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    let least = Some(maximum.map_or(1, |maximum| maximum.min(1)));
    setrlimit(
        Resource::Core,
        Rlimit {
            current: least,
            maximum: least,
        },
    )
}

/// Closes everything but standard input, output, error, and the pipe, which exec closes.
fn keep_only(tell: &OwnedFd) -> io::Result<()> {
    let kept = tell.as_raw_fd().cast_unsigned();
    close_range(3, kept.saturating_sub(1))?;
    close_range(kept + 1, u32::MAX)
}

/// The paths to try for a program: itself if it has a slash, else one for each directory in `PATH`.
fn candidates(program: &OsStr, environment: &[(OsString, OsString)]) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.into()];
    }
    let path = environment
        .iter()
        .rfind(|(name, _)| name == "PATH")
        .map(|(_, value)| value.as_os_str());
    let path = path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    std::env::split_paths(path)
        .map(|directory| directory.join(program))
        .collect()
}

fn environment(pairs: &[(OsString, OsString)]) -> io::Result<Vec<CString>> {
    pairs
        .iter()
        .map(|(name, value)| c_string(&[name.as_os_str(), value].join(OsStr::new("="))))
        .collect()
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.to_owned().into_vec()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Waits until the child is the program (`None`) or has said why not.
fn start_failure(told: OwnedFd) -> io::Result<Option<Failure>> {
    let mut message = Vec::new();
    std::fs::File::from(told).read_to_end(&mut message)?;
    Ok(message
        .split_first_chunk::<4>()
        .map(|(&errno, text)| match i32::from_ne_bytes(errno) {
            0 => Failure::Privileges(Cause {
                errno: None,
                message: String::from_utf8_lossy(text).into_owned(),
            }),
            errno => Failure::Program { errno },
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_as_a_shell_would() {
        let path = |value: &str| vec![(OsString::from("PATH"), OsString::from(value))];
        #[rustfmt::skip]
        let table = [
            ("/bin/ls", path("/usr/bin"),   &["/bin/ls"][..]),
            ("./ls",    path("/usr/bin"),   &["./ls"]),
            ("ls",      path("/a:/b"),      &["/a/ls", "/b/ls"]),
            ("ls",      path(":/b"),        &["ls", "/b/ls"]), // an empty entry is the working directory
            ("ls",      vec![],             &["/usr/local/bin/ls", "/usr/bin/ls", "/bin/ls"]),
        ];
        for (program, environment, expected) in table {
            let found = candidates(OsStr::new(program), &environment);
            assert_eq!(
                found,
                expected.iter().map(PathBuf::from).collect::<Vec<_>>(),
                "{program}"
            );
        }
    }

    #[test]
    fn nothing_with_a_zero_byte_reaches_exec() {
        assert!(c_string(OsStr::new("a\0b")).is_err());
        assert!(environment(&[("A".into(), "b\0c".into())]).is_err());
    }
}
