//! What a run configuration comes to, before any engine is asked: the policy, the mounts, the ports; and every reason not to
//! go on.

use super::config::{HostAccess, Isolation, PolicyText, RunConfig};
use super::engine::Engine;
use super::inside::{Inbound, Settings};
use super::mounts::{Mount, is_plain_name};
use super::openings::openings;
use super::publish::Publish;
use super::spec::Spec;
use crate::failure::Failure;
use crate::files;
use crate::project::Project;
use crate::settings;
use crate::source::{Origin, PolicySource};
use egret_policy::{Filesystem, Language, Policy};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// What is to be sealed, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) policy: Policy,
    /// Where the policy is from, and its text.
    text: Option<(Origin, String)>,
    projects: Vec<Project>,
    mounts: Mounts,
    pub(crate) published: Vec<Publish>,
}

/// What is around a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surroundings {
    /// Agent and gateway.
    Sealed,
    /// No network at all, and the same confinement otherwise.
    NoNetwork,
    /// What the engine gives it.
    Open,
}

impl Surroundings {
    /// Those that a configuration asks for. Where isolation was asked for and cannot be had, it is an error.
    pub(crate) fn of(config: &RunConfig) -> Result<Self, Failure> {
        let network = config.network.as_deref().unwrap_or_default();
        match config.isolate_network {
            Isolation::Off => Ok(Self::Open),
            _ if network == "none" => Ok(Self::NoNetwork),
            Isolation::Asked if config.has_foreign_network() => Err(Failure::new(format!(
                "--network {network}: the network of somebody else cannot be isolated; leave out --network, or add \
                 --isolate-network=false to run without isolation"
            ))),
            Isolation::ByDefault if config.has_foreign_network() => {
                say!(
                    "egret: warning: with --network {network} there is no network isolation, and no policy is enforced"
                );
                Ok(Self::Open)
            }
            _ if config.network.is_some() && !is_plain_name(network) => Err(Failure::new(format!(
                "--network {network}: the gateway's network is given by its name alone; options for it would decide what the gateway can reach"
            ))),
            _ => Ok(Self::Sealed),
        }
    }
}

/// Says which options have no effect where nothing is sealed.
pub(crate) fn warn_of_what_does_nothing(config: &RunConfig) {
    let reason = match config.network.as_deref() {
        Some("none") if config.isolate_network != Isolation::Off => "without a network",
        _ => "without network isolation",
    };
    for (given, option) in [
        (
            config.allow_docker_gateway != HostAccess::Off,
            "--allow-docker-gateway",
        ),
        (config.policy.is_some(), "what --policy says of the network"),
        (!config.allow.is_empty(), "--allow"),
        (!config.deny.is_empty(), "--deny"),
        (!config.resolver.is_empty(), "--resolver"),
        (config.upstream_proxy.is_some(), "--upstream-proxy"),
        (config.ask.is_some(), "--ask"),
    ] {
        if given {
            say!("egret: warning: {option} does nothing {reason}");
        }
    }
}

/// Everything that is mounted, in an isolated container; what may not be is an error with a sentence for each.
fn mounts(config: &RunConfig, shares: &[String]) -> Result<Mounts, Failure> {
    let mut mounts = Mounts::default();
    let mut unread = Vec::new();
    let volumes = config.volume.iter().chain(shares).map(|text| (text, "-v"));
    for (text, option) in volumes.chain(config.mount.iter().map(|text| (text, "--mount"))) {
        let (read, kept) = match option {
            "-v" => (Mount::of_volume(text), &mut mounts.volumes),
            _ => (Mount::of_mount(text), &mut mounts.long),
        };
        let named = format!("{option} {text}");
        match read {
            Ok(mount) => kept.push((mount, named)),
            Err(why) => unread.push(format!("{named}: {why}")),
        }
    }
    let all: Vec<_> = mounts.all().cloned().collect();
    let refused: Vec<String> = unread
        .into_iter()
        .chain(openings(config, &all))
        .chain(beneath_writable(&all))
        .chain(restarted_by_engine(config, &all))
        .collect();
    if refused.is_empty() {
        return Ok(mounts);
    }
    Err(Failure::new(format!(
        "{}\negret: none of this is for an isolated container; --isolate-network=false runs the image without isolation",
        refused.join("\negret: ")
    )))
}

/// A path is looked up again at each start. One that lies in a directory which the workload can write to, by another mount,
/// may be a link by then, to anywhere.
fn beneath_writable(mounts: &[(Mount, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (mount, option) in mounts {
        let Some(path) = mount.path() else { continue };
        let above = mounts.iter().find(|(other, _)| {
            let other_path = other.path();
            other.is_writable()
                && other_path.is_some_and(|other| path != other && path.starts_with(other))
        });
        if let Some((_, above)) = above {
            found.push(format!(
                "{option}: a program could put a link in its place by way of {above}, which has it inside; mount only one of them, or that one read-only"
            ));
        }
    }
    found
}

/// The engine looks a path up again whenever it restarts a container by itself, and nobody is there to look first. What is
/// the system's stays as it is.
fn restarted_by_engine(config: &RunConfig, mounts: &[(Mount, String)]) -> Option<String> {
    let when = config.restart.as_deref().filter(|when| *when != "no")?;
    const SYSTEM: [&str; 7] = ["/usr", "/etc", "/opt", "/bin", "/sbin", "/lib", "/lib64"];
    let may_change = |path: &Path| !SYSTEM.iter().any(|system| path.starts_with(system));
    let (_, option) = mounts
        .iter()
        .find(|(mount, _)| mount.path().is_some_and(may_change))?;
    Some(format!(
        "--restart {when} with {option}: the engine would look that path up by itself at each restart, when it may lead elsewhere; \
         use a volume, or start the sandbox again with `egret start`"
    ))
}

/// Files that Egret goes by, in a directory that the container can write to: what it writes there would hold the next time.
fn own_files_at_risk(
    config: &RunConfig,
    policy: Option<&Path>,
    file: Option<&Path>,
    mounts: &Mounts,
) -> Result<(), Failure> {
    let state = settings::state_directory();
    let config_directory = settings::config_directory();
    let executable = std::env::current_exe().ok();
    let own = [
        (policy, "the policy"),
        (file, "the run configuration"),
        (state.as_deref(), "Egret's logs"),
        (config_directory.as_deref(), "your settings and policies"),
        (executable.as_deref(), "egret itself"),
    ];
    let own = own
        .into_iter()
        .filter_map(|(path, what)| Some((path?, what)));
    let files = config
        .env_file
        .iter()
        .map(|file| (file.as_path(), "a file of variables"));
    for (path, what) in own.chain(files) {
        at_risk(path, what, mounts)?;
    }
    Ok(())
}

/// An engine mounts a directory with all that is in it.
fn nothing_hidden(projects: &[Project], mounts: &Mounts) -> Result<(), Failure> {
    for project in projects {
        for hidden in project.hidden()? {
            let hidden = hidden.canonicalize().unwrap_or(hidden);
            let shows = |(mount, _): &&(Mount, String)| {
                mount
                    .path()
                    .is_some_and(|shown| hidden.starts_with(shown) || shown.starts_with(&hidden))
            };
            if let Some((_, option)) = mounts.all().find(shows) {
                return Err(Failure::new(format!(
                    "{option}: it shows {}, which the project's file {} hides, and a container cannot be shown a part of a directory; \
                     mount what is needed by itself, or add --no-settings",
                    hidden.display(),
                    project.path.display()
                )));
            }
        }
    }
    Ok(())
}

/// Fails if the container could change what is at a path, or below.
fn at_risk(path: &Path, what: &str, mounts: &Mounts) -> Result<(), Failure> {
    // It may be yet to come.
    let there = path
        .ancestors()
        .find_map(|above| Some((above, above.canonicalize().ok()?)));
    let real = match &there {
        Some((above, real)) => {
            let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
            real.join(rest).components().collect()
        }
        None => path.to_owned(),
    };
    let at_risk = mounts.all().find(|(mount, _)| {
        let is_there = |shown: &Path| real.starts_with(shown) || shown.starts_with(&real);
        mount.is_writable() && mount.path().is_some_and(is_there)
    });
    match at_risk {
        Some((_, option)) => Err(Failure::new(format!(
            "{option}: the container could change {what}, {}, which is in there; mount it read-only, or keep that elsewhere",
            real.display()
        ))),
        None => Ok(()),
    }
}

/// Looks at the mounts of a sandbox once more, before it is started again: what they lead to may have changed.
pub(crate) fn check_mounts(config: &RunConfig) -> Result<(), Failure> {
    if matches!(Surroundings::of(config)?, Surroundings::Open) {
        return Ok(());
    }
    let now = mounts(config, &[])?;
    let volumes = now.volumes.iter().zip(now.volumes()).zip(&config.volume);
    let long = now.long.iter().zip(now.long()).zip(&config.mount);
    let changed = volumes
        .chain(long)
        .find(|(((mount, _), now), then)| mount.path().is_some() && now != *then);
    match changed {
        Some((((_, option), _), _)) => Err(Failure::new(format!(
            "{option}: that path leads elsewhere now than when the sandbox was made; remove it and run it anew"
        ))),
        None => Ok(()),
    }
}

/// Mounts by the two options there are for them, each with the words that asked for it.
#[derive(Debug, Default)]
struct Mounts {
    volumes: Vec<(Mount, String)>,
    long: Vec<(Mount, String)>,
}

impl Mounts {
    fn all(&self) -> impl Iterator<Item = &(Mount, String)> {
        self.volumes.iter().chain(&self.long)
    }

    /// Those of `-v`, as they were read.
    fn volumes(&self) -> Vec<String> {
        let mounts = self.volumes.iter();
        mounts.map(|(mount, _)| mount.to_volume()).collect()
    }

    /// Those of `--mount`, as they were read.
    fn long(&self) -> Vec<String> {
        let mounts = self.long.iter();
        mounts.map(|(mount, _)| mount.to_mount()).collect()
    }
}

/// Where a configuration's policy is from, and its text.
fn policy_text(config: &RunConfig) -> Result<Option<(Origin, String)>, Failure> {
    match &config.policy {
        None => Ok(None),
        Some(PolicyText::Named(name)) => {
            let origin = Origin::named(name)?.resolved()?;
            let text = String::from_utf8(origin.read()?)
                .map_err(|_| Failure::new(format!("the policy {origin} is not UTF-8")))?;
            Ok(Some((origin, text)))
        }
        Some(PolicyText::Inline(policy)) => {
            Ok(Some((Origin::at("run-configuration"), policy.clone())))
        }
    }
}

/// The mounts that a policy asks for.
fn shared(policy: &Policy, text: Option<&(Origin, String)>) -> Result<Vec<String>, Failure> {
    let (Some((origin, text)), true) = (text, *policy.filesystem() != Filesystem::default()) else {
        return Ok(Vec::new());
    };
    // OpenShell's are paths in the image.
    match origin.parse_with_language(text.as_bytes())?.1 {
        Language::OpenShell => {
            say!(
                "egret: warning: {origin}: what its `filesystem_policy` says about the image's own files is not enforced in a container"
            );
            Ok(Vec::new())
        }
        _ => files::shares(policy.filesystem()),
    }
}

/// What a policy asks of a container that is not sealed: its mounts, and its privileges.
pub(crate) fn apply_unsealed(config: &mut RunConfig) -> Result<(), Failure> {
    let text = policy_text(config)?;
    let Some((origin, source)) = &text else {
        return Ok(());
    };
    let policy = origin.parse(source.as_bytes())?;
    config.volume.extend(shared(&policy, text.as_ref())?);
    config.weakening.privileged |= policy.privileged().is_some();
    Ok(())
}

impl Plan {
    /// Reads and checks everything that the configuration names.
    ///
    /// `file` is where the configuration is from, if it is from one; `projects` take away.
    pub(crate) fn resolve(
        config: &RunConfig,
        file: Option<&Path>,
        projects: Vec<Project>,
    ) -> Result<Self, Failure> {
        let text = policy_text(config)?;
        let mut source = PolicySource::new(
            text.as_ref().map(|(origin, _)| origin.clone()),
            config.allow.clone(),
            config.deny.clone(),
            config.docker_gateway(),
        );
        source.projects.clone_from(&projects);
        let loaded = source.load_from(text.as_ref().map(|(_, text)| text.as_bytes()))?;
        let policy = loaded.policy;
        let mounts = mounts(config, &shared(&policy, text.as_ref())?)?;
        let named = text.as_ref().and_then(|(origin, _)| origin.file());
        let inline = matches!(config.policy, Some(PolicyText::Inline(_)));
        own_files_at_risk(config, named.filter(|_| !inline), file, &mounts)?;
        nothing_hidden(&projects, &mounts)?;
        if let Some(rule) = policy.names_programs() {
            say!(
                "egret: warning: {rule}: programs in a container are not told apart, so that what `by` and `under` allow is refused"
            );
        }
        Ok(Self {
            published: published(config)?,
            policy,
            text,
            projects,
            mounts,
        })
    }

    /// Puts into a configuration what was found out about it: mounts as they were read, in place of how they were written,
    /// and files by paths that mean the same from anywhere.
    pub(crate) fn settle(&self, config: &mut RunConfig) {
        config.volume = self.mounts.volumes();
        config.mount = self.mounts.long();
        if let (Some(PolicyText::Named(name)), Some((origin, _))) = (&mut config.policy, &self.text)
        {
            *name = origin.to_string();
        }
    }

    /// Fails if the container could put something in the place of a file that is going to be written.
    pub(crate) fn keeps_off(&self, file: &Path) -> Result<(), Failure> {
        let directory = file
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        for path in [file, directory] {
            at_risk(path, "where what is learnt is written", &self.mounts)?;
        }
        Ok(())
    }

    /// Fails if a mount shows files that are the engine's own, wherever it keeps them.
    pub(crate) fn outside_storage(&self, engine: &Engine) -> Result<(), Failure> {
        let mut paths = self
            .mounts
            .all()
            .filter_map(|(mount, option)| Some((mount.path()?, option)))
            .peekable();
        if paths.peek().is_none() {
            return Ok(());
        }
        let storage = engine.storage()?;
        for (path, option) in paths {
            if let Some(own) = storage
                .iter()
                .find(|own| own.starts_with(path) || path.starts_with(own))
            {
                return Err(Failure::new(format!(
                    "{option}: {} keeps its containers in {}; mount what is needed by itself, not what has that in it",
                    engine.kind,
                    own.display()
                )));
            }
        }
        Ok(())
    }

    /// What the gateway is told.
    pub(crate) fn settings(&self, spec: &Spec, hosts: BTreeSet<IpAddr>) -> Settings {
        let config = &spec.config;
        Settings {
            sandbox: spec.name.clone(),
            image: config.image.clone(),
            policy: self.text.clone(),
            projects: self.projects.clone(),
            allow: config.allow.clone(),
            deny: config.deny.clone(),
            allow_docker_gateway: config.allow_docker_gateway.clone(),
            hosts: hosts.into_iter().collect(),
            host_name: spec.opens_host.then(|| spec.kind.host_name().to_owned()),
            resolver: config.resolver.clone(),
            upstream_proxy: config.upstream_proxy.clone(),
            learning: spec.learning,
            ask: config.ask,
            published: self
                .published
                .iter()
                .map(|publish| Inbound {
                    port: publish.port,
                    from_host: publish.address.is_loopback(),
                    http: publish.http,
                })
                .collect(),
        }
    }
}

/// The ports of `-p`, and that of an MCP server over HTTP, on which nothing else is spoken.
pub(crate) fn published(config: &RunConfig) -> Result<Vec<Publish>, Failure> {
    let mut published = Vec::new();
    for text in &config.publish {
        published.extend(Publish::parse(text).map_err(|error| Failure::new(error.to_string()))?);
    }
    let Some(target) = config.target_port else {
        return match config.transport.is_http() {
            true => Err(Failure::new(format!(
                "--transport {} needs --target-port: the port on which the server listens",
                config.transport
            ))),
            false => Ok(published),
        };
    };
    if !config.transport.is_http() {
        return Err(Failure::new(
            "--target-port goes with --transport sse or streamable-http; -p publishes any port",
        ));
    }
    let mut of_server = published
        .iter_mut()
        .filter(|publish| publish.port == target)
        .peekable();
    if of_server.peek().is_none() {
        published.push(Publish {
            address: Ipv4Addr::LOCALHOST.into(),
            host_port: None,
            port: target,
            http: true,
        });
    } else {
        of_server.for_each(|publish| publish.http = true);
    }
    Ok(published)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut RunConfig)) -> RunConfig {
        let mut config = RunConfig::new("x");
        change(&mut config);
        config
    }

    #[test]
    fn what_egret_goes_by_is_at_risk_by_a_mount_above_or_below_it() {
        let own = std::env::temp_dir().join(format!("egret-risk-{}", std::process::id()));
        std::fs::create_dir_all(own.join("real/egret/policies")).unwrap();
        std::os::unix::fs::symlink("real", own.join("link")).unwrap();
        let own = own.canonicalize().unwrap();
        #[rustfmt::skip]
        let table = [
            ("real/egret",     "real",                ":rw", true),
            ("real/egret",     "real/egret",          "",    true),
            ("real/egret",     "real/egret/policies", "",    true),
            ("real/egret",     "real/egret/policies", ":ro", false),
            ("real/egret",     "real/eg",             "",    false),
            ("link/egret",     "real",                "",    true),
            // There is none yet.
            ("link/none/x",    "real",                "",    true),
            ("link/none/x",    "real/none",           "",    true),
            ("link/none/x",    "real/egret",          "",    false),
        ];
        for (path, mount, options, expected) in table {
            let volume = format!("{}/{mount}:/m{options}", own.display());
            let mount = Mount::of_volume(&volume).unwrap();
            let mounts = Mounts {
                volumes: vec![(mount, format!("-v {volume}"))],
                long: Vec::new(),
            };
            let found = at_risk(&own.join(path), "your settings", &mounts);
            assert_eq!(found.is_err(), expected, "{path} {volume}");
        }
        std::fs::remove_dir_all(own).unwrap();
    }

    #[test]
    fn a_container_is_sealed_unless_that_is_switched_off_or_cannot_be_had() {
        use Surroundings::{NoNetwork, Open, Sealed};
        #[rustfmt::skip]
        let table = [
            (Isolation::ByDefault, None,                Some(Sealed)),
            (Isolation::ByDefault, Some("mine"),        Some(Sealed)),
            (Isolation::ByDefault, Some("host"),        Some(Open)),
            (Isolation::ByDefault, Some("container:x"), Some(Open)),
            (Isolation::ByDefault, Some("none"),        Some(NoNetwork)),
            (Isolation::ByDefault, Some("name=host"),   None),
            (Isolation::ByDefault, Some("slirp4netns:allow_host_loopback=true"), None),
            (Isolation::ByDefault, Some(""),            None),
            (Isolation::ByDefault, Some("-x"),          None),
            (Isolation::Asked,     Some("host"),        None),
            (Isolation::Asked,     Some("container:x"), None),
            (Isolation::Asked,     Some("none"),        Some(NoNetwork)),
            (Isolation::Off,       None,                Some(Open)),
        ];
        for (isolation, network, expected) in table {
            let config = config(|config| {
                config.isolate_network = isolation;
                config.network = network.map(str::to_owned);
            });
            assert_eq!(
                Surroundings::of(&config).ok(),
                expected,
                "{isolation:?} {network:?}"
            );
        }
    }

    #[test]
    fn the_port_of_a_server_is_published_and_speaks_http() {
        let of = |transport, target, publish: &[&str]| {
            published(&config(|config| {
                config.transport = transport;
                config.target_port = target;
                config.publish = publish.iter().map(|&text| text.to_owned()).collect();
            }))
            .map(|all| {
                all.into_iter()
                    .map(|one| (one.host_port, one.port, one.http))
                    .collect::<Vec<_>>()
            })
            .ok()
        };
        use super::super::config::Transport::{Sse, Stdio, StreamableHttp};
        assert_eq!(
            of(Stdio, None, &["8080:80"]),
            Some(vec![(Some(8080), 80, false)])
        );
        assert_eq!(of(Sse, Some(80), &[]), Some(vec![(None, 80, true)]));
        assert_eq!(
            of(StreamableHttp, Some(80), &["8080:80", "90"]),
            Some(vec![(Some(8080), 80, true), (None, 90, false)])
        );
        assert_eq!(of(Sse, None, &["80"]), None);
        assert_eq!(of(Stdio, Some(80), &[]), None);
    }
}
