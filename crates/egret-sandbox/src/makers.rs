//! Which program made a connection: from a socket of the sandbox to the process that holds it, and what it runs.
//!
//! The kernel tells the number of a socket by its addresses (`sock_diag(7)`), and `/proc` which process holds a socket of
//! that number and what program it runs (`proc_pid_exe(5)`, `proc_pid_fdinfo(5)`). Both are looked at from outside through
//! descriptors that were made inside, so a sandbox can neither hide from this nor put anything in its place.
//!
//! An answer is one that nothing speaks against. A socket that several processes hold, a process that cannot be looked
//! into, a program that is not the file which stands at its path: all of these are *unknown*, and whoever asks has to take
//! that for the worst. What this cannot see is a socket on its way between processes, which nobody holds, and what comes
//! after the question: a program that may start another one can also hand it a socket, trace it, or take its sockets away.
//! So an answer tells programs apart; it does not protect a program from the one that started it.
//!
//! Not here: what follows from who made a connection.

use crate::netlink::Socket;
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, ResolveFlags, StatxFlags, fstat, openat, openat2, readlinkat,
    statat, statx,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Tells who made the connections of one sandbox. Clones are about the same sandbox.
///
/// Until the sandbox is released, nothing runs in it and nothing is known.
#[derive(Clone, Debug, Default)]
pub struct Makers(Arc<OnceLock<Views>>);

/// The program that made a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// The file that the process executes: an absolute path without links, as the sandbox sees it.
    pub executable: String,
    /// The same of the processes that it descends from, the nearest first, up to the first program of the sandbox. Those of
    /// which it cannot be told are left out, and so are those that ended: their children belong to an older one then.
    pub ancestors: Vec<String>,
}

impl Makers {
    /// The program that holds the socket which is `client` at its own end and connected to `peer`, *as that socket sees it*:
    /// of a connection that was redirected, `peer` is where it was on its way to.
    ///
    /// `None` if that cannot be told for certain: the socket is gone, or not exactly one process holds it, or a process of
    /// the sandbox cannot be looked into, or its program is no longer the file at its path, or there is too much to look
    /// through. Works through all processes of the sandbox, in the calling thread: about a microsecond for each descriptor,
    /// and some milliseconds more if the socket seems to be shared, since it is for a moment whenever a process forks.
    #[must_use]
    pub fn maker(&self, client: SocketAddr, peer: SocketAddr) -> Option<Maker> {
        let views = self.0.get()?;
        for pause in PAUSES {
            std::thread::sleep(pause);
            match views.look(client, peer) {
                Ok(maker) => return Some(maker),
                Err(Unknown::ForNow) => {}
                Err(Unknown::ForGood) => return None,
            }
        }
        None
    }

    /// Takes what the sandbox's first process opened: the socket for questions about sockets, its processes, its root.
    /// Without these nothing will be known.
    pub(crate) fn take(&self, descriptors: Vec<OwnedFd>) {
        let Ok([sockets, processes, root]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return;
        };
        let Ok(about) = statx(&sockets, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) else {
            return;
        };
        if about.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
            return;
        }
        let views = Views {
            socket_mount: about.stx_mnt_id,
            sockets: Mutex::new(sockets.into()),
            processes,
            root,
        };
        // Filled once: there is one release.
        let (Ok(()) | Err(_)) = self.0.set(views);
    }
}

/// How long to wait before each look. What a fork shares, the exec that follows gives up again.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(2),
    Duration::from_millis(6),
];

/// Why it cannot be told who made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    /// Something changed while it was looked at, or may change in a moment.
    ForNow,
    /// Looking again would not help.
    ForGood,
}

type Known<T> = Result<T, Unknown>;

/// A sandbox's sockets, processes and files, as its first process sees them.
#[derive(Debug)]
struct Views {
    sockets: Mutex<Socket>,
    /// The file system that all sockets are in, by the number of its one mount.
    socket_mount: u64,
    processes: OwnedFd,
    root: OwnedFd,
}

impl Views {
    fn look(&self, client: SocketAddr, peer: SocketAddr) -> Known<Maker> {
        let socket = self.socket(client, peer)?;
        let holder = self.only_holder(socket)?;
        let program = self.program(&holder)?;
        let ancestors = self.ancestors(&holder)?;
        // All of this was true at one moment: the same connection, held by the same process, which runs the same program.
        let unchanged = holder.holds(socket, self.socket_mount, &mut Effort::new())?
            && self.program(&holder)? == program
            && self.socket(client, peer)? == socket;
        if !unchanged {
            return Err(Unknown::ForNow);
        }
        Ok(Maker {
            executable: program.path,
            ancestors,
        })
    }

    /// The number of the connected socket with these two ends (`linux/inet_diag.h`).
    fn socket(&self, client: SocketAddr, peer: SocketAddr) -> Known<Inode> {
        let wanted = Ends::new(client, peer);
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = sockets
            .ask(SOCK_DIAG_BY_FAMILY, &wanted.question())
            .map_err(|_| Unknown::ForGood)?;
        found(&answer, &wanted).ok_or(Unknown::ForGood)
    }

    /// The one process that holds the socket.
    fn only_holder(&self, socket: Inode) -> Known<Process> {
        let mut effort = Effort::new();
        let mut holder = None;
        for number in numbers(&self.processes, ".")? {
            // The first process is ours.
            if number == FIRST {
                continue;
            }
            let Some(process) = self.process(number)? else {
                continue;
            };
            if process.holds(socket, self.socket_mount, &mut effort)?
                && holder.replace(process).is_some()
            {
                return Err(Unknown::ForNow);
            }
        }
        // Closed, or on its way from one process to another.
        holder.ok_or(Unknown::ForNow)
    }

    /// A process, if there is one of this number. What is opened stays that process, whoever gets its number next.
    fn process(&self, number: u32) -> Known<Option<Process>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(&self.processes, number.to_string(), flags, Mode::empty());
        Ok(if_there(opened)?.map(|directory| Process { number, directory }))
    }

    /// What a process executes, if it still is the file that the sandbox's first process sees at that path. It is not, if it
    /// was deleted or replaced, never had a path, or stands there in other mounts than the sandbox's own.
    fn program(&self, process: &Process) -> Known<Program> {
        let unknown = |_: Errno| Unknown::ForGood;
        let path = readlinkat(&process.directory, "exe", Vec::new()).map_err(unknown)?;
        let executed = statat(&process.directory, "exe", AtFlags::empty()).map_err(unknown)?;
        let path = path.into_string().map_err(|_| Unknown::ForGood)?;
        let inside = path.strip_prefix('/').ok_or(Unknown::ForGood)?;
        if path.len() > LONGEST_PATH {
            return Err(Unknown::ForGood);
        }
        let seen = openat2(
            &self.root,
            inside,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
        .and_then(fstat)
        .map_err(unknown)?;
        let file = (executed.st_dev, executed.st_ino);
        if file != (seen.st_dev, seen.st_ino) {
            return Err(Unknown::ForGood);
        }
        Ok(Program { path, file })
    }

    /// The programs that a process descends from, the nearest first, without the sandbox's first process.
    fn ancestors(&self, process: &Process) -> Known<Vec<String>> {
        let mut programs = Vec::new();
        let mut child = None;
        for _ in 0..MOST_ANCESTORS {
            let younger: &Process = child.as_ref().unwrap_or(process);
            let number = younger.parent()?;
            if number <= FIRST {
                return Ok(programs);
            }
            let parent = self.process(number)?.ok_or(Unknown::ForNow)?;
            // Still its parent, so it was there when we opened what has its number.
            if younger.parent()? != number {
                return Err(Unknown::ForNow);
            }
            if let Ok(Program { path, .. }) = self.program(&parent) {
                programs.push(path);
            }
            child = Some(parent);
        }
        Err(Unknown::ForGood)
    }
}

/// A program file.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    path: String,
    /// Device and inode.
    file: (u64, u64),
}

/// The number of a socket among all of the kernel's.
type Inode = u64;

/// The first process of a sandbox, by its number in there.
const FIRST: u32 = 1;
/// Descriptors, and tables of them, that are looked at in one search.
const MOST_LOOKS: u32 = 100_000;
/// How long one search takes. Each look takes about a microsecond, unless a program wants it to take longer.
const LONGEST: Duration = Duration::from_millis(500);
/// Ancestors of one process.
const MOST_ANCESTORS: u32 = 64;
/// Bytes of a program's path. A sandbox chooses its programs' paths, and they go into a log.
const LONGEST_PATH: usize = 1024;

/// What one search may still cost.
#[derive(Debug)]
struct Effort {
    looks: u32,
    until: Instant,
}

impl Effort {
    fn new() -> Self {
        Self {
            looks: MOST_LOOKS,
            until: Instant::now() + LONGEST,
        }
    }

    /// Pays for one more look.
    fn pay(&mut self) -> Known<()> {
        self.looks = self.looks.checked_sub(1).ok_or(Unknown::ForGood)?;
        if Instant::now() > self.until {
            return Err(Unknown::ForGood);
        }
        Ok(())
    }
}

// ---- processes: proc(5) ----

/// A process, as its directory in `/proc`.
#[derive(Debug)]
struct Process {
    number: u32,
    directory: OwnedFd,
}

impl Process {
    /// Whether any thread of the process has a descriptor of the socket.
    fn holds(&self, socket: Inode, socket_mount: u64, effort: &mut Effort) -> Known<bool> {
        if table_holds(&self.directory, "fdinfo", socket, socket_mount, effort)? {
            return Ok(true);
        }
        // Threads share their descriptors, unless they chose not to, and the first may have ended before the others.
        let Some(tasks) = if_there(statat(&self.directory, "task", AtFlags::empty()))? else {
            return Ok(false);
        };
        // It has two links and one for each thread, in a type that differs between architectures.
        if tasks.st_nlink <= 3 {
            return Ok(false);
        }
        for thread in numbers(&self.directory, "task")? {
            let table = format!("task/{thread}/fdinfo");
            if thread != self.number
                && table_holds(&self.directory, &table, socket, socket_mount, effort)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The number of the process that this one belongs to.
    fn parent(&self) -> Known<u32> {
        let mut buffer = [0; 512];
        let stat = read(&self.directory, c"stat", &mut buffer)?.ok_or(Unknown::ForNow)?;
        // "NUMBER (NAME) STATE PARENT …", and a name may be anything.
        let after = stat.iter().rposition(|&byte| byte == b')');
        after
            .and_then(|end| std::str::from_utf8(stat.get(end + 1..)?).ok())
            .and_then(|rest| rest.split_ascii_whitespace().nth(1)?.parse().ok())
            .ok_or(Unknown::ForGood)
    }
}

/// Whether a table of descriptors has one of the socket.
///
/// `fdinfo` rather than the links in `fd`: those are closed to an ordinary user where a process has made itself
/// undumpable, and may be looked into with the right to trace it, which we have, only here.
fn table_holds(
    process: &OwnedFd,
    table: &str,
    socket: Inode,
    socket_mount: u64,
    effort: &mut Effort,
) -> Known<bool> {
    effort.pay()?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Some(table) = if_there(openat(process, table, flags, Mode::empty()))? else {
        return Ok(false);
    };
    let entries = Dir::read_from(&table).map_err(|_| Unknown::ForGood)?;
    for entry in entries {
        let Some(entry) = if_there(entry)? else {
            return Ok(false);
        };
        if number(entry.file_name()).is_none() {
            continue;
        }
        effort.pay()?;
        let mut buffer = [0; 256];
        let Some(about) = read(&table, entry.file_name(), &mut buffer)? else {
            continue;
        };
        let value = |key: &str| field(about, key).ok_or(Unknown::ForGood);
        if value("ino:")? == socket && value("mnt_id:")? == socket_mount {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number after `key` in lines of keys and values.
fn field(text: &[u8], key: &str) -> Option<u64> {
    let line = text
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(key.as_bytes()))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// The beginning of a file; `None` if it is gone.
fn read<'b>(directory: impl AsFd, name: &CStr, buffer: &'b mut [u8]) -> Known<Option<&'b [u8]>> {
    let opened = openat(directory, name, OFlags::CLOEXEC, Mode::empty());
    let Some(file) = if_there(opened)? else {
        return Ok(None);
    };
    let length = if_there(rustix::io::read(&file, &mut *buffer))?;
    Ok(length.map(|length| buffer.get(..length).unwrap_or_default()))
}

/// The numbers among the names in a directory.
fn numbers(directory: impl AsFd, name: &str) -> Known<Vec<u32>> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Some(opened) = if_there(openat(directory, name, flags, Mode::empty()))? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in Dir::read_from(&opened).map_err(|_| Unknown::ForGood)? {
        let Some(entry) = if_there(entry)? else {
            break;
        };
        found.extend(number(entry.file_name()));
    }
    Ok(found)
}

fn number(name: &CStr) -> Option<u32> {
    name.to_str().ok()?.parse().ok()
}

/// `None` for what has ended or was closed meanwhile. Anything else that cannot be looked at could hold anything.
fn if_there<T>(result: rustix::io::Result<T>) -> Known<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(_) => Err(Unknown::ForGood),
    }
}

// ---- sockets: sock_diag(7), linux/inet_diag.h ----

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;
const ANY_COOKIE: [u8; 8] = [0xff; 8];
/// `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`: what the client of a connection can be in whose other end is open.
/// So a stale socket, kept back with the addresses of a connection that came after it, is not taken for that one.
const OPEN: [u8; 3] = [1, 4, 5];

/// The two ends of a connection, without the two ways to write an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    own: (IpAddr, u16),
    peer: (IpAddr, u16),
}

impl Ends {
    fn new(own: SocketAddr, peer: SocketAddr) -> Self {
        let plain = |end: SocketAddr| (end.ip().to_canonical(), end.port());
        Self {
            own: plain(own),
            peer: plain(peer),
        }
    }

    /// `struct inet_diag_req_v2`. An IPv6 socket that speaks IPv4 is found as one of IPv4.
    fn question(&self) -> Vec<u8> {
        let address = |ip: IpAddr| -> [u8; 16] {
            match ip {
                IpAddr::V4(ip) => {
                    let [a, b, c, d] = ip.octets();
                    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
                }
                IpAddr::V6(ip) => ip.octets(),
            }
        };
        let family = if self.own.0.is_ipv4() {
            AF_INET
        } else {
            AF_INET6
        };
        let mut question = vec![family, TCP, 0, 0];
        question.extend([0xff; 4]); // states: any
        question.extend(self.own.1.to_be_bytes());
        question.extend(self.peer.1.to_be_bytes());
        question.extend(address(self.own.0));
        question.extend(address(self.peer.0));
        question.extend([0; 4]); // only sockets that are bound to no interface: of these no two have the same ends
        question.extend(ANY_COOKIE);
        question
    }
}

/// The socket's number in a `struct inet_diag_msg`, if it is about the wanted socket and that is connected. The kernel
/// answers with a listener where it finds no such connection.
fn found(answer: &[u8], wanted: &Ends) -> Option<Inode> {
    let bytes = |from: usize, length: usize| answer.get(from..from + length);
    let port = |from: usize| Some(u16::from_be_bytes(bytes(from, 2)?.try_into().ok()?));
    let family = *answer.first()?;
    let address = |from: usize| -> Option<IpAddr> {
        match family {
            AF_INET => Some(<[u8; 4]>::try_from(bytes(from, 4)?).ok()?.into()),
            AF_INET6 => Some(<[u8; 16]>::try_from(bytes(from, 16)?).ok()?.into()),
            _ => None,
        }
    };
    let ends = Ends {
        own: (address(8)?.to_canonical(), port(4)?),
        peer: (address(24)?.to_canonical(), port(6)?),
    };
    let inode = u32::from_ne_bytes(bytes(68, 4)?.try_into().ok()?);
    (ends == *wanted && OPEN.contains(answer.get(1)?) && inode != 0).then_some(inode.into())
}

#[cfg(test)]
mod tests;
