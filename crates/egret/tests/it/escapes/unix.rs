//! Class 10: unix sockets, whatever they are called and wherever they are.

use std::process::Child;

use crate::world::{User, World};

/// Listens at each of these names, given as Python writes bytes, for everybody on the machine.
fn listening(world: &World, names: &[&str]) -> Child {
    listening_in(world, User::Root, "/srv", names, "")
}

/// The same as a user, in a directory, with some Python more to run once it does.
fn listening_in(world: &World, user: User, directory: &str, names: &[&str], then: &str) -> Child {
    let script = format!(
        "
import os, socket, time
held = []
for name in [{}]:
    if name[0]: os.makedirs(os.path.dirname(name) or b'.', exist_ok=True)
    s = socket.socket(socket.AF_UNIX); s.bind(name); s.listen(); held.append(s)
    if name[0]: os.chmod(name, 0o777)
open('ready', 'w')
{then}
time.sleep(1000)
",
        names.join(", ")
    );
    let words = ["/usr/bin/python3".to_owned(), "-c".to_owned(), script];
    let mut server = world
        .machine
        .spawn(world.command_as(user, directory, &[], &words))
        .unwrap();
    let ready = world.machine.path(format!("{directory}/ready"));
    while !ready.exists() {
        assert!(server.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    server
}

/// Connects to each of these names, and prints `connected` or the error.
fn connecting(names: &[&str]) -> String {
    format!(
        "
import errno, socket
for name in [{}]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try: socket.socket(socket.AF_UNIX, kind).connect(name); print(name, 'connected')
        except OSError as error: print(name, errno.errorcode[error.errno])
",
        names.join(", ")
    )
}

#[track_caller]
fn none_is_reached(world: &World, user: User, args: &[&str], names: &[&str]) {
    let outcome = world
        .run_as(user)
        .args(args)
        .python(&connecting(names))
        .ok();
    assert_eq!(
        outcome.stdout.lines().count(),
        2 * names.len(),
        "{outcome:#?}"
    );
    for line in outcome.stdout.lines() {
        let refused = ["ENOENT", "ECONNREFUSED", "EACCES", "EPERM"]
            .iter()
            .any(|error| line.ends_with(error));
        assert!(refused, "{user:?} {args:?}: {line}: {outcome:#?}");
    }
}

#[test]
fn unix_sockets_in_directories_that_are_shown_are_out_of_reach() {
    let world = World::new();
    #[rustfmt::skip]
    let names = [
        "b'/srv/a/plain.sock'", "b'/srv/b/with a blank.sock'", "b'/srv/c/ before.sock'", "b'/srv/d/behind.sock '",
        "b'/srv/e/tab\\t.sock'", "b'/srv/f/two  blanks.sock'", "b'/srv/g/deep er/still deeper/x.sock'",
        "b'/home/alice/project/in the project.sock'", "b'/root/project/in the project.sock'",
        "b'/home/alice/agent.sock'", "b'/root/agent.sock'",
    ];
    let mut server = listening(&world, &names);
    let reached = std::process::Command::new("/usr/bin/python3");
    let mut plainly = reached;
    plainly.args(["-c", &connecting(&names)]);
    let reached = world.machine.output(plainly);
    assert_eq!(
        String::from_utf8_lossy(&reached.stdout)
            .matches(" connected")
            .count(),
        names.len(),
        "without Egret they are within reach: {reached:?}"
    );
    for user in User::ALL {
        none_is_reached(&world, user, &[], &names);
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn unix_sockets_that_were_bound_by_a_relative_path_are_out_of_reach() {
    for user in User::ALL {
        let world = World::new();
        let home = user.home();
        let bound = ["b'rel.sock'", "b'deep/er/rel.sock'", "b'../beside.sock'"];
        let elsewhere = format!("{home}/elsewhere");
        world
            .machine
            .sh(&format!("install -d -o {} {elsewhere}", user.id()));
        let left = format!("{home}/project");
        let mut servers = [
            listening_in(&world, user, &elsewhere, &bound, ""),
            // Where it was then is not where it is, but the sandbox is there.
            listening_in(
                &world,
                user,
                &left,
                &["b'left.sock'", "b'in/left.sock'"],
                "os.chdir('/')",
            ),
        ];
        let names = [
            format!("b'{elsewhere}/rel.sock'"),
            format!("b'{elsewhere}/deep/er/rel.sock'"),
            format!("b'{home}/beside.sock'"),
            format!("b'{left}/left.sock'"),
            format!("b'{left}/in/left.sock'"),
        ];
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        none_is_reached(&world, user, &[], &names);
        for server in &mut servers {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}

#[test]
fn unix_sockets_beneath_tmp_do_not_come_in_with_what_is_shown_there() {
    let world = World::new();
    let names = [
        "b'/tmp/shown/x.sock'",
        "b'/tmp/shown/deep/a b.sock'",
        "b'/var/tmp/egret-test-shown/x.sock'",
        "b'/run/shown/x.sock'",
    ];
    let mut server = listening(&world, &names);
    for user in User::ALL {
        for option in ["--read", "--write"] {
            let args = [
                option,
                "/tmp/shown",
                option,
                "/var/tmp/egret-test-shown",
                option,
                "/run/shown",
            ];
            none_is_reached(&world, user, &args, &names);
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
    world.machine.sh("rm -r /var/tmp/egret-test-shown");
}

#[test]
fn a_socket_whose_name_is_no_text_hides_no_other() {
    let world = World::new();
    let names = [
        "b'/srv/a/plain.sock'",
        "b'/srv/b/\\xff.sock'",
        "b'\\0\\xff\\xfe'",
        "b'\\0egret/0/\\xff'",
        "b'\\0egret/12345/\\xff'",
    ];
    let mut server = listening(&world, &names);
    for user in User::ALL {
        none_is_reached(&world, user, &[], &names);
        let live = world
            .run_as(user)
            .args(&["--name", "listed"])
            .start(&["/bin/cat"]);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !world.egret(user, &["ps"]).ok().stdout.contains("listed") {
            assert!(std::time::Instant::now() < end, "it is never listed");
        }
        live.finish().ok();
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
