//! Securing a connection.

use std::io;

use amqp_core::{
    dial::Address,
    uri::{TlsParameters, Uri},
};

/// How connections are secured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// What a URI can say of it.
    pub parameters: TlsParameters,
}

impl TlsOptions {
    pub(crate) fn from_uri(uri: &Uri) -> Self {
        Self {
            parameters: uri.tls.clone(),
        }
    }

    /// What secures a stream to that host.
    pub(crate) fn for_host(&self, _address: &Address) -> Result<Tls, TlsError> {
        Err(TlsError::NotBuiltIn)
    }
}

/// What secures one stream. None can be made without TLS.
#[derive(Clone, Debug)]
pub enum Tls {}

/// A stream that was secured.
#[derive(Clone, Debug)]
pub struct Secured<S> {
    /// The stream.
    pub stream: S,
    /// The certificates that the peer has shown, its own first, each as DER.
    pub certificates: Vec<Vec<u8>>,
}

/// Why a stream was not secured.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// It was built without TLS.
    #[error("this was built without TLS: secure a stream otherwise, and open a connection over it")]
    NotBuiltIn,
    /// The exchange has failed.
    #[error(transparent)]
    Exchange(#[from] io::Error),
}
