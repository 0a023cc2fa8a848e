//! Salted hashes of passwords (<https://www.rabbitmq.com/docs/passwords>).

use alloc::{string::String, vec::Vec};
use core::fmt;

use amqp_core::wire::Secret;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256, Sha512};

/// The salted hash of a password, as RabbitMQ stores it: a salt of four bytes, and the hash of the
/// salt and the password (<https://www.rabbitmq.com/docs/passwords>).
///
/// ```
/// use amqp_broker::definitions::{HashingAlgorithm, PasswordHash};
///
/// let hash = PasswordHash::new(HashingAlgorithm::Sha256, [144, 141, 198, 10], b"test12");
/// assert_eq!(hash.to_base64(), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
/// assert!(hash.matches(b"test12") && !hash.matches(b"test13"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    algorithm: HashingAlgorithm,
    salt: [u8; SALT_LEN],
    hash: Vec<u8>,
}

/// The length of a salt, in bytes.
const SALT_LEN: usize = 4;

/// The hash function of a [`PasswordHash`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashingAlgorithm {
    /// `rabbit_password_hashing_sha256`, RabbitMQ's default.
    #[default]
    Sha256,
    /// `rabbit_password_hashing_sha512`.
    Sha512,
}

impl HashingAlgorithm {
    /// Returns the algorithm with that name: `Some` if it is supported.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "rabbit_password_hashing_sha256" => Some(Self::Sha256),
            "rabbit_password_hashing_sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Returns its name in RabbitMQ.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
        }
    }

    /// Returns the length of its hashes, in bytes.
    const fn len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn hash(self, salt: &[u8], password: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => digest::<Sha256>(salt, password),
            Self::Sha512 => digest::<Sha512>(salt, password),
        }
    }
}

fn digest<D: Digest>(salt: &[u8], password: &[u8]) -> Vec<u8> {
    let hasher = D::new().chain_update(salt).chain_update(password);
    hasher.finalize().to_vec()
}

impl PasswordHash {
    /// Hashes a password.
    #[must_use]
    pub fn new(algorithm: HashingAlgorithm, salt: [u8; SALT_LEN], password: &[u8]) -> Self {
        Self {
            algorithm,
            salt,
            hash: algorithm.hash(&salt, password),
        }
    }

    /// Reads the salt and the hash from base64: `Some` if they have the lengths of the algorithm.
    #[must_use]
    pub fn from_base64(algorithm: HashingAlgorithm, text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        let (salt, hash) = bytes.split_first_chunk::<SALT_LEN>()?;
        (hash.len() == algorithm.len()).then(|| Self {
            algorithm,
            salt: *salt,
            hash: hash.to_vec(),
        })
    }

    /// Returns the salt and the hash in base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode([&self.salt[..], &self.hash].concat())
    }

    /// Returns the hash function.
    #[must_use]
    pub const fn algorithm(&self) -> HashingAlgorithm {
        self.algorithm
    }

    /// Returns whether it is the hash of that password. The time does not depend on the position of
    /// a difference.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        let hash = Secret::from(self.algorithm.hash(&self.salt, password));
        let pairs = hash.expose().iter().zip(&self.hash);
        let different = pairs.fold(0, |bits, (one, other)| bits | (one ^ other));
        hash.len() == self.hash.len() && different == 0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({}, ..)", self.algorithm.name())
    }
}
