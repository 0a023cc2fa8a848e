//! The addresses of the command line.

use std::{fmt, net::IpAddr, path::PathBuf};

/// A host and a port, to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    /// 0 for any free port.
    pub(crate) port: u16,
}

impl HostPort {
    /// Parses `HOST:PORT`, or `PORT` at 127.0.0.1. An IPv6 address is in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let is_complete = !host.is_empty() && (bracketed.is_some() || !host.contains(':'));
        match port.parse() {
            Ok(port) if is_complete => Ok(Self {
                host: bracketed.unwrap_or(host).to_owned(),
                port,
            }),
            Ok(_) | Err(_) => Err(format!("{text:?} is not HOST:PORT")),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A place to listen for AMQP connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(HostPort),
    Tls(HostPort),
    Unix(PathBuf),
}

/// Returns whether only this machine reaches an address.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_parsed_and_shown() {
        for (text, host, port, shown) in [
            ("127.0.0.1:5672", "127.0.0.1", 5672, "127.0.0.1:5672"),
            ("5672", "127.0.0.1", 5672, "127.0.0.1:5672"),
            ("localhost:0", "localhost", 0, "localhost:0"),
            ("[::1]:1", "::1", 1, "[::1]:1"),
        ] {
            let parsed = HostPort::parse(text).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{text}");
            assert_eq!(parsed.to_string(), shown);
        }
    }

    #[test]
    fn an_incomplete_address_is_refused() {
        for text in [
            "",
            ":5672",
            "localhost",
            "localhost:",
            "::1:5",
            "a:65536",
            "a:-1",
        ] {
            assert!(HostPort::parse(text).is_err(), "{text}");
        }
    }
}
