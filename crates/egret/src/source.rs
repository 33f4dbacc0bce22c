//! Where a sandbox's policy comes from, and how it is read again.

pub(crate) mod named;

use crate::failure::Failure;
use crate::files::{self, is_writable};
use crate::project::Project;
use egret_gateway::audit::Basis;
use egret_policy::{HostGatewayPorts, Language, Parsed, Policy};
use egret_sandbox::Mark;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a policy is from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Origin {
    /// A file, and of a policy that has several services, the one that is meant.
    File {
        path: PathBuf,
        service: Option<String>,
        /// What the user calls it, if it is one of the user's own by a name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// A profile that has a name and no file.
    BuiltIn(String),
}

impl Origin {
    /// Reads `FILE`, `FILE#SERVICE`, the name of a built-in profile, or that of a policy of the user's. A file has a slash or
    /// a dot in its name, such as `./FILE`: what lies in the working directory, where programs write, never takes the place
    /// of what has a name. A file that is called so, with its `#`, is that file.
    pub(crate) fn named(text: &str) -> Result<Self, Failure> {
        if Policy::built_in(text).is_some() {
            return Ok(Self::BuiltIn(text.to_owned()));
        }
        let (file, service) = match text.rsplit_once('#') {
            Some((file, service)) if !Path::new(text).exists() => (file, Some(service)),
            _ => (text, None),
        };
        let service = service.map(str::to_owned);
        let (path, name) = match file.contains(['/', '.']) {
            true => (file.into(), None),
            false => (named::path(file)?, Some(file.to_owned())),
        };
        Ok(Self::File {
            path,
            service,
            name,
        })
    }

    /// A file by its path alone, whatever it is called.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self::File {
            path: path.into(),
            service: None,
            name: None,
        }
    }

    /// The same with the file's path as it is whatever the working directory and links.
    pub(crate) fn resolved(self) -> Result<Self, Failure> {
        match self {
            Self::File {
                path,
                service,
                name,
            } => match path.canonicalize() {
                Ok(path) => Ok(Self::File {
                    path,
                    service,
                    name,
                }),
                Err(error) => Err(cannot_read(&path, name.as_deref(), &error)),
            },
            built_in => Ok(built_in),
        }
    }

    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } => Some(path),
            Self::BuiltIn(_) => None,
        }
    }

    /// What is in the file; nothing for what has none.
    pub(crate) fn read(&self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::File { path, name, .. } => files::read_at_most(path, Policy::MAX_OCTETS)
                .map_err(|error| cannot_read(path, name.as_deref(), &error)),
            Self::BuiltIn(_) => Ok(Vec::new()),
        }
    }

    /// The policy that `text`, read from there, is.
    pub(crate) fn parse(&self, text: &[u8]) -> Result<Policy, Failure> {
        Ok(self.parse_with_language(text)?.0)
    }

    /// The same, and the language that it is in.
    pub(crate) fn parse_with_language(&self, text: &[u8]) -> Result<(Policy, Language), Failure> {
        match self {
            Self::File { .. } => {
                let mut parsed = self.parsed(text)?;
                let warnings = parsed.warnings.len();
                if warnings > 0 && std::io::stderr().is_terminal() {
                    let warnings = if warnings == 1 {
                        "1 warning".into()
                    } else {
                        format!("{warnings} warnings")
                    };
                    say!("egret: the policy has {warnings}: egret policy check {self}");
                }
                // These are paths in an image, and OpenShell passes over what is not there.
                if parsed.language == Language::OpenShell {
                    let is_there = |path: &str| Path::new(path).exists();
                    for path in parsed.policy.leave_out_missing(is_there) {
                        say!("egret: {path} is not there, so it is not opened for writing");
                    }
                }
                Ok((parsed.policy, parsed.language))
            }
            Self::BuiltIn(_) => self
                .parsed(text)
                .map(|parsed| (parsed.policy, parsed.language)),
        }
    }

    /// What `text`, read from there, is, without a word to anybody.
    fn parsed(&self, text: &[u8]) -> Result<Parsed, Failure> {
        let unusable =
            |why: String| Failure::new(format!("the policy {self} cannot be used\n{why}"));
        match self {
            Self::File { path, service, .. } => {
                let name = path.display().to_string();
                Policy::parse_service(&name, text, service.as_deref())
                    .map_err(|errors| unusable(errors.to_string()))
            }
            Self::BuiltIn(name) => match Policy::built_in(name) {
                Some(policy) => Ok(Parsed {
                    policy,
                    warnings: Vec::new(),
                    language: Language::ToolHive,
                    notes: Vec::new(),
                }),
                None => Err(unusable("there is none of that name".into())),
            },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                service,
                name,
            } => {
                match name {
                    Some(name) => f.write_str(name)?,
                    None => write!(f, "{}", path.display())?,
                }
                service
                    .iter()
                    .try_for_each(|service| write!(f, "#{service}"))
            }
            Self::BuiltIn(name) => f.write_str(name),
        }
    }
}

fn cannot_read(path: &Path, name: Option<&str>, error: &std::io::Error) -> Failure {
    if let (Some(name), std::io::ErrorKind::NotFound) = (name, error.kind()) {
        return named::unknown(name);
    }
    Failure::because(
        format_args!("cannot read the policy {}", path.display()),
        error,
    )
}

/// A policy, and what it was made of.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) policy: Policy,
    pub(crate) basis: Basis,
}

/// A file or profile, if there is one, and flags, which go on top of whatever is loaded.
#[derive(Debug)]
pub(crate) struct PolicySource {
    pub(crate) host_gateway: Option<HostGatewayPorts>,
    /// What the program may do with which files: a policy that it can write to is not read again.
    pub(crate) marks: Vec<(PathBuf, Mark)>,
    /// What takes away from whatever is loaded.
    pub(crate) projects: Vec<Project>,
    /// Whether everything public is allowed on top of all else, to learn from what is reached.
    pub(crate) learning: bool,
    current: Mutex<Current>,
}

/// What the policy was made of that was loaded last.
#[derive(Clone, Debug, Default)]
struct Current {
    origin: Option<Origin>,
    /// What the file had in it.
    text: Option<Arc<[u8]>>,
    flags: Flags,
}

/// `--allow` and `--deny`, and what was added to them while the sandbox ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) allow: Vec<String>,
    pub(crate) deny: Vec<String>,
}

impl fmt::Display for Flags {
    /// As on a command line, each with a blank in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, entries) in [("--allow", &self.allow), ("--deny", &self.deny)] {
            entries
                .iter()
                .try_for_each(|entry| write!(f, " {flag} {entry}"))?;
        }
        Ok(())
    }
}

impl PolicySource {
    pub(crate) fn new(
        origin: Option<Origin>,
        allow: Vec<String>,
        deny: Vec<String>,
        host_gateway: Option<HostGatewayPorts>,
    ) -> Self {
        Self {
            host_gateway,
            marks: Vec::new(),
            projects: Vec::new(),
            learning: false,
            current: Mutex::new(Current {
                origin,
                text: None,
                flags: Flags { allow, deny },
            }),
        }
    }

    /// What the policy is from now.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.current().origin.clone()
    }

    /// The same in words.
    pub(crate) fn described(&self) -> String {
        let described = match self.origin() {
            Some(origin) => origin.to_string(),
            None => "the options".into(),
        };
        match self.learning {
            true => format!("{described}, and everything public, to learn from it"),
            false => described,
        }
    }

    /// The flags that go on top now.
    pub(crate) fn flags(&self) -> Flags {
        self.current().flags.clone()
    }

    /// Reads the policy from where it is from; without that there are the flags.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let text = self.origin().map(|origin| origin.read()).transpose()?;
        self.load_from(text.as_deref())
    }

    /// The policy of a text that was read elsewhere, or, without one, that of the flags.
    pub(crate) fn load_from(&self, text: Option<&[u8]>) -> Result<Loaded, Failure> {
        match (self.origin(), text) {
            (Some(origin), Some(text)) => self.with_text(&origin, text),
            _ => self.with_flags(Policy::deny_all(), None, &self.flags()),
        }
    }

    /// Reads the policy from its file again.
    ///
    /// Not from where the program can write: what protects a file there is a mount, and one that ends when somebody outside
    /// puts a new file in its place.
    pub(crate) fn reload(&self, sandbox: &str) -> Result<Loaded, Failure> {
        let origin = self.origin();
        let file = origin.as_ref().and_then(Origin::file);
        match file.filter(|file| is_writable(file, &self.marks)) {
            Some(file) => Err(Failure::new(format!(
                "{} lies where the program can write, and is not read again; use `egret policy set {sandbox} FILE`",
                file.display()
            ))),
            None => self.load(),
        }
    }

    /// The policy that `text`, read from `origin`, and the flags make together. If they do, this is where the policy is
    /// from now.
    pub(crate) fn with_text(&self, origin: &Origin, text: &[u8]) -> Result<Loaded, Failure> {
        let loaded = self.with_flags(origin.parse(text)?, Some((origin, text)), &self.flags())?;
        let mut current = self.current();
        current.origin = Some(origin.clone());
        current.text = Some(text.into());
        Ok(loaded)
    }

    /// The policy as it was loaded last, with these flags on top as well, now and whenever it is loaded again.
    pub(crate) fn amend(&self, allow: &[String], deny: &[String]) -> Result<Loaded, Failure> {
        let Current {
            origin,
            text,
            mut flags,
        } = self.current().clone();
        let add = |list: &mut Vec<String>, more: &[String]| {
            for entry in more {
                if !list.contains(entry) {
                    list.push(entry.clone());
                }
            }
        };
        add(&mut flags.allow, allow);
        add(&mut flags.deny, deny);
        let read = origin.as_ref().zip(text.as_deref());
        let policy = match read {
            // Whatever there is to say about it was said when it was loaded.
            Some((origin, text)) => origin.parsed(text)?.policy,
            None => Policy::deny_all(),
        };
        let loaded = self.with_flags(policy, read, &flags)?;
        self.current().flags = flags;
        Ok(loaded)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn basis(&self, read: Option<(&Origin, &[u8])>, flags: &Flags) -> Basis {
        let basis = Basis {
            allow: flags.allow.clone(),
            deny: flags.deny.clone(),
            projects: self.projects.iter().map(Project::basis).collect(),
            learning: self.learning,
            ..Basis::default()
        };
        let mut basis = basis.with_host_gateway(self.host_gateway.as_ref());
        match read {
            Some((Origin::File { path, service, .. }, text)) => {
                basis.file = Some(path.display().to_string());
                basis.service.clone_from(service);
                basis.with_text(text)
            }
            Some((Origin::BuiltIn(name), _)) => {
                basis.file = Some(name.clone());
                basis
            }
            None => basis,
        }
    }

    fn with_flags(
        &self,
        mut policy: Policy,
        read: Option<(&Origin, &[u8])>,
        flags: &Flags,
    ) -> Result<Loaded, Failure> {
        follow_links(&mut policy);
        for text in &flags.allow {
            policy
                .add_allow_flag(text)
                .map_err(|error| Failure::new(error.to_string()))?;
        }
        for text in &flags.deny {
            policy
                .add_deny_flag(text)
                .map_err(|error| Failure::new(error.to_string()))?;
        }
        if self.learning {
            policy.allow_public();
        }
        if let Some(ports) = self.host_gateway.clone() {
            policy.grant_host_gateway(ports);
        }
        for project in &self.projects {
            project.narrow(&mut policy)?;
        }
        if let Some(rule) = policy.privileged() {
            return Err(Failure::new(format!(
                "{rule}: a privileged program could undo its sandbox; leave `privileged` out, or run an image with \
                 --isolate-network=false, as its engine would"
            )));
        }
        match policy.needs_tls_inspection() {
            Some(rule) => Err(Failure::new(format!(
                "{rule}: `http` on port 443 needs a look inside TLS, which this version cannot take; \
                 give the entry `ports: [80]`, or leave `http` out to allow every request"
            ))),
            None => Ok(Loaded {
                policy,
                basis: self.basis(read, flags),
            }),
        }
    }
}

/// The policy that a record tells of, once more; links are followed as they are now.
pub(crate) fn again(basis: &Basis) -> Result<Policy, Failure> {
    let read = match (&basis.file, &basis.text) {
        (Some(file), Some(text)) => {
            let service = basis.service.as_deref();
            let parsed = Policy::parse_service(file, text.as_bytes(), service);
            parsed
                .map_err(|errors| Failure::new(errors.to_string()))?
                .policy
        }
        (Some(name), None) => Policy::built_in(name)
            .ok_or_else(|| Failure::new(format!("there is no profile {name}")))?,
        (None, _) => Policy::deny_all(),
    };
    let host_gateway = basis.host_gateway.as_deref().map(str::parse).transpose();
    let host_gateway =
        host_gateway.map_err(|error| Failure::because("the host gateway", &error))?;
    let mut flags = PolicySource::new(None, basis.allow.clone(), basis.deny.clone(), host_gateway);
    flags.projects = basis.projects.iter().map(Project::of).collect();
    flags.learning = basis.learning;
    Ok(flags.with_flags(read, None, &flags.flags())?.policy)
}

/// A process runs what is at the end of a link, and is known by that: `/usr/bin/python3` is `/usr/bin/python3.11`. Links are
/// followed as they are now; what is not there outside is not there in a sandbox either.
pub(crate) fn follow_links(policy: &mut Policy) {
    let named: BTreeSet<&str> = policy.executables().collect();
    let followed: Vec<_> = named
        .into_iter()
        .filter_map(|path| Some((path.to_owned(), end_of_link(path)?)))
        .collect();
    for (path, end) in followed {
        policy.add_executable_alias(&path, &end);
    }
}

/// What an executable's path leads to on this machine, if that is another path.
pub(crate) fn end_of_link(path: &str) -> Option<String> {
    let end = Path::new(path).canonicalize().ok()?;
    let end = end.into_os_string().into_string().ok()?;
    (end != path).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;
    use egret_policy::{Destination, HostAddresses};

    #[test]
    fn a_policy_that_needs_a_look_inside_tls_is_not_run() {
        let source = PolicySource::new(None, Vec::new(), Vec::new(), None);
        let load = |entry: &str| {
            let text = format!("version: 1\nallow:\n- {entry}\n");
            source.with_text(&Origin::at("p.yaml"), text.as_bytes())
        };
        assert!(load("{host: a.test, ports: [80, 8080], http: [GET /**]}").is_ok());
        for entry in [
            "{host: a.test, http: [GET /**]}",
            "{host: a.test, ports: any, http: [full]}",
        ] {
            let error = load(entry).unwrap_err().to_string();
            assert!(error.starts_with("p.yaml:3: `http` on port 443"), "{error}");
        }
        let deny = "version: 1\nallow: [a.test]\ndeny: [{host: a.test, http: ['POST /**']}]";
        assert!(
            source
                .with_text(&Origin::at("p.yaml"), deny.as_bytes())
                .is_err()
        );
    }

    #[test]
    fn a_policy_that_asks_for_privileges_is_not_run() {
        let source = PolicySource::new(None, Vec::new(), Vec::new(), None);
        let load = |privileged: bool| {
            let text = format!("network: {{}}\nprivileged: {privileged}\n");
            source.with_text(&Origin::at("profile.json"), text.as_bytes())
        };
        assert!(load(false).is_ok());
        let error = load(true).unwrap_err().to_string();
        let expected = "profile.json:2: a privileged program could undo its sandbox";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn what_is_added_while_it_runs_goes_on_top_of_whatever_is_loaded() {
        let (once, twice) = (["b.test".to_owned()], ["d.test:8443".to_owned()]);
        let allows = |loaded: &Loaded, to: &str| {
            let to = Destination::from_authority(to, None).unwrap();
            let hosts = HostAddresses::new([]);
            loaded.policy.compile().decide(&to, None, &hosts).is_ok()
        };
        let source = PolicySource::new(None, vec!["a.test".into()], Vec::new(), None);
        let amended = source.amend(&once, &[]).unwrap();
        assert!(allows(&amended, "a.test:443") && allows(&amended, "b.test:443"));
        assert_eq!(amended.basis.allow, ["a.test", "b.test"]);
        // What cannot be understood changes nothing.
        let error = source.amend(&["c.test".into(), "http://".into()], &[]);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("--allow http://")
        );
        assert_eq!(source.flags().allow, ["a.test", "b.test"]);
        // A policy that comes later is added to as well, and one that is there is not forgotten.
        let named = Origin::named("p.yaml").unwrap();
        let loaded = source.with_text(&named, b"version: 1\nallow: [c.test]");
        assert!(allows(&loaded.unwrap(), "b.test:443"));
        let amended = source.amend(&twice, &["c.test".into()]).unwrap();
        assert!(allows(&amended, "d.test:8443") && !allows(&amended, "c.test:443"));
        assert_eq!(source.origin(), Some(named));
        // The same once more is not there twice.
        source.amend(&twice, &[]).unwrap();
        assert_eq!(source.flags().allow, ["a.test", "b.test", "d.test:8443"]);
    }

    #[test]
    fn a_policy_is_a_file_a_service_in_one_or_a_name() {
        let file = |path: &str, service: Option<&str>| Origin::File {
            path: path.into(),
            service: service.map(str::to_owned),
            name: None,
        };
        #[rustfmt::skip]
        let table = [
            ("p.yaml",         file("p.yaml", None)),
            ("acl.yaml#web",   file("acl.yaml", Some("web"))),
            ("a#b.yaml#web",   file("a#b.yaml", Some("web"))),
            ("network",        Origin::BuiltIn("network".into())),
            ("./network",      file("./network", None)),
            ("conf/networks",  file("conf/networks", None)),
        ];
        for (text, expected) in table {
            assert_eq!(Origin::named(text).unwrap(), expected);
            assert_eq!(expected.to_string(), text);
        }
        for (text, service) in [("networks", None), ("networks#web", Some("web"))] {
            let named = Origin::named(text).unwrap();
            let path = settings::config_directory()
                .unwrap()
                .join("policies/networks.yaml");
            assert_eq!(named.file(), Some(path.as_path()));
            assert_eq!(named.to_string(), text);
            assert!(
                matches!(&named, Origin::File { service: found, .. } if found.as_deref() == service)
            );
        }
        for text in ["", "-", "a b", "a\nb", "caf\u{e9}", "-x", &"a".repeat(65)] {
            let error = Origin::named(text).unwrap_err().to_string();
            assert!(error.contains("cannot be the name of a policy"), "{error}");
        }
        let source = PolicySource::new(
            Some(Origin::named("none").unwrap()),
            Vec::new(),
            Vec::new(),
            None,
        );
        assert_eq!(source.load().unwrap().policy.entries(), 0);
    }
}
