//! Images of all kinds run as they are: their users, directories, volumes, checks, ports and terminals.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ROWS, furnished, shell, transcript, until};
use crate::world::engine::Kind;
use crate::world::images::Image;
use crate::world::servers::Service;
use crate::world::terminal::Terminal;
use crate::world::{World, at};

/// Nothing but static programs: no shell, no user, no directory.
const BARE: Image<'_> = Image {
    name: "bare",
    root: "for name in fetch cat httpd; do cp /bin/busybox $name; done; mv fetch wget",
    changes: &[
        "USER 1234:5678",
        "ENTRYPOINT [\"/wget\", \"-q\", \"-O\", \"-\"]",
        "CMD [\"http://www.example.com/cmd\"]",
    ],
};

/// Starts as root, prepares its volume, becomes somebody else.
const SERVICE: Image<'_> = Image {
    name: "registry.example:5000/team/service:v1",
    root: "mkdir -p bin etc root proc sys dev tmp srv/pages; chmod 1777 tmp; cp /bin/busybox bin/; echo page > srv/pages/index.html
           for name in $(/bin/busybox --list | grep -v /); do [ $name = busybox ] || ln -s busybox bin/$name; done
           printf 'root:x:0:0:root:/root:/bin/sh\\napp:x:1000:1000:app:/srv:/bin/sh\\n' > etc/passwd
           printf 'root:x:0:\\napp:x:1000:\\n' > etc/group
           printf '#!/bin/sh\\nset -e\\nmkdir -p /data/store; chown app:app /data/store; exec su -s /bin/sh app -c \"$*\"\\n' > entrypoint
           chmod 755 entrypoint",
    changes: &[
        "ENV STORE=/data/store",
        "WORKDIR /srv/pages",
        "VOLUME /data",
        "EXPOSE 80",
        "ENTRYPOINT [\"/entrypoint\"]",
        "CMD [\"id -u; pwd; echo $STORE; touch /data/store/x; stat -c %U /data/store/x; touch /data/y\"]",
    ],
};

#[test]
fn an_image_is_run_as_it_is() {
    for kind in ROWS {
        let world = furnished(kind);
        world.import(&BARE);
        world.import(&SERVICE);
        world.dns.answer("www.example.com", &[at::PUBLIC]);
        world.serve("93.184.216.34:80", Service::Http);
        let before = world.engine_holds();
        let allow = "egret run --rm --resolver 10.20.0.53 --allow www.example.com";
        #[rustfmt::skip]
        let steps: &[_] = &[
            (&*format!("{allow} bare"), 0, "GET /cmd for www.example.com…", ""),
            (&*format!("{allow} bare -- http://www.example.com/other"), 0, "GET /other for www.example.com…", ""),
            (&*format!("{allow} --no-proxy-env bare http://www.example.com/direct"), 0, "GET /direct for www.example.com…", ""),
            (&*format!("{allow} bare http://www.example.net/"), 1, "", "wget: …403…"),
            ("egret run --rm --entrypoint /cat bare /proc/self/status | grep -E '^(Uid|Gid|CapEff)'", 0,
             "Uid:\t1234\t1234\t1234\t1234\nGid:\t5678\t5678\t5678\t5678\nCapEff:\t0000000000000000", ""),
            // It may not leave its directory to others, and it did not.
            ("egret run --rm registry.example:5000/team/service:v1", 1, "1000\n/srv/pages\n/data/store\napp", "touch: /data/y: Permission denied"),
            ("egret run --rm -u app --entrypoint id registry.example:5000/team/service:v1", 0, "uid=1000(app) gid=1000(app)…", ""),
            ("egret run -d registry.example:5000/team/service:v1 httpd -f -p 8000 | tee name | cut -c -8", 0, "service-", ""),
            ("sleep 0.3; egret exec $(cat name) wget -Y off -q -O - http://127.0.0.1:8000/index.html", 0, "page", ""),
            ("egret rm -f $(cat name)", 0, "service-…", ""),
        ];
        transcript(&world, steps);
        // The volumes that it brought are gone with it.
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn a_port_is_the_images_to_listen_on_whichever_it_is() {
    for kind in ROWS {
        let world = furnished(kind);
        world.import(&SERVICE);
        // The last one is next to the gateway's doors, in whose range nothing of the image's can be on purpose.
        let script = "door=${http_proxy##*:}; near=$((door > 65000 ? door - 9 : door + 9))
            for port in 53 80 443 3128 8080 $near; do
                httpd -p 0.0.0.0:$port || echo cannot listen on $port
            done
            httpd -p [::]:8081
            for port in 80 443 3128 8080 $near; do
                [ $(wget -Y off -q -O - http://127.0.0.1:$port/index.html) = page ] || echo $port does not answer
            done
            wget -Y off -q -O - 'http://[::1]:8081/index.html'
            wget -Y off -q -O - http://198.51.100.7/ 2>/dev/null || echo refused
            httpd -p $door 2>/dev/null || echo taken";
        world.machine.write("/srv/script", script);
        let outcome = world
            .typed("egret run --rm -i --entrypoint sh registry.example:5000/team/service:v1 < /srv/script")
            .ok();
        assert_eq!(
            outcome.stdout, "page\nrefused\ntaken\n",
            "{kind:?}: {outcome:#?}"
        );
        outcome.silent();
    }
}

#[test]
fn a_health_check_may_use_loopback() {
    let world = World::with_engine(Kind::Docker);
    let changes = [
        SERVICE.changes,
        &["HEALTHCHECK --interval=1s --timeout=3s CMD wget -q -O /dev/null http://127.0.0.1:8000/index.html || exit 1"],
    ]
    .concat();
    world.import(&Image {
        name: "checked",
        changes: &changes,
        ..SERVICE
    });
    world
        .typed("egret run -d --name box --no-proxy-env checked httpd -f -p 8000")
        .ok();
    let health = [
        "inspect",
        "--format",
        "{{.State.Health.Status}} {{range .State.Health.Log}}{{.Output}}{{end}}",
        "box",
    ];
    until("it is found healthy", || {
        let health = world.docker(&health);
        assert!(!health.starts_with("unhealthy"), "{health}");
        health.starts_with("healthy")
    });
}

#[test]
fn the_options_of_engines_mean_what_they_mean_there() {
    let script = "echo $A,$B,$C,$D,${E-unset}; echo $http_proxy; pwd; id -u; hostname
        touch /x || touch /scratch/x && echo wrote
        cat /ro/file; touch /ro/x || echo from inside > /rw/new; cat /long/new
        echo kept > /things/it
        chown 1000 /scratch || df /dev/shm | tail -n 1";
    let printed = "1,two words,three,4,unset\nmine\n/srv/pages\n0\nsomewhere\nwrote\nfrom outside\nfrom inside\n…16384 …";
    let complaints = "touch: /x: Read-only file system\ntouch: /ro/x: Read-only file system\nchown: /scratch: Operation not permitted";
    for kind in Kind::ALL {
        let world = furnished(kind);
        world.import(&SERVICE);
        let home = kind.user().home();
        let id = kind.user().id();
        world.machine.sh(&format!(
            "mkdir -p {home}/project/shared; echo from outside > {home}/project/shared/file
             printf 'A=1\\nB=two words\\n' > {home}/project/vars; chown -R {id}:{id} {home}/project"
        ));
        world
            .machine
            .write(&format!("{home}/project/script"), script);
        let before = world.engine_holds();
        let image = SERVICE.name;
        #[rustfmt::skip]
        let steps: &[_] = &[
            (&*format!("C=three egret run --rm -i -e C -e D=4 -e E --env-file vars -e http_proxy=mine --hostname somewhere \
                --read-only --tmpfs /scratch --shm-size 16m --cap-drop CHOWN -u 0 -w /srv/pages --pull never \
                -v $PWD/shared:/ro:ro -v ./shared:/rw --mount type=bind,source=$PWD/shared,target=/long,readonly -v things:/things \
                --entrypoint sh {image} < script"), 0, printed, complaints),
            (&*format!("egret run --rm -v things:/data --entrypoint cat {image} /data/it"), 0, "kept", ""),
            ("$EGRET_ENGINE volume rm things", 0, "things", ""),
        ];
        transcript(&world, steps);
        if kind == Kind::Docker {
            let hosts = format!(
                "egret run --rm --name named --add-host db:192.0.2.7 --entrypoint sh {image} -c 'hostname; cat /etc/hosts'"
            );
            transcript(&world, &[(&hosts, 0, "named\n…192.0.2.7\tdb…", "")]);
        }
        // It takes control groups, which Podman without root does not have everywhere.
        if kind != Kind::RootlessPodman {
            world.typed("egret run -d --name box -m 64m -l a=b -l dev.egret.role=agent busybox sleep 100").ok();
            let shown = "{{.HostConfig.Memory}} {{.Config.Labels.a}} {{index .Config.Labels \"dev.egret.role\"}}";
            let shown = world.docker(&["inspect", "--format", shown, "box"]);
            assert_eq!(shown, "67108864 b workload\n", "{kind:?}");
            world.typed("egret rm -f box").ok();
        }
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn standard_input_and_output_carry_every_byte() {
    for kind in ROWS {
        let world = furnished(kind);
        #[rustfmt::skip]
        let steps: &[_] = &[
            ("head -c 1048576 /dev/urandom > bytes; egret run --rm -i busybox cat < bytes | cmp - bytes", 0, "", ""),
            ("egret run --rm -i busybox sh -c 'cat >&2' < bytes 2>&1 >/dev/null | cmp - bytes", 0, "", ""),
            ("egret run -d --name box busybox sleep 1000; egret exec -i box cat < bytes | cmp - bytes", 0, "box", ""),
            ("egret rm -f box", 0, "box", ""),
            // Without -i it reads nothing.
            ("egret run --rm busybox wc -c < bytes", 0, "0", ""),
        ];
        transcript(&world, steps);
    }
}

#[test]
fn a_terminal_is_a_terminal() {
    for kind in ROWS {
        let world = furnished(kind);
        let before = world.engine_holds();
        let run = |options: &[&str], script: &str| {
            let command = shell(&world, options).command(&["sh", "-c", script]);
            Terminal::start(&world, kind.user(), &command)
        };
        let script = "test -t 0 && test -t 1 && echo tty
            is() { stty size 2>&1 | grep -q \"$1\"; }; while ! is '24 80'; do sleep 0.1; done; echo up
            while ! is '40 132'; do sleep 0.1; done; echo resized; read line; echo got $line; exit 5";
        let mut terminal = run(&["-i", "-t"], script);
        terminal.expect("tty\r\nup\r\n");
        // Docker's command listens for new sizes only after it has passed on the first one.
        std::thread::sleep(std::time::Duration::from_millis(300));
        terminal.resize(40, 132);
        terminal.expect("resized");
        terminal.send("hello\n");
        terminal.expect("got hello");
        assert_eq!(terminal.end(), Some(5), "{kind:?}");

        let script = "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.1; done";
        for options in [&["-i", "-t"][..], &["-i"], &[]] {
            let mut terminal = run(options, script);
            terminal.expect("up\r\n");
            terminal.send("\x03");
            terminal.expect("caught");
            assert_eq!(terminal.end(), Some(3), "{kind:?} {options:?}");
        }
        assert_eq!(world.engine_holds(), before, "{kind:?}");
    }
}

#[test]
fn a_signal_to_egret_ends_the_workload() {
    for kind in ROWS {
        let world = furnished(kind);
        let before = world.engine_holds();
        let script = "trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 0.1; done";
        let live = shell(&world, &["--name", "box"]).start(&["sh", "-c", script]);
        until("it is up", || {
            world.typed("egret logs box").stdout == "up\n"
        });
        kill(
            Pid::from_raw(live.child.id().cast_signed()),
            Signal::SIGTERM,
        )
        .unwrap();
        let outcome = live.finish();
        assert_eq!(
            (outcome.code(), outcome.stdout.as_str()),
            (3, "up\ncaught\n"),
            "{kind:?}: {outcome:#?}"
        );
        until("all is removed", || world.engine_holds() == before);
    }
}
