//! Addresses of brokers.

use alloc::{borrow::ToOwned as _, string::String};
use core::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use crate::text::Escaped;

/// The address of a broker. Its display has control characters [`Escaped`].
///
/// ```
/// use amqp_core::dial::Address;
///
/// assert_eq!(Address::tcp("example.com", 5672).to_string(), "example.com:5672");
/// assert_eq!(Address::tcp("::1", 5672).to_string(), "[::1]:5672");
/// assert_eq!(Address::unix("/run/broker.sock").to_string(), "unix:/run/broker.sock");
/// assert_eq!(Address::srv("_amqp._tcp.example.com").to_string(), "srv:_amqp._tcp.example.com");
/// assert_eq!(Address::other("wss://example.com/ws").to_string(), "wss://example.com/ws");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// A name or an IP address. An IPv6 address has no brackets, and may have a zone:
        /// `fe80::1%eth0`.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a Unix socket. No URI expresses it.
    Unix(String),
    /// The name of DNS SRV records, which list the hosts and ports of a service with their priorities
    /// and weights (RFC 2782). They are looked up at each connect. No URI expresses it.
    Srv(String),
    /// An address of another transport, such as a WebSocket, in the form that the runtime reads. It is
    /// neither resolved nor raced.
    Other(String),
}

impl Address {
    /// A TCP port.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        Self::Tcp { host, port }
    }

    /// The path of a Unix socket.
    pub fn unix(path: impl Into<String>) -> Self {
        Self::Unix(path.into())
    }

    /// The name of SRV records, such as `_amqp._tcp.example.com` or `_amqps._tcp.example.com`.
    pub fn srv(name: impl Into<String>) -> Self {
        Self::Srv(name.into())
    }

    /// An address of another transport.
    pub fn other(address: impl Into<String>) -> Self {
        Self::Other(address.into())
    }

    /// The host, as a server's certificate names it. `Some` for TCP.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } => Some(host),
            Self::Unix(_) | Self::Srv(_) | Self::Other(_) => None,
        }
    }

    /// Parses a host that is an IP address without a zone, which needs no resolution.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { host, port } => {
                let ip: IpAddr = host.parse().ok()?;
                Some(SocketAddr::new(ip, *port))
            }
            Self::Unix(_) | Self::Srv(_) | Self::Other(_) => None,
        }
    }
}

/// Splits an IPv6 address and its zone. `Some` if the host is a valid one; an empty zone is not.
pub(crate) fn split_ipv6(host: &str) -> Option<(&str, Option<&str>)> {
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    let valid = address.parse::<Ipv6Addr>().is_ok() && zone != Some("");
    valid.then_some((address, zone))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if split_ipv6(host).is_some() => {
                write!(f, "[{}]:{port}", Escaped(host))
            }
            // The target of an SRV record may have any character.
            Self::Tcp { host, port } => write!(f, "{}:{port}", Escaped(host)),
            Self::Unix(path) => write!(f, "unix:{}", Escaped(path)),
            Self::Srv(name) => write!(f, "srv:{}", Escaped(name)),
            Self::Other(address) => Escaped(address).fmt(f),
        }
    }
}

/// The target of a connection attempt, already resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(String),
    /// An address of another transport, as [`Address::Other`] has it.
    Other(String),
}

impl Target {
    /// Converts an address that needs no resolution.
    pub(super) fn of(address: &Address) -> Option<Self> {
        match address {
            Address::Tcp { .. } => address.literal().map(Self::Tcp),
            Address::Unix(path) => Some(Self::Unix(path.to_owned())),
            Address::Srv(_) => None,
            Address::Other(address) => Some(Self::Other(address.to_owned())),
        }
    }

    pub(super) const fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => Some(*socket),
            Self::Unix(_) | Self::Other(_) => None,
        }
    }
}
