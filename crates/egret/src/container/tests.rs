//! The commands for a sandbox, word for word, and what a run configuration keeps.

use super::config::{HostAccess, Isolation, RunConfig, Transport};
use super::engine::Kind;
use super::publish::Publish;
use super::spec::Spec;
use egret_policy::HostGatewayPorts;
use egret_sandbox::Ports;

fn spec(kind: Kind, change: impl FnOnce(&mut Spec)) -> Spec {
    let mut config = RunConfig::new("ghcr.io/x/server:1");
    config.name = Some("s".parse().unwrap());
    let mut spec = Spec {
        kind,
        name: "s".parse().unwrap(),
        instance: "0123456789ab".into(),
        own_image: "localhost/egret:d1".into(),
        config,
        ports: Ports {
            capture: 61001,
            proxy: 61002,
            dns: 61003,
        },
        published: Vec::new(),
        opens_host: false,
        seccomp: "/calls.json".into(),
        last_capability: 40,
        detach: false,
        remove: false,
        learning: false,
        beside: false,
    };
    change(&mut spec);
    spec
}

/// As a shell would have it, but for the label that has the whole configuration.
fn line(words: Vec<String>) -> String {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("dev.egret.run", _)) => "dev.egret.run=…",
            _ => word,
        })
        .collect::<Vec<_>>()
        .join(" ")
}

const OWN: &str = "--label dev.egret.instance=0123456789ab --pull never --cap-drop ALL --security-opt no-new-privileges --read-only";
const MOUNTED: &str = "--mount type=volume,source=s-egret-0123456789ab,target=/egret,volume-label=dev.egret.sandbox=s,\
    volume-label=dev.egret.instance=0123456789ab";
const SHARED: &str = "--volume s-egret-0123456789ab:/egret";

#[test]
fn nothing_is_run_in_the_probers_place() {
    for (volume, is_run) in [
        ("/x:/bin/egret:ro", false),
        ("/x:/bin/./../bin//egret", false),
        ("v:/bin", false),
        ("/bin:/mnt", true),
        ("/x:/bin/egret2", true),
    ] {
        let with = |change: fn(&mut RunConfig, String)| {
            let mut spec = spec(Kind::Docker, |spec| {
                change(&mut spec.config, volume.to_owned())
            });
            spec.run_own("localhost/egret:d1".into(), vec!["probe".into()])
        };
        assert_eq!(
            with(|config, volume| config.volume.push(volume)).is_ok(),
            is_run,
            "{volume}"
        );
        let long = with(|config, volume| {
            let target = volume.split(':').nth(1).unwrap();
            config.mount.push(format!("type=tmpfs,target={target}"));
        });
        assert_eq!(long.is_ok(), is_run, "{volume}");
    }
}

#[test]
fn the_agent_has_no_network_and_one_capability() {
    assert_eq!(
        line(spec(Kind::Docker, |_| {}).agent()),
        format!(
            "run --name s-egret-agent --label dev.egret.sandbox=s --label dev.egret.role=agent {OWN} {MOUNTED} \
             --network none --cap-add NET_ADMIN --user 0:0 --sysctl net.ipv6.conf.all.disable_ipv6=0 --hostname s \
             --dns 192.0.2.53 --dns-search . localhost/egret:d1 agent 61001,61002,61003"
        )
    );
    // Podman takes no DNS server for a container without a network, and would write the host's address into its hosts file.
    assert_eq!(
        line(
            spec(Kind::Podman, |spec| spec.config.restart =
                Some("always".into()))
            .agent()
        ),
        format!(
            "run --name s-egret-agent --label dev.egret.sandbox=s --label dev.egret.role=agent {OWN} {SHARED} --http-proxy=false \
             --restart always --network none --cap-add NET_ADMIN --user 0:0 --sysctl net.ipv6.conf.all.disable_ipv6=0 \
             --hostname s --no-hosts localhost/egret:d1 agent 61001,61002,61003"
        )
    );
}

const LOGGED: &str = "--log-driver json-file --log-opt max-size=1000000g --log-opt mode=blocking";
const KEPT: &str = "--log-driver k8s-file --log-opt max-size=1000000g";

#[test]
fn the_gateway_has_a_network_and_no_capability() {
    let start = format!(
        "run --name s-egret-gateway --label dev.egret.sandbox=s --label dev.egret.role=gateway {OWN}"
    );
    let end = "--label dev.egret.run=… localhost/egret:d1 gateway";
    let gateway = |kind, change: fn(&mut Spec)| line(spec(kind, change).gateway());
    assert_eq!(
        gateway(Kind::Docker, |_| {}),
        format!("{start} {MOUNTED} --interactive {LOGGED} --user 65532:65532 {end}")
    );
    // The host has a name in there only if something of it is open.
    assert_eq!(
        gateway(Kind::Docker, |spec| spec.opens_host = true),
        format!(
            "{start} {MOUNTED} --interactive {LOGGED} --user 65532:65532 --add-host host.docker.internal:host-gateway {end}"
        )
    );
    assert_eq!(
        gateway(Kind::Podman, |_| {}),
        format!(
            "{start} {SHARED} --http-proxy=false --interactive {KEPT} --user 65532:65532 --no-hosts {end}"
        )
    );
    assert_eq!(
        gateway(Kind::Podman, |spec| spec.opens_host = true),
        format!(
            "{start} {SHARED} --http-proxy=false --interactive {KEPT} --user 65532:65532 {end}"
        )
    );
    let published = gateway(Kind::Docker, |spec| {
        spec.config.network = Some("mine".into());
        spec.published = ["8080:80", "0.0.0.0:9000:90"]
            .iter()
            .flat_map(|text| Publish::parse(text).unwrap())
            .collect();
    });
    assert_eq!(
        published,
        format!(
            "{start} {MOUNTED} --interactive {LOGGED} --user 65532:65532 --network mine --publish 127.0.0.1:8080:20000 --publish 0.0.0.0:9000:20001 {end}"
        )
    );
}

const DROPPED: &str = "--cap-drop DAC_READ_SEARCH --cap-drop SETPCAP --cap-drop LINUX_IMMUTABLE --cap-drop NET_BROADCAST \
    --cap-drop NET_ADMIN --cap-drop NET_RAW --cap-drop IPC_LOCK --cap-drop IPC_OWNER --cap-drop SYS_MODULE \
    --cap-drop SYS_RAWIO --cap-drop SYS_PTRACE --cap-drop SYS_PACCT --cap-drop SYS_ADMIN --cap-drop SYS_BOOT \
    --cap-drop SYS_NICE --cap-drop SYS_RESOURCE --cap-drop SYS_TIME --cap-drop SYS_TTY_CONFIG --cap-drop MKNOD \
    --cap-drop LEASE --cap-drop AUDIT_WRITE --cap-drop AUDIT_CONTROL --cap-drop SETFCAP --cap-drop MAC_OVERRIDE \
    --cap-drop MAC_ADMIN --cap-drop SYSLOG --cap-drop WAKE_ALARM --cap-drop BLOCK_SUSPEND --cap-drop AUDIT_READ \
    --cap-drop PERFMON --cap-drop BPF --cap-drop CHECKPOINT_RESTORE";

#[test]
fn the_workload_is_in_the_agents_network_and_keeps_what_images_need() {
    let kept = "--network container:s-egret-agent --security-opt no-new-privileges --security-opt seccomp=/calls.json --cap-drop ALL \
        --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER --cap-add FSETID --cap-add KILL --cap-add NET_BIND_SERVICE \
        --cap-add SETGID --cap-add SETUID --cap-add SYS_CHROOT";
    let labels = "--name s --label dev.egret.sandbox=s --label dev.egret.role=workload --label dev.egret.instance=0123456789ab \
        --label dev.egret.run=…";
    let proxy = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ]
    .map(|name| format!("--env {name}=http://127.0.0.1:61002"))
    .join(" ");
    let proxy = format!(
        "{proxy} --env NO_PROXY=localhost,127.0.0.1,::1 --env no_proxy=localhost,127.0.0.1,::1"
    );
    assert_eq!(
        line(spec(Kind::Docker, |_| {}).workload()),
        format!("run {labels} {kept} {proxy} ghcr.io/x/server:1")
    );
    let all = spec(Kind::Podman, |spec| {
        spec.detach = true;
        spec.remove = true;
        let config = &mut spec.config;
        for (option, value) in [
            (&mut config.pull, "always"),
            (&mut config.platform, "linux/arm64"),
            (&mut config.restart, "always"),
            (&mut config.memory, "1g"),
            (&mut config.cpus, "0.5"),
            (&mut config.shm_size, "64m"),
            (&mut config.user, "1000"),
            (&mut config.workdir, "/w"),
            (&mut config.entrypoint, "/e"),
            (&mut config.hostname, "h"),
            (&mut config.network, "mine"),
        ] {
            *option = Some(value.to_owned());
        }
        for (option, value) in [
            (&mut config.volume, "v:/v"),
            (&mut config.mount, "type=tmpfs,dst=/m"),
            (&mut config.tmpfs, "/t"),
            (&mut config.label, "k=v"),
            (&mut config.env, "A=b"),
            (&mut config.cap_add, "SYS_NICE"),
            (&mut config.cap_drop, "cap_chown"),
            (&mut config.command, "--flag"),
            (&mut config.add_host, "a:192.0.2.1"),
        ] {
            option.push(value.to_owned());
        }
        config.env_file = vec!["/f".into()];
        config.interactive = true;
        config.tty = true;
        config.read_only = true;
        config.init = true;
        config.no_proxy_env = true;
    });
    let confined = format!(
        "--network container:s-egret-agent --hostname h --security-opt no-new-privileges --security-opt seccomp=/calls.json \
         --cap-drop CHOWN {}",
        DROPPED.replacen(" --cap-drop SYS_NICE", "", 1)
    );
    assert_eq!(
        line(all.workload()),
        format!(
            "run {} --detach --rm --interactive --tty --read-only --init --pull always --platform linux/arm64 \
             --restart always --memory 1g --cpus 0.5 --shm-size 64m --user 1000 --workdir /w --entrypoint /e --volume v:/v \
             --mount type=tmpfs,dst=/m --tmpfs /t --http-proxy=false {} --cap-add SYS_NICE --no-hosts --env-file /f \
             --env A=b ghcr.io/x/server:1 --flag",
            labels.replacen("--label", "--label k=v --label", 1),
            confined
        )
    );
    let podman = line(spec(Kind::Podman, |_| {}).workload());
    assert!(podman.contains(" --no-hosts "), "{podman}");
    // What is added in so many words, Podman gives to users other than root as well.
    assert!(
        podman.contains(DROPPED) && !podman.contains("--cap-add"),
        "{podman}"
    );
    let old = spec(Kind::Podman, |spec| spec.last_capability = 37);
    assert!(line(old.workload()).contains("--cap-drop AUDIT_READ --"));
    assert!(!line(old.workload()).contains("PERFMON"));
    let bare = spec(Kind::Docker, |spec| {
        spec.config.cap_drop = vec!["ALL".into()];
        spec.config.no_proxy_env = true;
    });
    assert!(!line(bare.workload()).contains("--cap-add"));
}

#[test]
fn without_a_network_a_workload_is_confined_all_the_same() {
    let words = line(
        spec(Kind::Docker, |spec| {
            spec.config.network = Some("none".into())
        })
        .without_network(),
    );
    for option in [
        "--network none ",
        "--cap-drop ALL ",
        "seccomp=/calls.json ",
        "no-new-privileges ",
    ] {
        assert!(words.contains(option), "{words}");
    }
    assert!(!words.contains("PROXY"), "{words}");
}

#[test]
fn without_isolation_the_engine_gets_what_was_asked_for() {
    let open = spec(Kind::Docker, |spec| {
        let config = &mut spec.config;
        config.isolate_network = Isolation::Off;
        config.network = Some("host".into());
        config.publish = vec!["80:80".into()];
        config.cap_add = vec!["NET_ADMIN".into()];
        config.weakening.privileged = true;
        config.weakening.pid = Some("host".into());
        config.weakening.device = vec!["/dev/fuse".into()];
    });
    assert_eq!(
        line(open.unsealed()),
        "run --name s --label dev.egret.sandbox=s --label dev.egret.role=workload --label dev.egret.instance=0123456789ab \
         --label dev.egret.run=… --network host --publish 80:80 --cap-add NET_ADMIN --privileged --device /dev/fuse --pid host \
         ghcr.io/x/server:1"
    );
}

#[test]
fn a_configuration_says_no_where_it_says_nothing() {
    let least: RunConfig = r#"{"version": 1, "image": "x"}"#.parse().unwrap();
    assert_eq!(least, RunConfig::new("x"));
    assert_eq!(least.docker_gateway(), None);
    assert_eq!(least.isolate_network, Isolation::ByDefault);
    assert_eq!((least.policy, least.transport), (None, Transport::Stdio));
}

#[test]
fn the_host_is_opened_by_a_flag_by_a_configuration_and_in_code() {
    let ports = |text: &str| -> HostGatewayPorts { text.parse().unwrap() };
    let in_file = |text: &str| -> Result<RunConfig, _> {
        format!(r#"{{"version": 1, "image": "x", "allow_docker_gateway": {text}}}"#).parse()
    };
    for (text, opened) in [
        ("false", None),
        ("true", Some(HostGatewayPorts::ANY)),
        ("[5432, 80]", Some(ports("80,5432"))),
    ] {
        let config = in_file(text).unwrap();
        assert_eq!(config.docker_gateway(), opened, "{text}");
        assert_eq!(
            RunConfig::new("x").with_docker_gateway(opened),
            config,
            "{text}"
        );
        assert_eq!(
            config.to_json().parse::<RunConfig>().unwrap(),
            config,
            "{text}"
        );
    }
    for bad in ["[]", "[0]", "[65536]", "\"yes\"", "null", "1"] {
        assert!(in_file(bad).is_err(), "{bad}");
    }
    assert_eq!(HostAccess::default(), HostAccess::Off);
}

#[test]
fn what_a_configuration_does_not_know_is_an_error() {
    for (text, why) in [
        (r#"{"image": "x"}"#, "version"),
        (r#"{"version": 2, "image": "x"}"#, "version 2"),
        (r#"{"version": 0, "image": "x"}"#, "version 0"),
        (r#"{"version": 1}"#, "image"),
        (
            r#"{"version": 1, "image": "x", "privilegd": true}"#,
            "privilegd",
        ),
        (
            r#"{"version": 1, "image": "x", "transport": "carrier-pigeon"}"#,
            "carrier-pigeon",
        ),
        ("{", "EOF"),
    ] {
        let error = text.parse::<RunConfig>().unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn secrets_are_not_kept() {
    let mut config = RunConfig::new("x");
    config.env = [
        "GITHUB_TOKEN=s3cret",
        "OPENAI_API_KEY=s3cret",
        "LANG=C",
        "HOME",
    ]
    .map(str::to_owned)
    .into();
    config.upstream_proxy = Some("http://me:s3cret@proxy.example:3128".into());
    let kept = config.clone().without_secrets();
    assert_eq!(
        kept.env,
        ["GITHUB_TOKEN", "OPENAI_API_KEY", "LANG=C", "HOME"]
    );
    assert_eq!(
        kept.upstream_proxy.as_deref(),
        Some("http://proxy.example:3128")
    );
    let of_workload = spec(Kind::Docker, |spec| spec.config = config).workload();
    let label = of_workload
        .iter()
        .find(|word| word.starts_with("dev.egret.run="))
        .unwrap();
    assert!(!label.contains("s3cret"), "{label}");
}
