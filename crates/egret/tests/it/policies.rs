//! The commands that check, test, convert and format policies, as their users meet them.

use serde_json::Value;

use crate::world::{User, World};

const UGLY: &str =
    "allow: ['a.example.com',   \"*.b.example.com\"] # what may be reached\nversion: 1\n";
const FORMATTED: &str =
    "version: 1\nallow: [a.example.com, \"*.b.example.com\"]  # what may be reached\n";

#[test]
fn fmt_changes_files_in_place() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        let (id, file) = (user.id(), format!("{home}/p.yaml"));
        world.machine.write(&file, UGLY);
        world.machine.sh(&format!(
            "chown {id}:{id} {file}; chmod 640 {file}; ln -sf p.yaml {home}/link.yaml"
        ));
        let link = format!("{home}/link.yaml");

        let checked = world.egret(user, &["policy", "fmt", "--check", &link]);
        assert_eq!(checked.code(), 1, "{checked:#?}");
        assert_eq!(checked.stdout, format!("{link}: not formatted\n"));
        assert_eq!(world.machine.read(&file), UGLY);

        let done = world.egret(user, &["policy", "fmt", &link]).ok();
        assert_eq!(done.stdout, format!("{link}: formatted\n"));
        assert_eq!(world.machine.read(&file), FORMATTED);
        let stat = world
            .machine
            .sh(&format!("stat -c '%a %u' {file}; readlink {link}"));
        assert_eq!(stat, format!("640 {id}\np.yaml\n"));

        let again = world
            .egret(user, &["policy", "fmt", "--output", "json", &link])
            .ok();
        let said: Value = serde_json::from_str(&again.stdout).unwrap();
        assert_eq!(said["files"][0]["changed"], false);
        assert_eq!(
            world
                .egret(user, &["policy", "fmt", "--check", &file])
                .code(),
            0
        );
    }
}

#[test]
fn what_fmt_cannot_write_or_read_stays_as_it_is() {
    let world = World::new();
    // Somebody else's file: the new one could not be theirs.
    let file = "/home/alice/roots.yaml";
    world.machine.write(file, UGLY);
    world
        .machine
        .write("/home/alice/broken.yaml", "version: 1\nalow: [a.b]\n");
    let files = |world: &World| world.machine.sh("ls -A /home/alice");
    let before = files(&world);
    for (path, says) in [
        (file, "cannot write"),
        ("/home/alice/broken.yaml", "did you mean `allow`?"),
        ("/nowhere.yaml", "cannot read /nowhere.yaml"),
        ("/home/alice", "cannot format /home/alice"),
    ] {
        let outcome = world.egret(User::Alice, &["policy", "fmt", path]);
        assert_eq!(outcome.code(), 2, "{path}: {outcome:#?}");
        assert!(outcome.stderr.contains(says), "{path}: {outcome:#?}");
    }
    assert_eq!(world.machine.read(file), UGLY);
    assert_eq!(files(&world), before);
}

#[test]
fn convert_prints_a_policy_that_decides_the_same() {
    let world = World::new();
    let user = User::Alice;
    let profile = r#"{"network": {"outbound": {"allow_host": ["api.github.com", ".example.com"], "allow_port": [443]}}}"#;
    world.machine.write("/srv/profile.json", profile);
    let converted = world
        .egret(user, &["policy", "convert", "/srv/profile.json"])
        .ok();
    assert!(
        converted
            .stdout
            .starts_with("# Converted from /srv/profile.json"),
        "{converted:#?}"
    );
    world
        .machine
        .write("/srv/converted.yaml", &converted.stdout);
    for (destination, code) in [
        ("api.github.com:443", 0),
        ("api.github.com:80", 1),
        ("www.example.com:443", 0),
        ("example.org:443", 1),
    ] {
        for file in ["/srv/profile.json", "/srv/converted.yaml"] {
            let explained = world.egret(user, &["policy", "explain", file, destination]);
            assert_eq!(
                explained.code(),
                code,
                "{file} {destination}: {explained:#?}"
            );
        }
    }
    let checked = world.egret(user, &["policy", "fmt", "--check", "/srv/converted.yaml"]);
    assert_eq!(checked.code(), 0, "{checked:#?}");
    let refused = world.egret(user, &["policy", "fmt", "/srv/profile.json"]);
    assert_eq!(refused.code(), 2);
    assert!(
        refused.stderr.contains("egret policy convert"),
        "{refused:#?}"
    );

    let json = world
        .egret(
            user,
            &["policy", "convert", "--output", "json", "/srv/profile.json"],
        )
        .ok();
    let said: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&said["policy"], &said["language"]),
        (&converted.stdout.into(), &"toolhive".into())
    );
    assert!(said["notes"].is_array());
    assert_eq!(
        world.egret(user, &["policy", "convert", "/nowhere"]).code(),
        2
    );
}

#[test]
fn a_service_of_a_policy_is_chosen_by_its_name() {
    let world = World::new();
    let acl = "version: v1\nservices:\n  - {name: one, action: enforce, allowed_domains: [one.example.com]}\n  - {name: two, action: enforce, allowed_domains: [two.example.com]}\ndefault: {action: enforce, allowed_domains: [other.example.com]}\n";
    world.machine.write("/srv/acl.yaml", acl);
    for (file, host) in [
        ("/srv/acl.yaml#one", "one.example.com"),
        ("/srv/acl.yaml#two", "two.example.com"),
        ("/srv/acl.yaml", "other.example.com"),
    ] {
        let converted = world.egret(User::Root, &["policy", "convert", file]).ok();
        assert!(converted.stdout.contains(host), "{file}: {converted:#?}");
        assert_eq!(
            converted.stdout.matches(".example.com").count(),
            1,
            "{file}: {converted:#?}"
        );
        assert_eq!(
            world
                .egret(User::Root, &["policy", "explain", file, host])
                .code(),
            0
        );
    }
}

#[test]
fn the_schema_is_printed() {
    let world = World::new();
    for args in [
        &["policy", "schema"][..],
        &["policy", "schema", "--output", "json"],
    ] {
        let printed = world.egret(User::Alice, args).ok();
        let schema: Value = serde_json::from_str(&printed.stdout).unwrap();
        assert_eq!(schema["title"], "Egret policy, version 1");
    }
}
