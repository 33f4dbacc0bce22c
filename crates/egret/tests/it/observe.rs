//! Metrics, and spans for a collector: what is told is what happened, in the forms that others have published, and a sandbox
//! that is observed is as shut as any.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::containers::furnished;
use crate::world::engine::Kind;
use crate::world::machine::drain;
use crate::world::servers::Service;
use crate::world::{User, World, at, until};

const GUIDE: &str = include_str!("../../../../docs/guide/observing.md");

fn world() -> World {
    let world = World::with_schemas();
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    world.dns.answer("gone.example.com", &["93.184.216.77"]);
    world.serve("93.184.216.34:80", Service::Http);
    world
}

const REQUESTS: &str = "get() { curl -s -m 5 -o /dev/null \"$@\"; }; \
    get http://www.example.com/; get -p http://www.example.com/; get http://evil.test/; \
    get --noproxy '*' http://evil.test/; get http://169.254.169.254/; get http://gone.example.com/; true";

/// A program in Python that has what was fetched, given its text.
fn python(world: &World, user: User, script: &str, arguments: &[&str]) -> Child {
    let program = ["/usr/bin/python3", "-c", script];
    let words = program.iter().chain(arguments);
    let words: Vec<_> = words.map(|word| (*word).to_owned()).collect();
    let env = [("PYTHONPATH".to_owned(), "/srv/schemas/python".to_owned())];
    let mut command = world.command_as(user, "/", &env, &words);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    world.machine.spawn(command).unwrap()
}

/// Metrics, by their names, as Prometheus' own client reads them.
fn read(world: &World, text: &str) -> BTreeMap<String, Value> {
    let script = include_str!("schemas/metrics.py");
    let mut reader = python(world, User::Alice, script, &[]);
    reader
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The sum of a metric's samples that have these labels.
fn value(metrics: &BTreeMap<String, Value>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = name.trim_end_matches("_total").trim_end_matches("_count");
    let samples = metrics[family]["samples"].as_array().unwrap().iter();
    let is_meant = |sample: &&Value| {
        sample[0] == name
            && labels
                .iter()
                .all(|(label, value)| sample[1][label] == *value)
    };
    samples
        .filter(is_meant)
        .map(|sample| sample[2].as_f64().unwrap())
        .sum()
}

/// The rows of the guide's table behind a heading: what stands in ticks in the first column, and in the second.
fn documented(heading: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (_, rest) = GUIDE.split_once(heading).unwrap();
    let table = rest.lines().skip_while(|line| !line.starts_with("|---"));
    let rows = table.skip(1).take_while(|line| line.starts_with('|'));
    let ticked = |cell: &str| -> BTreeSet<String> {
        let parts = cell.split('`').enumerate();
        parts
            .filter(|(place, _)| place % 2 == 1)
            .map(|(_, part)| part.to_owned())
            .collect()
    };
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').collect();
        (ticked(cells[1]).pop_first().unwrap(), ticked(cells[2]))
    })
    .collect()
}

#[test]
fn metrics_are_told_to_this_machine_and_nobody_inside() {
    let world = world();
    for user in User::ALL {
        let home = user.home();
        let socket = format!("{home}/project/metrics.sock");
        let script = format!(
            "{REQUESTS} ; ls -A; for i in 127.0.0.1 192.168.7.2 host.docker.internal; do \
             curl -s -m 5 --noproxy '*' http://$i:9464/metrics; done; \
             curl -s -m 5 --unix-socket metrics.sock http://localhost/metrics; echo asked; read x; true"
        );
        for (place, ask) in [
            (
                format!("unix:{socket}"),
                format!("--unix-socket {socket} http://localhost/metrics"),
            ),
            (
                "127.0.0.1:9464".to_owned(),
                "http://127.0.0.1:9464/metrics".to_owned(),
            ),
        ] {
            let run = world
                .run_as(user)
                .args(&["--metrics", &place, "--name", "told"]);
            let live = run
                .allow("www.example.com")
                .allow("gone.example.com")
                .start(&["/bin/sh", "-c", &script]);
            let get = |more: &str| {
                world.machine.sh(&format!(
                    "setpriv --reuid {0} --regid {0} --clear-groups curl -s -m 15 {more} {ask}",
                    user.id()
                ))
            };
            let mut metrics = BTreeMap::new();
            until("all of it is counted", || {
                let text = world.machine.sh(&format!(
                    "setpriv --reuid {0} --regid {0} --clear-groups curl -s -m 15 {ask} || true",
                    user.id()
                ));
                if text.is_empty() {
                    return false;
                }
                metrics = read(&world, &text);
                // The last one that is asked for is an address of this machine, by its name.
                value(
                    &metrics,
                    "egret_decisions_total",
                    &[("reason", "denied.host_gateway")],
                ) >= 1.0
            });
            let decisions =
                |labels: &[(&str, &str)]| value(&metrics, "egret_decisions_total", labels);
            assert_eq!(
                decisions(&[
                    ("reason", "denied.address.metadata"),
                    ("door", "forward"),
                    ("verdict", "deny")
                ]),
                1.0
            );
            assert_eq!(
                decisions(&[("reason", "allowed.rule"), ("door", "connect")]),
                1.0
            );
            assert_eq!(
                decisions(&[("reason", "denied.default"), ("door", "dns")]),
                1.0
            );
            assert_eq!(
                value(
                    &metrics,
                    "egret_connection_failures_total",
                    &[("door", "forward")]
                ),
                1.0
            );
            assert_eq!(value(&metrics, "egret_connections_total", &[]), 2.0);
            assert_eq!(value(&metrics, "egret_connections_open", &[]), 0.0);
            assert_eq!(
                value(&metrics, "egret_connection_duration_seconds_count", &[]),
                2.0
            );
            assert!(value(&metrics, "egret_bytes_total", &[("direction", "up")]) > 100.0);
            assert!(value(&metrics, "egret_bytes_total", &[("direction", "down")]) > 100.0);
            assert_eq!(
                value(
                    &metrics,
                    "egret_policy_changes_total",
                    &[("action", "loaded")]
                ),
                1.0
            );
            assert_eq!(
                value(&metrics, "egret_sandbox_info", &[("sandbox", "told")]),
                1.0
            );
            // What the guide lists is what there is, with these labels and no others.
            let documented = documented("## Metrics");
            let names: BTreeSet<_> = metrics.keys().cloned().collect();
            let listed: BTreeSet<_> = documented
                .keys()
                .map(|name| name.trim_end_matches("_total").to_owned())
                .collect();
            assert_eq!(names, listed);
            for (name, labels) in &documented {
                let family = &metrics[name.trim_end_matches("_total")];
                for sample in family["samples"].as_array().unwrap() {
                    let mut used = sample[1]
                        .as_object()
                        .unwrap()
                        .keys()
                        .filter(|label| *label != "le");
                    assert!(used.all(|label| labels.contains(label)), "{name}: {sample}");
                }
            }
            assert!(!get("-v 2>&1").contains("evil"));
            // Others of this machine get nothing at a socket of the user's, and web pages nothing at a port.
            if place.starts_with("unix") {
                let other = format!(
                    "setpriv --reuid 23456 --regid 23456 --clear-groups curl -s -m 5 {ask} || echo shut"
                );
                assert_eq!(world.machine.sh(&other), "shut\n");
            } else {
                assert!(get("-H 'Host: evil.test'").contains("has to be localhost"));
                assert!(get("-X POST -d x").contains("GET only"));
            }
            let outcome = live.finish().ok();
            assert_eq!(outcome.stdout.lines().last(), Some("asked"), "{outcome:#?}");
            // In a directory that can be written to, an empty file stands in the place of what is hidden.
            assert!(!outcome.stdout.contains("egret_"), "{outcome:#?}");
            assert_eq!(world.machine.sh(&format!("ls {home}/project")), "");
        }
        for place in [
            "0.0.0.0:9464",
            "192.168.7.2:9464",
            "[::]:9464",
            "9464",
            "unix:",
            "localhost:1",
        ] {
            let outcome = world
                .run_as(user)
                .args(&["--metrics", place])
                .client("echo RAN");
            assert_eq!(
                (outcome.code(), outcome.stdout.as_str()),
                (125, ""),
                "{place}: {outcome:#?}"
            );
            assert!(outcome.stderr.contains("127.0.0.1:"), "{outcome:#?}");
        }
    }
}

#[test]
fn the_socket_of_metrics_stays_where_it_is_and_nobody_inside_has_it() {
    let world = world();
    for user in User::ALL {
        let project = format!("{}/project", user.home());
        world.machine.sh(&format!(
            "cd {project}; mkdir below other; echo precious > other/m.sock; chown -R {0}:{0} .",
            user.id()
        ));
        let script = "curl -s -m 5 --unix-socket below/m.sock http://localhost/metrics; \
            mv below gone && ln -s other below; rm below/m.sock; echo done";
        for socket in ["below/m.sock".to_owned(), format!("{project}/below/m.sock")] {
            let run = world.run_as(user);
            let run = run.args(&["--metrics", &format!("unix:{socket}")]);
            let outcome = run.client(script);
            assert_eq!(outcome.stdout, "done\n", "{outcome:#?}");
            let there = world.machine.sh(&format!(
                "ls {project} {project}/below; cat {project}/other/m.sock"
            ));
            assert!(
                there.contains("precious") && !there.contains("gone"),
                "{there}"
            );
            assert_eq!(there.matches("m.sock").count(), 0, "{there}");
        }
        world
            .machine
            .sh(&format!("rm -r {project}/below {project}/other"));
    }
}

/// Reads metrics of all sandboxes until each of two has this line, prints them, and ends what tells them.
fn until_both_have(line: &str) -> String {
    format!(
        "egret observe --metrics unix:all.sock & metrics=$!; \
         told() {{ curl -s -m 5 --unix-socket all.sock http://localhost/metrics > told; \
             for name in one two; do grep -q \"^{line}\" told || return 1; done; }}; \
         for turn in $(seq 60); do told && break; sleep 0.3; done; cat told; \
         kill $metrics; wait $metrics; echo \"# ended $?\"; test -e all.sock || echo '# gone'"
    )
}

#[test]
fn metrics_of_all_sandboxes_are_at_one_place() {
    let world = world();
    for user in User::ALL {
        let start = |name: &'static str| {
            let run = world.run_as(user).args(&["--name", name]);
            run.allow("www.example.com")
                .allow("gone.example.com")
                .start(&["/bin/sh", "-c", &format!("{REQUESTS}; read x; true")])
        };
        let live = [start("one"), start("two")];
        let line = "egret_connection_failures_total{door=.forward.,sandbox=.$name.} 1";
        let words = ["/bin/sh", "-c", &until_both_have(line)].map(str::to_owned);
        let directory = format!("{}/project", user.home());
        let command = world.command_as(user, &directory, &[], &words);
        let told = world.to_its_end(command, Duration::from_secs(40)).ok();
        let (text, end) = told.stdout.split_once("# EOF\n").unwrap();
        assert_eq!(end, "# ended 143\n# gone\n", "{told:#?}");
        let metrics = read(&world, &format!("{text}# EOF\n"));
        for name in ["one", "two"] {
            let value = |metric, more: &[(&str, &str)]| {
                let labels: Vec<_> = more.iter().copied().chain([("sandbox", name)]).collect();
                value(&metrics, metric, &labels)
            };
            assert_eq!(value("egret_connections_total", &[]), 2.0, "{text}");
            assert_eq!(
                value(
                    "egret_decisions_total",
                    &[("reason", "denied.address.metadata")]
                ),
                1.0,
                "{text}"
            );
            assert!(value("egret_bytes_total", &[("direction", "down")]) > 100.0);
            assert_eq!(value("egret_connection_duration_seconds_count", &[]), 2.0);
            assert_eq!(value("egret_sandbox_info", &[]), 1.0);
        }
        for live in live {
            live.finish().ok();
        }
    }
}

#[test]
fn metrics_of_images_are_told_beside_those_of_programs() {
    for kind in [Kind::Docker, Kind::RootlessPodman] {
        let world = furnished(kind);
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        world.serve("93.184.216.34:80", Service::Http);
        let typed = world.typed(&format!(
            "egret run -d --name two --resolver 10.20.0.53 --allow www.example.com busybox \
                sh -c 'wget -q -O - http://www.example.com/; wget -q -O - http://evil.test/; sleep 1000' >&2; \
             egret run --name one --allow www.example.com -- \
                sh -c 'curl -s -o /dev/null http://www.example.com/; sleep 1000' >&2 & {}; \
             egret stop one >&2; egret rm -f two >&2",
            until_both_have("egret_connections_total{sandbox=.$name.} 1")
        ));
        for line in [
            "egret_connections_total{sandbox=\"one\"} 1",
            "egret_connections_total{sandbox=\"two\"} 1",
            "egret_decisions_total{verdict=\"allow\",reason=\"allowed.rule\",door=\"forward\",sandbox=\"two\"} 1",
            "# ended 143",
            "# gone",
        ] {
            assert!(
                typed.stdout.lines().any(|told| told == line),
                "{line}: {typed:#?}"
            );
        }
        // What read from the engine has ended with it.
        until("nothing is left", || {
            let left = world.machine.processes();
            !left.iter().any(|process| {
                process.contains("logs --follow") || process.contains("exec --interactive")
            })
        });
    }
}

#[test]
fn slow_readers_of_metrics_hold_up_nobody() {
    let world = world();
    let socket = "/home/alice/metrics.sock";
    let run = world
        .run_as(User::Alice)
        .args(&["--metrics", &format!("unix:{socket}")]);
    let live = run
        .allow("www.example.com")
        .start(&["/bin/sh", "-c", "sleep 2; for i in $(seq 20); do curl -s -m 5 http://www.example.com/ || echo FAILED; done; read x; true"]);
    until("the socket is there", || {
        world
            .machine
            .sh(&format!("ls {socket} 2>&1 || true"))
            .trim()
            == socket
    });
    // More than are answered at once, which say nothing, and one that goes on for ever.
    let script = format!(
        "
import socket, time
held = []
for i in range(40):
    s = socket.socket(socket.AF_UNIX); s.connect('{socket}'); s.sendall(b'GET /metrics HTTP/1.1\\r\\nHost: x\\r\\nX: '); held.append(s)
print('ready', flush=True)
end = time.time() + 100
while time.time() < end:
    for s in held:
        try: s.send(b'x')
        except OSError: pass
    time.sleep(0.2)
"
    );
    let mut slow = python(&world, User::Alice, &script, &[]);
    std::io::Read::read_exact(slow.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    let begun = Instant::now();
    let outcome = live.finish().ok();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        outcome.stdout.matches("www.example.com").count(),
        20,
        "{outcome:#?}"
    );
    slow.kill().unwrap();
    slow.wait().unwrap();
    let left = world.machine.sh(&format!("ls {socket} 2>&1 || true"));
    assert!(left.contains("No such"), "{left}");
}

/// A collector at work on the machine.
struct Collector(Child, JoinHandle<Vec<u8>>);

impl Collector {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let mut process = python(
            world,
            User::Alice,
            include_str!("schemas/collector.py"),
            arguments,
        );
        let stdout = process.stdout.as_mut().unwrap();
        std::io::Read::read_exact(stdout, &mut [0; 6]).unwrap();
        let told = drain(process.stdout.take().unwrap());
        Self(process, told)
    }

    /// What it was sent; nothing of it was wrong.
    fn told(mut self) -> Vec<Value> {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        let told = String::from_utf8(self.1.join().unwrap()).unwrap();
        let told: Vec<Value> = told
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for message in &told {
            assert_eq!(message["wrong"], Value::Null, "{message:#}");
        }
        told
    }
}

fn attributes(thing: &Value) -> BTreeMap<String, String> {
    let attributes = thing["attributes"].as_array().unwrap().iter();
    let text = |value: &Value| {
        value["stringValue"]
            .as_str()
            .or(value["intValue"].as_str())
            .unwrap()
            .to_owned()
    };
    attributes
        .map(|one| (one["key"].as_str().unwrap().to_owned(), text(&one["value"])))
        .collect()
}

#[test]
fn a_collector_is_sent_a_span_for_each_connection_and_refusal() {
    let world = world();
    for user in User::ALL {
        let collector = Collector::start(&world, &["4318"]);
        let run = world
            .run_as(user)
            .allow("www.example.com")
            .allow("gone.example.com");
        let run = match user {
            User::Root => run.args(&["--otlp", "http://127.0.0.1:4318"]),
            _ => run.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/"),
        };
        let outcome = run
            .env("OTEL_SERVICE_NAME", "agents")
            .env(
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment=a%2Cb,service.name=other",
            )
            .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20t0ken")
            .args(&["--name", "sent"])
            .client(REQUESTS)
            .ok();
        let told = collector.told();
        let spans: Vec<_> = told
            .iter()
            .filter(|message| message["path"] == "/v1/traces")
            .flat_map(|message| {
                message["body"]["resourceSpans"][0]["scopeSpans"][0]["spans"]
                    .as_array()
                    .unwrap()
            })
            .collect();
        // One for each id on record.
        let recorded: BTreeSet<_> = outcome
            .records
            .iter()
            .filter(|record| matches!(record["event"].as_str(), Some("decision" | "dns")))
            .map(|record| record["id"].as_str().unwrap().to_owned())
            .collect();
        let sent: BTreeSet<_> = spans
            .iter()
            .map(|span| attributes(span)["egret.id"].clone())
            .collect();
        assert_eq!(sent, recorded);
        assert_eq!(spans.len(), sent.len());
        let ids: BTreeSet<_> = spans
            .iter()
            .map(|span| span["traceId"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), spans.len());
        let documented = documented("### Spans");
        for span in &spans {
            let attributes = attributes(span);
            for name in attributes.keys() {
                assert!(
                    documented.contains_key(name),
                    "the guide does not list {name}"
                );
            }
            let time = |name: &str| span[name].as_str().unwrap().parse::<u128>().unwrap();
            assert!(
                time("startTimeUnixNano") <= time("endTimeUnixNano"),
                "{span:#}"
            );
            let records = outcome
                .records
                .iter()
                .filter(|record| record["id"] == attributes["egret.id"].as_str());
            let records: Vec<_> = records.collect();
            let has_failed = records.iter().any(|record| record["verdict"] == "deny")
                || !records.iter().any(|record| record["event"] == "close");
            assert_eq!(
                span["status"]["code"] == 2,
                has_failed,
                "{span:#} {records:#?}"
            );
            let close = records.iter().find(|record| record["event"] == "close");
            let down = close.map(|close| close["bytes_down"].to_string());
            assert_eq!(attributes.get("egret.bytes_down"), down.as_ref());
        }
        let resource = attributes(
            &told[0]["body"]
                .as_object()
                .unwrap()
                .values()
                .next()
                .unwrap()[0]["resource"],
        );
        assert_eq!(resource["service.name"], "agents");
        assert_eq!(resource["deployment.environment"], "a,b");
        assert_eq!(resource["egret.sandbox"], "sent");
        let headers = told[0]["headers"].to_string();
        assert!(headers.contains("Bearer t0ken"), "{headers}");
        let metrics = told
            .iter()
            .rev()
            .find(|message| message["path"] == "/v1/metrics");
        let metrics = &metrics.unwrap()["body"]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        let names: BTreeSet<_> = metrics
            .as_array()
            .unwrap()
            .iter()
            .map(|metric| metric["name"].as_str().unwrap().to_owned())
            .collect();
        let listed: BTreeSet<_> = GUIDE
            .split('`')
            .filter(|part| names.contains(*part))
            .map(str::to_owned)
            .collect();
        assert_eq!(names, listed);
        let decisions = metrics
            .as_array()
            .unwrap()
            .iter()
            .find(|metric| metric["name"] == "egret.decisions");
        let points = decisions.unwrap()["sum"]["dataPoints"]
            .as_array()
            .unwrap()
            .iter();
        let all: u64 = points
            .map(|point| point["asInt"].as_str().unwrap().parse::<u64>().unwrap())
            .sum();
        let on_record = outcome.records.iter().filter(|record| {
            record["event"] == "decision" || record["event"] == "dns" && record["verdict"] == "deny"
        });
        assert_eq!(all, on_record.count() as u64);
    }
}

#[test]
fn a_collector_is_sent_what_all_sandboxes_do() {
    let world = world();
    for user in User::ALL {
        let collector = Collector::start(&world, &["4318"]);
        let socket = format!("{}/all.sock", user.home());
        let place = format!("unix:{socket}");
        let words = ["/srv/bin/egret", "observe", "--metrics", &place];
        let words = words.iter().chain(&["--otlp", "http://127.0.0.1:4318"]);
        let words: Vec<_> = words.map(|word| (*word).to_owned()).collect();
        let command = world.command_as(user, "/", &[], &words);
        let mut observing = world.machine.spawn(command).unwrap();
        until("it is there", || world.machine.path(&socket).exists());
        let mut recorded = BTreeSet::new();
        for name in ["one", "two"] {
            let outcome = world
                .run_as(user)
                .args(&["--name", name])
                .allow("www.example.com")
                .client(&format!("{REQUESTS}; sleep 3"))
                .ok();
            let decided = outcome
                .records
                .iter()
                .filter(|record| matches!(record["event"].as_str(), Some("decision" | "dns")));
            let ids = decided.map(|record| record["id"].as_str().unwrap().to_owned());
            recorded.extend(ids.map(|id| (name.to_owned(), id)));
        }
        let id = Pid::from_raw(observing.id().cast_signed()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        assert_eq!(observing.wait().unwrap().code(), Some(143));
        assert!(!world.machine.path(&socket).exists());
        let mut sent = BTreeSet::new();
        for message in collector.told() {
            if message["path"] == "/v1/traces" {
                let from = &message["body"]["resourceSpans"][0];
                let name = attributes(&from["resource"])["egret.sandbox"].clone();
                let spans = from["scopeSpans"][0]["spans"].as_array().unwrap().iter();
                sent.extend(spans.map(|span| (name.clone(), attributes(span)["egret.id"].clone())));
            }
        }
        assert!(recorded.len() > 8);
        assert_eq!(sent, recorded);
    }
}

#[test]
fn a_collector_that_is_not_there_or_says_no_changes_nothing() {
    let world = world();
    let refusing = Collector::start(&world, &["4319", "400"]);
    let busy = Collector::start(&world, &["4320", "503"]);
    // A listener that never answers.
    let silent = world.machine.listen("127.0.0.1:4321".parse().unwrap());
    for user in User::ALL {
        for port in [4317, 4319, 4320, 4321] {
            let run = world.run_as(user).allow("www.example.com");
            let begun = Instant::now();
            let outcome = run
                .args(&["--otlp", &format!("http://127.0.0.1:{port}")])
                // It ends while spans are being sent.
                .client("for i in $(seq 5); do curl -s http://www.example.com/; done; sleep 1.5")
                .ok();
            assert!(
                begun.elapsed() < Duration::from_secs(6),
                "{port}: {:?}",
                begun.elapsed()
            );
            assert_eq!(outcome.stdout.lines().count(), 5, "{outcome:#?}");
            assert!(
                outcome
                    .stderr
                    .contains("5 records did not reach the collector"),
                "{port}: {outcome:#?}"
            );
        }
        for url in [
            "https://127.0.0.1:4318",
            "http://collector:4318",
            "127.0.0.1:4318",
            "http://u:p@127.0.0.1",
            "x",
        ] {
            let outcome = world.run_as(user).args(&["--otlp", url]).client("echo RAN");
            assert_eq!(
                (outcome.code(), outcome.stdout.as_str()),
                (125, ""),
                "{url}: {outcome:#?}"
            );
            assert!(
                outcome.stderr.contains("http://127.0.0.1:4318"),
                "{outcome:#?}"
            );
            // What is said to all programs is no reason not to run one.
            let outcome = world
                .run_as(user)
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
                .client("echo RAN")
                .ok();
            assert!(
                outcome.stdout == "RAN\n" && outcome.stderr.contains("nothing is sent"),
                "{outcome:#?}"
            );
        }
    }
    drop(silent);
    drop((refusing.told(), busy.told()));
}
