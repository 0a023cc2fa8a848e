//! The lookup of SRV records at name servers.
//!
//! It blocks on a thread of its own, as the resolvers of systems do, so that it needs nothing of a
//! runtime.

mod exchange;

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use amqp_core::dial::{SrvError, SrvRecord};
use resolv_conf::Config;
use simple_dns::Name;

use crate::io::in_thread;

/// The settings of the system.
const SETTINGS: &str = "/etc/resolv.conf";

/// The port of name servers.
const PORT: u16 = 53;

/// The number of name servers of the system that are asked, that of its own resolver.
const SERVERS_MAX: usize = 3;

/// Looks up SRV records. Asks the servers in turn, those of the system if none are given.
pub(crate) async fn look_up(
    name: &str,
    servers: Vec<SocketAddr>,
    limit: Duration,
) -> Result<Vec<SrvRecord>, SrvError> {
    let name = name.to_owned();
    let looking_up = in_thread("amqp-resolve", move || {
        let servers = match servers.is_empty() {
            true => Servers::of_system()?,
            false => Servers::of(servers, &Config::new()),
        };
        servers.ask(&name, limit)
    });
    match looking_up {
        Ok(looking_up) => looking_up.await,
        Err(error) => Err(SrvError::Unanswered {
            why: error.to_string(),
        }),
    }
}

/// The name servers, and the patience with them.
#[derive(Debug)]
struct Servers {
    addresses: Vec<SocketAddr>,
    /// The time for one answer.
    timeout: Duration,
    /// The number of questions to each server.
    attempts: u32,
}

impl Servers {
    fn of_system() -> Result<Self, SrvError> {
        let settings = fs::read(SETTINGS).map_err(|error| SrvError::NoNameServer {
            why: format!("{SETTINGS}: {error}"),
        })?;
        // As the system does, it takes the lines that can be read.
        let (settings, _unreadable) = Config::parse_with_errors(&settings);
        let addresses = settings.get_nameservers_or_local().into_iter();
        // An IPv6 address may have a zone, which the system knows.
        let addresses = addresses
            .filter_map(|ip| (ip.to_string(), PORT).to_socket_addrs().ok()?.next())
            .take(SERVERS_MAX);
        Ok(Self::of(addresses.collect(), &settings))
    }

    fn of(addresses: Vec<SocketAddr>, settings: &Config) -> Self {
        Self {
            addresses,
            timeout: Duration::from_secs(settings.timeout.max(1).into()),
            attempts: settings.attempts.max(1),
        }
    }

    /// Asks until one has answered.
    fn ask(&self, name: &str, limit: Duration) -> Result<Vec<SrvRecord>, SrvError> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let name = match Name::new(name) {
            Ok(valid) if !name.is_empty() => valid,
            _ => return Err(SrvError::InvalidName),
        };
        let end = Instant::now().checked_add(limit);
        let mut why = "there is none".to_owned();
        for _ in 0..self.attempts {
            for server in &self.addresses {
                let now = Instant::now();
                if end.is_some_and(|end| now >= end) {
                    return Err(SrvError::Unanswered { why });
                }
                let until = now + self.timeout;
                let until = end.map_or(until, |end| until.min(end));
                match exchange::ask(*server, &name, until) {
                    Ok(records) => return Ok(records),
                    Err(error) => why = format!("{server}: {error}"),
                }
            }
        }
        Err(SrvError::Unanswered { why })
    }
}
