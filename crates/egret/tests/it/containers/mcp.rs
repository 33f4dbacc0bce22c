//! MCP servers that others wrote, as they are: they do their work, and what they are asked to reach is decided on.

use serde_json::{Value, json};

use super::session::{Session, hello};
use crate::world::engine::Kind;
use crate::world::images::{SERVERS, SERVERS_MOUNT};
use crate::world::servers::Service;
use crate::world::{World, at};

/// A world with an engine and the servers.
#[track_caller]
fn world(kind: Kind) -> World {
    let world = World::with_engine(kind);
    for image in &SERVERS {
        world.import(image);
    }
    world
}

#[test]
fn servers_over_standard_output_work_and_reach_what_they_may() {
    for kind in Kind::ALL {
        let world = world(kind);
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        world.serve("93.184.216.34:80", Service::Http);
        let inside = world.serve_on_machine(8080, Service::Http);
        let before = world.engine_holds();
        let run = |image: &str| world.run_container().args(&SERVERS_MOUNT).image(image);

        let mut memory = Session::start(&world, &run("mcp/memory"), &[]);
        let entity =
            json!({"name": "egret", "entityType": "bird", "observations": ["it is white"]});
        memory.call("create_entities", &json!({"entities": [entity]}));
        let (graph, failed) = memory.call("read_graph", &json!({}));
        assert!(
            graph.contains("it is white") && !failed,
            "{kind:?}: {graph}"
        );
        memory.end();

        let mut everything = Session::start(&world, &run("mcp/everything"), &[]);
        let said = everything.call("echo", &json!({"message": "hello"}));
        assert_eq!(said, ("Echo: hello".to_owned(), false), "{kind:?}");
        everything.end();
        world.assert_silent();

        let log = format!("{}/fetch.jsonl", kind.user().home());
        let run = run("mcp/fetch").allow("www.example.com").log(Some(&log));
        // It looks at addresses itself, and would take those that stand for names in a sandbox for private ones.
        let mut fetch = Session::start(&world, &run, &["--allow-private-ips"]);
        let (page, failed) = fetch.call(
            "fetch",
            &json!({"url": "http://www.example.com/a/page", "raw": true}),
        );
        assert!(
            page.contains("GET /a/page for www.example.com") && !failed,
            "{kind:?}: {page}"
        );
        // To make the page readable it wants to install a package, of which its user knows nothing.
        let (page, failed) = fetch.call("fetch", &json!({"url": "http://www.example.com/a/page"}));
        assert!(failed, "{kind:?}: {page}");
        for url in [
            "http://www.example.net/secret.in.a.name",
            "http://host.docker.internal:8080/",
            "http://172.17.0.1:8080/",
            "http://192.168.7.2:8080/",
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost:8080/",
        ] {
            let (text, failed) = fetch.call("fetch", &json!({"url": url, "raw": true}));
            assert!(failed && !text.contains("GET /"), "{kind:?}: {url}: {text}");
        }
        fetch.end();
        assert_eq!(world.server(inside, |server| server.connections()), 0);
        let asked: Vec<_> = world.dns.queries();
        assert!(
            asked.iter().all(|query| query.name == "www.example.com"),
            "{asked:?}"
        );
        let records = world.records(&log);
        let refused =
            |record: &Value| record["verdict"] == "deny" && record["host"] == "registry.npmjs.org";
        assert!(records.iter().any(refused), "{kind:?}: {records:#?}");
        for reason in [
            "allowed.rule",
            "denied.default",
            "denied.host_gateway",
            "denied.address.metadata",
        ] {
            let found = records.iter().any(|record| record["reason"] == reason);
            assert!(found, "{kind:?}: {reason}: {records:#?}");
        }
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn a_server_over_http_answers_this_machine_and_no_web_page() {
    for kind in Kind::ALL {
        let world = world(kind);
        let before = world.engine_holds();
        let user = kind.user();
        let mut args = vec![
            "run",
            "--engine",
            kind.program(),
            "--detach",
            "--name",
            "everything",
        ];
        args.extend([
            "--transport",
            "streamable-http",
            "--target-port",
            "3001",
            "-p",
            "8931:3001",
        ]);
        args.extend(crate::world::images::TOOLS_MOUNTS);
        args.extend(SERVERS_MOUNT);
        args.extend(["mcp/everything", "streamableHttp"]);
        let started = world.egret(user, &args).ok();
        assert_eq!(started.stdout, "everything\n", "{kind:?}: {started:#?}");

        // Tried again while it starts; of several answers the last one counts.
        let post = |options: &str, body: &Value| {
            let answers = world.machine.sh(&format!(
                "curl -sS -i -m 20 --retry 40 --retry-delay 1 --retry-max-time 15 --retry-connrefused -X POST \
                 http://127.0.0.1:8931/mcp -H 'Content-Type: application/json' \
                 -H 'Accept: application/json, text/event-stream' {options} -d '{body}'"
            ));
            answers[answers.rfind("HTTP/1.1 ").unwrap_or_default()..].to_owned()
        };
        let request = |method: &str, params: &Value| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = post("", &request("initialize", &hello()));
        assert!(answer.starts_with("HTTP/1.1 200"), "{kind:?}: {answer}");
        let session = answer
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("mcp-session-id: ")
                    .map(str::to_owned)
            })
            .unwrap();
        let session = format!("-H 'Mcp-Session-Id: {}'", session.trim());
        let echo = request(
            "tools/call",
            &json!({"name": "echo", "arguments": {"message": "hello"}}),
        );
        for options in [
            "",
            "-H 'Host: localhost:8931'",
            "-H 'Host: everything:8931'",
            "-H 'Origin: http://localhost:3000'",
            "-H 'Origin: http://127.0.0.1:8931'",
        ] {
            let answer = post(&format!("{session} {options}"), &echo);
            assert!(
                answer.contains("Echo: hello"),
                "{kind:?}: {options}: {answer}"
            );
        }
        // A name of somebody's that leads here, and a page of theirs that says so.
        for options in [
            "-H 'Host: rebind.example.com'",
            "-H 'Host: rebind.example.com:8931'",
            "-H 'Host: 45.33.32.10:8931'",
            "-H 'Host: localhost.example.com'",
            "-H 'Origin: http://rebind.example.com'",
            "-H 'Origin: null'",
            "-H 'Origin: http://localhost.example.com:8931'",
            "-H 'Host: localhost' -H 'Origin: https://rebind.example.com'",
        ] {
            let answer = post(&format!("{session} {options}"), &echo);
            assert!(
                answer.starts_with("HTTP/1.1 403") && !answer.contains("Echo"),
                "{kind:?}: {options}: {answer}"
            );
        }
        // It is on loopback alone.
        let open = world.machine.sh("ss -Hltn 'sport = :8931'");
        assert!(open.lines().count() >= 1, "{kind:?}: {open}");
        for address in ["45.33.32.10", "192.168.7.2", "2a01:4f8:1:2::2"] {
            let there = std::net::SocketAddr::new(address.parse().unwrap(), 8931);
            let limit = std::time::Duration::from_secs(1);
            let reached = world
                .outside
                .in_network(move || std::net::TcpStream::connect_timeout(&there, limit).is_ok());
            assert!(!reached, "{kind:?}: {address}");
        }
        // A stream that is quiet for a while is not cut.
        let long = json!({"name": "trigger-long-running-operation", "arguments": {"duration": 3, "steps": 2}});
        let answer = post(&session, &request("tools/call", &long));
        assert!(answer.contains("completed"), "{kind:?}: {answer}");

        world.egret(user, &["stop", "everything"]).ok();
        world.egret(user, &["rm", "everything"]).ok();
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}
