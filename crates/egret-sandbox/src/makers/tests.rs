use super::*;
use rustix::net::netlink::SOCK_DIAG;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// This process's own network, processes and files in place of a sandbox's.
fn views() -> Views {
    let sockets = Socket::open(Some(SOCK_DIAG)).unwrap().into_descriptor();
    let open = |path: &str| OwnedFd::from(std::fs::File::open(path).unwrap());
    let makers = Makers::default();
    makers.take(vec![sockets, open("/proc"), open("/")]);
    Arc::into_inner(makers.0).unwrap().into_inner().unwrap()
}

fn process(number: u32) -> Process {
    views().process(number).unwrap().unwrap()
}

/// A process that lives as long as this does.
struct Running(Child);

impl Running {
    fn program(path: &Path) -> Self {
        // `cat` waits for its standard input to end.
        let child = Command::new(path).stdin(Stdio::piped()).spawn();
        Self(child.unwrap())
    }

    fn process(&self) -> Process {
        process(self.0.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A copy of `cat` in a directory of its own, which is removed with it.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("egret-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let copied = Command::new("cp")
            .arg("/bin/cat")
            .arg(directory.join("cat"))
            .status();
        assert!(copied.unwrap().success());
        Self(directory.canonicalize().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.join("cat")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_connected_socket_is_found_by_its_ends_in_every_family() {
    let views = views();
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for (own, listens) in [
        (
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv4Addr::LOCALHOST.into(),
        ),
        (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
        (mapped.into(), IpAddr::from(Ipv4Addr::LOCALHOST)),
    ] {
        let listener = TcpListener::bind((listens, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let client = TcpStream::connect((own, at.port())).unwrap();
        let (accepted, seen) = listener.accept().unwrap();
        let inode = fstat(&client).unwrap().st_ino;
        assert_eq!(
            views.socket(seen, accepted.local_addr().unwrap()),
            Ok(inode)
        );
        assert_eq!(
            views.socket(client.local_addr().unwrap(), client.peer_addr().unwrap()),
            Ok(inode)
        );
        let me = process(std::process::id());
        assert_eq!(
            me.holds(inode, views.socket_mount, &mut Effort::new()),
            Ok(true)
        );
        assert_eq!(
            me.holds(inode, views.socket_mount + 1, &mut Effort::new()),
            Ok(false)
        );

        // The listener has the same end, and is not the client of anything.
        let nobody = SocketAddr::new(own, 1);
        assert_eq!(views.socket(at, nobody), Err(Unknown::ForGood));
        drop(client);
        assert_eq!(views.socket(seen, at), Err(Unknown::ForGood), "it is gone");
    }
}

#[test]
fn a_socket_whose_other_end_has_gone_is_not_taken_for_a_later_one() {
    let views = views();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, seen) = listener.accept().unwrap();
    let ends = (seen, accepted.local_addr().unwrap());
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(
        views.socket(ends.0, ends.1).is_ok(),
        "it may say no more, and still listens"
    );
    drop(accepted);
    drop(listener);
    assert_eq!(views.socket(ends.0, ends.1), Err(Unknown::ForGood));
}

#[test]
fn a_process_has_a_program_and_a_parent() {
    let views = views();
    let me = process(std::process::id());
    let here = std::env::current_exe().unwrap().canonicalize().unwrap();
    assert_eq!(views.program(&me).unwrap().path, here.to_str().unwrap());
    assert_eq!(me.parent(), Ok(std::os::unix::process::parent_id()));

    let copy = Copy::new("parent (with) a name");
    let child = Running::program(&copy.path());
    assert_eq!(child.process().parent(), Ok(std::process::id()));
    assert_eq!(
        views.ancestors(&child.process()).unwrap()[0],
        here.to_str().unwrap()
    );
}

#[test]
fn a_program_that_is_not_the_file_at_its_path_is_unknown() {
    let views = views();
    let copy = Copy::new("replaced");
    let path = copy.path();
    let child = Running::program(&path);
    assert_eq!(
        views.program(&child.process()).unwrap().path,
        path.to_str().unwrap()
    );

    let aside = path.with_file_name("aside");
    std::fs::rename(&path, &aside).unwrap();
    assert_eq!(
        views.program(&child.process()).unwrap().path,
        aside.to_str().unwrap()
    );
    std::fs::copy("/bin/true", &path).unwrap();
    std::fs::remove_file(&aside).unwrap();
    assert_eq!(
        views.program(&child.process()),
        Err(Unknown::ForGood),
        "deleted"
    );
    std::fs::copy("/bin/true", path.with_file_name("aside (deleted)")).unwrap();
    assert_eq!(
        views.program(&child.process()),
        Err(Unknown::ForGood),
        "deleted, and its name taken"
    );
}

#[test]
fn a_process_that_ended_has_nothing_and_runs_nothing() {
    let mut child = Running::program(Path::new("/bin/cat"));
    let process = child.process();
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    assert_eq!(process.holds(1, 1, &mut Effort::new()), Ok(false));
    assert_eq!(process.parent(), Err(Unknown::ForNow));
    assert_eq!(views().program(&process), Err(Unknown::ForGood));
}

#[test]
fn effort_has_an_end() {
    let me = process(std::process::id());
    let mut little = Effort {
        looks: 2,
        ..Effort::new()
    };
    assert_eq!(me.holds(1, 1, &mut little), Err(Unknown::ForGood));
    let mut late = Effort {
        until: Instant::now(),
        ..Effort::new()
    };
    assert_eq!(me.holds(1, 1, &mut late), Err(Unknown::ForGood));
}

#[test]
fn nothing_is_known_before_the_release_or_without_the_means() {
    let ends = (
        "127.0.0.1:1".parse().unwrap(),
        "127.0.0.1:2".parse().unwrap(),
    );
    let makers = Makers::default();
    assert_eq!(makers.maker(ends.0, ends.1), None);
    makers.take(Vec::new());
    assert_eq!(makers.maker(ends.0, ends.1), None);
}

#[test]
fn an_answer_about_another_socket_or_a_cut_one_is_none() {
    let ends = |own: &str, peer: &str| Ends::new(own.parse().unwrap(), peer.parse().unwrap());
    let wanted = ends("192.0.2.1:1234", "198.51.100.2:80");
    // struct inet_diag_msg: family, state, …, then the ends as in the question.
    let answer = |ends: &Ends, state: u8, inode: u32| -> Vec<u8> {
        let mut answer = ends.question();
        answer.drain(4..8); // the states
        answer[1] = state;
        answer.resize(68, 0);
        answer.extend(inode.to_ne_bytes());
        answer
    };
    #[rustfmt::skip]
    let table = [
        (wanted,                                                   1,  7, Some(7)),
        (wanted,                                                   4,  7, Some(7)),
        (wanted,                                                   2,  7, None), // SYN_SENT: no one's other end
        (wanted,                                                   8,  7, None), // CLOSE_WAIT: its other end is closed
        (wanted,                                                   10, 7, None), // a listener
        (wanted,                                                   1,  0, None), // no process has it
        (ends("192.0.2.1:1235", "198.51.100.2:80"),                1,  7, None),
        (ends("192.0.2.1:1234", "198.51.100.2:81"),                1,  7, None),
        (ends("192.0.2.9:1234", "198.51.100.2:80"),                1,  7, None),
        (ends("[2001:db8::1]:1234", "[2001:db8::2]:80"),           1,  7, None),
    ];
    for (about, state, inode, expected) in table {
        assert_eq!(
            found(&answer(&about, state, inode), &wanted),
            expected,
            "{about:?} {state} {inode}"
        );
    }
    let whole = answer(&wanted, 1, 7);
    for length in 0..whole.len() {
        assert_eq!(found(&whole[..length], &wanted), None, "{length} bytes");
    }
}
