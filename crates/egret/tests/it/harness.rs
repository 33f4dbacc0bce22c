//! The world itself: what the other tests take for granted.

use std::process::Command;
use std::time::Instant;

use crate::world::dns::Reply;
use crate::world::servers::{Service, pattern_digest};
use crate::world::{HOST_ADDRESSES, User, World, at};

/// Runs a script on the machine, without Egret.
fn plainly(world: &World, user: User, script: &str) -> String {
    let words = ["/bin/sh", "-c", script].map(str::to_owned);
    let output = world
        .machine
        .output(world.command_as(user, "/", &[], &words));
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_world_is_made_quickly_and_leaves_nothing() {
    let mounts = || {
        std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .count()
    };
    let before = mounts();
    let start = Instant::now();
    let world = World::new();
    assert!(start.elapsed().as_secs_f32() < 2.0, "{:?}", start.elapsed());
    assert_eq!(world.machine.processes(), Vec::<String>::new());
    drop(world);
    assert_eq!(mounts(), before);
}

#[test]
fn without_egret_everything_is_within_reach() {
    let world = World::new();
    world
        .dns
        .answer("www.example.com", &[at::PUBLIC])
        .answer("six.example.com", &[at::PUBLIC6]);
    let sink = world.serve_everywhere(7000, Service::Sink);
    world.serve("93.184.216.34:80", Service::Http);
    world.serve("[2606:2800:220:1:248:1893:25c8:1946]:80", Service::Http);
    world.serve("93.184.216.34:443", Service::Https(&["www.example.com"]));
    world.serve_on_machine(5432, Service::Http);
    for user in User::ALL {
        assert_eq!(
            plainly(&world, user, "curl -sS http://www.example.com/a"),
            "GET /a for www.example.com, 0 bytes\n"
        );
        assert_eq!(
            plainly(&world, user, "curl -sS http://six.example.com/"),
            "GET / for six.example.com, 0 bytes\n"
        );
        let answer = plainly(&world, user, "curl -sS https://www.example.com/b");
        assert_eq!(answer, "GET /b for www.example.com, 0 bytes\n");
        for address in HOST_ADDRESSES {
            let host = if address.contains(':') {
                format!("[{address}]")
            } else {
                address.into()
            };
            let answer = plainly(&world, user, &format!("curl -sS http://{host}:5432/"));
            assert!(answer.starts_with("GET /"), "{address}: {answer}");
        }
        for address in [
            at::PRIVATE,
            at::METADATA,
            "192.168.7.1",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
        ] {
            let before = world.server(sink, |sink| sink.connections());
            let script =
                "import socket,sys; socket.create_connection((sys.argv[1], 7000), 3).send(b'x')";
            let said = plainly(
                &world,
                user,
                &format!("/usr/bin/python3 -c \"{script}\" {address}"),
            );
            assert_eq!(said, "", "{address}");
            while world.server(sink, |sink| sink.connections()) == before {
                std::thread::yield_now();
            }
        }
    }
    let packets = world.packets();
    assert!(
        packets
            .iter()
            .any(|packet| packet.destination.to_string() == at::METADATA && packet.port == 7000)
    );
    assert!(
        packets
            .iter()
            .any(|packet| packet.payload.starts_with(b"GET /a HTTP"))
    );
    assert!(
        world
            .dns
            .queries()
            .iter()
            .any(|query| query.name == "www.example.com")
    );
}

#[test]
fn the_servers_do_what_the_tests_need() {
    let world = World::new();
    world.serve("93.184.216.34:80", Service::Http);
    let get = |path: &str| {
        plainly(
            &world,
            User::Alice,
            &format!("curl -sS http://93.184.216.34{path}"),
        )
    };
    assert_eq!(
        get("/bytes/3000000 | sha256sum").split(' ').next(),
        Some(pattern_digest(3_000_000).as_str())
    );
    assert_eq!(get("/chunked"), "one two three\n");
    assert_eq!(get("/events/2/5"), "data: event 0\n\ndata: event 1\n\n");
    assert_eq!(get("/ -d 12345"), "POST / for 93.184.216.34, 5 bytes\n");
    assert_eq!(
        get("/to//elsewhere -o /dev/null -w '%{http_code} %{redirect_url}'"),
        "302 http://93.184.216.34/elsewhere"
    );
}

#[test]
fn the_name_server_follows_its_script() {
    let world = World::new();
    world.dns.script(
        "turns.example.com",
        vec![
            Reply::records(&[at::PUBLIC]),
            Reply::records(&[at::PRIVATE]),
        ],
    );
    world.dns.cname("alias.example.com", "turns.example.com");
    world
        .dns
        .script("long.example.com", vec![Reply::Truncated(vec![])]);
    let resolve = |name: &str| {
        let script =
            "import socket,sys; print(socket.getaddrinfo(sys.argv[1], 1, socket.AF_INET)[0][4][0])";
        let said = plainly(
            &world,
            User::Root,
            &format!("/usr/bin/python3 -c \"{script}\" {name}"),
        );
        said.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(resolve("turns.example.com"), at::PUBLIC);
    assert_eq!(resolve("turns.example.com"), at::PRIVATE);
    assert_eq!(resolve("alias.example.com"), at::PUBLIC);
    assert!(
        resolve("nothing.example.com").contains("not known"),
        "{}",
        resolve("nothing.example.com")
    );
    assert!(
        resolve("long.example.com").contains("No address"),
        "{}",
        resolve("long.example.com")
    );
}

#[test]
fn what_is_left_behind_is_noticed() {
    let world = World::new();
    let before = world.belongings();
    assert_eq!(before, world.belongings());
    world
        .machine
        .sh("nohup sleep 1000 >/dev/null 2>&1 & touch /run/user/0/left");
    world.machine.sh("mkdir /tmp/m; mount -t tmpfs none /tmp/m");
    let new: Vec<_> = world
        .belongings()
        .into_iter()
        .filter(|thing| !before.contains(thing))
        .collect();
    for left in ["sleep 1000", "/run/user/0/left", "/tmp/m"] {
        assert!(
            new.iter().any(|thing| thing.contains(left)),
            "{left} is not among {new:#?}"
        );
    }
}

#[test]
fn the_machines_processes_die_with_it() {
    let world = World::new();
    let mut command = Command::new("sleep");
    command.arg("1000");
    let mut child = world.machine.spawn(command).unwrap();
    drop(world);
    assert!(!child.wait().unwrap().success());
}
