//! The image of agent and gateway: this very executable, and nothing else. It is made once, from what runs now, and is told
//! by its digest; nothing is pulled.

use super::engine::{Engine, printed};
use super::spec::{CONTROL, label};
use crate::failure::Failure;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::process::Stdio;

/// Where the executable is in the image.
pub(crate) const PROGRAM: &str = "/bin/egret";
/// What the images are called; the tag is a digest.
pub(crate) const REPOSITORY: &str = "localhost/egret";

/// The name of the image, which is made if the engine does not have it.
pub(crate) fn own_image(engine: &Engine) -> Result<String, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::because("cannot make the image of egret itself", error)
    };
    let executable = Executable::read().map_err(|error| failed(&error))?;
    let name = executable.image_name();
    let is_there = || match engine.output(["image", "inspect", "--format", "{{.Id}}", &name]) {
        Ok(_) => Ok(true),
        Err(complaint)
            if ["o such image", "not known"]
                .iter()
                .any(|none| complaint.said.contains(none)) =>
        {
            Ok(false)
        }
        Err(complaint) => Err(Failure::because(
            format_args!("{} does not answer", engine.kind),
            &complaint,
        )),
    };
    if is_there()? {
        return Ok(name);
    }
    // Of many that start at once one makes it. The lock is on the executable and ends with its holder.
    executable.file.lock().map_err(|error| failed(&error))?;
    if is_there()? {
        return Ok(name);
    }
    let archive = executable.archive().map_err(|error| failed(&error))?;
    let mut import = engine
        .command([
            "import",
            "--change",
            &format!("ENTRYPOINT [\"{PROGRAM}\"]"),
            "--change",
            &format!("LABEL {}={}", label::IMAGE, env!("CARGO_PKG_VERSION")),
            "-",
            &name,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let fed = match import.stdin.take() {
        Some(mut stdin) => stdin.write_all(&archive),
        None => Ok(()),
    };
    printed(import.wait_with_output()).map_err(|complaint| failed(&complaint))?;
    fed.map_err(|error| failed(&error))?;
    Ok(name)
}

/// The name that the image of this executable has, whether or not it is there.
pub(crate) fn own_image_name() -> io::Result<String> {
    Ok(Executable::read()?.image_name())
}

struct Executable {
    file: File,
    bytes: Vec<u8>,
}

impl Executable {
    fn read() -> io::Result<Self> {
        // Not by its path: what runs now may have been replaced there since.
        let mut file = File::open("/proc/self/exe")?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Self { file, bytes })
    }

    fn image_name(&self) -> String {
        let digest = Sha256::digest(&self.bytes);
        let short: String = digest
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{REPOSITORY}:{short}")
    }

    /// A tar archive of the image's whole root.
    fn archive(&self) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::with_capacity(self.bytes.len() + 8192));
        let mut header = |path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(u64::try_from(bytes.len()).map_err(io::Error::other)?);
            archive.append_data(&mut header, path.trim_start_matches('/'), bytes)
        };
        let Some((directory, _)) = PROGRAM.rsplit_once('/') else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        header(directory, tar::EntryType::Directory, 0o755, &[])?;
        header(PROGRAM, tar::EntryType::Regular, 0o755, &self.bytes)?;
        // What is mounted here takes over owner and mode: both containers make files in it, and neither those of the other.
        header(CONTROL, tar::EntryType::Directory, 0o1777, &[])?;
        archive.into_inner()
    }
}
