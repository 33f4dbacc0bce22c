//! A policy that is replaced at any moment of a connection's life.
//!
//! The code that is shipped runs here, on real sockets, one step at a time: whether the connection goes on, or something
//! happens around it (its client says more, a name is answered, its server does something, the policy is replaced) is
//! [`chosen`](Schedule), and every choice is tried in turn. The gateway has one thread, so that these are all the
//! interleavings there are of what is said here. (But for some that cannot be had twice, since the runtime chooses by
//! chance whom of several futures it asks first; they are counted, and few. A short run has those only in which what happens around the connection
//! departs from the usual order at most once.)
//!
//! What has to hold once [`Gateway::set_policy`] is back, of a connection that the new policy does not allow: nobody is
//! asked for its name, it is not dialled, not a byte more goes either way, it ends without anybody's doing, and is on
//! record exactly once. One that both policies allow notices nothing.

mod schedule;
mod stage;

use schedule::{Explored, Schedule, explore};
use stage::{Broken, Stage, Told};

/// What a client says, and what its server makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// A tunnel, of what nobody knows.
    Tunnel,
    /// The same, by a client that does not wait for it.
    Early,
    /// Two requests to the proxy, on one connection.
    Forward,
    /// Two requests in a tunnel.
    Requests,
}

/// Which policy comes, in place of one that allows everything that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum New {
    /// It allows something else only.
    Denies,
    /// It allows this as well.
    Keeps,
}

/// Runs one connection to its end, the policy being replaced when the schedule says so.
fn run(spoken: Spoken, new: New, broken: Broken, schedule: &mut Schedule) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stage = Stage::new(spoken, broken).await;
        let mut connection = stage.connection();
        let mut then = None;
        for _ in 0..STEPS {
            stage.settle().await;
            stage.look();
            let mut next = Vec::new();
            if connection.is_woken() {
                next.push(Next::Poll);
            }
            next.extend(stage.possible().map(Next::Around));
            if then.is_none() {
                next.push(Next::Replace);
            }
            if next.is_empty() {
                std::thread::sleep(schedule.patience());
                stage.settle().await;
                stage.look();
                next.extend(connection.is_woken().then_some(Next::Poll));
                next.extend(stage.possible().map(Next::Around));
            }
            match schedule.choose(&next, |next| *next == Next::Replace) {
                None => break,
                Some(Next::Poll) => connection.poll(),
                Some(Next::Around(told)) => stage.tell(told).await,
                Some(Next::Replace) => {
                    stage.replace(new);
                    stage.look();
                    then = Some(stage.seen());
                }
            }
        }
        stage.settle().await;
        stage.look();
        let then = then.ok_or("the policy was never replaced")?;
        match new {
            New::Denies => stage.ended_by(&then, connection.is_over()),
            New::Keeps => stage.went_well(connection.is_over()),
        }
    })
}

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Poll,
    Around(Told),
    Replace,
}

/// More than any connection takes here.
const STEPS: usize = 200;

/// How often the usual order may be departed from.
fn bound() -> usize {
    match std::env::var_os("EGRET_TEST_FULL") {
        Some(_) => usize::MAX,
        None => 1,
    }
}

fn holds(spoken: Spoken, new: New) {
    let explored = explore(bound(), |schedule| {
        run(spoken, new, Broken::Nothing, schedule)
    });
    match explored {
        Ok(Explored { runs, lost }) => {
            println!("{spoken:?}, {new:?}: {runs} interleavings, {lost} of them lost");
            assert!(runs > 20 && lost * 20 <= runs, "these are not all");
        }
        Err(found) => panic!("{spoken:?}, {new:?}: {found}"),
    }
}

#[test]
fn a_tunnel_ends_with_the_policy_that_allowed_it() {
    holds(Spoken::Tunnel, New::Denies);
    holds(Spoken::Early, New::Denies);
}

#[test]
fn requests_end_with_the_policy_that_allowed_them() {
    holds(Spoken::Forward, New::Denies);
    holds(Spoken::Requests, New::Denies);
}

#[test]
fn what_both_policies_allow_goes_on() {
    holds(Spoken::Tunnel, New::Keeps);
    holds(Spoken::Early, New::Keeps);
    holds(Spoken::Forward, New::Keeps);
    holds(Spoken::Requests, New::Keeps);
}

#[test]
fn a_gateway_that_does_less_is_noticed() {
    for broken in [Broken::ForgetsConnections, Broken::ForgetsNewOnes] {
        let explored = explore(1, |schedule| {
            run(Spoken::Tunnel, New::Denies, broken, schedule)
        });
        assert!(explored.is_err(), "{broken:?}: {explored:?}");
    }
}
