//! The hosts of a service, by its SRV records.

#[cfg(feature = "srv")]
use std::{net::SocketAddr, time::Duration};

use amqp_core::{
    dial::{SrvError, SrvRecord},
    uri::{ServerNameIndication, Verify},
};

use super::options::Options;
#[cfg(feature = "srv")]
use crate::srv::look_up;
use crate::tls::TlsOptions;

/// The lookup of SRV records, and the check of their targets.
#[derive(Clone, Debug)]
pub(super) struct Service {
    #[cfg(feature = "srv")]
    name_servers: Vec<SocketAddr>,
    /// The limit of a lookup.
    #[cfg(feature = "srv")]
    limit: Duration,
    /// Whether the targets must be in the domain of the service.
    same_domain: bool,
}

impl Service {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            #[cfg(feature = "srv")]
            name_servers: options.name_servers.clone(),
            #[cfg(feature = "srv")]
            limit: options.tcp_timeout,
            same_domain: options.tls.as_ref().is_some_and(trusts_the_host),
        }
    }

    /// Looks up the records of a service.
    pub(super) async fn records(&self, name: &str) -> Result<Vec<SrvRecord>, SrvError> {
        let records = self.look_up(name).await?;
        if self.same_domain {
            check_domain(name, &records)?;
        }
        Ok(records)
    }

    #[cfg(feature = "srv")]
    async fn look_up(&self, name: &str) -> Result<Vec<SrvRecord>, SrvError> {
        look_up(name, self.name_servers.clone(), self.limit).await
    }

    /// Fails: this build has no lookup.
    #[cfg(not(feature = "srv"))]
    #[expect(clippy::unused_async, reason = "the other one waits")]
    async fn look_up(&self, _name: &str) -> Result<Vec<SrvRecord>, SrvError> {
        Err(SrvError::NotBuiltIn)
    }
}

/// Whether the certificate must have the name of the host, as DNS tells it.
fn trusts_the_host(tls: &TlsOptions) -> bool {
    let parameters = &tls.parameters;
    let is_named = matches!(
        parameters.server_name_indication,
        Some(ServerNameIndication::Name(_))
    );
    parameters.verify != Some(Verify::None) && !is_named
}

/// Checks that the targets are in the domain of the service, as RFC 6125, section 6.2.1, requires of
/// names to verify: DNS does not authenticate its answers.
fn check_domain(name: &str, records: &[SrvRecord]) -> Result<(), SrvError> {
    let mut domain = name.trim_end_matches('.');
    while let Some(labels) = domain.strip_prefix('_') {
        domain = labels.split_once('.').map_or("", |(_, rest)| rest);
    }
    let domain = domain.to_ascii_lowercase();
    for SrvRecord { target, .. } in records {
        let host = target.trim_end_matches('.').to_ascii_lowercase();
        let is_inside = match host.strip_suffix(&domain) {
            Some(rest) => rest.is_empty() || rest.ends_with('.'),
            // The service is not available.
            None => host.is_empty(),
        };
        if !is_inside || domain.is_empty() {
            let target = target.clone();
            return Err(SrvError::ForeignTarget { target });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[cfg(not(feature = "srv"))]
    use std::future::Future as _;

    use super::*;

    fn check(name: &str, target: &str) -> Result<(), SrvError> {
        let record = SrvRecord {
            priority: 0,
            weight: 0,
            port: 5671,
            target: target.to_owned(),
        };
        check_domain(name, &[record])
    }

    #[test]
    fn a_target_is_inside_of_the_domain_or_refused() {
        let name = "_amqps._tcp.Example.com";
        for target in ["example.com", "a.b.example.COM.", ".", ""] {
            assert_eq!(check(name, target), Ok(()), "{target}");
        }
        for target in ["badexample.com", "example.org", "com", "example.com.org"] {
            let target = target.to_owned();
            let refused = check(name, &target);
            assert_eq!(refused, Err(SrvError::ForeignTarget { target }));
        }
        assert!(check("_amqps._tcp", "example.com").is_err());
    }

    #[cfg(not(feature = "srv"))]
    #[test]
    fn without_the_feature_nothing_is_looked_up() {
        use std::{
            pin::pin,
            task::{Context, Poll, Waker},
        };

        let service = Service::new(&Options::default());
        let mut context = Context::from_waker(Waker::noop());
        let looked_up = pin!(service.records("_amqp._tcp.example.com")).poll(&mut context);
        assert_eq!(looked_up, Poll::Ready(Err(SrvError::NotBuiltIn)));
    }
}
