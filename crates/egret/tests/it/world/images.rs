//! Images without a registry: made on the spot, from what the machine has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::World;
use super::engine::Kind;
use super::machine::SYSTEM_PATH;

/// What an image is made from.
pub(crate) struct Image<'a> {
    pub(crate) name: &'a str,
    /// A script that fills the directory it is started in, which becomes the image's root.
    pub(crate) root: &'a str,
    /// Lines of a Dockerfile, such as `USER 1000`.
    pub(crate) changes: &'a [&'a str],
}

/// The usual commands, each of them Busybox, which needs no library.
pub(crate) const BUSYBOX: Image<'_> = Image {
    name: "busybox",
    root: "mkdir -p bin etc root proc sys dev tmp; chmod 1777 tmp; cp /bin/busybox bin/
           for name in sh cat chmod chown cp cut date dd echo env false grep head hostname httpd id ip kill ln ls mkdir mount \
                       nc nslookup ping ps rm sed seq sleep sort stat tail tee test timeout top touch tr true umount \
                       uname wc wget whoami; do ln -s busybox bin/$name; done
           echo root:x:0:0:root:/root:/bin/sh > etc/passwd; echo root:x:0: > etc/group",
    changes: &["CMD [\"/bin/sh\"]"],
};

/// A root that waits for the machine's own programs: [`TOOLS_MOUNTS`] brings them. Python is there, and the probe.
pub(crate) const TOOLS: Image<'_> = Image {
    name: "tools",
    root: "mkdir -p usr etc root proc sys dev tmp srv opt/servers; chmod 1777 tmp
           for name in bin sbin lib lib32 lib64 libx32; do ln -s usr/$name $name; done
           echo root:x:0:0:root:/root:/bin/sh > etc/passwd; echo root:x:0: > etc/group",
    changes: &["CMD [\"/bin/sh\"]"],
};

/// The mounts that make [`TOOLS`] useful.
pub(crate) const TOOLS_MOUNTS: [&str; 4] = ["-v", "/usr:/usr:ro", "-v", "/srv/lib:/srv/lib:ro"];

/// Images of MCP servers that others wrote, which speak over standard input and output; `everything` can also speak
/// HTTP. They want [`TOOLS_MOUNTS`] and [`SERVERS_MOUNT`].
pub(crate) const SERVERS: [Image<'_>; 3] = [
    Image {
        name: "mcp/fetch",
        root: TOOLS.root,
        changes: &[
            "ENV PYTHONPATH=/opt/servers/python",
            "USER 1000:1000",
            "ENTRYPOINT [\"/usr/bin/python3\", \"-m\", \"mcp_server_fetch\"]",
        ],
    },
    Image {
        name: "mcp/memory",
        root: TOOLS.root,
        changes: &[
            "ENV MEMORY_FILE_PATH=/tmp/memory.jsonl",
            "ENTRYPOINT [\"/usr/bin/node\", \"/opt/servers/node/node_modules/@modelcontextprotocol/server-memory/dist/index.js\"]",
        ],
    },
    Image {
        name: "mcp/everything",
        root: TOOLS.root,
        changes: &[
            "USER 1000:1000",
            "EXPOSE 3001",
            "ENTRYPOINT [\"/usr/bin/node\", \"/opt/servers/node/node_modules/@modelcontextprotocol/server-everything/dist/index.js\"]",
            "CMD [\"stdio\"]",
        ],
    },
];

/// The mount that brings the programs of [`SERVERS`].
pub(crate) const SERVERS_MOUNT: [&str; 2] = ["-v", "/srv/servers:/opt/servers:ro"];

/// Where `./x test` has put them.
pub(super) fn servers() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers");
    assert!(
        path.join("node/node_modules").exists() && path.join("python").exists(),
        "the MCP servers that tests run are not in {}: run the tests with ./x test, which fetches them",
        path.display()
    );
    path
}

impl World {
    /// A world with an engine that has what [`World::run_container`] runs.
    #[track_caller]
    pub(crate) fn with_tools(kind: Kind) -> World {
        let world = World::with_engine(kind);
        world.import(&TOOLS);
        world
    }

    /// Gives an image to the engine.
    #[track_caller]
    pub(crate) fn import(&self, image: &Image<'_>) {
        let Image {
            name,
            root,
            changes,
        } = image;
        let kind = self.engine();
        let directory = format!("/srv/images/{name}");
        self.machine
            .sh(&format!("mkdir -p {directory}; cd {directory}\n{root}"));
        let mut args = vec!["import"];
        for change in *changes {
            args.extend(["-c", change]);
        }
        args.extend(["-", name]);
        let mut import = self.docker_command(&args);
        let mut tar = Command::new("tar");
        tar.args(["-C", &directory, "--owner", "0", "--group", "0", "-c", "."])
            .env("PATH", SYSTEM_PATH)
            .stdout(Stdio::piped());
        let mut tar = self.machine.spawn(tar).unwrap();
        import.stdin(tar.stdout.take().unwrap());
        import.stdout(Stdio::piped()).stderr(Stdio::piped());
        let import = self.machine.spawn(import).unwrap();
        let output = import.wait_with_output().unwrap();
        assert!(
            tar.wait().unwrap().success() && output.status.success(),
            "{kind:?} import {name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        self.machine.sh(&format!("rm -r {directory}"));
    }
}
