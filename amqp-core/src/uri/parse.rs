//! The parser of URIs.
//!
//! The parts that can be malformed have parsers of nom. A split that cannot fail, as that of a list
//! at its commas, is one of the standard library, and so is the only one that begins at the end.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::{net::Ipv6Addr, str::FromStr, time::Duration};

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::{tag, take_till, take_until, take_while, take_while_m_n, take_while1},
    character::complete::{char, digit1, satisfy},
    combinator::{all_consuming, cut, map, map_res, opt, rest, verify},
    sequence::{pair, preceded, terminated},
};

use super::{
    DEFAULT_HOST, Scheme, ServerNameIndication, TlsParameters, Uri, UriError, Verify,
    text::{decode, decode_text, is_name, is_plain},
};
use crate::{dial::Address, wire::ShortStr};

impl TryFrom<&str> for Uri {
    type Error = UriError;

    fn try_from(text: &str) -> Result<Self, UriError> {
        text.parse()
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let scheme = terminated(take_until("://"), tag("://"));
        let (scheme, text) = whole(pair(scheme, rest), text).ok_or(UriError::MissingScheme)?;
        let scheme = parse_scheme(scheme)?;
        let vhost = opt(preceded(char('/'), until("?#")));
        let query = opt(preceded(char('?'), until("#")));
        let parts = (until("/?#"), vhost, query);
        let (authority, vhost, query) = whole(parts, text).ok_or(UriError::Fragment)?;
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

/// Runs a parser that must consume the whole of `text`. `Some` if it succeeds.
fn whole<'a, T>(parser: impl Parser<&'a str, Output = T, Error = ()>, text: &'a str) -> Option<T> {
    let (_, value) = all_consuming(parser).parse_complete(text).ok()?;
    Some(value)
}

/// Returns the parser of a text, which may be empty, before the first of the characters `ends`.
fn until<'a>(ends: &'static str) -> impl FnMut(&'a str) -> IResult<&'a str, &'a str, ()> {
    take_till(|next| ends.contains(next))
}

fn parse_scheme(scheme: &str) -> Result<Scheme, UriError> {
    for known in [Scheme::Amqp, Scheme::Amqps] {
        if scheme.eq_ignore_ascii_case(known.as_str()) {
            return Ok(known);
        }
    }
    // A text that cannot be a scheme (section 3.1 of RFC 3986) may contain a password, so the error
    // does not repeat it.
    let first = satisfy(|first| first.is_ascii_alphabetic());
    let others = take_while(|next: char| next.is_ascii_alphanumeric() || "+-.".contains(next));
    let possible = whole(pair(first, others), scheme).is_some();
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
            let value = opt(preceded(char('='), rest));
            let (name, value) = whole(pair(take_while1(is_name), value), parameter)
                .ok_or(UriError::ParameterName)?;
            let value = value.unwrap_or_default();
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
    let bracketed = pair(
        terminated(until("]"), char(']')),
        opt(preceded(char(':'), rest)),
    );
    let bracketed = map(preceded(char('['), cut(bracketed)), |(address, port)| {
        (parse_ipv6(address), port)
    });
    let named = pair(until(":"), opt(preceded(char(':'), until(":"))));
    let named = map(named, |(host, port)| {
        (decode_text(host, is_plain).map_err(UriError::Host), port)
    });
    let (host, port) = whole(alt((bracketed, named)), address).ok_or(UriError::HostAddress)?;
    let host = host?;
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
    let ip = verify(until("%"), |ip: &str| ip.parse::<Ipv6Addr>().is_ok());
    let zone = preceded(tag("%25"), verify(rest, |zone: &str| !zone.is_empty()));
    let (ip, zone) = whole(pair(ip, opt(zone)), address).ok_or(UriError::HostAddress)?;
    let Some(zone) = zone else {
        return Ok(ip.to_owned());
    };
    let zone = decode_text(zone, is_plain).map_err(UriError::Host)?;
    Ok(format!("{ip}%{zone}"))
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
    whole(map_res(digit1, T::from_str), digits)
}

/// Parses the name of a SASL mechanism: 1 to 20 upper-case letters, digits, `-` and `_` (section
/// 3.1 of RFC 4422). Lower case is accepted, as in RabbitMQ's examples.
fn parse_mechanism(value: &str) -> Result<String, UriError> {
    decode_text(value, is_plain)
        .ok()
        .filter(|name| whole(take_while_m_n(1, 20, is_name), name).is_some())
        .map(|name| name.to_ascii_uppercase())
        .ok_or(UriError::ParameterValue {
            name: "auth_mechanism",
            expected: "the name of a SASL mechanism",
        })
}
