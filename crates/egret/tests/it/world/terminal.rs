//! A terminal with somebody at it.
//!
//! [`Terminal`] is a pseudo-terminal whose other end is a program's controlling terminal. What the program prints is
//! collected; [`Terminal::expect`] waits for a piece of it. [`Screen`] is a tmux session, for programs that paint.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::machine::wait_at_most;
use super::{User, World};

/// A program on a pseudo-terminal.
pub(crate) struct Terminal {
    keyboard: File,
    output: Arc<Mutex<Vec<u8>>>,
    collecting: JoinHandle<()>,
    pub(crate) child: Child,
    read_to: usize,
}

impl Terminal {
    /// Starts `command` as the leader of a session on a terminal of 24 lines and 80 columns.
    pub(crate) fn start(world: &World, user: User, command: &Command) -> Terminal {
        let pty = nix::pty::openpty(None, None).unwrap();
        chown(
            nix::unistd::ttyname(&pty.slave).unwrap(),
            Some(user.id()),
            None,
        )
        .unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(pty.slave.as_fd(), size).unwrap();
        let mut leader = Command::new("setsid");
        leader
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear();
        leader.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        leader.stdin(end()).stdout(end()).stderr(end());
        let child = world.machine.spawn(leader).unwrap();
        let keyboard = File::from(pty.master);
        let (mut screen, output) = (
            keyboard.try_clone().unwrap(),
            Arc::new(Mutex::new(Vec::new())),
        );
        let collected = Arc::clone(&output);
        drop(pty.slave);
        let collecting = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                collected.lock().unwrap().extend(&buffer[..length]);
            }
        });
        Terminal {
            keyboard,
            output,
            collecting,
            child,
            read_to: 0,
        }
    }

    /// Types.
    pub(crate) fn send(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is printed, after what was waited for before. Returns what came until then.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let output = self.output.lock().unwrap().clone();
            let new = String::from_utf8_lossy(&output[self.read_to..]).into_owned();
            if let Some(at) = new.find(text) {
                self.read_to += at + text.len();
                return new[..at + text.len()].to_owned();
            }
            assert!(
                Instant::now() < end,
                "`{text}` was not printed, but {new:?} after {:?}",
                self.before()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Changes the size of the window.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(self.keyboard.as_fd(), size).unwrap();
    }

    /// Whether it edits lines and makes signals of keys, as terminals do that nobody has changed.
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = tcgetattr(self.keyboard.as_fd()).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the program to end, and gives its exit code.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<i32> {
        wait_at_most(&mut self.child, Duration::from_secs(15))
            .expect("the program does not end")
            .code()
    }

    /// All that was printed, once the program has ended. What it has left in the background may hold the terminal open, and is
    /// waited for only so long.
    pub(crate) fn printed(&self) -> String {
        let end = Instant::now() + Duration::from_secs(2);
        while !self.collecting.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    fn before(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()[..self.read_to]).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tmux session on the machine.
pub(crate) struct Screen<'w> {
    world: &'w World,
    user: User,
    server: Child,
}

impl<'w> Screen<'w> {
    /// Runs `command`, a shell command line, in a window of 24 lines and 80 columns.
    #[track_caller]
    pub(crate) fn start(world: &'w World, user: User, command: &str) -> Screen<'w> {
        let words = ["tmux", "-f", "/dev/null", "-S", SOCKET, "-D"].map(str::to_owned);
        let mut server = world.command_as(user, "/", &[], &words);
        server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = world.machine.spawn(server).unwrap();
        let screen = Screen {
            world,
            user,
            server,
        };
        let end = Instant::now() + Duration::from_secs(10);
        while !world.machine.path(SOCKET).exists() {
            assert!(Instant::now() < end, "tmux does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        screen.tmux(&["new-session", "-d", "-x", "80", "-y", "24", command]);
        screen
    }

    /// Presses keys, in tmux's names for them.
    #[track_caller]
    pub(crate) fn press(&self, keys: &[&str]) {
        let mut args = vec!["send-keys"];
        args.extend(keys);
        self.tmux(&args);
    }

    /// What is on the screen.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with the escapes that say how it looks.
    #[track_caller]
    pub(crate) fn painted(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen is as `wanted` says.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let text = self.text();
            if wanted(&text) {
                return text;
            }
            assert!(
                Instant::now() < end,
                "the screen never shows {what}, but\n{text}"
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Changes the size of the window.
    #[track_caller]
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&[
            "resize-window",
            "-x",
            &columns.to_string(),
            "-y",
            &rows.to_string(),
        ]);
    }

    #[track_caller]
    fn tmux(&self, args: &[&str]) -> String {
        let words = ["tmux", "-S", SOCKET]
            .iter()
            .chain(args)
            .map(|word| (*word).to_owned());
        let command = self
            .world
            .command_as(self.user, "/", &[], &words.collect::<Vec<_>>());
        let output = self.world.machine.output(command);
        assert!(
            output.status.success(),
            "tmux {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Where tmux listens: in a directory of the machine, which is a test's own.
const SOCKET: &str = "/tmp/screen";

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.world.machine.path(SOCKET));
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
