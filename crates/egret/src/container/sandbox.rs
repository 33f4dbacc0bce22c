//! Container sandboxes as the engine has them: found by their labels, removed as a whole. Nothing about them is kept
//! anywhere else.

use super::engine::{Complaint, Engine, Kind};
use super::spec::{agent_name, gateway_name, label};
use crate::failure::Failure;
use std::collections::BTreeMap;

/// What a container is to its sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    // In the order in which they are removed: an engine does not let go of a network namespace that is in use.
    Workload,
    Gateway,
    Agent,
}

impl Role {
    fn named(name: &str) -> Option<Self> {
        match name {
            "workload" => Some(Self::Workload),
            "gateway" => Some(Self::Gateway),
            "agent" => Some(Self::Agent),
            _ => None,
        }
    }
}

/// A container of a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// `running`, `exited`, `created`, …
    pub(crate) state: String,
    /// The state in the engine's words, with how long it has lasted.
    pub(crate) status: String,
    pub(crate) image: String,
    /// Published ports, in the engine's words.
    pub(crate) ports: String,
}

impl Container {
    pub(crate) fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
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

    /// Whether it has, or had, agent and gateway.
    pub(crate) fn is_sealed(&self) -> bool {
        self.containers
            .iter()
            .any(|container| container.role != Role::Workload)
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
    let columns = [
        "{{.Names}}",
        "{{.State}}",
        "{{.Status}}",
        "{{.Image}}",
        "{{.Ports}}",
    ]
    .map(str::to_owned);
    let labels = [label::SANDBOX, label::ROLE].map(|label| of_label(engine, label));
    let format = [&columns[..], &labels].concat().join("\t");
    let filter = format!("label={wanted}");
    let lines = engine
        .output([
            "ps",
            "--all",
            "--no-trunc",
            "--filter",
            &filter,
            "--format",
            &format,
        ])
        .map_err(|complaint| {
            Failure::because(
                format_args!("cannot list the containers of {}", engine.kind),
                &complaint,
            )
        })?;
    Ok(sandboxes(engine, &lines))
}

/// What prints a label in a list.
fn of_label(engine: &Engine, label: &str) -> String {
    match engine.kind {
        Kind::Docker => format!("{{{{.Label \"{label}\"}}}}"),
        Kind::Podman => format!("{{{{index .Labels \"{label}\"}}}}"),
    }
}

fn sandboxes(engine: &Engine, lines: &str) -> Vec<Sandbox> {
    let mut found: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for line in lines.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[name, state, status, image, ports, sandbox, role] = columns.as_slice() else {
            continue;
        };
        let Some(role) = Role::named(role) else {
            continue;
        };
        found
            .entry(sandbox.to_owned())
            .or_default()
            .push(Container {
                name: name.to_owned(),
                role,
                state: plain_state(state),
                status: status.to_owned(),
                image: image.to_owned(),
                ports: ports.to_owned(),
            });
    }
    found
        .into_iter()
        .map(|(name, mut containers)| {
            containers.sort_by_key(|container| container.role);
            Sandbox {
                engine: engine.clone(),
                name,
                containers,
            }
        })
        .collect()
}

/// The state as Docker has it: Podman says how long it has lasted as well.
fn plain_state(state: &str) -> String {
    let word = state
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    match word.as_str() {
        "up" => "running".into(),
        _ => word,
    }
}

/// Why no sandbox can have this name now, if there is a reason.
pub(crate) fn clash(engine: &Engine, name: &str) -> Result<Option<String>, Failure> {
    let names = [name.to_owned(), agent_name(name), gateway_name(name)];
    // The filter is a regular expression, in which a dot is any character; what else may be in a name is nothing special.
    let pattern = names.join("|").replace('.', "\\.");
    let filter = format!("name=^/?({pattern})$");
    let format = format!(
        "{{{{.Names}}}}\t{{{{.State}}}}\t{}",
        of_label(engine, label::SANDBOX)
    );
    let lines = engine
        .output(["ps", "--all", "--filter", &filter, "--format", &format])
        .map_err(|complaint| {
            Failure::because(
                format_args!("cannot list the containers of {}", engine.kind),
                &complaint,
            )
        })?;
    Ok(lines.lines().find_map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[taken, state, sandbox] = columns.as_slice() else { return None };
        if !names.iter().any(|name| name == taken) {
            return None;
        }
        Some(match plain_state(state).as_str() {
            _ if sandbox != name => format!("a container {taken} is there that is not Egret's; choose another --name"),
            "running" | "restarting" | "paused" => {
                format!("a sandbox {name} is running; choose another --name, or remove that one with `egret rm -f {name}`")
            }
            _ => format!("there is a sandbox {name} already; `egret start {name}` starts it again, `egret rm {name}` removes it"),
        })
    }))
}

/// Removes every container and volume that has this label, whatever state they are in. What is gone already is no error.
pub(crate) fn remove_labelled(engine: &Engine, wanted: &str) -> Result<(), Complaint> {
    let filter = format!("label={wanted}");
    for role in ["workload", "gateway", "agent"] {
        let of_role = format!("label={}={role}", label::ROLE);
        let ids = engine.output([
            "ps",
            "--all",
            "--quiet",
            "--no-trunc",
            "--filter",
            &filter,
            "--filter",
            &of_role,
        ])?;
        remove_all(engine, &["rm", "--force", "--volumes"], &ids)?;
    }
    let volumes = engine.output(["volume", "ls", "--quiet", "--filter", &filter])?;
    remove_all(engine, &["volume", "rm", "--force"], &volumes)
}

fn remove_all(engine: &Engine, command: &[&str], names: &str) -> Result<(), Complaint> {
    let names: Vec<&str> = names.split_whitespace().collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut arguments = command.to_vec();
    // Docker does so without being told.
    if engine.kind == Kind::Podman && command.first() == Some(&"rm") {
        arguments.extend(["--time", "0"]);
    }
    arguments.extend(&names);
    match engine.output(arguments) {
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

    #[test]
    fn sandboxes_are_put_together_from_their_containers() {
        let engine = Engine::for_tests(Kind::Docker);
        let lines = "b-egret-agent\trunning\tUp 2 seconds\tlocalhost/egret:1\t\tb\tagent\n\
                     b\texited\tExited (0) 1 second ago\talpine\t\tb\tworkload\n\
                     a\tRunning\tUp 1 second\talpine\t0.0.0.0:1->1/tcp\ta\tworkload\n\
                     c\trunning\tUp\tx\t\tc\tsomething\n\
                     d\tUp 2 minutes ago\tUp 2 minutes ago\tx\t\td\tworkload\n";
        let found = sandboxes(&engine, lines);
        let shape: Vec<_> = found
            .iter()
            .map(|sandbox| {
                (
                    sandbox.name.as_str(),
                    sandbox
                        .containers
                        .iter()
                        .map(|c| (c.role, c.runs()))
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            shape,
            [
                ("a", vec![(Role::Workload, true)]),
                ("b", vec![(Role::Workload, false), (Role::Agent, true)]),
                ("d", vec![(Role::Workload, true)])
            ]
        );
        assert!(found[1].is_sealed() && !found[0].is_sealed());
    }
}
