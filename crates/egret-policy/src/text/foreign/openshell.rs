//! OpenShell's policies: which programs may reach which endpoints, and with which requests.
//!
//! Source: `docs/reference/policy-schema.mdx` of NVIDIA/OpenShell, and what decides there:
//! `crates/openshell-supervisor-network/{data/sandbox-policy.rego, src/l7, src/proxy}`, `crates/openshell-policy`.
//!
//! What stands apart: [`endpoint`] reads one endpoint, [`requests`] says which requests its rules mean.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Draft, is_said};
use crate::filesystem::Share;
use crate::policy::{Entry, Ports};
use crate::program::{ProgramPattern, Programs};
use crate::report::{Span, did_you_mean};
use crate::request::Requests;
use crate::text::entry::{BadEntry, Side};
use crate::text::reader::{Pairs, get, shown, text_of};
use crate::text::yaml::{Kind, Node, Value};
use crate::visible::visible;

mod endpoint;
mod overlap;
mod requests;

use endpoint::Endpoint;

const KEYS: &[&str] = &[
    "version",
    "filesystem_policy",
    "landlock",
    "process",
    "network_policies",
    "network_middlewares",
];
const POLICY_KEYS: &[&str] = &["name", "endpoints", "binaries"];
/// The most endpoints of a policy; each is compared with every other one.
const MAX_ENDPOINTS: usize = 1024;
/// The most networks of all endpoints, each counted once for every program that may use it.
const MAX_GRANTS: usize = 100_000;

pub(super) fn read(root: &Node<'_>, pairs: &Pairs<'_>, draft: &mut Draft<'_, '_>) {
    if get(pairs, "version").is_none() {
        let help = "add `version: 1`".to_owned();
        draft
            .report
            .error(root.span, "the policy has no `version`", "", Some(help));
    }
    let mut endpoints = Vec::new();
    for (key, value) in draft.report.fields(pairs, KEYS, "a policy of OpenShell's") {
        match key {
            "version" => version(value, draft),
            "filesystem_policy" => filesystem(value, draft),
            "landlock" => landlock(value, draft),
            "process" => process(value, draft),
            "network_policies" => endpoints = network_policies(value, draft),
            _ if is_said(value) => draft.not_yet(
                value,
                "`network_middlewares`",
                "leave it out: Egret changes nothing in requests",
            ),
            _ => {}
        }
    }
    if endpoints.len() > MAX_ENDPOINTS {
        let message = format!("a policy of OpenShell's can have {MAX_ENDPOINTS} endpoints");
        return draft.report.error(root.span, message, "", None);
    }
    let grants = endpoints
        .iter()
        .map(|one| one.whats.len().max(one.refused.len()) * one.programs.iter().count());
    if grants.sum::<usize>() > MAX_GRANTS {
        return too_many(root.span, draft);
    }
    overlap::settle(&mut endpoints, draft);
    for endpoint in endpoints {
        write(endpoint, draft);
    }
}

fn version(value: &Node<'_>, draft: &mut Draft<'_, '_>) {
    if !matches!(&value.value, Value::Scalar(text, Kind::Number) if text == "1") {
        let message = "this version of OpenShell's policies is not known";
        let help = "write `version: 1`".to_owned();
        draft
            .report
            .error(value.span, message, "has to be 1", Some(help));
    }
}

fn network_policies(value: &Node<'_>, draft: &mut Draft<'_, '_>) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    let policies = draft
        .report
        .pairs(value, "`network_policies`")
        .unwrap_or_default();
    let mut names: HashSet<&str> = HashSet::new();
    for (key, value) in policies {
        let Some(name) = draft.report.text(key, "the name of a policy") else {
            continue;
        };
        if !names.insert(name) {
            let message = format!("`{}` stands here twice", shown(name));
            draft.report.error(key.span, message, "", None);
        }
        match &value.value {
            Value::Map(pairs) => network_policy(name, key, pairs, draft, &mut endpoints),
            other => {
                let label = format!("this is {}", other.describe());
                let message = "a network policy is a mapping";
                let help = "it has `endpoints` and `binaries`".to_owned();
                draft.report.error(value.span, message, label, Some(help));
            }
        }
    }
    endpoints
}

fn network_policy(
    key: &str,
    at: &Node<'_>,
    pairs: &Pairs<'_>,
    draft: &mut Draft<'_, '_>,
    endpoints: &mut Vec<Endpoint>,
) {
    let (mut name, mut programs, mut found) = (key, Vec::new(), Vec::new());
    let mut bad = false;
    for (field, value) in draft.report.fields(pairs, POLICY_KEYS, "a network policy") {
        match field {
            "name" => name = draft.report.optional_text(value, "`name`").unwrap_or(key),
            "endpoints" => {
                for item in draft.report.items(value, "`endpoints`") {
                    found.extend(endpoint::read(item, draft));
                }
            }
            _ => {
                for item in draft.report.items(value, "`binaries`") {
                    let program = binary(item, draft);
                    bad |= program.is_none();
                    programs.extend(program);
                }
            }
        }
    }
    for missing in ["endpoints", "binaries"] {
        if get(pairs, missing).is_none_or(|list| !is_said(list)) {
            let message = format!("`{}` opens nothing: it has no `{missing}`", shown(key));
            let help = match missing {
                "binaries" => {
                    "to let every program use its endpoints, add `binaries: [{path: \"/**\"}]`"
                }
                _ => "leave the policy out",
            };
            draft
                .report
                .warning(at.span, message, "", Some(help.to_owned()));
        }
    }
    // Without binaries nobody is meant, where Egret's own entries would mean everybody.
    if programs.is_empty() || bad {
        return;
    }
    // Before each endpoint gets them.
    if found.len().saturating_mul(programs.len()) > MAX_GRANTS {
        return too_many(at.span, draft);
    }
    draft.note(
        "an executable is told by its path; OpenShell also refuses it once its content has changed since its first \
         connection",
    );
    let programs = Programs::new(programs);
    let note: Arc<str> = visible(name).into();
    endpoints.extend(found.into_iter().map(|endpoint| Endpoint {
        programs: programs.clone(),
        note: Some(Arc::clone(&note)),
        ..endpoint
    }));
}

fn too_many(at: Span, draft: &mut Draft<'_, '_>) {
    let message = format!(
        "a network policy can open at most {MAX_GRANTS} endpoints, counted once for each of its binaries"
    );
    let help = "use a wildcard in `path`".to_owned();
    draft.report.error(at, message, "", Some(help));
}

/// A program, or one that it started.
fn binary(item: &Node<'_>, draft: &mut Draft<'_, '_>) -> Option<ProgramPattern> {
    let Value::Map(pairs) = &item.value else {
        let label = format!("this is {}", item.value.describe());
        let help = text_of(item).map(|path| format!("write `path: {}`", shown(path)));
        draft
            .report
            .error(item.span, "an item of `binaries` is a mapping", label, help);
        return None;
    };
    let mut program = None;
    // `harness` meant something once, and is read and left alone by OpenShell, too.
    for (key, value) in draft.report.fields(pairs, &["path", "harness"], "a binary") {
        if key == "path" {
            program = draft.report.parsed(value, "`path`", binary_path);
        }
    }
    if get(pairs, "path").is_none() {
        draft
            .report
            .error(item.span, "a binary has no `path`", "", None);
    }
    program
}

fn binary_path(path: &str) -> Result<ProgramPattern, BadEntry> {
    // Without a `*` OpenShell takes a path as it is written.
    if path.contains('*')
        && let Some(bad) = requests::other_wildcard(path)
    {
        return Err(bad);
    }
    // What is below a directory, and not a file of the directory's name.
    match path.strip_suffix("/**") {
        Some(_) => ProgramPattern::parse(&format!("{path}/*"), true),
        None => ProgramPattern::parse(path, true),
    }
}

fn write(endpoint: Endpoint, draft: &mut Draft<'_, '_>) {
    let ports = Ports::listed(endpoint.ports);
    let like = |entry: Entry| Entry {
        programs: endpoint.programs.clone(),
        note: endpoint.note.clone(),
        ..entry
    };
    if !endpoint.denied.is_empty() {
        let denied = Ports::listed(endpoint.denied);
        for what in &endpoint.whats {
            let entry = draft.entry(what.clone(), denied.clone(), endpoint.span);
            draft.add(Side::Deny, like(entry), endpoint.span);
        }
    }
    if ports.as_slice().is_empty() {
        return;
    }
    for (at, rules) in endpoint.refused {
        for what in &endpoint.whats {
            let entry = draft.entry(what.clone(), ports.clone(), at);
            let requests = Requests::new(rules.clone());
            draft.add(
                Side::Deny,
                Entry {
                    requests,
                    ..like(entry)
                },
                at,
            );
        }
    }
    // No rule that could apply is not the same as none at all, which would take every request.
    if endpoint.requests.as_ref().is_some_and(Vec::is_empty) {
        return;
    }
    let requests = Requests::new(endpoint.requests.unwrap_or_default());
    for what in endpoint.whats {
        let entry = Entry {
            addresses: endpoint.addresses.clone().into(),
            only_addresses: endpoint.only_addresses,
            requests: requests.clone(),
            ..like(draft.entry(what, ports.clone(), endpoint.span))
        };
        draft.add(Side::Allow, entry, endpoint.span);
    }
}

fn filesystem(value: &Node<'_>, draft: &mut Draft<'_, '_>) {
    const KEYS: &[&str] = &["include_workdir", "read_only", "read_write"];
    let Some(pairs) = draft.report.pairs(value, "`filesystem_policy`") else {
        return;
    };
    let (mut workdir, mut listed) = (false, 0);
    for (key, value) in draft.report.fields(pairs, KEYS, "`filesystem_policy`") {
        match key {
            "include_workdir" => workdir = draft.report.flag(value, "`include_workdir`"),
            "read_only" => {
                let paths = paths(value, "`read_only`", draft);
                listed += paths.len();
            }
            _ => {
                let paths = paths(value, "`read_write`", draft);
                listed += paths.len();
                if let Some((root, _)) = paths
                    .iter()
                    .find(|(_, path)| path.trim_end_matches('/').is_empty())
                {
                    let message = "`/` cannot be writable";
                    let help = "name the directories that the program writes to".to_owned();
                    draft.report.error(root.span, message, "", Some(help));
                }
                let all = paths.into_iter().map(|(_, path)| path);
                let (own, written): (Vec<_>, Vec<_>) =
                    all.partition(|path| is_the_sandboxs_own(path));
                draft.policy.filesystem.write = written.into_iter().map(as_outside).collect();
                if !own.is_empty() {
                    draft.note(format!(
                        "of `read_write`, {} left out: every sandbox of Egret's has its own /tmp, /var/tmp, /run, /dev, /proc and /sys",
                        left_out(&own)
                    ));
                }
            }
        }
    }
    if listed > MAX_PATHS {
        let message = format!("`filesystem_policy` can list {MAX_PATHS} paths");
        draft.report.error(value.span, message, "", None);
    }
    if !workdir {
        draft.policy.filesystem.read.push(as_outside("."));
    }
    draft.note(
        "`filesystem_policy` speaks of this machine's files here: `read_write` paths are writable, and everything else can be \
         read, but for what holds secrets, where OpenShell shows only what is listed",
    );
}

/// A path that is the same inside.
fn as_outside(path: &str) -> Share {
    Share {
        host: path.to_owned(),
        inside: None,
    }
}

fn left_out(paths: &[&str]) -> String {
    const MOST: usize = 8;
    let named: Vec<_> = paths.iter().take(MOST).map(|path| shown(path)).collect();
    match (paths.len().checked_sub(MOST), paths) {
        (None | Some(0), [one]) => format!("{} is", shown(one)),
        (None | Some(0), _) => format!("{} are", named.join(", ")),
        (Some(more), _) => format!("{} and {more} more are", named.join(", ")),
    }
}

/// The most paths of a policy, and the most octets of a path.
const MAX_PATHS: usize = 256;
const MAX_PATH: usize = 4096;

fn paths<'n, 's>(
    value: &'n Node<'s>,
    what: &str,
    draft: &mut Draft<'_, '_>,
) -> Vec<(&'n Node<'s>, &'n str)> {
    let mut paths = Vec::new();
    for item in draft.report.items(value, what) {
        let Some(path) = draft.report.text(item, "a path") else {
            continue;
        };
        let bad = match path {
            _ if !path.starts_with('/') => "a path begins with `/`",
            _ if path.split('/').any(|part| part == "..") => "a path has no `..`",
            _ if path.len() > MAX_PATH => "a path has at most 4096 octets",
            _ if path.contains('\0') => "a path has no octet zero",
            _ => {
                paths.push((item, path));
                continue;
            }
        };
        draft.report.error(item.span, bad, "", None);
    }
    paths
}

/// Paths of which every sandbox of Egret's has its own, or which hold nothing that is kept.
fn is_the_sandboxs_own(path: &str) -> bool {
    const OWN: [&str; 6] = ["/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/run"];
    OWN.iter().any(|own| {
        path.strip_prefix(own)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn landlock(value: &Node<'_>, draft: &mut Draft<'_, '_>) {
    const LEVELS: &[&str] = &["best_effort", "hard_requirement"];
    let Some(pairs) = draft.report.pairs(value, "`landlock`") else {
        return;
    };
    for (_, value) in draft.report.fields(pairs, &["compatibility"], "`landlock`") {
        match draft.report.optional_text(value, "`compatibility`") {
            None => {}
            Some(level) if LEVELS.contains(&level) => {}
            Some(level) => {
                let message = format!("`{}` is not a `compatibility`", shown(level));
                let label = "`best_effort` or `hard_requirement`";
                draft
                    .report
                    .error(value.span, message, label, did_you_mean(level, LEVELS));
            }
        }
    }
    draft.note("Egret does not confine files by Landlock alone, so that `landlock` changes nothing: what cannot be confined is not run");
}

fn process(value: &Node<'_>, draft: &mut Draft<'_, '_>) {
    let Some(pairs) = draft.report.pairs(value, "`process`") else {
        return;
    };
    for (key, value) in draft
        .report
        .fields(pairs, &["run_as_user", "run_as_group"], "`process`")
    {
        let Some(who) = draft.report.optional_text(value, &format!("`{key}`")) else {
            continue;
        };
        let number = who.parse::<u32>().is_ok_and(|id| id != 0 && id != u32::MAX);
        if who != "sandbox" && !number {
            let message = format!("`{key}` is `sandbox` or a number from 1 to 4294967294");
            draft.report.error(value.span, message, "", None);
        }
        draft.note("`process` has no effect: a program runs as whoever runs `egret`, without any capabilities");
    }
}
