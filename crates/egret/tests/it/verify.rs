//! `egret verify`: it finds that what is built holds, and it finds out when it does not.
//!
//! The second half is the more important one: each guard is switched off in turn, in a build that has switches for them, and
//! has to be missed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::run::Outcome;
use crate::world::{HOST_ADDRESSES, User, World, until};

/// A verification that has come to its end, as it is told to machines.
pub(crate) struct Report {
    pub(crate) outcome: Outcome,
    classes: Vec<Value>,
}

impl Report {
    #[track_caller]
    pub(crate) fn of(outcome: Outcome) -> Self {
        let json: Value = serde_json::from_str(&outcome.stdout)
            .unwrap_or_else(|error| panic!("{error}: {outcome:#?}"));
        let classes = json["classes"].as_array().unwrap().clone();
        assert_eq!(classes.len(), 35, "{json:#}");
        let fine = |class: &Value| class["result"] == "held" || class["result"] == "not_tried";
        assert_eq!(json["holds"], classes.iter().all(fine), "{json:#}");
        assert_eq!(
            outcome.code(),
            i32::from(json["holds"] == false),
            "{json:#}"
        );
        Self { outcome, classes }
    }

    /// The numbers of the classes with this result.
    pub(crate) fn with(&self, result: &str) -> BTreeSet<u64> {
        let found = self
            .classes
            .iter()
            .filter(|class| class["result"] == result);
        found
            .map(|class| class["class"].as_u64().unwrap())
            .collect()
    }

    /// What did not hold, for a test that fails.
    pub(crate) fn amiss(&self) -> String {
        let amiss = self
            .classes
            .iter()
            .filter(|class| class["result"] != "held" && class["result"] != "not_tried");
        let lines = amiss.map(|class| {
            format!(
                "\n  {} {}: {}",
                class["class"], class["result"], class["evidence"]
            )
        });
        lines.collect::<String>() + "\n  " + self.outcome.stderr.trim()
    }

    /// What there is to see of a class.
    fn evidence(&self, class: u64) -> String {
        let class = self.classes.iter().find(|found| found["class"] == class);
        class.unwrap()["evidence"].to_string()
    }

    /// Everything that is tried in a sandbox that was made for it has held, and nothing has left the machine.
    #[track_caller]
    pub(crate) fn all_held(&self) {
        self.nothing_got_out();
        let tried: BTreeSet<u64> = (1..=29).chain([32]).collect();
        assert_eq!(self.with("held"), tried, "{}", self.amiss());
        for class in self
            .classes
            .iter()
            .filter(|class| class["result"] == "held")
        {
            assert!(class["tried"].as_u64().unwrap() > 0, "{class}");
        }
    }

    /// The same of one that runs, where nothing is opened for the prober.
    #[track_caller]
    pub(crate) fn all_but_what_takes_a_grant_held(&self) {
        self.nothing_got_out();
        let takes_a_grant = BTreeSet::from([14, 24, 25, 26, 27, 29]);
        let tried: BTreeSet<u64> = (1..=29).chain([32]).collect();
        assert_eq!(
            self.with("held"),
            &tried - &takes_a_grant,
            "{}",
            self.amiss()
        );
    }

    #[track_caller]
    fn nothing_got_out(&self) {
        for result in ["leaked", "imperfect", "skipped"] {
            assert_eq!(self.with(result), BTreeSet::new(), "{}", self.amiss());
        }
        // The machine's own traffic, such as that of the gateway with the name server, passes its loopback.
        let left = self
            .outcome
            .packets
            .iter()
            .filter(|packet| !is_of_machine(packet.destination));
        let left: Vec<_> = left.collect();
        assert!(left.is_empty(), "{left:#?}");
        assert!(
            self.outcome.queries.is_empty(),
            "{:#?}",
            self.outcome.queries
        );
    }
}

/// Whether an address is one that the machine itself has, or a container on it.
fn is_of_machine(address: IpAddr) -> bool {
    let own = HOST_ADDRESSES.iter().any(|own| own.parse() == Ok(address));
    let of_engines =
        matches!(address, IpAddr::V4(v4) if matches!(v4.octets(), [172, 17, ..] | [10, 88, ..]));
    own || of_engines || address.is_loopback()
}

fn verify(world: &World, user: User, args: &[&str]) -> Report {
    let words: Vec<&str> = ["verify", "--output", "json"]
        .iter()
        .chain(args)
        .copied()
        .collect();
    Report::of(world.egret(user, &words))
}

const ALLOW_PUBLIC: &str = "version: 1\ndefault: allow-public\n";

#[test]
fn a_new_sandbox_holds_whatever_its_policy() {
    let world = World::new();
    world.machine.write("/srv/public.yaml", ALLOW_PUBLIC);
    for user in User::ALL {
        let since = Instant::now();
        verify(&world, user, &[]).all_held();
        assert!(since.elapsed() < Duration::from_secs(10));
        verify(
            &world,
            user,
            &["--policy", "/srv/public.yaml", "--", "true"],
        )
        .all_held();
        verify(
            &world,
            user,
            &["--allow", "*.example.com", "--no-proxy-env"],
        )
        .all_held();
        // What the policy opens is not taken for a leak.
        let report = verify(&world, user, &["--allow-docker-gateway"]);
        report.nothing_got_out();
        assert!(
            report
                .with("held")
                .is_superset(&BTreeSet::from([6, 7, 8, 9, 13, 14, 20, 21, 24, 26]))
        );
    }
}

#[test]
fn a_sandbox_that_runs_is_probed_where_it_is_and_goes_on() {
    let world = World::new();
    for user in User::ALL {
        let live = world
            .run_as(user)
            .args(&["--name", "box"])
            .start(&["sh", "-c", "trap 'cat /proc/net/sockstat >/dev/null; ls /tmp; exit 7' TERM; echo up; while :; do sleep 0.1; done"]);
        let end = Instant::now() + Duration::from_secs(10);
        while world.egret(user, &["ps"]).stdout.lines().count() < 2 {
            assert!(Instant::now() < end);
        }
        std::thread::sleep(Duration::from_millis(300));
        let before = world.machine.processes().len();
        for _ in 0..3 {
            verify(&world, user, &["box"]).all_but_what_takes_a_grant_held();
        }
        let end = Instant::now() + Duration::from_secs(5);
        while world.machine.processes().len() > before {
            assert!(Instant::now() < end, "{:#?}", world.machine.processes());
        }
        let with_options = world.egret(user, &["verify", "--allow", "example.com", "box"]);
        assert_eq!(with_options.code(), 125);
        assert!(
            with_options.stderr.contains("options of its own"),
            "{with_options:#?}"
        );
        assert_eq!(world.egret(user, &["stop", "box"]).code(), 0);
        let outcome = live.finish();
        assert_eq!(
            (outcome.code(), outcome.stdout.as_str()),
            (7, "up\n"),
            "{outcome:#?}"
        );
    }
}

#[test]
fn without_a_sandbox_everything_leaks_and_is_seen() {
    let world = World::new();
    for user in User::ALL {
        let report = verify(&world, user, &["--isolate-network=false"]);
        let leaked = report.with("leaked");
        for class in [1, 2, 3, 4, 5, 6, 8, 9, 10, 11] {
            assert!(leaked.contains(&class), "{class}: {}", report.amiss());
        }
        for class in [1, 2, 3, 4, 5, 6, 10, 11] {
            let evidence = report.evidence(class);
            assert!(evidence.contains("seen outside"), "{class}: {evidence}");
        }
    }
}

/// Lowers the limits of every process that it sees, of the one that starts the prober first of all.
const LIMITER: &str = "import os, resource, time
while True:
    for name in filter(str.isdigit, os.listdir('/proc')):
        if int(name) != os.getpid():
            try: resource.prlimit(int(name), resource.RLIMIT_NOFILE, (8, 8))
            except OSError: pass
    print('limited', flush=True)
    time.sleep(0.005)
";

/// Takes every connection that the gateway has to give.
const HOG: &str = "import os, resource, socket, time
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
port = int(os.environ['HTTPS_PROXY'].rsplit(':', 1)[1].strip('/'))
held = []
while True:
    try: held.append(socket.create_connection(('127.0.0.1', port), timeout=1))
    except OSError: time.sleep(0.01)
    if len(held) > 3000: held = held[1500:]
";

#[test]
fn a_gateway_that_has_no_time_to_answer_has_refused_nothing() {
    let world = World::new();
    world.machine.write("/srv/hog.py", HOG);
    let live = world
        .run_as(User::Alice)
        .args(&["--name", "box", "--read", "/srv/hog.py"])
        .start(&["python3", "/srv/hog.py"]);
    until("it runs", || {
        world.egret(User::Alice, &["ps"]).stdout.contains("box")
    });
    std::thread::sleep(Duration::from_secs(2));
    let report = verify(&world, User::Alice, &["box"]);
    assert_eq!(report.with("leaked"), BTreeSet::new(), "{}", report.amiss());
    assert!(report.with("skipped").len() > 5, "{}", report.amiss());
    for class in [15, 17, 18, 19, 20, 21, 22, 23, 28, 32] {
        let is_held = report.with("held").contains(&class);
        let evidence = report.evidence(class);
        assert!(
            !is_held || !evidence.contains("reset"),
            "{class}: {evidence}"
        );
    }
    world.egret(User::Alice, &["stop", "box"]);
    live.finish();
}

#[test]
fn a_program_that_hinders_the_prober_makes_nothing_hold() {
    let world = World::new();
    world.machine.write("/srv/limiter.py", LIMITER);
    for user in User::ALL {
        let live = world
            .run_as(user)
            .args(&["--name", "box", "--read", "/srv/limiter.py"])
            .start(&["python3", "/srv/limiter.py"]);
        until("it runs", || {
            world.egret(user, &["ps"]).stdout.contains("box")
        });
        std::thread::sleep(Duration::from_millis(500));
        let report = verify(&world, user, &["box"]);
        assert_eq!(report.outcome.code(), 1);
        let skipped = report.with("skipped");
        assert!(skipped.len() > 5, "{}", report.amiss());
        for class in report.with("held") {
            let evidence = report.evidence(class);
            assert!(!evidence.contains("Too many"), "{class}: {evidence}");
        }
        assert_eq!(world.egret(user, &["stop", "box"]).code(), 0);
        live.finish();
    }
}

/// The machine's setting for sockets at all addresses, a name of a sandbox among those that are asked, a policy that
/// refuses the prober's names, and a way to break off.
#[test]
fn nothing_around_it_makes_it_blind() {
    let world = World::new();
    let program = bring_unguarded(&world);
    world.machine.sh("echo 1 >/proc/sys/net/ipv6/bindv6only");
    let report = Report::of(world.unguarded(program, "host-ports", &[]));
    let leaked = report.with("leaked");
    assert!(
        leaked.is_superset(&BTreeSet::from([1, 2, 3, 4, 11, 18, 19, 23, 29])),
        "{}",
        report.amiss()
    );
    drop(world);

    let world = World::new();

    world.machine.write(
        "/srv/deny.yaml",
        "version: 1\ndeny:\n  - \"**.egret.test\"\n",
    );
    let report = verify(&world, User::Alice, &["--policy", "/srv/deny.yaml"]);
    report.nothing_got_out();
    let behind_the_gateway = BTreeSet::from([14, 24, 25, 26, 27, 29, 30, 31, 33, 34, 35]);
    assert_eq!(
        report.with("not_tried"),
        behind_the_gateway,
        "{}",
        report.amiss()
    );

    // Whoever looks for sandboxes meanwhile is none that got out.
    let looking = world.machine.spawn(world.command_as(
        User::Alice,
        "/home/alice",
        &[],
        &["/bin/sh", "-c", "while :; do egret ps >/dev/null; done"].map(str::to_owned),
    ));
    let mut looking = looking.unwrap();
    verify(&world, User::Alice, &[]).all_held();
    looking.kill().unwrap();
    looking.wait().unwrap();
}

/// A socket where displays have theirs.
const DISPLAY: &str = "import os, socket, time
os.makedirs('/tmp/.X11-unix', exist_ok=True)
display = socket.socket(socket.AF_UNIX)
display.bind('/tmp/.X11-unix/X0')
display.listen()
time.sleep(60)
";

#[test]
fn what_a_program_has_in_its_sandbox_is_no_leak() {
    let world = World::new();
    let live = world
        .run_as(User::Alice)
        .args(&["--name", "box"])
        .start(&["python3", "-c", DISPLAY]);
    until("it runs", || {
        world.egret(User::Alice, &["ps"]).stdout.contains("box")
    });
    std::thread::sleep(Duration::from_millis(500));
    let report = verify(&world, User::Alice, &["box"]);
    report.all_but_what_takes_a_grant_held();
    let evidence = report.evidence(10);
    assert!(evidence.contains("a program in here"), "{evidence}");
    world.egret(User::Alice, &["stop", "box"]);
    live.finish();
}

#[test]
fn what_a_sandbox_that_runs_has_is_tried() {
    let world = World::new();
    let program = bring_unguarded(&world);
    let start = format!(
        "cd; EGRET_WITHOUT=files,signals {program} run --name open -- sleep 60 & \
         until {program} ps 2>/dev/null | grep -q open; do sleep 0.1; done; sleep 0.5; \
         {program} verify --output json open; status=$?; {program} stop open >/dev/null; wait; exit $status"
    );
    let words = ["/bin/sh", "-c", &start].map(str::to_owned);
    let command = world.command_as(User::Root, "/root/project", &[], &words);
    let report = Report::of(world.to_its_end(command, Duration::from_secs(40)));
    assert!(report.with("leaked").contains(&12), "{}", report.amiss());
    let evidence = report.evidence(12);
    for found in [".jsonl: it can be written to", ": a file can be made there"] {
        assert!(evidence.contains(found), "{evidence}");
    }
    let left = world.machine.sh("ls /root/.local/state/egret/logs");
    assert!(left.lines().all(|name| name.ends_with(".jsonl")), "{left}");
}

#[test]
fn broken_off_it_leaves_nothing() {
    let world = World::new();
    let before = world.machine.processes();
    for (signal, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        for after in [0.2, 0.4] {
            let line =
                format!("egret verify >/dev/null & sleep {after}; kill -{signal} $!; wait $!");
            let words = ["/bin/bash", "-c", &line].map(str::to_owned);
            let command = world.command_as(User::Alice, "/home/alice/project", &[], &words);
            let ended = world.to_its_end(command, Duration::from_secs(20)).code();
            assert_eq!(ended, status, "{signal}");
            until("nothing of it runs", || world.machine.processes() == before);
            let left = world.machine.sh("ls /tmp");
            assert!(!left.contains("egret-verify"), "{signal} {after}: {left}");
        }
    }
}

#[test]
fn it_is_told_to_people_and_to_what_reads_test_results() {
    let world = World::new();
    let text = world.egret(User::Alice, &["verify"]);
    assert_eq!(text.code(), 0, "{text:#?}");
    assert!(
        text.stdout
            .contains(" 24  another server name or Host               held"),
        "{}",
        text.stdout
    );
    assert!(
        text.stdout.contains("30 classes held, 0 leaked"),
        "{}",
        text.stdout
    );
    assert_eq!(text.stderr, "");
    for args in [
        &["verify", "--output=junit"][..],
        &["verify", "--isolate-network=false", "--output", "junit"],
    ] {
        let junit = world.egret(User::Alice, args);
        world.machine.write("/srv/junit.xml", &junit.stdout);
        let read = world.machine.sh(
            "python3 -c \"import xml.etree.ElementTree as t; s = t.parse('/srv/junit.xml').getroot(); \
             print(s.get('tests'), len(s.findall('testcase')), int(s.get('failures')) == len(s.findall('.//failure')), \
             int(s.get('errors')) == len(s.findall('.//error')), int(s.get('failures')) > 0)\"",
        );
        assert_eq!(
            read.trim().to_lowercase(),
            format!("35 35 true true {}", junit.code() == 1 && args.len() > 2)
        );
    }
}

#[test]
fn what_cannot_be_verified_is_said() {
    let world = World::new();
    for (args, said) in [
        (
            &["verify", "--policy", "/nowhere"][..],
            "egret: cannot read the policy /nowhere",
        ),
        (
            &["verify", "-t", "image"],
            "egret: --tty is about an image's own program",
        ),
        (&["verify", "--detach", "image"], "egret: --detach is about"),
        (
            &["verify", "--output", "yaml"],
            "egret: invalid value 'yaml'",
        ),
        (
            &["verify", "--nonsense"],
            "egret: unexpected argument '--nonsense'",
        ),
    ] {
        let outcome = world.egret(User::Alice, args);
        assert_eq!(outcome.code(), 125, "{outcome:#?}");
        assert!(outcome.stderr.starts_with(said), "{outcome:#?}");
    }
    let left = world.machine.sh("ls /tmp");
    assert!(!left.contains("egret-verify"), "{left}");
    // The prober is for sandboxes.
    assert_eq!(world.egret(User::Alice, &["probe"]).code(), 125);
    assert_eq!(
        world
            .egret(User::Alice, &["run", "--probe", "{}", "--", "true"])
            .code(),
        125
    );
}

// ---- guards switched off ----

/// What has to come of switching guards off: classes that are no longer held, and how they are told to be.
struct Missed {
    without: &'static str,
    args: &'static [&'static str],
    classes: &'static [u64],
    result: &'static str,
    /// What is seen of the first of them.
    evidence: &'static str,
}

const fn missed(
    without: &'static str,
    classes: &'static [u64],
    result: &'static str,
    evidence: &'static str,
) -> Missed {
    Missed {
        without,
        args: &[],
        classes,
        result,
        evidence,
    }
}

const PUBLIC: &[&str] = &["--policy", "/srv/public.yaml"];

/// Each guard, and the leak that it stops. (`proof` is what notices that a sandbox is not sealed, so it is switched off
/// where that is to be tried; by itself it leaves the seal as it is.)
#[rustfmt::skip]
const GUARDS: [Missed; 30] = [
// With nothing switched off, it is the same program.
    missed("", &[], "leaked", ""),
    missed("proof", &[], "leaked", ""),
    missed("network-namespace,proof", &[1, 2, 3, 4, 6, 11], "leaked", "seen outside: a TCP connection"),
    missed("redirect,proof", &[1, 2, 3, 11, 13], "imperfect", "not on record"),
    missed("capabilities", &[7], "leaked", "a new route: the kernel lets it in"),
    missed("system-calls", &[6, 7, 8, 9], "leaked", "vsock: the kernel lets it in"),
    missed("socket-families", &[6], "leaked", "vsock: the kernel lets it in"),
    missed("user-namespaces", &[7], "leaked", "a user namespace: the kernel lets it in"),
    missed("signals", &[9], "leaked", "seen outside: a signal"),
    missed("descriptors", &[9], "leaked", "/dev/null"),
    missed("files", &[10, 9], "leaked", "seen outside: a connection to a unix socket"),
    missed("files,signals", &[12], "leaked", "it can be written to"),
    missed("kernel-settings,signals", &[8], "leaked", "it can be written to"),
    missed("untraceable,signals", &[9], "leaked", "first process: it can be read"),
    missed("host-ports", &[4, 1, 2, 3, 18, 19, 22, 23, 29], "leaked", "seen outside: a TCP connection"),
    missed("default-deny", &[13], "leaked", "seen outside: a question about"),
    missed("asking-nobody", &[13], "leaked", "seen outside: a question about"),
    missed("plain-names", &[17], "leaked", "seen outside: a question about"),
    missed("plain-ports", &[22], "leaked", "200 Connection established"),
    missed("vetting", &[14], "leaked", "seen outside: a TCP connection"),
    missed("address-classes", &[14], "leaked", "seen outside: a TCP connection"),
    Missed { args: PUBLIC, ..missed("address-classes", &[4, 1, 2, 3, 18, 19, 20, 29], "leaked", "seen outside: a TCP connection") },
    // The machine is the last one to say that it is the machine: it hears of the connection, and nothing of what is said.
    Missed { args: PUBLIC, ..missed("address-classes,this-machine", &[4], "leaked", "200 Connection established") },
    missed("server-name", &[24], "leaked", "passed the gateway"),
    missed("host-field", &[24, 25, 27], "leaked", "passed the gateway"),
    missed("every-request", &[25, 24, 26, 27], "leaked", "passed the gateway"),
    missed("strict-heads", &[26], "leaked", "passed the gateway"),
    missed("records", &[24, 25, 26, 27, 29], "imperfect", "not on record"),
    missed("records-of-refusals", &[1, 4, 13, 14, 17, 18, 19, 20, 21, 22, 23, 29, 32], "imperfect", "not on record"),
    missed("inert-records", &[32], "leaked", "in the log"),
];

/// Those of containers, which their own tests switch off.
pub(crate) const OF_CONTAINERS: [(&str, u64, &str); 3] = [
    ("container-network", 4, "leaked"),
    ("container-system-calls", 6, "leaked"),
    ("container-capabilities", 7, "leaked"),
];

/// The program with switches, for a world. It is built by `./x test`, beside the other one.
#[track_caller]
pub(crate) fn bring_unguarded(world: &World) -> &'static str {
    let built = format!("{}-unguarded", crate::world::EGRET);
    assert!(
        Path::new(&built).exists(),
        "{built} is not there: ./x test builds it, or `cargo build -p egret --features unguarded --bin egret-unguarded`"
    );
    std::fs::copy(built, world.machine.path("/srv/bin/egret-unguarded")).unwrap();
    "/srv/bin/egret-unguarded"
}

#[test]
fn each_guard_is_missed() {
    let world = World::new();
    world.machine.write("/srv/public.yaml", ALLOW_PUBLIC);
    let program = bring_unguarded(&world);
    println!("| switched off | what is found |\n|---|---|");
    for Missed {
        without,
        args,
        classes,
        result,
        evidence,
    } in GUARDS
    {
        let report = Report::of(world.unguarded(program, without, args));
        let found = report.with(result);
        for class in classes {
            assert!(
                found.contains(class),
                "{without}: {class} is not {result}: {}",
                report.amiss()
            );
        }
        match classes.first() {
            Some(first) => assert!(
                report.evidence(*first).contains(evidence),
                "{without}: {}",
                report.amiss()
            ),
            None => report.all_held(),
        }
        let found: Vec<String> = classes.iter().map(u64::to_string).collect();
        println!(
            "| {without} {} | {result}: {} |",
            args.join(" "),
            found.join(", ")
        );
    }
    // What this very machine would say last is not needed while its addresses have their class.
    let report = Report::of(world.unguarded(program, "address-classes", PUBLIC));
    assert!(
        !report.evidence(4).contains("200 Connection established"),
        "{}",
        report.amiss()
    );
    // Nor does anything start where the seal is not what it has to be.
    for without in ["redirect", "network-namespace"] {
        let outcome = world.unguarded(program, without, &[]);
        assert_eq!(outcome.code(), 125, "{without}: {outcome:#?}");
        assert!(
            outcome.stderr.contains("cannot seal"),
            "{without}: {outcome:#?}"
        );
    }
}

impl World {
    /// `egret verify --output json` of the program with switches, some of them off.
    #[track_caller]
    fn unguarded(&self, program: &str, without: &str, args: &[&str]) -> Outcome {
        let without = format!("EGRET_WITHOUT={without}");
        let mut words = vec![
            "/usr/bin/env",
            &without,
            program,
            "verify",
            "--output",
            "json",
        ];
        words.extend(args);
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        self.to_its_end(
            self.command_as(User::Root, "/root/project", &[], &words),
            Duration::from_secs(40),
        )
    }
}

/// A switch without a row would be a guard that nobody is known to miss.
#[test]
fn each_switch_has_a_row() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut switches = BTreeSet::new();
    let mut directories = vec![crates.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let named = text
                    .split("stands(\"")
                    .skip(1)
                    .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
                switches.extend(named);
            }
        }
    }
    // That one is chosen by what is spoken.
    assert!(switches.len() > 15, "{switches:?}");
    switches.extend(["server-name", "host-field"].map(str::to_owned));
    let mut rows: BTreeSet<String> = GUARDS
        .iter()
        .flat_map(|guard| guard.without.split(','))
        .chain(OF_CONTAINERS.map(|(name, ..)| name))
        .map(str::to_owned)
        .collect();
    rows.remove("");
    assert_eq!(rows, switches);
}
