//! The results of a program, in words that do not differ from run to run.

use std::{error::Error as _, fmt::Write as _};

use amqp_tokio::{
    Body, CloseReason, EncodedProperties, Error, Unconfirmed,
    core::CloseCause,
    wire::{FieldTable, FieldValue},
};

use super::names::Names;

/// The results of each step of a program, and of its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(pub Vec<Vec<String>>);

impl Trace {
    /// The first step of which something else came: one behind the last stands for the end.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        let len = self.0.len().max(other.0.len());
        (0..len).find(|&at| self.0.get(at) != other.0.get(at))
    }

    /// The results of a step, a line each.
    #[must_use]
    pub fn step(&self, at: usize) -> &[String] {
        self.0.get(at).map_or(&[], Vec::as_slice)
    }
}

impl Names {
    /// Why a call failed.
    pub(super) fn error(&self, error: &Error) -> String {
        match error {
            Error::ChannelClosed(reason) | Error::ConnectionClosed(reason) => self.reason(reason),
            Error::Misuse(misuse) => self.normal(&format!("refused here: {misuse}")),
            Error::Unanswered { .. } | Error::TimedOut { .. } => "NO ANSWER".to_owned(),
            Error::ConsumerCancelled { .. } => "cancelled by the server".to_owned(),
            other => self.normal(&other.to_string()),
        }
    }

    /// Why a channel or a connection was closed.
    pub(super) fn reason(&self, reason: &CloseReason) -> String {
        let scope = match reason.cause() {
            CloseCause::Connection(_) => "connection",
            _ => "channel",
        };
        match reason.by_peer() {
            Some(close) => {
                let method = match close.method {
                    Some(method) => format!(" after {method}"),
                    None => String::new(),
                };
                let code = close.code.0;
                self.normal(&format!("{scope} closed, {code} {}{method}", close.text))
            }
            None => {
                let source = reason.source().map(|it| format!(": {it}"));
                self.normal(&format!("{scope}: {reason}{}", source.unwrap_or_default()))
            }
        }
    }

    /// The outcome of a publish.
    pub(super) fn unconfirmed(&self, fate: &Unconfirmed) -> String {
        match fate {
            Unconfirmed::Returned(message) => self.normal(&format!(
                "returned {} {} from {:?} {:?}, {}",
                message.code.0,
                message.text,
                message.exchange.as_str(),
                message.routing_key.as_str(),
                self.message(&message.encoded_properties, &message.body),
            )),
            Unconfirmed::PossiblyReturned(_) => "possibly returned".to_owned(),
            Unconfirmed::Nacked { .. } => "nacked".to_owned(),
            Unconfirmed::NotSent(reason) | Unconfirmed::Unknown(reason) => self.reason(reason),
            other => self.normal(&other.to_string()),
        }
    }

    /// A message.
    pub(super) fn message(&self, properties: &EncodedProperties, body: &Body) -> String {
        let body = body.to_vec();
        let name: Vec<u8> = body.iter().copied().take_while(|it| *it != b' ').collect();
        let mut text = String::from_utf8_lossy(&name).into_owned();
        if body.len() > name.len() {
            let _ = write!(text, " of {} bytes", body.len());
        }
        let properties = match properties.decode() {
            Ok(properties) => properties,
            Err(error) => return format!("{text} {error}"),
        };
        if let Some(headers) = &properties.headers {
            let _ = write!(text, " headers={}", self.table(headers));
        }
        for (name, value) in [
            ("delivery-mode", properties.delivery_mode),
            ("priority", properties.priority),
        ] {
            if let Some(value) = value {
                let _ = write!(text, " {name}={value}");
            }
        }
        for (name, value) in [
            ("expiration", properties.expiration),
            ("user-id", properties.user_id),
        ] {
            if let Some(value) = value {
                let _ = write!(text, " {name}={}", value.as_str());
            }
        }
        self.normal(&text)
    }

    /// A table, in the order of its names, and without the time in `x-death`.
    fn table(&self, table: &FieldTable) -> String {
        let mut fields: Vec<String> = table
            .iter()
            .filter(|(_, value)| value.as_timestamp().is_none())
            .map(|(name, value)| format!("{}={}", name.as_str(), self.value(value)))
            .collect();
        fields.sort();
        format!("{{{}}}", fields.join(", "))
    }

    fn value(&self, value: &FieldValue) -> String {
        match value {
            FieldValue::Table(table) => self.table(table),
            FieldValue::Array(array) => {
                let values: Vec<String> = array.iter().map(|it| self.value(it)).collect();
                format!("[{}]", values.join(", "))
            }
            FieldValue::LongStr(text) => format!("{:?}", text.to_str_lossy()),
            other => format!("{other:?}"),
        }
    }
}
