//! How a client proves who it is: SASL mechanisms, and what a server needs to read their responses.
//!
//! A mechanism is a value that the connection asks for its answers, so that one of your own takes
//! part in the handshake like those that are here. It may have as many rounds as it likes:
//!
//! ```text
//! server                                    client
//! start (mechanisms it accepts)  ------->
//!                                <-------   start-ok (name, initial_response)
//! secure (challenge)             ------->
//!                                <-------   secure-ok (respond)         ... as often as needed
//! tune                           ------->
//! ```

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use crate::wire::{DecodeError, Secret, parse, put};

#[cfg(test)]
mod tests;

/// The client's side of a SASL mechanism.
///
/// A mechanism can serve one connection after the other: each begins with
/// [`initial_response`](Self::initial_response). Its `Debug` must not show what is secret.
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
    /// Its name, as the server lists it in `connection.start`.
    fn name(&self) -> &str;

    /// What `connection.start-ok` carries. An exchange that was under way is over.
    fn initial_response(&mut self) -> Secret;

    /// The answer to the challenge of a `connection.secure`. A mechanism that says everything in
    /// its initial response, as most do, can leave this as it is.
    ///
    /// # Errors
    /// If there is no answer. The connection is then given up.
    fn respond(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
        let _ = challenge;
        Err(SaslError::UnexpectedChallenge)
    }

    /// Another one of the same kind for the same user: `Box::new(self.clone())`. A configuration
    /// that makes several connections gives each its own.
    fn boxed(&self) -> Box<dyn Mechanism>;
}

impl Clone for Box<dyn Mechanism> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

/// Why an authentication cannot go on. It never holds anything secret.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaslError {
    /// The server sent a challenge, for which the mechanism has no answer.
    #[error("the server sent a challenge, to which the mechanism has no answer")]
    UnexpectedChallenge,
    /// The mechanism could not answer the server's challenge, and says why.
    #[error("the challenge has no answer: {0}")]
    Challenge(String),
    /// PLAIN separates user name and password with a NUL, so neither can have one.
    #[error("PLAIN has no user names and passwords with a NUL in them")]
    Nul,
    /// The client's response is not what its mechanism prescribes.
    #[error("the response is malformed: {0}")]
    Malformed(&'static str),
    /// The client's response is not a table.
    #[error("the response is malformed: {0}")]
    Decode(#[from] DecodeError),
}

/// PLAIN (RFC 4616): user name and password as they are. Every broker has it.
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
    /// Has no NUL; nor has the password.
    username: String,
    password: Secret,
}

impl Plain {
    /// The mechanism's name.
    pub const NAME: &str = "PLAIN";

    /// Logs in as this user.
    ///
    /// # Errors
    /// If the user name or the password has a NUL in it, which would end it early.
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

/// The user `guest` with the password `guest`, whom a new broker lets in from its own machine.
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

/// AMQPLAIN: user name and password in a field table, which AMQP had before it had PLAIN.
///
/// The response is the fields alone, without the length that a table begins with elsewhere: the
/// response as such has one already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqPlain {
    username: String,
    password: Secret,
}

impl AmqPlain {
    /// The mechanism's name.
    pub const NAME: &str = "AMQPLAIN";

    /// Logs in as this user.
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
        // Each field is its name, behind the length of it, and a long string. A table to make this
        // from would leave copies of the password behind.
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

/// EXTERNAL (RFC 4422): the server knows the client already, from its TLS certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    identity: String,
}

impl External {
    /// The mechanism's name.
    pub const NAME: &str = "EXTERNAL";

    /// Logs in as whomever the certificate names.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            identity: String::new(),
        }
    }

    /// Logs in as another user, on whose behalf the one that the certificate names may act.
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

/// Who a client says it is, for a server to check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Reads the response of a client that has chosen PLAIN.
///
/// ```
/// let credentials = amqp_core::sasl::parse_plain(b"\0tom\0secret")?;
/// assert_eq!(credentials.username, "tom");
/// assert_eq!(credentials.password.expose(), b"secret");
/// # Ok::<(), amqp_core::sasl::SaslError>(())
/// ```
///
/// # Errors
/// If it is not a NUL, a user name in UTF-8, a NUL and a password without one. Like RabbitMQ, this
/// does not take the response of a user who wants to act as another, whose name would come first.
pub fn parse_plain(response: &[u8]) -> Result<Credentials, SaslError> {
    let mut parts = response.split(|byte| *byte == 0);
    let (Some(identity), Some(username), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::Malformed("it does not have two NULs"));
    };
    if !identity.is_empty() {
        return Err(SaslError::Malformed("it does not begin with a NUL"));
    }
    Ok(Credentials {
        username: parse_username(username)?,
        password: password.into(),
    })
}

/// Reads the response of a client that has chosen AMQPLAIN.
///
/// # Errors
/// If it is not the fields of a table, or has no long strings `LOGIN`, in UTF-8, and `PASSWORD`.
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
