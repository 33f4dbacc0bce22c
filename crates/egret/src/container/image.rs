//! The image of agent and gateway: this very executable, and nothing else. It is made once, from what runs now; nothing is
//! pulled.
//!
//! It has a name that tells its content, and is not believed for that: any archive that an engine loads can bring an image of
//! that name along. What is in it is compared, and it is run by its id.

use super::engine::{Engine, printed};
use super::spec::{CONTROL, label};
use crate::failure::Failure;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::process::Stdio;

/// Where the executable is in the image.
pub(crate) const PROGRAM: &str = "/bin/egret";
/// What the images are called; the tag is the beginning of a digest.
pub(crate) const REPOSITORY: &str = "localhost/egret";

/// The id of the image, which is made if the engine does not have it.
pub(crate) fn own_image(engine: &Engine) -> Result<String, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::because("cannot make the image of egret itself", error)
    };
    let own = Own::new().map_err(|error| failed(&error))?;
    if let Some(id) = own.find(engine)? {
        return Ok(id);
    }
    // Of many that start at once one makes it. The lock is on the executable and ends with its holder.
    own.executable.lock().map_err(|error| failed(&error))?;
    if let Some(id) = own.find(engine)? {
        return Ok(id);
    }
    let mut import = engine
        .command([
            "import",
            "--change",
            &format!("ENTRYPOINT [\"{PROGRAM}\"]"),
            "--change",
            &format!("LABEL {}={}", label::IMAGE, env!("CARGO_PKG_VERSION")),
            "-",
            &own.name(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let fed = match import.stdin.take() {
        Some(stdin) => archive(&own.executable, stdin).map(|_| ()),
        None => Ok(()),
    };
    printed(import.wait_with_output()).map_err(|complaint| failed(&complaint))?;
    fed.map_err(|error| failed(&error))?;
    own.find(engine)?.ok_or_else(|| {
        Failure::new(format!(
            "cannot make the image of egret itself: {} has something else under the name {}",
            engine.kind,
            own.name()
        ))
    })
}

/// The name that the image of this executable has, whether or not it is there.
pub(crate) fn own_image_name() -> io::Result<String> {
    Ok(Own::new()?.name())
}

/// The image as it has to be.
struct Own {
    executable: File,
    /// Of the archive, in hexadecimal digits: what engines call the layer's diff id.
    digest: String,
}

/// What `image inspect` says, whichever engine says it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(rename = "RootFS")]
    root: Root,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Root {
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    volumes: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default)]
    healthcheck: Option<serde_json::Value>,
}

impl Own {
    fn new() -> io::Result<Self> {
        // Not by its path: what runs now may have been replaced there since.
        let executable = File::open("/proc/self/exe")?;
        let digest = archive(&executable, Hashed::default())?.0.finalize();
        Ok(Self {
            executable,
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    fn name(&self) -> String {
        format!(
            "{REPOSITORY}:{}",
            self.digest.get(..12).unwrap_or(&self.digest)
        )
    }

    /// The id of the image, if the engine has it under its name and it is what it has to be.
    fn find(&self, engine: &Engine) -> Result<Option<String>, Failure> {
        let text = match engine.output(["image", "inspect", &self.name()]) {
            Ok(text) => text,
            Err(complaint)
                if ["o such image", "not known"]
                    .iter()
                    .any(|none| complaint.said.contains(none)) =>
            {
                return Ok(None);
            }
            Err(complaint) => {
                return Err(Failure::because(
                    format_args!("{} does not answer", engine.kind),
                    &complaint,
                ));
            }
        };
        let inspected: Vec<Inspected> = serde_json::from_str(&text).map_err(|error| {
            Failure::because(
                format_args!("{} says something odd of an image", engine.kind),
                &error,
            )
        })?;
        Ok(inspected
            .into_iter()
            .find(|image| self.is(image))
            .map(|image| image.id))
    }

    /// Whether there is nothing in an image but this executable, and nothing else is done when it is run.
    fn is(&self, image: &Inspected) -> bool {
        let Config {
            entrypoint,
            cmd,
            env,
            volumes,
            healthcheck,
        } = &image.config;
        let layers = image.root.layers.as_deref().unwrap_or_default();
        let nothing = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        let path_only =
            |env: &Vec<String>| env.iter().all(|variable| variable.starts_with("PATH="));
        layers == [format!("sha256:{}", self.digest)]
            && entrypoint.as_deref() == Some(&[PROGRAM.to_owned()])
            && nothing(cmd)
            && env.as_ref().is_none_or(path_only)
            && volumes.as_ref().is_none_or(serde_json::Map::is_empty)
            && healthcheck.is_none()
    }
}

/// Whatever is written is hashed.
#[derive(Default)]
struct Hashed(Sha256);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a tar archive of the whole root, always the same for a program: that, and the directory that the control volume
/// is mounted at. What is mounted there takes over owner and mode: both containers make files in it, and neither those of
/// the other.
fn archive<W: Write>(mut program: &File, to: W) -> io::Result<W> {
    let size = program.metadata()?.len();
    program.rewind()?;
    let mut archive = tar::Builder::new(to);
    let mut entry =
        |path: &str, kind: tar::EntryType, mode: u32, size: u64, bytes: &mut dyn Read| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size);
            archive.append_data(&mut header, path.trim_start_matches('/'), bytes)
        };
    let Some((directory, _)) = PROGRAM.rsplit_once('/') else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // Piece by piece, and in large ones.
    let mut program = BufReader::with_capacity(1 << 17, program);
    entry(
        directory,
        tar::EntryType::Directory,
        0o755,
        0,
        &mut io::empty(),
    )?;
    entry(PROGRAM, tar::EntryType::Regular, 0o755, size, &mut program)?;
    entry(
        CONTROL,
        tar::EntryType::Directory,
        0o1777,
        0,
        &mut io::empty(),
    )?;
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_is_known_by_what_is_in_it() {
        let own = Own::new().unwrap();
        assert_eq!(own.digest, Own::new().unwrap().digest);
        let image = |change: fn(&mut serde_json::Value)| {
            let mut shown = json!({
                "Id": "sha256:1", "RootFS": { "Type": "layers", "Layers": [format!("sha256:{}", own.digest)] },
                "Config": { "Entrypoint": [PROGRAM], "Env": ["PATH=/bin"], "Labels": {}, "Cmd": null, "User": "" },
            });
            change(&mut shown);
            own.is(&serde_json::from_value(shown).unwrap())
        };
        assert!(image(|_| {}));
        assert!(!image(
            |shown| shown["RootFS"]["Layers"] = json!(["sha256:0"])
        ));
        assert!(!image(|shown| shown["RootFS"]["Layers"]
            .as_array_mut()
            .unwrap()
            .push(json!("sha256:0"))));
        assert!(!image(|shown| shown["RootFS"]["Layers"] = json!(null)));
        assert!(!image(
            |shown| shown["Config"]["Entrypoint"] = json!(["/bin/sh"])
        ));
        assert!(!image(|shown| shown["Config"]["Cmd"] = json!(["x"])));
        assert!(!image(
            |shown| shown["Config"]["Env"] = json!(["LD_PRELOAD=x"])
        ));
        assert!(!image(
            |shown| shown["Config"]["Volumes"] = json!({ "/egret": {} })
        ));
        assert!(!image(
            |shown| shown["Config"]["Healthcheck"] = json!({ "Test": ["CMD", "x"] })
        ));
    }
}
