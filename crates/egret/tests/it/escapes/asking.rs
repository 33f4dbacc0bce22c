//! Class 44: a program that would have somebody say yes to something else, or be worn out with questions.

use super::PROXY;
use crate::world::{World, at};

everywhere!(who_is_asked_is_neither_passed_over_nor_worn_out);

fn who_is_asked_is_neither_passed_over_nor_worn_out(world: &World) {
    world.dns.answer("www.example.com", &[at::PUBLIC]);
    let script = "
import threading, time
def ask(to):
    begun = time.monotonic()
    with socket.create_connection(PROXY, 60) as s:
        s.sendall(b'CONNECT ' + to + b' HTTP/1.1\\r\\nHost: ' + to + b'\\r\\n\\r\\n')
        status = s.recv(20).split(b' ')[1].decode()
    return status, time.monotonic() - begun
def at_once(to):
    status, took = ask(to)
    return status if took < 4 else 'waited'
never = ['host.docker.internal:22', 'HOST.docker.internal.:22', 'localhost:80', '127.1:80', '[::1]:80',
         '169.254.169.254:80', 'metadata.google.internal:80', '10.20.0.7:80', '192.168.7.2:22', '45.33.32.10:22',
         '[fd12:1::2]:22', '[::ffff:10.20.0.7]:80', '0x0a140007:80', '100.100.100.200:80', 'no.example.com:443']
print(*{at_once(to.encode()) for to in never})
# Whatever sockets of Egret's have as names, and whoever may be the user.
def reach(name):
    try:
        socket.socket(socket.AF_UNIX).connect(name)
        return 'reached'
    except OSError:
        return 'no'
users = [0, 1000, 12345, os.getuid()]
print(*{reach('\\0egret/%d/box' % user) for user in users})
# Looking up names is no question, to nobody.
names = {socket.gethostbyname('%d.c2VjcmV0.example.net' % n).split('.')[0] for n in range(50)}
print(*names)
ends = []
names = [b'n%d.example.net:443' % n for n in range(100)]
threads = [threading.Thread(target=lambda name=name: ends.append((name, *ask(name)))) for name in names]
begun = time.monotonic()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*{status for name, status, took in ends}, len(ends), time.monotonic() - begun < 20)
# Again, at once: what nobody has answered is not asked about again.
longest = max(ends, key=lambda end: end[2])
print(longest[2] > 4.9, at_once(longest[0]))
";
    for place in world.places() {
        let outcome = world
            .run_in(place)
            .args(&["--name", "box", "--ask=5", "--deny", "no.example.com"])
            .python(&format!("{PROXY}{script}"))
            .ok();
        let lines: Vec<_> = outcome.stdout.lines().collect();
        let expected = ["403", "no", "198", "403 100 True", "True 403"];
        assert_eq!(lines, expected, "{place:?}: {outcome:#?}");
        outcome.silent();
        // Containers' records are with their engine.
        if !outcome.records.is_empty() {
            let asked = outcome.events("question");
            let asked = asked.filter(|record| record["action"] == "asked").count();
            assert!((8..=9).contains(&asked), "{place:?}: {outcome:#?}");
        }
    }
}
