//! Events against what OCSF's published schema says of them. `extract.py` has taken that out of it.

use super::*;
use std::collections::BTreeSet;
use std::sync::LazyLock;

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("schema.json")).unwrap());

/// What is wrong with a thing of this description, and with what is in it.
fn wrong(thing: &Value, description: &Value, place: &str, found: &mut Vec<String>) {
    let Some(fields) = thing.as_object() else {
        return found.push(format!("{place} is no object"));
    };
    let attributes = description["attributes"].as_object().unwrap();
    for (name, attribute) in attributes {
        if attribute["required"] == true && !fields.contains_key(name) {
            found.push(format!("{place}.{name} is missing"));
        }
    }
    for constraint in ["at_least_one", "just_one"] {
        if let Some(names) = description["constraints"][constraint].as_array() {
            let there = names
                .iter()
                .filter(|name| fields.contains_key(name.as_str().unwrap()))
                .count();
            if there == 0 || constraint == "just_one" && there > 1 {
                found.push(format!("{place} has {there} of {names:?}"));
            }
        }
    }
    for (name, value) in fields {
        let place = format!("{place}.{name}");
        let Some(attribute) = attributes.get(name) else {
            // Anything may be in what has no schema.
            if !attributes.is_empty() {
                found.push(format!("{place} is not in the schema"));
            }
            continue;
        };
        let values = match (attribute["array"] == true, value) {
            (true, Value::Array(values)) => values.iter().collect(),
            (false, value) if !value.is_array() => vec![value],
            _ => {
                found.push(format!("{place} is a list, or should be one"));
                continue;
            }
        };
        for value in values {
            wrong_value(value, attribute, &place, found);
        }
    }
}

fn wrong_value(value: &Value, attribute: &Value, place: &str, found: &mut Vec<String>) {
    let fits = match attribute["base"].as_str().unwrap() {
        "object" => {
            let name = attribute["object"].as_str().unwrap();
            match SCHEMA["objects"].get(name) {
                Some(description) => wrong(value, description, place, found),
                None => found.push(format!(
                    "{place} is a {name}, of which the extract has nothing"
                )),
            }
            true
        }
        "string_t" => value.is_string(),
        "integer_t" | "long_t" => value.is_i64() || value.is_u64(),
        "boolean_t" => value.is_boolean(),
        "json_t" => true,
        other => panic!("{other}"),
    };
    if !fits {
        found.push(format!("{place} is {value}"));
    }
    if let Some(known) = attribute["enum"].as_array() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if !known.contains(&json!(text)) {
            found.push(format!("{place} is {text}, which is none of {known:?}"));
        }
    }
}

/// The event of a record, which is as the schema has it.
#[track_caller]
fn checked(record: &str) -> Value {
    let record = format!(
        r#"{{"v":1,"time":"2026-11-22T09:30:00.250000Z","id":"k3x9qf-1","sandbox":"box",{record}}}"#
    );
    let event = event(&serde_json::from_str(&record).unwrap());
    let class = event["class_uid"].as_u64().unwrap();
    let classes = SCHEMA["classes"].as_object().unwrap().values();
    let uid = |class: &&Value| {
        class["category"].as_u64().unwrap() * 1000 + class["uid"].as_u64().unwrap()
    };
    let description = classes
        .clone()
        .find(|described| uid(described) == class)
        .unwrap();
    let mut found = Vec::new();
    wrong(&event, description, "event", &mut found);
    assert!(found.is_empty(), "{found:#?} {event:#}");
    assert_eq!(event["category_uid"], description["category"]);
    assert_eq!(
        event["type_uid"],
        json!(class * 100 + event["activity_id"].as_u64().unwrap())
    );
    assert_eq!(event["metadata"]["version"], SCHEMA["version"]);
    assert_eq!(event["time"], 1_795_339_800_250_i64);
    event
}

#[test]
fn every_kind_of_record_is_an_event_of_the_schema() {
    let to = r#""host":"api.example.com","port":443"#;
    #[rustfmt::skip]
    let table = [
        (400101, format!(r#""event":"decision","verdict":"allow","reason":"allowed.rule","rule":"p.yaml:4","note":"n",{to},"addresses":["140.82.121.6"],"dialled":"140.82.121.6:443","door":"captured","executable":"/usr/bin/curl","ancestors":["/bin/sh"]"#)),
        (400104, format!(r#""event":"decision","verdict":"allow","reason":"allowed.rule",{to},"door":"connect","message":"m""#)),
        (400105, format!(r#""event":"decision","verdict":"deny","reason":"denied.default",{to},"door":"socks","message":"m","hint":"--allow x""#)),
        (400105, r#""event":"decision","verdict":"deny","reason":"denied.malformed","door":"connect","message":"m""#.into()),
        (400105, r#""event":"decision","verdict":"deny","reason":"denied.literal_address","host":"2606:4700::1","port":443,"door":"captured","message":"m""#.into()),
        (400105, r#""event":"decision","verdict":"deny","reason":"denied.protocol","host":"1.1.1.1","door":"packet","message":"icmp""#.into()),
        (400105, format!(r#""event":"decision","verdict":"deny","reason":"denied.limit","limit":"connections",{to},"door":"connect","message":"m""#)),
        (400101, r#""event":"decision","verdict":"allow","reason":"allowed.published","host":"localhost","port":8000,"door":"published","peer":"127.0.0.1:5000","dialled":"127.0.0.1:8000""#.into()),
        (400203, format!(r#""event":"decision","verdict":"allow","reason":"allowed.rule",{to},"door":"forward","method":"GET","path":"/a","dialled":"140.82.121.6:80""#)),
        (400207, format!(r#""event":"decision","verdict":"deny","reason":"denied.request",{to},"door":"forward","method":"PUT","path":"/a","message":"m""#)),
        (400299, format!(r#""event":"decision","verdict":"deny","reason":"denied.request",{to},"door":"forward","method":"PROPFIND","path":"/a","message":"m""#)),
        (400102, format!(r#""event":"close",{to},"door":"captured","bytes_up":18,"bytes_down":40,"duration_ms":1500"#)),
        (400103, format!(r#""event":"close",{to},"door":"captured","bytes_up":0,"bytes_down":0,"duration_ms":0,"reason":"denied.default""#)),
        (400102, r#""event":"close","host":"localhost","port":8000,"door":"published","bytes_up":18,"bytes_down":40,"duration_ms":2"#.into()),
        (400301, r#""event":"dns","verdict":"deny","reason":"denied.default","host":"evil.test","query":"TXT","door":"dns","message":"m""#.into()),
        (400301, r#""event":"dns","verdict":"deny","reason":"denied.limit","limit":"dns_rate","host":"evil.test","query":"A","door":"dns","message":"m""#.into()),
        (400301, format!(r#""event":"dns","verdict":"allow","reason":"allowed.rule",{to},"door":"connect""#)),
        (200401, r#""event":"finding","action":"refusal_flood","reason":"denied.limit","limit":"refusal_records","count":7,"message":"m""#.into()),
        (200401, format!(r#""event":"question","action":"asked","reason":"denied.default",{to},"executable":"/usr/bin/curl","message":"m""#)),
        (200403, format!(r#""event":"question","action":"once","reason":"denied.default",{to},"message":"m""#)),
        (600206, r#""event":"policy","action":"loaded","message":"p.yaml","policy":{"file":"p.yaml","text":"version: 1","allow":["x"],"host":["172.17.0.1"]}"#.into()),
        (600208, r#""event":"policy","action":"replaced","message":"options","policy":{"host":["172.17.0.1"]}"#.into()),
        (600208, r#""event":"policy","action":"rejected","message":"m""#.into()),
        (600203, r#""event":"lifecycle","action":"started","message":"curl""#.into()),
        (600204, r#""event":"lifecycle","action":"ended","message":"""#.into()),
        (600299, r#""event":"lifecycle","action":"something_new""#.into()),
    ];
    for (kind, record) in &table {
        let event = checked(record);
        assert_eq!(event["type_uid"], *kind, "{event:#}");
    }
    let kinds: BTreeSet<_> = table.iter().map(|(kind, _)| kind / 100).collect();
    assert_eq!(kinds.len(), SCHEMA["classes"].as_object().unwrap().len());
}

#[test]
fn an_event_says_what_the_record_says() {
    let event = checked(
        r#""event":"close","host":"api.example.com","port":443,"door":"captured","bytes_up":18,"bytes_down":40,"duration_ms":1500"#,
    );
    assert_eq!(
        event["traffic"],
        json!({"bytes": 58, "bytes_out": 18, "bytes_in": 40})
    );
    assert_eq!(event["start_time"], 1_795_339_798_750_i64);
    assert_eq!(event["src_endpoint"]["name"], "box");
    assert_eq!(
        event["dst_endpoint"],
        json!({"hostname": "api.example.com", "port": 443})
    );
    assert_eq!(event["metadata"]["correlation_uid"], "k3x9qf-1");
    let event = checked(
        r#""event":"decision","verdict":"deny","reason":"denied.name_mismatch","host":"evil.test","port":8000,"door":"published","peer":"10.0.0.9:5000","message":"m""#,
    );
    assert_eq!(
        event["src_endpoint"],
        json!({"ip": "10.0.0.9", "port": 5000})
    );
    assert_eq!(
        event["dst_endpoint"],
        json!({"name": "box", "hostname": "evil.test", "port": 8000})
    );
    assert_eq!(event["connection_info"]["direction_id"], 1);
    assert_eq!(
        (
            &event["action_id"],
            &event["disposition_id"],
            &event["status_id"]
        ),
        (&json!(2), &json!(2), &json!(2))
    );
    let event = checked(
        r#""event":"dns","verdict":"deny","reason":"denied.default","rule":"p.yaml:3","host":"evil.test","query":"TXT","door":"dns","message":"m""#,
    );
    assert_eq!(
        event["query"],
        json!({"hostname": "evil.test", "type": "TXT"})
    );
    assert_eq!(
        (&event["rcode_id"], &event["firewall_rule"]["name"]),
        (&json!(3), &json!("p.yaml:3"))
    );
    // A policy's text is its own affair.
    let event = checked(
        r#""event":"policy","action":"loaded","policy":{"file":"p.yaml","text":"secret","host":["172.17.0.1"]}"#,
    );
    assert!(!event.to_string().contains("secret"));
}

#[test]
fn what_is_wrong_is_found() {
    let network = &SCHEMA["classes"]["network_activity"];
    let good = json!({
        "activity_id": 1, "category_uid": 4, "class_uid": 4001, "type_uid": 400101, "time": 1, "severity_id": 1,
        "metadata": {"version": "1.8.0", "product": {"name": "x"}}, "dst_endpoint": {"ip": "1.1.1.1"},
    });
    let check = |change: Value| {
        let mut event = good.clone();
        for (name, value) in change.as_object().unwrap() {
            event[name] = value.clone();
        }
        let mut found = Vec::new();
        wrong(&event, network, "event", &mut found);
        found.len()
    };
    assert_eq!(check(json!({})), 0);
    for change in [
        json!({"activity_id": 8}),
        json!({"activity_id": "1"}),
        json!({"time": "2026"}),
        json!({"metadata": {"version": "1.8.0"}}),
        json!({"metadata": {"version": "1.8.0", "product": {}}}),
        json!({"dst_endpoint": {"port": 1}}),
        json!({"dst_endpoint": []}),
        json!({"verdict": "deny"}),
        json!({"firewall_rule": {"name": "x", "line": 3}}),
    ] {
        assert_eq!(check(change.clone()), 1, "{change}");
    }
}
