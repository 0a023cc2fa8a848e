//! Certificates and keys of one's own, from files and from memory.

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
    /// A text with any number of them in PEM form, and perhaps with other things.
    Pem(Vec<u8>),
    /// Each in DER form.
    Der(Vec<Vec<u8>>),
}

impl Certificates {
    /// All that are in a text in PEM form.
    pub fn pem(text: impl Into<Vec<u8>>) -> Self {
        Self::Pem(text.into())
    }

    /// These, each in DER form.
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

/// A certificate to show to a server, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The certificate, and after it those of the authorities between it and one that the server
    /// knows.
    pub certificates: Certificates,
    /// Its private key.
    pub key: Key,
}

impl Identity {
    /// A certificate with those of the authorities behind it, and its key.
    #[must_use]
    pub const fn new(certificates: Certificates, key: Key) -> Self {
        Self { certificates, key }
    }
}

/// A private key in memory: PKCS #8, PKCS #1 (RSA) or SEC 1 (elliptic curves), not encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Key {
    /// A text in PEM form, of which the first key counts.
    Pem(Secret),
    /// In DER form.
    Der(Secret),
}

impl Key {
    /// The first key of a text in PEM form.
    pub fn pem(text: impl Into<Secret>) -> Self {
        Self::Pem(text.into())
    }

    /// A key in DER form.
    pub fn der(key: impl Into<Secret>) -> Self {
        Self::Der(key.into())
    }
}

/// Something with certificates or a key in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a, T> {
    /// The parameter or option.
    pub(super) setting: &'static str,
    pub(super) place: Place<'a, T>,
}

/// Where it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a, T> {
    /// In the file at that path, in PEM form.
    File(&'a str),
    Memory(&'a T),
}

impl<'a, T> Source<'a, T> {
    /// What is given, under these names: in memory or as a file; none if neither is.
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
    /// The certificates, of which there is at least one.
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
    /// The key.
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

/// Whether there is a key that only who has its password can read, in either of the two forms.
fn is_encrypted(text: &[u8]) -> bool {
    [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| text.windows(mark.len()).any(|window| window == *mark))
}

fn malformed(error: pem::Error) -> MaterialFault {
    MaterialFault::Malformed(error.to_string())
}
