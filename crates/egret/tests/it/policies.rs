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
