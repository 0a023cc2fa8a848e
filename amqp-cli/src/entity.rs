//! The options of queues, exchanges and their arguments.

use amqp_tokio::{
    Connection,
    protocol::queue,
    wire::{FieldTable, FieldValue, ShortStr},
};
use clap::{Args, ValueEnum};

use crate::failure::Outcome;

/// The name of a queue, by its position or as amqp-tools have it.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct QueueName {
    /// The queue.
    #[arg(value_name = "QUEUE")]
    name: Option<String>,
    /// The queue, as an option.
    #[arg(short, long = "queue", value_name = "QUEUE")]
    queue: Option<String>,
}

impl QueueName {
    pub(crate) fn name(&self) -> Outcome<ShortStr> {
        let name = self.name.as_ref().or(self.queue.as_ref());
        Ok(name.map(String::as_str).unwrap_or_default().try_into()?)
    }
}

/// An argument, `NAME=VALUE`, where the value is JSON or a string.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Argument(ShortStr, FieldValue);

impl std::str::FromStr for Argument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
        let name = name
            .try_into()
            .map_err(|_| "a name longer than 255 bytes")?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| FieldValue::from(value));
        Ok(Self(name, value))
    }
}

/// The table of arguments.
pub(crate) fn table(arguments: &[Argument]) -> FieldTable {
    let mut table = FieldTable::new();
    for Argument(name, value) in arguments {
        table.insert(name.clone(), value.clone());
    }
    table
}

/// The type of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum QueueType {
    Classic,
    Quorum,
    Stream,
}

impl QueueType {
    /// The value of `x-queue-type` (<https://www.rabbitmq.com/docs/queues>).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }
}

/// Whether a queue exists, asked on a channel of its own, which a refusal closes.
pub(crate) async fn exists(connection: &Connection, name: &ShortStr) -> Outcome<bool> {
    let channel = connection.open_channel().await?;
    let passive = queue::Declare::default().queue(name).passive(true);
    match channel.call(passive).await {
        Ok(_) => {
            channel.close().await?;
            Ok(true)
        }
        Err(error) if error.is_not_found() => Ok(false),
        // It is another connection's, and so it exists.
        Err(error) if error.is_resource_locked() => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use amqp_tokio::wire::FieldValue;

    use super::Argument;

    #[test]
    fn values_are_json_or_else_text() {
        let value = |text: &str| text.parse::<Argument>().map(|it| it.1);
        assert_eq!(value("x-max-length=10"), Ok(FieldValue::I32(10)));
        assert_eq!(value("a=true"), Ok(FieldValue::Bool(true)));
        assert_eq!(value("a=drop-head"), Ok(FieldValue::from("drop-head")));
        assert_eq!(value("a=\"10\""), Ok(FieldValue::from("10")));
        assert_eq!(value("a={\"u8\": 1}"), Ok(FieldValue::U8(1)));
        assert!(value("a").is_err());
    }
}
