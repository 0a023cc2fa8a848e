//! Bodies as JSON, feature `json`.
//!
//! ```no_run
//! use amqp_driver::{json, protocol::basic};
//! use std::collections::BTreeMap;
//!
//! # async fn example(
//! #     channel: amqp_driver::ConfirmChannel,
//! #     delivery: amqp_driver::Delivery,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let order = BTreeMap::from([("apples", 3)]);
//! let (properties, body) = json::content(basic::Properties::default().persistent(), &order)?;
//! let to_orders = basic::Publish::default().routing_key("orders");
//! channel.publish(&to_orders, &properties, body).await?.await?;
//!
//! let order: BTreeMap<String, u32> = delivery.json()?; // any type that implements Deserialize
//! # Ok(()) }
//! ```

use amqp_core::{Body, protocol::basic::Properties, text::Escaped, wire::ShortStr};
use bytes::Buf as _;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::error::Category;

use crate::{base_channel::Fetched, consumer::Message, returned_message::ReturnedMessage};

/// The content type of JSON ([section 11 of RFC 8259](https://www.rfc-editor.org/rfc/rfc8259#section-11)).
const CONTENT_TYPE: &str = "application/json";

/// The reason for which a value has no JSON, or a body is not that of a value.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonError {
    /// The value cannot be JSON, such as a map with keys that are no texts, or its own serialisation
    /// failed.
    #[error("the value cannot be JSON: {reason}")]
    Encode {
        /// The reason.
        reason: String,
    },
    /// The body is not JSON, or ends too early.
    #[error("the body is not JSON, line {line} column {column}")]
    Malformed {
        /// The line of the fault, from 1.
        line: usize,
        /// The column of the fault, from 1.
        column: usize,
    },
    /// The body is JSON of another type.
    #[error(
        "the body is JSON of another type, line {line} column {column}: {}",
        Escaped(.reason)
    )]
    Mismatch {
        /// The line of the fault, from 1.
        line: usize,
        /// The column of the fault, from 1.
        column: usize,
        /// The value and the expectation of the type, of at most 256 bytes: a part of the body, so
        /// that [`Escaped`] is for logs.
        reason: String,
    },
}

/// Returns a content for `publish`: these properties with the content type `application/json`, and
/// the value as a body.
///
/// # Errors
/// [`JsonError::Encode`].
pub fn content<T: Serialize + ?Sized>(
    mut properties: Properties,
    value: &T,
) -> Result<(Properties, Body), JsonError> {
    let body = serde_json::to_vec(value).map_err(|error| JsonError::Encode {
        reason: error.to_string(),
    })?;
    properties.content_type = ShortStr::from_static(CONTENT_TYPE);
    Ok((properties, body.into()))
}

/// Returns the value of a body, whatever its content type.
///
/// # Errors
/// [`JsonError::Malformed`] and [`JsonError::Mismatch`].
pub fn decode<T: DeserializeOwned>(body: &Body) -> Result<T, JsonError> {
    let value = if body.chunk().len() == body.len() {
        serde_json::from_slice(body.chunk())
    } else {
        serde_json::from_slice(&body.to_vec())
    };
    value.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            Category::Data => JsonError::Mismatch {
                line,
                column,
                reason: reason(&error),
            },
            Category::Io | Category::Syntax | Category::Eof => {
                JsonError::Malformed { line, column }
            }
        }
    })
}

/// Returns the reason of a mismatch without its position, which serde_json appends.
fn reason(error: &serde_json::Error) -> String {
    const MAX: usize = 256;
    let mut reason = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    if let Some(without) = reason.strip_suffix(&position) {
        reason.truncate(without.len());
    }
    let mut ends = (0..=reason.len().min(MAX)).rev();
    let end = ends.find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or(0));
    reason
}

macro_rules! json {
    ($($message:ty)*) => {$(
        impl $message {
            /// Returns the value of the body, which is JSON, whatever the content type. Feature
            /// `json`.
            ///
            /// # Errors
            /// [`JsonError::Malformed`] and [`JsonError::Mismatch`].
            pub fn json<T: DeserializeOwned>(&self) -> Result<T, JsonError> {
                decode(&self.body)
            }
        }
    )*};
}

json! { Message Fetched ReturnedMessage }
