//! What the tests of containers run inside of a network namespace: the agent, and programs of a workload.

use egret_sandbox::agent::Link;
use egret_sandbox::{Ports, agent};
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["agent", socket, peer] => agent::run(&agent::Orders {
            control: socket.into(),
            peer: peer.parse()?,
            ports: Ports::default(),
        })?,
        // Connects, says `word`, prints all that comes back.
        ["connect", to, word] => {
            let to: SocketAddr = to.parse()?;
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            stream.write_all(word.as_bytes())?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            say(&answer)?;
        }
        // Waits for a line; takes the doors, if it gets them at once; then answers every captured connection with its name.
        ["gateway", socket, name] => {
            say("ready")?;
            std::io::stdin().read_line(&mut String::new())?;
            let patience = Duration::from_secs(if name == "hasty" { 0 } else { 10 });
            let (doors, _strays, _link) = Link::connect(socket.as_ref(), patience)?;
            say("linked")?;
            let [door, ..] = doors.captured.as_slice() else {
                return Err("there is no door".into());
            };
            door.set_nonblocking(false)?;
            loop {
                let (mut stream, _) = door.accept()?;
                stream.set_nonblocking(false)?;
                let mut word = String::new();
                // Whoever goes before it has said all is nobody's business.
                if stream.read_to_string(&mut word).is_ok() {
                    say(&format!("got {word}"))?;
                    let (Ok(()) | Err(_)) = stream.write_all(name.as_bytes());
                }
            }
        }
        ["send", to, word] => {
            let to: SocketAddr = to.parse()?;
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any)?.send_to(word.as_bytes(), to)?;
        }
        // Connects again and again, whatever comes of it.
        ["insist", to] => {
            let to: SocketAddr = to.parse()?;
            std::thread::spawn(move || -> std::io::Result<()> {
                loop {
                    // Refused as long as nobody listens; a connection stays for a moment and says nothing.
                    if let Ok(stream) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) {
                        std::thread::sleep(Duration::from_micros(200));
                        drop(stream);
                    }
                }
            });
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        // Until standard input ends. Prints a line for each connection.
        ["listen", at] => {
            let listener = TcpListener::bind(at)?;
            say(&format!("at {}", listener.local_addr()?))?;
            std::thread::spawn(move || -> std::io::Result<()> {
                loop {
                    let (mut stream, _) = listener.accept()?;
                    stream.write_all(b"hello")?;
                    say("accepted")?;
                }
            });
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        // Listens and never accepts, until standard input ends.
        ["ignore", at] => {
            let listener = TcpListener::bind(at)?;
            let address = listener.local_addr()?;
            let patience = Duration::from_millis(100);
            // The kernel completes connections until there are as many as the listener would have wait.
            let mut waiting = Vec::new();
            while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
                waiting.push(stream);
            }
            say(&format!("at {address}"))?;
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        _ => return Err("usage: inside agent|connect|gateway|send|insist|listen|ignore …".into()),
    }
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
