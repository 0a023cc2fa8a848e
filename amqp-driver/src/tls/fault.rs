//! Errors of rustls, converted to errors that name the remedy.

use std::{fmt, io, time::Duration};

use amqp_core::text::Escaped;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, pki_types::UnixTime};

use super::TlsError;

/// The reason for which the server's certificate is not acceptable.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateFault {
    /// Its issuer is not trusted, or an intermediate certificate on the path to a trusted authority
    /// is missing.
    #[error("was issued by an unknown authority (`cacertfile` names one)")]
    UnknownIssuer,
    /// It is self-signed, and not a trusted certificate itself.
    #[error("is self-signed, and not trusted")]
    SelfSigned,
    /// It is for another server.
    #[error("is not for `{expected}` but for {}", Names(.names))]
    WrongName {
        /// The host, or the name that replaces it (`server_name_indication`).
        expected: String,
        /// The names and addresses that the certificate contains.
        names: Vec<String>,
    },
    /// It has expired.
    #[error("has expired {} ago", Span(*.ago))]
    Expired {
        /// The time since then, by this machine's clock.
        ago: Duration,
    },
    /// It is not valid yet.
    #[error("is not yet valid, but will be in {}", Span(*.until))]
    NotYetValid {
        /// The time until then, by this machine's clock.
        until: Duration,
    },
    /// Its extended key usage excludes servers.
    #[error("was not issued to be a server's")]
    WrongPurpose,
    /// It is the certificate of an authority, which may issue others and not identify a server.
    #[error("is that of an authority (CA:TRUE), which cannot be a server's")]
    Authority,
    /// Its signature does not match the key of the authority that it names.
    #[error("is not signed with the key of the authority that it names")]
    BadSignature,
    /// It was revoked.
    #[error("was revoked")]
    Revoked,
    /// Any other fault, in the text of rustls.
    #[error("will not do: {}", Escaped(.0))]
    Other(String),
}

/// The server's complaint about the client certificate.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientCertificateFault {
    /// It requires one, and got none.
    #[error("requires a client certificate (`certfile` and `keyfile`)")]
    Required,
    /// It refuses the presented one, or accepts none.
    #[error("refused the client certificate: {0}")]
    Refused(&'static str),
}

/// The TLS error inside `error`. `Some` if rustls has failed.
pub(super) fn of(error: &io::Error) -> Option<TlsError> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(error.clone().into())
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidCertificate(fault) => CertificateFault::from(fault).into(),
            // The first byte is not the content type of a TLS record.
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            Error::AlertReceived(alert) => said(alert),
            error => Self::Handshake(error.to_string()),
        }
    }
}

/// The error that an alert of the server stands for; see section 6.2 of RFC 8446.
fn said(alert: AlertDescription) -> TlsError {
    let refused = match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            return ClientCertificateFault::Required.into();
        }
        AlertDescription::UnknownCA => "it was issued by an unknown authority",
        AlertDescription::CertificateExpired => "it has expired, or is not yet valid",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnsupportedCertificate => "it is of a kind that is not supported",
        AlertDescription::BadCertificate => "it is broken, or missing",
        AlertDescription::CertificateUnknown => "for a reason that it does not tell",
        AlertDescription::AccessDenied => "it gives no access",
        AlertDescription::ProtocolVersion => {
            return TlsError::Handshake("the server speaks neither TLS 1.2 nor 1.3".into());
        }
        AlertDescription::UnrecognisedName => {
            return TlsError::Handshake(
                "the server does not know the name it was asked for".into(),
            );
        }
        AlertDescription::HandshakeFailure => {
            return TlsError::Handshake(
                "the server accepts no cipher, or wants a client certificate".into(),
            );
        }
        alert => return TlsError::Handshake(format!("the server says {alert:?}")),
    };
    ClientCertificateFault::Refused(refused).into()
}

impl From<CertificateError> for CertificateFault {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => Self::WrongName {
                expected: expected.to_str().into_owned(),
                names: presented.iter().map(|name| plain(name)).collect(),
            },
            CertificateError::ExpiredContext { time, not_after } => Self::Expired {
                ago: between(not_after, time),
            },
            CertificateError::NotValidYetContext { time, not_before } => Self::NotYetValid {
                until: between(time, not_before),
            },
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongPurpose
            }
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::Other(other) => {
                if let Some(known) = other.0.downcast_ref::<Self>() {
                    known.clone()
                } else if let Some(webpki::Error::CaUsedAsEndEntity) = other.0.downcast_ref() {
                    Self::Authority
                } else {
                    Self::Other(other.to_string())
                }
            }
            error => Self::Other(error.to_string()),
        }
    }
}

/// The name without its kind: `example.com` of `DnsName("example.com")`.
fn plain(name: &str) -> String {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

fn between(from: UnixTime, to: UnixTime) -> Duration {
    Duration::from_secs(to.as_secs().saturating_sub(from.as_secs()))
}

/// A list of names in a sentence.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else {
            return f.write_str("no name at all");
        };
        write!(f, "`{}`", Escaped(first))?;
        let mut rest = rest.iter();
        rest.try_for_each(|name| write!(f, ", `{}`", Escaped(name)))
    }
}

/// A duration in its largest unit of which there are at least two.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (count, unit) = match seconds {
            0..120 => (seconds, "second"),
            120..7_200 => (seconds / 60, "minute"),
            7_200..172_800 => (seconds / 3_600, "hour"),
            _ => (seconds / 86_400, "day"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}
