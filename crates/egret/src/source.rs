//! Where a sandbox's policy comes from, and how it is read again.

use crate::failure::Failure;
use crate::files::is_writable;
use egret_policy::{HostGatewayPorts, Policy};
use egret_sandbox::Mark;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file, if there is one, and flags, which go on top of whatever file is loaded.
#[derive(Debug)]
pub(crate) struct PolicySource {
    pub(crate) allow: Vec<String>,
    pub(crate) deny: Vec<String>,
    pub(crate) host_gateway: Option<HostGatewayPorts>,
    /// What the program may do with which files: a policy that it can write to is not read again.
    pub(crate) marks: Vec<(PathBuf, Mark)>,
    file: Mutex<Option<PathBuf>>,
}

impl PolicySource {
    pub(crate) fn new(
        file: Option<PathBuf>,
        allow: Vec<String>,
        deny: Vec<String>,
        host_gateway: Option<HostGatewayPorts>,
    ) -> Self {
        Self {
            allow,
            deny,
            host_gateway,
            marks: Vec::new(),
            file: Mutex::new(file),
        }
    }

    /// The file that the policy is from now.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes a policy that was read elsewhere; once it is in use, `file` is where it is from.
    pub(crate) fn set_file(&self, file: &Path) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.to_owned());
    }

    /// Reads the policy from its file; without one there are the flags.
    pub(crate) fn load(&self) -> Result<Policy, Failure> {
        match self.file() {
            Some(file) => {
                let text = std::fs::read(&file).map_err(|error| {
                    Failure::because(
                        format_args!("cannot read the policy {}", file.display()),
                        &error,
                    )
                })?;
                self.with_file(&file.display().to_string(), &text)
            }
            None => self.with_flags(Policy::deny_all()),
        }
    }

    /// Reads the policy from its file again.
    ///
    /// Not from where the program can write: what protects a file there is a mount, and one that ends when somebody outside
    /// puts a new file in its place.
    pub(crate) fn reload(&self, sandbox: &str) -> Result<Policy, Failure> {
        match self.file().filter(|file| is_writable(file, &self.marks)) {
            Some(file) => Err(Failure::new(format!(
                "{} lies where the program can write, and is not read again; use `egret policy set {sandbox} FILE`",
                file.display()
            ))),
            None => self.load(),
        }
    }

    /// The policy that `text` and the flags make together.
    pub(crate) fn with_file(&self, name: &str, text: &[u8]) -> Result<Policy, Failure> {
        match Policy::parse(name, text) {
            Ok(parsed) => self.with_flags(parsed.policy),
            Err(errors) => Err(Failure::new(format!(
                "the policy {name} cannot be used\n{errors}"
            ))),
        }
    }

    fn with_flags(&self, mut policy: Policy) -> Result<Policy, Failure> {
        follow_links(&mut policy);
        for text in &self.allow {
            policy
                .add_allow_flag(text)
                .map_err(|error| Failure::new(error.to_string()))?;
        }
        for text in &self.deny {
            policy
                .add_deny_flag(text)
                .map_err(|error| Failure::new(error.to_string()))?;
        }
        if let Some(ports) = self.host_gateway.clone() {
            policy.grant_host_gateway(ports);
        }
        match policy.needs_tls_inspection() {
            Some(rule) => Err(Failure::new(format!(
                "{rule}: `http` on port 443 needs a look inside TLS, which this version cannot take; \
                 give the entry `ports: [80]`, or leave `http` out to allow every request"
            ))),
            None => Ok(policy),
        }
    }
}

/// A process runs what is at the end of a link, and is known by that: `/usr/bin/python3` is `/usr/bin/python3.11`. Links are
/// followed as they are now; what is not there outside is not there in a sandbox either.
fn follow_links(policy: &mut Policy) {
    let followed: Vec<_> = policy
        .executables()
        .filter_map(|path| {
            let end = Path::new(path).canonicalize().ok()?;
            Some((path.to_owned(), end.into_os_string().into_string().ok()?))
        })
        .filter(|(path, end)| path != end)
        .collect();
    for (path, end) in followed {
        policy.add_executable_alias(&path, &end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_needs_a_look_inside_tls_is_not_run() {
        let source = PolicySource::new(None, Vec::new(), Vec::new(), None);
        let load = |entry: &str| {
            let text = format!("version: 1\nallow:\n- {entry}\n");
            source.with_file("p.yaml", text.as_bytes())
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
        assert!(source.with_file("p.yaml", deny.as_bytes()).is_err());
    }
}
