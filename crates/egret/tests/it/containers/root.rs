//! Who else a container sees, and what it is not shown: classes 5, 9, 10 and 12 of `docs/bypasses.md`.

use serde_json::json;

use super::world;
use crate::escapes::all_fail;
use crate::world::Place;
use crate::world::engine::Kind;
use crate::world::images::{TOOLS, TOOLS_MOUNTS};
use crate::world::probe::attempt;

#[test]
fn nobody_else_is_there() {
    for kind in Kind::ALL {
        let world = world(kind);
        let mut neighbour = world
            .run_container()
            .log(None)
            .args(&["--name", "neighbour"])
            .start(&[
                "/usr/bin/python3",
                "-c",
                "
import socket, sys
sock = socket.create_server(('', 9000))
abstract = socket.socket(socket.AF_UNIX)
abstract.bind('\\0meeting')
abstract.listen()
print('up', flush=True)
sys.stdin.read()
",
            ]);
        std::thread::sleep(std::time::Duration::from_secs(2));
        let attempts: Vec<_> = [
            "@meeting",
            "@egret/0/neighbour",
            "@egret/12345/neighbour",
            "@egret/65532/neighbour",
            "/egret/agent.sock",
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/docker/containerd/containerd.sock",
            "/run/podman/podman.sock",
            "/run/user/12345/podman/podman.sock",
            "/run/dbus/system_bus_socket",
        ]
        .map(|path| json!({"try": "unix", "path": path}))
        .to_vec();
        let script = "
for pid in os.listdir('/proc'):
    if pid.isdigit() and int(pid) != os.getpid():
        line = open('/proc/%s/cmdline' % pid).read()
        if 'egret' in line or 'sleep' in line or 'podman' in line: print('seen', repr(line))
for path in ['/egret', '/bin/egret', '/srv/bin']:
    print(path, attempt(lambda: os.listdir(path)))
print('environ', 'ok' if any('EGRET' in name for name in os.environ) else 'E')
";
        let (outcome, ends) = attempt(world.run_container(), &attempts);
        for (attempt, end) in attempts.iter().zip(&ends) {
            let gone = ["ENOENT", "ECONNREFUSED", "EACCES"].contains(&end["end"].as_str().unwrap());
            assert!(gone, "{kind:?}: {attempt}: {end}");
        }
        outcome.silent();
        all_fail(&world, Place::Container(kind), script, 4);
        assert!(
            neighbour.child.try_wait().unwrap().is_none(),
            "the neighbour was not there"
        );
        neighbour.stdin = None;
        assert!(neighbour.finish().ok().stdout.contains("up"));
    }
}

#[test]
fn what_is_secret_is_in_the_workload_alone() {
    for kind in Kind::ALL {
        let world = world(kind);
        let program = kind.program();
        let mut args = vec!["run", "--engine", program, "--detach", "--name", "keeper"];
        args.extend([
            "-e",
            "API_TOKEN=hunter2",
            "-e",
            "PASSWORD",
            "--allow",
            "www.example.com",
        ]);
        args.extend(TOOLS_MOUNTS);
        args.extend([TOOLS.name, "/bin/sleep", "1000"]);
        world.egret(kind.user(), &args).ok();
        for container in ["keeper-egret-agent", "keeper-egret-gateway"] {
            let shown = world.docker(&["inspect", container]);
            assert!(!shown.contains("hunter2"), "{kind:?}: {container}: {shown}");
            let said = world.try_docker(&["logs", container]);
            assert!(
                !String::from_utf8_lossy(&said.stdout).contains("hunter2"),
                "{kind:?}: {said:?}"
            );
        }
        let labels = world.docker(&["inspect", "--format", "{{json .Config.Labels}}", "keeper"]);
        assert!(
            labels.contains("API_TOKEN") && !labels.contains("hunter2"),
            "{kind:?}: {labels}"
        );
        let exported = world.egret(kind.user(), &["export", "keeper"]).ok();
        assert!(
            !exported.stdout.contains("hunter2"),
            "{kind:?}: {exported:#?}"
        );
        world.egret(kind.user(), &["rm", "--force", "keeper"]).ok();
    }
}
