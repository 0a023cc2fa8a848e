//! Publishes a message a second to the broker at `AMQP_URL`, with OAuth 2 tokens, of which each
//! expires.
//!
//! `TOKEN_FILE` names a file with the response of a token endpoint (RFC 6749, section 5.1), which
//! another program keeps fresh.

use std::{env, error::Error, path::PathBuf, sync::Arc, time::Duration};

use amqp_tokio::{
    CredentialsError, CredentialsProvider, Login, LoginFuture, Options, arguments::Queue,
    connect_with, protocol::basic,
};
use tokio::time::MissedTickBehavior;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let uri = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://localhost".to_owned());
    let tokens = TokenFile(env::var("TOKEN_FILE")?.into());
    let options = Options::from_uri(&uri)?
        .credentials(Arc::new(tokens))
        .recovering();
    let connection = connect_with(&options).await?;

    let channel = connection.open_channel().await?.confirm_select().await?;
    channel
        .queue_declare(Queue::classic("ticks").max_length(10))
        .await?;
    let to_ticks = basic::Publish::default().routing_key("ticks");
    let properties = basic::Properties::default();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    // One tick after a loss, in place of all that were missed.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        let confirm = channel.publish(&to_ticks, &properties, "tick").await?;
        match confirm.await {
            Ok(()) => println!("confirmed"),
            // Lost with the connection, or refused because the token has expired.
            Err(error) => eprintln!("not confirmed: {error}"),
        }
    }
}

/// Reads tokens from a file.
pub(crate) struct TokenFile(pub(crate) PathBuf);

/// The response of a token endpoint, as far as it is needed.
#[derive(serde::Deserialize)]
struct TokenResponse {
    access_token: String,
    /// Seconds, from the response on.
    expires_in: u64,
}

impl TokenFile {
    /// The place for a request to a token endpoint.
    async fn fetch(&self) -> Result<Login, Box<dyn Error + Send + Sync>> {
        // The token is as old as its file. The age is taken first: if the file is replaced in
        // between, the new token is only renewed too early.
        let modified = tokio::fs::metadata(&self.0).await?.modified()?;
        let age = modified.elapsed().unwrap_or_default();
        let text = tokio::fs::read(&self.0).await?;
        let response: TokenResponse = serde_json::from_slice(&text)?;
        let left = Duration::from_secs(response.expires_in).saturating_sub(age);
        // RabbitMQ takes the name of the user from the token.
        Ok(Login::new("", response.access_token).for_time(left))
    }
}

impl CredentialsProvider for TokenFile {
    fn login(&self) -> LoginFuture<'_> {
        Box::pin(async {
            // The text is logged: it must not contain a token.
            let failed = |error| CredentialsError(format!("{}: {error}", self.0.display()));
            self.fetch().await.map_err(failed)
        })
    }
}
