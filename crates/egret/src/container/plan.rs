//! What a run configuration comes to, before any engine is asked: the policy, the mounts, the ports; and every reason not to
//! go on.

use super::config::{HostAccess, Isolation, PolicyText, RunConfig};
use super::inside::{Inbound, Settings};
use super::openings::openings;
use super::publish::Publish;
use super::spec::Spec;
use crate::failure::Failure;
use crate::files;
use crate::source::{Origin, PolicySource};
use egret_policy::{Filesystem, Language, Policy};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// What is to be sealed, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) policy: Policy,
    /// Where the policy is from, and its text.
    text: Option<(Origin, String)>,
    /// `HOST:INSIDE[:ro]`
    pub(crate) shares: Vec<String>,
    pub(crate) published: Vec<Publish>,
}

/// Whether the configuration is one of a sealed sandbox. Where that was asked for and cannot be had, it is an error.
pub(crate) fn is_sealed(config: &RunConfig) -> Result<bool, Failure> {
    let network = config.network.as_deref().unwrap_or_default();
    let foreign =
        network == "host" || network.starts_with("container:") || network.starts_with("ns:");
    match config.isolate_network {
        Isolation::Off => Ok(false),
        // There is nothing to seal. What could undo the engine's own isolation stays refused.
        _ if network == "none" => refuse_openings(config, &[]).map(|()| false),
        Isolation::Asked if foreign => Err(Failure::new(format!(
            "--network {network}: the network of somebody else cannot be isolated; leave out --network, or add --isolate-network=false to run without isolation"
        ))),
        Isolation::ByDefault if foreign => {
            say!(
                "egret: warning: with --network {network} there is no network isolation, and no policy is enforced"
            );
            Ok(false)
        }
        _ => Ok(true),
    }
}

/// Says which options have no effect where nothing is sealed.
pub(crate) fn warn_of_what_does_nothing(config: &RunConfig) {
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
    ] {
        if given {
            say!("egret: warning: {option} does nothing without network isolation");
        }
    }
}

fn refuse_openings(config: &RunConfig, shares: &[String]) -> Result<(), Failure> {
    let openings = openings(config, shares);
    if openings.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{}\negret: none of this is for an isolated container; --isolate-network=false runs the image without isolation",
        openings.join("\negret: ")
    )))
}

/// Where a configuration's policy is from, and its text.
fn policy_text(config: &RunConfig) -> Result<Option<(Origin, String)>, Failure> {
    match &config.policy {
        None => Ok(None),
        Some(PolicyText::Named(name)) => {
            let origin = Origin::named(name).resolved()?;
            let text = String::from_utf8(origin.read()?)
                .map_err(|_| Failure::new(format!("the policy {origin} is not UTF-8")))?;
            Ok(Some((origin, text)))
        }
        Some(PolicyText::Inline(policy)) => Ok(Some((
            Origin::named("run-configuration"),
            policy.to_string(),
        ))),
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
    pub(crate) fn resolve(config: &RunConfig) -> Result<Self, Failure> {
        let text = policy_text(config)?;
        let source = PolicySource::new(
            text.as_ref().map(|(origin, _)| origin.clone()),
            config.allow.clone(),
            config.deny.clone(),
            config.docker_gateway(),
        );
        let policy = source.load_from(text.as_ref().map(|(_, text)| text.as_bytes()))?;
        let shares = shared(&policy, text.as_ref())?;
        refuse_openings(config, &shares)?;
        if let Some(rule) = policy.names_programs() {
            say!(
                "egret: warning: {rule}: programs in a container are not told apart, so that what `by` and `under` allow is refused"
            );
        }
        Ok(Self {
            published: published(config)?,
            policy,
            text,
            shares,
        })
    }

    /// What the gateway is told.
    pub(crate) fn settings(&self, spec: &Spec, hosts: BTreeSet<IpAddr>) -> Settings {
        let config = &spec.config;
        Settings {
            sandbox: spec.name.clone(),
            image: config.image.clone(),
            policy: self.text.clone(),
            allow: config.allow.clone(),
            deny: config.deny.clone(),
            allow_docker_gateway: config.allow_docker_gateway.clone(),
            hosts: hosts.into_iter().collect(),
            host_name: spec.opens_host.then(|| spec.kind.host_name().to_owned()),
            resolver: config.resolver.clone(),
            upstream_proxy: config.upstream_proxy.clone(),
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
fn published(config: &RunConfig) -> Result<Vec<Publish>, Failure> {
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
    fn a_container_is_sealed_unless_that_is_switched_off_or_cannot_be_had() {
        #[rustfmt::skip]
        let table = [
            (Isolation::ByDefault, None,                Some(true)),
            (Isolation::ByDefault, Some("mine"),        Some(true)),
            (Isolation::ByDefault, Some("host"),        Some(false)),
            (Isolation::ByDefault, Some("container:x"), Some(false)),
            (Isolation::ByDefault, Some("none"),        Some(false)),
            (Isolation::Asked,     Some("host"),        None),
            (Isolation::Asked,     Some("container:x"), None),
            (Isolation::Asked,     Some("none"),        Some(false)),
            (Isolation::Off,       None,                Some(false)),
        ];
        for (isolation, network, expected) in table {
            let config = config(|config| {
                config.isolate_network = isolation;
                config.network = network.map(str::to_owned);
            });
            assert_eq!(
                is_sealed(&config).ok(),
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
