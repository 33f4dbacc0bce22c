//! Class 9, its part about standard input, output and error: a program gets no descriptor that leads out.

use super::CALLS;
use crate::world::terminal::Terminal;
use crate::world::{User, World};

/// Puts something of a kind in place of descriptor NUMBER, and becomes the command: `KIND NUMBER COMMAND…`.
const IN_PLACE_OF: &str = "
import os, socket, stat, sys
kind, number, *command = sys.argv[1:]
def unix(name): s = socket.socket(socket.AF_UNIX, name); held.append(s); return s
def bound(s): s.bind('\\0a-listener'); s.listen(); return s
listener = socket.create_server(('127.0.0.1', 0))
listener.set_inheritable(True)
held = []
made = {
    'TCP connection': lambda: socket.create_connection(listener.getsockname()),
    'TCP, not connected': lambda: socket.socket(),
    'TCP listener': lambda: listener,
    'UDP': lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    'UDP6': lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    'netlink': lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    'unix, not connected': lambda: unix(socket.SOCK_STREAM),
    'unix listener': lambda: bound(unix(socket.SOCK_STREAM)),
    'unix datagrams': lambda: unix(socket.SOCK_DGRAM),
    'pair of datagrams': lambda: held.extend(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)) or held[0],
    'directory': lambda: os.open('/', os.O_RDONLY),
    'home directory': lambda: os.open(os.environ['HOME'], os.O_RDONLY),
    'path of a directory': lambda: os.open('/', os.O_PATH),
    'path of a file': lambda: os.open('/etc/passwd', os.O_PATH),
    'block device': lambda: os.open('/srv/block', os.O_RDONLY),
    'epoll': lambda: __import__('select').epoll(),
}[kind]()
os.dup2(made if isinstance(made, int) else made.fileno(), int(number))
os.execvp(command[0], command)
";

#[test]
fn what_leads_out_is_not_let_in_as_standard_input_output_or_error() {
    let world = World::new();
    // Opened by the root of the machine only, and where the kernel knows loop devices.
    let loops = std::fs::read_to_string("/proc/devices").unwrap();
    let root_only = loops.contains(" loop\n").then(|| {
        world.machine.sh("mknod -m 600 /srv/block b 7 0");
        "block device"
    });
    #[rustfmt::skip]
    let kinds = [
        "TCP connection", "TCP, not connected", "TCP listener", "UDP", "UDP6", "netlink",
        "unix, not connected", "unix listener", "unix datagrams", "pair of datagrams",
        "directory", "home directory", "path of a directory", "path of a file", "epoll",
    ];
    for user in User::ALL {
        let kinds = kinds
            .into_iter()
            .chain(root_only.filter(|_| user == User::Root));
        for kind in kinds {
            for (number, name) in [
                ("0", "standard input"),
                ("1", "standard output"),
                ("2", "standard error"),
            ] {
                let through = ["/usr/bin/python3", "-c", IN_PLACE_OF, kind, number];
                let outcome = world.run_as(user).through(&through).client("echo RAN >&2");
                let shown = format!("{user:?}: {kind} as {name}: {outcome:#?}");
                assert_eq!(outcome.code(), 125, "{shown}");
                assert!(!outcome.stderr.contains("RAN"), "{shown}");
                assert_eq!(outcome.records, Vec::<serde_json::Value>::new(), "{shown}");
                if number != "2" {
                    assert!(
                        outcome.stderr.contains(name)
                            && outcome.stderr.contains("way out of the sandbox")
                            && outcome.stderr.lines().count() == 1,
                        "{shown}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_connected_unix_stream_serves_as_standard_input_and_output() {
    // As editors and supervisors start what they talk to.
    let pair = "
import socket, subprocess, sys
ours, its = socket.socketpair(socket.AF_UNIX, getattr(socket, sys.argv[1]))
program = subprocess.Popen(sys.argv[2:], stdin=its, stdout=its)
its.close()
for word in (b'one\\n', b'two\\n'):
    ours.send(word)
    print(ours.recv(100).decode(), end='', flush=True)
ours.shutdown(socket.SHUT_WR)
sys.exit(program.wait())
";
    let world = World::new();
    for user in User::ALL {
        for kind in ["SOCK_STREAM", "SOCK_SEQPACKET"] {
            let run = world
                .run_as(user)
                .through(&["/usr/bin/python3", "-c", pair, kind]);
            let program = "
import os, sys
while said := os.read(0, 100): os.write(1, b'got ' + said)
sys.exit(7)
";
            let outcome = run.python(program);
            assert_eq!(
                (outcome.code(), outcome.stdout.as_str()),
                (7, "got one\ngot two\n"),
                "{user:?} {kind}: {outcome:#?}"
            );
        }
    }
}

#[test]
fn standard_output_and_error_can_be_opened_by_name() {
    let world = World::new();
    let script = "echo one > /dev/stdout; echo two > /dev/stderr; echo three > /proc/self/fd/1";
    for user in User::ALL {
        // Pipes of the user's own: those of this test are root's.
        let pipes = "{ \"$@\" 2>&1 >&3 | cat >&2; } 3>&1 | cat";
        let outcome = world
            .run_as(user)
            .through(&["/bin/sh", "-c", pipes, "sh"])
            .client(script)
            .ok();
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            ("one\nthree\n", "two\n"),
            "{user:?}: {outcome:#?}"
        );

        // A file, in a place where the program could not make one itself. `>` empties it each time, as it does without Egret.
        let files = "exec \"$@\" > ~/out 2> ~/errors";
        let outcome = world
            .run_as(user)
            .through(&["/bin/sh", "-c", files, "sh"])
            .client(script)
            .ok();
        let home = user.home();
        assert_eq!(
            world.machine.read(&format!("{home}/out")),
            "three\n",
            "{outcome:#?}"
        );
        assert_eq!(
            world.machine.read(&format!("{home}/errors")),
            "two\n",
            "{outcome:#?}"
        );

        let run = world.run_as(user).log(None);
        let mut terminal = Terminal::start(
            &world,
            user,
            &run.command(&["/bin/sh", "-c", &format!("{script}; echo four > /dev/tty")]),
        );
        for word in ["one", "two", "three", "four"] {
            terminal.expect(word);
        }
        assert_eq!(terminal.end(), Some(0));
    }
}

#[test]
fn a_file_that_was_opened_for_reading_cannot_be_written() {
    let world = World::new();
    for user in User::ALL {
        let home = user.home();
        crate::files::put(&world, user, &format!("{home}/given"), "as it was");
        let script = format!(
            "{CALLS}
for path in ['/dev/stdin', '/proc/self/fd/0']:
    for flags in [os.O_WRONLY, os.O_RDWR | os.O_TRUNC]:
        print(path, attempt(lambda: os.open(path, flags)))
print('write', attempt(lambda: os.write(0, b'x')))
print('truncate', attempt(lambda: os.truncate('/proc/self/fd/0', 0)))
"
        );
        let run = world
            .run_as(user)
            .through(&["/bin/sh", "-c", "exec \"$@\" < ~/given", "sh"]);
        let outcome = run.python(&script).ok();
        assert_eq!(outcome.stdout.lines().count(), 6, "{outcome:#?}");
        for line in outcome.stdout.lines() {
            let result = line.rsplit(' ').next().unwrap();
            assert!(result.starts_with('E'), "{user:?}: {line}: {outcome:#?}");
        }
        assert_eq!(world.machine.read(&format!("{home}/given")), "as it was");
    }
}
