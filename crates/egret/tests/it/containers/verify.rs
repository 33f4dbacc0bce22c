//! `egret verify` of containers: new ones and those that run, on each engine; and it notices what is missing there.

use super::{furnished, shell};
use crate::verify::{OF_CONTAINERS, Report, bring_unguarded};
use crate::world::engine::Kind;

#[test]
fn new_sandboxes_and_those_that_run_hold() {
    for kind in Kind::ALL {
        let world = furnished(kind);
        let before = world.engine_holds();
        Report::of(world.typed("egret verify --output json busybox")).all_held();
        Report::of(world.typed("egret verify --output json --allow '*.example.com' --no-proxy-env -v /usr:/mnt:ro busybox ls")).all_held();
        assert_eq!(world.engine_holds(), before, "{kind:?}");

        let live =
            shell(&world, &["--name", "box", "-e", "SECRET_TOKEN=x"]).start(&["sleep", "300"]);
        super::until("it runs", || world.typed("egret ps").stdout.contains("box"));
        let running = world.engine_holds();
        for _ in 0..2 {
            Report::of(world.typed("egret verify --output json box"))
                .all_but_what_takes_a_grant_held();
        }
        assert_eq!(world.engine_holds(), running, "{kind:?}");
        assert_eq!(world.typed("egret verify --rm box").code(), 125);
        world.typed("egret rm -f box").ok();
        live.finish();
    }
}

#[test]
fn without_isolation_what_leaks_is_seen() {
    for kind in super::ROWS {
        let world = furnished(kind);
        let before = world.engine_holds();
        let report =
            Report::of(world.typed("egret verify --output json --isolate-network=false busybox"));
        let leaked = report.with("leaked");
        for class in [1, 2, 3, 4, 6, 11] {
            assert!(
                leaked.contains(&class),
                "{kind:?}: {class}: {}",
                report.amiss()
            );
        }
        assert_eq!(world.engine_holds(), before, "{kind:?}");
        // Where there is no network at all, nothing leaks, and there is no gateway to ask.
        let report = Report::of(world.typed("egret verify --output json --network none busybox"));
        assert_eq!(report.outcome.code(), 0, "{kind:?}: {}", report.amiss());
    }
}

#[test]
fn each_guard_of_containers_is_missed() {
    for kind in super::ROWS {
        let world = furnished(kind);
        let program = bring_unguarded(&world);
        for (without, class, result) in OF_CONTAINERS {
            let line = format!("EGRET_WITHOUT={without} {program} verify --output json busybox");
            let report = Report::of(world.typed(&line));
            println!("| {without}, {kind:?} | {result}: {class} |");
            assert!(
                report.with(result).contains(&class),
                "{kind:?}: {without}: {}",
                report.amiss()
            );
        }
        for (without, class) in [
            ("vetting", 14),
            ("host-ports", 4),
            ("asking-nobody", 13),
            ("server-name", 24),
        ] {
            let line = format!("EGRET_WITHOUT={without} {program} verify --output json busybox");
            let report = Report::of(world.typed(&line));
            assert!(
                report.with("leaked").contains(&class),
                "{kind:?}: {without}: {}",
                report.amiss()
            );
        }
    }
}
