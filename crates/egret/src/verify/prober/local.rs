//! Attempts that take no network: the kernel, processes, descriptors, files, unix sockets.

use super::super::plan::{Around, Attempt, Outcome, Plan};
use super::super::sinks::GREETING;
use super::network::outcome;
use super::{PATIENCE, Told, hear, line, refused, shown};
use crate::failure::Failure;
use egret_sandbox::{attempts, peer_is_inside};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Classes 5 and 7 to 10, and 12.
pub(super) fn all(told: &Told<'_>) {
    if told.plan.around != Around::Nothing {
        for attempt in attempts::network() {
            told.attempt(7, attempt.what, || (outcome(attempt.refused), None));
        }
    }
    in_a_process_of_its_own(told);
    settings(told);
    descriptors(told);
    processes(told);
    sockets(told);
    own(told);
}

/// `egret probe kernel`: what may change the process that tries it.
pub(super) fn kernel() -> Result<ExitCode, Failure> {
    for attempt in attempts::kernel() {
        let class = match attempt.what {
            "io_uring" | "bpf" | "perf_event_open" | "userfaultfd" | "keyrings" => 8,
            "typing into the terminal" => 9,
            _ => 7,
        };
        let told = Attempt {
            class,
            what: attempt.what.into(),
            outcome: outcome(attempt.refused),
            ms: 0,
            record: None,
        };
        line(
            &serde_json::to_string(&told)
                .map_err(|error| Failure::because("cannot tell", &error))?,
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// `egret probe foreign`: returns if the call was let in.
pub(super) fn foreign() -> Result<ExitCode, Failure> {
    Ok(match attempts::foreign() {
        Some(1..) => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(1),
        None => ExitCode::from(2),
    })
}

fn in_a_process_of_its_own(told: &Told<'_>) {
    let myself = |what: &str| {
        Command::new("/proc/self/exe")
            .args(["probe", what])
            .stdin(Stdio::null())
            .output()
    };
    match myself("kernel") {
        Ok(output) if output.status.success() => {
            let _turn = told.turn.lock();
            for text in String::from_utf8_lossy(&output.stdout).lines() {
                line(text);
            }
        }
        // Whatever it had to tell is not known, of none of its classes.
        failed => {
            let how = failed.map_or_else(
                |error| error.to_string(),
                |output| output.status.to_string(),
            );
            for class in [7, 8, 9] {
                told.attempt(class, "system calls", || {
                    (Outcome::Impossible(format!("system calls: {how}")), None)
                });
            }
        }
    }
    told.attempt(8, "a system call by the 32-bit convention", || {
        let outcome = match myself("foreign").map(|output| output.status) {
            Ok(status) if status.success() => Outcome::Through("the kernel answers".into()),
            Ok(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => Outcome::Refused(format!("ended by signal {signal}")),
                (None, Some(2)) => Outcome::Refused("this architecture has none".into()),
                (None, _) => Outcome::Refused("an error".into()),
            },
            Err(error) => Outcome::Impossible(error.to_string()),
        };
        (outcome, None)
    });
}

/// Settings of the whole machine's kernel, opened for writing, with nothing written: who runs as its root needs no capability
/// for that.
fn settings(told: &Told<'_>) {
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
    ] {
        told.attempt(8, format!("changing {path}"), || {
            let outcome = match std::fs::OpenOptions::new().write(true).open(path) {
                Ok(_) => Outcome::Through("it can be written to".into()),
                Err(error) => refused(&error),
            };
            (outcome, None)
        });
    }
}

/// What is open besides the standard three.
fn descriptors(told: &Told<'_>) {
    told.attempt(9, "descriptors from outside", || {
        let listed = std::fs::read_dir("/proc/self/fd").map(|entries| {
            let numbers = entries.flatten().filter_map(|entry| {
                let number: u32 = entry.file_name().to_str()?.parse().ok()?;
                let leads_to = std::fs::read_link(entry.path()).ok()?;
                // What this process has opened itself are sockets and pipes of its own, which are numbered after it
                // was started; what comes from outside is there from the start and survives an exec.
                let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
                let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"))?;
                let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
                let survives = flags & 0o2_000_000 == 0;
                (number > 2 && survives).then(|| leads_to.display().to_string())
            });
            numbers.collect::<Vec<_>>()
        });
        let outcome = match listed {
            Ok(open) if open.is_empty() => Outcome::Refused("there are none".into()),
            Ok(open) => Outcome::Through(open.join(", ")),
            Err(error) => Outcome::Impossible(error.to_string()),
        };
        (outcome, None)
    });
}

/// Processes outside: seen, signalled, read.
fn processes(told: &Told<'_>) {
    for &number in &told.plan.processes {
        // Numbers in here are others; one that happens to be taken is a process of the sandbox's.
        told.attempt(9, format!("the process {number} outside"), || {
            let is_it = |command: &[u8]| {
                command
                    .split(|byte| *byte == 0)
                    .any(|word| word == b"verify")
            };
            let outcome = match std::fs::read(format!("/proc/{number}/cmdline")) {
                Ok(command) if is_it(&command) => Outcome::Through("it is seen in /proc".into()),
                Ok(_) => Outcome::Refused("it is not there".into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Outcome::Refused("it is not there".into())
                }
                Err(error) => refused(&error),
            };
            (outcome, None)
        });
    }
    told.attempt(9, "a signal to the process group outside", || {
        // One that nobody minds; whoever started the sandbox is in the same group, and counts what it gets.
        let outcome = match rustix::process::kill_current_process_group(Signal::URG) {
            Ok(()) => Outcome::Sent,
            Err(errno) => refused(&errno.into()),
        };
        (outcome, None)
    });
    told.attempt(9, "the memory and environment of the first process", || {
        let outcome = match (
            read_some("/proc/1/environ"),
            std::fs::File::open("/proc/1/mem"),
        ) {
            (Err(error), Err(_)) => refused(&error),
            _ if std::process::id() == 1 => Outcome::Refused("that is this program".into()),
            _ => match is_egret(1) {
                true => Outcome::Through("it can be read".into()),
                false => Outcome::Refused("it is the program's own".into()),
            },
        };
        (outcome, None)
    });
    told.attempt(9, "ending the first process", || {
        let outcome = match (Pid::from_raw(1), std::process::id()) {
            (_, 1) | (None, _) => Outcome::Refused("that is this program".into()),
            // Signal 0 would say whether one may; an init that has no handler gets none either way.
            (Some(first), _) => match kill_process(first, Signal::URG) {
                Ok(()) | Err(Errno::PERM) => Outcome::Sent,
                Err(errno) => refused(&errno.into()),
            },
        };
        (outcome, None)
    });
}

fn read_some(path: &str) -> io::Result<usize> {
    let mut buffer = [0; 16];
    let read = io::Read::read(&mut std::fs::File::open(path)?, &mut buffer)?;
    match read {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

fn is_egret(number: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{number}/comm"))
        .is_ok_and(|name| name.starts_with("egret"))
}

/// Unix sockets outside.
fn sockets(told: &Told<'_>) {
    let plan = told.plan;
    for (class, name) in [(10, &plan.abstract_socket), (5, &plan.control_socket)] {
        told.attempt(class, format!("the abstract socket @{name}"), || {
            let address = SocketAddr::from_abstract_name(name);
            (
                unix(
                    told.plan,
                    address.and_then(|address| UnixStream::connect_addr(&address)),
                ),
                None,
            )
        });
    }
    let usual = [
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
        "/run/systemd/resolve/io.systemd.Resolve",
        "/run/nscd/socket",
        "/tmp/.X11-unix/X0",
    ];
    for path in plan
        .paths
        .iter()
        .map(|path| path.as_path())
        .chain(usual.iter().map(Path::new))
    {
        told.attempt(10, path.display().to_string(), || {
            (unix(told.plan, UnixStream::connect(path)), None)
        });
    }
}

fn unix(plan: &Plan, connected: io::Result<UnixStream>) -> Outcome {
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => return refused(&error),
    };
    // The kernel says so. A display of the program's own is no way out.
    if plan.around != Around::Nothing && peer_is_inside(&stream).unwrap_or_default() {
        return Outcome::Refused("a program in here has made one".into());
    }
    let heard = stream
        .set_read_timeout(Some(PATIENCE / 10))
        .and_then(|()| stream.write_all(b"\n"))
        .and_then(|()| hear(&mut stream, |heard| heard.starts_with(GREETING.as_bytes())));
    match heard {
        Ok(heard) => Outcome::Through(shown(&heard)),
        Err(_) => Outcome::Through("it is there".into()),
    }
}

/// Class 12: files of Egret's own.
fn own(told: &Told<'_>) {
    for path in &told.plan.own {
        told.attempt(12, format!("changing {}", path.display()), || {
            let is_new = path.ends_with(&told.plan.nonce);
            let opened = std::fs::OpenOptions::new()
                .append(true)
                .create_new(is_new)
                .open(path);
            let outcome = match opened {
                Ok(_) if is_new => match std::fs::remove_file(path) {
                    Ok(()) => Outcome::Through("a file can be made there".into()),
                    Err(_) => Outcome::Through("a file can be made there, and is left".into()),
                },
                Ok(_) => Outcome::Through("it can be written to".into()),
                Err(error) => refused(&error),
            };
            (outcome, None)
        });
    }
}
