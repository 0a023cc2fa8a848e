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
//! The virtual host is what follows the slash, so `amqp://host/` names the virtual host with the
//! **empty** name, while `amqp://host` and `amqp://host/%2f` name `/`. In every part, what is not a
//! letter, a digit or one of ``-._~!$&'()*+,;=`` must be percent-encoded (in the virtual host, `:`
//! and `@` may stand as they are). What these rules do not allow is an error; nothing is guessed.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::net::Ipv6Addr;
use core::str::FromStr;
use core::time::Duration;

use crate::wire::{Secret, ShortStr};

#[cfg(test)]
mod tests;

/// Where a broker is and how to log in there, as an AMQP URI says it.
///
/// ```
/// use amqp_core::uri::{Scheme, Uri};
///
/// let uri: Uri = "amqps://tom:p%40ss@example.com/orders?heartbeat=10".parse()?;
/// assert_eq!((uri.scheme, uri.host.as_str(), uri.port), (Scheme::Amqps, "example.com", 5671));
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
pub struct Uri {
    /// Whether the connection is made with TLS.
    pub scheme: Scheme,
    /// A name or an address; an IPv6 address has no brackets here.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The user name, which may be present and empty.
    pub username: Option<String>,
    /// The password, which may be present and empty.
    pub password: Option<Secret>,
    /// The virtual host.
    pub vhost: ShortStr,
    /// `heartbeat`: the interval to propose, in seconds; 0 asks for none.
    pub heartbeat: Option<u16>,
    /// `connection_timeout`: how long the TCP connection may take to be made. In milliseconds in
    /// the URI.
    pub connection_timeout: Option<Duration>,
    /// `channel_max`: how many channels to propose; 0 means no limit.
    pub channel_max: Option<u16>,
    /// `frame_max`: how large a frame to propose, in bytes; 0 means no limit.
    pub frame_max: Option<u32>,
    /// `auth_mechanism`, which may be repeated: names of SASL mechanisms in order of preference.
    /// They are in capitals here, as they are on the wire.
    pub auth_mechanisms: Vec<String>,
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
            host: "localhost".to_owned(),
            port: Scheme::Amqp.default_port(),
            username: None,
            password: None,
            vhost: const { ShortStr::from_static("/").unwrap() },
            heartbeat: None,
            connection_timeout: None,
            channel_max: None,
            frame_max: None,
            auth_mechanisms: Vec::new(),
        }
    }
}

impl TryFrom<&str> for Uri {
    type Error = UriError;

    fn try_from(text: &str) -> Result<Self, UriError> {
        text.parse()
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let (scheme, rest) = text.split_once("://").ok_or(UriError::MissingScheme)?;
        let scheme = parse_scheme(scheme)?;
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, vhost) = match rest.split_once('/') {
            Some((authority, vhost)) => (authority, Some(vhost)),
            None => (rest, None),
        };

        let mut uri = Self {
            scheme,
            port: scheme.default_port(),
            ..Self::default()
        };
        uri.read_authority(authority)?;
        if let Some(vhost) = vhost {
            uri.vhost = parse_vhost(vhost)?;
        }
        if let Some(query) = query {
            uri.read_query(query)?;
        }
        Ok(uri)
    }
}

fn parse_scheme(scheme: &str) -> Result<Scheme, UriError> {
    for known in [Scheme::Amqp, Scheme::Amqps] {
        if scheme.eq_ignore_ascii_case(known.as_str()) {
            return Ok(known);
        }
    }
    // What cannot be a scheme may be anything, so it is not repeated in the error.
    let possible = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    Err(if possible {
        UriError::UnknownScheme(scheme.to_owned())
    } else {
        UriError::MissingScheme
    })
}

/// One segment of a path: a slash in a virtual host must be encoded.
fn parse_vhost(vhost: &str) -> Result<ShortStr, UriError> {
    let allowed = |byte| is_plain(byte) || b":@".contains(&byte);
    let vhost = decode_text(vhost, allowed).map_err(UriError::VirtualHost)?;
    ShortStr::try_from(vhost).map_err(|error| UriError::VirtualHostTooLong { len: error.len })
}

impl Uri {
    fn read_authority(&mut self, authority: &str) -> Result<(), UriError> {
        // The last `@`: one before it then shows up as a character that should be encoded.
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        if let Some(login) = login {
            let (username, password) = match login.split_once(':') {
                Some((username, password)) => (username, Some(password)),
                None => (login, None),
            };
            self.username = Some(decode_text(username, is_plain).map_err(UriError::Username)?);
            if let Some(password) = password {
                let password = decode(password, is_plain).map_err(UriError::Password)?;
                self.password = Some(password.into());
            }
        }

        let (host, port) = match address.strip_prefix('[') {
            Some(address) => {
                let (address, rest) = address.split_once(']').ok_or(UriError::HostAddress)?;
                let port = if rest.is_empty() {
                    None
                } else {
                    Some(rest.strip_prefix(':').ok_or(UriError::HostAddress)?)
                };
                (parse_ipv6(address)?, port)
            }
            None => {
                let (host, port) = match address.split_once(':') {
                    Some((_, port)) if port.contains(':') => return Err(UriError::HostAddress),
                    Some((host, port)) => (host, Some(port)),
                    None => (address, None),
                };
                (decode_text(host, is_plain).map_err(UriError::Host)?, port)
            }
        };
        if !host.is_empty() {
            self.host = host;
        }
        // A colon without a port is the same as no port.
        if let Some(port) = port.filter(|port| !port.is_empty()) {
            self.port = parse_number(port)
                .filter(|port| *port != 0)
                .ok_or(UriError::Port)?;
        }
        Ok(())
    }

    fn read_query(&mut self, query: &str) -> Result<(), UriError> {
        if query.contains('@') {
            return Err(UriError::Query);
        }
        if query.is_empty() {
            return Ok(());
        }
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err(UriError::ParameterName);
            }
            match name {
                "heartbeat" => once("heartbeat", value, &mut self.heartbeat)?,
                "channel_max" => once("channel_max", value, &mut self.channel_max)?,
                "frame_max" => once("frame_max", value, &mut self.frame_max)?,
                "connection_timeout" => {
                    once("connection_timeout", value, &mut self.connection_timeout)?;
                }
                "auth_mechanism" => self.auth_mechanisms.push(parse_mechanism(value)?),
                _ => return Err(UriError::UnknownParameter(name.to_owned())),
            }
        }
        Ok(())
    }
}

/// An address, which the brackets stood around, and possibly a zone as RFC 6874 writes it.
fn parse_ipv6(address: &str) -> Result<String, UriError> {
    let (address, zone) = match address.split_once("%25") {
        Some((address, zone)) => (address, Some(zone)),
        None => (address, None),
    };
    if address.parse::<Ipv6Addr>().is_err() {
        return Err(UriError::HostAddress);
    }
    match zone {
        Some("") => Err(UriError::HostAddress),
        Some(zone) => {
            let zone = decode_text(zone, is_plain).map_err(UriError::Host)?;
            Ok(format!("{address}%{zone}"))
        }
        None => Ok(address.to_owned()),
    }
}

/// What a numeric parameter becomes.
trait Number: Sized {
    const EXPECTED: &'static str;
    fn parse(digits: &str) -> Option<Self>;
}

impl Number for u16 {
    const EXPECTED: &'static str = "a whole number from 0 to 65535";
    fn parse(digits: &str) -> Option<Self> {
        parse_number(digits)
    }
}

impl Number for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";
    fn parse(digits: &str) -> Option<Self> {
        parse_number(digits)
    }
}

impl Number for Duration {
    const EXPECTED: &'static str = "a whole number of milliseconds that 64 bits can hold";
    fn parse(digits: &str) -> Option<Self> {
        parse_number(digits).map(Self::from_millis)
    }
}

/// Sets a parameter that may occur once.
fn once<T: Number>(name: &'static str, value: &str, field: &mut Option<T>) -> Result<(), UriError> {
    if field.is_some() {
        return Err(UriError::RepeatedParameter(name));
    }
    *field = decode_text(value, is_plain)
        .ok()
        .and_then(|digits| T::parse(&digits));
    if field.is_none() {
        let expected = T::EXPECTED;
        return Err(UriError::ParameterValue { name, expected });
    }
    Ok(())
}

/// The standard library would also take a sign.
fn parse_number<T: FromStr>(digits: &str) -> Option<T> {
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// SASL allows mechanism names of 1 to 20 capitals, digits, `-` and `_`; RabbitMQ's examples have
/// them in small letters.
fn parse_mechanism(value: &str) -> Result<String, UriError> {
    decode_text(value, is_plain)
        .ok()
        .filter(|name| (1..=20).contains(&name.len()) && name.bytes().all(is_name))
        .map(|name| name.to_ascii_uppercase())
        .ok_or(UriError::ParameterValue {
            name: "auth_mechanism",
            expected: "the name of a SASL mechanism",
        })
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// What never needs to be encoded.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand as it is in every part.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=".contains(&byte)
}

fn decode_text(text: &str, allowed: impl Fn(u8) -> bool) -> Result<String, TextFault> {
    String::from_utf8(decode(text, allowed)?).map_err(|_| TextFault::NotUtf8)
}

fn decode(text: &str, allowed: impl Fn(u8) -> bool) -> Result<Vec<u8>, TextFault> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                return Err(TextFault::Escape);
            };
            decoded.push((high << 4 | low) as u8);
        } else if allowed(byte) {
            decoded.push(byte);
        } else {
            return Err(TextFault::Character);
        }
    }
    Ok(decoded)
}

/// Encodes whatever needs it in any part.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if is_unreserved(byte) {
                f.write_char(byte.into())?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The URI in full, but with `<hidden>` in place of the password, which no URI can have there: it
/// cannot be taken for the real one.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(username) = &self.username {
            Encoded(username).fmt(f)?;
        }
        if self.password.is_some() {
            f.write_str(":<hidden>")?;
        }
        if self.username.is_some() || self.password.is_some() {
            f.write_char('@')?;
        }
        let (address, zone) = match self.host.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (self.host.as_str(), None),
        };
        match (address.parse::<Ipv6Addr>(), zone) {
            (Ok(_), None) => write!(f, "[{address}]")?,
            (Ok(_), Some(zone)) if !zone.is_empty() => {
                write!(f, "[{address}%25{}]", Encoded(zone))?;
            }
            _ => Encoded(&self.host).fmt(f)?,
        }
        write!(f, ":{}/{}", self.port, Encoded(&self.vhost))?;

        let timeout = self.connection_timeout.map(|timeout| timeout.as_millis());
        let numbers = [
            ("heartbeat", self.heartbeat.map(u128::from)),
            ("connection_timeout", timeout),
            ("channel_max", self.channel_max.map(u128::from)),
            ("frame_max", self.frame_max.map(u128::from)),
        ];
        let mut separator = '?';
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, "{separator}{name}={number}")?;
                separator = '&';
            }
        }
        for mechanism in &self.auth_mechanisms {
            write!(f, "{separator}auth_mechanism={}", Encoded(mechanism))?;
            separator = '&';
        }
        Ok(())
    }
}
