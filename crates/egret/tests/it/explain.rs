//! What is on record is explained, and by nothing else than the record: policies, programs and addresses of then.

use serde_json::Value;

use crate::world::servers::Service;
use crate::world::{User, World, at};

const POLICY: &str = "version: 1
allow:
  - www.example.com:80
  - {host: only.example.com, ports: [80], by: [/usr/bin/wget]}
  - {host: some.example.com, ports: [80], http: [GET /a/**]}
  - private.example.com:80
  - host.example.com:80
deny: [bad.example.com]
";

/// Requests by several doors, each of which leaves a record.
const REQUESTS: &str = "
get() { curl -s -o /dev/null -m 5 \"$@\"; }
get http://www.example.com/
get --noproxy '*' http://www.example.com/
get -p http://www.example.com/
get http://only.example.com/
wget -q -O /dev/null http://only.example.com/
get http://some.example.com/a/b
get http://some.example.com/b
get http://private.example.com/
get http://host.example.com/
get http://bad.example.com/
get --noproxy '*' http://other.example.com/
get http://127.0.0.1:9/ --proxy http://127.0.0.1:3128
get http://169.254.169.254/
get http://93.184.216.34/
get -p http://www.example.com:81/
get http://flag.example.com/
true";

fn explained(world: &World, user: User, id: &str) -> (i32, Value) {
    let outcome = world.egret(user, &["explain", "--id", id, "--output", "json"]);
    let value = serde_json::from_str(&outcome.stdout);
    (
        outcome.code(),
        value.unwrap_or_else(|_| panic!("{outcome:#?}")),
    )
}

#[test]
fn every_decision_on_record_comes_out_the_same_once_more() {
    let world = World::new();
    for name in ["www", "only", "some", "bad", "other", "flag"] {
        world
            .dns
            .answer(&format!("{name}.example.com"), &[at::PUBLIC]);
    }
    world.dns.answer("private.example.com", &["10.20.0.77"]);
    world
        .dns
        .answer("host.example.com", &[crate::world::HOST_ADDRESSES[0]]);
    world.serve("93.184.216.34:80", Service::Http);
    for user in User::ALL {
        let run = world.run_as(user).log(None).policy(POLICY).args(&[
            "--name",
            "told",
            "--deny",
            "flag.example.com",
        ]);
        run.client(REQUESTS).ok();
        // What is in the file now is not what decided then.
        let file = format!("{}/policy.yaml", user.home());
        world.machine.write(&file, "version: 1\nallow: ['**']\n");
        let log = world
            .egret(user, &["logs", "told", "--output", "json"])
            .ok()
            .stdout;
        let records: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let ocsf = ["logs", "told", "--output", "ocsf"];
        let events = world.egret(user, &ocsf).ok().stdout;
        let classes: Vec<Value> = events
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["class_uid"].clone())
            .collect();
        assert_eq!(classes.len(), records.len());
        for class in [4001, 4002, 4003, 6002] {
            assert!(classes.contains(&class.into()), "{events}");
        }
        let decisions: Vec<_> = records
            .iter()
            .filter(|record| matches!(record["event"].as_str(), Some("decision" | "dns")))
            .collect();
        // One that cannot be read is no reason not to look at the others.
        let logs = format!("{}/.local/state/egret/logs", user.home());
        world
            .machine
            .sh(&format!("mkdir {logs}/junk-20261121T213000Z.jsonl"));
        let mut reasons = std::collections::BTreeSet::new();
        for record in &decisions {
            let id = record["id"].as_str().unwrap();
            let (code, value) = explained(&world, user, id);
            assert_eq!(value["difference"], Value::Null, "{record:#} {value:#}");
            let decisive = value["records"].as_array().unwrap();
            assert!(decisive.contains(record), "{value:#}");
            // A DNS lookup that was allowed has the id of the decision behind it.
            let refused = decisive.iter().any(|record| record["verdict"] == "deny");
            assert_eq!(code, i32::from(refused), "{value:#}");
            assert_eq!(value["verdict"] == "deny", refused, "{value:#}");
            assert_eq!(in_words(&value["rule"]), last_rule(decisive), "{value:#}");
            reasons.extend(record["reason"].as_str());
        }
        for reason in [
            "allowed.rule",
            "denied.executable",
            "denied.request",
            "denied.address.private",
            "denied.address.host",
            "denied.rule",
            "denied.default",
            "denied.address.metadata",
            "denied.literal_address",
            "denied.port",
        ] {
            assert!(reasons.contains(reason), "{reason}: {decisions:#?}");
        }
        let refused = decisions
            .iter()
            .find(|record| record["reason"] == "denied.default");
        let id = refused.unwrap()["id"].as_str().unwrap();
        let text = world.egret(user, &["explain", "--id", id]);
        assert_eq!(text.code(), 1, "{text:#?}");
        for part in ["other.example.com", "To allow it: ", &file] {
            assert!(text.stdout.contains(part), "{part}: {text:#?}");
        }
        let now = world.egret(
            user,
            &["explain", "bad.example.com:80", "--sandbox", "told"],
        );
        assert_eq!(now.code(), 1, "{now:#?}");
        assert!(
            now.stdout.contains("(denied.rule)") && now.stdout.contains("Lately"),
            "{now:#?}"
        );
        for (args, says) in [
            (&["--id", "aaaaaa-1"][..], "has the id aaaaaa-1"),
            (
                &["--id", id, "--file", "/nowhere"],
                "cannot read the audit log",
            ),
            (&["x", "--sandbox", "nobody"], "no sandbox named nobody"),
        ] {
            let outcome = world.egret(user, &[&["explain"], args].concat());
            assert_ne!(outcome.code(), 0, "{outcome:#?}");
            assert!(outcome.stderr.contains(says), "{outcome:#?}");
        }
    }
}

/// An entry as records name it.
fn in_words(rule: &Value) -> Value {
    match (rule["file"].as_str(), rule["line"].as_u64()) {
        (Some(file), Some(line @ 1..)) => format!("{file}:{line}").into(),
        (Some(flag), _) => flag.into(),
        (None, _) => Value::Null,
    }
}

/// The entry that decided, by the last record that says one.
fn last_rule(records: &[Value]) -> Value {
    let decisive = records
        .iter()
        .rev()
        .find(|record| record["verdict"] == "deny");
    let record = decisive.or(records
        .iter()
        .rev()
        .find(|record| record["event"] == "decision"));
    record.map_or(Value::Null, |record| record["rule"].clone())
}
