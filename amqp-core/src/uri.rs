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
//! There may be several hosts, each with or without a port, with commas between them:
//! `amqp://one,two:5673,[::1]/vhost`. They are the nodes of one cluster, any of which will do. A
//! comma that belongs to a host must be percent-encoded.
//!
//! The virtual host is what follows the slash. With nothing behind it, `amqp://host/` names the
//! virtual host `/`, as `amqp://host` and `amqp://host/%2f` do: other clients read it so, though by
//! RabbitMQ's rules it names the one with the **empty** name, which no URI can name here. It can be
//! given as [`Config::virtual_host`](crate::client::Config::virtual_host). In every part, what is
//! not a
//! letter, a digit or one of ``-._~!$&'()*+,;=`` must be percent-encoded; in the virtual host, `:`
//! may stand as it is. An `@` may not, neither there nor in the query, although RabbitMQ's rules
//! allow it: mostly it is the end of a login in which a `/` or a `?` was not encoded. What these
//! rules do not allow is an error; nothing is guessed.

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

/// Where a broker is and how to log in there, as an AMQP URI says it.
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
    /// Whether the connection is made with TLS.
    pub scheme: Scheme,
    /// Where the server's nodes are: at least one, and TCP all of them.
    pub addresses: Vec<Address>,
    /// The user name, which may be present and empty.
    pub username: Option<String>,
    /// The password, which may be present and empty.
    pub password: Option<Secret>,
    /// The virtual host. None that was read is empty.
    pub vhost: ShortStr,
    /// `heartbeat`: the interval in seconds, see
    /// [`Config::heartbeat`](crate::client::Config::heartbeat); 0 for no heartbeats.
    pub heartbeat: Option<u16>,
    /// `connection_timeout`: how long the TCP connection to a host may take to be made. In
    /// milliseconds in the URI, where 0 is an error: RabbitMQ's rules do not say what it means, and
    /// clients differ (no limit in Java, no time in Erlang).
    pub connection_timeout: Option<Duration>,
    /// `channel_max`: how many channels to propose; 0 means no limit.
    pub channel_max: Option<u16>,
    /// `frame_max`: how large a frame to propose, in bytes; 0 means no limit.
    pub frame_max: Option<u32>,
    /// `auth_mechanism`, which may be repeated: names of SASL mechanisms in order of preference.
    /// They are in capitals here, as they are on the wire.
    pub auth_mechanisms: Vec<String>,
    /// What is said about TLS; nothing, unless the scheme is [`Scheme::Amqps`].
    pub tls: TlsParameters,
}

/// How the connection is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `amqp`: plain TCP.
    #[default]
    Amqp,
    /// `amqps`: TLS from the first byte.
    Amqps,
}

impl Scheme {
    /// The port if the URI has none: 5672 or 5671.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Amqp => 5672,
            Self::Amqps => 5671,
        }
    }

    /// Its name in the URI.
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

/// Which part of a URI is wrong, and what is wrong with it.
///
/// It never holds any text of the URI in which a password could be, not even if the password is
/// what broke the URI apart.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UriError {
    /// It does not begin with a scheme and `://`.
    #[error("the scheme is missing: an AMQP URI begins with `amqp://` or `amqps://`")]
    MissingScheme,
    /// The scheme is another one.
    #[error("the scheme `{0}` is neither `amqp` nor `amqps`")]
    UnknownScheme(String),
    /// The user name is wrong.
    #[error("the user name {0}")]
    Username(TextFault),
    /// The password is wrong.
    #[error("the password {0}")]
    Password(TextFault),
    /// The host is wrong.
    #[error("the host {0}")]
    Host(TextFault),
    /// A host is missing before, between or after the commas of a list.
    #[error("a host is missing in the list of hosts")]
    EmptyHost,
    /// The host should be an IPv6 address and is none.
    #[error("the host is not an IPv6 address in brackets, such as `[::1]`")]
    HostAddress,
    /// The port is wrong.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The virtual host is wrong.
    #[error("the virtual host {0}")]
    VirtualHost(TextFault),
    /// The virtual host is too long.
    #[error("the virtual host has {len} bytes, which is more than {max}", max = ShortStr::MAX_LEN)]
    VirtualHostTooLong {
        /// How many bytes it has, decoded.
        len: usize,
    },
    /// There is an `@` in the virtual host, where it must be percent-encoded: it is a sign that a
    /// `/` before it belongs to the password.
    #[error(
        "the virtual host has an `@`, which is `%40` there: a `/` in a user name or password must \
         be percent-encoded"
    )]
    AtInVirtualHost,
    /// There is an `@` in the query. It is allowed there and yet of no use, but a sign that a `?`
    /// before it belongs to the password.
    #[error("the query has an `@`: a `?` in a user name or password must be percent-encoded")]
    Query,
    /// There is a `#`.
    #[error("an AMQP URI has no fragment: a `#` must be percent-encoded")]
    Fragment,
    /// The name of a query parameter is not of letters, digits, `-` and `_`, or is empty.
    #[error("the name of a query parameter is not of letters, digits, `-` and `_`")]
    ParameterName,
    /// There is no such query parameter, or none that means anything here.
    #[error("the query parameter `{0}` is unknown")]
    UnknownParameter(String),
    /// A query parameter that may occur once occurs again.
    #[error("the query parameter `{0}` is repeated")]
    RepeatedParameter(&'static str),
    /// The value of a query parameter is wrong.
    #[error("the query parameter `{name}` is not {expected}")]
    ParameterValue {
        /// The parameter.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A query parameter is about TLS, and the scheme is `amqp`.
    #[error("the query parameter `{0}` is of use for `amqps` only")]
    TlsParameterWithoutTls(&'static str),
    /// A certificate comes without its key, or a key without its certificate.
    #[error("the query parameter `{name}` needs `{missing}` beside it")]
    TlsParameterAlone {
        /// The one that is there.
        name: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
}

/// What is wrong with the text of one part of a URI.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextFault {
    /// A character is not allowed where it is.
    #[error("has a character that must be percent-encoded")]
    Character,
    /// Two hexadecimal digits do not follow a `%`.
    #[error("has a `%` that two hexadecimal digits do not follow")]
    Escape,
    /// What it says is not text.
    #[error("is not UTF-8 once it is decoded")]
    NotUtf8,
}

impl Uri {
    /// The user name and the password to log in with: `guest` in place of what the URI left out.
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

/// What `amqp://` says.
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
