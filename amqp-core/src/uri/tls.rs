//! What a URI says about TLS.

use alloc::string::String;

/// What the query of an `amqps` URI says about TLS, each `None` if it says nothing.
///
/// The files are only named here. Whoever connects reads them, and decides what holds where nothing
/// is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsParameters {
    /// `cacertfile`: the path of the certificates of the authorities to trust.
    pub cacertfile: Option<String>,
    /// `certfile`: the path of the certificate to show to the server. It comes with a key.
    pub certfile: Option<String>,
    /// `keyfile`: the path of the key of that certificate.
    pub keyfile: Option<String>,
    /// `verify`: whether the server's certificate is verified.
    pub verify: Option<Verify>,
    /// `server_name_indication`: the name to ask the server for and to find in its certificate,
    /// in place of the host's.
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
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether the server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// `verify_peer`: it is.
    Peer,
    /// `verify_none`: any certificate will do. Whoever can stand between the client and the server
    /// can then read everything, the password included.
    None,
}

impl Verify {
    /// Its name in the URI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "verify_peer",
            Self::None => "verify_none",
        }
    }
}

/// The name to ask the server for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerNameIndication {
    /// This one.
    Name(String),
    /// `disable`: none is sent.
    Disabled,
}

impl ServerNameIndication {
    pub(super) const DISABLE: &'static str = "disable";

    /// What stands in the URI.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Disabled => Self::DISABLE,
        }
    }
}
