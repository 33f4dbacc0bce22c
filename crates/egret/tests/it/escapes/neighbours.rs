//! Classes 9 and 34: what else lives on the machine, its processes and its memory.

use crate::world::{User, World};

/// Takes Landlock away, as on a kernel that does not have it, and becomes the command.
const WITHOUT_LANDLOCK: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# Load the number; 444 to 446 do not exist; all else is allowed. See seccomp(2).
code = [(0x20, 0, 0, 0), (0x35, 0, 2, 444), (0x25, 1, 0, 446), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7fff0000)]
filter = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *line) for line in code))
program = ctypes.create_string_buffer(struct.pack('=HxxxxxxQ', len(code), ctypes.addressof(filter)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
";

#[test]
fn signals_stay_inside() {
    let world = World::new();
    // The neighbour is in egret's process group, as whatever a script starts is.
    let neighbour = "
        sleep 4242 & neighbour=$!
        \"$@\"; code=$?
        kill -0 $neighbour && echo ALIVE; kill $neighbour; exit $code";
    let table = [
        "os.kill(0, 9)",
        "os.kill(0, 15)",
        "os.killpg(os.getpgrp(), 9)",
        "os.kill(-1, 9)",
        "[os.kill(n, 9) for n in range(2, 5000) if n != os.getpid() and os.path.exists('/proc/%d' % n)]",
        "ctypes.CDLL(None).syscall(424, os.pidfd_open(os.getpid()), 9, None, 4)",
    ];
    for user in User::ALL {
        for landlock in [true, false] {
            for signal in table {
                let mut run = world
                    .run_as(user)
                    .through(&["/bin/sh", "-c", neighbour, "sh"]);
                if !landlock {
                    run = run.through(&["/usr/bin/python3", "-c", WITHOUT_LANDLOCK]);
                }
                let script = format!(
                    "import ctypes, os, time\nprint('up', flush=True)\n{signal}\ntime.sleep(0.2)"
                );
                let outcome = run.python(&script);
                let shown = format!("{user:?} {signal} {landlock}: {outcome:#?}");
                assert_eq!(outcome.stdout, "up\nALIVE\n", "{shown}");
                assert!(
                    [0, 1, 128 + 9, 128 + 15].contains(&outcome.code()),
                    "{shown}"
                );
                // Without Landlock the program is told that it may not.
                if !landlock && signal == table[0] {
                    assert_eq!(outcome.code(), 1, "{shown}");
                }
                // Egret saw it end, and ended as it did.
                let ended = outcome
                    .events("lifecycle")
                    .filter(|record| record["action"] == "ended");
                assert_eq!(ended.count(), 1, "{shown}");
            }
        }
    }
    let killed = world.run_as(User::Alice).python("import os; os.kill(0, 9)");
    assert_eq!(killed.code(), 128 + 9, "{killed:#?}");
}

#[test]
fn file_systems_in_memory_fit_into_it_together() {
    let world = World::new();
    let script = "
import os
memory = int(open('/proc/meminfo').readline().split()[1]) * 1024
mounts = {line.split()[1] for line in open('/proc/mounts') if line.split()[2] == 'tmpfs'}
sizes = {}
for mount in mounts:
    # Only what the sandbox made can be written, or is its own; the machine's have their sizes from elsewhere.
    if mount in ('/', '/dev', '/tmp', '/var/tmp', '/dev/shm', '/run', '/var/run', '/run/user/%d' % os.getuid()):
        found = os.statvfs(mount)
        assert found.f_blocks, mount
        sizes[os.stat(mount).st_dev] = found.f_blocks * found.f_frsize
print(len(sizes) >= 6, sum(sizes.values()) < memory)
";
    for user in User::ALL {
        let outcome = world.run_as(user).python(script).ok();
        assert_eq!(outcome.stdout, "True True\n", "{user:?}: {outcome:#?}");
    }
}
