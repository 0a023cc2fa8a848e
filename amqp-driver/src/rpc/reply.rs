//! Replies on the wire.

use amqp_core::{
    Body,
    protocol::basic::{self, Properties},
    wire::{FieldTable, FieldValue, ShortStr},
};

use super::error::{HandlerError, RpcError};
use crate::consumer::Message;

/// The header with the code of an error, an integer.
const CODE: ShortStr = ShortStr::from_static("rpc-error-code").unwrap();
/// The header with the text of an error.
const TEXT: ShortStr = ShortStr::from_static("rpc-error-text").unwrap();

/// The reply of a handler.
///
/// ```
/// use amqp_driver::{protocol::basic, rpc::Reply};
///
/// let json = basic::Properties::default().content_type("application/json");
/// let reply = Reply::new("[1, 2, 3]").properties(json);
/// assert_eq!(reply.body, "[1, 2, 3]");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The properties. The server sets the `correlation-id`.
    pub properties: Properties,
    /// The body.
    pub body: Body,
}

impl Reply {
    /// Creates a reply without properties.
    #[must_use]
    pub fn new(body: impl Into<Body>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// Sets [`properties`](Self::properties).
    #[must_use]
    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties = properties;
        self
    }
}

impl From<HandlerError> for Reply {
    fn from(error: HandlerError) -> Self {
        let HandlerError { code, mut text } = error;
        let mut end = text.len().min(HandlerError::TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        let mut headers = FieldTable::new();
        headers.push(CODE, code);
        headers.push(TEXT, text);
        Self::default().properties(Properties::default().headers(headers))
    }
}

/// The result of a call: the reply, or the error that it reports.
pub(super) fn result_of(message: Message, properties: &Properties) -> Result<Message, RpcError> {
    let header = |name: ShortStr| properties.headers.as_ref().and_then(|it| it.get(&name));
    let code = header(CODE).and_then(FieldValue::as_i64);
    let Some(code) = code.and_then(|code| i32::try_from(code).ok()) else {
        return Ok(message);
    };
    let text = header(TEXT).and_then(FieldValue::as_bytes);
    let text = String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
    Err(RpcError::Remote { code, text })
}

/// The address of a reply, and the id of its request.
pub(super) struct Address {
    publish: basic::Publish,
    correlation_id: Option<ShortStr>,
}

impl Address {
    /// `Some` if the request asks for a reply.
    pub(super) fn of(request: Properties) -> Option<Self> {
        let publish = basic::Publish {
            routing_key: request.reply_to.filter(|it| !it.is_empty())?,
            ..basic::Publish::default()
        };
        Some(Self {
            publish,
            correlation_id: request.correlation_id,
        })
    }

    /// The arguments of `basic.publish` for a reply.
    pub(super) const fn publish(&self) -> &basic::Publish {
        &self.publish
    }

    /// The properties of a reply.
    pub(super) fn stamp(&self, mut properties: Properties) -> Properties {
        properties.correlation_id.clone_from(&self.correlation_id);
        properties
    }
}
