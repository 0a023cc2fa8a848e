//! The TLS parameters of a URI (<https://www.rabbitmq.com/docs/uri-query-parameters>).

use alloc::string::String;

/// The TLS parameters in the query of an `amqps` URI. Each is `Some` if the URI has it.
///
/// The files are not opened here. The TLS layer reads them, and has its own defaults for missing
/// parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsParameters {
    /// `cacertfile`: the path of the trusted CA certificates.
    pub cacertfile: Option<String>,
    /// `certfile`: the path of the client certificate. It requires a key.
    pub certfile: Option<String>,
    /// `keyfile`: the path of the key of the client certificate.
    pub keyfile: Option<String>,
    /// `verify`: whether the server's certificate is verified.
    pub verify: Option<Verify>,
    /// `server_name_indication`: the name to request from the server and to verify in its
    /// certificate, instead of the host.
    pub server_name_indication: Option<ServerNameIndication>,
}

impl TlsParameters {
    /// Sets `cacertfile`.
    #[must_use]
    pub fn cacertfile(mut self, cacertfile: impl Into<String>) -> Self {
        self.cacertfile = Some(cacertfile.into());
        self
    }

    /// Sets `certfile`.
    #[must_use]
    pub fn certfile(mut self, certfile: impl Into<String>) -> Self {
        self.certfile = Some(certfile.into());
        self
    }

    /// Sets `keyfile`.
    #[must_use]
    pub fn keyfile(mut self, keyfile: impl Into<String>) -> Self {
        self.keyfile = Some(keyfile.into());
        self
    }

    /// Sets `verify`.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = Some(verify);
        self
    }

    /// Sets `server_name_indication`.
    #[must_use]
    pub fn server_name_indication(mut self, server_name_indication: ServerNameIndication) -> Self {
        self.server_name_indication = Some(server_name_indication);
        self
    }
}

impl TlsParameters {
    /// Returns whether there are no TLS parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether the server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// `verify_peer`: the certificate is verified.
    Peer,
    /// `verify_none`: any certificate is accepted. An attacker between the client and the server
    /// can then read all traffic, including the password.
    None,
}

impl Verify {
    /// Returns the value in a URI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "verify_peer",
            Self::None => "verify_none",
        }
    }
}

/// The server name to request from the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerNameIndication {
    /// The name.
    Name(String),
    /// `disable`: no name is sent.
    Disabled,
}

impl ServerNameIndication {
    pub(super) const DISABLE: &'static str = "disable";

    /// Returns the value in a URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Disabled => Self::DISABLE,
        }
    }
}
