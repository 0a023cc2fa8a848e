//! The broker, in memory or with its durable state in a folder.

use std::{fs, path::Path};

use amqp_tokio::{LocalBroker, broker::Config};

/// The file in the folder.
const FILE: &str = "broker.redb";

/// Creates a broker in memory, or opens that of a folder, which is created if it does not exist.
pub(crate) fn open(config: Config, data: Option<&Path>) -> Result<LocalBroker, String> {
    let Some(folder) = data else {
        return LocalBroker::new(config).map_err(|error| error.to_string());
    };
    fs::create_dir_all(folder)
        .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    LocalBroker::open(folder.join(FILE), config).map_err(|error| error.to_string())
}

/// Waits until the broker has stopped because its file cannot be written, and returns the reason.
pub(crate) async fn failed(broker: &LocalBroker) -> String {
    broker.until(|broker| broker.is_stopped()).await;
    match broker.stored().await {
        Err(error) => error.to_string(),
        Ok(()) => "the broker has stopped".into(),
    }
}
