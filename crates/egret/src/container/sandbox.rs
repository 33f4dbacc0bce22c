//! Container sandboxes as the engine has them. Nothing about them is kept anywhere else.
//!
//! They are found by labels, which an image can bring along as well. So a label is only where to look: a container belongs
//! to a sandbox if it has the name that its part has there, and, where the sandbox is sealed, is put together as Egret does
//! it. Whatever is done to one is done by its id, which nobody else can have.

use super::config::{Isolation, RunConfig};
use super::engine::{Complaint, Engine, Kind};
use super::spec::{FIRST_INBOUND, agent_name, gateway_name, label};
use super::{INSTANCE_LENGTH, publish::Publish};
use crate::failure::Failure;
use egret_policy::SandboxId;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// What a container is to its sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    // In the order in which they are removed: an engine does not let go of a network namespace that is in use.
    Workload,
    Gateway,
    Agent,
}

impl Role {
    /// Its name in labels and lists.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Gateway => "gateway",
            Self::Agent => "agent",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Workload, Self::Gateway, Self::Agent]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// The name of the container with this part in a sandbox.
    fn container(self, sandbox: &str) -> String {
        match self {
            Self::Workload => sandbox.to_owned(),
            Self::Gateway => gateway_name(sandbox),
            Self::Agent => agent_name(sandbox),
        }
    }
}

/// A container of a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    /// `running`, `exited`, `created`, …
    pub(crate) state: String,
    /// With which status it ended, if it did.
    pub(crate) exit_code: i64,
    /// When it was started the last time, RFC 3339.
    pub(crate) started: String,
    pub(crate) image: String,
    /// What arrives at its ports: the port and where the host listens for it.
    ports: Vec<(u16, String)>,
    network: String,
    /// Whether it has the name that its part has in the sandbox.
    has_its_name: bool,
    /// The run configuration, as text.
    run: Option<String>,
    /// Whether it says that everything public is open.
    learning: bool,
}

impl Container {
    pub(crate) fn runs(&self) -> bool {
        matches!(
            self.state.as_str(),
            "running" | "paused" | "restarting" | "stopping"
        )
    }

    /// The run configuration that it was made from, if it has one that can be read.
    pub(crate) fn configuration(&self) -> Option<RunConfig> {
        self.run.as_deref()?.parse().ok()
    }

    /// Whether it belongs to the sandbox that its labels name, whose agent this is, if there is one.
    fn belongs(&self, agent: Option<&str>) -> bool {
        if self.role != Role::Workload {
            return self.has_its_name;
        }
        match (self.network.strip_prefix("container:"), agent) {
            // Nobody else is in there, whatever it is called by now.
            (Some(joined), Some(agent)) => joined == agent,
            (Some(_), None) => self.has_its_name,
            // A copy of a sealed workload, with all its labels, is anybody's.
            (None, _) => self.has_its_name && !self.is_of_a_sealed_sandbox(),
        }
    }

    fn is_of_a_sealed_sandbox(&self) -> bool {
        self.configuration().is_some_and(|config| {
            config.isolate_network != Isolation::Off && !config.has_foreign_network()
        })
    }
}

/// A sandbox, or what is left of one.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    pub(crate) name: String,
    pub(crate) containers: Vec<Container>,
}

impl Sandbox {
    pub(crate) fn container(&self, role: Role) -> Option<&Container> {
        self.containers
            .iter()
            .find(|container| container.role == role)
    }

    /// Whether everything public is open to it, to learn from what it reaches.
    pub(crate) fn is_learning(&self) -> bool {
        let gateway = self.container(Role::Gateway);
        gateway.is_some_and(|gateway| gateway.learning)
    }

    /// Whether it has, or had, agent and gateway.
    pub(crate) fn is_sealed(&self) -> bool {
        self.containers
            .iter()
            .any(|container| container.role != Role::Workload)
    }

    /// What the host answers for: `HOST:PORT->PORT`, with the sandbox's ports.
    pub(crate) fn ports(&self) -> String {
        let config = self.containers.iter().find_map(Container::configuration);
        let published: Vec<Publish> = config
            .iter()
            .flat_map(|config| super::plan::published(config).unwrap_or_default())
            .collect();
        let mut text = String::new();
        for container in &self.containers {
            for (port, host) in &container.ports {
                let inside = match container.role {
                    Role::Gateway => port
                        .checked_sub(FIRST_INBOUND)
                        .and_then(|nth| published.get(usize::from(nth)))
                        .map_or(*port, |publish| publish.port),
                    _ => *port,
                };
                let separator = if text.is_empty() { "" } else { ", " };
                // Writing to a String cannot fail.
                let (Ok(()) | Err(_)) = write!(text, "{separator}{host}->{inside}");
            }
        }
        text
    }
}

/// All sandboxes of an engine, in the order of their names.
pub(crate) fn all(engine: &Engine) -> Result<Vec<Sandbox>, Failure> {
    listed(engine, label::SANDBOX)
}

/// The sandbox of this name, if the engine has anything of it.
pub(crate) fn named(engine: &Engine, name: &str) -> Result<Option<Sandbox>, Failure> {
    Ok(listed(engine, &format!("{}={name}", label::SANDBOX))?.pop())
}

fn listed(engine: &Engine, wanted: &str) -> Result<Vec<Sandbox>, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::because(
            format_args!("cannot list the containers of {}", engine.kind),
            error,
        )
    };
    let filter = format!("label={wanted}");
    let ids = engine
        .output(["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter])
        .map_err(|complaint| failed(&complaint))?;
    let mut inspect = vec!["container", "inspect"];
    inspect.extend(ids.split_whitespace());
    if inspect.len() == 2 {
        return Ok(Vec::new());
    }
    // Of those that are gone meanwhile it complains, and prints the others all the same.
    let printed = engine.outcome(inspect).map_err(|error| failed(&error))?;
    let inspected: Vec<Inspected> =
        serde_json::from_slice(&printed.stdout).map_err(|error| failed(&error))?;
    Ok(sandboxes(engine, inspected))
}

/// What `container inspect` says, whichever engine says it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    state: State,
    config: Config,
    host_config: HostConfig,
    network_settings: NetworkSettings,
    /// Podman's.
    #[serde(default)]
    image_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    #[serde(default)]
    exit_code: i64,
    #[serde(default)]
    started_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

/// The sandboxes that these containers make. What only looks like a part of one is left out.
fn sandboxes(engine: &Engine, inspected: Vec<Inspected>) -> Vec<Sandbox> {
    let mut found: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for container in inspected {
        if let Some((sandbox, container)) = part(container) {
            found.entry(sandbox).or_default().push(container);
        }
    }
    let whole = found.into_iter().map(|(name, mut containers)| {
        let agent = containers
            .iter()
            .find(|container| container.role == Role::Agent && container.has_its_name);
        let agent = agent.map(|agent| agent.id.clone());
        containers.retain(|container| container.belongs(agent.as_deref()));
        containers.sort_by_key(|container| container.role);
        Sandbox {
            engine: engine.clone(),
            name,
            containers,
        }
    });
    whole
        .filter(|sandbox| !sandbox.containers.is_empty())
        .collect()
}

/// The sandbox that a container says it is a part of.
fn part(inspected: Inspected) -> Option<(String, Container)> {
    let labels = inspected.config.labels.unwrap_or_default();
    let sandbox: SandboxId = labels.get(label::SANDBOX)?.parse().ok()?;
    let role = Role::named(labels.get(label::ROLE)?)?;
    let name = inspected.name.trim_start_matches('/').to_owned();
    let image = inspected.image_name.unwrap_or(inspected.config.image);
    let ports = inspected.network_settings.ports.unwrap_or_default();
    let ports = ports.into_iter().filter_map(|(port, bindings)| {
        let port = port.split('/').next()?.parse().ok()?;
        let Binding { host_ip, host_port } = bindings?.into_iter().next()?;
        Some((port, format!("{host_ip}:{host_port}")))
    });
    let container = Container {
        id: inspected.id,
        has_its_name: name == role.container(sandbox.as_str()),
        name,
        role,
        state: inspected.state.status.to_ascii_lowercase(),
        exit_code: inspected.state.exit_code,
        started: inspected.state.started_at,
        image,
        ports: ports.collect(),
        network: inspected.host_config.network_mode,
        run: labels.get(label::RUN).cloned(),
        learning: labels.contains_key(label::LEARNING),
    };
    Some((sandbox.to_string(), container))
}

/// Why no sandbox can have this name now, if there is a reason.
pub(crate) fn clash(engine: &Engine, name: &str) -> Result<Option<String>, Failure> {
    let names = [Role::Workload, Role::Agent, Role::Gateway].map(|role| role.container(name));
    // The filter is a regular expression, in which a dot is any character; what else may be in a name is nothing special.
    let pattern = names.join("|").replace('.', "\\.");
    let filter = format!("name=^/?({pattern})$");
    let taken = engine
        .output(["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])
        .map_err(|complaint| {
            Failure::because(
                format_args!("cannot list the containers of {}", engine.kind),
                &complaint,
            )
        })?;
    let Some(taken) = taken
        .lines()
        .find(|taken| names.iter().any(|name| name == taken))
    else {
        return Ok(None);
    };
    Ok(Some(match named(engine, name)? {
        Some(there) if there.containers.iter().any(Container::runs) => format!(
            "a sandbox {name} is running; choose another --name, or remove that one with `egret rm -f {name}`"
        ),
        Some(_) => format!(
            "there is a sandbox {name} already; `egret start {name}` starts it again, `egret rm {name}` removes it"
        ),
        None => format!("a container {taken} is there that is not Egret's; choose another --name"),
    }))
}

/// Removes all of a sandbox: its containers, in whatever state they are, and its volume. What is gone already is no error.
pub(crate) fn remove(sandbox: &Sandbox) -> Result<(), Complaint> {
    let engine = &sandbox.engine;
    for container in &sandbox.containers {
        remove_containers(engine, &container.id)?;
    }
    let filter = format!("label={}={}", label::SANDBOX, sandbox.name);
    let volumes = engine.output(["volume", "ls", "--quiet", "--filter", &filter])?;
    let own: Vec<&str> = volumes
        .split_whitespace()
        .filter(|volume| is_control_volume(volume))
        .collect();
    remove_volumes(engine, &own.join(" "))
}

/// Removes control volumes that no container is left of, of this sandbox or of all; says of which there were any.
pub(crate) fn remove_orphans(
    engine: &Engine,
    name: Option<&str>,
) -> Result<Vec<String>, Complaint> {
    let wanted = match name {
        Some(name) => format!("label={}={name}", label::SANDBOX),
        None => format!("label={}", label::SANDBOX),
    };
    let volumes = engine.output(["volume", "ls", "--quiet", "--filter", &wanted])?;
    let mut removed = Vec::new();
    for volume in volumes
        .split_whitespace()
        .filter(|volume| is_control_volume(volume))
    {
        // One that is in use is no orphan, and the engine keeps it.
        if engine.output(["volume", "rm", volume]).is_ok() {
            removed.extend(
                volume
                    .rsplit_once("-egret-")
                    .map(|(sandbox, _)| sandbox.to_owned()),
            );
        }
    }
    Ok(removed)
}

/// The ids of the containers that one start has made for a part, of which there is one, or none.
pub(crate) fn of_start(engine: &Engine, instance: &str, role: Role) -> Result<String, Complaint> {
    let of_start = format!("label={}={instance}", label::INSTANCE);
    let of_role = format!("label={}={}", label::ROLE, role.name());
    engine.output([
        "ps",
        "--all",
        "--quiet",
        "--no-trunc",
        "--filter",
        &of_start,
        "--filter",
        &of_role,
    ])
}

/// Removes everything that one start has made, known by a word that only it has.
pub(crate) fn undo(engine: &Engine, instance: &str) -> Result<(), Complaint> {
    for role in [Role::Workload, Role::Gateway, Role::Agent] {
        remove_containers(engine, &of_start(engine, instance, role)?)?;
    }
    let filter = format!("label={}={instance}", label::INSTANCE);
    let volumes = engine.output(["volume", "ls", "--quiet", "--filter", &filter])?;
    remove_volumes(engine, &volumes)
}

/// Whether a volume is, by its name, one that agent and gateway share.
pub(crate) fn is_control_volume(name: &str) -> bool {
    let instance = name.rsplit_once("-egret-").map(|(_, instance)| instance);
    instance.is_some_and(|instance| {
        instance.len() == INSTANCE_LENGTH && instance.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

pub(crate) fn remove_containers(engine: &Engine, ids: &str) -> Result<(), Complaint> {
    // Docker waits for nothing when it is told to force it.
    let command: &[&str] = match engine.kind {
        Kind::Docker => &["rm", "--force", "--volumes"],
        Kind::Podman => &["rm", "--force", "--volumes", "--time", "0"],
    };
    remove_all(engine, command, ids)
}

/// Removes control volumes. A container that somebody else is removing as well has one for a moment longer.
fn remove_volumes(engine: &Engine, names: &str) -> Result<(), Complaint> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match remove_all(engine, &["volume", "rm", "--force"], names) {
            Err(complaint) if is_in_use(&complaint) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}

/// Whether a volume could not be removed because of a container.
fn is_in_use(complaint: &Complaint) -> bool {
    ["in use", "being used"]
        .iter()
        .any(|words| complaint.said.contains(words))
}

fn remove_all(engine: &Engine, command: &[&str], names: &str) -> Result<(), Complaint> {
    let names: Vec<&str> = names.split_whitespace().collect();
    if names.is_empty() {
        return Ok(());
    }
    match engine.output(command.iter().chain(&names)) {
        // Somebody else removes it as well.
        Err(complaint)
            if [
                "No such",
                "no such",
                "already in progress",
                "no container with",
            ]
            .iter()
            .any(|gone| complaint.said.contains(gone)) =>
        {
            Ok(())
        }
        outcome => outcome.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OWN: &str = "localhost/egret:0123456789ab";

    /// A container as an engine shows it.
    fn shown(
        name: &str,
        sandbox: &str,
        role: &str,
        image: &str,
        network: &str,
        run: &str,
    ) -> Inspected {
        serde_json::from_value(json!({
            "Id": format!("id-of-{name}"), "Name": format!("/{name}"),
            "State": { "Status": "running", "ExitCode": 0, "StartedAt": "2026-11-22T04:00:00Z" },
            "Config": { "Image": image, "Labels": { label::SANDBOX: sandbox, label::ROLE: role, label::RUN: run } },
            "HostConfig": { "NetworkMode": network },
"NetworkSettings": { "Ports": if role == "gateway" { json!({ "20000/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8099" }], "1/tcp": null }) } else { json!(null) } },
        }))
        .unwrap()
    }

    const SEALED: &str = r#"{"version": 1, "image": "x", "publish": ["8099:80"]}"#;
    const OPEN: &str = r#"{"version": 1, "image": "x", "isolate_network": false}"#;

    fn parts(containers: Vec<Inspected>) -> Vec<(String, Vec<Role>)> {
        sandboxes(&Engine::for_tests(Kind::Docker), containers)
            .into_iter()
            .map(|sandbox| {
                let roles = sandbox.containers.iter().map(|container| container.role);
                (sandbox.name.clone(), roles.collect())
            })
            .collect()
    }

    #[test]
    fn sandboxes_are_put_together_from_their_containers() {
        let containers = vec![
            shown("b-egret-agent", "b", "agent", OWN, "none", SEALED),
            shown(
                "b",
                "b",
                "workload",
                "alpine",
                "container:id-of-b-egret-agent",
                SEALED,
            ),
            shown("b-egret-gateway", "b", "gateway", OWN, "bridge", SEALED),
            shown("a", "a", "workload", "alpine", "host", OPEN),
        ];
        let engine = Engine::for_tests(Kind::Docker);
        assert_eq!(
            sandboxes(&engine, containers)[1].ports(),
            "127.0.0.1:8099->80"
        );
        let containers = vec![
            shown("b-egret-agent", "b", "agent", OWN, "none", SEALED),
            shown(
                "b",
                "b",
                "workload",
                "alpine",
                "container:id-of-b-egret-agent",
                SEALED,
            ),
            shown("a", "a", "workload", "alpine", "host", OPEN),
        ];
        assert_eq!(
            parts(containers),
            [
                ("a".to_owned(), vec![Role::Workload]),
                ("b".to_owned(), vec![Role::Workload, Role::Agent]),
            ]
        );
    }

    #[test]
    fn what_only_has_the_labels_is_no_part() {
        let none: Vec<(String, Vec<Role>)> = Vec::new();
        for (name, sandbox, role, image, network) in [
            ("other", "b", "workload", "alpine", "bridge"),
            ("c-egret-agent", "b", "agent", "alpine", "none"),
            ("b-egret-agent", "b", "gateway", OWN, "bridge"),
            // A copy of a workload, with all its labels, that somebody runs under its name.
            ("b", "b", "workload", "alpine", "bridge"),
            ("b", "B\nx", "workload", "alpine", "container:x"),
            ("b", "b", "manager", "alpine", "container:x"),
        ] {
            let container = shown(name, sandbox, role, image, network, SEALED);
            assert_eq!(parts(vec![container]), none, "{name} {role}");
        }
        // One that was renamed is in the agent's network still.
        let containers = vec![
            shown("b-egret-agent", "b", "agent", OWN, "none", SEALED),
            shown(
                "c",
                "b",
                "workload",
                "alpine",
                "container:id-of-b-egret-agent",
                SEALED,
            ),
        ];
        assert_eq!(
            parts(containers),
            [("b".to_owned(), vec![Role::Workload, Role::Agent])]
        );
        // The agent is there, and the workload is in another one's network.
        let containers = vec![
            shown("b-egret-agent", "b", "agent", OWN, "none", SEALED),
            shown("b", "b", "workload", "alpine", "container:other", SEALED),
        ];
        assert_eq!(parts(containers), [("b".to_owned(), vec![Role::Agent])]);
    }
}
