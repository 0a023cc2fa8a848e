//! Why a stream was not secured.

use std::{io, sync::Arc, time::Duration};

#[cfg(feature = "tls")]
use super::fault::{CertificateFault, ClientCertificateFault};

/// Why a stream was not secured.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// It was built without TLS.
    #[error("this was built without TLS: build with the feature `tls`")]
    NotBuiltIn,
    /// The handshake took longer than [`tls_timeout`](crate::Options::tls_timeout).
    #[error("the TLS handshake was not over within {0:?}")]
    TimedOut(Duration),
    /// What was asked for cannot be had.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Setup(#[from] TlsSetupError),
    /// The server's certificate will not do.
    #[cfg(feature = "tls")]
    #[error("the server's certificate {0}")]
    Certificate(#[from] CertificateFault),
    /// The server will not do without a certificate of the client, or not with this one.
    #[cfg(feature = "tls")]
    #[error("the server {0}")]
    ClientCertificate(#[from] ClientCertificateFault),
    /// The server speaks something else, such as AMQP without TLS.
    #[cfg(feature = "tls")]
    #[error("the server does not speak TLS on this port")]
    NotTls,
    /// The server hung up in the middle of the handshake, and did not say why.
    #[cfg(feature = "tls")]
    #[error("the server hung up during the TLS handshake")]
    HungUp,
    /// The server and the client have no version or cipher of TLS in common, or one of them did
    /// what the other does not take: in the words of rustls.
    #[cfg(feature = "tls")]
    #[error("the TLS handshake failed: {}", amqp_core::text::Escaped(.0))]
    Handshake(String),
    /// The exchange has failed.
    #[error(transparent)]
    Exchange(Arc<io::Error>),
}

impl TlsError {
    /// What TLS says, if it is TLS that says it.
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
    /// What an adapter's [`secure`](crate::io::Runtime::secure) says, in the words for it. One that is
    /// not supported is one that is [not built in](Self::NotBuiltIn).
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

/// Why there is no TLS as the [options](crate::TlsOptions) want it.
#[cfg(feature = "tls")]
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// Nothing is there to compute with.
    #[error(
        "TLS has no cryptography: build with the feature `ring` or `aws-lc-rs`, or install a \
         default provider of rustls"
    )]
    NoProvider,
    /// Two settings cannot both hold.
    #[error("TLS is configured with `{one}`, which leaves nothing to say to `{other}`")]
    Conflict {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A certificate comes without its key, or a key without its certificate.
    #[error("`{given}` needs `{missing}` beside it")]
    Alone {
        /// The one that is there.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// No certificate could have this as its name.
    #[error("`{0}` is neither a host name nor an IP address that a certificate could name")]
    InvalidName(String),
    /// A Unix socket has no name that could stand in a certificate.
    #[error("a Unix socket has no name to find in a certificate: set `server_name_indication`")]
    NoName,
    /// The platform has no certificates of authorities.
    #[error("no authority is trusted on this system, give one (`cacertfile`): {0}")]
    NoAuthorities(String),
    /// A file, or what was given in its place, is not what it should be.
    #[error("`{setting}`{}: {fault}", .path.as_ref().map(|path| format!(" {path}")).unwrap_or_default())]
    Material {
        /// The parameter or option that it is for.
        setting: &'static str,
        /// The file; none for what was given in memory.
        path: Option<String>,
        /// What is wrong.
        #[source]
        fault: MaterialFault,
    },
    /// The provider cannot do what is needed.
    #[error("the cryptographic provider cannot do TLS as it is needed: {0}")]
    Provider(String),
}

#[cfg(feature = "tls")]
impl TlsSetupError {
    /// Whether it would be the same for another host.
    pub(crate) const fn is_final(&self) -> bool {
        !matches!(self, Self::InvalidName(_) | Self::NoName)
    }
}

/// What is wrong with a certificate or key of one's own.
#[cfg(feature = "tls")]
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum MaterialFault {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(Arc<io::Error>),
    /// It is broken.
    #[error("it is not well-formed: {0}")]
    Malformed(String),
    /// There is no certificate in it.
    #[error("there is no certificate in PEM form in it")]
    NoCertificate,
    /// There is no key in it.
    #[error("there is no private key in it")]
    NoKey,
    /// The key is encrypted, with a password that nobody asks for here.
    #[error("the private key in it is encrypted: decrypt it first")]
    EncryptedKey,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    /// The certificate or key is of a kind that cannot be used.
    #[error("it cannot be used: {0}")]
    Unusable(String),
}
