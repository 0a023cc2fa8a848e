//! Credentials that expire: requested at each connect, and renewed before they expire.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use amqp_core::{
    ApiMisuse,
    client::Config,
    sasl::{AmqPlain, Mechanism, Plain},
    wire::{Secret, ShortStr},
};

use crate::{
    connection,
    session::{
        shared::{Shared, wait_for},
        state::State,
    },
    unless::unless,
};

/// A user's credentials, and the time for which they are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Login {
    /// The user name. RabbitMQ ignores it where the password is an OAuth 2 token.
    pub username: String,
    /// The password or the token.
    pub password: Secret,
    /// The time for which the password is still valid, counted from the return of the provider.
    /// `Some` if it expires.
    pub expires_in: Option<Duration>,
}

impl Login {
    /// Credentials that do not expire.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
            expires_in: None,
        }
    }

    /// Sets [`expires_in`](Self::expires_in): the time that is left now, not the lifetime of the
    /// token, a part of which has passed if the token comes from a cache. The `exp` of a JWT is mostly
    /// cut to whole seconds ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.4)): the
    /// token may end up to a second before its lifetime does.
    #[must_use]
    pub fn for_time(mut self, expires_in: Duration) -> Self {
        self.expires_in = Some(expires_in);
        self
    }
}

/// A source of credentials. Called for each connection, and again when four fifths of their time
/// have passed. The server then gets the new secret in `connection.update-secret` ([RabbitMQ's
/// page](https://www.rabbitmq.com/docs/oauth2)).
///
/// ```
/// use amqp_driver::{CredentialsProvider, Login, LoginFuture};
/// use std::time::Duration;
///
/// struct Tokens;
///
/// impl CredentialsProvider for Tokens {
///     fn login(&self) -> LoginFuture<'_> {
///         Box::pin(async {
///             let token = "a token, fetched from somewhere".to_owned();
///             Ok(Login::new("", token).for_time(Duration::from_secs(3600)))
///         })
///     }
/// }
/// ```
pub trait CredentialsProvider: Send + Sync {
    /// Returns credentials that are valid now. The future is dropped when it takes longer than the
    /// handshake may, or when the connection that needs new ones has ended.
    fn login(&self) -> LoginFuture<'_>;
}

/// The future of [`CredentialsProvider::login`].
pub type LoginFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Login, CredentialsError>> + Send + 'a>>;

/// The reason for which there are no credentials, as the provider states it. Must not contain a
/// secret.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("no credentials: {0}")]
pub struct CredentialsError(pub String);

/// The reason of `connection.update-secret`, for the server's operators.
const REASON: &str = "the old one expires";

/// The minimum wait before a provider is called again.
const RETRY: Duration = Duration::from_secs(1);

/// Sets these credentials in the mechanisms with a password, PLAIN and AMQPLAIN. Adds PLAIN if
/// there is neither (<https://www.rabbitmq.com/docs/access-control>).
pub(crate) fn log_in(config: &mut Config, login: &Login) -> Result<(), ApiMisuse> {
    let plain = || {
        Plain::new(login.username.clone(), login.password.clone()).map_err(|_| ApiMisuse::Config {
            setting: "credentials",
            problem: "PLAIN cannot carry a NUL in the user name or password",
        })
    };
    let mut used = false;
    for mechanism in &mut config.mechanisms {
        let with_password: Box<dyn Mechanism> = match mechanism.name() {
            Plain::NAME => Box::new(plain()?),
            AmqPlain::NAME => Box::new(AmqPlain::new(
                login.username.clone(),
                login.password.clone(),
            )),
            _ => continue,
        };
        *mechanism = with_password;
        used = true;
    }
    if !used {
        config.mechanisms.push(Box::new(plain()?));
    }
    Ok(())
}

/// Renews the secret of a connection until its life ends, or a secret does not expire. The
/// current secret expires after `left`, and each call of the provider may take `limit`. Does not
/// keep the connection open.
pub(crate) async fn renew(
    shared: Arc<Shared>,
    provider: Arc<dyn CredentialsProvider>,
    mut left: Duration,
    limit: Duration,
) {
    let life = shared.lock().life;
    loop {
        let due = left.mul_f64(0.8).max(RETRY);
        if let Over::Ended = alarm(&shared, life, due).await {
            return;
        }
        let asked = unless(alarm(&shared, life, limit), provider.login()).await;
        left = match asked {
            Err(Over::Ended) => return,
            // If all attempts fail, the server closes the connection with the reason.
            Err(Over::Due) => left.saturating_sub(due + limit),
            Ok(Err(_)) => left.saturating_sub(due),
            Ok(Ok(login)) => {
                let reason = ShortStr::from_static(REASON).unwrap_or_default();
                let updated = connection::update_secret(&shared, login.password, reason).await;
                match (updated, login.expires_in) {
                    (Err(_), _) => left.saturating_sub(due),
                    (Ok(()), Some(expires_in)) => expires_in,
                    (Ok(()), None) => return,
                }
            }
        };
    }
}

/// The end of an [`alarm`].
enum Over {
    /// The connection, or this life of it, has ended.
    Ended,
    /// The time has passed.
    Due,
}

/// Waits for `time` by the machine's clock, or until the connection, or this life of it, has ended.
async fn alarm(shared: &Shared, life: u32, time: Duration) -> Over {
    let ended = |state: &State| {
        state.closed.is_some() || state.life != life || state.machine.close_reason().is_some()
    };
    shared.command(|state| {
        if !ended(state) {
            state.secret_due = false;
            state.machine.set_secret_deadline(Some(time));
        }
    });
    let over = |state: &State| match (ended(state), state.secret_due) {
        (true, _) => Some(Over::Ended),
        (false, true) => Some(Over::Due),
        (false, false) => None,
    };
    wait_for(shared, |state| &mut state.state_changed, over).await
}
