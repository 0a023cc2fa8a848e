//! Errors of securing a stream.

use std::{io, sync::Arc, time::Duration};

#[cfg(feature = "tls")]
use super::fault::{CertificateFault, ClientCertificateFault};

/// The reason for which a stream was not secured.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// This build has no TLS.
    #[error("this was built without TLS: build with the feature `tls`")]
    NotBuiltIn,
    /// The handshake took longer than [`tls_timeout`](crate::Options::tls_timeout).
    #[error("the TLS handshake was not over within {0:?}")]
    TimedOut(Duration),
    /// The options cannot be met.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Setup(#[from] TlsSetupError),
    /// The server's certificate is not acceptable.
    #[cfg(feature = "tls")]
    #[error("the server's certificate {0}")]
    Certificate(#[from] CertificateFault),
    /// The server requires a client certificate, or refuses this one.
    #[cfg(feature = "tls")]
    #[error("the server {0}")]
    ClientCertificate(#[from] ClientCertificateFault),
    /// The server does not speak TLS, but for instance plain AMQP.
    #[cfg(feature = "tls")]
    #[error("the server does not speak TLS on this port")]
    NotTls,
    /// The server closed the stream during the handshake without an alert.
    #[cfg(feature = "tls")]
    #[error("the server hung up during the TLS handshake")]
    HungUp,
    /// The server and the client have no TLS version or cipher in common, or one of them violated
    /// the protocol. The text is that of rustls.
    #[cfg(feature = "tls")]
    #[error("the TLS handshake failed: {}", amqp_core::text::Escaped(.0))]
    Handshake(String),
    /// Reading or writing has failed.
    #[error(transparent)]
    Exchange(Arc<io::Error>),
}

impl TlsError {
    /// The TLS error inside `error`. `Some` if TLS has failed, and not the stream below it.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        #[cfg(feature = "tls")]
        return super::fault::of(error);
        #[cfg(not(feature = "tls"))]
        {
            let _ = error;
            None
        }
    }
}

impl From<io::Error> for TlsError {
    /// Converts an error of an adapter's [`secure`](crate::io::Runtime::secure).
    /// [`io::ErrorKind::Unsupported`] becomes [`NotBuiltIn`](Self::NotBuiltIn).
    fn from(error: io::Error) -> Self {
        if let Some(known) = Self::of(&error) {
            return known;
        }
        match error.kind() {
            io::ErrorKind::Unsupported => Self::NotBuiltIn,
            #[cfg(feature = "tls")]
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::HungUp,
            _ => Self::Exchange(error.into()),
        }
    }
}

/// The reason for which TLS cannot be set up as the [options](crate::TlsOptions) require.
#[cfg(feature = "tls")]
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// There is no provider of cryptography.
    #[error(
        "TLS has no cryptography: build with the feature `ring` or `aws-lc-rs`, or install a \
         default provider of rustls"
    )]
    NoProvider,
    /// Two providers of cryptography are built in, and none is chosen.
    #[error(
        "TLS has two providers of cryptography, `ring` and `aws-lc-rs`: choose one in \
         `TlsOptions::provider`, or install a default provider of rustls"
    )]
    TwoProviders,
    /// Two settings exclude each other.
    #[error("TLS is configured with `{one}`, which leaves nothing to say to `{other}`")]
    Conflict {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A certificate lacks its key, or a key its certificate.
    #[error("`{given}` needs `{missing}` beside it")]
    Alone {
        /// The setting that is present.
        given: &'static str,
        /// The setting that is missing.
        missing: &'static str,
    },
    /// The name cannot occur in a certificate.
    #[error("`{0}` is neither a host name nor an IP address that a certificate could name")]
    InvalidName(String),
    /// A Unix socket has no name that a certificate could contain.
    #[error("a Unix socket has no name to find in a certificate: set `server_name_indication`")]
    NoName,
    /// No certificate of an authority could be read from the platform.
    #[error("no authority is trusted on this system, give one (`cacertfile`): {0}")]
    NoAuthorities(String),
    /// A certificate or key, from a file or from memory, is not usable.
    #[error("`{setting}`{}: {fault}", .path.as_ref().map(|path| format!(" {path}")).unwrap_or_default())]
    Material {
        /// The parameter or option that sets it.
        setting: &'static str,
        /// The path. `Some` for a file, `None` for memory.
        path: Option<String>,
        /// The fault.
        #[source]
        fault: MaterialFault,
    },
    /// The provider lacks a required algorithm or protocol version.
    #[error("the cryptographic provider cannot do TLS as it is needed: {0}")]
    Provider(String),
}

#[cfg(feature = "tls")]
impl TlsSetupError {
    /// Whether the error is the same for every host.
    pub(crate) const fn is_final(&self) -> bool {
        !matches!(self, Self::InvalidName(_) | Self::NoName)
    }
}

/// A fault in a configured certificate or key.
#[cfg(feature = "tls")]
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum MaterialFault {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(Arc<io::Error>),
    /// The content is not well-formed.
    #[error("it is not well-formed: {0}")]
    Malformed(String),
    /// It contains no certificate.
    #[error("there is no certificate in PEM form in it")]
    NoCertificate,
    /// It contains no key.
    #[error("there is no private key in it")]
    NoKey,
    /// The key is encrypted. Encrypted keys are not supported.
    #[error("the private key in it is encrypted: decrypt it first")]
    EncryptedKey,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    /// The kind of certificate or key is not supported.
    #[error("it cannot be used: {0}")]
    Unusable(String),
}
