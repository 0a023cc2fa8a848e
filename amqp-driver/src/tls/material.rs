//! Configured certificates and keys, from files and from memory.

use std::{fmt, fs};

use amqp_core::wire::Secret;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use super::{MaterialFault, TlsSetupError};

/// Certificates in memory.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Certificates {
    /// PEM text with any number of certificates. Other PEM items are ignored.
    Pem(Vec<u8>),
    /// Each in DER form.
    Der(Vec<Vec<u8>>),
}

impl Certificates {
    /// All certificates of a PEM text.
    pub fn pem(text: impl Into<Vec<u8>>) -> Self {
        Self::Pem(text.into())
    }

    /// Certificates, each in DER form.
    pub fn der<C: Into<Vec<u8>>>(certificates: impl IntoIterator<Item = C>) -> Self {
        Self::Der(certificates.into_iter().map(Into::into).collect())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(text) => write!(f, "Pem({} bytes)", text.len()),
            Self::Der(certificates) => write!(f, "Der({} certificates)", certificates.len()),
        }
    }
}

/// A client certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The certificate, followed by the intermediate certificates up to an authority that the
    /// server trusts.
    pub certificates: Certificates,
    /// Its private key.
    pub key: Key,
}

impl Identity {
    /// A certificate, followed by its intermediate certificates, and its key.
    #[must_use]
    pub const fn new(certificates: Certificates, key: Key) -> Self {
        Self { certificates, key }
    }
}

/// A private key in memory: PKCS #8, PKCS #1 (RSA) or SEC 1 (elliptic curves), not encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Key {
    /// PEM text. The first key counts.
    Pem(Secret),
    /// In DER form.
    Der(Secret),
}

impl Key {
    /// The first key of a PEM text.
    pub fn pem(text: impl Into<Secret>) -> Self {
        Self::Pem(text.into())
    }

    /// A key in DER form.
    pub fn der(key: impl Into<Secret>) -> Self {
        Self::Der(key.into())
    }
}

/// A configured certificate list or key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a, T> {
    /// The parameter or option that sets it.
    pub(super) setting: &'static str,
    pub(super) place: Place<'a, T>,
}

/// The place of the certificates or key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a, T> {
    /// The path of a file in PEM form.
    File(&'a str),
    Memory(&'a T),
}

impl<'a, T> Source<'a, T> {
    /// The source with its setting, in memory or a file. `Some` if one of the two is set.
    ///
    /// # Errors
    /// If both are set.
    pub(super) fn of(
        memory: (&'static str, Option<&'a T>),
        file: (&'static str, Option<&'a String>),
    ) -> Result<Option<Self>, TlsSetupError> {
        Ok(match (memory, file) {
            ((one, Some(_)), (other, Some(_))) => {
                return Err(TlsSetupError::Conflict { one, other });
            }
            ((setting, Some(value)), _) => Some(Self {
                setting,
                place: Place::Memory(value),
            }),
            (_, (setting, Some(path))) => Some(Self {
                setting,
                place: Place::File(path),
            }),
            _ => None,
        })
    }

    pub(super) fn failed(&self, fault: MaterialFault) -> TlsSetupError {
        TlsSetupError::Material {
            setting: self.setting,
            path: match self.place {
                Place::File(path) => Some(path.to_owned()),
                Place::Memory(_) => None,
            },
            fault,
        }
    }
}

impl Source<'_, Certificates> {
    /// The certificates, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
        let certificates = match self.place {
            Place::File(path) => read(path).and_then(|text| certificates_in(&text)),
            Place::Memory(Certificates::Pem(text)) => certificates_in(text),
            Place::Memory(Certificates::Der(certificates)) => {
                Ok(certificates.iter().cloned().map(Into::into).collect())
            }
        };
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(self.failed(MaterialFault::NoCertificate))
            }
            Ok(certificates) => Ok(certificates),
            Err(fault) => Err(self.failed(fault)),
        }
    }
}

impl Source<'_, Key> {
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
        let key = match self.place {
            Place::File(path) => read(path).map(Secret::from).and_then(|text| key_in(&text)),
            Place::Memory(Key::Pem(text)) => key_in(text),
            Place::Memory(Key::Der(key)) => PrivateKeyDer::try_from(key.expose().to_vec())
                .map_err(|text| MaterialFault::Malformed(text.into())),
        };
        key.map_err(|fault| self.failed(fault))
    }
}

fn read(path: &str) -> Result<Vec<u8>, MaterialFault> {
    fs::read(path).map_err(|error| MaterialFault::Unreadable(error.into()))
}

fn certificates_in(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialFault> {
    CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(malformed)
}

fn key_in(text: &Secret) -> Result<PrivateKeyDer<'static>, MaterialFault> {
    let text = text.expose();
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound if is_encrypted(text) => MaterialFault::EncryptedKey,
        pem::Error::NoItemsFound => MaterialFault::NoKey,
        error => malformed(error),
    })
}

/// Whether the text contains an encrypted key, in the PKCS #8 form or the traditional PEM form.
fn is_encrypted(text: &[u8]) -> bool {
    [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| text.windows(mark.len()).any(|window| window == *mark))
}

fn malformed(error: pem::Error) -> MaterialFault {
    MaterialFault::Malformed(error.to_string())
}
