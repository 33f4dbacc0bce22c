//! The doors handed from one gateway to the next, with somebody dying at any moment of it.
//!
//! The agent, or a gateway, is stopped before and after each of its system calls in turn (`ptrace(2)`), which is all that
//! others can notice of it. There the gateway dies, a program connects, and another gateway comes; then it goes on. So
//! this is the agent that is shipped, and the kernel that it relies on, at every point of a hand-over.
//!
//! What has to hold at each: nobody answers but the gateway that has the doors, a connection is taken by one gateway at
//! most, nothing listens any more once nobody has the doors, and the next gateway gets them.

use super::*;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

#[test]
fn a_gateway_may_die_at_every_step_of_the_agent_s() {
    let machine = Machine::new();
    let agent = machine.agent(0);
    machine.hang_up(machine.link().unwrap());
    let points = every_point(|point| {
        let agent = Traced::stop(agent.child.id());
        let mut first = Gateway::new(&machine, "first");
        first.sets_out();
        let is_there = agent.reaches(point);
        first.dies();
        let early = machine.start(&["connect", CAPTURED, "early"]);
        wait_a_moment();
        agent.goes_on();
        // Whoever came while there was no gateway was refused, or hears so now.
        assert!(output(early).is_err(), "nobody is there, at {point}");
        has_no_doors(&machine, point);
        let mut next = Gateway::new(&machine, "next");
        next.sets_out();
        next.serves(&machine, point);
        next.dies();
        has_no_doors(&machine, point);
        is_there
    });
    println!("the agent has {points} points at which a gateway may die");
    assert!(points > 40, "{points} points");
}

#[test]
fn a_gateway_that_lives_is_the_only_one_at_every_step_of_the_agent_s() {
    let machine = Machine::new();
    let agent = machine.agent(0);
    machine.hang_up(machine.link().unwrap());
    let points = every_point(|point| {
        let agent = Traced::stop(agent.child.id());
        let mut first = Gateway::new(&machine, "first");
        first.sets_out();
        let is_there = agent.reaches(point);
        let early = machine.start(&["connect", CAPTURED, "early"]);
        let mut second = Gateway::new(&machine, "hasty");
        second.sets_out();
        agent.goes_on();
        assert_eq!(first.line(), "linked", "at {point}");
        assert_eq!(second.line(), "", "there is one, at {point}");
        // Otherwise it came before there were doors, or before the proof that what leaves arrives, which lets nobody else in.
        if let Ok(answer) = output(early) {
            assert_eq!(answer, "first\n", "at {point}");
        }
        first.answers(&machine, point);
        first.dies();
        has_no_doors(&machine, point);
        is_there
    });
    println!("the agent has {points} points at which another gateway may come");
    assert!(points > 40, "{points} points");
}

#[test]
fn a_gateway_may_die_at_every_step_of_its_own() {
    let machine = Machine::new();
    let _agent = machine.agent(0);
    machine.hang_up(machine.link().unwrap());
    let points = every_point(|point| {
        let mut first = Gateway::new(&machine, "first");
        let traced = Traced::stop(first.inside.child.id());
        first.sets_out();
        let is_there = traced.reaches(point);
        let early = machine.start(&["connect", CAPTURED, "early"]);
        wait_a_moment();
        let mut next = Gateway::new(&machine, "next");
        next.sets_out();
        first.dies();
        next.serves(&machine, point);
        // It has not gone on since somebody connected.
        assert_ne!(output(early), Ok("first\n".to_owned()), "at {point}");
        next.dies();
        has_no_doors(&machine, point);
        is_there
    });
    println!("a gateway has {points} points at which it may die");
    assert!(points > 40, "{points} points");
}

#[test]
fn an_agent_may_die_at_every_step_of_its_own() {
    let points = every_point(|point| {
        let machine = Machine::new();
        let agent = machine.agent(0);
        machine.hang_up(machine.link().unwrap());
        let traced = Traced::stop(agent.child.id());
        let mut first = Gateway::new(&machine, "hasty");
        first.sets_out();
        let is_there = traced.reaches(point);
        drop(agent);
        match first.line().as_str() {
            // It has them all, and they lead to it as long as it lives.
            "linked" => first.answers(&machine, point),
            none => assert_eq!(none, "", "at {point}"),
        }
        first.dies();
        has_no_doors(&machine, point);
        is_there
    });
    println!("the agent has {points} points at which it may die");
    assert!(points > 40, "{points} points");
}

#[test]
fn doors_that_somebody_keeps_are_noticed() {
    let machine = Machine::new();
    let _agent = machine.agent(0);
    let linked = machine.link().unwrap();
    // As an agent would that did not close what it gave away.
    let kept = linked.0.captured[0].try_clone().unwrap();
    drop(linked);
    wait_a_moment();
    assert!(machine.has_doors(), "a door is open");
    drop(kept);
    has_no_doors(&machine, 0);
}

/// Tries one point after the other, up to one that is not reached; says how many there were.
fn every_point(mut at: impl FnMut(usize) -> bool) -> usize {
    let step = match std::env::var_os("EGRET_TEST_FULL") {
        Some(_) => 1,
        // Not those that follow each other closely.
        None => 7,
    };
    let mut point = 0;
    while at(point) {
        point += step;
    }
    point
}

fn has_no_doors(machine: &Machine, point: usize) {
    let until = Instant::now() + PATIENCE;
    while machine.has_doors() {
        assert!(Instant::now() < until, "there are doors still, at {point}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A gateway in a process of its own.
struct Gateway {
    inside: Inside,
}

impl Gateway {
    /// One that waits for word to set out.
    fn new(machine: &Machine, name: &str) -> Self {
        let mut command = Command::new(inside());
        command.arg("gateway").arg(machine.socket()).arg(name);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut inside = Inside::new(command);
        assert_eq!(inside.line(), "ready");
        Self { inside }
    }

    /// It connects to the agent, as far as that goes without anybody's help.
    fn sets_out(&mut self) {
        let before = self.waits_in();
        let input = self.inside.input.as_mut().unwrap();
        input.write_all(b"go\n").unwrap();
        let until = Instant::now() + PATIENCE;
        while self.waits_in().is_none_or(|now| Some(now) == before) && self.inside.runs() {
            assert!(Instant::now() < until, "it does not set out");
            std::thread::sleep(Duration::from_millis(1));
            if self.is_stopped() {
                return;
            }
        }
    }

    /// The number of the system call that it waits in, if it waits (`proc_pid_syscall(5)`).
    fn waits_in(&self) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/syscall", self.inside.child.id()));
        let number = text.ok()?.split(' ').next()?.to_owned();
        number
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then_some(number)
    }

    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.inside.child.id()));
        stat.is_ok_and(|stat| stat.contains(") t "))
    }

    fn line(&mut self) -> String {
        self.inside.line()
    }

    /// It gets the doors, and what connects arrives at it.
    fn serves(&mut self, machine: &Machine, point: usize) {
        assert_eq!(self.line(), "linked", "at {point}");
        self.answers(machine, point);
    }

    fn answers(&mut self, machine: &Machine, point: usize) {
        let answer = machine.run(&["connect", CAPTURED, "late"]);
        let name = answer.unwrap_or_else(|error| panic!("{error}, at {point}"));
        assert!(["first\n", "next\n", "hasty\n"].contains(&name.as_str()));
        let mut got = self.line();
        // Who came early may have come to it.
        if got == "got early" {
            got = self.line();
        }
        assert_eq!(got, "got late", "at {point}");
    }

    /// It is killed, and everything that it had is closed.
    fn dies(&mut self) {
        self.inside.child.kill().unwrap();
        self.inside.child.wait().unwrap();
    }
}

/// A process that is stopped at its system calls. It has one thread.
struct Traced(Pid);

impl Traced {
    /// Stops the process where it is.
    fn stop(id: u32) -> Self {
        let pid = Pid::from_raw(id.try_into().unwrap());
        ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
        ptrace::interrupt(pid).unwrap();
        let stopped = waitpid(pid, None).unwrap();
        assert!(
            matches!(stopped, WaitStatus::PtraceEvent(..)),
            "{stopped:?}"
        );
        Self(pid)
    }

    /// Lets it go on to the `point`th beginning or end of a system call from here; whether it comes that far, and does not
    /// wait for something before.
    fn reaches(&self, point: usize) -> bool {
        for _ in 0..point {
            ptrace::syscall(self.0, None).unwrap();
            let until = Instant::now() + WAITS;
            loop {
                match waitpid(self.0, Some(WaitPidFlag::WNOHANG)).unwrap() {
                    WaitStatus::StillAlive if Instant::now() < until => {
                        std::thread::sleep(Duration::from_micros(20));
                    }
                    WaitStatus::StillAlive => {
                        ptrace::interrupt(self.0).unwrap();
                        waitpid(self.0, None).unwrap();
                        return false;
                    }
                    WaitStatus::PtraceSyscall(_) => break,
                    // What it is told in between, such as that it was stopped.
                    WaitStatus::PtraceEvent(..) => ptrace::syscall(self.0, None).unwrap(),
                    WaitStatus::Stopped(_, signal) => {
                        ptrace::syscall(self.0, Some(signal).filter(|&s| s != Signal::SIGTRAP))
                            .unwrap();
                    }
                    ended => panic!("{ended:?}"),
                }
            }
        }
        true
    }

    fn goes_on(self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

/// Who does not go on for so long waits for others, and not for a processor.
const WAITS: Duration = Duration::from_secs(3);

/// Enough for whoever was told something to do what it can about it.
fn wait_a_moment() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Where a program of the sandbox wants to go.
const CAPTURED: &str = "192.0.2.77:443";
