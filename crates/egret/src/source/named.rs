//! Policies that have names: the files `policies/NAME.yaml` in the user's own directory.
//!
//! A name is never looked for anywhere else. In particular not in the working directory, which programs can write to.

use crate::failure::Failure;
use crate::settings;
use egret_policy::visible;
use std::io;
use std::path::PathBuf;

/// Longer than anybody types.
const LONGEST: usize = 64;

/// The file of the policy that is called `name`, whether or not there is one.
pub(crate) fn path(name: &str) -> Result<PathBuf, Failure> {
    if !is_name(name) {
        return Err(Failure::new(format!(
            "{:?} cannot be the name of a policy, which has letters, digits, `-` and `_`; a file is written with a slash, as in ./{}",
            name,
            visible(name)
        )));
    }
    Ok(directory()?.join(format!("{name}.yaml")))
}

/// Where they are.
pub(crate) fn directory() -> Result<PathBuf, Failure> {
    let directory = settings::config_directory().ok_or_else(|| {
        Failure::new("there is no place for policies that have names: set HOME, or give a file, as in ./policy.yaml")
    })?;
    Ok(directory.join("policies"))
}

/// Their names, in order.
pub(crate) fn names() -> Result<Vec<String>, Failure> {
    let directory = directory()?;
    let failed = |error: &io::Error| {
        Failure::because(format_args!("cannot list {}", directory.display()), error)
    };
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed(&error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(|error| failed(&error))?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".yaml"));
        names.extend(name.filter(|name| is_name(name)).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// That there is no policy of this name, and which ones there are.
pub(crate) fn unknown(name: &str) -> Failure {
    let there = match names() {
        Ok(names) if names.is_empty() => "there are none yet".to_owned(),
        Ok(names) => format!("there are {}", names.join(", ")),
        Err(failure) => failure.to_string(),
    };
    let directory = match directory() {
        Ok(directory) => directory.display().to_string(),
        Err(failure) => return failure,
    };
    Failure::new(format!(
        "there is no policy called `{name}` in {directory}: {there}; a file is written with a slash, as in ./{name}"
    ))
}

/// Whether a policy can be called so.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(plain)
}
