//! Calls as messages.

use std::time::Duration;

use amqp_core::wire::{FieldTable, ShortStr};
use bytes::Bytes;

use super::error::RemoteError;
use crate::message::{Message, MessageId, MessageProperties};

const CALL: ShortStr = ShortStr::from_static("rpc.call").unwrap();
const SIGNAL: ShortStr = ShortStr::from_static("rpc.signal").unwrap();
const REPLY: ShortStr = ShortStr::from_static("rpc.reply").unwrap();
const ERROR: ShortStr = ShortStr::from_static("rpc.error").unwrap();

// The headers of a request.
const OBJECT: ShortStr = ShortStr::from_static("object").unwrap();
const METHOD: ShortStr = ShortStr::from_static("method").unwrap();
// The headers of an error.
const FAULT: ShortStr = ShortStr::from_static("error").unwrap();
const KIND: ShortStr = ShortStr::from_static("kind").unwrap();
const MESSAGE: ShortStr = ShortStr::from_static("message").unwrap();
const TRACE: ShortStr = ShortStr::from_static("trace").unwrap();

/// The longest name of an object or a method, in bytes.
pub(crate) const NAME_MAX: usize = 255;

/// The id of a call, in the correlation id of its messages.
pub(crate) type CallId = MessageId;

/// A message of a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    /// A request. The id is `Some` for a call, `None` for a signal.
    Request(Option<CallId>, Request),
    /// A reply.
    Reply(CallId, Reply),
    /// A message that has the kind of one of a call, and is none.
    Malformed,
}

/// A request to run a method.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) object: String,
    pub(crate) method: String,
    pub(crate) content_type: ShortStr,
    pub(crate) body: Bytes,
    /// The time to live that the request has at its arrival.
    pub(crate) ttl: Option<Duration>,
    /// Whether its sender, and its receiver, store it.
    pub(crate) is_stored: bool,
}

/// The reply to a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) content_type: ShortStr,
    pub(crate) result: Result<Bytes, Fault>,
}

/// The reason for which a callee has no result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    NoObject,
    NoMethod,
    /// A call of a signal.
    WrongKind,
    /// The arguments do not decode, or the result does not encode.
    Codec(String),
    /// The handler has failed, and the reason is withheld.
    Opaque,
    Busy,
    /// The request may have run before.
    Forgotten,
    /// The reply is longer than a link takes.
    TooLarge,
    Failed(RemoteError),
}

impl Fault {
    /// The fault of a request that is refused. One that may have run before is not said not to have
    /// run.
    pub(crate) fn of_request(self, may_have_run: bool) -> Self {
        if may_have_run { Self::Forgotten } else { self }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::NoObject => "no-object",
            Self::NoMethod => "no-method",
            Self::WrongKind => "wrong-kind",
            Self::Codec(_) => "codec",
            Self::Opaque => "opaque",
            Self::Busy => "busy",
            Self::Forgotten => "forgotten",
            Self::TooLarge => "too-large",
            Self::Failed(_) => "failed",
        }
    }
}

/// Returns whether a message is one of a call.
pub(crate) fn is_rpc(message: &Message) -> bool {
    let kind = &message.properties().kind;
    [CALL, SIGNAL, REPLY, ERROR].contains(kind)
}

/// Returns whether the kind of a message is one of calls, or may become one.
pub(crate) fn has_reserved_kind(message: &Message) -> bool {
    message.properties().kind.starts_with("rpc.")
}

/// Returns whether a message is a signal. Its loss is an event of the application: nothing else tells
/// of it.
pub(crate) fn is_signal(message: &Message) -> bool {
    message.properties().kind == SIGNAL
}

/// The message of a request. The id is `Some` for a call.
pub(crate) fn request(id: Option<CallId>, request: Request) -> Message {
    let Request {
        object,
        method,
        content_type,
        body,
        ttl,
        is_stored,
    } = request;
    let mut headers = FieldTable::new();
    headers.push(OBJECT, object);
    headers.push(METHOD, method);
    let mut message = Message::new(body).ttl(ttl).headers(headers);
    message.is_persistent = is_stored;
    let properties = message.properties_mut();
    properties.kind = if id.is_some() { CALL } else { SIGNAL };
    properties.content_type = content_type;
    properties.correlation_id = id.map(text_of).unwrap_or_default();
    message
}

/// The message of a reply.
pub(crate) fn reply(id: CallId, reply: Reply, ttl: Option<Duration>) -> Message {
    let Reply {
        content_type,
        result,
    } = reply;
    let (kind, headers, body) = match result {
        Ok(body) => (REPLY, FieldTable::new(), body),
        Err(fault) => {
            let (headers, body) = headers_of(fault);
            (ERROR, headers, body)
        }
    };
    let mut message = Message::new(body).ttl(ttl);
    let properties = message.properties_mut();
    properties.kind = kind;
    properties.content_type = content_type;
    properties.correlation_id = text_of(id);
    properties.headers = headers;
    message
}

fn headers_of(fault: Fault) -> (FieldTable, Bytes) {
    let mut headers = FieldTable::new();
    headers.push(FAULT, fault.name());
    match fault {
        Fault::Codec(reason) => headers.push(MESSAGE, reason),
        Fault::Failed(error) => {
            let RemoteError {
                kind,
                message,
                trace,
                data,
            } = error;
            headers.push(KIND, kind);
            headers.push(MESSAGE, message);
            if let Some(trace) = trace {
                headers.push(TRACE, trace);
            }
            if let Some(data) = data {
                return (headers, data);
            }
        }
        _ => {}
    }
    (headers, Bytes::new())
}

/// Reads a message of a call.
pub(crate) fn parse(message: Message) -> Incoming {
    let properties = message.properties();
    let id = properties.correlation_id.parse::<CallId>().ok();
    match (&*properties.kind, id) {
        ("rpc.call", Some(_)) | ("rpc.signal", _) => {
            let id = id.filter(|_| properties.kind == CALL);
            match request_of(message) {
                Some(request) => Incoming::Request(id, request),
                None => Incoming::Malformed,
            }
        }
        ("rpc.reply", Some(id)) => {
            let content_type = properties.content_type.clone();
            let result = Ok(message.body.into_bytes());
            Incoming::Reply(
                id,
                Reply {
                    content_type,
                    result,
                },
            )
        }
        ("rpc.error", Some(id)) => {
            let content_type = properties.content_type.clone();
            match fault_of(message) {
                Some(fault) => {
                    let result = Err(fault);
                    Incoming::Reply(
                        id,
                        Reply {
                            content_type,
                            result,
                        },
                    )
                }
                None => Incoming::Malformed,
            }
        }
        _ => Incoming::Malformed,
    }
}

fn request_of(message: Message) -> Option<Request> {
    let properties = message.properties();
    Some(Request {
        object: text(properties, &OBJECT)?,
        method: text(properties, &METHOD)?,
        content_type: properties.content_type.clone(),
        ttl: message.ttl,
        is_stored: message.is_persistent && message.ttl != Some(Duration::ZERO),
        body: message.body.into_bytes(),
    })
}

fn fault_of(message: Message) -> Option<Fault> {
    let properties = message.properties();
    let fault = text(properties, &FAULT)?;
    let of_error = |name| text(properties, name).unwrap_or_default();
    Some(match &*fault {
        "no-object" => Fault::NoObject,
        "no-method" => Fault::NoMethod,
        "wrong-kind" => Fault::WrongKind,
        "codec" => Fault::Codec(of_error(&MESSAGE)),
        "opaque" => Fault::Opaque,
        "busy" => Fault::Busy,
        "forgotten" => Fault::Forgotten,
        "too-large" => Fault::TooLarge,
        // A newer peer may have further ones, with these fields.
        _ => Fault::Failed(RemoteError {
            kind: of_error(&KIND),
            message: of_error(&MESSAGE),
            trace: text(properties, &TRACE),
            data: (!message.body.is_empty()).then(|| message.body.clone().into_bytes()),
        }),
    })
}

fn text(properties: &MessageProperties, name: &str) -> Option<String> {
    let value = properties.headers.get(name)?;
    value.as_str().map(str::to_owned)
}

fn text_of(id: CallId) -> ShortStr {
    ShortStr::try_from(id.to_string()).unwrap_or_default()
}
