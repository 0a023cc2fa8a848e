//! The parser of URIs.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::str::FromStr;
use core::time::Duration;

use super::text::{decode, decode_text, is_name, is_plain};
use super::{DEFAULT_HOST, Scheme, ServerNameIndication, TlsParameters, Uri, UriError, Verify};
use crate::dial::Address;
use crate::wire::ShortStr;

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
        // Checked first: the parts of a split login could cause any other error.
        if query.is_some_and(|query| query.contains('@')) {
            return Err(UriError::Query);
        }
        if vhost.is_some_and(|vhost| vhost.contains('@')) {
            return Err(UriError::AtInVirtualHost);
        }

        let mut uri = Self {
            scheme,
            ..Self::default()
        };
        uri.read_authority(authority)?;
        if let Some(vhost) = vhost.filter(|vhost| !vhost.is_empty()) {
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
    // A text that cannot be a scheme (section 3.1 of RFC 3986) may contain a password, so the error
    // does not repeat it.
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

/// Parses the virtual host, a single path segment: a slash in it must be percent-encoded.
fn parse_vhost(vhost: &str) -> Result<ShortStr, UriError> {
    let allowed = |byte| is_plain(byte) || byte == b':';
    let vhost = decode_text(vhost, allowed).map_err(UriError::VirtualHost)?;
    ShortStr::try_from(vhost).map_err(|error| UriError::VirtualHostTooLong { len: error.len })
}

impl Uri {
    fn read_authority(&mut self, authority: &str) -> Result<(), UriError> {
        // Splits at the last `@`: an earlier one is then reported as a character that must be
        // percent-encoded.
        let (login, addresses) = match authority.rsplit_once('@') {
            Some((login, addresses)) => (Some(login), addresses),
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

        self.addresses = parse_addresses(addresses, self.scheme)?;
        Ok(())
    }

    fn read_query(&mut self, query: &str) -> Result<(), UriError> {
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
                _ => self.read_tls_parameter(name, value)?,
            }
        }
        let TlsParameters {
            certfile, keyfile, ..
        } = &self.tls;
        let (name, missing) = match (certfile, keyfile) {
            (Some(_), None) => ("certfile", "keyfile"),
            (None, Some(_)) => ("keyfile", "certfile"),
            (None, None) | (Some(_), Some(_)) => return Ok(()),
        };
        Err(UriError::TlsParameterAlone { name, missing })
    }

    fn read_tls_parameter(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        let with_tls = |name| match self.scheme {
            Scheme::Amqps => Ok(name),
            Scheme::Amqp => Err(UriError::TlsParameterWithoutTls(name)),
        };
        let tls = &mut self.tls;
        match name {
            "cacertfile" => once(with_tls("cacertfile")?, value, &mut tls.cacertfile),
            "certfile" => once(with_tls("certfile")?, value, &mut tls.certfile),
            "keyfile" => once(with_tls("keyfile")?, value, &mut tls.keyfile),
            "verify" => once(with_tls("verify")?, value, &mut tls.verify),
            "server_name_indication" => {
                let name = with_tls("server_name_indication")?;
                once(name, value, &mut tls.server_name_indication)
            }
            _ => Err(UriError::UnknownParameter(name.to_owned())),
        }
    }
}

/// Parses a list of hosts, each with or without a port, separated by commas.
fn parse_addresses(list: &str, scheme: Scheme) -> Result<Vec<Address>, UriError> {
    let alone = !list.contains(',');
    let parse = |text| {
        let (host, port) = parse_address(text)?;
        let host = match host.as_str() {
            "" if alone => DEFAULT_HOST.to_owned(),
            "" => return Err(UriError::EmptyHost),
            _ => host,
        };
        let port = port.unwrap_or_else(|| scheme.default_port());
        Ok(Address::Tcp { host, port })
    };
    list.split(',').map(parse).collect()
}

/// Parses a host, which may be empty, and a port if there is one.
fn parse_address(address: &str) -> Result<(String, Option<u16>), UriError> {
    let (host, port) = if let Some(address) = address.strip_prefix('[') {
        let (address, rest) = address.split_once(']').ok_or(UriError::HostAddress)?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or(UriError::HostAddress)?),
        };
        (parse_ipv6(address)?, port)
    } else {
        let (host, port) = match address.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(UriError::HostAddress),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        };
        (decode_text(host, is_plain).map_err(UriError::Host)?, port)
    };
    // A colon without a port is treated as no port.
    let port = match port.filter(|port| !port.is_empty()) {
        Some(digits) => Some(parse_port(digits).ok_or(UriError::Port)?),
        None => None,
    };
    Ok((host, port))
}

fn parse_port(digits: &str) -> Option<u16> {
    parse_number(digits).filter(|port| *port != 0)
}

/// Parses the IPv6 address between brackets, with a zone if there is one (RFC 6874).
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

/// The value of a query parameter that may occur once.
pub(super) trait Value: Sized {
    const EXPECTED: &'static str;

    /// Returns whether the byte may be unencoded.
    fn allows(byte: u8) -> bool {
        is_plain(byte)
    }

    fn parse(text: &str) -> Option<Self>;
}

impl Value for u16 {
    const EXPECTED: &'static str = "a whole number from 0 to 65535";

    fn parse(text: &str) -> Option<Self> {
        parse_number(text)
    }
}

impl Value for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";

    fn parse(text: &str) -> Option<Self> {
        parse_number(text)
    }
}

impl Value for Duration {
    const EXPECTED: &'static str = "a whole number of milliseconds from 1 to 18446744073709551615";

    /// Refuses 0, which is no limit in some clients and an immediate timeout in others.
    fn parse(text: &str) -> Option<Self> {
        parse_number(text)
            .filter(|millis| *millis > 0)
            .map(Self::from_millis)
    }
}

/// The path of a file.
impl Value for String {
    const EXPECTED: &'static str = "the path of a file, percent-encoded";

    /// Slashes and colons are legal in a query (section 3.4 of RFC 3986).
    fn allows(byte: u8) -> bool {
        is_plain(byte) || b"/:".contains(&byte)
    }

    fn parse(text: &str) -> Option<Self> {
        Some(text).filter(|path| !path.is_empty()).map(Self::from)
    }
}

impl Value for Verify {
    const EXPECTED: &'static str = "`verify_peer` or `verify_none`";

    fn parse(text: &str) -> Option<Self> {
        [Self::Peer, Self::None]
            .into_iter()
            .find(|verify| verify.as_str() == text)
    }
}

impl Value for ServerNameIndication {
    const EXPECTED: &'static str = "the name of a server or `disable`";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "" => None,
            Self::DISABLE => Some(Self::Disabled),
            name => Some(Self::Name(name.to_owned())),
        }
    }
}

/// Sets a parameter that may occur once.
fn once<T: Value>(name: &'static str, value: &str, field: &mut Option<T>) -> Result<(), UriError> {
    if field.is_some() {
        return Err(UriError::RepeatedParameter(name));
    }
    *field = decode_text(value, T::allows)
        .ok()
        .and_then(|text| T::parse(&text));
    if field.is_none() {
        let expected = T::EXPECTED;
        return Err(UriError::ParameterValue { name, expected });
    }
    Ok(())
}

/// Parses an unsigned number. The standard library would accept a sign too.
fn parse_number<T: FromStr>(digits: &str) -> Option<T> {
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// Parses the name of a SASL mechanism: 1 to 20 upper-case letters, digits, `-` and `_` (section
/// 3.1 of RFC 4422). Lower case is accepted, as in RabbitMQ's examples.
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
