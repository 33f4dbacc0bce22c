//! What a sandbox is told to be, by options, profiles and run configurations: what that opens, and what it must not open.

use super::{ROWS, furnished, transcript};
use crate::world::World;
use crate::world::engine::Kind;
use crate::world::servers::Service;

/// Writes a file where Egret is started.
#[track_caller]
fn write(world: &World, name: &str, text: &str) {
    let path = format!("{}/project/{name}", world.engine().user().home());
    world.machine.write(&path, text);
}

#[test]
fn without_isolation_an_image_runs_as_the_engine_would_run_it() {
    for kind in ROWS {
        let world = furnished(kind);
        world.serve_on_machine(9999, Service::Http);
        let before = world.engine_holds();
        write(&world, "p.yaml", "version: 1\nallow: [www.example.com]\n");
        write(&world, "write.json", r#"{"write": ["/home"]}"#);
        write(
            &world,
            "run.json",
            r#"{"version": 1, "image": "busybox", "name": "box", "isolate_network": false, "allow_docker_gateway": [5432],
            "command": ["sleep", "1000"]}"#,
        );
        let warnings =
            "egret: warning: --allow-docker-gateway does nothing without network isolation
egret: warning: what --policy says of the network does nothing without network isolation
egret: warning: --allow does nothing without network isolation
egret: warning: --deny does nothing without network isolation
egret: warning: --resolver does nothing without network isolation";
        let interfaces = |args: &[&str]| {
            world.docker(&[&["run", "--rm"], args, &["busybox", "ls", "/sys/class/net"]].concat())
        };
        let usual = interfaces(&[]);
        #[rustfmt::skip]
        let steps: &[_] = &[
            ("egret run --rm --isolate-network=false --allow a.example --deny b.example --allow-docker-gateway --policy p.yaml \
              --resolver 10.20.0.53 busybox ls /sys/class/net", 0, usual.trim_end(), warnings),
            ("egret run --rm --isolate-network=false busybox sh -c 'env | grep -ci proxy; grep NoNewPrivs /proc/self/status'", 0, "0\nNoNewPrivs:\t0", ""),
            ("egret run --rm --isolate-network=false busybox wget -q -O - http://45.33.32.10:9999/", 0, "GET / for 45.33.32.10:9999…", ""),
            ("egret run --rm --isolate-network=false --cap-add NET_ADMIN --security-opt seccomp=unconfined busybox sh -c 'grep Seccomp: /proc/self/status'", 0, "Seccomp:\t0", ""),
            ("egret run --rm --isolate-network=false --policy write.json busybox ls /home", 0, "alice",
             "egret: warning: what --policy says of the network does nothing without network isolation"),
            ("egret run -d --from-config run.json", 0, "box",
             "egret: warning: run.json switches network isolation off, and no policy is enforced\negret: warning: --allow-docker-gateway does nothing without network isolation"),
            ("egret ps | tail -n +2", 0, "box…busybox…none", ""),
            ("egret logs --audit box", 125, "", "egret: box runs without isolation, so that nothing is on record"),
            ("egret policy set box p.yaml", 125, "", "egret: box runs without isolation: no policy is enforced"),
            ("egret exec box true", 0, "", ""),
            ("egret restart -t 0 box", 0, "box", ""),
            ("egret export box | grep isolate", 0, "  \"isolate_network\": false,", ""),
        ];
        transcript(&world, steps);
        let mut with_it = before.clone();
        with_it.push("container box".into());
        let (mut holds, mut expected) = (world.engine_holds(), with_it);
        holds.sort();
        expected.sort();
        assert_eq!(holds, expected, "{kind:?}");
        transcript(&world, &[("egret rm -f box", 0, "box", "")]);
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn isolation_that_cannot_be_had_is_an_error_where_it_was_asked_for() {
    for kind in ROWS {
        let world = furnished(kind);
        world.serve_on_machine(9999, Service::Http);
        world.docker(&[
            "run", "--detach", "--name", "other", "busybox", "sleep", "1000",
        ]);
        world.docker(&["network", "create", "mine"]);
        let before = world.engine_holds();
        write(
            &world,
            "asked.json",
            r#"{"version": 1, "image": "busybox", "network": "host", "isolate_network": true}"#,
        );
        write(
            &world,
            "none.json",
            r#"{"version": 1, "image": "busybox", "network": "none", "policy": {"version": 1, "default": "deny", "filesystem": {"write": ["/run"]}}}"#,
        );
        write(&world, "privileged.json", r#"{"privileged": true}"#);
        let get = "busybox wget -q -O - http://45.33.32.10:9999/";
        let cannot = "the network of somebody else cannot be isolated; leave out --network, or add --isolate-network=false to run without isolation";
        let warned = |network: &str| {
            format!(
                "egret: warning: with --network {network} there is no network isolation, and no policy is enforced"
            )
        };
        #[rustfmt::skip]
        let steps: &[_] = &[
            (&*format!("egret run --rm --network host {get}"), 0, "GET / for 45.33.32.10:9999…", &*warned("host")),
            (&*format!("egret run --rm --network host --isolate-network {get}"), 125, "", &*format!("egret: --network host: {cannot}")),
            (&*format!("egret run --rm --net=host --isolate-network=true {get}"), 125, "", &*format!("egret: --network host: {cannot}")),
            ("egret run --rm --from-config asked.json", 125, "", &*format!("egret: --network host: {cannot}")),
            ("egret run --rm --network container:other busybox true", 0, "", &*warned("container:other")),
            ("egret run --rm --network container:other --isolate-network busybox true", 125, "", &*format!("egret: --network container:other: {cannot}")),
            ("egret run --rm --network name=host busybox true", 125, "", "egret: --network name=host: …"),
            (&*format!("egret run --rm --network none {get}"), 1, "", "wget: …"),
            ("egret run --rm --network none --isolate-network busybox sh -c 'ls /sys/class/net; grep NoNewPrivs /proc/self/status; ping -c 1 127.0.0.1'", 1, "lo\nNoNewPrivs:\t1…", "ping: …"),
            ("egret run --rm --network none --allow a.example busybox true", 0, "", "egret: warning: --allow does nothing without a network"),
            ("egret run --rm --network none --privileged busybox true", 125, "", "egret: --privileged: …"),
            ("egret run --rm --network none --policy privileged.json busybox true", 125, "", "egret: …privileged.json:1: …"),
            ("egret run --rm --from-config none.json", 125, "", "egret: -v …/run…: it shows the host's sockets…"),
            // Of a network of the user's own it is the gateway that has it.
            ("egret run -d --name box --network mine busybox sleep 100", 0, "box", ""),
            ("$EGRET_ENGINE inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}' box-egret-gateway", 0, "mine", ""),
            (&*format!("egret exec box {}", &get[8..]), 1, "", "wget: …403…"),
            ("egret rm -f box", 0, "box", ""),
        ];
        transcript(&world, steps);
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn what_would_open_the_seal_has_a_sentence_and_starts_nothing() {
    let world = furnished(Kind::Docker);
    world
        .machine
        .sh("ln -s /run/docker.sock /home/alice/project/link; mkdir /home/alice/project/shared");
    let before = world.engine_holds();
    #[rustfmt::skip]
    let table = [
        ("--privileged",                           "--privileged: a privileged container can undo its own isolation"),
        ("--cap-add NET_ADMIN",                    "--cap-add NET_ADMIN: with that capability…"),
        ("--cap-add cap_sys_admin",                "--cap-add cap_sys_admin: with that capability…"),
        ("--cap-add ALL",                          "--cap-add ALL: with that capability…"),
        ("--device /dev/net/tun",                  "--device /dev/net/tun: a device of the host…"),
        ("--security-opt seccomp=unconfined",      "--security-opt seccomp=unconfined: Egret sets what confines…"),
        ("--security-opt apparmor=unconfined",     "--security-opt apparmor=unconfined: Egret sets what confines…"),
        ("--volumes-from other",                   "--volumes-from other: …name each with -v"),
        ("--pid host",                             "--pid host: the container has to have processes of its own"),
        ("--pid container:other",                  "--pid container:other: …"),
        ("--ipc host",                             "--ipc host: …"),
        ("--uts host",                             "--uts host: …"),
        ("--userns host",                          "--userns host: …"),
        ("--cgroupns host",                        "--cgroupns host: …"),
        ("-v /run/docker.sock:/s",                 "-v /run/docker.sock:/s: who has the engine's socket has the host"),
        ("-v ./link:/s",                           "-v ./link:/s: …"),
        ("-v /:/host:ro",                          "-v /:/host:ro: it shows the host's sockets…"),
        ("-v /proc:/p",                            "-v /proc:/p: it shows the host's sockets…"),
        ("--mount TYPE=bind,SRC=/,DST=/h",         "--mount TYPE=bind,SRC=/,DST=/h: …"),
        ("--mount type=tmpfs,type=bind,src=/run,dst=/h", "--mount type=tmpfs,type=bind,src=/run,dst=/h: …"),
        ("-p 53:53/udp",                           "-p 53:53/udp: only TCP passes the gateway…"),
        ("-p 1-3:1-2",                             "-p 1-3:1-2: the two ranges of ports are not equally long"),
        ("--read /etc",                            "--read is about a command's sandbox; an image has its own files, and -v mounts others"),
        ("--hide /etc",                            "--hide is about a command's sandbox; …"),
        ("--allow-user-namespaces",                "--allow-user-namespaces is about a command's sandbox; …"),
        ("--transport sse",                        "--transport sse needs --target-port…"),
        ("--allow '*'",                            "…"),
        ("--policy /nowhere.yaml",                 "…/nowhere.yaml…"),
        ("--from-config /nowhere.json",            "cannot use the run configuration /nowhere.json…"),
    ];
    for (options, sentence) in table {
        let line = format!("egret run --rm {options} busybox touch shared/ran");
        let sentence = format!("egret: {sentence}…");
        transcript(&world, &[(&line, 125, "", &sentence)]);
    }
    // Several at once are told at once.
    transcript(
        &world,
        &[(
            "egret run --rm --privileged --pid host -v /:/h busybox true",
            125,
            "",
            "egret: --privileged: …\negret: --pid host: …\negret: -v /:/h: …\negret: none of this is for an isolated container; \
         --isolate-network=false runs the image without isolation",
        )],
    );
    assert_eq!(world.engine_holds(), before);
}

#[test]
fn the_files_of_a_profile_become_mounts_and_its_privileges_nothing() {
    for kind in ROWS {
        let world = furnished(kind);
        let home = kind.user().home();
        let id = kind.user().id();
        world.machine.sh(&format!("mkdir -p {home}/project/maps {home}/project/out; echo map > {home}/project/maps/one; chown -R {id}:{id} {home}/project"));
        let profile = format!(
            r#"{{"read": ["{home}/project/maps:/maps"], "write": ["{home}/project/out:/out"]"#
        );
        write(&world, "profile.json", &format!("{profile}}}"));
        write(
            &world,
            "privileged.json",
            &format!("{profile},\n \"privileged\": true}}"),
        );
        write(
            &world,
            "p.yaml",
            "version: 1\nfilesystem:\n  read: [./maps:/maps]\n  write: [./out:/out]\n",
        );
        let script = "cat /maps/one; touch /maps/two; echo made > /out/$0";
        let before = world.engine_holds();
        #[rustfmt::skip]
        let steps: &[_] = &[
            (&*format!("egret run --rm --policy p.yaml busybox sh -c '{script}' own"), 0, "map", "touch: /maps/two: Read-only file system"),
            (&*format!("egret run --rm --permission-profile profile.json busybox sh -c '{script}' thv"), 0, "map", "touch: /maps/two: Read-only file system"),
            ("cat out/own out/thv", 0, "made\nmade", ""),
            ("egret run --rm --permission-profile privileged.json busybox true", 125, "", "egret: …privileged.json:2…privileged…"),
            ("rm -r maps; egret run --rm --policy p.yaml busybox true", 125, "", "egret: …maps…"),
        ];
        transcript(&world, steps);
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn a_run_configuration_opens_only_what_it_says() {
    for kind in ROWS {
        let world = furnished(kind);
        let servers = [5432, 5433].map(|port| world.serve_on_machine(port, Service::Http));
        let host = match kind {
            Kind::Docker => "host.docker.internal",
            _ => "host.containers.internal",
        };
        let get = |port: u16| format!("wget -q -O - http://{host}:{port}/ || echo no");
        let config = |fields: &str| {
            format!(
                r#"{{"version": 1, "image": "busybox", "command": ["sh", "-c", "{}; {}"]{fields}}}"#,
                get(5432),
                get(5433)
            )
        };
        // What it adds, and how often each of the two ports is reached.
        #[rustfmt::skip]
        let table = [
            // As it was written before there was the field.
            ("",                                    [false, false]),
            (r#", "allow_docker_gateway": false"#,  [false, false]),
            (r#", "allow_docker_gateway": true"#,   [true, true]),
            (r#", "allow_docker_gateway": [5433]"#, [false, true]),
        ];
        for (fields, expected) in table {
            write(&world, "run.json", &config(fields));
            let before = servers.map(|server| world.server(server, |server| server.connections()));
            let outcome = world.typed("egret run --rm --from-config run.json").ok();
            let after = servers.map(|server| world.server(server, |server| server.connections()));
            let reached = [0, 1].map(|port: usize| after[port] > before[port]);
            assert_eq!(reached, expected, "{kind:?}: {fields}: {outcome:#?}");
            let said: Vec<_> = outcome.stdout.lines().map(|line| line != "no").collect();
            assert_eq!(said, expected, "{kind:?}: {fields}: {outcome:#?}");
        }
        if kind != Kind::Docker {
            continue;
        }
        let before = world.engine_holds();
        #[rustfmt::skip]
        let table = [
            (r#"{"image": "busybox"}"#,                                                 "…missing field `version`…"),
            (r#"{"version": 2, "image": "busybox"}"#,                                   "…version 2 is not one that this egret reads; it reads 1"),
            (r#"{"version": 1}"#,                                                       "…missing field `image`…"),
            (r#"{"version": 1, "image": "busybox", "alow": ["a.example"]}"#,            "…unknown field `alow`…"),
            (r#"{"version": 1, "image": "busybox", "allow": [], "allow": ["b.c"]}"#,    "…duplicate field `allow`…"),
            (r#"{"version": 1, "image": "busybox", "allow_docker_gateway": "yes"}"#,    "…allow_docker_gateway is true, false or a list of ports…"),
            (r#"{"version": 1, "image": "busybox", "allow_docker_gateway": [0]}"#,      "…"),
            (r#"{"version": 1, "image": "busybox", "policy": {"version": 1, "default": "deny", "default": "allow-public"}}"#, "…default…"),
            (r#"{"version": 1, "image": "busybox", "weakening": {"privileged": true}}"#, "egret: --privileged: …"),
            (r#"{"version": 1, "image": "--privileged"}"#,                              "egret: \"--privileged\" is no image"),
            ("not JSON",                                                                "…"),
        ];
        for (text, sentence) in table {
            write(&world, "run.json", text);
            let outcome = world.typed("egret run --rm --from-config run.json");
            let said = outcome.stderr.trim_end();
            assert!(
                outcome.code() == 125 && super::is_like(said, sentence),
                "{text}: not like {sentence}: {said}"
            );
        }
        assert_eq!(world.engine_holds(), before);
        // Also from standard input, with options on top.
        write(
            &world,
            "run.json",
            r#"{"version": 1, "image": "nothing", "command": ["false"], "env": ["A=1"]}"#,
        );
        transcript(
            &world,
            &[(
                "egret run --rm --from-config - -e B=2 busybox sh -c 'echo $A $B' < run.json",
                0,
                "1 2",
                "",
            )],
        );
    }
}

#[test]
fn the_engine_is_told_no_password() {
    for kind in ROWS {
        let world = furnished(kind);
        write(&world, "vars", "DB_PASSWORD=hunter2\n");
        let start = "API_KEY=hunter2 egret run -d --name box -e API_KEY -e TOKEN=hunter2 --upstream-proxy http://me:hunter2@10.20.0.7:3128 busybox sleep 1000";
        transcript(
            &world,
            &[
                (start, 0, "box", ""),
                ("egret export box | grep -c hunter2", 1, "0", "…"),
                (
                    "egret export box | grep -e API_KEY -e TOKEN -e upstream",
                    0,
                    "…\"API_KEY\",\n    \"TOKEN\"…\"http://10.20.0.7:3128\"…",
                    "…",
                ),
                ("egret inspect box | grep -c hunter2", 1, "0", ""),
                (
                    "egret exec box sh -c 'echo $API_KEY $TOKEN'",
                    0,
                    "hunter2 hunter2",
                    "",
                ),
            ],
        );
        for container in ["box", "box-egret-agent", "box-egret-gateway"] {
            let labels =
                world.docker(&["inspect", "--format", "{{json .Config.Labels}}", container]);
            assert!(
                !labels.contains("hunter2"),
                "{kind:?}: {container}: {labels}"
            );
        }
        for container in ["box-egret-agent", "box-egret-gateway"] {
            let all = world.docker(&["inspect", container]);
            assert!(!all.contains("hunter2"), "{kind:?}: {container}: {all}");
        }
        let processes = world.machine.processes();
        assert!(
            !processes.iter().any(|process| process.contains("hunter2")),
            "{kind:?}: {processes:#?}"
        );
    }
}
