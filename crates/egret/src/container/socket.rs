//! What Docker's command is asked most, asked without it, at the daemon's own socket.
//!
//! To start the command takes several times as long as the daemon takes to answer, and around every sandbox there are some
//! questions. So a few commands are known here for what they send. Any other, and all that does not go well, is left to the
//! command itself, which then says what the matter is: nothing depends on this but time. What is here can be done twice.
//!
//! It has to be the daemon that the command would ask. So the command is a program and not somebody's script, neither a
//! context nor another machine was chosen, and whoever answers has to call itself Docker.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};

/// The socket of a daemon on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket(PathBuf);

impl Socket {
    /// The one that Docker's command uses, if it uses one. `host` is what was chosen instead of the usual one.
    pub(super) fn of(command: &Path, host: Option<&str>) -> Option<Self> {
        let path = match host {
            None => "/var/run/docker.sock",
            Some(host) => host.strip_prefix("unix://")?,
        };
        let mut beginning = [0; 4];
        File::open(command)
            .and_then(|mut file| file.read_exact(&mut beginning))
            .ok()?;
        (beginning == *b"\x7fELF").then(|| Self(path.into()))
    }

    /// What a command would have printed, if it is known here and has gone well.
    pub(super) fn output(&self, words: &[&str]) -> Option<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        match *words {
            ["image", "inspect", name] => stdout = self.all("images", &[name], "/json")?,
            ["network", "inspect", ref ids @ ..] => stdout = self.all("networks", ids, "")?,
            ["container", "inspect", ref ids @ ..] => {
                stdout = self.all("containers", ids, "/json")?;
            }
            ["network", "ls", "--format", "{{.ID}}"] => {
                let networks = self.list("/networks")?;
                stdout = lines(networks.into_iter().map(|network| network.id));
            }
            ["ps", "--all", "--quiet", "--no-trunc", ref filters @ ..] => {
                let filters = filters_of(filters)?;
                let found = self.list(&format!("/containers/json?all=1&filters={filters}"))?;
                stdout = lines(found.into_iter().map(|container| container.id));
            }
            ["ps", "--all", "--filter", filter, "--format", "{{.Names}}"] => {
                let filters = filters_of(&["--filter", filter])?;
                let found = self.list(&format!("/containers/json?all=1&filters={filters}"))?;
                let names = found.iter().flat_map(|container| &container.names);
                stdout = lines(names.map(|name| name.trim_start_matches('/').to_owned()));
            }
            ["stop", "--time", seconds, name] => {
                let (name, seconds) = (plain(name)?, plain(seconds)?);
                self.ask("POST", &format!("/containers/{name}/stop?t={seconds}"))?;
            }
            ["rm", "--force", "--volumes", name] => {
                let name = plain(name)?;
                self.ask("DELETE", &format!("/containers/{name}?force=1&v=1"))?;
            }
            ["volume", "ls", "--quiet", ref filters @ ..] => {
                let path = format!("/volumes?filters={}", filters_of(filters)?);
                let found: Volumes = serde_json::from_slice(&self.ask("GET", &path)?).ok()?;
                let found = found.volumes.into_iter().flatten();
                stdout = lines(found.map(|volume| volume.name));
            }
            ["volume", "rm", name] | ["volume", "rm", "--force", name] => {
                self.ask("DELETE", &format!("/volumes/{}", plain(name)?))?;
            }
            ["logs", name] => {
                let path = format!("/containers/{}/logs?stdout=1&stderr=1", plain(name)?);
                (stdout, stderr) = streams(&self.ask("GET", &path)?)?;
            }
            _ => return None,
        }
        Some(Output {
            status: ExitStatus::from_raw(0),
            stdout,
            stderr,
        })
    }

    /// What `inspect` prints of all that is named.
    fn all(&self, kind: &str, names: &[&str], what: &str) -> Option<Vec<u8>> {
        let ask = |name: &&str| self.ask("GET", &format!("/{kind}/{}{what}", plain(name)?));
        let objects: Vec<_> = names.iter().map(ask).collect::<Option<_>>()?;
        Some([b"[".as_slice(), &objects.join(b",".as_slice()), b"]"].concat())
    }

    fn list(&self, path: &str) -> Option<Vec<Listed>> {
        serde_json::from_slice(&self.ask("GET", path)?).ok()
    }

    /// The body of a good and whole answer.
    fn ask(&self, method: &str, path: &str) -> Option<Vec<u8>> {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
        let mut stream = UnixStream::connect(&self.0).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        body(&answer)
    }
}

/// What is needed of something in a list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volumes {
    volumes: Option<Vec<Volume>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    name: String,
}

fn lines(words: impl Iterator<Item = String>) -> Vec<u8> {
    words
        .flat_map(|word| word.into_bytes().into_iter().chain([b'\n']))
        .collect()
}

/// `--filter KIND=VALUE …`, as a path has it.
fn filters_of(words: &[&str]) -> Option<String> {
    let mut filters: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let (pairs, []) = words.as_chunks() else {
        return None;
    };
    for &[option, filter] in pairs {
        let (kind, value) = filter.split_once('=').filter(|_| option == "--filter")?;
        filters.entry(kind).or_default().push(value);
    }
    let text = serde_json::to_string(&filters).ok()?;
    Some(text.bytes().map(|byte| format!("%{byte:02x}")).collect())
}

/// A word that means itself in a path.
fn plain(word: &str) -> Option<&str> {
    let means_itself = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
    let whole = !word.is_empty() && !word.contains("..") && !word.starts_with(['/', '-']);
    (whole && word.bytes().all(means_itself)).then_some(word)
}

/// The body of an HTTP response, if it is one of Docker's, says that all is well, and has arrived as a whole.
pub(crate) fn body(response: &[u8]) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(response).ok()? else {
        return None;
    };
    let (code, rest) = (head.code?, response.get(length..)?);
    let header = |name: &str| {
        let mut named = head
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        named
            .next()
            .and_then(|header| str::from_utf8(header.value).ok())
    };
    if !header("Server").is_some_and(|server| server.starts_with("Docker/")) {
        return None;
    }
    match (code, header("Transfer-Encoding"), header("Content-Length")) {
        (204 | 304, ..) => Some(Vec::new()),
        (200, Some("chunked"), _) => joined(rest),
        (200, None, Some(length)) => (length.parse() == Ok(rest.len())).then(|| rest.to_vec()),
        _ => None,
    }
}

/// What was sent in chunks, if the last one is there.
fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(chunks.len());
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(chunks).ok()?
        else {
            return None;
        };
        if size == 0 {
            return Some(whole);
        }
        let (chunk, rest) = chunks
            .get(start..)?
            .split_at_checked(usize::try_from(size).ok()?)?;
        whole.extend_from_slice(chunk);
        chunks = rest.strip_prefix(b"\r\n")?;
    }
}

/// A container's output and errors, which are sent as one: each piece is preceded by which of them it is of, and its length.
pub(crate) fn streams(mut pieces: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = pieces.split_first_chunk::<8>() {
        let [which, 0, 0, 0, length @ ..] = *head else {
            return None;
        };
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        let (piece, rest) = rest.split_at_checked(length)?;
        match which {
            1 => output.extend_from_slice(piece),
            2 => errors.extend_from_slice(piece),
            _ => return None,
        }
        pieces = rest;
    }
    pieces.is_empty().then_some((output, errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_of_dockers_counts() {
        let docker = "Server: Docker/20.10.24 (linux)\r\n";
        let answer = |status: &str, headers: &str, rest: &str| {
            format!("HTTP/1.1 {status}\r\n{docker}{headers}\r\n{rest}")
        };
        let chunked = "Transfer-Encoding: chunked\r\n";
        #[rustfmt::skip]
        let table = [
            (answer("200 OK", "Content-Length: 5\r\n", "hello"),        Some("hello")),
            (answer("200 OK", "content-length: 5\r\n", "hell"),         None),
            (answer("200 OK", "Content-Length: 5\r\n", "hello!"),       None),
            (answer("200 OK", chunked, "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), Some("hello")),
            (answer("200 OK", chunked, "3\r\nhel\r\n2\r\nlo\r\n"),      None),
            (answer("200 OK", chunked, "3\r\nhel\r\n"),                 None),
            (answer("200 OK", chunked, "ffff\r\nhel\r\n"),              None),
            (answer("200 OK", chunked, "3\r\nhelp\r\n0\r\n\r\n"),       None),
            (answer("200 OK", "", "hello"),                             None),
            (answer("204 No Content", "", ""),                          Some("")),
            (answer("304 Not Modified", "", ""),                        Some("")),
            (answer("404 Not Found", "Content-Length: 2\r\n", "{}"),    None),
            (answer("500 Oh", "Content-Length: 2\r\n", "{}"),           None),
            (answer("200 OK", "Content-Length: 5\r\n", "hello").replace("Docker/", "Libpod/"), None),
            ("HTTP/1.1 204 No Content\r\n\r\n".into(),                  None),
            ("HTTP/1.1 200 OK\r\nServer: Docker/1".into(),              None),
            (String::new(),                                             None),
        ];
        for (response, expected) in table {
            let body = body(response.as_bytes());
            assert_eq!(body.as_deref(), expected.map(str::as_bytes), "{response}");
        }
    }

    #[test]
    fn output_and_errors_are_told_apart() {
        let piece = |which: u8, text: &str| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            [&[which, 0, 0, 0], length.as_slice(), text.as_bytes()].concat()
        };
        let sent = [
            piece(1, "on"),
            piece(2, "oh"),
            piece(1, "e\n"),
            piece(2, ""),
        ]
        .concat();
        assert_eq!(streams(&sent), Some((b"one\n".to_vec(), b"oh".to_vec())));
        assert_eq!(streams(b""), Some((Vec::new(), Vec::new())));
        assert_eq!(streams(&sent[..9]), None);
        assert_eq!(streams(&sent[..3]), None);
        assert_eq!(streams(&piece(7, "x")), None);
        assert_eq!(streams(b"plain text, of a terminal"), None);
    }

    #[test]
    fn filters_are_written_as_a_path_has_them() {
        let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let words = [
            "--filter",
            "label=a=b",
            "--filter",
            "name=^/?(x|y)$",
            "--filter",
            "label=c",
        ];
        let expected: String = encoded(r#"{"label":["a=b","c"],"name":["^/?(x|y)$"]}"#);
        assert_eq!(filters_of(&words), Some(expected));
        assert_eq!(filters_of(&[]), Some(encoded("{}")));
        assert_eq!(filters_of(&["--filter"]), None);
        assert_eq!(filters_of(&["--format", "label=a"]), None);
        assert_eq!(filters_of(&["--filter", "label"]), None);
    }

    #[test]
    fn only_what_means_itself_gets_into_a_path() {
        for good in ["box-egret-0123456789ab", "localhost/egret:0123", "10"] {
            assert_eq!(plain(good), Some(good));
        }
        for bad in [
            "",
            "a b",
            "a?force=1",
            "a%2f",
            "../x",
            "/x",
            "-x",
            "a\r\nb",
            "ü",
        ] {
            assert_eq!(plain(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_socket_is_the_one_that_the_command_uses() {
        let program = std::env::current_exe().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../x");
        let of = |host: Option<&str>| Socket::of(&program, host);
        assert_eq!(of(None), Some(Socket("/var/run/docker.sock".into())));
        assert_eq!(of(Some("unix:///x")), Some(Socket("/x".into())));
        assert_eq!(of(Some("tcp://192.0.2.7:2376")), None);
        assert_eq!(of(Some("ssh://build.example")), None);
        assert_eq!(Socket::of(Path::new(script), None), None);
        assert_eq!(Socket::of(Path::new("/nowhere"), None), None);
    }
}
