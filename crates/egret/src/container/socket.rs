//! What Docker's command is asked most, asked without it, at the daemon's own socket.
//!
//! To start the command takes several times as long as the daemon takes to answer, and around every sandbox there are some
//! questions. So a few commands are known here for what they send. Any other, and all that does not go well, is left to the
//! command itself, which then says what the matter is: nothing depends on this but time. What is here can be done twice.
//!
//! It has to be the daemon that the command would ask. So the command is a program and not somebody's script, neither a
//! context nor another machine was chosen, and whoever answers has to call itself Docker.

use serde::Deserialize;
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
            ["image", "inspect", name] => {
                let image = self.ask("GET", &format!("/images/{}/json", plain(name)?))?;
                stdout = list(&[image]);
            }
            ["network", "ls", "--format", "{{.ID}}"] => {
                let networks: Vec<Network> =
                    serde_json::from_slice(&self.ask("GET", "/networks")?).ok()?;
                let ids: Vec<_> = networks.into_iter().map(|network| network.id).collect();
                stdout = ids.join("\n").into_bytes();
            }
            ["network", "inspect", ref ids @ ..] => {
                let inspect = |id: &&str| self.ask("GET", &format!("/networks/{}", plain(id)?));
                let networks: Vec<_> = ids.iter().map(inspect).collect::<Option<_>>()?;
                stdout = list(&networks);
            }
            ["stop", "--time", seconds, name] => {
                let (name, seconds) = (plain(name)?, plain(seconds)?);
                self.ask("POST", &format!("/containers/{name}/stop?t={seconds}"))?;
            }
            ["rm", "--force", "--volumes", name] => {
                let name = plain(name)?;
                self.ask("DELETE", &format!("/containers/{name}?force=1&v=1"))?;
            }
            ["volume", "rm", name] => {
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

#[derive(Deserialize)]
struct Network {
    #[serde(rename = "Id")]
    id: String,
}

/// What the command prints of several objects.
fn list(objects: &[Vec<u8>]) -> Vec<u8> {
    [b"[".as_slice(), &objects.join(b",".as_slice()), b"]"].concat()
}

/// A word that means itself in a path.
fn plain(word: &str) -> Option<&str> {
    let means_itself = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
    let whole = !word.is_empty() && !word.contains("..") && !word.starts_with(['/', '-']);
    (whole && word.bytes().all(means_itself)).then_some(word)
}

/// The body of an HTTP response, if it is one of Docker's, says that all is well, and has arrived as a whole.
fn body(response: &[u8]) -> Option<Vec<u8>> {
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
fn streams(mut pieces: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
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
