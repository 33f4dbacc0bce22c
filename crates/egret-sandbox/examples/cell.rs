//! Runs a program in a sealed sandbox that nobody serves: `cell [-w DIR] [-H PATH] -- CMD [ARG…]`.
use egret_sandbox::{Ended, Files, Mark, Signals, Spec, jail, prepare};
use std::os::fd::{FromRawFd as _, OwnedFd};
#[expect(unsafe_code, reason = "example")]
fn main() -> std::process::ExitCode {
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|a| a == "jail") {
        let fd: i32 = args[1].to_str().unwrap().parse().unwrap();
        return jail::enter(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let signals = Signals::block().unwrap();
    let mut marks = vec![(std::env::current_dir().unwrap(), Mark::Write)];
    while args[0] != "--" {
        let flag = args.remove(0);
        let path = args.remove(0).into();
        marks.push((path, if flag == "-w" { Mark::Write } else { Mark::Hide }));
    }
    args.remove(0);
    let spec = Spec {
        program: args.remove(0),
        arguments: args,
        environment: std::env::vars_os().collect(),
        directory: std::env::current_dir().unwrap(),
        files: Files { marks, protected: vec![] },
        allow_user_namespaces: false,
    };
    let t = std::time::Instant::now();
    let (doors, sealed) = match prepare(spec) { Ok(p) => p.split(), Err(e) => { eprintln!("{e}"); return 125.into() } };
    let t1 = t.elapsed();
    let r = sealed.release().and_then(|running| { eprintln!("prepared {t1:?} released {:?}", t.elapsed()); running.wait(&signals, || {}) });
    drop(doors);
    match r { Ok(Ended::Status(n)) => (n as u8).into(), Ok(Ended::Signal(n)) => { eprintln!("signal {n}"); (128 + n as u8).into() } Err(e) => { eprintln!("{e}"); 125.into() } }
}
