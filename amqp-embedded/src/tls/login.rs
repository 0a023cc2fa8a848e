//! Serving with TLS, and the user name of a client certificate.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use rustls::{CommonState, ServerConfig, pki_types::CertificateDer};
use webpki::EndEntityCert;

use super::subject::Subject;
use crate::identity::Peer;

/// The TLS setup for serving an embedded broker: the rustls configuration, and the source of the
/// user name for a login by EXTERNAL.
///
/// As with RabbitMQ's plugin `rabbitmq_auth_mechanism_ssl`, EXTERNAL is offered to every client,
/// and refused to one that has presented no certificate
/// (<https://www.rabbitmq.com/docs/access-control>). The configuration decides which certificates
/// are valid and whether one is required: if it accepts any, every client can log in under any
/// name. The broker must know the user; the password is not checked.
///
/// ```
/// use amqp_driver::rustls::ServerConfig;
/// use amqp_embedded::{
///     LoginFrom, ServerTls,
///     broker::{Config, Permissions, User},
/// };
///
/// # fn example(rustls: ServerConfig) {
/// let tls = ServerTls::from(rustls).login_from(LoginFrom::CommonName);
/// let mut config = Config::default();
/// config.users.push(User::new("billing", "").may("/", Permissions::all()));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    login_from: LoginFrom,
}

impl ServerTls {
    /// Sets the source of the user name.
    #[must_use]
    pub fn login_from(mut self, login_from: LoginFrom) -> Self {
        self.login_from = login_from;
        self
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The client of a session after its handshake.
    #[must_use]
    pub fn peer(&self, session: &CommonState) -> Peer {
        let certificates = session.peer_certificates().unwrap_or_default();
        let first = certificates.first();
        Peer::default()
            .user(self.login_from.name(certificates))
            .certificate(first.map(|first| Bytes::copy_from_slice(first)))
    }
}

/// Takes names from [`LoginFrom::DistinguishedName`], RabbitMQ's default.
impl From<Arc<ServerConfig>> for ServerTls {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self {
            config,
            login_from: LoginFrom::default(),
        }
    }
}

/// Takes names from [`LoginFrom::DistinguishedName`], RabbitMQ's default.
impl From<ServerConfig> for ServerTls {
    fn from(config: ServerConfig) -> Self {
        Arc::new(config).into()
    }
}

/// The source of the user name in a client certificate: RabbitMQ's `ssl_cert_login_from`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum LoginFrom {
    /// The whole subject as RabbitMQ writes it, the last part first: `CN=guest,O=Example`. The
    /// default.
    #[default]
    DistinguishedName,
    /// The common name. If there are several, all of them, joined by commas.
    CommonName,
    /// The alternative name of type DNS at this index, from 0: RabbitMQ's
    /// `ssl_cert_login_san_index` with `ssl_cert_login_san_type` `dns`, except that only
    /// well-formed names count.
    DnsName(usize),
    /// The alternative name of type URI at this index, from 0, likewise with the type `uri`.
    Uri(usize),
    /// The result of a function; see [`by`](Self::by).
    Function(NameFunction),
}

/// Returns the name of the user of a certificate; see [`LoginFrom::by`].
pub type NameFunction = Arc<dyn Fn(&CertificateDer<'_>) -> Option<String> + Send + Sync>;

impl LoginFrom {
    /// Calls `function` with the client certificate, which the configuration has verified already.
    /// `None` refuses the login.
    ///
    /// ```
    /// use amqp_embedded::LoginFrom;
    ///
    /// // Every client with a certificate.
    /// let guest = LoginFrom::by(|_| Some("guest".into()));
    /// ```
    pub fn by(
        function: impl Fn(&CertificateDer<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::Function(Arc::new(function))
    }

    /// The user name from the first certificate, which is the verified one: the others are
    /// unverified. `None` without a certificate, or without such a name in it.
    fn name(&self, certificates: &[CertificateDer<'_>]) -> Option<String> {
        let first = certificates.first()?;
        let own = EndEntityCert::try_from(first);
        match self {
            Self::DistinguishedName => Some(Subject::read(own.ok()?.subject())?.to_string()),
            Self::CommonName => Subject::read(own.ok()?.subject())?.common_name(),
            Self::DnsName(index) => own.ok()?.valid_dns_names().nth(*index).map(Into::into),
            Self::Uri(index) => own.ok()?.valid_uri_names().nth(*index).map(Into::into),
            Self::Function(function) => function(first),
        }
    }
}

/// The names in a certificate, in DER: the alternative names of the types DNS and URI, and the common
/// names of the subject. Empty if it cannot be parsed. It does not verify the certificate.
#[must_use]
pub fn certificate_names(certificate: &[u8]) -> Vec<String> {
    let der = CertificateDer::from_slice(certificate);
    let Ok(own) = EndEntityCert::try_from(&der) else {
        return Vec::new();
    };
    let subject = Subject::read(own.subject());
    let common = subject.iter().flat_map(Subject::common_names);
    let dns = own.valid_dns_names();
    let names = dns.chain(own.valid_uri_names()).chain(common);
    names.map(Into::into).collect()
}

impl fmt::Debug for LoginFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DistinguishedName => f.write_str("DistinguishedName"),
            Self::CommonName => f.write_str("CommonName"),
            Self::DnsName(index) => f.debug_tuple("DnsName").field(index).finish(),
            Self::Uri(index) => f.debug_tuple("Uri").field(index).finish(),
            Self::Function(_) => f.write_str("Function(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    type TestResult = Result<(), Box<dyn Error>>;

    fn certificate(params: &CertificateParams) -> Result<CertificateDer<'static>, rcgen::Error> {
        Ok(params.self_signed(&KeyPair::generate()?)?.der().clone())
    }

    #[test]
    fn names_come_from_where_they_should() -> TestResult {
        let mut params = CertificateParams::new(["a.example".into(), "b.example".into()])?;
        let uri = "urn:example:guest".try_into()?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, "guest");
        // All certificates after the first are ignored.
        let shown = [
            certificate(&params)?,
            certificate(&CertificateParams::default())?,
        ];

        let own = shown[0].clone();
        let known = LoginFrom::by(move |it| (*it == own).then(|| "known".to_owned()));
        for (from, name) in [
            (LoginFrom::default(), Some("CN=guest,O=Example")),
            (LoginFrom::CommonName, Some("guest")),
            (LoginFrom::DnsName(0), Some("a.example")),
            (LoginFrom::DnsName(1), Some("b.example")),
            (LoginFrom::DnsName(2), None),
            (LoginFrom::Uri(0), Some("urn:example:guest")),
            (LoginFrom::Uri(1), None),
            (known, Some("known")),
        ] {
            assert_eq!(from.name(&shown).as_deref(), name, "{from:?}");
            assert_eq!(from.name(&[]), None, "{from:?}");
        }
        Ok(())
    }

    #[test]
    fn all_names_of_a_certificate_are_listed() -> TestResult {
        let mut params = CertificateParams::new(["a.example".into()])?;
        let uri = "urn:example:guest".try_into()?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "guest");
        let names = certificate_names(&certificate(&params)?);
        assert_eq!(names, ["a.example", "urn:example:guest", "guest"]);
        assert!(certificate_names(b"no certificate").is_empty());
        Ok(())
    }

    #[test]
    fn a_certificate_without_a_subject_names_nobody() -> TestResult {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let shown = [certificate(&params)?];
        assert_eq!(LoginFrom::DistinguishedName.name(&shown), None);
        assert_eq!(LoginFrom::CommonName.name(&shown), None);
        Ok(())
    }
}
