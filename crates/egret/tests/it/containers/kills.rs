//! The gateway of a container is killed while it is at work, over and over, and started again: ten times, or as often as
//! `EGRET_KILLS` says.

use std::time::{Duration, Instant};

use super::world;
use crate::faults::{WORK, on_record};
use crate::world::engine::Kind;
use crate::world::servers::Service;
use crate::world::{World, at};

#[test]
fn a_gateway_that_is_killed_over_and_over_lets_nothing_through_unrecorded() {
    let kills = std::env::var("EGRET_KILLS").map_or(10, |kills| kills.parse().unwrap());
    for kind in Kind::ALL {
        let world = world(kind);
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        world.serve("93.184.216.34:7000", Service::Echo);
        world.serve("93.184.216.34:7001", Service::Echo);
        world.serve("93.184.216.34:7002", Service::Echo);
        let live = world
            .run_container()
            .args(&["--name", "box"])
            .allow("www.example.com:7000,7002")
            .start(&["/usr/bin/python3", "-c", WORK]);
        for turn in 0..kills {
            works(&world);
            std::thread::sleep(Duration::from_millis(turn * 37 % 200));
            world.docker(&["kill", "box-egret-gateway"]);
            let before = connections(&world);
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(connections(&world), before, "{kind:?}: without a gateway");
            world.docker(&["start", "box-egret-gateway"]);
        }
        works(&world);
        let outcome = live.finish().ok();
        assert_eq!(outcome.stdout, "done\n", "{kind:?}: {}", outcome.stderr);
        let decisions = outcome.events("decision").count();
        on_record(&world, &outcome.records, false);
        println!(
            "{kind:?}: killed {kills} times, {decisions} decisions, {} connections",
            connections(&world)
        );
    }
}

fn connections(world: &World) -> usize {
    world.server(0, |server| server.connections())
}

/// Waits until something comes by both doors.
#[track_caller]
fn works(world: &World) {
    let bytes = || world.server(0, |server| server.bytes());
    let before = bytes().len();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let all = bytes();
        let new = String::from_utf8_lossy(&all[before..]).into_owned();
        if new.contains("captured\n") && new.contains("asked\n") {
            return;
        }
        assert!(Instant::now() < end, "nothing works any more: {new}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
