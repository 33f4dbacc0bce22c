//! Real servers: git over HTTP and SSH, PostgreSQL, and the files of registries.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::machine::SYSTEM_PATH;
use super::servers::AUTHORITY;
use super::{User, World};

/// Where git is served.
pub(crate) const GIT: &str = "151.101.0.9";
/// Where files are served.
pub(crate) const WEB: &str = "151.101.0.20";
/// Where PostgreSQL is.
pub(crate) const DATABASE: &str = "151.101.0.10";

/// Serves `project.git` by HTTP at [`GIT`], port 8000.
#[track_caller]
pub(crate) fn git_http(world: &World) {
    repository(world);
    daemon(
        world,
        &[
            "/usr/bin/python3",
            "-m",
            "http.server",
            "--bind",
            GIT,
            "--directory",
            "/srv",
            "8000",
        ],
        (GIT, 8000),
    );
}

/// Serves by HTTPS, at [`GIT`], `project.git` of somebody at a forge and packages of a registry for npm.
#[track_caller]
pub(crate) fn forge_and_registry(world: &World, forge: &'static str, registry: &'static str) {
    repository(world);
    world
        .outside
        .write("/srv/identity.pem", AUTHORITY.identity(&[forge, registry]));
    world.outside.sh(
        "mkdir -p /srv/web/you /srv/web/tarballs; ln -s /srv/project.git /srv/web/you/project.git",
    );
    for (package, version) in PACKAGES {
        let own = format!(r#""name": "{package}", "version": "{version}", "bin": "main.js""#);
        let tarball = format!("tarballs/{}-{version}.tgz", package.replace('/', "-"));
        world.outside.sh(&format!(
            "mkdir -p /srv/package $(dirname /srv/web/{package}); cd /srv; echo '{{{own}}}' > package/package.json
             printf '#!/usr/bin/env node\\nprocess.stdin.resume()\\n' > package/main.js
             tar czf web/{tarball} package"
        ));
        let dist = format!(r#""dist": {{"tarball": "https://{registry}/{tarball}"}}"#);
        let about = format!(
            r#"{{"name": "{package}", "dist-tags": {{"latest": "{version}"}}, "versions": {{"{version}": {{{own}, {dist}}}}}}}"#
        );
        world.outside.write(&format!("/srv/web/{package}"), about);
    }
    daemon(world, &["/usr/bin/python3", "-c", HTTPS, GIT], (GIT, 443));
}

/// What the registry has: programs that read to the end of their input.
const PACKAGES: [(&str, &str); 2] = [
    ("left-pad", "1.3.0"),
    ("@modelcontextprotocol/server-everything", "1.0.0"),
];

/// Serves the files below `/srv/web`.
const HTTPS: &str = "
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory='/srv/web')
server = http.server.ThreadingHTTPServer((sys.argv[1], 443), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('/srv/identity.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

/// Serves files by HTTP and HTTPS at [`WEB`], for each of these names those below `/srv/web/NAME`, and lets the names
/// lead there.
#[track_caller]
pub(crate) fn web(world: &World, names: &[&str]) {
    for name in names {
        world.dns.answer(name, &[WEB]);
    }
    world
        .outside
        .write("/srv/web.pem", AUTHORITY.identity(names));
    world.outside.write("/srv/web.py", FILES);
    daemon(world, &["/usr/bin/python3", "/srv/web.py", WEB], (WEB, 443));
}

/// A server of files that goes by the name it is asked for. What npm calls `@a%2fb` is a file of that name.
const FILES: &str = "
import http.server, ssl, sys, threading
class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def translate_path(self, path):
        self.directory = '/srv/web/' + self.headers.get('Host', 'none').split(':')[0]
        return super().translate_path(path)
def serve(port, tls):
    server = http.server.ThreadingHTTPServer((sys.argv[1], port), Files)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    return server
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain('/srv/web.pem')
threading.Thread(target=serve(80, None).serve_forever, daemon=True).start()
serve(443, tls).serve_forever()
";

/// Starts `sshd` at [`GIT`], port 22.
#[track_caller]
pub(crate) fn sshd(world: &World) {
    repository(world);
    world.outside.sh(
        "mkdir -p /run/sshd /srv/ssh; ssh-keygen -q -t ed25519 -N '' -f /srv/ssh/host; \
         ssh-keygen -q -t ed25519 -N '' -f /srv/ssh/user; cp /srv/ssh/user.pub /srv/ssh/authorized",
    );
    let config = format!(
        "ListenAddress {GIT}:22\nHostKey /srv/ssh/host\nAuthorizedKeysFile /srv/ssh/authorized\n\
         StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n"
    );
    world.outside.write("/srv/ssh/config", config);
    daemon(
        world,
        &["/usr/sbin/sshd", "-D", "-e", "-f", "/srv/ssh/config"],
        (GIT, 22),
    );
}

/// Gives a user, in the project directory, the key that [`sshd`] takes and the one it has.
#[track_caller]
pub(crate) fn ssh_key(world: &World, user: User) {
    let project = format!("{}/project", user.home());
    let key = world.machine.path(format!("{project}/key"));
    fs::write(&key, world.outside.read("/srv/ssh/user")).unwrap();
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    chown(&key, Some(user.id()), Some(user.id())).unwrap();
    let host = world.outside.read("/srv/ssh/host.pub");
    world.machine.write(
        &format!("{project}/known"),
        format!("git.example.com {host}"),
    );
}

/// Starts PostgreSQL at [`DATABASE`], port 5432, which trusts everybody.
#[track_caller]
pub(crate) fn postgres(world: &World) {
    world.outside.sh(
        "mkdir -m 700 /srv/data; chown postgres /srv/data; cd /srv; \
         setpriv --reuid postgres --regid postgres --clear-groups \
             $(ls -d /usr/lib/postgresql/*/bin | tail -1)/initdb --auth trust --no-sync -D /srv/data >/dev/null; \
         echo 'host all all all trust' >> /srv/data/pg_hba.conf",
    );
    let start = format!(
        "exec setpriv --reuid postgres --regid postgres --clear-groups $(ls -d /usr/lib/postgresql/*/bin | tail -1)/postgres \
         -D /srv/data -k /srv/data -c listen_addresses={DATABASE} -c fsync=off"
    );
    daemon(world, &["/bin/sh", "-c", &start], (DATABASE, 5432));
}

/// Makes `/srv/project.git`.
#[track_caller]
pub(crate) fn repository(world: &World) {
    world.outside.sh(
        "export HOME=/srv; cd /srv; git config --global safe.directory '*'; git init -q -b main work; cd work; \
         echo 'a project' > README; git add README; \
         git -c user.name=a -c user.email=a@example.com commit -q -m first; \
         git clone -q --bare . ../project.git; cd ../project.git; git update-server-info",
    );
}

/// Starts a server outside and waits until it listens.
#[track_caller]
fn daemon(world: &World, words: &[&str], address: (&'static str, u16)) {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .current_dir("/")
        .env_clear()
        .env("PATH", SYSTEM_PATH)
        .env("HOME", "/srv");
    let log = fs::File::create(world.outside.path("/srv/log")).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut child = world
        .outside
        .spawn(command)
        .unwrap_or_else(|e| panic!("{}: {e}", words[0]));
    let end = Instant::now() + Duration::from_secs(20);
    while world
        .outside
        .in_network(move || std::net::TcpStream::connect(address))
        .is_err()
    {
        let ended = child.try_wait().unwrap();
        assert!(
            Instant::now() < end && ended.is_none(),
            "{words:?}: {ended:?} {}",
            world.outside.read("/srv/log")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    world.daemons.borrow_mut().push(child);
}
