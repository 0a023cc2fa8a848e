//! AMQP URIs: `amqp://user:password@host:port/vhost?heartbeat=10`, by the rules of RabbitMQ's
//! [URI specification](https://www.rabbitmq.com/docs/uri-spec) and
//! [query parameters](https://www.rabbitmq.com/docs/uri-query-parameters).
//!
//! | part | if it is missing |
//! |---|---|
//! | scheme | an error; `amqps` means TLS |
//! | user name, password | `None`, which logs in as `guest` with the password `guest` |
//! | host | `localhost` |
//! | port | 5672, or 5671 for `amqps` |
//! | virtual host | `/` |
//! | parameter | `None` |
//!
//! A URI may have several hosts, each with or without a port, separated by commas:
//! `amqp://one,two:5673,[::1]/vhost`. They are the nodes of one cluster, which are equivalent. A
//! comma that belongs to a host must be percent-encoded.
//!
//! The virtual host is the text after the slash. If that is empty, as in `amqp://host/`, the
//! virtual host is `/`, as with `amqp://host` and `amqp://host/%2f`. Other clients agree, but
//! RabbitMQ's URI specification makes it the **empty** name. No URI names that one here; it can be
//! set with [`Config::virtual_host`](crate::client::Config::virtual_host).
//!
//! In every part, all characters other than letters, digits and ``-._~!$&'()*+,;=`` must be
//! percent-encoded; the virtual host may also contain `:`, and the path of a file in the query `/`
//! and `:`. An unencoded `@` is refused in the virtual host and in the query, although RabbitMQ's
//! rules allow it: it usually means that a `/` or a `?` in the login was not encoded. A violation
//! of these rules is an error; nothing is guessed.

mod parse;
mod show;
#[cfg(test)]
mod tests;
mod text;
mod tls;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

pub use self::tls::{ServerNameIndication, TlsParameters, Verify};
use crate::dial::Address;
use crate::wire::{Secret, ShortStr};

const DEFAULT_HOST: &str = "localhost";

/// The addresses of a broker, and the login, from an AMQP URI.
///
/// ```
/// use amqp_core::dial::Address;
/// use amqp_core::uri::{Scheme, Uri};
///
/// let uri: Uri = "amqps://tom:p%40ss@example.com/orders?heartbeat=10".parse()?;
/// assert_eq!(uri.scheme, Scheme::Amqps);
/// assert_eq!(uri.addresses, [Address::tcp("example.com", 5671)]);
/// assert_eq!(uri.vhost, "orders");
/// assert_eq!(uri.heartbeat, Some(10));
///
/// // The password is decoded, and shown by nothing but `expose`.
/// assert_eq!(uri.password.as_ref().unwrap().expose(), b"p@ss");
/// assert_eq!(
///     uri.to_string(),
///     "amqps://tom:<hidden>@example.com:5671/orders?heartbeat=10"
/// );
/// # Ok::<(), amqp_core::uri::UriError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uri {
    /// The scheme, which selects plain TCP or TLS.
    pub scheme: Scheme,
    /// The addresses of the server's nodes: at least one, all of them TCP.
    pub addresses: Vec<Address>,
    /// The user name. `Some` if the URI has one, which may be empty.
    pub username: Option<String>,
    /// The password. `Some` if the URI has one, which may be empty.
    pub password: Option<Secret>,
    /// The virtual host. A parsed one is never empty.
    pub vhost: ShortStr,
    /// `heartbeat`: the interval in seconds, or 0 for no heartbeats; see
    /// [`Config::heartbeat`](crate::client::Config::heartbeat).
    pub heartbeat: Option<u16>,
    /// `connection_timeout`: the timeout for the TCP connection to a host. In milliseconds in the
    /// URI, where 0 is an error: RabbitMQ's rules do not define it, and clients differ (no limit in
    /// Java, an immediate timeout in Erlang).
    pub connection_timeout: Option<Duration>,
    /// `channel_max`: the proposed number of channels; 0 means no limit.
    pub channel_max: Option<u16>,
    /// `frame_max`: the proposed frame limit, in bytes; 0 means no limit.
    pub frame_max: Option<u32>,
    /// `auth_mechanism`, which may be repeated: the names of SASL mechanisms, in order of
    /// preference. Converted to upper case, as in the protocol.
    pub auth_mechanisms: Vec<String>,
    /// The TLS parameters. Empty unless the scheme is [`Scheme::Amqps`].
    pub tls: TlsParameters,
}

/// The scheme of a URI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `amqp`: plain TCP.
    #[default]
    Amqp,
    /// `amqps`: TLS from the first byte.
    Amqps,
}

impl Scheme {
    /// Returns the default port: 5672 or 5671.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Amqp => 5672,
            Self::Amqps => 5671,
        }
    }

    /// Returns the name of the scheme in a URI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Amqps => "amqps",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The part of a URI that is invalid, and the reason.
///
/// It never contains text of the URI that could be a password, not even if an unencoded password is
/// the cause of the error.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UriError {
    /// The URI does not begin with a scheme and `://`.
    #[error("the scheme is missing: an AMQP URI begins with `amqp://` or `amqps://`")]
    MissingScheme,
    /// The scheme is neither `amqp` nor `amqps`.
    #[error("the scheme `{0}` is neither `amqp` nor `amqps`")]
    UnknownScheme(String),
    /// The user name is invalid.
    #[error("the user name {0}")]
    Username(TextFault),
    /// The password is invalid.
    #[error("the password {0}")]
    Password(TextFault),
    /// The host is invalid.
    #[error("the host {0}")]
    Host(TextFault),
    /// A host is missing before, between or after the commas of the list.
    #[error("a host is missing in the list of hosts")]
    EmptyHost,
    /// The host looks like an IPv6 address but is not a valid one in brackets.
    #[error("the host is not an IPv6 address in brackets, such as `[::1]`")]
    HostAddress,
    /// The port is invalid.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The virtual host is invalid.
    #[error("the virtual host {0}")]
    VirtualHost(TextFault),
    /// The virtual host is too long.
    #[error("the virtual host has {len} bytes, which is more than {max}", max = ShortStr::MAX_LEN)]
    VirtualHostTooLong {
        /// The decoded length, in bytes.
        len: usize,
    },
    /// There is an `@` in the virtual host, where it must be percent-encoded. It is a sign that a
    /// `/` before it belongs to the password.
    #[error(
        "the virtual host has an `@`, which is `%40` there: a `/` in a user name or password must \
         be percent-encoded"
    )]
    AtInVirtualHost,
    /// There is an `@` in the query. RabbitMQ's rules allow it, but it is a sign that a `?` before
    /// it belongs to the password.
    #[error("the query has an `@`: a `?` in a user name or password must be percent-encoded")]
    Query,
    /// There is a `#`: an AMQP URI has no fragment.
    #[error("an AMQP URI has no fragment: a `#` must be percent-encoded")]
    Fragment,
    /// The name of a query parameter is empty, or has a character other than letters, digits, `-`
    /// and `_`.
    #[error("the name of a query parameter is not of letters, digits, `-` and `_`")]
    ParameterName,
    /// The query parameter is unknown, or not supported.
    #[error("the query parameter `{0}` is unknown")]
    UnknownParameter(String),
    /// A query parameter that may occur once is repeated.
    #[error("the query parameter `{0}` is repeated")]
    RepeatedParameter(&'static str),
    /// The value of a query parameter is invalid.
    #[error("the query parameter `{name}` is not {expected}")]
    ParameterValue {
        /// The parameter.
        name: &'static str,
        /// The expected value.
        expected: &'static str,
    },
    /// A TLS query parameter is used with the scheme `amqp`.
    #[error("the query parameter `{0}` is of use for `amqps` only")]
    TlsParameterWithoutTls(&'static str),
    /// A certificate is given without its key, or a key without its certificate.
    #[error("the query parameter `{name}` needs `{missing}` beside it")]
    TlsParameterAlone {
        /// The parameter that is present.
        name: &'static str,
        /// The parameter that is missing.
        missing: &'static str,
    },
}

/// The fault in the text of one part of a URI.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextFault {
    /// A character must be percent-encoded.
    #[error("has a character that must be percent-encoded")]
    Character,
    /// A `%` is not followed by two hexadecimal digits.
    #[error("has a `%` that two hexadecimal digits do not follow")]
    Escape,
    /// The decoded text is not UTF-8.
    #[error("is not UTF-8 once it is decoded")]
    NotUtf8,
}

impl Uri {
    /// Returns the user name and the password for the login. Each defaults to `guest`.
    #[must_use]
    pub fn login(&self) -> (&str, Secret) {
        const GUEST: &str = "guest";
        (
            self.username.as_deref().unwrap_or(GUEST),
            self.password
                .clone()
                .unwrap_or(const { Secret::from_static(GUEST) }),
        )
    }
}

/// The parts of the URI `amqp://`.
impl Default for Uri {
    fn default() -> Self {
        Self {
            scheme: Scheme::Amqp,
            addresses: vec![Address::tcp(DEFAULT_HOST, Scheme::Amqp.default_port())],
            username: None,
            password: None,
            vhost: const { ShortStr::from_static("/").unwrap() },
            heartbeat: None,
            connection_timeout: None,
            channel_max: None,
            frame_max: None,
            auth_mechanisms: Vec::new(),
            tls: TlsParameters::default(),
        }
    }
}
