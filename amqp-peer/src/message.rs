//! Messages, and their identifiers.

use std::{fmt, str::FromStr, time::Duration};

use amqp_core::{
    Body, EncodedProperties,
    protocol::basic::Properties as Wire,
    wire::{DecodeError, FieldTable, ShortStr, ShortStrError},
};

/// The identifier of a message, unique among the messages of all peers: 16 bytes, of which the
/// sender's process has drawn 8 at random and counts the others.
///
/// Its text is 32 hexadecimal digits, the message id on the wire.
///
/// ```
/// use amqp_peer::MessageId;
///
/// let id = MessageId::from_bytes([7; 16]);
/// assert_eq!(id.to_string().parse(), Ok(id));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; 16]);

const HEX: &[u8; 16] = b"0123456789abcdef";

impl MessageId {
    /// Creates an identifier from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) fn to_hex(self) -> [u8; 32] {
        let mut text = [b'0'; 32];
        for (digits, byte) in text.chunks_exact_mut(2).zip(self.0) {
            if let [high, low] = digits {
                *high = HEX.get(usize::from(byte >> 4)).copied().unwrap_or(b'0');
                *low = HEX.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
            }
        }
        text
    }

    pub(crate) fn from_hex(text: &[u8]) -> Option<Self> {
        let text: &[u8; 32] = text.try_into().ok()?;
        let (mut bytes, mut wrong) = ([0; 16], 0);
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            if let [high, low] = digits {
                let (high, low) = (digit_value(*high), digit_value(*low));
                wrong |= high | low;
                *byte = (high << 4) | (low & 15);
            }
        }
        (wrong <= 15).then_some(Self(bytes))
    }
}

/// The value of a hexadecimal digit in lower case; 255 if it is none. Without branches.
const fn digit_value(digit: u8) -> u8 {
    let number = digit.wrapping_sub(b'0');
    let letter = digit.wrapping_sub(b'a');
    match (number, letter) {
        (0..10, _) => number,
        (_, 0..6) => letter + 10,
        _ => u8::MAX,
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_hex();
        f.pad(str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// A text that is not a [`MessageId`].
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[error("a message id has 32 hexadecimal digits in lower case")]
pub struct MessageIdError;

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        Self::from_hex(text.as_bytes()).ok_or(MessageIdError)
    }
}

/// A message from one peer to another: a body, its treatment, and descriptive properties.
///
/// ```
/// use std::time::Duration;
///
/// use amqp_peer::Message;
///
/// let message = Message::new("hello").ttl(Duration::from_secs(600)).persistent();
/// assert_eq!(message.body, "hello");
/// assert!(message.is_persistent);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The body.
    pub body: Body,
    /// The time to live, of which only the time without a link to the receiver counts by default.
    /// Zero means now or never: the message is refused without a link, and dropped if the link ends
    /// before it is acknowledged. In a received message, the time that remained when it was sent.
    /// Default `None`: without limit.
    pub ttl: Option<Duration>,
    /// Whether the message is stored until it is acknowledged, to survive the process. Default
    /// `false`.
    pub is_persistent: bool,
    /// `None` if all are default: most messages have none.
    properties: Option<Box<MessageProperties>>,
}

/// The descriptive properties of a message, which peers carry and do not interpret.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MessageProperties {
    /// The kind of the message, `type` on the wire. Kinds that begin with `rpc.` are those of
    /// remote calls. Default empty: unset.
    pub kind: ShortStr,
    /// The identifier of a related message, or of a call. Default empty: unset.
    pub correlation_id: ShortStr,
    /// The MIME type of the body. Default empty: unset.
    pub content_type: ShortStr,
    /// Further fields of the application. Names that begin with `x-peer-` are reserved. Default
    /// empty.
    pub headers: FieldTable,
}

static NO_PROPERTIES: MessageProperties = MessageProperties {
    kind: ShortStr::new(),
    correlation_id: ShortStr::new(),
    content_type: ShortStr::new(),
    headers: FieldTable::new(),
};

impl Message {
    /// Creates a transient message without a limit of its time to live.
    #[must_use]
    pub fn new(body: impl Into<Body>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// Sets `ttl`.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Sets `is_persistent`.
    #[must_use]
    pub const fn persistent(mut self) -> Self {
        self.is_persistent = true;
        self
    }

    /// Sets [`kind`](MessageProperties::kind), unless it is longer than 255 bytes.
    ///
    /// # Errors
    /// [`ShortStrError`] if it is longer.
    pub fn kind<S>(mut self, kind: S) -> Result<Self, ShortStrError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        self.properties_mut().kind = kind.try_into()?;
        Ok(self)
    }

    /// Sets [`correlation_id`](MessageProperties::correlation_id), unless it is longer than 255
    /// bytes.
    ///
    /// # Errors
    /// [`ShortStrError`] if it is longer.
    pub fn correlation_id<S>(mut self, correlation_id: S) -> Result<Self, ShortStrError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        self.properties_mut().correlation_id = correlation_id.try_into()?;
        Ok(self)
    }

    /// Sets [`content_type`](MessageProperties::content_type), unless it is longer than 255 bytes.
    ///
    /// # Errors
    /// [`ShortStrError`] if it is longer.
    pub fn content_type<S>(mut self, content_type: S) -> Result<Self, ShortStrError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        self.properties_mut().content_type = content_type.try_into()?;
        Ok(self)
    }

    /// Sets [`headers`](MessageProperties::headers).
    #[must_use]
    pub fn headers(mut self, headers: impl Into<FieldTable>) -> Self {
        self.properties_mut().headers = headers.into();
        self
    }

    /// Returns the descriptive properties.
    #[must_use]
    pub fn properties(&self) -> &MessageProperties {
        self.properties.as_deref().unwrap_or(&NO_PROPERTIES)
    }

    /// Returns the descriptive properties, to change them.
    pub fn properties_mut(&mut self) -> &mut MessageProperties {
        self.properties.get_or_insert_default()
    }

    /// Whether all descriptive properties are default.
    pub(crate) const fn is_plain(&self) -> bool {
        self.properties.is_none()
    }

    /// The memory that the message counts as, in bytes: body, properties, and a fixed overhead.
    #[must_use]
    pub fn memory(&self) -> usize {
        let properties = self.properties.as_deref().map_or(0, |properties| {
            let MessageProperties {
                kind,
                correlation_id,
                content_type,
                headers,
            } = properties;
            let texts = kind.len() + correlation_id.len() + content_type.len();
            size_of::<MessageProperties>() + texts + headers.encoded_len()
        });
        MESSAGE_OVERHEAD + self.body.len() + properties
    }

    /// Returns the descriptive properties and the flag of persistence in AMQP's wire format, for a
    /// storage. The time to live is not among them.
    #[must_use]
    pub fn to_wire(&self) -> EncodedProperties {
        EncodedProperties::from(&self.wire())
    }

    /// The properties on the wire without those of the peers' protocol.
    pub(crate) fn wire(&self) -> Wire {
        let mut wire = Wire::default();
        if self.is_persistent {
            wire.delivery_mode = Some(PERSISTENT);
        }
        if let Some(properties) = &self.properties {
            let set = |text: &ShortStr| (!text.is_empty()).then(|| text.clone());
            wire.kind = set(&properties.kind);
            wire.correlation_id = set(&properties.correlation_id);
            wire.content_type = set(&properties.content_type);
            wire.headers = (!properties.headers.is_empty()).then(|| properties.headers.clone());
        }
        wire
    }

    /// Creates a message from its body and the result of [`to_wire`](Self::to_wire).
    ///
    /// # Errors
    /// [`DecodeError`] if the properties do not decode.
    pub fn from_wire(
        body: impl Into<Body>,
        properties: &EncodedProperties,
    ) -> Result<Self, DecodeError> {
        Ok(Self::from_properties(body.into(), properties.decode()?))
    }

    pub(crate) fn from_properties(body: Body, wire: Wire) -> Self {
        let is_plain = wire.kind.is_none()
            && wire.correlation_id.is_none()
            && wire.content_type.is_none()
            && wire.headers.is_none();
        let properties = (!is_plain).then(|| {
            Box::new(MessageProperties {
                kind: wire.kind.unwrap_or_default(),
                correlation_id: wire.correlation_id.unwrap_or_default(),
                content_type: wire.content_type.unwrap_or_default(),
                headers: wire.headers.unwrap_or_default(),
            })
        });
        Self {
            body,
            ttl: None,
            is_persistent: wire.delivery_mode == Some(PERSISTENT),
            properties,
        }
    }
}

/// The delivery mode of a persistent message (section 1.8.3 of the protocol reference).
pub(crate) const PERSISTENT: u8 = 2;

/// The memory of a queued message in addition to its body and properties, in bytes.
const MESSAGE_OVERHEAD: usize = 128;
