//! Ten programs that others wrote: each does its work while Egret learns, and again under what was learnt, which opens nothing
//! else. (`apt` in a container is in `containers::learn`.)

use crate::world::{User, World, real};

/// What a program does, and what it has to have reached for that.
struct Work<'a> {
    script: &'a str,
    /// In what it prints.
    says: &'a str,
    /// The entries, in order.
    needs: &'a [&'a str],
    args: &'a [&'a str],
}

/// Has the work done while learning, and again by what was learnt. Returns the policy.
#[track_caller]
fn learn_and_run(world: &World, user: User, work: &Work<'_>) -> String {
    let path = format!("{}/learnt.yaml", user.home());
    let run = || {
        let run = world.run_as(user).args(work.args);
        run.env("EXCLUSIVELY", "tests")
            .within(std::time::Duration::from_secs(100))
    };
    let clean = format!(
        "cd {0}/project && rm -rf -- * .c* .n*; chown {1}:{1} .",
        user.home(),
        user.id()
    );
    world.machine.sh(&clean);
    let first = run().args(&["--learn", &path]).client(work.script);
    assert!(
        first.stdout.contains(work.says) && first.code() == 0,
        "{}\n{}",
        first.stdout,
        first.stderr
    );
    let policy = super::learnt(world, user, &path);
    let entries: Vec<&str> = match policy.split_once("allow:\n") {
        Some((_, allow)) => allow
            .lines()
            .map_while(|line| (!line.is_empty()).then(|| line.trim()))
            .filter_map(|line| line.strip_prefix("- ")?.split(' ').next())
            .collect(),
        None => Vec::new(),
    };
    assert_eq!(entries, work.needs, "{policy}");

    world.machine.sh(&clean);
    let by_it = || run().args(&["--policy", &path]);
    let again = by_it().client(work.script);
    assert!(
        again.stdout.contains(work.says) && again.code() == 0,
        "{}\n{}\n{policy}",
        again.stdout,
        again.stderr
    );
    super::opens_nothing_else(by_it());
    policy
}

#[track_caller]
fn learns(world: &World, work: &Work<'_>) {
    for user in User::ALL {
        learn_and_run(world, user, work);
    }
}

#[test]
fn git_clones() {
    let world = World::new();
    real::repository(&world);
    world
        .outside
        .sh("mkdir -p /srv/web/git.example.com; cp -r /srv/project.git /srv/web/git.example.com/");
    real::web(&world, &["git.example.com"]);
    learns(
        &world,
        &Work {
            script: "git -c init.defaultBranch=main clone -q https://git.example.com/project.git && cat project/README",
            says: "a project\n",
            needs: &["git.example.com:443"],
            args: &[],
        },
    );
}

#[test]
fn ssh_logs_in() {
    let world = World::new();
    real::sshd(&world);
    world.dns.answer("git.example.com", &[real::GIT]);
    world
        .outside
        .sh("cp /srv/ssh/user /srv/key; chmod 644 /srv/key");
    world
        .machine
        .write("/srv/key", world.outside.read("/srv/ssh/user"));
    world.machine.write(
        "/srv/known",
        format!(
            "git.example.com {}",
            world.outside.read("/srv/ssh/host.pub")
        ),
    );
    learns(
        &world,
        &Work {
            script: "install -m 600 /srv/key key && ssh -i key -o IdentitiesOnly=yes -o UserKnownHostsFile=/srv/known root@git.example.com 'echo $((6 * 7))'",
            says: "42\n",
            needs: &["git.example.com:22"],
            args: &[],
        },
    );
}

#[test]
fn psql_asks() {
    let world = World::new();
    real::postgres(&world);
    world.dns.answer("db.example.com", &[real::DATABASE]);
    learns(
        &world,
        &Work {
            script: "psql -At -h db.example.com -U postgres postgres -c 'select 6 * 7'",
            says: "42\n",
            needs: &["db.example.com:5432"],
            args: &[],
        },
    );
}

#[test]
fn pip_installs() {
    let world = World::new();
    world.outside.write("/srv/wheel.py", WHEEL);
    world.outside.sh(
        "mkdir -p /srv/web/pypi.example.com/simple/tiny /srv/web/files.example.net; cd /srv/web/files.example.net; python3 /srv/wheel.py
         echo '<a href=\"https://files.example.net/tiny-1.0-py3-none-any.whl\">tiny-1.0-py3-none-any.whl</a>' \
             > /srv/web/pypi.example.com/simple/tiny/index.html",
    );
    real::web(&world, &["pypi.example.com", "files.example.net"]);
    learns(
        &world,
        &Work {
            script: "/usr/bin/python3 -m pip install -q --cert /srv/ca.pem --break-system-packages --index-url https://pypi.example.com/simple \
                     --target lib tiny && PYTHONPATH=lib python3 -c 'import tiny; print(tiny.answer)'",
            says: "42\n",
            needs: &["pypi.example.com:443", "files.example.net:443"],
            args: &[],
        },
    );
}

/// Makes a wheel of a package `tiny`.
const WHEEL: &str = "
import zipfile
with zipfile.ZipFile('tiny-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('tiny.py', 'answer = 6 * 7\\n')
    wheel.writestr('tiny-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')
    wheel.writestr('tiny-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr('tiny-1.0.dist-info/RECORD', 'tiny.py,,\\ntiny-1.0.dist-info/METADATA,,\\ntiny-1.0.dist-info/WHEEL,,\\ntiny-1.0.dist-info/RECORD,,\\n')
";

#[test]
fn npm_installs() {
    let world = World::new();
    world.outside.sh(
        r#"mkdir -p /srv/web/registry.example.com /srv/web/tarballs.example.net /srv/package; cd /srv
           echo '{"name": "tiny", "version": "1.0.0", "main": "index.js"}' > package/package.json
           echo 'module.exports = 6 * 7' > package/index.js
           tar -czf web/tarballs.example.net/tiny-1.0.0.tgz package
           echo '{"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "tiny", "version": "1.0.0",
                 "dist": {"tarball": "https://tarballs.example.net/tiny-1.0.0.tgz"}}}}' > web/registry.example.com/tiny"#,
    );
    real::web(&world, &["registry.example.com", "tarballs.example.net"]);
    learns(
        &world,
        &Work {
            script: "echo '{}' > package.json && npm install --no-progress --cafile /srv/ca.pem --registry https://registry.example.com tiny && node -p 'require(\"tiny\")'",
            says: "42\n",
            needs: &["registry.example.com:443", "tarballs.example.net:443"],
            args: &[],
        },
    );
}

#[test]
fn cargo_builds() {
    let world = World::new();
    world.outside.sh(
        r#"mkdir -p /srv/web/index.example.com/ti/ny /srv/web/crates.example.net /srv/tiny-1.0.0/src; cd /srv
           printf '[package]\nname = "tiny"\nversion = "1.0.0"\nedition = "2021"\n' > tiny-1.0.0/Cargo.toml
           echo 'pub const ANSWER: u32 = 6 * 7;' > tiny-1.0.0/src/lib.rs
           tar -czf web/crates.example.net/tiny-1.0.0.crate tiny-1.0.0
           sum=$(sha256sum web/crates.example.net/tiny-1.0.0.crate | cut -d' ' -f1)
           echo '{"dl": "https://crates.example.net/{crate}-{version}.crate", "api": null}' > web/index.example.com/config.json
           echo '{"name": "tiny", "vers": "1.0.0", "deps": [], "cksum": "'$sum'", "features": {}, "yanked": false}' > web/index.example.com/ti/ny/tiny"#,
    );
    real::web(&world, &["index.example.com", "crates.example.net"]);
    learns(
        &world,
        &Work {
            script: r#"mkdir -p src .cargo && export CARGO_HOME=$PWD/.cargo CARGO_HTTP_CAINFO=/srv/ca.pem
                       printf '[registries.mine]\nindex = "sparse+https://index.example.com/"\n' > .cargo/config.toml
                       printf '[package]\nname = "a"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\ntiny = { version = "1", registry = "mine" }\n' > Cargo.toml
                       echo 'fn main() { println!("{}", tiny::ANSWER) }' > src/main.rs
                       cargo run -q"#,
            says: "42\n",
            needs: &["index.example.com:443", "crates.example.net:443"],
            args: &[],
        },
    );
}

#[test]
fn an_mcp_server_fetches() {
    let world = World::new();
    world.outside.sh(
        "mkdir -p /srv/web/docs.example.com; echo 'the page' > /srv/web/docs.example.com/page.txt",
    );
    real::web(&world, &["docs.example.com"]);
    world.machine.write("/srv/lib/ask_mcp.py", ASK_MCP);
    learns(
        &world,
        &Work {
            script: "PYTHONPATH=/srv/servers/python /usr/bin/python3 /srv/lib/ask_mcp.py https://docs.example.com/page.txt",
            says: "the page",
            needs: &["docs.example.com:443"],
            args: &[],
        },
    );
}

/// Asks the server for a page, as a client does.
const ASK_MCP: &str = "
import json, subprocess, sys
server = subprocess.Popen(['/usr/bin/python3', '-m', 'mcp_server_fetch', '--allow-private-ips'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def tell(message):
    server.stdin.write(json.dumps({'jsonrpc': '2.0', **message}) + '\\n')
    server.stdin.flush()
def ask(number, method, params):
    tell({'id': number, 'method': method, 'params': params})
    for line in server.stdout:
        answer = json.loads(line)
        if answer.get('id') == number:
            return answer
ask(1, 'initialize', {'protocolVersion': '2024-11-05', 'capabilities': {}, 'clientInfo': {'name': 'test', 'version': '1'}})
tell({'method': 'notifications/initialized'})
print(ask(2, 'tools/call', {'name': 'fetch', 'arguments': {'url': sys.argv[1], 'raw': True}}))
server.stdin.close()
server.wait(10)
";

#[test]
fn a_language_server_looks_up_a_schema() {
    let world = World::new();
    world.outside.sh(
        r#"mkdir -p /srv/web/schemas.example.com
           echo '{"type": "object", "properties": {"answer": {"const": 42}}}' > /srv/web/schemas.example.com/thing.json"#,
    );
    real::web(&world, &["schemas.example.com"]);
    world.machine.write("/srv/lib/ask_lsp.py", ASK_LSP);
    learns(
        &world,
        &Work {
            script: "/usr/bin/python3 /srv/lib/ask_lsp.py",
            says: "Value must be 42",
            needs: &["schemas.example.com:443"],
            args: &[],
        },
    );
}

/// Opens a document in a language server, as an editor does, and prints what is wrong with it.
const ASK_LSP: &str = "
import json, subprocess
command = ['/usr/bin/node', '/srv/servers/node/node_modules/yaml-language-server/bin/yaml-language-server', '--stdio']
server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def tell(message):
    body = json.dumps({'jsonrpc': '2.0', **message}).encode()
    server.stdin.write(b'Content-Length: %d\\r\\n\\r\\n' % len(body) + body)
    server.stdin.flush()
def hear():
    length = 0
    while (line := server.stdout.readline().strip()):
        name, value = line.split(b':')
        if name.lower() == b'content-length':
            length = int(value)
    return json.loads(server.stdout.read(length))
tell({'id': 1, 'method': 'initialize', 'params': {'processId': None, 'rootUri': None, 'capabilities': {}}})
while hear().get('id') != 1:
    pass
tell({'method': 'initialized', 'params': {}})
text = '# yaml-language-server: $schema=https://schemas.example.com/thing.json\\nanswer: 41\\n'
document = {'uri': 'file:///thing.yaml', 'languageId': 'yaml', 'version': 1, 'text': text}
tell({'method': 'textDocument/didOpen', 'params': {'textDocument': document}})
while True:
    message = hear()
    if 'id' in message and 'method' in message:
        tell({'id': message['id'], 'result': [{}] if message['method'] == 'workspace/configuration' else None})
    for wrong in message.get('params', {}).get('diagnostics', []) if message.get('method') == 'textDocument/publishDiagnostics' else []:
        print(wrong['message'])
        server.kill()
        raise SystemExit
";

#[test]
fn a_browser_shows_a_page() {
    let world = World::new();
    world.outside.sh(
        r#"mkdir -p /srv/web/site.example.com /srv/web/cdn.example.net
           echo '<html><body><p id=x>no</p><script src="https://cdn.example.net/a.js"></script></body></html>' > /srv/web/site.example.com/index.html
           echo 'document.getElementById("x").textContent = "the answer is " + 6 * 7' > /srv/web/cdn.example.net/a.js"#,
    );
    real::web(&world, &["site.example.com", "cdn.example.net"]);
    // It goes by authorities of its own.
    let work = Work {
        script: "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --ignore-certificate-errors --user-data-dir=$PWD/data \
                 --virtual-time-budget=5000 --dump-dom https://site.example.com/ 2>errors || { cat errors; exit 1; }",
        says: "the answer is 42",
        needs: &["site.example.com:443", "cdn.example.net:443"],
        args: &[],
    };
    let policy = learn_and_run(&world, User::Alice, &work);
    // What it tells its maker finds nobody here, and is not opened for that.
    assert!(
        policy.contains("update.googleapis.com:443 was allowed "),
        "{policy}"
    );
}
