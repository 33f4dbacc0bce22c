//! A server that has something to say: what `./x demo` lets a sandbox reach, or not.
//!
//! Prints the port it listens on, on 127.0.0.1, and greets whoever sends an HTTP request there.

use std::io::{self, Read, Write};
use std::net::TcpListener;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    let greeting = "hello from a server on this machine\n";
    loop {
        let (mut client, _) = listener.accept()?;
        // One read holds the whole of a small request, and nothing depends on what it says.
        let _request = client.read(&mut [0; 4096]);
        let head = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            greeting.len()
        );
        // A client that went away early is its own business.
        let _gone = client.write_all(format!("{head}{greeting}").as_bytes());
    }
}
