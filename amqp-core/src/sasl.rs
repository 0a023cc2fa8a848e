//! SASL mechanisms (RFC 4422) for a client, and parsers of their responses for a server.
//!
//! The connection calls a [`Mechanism`] during the handshake. An application can implement its own
//! mechanism, with any number of rounds (section 3 of RFC 4422):
//!
//! ```text
//! server                                    client
//! start (mechanisms it accepts)  ------->
//!                                <-------   start-ok (name, initial_response)
//! secure (challenge)             ------->
//!                                <-------   secure-ok (respond)         ... as often as needed
//! tune                           ------->
//! ```

use alloc::{borrow::ToOwned, boxed::Box, string::String};
use core::fmt;

use nom::{
    Parser as _,
    bytes::complete::{tag, take_till},
    combinator::all_consuming,
    sequence::preceded,
};

use crate::wire::{DecodeError, Secret, parse, put};

#[cfg(test)]
mod tests;

/// The client's side of a SASL mechanism.
///
/// A mechanism can be used for several connections, one after the other: each calls
/// [`initial_response`](Self::initial_response) first. Its `Debug` must not show secrets.
///
/// ```
/// use amqp_core::{
///     sasl::{Mechanism, SaslError},
///     wire::Secret,
/// };
///
/// /// Doubles the number that the server sends.
/// #[derive(Clone, Debug)]
/// struct Double;
///
/// impl Mechanism for Double {
///     fn name(&self) -> &str {
///         "DOUBLE"
///     }
///     fn initial_response(&mut self) -> Secret {
///         Secret::new()
///     }
///     fn respond(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
///         let number: u64 = core::str::from_utf8(challenge)
///             .ok()
///             .and_then(|digits| digits.parse().ok())
///             .ok_or_else(|| SaslError::Challenge("not a number".into()))?;
///         Ok((number * 2).to_string().into())
///     }
///     fn boxed(&self) -> Box<dyn Mechanism> {
///         Box::new(self.clone())
///     }
/// }
///
/// assert_eq!(Double.respond(b"123")?.expose(), b"246");
/// # Ok::<(), SaslError>(())
/// ```
pub trait Mechanism: fmt::Debug + Send + Sync {
    /// Returns the name, as the server lists it in `connection.start`.
    fn name(&self) -> &str;

    /// Returns the response for `connection.start-ok`. Begins a new exchange: the state of an
    /// unfinished one is discarded.
    fn initial_response(&mut self) -> Secret;

    /// Returns the response to the challenge of a `connection.secure`. The default refuses every
    /// challenge, as mechanisms with only an initial response do.
    ///
    /// # Errors
    /// If there is no response to the challenge. The connection then fails.
    fn respond(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
        let _ = challenge;
        Err(SaslError::UnexpectedChallenge)
    }

    /// Clones the mechanism: `Box::new(self.clone())`. Each connection gets a clone of the one in
    /// its configuration.
    fn boxed(&self) -> Box<dyn Mechanism>;
}

impl Clone for Box<dyn Mechanism> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

/// The cause of a failed authentication. It never contains a secret.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaslError {
    /// The mechanism does not respond to challenges, and the server sent one.
    #[error("the server sent a challenge, to which the mechanism has no answer")]
    UnexpectedChallenge,
    /// The mechanism has no response to the server's challenge, for the given reason.
    #[error("the challenge has no answer: {0}")]
    Challenge(String),
    /// The user name or the password contains a NUL, which is the separator of PLAIN (section 2 of
    /// RFC 4616).
    #[error("PLAIN has no user names and passwords with a NUL in them")]
    Nul,
    /// The client's response violates the format of its mechanism.
    #[error("the response is malformed: {0}")]
    Malformed(&'static str),
    /// The client's response is not a valid field table.
    #[error("the response is malformed: {0}")]
    Decode(#[from] DecodeError),
}

/// PLAIN (RFC 4616): the user name and the password in clear text. RabbitMQ enables it by default.
///
/// ```
/// use amqp_core::sasl::{Mechanism, Plain};
///
/// let mut plain = Plain::new("tom", "secret")?;
/// assert_eq!(plain.initial_response().expose(), b"\0tom\0secret");
/// assert_eq!(format!("{plain:?}"), r#"Plain { username: "tom", password: Secret(..) }"#);
/// # Ok::<(), amqp_core::sasl::SaslError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Invariant: neither the user name nor the password contains a NUL.
    username: String,
    password: Secret,
}

impl Plain {
    /// The name of the mechanism.
    pub const NAME: &str = "PLAIN";

    /// Creates the mechanism for a user.
    ///
    /// # Errors
    /// [`SaslError::Nul`] if the user name or the password contains a NUL.
    pub fn new(
        username: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Result<Self, SaslError> {
        let (username, password) = (username.into(), password.into());
        if username.contains('\0') || password.expose().contains(&0) {
            return Err(SaslError::Nul);
        }
        Ok(Self { username, password })
    }
}

/// The user `guest` with the password `guest`, which by default may connect from localhost only
/// (<https://www.rabbitmq.com/docs/access-control#loopback-users>).
impl Default for Plain {
    fn default() -> Self {
        Self {
            username: "guest".to_owned(),
            password: Secret::from_static("guest"),
        }
    }
}

impl Mechanism for Plain {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn initial_response(&mut self) -> Secret {
        let response = [
            b"\0",
            self.username.as_bytes(),
            b"\0",
            self.password.expose(),
        ];
        response.concat().into()
    }

    fn boxed(&self) -> Box<dyn Mechanism> {
        Box::new(self.clone())
    }
}

/// AMQPLAIN: the user name and the password in a field table. A non-standard variant of PLAIN for
/// backwards compatibility (<https://www.rabbitmq.com/docs/access-control#mechanisms>).
///
/// The response consists of the fields only. It lacks the length of a field table (section 4.2.5.5
/// of the specification), since the response is a long string, which has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqPlain {
    username: String,
    password: Secret,
}

impl AmqPlain {
    /// The name of the mechanism.
    pub const NAME: &str = "AMQPLAIN";

    /// Creates the mechanism for this user.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
        }
    }
}

impl Mechanism for AmqPlain {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn initial_response(&mut self) -> Secret {
        let (username, password) = (self.username.as_bytes(), self.password.expose());
        let len = |text: &[u8]| put::wire_len(text.len()).to_be_bytes();
        // Each field is a short string, a tag and a long string. A `FieldTable` would leave copies
        // of the password in memory.
        let response: [&[u8]; 8] = [
            b"\x05LOGIN",
            b"S",
            &len(username),
            username,
            b"\x08PASSWORD",
            b"S",
            &len(password),
            password,
        ];
        response.concat().into()
    }

    fn boxed(&self) -> Box<dyn Mechanism> {
        Box::new(self.clone())
    }
}

/// EXTERNAL (appendix A of RFC 4422): the server derives the user from the TLS certificate of the
/// client (<https://www.rabbitmq.com/docs/access-control#certificate-authentication>).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    identity: String,
}

impl External {
    /// The name of the mechanism.
    pub const NAME: &str = "EXTERNAL";

    /// Creates the mechanism for the user named by the certificate.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            identity: String::new(),
        }
    }

    /// Creates the mechanism for the user `identity`, for which the user named by the certificate
    /// is authorized to act.
    pub fn on_behalf_of(identity: impl Into<String>) -> Self {
        Self {
            identity: identity.into(),
        }
    }
}

impl Mechanism for External {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn initial_response(&mut self) -> Secret {
        Secret::from(&self.identity)
    }

    fn boxed(&self) -> Box<dyn Mechanism> {
        Box::new(self.clone())
    }
}

/// The user name and password that a client claims, unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Parses the PLAIN response of a client.
///
/// ```
/// let credentials = amqp_core::sasl::parse_plain(b"\0tom\0secret")?;
/// assert_eq!(credentials.username, "tom");
/// assert_eq!(credentials.password.expose(), b"secret");
/// # Ok::<(), amqp_core::sasl::SaslError>(())
/// ```
///
/// # Errors
/// If the response is not a NUL, a user name in UTF-8, a NUL and a password without a NUL. Like
/// RabbitMQ, this refuses an authorization identity before the first NUL (section 2 of RFC 4616).
pub fn parse_plain(response: &[u8]) -> Result<Credentials, SaslError> {
    let part = || take_till(|byte| byte == 0);
    let next = || preceded(tag(&b"\0"[..]), part());
    let (_, (identity, username, password)) = all_consuming((part(), next(), next()))
        .parse_complete(response)
        .map_err(|_: nom::Err<()>| SaslError::Malformed("it does not have two NULs"))?;
    if !identity.is_empty() {
        return Err(SaslError::Malformed("it does not begin with a NUL"));
    }
    Ok(Credentials {
        username: parse_username(username)?,
        password: password.into(),
    })
}

/// Parses the AMQPLAIN response of a client.
///
/// # Errors
/// If the response is not the fields of a table, or lacks the long strings `LOGIN`, in UTF-8, and
/// `PASSWORD`.
pub fn parse_amqplain(response: &[u8]) -> Result<Credentials, SaslError> {
    let username = parse::bare_long_str(response, "LOGIN")?;
    let username = username.ok_or(SaslError::Malformed("it has no LOGIN"))?;
    let password = parse::bare_long_str(response, "PASSWORD")?;
    let password = password.ok_or(SaslError::Malformed("it has no PASSWORD"))?;
    Ok(Credentials {
        username: parse_username(username)?,
        password: password.into(),
    })
}

fn parse_username(username: &[u8]) -> Result<String, SaslError> {
    let username = core::str::from_utf8(username);
    let username = username.map_err(|_| SaslError::Malformed("the user name is not UTF-8"))?;
    Ok(username.to_owned())
}
