//! From a name to its addresses.
//!
//! Names are absolute: no search list is applied, so what was decided is what is asked. The hosts file
//! comes first, then the configured servers, for A and AAAA both; aliases are followed by the resolver
//! and all addresses are returned, good and bad, because the permit has to see every one of them.
//!
//! The servers are asked in their order and one at a time, as resolv.conf(5) has it: the next one only if the one
//! before does not answer or cannot. The first may be one that knows names of a network of its own, which are nobody
//! else's business. (The library asks two at once, and gives up with the first that does not answer if it may ask
//! only one; so it has one server at a time from us.)
//!
//! Answers are kept for as long as their TTL says (not at all for a TTL of 0) in a bounded cache, and
//! several connections that ask for one name at once share one question.
//!
//! Not here: whether an address may be dialled (`Permit::vet`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use egret_policy::Host;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts,
    ResolverConfig as HickoryConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{TokioResolver, system_conf};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

/// Where names are looked up.
#[derive(Debug, Clone)]
pub struct ResolverConfig {
    /// The servers that are asked.
    pub servers: Servers,
    /// The hosts file that is read first, normally `/etc/hosts`; read again when it changes.
    pub hosts_file: Option<PathBuf>,
}

/// Which DNS servers are asked.
#[derive(Debug, Clone)]
pub enum Servers {
    /// Those that this file names, normally `/etc/resolv.conf`; read again when it changes. Its search list is not used.
    File(PathBuf),
    /// Exactly these, in this order, over UDP and TCP.
    These(Vec<SocketAddr>),
}

impl ResolverConfig {
    /// As this machine resolves names: `/etc/hosts`, then the servers in `/etc/resolv.conf`.
    pub fn system() -> Self {
        Self {
            servers: Servers::File("/etc/resolv.conf".into()),
            hosts_file: Some("/etc/hosts".into()),
        }
    }

    /// `/etc/hosts`, then exactly these servers.
    pub fn servers(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers: Servers::These(servers),
            hosts_file: Some("/etc/hosts".into()),
        }
    }
}

/// The resolver cannot be set up.
#[derive(Debug, Error)]
pub enum ResolverError {
    /// The library refused the configuration.
    #[error("cannot set up the resolver: {0}")]
    Setup(String),
}

/// Why a name has no addresses, in words that follow the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// The servers say so.
    NoAddress,
    /// There are so many that somebody means harm. What is kept of answers is bounded by this, too.
    TooMany(usize),
    /// Nobody answered in time.
    Late(Duration),
    /// There is nobody to ask: the list of servers is empty, not there, or not readable.
    NoServers(PathBuf),
    /// Something else went wrong.
    Failed(String),
}

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAddress => f.write_str("no such name, or it has no address"),
            Self::TooMany(count) => {
                write!(
                    f,
                    "the name has {count} addresses, more than any honest one"
                )
            }
            Self::Late(after) => {
                write!(f, "no DNS server answered within {} s", after.as_secs_f32())
            }
            Self::NoServers(path) => write!(f, "`{}` names no DNS server", path.display()),
            Self::Failed(message) => write!(f, "the DNS lookup failed: {message}"),
        }
    }
}

pub(crate) type Answer = Result<Arc<[IpAddr]>, Unresolved>;

/// Looks names up.
pub(crate) struct Resolver {
    servers: Servers,
    dns: Mutex<Dns>,
    hosts: Option<HostsFile>,
    within: Duration,
    known: Mutex<HashMap<Host, Known>>,
}

/// The servers that are asked at present, and the state of the file that they are from.
struct Dns {
    ask: Arc<[Server]>,
    file: Watched,
}

/// A server, and how long it is waited for.
struct Server {
    dns: TokioResolver,
    patience: Duration,
}

enum Known {
    /// Good until then.
    Answer {
        addresses: Arc<[IpAddr]>,
        until: Instant,
    },
    /// Somebody is asking; the answer will be here.
    Asking(watch::Receiver<Option<Answer>>),
}

impl Resolver {
    pub(crate) fn new(config: &ResolverConfig, within: Duration) -> Result<Self, ResolverError> {
        let mut file = Watched::default();
        let ask = match &config.servers {
            Servers::These(addresses) => ask(
                addresses.iter().map(|&address| server(address)).collect(),
                within,
            )?,
            Servers::File(path) => {
                file.has_changed(path);
                ask(servers_in(path), within)?
            }
        };
        Ok(Self {
            servers: config.servers.clone(),
            dns: Mutex::new(Dns { ask, file }),
            hosts: config.hosts_file.clone().map(HostsFile::new),
            within,
            known: Mutex::default(),
        })
    }

    /// Who is to be asked now. A machine that moves to another network has other servers then.
    fn dns(&self) -> Result<Arc<[Server]>, Unresolved> {
        let dns = &mut *self.dns.lock().unwrap_or_else(PoisonError::into_inner);
        let Servers::File(path) = &self.servers else {
            return Ok(dns.ask.clone());
        };
        if dns.file.has_changed(path) {
            dns.ask = ask(servers_in(path), self.within)
                .map_err(|error| Unresolved::Failed(error.to_string()))?;
        }
        match dns.ask.is_empty() {
            true => Err(Unresolved::NoServers(path.clone())),
            false => Ok(dns.ask.clone()),
        }
    }

    /// All addresses of `name`.
    pub(crate) async fn addresses(&self, name: &Host) -> Answer {
        if let Some(addresses) = self.hosts.as_ref().and_then(|hosts| hosts.addresses(name)) {
            return Ok(addresses);
        }
        loop {
            let mut others = match self.look(name) {
                Seen::Answer(addresses) => return Ok(addresses),
                Seen::Asking(others) => others,
                Seen::Nothing(tell) => return Box::pin(self.ask(name, tell)).await,
            };
            if let Ok(Some(answer)) = others
                .wait_for(Option::is_some)
                .await
                .map(|answer| answer.clone())
            {
                return answer;
            }
            // Whoever asked went away before there was an answer: it is our turn.
        }
    }

    /// All addresses of `name` at this moment: no answer is taken from the cache, nor put into it, and the hosts file is
    /// read anew.
    pub(crate) async fn addresses_now(&self, name: &Host) -> Answer {
        match self
            .hosts
            .as_ref()
            .and_then(|hosts| hosts.read().remove(name))
        {
            Some(addresses) => Ok(addresses),
            None => Box::pin(self.question(name))
                .await
                .map(|(addresses, _)| addresses),
        }
    }

    /// Whether the hosts file has `name` at this moment.
    pub(crate) fn lists(&self, name: &Host) -> bool {
        let hosts = self.hosts.as_ref();
        hosts.is_some_and(|hosts| hosts.read().contains_key(name))
    }

    /// Whether an answer is here, or on its way.
    pub(crate) fn knows(&self, name: &Host) -> bool {
        let listed = || {
            self.hosts
                .as_ref()
                .is_some_and(|hosts| hosts.addresses(name).is_some())
        };
        let known = match self.known().get(name) {
            Some(Known::Answer { until, .. }) => Instant::now() < *until,
            Some(Known::Asking(others)) => others.has_changed().is_ok(),
            None => false,
        };
        known || listed()
    }

    fn look(&self, name: &Host) -> Seen {
        let mut known = self.known();
        match known.get(name) {
            Some(Known::Answer { addresses, until }) if Instant::now() < *until => {
                return Seen::Answer(addresses.clone());
            }
            Some(Known::Asking(others)) if others.has_changed().is_ok() => {
                return Seen::Asking(others.clone());
            }
            _ => {}
        }
        if known.len() >= CACHE {
            let now = Instant::now();
            known.retain(|_, entry| match entry {
                Known::Answer { until, .. } => now < *until,
                Known::Asking(others) => others.has_changed().is_ok(),
            });
            if known.len() >= CACHE {
                known.retain(|_, entry| matches!(entry, Known::Asking(_)));
            }
        }
        let (tell, others) = watch::channel(None);
        known.insert(name.clone(), Known::Asking(others));
        Seen::Nothing(tell)
    }

    /// Asks, keeps the answer as long as it is good, and tells it to whoever waits for it.
    async fn ask(&self, name: &Host, tell: watch::Sender<Option<Answer>>) -> Answer {
        let (answer, until) = match self.question(name).await {
            Ok((addresses, until)) => (Ok(addresses), Some(until)),
            Err(why) => (Err(why), None),
        };
        match (&answer, until) {
            (Ok(addresses), Some(until)) if Instant::now() < until => {
                self.known().insert(
                    name.clone(),
                    Known::Answer {
                        addresses: addresses.clone(),
                        until,
                    },
                );
            }
            _ => {
                self.known().remove(name);
            }
        }
        tell.send_replace(Some(answer.clone()));
        answer
    }

    /// Asks the servers. The answer is good until the instant that comes with it.
    async fn question(&self, name: &Host) -> Result<(Arc<[IpAddr]>, Instant), Unresolved> {
        // Whom there is nobody to ask about has no address.
        let mut unresolved = Unresolved::NoAddress;
        for server in self.dns()?.iter() {
            // The dot makes it absolute.
            let looked_up = server.dns.lookup_ip(format!("{name}."));
            unresolved = match timeout(server.patience, looked_up).await {
                Ok(Ok(found)) => {
                    let addresses: Arc<[IpAddr]> = found.iter().collect();
                    return match addresses.len() {
                        0 => Err(Unresolved::NoAddress),
                        1..=MOST => Ok((addresses, found.valid_until())),
                        count => Err(Unresolved::TooMany(count)),
                    };
                }
                Ok(Err(error)) if error.is_no_records_found() => {
                    return Err(Unresolved::NoAddress);
                }
                Err(_) | Ok(Err(NetError::Timeout)) => match unresolved {
                    Unresolved::Failed(_) => unresolved,
                    _ => Unresolved::Late(self.within),
                },
                Ok(Err(error)) => Unresolved::Failed(error.to_string()),
            };
        }
        Err(unresolved)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Host, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Seen {
    Answer(Arc<[IpAddr]>),
    Asking(watch::Receiver<Option<Answer>>),
    Nothing(watch::Sender<Option<Answer>>),
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// What asks each of these servers. Together they take no longer than `within`, and one of several that is not there no
/// more than a third of that: the last one has what the others leave.
fn ask(servers: Vec<NameServerConfig>, within: Duration) -> Result<Arc<[Server]>, ResolverError> {
    let count = u32::try_from(servers.len()).unwrap_or(u32::MAX);
    let share = within / count.max(3);
    let last = within.saturating_sub(share * count.saturating_sub(1));
    let patience = (1..=count).map(|number| if number == count { last } else { share });
    servers
        .into_iter()
        .zip(patience)
        .map(|(server, patience)| {
            let mut options = ResolverOpts::default();
            options.ndots = 0;
            // Twice, and a little time left: where only one of the two questions is answered, that answer counts.
            options.timeout = patience.mul_f32(0.45);
            options.attempts = 1;
            options.cache_size = 0;
            options.use_hosts_file = ResolveHosts::Never;
            options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
            let dns = TokioResolver::builder_with_config(
                HickoryConfig::from_parts(None, Vec::new(), vec![server]),
                TokioRuntimeProvider::default(),
            )
            .with_options(options)
            .build()
            .map_err(|error| ResolverError::Setup(error.to_string()))?;
            Ok(Server { dns, patience })
        })
        .collect()
}

/// The first servers in a file, none if it cannot be read or understood: a machine without a network may have no such file.
fn servers_in(path: &Path) -> Vec<NameServerConfig> {
    let read = std::fs::read(path).ok();
    read.and_then(|text| system_conf::parse_resolv_conf(text).ok())
        .map(|(config, _)| {
            config
                .name_servers()
                .iter()
                .take(SERVERS)
                .cloned()
                .collect()
        })
        .unwrap_or_default()
}

/// A file that may change while we run.
#[derive(Default)]
struct Watched {
    looked: Option<Instant>,
    stamp: Option<(SystemTime, u64)>,
}

impl Watched {
    /// Whether the file is another than at the last call. It is looked at once a second at most.
    fn has_changed(&mut self, path: &Path) -> bool {
        if self.looked.is_some_and(|at| at.elapsed() < FRESH) {
            return false;
        }
        self.looked = Some(Instant::now());
        let stamp = std::fs::metadata(path)
            .and_then(|meta| Ok((meta.modified()?, meta.len())))
            .ok();
        std::mem::replace(&mut self.stamp, stamp) != stamp
    }
}

/// A hosts file, read when first needed and again whenever it has changed.
struct HostsFile {
    path: PathBuf,
    kept: Mutex<HostsRead>,
}

#[derive(Default)]
struct HostsRead {
    file: Watched,
    names: HashMap<Host, Arc<[IpAddr]>>,
}

impl HostsFile {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            kept: Mutex::default(),
        }
    }

    fn addresses(&self, name: &Host) -> Option<Arc<[IpAddr]>> {
        let read = &mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if read.file.has_changed(&self.path) {
            read.names = self.read();
        }
        read.names.get(name).cloned()
    }

    /// What the file says at this moment; nothing if it cannot be read.
    fn read(&self) -> HashMap<Host, Arc<[IpAddr]>> {
        std::fs::read(&self.path)
            .map(|text| parse_hosts(&text))
            .unwrap_or_default()
    }
}

/// hosts(5): an address, then its names; `#` begins a comment. Lines that say something else are skipped,
/// as the C library does.
pub(crate) fn parse_hosts(text: &[u8]) -> HashMap<Host, Arc<[IpAddr]>> {
    let mut names: HashMap<Host, Vec<IpAddr>> = HashMap::new();
    for line in String::from_utf8_lossy(text).lines() {
        let mut words = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        for name in words.filter_map(|word| word.parse::<Host>().ok()) {
            let addresses = names.entry(name).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    names
        .into_iter()
        .map(|(name, addresses)| (name, addresses.into()))
        .collect()
}

/// How many servers of a file are asked at most; the C library has `MAXNS`.
const SERVERS: usize = 3;
/// The most addresses that a name may have. Each would be connected to in turn, and is put on record.
const MOST: usize = 64;
/// Names kept in the cache.
const CACHE: usize = 8_192;
/// How long a file is taken to be unchanged.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_of_servers_may_be_missing_and_is_read_again_when_it_changes() {
        let path = std::env::temp_dir().join(format!("egret-resolv-{}.conf", std::process::id()));
        let config = ResolverConfig {
            servers: Servers::File(path.clone()),
            hosts_file: None,
        };
        let resolver = Resolver::new(&config, Duration::from_millis(100)).unwrap();
        let name: Host = "www.example.com".parse().unwrap();
        let nobody = Err(Unresolved::NoServers(path.clone()));
        assert_eq!(resolver.addresses(&name).await, nobody);

        std::fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
        assert_eq!(resolver.addresses(&name).await, nobody, "not looked at yet");
        tokio::time::sleep(FRESH).await;
        assert!(resolver.dns().is_ok());

        std::fs::remove_file(&path).unwrap();
        tokio::time::sleep(FRESH).await;
        assert_eq!(resolver.addresses(&name).await, nobody);
    }
}
