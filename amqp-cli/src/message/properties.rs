//! The options of the properties of a message.

use std::{
    ffi::OsString,
    time::{Duration, SystemTime},
};

use amqp_tokio::{
    SystemTimestamp as _,
    protocol::basic::Properties,
    wire::{FieldTable, LongStr, Timestamp},
};
use clap::Args;

use crate::{
    duration,
    failure::{Failure, Outcome},
};

/// The options of the properties.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Properties")]
pub(crate) struct PropertyArgs {
    /// Keeps the message over a restart of the broker: the default.
    #[arg(short, long, overrides_with = "transient")]
    persistent: bool,
    /// Lets a restart of the broker drop the message.
    #[arg(long, overrides_with = "persistent")]
    transient: bool,
    /// The content type, such as text/plain.
    #[arg(short = 'C', long, value_name = "TYPE")]
    content_type: Option<String>,
    /// The content encoding, such as gzip. The body stays as it is.
    #[arg(short = 'E', long, value_name = "ENCODING")]
    content_encoding: Option<String>,
    /// A header with a string as its value. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    header: Vec<OsString>,
    /// Headers as a JSON object; {"n": {"u8": 1}} names a type.
    #[arg(long, value_name = "JSON")]
    headers: Option<String>,
    /// The queue for replies.
    #[arg(short = 't', long, value_name = "QUEUE")]
    reply_to: Option<String>,
    /// The id that a reply repeats.
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// The id of the message.
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// The type of the message.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// The application.
    #[arg(long, value_name = "ID")]
    app_id: Option<String>,
    /// The user, which the broker compares with the login.
    #[arg(long, value_name = "NAME")]
    user_id: Option<String>,
    /// The priority, 0 to 255.
    #[arg(long)]
    priority: Option<u8>,
    /// The time after which the message is dropped.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    expiration: Option<Duration>,
    /// The time of the message, in seconds since 1970, or "now".
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<String>,
}

impl PropertyArgs {
    /// The properties, `delivery_mode` included.
    pub(crate) fn properties(&self) -> Outcome<Properties> {
        let mut properties = Properties::default();
        self.apply(&mut properties)?;
        if properties.delivery_mode.is_none() {
            properties = properties.persistent();
        }
        Ok(properties)
    }

    /// Sets those that were given.
    pub(crate) fn apply(&self, properties: &mut Properties) -> Outcome {
        if self.persistent || self.transient {
            properties.delivery_mode = Some(if self.transient { 1 } else { 2 });
        }
        let texts = [
            (&self.content_type, &mut properties.content_type),
            (&self.content_encoding, &mut properties.content_encoding),
            (&self.reply_to, &mut properties.reply_to),
            (&self.correlation_id, &mut properties.correlation_id),
            (&self.message_id, &mut properties.message_id),
            (&self.kind, &mut properties.kind),
            (&self.app_id, &mut properties.app_id),
            (&self.user_id, &mut properties.user_id),
        ];
        for (option, property) in texts {
            if let Some(text) = option {
                *property = Some(text.as_str().try_into()?);
            }
        }
        if let Some(priority) = self.priority {
            properties.priority = Some(priority);
        }
        if let Some(time) = self.expiration {
            *properties = std::mem::take(properties).expire_after(time)?;
        }
        if let Some(time) = &self.timestamp {
            properties.timestamp = Some(match time.as_str() {
                "now" => Timestamp::from_system_time(SystemTime::now()).map_err(Failure::failed)?,
                seconds => Timestamp(seconds.parse().map_err(|_| {
                    Failure::usage(format_args!("--timestamp {seconds}: not seconds, or now"))
                })?),
            });
        }
        if self.headers.is_some() || !self.header.is_empty() {
            let mut headers = properties.headers.take().unwrap_or_default();
            for (name, value) in self.headers()?.iter() {
                headers.insert(name.clone(), value.clone());
            }
            properties.headers = Some(headers);
        }
        Ok(())
    }

    fn headers(&self) -> Outcome<FieldTable> {
        let mut headers = match &self.headers {
            None => FieldTable::new(),
            Some(json) => serde_json::from_str(json)
                .map_err(|error| Failure::usage(format_args!("--headers: {error}")))?,
        };
        for header in &self.header {
            let malformed =
                || Failure::usage(format_args!("--header {header:?}: not \"NAME: VALUE\""));
            let octets = header.as_encoded_bytes();
            let colon = octets.iter().position(|octet| *octet == b':');
            let (name, value) = octets.split_at(colon.ok_or_else(malformed)?);
            let name = str::from_utf8(name).map_err(|_| malformed())?;
            // As amqp-publish has it: blanks before the value do not belong to it, which need not be
            // UTF-8.
            let value = value[1..].trim_ascii_start();
            headers.insert(name, LongStr::from(value));
        }
        Ok(headers)
    }
}
