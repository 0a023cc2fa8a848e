//! Securing a connection with TLS.

#[cfg(feature = "tls")]
mod config;
mod error;
mod error_tap;
#[cfg(feature = "tls")]
mod fault;
#[cfg(feature = "tls")]
mod material;
#[cfg(all(test, feature = "tls"))]
mod tests;
#[cfg(feature = "tls")]
mod verifier;

#[cfg(feature = "tls")]
use std::sync::Arc;

use amqp_core::{
    dial::Address,
    uri::{TlsParameters, Uri},
};
#[cfg(feature = "tls")]
use rustls::{ClientConfig, CommonState, crypto::CryptoProvider, pki_types::ServerName};

pub use self::error::TlsError;
pub(crate) use self::error_tap::TlsErrorTap;
#[cfg(feature = "tls")]
pub use self::{
    error::{MaterialFault, TlsSetupError},
    fault::{CertificateFault, ClientCertificateFault},
    material::{Certificates, Identity, Key},
};

/// How connections are secured. By default the server's certificate must name the host, and be
/// issued by an authority that the platform trusts.
///
/// Supports TLS 1.2 and 1.3. The files are read for each connection, so that replaced ones take
/// effect. The platform's authorities are read once per process.
#[cfg_attr(
    feature = "tls",
    doc = r#"
```
use amqp_driver::{Certificates, Identity, Key, Options, TlsOptions, core::dial::Address};

let options = Options::from_uri("amqps://broker.example.com?cacertfile=/etc/ca.pem")?;

// The same with what is in memory, and with a certificate to show to the server.
# let (ca, certificate, key) = ("", "", "");
let tls = TlsOptions::default()
    .authorities(Certificates::pem(ca))
    .identity(Identity::new(Certificates::pem(certificate), Key::pem(key)));
let options = Options::default()
    .addresses([Address::tcp("broker.example.com", 5671)])
    .tls(tls);
# Ok::<(), amqp_driver::ConnectError>(())
```
"#
)]
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// The parameters that a URI can set, see <https://www.rabbitmq.com/docs/uri-query-parameters>.
    pub parameters: TlsParameters,
    /// The trusted authorities, in place of those of the platform. Excludes `cacertfile`.
    #[cfg(feature = "tls")]
    pub authorities: Option<Certificates>,
    /// The client certificate. Excludes `certfile`.
    #[cfg(feature = "tls")]
    pub identity: Option<Identity>,
    /// The provider of cryptography. Without it the default of the process, if one is installed,
    /// otherwise the built-in one: with both `ring` and `aws-lc-rs` it has to be chosen here or installed.
    #[cfg(feature = "tls")]
    pub provider: Option<Arc<CryptoProvider>>,
    /// A ready-made configuration, used unchanged. The only other setting that it allows is a
    /// `server_name_indication` with a name; any other is a [`TlsSetupError::Conflict`].
    #[cfg(feature = "tls")]
    pub config: Option<Arc<ClientConfig>>,
}

impl TlsOptions {
    /// Sets `parameters`.
    #[must_use]
    pub fn parameters(mut self, parameters: TlsParameters) -> Self {
        self.parameters = parameters;
        self
    }

    /// Sets `authorities`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn authorities(mut self, authorities: Certificates) -> Self {
        self.authorities = Some(authorities);
        self
    }

    /// Sets `identity`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Sets `provider`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn provider(mut self, provider: impl Into<Arc<CryptoProvider>>) -> Self {
        self.provider = Some(provider.into());
        self
    }

    /// Sets `config`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn config(mut self, config: impl Into<Arc<ClientConfig>>) -> Self {
        self.config = Some(config.into());
        self
    }
}

impl TlsOptions {
    pub(crate) fn from_uri(uri: &Uri) -> Self {
        Self {
            parameters: uri.tls.clone(),
            ..Self::default()
        }
    }

    /// The TLS setup for a stream to that host, as [`Runtime::secure`](crate::io::Runtime::secure) takes
    /// it. [`connect`](crate::connect()) and [`connect_over`](crate::connect_over) call it for each
    /// connection; it is public for a program that needs the secured stream itself, such as a proxy.
    /// Reads the files anew.
    ///
    /// ```
    /// use amqp_driver::{Options, core::dial::Address};
    ///
    /// # #[cfg(feature = "ring")] {
    /// let options = Options::from_uri("amqps://broker.example.com?verify=verify_none").expect("valid");
    /// let options = options.tls.expect("amqps is TLS");
    /// let tls = options.for_host(&Address::tcp("broker.example.com", 5671))?;
    /// assert_eq!(tls.server_name().to_str(), "broker.example.com");
    /// # }
    /// # Ok::<(), amqp_driver::TlsError>(())
    /// ```
    ///
    /// # Errors
    /// [`TlsError::Setup`] when a file or a setting is unusable.
    #[cfg(feature = "tls")]
    pub fn for_host(&self, address: &Address) -> Result<Tls, TlsError> {
        Ok(Tls {
            server_name: config::server_name(self, address)?,
            config: config::config(self)?,
        })
    }

    /// Fails.
    ///
    /// # Errors
    /// [`TlsError::NotBuiltIn`]: this build has no TLS.
    #[cfg(not(feature = "tls"))]
    pub fn for_host(&self, _address: &Address) -> Result<Tls, TlsError> {
        Err(TlsError::NotBuiltIn)
    }
}

/// The TLS setup of one stream, which an adapter passes to rustls.
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

#[cfg(feature = "tls")]
impl Tls {
    /// The configuration.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The name that the server's certificate must contain.
    #[must_use]
    pub fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }
}

/// The certificates that the peer has presented in a session, its own first, each in DER form, for
/// [`Secured`].
#[cfg(feature = "tls")]
#[must_use]
pub fn peer_certificates(session: &CommonState) -> Vec<Vec<u8>> {
    let shown = session.peer_certificates().unwrap_or_default();
    shown.iter().map(|it| it.to_vec()).collect()
}

/// The TLS setup of one stream. Without TLS there is no value of this type.
#[cfg(not(feature = "tls"))]
#[derive(Clone, Debug)]
pub enum Tls {}

/// A secured stream.
#[derive(Clone, Debug)]
pub struct Secured<S> {
    /// The stream.
    pub stream: S,
    /// The certificates that the peer has presented, its own first, each in DER form.
    pub certificates: Vec<Vec<u8>>,
}
