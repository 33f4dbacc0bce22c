//! What `./x dist` releases beside the binary: packages are installed, used and removed on a machine of the world, whose files
//! are layers over the real ones; the image is loaded into its engine.
//!
//! They are made here of the binary under test. That two builds give the same ones is for `./x dist --check`.

use std::path::Path;
use std::process::Command;

use crate::world::engine::Kind;
use crate::world::servers::Service;
use crate::world::{EGRET, User, World, at};

/// A machine with packages in `/srv/packages`, and directories of its own where their files go.
fn machine() -> World {
    let world = World::with_engine(Kind::Docker);
    world.machine.sh("for directory in usr var/cache var/log; do
             mkdir -p /srv/layer/$directory/new /srv/layer/$directory/work
             mount -t overlay overlay /$directory \\
                 -o lowerdir=/$directory,upperdir=/srv/layer/$directory/new,workdir=/srv/layer/$directory/work
         done
         # It names groups that this machine does not have.
         : > /var/lib/dpkg/statoverride
         # Where there are such packages, one of them has this.
         mkdir -p /usr/share/licenses
         mkdir /srv/packages /srv/rpm");
    let (packages, stripped) = (
        world.machine.path("/srv/packages"),
        world.machine.path("/srv/egret"),
    );
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    world.machine.write("/srv/bill", "{}");
    succeed(Command::new("strip").arg("-o").arg(&stripped).arg(EGRET));
    succeed(
        Command::new(repository.join("release/packages"))
            .arg(stripped)
            .arg(world.machine.path("/srv/bill"))
            .arg(VERSION)
            .arg(packages)
            .env("SOURCE_DATE_EPOCH", "1700000000"),
    );
    world.dns.answer("example.com", &[at::PUBLIC]);
    world.serve("93.184.216.34:80", Service::Http);
    world
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The files where packages put theirs.
fn files(world: &World) -> Vec<String> {
    let all = world
        .machine
        .sh("find /usr /etc /opt -type d -printf '%p\\n' -o -printf '%p %y %s\\n' | LC_ALL=C sort");
    all.lines().map(str::to_owned).collect()
}

/// Holds a machine on which a package is to what it promises, as an ordinary user finds it.
#[track_caller]
fn works(world: &World) {
    let typed = |script: &str| {
        let words = ["/bin/bash", "-c", script].map(str::to_owned);
        let command = world.command_as(User::Alice, "/home/alice/project", &[], &words);
        world.to_its_end(command, std::time::Duration::from_secs(40))
    };
    let ran = typed("/usr/bin/egret run --allow example.com -- curl -sS http://example.com/");
    assert_eq!(ran.ok().stdout, "GET / for example.com, 0 bytes\n");
    let refused = typed("/usr/bin/egret run -- curl -sSf http://example.com/");
    assert_ne!(refused.code(), 0, "{refused:?}");
    let page = typed("MANPATH=/usr/share/man man -P cat egret-run")
        .ok()
        .stdout;
    assert!(
        page.contains("Run a program in a sealed sandbox")
            && page.contains("--allow-docker-gateway"),
        "{page}"
    );
    let completed = typed(
        ". /usr/share/bash-completion/completions/egret
         COMP_WORDS=(egret policy ex); COMP_CWORD=2; _egret egret ex policy; echo ${COMPREPLY[*]}",
    );
    assert_eq!(completed.ok().stdout, "explain\n");
    let guide = typed(
        "cat /usr/share/doc/egret/docs/guide/policy.md /usr/share/doc/egret/examples/policies/*.yaml",
    );
    assert!(guide.ok().stdout.starts_with("# Policies\n"));
}

#[test]
fn packages_are_installed_used_and_removed_without_a_trace() {
    let world = machine();
    let before = files(&world);

    world
        .machine
        .sh("dpkg --install /srv/packages/egret_*.deb; dpkg --verify egret; dpkg --status egret");
    works(&world);
    let completions =
        "/usr/share/zsh/vendor-completions/_egret /usr/share/fish/vendor_completions.d/egret.fish";
    world.machine.sh(&format!("for file in {completions}; do grep -q host-gateway $file || grep -q allow-docker-gateway $file; done"));
    world.machine.sh("dpkg --remove egret; dpkg --purge egret");
    assert_eq!(added(&before, &files(&world)), Vec::<String>::new());

    let rpm = "rpm --dbpath /srv/rpm";
    world.machine.sh(&format!(
        "{rpm} --install /srv/packages/egret-*.rpm; {rpm} --verify egret"
    ));
    works(&world);
    world.machine.sh(&format!(
        "test -e /usr/share/licenses/egret/LICENSE; {rpm} --erase egret"
    ));
    assert_eq!(added(&before, &files(&world)), Vec::<String>::new());

    world.docker(&["load", "--input", &image(&world)]);
    let name = format!("egret:{VERSION}");
    let said = world.docker(&["run", "--rm", "--network", "none", &name, "--version"]);
    assert_eq!(said, format!("egret {VERSION}\n"));
    let policy = "version: 1\nallow: [example.com]\n";
    world.docker_reading(
        policy,
        &[
            "run",
            "--rm",
            "--interactive",
            "--network",
            "none",
            &name,
            "policy",
            "check",
            "-",
        ],
    );
}

/// Where AppArmor keeps user namespaces from programs without a profile, there is one for as long as the package is there.
#[test]
fn a_profile_is_there_where_user_namespaces_take_one() {
    let world = World::new();
    world.machine.sh("mkdir -p /srv/etc /srv/new /srv/work; mount -t overlay overlay /etc -o lowerdir=/etc,upperdir=/srv/new,workdir=/srv/work
         mkdir -p /etc/apparmor.d");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read =
        |name: &str| std::fs::read_to_string(repository.join("release/debian").join(name)).unwrap();
    world.machine.write("/srv/profile", read("apparmor"));
    for script in ["postinst", "prerm"] {
        let text = read(script)
            .replace(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "/srv/restricted",
            )
            .replace("/usr/share/egret/apparmor", "/srv/profile");
        world.machine.write(&format!("/srv/{script}"), text);
    }
    let there = || world.machine.path("/etc/apparmor.d/egret").exists();
    let run = |script: &str| world.machine.sh(&format!("sh /srv/{script}"));

    run("postinst configure");
    assert!(!there(), "a profile where none is needed");
    world.machine.write("/srv/restricted", "1");
    run("postinst configure");
    assert!(!there(), "a profile that this AppArmor does not understand");
    world
        .machine
        .sh("mkdir -p /etc/apparmor.d/abi; touch /etc/apparmor.d/abi/4.0");
    run("postinst configure");
    assert!(there(), "no profile where one is needed");
    run("prerm upgrade 2");
    assert!(!there(), "the profile of the old version is still there");
    run("postinst configure");
    world.machine.sh("echo '# mine' >> /etc/apparmor.d/egret");
    run("prerm remove");
    assert!(there(), "a profile that somebody has changed is gone");
}

/// What is there that was not.
fn added(before: &[String], after: &[String]) -> Vec<String> {
    let is_new = |file: &&String| before.binary_search(file).is_err();
    after.iter().filter(is_new).cloned().collect()
}

/// The image's archive, as the engine's client sees it.
fn image(world: &World) -> String {
    world
        .machine
        .sh("ls /srv/packages/egret-*-image-*.tar")
        .trim()
        .to_owned()
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
