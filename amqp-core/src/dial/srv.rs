//! The addresses of a service by its SRV records (RFC 2782).

use alloc::{string::String, vec::Vec};

use super::{Address, MAX_RESOLVED};
use crate::{random::SplitMix, text::Escaped};

/// An SRV record: a host of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SrvRecord {
    /// The hosts of the lowest priority are tried first.
    pub priority: u16,
    /// The relative share of the host among those of its priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The name of the host, `.` for a service that is not available.
    pub target: String,
}

/// The reason why the SRV records of a service name no address.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SrvError {
    /// The name has no SRV record.
    #[error("there is no SRV record")]
    NotFound,
    /// The service is not available in this domain: the only target is `.`.
    #[error("the SRV record says that there is no such service (target \".\")")]
    NoService,
    /// A target outside of the domain of the service, on a connection with TLS: anything that can
    /// forge an answer of DNS could name it, with a valid certificate.
    #[error(
        "with TLS, the target {} must be in the same domain, or \
         server_name_indication must say the name to find in the certificate",
        Escaped(target)
    )]
    ForeignTarget {
        /// The name of the host.
        target: String,
    },
    /// The text is no name of DNS.
    #[error("this is no name of DNS")]
    InvalidName,
    /// The settings of the system for name servers cannot be read.
    #[error("no name server is known: {why}")]
    NoNameServer {
        /// The failure.
        why: String,
    },
    /// No name server has answered.
    #[error("no answer from a name server: {why}")]
    Unanswered {
        /// The last failure.
        why: String,
    },
    /// This build looks up no SRV records.
    #[error("the feature `srv` is not enabled")]
    NotBuiltIn,
}

/// Orders the targets by priority, and by weight within a priority: each position is a choice among
/// the remaining ones, in proportion to their weights.
pub(super) fn addresses(mut records: Vec<SrvRecord>, seed: u64) -> Result<Vec<Address>, SrvError> {
    records.truncate(MAX_RESOLVED);
    if records.is_empty() {
        return Err(SrvError::NotFound);
    }
    records.retain(|record| !host(&record.target).is_empty());
    if records.is_empty() {
        return Err(SrvError::NoService);
    }
    // Those of weight 0 first, so that one is chosen for the number 0, and only then.
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut generator = SplitMix(seed);
    let mut addresses = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let of_priority = records.iter().take_while(|it| it.priority == priority);
        let sum: u64 = of_priority.map(|it| u64::from(it.weight)).sum();
        let mut left = generator.below(sum + 1);
        let chosen = records.iter().position(|record| {
            let weight = u64::from(record.weight);
            let is_chosen = left <= weight;
            left = left.saturating_sub(weight);
            is_chosen
        });
        let SrvRecord { port, target, .. } = records.remove(chosen.unwrap_or_default());
        addresses.push(Address::tcp(host(&target), port));
    }
    Ok(addresses)
}

/// The name without the dot of the root.
fn host(target: &str) -> &str {
    target.strip_suffix('.').unwrap_or(target)
}
