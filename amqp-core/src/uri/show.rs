//! The display form of a URI.

use core::fmt::{self, Write as _};

use super::text::{Encoded, EncodedPath};
use super::{TlsParameters, Uri};
use crate::dial::{Address, split_ipv6};

/// Writes the whole URI with `<hidden>` in place of the password. No URI can contain that text, so
/// that it cannot be mistaken for a password.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(username) = &self.username {
            write!(f, "{}", Encoded(username))?;
        }
        if self.password.is_some() {
            f.write_str(":<hidden>")?;
        }
        if self.username.is_some() || self.password.is_some() {
            f.write_char('@')?;
        }
        for (index, address) in self.addresses.iter().enumerate() {
            if index > 0 {
                f.write_char(',')?;
            }
            write_address(f, address)?;
        }
        write!(f, "/{}", Encoded(&self.vhost))?;

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
        let TlsParameters {
            cacertfile,
            certfile,
            keyfile,
            verify,
            server_name_indication,
        } = &self.tls;
        let files = [
            ("cacertfile", cacertfile),
            ("certfile", certfile),
            ("keyfile", keyfile),
        ];
        for (name, path) in files {
            if let Some(path) = path {
                write!(f, "{separator}{name}={}", EncodedPath(path))?;
                separator = '&';
            }
        }
        if let Some(verify) = verify {
            write!(f, "{separator}verify={}", verify.as_str())?;
            separator = '&';
        }
        if let Some(name) = server_name_indication {
            let name = Encoded(name.as_str());
            write!(f, "{separator}server_name_indication={name}")?;
        }
        Ok(())
    }
}

fn write_address(f: &mut fmt::Formatter<'_>, address: &Address) -> fmt::Result {
    match address {
        Address::Tcp { host, port } => {
            match split_ipv6(host) {
                Some((address, None)) => write!(f, "[{address}]")?,
                Some((address, Some(zone))) => write!(f, "[{address}%25{}]", Encoded(zone))?,
                None => write!(f, "{}", Encoded(host))?,
            }
            write!(f, ":{port}")
        }
        // No URI can contain this form, so that it cannot be mistaken for a host.
        Address::Unix(path) => write!(f, "<unix:{}>", EncodedPath(path)),
        Address::Srv(name) => write!(f, "<srv:{}>", EncodedPath(name)),
        Address::Other(address) => write!(f, "<{}>", EncodedPath(address)),
    }
}
